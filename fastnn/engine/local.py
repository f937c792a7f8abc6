"""The engine from Python: it owns the work space and passes runs of rows to the compiled kernels.

All modules above (network, trainer, front doors) train and predict through it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.pace import Pace
from fastnn.engine.rows import Rows, aligned, sort_blocks
from fastnn.engine.threads import forks, kernel_run
from fastnn.kernels import blas, epoch, layer, touched
from fastnn.kernels.affine import REGISTER_BYTES
from fastnn.kernels.epoch import Batches, Space
from fastnn.kernels.losses import LOSSES, Targets
from fastnn.kernels.plan import MOST_SHARDS, MOST_SLICES, CompiledPlan
from fastnn.kernels.predict import FewRows
from fastnn.kernels.rows import CSRRows, Motion
from fastnn.kernels.updates import Steps
from fastnn.layout import LayerFacts, to_lines
from fastnn.plan import NAMES, Machine, Method, Plan, facts_of, forward_plan, make_plan, most_few_rows, plan_forward


@cache
def _warm_up(dtype: np.dtype[Any], n_threads: int) -> None:
    # Once a process, in a few milliseconds; a product of this shape fills more of the buffers than a narrow one.
    A, B = np.zeros((128, 784), dtype), np.zeros((784, 768), dtype)
    with kernel_run:
        blas.warm_up(A, B, np.empty((n_threads, 128, 768), dtype), n_threads)


@lru_cache(maxsize=256)
def _compiled_for_forward(layers: tuple[LayerFacts, ...], dtype: str, block_rows: int, sparse: bool) -> CompiledPlan:
    return CompiledPlan(forward_plan(layers, dtype, block_rows, sparse))


def few_rows(
    layers: tuple[LayerFacts, ...], input_shape: tuple[int, ...], parameters: NDArray[Any], loss: str
) -> FewRows:
    """Return what predicts for few rows in one call; the parameters may change in place."""
    dtype = NAMES[parameters.dtype]
    block_rows = 1 if layers[0].maps is not None else tuning.FEWEST_BLOCK_ROWS
    compiled = _compiled_for_forward(layers, dtype, block_rows, False)
    return FewRows(compiled, input_shape, parameters, LOSSES[loss], most_few_rows(layers, dtype))


class Engine:
    """Forward passes and epochs of training for one network.

    Parameters
    ----------
    layers : tuple of LayerFacts
        The network's.
    parameters : (n_parameters,) array
        Read by `forward` and moved by `advance`.
    n_threads : int
        The results do not depend on it.
    """

    def __init__(self, layers: tuple[LayerFacts, ...], parameters: NDArray[Any], n_threads: int) -> None:
        self.layers = layers
        self.parameters = parameters
        self._n_threads = min(n_threads, max(MOST_SHARDS, MOST_SLICES))  # more would have no work

    @property
    def n_threads(self) -> int:
        """Threads for the next call: the process may have been forked since the last."""
        return forks.usable_threads(self._n_threads)

    @property
    def machine(self) -> Machine:
        """Facts about the machine for a plan."""
        return Machine(1 if forks.threads_lost else self._n_threads, REGISTER_BYTES)

    def forward(self, X: Rows, out: NDArray[Any] | None = None) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield (slice of rows, their output layer before softmax or sigmoid), run by run.

        The outputs are in a buffer used again, or in out (n, n_out).
        """
        n, dtype = X.shape[0], self.parameters.dtype
        plan, n_parts, run_rows, n_threads = plan_forward(self.layers, NAMES[dtype], facts_of(X), self.machine)
        compiled = _compiled_for_forward(self.layers, NAMES[dtype], plan.block_rows, isinstance(X, CSRRows))
        work = np.empty((n_parts, plan.work_size), dtype)
        logits = np.empty((min(run_rows, n), self.layers[-1].n_out), dtype) if out is None else out
        for first in range(0, n, run_rows):
            begin = 0 if out is None else first
            Z = logits[begin : begin + min(run_rows, n - first)]
            with kernel_run:
                epoch.forward(X, first, compiled, self.parameters, work, Z, forks.usable_threads(n_threads))
            yield slice(first, first + len(Z)), Z

    def plan(
        self,
        X: Rows,
        method: Method,
        ordered: bool = True,
        repeated: bool = False,
        moves: bool = False,
        why: str = "as given",
    ) -> Plan:
        """Plan of epochs over X; ordered, repeated, moves and why as in `fastnn.plan.Data`."""
        data = facts_of(X, method.batch_size, ordered, repeated, moves, why)
        return make_plan(self.layers, NAMES[self.parameters.dtype], data, method, self.machine)

    def begin(self, X: Rows, plan: Plan, state: NDArray[Any] | None = None, motion: Motion | None = None) -> None:
        """Allocate the work space for epochs over X, as planned; state is the optimizer's, motion that of images."""
        self.X, self.planned, self._motion = X, plan, motion
        self.batch_size = plan.batch_size
        self._compiled = CompiledPlan(plan)
        self._stored = _compiled_for_forward(self.layers, plan.dtype, 1, False)
        self.state = np.empty((0, self.parameters.size), self.parameters.dtype) if state is None else state
        self._n_threads = plan.n_threads
        self._pace = Pace(plan.n_threads)
        self._blocks = None
        if plan.sorting == "once":
            assert isinstance(X, CSRRows)
            bounds = np.array(plan.row_blocks(X.shape[0]), np.int64)
            self._blocks = sort_blocks(X, bounds, self.n_threads)
        self.key = 0
        self.space = self._allocate(plan)
        _warm_up(self.parameters.dtype, self.n_threads)

    def _allocate(self, plan: Plan) -> Space:
        dtype, n_shards = self.parameters.dtype, plan.n_shards
        size = to_lines(plan.n_parameters, dtype.itemsize)  # each shard's gradient begins at a cache line
        parameters, state = self.parameters, self.state
        if plan.rearranges:
            parameters = aligned(plan.n_parameters, dtype)
            state = aligned((len(state), plan.n_parameters), dtype)
        return Space(
            parameters=parameters,
            state=state,
            gradients=aligned((n_shards, size), dtype),
            work=aligned((plan.n_work, plan.work_size), dtype, zeros=False),
            position=np.zeros(1 + n_shards, np.intp),
            log_likelihood=np.zeros(1 + n_shards),
            penalties=np.zeros((len(self.layers), plan.most_slices)),
            touched=np.zeros(1 + 2 * self.layers[0].n_in, np.int64) if plan.touches else None,
        )

    def restart(self, steps: Steps, key: int = 0) -> None:
        """Go to the start of an epoch with these steps; key is the seed of its dropout masks and motions."""
        self.steps, self.key = steps, key
        for counts in (self.space.position, self.space.log_likelihood, self.space.penalties, self.space.touched):
            if counts is not None:
                counts[...] = 0
        self._rearrange(back=False)

    def store(self) -> None:
        """Copy parameters and state, up to the last finished step, from the plan's forms."""
        self._rearrange(back=True)

    def finish(self) -> None:
        """Bring parameters and state up to the last finished step, with rows not touched, as at an epoch's end."""
        if self.space.touched is not None:
            n_in, n_out = self.layers[0][:2]  # their weights come first, as stored, in the plan's forms too
            W = self.space.parameters[: n_in * n_out].reshape(n_in, n_out)
            n_steps = -(-int(self.space.position[0]) // self.batch_size)
            touched.bring_up_to_date(self.steps, W, self.space.state, self.space.touched, n_steps)
        self.store()

    def gradient(self, targets: Targets, steps: Steps) -> NDArray[Any]:
        """Return the gradient of the mean log-likelihood over all rows, in the parameters' layout.

        If the steps have penalties, it is the objective's.  `log_likelihood` and `penalty` then have the values.
        """
        self.restart(steps)
        while self.advance(targets, None, tuning.CHUNK_SECONDS):
            pass
        found: NDArray[Any] = self.space.gradients[0, : self.planned.n_parameters]
        if not self.planned.rearranges:
            return found
        gradient = np.empty_like(self.parameters)
        layer.rearrange(self._compiled, self._stored, True, found, gradient)
        return gradient

    def _rearrange(self, back: bool) -> None:
        # Copies parameters and state from the stored form into the plan's forms, or back.
        if not self.planned.rearranges:
            return
        stored, moved = (self.parameters, *self.state), (self.space.parameters, *self.space.state)
        for vector, other in zip(stored, moved, strict=True):
            source, goal = (other, vector) if back else (vector, other)
            layer.rearrange(self._compiled, self._stored, back, source, goal)

    def advance(self, targets: Targets, order: NDArray[np.intp] | None, seconds: float) -> bool:
        """Train for about the given seconds; return whether the epoch has more rows.

        Rows are taken in the given order, and targets are in that order already.  If a batch's log-likelihood is not
        finite, its step is not taken and FloatingPointError is raised.
        """
        usable, chosen = self.n_threads, self._pace.n_threads
        measures = 1 < usable >= chosen
        if measures:
            seconds = min(seconds, self._pace.run_seconds)
            started, rows_before = time.perf_counter(), self.rows_done
        with kernel_run:
            epoch.train(
                Batches(self.X, targets, order, self.key, self._blocks, self._motion),
                self._compiled,
                self.steps,
                self.space,
                self.space.work,
                seconds,
                min(usable, chosen),
            )
        if measures:
            self._pace.note(self.rows_done - rows_before, time.perf_counter() - started)
        if not math.isfinite(self.space.log_likelihood[0]):
            raise FloatingPointError("the log-likelihood of a batch is not finite")
        if self.space.position[0] < len(targets.y):
            return True
        if self.planned.update != "none":
            self.finish()
        return False

    def progress(self) -> dict[str, NDArray[Any]]:
        """Return the progress of an epoch, beside parameters and state: arrays that may be written."""
        space = self.space
        found: dict[str, NDArray[Any]] = {
            "position": space.position[:1],
            "log_likelihood": space.log_likelihood[:1],
            "penalties": space.penalties,
        }
        return found if space.touched is None else found | {"touched": space.touched}

    def go_on(self, progress: dict[str, NDArray[Any]]) -> None:
        """Continue from what `progress` returned."""
        for name, array in self.progress().items():
            array[...] = progress[name]

    @property
    def rows_done(self) -> int:
        """Finished rows of the epoch."""
        return int(self.space.position.sum())

    @property
    def batches_done(self) -> int:
        """Finished batches of the epoch."""
        return -(-int(self.space.position[0]) // self.batch_size)

    @property
    def log_likelihood(self) -> float:
        """Weighted sum of the finished batches' log-likelihoods, in nats."""
        return float(self.space.log_likelihood[0])

    @property
    def penalty(self) -> float:
        """Sum over the finished batches of the penalties, each times the batch's weight."""
        return float(self.space.penalties.sum())
