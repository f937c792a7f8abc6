"""Networks in Theano's notation: the tutorial, what the engine takes over, and graphs that went stale."""

import json
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from symbolic_models import TOLERANCES, Model, data, trajectories

import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn import tutorial

GOLDEN = Path(__file__).parent / "golden"

# --- the tutorial -----------------------------------------------------------------------------------------------------


def test_tutorial(mnist):
    prepare = lambda d: (theano.shared(d.X.astype("float64")), theano.shared(d.y.astype("int32")))  # noqa: E731
    (training_x, training_y), (valid_x, valid_y), (test_x, test_y) = map(prepare, mnist)  # noqa: RUF059
    X, y = T.dmatrix(), T.ivector()
    W, b = theano.shared(np.zeros([784, 10])), theano.shared(np.zeros(10))
    P = T.nnet.softmax(T.dot(X, W) + b)
    LL = T.mean(T.log(P)[T.arange(P.shape[0]), y])
    updates = [[W, W + 0.5 * T.grad(LL, W)], [b, b + 0.5 * T.grad(LL, b)]]
    train = theano.function(inputs=[], outputs=LL, updates=updates, givens={X: training_x, y: training_y})
    assert train.recognised
    published = tutorial.published_results()["softmax regression"]["published"]
    np.testing.assert_allclose([train() for _ in range(10)], published, rtol=0, atol=1e-12)
    y_hat = T.argmax(P, axis=1)
    classify = theano.function(inputs=[], outputs=y_hat, givens={X: test_x})
    assert f"{100 * (1 - np.mean(classify() == test_y.get_value())):.2f}" == "15.12"

    H = T.dmatrix()
    W_xh, W_hy = theano.shared(0.01 * np.random.RandomState(0).randn(784, 20)), theano.shared(np.zeros([20, 10]))
    b_xh, b_hy = theano.shared(np.zeros(20)), theano.shared(np.zeros(10))
    H = T.tanh(T.dot(X, W_xh) + b_xh)
    P = T.nnet.softmax(T.dot(H, W_hy) + b_hy)
    LL = T.mean(T.log(P)[T.arange(P.shape[0]), y])
    updates = [[p, p + 0.5 * T.grad(LL, p)] for p in (W_xh, W_hy, b_xh, b_hy)]
    train = theano.function(inputs=[], outputs=LL, updates=updates, givens={X: training_x[:5000], y: training_y[:5000]})
    assert train.recognised
    golden = json.loads((GOLDEN / "mlp20_tutorial.json").read_text())
    np.testing.assert_allclose([train() for _ in range(60)], golden["log_likelihood"], rtol=0, atol=1e-9)
    # The classification function still holds the first model's graph, and says so, once.
    y_hat = T.argmax(P, axis=1)
    with pytest.warns(
        theano.StaleGraphWarning, match=r"depends on W, b, but .* W_xh, W_hy, b_xh, b_hy .*argmax\("
    ) as seen:
        stale = classify()
    assert seen[0].filename == __file__
    assert f"{100 * (1 - np.mean(stale == test_y.get_value())):.2f}" == "15.12"
    classify()
    anew = theano.function(inputs=[], outputs=y_hat, givens={X: test_x})
    assert 100 * (1 - np.mean(anew() == test_y.get_value())) == pytest.approx(golden["test_error_percent"])


# --- recognised networks against the same operation by operation ------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "activation", [T.tanh, T.nnet.sigmoid, T.nnet.relu, lambda x: T.maximum(0, x), lambda x: x], ids=range(5)
)
@pytest.mark.parametrize("sizes", [(7, 4), (7, 5, 4), (7, 1, 3, 4), (1, 1, 1)], ids=str)
def test_layers(dtype, activation, sizes):
    X, y = data(n_in=sizes[0], n_classes=sizes[-1], dtype=dtype)

    def make(m):
        given = {m.x: theano.shared(X), m.y: theano.shared(y)}
        return {"outputs": m.nll, "updates": m.descent(m.nll), "givens": given}, lambda step: ()

    trajectories(make, dtype, sizes=sizes, activation=activation)


