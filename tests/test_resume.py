"""What a checkpoint holds: all that the bits depend on, and what ended a fit; files that something is wrong with."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import scipy.sparse

import fastnn
from fastnn import kernels
from fastnn.callbacks import Callback, Checkpoint, EarlyStopping
from fastnn.layers import Conv2D, Dense, MaxPool2D
from fastnn.storage import CHECKPOINT_KEY
from fastnn.training import checkpoint


@pytest.fixture
def data(rng):
    X = rng.standard_normal((600, 7)) * (rng.random((600, 7)) < 0.2)
    return X, (X[:, :3] + rng.standard_normal((600, 3))).argmax(axis=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint"


class Stop(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch(self, fit):
        fit.stop = len(fit.history) == self.epoch


class Crash(Callback):
    """Writes a checkpoint within the second epoch, and raises an error."""

    def __init__(self, path, stop=False):
        self.path, self.stop = path, stop

    def on_chunk(self, fit):
        if len(fit.history) == 1 and fit.rows_done:
            fit.stop = self.stop
            fit.trainer.save_checkpoint(self.path, fit)
            raise RuntimeError("the power failed")


def make(path, *callbacks, network=None, optimizer=None, batch_size=20, **options):
    network = network or fastnn.Network([7, 9, 3])
    callbacks = [*callbacks, Checkpoint(path)]
    return fastnn.Trainer(network, optimizer or fastnn.SGD(0.1, 0.9), batch_size, callbacks=callbacks, **options)


@pytest.mark.parametrize("ended_by", ["early stopping", "a callback", "lbfgs"])
def test_a_fit_that_was_ended_stays_ended(data, path, ended_by):
    X, y = data

    def fit():
        options = {"optimizer": fastnn.LBFGS(), "batch_size": None} if ended_by == "lbfgs" else {}
        stop = EarlyStopping(patience=2) if ended_by == "early stopping" else Stop(4)
        trainer = make(path, stop, **options)
        history = trainer.fit(X[:400], y[:400], epochs=300, validation=(X[400:], y[400:]), resume=path)
        return trainer.network.parameters, history.log_likelihood

    first = fit()
    assert 1 < len(first[1]) < 300
    for _ in range(3):
        again = fit()
        np.testing.assert_array_equal(again[0], first[0])
        assert again[1] == first[1]


def test_a_stop_within_an_epoch_is_kept_for_its_end(data, path, monkeypatch):
    monkeypatch.setattr("fastnn.tuning.CHUNK_SECONDS", 1e-5)
    X, y = np.tile(data[0], (20, 1)), np.tile(data[1], 20)

    with pytest.raises(RuntimeError, match="power"):
        make(path, Crash(path, stop=True)).fit(X, y, epochs=9)
    resumed = make(path)
    assert len(resumed.fit(X, y, epochs=9, resume=path)) == 2
    whole = make(path)
    whole.fit(X, y, epochs=2)
    np.testing.assert_array_equal(resumed.network.parameters, whole.network.parameters)


@pytest.mark.parametrize("kind", ["sgd", "schedule"])
def test_a_learning_rate_that_a_callback_set_is_kept(data, path, monkeypatch, kind):
    monkeypatch.setattr("fastnn.tuning.CHUNK_SECONDS", 1e-5)
    X, y = np.tile(data[0], (20, 1)), np.tile(data[1], 20)
    rate = 0.1 if kind == "sgd" else fastnn.schedules.Cosine(0.1, 4)

    class Slow(Callback):
        def on_epoch(self, fit):
            if len(fit.history) == 1:
                fit.learning_rate = 0.01

    def fit(*callbacks):
        trainer = make(path, Slow(), *callbacks, optimizer=fastnn.SGD(rate, 0.9))
        trainer.fit(X, y, epochs=3, resume=path)
        return trainer.network.parameters

    with pytest.raises(RuntimeError, match="power"):
        fit(Crash(path))
    resumed = fit()
    path.unlink()
    np.testing.assert_array_equal(resumed, fit())


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_fit_on_images_goes_on_within_an_epoch(data, path, monkeypatch, batch_norm):
    monkeypatch.setattr("fastnn.tuning.CHUNK_SECONDS", 1e-5)
    monkeypatch.setattr("fastnn.tuning.SMALL_RUN", 0)
    monkeypatch.setattr("fastnn.tuning.IMAGE_ROWS", 16)  # a batch has several row blocks
    monkeypatch.setattr("fastnn.tuning.SHARD_IMAGES", 40)  # and, if it is not normalised, two shards
    monkeypatch.setattr("fastnn.tuning.IMAGE_SHARD_PRODUCT", 0)
    monkeypatch.setattr("fastnn.tuning.IMAGE_SHARD_PRODUCTS", 0)
    X, y = np.hstack([data[0], data[0]]).astype(np.float32)[:, :12].reshape(-1, 4, 3), data[1]

    def fit(n_threads, *callbacks):
        layers = [Conv2D(6, 2, dropout=0.2), MaxPool2D(2, 1), Dense(3)]
        network = fastnn.Network(layers, dtype="float32", batch_norm=batch_norm, input_shape=(4, 3))
        trainer = make(path, *callbacks, network=network, batch_size=90, n_threads=n_threads)
        history = trainer.fit(X, y, epochs=3, validation=(X[:50], y[:50]), resume=path)
        return network.parameters, history.log_likelihood, history.validation_log_likelihood

    with pytest.raises(RuntimeError, match="power"):
        fit(2, Crash(path))
    resumed = fit(3)
    path.unlink()
    for found, expected in zip(resumed, fit(1), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_storage_is_part_of_what_the_bits_depend_on(data, path):
    make(path, sparse=True).fit(*data, epochs=2)
    network = fastnn.Network([7, 9, 3], seed=1)
    before = network.parameters.copy()
    trainer = make(path, network=network, sparse=False)
    with pytest.raises(ValueError, match=r"storage of X='sparse', but here it is 'dense'.*resume_exactly=False "):
        trainer.fit(*data, epochs=4, resume=path)
    np.testing.assert_array_equal(network.parameters, before)
    trainer.fit(*data, epochs=4, resume=path, resume_exactly=False)
    whole = fastnn.Network([7, 9, 3])
    fastnn.Trainer(whole, fastnn.SGD(0.1, 0.9), 20, sparse=False).fit(*data, epochs=4)
    np.testing.assert_allclose(network.parameters, whole.parameters, rtol=0, atol=1e-13)


@pytest.mark.parametrize("validated", [False, True])
def test_the_way_of_storing_that_auto_takes_is_what_counts(data, path, validated):
    make(path, sparse="auto").fit(*data, epochs=2, validation=data if validated else None)
    make(path, sparse=True).fit(*data, epochs=3, validation=data if validated else None, resume=path)


def test_quantiles_are_part_of_what_the_bits_depend_on(data, path):
    X, y = data[0], data[0][:, 0]

    def fit(levels, epochs):
        network = fastnn.Network([7, 9, 2], loss="quantile", quantiles=levels)
        make(path, network=network).fit(X, y, epochs=epochs, validation=(X[:50], y[:50]), resume=path)
        return network.parameters

    fit((0.1, 0.9), 2)
    with pytest.raises(ValueError, match=r"quantiles=\(0.1, 0.9\).*but here it is .*quantiles=\(0.1, 0.8\)"):
        fit((0.1, 0.8), 4)
    resumed = fit((0.1, 0.9), 4)
    path.unlink()
    np.testing.assert_array_equal(resumed, fit((0.1, 0.9), 4))


def test_other_data_are_refused(data, path):
    X, y = data
    weights = np.arange(600.0)

    def fit(X=X, y=y, sample_weight=weights, validation=(X[:50], y[:50]), epochs=3):
        trainer = make(path)
        trainer.fit(X, y, epochs, validation, sample_weight=sample_weight, resume=path)
        return trainer.network.parameters

    fit(epochs=2)
    other = X.copy()
    other[599, 6] += 1e-9
    for changed, name in [
        ({"X": other}, "X"),
        ({"X": X.astype(np.float32)}, "X"),
        ({"y": (y + 1) % 3}, "y"),
        ({"sample_weight": weights[::-1]}, "sample_weight"),
        ({"sample_weight": None}, "sample_weight"),
        ({"validation": (X[:51], y[:51])}, "validation"),
        ({"validation": None}, "validation"),
    ]:
        with pytest.raises(ValueError, match=rf"written in a fit of other data: {name} is not the same"):
            fit(**changed)
    fit()
    with pytest.raises(ValueError, match="rows=600, but here it is 599"):
        fit(X=X[1:], y=y[1:], sample_weight=weights[1:])


def test_sparse_data_are_told_apart_too(data, path):
    X, y = scipy.sparse.csr_matrix(data[0]), data[1]
    make(path).fit(X, y, epochs=1)
    other = X.copy()
    other.data[3] += 1
    with pytest.raises(ValueError, match="X is not the same"):
        make(path).fit(other, y, epochs=2, resume=path)
    make(path).fit(X, y, epochs=2, resume=path)


SCRIPT = """
import sys, numpy as np, fastnn
rng = np.random.default_rng(0)
X, y = rng.standard_normal((600, 7)), rng.integers(0, 3, 600)
path, epochs, exactly = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "exactly"
network = fastnn.Network([7, 9, 3])
trainer = fastnn.Trainer(network, fastnn.Adam(), 20, callbacks=[fastnn.callbacks.Checkpoint(path)])
try:
    trainer.fit(X, y, epochs, resume=path, resume_exactly=exactly)
