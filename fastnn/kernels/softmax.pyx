"""The output layer: softmax, log-softmax, and cross-entropy with its gradient, a row at a time.

The largest logit of a row is subtracted first, so that no exp overflows and one term of the sum is 1:
P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax functions",
IMA J. Numer. Anal. 41 (2021).
"""

from cython cimport floating
from libc.math cimport log

from ._math cimport exp_

cdef double LARGE_PRODUCT = 1e100


cdef inline floating row_sum(const floating* z, Py_ssize_t n_classes) noexcept nogil:
    cdef Py_ssize_t j
    cdef floating total = 0
    for j in range(n_classes):
        total += z[j]
    return total


cdef inline floating exp_row(floating* z, floating largest, Py_ssize_t n_classes) noexcept nogil:
    # z becomes exp(z - largest); returns its sum.
    cdef Py_ssize_t j
    for j in range(n_classes):
        z[j] = exp_(z[j] - largest)
    return row_sum(z, n_classes)


cdef inline void scale_row(floating* z, floating factor, Py_ssize_t n_classes) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n_classes):
        z[j] = z[j] * factor


cdef void softmax_rows(floating* Z, Py_ssize_t n, Py_ssize_t n_classes) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating* z
    for i in range(n):
        z = Z + i * n_classes
        scale_row(z, 1 / exp_row(z, row_max(z, n_classes), n_classes), n_classes)


cdef inline double short_cross_entropy_rows(floating* Z, const Py_ssize_t* y, Py_ssize_t n, Py_ssize_t n_classes,
                                            double scale) noexcept nogil:
    # `cross_entropy_rows` with the same bits, in loops that vectorise over rows if the compiler knows their length.
    cdef Py_ssize_t i, j
    cdef floating largest
    cdef floating* z
    cdef double log_likelihood = 0, product = 1
    for i in range(n):
        z = Z + i * n_classes
        largest = row_max(z, n_classes)
        for j in range(n_classes):
            z[j] -= largest
    for i in range(n):
        log_likelihood += Z[i * n_classes + y[i]]
    for i in range(n * n_classes):
        Z[i] = exp_(Z[i])
    for i in range(n):
        product *= row_sum(Z + i * n_classes, n_classes)
        if not product < LARGE_PRODUCT:
            log_likelihood -= log(product)
            product = 1
    for i in range(n):
        z = Z + i * n_classes
        scale_row(z, <floating> -scale / row_sum(z, n_classes), n_classes)
    for i in range(n):
        Z[i * n_classes + y[i]] += <floating> scale
    return log_likelihood - log(product)


cdef double cross_entropy_rows(floating* Z, const Py_ssize_t* y, Py_ssize_t n, Py_ssize_t n_classes,
                               double scale) noexcept nogil:
    # Returns sum_i log P[i, y_i], P = softmax(Z); Z becomes scale * (onehot(y) - P), the gradient by
    # the logits of scale times that sum.
    # One loop takes exp of all rows, since a row may be shorter than a vector; a product of sums, each from 1 to
    # n_classes, saves most logarithms.
    cdef Py_ssize_t i, j
    cdef floating largest, total
    cdef floating* z
    cdef double log_likelihood = 0, product = 1
    if n_classes == 2:
        return short_cross_entropy_rows(Z, y, n, 2, scale)
    if n_classes == 3:
        return short_cross_entropy_rows(Z, y, n, 3, scale)
    for i in range(n):
        z = Z + i * n_classes
        largest = row_max(z, n_classes)
        for j in range(n_classes):
            z[j] -= largest
        log_likelihood += z[y[i]]
    for i in range(n * n_classes):
        Z[i] = exp_(Z[i])
    for i in range(n):
        z = Z + i * n_classes
        total = row_sum(z, n_classes)
        product *= total
        if not product < LARGE_PRODUCT:
            log_likelihood -= log(product)
            product = 1
        scale_row(z, <floating> -scale / total, n_classes)
        z[y[i]] += <floating> scale
    return log_likelihood - log(product)


def inplace_softmax(floating[:, ::1] Z):
    """Z (n, n_classes), logits, becomes P, probabilities: each row sums to 1."""
    if Z.size:
        with nogil:
            softmax_rows(&Z[0, 0], Z.shape[0], Z.shape[1])


def inplace_log_softmax(floating[:, ::1] Z):
    """Z (n, n_classes), logits, becomes log P, in nats; finite even where P itself underflows."""
    cdef Py_ssize_t i, j
    cdef floating largest
    cdef double total
    with nogil:
        for i in range(Z.shape[0] if Z.shape[1] else 0):
            largest = row_max(&Z[i, 0], Z.shape[1])
            total = 0
            for j in range(Z.shape[1]):
                Z[i, j] = Z[i, j] - largest
                total += exp_(Z[i, j])
            for j in range(Z.shape[1]):
                Z[i, j] = <floating> (Z[i, j] - log(total))


def inplace_backprop_softmax(const floating[:, ::1] P, floating[:, ::1] dP):
    """dP (n, n_classes), a gradient by P = softmax(Z), becomes that by Z: P * (dP - sum_j P_j dP_j)."""
    cdef Py_ssize_t i, j
    cdef floating total
    with nogil:
        for i in range(P.shape[0]):
            total = 0
            for j in range(P.shape[1]):
                total += P[i, j] * dP[i, j]
            for j in range(P.shape[1]):
                dP[i, j] = P[i, j] * (dP[i, j] - total)
