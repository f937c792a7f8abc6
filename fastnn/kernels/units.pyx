"""Batches that are not cut by rows: every thread takes all rows, and owns slices of the hidden units.

Most are too small for it, and are one block.  Large ones of sparse rows go block by block, and the step follows.

With one hidden layer a step needs a single barrier.  A member of the team computes its own units and what
they add to the logits; behind the barrier each member adds these parts up and finds the gradient of the
logits for itself, and from there on touches only its own columns of the first weight and its own rows of
the second.  Deeper networks wait once more a layer and direction.  The slices (see layouts.pyx) depend on the
widths of the layers alone and their parts are added up in order, so the bits do not depend on the number of threads.
"""

from cython cimport floating
from cython.parallel cimport parallel
from libc.math cimport isfinite
from libc.stdint cimport int32_t
from libc.string cimport memset

from .activations cimport activate, backprop_activation
from .affine cimport affine_backward_bias, affine_backward_input, affine_backward_weight, affine_forward
from .dense cimport backward_share, dense_backward_input, dense_backward_weight, dense_forward, forward_share
from .dropout cimport drop_units
from .layouts cimport (
    N_SLICES, PANELS, SLICES, TRANSPOSED, Block, bias_begin, block_of, layer_begin, limit_panels, slice_begin,
    slice_bits, sliced_row, slices_at_most, slices_backward, slices_forward, slices_of, to_lines)
from .losses cimport loss_rows, sum_of_weights
from .model cimport Batch, Model, leaves_slopes, now
from .rows cimport CSR, LINE_BYTES, RowsAhead, dense_rows, find_rows, lie_ready, reversed_ahead, rows_ahead
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
    SORT_LINES = 6      # Sorting a non-zero takes as long as multiplying it with so many lines of numbers.
    STEP_COLUMNS = 16   # of sparse rows, whose weights are stepped on together


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


