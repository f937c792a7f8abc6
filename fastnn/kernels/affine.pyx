"""The affine layer Z = X W + b on dense rows, forward and backward.

The backward pass scales and adds (alpha, beta) as BLAS does, so that a plain gradient step can be
folded into the product: with alpha = learning_rate and beta = 1 it writes the new weights themselves.
BLAS computes the products of layers that are narrow but not small, and most gradients by X.

A wide layer's weight may also be in panels.  Its units are cut into slices, and a slice's units into panels of at most
three vectors of the processor.  A panel's weights are contiguous: a row for each input, padded with zeros after the
last unit.  The products read and write them in place, from one end to the other; from a weight (n_in, n_out), they must
first copy a panel's part together, a few inputs at a time.
"""

from cpython.pyport cimport PY_SSIZE_T_MAX
from cython cimport floating

from .blas cimport gemm_
from .rows cimport Cut, RowsAhead, place_of, whole

cdef extern from "tiles.h" nogil:
    enum:
        TILED_BYTES
        TILED_FORWARD_BYTES
        FEW_ROWS
        FEW_WEIGHTS
        MANY_ROWS
    const int VECTOR_BYTES
    ctypedef struct Panels:
        Py_ssize_t n_panels, vectors, n_wider
    Py_ssize_t lanes_of(Py_ssize_t number_size)
    Panels cut_into_panels(Py_ssize_t units, Py_ssize_t number_size)
    Py_ssize_t slice_size(Py_ssize_t n_in, Py_ssize_t units, Py_ssize_t number_size)
    void wide_rows_float(const float* X, const Cut* x, const float* W, Py_ssize_t w_stride, const float* b, float* Z,
                         const Cut* z, Py_ssize_t n, Py_ssize_t n_in, const Py_ssize_t* bounds, int n_slices,
                         const RowsAhead* ahead)
    void wide_rows_double(const double* X, const Cut* x, const double* W, Py_ssize_t w_stride, const double* b,
                          double* Z, const Cut* z, Py_ssize_t n, Py_ssize_t n_in, const Py_ssize_t* bounds,
                          int n_slices, const RowsAhead* ahead)
    void wide_inputs_float(const float* D, const Cut* d, const float* W, Py_ssize_t n_in, const Py_ssize_t* bounds,
                           int n_slices, Py_ssize_t begin, Py_ssize_t inputs, float* dX, const Cut* x, Py_ssize_t n)
    void wide_inputs_double(const double* D, const Cut* d, const double* W, Py_ssize_t n_in, const Py_ssize_t* bounds,
                            int n_slices, Py_ssize_t begin, Py_ssize_t inputs, double* dX, const Cut* x, Py_ssize_t n)
    void wide_outer_float(const float* X, const Cut* x, const float* D, const Cut* d, float* G, Py_ssize_t g_stride,
                          Py_ssize_t n, Py_ssize_t n_in, const Py_ssize_t* bounds, int n_slices, float alpha,
                          float beta)
    void wide_outer_double(const double* X, const Cut* x, const double* D, const Cut* d, double* G,
                           Py_ssize_t g_stride, Py_ssize_t n, Py_ssize_t n_in, const Py_ssize_t* bounds, int n_slices,
                           double alpha, double beta)
    void fill_rows_float(const float* b, float* Z, Py_ssize_t z_stride, Py_ssize_t n, Py_ssize_t n_out)
    void fill_rows_double(const double* b, double* Z, Py_ssize_t z_stride, Py_ssize_t n, Py_ssize_t n_out)
    void sum_rows_float(const float* D, Py_ssize_t d_stride, float* s, Py_ssize_t n, Py_ssize_t n_out, float alpha,
                        float beta)
    void sum_rows_double(const double* D, Py_ssize_t d_stride, double* s, Py_ssize_t n, Py_ssize_t n_out, double alpha,
                         double beta)

#: Bytes of a vector register that these kernels were compiled for; 0: no vectors, and no panels.
REGISTER_BYTES = VECTOR_BYTES


