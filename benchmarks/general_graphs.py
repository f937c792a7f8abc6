"""Programs in Theano's notation that no engine knows, for fastnn.symbolic and for Theano: see bench_general.py.

``python general_graphs.py fastnn.symbolic`` (or ``theano``) answers to each line "name seconds" with the least time in
seconds that a call of the program took, among those in so many seconds, after the first ones.  It also runs on Python
2.7.
"""

import importlib
import sys
import time

import numpy as np

rng = np.random.RandomState(0)  # as old NumPys have it

PROGRAMS = {}

#: Calls before those that are timed, in which plans are made.
FIRST_CALLS = 20


def program(make):
    """Add a function that returns a call of a program."""
    PROGRAMS[make.__name__] = make
    return make


def momentum(theano, cost, parameters, rate=0.01):
    """Return updates by gradient descent with momentum."""
    updates = []
    for p in parameters:
        v = theano.shared(np.zeros_like(p.get_value()))
        moved = 0.9 * v - rate * theano.grad(cost, p)
        updates += [(v, moved), (p, p + moved)]
    return updates


def rmsprop(theano, T, cost, parameters, rate=0.001):
    """Return updates by RMSprop."""
    updates = []
    for p in parameters:
        g, s = theano.grad(cost, p), theano.shared(np.zeros_like(p.get_value()))
        mean = 0.9 * s + 0.1 * g**2
        updates += [(s, mean), (p, p - rate * g / T.sqrt(mean + 1e-6))]
    return updates


def adam(theano, T, cost, parameters, rate=0.001):
    """Return updates by Adam."""
    i = theano.shared(np.asarray(0.0))
    t = i + 1
    updates = [(i, t)]
    scale = rate * T.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    for p in parameters:
        g = theano.grad(cost, p)
        m, v = (theano.shared(np.zeros_like(p.get_value())) for _ in range(2))
        new_m, new_v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        updates += [(m, new_m), (v, new_v), (p, p - scale * new_m / (T.sqrt(new_v) + 1e-8))]
    return updates


def network(theano, T, x, sizes, activation):
    """Return the output before the softmax, and the parameters."""
    parameters, h = [], x
    for k in range(len(sizes) - 1):
        W = theano.shared(rng.normal(0, 0.05, (sizes[k], sizes[k + 1])))
        b = theano.shared(np.zeros(sizes[k + 1]))
        parameters += [W, b]
        h = T.dot(h, W) + b
        h = activation(h) if k < len(sizes) - 2 else h
    return h, parameters


def rows_and_classes(n, n_in=784):
    """Return rows like digits, and classes."""
    return rng.uniform(0, 1, (n, n_in)) * (rng.uniform(0, 1, (n, n_in)) < 0.2), rng.randint(0, 10, n).astype("int32")


@program
def scalar(theano, T):
    x = T.dscalar()
    f = theano.function([x], x * 2 + 1)
    return lambda: f(1.5)


@program
def scalar_training(theano, T):
    x, y = T.dscalar(), T.dscalar()
    w, b = theano.shared(np.asarray(0.5)), theano.shared(np.asarray(0.1))
    cost = (T.tanh(w * x + b) - y) ** 2
    f = theano.function([x, y], cost, updates=[(p, p - 0.01 * theano.grad(cost, p)) for p in (w, b)])
    return lambda: f(1.5, 0.5)


@program
def vectors(theano, T):
    x, w = T.dvector(), theano.shared(rng.normal(size=10))
    p = 1 / (1 + T.exp(-T.dot(x, w)))
    f = theano.function([x], [p, theano.grad(T.log(p), w)])
    value = rng.normal(size=10)
    return lambda: f(value)


@program
def newton(theano, T):
    x = T.dvector()
    y = T.sum(x**2 * T.exp(-x) + T.log(1 + x**2))
    f = theano.function([x], [y, theano.grad(y, x)])
    value = rng.normal(size=5)
    return lambda: f(value)


@program
def polynomial(theano, T):
    x = T.dvector()
    f = theano.function([x], 3 * x**3 - 2 * x**2 + x - T.tanh(x) / (1 + x**2))
    value = rng.normal(size=1000000)
    return lambda: f(value)


@program
def logistic(theano, T):
    # The tutorial's logistic regression.
    x, y = T.dmatrix(), T.dvector()
    w, b = theano.shared(rng.normal(size=784)), theano.shared(np.asarray(0.0))
    p = 1 / (1 + T.exp(-T.dot(x, w) - b))
    cost = T.mean(-y * T.log(p) - (1 - y) * T.log(1 - p)) + 0.01 * T.sum(w**2)
    f = theano.function([x, y], [p > 0.5, cost], updates=momentum(theano, cost, [w, b]))
    X, _ = rows_and_classes(400)
    labels = rng.randint(0, 2, 400).astype("float64")
    return lambda: f(X, labels)


@program
def softmax_regression(theano, T):
    x, y = T.dmatrix(), T.ivector()
    z, parameters = network(theano, T, x, [784, 10], None)
    P = T.nnet.softmax(z)
    cost = -T.mean(T.log(P)[T.arange(y.shape[0]), y])
    updates = [(p, p - 0.1 * theano.grad(cost, p)) for p in parameters]
    f = theano.function([x, y], cost, updates=updates)
    X, labels = rows_and_classes(600)
    return lambda: f(X, labels)


