from cython cimport floating

cdef void gemm_(bint transpose_a, bint transpose_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
                floating alpha, const floating* A, Py_ssize_t a_stride, const floating* B, Py_ssize_t b_stride,
                floating beta, floating* C, Py_ssize_t c_stride) noexcept nogil
