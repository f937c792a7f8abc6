from cython cimport floating

# W (n_out, n_in) stands transposed here; a stride is the distance of two rows.  Row i of X stands at order[i], or at i
# where order is NULL.  Of the n rows that follow, the first `ahead` are brought into the cache during the forward pass,
# the last `ahead` during the backward one, which has more time for it.

cdef inline Py_ssize_t forward_share(Py_ssize_t ahead) noexcept nogil:
    # How many of the rows to fetch are the forward pass's; the others are the backward pass's.
    return ahead * 2 // 5


cdef inline Py_ssize_t backward_share(Py_ssize_t ahead) noexcept nogil:
    return ahead - forward_share(ahead)


cdef void dense_forward(const floating* X, const Py_ssize_t* order, Py_ssize_t x_stride, const floating* W,
                        Py_ssize_t w_stride, const floating* b, floating* Z, Py_ssize_t z_stride, Py_ssize_t n,
                        Py_ssize_t n_in, Py_ssize_t n_out, Py_ssize_t ahead) noexcept nogil

cdef void dense_backward_weight(const floating* X, const Py_ssize_t* order, Py_ssize_t x_stride, const floating* dZ,
                                Py_ssize_t z_stride, floating* dW, Py_ssize_t w_stride, Py_ssize_t n, Py_ssize_t n_in,
                                Py_ssize_t n_out, floating alpha, floating beta, Py_ssize_t ahead) noexcept nogil

cdef void dense_backward_input(const floating* dZ, const floating* W, Py_ssize_t w_stride, floating* dX,
                               Py_ssize_t x_stride, floating* work, Py_ssize_t n, Py_ssize_t n_in,
                               Py_ssize_t n_out) noexcept nogil

cdef void transpose_columns(const floating* A, floating* A_out, Py_ssize_t m, Py_ssize_t n, Py_ssize_t begin,
                            Py_ssize_t end) noexcept nogil
