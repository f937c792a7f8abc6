"""Texts of expressions, and types that the operations' modules share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from fastnn.symbolic.graph import Variable

Gradients: TypeAlias = "list[Variable | None]"
Calls: TypeAlias = list[Callable[[], Any]]

# Precedence of texts.
COMPARISON, SUM, PRODUCT, SIGN, POWER, ATOM = range(6)

INDEX = np.dtype(np.int64)


def bracketed(part: tuple[str, int], level: int) -> str:
    """Return a part of a text, in brackets if its precedence is below level."""
    return part[0] if part[1] >= level else f"({part[0]})"


def call(name: str, *arguments: str) -> tuple[str, int]:
    """Return the text of a function call."""
    return f"{name}({', '.join(arguments)})", ATOM
