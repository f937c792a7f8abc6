"""What tests have Dask's workers do: they can import this module, but not the tests."""

import os

from fastnn.engine.threads import available_threads


def process(model, X, y):
    return os.getpid()


def threads(model, X, y):
    return available_threads()


def fit(trainer, X, y):
    trainer.fit(X, y, epochs=1)
    return trainer
