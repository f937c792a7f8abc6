"""A small network with few mistakes on MNIST: batch normalisation, dropout, and images that are shifted in each epoch.

Four convolutions of 3x3, with 16, 16, 32 and 32 filters, the second and the fourth pooled by 2x2, and 128 units, all
rectified linear: 83,000 numbers.  Adam, with a learning rate along a cosine; dropout before the output layer only.

It draws the first mistakes of the last network (extra ``plot``).
"""

import time

import numpy as np

import fastnn
from fastnn.layers import Conv2D, Dense, MaxPool2D
from fastnn.plotting import plot_digits, write_figure

EPOCHS = 16
SEEDS = (0, 1, 2)


def build(seed: int) -> fastnn.Network:
    """Return the network with weights drawn by a seed."""
    layers = [
        *(Conv2D(16, 3), Conv2D(16, 3), MaxPool2D(2)),
        *(Conv2D(32, 3), Conv2D(32, 3), MaxPool2D(2)),
        *(Dense(128, dropout=0.3), Dense(10)),
    ]
    return fastnn.Network(
        layers, input_shape=(28, 28, 1), activation="relu", dtype="float32", seed=seed, batch_norm=True
    )


def main() -> None:
    """Train with each seed, and print the errors and their mean."""
    train, valid, test = fastnn.datasets.load_mnist()
    X, y = np.concatenate([train.X, valid.X]), np.concatenate([train.y, valid.y])
    errors = []
    for seed in SEEDS:
        network = build(seed)
        optimizer = fastnn.Adam(learning_rate=fastnn.schedules.Cosine(0.003, EPOCHS))
        trainer = fastnn.Trainer(network, optimizer, batch_size=128, seed=seed, augment=fastnn.augment.Shift(2))

        start = time.perf_counter()
        trainer.fit(X, y, epochs=EPOCHS)
        minutes = (time.perf_counter() - start) / 60

        errors.append(100 * network.error(test.X, test.y))
        print(f"seed {seed}: test error {errors[-1]:.2f} % after {minutes:.1f} minutes")
    print(f"mean test error {np.mean(errors):.2f} %")

    assigned = network.predict(test.X)
    wrong = np.flatnonzero(assigned != test.y)[:20]
    write_figure(plot_digits(test.X[wrong], test.y[wrong], assigned[wrong], columns=10), "mistakes.png")


if __name__ == "__main__":
    main()
