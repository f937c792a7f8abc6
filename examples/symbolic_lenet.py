"""LeNet on MNIST as formulas: 20 and 50 filters of 5x5, each pooled by 2x2, and 500 tanh units; plain steps.

The images of a minibatch are (image, channel, row, column).  ``symbolic_softmax.py`` explains minibatches.

The published error of deeplearning.net's network of this kind, after 200 epochs, is .92 %.  ``lenet.py`` trains it as a
network of layers.
"""

import numpy as np

import fastnn
import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn.symbolic.tensor.nnet import conv2d
from fastnn.symbolic.tensor.signal.pool import pool_2d

EPOCHS = 10
BATCH_SIZE = 100
LEARNING_RATE = 0.1
FILTERS = [(20, 1, 5, 5), (50, 20, 5, 5)]
HIDDEN = 500


def main(epochs: int = EPOCHS, dtype: str = "float32") -> list:
    """Train, count the mistakes on the validation and test images after each epoch, and return the parameters."""
    theano.config.floatX = dtype  # the dtype of T.matrix
    random = np.random.RandomState(0)
    parameters = []

    def parameter(shape, n_inputs):
        limit = np.sqrt(3 / n_inputs) if n_inputs else 0
        parameters.append(theano.shared(random.uniform(-limit, limit, shape).astype(dtype)))
        return parameters[-1]

    def convolved_and_pooled(maps, shape):
        W, b = parameter(shape, np.prod(shape[1:])), parameter(shape[:1], None)
        pooled = pool_2d(conv2d(maps, W, filter_shape=shape), (2, 2), ignore_border=True)
        return T.tanh(pooled + b.dimshuffle("x", 0, "x", "x"))

    def product(rows, n_inputs, n_units):
        return T.dot(rows, parameter((n_inputs, n_units), n_inputs)) + parameter((n_units,), None)

    # The model, the cost that falls, and the share of mistakes.
    x, y = T.matrix("x"), T.ivector("y")
    maps = x.reshape((BATCH_SIZE, 1, 28, 28))
    for shape in FILTERS:
        maps = convolved_and_pooled(maps, shape)
    H = T.tanh(product(maps.flatten(2), 50 * 4 * 4, HIDDEN))
    P = T.nnet.softmax(product(H, HIDDEN, 10))
    loss = T.mean(T.nnet.categorical_crossentropy(P, y))
    errors = T.mean(T.neq(T.argmax(P, axis=1), y))

    # Functions of the number of a minibatch.
    i = T.lscalar("i")
    rows = slice(i * BATCH_SIZE, (i + 1) * BATCH_SIZE)

    def batches(dataset):
        images = theano.shared(dataset.X.astype(dtype), "images", borrow=True)
        labels = T.cast(theano.shared(dataset.y, "labels"), "int32")
        return range(len(dataset.y) // BATCH_SIZE), {x: images[rows], y: labels[rows]}

    (train, train_rows), (valid, valid_rows), (test, test_rows) = map(batches, fastnn.datasets.load_mnist())
    updates = [(p, p - LEARNING_RATE * T.grad(loss, p)) for p in parameters]
    train_step = theano.function([i], loss, updates=updates, givens=train_rows)
    valid_errors = theano.function([i], errors, givens=valid_rows)
    test_errors = theano.function([i], errors, givens=test_rows)

    for epoch in range(1, epochs + 1):
        mean_loss = np.mean([train_step(k) for k in train])
        told = [
            100 * np.mean([count(k) for k in which]) for count, which in ((valid_errors, valid), (test_errors, test))
        ]
        print(f"epoch {epoch}: loss {mean_loss:.6f}, validation error {told[0]:.2f} %, test error {told[1]:.2f} %")
    return parameters


if __name__ == "__main__":
    main()
