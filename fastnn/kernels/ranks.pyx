"""What the drivers exchange with other ranks, in the middle of a step.

The exchanges themselves are Python's, of `fastnn.engine.exchanges`: calling back takes a microsecond, and an MPI
library's interface in C depends on the library.  The thread that called the driver makes all of them.
"""

from libc.stdint cimport int64_t

from .plan cimport Job, Ranks, now

#: Names of what is exchanged, by the drivers' codes.
EXCHANGES = {
    SHARDS: "shards",
    GRADIENT: "gradient",
    PARAMETERS: "parameters",
    OUTPUTS: "outputs",
    DELTAS: "deltas",
    LOGITS: "logits",
    SQUARES: "squares",
}


cdef void exchange(const Job* job, Exchange what, Py_ssize_t index) noexcept nogil:
    cdef const int64_t[:, ::1] pairs
    cdef const double[::1] log_likelihoods
    cdef const unsigned char[::1] received
    with gil:
        exchanges = <object> job.ranks.exchanges
        exchanges.exchange(what, index)
        if what == SHARDS or what == DELTAS:
            pairs, log_likelihoods, received = exchanges.pairs, exchanges.log_likelihoods, exchanges.received_bytes
            job.ranks.received = <void*> &received[0] if received.shape[0] else NULL
            job.ranks.pairs, job.ranks.n_pairs = &pairs[0, 0] if pairs.shape[0] else NULL, pairs.shape[0]
            job.ranks.log_likelihoods = &log_likelihoods[0] if log_likelihoods.shape[0] else NULL
            job.ranks.n_log_likelihoods = log_likelihoods.shape[0]


cdef bint is_over(const Job* job) noexcept nogil:
    # Whether a run ends after this batch or row block: by the clock, or, where all ranks must do the same, by number.
    if job.n_left == NULL:
        return now() >= job.deadline
    job.n_left[0] -= 1
    return job.n_left[0] <= 0


cdef int open_ranks(Job* job, Ranks* ranks, exchanges) except -1:
    # The caller keeps exchanges, a fastnn.engine.exchanges.Exchanges or None, alive.
    cdef Py_ssize_t[::1] n_left
    cdef const double[::1] totals
    job.n_left, job.ranks = NULL, NULL
    if exchanges is None:
        return 0
    n_left = exchanges.n_left
    job.n_left = &n_left[0]
    if not exchanges.shares:
        return 0
    ranks.rank, ranks.n_ranks, ranks.own_rows = exchanges.rank, exchanges.n_ranks, exchanges.own_rows
    ranks.epoch_rows, ranks.totals = exchanges.epoch_rows, NULL
    ranks.begin, ranks.end = exchanges.own_slice.start, exchanges.own_slice.stop
    ranks.received, ranks.exchanges = NULL, <void*> exchanges
    if exchanges.totals is not None:
        totals = exchanges.totals
        ranks.totals = &totals[0]
    job.ranks = ranks
    return 0
