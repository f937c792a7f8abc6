"""The network: parameters, predictions, gradients."""

import copy
import pickle

import numpy as np
import pytest
from pairs import parametrize_pairs
from scipy import signal, sparse, special
from sklearn.neural_network import MLPClassifier

import fastnn
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.layers import AveragePool2D, Conv2D, Dense, MaxPool2D

SHAPES = {0: [7, 3], 1: [7, 5, 3], 2: [7, 5, 1, 3], 3: [7, 5, 4, 6, 3]}


@pytest.fixture
def data(rng):
    return rng.standard_normal((41, 7)), rng.integers(0, 3, 41)


def random_network(sizes, activation="tanh", dtype="float64"):
    network = fastnn.Network(sizes, activation, dtype, seed=1)
    network.parameters = network.parameters + 0.3 * np.random.default_rng(2).standard_normal(network.parameters.size)
    return network


def penalised(network, X, y, l2):
    return network.log_likelihood(X, y) - l2 / 2 * sum((weight**2).sum() for weight in network.weights)


@parametrize_pairs({"activation": ACTIVATIONS, "n_hidden": SHAPES, "stored": ["dense", "sparse", "uint8"]})
def test_gradient_agrees_with_central_differences_for_every_parameter(rng, data, activation, n_hidden, stored):
    X, y = data
    X = {"dense": X, "sparse": sparse.csr_array(X * (X > 0.5)), "uint8": (100 * np.abs(X)).clip(0, 255).astype("u1")}[
        stored
    ]
    network = random_network(SHAPES[n_hidden], activation)
    dweights, dbiases = network.gradient(X, y)
    step = 1e-6  # truncation 1e-12 and rounding 1e-16 / 1e-6 meet near 1e-9
    for arrays, gradients in ((network.weights, dweights), (network.biases, dbiases)):
        for array, gradient in zip(arrays, gradients, strict=True):
            assert gradient.shape == array.shape
            for index in np.ndindex(array.shape):
                value = array[index]
                array[index] = value + step
                above = network.log_likelihood(X, y)
                array[index] = value - step
                below = network.log_likelihood(X, y)
                array[index] = value
                assert gradient[index] == pytest.approx((above - below) / (2 * step), abs=2e-9)


@pytest.mark.parametrize("n_hidden", SHAPES)
def test_a_step_with_penalty_follows_central_differences(data, n_hidden):
    X, y = data
    network = random_network(SHAPES[n_hidden])
    l2, step, learning_rate = 0.1, 1e-6, 0.01
    before = network.parameters.copy()
    expected = np.empty_like(before)
    for i in range(before.size):
        values = []
        for sign in (1, -1):
            network.parameters[i] = before[i] + sign * step
            values.append(penalised(network, X, y, l2))
        network.parameters[i] = before[i]
        expected[i] = (values[0] - values[1]) / (2 * step)
    fastnn.Trainer(network, fastnn.SGD(learning_rate), l2=l2).fit(X, y, epochs=1)
    np.testing.assert_allclose((network.parameters - before) / learning_rate, expected, atol=1e-8)


def test_gradient_is_the_same_for_few_and_many_rows(rng):
    # From 512 rows on a batch is cut into shards.
    X, y = rng.standard_normal((3000, 7)), rng.integers(0, 3, 3000)
    network = random_network([7, 5, 3])
    whole = network.gradient(X, y)
    parts = [network.gradient(X[i : i + 100], y[i : i + 100]) for i in range(0, 3000, 100)]
    for kind in range(2):
        for k in range(2):
            mean = np.mean([part[kind][k] for part in parts], axis=0)
            np.testing.assert_allclose(whole[kind][k], mean, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("ours", "theirs"), [("tanh", "tanh"), ("sigmoid", "logistic"), ("relu", "relu")])
def test_predictions_agree_with_scikit_learn(dtype, assert_close, data, ours, theirs):
    X, y = data
    network = random_network([7, 5, 4, 3], ours, dtype)
    other = MLPClassifier((5, 4), activation=theirs, max_iter=1, solver="sgd")
    other.partial_fit(X, y, classes=[0, 1, 2])
    other.coefs_ = [np.array(weight, float) for weight in network.weights]
    other.intercepts_ = [np.array(bias, float) for bias in network.biases]
    probabilities = network.predict_proba(X)
    assert probabilities.dtype == dtype
    assert_close(probabilities, other.predict_proba(X), 4)
    np.testing.assert_array_equal(network.predict(X), other.predict(X))
    assert network.error(X, y) == pytest.approx(1 - other.score(X, y))
    np.testing.assert_array_equal(network.confusion_matrix(X, y).sum(axis=1), np.bincount(y, minlength=3))


