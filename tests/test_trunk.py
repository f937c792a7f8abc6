"""Networks on images: gradients by central differences; the same bits on any number of threads, in any row blocks."""

import numpy as np
import pytest
from pairs import parametrize_pairs

import fastnn
from fastnn import reference, tuning
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.layers import AveragePool2D, Conv2D, Dense, GlobalAveragePool2D, MaxPool2D
from fastnn.plan import Method

POOLS = {"": [], "max": [MaxPool2D(2)], "overlapping": [MaxPool2D((3, 2), 1)], "mean": [AveragePool2D((2, 1))],
         "global": [GlobalAveragePool2D()]}  # fmt: skip


def value_and_gradient(network, X, y):
    """The mean log-likelihood of training, by the batch's own statistics, and its gradient by all parameters."""
    rows, targets = network.check_data(X, y)
    engine = network.engine(2)
    engine.begin(rows, engine.plan(rows, Method(len(y))))
    gradient = engine.gradient(targets, Steps(UPDATES["none"], np.zeros((1, 3))))
    return engine.log_likelihood / len(y), gradient


def assert_slopes(network, X, y, rng):
    """The gradient by each array, with central differences in two directions in which all its numbers change."""
    _, gradient = value_and_gradient(network, X, y)
    for slot, place in zip(network.slots, network.slots.places.values(), strict=True):
        before = network.parameters[place].copy()
        for _ in range(2):
            direction = rng.standard_normal(before.size)
            values = []
            for step in (1e-6, -1e-6):
                network.parameters[place] = before + step * direction
                values.append(value_and_gradient(network, X, y)[0])
            network.parameters[place] = before
            slope = (values[0] - values[1]) / 2e-6
            assert gradient[place] @ direction == pytest.approx(slope, rel=1e-6, abs=1e-7), slot


# The first layer has a weight from each channel to each: so its gradient is that by the second layer's input.
@parametrize_pairs(
    {
        "image": [(1, 1), (6, 7), (9, 8)],
        "size": [1, (2, 3), 3, (5, 4)],
        "stride": [1, (2, 1), 3],
        "padding": ["valid", "same"],
        "channels": [1, 3, 16, 20],
        "filters": [1, 5, 16],
        "pooling": list(POOLS),
        "activation": ["tanh", "gelu", "relu"],
        "batch_norm": [False, True],
        "n": [2, 5, 17],
    }
)
def test_gradients(rng, image, size, stride, padding, channels, filters, pooling, activation, batch_norm, n):
    convolution = Conv2D(filters, size, stride, padding)
    try:
        layers = [Conv2D(channels, 1, activation="identity"), convolution, *POOLS[pooling], Dense(3)]
        options = {"input_shape": (*image, channels), "activation": activation, "batch_norm": batch_norm}
        network = fastnn.Network(layers, **options)
    except ValueError:  # a window that is larger than its image
        layers[1:-1] = [Conv2D(filters, size, stride, "same")]
        network = fastnn.Network(layers, **options)
    network.parameters = network.parameters + 0.1 * rng.random(network.parameters.shape)
    X, y = rng.standard_normal((n, *image, channels)), rng.integers(0, 3, n)
    assert_slopes(network, X, y, rng)
    single = fastnn.Network(layers, dtype="float32", **options)
    single.parameters = network.parameters
    network.parameters = single.parameters
    (value, gradient), (expected, exact) = (value_and_gradient(net, X, y) for net in (single, network))
    assert value == pytest.approx(expected, rel=1e-5)
    scale = np.abs(exact).max()
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=(2e-3 if batch_norm else 2e-5) * scale)


@pytest.mark.parametrize("layers", [
    [Conv2D(4, 3, activation="relu"), MaxPool2D(2), Conv2D(6, 3, padding="same", batch_norm=True), MaxPool2D(2, 1),
     Dense(9), Dense(3)],
    [MaxPool2D((1, 3)), Conv2D(3, (4, 2), (1, 2), "same", "silu"), AveragePool2D(2), Conv2D(2, 1, batch_norm=True),
     Dense(5, batch_norm=True), Dense(3)],
    [AveragePool2D(2), MaxPool2D(2), GlobalAveragePool2D(), Dense(3)],
])  # fmt: skip
def test_gradients_of_deep_networks(rng, layers):
    network = fastnn.Network(layers, input_shape=(11, 10, 2))
    assert_slopes(network, rng.standard_normal((19, 11, 10, 2)), rng.integers(0, 3, 19), rng)


def cut(monkeypatch, shard_rows, block_rows):
    """Have shards of so many images, at least, and row blocks of so many, at most."""
    constants = {"SHARD_IMAGES": shard_rows, "IMAGE_SHARD_PRODUCT": 0, "IMAGE_SHARD_PRODUCTS": 0}
    for name, value in (constants | {"IMAGE_ROWS": block_rows}).items():
        monkeypatch.setattr(tuning, name, value)


