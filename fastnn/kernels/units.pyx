"""Batches that are not cut by rows: every thread takes all rows, and owns slices of the hidden units.

Most are too small for it, and are one block.  Large ones of sparse rows go block by block, and the step follows.

With one hidden layer a step needs a single barrier.  A member of the team computes its own units and what
they add to the logits; behind the barrier each member adds these parts up and finds the gradient of the
logits for itself, and from there on touches only its own columns of the first weight and its own rows of
the second.  Deeper networks wait once more a layer and direction.  The slices depend on the widths of the
layers alone and their parts are added up in order, so the bits do not depend on the number of threads.

No two members should write to the same line of the cache.  So the first weight may stand by slices, in each of which a
row begins a line, for sparse rows; for wide layers on dense rows each slice is in panels, and for narrow ones the
weight may stand transposed: then a member's units are neighbours.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.math cimport isfinite
from libc.stdint cimport int32_t
from libc.string cimport memcpy, memset

from .activations cimport activate, backprop_activation
from .affine cimport (
    affine_backward_bias, affine_backward_input, affine_backward_weight, affine_forward, has_panels,
    panel_begin, panels_backward_weight, panels_forward, panels_size)
from .dense cimport dense_backward_input, dense_backward_weight, dense_forward, transpose_columns
from .dropout cimport drop_units
from .losses cimport loss_rows, sum_of_weights
from .model cimport Batch, Model, leaves_slopes, now, weight_size
from .rows cimport CSR, LINE_BYTES, dense_rows, lie_ready
from .sparse cimport (
    ColumnStore, block_at, column_work_size, columns_backward_weight, columns_from, columns_in, scale_rows,
    sort_by_column, sparse_backward_weight, sparse_forward)
from .updates cimport Step, StepStore, clipped, limit_norms, penalty, step_at, sum_of_squares, update_range

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    static inline int fastnn_member(void) { return omp_get_thread_num(); }
    static inline int fastnn_members(void) { return omp_get_num_threads(); }
    #else
    static inline int fastnn_member(void) { return 0; }
    static inline int fastnn_members(void) { return 1; }
    #endif
    static inline void fastnn_barrier(void) {
    #ifdef _OPENMP
    #pragma omp barrier
    #endif
    }
    """
    int fastnn_member() noexcept nogil
    int fastnn_members() noexcept nogil
    void fastnn_barrier() noexcept nogil

cdef enum:
    PARALLEL_COPY = 100000  # numbers from which on more than one thread copies them
    LONG_OUTPUT = 64    # inputs of an output layer from which on sums along them, and no BLAS, are faster
    SORT_LINES = 6      # Sorting a non-zero takes as long as multiplying it with so many lines of numbers.
    PANEL_LINES = 8     # of a row of weights, that are multiplied at once with sparse rows
    STEP_COLUMNS = 16   # of sparse rows, whose weights are stepped on together


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


cdef inline Py_ssize_t to_lines(Py_ssize_t n, Py_ssize_t number_size) noexcept nogil:
    # So many numbers in whole lines of the cache.
    cdef Py_ssize_t line = LINE_BYTES // number_size
    return (n + line - 1) // line * line


cdef inline Py_ssize_t sliced_row(Py_ssize_t width, int s, Py_ssize_t number_size) noexcept nogil:
    # Distance of two rows of the first weight within slice s.  Where a row is taken in several panels, the lines of one
    # panel should not all want the same places in the cache, as they do at powers of two.
    cdef Py_ssize_t row = to_lines(slice_begin(width, s + 1) - slice_begin(width, s), number_size)
    cdef Py_ssize_t line = LINE_BYTES // number_size
    return row + line if row > PANEL_LINES * line and row // line % 2 == 0 else row


cdef Py_ssize_t sliced_begin(Py_ssize_t n_in, Py_ssize_t width, int s, int layout,
                             Py_ssize_t number_size) noexcept nogil:
    # Where slice s of the first weight begins, in a layout by slices.
    cdef Py_ssize_t total = 0
    cdef int t
    for t in range(s):
        if layout == PANELS:
            total += panels_size(n_in, slice_begin(width, t + 1) - slice_begin(width, t), number_size)
        else:
            total += n_in * sliced_row(width, t, number_size)
    return total


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


