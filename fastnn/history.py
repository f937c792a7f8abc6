"""What a fit recorded."""

from __future__ import annotations

from dataclasses import dataclass, field


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
