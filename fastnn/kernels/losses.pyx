"""Losses at the output layer, a row at a time: each is minus the log-likelihood of a distribution, up to a constant.

Cross-entropy includes a softmax, binary cross-entropy a sigmoid for each output.  Squared (half the square), absolute,
Huber's and the quantile loss take the outputs as they are, and are summed over them.  All are counted as
log-likelihoods, which training ascends.

Huber's loss: P. J. Huber, "Robust estimation of a location parameter" (1964), here with threshold 1.  Quantile
(pinball) loss: R. Koenker, G. Bassett, "Regression quantiles" (1978).  Label smoothing: C. Szegedy et al., "Rethinking
the Inception architecture for computer vision" (2015).
"""

from typing import NamedTuple

from cython cimport floating
from libc.math cimport log

from ._math cimport exp_, fabs
from .softmax cimport cross_entropy_rows, row_max

#: Code of each loss, by the name that users give.
LOSSES = {
    "cross_entropy": CROSS_ENTROPY,
    "binary_cross_entropy": BINARY_CROSS_ENTROPY,
    "squared": SQUARED,
    "absolute": ABSOLUTE,
    "huber": HUBER,
    "quantile": QUANTILE,
}

cdef double SMALL_PRODUCT = 1e-100


class Targets(NamedTuple):
    """The targets of rows, in the order in which the rows are taken.

    loss : code of LOSSES
    y : (n,) classes for cross-entropy, (n, n_out) numbers of the network's dtype for the others
    weights : (n,) float64, at least 0, or None for 1 each
    smoothing : share of each class's probability that cross-entropy spreads over all classes
    levels : (n_out,) float64, which quantile each output is of, for the quantile loss; its y repeats a row's number
    """

    loss: int
    y: object
    weights: object = None
    smoothing: float = 0.0
    levels: object = None


cdef TargetStore open_targets(object targets) except *:
    cdef TargetStore store
    cdef const Py_ssize_t[::1] classes
    cdef const float[:, ::1] singles
    cdef const double[:, ::1] doubles
    cdef const double[::1] weights, levels
    store.loss, store.smoothing = targets.loss, targets.smoothing
    store.classes = NULL
    store.values = NULL
    store.weights = store.levels = NULL
    if targets.y.shape[0] == 0:
        return store
    if store.loss == CROSS_ENTROPY:
        classes = targets.y
        store.classes = &classes[0]
    elif targets.y.dtype == "float32":
        singles = targets.y
        store.values = &singles[0, 0]
    else:
        doubles = targets.y
        store.values = &doubles[0, 0]
    if targets.weights is not None:
        weights = targets.weights
        store.weights = &weights[0]
    if store.loss == QUANTILE:
        levels = targets.levels
        store.levels = &levels[0]
    return store