def test_log_likelihood_stays_finite_where_probabilities_underflow():
    network = fastnn.Network([1, 2])
    network.weights[0] = [[1000.0, -1000.0]]
    assert network.predict_proba([[1.0]])[0, 1] == 0
    assert network.log_likelihood([[1.0]], [1]) == -2000
    expected = special.log_softmax([1000.0, -1000.0])[1]
    assert network.log_likelihood([[1.0]], [1]) == expected


@pytest.mark.parametrize("n", [0, 1, 2, 129, 1000])
def test_any_number_of_rows(dtype, assert_close, rng, n):
    X = rng.standard_normal((n, 7))
    network = random_network([7, 5, 3], dtype=dtype)
    whole = network.predict_proba(X)
    assert whole.shape == (n, 3)
    assert network.predict(X).shape == (n,)
    if n:
        assert_close(whole, np.concatenate([network.predict_proba(row[None]) for row in X]))


def test_layouts_and_types_of_input_give_the_same_result(dtype, rng):
    X = rng.integers(0, 200, (50, 7))
    network = random_network([7, 5, 3], dtype=dtype)
    expected = network.predict_proba(X.astype(dtype))
    for variant in (
        X,
        X.tolist(),
        np.asfortranarray(X.astype(dtype)),
        X.astype(dtype)[:, ::-1][:, ::-1],
        np.repeat(X.astype(dtype), 2, axis=0)[::2],
        X.astype(">f8"),
        X.astype("float16"),
        X.astype("int16"),
        X.astype("float32"),
        X.astype("float64"),
    ):
        np.testing.assert_array_equal(network.predict_proba(variant), expected)
    pixels = network.predict_proba(X.astype(np.uint8))
    np.testing.assert_array_equal(pixels, network.predict_proba(X / 256))
    frozen = X.astype(dtype)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(network.predict_proba(frozen), expected)


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csr_array, sparse.csc_array, sparse.coo_matrix])
def test_sparse_input(dtype, assert_close, rng, make):
    X = rng.standard_normal((50, 7)) * (rng.random((50, 7)) < 0.3)
    network = random_network([7, 5, 3], dtype=dtype)
    assert_close(network.predict_proba(make(X)), network.predict_proba(X), 4)
    pixels = (100 * np.abs(X)).astype(np.uint8)
    assert_close(network.predict_proba(make(pixels)), network.predict_proba(pixels), 4)
    long = make(X).tocsr()
    long.indices, long.indptr = long.indices.astype(np.int64), long.indptr.astype(np.int64)
    assert_close(network.predict_proba(long), network.predict_proba(X), 4)


def test_sparse_input_stays_as_it_is():
    # SciPy's own check stores odd arrays anew.
    X = sparse.csr_array(np.eye(7))
    X.indices, X.data = X.indices.astype(np.int64), X.data.astype(">f8")
    parts = X.data, X.indices, X.indptr
    np.testing.assert_array_equal(fastnn.Network([7, 3]).predict(X), np.zeros(7))
    assert all(part is now for part, now in zip(parts, (X.data, X.indices, X.indptr), strict=True))


def test_default_start():
    softmax = fastnn.Network([784, 10])
    assert not softmax.parameters.any()
    assert softmax.dtype == np.float64
    for activation, limit in (("tanh", (6 / 900) ** 0.5), ("relu", (6 / 800) ** 0.5)):
        network = fastnn.Network([800, 100, 10], activation)
        assert not any(bias.any() for bias in network.biases)
        assert 0.99 * limit < np.abs(network.weights[0]).max() <= limit
        assert np.abs(network.weights[1]).max() <= (6 / 110) ** 0.5
        assert network.weights[1].any()
    again = fastnn.Network([800, 100, 10], "relu", "float32", seed=0)
    np.testing.assert_array_equal(again.weights[0], network.weights[0].astype("float32"))
    assert not np.array_equal(again.weights[0], fastnn.Network([800, 100, 10], "relu", "float32", seed=1).weights[0])