def batches(step, n, size):
    """Return a call of a step on the next batch of shared rows."""
    numbers = [np.asarray(i) for i in range(n // size)]

    def call():
        numbers.append(numbers.pop(0))
        return step(numbers[-1])

    return call


def training(theano, T, sizes, activation, rule, batch, cost_of=None):
    """Return a training step of a network with an optimizer written out, on batches of shared rows."""
    n = 20 * batch
    X, labels = rows_and_classes(n, sizes[0])
    rows, classes = theano.shared(X), theano.shared(labels)
    i, x, y = T.lscalar(), T.dmatrix(), T.ivector()
    z, parameters = network(theano, T, x, sizes, activation)
    cost = T.mean(T.nnet.categorical_crossentropy(T.nnet.softmax(z), y)) if cost_of is None else cost_of(z, x, y)
    givens = {x: rows[i * batch : (i + 1) * batch], y: classes[i * batch : (i + 1) * batch]}
    f = theano.function([i], cost, updates=rule(cost, parameters), givens=givens, on_unused_input="ignore")
    return batches(f, n, batch)


@program
def mlp_momentum_20(theano, T):
    return training(theano, T, [784, 100, 10], T.tanh, lambda c, ps: momentum(theano, c, ps), 20)


@program
def mlp_rmsprop_128(theano, T):
    return training(theano, T, [784, 300, 10], T.nnet.sigmoid, lambda c, ps: rmsprop(theano, T, c, ps), 128)


@program
def mlp_adam_20(theano, T):
    return training(theano, T, [784, 100, 10], T.tanh, lambda c, ps: adam(theano, T, c, ps), 20)


@program
def mlp_adam_100(theano, T):
    return training(theano, T, [784, 500, 500, 10], T.nnet.relu, lambda c, ps: adam(theano, T, c, ps), 100)


@program
def nielsen(theano, T):
    # Sigmoid layers, and L2 penalties in the cost.
    def rule(cost, parameters):
        cost = cost + 0.5 * 0.1 * sum((p**2).sum() for p in parameters[::2]) / 5000
        return [(p, p - 0.5 * g) for p, g in zip(parameters, theano.grad(cost, parameters))]  # noqa: B905

    return training(
        theano,
        T,
        [784, 30, 10],
        T.nnet.sigmoid,
        rule,
        10,
        lambda z, x, y: T.mean(T.nnet.categorical_crossentropy(T.nnet.softmax(T.nnet.sigmoid(z)), y)),
    )


@program
def small_table(theano, T):
    return training(theano, T, [8, 16, 10], T.tanh, lambda c, ps: momentum(theano, c, ps), 10)


@program
def autoencoder(theano, T):
    def cost(z, x, y):
        p = T.nnet.sigmoid(z)
        return T.mean(-T.sum(x * T.log(p) + (1 - x) * T.log(1 - p), axis=1))

    rule = lambda c, ps: [(p, p - 0.1 * g) for p, g in zip(ps, theano.grad(c, ps))]  # noqa: B905, E731
    return training(theano, T, [784, 100, 784], T.nnet.sigmoid, rule, 20, cost)


@program
def squared_error(theano, T):
    def cost(z, x, y):
        return T.mean(T.sum((T.nnet.softmax(z) - x[:, :10]) ** 2, axis=1))

    return training(theano, T, [784, 50, 10], T.tanh, lambda c, ps: momentum(theano, c, ps), 100, cost)


@program
def batch_normalisation(theano, T):
    def normalised(h):
        centred = h - T.mean(h, axis=0)
        return T.nnet.relu(centred / T.sqrt(T.mean(centred**2, axis=0) + 1e-4))

    return training(theano, T, [784, 200, 10], normalised, lambda c, ps: momentum(theano, c, ps), 100)


@program
def sums(theano, T):
    x = T.dmatrix()
    f = theano.function([x], [x.sum(axis=0), x.sum(axis=1), x.mean(), (x**2).sum(axis=1), x.max(axis=1)])
    value = rng.normal(size=(2000, 300))
    return lambda: f(value)


@program
def narrow_sums(theano, T):
    x = T.dmatrix()
    f = theano.function([x], [x.sum(axis=0), x.sum(axis=1), x.mean(axis=1), x.max(axis=1), T.argmax(x, axis=1)])
    value = rng.normal(size=(10000, 10))
    return lambda: f(value)


@program
def errors(theano, T):
    P, y = T.dmatrix(), T.ivector()
    wrong = T.mean(T.neq(T.argmax(P, axis=1), y))
    f = theano.function([P, y], [wrong, -T.mean(T.log(P)[T.arange(y.shape[0]), y])])
    probabilities, labels = rng.uniform(0.01, 1, (1000, 10)), rng.randint(0, 10, 1000).astype("int32")
    return lambda: f(probabilities, labels)


@program
def embedding(theano, T):
    # Rows of a table, and the gradient by the table.
    table, i = theano.shared(rng.normal(size=(1000, 50))), T.ivector()
    cost = T.sum(T.tanh(table[i]) ** 2)
    f = theano.function([i], cost, updates=[(table, table - 0.01 * theano.grad(cost, table))])
    chosen = rng.randint(0, 1000, 64).astype("int32")
    return lambda: f(chosen)


def main():
    """Speak the protocol until the input ends."""
    theano = importlib.import_module(sys.argv[1])
    T = importlib.import_module(sys.argv[1] + ".tensor")
    theano.grad = T.grad
    if sys.argv[1] != "theano":
        theano.config.mode = "FAST_COMPILE"  # without the engine
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    calls = {}
    for line in iter(sys.stdin.readline, ""):
        name, seconds = line.split()
        if name not in calls:
            rng.seed(0)
            calls[name] = PROGRAMS[name](theano, T)
            for _ in range(FIRST_CALLS):
                calls[name]()
        call, end, best = calls[name], time.time() + float(seconds), float("inf")
        while time.time() < end:
            n = 1 if best > 1e-3 else 20
            begin = time.time()
            for _ in range(n):
                call()
            best = min(best, (time.time() - begin) / n)
        sys.stdout.write(repr(best) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
