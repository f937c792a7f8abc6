"""Layers as records: what a record says, and that networks of records are those of sizes, to the bit."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import fastnn
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.layers import AveragePool2D, Conv2D, Dense, Flatten, GlobalAveragePool2D, Layer, MaxPool2D
from fastnn.slots import Slot

MIXED = {"activation": ["relu", "gelu"]}
PAIRS = [
    (([7, 3], {}), ([Dense(3)], {})),
    (([7, 5, 3], {}), ([Dense(5, activation="tanh"), Dense(3)], {})),
    (([7, 5, 3], {}), ([Dense(5), Dense(3)], {"input_shape": (7,)})),
    (([7, 5, 4, 3], MIXED), ([Dense(5, "relu"), Dense(4, "gelu"), Dense(3)], {"input_shape": [7]})),
    (([7, 5, 4, 3], MIXED), ([Dense(5, "relu"), Dense(4), Dense(3)], {"activation": "gelu"})),
    (([7, 5, 4, 3], MIXED), ([Dense(5), Dense(4, "gelu"), Dense(3)], {"activation": ["relu", "tanh"]})),
    (([7, 5, 4, 3], {"batch_norm": True}), ([Dense(5), Dense(4), Dense(3)], {"batch_norm": True})),
    (
        ([7, 5, 4, 3], {"batch_norm": True}),
        ([Dense(5, batch_norm=True), Dense(4, batch_norm=True), Dense(3, batch_norm=False)], {}),
    ),
    (([7, 5, 3], {}), ([Dense(5, batch_norm=False), Dense(3)], {"batch_norm": True})),
    (([7, 3], {"batch_norm": True}), ((Dense(3),), {"batch_norm": True, "input_shape": np.int64(7)})),
    (([7, 5, 1], {"loss": "squared"}), ((Dense(5), Dense(1)), {"loss": "squared"})),
]


@pytest.mark.parametrize(("short", "long"), PAIRS)
def test_records_say_the_same_as_sizes(rng, dtype, short, long, tmp_path):
    (sizes, short_options), (layers, long_options) = short, long
    one = fastnn.Network(sizes, dtype=dtype, seed=3, **short_options)
    other = fastnn.Network(layers, dtype=dtype, seed=3, **{"input_shape": 7} | long_options)
    other.save(tmp_path / "net")
    again = fastnn.Network(
        one.layers, dtype=dtype, seed=3, loss=one.loss, batch_norm=one.batch_norm, input_shape=one.input_shape
    )
    for each in (
        other,
        again,
        pickle.loads(pickle.dumps(other)),
        copy.copy(one),
        fastnn.Network.load(tmp_path / "net"),
    ):
        assert repr(each) == repr(one)
        assert each.layers == one.layers
        for name in ("sizes", "activation", "batch_norm", "input_shape", "n_in", "n_out", "slots"):
            assert getattr(each, name) == getattr(one, name)
        np.testing.assert_array_equal(each.parameters, one.parameters)
    X, y = rng.standard_normal((60, 7)), rng.integers(0, 3, 60) if one.loss == "cross_entropy" else rng.random(60)
    for each in (one, other):
        fastnn.Trainer(each, fastnn.SGD(0.1, momentum=0.9), 20).fit(X, y, epochs=2)
    np.testing.assert_array_equal(other.parameters, one.parameters)
    np.testing.assert_array_equal(other.predict(X), one.predict(X))


def test_layers_of_a_network_leave_nothing_open():
    network = fastnn.Network([Dense(5), Dense(4, "relu"), Dense(3)], input_shape=7, batch_norm=True)
    assert network.layers == (Dense(5, "tanh", True), Dense(4, "relu", True), Dense(3, None, False))
    assert network.without_norm().layers == (Dense(5, "tanh", False), Dense(4, "relu", False), Dense(3, None, False))
    assert fastnn.Network([7, 3]).layers == (Dense(3, batch_norm=False),)
    assert network.input_shape == (7,)


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("batch_norm", [None, False, True])
def test_a_record_is_a_value(activation, batch_norm):
    layer = Dense(20, activation, batch_norm)
    assert isinstance(layer, Layer)
    for other in (Dense(np.int32(20), activation, batch_norm), copy.copy(layer), pickle.loads(pickle.dumps(layer))):
        assert other == layer
        assert hash(other) == hash(layer)
        assert type(other.units) is int
    assert repr(layer) == f"Dense(units=20, activation={activation!r}, batch_norm={batch_norm})"
    assert layer not in (Dense(21, activation, batch_norm), dataclasses.replace(layer, activation="elu", units=9))
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.units = 3


def test_shapes_and_slots():
    weight, bias = Slot("weight", (7, 5), "weight"), Slot("bias", (5,), "bias")
    assert Dense(5).output_shape((7,)) == (5,)
    assert Dense(5).slots((7,)) == Dense(5, batch_norm=False).slots((7,)) == (weight, bias)
    scale, *statistics = Dense(5, batch_norm=True).slots((7,))[2:]
    assert scale == Slot("scale", (5,), "scale", trained=True)
    assert statistics == [Slot(name, (5,), name, trained=False) for name in ("mean", "variance")]


def test_dropout_of_a_layer_is_told_only_where_it_has_its_own():
    assert repr(Dense(5, dropout=0.5)) == "Dense(units=5, activation=None, batch_norm=None, dropout=0.5)"
    assert Dense(5, dropout=0) == Dense(5, dropout=0.0) != Dense(5)
    network = fastnn.Network([Dense(5, dropout=0.5), Dense(4), Dense(3, dropout=0.0), Dense(2)], input_shape=7)
    assert [layer.dropout for layer in network.layers] == [0.5, None, 0.0, None]
    assert "dropout=0.5" in repr(network)
    for given, expected in ((0.0, [0.5, 0, 0]), (0.1, [0.5, 0.1, 0]), ([0.1, 0.2, 0.3], [0.5, 0.2, 0])):
        trainer = fastnn.Trainer(network, dropout=given)
        assert trainer.dropout.tolist() == expected
        assert [facts.dropout for facts in network.facts(trainer.dropout)] == [*expected, 0]
    assert [facts.dropout for facts in network.facts()] == [0, 0, 0, 0]  # predictions drop nothing
    with pytest.raises(ValueError, match="dropout must be one number or a list of 3, one a hidden layer with weights"):
        fastnn.Trainer(network, dropout=[0.1] * 4)
    with pytest.raises(ValueError, match="network must be like the trainer's present one"):
        fastnn.Trainer(network).network = fastnn.Network([7, 5, 4, 3, 2])


def test_dropout_of_a_layer_trains_as_the_trainers(rng, dtype):
    X, y = rng.standard_normal((60, 7)), rng.integers(0, 3, 60)
    one = fastnn.Network([Dense(9, dropout=0.3), Dense(8, dropout=0.0), Dense(3)], dtype=dtype, input_shape=7)
    other = fastnn.Network([7, 9, 8, 3], dtype=dtype)
    fastnn.Trainer(one, fastnn.SGD(0.1), 20).fit(X, y, epochs=2)
    fastnn.Trainer(other, fastnn.SGD(0.1), 20, dropout=[0.3, 0.0]).fit(X, y, epochs=2)
    np.testing.assert_array_equal(one.parameters, other.parameters)


IMAGE_LAYERS = [
    (Conv2D(20, 5), {"filters": 20, "kernel_size": (5, 5), "stride": (1, 1), "padding": "valid"}),
    (
        Conv2D(np.int8(2), [3, np.int64(1)], (2, 1), "same", "relu", True, 0.5),
        {"kernel_size": (3, 1), "stride": (2, 1)},
    ),
    (MaxPool2D(2), {"size": (2, 2), "stride": (2, 2)}),
    (MaxPool2D((3, 2), 1), {"size": (3, 2), "stride": (1, 1)}),
    (AveragePool2D(2, None), {"size": (2, 2), "stride": (2, 2)}),
    (GlobalAveragePool2D(), {}),
    (Flatten(), {}),
]


@pytest.mark.parametrize(("layer", "fields"), IMAGE_LAYERS)
def test_records_of_layers_on_images_are_values(layer, fields):
    assert {name: getattr(layer, name) for name in fields} == fields
    assert isinstance(layer, Layer)
    names = {kind.__name__: kind for kind in fastnn.layers.RECORDS.values()}
    for other in (
        copy.copy(layer),
        pickle.loads(pickle.dumps(layer)),
        eval(repr(layer), names),
        eval(str(layer), names),
    ):
        assert other == layer
        assert hash(other) == hash(layer)
        assert repr(other) == repr(layer)
    assert [each == layer for each, _ in IMAGE_LAYERS].count(True) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.size = 3


# n, window, stride: zeros before and after, positions
SAME = [
    ((5, 1, 1), (0, 0), 5),
    ((5, 3, 1), (1, 1), 5),
    ((5, 2, 1), (0, 1), 5),
    ((5, 4, 1), (1, 2), 5),
    ((28, 5, 2), (1, 2), 14),
    ((4, 3, 2), (0, 1), 2),
    ((7, 1, 3), (0, 0), 3),
    ((1, 5, 1), (2, 2), 1),
    ((3, 2, 5), (0, 0), 1),
]


@pytest.mark.parametrize(("numbers", "zeros", "positions"), SAME)
def test_zeros_of_same_padding(numbers, zeros, positions):
    n, size, stride = numbers
    maps = Conv2D(2, (size, 1), (stride, 1), "same", "tanh").facts((n, 3, 1), 0.0).maps
    assert maps.convolution.padding == (zeros[0], 0, zeros[1], 0)
    assert maps.output == maps.middle == (positions, 3, 2)
    maps = Conv2D(2, (1, size), (1, stride), "same", "tanh").facts((3, n, 1), 0.0).maps
    assert maps.convolution.padding == (0, zeros[0], 0, zeros[1])
    assert maps.output == (3, positions, 2)


def test_shapes_and_slots_of_layers_on_images():
    assert Conv2D(4, (3, 2)).output_shape((7, 6, 5)) == (5, 5, 4)
    assert Conv2D(4, 3, (2, 3)).output_shape((8, 9, 5)) == (3, 3, 4)
    assert MaxPool2D(2).output_shape((7, 6, 5)) == AveragePool2D(2).output_shape((7, 6, 5)) == (3, 3, 5)
    assert MaxPool2D(3, 2).output_shape((7, 6, 5)) == (3, 2, 5)
    assert GlobalAveragePool2D().output_shape((7, 6, 5)) == (1, 1, 5)
    assert Flatten().output_shape((7, 6, 5)) == (210,)
    weight, bias, scale, *statistics = Conv2D(4, (3, 2), batch_norm=True).slots((7, 6, 5))
    assert weight == Slot("weight", (3, 2, 5, 4), "weight")
    assert (bias, scale) == (Slot("bias", (4,), "bias"), Slot("scale", (4,), "scale"))
    assert statistics == [Slot(name, (4,), name, trained=False) for name in ("mean", "variance")]
    for layer in (MaxPool2D(2), AveragePool2D(2), GlobalAveragePool2D(), Flatten()):
        assert layer.slots((7, 6, 5)) == ()
        assert layer.settled("relu", True) == layer.without_norm() == layer


class Wide(Dense):
    """A layer of somebody else."""


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Dense(0), ValueError, "units must be at least 1 and at most 2147483647, not 0"),
        (lambda: Dense(2**31), ValueError, "units must be at least 1 and at most 2147483647"),
        (lambda: Dense(2.0), TypeError, "units must be an integer, not 2.0"),
        (lambda: Dense("2"), TypeError, "units must be an integer"),
        (lambda: Dense(None), TypeError, "units must be an integer"),
        (lambda: Dense(2, "tanhh"), ValueError, "activation must be one of None, 'identity', 'tanh'.*not 'tanhh'"),
        (lambda: Dense(2, ["tanh"]), ValueError, "activation must be one of"),
        (lambda: Dense(2, batch_norm=1), ValueError, "batch_norm must be one of None, False, True, not 1"),
        (lambda: Dense(2, dropout=1.0), ValueError, "dropout must be at least 0 and below 1, not 1.0"),
        (lambda: Dense(2, dropout="0.5"), TypeError, "dropout must be a number"),
        (lambda: fastnn.Network([Dense(2, dropout=0.5)], input_shape=3), ValueError, "must have no dropout"),
        (lambda: Conv2D(0, 3), ValueError, "filters must be at least 1 and at most 2147483647, not 0"),
        (lambda: Conv2D(2, 0), ValueError, "kernel_size must be at least 1"),
        (lambda: Conv2D(2, (3, -1)), ValueError, "kernel_size must be at least 1"),
        (lambda: Conv2D(2, (3, 3, 3)), ValueError, r"kernel_size must be an integer or two, .*, not \(3, 3, 3\)"),
        (lambda: Conv2D(2, ()), ValueError, r"kernel_size must be an integer or two, .*, not \(\)"),
        (lambda: Conv2D(2, "33"), TypeError, "kernel_size must be an integer, not '33'"),
        (lambda: Conv2D(2, 2.0), TypeError, "kernel_size must be an integer, not 2.0"),
        (lambda: Conv2D(2, None), TypeError, "kernel_size must be an integer, not None"),
        (lambda: Conv2D(2, 3, None), TypeError, "stride must be an integer, not None"),
        (lambda: Conv2D(2, 3, padding="full"), ValueError, "padding must be one of 'valid', 'same', not 'full'"),
        (lambda: Conv2D(2, 3, padding=1), ValueError, "padding must be one of 'valid', 'same', not 1"),
        (lambda: Conv2D(2, 3, activation="tan"), ValueError, "activation must be one of None, .*not 'tan'"),
        (lambda: Conv2D(2, 3, batch_norm=1), ValueError, "batch_norm must be one of None, False, True, not 1"),
        (lambda: Conv2D(2, 3, dropout=-0.1), ValueError, "dropout must be at least 0"),
        (lambda: MaxPool2D(None), TypeError, "size must be an integer, not None"),
        (lambda: MaxPool2D(2, (1, 0)), ValueError, "stride must be at least 1"),
        (lambda: AveragePool2D((2,)), ValueError, "size must be an integer or two"),
        (lambda: fastnn.Network([Dense(2)], input_shape=(2**16, 2**16)), ValueError, "input_shape must have at most"),
        (
            lambda: fastnn.Network([Conv2D(2, 3), Dense(2)], ["relu"] * 2, input_shape=(9, 9)),
            ValueError,
            "list of 1, one",
        ),
        (lambda: fastnn.Network([Dense(2)]), ValueError, "input_shape must say how many inputs"),
        (lambda: fastnn.Network([3, 2], input_shape=3), ValueError, "input_shape must be None beside sizes"),
        (lambda: fastnn.Network([Dense(2)], input_shape=0), ValueError, "input_shape must be at least 1"),
        (lambda: fastnn.Network([Dense(2)], input_shape=2**31), ValueError, "input_shape must be .* at most"),
        (lambda: fastnn.Network([Dense(2)], input_shape=(2, 3, 1, 1)), ValueError, "input_shape must be one integer"),
        (lambda: fastnn.Network([Dense(2)], input_shape=()), ValueError, "input_shape must be one integer"),
        (lambda: fastnn.Network([Dense(2)], input_shape="3"), TypeError, "input_shape must be an integer"),
        (lambda: fastnn.Network([Dense(2)], input_shape=3.0), TypeError, "input_shape must be an integer"),
        (lambda: fastnn.Network([3, Dense(2)], input_shape=3), TypeError, r"layers\[0\] must be a layer .*, not 3"),
        (lambda: fastnn.Network([Dense(2), 3], input_shape=3), TypeError, r"layers\[1\] must be a layer .*, not 3"),
        (lambda: fastnn.Network([Wide(2)], input_shape=3), TypeError, r"layers\[0\] must be a layer .*, not Wide"),
        (lambda: fastnn.Network([Dense], input_shape=3), TypeError, r"sizes\[0\] must be an integer"),
        (lambda: fastnn.Network(Dense(2), input_shape=3), TypeError, "sizes must be a sequence of .*, or of layers"),
        (lambda: fastnn.Network([], input_shape=3), ValueError, "sizes must hold at least"),
        (lambda: fastnn.Network([Dense(2, "relu")], input_shape=3), ValueError, "output layer must have no activation"),
        (lambda: fastnn.Network([Dense(2), Dense(2, "identity")], input_shape=3), ValueError, "not 'identity'"),
        (lambda: fastnn.Network([Dense(2, batch_norm=True)], input_shape=3), ValueError, "must have no batch_norm"),
        (lambda: fastnn.Network([Dense(2), Dense(3), Dense(2)], "relux", input_shape=3), ValueError, "activation must"),
        (lambda: fastnn.Network([Dense(2), Dense(2)], ["relu"] * 2, input_shape=3), ValueError, "list of 1, one a"),
        (lambda: fastnn.Network([Dense(2**31 - 1)] * 3, input_shape=3), ValueError, "more parameters than memory"),
    ],
)
def test_layers_that_cannot_be_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("normalised", [0, 1])
def test_some_hidden_layers_may_be_normalised(tmp_path, rng, normalised):
    layers = [Dense(4, batch_norm=normalised == 0), Dense(5, batch_norm=normalised == 1), Dense(2)]
    network = fastnn.Network(layers, input_shape=3)
    assert [layer.batch_norm for layer in network.layers] == [normalised == 0, normalised == 1, False]
    assert network.batch_norm
    assert "Dense(units=4" in repr(network)
    X, y = rng.standard_normal((30, 3)), rng.integers(0, 2, 30)

    def log_likelihood():  # by the batch's statistics
        Y = X
        for k, (W, b) in enumerate(zip(network.weights, network.biases, strict=True)):
            Z = Y @ W
            if k == normalised:
                Z = network.scales[0] * (Z - Z.mean(axis=0)) / np.sqrt(Z.var(axis=0) + 1e-5)
            Y = Z + b if k == 2 else np.tanh(Z + b)
        return (Y[np.arange(30), y] - np.log(np.exp(Y).sum(axis=1))).mean()

    network.scales[0] = rng.random(network.scales[0].shape)
    for arrays, gradients in zip(
        (network.weights, network.biases, network.scales), network.gradient(X, y), strict=True
    ):
        for array, gradient in zip(arrays, gradients, strict=True):
            for index in np.ndindex(array.shape):
                before = array[index]
                array[index] = before + 1e-6
                above = log_likelihood()
                array[index] = before - 1e-6
                below = log_likelihood()
                array[index] = before
                assert gradient[index] == pytest.approx((above - below) / 2e-6, abs=1e-8)
    fastnn.Trainer(network, batch_size=10).fit(X, y, epochs=20)
    network.save(tmp_path / "network.safetensors")
    again = fastnn.Network.load(tmp_path / "network.safetensors")
    assert repr(again) == repr(network)
    np.testing.assert_array_equal(again.predict_proba(X), network.predict_proba(X))
