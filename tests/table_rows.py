"""Columns of a table of all kinds, rows for them, and what their features are, for the tests."""

import numpy as np
from scipy.interpolate import BSpline

from fastnn.layers import Category, Columns, Number

KNOTS = (-1.0, 0.25, 0.5, 2.0)
COLUMNS = Columns(
    [
        Number(1.0, 0.5, KNOTS),
        Category(4),
        Number(0.0, 2.0, missing=True),
        Category(3, missing=True),
        Number(0.5, 1.0, (0.0, 1.0), missing=True),
        Number(),
    ]
)


def draw_rows(rng, columns, n, dtype="float64"):
    """Rows (n, n_columns) with all that can occur: missing values, unseen categories, numbers at and beyond knots."""
    X = np.empty((n, len(columns.columns)))
    for column, x in zip(columns.columns, X.T, strict=True):
        if isinstance(column, Category):
            x[:] = rng.integers(-1, column.n + 2, n)
            x[rng.random(n) < 0.1] = 0.5
        else:
            x[:] = rng.normal(size=n)
            odd = [*column.knots, column.center, -5, -0.0, 1e300 if dtype == "float64" else 1e38]
            x[:] = np.where(rng.random(n) < 0.3, rng.choice(odd, n), x)
    X[rng.random(X.shape) < 0.2] = np.nan
    return X.astype(dtype)


def dense_features(columns, X):
    """The features (n, n_features) of rows, without those of embeddings, written down column by column."""
    found = []
    for column, x in zip(columns.columns, X.T.astype(float), strict=True):
        missing = np.isnan(x)
        if isinstance(column, Category):
            if column.width is not None:
                continue
            found += [x == code for code in range(column.n)] + [missing] * column.missing
            continue
        s = np.clip((np.where(missing, 0, x) - column.center) * column.scale, -1e99, 1e99)
        found += [np.where(missing, 0, s / np.hypot(1, s / 3))] + [missing] * column.missing
        if column.knots:
            outside = [column.knots[0], *column.knots, column.knots[-1]]
            hats = BSpline(outside, np.eye(len(column.knots)), 1)
            inside = np.clip(np.where(missing, 0, x), column.knots[0], column.knots[-1])
            found += list(np.where(missing, 0, hats(inside).T))
    return np.array(found, float).reshape(len(found), len(X)).T


def codes_of(columns, X):
    """Which row of each embedding (n, n_embeddings) rows have; -1: none."""
    found = []
    for column, x in zip(columns.columns, X.T.astype(float), strict=True):
        if isinstance(column, Category) and column.width is not None:
            seen = np.isin(x, np.arange(column.n))
            found.append(np.where(np.isnan(x) & column.missing, column.n, np.where(seen, x, -1)))
    return np.array(found, np.int32).reshape(len(found), len(X)).T.copy()