def test_assigning_parameters_changes_the_network(data, dtype):
    X, y = data
    network = fastnn.Network([7, 5, 3], dtype=dtype)
    own = network.weights[0]
    assert own.flags.c_contiguous
    before = network.log_likelihood(X, y)
    network.weights[0] = np.ones((7, 5))
    assert network.weights[0] is own
    assert own.dtype == dtype
    after = network.log_likelihood(X, y)
    assert before != after
    network.biases[-1][:] = [1, 2, 3]
    assert network.log_likelihood(X, y) != after
    np.testing.assert_array_equal(network.parameters[-3:], [1, 2, 3])
    network.weights = [np.zeros((7, 5)), np.zeros((5, 3))]
    network.biases = [np.zeros(5), np.zeros(3)]
    assert not network.parameters.any()
    assert isinstance(network.weights, list)
    assert network.log_likelihood(X, y) == pytest.approx(-np.log(3), rel=1e-6)


def test_wrong_parameters_are_refused():
    network = fastnn.Network([7, 5, 3])
    before = network.parameters.copy()
    with pytest.raises(ValueError, match=r"weights must keep its shape \(7, 5\), not \(5, 7\)"):
        network.weights[0] = np.ones((5, 7))
    with pytest.raises(ValueError, match="finite real numbers"):
        network.biases[0] = [np.nan] * 5
    with pytest.raises(ValueError, match="one a layer"):
        network.weights = [np.ones((7, 5))]
    for change in (
        lambda: network.weights.append(np.ones(3)),
        lambda: network.weights.pop(),
        lambda: network.weights.clear(),
        lambda: network.weights.__delitem__(0),
        lambda: network.weights.__iadd__([1]),
    ):
        with pytest.raises(TypeError, match="number and order"):
            change()
    np.testing.assert_array_equal(network.parameters, before)


def test_copies_are_independent_and_whole(data):
    X, _y = data
    network = random_network([7, 5, 4, 3], ["tanh", "relu"], "float32")
    expected = network.predict_proba(X)
    for other in (copy.deepcopy(network), copy.copy(network), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
        assert (other.sizes, other.activation, other.dtype) == (network.sizes, network.activation, network.dtype)
        other.weights[0] = np.zeros((7, 5))
        np.testing.assert_array_equal(network.predict_proba(X), expected)
    weights = copy.deepcopy(network.weights)
    assert type(weights) is list
    weights[0][:] = 0
    np.testing.assert_array_equal(network.predict_proba(X), expected)


def test_repr():
    assert repr(fastnn.Network([7, 3])) == "Network([7, 3], dtype='float64')"
    assert repr(fastnn.Network([7, 5, 4, 3])) == "Network([7, 5, 4, 3], activation='tanh', dtype='float64')"
    network = fastnn.Network([7, 5, 4, 3], ["tanh", "relu"], "float32")
    assert repr(network) == "Network([7, 5, 4, 3], activation=['tanh', 'relu'], dtype='float32')"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([784],), ValueError, "sizes must hold at least"),
        (([784, 0, 10],), ValueError, r"sizes\[1\] must be at least 1"),
        (([784, -5],), ValueError, r"sizes\[1\] must be at least 1"),
        (([784, 2**31],), ValueError, r"sizes\[1\] must be .* at most 2147483647"),
        (([2**31 - 1] * 3,), ValueError, "more parameters than memory"),
        (([784, 10.0],), TypeError, r"sizes\[1\] must be an integer, not 10.0"),
        ((784,), TypeError, "sizes must be a sequence"),
        (("784",), TypeError, "sizes must be a sequence"),
        (([784, 20, 10], "tanhh"), ValueError, "activation must be one of 'identity', 'tanh'.*not 'tanhh'"),
        (([784, 20, 10], ["tanh", "relu"]), ValueError, "list of 1, one a hidden layer"),
        (([784, 20, 10], ["Tanh"]), ValueError, r"activation\[0\] must be one of"),
        (([784, 20, 10], "tanh", "float16"), ValueError, "dtype must be 'float32' or 'float64', not 'float16'"),
        (([784, 20, 10], "tanh", "nonsense"), ValueError, "dtype must be"),
        (([784, 20, 10], "tanh", None), ValueError, "dtype must be"),
        (([784, 20, 10], "tanh", "float32", -1), ValueError, "seed must be None"),
        (([784, 20, 10], "tanh", "float32", "x"), ValueError, "seed must be None"),
    ],
)
def test_wrong_networks_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        fastnn.Network(*arguments)


