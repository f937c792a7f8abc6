"""Softmax of rows, and its logarithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastnn.kernels.softmax import inplace_backprop_softmax, inplace_log_softmax, inplace_softmax
from fastnn.symbolic.graph import (
    Op,
    Operand,
    Parts,
    Variable,
    apply,
    as_variable,
)
from fastnn.symbolic.inplace import KERNEL_DTYPES, InPlace
from fastnn.symbolic.ops.elementwise import cast
from fastnn.symbolic.ops.reductions import sum_
from fastnn.symbolic.ops.shapes import dimshuffle
from fastnn.symbolic.ops.texts import Calls, Gradients, call


class ByKernel(Op):
    """An operation that a kernel computes."""

    kernel: ClassVar[InPlace]

    takes_out = True

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        return self.kernel(*arrays, out=out)

    def calls(self, arrays: Sequence[NDArray[Any]], out: NDArray[Any]) -> Calls:
        return self.kernel.calls(arrays, out)


@dataclass(frozen=True)
class Softmax(ByKernel):
    """Softmax of each row of a matrix."""

    kernel = InPlace(inplace_softmax)

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [apply(SoftmaxSlope(), output.type, output, g)]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("softmax", inputs[0][0])


@dataclass(frozen=True)
class SoftmaxSlope(ByKernel):
    """The gradient by the input of a softmax, from its output and the gradient by the output."""

    kernel = InPlace(inplace_backprop_softmax)

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        P, slope = inputs
        own, other = (sum_(P * each, axis=1, keepdims=True) for each in (slope, g))
        return [g * (slope - own) - slope * other, apply(SoftmaxSlope(), g.type, P, g)]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("softmax_slope", *(text for text, _ in inputs))


@dataclass(frozen=True)
class LogSoftmax(ByKernel):
    """Logarithm of the softmax of each row of a matrix, finite even where the softmax underflows."""

    kernel = InPlace(inplace_log_softmax)

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [g - softmax(inputs[0]) * sum_(g, axis=1, keepdims=True)]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("log_softmax", inputs[0][0])


def _rows(x: Operand) -> Variable:
    variable = as_variable(x)
    if variable.ndim not in (1, 2):
        raise TypeError(f"softmax takes a matrix or a vector, not {variable.type}")
    if variable.type.dtype not in KERNEL_DTYPES:
        variable = cast(variable, np.float64)
    return variable if variable.ndim == 2 else dimshuffle(variable, ("x", 0))


def softmax(x: Operand) -> Variable:
    """Softmax of each row of a matrix; a vector becomes a matrix of one row."""
    variable = _rows(x)
    return apply(Softmax(), variable.type, variable)


def logsoftmax(x: Operand) -> Variable:
    """Logarithm of the softmax of each row of a matrix; a vector becomes a matrix of one row."""
    variable = _rows(x)
    return apply(LogSoftmax(), variable.type, variable)
