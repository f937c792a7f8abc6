from cython cimport floating

cdef void fill_rows(const floating* b, floating* Z, Py_ssize_t n, Py_ssize_t n_out) noexcept nogil

cdef void affine_forward(const floating* X, const floating* W, const floating* b, floating* Z,
                         Py_ssize_t n, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil

cdef void affine_backward_input(const floating* dZ, const floating* W, floating* dX,
                                Py_ssize_t n, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil

cdef void affine_backward_weight(const floating* X, const floating* dZ, floating* dW,
                                 Py_ssize_t n, Py_ssize_t n_in, Py_ssize_t n_out,
                                 floating alpha, floating beta) noexcept nogil

cdef void affine_backward_bias(const floating* dZ, floating* db, Py_ssize_t n, Py_ssize_t n_out,
                               floating alpha, floating beta) noexcept nogil
