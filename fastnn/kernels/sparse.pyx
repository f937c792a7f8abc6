"""The first layer on sparse rows (CSR): only the non-zeros are touched.

Forward, each non-zero adds a multiple of one row of W to one row of Z; backward, it adds a multiple of
one row of dZ to one row of dW.
"""

from cython cimport floating
from libc.stdint cimport int32_t, int64_t

from .affine cimport fill_rows
from .rows cimport RowStore, open_rows


cdef inline void axpy(floating alpha, const floating* x, floating* y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        y[j] += alpha * x[j]


cdef void sparse_forward(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                         const floating* W, Py_ssize_t w_stride, const floating* b, floating* Z, Py_ssize_t z_stride,
                         Py_ssize_t n_out) noexcept nogil:
    # Z (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b (n_out,), X the n rows at position first of the order
    cdef Py_ssize_t i, row
    cdef int64_t at
    cdef const floating* values = <const floating*> store.values
    fill_rows(b, Z, z_stride, n, n_out)
    for i in range(n):
        row = order[first + i] if order != NULL else first + i
        for at in range(store.row_starts[row], store.row_starts[row + 1]):
            axpy(values[at], W + store.columns[at] * w_stride, Z + i * z_stride, n_out)


cdef void sparse_backward_weight(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                                 const floating* dZ, Py_ssize_t z_stride, floating* dW, Py_ssize_t w_stride,
                                 Py_ssize_t n_out,
                                 floating alpha, floating beta) noexcept nogil:
    # dW (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW
    cdef Py_ssize_t i, j, row
    cdef int64_t at
    cdef const floating* values = <const floating*> store.values
    if beta != 1:
        for i in range(store.n_columns):
            for j in range(n_out):
                dW[i * w_stride + j] = beta * dW[i * w_stride + j] if beta != 0 else <floating> 0.0
    for i in range(n):
        row = order[first + i] if order != NULL else first + i
        for at in range(store.row_starts[row], store.row_starts[row + 1]):
            axpy(alpha * values[at], dZ + i * z_stride, dW + store.columns[at] * w_stride, n_out)


def sparse_affine(X, const floating[:, ::1] W, const floating[::1] b, floating[:, ::1] Z_out):
    """Z_out (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b (n_out,) for sparse X (CSRRows)."""
    cdef RowStore store = open_rows(X)
    if Z_out.size:
        with nogil:
            sparse_forward(&store, NULL, 0, store.n_rows, &W[0, 0] if W.shape[0] else NULL, W.shape[1], &b[0],
                           &Z_out[0, 0], W.shape[1], W.shape[1])


def backprop_sparse_weight(X, const floating[:, ::1] dZ, floating[:, ::1] dW_out, double alpha=1.0, double beta=0.0):
    """dW_out (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW_out for sparse X (CSRRows)."""
    cdef RowStore store = open_rows(X)
    if dW_out.size:
        with nogil:
            sparse_backward_weight(&store, NULL, 0, store.n_rows, &dZ[0, 0] if dZ.shape[0] else NULL,
                                   dZ.shape[1], &dW_out[0, 0], dW_out.shape[1], dW_out.shape[1], <floating> alpha,
                                   <floating> beta)


def count_nonzeros(const floating[:, ::1] X, int64_t[::1] indptr_out):
    """indptr_out (n + 1,) = where each row of the CSR of X (n, n_in) starts; its last entry is the count."""
    cdef Py_ssize_t i, j, n_columns = X.shape[1]
    cdef int64_t count = 0, in_row
    cdef const floating* row
    indptr_out[0] = 0
    with nogil:
        for i in range(X.shape[0]):
            in_row = 0
            if n_columns:
                row = &X[i, 0]
                for j in range(n_columns):
                    in_row += row[j] != 0
            count += in_row
            indptr_out[i + 1] = count


def fill_nonzeros(const floating[:, ::1] X, floating[::1] data_out, int32_t[::1] indices_out):
    """data_out (nnz,), indices_out (nnz,) = the non-zeros of X (n, n_in), row by row, and their columns."""
    cdef Py_ssize_t i, j
    cdef int64_t at = 0
    with nogil:
        for i in range(X.shape[0]):
            for j in range(X.shape[1]):
                if X[i, j] != 0:
                    data_out[at] = X[i, j]
                    indices_out[at] = <int32_t> j
                    at += 1
