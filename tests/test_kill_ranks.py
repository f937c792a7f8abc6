"""A short run of the tool that makes mishaps of ranks, and what two ranks do in common; in jobs of their own."""

import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import kill_ranks
import numpy as np
import pytest

import fastnn
from fastnn import SGD, Network, Trainer
from fastnn.callbacks import Callback, Checkpoint, EarlyStopping

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or shutil.which("mpiexec") is None, reason="there is no MPI"
)


@pytest.fixture(scope="module")
def jobs():
    with tempfile.TemporaryDirectory(dir=kill_ranks.FOLDER) as place:
        yield kill_ranks.Jobs(Path(place))


@pytest.mark.parametrize(
    ("kind", "task", "rank"),
    [
        ("kill, stepping", "shards", 0),
        ("kill, writing", "own, units", 1),
        ("stop", "shards", 1),
        ("exception between fits", "shards", 0),
        ("Ctrl-C", "units", 0),
    ],
)
def test_a_job_that_a_mishap_ends_goes_on_to_the_same_bits(jobs, kind, task, rank):
    jobs.end(kind, task, 2, rank, random.Random(0))


def test_all_ranks_raise_the_same_and_can_go_on(jobs):
    kinds = ["NaN", "epochs", "memory, stepping", "stray", "Ctrl-C of one rank"]
    jobs.catch(kinds, ["shards", "own, units"], 2, 1, 1, random.Random(0))
    kinds = ["callback, on_start", "callback, on_chunk", "full disk", "divergence", *kill_ranks.SHARED_ONLY]
    jobs.catch(kinds, ["units"], 2, 0, 1, random.Random(0))


def run(*arguments, **environment):
    """Run this file as a job of two ranks; return what it printed."""
    command = ["mpiexec", "-n", "2", sys.executable, __file__, *map(str, arguments)]
    environment = os.environ | {"FASTNN_RANK_TIMEOUT": "30"} | environment
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    return done.returncode, done.stdout + done.stderr


def test_what_two_ranks_do_in_common(tmp_path):
    status, told = run("common", tmp_path)
    assert status == 0, told
    assert told.count("all is well") == 2, told


def test_a_limit_that_is_no_number_of_seconds():
    status, told = run("limit", "soon")  # on one rank only
    assert status != 0
    assert "rank 1: FASTNN_RANK_TIMEOUT must be a number of seconds above 0, not 'soon'" in told
    status, told = run("limit", FASTNN_RANK_TIMEOUT="0")
    assert status != 0
    assert "above 0, not '0'" in told


# What the ranks run.


def data(n=300, n_in=70, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, n_in)), rng.integers(0, 3, n)


def fitted(comm, callbacks=(), epochs=4, network=None, **settings):
    """The history and the parameters after a fit."""
    trainer = Trainer(network or Network([70, 80, 3], seed=1), SGD(0.1), 64, callbacks=callbacks, comm=comm, **settings)
    history = trainer.fit(*data(), epochs=epochs, validation=data(50, seed=1))
    return history, trainer.network.parameters.copy()


def same_as_alone(comm, make, **settings):
    """Ranks and one process come to the same, with the same callbacks."""
    (history, parameters), (there, expected) = (fitted(c, make(), **settings) for c in (comm, None))
    np.testing.assert_array_equal(parameters, expected)
    for name, values in there.columns().items():
        assert name == "seconds" or history.columns()[name] == values, name
    return history


class Does(Callback):
    """Does something after each epoch."""

    def __init__(self, what):
        self.what = what

    def on_epoch(self, fit):
        self.what(fit)


def set_rate(fit):
    fit.learning_rate = 0.1 / len(fit.history)


def stop(fit):
    fit.stop = len(fit.history) == 2


def halve(fit):
    fit.trainer.network.parameters *= 0.5


def check_callbacks(comm):
    for what in (set_rate, stop, halve):
        same_as_alone(comm, lambda what=what: [Does(what)])
    assert len(same_as_alone(comm, lambda: [Does(stop)])) == 2
    history = same_as_alone(comm, lambda: [EarlyStopping(patience=0, min_delta=10.0)], epochs=9)
    assert len(history) == 2
    # They are rank 0's: the others need not have them.
    mine = [Does(set_rate), Does(stop)] if comm.rank == 0 else []
    found, expected = fitted(comm, mine)[1], fitted(None, [Does(set_rate), Does(stop)])[1]
    np.testing.assert_array_equal(found, expected)


