"""Prediction intervals: limits between quantiles, and that what is promised holds on rows never seen."""

import numpy as np
import pytest
from levels import levels_of

import fastnn
from fastnn.tabular.intervals import interval_of, limits_of, margin_of


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("n_levels", [1, 2, 3, 8])
@pytest.mark.parametrize("coverage", [1e-9, 0.3, 0.9, 0.999])
def test_limits_are_quantiles_and_interpolated_between(rng, n, n_levels, coverage):
    levels = levels_of("quantile", n_levels)
    quantiles = rng.standard_normal((n, n_levels))
    limits = limits_of(quantiles, levels, coverage)
    assert limits.shape == (n, 2)
    for row, pair in zip(np.sort(quantiles, axis=1), limits, strict=True):
        np.testing.assert_allclose(pair, np.interp([(1 - coverage) / 2, (1 + coverage) / 2], levels, row), rtol=1e-12)


def test_the_margin_is_a_miss_of_a_row_by_its_definition(rng):
    residuals = rng.standard_normal((19, 2))
    lower, upper = np.sort(residuals, axis=1).T
    misses = sorted(max(low, -high) for low, high in zip(lower, upper, strict=True))
    for coverage, rank in ((0.9, 18), (0.95, 19), (0.05, 1), (0.851, 18), (0.01, 1)):
        assert margin_of(residuals, (0.4999, 0.5001), coverage) == misses[rank - 1]
    assert margin_of(residuals[:, :1], (0.5,), 0.9) == np.sort(np.abs(residuals[:, 0]))[17]
    with pytest.raises(ValueError, match=r"coverage must be at most 0.95 with 19 rows held out, not 0.96"):
        margin_of(residuals, (0.1, 0.9), 0.96)
    with pytest.raises(ValueError, match="at most 0 with 0 rows"):
        margin_of(residuals[:0], (0.1, 0.9), 0.5)


def test_an_interval_of_which_nothing_is_left_is_its_middle():
    predicted, residuals = np.array([[0.0, 1.0], [0.0, 20.0]]), np.array([[-5.0, 5.0]] * 9)
    np.testing.assert_allclose(interval_of(predicted, residuals, (0.05, 0.95), 0.9), [[0.5, 0.5], [5, 15]], atol=1e-12)


@pytest.mark.parametrize("kind", ["fitted", "overfitted", "constant", "one number"])
def test_intervals_cover_what_they_promise(kind):
    rng = np.random.default_rng(5)
    X = rng.uniform(-2, 2, (6000, 1))
    y = np.sin(2 * X[:, 0]) + rng.gamma(1.5, 0.1 + 0.3 * np.abs(X[:, 0]))
    levels = (0.5,) if kind == "one number" else (0.05, 0.5, 0.95)
    train, held, test = slice(60 if kind == "overfitted" else 1000), slice(1000, 3000), slice(3000, None)
    network = fastnn.Network([1, 60, len(levels)], "relu", loss="quantile", quantiles=levels)
    if kind != "constant":
        epochs = 800 if kind == "overfitted" else 30
        fastnn.Trainer(network, fastnn.Adam(0.01), 60).fit(X[train], y[train], epochs=epochs)
    predicted = network.predict(X)
    residuals = predicted[held] - y[held, None]
    for coverage in (0.5, 0.8, 0.9, 0.99):
        lower, upper = interval_of(predicted[test], residuals, levels, coverage).T
        covered = ((lower <= y[test]) & (y[test] <= upper)).mean()
        spread = np.sqrt(coverage * (1 - coverage) * (1 / 2000 + 1 / 3000))
        assert abs(covered - coverage) < 4 * spread + 1 / 2000
    if kind == "overfitted":
        lower, upper = limits_of(predicted[test], levels, 0.9).T
        assert ((lower <= y[test]) & (y[test] <= upper)).mean() < 0.85
