"""Train a network of 300 tanh units on MNIST, save it, and show its worst mistakes.

Run it from anywhere: ``python train_mnist.py``.  It takes some seconds on two cores.  It draws the mistakes too (extra
``plot``).
"""

import numpy as np

import fastnn
from fastnn.plotting import plot_digits, write_figure


def main() -> None:
    """Train, save, load, classify."""
    train, valid, test = fastnn.datasets.load_mnist()
    network = fastnn.Network([784, 300, 10], activation="tanh", dtype="float32", seed=0)
    optimizer = fastnn.SGD(learning_rate=0.1, momentum=0.9)
    trainer = fastnn.Trainer(network, optimizer, batch_size=200, l2=1e-5)
    validation = (valid.X, valid.y)

    # A second fit continues the training, here with a lower learning rate.
    history = trainer.fit(train.X, train.y, epochs=8, validation=validation)
    trainer.optimizer = fastnn.SGD(learning_rate=0.02, momentum=0.9)
    last = trainer.fit(train.X, train.y, epochs=4, validation=validation)
    first, final = history.log_likelihood[0], last.log_likelihood[-1]
    print(f"log-likelihood from {first:.4f} in the first epoch to {final:.4f} in the last")

    network.save("mnist-tanh.safetensors")
    network = fastnn.Network.load("mnist-tanh.safetensors")
    print(f"test error {100 * network.error(test.X, test.y):.2f} %")

    assigned = network.predict(test.X)
    confidence = network.predict_proba(test.X).max(axis=1)
    wrong = np.flatnonzero(assigned != test.y)
    worst = wrong[np.argsort(-confidence[wrong])][:5]
    for i in worst:
        print(f"image {i}: a {test.y[i]}, classified as a {assigned[i]} with probability {confidence[i]:.3f}")
    write_figure(plot_digits(test.X[worst], test.y[worst], assigned[worst]), "mistakes.png")


if __name__ == "__main__":
    main()
