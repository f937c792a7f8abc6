"""Kinds of inputs: by number of dimensions, and by dtype.

A letter stands for a dtype: b, w, i and l for integers of 8, 16, 32 and 64 bits, f and d for float32 and float64;
without one it is ``config.floatX``.  Rows and columns are matrices here, because any axis of length 1 broadcasts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.symbolic.graph import Constant, Shared, Type, Variable
from fastnn.symbolic.ops import dtype_of

TensorType = Type
TensorVariable = Variable
TensorConstant = Constant
TensorSharedVariable = Shared

NDIMS = {"scalar": 0, "vector": 1, "matrix": 2, "row": 2, "col": 2, "tensor3": 3, "tensor4": 4, "tensor5": 5}
LETTERS = {"b": "int8", "w": "int16", "i": "int32", "l": "int64", "f": "float32", "d": "float64"}

all_dtypes = tuple(np.dtype(code).name for code in "?bhilBHILfd")
float_dtypes = continuous_dtypes = ("float32", "float64")
discrete_dtypes = tuple(dtype for dtype in all_dtypes if dtype not in float_dtypes)
integer_dtypes = discrete_dtypes[1:]
int_dtypes, uint_dtypes = integer_dtypes[:4], integer_dtypes[4:]


def tensor(dtype: Any, broadcastable: Any, name: str | None = None) -> Variable:
    """Return a new input; broadcastable has an item for each dimension, whose value does not matter."""
    return Type(dtype_of(dtype), broadcastable)(name)


def _kind(kind: str) -> Callable[..., Variable]:
    def new(name: str | None = None, dtype: Any = None) -> Variable:
        found = dtype_of("floatX" if dtype is None else dtype)
        if found.kind not in "biuf":
            raise TypeError(f"dtype must be one of real numbers, not {dtype!r}")
        return Type(found, NDIMS[kind])(name)

    new.__name__ = kind
    new.__doc__ = f"Return a new input of kind {kind!r}, of ``config.floatX`` by default."
    return new


def _several(kind: Callable[..., Variable], name: str) -> Callable[..., Any]:
    def new(*names: Any) -> Any:
        if names and isinstance(names[0], int):
            return [kind() for _ in range(names[0])]
        found = [kind(each) for each in (names[0] if len(names) == 1 else names)]
        return found[0] if len(found) == 1 else found

    new.__name__ = name
    new.__doc__ = f"Return new inputs, a name each, or so many: {name}('x', 'y'), {name}('xy'), {name}(2)."
    return new


def _plural(kind: str) -> str:
    return kind[:-2] + "ices" if kind.endswith("matrix") else f"{kind}s"


#: By name.
KINDS: dict[str, Any] = {kind: _kind(kind) for kind in NDIMS}
KINDS |= {letter + kind: Type(dtype, ndim) for letter, dtype in LETTERS.items() for kind, ndim in NDIMS.items()}
KINDS |= {_plural(kind): _several(make, _plural(kind)) for kind, make in KINDS.items()}
globals().update(KINDS)

__all__ = [
    "TensorConstant",
    "TensorSharedVariable",
    "TensorType",
    "TensorVariable",
    "all_dtypes",
    "continuous_dtypes",
    "discrete_dtypes",
    "float_dtypes",
    "int_dtypes",
    "integer_dtypes",
    "tensor",
    "uint_dtypes",
    *KINDS,
]
