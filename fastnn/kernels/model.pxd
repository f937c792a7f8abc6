"""What the ways to run a batch share: the shape of the network, and where the rows are."""

from libc.stdint cimport uint64_t

from .activations cimport wants_slopes
from .losses cimport TargetStore
from .rows cimport RowStore
from .sparse cimport BlockStore

cdef struct Model:
    Py_ssize_t n_layers
    Py_ssize_t n_parameters
    Py_ssize_t widest               # of the layers but the input
    const Py_ssize_t* sizes         # (n_layers + 1,)
    Py_ssize_t row_size             # numbers of a row that the work space has room for; 0: rows are sparse
    const int* activations          # (n_layers - 1,), one a hidden layer
    int layout                      # how the weights stand: see layouts.pyx
    bint output_transposed          # the last weight stands as (n_classes, n_in)
    Py_ssize_t first_size           # numbers that the first weight takes
    Py_ssize_t nonzeros             # room in the work space for those of a block, by column; 0: none
    const BlockStore* blocks        # all rows by pair of columns, for rows in order; NULL: none
    const double* dropout           # (n_layers - 1,) share of each hidden layer's units; NULL: none
    uint64_t key                    # of the epoch's masks
    bint has_slopes                 # the work space has room for slopes of hidden layers
    bint normalises                 # hidden layers are batch-normalised while training
    Py_ssize_t n_hidden_units       # of all hidden layers
    Py_ssize_t norms                # where scale, running mean and running variance of each hidden layer begin
    int n_threads                   # that a layer of a batch-normalised network is shared out to

# Where the rows of a run come from, and where those of one batch stand.
cdef struct Batch:
    const RowStore* store
    const Py_ssize_t* order         # NULL: rows as stored
    const TargetStore* targets      # by position in the order; NULL: forward only
    Py_ssize_t first                # position in the order
    Py_ssize_t n_rows
    double total                    # of the batch's weights
    Py_ssize_t run_end              # position behind the last batch


cdef inline Py_ssize_t weight_size(const Model* model, Py_ssize_t k) noexcept nogil:
    return model.first_size if k == 0 else model.sizes[k] * model.sizes[k + 1]


cdef inline bint leaves_slopes(const Model* model, Py_ssize_t k) noexcept nogil:
    # Whether hidden layer k goes backward by slopes.
    return wants_slopes(model.activations[k]) or (model.dropout != NULL and model.dropout[k] > 0)


cdef extern from *:
    """
    #include <time.h>
    /* Seconds on a clock that nobody sets, where there is one. */
    static inline double fastnn_now(void) {
        struct timespec time;
    #ifdef CLOCK_MONOTONIC
        clock_gettime(CLOCK_MONOTONIC, &time);
    #else
        timespec_get(&time, TIME_UTC);
    #endif
        return time.tv_sec + 1e-9 * time.tv_nsec;
    }
    """
    double now "fastnn_now"() noexcept nogil
