"""The table of slots: one vector holds every number of a network once, in the order that files and pickles rely on."""

import pickle

import numpy as np
import pytest

import fastnn
from fastnn.layers import Category, Columns, Dense, Number
from fastnn.plan import Method
from fastnn.slots import KINDS, Slot, Slots

NETWORKS = [
    fastnn.Network([3, 2]),
    fastnn.Network([1, 1, 1], "relu", "float32"),
    fastnn.Network([5, 4, 6, 3], ["relu", "tanh"], loss="squared", batch_norm=True),
    fastnn.Network([3, 2], batch_norm=True),
    fastnn.Network([Dense(4), Dense(3), Dense(2), Dense(1)], batch_norm=True, input_shape=5),
]


@pytest.mark.parametrize("network", NETWORKS, ids=repr)
def test_every_number_belongs_to_one_slot(network):
    slots = network.slots
    vector = np.zeros(slots.size)
    for arrays in slots.by_layer(vector):
        for array in arrays.values():
            assert np.shares_memory(array, vector)
            array += 1
    np.testing.assert_array_equal(vector, 1)
    assert slots.size == network.parameters.size == sum(slot.size for slot in slots)
    places = list(slots.places.values())
    assert [place.start for place in places] == [0, *(place.stop for place in places)][:-1]


@pytest.mark.parametrize("network", NETWORKS, ids=repr)
def test_a_plan_finds_each_array_where_the_table_has_it(network):
    plan = network.engine().plan(np.zeros((3, network.n_in)), Method(3))
    for k, layer in enumerate(plan.layers):
        places = {name: place.start for (j, name), place in network.slots.places.items() if j == k}
        assert (layer.weight, layer.bias) == (places["weight"], places["bias"])
        if "scale" in places:
            n_out = network.sizes[k + 1]
            assert [places[name] for name in ("scale", "mean", "variance")] == [
                layer.norm + i * n_out for i in range(3)
            ]


def test_weights_come_before_what_normalises_them_in_the_vector_but_not_in_the_table():
    slots = fastnn.Network([2, 3, 4], batch_norm=True).slots
    names = [["weight", "bias", "scale", "mean", "variance"], ["weight", "bias"]]
    assert [[slot.name for slot in layer] for layer in slots.layers] == names
    assert slots.places == {
        (0, "weight"): slice(0, 6),
        (0, "bias"): slice(6, 9),
        (1, "weight"): slice(9, 21),
        (1, "bias"): slice(21, 25),
        (0, "scale"): slice(25, 28),
        (0, "mean"): slice(28, 31),
        (0, "variance"): slice(31, 34),
    }
    assert list(slots.places) == sorted(slots.places, key=lambda each: slots.places[each].start)


def test_the_table_tells_what_is_penalised_and_what_is_trained(rng):
    X, y = rng.standard_normal((40, 5)), rng.integers(0, 3, 40)
    X[:, 0] = np.arange(40) % 6
    layers = [Columns([Category(6, width=2), *[Number()] * 4]), Dense(4), Dense(3)]

    def one_step(learning_rate, l2=0.0):
        network = fastnn.Network(layers, batch_norm=True, input_shape=5)
        fastnn.Trainer(network, fastnn.SGD(learning_rate), l2=l2).fit(X, y, epochs=1)
        return network.parameters

    def kinds(which):
        each = ((k, slot) for k, layer in enumerate(slots.layers[:2]) for slot in layer)
        return {slot.kind for k, slot in each if which[slots.places[k, slot.name]].all()}

    start = fastnn.Network(layers, batch_norm=True, input_shape=5)
    slots = start.slots
    assert {slot.kind for slot in slots} == set(KINDS)
    still = np.abs(one_step(1e-300) - start.parameters) < 1e-100  # but for running statistics
    assert kinds(still) == {slot.kind for slot in slots if slot.trained} == set(KINDS) - {"mean", "variance"}
    assert kinds(~still) == {"mean", "variance"}
    assert kinds(one_step(0.1, l2=1.0) != one_step(0.1)) == {"weight", "embedding"}


def test_lists_of_the_network_are_the_kinds_of_the_table():
    network = NETWORKS[2]
    lists = (network.weights, network.biases, network.scales, network.means, network.variances, network.embeddings)
    for kind, arrays in zip(KINDS, lists, strict=True):
        views = network.slots.by_kind(network.parameters)[kind]
        assert [array.shape for array in arrays] == [view.shape for view in views]
        for array, view in zip(arrays, views, strict=True):
            assert np.shares_memory(array, view)
            assert array.flags.c_contiguous


def test_any_vector_of_the_layout_has_the_same_views(rng):
    network = NETWORKS[2]
    state = rng.standard_normal((2, network.parameters.size))  # as an optimizer's
    for row in state:
        whole = np.concatenate([array.ravel() for array in network.slots.by_kind(row)["weight"]])
        assert whole.size == 5 * 4 + 4 * 6 + 6 * 3
        network.slots.by_kind(row)["bias"][1][:] = 7
    assert (state == 7).sum() == 2 * 6


def test_tables_are_compared_and_pickled_by_their_slots():
    slots = NETWORKS[2].slots
    assert slots == fastnn.Network([5, 4, 6, 3], batch_norm=True).slots
    assert slots != fastnn.Network([5, 4, 6, 3]).slots
    assert slots == pickle.loads(pickle.dumps(slots))
    assert repr(slots.layers[0][0]) == "Slot(name='weight', shape=(5, 4), kind='weight', trained=True)"
    with pytest.raises(AttributeError):
        slots.layers[0][0].kind = "bias"


def test_layers_without_arrays_and_arrays_of_any_shape():
    slots = Slots(((), (Slot("kernel", (2, 3, 1), "weight"), Slot("offset", (), "bias")), ()))
    vector = slots.start(np.dtype("float32"))
    assert vector.shape == (7,)
    assert [list(arrays) for arrays in slots.by_layer(vector)] == [[], ["kernel", "offset"], []]
    assert [array.shape for array in slots.by_kind(vector)["weight"]] == [(2, 3, 1)]
    assert Slots(()).start(np.dtype("float64")).shape == (0,)
