from cython cimport floating

from .rows cimport RowsAhead, part_ahead

# W (n_out, n_in) is transposed here; a stride is the distance between two rows.  Row i is row order[i] of X, or row i
# if order is NULL.  Rows ahead, unless NULL, are prefetched meanwhile.

cdef inline RowsAhead forward_share(const RowsAhead* ahead) noexcept nogil:
    # The rows that the forward pass prefetches; the backward pass has more time for it.
    return part_ahead(ahead, 0, ahead.n * 2 // 5)


cdef inline RowsAhead backward_share(const RowsAhead* ahead) noexcept nogil:
    return part_ahead(ahead, ahead.n * 2 // 5, ahead.n)


cdef void dense_forward(const floating* X, const Py_ssize_t* order, Py_ssize_t x_stride, const floating* W,
                        Py_ssize_t w_stride, const floating* b, floating* Z, Py_ssize_t z_stride, Py_ssize_t n,
                        Py_ssize_t n_in, Py_ssize_t n_out, const RowsAhead* ahead) noexcept nogil

cdef void dense_backward_weight(const floating* X, const Py_ssize_t* order, Py_ssize_t x_stride, const floating* dZ,
                                Py_ssize_t z_stride, floating* dW, Py_ssize_t w_stride, Py_ssize_t n, Py_ssize_t n_in,
                                Py_ssize_t n_out, floating alpha, floating beta, const RowsAhead* ahead) noexcept nogil

cdef void dense_backward_input(const floating* dZ, const floating* W, Py_ssize_t w_stride, floating* dX,
                               Py_ssize_t x_stride, floating* work, Py_ssize_t n, Py_ssize_t n_in,
                               Py_ssize_t n_out) noexcept nogil

cdef void transpose(const floating* A, floating* A_out, Py_ssize_t m, Py_ssize_t n) noexcept nogil
