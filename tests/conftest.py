"""Shared by all tests: the one table of tolerances and the embedded data."""

import itertools
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest

# Read when OpenMP is loaded.  Tests ask for more threads than there are processors, which must not wait busily.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import fastnn
from fastnn import cli

# Relative to the largest expected value, or to 1 (the size of the terms) where their sum cancels: a handful
# of roundings in sums of up to a few hundred terms.
TOLERANCES = {"float32": 3e-6, "float64": 1e-14}

# Of activations and their slopes, over all numbers, in units in the last place: of the value, and of the largest term
# of which the slope is the sum.  A few roundings each; for GELU those of two polynomials, too.
ULPS = {
    "tanh": (3, 3),
    "sigmoid": (3, 3),
    "elu": (2, 1),
    "softplus": (3, 4),
    "gelu": (10, 5),
    "silu": (4, 4),
}


# Two processes that are given the same folder run all tests once: a file of tests belongs to whichever begins it first,
# and one of them begins with the last.  What each has begun is marked in the folder.
BEGUN = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption(
        "--share", type=Path, metavar="FOLDER", help="leave files of tests to another process that has begun them"
    )


def claim(mark):
    """Return whether no process had claimed this before."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def pytest_collection_modifyitems(config, items):
    folder = config.getoption("share")
    if folder and not claim(folder / "from the first"):
        files = [list(group) for _, group in itertools.groupby(items, lambda item: item.path)]
        items[:] = itertools.chain(*reversed(files))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    folder = item.config.getoption("share")
    begun = item.config.stash.setdefault(BEGUN, {})
    if folder and item.path not in begun:
        begun[item.path] = claim(folder / item.path.name)
    return None if begun.get(item.path, True) else True


def pytest_configure():
    # Tests send Ctrl-C to themselves, and a process that a shell has started in the background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=list(TOLERANCES))
def dtype(request):
    return request.param


@pytest.fixture
def assert_close(dtype, assert_close_in):
    """Assert that two arrays agree to the dtype's rounding, times a factor that the caller explains."""
    return partial(assert_close_in, dtype)


@pytest.fixture
def assert_close_in():
    """Assert the same for a dtype that is given."""

    def check(dtype, actual, expected, factor=1):
        actual, expected = np.asarray(actual, float), np.asarray(expected, float)
        assert actual.shape == expected.shape
        scale = np.abs(expected).max(initial=1)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=factor * TOLERANCES[dtype] * scale)

    return check


@pytest.fixture
def assert_accurate(dtype):
    """Assert that the values and slopes of an activation agree to ULPS with long double ones, at the points z."""

    def check(activation, z, found, expected, terms):
        tiny = np.finfo(dtype).smallest_normal
        for actual, exact, largest, bound in zip(found, expected, terms, ULPS[activation], strict=True):
            error = np.abs(actual.astype(np.longdouble) - exact)
            # exp counts as 0 where it is hardly a normal number, and so does what it is multiplied by.
            error[(actual == 0) & (np.abs(exact) < 2 * (1 + np.abs(z)) * tiny)] = 0
            assert (error / np.spacing(np.abs(largest).astype(dtype))).max() <= bound

    return check


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def environment():
    """The variables that decide how numbers round: a file of tests leaves them to the next as they were."""
    before = rounding_variables()
    yield
    assert rounding_variables() == before


def rounding_variables():
    return {name: value for name, value in os.environ.items() if name.startswith(("FASTNN_", "OMP_", "OPENBLAS_"))}


@pytest.fixture(scope="session")
def mnist():
    """Training, validation and test set, float64."""
    return fastnn.datasets.load_mnist(dtype="float64")


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command line in an empty folder; returns status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            status = leaving.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
