"""Training on tables: networks as they start, and the fit that finds its own end.

`start` makes a network, `train` trains one or several, `choose` finds the best of some recipes by it, and `repeat`
trains again, on more rows, as it went best.  What is measured on the validation rows is never the network itself but a
mean of its parameters over the last epochs, which moves less from epoch to epoch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.callbacks import Callback, Checkpoint, Fit
from fastnn.history import History
from fastnn.layers import Columns, Dense
from fastnn.network import Network
from fastnn.optimizers import AdamW
from fastnn.tabular.preparation import hat_features
from fastnn.tabular.recipe import Recipe
from fastnn.training import ManyFitsError, Trainer, fit_many

# What embeddings are multiplied by at first.  With 1, RMSEs are 10 to 20 % higher, with 0.01 the same.
EMBEDDED = 0.1

# Rows, targets, and weights or None; or without weights.
Data = Sequence[Any]


def start(
    columns: Columns, recipe: Recipe, prior: NDArray[Any], loss: str, seed: Any, quantiles: Sequence[float] = ()
) -> Network:
    """Return a network that predicts the same for all rows.

    Parameters
    ----------
    columns : Columns
        Its first layer.
    recipe : Recipe
        Its hidden layers.
    prior : (n_out,) array
        Its outputs before softmax: the logarithms of the classes' shares, or the means of the targets.
    loss : str
        As for `fastnn.Network`.
    seed : int or numpy.random.Generator
        For the initial weights.
    quantiles : sequence of float, default ()
        As for `fastnn.Network`.

    Notes
    -----
    The weights of hat functions start at 0: the first layer's units are smooth functions of the numbers then, and bend
    only as far as the data make them.  Those of the output layer start at 0 too, as in RealMLP.  Embeddings start
    small, so that rare categories are like those that were not seen.
    """
    hidden = [Dense(units) for units in recipe.hidden_layer_sizes]
    layers = [columns, *hidden, Dense(len(prior))]
    n_in = len(columns.columns)
    network = Network(layers, recipe.activation, "float32", seed, loss, input_shape=n_in, quantiles=quantiles)
    network.weights[0][hat_features(columns)] = 0
    for embedding in network.embeddings:
        embedding *= EMBEDDED
    network.weights[-1][:] = 0
    network.biases[-1] = prior
    return network


class Average:
    """A running mean of parameters, in which an epoch's share falls by a factor with each epoch after it."""

    def __init__(self, network: Network, keep: float) -> None:
        self.keep, self.weight = keep, 0.0
        self.total = np.zeros_like(network.parameters)

    def add(self, parameters: NDArray[Any]) -> NDArray[Any]:
        """Add those of an epoch, and return the mean."""
        self.total = self.keep * self.total + (1 - self.keep) * parameters
        self.weight = self.keep * self.weight + 1 - self.keep
        mean: NDArray[Any] = self.total / self.weight
        return mean


def rate_at(recipe: Recipe, epoch: int, n_falls: int) -> float:
    """Return the learning rate of an epoch, from 0: half a cosine over the most epochs, lowered with each fall."""
    share = epoch / recipe.max_epochs
    return recipe.learning_rate * recipe.fall**n_falls * (1 + math.cos(math.pi * share)) / 2


