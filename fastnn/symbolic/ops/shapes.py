"""Shapes: asking for them, and giving elements another."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastnn.symbolic.graph import (
    Op,
    Operand,
    Parts,
    Type,
    Variable,
    apply,
    as_variable,
    constant,
    length_of,
)
from fastnn.symbolic.ops.texts import ATOM, INDEX, Gradients, bracketed, call


@dataclass(frozen=True)
class Shape(Op):
    """The shape as an int64 vector."""

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        return np.array(np.shape(arrays[0]), INDEX)

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None]

    def length(self, inputs: tuple[Variable, ...]) -> int | None:
        return inputs[0].ndim

    def text(self, inputs: Parts) -> tuple[str, int]:
        return f"{bracketed(inputs[0], ATOM)}.shape", ATOM


def shape(x: Operand) -> Variable:
    """Shape of x, an int64 vector."""
    return apply(Shape(), Type(INDEX, 1), as_variable(x))


@dataclass(frozen=True)
class Count(Op):
    """Number of elements along some axes, None for all."""

    axes: tuple[int, ...] | None

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        return INDEX.type(n_elements(arrays[0], self.axes))

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("size", inputs[0][0], *(str(axis) for axis in self.axes or ()))


def n_elements(array: Any, axes: tuple[int, ...] | None) -> int:
    """Return the number of elements of an array along axes, None for all."""
    lengths = np.shape(array)
    return math.prod(lengths if axes is None else [lengths[axis] for axis in axes])


def count(x: Operand, axes: Sequence[int] | None = None) -> Variable:
    """Return the number of elements of x along axes, or of all."""
    return apply(Count(None if axes is None else tuple(axes)), Type(INDEX, 0), as_variable(x))


def shapes_told(lengths: Variable) -> frozenset[Variable] | None:
    """Return the variables whose shapes make that in a vector, or None."""
    return lengths.inputs[0].shapes if isinstance(lengths.op, Shape) else None


@dataclass(frozen=True)
class BroadcastTo(Op):
    """The first input broadcast to the shape in the second, as by `numpy.broadcast_to`."""

    views = True
    connects = slice(1)

    def compute(self, *arrays: Any) -> Any:
        array, lengths = arrays
        return np.broadcast_to(array, tuple(lengths))

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[1:]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return shapes_told(inputs[1])

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [sum_to(g, inputs[0]), None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("broadcast_to", inputs[0][0], inputs[1][0])


def broadcast_like(x: Operand, like: Variable) -> Variable:
    """Return x in the shape of another variable of at least as many dimensions."""
    return apply(BroadcastTo(), Type(as_variable(x).type.dtype, like.ndim), as_variable(x), shape(like))


def ones_like(x: Operand, dtype: DTypeLike | None = None) -> Variable:
    """Ones in the shape of x."""
    variable = as_variable(x)
    return broadcast_like(constant(1, dtype or variable.type.dtype), variable)


def zeros_like(x: Operand, dtype: DTypeLike | None = None) -> Variable:
    """Zeros in the shape of x."""
    variable = as_variable(x)
    return broadcast_like(constant(0, dtype or variable.type.dtype), variable)


@dataclass(frozen=True)
class SumTo(Op):
    """The first input summed along the axes along which it was broadcast from the shape in the second."""

    views = True
    connects = slice(1)

    def compute(self, *arrays: Any) -> Any:
        array, lengths = np.asarray(arrays[0]), tuple(arrays[1])
        if array.shape == lengths:
            return array
        return array.sum(axis=tuple(added_axes(array.shape, lengths)), keepdims=True).reshape(lengths)

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[1:]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return shapes_told(inputs[1])

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [broadcast_like(g, inputs[0]), None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("sum_to", inputs[0][0], inputs[1][0])


def added_axes(lengths: tuple[int, ...], narrow: tuple[int, ...]) -> list[int]:
    """Return the axes along which arrays of a shape are broadcast to other lengths: new ones, and those of length 1."""
    new = len(lengths) - len(narrow)
    return [*range(new), *(new + axis for axis, n in enumerate(narrow) if n == 1 != lengths[new + axis])]


def sum_to(x: Variable, like: Variable) -> Variable:
    """Return x summed to the shape of another variable, if it may have been broadcast from that."""
    if x.ndim == like.ndim == 0 or x.shapes == like.shapes:
        return x
    return apply(SumTo(), Type(x.type.dtype, like.ndim), x, shape(like))


@dataclass(frozen=True)
class Dimshuffle(Op):
    """Axes in another order; "x" is a new one, and an axis left out must have length 1."""

    pattern: tuple[int | str, ...]

    views = True

    def compute(self, *arrays: Any) -> Any:
        array = np.asarray(arrays[0])
        kept = [axis for axis in self.pattern if isinstance(axis, int)]
        if len(kept) == len(self.pattern) == array.ndim:
            return array.transpose(kept)
        dropped = [axis for axis in range(array.ndim) if axis not in kept]
        if any(array.shape[axis] != 1 for axis in dropped):
            raise ValueError(f"axes that are left out must have length 1, but these are {dropped}")
        moved = array.transpose(*kept, *dropped).reshape([array.shape[axis] for axis in kept])
        return moved[tuple(None if axis == "x" else slice(None) for axis in self.pattern)]

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        places = {axis: place for place, axis in enumerate(self.pattern) if axis != "x"}
        return [dimshuffle(g, tuple(places.get(axis, "x") for axis in range(inputs[0].ndim)))]

    def length(self, inputs: tuple[Variable, ...]) -> int | None:
        return 1 if self.pattern == ("x",) else None

    def text(self, inputs: Parts) -> tuple[str, int]:
        if self.pattern == tuple(reversed(range(len(self.pattern)))):
            return f"{bracketed(inputs[0], ATOM)}.T", ATOM
        return f"{bracketed(inputs[0], ATOM)}.dimshuffle({', '.join(map(repr, self.pattern))})", ATOM


def dimshuffle(x: Operand, pattern: Sequence[Any]) -> Variable:
    """Rearrange the axes of x; see `Variable.dimshuffle`."""
    variable = as_variable(x)
    axes = tuple("x" if axis == "x" else axis_of(axis, variable.ndim) for axis in pattern)
    kept = [axis for axis in axes if axis != "x"]
    if len(set(kept)) < len(kept):
        raise ValueError(f"the pattern of dimshuffle names an axis twice: {tuple(pattern)}")
    if axes == tuple(range(variable.ndim)):
        return variable
    return apply(Dimshuffle(axes), Type(variable.type.dtype, len(axes)), variable)


def axis_of(axis: Any, ndim: int) -> int:
    """Return the number of an axis that may count from the end."""
    number = operator.index(axis)
    if not -ndim <= number < ndim:
        raise ValueError(f"axis {axis} does not exist: there are {ndim} dimensions")
    return number % ndim


@dataclass(frozen=True)
class Stack(Op):
    """Integer scalars as an int64 vector."""

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        return np.array(arrays, INDEX)

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None] * len(inputs)

    def length(self, inputs: tuple[Variable, ...]) -> int | None:
        return len(inputs)

    def text(self, inputs: Parts) -> tuple[str, int]:
        return f"({', '.join(text for text, _ in inputs)}{',' if len(inputs) == 1 else ''})", ATOM


@dataclass(frozen=True)
class Reshape(Op):
    """The first input in the shape in the second, with at most one -1."""

    views = True
    connects = slice(1)

    def compute(self, *arrays: Any) -> Any:
        return np.reshape(arrays[0], tuple(arrays[1]))

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[1:]

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [reshape(g, shape(inputs[0]), inputs[0].ndim), None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return f"{bracketed(inputs[0], ATOM)}.reshape({inputs[1][0]})", ATOM


def integer_scalar(value: Any, what: str) -> Variable:
    """Return a variable that must be an integer scalar; messages call it what."""
    variable = as_variable(value)
    if variable.ndim != 0 or variable.type.dtype.kind not in "iu":
        raise TypeError(f"{what} must be an integer, not {variable!r} of type {variable.type}")
    return variable


def lengths_of(lengths: Sequence[Any]) -> Variable:
    """Return a shape of numbers and integer scalars as an int64 vector."""
    scalars = [integer_scalar(length, "a length of a shape") for length in lengths]
    if not any(isinstance(length, Variable) for length in lengths):
        return constant(lengths, INDEX)
    return apply(Stack(), Type(INDEX, 1), *scalars)


def reshape(x: Operand, lengths: Any, ndim: int | None = None) -> Variable:
    """Return x in a shape of numbers and integer scalars, or in the shape in a vector, with ndim dimensions."""
    variable = as_variable(x)
    if isinstance(lengths, Variable) and lengths.ndim == 1:
        if lengths.type.dtype.kind not in "iu":
            raise TypeError(f"a shape must hold integers, not {lengths.dtype}")
        ndim = length_of(lengths) if ndim is None else ndim
        if ndim is None:
            raise TypeError("reshape to a shape that a vector holds needs the number of dimensions: ndim=...")
        wanted = lengths
    else:
        lengths = tuple(lengths) if np.iterable(lengths) and not isinstance(lengths, Variable) else (lengths,)
        if ndim not in (None, len(lengths)):
            raise ValueError(f"ndim is {ndim}, but the shape has {len(lengths)} lengths")
        ndim = len(lengths)
        wanted = lengths_of(lengths)
    return apply(Reshape(), Type(variable.type.dtype, ndim), variable, wanted)


def is_sequence(value: Any) -> bool:
    """Whether a value is a sequence of numbers and scalars, or a vector, rather than one of them."""
    return value.ndim > 0 if isinstance(value, Variable) else bool(np.iterable(value))


def alloc(value: Operand, *shape: Any) -> Variable:
    """Return value, broadcast to a shape of numbers and integer scalars, or in one list or vector."""
    variable = as_variable(value)
    lengths = tuple(shape[0] if len(shape) == 1 and is_sequence(shape[0]) else shape)
    if len(lengths) < variable.ndim:
        raise TypeError(f"a {variable.type} cannot have a shape of {len(lengths)} lengths")
    return apply(BroadcastTo(), Type(variable.type.dtype, len(lengths)), variable, lengths_of(lengths))


def flatten(x: Operand, ndim: int | None = None, outdim: int | None = None) -> Variable:
    """Join the last axes of x to one, so that ndim, 1 by default, are left; outdim is its old name."""
    variable = as_variable(x)
    if ndim is not None and outdim is not None:
        raise ValueError("ndim and outdim are the same: give one of them")
    ndim = ndim or outdim or 1
    if not 1 <= ndim <= max(1, variable.ndim):
        raise ValueError(f"flatten leaves from 1 to {max(1, variable.ndim)} dimensions, not {ndim}")
    if ndim == variable.ndim:
        return variable
    # Count the last length instead of -1, which NumPy cannot resolve if another length is 0.
    return reshape(
        variable,
        [*(shape(variable)[axis] for axis in range(ndim - 1)), count(variable, range(ndim - 1, variable.ndim))],
    )
