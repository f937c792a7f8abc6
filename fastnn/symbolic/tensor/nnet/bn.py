"""Batch normalisation, of each unit or of each channel of images."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.symbolic import ops
from fastnn.symbolic.configuration import config
from fastnn.symbolic.graph import Operand, Variable, as_variable, constant

__all__ = ["batch_normalization", "batch_normalization_test", "batch_normalization_train"]


def batch_normalization(
    inputs: Operand, gamma: Operand, beta: Operand, mean: Operand, std: Operand, mode: str = "low_mem"
) -> Variable:
    """Return (inputs - mean) * gamma / std + beta; mode is ignored."""
    return (as_variable(inputs) - mean) * (as_variable(gamma) / std) + beta


def batch_normalization_train(
    inputs: Operand,
    gamma: Operand,
    beta: Operand,
    axes: Any = "per-activation",
    epsilon: float = 1e-4,
    running_average_factor: Operand = 0.1,
    running_mean: Operand | None = None,
    running_var: Operand | None = None,
) -> tuple[Variable, ...]:
    """Normalise inputs by their own means and variances.

    Parameters
    ----------
    inputs : array
    gamma, beta : array
        Scale and shift, with an axis for each of the inputs' that is not in axes, or for all of them.
    axes : {"per-activation", "spatial"} or sequence of int
        Along which to take means: the first axis, all but the second, or others.
    epsilon : float
        Added to variances, at least 1e-5.
    running_average_factor : float
        Weight of this batch in the running averages.
    running_mean, running_var : array, optional
        Running averages before this batch, both or none, of the shape of gamma.

    Returns
    -------
    out, mean, invstd : Variable
        The normalised inputs, their means, the inverses of their standard deviations.
    new_running_mean, new_running_var : Variable
        If there are running averages.  That of the variance is of n / (n - 1) times the variance of n elements.
    """
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var go together: give both or none")
    x = as_variable(inputs)
    given = [gamma, beta] if running_mean is None else [gamma, beta, running_mean, running_var]
    over, kept, (scale, shift, *running) = _aligned(x, axes, given)
    means = ops.mean(x, over, keepdims=True)
    variances = ops.mean(ops.sqr(x - means), over, keepdims=True)
    inverses = ops.inv(ops.sqrt(variances + _checked(epsilon)))
    found = [(x - means) * (scale * inverses) + shift, means, inverses]
    if running:
        n = ops.cast(ops.count(x, over), x.type.dtype)
        for before, now in zip(running, (means, variances * (n / (n - 1))), strict=True):
            average = before * (1.0 - as_variable(running_average_factor)) + now * running_average_factor
            found.append(ops.cast(average, before.type.dtype))
    if as_variable(gamma).ndim < x.ndim:
        found[1:] = [ops.dimshuffle(each, kept) for each in found[1:]]
    return tuple(found)


def batch_normalization_test(
    inputs: Operand,
    gamma: Operand,
    beta: Operand,
    mean: Operand,
    var: Operand,
    axes: Any = "per-activation",
    epsilon: float = 1e-4,
) -> Variable:
    """Normalise inputs by given means and variances, of the shape of gamma; see `batch_normalization_train`."""
    x = as_variable(inputs)
    _, _, (scale, shift, means, variances) = _aligned(x, axes, [gamma, beta, mean, var])
    return (x - means) * (scale / ops.sqrt(variances + _checked(epsilon))) + shift


def _aligned(x: Variable, axes: Any, parameters: list[Any]) -> tuple[list[int], list[int], list[Variable]]:
    # The axes to take means along, the others, and the parameters with all axes.
    named = {"per-activation": [0], "spatial": [0, *range(2, x.ndim)]}
    over = sorted(ops.axis_of(axis, x.ndim) for axis in (named.get(axes, ()) if isinstance(axes, str) else axes))
    if not over:
        raise ValueError(f"axes must be 'per-activation', 'spatial' or numbers of axes, not {axes!r}")
    kept = [axis for axis in range(x.ndim) if axis not in over]
    variables = [as_variable(each) for each in parameters]
    if {each.ndim for each in variables} not in ({x.ndim}, {len(kept)}):
        raise ValueError(f"each parameter must have {len(kept)} or {x.ndim} dimensions")
    pattern: list[int | str] = ["x" if axis in over else kept.index(axis) for axis in range(x.ndim)]
    return over, kept, [each if each.ndim == x.ndim else ops.dimshuffle(each, pattern) for each in variables]


def _checked(epsilon: float) -> Variable:
    number = np.dtype(config.floatX).type(epsilon)
    if number < 1e-5:
        raise ValueError(f"epsilon must be at least 1e-5, not {epsilon}")
    return constant(number)
