"""Callbacks: early stopping, files of the history, plots; and checkpoints, which a killed process resumes from."""

import json
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import fastnn
from fastnn.callbacks import Callback, Checkpoint, EarlyStopping, HistoryFile, LivePlot
from fastnn.storage import load_checkpoint


@pytest.fixture
def data(rng):
    X = rng.standard_normal((600, 7))
    y = (X[:, :3] + rng.standard_normal((600, 3))).argmax(axis=1)
    return X, y


class Seen(Callback):
    """Keeps the parameters after each epoch."""

    def on_start(self, fit):
        self.parameters = []

    def on_epoch(self, fit):
        self.parameters.append(fit.trainer.network.parameters.copy())


@pytest.mark.parametrize("monitor", ["validation_log_likelihood", "validation_error", "function"])
def test_early_stopping_puts_the_best_parameters_back(data, monitor):
    X, y = data
    if monitor == "function":
        stopping = EarlyStopping(lambda fit: -fit.trainer.network.error(X[400:], y[400:]), patience=3)
    else:
        stopping = EarlyStopping(monitor, patience=3)
    seen = Seen()
    network = fastnn.Network([7, 50, 3])
    trainer = fastnn.Trainer(network, fastnn.SGD(1.0, 0.9), batch_size=20, callbacks=[seen, stopping])
    history = trainer.fit(X[:400], y[:400], epochs=300, validation=(X[400:], y[400:]))
    values = history.validation_log_likelihood
    if monitor != "validation_log_likelihood":
        values = [-error for error in history.validation_error]
    assert len(history) < 300
    assert stopping.best_epoch == 1 + int(np.argmax(values))
    assert len(history) == stopping.best_epoch + 4
    np.testing.assert_array_equal(network.parameters, seen.parameters[stopping.best_epoch - 1])


def test_early_stopping_says_what_it_lacks(data):
    trainer = fastnn.Trainer(fastnn.Network([7, 3]), callbacks=[EarlyStopping()])
    with pytest.raises(ValueError, match="validation_log_likelihood, which needs validation data"):
        trainer.fit(*data, epochs=1)
    with pytest.raises(ValueError, match="monitor must be one of 'log_likelihood'"):
        EarlyStopping("accuracy")
    with pytest.raises(ValueError, match="patience must be at least 0"):
        EarlyStopping(patience=-1)


@pytest.mark.parametrize("validation", [False, True])
def test_history_files(data, tmp_path, validation):
    X, y = data
    paths = [tmp_path / "history.csv", tmp_path / "history.json"]
    trainer = fastnn.Trainer(fastnn.Network([7, 3]), l2=0.1, callbacks=[HistoryFile(path) for path in paths])
    history = trainer.fit(X, y, epochs=3, validation=(X, y) if validation else None)
    names = [name for name, values in history.columns().items() if values]
    assert ("validation_error" in names) == validation
    header, *lines = paths[0].read_text().splitlines()
    assert header.split(",") == ["epoch", *names]
    for k, line in enumerate(lines):
        assert [float(value) for value in line.split(",")] == [k + 1, *(getattr(history, name)[k] for name in names)]
    assert len(lines) == 3
    assert json.loads(paths[1].read_text()) == {name: getattr(history, name) for name in names}
    with pytest.raises(ValueError, match=r"path must end in .csv or .json, not 'history.txt'"):
        HistoryFile("history.txt")


def test_live_plot(data, tmp_path):
    import matplotlib
    import matplotlib.pyplot as plt

    trainer = fastnn.Trainer(fastnn.Network([7, 3]), callbacks=[LivePlot(tmp_path / "curves.png")])
    trainer.fit(*data, epochs=2, validation=data)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    matplotlib.use("agg")
    plot = LivePlot()
    fastnn.Trainer(fastnn.Network([7, 3]), callbacks=[plot]).fit(*data, epochs=3, validation=data)
    assert [len(axes.lines[0].get_xdata()) for axes in plot._figure.axes] == [3, 3]
    plt.close("all")


def test_a_callback_s_state_is_nothing_by_default():
    assert Callback().state() == {}


