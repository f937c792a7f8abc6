"""Memory-mapped rows: in which order they come, that reading ahead changes nothing, and what it costs in memory."""

import tracemalloc

import numpy as np
import pytest

import fastnn
from fastnn import _mapped
from fastnn._mapped import MappedRows, stay_on_disk
from fastnn.callbacks import Callback

N, N_IN = 5003, 20


@pytest.fixture
def data(rng, tmp_path, monkeypatch):
    """Memory-mapped rows of a file of fifteen windows of ten pieces, and their classes."""
    monkeypatch.setattr(_mapped, "PIECE_BYTES", 33 * N_IN * 8)
    monkeypatch.setattr(_mapped, "WINDOW_BYTES", 330 * N_IN * 8)
    np.save(tmp_path / "X.npy", rng.standard_normal((N, N_IN)))
    return np.load(tmp_path / "X.npy", mmap_mode="r"), rng.integers(0, 3, N)


def fit(X, y, epochs=2, **options):
    network = fastnn.Network([X.shape[1], 8, 3])
    history = fastnn.Trainer(network, fastnn.SGD(0.1, 0.9), **{"batch_size": 50, **options}).fit(X, y, epochs)
    return network.parameters, history.log_likelihood


def test_windows_hold_the_rows_of_a_few_pieces_each(data):
    rows = MappedRows(np.asarray(data[0]), 50)
    orders = [rows.shuffled(np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    np.testing.assert_array_equal(np.sort(orders[0]), np.arange(N))
    for begin in range(0, N - 330, 330):
        window = orders[0][begin : begin + 330]
        pieces = np.unique(window // 33)
        assert len(pieces) <= 12  # the first and last may be shared with other windows, and one is short
        assert np.ptp(pieces) > 33  # from all over the file
        assert np.mean(np.diff(window) == 1) < 0.05  # and mixed


@pytest.mark.parametrize("n", [1, 32, 33, 34, 330, 331])
def test_orders_of_any_number_of_rows(data, n):
    order = MappedRows(np.asarray(data[0][:n]), 1).shuffled(np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


@pytest.mark.parametrize("options", [{"shuffle": False}, {"batch_size": None}, {"batch_size": 400, "shuffle": False}])
def test_rows_in_order_give_the_same_bits_as_in_memory(data, options):
    X, y = data
    found, expected = fit(X, y, **options), fit(np.array(X), y, **options)
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1]


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("first", [0, 7])
def test_shuffled_rows_are_trained_on_in_the_order_that_was_drawn(data, tmp_path, dtype, first):
    np.save(tmp_path / "other.npy", (data[0] * 50).astype(dtype))
    X, y = np.load(tmp_path / "other.npy", mmap_mode="r")[first:], data[1][first:]
    order = MappedRows(np.asarray(X), 50).shuffled(np.random.default_rng(3))
    expected = fit(np.array(X)[order], y[order], epochs=1, shuffle=False)[0]
    for n_threads in (1, 2, 3):
        np.testing.assert_array_equal(fit(X, y, epochs=1, seed=3, n_threads=n_threads)[0], expected)


def test_a_small_file_is_shuffled_as_in_memory(data):
    X, y = data[0][:330], data[1][:330]
    assert not stay_on_disk(np.asarray(X), X)
    np.testing.assert_array_equal(fit(X, y)[0], fit(np.array(X), y)[0])


def test_what_is_copied_does_not_stay_on_the_disk(data):
    X, y = data
    for given in (X[:, ::-1], X.astype("int16").view(np.memmap), np.asarray(X)):
        rows, _ = fastnn.Network([N_IN, 3]).check_data(given, y)
        assert not stay_on_disk(rows, given)
    assert stay_on_disk(np.asarray(X), X)


def test_windows_are_read_before_they_are_trained_on(data, monkeypatch):
    X, y = data
    monkeypatch.setattr("fastnn.tuning.CHUNK_SECONDS", 1e-4)  # a few batches at a time
    read, pieces = [], MappedRows._pieces
    monkeypatch.setattr(MappedRows, "_pieces", lambda *given: read.append(given[2]) or pieces(*given))

    class Watch(Callback):
        def on_chunk(self, fit):
            if fit.rows_done:
                assert fit.rows_done // 330 in read
                assert max(read) <= fit.rows_done // 330 + 1

    fit(X, y, epochs=1, callbacks=[Watch()])
    assert len(read) > 2
    assert read == sorted(read)


def test_sparse_data_are_not_copied_unasked(data, tmp_path):
    np.save(tmp_path / "sparse.npy", data[0] * (data[0] > 1))
    X, y = np.load(tmp_path / "sparse.npy", mmap_mode="r"), data[1]
    results = [fit(X, y, shuffle=False, sparse=choice)[0] for choice in ("auto", False, True)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_allclose(results[2], results[0], rtol=0, atol=1e-12)


def test_a_fit_takes_memory_for_an_order_of_the_rows_not_for_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(_mapped, "WINDOW_BYTES", 1 << 20)
    np.save(tmp_path / "X.npy", np.zeros((40_000, 200), np.float32))
    X, y = np.load(tmp_path / "X.npy", mmap_mode="r"), np.zeros(40_000, np.intp)
    network = fastnn.Network([200, 3], dtype="float32")
    trainer = fastnn.Trainer(network, batch_size=50)
    trainer.fit(np.array(X[:1000]), y[:1000], epochs=1)
    tracemalloc.start()
    try:
        trainer.fit(X, y, epochs=1, validation=(X, y))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < X.nbytes / 6


def test_an_error_ends_the_reading(data):
    X, y = data

    class Fail(Callback):
        def on_chunk(self, fit):
            raise RuntimeError("from a callback")

    for _ in range(3):
        with pytest.raises(RuntimeError, match="from a callback"):
            fit(X, y, callbacks=[Fail()])
    assert len(fit(X, y)[1]) == 2