BAD_ROWS = [
    (np.ones(7), ValueError, r"X must have two dimensions, \(n, 7\), or X.reshape\(1, -1\)"),
    (np.ones((2, 7, 1)), ValueError, r"X must have two dimensions"),
    (np.ones((2, 8)), ValueError, r"X must have 7 columns.*its shape is \(2, 8\)"),
    (np.full((2, 7), np.nan), ValueError, "X must be finite, but it holds NaN"),
    (np.full((2, 7), np.inf), ValueError, "X must be finite, but it holds infinity"),
    (np.full((2, 7), -np.inf), ValueError, "X must be finite, but it holds infinity"),
    (np.full((2, 7), "a"), TypeError, "X must hold real numbers"),
    (np.full((2, 7), None), TypeError, "X must hold real numbers"),
    (np.full((2, 7), 1j), TypeError, "X must hold real numbers, not dtype complex128"),
    (np.full((2, 7), 1e39), ValueError, "beyond the network's float32"),
    (sparse.csr_array(np.full((2, 7), np.nan)), ValueError, "X must be finite, but it holds NaN"),
    (sparse.csr_array(np.ones((2, 8))), ValueError, "X must have 7 columns"),
    (sparse.csr_array(np.full((2, 7), 1j)), TypeError, "X must hold real numbers"),
]


@pytest.mark.parametrize(("X", "error", "message"), BAD_ROWS)
def test_wrong_rows_are_refused(X, error, message):
    network = fastnn.Network([7, 3], dtype="float32")
    for method in (network.predict, network.predict_proba):
        with pytest.raises(error, match=message):
            method(X)
    for method in (network.error, network.log_likelihood, network.gradient, network.confusion_matrix):
        with pytest.raises(error, match=message):
            method(X, [0, 0])


