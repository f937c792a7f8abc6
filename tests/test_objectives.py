"""Losses, activations, weights, penalties, L-BFGS and chunks through the public interface."""

import numpy as np
import pytest
from levels import levels_of, one_each
from scipy import optimize, sparse
from scipy.special import log_softmax
from sklearn.metrics import mean_pinball_loss

import fastnn
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.kernels.losses import LOSSES


def draw(rng, loss, n=12, n_in=5, n_out=3):
    X = rng.standard_normal((n, n_in))
    y = rng.integers(0, n_out, n) if loss == "cross_entropy" else one_each(loss, rng.random((n, n_out)))
    return X, y, rng.random(n) + 0.1


def numerical_gradient(network, *data):
    found = np.empty_like(network.parameters)
    for i in range(len(found)):
        values = []
        for step in (1e-6, -2e-6):
            network.parameters[i] += step
            values.append(network.log_likelihood(*data))
        network.parameters[i] += 1e-6
        found[i] = (values[0] - values[1]) / 2e-6
    return found


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_gradient_of_every_pair_by_central_differences(rng, loss, activation):
    data = draw(rng, loss)
    network = fastnn.Network([5, 4, 6, 3], [activation, "tanh"], loss=loss, seed=1, quantiles=levels_of(loss, 3))
    for bias in network.biases:
        bias[:] = rng.standard_normal(len(bias))
    dweights, dbiases = network.gradient(*data)
    found = np.concatenate([part.ravel() for pair in zip(dweights, dbiases, strict=True) for part in pair])
    np.testing.assert_allclose(found, numerical_gradient(network, *data), rtol=0, atol=2e-8)


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("batch_size", [None, 50])
def test_weights_count_like_repetitions(rng, dtype, loss, batch_size):
    X, y, _ = draw(rng, loss, 100)
    times = rng.integers(0, 4, 100)
    if batch_size is not None:
        times = np.full(100, 2)  # batches must stay the same rows
    results = []
    for rows, values, weights in ((X, y, times), (X.repeat(times, 0), y.repeat(times, 0), None)):
        network = fastnn.Network([5, 30, 3], dtype=dtype, loss=loss, quantiles=levels_of(loss, 3))
        size = batch_size if batch_size is None or weights is not None else 2 * batch_size
        trainer = fastnn.Trainer(network, fastnn.SGD(0.05), size, l2=0.1, shuffle=False)
        history = trainer.fit(rows, values, epochs=5, sample_weight=weights, validation=(rows, values, weights))
        results.append((network.parameters, history))
        assert history.validation_log_likelihood[-1] == network.log_likelihood(rows, values, weights)
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=0, atol=tolerance)
    for name, values in results[0][1].columns().items():
        if name != "seconds":
            np.testing.assert_allclose(values, results[1][1].columns()[name], rtol=10 * tolerance)


def test_the_objective_takes_the_penalties_off(rng):
    X, y, _ = draw(rng, "cross_entropy", 60)
    network = fastnn.Network([5, 4, 3])
    weights = np.concatenate([weight.ravel() for weight in network.weights])
    history = fastnn.Trainer(network, l2=0.3, l1=0.02).fit(X, y, epochs=1)
    penalty = 0.15 * (weights**2).sum() + 0.02 * np.abs(weights).sum()
    assert history.objective[0] == pytest.approx(history.log_likelihood[0] - penalty, rel=1e-12)


def test_l1_makes_weights_small_where_they_do_not_help(rng):
    X = rng.standard_normal((500, 20))
    y = (X[:, 0] > 0).astype(int)
    network = fastnn.Network([20, 2])
    fastnn.Trainer(network, fastnn.SGD(fastnn.schedules.Exponential(0.5, 0.99)), l1=0.05).fit(X, y, epochs=500)
    size = np.abs(network.weights[0]).max(axis=1)
    assert size[0] > 0.3
    assert size[1:].max() < 0.02


