"""Every optimizer against what PyTorch's does, with penalties, clipping, schedules and batch normalisation; sparse,
and on threads."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from pairs import parametrize_pairs
from scipy import sparse as sp

import fastnn
from fastnn import schedules

TRUTH = json.loads((Path(__file__).parent / "golden" / "optimizers" / "trajectories.json").read_text())
CASES = TRUTH["cases"]
WITHOUT_SCHEDULE = [name for name, case in CASES.items() if "schedule" not in case]
WITH_SCHEDULE = [name for name, case in CASES.items() if "schedule" in case]
STEPS_AN_EPOCH = 3

# float64 leaves the order of sums.  float32 has 1e-7 a rounding, over twelve steps, and the optimizers that divide by
# a gradient's size pass its relative error on in full where the gradient itself is small.
TRAJECTORY_TOLERANCES = {"float64": 1e-10, "float32": 1e-4}

KINDS = {
    "SGD": fastnn.SGD,
    "RMSprop": fastnn.RMSprop,
    "Adagrad": fastnn.Adagrad,
    "Adam": fastnn.Adam,
    "AdamW": fastnn.AdamW,
}
OPTIMIZERS = {
    name: KINDS[kind](**{"learning_rate" if key == "lr" else key: value for key, value in arguments.items()})
    for name, (kind, arguments) in TRUTH["optimizers"].items()
}


def schedule(name, learning_rate):
    """Return what one of PyTorch's schedules is called here."""
    return {
        "step": schedules.Step(learning_rate, factor=0.1, every=2),
        "exponential": schedules.Exponential(learning_rate, factor=0.8),
        "cosine": schedules.Cosine(learning_rate, epochs=4, final=0.001),
        "warmup": schedules.LinearWarmup(learning_rate, epochs=3, start=0.25),
    }[name.removesuffix("_by_batch")]


def begin(case, dtype="float64", optimizer=None, batch_size=TRUTH["batch_size"], **options):
    """Return a trainer at the start of a case."""
    batch_norm = case.get("batch_norm", False)
    network = fastnn.Network(TRUTH["sizes"], "tanh", dtype, batch_norm=batch_norm)
    network.parameters = np.concatenate([TRUTH["first_parameters"], *(TRUTH["first_norm"] if batch_norm else [])])
    named = {key: case[key] for key in ("l2", "clip_norm", "label_smoothing") if key in case}
    optimizer = optimizer or OPTIMIZERS[case["optimizer"]]
    return fastnn.Trainer(network, optimizer, batch_size, shuffle=False, **named, **options)


def data(sparse=False):
    X, y = np.array(TRUTH["X"]), np.array(TRUTH["y"])
    return (sp.csr_matrix(X) if sparse else X), y


def batches():
    n_rows, size = len(TRUTH["y"]), TRUTH["batch_size"]
    return [slice(first, min(first + size, n_rows)) for first in range(0, n_rows, size)]


def by_epoch(steps):
    """Mean over an epoch's rows of what is stored for each of its batches, for each epoch."""
    sizes = [batch.stop - batch.start for batch in batches()]
    return np.average(np.reshape(steps, (-1, len(sizes))), axis=1, weights=sizes)


def assert_parameters(network, case):
    tolerance = TRAJECTORY_TOLERANCES[network.dtype.name]
    np.testing.assert_allclose(network.parameters, case["parameters"], rtol=0, atol=tolerance)


def assert_history(history, case, dtype):
    tolerance = TRAJECTORY_TOLERANCES[dtype]
    np.testing.assert_allclose(history.log_likelihood, by_epoch(case["log_likelihood"]), rtol=0, atol=tolerance)
    np.testing.assert_allclose(history.objective, by_epoch(case["objective"]), rtol=0, atol=tolerance)


@parametrize_pairs(
    {"name": WITHOUT_SCHEDULE, "n_threads": [1, 2, 3, 4], "sparse": [False, True], "dtype": ["float32", "float64"]}
)
def test_trajectory(name, dtype, sparse, n_threads):
    case = CASES[name]
    trainer = begin(case, dtype, sparse=False, n_threads=n_threads)
    history = trainer.fit(*data(sparse), epochs=TRUTH["epochs"])
    assert_parameters(trainer.network, case)
    assert_history(history, case, dtype)


@pytest.mark.parametrize("name", WITHOUT_SCHEDULE)
def test_trajectory_step_by_step(name, dtype):
    # A fit for each batch: the optimizer's state is kept, and each batch's log-likelihood is seen.
    case, (X, y) = CASES[name], data()
    trainer = begin(case, dtype, batch_size=None)
    found = []
    for _ in range(TRUTH["epochs"]):
        for batch in batches():
            found += trainer.fit(X[batch], y[batch], epochs=1).log_likelihood
    np.testing.assert_allclose(found, case["log_likelihood"], rtol=0, atol=TRAJECTORY_TOLERANCES[dtype])
    assert_parameters(trainer.network, case)


def lasts(case):
    """Return how long the rate stays as it is: an epoch or a batch."""
    return TRUTH["schedules"][case["schedule"]][0]


