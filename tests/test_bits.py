"""The tool that hashes every way through the engine: it goes them all, and the bits do not depend on the threads."""

import itertools

import bits
import pytest

IMAGES = ("images", "images in shards", "images, normalised")
DRIVERS = ("one block", "one shard", "shards", "units", "units by blocks", "touched", "normalised", *IMAGES)
STEPS = ("folded", "stepped", "gradient")

# With what each driver must have been run, beside what is below; and what is not there for it.
EVERYWHERE = {
    *("tanh", "sigmoid", "leaky_relu", "gelu", "cross_entropy", "absolute", "binary_cross_entropy"),
    *("l2", "weights", "sgd", "1 hidden layers", "2 hidden layers", "1 threads"),
}
NOT_TOUCHED = {
    *("identity", "relu", "elu", "softplus", "silu", "squared", "huber", "quantile"),
    *("smoothing", "dropout", "max_norm"),
    *("clip_norm", "l1", "decay", "rmsprop", "adagrad", "adam", "momentum", "nesterov", "none", "memory-mapped"),
    *("0 hidden layers", "3 hidden layers", "1 slices", "2 slices", "4 slices"),
}
NOT_FOR = {
    "one block": {"clip_norm", "l1", "decay", "rmsprop", "adagrad", "adam", "momentum", "nesterov", "none"},
    "one shard": set(),
    "shards": set(),
    "units": {"none", "0 hidden layers", "1 slices"},
    "units by blocks": {"none", "0 hidden layers", "1 slices", "2 slices", "memory-mapped"},
    "touched": NOT_TOUCHED - {"momentum", "nesterov", "relu", "dropout", "1 slices", "2 slices"},
    "normalised": {"0 hidden layers"},
    "images": {"0 hidden layers"},
    "images in shards": {"0 hidden layers", "2 slices", "4 slices"},
    "images, normalised": {"0 hidden layers"},
}


def rows_of(form):
    # How rows may be stored, and in which order they come: rows of the network's dtype are gathered in another order,
    # unless the form is transposed, and non-zeros that are sorted before a fit are in order.
    if form == "sparse":
        both = itertools.product(("unsorted", "sorted each time"), ("in order", "in another"))
        return [*both, ("sorted once", "in order")]
    found = [("in place", "in order"), ("converted", "in order"), ("converted", "in another")]
    return [*found, ("in place" if form == "transposed" else "gathered", "in another")]


def is_possible(way, is_sparse):
    kinds = {
        "one block": {"folded"},  # that is what makes it one
        "units": {"folded", "stepped"},
        "units by blocks": {"stepped"},
        "touched": {"stepped"},
        **{name: {*STEPS} for name in ("normalised", "images", "images, normalised")},
    }
    if way.steps not in kinds.get(way.driver, {"stepped", "gradient"}):
        return False
    if way.steps == "gradient" and way.order != "in order":
        return False
    if way.output == "transposed" and way.form == "stored" and is_sparse:
        return False
    if (way.driver, way.rows, way.steps) == ("normalised", "sorted once", "gradient"):  # only L-BFGS sorts for these
        return False
    if way.driver in IMAGES:
        return not is_sparse and way.form == "stored"
    if not is_sparse:
        return way.driver not in ("units by blocks", "touched")
    return way.driver != "touched" or way.rows == "unsorted"


def possible_ways():
    for is_sparse, driver, steps in itertools.product((False, True), DRIVERS, STEPS):
        by_units = "slices" if driver.startswith("units") else "stored"
        for form in [by_units] if is_sparse else ["panels", "stored", "transposed"]:
            for (rows, order), output in itertools.product(
                rows_of("sparse" if is_sparse else form), ("stored", "transposed")
            ):
                way = bits.Way(driver, rows, order, form, steps, output)
                if is_possible(way, is_sparse):
                    yield way


@pytest.fixture(scope="module")
def results():
    """Each situation on one thread, and half of them on more, some with a pause after each row block."""
    found = []
    for i, situation in enumerate(bits.situations()):
        ones = bits.run(situation)
        others = None
        if i // 2 % 2:
            others = bits.run(situation, n_threads=2 + i // 4 % 3, seconds=0.05 if i // 4 % 8 else 3e-4)
        found.append((situation, ones, others))
    return found


def test_every_way_is_gone_in_both_dtypes(results):
    for dtype in bits.DTYPES:
        gone = {way for situation, ones, _ in results if situation.dtype == dtype for way in ones.ways}
        assert gone == set(possible_ways())


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_driver_meets_all_that_it_can(results, driver):
    met = set()
    for _, *runs in results:
        for result in runs:
            if result is not None and any(way.driver == driver for way in result.ways):
                met |= result.features
    possible = (EVERYWHERE | NOT_TOUCHED) - NOT_FOR[driver]
    assert possible - met == set()
    assert met & NOT_FOR[driver] == set()
    assert "2 threads" in met


def test_the_bits_do_not_depend_on_threads_and_pauses(results):
    different = [situation.name for situation, ones, others in results if others and others[:3] != ones[:3]]
    assert different == []
    assert sum("2 threads" in others.features for *_, others in results if others) > 1000


def test_names_are_unique_and_most_give_other_bits(results):
    # A hash of nothing, or of the start, would be the same everywhere.
    assert len({situation.name for situation, *_ in results}) == len(results)
    hashes = [ones.parameters for _, ones, _ in results]
    assert len(set(hashes)) > 0.8 * len(hashes)


def test_differences_are_told_by_way():
    way = ["units, in place, in order, panels, folded, stored"]
    before = {"machine": "this", "hashes": {"avx2": {"a": ["1", "2", "3", way], "b": ["4", "5", "6", way]}}}
    assert bits.differences(before, before) == []
    after = {"machine": "this", "hashes": {"avx2": {"a": ["1", "7", "3", way], "c": ["4", "5", "6", way]}}}
    assert bits.differences(before, after) == [
        "avx2: in one of the files only: b",
        "avx2: in one of the files only: c",
        f"avx2: {way[0]}: history in 1 situations, as in: a",
    ]
    assert bits.differences(before, {"machine": "other", "hashes": {}}) == [
        "the machines differ: this and other",
        "avx2: in one of the files only",
    ]