@pytest.mark.parametrize("stored", ["dense", "sparse"])
@pytest.mark.parametrize("weighted", [False, True])
def test_lbfgs_finds_the_optimum_that_scipy_finds(rng, stored, weighted):
    X, y, weights = draw(rng, "cross_entropy", 200)
    weights = weights if weighted else np.ones(200)

    def negative(parameters):
        W, b = parameters[:15].reshape(5, 3), parameters[15:]
        each = log_softmax(X @ W + b, axis=1)[np.arange(200), y]
        return -(weights @ each) / weights.sum() + 0.05 * (W**2).sum()

    expected = optimize.minimize(negative, np.zeros(18), method="BFGS", options={"gtol": 1e-7})
    network = fastnn.Network([5, 3])
    trainer = fastnn.Trainer(network, fastnn.LBFGS(tol=1e-8), l2=0.1)
    rows = sparse.csr_array(X) if stored == "sparse" else X
    history = trainer.fit(rows, y, epochs=200, sample_weight=weights if weighted else None)
    assert history.converged
    assert len(history) < 200
    assert -history.objective[-1] == pytest.approx(expected.fun, rel=1e-10)
    np.testing.assert_allclose(network.weights[0].ravel(), expected.x[:15], rtol=0, atol=1e-4)
    assert np.all(np.diff(history.objective) >= 0)


def test_lbfgs_stops_where_it_is_told(rng):
    X, y, _ = draw(rng, "squared", 50)

    class Stop(fastnn.callbacks.Callback):
        def on_epoch(self, fit):
            fit.stop = len(fit.history) == 3

    network = fastnn.Network([5, 4, 3], loss="squared", dtype="float32")
    history = fastnn.Trainer(network, fastnn.LBFGS(), callbacks=[Stop()]).fit(X, y, epochs=50)
    assert len(history) == 3
    assert not history.converged
    assert network.log_likelihood(X, y) == pytest.approx(history.log_likelihood[-1], rel=1e-5)
    assert len(fastnn.Trainer(network, fastnn.LBFGS(memory=1)).fit(X, y, epochs=2)) == 2
    with pytest.raises(ValueError, match="LBFGS takes no dropout"):
        fastnn.Trainer(network, fastnn.LBFGS(), dropout=0.5).fit(X, y)
    with pytest.raises(ValueError, match="LBFGS takes all rows at once"):
        fastnn.Trainer(network, fastnn.LBFGS(), batch_size=10).fit(X, y)


def test_chunks_are_trained_on_in_turn(rng, tmp_path):
    X, y, weights = draw(rng, "cross_entropy", 300)
    chunks = [(X[k : k + 100], y[k : k + 100], weights[k : k + 100]) for k in range(0, 300, 100)]
    networks = [fastnn.Network([5, 4, 3]) for _ in range(2)]
    options = {"batch_size": 50, "shuffle": False, "l2": 0.1}
    schedule = fastnn.schedules.Step(0.1, 0.5)
    at_once = fastnn.Trainer(networks[0], fastnn.SGD(schedule, 0.9), **options)
    in_chunks = fastnn.Trainer(networks[1], fastnn.SGD(schedule, 0.9), **options)
    histories = [at_once.fit(X, y, epochs=3, sample_weight=weights), in_chunks.fit(chunks, epochs=3)]
    np.testing.assert_allclose(networks[0].parameters, networks[1].parameters, rtol=0, atol=1e-14)
    np.testing.assert_allclose(histories[0].objective, histories[1].objective, rtol=1e-14)
    with pytest.raises(TypeError, match="y is needed, unless X is an iterable of pairs"):
        at_once.fit(X)
    with pytest.raises(TypeError, match="chunks must be pairs"):
        at_once.fit([X])
    with pytest.raises(ValueError, match="gave no chunks"):
        at_once.fit(iter(chunks), epochs=2)


def test_a_memory_mapped_array_stays_on_the_disk(rng, tmp_path):
    X, y, _ = draw(rng, "cross_entropy", 300)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    networks = [fastnn.Network([5, 4, 3]) for _ in range(2)]
    for network, rows in zip(networks, (X, mapped), strict=True):
        trainer = fastnn.Trainer(network, batch_size=20)
        trainer.fit(rows, y, epochs=2)
    np.testing.assert_array_equal(networks[0].parameters, networks[1].parameters)
    rows, _ = networks[0].check_data(mapped, y)
    assert np.shares_memory(rows, mapped)


def test_max_norm_and_dropout_through_the_trainer(rng):
    X, y, _ = draw(rng, "cross_entropy", 400, n_in=30)
    network = fastnn.Network([30, 40, 20, 3], "relu")
    fastnn.Trainer(network, fastnn.SGD(0.5, 0.9), 20, max_norm=1.5, dropout=[0.5, 0.2]).fit(X, y, epochs=5)
    for weight in network.weights[:2]:
        assert np.linalg.norm(weight, axis=0).max() <= 1.5 + 1e-9
    assert np.linalg.norm(network.weights[0], axis=0).max() > 1.49
    kept = fastnn.Network([30, 40, 20, 3], "relu")
    fastnn.Trainer(kept, fastnn.SGD(0.5, 0.9), 20, dropout=0.0).fit(X, y, epochs=5)
    assert not np.array_equal(kept.parameters, network.parameters)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [None, 30, 600])
