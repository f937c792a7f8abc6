"""Pooling of images in lanes, see ``convolution``; and how rows of data become lanes, and rows again.

The numbers of a position, of all channels and lanes, are neighbours, so each loop runs over them.
"""

from cython cimport floating
from libc.stdint cimport uint8_t

from .convolution cimport image_of, window_of
from .plan cimport Image, WindowOf

#: Numbers of a window of which the largest is taken, at most: its place is a byte.
MOST_PLACES = 256

cdef extern from "tiles.h" nogil:
    Py_ssize_t lanes_of(Py_ssize_t number_size)
    void transpose_square_float(const float* A, Py_ssize_t a_stride, float* A_out, Py_ssize_t out_stride)
    void transpose_square_double(const double* A, Py_ssize_t a_stride, double* A_out, Py_ssize_t out_stride)


cdef inline Py_ssize_t numbers_of(const Image* image, const floating* maps) noexcept nogil:
    # Numbers of a position.
    return image.channels * lanes_of(sizeof(floating))


cdef inline Py_ssize_t first_of(const Image* z, Py_ssize_t numbers, const WindowOf* window, Py_ssize_t y,
                                Py_ssize_t x) noexcept nogil:
    # Where the window of position (y, x) of the output begins.
    return (y * window.down - window.top) * z.row + (x * window.across - window.left) * numbers


