from cython cimport floating

from .rows cimport Cut, RowsAhead

# A stride is the distance between two rows: the width of the whole array if a layer, or a slice, is a part of it.

cdef Py_ssize_t most_tiled_rows(Py_ssize_t n_in, Py_ssize_t n_out, Py_ssize_t number_size) noexcept nogil

cdef void fill_rows(const floating* b, floating* Z, Py_ssize_t z_stride, Py_ssize_t n,
                    Py_ssize_t n_out) noexcept nogil

cdef void affine_forward(const floating* X, Py_ssize_t x_stride, const floating* W, Py_ssize_t w_stride,
                         const floating* b, floating* Z, Py_ssize_t z_stride,
                         Py_ssize_t n, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil

# Slice s of a weight in panels has units bounds[s] to bounds[s + 1]; bounds[n_slices] is the number of units.

cdef Py_ssize_t panel_begin(Py_ssize_t width, Py_ssize_t p, Py_ssize_t number_size) noexcept nogil

cpdef Py_ssize_t panels_size(Py_ssize_t n_in, Py_ssize_t width, Py_ssize_t number_size) noexcept nogil

cdef void panels_forward(const floating* X, const Cut* x, const floating* W, const floating* b, floating* Z,
                         const Cut* z, Py_ssize_t n, Py_ssize_t n_in, const Py_ssize_t* bounds, int n_slices,
                         const RowsAhead* ahead) noexcept nogil

cdef void panels_backward_input(const floating* dZ, const Cut* z, const floating* W, Py_ssize_t n_in,
                                const Py_ssize_t* bounds, int n_slices, Py_ssize_t begin, Py_ssize_t inputs,
                                floating* dX, const Cut* x, Py_ssize_t n) noexcept nogil

cdef void panels_backward_weight(const floating* X, const Cut* x, const floating* dZ, const Cut* z, floating* dW,
                                 Py_ssize_t n, Py_ssize_t n_in, const Py_ssize_t* bounds, int n_slices,
                                 floating alpha, floating beta) noexcept nogil

cdef void affine_backward_input(const floating* dZ, Py_ssize_t z_stride, const floating* W, Py_ssize_t w_stride,
                                floating* dX, Py_ssize_t x_stride,
                                Py_ssize_t n, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil

cdef void affine_backward_weight(const floating* X, Py_ssize_t x_stride, const floating* dZ, Py_ssize_t z_stride,
                                 floating* dW, Py_ssize_t w_stride, Py_ssize_t n, Py_ssize_t n_in, Py_ssize_t n_out,
                                 floating alpha, floating beta) noexcept nogil

cdef void affine_backward_bias(const floating* dZ, Py_ssize_t z_stride, floating* db, Py_ssize_t n, Py_ssize_t n_out,
                               floating alpha, floating beta) noexcept nogil
