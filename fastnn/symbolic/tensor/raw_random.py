"""Draws from a given state: functions that return the next state and the numbers."""

from fastnn.symbolic.streams import (
    RandomStreamsBase,
    binomial,
    choice,
    multinomial,
    normal,
    permutation,
    poisson,
    random_integers,
    uniform,
)

__all__ = [
    "RandomStreamsBase",
    "binomial",
    "choice",
    "multinomial",
    "normal",
    "permutation",
    "poisson",
    "random_integers",
    "uniform",
]
