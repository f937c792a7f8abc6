"""The layer Z = X W.T + b with W (n_out, n_in), transposed, on dense rows: the first layer and the output layer.

A unit's weights are neighbours here, so both products run along the inputs, which are many, whatever the
number of units, and read X in place: no packing, no padding.  BLAS is slower if units are few or the batch
is small.  As in ``affine``, alpha and beta fold a plain step into the product.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdlib cimport free, malloc

from .affine cimport fill_rows
from .rows cimport RowsAhead

cdef extern from "tiles.h" nogil:
    enum:
        CACHED_BYTES
        ALONE_ROWS
        GRADIENT_ROWS
        ALONE_SHARDS
        ALONE_SHARD_ROWS
    void dot_rows_float(const float* X, const Py_ssize_t* order, Py_ssize_t x_stride, const float* W,
                        Py_ssize_t w_stride, float* Z, Py_ssize_t z_stride, Py_ssize_t n, Py_ssize_t n_in,
                        Py_ssize_t n_out, const RowsAhead* ahead)
    void dot_rows_double(const double* X, const Py_ssize_t* order, Py_ssize_t x_stride, const double* W,
                         Py_ssize_t w_stride, double* Z, Py_ssize_t z_stride, Py_ssize_t n, Py_ssize_t n_in,
                         Py_ssize_t n_out, const RowsAhead* ahead)
    void outer_rows_float(const float* X, const Py_ssize_t* order, Py_ssize_t x_stride, const float* D,
                          Py_ssize_t d_stride, float* G, Py_ssize_t g_stride, Py_ssize_t n, Py_ssize_t n_in,
                          Py_ssize_t n_out, float alpha, float beta, const RowsAhead* ahead)
    void outer_rows_double(const double* X, const Py_ssize_t* order, Py_ssize_t x_stride, const double* D,
                           Py_ssize_t d_stride, double* G, Py_ssize_t g_stride, Py_ssize_t n, Py_ssize_t n_in,
                           Py_ssize_t n_out, double alpha, double beta, const RowsAhead* ahead)

#: Bytes of rows that stay in cache from the forward to the backward pass, while the next ones are prefetched.
BLOCK_BYTES = CACHED_BYTES


cdef void dense_forward(const floating* X, const Py_ssize_t* order, Py_ssize_t x_stride, const floating* W,
                        Py_ssize_t w_stride, const floating* b, floating* Z, Py_ssize_t z_stride, Py_ssize_t n,
                        Py_ssize_t n_in, Py_ssize_t n_out, const RowsAhead* ahead) noexcept nogil:
    # Z (n, n_out) = X (n, n_in) @ W.T (n_in, n_out) + b (n_out,)
    fill_rows(b, Z, z_stride, n, n_out)
    if floating is float:
        dot_rows_float(X, order, x_stride, W, w_stride, Z, z_stride, n, n_in, n_out, ahead)
    else:
        dot_rows_double(X, order, x_stride, W, w_stride, Z, z_stride, n, n_in, n_out, ahead)


cdef void outer_rows(const floating* X, const Py_ssize_t* order, Py_ssize_t x_stride, const floating* D,
                     Py_ssize_t d_stride, floating* G, Py_ssize_t g_stride, Py_ssize_t n, Py_ssize_t n_in,
                     Py_ssize_t n_out, floating alpha, floating beta, const RowsAhead* ahead) noexcept nogil:
    # G (n_out, n_in) = alpha * D.T (n_out, n) @ X (n, n_in) + beta * G
    if floating is float:
        outer_rows_float(X, order, x_stride, D, d_stride, G, g_stride, n, n_in, n_out, alpha, beta, ahead)
    else:
        outer_rows_double(X, order, x_stride, D, d_stride, G, g_stride, n, n_in, n_out, alpha, beta, ahead)


cdef void dense_backward_weight(const floating* X, const Py_ssize_t* order, Py_ssize_t x_stride, const floating* dZ,
                                Py_ssize_t z_stride, floating* dW, Py_ssize_t w_stride, Py_ssize_t n, Py_ssize_t n_in,
                                Py_ssize_t n_out, floating alpha, floating beta,
                                const RowsAhead* ahead) noexcept nogil:
    # dW (n_out, n_in) = alpha * dZ.T (n_out, n) @ X (n, n_in) + beta * dW
    cdef Py_ssize_t cached = CACHED_BYTES // <Py_ssize_t> (max(n, 1) * sizeof(floating))
    cdef Py_ssize_t begin = 0, columns = n_in if n_in <= cached else max(<Py_ssize_t> 64, cached // 64 * 64)
    if n_in > cached:
        ahead = NULL
    while begin < n_in:
        outer_rows(X + begin, order, x_stride, dZ, z_stride, dW + begin, w_stride, n, min(columns, n_in - begin), n_out,
                   alpha, beta, ahead)
        begin += columns


cdef void dense_backward_input(const floating* dZ, const floating* W, Py_ssize_t w_stride, floating* dX,
                               Py_ssize_t x_stride, floating* work, Py_ssize_t n, Py_ssize_t n_in,
                               Py_ssize_t n_out) noexcept nogil:
    # dX (n, n_in) = dZ (n, n_out) @ W (n_out, n_in); work has room for n * n_out numbers
    transpose(dZ, work, n, n_out)
    outer_rows(W, NULL, w_stride, work, n, dX, x_stride, n_out, n_in, n, <floating> 1.0, <floating> 0.0, NULL)


cdef void transpose(const floating* A, floating* A_out, Py_ssize_t m, Py_ssize_t n) noexcept nogil:
    # A_out (n, m) = A.T (n, m), in squares of 16 by 16 that stay in cache
    cdef Py_ssize_t i, j, i_tile, j_tile
    for j_tile in range(0, n, 16):
        for i_tile in range(0, m, 16):
            for j in range(j_tile, min(j_tile + 16, n)):
                for i in range(i_tile, min(i_tile + 16, m)):
                    A_out[j * m + i] = A[i * n + j]


def dense_affine(const floating[:, ::1] X, const floating[:, ::1] W, const floating[::1] b, floating[:, ::1] Z_out,
                 int n_threads=1):
    """Z_out (n, n_out) = X (n, n_in) @ W.T (n_in, n_out) + b (n_out,) for W (n_out, n_in)."""
    cdef Py_ssize_t n = X.shape[0], n_in = W.shape[1], n_blocks = (n + ALONE_ROWS - 1) // ALONE_ROWS, block
    if not Z_out.size:
        return
    for block in prange(n_blocks, nogil=True, num_threads=n_threads, schedule="static"):
        affine_block(&X[0, 0] if n_in else NULL, &W[0, 0] if n_in else NULL, &b[0], &Z_out[0, 0], block * ALONE_ROWS,
                     n, n_in, Z_out.shape[1])


cdef RowsAhead next_rows(const floating* X, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t n,
                         Py_ssize_t n_in) noexcept nogil:
    # The rows of X (n, n_in) from first on, to prefetch; none if fewer are left.
    return RowsAhead(<const char*> (X + first * n_in), NULL, rows if first + rows <= n else 0,
                     n_in * sizeof(floating))


cdef void affine_block(const floating* X, const floating* W, const floating* b, floating* Z, Py_ssize_t first,
                       Py_ssize_t n, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    # Z (n, n_out) = X (n, n_in) @ W.T (n_in, n_out) + b (n_out,), for at most ALONE_ROWS rows from first on
    cdef Py_ssize_t rows = min(<Py_ssize_t> ALONE_ROWS, n - first)
    cdef RowsAhead ahead = next_rows(X, first + rows, rows, n, n_in)
    dense_forward(X + first * n_in, NULL, n_in, W, n_in, b, Z + first * n_out, n_out, rows, n_in, n_out, &ahead)


def backprop_dense_input(const floating[:, ::1] dZ, const floating[:, ::1] W, floating[:, ::1] dX_out,
                         floating[::1] work):
    """dX_out (n, n_in) = dZ (n, n_out) @ W (n_out, n_in); work has room for n * n_out numbers."""
    if dX_out.size:
        with nogil:
            dense_backward_input(&dZ[0, 0] if dZ.shape[1] else NULL, &W[0, 0] if W.shape[0] else NULL, W.shape[1],
                                 &dX_out[0, 0], W.shape[1], &work[0] if work.shape[0] else NULL, dZ.shape[0],
                                 W.shape[1], W.shape[0])


cdef void weight_shard(const floating* X, const floating* dZ, floating* dW, Py_ssize_t first, Py_ssize_t end,
                       Py_ssize_t n, Py_ssize_t n_in, Py_ssize_t n_out, floating alpha, floating beta) noexcept nogil:
    # dW (n_out, n_in) = alpha * dZ.T (n_out, n) @ X (n, n_in) + beta * dW for rows first to end, a few at a time
    cdef Py_ssize_t rows
    cdef RowsAhead ahead
    while True:
        rows = min(<Py_ssize_t> GRADIENT_ROWS, end - first)
        ahead = next_rows(X, first + rows, rows, n, n_in)
        dense_backward_weight(X + first * n_in, NULL, n_in, dZ + first * n_out, n_out, dW, n_in, rows, n_in, n_out,
                              alpha, beta, &ahead)
        beta = <floating> 1.0
        first += rows
        if first >= end:
            return


def backprop_dense_weight(const floating[:, ::1] X, const floating[:, ::1] dZ, floating[:, ::1] dW_out,
                          double alpha=1.0, double beta=0.0, int n_threads=1):
    """dW_out (n_out, n_in) = alpha * dZ.T (n_out, n) @ X (n, n_in) + beta * dW_out."""
    cdef Py_ssize_t n = X.shape[0], n_in = dW_out.shape[1], n_out = dW_out.shape[0], size = n_in * n_out, i
    cdef Py_ssize_t shard, n_shards = max(<Py_ssize_t> 1, min(<Py_ssize_t> ALONE_SHARDS, n // ALONE_SHARD_ROWS))
    cdef floating* others = NULL
    if not size:
        return
    if n_shards > 1:  # the first shard's gradient is dW_out
        others = <floating*> malloc((n_shards - 1) * size * sizeof(floating))
        if others == NULL:
            raise MemoryError
    for shard in prange(n_shards, nogil=True, num_threads=min(<Py_ssize_t> n_threads, n_shards), schedule="static"):
        weight_shard(&X[0, 0] if n else NULL, &dZ[0, 0] if n else NULL,
                     &dW_out[0, 0] if shard == 0 else others + (shard - 1) * size, n * shard // n_shards,
                     n * (shard + 1) // n_shards, n, n_in, n_out, <floating> alpha,
                     <floating> (beta if shard == 0 else 0))
    with nogil:
        for shard in range(n_shards - 1):
            for i in range(size):
                (&dW_out[0, 0])[i] += others[shard * size + i]
        free(others)
