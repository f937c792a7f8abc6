"""Theano's notation: expressions and gradients against NumPy and central differences, and functions."""

import copy
import itertools
import json
import pickle
import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn.symbolic import execution
from fastnn.symbolic.graph import Type, sort
from fastnn.symbolic.ops import dots
from fastnn.symbolic.products import kernel_product

#: Cases that Theano 1.0.5 was asked, too.
notation = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "golden" / "notation" / "cases.py")))

# Central differences in float64: the error of the formula and that of the roundings are about equal at this step.
STEP = 1e-6
TOLERANCE = 2e-6

DIMENSIONS = st.sampled_from([0, 1, 1, 2, 3])


@st.composite
def broadcastable(draw, shape):
    """A shape that broadcasts with another without enlarging it."""
    kept = shape[draw(st.integers(0, len(shape))) :]
    return tuple(draw(st.sampled_from([1, n])) for n in kept)


#: Kinds of expressions, and the ranks that they can have.
KINDS = {
    **dict.fromkeys(["unary", "binary", "switch", "clip", "reduce", "reduced", "like", "mixed"], (0, 1, 2, 3, 4, 5)),
    **dict.fromkeys(["stable", "log_sum_exp"], (0, 1, 2, 3, 4, 5)),
    **dict.fromkeys(["transpose", "reshape", "flatten", "index", "join", "rows", "shuffle"], (1, 2)),
    **dict.fromkeys(["dot", "softmax", "log_softmax", "picked", "quotient"], (2,)),
    **dict.fromkeys(["matrix_vector", "vector_matrix"], (1,)),
    "dots": (0,),
}


