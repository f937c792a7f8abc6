"""Streams that draw NumPy's numbers."""

from fastnn.symbolic.ops import RandomStateVariable as RandomStateSharedVariable
from fastnn.symbolic.streams import RandomStreams

__all__ = ["RandomStateSharedVariable", "RandomStreams"]
