from cython cimport floating
from libc.stdint cimport uint8_t

from .plan cimport Image, WindowOf

# Maps in lanes as in convolution.pxd: Z of input z, Y of output y, with as many channels.

cdef void pool_max(const Image* z, const floating* Z, const WindowOf* window, const Image* y, floating* Y,
                   uint8_t* places, Py_ssize_t begin, Py_ssize_t end) noexcept nogil

cdef void pool_max_backward(const Image* y, const floating* dY, const uint8_t* places, const WindowOf* window,
                            const Image* z, floating* dZ, Py_ssize_t begin, Py_ssize_t end) noexcept nogil

cdef void pool_mean(const Image* z, const floating* Z, const WindowOf* window, const Image* y, floating* Y,
                    Py_ssize_t begin, Py_ssize_t end) noexcept nogil

cdef void pool_mean_backward(const Image* y, const floating* dY, const WindowOf* window, const Image* z, floating* dZ,
                             Py_ssize_t begin, Py_ssize_t end) noexcept nogil

cdef void pool_sum(const Image* z, const floating* Z, const WindowOf* window, const Image* y, floating* Y,
                   Py_ssize_t begin, Py_ssize_t end) noexcept nogil

cdef void pool_sum_backward(const Image* y, const floating* dY, const WindowOf* window, const Image* z, floating* dZ,
                            Py_ssize_t begin, Py_ssize_t end) noexcept nogil

cdef void pool_equal_backward(const Image* y, const floating* dY, const floating* Y, const WindowOf* window,
                              const Image* z, const floating* Z, floating* dZ, Py_ssize_t begin,
                              Py_ssize_t end) noexcept nogil

cdef void load_lanes(const floating* rows, Py_ssize_t n_rows, Py_ssize_t stride, const Image* x,
                     floating* X) noexcept nogil

cdef void store_lanes(const Image* x, const floating* X, floating* rows, Py_ssize_t n_rows,
                      Py_ssize_t stride) noexcept nogil
