"""Many fits at once: each gives the bits that it gives alone, and none disturbs the others."""

import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest
import scipy.sparse
from threadpoolctl import threadpool_limits

import fastnn
from fastnn import Network, Trainer, fit_many
from fastnn.callbacks import Callback, Checkpoint, EarlyStopping, HistoryFile
from fastnn.engine.threads import blas_libraries, forks, kernel_run, sharers
from fastnn.training.in_use import in_use

N_IN = 6


@pytest.fixture
def data(rng):
    X = rng.standard_normal((301, N_IN))
    return X, (X[:, 0] + X[:, 1] ** 2 > 1).astype(int)


class Do(Callback):
    """Calls a function after each epoch."""

    def __init__(self, act):
        self.act = act

    def on_epoch(self, fit):
        self.act(fit)


def small(seed, dtype="float64", **settings):
    settings = {"batch_size": 32} | settings
    return Trainer(Network([N_IN, 5, 2], dtype=dtype, seed=seed), fastnn.Adam(), seed=seed, **settings)


def assorted():
    """Trainers that differ in everything."""
    plain = fastnn.SGD(0.1, momentum=0.9)
    return [
        small(0),
        small(1, "float32", dropout=0.3),
        small(2, shuffle=False, l2=0.01, n_threads=3),
        small(3, "float32", sparse=True),
        small(4, sparse=True, shuffle=False, batch_size=None),
        Trainer(Network([N_IN, 3, 2], seed=5), fastnn.LBFGS(), l2=0.1),
        Trainer(Network([N_IN, 70, 60, 2], "relu", "float32", batch_norm=True), plain, batch_size=100, seed=6),
        Trainer(Network([N_IN, 2], dtype="float32"), fastnn.SGD(fastnn.schedules.Exponential(0.5, 0.9)), seed=7),
    ]


def assert_same(trainers, others):
    for trainer, other in zip(trainers, others, strict=True):
        np.testing.assert_array_equal(trainer.network.parameters, other.network.parameters)
        np.testing.assert_array_equal(trainer._state.optimizer, other._state.optimizer)
        assert trainer._state.generator.bit_generator.state == other._state.generator.bit_generator.state
        assert trainer.n_threads == other.n_threads


def values(history):
    return {name: column for name, column in history.columns().items() if name != "seconds"}


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("kind", ["float64", "float32", "uint8", "int64", "strided", "sparse"])
def test_each_has_the_bits_of_its_own_fit(data, kind, n_threads):
    X, y = data
    X = {
        "float64": lambda: X,
        "float32": lambda: X.astype(np.float32),
        "uint8": lambda: (40 * np.abs(X)).astype(np.uint8),
        "int64": lambda: (3 * X).astype(np.int64),
        "strided": lambda: np.asfortranarray(X),
        "sparse": lambda: scipy.sparse.csr_array(np.where(X > 0.5, X, 0)),
    }[kind]()
    weights = np.linspace(0, 2, len(y))
    together, alone = assorted(), assorted()
    validation = X[:100], y[:100]
    histories = fit_many(
        together, X, y, 3, validation=validation, sample_weight=weights, n_threads=n_threads, progress=False
    )
    expected = [each.fit(X, y, 3, validation, sample_weight=weights) for each in alone]
    assert [values(history) for history in histories] == [values(history) for history in expected]
    assert_same(together, alone)
    assert [each.network.input_scale for each in together] == [each.network.input_scale for each in alone]
    fit_many(together, X, y, 2)  # goes on
    [each.fit(X, y, 2) for each in alone]
    assert_same(together, alone)


@pytest.mark.parametrize("kind", ["dense", "sparse", "list"])
def test_rows_of_their_own(data, rng, kind):
    X, y = data
    X = {"dense": X, "sparse": scipy.sparse.coo_array(np.where(X > 0.5, X, 0)), "list": X.tolist()}[kind]
    numbered = X.tocsr() if kind == "sparse" else np.asarray(X)
    weights = rng.random(len(y))
    n = len(assorted())
    rows = [rng.integers(0, len(y), 200 + k) for k in range(n - 1)] + [rng.random(len(y)) < 0.5]
    rest = [np.setdiff1d(np.arange(len(y)), each) for each in rows[:-1]] + [~rows[-1]]
    together, alone = assorted(), assorted()
    histories = fit_many(
        together, X, y, 3, rows=rows, validation_rows=rest, sample_weight=weights, progress=False, n_threads=2
    )
    for k, trainer in enumerate(alone):
        history = trainer.fit(
            numbered[rows[k]],
            y[rows[k]],
            3,
            (numbered[rest[k]], y[rest[k]], weights[rest[k]]),
            sample_weight=weights[rows[k]],
        )
        assert values(history) == values(histories[k])
    assert_same(together, alone)


