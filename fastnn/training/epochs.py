"""Training by steps on batches: the loop over epochs and chunks."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.local import Engine
from fastnn.kernels.losses import Targets
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.layout import shares
from fastnn.optimizers import Optimizer, step_table
from fastnn.schedules import Schedule, rates_of
from fastnn.training.active import ActiveFit, DivergenceError
from fastnn.training.checkpoint import EPOCH, Snapshot, Tensors, check_progress
from fastnn.training.data import Chunk
from fastnn.training.settings import penalty_of, sums_over_ranks, threads_of, trains_apart

# Parameters no larger than this cannot overflow in any network of sensible depth and width.
HARMLESS_PARAMETER = 1e4


class NotFiniteError(Exception):
    """The engine met numbers that are not finite; not a FloatingPointError, which a callback might raise."""


@dataclass
class Epoch:
    """An epoch under way: what a checkpoint holds of it beside parameters and state.

    Attributes
    ----------
    parameters, state, n_steps
        At its start.
    learning_rate : float or None
        As a callback had set it at its start.
    index : int
        Finished chunks.
    generator, engine
        State of the random generator at the start of the current chunk, and its engine, which is None between chunks.
    rows, weight, log_likelihood, penalty
        Sums over the finished chunks: rows, their weights, weighted log-likelihoods and penalties.
    batches : int
        Of the finished chunks.
    """

    parameters: NDArray[Any]
    state: NDArray[Any]
    n_steps: int
    learning_rate: float | None
    index: int = 0
    generator: dict[str, Any] = field(default_factory=dict)
    engine: Engine | None = None
    rows: int = 0
    weight: float = 0.0
    log_likelihood: float = 0.0
    penalty: float = 0.0
    batches: int = 0

    def progress(self) -> tuple[dict[str, Any], Tensors]:
        """Return what a checkpoint must hold of the epoch: content, and arrays by name."""
        if self.engine is None:
            return {"generator": self.generator}, {}
        content = {"generator": self.generator, "epoch": {name: vars(self)[name] for name in EPOCH}}
        tensors = {"epoch.parameters": self.parameters, "epoch.state": self.state}
        return content, tensors | {f"space.{name}": array for name, array in self.engine.progress().items()}


def train_epochs(active: ActiveFit, snapshot: Snapshot | None) -> None:
    """Train to the end of the fit; after a snapshot from within an epoch, the rest of that epoch comes first."""
    fit = active.fit
    within_epoch = snapshot is not None and snapshot.epoch is not None
    while len(fit.history) < fit.epochs and (within_epoch or not fit.stop):
        _train_epoch(active, snapshot if within_epoch else None)
        within_epoch = False


def _train_epoch(active: ActiveFit, snapshot: Snapshot | None) -> None:
    started = time.perf_counter()
    fit, state = active.fit, active.state
    progress = None  # the engine's, in the first chunk
    if snapshot is not None and snapshot.epoch is not None:
        epoch = Epoch(snapshot.start["parameters"], snapshot.start["state"], **snapshot.epoch)
        progress = snapshot.progress
    else:
        parameters = active.settings.network.parameters.copy()
        epoch = Epoch(parameters, state.optimizer.copy(), state.n_steps, fit.set_rate)
    idle, active.progress = active.progress, epoch.progress
    for chunk in itertools.islice(active.data.chunks(), epoch.index, None):
        _train_chunk(active, epoch, chunk, progress)
        progress, epoch.engine = None, None
        epoch.index += 1
    active.progress = idle
    log_likelihood = epoch.log_likelihood / epoch.weight
    active.record(started, log_likelihood, log_likelihood - epoch.penalty / epoch.weight)
    fit.note(n_rows=epoch.rows, rows_done=0)
    active.call_on_chunk()
    active.call_on_epoch()


def _train_chunk(active: ActiveFit, epoch: Epoch, chunk: Chunk, progress: Tensors | None) -> None:
    settings, state, engine = active.settings, active.state, chunk.engine
    epoch.engine = engine
    if active.observed:  # NumPy takes longer for its state than a small epoch takes
        epoch.generator = dict(state.generator.bit_generator.state)
    order = _draw_order(active, chunk)
    targets = chunk.targets
    if order is not None:
        weights = None if targets.weights is None else targets.weights[order]
        targets = targets._replace(y=targets.y[order], weights=weights)
    key = int(state.generator.integers(2**63)) if settings.dropout.any() or settings.augment else 0
    weights, n_rows = _batch_weights(active, engine, targets), active.data.n_rows or len(targets.y)
    totals = weights if sums_over_ranks(settings) else None
    engine.restart(_make_steps(active, epoch, weights, n_rows), _own_seed(active, key), totals)
    if progress is not None:
        check_progress(engine, progress, len(targets.y))
        engine.go_on(progress)
    active.ranks.all_tell("an epoch", None)  # an exception of one rank before is known here
    try:
        with active.ranks.together():  # what follows an exception is done together too
            _take_steps(active, epoch, chunk, targets, order)
    except NotFiniteError:
        active.set_parameters(epoch.parameters)
        state.optimizer[...], state.n_steps = epoch.state, epoch.n_steps
        batch = min(engine.batches_done, engine.n_batches - 1) + 1
        raise DivergenceError(len(active.fit.history) + 1, epoch.batches + batch, active.fit.history) from None
    except BaseException:  # Ctrl-C, or a callback's exception
        engine.finish()
        state.n_steps += engine.batches_done
        raise
    state.n_steps += engine.batches_done
    epoch.rows += n_rows
    epoch.batches += engine.batches_done
    epoch.weight += active.weight_of(chunk)
    epoch.log_likelihood += engine.log_likelihood
    epoch.penalty += _sum_penalties(active, chunk)


def _own_seed(active: ActiveFit, seed: int) -> int:
    # If ranks train on different rows, they are not shuffled or dropped alike.
    if not trains_apart(active.settings) or active.ranks.size == 1:
        return seed
    return int(np.random.SeedSequence([seed, active.ranks.rank]).generate_state(1, np.uint64)[0] >> 1)


def _draw_order(active: ActiveFit, chunk: Chunk) -> NDArray[np.intp] | None:
    settings, n, generator = active.settings, len(chunk.targets.y), active.state.generator
    order = None
    if settings.shuffle and chunk.engine.n_batches > 1:
        if settings.rows == "own":  # all ranks draw as much from the generator
            generator = np.random.default_rng(_own_seed(active, int(generator.integers(2**63))))
        order = active.order.draw(generator, n) if chunk.mapped is None else chunk.mapped.shuffled(generator)
    if settings.sync_every is None or settings.rows == "own":
        return order
    begin, end = shares(n, active.ranks.size)[active.ranks.rank :][:2]
    return (np.arange(n) if order is None else order)[begin:end]


def _batch_weights(active: ActiveFit, engine: Engine, targets: Targets) -> NDArray[np.float64]:
    # The sum of the row weights of each batch, in all ranks.
    n, batch_size = len(targets.y), engine.batch_size
    begins = np.minimum(np.arange(engine.n_batches + 1) * batch_size, n)
    if targets.weights is None:
        weights = np.diff(begins).astype(np.float64)
    else:
        weights = np.zeros(engine.n_batches)
        here = -(-n // batch_size)
        weights[:here] = np.add.reduceat(targets.weights, begins[:here]) if n else 0
    return active.ranks.sum("weights", weights) if sums_over_ranks(active.settings) else weights


def _make_steps(active: ActiveFit, epoch: Epoch, weights: NDArray[np.float64], n: int) -> Steps:
    # The numbers of each step on the next chunk of n rows, whose batches have these weights.
    settings, state = active.settings, active.state
    optimizer = settings.optimizer
    assert isinstance(optimizer, Optimizer)
    n_steps = len(weights)
    rate = optimizer.learning_rate if epoch.learning_rate is None else epoch.learning_rate
    if isinstance(rate, Schedule):
        # They count in epochs.  In the first epoch over chunks n_rows is 0: the share that is done is not known.
        n_rows, shares = active.fit.n_rows, np.arange(n_steps) / n_steps
        times = len(state.curve) + ((epoch.rows + n * shares) / n_rows if n_rows else 0 * shares)
        rates = rates_of(rate, times, state.curve)
    else:
        rates = np.full(n_steps, rate)
    table = step_table(optimizer, rates, state.n_steps, penalty_of(settings).l2(weights), settings.l1)
    return Steps(UPDATES[optimizer.update], table, settings.clip_norm or 0.0, settings.max_norm or 0.0)


def _take_steps(
    active: ActiveFit, epoch: Epoch, chunk: Chunk, targets: Targets, order: NDArray[np.intp] | None
) -> None:
    engine = chunk.engine
    with chunk.read_ahead(order) as reach:
        reach(engine.rows_done)
        while _advance(active, chunk, targets, order):
            reach(engine.rows_done)
            active.fit.note(rows_done=epoch.rows + _rows_done(active, engine))
            if active.observed:
                engine.store()
            active.call_on_chunk()


def _rows_done(active: ActiveFit, engine: Engine) -> int:
    # Rows of the chunk that are done, in all ranks.
    if trains_apart(active.settings):
        return active.data.n_rows * engine.batches_done // engine.n_batches
    return engine.rows_done


def _advance(active: ActiveFit, chunk: Chunk, targets: Targets, order: NDArray[np.intp] | None) -> bool:
    # Trains for CHUNK_SECONDS; returns whether the chunk has more rows.
    try:
        if chunk.engine.advance(targets, order, tuning.CHUNK_SECONDS):
            return True
        _check_finite(active, chunk)
    except FloatingPointError:
        raise NotFiniteError from None
    return False


def _check_finite(active: ActiveFit, chunk: Chunk) -> None:
    # The engine checks log-likelihoods before each step; this checks the network after the last step.
    settings, network = active.settings, active.settings.network
    largest = max(float(network.parameters.max()), -float(network.parameters.min()))  # NaN propagates
    if largest <= HARMLESS_PARAMETER:
        return
    data = chunk.rows, chunk.targets, threads_of(settings)
    if not np.isfinite(largest) or not np.isfinite(
        network.score(*data, active.ranks, settings.rows == "own")[0]  # a rank's own rows may be none
    ):
        raise FloatingPointError("the last step left the finite numbers")


def _sum_penalties(active: ActiveFit, chunk: Chunk) -> float:
    penalty = chunk.engine.penalty
    if chunk.engine.space.touched is not None:
        # The engine leaves out the first weight, since its rows are moved late; l2 is the same in all batches then.
        l2, W = penalty_of(active.settings).constant, active.settings.network.weights[0]
        assert l2 is not None
        total = active.weight_of(chunk)
        with np.errstate(over="ignore"):  # on the way to divergence
            penalty += total * l2 / 2 * float(np.square(W, dtype=np.float64).sum())
    return penalty
