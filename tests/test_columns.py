"""Networks on the columns of a table: what becomes of numbers, categories and missing values."""

import json
import pickle

import numpy as np
import pytest
from pairs import parametrize_pairs
from scipy import sparse
from table_rows import COLUMNS, dense_features, draw_rows

import fastnn
from fastnn import reference
from fastnn.engine.rows import encode
from fastnn.kernels import columns as kernels
from fastnn.layers import Category, Columns, Conv2D, Dense, Number


@parametrize_pairs(
    {"n": [0, 1, 7, 1000], "stored": ["float32", "float64"], "dtype": ["float32", "float64"], "n_threads": [1, 3]}
)
def test_features(rng, n, stored, dtype, n_threads, assert_close_in):
    X = draw_rows(rng, COLUMNS, n, stored)
    encoder = kernels.Encoder([column.facts for column in COLUMNS.columns])
    rows = encode(encoder, X, np.dtype(dtype), n_threads)
    assert encoder.n_features == COLUMNS.n_features == 20
    features = sparse.csr_array((rows.data, rows.indices, rows.indptr), rows.shape)
    features.check_format()
    assert_close_in(dtype, features.toarray(), dense_features(COLUMNS, X).reshape(n, 20))
    assert np.diff(rows.indptr).max(initial=0) <= encoder.most_active == 3 + 1 + 1 + 1 + 3 + 1


def test_the_smallest_and_the_largest_numbers():
    tiny, huge = 5e-324, 1.7e308
    numbers = [Number(-huge, 0.0), Number(-huge, 1.0, (-huge, 0.0, huge)), Number(0.0, huge, (-0.0, 2 * tiny))]
    encoder = kernels.Encoder([column.facts for column in [*numbers, Category(2)]])
    X = np.array([[huge, huge / 2, tiny, -0.0], [-huge, -huge, -0.0, 1], [huge, huge, 2 * tiny, huge]])
    rows = encode(encoder, X, np.dtype("float64"))
    clipped = tiny * huge
    expected = [
        [0, 3, 0, 0.5, 0.5, clipped, 0.5, 0.5, 1, 0],
        [0, 0, 1, 0, 0, 0, 1, 0, 0, 1],
        [0, 3, 0, 0, 1, 2 * clipped, 0, 1, 0, 0],
    ]
    np.testing.assert_array_equal(sparse.csr_array((rows.data, rows.indices, rows.indptr)).toarray(), expected)


@parametrize_pairs({"n": [0, 1, 33], "stored": ["float32", "float64"], "dtype": ["float32", "float64"]})
def test_kernels_and_twins(rng, n, stored, dtype, assert_close_in):
    X = draw_rows(rng, COLUMNS, n, stored)
    encoder, found = kernels.Encoder([column.facts for column in COLUMNS.columns]), []
    for module in (kernels, reference):
        indptr = np.zeros(n + 1, np.int64)
        module.count_active(encoder, X, indptr[1:])
        np.cumsum(indptr, out=indptr)
        data, indices = np.empty(indptr[-1], dtype), np.empty(indptr[-1], np.int32)
        module.encode(encoder, X, indptr, data, indices, np.empty((n, 0), np.int32))
        found.append((indptr, indices, data))
    (indptr, indices, data), (twins_indptr, twins_indices, twins_data) = found
    np.testing.assert_array_equal(indptr, twins_indptr)
    np.testing.assert_array_equal(indices, twins_indices)
    assert_close_in(dtype, data, twins_data)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_on_columns_is_one_on_their_features(rng, dtype, assert_close_in):
    X, y = draw_rows(rng, COLUMNS, 301), rng.integers(0, 3, 301)
    net = fastnn.Network([COLUMNS, Dense(20), Dense(3)], input_shape=6, dtype=dtype)
    plain = fastnn.Network([20, 20, 3], dtype=dtype)
    plain.parameters = net.parameters
    features = sparse.csr_array(dense_features(COLUMNS, X).astype(dtype))
    for network, data in ((net, X), (plain, features)):
        trainer = fastnn.Trainer(network, fastnn.Adam(0.01), batch_size=32, seed=1)
        trainer.fit(data, y, epochs=2, validation=(data[:50], y[:50]))
    assert_close_in(dtype, net.parameters, plain.parameters, 100)  # some steps of Adam
    assert_close_in(dtype, net.predict_proba(X), plain.predict_proba(features), 100)
    assert net.error(X, y) == plain.error(features, y)


