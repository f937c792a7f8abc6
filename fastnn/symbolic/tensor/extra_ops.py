"""Functions that Theano keeps apart, for no reason of their own: ``T.extra_ops``."""

from __future__ import annotations

from typing import Any

from fastnn.symbolic import ops
from fastnn.symbolic.graph import Constant, Operand, Variable, as_variable, constant
from fastnn.symbolic.ops import cumprod, cumsum
from fastnn.symbolic.tensor import basic

__all__ = [
    "bincount",
    "compress",
    "cumprod",
    "cumsum",
    "diff",
    "fill_diagonal",
    "repeat",
    "squeeze",
    "to_one_hot",
]


def repeat(x: Operand, repeats: Operand, axis: int | None = None) -> Variable:
    """Return x with each element repeated along an axis, or in flattened x.

    Parameters
    ----------
    x : array
    repeats : integer, or vector of integers
        How often; a vector has a number for each place along the axis.
    axis : int, optional
    """
    variable, times = as_variable(x), as_variable(repeats)
    if axis is None:
        variable, axis = ops.flatten(variable), 0
    axis = ops.axis_of(axis, variable.ndim)
    if times.ndim > 0:
        return basic.take(variable, ops.repeated(times), axis)
    lengths = list(variable.shape)
    copies = ops.alloc(basic.shape_padaxis(variable, axis + 1), *lengths[: axis + 1], times, *lengths[axis + 1 :])
    return copies.reshape([*lengths[:axis], lengths[axis] * times, *lengths[axis + 1 :]])


def squeeze(x: Operand) -> Variable:
    """Return x without the axes that have length 1 by its expression: new ones, and those that keepdims keeps."""
    variable = as_variable(x)
    return ops.dimshuffle(variable, [axis for axis, is_one in enumerate(_ones(variable)) if not is_one])


def _ones(variable: Variable) -> tuple[bool, ...]:
    # By axis: whether its length is certainly 1.
    op, ndim = variable.op, variable.ndim
    if isinstance(variable, Constant):
        return tuple(length == 1 for length in variable.value.shape)
    before = [_ones(source) for source in variable.inputs] if op is not None else []
    if isinstance(op, ops.Dimshuffle):
        return tuple(axis == "x" or before[0][int(axis)] for axis in op.pattern)
    if isinstance(op, ops.Reduction) and op.keepdims:
        return tuple(op.axes is None or axis in op.axes or before[0][axis] for axis in range(ndim))
    if isinstance(op, (ops.Elementwise, ops.Cast, ops.Passing, ops.Softmax, ops.LogSoftmax)):
        padded = [(True,) * (ndim - len(each)) + each for each in before]
        return tuple(map(all, zip(*padded, strict=True)))
    return (False,) * ndim


def compress(condition: Operand, x: Operand, axis: int | None = None) -> Variable:
    """Return the elements along an axis, or of flattened x, where the condition, a vector, is not 0."""
    return basic.take(x, basic.flatnonzero(condition), axis)


def diff(x: Operand, n: int = 1, axis: int = -1) -> Variable:
    """Differences of neighbours along an axis, n times."""
    found = as_variable(x)
    before = (slice(None),) * ops.axis_of(axis, found.ndim)
    for _ in range(n):
        found = found[(*before, slice(1, None))] - found[(*before, slice(None, -1))]
    return found


def to_one_hot(y: Operand, nb_class: Operand, dtype: Any = None) -> Variable:
    """Return a row for each class in a vector, with 1 in its column and 0 elsewhere, ``config.floatX`` by default."""
    classes = as_variable(y)
    rows = basic.zeros((classes.shape[0], nb_class), dtype)
    return ops.set_subtensor(rows[ops.arange(classes.shape[0]), classes], 1)


def bincount(x: Operand, weights: Operand | None = None, minlength: Operand | None = None) -> Variable:
    """Return how often each integer from 0 on is in a vector, or the sums of weights at its places."""
    variable = as_variable(x)
    length = ops.cast(ops.max_(variable) + 1, "int64")
    length = length if minlength is None else ops.maximum(length, minlength)
    added = constant(1, variable.type.dtype) if weights is None else as_variable(weights)
    return ops.inc_subtensor(basic.zeros([length], added.dtype)[variable], added)


def fill_diagonal(a: Operand, val: Operand) -> Variable:
    """Return a matrix with a value on its main diagonal."""
    variable = as_variable(a)
    steps = ops.arange(ops.minimum(variable.shape[0], variable.shape[1]))
    return ops.set_subtensor(variable[steps, steps], val)
