"""The genuine Theano 1.0.5, in a process and a Python of its own: ``python theano_peer.py cell.npz``.

The file holds X, y, the weights W0, W1, ..., the biases b0, b1, ..., learning_rate and batch_size.  It answers
"ready VERSION SECONDS" when all is compiled, in so many seconds, and then to each line "epoch" with the epoch's
seconds and mean log-likelihood.  It also runs on Python 2.7.
"""

import sys
import time

import numpy as np
import theano
import theano.tensor as T


def compile_step(content):
    """Return a compiled step, which takes the number of its first row and returns the batch's log-likelihood."""
    X, y = (theano.shared(content[name], borrow=True) for name in ("X", "y"))
    count = sum(name.startswith("W") for name in content.files)
    weights = [theano.shared(content["W%d" % k]) for k in range(count)]
    biases = [theano.shared(content["b%d" % k]) for k in range(count)]
    batch_size, number = int(content["batch_size"]), content["X"].dtype.type
    first = T.lscalar()
    rows, labels = X, y
    if batch_size < len(content["X"]):
        rows, labels = X[first : first + batch_size], y[first : first + batch_size]
    for W, b in zip(weights[:-1], biases[:-1]):  # noqa: B905  Python 2 has no strict
        rows = T.tanh(T.dot(rows, W) + b)
    P = T.nnet.softmax(T.dot(rows, weights[-1]) + biases[-1])
    value = -T.nnet.categorical_crossentropy(P, labels).mean()
    parameters = weights + biases
    gradient = T.grad(value, parameters)
    rate = number(content["learning_rate"])
    updates = [(p, p + rate * g) for p, g in zip(parameters, gradient)]  # noqa: B905
    step = theano.function([first], theano.Out(value, borrow=True), updates=updates, on_unused_input="ignore")
    step.trust_input = True
    return step


def main():
    """Speak the protocol until the input ends."""
    content = np.load(sys.argv[1])
    begin = time.time()
    step = compile_step(content)
    seconds = time.time() - begin
    n, batch_size = len(content["X"]), int(content["batch_size"])
    starts = [np.asarray(first, "int64") for first in range(0, n, batch_size)]
    sizes = [min(batch_size, n - int(first)) for first in starts]
    sys.stdout.write("ready %s %r\n" % (theano.__version__, seconds))
    sys.stdout.flush()
    for line in iter(sys.stdin.readline, ""):
        if line.strip() != "epoch":
            sys.exit("theano_peer: unknown line %r" % line)
        begin = time.time()
        total = 0.0
        for first, size in zip(starts, sizes):  # noqa: B905
            total += float(step(first)) * size
        sys.stdout.write("%r %r\n" % (time.time() - begin, total / n))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
