"""The trunk: the layers on images, before the dense ones, for the driver by rows.

The rows of a row block go through it in groups, one image a lane, and threads take parts of the groups.  A group goes
through all layers while its maps are in the cache; at a layer with batch normalisation it waits for the others' sums.
Each part has a gradient of its own, and the parts of a shard are summed in order, so threads do not change the bits.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.string cimport memset

from .maps cimport (
    Group, backward_activation, backward_maps, backward_normalised, clear_borders, forward_maps, forward_product,
    input_of)
from .normalisation cimport join_moments, join_sums
from .plan cimport N_SHARDS, Job, Layer, Trunk, take
from .pooling cimport load_lanes, store_lanes
from .rows cimport dense_rows

cdef extern from "vectors.h" nogil:
    enum:
        UPDATE_CHUNK

# A way of all groups of a row block through layers of the trunk: forward from layer k on, or backward, up to a layer
# that is normalised and waits for all groups.
cdef struct Way:
    const Job* job
    Py_ssize_t first, n         # rows
    Py_ssize_t n_groups, n_parts
    int k
    bint is_back
    bint goes_on                # layer k has waited
    void* work


cdef Way way_of(const Job* job, Py_ssize_t first, Py_ssize_t n, bint is_back, floating* work) noexcept nogil:
    cdef const Trunk* trunk = &job.plan.trunk
    cdef Py_ssize_t n_groups = (n + trunk.lanes - 1) // trunk.lanes
    return Way(job, first, n, n_groups, min(trunk.n_parts, n_groups), trunk.n_layers - 1 if is_back else 0, is_back,
               False, work)


cdef Group group_of(const Way* way, Py_ssize_t number, floating* own) noexcept nogil:
    cdef const Trunk* trunk = &way.job.plan.trunk
    cdef Py_ssize_t begin = number * trunk.lanes
    cdef floating* kept = <floating*> way.work + trunk.groups + number * trunk.group_size
    return Group(number, way.first + begin, min(trunk.lanes, way.n - begin), trunk.lanes, kept, own + trunk.band)


cdef double* sums_of(const Layer* layer, Py_ssize_t group, floating* work) noexcept nogil:
    # A group's sums for batch normalisation: two numbers a unit.
    return <double*> (work + layer.moments) + 2 * group * layer.units


# --- one group ------------------------------------------------------------------------------------------------------


cdef void load_images(const Job* job, const Group* group, floating* own) noexcept nogil:
    cdef const Trunk* trunk = &job.plan.trunk
    cdef floating* images = <floating*> group.kept
    cdef const floating* rows = dense_rows(job.store, job.order, group.first, group.n, own, NULL)
    clear_borders(images, trunk.input.height, trunk.input.width * trunk.input.pixel, trunk.input.row,
                  trunk.input_origin, trunk.input_size)
    load_lanes(rows, group.n, job.store.n_columns, &trunk.input, images + trunk.input_origin)


cdef void forward_group(const Way* way, const Group* group, floating* own) noexcept nogil:
    cdef const Layer* layers = way.job.plan.layers
    cdef const Layer* last = &layers[way.job.plan.trunk.n_layers - 1]
    cdef const floating* parameters = <const floating*> way.job.parameters
    cdef floating* work = <floating*> way.work
    cdef floating* X
    cdef Py_ssize_t n_features = last.n_out
    cdef int k
    if way.k == 0 and not way.goes_on:
        load_images(way.job, group, own)
    for k in range(way.k, way.job.plan.trunk.n_layers):
        X = input_of(layers, k, group, work)
        if layers[k].normalises and not (way.goes_on and k == way.k):
            forward_product(&layers[k], group, X, parameters, sums_of(&layers[k], group.number, work))
            return
        forward_maps(&layers[k], group, X, parameters, work + layers[k].statistics, way.job.key)
    store_lanes(&last.y, <floating*> group.kept + last.output + last.y_origin,
                work + group.number * group.lanes * n_features, group.n, n_features)


cdef void backward_group(const Way* way, const Group* group, floating* own, floating* gradient,
                         floating beta) noexcept nogil:
    cdef const Trunk* trunk = &way.job.plan.trunk
    cdef const Layer* layers = way.job.plan.layers
    cdef const Layer* last = &layers[trunk.n_layers - 1]
    cdef const floating* parameters = <const floating*> way.job.parameters
    cdef floating* work = <floating*> way.work
    cdef floating* dY = own + trunk.deltas
    cdef floating* spare = dY + trunk.delta_size
    cdef floating* dX
    cdef Py_ssize_t n_features = last.n_out
    cdef int k
    cdef bint goes_on = way.goes_on
    if not goes_on:
        load_lanes(work + trunk.delta + group.number * group.lanes * n_features, group.n, n_features, &last.y,
                   dY + last.y_origin)
    for k in range(way.k, -1, -1):
        if not goes_on:
            backward_activation(&layers[k], group, dY + layers[k].y_origin)
            if layers[k].normalises:
                backward_normalised(&layers[k], group, dY + layers[k].y_origin,
                                    sums_of(&layers[k], group.number, work))
                return
        goes_on = False
        dX = spare if k > 0 else NULL
        if dX != NULL:
            memset(dX, 0, layers[k - 1].y_size * sizeof(floating))
            dX += layers[k].x_origin
        backward_maps(&layers[k], group, input_of(layers, k, group, work), dY + layers[k].y_origin, dX, parameters,
                      sums_of(&layers[k], 0, work), way.n_groups, gradient, beta)
        dY, spare = spare, dY


# --- all groups, in threads -----------------------------------------------------------------------------------------


cdef void do_part(const Way* way, Py_ssize_t part, floating* own) noexcept nogil:
    cdef const Trunk* trunk = &way.job.plan.trunk
    cdef floating* gradient = <floating*> way.work + trunk.gradients + part * trunk.size
    cdef Py_ssize_t number, begin = way.n_groups * part // way.n_parts, end = way.n_groups * (part + 1) // way.n_parts
    cdef Group group
    for number in range(begin, end):
        group = group_of(way, number, own)
        if way.is_back:
            backward_group(way, &group, own, gradient, <floating> (number > begin))
        else:
            forward_group(way, &group, own)


cdef void take_parts(const Way* way, Py_ssize_t* next_, int thread, int n_threads, floating* own) noexcept nogil:
    # A thread first takes its own parts, the same forward and backward, and then helps the others.
    cdef Py_ssize_t part
    cdef int i, owner
    for i in range(n_threads):
        owner = (thread + i) % n_threads
        part = take(next_ + owner)
        while part < way.n_parts * (owner + 1) // n_threads:
            do_part(way, part, own)
            part = take(next_ + owner)


cdef void go(const Way* way, floating* work) noexcept nogil:
    cdef const Trunk* trunk = &way.job.plan.trunk
    cdef Py_ssize_t[N_SHARDS] next_part
    cdef Py_ssize_t* next_ = &next_part[0]
    cdef int thread, n_threads = <int> min(<Py_ssize_t> way.job.n_threads, way.n_parts)
    for thread in range(n_threads):
        next_[thread] = way.n_parts * thread // n_threads
    if n_threads == 1:
        take_parts(way, next_, 0, 1, work + trunk.threads)
        return
    for thread in prange(n_threads, num_threads=n_threads, schedule="static", chunksize=1):
        take_parts(way, next_, thread, n_threads, work + trunk.threads + thread * trunk.thread_size)


cdef void forward_trunk(const Job* job, Py_ssize_t first, Py_ssize_t n, floating* work) noexcept nogil:
    # The trunk's output, n rows, from the rows at position first of the epoch on; it is first in the work space.
    cdef Way way = way_of(job, first, n, False, work)
    cdef const Layer* layer
    cdef floating* mean
    cdef int k
    go(&way, work)
    for k in range(job.plan.trunk.n_layers):
        layer = &job.plan.layers[k]
        if layer.normalises:
            mean = work + layer.statistics
            join_moments(sums_of(layer, 0, work), way.n_groups, layer.units, job.plan.trunk.lanes, n,
                         layer.middle.height * layer.middle.width, mean, mean + layer.units)
            way.k, way.goes_on = k, True
            go(&way, work)


cdef void backward_trunk(const Job* job, Py_ssize_t first, Py_ssize_t n, floating* work, floating* target, double alpha,
                         double bias_beta) noexcept nogil:
    # The parts' gradients by the trunk's parameters, given that by its output, n rows; but for those of normalised
    # layers' scales and biases: target = alpha * gradient + beta * target.
    cdef Way way = way_of(job, first, n, True, work)
    cdef const Layer* layer
    cdef const floating* scale
    cdef int k
    go(&way, work)
    for k in range(job.plan.trunk.n_layers - 1, -1, -1):
        layer = &job.plan.layers[k]
        if layer.normalises:
            scale = <const floating*> job.parameters + layer.norm
            join_sums(sums_of(layer, 0, work), way.n_groups, layer.units, n * layer.middle.height * layer.middle.width,
                      work + layer.statistics + layer.units, scale, target + layer.norm, target + layer.bias,
                      <floating> alpha, <floating> bias_beta)
            way.k, way.goes_on = k, True
            go(&way, work)


cdef void sum_parts(const Job* job, Py_ssize_t place, Py_ssize_t n, floating* work, floating* target, double alpha,
                    double weight_beta, double bias_beta) noexcept nogil:
    # target = alpha * the sum of the parts' gradients + beta * target, for n rows from place on, among those that went
    # backward.  If place is not 0, each group is a part.
    cdef Way way = way_of(job, place, n, True, work)
    cdef const floating* parts = work + job.plan.trunk.gradients + place // job.plan.trunk.lanes * job.plan.trunk.size
    cdef const Layer* layer
    cdef int k
    for k in range(job.plan.trunk.n_layers):
        layer = &job.plan.layers[k]
        add_up(&way, layer.weight, layer.weight_size, parts, target, alpha, weight_beta)
        if not layer.normalises:
            add_up(&way, layer.bias, layer.units, parts, target, alpha, bias_beta)


cdef void add_up(const Way* way, Py_ssize_t begin, Py_ssize_t n, const floating* parts, floating* target, double alpha,
                 double beta) noexcept nogil:
    # n numbers of target = alpha * the sum of the parts' gradients + beta * target
    cdef Py_ssize_t size = UPDATE_CHUNK // way.n_parts, chunk, n_chunks = (n + size - 1) // size
    if n_chunks <= 1:
        add_chunk(way, begin, begin + n, parts, target, alpha, beta)
        return
    for chunk in prange(n_chunks, num_threads=min(<Py_ssize_t> way.job.n_threads, n_chunks), schedule="static"):
        add_chunk(way, begin + chunk * size, begin + min(n, (chunk + 1) * size), parts, target, alpha, beta)


cdef void add_chunk(const Way* way, Py_ssize_t begin, Py_ssize_t end, const floating* parts, floating* target,
                    double alpha, double beta) noexcept nogil:
    cdef Py_ssize_t i, part
    cdef floating sum_
    for i in range(begin, end):
        sum_ = parts[i]
        for part in range(1, way.n_parts):
            sum_ += parts[part * way.job.plan.trunk.size + i]
        target[i] = <floating> alpha * sum_ + (<floating> beta * target[i] if beta != 0 else <floating> 0.0)
