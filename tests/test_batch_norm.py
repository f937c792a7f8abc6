"""Batch normalisation through the public interface; PyTorch's word on it is in test_optimizers.py."""

import copy
import itertools
import json
import pickle

import numpy as np
import pytest
import safetensors.numpy
from levels import levels_of, one_each
from pairs import parametrize_pairs
from scipy import sparse

import fastnn
from fastnn import export
from fastnn.callbacks import Callback, Checkpoint, EarlyStopping
from fastnn.kernels.activations import ACTIVATIONS, inplace_activation
from fastnn.kernels.losses import LOSSES


def draw(rng, loss="cross_entropy", n=30, n_in=5, n_out=3):
    X = rng.standard_normal((n, n_in))
    y = rng.integers(0, n_out, n) if loss == "cross_entropy" else one_each(loss, rng.random((n, n_out)))
    return X, y, rng.random(n) + 0.1


def random_network(sizes=(5, 4, 6, 3), activation="tanh", dtype="float64", loss="cross_entropy"):
    network = fastnn.Network(
        list(sizes), activation, dtype, loss=loss, batch_norm=True, quantiles=levels_of(loss, sizes[-1])
    )
    generator = np.random.default_rng(1)
    for biases in network.biases:
        biases[:] = generator.standard_normal(len(biases))
    for scales, means, variances in zip(network.scales, network.means, network.variances, strict=True):
        scales[:], means[:] = generator.random(len(scales)) + 0.5, generator.standard_normal(len(scales))
        variances[:] = generator.random(len(scales)) + 0.1
    return network


def last_hidden(network, X, statistics):
    """Outputs of the last hidden layer by the formula; statistics(k, Z) gives the mean and variance of layer k."""
    A = X
    for k, scale in enumerate(network.scales):
        Z = A @ network.weights[k]
        mean, variance = statistics(k, Z)
        A = scale * (Z - mean) / np.sqrt(variance + 1e-5) + network.biases[k]
        inplace_activation(ACTIVATIONS[network.activation[k]], A)
    return A


def of_last_layer(network):
    """The output layer alone, which has no normalisation."""
    last = fastnn.Network(network.sizes[-2:], loss=network.loss, quantiles=network.quantiles)
    last.weights, last.biases = network.weights[-1:], network.biases[-1:]
    return last


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_gradient_of_every_pair_by_central_differences(rng, loss, activation):
    X, y, weights = draw(rng, loss)
    network = random_network(activation=[activation, "tanh"], loss=loss)
    before = network.parameters.copy()

    def log_likelihood():
        A = last_hidden(network, X, lambda _, Z: (Z.mean(axis=0), Z.var(axis=0)))  # rows count alike
        return of_last_layer(network).log_likelihood(A, y, weights)

    gradient = network.gradient(X, y, weights)
    np.testing.assert_array_equal(network.parameters, before)
    for arrays, found in zip((network.weights, network.biases, network.scales), gradient, strict=True):
        for array, slopes in zip(arrays, found, strict=True):
            for index in np.ndindex(array.shape):
                values = []
                for step in (1e-6, -2e-6):
                    array[index] += step
                    values.append(log_likelihood())
                array[index] += 1e-6
                assert slopes[index] == pytest.approx((values[0] - values[1]) / 2e-6, abs=3e-8)


def test_predictions_use_the_running_statistics(rng, dtype, assert_close):
    X, y, _ = draw(rng, n=600)
    network = random_network(activation=["relu", "gelu"], dtype=dtype)
    double = random_network(activation=["relu", "gelu"])
    double.parameters = network.parameters
    A = last_hidden(double, X, lambda k, _: (double.means[k], double.variances[k]))
    expected = of_last_layer(double).predict_proba(A)
    for rows in (X, sparse.csr_array(X)):
        assert_close(network.predict_proba(rows), expected, 20)
    assert network.log_likelihood(X, y) == pytest.approx(np.log(expected[np.arange(600), y]).mean(), rel=1e-5)
    assert network.error(X, y) == np.mean(network.predict(X) != y)
    assert network.confusion_matrix(X, y).trace() == round(600 * (1 - network.error(X, y)))
    assert network.predict_proba(X[:0]).shape == (0, 3)