def check_resumption(comm, folder):
    # Only rank 0 has the file, and is asked for it.
    own = folder / str(comm.rank)
    own.mkdir()
    early = EarlyStopping(patience=3)
    fitted(comm, [Checkpoint(own / "file"), early], epochs=2)
    assert (own / "file").exists() == (comm.rank == 0)
    network = Network([70, 80, 3], seed=1)
    callbacks = [Checkpoint(own / "file"), EarlyStopping(patience=3)]
    trainer = Trainer(network, SGD(0.1), 64, callbacks=callbacks, comm=comm)
    history = trainer.fit(*data(), epochs=4, validation=data(50, seed=1), resume=own / "file")
    expected, parameters = fitted(None, [EarlyStopping(patience=3)])
    np.testing.assert_array_equal(network.parameters, parameters)
    assert history.log_likelihood == expected.log_likelihood


def check_communicators(comm, mpi):
    expected = fitted(None)[1]
    part = comm.Split(comm.rank % 1)
    alone = comm.Split(comm.rank)
    for other in (part, comm, mpi.COMM_SELF, alone, part):
        np.testing.assert_array_equal(fitted(other)[1], expected)
    threads = threading.active_count()
    for _ in range(3):
        short = comm.Dup()
        np.testing.assert_array_equal(fitted(short)[1], expected)
        assert threading.active_count() == threads + 1
        short.Free()
        time.sleep(0.1)  # its watch ends
        assert threading.active_count() == threads
    # The same trainer with another communicator.
    trainer = Trainer(Network([70, 80, 3], seed=1), SGD(0.1), 64, comm=part)
    trainer.fit(*data(), epochs=2)
    trainer.comm = comm
    trainer.fit(*data(), epochs=2)
    np.testing.assert_array_equal(trainer.network.parameters, expected)
    # Each rank by itself, with its own work.
    fitted(mpi.COMM_SELF if comm.rank else None, epochs=3 + comm.rank, rows="own" if comm.rank else "shared")


def check_plan(comm):
    network = Network([70, 80, 3], seed=1)
    before = network.parameters.copy()
    plan = Trainer(network, SGD(0.1), 64, comm=comm).plan(*data())
    assert plan.sharing == "units"
    assert "ranks" in [reason.about for reason in plan.reasons]
    np.testing.assert_array_equal(network.parameters, before)
    error = refused(lambda: Trainer(network, SGD(0.1), 64, comm=comm).plan(*data(n_in=70 + comm.rank)))
    assert str(error).startswith("rank 1: ")


def refused(call):
    with pytest.raises(ValueError) as found:  # noqa: PT011  its text is looked at where it is called
        call()
    return found.value


def check_threads(comm):
    # Not in the main thread, where signals cannot be kept.
    found = []
    thread = threading.Thread(target=lambda: found.append(fitted(comm)[1]))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], fitted(None)[1])


def check_calls(comm):
    # One rank fits where the other plans; then a fit within a callback of rank 0, and all go on.
    trainer = Trainer(Network([70, 80, 3], seed=1), SGD(0.1), 64, comm=comm)
    for call in (
        lambda: (trainer.plan if comm.rank else trainer.fit)(*data()),
        lambda: fitted(comm, [Does(lambda fit: fitted(comm))]),
    ):
        with pytest.raises((RuntimeError, ValueError), match=r"method must be the same|the same calls"):
            call()
    trainer.fit(*data(), epochs=4)
    np.testing.assert_array_equal(trainer.network.parameters, fitted(None)[1])


def common(folder):
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    check_callbacks(comm)
    check_resumption(comm, folder)
    check_communicators(comm, MPI)
    check_plan(comm)
    check_threads(comm)
    check_calls(comm)
    print("all is well", flush=True)


def limit(value=None):
    from mpi4py import MPI

    if value is not None and MPI.COMM_WORLD.rank == 1:
        os.environ["FASTNN_RANK_TIMEOUT"] = value
    fitted(MPI.COMM_WORLD)


if __name__ == "__main__":
    fastnn.engine.local.settle_sharing = lambda plan, *_: plan  # they share though it takes longer
    if sys.argv[1] == "common":
        common(Path(sys.argv[2]))
    else:
        limit(*sys.argv[2:])
