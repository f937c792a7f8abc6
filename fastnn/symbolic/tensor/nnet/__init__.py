"""Functions for networks: ``T.nnet``."""

from __future__ import annotations

import numpy as np

from fastnn.symbolic import ops
from fastnn.symbolic.graph import Operand, Variable, as_variable
from fastnn.symbolic.ops import sigmoid, softmax, softplus
from fastnn.symbolic.tensor.nnet import abstract_conv, conv
from fastnn.symbolic.tensor.nnet.abstract_conv import conv2d, conv2d_grad_wrt_inputs, conv2d_transpose

__all__ = [
    "abstract_conv",
    "binary_crossentropy",
    "categorical_crossentropy",
    "conv",
    "conv2d",
    "conv2d_grad_wrt_inputs",
    "conv2d_transpose",
    "relu",
    "sigmoid",
    "softmax",
    "softplus",
]


def relu(x: Operand, alpha: Operand = 0) -> Variable:
    """Rectifier: x above 0, else alpha * x; at 0 the slope is half way between."""
    if not isinstance(alpha, Variable) and np.ndim(alpha) == 0 and alpha == 0:
        return ops.relu(x)
    slope = as_variable(alpha)
    return 0.5 * (1 + slope) * x + 0.5 * (1 - slope) * ops.abs_(x)


def binary_crossentropy(output: Operand, target: Operand) -> Variable:
    """Cross-entropy of each element, in nats.

    Parameters
    ----------
    output : array
        Probabilities, such as those of `sigmoid`.
    target : array
        0 or 1, or the probability of 1.
    """
    p, truth = as_variable(output), as_variable(target)
    return -(truth * ops.log(p) + (1.0 - truth) * ops.log(1.0 - p))


def categorical_crossentropy(coding_dist: Operand, true_dist: Operand) -> Variable:
    """Cross-entropy of each row, in nats.

    Parameters
    ----------
    coding_dist : (n, n_classes)
        Probabilities, such as those of `softmax`.
    true_dist : (n,) integers or (n, n_classes)
        The true classes, or their probabilities.
    """
    P, truth = as_variable(coding_dist), as_variable(true_dist)
    if truth.ndim == P.ndim:
        return -ops.sum_(truth * ops.log(P), axis=P.ndim - 1)
    if truth.ndim != 1 or P.ndim != 2 or truth.type.dtype.kind not in "iu":
        raise TypeError(
            f"categorical_crossentropy takes a matrix of probabilities, and a vector of classes or a matrix of "
            f"probabilities, not {P.type} and {truth.type}"
        )
    return -ops.log(P)[ops.arange(ops.shape(truth)[0]), truth]
