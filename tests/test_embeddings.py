"""Narrow trained embeddings of categories: against PyTorch, one-hot features, central differences and the twin."""

import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from pairs import parametrize_pairs

import fastnn
from fastnn import reference
from fastnn.callbacks import Callback, Checkpoint
from fastnn.kernels import columns as column_kernels
from fastnn.kernels import embeddings as kernels
from fastnn.layers import Category, Columns, Dense, Number

TRUTH = json.loads((Path(__file__).parent / "golden" / "embeddings" / "trajectories.json").read_text())
GOLDEN = Columns([Number(), Category(3), Category(7, missing=True, width=3), Category(11, width=2)])
OPTIMIZERS = {"SGD": fastnn.SGD, "Adagrad": fastnn.Adagrad, "Adam": fastnn.Adam, "AdamW": fastnn.AdamW}

# As of the other trajectories: float32 has 1e-7 a rounding, and Adam passes on the relative error of small gradients.
TRAJECTORY_TOLERANCES = {"float64": 1e-10, "float32": 1e-4}

COLUMNS = Columns(
    [
        Category(40, width=5),
        Number(0.0, 1.0, (-1.0, 0.0, 1.0), missing=True),
        Category(3, missing=True, width=1),
        Category(4),
    ]
)
ALONE = Columns([Category(30, missing=True, width=4)])  # no other features


def draw(rng, n, columns=COLUMNS):
    """Rows with missing values and unseen categories."""
    parts = [rng.integers(-1, column.n + 1, n) if isinstance(column, Category) else rng.normal(size=n)
             for column in columns.columns]  # fmt: skip
    X = np.array(parts, float).T.reshape(n, len(columns.columns)).copy()
    X[rng.random(X.shape) < 0.1] = np.nan
    return X


def make(*hidden, columns=COLUMNS, n_out=3, **options):
    return fastnn.Network([columns, *hidden, Dense(n_out)], input_shape=len(columns.columns), **options)


@parametrize_pairs({"n": [0, 1, 33], "shapes": [[(5, 3)], [(1, 1), (7, 2), (4, 9)]], "dtype": ["float32", "float64"]})
def test_kernels_and_twins(rng, n, shapes, dtype, assert_close_in):
    widths = [width for _, width in shapes]
    codes = np.array([rng.integers(-1, n_rows, n) for n_rows, _ in shapes], np.int32).T.copy()
    tables, G = rng.normal(size=np.prod(shapes, axis=1).sum()).astype(dtype), np.empty((n, sum(widths)), dtype)
    expected = G.copy()
    kernels.gather(codes, tables, np.array(shapes), G)
    reference.gather(codes, tables, np.array(shapes), expected)
    np.testing.assert_array_equal(G, expected)
    dG, other = rng.normal(size=G.shape).astype(dtype), tables.copy()
    kernels.scatter(codes, dG, np.array(shapes), tables, 0.5)
    reference.scatter(codes, dG, np.array(shapes), other, 0.5)
    assert_close_in(dtype, tables, other)


@parametrize_pairs({"n": [0, 1, 300], "stored": ["float32", "float64"], "n_threads": [1, 3]})
def test_codes_of_kernel_and_twin(rng, n, stored, n_threads):
    X = draw(rng, n).astype(stored)
    encoder, found = column_kernels.Encoder([column.facts for column in COLUMNS.columns]), []
    for module in (column_kernels, reference):
        indptr = np.zeros(n + 1, np.int64)
        module.count_active(encoder, X, indptr[1:])
        np.cumsum(indptr, out=indptr)
        data, indices, codes = np.empty(indptr[-1]), np.empty(indptr[-1], np.int32), np.empty((n, 2), np.int32)
        module.encode(encoder, X, indptr, data, indices, codes, n_threads)
        found.append((indptr, indices, codes))
    for ours, twins in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, twins)
    for code, x, n_categories, missing in zip(codes.T, X[:, [0, 2]].T, (40, 3), (-1, 3), strict=True):
        unseen = np.where((x < 0) | (x >= n_categories), -1, x)
        np.testing.assert_array_equal(code, np.where(np.isnan(x), missing, unseen))


