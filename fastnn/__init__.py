"""fastnn: train softmax regression and multi-layer perceptrons on a CPU, fast and simply.

>>> import fastnn
>>> train, valid, test = fastnn.datasets.load_mnist()
>>> net = fastnn.Network([784, 100, 10], dtype="float32")
>>> trainer = fastnn.Trainer(net, fastnn.SGD(learning_rate=0.1), batch_size=50)
>>> history = trainer.fit(train.X, train.y, epochs=2, validation=(valid.X, valid.y))
>>> net.error(test.X, test.y) < 0.06
True
"""

import time

_started = time.perf_counter()  # before the imports below: what the command line counts from

from fastnn import callbacks, datasets  # noqa: E402
from fastnn.callbacks import History  # noqa: E402
from fastnn.network import Network  # noqa: E402
from fastnn.optimizers import SGD  # noqa: E402
from fastnn.training import DivergenceError, Trainer  # noqa: E402

__version__ = "0.1.0"

__all__ = ["SGD", "DivergenceError", "History", "Network", "Trainer", "callbacks", "datasets"]