def test_same_bits_for_threads_chunks_and_kinds_of_rows(rng):
    X, y = draw_rows(rng, COLUMNS, 700), rng.integers(0, 2, 700)
    X[:, 1] = rng.integers(0, 4, 700)
    found = []
    for n_threads, rows in ((1, X), (2, X.copy(order="F")), (3, X.tolist())):
        net = fastnn.Network([COLUMNS, Dense(16, activation="relu"), Dense(2)], input_shape=6, dtype="float32")
        fastnn.Trainer(net, fastnn.Adam(0.01), batch_size=50, n_threads=n_threads, seed=0).fit(rows, y, epochs=2)
        found.append(net.parameters.tobytes())
    assert len(set(found)) == 1
    whole = net.predict_proba(X)
    for rows in ([X[i : i + 1] for i in range(50)], [X[:50]]):
        assert np.concatenate([net.predict_proba(x) for x in rows]).tobytes() == whole[:50].tobytes()
        assert np.concatenate([net.predictor().predict(x) for x in rows]).tolist() == whole[:50].argmax(1).tolist()


@parametrize_pairs(
    {
        "kept": [(0, 1, 2, 3, 4, 5), (0,), (0, 3, 5), (5,), (3,)],
        "width": [3, 56, 200, 600],
        "stored": ["float32", "float64"],
        "dtype": ["float32", "float64"],
    }
)
def test_few_rows_have_the_bits_of_many(rng, kept, width, stored, dtype):
    columns = Columns([COLUMNS.columns[k] for k in kept])
    X = draw_rows(rng, columns, 300, stored)
    net = fastnn.Network([columns, Dense(width), Dense(20)], input_shape=len(kept), dtype=dtype)
    whole, predictor = net.predict_proba(X), net.predictor()
    for n in (1, 2, 3, 16):
        for begin in range(0, 48, n):
            few = predictor.predict_proba(X[begin : begin + n])
            assert few.tobytes() == whole[begin : begin + n].tobytes()


def test_bytes_are_numbers_and_not_pixels():
    columns = Columns([Number(), Category(200)])
    net = fastnn.Network([columns, Dense(3), Dense(2)], input_shape=2)
    rows = np.array([[1, 2], [3, 199]], np.uint8)
    np.testing.assert_array_equal(net.predict_proba(rows), net.predict_proba(rows.astype(float)))
    np.testing.assert_array_equal(net.predict_proba(rows[:1]), net.predict_proba(rows[:1].astype(float)))


def test_files_and_pickles(rng, tmp_path):
    net = fastnn.Network([COLUMNS, Dense(5), Dense(2)], input_shape=6)
    net.save(tmp_path / "table.safetensors")
    X = draw_rows(rng, COLUMNS, 20)
    for other in (fastnn.Network.load(tmp_path / "table.safetensors"), pickle.loads(pickle.dumps(net))):
        assert other.layers == net.layers
        assert hash(other.layers) == hash(net.layers)
        assert repr(other) == repr(net)
        np.testing.assert_array_equal(other.predict_proba(X), net.predict_proba(X))
    names = {"Network": fastnn.Network, "Columns": Columns, "Number": Number, "Category": Category, "Dense": Dense}
    assert eval(repr(net), names).layers == net.layers
    assert "Columns(6 columns)" in str(net)


def test_numbers_of_numpy_are_plain_ones_in_a_file(tmp_path):
    number = Number(np.float32(1.5), np.int64(2), np.array([0.0, 1.0]), True)
    net = fastnn.Network([Columns([number, Category(np.int64(3), width=np.int64(4))]), Dense(2)], input_shape=2)
    net.save(tmp_path / "table.safetensors")
    assert repr(fastnn.Network.load(tmp_path / "table.safetensors")) == repr(net)
    assert "Number(center=1.5, scale=2.0, knots=(0.0, 1.0), missing=True)" in repr(net)
    assert "Category(n=3, missing=False, width=4)" in repr(net)


def test_columns_are_part_of_what_fits_share(rng):
    X, y = draw_rows(rng, COLUMNS, 60), rng.integers(0, 2, 60)
    other = Columns([Number(0, 3), *COLUMNS.columns[1:]])
    nets = [fastnn.Network([each, Dense(4), Dense(2)], input_shape=6) for each in (COLUMNS, other)]
    trainers = [fastnn.Trainer(net, fastnn.Adam(), batch_size=10, seed=0) for net in nets]
    fastnn.fit_many(trainers, X, y, epochs=1)
    for net, columns in zip(nets, (COLUMNS, other), strict=True):
        alone = fastnn.Network([columns, Dense(4), Dense(2)], input_shape=6)
        fastnn.Trainer(alone, fastnn.Adam(), batch_size=10, seed=0).fit(X, y, epochs=1)
        np.testing.assert_array_equal(net.parameters, alone.parameters)


