"""Products of matrices and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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
)
from fastnn.symbolic.ops.elementwise import mul, promoted
from fastnn.symbolic.ops.shapes import axis_of, count, dimshuffle, reshape
from fastnn.symbolic.ops.texts import Calls, Gradients, call
from fastnn.symbolic.products import kernel_product


@dataclass(frozen=True)
class Dot(Op):
    """Product of matrices and vectors.

    Parameters
    ----------
    by_kernels : bool, default False
        Whether it runs on the kernels' threads instead of NumPy's.
    """

    by_kernels: bool = False

    takes_out = True

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        if self.by_kernels:
            x, y = arrays
            out = np.empty((x.shape[0], y.shape[1]), x.dtype) if out is None else out
            for each in self.calls(arrays, out):
                each()
            return out
        return np.dot(*arrays, out=out)  # type: ignore[call-overload]

    def calls(self, arrays: Sequence[NDArray[Any]], out: NDArray[Any]) -> Calls:
        by_kernels = kernel_product(*arrays, out) if self.by_kernels else None  # type: ignore[call-arg]
        if by_kernels is not None:
            return [by_kernels]
        # np.dot fills out with zeros first, but copies rows and columns with gaps for BLAS.
        function = np.matmul if all(array.flags.forc for array in arrays) else np.dot
        return [partial(function, *arrays, out=out)]

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        x, y = inputs
        if x.ndim == y.ndim == 1:
            return [g * y, g * x]
        if x.ndim == 1:
            return [dot(g, y.T), x.dimshuffle(0, "x") * g.dimshuffle("x", 0)]
        if y.ndim == 1:
            return [g.dimshuffle(0, "x") * y.dimshuffle("x", 0), dot(x.T, g)]
        return [dot(g, y.T), dot(x.T, g)]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("dot", inputs[0][0], inputs[1][0])


def dot(x: Operand, y: Operand) -> Variable:
    """Product along the last axis of x and the last but one of y, or with a scalar."""
    left, right = promoted(x, y)
    if left.ndim == 0 or right.ndim == 0:
        return mul(left, right)
    if left.ndim > 2 or right.ndim > 2:
        return tensordot(left, right, [[left.ndim - 1], [max(0, right.ndim - 2)]])
    return apply(Dot(), Type(left.type.dtype, left.ndim + right.ndim - 2), left, right)


@dataclass(frozen=True)
class BatchedDot(Op):
    """Product of each matrix of the first input with the matrix of the second at the same place."""

    takes_out = True

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        return np.matmul(*arrays, out=out)  # type: ignore[call-overload]

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        x, y = inputs
        return [apply(self, x.type, g, y.dimshuffle(0, 2, 1)), apply(self, y.type, x.dimshuffle(0, 2, 1), g)]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("batched_dot", inputs[0][0], inputs[1][0])


def batched_dot(a: Operand, b: Operand) -> Variable:
    """Product `dot` of each element of a, along its first axis, with the one of b."""
    left, right = promoted(a, b)
    if left.ndim == 0 or right.ndim == 0:
        raise TypeError("batched_dot takes arrays, not scalars")
    if left.ndim == 1 or right.ndim == 1:
        left, right = (
            x.dimshuffle(0, *"x" * (y.ndim - 1)) if x.ndim == 1 else x for x, y in ((left, right), (right, left))
        )
        return mul(left, right)
    if left.ndim > 3 or right.ndim > 3:
        return batched_tensordot(left, right, [[left.ndim - 1], [max(1, right.ndim - 2)]])
    rows = left if left.ndim == 3 else left.dimshuffle(0, "x", 1)
    columns = right if right.ndim == 3 else right.dimshuffle(0, 1, "x")
    found = apply(BatchedDot(), Type(left.type.dtype, 3), rows, columns)
    return found.dimshuffle(0, *[1] * (left.ndim == 3), *[2] * (right.ndim == 3))


def tensordot(a: Operand, b: Operand, axes: Any = 2) -> Variable:
    """Product along several axes.

    Parameters
    ----------
    a, b : array
    axes : int, or two sequences of int
        The number of axes: the last ones of a, the first ones of b; or the axes of a, and those of b.
    """
    return _along_axes(a, b, axes, 0)


def batched_tensordot(x: Operand, y: Operand, axes: Any = 2) -> Variable:
    """Product `tensordot` of each element of x, along its first axis, with the one of y; axes include the first."""
    return _along_axes(x, y, axes, 1)


def _along_axes(a: Operand, b: Operand, axes: Any, n_batch: int) -> Variable:
    # A product of matrices, or of batches of them.
    left, right = promoted(a, b)
    if not np.iterable(axes):
        axes = [range(left.ndim - axes, left.ndim), range(n_batch, n_batch + axes)]
    by_left, by_right = (
        [axis_of(axis, x.ndim) for axis in np.atleast_1d(of)] for x, of in zip((left, right), axes, strict=True)
    )
    if len(by_left) != len(by_right) or min(by_left + by_right, default=n_batch) < n_batch:
        raise ValueError(f"axes must be as many of one array as of the other, without that of batches, not {axes}")
    batch = list(range(n_batch))
    of_left = [axis for axis in range(n_batch, left.ndim) if axis not in by_left]
    of_right = [axis for axis in range(n_batch, right.ndim) if axis not in by_right]
    rows = reshape(
        dimshuffle(left, batch + of_left + by_left),
        [count(left, [axis]) for axis in batch] + [count(left, of_left), count(left, by_left)],
    )
    columns = reshape(
        dimshuffle(right, batch + by_right + of_right),
        [count(right, [axis]) for axis in batch] + [count(right, by_right), count(right, of_right)],
    )
    lengths = [count(left, [axis]) for axis in batch + of_left] + [count(right, [axis]) for axis in of_right]
    found = batched_dot(rows, columns) if n_batch else dot(rows, columns)
    return reshape(found, lengths) if lengths else found.sum()
