"""The one module that imports SciPy's BLAS.

Everything is row-major, by the call and never inferred: BLAS is column-major, so the row-major
product C = A @ B is computed as C.T = B.T @ A.T, which swaps the operands and moves no data.
"""

from cython cimport floating
from cython.parallel cimport prange
from scipy.linalg.cython_blas cimport dgemm, sgemm

cdef extern from *:
    """
    #include <stdint.h>
    typedef FASTNN_BLAS_INT blas_int;  /* probed by setup.py */
    """
    ctypedef int blas_int

cdef extern from "tuning.h" nogil:
    enum:
        BLOCK_ROWS

# Casts, so that this compiles whichever integer SciPy's declarations use.
ctypedef void (*sgemm_t)(char*, char*, blas_int*, blas_int*, blas_int*, float*, float*, blas_int*,
                         float*, blas_int*, float*, float*, blas_int*) noexcept nogil
ctypedef void (*dgemm_t)(char*, char*, blas_int*, blas_int*, blas_int*, double*, double*, blas_int*,
                         double*, blas_int*, double*, double*, blas_int*) noexcept nogil

#: Largest dimension that BLAS's integers hold.
MAX_DIMENSION = 2 ** (8 * int(sizeof(blas_int)) - 1) - 1


cdef void gemm_(bint transpose_a, bint transpose_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
                floating alpha, const floating* A, Py_ssize_t a_stride, const floating* B, Py_ssize_t b_stride,
                floating beta, floating* C, Py_ssize_t c_stride) noexcept nogil:
    # C (m, n) = alpha * op(A) (m, k) @ op(B) (k, n) + beta * C.  A stride is the distance between two rows of the
    # stored matrix, before any transposition; a row's numbers are contiguous.
    cdef char trans_a = b"T" if transpose_a else b"N"
    cdef char trans_b = b"T" if transpose_b else b"N"
    cdef blas_int rows = <blas_int> m, columns = <blas_int> n, inner = <blas_int> k
    # BLAS requires a stride of at least 1, even if a size is 0.
    cdef blas_int lda = <blas_int> max(<Py_ssize_t> 1, a_stride)
    cdef blas_int ldb = <blas_int> max(<Py_ssize_t> 1, b_stride)
    cdef blas_int ldc = <blas_int> max(<Py_ssize_t> 1, c_stride)
    if m == 0 or n == 0:
        return
    if floating is float:
        (<sgemm_t> sgemm)(&trans_b, &trans_a, &columns, &rows, &inner, &alpha,
                          <float*> B, &ldb, <float*> A, &lda, &beta, C, &ldc)
    else:
        (<dgemm_t> dgemm)(&trans_b, &trans_a, &columns, &rows, &inner, &alpha,
                          <double*> B, &ldb, <double*> A, &lda, &beta, C, &ldc)


def gemm(const floating[:, ::1] A, const floating[:, ::1] B, floating[:, ::1] C_out,
         double alpha=1.0, double beta=0.0, bint transpose_a=False, bint transpose_b=False):
    """C_out (m, n) = alpha * op(A) (m, k) @ op(B) (k, n) + beta * C_out."""
    cdef Py_ssize_t m = C_out.shape[0], n = C_out.shape[1]
    cdef Py_ssize_t k = A.shape[0] if transpose_a else A.shape[1]
    if m == 0 or n == 0:
        return
    with nogil:
        gemm_[floating](transpose_a, transpose_b, m, n, k, <floating> alpha,
                        &A[0, 0] if k else NULL, A.shape[1], &B[0, 0] if k else NULL, B.shape[1],
                        <floating> beta, &C_out[0, 0], n)


def gemm_in_threads(const floating[:, ::1] A, const floating[:, ::1] B, floating[:, ::1] C_out,
                    bint transpose_a=False, bint transpose_b=False, int n_threads=1):
    """C_out (m, n) = op(A) (m, k) @ op(B) (k, n), a block of rows or columns a call of BLAS, which uses one thread."""
    cdef Py_ssize_t m = C_out.shape[0], n = C_out.shape[1], block, first, size
    cdef Py_ssize_t k = A.shape[0] if transpose_a else A.shape[1], length = max(m, n)
    cdef Py_ssize_t at_a_time = BLOCK_ROWS if min(m, n) >= BLOCK_ROWS else BLOCK_ROWS // 2
    cdef Py_ssize_t n_blocks = (length + at_a_time - 1) // at_a_time
    cdef bint by_rows = m >= n
    # From a row of op(A), and from a column of op(B), to the next.
    cdef Py_ssize_t step_a = 1 if transpose_a else A.shape[1], step_b = B.shape[1] if transpose_b else 1
    if m == 0 or n == 0:
        return
    if n_blocks > 1:
        n_blocks = (n_blocks + 3) // 4 * 4  # equal shares for two threads and for four
    for block in prange(n_blocks, nogil=True, num_threads=n_threads, schedule="dynamic"):
        first = length * block // n_blocks
        size = length * (block + 1) // n_blocks - first
        gemm_[floating](transpose_a, transpose_b, size if by_rows else m, n if by_rows else size, k, 1,
                        &A[0, 0] + (first * step_a if by_rows else 0) if k else NULL, A.shape[1],
                        &B[0, 0] + (0 if by_rows else first * step_b) if k else NULL, B.shape[1], 0,
                        &C_out[0, 0] + first * (n if by_rows else 1), n)


def warm_up(const floating[:, ::1] A, const floating[:, ::1] B, floating[:, :, ::1] C_out, int n_threads):
    """C_out[t] (m, n) = A (m, k) @ B (k, n) for each t, in parallel, for the effect on BLAS's buffers.

    OpenBLAS packs operands into buffers of its own, one for each call under way, and prefetches beyond what it
    has packed.  If no larger product has touched those pages before, each prefetch is a failed walk of the page
    tables: sgemm then takes up to three times as long (OpenBLAS 0.3.30, Zen).
    """
    cdef Py_ssize_t t
    for t in prange(C_out.shape[0], nogil=True, num_threads=n_threads, schedule="static", chunksize=1):
        gemm_[floating](False, False, C_out.shape[1], C_out.shape[2], A.shape[1], 1, &A[0, 0], A.shape[1],
                        &B[0, 0], B.shape[1], 0, &C_out[t, 0, 0], C_out.shape[2])
