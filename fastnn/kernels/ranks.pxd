from .plan cimport Job, Ranks

# What is exchanged.
cdef enum Exchange:
    SHARDS          # gradients and log-likelihoods of shards: each rank gets its slice of all
    GRADIENT        # the sum: each rank's slice to all
    PARAMETERS      # by rows: each rank's slice to all
    OUTPUTS         # of the units of a layer, whose number is the index
    DELTAS          # gradients by the outputs of a layer: each rank gets what all add to those of its units
    LOGITS          # the slices' parts of them, of this parity
    SQUARES         # of the slices' gradients

cdef void exchange(const Job* job, Exchange what, Py_ssize_t index) noexcept nogil
cdef bint is_over(const Job* job) noexcept nogil
cdef int open_ranks(Job* job, Ranks* ranks, exchanges) except -1