except ValueError as error:
    sys.exit(f"ValueError: {error}")
np.save(path + ".npy", network.parameters)
"""


@pytest.mark.skipif(len(kernels.AVAILABLE) < 2, reason="one instruction set only")
def test_another_instruction_set_is_named(path):
    def run(instruction_set, epochs, exactly="exactly"):
        command = [sys.executable, "-c", SCRIPT, path, str(epochs), exactly]
        environment = os.environ | {"FASTNN_INSTRUCTION_SET": instruction_set}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, cwd=os.path.dirname(path)
        )

    best, *_, worst = kernels.AVAILABLE
    assert run(best, 2).returncode == 0
    refused = run(worst, 4)
    assert f"instruction set='{best}', but here it is '{worst}'" in refused.stderr
    assert refused.stderr.startswith("ValueError")
    assert run(worst, 4, "roughly").returncode == 0
    mixed = np.load(f"{path}.npy")
    os.unlink(path)
    assert run(best, 4).returncode == 0
    np.testing.assert_allclose(mixed, np.load(f"{path}.npy"), rtol=0, atol=1e-12)


def test_another_machine_or_library_is_named(data, path, monkeypatch):
    make(path).fit(*data, epochs=1)
    for name, place in [
        ("compiler", "fastnn.training.checkpoint._cpu.COMPILER"),
        ("fastnn", "fastnn.training.checkpoint.__version__"),
        ("NumPy", "fastnn.training.checkpoint.np.__version__"),
        ("SciPy", "fastnn.training.checkpoint.scipy.__version__"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(place, "another")
            with pytest.raises(ValueError, match=f"written with {name}=.*, but here it is 'another'"):
                make(path).fit(*data, epochs=2, resume=path)
    monkeypatch.setattr(checkpoint, "blas_name", lambda: "another")
    with pytest.raises(ValueError, match=r"written with BLAS=.*, but here it is 'another'"):
        make(path).fit(*data, epochs=2, resume=path)
    make(path).fit(*data, epochs=2, resume=path, resume_exactly=False)


def test_a_mapped_file_is_taken_in_another_order(tmp_path, path, rng, monkeypatch):
    monkeypatch.setattr("fastnn._mapped.WINDOW_BYTES", 1 << 12)
    np.save(tmp_path / "X.npy", rng.random((600, 7)))
    X, y = np.load(tmp_path / "X.npy", mmap_mode="r"), rng.integers(0, 3, 600)
    make(path).fit(X, y, epochs=1)
    with pytest.raises(ValueError, match="order of rows='by pieces of a mapped file', but here it is 'by row'"):
        make(path).fit(np.array(X), y, epochs=2, resume=path, resume_exactly=False)
    make(path).fit(X, y, epochs=2, resume=path)


def test_callbacks_are_told_apart(data, path):
    X, y = data
    fits = {"epochs": 5, "validation": data}
    make(path, EarlyStopping(patience=3)).fit(X, y, epochs=2, validation=data)
    with pytest.raises(ValueError, match="keeps the state of EarlyStopping 1, which callbacks does not hold"):
        make(path).fit(X, y, **fits, resume=path)
    network = fastnn.Network([7, 9, 3], seed=1)
    before = network.parameters.copy()
    with pytest.raises(ValueError, match=r"patience of EarlyStopping is not the checkpoint's: it is 4 here"):
        make(path, EarlyStopping(patience=4), network=network).fit(X, y, **fits, resume=path)
    with pytest.raises(ValueError, match="does not hold what EarlyStopping 2 needs"):
        make(path, EarlyStopping(patience=3), EarlyStopping(patience=3), network=network).fit(X, y, **fits, resume=path)
    np.testing.assert_array_equal(network.parameters, before)
    make(path, Stop(100), EarlyStopping(patience=3)).fit(X, y, **fits, resume=path)  # those without a state may come


def rewrite(path, change):
    with safetensors.safe_open(path, framework="numpy") as file:
        content = json.loads(file.metadata()[CHECKPOINT_KEY])
    tensors = safetensors.numpy.load_file(path)
    change(content, tensors)
    safetensors.numpy.save_file(tensors, path, {CHECKPOINT_KEY: json.dumps(content)})


def put(*place):
    *way, name, value = place

    def change(content, tensors):
        for key in way:
            content = content[key]
        content[name] = value

    return change


def put_tensor(name, value):
    return lambda content, tensors: tensors.update({name: value})


def drop(name):
    return lambda content, tensors: (content.pop(name, None), tensors.pop(name, None))


HOSTILE = {
    "no fingerprint": drop("fingerprint"),
    "a list for a fingerprint": put("fingerprint", []),
    "no parameters": drop("parameters"),
    "parameters of another type": put_tensor("parameters", np.zeros(102, np.float32)),
    "NaN at the epoch's start": put_tensor("epoch.parameters", np.full(102, np.nan)),
    "state of another shape": put_tensor("state", np.zeros((2, 102))),
    "steps below 0": put("n_steps", -1),
    "too many steps": put("n_steps", 10**30),
    "a history of text": put("history", "log_likelihood", ["good"]),
    "a longer history": put("history", "seconds", [1.0, 2.0, 3.0]),
    "no generator": put("generator", None),
    "another generator": put("generator", {"bit_generator": "MT19937", "state": {"pos": 10**9, "key": [0] * 624}}),
    "stopped at noon": put("stopped", "noon"),
    "a rate below 0": put("learning_rate", -0.1),
    "rows below 0": put("epoch", "rows", -20),
    "a batch before the first": put_tensor("space.position", np.array([-20])),
    "a batch behind the last": put_tensor("space.position", np.array([12_000])),
    "a row within a batch": put_tensor("space.position", np.array([7])),
    "many positions": put_tensor("space.position", np.zeros(99, np.intp)),
    "no positions": drop("space.position"),
    "an infinite sum": put_tensor("space.log_likelihood", np.array([np.inf])),
    "touched columns": put_tensor("space.touched", np.zeros(15, np.int64)),
    "callbacks that are not there": put("callbacks", ["EarlyStopping 1"]),
    "callbacks that are no list": put("callbacks", 3),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_checkpoints_are_refused_and_change_nothing(data, path, monkeypatch, kind):
    monkeypatch.setattr("fastnn.tuning.CHUNK_SECONDS", 1e-5)
    X, y = np.tile(data[0], (20, 1)), np.tile(data[1], 20)
    with pytest.raises(RuntimeError, match="power"):
        make(path, Crash(path)).fit(X, y, epochs=3)
    rewrite(path, lambda content, tensors: None)
    whole = make(path)
    whole.fit(X, y, epochs=3, resume=path)
    with pytest.raises(RuntimeError, match="power"):
        make(path, Crash(path)).fit(X, y, epochs=3)
    rewrite(path, HOSTILE[kind])
    trainer = make(path, network=fastnn.Network([7, 9, 3], seed=1))
    before = trainer.network.parameters.copy(), trainer._state.generator.bit_generator.state
    with pytest.raises(ValueError, match=str(path)):
        trainer.fit(X, y, epochs=3, resume=path)
    np.testing.assert_array_equal(trainer.network.parameters, before[0])
    assert trainer._state.generator.bit_generator.state == before[1]
    assert trainer._state.curve == []


@pytest.mark.parametrize("damage", ["count", "repeated", "outside", "late", "unknown"])
def test_hostile_records_of_touched_columns_are_refused(path, rng, monkeypatch, damage):
    monkeypatch.setattr("fastnn.tuning.CHUNK_SECONDS", 1e-5)
    X, y = scipy.sparse.random(2000, 500, 0.002, "csr", random_state=0), rng.integers(0, 3, 2000)

    def trainer(*callbacks):
        network = fastnn.Network([500, 3], seed=1)
        return make(path, *callbacks, network=network, batch_size=5, l2=0.01)

    with pytest.raises(RuntimeError, match="power"):
        trainer(Crash(path)).fit(X, y, epochs=3)

    def change(content, tensors):
        touched = tensors["space.touched"]
        if damage == "count":
            touched[0] = 10**6
        elif damage == "repeated":
            touched[0], touched[1], touched[501:503] = 2, ~0, 0
        elif damage == "outside":
            touched[0], touched[1], touched[501] = 1, ~0, 10**9
        elif damage == "late":
            touched[1] = 10**9
        else:
            touched[1] = ~0  # touched by the current batch, which does not know it

    rewrite(path, change)
    with pytest.raises(ValueError, match="touched columns contradicts itself"):
        trainer().fit(X, y, epochs=3, resume=path)


def test_a_generator_s_position_is_checked(data, path):
    # NumPy would read what lies behind its buffer.
    generators = [np.random.Generator(np.random.MT19937(0)), np.random.Generator(np.random.Philox(0))]
    for generator, place in zip(generators, [("state", "pos"), ("buffer_pos",)], strict=True):
        make(path, seed=generator).fit(*data, epochs=1)
        rewrite(path, put("generator", *place, 10**6))
        with pytest.raises(ValueError, match="is not a usable checkpoint"):
            make(path, seed=generator).fit(*data, epochs=2, resume=path)


def test_saving_is_for_a_fit_under_way(data, path):
    kept = []

    class Keep(Callback):
        def on_epoch(self, fit):
            kept.append(fit)

    trainer = make(path, Keep())
    trainer.fit(*data, epochs=1)
    with pytest.raises(RuntimeError, match="save_checkpoint is for a fit that is under way"):
        trainer.save_checkpoint(path, kept[0])