def test_dropout_is_the_same_on_any_number_of_threads(rng, n_threads, batch_size):
    X, y, _ = draw(rng, "cross_entropy", 1500, n_in=40)
    results = []
    for threads in (1, n_threads):
        network = fastnn.Network([40, 90, 30, 3], "silu")
        fastnn.Trainer(network, fastnn.Adam(), batch_size, dropout=0.3, n_threads=threads).fit(X, y, epochs=2)
        results.append(network.parameters)
    np.testing.assert_array_equal(*results)


def test_predictions_of_other_losses(rng):
    X = rng.standard_normal((7, 5))
    labels = fastnn.Network([5, 4, 3], loss="binary_cross_entropy")
    values = fastnn.Network([5, 4, 3], loss="huber")
    P = labels.predict_proba(X)
    assert ((P > 0) & (P < 1)).all()
    np.testing.assert_array_equal(labels.predict(X), P > 0.5)
    assert values.predict(X).shape == (7, 3)
    assert labels.predict(X[:0]).shape == values.predict(X[:0]).shape == labels.predict_proba(X[:0]).shape == (0, 3)
    assert 0 <= labels.error(X, rng.integers(0, 2, (7, 3))) <= 1
    for call in (values.predict_proba, lambda X: values.error(X, X), lambda X: values.confusion_matrix(X, X)):
        with pytest.raises(TypeError, match="loss 'huber'"):
            call(X)


@pytest.mark.parametrize("n", [1, 2, 101])
@pytest.mark.parametrize("levels", [(0.5,), (0.05, 0.95), (0.1, 0.2, 0.9)])
def test_the_quantile_loss_is_the_pinball_loss_of_scikit_learn(rng, dtype, assert_close, n, levels):
    X, y, weights = rng.standard_normal((n, 5)), rng.standard_normal(n), rng.random(n) + 0.1
    network = fastnn.Network([5, 4, len(levels)], dtype=dtype, loss="quantile", quantiles=levels)
    assert network.quantiles == levels
    pairs = list(zip(network.predict(X).T, levels, strict=True))
    for given in (None, weights):
        wanted = -sum(mean_pinball_loss(y, z, sample_weight=given, alpha=level) for z, level in pairs)
        for targets in (y, y[:, None]):
            assert_close(network.log_likelihood(X, targets, given), wanted)


@pytest.mark.parametrize("optimizer", [fastnn.Adam(fastnn.schedules.Exponential(0.05, 0.99)), fastnn.LBFGS()])
def test_the_quantile_loss_finds_quantiles(rng, dtype, optimizer):
    y, levels = rng.exponential(size=3001), (0.05, 0.5, 0.9)
    network = fastnn.Network([1, 3], dtype=dtype, loss="quantile", quantiles=levels)
    fastnn.Trainer(network, optimizer, 500 if isinstance(optimizer, fastnn.Adam) else None).fit(
        np.zeros((3001, 1)), y, epochs=400
    )
    below = (y[:, None] <= network.predict([[0.0]])).mean(axis=0)
    np.testing.assert_allclose(below, levels, rtol=0, atol=0.01)


def test_at_its_quantile_a_row_has_no_gradient(dtype):
    network = fastnn.Network([1, 2], dtype=dtype, loss="quantile", quantiles=(0.1, 0.9))
    for parts in network.gradient([[1.0]], [0.0]):
        np.testing.assert_array_equal(np.concatenate(parts, axis=None), 0)


