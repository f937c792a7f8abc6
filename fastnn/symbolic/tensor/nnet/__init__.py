"""Functions for networks: ``T.nnet``."""

from __future__ import annotations

import numpy as np

from fastnn.symbolic import ops
from fastnn.symbolic.graph import Operand, Variable, as_variable, constant
from fastnn.symbolic.ops import LogSoftmax, Softmax, logsoftmax, sigmoid, softmax, softplus, ultra_fast_sigmoid
from fastnn.symbolic.tensor.nnet import abstract_conv, bn, conv
from fastnn.symbolic.tensor.nnet.abstract_conv import conv2d, conv2d_grad_wrt_inputs, conv2d_transpose
from fastnn.symbolic.tensor.nnet.bn import batch_normalization

__all__ = [
    "LogSoftmax",
    "Softmax",
    "abstract_conv",
    "batch_normalization",
    "binary_crossentropy",
    "bn",
    "categorical_crossentropy",
    "confusion_matrix",
    "conv",
    "conv2d",
    "conv2d_grad_wrt_inputs",
    "conv2d_transpose",
    "crossentropy_categorical_1hot",
    "crossentropy_softmax_1hot",
    "crossentropy_softmax_1hot_with_bias",
    "crossentropy_softmax_argmax_1hot_with_bias",
    "crossentropy_softmax_max_and_argmax_1hot",
    "crossentropy_softmax_max_and_argmax_1hot_with_bias",
    "elu",
    "hard_sigmoid",
    "logsoftmax",
    "relu",
    "selu",
    "sigmoid",
    "sigmoid_binary_crossentropy",
    "softmax",
    "softmax_graph",
    "softmax_with_bias",
    "softplus",
    "softsign",
    "ultra_fast_sigmoid",
]


def relu(x: Operand, alpha: Operand = 0) -> Variable:
    """Rectifier: x above 0, else alpha * x; at 0 the slope is half way between."""
    if not isinstance(alpha, Variable) and np.ndim(alpha) == 0 and alpha == 0:
        return ops.relu(x)
    slope = as_variable(alpha)
    return 0.5 * (1 + slope) * x + 0.5 * (1 - slope) * ops.abs_(x)


def elu(x: Operand, alpha: Operand = 1) -> Variable:
    """Exponential linear unit: x above 0, else alpha * (exp(x) - 1)."""
    return ops.switch(ops.gt(x, 0), x, as_variable(alpha) * ops.expm1(x))


def selu(x: Operand) -> Variable:
    """Scaled exponential linear unit of Klambauer, Unterthiner, Mayr and Hochreiter (2017)."""
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


def softsign(x: Operand) -> Variable:
    """Return x / (1 + abs(x))."""
    variable = as_variable(x)
    return variable / (1.0 + abs(variable))


def hard_sigmoid(x: Operand) -> Variable:
    """Return 0.2 * x + 0.5, between 0 and 1."""
    variable = as_variable(x)
    slope, middle = (constant(number, ops.floating(variable.type.dtype)) for number in (0.2, 0.5))
    return ops.clip(variable * slope + middle, 0, 1)


def softmax_graph(c: Operand) -> Variable:
    """Softmax along the last axis, of any number of dimensions."""
    powers = ops.exp(c)
    return powers / ops.sum_(powers, axis=-1, keepdims=True)


def softmax_with_bias(x: Operand, b: Operand) -> Variable:
    """Softmax of each row of x + b."""
    return softmax(as_variable(x) + b)


def sigmoid_binary_crossentropy(output: Operand, target: Operand) -> Variable:
    """Cross-entropy `binary_crossentropy` of sigmoid(output), in nats."""
    return ops.sigmoid_crossentropy(output, target)


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
    return crossentropy_categorical_1hot(P, truth)


def crossentropy_categorical_1hot(coding_dist: Operand, true_one_of_n: Operand) -> Variable:
    """Minus the logarithm of the true class's probability, for each row, in nats.

    Parameters
    ----------
    coding_dist : (n, n_classes)
        Probabilities, such as those of `softmax`.
    true_one_of_n : (n,) integers
        The true classes.
    """
    P, truth = as_variable(coding_dist), as_variable(true_one_of_n)
    if truth.ndim != 1 or P.ndim != 2 or truth.type.dtype.kind not in "iu":
        raise TypeError(
            f"categorical_crossentropy takes a matrix of probabilities, and a vector of classes or a matrix of "
            f"probabilities, not {P.type} and {truth.type}"
        )
    return -ops.log(P)[ops.arange(ops.shape(truth)[0]), truth]


def crossentropy_softmax_argmax_1hot_with_bias(x: Operand, b: Operand, y_idx: Operand) -> tuple[Variable, ...]:
    """Return the cross-entropy of each row of softmax(x + b), this itself, and its largest column.

    Parameters
    ----------
    x : (n, n_classes)
    b : (n_classes,)
    y_idx : (n,) integers
        The true classes.
    """
    truth, logits = as_variable(y_idx), as_variable(x) + b
    P = softmax(logits)
    best = ops.cast(ops.argmax(logits, axis=1), truth.type.dtype)
    return crossentropy_categorical_1hot(P, truth), P, best


def crossentropy_softmax_1hot_with_bias(x: Operand, b: Operand, y_idx: Operand) -> tuple[Variable, ...]:
    """Return the cross-entropy of each row of softmax(x + b), and this itself."""
    return crossentropy_softmax_argmax_1hot_with_bias(x, b, y_idx)[:2]


def crossentropy_softmax_1hot(x: Operand, y_idx: Operand) -> tuple[Variable, ...]:
    """Return the cross-entropy of each row of softmax(x), and this itself."""
    P = softmax(x)
    return crossentropy_categorical_1hot(P, y_idx), P


def crossentropy_softmax_max_and_argmax_1hot_with_bias(x: Operand, b: Operand, y_idx: Operand) -> tuple[Variable, ...]:
    """Return the cross-entropy of each row of softmax(x + b), this itself, its largest elements and their columns."""
    return crossentropy_softmax_max_and_argmax_1hot(as_variable(x) + b, y_idx)


def crossentropy_softmax_max_and_argmax_1hot(x: Operand, y_idx: Operand) -> tuple[Variable, ...]:
    """Return the cross-entropy of each row of softmax(x), this itself, its largest elements and their columns."""
    P = softmax(x)
    return crossentropy_categorical_1hot(P, y_idx), P, ops.max_(P, axis=-1), ops.argmax(P, axis=-1)


def confusion_matrix(actual: Operand, pred: Operand) -> list[Variable]:
    """Return how often each true class, in rows, was predicted as each, in columns; and the classes in order."""
    truth, guess = as_variable(actual), as_variable(pred)
    classes = ops.unique(ops.concatenate([truth, guess]))
    rows, columns = (ops.cast(ops.eq(each.dimshuffle(0, "x"), classes), np.int64) for each in (truth, guess))
    return [ops.dot(rows.T, columns), classes]
