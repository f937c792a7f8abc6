"""The fit under way, for the trainer; callbacks see it as `fastnn.callbacks.Fit`."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.callbacks import Callback, Checkpoint, Fit
from fastnn.engine.ranks import ranks_of
from fastnn.history import History
from fastnn.optimizers import LBFGS
from fastnn.training import checkpoint
from fastnn.training.data import Chunk, Data
from fastnn.training.settings import Settings, threads_of
from fastnn.training.state import TrainState


class DivergenceError(ArithmeticError):
    """Training left the finite numbers; the network is as it was after the last good epoch.

    Attributes
    ----------
    epoch, batch : int
        Where it happened, both counted from 1 within the fit.
    history : History
        Of the epochs before.
    """

    def __init__(self, epoch: int, batch: int, history: History) -> None:
        super().__init__(
            f"the log-likelihood became infinite or NaN in epoch {epoch}, batch {batch}; the network is as it was "
            f"{'before the fit' if epoch == 1 else f'after epoch {epoch - 1}'}. Try a smaller learning rate."
        )
        self.epoch = epoch
        self.batch = batch
        self.history = history

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.epoch, self.batch, self.history)


class ActiveFit:
    """A fit under way: its parts, and what both ways to train do between two calls of the engine.

    Attributes
    ----------
    settings, state, data, fit
        What the fit reads, what it changes, its data, and its view for callbacks, to which the bar is added.
    callbacks : list of Callback
        In the order of calls: checkpoints last, since they keep the state of the others.
    observed : bool
        Whether a callback may read the network, or save a checkpoint, within an epoch.
    order : RandomOrder
        Draws the orders of rows.
    ranks : Ranks
        That train together; callbacks and files belong to rank 0.
    progress : callable
        Returns what a checkpoint must hold of an epoch, or of L-BFGS, under way: content, and arrays by name.
    """

    def __init__(self, settings: Settings, state: TrainState, data: Data, fit: Fit, bar: Callback) -> None:
        self.settings = settings
        self.state = state
        self.data = data
        self.fit = fit
        self.ranks = ranks_of(settings.comm)
        callbacks = [*settings.callbacks, bar] if self.ranks.rank == 0 else []
        self.callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint))
        self.observed = settings._variant.observed and bool(settings.callbacks)
        self.order = settings._variant.order()
        self.progress: Callable[[], tuple[dict[str, Any], checkpoint.Tensors]] = lambda: ({}, {})

    @cached_property
    def fingerprint(self) -> checkpoint.Fingerprint:
        """All that the bits of the fit depend on."""
        return checkpoint.fingerprint(self.settings, self.data.source)

    def save_checkpoint(self, path: str) -> None:
        """Write a file from which the fit can resume."""
        checkpoint.write(path, self.fingerprint, self.state, self.fit, self.progress())

    def set_parameters(self, parameters: NDArray[Any]) -> None:
        """Write into the network's parameters."""
        self.parameters[:] = parameters

    @property
    def parameters(self) -> NDArray[Any]:
        """The network's parameters."""
        return self.settings.network.parameters

    def weight_of(self, chunk: Chunk) -> float:
        """Return the sum of the weights of a chunk's rows, in all ranks."""
        weights = chunk.targets.weights
        total = float(len(chunk.targets.y) if weights is None else weights.sum())
        if self.settings.rows == "shared":
            return total
        return float(self.ranks.sum("weights", np.array([total]))[0])

    def record(self, started: float, log_likelihood: float, objective: float) -> None:
        """Measure on the validation data, and add to the history an epoch that started at this time."""
        network, data, n_threads = self.settings.network, self.data, threads_of(self.settings)
        own_rows = self.settings.rows == "own"
        validation = None
        if data.validation is not None:
            validation = network.score(*data.validation, n_threads, self.ranks, own_rows)
        self.fit.history.record(time.perf_counter() - started, log_likelihood, objective, validation)
        self.state.curve.append(log_likelihood if validation is None else validation[0])

    def call_on_chunk(self) -> None:
        """Call `on_chunk` of the callbacks, after a stretch of training; they must not change the network."""
        # The engine may hold the parameters in other forms meanwhile; the progress bar does not read them.
        with self.ranks.together(), self.settings.network.read_only() if self.observed else nullcontext():
            for callback in self.callbacks:
                callback.on_chunk(self.fit)

    def call_on_epoch(self) -> None:
        """Call `on_epoch` of the callbacks; all ranks then go on from what these set."""

        def call() -> tuple[bool, float | None]:
            for callback in self.callbacks:
                callback.on_epoch(self.fit)
            return self.fit.stop, self.fit.set_rate

        self._compare_parameters()
        self.fit.stop, self.fit.set_rate = self.ranks.first_tells("the callbacks", call)
        if self.observed and not isinstance(self.settings.optimizer, LBFGS):  # they may have changed the network
            self.ranks.spread(self.parameters)

    def _compare_parameters(self) -> None:
        # All ranks have the same bits, unless one of them has gone astray: by a fault of its memory, say.
        if self.ranks.size == 1:
            return
        self.ranks.meet("the parameters", zlib.crc32(self.parameters.view(np.uint8).data))
        strays = np.flatnonzero(self.ranks.numbers != self.ranks.numbers[0]).tolist()
        if strays:
            raise RuntimeError(f"the parameters of ranks {strays} are no longer those of rank 0: the fit ends here")

    def leave(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Leave the fit together with the other ranks, with rank 0's parameters; for an ExitStack."""
        if self.ranks.size > 1:
            try:
                self.ranks.meet("the end", error=error, heeds_interrupts=False)
                if self.ranks.heed():
                    self.fit.history.interrupt()
            finally:
                self.ranks.spread(self.parameters)