ROWS = {
    "dense": lambda X: X,
    "sparse": sparse.csr_array,
    "uint8": lambda X: (256 * X).astype("uint8"),
    "float32": lambda X: X.astype("float32"),
}

# (inputs, hidden units), batch size, rows: by slices or not, several tiles of units, several products of PRODUCT_ROWS
PROBLEMS = {
    "small": ((7, 5, 4), 20, 81),  # the last batch is a single row
    "wide": ((100, 210, 70), 50, 120),
    "tall": ((90, 70), 1100, 2300),
    "all rows": ((20, 40), None, 700),
}


def trained(stored, problem, optimizer=None, dtype="float64", shuffle=True, **options):
    widths, batch_size, n = PROBLEMS[problem]
    generator = np.random.default_rng(3)
    X = generator.integers(0, 256, (n, widths[0])) * (generator.random((n, widths[0])) < 0.3) / 256
    network = fastnn.Network([*widths, 3], "relu", dtype, batch_norm=True)
    optimizer = optimizer or fastnn.SGD(0.1)
    trainer = fastnn.Trainer(network, optimizer, batch_size, shuffle=shuffle, sparse=False, **options)
    trainer.fit(ROWS[stored](X), generator.integers(0, 3, n), epochs=2)
    return network.parameters


@parametrize_pairs(
    {
        "stored": ROWS,
        "problem": PROBLEMS,
        "optimizer, shuffle": [(fastnn.SGD(0.1), False), (fastnn.Adam(0.01), True)],
        "dtype": ["float32", "float64"],
    }
)
def test_same_bits_on_any_number_of_threads(stored, problem, optimizer, shuffle, dtype):
    options = {"l2": 1e-3, "dropout": 0.2, "max_norm": 2.0}
    expected = trained(stored, problem, optimizer, dtype, shuffle, n_threads=1, **options)
    for n_threads in (2, 3, 4):
        found = trained(stored, problem, optimizer, dtype, shuffle, n_threads=n_threads, **options)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_may_be_stored_in_any_way(problem, shuffle):
    expected = trained("dense", problem, shuffle=shuffle)
    for stored in ("sparse", "uint8", "float32"):  # values are multiples of 1/256, exact in each
        np.testing.assert_allclose(trained(stored, problem, shuffle=shuffle), expected, rtol=0, atol=1e-10)


def test_training_in_single_precision_follows_double():
    expected = trained("dense", "wide")
    np.testing.assert_allclose(trained("dense", "wide", dtype="float32"), expected, rtol=0, atol=1e-3)


def test_running_statistics(rng):
    X, y, weights = draw(rng, n=21)
    network = fastnn.Network([5, 4, 3], batch_norm=True)
    means, variances = np.zeros(4), np.ones(4)
    trainer = fastnn.Trainer(network, batch_size=None, shuffle=False)
    for rows in (slice(0, 12), slice(12, 21), slice(0, 1), slice(2, 4)):
        Z = X[rows] @ network.weights[0]
        trainer.fit(X[rows], y[rows], epochs=1, sample_weight=weights[rows])
        if len(Z) > 1:
            means, variances = 0.9 * means + 0.1 * Z.mean(axis=0), 0.9 * variances + 0.1 * Z.var(axis=0, ddof=1)
        np.testing.assert_allclose(network.means[0], means, rtol=1e-12)
        np.testing.assert_allclose(network.variances[0], variances, rtol=1e-12)


def test_a_batch_of_one_row_knows_the_biases_only(rng):
    network = random_network([5, 4, 3])
    X, y, _ = draw(rng, n=1)
    dweights, dbiases, dscales = network.gradient(X, y)
    np.testing.assert_array_equal(dweights[0], 0)
    np.testing.assert_array_equal(dscales[0], 0)
    A = np.tanh(network.biases[0])[None]
    expected = of_last_layer(network).gradient(A, y)
    np.testing.assert_allclose(dweights[1], expected[0][0], rtol=1e-12)
    np.testing.assert_allclose(dbiases[1], expected[1][0], rtol=1e-12)


