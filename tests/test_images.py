"""Networks on images: the twin against outside truth, what its layers become for a plan, and what X may be."""

import copy
import itertools
import json
import pickle

import numpy as np
import pytest
import safetensors.numpy
from numpy.lib.stride_tricks import sliding_window_view
from pairs import parametrize_pairs
from scipy import signal, sparse

import fastnn
from fastnn import _mapped, reference
from fastnn._mapped import stay_on_disk
from fastnn._validation import check_rows
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.kernels.losses import LOSSES, Targets
from fastnn.layers import AveragePool2D, Conv2D, Dense, Flatten, GlobalAveragePool2D, MaxPool2D
from fastnn.layout import Maps, Window
from fastnn.plan import choose_storage

LENET = [Conv2D(20, 5), MaxPool2D(2), Conv2D(50, 5), MaxPool2D(2), Dense(500), Dense(10)]


def random_network(layers, input_shape, **options):
    network = fastnn.Network(layers, input_shape=input_shape, **options)
    generator = np.random.default_rng(2)
    for array in itertools.chain(network.weights, network.biases, network.scales, network.means):
        array[:] = 0.4 * generator.standard_normal(array.shape)
    for array in network.variances:
        array[:] = 0.5 + generator.random(array.shape)
    return network


def twin(network, X, y, parameters, facts=None, **options):
    """Mean log-likelihood of rows by the twin, and what the forward pass left."""
    facts = facts or network.facts()
    passed = reference.forward_pass(X, facts, reference.unpack(facts, parameters), **options)
    Z = passed.outputs[-1]
    return reference.inplace_loss(Targets(LOSSES["cross_entropy"], y), Z, float(len(y))) / len(y), passed


def check_gradient(network, X, y, facts=None, **options):
    """The twin's gradient, against central differences by every number in the vector of parameters."""
    facts, parameters = facts or network.facts(), network.parameters.copy()
    _, passed = twin(network, X, y, parameters, facts, **options)
    gradient = np.zeros_like(parameters)
    layers, dlayers = (reference.unpack(facts, vector) for vector in (parameters, gradient))
    reference.backward_pass(passed, passed.outputs[-1], facts, layers, dlayers)
    expected = np.empty_like(gradient)
    for i, value in enumerate(parameters):
        sides = []
        for step in (1e-6, -1e-6):
            parameters[i] = value + step
            sides.append(twin(network, X, y, parameters, facts, **options)[0])
        parameters[i] = value
        expected[i] = (sides[0] - sides[1]) / 2e-6
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=5e-9)
    assert np.abs(gradient).max() > 1e-4


# --- the twin ---------------------------------------------------------------------------------------


@parametrize_pairs(
    {
        "height": [1, 4, 5],
        "width": [1, 5, 6],
        "channels": [1, 3],
        "kernel_size": [1, 3, (2, 4), 7],
        "stride": [1, 2, (3, 1)],
    }
)
def test_convolution_agrees_with_scipy(rng, height, width, channels, kernel_size, stride):
    layer = Conv2D(2, kernel_size, stride, "same", "identity")
    shape = (height, width, channels)
    facts = layer.facts(shape, 0.0)
    X, W = rng.standard_normal((3, *shape)), rng.standard_normal((*layer.kernel_size, channels, 2))
    found = reference.product(X.reshape(3, -1), facts, W.reshape(-1, 2)).reshape(3, *facts.maps.output)
    above, left, below, right = facts.maps.convolution.padding
    padded = np.pad(X, ((0, 0), (above, below), (left, right), (0, 0)))
    for i, k in itertools.product(range(3), range(2)):
        each = sum(signal.correlate(padded[i, ..., c], W[..., c, k], "valid", "direct") for c in range(channels))
        expected = each[:: layer.stride[0], :: layer.stride[1]]
        np.testing.assert_allclose(found[i, ..., k], expected, atol=1e-13)