class Expressions:
    """Draws pairs of a symbolic expression and its value by NumPy, over a pool of leaves."""

    def __init__(self, draw):
        self.draw = draw
        self.leaves = []  # (variable, value)
        self.generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def leaf(self, shape):
        """Values away from 0 and from each other, where subgradients differ."""
        value = self.generator.permutation(np.prod(shape, dtype=int)) + self.generator.uniform(0.2, 0.8)
        value = (np.sign(self.generator.normal()) * value / max(1, value.size)).reshape(shape)
        variable = Type(np.dtype(np.float64), len(shape))(f"v{len(self.leaves)}")
        self.leaves.append((variable, value))
        return variable, value

    def expression(self, shape, depth):
        """One of the given shape."""
        if depth == 0:
            return self.leaf(shape)
        kinds = [kind for kind, ranks in KINDS.items() if len(shape) in ranks]
        return self.of_kind(self.draw(st.sampled_from(kinds)), shape, depth)

    def of_kind(self, kind, shape, depth):
        return getattr(self, kind)(shape, depth - 1)

    def unary(self, shape, depth):
        x, value = self.expression(shape, depth)
        name = self.draw(st.sampled_from(["neg", "exp", "tanh", "abs", "sqr", "sigmoid", "relu", "log", "sqrt", "pow"]))
        positive = 0.5 + value**2
        return {
            "neg": lambda: (-x, -value),
            "exp": lambda: (T.exp(T.tanh(x)), np.exp(np.tanh(value))),
            "tanh": lambda: (T.tanh(x), np.tanh(value)),
            "abs": lambda: (abs(x), abs(value)),
            "sqr": lambda: (T.sqr(x), value**2),
            "sigmoid": lambda: (T.nnet.sigmoid(x), 1 / (1 + np.exp(-value))),
            "relu": lambda: (T.nnet.relu(x, 0.1), np.where(value > 0, value, 0.1 * value)),
            "log": lambda: (T.log(0.5 + x**2), np.log(positive)),
            "sqrt": lambda: (T.sqrt(x**2 + 0.5), np.sqrt(positive)),
            "pow": lambda: ((0.5 + x**2) ** -1.5, positive**-1.5),
        }[name]()

    def binary(self, shape, depth):
        x, a = self.expression(shape, depth)
        y, b = self.expression(self.draw(broadcastable(shape)), depth)
        if self.draw(st.booleans()):
            x, a, y, b = y, b, x, a
        name = self.draw(st.sampled_from(["+", "-", "*", "/", "maximum", "minimum", "**", "%"]))
        positive = 0.5 + b**2
        return {
            "+": lambda: (x + y, a + b),
            "-": lambda: (x - y, a - b),
            "*": lambda: (x * y, a * b),
            "/": lambda: (x / (0.5 + y**2), a / positive),
            "maximum": lambda: (T.maximum(x, y), np.maximum(a, b)),
            "minimum": lambda: (T.minimum(x, y), np.minimum(a, b)),
            "**": lambda: ((0.5 + y**2) ** T.tanh(x), positive ** np.tanh(a)),
            "%": lambda: (x % (0.5 + y**2) + T.eq(x, y) * (y // 1), a % positive + (a == b) * (b // 1)),
        }[name]()

    def switch(self, shape, depth):
        x, a = self.expression(shape, depth)
        y, b = self.expression(self.draw(broadcastable(shape)), depth)
        return T.switch(x > y, x, T.tanh(y)), np.where(a > b, a, np.tanh(b))

    def stable(self, shape, depth):
        # What gets another form, lest it overflow.
        x, a = self.expression(shape, depth)
        y, b = self.expression(self.draw(broadcastable(shape)), depth)
        sigmoid, one = T.nnet.sigmoid, self.draw(st.sampled_from([1, 1.0, T.constant(1), T.ones_like(x)]))
        if self.draw(st.booleans()):
            x, a, y, b = y, b, x, a
        return [
            lambda: (1 / (one + T.exp(-x - y)), expit(a + b)),
            lambda: (one / (T.exp(y - x) + 1), expit(a - b)),
            lambda: (y / (1 + T.exp(-2 * x)), b * expit(2 * a)),
            lambda: (T.exp(x * y) / (one + T.exp(x * y)), expit(a * b)),
            lambda: (y * T.exp(x) / (2 * (1 + T.exp(x))), b * expit(a) / 2),
            lambda: ((1 + T.exp(x)) ** -1.0 + y, expit(-a) + b),
            lambda: (T.log(one + T.exp(x - y)), np.logaddexp(0, a - b)),
            lambda: (T.log1p(T.exp(-x)) * y, np.logaddexp(0, -a) * b),
            lambda: (T.log(T.exp(x) + T.exp(y)), np.logaddexp(a, b)),
            lambda: (T.log(1 - one / (1 + T.exp(-x))) + y, -np.logaddexp(0, a) + b),
            lambda: (T.log(one - sigmoid(x + y)), -np.logaddexp(0, a + b)),
            lambda: (T.log(3 * sigmoid(x) ** 2 / (2 + y**2)), np.log(3 * expit(a) ** 2 / (2 + b**2))),
            lambda: (T.log(T.sqrt(sigmoid(x)) * T.exp(y)), np.log(expit(a)) / 2 + b),
            lambda: (T.log1p(-sigmoid(-x)) - y, -np.logaddexp(0, -a) - b),
            lambda: (T.log(one + x**2) + T.log(1 - T.tanh(y) / 2), np.log1p(a**2) + np.log1p(-np.tanh(b) / 2)),
            lambda: ((T.exp(x) - one) * T.exp(x) / T.exp(y), np.expm1(a) * np.exp(a - b)),
            lambda: (T.exp(x) * sigmoid(-x) - y / T.exp(x), expit(a) - b * np.exp(-a)),
        ][self.draw(st.integers(0, 16))]()

    def log_sum_exp(self, shape, depth):
        axis, n = self.draw(st.integers(0, len(shape))), self.draw(st.integers(1, 3))
        x, a = self.expression((*shape[:axis], n, *shape[axis:]), depth)
        total = T.exp(x).sum(axis=axis, keepdims=True)
        if self.draw(st.booleans()):
            return T.log(T.sum(T.exp(x), axis=axis)), np.log(np.exp(a).sum(axis=axis))
        P, weights = np.exp(a) / np.exp(a).sum(axis=axis, keepdims=True), self.generator.normal(size=a.shape)
        return (T.exp(x) / total * weights).sum(axis=axis), (P * weights).sum(axis=axis)

    def quotient(self, shape, depth):
        # A softmax, and its logarithm.
        x, a = self.expression(shape, depth)
        e = T.exp(x)
        row_sums = [e.sum(axis=1, keepdims=True), T.sum(e, axis=1).dimshuffle(0, "x"), e.sum(axis=1)[:, None]]
        axis, total = self.draw(
            st.sampled_from([*((1, each) for each in row_sums), (0, e.sum(axis=0)), (None, e.sum())])
        )
        P = np.exp(a) / np.exp(a).sum(axis=axis, keepdims=True)
        if axis == 1 and self.draw(st.booleans()):
            return (e.T / T.exp(x).sum(axis=1)).T, P
        return (e / total, P) if self.draw(st.booleans()) else (T.log((e / total).T).T, np.log(P))

    def clip(self, shape, depth):
        x, a = self.expression(shape, depth)
        return T.clip(x, -0.31, 0.43), np.clip(a, -0.31, 0.43)

    def like(self, shape, depth):
        x, a = self.expression(shape, depth)
        return x + T.ones_like(x) - 2 * T.zeros_like(x), a + 1

    def mixed(self, shape, depth):
        # A part of the way through float32 would blur the differences; integers and counts join in.
        x, a = self.expression(shape, depth)
        return x * T.cast(x.size, "float64") + T.sum(T.neq(x, 0)), a * a.size + np.count_nonzero(a)

    def reduce(self, shape, depth):
        axis = self.draw(st.integers(0, len(shape)))
        n = self.draw(st.integers(1, 3))
        x, a = self.expression((*shape[:axis], n, *shape[axis:]), depth)
        name = self.draw(st.sampled_from(["sum", "mean", "max", "min"]))
        if name in ("max", "min"):  # rows that were taken twice must not be equal: each would take the whole gradient
            steps = 0.0137 * np.arange(n).reshape((n,) + (1,) * (len(shape) - axis))
            x, a = x + steps, a + steps
        return getattr(T, name)(x, axis=axis), getattr(np, name)(a, axis=axis)

    def reduced(self, shape, depth):
        # Reduced with its axes kept, and broadcast again.
        x, a = self.expression(shape, depth)
        axis = self.draw(st.sampled_from([None, *range(len(shape))]))
        return x - x.sum(axis, keepdims=True), a - a.sum(axis, keepdims=True)

    def dots(self, shape, depth):
        n = self.draw(DIMENSIONS)
        x, a = self.expression((n,), depth)
        y, b = self.expression((n,), depth)
        return T.dot(x, y), np.dot(a, b)

    def dot(self, shape, depth):
        n = self.draw(DIMENSIONS)
        x, a = self.expression((shape[0], n), depth)
        y, b = self.expression((n, shape[1]), depth)
        return T.dot(x, y), np.dot(a, b)

    def matrix_vector(self, shape, depth):
        n = self.draw(DIMENSIONS)
        x, a = self.expression((shape[0], n), depth)
        y, b = self.expression((n,), depth)
        return x @ y, a @ b

    def vector_matrix(self, shape, depth):
        n = self.draw(DIMENSIONS)
        x, a = self.expression((n,), depth)
        y, b = self.expression((n, shape[0]), depth)
        return x.dot(y), a.dot(b)

    def softmax(self, shape, depth):
        x, a = self.expression(shape, depth)
        e = np.exp(a - a.max(axis=1, keepdims=True, initial=-np.inf))
        return T.nnet.softmax(x), e / e.sum(axis=1, keepdims=True)

    def log_softmax(self, shape, depth):
        x, a = self.expression(shape, depth)
        z = a - a.max(axis=1, keepdims=True, initial=-np.inf)
        return T.log(T.nnet.softmax(x)), z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    def picked(self, shape, depth):
        # One column of each row, as often as there are columns; repeated rows.
        n, m = shape
        wide = max(1, m)
        x, a = self.expression((n, wide), depth)
        y = self.generator.integers(0, wide, n)
        own = x[T.arange(x.shape[0]), y], a[np.arange(n), y]
        return own[0].dimshuffle(0, "x") + T.zeros_like(self.leaf((n, m))[0]), own[1][:, None] + np.zeros((n, m))

    def transpose(self, shape, depth):
        x, a = self.expression(shape[::-1], depth)
        return x.T, a.T

    def reshape(self, shape, depth):
        x, a = self.expression((int(np.prod(shape)),), depth)
        return x.reshape((*shape[:-1], self.draw(st.sampled_from([shape[-1], T.constant(shape[-1])])))), a.reshape(
            shape
        )

    def flatten(self, shape, depth):
        x, a = self.expression((*shape, 1), depth)
        return x.flatten(len(shape)), a.reshape(shape)

    def shuffle(self, shape, depth):
        x, a = self.expression((1, *shape), depth)
        return x.dimshuffle(*range(1, len(shape) + 1)), a[0]

    def join(self, shape, depth):
        axis = self.draw(st.integers(0, len(shape) - 1))
        first = self.draw(st.integers(0, shape[axis]))
        x, a = self.expression((*shape[:axis], first, *shape[axis + 1 :]), depth)
        y, b = self.expression((*shape[:axis], shape[axis] - first, *shape[axis + 1 :]), depth)
        return T.concatenate([x, y], axis=axis), np.concatenate([a, b], axis=axis)

    def index(self, shape, depth):
        x, a = self.expression((shape[0] + 2, 2, *shape[1:]), depth)
        begin, column = self.draw(st.integers(0, 2)), self.draw(st.integers(-2, 1))
        end = begin + shape[0]
        if self.draw(st.booleans()):
            return x[T.constant(begin) : T.constant(end), T.constant(column)], a[begin:end, column]
        return x[begin:end, column, ...], a[begin:end, column]

    def rows(self, shape, depth):
        # Taken by number, some of them twice.
        x, a = self.expression((2, *shape[1:]), depth)
        numbers = self.generator.integers(0, 2, shape[0])
        return x[numbers], a[numbers]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_expressions(kind, data):
    pool = Expressions(data.draw)
    rank = data.draw(st.sampled_from([rank for rank in KINDS[kind] if rank <= 2]))
    shape = tuple(data.draw(st.lists(DIMENSIONS, min_size=rank, max_size=rank)))
    with np.errstate(all="ignore"):  # a softmax of no columns
        expression, expected = pool.of_kind(kind, shape, data.draw(st.integers(1, 3)))
    variables, values = zip(*pool.leaves, strict=True)
    cost = T.sum(T.tanh(expression))
    gradients = T.grad(cost, list(variables), disconnected_inputs="ignore")
    function = theano.function(variables, [expression, cost, *gradients], on_unused_input="ignore")
    given_values = [value.copy() for value in values]
    found, cost_value, *slopes = function(*given_values)
    assert found.shape == shape
    assert found.dtype == np.asarray(expected).dtype
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    # Calls with the same shapes go by a plan from the third on.
    for result in [function(*given_values) for _ in range(4)]:
        for again, first in zip(result, (found, cost_value, *slopes), strict=True):
            assert again.dtype == first.dtype
            np.testing.assert_allclose(again, first, rtol=1e-12, atol=1e-12)
    for value, given_value, slope in zip(values, given_values, slopes, strict=True):
        np.testing.assert_array_equal(value, given_value)  # nothing writes into what the caller owns
        assert slope.shape == value.shape
        for place in np.ndindex(value.shape):
            ends = []
            for sign in (1, -1):
                value[place] += sign * STEP
                ends.append(function(*values)[1])
                value[place] -= sign * STEP
            if abs(ends[0] + ends[1] - 2 * cost_value) > 1e-9 * (1 + abs(cost_value)):
                continue  # a kink within the step
            assert slope[place] == pytest.approx((ends[0] - ends[1]) / (2 * STEP), rel=TOLERANCE, abs=TOLERANCE)


def run(expression, **values):
    """Value of an expression, given those of its inputs by name."""
    inputs = {v.name: v for v in sort([expression]) if v.name in values}
    return theano.function(list(inputs.values()), expression)(**values)


@pytest.mark.parametrize("floatX", ["float64", "float32"])
def test_types_are_theanos(floatX):
    golden, found = json.loads(notation.FILE.read_text())[floatX]["types"], notation.types(theano, T, floatX)
    for kind, expected in golden.items():
        for text, dtypes in expected.items():
            for wanted, dtype in zip(dtypes, found[kind][text], strict=True):
                # There is more that we take, such as True beside a variable.
                assert wanted in ("error", dtype), f"{kind} {text}: {dtypes} became {found[kind][text]}"
    for expression in (lambda x: x - x, lambda x: -x, T.sgn):
        with pytest.raises(TypeError, match="not booleans alone"):
            expression(T.vector("x", dtype="bool"))


@pytest.mark.parametrize("floatX", ["float64", "float32"])
def test_values_and_gradients_are_theanos(floatX):
    golden = json.loads(notation.FILE.read_text())[floatX]["values"]
    found = notation.values(theano, T, floatX)
    tolerance = 1e-11 if floatX == "float64" else 2e-5
    for text, expected in golden.items():
        assert len(found[text]) == len(expected), text
        for wanted, value in zip(expected, found[text], strict=True):
            # Some infinite numbers of Theano's are finite ones of ours.
            wanted = np.where(np.isfinite(wanted), wanted, value)
            np.testing.assert_allclose(value, wanted, tolerance, tolerance, err_msg=text)


def test_integers_to_negative_powers():
    # As Theano's compiled code has them: cut off.
    x, y = T.ivector("x"), T.ivector("y")
    for _ in range(3):
        power = theano.function([x, y], x**y)([2, 1, -1, 3], [-1, -2, -3, 2])
        np.testing.assert_array_equal(power, [0, 1, -1, 9])
        assert power.dtype == "int32"


@pytest.mark.parametrize("floatX", ["float64", "float32"])
def test_logistic_regression_written_out(floatX):
    # The example of Theano's documentation, whose logits start at some +-80.  Theano 1.0.5 says the same of steps 500
    # and 1000.
    theano.config.floatX = floatX
    rng = np.random.RandomState(0)
    X, y_true = rng.randn(400, 784).astype(floatX), rng.randint(size=400, low=0, high=2).astype(floatX)
    x, y = T.matrix("x"), T.vector("y")
    w, b = theano.shared(rng.randn(784).astype(floatX), "w"), theano.shared(np.asarray(0.0, floatX), "b")
    try:
        p_1 = 1 / (1 + T.exp(-T.dot(x, w) - b))
        xent = -y * T.log(p_1) - (1 - y) * T.log(1 - p_1)
        cost = xent.mean() + 0.01 * (w**2).sum()
        updates = [(p, p - 0.1 * T.grad(cost, p)) for p in (w, b)]
    finally:
        theano.config.floatX = "float64"
    train = theano.function([x, y], [p_1 > 0.5, xent.mean(), cost], updates=updates)
    outputs = [train(X, y_true) for _ in range(1001)]
    assert all(np.isfinite(loss) for _, _, loss in outputs)
    tolerance = 1e-9 if floatX == "float64" else 1e-5
    np.testing.assert_allclose(outputs[500][1:], [0.03256074552940793, 0.8241023427733538], tolerance)
    np.testing.assert_allclose(outputs[1000][1:], [0.043449858508940765, 0.19831477836432606], tolerance)
    assert np.array_equal(outputs[1000][0], y_true)


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
def test_values_have_their_dtypes(mode):
    x_value, y_value = np.array([1, 2]), np.array([2, 1])
    for dtype, text in itertools.product(notation.DTYPES, (*notation.UNARY, *notation.BINARY)):
        for other in ("bool", "uint8", "float32"):
            x, y = T.vector("x", dtype=dtype), T.vector("y", dtype=other)
            try:
                expression = eval(text, {"np": np, "T": T, "x": x, "y": y})
            except TypeError:
                continue
            function = theano.function([x, y], expression, mode, on_unused_input="ignore", allow_input_downcast=True)
            for _ in range(3):
                assert function(x_value, y_value).dtype == expression.dtype, (dtype, text, other)
            if other == "bool" and text not in notation.BINARY:
                break


def test_gradients_keep_each_parameters_dtype():
    x, w = theano.shared(np.ones((3, 2), "float32")), theano.shared(np.ones(2, "float64"))
    by_x, by_w = T.grad(T.sum((x * w) ** 2), [x, w])
    assert (by_x.dtype, by_w.dtype) == ("float32", "float64")
    assert by_x.eval().dtype == "float32"
    np.testing.assert_allclose(by_w.eval(), [6, 6])


def test_second_derivatives():
    x = T.dscalar("x")
    first = T.grad(T.tanh(x) ** 3, x)
    second = T.grad(first, x)
    t = np.tanh(0.3)
    np.testing.assert_allclose(run(second, x=0.3), 6 * t * (1 - t**2) ** 2 - 6 * t**3 * (1 - t**2))


def test_what_overflows_though_it_is_put_elsewhere():
    x = T.dmatrix("x")
    value = np.array([[-800.0, 800.0, 1.0]])
    sigmoid, P = expit(value[0]), softmax(value[0])
    for cost, expected, slope in [
        (T.log(1 - T.nnet.sigmoid(x)[0]), -np.logaddexp(0, value[0]), -sigmoid),
        (T.log((1 / (1 + T.exp(-x))).flatten()), -np.logaddexp(0, -value[0]), 1 - sigmoid),
        (T.log(T.nnet.sigmoid(x).T[[1, 1], 0]), [0, 0], [0, 0, 0]),
        (T.log(T.nnet.softmax(x).flatten()[2]), -799, [0, -1, 1]),
        (T.log(T.nnet.softmax(x)[:, [0]]), -1600, [1, -1, 0]),
        ((T.exp(x).T / T.exp(x).sum(axis=1)).T, P, [0, 0, 0]),
        (T.log(T.exp(x[0]) / T.exp(x[0]).sum()), value[0] - 800, [1, -2, 1]),
    ]:
        found = theano.function([x], [cost, T.grad(T.sum(cost), x)])(value)
        np.testing.assert_allclose(found[0].ravel(), np.ravel(expected), 1e-14, 1e-300)
        np.testing.assert_allclose(found[1], [slope], 1e-14, 1e-14)


@pytest.mark.parametrize("floatX", ["float64", "float32"])
def test_branches_that_are_not_taken_may_overflow(floatX):
    # An exponential linear unit within a layer; Theano has the same gradients.
    Z, M = T.matrix("Z", dtype=floatX), theano.shared(np.ones((1, 2), floatX))
    for h, slopes in [
        (T.switch(Z > 0, Z, T.exp(Z) - 1), [2, 2 * np.exp(-1)]),
        (T.switch(Z < 0, T.exp(Z) * 1.5, Z), [2, 3 * np.exp(-1)]),
        (T.switch(Z > 0, T.log(Z), 0.25 * Z), [0.002, 0.5]),
        (T.maximum(Z, 0) + T.switch(Z < 0, T.exp(Z) ** 2, 0), [2, 4 * np.exp(-2)]),
    ]:
        gradient = theano.function([Z], T.grad(T.sum(T.dot(h, M)), Z))([[1000.0], [-1.0]])
        np.testing.assert_allclose(gradient[:, 0], slopes, 1e-6)
        assert theano.function([Z], T.grad(T.sum(T.dot(T.switch(Z > 0, T.log(Z), 0), M)), Z))([[0.0]]) == 0


def test_second_derivatives_of_what_overflows():
    x = T.dscalar("x")
    for cost, slope in [  # of the first derivative sigmoid(x), and of sigmoid(-x)
        (T.log(1 + T.exp(x)), 1),
        (-T.log(1 - 1 / (1 + T.exp(-x))), 1),
        (T.log(T.exp(x) / (1 + T.exp(x))), -1),
        (T.log(T.exp(x) + T.exp(2 * x)), 1),
    ]:
        second = theano.function([x], T.grad(T.grad(cost, x), x))
        for value in (-800.0, -3.0, 0.0, 3.0, 800.0):
            np.testing.assert_allclose(second(value), slope * expit(value) * expit(-value), 1e-12, 1e-300)


def test_gradients_by_what_is_passed_by():
    # p is asked for, too, so that its own gradient is 1 / p; that by x is not made of it.
    x = T.dscalar("x")
    p = 1 / (1 + T.exp(-x))
    cost = T.log(p) + 2 * p
    by_x, by_p = theano.function([x], T.grad(cost, [x, p]))(-800.0)
    assert (by_x, by_p) == (1, np.inf)
    np.testing.assert_allclose(theano.function([x], T.grad(cost, (p, x)))(0.0), [4, 1])
    assert T.grad(cost + x, x, consider_constant=[p]).eval() == 1


def test_subgradients():
    x, y = T.dvector("x"), T.dvector("y")
    value = np.array([1.0, 1.0, 0.0])
    np.testing.assert_array_equal(run(T.grad(T.max(x), x), x=value), [1, 1, 0])
    np.testing.assert_array_equal(run(T.grad(T.sum(T.nnet.relu(x)), x), x=value), [1, 1, 0.5])
    np.testing.assert_array_equal(run(T.grad(T.sum(abs(x)), x), x=value), [1, 1, 0])
    np.testing.assert_array_equal(run(T.grad(T.sum(T.clip(x, 0, 1)), x), x=value), [1, 1, 1])
    first, second = T.grad(T.sum(T.maximum(x, y)), [x, y])
    np.testing.assert_array_equal(run(first, x=value, y=value), [1, 1, 1])
    np.testing.assert_array_equal(run(second, x=value, y=value), [0, 0, 0])


def test_log_of_softmax_does_not_underflow():
    x, y = T.dmatrix("x"), T.ivector("y")
    P = T.nnet.softmax(x)
    value = np.array([[0.0, -2000.0]])
    for picked in (T.log(P)[T.arange(P.shape[0]), y], T.log(P[T.arange(P.shape[0]), y])):
        assert run(T.mean(picked), x=value, y=[1]) == -2000
    slopes = run(T.grad(T.mean(T.log(P)[T.arange(P.shape[0]), y]), x), x=value, y=[1])
    np.testing.assert_array_equal(slopes, [[-1, 1]])
    # The softmax itself can still be differentiated by.
    np.testing.assert_array_equal(run(T.grad(T.sum(T.log(P)), P), x=np.zeros((1, 2))), [[2, 2]])


def test_softmax_of_a_vector_is_a_row():
    np.testing.assert_allclose(T.nnet.softmax(theano.shared(np.zeros(4))).eval(), np.full((1, 4), 0.25))


def test_categorical_crossentropy():
    x = np.array([[0.1, 0.9], [0.6, 0.4]])
    P = theano.shared(x)
    np.testing.assert_allclose(T.nnet.categorical_crossentropy(P, np.array([1, 0])).eval(), -np.log([0.9, 0.6]))
    np.testing.assert_allclose(T.nnet.categorical_crossentropy(P, np.eye(2)).eval(), -np.log([0.1, 0.4]))
    with pytest.raises(TypeError, match="vector of classes or a matrix"):
        T.nnet.categorical_crossentropy(P, np.array([1.0, 0.0]))


def test_names_of_the_notation():
    names = (
        "dmatrix fmatrix matrix dvector fvector vector ivector lvector lscalar iscalar dscalar scalar dot tanh exp log"
    )
    names += (
        " sqrt sqr abs_ maximum mean sum argmax max arange eq neq cast ones_like zeros_like concatenate clip switch"
    )
    for name in names.split():
        assert callable(getattr(T, name))
    for name in ("softmax", "sigmoid", "relu", "categorical_crossentropy"):
        assert callable(getattr(T.nnet, name))
    x = T.fmatrix("x")
    assert (x.name, x.ndim, x.dtype, x.type) == ("x", 2, "float32", T.fmatrix)
    assert x.type("z").type == x.type
    theano.config.floatX = "float32"
    try:
        assert [T.scalar().dtype, T.vector().dtype, T.matrix().dtype, T.cast(x, "floatX").dtype] == ["float32"] * 4
    finally:
        theano.config.floatX = "float64"
    with pytest.raises(ValueError, match="dtype must be"):
        theano.config.floatX = "int32"
    with pytest.raises(ValueError, match="mode must be one of"):
        theano.config.mode = "C"


# --- errors -----------------------------------------------------------------------------------------------------------


def test_grad_says_why_there_is_no_gradient():
    x, w, i = T.dvector("x"), theano.shared(np.ones(2), "w"), T.ivector("i")
    with pytest.raises(theano.DisconnectedInputError, match=r"the cost sum\(x\) depends on w not at all"):
        T.grad(T.sum(x), w)
    with pytest.raises(theano.DisconnectedInputError, match=r"on w only through indices or shapes"):
        T.grad(T.sum(x[T.argmax(w)]), w)
    with pytest.raises(TypeError, match=r"wrt must hold real numbers, but i is of dtype int32"):
        T.grad(T.sum(i * x), i)
    with pytest.raises(TypeError, match=r"the cost must hold real numbers"):
        T.grad(T.sum(i), x)
    with pytest.raises(TypeError, match=r"the cost must be a scalar, but x is a float64 vector"):
        T.grad(x, x)
    with pytest.raises(TypeError, match="wrt must be a variable, not 3"):
        T.grad(T.sum(x), 3)
    for expression in (T.sgn(x), (x > 0) * 2.5, T.cast(T.cast(x, "int32"), "float64"), x // 2, T.switch(x, 1.5, 2)):
        np.testing.assert_array_equal(run(T.grad(T.sum(expression), x), x=[1.0, -2.0]), [0, 0])  # as in Theano
    with pytest.warns(UserWarning, match="not at all"):
        np.testing.assert_array_equal(T.grad(T.sum(x), w, disconnected_inputs="warn").eval(), [0, 0])
    np.testing.assert_array_equal(T.grad(T.sum(w * w), w, consider_constant=[w * 1]).eval(), [2, 2])


def test_shape_errors_name_expression_and_shapes():
    x, w = T.dmatrix("x"), theano.shared(np.ones((3, 2)), "w")
    with pytest.raises(ValueError, match=r"dot\(x, w\) cannot be computed from shapes \(1, 4\), \(3, 2\)"):
        run(T.tanh(T.dot(x, w)), x=np.ones((1, 4)))
    with pytest.raises(ValueError, match=r"x \+ w cannot be computed from shapes \(2, 2\), \(3, 2\)"):
        run(T.sum(x + w), x=np.ones((2, 2)))
    with pytest.raises(IndexError, match=r"x\[T?.*5\] cannot be computed"):
        run(x[5], x=np.ones((2, 2)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: bool(x > 0), TypeError, "neither true nor false"),
        (lambda x: len(x), TypeError, "no length"),
        (lambda x: list(x), TypeError, "iterated over"),
        (lambda x: x + "a", TypeError, "'a'.*no real numbers"),
        (lambda x: x + 1j, TypeError, "no real numbers"),
        (lambda x: x.sum(axis=2), ValueError, "axis 2 does not exist"),
        (lambda x: x.sum(axis=(0, 0)), ValueError, "twice"),
        (lambda x: x[0, 0, 0], IndexError, "float64 matrix cannot be indexed"),
        (lambda x: x[0.5], TypeError, "index must hold integers"),
        (lambda x: x[1.5:], TypeError, "a bound must be an integer"),
        (lambda x: x.dimshuffle(0, 0), ValueError, "names an axis twice"),
        (lambda x: x.reshape(T.cast(x[0], "int64")), TypeError, "number of dimensions"),
        (lambda x: x.reshape((2, 0.5)), TypeError, "must be an integer"),
        (lambda x: x.flatten(3), ValueError, "from 1 to 2"),
        (lambda x: T.concatenate([x, x[0]]), TypeError, "equal numbers of dimensions"),
        (lambda x: T.concatenate([]), ValueError, "at least one"),
        (lambda x: T.nnet.softmax(x.sum()), TypeError, "matrix or a vector"),
        (lambda x: T.cast(x, "complex64"), TypeError, "real numbers"),
        (lambda x: T.arange(x), TypeError, "scalars"),
        (lambda x: theano.shared(x), TypeError, "not an expression"),
        (lambda x: theano.shared("a"), TypeError, "real numbers"),
        (lambda x: T.matrix(dtype="complex128"), TypeError, "real numbers"),
    ],
)
def test_errors_where_expressions_are_made(make, error, message):
    with pytest.raises(error, match=message):
        make(T.dmatrix("x"))


def test_inputs_are_checked():
    x, i, s = T.fmatrix("x"), T.iscalar("i"), T.dscalar("s")
    function = theano.function([x, i, s], x * i + s, name="scale")
    np.testing.assert_array_equal(function([[1, 2]], i=2, s=1), [[3, 5]])
    for arguments, error, message in [
        ((np.ones(2), 1, 1), TypeError, r"input x must have 2 dimensions, not 1; its shape is \(2,\)"),
        ((np.ones((1, 1)), 1, 1), TypeError, r"input x must be of dtype float32, and float64 could lose precision"),
        ((np.ones((1, 1), "f4"), 1.5, 1), TypeError, "input i must be of dtype int32"),
        ((np.ones((1, 1), "f4"), 1, "a"), TypeError, "input s must hold real numbers"),
        ((np.ones((1, 1), "f4"), 1), TypeError, "input s of <function scale.*> is missing|input s .* is missing"),
        ((np.ones((1, 1), "f4"), 1, 1, 1), TypeError, "takes 3 inputs, not 4"),
    ]:
        with pytest.raises(error, match=message):
            function(*arguments)
    with pytest.raises(TypeError, match="no input with the name 'z'"):
        function(z=1)
    with pytest.raises(TypeError, match="given twice"):
        function(np.ones((1, 1), "f4"), x=1)
    counted = theano.function([i], i + 1)
    assert counted(np.int64(3)) == counted(np.float64(3)) == counted(3.0) == 4
    for value in (np.int64(2**40), np.float64(3.5), np.array(3), T.iscalar("j"), theano.shared(3)):
        with pytest.raises(TypeError, match="input i must be"):
            counted(value)
    loose = theano.function([x, i], x * i, allow_input_downcast=True)
    np.testing.assert_array_equal(loose(np.full((1, 1), 2.0), 1.5), [[2]])
    strict = theano.function([x], x, allow_input_downcast=False)
    with pytest.raises(TypeError, match="float32"):
        strict([[1]])
    theano.config.floatX = "float32"
    try:
        y = T.scalar("y")
        assert theano.function([y], y)(0.1) == np.float32(0.1)
        with pytest.raises(TypeError, match="could lose precision"):
            theano.function([y], y)(np.float64(0.1))
    finally:
        theano.config.floatX = "float64"


def test_arguments_of_function_are_checked():
    x, y, w = T.dvector("x"), T.dvector("y"), theano.shared(np.ones(2), "w")
    for make, error, message in [
        (lambda: theano.function([x, y], x), ValueError, "the input y is not used"),
        (lambda: theano.function([], x), ValueError, "the value of x, a float64 vector, is not known"),
        (lambda: theano.function(x, x), TypeError, "list of variables"),
        (lambda: theano.function([w], w), TypeError, "shared variable w has its own value"),
        (lambda: theano.function([3], x), TypeError, "must hold variables, not 3"),
        (lambda: theano.function([x, x], x), ValueError, "the input x is listed twice"),
        (lambda: theano.function([x], x, on_unused_input="bad"), ValueError, "on_unused_input"),
        (lambda: theano.function([x], x, mode="C"), ValueError, "mode"),
        (lambda: theano.function([x], x, allow_input_downcast=2), ValueError, "allow_input_downcast"),
        (lambda: theano.function([x], x, updates=[(x, x)]), TypeError, "updates must be of shared variables, not x"),
        (lambda: theano.function([], w, updates=[(w, w), (w, w)]), ValueError, "w is updated twice"),
        (lambda: theano.function([], w, updates=[w]), TypeError, "pairs"),
        (lambda: theano.function([], w, updates={w: w.sum()}), TypeError, "the update of w must be a float64 vector"),
        (lambda: theano.function([], w, givens={w: T.dmatrix()}), TypeError, "the value given for w must be"),
        (lambda: theano.function([x], x, givens={x: w}), ValueError, "x is both an input and given"),
        (lambda: theano.function([], x, givens=[(x, w), (x, w)]), ValueError, "x is given twice"),
        (lambda: theano.function([], x, givens={3: w}), TypeError, "givens must replace variables"),
    ]:
        with pytest.raises(error, match=message):
            make()
    with pytest.warns(UserWarning, match="the input y is not used"):
        theano.function([x, y], x, on_unused_input="warn")
    assert theano.function([x, y], x, on_unused_input="ignore")([1], [2]) == [1]
    single = theano.shared(np.ones(2, "float32"), "single")
    with pytest.raises(TypeError, match=r"the update of single must be a float32 vector.*T.cast\(..., 'float32'\)"):
        theano.function([], single, updates=[(single, single * w)])
    widened = theano.function([], updates=[(w, single * 2)])
    assert widened() == []
    np.testing.assert_array_equal(w.get_value(), [2, 2])


# --- functions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, dict, lambda pairs: [list(pair) for pair in pairs]])
def test_updates_read_the_old_values(kind):
    a, b = theano.shared(np.array([1.0]), "a"), theano.shared(np.array([2.0]), "b")
    swap = theano.function([], [a, b, a + b], updates=kind([(a, b), (b, a)]))
    np.testing.assert_array_equal(swap(), [[1], [2], [3]])
    assert (a.get_value(), b.get_value()) == (2, 1)
    a.set_value([5.0])
    assert b.get_value() == 1  # they do not share memory
    swap()
    assert (a.get_value(), b.get_value()) == (1, 5)


def test_an_error_leaves_all_as_it_was():
    x, a, b = T.dvector("x"), theano.shared(np.ones(2), "a"), theano.shared(np.ones(2), "b")
    function = theano.function([x], [], updates=[(a, a + 1), (b, b + x)])
    with pytest.raises(ValueError, match=r"b \+ x"):
        function(np.ones(3))
    np.testing.assert_array_equal([a.get_value(), b.get_value()], np.ones((2, 2)))
    assert function(np.ones(1)) == []
    np.testing.assert_array_equal([a.get_value(), b.get_value()], np.full((2, 2), 2))


def test_plans_for_shapes_that_return():
    x, y, b = T.dmatrix("x"), T.lvector("y"), T.dvector("b")
    w = theano.shared(np.arange(12.0).reshape(3, 4), "w")
    P = T.nnet.softmax(T.dot(x, w) + b)
    cost = -T.mean(T.log(P)[T.arange(y.shape[0]), y])
    moved = w - 0.5 * T.grad(cost, w)
    step = theano.function([x, y, b], [cost, P, moved, x.shape, x.T, P[1:]], updates=[(w, moved)])
    rng = np.random.default_rng(0)
    sizes = rng.permutation([0, 1, 2, 5] * 6)
    expected_w, kept = w.get_value(), []
    for n in sizes:
        inputs = rng.normal(size=(n, 3)), rng.integers(0, 4, n), rng.normal(size=4)
        Z = inputs[0] @ expected_w + inputs[2]
        expected_P = softmax(Z, axis=1) if n else Z
        slopes = expected_P.copy()
        slopes[np.arange(n), inputs[1]] -= 1
        expected_w = expected_w - 0.5 * inputs[0].T @ (slopes / max(n, 1))
        found = step(*inputs)
        np.testing.assert_allclose(found[1], expected_P)
        np.testing.assert_allclose(found[2], w.get_value())
        kept.append((found, [each.copy() for each in found], w.get_value(borrow=True), expected_w))
        if n:
            np.testing.assert_allclose(w.get_value(), expected_w)
        else:
            w.set_value(expected_w)  # a mean of nothing is NaN
        found[3][:] = -1
        kept[-1][1][3][:] = -1
    # What was given away is left alone.
    for found, copies, value, expected in kept:
        for each, before in zip(found, copies, strict=True):
            np.testing.assert_array_equal(each, before)
        if len(found[1]):
            np.testing.assert_allclose(value, expected)


def test_plans_with_values_that_decide_shapes():
    x, i, mask = theano.shared(np.arange(20.0).reshape(10, 2), "x"), T.lscalar("i"), T.vector("mask", dtype="bool")
    batch = T.tanh(x[i * 3 : (i + 1) * 3])
    f = theano.function([i, mask], [batch * 2, batch.sum(axis=0), x[mask].sum(), T.arange(i).sum(), x[:i].T * 1])
    for i_ in (0, 1, 2, 3, 2, 1, 0, 3, 1):
        chosen = np.arange(10) % (i_ + 2) == 0
        part = np.tanh(x.get_value()[i_ * 3 : (i_ + 1) * 3])
        expected = [
            part * 2,
            part.sum(axis=0),
            x.get_value()[chosen].sum(),
            sum(range(i_)),
            x.get_value()[:i_].T,
        ]
        for found, wanted in zip(f(i_, chosen), expected, strict=True):
            np.testing.assert_allclose(found, wanted)


def test_updates_that_overwrite_old_values():
    start = np.arange(1.0, 5.0)
    a, b, c = (theano.shared(start * factor, name) for factor, name in ((1, "a"), (2, "b"), (3, "c")))
    i = T.lscalar("i")
    updates = [(a, 0.5 * a + b[:i].sum()), (b, b * 2 - a), (c, (c + a) * b)]
    function = theano.function([i], [c[1:], b.sum(), T.tanh(a)], updates=updates)
    expected = [start, 2 * start, 3 * start]
    held = []
    for n in range(8):
        x, y, z = expected
        outputs = function(n % 4)
        for found, wanted in zip(outputs, (z[1:], y.sum(), np.tanh(x)), strict=True):
            np.testing.assert_allclose(found, wanted)
        expected = [0.5 * x + y[: n % 4].sum(), y * 2 - x, (z + x) * y]
        for variable, value in zip((a, b, c), expected, strict=True):
            np.testing.assert_allclose(variable.get_value(), value)
            if n == 5:  # what somebody else has is not overwritten
                held.append((variable.get_value(borrow=True), value))
    for array, value in held:
        np.testing.assert_allclose(array, value)


def test_what_nobody_has_is_overwritten():
    w, v = theano.shared(np.ones((3, 2)), "w"), theano.shared(np.zeros((3, 2)), "v")
    moved = 0.5 * v - w
    function = theano.function([], [], updates=[(v, moved), (w, w + moved)])
    for _ in range(3):
        function()
    arrays, values = (w.array, v.array), (w.get_value(), v.get_value())
    function()
    assert w.array is arrays[0]
    assert v.array is arrays[1]
    np.testing.assert_array_equal(v.get_value(), 0.5 * values[1] - values[0])
    np.testing.assert_array_equal(w.get_value(), values[0] + v.get_value())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("units", [4, 40])  # thin products alone, and one that is left to BLAS with all others
@pytest.mark.parametrize("layout", ["C", "F", "gaps"])
def test_thin_products(dtype, units, layout, monkeypatch):
    used = []

    def seen(*arrays):
        used.append(arrays)
        return kernel_product(*arrays)

    monkeypatch.setattr(dots, "kernel_product", seen)
    rng = np.random.default_rng(0)
    X, W = rng.normal(size=(400, 200)).astype(dtype), rng.normal(size=(200, units)).astype(dtype)
    D = rng.normal(size=(400, 4)).astype(dtype)
    x, w, d = T.matrix("x", dtype), theano.shared(W, "w"), T.matrix("d", dtype)
    f = theano.function([x, d], [T.dot(x, w), T.dot(x.T, d)])
    for _ in range(4):
        given = X
        if layout == "gaps":
            given = np.repeat(X, 2, axis=1)[:, ::2]
        found = f(np.asarray(given, order="F" if layout == "F" else "K"), D)
        for product, expected in zip(found, (X.astype(float) @ W, X.T.astype(float) @ D), strict=True):
            np.testing.assert_allclose(product, expected, atol=1e-12 if dtype == "float64" else 3e-4)
            assert product.dtype == dtype
    assert bool(used) == (units == 4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_products_without_threads_of_blas(dtype):
    rng = np.random.default_rng(0)
    X, W, D = (rng.normal(size=shape).astype(dtype) for shape in ((50, 90), (90, 100), (50, 100)))
    x, w, d = T.matrix("x", dtype), theano.shared(W, "w"), T.matrix("d", dtype)
    f = theano.function([x, d], [T.dot(x, w), T.dot(x.T, d), T.dot(d, w.T), T.dot(x, w[::-1])])
    for _ in range(4):
        found = f(X, D)
    for product, (left, right) in zip(found, ((X, W), (X.T, D), (D, W.T), (X, W[::-1])), strict=True):
        assert product.dtype == dtype
        np.testing.assert_allclose(product, left.astype(float) @ right, atol=1e-12 if dtype == "float64" else 1e-4)


def test_powers_of_arrays():
    x = T.dmatrix("x")
    exponents = [0, 0.5, 1, 2, 3, 5, 7, 16, 17, -1, -2, 1.5]
    f = theano.function([x], [x**exponent for exponent in exponents])
    value = np.array([[0.0, 1.5, 1e-200], [2.0, np.inf, np.nan]])
    for _ in range(4):
        for found, exponent in zip(f(value), exponents, strict=True):
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(found, value**exponent, rtol=1e-14)


def test_adam_written_out_and_joined():
    # One call of the kernel for each parameter, with three results that overwrite the old values.
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape) for shape in ((7, 5), (5,))]
    parameters, i = [theano.shared(value.copy()) for value in values], theano.shared(0.0)
    moments = [[theano.shared(np.zeros_like(value)) for value in values] for _ in range(2)]
    cost = sum(T.sum(T.tanh(p) ** 2) for p in parameters)
    updates = [(i, i + 1)]
    for p, m, v in zip(parameters, *moments, strict=True):
        g = T.grad(cost, p)
        new_m, new_v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = 0.1 * T.sqrt(1 - 0.999 ** (i + 1)) / (1 - 0.9 ** (i + 1)) * new_m / (T.sqrt(new_v) + 1e-8)
        updates += [(m, new_m), (v, new_v), (p, p - step)]
    function, arrays = theano.function([], cost, updates=updates), [p.get_value() for p in parameters]
    expected_m, expected_v = ([np.zeros_like(value) for value in values] for _ in range(2))
    for t in range(1, 9):
        function()
        for k, value in enumerate(arrays):
            g = 2 * np.tanh(value) * (1 - np.tanh(value) ** 2)
            expected_m[k] = 0.9 * expected_m[k] + 0.1 * g
            expected_v[k] = 0.999 * expected_v[k] + 0.001 * g**2
            step = 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * expected_m[k] / (np.sqrt(expected_v[k]) + 1e-8)
            arrays[k] = value - step
            np.testing.assert_allclose(parameters[k].get_value(), arrays[k], rtol=1e-9)
            np.testing.assert_allclose(moments[1][k].get_value(), expected_v[k], rtol=1e-9)


@pytest.mark.parametrize("often", [True, False])
def test_shared_arrays_that_others_replace(often):
    rng = np.random.default_rng(0)
    x, w, rate = (
        theano.shared(rng.normal(size=shape), name) for shape, name in (((6, 4), "x"), ((4, 3), "w"), ((), "r"))
    )
    cost = T.sqr(T.dot(x, w)).sum()
    step = theano.function([], cost, updates=[(w, w - rate * T.grad(cost, w))])
    probe = theano.function([], [w.T * 2, T.dot(x, w)])
    X, W, r = (variable.get_value() for variable in (x, w, rate))
    for n in range(80):
        if often or n % 25 == 24:
            variable = (x, w, rate)[rng.integers(3)]
            value = 0.1 * rng.normal(size=variable.get_value().shape)
            variable.set_value(value.copy(), borrow=n % 4 == 0)
            X, W, r = (value if each is variable else old for each, old in ((x, X), (w, W), (rate, r)))
        if n % 7 == 0:
            x.get_value(borrow=True)[...] *= 0.5
            X = X * 0.5
        np.testing.assert_allclose(step(), np.square(X @ W).sum())
        W = W - r * 2 * X.T @ (X @ W)
        np.testing.assert_allclose(w.get_value(), W)
        doubled, Z = probe()
        np.testing.assert_allclose(doubled, 2 * W.T)
        np.testing.assert_allclose(Z, X @ W)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "float16"])
