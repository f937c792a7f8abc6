"""Which plan each situation gets, and that both sides of each threshold are reached."""

import dataclasses
import inspect
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import fastnn
from fastnn import layout, tuning
from fastnn import plan as plan_module
from fastnn.engine.rows import density, to_csr
from fastnn.kernels.affine import REGISTER_BYTES
from fastnn.kernels.rows import CACHE_LINE
from fastnn.layers import AveragePool2D, Conv2D, Dense, GlobalAveragePool2D, MaxPool2D
from fastnn.layout import LayerFacts, lanes_of, slice_bounds, sliced_row
from fastnn.plan import Data, Machine, Method, choose_storage, facts_of, make_plan, most_few_rows, plan_forward

MACHINE = Machine(n_threads=2, vector_bytes=64)


def plan(sizes=(784, 100, 10), batch_size=128, n=50_000, dtype="float32", update="sgd", **others):
    """Plan for a fit; others are fields of LayerFacts, Data, Method and Machine; row_nonzeros makes the rows sparse.

    Sizes may be layers, on rows of input_shape.
    """
    given = {name: others.pop(name) for name in ("batch_norm", "dropout") if name in others}
    if "input_shape" in others:
        network = fastnn.Network(
            sizes, input_shape=others.pop("input_shape"), batch_norm=given.get("batch_norm", False)
        )
        *hidden, output = network.facts(np.full(len(network.weights) - 1, given.get("dropout", 0.0)))
        sizes = network.sizes
    else:
        *hidden, output = (LayerFacts(n_in, n_out, "tanh", **given) for n_in, n_out in itertools.pairwise(sizes))
    row_nonzeros = others.pop("row_nonzeros", None)
    facts = {name: others.pop(name) for name in ("ordered", "repeated") if name in others}
    data = Data(n, sizes[0], others.pop("stored", dtype), **facts)
    if row_nonzeros is not None:
        most = min(batch_size, 512) * row_nonzeros
        data = data._replace(n_nonzeros=int(n * row_nonzeros), most_nonzeros=int(most))
    machine = MACHINE._replace(**{name: others.pop(name) for name in MACHINE._fields if name in others})
    method = Method(batch_size, update, **others)
    return make_plan((*hidden, LayerFacts(*output[:2])), dtype, data, method, machine)


def summary(found):
    """Driver, form of each layer, rows at a time, shards, step, sorting."""
    folded = "folded" if found.batch_size <= found.fold_rows else "stepped"
    step = "touched" if found.touches else "gradient" if found.update == "none" else folded
    forms = [layer.form for layer in found.layers]
    return (found.driver, forms, found.block_rows, found.n_shards, step, found.sorting)


LENET = {
    "sizes": [Conv2D(20, 5), MaxPool2D(2), Conv2D(50, 5), MaxPool2D(2), Dense(500), Dense(10)],
    "input_shape": (28, 28, 1),
}