@pytest.mark.parametrize("dtype", TRAJECTORY_TOLERANCES)
@pytest.mark.parametrize("name", TRUTH["cases"])
def test_trajectories_of_pytorch(name, dtype):
    case = TRUTH["cases"][name]
    kind, arguments, decay = case["optimizer"]
    options = {"learning_rate" if key == "lr" else key: value for key, value in arguments.items()}
    options |= {"weight_decay": decay} if kind == "AdamW" else {}
    net = make(Dense(5, "tanh"), columns=GOLDEN, dtype=dtype, batch_norm=case["batch_norm"])
    net.parameters = np.concatenate([TRUTH["first_parameters"], *(TRUTH["first_norm"] if case["batch_norm"] else [])])
    trainer = fastnn.Trainer(
        net, OPTIMIZERS[kind](**options), TRUTH["batch_size"], shuffle=False, l2=0.0 if kind == "AdamW" else decay
    )
    X, y = np.array(TRUTH["X"], float), np.array(TRUTH["y"])
    history = trainer.fit(X, y, epochs=TRUTH["epochs"])
    tolerance = TRAJECTORY_TOLERANCES[dtype]
    np.testing.assert_allclose(net.parameters, case["parameters"], rtol=0, atol=tolerance)
    sizes = np.diff([*range(0, len(y), TRUTH["batch_size"]), len(y)])
    each = np.reshape(case["log_likelihood"], (TRUTH["epochs"], len(sizes)))
    np.testing.assert_allclose(history.log_likelihood, each @ sizes / len(y), rtol=0, atol=tolerance)


def one_hot(net):
    """The network with a feature for each category: an embedding and its weight are a factored weight of these."""
    (columns, *layers), (W, *_) = net.layers, net.weights
    plain = Columns([Category(c.n, c.missing) if isinstance(c, Category) else c for c in columns.columns])
    found = fastnn.Network([plain, *layers], input_shape=len(plain.columns), dtype=net.dtype, loss=net.loss)
    rest = iter(np.split(W, np.cumsum([c.n_features for c in columns.columns if getattr(c, "width", None) is None])))
    n_plain = sum(c.n_features for c in columns.columns if getattr(c, "width", None) is None)
    embedded = iter(np.split(W[n_plain:], np.cumsum([width for _, width in columns.embeddings])[:-1]))
    tables = iter(net.embeddings)
    parts = [next(rest) if getattr(c, "width", None) is None else next(tables) @ next(embedded)
             for c in columns.columns]  # fmt: skip
    found.weights = [np.vstack(parts), *net.weights[1:]]
    found.biases = list(net.biases)
    return found


@parametrize_pairs(
    {
        "n": [0, 1, 9, 700],
        "columns": [COLUMNS, ALONE],
        "hidden": [(), (20,), (210, 12)],
        "dtype": ["float32", "float64"],
        "n_threads": [1, 3],
    }
)
def test_predictions_are_those_of_one_hot_features(rng, n, columns, hidden, dtype, n_threads, assert_close_in):
    net, X = make(*map(Dense, hidden), columns=columns, dtype=dtype), draw(rng, n, columns)
    net.parameters = rng.normal(size=net.parameters.size) / 4
    assert_close_in(dtype, net.predict_proba(X, n_threads), one_hot(net).predict_proba(X), 10)
    assert net.sizes == (len(columns.columns), columns.n_features, *hidden, 3)


def test_one_row_has_the_bits_of_many(rng):
    for dtype, hidden in itertools.product(("float32", "float64"), ((), (12,), (64, 30))):
        net, X = make(*map(Dense, hidden), dtype=dtype, n_out=12), draw(rng, 300)
        whole, predictor = net.predict_proba(X), net.predictor()
        for i in range(0, 300, 7):
            assert net.predict_proba(X[i : i + 1]).tobytes() == whole[i : i + 1].tobytes()
            assert predictor.predict_proba(X[i : i + 3]).tobytes() == whole[i : i + 3].tobytes()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("columns", [COLUMNS, ALONE])