def test_sums_of_scaled_arrays(dtype):
    x, y, s = T.matrix("x", dtype), T.matrix("y", dtype), T.scalar("s", dtype)
    X, Y = np.arange(6).reshape(2, 3).astype(dtype), np.arange(-2, 4).reshape(3, 2).astype(dtype).T
    twice = x * 2
    function = theano.function(
        [x, y, s],
        [2 * x + y, x - y * s, s * x - 3 * y, -x - y, twice - y, twice, (x + s * y[:1]).sum(axis=0), s * 2 + s],
    )
    S = np.array(3, dtype)
    expected = [2 * X + Y, X - Y * S, S * X - 3 * Y, -X - Y, 2 * X - Y, 2 * X, (X + S * Y[:1]).sum(axis=0), S * 2 + S]
    for _ in range(4):
        for found, wanted in zip(function(X, Y, S), expected, strict=True):
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, wanted)


def test_an_error_in_a_plan_leaves_all_as_it_was():
    i, a, b = T.lvector("i"), theano.shared(np.ones(2), "a"), theano.shared(np.ones(2), "b")
    function = theano.function([i], [], updates=[(a, a + 1), (b, b + a[i])])
    for _ in range(4):
        function([0, 1])
    with pytest.raises(IndexError, match=r"a\[i\]"):
        function([0, 2])
    np.testing.assert_array_equal([a.get_value(), b.get_value()], [[5, 5], [11, 11]])
    function([1, 1])
    np.testing.assert_array_equal([a.get_value(), b.get_value()], [[6, 6], [16, 16]])