cdef inline Py_ssize_t* bounds_of(Py_ssize_t width, int first, int end, Py_ssize_t* bounds) noexcept nogil:
    # Where slices first to end begin, counted from the first.
    cdef int s
    for s in range(first, end + 1):
        bounds[s - first] = slice_begin(width, s) - slice_begin(width, first)
    return bounds


cdef void slices_forward(const Model* model, int first, int end, const floating* X, const floating* W,
                         const floating* b, floating* Z, Py_ssize_t z_stride, Py_ssize_t n) noexcept nogil:
    # Slices first to end of the first layer, in panels: Z = X (n, n_in) @ W + b, where Z and b begin with these slices
    cdef Py_ssize_t[N_SLICES + 1] bounds
    cdef Py_ssize_t n_in = model.sizes[0], width = model.sizes[1]
    panels_forward(X, n_in, W + sliced_begin(n_in, width, first, PANELS, sizeof(floating)), b, Z, z_stride, n, n_in,
                   bounds_of(width, first, end, bounds), end - first)


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


cdef Py_ssize_t rows_work_size(const Model* model, Py_ssize_t batch_size) noexcept nogil:
    # One batch's rows: gathered, or each member's share of them by column.
    if model.nonzeros:
        return to_lines(N_SLICES * column_work_size(model.sizes[0], model.nonzeros), sizeof(float))
    return to_lines(batch_size * model.sizes[0], sizeof(float))


cdef Py_ssize_t hidden_work_size(const Model* model, Py_ssize_t batch_size) noexcept nogil:
    # Outputs of the hidden layers for one batch, with room for each member's units in whole lines of the cache.
    cdef Py_ssize_t k, hidden = N_SLICES * to_lines(1, sizeof(float))
    for k in range(1, model.n_layers):
        hidden += model.sizes[k]
    return to_lines(batch_size * hidden, sizeof(float))


cdef Py_ssize_t units_work_size(const Model* model, Py_ssize_t batch_size) noexcept nogil:
    # The rows of three batches (one that slow members still read, the current one, the next; sparse ones do without the
    # next), outputs, gradients and slopes of the hidden layers, parts of the logits of two batches, each member's
    # gradient of the logits, twice, and squares of gradients.
    return (3 * rows_work_size(model, batch_size)
            + (3 if model.has_slopes else 2) * hidden_work_size(model, batch_size)
            + batch_size * 4 * N_SLICES * model.sizes[model.n_layers] + n_blocks(model))


