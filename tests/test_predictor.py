"""Predictions of few rows, by the network, its predictor and the estimators: those of whole batches."""

import copy
import pickle
import sys
import threading
import warnings

import numpy as np
import pytest
from levels import levels_of
from pairs import parametrize_pairs
from scipy import sparse, special

import fastnn
from fastnn.engine.threads import kernel_run
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.kernels.losses import LOSSES
from fastnn.layers import AveragePool2D, Conv2D, Dense, GlobalAveragePool2D, MaxPool2D

# The last has a layer that BLAS computes, and so other bits in batches.
SHAPES = ([3, 2], [1, 1, 1], [20, 10, 3], [130, 17, 33, 5], [300, 65, 130, 2], [257, 300, 10], [784, 8])
ACTIVATION = {
    "identity": lambda Z: Z,
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "relu": lambda Z: np.maximum(Z, 0),
    "leaky_relu": lambda Z: np.where(Z < 0, 0.01 * Z, Z),
    "elu": lambda Z: np.where(Z < 0, np.expm1(Z), Z),
    "softplus": lambda Z: np.logaddexp(0, Z),
    "gelu": lambda Z: Z * special.ndtr(Z),
    "silu": lambda Z: Z * special.expit(Z),
}


def random_network(sizes, activation="tanh", dtype="float64", loss="cross_entropy", batch_norm=False):
    network = fastnn.Network(
        sizes, activation, dtype, loss=loss, batch_norm=batch_norm, quantiles=levels_of(loss, sizes[-1])
    )
    network.parameters = np.abs(network.parameters) + np.random.default_rng(2).normal(0, 0.1, network.parameters.size)
    return network


def calls_of(network):
    predictor = network.predictor()
    return network.predict, network.predict_proba, predictor.predict, predictor.predict_proba


def outputs(network, X):
    # By SciPy's functions, in float64.
    Y = X.astype(float)
    arrays = zip(network.weights, network.biases, (*network.activation, "identity"), strict=True)
    for weight, bias, activation in arrays:
        Y = ACTIVATION[activation](Y @ weight.astype(float) + bias)
    return Y


@parametrize_pairs({"sizes": SHAPES, "activation": ACTIVATIONS, "loss": LOSSES, "dtype": ["float32", "float64"]})
def test_a_few_rows_have_the_bits_of_their_batch(rng, sizes, activation, loss, dtype):
    network = random_network(sizes, activation, dtype, loss)
    X = (rng.standard_normal((301, sizes[0])) * (rng.random((301, sizes[0])) < 0.7)).astype(dtype)
    X[::5, ::2] = 0
    calls = [network.predict, network.predict_proba] if network.classifies else [network.predict]
    for call in calls:
        expected, few = call(X), getattr(network.predictor(), call.__name__)
        for first, n in ((0, 1), (5, 1), (17, 2), (40, 3), (99, 16), (200, 47), (300, 1)):
            here, there = expected[first : first + n], few(X[first : first + n])
            assert here.dtype == there.dtype
            if sizes == SHAPES[-1]:
                np.testing.assert_allclose(there, here, rtol=1e-4 if dtype == "float32" else 1e-12)
            else:
                np.testing.assert_array_equal(there, here)
            np.testing.assert_array_equal(call(X[first : first + n]), there)
    Z = outputs(network, X[:3])
    links = {"cross_entropy": lambda Z: special.softmax(Z, axis=1), "binary_cross_entropy": special.expit}
    found = network.predict_proba(X[:3]) if network.classifies else network.predict(X[:3])
    rtol = 2e-3 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(found, links.get(loss, lambda Z: Z)(Z), rtol, atol=rtol)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_any_kind_are_predicted_alike(rng, dtype):
    network = random_network([20, 10, 3], "relu", dtype)
    predictor = network.predictor()
    for X in (rng.integers(0, 256, (2, 20), np.uint8), rng.standard_normal((2, 20)).astype("f4").astype("f8")):
        taken = (X / 256 if X.dtype == np.uint8 else X).astype(dtype)
        expected = network.predict_proba(np.vstack([taken, np.zeros((500, 20), dtype)]))[:2]
        single = [X.astype("f4"), X.astype(">f8"), X.tolist(), X.astype(object).astype("f8")]
        kinds = [np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], X.view(np.matrix)]
        odd = np.frombuffer(b"." + X.tobytes(), X.dtype, offset=1).reshape(X.shape)  # not aligned
        for rows in [X, odd, *kinds, *([] if X.dtype == np.uint8 else single)]:
            np.testing.assert_array_equal(predictor.predict_proba(rows), expected)
            np.testing.assert_array_equal(network.predict_proba(rows), expected)
            np.testing.assert_array_equal(predictor.predict(rows), expected.argmax(axis=1))
        for rows in (sparse.csr_array(taken), sparse.coo_array(taken)):
            np.testing.assert_allclose(predictor.predict_proba(rows), expected, rtol=1e-5)