@pytest.mark.parametrize("hidden", [(), (6,), (7, 5)])
def test_gradient_by_central_differences(rng, columns, hidden, batch_norm):
    net = make(*map(Dense, hidden), columns=columns, batch_norm=batch_norm and bool(hidden))
    X, y, weight = draw(rng, 25, columns), rng.integers(0, 3, 25), rng.random(25)
    net.parameters = rng.normal(size=net.parameters.size) / 2 if not net.batch_norm else net.parameters
    found = net.gradient(X, y, weight)
    assert [array.shape for array in found[-1]] == list(columns.embeddings)
    before = net.parameters.copy()

    def objective(array, place, step):
        array[place] += step
        value = net.log_likelihood(X, y, weight) if not net.batch_norm else trained_on(net, X, y, weight)
        net.parameters = before
        return value

    for arrays, gradients in ((net.embeddings, found[-1]), (net.weights, found[0])):
        for array, gradient in zip(arrays, gradients, strict=True):
            for flat in rng.choice(array.size, min(array.size, 12), replace=False):
                place = np.unravel_index(flat, array.shape)
                slope = (objective(array, place, 1e-5) - objective(array, place, -1e-5)) / 2e-5
                np.testing.assert_allclose(gradient[place], slope, rtol=0, atol=1e-8)


def trained_on(net, X, y, weight):
    """The log-likelihood of a batch in training: normalised by its own mean and variance."""
    return fastnn.Trainer(net, fastnn.SGD(1e-300), shuffle=False).fit(X, y, 1, sample_weight=weight).log_likelihood[0]


SETTINGS = {
    "plain": {"optimizer": fastnn.SGD(0.1)},
    "l2": {"optimizer": fastnn.SGD(0.1), "l2": 0.01},
    "momentum, l1": {"optimizer": fastnn.SGD(0.1, 0.9), "l1": 0.001},
    "adamw, dropout": {"optimizer": fastnn.AdamW(0.01), "dropout": 0.3},
    "rmsprop, clip": {"optimizer": fastnn.RMSprop(), "clip_norm": 0.05, "l2": 0.01},
    "nesterov, max-norm": {"optimizer": fastnn.SGD(0.1, 0.9, True), "max_norm": 0.5},
    "lbfgs": {"optimizer": fastnn.LBFGS(), "l2": 0.01},
}


@parametrize_pairs(
    {
        "settings": list(SETTINGS),
        "columns": [COLUMNS, ALONE],
        "hidden": [(), (9,), (210,), (12, 20)],
        "batch_norm": [False, True],
        "batch_size": [7, 600, 1100],
        "shuffle": [False, True],
        "dtype": ["float32", "float64"],
    }
)
def test_training_as_the_twin_and_with_any_threads(
    rng, monkeypatch, settings, columns, hidden, batch_norm, batch_size, shuffle, dtype, assert_close_in
):
    monkeypatch.setattr("fastnn.tuning.SMALL_RUN", 0)
    X, y, weight = draw(rng, 1100, columns), rng.integers(0, 3, 1100), rng.random(1100)
    batch_size = None if settings == "lbfgs" else batch_size
    batch_norm = batch_norm and bool(hidden) and settings != "lbfgs"
    found = []
    for n_threads in (1, 3, "twin"):
        net = make(*map(Dense, hidden), columns=columns, dtype=dtype, batch_norm=batch_norm)
        options = {"n_threads": 1 if n_threads == "twin" else n_threads, "seed": 1, "shuffle": shuffle}
        trainer = fastnn.Trainer(net, batch_size=batch_size, **options, **SETTINGS[settings])
        with monkeypatch.context() as patched:
            if n_threads == "twin":
                patched.setattr("fastnn.engine.local.epoch.train", reference.train)
            history = trainer.fit(X, y, epochs=2, sample_weight=weight, validation=(X[:30], y[:30]))
        found.append((net.parameters, history.objective, history.validation_log_likelihood))
    (ours, *told), (others, *again), (twins, *expected) = found
    np.testing.assert_array_equal(ours, others)
    assert told == again
    # Hundreds of steps pass on roundings, adaptive ones those of small gradients in full; an l1 penalty turns at 0.
    factor = 3000 if "l1" in settings else 300
    assert_close_in(dtype, ours, twins, factor)
    assert_close_in(dtype, told, expected, factor)


