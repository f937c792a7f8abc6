"""How the weights stand while training, and the slices of units that threads own.

The slices depend on the widths of the layers alone.  No two threads should write to the same line of the cache.  So the
first weight may stand by slices, in each of which a row begins a line, for sparse rows; for wide layers on dense rows
each slice is in panels (see affine.pyx), and for narrow ones the weight may stand transposed (see dense.pyx): then the
units of a thread are neighbours.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.string cimport memcpy, memset

from .affine cimport has_panels, panel_begin, panels_backward_weight, panels_forward, panels_size
from .dense cimport transpose_columns
from .model cimport Model
from .rows cimport RowsAhead
from .updates cimport limit_norms

cdef enum:
    PARALLEL_COPY = 100000  # numbers from which on more than one thread copies them
    LONG_OUTPUT = 64    # inputs of an output layer from which on sums along them, and no BLAS, are faster


#: How weights may stand while training.
LAYOUTS = {"stored": STORED, "transposed": TRANSPOSED, "slices": SLICES}
if has_panels():
    LAYOUTS["panels"] = PANELS


cpdef bint transposes_output(const Py_ssize_t[::1] sizes) noexcept:
    """Whether the output layer's weight is transposed in all layouts but "stored"."""
    cdef Py_ssize_t n_layers = sizes.shape[0] - 1
    return n_layers > 1 and sizes[n_layers - 1] >= LONG_OUTPUT


cdef int slices_at_most(const Model* model) noexcept nogil:
    cdef Py_ssize_t k
    cdef int most = 1
    for k in range(1, model.n_layers):
        most = max(most, slices_of(model.sizes[k]))
    return most


cdef Py_ssize_t first_size(Py_ssize_t n_in, Py_ssize_t n_out, int layout, Py_ssize_t number_size) noexcept nogil:
    # Numbers that the first weight takes.
    if layout == SLICES or layout == PANELS:
        return sliced_begin(n_in, n_out, slices_of(n_out), layout, number_size)
    return n_in * n_out


cdef void arrange(Model* model, Py_ssize_t number_size) noexcept nogil:
    # Tells a model whose weights stand as they are stored how long they are in its layout.
    cdef Py_ssize_t n_in = model.sizes[0], n_out = model.sizes[1]
    cdef Py_ssize_t longer = first_size(n_in, n_out, model.layout, number_size) - n_in * n_out
    model.first_size += longer
    model.norms += longer
    model.n_parameters += longer


cdef Block block_of(const Model* model, Py_ssize_t k, int s, bint is_weight, const floating* number) noexcept nogil:
    # What belongs to slice s of layer k.  Hidden layers go by their units, the output layer by those below it; its bias
    # is one block.  The last argument is there for its type alone.
    cdef Py_ssize_t last = model.n_layers - 1, n_in = model.sizes[k], n_out = model.sizes[k + 1]
    cdef Py_ssize_t width = n_out if k < last else n_in, layer = layer_begin(model, k)
    cdef Py_ssize_t begin = slice_begin(width, s), end = slice_begin(width, s + 1)
    cdef Block block
    block.is_weight, block.by_units = is_weight, False
    if k == last and not is_weight:
        block.begin, block.stride, block.n_rows, block.n_columns = bias_begin(model, k), n_out, 1, n_out
    elif not is_weight:
        block.begin, block.stride, block.n_rows, block.n_columns = bias_begin(model, k) + begin, n_out, 1, end - begin
    elif k == last and model.output_transposed:
        block.begin, block.stride, block.n_rows, block.n_columns = layer + begin, n_in, n_out, end - begin
    elif k == last:
        block.begin, block.stride, block.n_rows, block.n_columns = layer + begin * n_out, n_out, end - begin, n_out
    elif k == 0 and model.layout == SLICES:
        # What fills up a line is 0 and stays so.
        block.begin, block.n_rows = sliced_begin(n_in, width, s, SLICES, sizeof(floating)), n_in
        block.stride = block.n_columns = sliced_row(width, s, sizeof(floating))
    elif k == 0 and model.layout == PANELS:
        # And so is what fills up a panel.
        block.begin, block.n_rows = sliced_begin(n_in, width, s, PANELS, sizeof(floating)), 1
        block.stride = block.n_columns = panels_size(n_in, end - begin, sizeof(floating))
    elif k == 0 and model.layout == TRANSPOSED:
        block.by_units = True
        block.begin, block.n_rows = begin * n_in, end - begin
        block.stride = block.n_columns = n_in
    else:
        block.begin, block.stride, block.n_rows, block.n_columns = layer + begin, n_out, n_in, end - begin
    return block


cdef inline Py_ssize_t* bounds_of(Py_ssize_t width, int first, int end, Py_ssize_t* bounds) noexcept nogil:
    # Where slices first to end begin, counted from the first.
    cdef int s
    for s in range(first, end + 1):
        bounds[s - first] = slice_begin(width, s) - slice_begin(width, first)
    return bounds


cdef void slices_forward(const Model* model, int first, int end, const floating* X, const floating* W,
                         const floating* b, floating* Z, Py_ssize_t z_stride, Py_ssize_t n,
                         const RowsAhead* ahead) noexcept nogil:
    # Slices first to end of the first layer, in panels: Z = X (n, n_in) @ W + b, where Z and b begin with these slices;
    # meanwhile the rows ahead, if any, are fetched
    cdef Py_ssize_t[N_SLICES + 1] bounds
    cdef Py_ssize_t n_in = model.sizes[0], width = model.sizes[1]
    panels_forward(X, n_in, W + sliced_begin(n_in, width, first, PANELS, sizeof(floating)), b, Z, z_stride, n, n_in,
                   bounds_of(width, first, end, bounds), end - first, ahead)


