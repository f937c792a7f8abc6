from cython cimport floating
from libc.stdint cimport uint64_t

from .plan cimport Image

cdef void drop_units(floating* Y, floating* slopes, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t n_units, double share,
                     uint64_t key, int layer, Py_ssize_t first, Py_ssize_t first_unit, Py_ssize_t width) noexcept nogil

cdef void drop_lanes(floating* Y, floating* slopes, const Image* y, Py_ssize_t lanes, double share, uint64_t key,
                     int layer, Py_ssize_t first) noexcept nogil
