"""What programs may set: ``theano.config``."""

from __future__ import annotations

import numpy as np

from fastnn._validation import check_choice, check_dtype

MODES = ("FAST_RUN", "FAST_COMPILE")


class Configuration:
    """Settings for everything that is made afterwards.

    Attributes
    ----------
    floatX : {"float64", "float32"}
        dtype of ``T.scalar``, ``T.vector``, ``T.matrix``, and of ``T.cast(x, "floatX")``.
    mode : {"FAST_RUN", "FAST_COMPILE"}
        Whether `function` looks for a network that the engine can train, or runs everything operation by operation.
    """

    def __init__(self) -> None:
        self._float = "float64"
        self._mode = "FAST_RUN"

    @property
    def floatX(self) -> str:
        """Name of a floating dtype."""
        return self._float

    @floatX.setter
    def floatX(self, dtype: str) -> None:
        self._float = np.dtype(check_dtype(dtype)).name

    @property
    def mode(self) -> str:
        """Name of a mode."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._mode = check_choice(mode, "mode", MODES)


config = Configuration()