def test_arrays_too_large_to_keep(monkeypatch):
    monkeypatch.setattr(execution, "KEPT_BYTES", 100)
    x, w = T.dmatrix("x"), theano.shared(np.ones((4, 4)), "w")
    step = theano.function([x], T.exp(T.dot(x, w) * 0.1).sum(axis=0), updates=[(w, w * 2)])
    for i in range(5):
        np.testing.assert_allclose(step(np.ones((3, 4))), np.full(4, 3 * np.exp(0.4 * 2**i)))


def test_several_threads_call_a_function():
    x = T.dmatrix("x")
    function = theano.function([x], T.exp(T.dot(x, x.T) * 0.01).sum(axis=1))

    def call(seed):
        value = np.random.default_rng(seed).normal(size=(40, 7))
        return [function(value) for _ in range(200)], np.exp(value @ value.T * 0.01).sum(axis=1)

    with ThreadPoolExecutor(4) as pool:
        for results, expected in pool.map(call, range(4)):
            np.testing.assert_allclose(results, np.broadcast_to(expected, (200, 40)))


def test_outputs():
    x = T.dscalar("x")
    assert theano.function([x], [x, 2])(1) == [1, 2]
    assert isinstance(theano.function([x], x)(1), np.ndarray)
    assert theano.function([], [])() == []
    assert theano.function([x], (x, x * 2))(1) == [1, 2]
    named = theano.function([x], {"twice": x * 2, "once": x})
    assert named(1) == {"once": 1, "twice": 2}
    assert [theano.pprint(each) for each in named.outputs] == ["x", "x * 2"]
    for outputs, message in [
        ({1: x}, r"the keys of outputs must be strings, not \[1\]"),
        (np.ones(2), "outputs must be a variable, a list or .*ndarray.*T.constant"),
        (2, "outputs must be a variable"),
        ([[x, x]], r"outputs must hold variables, not \[x, x\] \(list\)"),
        ([x, None], "outputs must hold variables, not None"),
        ("x", "outputs must be a variable"),
    ]:
        with pytest.raises(TypeError, match=message):
            theano.function([x], outputs)
    w = theano.shared(np.zeros(2))
    first, second = theano.function([], [w, w])()
    first += 1
    second += 2
    np.testing.assert_array_equal(w.get_value(), [0, 0])


