"""Programs whose steps are their own: the engine computes the gradient, and the program goes on from there."""

import copy
import re
from functools import partial

import numpy as np
import pytest
from symbolic_models import TOLERANCES, Model, data, trajectories

import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn.symbolic import lowering


def zeros_like(p, name=None):
    return theano.shared(np.zeros_like(p.get_value()), name)


def momentum(p, g, rate=0.1):
    v = zeros_like(p)
    fresh = 0.9 * v - rate * g
    return [(v, fresh), (p, p + fresh)]


def nesterov(p, g, rate=0.1):
    v = zeros_like(p)
    fresh = 0.9 * v - rate * g
    return [(v, fresh), (p, p + 0.9 * fresh - rate * g)]


def rmsprop(p, g, rate=0.01):
    s = zeros_like(p)
    fresh = 0.9 * s + 0.1 * g**2
    return [(s, fresh), (p, p - rate * g / T.sqrt(fresh + 1e-6))]


def adagrad(p, g, rate=0.1):
    s = zeros_like(p)
    return [(s, s + T.sqr(g)), (p, p - rate * g / (T.sqrt(s + T.sqr(g)) + 1e-6))]


def adam(p, g, rate=0.01):
    t, m, s = theano.shared(np.zeros((), p.dtype)), zeros_like(p), zeros_like(p)
    t1, m1, s1 = t + 1, 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
    step = rate * T.sqrt(1 - 0.999**t1) / (1 - 0.9**t1) * m1 / (T.sqrt(s1) + 1e-8)
    return [(t, t1), (m, m1), (s, s1), (p, p - step)]


RULES = [momentum, nesterov, rmsprop, adagrad, adam]


def updates_by(rule, m, cost):
    gradients = T.grad(cost, m.parameters)
    return [pair for p, g in zip(m.parameters, gradients, strict=True) for pair in rule(p, g)]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rule", RULES)
def test_rules(rule, dtype):
    X, y = data(dtype=dtype)

    def make(m):
        return {"inputs": [m.x, m.y], "outputs": m.nll, "updates": updates_by(rule, m, m.nll)}, lambda step: (X, y)

    outputs, _ = trajectories(make, dtype)
    assert outputs[-1] < outputs[0]


@pytest.mark.parametrize("rule", [momentum, adam])
@pytest.mark.parametrize("sparse", [False, True])
def test_minibatches(rule, sparse):
    X, y = data(n_in=70, sparse=sparse)

    def make(m):
        rows, classes, i = theano.shared(X), theano.shared(y), T.lscalar("i")
        given = {m.x: rows[i * 20 : (i + 1) * 20], m.y: classes[i * 20 : (i + 1) * 20]}
        settings = {"inputs": [i], "outputs": m.nll, "updates": updates_by(rule, m, m.nll), "givens": given}
        return settings, lambda step: (step % 3,)  # the last batch is short

    trajectories(make, sizes=(70, 5, 4), steps=8)


def costs(m):
    n, (W, V), b = m.y.shape[0], m.weights, m.biases[0]
    picked = T.log(m.P)[T.arange(n), m.y]
    return {
        "penalty on one": m.nll + 0.1 * T.sum(V**2),
        "penalty on a bias": m.nll + 0.1 * T.sum(b**4),
        "smooth": m.nll + 0.1 * T.sqrt(T.sum(T.sqr(W)) + 1) + 0.05 * T.mean(abs(V)),
        "both": m.nll + 0.05 * T.sqr(T.dot(W, V)).sum(),
        "sum and penalty": -T.sum(picked) / 50 + 0.01 * (T.sum(W**2) + T.sum(V**2)),
        "sum by rows": -T.sum(picked) / n + 0.01 * T.sum(abs(W)),
        "weighted": 0.5 * (T.sum(V**2) * 0.01 - T.mean(picked)) * T.cast(n, "float64") / 50,
    }


@pytest.mark.parametrize("kind", costs(Model()))
def test_costs(kind):
    X, y = data()

    def make(m):
        cost = costs(m)[kind]
        settings = {"inputs": [m.x, m.y], "outputs": [cost, m.nll], "updates": m.descent(cost, 0.2)}
        return settings, lambda step: (X[step:], y[step:])

    trajectories(make)


def test_what_programs_do_with_gradients():
    X, y = data()

    def make(m):
        # Rates of each parameter, clipping by the norm of all, and outputs that depend on gradients and classes.
        gradients = T.grad(m.nll, m.parameters)
        norm = T.sqrt(sum(T.sum(g**2) for g in gradients))
        clipped = [g * T.minimum(1, 0.5 / norm) for g in gradients]
        updates = [(p, p - rate * g) for p, g, rate in zip(m.parameters, clipped, [0.1, 0.2, 0.3, 0.4], strict=True)]
        wrong = T.mean(T.neq(T.argmax(m.P, axis=1), m.y))
        outputs = [m.nll, norm, wrong, gradients[1], -3 * m.nll + norm]
        return {"inputs": [m.x, m.y], "outputs": outputs, "updates": updates}, lambda step: (X, y)

    trajectories(make)