cdef Py_ssize_t share_begin(const Model* model, Py_ssize_t n, int member, int n_members,
                            Py_ssize_t number_size) noexcept nogil:
    # Where the member's share of n rows to prepare begins.  Slices of units are of several widths, and members with
    # less to multiply sort more of the sparse rows.  The bits do not depend on it.
    cdef Py_ssize_t width = model.sizes[1], lines = 0, own
    cdef int m, s
    cdef double begun = 0
    if not model.nonzeros or member == n_members:
        return n * member // n_members
    for s in range(slices_of(width)):
        lines += sliced_row(width, s, number_size) * number_size // LINE_BYTES
    for m in range(member):
        own = 0
        for s in range(slices_of(width) * m // n_members, slices_of(width) * (m + 1) // n_members):
            own += sliced_row(width, s, number_size) * number_size // LINE_BYTES
        begun += min(1.0, max(0.0, ((2.0 * lines + SORT_LINES) / n_members - 2.0 * own) / SORT_LINES))
    return <Py_ssize_t> (n * min(1.0, begun))


cdef void prepare_rows(const Model* model, const Batch* run, Py_ssize_t first, Py_ssize_t n, floating* work,
                       int member, int n_members) noexcept nogil:
    # The member's share of a batch's rows, for all: gathered, or their non-zeros by column.
    cdef Py_ssize_t begin = share_begin(model, n, member, n_members, sizeof(floating))
    cdef Py_ssize_t end = share_begin(model, n, member + 1, n_members, sizeof(floating))
    cdef ColumnStore columns
    if run.store.kind == CSR:
        columns = columns_of(model, work, member)
        sort_by_column(run.store, run.order, first + begin, end - begin, <int32_t> begin, &columns, work)
    else:
        dense_rows(run.store, run.order, first + begin, end - begin, work + begin * model.sizes[0], NULL)


cdef inline ColumnStore columns_of(const Model* model, floating* work, int member) noexcept nogil:
    return columns_in(work + member * column_work_size(model.sizes[0], model.nonzeros), model.sizes[0],
                      model.nonzeros)


cdef void climb_columns(const Model* model, const Batch* run, Py_ssize_t at, floating* rows, const floating* dZ,
                        Py_ssize_t z_stride, floating* target, Py_ssize_t stride, Py_ssize_t n_units,
                        Py_ssize_t first, Py_ssize_t n_columns, int n_members, floating alpha) noexcept nogil:
    # Adds to target (n_columns, n_units) alpha times the gradient of one slice's weights below so many inputs.
    cdef int m
    cdef ColumnStore columns
    for m in range(1 if model.blocks != NULL else n_members):
        columns = block_at(model.blocks, run.store, at, dZ) if model.blocks != NULL else columns_of(model, rows, m)
        columns = columns_from(&columns, first, n_columns)
        columns_backward_weight(&columns, dZ, z_stride, target, stride, n_units, alpha)


cdef void step_sparse(const Model* model, const Batch* run, Py_ssize_t at, Py_ssize_t n, floating* rows,
                      const floating* dZ, Py_ssize_t z_stride, floating* target, Py_ssize_t stride,
                      Py_ssize_t n_units, int n_members, floating alpha, floating beta) noexcept nogil:
    # The first weight's step, or gradient, for one slice.
    if model.blocks == NULL and not model.nonzeros:
        sparse_backward_weight(run.store, run.order, at, n, dZ, z_stride, target, stride, n_units, alpha, beta)
        return
    scale_rows(target, stride, model.sizes[0], n_units, beta)
    climb_columns(model, run, at, rows, dZ, z_stride, target, stride, n_units, 0, model.sizes[0], n_members, alpha)


cdef void step_columns(const Model* model, const Batch* run, const Step* step, Py_ssize_t at, floating* rows,
                       const floating* dZ, Py_ssize_t z_stride, floating* parameters, floating* gradient,
                       floating* state, Py_ssize_t stride, Py_ssize_t n_units, int n_members) noexcept nogil:
    # An optimizer's step of one slice of the first weight, a few inputs after the other: their gradient is used up
    # before it leaves the cache, and all take the same room.
    cdef Py_ssize_t first = 0, n
    while first < model.sizes[0]:
        n = min(<Py_ssize_t> STEP_COLUMNS, model.sizes[0] - first)
        scale_rows(gradient, stride, n, n_units, <floating> 0.0)
        climb_columns(model, run, at, rows, dZ, z_stride, gradient, stride, n_units, first, n, n_members,
                      <floating> 1.0)
        update_range(step, True, parameters + first * stride, gradient, state + first * stride, 0, n * stride)
        first += n


cdef inline bint make_up_rows(Py_ssize_t stride, Py_ssize_t width, Py_ssize_t number_size) noexcept nogil:
    # Whether so many units are a row; what fills up its line may be computed too, and is never read.
    return stride == width or stride == to_lines(width, number_size)


cdef inline void activate_own(const Model* model, int k, floating* Z, floating* slopes, Py_ssize_t stride,
                              Py_ssize_t n, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t first) noexcept nogil:
    # Units begin to end of hidden layer k, for n rows from position first on; slopes NULL: it needs none.
    cdef Py_ssize_t i
    if make_up_rows(stride, end - begin, sizeof(floating)):
        activate(model.activations[k], Z, slopes, n * stride)
    else:
        for i in range(n):
            activate(model.activations[k], Z + i * stride, slopes + i * stride if slopes != NULL else slopes,
                     end - begin)
    if slopes != NULL and model.dropout != NULL:
        drop_units(Z, slopes, stride, n, end - begin, model.dropout[k], model.key, k, first, begin,
                   model.sizes[k + 1])


cdef inline void backprop_own(int activation, const floating* Y, const floating* slopes, floating* dY,
                              Py_ssize_t stride, Py_ssize_t n, Py_ssize_t width) noexcept nogil:
    cdef Py_ssize_t i
    if make_up_rows(stride, width, sizeof(floating)):
        backprop_activation(activation, Y, slopes, dY, n * stride)
    else:
        for i in range(n):
            backprop_activation(activation, Y + i * stride, slopes + i * stride if slopes != NULL else slopes,
                                dY + i * stride, width)


# Parameters that belong to one slice of units: a block of a weight, or of a bias.
cdef struct Block:
    bint is_weight
    bint by_units       # a row for each unit
    Py_ssize_t begin, stride, n_rows, n_columns


cdef inline Py_ssize_t n_blocks(const Model* model) noexcept nogil:
    return 2 * model.n_layers * N_SLICES


cdef bint own_block(const Model* model, Py_ssize_t index, Py_ssize_t number_size, int member,
                    int n_members, Block* block) noexcept nogil:
    # Whether there is a block of this index, from 0 to n_blocks, and the member owns it.  Hidden layers go by their
    # units, the output layer by those below it; its bias is the first member's.
    cdef Py_ssize_t k = index // (2 * N_SLICES), last = model.n_layers - 1, i, begin, end, n_out = model.sizes[k + 1]
    cdef Py_ssize_t width = n_out if k < last else model.sizes[k]
    cdef int s = index // 2 % N_SLICES
    cdef Py_ssize_t layer = 0
    block.is_weight = index % 2 == 0
    block.by_units = False
    for i in range(k):
        layer += weight_size(model, i) + model.sizes[i + 1]
    if k == last and not block.is_weight:
        block.begin, block.stride, block.n_rows, block.n_columns = layer + weight_size(model, k), n_out, 1, n_out
        return s == 0 and member == 0
    if not slices_of(width) * member // n_members <= s < slices_of(width) * (member + 1) // n_members:
        return False
    begin, end = slice_begin(width, s), slice_begin(width, s + 1)
    if not block.is_weight:
        block.begin, block.stride, block.n_rows, block.n_columns = (
            layer + weight_size(model, k) + begin, n_out, 1, end - begin)
    elif k == last and model.output_transposed:
        block.begin, block.stride, block.n_rows, block.n_columns = layer + begin, width, n_out, end - begin
    elif k == last:
        block.begin, block.stride, block.n_rows, block.n_columns = layer + begin * n_out, n_out, end - begin, n_out
    elif k == 0 and model.layout == SLICES:
        # What fills up a line is 0 and stays so.
        block.begin, block.n_rows = sliced_begin(model.sizes[0], width, s, SLICES, number_size), model.sizes[0]
        block.stride = block.n_columns = sliced_row(width, s, number_size)
    elif k == 0 and model.layout == PANELS:
        # And so is what fills up a panel.
        block.begin, block.n_rows = sliced_begin(model.sizes[0], width, s, PANELS, number_size), 1
        block.stride = block.n_columns = panels_size(model.sizes[0], end - begin, number_size)
    elif k == 0 and model.layout == TRANSPOSED:
        block.by_units = True
        block.begin, block.n_rows = begin * model.sizes[0], end - begin
        block.stride = block.n_columns = model.sizes[0]
    else:
        block.begin, block.stride, block.n_rows, block.n_columns = layer + begin, width, model.sizes[k], end - begin
    return True


cdef void step_own(const Model* model, const StepStore* steps, Step* step, floating* parameters, floating* gradient,
                   floating* state, floating* squares, bint after_first, int member, int n_members) noexcept nogil:
    # The member's part of an optimizer's step from the gradient, or all of it after the first weight; squares
    # (n_blocks,) are everyone's.
    cdef Py_ssize_t index, i, begin
    cdef Block block
    cdef double total = 0
    if steps.clip_norm > 0:
        for index in range(n_blocks(model)):
            if own_block(model, index, sizeof(floating), member, n_members, &block):
                total = 0
                for i in range(block.n_rows):
                    total += sum_of_squares(gradient + block.begin + i * block.stride, block.n_columns)
                squares[index] = <floating> total
        fastnn_barrier()
        total = 0
        for index in range(n_blocks(model)):
            total += squares[index]
        step.scale = clipped(total, steps.clip_norm)
    for index in range(n_blocks(model)):
        if after_first and index < 2 * N_SLICES and index % 2 == 0:
            continue
        if not own_block(model, index, sizeof(floating), member, n_members, &block):
            continue
        if block.stride == block.n_columns:
            update_range(step, block.is_weight, parameters, gradient, state, block.begin,
                         block.begin + block.n_rows * block.n_columns)
        else:
            for i in range(block.n_rows):
                begin = block.begin + i * block.stride
                update_range(step, block.is_weight, parameters, gradient, state, begin, begin + block.n_columns)


cdef void add_own_penalties(const Model* model, const Step* step, const floating* parameters, double weight,
                            double* penalties, int member, int n_members) noexcept nogil:
    cdef Py_ssize_t index, i
    cdef Block block
    cdef double total
    for index in range(0, n_blocks(model), 2):
        if own_block(model, index, sizeof(floating), member, n_members, &block):
            total = 0
            for i in range(block.n_rows):
                total += penalty(step, parameters + block.begin + i * block.stride, block.n_columns)
            penalties[index // 2] += weight * total


cdef void limit_own_norms(const Model* model, double limit, floating* parameters, floating* scratch, int member,
                          int n_members) noexcept nogil:
    cdef Py_ssize_t index
    cdef Block block
    cdef int s
    for index in range(0, n_blocks(model) - 2 * N_SLICES, 2):
        s = <int> (index // 2)
        if not own_block(model, index, sizeof(floating), member, n_members, &block):
            continue
        if s < N_SLICES and model.layout == PANELS:
            limit_panels(model, s, s + 1, limit, parameters, scratch + block.begin)
        else:
            limit_norms(parameters + block.begin, block.stride, block.n_rows, block.n_columns, block.by_units,
                        scratch + block.begin, limit)
            # The gradient of what fills up lines stays 0.
            memset(scratch + block.begin, 0, block.n_columns * sizeof(floating))


cdef inline Py_ssize_t rows_of_block(const Batch* run, Py_ssize_t batch_size, Py_ssize_t block_rows,
                                     Py_ssize_t at) noexcept nogil:
    # How many rows the block has that begins at this position: it ends with its batch, and with the run.
    return min(block_rows, min(batch_size - at % batch_size, run.n_rows - at))


cdef void climb_as_member(const Model* model, const Batch* run, Py_ssize_t batch_size, Py_ssize_t block_rows,
                          const StepStore* steps, floating* parameters, floating* state, floating* gradient,
                          floating* work, Py_ssize_t* position, double* log_likelihood, double* penalties,
                          double deadline, bint* stop, int member, int n_members) noexcept nogil:
    cdef Py_ssize_t n_hidden = model.n_layers - 1, n_in = model.sizes[0], n_classes = model.sizes[model.n_layers]
    cdef Py_ssize_t at = position[0] + position[1], batch_begin, batch_end = 0, n, next_n, ahead = 0, k, i, width, below
    cdef Py_ssize_t begin, end
    cdef Py_ssize_t output = model.n_parameters - (model.sizes[n_hidden] + 1) * n_classes
    cdef Py_ssize_t weight, hidden = 0, before, own, sliced, row
    cdef floating* rows
    cdef int s, m, _, parity = 0, third = 0
    cdef Py_ssize_t own_begin, own_end  # the member's units of the first layer
    cdef int first_slice, end_slice, from_slice, to_slice  # the member's, of the first layer and of any
    cdef Py_ssize_t own_stride, shift, stride
    cdef bint sparse = run.store.kind == CSR
    cdef bint by_slices = model.layout == SLICES, transposed = model.layout == TRANSPOSED
    cdef bint in_panels = model.layout == PANELS
    cdef bint in_place = not sparse and lie_ready(run.store, work) and (transposed or run.order == NULL)
    cdef bint gathers = not sparse and not in_place, sorts = sparse and model.nonzeros > 0
    cdef Step step
    cdef bint whole = batch_size <= block_rows  # a batch is one block
    cdef bint folds = steps.folds and whole, begins, ends
    cdef bint by_columns = by_slices and (sorts or model.blocks != NULL) and not folds and steps.clip_norm == 0
    by_columns = by_columns and whole
    cdef floating alpha = <floating> 1.0, weight_beta = <floating> 0.0
    cdef floating bias_beta = <floating> 1.0 if folds else <floating> 0.0
    cdef floating* target = parameters if folds else gradient
    cdef Py_ssize_t rows_size = rows_work_size(model, block_rows)
    cdef floating* outputs = work + 3 * rows_size
    cdef floating* deltas
    cdef floating* parts
    cdef floating* dZ
    cdef floating* spare
    cdef const floating* bias
    cdef const floating* X = NULL
    cdef const Py_ssize_t* order = NULL
    cdef const floating* Y
    cdef floating* A
    cdef floating* D
    cdef floating* S
    cdef floating* slopes
    cdef floating* squares
    cdef double sum_, total = 0
    for k in range(1, model.n_layers):
        hidden += model.sizes[k]
    deltas = outputs + hidden_work_size(model, block_rows)
    slopes = deltas + hidden_work_size(model, block_rows)  # there is room for them if model.has_slopes
    parts = slopes + (hidden_work_size(model, block_rows) if model.has_slopes else 0)
    dZ = parts + (2 * N_SLICES + 2 * member) * block_rows * n_classes
    spare = dZ + block_rows * n_classes
    squares = parts + 4 * N_SLICES * block_rows * n_classes
    if member == 0:  # there is not a block for each index
        for i in range(n_blocks(model)):
            squares[i] = 0

    width = model.sizes[1]
    first_slice, end_slice = slices_of(width) * member // n_members, slices_of(width) * (member + 1) // n_members
    own_begin, own_end = slice_begin(width, first_slice), slice_begin(width, end_slice)
    # Nobody else reads the outputs of a single hidden layer, so each member keeps its own together, in whole lines of
    # the cache: unit u of row i stands at A[i * stride + u].
    own_stride = to_lines(own_end - own_begin, sizeof(floating))
    shift = 0
    if n_hidden == 1:
        for m in range(member):
            shift += block_rows * to_lines(slice_begin(width, slices_of(width) * (m + 1) // n_members)
                                           - slice_begin(width, slices_of(width) * m // n_members), sizeof(floating))
        shift -= own_begin
    if gathers:
        prepare_rows(model, run, at, rows_of_block(run, batch_size, block_rows, at), work, member, n_members)
        fastnn_barrier()

    while True:
        n = rows_of_block(run, batch_size, block_rows, at)
        if at >= batch_end:
            batch_begin = at // batch_size * batch_size
            batch_end = min(batch_begin + batch_size, run.n_rows)
            total = sum_of_weights(run.targets, batch_begin, batch_end - batch_begin)
        begins, ends = at % batch_size == 0, at + n == batch_end
        step = step_at(steps, at // batch_size)
        if not folds:
            weight_beta = bias_beta = <floating> (0.0 if begins else 1.0)
        else:
            alpha, weight_beta = <floating> step.hyperparameters[0], <floating> (1 - step.hyperparameters[0] * step.l2)
        rows = work + (parity if sparse else third) * rows_size
        if in_place:
            X = dense_rows(run.store, run.order, at, n, rows, &order)
        else:
            X = rows

        # Forward: Y (n, width) = activation(X (n, below) @ W (below, width) + b), own columns.
        weight = 0
        before = 0
        Y = X
        width = model.sizes[1]
        stride = own_stride if n_hidden == 1 else width
        if transposed:
            # Both passes fetch a half of the next batch, so that neither waits for the memory.
            ahead = n if in_place and at + 2 * n <= run.n_rows else 0
            dense_forward(X, order, n_in, parameters + own_begin * n_in, n_in,
                          parameters + model.first_size + own_begin, outputs + shift + own_begin, stride, n, n_in,
                          own_end - own_begin, ahead - ahead // 2)
        elif in_panels:
            slices_forward(model, first_slice, end_slice, X, parameters, parameters + model.first_size + own_begin,
                           outputs + shift + own_begin, stride, n)
        for k in range(n_hidden):
            below, width = model.sizes[k], model.sizes[k + 1]
            A = outputs + block_rows * before + shift
            stride = own_stride if n_hidden == 1 else width
            from_slice = slices_of(width) * member // n_members
            to_slice = slices_of(width) * (member + 1) // n_members
            for s in range(from_slice, to_slice):
                begin, end = slice_begin(width, s), slice_begin(width, s + 1)
                own = weight + weight_size(model, k) + begin
                sliced, row = weight + begin, width
                if k == 0 and by_slices:
                    sliced = sliced_begin(n_in, width, s, SLICES, sizeof(floating))
                    row = sliced_row(width, s, sizeof(floating))
                if k == 0 and sparse:
                    sparse_forward(run.store, run.order, at, n, parameters + sliced, row, parameters + own, A + begin,
                                   stride, end - begin)
                elif k > 0 or not (transposed or in_panels):
                    affine_forward(Y, below, parameters + sliced, row, parameters + own, A + begin, stride, n, below,
                                   end - begin)
            begin, end = slice_begin(width, from_slice), slice_begin(width, to_slice)
            S = slopes + block_rows * before + shift + begin if leaves_slopes(model, k) else NULL
            activate_own(model, <int> k, A + begin, S, stride, n, begin, end, at)
            if k == n_hidden - 1:
                for s in range(from_slice, to_slice):
                    # part of the logits (n, n_classes) = Y (n, own) @ W (own, n_classes); the first has b too
                    begin, end = slice_begin(width, s), slice_begin(width, s + 1)
                    own = (parity * N_SLICES + s) * block_rows * n_classes
                    bias = parameters + output + width * n_classes if s == 0 else NULL
                    if model.output_transposed:
                        dense_forward(A + begin, NULL, stride, parameters + output + begin, width, bias, parts + own,
                                      n_classes, n, end - begin, n_classes, 0)
                    else:
                        affine_forward(A + begin, stride, parameters + output + begin * n_classes, n_classes, bias,
                                       parts + own, n_classes, n, end - begin, n_classes)
            else:
                fastnn_barrier()
            Y = A
            before += width
            weight += weight_size(model, k) + width
        if gathers:
            # The next batch's rows, so that they are there behind the barrier.
            next_n = rows_of_block(run, batch_size, block_rows, at + n)
            prepare_rows(model, run, at + n, next_n, work + (third + 1) % 3 * rows_size, member, n_members)
        elif sorts:
            # This batch's: they are in the cache, and needed by column behind the barrier.
            prepare_rows(model, run, at, n, rows, member, n_members)
        if member == 0:
            stop[parity] = at + n >= run.n_rows or now() >= deadline
        fastnn_barrier()

        # The output layer, each member for itself: dZ (n, n_classes) is the gradient of the logits.
        own = parity * N_SLICES * block_rows * n_classes
        for i in range(n * n_classes):
            dZ[i] = parts[own + i]
        for _ in range(1, slices_of(model.sizes[n_hidden])):
            own += block_rows * n_classes
            for i in range(n * n_classes):
                dZ[i] += parts[own + i]
        sum_ = loss_rows(run.targets, at, dZ, n, n_classes, total)
        if not isfinite(sum_):
            if member == 0:
                log_likelihood[0] = sum_
            return
        if member == 0:
            log_likelihood[1] += sum_
            if ends:
                log_likelihood[0] += log_likelihood[1]
                log_likelihood[1] = 0

        # Backward: dY (n, width) = dZ (n, above) @ W.T (above, width), own columns, by the old weights.
        weight = output
        before = hidden
        for k in range(n_hidden - 1, -1, -1):
            width = model.sizes[k + 1]
            before -= width
            D = deltas + block_rows * before + shift
            A = outputs + block_rows * before + shift
            stride = own_stride if n_hidden == 1 else width
            from_slice = slices_of(width) * member // n_members
            to_slice = slices_of(width) * (member + 1) // n_members
            for s in range(from_slice, to_slice):
                begin, end = slice_begin(width, s), slice_begin(width, s + 1)
                if k == n_hidden - 1 and model.output_transposed:
                    dense_backward_input(dZ, parameters + output + begin, width, D + begin, stride, spare, n,
                                         end - begin, n_classes)
                elif k == n_hidden - 1:
                    affine_backward_input(dZ, n_classes, parameters + output + begin * n_classes, n_classes,
                                          D + begin, stride, n, end - begin, n_classes)
                else:
                    affine_backward_input(deltas + block_rows * (before + width), model.sizes[k + 2],
                                          parameters + weight + begin * model.sizes[k + 2], model.sizes[k + 2],
                                          D + begin, stride, n, end - begin, model.sizes[k + 2])
            begin, end = slice_begin(width, from_slice), slice_begin(width, to_slice)
            S = slopes + block_rows * before + shift + begin if leaves_slopes(model, k) else NULL
            backprop_own(model.activations[k], A + begin, S, D + begin, stride, n, end - begin)
            weight -= weight_size(model, k) + width
            if n_hidden > 1:
                fastnn_barrier()

        if steps.penalised and ends:
            add_own_penalties(model, &step, parameters, total, penalties, member, n_members)

        # The gradient: dW = X.T @ dZ, own columns of hidden layers and own rows of the output layer.  A plain step is
        # folded into it.
        width = model.sizes[1]
        stride = own_stride if n_hidden == 1 else width
        if transposed:
            dense_backward_weight(X, order, n_in, deltas + shift + own_begin, stride, target + own_begin * n_in, n_in,
                                  n, n_in, own_end - own_begin, alpha, weight_beta, ahead // 2)
        elif in_panels:
            slices_backward(model, first_slice, end_slice, X, deltas + shift + own_begin, stride, target, n, alpha,
                            weight_beta)
        weight = 0
        before = 0
        Y = X
        for k in range(n_hidden):
            below, width = model.sizes[k], model.sizes[k + 1]
            D = deltas + block_rows * before + shift
            A = outputs + block_rows * before + shift
            stride = own_stride if n_hidden == 1 else width
            for s in range(slices_of(width) * member // n_members, slices_of(width) * (member + 1) // n_members):
                begin, end = slice_begin(width, s), slice_begin(width, s + 1)
                sliced, row = weight + begin, width
                if k == 0 and by_slices:
                    sliced = sliced_begin(n_in, width, s, SLICES, sizeof(floating))
                    row = sliced_row(width, s, sizeof(floating))
                if k == 0 and by_columns:
                    step_columns(model, run, &step, at, rows, D + begin, stride, parameters + sliced,
                                 gradient + sliced, state + sliced, row, end - begin, n_members)
                elif k == 0 and sparse:
                    step_sparse(model, run, at, n, rows, D + begin, stride, target + sliced, row, end - begin,
                                n_members, alpha, weight_beta)
                elif k > 0 or not (transposed or in_panels):
                    affine_backward_weight(Y, below, D + begin, stride, target + sliced, row, n, below, end - begin,
                                           alpha, weight_beta)
                own = weight + weight_size(model, k) + begin
                affine_backward_bias(D + begin, stride, target + own, n, end - begin, alpha, bias_beta)
                if k == n_hidden - 1 and model.output_transposed:
                    own = output + begin
                    dense_backward_weight(A + begin, NULL, stride, dZ, n_classes, target + own, width, n, end - begin,
                                          n_classes, alpha, weight_beta, 0)
                elif k == n_hidden - 1:
                    own = output + begin * n_classes
                    affine_backward_weight(A + begin, stride, dZ, n_classes, target + own, n_classes,
                                           n, end - begin, n_classes, alpha, weight_beta)
            Y = A
            before += width
            weight += weight_size(model, k) + width
        at += n
        if member == 0:
            # The output layer's bias.  With one hidden layer the first member owns the first slice and alone
            # reads it; in deeper networks another may, behind the barrier below.
            own = output + model.sizes[n_hidden] * n_classes
            affine_backward_bias(dZ, n_classes, target + own, n, n_classes, alpha, bias_beta)
            position[1] = 0 if ends else position[1] + n
            if ends:
                position[0] = at
        if ends and not folds:
            step_own(model, steps, &step, parameters, gradient, state, squares, by_columns, member, n_members)
        if ends and steps.max_norm > 0:
            limit_own_norms(model, steps.max_norm, parameters, gradient, member, n_members)
        if stop[parity]:
            return
        parity = 1 - parity
        third = (third + 1) % 3
        if n_hidden > 1:
            fastnn_barrier()


cdef void climb_by_units(const Model* model, const Batch* run, Py_ssize_t batch_size, Py_ssize_t block_rows,
                         const StepStore* steps, floating* parameters, floating* state, floating* gradient,
                         floating* work, Py_ssize_t* position, double* log_likelihood, double* penalties,
                         double deadline, int n_threads) noexcept nogil:
    # Batch after batch, from position[0] on, until the rows end, a log-likelihood is not finite or time is up.
    # run.n_rows counts all rows.  Of larger batches block_rows are taken at a time, and a step follows the last ones.
    cdef bint[2] stop
    cdef bint* stop_ = &stop[0]
    with parallel(num_threads=min(n_threads, slices_at_most(model))):
        climb_as_member(model, run, batch_size, block_rows, steps, parameters, state, gradient, work, position,
                        log_likelihood, penalties, deadline, stop_, fastnn_member(), fastnn_members())


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