SCRIPT = """
    import sys, numpy as np, scipy.sparse, fastnn, fastnn.training
    from fastnn.callbacks import Callback, Checkpoint, EarlyStopping

    class Pulse(Callback):
        def on_chunk(self, fit):
            if fit.rows_done:  # within an epoch
                print("chunk", flush=True)

        def on_epoch(self, fit):
            if kind == "lbfgs":
                print("iteration", flush=True)

    kind, path = sys.argv[1:]
    fastnn.tuning.CHUNK_SECONDS = 0.002 if kind == "large" else 0.0003  # several in an epoch
    rng = np.random.default_rng(0)
    options, validation = {}, None
    X, y = rng.random((12_000, 60)).astype("float32"), rng.integers(0, 3, 12_000)
    sizes, optimizer, batch_size = [60, 40, 3], fastnn.SGD(0.1, 0.9), 50
    if kind == "adam":
        optimizer = fastnn.Adam(fastnn.schedules.Cosine(0.01, 8))
        options = {"dropout": 0.3, "sparse": True, "l1": 1e-5, "dtype": "float64"}
        validation = X[:500], y[:500]
    elif kind == "large":
        X, y = X.repeat(4, axis=0), y.repeat(4)
        sizes, batch_size, optimizer = [60, 200, 3], 3000, fastnn.RMSprop()
    elif kind == "text":
        places = rng.integers([[12_000], [5000]], size=(2, 60_000))
        X = scipy.sparse.csr_matrix((rng.random(60_000), places), (12_000, 5000))
        sizes, batch_size, options = [5000, 8, 3], 20, {"l2": 0.01}
    elif kind == "normalised":
        options = {"dropout": 0.2, "batch_norm": True}
    elif kind == "chunks":
        X, y = [(X[k : k + 4000], y[k : k + 4000]) for k in range(0, 12_000, 4000)], None
    elif kind == "mapped":
        np.save(path + ".npy", X)
        X = np.load(path + ".npy", mmap_mode="r")
        fastnn._mapped.WINDOW_BYTES, fastnn._mapped.PIECE_BYTES = 1 << 18, 5000
    elif kind == "lbfgs":
        optimizer, batch_size = fastnn.LBFGS(memory=4), None
    epochs = 3 if kind == "text" else 30 if kind == "lbfgs" else 6
    dtype, batch_norm = options.pop("dtype", "float32"), options.pop("batch_norm", False)
    network = fastnn.Network(sizes, "relu", dtype, batch_norm=batch_norm)
    callbacks = [Checkpoint(path, seconds=0), Pulse()]
    if validation:
        callbacks.insert(0, EarlyStopping(patience=100))
    trainer = fastnn.Trainer(network, optimizer, batch_size, callbacks=callbacks, **options)
    history = trainer.fit(X, y, epochs, validation, resume=path)
    assert len(history) == epochs
    np.savez(path + ".npz", parameters=network.parameters, state=trainer._state.optimizer,
             log_likelihood=history.log_likelihood, objective=history.objective,
             draws=trainer._state.generator.random(3))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL there")
@pytest.mark.parametrize("kind", ["momentum", "adam", "large", "text", "normalised", "chunks", "mapped", "lbfgs"])
def test_a_killed_process_resumes_to_the_same_bits(tmp_path, kind):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))

    def run(name, chunks=None, delay=0.0):
        # Kill the process a moment after so many chunks within epochs.
        command = [sys.executable, script, kind, tmp_path / name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
            for _ in range(chunks or 0):
                process.stdout.readline()
            if chunks:
                time.sleep(delay)
                process.kill()
            errors = process.communicate()[1]
        assert process.returncode in ([0, -signal.SIGKILL] if chunks else [0]), errors.decode()

    generator, within_epochs = random.Random(kind), 0
    run("whole")
    for delay in (0, 0, 0.002, 0.005):
        run("killed", generator.randrange(1, 6), delay)
        if (tmp_path / "killed").exists():
            within_epochs += "epoch" in load_checkpoint(str(tmp_path / "killed"))[0] or kind == "lbfgs"
    run("killed")
    assert within_epochs >= 1
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "killed.npz") as killed:
        for name in whole.files:
            np.testing.assert_array_equal(killed[name], whole[name], err_msg=name)


def test_resuming_restores_early_stopping(data, tmp_path):
    X, y = data
    path = tmp_path / "checkpoint"

    class Crash(Callback):
        def on_epoch(self, fit):
            if len(fit.history) == 6:
                raise RuntimeError("the power failed")

    def fit(*more):
        network = fastnn.Network([7, 50, 3])
        stopping = EarlyStopping(patience=8)
        callbacks = [stopping, Checkpoint(path), *more]
        trainer = fastnn.Trainer(network, fastnn.SGD(1.0, 0.9), batch_size=20, callbacks=callbacks)
        history = trainer.fit(X[:400], y[:400], epochs=300, validation=(X[400:], y[400:]), resume=path)
        return network.parameters, stopping.best_epoch, len(history)

    with pytest.raises(RuntimeError):
        fit(Crash())
    resumed = fit()
    path.unlink()
    undisturbed = fit()
    np.testing.assert_array_equal(resumed[0], undisturbed[0])
    assert resumed[1:] == undisturbed[1:]
    assert resumed[1] < 6 < resumed[2]  # the best was known from the checkpoint alone


def test_a_checkpoint_of_another_fit_is_refused(data, tmp_path):
    X, y = data
    path = tmp_path / "checkpoint"
    fastnn.Trainer(fastnn.Network([7, 3]), callbacks=[Checkpoint(path)]).fit(X, y, epochs=1)
    network = fastnn.Network([7, 3], seed=1)
    before = network.parameters.copy()
    with pytest.raises(ValueError, match=r"was written with l2=0.0, but here it is 0.5"):
        fastnn.Trainer(network, l2=0.5).fit(X, y, resume=path)
    with pytest.raises(ValueError, match="was written with rows=600, but here it is 599"):
        fastnn.Trainer(network).fit(X[1:], y[1:], resume=path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-8], b"x" * 50):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is not a usable checkpoint"):
            fastnn.Trainer(network).fit(X, y, resume=path)
    np.testing.assert_array_equal(network.parameters, before)