@pytest.mark.parametrize("n_rows", [1, 40])
@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "holds NaN"), (np.inf, "infinity"), (-np.inf, "infinity"), (1e39, "beyond"), (3.40282357e38, "beyond")],
)
def test_numbers_that_are_not_finite_are_refused(n_rows, value, message):
    network = random_network([20, 10, 3], dtype="float32")
    X = np.zeros((n_rows, 20))
    X[-1, 7] = value
    for call in calls_of(network):
        with pytest.raises(ValueError, match=message):
            call(X)


@pytest.mark.parametrize(
    "X", [np.zeros(20), np.zeros((1, 19)), np.zeros((1, 20, 1)), np.zeros((1, 20), complex), [["a"] * 20], None]
)
def test_rows_of_a_wrong_kind_are_refused_with_the_same_words(X):
    network = random_network([20, 10, 3])
    errors = []
    for call in calls_of(network):
        with pytest.raises((TypeError, ValueError)) as error:
            call(X)
        errors.append((error.type, str(error.value)))
    assert len(set(errors)) == 1


def test_no_rows_and_wrong_threads():
    network = random_network([20, 10, 3])
    assert network.predictor().predict(np.zeros((0, 20))).shape == (0,)
    assert network.predictor().predict_proba(np.zeros((0, 20))).shape == (0, 3)
    with pytest.raises(ValueError, match="n_threads"):
        network.predict(np.zeros((1, 20)), n_threads=0)
    values = random_network([20, 10, 3], loss="squared")
    with pytest.raises(TypeError, match="not probabilities"):
        values.predictor().predict_proba(np.zeros((1, 20)))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_predictor_follows_the_parameters(rng, batch_norm):
    network = random_network([20, 10, 3], batch_norm=batch_norm)
    predictor, X = network.predictor(), rng.standard_normal((2, 20))

    def agrees():
        probabilities = predictor.predict_proba(X)
        batch = np.vstack([X, np.ones((500, 20))])
        np.testing.assert_array_equal(probabilities, copy.deepcopy(network).predict_proba(batch)[:2])
        return probabilities

    seen = [agrees()]
    network.weights[0][3, 4] += 1  # in place
    seen.append(agrees())
    network.biases[1] = [1, 2, 3]
    seen.append(agrees())
    network.parameters = network.parameters * 2
    seen.append(agrees())
    fastnn.Trainer(network, fastnn.SGD(0.1), batch_size=2).fit(X, [0, 2], epochs=1)
    seen.append(agrees())
    with network.read_only():
        agrees()
    assert len({probabilities.tobytes() for probabilities in seen}) == len(seen)


def test_outputs_that_are_not_numbers_are_chosen_as_in_a_batch():
    network = random_network([3, 4])
    X = np.ones((1, 3))
    for biases in ([0, 5, 5, 1], [0, np.nan, 9, np.nan], [np.nan] * 4, [-np.inf] * 4, [0, np.inf, 0, np.inf]):
        network.weights[0][...] = 0
        network.biases[0][...] = biases  # not checked
        assert network.predict(X)[0] == np.argmax(biases) == network.predict(np.ones((500, 3)))[-1]


def test_copies_and_pickles_have_predictions_of_their_own(rng):
    network, X = random_network([20, 10, 3]), rng.standard_normal((1, 20))
    predictor = network.predictor()
    expected = predictor.predict_proba(X)
    size = len(pickle.dumps(fastnn.Network([20, 10, 3])))
    assert abs(len(pickle.dumps(network)) - size) < 200  # no buffers
    others = [copy.copy(network), copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    predictors = [pickle.loads(pickle.dumps(predictor)), copy.deepcopy(predictor), *(n.predictor() for n in others)]
    network.parameters = 0
    for other in (*others, *predictors):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
    assert not np.array_equal(predictor.predict_proba(X), expected)


def test_threads_share_a_predictor(rng):
    network = random_network([100, 50, 4], "gelu")
    predictor, X = network.predictor(), rng.standard_normal((64, 100))
    expected, wrong = network.predict_proba(X), []

    def serve(seed):
        for i in np.random.default_rng(seed).integers(0, 60, 300):
            n = 1 + i % 4
            if not np.array_equal(predictor.predict_proba(X[i : i + n]), expected[i : i + n]):
                wrong.append(i)

    interval = sys.getswitchinterval()
    threads = [threading.Thread(target=serve, args=(seed,)) for seed in range(8)]
    try:
        sys.setswitchinterval(1e-5)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_runs_leave_the_number_of_blas_threads(rng):
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def numbers():
        return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]

    before = numbers()
    with kernel_run, kernel_run:
        assert 1 in numbers()
    assert numbers() == before


