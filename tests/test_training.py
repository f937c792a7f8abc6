"""The trainer: what a fit does, what it records, how it stops, and what it leaves behind."""

import copy
import math
import os
import pickle
import platform
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from pairs import parametrize_pairs
from scipy import sparse
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_info, threadpool_limits

import fastnn
from fastnn import tuning
from fastnn.callbacks import Callback
from fastnn.engine.threads import available_threads
from fastnn.kernels import dense
from fastnn.kernels.losses import LOSSES, Targets
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.optimizers import step_table
from fastnn.plan import Method


@pytest.fixture
def data(rng):
    """600 rows of three classes that a line can tell apart but for some noise."""
    X = rng.standard_normal((600, 7))
    y = (X[:, :3] + 0.3 * rng.standard_normal((600, 3))).argmax(axis=1)
    return X, y


def fit(X, y, sizes=(7, 5, 3), epochs=3, dtype="float64", optimizer=None, **options):
    network = fastnn.Network(sizes, dtype=dtype)
    trainer = fastnn.Trainer(network, optimizer or fastnn.SGD(0.2), **options)
    return network, trainer.fit(X, y, epochs)


def test_the_history_is_the_mean_over_the_rows_of_each_batch_before_its_update(data):
    X, y = data
    network = fastnn.Network([7, 5, 3])
    single = fastnn.Network([7, 5, 3])
    history = fastnn.Trainer(network, batch_size=250, shuffle=False, l2=0.1).fit(X, y, epochs=2)
    total = []
    step = fastnn.Trainer(single, l2=0.1)
    for _ in range(2):
        epoch = 0.0
        for batch in (slice(0, 250), slice(250, 500), slice(500, 600)):
            epoch += single.log_likelihood(X[batch], y[batch]) * len(y[batch])
            step.fit(X[batch], y[batch], epochs=1)
        total.append(epoch / 600)
    np.testing.assert_allclose(history.log_likelihood, total, rtol=1e-13)
    np.testing.assert_allclose(network.parameters, single.parameters, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_follows_scikit_learn(data, momentum, nesterov):
    # Same start, same batches, same penalty (scikit-learn divides alpha by the rows of the batch).
    X, y = data
    other = MLPClassifier(
        (5,),
        activation="tanh",
        solver="sgd",
        learning_rate_init=0.1,
        momentum=momentum,
        nesterovs_momentum=nesterov,
        alpha=2.0,
        batch_size=200,
        shuffle=False,
        max_iter=1,
    )
    other.partial_fit(X[:200], y[:200], classes=[0, 1, 2])
    network = fastnn.Network([7, 5, 3])
    trainer = fastnn.Trainer(network, fastnn.SGD(0.1, momentum, nesterov), l2=2.0 / 200)
    network.weights, network.biases = other.coefs_, other.intercepts_
    # scikit-learn's velocity from its first step is not known here, so both begin anew.
    other._optimizer.velocities = [np.zeros_like(v) for v in other._optimizer.velocities]
    for _ in range(5):
        for first in range(0, 600, 200):
            batch = slice(first, first + 200)
            other.partial_fit(X[batch], y[batch])
            trainer.fit(X[batch], y[batch], epochs=1)
    for ours, theirs in zip([*network.weights, *network.biases], [*other.coefs_, *other.intercepts_], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_validation_is_measured_after_each_epoch(data):
    X, y = data
    network = fastnn.Network([7, 5, 3])
    trainer = fastnn.Trainer(network)
    validation = (X[:100], y[:100])
    history = trainer.fit(X, y, epochs=2, validation=validation)
    assert len(history) == len(history.seconds) == len(history.validation_error) == 2
    assert history.validation_error[-1] == network.error(*validation)
    assert history.validation_log_likelihood[-1] == network.log_likelihood(*validation)
    assert not history.interrupted


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_calling_again_goes_on(data, momentum):
    X, y = data
    options = {"batch_size": 64, "seed": 3}
    at_once, history = fit(X, y, epochs=4, optimizer=fastnn.SGD(0.1, momentum), **options)
    network = fastnn.Network([7, 5, 3])
    trainer = fastnn.Trainer(network, fastnn.SGD(0.1, momentum), **options)
    parts = [trainer.fit(X, y, epochs=n).log_likelihood for n in (1, 0, 3)]
    np.testing.assert_array_equal(network.parameters, at_once.parameters)
    assert [*parts[0], *parts[1], *parts[2]] == history.log_likelihood


@parametrize_pairs(
    {
        "kind": ["dense", "sparse", "uint8"],
        "momentum": [0.0, 0.9],
        "batch_size": [None, 20, 999, 1100],
        "dtype": ["float32", "float64"],
    }
)
def test_same_bits_whatever_the_number_of_threads(rng, dtype, kind, momentum, batch_size):
    X = rng.integers(0, 255, (3001, 30)) * (rng.random((3001, 30)) < 0.5)
    X = X.astype(np.uint8) if kind == "uint8" else X / 256
    y = rng.integers(0, 10, 3001)
    results = []
    for n_threads in (1, 2, 3, 4):
        network, history = fit(
            X,
            y,
            (30, 17, 10),
            2,
            dtype,
            fastnn.SGD(0.1, momentum),
            batch_size=batch_size,
            n_threads=n_threads,
            sparse=kind == "sparse",
            l2=0.01,
        )
        results.append((network.parameters, history.log_likelihood))
    for parameters, log_likelihood in results[1:]:
        np.testing.assert_array_equal(parameters, results[0][0])
        assert log_likelihood == results[0][1]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("sizes", "n", "batch_size", "optimizer"),
    [
        ((30, 8192, 40, 3), 100, 40, fastnn.Adam()),  # by units: layers of 64 and of 2 slices
        ((30, 12, 3), 2100, None, fastnn.Adam()),  # by rows: 64 shards
        ((30, 12, 3), 2100, None, fastnn.LBFGS()),
    ],
)
def test_same_bits_on_64_threads(monkeypatch, rng, dtype, sizes, n, batch_size, optimizer, sparse):
    monkeypatch.setattr(tuning, "SHARD_PRODUCTS", 8)
    monkeypatch.setattr(tuning, "SMALL_RUN", 0)
    X, y = rng.random((n, 30)) * (rng.random((n, 30)) < 0.5), rng.integers(0, 3, n)
    clip_norm = None if isinstance(optimizer, fastnn.LBFGS) else 0.1
    results = []
    for n_threads in (1, 2, 3, 7, 16, 64):
        network = fastnn.Network(sizes, dtype=dtype, activation="relu")
        trainer = fastnn.Trainer(
            network, optimizer, batch_size, n_threads=n_threads, sparse=sparse, l2=0.01, clip_norm=clip_norm
        )
        history = trainer.fit(X, y, epochs=2)
        results.append((network.parameters, history.objective, network.predict_proba(X, n_threads)))
    plan = trainer.plan(X, y)
    assert plan.n_threads == 64
    assert 64 in (plan.n_shards, len(plan.layers[0].slices))
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("optimizer", [fastnn.SGD(0.1), fastnn.Adam()])
@pytest.mark.parametrize("width", [40, 410])
def test_sorting_shuffled_sparse_rows_changes_no_bits(monkeypatch, rng, dtype, optimizer, width):
    X, y = rng.random((201, 60)) * (rng.random((201, 60)) < 0.4), rng.integers(0, 3, 201)
    results = []
    for fewest in (0, np.inf):  # non-zeros from which on they are sorted: always, never
        monkeypatch.setattr(tuning, "SORTED_EACH_TIME", ((fewest, 0),))
        for n_threads in (1, 2, 3, 4):
            options = {"batch_size": 20, "n_threads": n_threads, "sparse": True}
            results.append(fit(X, y, (60, width, 3), 2, dtype, optimizer, **options)[0].parameters)
    for parameters in results[1:]:
        np.testing.assert_array_equal(parameters, results[0])


def test_the_blas_setting_of_the_caller_changes_nothing_and_comes_back(data):
    X, y = data
    results = []
    for limit in (1, 2):
        with threadpool_limits(limit, user_api="blas"):
            results.append(fit(X, y)[0].parameters)
            with pytest.raises(fastnn.DivergenceError):
                fit(X * 1e200, y, sizes=(7, 3), optimizer=fastnn.SGD(1e200))
            for library in threadpool_info():
                if library["user_api"] == "blas":
                    assert library["num_threads"] == limit
    np.testing.assert_array_equal(*results)


def test_several_python_threads_at_once(data):
    X, y = data
    expected = fit(X, y, batch_size=20, epochs=20)[0].parameters
    found = [None] * 4

    def work(i):
        found[i] = fit(X, y, batch_size=20, epochs=20)[0].parameters

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for parameters in found:
        np.testing.assert_array_equal(parameters, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_a_forked_child_trains_too(tmp_path):
    # In a process of its own: this one has threads of other libraries.
    script = """
        import os, signal, numpy as np, fastnn
        rng = np.random.default_rng(0)
        X, y = rng.random((5000, 50)), rng.integers(0, 3, 5000)
        def train():
            network = fastnn.Network([50, 64, 3])
            for batch_size in (None, 100):
                fastnn.Trainer(network, batch_size=batch_size, n_threads=2).fit(X, y, epochs=2)
            return network.predict_proba(X)
        expected = train()
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # if it hangs
            os._exit(0 if np.array_equal(train(), expected) else 3)
        assert np.array_equal(train(), expected)
        assert os.waitpid(child, 0)[1] == 0
    """
    command = [sys.executable, "-W", "ignore:.*fork:DeprecationWarning", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_shuffling(data):
    X, y = data
    ordered = fit(X, y, batch_size=50, shuffle=False)[0].parameters
    shuffled = [fit(X, y, batch_size=50, seed=seed)[0].parameters for seed in (0, 0, 1)]
    np.testing.assert_array_equal(shuffled[0], shuffled[1])
    assert not np.array_equal(shuffled[0], shuffled[2])
    assert not np.array_equal(shuffled[0], ordered)
    # The order is the one that the seed's generator draws.
    order = np.random.default_rng(0).permutation(600)
    by_hand = fit(X[order], y[order], batch_size=50, shuffle=False, epochs=1)[0].parameters
    np.testing.assert_array_equal(fit(X, y, batch_size=50, epochs=1)[0].parameters, by_hand)


@pytest.mark.parametrize("n", [1, 2, 601])
@pytest.mark.parametrize("batch_size", [None, 1, 7, 10_000])
def test_any_number_of_rows(rng, dtype, n, batch_size):
    X, y = rng.standard_normal((n, 7)), rng.integers(0, 3, n)
    network, history = fit(X, y, batch_size=batch_size, dtype=dtype, epochs=2)
    assert history.log_likelihood[1] != history.log_likelihood[0]
    assert np.isfinite(network.parameters).all()


@pytest.mark.parametrize("sizes", [(7, 3), (7, 1, 3), (7, 5, 1), (7, 4, 5, 6, 3)])
def test_any_shape_of_network(data, sizes):
    X, y = data
    y = np.minimum(y, sizes[-1] - 1)
    history = fit(X, y, sizes, epochs=30, batch_size=60)[1]
    assert history.log_likelihood[-1] > history.log_likelihood[0] or sizes[-1] == 1


def test_dense_and_sparse_agree(data, dtype, assert_close):
    X, y = data
    X = X * (X > 1)
    results = [
        fit(given, y, batch_size=64, sparse=choice, dtype=dtype)[0].parameters
        for given, choice in ((X, False), (X, True), (X, "auto"), (sparse.csr_matrix(X), "auto"))
    ]
    for other in results[1:]:
        assert_close(other, results[0], 10)  # thirty steps, each on top of the last
    np.testing.assert_array_equal(results[1], results[2])
    np.testing.assert_array_equal(results[1], results[3])


def test_auto_leaves_dense_data_dense(data):
    X, y = data
    np.testing.assert_array_equal(fit(X, y)[0].parameters, fit(X, y, sparse=False)[0].parameters)


@parametrize_pairs(
    {"n_threads": [1, 2], "batch_size": [None, 50], "momentum": [0.0, 0.5], "dtype": ["float32", "float64"]}
)
def test_divergence_leaves_the_last_good_epoch(data, dtype, n_threads, batch_size, momentum):
    X, y = data
    network = fastnn.Network([7, 20, 20, 3], "identity", dtype)
    trainer = fastnn.Trainer(network, fastnn.SGD(1e6, momentum), batch_size, n_threads=n_threads)
    seen = [network.parameters.copy()]

    class Remember(Callback):
        def on_epoch(self, fit):
            seen.append(fit.trainer.network.parameters.copy())

    trainer.callbacks.append(Remember())
    with pytest.raises(fastnn.DivergenceError, match="Try a smaller learning rate") as caught:
        trainer.fit(X, y, epochs=100)
    error = caught.value
    assert error.epoch == len(error.history) + 1 == len(seen)
    assert 1 <= error.batch <= (12 if batch_size else 1)
    assert f"epoch {error.epoch}, batch {error.batch}" in str(error)
    np.testing.assert_array_equal(network.parameters, seen[-1])
    assert np.isfinite(network.parameters).all()
    restored = pickle.loads(pickle.dumps(error))
    assert (restored.epoch, restored.batch, str(restored)) == (error.epoch, error.batch, str(error))
    assert math.isfinite(network.log_likelihood(X, y))


def test_a_parameter_that_overflows_in_the_last_step_is_divergence(dtype):
    # The batch's own log-likelihood is still finite: it was taken before the step.
    X, y = np.full((4, 1), np.finfo(dtype).max / 8, dtype), np.array([0, 0, 0, 1])
    network = fastnn.Network([1, 2], dtype=dtype)
    with pytest.raises(fastnn.DivergenceError, match="epoch 1, batch 1"):
        fastnn.Trainer(network, fastnn.SGD(1e3)).fit(X, y, epochs=1)
    assert not network.parameters.any()


def test_large_outputs_are_measured_without_warnings():
    # Their sum is beyond float32, and the step is 0 in it.
    X, y = np.full((4, 9), 2e37, "float32"), np.zeros((4, 3))
    network = fastnn.Network([9, 3], dtype="float32", loss="absolute")
    network.weights[0][:] = 1.5
    with np.errstate(all="raise"):
        history = fastnn.Trainer(network, fastnn.SGD(1e-50)).fit(X, y, validation=(X, y), epochs=1)
    assert history.validation_error == pytest.approx([2.7e38], rel=1e-5)
    assert history.validation_log_likelihood == pytest.approx([-8.1e38], rel=1e-5)


def test_an_early_stop_asked_for_by_a_callback(data):
    X, y = data

    class Stop(Callback):
        def __init__(self):
            self.calls = []

        def on_start(self, fit):
            self.calls.append("start")

        def on_chunk(self, fit):
            assert 0 <= fit.rows_done <= fit.n_rows

        def on_epoch(self, fit):
            self.calls.append(len(fit.history))
            fit.stop = len(fit.history) == 3

        def on_end(self, fit):
            self.calls.append("end")

    stop = Stop()
    _, history = fit(X, y, epochs=50, callbacks=[stop])
    assert len(history) == 3
    assert stop.calls == ["start", 1, 2, 3, "end"]


def test_callbacks_are_ended_after_an_error(data):
    X, y = data
    ended = []

    class Fail(Callback):
        def on_epoch(self, fit):
            raise RuntimeError("from a callback")

        def on_end(self, fit):
            ended.append(True)

    with pytest.raises(RuntimeError, match="from a callback"):
        fit(X, y, callbacks=[Fail()])
    assert ended == [True]


def test_the_progress_bar_shows_both_figures_and_is_silent_elsewhere(data, capsys):
    X, y = data
    trainer = fastnn.Trainer(fastnn.Network([7, 3]))
    trainer.fit(X, y, 2, validation=(X, y), progress=None)
    trainer.fit(X, y, 2, validation=(X, y), progress=False)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    history = trainer.fit(X, y, 2, validation=(X, y), progress=True)
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown
    assert f"log-likelihood={history.log_likelihood[-1]:.4f}" in shown
    assert f"validation error={100 * history.validation_error[-1]:.2f} %" in shown
    assert "100%" in shown


INTERRUPTED_FIT = """
    import os, signal, threading, time
    import numpy as np
    import fastnn

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process is born without it
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20_000, 300)), rng.integers(0, 10, 20_000)
    network = fastnn.Network({sizes})
    trainer = fastnn.Trainer(network, fastnn.SGD(0.01), batch_size={batch_size})
    trainer.fit(X[:2000], y[:2000], epochs=1)

    def interrupt():
        sent.append(time.perf_counter())
        signal.raise_signal(signal.SIGINT)

    sent = []
    threading.Timer(0.7, interrupt).start()
    history = trainer.fit(X, y, epochs=10_000)
    waited = time.perf_counter() - sent[0]
    assert history.interrupted
    assert np.isfinite(network.parameters).all()
    assert np.isfinite(history.log_likelihood).all()
    assert len(trainer.fit(X[:2000], y[:2000], epochs=1)) == 1
    print(waited)
"""


@pytest.mark.parametrize(("sizes", "batch_size"), [([300, 10], 10), ([300, 20, 10], None), ([300, 1000, 10], None)])
def test_ctrl_c_returns_the_history_so_far(tmp_path, sizes, batch_size):
    # A real SIGINT in a real process; the wide full-batch step alone would take seconds.
    script = textwrap.dedent(INTERRUPTED_FIT.format(sizes=sizes, batch_size=batch_size))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 60  # the handler ran; how soon is for a stopwatch, not for a test on a busy machine


def test_an_interrupted_full_batch_step_was_not_taken(data, monkeypatch):
    X, y = data
    X, y = np.tile(X, (100, 1)), np.tile(y, 100)
    network = fastnn.Network([7, 300, 3])
    before = network.parameters.copy()

    class Interrupt(Callback):
        def on_chunk(self, fit):
            if fit.rows_done:
                signal.raise_signal(signal.SIGINT)

    whole = fastnn.Trainer(network, callbacks=[Interrupt()])
    monkeypatch.setattr(tuning, "CHUNK_SECONDS", 1e-4)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        history = whole.fit(X, y, epochs=1)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert history.interrupted
    assert len(history) == 0
    np.testing.assert_array_equal(network.parameters, before)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_interrupted_epoch_keeps_the_steps_that_were_taken(rng, monkeypatch, momentum):
    # Enough inputs that the engine works on a copy; the callback sees the steps of each stretch of time, and so does
    # the end.  There are more rows than two of the shortened stretches could take.
    X, y = rng.standard_normal((20_000, 80)), rng.integers(0, 3, 20_000)
    network, same = fastnn.Network([80, 3]), fastnn.Network([80, 3])
    monkeypatch.setattr(tuning, "CHUNK_SECONDS", 1e-4)
    seen = []

    class Interrupt(Callback):
        def on_chunk(self, fit):
            seen.append((fit.rows_done, network.parameters.copy()))
            if len(seen) == 2:
                raise KeyboardInterrupt

    settings = {"optimizer": fastnn.SGD(0.1, momentum=momentum), "batch_size": 10, "shuffle": False}
    trainer = fastnn.Trainer(network, callbacks=[Interrupt()], **settings)
    assert trainer.fit(X, y, epochs=1).interrupted
    other = fastnn.Trainer(same, **settings)
    for rows_done, parameters in seen:
        same.parameters = np.zeros(same.parameters.shape)
        other = fastnn.Trainer(same, **settings)
        other.fit(X[:rows_done], y[:rows_done], epochs=1)
        np.testing.assert_array_equal(parameters, same.parameters)
    np.testing.assert_array_equal(network.parameters, seen[-1][1])
    if momentum:  # its state was kept too
        trainer.callbacks = []
        for each in (trainer, other):
            each.fit(X[:500], y[:500], epochs=1)
        np.testing.assert_array_equal(network.parameters, same.parameters)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("l2", [0.0, 0.01])
@pytest.mark.parametrize("batch_size", [1, 10, 200, None])
def test_very_sparse_rows_train_as_dense_ones_do(rng, momentum, l2, batch_size):
    X = sparse.random(700, 900, density=0.004, format="csr", random_state=rng)
    y = rng.integers(0, 3, 700)
    found = []
    for rows, wanted in ((X, "auto"), (X.toarray(), False)):
        settings = {"batch_size": batch_size, "optimizer": fastnn.SGD(0.3, momentum), "l2": l2, "sparse": wanted}
        network, history = fit(rows, y, (900, 3), **settings)
        found.append((network.parameters, history.log_likelihood))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-12)


def test_an_interrupted_epoch_of_very_sparse_rows_is_brought_up_to_date(rng, monkeypatch):
    X = sparse.random(900, 400, density=0.004, format="csr", random_state=rng)
    y = rng.integers(0, 3, 900)
    network, other = fastnn.Network([400, 3]), fastnn.Network([400, 3])
    monkeypatch.setattr(tuning, "CHUNK_SECONDS", 1e-5)
    done = []

    class Interrupt(Callback):
        def on_chunk(self, fit):
            done.append(fit.rows_done)
            if len(done) == 5:
                raise KeyboardInterrupt

    settings = {"optimizer": fastnn.SGD(0.1, momentum=0.9), "l2": 0.01, "batch_size": 10, "shuffle": False}
    assert fastnn.Trainer(network, callbacks=[Interrupt()], **settings).fit(X, y, epochs=1).interrupted
    rows = done[-1] // 10 * 10
    fastnn.Trainer(other, sparse=False, **settings).fit(X[:rows].toarray(), y[:rows], epochs=1)
    np.testing.assert_allclose(network.parameters, other.parameters, rtol=0, atol=1e-13)


def test_available_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    most = available_threads()
    assert most >= 1
    for text, expected in (("1", 1), ("1,2", 1), ("999", most), ("x", most), ("0", most), ("", most)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert available_threads() == expected


def test_without_affinity_all_processors_are_available(monkeypatch):  # on macOS and Windows
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for count, expected in [(3, 3), (None, 1)]:
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert available_threads() == (expected if fastnn.kernels.epoch.HAS_OPENMP else 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"network": "net"}, TypeError, "network must be a fastnn.Network, not str"),
        ({"optimizer": 0.5}, TypeError, "optimizer must be an optimizer such as"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, not 0"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be an integer, not 2.5"),
        ({"l2": -1}, ValueError, "l2 must be at least 0 and finite, not -1"),
        ({"l2": math.nan}, ValueError, "l2 must be"),
        ({"l2": "1"}, TypeError, "l2 must be a number"),
        ({"shuffle": 2}, ValueError, "shuffle must be one of False, True, not 2"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"n_threads": 0}, ValueError, "n_threads must be at least 1"),
        ({"sparse": "yes"}, ValueError, "sparse must be one of False, True, 'auto', not 'yes'"),
        ({"sparse": 1}, ValueError, "sparse must be one of"),
        ({"callbacks": [print]}, TypeError, "callbacks must be"),
    ],
)
def test_wrong_trainers_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        fastnn.Trainer(**{"network": fastnn.Network([7, 3]), **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"learning_rate": 0}, ValueError, "learning_rate must be above 0 and finite, not 0.0"),
        ({"learning_rate": math.inf}, ValueError, "learning_rate must be above 0 and finite, not inf"),
        ({"learning_rate": None}, TypeError, "learning_rate must be a number"),
        ({"momentum": 1}, ValueError, "momentum must be at least 0 and below 1, not 1.0"),
        ({"momentum": -0.1}, ValueError, "momentum must be at least 0"),
        ({"nesterov": "yes"}, ValueError, "nesterov must be one of"),
        ({"nesterov": True}, ValueError, "nesterov=True needs a momentum above 0"),
    ],
)
def test_wrong_optimizers_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        fastnn.SGD(**arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": np.empty((0, 7)), "y": []}, ValueError, "X is empty: at least one row is needed"),
        ({"X": np.ones((2, 8))}, ValueError, "X must have 7 columns"),
        ({"X": [[math.nan] * 7] * 2}, ValueError, "X must be finite, but it holds NaN"),
        ({"y": [0, 3]}, ValueError, "y must hold classes from 0 to 2, but it holds 3"),
        ({"y": [0.0, 1.0]}, TypeError, "y must hold integer class indices"),
        ({"epochs": -1}, ValueError, "epochs must be at least 0"),
        ({"epochs": 1.5}, TypeError, "epochs must be an integer"),
        ({"validation": np.ones((2, 7))}, TypeError, r"validation must be a pair \(X, y\)"),
        ({"validation": (np.ones((2, 8)), [0, 1])}, ValueError, r"validation\[0\] must have 7 columns"),
        ({"validation": (np.ones((2, 7)), [0, 9])}, ValueError, r"validation\[1\] must hold classes"),
        ({"validation": (np.empty((0, 7)), [])}, ValueError, r"validation\[0\] is empty"),
        ({"progress": "yes"}, ValueError, "progress must be one of"),
    ],
)
def test_wrong_fits_are_refused_before_anything_is_trained(change, error, message):
    network = fastnn.Network([7, 3])
    trainer = fastnn.Trainer(network)
    with pytest.raises(error, match=message):
        trainer.fit(**{"X": np.ones((2, 7)), "y": [0, 1], **change})
    assert not network.parameters.any()


