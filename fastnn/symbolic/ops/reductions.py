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
from fastnn.symbolic.ops.elementwise import cast, dtype_of, eq, exp, neq, switch
from fastnn.symbolic.ops.shapes import axis_of, broadcast_like, count, dimshuffle, flatten, n_elements
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
    "argmin": np.argmin,
    "prod": np.multiply.reduce,
    "any": np.logical_or.reduce,
    "all": np.logical_and.reduce,
}

#: Their results are places, or true or false: they have no gradient.
DISCRETE = ("argmax", "argmin", "any", "all")


@dataclass(frozen=True)
class Reduction(Op):
    """Sum, mean, product, extreme, or one of `DISCRETE`, along axes.

    Parameters
    ----------
    name : str
        Of NumPy's function.
    axes : tuple of int, or None
        None for all; an argmax or argmin is then over the flattened array.
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
        return slice(0 if self.name in DISCRETE else 1)

    @property
    def _axis(self) -> Any:
        return self.axes[0] if self.axes is not None and len(self.axes) == 1 else self.axes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        (x,) = inputs
        if self.name in DISCRETE:
            return [None]
        if self.name == "prod":
            return [self._expanded(g, x.ndim) * self._product_of_others(x)]
        if self.name == "mean":
            g = g / cast(count(x, self.axes), g.type.dtype)
        if self.name in ("sum", "mean"):
            return [broadcast_like(self._expanded(g, x.ndim), x)]
        return [cast(eq(x, self._expanded(output, x.ndim)), x.type.dtype) * self._expanded(g, x.ndim)]

    def _product_of_others(self, x: Variable) -> Variable:
        # If one element is 0, only for this one it is not.
        is_zero = eq(x, 0)
        others = switch(is_zero, 1, x)
        n_zeros, product = (_reduce(name, y, self.axes, True) for name, y in (("sum", is_zero), ("prod", others)))
        return switch(n_zeros > is_zero, 0, product / others)

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
        if len(axes) == variable.ndim:
            axes = None
    if name in ("argmax", "argmin") and axes is not None and len(axes) != 1:
        kept = [axis for axis in range(variable.ndim) if axis not in axes]
        joined = flatten(dimshuffle(variable, [*kept, *sorted(axes)]), len(kept) + 1)
        found = _reduce(name, joined, len(kept), False)
        return with_reduced_axes(found, variable.ndim, axes, keepdims=False) if keepdims else found
    if name in ("any", "all") and variable.type.dtype.kind != "b":
        variable = neq(variable, 0)
    ndim = variable.ndim if keepdims else 0 if axes is None else variable.ndim - len(axes)
    return apply(Reduction(name, axes, bool(keepdims)), Type(_reduced_dtype(name, variable.type.dtype), ndim), variable)


def _reduced_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    if name in ("argmax", "argmin"):
        return INDEX
    if name in ("max", "min", "any", "all") or dtype.kind == "f":
        return dtype
    return np.dtype(np.float64 if name == "mean" else np.uint64 if dtype.kind == "u" else np.int64)


def _converted(name: str, x: Operand, axis: Any, dtype: Any, keepdims: bool, acc_dtype: Any) -> Variable:
    # A reduction that computes in acc_dtype, and has dtype.
    variable = as_variable(x)
    wanted = _reduced_dtype(name, variable.type.dtype) if dtype is None else dtype_of(dtype)
    if acc_dtype is not None or dtype is not None:
        computed = wanted if acc_dtype is None else dtype_of(acc_dtype)
        variable = cast(variable, np.promote_types(variable.type.dtype, computed))
    return cast(_reduce(name, variable, axis, keepdims), wanted)


def sum_(x: Operand, axis: Any = None, dtype: Any = None, keepdims: bool = False, acc_dtype: Any = None) -> Variable:
    """Sum along axes, or of everything, computed in acc_dtype."""
    return _converted("sum", x, axis, dtype, keepdims, acc_dtype)


def mean(
    x: Operand, axis: Any = None, dtype: Any = None, op: bool = False, keepdims: bool = False, acc_dtype: Any = None
) -> Variable:
    """Mean along axes, or of everything, computed in acc_dtype; op is ignored."""
    return _converted("mean", x, axis, dtype, keepdims, acc_dtype)


def prod(
    x: Operand,
    axis: Any = None,
    dtype: Any = None,
    keepdims: bool = False,
    acc_dtype: Any = None,
    no_zeros_in_input: bool = False,
) -> Variable:
    """Product along axes, or of everything, computed in acc_dtype; the last flag is ignored."""
    return _converted("prod", x, axis, dtype, keepdims, acc_dtype)


def max_(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Maximum along axes, or of everything."""
    return _reduce("max", x, axis, keepdims)


def min_(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Minimum along axes, or of everything."""
    return _reduce("min", x, axis, keepdims)


def argmax(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Index of the maximum, the first of several equal ones; without an axis, in the flattened x."""
    return _reduce("argmax", x, axis, keepdims)


def argmin(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Index of the minimum, the first of several equal ones; without an axis, in the flattened x."""
    return _reduce("argmin", x, axis, keepdims)


def any_(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Whether an element is not 0, along axes, or at all."""
    return _reduce("any", x, axis, keepdims)


def all_(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Whether no element is 0, along axes, or at all."""
    return _reduce("all", x, axis, keepdims)


@dataclass(frozen=True)
class Cumulative(Op):
    """Sums or products of all elements up to each along an axis; the name is of NumPy's function."""

    name: str
    axis: int

    def compute(self, *arrays: Any) -> Any:
        x = np.asarray(arrays[0])
        return getattr(np, self.name)(x, self.axis, x.dtype)

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        (x,) = inputs
        backwards = (slice(None),) * self.axis + (slice(None, None, -1),)
        over = g if self.name == "cumsum" else output * g
        found = apply(Cumulative("cumsum", self.axis), g.type, over[backwards])[backwards]
        return [found if self.name == "cumsum" else found / x]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call(self.name, inputs[0][0], f"axis={self.axis}")


def _cumulative(name: str, x: Operand, axis: int | None) -> Variable:
    variable = flatten(as_variable(x)) if axis is None else as_variable(x)
    return apply(Cumulative(name, axis_of(axis or 0, variable.ndim)), variable.type, variable)


def cumsum(x: Operand, axis: int | None = None) -> Variable:
    """Sums of all elements up to each along an axis, or of the flattened x."""
    return _cumulative("cumsum", x, axis)


def cumprod(x: Operand, axis: int | None = None) -> Variable:
    """Products of all elements up to each along an axis, or of the flattened x; NaN gradients at elements of 0."""
    return _cumulative("cumprod", x, axis)


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