def test_givens():
    x, y = T.dvector("x"), T.dvector("y")
    w = theano.shared(np.arange(4.0), "w")
    i = T.lscalar("i")
    np.testing.assert_array_equal(theano.function([i], x * 2, givens={x: w[i : i + 2]})(1), [2, 4])
    np.testing.assert_array_equal(theano.function([x, y], x - 2 * y, givens=[])([3], [1]), [1])
    h = T.tanh(x)
    assert theano.function([y], h * 3, givens={h: y})([2.0]) == [6]
    # Gradients are those from before the replacement.
    slope = T.grad(T.sum(w * y), w)
    np.testing.assert_array_equal(theano.function([], slope, givens={y: w})(), np.arange(4))


def test_expressions_as_inputs():
    # Theano's results.
    a, x = theano.shared(2.0, "a"), T.dvector("x")
    b = a * 3
    assert theano.function([b], b + 1)(10.0) == 11
    assert theano.function([b], T.grad(b**2, a))(10.0) == 60
    assert theano.function([b], T.grad(b**2, b))(10.0) == 20
    assert theano.function([b], (a * 3) * b)(10.0) == 60  # another expression, though it reads the same
    h = T.tanh(x * a)
    cost = T.sum(T.log(h) * x)
    f = theano.function([x, h], [cost, *T.grad(cost, [x, a])], updates=[(a, a + b)], givens={b: h[0]})
    value, given = np.array([0.1, 0.2]), np.array([0.5, 0.25])
    found = f(value, given)
    slope = value / given * (1 - np.tanh(2 * value) ** 2)  # through the tanh of x, not the one that is given
    np.testing.assert_allclose(found[0], np.sum(np.log(given) * value))
    np.testing.assert_allclose(found[1], np.log(given) + slope * 2)
    np.testing.assert_allclose(found[2], np.sum(slope * value))
    assert a.get_value() == 2.5
    g = T.grad(cost, a)
    descent = theano.function([g], updates=[(a, a - 2 * g)])
    descent(0.5)
    assert a.get_value() == 1.5
    assert "depends on b" in theano.function([b], b + 1).explanation()
    with pytest.raises(ValueError, match="the input x is not used"):
        theano.function([x, h], h + 1)
    with pytest.raises(ValueError, match="is both an input and given"):
        theano.function([h], h + 1, givens={h: x})