def test_one_nan_among_many_is_found(rng):
    X = rng.standard_normal((1001, 7))
    X[-1, -1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fastnn.Network([7, 3]).predict(X)


def test_sparse_indices_out_of_bounds_are_refused():
    X = sparse.csr_array(np.ones((2, 7)))
    X.indices[3] = 7_000_000
    with pytest.raises(ValueError, match="X is not a valid CSR matrix"):
        fastnn.Network([7, 3]).predict(X)
    X = sparse.csr_array(np.ones((2, 7)))
    X.indptr[1] = 1_000_000
    with pytest.raises(ValueError, match="X is not a valid CSR matrix"):
        fastnn.Network([7, 3]).predict(X)


BAD_LABELS = [
    ([0, 3], ValueError, "y must hold classes from 0 to 2, but it holds 3"),
    ([0, -1], ValueError, "y must hold classes from 0 to 2, but it holds -1"),
    ([0], ValueError, r"y must have shape \(2,\), one class for each row; its shape is \(1,\)"),
    ([[0], [1]], ValueError, r"its shape is \(2, 1\)"),
    ([0.0, 1.0], TypeError, "y must hold integer class indices, not dtype float64"),
    (["a", "b"], TypeError, "y must hold integer class indices"),
    (np.array([0, 2**63], np.uint64), ValueError, "y must hold classes"),
]


@pytest.mark.parametrize(("y", "error", "message"), BAD_LABELS)
def test_wrong_labels_are_refused(y, error, message):
    network = fastnn.Network([7, 3])
    for method in (network.error, network.log_likelihood, network.gradient, network.confusion_matrix):
        with pytest.raises(error, match=message):
            method(np.ones((2, 7)), y)


def test_means_over_nothing_are_refused():
    network = fastnn.Network([7, 3])
    for method in (network.error, network.log_likelihood, network.gradient, network.confusion_matrix):
        with pytest.raises(ValueError, match="X is empty"):
            method(np.empty((0, 7)), [])


def test_targets_and_weights_may_be_columns_of_a_table(rng):
    table = rng.random((20, 9))
    network = fastnn.Network([7, 1], loss="squared")
    columns, copies = (table[:, 7], table[:, 8]), (table[:, 7].copy(), table[:, 8].copy())
    expected = network.log_likelihood(table[:, :7], copies[0], copies[1])
    assert network.log_likelihood(table[:, :7], columns[0], columns[1]) == expected
    table[3, 7] = np.inf
    with pytest.raises(ValueError, match="y must be finite, but it holds infinity"):
        network.log_likelihood(table[:, :7], *columns)


def test_parameters_that_cannot_be_are_refused_and_change_nothing(dtype):
    network = fastnn.Network([2, 3, 2], dtype=dtype, seed=1)
    before = network.parameters.copy()
    shapes = [(2, 3), (3, 2)]
    for name, value in [
        ("weights", [np.ones(shapes[0]), np.ones((4, 4))]),
        ("weights", [np.ones(shapes[0]), np.full(shapes[1], np.nan)]),
        ("weights", [np.ones(shapes[0])]),
        ("weights", [np.ones(shapes[0]), np.full(shapes[1], 1e39 if dtype == "float32" else np.inf)]),
        ("parameters", np.full(17, np.nan)),
        ("parameters", np.ones(16)),
        ("parameters", np.inf),
        ("parameters", ["a"] * 17),
    ]:
        with pytest.raises(ValueError, match=name):
            setattr(network, name, value)
        np.testing.assert_array_equal(network.parameters, before)
    with pytest.raises(ValueError, match="variances of at least 0"):
        fastnn.Network([2, 3, 2], batch_norm=True).parameters = -np.ones(26)
    network.parameters = np.arange(17)
    np.testing.assert_array_equal(network.weights[0], np.arange(6).reshape(2, 3))
    network.parameters = 2
    np.testing.assert_array_equal(network.parameters, [2.0] * 17)


@pytest.mark.parametrize("n_rows", [0, 1, 37])
@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
def test_feature_maps(dtype, rng, assert_close, n_rows, kind):
    layers = [
        Conv2D(4, (3, 2), (2, 1), "same", activation="gelu", batch_norm=True),
        AveragePool2D((2, 3), 1),
        Conv2D(5, 2, activation="softplus"),
        MaxPool2D(2, (1, 2)),
        Dense(3),
    ]
    network = fastnn.Network(layers, dtype=dtype, input_shape=(9, 10, 3))
    network.means, network.variances = [rng.normal(size=4)], [rng.uniform(0.5, 2, 4)]
    network.biases = [rng.normal(size=n) for n in (4, 5, 3)]
    X = rng.integers(0, 256, (n_rows, 9, 10, 3)).astype(np.uint8)
    X = X if kind == "uint8" else (X / 256).astype(kind)
    with network.read_only():
        maps = [network.feature_maps(X, k) for k in range(4)]
    assert [found.shape[1:] for found in maps] == [(5, 10, 4), (4, 8, 4), (3, 7, 5), (2, 3, 5)]
    assert all(found.dtype == dtype and len(found) == n_rows for found in maps)
    # The convolution by SciPy, the pooling by NumPy, and the rest by the network itself.
    windows = np.lib.stride_tricks.sliding_window_view(maps[0].astype(float), (2, 3), (1, 2))
    assert_close(maps[1], windows.mean(axis=(-2, -1)))
    for found, image in zip(maps[2][:2], maps[1], strict=False):
        Z = [signal.correlate(image, W, "valid")[..., 0] for W in np.moveaxis(network.weights[1], -1, 0)]
        assert_close(found, np.logaddexp(np.moveaxis(Z, 0, -1) + network.biases[1], 0))
    windows = np.lib.stride_tricks.sliding_window_view(maps[2], (2, 2), (1, 2))[:, :, ::2]
    np.testing.assert_array_equal(maps[3], windows.max(axis=(-2, -1)))
    Z = maps[3].reshape(n_rows, 30) @ network.weights[2] + network.biases[2]
    assert_close(network.predict_proba(X), special.softmax(Z.astype(float), axis=1))
    np.testing.assert_array_equal(network.feature_maps(X.reshape(n_rows, 270)), maps[0])


def test_feature_maps_of_layers_without():
    network = fastnn.Network([Conv2D(2, 3), Dense(4), Dense(2)], input_shape=(5, 5))
    for layer in (1, 2, -1):  # Flatten, Dense
        with pytest.raises(ValueError, match="layer must be at least 0 and at most 0"):
            network.feature_maps(np.ones((1, 5, 5)), layer)
    with pytest.raises(ValueError, match="X must have shape"):
        network.feature_maps(np.ones((1, 5, 4)))
    for network in (fastnn.Network([25, 2]), fastnn.Network([Dense(2)], input_shape=(5, 5))):
        with pytest.raises(TypeError, match="needs a network with layers on images"):
            network.feature_maps(np.ones((1, 25)))
