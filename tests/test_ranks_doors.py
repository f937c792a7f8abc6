"""Two ranks of an MPI job at the front doors: the estimators, fit_many and the command line.

Functions that take a comm run on each rank, in a process that a test starts.
"""

import contextlib
import copy
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

import fastnn
from fastnn import Network, Trainer, cli, fit_many
from fastnn.callbacks import Callback, EarlyStopping
from fastnn.layers import Dense
from fastnn.sklearn import MLPClassifier, MLPRegressor, NetworkClassifier, NetworkRegressor, SoftmaxClassifier

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]))

# For Open MPI, which binds ranks to processors and does not start as root otherwise.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a Python program on two ranks, or two programs on a rank each."""
    pytest.importorskip("mpi4py", reason="needs the extra mpi")
    if MPIEXEC is None:
        pytest.skip("needs mpiexec")

    def call(arguments, others=None):
        parts = ["-n", "2", sys.executable, *arguments]
        if others is not None:
            parts = ["-n", "1", sys.executable, *arguments, ":", "-n", "1", sys.executable, *others]
        return subprocess.Popen(
            [MPIEXEC, *parts],
            cwd=tmp_path,
            env=OPEN_MPI | os.environ | {"FASTNN_RANK_TIMEOUT": "60", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return call


@pytest.fixture
def run(start):
    """Return a function that runs a program on two ranks; it returns status, output and errors."""

    def call(*arguments, others=None):
        with start(arguments, others) as process:
            try:
                out, err = process.communicate(timeout=120)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, out, err

    return call


@contextlib.contextmanager
def raises(kind, text):
    """Assert that the same error is raised on all ranks."""
    with pytest.raises(kind, match=text) as caught:
        yield caught
    message = f"{type(caught.value).__name__}: {caught.value}"
    told = sys.modules["mpi4py.MPI"].COMM_WORLD.allgather(message)
    assert told == [message] * len(told)


class Do(Callback):
    """Calls a function after each epoch."""

    def __init__(self, act):
        self.act = act

    def on_epoch(self, fit):
        self.act(fit)


def fail(fit):
    raise OSError("no room")


# Estimators


def learnt(model):
    found = {name: value for name, value in vars(model).items() if name.endswith("_") and name != "network_"}
    found |= {"n_iter": np.ravel(model.n_iter_).tolist(), "parameters": model.network_.parameters.tobytes()}
    return {name: getattr(value, "tolist", lambda value=value: value)() for name, value in found.items()}


def estimators(comm):
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", RuntimeWarning)  # some fits are too small for two ranks
    digits = load_digits()
    X, y, names = digits.data[:600] / 16, digits.target[:600], np.array(list("zyxwvutsrq"))[digits.target[:600]]
    same_as_alone(comm, X, y, names)
    random_numbers(comm, X, y)
    copies(comm, X, y)
    refusals(comm, X, y, names)


def same_as_alone(comm, X, y, names):
    early = {"early_stopping": True, "n_iter_no_change": 1, "tol": 0.1, "max_iter": 8, "random_state": 0}
    for model, targets in [
        (MLPClassifier((100,), batch_size=512, **early), names),
        (
            MLPClassifier(
                20, solver="sgd", learning_rate="adaptive", learning_rate_init=1.0, tol=0.1, max_iter=8, random_state=0
            ),
            y,
        ),
        (
            MLPRegressor(hidden_layer_sizes=(30, 20), activation="tanh", solver="lbfgs", max_iter=5, random_state=0),
            X[:, 20:22],
        ),
        (SoftmaxClassifier(class_weight="balanced", fit_intercept=False, max_iter=8), names),
        (
            NetworkClassifier([Dense(40, dropout=0.2), 30], "tanh", batch_size=64, l1=1e-5, max_iter=2, random_state=0),
            y,
        ),
        (
            NetworkRegressor(30, optimizer="lbfgs", max_iter=5, callbacks=[Do(lambda fit: None)], random_state=0),
            y / 10,
        ),
    ]:
        together = clone(model).set_params(comm=comm).fit(X, targets)
        alone = model.fit(X, targets)
        assert learnt(together) == learnt(alone)
        assert vars(together)["comm"] is comm
        for each in (together, alone):
            each.set_params(warm_start=True, max_iter=2).fit(X, targets)
            if each._stochastic and not each.early_stopping:
                each.partial_fit(X[:200], targets[:200]).partial_fit(X[200:], targets[200:])
        assert learnt(together) == learnt(alone)
        np.testing.assert_array_equal(together.predict(X), alone.predict(X))


def random_numbers(comm, X, y):
    shared = check_random_state(None)
    shared.seed(5)
    alone = MLPClassifier(20, max_iter=2, early_stopping=True).fit(X, y)
    shared.seed(5 + comm.rank)
    before = shared.get_state()[1].tolist()
    together = MLPClassifier(20, max_iter=2, early_stopping=True, comm=comm).fit(X, y)
    assert learnt(together) == learnt(alone)
    assert (shared.get_state()[1].tolist() == before) == (comm.rank > 0)
    own = np.random.RandomState(comm.rank)
    together = [SoftmaxClassifier(solver="sgd", max_iter=2, random_state=own, comm=comm).fit(X, y) for _ in range(2)]
    own = np.random.RandomState(0)
    alone = [SoftmaxClassifier(solver="sgd", max_iter=2, random_state=own).fit(X, y) for _ in range(2)]
    assert [learnt(model) for model in together] == [learnt(model) for model in alone]


def copies(comm, X, y):
    dup = comm.Dup()  # which cannot be pickled
    model = MLPClassifier(20, max_iter=2, random_state=0, comm=dup).fit(X, y)
    assert clone(model).comm is dup
    assert model.get_params()["comm"] is dup
    for again in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):
        assert again.comm is None
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        assert learnt(again.partial_fit(X, y)) == learnt(copy.deepcopy(model).set_params(comm=dup).partial_fit(X, y))
    trainer = pickle.loads(pickle.dumps(Trainer(Network([2, 2]), comm=dup, rows="own")))
    with raises(ValueError, "give comm too"):
        trainer.fit(X[:, :2], y)


def refusals(comm, X, y, names):
    model = MLPClassifier(20, max_iter=2, random_state=0, comm=comm).fit(X, names)
    before = learnt(model)
    last = comm.rank == comm.size - 1
    spoilt, renamed = np.where(last, np.nan, X), np.where(last & (names == "z"), "z2", names)
    callbacks = [Do(fail)] if comm.rank == 0 else []
    for kind, text, arguments, parameters in [
        (ValueError, "rank 1: X must be finite", (spoilt, names), {}),
        (ValueError, "rank 1: Found input variables with inconsistent", (X, names[: 599 if last else 600]), {}),
        (ValueError, "the same classes on all ranks: on 0 .*, on 1 .*z2", (X, renamed), {}),
        (ValueError, "y must be the same on all ranks", (X, np.roll(names, comm.rank)), {}),
        (ValueError, "epochs must be the same on all ranks", (X, names), {"max_iter": 3 + comm.rank}),
        (ValueError, "^alpha must be", (X, names), {"alpha": -1.0}),
        (ValueError, "non-finite", (1e200 * X, names), {"solver": "sgd", "learning_rate_init": 1e200}),
        (OSError, "no room", (X, names), {"callbacks": callbacks}),
    ]:
        with raises(kind, text):
            clone(model).set_params(**parameters).fit(*arguments)
        given = model.get_params()
        with raises(kind, text):
            model.set_params(**parameters).fit(*arguments)
        model.set_params(**given)
        assert learnt(model) == before
    with raises(TypeError, "comm must be a communicator"):
        clone(model).set_params(comm=3).fit(X, names)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        with raises(ConvergenceWarning, "hasn't converged"):
            model.fit(X, names)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(X, names)
    assert len(told) == (comm.rank == 0)


# fit_many


def assorted(seed=0, **settings):
    """Trainers that differ in everything."""
    several = [
        Trainer(Network([64, 20, 10], seed=0), fastnn.Adam(), batch_size=50, seed=seed, dropout=0.1),
        Trainer(Network([64, 100, 10], dtype="float32", seed=1), fastnn.SGD(0.1, 0.9), batch_size=32, seed=seed + 1),
        Trainer(Network([64, 30, 10], seed=2), fastnn.LBFGS(), l2=0.1),
        Trainer(Network([64, 10], dtype="float32", seed=3), fastnn.SGD(0.5), batch_size=100, sparse=True),
        Trainer(Network([64, 50, 10], "relu", batch_norm=True, seed=seed), fastnn.RMSprop(), batch_size=64, seed=None),
    ]
    several[0].callbacks = [EarlyStopping("log_likelihood", patience=0, min_delta=0.1)]
    for name, value in settings.items():
        for trainer in several:
            setattr(trainer, name, value)
    return several


def states(trainers):
    return [
        (
            each.network.parameters.tobytes(),
            each.network.input_scale,
            each._state.optimizer.tobytes(),
            each._state.generator.bit_generator.state,
            each._state.n_steps,
            each._state.curve,
        )
        for each in trainers
    ]


def columns(history):
    return {name: values for name, values in history.columns().items() if name != "seconds"}, history.converged


def many(comm):
    digits = load_digits()
    X, y = (digits.data[:600] * 15).astype(np.uint8), digits.target[:600]
    whole_networks(comm, X, y)
    parts(comm, X, y)
    failures(comm, X, y)
    misuse(comm, X, y)
    interrupted(comm, X, y)


def whole_networks(comm, X, y):
    generators = comm.bcast([trainer._state.generator.bit_generator.state for trainer in assorted()])
    mine = []
    together, alone = assorted(seed=comm.rank), assorted()  # rank 0's seeds count
    for trainer, state in zip(together, generators, strict=True):
        trainer.callbacks = [*trainer.callbacks, Do(lambda fit: mine.append(id(fit.trainer)))]
        if comm.rank == 0:
            trainer._state.generator.bit_generator.state = state
    for trainer, state in zip(alone, generators, strict=True):
        trainer._state.generator.bit_generator.state = state
    for _ in range(2):  # the second goes on
        histories = fit_many(together, X, y, 4, validation=(X[:90], y[:90]), comm=comm)
        expected = [trainer.fit(X, y, 4, (X[:90], y[:90])) for trainer in alone]
        assert [columns(history) for history in histories] == [columns(history) for history in expected]
        assert states(together) == states(alone)
    here = [id(trainer) in mine for trainer in together]
    assert np.sum(comm.allgather(here), axis=0).tolist() == [1] * len(here)  # each on one rank
    assert any(here)
    assert fit_many([], X, y, comm=comm) == []
    [one], [other] = assorted()[:1], assorted()[:1]
    fit_many([one], X, y, 2, comm=comm)
    other.fit(X, y, 2)
    assert states([one]) == states([other])


def parts(comm, X, y):
    together, alone = assorted(), assorted()
    together[4] = Trainer(Network([64, 10]), seed=4)
    alone[4] = Trainer(Network([64, 10]), seed=4)
    rows = [np.arange(600) % 5 != k for k in range(5)]
    histories = fit_many(together, X, y, 2, rows=rows, validation_rows=[~each for each in rows], comm=comm)
    expected = [
        trainer.fit(X[inside], y[inside], 2, (X[~inside], y[~inside]))
        for trainer, inside in zip(alone, rows, strict=True)
    ]
    assert [columns(history) for history in histories] == [columns(history) for history in expected]
    assert states(together) == states(alone)


class OfTwo(Exception):
    """Cannot be unpickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def failures(comm, X, y):
    def fail(fit):
        raise OfTwo(1, 2)

    bad = Trainer(Network([64, 5, 10], "relu", "float32"), fastnn.SGD(1e30), batch_size=32)
    trainers = [*assorted()[:2], bad, Trainer(Network([64, 10]), callbacks=[Do(fail)])]
    before = bad.network.parameters.copy()
    text = r"2 of 4 fits failed.* trainers\[2\]: DivergenceError.* trainers\[3\]: .*1 and 2"
    with raises(fastnn.ManyFitsError, text) as caught:
        fit_many(trainers, X, y, 3, comm=comm)
    results = caught.value.results
    assert [len(results[k]) for k in (0, 1)] == [3, 3]
    assert isinstance(results[2], fastnn.DivergenceError)
    np.testing.assert_array_equal(bad.network.parameters, before)
    assert len(set(map(pickle.dumps, comm.allgather(states(trainers[:2]))))) == 1


def misuse(comm, X, y):
    trainers = assorted()
    before, last = states(trainers), comm.rank == comm.size - 1
    for kind, text, given, options in [
        (ValueError, r"trainers\[0\] must have comm=None", assorted(comm=comm), {}),
        (ValueError, "number of trainers must be the same", trainers[: 2 + comm.rank], {}),
        (ValueError, r"l2 of trainers\[0\] must be the same", assorted(l2=0.1 * comm.rank, optimizer=fastnn.SGD()), {}),
        (ValueError, "y must be the same on all ranks", trainers, {"y": np.roll(y, comm.rank)}),
        (ValueError, "numbers of rows of trainers", trainers[:1], {"rows": [np.arange(9 + comm.rank)]}),
        (ValueError, "rank 1: y must hold classes from 0 to 9", trainers, {"y": y + 99 * last}),
        (ValueError, "^epochs must be at least 0", trainers, {"epochs": -1}),
    ]:
        with raises(kind, text):
            fit_many(given, X, **({"y": y} | options), comm=comm)
    assert states(trainers) == before
    for comm_of_all in (comm, None):
        with raises(ValueError, r"trainers\[1\] must have comm=None"):
            fit_many([trainers[0], Trainer(Network([64, 10]), comm=comm)], X, y, comm=comm_of_all)


def interrupted(comm, X, y):
    def interrupt(fit):
        if len(fit.history) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    trainers = [Trainer(Network([64, 20, 10], seed=k), batch_size=50, seed=k) for k in range(6)]
    if comm.rank == 1:
        for trainer in trainers:
            trainer.callbacks = [Do(interrupt)]
    histories = fit_many(trainers, X, y, 10**6, comm=comm, n_threads=1)
    assert all(history.interrupted for history in histories)
    assert sum(len(history) == 0 for history in histories) == 4
    found = comm.allgather((states(trainers), [columns(history) for history in histories]))
    assert found[0] == found[1]


@pytest.mark.parametrize("act", [estimators, many])
def test_same_as_alone_and_all_leave_together(run, act):
    status, _, err = run("-m", "mpi4py", str(Path(__file__).resolve()), act.__name__)
    assert status == 0, err
    assert err == ""


# The command line

TRAIN = ("-m", "fastnn", "train", "--rows", "2000", "--hidden", "50", "--batch-size", "500", "--epochs")
RANKS = "--distributed"


def without_seconds(out):
    return re.sub(r"[\d.]+ s\b", "", out)


def test_the_command_has_the_file_of_one_process(run, tmp_path):
    status, out, err = run(*TRAIN, "2", RANKS, "--checkpoint", "c", "--history", "h.csv")
    assert (status, err) == (0, "")
    assert "2 ranks, " in out
    process = subprocess.run(
        [sys.executable, *TRAIN, "2", RANKS, "--save", "alone"], cwd=tmp_path, capture_output=True, text=True
    )
    alone = process.stdout.replace("alone", "digits.safetensors")
    lines, expected = without_seconds(out).splitlines(), without_seconds(alone).splitlines()
    assert "1 rank, " in alone
    assert lines[:1] + lines[2:] == expected[:1] + expected[2:]  # each once
    assert (tmp_path / "digits.safetensors").read_bytes() == (tmp_path / "alone").read_bytes()
    assert len((tmp_path / "h.csv").read_text().splitlines()) == 3
    # It continues alone, or on two ranks.
    shutil.copy(tmp_path / "c", tmp_path / "c1")
    status, out, err = run(*TRAIN, "3", RANKS, "--checkpoint", "c", "--save", "two")
    assert (status, err, out.count("continuing from c\n")) == (0, "", 1)
    subprocess.run([sys.executable, *TRAIN, "3", "--checkpoint", "c1", "--save", "one"], cwd=tmp_path, check=True)
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()


def test_the_command_explains_what_ranks_share(run, tmp_path):
    status, out, err = run(*TRAIN, "2", RANKS, "--explain")
    assert (status, err) == (0, "")
    assert re.search(r"^ranks +2, \w+ ", out, re.M)
    assert out.count("nothing was trained") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "others", "text"),
    [
        (["--epochs", "x"], None, "argument --epochs: invalid int value"),
        ([], ["--data", "nowhere"], "rank 1: nowhere has no file"),
        (["--save", "nowhere/x"], None, "the folder .* does not exist"),
        (["--learning-rate", "1e30", "--activation", "relu"], None, "became infinite or NaN in epoch 1"),
    ],
)
def test_a_mistake_is_one_line(run, tmp_path, options, others, text):
    others = others and [*TRAIN, "2", RANKS, *others]
    status, _, err = run(*TRAIN, "2", RANKS, *options, others=others)
    assert status == 2, err
    [line] = [line for line in err.splitlines() if "error: " in line]  # Open MPI's mpiexec adds lines of its own
    assert re.match(f"fastnn.*: error: .*{text}", line)
    assert not (tmp_path / cli.DEFAULT_MODEL).exists()


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
def test_ctrl_c_keeps_what_was_learnt(start, tmp_path):
    with start([*TRAIN, "1000000", RANKS]) as process:
        line = ""
        while not re.match(r"epoch +5/", line):
            line = process.stdout.readline()
            assert line, process.stderr.read()
        if "HYDRA" not in subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True).stdout:
            process.kill()
            pytest.skip("this mpiexec kills the ranks")
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode == cli.INTERRUPTED, err
    assert out.count("interrupted; what has been learnt so far") == 1
    fastnn.Network.load(tmp_path / cli.DEFAULT_MODEL)


def test_ctrl_c_waits_until_the_ranks_have_joined():
    with cli.holding_interrupts() as noted:
        signal.raise_signal(signal.SIGINT)
    assert noted == [signal.SIGINT]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("missing", ["mpi4py", "mpi4py.MPI"])
def test_without_mpi4py_a_line_says_what_to_install(monkeypatch, capsys, missing):
    monkeypatch.delattr("mpi4py.MPI", raising=False)  # an earlier test may have imported it
    monkeypatch.setitem(sys.modules, missing, None)
    assert cli.main(["train", "--distrib"]) == 2
    assert capsys.readouterr().err == 'fastnn: error: --distributed needs mpi4py and MPI: pip install "fastnn[mpi]"\n'


if __name__ == "__main__":
    from mpi4py import MPI

    globals()[sys.argv[1]](MPI.COMM_WORLD)