def test_gradients_through_what_is_given():
    # What is replaced is not passed by: the slope of the logarithm is that at the new value, as in Theano.
    x, p_value = T.dscalar("x"), T.dscalar("p_value")
    for p in (1 / (1 + T.exp(-x)), T.nnet.sigmoid(x)):
        slope, own = T.grad(T.log(p), x), 0.25
        np.testing.assert_allclose(theano.function([x], slope)(0.0), 0.5)
        np.testing.assert_allclose(theano.function([x, p], slope)(0.0, 0.1), own / 0.1)
        np.testing.assert_allclose(theano.function([x, p_value], slope, givens={p: p_value})(0.0, 0.1), own / 0.1)


def test_what_is_given_holds_in_what_follows():
    u, v, w = T.dscalar("u"), T.dscalar("v"), T.dscalar("w")
    assert theano.function([v], w + u, givens={u: v, w: u * 2})(1.0) == 3
    a = theano.shared(2.0, "a")
    assert theano.function([], a * 1, givens={a: a * 2})() == 4
    with pytest.raises(ValueError, match="u is given after w, whose value depends on it"):
        theano.function([v], w + u, givens={w: u, u: v})
    with pytest.raises(ValueError, match="the value of w"):
        theano.function([], w, givens={w: w * 2})


