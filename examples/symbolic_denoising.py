"""A denoising autoencoder on MNIST as formulas: it learns to restore images of which some pixels were set to 0.

P. Vincent, H. Larochelle, Y. Bengio and P.-A. Manzagol, "Extracting and composing robust features with denoising
autoencoders", ICML 2008.  A random stream chooses the pixels, others in each step.  The decoder's weights are the
encoder's, transposed.

After ten epochs, restoring lowers the mean squared error of broken test images from 0.0339 to 0.0094.
It draws some of them (extra ``plot``): as they were, broken, and restored.
"""

import numpy as np

import fastnn
import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn.plotting import plot_digits, write_figure
from fastnn.symbolic.tensor.shared_randomstreams import RandomStreams

EPOCHS = 10
BATCH_SIZE = 50
HIDDEN = 200
CORRUPTION = 0.3
LEARNING_RATE = 0.1


def main(epochs: int = EPOCHS, dtype: str = "float32") -> None:
    """Train, and restore the test images."""
    theano.config.floatX = dtype  # the dtype of T.matrix
    random, streams = np.random.RandomState(0), RandomStreams(seed=0)
    limit = np.sqrt(6 / (784 + HIDDEN))

    # The model, and the cross-entropy of images and what is restored of them, in nats.
    x = T.matrix("x")
    W = theano.shared(random.uniform(-4 * limit, 4 * limit, (784, HIDDEN)).astype(dtype), "W")
    b = theano.shared(np.zeros(HIDDEN, dtype), "b")
    c = theano.shared(np.zeros(784, dtype), "c")
    broken = x * streams.binomial(size=x.shape, n=1, p=1 - CORRUPTION, dtype=dtype)
    H = T.nnet.sigmoid(T.dot(broken, W) + b)
    restored = T.nnet.sigmoid(T.dot(H, W.T) + c)
    cost = -T.mean(T.sum(x * T.log(restored) + (1 - x) * T.log(1 - restored), axis=1))

    # A function of the number of a minibatch, and one of images.
    train, _, test = fastnn.datasets.load_mnist(dtype=dtype)
    images = theano.shared(train.X, "images", borrow=True)
    i = T.lscalar("i")
    step = theano.function(
        [i],
        cost,
        updates=[(p, p - LEARNING_RATE * T.grad(cost, p)) for p in (W, b, c)],
        givens={x: images[i * BATCH_SIZE : (i + 1) * BATCH_SIZE]},
    )
    errors = theano.function([x], [T.mean((broken - x) ** 2), T.mean((restored - x) ** 2)])
    restore = theano.function([x], [x, broken, restored])

    for epoch in range(epochs):
        costs = [step(k) for k in range(len(train.X) // BATCH_SIZE)]
        print(f"epoch {epoch + 1}: cost {np.mean(costs):.6f}")
    before, after = errors(test.X)
    print(f"mean squared error of the test images: {before:.6f} broken, {after:.6f} restored")
    write_figure(plot_digits(np.concatenate(restore(test.X[:8])), columns=8), "restored.png")


if __name__ == "__main__":
    main()
