"""Counting, joining, indexing."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn.symbolic.graph import (
    PACKED,
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
from fastnn.symbolic.ops.elementwise import cast, promoted
from fastnn.symbolic.ops.parts import packed, part
from fastnn.symbolic.ops.shapes import axis_of, count, dimshuffle, flatten, integer_scalar, sum_to, zeros_like
from fastnn.symbolic.ops.texts import ATOM, INDEX, Calls, Gradients, bracketed, call


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

    def length(self, inputs: tuple[Variable, ...]) -> int | None:
        lengths = [length_of(source) for source in inputs]
        return None if None in lengths else sum(length for length in lengths if length)

    def text(self, inputs: Parts) -> tuple[str, int]:
        return f"concatenate([{', '.join(text for text, _ in inputs)}], axis={self.axis})", ATOM


def join(axis: int, *tensors: Operand) -> Variable:
    """Join arrays, of the same number of dimensions, along an axis."""
    if not tensors:
        raise ValueError("there must be at least one array to join")
    inputs = promoted(*tensors)
    ndims = {source.ndim for source in inputs}
    if len(ndims) > 1 or 0 in ndims:
        raise TypeError(f"only arrays of equal numbers of dimensions, at least 1, can be joined, not {sorted(ndims)}")
    return apply(Join(axis_of(axis, inputs[0].ndim)), inputs[0].type, *inputs)


def concatenate(tensor_list: Any, axis: int = 0) -> Variable:
    """Join a sequence of arrays, of the same number of dimensions, along an axis."""
    if isinstance(tensor_list, Variable):
        raise TypeError("concatenate takes a sequence of variables")
    return join(axis, *tensor_list)


def stack(*tensors: Any, axis: int = 0) -> Variable:
    """Join a sequence of arrays of the same shape along a new axis; the arrays may also stand one by one."""
    arrays: Sequence[Any] = tensors
    if isinstance(tensors[0], (list, tuple)):
        arrays, axis = tensors[0], tensors[1] if len(tensors) > 1 else axis
    variables = [as_variable(each) for each in arrays]
    ndims = {each.ndim for each in variables}
    if len(ndims) > 1:
        raise TypeError(f"only arrays of equal numbers of dimensions can be stacked, not {sorted(ndims)}")
    place = axis_of(axis, variables[0].ndim + 1)
    pattern = [*range(place), "x", *range(place, variables[0].ndim)]
    return join(place, *(dimshuffle(each, pattern) for each in variables))


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
        put = Put(self.items, _counting(others), adds=True)
        return [apply(put, x.type, zeros_like(x), g, *others), *([None] * len(others))]

    def length(self, inputs: tuple[Variable, ...]) -> int | None:
        length = length_of(inputs[0]) if len(inputs) == 1 else None
        return None if length is None else len(np.empty(length)[self.key(())])

    def text(self, inputs: Parts) -> tuple[str, int]:
        names = [text for text, _ in inputs[1:]]
        return f"{bracketed(inputs[0], ATOM)}[{', '.join(_item_text(item, names) for item in self.items)}]", ATOM


@dataclass(frozen=True)
class Picked(Index):
    """An `Index` that has arrays of integers, so that its result is no view."""

    views = False
    takes_out = True

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        found = super().compute(*arrays)
        if out is None:
            return found
        out[...] = found
        return out

    def calls(self, arrays: Sequence[NDArray[Any]], out: NDArray[Any]) -> Calls:
        x, key = arrays[0], self.key(arrays[1:])
        return [lambda: np.copyto(out, x[key])]


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
class Put(Op):
    """The first input with the second one added at an index, or put there.

    Parameters
    ----------
    items : tuple
        As those of `Index`.
    counting : int or None
        Number of the index's input that is an `Arange`, if there is one.
    adds : bool
        Whether to add: an element that the index takes twice gets both.
    """

    items: tuple[Any, ...]
    counting: int | None
    adds: bool

    takes_out = True
    connects = slice(2)

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        base, *rest = arrays
        result = np.empty(np.shape(base), np.asarray(base).dtype) if out is None else out
        rest = [np.array(array) if np.may_share_memory(result, array) else array for array in rest]
        for each in self.calls([base, *rest], result):
            each()
        return result

    def calls(self, arrays: Sequence[NDArray[Any]], out: NDArray[Any]) -> Calls:
        base, values, *others = arrays
        if any(np.may_share_memory(out, array) for array in (values, *others)):
            return super().calls(arrays, out)
        key, rows = Index(self.items).key(others), self._counted_rows(others)
        takes_once = self._takes_each_once(others)

        def put() -> None:
            if not self.adds:
                out[key] = values
            elif takes_once or (rows is not None and (len(rows) == 0 or min(rows[0], rows[-1]) >= 0)):
                out[key] += values
            else:
                np.add.at(out, key, values)

        return [put] if out is base else [partial(np.copyto, out, base), put]

    def without_lost_count(self, inputs: Sequence[Variable]) -> Put:
        """Return the operation for new inputs, whose `Arange` may have been replaced."""
        lost = self.counting is not None and not isinstance(inputs[2 + self.counting].op, Arange)
        return Put(self.items, None, self.adds) if lost else self

    def _takes_each_once(self, others: Sequence[Any]) -> bool:
        # Whether the index has slices, integers, and a mask at most, so that it takes no element twice.
        arrays = [np.asarray(other) for other in others if np.ndim(other) > 0]
        return len(arrays) < 2 and all(array.dtype.kind == "b" for array in arrays)

    def _counted_rows(self, others: Sequence[Any]) -> Any:
        # The rows, if the index takes one element of each; then it takes none twice unless some are negative.
        if self.counting is None:
            return None
        arrays, rows = [np.asarray(other) for other in others if np.ndim(other) > 0], others[self.counting]
        counts = all(array.ndim == 1 and array.dtype.kind != "b" for array in arrays)
        return rows if counts and len(rows) == max(map(len, arrays)) else None

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        _, values, *others = inputs
        by_values = sum_to(apply(Index(self.items), self._part_type(inputs), g, *others), values)
        by_base = g if self.adds else apply(replace(self, adds=False), g.type, g, constant(0, g.type.dtype), *others)
        return [by_base, by_values, *([None] * len(others))]

    def _part_type(self, inputs: tuple[Variable, ...]) -> Type:
        base, _, *others = inputs
        return Type(base.type.dtype, _ndim_of_part(base, self.items, others))

    def text(self, inputs: Parts) -> tuple[str, int]:
        names = [text for text, _ in inputs[2:]]
        where = ", ".join(_item_text(item, names) for item in self.items)
        return call("inc_subtensor" if self.adds else "set_subtensor", f"{inputs[0][0]}[{where}]", inputs[1][0])


def _put(part: Variable, values: Operand, adds: bool) -> Variable:
    if not isinstance(part.op, Index):
        raise TypeError(f"only an indexed expression, such as x[1:3], can be changed, not {part!r}")
    base, *others = part.inputs
    new = cast(values, base.type.dtype)
    if new.ndim > part.ndim:
        raise TypeError(f"the new values must have at most {part.ndim} dimensions, not {new.ndim}")
    return apply(Put(part.op.items, _counting(others), adds), base.type, base, new, *others)


def _counting(others: Sequence[Variable]) -> int | None:
    return next((i for i, source in enumerate(others) if isinstance(source.op, Arange)), None)


def set_subtensor(x: Variable, y: Operand, inplace: bool = False, tolerate_inplace_aliasing: bool = False) -> Variable:
    """Return the array of which x is a part, such as ``a[1:3]``, with y there; the flags are ignored."""
    return _put(x, y, adds=False)


def inc_subtensor(
    x: Variable,
    y: Operand,
    inplace: bool = False,
    set_instead_of_inc: bool = False,
    tolerate_inplace_aliasing: bool = False,
) -> Variable:
    """Return the array of which x is a part, such as ``a[1:3]``, with y added there, for each time it is taken."""
    return _put(x, y, adds=not set_instead_of_inc)


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
    # As in early NumPy, a list with slices is not an index of one axis.
    several = isinstance(items, tuple) or (isinstance(items, list) and any(isinstance(item, slice) for item in items))
    for item in items if several else (items,):
        if item is None or item is Ellipsis:
            template.append(item)
        elif isinstance(item, slice):
            template.append(Slice(bound(item.start), bound(item.stop), bound(item.step)))
        else:
            template.append(_plain(item) if _is_plain(item) else hole(item))
    try:
        ndim = _ndim_of_part(variable, template, holes)
    except IndexError as error:
        raise IndexError(f"{variable.type} cannot be indexed by {items!r}: {error}") from None
    return apply(Index(tuple(template)), Type(variable.type.dtype, ndim), variable, *holes)


def _ndim_of_part(variable: Variable, items: Sequence[Any], holes: Sequence[Variable]) -> int:
    # Ask NumPy for the number of dimensions of the result.
    trial = np.empty((2,) * variable.ndim)
    values = [
        np.zeros((2 if source.type.dtype.kind == "b" else 1,) * source.ndim, source.type.dtype) for source in holes
    ]
    for source, value in zip(holes, values, strict=True):
        if source.ndim == 0:
            value[...] = 1
    return np.ndim(trial[tuple(0 if isinstance(item, int) else _filled(item, values) for item in items)])


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _plain(value: Any) -> int:
    return operator.index(value)


@dataclass(frozen=True)
class NonZero(Op):
    """Indices of the elements that are not 0, a vector for each axis, in a pack."""

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        return packed(*np.nonzero(arrays[0]))

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return f"{bracketed(inputs[0], ATOM)}.nonzero()", ATOM


def nonzero(x: Operand, return_matrix: bool = False) -> Any:
    """Indices of the elements that are not 0: a vector for each axis, or all in a matrix."""
    variable = as_variable(x)
    if variable.ndim == 0:
        raise TypeError("nonzero takes arrays, not scalars")
    pack = apply(NonZero(), PACKED, variable)
    vectors = tuple(part(pack, axis, Type(INDEX, 1)) for axis in range(variable.ndim))
    return stack(vectors) if return_matrix else vectors


@dataclass(frozen=True)
class ArgSort(Op):
    """The order in which elements along an axis are sorted, by an algorithm of NumPy."""

    axis: int
    kind: str

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        return np.argsort(arrays[0], self.axis, self.kind)  # type: ignore[arg-type]

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("argsort", inputs[0][0], f"axis={self.axis}")


def argsort(x: Operand, axis: int | None = -1, kind: str = "quicksort", order: None = None) -> Variable:
    """Indices of the elements along an axis in ascending order, or of the flattened x if the axis is None."""
    variable = as_variable(x)
    if axis is None:
        variable, axis = flatten(variable), 0
    return apply(ArgSort(axis_of(axis, variable.ndim), kind), Type(INDEX, variable.ndim), variable)


def sort(x: Operand, axis: int | None = -1, kind: str = "quicksort", order: None = None) -> Variable:
    """Elements along an axis in ascending order, or all of the flattened x if the axis is None."""
    variable = as_variable(x)
    if axis is None:
        variable, axis = flatten(variable), 0
    place = axis_of(axis, variable.ndim)
    items: list[Variable] = []
    for other in range(variable.ndim):
        places = dimshuffle(arange(count(variable, [other])), ["x"] * other + [0] + ["x"] * (variable.ndim - other - 1))
        items.append(argsort(variable, place, kind) if other == place else places)
    return index(variable, tuple(items))


@dataclass(frozen=True)
class Repeated(Op):
    """Numbers from 0 on, each as often as the input says."""

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        return np.repeat(np.arange(len(arrays[0])), arrays[0])

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("repeated", inputs[0][0])


def repeated(times: Variable) -> Variable:
    """Return numbers from 0 on, each as often as a vector says."""
    return apply(Repeated(), Type(INDEX, 1), times)


@dataclass(frozen=True)
class Unique(Op):
    """The different elements, in ascending order."""

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        return np.unique(arrays[0])

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("unique", inputs[0][0])


def unique(x: Operand) -> Variable:
    """Return the different elements of x, in ascending order."""
    variable = as_variable(x)
    return apply(Unique(), Type(variable.type.dtype, 1), variable)
