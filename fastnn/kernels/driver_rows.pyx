"""The driver by rows: a batch is cut into shards, a shard into row blocks.

A row block goes forward and backward while it is in cache, and adds to its shard's gradient.  When all shards are done,
their gradients are summed, always in the same pairs, and the parameters move.  A plain step on a batch of one row block
needs no gradient: the products write the new parameters.  How a batch is cut depends on its size only, and a shard
takes its row blocks in order, so neither the number of threads nor an interruption by the clock changes the bits.
Ranks own shards, and each moves a slice of the parameters: see fastnn/engine/exchanges.py.

Layers on images come first, see trunk.pyx: threads then share the images of a row block, which are rows of a shard, or
several shards if threads had too few images otherwise, and the slices of the layers behind them, shard by shard.  With
batch normalisation, which couples the rows of a batch, it is one shard and one row block: the threads share the slices
of its layers.  Very sparse batches move only the rows of the first weight that they touch: see touched.pyx.

Of the columns of a table, a row block gathers the rows of the embeddings into its work space; they are the last inputs
of the first layer.  The gradient by them takes their place and is added to the embeddings' row by row.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport INFINITY, isfinite
from libc.string cimport memset

from .affine cimport affine_backward_bias
from .embeddings cimport gather_rows, scatter_rows
from .layer cimport (
    Inputs, activate_units, backprop_units, layer_backward_input, layer_backward_weight, layer_forward, limit_slice,
    shares_input_gradient, takes_all_rows, takes_any_order)
from .losses cimport loss_rows, sum_of_weights
from .normalisation cimport backprop_normalise, move_statistics, normalise
from .plan cimport N_SHARDS, Job, Layer, Plan, now, take
from .ranks cimport GRADIENT, PARAMETERS, SHARDS, exchange, is_over
from .rows cimport Cut, dense_rows, is_native, prefetch_pages, rows_ahead, whole
from .sparse cimport ColumnStore, block_at, columns_in, sort_by_column
from .touched cimport step_touched, touch_columns
from .trunk cimport backward_trunk, forward_trunk, sum_parts
from .updates cimport NO_UPDATE, Step, add, add_up, clipped, penalty, step_at, sum_of_squares, update_range

cdef extern from "vectors.h" nogil:
    enum:
        PRODUCT_ROWS
        UPDATE_CHUNK

cdef enum:
    FEATURES_SHARE = 64     # numbers of a row of the trunk's output, whose gradient a thread takes at a time
    SHARED_GROUPS = 4       # of images for each thread, at least, in the trunk at a time, if shards are small

# A batch, and the step that follows it.
cdef struct Batch:
    Py_ssize_t first            # position in the epoch
    Py_ssize_t n
    double total                # of its weights
    Py_ssize_t n_shards
    Py_ssize_t begin, end       # the rank's own shards
    Step step

# Gradients that a step adds up, and the parameters that it moves.
cdef struct Sums:
    void* gradients             # the first is the sum
    Py_ssize_t n_shards
    Py_ssize_t begin, end

# Where a gradient goes: target = alpha * gradient + beta * target.  The first weight, the other weights, and the biases
# and scales have a beta each.
cdef struct Factors:
    double alpha, first_beta, weight_beta, bias_beta


cdef Py_ssize_t shards_of(const Plan* plan, Py_ssize_t n_rows) noexcept nogil:
    return min(plan.n_shards, max(<Py_ssize_t> 1, n_rows // plan.shard_rows))


cdef Py_ssize_t epoch_end(const Job* job) noexcept nogil:
    return job.ranks.epoch_rows if job.ranks != NULL and job.ranks.own_rows else job.n_rows


cdef Py_ssize_t begin_of(const Plan* plan, const Batch* batch, Py_ssize_t shard) noexcept nogil:
    # The first row of a shard in its batch.  Images are cut in whole groups.
    cdef Py_ssize_t lanes = max(plan.trunk.lanes, <Py_ssize_t> 1), n_groups = (batch.n + lanes - 1) // lanes
    return min(batch.n, lanes * (n_groups * shard // batch.n_shards))


cdef int shares_of(const Layer* layer, Py_ssize_t n, int n_slices) noexcept nogil:
    # Shares of a layer's product on n rows, each for a thread: n_slices, of the layer or of the one below, or 1.
    return n_slices if n >= layer.shared_from else 1


cdef Inputs part_of(const Job* job, const Layer* layer, const Inputs* rows, Py_ssize_t at,
                    const floating* number) noexcept nogil:
    # The dense rows, from row at on, that one product takes; the rows after them are prefetched meanwhile, so that no
    # pass waits for memory.  The last argument is for its type only.
    cdef Inputs part = rows[0]
    cdef Py_ssize_t n_ahead
    if takes_all_rows(layer):
        return part
    part.n = min(<Py_ssize_t> PRODUCT_ROWS, rows.n - at)
    part.first += at
    if rows.order != NULL:
        part.order += at
    else:
        part.X = <const floating*> rows.X + at * rows.cut.stride
    if takes_any_order(layer):
        n_ahead = part.n if is_native(job.store, number) and part.first + 2 * part.n <= job.n_rows else 0
        part.ahead = rows_ahead(job.store, job.order, part.first + part.n, n_ahead)
    return part


cdef Inputs first_rows(const Job* job, Py_ssize_t first, Py_ssize_t n, Py_ssize_t place,
                       floating* work) noexcept nogil:
    # The input of the first layer behind the trunk, if there is one: n rows from position first on, which the trunk has
    # left at row place of its output.
    cdef const Layer* layer = job.plan.layers
    cdef Inputs rows
    cdef bint in_any_order = takes_any_order(&job.plan.layers[0])
    rows.first, rows.n, rows.cut, rows.order, rows.X = first, n, whole(job.store.n_columns), NULL, NULL
    rows.store, rows.store_order, rows.columns, rows.n_columns = job.store, job.order, NULL, 0
    rows.ahead = rows_ahead(job.store, NULL, 0, 0)
    if job.plan.trunk.n_layers:
        rows.cut = whole(job.plan.layers[job.plan.trunk.n_layers].n_in)
        rows.X = work + place * rows.cut.stride
    elif layer.n_embedded:
        rows.cut = whole(layer.n_embedded)
        rows.X = work
        gather_rows(layer.embeddings, layer.n_embeddings, job.store.codes, job.order, first, n,
                    <const floating*> job.parameters, work, layer.n_embedded)
    elif not job.plan.is_sparse:
        rows.X = dense_rows(job.store, job.order, first, n, work, &rows.order if in_any_order else NULL)
    return rows


cdef Inputs outputs_of(const Layer* layer, const Inputs* rows, const floating* Y) noexcept nogil:
    # The next layer's input.
    cdef Inputs above = rows[0]
    above.X, above.cut, above.order, above.ahead.n = Y, whole(layer.n_out), NULL, 0
    return above


# --- forward --------------------------------------------------------------------------------------------------------


cdef void forward_slices(const Job* job, const Layer* layer, const Inputs* rows, int s, int end, floating* Z,
                         floating* work) noexcept nogil:
    # Y (n, n_out) = activation(X (n, n_in) @ W (n_in, n_out) + b), for the units of slices s to end
    cdef const floating* parameters = <const floating*> job.parameters
    cdef Py_ssize_t begin = layer.slices[s].begin, n_units = layer.slices[end - 1].end - begin, at = 0
    cdef const floating* b = parameters + layer.bias + begin
    cdef floating* slopes = work + layer.slopes + begin if layer.keeps_slopes else NULL
    cdef Cut cut = whole(layer.n_out)
    cdef Inputs part
    while at < rows.n:
        part = part_of(job, layer, rows, at, Z)
        prefetch_pages(&part.ahead)
        # Batch normalisation would subtract the bias again.
        layer_forward(layer, &part, s, end, parameters, b if not layer.normalises else NULL,
                      Z + at * layer.n_out + begin, &cut)
        at += part.n
    if layer.normalises:
        normalise(Z + begin, work + layer.x_hat + begin, layer.n_out, parameters + layer.norm + begin, b,
                  work + layer.statistics + begin, work + layer.statistics + layer.n_out + begin, rows.n, n_units)
    if not layer.is_output:
        activate_units(layer, Z + begin, slopes, layer.n_out, rows.first, rows.n, begin, begin + n_units,
                       n_units == layer.n_out, job.key)


cdef void forward_layer(const Job* job, const Layer* layer, const Inputs* rows, floating* Z,
                        floating* work) noexcept nogil:
    cdef int s, n_shares = shares_of(layer, rows.n, layer.n_slices)
    if n_shares == 1:
        forward_slices(job, layer, rows, 0, layer.n_slices, Z, work)
        return
    for s in prange(n_shares, num_threads=min(job.n_threads, n_shares), schedule="static"):
        forward_slices(job, layer, rows, s, s + 1, Z, work)


cdef Inputs forward_block(const Job* job, Py_ssize_t first, Py_ssize_t n, Py_ssize_t place, floating* work,
                          floating* logits) noexcept nogil:
    # Leaves hidden layers' outputs in the work space, the output layer's in logits; returns the input of the first
    # layer behind the trunk.
    cdef Inputs given = first_rows(job, first, n, place, work), rows = given
    cdef const Layer* layer
    cdef floating* Z
    cdef int k
    for k in range(job.plan.trunk.n_layers, job.plan.n_layers):
        layer = &job.plan.layers[k]
        Z = logits if layer.is_output else work + layer.output
        forward_layer(job, layer, &rows, Z, work)
        rows = outputs_of(layer, &rows, Z)
    return given


cdef void forward_shard(const Job* job, Py_ssize_t first, Py_ssize_t begin, Py_ssize_t step, floating* work,
                        floating* logits) noexcept nogil:
    # The row blocks that begin at rows first + begin, first + begin + step, ...; logits begins with row first.
    cdef Py_ssize_t at = begin, n, n_out = job.plan.layers[job.plan.n_layers - 1].n_out
    while at < job.n_rows:
        n = min(job.plan.block_rows, job.n_rows - at)
        if job.plan.trunk.n_layers:
            forward_trunk(job, first + at, n, work)
        forward_block(job, first + at, n, 0, work, logits + at * n_out)
        at += step


# --- backward -------------------------------------------------------------------------------------------------------


cdef void backward_weight_slices(const Job* job, const Layer* layer, const Inputs* rows, int s, int end,
                                 const floating* dZ, floating* target, floating alpha, floating beta) noexcept nogil:
    # dW (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW, for the units of slices s to end
    cdef Py_ssize_t begin = layer.slices[s].begin, at = 0
    cdef Cut cut = whole(layer.n_out)
    cdef Inputs part
    while at < rows.n:
        part = part_of(job, layer, rows, at, dZ)
        layer_backward_weight(layer, &part, s, end, dZ + at * layer.n_out + begin, &cut, target, alpha, beta)
        beta = 1
        at += part.n


cdef void backward_weight(const Job* job, const Layer* layer, const Inputs* rows, const floating* dZ, floating* target,
                          const Factors* factors) noexcept nogil:
    cdef int s, n_shares = shares_of(layer, rows.n, layer.n_slices)
    cdef floating alpha = <floating> factors.alpha
    cdef floating beta = <floating> (factors.first_beta if layer.index == 0 else factors.weight_beta)
    if n_shares == 1:
        backward_weight_slices(job, layer, rows, 0, layer.n_slices, dZ, target, alpha, beta)
        return
    for s in prange(n_shares, num_threads=min(job.n_threads, n_shares), schedule="static"):
        backward_weight_slices(job, layer, rows, s, s + 1, dZ, target, alpha, beta)


cdef void backward_input_units(const Job* job, const Layer* layer, const Layer* below, Py_ssize_t n,
                               const floating* dZ, Py_ssize_t begin, Py_ssize_t end, floating* work,
                               floating* target, const Factors* factors) noexcept nogil:
    # dY (n, n_in) = dZ (n, n_out) @ W.T (n_out, n_in), then back through the activation and the normalisation of the
    # layer below, for its units begin to end.  A transposed layer's product is in dY already.
    cdef const floating* parameters = <const floating*> job.parameters
    cdef floating* dY = work + below.delta + begin
    cdef const floating* slopes = work + below.slopes + begin if below.keeps_slopes else NULL
    cdef Py_ssize_t width = below.n_out
    cdef Cut x = whole(width), z = whole(layer.n_out)
    if shares_input_gradient(layer):
        layer_backward_input(layer, dZ, &z, parameters, begin, end, dY, &x, n, <floating*> NULL)
    backprop_units(below, work + below.output + begin, slopes, dY, width, n, end - begin, end - begin == width)
    if below.normalises:
        backprop_normalise(work + below.x_hat + begin, dY, width, work + below.statistics + width + begin,
                           parameters + below.norm + begin, target + below.norm + begin, target + below.bias + begin,
                           n, end - begin, <floating> factors.alpha, <floating> factors.bias_beta)


cdef void backward_input(const Job* job, const Layer* layer, const Layer* below, Py_ssize_t n, const floating* dZ,
                         floating* work, floating* target, const Factors* factors) noexcept nogil:
    cdef int s, n_shares = shares_of(layer, n, below.n_slices)
    cdef Cut x = whole(layer.n_in), z = whole(layer.n_out)
    if not shares_input_gradient(layer):
        layer_backward_input(layer, dZ, &z, <const floating*> job.parameters, 0, layer.n_in, work + below.delta, &x, n,
                             work + job.plan.spare)
    if n_shares == 1:
        backward_input_units(job, layer, below, n, dZ, 0, below.n_out, work, target, factors)
        return
    for s in prange(n_shares, num_threads=min(job.n_threads, n_shares), schedule="static"):
        backward_input_units(job, layer, below, n, dZ, below.slices[s].begin, below.slices[s].end, work, target,
                             factors)


cdef void backward_features(const Job* job, const Layer* layer, Py_ssize_t n, Py_ssize_t place, const floating* dZ,
                            floating* work) noexcept nogil:
    # The gradient by the trunk's output, n rows from row place on.
    cdef const floating* parameters = <const floating*> job.parameters
    cdef Py_ssize_t n_in = layer.n_in
    cdef floating* dX = work + job.plan.trunk.delta + place * n_in
    cdef Cut x = whole(n_in), z = whole(layer.n_out)
    cdef Py_ssize_t i, n_shares = (n_in + FEATURES_SHARE - 1) // FEATURES_SHARE
    if not shares_input_gradient(layer) or shares_of(layer, n, 2) == 1:
        layer_backward_input(layer, dZ, &z, parameters, 0, n_in, dX, &x, n, work + job.plan.spare)
        return
    for i in prange(n_shares, num_threads=min(<Py_ssize_t> job.n_threads, n_shares), schedule="static"):
        layer_backward_input(layer, dZ, &z, parameters, i * FEATURES_SHARE, min((i + 1) * FEATURES_SHARE, n_in),
                             dX + i * FEATURES_SHARE, &x, n, <floating*> NULL)


cdef void backward_embeddings(const Job* job, const Layer* layer, Py_ssize_t first, Py_ssize_t n, const floating* dZ,
                              floating* work, floating* target, const Factors* factors) noexcept nogil:
    # The embeddings' gradient: steps are never folded into it, so a beta is 0 or 1.  The gradient by the embedded
    # inputs takes the place of these.
    cdef Cut x = whole(layer.n_embedded), z = whole(layer.n_out)
    layer_backward_input(layer, dZ, &z, <const floating*> job.parameters, layer.n_in - layer.n_embedded, layer.n_in,
                         work, &x, n, <floating*> NULL)
    if factors.first_beta == 0:
        memset(target + layer.weight - layer.embeddings_size, 0, layer.embeddings_size * sizeof(floating))
    scatter_rows(layer.embeddings, layer.n_embeddings, job.store.codes, job.order, first, n, work, layer.n_embedded,
                 target, <floating> factors.alpha)


cdef void find_columns(const Job* job, Inputs* rows, ColumnStore* columns, floating* work) noexcept nogil:
    # The non-zeros of sparse rows by column, if the plan wants them so.
    if job.blocks != NULL:
        columns[0] = block_at(job.blocks, job.store, rows.first, work)
    elif job.plan.sorts:
        columns[0] = columns_in(work + job.plan.columns, job.store.n_columns, job.plan.nonzeros)
        sort_by_column(job.store, job.order, rows.first, rows.n, 0, columns, work)
    else:
        return
    rows.columns, rows.n_columns = columns, 1


cdef double ascend_block(const Job* job, const Batch* batch, Py_ssize_t first, Py_ssize_t n, Py_ssize_t place,
                         floating* work, floating* target, const Factors* factors) noexcept nogil:
    # Forward and backward on n rows of a batch, but for the trunk, which has them from row place on: target = alpha *
    # gradient of the batch's mean log-likelihood + beta * target, by factors; target may be the parameters themselves.
    # Returns the sum of the rows' log-likelihoods; if it is not finite, target is unchanged.
    cdef const Layer* layers = job.plan.layers
    cdef int k = job.plan.n_layers - 1
    cdef floating* dZ = work + layers[k].output
    cdef Inputs given = forward_block(job, first, n, place, work, dZ), rows
    cdef ColumnStore columns
    cdef double log_likelihood = loss_rows(job.targets, first, dZ, n, layers[k].n_out, batch.total)
    if not isfinite(log_likelihood):
        return log_likelihood
    find_columns(job, &given, &columns, work)
    for k in range(k, job.plan.trunk.n_layers - 1, -1):
        dZ, rows = work + layers[k].delta, given
        if k > job.plan.trunk.n_layers:
            rows = outputs_of(&layers[k - 1], &given, work + layers[k - 1].output)
            # The backward pass uses the old weights, so it precedes their update.
            backward_input(job, &layers[k], &layers[k - 1], n, dZ, work, target, factors)
        elif k > 0:
            backward_features(job, &layers[k], n, place, dZ, work)
        backward_weight(job, &layers[k], &rows, dZ, target, factors)
        if layers[k].n_embedded:
            backward_embeddings(job, &layers[k], first, n, dZ, work, target, factors)
        if not layers[k].normalises:
            affine_backward_bias(dZ, layers[k].n_out, target + layers[k].bias, n, layers[k].n_out,
                                 <floating> factors.alpha, <floating> factors.bias_beta)
    return log_likelihood


# --- shards ---------------------------------------------------------------------------------------------------------


cdef bint ascend_shard(const Job* job, const Batch* batch, Py_ssize_t shard, floating* work) noexcept nogil:
    # Continues one shard of a batch until it is finished or the time is up, but for one row block at least: otherwise a
    # thread that always gets its processor too late would make no progress.  Returns whether the time is up.
    cdef Py_ssize_t begin = begin_of(job.plan, batch, shard)
    cdef Py_ssize_t n_rows = begin_of(job.plan, batch, shard + 1) - begin
    cdef Py_ssize_t n, at = job.position[1 + shard]
    cdef floating* gradient = <floating*> job.gradients + shard * job.gradient_size
    cdef Factors factors
    cdef double sum_ = job.log_likelihood[1 + shard]
    cdef bint is_late = False
    while at < n_rows and not is_late:
        n = min(job.plan.block_rows, n_rows - at)
        factors.alpha, factors.weight_beta, factors.bias_beta = 1, at > 0, at > 0
        factors.first_beta = 1 if job.plan.touches else factors.weight_beta  # `touch_columns` has cleared it
        sum_ += ascend_block(job, batch, batch.first + begin + at, n, 0, work, gradient, &factors)
        at += n
        is_late = now() >= job.deadline
    # Written once, since other threads write to the same cache line.
    job.position[1 + shard], job.log_likelihood[1 + shard] = at, sum_
    return is_late


cdef Py_ssize_t shards_together(const Job* job, const Batch* batch, Py_ssize_t shard, Py_ssize_t end) noexcept nogil:
    # The end of the shards that go through the trunk together from this one on: several, up to end, if threads had
    # too few groups otherwise, and if they fit into a row block, each group with a gradient of its own.
    cdef const Plan* plan = job.plan
    cdef Py_ssize_t begin = begin_of(plan, batch, shard), few = SHARED_GROUPS * job.n_threads * plan.trunk.lanes
    cdef Py_ssize_t most = min(plan.block_rows, plan.trunk.n_parts * plan.trunk.lanes), next_ = shard + 1
    while (next_ < end and begin_of(plan, batch, next_) - begin < few
           and begin_of(plan, batch, next_ + 1) - begin <= most):
        next_ += 1
    return next_


cdef Py_ssize_t place_of(const Job* job, const Batch* batch, Py_ssize_t shard, Py_ssize_t begin,
                         Py_ssize_t n) noexcept nogil:
    # Where a shard begins among n rows of its batch, from begin on.
    return min(max(begin_of(job.plan, batch, shard) - begin, <Py_ssize_t> 0), n)


cdef void ascend_together(const Job* job, const Batch* batch, Py_ssize_t shard, Py_ssize_t end,
                          floating* work) noexcept nogil:
    # A row block of images: rows of one shard, or the whole shards up to end.  Threads share the groups of all in the
    # trunk, and then the slices for one shard after the other.
    cdef Py_ssize_t done = job.position[1 + shard], begin = begin_of(job.plan, batch, shard) + done
    cdef Py_ssize_t n = min(job.plan.block_rows, begin_of(job.plan, batch, end) - begin), i, at, n_own
    cdef floating* gradients = <floating*> job.gradients
    cdef Factors factors
    cdef bint goes_back = True
    factors.alpha, factors.first_beta, factors.weight_beta, factors.bias_beta = 1, done > 0, done > 0, done > 0
    forward_trunk(job, batch.first + begin, n, work)
    for i in range(shard, end):
        at = place_of(job, batch, i, begin, n)
        n_own = place_of(job, batch, i + 1, begin, n) - at
        job.log_likelihood[1 + i] += ascend_block(job, batch, batch.first + begin + at, n_own, at, work,
                                                  gradients + i * job.gradient_size, &factors)
        goes_back = goes_back and isfinite(job.log_likelihood[1 + i])
    if goes_back:
        backward_trunk(job, batch.first + begin, n, work, gradients, factors.alpha, factors.bias_beta)
    for i in range(shard, end):
        at = place_of(job, batch, i, begin, n)
        n_own = place_of(job, batch, i + 1, begin, n) - at
        if goes_back:
            sum_parts(job, at, n_own, work, gradients + i * job.gradient_size, factors.alpha, factors.weight_beta,
                      factors.bias_beta)
        job.position[1 + i] += n_own


cdef void ascend_images(const Job* job, const Batch* batch, Py_ssize_t shard, Py_ssize_t end,
                        floating* work) noexcept nogil:
    # Continues the shards of images up to end until they are finished or the time is up; for one row block at least.
    cdef bint is_late = False
    while shard < end and not is_late:
        if begin_of(job.plan, batch, shard) + job.position[1 + shard] == begin_of(job.plan, batch, shard + 1):
            shard += 1
        else:
            ascend_together(job, batch, shard, shards_together(job, batch, shard, end), work)
            is_late = now() >= job.deadline


cdef void take_shards(const Job* job, const Batch* batch, Py_ssize_t* next_, int thread, int n_threads,
                      floating* work) noexcept nogil:
    # A thread first takes consecutive shards, so that the rows it prefetches are its own, and then helps the others.
    # The work space is its own: between two row blocks, only the gradient is kept.
    cdef Py_ssize_t shard
    cdef int i, owner
    for i in range(n_threads):
        owner = (thread + i) % n_threads
        shard = take(next_ + owner)
        while shard < batch.begin + (batch.end - batch.begin) * (owner + 1) // n_threads:
            if ascend_shard(job, batch, shard, work + thread * job.work_size):
                return
            shard = take(next_ + owner)


cdef void ascend_shards(const Job* job, const Batch* batch, floating* work) noexcept nogil:
    cdef Py_ssize_t[N_SHARDS] next_shard
    cdef Py_ssize_t* next_ = &next_shard[0]
    cdef Py_ssize_t n_own = batch.end - batch.begin
    cdef int thread, n_threads = <int> min(<Py_ssize_t> job.n_threads, n_own)
    if job.plan.trunk.n_layers:
        ascend_images(job, batch, batch.begin, batch.end, work)
        return
    if n_own <= 1:
        if n_own == 1:
            ascend_shard(job, batch, batch.begin, work)
        return
    for thread in range(n_threads):
        next_[thread] = batch.begin + n_own * thread // n_threads
    for thread in prange(n_threads, num_threads=n_threads, schedule="static", chunksize=1):
        take_shards(job, batch, next_, thread, n_threads, work)


# --- steps ----------------------------------------------------------------------------------------------------------


cdef void update_chunk(const Job* job, const Step* step, bint is_weight, const Sums* sums, Py_ssize_t begin,
                       Py_ssize_t end, floating* number) noexcept nogil:
    # The last argument is for its type only.
    cdef floating* gradients = <floating*> sums.gradients
    cdef Py_ssize_t i
    if job.ranks == NULL:
        add_up(sums.n_shards, 0, sums.n_shards, job.gradient_size, begin, end, gradients)
    elif sums.n_shards > 1:
        for i in range(job.ranks.n_pairs):
            add(gradients + job.ranks.pairs[2 * i], gradients + job.ranks.pairs[2 * i + 1], begin, end)
    update_range(step, is_weight, <floating*> job.parameters, gradients, <floating*> job.state, begin, end)


cdef void update_span(const Job* job, const Step* step, bint is_weight, const Sums* sums, Py_ssize_t begin,
                      Py_ssize_t n, floating* number) noexcept nogil:
    # Sums the shards' gradients into the first, and moves n parameters, or those of them that the rank moves.
    cdef Py_ssize_t end = min(begin + n, sums.end), size = UPDATE_CHUNK // sums.n_shards, chunk, n_chunks
    begin = max(begin, sums.begin)
    if end <= begin:  # layers that only pool have no weights
        return
    n_chunks = (end - begin + size - 1) // size
    if n_chunks == 1:
        update_chunk(job, step, is_weight, sums, begin, end, number)
        return
    for chunk in prange(n_chunks, num_threads=min(<Py_ssize_t> job.n_threads, n_chunks), schedule="static"):
        update_chunk(job, step, is_weight, sums, begin + chunk * size, min(end, begin + (chunk + 1) * size), number)


cdef void add_up_own(const Job* job, const Batch* batch, floating* gradients) noexcept nogil:
    # Adds up the rank's own shards, as far as no others come between.
    cdef Py_ssize_t n = job.plan.n_parameters, size = UPDATE_CHUNK // batch.n_shards, chunk
    cdef Py_ssize_t n_chunks = (n + size - 1) // size
    for chunk in prange(n_chunks, num_threads=min(<Py_ssize_t> job.n_threads, n_chunks), schedule="static"):
        add_up(batch.n_shards, batch.begin, batch.end, job.gradient_size, chunk * size, min(n, (chunk + 1) * size),
               gradients)


cdef Sums sums_of(const Job* job, const Batch* batch, floating* gradients) noexcept nogil:
    # What `take_step` adds up: the shards' gradients, or what all ranks sent of the parameters that this one moves.
    cdef Sums sums
    if job.ranks == NULL:
        sums.gradients, sums.begin, sums.end = gradients, 0, job.plan.n_parameters
    else:
        sums.gradients = <floating*> job.ranks.received - job.ranks.begin
        sums.begin, sums.end = job.ranks.begin, job.ranks.end
    sums.n_shards = batch.n_shards if job.ranks == NULL else job.ranks.n_pairs + 1
    return sums


cdef void clip(const Job* job, Step* step, Sums* sums, floating* gradient) noexcept nogil:
    # Sums the gradients, and has the step shorten the sum.
    step.update = NO_UPDATE
    update_span(job, step, False, sums, 0, job.plan.n_parameters, gradient)
    if job.ranks != NULL:
        exchange(job, GRADIENT, 0)
        sums.gradients = gradient
    sums.n_shards = 1
    step.update = job.steps.update
    step.scale = clipped(sum_of_squares(gradient, job.plan.n_parameters), job.steps.clip_norm)


cdef void take_step(const Job* job, Batch* batch, floating* gradient) noexcept nogil:
    # One step from the gradients of all shards.
    cdef const Plan* plan = job.plan
    cdef const Layer* layer
    cdef Step* step = &batch.step
    cdef Sums sums = sums_of(job, batch, gradient)
    cdef int k
    if job.steps.clip_norm > 0:
        clip(job, step, &sums, gradient)
    for k in range(plan.n_layers):
        layer = &plan.layers[k]
        if k == 0 and plan.touches:
            step_touched(step, <floating*> job.parameters, <floating*> job.state, gradient, layer.n_in, layer.n_out,
                         job.touched, batch.first // plan.batch_size)
        else:
            update_span(job, step, True, &sums, layer.weight - layer.embeddings_size,
                        layer.embeddings_size + layer.weight_size, gradient)
        update_span(job, step, False, &sums, layer.bias, layer.units, gradient)
        if layer.normalises:
            update_span(job, step, False, &sums, layer.norm, layer.units, gradient)
    if job.ranks != NULL:
        exchange(job, GRADIENT if step.update == NO_UPDATE else PARAMETERS, 0)


cdef void add_penalties(const Job* job, const Batch* batch, const floating* number) noexcept nogil:
    # The penalties of all weights and embeddings before a step.  The first weight is left out if some of its rows may
    # not be up to date.  The last argument is for its type only.
    cdef const Layer* layer
    cdef int k
    for k in range(1 if job.plan.touches else 0, job.plan.n_layers):
        layer = &job.plan.layers[k]
        job.penalties[k * job.plan.most_slices] += batch.total * penalty(
            &batch.step, <const floating*> job.parameters + layer.weight - layer.embeddings_size,
            layer.embeddings_size + layer.weight_size)


cdef void after_step(const Job* job, const Batch* batch, floating* work) noexcept nogil:
    # Running statistics, from the batch's mean and variance that `ascend_block` left, and max-norm.
    cdef floating* parameters = <floating*> job.parameters
    cdef const floating* statistics
    cdef floating* running
    cdef const Layer* layer
    cdef int k, s
    for k in range(job.plan.n_layers - 1):
        layer = &job.plan.layers[k]
        if layer.normalises and job.steps.update != NO_UPDATE:
            statistics, running = work + layer.statistics, parameters + layer.norm + layer.units
            move_statistics(statistics, statistics + layer.units, running, running + layer.units,
                            batch.n * layer.positions, layer.units)
        for s in range(layer.n_slices if job.steps.max_norm > 0 else 0):
            limit_slice(layer, s, job.steps.max_norm, parameters, work)


cdef bint take_folded_step(const Job* job, Batch* batch, floating* work) noexcept nogil:
    # W += rate * (gradient - l2 * W), written by the products of a batch of one row block; False: it diverged.
    cdef floating* parameters = <floating*> job.parameters
    cdef Factors factors
    cdef double log_likelihood, rate = batch.step.hyperparameters[0]
    if job.steps.penalised:
        add_penalties(job, batch, work)
    factors.alpha, factors.bias_beta = rate, 1
    factors.first_beta = factors.weight_beta = 1 - rate * batch.step.l2
    if job.plan.trunk.n_layers:
        forward_trunk(job, batch.first, batch.n, work)
    log_likelihood = ascend_block(job, batch, batch.first, batch.n, 0, work, parameters, &factors)
    if job.plan.trunk.n_layers and isfinite(log_likelihood):
        backward_trunk(job, batch.first, batch.n, work, parameters, factors.alpha, factors.bias_beta)
        sum_parts(job, 0, batch.n, work, parameters, factors.alpha, factors.weight_beta, factors.bias_beta)
    job.log_likelihood[0] += log_likelihood
    return isfinite(log_likelihood)


cdef double exchange_shards(const Job* job, const Batch* batch, double own_sum, floating* gradients) noexcept nogil:
    # Sends the rank's shards to the others; returns the log-likelihood of all shards.
    cdef double sum_ = 0
    cdef Py_ssize_t i
    if job.ranks.own_rows:
        job.log_likelihood[1] = own_sum
        if batch.n == 0:
            memset(gradients, 0, job.plan.n_parameters * sizeof(floating))
    add_up_own(job, batch, gradients)
    exchange(job, SHARDS, batch.n_shards)
    for i in range(job.ranks.n_log_likelihoods):
        sum_ += job.ranks.log_likelihoods[i]
    return sum_


cdef bint take_summed_step(const Job* job, Batch* batch, floating* work) noexcept nogil:
    # One step from the sum of the shards' gradients; False: the time was up first, or it diverged.
    cdef Py_ssize_t shard, n_done = 0
    cdef Py_ssize_t n_own = begin_of(job.plan, batch, batch.end) - begin_of(job.plan, batch, batch.begin)
    cdef double sum_ = 0
    if job.plan.touches:
        touch_columns(job, &batch.step, batch.first, batch.n, <floating*> job.gradients)
    ascend_shards(job, batch, work)
    for shard in range(batch.begin, batch.end):
        n_done += job.position[1 + shard]
        sum_ += job.log_likelihood[1 + shard]
    if n_done < n_own and (isfinite(sum_) or job.ranks != NULL):
        return False
    if job.ranks != NULL:
        sum_ = exchange_shards(job, batch, sum_, <floating*> job.gradients)
    if not isfinite(sum_):
        job.log_likelihood[0] = -INFINITY
        return False
    if job.steps.penalised:
        add_penalties(job, batch, work)
    take_step(job, batch, <floating*> job.gradients)
    job.log_likelihood[0] += sum_
    for shard in range(batch.n_shards):
        job.position[1 + shard] = 0
        job.log_likelihood[1 + shard] = 0
    return True


cdef Batch open_batch(const Job* job, Py_ssize_t first) noexcept nogil:
    cdef Batch batch
    cdef Py_ssize_t index = first // job.plan.batch_size
    cdef bint has_ranks = job.ranks != NULL and not job.ranks.own_rows
    batch.first = first
    batch.n = max(<Py_ssize_t> 0, min(job.plan.batch_size, job.n_rows - first))
    batch.n_shards = shards_of(job.plan, batch.n)
    batch.begin, batch.end = 0, batch.n_shards
    if has_ranks:
        batch.begin = batch.n_shards * job.ranks.rank // job.ranks.n_ranks
        batch.end = batch.n_shards * (job.ranks.rank + 1) // job.ranks.n_ranks
    if job.ranks != NULL and job.ranks.totals != NULL:
        batch.total = job.ranks.totals[index]
    else:
        batch.total = sum_of_weights(job.targets, first, batch.n)
    batch.step = step_at(job.steps, index)
    return batch


cdef void train_by_rows(const Job* job, floating* work) noexcept nogil:
    cdef Batch batch
    cdef bint done
    while job.position[0] < epoch_end(job):
        batch = open_batch(job, job.position[0])
        if 0 < batch.n <= job.plan.fold_rows:
            done = take_folded_step(job, &batch, work)
        else:
            done = take_summed_step(job, &batch, work)
        if not done:
            return
        after_step(job, &batch, work)
        job.position[0] += job.plan.batch_size if job.ranks != NULL and job.ranks.own_rows else batch.n
        if is_over(job):
            return
