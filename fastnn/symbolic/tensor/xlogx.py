"""Products with a logarithm that are 0 where the factor is: ``T.xlogx``."""

from __future__ import annotations

from fastnn.symbolic.graph import Operand, Variable
from fastnn.symbolic.ops import xlogy0

__all__ = ["xlogx", "xlogy0"]


def xlogx(x: Operand) -> Variable:
    """Return x * log(x), and 0 where x is 0."""
    return xlogy0(x, x)
