"""Streams of MRG31k3p."""

from fastnn.symbolic.streams import MRG_RandomStreams, guess_n_streams

__all__ = ["MRG_RandomStreams", "guess_n_streams"]
