"""Convolution of images, forward and backward: Z = W * X + b, a cross-correlation, as in other packages.

Images go in groups, one a lane of the processor's vectors: maps lie as (height, width, channels, lanes).  So every
number of a window is a whole vector, whatever the numbers of channels and filters, and nothing is copied or padded.
The weight is (height of the window, its width, channels, filters).
"""

from cython cimport floating

from .plan cimport Image, WindowOf

cdef extern from "convolution.h" nogil:
    void convolve_float(const Image* x, const float* X, const WindowOf* window, const float* W, const float* b,
                        const Image* z, float* Z, Py_ssize_t begin, Py_ssize_t end)
    void convolve_double(const Image* x, const double* X, const WindowOf* window, const double* W, const double* b,
                         const Image* z, double* Z, Py_ssize_t begin, Py_ssize_t end)
    void convolve_backward_weight_float(const Image* x, const float* X, const WindowOf* window, const float* dZ,
                                        const Image* z, Py_ssize_t begin, Py_ssize_t end, float* dW, float alpha,
                                        float beta)
    void convolve_backward_weight_double(const Image* x, const double* X, const WindowOf* window, const double* dZ,
                                         const Image* z, Py_ssize_t begin, Py_ssize_t end, double* dW, double alpha,
                                         double beta)
    void convolve_backward_bias_float(const Image* z, const float* dZ, Py_ssize_t begin, Py_ssize_t end, float* db,
                                      float alpha, float beta)
    void convolve_backward_bias_double(const Image* z, const double* dZ, Py_ssize_t begin, Py_ssize_t end, double* db,
                                       double alpha, double beta)
    void convolve_backward_input_float(const Image* z, const float* dZ, Py_ssize_t begin, Py_ssize_t end,
                                       const WindowOf* window, const float* W, const Image* x, float* dX)
    void convolve_backward_input_double(const Image* z, const double* dZ, Py_ssize_t begin, Py_ssize_t end,
                                        const WindowOf* window, const double* W, const Image* x, double* dX)


cdef void convolve(const Image* x, const floating* X, const WindowOf* window, const floating* W, const floating* b,
                   const Image* z, floating* Z, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # rows begin to end of Z = the convolution of X with W, plus b (filters,), or 0 if b is NULL
    if floating is float:
        convolve_float(x, X, window, W, b, z, Z, begin, end)
    else:
        convolve_double(x, X, window, W, b, z, Z, begin, end)


cdef void convolve_backward_weight(const Image* x, const floating* X, const WindowOf* window, const floating* dZ,
                                   const Image* z, Py_ssize_t begin, Py_ssize_t end, floating* dW, floating alpha,
                                   floating beta) noexcept nogil:
    # dW = alpha * the gradient from rows begin to end of dZ, summed over positions and lanes, + beta * dW
    if floating is float:
        convolve_backward_weight_float(x, X, window, dZ, z, begin, end, dW, alpha, beta)
    else:
        convolve_backward_weight_double(x, X, window, dZ, z, begin, end, dW, alpha, beta)


cdef void convolve_backward_bias(const Image* z, const floating* dZ, Py_ssize_t begin, Py_ssize_t end, floating* db,
                                 floating alpha, floating beta) noexcept nogil:
    # db (filters,) = alpha * the sum of rows begin to end of dZ, over positions and lanes, + beta * db
    if floating is float:
        convolve_backward_bias_float(z, dZ, begin, end, db, alpha, beta)
    else:
        convolve_backward_bias_double(z, dZ, begin, end, db, alpha, beta)


cdef void convolve_backward_input(const Image* z, const floating* dZ, Py_ssize_t begin, Py_ssize_t end,
                                  const WindowOf* window, const floating* W, const Image* x,
                                  floating* dX) noexcept nogil:
    # dX += the gradient from rows begin to end of dZ; the borders of dX receive numbers too
    if floating is float:
        convolve_backward_input_float(z, dZ, begin, end, window, W, x, dX)
    else:
        convolve_backward_input_double(z, dZ, begin, end, window, W, x, dX)


cdef Image image_of(const Py_ssize_t* shape) noexcept:
    # Of maps (height, width, channels, lanes) without gaps.
    return Image(shape[0], shape[1], shape[2], shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3])


cdef WindowOf window_of(window):
    return WindowOf(window[0], window[1], window[2], window[3], 0, 0)


def convolution(const floating[:, :, :, ::1] X, const floating[:, :, :, ::1] W, const floating[::1] b, window,
                floating[:, :, :, ::1] Z_out, Py_ssize_t begin, Py_ssize_t end):
    """Rows begin to end of Z_out (height, width, filters, lanes) = the convolution of X with W, plus b (filters,).

    X : (height, width, channels, lanes), with the zeros around it
    W : (window's height, window's width, channels, filters)
    window : height, width, and the strides down and across
    """
    cdef Image x = image_of(X.shape), z = image_of(Z_out.shape)
    cdef WindowOf windows = window_of(window)
    if end > begin:
        with nogil:
            convolve(&x, &X[0, 0, 0, 0], &windows, &W[0, 0, 0, 0], &b[0], &z, &Z_out[0, 0, 0, 0], begin, end)


def backprop_convolution_weight(const floating[:, :, :, ::1] X, const floating[:, :, :, ::1] dZ, window,
                                floating[:, :, :, ::1] dW_out, Py_ssize_t begin, Py_ssize_t end, double alpha=1.0,
                                double beta=0.0):
    """dW_out = alpha * the gradient by the weight, from rows begin to end of dZ, + beta * dW_out; as in convolution."""
    cdef Image x = image_of(X.shape), z = image_of(dZ.shape)
    cdef WindowOf windows = window_of(window)
    with nogil:
        convolve_backward_weight(&x, &X[0, 0, 0, 0], &windows, &dZ[0, 0, 0, 0] if dZ.shape[0] else NULL, &z, begin,
                                 end, &dW_out[0, 0, 0, 0], <floating> alpha, <floating> beta)


def backprop_convolution_bias(const floating[:, :, :, ::1] dZ, floating[::1] db_out, Py_ssize_t begin, Py_ssize_t end,
                              double alpha=1.0, double beta=0.0):
    """db_out (filters,) = alpha * the sum of rows begin to end of dZ, over positions and lanes, + beta * db_out."""
    cdef Image z = image_of(dZ.shape)
    with nogil:
        convolve_backward_bias(&z, &dZ[0, 0, 0, 0] if dZ.shape[0] else NULL, begin, end, &db_out[0], <floating> alpha,
                               <floating> beta)


def backprop_convolution_input(const floating[:, :, :, ::1] dZ, const floating[:, :, :, ::1] W, window,
                               floating[:, :, :, ::1] dX_out, Py_ssize_t begin, Py_ssize_t end):
    """dX_out += the gradient by X, from rows begin to end of dZ; as in convolution."""
    cdef Image x = image_of(dX_out.shape), z = image_of(dZ.shape)
    cdef WindowOf windows = window_of(window)
    if end > begin:
        with nogil:
            convolve_backward_input(&z, &dZ[0, 0, 0, 0], begin, end, &windows, &W[0, 0, 0, 0], &x,
                                    &dX_out[0, 0, 0, 0])
