"""Shared variables."""

from fastnn.symbolic.graph import Shared as SharedVariable
from fastnn.symbolic.graph import shared

__all__ = ["SharedVariable", "shared"]