KINDS = ["MLPClassifier", "SoftmaxClassifier"]


@parametrize_pairs({"n_classes": [2, 3], "dtype": ["float32", "float64"], "kind": KINDS})
def test_estimators_predict_single_rows_as_batches(rng, n_classes, dtype, kind):
    from fastnn import sklearn

    X, y = rng.standard_normal((60, 5)).astype(dtype), np.array(["a", "b", "c"])[np.arange(60) % n_classes]
    model = getattr(sklearn, kind)(max_iter=3, tol=0, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    for method in (model.predict, model.predict_proba):
        expected = method(X)
        for i in (0, 7, 59):
            np.testing.assert_array_equal(method(X[i : i + 1]), expected[i : i + 1])
            np.testing.assert_array_equal(method(X[i : i + 1].tolist()), expected[i : i + 1])


def test_estimators_check_single_rows_as_scikit_learn_does(rng):
    from sklearn.neural_network import MLPClassifier

    from fastnn import sklearn

    pandas = pytest.importorskip("pandas")
    X, y = rng.standard_normal((60, 5)), np.arange(60) % 2
    ours, theirs = (kind(max_iter=3, random_state=0) for kind in (sklearn.MLPClassifier, MLPClassifier))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model in (ours, theirs):
            model.fit(X, y)
    hostile = [np.full((1, 5), np.nan), np.zeros((1, 4)), np.zeros(5), np.zeros((0, 5)), np.zeros((1, 5), complex)]
    for rows in hostile:
        with pytest.raises(ValueError, match=r".") as error:
            ours.predict(rows)
        with pytest.raises(ValueError, match=r".") as expected:
            theirs.predict(rows)
        assert np.isnan(rows).any() or str(error.value) == str(expected.value)
    names = pandas.DataFrame(X, columns=list("abcde"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours.fit(names, y)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        ours.predict(X[:1])
    with pytest.raises(ValueError, match="feature names"):
        ours.predict(names[["b", "a", "c", "d", "e"]][:1])


@parametrize_pairs(
    {
        "filters": [1, 3, 16, 20, 33],
        "others": [2, 6, 50],
        "size": [1, 3, (2, 4)],
        "stride": [1, (2, 1)],
        "padding": ["valid", "same"],
        "channels": [1, 3],
        "pooling": [None, MaxPool2D(2), AveragePool2D(2, 1), MaxPool2D((1, 3))],
        "activation": ["relu", "gelu", "tanh"],
        "dtype": ["float32", "float64"],
    }
)
def test_an_image_has_the_bits_of_its_batch(
    rng, filters, others, size, stride, padding, channels, pooling, activation, dtype
):
    last = [Conv2D(others, 2, padding="same"), GlobalAveragePool2D(), Dense(5), Dense(3)]
    layers = [Conv2D(filters, size, stride, padding), *([pooling] if pooling else []), *last]
    network = fastnn.Network(layers, activation, dtype, input_shape=(11, 10, channels))
    network.biases = [rng.normal(size=bias.shape) for bias in network.biases]
    X = rng.normal(size=(37, 11, 10, channels)).astype(dtype)
    for call in calls_of(network):
        expected = call(X)
        for first, n in ((0, 1), (1, 2), (3, 4), (7, 5)):
            np.testing.assert_array_equal(call(X[first : first + n]), expected[first : first + n])
            np.testing.assert_array_equal(call(X[first : first + n].reshape(n, -1)), expected[first : first + n])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_image_of_a_small_network_has_the_bits_of_its_batch(rng, dtype):
    # With fewer parameters than numbers in a vector; with pooling first.
    for layers, shape in (([Conv2D(1, 1), Dense(1)], (1, 1, 1)), ([MaxPool2D(2), Dense(3)], (5, 6, 3))):
        network = fastnn.Network(layers, "tanh", dtype, loss="squared", input_shape=shape)
        X = rng.normal(size=(37, *shape)).astype(dtype)
        np.testing.assert_array_equal(network.predict(X[:1]), network.predict(X)[:1])
        wrong = X[:1].reshape(1, 1, *X.shape[1:])
        with pytest.raises(ValueError, match="X must have shape"):
            network.predictor().predict(wrong)
