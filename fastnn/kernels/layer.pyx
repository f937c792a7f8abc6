"""The one switch from a layer's form to its kernels: forward, backward by weight and backward by input.

A driver asks for slices s to end of a layer and knows no form; the kernels behind the switch know no thread.  Slices
are of units, or of inputs if by_inputs.  All parameters are one vector, and each layer knows its offsets.  Only layers
in panels take inputs and outputs that are cut; the others are given one cut at a time.
"""

from cython cimport floating
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from .activations cimport activate, backprop_activation
from .affine cimport (
    affine_backward_input, affine_backward_weight, affine_forward, panel_begin, panels_backward_input,
    panels_backward_weight, panels_forward)
from .dense cimport (
    backward_share, dense_backward_input, dense_backward_weight, dense_forward, forward_share, transpose)
from .dropout cimport drop_units
from .plan cimport N_SLICES, PANELS, SPARSE, TRANSPOSED, CompiledPlan, Layer, Slice
from .rows cimport Cut, RowsAhead
from .sparse cimport (
    add_sparse_product, columns_backward_weight, scale_rows, sparse_backward_weight, sparse_forward)
from .updates cimport limit_norms


cdef inline Py_ssize_t* slice_bounds(const Layer* layer, int s, int end, Py_ssize_t* bounds) noexcept nogil:
    # First unit of each of slices s to end, and the end, all relative to slice s.
    cdef int i
    for i in range(s, end):
        bounds[i - s] = layer.slices[i].begin - layer.slices[s].begin
    bounds[end - s] = layer.slices[end - 1].end - layer.slices[s].begin
    return bounds


cdef void layer_forward(const Layer* layer, const Inputs* rows, int s, int end, const floating* parameters,
                        const floating* b, floating* Z, const Cut* z) noexcept nogil:
    # Z (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b (n_out,), where n_out, or n_in if by_inputs, counts only the
    # slices' own.  X, b and Z point to their first; a NULL b is 0.
    cdef const Slice* own = &layer.slices[s]
    cdef const floating* X = <const floating*> rows.X
    cdef const floating* W = parameters + own.weight
    cdef Py_ssize_t width = layer.slices[end - 1].end - own.begin
    cdef Py_ssize_t n_in = width if layer.by_inputs else layer.n_in
    cdef Py_ssize_t n_out = layer.n_out if layer.by_inputs else width
    cdef Py_ssize_t[N_SLICES + 1] bounds
    cdef RowsAhead ahead
    if layer.form == SPARSE and layer.n_embedded:
        affine_forward(X, rows.cut.stride, W + (n_in - layer.n_embedded) * own.stride, own.stride, b, Z, z.stride,
                       rows.n, layer.n_embedded, n_out)
        add_sparse_product(rows.store, rows.store_order, rows.first, rows.n, W, own.stride, Z, z.stride, n_out)
    elif layer.form == SPARSE:
        sparse_forward(rows.store, rows.store_order, rows.first, rows.n, W, own.stride, b, Z, z.stride, n_out)
    elif layer.form == TRANSPOSED:
        ahead = forward_share(&rows.ahead)
        dense_forward(X, rows.order, rows.cut.stride, W, own.stride, b, Z, z.stride, rows.n, n_in, n_out, &ahead)
    elif layer.form == PANELS:
        panels_forward(X, &rows.cut, W, b, Z, z, rows.n, n_in, slice_bounds(layer, s, end, bounds), end - s,
                       &rows.ahead)
    else:
        affine_forward(X, rows.cut.stride, W, own.stride, b, Z, z.stride, rows.n, n_in, n_out)