# Step goes down once an epoch, the others at each step.
@pytest.mark.parametrize("name", [name for name in WITH_SCHEDULE if name.endswith(("by_batch", "step"))])
def test_schedule(name, dtype):
    case = CASES[name]
    optimizer = OPTIMIZERS[case["optimizer"]]
    rates = schedule(case["schedule"], optimizer.learning_rate)
    trainer = begin(case, dtype, dataclasses.replace(optimizer, learning_rate=rates))
    # In two fits: the second goes on where the first has ended.
    found = [value for epochs in (1, TRUTH["epochs"] - 1) for value in trainer.fit(*data(), epochs).log_likelihood]
    tolerance = TRAJECTORY_TOLERANCES[dtype]
    np.testing.assert_allclose(found, by_epoch(case["log_likelihood"]), rtol=0, atol=tolerance)
    assert_parameters(trainer.network, case)


@pytest.mark.parametrize("name", [name for name in WITH_SCHEDULE if name.startswith("sgd")])
def test_rates_of_a_schedule(name):
    case = CASES[name]
    n_steps = len(case["learning_rate"])
    times = np.arange(n_steps) / STEPS_AN_EPOCH
    if lasts(case) == "epoch":
        times = np.floor(times)
    rates = schedule(case["schedule"], OPTIMIZERS[case["optimizer"]].learning_rate).rates(times)
    np.testing.assert_allclose(rates, case["learning_rate"], rtol=1e-13)


@pytest.mark.parametrize("name", [name for name in WITH_SCHEDULE if lasts(CASES[name]) == "epoch"])
def test_learning_rate_by_hand(name, dtype):
    # The optimizer is replaced by its like between fits; what it remembers stays.
    case = CASES[name]
    trainer = begin(case, dtype)
    for rate in case["learning_rate"][::STEPS_AN_EPOCH]:
        trainer.optimizer = dataclasses.replace(trainer.optimizer, learning_rate=rate)
        trainer.fit(*data(), epochs=1)
    assert_parameters(trainer.network, case)


def test_clipping_is_put_to_the_test():
    # One case clips each gradient, and one some of them.
    assert min(CASES["sgd_clipped"]["gradient_norm"]) > CASES["sgd_clipped"]["clip_norm"]
    norms, limit = CASES["sgd_clipped_at_times"]["gradient_norm"], CASES["sgd_clipped_at_times"]["clip_norm"]
    assert min(norms) < limit < max(norms)


# Larger problems, that the engine takes in other ways: (rows, inputs, share of non-zeros, hidden, batch)
PROBLEMS = {
    "small batches": (150, 37, 1, 24, 32),
    "large batches": (1400, 19, 1, 11, 600),
    "no hidden layer": (150, 37, 1, None, 32),
    "sparse, small batches": (150, 60, 0.1, 24, 32),
    "sparse, large batches": (1400, 60, 0.1, 11, 600),
    "very sparse": (60, 3000, 0.001, 5, 8),
}


def problem(name, dtype):
    """Return network, rows, classes and batch size."""
    n_rows, n_in, density, hidden, batch_size = PROBLEMS[name]
    generator = np.random.default_rng(7)
    X = generator.normal(size=(n_rows, n_in)) * (generator.random((n_rows, n_in)) < density)
    y = generator.integers(4, size=n_rows)
    network = fastnn.Network([n_in, 4] if hidden is None else [n_in, hidden, 4], "tanh", dtype)
    return network, (sp.csr_matrix(X) if density < 1 else X), y, batch_size


def trained(name, optimizer, dtype, options, n_threads=1, dense=False):
    network, X, y, batch_size = problem(name, dtype)
    X = X.toarray() if dense else X
    trainer = fastnn.Trainer(network, optimizer, batch_size, n_threads=n_threads, sparse=False, **options)
    trainer.fit(X, y, epochs=2)
    return network.parameters


OPTIONS = {
    "plain": {},
    "l2": {"l2": 1e-3},
    "l1": {"l1": 1e-4},
    "clipped": {"clip_norm": 0.05},
    "all": {"l2": 1e-3, "l1": 1e-4, "clip_norm": 0.05, "max_norm": 0.8, "label_smoothing": 0.1},
}


@parametrize_pairs({"name": PROBLEMS, "optimizer": OPTIMIZERS, "options": OPTIONS, "dtype": ["float32", "float64"]})
def test_same_bits_on_any_number_of_threads(name, optimizer, options, dtype):
    expected = trained(name, OPTIMIZERS[optimizer], dtype, OPTIONS[options])
    for n_threads in (2, 3, 4):
        found = trained(name, OPTIMIZERS[optimizer], dtype, OPTIONS[options], n_threads)
        np.testing.assert_array_equal(found, expected)


@parametrize_pairs(
    {
        "name": [name for name, (_, _, density, _, _) in PROBLEMS.items() if density < 1],
        "optimizer": OPTIMIZERS,
        "options": OPTIONS,
    }
)
def test_sparse_is_as_dense(name, optimizer, options):
    expected = trained(name, OPTIMIZERS[optimizer], "float64", OPTIONS[options], dense=True)
    found = trained(name, OPTIMIZERS[optimizer], "float64", OPTIONS[options])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
