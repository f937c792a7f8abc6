"""Choice between two expressions as wholes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn.symbolic.graph import Op, Parts, Variable, apply
from fastnn.symbolic.ops.shapes import zeros_like
from fastnn.symbolic.ops.texts import Gradients, call


@dataclass(frozen=True)
class IfElse(Op):
    """The second input, or the third one if the first is 0; their shapes may differ."""

    connects = slice(1, None)

    def compute(self, *arrays: Any) -> Any:
        return np.array(arrays[1 if arrays[0] else 2])

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return () if inputs[1].shapes == inputs[2].shapes else inputs[:1]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[1].shapes if inputs[1].shapes == inputs[2].shapes else None

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        condition, then, other = inputs
        return [
            None,
            apply(self, then.type, condition, g, zeros_like(then)),
            apply(self, other.type, condition, zeros_like(other), g),
        ]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("ifelse", *(text for text, _ in inputs))
