from cython cimport floating

from .plan cimport Image

# A stride is the distance between two rows of Z and X_hat.

cdef void normalise(floating* Z, floating* X_hat, Py_ssize_t stride, const floating* scale, const floating* bias,
                    floating* mean, floating* variance, Py_ssize_t n, Py_ssize_t n_units) noexcept nogil

cdef void backprop_normalise(const floating* X_hat, floating* dZ, Py_ssize_t stride, const floating* variance,
                             const floating* scale, floating* dscale, floating* dbias, Py_ssize_t n,
                             Py_ssize_t n_units, floating alpha, floating beta) noexcept nogil

cdef void move_statistics(const floating* mean, const floating* variance, floating* running_mean,
                          floating* running_variance, Py_ssize_t n, Py_ssize_t n_units) noexcept nogil

# The same for maps in lanes: units are channels, and each position of each image counts.  Each group has its own sums,
# which are joined in order.

cdef void group_moments(const Image* z, const floating* Z, Py_ssize_t lanes, Py_ssize_t n_lanes,
                        double* moments) noexcept nogil

cdef void join_moments(const double* moments, Py_ssize_t n_groups, Py_ssize_t n_units, Py_ssize_t lanes, Py_ssize_t n,
                       Py_ssize_t positions, floating* mean, floating* variance) noexcept nogil

cdef void normalise_lanes(const Image* z, floating* Z, Py_ssize_t lanes, const floating* mean,
                          const floating* variance) noexcept nogil

cdef void scale_lanes(const Image* z, const floating* X_hat, Py_ssize_t lanes, const floating* scale,
                      const floating* bias, const Image* y, floating* Y, Py_ssize_t begin_row,
                      Py_ssize_t end_row) noexcept nogil

cdef void group_sums(const Image* z, const floating* dZ, const floating* X_hat, Py_ssize_t lanes, Py_ssize_t n_lanes,
                     double* sums) noexcept nogil

cdef void join_sums(double* sums, Py_ssize_t n_groups, Py_ssize_t n_units, Py_ssize_t n, const floating* variance,
                    const floating* scale, floating* dscale, floating* dbias, floating alpha,
                    floating beta) noexcept nogil

cdef void backprop_lanes(const Image* z, floating* dZ, const floating* X_hat, Py_ssize_t lanes, Py_ssize_t n_lanes,
                         const double* sums, Py_ssize_t n_groups) noexcept nogil
