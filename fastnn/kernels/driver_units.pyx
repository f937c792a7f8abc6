"""The driver by units: each thread takes all rows of a batch, and owns slices of the hidden units.

Most of its batches are too small to be cut by rows and are a single row block.  Large batches of sparse rows go row
block by row block, and the step follows.

With one hidden layer a step needs a single barrier.  A member of the team computes its own units and their part of the
logits.  After the barrier each member sums these parts and finds the gradient of the logits for itself; from then on it
touches only its own columns of the first weight and its own rows of the second.  Deeper networks need one more barrier
a layer in each direction.  The slices depend on the layers' widths only, and their parts are summed in order, so the
number of threads does not change the bits.  Where ranks share the work, each owns consecutive slices, and its team
these; what others need of them is exchanged at the barriers.  Each slice's outputs and gradients are a cut of their own
in the work space: in common rows, a processor that reads ahead takes cache lines from the one that writes them.
"""

from cython cimport floating
from cython.parallel cimport parallel
from libc.math cimport isfinite
from libc.stdint cimport int32_t
from libc.string cimport memcpy

from .affine cimport affine_backward_bias
from .layer cimport (
    Inputs, activate_units, backprop_units, first_of_group, group_backward_input, layer_backward_input,
    layer_backward_weight, layer_forward, limit_slice, merges_slices, takes_any_order)
from .losses cimport loss_rows, sum_of_weights
from .plan cimport N_SLICES, Job, Layer, Plan, Slice
from .ranks cimport DELTAS, LOGITS, OUTPUTS, SQUARES, Exchange, exchange, is_over
from .rows cimport LINE_BYTES, Cut, RowsAhead, dense_rows, prefetch_pages, rows_ahead, whole
from .sparse cimport ColumnStore, block_at, column_work_size, columns_in, sort_by_column
from .updates cimport Step, add, add_up, clipped, penalty, step_at, sum_of_squares, update_range

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

# A member of the team, and the offsets of its own parts of the work space.
cdef struct Member:
    int index
    int n_members
    int rank                # that the team belongs to
    int n_ranks
    Py_ssize_t dZ           # (block_rows, n_classes), its gradient of the logits
    Py_ssize_t spare        # the same size again

# A row block, and where its gradient goes: target = alpha * gradient + beta * target.
cdef struct RowBlock:
    Py_ssize_t at           # position of its first row
    Py_ssize_t n
    bint begins, ends       # its batch
    double total            # of the batch's weights
    Step step
    double alpha, weight_beta, bias_beta
    int parity              # which of two buffers holds its parts of the logits, and sorted non-zeros
    int third               # which of three buffers holds its gathered rows
    Inputs given            # the first layer's input
    ColumnStore[N_SLICES] columns   # non-zeros of sparse rows by column


# --- who owns what --------------------------------------------------------------------------------------------------


cdef inline int own_begin(const Member* member, const Layer* layer) noexcept nogil:
    # The member's first slice of a layer.
    return share_begin(member, layer, member.index)


cdef inline int own_end(const Member* member, const Layer* layer) noexcept nogil:
    return share_begin(member, layer, member.index + 1)


cdef inline int share_begin(const Member* member, const Layer* layer, int index) noexcept nogil:
    # The first slice of the team's member with this index.
    cdef int begin = rank_begin(member, layer, member.rank), end = rank_begin(member, layer, member.rank + 1)
    return begin + (end - begin) * index // member.n_members