cdef double sum_of_weights(const TargetStore* targets, Py_ssize_t first, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef double total = 0
    if targets.weights == NULL:
        return <double> n
    for i in range(first, first + n):
        total += targets.weights[i]
    return total


cdef inline double weight_of(const TargetStore* targets, Py_ssize_t i) noexcept nogil:
    return targets.weights[i] if targets.weights != NULL else 1.0


cdef double weighted_cross_entropy(const TargetStore* targets, Py_ssize_t first, floating* Z, Py_ssize_t n,
                                   Py_ssize_t n_out, double scale) noexcept nogil:
    # With smoothing s, each class has target probability s / n_out, and the true class 1 - s more.
    cdef Py_ssize_t i, j, y
    cdef double weight, total, linear, log_likelihood = 0
    cdef double all_, own = 1 - targets.smoothing
    cdef floating largest
    cdef floating* z
    for i in range(n):
        z = Z + i * n_out
        y = targets.classes[first + i]
        weight = weight_of(targets, first + i)
        largest = row_max(z, n_out)
        all_ = total = 0
        for j in range(n_out):
            z[j] -= largest
            all_ += z[j]
        linear = own * z[y] + (targets.smoothing / n_out * all_ if targets.smoothing != 0 else 0.0)
        for j in range(n_out):
            z[j] = exp_(z[j])
        for j in range(n_out):
            total += z[j]
        log_likelihood += weight * (linear - log(total))
        for j in range(n_out):
            z[j] = <floating> (weight * scale * (targets.smoothing / n_out - z[j] / total))
        z[y] += <floating> (weight * scale * own)
    return log_likelihood


cdef double single_rows(const floating* y, floating* Z, Py_ssize_t n, double scale) noexcept nogil:
    # `binary_rows` for one output and rows without weights, with the same bits, in loops of which most vectorise.
    cdef Py_ssize_t i
    cdef double product = 1, log_likelihood = 0
    cdef floating e
    for i in range(n):
        log_likelihood += y[i] * Z[i] - (Z[i] if Z[i] > 0 else <floating> 0.0)
    for i in range(n):
        e = exp_(-Z[i] if Z[i] > 0 else Z[i])
        Z[i] = (<floating> 1.0 if Z[i] > 0 else e) / (<floating> 1.0 + e)
    for i in range(n):
        product *= Z[i] if Z[i] > 1 - Z[i] else 1 - Z[i]
        if product < SMALL_PRODUCT:
            log_likelihood += log(product)
            product = 1
    for i in range(n):
        Z[i] = <floating> scale * (y[i] - Z[i])
    return log_likelihood + log(product)


cdef double binary_rows(const floating* values, const TargetStore* targets, Py_ssize_t first, floating* Z,
                        Py_ssize_t n, Py_ssize_t n_out, double scale) noexcept nogil:
    # log P = y z - max(z, 0) - log(1 + e), e = exp(-|z|); the larger of p = sigmoid(z) and 1 - p is 1 / (1 + e).
    # One loop takes exp of all rows; a product of the larger ones, from 1/2 to 1, saves most logarithms, unless rows
    # have weights.
    cdef Py_ssize_t i, j
    cdef double weight, sum_, product = 1, log_likelihood = 0
    cdef floating z, y, e
    for i in range(n):
        sum_ = 0
        for j in range(n_out):
            z = Z[i * n_out + j]
            sum_ += values[(first + i) * n_out + j] * z - (z if z > 0 else <floating> 0.0)
        log_likelihood += weight_of(targets, first + i) * sum_
    for i in range(n * n_out):
        e = exp_(-Z[i] if Z[i] > 0 else Z[i])
        Z[i] = (<floating> 1.0 if Z[i] > 0 else e) / (<floating> 1.0 + e)
    for i in range(n):
        weight = weight_of(targets, first + i)
        for j in range(n_out):
            z, y = Z[i * n_out + j], values[(first + i) * n_out + j]
            product *= z if z > 1 - z else 1 - z
            Z[i * n_out + j] = <floating> (weight * scale) * (y - z)
            if product < SMALL_PRODUCT or (targets.weights != NULL and j == n_out - 1):
                log_likelihood += weight * log(product)
                product = 1
    return log_likelihood + log(product)


cdef double residual_rows(const floating* values, const TargetStore* targets, Py_ssize_t first, floating* Z,
                          Py_ssize_t n, Py_ssize_t n_out, double scale) noexcept nogil:
    # Losses of the residual r = y - z.
    cdef Py_ssize_t i, j
    cdef double weight, sum_, r, log_likelihood = 0
    for i in range(n):
        weight = weight_of(targets, first + i)
        sum_ = 0
        for j in range(n_out):
            r = <double> values[(first + i) * n_out + j] - Z[i * n_out + j]
            if targets.loss == SQUARED or (targets.loss == HUBER and fabs(r) <= 1):
                sum_ -= 0.5 * r * r
            else:
                sum_ -= fabs(r) - (0.5 if targets.loss == HUBER else 0.0)
                r = 1.0 if r > 0 else (-1.0 if r < 0 else r)
            Z[i * n_out + j] = <floating> (weight * scale * r)
        log_likelihood += weight * sum_
    return log_likelihood


cdef double quantile_rows(const floating* values, const TargetStore* targets, Py_ssize_t first, floating* Z,
                          Py_ssize_t n, Py_ssize_t n_out, double scale) noexcept nogil:
    # At level q, max(q r, (q - 1) r) of the residual r = y - z.
    cdef Py_ssize_t i, j
    cdef double weight, sum_, r, slope, log_likelihood = 0
    for i in range(n):
        weight = weight_of(targets, first + i)
        sum_ = 0
        for j in range(n_out):
            r = <double> values[(first + i) * n_out + j] - Z[i * n_out + j]
            slope = targets.levels[j] if r > 0 else targets.levels[j] - 1
            sum_ -= slope * r
            Z[i * n_out + j] = <floating> (weight * scale * (slope if r != 0 else 0.0))
        log_likelihood += weight * sum_
    return log_likelihood


cdef double loss_rows(const TargetStore* targets, Py_ssize_t first, floating* Z, Py_ssize_t n, Py_ssize_t n_out,
                      double total) noexcept nogil:
    # Returns the weighted sum of the log-likelihoods of n rows from first on, with outputs Z (n, n_out); Z becomes the
    # gradient of that sum divided by total, the sum of the batch's weights.
    cdef double scale = 1 / total if total > 0 else 0.0
    cdef const floating* values = <const floating*> targets.values
    if targets.loss == CROSS_ENTROPY:
        if targets.weights == NULL and targets.smoothing == 0:
            return cross_entropy_rows(Z, targets.classes + first, n, n_out, scale)
        return weighted_cross_entropy(targets, first, Z, n, n_out, scale)
    if targets.loss == BINARY_CROSS_ENTROPY:
        if n_out == 1 and targets.weights == NULL:
            return single_rows(values + first, Z, n, scale)
        return binary_rows(values, targets, first, Z, n, n_out, scale)
    if targets.loss == QUANTILE:
        return quantile_rows(values, targets, first, Z, n, n_out, scale)
    return residual_rows(values, targets, first, Z, n, n_out, scale)


def inplace_loss(targets, floating[:, ::1] Z, double total):
    """Return the weighted sum of the rows' log-likelihoods, in nats; Z becomes the gradient of that sum / total.

    targets : Targets of the rows;  Z : (n, n_out) outputs;  total : sum of the weights of the rows' batch
    """
    cdef TargetStore store = open_targets(targets)
    cdef double log_likelihood
    if not Z.size:
        return 0.0
    with nogil:
        log_likelihood = loss_rows(&store, 0, &Z[0, 0], Z.shape[0], Z.shape[1], total)
    return log_likelihood
