"""The older form of pooling: ``T.signal.downsample``."""

from __future__ import annotations

import warnings
from typing import Any

from fastnn.symbolic.graph import Operand, Variable
from fastnn.symbolic.tensor.signal.pool import pool_2d

__all__ = ["max_pool_2d"]


def max_pool_2d(
    input: Operand, ds: Any, ignore_border: bool | None = None, st: Any = None, padding: Any = (0, 0), mode: str = "max"
) -> Variable:
    """Pool windows of the last two dimensions, as `T.signal.pool.pool_2d` does with ws, stride and pad."""
    if ignore_border is None:
        warnings.warn("max_pool_2d without ignore_border takes it as False", UserWarning, stacklevel=2)
    return pool_2d(input, ds, bool(ignore_border), st, padding, mode)
