"""Types of numbers: ``theano.scalar``."""

from __future__ import annotations

import numpy as np


def upcast(dtype: str, *dtypes: str) -> str:
    """Return the name of the dtype that holds all values of others."""
    return np.result_type(*map(np.dtype, (dtype, *dtypes))).name
