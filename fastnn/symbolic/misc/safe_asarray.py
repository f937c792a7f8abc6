"""Arrays of a dtype."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def _asarray(a: Any, dtype: Any, order: Any = None) -> NDArray[Any]:
    """Return a as an array of a dtype."""
    return np.asarray(a, dtype=dtype, order=order)