@pytest.mark.parametrize("block_rows", [16, 48])
def test_gradients_of_shards(rng, monkeypatch, block_rows):
    cut(monkeypatch, 24, block_rows)
    network = fastnn.Network([Conv2D(4, 3), MaxPool2D(2), Conv2D(3, 2), Dense(9), Dense(3)], input_shape=(7, 6, 2))
    assert_slopes(network, rng.standard_normal((101, 7, 6, 2)), rng.integers(0, 3, 101), rng)


TRUNKS = {
    "plain": [Conv2D(5, 3), MaxPool2D(2), Conv2D(7, (2, 3), padding="same")],
    "normalised": [Conv2D(5, 3, batch_norm=True), MaxPool2D(2, 1), Conv2D(6, 2, 2, "same", batch_norm=True)],
    "dropped": [Conv2D(5, 3, dropout=0.3), AveragePool2D((2, 3)), Conv2D(2, 1, dropout=0.2)],
}


def trained(layers, dtype, batch_size, n_threads, n=101):
    """What two epochs come to: parameters, optimizer's state, history, and predictions."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (n, 9, 8, 2), np.uint8), rng.integers(0, 3, n)
    network = fastnn.Network([*layers, Dense(20), Dense(3)], input_shape=(9, 8, 2), dtype=dtype)
    trainer = fastnn.Trainer(network, fastnn.SGD(0.1, 0.9), batch_size, n_threads=n_threads, l2=0.01)
    history = trainer.fit(X, y, epochs=2)
    found = network.parameters, trainer._state.optimizer, history.log_likelihood, history.objective
    return [np.array(array) for array in (*found, network.predict_proba(X, n_threads=n_threads))]


# One shard in several row blocks, several shards in one, several of several.
@parametrize_pairs(
    {"trunk": list(TRUNKS), "batch_size": [1, 15, 33, 101], "rows": [(200, 48), (16, 48), (40, 16)]},
)
def test_the_bits_do_not_depend_on_threads_and_clock(dtype, trunk, batch_size, rows, monkeypatch):
    monkeypatch.setattr(tuning, "SMALL_RUN", 0)
    monkeypatch.setattr(tuning, "UNITS_PRODUCT", 1)  # threads share the dense layers, too
    cut(monkeypatch, *rows)
    expected = trained(TRUNKS[trunk], dtype, batch_size, 1)
    for n_threads, seconds in ((2, 0.05), (3, 0), (5, 0.05), (1, 0)):
        monkeypatch.setattr(tuning, "CHUNK_SECONDS", seconds)  # 0: each run of the kernels ends after a row block
        for found, array in zip(trained(TRUNKS[trunk], dtype, batch_size, n_threads), expected, strict=True):
            np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("trunk", ["plain", "dropped"])
def test_shards_change_the_rounding_only(dtype, assert_close, trunk, monkeypatch):
    expected = trained(TRUNKS[trunk], dtype, 101, 1)
    cut(monkeypatch, 16, 48)  # four shards, two of them in a row block
    for found, array in zip(trained(TRUNKS[trunk], dtype, 101, 2), expected, strict=True):
        assert_close(found, array, 30)


@pytest.mark.parametrize("trunk", ["plain", "dropped"])
def test_row_blocks_and_bands_change_the_rounding_only(dtype, assert_close, trunk, monkeypatch):
    expected = trained(TRUNKS[trunk], dtype, 101, 1)
    monkeypatch.setattr(tuning, "IMAGE_ROWS", 32)
    monkeypatch.setattr(tuning, "MAPS_BYTES", 1)
    for found, array in zip(trained(TRUNKS[trunk], dtype, 101, 2), expected, strict=True):
        assert_close(found, array, 30)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pooling", [[], [MaxPool2D(2)]])
def test_dropout_drops_what_the_twin_drops(monkeypatch, rng, dtype, pooling):
    layers = [Conv2D(3, 3, padding="same", dropout=0.4), *pooling, Conv2D(5, 2, dropout=0.2), Dense(3)]
    X, y = rng.normal(size=(37, 6, 5, 2)).astype(dtype), rng.integers(3, size=37)
    found = []
    for twin in (False, True):
        if twin:
            monkeypatch.setattr("fastnn.engine.local.epoch.train", reference.train)
        network = fastnn.Network(layers, "relu", dtype, input_shape=(6, 5, 2))
        fastnn.Trainer(network, fastnn.SGD(0.1), batch_size=20, seed=3).fit(X, y, epochs=2)
        found.append(network.parameters)
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(found[0], found[1], tolerance, tolerance)
