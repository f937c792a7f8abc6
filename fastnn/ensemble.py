"""Networks that predict together: the mean of what each predicts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn import storage
from fastnn._validation import check_threads
from fastnn.engine.rows import Rows
from fastnn.kernels.losses import Targets, inplace_loss
from fastnn.network import Network


class Ensemble:
    """Several networks, trained apart, whose mean prediction is mostly better than that of each.

    Probabilities are the mean of the networks' probabilities, and numbers the mean of their numbers.

    Parameters
    ----------
    networks : iterable of Network
        At least one; they agree in their numbers of inputs and of outputs, in their loss and in its quantiles.  They
        stay the caller's: training one changes the ensemble.

    Notes
    -----
    `X`, `y`, `sample_weight` and `n_threads` are as in `Network`.  The mean is taken in the widest dtype of the
    networks.

    See T. G. Dietterich, "Ensemble methods in machine learning", MCS 2000.

    Examples
    --------
    >>> ensemble = Ensemble([Network([4, 3, 2], seed=seed) for seed in range(5)])
    >>> len(ensemble), ensemble.predict_proba([[0.0, 0.0, 0.0, 0.0]])
    (5, array([[0.5, 0.5]]))
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        if not self._networks:
            raise ValueError("networks is empty: at least one is needed")
        for k, network in enumerate(self._networks):
            if not isinstance(network, Network):
                raise TypeError(f"networks[{k}] must be a fastnn.Network, not {type(network).__name__}")
            _check_alike(network, self._networks[0], f"networks[{k}]")

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks."""
        return self._networks

    def __len__(self) -> int:
        return len(self._networks)

    def __iter__(self) -> Iterator[Network]:
        return iter(self._networks)

    def __repr__(self) -> str:
        return f"Ensemble of {len(self)}, the first {self._networks[0]!r}"

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return self._networks[0].n_in

    @property
    def n_out(self) -> int:
        """Number of outputs: of classes, if they classify."""
        return self._networks[0].n_out

    @property
    def loss(self) -> str:
        """Name of the loss."""
        return self._networks[0].loss

    @property
    def classifies(self) -> bool:
        """Whether the outputs are probabilities of classes or labels, not real numbers."""
        return self._networks[0].classifies

    @property
    def dtype(self) -> np.dtype[Any]:
        """float64 if a network has it, else float32."""
        return np.result_type(*(network.dtype for network in self))

    def predict(self, X: ArrayLike, n_threads: int | None = None) -> NDArray[Any]:
        """Most probable class (n,) of each row by the mean probability, the first of equals.

        With binary cross-entropy (n, n_out): 1 for each output whose mean probability is above one half, else 0; with
        other losses the mean outputs (n, n_out).
        """
        if not self.classifies:
            return self._mean([network.predict for network in self], X, n_threads)
        probabilities = self.predict_proba(X, n_threads)
        found: NDArray[np.intp] = probabilities.argmax(axis=1)
        return found if self.loss == "cross_entropy" else (probabilities > 0.5).astype(np.intp)

    def predict_proba(self, X: ArrayLike, n_threads: int | None = None) -> NDArray[Any]:
        """Mean probability (n, n_out) of each class for each row."""
        return self._mean([network.predict_proba for network in self], X, n_threads)

    def _mean(self, functions: list[Any], X: ArrayLike, n_threads: int | None) -> NDArray[Any]:
        total: NDArray[Any] = functions[0](X, n_threads).astype(self.dtype)
        for function in functions[1:]:
            total += function(X, n_threads)
        total /= len(functions)
        return total

    def log_likelihood(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, n_threads: int | None = None
    ) -> float:
        """Mean over the rows of the log of the true class's mean probability, in nats; or of minus another loss."""
        rows, targets = self._check_data(X, y, sample_weight)
        total = float(rows.shape[0] if targets.weights is None else targets.weights.sum())
        return float(inplace_loss(targets, self._joint_outputs(X, check_threads(n_threads)), total)) / total

    def error(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, n_threads: int | None = None
    ) -> float:
        """Fraction of the rows that is misclassified, or of all labels if a row has several."""
        if not self.classifies:
            raise TypeError(f"networks with loss {self.loss!r} do not classify: use log_likelihood")
        _, targets = self._check_data(X, y, sample_weight)
        predicted = self.predict(X, n_threads)
        if self.loss == "cross_entropy":
            wrong = predicted != targets.y
        else:
            wrong = (predicted != (targets.y > 0.5)).mean(axis=1)
        return float(np.average(wrong, weights=targets.weights))

    def _check_data(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None) -> tuple[Rows, Targets]:
        # The targets are in float64, as the joint outputs are.
        widest = next(network for network in self if network.dtype == self.dtype)
        rows, targets = widest.check_data(X, y, sample_weight)
        return rows, targets if self.loss == "cross_entropy" else targets._replace(y=targets.y.astype(np.float64))

    def _joint_outputs(self, X: Any, n_threads: int | None) -> NDArray[np.float64]:
        # The output layer (n, n_out) before softmax or sigmoid of a network that predicts the mean: its softmax or
        # sigmoid is the mean probability, but its logarithm is finite where a probability rounds to 0 or 1.
        outputs = np.array([net._outputs(X, n_threads) for net in self], float)
        joint: NDArray[np.float64]
        if not self.classifies:
            joint = outputs.mean(axis=0)
        elif self.loss == "cross_entropy":
            joint = np.logaddexp.reduce(outputs - np.logaddexp.reduce(outputs, axis=2, keepdims=True), axis=0)
        else:
            yes, no = (np.logaddexp.reduce(-np.logaddexp(0, sign * outputs), axis=0) for sign in (-1, 1))
            joint = yes - no
        return np.ascontiguousarray(joint)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all networks to one safetensors file, atomically: a crash leaves an old file whole."""
        storage.save_ensemble(path, [(network.description(), network.parameters) for network in self])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ensemble:
        """Read an ensemble that `save` wrote.

        Raises
        ------
        OSError
            If there is no such file or it cannot be read.
        ValueError
            If the file is damaged or is not an ensemble of this package; the message names it.
        """
        networks = [Network.assemble(*each) for each in storage.load_ensemble(path)]
        try:
            return cls(networks)
        except ValueError as error:
            raise ValueError(f"{path} is not a usable fastnn ensemble: {error}") from error


def _check_alike(network: Network, first: Network, name: str) -> None:
    for what in ("n_in", "n_out", "loss", "quantiles"):
        here, there = getattr(network, what), getattr(first, what)
        if here != there:
            raise ValueError(f"{name} must have {what}={there!r}, as the first network, not {here!r}")