def costs(m):
    n = m.y.shape[0]
    return {
        "ascent": (T.mean(T.log(m.P)[T.arange(m.P.shape[0]), m.y]), 0.5),
        "log of what is picked": (T.mean(T.log(m.P[T.arange(m.x.shape[0]), m.y])), 0.5),
        "cross-entropy": (T.nnet.categorical_crossentropy(m.P, m.y).mean(), -0.5),
        "scaled": (3 * m.nll / 2 + 1, -0.25),
        "L2": (m.nll + 0.05 * sum((W**2).sum() for W in m.weights), -0.5),
        "L1 and L2": (
            m.nll + 0.01 * sum(abs(W).sum() for W in m.weights) + 0.02 * sum(T.sum(W * W) for W in m.weights),
            -0.5,
        ),
        "negated": (-(m.nll + 0.05 * sum(T.sum(T.sqr(W)) for W in m.weights)) / 4, 2.0),
        "counted by the classes": (-T.mean(T.log(m.P)[T.arange(n), m.y]), -0.5),
    }


@pytest.mark.parametrize("kind", costs(Model()))
def test_costs(kind):
    X, y = data()

    def make(m):
        cost, rate = costs(m)[kind]
        updates = {p: p + rate * T.grad(cost, p) for p in m.parameters}
        outputs = [cost, m.nll, -2 * m.nll + 1, T.mean(T.neq(T.argmax(m.P, axis=1), m.y)), m.P[0]]
        return {"inputs": [m.x, m.y], "outputs": outputs, "updates": updates}, lambda step: (X, y)

    outputs, _ = trajectories(make)
    assert abs(outputs[-1][1]) < abs(outputs[0][1])  # it learns


