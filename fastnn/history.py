"""The record of a fit."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """Record of a fit, with one value for each epoch.

    Attributes
    ----------
    log_likelihood : list of float
        Mean over the epoch's rows of the log-probability of the true class, in nats, or of minus another loss; each
        batch is measured before its own step, without penalties.
    objective : list of float
        The same minus the penalties, each batch measured before its own step.  (With very sparse data, whose rows of
        the first weight are updated late, that weight's penalty is measured after the epoch.)
    validation_log_likelihood, validation_error : list of float
        After the epoch: mean log-likelihood in nats, and fraction misclassified (mean absolute error if the network
        does not classify); empty without validation data.
    seconds : list of float
        Duration of the epoch, validation included.
    interrupted : bool
        Whether Ctrl-C ended the fit.
    converged : bool
        Whether L-BFGS reached its tolerance.
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
        """Return the lists with a value for each epoch, by name."""
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
        """Note that Ctrl-C came, perhaps in the middle of `record`."""
        self.interrupted = True
        for values in self.columns().values():
            del values[len(self) :]
