"""Products by the kernels, where these are faster than NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.threads import available_threads, forks
from fastnn.kernels import affine, dense

#: BLAS starts threads for a product of about this many multiply-adds.
THREADED_PRODUCT = 250_000

#: If the second matrix has at most this many columns, BLAS packs the first one, which takes longer than the product.
THIN_COLUMNS = 20

#: Bytes of a row of the result from which a layer's kernels do without BLAS.
WIDE_BYTES = 256


def product_by_kernels(A: NDArray[Any], B: NDArray[Any], out: NDArray[Any]) -> Callable[[], None] | None:
    """Return a function that puts A (m, k) @ B (k, n) into out (m, n) by the kernels; None if they cannot.

    A and B may be stored by rows or by columns.  The results do not depend on the number of threads.
    """
    same = A.dtype == B.dtype == out.dtype and out.dtype in (np.float32, np.float64)
    aligned_ = A.flags.aligned and B.flags.aligned and out.flags.aligned
    if not (same and aligned_ and A.flags.forc and B.flags.forc and out.flags.c_contiguous):
        return None
    return _thin_product(A, B, out) if out.shape[1] <= THIN_COLUMNS else _small_product(A, B, out)


def _small_product(A: NDArray[Any], B: NDArray[Any], out: NDArray[Any]) -> Callable[[], None] | None:
    # On one thread.
    if not A.flags.c_contiguous:
        wide = B.flags.c_contiguous and out.strides[0] >= WIDE_BYTES
        return partial(affine.backprop_affine_weight, A.T, B, out, 1.0, 0.0) if wide else None
    zeros = np.zeros(out.shape[1], out.dtype)
    if B.flags.c_contiguous:
        return partial(affine.affine, A, B, zeros, out) if out.strides[0] >= WIDE_BYTES else None
    return partial(dense.dense_affine, A, B.T, zeros, out, 1)


def _thin_product(A: NDArray[Any], B: NDArray[Any], out: NDArray[Any]) -> Callable[[], None]:
    m, n = out.shape
    n_threads = available_threads() if A.size * n >= tuning.SMALL_RUN else 1
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