def test_borrowing():
    value = np.zeros(3)
    copied, borrowed = theano.shared(value), theano.shared(value, borrow=True)
    value += 1
    np.testing.assert_array_equal(copied.get_value(), [0, 0, 0])
    assert borrowed.get_value(borrow=True) is value
    assert borrowed.get_value() is not value
    copied.get_value()[:] = 7
    np.testing.assert_array_equal(copied.get_value(), [0, 0, 0])
    copied.get_value(borrow=True)[:] = 7
    np.testing.assert_array_equal(copied.get_value(), [7, 7, 7])
    copied.set_value(value)
    value += 1
    np.testing.assert_array_equal(copied.get_value(), [1, 1, 1])
    copied.set_value(value, borrow=True)
    assert copied.get_value(borrow=True) is value
    with pytest.raises(TypeError, match="the new value of n must have 1 dimensions"):
        theano.shared(value, "n").set_value(np.ones((1, 1)))


def test_data_in_shared_variables_is_not_copied():
    seen = []

    class Spy(np.ndarray):
        def copy(self, *args):
            seen.append("copied")
            return super().copy(*args)

    w = theano.shared(np.ones((100, 100)).view(Spy), borrow=True)
    theano.function([], T.dot(w, w))()
    assert seen == []


@pytest.mark.parametrize("copied", [lambda value: pickle.loads(pickle.dumps(value)), copy.deepcopy])
def test_pickles_and_copies(copied):
    x, w = T.dvector("x"), theano.shared(np.array([1.0, 2.0]), "w")
    cost = T.log(1 + T.exp(T.sum(x * w))) + T.sum(T.switch(w[T.arange(2), None] > 0, T.maximum(0, w), 2))
    step = theano.function([x], {"cost": cost, "w": w}, updates=[(w, w - 0.1 * T.grad(cost, w))], name="step")
    x2, w2, cost2, step2 = copied((x, w, cost, step))
    assert [v for v in sort([cost2]) if v.op is None and v.name] == [x2, w2]
    expected = step([3.0, 4.0])
    np.testing.assert_array_equal(w2.get_value(), expected["w"])
    assert theano.function([x2], cost2)([3.0, 4.0]) == expected["cost"]
    assert repr(step2) == repr(step)
    for name, value in step2([3.0, 4.0]).items():
        np.testing.assert_array_equal(value, expected[name])
    np.testing.assert_array_equal(w2.get_value(), w.get_value())
    w2.set_value([0.0, 0.0])
    assert w.get_value()[0] != 0