@pytest.mark.parametrize("borrow", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("stored", ["float32", "uint8", "float64"])
def test_minibatches_by_givens(borrow, sparse, dtype, stored):
    X, y = data(n_in=70, dtype="float64", sparse=sparse)
    X = (np.abs(X) * 20).astype(stored) if stored == "uint8" else X.astype(stored)
    scale = 0.05 if stored == "uint8" else 1

    def make(m):
        rows, classes = theano.shared(X, borrow=borrow), theano.shared(y.astype("float64"), borrow=borrow)
        i, size = T.lscalar("i"), 20
        given = {
            m.x: T.cast(rows, dtype)[i * size : (i + 1) * size],
            m.y: T.cast(classes, "int32")[i * size : (i + 1) * size],
        }
        updates = m.descent(m.nll, 0.1 * scale)
        # The last batch is short.
        return {"inputs": [i], "outputs": m.nll, "updates": updates, "givens": given}, lambda step: (step % 3,)

    trajectories(make, dtype, sizes=(70, 5, 4))


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_rectifiers_at_zero(weight):
    # Theano's slope is 1/2 there: of units without weights, and, as biases start from 0, on rows of zeros.
    X, y = data()
    X[::3] = 0

    def make(m):
        for W, b in zip(m.weights[:-1], m.biases[:-1], strict=True):
            W.set_value(weight * W.get_value())
            b.set_value(np.zeros_like(b.get_value()))
        return {"inputs": [m.x, m.y], "outputs": m.nll, "updates": m.descent(m.nll)}, lambda step: (X, y)

    outputs, _ = trajectories(make, activation=T.nnet.relu, sizes=(7, 5, 5, 4))
    assert outputs[-1] < outputs[0]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_softmax_written_out(dtype):
    X, y = data(dtype=dtype)

    def make(m):
        Z = T.dot(T.tanh(T.dot(m.x, m.weights[0]) + m.biases[0]), m.weights[1]) + m.biases[1]
        P = T.exp(Z) / T.exp(Z).sum(axis=1, keepdims=True)
        nll = -T.mean(T.log(P)[T.arange(m.y.shape[0]), m.y])
        return {"inputs": [m.x, m.y], "outputs": nll, "updates": m.descent(nll)}, lambda step: (X, y)

    trajectories(make, dtype)


def test_costs_of_another_dtype():
    # 0.05 is no float32, so that the cost is a float64; its gradients are not.
    X, y = data(dtype="float32")
    found = []
    for mode in ("FAST_RUN", "FAST_COMPILE"):
        m = Model(dtype="float32")
        cost = m.nll + 0.05 * sum(T.sum(T.sqr(W)) for W in m.weights)
        step = theano.function([m.x, m.y], [cost, m.nll], mode, m.descent(cost))
        assert step.recognised == (mode == "FAST_RUN")
        outputs = [step(X, y) for _ in range(5)]
        assert [each.dtype for each in outputs[0]] == ["float64", "float32"]
        found.append(np.append(outputs, m.values()))
    np.testing.assert_allclose(*found, rtol=TOLERANCES["float32"], atol=TOLERANCES["float32"])


def test_layers_above_an_expression_that_is_given():
    # function([h, y], ...) of a hidden layer h: the layers above it are a network.
    X, y = data()
    found = []
    for mode in ("FAST_RUN", "FAST_COMPILE"):
        m = Model()
        h = T.tanh(T.dot(m.x, m.weights[0]) + m.biases[0])
        P = T.nnet.softmax(T.dot(h, m.weights[1]) + m.biases[1])
        nll = -T.mean(T.log(P)[T.arange(m.y.shape[0]), m.y])
        above = [(p, p - 0.5 * T.grad(nll, p)) for p in (m.weights[1], m.biases[1])]
        step = theano.function([h, m.y], nll, mode, above)
        assert step.recognised == (mode == "FAST_RUN")
        whole = theano.function([m.x, h, m.y], nll, mode, m.descent(nll))
        assert not whole.recognised
        outputs = [step(np.tanh(X[:, :5]), y), whole(X, np.tanh(X[:, 1:6]), y), step(np.tanh(X[:, :5]), y)]
        found.append(np.append(outputs, m.values()))
    np.testing.assert_allclose(*found, rtol=1e-10)


def test_pickled_steps_go_on():
    X, y = data()
    m = Model()
    step = theano.function([m.x, m.y], m.nll, updates=m.descent(m.nll))
    step(X, y)
    parameters, again = pickle.loads(pickle.dumps((m.parameters, step)))
    assert again.recognised
    np.testing.assert_array_equal([step(X, y) for _ in range(3)], [again(X, y) for _ in range(3)])
    for p, p2 in zip(m.parameters, parameters, strict=True):
        np.testing.assert_array_equal(p.get_value(), p2.get_value())
        assert not np.shares_memory(p.array, p2.array)


def test_rates_and_other_updates():
    X, y = data()

    def make(m):
        rate, decay, count = T.dscalar("rate"), theano.shared(np.float64(1.0)), theano.shared(0)
        updates = [(p, p - rate * decay * T.grad(m.nll, p) / 2) for p in m.parameters]
        updates += [(decay, decay * 0.9), (count, count + 1)]
        settings = {"inputs": [rate], "outputs": [m.nll, count, decay], "updates": updates}
        return settings | {"givens": {m.x: X, m.y: y}}, lambda step: (1.0 / (step + 1),)

    outputs, _ = trajectories(make)
    np.testing.assert_allclose(outputs[:, 1], range(6))


def test_without_outputs():
    X, y = data()
    trajectories(lambda m: ({"inputs": [m.x, m.y], "updates": m.descent(m.nll)}, lambda step: (X, y)))


def test_rows_computed_from_others():
    X, y = data(n_in=8)

    def make(m):
        images = T.dmatrix("images")
        given = {m.x: (images.reshape((images.shape[0], 8)) - 0.5)[:, 1:]}
        settings = {"inputs": [images, m.y], "outputs": m.nll, "updates": m.descent(m.nll), "givens": given}
        return settings, lambda step: (X[step:], y[step:])

    trajectories(make)


def test_the_engine_leaves_what_it_cannot_take():
    X, y = data(n=6)

    def run(calls, rate=0.5):
        return trajectories(
            lambda m: ({"inputs": [m.x, m.y], "outputs": m.nll, "updates": m.descent(m.nll, rate)}, calls), steps=4
        )

    run(lambda step: (X, np.where(y == 2, -2, y).astype("int32")))  # NumPy counts them from the end
    outputs, _ = run(lambda step: (X[:0], y[:0]))
    assert np.isnan(outputs).all()
    outputs, values = run(lambda step: (X, y), 1e308)
    assert not np.isfinite(values).all()
    outputs, _ = run(lambda step: (np.full_like(X, np.nan) if step == 2 else X, y))
    np.testing.assert_array_equal(np.isnan(outputs).ravel(), [False, False, True, True])


def test_errors_leave_the_parameters():
    X, y = data()
    for mode in ("FAST_RUN", "FAST_COMPILE"):
        m = Model()
        count = theano.shared(0)
        step = theano.function([m.x, m.y], m.nll, mode, [*m.descent(m.nll), (count, count + 1)])
        step(X, y)
        before = m.values()
        for arguments, error, message in [
            ((X, np.append(y, y)), IndexError, r"cannot be computed from shapes"),
            ((X[:, 1:], y), ValueError, r"dot\(x, W0\) cannot be computed from shapes \(50, 6\), \(7, 5\)"),
            ((X, y + 4), IndexError, "out of bounds"),
        ]:
            with pytest.raises(error, match=message):
                step(*arguments)
            np.testing.assert_array_equal(m.values(), before)
        assert count.get_value() == 1


def test_values_that_programs_set_are_seen():
    X, y = data(n=40)
    found = []
    for mode in ("FAST_RUN", "FAST_COMPILE"):
        m = Model()
        rows, classes, borrowed = theano.shared(X), theano.shared(y), X[::-1].copy()
        i = T.lscalar("i")
        given = {m.x: rows[i : i + 10], m.y: classes[i : i + 10]}
        step = theano.function([i], m.nll, mode, m.descent(m.nll), given)
        other = theano.function([], m.nll, mode, m.descent(m.nll), {m.x: rows, m.y: classes})
        outputs = [step(0), step(10), other(), step(0)]
        rows.set_value(2 * X)
        outputs += [step(0), other()]
        rows.set_value(borrowed, borrow=True)
        outputs += [step(0), other()]
        borrowed += 1  # nobody tells
        outputs += [step(0), other()]
        rows.get_value(borrow=True)[:] *= 0.5
        classes.get_value(borrow=True)[:] = 1
        outputs += [step(0), other()]
        m.weights[0].set_value(np.ones((7, 5)))
        outputs.append(step(0))
        m.weights[0].get_value(borrow=True)[0] = 5
        outputs.append(step(0))
        rows.set_value(X[:20])
        classes.set_value(y[:20])
        outputs += [step(5), other()]
        # Another width of the hidden layer.
        for p, shape in zip(m.parameters, [(7, 3), (3, 4), 3, 4], strict=True):
            p.set_value(np.full(shape, 0.1))
        outputs += [step(0), other()]
        found.append(np.append(outputs, m.values()))
        assert step.recognised == (mode == "FAST_RUN")
    np.testing.assert_allclose(*found, rtol=1e-10)


def test_parameters_stay_where_they_are():
    X, y = data()
    m = Model()
    step = theano.function([m.x, m.y], m.nll, updates=m.descent(m.nll))
    step(X, y)
    arrays = [p.get_value(borrow=True) for p in m.parameters]
    again = theano.function([m.x, m.y], m.nll, updates=m.descent(m.nll))
    again(X, y)
    step(X, y)
    assert all(p.get_value(borrow=True) is array for p, array in zip(m.parameters, arrays, strict=True))


def not_recognised(m):
    cost, z = m.nll, T.dot(m.x, m.weights[0])
    W, b = m.weights[0], m.biases[0]
    decay = 0.01 * sum(T.sum(T.sqr(each)) for each in m.weights)
    apart = [(p, p - T.grad(cost + decay, p, consider_constant=[decay])) for p in m.parameters]
    half = T.mean(T.log(m.P)[T.arange(m.y.shape[0] - 1), m.y[1:]])
    sparse = cost + abs(T.tanh(z + b)).sum()
    scale = theano.shared(1.0, "scale")
    scaled = T.nnet.softmax(scale * T.dot(m.x, W[:, :4]))
    on_scale = -T.mean(T.log(scaled)[T.arange(m.y.shape[0]), m.y])
    tied = T.nnet.softmax(T.dot(T.dot(m.x * T.sum(b), m.weights[0]), m.weights[1]))
    on_rows = -T.mean(T.log(tied)[T.arange(m.y.shape[0]), m.y])
    return [
        ("nothing is updated", []),
        ("no update moves", [(b, b + 1)]),
        (r"a term that depends on a layer: sum\(abs\(", [(p, p - T.grad(sparse, p)) for p in m.parameters]),
        ("the cost .* is not the mean or sum of", [(W, W - T.grad(T.sum(T.sqr(z)), W))]),
        ("treats some expressions as constants", apart),
        ("rows of .* are not counted", [(p, p + T.grad(half, p)) for p in m.parameters]),
        ("scale .* is not dot", [(W, W - T.grad(on_scale, W))]),
        ("is neither rows of data nor .* and depends on b0", [(b, b - T.grad(on_rows, b))]),
    ]


@pytest.mark.parametrize("case", range(8))
def test_reasons(case, capsys):
    m = Model()
    reason, updates = not_recognised(m)[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", theano.StaleGraphWarning)
        function = theano.function([m.x, m.y], [], updates=updates, on_unused_input="ignore")
    function.explain()
    text = capsys.readouterr().out
    assert "one by one, on NumPy" in text
    assert re.search(reason, text), text
    assert not function.recognised


def test_networks_that_givens_reach_into():
    X, y = data()
    m = Model()
    doubled = theano.function([m.x, m.y], m.nll, updates=m.descent(m.nll), givens={m.weights[0]: 2 * m.weights[0]})
    assert "givens replace W0" in doubled.explanation()
    before = m.weights[0].get_value()
    slope = theano.function([m.x, m.y], T.grad(m.nll, m.weights[0]), givens={m.weights[0]: 2 * m.weights[0]})(X, y)
    doubled(X, y)
    np.testing.assert_allclose(m.weights[0].get_value(), 2 * before - 0.5 * slope)


def test_explain(capsys):
    X, _ = data()
    m = Model()
    rows = theano.shared(X, "rows")
    cost = m.nll + 0.5 * sum(T.sum(W**2) for W in m.weights)
    step = theano.function([m.y], cost, updates=m.descent(cost, 0.1), givens={m.x: rows[:20]}, name="step")
    P_anew = T.exp(m.P)
    step.explain()
    text = capsys.readouterr().out
    for line in (
        "returns cost = ",
        "updates W0 = W0 - 0.1 * grad(cost, W0)",
        "    depends on W0, b0, W1, b1, y, rows",
        "given x = rows[:20]",
        "one call of the engine: a network of 7-5-4 units",
        "with tanh between",
        "L2 penalty 1, rate 0.1",
        "rows of rows, made ready once and kept",
        "classes y, computed or given in each call",
        "belongs to no function so far: P_anew = exp(",
    ):
        assert line in text
    assert P_anew.op is not None
    assert repr(step) == "<function step(y)>"


# --- stale graphs -----------------------------------------------------------------------------------------------------


def test_output_of_an_older_graph():
    m = Model()
    T.grad(m.nll, m.parameters)
    new = Model(seed=1)
    with pytest.warns(theano.StaleGraphWarning, match="trains W0, W1, b0, b1, but its output .* depends on W0, W1"):
        theano.function([m.x, m.y, new.x, new.y], m.nll, updates=new.descent(new.nll))


def test_a_variable_that_nothing_uses():
    X, y = data()
    m = Model()
    forgotten = theano.shared(np.zeros(4), "forgotten")
    read = theano.shared(np.zeros(4))
    read.get_value()
    step = theano.function([m.x, m.y], m.nll, updates=m.descent(m.nll))
    later = theano.shared(np.zeros(4))
    with pytest.warns(theano.StaleGraphWarning, match="nothing depends on forgotten, made beside W0, W1, b0, b1"):
        step(X, y)
    step(X, y)
    assert forgotten is not later


def test_programs_with_two_models_are_not_warned():
    X, y = data()
    first, second = Model(), Model(seed=1)
    functions = []
    for m in (first, second):
        step = theano.function([m.x, m.y], m.nll, updates=m.descent(m.nll))
        classes = T.argmax(m.P, axis=1)
        functions.append((step, theano.function([m.x], classes)))
    unfinished = T.argmax(second.P, axis=1) + 1
    for _ in range(2):
        for step, classify in functions:
            step(X, y)
            classify(X)
            functions[0][1](X)
    assert unfinished.ndim == 1
