"""The engine from Python: it owns the work space and passes runs of rows to the compiled kernels.

All modules above (network, trainer, front doors) train and predict through it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.averages import Averages
from fastnn.engine.exchanges import Exchanges
from fastnn.engine.pace import Pace
from fastnn.engine.ranks import ALONE, Ranks
from fastnn.engine.rows import Rows, aligned, sort_blocks
from fastnn.engine.threads import forks, kernel_run
from fastnn.kernels import blas, epoch, layer, touched
from fastnn.kernels.affine import REGISTER_BYTES
from fastnn.kernels.columns import Encoder
from fastnn.kernels.epoch import Batches, Space
from fastnn.kernels.losses import LOSSES, Targets
from fastnn.kernels.plan import MOST_SHARDS, MOST_SLICES, CompiledPlan
from fastnn.kernels.predict import FewRows
from fastnn.kernels.rows import CSRRows, Motion
from fastnn.kernels.updates import Steps
from fastnn.layout import LayerFacts, to_lines
from fastnn.plan import (
    NAMES,
    ForwardPlan,
    Machine,
    Method,
    Plan,
    facts_of,
    forward_plan,
    make_plan,
    most_few_rows,
    plan_forward,
    settle_sharing,
    share_out,
)


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
    layers: tuple[LayerFacts, ...],
    input_shape: tuple[int, ...],
    parameters: NDArray[Any],
    loss: str,
    encoder: Encoder | None = None,
) -> FewRows:
    """Return what predicts for few rows in one call; the parameters may change in place.

    encoder : of rows that are those of a table
    """
    dtype = NAMES[parameters.dtype]
    block_rows = 1 if layers[0].maps is not None else tuning.FEWEST_BLOCK_ROWS
    compiled = _compiled_for_forward(layers, dtype, block_rows, encoder is not None)
    return FewRows(compiled, input_shape, parameters, LOSSES[loss], most_few_rows(layers, dtype), encoder)


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
    ranks : Ranks
        That train together.
    """

    def __init__(
        self, layers: tuple[LayerFacts, ...], parameters: NDArray[Any], n_threads: int, ranks: Ranks = ALONE
    ) -> None:
        self.layers = layers
        self.parameters = parameters
        self.ranks = ranks
        self._n_threads = min(n_threads, max(MOST_SHARDS, MOST_SLICES))  # more would have no work

    @property
    def n_threads(self) -> int:
        """Threads for the next call: the process may have been forked since the last."""
        return forks.usable_threads(self._n_threads)

    @property
    def machine(self) -> Machine:
        """Facts about the machine for a plan."""
        return Machine(1 if forks.threads_lost else self._n_threads, REGISTER_BYTES)

    def forward(
        self, X: Rows, out: NDArray[Any] | None = None, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield (slice of rows, their output layer before softmax or sigmoid), run by run.

        The outputs are in a buffer used again, or in out (n, n_out).  share (k, m): only the k-th of m shares of the
        rows, in whole units (see `unit_rows`).
        """
        n, dtype = X.shape[0], self.parameters.dtype
        plan, n_parts, unit, run_rows, n_threads = self._plan_forward(X)
        compiled = _compiled_for_forward(self.layers, NAMES[dtype], plan.block_rows, isinstance(X, CSRRows))
        work = np.empty((n_parts, plan.work_size), dtype)
        begin, end = (min(n, -(-n // unit) * k // share[1] * unit) for k in (share[0], share[0] + 1))
        logits = np.empty((min(run_rows, end - begin), self.layers[-1].n_out), dtype) if out is None else out
        for first in range(begin, end, run_rows):
            place = 0 if out is None else first
            Z = logits[place : place + min(run_rows, end - first)]
            with kernel_run:
                epoch.forward(X, first, compiled, self.parameters, work, Z, forks.usable_threads(n_threads))
            yield slice(first, first + len(Z)), Z

    def unit_rows(self, X: Rows) -> int:
        """Return how many rows' losses are summed together; runs of `forward` are of whole units."""
        return self._plan_forward(X).unit_rows

    def _plan_forward(self, X: Rows) -> ForwardPlan:
        return plan_forward(self.layers, NAMES[self.parameters.dtype], facts_of(X), self.machine)

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
        plan = make_plan(self.layers, NAMES[self.parameters.dtype], data, method, self.machine)
        return plan if self.ranks.size == 1 else share_out(plan, self.ranks.size, method)

    def begin(
        self,
        X: Rows,
        plan: Plan,
        state: NDArray[Any] | None = None,
        motion: Motion | None = None,
        n_batches: int = 0,
    ) -> None:
        """Allocate the work space for epochs over X, as planned; state is the optimizer's, motion that of images.

        n_batches : of an epoch of all ranks, if each has rows of its own, or trains alone
        """
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
        # Ranks with rows of their own take as many steps; where an epoch ends may be behind the last row.
        differs = plan.sharing in ("rows", "averages")
        self.n_batches = n_batches if differs else -(-X.shape[0] // plan.batch_size)
        self.epoch_rows = self.n_batches * plan.batch_size if differs else int(X.shape[0])
        self._averages: Averages | None = None
        self._n_taken = self._n_blocks = 0
        self.exchanges: Exchanges | None = None
        self._block_seconds = math.inf  # of a batch, or of a row block by units
        _warm_up(self.parameters.dtype, self.n_threads)

    def share(
        self, targets: Targets, steps: Steps, sync_every: int = 0, share: float = 0.0, before: Plan | None = None
    ) -> Plan:
        """Choose by a trial with these steps whether the ranks share the work; return the plan with what was chosen.

        All ranks call it together, after `begin`.

        sync_every : steps after which the ranks are averaged, if they train alone in between
        share : of all rows that this rank then trains on
        before : the plan of rows like these, with what was chosen; then no trial is needed
        """
        plan, ranks = self.planned, self.ranks
        self._compare_plans()
        if plan.sharing == "averages":
            vectors = (self.parameters, *self.state)
            self._averages, self._sync_every = Averages(ranks, self.space, vectors, share), sync_every
        elif before is not None:
            known = {name: getattr(before, name) for name in ("sharing", "reasons", "shared_seconds")}
            plan = dataclasses.replace(plan, **known)
        elif plan.sharing != "alone":
            link, alone = ranks.link, max(ranks.all_tell("the trial", self._try(targets, steps)))
            plan = settle_sharing(plan, ranks.size, link, alone)
        self.planned, self.exchanges = plan, Exchanges(ranks, plan, self.space)
        self.exchanges.epoch_rows = self.epoch_rows
        return plan

    def _compare_plans(self) -> None:
        # What ranks exchange must lie in memory alike.
        plan = self.planned
        alike: Any = [(layer.form, layer.weight_size) for layer in plan.layers] if plan.sharing == "rows" else None
        alike = plan.fingerprint() if plan.sharing in ("shards", "units", "alone") else alike
        if len(set(map(repr, self.ranks.all_tell("the plan", alike)))) > 1:
            raise RuntimeError("the ranks' plans differ: they need the same version of fastnn and instruction set")

    def _try(self, targets: Targets, steps: Steps) -> float:
        # Returns the seconds of a step on this rank, and leaves parameters and state as they were.
        before = self.parameters.copy(), self.state.copy()
        # Rows in order are read where they are, though the plan may expect to find them gathered.
        order = np.arange(len(targets.y)) if self.planned.gathers else None
        batches, rows, seconds = Batches(self.X, targets, order, self.key, self._blocks, self._motion), 0, 0.0
        for limit in (tuning.TRIAL_SECONDS, 5 * tuning.TRIAL_SECONDS) if len(targets.y) else ():
            self.restart(steps)
            started = time.perf_counter()
            self._run(batches, limit, self.n_threads)
            rows, seconds = self.rows_done, time.perf_counter() - started
        self.parameters[:], self.state[...] = before
        return seconds * self.batch_size / rows if rows else 0.0

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

    def restart(self, steps: Steps, key: int = 0, totals: NDArray[np.float64] | None = None) -> None:
        """Go to the start of an epoch with these steps; key is the seed of its dropout masks and motions.

        totals : weight of each batch in all ranks, if each has rows of its own
        """
        self.steps, self.key = steps, key
        if self.exchanges is not None:
            self.exchanges.totals = totals
        for counts in (self.space.position, self.space.log_likelihood, self.space.penalties, self.space.touched):
            if counts is not None:
                counts[...] = 0
        self._rearrange(back=False)
        self._n_taken = 0
        if self._averages is not None:
            self._averages.restart()

    def store(self) -> None:
        """Copy parameters and state, up to the last finished step, from the plan's forms; all ranks do it together."""
        if self.exchanges is not None:
            self.exchanges.collect()
        self._rearrange(back=True)

    def finish(self) -> None:
        """Bring parameters and state up to the last finished step, with rows not touched, as at an epoch's end."""
        if self.space.touched is not None:
            n_in, n_out = self.layers[0][:2]  # their weights come first, as stored, in the plan's forms too
            W = self.space.parameters[: n_in * n_out].reshape(n_in, n_out)
            n_steps = -(-int(self.space.position[0]) // self.batch_size)
            touched.bring_up_to_date(self.steps, W, self.space.state, self.space.touched, n_steps)
        self.store()

    def gradient(
        self,
        targets: Targets,
        steps: Steps,
        totals: NDArray[np.float64] | None = None,
        order: NDArray[np.intp] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Return the gradient of the mean log-likelihood over all rows, in the parameters' layout.

        If the steps have penalties, it is the objective's.  `log_likelihood` and `penalty` then have the values.

        order : the rows' numbers, if not all are taken as stored
        out : for the gradient, if the plan has other forms than the parameters; otherwise it stays in the work space
        """
        self.restart(steps, totals=totals)
        while self.advance(targets, order, tuning.CHUNK_SECONDS):
            pass
        found: NDArray[Any] = self.space.gradients[0, : self.planned.n_parameters]
        if not self.planned.rearranges:
            return found
        gradient = np.empty_like(self.parameters) if out is None else out
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
        finite, its step is not taken and FloatingPointError is raised.  All ranks take the same steps.
        """
        usable, chosen = self.n_threads, self._pace.n_threads
        measures = 1 < usable >= chosen
        if measures:
            seconds = min(seconds, self._pace.run_seconds)
        if self.exchanges is not None:
            self._agree_on_run(self.exchanges, seconds)
        started, rows_before = time.perf_counter(), self.rows_done
        batches, n_threads = Batches(self.X, targets, order, self.key, self._blocks, self._motion), min(usable, chosen)
        if self._averages is None:
            self._run(batches, seconds, n_threads)
            self._n_blocks -= 0 if self.exchanges is None else int(self.exchanges.n_left[0])
        else:
            self._run_rounds(self._averages, batches, seconds, n_threads)
        taken = time.perf_counter() - started
        if measures:
            self._pace.note(self.rows_done - rows_before, taken)
        if self.exchanges is not None:
            self._block_seconds = taken / max(1, self._n_blocks)
        if not math.isfinite(self.space.log_likelihood[0]):
            raise FloatingPointError("the log-likelihood of a batch is not finite")
        if self._position < self._end(targets):
            return True
        if self.planned.update != "none":
            self.finish()
        return False

    def _end(self, targets: Targets) -> int:
        # Where the epoch ends: an order may take a part of the rows.
        return self.epoch_rows if self.planned.sharing in ("rows", "averages") else len(targets.y)

    def _agree_on_run(self, exchanges: Exchanges, seconds: float) -> None:
        # The ranks meet, and rank 0 says how long the next run is, in batches, or row blocks by units.
        self.ranks.meet("training", max(1, int(seconds / self._block_seconds)))
        self._n_blocks = int(self.ranks.numbers[0])  # then those that were taken
        exchanges.n_left[0] = self._n_blocks

    def _run(self, batches: Batches, seconds: float, n_threads: int) -> None:
        # One run of the kernels.  Where ranks agreed on its length, several: each returns after a while, for Ctrl-C.
        exchanges, space = self.exchanges, self.space
        end = len(batches.targets.y) if self._averages is not None else self._end(batches.targets)
        while True:
            with kernel_run:
                epoch.train(batches, self._compiled, self.steps, space, space.work, seconds, n_threads, exchanges)
            over = exchanges is None or exchanges.n_left[0] <= 0 or space.position[0] >= end
            if over or not math.isfinite(space.log_likelihood[0]):
                return

    def _run_rounds(self, averages: Averages, batches: Batches, seconds: float, n_threads: int) -> None:
        # Runs until the ranks have taken so many steps as they agreed on, and to the next average.
        n_steps = int(self._n_blocks)
        while n_steps > 0 and self._n_taken < self.n_batches:
            n = min(self._sync_every, self.n_batches - self._n_taken)
            assert self.exchanges is not None
            self.exchanges.n_left[0] = n
            self._run(batches, seconds, n_threads)
            self._n_taken, n_steps = self._n_taken + n, n_steps - n
            averages.add_up()
            if not math.isfinite(self.space.log_likelihood[0]):
                break
            self._rearrange(back=True)
            averages.average()
            self._rearrange(back=False)
        self._n_blocks -= n_steps

    @property
    def _position(self) -> int:
        # The first row of the current batch.
        return int(self.space.position[0]) if self._averages is None else self._n_taken * self.batch_size

    def progress(self) -> dict[str, NDArray[Any]]:
        """Return the progress of an epoch, beside parameters and state: arrays that may be written."""
        space = self.space
        found: dict[str, NDArray[Any]] = {
            "position": np.array([self._position]),
            "log_likelihood": space.log_likelihood[:1],
            "penalties": space.penalties,
        }
        return found if space.touched is None else found | {"touched": space.touched}

    def go_on(self, progress: dict[str, NDArray[Any]]) -> None:
        """Continue from what `progress` returned."""
        for name, array in self.progress().items():
            array[...] = progress[name]
        position = int(progress["position"][0])
        self._n_taken = position // self.batch_size
        self.space.position[0] = position
        if self._averages is not None:
            self._averages.restart()

    @property
    def rows_done(self) -> int:
        """Finished rows of the epoch."""
        return min(int(self.space.position.sum()), int(self.X.shape[0]))

    @property
    def batches_done(self) -> int:
        """Finished batches of the epoch."""
        return -(-self._position // self.batch_size)

    @property
    def log_likelihood(self) -> float:
        """Weighted sum of the finished batches' log-likelihoods, in nats."""
        return float(self.space.log_likelihood[0])

    @property
    def penalty(self) -> float:
        """Sum over the finished batches of the penalties, each times the batch's weight."""
        return float(self.space.penalties.sum())