def test_pickles_of_deep_expressions():
    x = T.dscalar("x")
    expression = x
    for _ in range(3000):
        expression = T.tanh(1.5 * expression)
    x2, expression2 = pickle.loads(pickle.dumps((x, expression)))
    assert theano.function([x2], expression2)(1.0) == theano.function([x], expression)(1.0)


def test_shallow_copies():
    w = theano.shared(np.zeros(2), "w")
    step = theano.function([], updates=[(w, w + 1)])
    copy.copy(step)()
    copy.copy(w).set_value(w.get_value() + 1)
    np.testing.assert_array_equal(w.get_value(), [2, 2])
    assert copy.copy(w * 2).op == (w * 2).op


def test_pictures():
    x, w = T.dmatrix("x"), theano.shared(np.ones((3, 2)), "w")
    expression = T.sum(-(x - 2 * (x + 1)) / T.dot(x.T, w) ** 2) + x[1:, 0].sum()
    text = "sum(-(x - 2 * (x + 1)) / dot(x.T, w) ** 2) + sum(x[1:, 0])"
    assert theano.pprint(expression) == text
    assert theano.pprint(T.grad(expression, w)) == f"grad({text}, w)"
    unnamed = T.dvector()
    assert theano.pprint(unnamed * 2) == "unnamed * 2"
    dot = theano.printing.dot(T.tanh(x))
    assert dot.startswith("digraph")
    assert 'label="tanh(·)"' in dot
    svg = theano.printing.Picture(T.tanh(x) + w)._repr_svg_()
    assert svg.startswith("<svg")
    assert "tanh(·)" in svg


def test_debugprint(capsys):
    x = T.dvector("x")
    t = T.tanh(x)
    theano.debugprint(t * t)
    assert capsys.readouterr().out == "· * · [1]\n  tanh(·) [2]\n    x [3]\n  tanh(·) [2] (above)\n"