cdef void pool_max(const Image* z, const floating* Z, const WindowOf* window, const Image* y, floating* Y,
                   uint8_t* places, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # rows begin to end of Y = the largest number of each window of Z, or NaN if it has one; places, if not NULL, of
    # Y's shape without gaps: which number of the window that is, the first of equals
    cdef Py_ssize_t n = numbers_of(z, Z), i, j
    for i in range(begin, end):
        for j in range(y.width):
            largest_of_window(Z + first_of(z, n, window, i, j), z.row, window, n, Y + i * y.row + j * n,
                              places + (i * y.width + j) * n if places != NULL else NULL)


cdef inline void largest_of_window(const floating* Z, Py_ssize_t row, const WindowOf* window, Py_ssize_t n, floating* Y,
                                   uint8_t* places) noexcept nogil:
    cdef Py_ssize_t ky, kx, c
    cdef uint8_t place = 0
    cdef const floating* seen
    cdef bint larger
    for c in range(n):
        Y[c] = Z[c]
        if places != NULL:
            places[c] = 0
    for ky in range(window.height):
        for kx in range(window.width):
            seen = Z + ky * row + kx * n
            # a NaN is larger than all numbers, and the first one stays
            if places != NULL:
                for c in range(n):
                    larger = (seen[c] > Y[c]) | (seen[c] != seen[c]) & (Y[c] == Y[c])
                    Y[c] = seen[c] if larger else Y[c]
                    places[c] = place if larger else places[c]
            else:
                for c in range(n):
                    larger = (seen[c] > Y[c]) | (seen[c] != seen[c])
                    Y[c] = seen[c] if larger else Y[c]
            place += 1


cdef void pool_max_backward(const Image* y, const floating* dY, const uint8_t* places, const WindowOf* window,
                            const Image* z, floating* dZ, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # dZ += the gradient from rows begin to end of dY: each number goes to the place of its window
    cdef Py_ssize_t n = numbers_of(z, dY), i, j, ky, kx, c
    cdef const floating* gradient
    cdef const uint8_t* at
    cdef floating* out
    cdef uint8_t place
    for i in range(begin, end):
        for j in range(y.width):
            gradient, at = dY + i * y.row + j * n, places + (i * y.width + j) * n
            place = 0
            for ky in range(window.height):
                for kx in range(window.width):
                    out = dZ + first_of(z, n, window, i, j) + ky * z.row + kx * n
                    for c in range(n):
                        out[c] += gradient[c] if at[c] == place else <floating> 0
                    place += 1


cdef void pool_mean(const Image* z, const floating* Z, const WindowOf* window, const Image* y, floating* Y,
                    Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # rows begin to end of Y = the mean of each window of Z
    cdef Py_ssize_t n = numbers_of(z, Z), i, j, ky, kx, c
    cdef floating share = <floating> (1.0 / (window.height * window.width))
    cdef const floating* seen
    cdef floating* out
    for i in range(begin, end):
        for j in range(y.width):
            out = Y + i * y.row + j * n
            for c in range(n):
                out[c] = 0
            for ky in range(window.height):
                for kx in range(window.width):
                    seen = Z + first_of(z, n, window, i, j) + ky * z.row + kx * n
                    for c in range(n):
                        out[c] += seen[c]
            for c in range(n):
                out[c] *= share


cdef void pool_mean_backward(const Image* y, const floating* dY, const WindowOf* window, const Image* z, floating* dZ,
                             Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # dZ += the gradient from rows begin to end of dY: the same for each number of a window
    cdef Py_ssize_t n = numbers_of(z, dY), i, j, ky, kx, c
    cdef floating share = <floating> (1.0 / (window.height * window.width))
    cdef const floating* gradient
    cdef floating* out
    for i in range(begin, end):
        for j in range(y.width):
            gradient = dY + i * y.row + j * n
            for ky in range(window.height):
                for kx in range(window.width):
                    out = dZ + first_of(z, n, window, i, j) + ky * z.row + kx * n
                    for c in range(n):
                        out[c] += share * gradient[c]


cdef inline void transpose_square(const floating* A, Py_ssize_t a_stride, floating* A_out,
                                  Py_ssize_t out_stride) noexcept nogil:
    if floating is float:
        transpose_square_float(A, a_stride, A_out, out_stride)
    else:
        transpose_square_double(A, a_stride, A_out, out_stride)


cdef void load_lanes(const floating* rows, Py_ssize_t n_rows, Py_ssize_t stride, const Image* x,
                     floating* X) noexcept nogil:
    # X in lanes = rows (n_rows, height * width * channels); the lanes from n_rows on are 0
    cdef Py_ssize_t lanes = lanes_of(sizeof(floating)), n = x.width * x.channels, y, j, lane
    cdef const floating* row
    cdef floating* out
    for y in range(x.height):
        row, out = rows + y * n, X + y * x.row
        j = 0
        while n_rows == lanes and j + lanes <= n:
            transpose_square(row + j, stride, out + j * lanes, lanes)
            j += lanes
        while j < n:
            for lane in range(lanes):
                out[j * lanes + lane] = row[lane * stride + j] if lane < n_rows else <floating> 0
            j += 1


cdef void store_lanes(const Image* x, const floating* X, floating* rows, Py_ssize_t n_rows,
                      Py_ssize_t stride) noexcept nogil:
    # rows (n_rows, height * width * channels) = the first n_rows lanes of X
    cdef Py_ssize_t lanes = lanes_of(sizeof(floating)), n = x.width * x.channels, y, j, lane
    cdef const floating* maps
    cdef floating* row
    for y in range(x.height):
        row, maps = rows + y * n, X + y * x.row
        j = 0
        while n_rows == lanes and j + lanes <= n:
            transpose_square(maps + j * lanes, lanes, row + j, stride)
            j += lanes
        while j < n:
            for lane in range(n_rows):
                row[lane * stride + j] = maps[j * lanes + lane]
            j += 1


def max_pool(const floating[:, :, :, ::1] Z, window, floating[:, :, :, ::1] Y_out, uint8_t[:, :, :, ::1] places_out,
             Py_ssize_t begin, Py_ssize_t end):
    """Rows begin to end of Y_out (height, width, channels, lanes) = the largest number of each window of Z, or NaN.

    window : height, width, and the strides down and across
    places_out : which number of its window that is, row by row, the first of equals; or None
    """
    cdef Image z = image_of(Z.shape), y = image_of(Y_out.shape)
    cdef WindowOf windows = window_of(window)
    cdef uint8_t* places = &places_out[0, 0, 0, 0] if places_out is not None and end > begin else NULL
    if end > begin:
        with nogil:
            pool_max(&z, &Z[0, 0, 0, 0], &windows, &y, &Y_out[0, 0, 0, 0], places, begin, end)


def backprop_max_pool(const floating[:, :, :, ::1] dY, const uint8_t[:, :, :, ::1] places, window,
                      floating[:, :, :, ::1] dZ_out, Py_ssize_t begin, Py_ssize_t end):
    """dZ_out += the gradient by Z, from rows begin to end of dY and the places that max_pool found."""
    cdef Image z = image_of(dZ_out.shape), y = image_of(dY.shape)
    cdef WindowOf windows = window_of(window)
    if end > begin:
        with nogil:
            pool_max_backward(&y, &dY[0, 0, 0, 0], &places[0, 0, 0, 0], &windows, &z, &dZ_out[0, 0, 0, 0], begin, end)


def mean_pool(const floating[:, :, :, ::1] Z, window, floating[:, :, :, ::1] Y_out, Py_ssize_t begin, Py_ssize_t end):
    """Rows begin to end of Y_out = the mean of each window of Z; as in max_pool."""
    cdef Image z = image_of(Z.shape), y = image_of(Y_out.shape)
    cdef WindowOf windows = window_of(window)
    if end > begin:
        with nogil:
            pool_mean(&z, &Z[0, 0, 0, 0], &windows, &y, &Y_out[0, 0, 0, 0], begin, end)


def backprop_mean_pool(const floating[:, :, :, ::1] dY, window, floating[:, :, :, ::1] dZ_out, Py_ssize_t begin,
                       Py_ssize_t end):
    """dZ_out += the gradient by Z, from rows begin to end of dY."""
    cdef Image z = image_of(dZ_out.shape), y = image_of(dY.shape)
    cdef WindowOf windows = window_of(window)
    if end > begin:
        with nogil:
            pool_mean_backward(&y, &dY[0, 0, 0, 0], &windows, &z, &dZ_out[0, 0, 0, 0], begin, end)


def to_lanes(const floating[:, ::1] rows, floating[:, :, :, ::1] X_out):
    """X_out (height, width, channels, lanes) = rows (n, height * width * channels), zeros in the lanes from n on."""
    cdef Image x = image_of(X_out.shape)
    if X_out.size:
        with nogil:
            load_lanes(&rows[0, 0] if rows.shape[0] else NULL, rows.shape[0], rows.shape[1], &x, &X_out[0, 0, 0, 0])


def from_lanes(const floating[:, :, :, ::1] X, floating[:, ::1] rows_out):
    """rows_out (n, height * width * channels) = the first n lanes of X (height, width, channels, lanes)."""
    cdef Image x = image_of(X.shape)
    if rows_out.size:
        with nogil:
            store_lanes(&x, &X[0, 0, 0, 0], &rows_out[0, 0], rows_out.shape[0], rows_out.shape[1])
