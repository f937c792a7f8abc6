"""The state that a trainer keeps from one fit to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.network import Network
from fastnn.optimizers import LBFGS, Optimizer


@dataclass
class TrainState:
    """The optimizer's state, the progress of training, and the random generator.

    Attributes
    ----------
    generator : numpy.random.Generator
        For shuffling, dropout and motions.
    optimizer : (n_slots, n_parameters) array
        The optimizer's state of each parameter.
    optimizer_type : type or None
        Type of that optimizer; None before the first fit.
    n_steps : int
        Steps that this optimizer has taken.
    curve : list of float
        Log-likelihood after each epoch, on the validation data if there are any; schedules read it.
    """

    generator: np.random.Generator
    optimizer: NDArray[Any]
    optimizer_type: type | None = None
    n_steps: int = 0
    curve: list[float] = field(default_factory=list)

    def begin(self, optimizer: Optimizer | LBFGS, network: Network) -> None:
        """Continue with the optimizer's state if it is of this type, or start with zeros."""
        n_slots = optimizer.n_slots if isinstance(optimizer, Optimizer) else 0
        if type(optimizer) is not self.optimizer_type or len(self.optimizer) != n_slots:
            self.optimizer = np.zeros((n_slots, network.parameters.size), network.dtype)
            self.n_steps = 0
        self.optimizer_type = type(optimizer)

    def go_on_from(self, other: TrainState) -> None:
        """Take over the optimizer's state and the curve of another, if it has as many parameters of this dtype."""
        if other.optimizer.shape[1] == self.optimizer.shape[1] and other.optimizer.dtype == self.optimizer.dtype:
            self.optimizer, self.curve = other.optimizer.copy(), list(other.curve)
            self.optimizer_type, self.n_steps = other.optimizer_type, other.n_steps
