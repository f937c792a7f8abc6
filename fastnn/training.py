"""The trainer: epochs over the data, one engine call after another, and what happens between them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._engine import CHUNK_SECONDS, Engine, Rows, available_threads, to_csr
from fastnn._validation import (
    check_choice,
    check_integer,
    check_labels,
    check_not_empty,
    check_number,
    check_rows,
    check_seed,
)
from fastnn.callbacks import Callback, Fit, History, ProgressBar
from fastnn.kernels.rows import CSRRows
from fastnn.network import Network
from fastnn.optimizers import SGD, Optimizer

# sparse="auto" takes dense data for sparse where a sample of this many rows has a smaller share of non-zeros.
SPARSE_DENSITY = 0.25
DENSITY_SAMPLE = 1000

# Parameters no larger than this cannot overflow in any network of sensible depth and width.
HARMLESS_PARAMETER = 1e4


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


class Trainer:
    """Trains a network by ascending its mean log-likelihood.

    The objective is the mean log-likelihood of a batch minus ``l2 / 2`` times the sum of squared weights, the
    biases left out.  The same seed and input give the same bits, whatever the number of threads.

    Parameters
    ----------
    network : Network
        Trained in place.
    optimizer : Optimizer, default SGD(learning_rate=0.5)
        How a step is made from a gradient.
    batch_size : int or None, default None
        Rows a step; a short last batch is trained on too, with its own mean.  None takes all rows at once.
    l2 : float, default 0.0
        Weight of the penalty.
    shuffle : bool, default True
        Whether each epoch takes the rows in a new random order.
    seed : int, numpy.random.Generator or None, default 0
        For the shuffling.
    n_threads : int or None, default None
        None takes the processors that the process may run on, at most OMP_NUM_THREADS.  At most 8 are used.
    sparse : bool or "auto", default "auto"
        Whether dense input is taken for sparse, so that the first layer works on the non-zeros only; "auto"
        does so if fewer than a quarter of the values are non-zero, which costs one pass over the data at the
        start of a fit.  Sparse input stays sparse.  The results are the same to rounding.
    callbacks : iterable of Callback, default ()
        Told what happens; see `fastnn.callbacks`.

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
        optimizer: Optimizer = SGD(learning_rate=0.5),  # noqa: B008  it is immutable
        batch_size: int | None = None,
        l2: float = 0.0,
        shuffle: bool = True,
        seed: int | np.random.Generator | None = 0,
        n_threads: int | None = None,
        sparse: bool | str = "auto",
        callbacks: Iterable[Callback] = (),
    ) -> None:
        if not isinstance(network, Network):
            raise TypeError(f"network must be a fastnn.Network, not {type(network).__name__}")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an optimizer such as fastnn.SGD(), not {optimizer!r}")
        self.network = network
        self.optimizer = optimizer
        self.batch_size = None if batch_size is None else check_integer(batch_size, "batch_size", 1)
        self.l2 = check_number(l2, "l2", 0)
        self.shuffle = check_choice(shuffle, "shuffle", [False, True])
        self.n_threads = available_threads() if n_threads is None else check_integer(n_threads, "n_threads", 1, 1024)
        self.sparse = check_choice(sparse, "sparse", [False, True, "auto"])
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks must be fastnn.callbacks.Callback objects, not {callback!r}")
        self._generator = check_seed(seed)
        self._state = np.empty((0, network.parameters.size), network.dtype)

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        epochs: int = 10,
        validation: tuple[ArrayLike, ArrayLike] | None = None,
        progress: bool | None = None,
    ) -> History:
        """Train for a number of epochs; call again to go on.

        Parameters
        ----------
        X : (n, n_in) array or scipy.sparse matrix
            Rows to train on: any real type, finite; uint8 is taken as pixels, each multiplied by 1/256.
        y : (n,) integer array
            Class of each row, from 0.
        epochs : int, default 10
            How often to go through the rows.
        validation : (X, y) or None
            Rows on which log-likelihood and error are measured after each epoch.
        progress : bool or None, default None
            Whether to show a progress bar; None does where the standard error stream is a terminal.

        Returns
        -------
        History
            Of this fit.  Ctrl-C ends it early: the history so far comes back with `interrupted` set, and the
            network is whole, as after the last finished step.

        Raises
        ------
        DivergenceError
            If the log-likelihood or a parameter stops being finite.  The network is then as it was after the
            last good epoch.
        TypeError, ValueError
            If the input is not as described; nothing has been trained then.
        """
        rows, labels = self._check_data(X, y, "X", "y")
        valid = None
        if validation is not None:
            if not isinstance(validation, (tuple, list)) or len(validation) != 2:
                raise TypeError(f"validation must be a pair (X, y), not {type(validation).__name__}")
            valid = self._check_data(*validation, "validation[0]", "validation[1]")
        epochs = check_integer(epochs, "epochs", 0)
        check_choice(progress, "progress", [None, False, True])
        rows = self._choose_storage(rows)

        engine = self.network.engine(self.n_threads)
        optimizer, batch_size = self.optimizer, self.batch_size or len(labels)
        if len(self._state) != optimizer.n_slots:  # at first, and where it was replaced by another kind
            self._state = np.zeros((optimizer.n_slots, self.network.parameters.size), self.network.dtype)
        in_order = not self.shuffle or batch_size >= len(labels)
        engine.begin(rows, batch_size, optimizer.update, optimizer.hyperparameters, self.l2, self._state, in_order)
        fit = Fit(self, epochs, len(labels))
        callbacks = [*self.callbacks, ProgressBar(progress)]
        started = []
        try:
            for callback in callbacks:
                callback.on_start(fit)
                started.append(callback)
            while len(fit.history) < epochs and not fit.stop:
                self._epoch(fit, engine, rows, labels, valid, callbacks)
        except KeyboardInterrupt:
            fit.history.interrupt()
        finally:
            for callback in started:
                callback.on_end(fit)
        return fit.history

    def _check_data(self, X: Any, y: ArrayLike, X_name: str, y_name: str) -> tuple[Rows, NDArray[np.intp]]:
        rows = check_rows(X, self.network.n_in, self.network.dtype, X_name)
        check_not_empty(rows.shape[0], X_name)
        return rows, check_labels(y, rows.shape[0], self.network.n_classes, y_name)

    def _choose_storage(self, rows: Rows) -> Rows:
        if isinstance(rows, CSRRows):
            return rows
        if self.sparse == "auto":
            sample = rows[:: max(1, len(rows) // DENSITY_SAMPLE)]
            sparse = bool(np.count_nonzero(sample) < SPARSE_DENSITY * sample.size)
        else:
            sparse = bool(self.sparse)
        return to_csr(rows, self.network.dtype) if sparse else rows

    def _check_still_finite(self, rows: Rows, labels: NDArray[np.intp]) -> None:
        # The engine saw each log-likelihood before its step; this is about the network after the last one.
        parameters = self.network.parameters
        largest = max(float(parameters.max()), -float(parameters.min()))  # NaN propagates
        if largest <= HARMLESS_PARAMETER:
            return
        if not np.isfinite(largest) or not np.isfinite(self.network.score_rows(rows, labels, self.n_threads)[0]):
            raise FloatingPointError("the last step left the finite numbers")

    def _epoch(
        self,
        fit: Fit,
        engine: Engine,
        rows: Rows,
        labels: NDArray[np.intp],
        valid: tuple[Rows, NDArray[np.intp]] | None,
        callbacks: list[Callback],
    ) -> None:
        start = time.perf_counter()
        network, history = self.network, fit.history
        order, stored_labels = None, labels
        if self.shuffle and engine.batch_size < len(labels):
            order = self._generator.permutation(len(labels))
            labels = labels[order]
        engine.restart()
        try:
            while engine.advance(labels, order, CHUNK_SECONDS):
                fit.rows_done = engine.rows_done
                if self.callbacks:  # they may look at the network
                    engine.store()
                for callback in callbacks:
                    callback.on_chunk(fit)
            self._check_still_finite(rows, stored_labels)
        except FloatingPointError:
            engine.roll_back()
            batch = min(engine.batches_done, (len(labels) - 1) // engine.batch_size) + 1
            raise DivergenceError(len(history) + 1, batch, history) from None
        except BaseException:  # Ctrl-C, or a callback's own
            engine.store()
            raise
        log_likelihood = float(engine.log_likelihood[0]) / len(labels)
        validation = None if valid is None else network.score_rows(*valid, self.n_threads)
        history.record(time.perf_counter() - start, log_likelihood, validation)
        fit.rows_done = 0
        for callback in callbacks:
            callback.on_chunk(fit)
            callback.on_epoch(fit)