@pytest.mark.parametrize(
    ("loss", "quantiles", "message"),
    [
        ("quantile", (), "quantiles must be increasing and as many as outputs, 2,"),
        ("quantile", (0.1, 0.5, 0.9), "as many as outputs, 2,"),
        ("quantile", (0.9, 0.1), "quantiles must be increasing"),
        ("quantile", (0.5, 0.5), "quantiles must be increasing"),
        ("quantile", (0.0, 0.5), r"quantiles\[0\] must be above 0"),
        ("quantile", (0.5, 1.0), r"quantiles\[1\] must be above 0 and below 1"),
        ("quantile", (0.5, np.nan), r"quantiles\[1\] must be above 0"),
        ("quantile", (0.5, "1"), r"quantiles\[1\] must be a number"),
        ("quantile", "12", r"quantiles\[0\] must be a number"),
        ("quantile", None, r"quantiles\[0\] must be a number"),
        ("quantile", 0.5, "as many as outputs, 2,"),
        ("squared", (0.1, 0.9), "quantiles are for the loss 'quantile', not 'squared'"),
    ],
)
def test_bad_quantiles_are_refused(loss, quantiles, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fastnn.Network([4, 2], loss=loss, quantiles=quantiles)


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        ("squared", np.zeros(3), r"y must have shape \(3, 2\)"),
        ("squared", np.full((3, 2), np.nan), "y must be finite"),
        ("squared", np.full((3, 2), "a"), "y must hold real numbers"),
        ("binary_cross_entropy", np.full((3, 2), 1.5), "y must hold probabilities"),
        ("cross_entropy", np.zeros((3, 2)), "y must hold integer class indices"),
        ("quantile", np.zeros((3, 2)), r"y must have shape \(3, 1\)"),
        ("quantile", np.zeros(2), r"y must have shape \(3, 1\)"),
    ],
)
def test_bad_targets_are_refused(loss, y, message):
    network = fastnn.Network([4, 2], loss=loss, quantiles=levels_of(loss, 2))
    with pytest.raises((TypeError, ValueError), match=message):
        fastnn.Trainer(network).fit(np.zeros((3, 4)), y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"dropout": [0.1, 0.2]}, "dropout must be one number or a list of 1"),
        ({"clip_norm": 0}, "clip_norm must be above 0"),
        ({"max_norm": -1}, "max_norm must be above 0"),
        ({"l1": -1}, "l1 must be at least 0"),
        ({"label_smoothing": 1}, "label_smoothing must be at least 0 and below 1"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fastnn.Trainer(fastnn.Network([4, 3, 2]), **options)
    with pytest.raises(ValueError, match="label_smoothing is for cross-entropy"):
        fastnn.Trainer(fastnn.Network([4, 2], loss="squared"), label_smoothing=0.1)
    with pytest.raises(ValueError, match="loss must be one of 'cross_entropy'"):
        fastnn.Network([4, 2], loss="hinge")


@pytest.mark.parametrize("weights", [[1, 1], [1, -1, 1], [0, 0, 0], [1, np.nan, 1], ["a", "b", "c"]])
def test_bad_weights_are_refused(weights):
    with pytest.raises((TypeError, ValueError), match="sample_weight must"):
        fastnn.Trainer(fastnn.Network([4, 2])).fit(np.zeros((3, 4)), [0, 1, 0], sample_weight=weights)


def test_schedules():
    times = np.array([0, 0.5, 1, 2.5])
    schedules = fastnn.schedules
    curve = [-3.0, -2.0, -2.0, -2.0, -2.0]
    for schedule, expected in (
        (schedules.Constant(0.1), [0.1] * 4),
        (schedules.Step(1.0, 0.5), [1, 1, 0.5, 0.25]),
        (schedules.Exponential(1.0, 0.25), [1, 0.5, 0.25, 1 / 32]),
        (schedules.Cosine(1.0, 2, 0.2), [1, 0.2 + 0.4 * (1 + np.sqrt(0.5)), 0.6, 0.2]),
        (schedules.LinearWarmup(1.0, 2), [0, 0.25, 0.5, 1]),
        (schedules.LinearWarmup(schedules.Step(1.0, 0.5), 1, 0.5), [0.5, 0.75, 0.5, 0.25]),
        (schedules.InverseScaling(1.0), 1 / np.sqrt([1, 1.5, 2, 3.5])),
        (schedules.OnPlateau(1.0, 0.1, patience=2), [0.1] * 4),
        (schedules.OnPlateau(1.0, 0.1, patience=3), [1.0] * 4),
    ):
        np.testing.assert_allclose(schedule.rates(times, curve), expected, rtol=1e-15)
    for wrong in (0, -1, "fast"):
        with pytest.raises((TypeError, ValueError), match="learning_rate must be"):
            fastnn.Adam(wrong)


def test_a_rate_falls_on_a_plateau(rng):
    X, y, _ = draw(rng, "cross_entropy", 100)
    network = fastnn.Network([5, 3])
    schedule = fastnn.schedules.OnPlateau(0.5, 0.0, patience=2, min_delta=10)
    trainer = fastnn.Trainer(network, fastnn.SGD(schedule))
    history = trainer.fit(X, y, epochs=8)
    # The first epoch improves, three more are waited for in vain, and then nothing moves.
    assert history.log_likelihood[4] == history.log_likelihood[-1] != history.log_likelihood[3]