def test_the_optimizer_can_be_replaced_between_fits(data):
    X, y = data
    network = fastnn.Network([7, 5, 3])
    trainer = fastnn.Trainer(network)
    for optimizer in (fastnn.SGD(0.1), fastnn.SGD(0.1, 0.9), fastnn.SGD(0.01, 0.5, True), fastnn.SGD(0.1)):
        trainer.optimizer = optimizer
        before = trainer.fit(X, y, epochs=1).log_likelihood[0]
        assert network.log_likelihood(X, y) > before


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="done on x86 alone")
@pytest.mark.parametrize("sizes", [[70, 3], [70, 40, 3]])  # by rows, by units
@pytest.mark.parametrize("storage", [False, True])
@pytest.mark.parametrize("optimizer", [fastnn.SGD(0.1, momentum=0.9), fastnn.Adam()])
def test_numbers_too_small_to_be_normal_count_as_zero_while_training_alone(dtype, sizes, storage, optimizer):
    tiny = np.finfo(dtype).smallest_subnormal * 100
    rng = np.random.default_rng(0)
    X, y = rng.random((400, 70)).astype(dtype), rng.integers(0, 3, 400)
    X[:, 5] = 0
    net = fastnn.Network(sizes, dtype=dtype, seed=0)
    net.weights[0][5] = tiny
    fastnn.Trainer(net, optimizer, batch_size=100, sparse=storage, n_threads=2).fit(X, y, epochs=1)
    np.testing.assert_array_equal(net.weights[0][5], 0)
    # All threads are as they were.
    few, Z = np.full((200, 1), tiny, dtype), np.empty((200, 1), dtype)
    dense.dense_affine(few, np.ones((1, 1), dtype), np.zeros(1, dtype), Z, 2)
    np.testing.assert_array_equal(Z, few)
    assert np.multiply(few, 2).min() == 2 * tiny


