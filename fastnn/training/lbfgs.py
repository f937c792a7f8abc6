"""Training by L-BFGS; an epoch is an iteration.

J. Nocedal, S. J. Wright, "Numerical optimization" (2006), section 7.2.  The recursion is in `fastnn.kernels.lbfgs`;
line search, tolerances and what ends a fit are as in SciPy's L-BFGS-B.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.engine.rows import aligned
from fastnn.engine.threads import single_threaded_blas
from fastnn.kernels import lbfgs
from fastnn.kernels.lbfgs import BLOCK_SIZE, Memory
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.optimizers import LBFGS
from fastnn.training.active import ActiveFit, DivergenceError
from fastnn.training.checkpoint import Snapshot, Tensors
from fastnn.training.line_search import Point, search
from fastnn.training.settings import penalty_of, sums_over_ranks

# Evaluations of a line search at most.
MOST_EVALUATIONS = 50

# A fit has converged when an iteration changes the objective by less than this share.
TOLERANCE = float(np.finfo(np.float64).eps)


def make_memory(n: int, n_pairs: int, dtype: np.dtype[Any]) -> Memory:
    """Return the memory for a point of n numbers, without pairs."""
    return Memory(
        x=aligned(n, dtype),
        g=aligned(n, dtype),
        d=aligned(n, dtype),
        pairs=np.zeros((2, n_pairs, n), dtype),
        products=np.zeros((2, n_pairs, n_pairs + 1)),
        sums=np.empty((-(-n // BLOCK_SIZE), 2, n_pairs, 2)),
        coefficients=np.empty((3, n_pairs)),
    )


class Maximisation:
    """Maximises the objective over all rows; f is minus the objective.

    Attributes
    ----------
    newest, n_pairs : int
        Place of the newest pair in the memory, and how many it holds.
    n_evaluations : int
        Of the objective and its gradient.
    log_likelihood, objective, previous : float
        Mean log-likelihood and objective of the last evaluation, and the objective an iteration before, NaN at first.
    """

    def __init__(self, active: ActiveFit, snapshot: Snapshot | None) -> None:
        assert active.data.whole is not None
        assert isinstance(active.settings.optimizer, LBFGS)
        self.active, self.optimizer = active, active.settings.optimizer
        self.engine, self.targets = active.data.whole.engine, active.data.whole.targets
        self.parameters = self.engine.parameters  # the network's, and not read-only
        self._total = active.weight_of(active.data.whole)
        self._totals = np.array([self._total]) if sums_over_ranks(active.settings) else None
        l2 = penalty_of(active.settings).l2(np.array([self._total]))[0]
        self._steps = Steps(UPDATES["none"], np.array([[l2, 0.0, 0.0]]))
        self._n_threads = self.engine.n_threads
        self.memory = make_memory(self.parameters.size, self.optimizer.memory, self.parameters.dtype)
        self.memory.x[:] = self.parameters
        self.newest, self.n_pairs, self.n_evaluations = -1, 0, 0
        self.log_likelihood, self.objective, self.previous = 0.0, 0.0, math.nan
        if snapshot is not None:
            self._restore(snapshot.lbfgs)
        active.progress = self._progress

    def _progress(self) -> tuple[dict[str, Any], Tensors]:
        # What a checkpoint must hold: no content, but arrays by name.  x are the network's parameters.
        numbers = np.array([self.newest, self.n_pairs, self.n_evaluations, self.objective, self.previous])
        pairs, products = self.memory.pairs, self.memory.products
        found = {"numbers": numbers, "gradient": self.memory.g, "pairs": pairs, "products": products}
        return {}, {f"lbfgs.{name}": array for name, array in found.items()}

    def _restore(self, found: Tensors) -> None:
        self.newest, self.n_pairs, self.n_evaluations = map(int, found["numbers"][:3])
        self.objective, self.previous = found["numbers"][3:].tolist()
        self.memory.g[:], self.memory.pairs[:] = found["gradient"], found["pairs"]
        self.memory.products[:] = found["products"]

    def iterate(self) -> None:
        """Iterate to the end of the fit."""
        active, history = self.active, self.active.fit.history
        started = time.perf_counter()
        try:
            with single_threaded_blas, active.settings.network.read_only():
                if self.n_evaluations == 0:
                    self.memory.g[:] = self._gradient()
                while len(history) < active.fit.epochs and self.n_evaluations <= self.optimizer.max_fun:
                    history.converged = self._has_converged()
                    if history.converged or not self._ascend():
                        break
                    active.record(started, self.log_likelihood, self.objective)
                    active.call_on_chunk()
                    active.call_on_epoch()
                    if active.fit.stop:
                        break
                    started = time.perf_counter()
        finally:
            self.parameters[:] = self.memory.x

    def _has_converged(self) -> bool:
        largest = max(np.maximum.reduce(self.memory.g), -np.minimum.reduce(self.memory.g))
        gained, size = self.objective - self.previous, max(abs(self.objective), abs(self.previous), 1)
        return bool(largest <= self.optimizer.tol or gained <= TOLERANCE * size)

    def _ascend(self) -> bool:
        # Goes to a point where the objective is larger; returns False if none is found even along the gradient.
        before = self.objective
        while True:
            slope = lbfgs.point(self.memory, self.memory.g, self.newest, self.n_pairs, self._n_threads)
            start = Point(0.0, -before, -slope)
            if not start.slope >= 0:  # NaN shows when the objective is evaluated
                step = 1.0 if self.n_pairs else 1 / math.sqrt(-start.slope)  # the gradient's length is not a step's
                found = search(self._evaluate, start, step, MOST_EVALUATIONS)
                if found is not None:
                    self.previous = before
                    self._remember(-found.step * start.slope)
                    return True
            if self.n_pairs == 0:
                return False
            self.n_pairs = 0

    def _remember(self, expected: float) -> None:
        # Takes the last evaluation as the point, with a new pair; expected is the gain along a line.
        slot = (self.newest + 1) % self.optimizer.memory
        lbfgs.remember(self.parameters, self._last, self.memory, slot, self._n_threads)
        if self.memory.products[0, slot, slot] > TOLERANCE * expected:
            self.newest, self.n_pairs = slot, min(self.n_pairs + 1, self.optimizer.memory)
        else:  # rounding has hidden the curvature; the pair is in the place of the oldest
            self.n_pairs = min(self.n_pairs, self.optimizer.memory - 1)

    def _evaluate(self, step: float) -> Point:
        lbfgs.move(self.parameters, self.memory, step, self._n_threads)
        self._last = self._gradient()
        return Point(step, -self.objective, -lbfgs.slope(self._last, self.memory, self._n_threads))

    def _gradient(self) -> NDArray[Any]:
        # Returns the gradient of the objective at the network's parameters.
        self.n_evaluations += 1
        try:
            gradient = self.engine.gradient(self.targets, self._steps, self._totals)
        except FloatingPointError:
            history = self.active.fit.history
            raise DivergenceError(len(history) + 1, 1, history) from None
        fixed = self.active.settings._variant.fixed
        if fixed is not None:
            gradient[fixed] = 0
        self.log_likelihood = self.engine.log_likelihood / self._total
        self.objective = self.log_likelihood - self.engine.penalty / self._total
        return gradient


def maximise(active: ActiveFit, snapshot: Snapshot | None) -> None:
    """Train by L-BFGS to the end of the fit."""
    if not active.fit.stop and len(active.fit.history) < active.fit.epochs:
        Maximisation(active, snapshot).iterate()
