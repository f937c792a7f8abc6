"""Networks in Theano's notation, for tests: models, and their training by the engine and operation by operation."""

from itertools import pairwise

import numpy as np

import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn.symbolic.graph import Type

# Both ways run the same steps and round differently, each step built on the last.
TOLERANCES = {"float64": 1e-10, "float32": 2e-4}


def data(n=50, n_in=7, n_classes=4, dtype="float64", sparse=False, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, n_in)) * (rng.random((n, n_in)) < 0.15 if sparse else 1)
    return X.astype(dtype), rng.integers(0, n_classes, n).astype("int32")


class Model:
    """A network of given widths in the notation: x, y, parameters, P and the negative log-likelihood."""

    def __init__(self, sizes=(7, 5, 4), activation=T.tanh, dtype="float64", seed=0):
        rng = np.random.default_rng(seed)
        self.x, self.y = Type(np.dtype(dtype), 2)("x"), T.ivector("y")
        self.weights = [
            theano.shared(rng.normal(size=s).astype(dtype) * 0.4, f"W{k}") for k, s in enumerate(pairwise(sizes))
        ]
        self.biases = [theano.shared(rng.normal(size=n).astype(dtype) * 0.1, f"b{k}") for k, n in enumerate(sizes[1:])]
        h = self.x
        for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = activation(T.dot(h, W) + b)
        self.P = T.nnet.softmax(T.dot(h, self.weights[-1]) + self.biases[-1])
        self.nll = -T.mean(T.log(self.P)[T.arange(self.y.shape[0]), self.y])
        self.parameters = self.weights + self.biases

    def descent(self, cost, rate=0.5):
        return [(p, p - rate * T.grad(cost, p)) for p in self.parameters]

    def values(self):
        return np.concatenate([p.get_value().ravel() for p in self.parameters])


def trajectories(make, dtype="float64", steps=6, **options):
    """Outputs of several calls, and the parameters after them, by the engine and operation by operation.

    make : takes a Model and returns keyword arguments of theano.function, and arguments of each call
    """
    found = []
    for mode in ("FAST_RUN", "FAST_COMPILE"):
        model = Model(dtype=dtype, **options)
        theano.config.floatX = dtype  # so that rates do not widen the parameters
        try:
            settings, arguments = make(model)
        finally:
            theano.config.floatX = "float64"
        function = theano.function(mode=mode, **settings)
        assert function.recognised == (mode == "FAST_RUN"), function.explanation()
        outputs = [function(*arguments(step)) for step in range(steps)]
        outputs = [np.hstack([[], *map(np.ravel, out if isinstance(out, list) else [out])]) for out in outputs]
        found.append((np.array(outputs), model.values()))
    tolerance = TOLERANCES[dtype]
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=tolerance, atol=tolerance)
    return found[0]