@pytest.mark.parametrize("n", [40, 1300])
def test_gradient_is_the_same_for_rows_stored_in_any_way(rng, n):
    X, y, weights = draw(rng, n=n, n_in=90)
    X = np.round(256 * np.abs(X).clip(0, 0.99)) / 256
    network = random_network([90, 70, 40, 3])
    expected = np.concatenate([part.ravel() for kind in network.gradient(X, y, weights) for part in kind])
    for stored in ("sparse", "uint8", "float32"):
        found = network.gradient(ROWS[stored](X), y, weights)
        found = np.concatenate([part.ravel() for kind in found for part in kind])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_a_shift_and_a_factor_before_the_normalisation_change_nothing(rng):
    X, y, _ = draw(rng, n=100)
    networks = [fastnn.Network([5, 20, 3], batch_norm=True) for _ in range(2)]
    networks[1].weights[0] *= 100.0
    gradients = [network.gradient(rows, y) for network, rows in zip(networks, (X, X + 5.0), strict=True)]
    np.testing.assert_allclose(gradients[0][2][0], gradients[1][2][0], rtol=0, atol=1e-6)  # but for epsilon
    np.testing.assert_allclose(gradients[0][0][0], 100 * gradients[1][0][0], rtol=0, atol=1e-5)


def test_without_hidden_layers_there_is_nothing_to_normalise(rng, tmp_path):
    X, y, _ = draw(rng)
    networks = [fastnn.Network([5, 3], batch_norm=batch_norm) for batch_norm in (False, True)]
    for network in networks:
        fastnn.Trainer(network, batch_size=7).fit(X, y, epochs=2)
    np.testing.assert_array_equal(networks[0].parameters, networks[1].parameters)
    assert networks[1].scales == networks[1].gradient(X, y)[2] == []
    networks[1].save(tmp_path / "net.safetensors")
    assert fastnn.Network.load(tmp_path / "net.safetensors").batch_norm


def test_small_inputs_are_learnt_from(rng):
    X = 0.03 * rng.standard_normal((1000, 6))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    errors = []
    for batch_norm in (False, True):
        network = fastnn.Network([6, 20, 2], batch_norm=batch_norm)
        fastnn.Trainer(network, fastnn.SGD(0.5), 50).fit(X, y, epochs=20)
        errors.append(network.error(X, y))
    assert errors[1] < 0.15 < 0.4 < errors[0]


def test_chunks_are_trained_on_in_turn(rng):
    X, y, weights = draw(rng, n=90)
    networks = [fastnn.Network([5, 4, 3], batch_norm=True) for _ in range(2)]
    options = {"batch_size": 15, "shuffle": False}
    fastnn.Trainer(networks[0], **options).fit(X, y, epochs=3, sample_weight=weights)
    chunks = [(X[k : k + 30], y[k : k + 30], weights[k : k + 30]) for k in range(0, 90, 30)]
    fastnn.Trainer(networks[1], **options).fit(chunks, epochs=3)
    np.testing.assert_allclose(networks[0].parameters, networks[1].parameters, rtol=0, atol=1e-13)


class Seen(Callback):
    """Keeps the parameters after each epoch."""

    def on_start(self, fit):
        self.parameters = []

    def on_epoch(self, fit):
        self.parameters.append(fit.trainer.network.parameters.copy())


@pytest.mark.parametrize("n_in", [5, 80])
def test_divergence_brings_the_running_statistics_back(rng, n_in):
    X, y, _ = draw(rng, "squared", 60, n_in)
    network, seen = fastnn.Network([n_in, 4, 3], "relu", loss="squared", batch_norm=True), Seen()
    trainer = fastnn.Trainer(network, fastnn.SGD(0.1), 20, callbacks=[seen])
    trainer.fit(X, y, epochs=1)
    trainer.optimizer = fastnn.SGD(1e200)
    with pytest.raises(fastnn.DivergenceError):
        trainer.fit(X, y, epochs=5)
    good = seen.parameters[-1] if seen.parameters else network.parameters
    assert np.isfinite(network.parameters).all()
    np.testing.assert_array_equal(network.parameters, good)


