"""The trainer: epochs over the data, one engine call after another, and what happens between them."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn import _resume, tuning
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
from fastnn.engine.local import Engine
from fastnn.engine.rows import Rows, choose_storage
from fastnn.engine.threads import available_threads, import_whole, in_use, single_threaded_blas
from fastnn.kernels.losses import Targets
from fastnn.kernels.rows import UINT8_SCALE, CSRRows, draw_order
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.network import Network
from fastnn.optimizers import LBFGS, SGD, Optimizer, step_table
from fastnn.plan import Method
from fastnn.schedules import Schedule, rates_of
from fastnn.storage import save_checkpoint

# A checkpoint of L-BFGS holds so many bytes of gradients, the first ones of the fit; later ones are computed again.
TOLD_BYTES = 1 << 28

# Parameters no larger than this cannot overflow in any network of sensible depth and width.
HARMLESS_PARAMETER = 1e4

ALL_AT_ONCE = "LBFGS takes all rows at once: no chunks, and batch_size=None"


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
class Data:
    """What a fit goes through in each epoch.

    Attributes
    ----------
    chunks : callable
        Goes through the chunks once.
    n_rows : int
        Of all of them; 0 if not known.
    validation : (Rows, Targets) or None
        To measure on after each epoch.
    source : Source
        What tells these data from others.
    whole : Chunk or None
        The only chunk, where it is known beforehand.
    are_pixels : bool
        Whether the rows are uint8, which is scaled: whoever reads such rows from a file later has to know.
    """

    chunks: Callable[[], Iterator[Chunk]]
    n_rows: int
    validation: tuple[Rows, Targets] | None
    source: _resume.Source
    whole: Chunk | None
    are_pixels: bool = False


@dataclass
class Epoch:
    """An epoch under way: what a checkpoint holds of it beside parameters and state.

    Attributes
    ----------
    parameters, state, n_steps
        At its start.
    learning_rate : float or None
        What a callback had set then.
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
    learning_rate: float | None
    index: int = 0
    generator: dict[str, Any] = field(default_factory=dict)
    engine: Engine | None = None
    rows: int = 0
    weight: float = 0.0
    log_likelihood: float = 0.0
    penalty: float = 0.0
    batches: int = 0


def _check_network(trainer: Trainer, value: Any) -> Network:
    if not isinstance(value, Network):
        raise TypeError(f"network must be a fastnn.Network, not {type(value).__name__}")
    present = vars(trainer).get("network", value)
    if value is not present and repr(value) != repr(present):
        raise ValueError(f"network must be like the trainer's present one, {present!r}, not {value!r}")
    return value


def _check_optimizer(trainer: Trainer, value: Any) -> Optimizer | LBFGS:
    if not isinstance(value, (Optimizer, LBFGS)):
        raise TypeError(f"optimizer must be an optimizer such as fastnn.SGD(), not {value!r}")
    return value


def _check_callbacks(trainer: Trainer, value: Any) -> list[Callback]:
    callbacks = list(value)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks must be fastnn.callbacks.Callback objects, not {callback!r}")
    return callbacks


def _check_dropout(trainer: Trainer, value: Any) -> NDArray[np.float64]:
    shares = check_shares(value, len(trainer.network.sizes) - 2, "dropout")
    shares.flags.writeable = False
    return shares


def _check_smoothing(trainer: Trainer, value: Any) -> float:
    smoothing = check_number(value, "label_smoothing", 0, 1)
    if smoothing > 0 and trainer.network.loss != "cross_entropy":
        raise ValueError(f"label_smoothing is for cross-entropy; the network's loss is {trainer.network.loss!r}")
    return smoothing


def _check_length(value: Any, name: str) -> float | None:
    return None if value is None else check_number(value, name, 0, open_left=True)