#: 100 images in groups of one a lane, of the registers of the kernels that run: 112, 104 or 100.
IN_LANES = -(-100 // lanes_of(4)) * lanes_of(4)

# fmt: off
SITUATIONS = {
    # the seven cells: dense, as sparse rows in order, as sparse rows shuffled
    "1": (dict(sizes=(784, 10), batch_size=50_000, repeated=True), ("rows", ["transposed"], 62, 32, "stepped", "none")),
    "1, sparse": (dict(sizes=(784, 10), batch_size=50_000, repeated=True, row_nonzeros=150),
                  ("rows", ["sparse"], 128, 8, "stepped", "once")),
    "2": (dict(sizes=(784, 20, 10), batch_size=5000, n=5000, repeated=True),
          ("rows", ["transposed", "stored"], 62, 8, "stepped", "none")),
    "3": (dict(sizes=(784, 500, 10), batch_size=50_000, repeated=True),
          ("rows", ["panels", "transposed"], 128, 32, "stepped", "none")),
    "3, sparse": (dict(sizes=(784, 500, 10), batch_size=50_000, repeated=True, row_nonzeros=150),
                  ("units", ["sparse slices", "transposed"], 128, 1, "stepped", "once")),
    "4": (dict(sizes=(784, 20, 10), batch_size=20), ("units", ["transposed", "stored"], 20, 1, "folded", "none")),
    "4, sparse": (dict(sizes=(784, 20, 10), batch_size=20, repeated=True, row_nonzeros=150),
                  ("units", ["sparse slices", "stored"], 20, 1, "folded", "none")),
    "5": (dict(), ("units", ["panels", "transposed"], 128, 1, "folded", "none")),
    "5, shuffled": (dict(ordered=False), ("units", ["panels", "transposed"], 128, 1, "folded", "none")),
    "5, sparse": (dict(repeated=True, row_nonzeros=150),
                  ("units", ["sparse slices", "transposed"], 128, 1, "folded", "once")),
    "5, sparse, shuffled": (dict(row_nonzeros=150, ordered=False),
                            ("units", ["sparse slices", "transposed"], 128, 1, "folded", "none")),
    "6": (dict(sizes=(784, 500, 10), batch_size=20), ("units", ["panels", "transposed"], 20, 1, "folded", "none")),
    "7, sparse, shuffled": (dict(sizes=(784, 500, 10), row_nonzeros=150, ordered=False),
                            ("units", ["sparse slices", "transposed"], 128, 1, "folded", "each batch")),
    # what people train
    "deep, Adam": (dict(sizes=(784, 512, 512, 10), update="adam", n_slots=2, ordered=False),
                   ("units", ["panels", "panels", "transposed"], 128, 1, "stepped", "none")),
    "deep, Adam, large batches": (dict(sizes=(784, 512, 512, 10), batch_size=1024, update="adam", n_slots=2),
                                  ("rows", ["panels", "panels", "transposed"], 128, 4, "stepped", "none")),
    "a table": (dict(sizes=(64, 256, 256, 2), batch_size=256, update="adam", n_slots=2),
                ("units", ["panels", "panels", "transposed"], 256, 1, "stepped", "none")),
    "a narrow table": (dict(sizes=(8, 100, 2), batch_size=32),
                       ("rows", ["panels", "transposed"], 256, 1, "folded", "none")),
    "momentum": (dict(update="momentum", n_slots=1), ("units", ["panels", "transposed"], 128, 1, "stepped", "none")),
    "clipping": (dict(plain=False), ("units", ["panels", "transposed"], 128, 1, "stepped", "none")),
    "one row": (dict(sizes=(4, 3), batch_size=1, n=1), ("rows", ["stored"], 256, 1, "folded", "none")),
    "a batch larger than the data": (dict(sizes=(4, 3), batch_size=99, n=5),
                                     ("rows", ["stored"], 256, 1, "folded", "none")),
    "batch normalisation": (dict(batch_norm=True), ("rows", ["panels", "transposed"], 128, 1, "folded", "none")),
    "batch normalisation, Adam": (dict(batch_norm=True, batch_size=3000, update="adam"),
                                  ("rows", ["panels", "transposed"], 3000, 1, "stepped", "none")),
    "batch normalisation, sparse": (dict(batch_norm=True, row_nonzeros=150, repeated=True),
                                    ("rows", ["sparse", "stored"], 128, 1, "folded", "once")),
    "L-BFGS": (dict(update="none", batch_size=50_000, repeated=True),
               ("rows", ["panels", "transposed"], 128, 32, "gradient", "none")),
    "L-BFGS, text": (dict(sizes=(50_000, 20), update="none", batch_size=50_000, repeated=True, row_nonzeros=80),
                     ("rows", ["sparse"], 128, 8, "gradient", "none")),
    "text, plain steps": (dict(sizes=(100_000, 2), batch_size=100, row_nonzeros=50),
                          ("rows", ["sparse"], 128, 1, "folded", "none")),
    "text, with a penalty": (dict(sizes=(100_000, 2), batch_size=100, row_nonzeros=50, penalised=True, alike=True),
                             ("rows", ["sparse"], 128, 1, "touched", "none")),
    "text, momentum": (dict(sizes=(100_000, 2), batch_size=100, row_nonzeros=50, update="momentum", alike=True),
                       ("rows", ["sparse"], 128, 1, "touched", "none")),
    "text, Adam": (dict(sizes=(100_000, 2), batch_size=100, row_nonzeros=50, update="adam", alike=True),
                   ("rows", ["sparse"], 128, 1, "stepped", "none")),
    "no vectors": (dict(vector_bytes=0), ("units", ["transposed", "transposed"], 128, 1, "folded", "none")),
    "dropout": (dict(dropout=0.5), ("units", ["panels", "transposed"], 128, 1, "folded", "none")),
    "LeNet": (LENET, ("rows", ["stored", "stored", "panels", "transposed"], 128, 2, "stepped", "none")),
    "LeNet, few rows": (LENET | {"batch_size": 100},
                        ("rows", ["stored", "stored", "panels", "transposed"], IN_LANES, 1, "folded", "none")),
    "LeNet, momentum": (LENET | {"update": "momentum", "ordered": False},
                        ("rows", ["stored", "stored", "panels", "transposed"], 128, 2, "stepped", "none")),
    "LeNet, large batches": (LENET | {"batch_size": 5000},
                             ("rows", ["stored", "stored", "panels", "transposed"], 512, 8, "stepped", "none")),
    "LeNet, L-BFGS": (LENET | {"batch_size": 50_000, "update": "none"},
                      ("rows", ["stored", "stored", "panels", "transposed"], 512, 8, "gradient", "none")),
    "LeNet, batch normalisation": (LENET | {"batch_size": 5000, "batch_norm": True},
                                   ("rows", ["stored", "stored", "panels", "transposed"], 5000, 1, "folded", "none")),
    "only pooling": (dict(sizes=[AveragePool2D(4), Dense(10)], input_shape=(28, 28, 1)),
                     ("rows", ["stored", "transposed"], 128, 1, "folded", "none")),
}
# fmt: on


@pytest.mark.parametrize("name", SITUATIONS)
def test_situations(name):
    given, expected = SITUATIONS[name]
    assert summary(plan(**given)) == expected


def first_form(found):
    return found.layers[0].form


def last_form(found):
    return found.layers[-1].form


def n_slices(found):
    return len(found.layers[0].slices)


TEXT = {"sizes": (10_000, 2), "batch_size": 100, "penalised": True, "alike": True}
WIDE = {"sizes": (100, 60, 3), "update": "momentum", "repeated": True}  # 60 float64 or 128 float32: 480, 512 bytes


def pixels(width):
    # 12,500 multiply-adds a position, and three.
    layers = [Conv2D(1, (1, 2500)), GlobalAveragePool2D(), Dense(3)]
    return {"sizes": layers, "input_shape": (5, width, 1), "n": 1000, "batch_size": 1000}


def pooled(width):
    # Bands of two rows that are pooled to one.
    return {"sizes": [Conv2D(1, 1), MaxPool2D(2), Dense(3)], "input_shape": (8, width, 1)}


def one_filter(width):
    # 500 multiply-adds a column of pixels, and two.
    layers = [Conv2D(1, 1), GlobalAveragePool2D(), Dense(2)]
    return {"sizes": layers, "input_shape": (500, width, 1), "batch_size": 200}


def many_units(width):
    # 7,200 multiply-adds a column of pixels, and 200,000; 220,082 parameters.
    layers = [Conv2D(8, 3, padding="same"), GlobalAveragePool2D(), Dense(20_000), Dense(2)]
    return {"sizes": layers, "input_shape": (100, width, 1), "batch_size": 200}


# Pixels of which four rows, in lanes, are the bytes of a band.
BAND_WIDTH = tuning.MAPS_BYTES // (4 * 4 * lanes_of(4)) // 2 * 2

# A constant, a case just below it, a case that reaches it, and what the plan has for both.
THRESHOLDS = [
    ("DENSE_INPUTS", {"sizes": (63, 30, 3)}, {"sizes": (64, 30, 3)}, first_form, ("stored", "transposed")),
    ("WIDE_UNITS", {"sizes": (70, 63, 3)}, {"sizes": (2, 64, 3)}, first_form, ("transposed", "panels")),
    ("LONG_OUTPUT", {"sizes": (8, 31, 3)}, {"sizes": (8, 32, 3)}, last_form, ("stored", "transposed")),
    ("THIN_OUTPUT", {"sizes": (8, 32, 12)}, {"sizes": (8, 32, 13)}, last_form, ("transposed", "stored")),
    ("MANY_UNITS", {"sizes": (70, 199, 3)}, {"sizes": (70, 200, 3)}, n_slices, (2, 4)),
    ("FEW_SLICES", {"sizes": (70, 200, 3)}, {"sizes": (70, 1000, 3)}, n_slices, (4, 8)),
    ("SLICE_UNITS", {"sizes": (70, 19, 3)}, {"sizes": (70, 20, 3)}, n_slices, (1, 2)),
    ("WIDE_SLICE_UNITS", {"sizes": (70, 959, 3)}, {"sizes": (70, 960, 3)}, n_slices, (4, 8)),
    ("UNITS_PRODUCT", {"sizes": (9, 99, 1), "batch_size": 183}, {"sizes": (9, 99, 1), "batch_size": 184},
     lambda p: p.driver, ("rows", "units")),
    ("SHARD_ROWS", {"batch_size": 511}, {"batch_size": 512}, lambda p: (p.driver, p.n_shards),
     (("units", 1), ("rows", 2))),
    ("FEW_SHARDS", {"batch_size": 2047}, {"batch_size": 2048}, lambda p: p.n_shards, (7, 8)),
    ("SHARD_PRODUCTS", {"batch_size": 16 * 1024 - 1}, {"batch_size": 16 * 1024}, lambda p: p.n_shards, (8, 16)),
    ("GRADIENTS_BYTES", {"sizes": (1976, 1976), "batch_size": 40_000}, {"sizes": (1975, 1975), "batch_size": 40_000},
     lambda p: p.n_shards, (8, 16)),
    ("MAX_BLOCK_ROWS", {"sizes": (9000, 3), "batch_size": 513, "row_nonzeros": 1},
     {"sizes": (9000, 3), "batch_size": 512, "row_nonzeros": 1}, lambda p: p.batch_size <= p.fold_rows, (False, True)),
    ("TOUCHED_SHARE", TEXT | {"row_nonzeros": 6.25}, TEXT | {"row_nonzeros": 6.24}, lambda p: p.touches, (False, True)),
    ("SORTED_ONCE", WIDE | {"row_nonzeros": 799 / 128}, WIDE | {"row_nonzeros": 801 / 128}, lambda p: p.sorting,
     ("none", "once")),
    ("SORTED_EACH_TIME", WIDE | {"sizes": (100, 127, 3), "ordered": False, "row_nonzeros": 10},
     WIDE | {"sizes": (100, 128, 3), "ordered": False, "row_nonzeros": 10}, lambda p: p.sorting,
     ("none", "each batch")),
    ("TEAM_ROWS", WIDE | {"sizes": (100, 200, 3), "batch_size": 511, "row_nonzeros": 9},
     WIDE | {"sizes": (100, 200, 3), "batch_size": 512, "row_nonzeros": 9}, lambda p: p.block_rows, (511, 128)),
    ("THIN_UNITS", {"sizes": (784, 33, 3), "batch_size": 1000}, {"sizes": (784, 32, 3), "batch_size": 1000},
     lambda p: p.block_rows, (128, 62)),
    ("BLOCK_ROWS", {"sizes": (60, 60), "batch_size": 5000}, {"sizes": (60, 600), "batch_size": 5000},
     lambda p: p.block_rows, (256, 128)),
    ("THIN_PRODUCT", {"sizes": (50, 100), "batch_size": 5000}, {"sizes": (50, 101), "batch_size": 5000},
     lambda p: p.block_rows, (200, 198)),
    ("BLOCK_PRODUCT", {"sizes": (60, 2000, 999, 2), "batch_size": 5000},
     {"sizes": (60, 2000, 2000, 2), "batch_size": 5000},
     lambda p: p.block_rows, (94, 48)),
    ("FEWEST_BLOCK_ROWS", {"sizes": (60, 4000, 2865, 2), "batch_size": 5000},
     {"sizes": (60, 4000, 9000, 2), "batch_size": 5000}, lambda p: p.block_rows, (17, 16)),
    ("IMAGE_ROWS", LENET | {"batch_size": 496}, LENET | {"batch_size": 528}, lambda p: p.block_rows, (496, 512)),
    ("SHARD_IMAGES", LENET | {"batch_size": 127}, LENET | {"batch_size": 128}, lambda p: (p.n_shards, p.fold_rows),
     ((1, 128), (2, 0))),
    ("IMAGE_SHARD_PRODUCT", one_filter(999), one_filter(1000), lambda p: p.n_shards, (1, 2)),
    ("IMAGE_SHARD_PRODUCTS", many_units(50), many_units(51), lambda p: p.n_shards, (1, 2)),
    ("IMAGE_PRODUCT", pixels(3123), pixels(3124), lambda p: p.block_rows,
     (256, 255 // lanes_of(4) * lanes_of(4))),
    ("MAPS_BYTES", pooled(BAND_WIDTH + 2), pooled(BAND_WIDTH), lambda p: p.layers[0].band, (1, 2)),
    ("SMALL_RUN", {"sizes": (60, 9), "n": 1380}, {"sizes": (60, 9), "n": 1381}, lambda p: p.n_threads, (1, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "below", "reached", "of", "expected"), THRESHOLDS, ids=[row[0] for row in THRESHOLDS])
def test_both_sides_of_each_threshold(name, below, reached, of, expected):
    assert (of(plan(**below)), of(plan(**reached))) == expected


def test_slices_of_wide_layers_are_of_whole_vectors():
    lanes = max(1, REGISTER_BYTES // 4)
    assert slice_bounds(tuning.ALIGNED_FROM - 1, 4) == [0, 32, 63]
    assert slice_bounds(tuning.ALIGNED_FROM + 6, 4) == [0, -(-35 // lanes) * lanes, 70]
    assert slice_bounds(256, 4) == [0, 64, 128, 192, 256]
    assert [len(slice_bounds(width, 4)) - 1 for width in (1000, 2048, 8000, 100_000)] == [8, 16, 63, 64]


def test_rows_of_sparse_slices_fill_lines_and_avoid_powers_of_two():
    line = CACHE_LINE // 4
    assert [sliced_row(n, 4) for n in (1, 8, 9, 33)] == [8, 8, 16, 48]
    assert sliced_row(tuning.STRIP_LINES * line, 4) == tuning.STRIP_LINES * line
    assert sliced_row((tuning.STRIP_LINES + 2) * line, 4) == (tuning.STRIP_LINES + 3) * line


def test_storage_of_rows():
    share = tuning.SPARSE_DENSITY
    given = [
        (False, "auto", False, share),
        (False, "auto", False, share - 0.01),
        (False, "auto", True, None),
        (False, True, True, None),
        (False, False, False, None),
        (True, False, False, None),
    ]
    found = [choose_storage(*each) for each in given]
    assert [is_sparse for is_sparse, _ in found] == [False, True, False, True, False, True]
    assert all(why for _, why in found)


def test_a_call_that_goes_forward_is_bounded_by_its_products():
    data = Data(10**7, 10, "float32")
    small = plan_forward((LayerFacts(10, 100, "tanh"), LayerFacts(100, 2)), "float32", data, MACHINE)
    rows = 8 * small.plan.block_rows
    assert small[1:] == (8, rows, int(tuning.FORWARD_PRODUCT // (1302 * rows)) * rows, 2)
    large = plan_forward((LayerFacts(10, 10**6, "tanh"), LayerFacts(10**6, 2)), "float32", data, MACHINE)
    assert large[1:] == (8, 8 * large.plan.block_rows, 8 * large.plan.block_rows, 2)
    one = plan_forward((LayerFacts(10, 2),), "float32", data._replace(n_rows=1), MACHINE)
    assert (one.plan.block_rows, one.n_parts, one.n_threads) == (1, 1, 1)


def test_images_go_forward_in_row_blocks_that_all_work_counts_for():
    facts = fastnn.Network(LENET["sizes"], input_shape=(28, 28, 1)).facts()
    few = lanes_of(4) // tuning.FEW_IMAGES
    lanes = lanes_of(4)
    most = min(tuning.FORWARD_IMAGES, int(tuning.IMAGE_PRODUCT // (8 * sum(layer.products for layer in facts))))
    cases = [(1, 1, 1), (few, 1, few), (few + 1, lanes, 1), (4 * lanes + 1, lanes, 5), (8 * lanes, lanes, 8)]
    cases += [(8 * lanes + 1, 2 * lanes, 5), (60_000, most // lanes * lanes, 8)]
    for n, block_rows, n_parts in cases:
        found = plan_forward(facts, "float32", Data(n, 784, "uint8"), MACHINE)
        assert (found.plan.block_rows, found.n_parts) == (block_rows, n_parts)
        assert found.plan.trunk.lanes == (1 if n <= few else lanes)
    assert found.run_rows == 8 * found.plan.block_rows


def test_memory_for_predictions_is_that_of_a_group_for_each_thread():
    layers = [Conv2D(64, 3, padding="same"), Conv2D(64, 3, padding="same"), Dense(10)]
    facts = fastnn.Network(layers, input_shape=(96, 96, 3)).facts()
    found = plan_forward(facts, "float32", Data(5000, 96 * 96 * 3, "uint8"), MACHINE)
    numbers = 96 * 96 * 3 + 2 * 98 * 98 * 64
    assert found.plan.work_size < 1.2 * numbers * lanes_of(4) + 2 * found.plan.block_rows * 96 * 96 * 64
    assert found.run_rows == found.n_parts * lanes_of(4)  # Ctrl-C waits for these


def test_memory_is_what_the_engine_allocates(rng):
    images = [Conv2D(5, 3, padding="same"), MaxPool2D(2), Conv2D(4, 2, activation="gelu"), Dense(70), Dense(3)]
    for layers, shape in (((70, 30, 3), None), ((70, 64, 3), None), (images, (7, 5, 2)), (images[1:], (7, 10))):
        for batch_norm, dtype, n_threads in ((False, "float32", 1), (True, "float64", 3)):
            network = fastnn.Network(layers, dtype=dtype, batch_norm=batch_norm, input_shape=shape)
            X, engine = rng.random((600, 70)).astype(dtype), network.engine(n_threads)
            for batch_size, update in ((50, "sgd"), (600, "momentum")):
                found = engine.plan(X, Method(batch_size, update, int(update == "momentum")))
                engine.begin(X, found, np.zeros((found.n_slots, len(network.parameters)), dtype))
                own = [engine.space.work, engine.space.gradients]
                own += [engine.space.parameters, engine.space.state] if found.rearranges else []
                assert sum(array.nbytes for array in own) == found.work_bytes


def test_memory_for_images_is_bounded_for_large_batches_and_little_for_small_ones():
    full, large, small = (plan(**LENET, batch_size=n).work_bytes for n in (50_000, 5000, 16))
    assert full == large < 60e6
    assert small < large / 4


def test_few_rows_are_as_few_as_a_thread_takes():
    assert most_few_rows((LayerFacts(10, 2),), "float32") == tuning.MOST_FEW_ROWS
    assert most_few_rows((LayerFacts(784, 100, "tanh"), LayerFacts(100, 10)), "float32") == tuning.SMALL_RUN // 79_510
    assert most_few_rows((LayerFacts(2000, 2000, "tanh"), LayerFacts(2000, 10)), "float32") == 0
    assert most_few_rows((LayerFacts(10, 10, "tanh", batch_norm=True), LayerFacts(10, 2)), "float32") == 0


def test_few_images_are_few_beside_a_group():
    facts = fastnn.Network(LENET["sizes"], input_shape=(28, 28, 1)).facts()
    for dtype, size in (("float32", 4), ("float64", 8)):
        assert most_few_rows(facts, dtype) == lanes_of(size) // tuning.FEW_IMAGES
    assert most_few_rows((facts[0]._replace(batch_norm=True), *facts[1:]), "float32") == 0


def test_thin_layers_on_large_images_have_memory_for_few(monkeypatch):
    thin = {"sizes": [Conv2D(4, 1), GlobalAveragePool2D(), Dense(2)], "input_shape": (1000, 1000, 1)}
    for factor in (1, 4):
        monkeypatch.setattr(tuning, "IMAGE_BYTES", factor * 250_000_000)
        rows = tuning.IMAGE_BYTES // (4 * (5_000_000 + 4 + 2)) // lanes_of(4) * lanes_of(4)
        assert plan(**thin, batch_size=500).block_rows == max(rows, lanes_of(4))


def test_every_constant_that_plans_use_has_both_sides_tested():
    sources = inspect.getsource(plan_module) + inspect.getsource(layout)
    used = set(re.findall(r"tuning\.([A-Z_]+)", sources))
    tested = {row[0] for row in THRESHOLDS} | {"ALIGNED_FROM", "STRIP_LINES"}
    tested |= {"SPARSE_DENSITY", "FORWARD_PRODUCT", "FORWARD_IMAGES", "FEW_IMAGES", "IMAGE_BYTES", "MOST_FEW_ROWS"}
    tested |= {"LOSS_PRODUCT"}
    assert used == tested


def test_a_plan_is_frozen_comparable_and_hashable():
    found = plan()
    assert found == plan()
    assert hash(found) == hash(plan())
    assert found != plan(batch_size=127)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.batch_size = 1


def test_the_fingerprint_knows_what_changes_bits_and_nothing_else():
    assert plan().fingerprint() == plan(n_threads=1).fingerprint() == plan(n=50_001).fingerprint()
    others = [plan(batch_size=127), plan(dtype="float64"), plan(update="adam"), plan(vector_bytes=0), plan(dropout=0.5)]
    assert len({other.fingerprint() for other in [plan(), *others]}) == 6


def test_the_fingerprint_knows_what_changes_bits_on_images(monkeypatch):
    def of(size=5, stride=1, padding="valid", activation="tanh", pooling=None, **others):
        layers = [Conv2D(20, size, stride, padding, activation), pooling or MaxPool2D(2), Dense(3)]
        return plan(layers, input_shape=(28, 28, 1), **{"batch_size": 500} | others).fingerprint()

    assert of() == of(n_threads=1) == of(n=50_001)
    changed = [of(3), of(stride=2), of(padding="same"), of(activation="relu")]
    changed += [of(pooling=AveragePool2D(2)), of(pooling=MaxPool2D(2, 1)), of(batch_norm=True), of(dropout=0.5)]
    changed += [of(dtype="float64"), of(batch_size=499)]
    for constant in ("IMAGE_ROWS", "MAPS_BYTES", "GRADIENTS_BYTES"):  # row blocks, bands, parts
        with monkeypatch.context() as patch:
            patch.setattr(tuning, constant, 10_000 if constant == "GRADIENTS_BYTES" else 100)
            changed.append(of())
    assert len({of(), *changed}) == 1 + len(changed)


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_choice_has_a_reason(name):
    found = plan(**SITUATIONS[name][0])
    about = [reason.about for reason in found.reasons]
    layers = [f"layer {k}" for k in range(1, len(found.layers) + 1)]
    expected = ["rows", "driver", "batch", "step", *layers, "threads"]
    assert [each for each in about if each != "non-zeros"] == expected
    assert all(reason.choice and reason.why for reason in found.reasons)
    text = str(found)
    assert all(f"{reason.choice}" in text and reason.why in text for reason in found.reasons)


def test_reasons_say_how_many_threads_have_work():
    def threads(**given):
        return next(reason.choice for reason in plan(**given).reasons if reason.about == "threads")

    assert threads(sizes=(784, 10), batch_size=128) == "1 of 2"
    assert threads(sizes=(784, 10), batch_size=512) == "2"
    assert threads(n_threads=8) == "2 of 8"
    assert threads(sizes=(784, 200, 10), n_threads=8) == "4 of 8"
    assert threads(sizes=(784, 2048, 10), n_threads=64) == "16 of 64"
    assert threads(batch_size=50_000, n_threads=64) == "32 of 64"
    assert threads(batch_norm=True, n_threads=8) == "2 of 8"
    assert threads(sizes=(4, 3), n=150) == threads(n_threads=1) == "1"
    of_pixels = {"sizes": [Conv2D(20, 5), Dense(3)], "input_shape": (28, 28, 1), "n_threads": 64}
    assert threads(**of_pixels, batch_size=lanes_of(4)) == "1 of 64"
    assert threads(**of_pixels, batch_size=2 * lanes_of(4) + 1) == "3 of 64"
    assert threads(**LENET, n_threads=64, batch_size=1) == "4 of 64"  # which share the dense layer


def test_reasons_say_how_images_are_trained():
    told = {reason.about: (reason.choice, reason.why) for reason in plan(**LENET).reasons}
    assert told["layer 1"] == ("28 x 28 x 1, 5 x 5 convolution, 2 x 2 max pooling",
                               f"{lanes_of(4)} images at a time, one in each lane of the vector registers; pooled at "
                               "once, before the activation")  # fmt: skip
    assert "threads share the images" in told["driver"][1]
    assert "2 x 2 mean pooling" in str(plan([AveragePool2D(2), Dense(3)], input_shape=(28, 28, 1)))
    normalised = plan(**LENET, batch_norm=True)
    assert "pooled at once" not in str(normalised)
    assert "batch normalisation needs whole batches" in str(normalised)


def test_reasons_say_that_memory_bounds_the_shards():
    def batch(**given):
        return next(reason.why for reason in plan(**given).reasons if reason.about == "batch")

    assert "twice as many would take more than 250 MB" in batch(sizes=(1976, 1976), batch_size=40_000)
    assert "MB" not in batch(sizes=(1976, 1976), batch_size=2000) + batch(batch_size=40_000) + batch(batch_size=9000)


def test_reasons_say_how_rows_are_converted():
    def rows(**given):
        return plan(**given).reasons[0].why

    assert "float32" not in rows()
    assert "float32" in rows(stored="float64")
    assert "1/256" in rows(stored="uint8")


def test_facts_about_rows(rng):
    X = rng.random((30, 8)).astype("float32") * (rng.random((30, 8)) < 0.4)
    assert facts_of(X, 10) == Data(30, 8, "float32")
    rows = to_csr(X, X.dtype)
    counts = np.sort((X != 0).sum(axis=1))
    assert facts_of(rows, 10, False, True) == Data(30, 8, "float32", counts.sum(), counts[-10:].sum(), False, True)


def test_the_documentation_shows_a_plan_as_it_is_printed(mnist):
    X = mnist[0].X
    _, why = choose_storage(False, "auto", density=density(X))
    data = facts_of(to_csr(X, np.dtype("float32")), 128, ordered=False, repeated=True, why=why)
    shapes = (LayerFacts(784, 300, "relu"), LayerFacts(300, 100, "relu"), LayerFacts(100, 10))
    found = make_plan(shapes, "float32", data, Method(128, "adam", 2), MACHINE)
    page = Path(__file__).parent.parent / "docs" / "plan.md"
    texts = (f"\n{found}\n", page.read_text(encoding="utf-8"))
    shown, text = (re.sub(r"\d+\.\d+ MB", "some MB", each) for each in texts)  # the registers decide how many
    assert shown in text


def test_the_engine_carries_out_what_was_planned(rng):
    X, y = rng.random((700, 70)), rng.integers(0, 3, 700)
    for sizes, batch_size in (((70, 30, 3), 200), ((70, 30, 3), 600), ((70, 210, 20, 3), 50)):
        for rows in (X, sparse.csr_matrix(X * (X < 0.2))):
            net = fastnn.Network(sizes)
            trainer = fastnn.Trainer(net, fastnn.SGD(0.1), batch_size)
            found = trainer.plan(rows, y)
            assert found.driver == ("units" if batch_size < 512 else "rows")
            before = net.parameters.copy()
            assert trainer.plan(rows, y) == found
            np.testing.assert_array_equal(net.parameters, before)
            trainer.fit(rows, y, epochs=1)


def test_a_plan_follows_a_changed_constant(monkeypatch):
    # Plans are kept, but a constant is one of the facts that they are kept for.
    arguments = (LayerFacts(70, 30, "tanh"), LayerFacts(30, 3)), "float64", Data(900, 70, "float64"), Method(300, "sgd")
    before = make_plan(*arguments, MACHINE)
    assert make_plan(*arguments, MACHINE) is before
    monkeypatch.setattr(tuning, "DENSE_INPUTS", 71)
    assert make_plan(*arguments, MACHINE).layers[0].form != before.layers[0].form