def test_early_stopping_puts_the_best_statistics_back(rng):
    X, y, _ = draw(rng, n=120)
    network, seen, stopping = fastnn.Network([5, 30, 3], batch_norm=True), Seen(), EarlyStopping(patience=3)
    trainer = fastnn.Trainer(network, fastnn.SGD(0.5, 0.9), 20, callbacks=[seen, stopping])
    trainer.fit(X[:80], y[:80], epochs=200, validation=(X[80:], y[80:]))
    assert stopping.best_epoch < len(seen.parameters) < 200
    np.testing.assert_array_equal(network.parameters, seen.parameters[stopping.best_epoch - 1])


@pytest.mark.parametrize("stored", ["dense", "sparse"])
def test_resuming_within_an_epoch_gives_the_same_bits(rng, tmp_path, monkeypatch, stored):
    monkeypatch.setattr("fastnn.tuning.CHUNK_SECONDS", 1e-5)  # many in an epoch
    X, y, _ = draw(rng, n=4000, n_in=70)
    X = ROWS[stored](X)
    path = tmp_path / "checkpoint"

    class Crash(Callback):
        calls = 0

        def on_chunk(self, fit):
            self.calls += len(fit.history) == 1 and fit.rows_done > 0
            if self.calls == 3:  # checkpoints are written after other callbacks: there are two
                raise RuntimeError("the power failed")

    def fit(*more):
        network = fastnn.Network([70, 40, 3], batch_norm=True)
        callbacks = [Checkpoint(path, seconds=0), *more]
        trainer = fastnn.Trainer(network, fastnn.Adam(0.01), 20, callbacks=callbacks, dropout=0.1)
        trainer.fit(X, y, epochs=3, resume=path)
        return network.parameters

    with pytest.raises(RuntimeError):
        fit(Crash())
    assert "epoch.parameters" in safetensors.numpy.load_file(path)
    resumed = fit()
    path.unlink()
    np.testing.assert_array_equal(resumed, fit())
    with pytest.raises(ValueError, match=r'was written with network="Network\(.*batch_norm=True\)"'):
        fastnn.Trainer(fastnn.Network([70, 40, 3]), fastnn.Adam(0.01), 20, dropout=0.1).fit(X, y, resume=path)


