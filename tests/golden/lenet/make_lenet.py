"""Make lenet.json: what Theano 1.0.5 makes of some steps of LeNet on MNIST, for tests/test_golden_convolution.py.

    python tests/golden/lenet/make_lenet.py FOLDER

reads MNIST's four gzipped IDX files from a folder, needs Python 3.8 with NumPy 1.19 and Theano 1.0.5, and takes a
minute.  All is float64.  The network is that of deeplearning.net's tutorial, but for the first weights.

Where several numbers of a pooling window are the largest, as on MNIST's background, Theano's own pooling sends the
whole gradient to each of them; fastnn, like PyTorch and JAX, sends it to the first.  So there are two cases: MNIST with
a pooling that is written in Theano and takes the first; and Theano's own pooling on images with noise, where none are
equal.
"""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import theano
import theano.tensor as T
from theano.tensor.signal.pool import pool_2d

DATA = Path(sys.argv[1])
SHAPES = [(5, 5, 1, 20), (5, 5, 20, 50), (800, 500), (500, 10)]
SEED, NOISE_SEED, LEARNING_RATE = 0, 1, 0.1
BATCH, STEPS, N_TEST = 100, 10, 1000


def read_mnist(name, n):
    """Return the first n images, (n, 1, 28, 28), and their classes."""
    with gzip.open(str(DATA / (name + "-images-idx3-ubyte.gz"))) as file:
        images = np.frombuffer(file.read(16 + n * 784), np.uint8, offset=16)
    with gzip.open(str(DATA / (name + "-labels-idx1-ubyte.gz"))) as file:
        labels = np.frombuffer(file.read(8 + n), np.uint8, offset=8)
    return images.reshape(n, 1, 28, 28) / 256, labels.astype(np.int64)


def draw_weights():
    """Return the first weights, of fan-in 25, 500, 800 and 500."""
    generator = np.random.RandomState(SEED)
    return [np.sqrt(1 / np.prod(shape[:-1])) * generator.randn(*shape) for shape in SHAPES]


def add_noise(images):
    """Add a drawn number from 0 to 1/256 to each pixel."""
    return images + np.random.RandomState(NOISE_SEED).rand(*images.shape) / 256


def own_pooling(x):
    """Largest numbers of windows 2x2 of x (n, channels, height, width), by Theano's pooling."""
    return pool_2d(x, (2, 2), ignore_border=True)


def first_pooling(x):
    """Largest numbers of windows 2x2; the gradient goes to the first of equals."""
    n, channels, height, width = x.shape
    windows = x.reshape((n, channels, height // 2, 2, width // 2, 2)).dimshuffle(0, 1, 2, 4, 3, 5).flatten(5)
    first = T.argmax(windows, axis=4).dimshuffle(0, 1, 2, 3, "x")
    return T.switch(T.eq(T.arange(4), first), windows, 0).sum(axis=4)


def feature_maps(x, weight, bias, pooling):
    """Tanh of the bias and the pooled convolution of x (n, channels, height, width)."""
    # Theano has the axes (filters, channels, height, width).
    product = T.nnet.conv2d(x, weight.dimshuffle(3, 2, 0, 1), filter_flip=False)
    return T.tanh(pooling(product) + bias.dimshuffle("x", 0, "x", "x"))


def probabilities(x, weights, biases, pooling):
    """LeNet's softmax for images x."""
    for k in range(2):
        x = feature_maps(x, weights[k], biases[k], pooling)
    hidden = T.tanh(x.dimshuffle(0, 2, 3, 1).flatten(2).dot(weights[2]) + biases[2])
    return T.nnet.softmax(hidden.dot(weights[3]) + biases[3])


def digest(array):
    """Return what the file tells of an array."""
    flat = array.ravel()
    sums = {"abs_sum": np.abs(flat).sum(), "sq_sum": (flat**2).sum()}
    return dict(shape=list(array.shape), **sums, first=flat[:5].tolist(), last=flat[-5:].tolist())


def follow(pooling, prepare):
    """Train on images that are prepared so, and return what happened."""
    weights = [theano.shared(weight) for weight in draw_weights()]
    biases = [theano.shared(np.zeros(shape[-1])) for shape in SHAPES]
    x, y = T.dtensor4(), T.lvector()
    p = probabilities(x, weights, biases, pooling)
    log_likelihood = T.log(p)[T.arange(y.shape[0]), y].mean()
    updates = [(array, array + LEARNING_RATE * T.grad(log_likelihood, array)) for array in weights + biases]
    step = theano.function([x, y], log_likelihood, updates=updates)
    error = theano.function([x, y], T.neq(T.argmax(p, axis=1), y).mean())
    X, labels = read_mnist("train", BATCH * STEPS)
    X = prepare(X)
    batches = [slice(first, first + BATCH) for first in range(0, len(X), BATCH)]
    told = {"log_likelihood": [step(X[batch], labels[batch]).item() for batch in batches]}
    told["test_error_percent"] = 100 * error(*read_mnist("t10k", N_TEST)).item()
    told["params"] = [
        {name: digest(arrays[k].get_value()) for name, arrays in (("W", weights), ("b", biases))} for k in range(4)
    ]
    return told


def main():
    """Write the file."""
    assert theano.config.floatX == "float64"
    content = {
        "name": "lenet",
        "made_by": f"make_lenet.py, Theano {theano.__version__}, NumPy {np.__version__}",
        "model": "convolution, max pooling 2x2, bias, tanh, twice; tanh hidden layer; softmax",
        "weights": SHAPES,
        "axes": "(height, width, channels, filters), not flipped; the maps are flattened by (height, width, channel)",
        "init": "W = sqrt(1/fan_in)*RandomState(seed).randn(*shape) in layer order, b 0; fan_in: all axes but the last",
        "seed": SEED,
        "dtype": "float64",
        "data": "MNIST pixel/256; the first training images, in order, batches without shuffling; with_noise: "
        "(pixel + RandomState(noise_seed).rand(n, 784)) / 256",
        "noise_seed": NOISE_SEED,
        "pooling": "the gradient goes to the first of equals; with_noise: Theano's own pooling, where none are equal",
        "objective": "mean log-likelihood; ascent",
        "learning_rate": LEARNING_RATE,
        "batch": BATCH,
        "steps": STEPS,
        "n_test": N_TEST,
        "test_error_percent": "of the first n_test test images, without noise",
    }
    content["cases"] = {
        "plain": follow(first_pooling, lambda images: images),
        "with_noise": follow(own_pooling, add_noise),
    }
    path = Path(__file__).with_name("lenet.json")
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
