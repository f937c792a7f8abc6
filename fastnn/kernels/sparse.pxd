from cython cimport floating

from .rows cimport RowStore

cdef void sparse_forward(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                         const floating* W, Py_ssize_t w_stride, const floating* b, floating* Z, Py_ssize_t z_stride,
                         Py_ssize_t n_out) noexcept nogil

cdef void sparse_backward_weight(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                                 const floating* dZ, Py_ssize_t z_stride, floating* dW, Py_ssize_t w_stride,
                                 Py_ssize_t n_out,
                                 floating alpha, floating beta) noexcept nogil
