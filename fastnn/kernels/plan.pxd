"""The plan in the kernels' form: see fastnn/plan.py for what each number means."""

from cython cimport floating

from .embeddings cimport Embedding
from .losses cimport TargetStore
from .rows cimport Cut, RowStore
from .sparse cimport BlockStore
from .updates cimport StepStore
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    N_SLICES = 64       # the most slices of a layer
    N_SHARDS = 64       # the most shards of a batch

# A layer's form, which chooses its kernels.
cdef enum Form:
    STORED          # W (n_in, n_out): affine.pyx
    TRANSPOSED      # W (n_out, n_in): dense.pyx
    PANELS          # W in panels of each slice: affine.pyx
    SPARSE          # W (n_in, n_out or a slice's units), sparse rows: sparse.pyx

cdef extern from "vectors.h" nogil:
    ctypedef struct Image:          # maps of a group of images, one a lane: number (y, x, channel, lane) is at
        Py_ssize_t height, width, channels, row, pixel, lanes   # y * row + x * pixel + channel * lanes + lane
    ctypedef struct WindowOf:       # size, stride, and the zeros above and left of the input
        Py_ssize_t height, width, down, across, top, left

cdef struct Slice:
    Py_ssize_t begin, end       # units, or inputs
    Py_ssize_t weight           # offset of their weights in a vector of parameters
    Py_ssize_t stride           # distance between two rows of weights
    Py_ssize_t n_rows, n_columns

cdef struct Layer:
    Form form
    int index
    bint is_output
    bint by_inputs              # slices are of inputs, not units
    bint normalises
    bint keeps_slopes
    Py_ssize_t n_in, n_out
    Py_ssize_t weight, weight_size, bias, norm      # offsets in a vector of parameters
    Py_ssize_t output, delta, slopes, x_hat, statistics     # offsets in the work space
    Cut cut                     # of output, delta and slopes: a slice each
    Py_ssize_t shared_from
    int activation
    double dropout
    int n_slices
    int n_groups                # of slices, whose gradients by the layer below are summed on their own; 1: all together
    Slice[N_SLICES] slices
    Py_ssize_t units            # numbers of the bias: n_out, or filters
    Py_ssize_t positions        # of a unit in each row: 1, if the layer is dense
    Embedding* embeddings       # of a first layer on sparse rows, whose last inputs are the embedded numbers
    int n_embeddings
    Py_ssize_t n_embedded       # of its inputs
    Py_ssize_t embeddings_size  # numbers of all tables, which are right before the weight
    # On images; see fastnn/layout.py.
    Image x, middle, y
    Py_ssize_t x_origin, y_origin, y_size
    WindowOf convolution, pooling       # of height 0: there is none
    bint takes_mean
    Py_ssize_t band, places, moments

# The layers on images: see fastnn/layout.py.
cdef struct Trunk:
    int n_layers
    Py_ssize_t lanes, n_parts, size
    Image input
    Py_ssize_t input_origin, input_size
    Py_ssize_t groups, group_size, threads, thread_size, band, deltas, delta_size, gradients, delta

cdef struct Plan:
    int n_layers
    Layer* layers
    Trunk trunk                 # of no layers: there is none
    bint by_units, touches, sorts, gathers, prefetches, normalises, is_sparse
    Py_ssize_t n_parameters, batch_size, block_rows, n_shards, shard_rows, fold_rows, nonzeros
    Py_ssize_t rows_size, spare, columns, parts, squares
    int most_slices

cdef class CompiledPlan:
    cdef Plan plan
    cdef readonly object source     # the fastnn.plan.Plan

# What a driver needs to know of the other ranks: see ranks.pyx.
cdef struct Ranks:
    int rank, n_ranks
    bint own_rows               # each rank has rows of its own, and a part of each batch; else all have the same rows
    Py_ssize_t epoch_rows       # with own rows: end of the epoch, which may be behind the last row
    const double* totals        # with own rows: weights of each batch in all ranks
    Py_ssize_t begin, end       # parameters that this rank moves in the driver by rows
    void* received              # gradients by these, from all ranks
    const int64_t* pairs        # which of them are still to be added up, in this order: offsets of sum and summand
    Py_ssize_t n_pairs
    const double* log_likelihoods   # of the shards of all ranks
    Py_ssize_t n_log_likelihoods
    void* exchanges             # a fastnn.engine.exchanges.Exchanges

# A driver's task: train on the rows of an epoch, batch after batch, from position[0] until the rows end, a
# log-likelihood is not finite or the time is up.
cdef struct Job:
    const Plan* plan
    const RowStore* store
    const Py_ssize_t* order         # NULL: rows as stored
    const TargetStore* targets      # by position in the order
    const BlockStore* blocks        # all non-zeros by pair of columns, for rows as stored; or NULL
    const StepStore* steps
    Py_ssize_t n_rows
    uint64_t key                    # seed of the epoch's dropout masks
    void* parameters
    void* state
    void* gradients                 # (n_shards, gradient_size)
    Py_ssize_t gradient_size, work_size     # of a shard
    Py_ssize_t* position            # (1 + n_shards,) first row of the current batch; rows each shard has finished
    double* log_likelihood          # (1 + n_shards,) of the finished batches; of the rows each shard has finished
    double* penalties               # (n_layers, most_slices)
    int64_t* touched
    double deadline
    int n_threads
    Py_ssize_t* n_left              # batches, or row blocks by units, until the run ends; NULL: it ends by the clock
    Ranks* ranks                    # that share the work; NULL: none


cdef extern from *:
    """
    #include <time.h>
    /* Seconds on a clock that nobody can set, if the system has one. */
    static inline double fastnn_now(void) {
        struct timespec time;
    #ifdef CLOCK_MONOTONIC
        clock_gettime(CLOCK_MONOTONIC, &time);
    #else
        timespec_get(&time, TIME_UTC);
    #endif
        return time.tv_sec + 1e-9 * time.tv_nsec;
    }
    /* Returns *next and increments it, atomically.  Without a lock if possible: a fork may leave one closed. */
    static inline Py_ssize_t fastnn_take(Py_ssize_t* next) {
    #if defined(__GNUC__) || defined(__clang__)
        return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
    #else
        Py_ssize_t taken;
    #ifdef _OPENMP
    #pragma omp critical(fastnn_take)
    #endif
        taken = (*next)++;
        return taken;
    #endif
    }
    """
    double now "fastnn_now"() noexcept nogil
    Py_ssize_t take "fastnn_take"(Py_ssize_t* next) noexcept nogil
