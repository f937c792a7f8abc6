"""Counting, joining, indexing."""

from __future__ import annotations

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
)
from fastnn.symbolic.ops.elementwise import promoted
from fastnn.symbolic.ops.shapes import axis_of, count, integer_scalar, shape
from fastnn.symbolic.ops.texts import ATOM, Gradients, bracketed, call


@dataclass(frozen=True)
class Arange(Op):
    """Numbers from a start to below a stop in steps."""

    dtype: np.dtype[Any]

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        return np.arange(*arrays, dtype=self.dtype)

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None, None, None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        texts = [text for text, _ in inputs]
        if texts[2] == "1":
            texts = texts[1:2] if texts[0] == "0" else texts[:2]
        return call("arange", *texts)


def arange(start: Operand, stop: Operand | None = None, step: Operand = 1, dtype: DTypeLike | None = None) -> Variable:
    """Numbers from start to below stop in steps; one number alone is the stop, and the start is 0."""
    if stop is None:
        start, stop = 0, start
    numbers = promoted(start, stop, step)
    if any(number.ndim for number in numbers):
        raise TypeError("arange takes scalars")
    found = numbers[0].type.dtype if dtype is None else np.dtype(dtype)
    if dtype is None and found.kind in "iu":
        found = np.dtype(np.int64 if found.kind == "i" else np.uint64)
    return apply(Arange(found), Type(found, 1), *numbers)


@dataclass(frozen=True)
class Join(Op):
    """Arrays joined along an axis."""

    axis: int

    def compute(self, *arrays: Any) -> Any:
        return np.concatenate(arrays, axis=self.axis)

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        found: Gradients = []
        begin: Operand = 0
        for source in inputs:
            end = begin + count(source, [self.axis])
            found.append(g[(slice(None),) * self.axis + (slice(begin, end),)])
            begin = end
        return found

    def text(self, inputs: Parts) -> tuple[str, int]:
        return f"concatenate([{', '.join(text for text, _ in inputs)}], axis={self.axis})", ATOM


def concatenate(tensors: Any, axis: int = 0) -> Variable:
    """Join arrays, of the same number of dimensions, along an axis."""
    if isinstance(tensors, Variable):
        raise TypeError("concatenate takes a sequence of variables")
    if not tensors:
        raise ValueError("concatenate needs at least one array")
    inputs = promoted(*tensors)
    ndims = {source.ndim for source in inputs}
    if len(ndims) > 1 or 0 in ndims:
        raise TypeError(f"concatenate takes arrays of equal numbers of dimensions, at least 1, not {sorted(ndims)}")
    return apply(Join(axis_of(axis, inputs[0].ndim)), inputs[0].type, *inputs)


@dataclass(frozen=True)
class Hole:
    """The place of an input in an index, by number; the array itself is not counted."""

    number: int


@dataclass(frozen=True)
class Slice:
    """A slice; parts are int, Hole or None."""

    start: Any
    stop: Any
    step: Any