cdef inline Py_ssize_t row_lines(Py_ssize_t width, int s, Py_ssize_t number_size) noexcept nogil:
    return (sliced_row(width, s, number_size) * number_size + LINE_BYTES - 1) // LINE_BYTES


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
        lines += row_lines(width, s, number_size)
    for m in range(member):
        own = 0
        for s in range(slices_of(width) * m // n_members, slices_of(width) * (m + 1) // n_members):
            own += row_lines(width, s, number_size)
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


cdef RowsAhead own_ahead(const Model* model, const Batch* run, Py_ssize_t first, Py_ssize_t n, bint in_place,
                         int member, int n_members) noexcept nogil:
    # Of a block's dense rows those that the member fetches: what it gathers.  Where all members read all rows in place,
    # the odd ones begin with the last row, so that two do not fetch the same one from memory at the same time.
    cdef Py_ssize_t begin = 0, end = n
    cdef RowsAhead rows
    if not in_place:  # the size of a number matters to shares of sparse rows alone
        begin = share_begin(model, n, member, n_members, 1)
        end = share_begin(model, n, member + 1, n_members, 1)
    rows = rows_ahead(run.store, run.order, first + begin, end - begin)
    return reversed_ahead(&rows) if in_place and member % 2 else rows


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


# What a member of the team owns, and where in the work space it finds what it works on.
cdef struct Share:
    int member
    int n_members
    int[3] first_slice      # of a layer with so many slice_bits
    int[3] end_slice        # behind the last
    Py_ssize_t block_rows
    Py_ssize_t outputs      # of the hidden layers
    Py_ssize_t deltas       # their gradients
    Py_ssize_t slopes       # there is room for them if model.has_slopes
    Py_ssize_t parts        # of the logits, (2, N_SLICES, block_rows, n_classes), for this block and the one before
    Py_ssize_t dZ           # (block_rows, n_classes), the member's gradient of the logits
    Py_ssize_t spare        # as much again
    Py_ssize_t squares      # (n_blocks,), everyone's
    Py_ssize_t stride       # of the rows of a single hidden layer, and what is added to their places
    Py_ssize_t shift


# The rows at hand, of one block.
cdef struct Turn:
    Py_ssize_t at           # position of the first
    Py_ssize_t n
    RowsAhead ahead         # which are fetched meanwhile
    Py_ssize_t rows         # where in the work space they stand, if they had to be gathered or sorted
    const Py_ssize_t* order     # of dense rows; NULL: they stand one after the other
    int parity              # which of two places its parts of the logits have


# gradient = alpha * the block's + beta * gradient; a plain step is folded into it.
cdef struct Factors:
    double alpha
    double weight_beta
    double bias_beta


cdef inline int own_slice(const Share* share, Py_ssize_t width) noexcept nogil:
    # The member's first slice of a layer.
    return share.first_slice[slice_bits(width)]


cdef inline int own_slices_end(const Share* share, Py_ssize_t width) noexcept nogil:
    return share.end_slice[slice_bits(width)]


cdef Share share_out(const Model* model, Py_ssize_t block_rows, Py_ssize_t number_size, int member,
                     int n_members) noexcept nogil:
    cdef Share share
    cdef Py_ssize_t width = model.sizes[1], n_logits = block_rows * model.sizes[model.n_layers]
    cdef Py_ssize_t hidden = hidden_work_size(model, block_rows), begin = 0, end, m
    cdef int bits
    share.member, share.n_members, share.block_rows = member, n_members, block_rows
    for bits in range(3):
        share.first_slice[bits] = (1 << bits) * member // n_members
        share.end_slice[bits] = (1 << bits) * (member + 1) // n_members
    share.outputs = 3 * rows_work_size(model, block_rows)
    share.deltas = share.outputs + hidden
    share.slopes = share.deltas + hidden
    share.parts = share.slopes + (hidden if model.has_slopes else 0)
    share.dZ = share.parts + (2 * N_SLICES + 2 * member) * n_logits
    share.spare = share.dZ + n_logits
    share.squares = share.parts + 4 * N_SLICES * n_logits
    # Nobody else reads the outputs of a single hidden layer, so each member keeps its own together, in whole lines of
    # the cache.
    share.stride = share.shift = 0
    if model.n_layers == 2:
        for m in range(member + 1):
            begin = slice_begin(width, slices_of(width) * m // n_members)
            end = slice_begin(width, slices_of(width) * (m + 1) // n_members)
            share.shift += block_rows * share.stride
            share.stride = to_lines(end - begin, number_size)
        share.shift -= begin
    return share


cdef inline Py_ssize_t stride_of(const Model* model, const Share* share, Py_ssize_t k) noexcept nogil:
    return share.stride if model.n_layers == 2 else model.sizes[k + 1]


cdef inline Py_ssize_t place_of(const Model* model, const Share* share, Py_ssize_t k) noexcept nogil:
    # Among outputs, deltas or slopes: unit u of hidden layer k, of row i, stands at place_of + i * stride_of + u.
    cdef Py_ssize_t i, units = 0
    for i in range(k):
        units += model.sizes[i + 1]
    return share.block_rows * units + share.shift


cdef inline Py_ssize_t n_blocks(const Model* model) noexcept nogil:
    return 2 * model.n_layers * N_SLICES


cdef bint own_block(const Model* model, Py_ssize_t index, const Share* share, Block* block,
                    const floating* number) noexcept nogil:
    # Whether there is a block of this index, from 0 to n_blocks, and the member owns it.  The output layer's bias is
    # the first member's.
    cdef Py_ssize_t k = index // (2 * N_SLICES), last = model.n_layers - 1
    cdef Py_ssize_t width = model.sizes[k + 1] if k < last else model.sizes[k]
    cdef int s = index // 2 % N_SLICES
    cdef bint is_weight = index % 2 == 0, owns = own_slice(share, width) <= s < own_slices_end(share, width)
    if k == last and not is_weight:
        owns = s == 0 and share.member == 0
    if owns:
        block[0] = block_of(model, k, s, is_weight, number)
    return owns


cdef void step_own(const Model* model, const StepStore* steps, Step* step, floating* parameters, floating* gradient,
                   floating* state, floating* squares, bint after_first, const Share* share) noexcept nogil:
    # The member's part of an optimizer's step from the gradient, or all of it after the first weight; squares
    # (n_blocks,) are everyone's.
    cdef Py_ssize_t index, i, begin
    cdef Block block
    cdef double total = 0
    if steps.clip_norm > 0:
        for index in range(n_blocks(model)):
            if own_block(model, index, share, &block, parameters):
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
        if not own_block(model, index, share, &block, parameters):
            continue
        if block.stride == block.n_columns:
            update_range(step, block.is_weight, parameters, gradient, state, block.begin,
                         block.begin + block.n_rows * block.n_columns)
        else:
            for i in range(block.n_rows):
                begin = block.begin + i * block.stride
                update_range(step, block.is_weight, parameters, gradient, state, begin, begin + block.n_columns)


cdef void add_own_penalties(const Model* model, const Step* step, const floating* parameters, double weight,
                            double* penalties, const Share* share) noexcept nogil:
    cdef Py_ssize_t index, i
    cdef Block block
    cdef double total
    for index in range(0, n_blocks(model), 2):
        if own_block(model, index, share, &block, parameters):
            total = 0
            for i in range(block.n_rows):
                total += penalty(step, parameters + block.begin + i * block.stride, block.n_columns)
            penalties[index // 2] += weight * total


cdef void limit_own_norms(const Model* model, double limit, floating* parameters, floating* scratch,
                          const Share* share) noexcept nogil:
    cdef Py_ssize_t index
    cdef Block block
    cdef int s
    for index in range(0, n_blocks(model) - 2 * N_SLICES, 2):
        s = <int> (index // 2)
        if not own_block(model, index, share, &block, parameters):
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


cdef void forward_own(const Model* model, const Batch* run, const Share* share, const Turn* turn, const floating* X,
                      const floating* parameters, floating* work) noexcept nogil:
    # Y (n, width) = activation(X (n, below) @ W (below, width) + b) in all hidden layers, own columns, and what these
    # add to the logits.  X is NULL where rows are sparse.
    cdef Py_ssize_t n_hidden = model.n_layers - 1, n_classes = model.sizes[n_hidden + 1], n_in = model.sizes[0]
    cdef Py_ssize_t n = turn.n, width = model.sizes[1], k, below, stride, begin, end, part
    cdef int s, first = own_slice(share, width), last = own_slices_end(share, width)
    cdef bint at_once = model.layout == TRANSPOSED or model.layout == PANELS  # its slices of the first layer
    cdef Block W
    cdef const floating* Y = X
    cdef const floating* b = parameters + bias_begin(model, 0)
    cdef floating* A = work + share.outputs + place_of(model, share, 0)
    cdef floating* S
    cdef RowsAhead ahead = forward_share(&turn.ahead)
    stride, begin, end = stride_of(model, share, 0), slice_begin(width, first), slice_begin(width, last)
    if model.layout == TRANSPOSED:
        dense_forward(X, turn.order, n_in, parameters + begin * n_in, n_in, b + begin, A + begin, stride, n, n_in,
                      end - begin, &ahead)
    elif model.layout == PANELS:
        slices_forward(model, first, last, X, parameters, b + begin, A + begin, stride, n, &turn.ahead)
    for k in range(n_hidden):
        below, width = model.sizes[k], model.sizes[k + 1]
        first, last = own_slice(share, width), own_slices_end(share, width)
        A = work + share.outputs + place_of(model, share, k)
        stride = stride_of(model, share, k)
        b = parameters + bias_begin(model, k)
        for s in range(last if k == 0 and at_once else first, last):
            begin, end = slice_begin(width, s), slice_begin(width, s + 1)
            W = block_of(model, k, s, True, parameters)
            if k == 0 and X == NULL:
                sparse_forward(run.store, run.order, turn.at, n, parameters + W.begin, W.stride, b + begin, A + begin,
                               stride, end - begin)
            else:
                affine_forward(Y, below, parameters + W.begin, W.stride, b + begin, A + begin, stride, n, below,
                               end - begin)
        begin, end = slice_begin(width, first), slice_begin(width, last)
        S = work + share.slopes + place_of(model, share, k) + begin if leaves_slopes(model, k) else NULL
        activate_own(model, <int> k, A + begin, S, stride, n, begin, end, turn.at)
        if k < n_hidden - 1:
            fastnn_barrier()
        Y = A
    b = parameters + bias_begin(model, n_hidden)
    for s in range(first, last):
        # A part of the logits (n, n_classes) = Y (n, own) @ W (own, n_classes); the first has b too.
        begin, end = slice_begin(width, s), slice_begin(width, s + 1)
        W = block_of(model, n_hidden, s, True, parameters)
        part = share.parts + (turn.parity * N_SLICES + s) * share.block_rows * n_classes
        if model.output_transposed:
            dense_forward(A + begin, NULL, stride, parameters + W.begin, W.stride, b if s == 0 else NULL, work + part,
                          n_classes, n, end - begin, n_classes, NULL)
        else:
            affine_forward(A + begin, stride, parameters + W.begin, W.stride, b if s == 0 else NULL, work + part,
                           n_classes, n, end - begin, n_classes)


cdef double logits_backward(const Model* model, const Batch* run, const Share* share, const Turn* turn, double total,
                            floating* work) noexcept nogil:
    # From the parts of all members dZ (n, n_classes), the gradient of the logits; returns the log-likelihood.
    cdef Py_ssize_t n_classes = model.sizes[model.n_layers], size = share.block_rows * n_classes, i
    cdef const floating* part = work + share.parts + turn.parity * N_SLICES * size
    cdef floating* dZ = work + share.dZ
    cdef int _
    for i in range(turn.n * n_classes):
        dZ[i] = part[i]
    for _ in range(1, slices_of(model.sizes[model.n_layers - 1])):
        part += size
        for i in range(turn.n * n_classes):
            dZ[i] += part[i]
    return loss_rows(run.targets, turn.at, dZ, turn.n, n_classes, total)


cdef void backward_own(const Model* model, const Share* share, const Turn* turn, const floating* parameters,
                       floating* work) noexcept nogil:
    # dY (n, width) = dZ (n, above) @ W.T (above, width) in all hidden layers, own columns.
    cdef Py_ssize_t n = turn.n, n_hidden = model.n_layers - 1, k, width, above, stride, begin, end
    cdef int s
    cdef Block W
    cdef floating* dZ = work + share.dZ
    cdef floating* A
    cdef floating* D
    cdef floating* S
    for k in range(n_hidden - 1, -1, -1):
        width, above = model.sizes[k + 1], model.sizes[k + 2]
        A = work + share.outputs + place_of(model, share, k)
        D = work + share.deltas + place_of(model, share, k)
        stride = stride_of(model, share, k)
        for s in range(own_slice(share, width), own_slices_end(share, width)):
            begin, end = slice_begin(width, s), slice_begin(width, s + 1)
            if k < n_hidden - 1:
                affine_backward_input(work + share.deltas + place_of(model, share, k + 1), above,
                                      parameters + layer_begin(model, k + 1) + begin * above, above, D + begin, stride,
                                      n, end - begin, above)
                continue
            W = block_of(model, n_hidden, s, True, parameters)
            if model.output_transposed:
                dense_backward_input(dZ, parameters + W.begin, W.stride, D + begin, stride, work + share.spare, n,
                                     end - begin, above)
            else:
                affine_backward_input(dZ, above, parameters + W.begin, W.stride, D + begin, stride, n, end - begin,
                                      above)
        begin, end = slice_begin(width, own_slice(share, width)), slice_begin(width, own_slices_end(share, width))
        S = work + share.slopes + place_of(model, share, k) + begin if leaves_slopes(model, k) else NULL
        backprop_own(model.activations[k], A + begin, S, D + begin, stride, n, end - begin)
        if n_hidden > 1:
            fastnn_barrier()


cdef void climb_own(const Model* model, const Batch* run, const Share* share, const Turn* turn, const Factors* factors,
                    const Step* step, bint by_columns, const floating* X, floating* target, floating* parameters,
                    floating* state, floating* work) noexcept nogil:
    # The gradient dW = X.T @ dZ, own columns of hidden layers and own rows of the output layer, goes into target;
    # by_columns: the first weight is stepped on as well.
    cdef Py_ssize_t n_hidden = model.n_layers - 1, n_classes = model.sizes[n_hidden + 1], n_in = model.sizes[0]
    cdef Py_ssize_t n = turn.n, width = model.sizes[1], k, below, stride, begin, end
    cdef int s, first = own_slice(share, width), last = own_slices_end(share, width)
    cdef floating alpha = <floating> factors.alpha, weight_beta = <floating> factors.weight_beta
    cdef floating bias_beta = <floating> factors.bias_beta
    cdef bint at_once = model.layout == TRANSPOSED or model.layout == PANELS  # its slices of the first layer
    cdef Block W
    cdef const floating* Y = X
    cdef const floating* dZ = work + share.dZ
    cdef floating* D = work + share.deltas + place_of(model, share, 0)
    cdef floating* A = NULL
    cdef floating* db
    cdef RowsAhead ahead = backward_share(&turn.ahead)
    stride, begin, end = stride_of(model, share, 0), slice_begin(width, first), slice_begin(width, last)
    if model.layout == TRANSPOSED:
        dense_backward_weight(X, turn.order, n_in, D + begin, stride, target + begin * n_in, n_in, n, n_in,
                              end - begin, alpha, weight_beta, &ahead)
    elif model.layout == PANELS:
        slices_backward(model, first, last, X, D + begin, stride, target, n, alpha, weight_beta)
    for k in range(n_hidden):
        below, width = model.sizes[k], model.sizes[k + 1]
        first, last = own_slice(share, width), own_slices_end(share, width)
        A = work + share.outputs + place_of(model, share, k)
        D = work + share.deltas + place_of(model, share, k)
        stride = stride_of(model, share, k)
        db = target + bias_begin(model, k)
        for s in range(first, last):
            begin, end = slice_begin(width, s), slice_begin(width, s + 1)
            affine_backward_bias(D + begin, stride, db + begin, n, end - begin, alpha, bias_beta)
            if k == 0 and at_once:
                continue
            W = block_of(model, k, s, True, parameters)
            if k == 0 and by_columns:
                step_columns(model, run, step, turn.at, work + turn.rows, D + begin, stride, parameters + W.begin,
                             target + W.begin, state + W.begin, W.stride, end - begin, share.n_members)
            elif k == 0 and X == NULL:
                step_sparse(model, run, turn.at, n, work + turn.rows, D + begin, stride, target + W.begin, W.stride,
                            end - begin, share.n_members, alpha, weight_beta)
            else:
                affine_backward_weight(Y, below, D + begin, stride, target + W.begin, W.stride, n, below, end - begin,
                                       alpha, weight_beta)
        Y = A
    for s in range(first, last):
        begin, end = slice_begin(width, s), slice_begin(width, s + 1)
        W = block_of(model, n_hidden, s, True, parameters)
        if model.output_transposed:
            dense_backward_weight(A + begin, NULL, stride, dZ, n_classes, target + W.begin, W.stride, n, end - begin,
                                  n_classes, alpha, weight_beta, NULL)
        else:
            affine_backward_weight(A + begin, stride, dZ, n_classes, target + W.begin, W.stride, n, end - begin,
                                   n_classes, alpha, weight_beta)
    if share.member == 0:
        # With one hidden layer the first member owns the first slice and alone reads the output layer's bias; in deeper
        # networks another may, behind a barrier.
        db = target + bias_begin(model, n_hidden)
        affine_backward_bias(dZ, n_classes, db, n, n_classes, alpha, bias_beta)


cdef void climb_as_member(const Model* model, const Batch* run, Py_ssize_t batch_size, Py_ssize_t block_rows,
                          const StepStore* steps, floating* parameters, floating* state, floating* gradient,
                          floating* work, Py_ssize_t* position, double* log_likelihood, double* penalties,
                          double deadline, bint* stop, int member, int n_members) noexcept nogil:
    cdef Share share = share_out(model, block_rows, sizeof(floating), member, n_members)
    cdef Turn turn
    cdef Factors factors
    cdef Step step
    cdef RowsAhead later
    cdef Py_ssize_t at = position[0] + position[1], batch_begin, batch_end = 0, next_at, next_n, i
    cdef Py_ssize_t rows_size = rows_work_size(model, block_rows)
    cdef bint sparse = run.store.kind == CSR, sorts = sparse and model.nonzeros > 0
    cdef bint in_place = not sparse and lie_ready(run.store, work) and (model.layout == TRANSPOSED or run.order == NULL)
    cdef bint gathers = not sparse and not in_place
    cdef bint fetches = in_place and model.layout == TRANSPOSED or gathers and model.layout == PANELS
    cdef bint whole = batch_size <= block_rows  # a batch is one block
    cdef bint folds = steps.folds and whole, begins, ends
    cdef bint by_columns = (model.layout == SLICES and (sorts or model.blocks != NULL) and whole and not folds
                            and steps.clip_norm == 0)
    cdef floating* target = parameters if folds else gradient
    cdef floating* squares = work + share.squares
    cdef const floating* X = NULL
    cdef double sum_, total = 0
    cdef int third = 0
    turn.parity = 0
    turn.ahead = rows_ahead(run.store, NULL, 0, 0)
    if member == 0:  # there is not a block for each index
        for i in range(n_blocks(model)):
            squares[i] = 0
    if gathers:
        prepare_rows(model, run, at, rows_of_block(run, batch_size, block_rows, at), work, member, n_members)
        fastnn_barrier()

    while True:
        turn.at, turn.n = at, rows_of_block(run, batch_size, block_rows, at)
        if at >= batch_end:
            batch_begin = at // batch_size * batch_size
            batch_end = min(batch_begin + batch_size, run.n_rows)
            total = sum_of_weights(run.targets, batch_begin, batch_end - batch_begin)
        begins, ends = at % batch_size == 0, at + turn.n == batch_end
        step = step_at(steps, at // batch_size)
        if folds:
            factors.alpha, factors.bias_beta = step.hyperparameters[0], 1
            factors.weight_beta = 1 - step.hyperparameters[0] * step.l2
        else:
            factors.alpha, factors.weight_beta, factors.bias_beta = 1, not begins, not begins
        turn.rows = (turn.parity if sparse else third) * rows_size
        turn.order = NULL
        if in_place:
            X = dense_rows(run.store, run.order, at, turn.n, work, &turn.order)
        elif gathers:
            X = work + turn.rows
        next_at = at + turn.n
        next_n = rows_of_block(run, batch_size, block_rows, next_at)
        if fetches:
            turn.ahead = own_ahead(model, run, next_at, next_n, in_place, member, n_members)

        forward_own(model, run, &share, &turn, X, parameters, work)
        if gathers:
            # The next batch's rows, so that they are there behind the barrier.
            prepare_rows(model, run, next_at, next_n, work + (third + 1) % 3 * rows_size, member, n_members)
        elif sorts:
            # This batch's: they are in the cache, and needed by column behind the barrier.
            prepare_rows(model, run, at, turn.n, work + turn.rows, member, n_members)
        if member == n_members - 1:  # the first has the output layer's bias to do
            stop[turn.parity] = next_at >= run.n_rows or now() >= deadline
        if fetches and run.order != NULL:  # while it waits for the others
            next_at += next_n
            next_n = rows_of_block(run, batch_size, block_rows, next_at)
            later = own_ahead(model, run, next_at, next_n, in_place, member, n_members)
            find_rows(&later)
        fastnn_barrier()

        # Each member for itself, as it is little.
        sum_ = logits_backward(model, run, &share, &turn, total, work)
        if not isfinite(sum_):
            if member == 0:
                log_likelihood[0] = sum_
            return
        if member == 0:
            log_likelihood[1] += sum_
            if ends:
                log_likelihood[0] += log_likelihood[1]
                log_likelihood[1] = 0

        # By the old weights.
        backward_own(model, &share, &turn, parameters, work)
        if steps.penalised and ends:
            add_own_penalties(model, &step, parameters, total, penalties, &share)
        climb_own(model, run, &share, &turn, &factors, &step, by_columns, X, target, parameters, state, work)
        at += turn.n
        if member == 0:
            position[1] = 0 if ends else position[1] + turn.n
            if ends:
                position[0] = at
        if ends and not folds:
            step_own(model, steps, &step, parameters, gradient, state, squares, by_columns, &share)
        if ends and steps.max_norm > 0:
            limit_own_norms(model, steps.max_norm, parameters, gradient, &share)
        if stop[turn.parity]:
            return
        turn.parity = 1 - turn.parity
        third = (third + 1) % 3
        if model.n_layers > 2:
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