@pytest.mark.parametrize("kind", ["dense", "sparse", "chunks"])
def test_a_fit_on_pixels_notes_their_scale(rng, kind):
    X, y = rng.integers(0, 256, (50, 4), np.uint8), rng.integers(0, 3, 50)
    network = fastnn.Network([4, 3])
    trainer = fastnn.Trainer(network)
    trainer.fit(X / 256, y, epochs=1)
    assert network.input_scale is None
    with pytest.raises(ValueError, match="y must hold classes"):
        trainer.fit(X, y + 3)
    assert network.input_scale is None
    data = {"dense": (X, y), "sparse": (sparse.csr_matrix(X), y), "chunks": ([(X, y)],)}[kind]
    trainer.fit(*data, epochs=1)
    assert network.input_scale == 1 / 256


@pytest.mark.parametrize("update", ["sgd", "adam"])
@pytest.mark.parametrize("batch_size", [10, 1000])
def test_a_call_whose_time_is_up_comes_on_and_comes_back(rng, update, batch_size):
    # Threads may get their processor too late each time.
    X, y = rng.standard_normal((2000, 5)), rng.integers(0, 3, 2000)
    network, optimizer = fastnn.Network([5, 4, 3]), fastnn.Adam() if update == "adam" else fastnn.SGD()
    engine, n_steps = network.engine(2), 2000 // batch_size
    method = Method(batch_size, update, optimizer.n_slots)
    engine.begin(X, engine.plan(X, method), np.zeros((optimizer.n_slots, network.parameters.size)))
    engine.restart(Steps(UPDATES[update], step_table(optimizer, np.full(n_steps, 0.01), 0, 0.0, 0.0)))
    calls = 1
    while engine.advance(Targets(LOSSES["cross_entropy"], y), None, -1.0):
        calls += 1
    assert n_steps <= calls <= max(n_steps, 40)
    assert engine.rows_done == 2000