@pytest.mark.parametrize("shape", [(5, 4, 3), (7, 6, 1)])
@pytest.mark.parametrize(("size", "stride"), [(1, None), (2, None), (3, 2), (3, (1, 2)), (2, 3), ((4, 1), 1)])
def test_pooling_agrees_with_windows_of_numpy(rng, shape, size, stride):
    X = rng.standard_normal((3, *shape))
    for layer, take in ((MaxPool2D(size, stride), np.max), (AveragePool2D(size, stride), np.mean)):
        maps = layer.facts(shape, 0.0).maps
        windows = sliding_window_view(X, layer.size, axis=(1, 2))[:, :: layer.stride[0], :: layer.stride[1]]
        expected = take(windows, axis=(4, 5))
        assert expected.shape[1:] == layer.output_shape(shape)
        pooled, _ = reference.pool(X.reshape(-1, shape[2]), maps)
        np.testing.assert_allclose(pooled.reshape(expected.shape), expected, atol=1e-15)
    maps = GlobalAveragePool2D().facts(shape, 0.0).maps
    np.testing.assert_allclose(reference.pool(X.reshape(-1, shape[2]), maps)[0], X.mean(axis=(1, 2)), atol=1e-15)


def test_the_first_of_equal_numbers_has_the_gradient():
    maps = MaxPool2D(2).facts((2, 5, 1), 0.0).maps
    Z = np.array([[1.0, 1, 0, 3, 9], [1, 1, 3, 3, 9]]).reshape(-1, 1)
    pooled, places = reference.pool(Z, maps)
    np.testing.assert_array_equal(pooled, [[1, 3]])
    found = reference.backprop_pool(np.array([[5.0, 7.0]]), places, maps).reshape(2, 5)
    np.testing.assert_array_equal(found, [[5, 0, 0, 7, 0], [0, 0, 0, 0, 0]])  # the last column fills no window


@parametrize_pairs(
    {
        "shape": [(6, 7, 1), (7, 8, 3)],
        "kernel_size": [1, 3, (2, 3)],
        "stride": [1, 2, (2, 3)],
        "padding": ["valid", "same"],
        "pooling": [[], [MaxPool2D(2)], [MaxPool2D((2, 1), 1)], [AveragePool2D((1, 2))], [GlobalAveragePool2D()]],
        "activation": ["tanh", "gelu", "leaky_relu", "softplus"],
        "batch_norm": [False, True],
    }
)
def test_gradient_agrees_with_central_differences(
    rng, shape, kernel_size, stride, padding, pooling, activation, batch_norm
):
    # The gradient by the first layer's parameters has that by the second one's input in it.
    layers = [
        Conv2D(2, kernel_size, padding="same"),
        Conv2D(3, kernel_size, stride, padding, dropout=0.25),
        *pooling,
        Dense(2),
        Dense(3),
    ]
    network = random_network(layers, shape, activation=activation, batch_norm=batch_norm)
    X, y = rng.standard_normal((5, network.n_in)), rng.integers(0, 3, 5)
    check_gradient(network, X, y)
    dropped = network.facts(np.array([0.0, 0.25, 0.5]))
    check_gradient(network, X, y, dropped, key=3, first=10)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5, 1), (4, 1, 3)])
@pytest.mark.parametrize("kernel_size", [1, 2, 5])
def test_gradient_of_images_of_one_row_or_column(rng, shape, kernel_size):
    layers = [Conv2D(2, kernel_size, padding="same"), MaxPool2D(1), Conv2D(3, kernel_size, 2, "same"), Dense(3)]
    network = random_network(layers, shape, batch_norm=True)
    check_gradient(network, rng.standard_normal((5, network.n_in)), rng.integers(0, 3, 5))


def test_layers_without_weights_alone(rng):
    network = random_network([AveragePool2D(2, 1), MaxPool2D(2), Flatten(), Dense(3)], (4, 5, 2))
    assert len(network.weights) == 1
    check_gradient(network, rng.standard_normal((4, 40)), rng.integers(0, 3, 4))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_the_gradient_by_the_input_is_the_adjoint_of_the_product(rng, padding):
    for shape, kernel_size, stride in (((5, 6, 3), 3, 1), ((7, 4, 1), (2, 3), (3, 2)), ((3, 3, 2), 1, 2)):
        facts = Conv2D(4, kernel_size, stride, padding, "relu").facts(shape, 0.0)
        X, W = rng.standard_normal((2, facts.n_in)), rng.standard_normal(facts.weight_shape)
        Z = reference.product(X, facts, W)
        dZ, dW = rng.standard_normal(Z.shape), np.empty_like(W)
        reference.backprop_product_weight(X, dZ, facts, dW)
        dX = reference.backprop_product_input(dZ, facts, W)
        assert (Z * dZ).sum() == pytest.approx((X * dX).sum(), rel=1e-12)
        assert (Z * dZ).sum() == pytest.approx((W * dW).sum(), rel=1e-12)