cdef void slices_backward(const Model* model, int first, int end, const floating* X, const floating* dZ,
                          Py_ssize_t z_stride, floating* dW, Py_ssize_t n, floating alpha,
                          floating beta) noexcept nogil:
    # The same slices of dW = alpha * X.T (n_in, n) @ dZ + beta * dW, where dZ begins with them
    cdef Py_ssize_t[N_SLICES + 1] bounds
    cdef Py_ssize_t n_in = model.sizes[0], width = model.sizes[1]
    panels_backward_weight(X, n_in, dZ, z_stride, dW + sliced_begin(n_in, width, first, PANELS, sizeof(floating)), n,
                           n_in, bounds_of(width, first, end, bounds), end - first, alpha, beta)


cdef void limit_panels(const Model* model, int first, int end, double limit, floating* parameters,
                       floating* scratch) noexcept nogil:
    # Of slices first to end of the first weight, in panels; scratch has room for a panel's row, and is 0 again.
    cdef Py_ssize_t n_in = model.sizes[0], width = model.sizes[1], units, unit, row, p
    cdef floating* slice_
    cdef int s
    for s in range(first, end):
        units = slice_begin(width, s + 1) - slice_begin(width, s)
        slice_ = parameters + sliced_begin(n_in, width, s, PANELS, sizeof(floating))
        p = unit = 0
        while unit < units:
            row = panel_begin(units, p + 1, sizeof(floating)) - unit
            limit_norms(slice_ + n_in * unit, row, n_in, min(row, units - unit), False, scratch, limit)
            memset(scratch, 0, row * sizeof(floating))
            p, unit = p + 1, unit + row


def vector_size(const Py_ssize_t[::1] sizes, int layout, Py_ssize_t number_size):
    """Numbers of a vector that has the weights in one of LAYOUTS."""
    cdef Py_ssize_t k, total = first_size(sizes[0], sizes[1], layout, number_size) + sizes[1]
    for k in range(1, sizes.shape[0] - 1):
        total += (sizes[k] + 1) * sizes[k + 1]
    return total


cdef void copy_rows(const floating* A, Py_ssize_t stride, floating* A_out, Py_ssize_t stride_out, Py_ssize_t n,
                    Py_ssize_t width) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        memcpy(A_out + i * stride_out, A + i * stride, width * sizeof(floating))


def rearrange(const Py_ssize_t[::1] sizes, int layout, bint back, const floating[::1] vector,
              floating[::1] vector_out, int n_threads=1):
    """vector_out = vector (n_parameters,) with the weights in one of LAYOUTS.

    back : vector has them in that layout, vector_out as they are stored
    """
    cdef Py_ssize_t n_in = sizes[0], n_out = sizes[1], size = n_in * n_out, begin, end, units, p, row, rest, sliced, i
    cdef Py_ssize_t n_layers = sizes.shape[0] - 1, n_last = sizes[n_layers - 1], n_classes = sizes[n_layers]
    cdef int s, part, n_parts = 1 if size < PARALLEL_COPY else n_threads
    cdef bint transposes = layout != STORED and transposes_output(sizes)
    with nogil:
        sliced = first_size(n_in, n_out, layout, sizeof(floating))
        rest = min(vector.shape[0], vector_out.shape[0]) - size
        if transposes:
            rest -= (sizes[n_layers - 1] + 1) * sizes[n_layers]
        memcpy(&vector_out[0] + (size if back else sliced), &vector[0] + (sliced if back else size),
               rest * sizeof(floating))
        if transposes:
            i, begin = (sliced if back else size) + rest, (size if back else sliced) + rest
            if back:
                transpose_columns(&vector[i], &vector_out[begin], n_classes, n_last, 0, n_last)
            else:
                transpose_columns(&vector[i], &vector_out[begin], n_last, n_classes, 0, n_classes)
            memcpy(&vector_out[begin + n_last * n_classes], &vector[i + n_last * n_classes],
                   n_classes * sizeof(floating))
        if layout == TRANSPOSED:
            for part in prange(n_parts, num_threads=n_parts, schedule="static"):
                if back:
                    transpose_columns(&vector[0], &vector_out[0], n_out, n_in, n_in * part // n_parts,
                                      n_in * (part + 1) // n_parts)
                else:
                    transpose_columns(&vector[0], &vector_out[0], n_in, n_out, n_out * part // n_parts,
                                      n_out * (part + 1) // n_parts)
        elif layout == STORED:
            memcpy(&vector_out[0], &vector[0], size * sizeof(floating))
        else:
            for s in range(slices_of(n_out)):
                begin, end = slice_begin(n_out, s), slice_begin(n_out, s + 1)
                sliced, units, p = sliced_begin(n_in, n_out, s, layout, sizeof(floating)), end - begin, 0
                # A slice is a panel where it has no others.
                while begin < end:
                    row = sliced_row(n_out, s, sizeof(floating))
                    if layout == PANELS:
                        row = (panel_begin(units, p + 1, sizeof(floating)) - panel_begin(units, p, sizeof(floating)))
                    copy_rows(&vector[sliced if back else begin], row if back else n_out,
                              &vector_out[begin if back else sliced], n_out if back else row, n_in,
                              min(row, end - begin))
                    begin, sliced, p = begin + row, sliced + n_in * row, p + 1


def slice_bounds(Py_ssize_t width):
    """Where the slices of a layer begin, and where the last ends."""
    return [slice_begin(width, s) for s in range(slices_of(width) + 1)]
