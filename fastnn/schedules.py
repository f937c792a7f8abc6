"""Learning rates that change during training: each schedule is a function of time in epochs.

An optimizer takes a schedule in place of a learning rate.  A schedule has no state, so trainers can share it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_integer, check_number

Times: TypeAlias = NDArray[np.float64]


class Schedule(ABC):
    """A learning rate over time."""

    @abstractmethod
    def rates(self, times: Times, curve: Sequence[float] = ()) -> Times:
        """Return the learning rate (n_steps,) of each step.

        Parameters
        ----------
        times : (n_steps,) float64 array
            Epochs done before each step since training began: 1.5 is in the middle of the second epoch.
        curve : sequence of float
            Log-likelihood after each finished epoch, of the validation rows, or of the training rows if there are
            none.
        """


def rates_of(learning_rate: float | Schedule, times: Times, curve: Sequence[float] = ()) -> Times:
    """Return the learning rate of each step from a number or a schedule."""
    if isinstance(learning_rate, Schedule):
        return np.asarray(learning_rate.rates(times, curve), dtype=np.float64)
    return np.full(len(times), float(learning_rate))


def check_learning_rate(learning_rate: float | Schedule, name: str = "learning_rate") -> None:
    """Refuse anything but a number above 0 or a schedule."""
    if not isinstance(learning_rate, Schedule):
        check_number(learning_rate, name, 0, open_left=True)


@dataclass(frozen=True)
class Constant(Schedule):
    """A constant rate."""

    learning_rate: float

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)

    def rates(self, times: Times, curve: Sequence[float] = ()) -> Times:
        return np.full(len(times), self.learning_rate)


@dataclass(frozen=True)
class Step(Schedule):
    """``learning_rate * factor**k`` after k times `every` epochs.

    Parameters
    ----------
    learning_rate : float
        At first; above 0.
    factor : float, default 0.1
        At least 0.
    every : int, default 1
        Epochs.
    """

    learning_rate: float
    factor: float = 0.1
    every: int = 1

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        check_number(self.factor, "factor", 0)
        check_integer(self.every, "every", 1)

    def rates(self, times: Times, curve: Sequence[float] = ()) -> Times:
        return self.learning_rate * self.factor ** np.floor(times / self.every)


@dataclass(frozen=True)
class Exponential(Schedule):
    """``learning_rate * factor**t`` at time t in epochs; it changes with each step, `Step` with each epoch.

    Parameters
    ----------
    learning_rate : float
        At first; above 0.
    factor : float, default 0.9
        For one epoch; at least 0.
    """

    learning_rate: float
    factor: float = 0.9

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        check_number(self.factor, "factor", 0)

    def rates(self, times: Times, curve: Sequence[float] = ()) -> Times:
        return self.learning_rate * self.factor**times


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from `learning_rate` down to `final`, then constant [1]_.

    Parameters
    ----------
    learning_rate : float
        At first; above 0.
    epochs : float
        Duration of the way down; above 0.
    final : float, default 0.0
        At least 0.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.
    """

    learning_rate: float
    epochs: float
    final: float = 0.0

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        check_number(self.epochs, "epochs", 0, open_left=True)
        check_number(self.final, "final", 0)

    def rates(self, times: Times, curve: Sequence[float] = ()) -> Times:
        share = np.minimum(times / self.epochs, 1)
        return self.final + (self.learning_rate - self.final) * (1 + np.cos(np.pi * share)) / 2


@dataclass(frozen=True)
class LinearWarmup(Schedule):
    """A straight line from a share of the rate up to the rate, which then holds [1]_.

    Parameters
    ----------
    learning_rate : float or Schedule
        The rate to reach; a schedule runs from the start, and its rates are scaled during the way up.
    epochs : float, default 1.0
        Duration of the way up; above 0.
    start : float, default 0.0
        Share at first, from 0 to below 1.

    References
    ----------
    .. [1] P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour" (2017).
    """

    learning_rate: float | Schedule
    epochs: float = 1.0
    start: float = 0.0

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        check_number(self.epochs, "epochs", 0, open_left=True)
        check_number(self.start, "start", 0, 1)

    def rates(self, times: Times, curve: Sequence[float] = ()) -> Times:
        share = self.start + (1 - self.start) * np.minimum(times / self.epochs, 1)
        return share * rates_of(self.learning_rate, times, curve)


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """``learning_rate / (1 + t)**power`` at time t in epochs.

    Parameters
    ----------
    learning_rate : float
        At first; above 0.
    power : float, default 0.5
        At least 0.
    """

    learning_rate: float
    power: float = 0.5

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        check_number(self.power, "power", 0)

    def rates(self, times: Times, curve: Sequence[float] = ()) -> Times:
        return self.learning_rate / (1 + times) ** self.power


@dataclass(frozen=True)
class OnPlateau(Schedule):
    """A rate that falls when the log-likelihood, of the validation rows if there are any, stops rising.

    Parameters
    ----------
    learning_rate : float
        At first; above 0.
    factor : float, default 0.1
        Multiplies the rate; at least 0 and below 1.
    patience : int, default 10
        The rate falls after more than this many epochs without a rise.
    min_delta : float, default 1e-4
        A rise must be larger than this.
    """

    learning_rate: float
    factor: float = 0.1
    patience: int = 10
    min_delta: float = 1e-4

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        check_number(self.factor, "factor", 0, 1)
        check_integer(self.patience, "patience", 0)
        check_number(self.min_delta, "min_delta", 0)

    def rates(self, times: Times, curve: Sequence[float] = ()) -> Times:
        best, bad, rate = -np.inf, 0, self.learning_rate
        for value in curve:
            if value > best + self.min_delta:
                best, bad = value, 0
            else:
                bad += 1
            if bad > self.patience:
                rate, bad = rate * self.factor, 0
        return np.full(len(times), rate)
