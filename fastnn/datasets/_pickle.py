"""Pickles from strangers: NumPy arrays and containers, and nothing that could run.

A pickle names functions and calls them.  Here every name but those that rebuild a NumPy array is refused,
and those few are stood in for by classes below, so that not even NumPy's own rebuilding code runs on what
the file says.  https://docs.python.org/3/library/pickle.html#restricting-globals
"""

from __future__ import annotations

import codecs
import io
import math
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _DType:
    """Stands in for numpy.dtype: plain numbers only."""

    def __init__(self, code: Any = None, *flags: Any) -> None:
        if not isinstance(code, str) or code not in {"b1", "u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"}:
            raise pickle.UnpicklingError(f"arrays of dtype {code!r} are not read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in {"<", ">", "|", "="}:
            raise pickle.UnpicklingError("a dtype has an unknown state")
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("structured dtypes are not read")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for numpy.ndarray, which is rebuilt from shape, dtype, order and bytes."""

    array: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array has an unknown state")
        _, shape, dtype, fortran_order, content = state
        if isinstance(content, str):  # bytes of Python 2, read as Latin-1
            content = content.encode("latin-1")
        if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, _DType):
            raise pickle.UnpicklingError("an array's content is not bytes of numbers")
        if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
            raise pickle.UnpicklingError(f"an array has the shape {shape!r}")
        if math.prod(shape) * dtype.dtype.itemsize != len(content):
            raise pickle.UnpicklingError(f"an array of shape {shape} does not have {len(content)} bytes")
        flat = np.frombuffer(content, dtype.dtype)
        self.array = flat.reshape(shape, order="F" if fortran_order else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _Array:
        raise pickle.UnpicklingError("only plain arrays are read")
    return _Array()


def _encode(text: Any, encoding: Any) -> bytes:
    # How Python 3 writes bytes for readers of Python 2.
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("text in an unknown encoding")
    return codecs.encode(text, "latin1")


ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not admitted") from None

    def persistent_load(self, identifier: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside itself")


def load_arrays(content: bytes) -> Any:
    """Tuples, lists and dicts of arrays (and plain values) from a pickle of Python 2 or 3.

    Raises
    ------
    pickle.UnpicklingError, or another exception that damaged content provokes
        If the pickle names anything else, or is damaged.
    """
    return _unwrap(_Unpickler(io.BytesIO(content), encoding="latin-1").load(), depth=0)


def _unwrap(found: Any, depth: int) -> Any:
    if depth > 20:
        raise pickle.UnpicklingError("it is nested too deeply")
    if isinstance(found, _Array):
        if found.array is None:
            raise pickle.UnpicklingError("an array has no content")
        return found.array
    if isinstance(found, (tuple, list)):
        return type(found)(_unwrap(item, depth + 1) for item in found)
    if isinstance(found, dict):
        return {key: _unwrap(item, depth + 1) for key, item in found.items()}
    if found is None or isinstance(found, (bool, int, float, str, bytes)):
        return found
    raise pickle.UnpicklingError(f"it holds a {type(found).__name__}")
