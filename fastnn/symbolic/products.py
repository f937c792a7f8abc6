"""Products by the kernels, where these are faster than NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.threads import available_threads, forks
from fastnn.kernels import dense


def thin_product(A: NDArray[Any], B: NDArray[Any], out: NDArray[Any]) -> Callable[[], None] | None:
    """Return a function that puts A (m, k) @ B (k, n) into out (m, n) by the kernels, for small n; None if they cannot.

    A and B may be stored by rows or by columns.  The results do not depend on the number of threads.
    """
    m, n = out.shape
    same = A.dtype == B.dtype == out.dtype and out.dtype in (np.float32, np.float64)
    aligned_ = A.flags.aligned and B.flags.aligned and out.flags.aligned
    if not (same and aligned_ and A.flags.forc and B.flags.forc and out.flags.c_contiguous):
        return None
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