def test_a_penalty_that_overflows_is_divergence(rng, monkeypatch):
    monkeypatch.setattr(tuning, "TOUCHED_SHARE", 0)
    network = fastnn.Network([9, 4], loss="huber")
    trainer = fastnn.Trainer(network, fastnn.SGD(1e30), 1, l2=0.01)
    with pytest.raises(fastnn.DivergenceError):
        trainer.fit(sparse.csr_matrix(np.ones((1, 9))), np.ones((1, 4)), epochs=60)
    assert np.isfinite(network.parameters).all()


@pytest.mark.parametrize("old", [False, True])
def test_a_trainer_goes_on_from_its_pickle(data, old):
    network = fastnn.Network([7, 5, 3])
    trainer = fastnn.Trainer(network, fastnn.Adam(0.01), 32, l2=0.01, dropout=0.1)
    trainer.fit(*data, epochs=2)
    content = vars(trainer).copy()
    if old:  # pickles of fastnn.training.Trainer had the parts of the state one by one
        state = content.pop("_state")
        content |= {"_generator": state.generator, "_state": state.optimizer, "_kind": state.optimizer_type}
        content |= {"_n_steps": state.n_steps, "_curve": state.curve, "_run": None, "_asked": None, "_source": None}
        content |= {"_order": None, "alpha": 0.1}  # of an estimator's
    kind, content = pickle.loads(pickle.dumps((fastnn.training.Trainer, content)))
    other = kind.__new__(kind)
    other.__setstate__(content)
    for each in (trainer, other):
        each.fit(*data, epochs=2)
    np.testing.assert_array_equal(other.network.parameters, network.parameters)


