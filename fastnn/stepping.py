"""Single gradient steps, and gradients, for programs that decide on each step themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.local import Engine
from fastnn.engine.rows import Rows
from fastnn.engine.threads import available_threads
from fastnn.kernels.losses import LOSSES, Targets
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.network import Network
from fastnn.plan import Method


class _Batches:
    """An engine for consecutive rows, kept from one batch to the next while the rows are stored in the same way."""

    def __init__(self, network: Network, method: Method, n_threads: int | None) -> None:
        self.network = network
        self._method = method
        self._n_threads = n_threads or available_threads()
        self._engine: Engine | None = None
        self._rows: Rows | None = None
        self._whole = False
        self._numbers = np.empty(0, np.intp)

    def ready(self, rows: Rows, n: int, first: int) -> tuple[Engine, NDArray[np.intp] | None]:
        """Return an engine for n rows from the first on, and their numbers; None if these are all."""
        whole = n == rows.shape[0]
        order = None if whole else self._numbers[first : first + n]
        engine = self._engine
        if engine is not None and whole == self._whole and n <= engine.batch_size:
            if rows is self._rows:
                return engine, order
            if whole and _are_stored_alike(rows, self._rows):
                engine.X = self._rows = rows
                return engine, order
        self._engine = None  # its work space can go before there is another
        engine = self.network.engine(self._n_threads)
        method = self._method._replace(batch_size=n)
        engine.begin(rows, engine.plan(rows, method, ordered=whole, repeated=whole))
        if not whole and len(self._numbers) != rows.shape[0]:
            self._numbers = np.arange(rows.shape[0], dtype=np.intp)
        self._engine, self._rows, self._whole = engine, rows, whole
        return engine, None if whole else self._numbers[first : first + n]


class GradientSteps:
    """Plain steps up the gradient of a network's mean log-likelihood, minus penalties, each on one batch.

    It keeps its work space from one step to the next while the rows are stored in the same way.

    Parameters
    ----------
    network : Network
        Trained in place; its loss is cross-entropy.
    l1, l2 : float
        Weights of the penalties, as in `Trainer`.
    n_threads : int or None
        As in `Trainer`.
    """

    def __init__(self, network: Network, l1: float = 0.0, l2: float = 0.0, n_threads: int | None = None) -> None:
        self.network = network
        self._penalties = l2, l1
        self._batches = _Batches(network, Method(1, "sgd", plain=l1 == 0, penalised=l2 != 0, single=True), n_threads)

    def __call__(self, rows: Rows, y: NDArray[np.intp], rate: float, first: int = 0) -> tuple[float, float]:
        """Take a step on consecutive rows.

        Parameters
        ----------
        rows : (n, n_in) C-contiguous array of float32 or float64, or CSRRows
        y : (n_batch,) intp
            Classes of the batch's rows, each below the number of outputs.
        rate : float
            Learning rate.
        first : int
            The batch's first row.

        Returns
        -------
        tuple of float
            The mean log-likelihood of the batch before the step, in nats, and the penalty.

        Raises
        ------
        FloatingPointError
            If the log-likelihood is not finite; the network is as it was.
        """
        n = len(y)
        engine, order = self._batches.ready(rows, n, first)
        engine.restart(Steps(UPDATES["sgd"], np.array([[*self._penalties, 0.0, rate]])))
        targets = Targets(LOSSES["cross_entropy"], y)
        while engine.advance(targets, order, tuning.CHUNK_SECONDS):
            pass
        return engine.log_likelihood / n, engine.penalty / n


class Gradients:
    """Gradients of a network's mean log-likelihood, each over one batch.

    It keeps its work space from one batch to the next while the rows are stored in the same way.

    Parameters
    ----------
    network : Network
        Its loss is cross-entropy.
    n_threads : int or None
        As in `Trainer`.
    """

    def __init__(self, network: Network, n_threads: int | None = None) -> None:
        self.network = network
        self._batches = _Batches(network, Method(1, single=True), n_threads)
        self._steps = Steps(UPDATES["none"], np.zeros((1, 3)))
        self._out = np.empty_like(network.parameters)

    def __call__(self, rows: Rows, y: NDArray[np.intp], first: int = 0) -> tuple[float, NDArray[np.floating]]:
        """Return the mean log-likelihood of consecutive rows, in nats, and its gradient; arguments as of a step.

        The gradient is in the parameters' layout, and is overwritten by the next call.

        Raises
        ------
        FloatingPointError
            If the log-likelihood is not finite.
        """
        n = len(y)
        engine, order = self._batches.ready(rows, n, first)
        gradient = engine.gradient(Targets(LOSSES["cross_entropy"], y), self._steps, order=order, out=self._out)
        return engine.log_likelihood / n, gradient


def _are_stored_alike(rows: Rows, others: Rows | None) -> bool:
    if not isinstance(rows, np.ndarray) or not isinstance(others, np.ndarray):
        return False
    return rows.shape == others.shape and rows.dtype == others.dtype
