"""Optimizers: their names, hyper-parameters and state.

The update loops themselves are in ``fastnn.kernels.updates``, those of `LBFGS` in ``fastnn.training.lbfgs``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_choice, check_integer, check_number
from fastnn.schedules import Schedule, Times, check_learning_rate


class Optimizer(ABC):
    """What the trainer needs of an optimizer.  It has no state, so trainers can share it."""

    learning_rate: float | Schedule

    @property
    @abstractmethod
    def update(self) -> str:
        """Name of the update in ``fastnn.kernels.updates.UPDATES``."""

    @property
    @abstractmethod
    def n_slots(self) -> int:
        """How many numbers the state has for each parameter."""

    @abstractmethod
    def numbers(self, rates: Times, n_steps: int) -> list[float | Times]:
        """Return the columns of the update's table for steps with these learning rates, after n_steps others."""

    @property
    def decay(self) -> float:
        """Share that a step with learning rate 1 first subtracts from the weights."""
        return 0.0


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient steps on batches, plain or with momentum.

    With velocity v, learning rate a, momentum m and gradient g of the objective, which rises:
    v = m v + a g, and the parameters move by v, or by m v + a g with Nesterov momentum [1]_.

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.5
        Length of a step for a gradient of length 1; above 0.
    momentum : float, default 0.0
        Share of the velocity to keep; at least 0 and below 1.
    nesterov : bool, default False
        Whether to look one step of momentum ahead.

    References
    ----------
    .. [1] I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum
       in deep learning", ICML 2013.
    """

    learning_rate: float | Schedule = 0.5
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
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
    def n_slots(self) -> int:
        """How many numbers the state has for each parameter: the velocity, if there is momentum."""
        return int(self.momentum > 0)

    def numbers(self, rates: Times, n_steps: int) -> list[float | Times]:
        """Return the columns of the update's table; see `Optimizer.numbers`."""
        return [rates, self.momentum] if self.momentum > 0 else [rates]


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Steps divided by the root of a running mean of the squared gradient [1]_.

    With s = rho s + (1 - rho) g**2, the parameters move by a g / (sqrt(s) + epsilon).

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.001
        Above 0.
    rho : float, default 0.99
        Share of the mean to keep; at least 0 and below 1.
    epsilon : float, default 1e-8
        Keeps the quotient finite; above 0.

    References
    ----------
    .. [1] T. Tieleman, G. Hinton, lecture 6.5 of "Neural networks for machine learning" (2012).
    """

    learning_rate: float | Schedule = 0.001
    rho: float = 0.99
    epsilon: float = 1e-8

    update = "rmsprop"
    n_slots = 1

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        check_number(self.rho, "rho", 0, 1)
        check_number(self.epsilon, "epsilon", 0, open_left=True)

    def numbers(self, rates: Times, n_steps: int) -> list[float | Times]:
        """Return the columns of the update's table; see `Optimizer.numbers`."""
        return [rates, self.rho, self.epsilon]


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients so far [1]_.

    With s = s + g**2, the parameters move by a g / (sqrt(s) + epsilon).

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.01
        Above 0.
    epsilon : float, default 1e-10
        Keeps the quotient finite; above 0.

    References
    ----------
    .. [1] J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic
       optimization", JMLR 12 (2011).
    """

    learning_rate: float | Schedule = 0.01
    epsilon: float = 1e-10

    update = "adagrad"
    n_slots = 1

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        check_number(self.epsilon, "epsilon", 0, open_left=True)

    def numbers(self, rates: Times, n_steps: int) -> list[float | Times]:
        """Return the columns of the update's table; see `Optimizer.numbers`."""
        return [rates, self.epsilon]


@dataclass(frozen=True)
class Adam(Optimizer):
    """Steps along a running mean of the gradient, divided by the root of a running mean of its square [1]_.

    With m = b1 m + (1 - b1) g and s = b2 s + (1 - b2) g**2, step t moves the parameters by
    a (m / (1 - b1**t)) / (sqrt(s / (1 - b2**t)) + epsilon).

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.001
        Above 0.
    beta_1, beta_2 : float, default 0.9 and 0.999
        Shares of the means to keep; at least 0 and below 1.
    epsilon : float, default 1e-8
        Keeps the quotient finite; above 0.
    uncorrected_epsilon : bool, default False
        Whether epsilon is added to sqrt(s) before its correction, as in the variant at the end of section 2 of [1]_.

    References
    ----------
    .. [1] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """

    learning_rate: float | Schedule = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    uncorrected_epsilon: bool = False

    update = "adam"
    n_slots = 2

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        check_number(self.beta_1, "beta_1", 0, 1)
        check_number(self.beta_2, "beta_2", 0, 1)
        check_number(self.epsilon, "epsilon", 0, open_left=True)

    def numbers(self, rates: Times, n_steps: int) -> list[float | Times]:
        """Return the columns of the update's table; see `Optimizer.numbers`."""
        step = np.arange(n_steps + 1, n_steps + len(rates) + 1)
        correction = 1 / np.sqrt(1 - self.beta_2**step)
        epsilon = self.epsilon * correction if self.uncorrected_epsilon else self.epsilon
        return [rates / (1 - self.beta_1**step), self.beta_1, self.beta_2, correction, epsilon]


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decay of the weights before each step [1]_.

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon, uncorrected_epsilon
        As in `Adam`.
    weight_decay : float, default 0.01
        A step multiplies the weights, but not the biases, by 1 - learning_rate * weight_decay; at least 0.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.weight_decay, "weight_decay", 0)

    @property
    def decay(self) -> float:
        """Share that a step with learning rate 1 first subtracts from the weights."""
        return self.weight_decay


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS on all rows at once [1]_, with the line search of [2]_; an epoch is an iteration.

    It takes the steps of SciPy's L-BFGS-B without bounds, to rounding.  Its vectors have the network's dtype.

    Parameters
    ----------
    memory : int, default 10
        Corrections to the curvature to keep.
    tol : float, default 1e-4
        Training ends when no component of the objective's gradient is larger.
    max_fun : int, default 15000
        The most evaluations of the objective and its gradient in a fit.

    References
    ----------
    .. [1] J. Nocedal, S. J. Wright, "Numerical optimization", 2nd edition (2006), section 7.2.
    .. [2] J. J. Moré, D. J. Thuente, "Line search algorithms with guaranteed sufficient decrease", ACM Transactions on
       Mathematical Software 20 (1994).
    """

    memory: int = 10
    tol: float = 1e-4
    max_fun: int = 15_000

    def __post_init__(self) -> None:
        check_integer(self.memory, "memory", 1)
        check_number(self.tol, "tol", 0)
        check_integer(self.max_fun, "max_fun", 1)


# By their names for front doors.
OPTIMIZERS: dict[str, Any] = {
    "sgd": SGD,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "adam": Adam,
    "adamw": AdamW,
    "lbfgs": LBFGS,
}


def step_table(optimizer: Optimizer, rates: Times, n_steps: int, l2: Times, l1: float) -> NDArray[np.float64]:
    """Return the table of `kernels.updates.Steps` for steps with these learning rates, after n_steps others."""
    columns = [l2, l1, rates * optimizer.decay, *optimizer.numbers(rates, n_steps)]
    table = np.empty((len(rates), len(columns)))
    for k, column in enumerate(columns):
        table[:, k] = column
    return table
