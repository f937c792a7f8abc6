from cython cimport floating

from .plan cimport Job

cdef void forward_trunk(const Job* job, Py_ssize_t first, Py_ssize_t n, floating* work) noexcept nogil

cdef void backward_trunk(const Job* job, Py_ssize_t first, Py_ssize_t n, floating* work, floating* target, double alpha,
                         double bias_beta) noexcept nogil

cdef void sum_parts(const Job* job, Py_ssize_t place, Py_ssize_t n, floating* work, floating* target, double alpha,
                    double weight_beta, double bias_beta) noexcept nogil
