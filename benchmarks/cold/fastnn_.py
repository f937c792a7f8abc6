"""fastnn from a cold process to 98 % on MNIST's test images: ``python benchmarks/cold/fastnn_.py``.

784-512-10 with ReLU, batches of 24 of all 60,000 training images, and plain gradient steps; the learning rate falls
from epoch to epoch.  Like its peers it takes a folder and a seed as arguments, but fastnn has the data itself.
"""

import sys

import numpy as np

import fastnn


class Until98(fastnn.callbacks.Callback):
    def on_epoch(self, fit):
        error = fit.history.validation_error[-1]
        print(f"{len(fit.history)} epochs, {100 * error:.2f} % error")
        fit.stop = error <= 0.02


train, valid, test = fastnn.datasets.load_mnist(dtype="uint8")
X, y = np.concatenate([train.X, valid.X]), np.concatenate([train.y, valid.y])
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
network = fastnn.Network([784, 512, 10], activation="relu", dtype="float32", seed=seed)
optimizer = fastnn.SGD(fastnn.schedules.Step(0.5, 0.25))
trainer = fastnn.Trainer(network, optimizer, batch_size=24, seed=seed, callbacks=[Until98()])
trainer.fit(X, y, epochs=20, validation=(test.X, test.y), progress=False)
