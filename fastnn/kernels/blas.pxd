from cython cimport floating

cdef void gemm_(bint transpose_a, bint transpose_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
                floating alpha, const floating* A, const floating* B,
                floating beta, floating* C) noexcept nogil