def test_a_row_costs_the_width_of_its_embedding(rng):
    columns = Columns([Category(10_000, width=8), Number()])
    net = make(Dense(16), columns=columns, n_out=2)
    assert net.parameters.size == 10_000 * 8 + (9 * 16 + 16) + (16 * 2 + 2)
    assert [array.shape for array in net.embeddings] == [(10_000, 8)]
    spread = net.embeddings[0].std()
    assert abs(spread - 1) < 0.01  # standard normal
    assert np.abs(net.weights[0]).max() <= np.sqrt(6 / (9 + 16))
    X = np.column_stack([rng.integers(0, 10_000, 500), rng.normal(size=500)])
    plan = fastnn.Trainer(net, fastnn.Adam(), batch_size=64).plan(X, np.zeros(500, int))
    assert plan.driver == "rows"
    assert not plan.touches
    assert "embeddings" in str(plan)
    assert str(net).splitlines()[2].split() == ["Columns(2", "columns)", "(9,)", "80,000"]


def test_rows_of_categories_that_no_row_has_only_decay(rng):
    net = make(Dense(4), columns=Columns([Category(6, width=2)]), n_out=2)
    first = net.embeddings[0].copy()
    X, y = np.array([[0.0], [2.0], [2.0], [np.nan], [9.0]]), np.array([0, 1, 1, 0, 1])
    fastnn.Trainer(net, fastnn.Adam(0.1), seed=0).fit(X, y, epochs=3)
    moved = (net.embeddings[0] != first).any(axis=1)
    assert moved.tolist() == [True, False, True, False, False, False]
    again = make(Dense(4), columns=Columns([Category(6, width=2)]), n_out=2)
    fastnn.Trainer(again, fastnn.AdamW(0.1, weight_decay=0.5), seed=0).fit(X, y, epochs=3)
    np.testing.assert_allclose(again.embeddings[0][[1, 3, 4, 5]], first[[1, 3, 4, 5]] * (1 - 0.05) ** 3)


def test_embeddings_are_part_of_what_is_assigned_copied_and_saved(rng, tmp_path):
    net, X = make(Dense(5)), draw(rng, 20)
    net.embeddings[1] = np.ones((4, 1))
    net.embeddings[0][3] = 7
    np.testing.assert_array_equal(net.parameters[200:204], 1)
    assert net.parameters[15:20].tolist() == [7] * 5
    net.save(tmp_path / "net.safetensors")
    for other in (fastnn.Network.load(tmp_path / "net.safetensors"), pickle.loads(pickle.dumps(net))):
        assert other.layers == net.layers
        assert repr(other) == repr(net)
        np.testing.assert_array_equal(other.parameters, net.parameters)
        np.testing.assert_array_equal(other.predict_proba(X), net.predict_proba(X))
    with pytest.raises(ValueError, match=r"an array of embeddings must keep its shape \(40, 5\)"):
        net.embeddings[0] = np.ones((41, 5))
    normalised = make(Dense(5), batch_norm=True)
    fastnn.Trainer(normalised, fastnn.Adam(), 10).fit(X, rng.integers(0, 3, 20), epochs=2)
    plain = normalised.without_norm()
    np.testing.assert_array_equal(plain.embeddings[0], normalised.embeddings[0])
    np.testing.assert_allclose(plain.predict_proba(X), normalised.predict_proba(X))


