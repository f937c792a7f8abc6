from cython cimport floating

# The code of each loss; losses.pyx has the names.
cdef enum:
    CROSS_ENTROPY
    BINARY_CROSS_ENTROPY
    SQUARED
    ABSOLUTE
    HUBER
    QUANTILE

# The targets of rows, by position in the order; pointers into arrays that the caller keeps alive.
cdef struct TargetStore:
    int loss
    const Py_ssize_t* classes   # (n,), cross-entropy
    const void* values          # (n, n_out) of the network's dtype, other losses
    const double* weights       # (n,); NULL: all 1
    double smoothing            # of the classes
    const double* levels        # (n_out,), quantile loss

cdef TargetStore open_targets(object targets) except *
cdef double sum_of_weights(const TargetStore* targets, Py_ssize_t first, Py_ssize_t n) noexcept nogil
cdef double loss_rows(const TargetStore* targets, Py_ssize_t first, floating* Z, Py_ssize_t n, Py_ssize_t n_out,
                      double total) noexcept nogil