def test_copies_and_files(rng, dtype, tmp_path):
    X, _, _ = draw(rng)
    network = random_network(dtype=dtype)
    path = tmp_path / "net.safetensors"
    network.save(path)
    for other in (fastnn.Network.load(path), copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert repr(other) == repr(network)
        np.testing.assert_array_equal(other.parameters, network.parameters)
        np.testing.assert_array_equal(other.predict_proba(X), network.predict_proba(X))
        other.scales[0] = np.zeros(4)  # views of its own parameters
        assert not np.array_equal(other.parameters, network.parameters)
    tensors = safetensors.numpy.load_file(path)
    assert set(tensors) == {
        *(f"layers.{k}.{name}" for k in range(3) for name in ("weight", "bias")),
        *(f"layers.{k}.{name}" for k in range(2) for name in ("scale", "mean", "variance")),
    }
    np.testing.assert_array_equal(tensors["layers.1.variance"], network.variances[1])


ARCHITECTURE = {"format": 1, "sizes": [2, 3, 2], "activation": ["tanh"], "dtype": "float32", "batch_norm": True}


@pytest.mark.parametrize(
    ("changes", "architecture", "message"),
    [
        ({"layers.0.variance": np.full(3, -1, "f4")}, {}, "holds a negative variance"),
        ({"layers.0.variance": np.full(3, np.nan, "f4")}, {}, "holds NaN or infinity"),
        ({"layers.0.scale": np.ones(2, "f4")}, {}, r"layers.0.scale should be float32 of shape \(3,\)"),
        ({"layers.0.mean": np.ones(3, "f8")}, {}, "layers.0.mean should be float32"),
        ({"layers.1.scale": np.ones(2, "f4")}, {}, "its tensors are not those"),
        ({}, {"batch_norm": False}, "its tensors are not those"),
        ({}, {"batch_norm": "yes"}, "batch_norm must be one of False, True"),
        ({}, {"batch_norm": [1]}, "batch_norm must be one of False, True"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path, changes, architecture, message):
    path = tmp_path / "net.safetensors"
    tensors = {"layers.0.weight": np.ones((2, 3), "f4"), "layers.1.weight": np.ones((3, 2), "f4")}
    tensors |= {f"layers.0.{name}": np.ones(3, "f4") for name in ("bias", "scale", "mean", "variance")}
    tensors |= {"layers.1.bias": np.ones(2, "f4")}
    for change, other, fine in (({}, {}, True), (changes, architecture, False)):
        metadata = {"fastnn": json.dumps(ARCHITECTURE | other)}
        path.write_bytes(safetensors.numpy.save(tensors | change, metadata))
        if fine:
            fastnn.Network.load(path)
        else:
            with pytest.raises(ValueError, match=rf"net\.safetensors is not a usable fastnn network.*{message}"):
                fastnn.Network.load(path)


@parametrize_pairs({"activation": ACTIVATIONS, "loss": ["cross_entropy", "squared"], "dtype": ["float32", "float64"]})
def test_onnxruntime_says_the_same(rng, dtype, assert_close, activation, loss):
    pytest.importorskip("onnx")
    import onnxruntime

    network = random_network(activation=activation, dtype=dtype, loss=loss)
    X = rng.standard_normal((31, 5)).astype(dtype)
    model = export.to_onnx(network).SerializeToString()
    found, *_ = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"X": X})
    expected = network.predict_proba(X) if loss == "cross_entropy" else network.predict(X)
    assert_close(found, expected, 10)  # both compute with the same folded weights


def test_what_a_network_shows():
    network = fastnn.Network([4, 3, 2], batch_norm=True)
    assert repr(network) == "Network([4, 3, 2], activation='tanh', dtype='float64', batch_norm=True)"
    assert [array.shape for array in itertools.chain(network.scales, network.means, network.variances)] == [(3,)] * 3
    np.testing.assert_array_equal(network.scales[0], 1)
    np.testing.assert_array_equal(network.means[0], 0)
    np.testing.assert_array_equal(network.variances[0], 1)
    network.scales, network.means, network.variances = [[2, 3, 4]], [[5, 6, 7]], [[8, 9, 0]]
    np.testing.assert_array_equal(network.parameters[-9:], [*range(2, 10), 0])
    plain = fastnn.Network([4, 3, 2])
    assert plain.scales == plain.means == plain.variances == []
    assert len(plain.gradient(np.zeros((1, 4)), [0])) == 2
    np.testing.assert_array_equal(plain.weights[0], network.weights[0])


def test_mistakes_are_named(rng):
    X, y, _ = draw(rng)
    network = fastnn.Network([5, 4, 3], batch_norm=True)
    with pytest.raises(ValueError, match="LBFGS does not train a network with batch_norm=True"):
        fastnn.Trainer(network, fastnn.LBFGS()).fit(X, y)
    with pytest.raises(ValueError, match="an array of variances must be at least 0"):
        network.variances[0] = [1, 1, -1, 1]
    with pytest.raises(ValueError, match="an array of scales must keep its shape"):
        network.scales[0] = [1]
    for wrong in (1, "yes", None):
        with pytest.raises(ValueError, match="batch_norm must be one of False, True"):
            fastnn.Network([5, 4, 3], batch_norm=wrong)


@pytest.mark.parametrize("optimizer", [fastnn.SGD(0.1), fastnn.Adam()])
def test_without_hidden_layers_large_batches_of_sparse_rows_are_not_normalised(rng, optimizer):
    # Large batches of sparse rows in order, which ended in a segmentation fault.
    X, y = rng.random((512, 3)), rng.integers(0, 3, 512)
    found = []
    for batch_norm in (False, True):
        network = fastnn.Network([3, 3], batch_norm=batch_norm)
        fastnn.Trainer(network, optimizer, sparse=True, shuffle=False).fit(X, y, epochs=3)
        found.append(network.parameters)
    np.testing.assert_array_equal(*found)