class Crash(Callback):
    """Writes a checkpoint within the second epoch, and raises an error."""

    def __init__(self, path):
        self.path = path

    def on_chunk(self, fit):
        if len(fit.history) == 1 and fit.rows_done:
            fit.trainer.save_checkpoint(self.path, fit)
            raise RuntimeError("the power failed")


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_fit_goes_on_within_an_epoch(rng, tmp_path, monkeypatch, batch_norm):
    monkeypatch.setattr("fastnn.tuning.CHUNK_SECONDS", 1e-5)
    monkeypatch.setattr("fastnn.tuning.SMALL_RUN", 0)
    X, y = draw(rng, 3000), rng.integers(0, 3, 3000)

    def fit(n_threads, path, *callbacks):
        net = make(Dense(20), dtype="float32", batch_norm=batch_norm)
        trainer = fastnn.Trainer(net, fastnn.Adam(0.01), 600, dropout=0.2, n_threads=n_threads, callbacks=callbacks)
        history = trainer.fit(X, y, epochs=3, resume=path)
        return net.parameters.tobytes(), history.log_likelihood

    path = tmp_path / "checkpoint"
    with pytest.raises(RuntimeError, match="power"):
        fit(3, path, Crash(path))
    resumed = fit(1, path, Checkpoint(path))
    assert resumed == fit(2, tmp_path / "other")


def test_a_checkpoint_knows_the_codes(rng, tmp_path):
    X, y, path = draw(rng, 50, ALONE), rng.integers(0, 3, 50), tmp_path / "checkpoint"
    fastnn.Trainer(make(columns=ALONE), callbacks=[Checkpoint(path)]).fit(X, y, epochs=1)
    X[0, 0] = X[0, 0] == 0
    with pytest.raises(ValueError, match="X"):
        fastnn.Trainer(make(columns=ALONE)).fit(X, y, epochs=2, resume=path)


def test_many_fits_are_those_alone(rng):
    X, y = draw(rng, 90), rng.integers(0, 3, 90)
    nets = [make(Dense(6), seed=seed) for seed in (0, 1)]
    trainers = [fastnn.Trainer(net, fastnn.Adam(), batch_size=10, seed=0) for net in nets]
    fastnn.fit_many(trainers, X, y, epochs=2)
    for seed, net in enumerate(nets):
        alone = make(Dense(6), seed=seed)
        fastnn.Trainer(alone, fastnn.Adam(), batch_size=10, seed=0).fit(X, y, epochs=2)
        np.testing.assert_array_equal(net.parameters, alone.parameters)
    assert (nets[0].embeddings[0] != nets[1].embeddings[0]).all()


def test_it_learns_what_single_categories_mean(rng):
    means = rng.normal(size=500)
    codes = rng.integers(0, 500, 8000)
    net = fastnn.Network([Columns([Category(500, width=2)]), Dense(16), Dense(1)], input_shape=1, loss="squared")
    trainer = fastnn.Trainer(net, fastnn.Adam(0.02), batch_size=64, seed=0)
    trainer.fit(codes[:, None].astype(float), means[codes], epochs=30)
    assert np.square(net.predict(np.arange(500.0)[:, None])[:, 0] - means).mean() < 0.05


WRONG = [
    (lambda: Category(3, width=0), ValueError, "width must be at least 1"),
    (lambda: Category(3, width="a"), TypeError, "width must be an integer"),
    (lambda: Category(3, width=2.5), TypeError, "width must be an integer"),
    (lambda: make(columns=Columns([Category(2**31 - 1, width=2**30)])), ValueError, "more parameters than memory"),
]


@pytest.mark.parametrize(("make_it", "error", "message"), WRONG)
def test_wrong_widths(make_it, error, message):
    with pytest.raises(error, match=message):
        make_it()
