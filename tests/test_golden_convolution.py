"""Convolutional networks against PyTorch's trajectories and Theano's LeNet; see tests/golden/README.md."""

import json
from pathlib import Path

import numpy as np
import pytest
from pairs import parametrize_pairs

import fastnn

GOLDEN = Path(__file__).parent / "golden"
TRUTH = json.loads((GOLDEN / "convolution" / "trajectories.json").read_text())
CASES = TRUTH["cases"]
LENET = json.loads((GOLDEN / "lenet" / "lenet.json").read_text())

# float64 leaves the order of sums.  float32 has 1e-7 a rounding, over nine steps, and Adam, which divides by a
# gradient's size, passes its relative error on in full where the gradient itself is small.
TRAJECTORY_TOLERANCES = {"float64": 1e-9, "float32": 1e-5}

KINDS = {"SGD": fastnn.SGD, "Adam": fastnn.Adam}
OPTIMIZERS = {
    name: KINDS[kind](arguments["lr"], **{key: value for key, value in arguments.items() if key != "lr"})
    for name, (kind, arguments) in TRUTH["optimizers"].items()
}


def layer(kind, **arguments):
    """Return the record of a layer in the file."""
    pairs = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    return getattr(fastnn.layers, kind)(**pairs)


def begin(case, dtype="float64", batch_size=TRUTH["batch_size"], **options):
    """Return a trainer at the start of a case."""
    stored = TRUTH["networks"][case["network"]]
    network = fastnn.Network(
        [layer(**each) for each in stored["layers"]],
        stored["activation"],
        dtype,
        input_shape=tuple(TRUTH["images"][stored["images"]]["shape"]),
    )
    assert [list(weight.shape) for weight in network.weights] == stored["weights"]
    network.parameters = stored["first_parameters"]
    optimizer = OPTIMIZERS[case["optimizer"]]
    return fastnn.Trainer(network, optimizer, batch_size, shuffle=False, l2=case.get("l2", 0.0), **options)


def data(case, flat=False):
    """Return images, or flat rows, and classes."""
    stored = TRUTH["images"][TRUTH["networks"][case["network"]]["images"]]
    rows = np.array(stored["rows"]) / 64
    return (rows if flat else rows.reshape(-1, *stored["shape"])), np.array(TRUTH["y"])


def batches():
    n_rows, size = len(TRUTH["y"]), TRUTH["batch_size"]
    return [slice(first, min(first + size, n_rows)) for first in range(0, n_rows, size)]


def by_epoch(steps):
    """Mean over an epoch's rows of what is stored for each of its batches, for each epoch."""
    sizes = [batch.stop - batch.start for batch in batches()]
    return np.average(np.reshape(steps, (-1, len(sizes))), axis=1, weights=sizes)