# What a fit reads of a trainer: each is checked when it is set, and cannot be set while a fit is under way.
SETTINGS: dict[str, Callable[[Any, Any], Any]] = {
    "network": _check_network,
    "optimizer": _check_optimizer,
    "batch_size": lambda _, value: None if value is None else check_integer(value, "batch_size", 1),
    "l2": lambda _, value: check_number(value, "l2", 0),
    "shuffle": lambda _, value: check_choice(value, "shuffle", [False, True]),
    "n_threads": lambda _, value: check_threads(value) or available_threads(),
    "sparse": lambda _, value: check_choice(value, "sparse", [False, True, "auto"]),
    "callbacks": _check_callbacks,
    "l1": lambda _, value: check_number(value, "l1", 0),
    "dropout": _check_dropout,
    "label_smoothing": _check_smoothing,
    "clip_norm": lambda _, value: _check_length(value, "clip_norm"),
    "max_norm": lambda _, value: _check_length(value, "max_norm"),
}


class Trainer:
    """Trains a network by ascending its mean log-likelihood.

    The objective is the weighted mean log-likelihood of a batch minus ``l2 / 2`` times the sum of squared weights and
    ``l1`` times the sum of their magnitudes, the biases left out.  The same seed and input give the same bits,
    whatever the number of threads.  Numbers too small to be normal in the network's dtype, which x86 processors are
    slow with, count as 0 there while training.

    Each parameter but the seed is an attribute too.  It can be set between fits, and is checked then; a fit is settled
    when it starts, so that setting it meanwhile is a RuntimeError.

    Parameters
    ----------
    network : Network
        Trained in place, by one fit at a time.
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

    network: Network
    optimizer: Optimizer | LBFGS
    batch_size: int | None
    l2: float
    shuffle: bool
    n_threads: Any
    sparse: bool | str
    callbacks: Any
    l1: float
    dropout: Any
    label_smoothing: float
    clip_norm: float | None
    max_norm: float | None

    _settings: ClassVar[dict[str, Callable[[Any, Any], Any]]] = SETTINGS

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
        self.network = network
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.l2 = l2
        self.shuffle = shuffle
        self.n_threads = n_threads
        self.sparse = sparse
        self.callbacks = callbacks
        self.l1 = l1
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.clip_norm = clip_norm
        self.max_norm = max_norm
        self._generator = check_seed(seed)
        # What goes on from one fit to the next: the optimizer's state and steps, epochs, and what each reached.
        self._state = np.empty((0, network.parameters.size), network.dtype)
        self._kind: type | None = None  # of the optimizer that the state belongs to
        self._n_steps = 0
        self._curve: list[float] = []
        self._run: Epoch | None = None  # the epoch under way
        self._asked: _Asked | None = None  # the fit by L-BFGS under way
        self._source: _resume.Source | None = None  # data of the fit under way

    def __setattr__(self, name: str, value: Any) -> None:
        check = None if name.startswith("_") else self._settings.get(name)
        if check is not None:
            if self in in_use:
                raise RuntimeError(
                    f"{name} of a Trainer cannot be changed during a fit, which is settled when it starts; callbacks "
                    "may set fit.learning_rate and fit.stop"
                )
            value = check(self, value)
        super().__setattr__(name, value)

    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        epochs: int = 10,
        validation: Sequence[Any] | None = None,
        progress: bool | None = None,
        sample_weight: ArrayLike | None = None,
        resume: str | os.PathLike[str] | None = None,
        resume_exactly: bool = True,
    ) -> History:
        """Train for a number of epochs; call again to go on.

        Parameters
        ----------
        X : (n, n_in) array or scipy.sparse matrix, or an iterable of chunks
            Rows to train on: any real type, finite; uint8 is taken as pixels, each multiplied by 1/256, which the
            network's `input_scale` keeps.  They are not copied where they need not be, so do not change them during a
            fit.  A memory-mapped array (`numpy.memmap`, C-contiguous and aligned, of uint8, float32 or float64) stays
            on the disk: see the notes.  Without y, X is an iterable of pairs (X, y) or triples (X, y, sample_weight),
            gone through once an epoch: each is trained on in turn, and only one need be in memory.
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
            if it had never stopped, to the same number of epochs in all; a fit that a callback had ended is ended at
            once.  Data, network and settings must be those of the fit that wrote it, so must instruction set and
            libraries: the file tells, and a difference is an error that names it.  (Chunks are taken on trust.)
        resume_exactly : bool, default True
            False allows what changes only how results are rounded: another instruction set, compiler, version of a
            library, or way of storing rows.

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
            If the input is not as described; nothing has been trained then.  (Chunks are checked when they come: the
            network is then as those before have left it.)
        RuntimeError
            If the trainer or the network is in another fit.

        Notes
        -----
        A memory-mapped X is read once before the fit, to see that its numbers are finite, and once an epoch, a
        little ahead of training.  Where it has more than 256 MB, it is shuffled so that the disk is read in long
        stretches: pieces of 1 MB in a random order, and then the rows within each 256 MB of these.  The seed settles
        that order as any other, but it is not the one of the same rows in memory; and ``sparse="auto"`` leaves such
        rows dense, since a copy may not fit into memory.
        """
        epochs = check_integer(epochs, "epochs", 0)
        check_choice(progress, "progress", [None, False, True])
        check_choice(resume_exactly, "resume_exactly", [False, True])
        path = None if resume is None else check_path(resume, "resume")
        with in_use.reserve(trainer=self, network=self.network):
            self._check_method()
            data = self._read_data(X, y, sample_weight, validation)
            fit = Fit(self, epochs, data.n_rows, data.validation is not None)
            written = None
            if path is not None and os.path.exists(path):
                written = self._read_checkpoint(path, data, resume_exactly)
            # Checkpoints keep what the others have made of an epoch.
            callbacks = sorted([*self.callbacks, ProgressBar(progress)], key=lambda each: isinstance(each, Checkpoint))
            given = self.callbacks
            vars(self)["callbacks"] = tuple(given)  # settled too
            self._source = data.source
            try:
                self._carry_out(fit, data, callbacks, written)
            finally:
                self._run = self._source = None
                vars(self)["callbacks"] = given
            if data.are_pixels and len(fit.history) > 0:
                self.network.input_scale = UINT8_SCALE
            return fit.history

    def _carry_out(self, fit: Fit, data: Data, callbacks: list[Callback], written: _resume.Written | None) -> None:
        # From the start of the first callback to the end of the last.
        started: list[Callback] = []
        before: NDArray[Any] | None = self.network.parameters.copy()
        try:
            for callback in callbacks:
                callback.on_start(fit)
                started.append(callback)
            if written is not None:
                self._restore(written, fit)
            before = None
            if isinstance(self.optimizer, LBFGS):
                self._minimize(fit, data, callbacks, written)
                return
            within_epoch = written is not None and written.epoch is not None
            while len(fit.history) < fit.epochs and (within_epoch or not fit.stop):
                self._epoch(fit, data, callbacks, written)
                written, within_epoch = None, False
        except KeyboardInterrupt:
            fit.history.interrupt()
        finally:
            with ExitStack() as ends:  # each is told, also where another one raises an error
                if before is not None:  # nothing has begun
                    ends.callback(self._put_back, before)
                for callback in reversed(started):
                    ends.callback(callback.on_end, fit)

    def _put_back(self, parameters: NDArray[Any]) -> None:
        self.network.parameters[:] = parameters

    def _check_method(self) -> None:
        _check_callbacks(self, self.callbacks)  # the list may have been changed
        if not isinstance(self.optimizer, LBFGS):
            return
        if self.dropout.any() or self.l1 or self.clip_norm or self.max_norm:
            raise ValueError("LBFGS takes no dropout, l1, clip_norm or max_norm")
        if self.network.batch_norm:
            raise ValueError("LBFGS does not train a network with batch_norm=True, which is made for steps on batches")

    def _told_settings(self) -> dict[str, Any]:
        # What must agree between the fit that wrote a checkpoint and the one that goes on from it.
        return {
            "network": repr(self.network),
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

        Raises
        ------
        RuntimeError
            If no fit of this trainer is under way.
        """
        if self._source is None:
            raise RuntimeError("save_checkpoint is for a fit that is under way: call it in a callback")
        run = self._run
        tensors = {"parameters": self.network.parameters, "state": self._state}
        states = {key: callback.state() for key, callback in _resume.keyed(self.callbacks).items()}
        content: dict[str, Any] = {
            "fingerprint": _resume.fingerprint(self._told_settings(), self._source),
            "history": fit.history.columns(),
            "n_rows": fit.n_rows,
            "curve": self._curve,
            "n_steps": self._n_steps,
            "generator": self._generator.bit_generator.state if run is None else run.generator,
            "learning_rate": fit.set_rate,
            "stopped": fit.stop,
            "callbacks": [key for key, state in states.items() if state],
        }
        if run is not None and run.engine is not None:
            content["epoch"] = {name: vars(run)[name] for name in _resume.EPOCH}
            tensors |= {"epoch.parameters": run.parameters, "epoch.state": run.state}
            tensors |= {f"space.{name}": array for name, array in run.engine.progress().items()}
        if self._asked is not None:
            tensors |= {f"lbfgs.{name}": array for name, array in self._asked.arrays().items()}
        for key, state in states.items():
            tensors |= {f"callbacks.{key}.{name}": array for name, array in state.items()}
        content["generator"] = _as_json(content["generator"])
        save_checkpoint(check_path(path), content, tensors)

    def _read_checkpoint(self, path: str, data: Data, exactly: bool) -> _resume.Written:
        # All that can be wrong with it is found here, before anything has begun.
        here = _resume.fingerprint(self._told_settings(), data.source)
        written = _resume.read(path, here, self.network, self._state, self._generator, exactly)
        try:
            if written.epoch is not None and data.whole is not None:
                data.whole.engine.check_progress(written.progress, data.n_rows)
            if isinstance(self.optimizer, LBFGS) and not written.lbfgs:
                raise ValueError("it does not hold what a fit by L-BFGS needs")
        except ValueError as error:
            raise ValueError(f"{path} is not a usable checkpoint: {error}") from error
        missing = written.callbacks.keys() - _resume.keyed(self.callbacks)
        if missing:
            raise ValueError(
                f"{path} keeps the state of {' and '.join(sorted(missing))}, which callbacks does not hold"
            )
        return written

    def _restore(self, written: _resume.Written, fit: Fit) -> None:
        for key, callback in _resume.keyed(self.callbacks).items():
            if key in written.callbacks or callback.state():
                try:
                    callback.restore(written.callbacks.get(key, {}))
                except _resume.FAILURES as error:
                    raise ValueError(f"the checkpoint does not hold what {key} needs: {error}") from error
        self.network.parameters[:], self._state[...] = written.parameters, written.state
        self._n_steps, self._curve = written.n_steps, written.curve
        self._generator.bit_generator.state = written.generator
        fit.take_back(written.n_rows, written.history, written.learning_rate, written.stopped)

    def _begin_optimizer(self) -> None:
        # A state goes on only with an optimizer of its kind.
        n_slots = self.optimizer.n_slots if isinstance(self.optimizer, Optimizer) else 0
        if type(self.optimizer) is not self._kind or len(self._state) != n_slots:
            self._state = np.zeros((n_slots, self.network.parameters.size), self.network.dtype)
            self._n_steps = 0
        self._kind = type(self.optimizer)

    def _read_data(self, X: Any, y: ArrayLike | None, sample_weight: ArrayLike | None, validation: Any) -> Data:
        source = _resume.Source(None, None, None, {}, "by row")
        valid = None
        if validation is not None:
            if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
                raise TypeError(f"validation must be a pair (X, y), not {type(validation).__name__}")
            weights = validation[2] if len(validation) == 3 else None
            names = "validation[0]", "validation[1]"
            source.validation = rows, targets = self.network.check_data(validation[0], validation[1], weights, names)
            valid = self._choose_storage(rows, validation[0]), targets
            source.storage["validation"] = _storage(valid[0])
        if y is None:
            return self._read_chunks(X, sample_weight, valid, source)
        rows, targets = self.network.check_data(X, y, sample_weight, n_threads=self.n_threads)
        if isinstance(self.optimizer, LBFGS) and (self.batch_size or len(targets.y)) < len(targets.y):
            raise ValueError(ALL_AT_ONCE)
        self._begin_optimizer()
        chunk = self._chunk(rows, targets, X, again=True)
        source.rows, source.targets, source.storage["X"] = rows, targets, _storage(chunk.rows)
        source.order = "by row" if chunk.mapped is None else "by pieces of a mapped file"
        return Data(lambda: iter([chunk]), len(targets.y), valid, source, chunk, _are_pixels(rows, X))

    def _read_chunks(
        self, X: Any, sample_weight: ArrayLike | None, valid: tuple[Rows, Targets] | None, source: _resume.Source
    ) -> Data:
        if sample_weight is not None or isinstance(X, np.ndarray) or not isinstance(X, Iterable):
            raise TypeError("y is needed, unless X is an iterable of pairs (X, y)")
        if isinstance(self.optimizer, LBFGS):
            raise ValueError(ALL_AT_ONCE)
        self._begin_optimizer()
        source.storage["X"] = f"as sparse={self.sparse!r} takes it"

        def each() -> Iterator[Chunk]:
            empty = True
            for part in X:
                empty = False
                if not isinstance(part, (tuple, list)) or len(part) not in (2, 3):
                    raise TypeError(f"chunks must be pairs (X, y) or triples (X, y, sample_weight), not {type(part)}")
                weights = part[2] if len(part) == 3 else None
                rows, targets = self.network.check_data(part[0], part[1], weights, n_threads=self.n_threads)
                data.are_pixels = _are_pixels(rows, part[0])
                yield self._chunk(rows, targets, part[0], again=False)
            if empty:
                raise ValueError("X gave no chunks: it must be possible to go through it again in each epoch")

        data = Data(each, 0, valid, source, None)
        return data

    def _chunk(self, rows: Rows, targets: Targets, X: Any, again: bool) -> Chunk:
        # again: the same rows will be trained on in further epochs
        targets = targets._replace(smoothing=self.label_smoothing)
        rows = self._choose_storage(rows, X)
        engine = self.network.engine(self.n_threads, self.dropout if self.dropout.any() else None)
        n_rows = len(targets.y)
        optimizer, batch_size = self.optimizer, min(self.batch_size or n_rows, n_rows)
        mapped = MappedRows(rows, batch_size) if stay_on_disk(rows, X) else None
        if isinstance(optimizer, LBFGS):
            engine.begin(rows, engine.plan(rows, Method(n_rows), repeated=True))
            return Chunk(rows, targets, engine, mapped)
        method = Method(
            batch_size,
            optimizer.update,
            optimizer.n_slots,
            plain=self.l1 == 0 and not self.clip_norm and optimizer.decay == 0,
            penalised=self.l2 != 0,
            alike=not isinstance(optimizer.learning_rate, Schedule) and self._l2_is_constant(),
            clips=bool(self.clip_norm),
            max_norm=bool(self.max_norm),
        )
        ordered = not self.shuffle or batch_size == n_rows
        engine.begin(rows, engine.plan(rows, method, ordered, again), self._state)
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

    def _steps(self, chunk: Chunk, targets: Targets, run: Epoch, n_rows: int) -> Steps:
        # The numbers of each step on the next chunk of an epoch of n_rows, or 0 if that is not known.
        optimizer = self.optimizer
        assert isinstance(optimizer, Optimizer)
        n, batch_size = len(targets.y), chunk.engine.batch_size
        starts = np.arange(0, n, batch_size)
        sizes = np.minimum(batch_size, n - starts).astype(np.float64)
        weights = sizes if targets.weights is None else np.add.reduceat(targets.weights, starts)
        shares = np.arange(len(starts)) / len(starts)
        times = len(self._curve) + ((run.rows + n * shares) / n_rows if n_rows else 0 * shares)
        learning_rate = optimizer.learning_rate if run.learning_rate is None else run.learning_rate
        rates = rates_of(learning_rate, times, self._curve)
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

    def _epoch(self, fit: Fit, data: Data, callbacks: list[Callback], written: _resume.Written | None) -> None:
        start = time.perf_counter()
        network, history = self.network, fit.history
        progress = None  # of the first chunk, where a checkpoint was written within an epoch
        if written is not None and written.epoch is not None:
            run = Epoch(written.start["parameters"], written.start["state"], **written.epoch)
            progress = written.progress
        else:
            run = self._new_epoch(fit.set_rate)
        self._run = run
        for chunk in itertools.islice(data.chunks(), run.index, None):
            self._train_on(chunk, run, fit, callbacks, progress)
            progress, run.engine = None, None
            run.index += 1
        self._run = None
        log_likelihood = run.log_likelihood / run.weight
        validation = None if data.validation is None else network.score(*data.validation, self.n_threads)
        history.record(
            time.perf_counter() - start, log_likelihood, log_likelihood - run.penalty / run.weight, validation
        )
        self._curve.append(log_likelihood if validation is None else validation[0])
        fit.note(n_rows=run.rows, rows_done=0)
        self._tell_chunk(fit, callbacks)
        for callback in callbacks:
            callback.on_epoch(fit)

    def _new_epoch(self, learning_rate: float | None = None) -> Epoch:
        return Epoch(self.network.parameters.copy(), self._state.copy(), self._n_steps, learning_rate)

    def _tell_chunk(self, fit: Fit, callbacks: list[Callback]) -> None:
        # The engine may hold the parameters in another layout meanwhile; the progress bar looks at none.
        with self.network.read_only() if self.callbacks else nullcontext():
            for callback in callbacks:
                callback.on_chunk(fit)

    def _train_on(
        self, chunk: Chunk, run: Epoch, fit: Fit, callbacks: list[Callback], progress: dict[str, NDArray[Any]] | None
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
        engine.restart(self._steps(chunk, targets, run, fit.n_rows), key)
        if progress is not None:
            engine.go_on(progress, len(targets.y))
        try:
            with chunk.read_ahead(order) as reach:
                reach(engine.rows_done)
                while self._advance(chunk, targets, order):
                    reach(engine.rows_done)
                    fit.note(rows_done=run.rows + engine.rows_done)
                    if self.callbacks:  # they may look at the network
                        engine.store()
                    self._tell_chunk(fit, callbacks)
        except _Diverged:
            self._put_back(run.parameters)
            self._state[...], self._n_steps = run.state, run.n_steps
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

    def _advance(self, chunk: Chunk, targets: Targets, order: NDArray[np.intp] | None) -> bool:
        # Train for a while, and return whether the chunk goes on.
        try:
            if chunk.engine.advance(targets, order, tuning.CHUNK_SECONDS):
                return True
            self._check_still_finite(chunk)
        except FloatingPointError:
            raise _Diverged from None
        return False

    def _draw_order(self, n: int) -> NDArray[np.intp]:
        """Draw an order (n,) of rows."""
        order = np.empty(n, np.intp)
        draw_order(self._generator.bit_generator, order)
        return order

    def _penalty(self, chunk: Chunk) -> float:
        penalty = chunk.engine.penalty
        if chunk.engine.space.touched is not None:
            total = len(chunk.targets.y) if chunk.targets.weights is None else float(chunk.targets.weights.sum())
            with np.errstate(over="ignore"):  # on the way to divergence
                penalty += total * self.l2 / 2 * float(np.square(self.network.weights[0], dtype=np.float64).sum())
        return penalty

    def _gradient(self, chunk: Chunk, steps: Steps) -> NDArray[Any]:
        """Gradient of the objective over a chunk's rows, in the parameters' layout."""
        return chunk.engine.gradient(chunk.targets, steps)

    def _minimize(
        self,
        fit: Fit,
        data: Data,
        callbacks: list[Callback],
        written: _resume.Written | None,
    ) -> None:
        # L-BFGS; what SciPy minimises is minus the objective.  It keeps what it knows of the curvature to itself, so a
        # fit is resumed from its start, and is told again what it had been told, as far as that was kept.
        minimize = import_whole("scipy.optimize").minimize
        chunk, network, optimizer = data.whole, self.network, self.optimizer
        assert chunk is not None
        assert isinstance(optimizer, LBFGS)
        targets = chunk.targets
        if fit.stop or fit.epochs <= len(fit.history):
            return
        total = float(len(targets.y) if targets.weights is None else targets.weights.sum())
        steps = Steps(UPDATES["none"], np.array([[self._l2(np.array([total]))[0], 0.0, 0.0]]))
        seen: tuple[float, float] = (0.0, 0.0)
        keeps = any(isinstance(callback, Checkpoint) for callback in callbacks)
        asked = self._asked = _Asked(network.parameters, keeps, None if written is None else written.lbfgs)
        accepted = asked.start.astype(np.float64)
        n_evaluations, n_iterations, n_restored = 0, 0, len(fit.history)
        started = time.perf_counter()

        def negative(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            nonlocal seen, n_evaluations
            if n_evaluations < len(asked.gradients):
                seen, gradient = asked.seen[n_evaluations], asked.gradients[n_evaluations]
            else:
                self._put_back(x)
                try:
                    gradient = self._gradient(chunk, steps)
                except FloatingPointError:
                    raise _Diverged from None
                log_likelihood = chunk.engine.log_likelihood / total
                seen = log_likelihood, log_likelihood - chunk.engine.penalty / total
                asked.keep(seen, gradient)
            n_evaluations += 1
            return -seen[1], -gradient.astype(np.float64)

        def on_iteration(x: NDArray[np.float64]) -> None:
            nonlocal accepted, started, n_iterations
            # What was evaluated last is what was accepted.
            accepted = x
            self._put_back(x)
            n_iterations += 1
            if n_iterations <= n_restored:
                started = time.perf_counter()
                return
            validation = None if data.validation is None else network.score(*data.validation, self.n_threads)
            fit.history.record(time.perf_counter() - started, *seen, validation)
            self._curve.append(seen[0] if validation is None else validation[0])
            started = time.perf_counter()
            self._tell_chunk(fit, callbacks)
            with network.read_only():  # SciPy goes on from its own
                for callback in callbacks:
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
        except _Diverged:
            raise DivergenceError(len(fit.history) + 1, 1, fit.history) from None
        finally:
            self._put_back(accepted)
            self._asked = None


def _as_json(value: Any) -> Any:
    # The state of a bit generator: nested dictionaries of integers, text and, in some, arrays.
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


class _Asked:
    """Where a fit by L-BFGS began, and what it was told since, as far as there is room for it."""

    def __init__(self, parameters: NDArray[Any], keeps: bool, restored: dict[str, NDArray[Any]] | None) -> None:
        self.start = parameters.copy()
        self.seen: list[tuple[float, float]] = []
        self.gradients: list[NDArray[Any]] = []
        self._room = TOLD_BYTES if keeps else 0
        if restored is not None:
            self.start = restored["start"]
            for pair, gradient in zip(restored["seen"].tolist(), restored["gradients"], strict=True):
                self.seen.append(tuple(pair))
                self.gradients.append(gradient)
                self._room -= gradient.nbytes

    def keep(self, seen: tuple[float, float], gradient: NDArray[Any]) -> None:
        """Note log-likelihood, objective and gradient, if all before them have been noted too."""
        self._room -= gradient.nbytes
        if self._room >= 0:
            self.seen.append(seen)
            self.gradients.append(gradient.copy())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all this as arrays."""
        gradients = np.array(self.gradients, self.start.dtype).reshape(len(self.gradients), len(self.start))
        return {"start": self.start, "seen": np.array(self.seen).reshape(-1, 2), "gradients": gradients}


def _are_pixels(rows: Rows, X: Any) -> bool:
    # Sparse rows have been scaled already.
    return bool((X if isinstance(rows, CSRRows) else rows).dtype == np.uint8)


def _storage(rows: Rows) -> str:
    return "sparse" if isinstance(rows, CSRRows) else "dense"


class _Stopped(Exception):
    """A callback asked a fit by L-BFGS to end."""


class _Diverged(Exception):
    """The engine met numbers that are not finite; a callback's own FloatingPointError is none of its."""
