"""Pooling of images in lanes, see ``convolution``; and how rows of data become lanes, and rows again.

The numbers of a position, of all channels and lanes, are neighbours, so each loop runs over them.
"""

from cython cimport floating
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from .convolution cimport image_of, window_of
from .plan cimport Image, WindowOf

#: Numbers of a window of which the largest is taken, at most: its place is a byte.
MOST_PLACES = 256

cdef extern from "tiles.h" nogil:
    Py_ssize_t lanes_of(Py_ssize_t number_size)
    void transpose_square_float(const float* A, Py_ssize_t a_stride, float* A_out, Py_ssize_t out_stride)
    void transpose_square_double(const double* A, Py_ssize_t a_stride, double* A_out, Py_ssize_t out_stride)

cdef extern from "pooling.h" nogil:
    void pool_max_float(const Image* z, const float* Z, const WindowOf* window, const Image* y, float* Y,
                        uint8_t* places, Py_ssize_t begin, Py_ssize_t end)
    void pool_max_double(const Image* z, const double* Z, const WindowOf* window, const Image* y, double* Y,
                         uint8_t* places, Py_ssize_t begin, Py_ssize_t end)
    void pool_max_backward_float(const Image* y, const float* dY, const uint8_t* places, const WindowOf* window,
                                 const Image* z, float* dZ, Py_ssize_t begin, Py_ssize_t end)
    void pool_max_backward_double(const Image* y, const double* dY, const uint8_t* places, const WindowOf* window,
                                  const Image* z, double* dZ, Py_ssize_t begin, Py_ssize_t end)
    void pool_mean_float(const Image* z, const float* Z, const WindowOf* window, const Image* y, float* Y,
                         Py_ssize_t begin, Py_ssize_t end)
    void pool_mean_double(const Image* z, const double* Z, const WindowOf* window, const Image* y, double* Y,
                          Py_ssize_t begin, Py_ssize_t end)
    void pool_mean_backward_float(const Image* y, const float* dY, const WindowOf* window, const Image* z, float* dZ,
                                  Py_ssize_t begin, Py_ssize_t end)
    void pool_mean_backward_double(const Image* y, const double* dY, const WindowOf* window, const Image* z,
                                   double* dZ, Py_ssize_t begin, Py_ssize_t end)
    void pool_sum_float(const Image* z, const float* Z, const WindowOf* window, const Image* y, float* Y,
                        Py_ssize_t begin, Py_ssize_t end)
    void pool_sum_double(const Image* z, const double* Z, const WindowOf* window, const Image* y, double* Y,
                         Py_ssize_t begin, Py_ssize_t end)
    void pool_sum_backward_float(const Image* y, const float* dY, const WindowOf* window, const Image* z, float* dZ,
                                 Py_ssize_t begin, Py_ssize_t end)
    void pool_sum_backward_double(const Image* y, const double* dY, const WindowOf* window, const Image* z, double* dZ,
                                  Py_ssize_t begin, Py_ssize_t end)
    void pool_equal_backward_float(const Image* y, const float* dY, const float* Y, const WindowOf* window,
                                   const Image* z, const float* Z, float* dZ, Py_ssize_t begin, Py_ssize_t end)
    void pool_equal_backward_double(const Image* y, const double* dY, const double* Y, const WindowOf* window,
                                    const Image* z, const double* Z, double* dZ, Py_ssize_t begin, Py_ssize_t end)


cdef void pool_max(const Image* z, const floating* Z, const WindowOf* window, const Image* y, floating* Y,
                   uint8_t* places, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # rows begin to end of Y = the largest number of each window of Z, or NaN if it has one; places, if not NULL, of
    # Y's shape without gaps: which number of the window that is, the first of equals
    if floating is float:
        pool_max_float(z, Z, window, y, Y, places, begin, end)
    else:
        pool_max_double(z, Z, window, y, Y, places, begin, end)


cdef void pool_max_backward(const Image* y, const floating* dY, const uint8_t* places, const WindowOf* window,
                            const Image* z, floating* dZ, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # dZ += the gradient from rows begin to end of dY: each number goes to the place of its window
    if floating is float:
        pool_max_backward_float(y, dY, places, window, z, dZ, begin, end)
    else:
        pool_max_backward_double(y, dY, places, window, z, dZ, begin, end)


cdef void pool_mean(const Image* z, const floating* Z, const WindowOf* window, const Image* y, floating* Y,
                    Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # rows begin to end of Y = the mean of each window of Z
    if floating is float:
        pool_mean_float(z, Z, window, y, Y, begin, end)
    else:
        pool_mean_double(z, Z, window, y, Y, begin, end)


cdef void pool_mean_backward(const Image* y, const floating* dY, const WindowOf* window, const Image* z, floating* dZ,
                             Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # dZ += the gradient from rows begin to end of dY: the same for each number of a window
    if floating is float:
        pool_mean_backward_float(y, dY, window, z, dZ, begin, end)
    else:
        pool_mean_backward_double(y, dY, window, z, dZ, begin, end)


cdef void pool_sum(const Image* z, const floating* Z, const WindowOf* window, const Image* y, floating* Y,
                   Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # rows begin to end of Y = the sum of each window of Z
    if floating is float:
        pool_sum_float(z, Z, window, y, Y, begin, end)
    else:
        pool_sum_double(z, Z, window, y, Y, begin, end)


cdef void pool_sum_backward(const Image* y, const floating* dY, const WindowOf* window, const Image* z, floating* dZ,
                            Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # dZ += the gradient from rows begin to end of dY: all of it for each number of a window
    if floating is float:
        pool_sum_backward_float(y, dY, window, z, dZ, begin, end)
    else:
        pool_sum_backward_double(y, dY, window, z, dZ, begin, end)


cdef void pool_equal_backward(const Image* y, const floating* dY, const floating* Y, const WindowOf* window,
                              const Image* z, const floating* Z, floating* dZ, Py_ssize_t begin,
                              Py_ssize_t end) noexcept nogil:
    # dZ += the gradient from rows begin to end of dY: all of it for each number of a window of Z that is equal to Y
    if floating is float:
        pool_equal_backward_float(y, dY, Y, window, z, Z, dZ, begin, end)
    else:
        pool_equal_backward_double(y, dY, Y, window, z, Z, dZ, begin, end)


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
    if x.lanes < lanes:
        for y in range(x.height):
            for j in range(x.width):
                memcpy(X + y * x.row + j * x.pixel, rows + y * n + j * x.channels, x.channels * sizeof(floating))
        return
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
    if x.lanes < lanes:
        for y in range(x.height):
            for j in range(x.width):
                memcpy(rows + y * n + j * x.channels, X + y * x.row + j * x.pixel, x.channels * sizeof(floating))
        return
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
