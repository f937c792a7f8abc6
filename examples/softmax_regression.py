"""Softmax regression on MNIST: no hidden units, Adam, with a learning rate along a cosine.

The published test error is 7.489 %, of deeplearning.net's logistic regression.  It trained on 50,000 rows in
minibatches and stopped early by the error on 10,000 validation rows.  This program trains on the same rows; its
settings were chosen on the same validation rows.

It draws the weights of each class (extra ``plot``): red where ink speaks for the class, blue where it speaks against.
"""

import time

import fastnn
from fastnn.plotting import plot_weights, write_figure

EPOCHS = 30


def main() -> None:
    """Train, and compare with the published error."""
    train, valid, test = fastnn.datasets.load_mnist()
    network = fastnn.Network([784, 10], dtype="float32", seed=0)
    optimizer = fastnn.Adam(learning_rate=fastnn.schedules.Cosine(0.002, EPOCHS))
    trainer = fastnn.Trainer(network, optimizer, batch_size=200)

    start = time.perf_counter()
    trainer.fit(train.X, train.y, epochs=EPOCHS)
    seconds = time.perf_counter() - start

    print(f"validation error {100 * network.error(valid.X, valid.y):.2f} %")
    print(f"test error {100 * network.error(test.X, test.y):.2f} % (published: 7.489 %) after {seconds:.1f} s")
    write_figure(plot_weights(network), "weights.png")


if __name__ == "__main__":
    main()
