"""Variables whose gradients are changed on their way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastnn.symbolic.graph import Op, Operand, Parts, Variable, apply, as_variable
from fastnn.symbolic.ops.elementwise import clip
from fastnn.symbolic.ops.shapes import zeros_like
from fastnn.symbolic.ops.texts import Gradients, call


@dataclass(frozen=True)
class Passing(Op):
    """The input itself; its gradient is cut off, made zero, limited to a range, or scaled.

    Parameters
    ----------
    name : {"disconnected_grad", "zero_grad", "grad_clip", "grad_scale"}
    numbers : tuple of float
        The limits, or the factor.
    """

    name: str
    numbers: tuple[float, ...] = ()

    views = True

    @property
    def connects(self) -> slice:  # type: ignore[override]
        return slice(0 if self.name == "disconnected_grad" else 1)

    def compute(self, *arrays: Any) -> Any:
        return arrays[0]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        if self.name == "grad_clip":
            return [clip(g, *self.numbers)]
        if self.name == "grad_scale":
            return [g * self.numbers[0]]
        return [None if self.name == "disconnected_grad" else zeros_like(inputs[0])]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call(self.name, inputs[0][0], *map(str, self.numbers))


def _passing(x: Operand, name: str, *numbers: float) -> Variable:
    variable = as_variable(x)
    return apply(Passing(name, numbers), variable.type, variable)


def disconnected_grad(x: Operand) -> Variable:
    """Return x, but a cost does not depend on what is behind it, as far as its gradients go."""
    return _passing(x, "disconnected_grad")


def zero_grad(x: Operand) -> Variable:
    """Return x, with gradients of 0."""
    return _passing(x, "zero_grad")


def consider_constant(x: Operand) -> Variable:
    """Return x, with gradients of 0."""
    return _passing(x, "zero_grad")


def grad_clip(x: Operand, lower_bound: float, upper_bound: float) -> Variable:
    """Return x; the elements of its gradient are limited to a range."""
    return _passing(x, "grad_clip", lower_bound, upper_bound)


def grad_scale(x: Operand, multiplier: float) -> Variable:
    """Return x; its gradient is multiplied by a number."""
    return _passing(x, "grad_scale", multiplier)
