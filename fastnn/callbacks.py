"""Callbacks: objects that the trainer calls during a fit, and that may stop it.

The trainer calls them at the start, about every 50 ms, after each epoch and at the end, in the order in which it has
them.  Checkpoints come last, because they keep the state of the others.
"""

from __future__ import annotations

import copy
import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastnn import plotting
from fastnn._validation import check_choice, check_integer, check_number, check_path, check_writable
from fastnn.engine.threads import import_whole
from fastnn.history import History as History  # part of this module for its users
from fastnn.network import Network
from fastnn.optimizers import LBFGS, Optimizer
from fastnn.schedules import Schedule
from fastnn.storage import write_atomically


class _Trainer(Protocol):
    """What callbacks may read of the trainer, a `fastnn.Trainer`, and the one thing that they may ask it to do."""

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

    def save_checkpoint(self, path: str | os.PathLike[str], fit: Fit) -> None:
        """Write a file from which the fit can resume."""


class Fit:
    """A fit in progress, as callbacks see it.

    A fit reads its settings when it starts.  Callbacks may set `stop` and `learning_rate`, and change the network's
    parameters in `on_epoch`; any other change, of the trainer's settings or of attributes here, is an error.

    Attributes
    ----------
    trainer : Trainer
        Its ``network`` is being trained.
    epochs, n_rows : int
        Number of epochs to train, and of rows in each; 0 rows if not known yet.
    has_validation : bool
        Whether there are rows to validate on.
    history : History
        Record of the finished epochs.
    rows_done : int
        Rows of the current epoch that are done.
    stop : bool
        Set it to True to end the fit after the current epoch.
    learning_rate : float or Schedule
        The optimizer's, until a callback sets a number above 0, which applies from the next epoch to the end of the
        fit.  Checkpoints keep it; the optimizer itself does not change.
    """

    trainer: _Trainer
    epochs: int
    n_rows: int
    has_validation: bool
    history: History
    rows_done: int

    def __init__(self, trainer: _Trainer, epochs: int, n_rows: int = 0, has_validation: bool = False) -> None:
        self._stop = False
        self.set_rate: float | None = None  # learning rate that a callback has set
        history = History()
        self.note(
            trainer=trainer, epochs=epochs, n_rows=n_rows, has_validation=has_validation, history=history, rows_done=0
        )

    def note(self, **values: Any) -> None:
        """Record the progress of the fit; for the trainer only."""
        vars(self).update(values)

    def take_back(self, n_rows: int, history: dict[str, list[float]], set_rate: float | None, stop: bool) -> None:
        """Continue from a checkpoint; for the trainer only."""
        self.note(n_rows=n_rows)
        self.set_rate, self.stop = set_rate, stop
        for name, values in self.history.columns().items():
            values[:] = history[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Fit.__annotations__:
            raise AttributeError(f"{name} cannot be changed during a fit; fit.stop and fit.learning_rate can")
        super().__setattr__(name, value)

    @property
    def stop(self) -> bool:
        """Whether the fit is to end after the current epoch."""
        return self._stop

    @stop.setter
    def stop(self, value: bool) -> None:
        self._stop = bool(value)

    @property
    def learning_rate(self) -> float | Schedule:
        """Learning rate, or the schedule that it follows."""
        optimizer = self.trainer.optimizer
        if isinstance(optimizer, LBFGS):
            raise TypeError("LBFGS finds its own steps: a fit by it has no learning rate")
        return optimizer.learning_rate if self.set_rate is None else self.set_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if isinstance(self.trainer.optimizer, LBFGS):
            raise TypeError("LBFGS finds its own steps: a fit by it has no learning rate")
        self.set_rate = check_number(value, "learning_rate", 0, open_left=True)


#: A list of `History`, by name, or a function that takes the `Fit` after an epoch.
Monitor = str | Callable[[Fit], float]


class Callback:
    """Base class of callbacks; override what you need."""

    def on_start(self, fit: Fit) -> None:
        """Before the first epoch."""

    def on_chunk(self, fit: Fit) -> None:
        """About every 50 ms.

        The network is as after the last finished step.  (With very sparse data, rows of the first weight that recent
        batches did not touch may lag behind until the epoch ends.)  Its arrays are read-only here.
        """

    def on_epoch(self, fit: Fit) -> None:
        """After each epoch and its validation; may change the network's parameters, except with L-BFGS."""

    def on_end(self, fit: Fit) -> None:
        """At the end, also after Ctrl-C or an error."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the state that a checkpoint must keep, as arrays by name; none by default."""
        return {}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Restore what `state` returned; called after `on_start`, with the earlier epochs in ``fit.history``."""


def open_bar(show: bool | None, n_rows: int) -> Any:
    """Return a tqdm bar for so many rows, 0 if not known, or None if it is not to be shown; see `ProgressBar`."""
    if show or (show is None and sys.stderr is not None and sys.stderr.isatty()):
        tqdm = import_whole("tqdm").tqdm  # takes a while to import
        return tqdm(total=n_rows or None, unit=" rows", unit_scale=True, dynamic_ncols=True)
    return None


class ProgressBar(Callback):
    """A tqdm bar with the log-likelihood and the validation error.

    Parameters
    ----------
    show : bool or None
        None shows it only if the standard error stream is a terminal.
    """

    def __init__(self, show: bool | None = None) -> None:
        self.show = show

    def on_start(self, fit: Fit) -> None:
        """Open the bar."""
        self._bar = open_bar(self.show, fit.epochs * fit.n_rows)
        if self._bar is not None:
            self._describe(fit)

    def _describe(self, fit: Fit) -> None:
        self._bar.set_description(f"epoch {min(len(fit.history) + 1, fit.epochs)}/{fit.epochs}", refresh=False)

    def on_chunk(self, fit: Fit) -> None:
        """Move the bar."""
        if self._bar is None:
            return
        if fit.n_rows and self._bar.total is None:
            self._bar.total = fit.epochs * fit.n_rows
        self._bar.update(max(0, len(fit.history) * fit.n_rows + fit.rows_done - self._bar.n))

    def on_epoch(self, fit: Fit) -> None:
        """Show the epoch's results."""
        if self._bar is None:
            return
        shown = {"log-likelihood": f"{fit.history.log_likelihood[-1]:.4f}"}
        if fit.history.validation_error and fit.trainer.network.classifies:
            shown["validation error"] = f"{100 * fit.history.validation_error[-1]:.2f} %"
        self._describe(fit)
        self._bar.set_postfix(shown)

    def on_end(self, fit: Fit) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


class _Watching(Callback):
    """Base of callbacks that watch a measure: a list of `History`, or a function of the fit."""

    def __init__(self, monitor: Monitor) -> None:
        if not callable(monitor):
            check_choice(monitor, "monitor", History().columns())
        self.monitor = monitor

    def on_start(self, fit: Fit) -> None:
        """Refuse a fit without the measure."""
        if str(self.monitor).startswith("validation") and not fit.has_validation:
            raise ValueError(f"{type(self).__name__} watches {self.monitor}, which needs validation data in the fit")

    def _falls(self) -> bool:
        # Whether smaller is better, of a list of the history.
        return isinstance(self.monitor, str) and self.monitor.endswith("error")

    def _measure(self, fit: Fit) -> float:
        if callable(self.monitor):
            return float(self.monitor(fit))
        return fit.history.columns()[self.monitor][-1]


class EarlyStopping(_Watching):
    """Ends a fit when a measure stops improving, and restores the best parameters.

    Parameters
    ----------
    monitor : str or callable, default "validation_log_likelihood"
        Name of a list of `History`, or a function that takes the `Fit` after an epoch and returns a number.
        Measures whose names end in "error" should fall; all others, and a function's results, should rise.
    patience : int, default 10
        The fit ends after more than this many epochs without improvement.
    min_delta : float, default 0.0
        An improvement must be larger than this.
    restore_best : bool, default True
        Whether to restore the parameters of the best epoch at the end, also after Ctrl-C.

    Attributes
    ----------
    best_epoch : int
        Counted from 1 within the fit; 0 before any.  An epoch with the measure NaN is never the best.
    best : float
        The measure after that epoch.

    Notes
    -----
    L. Prechelt, "Early stopping - but when?", in "Neural networks: tricks of the trade" (1998).
    """

    def __init__(
        self,
        monitor: Monitor = "validation_log_likelihood",
        patience: int = 10,
        min_delta: float = 0.0,
        restore_best: bool = True,
    ) -> None:
        super().__init__(monitor)
        self.patience = check_integer(patience, "patience", 0)
        self.min_delta = check_number(min_delta, "min_delta", 0)
        self.restore_best = check_choice(restore_best, "restore_best", [False, True])

    def on_start(self, fit: Fit) -> None:
        """Forget an earlier fit."""
        super().on_start(fit)
        self.best_epoch, self.best = 0, -math.inf
        self._parameters: NDArray[Any] | None = None
        self._check: Callable[[NDArray[Any]], NDArray[Any]] = fit.trainer.network.check_parameters

    def on_epoch(self, fit: Fit) -> None:
        """Compare with the best so far."""
        measure, best = self._measure(fit), self.best
        gain = best - measure if self._falls() else measure - best
        if (self.best_epoch == 0 and not math.isnan(measure)) or gain > self.min_delta:
            self.best_epoch, self.best = len(fit.history), measure
            self._parameters = fit.trainer.network.parameters.copy() if self.restore_best else None
        elif len(fit.history) - self.best_epoch > self.patience:
            fit.stop = True

    def on_end(self, fit: Fit) -> None:
        """Restore the best parameters."""
        if self._parameters is not None:
            fit.trainer.network.parameters = self._parameters

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the best so far, and the settings."""
        found: dict[str, NDArray[Any]] = {"best": np.array([self.best_epoch, self.best])}
        found |= {f"settings.{name}": np.array([value], float) for name, value in self._settings().items()}
        return found if self._parameters is None else found | {"parameters": self._parameters}

    def _settings(self) -> dict[str, float]:
        monitor = -1 if callable(self.monitor) else list(History().columns()).index(self.monitor)
        settings = {"monitor": monitor, "patience": self.patience, "min_delta": self.min_delta}
        return settings | {"restore_best": self.restore_best}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Restore the best so far; refuse other settings."""
        for name, value in self._settings().items():
            if state[f"settings.{name}"].item() != value:
                raise ValueError(f"{name} of EarlyStopping is not the checkpoint's: it is {getattr(self, name)!r} here")
        epoch, self.best = state["best"].tolist()
        self.best_epoch = int(epoch)
        self._parameters = self._check(state["parameters"]) if "parameters" in state else None


class OptunaPruning(_Watching):
    """Reports a measure to a trial of Optuna after each epoch, and ends the fit if that prunes it (extra ``optuna``).

    It then raises ``optuna.TrialPruned``, which ``study.optimize`` takes for the end of the trial.  A trainer's network
    is as after the epoch that was reported last, or as `EarlyStopping` restores it; an estimator is as before the fit.

    Parameters
    ----------
    trial : optuna.Trial
        A trial of a study with one objective.
    monitor : str or callable, default "validation_log_likelihood"
        Name of a list of `History`, or a function that takes the `Fit` after an epoch and returns a number.
        The study must minimize a measure whose name ends in "error", and maximize any other of the history.

    Notes
    -----
    The step of a report is the epoch, counted from 1; in a fit that resumes from a checkpoint it goes on.  Optuna takes
    the first report of a step only: each trial needs one fit, not the several of a cross-validation, nor calls of
    ``partial_fit``, which each count from 1.
    """

    def __init__(self, trial: Any, monitor: Monitor = "validation_log_likelihood") -> None:
        super().__init__(monitor)
        try:
            self._pruned: type[Exception] = import_whole("optuna").TrialPruned
        except ImportError as error:
            raise ImportError('OptunaPruning needs Optuna: pip install "fastnn[optuna]"') from error
        self.trial = trial
        study = getattr(trial, "study", None)  # a FixedTrial has none
        direction = "minimize" if self._falls() else "maximize"
        if study is not None and not callable(monitor) and study.direction.name.lower() != direction:
            raise ValueError(f"the study must {direction} {monitor}, not {study.direction.name.lower()} it")

    def __deepcopy__(self, memo: Any) -> OptunaPruning:
        return copy.copy(self)  # a copied trial, in scikit-learn's clones, would tell nobody

    def on_epoch(self, fit: Fit) -> None:
        """Report the measure."""
        epoch = len(fit.history)
        self.trial.report(self._measure(fit), epoch)
        if self.trial.should_prune():
            raise self._pruned(f"Trial was pruned at epoch {epoch}.")


class HistoryLog(Callback):
    """Gives the measures of each epoch to a function, such as TensorBoard's or MLflow's.

    Parameters
    ----------
    log : callable
        Called after each epoch as ``log(name, value, step)``, with the name of each list of `History` that has values
        and the epoch's value.  The step is the epoch, counted from 1 in each fit and each ``partial_fit``; in a fit
        that resumes from a checkpoint it goes on.  ``SummaryWriter.add_scalar`` of tensorboardX and
        ``mlflow.log_metric`` are such functions.
    """

    def __init__(self, log: Callable[[str, float, int], object]) -> None:
        if not callable(log):
            raise TypeError(f"log must be a function that takes a name, a value and a step, not {log!r}")
        self.log = log

    def __deepcopy__(self, memo: Any) -> HistoryLog:
        return copy.copy(self)  # for scikit-learn's clones: few writers can be copied

    def on_epoch(self, fit: Fit) -> None:
        """Log the epoch."""
        for name, values in fit.history.columns().items():
            if values:
                self.log(name, values[-1], len(fit.history))


class HistoryFile(Callback):
    """Writes the whole history to a file after each epoch, as CSV or JSON.

    Parameters
    ----------
    path : path
        Ends in .csv or .json; replaced atomically after each epoch.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = check_path(path)
        if not self.path.endswith((".csv", ".json")):
            raise ValueError(f"path must end in .csv or .json, not {self.path!r}")

    def on_start(self, fit: Fit) -> None:
        """Refuse a file that cannot be written."""
        check_writable(self.path)

    def on_epoch(self, fit: Fit) -> None:
        """Write the file."""
        columns = {name: values for name, values in fit.history.columns().items() if values}
        if self.path.endswith(".json"):
            text = json.dumps(columns, indent=1) + "\n"
        else:
            lines = [["epoch", *columns]]
            lines += [[str(epoch), *map(repr, row)] for epoch, row in enumerate(zip(*columns.values(), strict=True), 1)]
            text = "".join(",".join(line) + "\n" for line in lines)
        write_atomically(self.path, text.encode())


class Checkpoint(Callback):
    """Keeps a file from which a fit can resume after a crash, with the same bits as without the crash.

    Give the same path to `Trainer.fit` as `resume`.  The file holds parameters, the optimizer's state, the state of
    the random numbers, the history and the position within the epoch; with L-BFGS, also the steps and changes of the
    gradient that it keeps: 20 numbers a parameter with ``memory=10``.  The estimators of `fastnn.sklearn` write
    checkpoints too, but cannot resume from them.

    Parameters
    ----------
    path : path
        Replaced atomically.
    seconds : float, default 60.0
        Time between writes within an epoch; each epoch ends with a write too.  L-BFGS's iterations count as parts of an
        epoch.
    """

    def __init__(self, path: str | os.PathLike[str], seconds: float = 60.0) -> None:
        self.path = check_path(path)
        self.seconds = check_number(seconds, "seconds", 0)

    def on_start(self, fit: Fit) -> None:
        """Refuse a file that cannot be written, and start the clock."""
        check_writable(self.path)
        self._written = time.monotonic()

    def _write(self, fit: Fit) -> None:
        fit.trainer.save_checkpoint(self.path, fit)
        self._written = time.monotonic()

    def on_chunk(self, fit: Fit) -> None:
        """Write the file if it is time."""
        if fit.rows_done and time.monotonic() - self._written >= self.seconds:
            self._write(fit)

    def on_epoch(self, fit: Fit) -> None:
        """Write the file; with L-BFGS, whose iterations are short, only if it is time."""
        short = isinstance(fit.trainer.optimizer, LBFGS) and len(fit.history) < fit.epochs and not fit.stop
        if not short or time.monotonic() - self._written >= self.seconds:
            self._write(fit)


class LivePlot(Callback):
    """Learning curves, redrawn after each epoch (extra ``plot``).

    Parameters
    ----------
    path : path or None, default None
        Picture to write, in any of matplotlib's formats; None draws in a window.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else check_path(path)

    def on_start(self, fit: Fit) -> None:
        """Open the window, or refuse a file that cannot be written."""
        if self.path is not None:
            plotting.picture_format(check_writable(self.path))
        self._figure = plotting.new_window() if self.path is None else None

    def on_epoch(self, fit: Fit) -> None:
        """Draw the curves."""
        figure = plotting.plot_history(fit.history, self._figure)
        if self.path is not None:
            plotting.write_figure(figure, self.path)
        else:
            plotting.refresh(figure)