cdef inline int rank_begin(const Member* member, const Layer* layer, int rank) noexcept nogil:
    # The first slice of a rank, whose slices are whole groups if the layer has several.
    if layer.n_groups > 1:
        return first_of_group(layer, layer.n_groups * rank // member.n_ranks)
    return layer.n_slices * rank // member.n_ranks


cdef Member member_of(const Job* job, int index, int n_members) noexcept nogil:
    cdef Member member
    cdef Py_ssize_t n_logits = job.plan.block_rows * job.plan.layers[job.plan.n_layers - 1].n_out
    member.index, member.n_members, member.rank, member.n_ranks = index, n_members, 0, 1
    if job.ranks != NULL:
        member.rank, member.n_ranks = job.ranks.rank, job.ranks.n_ranks
    member.dZ = job.plan.spare + 2 * index * n_logits
    member.spare = member.dZ + n_logits
    return member


cdef inline Py_ssize_t in_lines(const Slice* own, Py_ssize_t number_size) noexcept nogil:
    # A slice's units and the rest of their last cache line, which may be computed: nobody reads it.
    cdef Py_ssize_t line = LINE_BYTES // number_size
    return (own.end - own.begin + line - 1) // line * line


cdef inline void meet(const Job* job, const Member* member, Exchange what, Py_ssize_t index) noexcept nogil:
    # Waits until what all members, of all ranks, have computed is there.
    fastnn_barrier()
    if job.ranks != NULL:
        if member.index == 0:
            exchange(job, what, index)
        fastnn_barrier()


# --- rows -----------------------------------------------------------------------------------------------------------


cdef inline Py_ssize_t rows_of_block(const Job* job, Py_ssize_t at) noexcept nogil:
    # Rows of the row block that begins at this position: it ends with its batch and with the epoch.
    cdef Py_ssize_t batch_size = job.plan.batch_size
    return min(job.plan.block_rows, min(batch_size - at % batch_size, job.n_rows - at))


cdef inline ColumnStore columns_of(const Job* job, floating* rows, int m) noexcept nogil:
    # Member m's share of a row block's non-zeros.
    cdef Py_ssize_t n_in = job.store.n_columns
    return columns_in(rows + m * column_work_size(n_in, job.plan.nonzeros), n_in, job.plan.nonzeros)


cdef void prepare_rows(const Job* job, const Member* member, Py_ssize_t first, Py_ssize_t n,
                       floating* rows) noexcept nogil:
    # Prepares the member's share of a row block for the team: rows gathered, or non-zeros sorted by column.
    cdef Py_ssize_t begin = n * member.index // member.n_members, end = n * (member.index + 1) // member.n_members
    cdef ColumnStore columns
    if job.plan.is_sparse:
        columns = columns_of(job, rows, member.index)
        sort_by_column(job.store, job.order, first + begin, end - begin, <int32_t> begin, &columns, rows)
    else:
        dense_rows(job.store, job.order, first + begin, end - begin, rows + begin * job.store.n_columns, NULL)


cdef RowsAhead own_ahead(const Job* job, const Member* member, Py_ssize_t first, Py_ssize_t n) noexcept nogil:
    # The dense rows of a row block that the member prefetches: those it will gather, or all if they are read in place.
    cdef Py_ssize_t begin = 0, end = n
    if job.plan.gathers:
        begin, end = n * member.index // member.n_members, n * (member.index + 1) // member.n_members
    return rows_ahead(job.store, job.order, first + begin, end - begin)


cdef void open_block(const Job* job, const Member* member, RowBlock* block, floating* work) noexcept nogil:
    # Fills in rows, batch, step and factors of the row block that begins at block.at.
    cdef const Plan* plan = job.plan
    cdef Py_ssize_t batch_size = plan.batch_size, batch_begin = block.at // batch_size * batch_size, next_at
    cdef Inputs* given = &block.given
    cdef floating* rows = work + (block.parity if plan.is_sparse else block.third) * plan.rows_size
    cdef bint in_any_order
    cdef int m
    block.n = rows_of_block(job, block.at)
    next_at = block.at + block.n
    block.begins, block.ends = block.at == batch_begin, next_at == min(batch_begin + batch_size, job.n_rows)
    if block.begins or block.total < 0:
        block.total = sum_of_weights(job.targets, batch_begin, min(batch_size, job.n_rows - batch_begin))
    block.step = step_at(job.steps, block.at // batch_size)
    if plan.fold_rows:
        block.alpha, block.bias_beta = block.step.hyperparameters[0], 1
        block.weight_beta = 1 - block.step.hyperparameters[0] * block.step.l2
    else:
        block.alpha, block.weight_beta, block.bias_beta = 1, not block.begins, not block.begins
    given.first, given.n, given.cut, given.order, given.X = block.at, block.n, whole(job.store.n_columns), NULL, NULL
    given.store, given.store_order, given.columns, given.n_columns = job.store, job.order, &block.columns[0], 0
    given.ahead = rows_ahead(job.store, NULL, 0, 0)
    if job.blocks != NULL:
        block.columns[0], given.n_columns = block_at(job.blocks, job.store, block.at, work), 1
    elif plan.sorts:
        for m in range(member.n_members):
            block.columns[m] = columns_of(job, rows, m)
        given.n_columns = member.n_members
    elif plan.gathers:
        given.X = rows
    elif not plan.is_sparse:
        in_any_order = takes_any_order(&plan.layers[0])
        given.X = dense_rows(job.store, job.order, block.at, block.n, rows, &given.order if in_any_order else NULL)
    if plan.prefetches:
        given.ahead = own_ahead(job, member, next_at, rows_of_block(job, next_at))


# --- forward --------------------------------------------------------------------------------------------------------


cdef Inputs outputs_of(const Layer* layer, const Inputs* rows, const floating* work) noexcept nogil:
    # The next layer's input.
    cdef Inputs above = rows[0]
    above.X, above.cut, above.order, above.ahead.n = work + layer.output, layer.cut, NULL, 0
    return above


cdef Inputs outputs_of_slice(const Layer* layer, int s, const Inputs* rows, const floating* work) noexcept nogil:
    # The output layer's input, from one slice of the layer below.
    cdef Inputs above = outputs_of(layer, rows, work)
    above.X = work + layer.output + s * layer.cut.next
    return above


cdef void forward_layer(const Job* job, const Member* member, const Layer* layer, const Inputs* rows,
                        floating* work) noexcept nogil:
    # Y (n, n_out) = activation(X (n, n_in) @ W (n_in, n_out) + b), own units
    cdef const floating* parameters = <const floating*> job.parameters
    cdef Py_ssize_t place
    cdef const Slice* own
    cdef int s = own_begin(member, layer), last = own_end(member, layer), next_
    while s < last:
        next_ = last if merges_slices(layer) else s + 1
        layer_forward(layer, rows, s, next_, parameters, parameters + layer.bias + layer.slices[s].begin,
                      work + layer.output + s * layer.cut.next, &layer.cut)
        s = next_
    for s in range(own_begin(member, layer), last):
        own, place = &layer.slices[s], s * layer.cut.next
        activate_units(layer, work + layer.output + place, work + layer.slopes + place if layer.keeps_slopes else NULL,
                       layer.cut.stride, rows.first, rows.n, own.begin, own.end,
                       in_lines(own, sizeof(floating)) == layer.cut.stride, job.key)


cdef void forward_own(const Job* job, const Member* member, const RowBlock* block, floating* work) noexcept nogil:
    # All hidden layers, and the own units' parts of the logits, one a slice: Z (n, n_classes) = Y (n, own) @
    # W (own, n_classes); the first slice's part includes b.
    cdef const floating* parameters = <const floating*> job.parameters
    cdef const Layer* layer
    cdef const Layer* output = &job.plan.layers[job.plan.n_layers - 1]
    cdef Py_ssize_t n_logits = job.plan.block_rows * output.n_out
    cdef Cut logits = whole(output.n_out)
    cdef Inputs rows = block.given, own
    cdef int k, s
    for k in range(job.plan.n_layers - 1):
        layer = &job.plan.layers[k]
        if k > 0:
            meet(job, member, OUTPUTS, k - 1)
        forward_layer(job, member, layer, &rows, work)
        rows = outputs_of(layer, &rows, work)
    for s in range(own_begin(member, output), own_end(member, output)):
        own = outputs_of_slice(layer, s, &rows, work)
        layer_forward(output, &own, s, s + 1, parameters, parameters + output.bias if s == 0 else NULL,
                      work + job.plan.parts + (block.parity * output.n_slices + s) * n_logits, &logits)


# --- backward -------------------------------------------------------------------------------------------------------


cdef double logits_backward(const Job* job, const Member* member, const RowBlock* block, floating* work) noexcept nogil:
    # Z (n, n_classes) = the sum of all slices' parts, then dZ, the gradient of the logits; returns the log-likelihood.
    cdef const Layer* output = &job.plan.layers[job.plan.n_layers - 1]
    cdef Py_ssize_t n = block.n * output.n_out, size = job.plan.block_rows * output.n_out, i
    cdef const floating* part = work + job.plan.parts + block.parity * output.n_slices * size
    cdef floating* dZ = work + member.dZ
    cdef int _
    for i in range(n):
        dZ[i] = part[i]
    for _ in range(1, output.n_slices):
        part += size
        for i in range(n):
            dZ[i] += part[i]
    return loss_rows(job.targets, block.at, dZ, block.n, output.n_out, block.total)


cdef void backward_groups(const Job* job, const Member* member, const Layer* layer, const Layer* below,
                          const floating* dZ, const Cut* z, Py_ssize_t n, floating* work) noexcept nogil:
    # The same for a layer with several groups of slices: each has a part of dY (n_groups, n, n_in), and the parts are
    # summed in pairs, so that ranks can compute what their units add.  Then dY is what all add to the own units.
    cdef Py_ssize_t size = below.n_slices * below.cut.next
    cdef floating* dY = work + below.delta
    cdef int first = 0, last = layer.n_groups, s = own_begin(member, below), end = own_end(member, below), next_, group
    if job.ranks != NULL:  # for the units of all ranks
        first = layer.n_groups * member.rank // member.n_ranks
        last = layer.n_groups * (member.rank + 1) // member.n_ranks
        s = below.n_slices * member.index // member.n_members
        end = below.n_slices * (member.index + 1) // member.n_members
    while s < end:
        next_ = end if merges_slices(layer) else s + 1
        for group in range(first, last):
            group_backward_input(layer, group, dZ, z, <const floating*> job.parameters, below.slices[s].begin,
                                 below.slices[next_ - 1].end, dY + group * size + s * below.cut.next, &below.cut, n)
        add_up(layer.n_groups, first, last, size, s * below.cut.next, next_ * below.cut.next, dY)
        s = next_
    if job.ranks != NULL:
        meet(job, member, DELTAS, below.index)
        take_received(job, own_begin(member, below) * below.cut.next, own_end(member, below) * below.cut.next,
                      rank_begin(member, below, member.rank) * below.cut.next, dY)


cdef void take_received(const Job* job, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t received_from,
                        floating* dY) noexcept nogil:
    # dY = the sum of what all ranks sent of numbers begin to end; what came begins with another number.
    cdef floating* received = <floating*> job.ranks.received - received_from
    cdef Py_ssize_t i
    for i in range(job.ranks.n_pairs):
        add(received + job.ranks.pairs[2 * i], received + job.ranks.pairs[2 * i + 1], begin, end)
    if begin < end:
        memcpy(dY + begin, received + begin, (end - begin) * sizeof(floating))


cdef void backward_slices(const Job* job, const Member* member, const Layer* layer, const Layer* below,
                          const floating* dZ, const Cut* z, Py_ssize_t n, floating* work) noexcept nogil:
    # dY (n, n_in) = dZ (n, n_out) @ W.T (n_out, n_in), for the member's own units of the layer below
    cdef int s = own_begin(member, below), last = own_end(member, below), next_
    while s < last:
        next_ = last if merges_slices(layer) else s + 1
        layer_backward_input(layer, dZ, z, <const floating*> job.parameters, below.slices[s].begin,
                             below.slices[next_ - 1].end, work + below.delta + s * below.cut.next, &below.cut, n,
                             work + member.spare)
        s = next_


cdef void backward_input(const Job* job, const Member* member, const Layer* layer, const Layer* below,
                         const floating* dZ, const Cut* z, Py_ssize_t n, floating* work) noexcept nogil:
    # dZ of the member's own units of the layer below: back through a layer, and the activation below it.
    cdef Py_ssize_t place, n_units
    cdef int s
    if layer.n_groups > 1 and not layer.by_inputs:
        backward_groups(job, member, layer, below, dZ, z, n, work)
    else:
        backward_slices(job, member, layer, below, dZ, z, n, work)
    for s in range(own_begin(member, below), own_end(member, below)):
        place, n_units = s * below.cut.next, in_lines(&below.slices[s], sizeof(floating))
        backprop_units(below, work + below.output + place, work + below.slopes + place if below.keeps_slopes else NULL,
                       work + below.delta + place, below.cut.stride, n, n_units, n_units == below.cut.stride)


cdef void backward_own(const Job* job, const Member* member, const RowBlock* block, floating* work) noexcept nogil:
    # The gradient by the own units of all hidden layers.
    cdef const Layer* layers = job.plan.layers
    cdef const floating* dZ = work + member.dZ
    cdef int k = job.plan.n_layers - 1
    cdef Cut cut = whole(layers[k].n_out)
    for k in range(k, 0, -1):
        backward_input(job, member, &layers[k], &layers[k - 1], dZ, &cut, block.n, work)
        dZ, cut = work + layers[k - 1].delta, layers[k - 1].cut
        if job.plan.n_layers > 2:
            fastnn_barrier()


cdef void backward_weight(const Job* job, const Member* member, const RowBlock* block, const Layer* layer,
                          const Inputs* rows, floating* target, floating* work) noexcept nogil:
    # dW (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW, and the bias, of a hidden layer, own units
    cdef floating alpha = <floating> block.alpha
    cdef floating* dZ = work + layer.delta
    cdef const Slice* own
    cdef int s = own_begin(member, layer), last = own_end(member, layer), next_
    while s < last:
        next_ = last if merges_slices(layer) else s + 1
        layer_backward_weight(layer, rows, s, next_, dZ + s * layer.cut.next, &layer.cut, target, alpha,
                              <floating> block.weight_beta)
        s = next_
    for s in range(own_begin(member, layer), last):
        own = &layer.slices[s]
        affine_backward_bias(dZ + s * layer.cut.next, layer.cut.stride, target + layer.bias + own.begin, block.n,
                             own.end - own.begin, alpha, <floating> block.bias_beta)


cdef void ascend_own(const Job* job, const Member* member, const RowBlock* block, floating* target,
                     floating* work) noexcept nogil:
    # target = alpha * gradient + beta * target, for the hidden layers' own columns and the output layer's own rows.
    cdef const Layer* layer
    cdef const Layer* output = &job.plan.layers[job.plan.n_layers - 1]
    cdef Inputs rows = block.given, own
    cdef Cut logits = whole(output.n_out)
    cdef floating* dZ = work + member.dZ
    cdef int k, s
    for k in range(job.plan.n_layers - 1):
        layer = &job.plan.layers[k]
        backward_weight(job, member, block, layer, &rows, target, work)
        rows = outputs_of(layer, &rows, work)
    for s in range(own_begin(member, output), own_end(member, output)):
        own = outputs_of_slice(layer, s, &rows, work)
        layer_backward_weight(output, &own, s, s + 1, dZ, &logits, target, <floating> block.alpha,
                              <floating> block.weight_beta)
    if own_begin(member, output) == 0 < own_end(member, output):
        # Only the owner of the first slice reads and moves the output layer's bias.
        affine_backward_bias(dZ, output.n_out, target + output.bias, block.n, output.n_out, <floating> block.alpha,
                             <floating> block.bias_beta)


# --- steps ----------------------------------------------------------------------------------------------------------


cdef inline double squares_of(const Slice* own, const floating* gradient) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t i
    for i in range(own.n_rows):
        total += sum_of_squares(gradient + own.weight + i * own.stride, own.n_columns)
    return total


cdef inline Slice bias_of(const Layer* layer, int s) noexcept nogil:
    # The biases of a slice's units; of the output layer, whose slices are of inputs, all belong to the first.
    cdef Slice bias = layer.slices[s]
    if layer.by_inputs:
        bias.begin, bias.end = 0, layer.n_out if s == 0 else 0
    bias.weight, bias.n_rows, bias.n_columns, bias.stride = layer.bias + bias.begin, 1, bias.end - bias.begin, 0
    return bias


cdef double clipped_scale(const Job* job, const Member* member, const floating* gradient,
                          floating* squares) noexcept nogil:
    # The factor that clips the gradient, from its squares (n_layers, most_slices, 2), of each slice's weights and of
    # its biases, which all members fill in.
    cdef const Layer* layer
    cdef Slice bias
    cdef floating* own
    cdef double total = 0
    cdef int k, s
    for k in range(job.plan.n_layers):
        layer, own = &job.plan.layers[k], squares + 2 * job.plan.most_slices * k
        for s in range(own_begin(member, layer), own_end(member, layer)):
            bias = bias_of(layer, s)
            own[2 * s] = <floating> squares_of(&layer.slices[s], gradient)
            own[2 * s + 1] = <floating> squares_of(&bias, gradient)
    meet(job, member, SQUARES, 0)
    for k in range(job.plan.n_layers):
        for s in range(2 * job.plan.layers[k].n_slices):
            total += squares[2 * job.plan.most_slices * k + s]
    return clipped(total, job.steps.clip_norm)


cdef void step_slice(const Job* job, const Step* step, bint is_weight, const Slice* own,
                     floating* gradient) noexcept nogil:
    cdef Py_ssize_t begin = own.weight, n = own.n_columns
    cdef Py_ssize_t n_rows = own.n_rows, _
    if own.stride == own.n_columns:
        n, n_rows = n * n_rows, 1
    for _ in range(n_rows):
        update_range(step, is_weight, <floating*> job.parameters, gradient, <floating*> job.state, begin, begin + n)
        begin += own.stride


cdef void step_own(const Job* job, const Member* member, RowBlock* block, floating* gradient,
                   floating* work) noexcept nogil:
    # The member's part of an optimizer's step.
    cdef const Layer* layer
    cdef Slice bias
    cdef int k, s
    if job.steps.clip_norm > 0:
        block.step.scale = clipped_scale(job, member, gradient, work + job.plan.squares)
    for k in range(job.plan.n_layers):
        layer = &job.plan.layers[k]
        for s in range(own_begin(member, layer), own_end(member, layer)):
            bias = bias_of(layer, s)
            step_slice(job, &block.step, True, &layer.slices[s], gradient)
            step_slice(job, &block.step, False, &bias, gradient)


cdef void add_own_penalties(const Job* job, const Member* member, const RowBlock* block,
                            const floating* number) noexcept nogil:
    # The last argument is for its type only.
    cdef const floating* weights
    cdef const Layer* layer
    cdef const Slice* own
    cdef Py_ssize_t row
    cdef double total
    cdef int k, s
    for k in range(job.plan.n_layers):
        layer = &job.plan.layers[k]
        for s in range(own_begin(member, layer), own_end(member, layer)):
            own = &layer.slices[s]
            total, weights = 0, <const floating*> job.parameters + own.weight
            for row in range(own.n_rows):
                total += penalty(&block.step, weights + row * own.stride, own.n_columns)
            job.penalties[k * job.plan.most_slices + s] += block.total * total


cdef void limit_own_norms(const Job* job, const Member* member, floating* gradient) noexcept nogil:
    # The gradient serves as scratch; that of padding stays 0.
    cdef const Layer* layer
    cdef int k, s
    for k in range(job.plan.n_layers - 1):
        layer = &job.plan.layers[k]
        for s in range(own_begin(member, layer), own_end(member, layer)):
            limit_slice(layer, s, job.steps.max_norm, <floating*> job.parameters, gradient + layer.slices[s].weight)


# --- the loop -------------------------------------------------------------------------------------------------------


cdef void prepare_next(const Job* job, const Member* member, const RowBlock* block, floating* work) noexcept nogil:
    # Prepares what is needed after the barrier: the next row block's rows, gathered, or this one's, which are in the
    # cache, by column.
    cdef Py_ssize_t next_at = block.at + block.n, size = job.plan.rows_size
    if job.plan.gathers:
        prepare_rows(job, member, next_at, rows_of_block(job, next_at), work + (block.third + 1) % 3 * size)
    elif job.plan.sorts:
        prepare_rows(job, member, block.at, block.n, work + block.parity * size)


cdef void prefetch_later(const Job* job, const Member* member, const RowBlock* block) noexcept nogil:
    # Prefetches pages of the row block after the next, if rows are in a random order: the member would wait anyway.
    cdef Py_ssize_t next_at = block.at + block.n
    cdef RowsAhead later
    if job.plan.prefetches and job.order != NULL:
        next_at += rows_of_block(job, next_at)
        later = own_ahead(job, member, next_at, rows_of_block(job, next_at))
        prefetch_pages(&later)


cdef bint finish_block(const Job* job, const Member* member, RowBlock* block, double log_likelihood, floating* target,
                       floating* work) noexcept nogil:
    # The backward pass, with the old weights, and the step if the row block ends its batch; False: it diverged.
    if not isfinite(log_likelihood):
        if member.index == 0:
            job.log_likelihood[0] = log_likelihood
        return False
    if member.index == 0:
        job.log_likelihood[1] += log_likelihood
        if block.ends:
            job.log_likelihood[0] += job.log_likelihood[1]
            job.log_likelihood[1] = 0
    backward_own(job, member, block, work)
    if job.steps.penalised and block.ends:
        add_own_penalties(job, member, block, work)
    ascend_own(job, member, block, target, work)
    if member.index == 0:
        job.position[1] = 0 if block.ends else job.position[1] + block.n
        if block.ends:
            job.position[0] = block.at + block.n
    if block.ends and not job.plan.fold_rows:
        step_own(job, member, block, target, work)
    if block.ends and job.steps.max_norm > 0:
        limit_own_norms(job, member, <floating*> job.gradients)
    return True


cdef void train_as_member(const Job* job, bint* stop, int index, int n_members, floating* work) noexcept nogil:
    cdef Member member = member_of(job, index, n_members)
    cdef floating* target = <floating*> (job.parameters if job.plan.fold_rows else job.gradients)
    cdef RowBlock block
    cdef double log_likelihood
    block.at, block.parity, block.third, block.total = job.position[0] + job.position[1], 0, 0, -1
    if job.plan.gathers:
        prepare_rows(job, &member, block.at, rows_of_block(job, block.at), work)
        fastnn_barrier()
    while True:
        open_block(job, &member, &block, work)
        forward_own(job, &member, &block, work)
        prepare_next(job, &member, &block, work)
        if index == n_members - 1:  # the owner of the output layer's first slice has the bias to do
            stop[block.parity] = is_over(job) or block.at + block.n >= job.n_rows
        prefetch_later(job, &member, &block)
        meet(job, &member, LOGITS, block.parity)
        log_likelihood = logits_backward(job, &member, &block, work)  # each for itself: it is little work
        if not finish_block(job, &member, &block, log_likelihood, target, work) or stop[block.parity]:
            return
        block.at += block.n
        block.parity, block.third = 1 - block.parity, (block.third + 1) % 3
        if job.plan.n_layers > 2:
            fastnn_barrier()


cdef void train_by_units(const Job* job, floating* work) noexcept nogil:
    cdef bint[2] stop
    cdef bint* stop_ = &stop[0]
    cdef int k, most = 1
    for k in range(job.plan.n_layers - 1):
        most = max(most, job.plan.layers[k].n_slices)
    with parallel(num_threads=min(job.n_threads, most)):
        train_as_member(job, stop_, fastnn_member(), fastnn_members(), work)