class Descent(Callback):
    """Lowers the learning rate when validation rows are predicted no better, and ends with the best mean of parameters.

    Parameters
    ----------
    recipe : Recipe
    validation : (X, y) or (X, y, sample_weight), or None
        None goes all epochs, by the cosine alone, and ends with the last mean.
    n_threads : int or None
        For the validation rows.

    Attributes
    ----------
    best_epoch : int
        Counted from 1; 0 before any.
    best : float
        Mean log-likelihood of the validation rows by the mean of parameters after that epoch, in nats.
    rates : list of float
        Learning rates of all epochs so far.
    """

    def __init__(self, recipe: Recipe, validation: Data | None, n_threads: int | None = None) -> None:
        self.recipe, self.validation, self.n_threads = recipe, validation, n_threads

    def on_start(self, fit: Fit) -> None:
        """Forget an earlier fit."""
        self.rates: list[float] = []
        self.best_epoch, self.best = 0, -math.inf
        self._n_falls = self._lowered = 0
        self._best_parameters: NDArray[Any] | None = None
        self._average = Average(fit.trainer.network, self.recipe.averaging)
        self._network = copy.copy(fit.trainer.network)  # with the mean of parameters
        self._data = None if self.validation is None else self._network.check_data(*self.validation)

    def on_epoch(self, fit: Fit) -> None:
        """Measure the mean, keep the best, and choose the next learning rate."""
        recipe, epoch = self.recipe, len(fit.history)
        self.rates.append(rate_at(recipe, epoch - 1, self._n_falls))
        mean = self._average.add(fit.trainer.network.parameters)
        measure = self._measure(fit, mean)
        if measure > self.best or self._data is None:
            self.best_epoch, self.best, self._best_parameters = epoch, measure, mean
        elif epoch - max(self.best_epoch, self._lowered) > recipe.patience:
            self._n_falls, self._lowered = self._n_falls + 1, epoch
        if self._n_falls > recipe.most_falls:
            fit.stop = True
        elif epoch < recipe.max_epochs:
            fit.learning_rate = rate_at(recipe, epoch, self._n_falls)

    def _measure(self, fit: Fit, parameters: NDArray[Any]) -> float:
        # Mean log-likelihood of the validation rows, which goes into the history.
        if self._data is None:
            return math.nan
        self._network.parameters[:] = parameters
        log_likelihood, error = self._network.score(*self._data, self.n_threads)
        fit.history.validation_log_likelihood.append(log_likelihood)
        fit.history.validation_error.append(error)
        return log_likelihood

    def on_end(self, fit: Fit) -> None:
        """Set the best mean."""
        if self._best_parameters is not None:
            fit.trainer.network.parameters = self._best_parameters

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the means, what led to them, and the recipe's numbers."""
        now = [self.best_epoch, self.best, self._n_falls, self._lowered, self._average.weight]
        found = {"now": np.array(now), "rates": np.array(self.rates, float), "total": self._average.total}
        found["settings"] = self._settings()
        return found if self._best_parameters is None else found | {"best parameters": self._best_parameters}

    def _settings(self) -> NDArray[np.float64]:
        recipe = self.recipe
        return np.array([recipe.max_epochs, recipe.patience, recipe.fall, recipe.most_falls, recipe.averaging])

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Restore what `state` returned; refuse another recipe."""
        if not np.array_equal(state["settings"], self._settings()):
            raise ValueError("the recipe is not the checkpoint's")
        epoch, self.best, n_falls, lowered, self._average.weight = state["now"].tolist()
        self.best_epoch, self._n_falls, self._lowered = int(epoch), int(n_falls), int(lowered)
        self.rates, self._average.total = state["rates"].tolist(), state["total"]
        self._best_parameters = state.get("best parameters")


class Repetition(Callback):
    """Takes given learning rates, one an epoch, and ends with the mean of parameters.

    Parameters
    ----------
    recipe : Recipe
    rates : sequence of float
        Those of a `Descent`, up to its best epoch.
    """

    def __init__(self, recipe: Recipe, rates: Sequence[float]) -> None:
        self.recipe, self.rates = recipe, rates

    def on_start(self, fit: Fit) -> None:
        """Forget an earlier fit."""
        self._average = Average(fit.trainer.network, self.recipe.averaging)
        self._mean: NDArray[Any] | None = None

    def on_epoch(self, fit: Fit) -> None:
        """Choose the next learning rate, or end."""
        self._mean = self._average.add(fit.trainer.network.parameters)
        if len(fit.history) < len(self.rates):
            fit.learning_rate = self.rates[len(fit.history)]
        else:
            fit.stop = True

    def on_end(self, fit: Fit) -> None:
        """Set the mean."""
        if self._mean is not None:
            fit.trainer.network.parameters = self._mean

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the sum and its weight, and the rates."""
        average = self._average
        return {"total": average.total, "weight": np.array([average.weight]), "rates": np.array(self.rates, float)}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Restore what `state` returned; refuse other rates."""
        if not np.array_equal(state["rates"], self.rates):
            raise ValueError("the learning rates are not the checkpoint's")
        self._average.total, self._average.weight = state["total"], state["weight"].item()
        self._mean = self._average.total / self._average.weight if self._average.weight else None


def train(
    networks: Sequence[Network],
    data: Data,
    validation: Data | None,
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    callbacks: Sequence[Sequence[Callback]] | None = None,
    **options: Any,
) -> list[tuple[History, list[float]]]:
    """Train networks, each in place, and return the history of each and the learning rates up to its best epoch.

    Parameters
    ----------
    networks : sequence of Network
        As `start` made them.
    data : (X, y) or (X, y, sample_weight)
        Raw rows to train on, with classes from 0 or numbers.
    validation : (X, y) or (X, y, sample_weight), or None
        Raw rows that decide when the learning rate falls, and which epoch is the best; None goes all epochs.
    recipes : sequence of Recipe, one a network
        They agree in `max_epochs`.
    seeds : sequence of int, one a network
        For the order of rows and dropout.
    callbacks : sequence of lists of Callback, one a network, or None
        Called after this module's own.
    **options
        `n_threads` and `progress`, as for `fastnn.Trainer.fit`, and `checkpoint`: the path, without what is added for
        each network, of files from which a fit resumes that was killed.  Networks are then trained one by one.

    Returns
    -------
    list of (History, list of float), one a network
        Validation is of the mean of parameters.
    """
    descents = [Descent(recipe, validation) for recipe in recipes]
    histories = _fit(networks, data, recipes, seeds, descents, callbacks, **options)
    return [(history, one.rates[: one.best_epoch]) for history, one in zip(histories, descents, strict=True)]


def choose(
    begin: Callable[[Recipe, int], Network],
    data: Data,
    validation: Data | None,
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    checkpoint: str | None = None,
    **options: Any,
) -> tuple[Recipe, list[Network], list[tuple[History, list[float]]]]:
    """Train a network by each recipe, and more by the one that predicts the validation rows best.

    Parameters
    ----------
    begin : callable
        Takes a recipe and a member's number, from 0, and returns the member's network as it starts.
    recipes : sequence of Recipe
        They agree in `max_epochs`.  Without validation, only the first counts.
    seeds : sequence of int, one a member
    data, validation, checkpoint, **options
        As for `train`.

    Returns
    -------
    (recipe, networks, results)
        The best recipe, its networks, one a member, and what `train` returns of them.  After Ctrl-C there may be only
        the first network.
    """
    recipes = recipes if validation is not None else recipes[:1]
    trials = [begin(recipe, 0) for recipe in recipes]
    own = checkpoint if len(seeds) == 1 or checkpoint is None else f"{checkpoint}.trial"
    results = train(trials, data, validation, recipes, [seeds[0]] * len(recipes), checkpoint=own, **options)
    curves = [history.validation_log_likelihood for history, _ in results]
    interrupted = any(history.interrupted for history, _ in results)
    best = max(range(len(recipes)), key=lambda k: max(curves[k], default=-math.inf))
    recipe, others = recipes[best], range(1, len(seeds))
    networks, results = [trials[best]], [results[best]]
    if others and not interrupted:
        more = [begin(recipe, k) for k in others]
        results += train(more, data, validation, [recipe] * len(more), seeds[1:], checkpoint=checkpoint, **options)
        networks += more
    return recipe, networks, results


def repeat(
    networks: Sequence[Network],
    data: Data,
    rates: Sequence[Sequence[float]],
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    callbacks: Sequence[Sequence[Callback]] | None = None,
    **options: Any,
) -> list[History]:
    """Train networks, from their start, by the learning rates that `train` has found on a part of these rows.

    Parameters are those of `train`; rates has a sequence of one or more a network.
    """
    repetitions = [Repetition(recipe, each) for recipe, each in zip(recipes, rates, strict=True)]
    return _fit(networks, data, recipes, seeds, repetitions, callbacks, **options)


def _fit(
    networks: Sequence[Network],
    data: Data,
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    own: Sequence[Callback],
    callbacks: Sequence[Sequence[Callback]] | None,
    n_threads: int | None = None,
    checkpoint: str | None = None,
    **options: Any,
) -> list[History]:
    X, y, sample_weight = (*data, None)[:3]
    given = callbacks or [[] for _ in networks]
    trainers = [
        Trainer(
            network,
            AdamW(rate_at(recipe, 0, 0), weight_decay=recipe.weight_decay),
            batch_size=min(recipe.batch_size, len(y)),
            seed=seed,
            n_threads=n_threads,
            callbacks=[first, *others],
            dropout=recipe.dropout,
            label_smoothing=recipe.label_smoothing if network.loss == "cross_entropy" else 0.0,
        )
        for network, recipe, seed, first, others in zip(networks, recipes, seeds, own, given, strict=True)
    ]
    options["epochs"], options["sample_weight"] = recipes[0].max_epochs, sample_weight
    if checkpoint is not None:
        return [_resume(trainer, f"{checkpoint}.{k}", X, y, options) for k, trainer in enumerate(trainers)]
    if len(trainers) == 1:
        return [trainers[0].fit(X, y, **options)]
    try:
        return fit_many(trainers, X, y, n_threads=n_threads, **options)
    except ManyFitsError as error:  # as of one network
        raise next(result for result in error.results if isinstance(result, Exception)) from error


def _resume(trainer: Trainer, path: str, X: Any, y: Any, options: dict[str, Any]) -> History:
    trainer.callbacks = [*trainer.callbacks, Checkpoint(path)]
    return trainer.fit(X, y, resume=path, **options)
