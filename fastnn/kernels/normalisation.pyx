"""Batch normalisation: each hidden unit is brought to mean 0 and variance 1 over the rows of a batch, then scaled.

S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift",
ICML 2015.  With Z the affine layer's output without its bias: X_hat = (Z - mean) / sqrt(variance + EPSILON), and Z
becomes scale * X_hat + bias.  All rows count alike, whatever their weights.  Units are taken NORMALISED_UNITS at a
time; their sums are double in both precisions, so that they are as exact for many rows as for few.
"""

from cython cimport floating
from libc.math cimport sqrt
from libc.string cimport memset

from .plan cimport Image

cdef extern from "vectors.h" nogil:
    enum:
        NORMALISED_UNITS

cdef enum:
    LANE_CHANNELS = 32
    MOST_LANES = 16

#: Keeps the quotient finite if a unit is the same for all rows.
EPSILON = 1e-5

#: A batch's share of the running statistics.
RUNNING_SHARE = 0.1

cdef double SMALL = EPSILON
cdef double FRESH = RUNNING_SHARE


cdef void normalise(floating* Z, floating* X_hat, Py_ssize_t stride, const floating* scale, const floating* bias,
                    floating* mean, floating* variance, Py_ssize_t n, Py_ssize_t n_units) noexcept nogil:
    # Two passes for the statistics: a difference of mean squares would lose all digits where the mean is large.
    cdef Py_ssize_t i, j, tile, begin, width
    cdef double[NORMALISED_UNITS] means
    cdef double[NORMALISED_UNITS] squares
    cdef double[NORMALISED_UNITS] factors
    cdef double centred
    for tile in range((n_units + NORMALISED_UNITS - 1) // NORMALISED_UNITS):
        begin = tile * NORMALISED_UNITS
        width = min(<Py_ssize_t> NORMALISED_UNITS, n_units - begin)
        for j in range(width):
            means[j] = squares[j] = 0
        for i in range(n):
            for j in range(width):
                means[j] += Z[i * stride + begin + j]
        for j in range(width):
            means[j] /= n
        for i in range(n):
            for j in range(width):
                centred = Z[i * stride + begin + j] - means[j]
                squares[j] += centred * centred
        for j in range(width):
            squares[j] /= n
            factors[j] = 1 / sqrt(squares[j] + SMALL)
            mean[begin + j], variance[begin + j] = <floating> means[j], <floating> squares[j]
        for i in range(n):
            for j in range(width):
                X_hat[i * stride + begin + j] = <floating> ((Z[i * stride + begin + j] - means[j]) * factors[j])
            for j in range(width):
                Z[i * stride + begin + j] = scale[begin + j] * X_hat[i * stride + begin + j] + bias[begin + j]


cdef void backprop_normalise(const floating* X_hat, floating* dZ, Py_ssize_t stride, const floating* variance,
                             const floating* scale, floating* dscale, floating* dbias, Py_ssize_t n,
                             Py_ssize_t n_units, floating alpha, floating beta) noexcept nogil:
    # dscale, dbias = alpha * gradient + beta * dscale, dbias; dscale may be scale, which is read first.
    # dZ (n, n_units) = scale / sqrt(variance + EPSILON) * (dZ - mean(dZ) - mean(dZ * X_hat) * X_hat), means over rows
    cdef Py_ssize_t i, j, tile, begin, width
    cdef double[NORMALISED_UNITS] sums
    cdef double[NORMALISED_UNITS] products
    cdef floating[NORMALISED_UNITS] factors
    cdef floating[NORMALISED_UNITS] means
    cdef floating[NORMALISED_UNITS] slopes
    for tile in range((n_units + NORMALISED_UNITS - 1) // NORMALISED_UNITS):
        begin = tile * NORMALISED_UNITS
        width = min(<Py_ssize_t> NORMALISED_UNITS, n_units - begin)
        for j in range(width):
            sums[j] = products[j] = 0
        for i in range(n):
            for j in range(width):
                sums[j] += dZ[i * stride + begin + j]
                products[j] += <double> dZ[i * stride + begin + j] * X_hat[i * stride + begin + j]
        for j in range(width):
            factors[j] = <floating> (scale[begin + j] / sqrt(variance[begin + j] + SMALL))
            means[j], slopes[j] = <floating> (sums[j] / n), <floating> (products[j] / n)
        for j in range(width):
            dbias[begin + j] = beta * dbias[begin + j] if beta != 0 else <floating> 0.0
            dbias[begin + j] += alpha * <floating> sums[j]
            dscale[begin + j] = beta * dscale[begin + j] if beta != 0 else <floating> 0.0
            dscale[begin + j] += alpha * <floating> products[j]
        for i in range(n):
            for j in range(width):
                dZ[i * stride + begin + j] = factors[j] * (
                    dZ[i * stride + begin + j] - means[j] - slopes[j] * X_hat[i * stride + begin + j])


cdef void move_statistics(const floating* mean, const floating* variance, floating* running_mean,
                          floating* running_variance, Py_ssize_t n, Py_ssize_t n_units) noexcept nogil:
    # A single row has no unbiased variance: it moves nothing.
    cdef Py_ssize_t j
    cdef double unbiased
    if n < 2:
        return
    unbiased = n / <double> (n - 1)
    for j in range(n_units):
        running_mean[j] = <floating> ((1 - FRESH) * running_mean[j] + FRESH * mean[j])
        running_variance[j] = <floating> ((1 - FRESH) * running_variance[j] + FRESH * (unbiased * variance[j]))


# --- maps in lanes --------------------------------------------------------------------------------------------------
# A tile of channels at a time; `place` is where it begins at a position, and loops run over its numbers, lanes and all.


cdef inline Py_ssize_t tile_width(const Image* z, Py_ssize_t begin) noexcept nogil:
    return min(<Py_ssize_t> LANE_CHANNELS, z.channels - begin)


cdef void spread(const floating* values, Py_ssize_t n, Py_ssize_t lanes, floating* out) noexcept nogil:
    # out (n, lanes): each number in all lanes
    cdef Py_ssize_t i
    for i in range(n * lanes):
        out[i] = values[i // lanes]


cdef void add_up_lanes(const double* sums, Py_ssize_t n, Py_ssize_t lanes, Py_ssize_t n_lanes,
                       double* out) noexcept nogil:
    # out (n,): the sums (n, lanes) over the first n_lanes
    cdef Py_ssize_t i, lane
    for i in range(n):
        out[i] = 0
        for lane in range(n_lanes):
            out[i] += sums[i * lanes + lane]


cdef void group_moments(const Image* z, const floating* Z, Py_ssize_t lanes, Py_ssize_t n_lanes,
                        double* moments) noexcept nogil:
    # moments (2, channels): the mean of each channel over positions and the first n_lanes images, and the sum of
    # squared differences from it
    cdef Py_ssize_t tile, begin, width, n, i, x, j
    cdef double[LANE_CHANNELS * MOST_LANES] sums
    cdef double[LANE_CHANNELS * MOST_LANES] means
    cdef double centred
    cdef const floating* here
    for tile in range((z.channels + LANE_CHANNELS - 1) // LANE_CHANNELS):
        begin = tile * LANE_CHANNELS
        width = tile_width(z, begin)
        n = width * lanes
        memset(&sums[0], 0, sizeof(sums))
        for i in range(z.height):
            for x in range(z.width):
                here = Z + i * z.row + (x * z.channels + begin) * lanes
                for j in range(n):
                    sums[j] += here[j]
        add_up_lanes(&sums[0], width, lanes, n_lanes, moments + begin)
        for j in range(width):
            moments[begin + j] /= z.height * z.width * n_lanes
        spread(moments + begin, width, lanes, &means[0])
        memset(&sums[0], 0, sizeof(sums))
        for i in range(z.height):
            for x in range(z.width):
                here = Z + i * z.row + (x * z.channels + begin) * lanes
                for j in range(n):
                    centred = here[j] - means[j]
                    sums[j] += centred * centred
        add_up_lanes(&sums[0], width, lanes, n_lanes, moments + z.channels + begin)


cdef void join_moments(const double* moments, Py_ssize_t n_groups, Py_ssize_t n_units, Py_ssize_t lanes, Py_ssize_t n,
                       Py_ssize_t positions, floating* mean, floating* variance) noexcept nogil:
    # Of n images in groups of as many as there are lanes; the last may have fewer.
    cdef Py_ssize_t g, c
    cdef double total, squares, difference
    cdef double images
    for c in range(n_units):
        total = squares = 0
        for g in range(n_groups):
            images = min(lanes, n - g * lanes)
            total += images * moments[2 * g * n_units + c]
        total /= n
        for g in range(n_groups):
            images = min(lanes, n - g * lanes)
            difference = moments[2 * g * n_units + c] - total
            squares += moments[(2 * g + 1) * n_units + c] + images * positions * difference * difference
        mean[c], variance[c] = <floating> total, <floating> (squares / (n * positions))


cdef void normalise_lanes(const Image* z, floating* Z, Py_ssize_t lanes, const floating* mean,
                          const floating* variance) noexcept nogil:
    # Z becomes X_hat
    cdef Py_ssize_t tile, begin, width, i, x, j
    cdef floating[LANE_CHANNELS * MOST_LANES] means
    cdef floating[LANE_CHANNELS * MOST_LANES] factors
    cdef floating* here
    for tile in range((z.channels + LANE_CHANNELS - 1) // LANE_CHANNELS):
        begin = tile * LANE_CHANNELS
        width = tile_width(z, begin)
        spread(mean + begin, width, lanes, &means[0])
        for j in range(width * lanes):
            factors[j] = <floating> (1 / sqrt(variance[begin + j // lanes] + SMALL))
        for i in range(z.height):
            for x in range(z.width):
                here = Z + i * z.row + (x * z.channels + begin) * lanes
                for j in range(width * lanes):
                    here[j] = (here[j] - means[j]) * factors[j]


cdef void scale_lanes(const Image* z, const floating* X_hat, Py_ssize_t lanes, const floating* scale,
                      const floating* bias, const Image* y, floating* Y, Py_ssize_t begin_row,
                      Py_ssize_t end_row) noexcept nogil:
    # These rows of Y = scale * X_hat + bias
    cdef Py_ssize_t tile, begin, width, i, x, j, place
    cdef floating[LANE_CHANNELS * MOST_LANES] scales
    cdef floating[LANE_CHANNELS * MOST_LANES] biases
    for tile in range((z.channels + LANE_CHANNELS - 1) // LANE_CHANNELS):
        begin = tile * LANE_CHANNELS
        width = tile_width(z, begin)
        spread(scale + begin, width, lanes, &scales[0])
        spread(bias + begin, width, lanes, &biases[0])
        for i in range(begin_row, end_row):
            for x in range(z.width):
                place = (x * z.channels + begin) * lanes
                for j in range(width * lanes):
                    Y[i * y.row + place + j] = scales[j] * X_hat[i * z.row + place + j] + biases[j]


cdef void group_sums(const Image* z, const floating* dZ, const floating* X_hat, Py_ssize_t lanes, Py_ssize_t n_lanes,
                     double* sums) noexcept nogil:
    # sums (2, channels): of dZ and of dZ * X_hat, over positions and the first n_lanes images
    cdef Py_ssize_t tile, begin, width, i, x, j, place
    cdef double[LANE_CHANNELS * MOST_LANES] totals
    cdef double[LANE_CHANNELS * MOST_LANES] products
    for tile in range((z.channels + LANE_CHANNELS - 1) // LANE_CHANNELS):
        begin = tile * LANE_CHANNELS
        width = tile_width(z, begin)
        memset(&totals[0], 0, sizeof(totals))
        memset(&products[0], 0, sizeof(products))
        for i in range(z.height):
            for x in range(z.width):
                place = i * z.row + (x * z.channels + begin) * lanes
                for j in range(width * lanes):
                    totals[j] += dZ[place + j]
                    products[j] += <double> dZ[place + j] * X_hat[place + j]
        add_up_lanes(&totals[0], width, lanes, n_lanes, sums + begin)
        add_up_lanes(&products[0], width, lanes, n_lanes, sums + z.channels + begin)


cdef void join_sums(double* sums, Py_ssize_t n_groups, Py_ssize_t n_units, Py_ssize_t n, const floating* variance,
                    const floating* scale, floating* dscale, floating* dbias, floating alpha,
                    floating beta) noexcept nogil:
    # Joins all sums in those of the first group, as means over n positions of images, and puts the factors of the
    # gradient behind those of the last.  dscale, dbias as in backprop_normalise.
    cdef Py_ssize_t g, c
    for g in range(1, n_groups):
        for c in range(2 * n_units):
            sums[c] += sums[2 * g * n_units + c]
    for c in range(n_units):
        sums[2 * n_groups * n_units + c] = scale[c] / sqrt(variance[c] + SMALL)
        dbias[c] = beta * dbias[c] if beta != 0 else <floating> 0.0
        dbias[c] += alpha * <floating> sums[c]
        dscale[c] = beta * dscale[c] if beta != 0 else <floating> 0.0
        dscale[c] += alpha * <floating> sums[n_units + c]
    for c in range(2 * n_units):
        sums[c] /= n


cdef void backprop_lanes(const Image* z, floating* dZ, const floating* X_hat, Py_ssize_t lanes, Py_ssize_t n_lanes,
                         const double* sums, Py_ssize_t n_groups) noexcept nogil:
    # dZ by X_hat's scaled values becomes dZ by what was normalised, with what join_sums left; other lanes become 0.
    cdef Py_ssize_t tile, begin, width, i, x, j, c, place
    cdef floating[LANE_CHANNELS * MOST_LANES] means
    cdef floating[LANE_CHANNELS * MOST_LANES] slopes
    cdef floating[LANE_CHANNELS * MOST_LANES] factors
    for tile in range((z.channels + LANE_CHANNELS - 1) // LANE_CHANNELS):
        begin = tile * LANE_CHANNELS
        width = tile_width(z, begin)
        for j in range(width * lanes):
            c = begin + j // lanes
            means[j], slopes[j] = <floating> sums[c], <floating> sums[z.channels + c]
            factors[j] = <floating> (sums[2 * n_groups * z.channels + c] if j % lanes < n_lanes else 0)
        for i in range(z.height):
            for x in range(z.width):
                place = i * z.row + (x * z.channels + begin) * lanes
                for j in range(width * lanes):
                    dZ[place + j] = factors[j] * (dZ[place + j] - means[j] - slopes[j] * X_hat[place + j])


def inplace_normalisation(floating[:, ::1] Z, const floating[::1] scale, const floating[::1] bias,
                          floating[:, ::1] X_hat_out, floating[::1] mean_out, floating[::1] variance_out):
    """Z (n, width) becomes scale * X_hat + bias, where X_hat_out = (Z - mean) / sqrt(variance + EPSILON).

    mean_out, variance_out : (width,) of the rows of Z, the variance biased
    """
    if Z.size:
        with nogil:
            normalise(&Z[0, 0], &X_hat_out[0, 0], Z.shape[1], &scale[0], &bias[0], &mean_out[0], &variance_out[0],
                      Z.shape[0], Z.shape[1])


def inplace_backprop_normalisation(const floating[:, ::1] X_hat, const floating[::1] variance,
                                   const floating[::1] scale, floating[:, ::1] dZ, floating[::1] dscale_out,
                                   floating[::1] dbias_out, double alpha=1.0, double beta=0.0):
    """dZ (n, width), a gradient by scale * X_hat + bias, becomes the gradient by Z before normalisation.

    dscale_out, dbias_out (width,) = alpha * gradient + beta * dscale_out, dbias_out
    """
    if dZ.size:
        with nogil:
            backprop_normalise(&X_hat[0, 0], &dZ[0, 0], dZ.shape[1], &variance[0], &scale[0], &dscale_out[0],
                               &dbias_out[0], dZ.shape[0], dZ.shape[1], <floating> alpha, <floating> beta)


def inplace_running_statistics(const floating[::1] mean, const floating[::1] variance, floating[::1] running_mean,
                               floating[::1] running_variance, Py_ssize_t n):
    """Move the running statistics (width,) towards those of a batch of n rows.

    running = (1 - RUNNING_SHARE) * running + RUNNING_SHARE * batch, with the batch's biased variance corrected by
    n / (n - 1); a single row moves nothing.
    """
    if mean.shape[0]:
        with nogil:
            move_statistics(&mean[0], &variance[0], &running_mean[0], &running_variance[0], n, mean.shape[0])