def test_running_statistics_are_of_rows_and_positions(rng):
    network = fastnn.Network([Conv2D(3, 2, batch_norm=True), Dense(2)], input_shape=(4, 3))
    X, y = rng.standard_normal((6, 4, 3)), rng.integers(0, 2, 6)
    Z = reference.product(X.reshape(6, 12), network.facts()[0], network.weights[0].reshape(4, 3).copy())
    fastnn.Trainer(network, fastnn.SGD(0.1)).fit(X, y, epochs=1)
    np.testing.assert_allclose(network.means[0], 0.1 * Z.mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(network.variances[0], 0.9 + 0.1 * Z.var(axis=0, ddof=1), atol=1e-15)


# --- facts ------------------------------------------------------------------------------------------


def test_facts_of_lenet():
    facts = fastnn.Network(LENET, input_shape=(28, 28)).facts()
    window, halves = Window((5, 5)), Window((2, 2), (2, 2))
    assert [each.maps for each in facts] == [
        Maps((28, 28, 1), (24, 24, 20), (12, 12, 20), window, halves, "max"),
        Maps((12, 12, 20), (8, 8, 50), (4, 4, 50), window, halves, "max"),
        None,
        None,
    ]
    assert [each[:2] for each in facts] == [(784, 2880), (2880, 800), (800, 500), (500, 10)]
    assert [each.activation for each in facts] == ["tanh", "tanh", "tanh", None]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_pooling_before_an_activation_that_never_falls_is_the_same(rng, activation, batch_norm):
    network = random_network([Conv2D(3, 2), MaxPool2D(2), Dense(4)], (5, 7, 2), activation=activation)
    X, y = rng.standard_normal((6, 70)), rng.integers(0, 4, 6)
    merged = network.facts()
    alone = [layer.facts(shape, 0.0) for layer, shape in zip(network.layers, [(5, 7, 2), (4, 6, 3)], strict=False)]
    alone.append(merged[-1])
    assert len(merged) == (3 if activation in ("gelu", "silu") else 2)
    found, expected = (twin(network, X, y, network.parameters, facts)[0] for facts in (merged, alone))
    assert found == pytest.approx(expected, rel=1e-12)
    dropped = network.facts(np.array([0.5]))
    assert [each.dropout for each in dropped] == [0.5, 0.0, 0.0]  # of the layer's own numbers
    assert dropped[0].maps.pooling is None


def test_what_pools_otherwise_is_a_layer_of_its_own():
    layers = [MaxPool2D(2), Conv2D(3, 2), AveragePool2D(2), MaxPool2D(2), Conv2D(3, 1), MaxPool2D(1), MaxPool2D(1)]
    network = fastnn.Network([*layers, GlobalAveragePool2D(), Dense(4)], input_shape=(15, 15, 2))
    facts = network.facts()
    kinds = [(each.maps.convolution is not None, each.maps.pooling is not None) for each in facts[:-1]]
    pools = (False, True)
    assert kinds == [pools, (True, False), pools, pools, (True, True), pools, pools]
    assert [each.maps.pools for each in facts[:-1] if each.maps.pooling] == ["max", "mean", "max", "max", "max", "mean"]
    assert facts[6].maps.pooling == Window((1, 1), (1, 1))
    assert [each.activation for each in facts] == [
        "identity",
        "tanh",
        "identity",
        "identity",
        "tanh",
        *["identity"] * 2,
        None,
    ]


def test_flat_networks_have_the_facts_of_sizes():
    flat = fastnn.Network([784, 20, 10])
    for layers in ([Dense(20), Dense(10)], [Flatten(), Dense(20), Dense(10)]):
        network = fastnn.Network(layers, input_shape=(28, 28, 1))
        assert network.layers == (Flatten(), *flat.layers)
        assert network.facts() == flat.facts()
        assert network.sizes == flat.sizes
        assert network.takes_sparse
        np.testing.assert_array_equal(network.parameters, flat.parameters)


# --- the network ------------------------------------------------------------------------------------


def test_sizes_shapes_and_lists():
    network = fastnn.Network(LENET, ["tanh", "relu", "elu"], input_shape=(28, 28, 1))
    assert network.layers[4] == Flatten()
    assert network.input_shape == (28, 28, 1)
    assert network.sizes == (784, 11520, 2880, 3200, 800, 500, 10)
    assert (network.n_in, network.n_out) == (784, 10)
    assert network.activation == ("tanh", "relu", "elu")
    assert [weight.shape for weight in network.weights] == [(5, 5, 1, 20), (5, 5, 20, 50), (800, 500), (500, 10)]
    assert [bias.shape for bias in network.biases] == [(20,), (50,), (500,), (10,)]
    assert not network.takes_sparse
    for k, (n_in, n_out) in enumerate([(25, 500), (500, 1250), (800, 500), (500, 10)]):
        weight = network.weights[k]
        limit = np.sqrt(6 / n_in if k in (1, 2) else 6 / (n_in + n_out))
        assert 0.95 * limit < np.abs(weight).max() <= limit
        assert abs(weight.mean()) < 0.2 * limit
    np.testing.assert_array_equal(np.concatenate(network.biases), 0)
    assert not np.any(fastnn.Network([MaxPool2D(2), Dense(10)], input_shape=(28, 28)).parameters)  # softmax regression


def test_print_shows_a_table_of_layers():
    network = fastnn.Network([Conv2D(20, 5, dropout=0.5), MaxPool2D(2, 1), Dense(10)], input_shape=(28, 28, 1))
    assert str(network).splitlines() == [
        "layer                                               output        parameters",
        "input                                               (28, 28, 1)",
        "Conv2D(20, (5, 5), activation='tanh', dropout=0.5)  (24, 24, 20)         520",
        "MaxPool2D((2, 2), stride=(1, 1))                    (23, 23, 20)           0",
        "Flatten()                                           (10580,)               0",
        "Dense(10)                                           (10,)            105,810",
        "all                                                                  106,330",
    ]
    assert str(fastnn.Network([784, 20, 10], "relu", batch_norm=True)).splitlines()[-3:] == [
        "Dense(20, activation='relu', batch_norm=True)  (20,)       15,760",
        "Dense(10)                                      (10,)          210",
        "all                                                        15,970",
    ]


def test_repr_makes_the_network_again():
    options = {"dtype": "float32", "loss": "squared", "batch_norm": True, "activation": "relu"}
    networks = [
        fastnn.Network([Conv2D(4, 3, (1, 2), "same", dropout=0.1), AveragePool2D(2), Dense(3)], input_shape=(5, 6, 2)),
        fastnn.Network([GlobalAveragePool2D(), Dense(3)], input_shape=(5, 6), **options),
        fastnn.Network([Dense(4, dropout=0.1), Dense(3)], input_shape=30, **options),
    ]
    names = {kind.__name__: kind for kind in fastnn.layers.RECORDS.values()} | {"Network": fastnn.Network}
    for network in networks:
        again = eval(repr(network), names)
        assert (repr(again), again.batch_norm) == (repr(network), network.batch_norm)
        assert (again.layers, again.facts()) == (network.layers, network.facts())


MISFITS = [
    (
        [Conv2D(3, 5), Conv2D(3, 5), MaxPool2D(9), Dense(2)],
        r"layers\[2\], MaxPool2D\(\(9, 9\)\), has a window of 9 x 9",
    ),
    ([Conv2D(3, (13, 1)), Dense(2)], "has a window of 13 x 1, larger than its input of 12 x 12"),
    ([AveragePool2D((1, 13)), Dense(2)], "has a window of 1 x 13, larger than its input of 12 x 12"),
    ([Dense(3), Conv2D(2, 2), Dense(2)], r"layers\[1\], Conv2D\(2, \(2, 2\)\), needs images, but what comes before it"),
    ([Flatten(), GlobalAveragePool2D(), Dense(2)], r"layers\[1\], GlobalAveragePool2D\(\), needs images"),
    ([Conv2D(3, 3)], r"the output layer must be Dense, not Conv2D\(3, \(3, 3\)\)"),
    ([Dense(2), Flatten()], r"the output layer must be Dense, not Flatten\(\)"),
    ([Conv2D(2**30, 1), Dense(2)], r"gives 154618822656 numbers a row, more than 2147483647"),
]


@pytest.mark.parametrize(("layers", "message"), MISFITS)
def test_layers_that_do_not_fit_are_told_with_their_shapes(layers, message):
    with pytest.raises(ValueError, match=message) as caught:
        fastnn.Network(layers, input_shape=(12, 12, 1))
    lines = str(caught.value).splitlines()
    assert [line.split() for line in lines[1:3]] == [["layer", "output"], ["input", "(12,", "12,", "1)"]]
    fitting = len([line for line in lines[3:] if line.endswith(")")])
    assert fitting == len(lines) - 3


def test_the_table_of_a_misfit_goes_as_far_as_layers_fit():
    with pytest.raises(ValueError, match="has a window") as caught:
        fastnn.Network(LENET, input_shape=(12, 12, 1))
    assert str(caught.value).splitlines() == [
        "layers[2], Conv2D(50, (5, 5)), has a window of 5 x 5, larger than its input of 4 x 4:",
        "layer               output",
        "input               (12, 12, 1)",
        "Conv2D(20, (5, 5))  (8, 8, 20)",
        "MaxPool2D((2, 2))   (4, 4, 20)",
    ]


def test_without_norm_is_the_same_by_the_running_statistics(rng):
    layers = [Conv2D(3, 2), MaxPool2D(2), Conv2D(2, 1, batch_norm=False), Dense(4), Dense(2)]
    network = random_network(layers, (5, 5, 2), batch_norm=True)
    plain, X = network.without_norm(), rng.standard_normal((4, 50))
    assert not plain.batch_norm
    assert plain.layers[:2] == (Conv2D(3, 2, activation="tanh", batch_norm=False), MaxPool2D(2))
    facts = plain.facts()
    found = reference.forward_pass(X, facts, reference.unpack(facts, plain.parameters)).outputs
    Z = reference.product(X, network.facts()[0], network.weights[0].reshape(-1, 3))
    Z = network.scales[0] * (Z - network.means[0]) / np.sqrt(network.variances[0] + 1e-5) + network.biases[0]
    np.testing.assert_allclose(found[1], np.tanh(reference.pool(Z, facts[0].maps)[0]), atol=1e-13)


# --- rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["uint8", "float32", "float64", "int16", "bool"])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_images_and_flat_rows_are_the_same(rng, stored, n):
    X = (100 * rng.random((n, 4, 3, 1))).astype(stored)
    kept = stored in ("uint8", "float32", "float64")
    for given in (X, X[..., 0], X.reshape(n, 12)):
        rows = check_rows(given, (4, 3, 1), np.dtype("float32"))
        assert rows.shape == (n, 12)
        assert rows.dtype == (stored if kept else "float32")
        assert np.may_share_memory(rows, X) == (kept and n > 0)  # no copy
        np.testing.assert_array_equal(rows, X.reshape(n, 12))
    moved = np.asfortranarray(X)
    np.testing.assert_array_equal(check_rows(moved, (4, 3, 1), np.dtype("float32")), X.reshape(n, 12))


def test_memory_mapped_images_stay_on_disk(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(_mapped, "WINDOW_BYTES", 100)
    network = fastnn.Network([Conv2D(2, 2), Dense(3)], input_shape=(4, 3, 1))
    for stored in ("uint8", "float32", "float64"):
        np.save(tmp_path / "X.npy", (100 * rng.random((30, 4, 3, 1))).astype(stored))
        X = np.load(tmp_path / "X.npy", mmap_mode="r")
        for given in (X, X[..., 0], X.reshape(30, 12), X[7:]):
            rows, _ = network.check_data(given, np.zeros(len(given), int))
            assert rows.dtype == stored
            assert stay_on_disk(rows, given)
            order = _mapped.MappedRows(rows, 10).shuffled(rng)
            np.testing.assert_array_equal(np.sort(order), np.arange(len(given)))


WRONG_ROWS = [
    ((3, 4, 3, 1, 1), ""),
    ((3, 3, 4, 1), ""),
    ((3, 4, 3, 2), ""),
    ((3, 3, 4), ""),
    ((3, 11), ""),
    ((4, 3, 1), r"; X\[None\] for a single image"),
    ((4, 3), r"; X\[None\] for a single image"),
    ((12,), r"; X\[None\] for a single image"),
    ((), ""),
]


@pytest.mark.parametrize(("shape", "hint"), WRONG_ROWS)
def test_rows_of_other_shapes_are_refused(shape, hint):
    told = r"X must have shape \(n, 4, 3, 1\), \(n, 4, 3\) or \(n, 12\)"
    network = fastnn.Network([Conv2D(2, 2), Dense(3)], input_shape=(4, 3))
    with pytest.raises(ValueError, match=rf"{told}{hint}; its shape is \({', '.join(map(str, shape))},?\)"):
        network.predict(np.zeros(shape))
    with pytest.raises(ValueError, match=told.replace("X", r"validation\[0\]")):
        fastnn.Trainer(network).fit(np.zeros((1, 12)), [0], validation=(np.zeros(shape), [0]))
    colours = fastnn.Network([Dense(3)], input_shape=(4, 3, 2))
    with pytest.raises(ValueError, match=r"X must have shape \(n, 4, 3, 2\) or \(n, 24\);"):
        colours.predict(np.zeros((1, 4, 3)))


def test_sparse_rows_are_for_flat_layers(rng, dtype):
    X, y = sparse.random(30, 12, density=0.2, format="csr", random_state=rng), rng.integers(0, 3, 30)
    network = fastnn.Network([Conv2D(2, 2), Dense(3)], dtype=dtype, input_shape=(4, 3, 1))
    for call in (network.predict, lambda X: network.error(X, y), lambda X: fastnn.Trainer(network).fit(X, y)):
        with pytest.raises(TypeError, match=r"X must be dense, such as X.toarray\(\), for a network with convolution"):
            call(X)
    with pytest.raises(ValueError, match="sparse must be 'auto' or False for a network with convolution or pooling"):
        fastnn.Trainer(network, sparse=True)
    assert choose_storage(False, "auto", must_be_dense="so") == (False, "so")
    flat = fastnn.Network([Dense(4), Dense(3)], dtype=dtype, input_shape=(4, 3, 1))
    same = fastnn.Network([12, 4, 3], dtype=dtype)
    for one in (flat, same):
        fastnn.Trainer(one, fastnn.SGD(0.1), 10).fit(X, y, epochs=2)
    np.testing.assert_array_equal(flat.parameters, same.parameters)
    images = X.toarray().reshape(30, 4, 3)
    for given in (X, images, images[..., None], images.reshape(30, 12)):
        np.testing.assert_array_equal(flat.predict(given), same.predict(X))
    np.testing.assert_array_equal(
        flat.predictor().predict_proba(images[:1]), same.predict_proba(images[:1].reshape(1, 12))
    )


# --- training, by the twin --------------------------------------------------------------------------


@pytest.fixture
def digits(rng):
    """Images of 6 x 5 with a bright row that tells the class."""
    y = rng.integers(0, 4, 60)
    X = rng.random((60, 6, 5, 1))
    X[np.arange(60), y] += 2
    return X, y


LAYERS = [Conv2D(3, 3, padding="same"), MaxPool2D(2), Conv2D(4, 2, dropout=0.1), GlobalAveragePool2D(), Dense(4)]


@pytest.mark.parametrize("optimizer", [fastnn.SGD(0.3, 0.9), fastnn.Adam(0.05), fastnn.LBFGS()])
def test_training(digits, optimizer):
    X, y = digits
    layers = LAYERS if not isinstance(optimizer, fastnn.LBFGS) else [*LAYERS[:2], Dense(4)]
    fitted = []
    for given in (X, X[..., 0], X.reshape(60, 30)):
        network = fastnn.Network(layers, input_shape=(6, 5))
        trainer = fastnn.Trainer(network, optimizer, None if layers is not LAYERS else 10)
        history = trainer.fit(given, y, epochs=12, validation=(given, y))
        assert history.log_likelihood[-1] > history.log_likelihood[0] + 0.2
        fitted.append(network.parameters)
        assert network.error(given, y) == history.validation_error[-1]
    for other in fitted[1:]:
        np.testing.assert_array_equal(other, fitted[0])


def test_chunks_weights_and_checkpoints(digits, tmp_path):
    X, y = digits

    def network():
        return fastnn.Network(LAYERS, input_shape=(6, 5, 1), batch_norm=True, dtype="float32")

    def trainer(net, **options):
        return fastnn.Trainer(net, fastnn.SGD(0.1, 0.9), 10, l2=1e-3, max_norm=2.0, dropout=[0.2, 0.0], **options)

    assert trainer(network()).dropout.tolist() == [0.2, 0.1]  # a layer's own goes first
    assert fastnn.Trainer(network()).dropout.tolist() == [0.0, 0.1]
    whole, cut = network(), network()
    trainer(whole).fit(X, y, epochs=4, sample_weight=np.ones(60))
    path = tmp_path / "fit"
    trainer(cut, callbacks=[fastnn.callbacks.Checkpoint(path)]).fit(X, y, epochs=2, sample_weight=np.ones(60))
    again = network()
    trainer(again, callbacks=[fastnn.callbacks.Checkpoint(path)]).fit(
        X[..., 0], y, epochs=4, sample_weight=np.ones(60), resume=path
    )
    np.testing.assert_array_equal(again.parameters, whole.parameters)
    other = fastnn.Network(LAYERS[2:], input_shape=(6, 5, 1), batch_norm=True, dtype="float32")
    with pytest.raises(ValueError, match="was written with network="):
        fastnn.Trainer(other, fastnn.SGD(0.1, 0.9), 10).fit(X, y, epochs=4, resume=path)
    parts = network()
    trainer(parts).fit([(X[:30], y[:30]), (X[30:, ..., 0], y[30:])], epochs=2)
    ensemble = fastnn.Ensemble([whole, cut])
    assert ensemble.predict_proba(X[..., 0]).shape == (60, 4)


def test_lbfgs_refuses_a_layers_dropout(digits):
    X, y = digits
    with pytest.raises(ValueError, match="LBFGS takes no dropout"):
        fastnn.Trainer(fastnn.Network(LAYERS, input_shape=(6, 5)), fastnn.LBFGS()).fit(X, y)


# --- files ------------------------------------------------------------------------------------------


def test_a_network_of_all_kinds_comes_back(tmp_path, dtype):
    layers = [
        Conv2D(3, (3, 2), (1, 2), "same", "gelu", False, 0.1),
        MaxPool2D((3, 2), 2),
        Conv2D(4, 2),
        AveragePool2D((1, 2), 1),
        GlobalAveragePool2D(),
        Dense(5, dropout=0.0),
        Dense(3),
    ]
    network = random_network(layers, (9, 11, 2), batch_norm=True, dtype=dtype)
    network.save(tmp_path / "net")
    fastnn.Ensemble([network, network]).save(tmp_path / "ensemble")
    others = [fastnn.Network.load(tmp_path / "net"), *fastnn.Ensemble.load(tmp_path / "ensemble")]
    for other in (*others, pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
        assert repr(other) == repr(network)
        assert (other.layers, other.input_shape, other.facts()) == (network.layers, (9, 11, 2), network.facts())
        np.testing.assert_array_equal(other.parameters, network.parameters)
    tensors = safetensors.numpy.load_file(tmp_path / "net")
    np.testing.assert_array_equal(tensors["layers.0.weight"], network.weights[0])
    assert tensors["layers.2.scale"].shape == (4,)
    assert not any(name.startswith(("layers.1.", "layers.3.", "layers.4.", "layers.5.")) for name in tensors)
    with safetensors.safe_open(tmp_path / "net", framework="numpy") as file:
        told = json.loads(file.metadata()["fastnn"])
    assert told["input_shape"] == [9, 11, 2]
    assert told["layers"][1:3] == [
        {"kind": "MaxPool2D", "size": [3, 2], "stride": [2, 2]},
        {
            "kind": "Conv2D",
            "filters": 4,
            "kernel_size": [2, 2],
            "stride": [1, 1],
            "padding": "valid",
            "activation": "tanh",
            "batch_norm": True,
        },
    ]
    assert told["layers"][0]["dropout"] == 0.1
    assert told["layers"][6]["dropout"] == 0.0


CONV = {"kind": "Conv2D", "filters": 2, "kernel_size": [2, 2], "stride": [1, 1], "padding": "valid"}
CONV |= {"activation": "tanh", "batch_norm": False}
POOL, FLATTEN = {"kind": "MaxPool2D", "size": [2, 2], "stride": [2, 2]}, {"kind": "Flatten"}
DENSE = {"kind": "Dense", "units": 3, "activation": None, "batch_norm": False}
TOLD = {"format": 2, "input_shape": [5, 5, 1], "layers": [CONV, POOL, FLATTEN, DENSE]}
TOLD |= {"loss": "cross_entropy", "dtype": "float32"}
HOSTILE = [
    ([CONV | {"filters": 0}], "filters must be at least 1"),
    ([CONV | {"filters": 10**9}], "gives 16000000000 numbers a row, more than"),
    ([CONV | {"kernel_size": 2.0}], "kernel_size must be an integer"),
    ([CONV | {"kernel_size": [2]}], "kernel_size must be an integer or two, down and across, not"),
    ([CONV | {"kernel_size": [2, 2, 2]}], "kernel_size must be an integer or two"),
    ([CONV | {"kernel_size": "22"}], "kernel_size must be an integer"),
    ([CONV | {"kernel_size": {"2": 2, "3": 3}}], "kernel_size must be an integer"),
    ([CONV | {"kernel_size": [0, 2]}], "kernel_size must be at least 1"),
    ([CONV | {"kernel_size": [2, 10**30]}], "kernel_size must be at least 1 and at most 2147483647"),
    ([CONV | {"kernel_size": [6, 2]}], "has a window of 6 x 2, larger than its input of 5 x 5"),
    ([CONV | {"kernel_size": [2**31 - 1] * 2, "padding": "same"}], "more parameters than memory"),
    ([CONV | {"stride": [1, -1]}], "stride must be at least 1"),
    ([CONV | {"stride": None}], "stride must be an integer"),
    ([CONV | {"padding": "full"}], "padding must be one of 'valid', 'same', not 'full'"),
    ([CONV | {"activation": "tan"}], "activation must be one of"),
    ([CONV | {"activation": None}], "do not all state activation"),
    ([CONV | {"batch_norm": None}], "do not all state activation and batch_norm"),
    ([CONV | {"dropout": 1.0}], "dropout must be at least 0 and below 1"),
    ([CONV | {"dropout": "0.1"}], "dropout must be a number"),
    ([CONV | {"size": 2}], "a Conv2D layer must have the fields"),
    ([POOL | {"size": [6, 6]}], "has a window of 6 x 6"),
    ([POOL | {"stride": [0, 1]}], "stride must be at least 1"),
    ([POOL | {"dropout": 0.1}], "a MaxPool2D layer must have the fields"),
    ([FLATTEN, CONV], "needs images"),
    ([FLATTEN | {"units": 3}], "a Flatten layer must have the fields"),
    ([{"kind": "Layer"}], "kind of layer must be one of"),
    ([CONV, POOL] * 2000, "has a window"),
    ([FLATTEN] * 20_000, "its tensors are not those of a network of 20002 layers"),
]


@pytest.mark.parametrize(("hidden", "message"), HOSTILE)
def test_files_that_cannot_be_are_refused(tmp_path, hidden, message):
    path = tmp_path / "net.safetensors"
    tensors = {"layers.0.weight": np.ones((2, 2, 1, 2), "f4"), "layers.0.bias": np.ones(2, "f4")}
    tensors |= {"layers.3.weight": np.ones((8, 3), "f4"), "layers.3.bias": np.ones(3, "f4")}

    def write(told):
        safetensors.numpy.save_file(tensors, path, {"fastnn": json.dumps(told)})

    write(TOLD)
    assert fastnn.Network.load(path).sizes == (25, 32, 8, 3)
    write(TOLD | {"layers": [*hidden, FLATTEN, DENSE]})
    with pytest.raises(ValueError, match=rf"(?s)net\.safetensors is not a usable fastnn network: .*{message}"):
        fastnn.Network.load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": [CONV, POOL, DENSE]}, "no Flatten between an image and Dense"),
        ({"layers": [CONV, POOL]}, "the output layer must be Dense"),
        ({"layers": [FLATTEN]}, "the output layer must be Dense"),
        ({"layers": [FLATTEN, DENSE | {"dropout": 0.1}]}, "the output layer must have no dropout"),
        ({"input_shape": [5, 5, 1, 1]}, "input_shape must be one integer"),
        ({"input_shape": [2**20, 2**20, 1]}, "input_shape must have at most 2147483647 numbers"),
        ({"input_shape": [6, 6, 1]}, "its tensors|should be"),
        ({"input_shape": [25]}, "needs images"),
    ],
)
def test_descriptions_that_contradict_themselves_are_refused(tmp_path, changed, message):
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file({"layers.0.bias": np.ones(2, "f4")}, path, {"fastnn": json.dumps(TOLD | changed)})
    with pytest.raises(ValueError, match=rf"(?s)is not a usable fastnn network: .*({message})"):
        fastnn.Network.load(path)