def test_real_outputs(data):
    X, _ = data
    Y = np.stack([X.sum(axis=1), X[:, 0] ** 2], axis=1)
    make = lambda: [Trainer(Network([N_IN, 4, 2], loss=loss), seed=1) for loss in ("squared", "huber", "squared")]  # noqa: E731
    together, alone = make(), make()
    fit_many(together, X, Y, 4)
    [each.fit(X, Y, 4) for each in alone]
    assert_same(together, alone)


def test_nothing_to_do(data):
    assert fit_many([], *data) == []
    trainer = small(0)
    before = trainer.network.parameters.copy()
    [history] = fit_many([trainer], *data, epochs=0)
    assert len(history) == 0
    np.testing.assert_array_equal(trainer.network.parameters, before)


def test_divergence_of_one_does_not_stop_the_others(data):
    X, y = data
    diverging = Trainer(Network([N_IN, 5, 2], "relu", "float32"), fastnn.SGD(1e30), batch_size=32)
    before = diverging.network.parameters.copy()
    together, alone = [small(0), diverging, small(1)], [small(0), small(1)]
    with pytest.raises(fastnn.ManyFitsError, match=r"1 of 3 fits failed.* trainers\[1\]: DivergenceError") as caught:
        fit_many(together, X, y, 5, n_threads=2)
    results = caught.value.results
    assert [type(result).__name__ for result in results] == ["History", "DivergenceError", "History"]
    assert caught.value.__cause__ is results[1]
    expected = [each.fit(X, y, 5) for each in alone]
    assert [values(results[0]), values(results[2])] == [values(history) for history in expected]
    assert_same(together[::2], alone)
    np.testing.assert_array_equal(diverging.network.parameters, before)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert len(again.results) == 3


def test_an_exception_in_a_callback_ends_its_fit_only(data):
    def fail(fit):
        raise OSError("no room")

    together = [small(0, callbacks=[Do(fail)]), small(1)]
    with pytest.raises(fastnn.ManyFitsError, match=r"trainers\[0\]: OSError: no room") as caught:
        fit_many(together, *data, epochs=3)
    assert isinstance(caught.value.results[0], OSError)
    assert len(caught.value.results[1]) == 3


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
def test_ctrl_c_ends_all(data):
    X, y = data
    started = []

    def interrupt(fit):
        if len(fit.history) == 10 and not started:
            started.append(fit)
            os.kill(os.getpid(), signal.SIGINT)

    trainers = [small(k, callbacks=[Do(interrupt)] if k == 0 else []) for k in range(4)]
    before = trainers[3].network.parameters.copy()
    histories = fit_many(trainers, X, y, 10**6, n_threads=2)
    assert all(history.interrupted for history in histories)
    assert len(histories[0]) > 0
    assert [len(history) for history in histories[2:]] == [0, 0]  # the second may not have ended an epoch
    np.testing.assert_array_equal(trainers[3].network.parameters, before)
    assert all(np.isfinite(trainer.network.parameters).all() for trainer in trainers)
    assert all(each.network not in in_use and each not in in_use for each in trainers)
    interrupted = [len(history) for history in histories[:2]]
    for k, n_epochs in enumerate(interrupted):  # whole epochs, and perhaps steps of the next
        assert n_epochs * 10 <= trainers[k]._state.n_steps < (n_epochs + 1) * 10


def test_callbacks_and_checkpoints_of_each(data, tmp_path):
    X, y = data

    def make(folder):
        os.makedirs(tmp_path / folder)
        return [
            small(
                k,
                callbacks=[
                    EarlyStopping(patience=k),
                    HistoryFile(tmp_path / folder / f"{k}.csv"),
                    Checkpoint(tmp_path / folder / f"{k}.checkpoint"),
                ],
            )
            for k in range(3)
        ]

    together, alone = make("together"), make("alone")
    fit_many(together, X, y, 6, validation=(X[:50], y[:50]), n_threads=2)
    [each.fit(X, y, 6, (X[:50], y[:50])) for each in alone]
    assert_same(together, alone)
    assert [each.callbacks[0].best_epoch for each in together] == [each.callbacks[0].best_epoch for each in alone]
    # Each checkpoint is one of an ordinary fit.
    fresh = small(1, callbacks=[EarlyStopping(patience=1)])
    history = fresh.fit(X, y, 9, (X[:50], y[:50]), resume=tmp_path / "together" / "1.checkpoint")
    assert len(history) >= 1


