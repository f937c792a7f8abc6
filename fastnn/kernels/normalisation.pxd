from cython cimport floating

# A stride is the distance between two rows of Z and X_hat.

cdef void normalise(floating* Z, floating* X_hat, Py_ssize_t stride, const floating* scale, const floating* bias,
                    floating* mean, floating* variance, Py_ssize_t n, Py_ssize_t n_units) noexcept nogil

cdef void backprop_normalise(const floating* X_hat, floating* dZ, Py_ssize_t stride, const floating* variance,
                             const floating* scale, floating* dscale, floating* dbias, Py_ssize_t n,
                             Py_ssize_t n_units, floating alpha, floating beta) noexcept nogil

cdef void move_statistics(const floating* mean, const floating* variance, floating* running_mean,
                          floating* running_variance, Py_ssize_t n, Py_ssize_t n_units) noexcept nogil
