"""Functions made of kernels that overwrite an array."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

KERNEL_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class InPlace:
    """A kernel as a function of arrays of one shape and floating dtype, with ``out``.

    Parameters
    ----------
    kernel : callable
        Overwrites its last argument and reads the others, all of them C-contiguous matrices of one float dtype.
    """

    def __init__(self, kernel: Callable[..., None]) -> None:
        self._kernel = kernel

    def __call__(self, *arrays: Any, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the result, in ``out`` if given."""
        x = np.asarray(arrays[-1])
        if x.dtype not in KERNEL_DTYPES:
            result = self(*(np.asarray(array, np.float32) for array in arrays)).astype(x.dtype)
            return result if out is None else np.positive(result, out=out)
        if out is None:
            out = np.empty(x.shape, x.dtype)
        read = [np.require(array, out.dtype, ["C", "A"]) for array in arrays[:-1]]
        for call in self.calls([*read, x], out):
            call()
        return out

    def calls(self, arrays: Sequence[NDArray[Any]], out: NDArray[Any]) -> list[Callable[[], Any]]:
        """Return calls that, in order, compute the result from the arrays and write it into out."""
        *read, x = arrays
        fitting = out.dtype in KERNEL_DTYPES and all(
            a.flags.c_contiguous and a.flags.aligned and a.dtype == out.dtype for a in (*read, out)
        )
        if not fitting or any(np.may_share_memory(out, array) for array in read):
            return [lambda: np.copyto(out, self(*arrays), "unsafe")]
        shape = -1, out.shape[-1] if out.ndim and out.size else 1
        calls: list[Callable[[], Any]] = [] if x is out else [partial(np.copyto, out, x, "unsafe")]
        if out.size:
            calls.append(partial(self._kernel, *(array.reshape(shape) for array in (*read, out))))
        return calls
