"""Functions made of other operations: arrays made and rearranged, statistics, comparisons.

Each has Theano's name and arguments, and its types; those that only programs for other processors use are left out.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from fastnn.symbolic import graph, ops
from fastnn.symbolic.configuration import config
from fastnn.symbolic.graph import Operand, Variable, as_variable

__all__ = [
    "add",
    "addbroadcast",
    "allclose",
    "as_tensor",
    "as_tensor_variable",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "ceil_intdiv",
    "constant",
    "diag",
    "diagonal",
    "divmod",
    "eye",
    "fill",
    "flatnonzero",
    "floor_div",
    "get_scalar_constant_value",
    "get_vector_length",
    "horizontal_stack",
    "identity_like",
    "iround",
    "is_flat",
    "isclose",
    "largest",
    "max_and_argmax",
    "mul",
    "nonzero_values",
    "ones",
    "outer",
    "patternbroadcast",
    "pow",
    "power",
    "ptp",
    "roll",
    "round",
    "second",
    "shape_padaxis",
    "shape_padleft",
    "shape_padright",
    "smallest",
    "specify_shape",
    "split",
    "square",
    "stacklists",
    "std",
    "swapaxes",
    "take",
    "tensor_copy",
    "tile",
    "transpose",
    "tri",
    "tril",
    "triu",
    "unbroadcast",
    "var",
    "vertical_stack",
    "where",
    "zeros",
]

where = ops.switch
pow = power = ops.power
square = ops.sqr
floor_div = ops.int_div
bitwise_and, bitwise_or, bitwise_xor, bitwise_not = ops.and_, ops.or_, ops.xor, ops.invert


# Constants, and what is made of a shape


def as_tensor_variable(x: Operand, name: str | None = None, ndim: int | None = None) -> Variable:
    """Return a variable, or a constant of another value; ndim adds axes of length 1 before its own."""
    variable = as_variable(x)
    if name is not None and variable is not x:
        variable.name = name
    if ndim is None or ndim == variable.ndim:
        return variable
    if ndim < variable.ndim:
        raise ValueError(f"ndim is {ndim}, but {variable!r} has {variable.ndim} dimensions")
    return shape_padleft(variable, ndim - variable.ndim)


as_tensor = as_tensor_variable


def constant(x: Any, name: str | None = None, ndim: int | None = None, dtype: Any = None) -> Variable:
    """Return a constant; without a dtype an integer gets the least that holds it, a float ``config.floatX`` or less."""
    if isinstance(x, Variable):
        raise TypeError(f"constant takes a value, not the expression {x!r}")
    found = graph.constant(x, config.floatX if dtype == "floatX" else dtype)
    found.name = name
    return found if ndim is None else as_tensor_variable(found, ndim=ndim)


def zeros(shape: Any, dtype: Any = None) -> Variable:
    """Zeros in a shape of numbers and integer scalars, of ``config.floatX`` by default."""
    return _filled(0, shape, dtype)


def ones(shape: Any, dtype: Any = None) -> Variable:
    """Ones in a shape of numbers and integer scalars, of ``config.floatX`` by default."""
    return _filled(1, shape, dtype)


def _filled(number: int, shape: Any, dtype: Any) -> Variable:
    lengths = shape if ops.is_sequence(shape) else [shape]
    return ops.alloc(graph.constant(number, ops.dtype_of("floatX" if dtype is None else dtype)), *lengths)


def fill(a: Operand, b: Operand) -> Variable:
    """Return b in the shape of a."""
    shape, value = as_variable(a), as_variable(b)
    if value.ndim > shape.ndim:
        return value + ops.zeros_like(shape, value.type.dtype)
    return ops.broadcast_like(value, shape)


second = fill


def tri(N: Operand, M: Operand | None = None, k: Operand = 0, dtype: Any = None) -> Variable:
    """Ones on and below a diagonal, k above the main one, zeros above it, of ``config.floatX`` by default."""
    return _compared(ops.ge, N, M, k, dtype)


def eye(n: Operand, m: Operand | None = None, k: Operand = 0, dtype: Any = None) -> Variable:
    """Ones on a diagonal, k above the main one, zeros elsewhere, of ``config.floatX`` by default."""
    return _compared(ops.eq, n, m, k, dtype)


def _compared(compare: Callable[..., Variable], n: Operand, m: Operand | None, k: Operand, dtype: Any) -> Variable:
    rows, columns = ops.arange(n), ops.arange(n if m is None else m)
    return ops.cast(compare(rows.dimshuffle(0, "x") + k, columns), "floatX" if dtype is None else dtype)


def identity_like(x: Variable) -> Variable:
    """Ones on the main diagonal, zeros elsewhere, in the shape and dtype of a matrix."""
    return eye(x.shape[0], x.shape[1], dtype=x.dtype)


def tril(m: Variable, k: Operand = 0) -> Variable:
    """Return a matrix with zeros above a diagonal."""
    return m * tri(m.shape[0], m.shape[1], k, m.dtype)


def triu(m: Variable, k: Operand = 0) -> Variable:
    """Return a matrix with zeros below a diagonal."""
    return m * (1 - tri(m.shape[0], m.shape[1], as_variable(k) - 1, m.dtype))


# The same elements in another shape or order


def transpose(x: Operand, axes: Sequence[int] | None = None) -> Variable:
    """Return x with its axes in another order, by default the reverse."""
    variable = as_variable(x)
    return ops.dimshuffle(variable, range(variable.ndim)[::-1] if axes is None else axes)


def swapaxes(y: Operand, axis1: int, axis2: int) -> Variable:
    """Return y with two axes exchanged."""
    order = list(range(as_variable(y).ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return ops.dimshuffle(y, order)


def shape_padleft(t: Operand, n_ones: int = 1) -> Variable:
    """Return t with new axes of length 1 before its own."""
    variable = as_variable(t)
    return ops.dimshuffle(variable, ["x"] * n_ones + list(range(variable.ndim)))


def shape_padright(t: Operand, n_ones: int = 1) -> Variable:
    """Return t with new axes of length 1 after its own."""
    variable = as_variable(t)
    return ops.dimshuffle(variable, list(range(variable.ndim)) + ["x"] * n_ones)


def shape_padaxis(t: Operand, axis: int) -> Variable:
    """Return t with a new axis of length 1, which has this number."""
    variable = as_variable(t)
    place = ops.axis_of(axis, variable.ndim + 1)
    return ops.dimshuffle(variable, [*range(place), "x", *range(place, variable.ndim)])


def addbroadcast(x: Operand, *axes: int) -> Variable:
    """Return x itself: an axis of length 1 always broadcasts."""
    return as_variable(x)


unbroadcast = addbroadcast


def patternbroadcast(x: Operand, broadcastable: Any) -> Variable:
    """Return x itself: an axis of length 1 always broadcasts."""
    return as_variable(x)


def specify_shape(x: Operand, shape: Any) -> Variable:
    """Return x itself: nothing checks its shape."""
    return as_variable(x)


def tensor_copy(x: Operand) -> Variable:
    """Return x itself: values that a program sees are copies."""
    return as_variable(x)


def copy(x: Operand, name: str | None = None) -> Variable:
    """Return x itself: values that a program sees are copies."""
    return as_variable(x)


def is_flat(var: Variable, ndim: int | None = None, outdim: int | None = None) -> bool:
    """Whether an expression has so many dimensions, 1 by default."""
    return var.ndim == (ndim or outdim or 1)


def stacklists(arg: Any) -> Any:
    """Return nested lists of variables as one, with an axis for each level."""
    return ops.stack([stacklists(each) for each in arg]) if isinstance(arg, (list, tuple)) else arg


def horizontal_stack(*args: Operand) -> Variable:
    """Join matrices side by side."""
    return ops.join(1, *args)


def vertical_stack(*args: Operand) -> Variable:
    """Join matrices one below the other."""
    return ops.join(0, *args)


def split(x: Operand, splits_size: Any, n_splits: int, axis: int = 0) -> list[Variable]:
    """Return the parts of x along an axis, whose lengths are in a list or vector of n_splits numbers."""
    variable = as_variable(x)
    before = (slice(None),) * ops.axis_of(axis, variable.ndim)
    parts, begin = [], as_variable(0)
    for i in range(n_splits):
        end = begin + splits_size[i]
        parts.append(variable[(*before, slice(begin, end))])
        begin = end
    return parts[0] if n_splits == 1 else parts  # type: ignore[return-value]  # as in Theano


def roll(x: Operand, shift: Operand, axis: int | None = None) -> Variable:
    """Return x with its elements moved along an axis, the last ones to the front; without an axis, in flattened x."""
    variable = as_variable(x)
    if axis is None:
        return roll(ops.flatten(variable), shift, 0).reshape(variable.shape)
    before = (slice(None),) * ops.axis_of(axis, variable.ndim)
    length = ops.count(variable, [len(before)])
    middle = length - as_variable(shift) % ops.switch(ops.eq(length, 0), 1, length)
    return ops.join(len(before), variable[(*before, slice(middle, None))], variable[(*before, slice(None, middle))])


def tile(x: Operand, reps: Any, ndim: int | None = None) -> Variable:
    """Return copies of x side by side: so many along each axis; ndim adds axes before its own."""
    variable = as_variable(x)
    wanted = list(reps) if ops.is_sequence(reps) else [reps]
    n = max(variable.ndim, len(wanted)) if ndim is None else ndim
    if n < max(variable.ndim, len(wanted)):
        raise ValueError(
            f"ndim is {ndim}, but there are {variable.ndim} dimensions and {len(wanted)} numbers of copies"
        )
    wanted = [1] * (n - len(wanted)) + wanted
    lengths = [1] * (n - variable.ndim) + list(variable.shape)
    found = ops.alloc(variable, *wanted, *lengths).dimshuffle(*(axis for i in range(n) for axis in (i, n + i)))
    return found.reshape([times * length for times, length in zip(wanted, lengths, strict=True)])


# Parts of arrays


def take(a: Operand, indices: Operand, axis: int | None = None, mode: str = "raise") -> Variable:
    """Return elements of a along an axis, or of flattened a; mode "clip" or "wrap" allows for indices beyond it."""
    variable, places = as_variable(a), as_variable(indices)
    if axis is None:
        variable, axis = ops.flatten(variable), 0
    axis = ops.axis_of(axis, variable.ndim)
    length = ops.count(variable, [axis])
    if mode != "raise":
        places = ops.clip(places, 0, length - 1) if mode == "clip" else places % length
    return variable[(slice(None),) * axis + (places,)]


def diagonal(a: Operand, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Variable:
    """Return the elements on a diagonal, offset above the main one, along a new last axis."""
    variable = as_variable(a)
    first, other = (ops.axis_of(axis, variable.ndim) for axis in (axis1, axis2))
    moved = ops.dimshuffle(
        variable, [*(axis for axis in range(variable.ndim) if axis not in (first, other)), first, other]
    )
    down, right = max(0, -offset), max(0, offset)
    rows, columns = (ops.count(variable, [axis]) for axis in (first, other))
    steps = ops.arange(ops.maximum(0, ops.minimum(rows - down, columns - right)))
    return moved[(..., steps + down, steps + right)]


def diag(v: Operand, k: int = 0) -> Variable:
    """Return a matrix with a vector on a diagonal, k above the main one, or the diagonal of anything else."""
    variable = as_variable(v)
    if variable.ndim != 1:
        return diagonal(variable, k)
    steps = ops.arange(variable.shape[0])
    n = variable.shape[0] + abs(k)
    return ops.set_subtensor(zeros((n, n), variable.dtype)[steps + max(0, -k), steps + max(0, k)], variable)


def flatnonzero(a: Operand) -> Variable:
    """Indices of the elements of flattened a that are not 0."""
    return ops.nonzero(ops.flatten(a))[0]  # type: ignore[no-any-return]


def nonzero_values(a: Operand) -> Variable:
    """Return the elements that are not 0, in a vector."""
    return ops.flatten(a)[flatnonzero(a)]


# Statistics


def var(x: Operand, axis: Any = None, ddof: int = 0, keepdims: bool = False, corrected: bool = False) -> Variable:
    """Variance along axes, or of everything.

    Parameters
    ----------
    x : array
    axis : int or sequence of int, optional
    ddof : int
        The sum of squares is divided by the product of the lengths, each minus ddof.
    keepdims : bool
    corrected : bool
        Whether to subtract the square of the mean of the deviations, which is 0 but for rounding.
    """
    variable = as_variable(x)
    if isinstance(ddof, bool):
        raise TypeError("ddof must be an integer; keepdims comes after it")
    axes = range(variable.ndim) if axis is None else [ops.axis_of(each, variable.ndim) for each in np.atleast_1d(axis)]
    centred = variable - ops.mean(variable, axes, keepdims=True)
    if ddof == 0:
        found = ops.mean(ops.sqr(centred), axes, keepdims=keepdims)
        return found - ops.sqr(ops.mean(centred, axes, keepdims=keepdims)) if corrected else found
    found = ops.sum_(ops.sqr(centred), axes, keepdims=keepdims)
    error = ops.sqr(ops.sum_(centred, axes, keepdims=keepdims))
    for axis in axes:
        length = ops.count(variable, [axis])
        found, error = found / (length - ddof), error / ((length - ddof) * length)
    return found - error if corrected else found


def std(x: Operand, axis: Any = None, ddof: int = 0, keepdims: bool = False, corrected: bool = False) -> Variable:
    """Standard deviation along axes, or of everything, see `var`."""
    return ops.sqrt(var(x, axis, ddof, keepdims, corrected))


def ptp(a: Operand, axis: Any = None) -> Variable:
    """Difference of maximum and minimum along axes, or of everything."""
    return ops.max_(a, axis) - ops.min_(a, axis)


def max_and_argmax(a: Operand, axis: Any = None, keepdims: bool = False) -> list[Variable]:
    """Return the maximum along axes, or of everything, and its index."""
    return [ops.max_(a, axis, keepdims), ops.argmax(a, axis, keepdims)]


def largest(*args: Operand) -> Variable:
    """Largest of several arrays at each place."""
    return ops.switch(ops.gt(*args), *args) if len(args) == 2 else ops.max_(ops.stack(args), axis=0)


def smallest(*args: Operand) -> Variable:
    """Smallest of several arrays at each place."""
    return ops.switch(ops.lt(*args), *args) if len(args) == 2 else ops.min_(ops.stack(args), axis=0)


# Numbers


def round(a: Operand, mode: str | None = None) -> Variable:
    """Nearest integers; of two that are as near the even one, or with mode "half_away_from_zero" the larger one."""
    if mode not in (None, "half_to_even", "half_away_from_zero"):
        raise ValueError(f"mode must be 'half_to_even' or 'half_away_from_zero', not {mode!r}")
    return ops.round_half_away_from_zero(a) if mode == "half_away_from_zero" else ops.round_half_to_even(a)


def iround(a: Operand, mode: str | None = None) -> Variable:
    """Nearest integers as int64."""
    return ops.cast(round(a, mode), np.int64)


def add(a: Operand, *others: Operand) -> Variable:
    """Sum of several arrays."""
    return reduce(ops.add, others, as_variable(a))


def mul(a: Operand, *others: Operand) -> Variable:
    """Product of several arrays."""
    return reduce(ops.mul, others, as_variable(a))


def divmod(x: Operand, y: Operand) -> tuple[Variable, Variable]:
    """Return the rounded down quotient, and the remainder."""
    return ops.int_div(x, y), ops.mod(x, y)


def ceil_intdiv(a: Operand, b: Operand) -> Variable:
    """Quotient rounded up."""
    quotient = ops.int_div(a, b)
    return ops.cast(ops.neq(ops.mod(a, b), 0), quotient.type.dtype) + quotient


def outer(x: Operand, y: Operand) -> Variable:
    """Products of each element of flattened x with each of flattened y."""
    return ops.dot(ops.flatten(x).dimshuffle(0, "x"), ops.flatten(y).dimshuffle("x", 0))


def isclose(a: Operand, b: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Variable:
    """Whether elements differ by at most atol plus rtol times the other; infinite ones must be equal."""
    left, right = as_variable(a), as_variable(b)
    near = ops.le(abs(left - right), atol + rtol * abs(right))
    special = reduce(operator.or_, [check(x) for check in (ops.isnan, ops.isinf) for x in (left, right)])
    found = (near & ~special) | (ops.isinf(left) & ops.eq(left, right))
    return found | (ops.isnan(left) & ops.isnan(right)) if equal_nan else found


def allclose(a: Operand, b: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Variable:
    """Whether all elements are close, see `isclose`."""
    return ops.all_(isclose(a, b, rtol, atol, equal_nan))


# What an expression tells before it is computed


def get_vector_length(v: Operand) -> int:
    """Return the number of elements of a vector, or raise ValueError if its expression does not tell."""
    length = graph.length_of(as_variable(v))
    if length is None:
        raise ValueError(f"the length of {v!r} is not known before it is computed")
    return length


def get_scalar_constant_value(v: Operand) -> Any:
    """Return the value of an expression without inputs and shared variables, or raise ValueError."""
    variable = as_variable(v)
    if any(leaf.op is None and not isinstance(leaf, graph.Constant) for leaf in graph.sort([variable])):
        raise ValueError(f"{v!r} is not a constant")
    return graph.operations["eval"](variable, {})


def norm(x: Variable, L: Any, axis: Any = None, keepdims: bool = False) -> Variable:
    """Return the L-norm along axes, or of everything."""
    return ops.power(ops.sum_(abs(x) ** L, axis, keepdims=keepdims), 1.0 / L)
