"""Products by the kernels, where these are faster than NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.threads import available_threads, forks, kernel_run
from fastnn.kernels import affine, blas, dense

#: A product of at most this many columns is faster by the kernels than by BLAS, which packs the first matrix.
THIN_COLUMNS = 20

#: Bytes of a row of a product's result from which a layer's kernels do without BLAS.
WIDE_BYTES = 256


def kernel_product(A: NDArray[Any], B: NDArray[Any], out: NDArray[Any]) -> Callable[[], None] | None:
    """Return a function that puts A (m, k) @ B (k, n) into out (m, n) on the kernels' threads; None if it cannot.

    A and B may be stored by rows or by columns.  The results do not depend on the number of threads.
    """
    if not (A.dtype == B.dtype == out.dtype and out.dtype in (np.float32, np.float64) and out.flags.c_contiguous):
        return None
    if not all(array.flags.aligned and array.flags.forc for array in (A, B, out)):
        return None
    n_threads = available_threads() if A.size * out.shape[1] >= tuning.SMALL_RUN else 1
    if out.shape[1] <= THIN_COLUMNS:
        return _thin(A, B, out, n_threads)
    alone = _alone(A, B, out) if n_threads == 1 else None
    return _in_blocks(A, B, out, n_threads) if alone is None else alone


def _thin(A: NDArray[Any], B: NDArray[Any], out: NDArray[Any], n_threads: int) -> Callable[[], None]:
    m, n = out.shape
    if A.flags.c_contiguous:
        W, b = np.empty((n, len(B)), B.dtype), np.zeros(n, B.dtype)

        def forward() -> None:
            np.copyto(W, B.T)
            dense.dense_affine(A, W, b, out, forks.usable_threads(n_threads))

        return forward
    G = np.empty((n, m), out.dtype)

    def backward() -> None:
        dense.backprop_dense_weight(A.T, np.ascontiguousarray(B), G, 1.0, 0.0, forks.usable_threads(n_threads))
        np.copyto(out, G.T)

    return backward


def _alone(A: NDArray[Any], B: NDArray[Any], out: NDArray[Any]) -> Callable[[], None] | None:
    # On this thread, without BLAS.
    wide = out.strides[0] >= WIDE_BYTES
    if not A.flags.c_contiguous:
        fits = wide and B.flags.c_contiguous
        return partial(affine.backprop_affine_weight, A.T, B, out, 1.0, 0.0) if fits else None
    zeros = np.zeros(out.shape[1], out.dtype)
    if B.flags.c_contiguous:
        return partial(affine.affine, A, B, zeros, out) if wide else None
    return partial(dense.dense_affine, A, B.T, zeros, out, 1)


def _in_blocks(A: NDArray[Any], B: NDArray[Any], out: NDArray[Any], n_threads: int) -> Callable[[], None]:
    turned_A, turned_B = not A.flags.c_contiguous, not B.flags.c_contiguous
    stored_A, stored_B = A.T if turned_A else A, B.T if turned_B else B

    def product() -> None:
        with kernel_run:
            blas.gemm_in_threads(stored_A, stored_B, out, turned_A, turned_B, forks.usable_threads(n_threads))

    return product
