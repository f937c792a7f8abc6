"""A choice between expressions as a whole: `ifelse`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn.symbolic import ops
from fastnn.symbolic.graph import Op, Operand, Parts, Variable, apply, as_variable


@dataclass(frozen=True)
class Choice(Op):
    """The second input if the first is not 0, else the third, each with its own shape."""

    connects = slice(1, None)

    def compute(self, *arrays: Any) -> Any:
        condition, x, y = arrays
        return np.array(x if condition else y)

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[:1]

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> list[Variable | None]:
        condition, x, y = inputs
        return [None, _chosen(condition, g, ops.zeros_like(x)), _chosen(condition, ops.zeros_like(y), g)]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return ops.call("ifelse", *(text for text, _ in inputs))


def ifelse(condition: Operand, then_branch: Any, else_branch: Any, name: str | None = None) -> Any:
    """Return the first of two expressions where a condition holds, or else the second.

    Both are computed, also the one that is not taken.

    Parameters
    ----------
    condition : scalar
        Holds if it is not 0.
    then_branch, else_branch : Variable, or lists or tuples of them
        Of the same types; their shapes may differ.
    name : str, optional
        Ignored.
    """
    several = isinstance(then_branch, (list, tuple))
    pairs = [(then_branch, else_branch)] if not several else list(zip(then_branch, else_branch, strict=True))
    test = as_variable(condition)
    if test.ndim != 0:
        raise TypeError(f"the condition of ifelse must be a scalar, not a {test.type}")
    found = []
    for x, y in pairs:
        left, right = as_variable(x), as_variable(y)
        if left.type != right.type:
            raise TypeError(f"the branches of ifelse must have one type, not {left.type} and {right.type}")
        found.append(_chosen(test, left, right))
    return found[0] if not several else type(then_branch)(found)


def _chosen(condition: Variable, x: Variable, y: Variable) -> Variable:
    return apply(Choice(), x.type, condition, x, y)
