"""Training by SciPy's L-BFGS; an epoch is an iteration.

SciPy does not give out its estimate of the curvature.  So a fit resumes from its start: it takes the evaluations that
the checkpoint holds instead of computing them, and computes the others again.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.callbacks import Checkpoint
from fastnn.engine.threads import import_whole, single_threaded_blas
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.optimizers import LBFGS
from fastnn.training.active import ActiveFit, DivergenceError
from fastnn.training.checkpoint import Snapshot, Tensors
from fastnn.training.settings import penalty_of

# Bytes of gradients, from the start of the fit on, that a checkpoint holds; later ones are computed again.
KEPT_GRADIENT_BYTES = 1 << 28


class Evaluations:
    """The start of a fit by L-BFGS and its first evaluations, as many as fit into the room.

    Attributes
    ----------
    start : array
        Parameters at the start.
    values : list of (float, float)
        Mean log-likelihood and objective of each evaluation.
    gradients : list of arrays
        Gradient of the objective at each evaluation.
    """

    def __init__(self, parameters: NDArray[Any], room: int, restored: Tensors | None) -> None:
        self.start = parameters.copy()
        self.values: list[tuple[float, float]] = []
        self.gradients: list[NDArray[Any]] = []
        self._room = room
        if restored is not None:
            self.start = restored["start"]
            self.values = [(log_likelihood, objective) for log_likelihood, objective in restored["seen"].tolist()]
            self.gradients = list(restored["gradients"])
            self._room -= restored["gradients"].nbytes

    def keep(self, values: tuple[float, float], gradient: NDArray[Any]) -> None:
        """Keep an evaluation, if there is room and all before it were kept."""
        self._room -= gradient.nbytes
        if self._room >= 0:
            self.values.append(values)
            self.gradients.append(gradient.copy())

    def progress(self) -> tuple[dict[str, Any], Tensors]:
        """Return what a checkpoint must hold: no content, but arrays by name."""
        gradients = np.array(self.gradients, self.start.dtype).reshape(len(self.gradients), len(self.start))
        values = np.array(self.values).reshape(-1, 2)
        return {}, {"lbfgs.start": self.start, "lbfgs.seen": values, "lbfgs.gradients": gradients}


class StopRequested(Exception):
    """A callback asked a fit by L-BFGS to end."""


class Minimisation:
    """Minimises minus the objective over all rows."""

    def __init__(self, active: ActiveFit, snapshot: Snapshot | None) -> None:
        assert active.data.whole is not None
        self.active = active
        self.chunk = active.data.whole
        targets = self.chunk.targets
        self._total = float(len(targets.y) if targets.weights is None else targets.weights.sum())
        l2 = penalty_of(active.settings).l2(np.array([self._total]))[0]
        self._steps = Steps(UPDATES["none"], np.array([[l2, 0.0, 0.0]]))
        keeps = any(isinstance(callback, Checkpoint) for callback in active.callbacks)
        self.evaluations = Evaluations(
            active.settings.network.parameters,
            KEPT_GRADIENT_BYTES if keeps else 0,
            None if snapshot is None else snapshot.lbfgs,
        )
        active.progress = self.evaluations.progress
        self._values = (0.0, 0.0)  # of the last evaluation
        self._n_evaluations = 0
        self._n_iterations = 0
        self._n_restored = len(active.fit.history)  # iterations
        self._accepted = self.evaluations.start.astype(np.float64)

    def iterate(self) -> None:
        """Iterate to the end of the fit."""
        active, optimizer = self.active, self.active.settings.optimizer
        assert isinstance(optimizer, LBFGS)
        minimize = import_whole("scipy.optimize").minimize
        options = {
            "maxiter": active.fit.epochs,
            "maxcor": optimizer.memory,
            "maxfun": optimizer.max_fun,
            "maxls": 50,
            "gtol": optimizer.tol,
            "ftol": np.finfo(np.float64).eps,
        }
        self._started = time.perf_counter()
        try:
            with single_threaded_blas:  # SciPy's own part of an iteration is small
                found = minimize(
                    self._evaluate,
                    self._accepted,
                    method="L-BFGS-B",
                    jac=True,
                    callback=self._end_iteration,
                    options=options,
                )
            self._accepted = found.x
            active.fit.history.converged = bool(found.success)
        except StopRequested:
            pass
        finally:
            active.set_parameters(self._accepted)

    def _evaluate(self, x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        # Returns minus the objective, and minus its gradient.
        kept = self.evaluations
        if self._n_evaluations < len(kept.gradients):
            self._values, gradient = kept.values[self._n_evaluations], kept.gradients[self._n_evaluations]
        else:
            self._values, gradient = self._compute(x)
            kept.keep(self._values, gradient)
        self._n_evaluations += 1
        return -self._values[1], -gradient.astype(np.float64)

    def _compute(self, x: NDArray[np.float64]) -> tuple[tuple[float, float], NDArray[Any]]:
        # Returns mean log-likelihood and objective, and the gradient of the objective.
        active, engine, targets = self.active, self.chunk.engine, self.chunk.targets
        active.set_parameters(x)
        try:
            gradient = engine.gradient(targets, self._steps)
        except FloatingPointError:
            history = active.fit.history
            raise DivergenceError(len(history) + 1, 1, history) from None
        fixed = active.settings._variant.fixed
        if fixed is not None:
            gradient[fixed] = 0
        log_likelihood = engine.log_likelihood / self._total
        return (log_likelihood, log_likelihood - engine.penalty / self._total), gradient

    def _end_iteration(self, x: NDArray[np.float64]) -> None:
        # The last evaluation is the accepted one.
        active = self.active
        self._accepted = x
        active.set_parameters(x)
        self._n_iterations += 1
        if self._n_iterations <= self._n_restored:
            self._started = time.perf_counter()
            return
        active.record(self._started, *self._values)
        self._started = time.perf_counter()
        active.call_on_chunk()
        with active.settings.network.read_only():  # SciPy continues from its own parameters
            active.call_on_epoch()
        if active.fit.stop:
            raise StopRequested


def minimise(active: ActiveFit, snapshot: Snapshot | None) -> None:
    """Train by L-BFGS to the end of the fit."""
    if not active.fit.stop and len(active.fit.history) < active.fit.epochs:
        Minimisation(active, snapshot).iterate()