WRONG_RECORDS = [
    (lambda: Number("a"), TypeError, "center must be a number"),
    (lambda: Number(0, -1), ValueError, "scale must be at least 0"),
    (lambda: Number(0, np.inf), ValueError, "scale must be at least 0 and finite"),
    (lambda: Number(knots=(1,)), ValueError, "knots must be none, or two or more numbers that increase"),
    (lambda: Number(knots=(1, 1)), ValueError, "knots must be none, or two or more"),
    (lambda: Number(knots=(-1e308, 1e308)), ValueError, "numbers that increase by finite steps"),
    (lambda: Number(knots=(1, np.nan)), ValueError, r"knots\[1\] must be"),
    (lambda: Number(knots=3), TypeError, "knots must be a sequence"),
    (lambda: Number(missing=2), ValueError, "missing must be one of"),
    (lambda: Category(0), ValueError, "n must be at least 1"),
    (lambda: Columns([]), TypeError, "columns must be a sequence of one or more Number and Category"),
    (lambda: Columns([Dense(3)]), TypeError, "columns must be a sequence"),
    (lambda: Columns(3), TypeError, "columns must be a sequence"),
    (lambda: fastnn.Network([COLUMNS, Dense(2)], input_shape=5), ValueError, "needs rows of 6 columns"),
    (lambda: fastnn.Network([Dense(6), COLUMNS, Dense(2)], input_shape=6), ValueError, "must be the first layer"),
    (lambda: fastnn.Network([COLUMNS, Conv2D(3, 2), Dense(2)], input_shape=6), ValueError, "needs images"),
    (lambda: fastnn.Network([COLUMNS], input_shape=6), ValueError, "the output layer must be Dense"),
]


@pytest.mark.parametrize(("make", "error", "message"), WRONG_RECORDS)
def test_wrong_records(make, error, message):
    with pytest.raises(error, match=message):
        make()


WRONG_ROWS = [
    (np.full((2, 6), np.inf), ValueError, "X must be finite or NaN, but row 0 has an infinity in column 0"),
    (np.zeros((2, 5)), ValueError, "X must have 6 columns"),
    (np.zeros(6), ValueError, "X must have two dimensions"),
    (np.array([["a"] * 6]), TypeError, "X must hold real numbers, with codes for categories"),
    (sparse.csr_array((2, 6)), TypeError, "X must be dense"),
]


@pytest.mark.parametrize(("X", "error", "message"), WRONG_ROWS)
def test_wrong_rows(X, error, message):
    net = fastnn.Network([COLUMNS, Dense(2)], input_shape=6)
    for call in (net.predict, net.predict_proba, net.predictor().predict, lambda X: net.error(X, [0, 1])):
        with pytest.raises(error, match=message):
            call(X)


CATEGORY = {"kind": "Category", "n": 3, "missing": False}
WRONG_FILES = [
    ({"kind": "Columns"}, "a Columns layer must have the fields"),
    ({"kind": "Columns", "columns": 3}, "columns must be a list of objects"),
    ({"kind": "Columns", "columns": [3]}, "columns must be a list of objects"),
    ({"kind": "Columns", "columns": [{"kind": "Dense"}]}, "kind of column must be one of"),
    ({"kind": "Columns", "columns": [{"kind": "Category"}]}, "a Category must have the fields"),
    ({"kind": "Columns", "columns": [CATEGORY | {"n": 1e9}]}, "n must be an integer"),
    ({"kind": "Columns", "columns": [CATEGORY | {"width": -1}]}, "width must be"),
    ({"kind": "Columns", "columns": [CATEGORY | {"knots": []}]}, "a Category must have the fields"),
    ({"kind": "Columns", "columns": [CATEGORY | {"width": 2}]}, "its tensors are not"),
    ({"kind": "Columns", "columns": []}, "columns must be a sequence of one or more"),
]


@pytest.mark.parametrize(("layer", "message"), WRONG_FILES)
def test_wrong_files(tmp_path, layer, message):
    from safetensors.numpy import save_file

    dense = {"kind": "Dense", "units": 2, "activation": None, "batch_norm": False}
    told = {"format": 2, "input_shape": [1], "layers": [layer, dense], "loss": "squared", "dtype": "float64"}
    save_file({}, tmp_path / "wrong.safetensors", {"fastnn": json.dumps(told)})
    with pytest.raises(ValueError, match=message):
        fastnn.Network.load(tmp_path / "wrong.safetensors")
