"""The trainer: epochs over the data, one engine call after another, and what happens between them."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._engine import CHUNK_SECONDS, Engine, Rows, available_threads, choose_storage, single_threaded_blas
from fastnn._mapped import MappedRows, stay_on_disk
from fastnn._validation import (
    check_choice,
    check_integer,
    check_number,
    check_path,
    check_seed,
    check_shares,
    check_threads,
)
from fastnn.callbacks import Callback, Checkpoint, Fit, History, ProgressBar
from fastnn.kernels.losses import Targets
from fastnn.kernels.rows import draw_order
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.network import Network
from fastnn.optimizers import LBFGS, SGD, Optimizer, step_table
from fastnn.schedules import Schedule, rates_of
from fastnn.storage import load_checkpoint, save_checkpoint

# A checkpoint of L-BFGS holds so many bytes of gradients, the first ones of the fit; later ones are computed again.
TOLD_BYTES = 1 << 28

# Parameters no larger than this cannot overflow in any network of sensible depth and width.
HARMLESS_PARAMETER = 1e4

# Updates whose steps without a gradient are linear, so that many can be made up for at once.
LINEAR_UPDATES = ("sgd", "momentum", "nesterov")


class DivergenceError(ArithmeticError):
    """Training left the finite numbers; the network is as it was after the last good epoch.

    Attributes
    ----------
    epoch, batch : int
        Where it happened, both counted from 1 within the fit.
    history : History
        Of the good epochs.
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


@dataclass
class Chunk:
    """Rows that are in memory at a time, and the engine that has been made ready for them: mostly all rows."""

    rows: Rows
    targets: Targets
    engine: Engine
    mapped: MappedRows | None = None

    def read_ahead(self, order: NDArray[np.intp] | None) -> AbstractContextManager[Callable[[int], None]]:
        """Return a context whose value takes the number of rows done, and waits for the next ones to be in memory."""
        return nullcontext(lambda done: None) if self.mapped is None else self.mapped.read_ahead(order)


@dataclass
class Epoch:
    """An epoch under way: what a checkpoint holds of it beside parameters and state.

    Attributes
    ----------
    parameters, state, n_steps
        At its start.
    index : int
        Chunks that are done.
    generator, engine
        State of the random numbers at the start of the current chunk, and its engine.
    rows, weight, log_likelihood, penalty
        Sums over the chunks that are done: rows, their weights, weighted log-likelihoods and penalties.
    batches : int
        Of the chunks that are done.
    """

    parameters: NDArray[Any]
    state: NDArray[Any]
    n_steps: int
    index: int = 0
    generator: dict[str, Any] = field(default_factory=dict)
    engine: Engine | None = None
    rows: int = 0
    weight: float = 0.0
    log_likelihood: float = 0.0
    penalty: float = 0.0
    batches: int = 0