cdef void layer_backward_weight(const Layer* layer, const Inputs* rows, int s, int end, const floating* dZ,
                                const Cut* z, floating* target, floating alpha, floating beta) noexcept nogil:
    # dW (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW, where dW is part of target; slices as above
    cdef const Slice* own = &layer.slices[s]
    cdef const floating* X = <const floating*> rows.X
    cdef floating* dW = target + own.weight
    cdef Py_ssize_t width = layer.slices[end - 1].end - own.begin
    cdef Py_ssize_t n_in = width if layer.by_inputs else layer.n_in
    cdef Py_ssize_t n_out = layer.n_out if layer.by_inputs else width
    cdef Py_ssize_t[N_SLICES + 1] bounds
    cdef RowsAhead ahead
    cdef int i
    if layer.n_embedded:
        n_in -= layer.n_embedded
        affine_backward_weight(X, rows.cut.stride, dZ, z.stride, dW + n_in * own.stride, own.stride, rows.n,
                               layer.n_embedded, n_out, alpha, beta)
    if layer.form == SPARSE and rows.n_columns:
        scale_rows(dW, own.stride, n_in, n_out, beta)
        for i in range(rows.n_columns):
            columns_backward_weight(&rows.columns[i], dZ, z.stride, dW, own.stride, n_out, alpha)
    elif layer.form == SPARSE:
        sparse_backward_weight(rows.store, rows.store_order, rows.first, rows.n, dZ, z.stride, dW, own.stride, n_out,
                               alpha, beta)
    elif layer.form == TRANSPOSED:
        ahead = backward_share(&rows.ahead)
        dense_backward_weight(X, rows.order, rows.cut.stride, dZ, z.stride, dW, own.stride, rows.n, n_in, n_out, alpha,
                              beta, &ahead)
    elif layer.form == PANELS:
        panels_backward_weight(X, &rows.cut, dZ, z, dW, rows.n, n_in, slice_bounds(layer, s, end, bounds), end - s,
                               alpha, beta)
    else:
        affine_backward_weight(X, rows.cut.stride, dZ, z.stride, dW, own.stride, rows.n, n_in, n_out, alpha, beta)


cdef void layer_backward_input(const Layer* layer, const floating* dZ, const Cut* z, const floating* parameters,
                               Py_ssize_t begin, Py_ssize_t end, floating* dX, const Cut* x, Py_ssize_t n,
                               floating* spare) noexcept nogil:
    # dX (n, n_in) = dZ (n, n_out) @ W.T (n_out, n_in), for inputs begin to end only; dX points to input begin.  Of the
    # first layer, only the embedded inputs have a gradient.  spare has room for n * n_out numbers.
    cdef const floating* W = parameters + layer.weight
    cdef Py_ssize_t[N_SLICES + 1] bounds
    if layer.form == TRANSPOSED:
        dense_backward_input(dZ, W + begin, layer.n_in, dX, x.stride, spare, n, end - begin, layer.n_out)
    elif layer.form == PANELS:
        panels_backward_input(dZ, z, W, layer.n_in, slice_bounds(layer, 0, layer.n_slices, bounds), layer.n_slices,
                              begin, end - begin, dX, x, n)
    else:
        affine_backward_input(dZ, z.stride, W + begin * layer.n_out, layer.n_out, dX, x.stride, n, end - begin,
                              layer.n_out)


cdef void group_backward_input(const Layer* layer, int group, const floating* dZ, const Cut* z,
                               const floating* parameters, Py_ssize_t begin, Py_ssize_t end, floating* dX, const Cut* x,
                               Py_ssize_t n) noexcept nogil:
    # dX (n, n_in) = dZ (n, n_out) @ W.T (n_out, n_in) for a group's units only, of a layer in panels, whose slices are
    # each a cut of dZ; begin, end and dX as above
    cdef int s = first_of_group(layer, group), last = first_of_group(layer, group + 1)
    cdef Py_ssize_t[N_SLICES + 1] bounds
    panels_backward_input(dZ + s * z.next, z, parameters + layer.slices[s].weight, layer.n_in,
                          slice_bounds(layer, s, last, bounds), last - s, begin, end - begin, dX, x, n)


cdef void activate_units(const Layer* layer, floating* Z, floating* slopes, Py_ssize_t stride, Py_ssize_t first,
                         Py_ssize_t n, Py_ssize_t begin, Py_ssize_t end, bint is_whole, uint64_t key) noexcept nogil:
    # Y = activation(Z), then dropout, for units begin to end of n rows from position first on.  slopes, unless NULL,
    # receive the derivative.  is_whole: the rows of Z hold no other units.
    cdef Py_ssize_t i
    if is_whole:
        activate(layer.activation, Z, slopes, n * stride)
    else:
        for i in range(n):
            activate(layer.activation, Z + i * stride, slopes + i * stride if slopes != NULL else slopes, end - begin)
    if slopes != NULL and layer.dropout > 0:
        drop_units(Z, slopes, stride, n, end - begin, layer.dropout, key, layer.index, first, begin, layer.n_out)