@parametrize_pairs({"name": CASES, "n_threads": [1, 2, 3, 4], "flat": [False, True], "dtype": ["float32", "float64"]})
def test_trajectory(name, dtype, flat, n_threads):
    case, tolerance = CASES[name], TRAJECTORY_TOLERANCES[dtype]
    trainer = begin(case, dtype, n_threads=n_threads)
    history = trainer.fit(*data(case, flat), epochs=TRUTH["epochs"])
    np.testing.assert_allclose(history.log_likelihood, by_epoch(case["log_likelihood"]), rtol=0, atol=tolerance)
    np.testing.assert_allclose(history.objective, by_epoch(case["objective"]), rtol=0, atol=tolerance)
    np.testing.assert_allclose(trainer.network.parameters, case["parameters"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_trajectory_step_by_step(name):
    # A fit for each batch: the optimizer's state is kept, and each batch's log-likelihood and gradient are seen.
    case, tolerance = CASES[name], TRAJECTORY_TOLERANCES["float64"]
    trainer, (X, y) = begin(case, batch_size=None), data(case)
    found, lengths = [], []
    for batch in batches() * TRUTH["epochs"]:
        gradient = [array.ravel() for arrays in trainer.network.gradient(X[batch], y[batch]) for array in arrays]
        lengths.append(np.linalg.norm(np.concatenate(gradient)))
        found += trainer.fit(X[batch], y[batch], epochs=1).log_likelihood
    np.testing.assert_allclose(found, case["log_likelihood"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(lengths, case["gradient_norm"], rtol=tolerance)
    np.testing.assert_allclose(trainer.network.parameters, case["parameters"], rtol=0, atol=tolerance)


def begin_lenet(dtype="float64", batch_size=None, **options):
    """Return a trainer of LeNet with the weights that Theano began with."""
    Conv2D, MaxPool2D, Dense = fastnn.layers.Conv2D, fastnn.layers.MaxPool2D, fastnn.layers.Dense
    network = fastnn.Network(
        [Conv2D(20, 5), MaxPool2D(2), Conv2D(50, 5), MaxPool2D(2), Dense(500), Dense(10)],
        "tanh",
        dtype,
        input_shape=(28, 28, 1),
    )
    generator = np.random.RandomState(LENET["seed"])
    for weight, shape in zip(network.weights, LENET["weights"], strict=True):
        assert list(weight.shape) == shape
        weight[:] = np.sqrt(1 / np.prod(shape[:-1])) * generator.randn(*shape)
    return fastnn.Trainer(network, fastnn.SGD(LENET["learning_rate"]), batch_size, shuffle=False, **options)


def digest(array):
    """Return what the file tells of an array."""
    flat = array.ravel()
    sums = {"abs_sum": np.abs(flat).sum(), "sq_sum": (flat**2).sum()}
    return {"shape": array.shape, **sums, "first": flat[:5], "last": flat[-5:]}


def lenet_data(mnist, case):
    """Return the rows on which Theano trained, and their classes."""
    train, _, _ = mnist
    X, y = (array[: LENET["steps"] * LENET["batch"]] for array in train)
    if case == "with_noise":
        X = X + np.random.RandomState(LENET["noise_seed"]).rand(*X.shape) / 256
    return X, y


@parametrize_pairs(
    {
        "case, stored": [("plain", "float64"), ("plain", "uint8"), ("with_noise", "float64")],
        "n_threads": [1, 2, 3],
        "n_shards": [1, 2, 4],
    }
)
def test_lenet(mnist, case, stored, n_threads, n_shards, monkeypatch):
    monkeypatch.setattr("fastnn.tuning.SHARD_IMAGES", LENET["batch"] // n_shards)
    monkeypatch.setattr("fastnn.tuning.IMAGE_SHARD_PRODUCTS", 0)
    monkeypatch.setattr("fastnn.tuning.IMAGE_SHARD_PRODUCT", 0)
    (X, y), (_, _, test), expected = lenet_data(mnist, case), mnist, LENET["cases"][case]
    X = (X * 256).astype(np.uint8) if stored == "uint8" else X
    trainer = begin_lenet(batch_size=LENET["batch"], n_threads=n_threads)
    assert trainer.plan(X, y).n_shards == n_shards
    history = trainer.fit(X, y, epochs=1)
    assert history.log_likelihood == pytest.approx([np.mean(expected["log_likelihood"])], rel=1e-9)
    network, tested = trainer.network, slice(LENET["n_test"])
    assert 100 * network.error(test.X[tested], test.y[tested]) == pytest.approx(expected["test_error_percent"])
    for weight, bias, digests in zip(network.weights, network.biases, expected["params"], strict=True):
        for array, digested in ((weight, digests["W"]), (bias, digests["b"])):
            for key, value in digest(array).items():
                np.testing.assert_allclose(value, digested[key], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", LENET["cases"])
def test_lenet_step_by_step(mnist, case):
    X, y = lenet_data(mnist, case)
    trainer = begin_lenet()
    found = []
    for first in range(0, len(y), LENET["batch"]):
        batch = slice(first, first + LENET["batch"])
        found += trainer.fit(X[batch], y[batch], epochs=1).log_likelihood
    np.testing.assert_allclose(found, LENET["cases"][case]["log_likelihood"], rtol=1e-9)