class Trainer:
    """Trains a network by ascending its mean log-likelihood.

    The objective is the weighted mean log-likelihood of a batch minus ``l2 / 2`` times the sum of squared weights and
    ``l1`` times the sum of their magnitudes, the biases left out.  The same seed and input give the same bits,
    whatever the number of threads.  Numbers too small to be normal in the network's dtype, which x86 processors are
    slow with, count as 0 there while training.

    Parameters
    ----------
    network : Network
        Trained in place.
    optimizer : Optimizer or LBFGS, default SGD(learning_rate=0.5)
        How a step is made from a gradient: see `fastnn.optimizers`.
    batch_size : int or None, default None
        Rows a step; a short last batch is trained on too, with its own mean.  None takes all rows at once.
    l2 : float, default 0.0
        Weight of the penalty on squares.
    shuffle : bool, default True
        Whether each epoch takes the rows in a new random order.
    seed : int, numpy.random.Generator or None, default 0
        For the shuffling, and for dropout.
    n_threads : int or None, default None
        None takes the processors that the process may run on, at most OMP_NUM_THREADS.  At most 8 are used.
    sparse : bool or "auto", default "auto"
        Whether dense input is taken for sparse, so that the first layer works on the non-zeros only; "auto"
        does so if fewer than a quarter of the values are non-zero, which costs one pass over the data at the
        start of a fit.  Sparse input stays sparse.  The results are the same to rounding.
    callbacks : iterable of Callback, default ()
        Told what happens; see `fastnn.callbacks`.
    l1 : float, default 0.0
        Weight of the penalty on magnitudes.
    dropout : float or a list, one a hidden layer, default 0.0
        Share of the hidden units' outputs that is set to 0 at random, the others being scaled up [1]_.
    label_smoothing : float, default 0.0
        Share of the true class's probability that is spread over all classes [2]_; for cross-entropy.
    clip_norm : float or None, default None
        Length to which a longer gradient of the log-likelihood is shortened [3]_.
    max_norm : float or None, default None
        Length to which the weights into a hidden unit are shortened after a step [1]_.

    References
    ----------
    .. [1] N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple way to prevent
       neural networks from overfitting", JMLR 15 (2014).
    .. [2] C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, "Rethinking the Inception architecture for computer
       vision" (2015).
    .. [3] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import Network, Trainer
    >>> X, y = np.array([[0.0], [1.0]]), np.array([0, 1])
    >>> net = Network([1, 2])
    >>> history = Trainer(net).fit(X, y, epochs=100)
    >>> net.predict(X)
    array([0, 1])
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer | LBFGS = SGD(learning_rate=0.5),  # noqa: B008  it is immutable
        batch_size: int | None = None,
        l2: float = 0.0,
        shuffle: bool = True,
        seed: int | np.random.Generator | None = 0,
        n_threads: int | None = None,
        sparse: bool | str = "auto",
        callbacks: Iterable[Callback] = (),
        l1: float = 0.0,
        dropout: float | Sequence[float] = 0.0,
        label_smoothing: float = 0.0,
        clip_norm: float | None = None,
        max_norm: float | None = None,
    ) -> None:
        if not isinstance(network, Network):
            raise TypeError(f"network must be a fastnn.Network, not {type(network).__name__}")
        if not isinstance(optimizer, (Optimizer, LBFGS)):
            raise TypeError(f"optimizer must be an optimizer such as fastnn.SGD(), not {optimizer!r}")
        self.network = network
        self.optimizer = optimizer
        self.batch_size = None if batch_size is None else check_integer(batch_size, "batch_size", 1)
        self.l2 = check_number(l2, "l2", 0)
        self.shuffle = check_choice(shuffle, "shuffle", [False, True])
        self.n_threads = check_threads(n_threads) or available_threads()
        self.sparse = check_choice(sparse, "sparse", [False, True, "auto"])
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks must be fastnn.callbacks.Callback objects, not {callback!r}")
        self.l1 = check_number(l1, "l1", 0)
        self.dropout = check_shares(dropout, len(network.sizes) - 2, "dropout")
        self.label_smoothing = check_number(label_smoothing, "label_smoothing", 0, 1)
        if self.label_smoothing > 0 and network.loss != "cross_entropy":
            raise ValueError(f"label_smoothing is for cross-entropy; the network's loss is {network.loss!r}")
        self.clip_norm = None if clip_norm is None else check_number(clip_norm, "clip_norm", 0, open_left=True)
        self.max_norm = None if max_norm is None else check_number(max_norm, "max_norm", 0, open_left=True)
        self._generator = check_seed(seed)
        # What goes on from one fit to the next: the optimizer's state and steps, epochs, and what each reached.
        self._state = np.empty((0, network.parameters.size), network.dtype)
        self._kind: type | None = None  # of the optimizer that the state belongs to
        self._n_steps = 0
        self._curve: list[float] = []
        self._run: Epoch | None = None  # the epoch under way
        self._asked: _Asked | None = None  # the fit by L-BFGS under way

    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        epochs: int = 10,
        validation: Sequence[Any] | None = None,
        progress: bool | None = None,
        sample_weight: ArrayLike | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> History:
        """Train for a number of epochs; call again to go on.

        Parameters
        ----------
        X : (n, n_in) array or scipy.sparse matrix, or an iterable of chunks
            Rows to train on: any real type, finite; uint8 is taken as pixels, each multiplied by 1/256.  A
            memory-mapped array (`numpy.memmap`, C-contiguous, of uint8, float32 or float64) stays on the disk: see the
            notes.  Without y, X is an iterable of pairs (X, y) or triples (X, y, sample_weight), gone through once an
            epoch: each is trained on in turn, and only one need be in memory.
        y : (n,) integer array, or (n, n_out) numbers
            Class of each row, from 0; what the outputs should be, where the network's loss is not cross-entropy.
        epochs : int, default 10
            How often to go through the rows.
        validation : (X, y) or (X, y, sample_weight) or None
            Rows on which log-likelihood and error are measured after each epoch.
        progress : bool or None, default None
            Whether to show a progress bar; None does where the standard error stream is a terminal.
        sample_weight : (n,) array or None
            How much each row counts; at least 0.
        resume : path or None
            File of a `fastnn.callbacks.Checkpoint`.  Where it exists, the fit goes on from there, with the same bits as
            if it had never stopped, to the same number of epochs in all; data, network and settings must be those of
            the fit that wrote it.

        Returns
        -------
        History
            Of this fit, with the epochs before a resumption.  Ctrl-C ends it early: the history so far comes back with
            `interrupted` set, and the network is whole, as after the last finished step.

        Raises
        ------
        DivergenceError
            If the log-likelihood or a parameter stops being finite.  The network is then as it was after the
            last good epoch.
        TypeError, ValueError
            If the input is not as described; nothing has been trained then.

        Notes
        -----
        A memory-mapped X is read once before the fit, to see that its numbers are finite, and once an epoch, a
        little ahead of training.  Where it has more than 256 MB, it is shuffled so that the disk is read in long
        stretches: pieces of 1 MB in a random order, and then the rows within each 256 MB of these.  The seed settles
        that order as any other, but it is not the one of the same rows in memory; and ``sparse="auto"`` leaves such
        rows dense, since a copy may not fit into memory.
        """
        valid = None
        if validation is not None:
            if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
                raise TypeError(f"validation must be a pair (X, y), not {type(validation).__name__}")
            weights = validation[2] if len(validation) == 3 else None
            names = "validation[0]", "validation[1]"
            rows, targets = self.network.check_data(validation[0], validation[1], weights, names)
            valid = self._choose_storage(rows, validation[0]), targets
        epochs = check_integer(epochs, "epochs", 0)
        check_choice(progress, "progress", [None, False, True])
        self._begin_optimizer()
        chunks, n_rows = self._chunks(X, y, sample_weight)
        fit = Fit(self, epochs, n_rows)
        callbacks = [*self.callbacks, ProgressBar(progress)]
        started = []
        checkpoint = None
        if resume is not None and os.path.exists(check_path(resume, "resume")):
            checkpoint = load_checkpoint(check_path(resume, "resume"))
            self._restore(check_path(resume, "resume"), fit, *checkpoint)
        try:
            for callback in callbacks:
                callback.on_start(fit)
                started.append(callback)
            if checkpoint is not None:
                self._restore_callbacks(checkpoint[1])
            if isinstance(self.optimizer, LBFGS):
                self._minimize(fit, chunks, valid, callbacks, None if checkpoint is None else checkpoint[1])
            while len(fit.history) < epochs and not fit.stop and not isinstance(self.optimizer, LBFGS):
                self._epoch(fit, chunks, valid, callbacks, checkpoint)
                checkpoint = None
        except KeyboardInterrupt:
            fit.history.interrupt()
        finally:
            self._run = None
            for callback in started:
                callback.on_end(fit)
        return fit.history

    def _settings(self) -> dict[str, Any]:
        # What must agree between the fit that wrote a checkpoint and the one that goes on from it.
        network = self.network
        return {
            "network": repr(network),
            "optimizer": repr(self.optimizer),
            "batch_size": self.batch_size,
            "l2": self.l2,
            "shuffle": self.shuffle,
            "l1": self.l1,
            "dropout": self.dropout.tolist(),
            "label_smoothing": self.label_smoothing,
            "clip_norm": self.clip_norm,
            "max_norm": self.max_norm,
        }

    def save_checkpoint(self, path: str | os.PathLike[str], fit: Fit) -> None:
        """Write a file from which `fit` can resume; `fastnn.callbacks.Checkpoint` does it in time.

        Parameters
        ----------
        path : path
            Replaced atomically: a crash leaves an old file whole.
        fit : Fit
            The fit under way, as a callback is given it.
        """
        run = self._run
        tensors = {"parameters": self.network.parameters, "state": self._state}
        content: dict[str, Any] = {
            "settings": self._settings(),
            "history": fit.history.columns(),
            "n_rows": fit.n_rows,
            "curve": self._curve,
            "n_steps": self._n_steps,
            "generator": self._generator.bit_generator.state if run is None else run.generator,
        }
        if run is not None and run.engine is not None:
            content["epoch"] = {name: value for name, value in vars(run).items() if isinstance(value, (int, float))}
            tensors |= {"epoch.parameters": run.parameters, "epoch.state": run.state}
            tensors |= {f"space.{name}": array for name, array in run.engine.progress().items()}
        if self._asked is not None:
            tensors |= self._asked.tensors()
        for i, callback in enumerate(self.callbacks):
            tensors |= {f"callbacks.{i}.{name}": array for name, array in callback.state().items()}
        content["generator"] = _as_json(content["generator"])
        save_checkpoint(check_path(path), content, tensors)

    def _restore(self, path: str, fit: Fit, content: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> None:
        for name, value in self._settings().items():
            if content["settings"].get(name) != value:
                raise ValueError(
                    f"{path} was written with {name}={content['settings'].get(name)!r}, but here it is {value!r}"
                )
        if fit.n_rows and content["n_rows"] != fit.n_rows:
            raise ValueError(f"{path} was written for {content['n_rows']} rows, but X has {fit.n_rows}")
        self.network.parameters, self._state[...] = tensors["parameters"], tensors["state"]
        self._n_steps, self._curve, fit.n_rows = content["n_steps"], content["curve"], content["n_rows"]
        for name, values in fit.history.columns().items():
            values[:] = content["history"][name]
        self._generator.bit_generator.state = content["generator"]

    def _restore_callbacks(self, tensors: dict[str, NDArray[Any]]) -> None:
        for i, callback in enumerate(self.callbacks):
            prefix = f"callbacks.{i}."
            callback.restore({name[len(prefix) :]: a for name, a in tensors.items() if name.startswith(prefix)})

    def _begin_optimizer(self) -> None:
        # A state goes on only with an optimizer of its kind.
        n_slots = self.optimizer.n_slots if isinstance(self.optimizer, Optimizer) else 0
        if type(self.optimizer) is not self._kind or len(self._state) != n_slots:
            self._state = np.zeros((n_slots, self.network.parameters.size), self.network.dtype)
            self._n_steps = 0
        self._kind = type(self.optimizer)

    def _chunks(
        self, X: Any, y: ArrayLike | None, sample_weight: ArrayLike | None
    ) -> tuple[Callable[[], Iterator[Chunk]], int]:
        # What goes through the data once, and the number of rows if it is known.
        if y is not None:
            chunk = self._chunk(X, y, sample_weight, again=True)
            return lambda: iter([chunk]), len(chunk.targets.y)
        if sample_weight is not None or isinstance(X, np.ndarray) or not isinstance(X, Iterable):
            raise TypeError("y is needed, unless X is an iterable of pairs (X, y)")

        def each() -> Iterator[Chunk]:
            empty = True
            for part in X:
                empty = False
                if not isinstance(part, (tuple, list)) or len(part) not in (2, 3):
                    raise TypeError(f"chunks must be pairs (X, y) or triples (X, y, sample_weight), not {type(part)}")
                yield self._chunk(part[0], part[1], part[2] if len(part) == 3 else None, again=False)
            if empty:
                raise ValueError("X gave no chunks: it must be possible to go through it again in each epoch")

        return each, 0

    def _chunk(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None, again: bool) -> Chunk:
        # again: the same rows will be trained on in further epochs
        rows, targets = self.network.check_data(X, y, sample_weight, n_threads=self.n_threads)
        targets = targets._replace(smoothing=self.label_smoothing)
        rows = self._choose_storage(rows, X)
        engine = self.network.engine(self.n_threads, self.dropout if self.dropout.any() else None)
        n_rows = len(targets.y)
        optimizer, batch_size = self.optimizer, min(self.batch_size or n_rows, n_rows)
        mapped = MappedRows(rows, batch_size) if stay_on_disk(rows, X) else None
        if isinstance(optimizer, LBFGS):
            engine.begin(rows, n_rows, in_order=True)
            return Chunk(rows, targets, engine, mapped)
        alike = not isinstance(optimizer.learning_rate, Schedule) and self._l2_is_constant()
        gradual = self.l1 == 0 and not self.clip_norm and optimizer.decay == 0
        engine.begin(
            rows,
            batch_size,
            optimizer.update,
            self._state,
            again and (not self.shuffle or batch_size == n_rows),
            lazy=alike and gradual and not self.max_norm and optimizer.update in LINEAR_UPDATES,
            direct=gradual and self.l2 == 0 and optimizer.update == "sgd",
        )
        return Chunk(rows, targets, engine, mapped)

    def _choose_storage(self, rows: Rows, X: Any) -> Rows:
        # Of rows that X was checked into.  Those that stay on the disk have no copy, which may not fit into memory.
        sparse = False if self.sparse == "auto" and stay_on_disk(rows, X) else self.sparse
        return choose_storage(rows, self.network.dtype, sparse, self.n_threads)

    def _l2(self, batch_weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weight of the penalty in each batch, given the sum of each batch's weights."""
        return np.full(len(batch_weights), self.l2)

    def _l2_is_constant(self) -> bool:
        return type(self)._l2 is Trainer._l2

    def _steps(self, chunk: Chunk, targets: Targets, done: int, n_rows: int) -> Steps:
        # The numbers of each step on a chunk; done rows of the epoch's n_rows (0: not known) came before.
        optimizer = self.optimizer
        assert isinstance(optimizer, Optimizer)
        n, batch_size = len(targets.y), chunk.engine.batch_size
        starts = np.arange(0, n, batch_size)
        sizes = np.minimum(batch_size, n - starts).astype(np.float64)
        weights = sizes if targets.weights is None else np.add.reduceat(targets.weights, starts)
        shares = np.arange(len(starts)) / len(starts)
        times = len(self._curve) + ((done + n * shares) / n_rows if n_rows else 0 * shares)
        rates = rates_of(optimizer.learning_rate, times, self._curve)
        table = step_table(optimizer, rates, self._n_steps, self._l2(weights), self.l1)
        return Steps(UPDATES[optimizer.update], table, self.clip_norm or 0.0, self.max_norm or 0.0)

    def _check_still_finite(self, chunk: Chunk) -> None:
        # The engine saw each log-likelihood before its step; this is about the network after the last one.
        parameters = self.network.parameters
        largest = max(float(parameters.max()), -float(parameters.min()))  # NaN propagates
        if largest <= HARMLESS_PARAMETER:
            return
        if not np.isfinite(largest) or not np.isfinite(
            self.network.score(chunk.rows, chunk.targets, self.n_threads)[0]
        ):
            raise FloatingPointError("the last step left the finite numbers")

    def _epoch(
        self,
        fit: Fit,
        chunks: Callable[[], Iterator[Chunk]],
        valid: tuple[Rows, Targets] | None,
        callbacks: list[Callback],
        checkpoint: tuple[dict[str, Any], dict[str, NDArray[Any]]] | None,
    ) -> None:
        start = time.perf_counter()
        network, history = self.network, fit.history
        run = self._run = Epoch(network.parameters.copy(), self._state.copy(), self._n_steps)
        progress = None  # of the first chunk, where a checkpoint was written within an epoch
        if checkpoint is not None and "epoch" in checkpoint[0]:
            content, tensors = checkpoint
            run = self._run = Epoch(tensors["epoch.parameters"], tensors["epoch.state"], **content["epoch"])
            progress = {name[6:]: array for name, array in tensors.items() if name.startswith("space.")}
        for chunk in itertools.islice(chunks(), run.index, None):
            self._train_on(chunk, run, fit, callbacks, progress)
            progress, run.engine = None, None
            run.index += 1
        self._run = None
        log_likelihood = run.log_likelihood / run.weight
        validation = None if valid is None else network.score(*valid, self.n_threads)
        history.record(
            time.perf_counter() - start, log_likelihood, log_likelihood - run.penalty / run.weight, validation
        )
        self._curve.append(log_likelihood if validation is None else validation[0])
        fit.n_rows, fit.rows_done = run.rows, 0
        for callback in callbacks:
            callback.on_chunk(fit)
            callback.on_epoch(fit)

    def _train_on(
        self,
        chunk: Chunk,
        run: Epoch,
        fit: Fit,
        callbacks: list[Callback],
        progress: dict[str, NDArray[Any]] | None,
    ) -> None:
        # One chunk of an epoch; progress is how far a checkpoint came with it.
        engine, targets = chunk.engine, chunk.targets
        run.engine = engine
        run.generator = dict(self._generator.bit_generator.state)
        order = None
        if self.shuffle and engine.batch_size < len(targets.y):
            mapped, n = chunk.mapped, len(targets.y)
            order = self._draw_order(n) if mapped is None else mapped.shuffled(self._generator)
            weights = None if targets.weights is None else targets.weights[order]
            targets = targets._replace(y=targets.y[order], weights=weights)
        key = int(self._generator.integers(2**63)) if self.dropout.any() else 0
        engine.restart(self._steps(chunk, targets, run.rows, fit.n_rows), key)
        if progress is not None:
            for name, array in engine.progress().items():
                array[...] = progress[name]
        try:
            with chunk.read_ahead(order) as reach:
                reach(engine.rows_done)
                while engine.advance(targets, order, CHUNK_SECONDS):
                    reach(engine.rows_done)
                    fit.rows_done = run.rows + engine.rows_done
                    if self.callbacks:  # they may look at the network
                        engine.store()
                    for callback in callbacks:
                        callback.on_chunk(fit)
            self._check_still_finite(chunk)
        except FloatingPointError:
            self.network.parameters, self._state[...], self._n_steps = run.parameters, run.state, run.n_steps
            batch = min(engine.batches_done, (len(targets.y) - 1) // engine.batch_size) + 1
            raise DivergenceError(len(fit.history) + 1, run.batches + batch, fit.history) from None
        except BaseException:  # Ctrl-C, or a callback's own
            engine.finish()
            self._n_steps += engine.batches_done
            raise
        self._n_steps += engine.batches_done
        run.rows += len(targets.y)
        run.batches += engine.batches_done
        run.weight += len(targets.y) if targets.weights is None else float(targets.weights.sum())
        run.log_likelihood += engine.log_likelihood
        run.penalty += self._penalty(chunk)

    def _draw_order(self, n: int) -> NDArray[np.intp]:
        """Draw an order (n,) of rows."""
        order = np.empty(n, np.intp)
        draw_order(self._generator.bit_generator, order)
        return order

    def _penalty(self, chunk: Chunk) -> float:
        penalty = chunk.engine.penalty
        if chunk.engine.space.touched is not None:
            total = len(chunk.targets.y) if chunk.targets.weights is None else float(chunk.targets.weights.sum())
            penalty += total * self.l2 / 2 * float(np.square(self.network.weights[0], dtype=np.float64).sum())
        return penalty

    def _gradient(self, chunk: Chunk, steps: Steps) -> NDArray[Any]:
        """Gradient of the objective over a chunk's rows, in the parameters' layout."""
        return chunk.engine.gradient(chunk.targets, steps)

    def _minimize(
        self,
        fit: Fit,
        chunks: Callable[[], Iterator[Chunk]],
        valid: tuple[Rows, Targets] | None,
        callbacks: list[Callback],
        restored: dict[str, NDArray[Any]] | None,
    ) -> None:
        # L-BFGS; what SciPy minimises is minus the objective.  It keeps what it knows of the curvature to itself, so a
        # fit is resumed from its start, and is told again what it had been told, as far as that was kept.
        from scipy.optimize import minimize

        chunk, *others = chunks()
        network, targets, optimizer = self.network, chunk.targets, self.optimizer
        assert isinstance(optimizer, LBFGS)
        if others or (self.batch_size or len(targets.y)) < len(targets.y):
            raise ValueError("LBFGS takes all rows at once: no chunks, and batch_size=None")
        if self.dropout.any() or self.l1 or self.clip_norm or self.max_norm:
            raise ValueError("LBFGS takes no dropout, l1, clip_norm or max_norm")
        if network.batch_norm:
            raise ValueError("LBFGS does not train a network with batch_norm=True, which is made for steps on batches")
        if fit.epochs <= len(fit.history):
            return
        total = float(len(targets.y) if targets.weights is None else targets.weights.sum())
        steps = Steps(UPDATES["none"], np.array([[self._l2(np.array([total]))[0], 0.0, 0.0]]))
        seen: tuple[float, float] = (0.0, 0.0)
        keeps = any(isinstance(callback, Checkpoint) for callback in callbacks)
        asked = self._asked = _Asked(network.parameters, keeps, restored)
        accepted = asked.start.astype(np.float64)
        n_evaluations, n_iterations, n_restored = 0, 0, len(fit.history)
        started = time.perf_counter()

        def negative(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            nonlocal seen, n_evaluations
            if n_evaluations < len(asked.gradients):
                seen, gradient = asked.seen[n_evaluations], asked.gradients[n_evaluations]
            else:
                network.parameters = x
                gradient = self._gradient(chunk, steps)
                log_likelihood = chunk.engine.log_likelihood / total
                seen = log_likelihood, log_likelihood - chunk.engine.penalty / total
                asked.keep(seen, gradient)
            n_evaluations += 1
            return -seen[1], -gradient.astype(np.float64)

        def on_iteration(x: NDArray[np.float64]) -> None:
            nonlocal accepted, started, n_iterations
            # What was evaluated last is what was accepted.
            accepted = network.parameters = x
            n_iterations += 1
            if n_iterations <= n_restored:
                started = time.perf_counter()
                return
            validation = None if valid is None else network.score(*valid, self.n_threads)
            fit.history.record(time.perf_counter() - started, *seen, validation)
            self._curve.append(seen[0] if validation is None else validation[0])
            started = time.perf_counter()
            for callback in callbacks:
                callback.on_chunk(fit)
                callback.on_epoch(fit)
            if fit.stop:
                raise _Stopped

        options = {
            "maxiter": fit.epochs,
            "maxcor": optimizer.memory,
            "maxfun": optimizer.max_fun,
            "maxls": 50,
            "gtol": optimizer.tol,
            "ftol": np.finfo(np.float64).eps,
        }
        try:
            with single_threaded_blas:  # SciPy's own part of an iteration is small
                found = minimize(
                    negative, accepted, method="L-BFGS-B", jac=True, callback=on_iteration, options=options
                )
            accepted = found.x
            fit.history.converged = bool(found.success)
        except _Stopped:
            pass
        except FloatingPointError:
            raise DivergenceError(len(fit.history) + 1, 1, fit.history) from None
        finally:
            network.parameters = accepted
            self._asked = None


def _as_json(value: Any) -> Any:
    # The state of a bit generator: nested dictionaries of integers, text and, in some, arrays.
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


class _Asked:
    """Where a fit by L-BFGS began, and what it was told since, as far as there is room for it."""

    NAMES = "lbfgs.start", "lbfgs.seen", "lbfgs.gradients"

    def __init__(self, parameters: NDArray[Any], keeps: bool, restored: dict[str, NDArray[Any]] | None) -> None:
        self.start = parameters.copy()
        self.seen: list[tuple[float, float]] = []
        self.gradients: list[NDArray[Any]] = []
        self._room = TOLD_BYTES if keeps else 0
        if restored is not None:
            start, seen, gradients = (restored.get(name, np.empty(0)) for name in self.NAMES)
            if start.shape != parameters.shape or gradients.shape != (len(seen), len(start)) or seen.shape[1:] != (2,):
                raise ValueError("the checkpoint does not hold what a fit by L-BFGS needs")
            self.start = start
            for pair, gradient in zip(seen.tolist(), gradients, strict=True):
                self.seen.append(tuple(pair))
                self.gradients.append(gradient)
                self._room -= gradient.nbytes

    def keep(self, seen: tuple[float, float], gradient: NDArray[Any]) -> None:
        """Note log-likelihood, objective and gradient, if all before them have been noted too."""
        self._room -= gradient.nbytes
        if self._room >= 0:
            self.seen.append(seen)
            self.gradients.append(gradient.copy())

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return all this as arrays."""
        shape = len(self.gradients), len(self.start)
        gradients = np.array(self.gradients, self.start.dtype).reshape(shape)
        return dict(zip(self.NAMES, (self.start, np.array(self.seen).reshape(-1, 2), gradients), strict=True))


class _Stopped(Exception):
    """A callback asked a fit by L-BFGS to end."""
