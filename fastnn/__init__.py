"""fastnn: train softmax regression, perceptrons and small convolutional networks on a CPU, fast and simply.

>>> import fastnn
>>> train, valid, test = fastnn.datasets.load_mnist()
>>> net = fastnn.Network([784, 100, 10], dtype="float32")
>>> trainer = fastnn.Trainer(net, fastnn.SGD(learning_rate=0.1), batch_size=50)
>>> history = trainer.fit(train.X, train.y, epochs=2, validation=(valid.X, valid.y))
>>> net.error(test.X, test.y) < 0.06
True
"""

from fastnn import (  # noqa: F401  the clock starts before all else
    _clock,
    _scipy_blas,
    augment,
    callbacks,
    datasets,
    layers,
    schedules,
)
from fastnn._config import show_config
from fastnn._version import __version__ as __version__
from fastnn.ensemble import Ensemble
from fastnn.history import History
from fastnn.network import Network
from fastnn.optimizers import LBFGS, SGD, Adagrad, Adam, AdamW, RMSprop
from fastnn.training import DivergenceError, ManyFitsError, Trainer, fit_many

__all__ = [
    "LBFGS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "DivergenceError",
    "Ensemble",
    "History",
    "ManyFitsError",
    "Network",
    "RMSprop",
    "Trainer",
    "augment",
    "callbacks",
    "datasets",
    "fit_many",
    "layers",
    "schedules",
    "show_config",
]