def test_gradients_alone():
    # Without any update, and with some of the parameters: for optimizers of SciPy and others.
    X, y = data()

    def make(m):
        outputs = [m.nll, *T.grad(m.nll, [m.weights[1], m.biases[0]])]
        return {"inputs": [m.x, m.y], "outputs": outputs}, lambda step: (X, y)

    trajectories(make)


def test_only_the_upper_layers():
    X, y = data()

    def make(m):
        updates = [(p, p - 0.5 * T.grad(m.nll, p)) for p in (m.weights[1], m.biases[1])]
        return {"inputs": [m.x, m.y], "outputs": m.nll, "updates": updates}, lambda step: (X, y)

    trajectories(make)


def test_values_that_programs_set_are_seen():
    X, y = data()
    found = []
    for mode in ("FAST_RUN", "FAST_COMPILE"):
        m = Model()
        step = theano.function([m.x, m.y], m.nll, mode, updates_by(momentum, m, m.nll))
        outputs = [step(X, y) for _ in range(4)]
        m.weights[0].set_value(np.ones((7, 5)))
        outputs.append(step(X, y))
        m.weights[1].get_value(borrow=True)[0] = 2
        outputs += [step(X, y) for _ in range(4)]
        plain = theano.function([m.x, m.y], m.nll, mode, m.descent(m.nll))
        outputs += [function(X, y) for function in (plain, step, plain, step)]
        for p, shape in zip(m.parameters, [(7, 3), (3, 4), 3, 4], strict=True):
            p.set_value(np.full(shape, 0.1))
        outputs += [plain(X, y), plain(X, y)]
        found.append(np.append(outputs, m.values()))
        assert step.recognised == (mode == "FAST_RUN")
    np.testing.assert_allclose(*found, rtol=1e-10)


def test_errors_leave_everything():
    X, y = data()
    m = Model()
    updates = updates_by(momentum, m, m.nll)
    shared = [p for p, _ in updates]
    step = theano.function([m.x, m.y], m.nll, updates=updates)
    for _ in range(3):
        step(X, y)
    before = [p.get_value() for p in shared]
    for arguments, error in [((X, np.append(y, y)), IndexError), ((X[:, 1:], y), ValueError), ((X, y + 4), IndexError)]:
        with pytest.raises(error):
            step(*arguments)
        for p, value in zip(shared, before, strict=True):
            np.testing.assert_array_equal(p.get_value(), value)


def test_infinite_values_go_on_as_nan():
    X, y = data()

    def make(m):
        updates = updates_by(partial(momentum, rate=1e308), m, m.nll)
        return {"inputs": [m.x, m.y], "outputs": m.nll, "updates": updates}, lambda step: (X, y)

    outputs, _ = trajectories(make, steps=4)
    assert not np.isfinite(outputs[-1])