def test_misuse_is_refused_before_work_begins(data):
    X, y = data
    one, two = small(0), small(1)
    before = one.network.parameters.copy()
    shared, stopping = Trainer(one.network), EarlyStopping("log_likelihood")
    generator = np.random.default_rng(0)
    mixed = Trainer(Network([N_IN, 2]), fastnn.LBFGS(), batch_size=64)
    cases = [
        (TypeError, r"trainers\[1\] must be a fastnn.Trainer, not Network", [one, one.network], {}),
        (ValueError, r"trainers\[0\] and trainers\[2\] are the same", [one, two, one], {}),
        (ValueError, r"trainers\[0\] and trainers\[1\] have the same network", [one, shared], {}),
        (ValueError, "have the same seed", [small(generator), small(generator)], {}),
        (
            ValueError,
            "have the same callback",
            [small(0, callbacks=[stopping]), small(1, callbacks=[stopping])],
            {},
        ),
        (ValueError, "as many as the network has inputs", [one, Trainer(Network([N_IN + 1, 2]))], {}),
        (ValueError, "classes from 0 to 0", [one, Trainer(Network([N_IN, 1]))], {}),
        (ValueError, "LBFGS takes all rows at once", [one, mixed], {}),
        (ValueError, "LBFGS takes all rows at once", [mixed], {"rows": [np.arange(65)]}),
        (ValueError, "rows must hold an array for each of the 2 trainers, not 1", [one, two], {"rows": [[1]]}),
        (ValueError, r"rows\[1\] is empty", [one, two], {"rows": [[1], []]}),
        (ValueError, r"rows\[0\] must hold numbers of rows from 0 to 300, but it holds -1", [one], {"rows": [[0, -1]]}),
        (ValueError, "it holds 301", [one], {"validation_rows": [[0, 301]]}),
        (TypeError, r"rows\[0\] must be numbers of rows", [one], {"rows": [[0.5]]}),
        (TypeError, r"rows\[0\] must be numbers of rows", [one], {"rows": [np.ones(300, bool)]}),
        (ValueError, "sample_weight must be above 0", [one], {"rows": [[0]], "sample_weight": np.arange(301)}),
        (ValueError, "cannot both be given", [one], {"validation": data, "validation_rows": [[0]]}),
        (TypeError, "validation must be a pair", [one], {"validation": 3}),
        (ValueError, "epochs must be at least 0", [one], {"epochs": -1}),
        (ValueError, "n_threads must be at least 1", [one], {"n_threads": 0}),
        (ValueError, "progress must be one of", [one], {"progress": 2}),
    ]
    for error, message, trainers, options in cases:
        with pytest.raises(error, match=message):
            fit_many(trainers, X, y, **options)
        assert not any(trainer in in_use or trainer.network in in_use for trainer in (one, two, mixed))
    with pytest.raises(ValueError, match="X must be finite"):
        fit_many([one], np.where(X > 2, np.nan, X), y)
    np.testing.assert_array_equal(one.network.parameters, before)


def test_one_fit_at_a_time_of_each(data):
    X, y = data
    first, second, refused = small(0), small(1), []

    def fit_again(fit):
        for act in (lambda: fit_many([second, first], X, y), lambda: second.fit(X, y), lambda: second.plan(X, y)):
            with pytest.raises(RuntimeError, match="is in a fit already"):
                act()
        with pytest.raises(RuntimeError, match="cannot be changed during a fit"):
            second.l2 = 1.0
        refused.append(True)

    first.callbacks = [Do(fit_again)]
    fit_many([first, second], X, y, 1, n_threads=1)
    assert refused == [True]


def test_one_bar_for_all(data, capsys):
    fit_many([small(0), small(1)], *data, epochs=3, progress=True)
    assert "2 fits" in capsys.readouterr().err
    fit_many([small(0), small(1)], *data, epochs=3)
    assert capsys.readouterr().err == ""


def test_the_processors_are_shared(data):
    seen = []
    met = threading.Barrier(2)

    def look(fit):
        met.wait(60)
        seen.append(forks.usable_threads(64))
        met.wait(60)

    fit_many([small(k, callbacks=[Do(look)]) for k in range(2)], *data, epochs=1, n_threads=6)
    assert seen == [3, 3]
    lonely = []
    fit_many([small(0, callbacks=[Do(lambda fit: lonely.append(forks.usable_threads(64)))])], *data, 1, n_threads=6)
    assert lonely == [6]
    assert forks.usable_threads(64) == 64
    with sharers:
        assert forks.usable_threads(64) == 64


def test_blas_has_one_thread_in_runs_of_any_python_thread():
    # threadpoolctl 3.8 lets only one thread of the process change the number.
    with threadpool_limits(1, "blas"):
        pass
    before = [library["num_threads"] for library in blas_libraries()]
    found = []

    def look():
        with kernel_run:
            found.append([library["num_threads"] for library in blas_libraries()])

    for thread in [threading.Thread(target=look) for _ in range(2)]:
        thread.start()
        thread.join()
    assert found == [[1] * len(before)] * 2
    assert [library["num_threads"] for library in blas_libraries()] == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_a_child_forked_meanwhile_may_fit_many(data):
    X, y = data
    alone = small(9)
    alone.fit(X, y, 2)

    def fork(fit):
        child = os.fork()
        if child == 0:
            try:
                trainers = [small(9), small(8)]
                fit_many(trainers, X, y, 2, n_threads=2)
                os._exit(0 if np.array_equal(trainers[0].network.parameters, alone.network.parameters) else 1)
            except BaseException:
                os._exit(2)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                statuses.append(status)
                return
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    statuses = []
    fit_many([small(0, callbacks=[Do(fork)]), small(1)], X, y, 1, n_threads=2)
    assert statuses == [0]
