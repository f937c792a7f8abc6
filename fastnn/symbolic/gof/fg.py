"""The graph of a function."""

from __future__ import annotations

from typing import NamedTuple

from fastnn.symbolic.graph import Apply, Variable, sort


class FunctionGraph(NamedTuple):
    """Expressions of inputs, as a function computes them."""

    inputs: list[Variable]
    outputs: list[Variable]

    def toposort(self) -> list[Apply]:
        """Return the operations, each after those that it depends on."""
        return [variable.owner for variable in sort(self.outputs) if variable.owner is not None]
