from cython cimport floating

from .plan cimport Job

cdef Py_ssize_t epoch_end(const Job* job) noexcept nogil
cdef void train_by_rows(const Job* job, floating* work) noexcept nogil

cdef void forward_shard(const Job* job, Py_ssize_t first, Py_ssize_t begin, Py_ssize_t step, floating* work,
                        floating* logits) noexcept nogil
