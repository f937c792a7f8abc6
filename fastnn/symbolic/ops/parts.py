"""Operations with several results: their value is a pack of these, and a `Part` takes one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.symbolic.graph import Op, Parts, Type, Variable, apply
from fastnn.symbolic.ops.texts import ATOM, Gradients, bracketed


def packed(*values: Any) -> NDArray[Any]:
    """Return values of any types as one, an array without dimensions that holds a tuple."""
    pack = np.empty((), object)
    pack[()] = values
    return pack


@dataclass(frozen=True)
class Part(Op):
    """One of several results; an operation that packs several makes an array of its own for each."""

    number: int

    def compute(self, *arrays: Any) -> Any:
        return arrays[0][()][self.number]

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        # A pack has no shape: what decides the shapes of its values decides that of a part.
        pack = inputs[0]
        return pack.op.shaping(pack.inputs) if pack.op is not None else ()

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        # The operation that packs gets all of them, by number; see `gradient.pullback`.
        return [{self.number: g}]  # type: ignore[list-item]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return f"{bracketed(inputs[0], ATOM)}[{self.number}]", ATOM


def part(pack: Variable, number: int, type_: Type) -> Variable:
    """Return one of the results of an operation that packs several."""
    return apply(Part(number), type_, pack)
