"""Whole trainings against the genuine Theano 1.0.5, and the tutorial's published numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
from pairs import parametrize_pairs

import fastnn
from fastnn import tutorial

# float64 leaves Theano's own summation order, 1e-11.  float32 has 2e-7 a rounding, in sums of hundreds of
# terms, over up to 200 steps that each build on the last.
GOLDEN_TOLERANCES = {"float64": 1e-9, "float32": 1e-5}


# Runs of Theano 1.0.5; see tests/golden/README.md.
CASES = {path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "golden").glob("*.json"))}


def begin(case, dtype="float64"):
    """Return the network of a case, started as the case says."""
    network = fastnn.Network(case["sizes"], case["activation"], dtype)
    generator = np.random.RandomState(case["seed"])
    last = len(network.weights) - 1
    for k, weight in enumerate(network.weights):
        scale = 0.01 if case["init"].startswith("W of the last layer 0") else np.sqrt(1 / weight.shape[0])
        if k < last or scale != 0.01:
            network.weights[k] = scale * generator.randn(*weight.shape)
        else:
            network.weights[k] = np.zeros(weight.shape)
    return network


@parametrize_pairs(
    {
        "name": CASES,
        "stored, n_threads": [("float64", 1), ("float64", 2), ("float64", 3), ("float64", 4), ("uint8", 2)],
        "sparse": [False, True],
        "dtype": ["float32", "float64"],
    }
)
def test_golden_run(mnist, name, dtype, sparse, n_threads, stored):
    golden = CASES[name]
    train, _, test = mnist
    X = train.X[: golden["n"]]
    X = (X * 256).astype(np.uint8) if stored == "uint8" else X
    network = begin(golden, dtype)
    trainer = fastnn.Trainer(
        network,
        fastnn.SGD(golden["learning_rate"]),
        batch_size=golden["batch"],
        shuffle=False,
        n_threads=n_threads,
        sparse=sparse,
    )
    tolerance = GOLDEN_TOLERANCES[dtype]
    steps_an_epoch = golden["n"] // golden["batch"]
    history = trainer.fit(X, train.y[: golden["n"]], epochs=golden["steps"] // steps_an_epoch)
    expected = np.reshape(golden["log_likelihood"], (-1, steps_an_epoch)).mean(axis=1)
    np.testing.assert_allclose(history.log_likelihood, expected, rtol=0, atol=tolerance)
    error = 100 * network.error(test.X, test.y)
    assert error == pytest.approx(golden["test_error_percent"], abs=1e-9 if dtype == "float64" else 0.02)
    for k, layer in enumerate(golden["params"]):
        for array, digest in ((network.weights[k], layer["W"]), (network.biases[k], layer["b"])):
            flat = array.astype(float).ravel()
            assert list(array.shape) == digest["shape"]
            assert np.abs(flat).sum() == pytest.approx(digest["abs_sum"], rel=tolerance)
            assert (flat**2).sum() == pytest.approx(digest["sq_sum"], rel=tolerance)
            np.testing.assert_allclose(flat[:5], digest["first"], rtol=0, atol=10 * tolerance)
            np.testing.assert_allclose(flat[-5:], digest["last"], rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("name", CASES)
def test_golden_run_step_by_step(mnist, name):
    # Each step's log-likelihood before its update, not only an epoch's mean.
    golden = CASES[name]
    train, _, _ = mnist
    network = begin(golden)
    trainer = fastnn.Trainer(network, fastnn.SGD(golden["learning_rate"]))
    found = []
    for step in range(min(golden["steps"], 20)):
        first = step * golden["batch"] % golden["n"]
        batch = slice(first, first + golden["batch"])
        found += trainer.fit(train.X[batch], train.y[batch], epochs=1).log_likelihood
    np.testing.assert_allclose(found, golden["log_likelihood"][: len(found)], rtol=0, atol=1e-9)


def test_first_model_of_the_tutorial(mnist):
    published = [
        -2.3025850929940463,
        -1.8391209025064599,
        -1.5250543679632202,
        -1.3142440592188174,
        -1.1682410159224519,
        -1.0617673924666753,
        -0.9820455376704271,
        -0.9194230935951666,
        -0.8693948864384461,
        -0.8276885884406652,
    ]
    train, _, test = mnist
    model = tutorial.first_model(train, test)
    np.testing.assert_allclose(model.history.log_likelihood, published, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.published, published, rtol=0, atol=1e-15)
    assert round(10_000 * model.error) == 1512


def test_second_model_of_the_tutorial(mnist):
    case = CASES["mlp20_tutorial"]
    train, _, test = mnist
    model = tutorial.second_model(train, test)
    assert model.theano == case["log_likelihood"]
    np.testing.assert_allclose(model.history.log_likelihood, case["log_likelihood"], rtol=0, atol=1e-9)
    assert round(10_000 * model.error) == round(100 * case["test_error_percent"])
    assert len(model.published) == 60
