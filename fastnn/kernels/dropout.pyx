"""Dropout: training sets outputs of hidden units to 0 at random, and scales the others up to make up for it.

N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014).  A hash of
row and unit decides whether the unit is dropped, so masks need no space, and threads and row blocks change nothing.
"""

from cython cimport floating
from libc.stdint cimport uint64_t

from ._math cimport mixed
from .plan cimport Image


cdef void drop_units(floating* Y, floating* slopes, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t n_units, double share,
                     uint64_t key, int layer, Py_ssize_t first, Py_ssize_t first_unit,
                     Py_ssize_t width) noexcept nogil:
    # For n rows, from position first of the epoch on, and n_units units, from first_unit on, of a layer of the given
    # width.  The slopes, for the backward pass, are dropped and scaled alike.
    cdef Py_ssize_t i, j
    cdef uint64_t base, hashed, layer_key = mixed(key + <uint64_t> layer * <uint64_t> 0x9e3779b97f4a7c15)
    cdef uint64_t limit = <uint64_t> (share * 4294967296.0)
    cdef floating scale = <floating> (1 / (1 - share))
    cdef floating factor
    for i in range(n):
        base = <uint64_t> (first + i) * <uint64_t> width + <uint64_t> first_unit
        for j in range(n_units):
            hashed = mixed(layer_key + (base + <uint64_t> j) * <uint64_t> 0x9e3779b97f4a7c15)
            factor = scale if (hashed >> 32) >= limit else <floating> 0.0
            Y[i * stride + j] = Y[i * stride + j] * factor
            slopes[i * stride + j] = slopes[i * stride + j] * factor


cdef void drop_lanes(floating* Y, floating* slopes, const Image* y, Py_ssize_t lanes, double share, uint64_t key,
                     int layer, Py_ssize_t first) noexcept nogil:
    # The same for the maps of a group, whose lanes are the rows from position first on: channels are units' last index.
    cdef Py_ssize_t i, j, lane, place, width = y.width * y.channels
    cdef uint64_t base, hashed, layer_key = mixed(key + <uint64_t> layer * <uint64_t> 0x9e3779b97f4a7c15)
    cdef uint64_t limit = <uint64_t> (share * 4294967296.0)
    cdef floating scale = <floating> (1 / (1 - share))
    cdef floating factor
    for i in range(y.height):
        for j in range(width):
            place = i * y.row + j * lanes
            for lane in range(lanes):
                base = <uint64_t> (first + lane) * <uint64_t> (y.height * width) + <uint64_t> (i * width + j)
                hashed = mixed(layer_key + base * <uint64_t> 0x9e3779b97f4a7c15)
                factor = scale if (hashed >> 32) >= limit else <floating> 0.0
                Y[place + lane] = Y[place + lane] * factor
                slopes[place + lane] = slopes[place + lane] * factor


def inplace_dropout(floating[:, ::1] Y, floating[:, ::1] slopes, double share, uint64_t key, int layer=0,
                    Py_ssize_t first=0):
    """Set a share of Y (n, width) and of slopes to 0, the same in both, and divide the others by 1 - share.

    key, layer : choose the mask;  first : position of the first row in the epoch
    """
    if Y.size:
        with nogil:
            drop_units(&Y[0, 0], &slopes[0, 0], Y.shape[1], Y.shape[0], Y.shape[1], share, key, layer, first, 0,
                       Y.shape[1])