cdef inline bint is_few(Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    return VECTOR_BYTES > 0 and n_in * n_out <= FEW_WEIGHTS


cdef inline bint is_tiled(Py_ssize_t n_in, Py_ssize_t n_out, Py_ssize_t number_size) noexcept nogil:
    return VECTOR_BYTES > 0 and n_out * number_size >= TILED_BYTES or is_few(n_in, n_out)


cdef inline bint runs_along_inputs(Py_ssize_t n_in, Py_ssize_t n_out, Py_ssize_t number_size) noexcept nogil:
    # Whether a weight's gradient takes at most half as many vectors along the inputs as along the units.
    cdef Py_ssize_t lanes = lanes_of(number_size)
    return 2 * n_out * ((n_in + lanes - 1) // lanes) <= n_in * ((n_out + lanes - 1) // lanes)


cdef Py_ssize_t most_tiled_rows(Py_ssize_t n_in, Py_ssize_t n_out, Py_ssize_t number_size) noexcept nogil:
    # Rows, at most, that go forward through our tiles; more go through BLAS.
    if is_few(n_in, n_out) or VECTOR_BYTES > 0 and n_out * number_size >= TILED_FORWARD_BYTES:
        return PY_SSIZE_T_MAX
    return FEW_ROWS if VECTOR_BYTES > 0 else 0


cdef Py_ssize_t panel_begin(Py_ssize_t width, Py_ssize_t p, Py_ssize_t number_size) noexcept nogil:
    # First unit of panel p; the last panel ends with a whole vector, perhaps after the last unit.  Panel p's weights
    # begin at n_in * panel_begin(p), in rows of panel_begin(p + 1) - panel_begin(p) numbers.
    cdef Panels panels = cut_into_panels(width, number_size)
    return lanes_of(number_size) * (panels.vectors * p + min(p, panels.n_wider))


cpdef Py_ssize_t panels_size(Py_ssize_t n_in, Py_ssize_t width, Py_ssize_t number_size) noexcept nogil:
    """Numbers that the weights of a slice of units take in panels, in whole cache lines."""
    return slice_size(n_in, width, number_size)


cdef void wide_rows(const floating* X, const Cut* x, const floating* W, Py_ssize_t w_stride, const floating* b,
                    floating* Z, const Cut* z, Py_ssize_t n, Py_ssize_t n_in, const Py_ssize_t* bounds, int n_slices,
                    const RowsAhead* ahead) noexcept nogil:
    if floating is float:
        wide_rows_float(X, x, W, w_stride, b, Z, z, n, n_in, bounds, n_slices, ahead)
    else:
        wide_rows_double(X, x, W, w_stride, b, Z, z, n, n_in, bounds, n_slices, ahead)


cdef void wide_outer(const floating* X, const Cut* x, const floating* D, const Cut* d, floating* G,
                     Py_ssize_t g_stride, Py_ssize_t n, Py_ssize_t n_in, const Py_ssize_t* bounds, int n_slices,
                     floating alpha, floating beta) noexcept nogil:
    if floating is float:
        wide_outer_float(X, x, D, d, G, g_stride, n, n_in, bounds, n_slices, alpha, beta)
    else:
        wide_outer_double(X, x, D, d, G, g_stride, n, n_in, bounds, n_slices, alpha, beta)


cdef void fill_rows(const floating* b, floating* Z, Py_ssize_t z_stride, Py_ssize_t n,
                    Py_ssize_t n_out) noexcept nogil:
    # Z (n, n_out) = b (n_out,), or 0 if b is NULL
    if floating is float:
        fill_rows_float(b, Z, z_stride, n, n_out)
    else:
        fill_rows_double(b, Z, z_stride, n, n_out)


cdef void affine_forward(const floating* X, Py_ssize_t x_stride, const floating* W, Py_ssize_t w_stride,
                         const floating* b, floating* Z, Py_ssize_t z_stride,
                         Py_ssize_t n, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    # Z (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b
    cdef Py_ssize_t[2] bounds
    cdef Cut x = whole(x_stride), z = whole(z_stride)
    if n_in > 0 and n <= most_tiled_rows(n_in, n_out, sizeof(floating)):
        bounds[0], bounds[1] = 0, n_out
        wide_rows(X, &x, W, w_stride, b, Z, &z, n, n_in, bounds, 1, NULL)
        return
    fill_rows(b, Z, z_stride, n, n_out)
    gemm_[floating](False, False, n, n_out, n_in, 1, X, x_stride, W, w_stride, 1, Z, z_stride)


cdef void panels_forward(const floating* X, const Cut* x, const floating* W, const floating* b, floating* Z,
                         const Cut* z, Py_ssize_t n, Py_ssize_t n_in, const Py_ssize_t* bounds, int n_slices,
                         const RowsAhead* ahead) noexcept nogil:
    # Z (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b for W in panels; meanwhile rows ahead, if any, are prefetched
    cdef int s
    if n_in > 0:
        wide_rows(X, x, W, 0, b, Z, z, n, n_in, bounds, n_slices, ahead)
        return
    for s in range(n_slices):
        fill_rows(b + bounds[s] if b != NULL else b, Z + place_of(z, bounds[s]), z.stride, n,
                  bounds[s + 1] - bounds[s])


cdef void affine_backward_input(const floating* dZ, Py_ssize_t z_stride, const floating* W, Py_ssize_t w_stride,
                                floating* dX, Py_ssize_t x_stride,
                                Py_ssize_t n, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    # dX (n, n_in) = dZ (n, n_out) @ W.T (n_out, n_in)
    cdef Py_ssize_t[2] bounds
    cdef Cut x = whole(x_stride), z = whole(z_stride)
    cdef floating[FEW_WEIGHTS] transposed
    cdef Py_ssize_t i, j
    if n_out > 0 and is_few(n_in, n_out):
        for i in range(n_in):
            for j in range(n_out):
                transposed[j * n_in + i] = W[i * w_stride + j]
        bounds[0], bounds[1] = 0, n_in
        wide_rows(dZ, &z, &transposed[0], n_in, <const floating*> NULL, dX, &x, n, n_out, bounds, 1, NULL)
        return
    gemm_[floating](False, True, n, n_in, n_out, 1, dZ, z_stride, W, w_stride, 0, dX, x_stride)


cdef void panels_backward_input(const floating* dZ, const Cut* z, const floating* W, Py_ssize_t n_in,
                                const Py_ssize_t* bounds, int n_slices, Py_ssize_t begin, Py_ssize_t inputs,
                                floating* dX, const Cut* x, Py_ssize_t n) noexcept nogil:
    # dX (n, inputs) = dZ (n, n_out) @ W.T (n_out, inputs) for inputs begin on of W (n_in, n_out) in panels
    if floating is float:
        wide_inputs_float(dZ, z, W, n_in, bounds, n_slices, begin, inputs, dX, x, n)
    else:
        wide_inputs_double(dZ, z, W, n_in, bounds, n_slices, begin, inputs, dX, x, n)


cdef void affine_backward_weight(const floating* X, Py_ssize_t x_stride, const floating* dZ, Py_ssize_t z_stride,
                                 floating* dW, Py_ssize_t w_stride, Py_ssize_t n, Py_ssize_t n_in, Py_ssize_t n_out,
                                 floating alpha, floating beta) noexcept nogil:
    # dW (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW
    cdef Py_ssize_t[2] bounds
    cdef Cut x = whole(x_stride), z = whole(z_stride)
    cdef floating[FEW_WEIGHTS] transposed
    cdef Py_ssize_t i, j
    if n >= MANY_ROWS and is_few(n_in, n_out) and runs_along_inputs(n_in, n_out, sizeof(floating)):
        # dW.T (n_out, n_in) = alpha * dZ.T (n_out, n) @ X (n, n_in) + beta * dW.T
        for i in range(n_in if beta != 0 else 0):
            for j in range(n_out):
                transposed[j * n_in + i] = dW[i * w_stride + j]
        bounds[0], bounds[1] = 0, n_in
        wide_outer(dZ, &z, X, &x, &transposed[0], n_in, n, n_out, bounds, 1, alpha, beta)
        for i in range(n_in):
            for j in range(n_out):
                dW[i * w_stride + j] = transposed[j * n_in + i]
        return
    if is_tiled(n_in, n_out, sizeof(floating)):
        bounds[0], bounds[1] = 0, n_out
        wide_outer(X, &x, dZ, &z, dW, w_stride, n, n_in, bounds, 1, alpha, beta)
        return
    gemm_[floating](True, False, n_in, n_out, n, alpha, X, x_stride, dZ, z_stride, beta, dW, w_stride)


cdef void panels_backward_weight(const floating* X, const Cut* x, const floating* dZ, const Cut* z, floating* dW,
                                 Py_ssize_t n, Py_ssize_t n_in, const Py_ssize_t* bounds, int n_slices,
                                 floating alpha, floating beta) noexcept nogil:
    # dW (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW for dW in panels
    wide_outer(X, x, dZ, z, dW, 0, n, n_in, bounds, n_slices, alpha, beta)


cdef void affine_backward_bias(const floating* dZ, Py_ssize_t z_stride, floating* db, Py_ssize_t n, Py_ssize_t n_out,
                               floating alpha, floating beta) noexcept nogil:
    # db (n_out,) = alpha * the sum of the rows of dZ (n, n_out) + beta * db
    if floating is float:
        sum_rows_float(dZ, z_stride, db, n, n_out, alpha, beta)
    else:
        sum_rows_double(dZ, z_stride, db, n, n_out, alpha, beta)


def affine(const floating[:, ::1] X, const floating[:, ::1] W, const floating[::1] b, floating[:, ::1] Z_out):
    """Z_out (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b (n_out,)."""
    if Z_out.size:
        with nogil:
            affine_forward(&X[0, 0] if X.shape[1] else NULL, X.shape[1], &W[0, 0] if W.shape[0] else NULL, W.shape[1],
                           &b[0], &Z_out[0, 0], W.shape[1], Z_out.shape[0], W.shape[0], W.shape[1])


def panels_affine(const floating[:, ::1] X, const floating[::1] W, const floating[::1] b,
                  const Py_ssize_t[::1] bounds, floating[:, ::1] Z_out):
    """Z_out (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b (n_out,) for W in panels.

    W : vector of the panels, slice by slice, each in whole cache lines
    bounds : (n_slices + 1,) first unit of each slice, and n_out
    """
    cdef Cut x = whole(X.shape[1]), z = whole(Z_out.shape[1])
    if Z_out.size:
        with nogil:
            panels_forward(&X[0, 0] if X.shape[1] else NULL, &x, &W[0] if W.shape[0] else NULL, &b[0], &Z_out[0, 0],
                           &z, X.shape[0], X.shape[1], &bounds[0], <int> bounds.shape[0] - 1, NULL)


def backprop_affine_input(const floating[:, ::1] dZ, const floating[:, ::1] W, floating[:, ::1] dX_out):
    """dX_out (n, n_in) = dZ (n, n_out) @ W.T (n_out, n_in)."""
    if dX_out.size:
        with nogil:
            affine_backward_input(&dZ[0, 0] if dZ.shape[1] else NULL, dZ.shape[1],
                                  &W[0, 0] if W.shape[1] else NULL, W.shape[1],
                                  &dX_out[0, 0], W.shape[0], dZ.shape[0], W.shape[0], W.shape[1])


def backprop_affine_weight(const floating[:, ::1] X, const floating[:, ::1] dZ, floating[:, ::1] dW_out,
                           double alpha=1.0, double beta=0.0):
    """dW_out (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW_out."""
    if dW_out.size:
        with nogil:
            affine_backward_weight(&X[0, 0] if X.shape[0] else NULL, X.shape[1],
                                   &dZ[0, 0] if dZ.shape[0] else NULL, dZ.shape[1], &dW_out[0, 0], dW_out.shape[1],
                                   X.shape[0], dW_out.shape[0], dW_out.shape[1], <floating> alpha, <floating> beta)


def backprop_panels_input(const floating[:, ::1] dZ, const floating[::1] W, const Py_ssize_t[::1] bounds,
                          floating[:, ::1] dX_out):
    """dX_out (n, n_in) = dZ (n, n_out) @ W.T (n_out, n_in), for W in panels as for panels_affine.

    All slices but the last are of whole vectors.
    """
    cdef Cut x = whole(dX_out.shape[1]), z = whole(dZ.shape[1])
    if dX_out.size:
        with nogil:
            panels_backward_input(&dZ[0, 0], &z, &W[0], dX_out.shape[1], &bounds[0], <int> bounds.shape[0] - 1, 0,
                                  dX_out.shape[1], &dX_out[0, 0], &x, dZ.shape[0])


def backprop_panels_weight(const floating[:, ::1] X, const floating[:, ::1] dZ, const Py_ssize_t[::1] bounds,
                           floating[::1] dW_out, double alpha=1.0, double beta=0.0):
    """dW_out (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW_out, in panels as for panels_affine."""
    cdef Cut x = whole(X.shape[1]), z = whole(dZ.shape[1])
    if dW_out.size:
        with nogil:
            panels_backward_weight(&X[0, 0] if X.shape[0] else NULL, &x, &dZ[0, 0] if dZ.shape[0] else NULL, &z,
                                   &dW_out[0], X.shape[0], X.shape[1], &bounds[0], <int> bounds.shape[0] - 1,
                                   <floating> alpha, <floating> beta)


def backprop_affine_bias(const floating[:, ::1] dZ, floating[::1] db_out, double alpha=1.0, double beta=0.0):
    """db_out (n_out,) = alpha * the sum of the rows of dZ (n, n_out) + beta * db_out."""
    if db_out.size:
        with nogil:
            affine_backward_bias(&dZ[0, 0] if dZ.shape[0] else NULL, dZ.shape[1], &db_out[0], dZ.shape[0],
                                 dZ.shape[1], <floating> alpha, <floating> beta)
