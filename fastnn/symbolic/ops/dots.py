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
from fastnn.symbolic.ops.texts import Calls, Gradients, call
from fastnn.symbolic.products import product_by_kernels


@dataclass(frozen=True)
class Dot(Op):
    """Product of matrices and vectors.

    Parameters
    ----------
    by_kernels : bool, default False
        Whether the kernels compute it instead of BLAS, if they can.
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
        by_kernels = product_by_kernels(*arrays, out) if self.by_kernels else None  # type: ignore[call-arg]
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
    """Product of two matrices or vectors, or of anything with a scalar."""
    left, right = promoted(x, y)
    if left.ndim == 0 or right.ndim == 0:
        return mul(left, right)
    if left.ndim > 2 or right.ndim > 2:
        raise TypeError(f"dot takes vectors and matrices, not {left.type} and {right.type}")
    return apply(Dot(), Type(left.type.dtype, left.ndim + right.ndim - 2), left, right)