def test_copies_and_results_that_are_kept():
    # A copy has its own shared variables; gradients that were returned stay what they are.
    X, y = data()
    m = Model()
    gradient = T.grad(m.nll, m.weights[0])
    step = theano.function([m.x, m.y], [m.nll, gradient], updates=updates_by(adam, m, m.nll))
    again = copy.deepcopy(step)
    assert again.recognised
    first = [step(X, y) for _ in range(5)]
    kept = [each[1].copy() for each in first]
    second = [again(X, y) for _ in range(5)]
    for (a, g), (b, h), k in zip(first, second, kept, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(g, h)
        np.testing.assert_array_equal(g, k)


# --- what the engine takes: targets, sums, rectifiers, layers without biases ------------------------------------------


def one_hot(y, n_classes=4, dtype="float64"):
    return np.eye(n_classes, dtype=dtype)[y]


def likelihoods(P, Y):
    return {
        "mean of sums": -T.mean(T.sum(Y * T.log(P), axis=1)),
        "crossentropy": T.nnet.categorical_crossentropy(P, Y).mean(),
        "sum": -T.sum(T.log(P) * Y),
        "sum of sums": T.sum(-T.sum(T.log(P) * Y, axis=1)) / 50,
        "by the rows": -T.sum(Y * T.log(P)) / Y.shape[0],
    }


@pytest.mark.parametrize("kind", likelihoods(T.dmatrix(), T.dmatrix()))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("stored", [False, True])
def test_one_hot_targets(kind, dtype, stored):
    X, y = data(dtype=dtype)
    Y = one_hot(y, dtype=dtype)

    def make(m):
        targets = T.matrix("Y", dtype)
        cost = likelihoods(m.P, targets)[kind]
        settings = {"outputs": [cost, m.nll], "updates": m.descent(cost, 0.01)}
        if stored:
            rows, true, i = theano.shared(X), theano.shared(Y), T.lscalar("i")
            given = {m.x: rows[i : i + 20], targets: true[i : i + 20], m.y: y[:20]}
            return settings | {"inputs": [i], "givens": given}, lambda step: (step,)
        return settings | {"inputs": [m.x, targets], "givens": {m.y: y}}, lambda step: (X, Y)

    trajectories(make, dtype)


def test_targets_that_are_not_one_hot():
    X, y = data()
    soft, twice, twos = one_hot(y) * 0.9 + 0.025, one_hot(y) + one_hot(y[::-1]), 2 * one_hot(y)
    targets = [one_hot(y), soft, twice, twos, np.zeros((50, 4)), one_hot(y)]

    def make(m):
        Y = T.dmatrix("Y")
        cost = -T.mean(T.sum(Y * T.log(m.P), axis=1))
        return {"inputs": [m.x, Y], "outputs": cost, "updates": m.descent(cost)}, lambda step: (X, targets[step])

    trajectories(make)


@pytest.mark.parametrize("kind", ["sum", "by a number", "by the rows", "by a scalar"])
def test_sums(kind):
    X, y = data()

    def make(m):
        scale = T.dscalar("scale")
        total = -T.sum(T.log(m.P)[T.arange(m.y.shape[0]), m.y])
        cost = {
            "sum": total,
            "by a number": total / 50,
            "by the rows": total / m.y.shape[0],
            "by a scalar": scale * total,
        }[kind]
        settings = {"outputs": [cost, m.nll, total + 1], "updates": m.descent(cost, 0.01)}
        function = theano.function([m.x, m.y, scale], **settings, on_unused_input="ignore")
        assert "one call of the engine" in function.explanation()
        return settings | {"inputs": [m.x, m.y, scale], "on_unused_input": "ignore"}, lambda s: (X[s:], y[s:], 0.02)

    trajectories(make)


RECTIFIERS = {
    "maximum": lambda z: T.maximum(z, 0.0),
    "maximum, 0 first": lambda z: T.maximum(0, z),
    "product": lambda z: z * (z > 0),
    "product, cast": lambda z: T.cast(z >= 0.0, z.dtype) * z,
    "product, turned": lambda z: z * T.lt(0, z),
    "switch": lambda z: T.switch(z > 0, z, 0),
    "switch, turned": lambda z: T.switch(z < 0, 0.0, z),
    "switch, le": lambda z: T.switch(T.le(z, 0), 0, z),
    "relu": T.nnet.relu,
    "softplus": T.nnet.softplus,
    "softplus, written": lambda z: T.log(1 + T.exp(z)),
}


@pytest.mark.parametrize("kind", RECTIFIERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("zeros", [False, True])
def test_rectifiers(kind, dtype, zeros):
    X, y = data(dtype=dtype)

    def make(m):
        if zeros:  # inputs of rectifiers are 0 on rows of zeros
            X[::3] = 0
            for b in m.biases:
                b.set_value(np.zeros_like(b.get_value()))
        return {"inputs": [m.x, m.y], "outputs": m.nll, "updates": m.descent(m.nll)}, lambda step: (X, y)

    trajectories(make, dtype, sizes=(7, 5, 5, 4), activation=RECTIFIERS[kind])


class WithoutBiases(Model):
    """A network in which only some layers have a bias."""

    def __init__(self, has_bias=(), **options):
        super().__init__(**options)
        h = self.x
        for k, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = T.dot(h, W) + b if k in has_bias else T.dot(h, W)
            h = T.maximum(z, 0.0)
        self.P = T.nnet.softmax(z)
        self.nll = -T.mean(T.log(self.P)[T.arange(self.y.shape[0]), self.y])
        self.biases = [self.biases[k] for k in has_bias]
        self.parameters = self.weights + self.biases


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("has_bias", [(), (0,), (2,), (0, 1)])
@pytest.mark.parametrize("rule", [None, rmsprop])
def test_layers_without_biases(has_bias, dtype, rule):
    X, y = data(dtype=dtype)
    found = []
    for mode in ("FAST_RUN", "FAST_COMPILE"):
        m = WithoutBiases(has_bias, sizes=(7, 5, 6, 4), dtype=dtype)
        theano.config.floatX = dtype
        try:
            updates = m.descent(m.nll, 0.25) if rule is None else updates_by(rule, m, m.nll)
        finally:
            theano.config.floatX = "float64"
        step = theano.function([m.x, m.y], m.nll, mode, updates)
        assert step.recognised == (mode == "FAST_RUN")
        found.append(np.append([step(X, y) for _ in range(6)], m.values()))
    np.testing.assert_allclose(*found, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])
    assert found[0][5] < found[0][0]


@pytest.mark.parametrize("axis", ["keepdims", "dimshuffle", "index"])
def test_softmax_made_stable_by_hand(axis):
    X, y = data()

    def make(m):
        Z = T.dot(T.tanh(T.dot(m.x, m.weights[0]) + m.biases[0]), m.weights[1]) + m.biases[1]
        largest = {
            "keepdims": Z.max(axis=1, keepdims=True),
            "dimshuffle": Z.max(axis=1).dimshuffle(0, "x"),
            "index": Z.max(axis=1)[:, None],
        }[axis]
        e = T.exp(Z - largest)
        P = e / e.sum(axis=1).dimshuffle(0, "x")
        nll = -T.mean(T.log(P)[T.arange(m.y.shape[0]), m.y])
        return {"inputs": [m.x, m.y], "outputs": nll, "updates": m.descent(nll)}, lambda step: (X, y)

    trajectories(make)


# --- data that other code may have ------------------------------------------------------------------------------------


def test_borrowed_rows_are_kept_if_no_other_code_has_them():
    X, y = data(n_in=70, sparse=True)
    m = Model(sizes=(70, 5, 4))
    i = T.lscalar("i")
    mine = X.copy()
    alone, held = (theano.shared(array, borrow=True) for array in (X + 0, mine))
    whole = theano.shared(np.vstack([X, X])[:50], borrow=True)
    classes = theano.shared(y)
    steps = []
    for rows in (alone, whole, held):
        given = {m.x: rows[i : i + 10], m.y: classes[i : i + 10]}
        steps.append(theano.function([i], m.nll, updates=m.descent(m.nll, 0.1), givens=given))
    kept, viewed, watched = (step.explanation() for step in steps)
    assert "made ready once and kept" in kept
    assert "made ready once and kept" in viewed
    assert "as they are: other code has its array" in watched
    first = steps[2](0)
    for p in m.parameters:
        p.set_value(Model(sizes=(70, 5, 4)).parameters[m.parameters.index(p)].get_value())
    mine *= 2  # nobody tells
    assert steps[2](0) != first
    array = alone.get_value(borrow=True)
    assert "other code has its array" in steps[0].explanation()
    before = steps[0](0)
    array *= 3
    assert steps[0](0) != pytest.approx(float(before), rel=1e-3)


# --- in words ---------------------------------------------------------------------------------------------------------


def reasons(m):
    cost, W, b = m.nll, m.weights[0], m.biases[0]
    gradients = dict(zip(m.parameters, T.grad(cost, m.parameters), strict=True))
    others = [(p, p - 0.5 * g) for p, g in gradients.items() if p is not b]
    total = -T.sum(T.log(m.P)[T.arange(m.y.shape[0]), m.y])
    decay = sum(T.sum(T.sqr(each)) for each in m.weights)
    return [
        ("b0 is not updated", others),
        ("one and the same rate", [*others, (b, b - 0.1 * gradients[b])]),
        ("the update of b0 is not itself plus or minus a rate", [*others, (b, 0.9 * b - 0.5 * gradients[b])]),
        ("several costs", [*others, (b, b - 0.5 * T.grad(2 * cost, b))]),
        ("the rate of b0 depends on a gradient", [*others, (b, b - T.sum(gradients[b]) * gradients[b])]),
        ("b1 is not itself plus or minus", [(m.biases[1], m.biases[1] - gradients[b].sum())]),
        ("penalty sqr is not the same on the weights", m.descent(cost + 0.1 * T.sum(W**2))),
        ("a term that is not a penalty on weights", m.descent(cost + T.sum(b**4))),
        ("whose weight is not a constant", m.descent(total + decay)),
        ("a penalty is negative", m.descent(cost - decay)),
    ]


@pytest.mark.parametrize("case", range(10))
def test_reasons(case):
    m = Model()
    reason, updates = reasons(m)[case]
    function = theano.function([m.x, m.y], m.nll, updates=updates)
    text = function.explanation()
    assert function.recognised
    assert "the engine computes the gradient of a network of 7-5-4 units" in text
    assert re.search(rf"other operations, on NumPy: .*{reason}", text), text


def test_small_batches_of_large_networks(monkeypatch):
    X, y = data()
    monkeypatch.setattr(lowering, "MANY_PARAMETERS", 1)
    m = Model()
    step = theano.function([m.x, m.y], m.nll, updates=updates_by(momentum, m, m.nll))
    assert "or all operation by operation, if there are 64 rows or fewer" in step.explanation()

    def make(m):
        return {"inputs": [m.x, m.y], "outputs": m.nll, "updates": updates_by(momentum, m, m.nll)}, lambda step: (X, y)

    trajectories(make)
