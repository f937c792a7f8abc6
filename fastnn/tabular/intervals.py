"""Intervals that cover what they promise: conformalised quantile regression.

What a network takes for quantiles need not be, on rows that it was not trained on.  Rows held out tell by how much its
limits miss their numbers.  Limits that are moved by the right quantile of that cover at least the share that was asked
for, on average over rows drawn like those held out, whatever the network: Y. Romano, E. Patterson, E. Candes,
"Conformalized quantile regression", NeurIPS 2019, arXiv:1905.03222.  A network that predicts one number is one whose
quantiles are all the same: J. Lei et al., "Distribution-free predictive inference for regression", JASA 113 (2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Rows held out that are kept, at most.  The coverage then varies by less than a hundredth, by which rows they are.
MOST_ROWS = 2000


def kept_of(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the residuals (n, n_levels) of the rows that are kept, evenly spread over all."""
    n = len(residuals)
    return residuals if n <= MOST_ROWS else residuals[np.arange(MOST_ROWS) * n // MOST_ROWS]


def limits_of(predicted: NDArray[np.float64], levels: Sequence[float], coverage: float) -> NDArray[np.float64]:
    """Return the limits (n, 2) of the middle of each row's distribution, with this share of it, from its quantiles.

    Between the levels it is interpolated, and beyond them the outermost count.

    Parameters
    ----------
    predicted : (n, n_levels) array
        Quantiles of each row, which may cross.
    levels : sequence of n_levels floats
        Their levels, increasing.
    coverage : float
        From above 0 to below 1.
    """
    ordered = np.sort(predicted, axis=1)
    limits = np.empty((len(ordered), 2))
    for side, level in enumerate(((1 - coverage) / 2, (1 + coverage) / 2)):
        place = float(np.interp(level, levels, np.arange(len(levels))))
        below, above = math.floor(place), math.ceil(place)
        limits[:, side] = ordered[:, below] + (place - below) * (ordered[:, above] - ordered[:, below])
    return limits


def margin_of(residuals: NDArray[np.float64], levels: Sequence[float], coverage: float) -> float:
    """Return by how much limits must move apart, or together if it is negative, to cover this share of rows.

    Parameters
    ----------
    residuals : (n, n_levels) array
        Of rows held out: what was predicted minus what was found.
    levels, coverage
        As for `limits_of`.

    Raises
    ------
    ValueError
        If the rows are too few to tell: n rows say nothing of a coverage above n / (n + 1).
    """
    lower, upper = limits_of(residuals, levels, coverage).T
    misses = np.sort(np.maximum(lower, -upper))
    n = len(misses)
    rank = math.ceil((n + 1) * coverage - 1e-9)  # 1e-9: a product such as 10 * 0.9 may round up
    if rank > n:
        raise ValueError(f"coverage must be at most {n / (n + 1):.4g} with {n} rows held out, not {coverage:g}")
    return float(misses[rank - 1])


def interval_of(
    predicted: NDArray[np.float64], residuals: NDArray[np.float64], levels: Sequence[float], coverage: float
) -> NDArray[np.float64]:
    """Return lower and upper limits (n, 2) that cover at least this share of rows like those held out.

    Parameters
    ----------
    predicted : (n, n_levels) array
        Quantiles of the rows to predict.
    residuals, levels, coverage
        As for `margin_of`, which also says what is raised.
    """
    limits = limits_of(predicted, levels, coverage) + margin_of(residuals, levels, coverage) * np.array([-1, 1])
    crossed = limits[:, 0] > limits[:, 1]
    limits[crossed] = limits[crossed].mean(axis=1, keepdims=True)  # nothing is left of the interval but its middle
    return limits
