"""The two models of the tutorial "Training Neural Networks with Theano", on the embedded data.

Both are trained by gradient ascent on all their rows at once, with learning rate 0.5, in float64: softmax regression on
50,000 images, and 20 tanh units on the first 5,000.  ``tutorial.json`` holds the log-likelihoods that the tutorial
prints.  It starts the second model without a seed, so the file also holds those of Theano 1.0.5, started as here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastnn.datasets import Dataset
from fastnn.history import History
from fastnn.network import Network
from fastnn.optimizers import SGD
from fastnn.training import Trainer

LEARNING_RATE = 0.5
SECOND_MODEL_ROWS = 5000


@dataclass(frozen=True)
class Model:
    """One of the tutorial's models, trained.

    Attributes
    ----------
    network : Network
    history : History
    published : list of float
        Mean log-likelihoods in nats that the tutorial prints, one a step.
    theano : list of float
        The same from Theano 1.0.5, started as here.
    error : float
        Fraction of the test images that are misclassified.
    published_error : float
        What the tutorial prints for it.
    """

    network: Network
    history: History
    published: list[float]
    theano: list[float]
    error: float
    published_error: float


def published_results() -> dict[str, Any]:
    """Return the results of the tutorial and of Theano 1.0.5."""
    results: dict[str, Any] = json.loads((Path(__file__).parent / "tutorial.json").read_text(encoding="utf-8"))
    return results


def first_model(train: Dataset, test: Dataset, n_threads: int | None = None) -> Model:
    """Train softmax regression by ten steps from zero on all training rows."""
    return _replay("softmax regression", Network([784, 10]), train, test, n_threads)


def second_model(train: Dataset, test: Dataset, n_threads: int | None = None) -> Model:
    """Train 20 tanh units by sixty steps on the first 5,000 rows, from 0.01 * RandomState(0).randn."""
    network = Network([784, 20, 10], activation="tanh")
    network.weights[0] = 0.01 * np.random.RandomState(0).randn(784, 20)
    network.weights[1] = np.zeros((20, 10))
    rows = Dataset(train.X[:SECOND_MODEL_ROWS], train.y[:SECOND_MODEL_ROWS])
    return _replay("hidden layer", network, rows, test, n_threads)


def _replay(name: str, network: Network, train: Dataset, test: Dataset, n_threads: int | None) -> Model:
    results = published_results()[name]
    trainer = Trainer(network, SGD(LEARNING_RATE), n_threads=n_threads)
    history = trainer.fit(train.X, train.y, epochs=len(results["published"]), progress=False)
    return Model(network, history, error=network.error(test.X, test.y), **results)
