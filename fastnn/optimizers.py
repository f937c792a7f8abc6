"""Optimizers: what they are called, their hyper-parameters and what they remember.

The update loops themselves are in ``fastnn.kernels.updates``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_choice, check_number


class Optimizer(ABC):
    """What the trainer asks of an optimizer; one object can serve several trainers, it holds no state."""

    @property
    @abstractmethod
    def update(self) -> str:
        """Name of the update in ``fastnn.kernels.updates.UPDATES``."""

    @property
    @abstractmethod
    def hyperparameters(self) -> NDArray[np.float64]:
        """Numbers that the update takes."""

    @property
    @abstractmethod
    def n_slots(self) -> int:
        """How many numbers are remembered for each parameter."""


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient steps on batches, plain or with momentum.

    With velocity v, learning rate a, momentum m and gradient g of the objective that is ascended:
    v = m v + a g, and the parameters move by v, or by m v + a g with Nesterov momentum [1]_.

    Parameters
    ----------
    learning_rate : float, default 0.5
        Length of a step for a gradient of length 1; above 0.
    momentum : float, default 0.0
        Share of the velocity that is kept; at least 0 and below 1.
    nesterov : bool, default False
        Whether to look one step of momentum ahead.

    References
    ----------
    .. [1] I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum
       in deep learning", ICML 2013.
    """

    learning_rate: float = 0.5
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_number(self.learning_rate, "learning_rate", 0, open_left=True)
        check_number(self.momentum, "momentum", 0, 1)
        if check_choice(self.nesterov, "nesterov", [False, True]) and self.momentum == 0:
            raise ValueError("nesterov=True needs a momentum above 0")

    @property
    def update(self) -> str:
        """Name of the update in ``fastnn.kernels.updates.UPDATES``."""
        if self.momentum == 0:
            return "sgd"
        return "nesterov" if self.nesterov else "momentum"

    @property
    def hyperparameters(self) -> NDArray[np.float64]:
        """Numbers that the update takes."""
        return np.array([self.learning_rate, self.momentum][: 1 + self.n_slots], dtype=np.float64)

    @property
    def n_slots(self) -> int:
        """How many numbers are remembered for each parameter: the velocity, if there is momentum."""
        return int(self.momentum > 0)