@dataclass(frozen=True)
class Index(Op):
    """An array indexed as in NumPy; items are int, None, Ellipsis, Slice or Hole."""

    items: tuple[Any, ...]

    views = True
    connects = slice(1)

    def key(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Return the index with the holes filled."""
        return tuple(_filled(item, values) for item in self.items)

    def compute(self, *arrays: Any) -> Any:
        return np.asarray(arrays[0])[self.key(arrays[1:])]

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        bounds = {part for item in self.items if isinstance(item, Slice) for part in (item.start, item.stop, item.step)}
        return tuple(
            source for i, source in enumerate(inputs[1:]) if Hole(i) in bounds or source.type.dtype.kind == "b"
        )

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        x, *others = inputs
        counting = next((i for i, source in enumerate(others) if isinstance(source.op, Arange)), None)
        return [
            apply(Scatter(self.items, counting), x.type, g, shape(x), *others),
            *([None] * len(others)),
        ]

    def text(self, inputs: Parts) -> tuple[str, int]:
        names = [text for text, _ in inputs[1:]]
        return f"{bracketed(inputs[0], ATOM)}[{', '.join(_item_text(item, names) for item in self.items)}]", ATOM


def _filled(item: Any, values: Sequence[Any]) -> Any:
    if isinstance(item, Hole):
        return values[item.number]
    if isinstance(item, Slice):
        return slice(*(_filled(part, values) for part in (item.start, item.stop, item.step)))
    return item


def _item_text(item: Any, names: Sequence[str]) -> str:
    if isinstance(item, Hole):
        return names[item.number]
    if isinstance(item, Slice):
        start, stop, step = (
            "" if part is None else _item_text(part, names) for part in (item.start, item.stop, item.step)
        )
        return f"{start}:{stop}" + (f":{step}" if step else "")
    return "..." if item is Ellipsis else str(item)


@dataclass(frozen=True)
class Scatter(Op):
    """Zeros in the shape in the second input, with the first input added at an index.

    Parameters
    ----------
    items : tuple
        As those of `Index`.
    counting : int or None
        Number of the index's input that is an `Arange`, if there is one.
    """

    items: tuple[Any, ...]
    counting: int | None

    connects = slice(1)

    def compute(self, *arrays: Any) -> Any:
        values, lengths, *others = arrays
        values = np.asarray(values)
        result = np.zeros(tuple(lengths), values.dtype)
        key = Index(self.items).key(others)
        if self._takes_no_element_twice(others):
            result[key] = values
        else:
            np.add.at(result, key, values)
        return result

    def without_lost_count(self, inputs: Sequence[Variable]) -> Scatter:
        """Return the operation for new inputs, whose `Arange` may have been replaced."""
        lost = self.counting is not None and not isinstance(inputs[2 + self.counting].op, Arange)
        return Scatter(self.items, None) if lost else self

    def _takes_no_element_twice(self, others: Sequence[Any]) -> bool:
        # If that is easy to see: slices and integers, a mask, or one element of each row.
        arrays = [np.asarray(other) for other in others if np.ndim(other) > 0]
        if len(arrays) < 2 and all(array.dtype.kind == "b" for array in arrays):
            return True
        if self.counting is None or any(array.ndim > 1 for array in arrays):
            return False
        rows = others[self.counting]
        counted = len(rows) == max(map(len, arrays)) and all(array.dtype.kind != "b" for array in arrays)
        return counted and (len(rows) == 0 or min(rows[0], rows[-1]) >= 0)

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[1:2]

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        values, _, *others = inputs
        return [apply(Index(self.items), values.type, g, *others), None, *([None] * len(others))]

    def text(self, inputs: Parts) -> tuple[str, int]:
        names = [text for text, _ in inputs[2:]]
        where = ", ".join(_item_text(item, names) for item in self.items)
        return f"scatter({inputs[0][0]}, {inputs[1][0]})[{where}]", ATOM


def index(x: Operand, items: Any) -> Variable:
    """Return x indexed as in NumPy: by slices, integers, arrays of them, None, Ellipsis and masks.

    All of them may be expressions.
    """
    variable = as_variable(x)
    holes: list[Variable] = []

    def hole(value: Any) -> Any:
        source = as_variable(value)
        if source.type.dtype.kind not in "iub" or (source.ndim == 0 and source.type.dtype.kind == "b"):
            raise TypeError(f"an index must hold integers, not {source!r} of type {source.type}")
        holes.append(source)
        return Hole(len(holes) - 1)

    def bound(value: Any) -> Any:
        return value if value is None else _plain(value) if _is_plain(value) else hole(integer_scalar(value, "a bound"))

    template: list[Any] = []
    for item in items if isinstance(items, tuple) else (items,):
        if item is None or item is Ellipsis:
            template.append(item)
        elif isinstance(item, slice):
            template.append(Slice(bound(item.start), bound(item.stop), bound(item.step)))
        else:
            template.append(_plain(item) if _is_plain(item) else hole(item))
    op = Index(tuple(template))
    # Ask NumPy for the number of dimensions of the result.
    trial = np.empty((2,) * variable.ndim)
    values = [
        np.zeros((2 if source.type.dtype.kind == "b" else 1,) * source.ndim, source.type.dtype) for source in holes
    ]
    for source, value in zip(holes, values, strict=True):
        if source.ndim == 0:
            value[...] = 1
    flat = tuple(0 if isinstance(item, int) else _filled(item, values) for item in op.items)
    try:
        ndim = trial[flat].ndim
    except IndexError as error:
        raise IndexError(f"{variable.type} cannot be indexed by {items!r}: {error}") from None
    return apply(op, Type(variable.type.dtype, ndim), variable, *holes)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _plain(value: Any) -> int:
    return operator.index(value)
