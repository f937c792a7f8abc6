"""What Theano kept under ``theano.sandbox``."""

from fastnn.symbolic.sandbox import rng_mrg

__all__ = ["rng_mrg"]
