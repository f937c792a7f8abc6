"""LeNet on MNIST: 20 and 50 filters of 5x5, each pooled by 2x2, and 500 tanh units; momentum, a rate along a cosine.

The published test error is .92 %, of deeplearning.net's LeNet: plain steps on 50,000 rows, the error of 10,000
validation rows to choose the epoch, 200 epochs, 380 minutes.  This program trains on all 60,000 rows, for 12 epochs.

It draws what the first convolution makes of a digit (extra ``plot``), a map for each filter.
"""

import time

import numpy as np

import fastnn
from fastnn.layers import Conv2D, Dense, MaxPool2D
from fastnn.plotting import plot_feature_maps, write_figure

EPOCHS = 12


def main() -> None:
    """Train, save, and compare with the published error."""
    train, valid, test = fastnn.datasets.load_mnist()
    X, y = np.concatenate([train.X, valid.X]), np.concatenate([train.y, valid.y])
    layers = [Conv2D(20, 5), MaxPool2D(2), Conv2D(50, 5), MaxPool2D(2), Dense(500), Dense(10)]
    network = fastnn.Network(layers, input_shape=(28, 28, 1), activation="tanh", dtype="float32", seed=0)
    print(network)
    optimizer = fastnn.SGD(learning_rate=fastnn.schedules.Cosine(0.05, EPOCHS), momentum=0.9)
    trainer = fastnn.Trainer(network, optimizer, batch_size=100)

    start = time.perf_counter()
    trainer.fit(X, y, epochs=EPOCHS)
    seconds = time.perf_counter() - start

    network.save("lenet.safetensors")
    print(f"test error {100 * network.error(test.X, test.y):.2f} % (published: .92 %) after {seconds:.1f} s")
    write_figure(plot_feature_maps(network, test.X[0]), "maps.png")


if __name__ == "__main__":
    main()