@pytest.mark.parametrize("offset", [0, 1])
def test_a_trainer_goes_on_from_a_pickle_with_buffers_elsewhere(data, dtype, offset):
    trainer = fastnn.Trainer(fastnn.Network([7, 5, 3], dtype=dtype), fastnn.Adam(0.01), 32)
    trainer.fit(*data, epochs=2)
    buffers = []
    content = pickle.dumps(trainer, 5, buffer_callback=buffers.append)
    elsewhere = [memoryview(bytes(offset) + buffer.raw())[offset:] for buffer in buffers]  # read-only
    other = pickle.loads(content, buffers=elsewhere)
    for each in (trainer, other):
        each.fit(*data, epochs=2)
    np.testing.assert_array_equal(other.network.parameters, trainer.network.parameters)


def test_a_trainer_can_be_copied_in_a_callback(data):
    copies = []

    class Copy(Callback):
        def on_epoch(self, fit):
            copies.append(copy.deepcopy(fit.trainer))

    network = fastnn.Network([7, 5, 3])
    fastnn.Trainer(network, fastnn.Adam(0.01), 32, callbacks=[Copy()]).fit(*data, epochs=3)
    copies[0].fit(*data, epochs=2)
    np.testing.assert_array_equal(copies[0].network.parameters, network.parameters)


def test_steps_that_touch_few_weights_below_a_layer_in_panels(dtype, rng):
    X = sparse.random(300, 4000, 0.001, "csr", dtype, random_state=0)
    y = rng.integers(0, 3, 300)
    found = []
    for rows in (X, X.toarray()):
        net = fastnn.Network([4000, 70, 66, 3], activation="tanh", dtype=dtype, seed=0)
        trainer = fastnn.Trainer(net, fastnn.SGD(0.5, momentum=0.9), batch_size=20, l2=0.01, seed=1, sparse=False)
        found.append((trainer.plan(rows, y).touches, trainer.fit(rows, y, epochs=3).log_likelihood, net.parameters))
    assert [touches for touches, *_ in found] == [True, False]
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5)
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=0, atol=1e-5)
