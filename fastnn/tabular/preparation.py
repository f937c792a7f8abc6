"""From the raw columns of a table to the record of a network's first layer: medians, scales and knots.

What is here is learned from the rows to train on and fixed from then on; the network has it, and its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.layers import Category, Columns, Number

Raw = NDArray[np.float64]

# Categories of more values than that have embeddings, of this width.  Of a column of 1,000 or 5,000 values that act on
# their own and on what another column does (8,000 to 30,000 rows), RMSEs are 4 to 6 % lower than with a feature for
# each value, log losses 1 % lower to 8 % higher, and a step takes less time; widths of 16 and 32 are alike.
MANY_VALUES, WIDTH = 500, 16


def columns_for(raw: Raw, n_values: Sequence[int | None], n_knots: int) -> Columns:
    """Return how a network takes the columns of a table.

    Parameters
    ----------
    raw : (n, n_columns) float64 array
        Rows to train on, at least one: finite numbers, codes of categories, and NaN where a value is missing.
    n_values : sequence of int or None, one a column
        Number of categories; None for a column of numbers.
    n_knots : int
        Knots of a column of numbers, at most; below 3 for none.

    Notes
    -----
    Columns with holes among these rows have a feature for missing values.  A value that is missing in other columns has
    no feature: it counts as the median, or as a category that was not seen.
    """
    return Columns(tuple(_column(x, n, n_knots) for x, n in zip(raw.T, n_values, strict=True)))


def _column(x: Raw, n_values: int | None, n_knots: int) -> Number | Category:
    known = x[~np.isnan(x)]
    missing = len(known) < len(x)
    if n_values is not None:
        return Category(max(1, n_values), missing, WIDTH if n_values > MANY_VALUES else None)
    if not len(known):
        return Number(missing=missing)
    center, scale = center_and_scale(known)
    return Number(center, scale, knots_of(known, n_knots), missing)


def center_and_scale(x: Raw) -> tuple[float, float]:
    """Return the median of numbers, at least one, and the factor that makes their spread about 1.

    It is 1 over the distance of the quartiles, or 2 over that of the extremes if the quartiles are equal, or 0 for a
    constant [1]_.

    References
    ----------
    .. [1] D. Holzmueller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on
       tabular data", NeurIPS 2024.
    """
    low, first, median, third, high = np.quantile(x / 2, [0, 0.25, 0.5, 0.75, 1])  # halves: distances do not overflow
    spread = third - first if third > first else (high - low) / 2
    largest = np.finfo(np.float64).max
    return float(2 * median), float(min(0.5 / max(spread, 1 / largest), largest)) if spread > 0 else 0.0


def knots_of(x: Raw, n_knots: int) -> tuple[float, ...]:
    """Return quantiles of numbers as knots, at most so many; all different numbers if these are few; or none.

    There are none for fewer than three different numbers, of which a straight line makes all that can be made.  A
    number that is frequent takes one knot, and no more: it counts at most as often as rows belong to a knot.
    """
    values, counts = np.unique(x, return_counts=True)
    if min(len(values), n_knots) < 3:
        return ()
    if len(values) <= n_knots:
        return tuple(values.tolist())
    ends = np.cumsum(np.minimum(counts, len(x) / n_knots))
    where = np.searchsorted(ends, np.linspace(ends[0], ends[-1], n_knots))
    return tuple(values[np.unique(where)].tolist())


def hat_features(columns: Columns) -> NDArray[np.intp]:
    """Return the numbers of those features that belong to knots."""
    found: list[Any] = []
    first = 0
    for column in columns.columns:
        if isinstance(column, Category) and column.width is not None:
            continue  # its features come after all others
        knots = column.knots if isinstance(column, Number) else ()
        end = first + column.n_features
        found += range(end - len(knots), end)
        first = end
    return np.array(found, np.intp)