cdef void backprop_units(const Layer* layer, const floating* Y, const floating* slopes, floating* dY,
                         Py_ssize_t stride, Py_ssize_t n, Py_ssize_t n_units, bint is_whole) noexcept nogil:
    # dZ = dY * activation'(Z), in place
    cdef Py_ssize_t i
    if is_whole:
        backprop_activation(layer.activation, Y, slopes, dY, n * stride)
    else:
        for i in range(n):
            backprop_activation(layer.activation, Y + i * stride, slopes + i * stride if slopes != NULL else slopes,
                                dY + i * stride, n_units)


cdef void limit_slice(const Layer* layer, int s, double limit, floating* parameters, floating* scratch) noexcept nogil:
    # Shortens the weights into each unit of a slice to the limit.  scratch has room for a row of weights and ends as 0.
    cdef const Slice* own = &layer.slices[s]
    cdef floating* W = parameters + own.weight
    cdef Py_ssize_t units = own.end - own.begin, unit = 0, row, p = 0
    if layer.form != PANELS:
        limit_norms(W, own.stride, own.n_rows, own.n_columns, layer.form == TRANSPOSED, scratch, limit)
        memset(scratch, 0, own.n_columns * sizeof(floating))
        return
    while unit < units:
        row = panel_begin(units, p + 1, sizeof(floating)) - unit
        limit_norms(W + layer.n_in * unit, row, layer.n_in, min(row, units - unit), False, scratch, limit)
        memset(scratch, 0, row * sizeof(floating))
        p, unit = p + 1, unit + row


cdef void copy_rows(const floating* A, Py_ssize_t stride, floating* A_out, Py_ssize_t stride_out, Py_ssize_t n,
                    Py_ssize_t width) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        memcpy(A_out + i * stride_out, A + i * stride, width * sizeof(floating))


cdef void copy_slice(const Layer* layer, const Slice* own, bint back, const floating* vector, const floating* W,
                     floating* vector_out, floating* W_out) noexcept nogil:
    # Copies a slice's weights from W, as stored, to vector_out, or back from vector to W_out, panel by panel; in other
    # forms a slice is a single panel.
    cdef Py_ssize_t units = own.end - own.begin, unit = 0, row = own.stride, place = own.weight, p = 0, n
    while unit < units:
        if layer.form == PANELS:
            row = panel_begin(units, p + 1, sizeof(floating)) - unit
        n = min(row, units - unit)
        if back:
            copy_rows(vector + place, row, W_out + own.begin + unit, layer.n_out, layer.n_in, n)
        else:
            copy_rows(W + own.begin + unit, layer.n_out, vector_out + place, row, layer.n_in, n)
        p, unit, place = p + 1, unit + row, place + layer.n_in * row


cdef void rearrange_layer(const Layer* layer, const Layer* stored, bint back, const floating* vector,
                          floating* vector_out) noexcept nogil:
    cdef const Layer* source = layer if back else stored
    cdef const Layer* goal = stored if back else layer
    cdef const floating* W = vector + source.weight
    cdef floating* W_out = vector_out + goal.weight
    cdef int s
    memcpy(vector_out + goal.bias, vector + source.bias, layer.units * sizeof(floating))
    memcpy(W_out - layer.embeddings_size, W - layer.embeddings_size, layer.embeddings_size * sizeof(floating))
    if layer.normalises:
        memcpy(vector_out + goal.norm, vector + source.norm, 3 * layer.units * sizeof(floating))
    if layer.form == TRANSPOSED:
        transpose(W, W_out, stored.n_out if back else stored.n_in, stored.n_in if back else stored.n_out)
    elif layer.form != PANELS and layer.slices[0].stride == layer.units:
        memcpy(W_out, W, stored.weight_size * sizeof(floating))
    else:
        for s in range(layer.n_slices):
            copy_slice(layer, &layer.slices[s], back, vector, W, vector_out, W_out)


def rearrange(CompiledPlan plan, CompiledPlan stored, bint back, const floating[::1] vector, floating[::1] vector_out):
    """vector_out = the parameters in vector, copied from the stored form into the plan's forms.

    plan, stored : CompiledPlan of the same layers, the second with all of them as stored
    back : copy from the plan's forms into the stored form instead
    """
    cdef int k
    with nogil:
        for k in range(plan.plan.n_layers):
            rearrange_layer(&plan.plan.layers[k], &stored.plan.layers[k], back, &vector[0], &vector_out[0])
