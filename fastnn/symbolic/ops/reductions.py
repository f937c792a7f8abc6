"""Sums, means, extremes along axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.symbolic.graph import (
    Op,
    Operand,
    Parts,
    Type,
    Variable,
    apply,
    as_variable,
)
from fastnn.symbolic.inplace import KERNEL_DTYPES
from fastnn.symbolic.ops.elementwise import cast, eq, exp
from fastnn.symbolic.ops.shapes import axis_of, broadcast_like, count, dimshuffle, n_elements
from fastnn.symbolic.ops.texts import INDEX, Calls, Gradients, call


def _sum(x: Any, axis: Any, out: NDArray[Any] | None = None, keepdims: bool = False) -> Any:
    # NumPy adds short rows one by one; a product takes a fraction of the time.
    if _has_short_rows(x, axis):
        sums = np.dot(x, _ones(x.shape[1], x.dtype), None if out is None else out.reshape(-1))
        return out if out is not None else sums[:, None] if keepdims else sums
    return np.add.reduce(x, axis, out=out, keepdims=keepdims)  # type: ignore[arg-type]


def _has_short_rows(x: NDArray[Any], axis: Any) -> bool:
    fits = axis == 1 and x.ndim == 2 and 1 < x.shape[1] <= SHORT_ROW
    return fits and x.dtype in KERNEL_DTYPES and x.flags.c_contiguous


@cache
def _ones(n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.ones(n, dtype)


#: Rows up to this length are summed by a product.
SHORT_ROW = 64

UFUNCS = {"sum": np.add, "max": np.maximum, "min": np.minimum}

# NumPy's functions of these names, without their wrappers.
REDUCE: dict[str, Callable[..., Any]] = {
    "sum": _sum,
    "max": np.maximum.reduce,
    "min": np.minimum.reduce,
    "argmax": np.argmax,
}


@dataclass(frozen=True)
class Reduction(Op):
    """Sum, mean, max, min or argmax along axes.

    Parameters
    ----------
    name : str
        Of NumPy's function.
    axes : tuple of int, or None
        None for all; an argmax is then over the flattened array.
    keepdims : bool
    """

    name: str
    axes: tuple[int, ...] | None
    keepdims: bool

    takes_out = True

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        axis = self._axis
        if self.name == "mean":  # NumPy's own mean warns about empty arrays
            x = np.asarray(arrays[0])
            if axis is None and not self.keepdims:
                return np.true_divide(np.add.reduce(x, None), x.size, out=out)
            return np.true_divide(_sum(x, axis, keepdims=self.keepdims), n_elements(x, self.axes), out=out)
        return REDUCE[self.name](np.asarray(arrays[0]), axis, out=out, keepdims=self.keepdims)

    def calls(self, arrays: Sequence[NDArray[Any]], out: NDArray[Any]) -> Calls:
        if self.name == "sum" and _has_short_rows(arrays[0], self._axis):
            ones = _ones(arrays[0].shape[1], out.dtype)
            return [partial(np.dot, arrays[0], ones, out.reshape(-1))]
        if self.name in UFUNCS:
            return [partial(UFUNCS[self.name].reduce, arrays[0], self._axis, None, out, self.keepdims)]
        return super().calls(arrays, out)

    @property
    def connects(self) -> slice:  # type: ignore[override]
        return slice(0 if self.name == "argmax" else 1)

    @property
    def _axis(self) -> Any:
        return self.axes[0] if self.axes is not None and len(self.axes) == 1 else self.axes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        (x,) = inputs
        if self.name == "argmax":
            return [None]
        if self.name == "mean":
            g = g / cast(count(x, self.axes), g.type.dtype)
        if self.name in ("sum", "mean"):
            return [broadcast_like(self._expanded(g, x.ndim), x)]
        return [cast(eq(x, self._expanded(output, x.ndim)), x.type.dtype) * self._expanded(g, x.ndim)]

    def _expanded(self, reduced: Variable, ndim: int) -> Variable:
        return with_reduced_axes(reduced, ndim, self.axes, self.keepdims)

    def text(self, inputs: Parts) -> tuple[str, int]:
        axes = () if self.axes is None else self.axes
        options = [] if self.axes is None else [f"axis={axes[0] if len(axes) == 1 else axes}"]
        return call(self.name, inputs[0][0], *options, *["keepdims=True"] * self.keepdims)


def with_reduced_axes(reduced: Variable, ndim: int, axes: tuple[int, ...] | None, keepdims: bool) -> Variable:
    """Return a reduction, or its gradient, with axes of length 1 for those that it reduced."""
    if keepdims or axes is None:
        return reduced
    kept = iter(range(reduced.ndim))
    return dimshuffle(reduced, ["x" if axis in axes else next(kept) for axis in range(ndim)])


def _reduce(name: str, x: Operand, axis: Any, keepdims: bool) -> Variable:
    variable = as_variable(x)
    axes = None
    if axis is not None:
        axes = tuple(axis_of(each, variable.ndim) for each in (axis if np.iterable(axis) else [axis]))
        if len(set(axes)) < len(axes):
            raise ValueError(f"axis {axis} names an axis twice")
        if name == "argmax" and len(axes) != 1:
            raise ValueError(f"argmax takes one axis or None, not {axis}")
        if len(axes) == variable.ndim:
            axes = None
    ndim = variable.ndim if keepdims else 0 if axes is None else variable.ndim - len(axes)
    return apply(Reduction(name, axes, bool(keepdims)), Type(_reduced_dtype(name, variable.type.dtype), ndim), variable)


def _reduced_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    if name == "argmax":
        return INDEX
    if name in ("max", "min") or dtype.kind == "f":
        return dtype
    return np.dtype(np.float64 if name == "mean" else np.uint64 if dtype.kind == "u" else np.int64)


def sum_(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Sum along axes, or of everything."""
    return _reduce("sum", x, axis, keepdims)


def mean(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Mean along axes, or of everything."""
    return _reduce("mean", x, axis, keepdims)


def max_(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Maximum along axes, or of everything."""
    return _reduce("max", x, axis, keepdims)


def min_(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Minimum along axes, or of everything."""
    return _reduce("min", x, axis, keepdims)


def argmax(x: Operand, axis: int | None = None, keepdims: bool = False) -> Variable:
    """Index of the maximum, the first of several equal ones; without an axis, in the flattened x."""
    return _reduce("argmax", x, axis, keepdims)


@dataclass(frozen=True)
class LogSumExp(Op):
    """Logarithm of the sum of exponentials along axes, None for all."""

    axes: tuple[int, ...] | None
    keepdims: bool

    def compute(self, *arrays: Any) -> Any:
        x = np.asarray(arrays[0])
        top = np.max(x, self.axes, keepdims=True, initial=-np.inf)
        top[~np.isfinite(top)] = 0
        sums = np.log(np.sum(np.exp(x - top), self.axes, keepdims=True)) + top
        return sums if self.keepdims else np.squeeze(sums, self.axes)

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        (x,) = inputs
        log, slope = (with_reduced_axes(each, x.ndim, self.axes, self.keepdims) for each in (output, g))
        return [exp(x - log) * slope]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("log_sum_exp", inputs[0][0], *(f"axis={axis}" for axis in self.axes or ()))
