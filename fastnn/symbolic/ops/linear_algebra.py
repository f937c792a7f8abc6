"""Inverses and determinants of matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn.symbolic.graph import Op, Operand, Parts, Type, Variable, apply, as_variable
from fastnn.symbolic.ops.dots import dot
from fastnn.symbolic.ops.elementwise import cast, floating
from fastnn.symbolic.ops.texts import Gradients, call


@dataclass(frozen=True)
class Inverse(Op):
    """The inverse of a square matrix."""

    def compute(self, *arrays: Any) -> Any:
        return np.linalg.inv(arrays[0])

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [-dot(dot(output.T, g), output.T)]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("matrix_inverse", inputs[0][0])


@dataclass(frozen=True)
class Determinant(Op):
    """The determinant of a square matrix."""

    def compute(self, *arrays: Any) -> Any:
        return np.linalg.det(arrays[0])

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [g * output * apply(Inverse(), inputs[0].type, inputs[0]).T]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("det", inputs[0][0])


def _square(x: Operand) -> Variable:
    variable = as_variable(x)
    if variable.ndim != 2:
        raise TypeError(f"this takes a matrix, not {variable.type}")
    return cast(variable, floating(variable.type.dtype))


def matrix_inverse(x: Operand) -> Variable:
    """Return the inverse of a square matrix; the call raises ValueError if there is none."""
    matrix = _square(x)
    return apply(Inverse(), matrix.type, matrix)


def det(x: Operand) -> Variable:
    """Determinant of a square matrix."""
    matrix = _square(x)
    return apply(Determinant(), Type(matrix.type.dtype, 0), matrix)
