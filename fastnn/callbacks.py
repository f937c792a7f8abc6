"""Callbacks: what is told about a fit while it runs, and who may ask it to stop."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastnn.training import Trainer


@dataclass
class History:
    """What a fit recorded, one value an epoch.

    Attributes
    ----------
    log_likelihood : list of float
        Mean over the epoch's rows of the log-probability of the true class, in nats, or of minus another loss; each
        batch taken before its own update, without the penalty.
    objective : list of float
        The same with the penalties taken off, each batch's before its own update.  (Of very sparse data, whose rows of
        the first weight are brought up to date late, that weight's penalty is taken after the epoch.)
    validation_log_likelihood, validation_error : list of float
        After the epoch: mean log-likelihood in nats, and fraction misclassified (mean absolute error where the network
        does not classify); empty without validation data.
    seconds : list of float
        Duration of the epoch, validation included.
    interrupted : bool
        Whether Ctrl-C ended the fit.
    converged : bool
        Whether L-BFGS came to its tolerance.
    """

    log_likelihood: list[float] = field(default_factory=list)
    validation_log_likelihood: list[float] = field(default_factory=list)
    validation_error: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    interrupted: bool = False
    converged: bool = False
    objective: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.log_likelihood)

    def columns(self) -> dict[str, list[float]]:
        """Return the lists that have a value for each epoch, by name."""
        return {name: values for name, values in vars(self).items() if isinstance(values, list)}

    def record(
        self, seconds: float, log_likelihood: float, objective: float, validation: tuple[float, float] | None
    ) -> None:
        """Add an epoch; validation is (mean log-likelihood, fraction misclassified)."""
        self.seconds.append(seconds)
        if validation is not None:
            self.validation_log_likelihood.append(validation[0])
            self.validation_error.append(validation[1])
        self.objective.append(objective)
        self.log_likelihood.append(log_likelihood)

    def interrupt(self) -> None:
        """Note that Ctrl-C came; it may have come in the middle of `record`."""
        self.interrupted = True
        for values in self.columns().values():
            del values[len(self) :]


@dataclass
class Fit:
    """A fit under way, as callbacks see it.

    Attributes
    ----------
    trainer : Trainer
        Whose network, at ``trainer.network``, is being trained.
    epochs, n_rows : int
        How many epochs were asked for, and rows in each; 0 rows if that is not known yet.
    history : History
        Of the finished epochs of this fit.
    rows_done : int
        Rows of the current epoch that are done.
    stop : bool
        Set it to True to end the fit after the current epoch.
    """

    trainer: Trainer
    epochs: int
    n_rows: int
    history: History = field(default_factory=History)
    rows_done: int = 0
    stop: bool = False


class Callback:
    """Base of callbacks; override what is of interest."""

    def on_start(self, fit: Fit) -> None:
        """Before the first epoch."""

    def on_chunk(self, fit: Fit) -> None:
        """About every 50 ms.

        The network is as after the last finished step, but of very sparse data, where rows of the first weight that
        recent batches have not touched may lag behind until the epoch ends.
        """

    def on_epoch(self, fit: Fit) -> None:
        """After each epoch, its validation included."""

    def on_end(self, fit: Fit) -> None:
        """At the end, also after Ctrl-C or an error."""


class ProgressBar(Callback):
    """A tqdm bar with the log-likelihood and the validation error.

    Parameters
    ----------
    show : bool or None
        None shows it only where the standard error stream is a terminal.
    """

    def __init__(self, show: bool | None = None) -> None:
        self.show = show

    def on_start(self, fit: Fit) -> None:
        """Open the bar."""
        self._bar: Any = None
        if self.show or (self.show is None and sys.stderr is not None and sys.stderr.isatty()):
            from tqdm import tqdm  # takes a while to import

            self._bar = tqdm(
                total=fit.epochs * fit.n_rows or None, unit=" rows", unit_scale=True, dynamic_ncols=True
            )
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
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
