"""Probabilities that come true as often as they say: temperature scaling.

The outputs before the softmax are divided by one number, the temperature, which is fitted to rows held out: C. Guo,
G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks", ICML 2017, arXiv:1706.04599.  The order of
the classes stays.  Networks that predict together have one temperature, for the mean of their probabilities.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp

#: Logarithms of the lowest and the highest temperature.
BOUNDS = math.log(1 / 8), math.log(32)


def temperature_of(
    outputs: NDArray[np.floating], y: NDArray[np.integer], sample_weight: NDArray[np.float64] | None = None
) -> float:
    """Return the temperature at which rows have the highest log-likelihood; 1 if none is better.

    Parameters
    ----------
    outputs : (n_networks, n, n_out) array
        Of each network for each row, before the softmax; before the sigmoid if there is one output.
    y : (n,) array of int
        Classes of the rows, from 0.
    sample_weight : (n,) array or None
        Weights of the rows.
    """
    Z = outputs.astype(np.float64)
    Z = np.concatenate([np.zeros_like(Z), Z], axis=2) if Z.shape[2] == 1 else Z  # sigmoid(z) is of softmax((0, z))
    n_networks, n = len(Z), len(y)

    def log_likelihoods(log_temperature: float) -> tuple[float, float]:
        # Of the rows' classes, and of a class drawn at random.
        logs = log_softmax(Z / np.exp(log_temperature), axis=2)
        logs = logsumexp(logs, axis=0) - np.log(n_networks)
        return float(np.average(logs[np.arange(n), y], weights=sample_weight)), float(logs.mean())

    def loss(log_temperature: float) -> float:
        # As if one row more had a class drawn at random: rows that are all right do not ask for certainty.
        own, random = log_likelihoods(log_temperature)
        return -own - random / n

    found = float(minimize_scalar(loss, bounds=BOUNDS, method="bounded", options={"xatol": 1e-6}).x)
    return math.exp(found) if log_likelihoods(found)[0] > log_likelihoods(0.0)[0] else 1.0
