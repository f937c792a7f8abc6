"""What estimators for tables learn from held-out rows: calibrated probabilities, and intervals that cover."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import mean_pinball_loss

from fastnn.tabular import TabularClassifier, TabularRegressor

QUICK = {"hidden_layer_sizes": (16,), "max_epochs": 10, "batch_size": 64, "random_state": 0}


def draw(n, seed=0):
    rng = np.random.default_rng(seed)
    X = {"x": rng.uniform(-2, 2, n), "city": rng.choice(["Rome", "Oslo"], n)}
    spread = 5.0 * (1 + np.abs(X["x"]) * (X["city"] == "Rome"))
    return X, 1000 + 10 * X["x"] + spread * rng.standard_normal(n), spread


@pytest.mark.parametrize(("quantiles", "n_members"), [((), 1), ((), 2), ((0.05, 0.5, 0.95), 2), ((0.1, 0.3, 0.8), 1)])
@pytest.mark.parametrize("refit", ["auto", True])
def test_intervals_cover_what_they_promise(quantiles, n_members, refit, tmp_path):
    options = {"quantiles": quantiles, "n_members": n_members, "refit": refit, "validation_fraction": 0.4}
    model = TabularRegressor(random_state=0, **options).fit(*draw(1500)[:2])
    X, y, spread = draw(3000, 1)
    widths = {}
    for coverage in (0.5, 0.9):
        lower, upper = model.predict_interval(X, coverage).T
        covered = ((lower <= y) & (y <= upper)).mean()
        spread_of_share = np.sqrt(coverage * (1 - coverage) * (1 / 600 + 1 / 3000))
        assert abs(covered - coverage) < 4 * spread_of_share + (0.05 if refit is True else 0.01)
        widths[coverage] = upper - lower
    assert (widths[0.5] < widths[0.9]).all()
    if quantiles:  # wider where numbers are less certain
        assert np.corrcoef(widths[0.9], spread)[0, 1] > 0.4
    model.save(tmp_path / "model")
    for other in (TabularRegressor.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict_interval(X), model.predict_interval(X))


def test_quantiles_are_predicted_and_do_not_cross():
    levels = (0.05, 0.5, 0.95)
    model = TabularRegressor(random_state=0, quantiles=levels).fit(*draw(1500)[:2])
    X, y, spread = draw(3000, 1)
    found = model.predict_quantiles(X)
    assert found.shape == (3000, 3)
    assert (np.diff(found, axis=1) >= 0).all()
    np.testing.assert_array_equal(model.predict(X), found[:, 1])
    for level, z, best in zip(levels, found.T, (-1.645, 0, 1.645), strict=True):
        ideal = mean_pinball_loss(y, 1000 + 10 * X["x"] + best * spread, alpha=level)
        assert mean_pinball_loss(y, z, alpha=level) < 1.2 * ideal
    with pytest.raises(TypeError, match="predict_quantiles needs"):
        TabularRegressor(**QUICK).fit(X, y).predict_quantiles(X)


def test_rows_without_weight_do_not_count_for_intervals():
    (X, y, _), rng = draw(600), np.random.default_rng(0)
    weights = (rng.random(600) < 0.5).astype(float)
    spoilt = np.where(weights > 0, y, 1e6 * rng.standard_normal(600))
    model = TabularRegressor(**QUICK).fit(X, spoilt, weights)
    assert np.diff(model.predict_interval(X)).max() < 1000


@pytest.mark.parametrize("coverage", [0, 1, -0.1, np.nan, "0.9", None])
def test_a_coverage_that_cannot_be_is_refused(coverage):
    X, y, _ = draw(60)
    with pytest.raises((TypeError, ValueError), match="coverage must be"):
        TabularRegressor(**QUICK).fit(X, y).predict_interval(X, coverage)


def test_intervals_need_rows_that_are_held_out():
    X, y, _ = draw(60)
    with pytest.raises(ValueError, match=r"coverage must be at most .* rows held out"):
        TabularRegressor(**QUICK).fit(X, y).predict_interval(X, 0.999)
    model = TabularRegressor(**QUICK, early_stopping=False).fit(X, y)
    with pytest.raises(ValueError, match="intervals need rows that are held out"):
        model.predict_interval(X)
    with pytest.raises(ValueError, match="not fitted"):
        clone(model).predict_interval(X)


@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_calibration_lowers_the_log_loss_of_the_held_out_rows_and_keeps_the_order(n_members, n_classes):
    X, y, _ = draw(1200)
    y = np.digitize(y, np.quantile(y, np.arange(1, n_classes) / n_classes))
    rng = np.random.default_rng(1)
    y = np.where(rng.random(1200) < 0.3, rng.integers(0, n_classes, 1200), y)
    held = {name: values[800:] for name, values in X.items()}
    kept = {name: values[:800] for name, values in X.items()}
    options = QUICK | {"n_members": n_members, "label_smoothing": 0.5, "max_epochs": 30}  # which blunts probabilities
    plain, sharp = (TabularClassifier(**options, calibrate=calibrate) for calibrate in (False, True))
    for model in (plain, sharp):
        model.fit(kept, y[:800], X_val=held, y_val=y[800:])
    before, after = (np.log(model.predict_proba(held))[np.arange(400), y[800:]].mean() for model in (plain, sharp))
    assert after > before + 0.01
    if n_members == 1:
        np.testing.assert_array_equal(plain.predict(held), sharp.predict(held))
        logits = [np.log(model.predict_proba(held).astype(float)) for model in (plain, sharp)]
        centred = [(each - each.mean(axis=1, keepdims=True)).ravel() for each in logits]
        slope = centred[1] @ centred[0] / (centred[0] @ centred[0])
        np.testing.assert_allclose(centred[1], slope * centred[0], rtol=0, atol=1e-4)
        assert slope > 1


def test_calibration_needs_rows_that_are_held_out():
    X, y, _ = draw(60)
    with pytest.raises(ValueError, match="calibrate needs rows that are held out, for which early_stopping"):
        TabularClassifier(**QUICK, calibrate=True, early_stopping=False).fit(X, y > 1000)
    few = {name: values[:6] for name, values in X.items()}
    with pytest.raises(ValueError, match="calibrate needs rows that are held out: give 10 rows"):
        TabularClassifier(**QUICK, calibrate=True).fit(few, [0, 1] * 3)
