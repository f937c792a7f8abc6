"""The readable NumPy twin of every kernel: same names, same signatures, same results to rounding.

This is the text to read first.  Nothing here is fast and nothing checks its input; the tests compare each
function with the compiled one of the same name in ``fastnn.kernels``.

Symbols: X (n, n_in) rows of data; W (n_in, n_out), b (n_out,) a layer's parameters; Z = X W + b;
Y = activation(Z); P = softmax(Z) at the output; y (n,) classes; dV the gradient by V of what is ascended.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from fastnn.kernels.affine import REGISTER_BYTES
from fastnn.kernels.columns import LARGEST_NUMBER, NUMBER_LIMIT, ColumnFacts, Encoder
from fastnn.kernels.elementwise import CODES, Expression
from fastnn.kernels.epoch import Batches, Space
from fastnn.kernels.lbfgs import Memory
from fastnn.kernels.losses import Targets
from fastnn.kernels.plan import CompiledPlan
from fastnn.kernels.rows import CSRRows, Motion
from fastnn.kernels.sparse import SortedBlocks
from fastnn.kernels.updates import Steps
from fastnn.layout import LayerFacts, LayerPlan, Maps, Window
from fastnn.plan import forward_plan
from fastnn.slots import Slots

Array: TypeAlias = NDArray[Any]
Rows: TypeAlias = "NDArray[Any] | CSRRows"

# --- kernels.blas -----------------------------------------------------------------------------------


def gemm(
    A: Array,
    B: Array,
    C_out: Array,
    alpha: float = 1.0,
    beta: float = 0.0,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> None:
    """C_out (m, n) = alpha * op(A) (m, k) @ op(B) (k, n) + beta * C_out."""
    product = (A.T if transpose_a else A) @ (B.T if transpose_b else B)
    C_out[:] = alpha * product + (beta * C_out if beta != 0 else 0)


def gemm_in_threads(
    A: Array,
    B: Array,
    C_out: Array,
    transpose_a: bool = False,
    transpose_b: bool = False,
    n_threads: int = 1,
) -> None:
    """C_out (m, n) = op(A) (m, k) @ op(B) (k, n)."""
    gemm(A, B, C_out, 1.0, 0.0, transpose_a, transpose_b)


def warm_up(A: Array, B: Array, C_out: Array, n_threads: int) -> None:
    """C_out[t] (m, n) = A (m, k) @ B (k, n) for each t, side by side, for what it does to BLAS."""
    C_out[:] = A @ B


# --- kernels.rows -----------------------------------------------------------------------------------

UINT8_SCALE = 1 / 256


def moved(images: Array, motion: Motion, key: int, first: int) -> Array:
    """Images (n, height, width, channels) of an epoch, from position first on, flipped and shifted as the key says."""
    found = np.zeros_like(images)
    for i, image in enumerate(images):
        hashed = mixed(mixed(np.array([key], np.uint64)) + np.uint64((first + i) * 0x9E3779B97F4A7C15 % 2**64))
        (high, low), (again,) = divmod(int(hashed[0]), 2**32), mixed(hashed)
        flipped = image[:, ::-1] if motion.flips and int(again) >> 63 else image
        shift = (2 * motion.down + 1) * high >> 32, (2 * motion.across + 1) * low >> 32
        down, across = motion.down - shift[0], motion.across - shift[1]
        wide = np.pad(flipped, [(motion.down,) * 2, (motion.across,) * 2, (0, 0)])
        y, x = motion.down - down, motion.across - across
        found[i] = wide[y : y + motion.height, x : x + motion.width]
    return found


def draw_order(bit_generator: np.random.BitGenerator, order_out: Array) -> None:
    """order_out (n,) = an order of the numbers from 0 to n - 1."""
    order_out[:] = np.random.Generator(bit_generator).permutation(len(order_out))


def all_finite(values: Array, n_threads: int = 1) -> bool:
    """Whether all float32 or float64 numbers (n,), given as bits, are finite."""
    return bool(np.isfinite(values.view(f"f{values.itemsize}")).all())


# --- kernels.activations ----------------------------------------------------------------------------

ACTIVATIONS = {
    "identity": 0,
    "tanh": 1,
    "sigmoid": 2,
    "relu": 3,
    "leaky_relu": 4,
    "elu": 5,
    "softplus": 6,
    "gelu": 7,
    "silu": 8,
}
LEAK = 0.01


def inplace_activation(activation: int, Z: Array) -> None:
    """Z (n, width) becomes Y = activation(Z)."""
    inplace_activation_and_slopes(activation, Z, np.empty_like(Z))


def inplace_activation_and_slopes(activation: int, Z: Array, slopes_out: Array) -> None:
    """Z (n, width) becomes Y = activation(Z), slopes_out its derivative by Z."""
    name = list(ACTIVATIONS)[activation]
    if name == "tanh":
        Z[:] = np.tanh(Z)
    elif name == "sigmoid":
        e = np.exp(-np.abs(Z))
        Z[:] = np.where(Z < 0, e, 1) / (1 + e)
    elif name == "relu":
        Z[:] = np.where(Z < 0, 0, Z)
    elif name == "leaky_relu":
        Z[:] = np.where(Z < 0, LEAK * Z, Z)
    elif name == "elu":
        Z[:] = np.where(Z < 0, np.expm1(np.minimum(Z, 0)), Z)
    elif name == "softplus":
        Z[:] = np.where(Z < 0, 0, Z) + np.log1p(np.exp(-np.abs(Z)))
    elif name == "gelu":
        z = np.clip(Z.astype(float), -40, None)  # beyond, both are 0
        share = ndtr(z)
        slopes_out[:] = share + np.clip(z, None, 40) * np.exp(-np.square(np.clip(z, None, 40)) / 2) / np.sqrt(2 * np.pi)
        Z[:] = z * share
        return
    elif name == "silu":
        z = np.clip(Z, -1000, None)
        share = expit(z)
        slopes_out[:] = share * (1 + np.clip(z, None, 1000) * (1 - share))
        Z[:] = z * share
        return
    slopes_out[:] = 1
    inplace_backprop_activation(activation, Z, slopes_out)


def inplace_backprop_activation(activation: int, Y: Array, dY: Array) -> None:
    """DY (n, width), a gradient by the output Y, becomes the gradient by the pre-activation.

    For activations whose derivative can be had from Y: not for GELU and SiLU.
    """
    name = list(ACTIVATIONS)[activation]
    if name == "tanh":
        dY *= 1 - Y * Y
    elif name == "sigmoid":
        dY *= Y * (1 - Y)
    elif name == "relu":
        dY[~(Y > 0)] = 0
    elif name == "leaky_relu":
        dY[~(Y > 0)] *= LEAK
    elif name == "elu":
        dY *= np.where(Y < 0, Y + 1, 1)
    elif name == "softplus":
        dY *= -np.expm1(-Y)


# --- kernels.normalisation --------------------------------------------------------------------------

EPSILON = 1e-5
RUNNING_SHARE = 0.1


def inplace_normalisation(
    Z: Array, scale: Array, bias: Array, X_hat_out: Array, mean_out: Array, variance_out: Array
) -> None:
    """Z (n, width) becomes scale * X_hat + bias, where X_hat_out = (Z - mean) / sqrt(variance + EPSILON).

    mean_out, variance_out : (width,) of the rows of Z, the variance biased
    """
    if not Z.size:
        return
    mean, variance = Z.mean(axis=0, dtype=float), Z.var(axis=0, dtype=float)
    X_hat_out[:] = (Z - mean) / np.sqrt(variance + EPSILON)
    mean_out[:], variance_out[:] = mean, variance
    Z[:] = scale * X_hat_out + bias


def inplace_backprop_normalisation(
    X_hat: Array,
    variance: Array,
    scale: Array,
    dZ: Array,
    dscale_out: Array,
    dbias_out: Array,
    alpha: float = 1.0,
    beta: float = 0.0,
) -> None:
    """DZ (n, width), a gradient by scale * X_hat + bias, becomes the gradient by what was normalised.

    dscale_out, dbias_out (width,) = alpha * gradient + beta * dscale_out, dbias_out
    """
    if not dZ.size:
        return
    dX_hat = scale * dZ  # before a step that is folded in moves the scale
    dscale, dbias = (dZ * X_hat).sum(axis=0, dtype=float), dZ.sum(axis=0, dtype=float)
    dscale_out[:] = alpha * dscale + (beta * dscale_out if beta != 0 else 0)
    dbias_out[:] = alpha * dbias + (beta * dbias_out if beta != 0 else 0)
    dX_hat -= dX_hat.mean(axis=0, dtype=float) + X_hat * (dX_hat * X_hat).mean(axis=0, dtype=float)
    dZ[:] = dX_hat / np.sqrt(variance + EPSILON)


def inplace_running_statistics(
    mean: Array, variance: Array, running_mean: Array, running_variance: Array, n: int
) -> None:
    """Move the running statistics (width,) towards a batch's of n rows, whose variance is biased; that is corrected.

    running = (1 - RUNNING_SHARE) * running + RUNNING_SHARE * batch; a single row moves nothing.
    """
    if n > 1:
        running_mean += RUNNING_SHARE * (mean - running_mean)
        running_variance += RUNNING_SHARE * (variance * n / (n - 1) - running_variance)


# --- kernels.dropout --------------------------------------------------------------------------------


def mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the output function of SplitMix64, of uint64 numbers."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def inplace_dropout(Y: Array, slopes: Array, share: float, key: int, layer: int = 0, first: int = 0) -> None:
    """Set a share of Y (n, width) and of slopes to 0, the same in both, and divide the others by 1 - share.

    key, layer : choose the mask;  first : position of the first row in the epoch
    """
    step = np.uint64(0x9E3779B97F4A7C15)
    key_of_layer = mixed(np.array([key], np.uint64) + np.array([layer], np.uint64) * step)
    counts = np.arange(Y.size, dtype=np.uint64).reshape(Y.shape) + np.uint64(first * Y.shape[1])
    kept = (mixed(key_of_layer + counts * step) >> np.uint64(32)) >= np.uint64(share * 2**32)
    for values in (Y, slopes):
        values *= kept * values.dtype.type(1 / (1 - share))


# --- kernels.softmax --------------------------------------------------------------------------------


def inplace_softmax(Z: Array) -> None:
    """Z (n, n_classes), logits, becomes P, probabilities: each row sums to 1."""
    inplace_log_softmax(Z)
    np.exp(Z, out=Z)


def inplace_log_softmax(Z: Array) -> None:
    """Z (n, n_classes), logits, becomes log P, in nats; finite even where P itself underflows."""
    if Z.size:
        Z -= Z.max(axis=1, keepdims=True)
        Z -= np.log(np.exp(Z).sum(axis=1, keepdims=True))


def inplace_backprop_softmax(P: Array, dP: Array) -> None:
    """DP (n, n_classes), a gradient by P = softmax(Z), becomes that by Z: P * (dP - sum_j P_j dP_j)."""
    dP[:] = P * (dP - (P * dP).sum(axis=1, keepdims=True))


# --- kernels.elementwise ----------------------------------------------------------------------------

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "cast": np.positive,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "true_div": np.true_divide,
    "neg": np.negative,
    "abs": np.abs,
    "sqr": np.square,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "logaddexp": np.logaddexp,
    "pow": np.power,
    "tanh": np.tanh,
    "tanh_slope": lambda y, g: g * (1 - y * y),
    "sigmoid": expit,
    "sigmoid_slope": lambda y, g: g * (y * (1 - y)),
    "softplus": lambda z: np.logaddexp(z, 0),
    "relu": lambda z: np.maximum(z, 0),
    "heaviside": np.heaviside,
    "sgn": np.sign,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "clip": lambda x, low, high: np.where(x < low, low, np.where(x > high, high, x)),
    "switch": lambda condition, x, y: np.where(condition != 0, x, y),
    "eq": np.equal,
    "neq": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def evaluated(expression: Expression, *arrays: Array) -> list[Array]:
    """Return the results of an expression."""
    dtype = np.float32 if expression.single else np.float64
    names = {code: name for name, code in CODES.items()}
    values = [array.astype(dtype) for array in arrays]
    for code, *operands in expression.steps:
        values.append(np.asarray(FUNCTIONS[names[code]](*(values[i] for i in operands)), dtype))
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    return [np.broadcast_to(values[i], shape) for i in expression.outputs]


# --- kernels.streams --------------------------------------------------------------------------------


def mrg31k3p(
    states: NDArray[np.int32], states_out: NDArray[np.int32], out: Array, norm: float, n_threads: int = 1
) -> None:
    """Uniform numbers in (0, 1) from streams in turn: the i-th number of out (n,) is from stream i % n_streams.

    states (n_streams, 6), before and after : of each stream the last three numbers of both recurrences, latest first
    norm : the scale, 2^-31, or just below it in float32, in which large integers round up
    """
    m1, m2 = 2**31 - 1, 2**31 - 21069
    n_streams = len(states)
    states_out[:] = states
    for first in range(0, len(out), n_streams or 1):
        n = min(n_streams, len(out) - first)
        _, x2, x3, y1, _, y3 = states_out[:n].T.astype(np.int64)
        x = (2**22 * x2 + (2**7 + 1) * x3) % m1
        y = (2**15 * y1 + (2**15 + 1) * y3) % m2
        states_out[:n] = np.column_stack([x, states_out[:n, :2], y, states_out[:n, 3:5]])
        out[first : first + n] = np.where(x <= y, x - y + m1, x - y).astype(out.dtype) * out.dtype.type(norm)


# --- kernels.losses ---------------------------------------------------------------------------------

LOSSES = {"cross_entropy": 0, "binary_cross_entropy": 1, "squared": 2, "absolute": 3, "huber": 4, "quantile": 5}


def inplace_loss(targets: Targets, Z: Array, total: float) -> float:
    """Return the weighted sum of the rows' log-likelihoods, in nats; Z becomes the gradient of that sum / total.

    targets : Targets of the rows;  Z : (n, n_out) outputs;  total : sum of the weights of the rows' batch
    """
    loss, y, weights, smoothing, levels = targets
    if not Z.size:
        return 0.0
    name = list(LOSSES)[loss]
    weights = np.ones(len(Z)) if weights is None else weights
    if name == "cross_entropy":
        target = np.full(Z.shape, smoothing / Z.shape[1])
        target[np.arange(len(y)), y] += 1 - smoothing
        inplace_log_softmax(Z)
        each = (target * Z).sum(axis=1)
        gradient = target - np.exp(Z)
    elif name == "binary_cross_entropy":
        z = Z.astype(float)
        each = (y * z - np.logaddexp(0, z)).sum(axis=1)
        gradient = y - expit(z)
    else:
        residual = y.astype(float) - Z
        size = np.abs(residual)
        if name == "squared":
            each, gradient = -0.5 * residual**2, residual
        elif name == "absolute":
            each, gradient = -size, np.sign(residual)
        elif name == "quantile":
            q = np.asarray(levels)
            each = -np.maximum(q * residual, (q - 1) * residual)
            gradient = np.where(residual > 0, q, q - 1) * (residual != 0)
        else:
            each = np.where(size <= 1, -0.5 * residual**2, 0.5 - size)
            gradient = np.clip(residual, -1, 1)
        each = each.sum(axis=1)
    Z[:] = weights[:, None] * gradient / total if total > 0 else 0
    return float((weights * each).sum())


# --- kernels.affine ---------------------------------------------------------------------------------


def affine(X: Array, W: Array, b: Array, Z_out: Array) -> None:
    """Z_out (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b (n_out,)."""
    Z_out[:] = X @ W + b


def panel_bounds(width: int, number_size: int) -> list[int]:
    """Where the panels of a slice of units begin, and where the last ends, with a whole vector.

    A panel has at most three vectors; those with one more come first.
    """
    lanes = max(1, REGISTER_BYTES // number_size)
    n_vectors = -(-width // lanes)
    n_panels = -(-n_vectors // 3)
    return [lanes * (p * (n_vectors // n_panels) + min(p, n_vectors % n_panels)) for p in range(n_panels + 1)]


def panels(W: Array, n_in: int, bounds: Array | list[int]) -> list[Array]:
    """Views (n_in, n_units) of the panels of W, a vector of them, for slices of units that begin at bounds."""
    found, first, line = [], 0, 64 // W.itemsize  # of the cache
    for n_units in np.diff(bounds):
        begins = panel_bounds(n_units, W.itemsize)
        for begin, end in itertools.pairwise(begins):
            panel = W[first + n_in * begin : first + n_in * end].reshape(n_in, end - begin)
            found.append(panel[:, : n_units - begin])
        first += -(-n_in * begins[-1] // line) * line
    return found


def panels_affine(X: Array, W: Array, b: Array, bounds: Array, Z_out: Array) -> None:
    """Z_out (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b (n_out,) for W in panels.

    W : vector of them, slice by slice, each in whole cache lines
    bounds : (n_slices + 1,) where the slices of units begin, and n_out
    """
    affine(X, np.hstack(panels(W, X.shape[1], bounds)), b, Z_out)


def backprop_affine_input(dZ: Array, W: Array, dX_out: Array) -> None:
    """dX_out (n, n_in) = dZ (n, n_out) @ W.T (n_out, n_in)."""
    dX_out[:] = dZ @ W.T


def backprop_affine_weight(X: Array, dZ: Array, dW_out: Array, alpha: float = 1.0, beta: float = 0.0) -> None:
    """dW_out (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW_out."""
    dW_out[:] = alpha * (X.T @ dZ) + (beta * dW_out if beta != 0 else 0)


def backprop_panels_input(dZ: Array, W: Array, bounds: Array, dX_out: Array) -> None:
    """dX_out (n, n_in) = dZ (n, n_out) @ W.T (n_out, n_in), for W in panels as for panels_affine.

    All slices but the last are of whole vectors.
    """
    backprop_affine_input(dZ, np.hstack(panels(W, dX_out.shape[1], bounds)), dX_out)


def backprop_panels_weight(
    X: Array, dZ: Array, bounds: Array, dW_out: Array, alpha: float = 1.0, beta: float = 0.0
) -> None:
    """dW_out (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW_out, in panels as for panels_affine."""
    begin = 0
    for dW in panels(dW_out, X.shape[1], bounds):
        end = begin + dW.shape[1]
        backprop_affine_weight(X, dZ[:, begin:end], dW, alpha, beta)
        begin = end


def backprop_affine_bias(dZ: Array, db_out: Array, alpha: float = 1.0, beta: float = 0.0) -> None:
    """db_out (n_out,) = alpha * sum of the rows of dZ (n, n_out) + beta * db_out."""
    db_out[:] = alpha * dZ.sum(axis=0) + (beta * db_out if beta != 0 else 0)


# --- kernels.convolution ----------------------------------------------------------------------------

# Maps are (height, width, channels, lanes), an image in each lane.
WindowArgument: TypeAlias = tuple[int, int, int, int]


def windows_of(X: Array, window: WindowArgument) -> Array:
    """Views (height, width, channels, lanes, window's height, window's width) of the numbers that each window sees."""
    height, width, down, across = window
    return sliding_window_view(X, (height, width), axis=(0, 1), writeable=True)[::down, ::across]


def convolution(X: Array, W: Array, b: Array, window: WindowArgument, Z_out: Array, begin: int, end: int) -> None:
    """Rows begin to end of Z_out = the convolution of X with W (height, width, channels, filters), plus b."""
    Z_out[begin:end] = np.einsum("yxclij,ijcf->yxfl", windows_of(X, window)[begin:end], W) + b[:, None]


def backprop_convolution_weight(
    X: Array,
    dZ: Array,
    window: WindowArgument,
    dW_out: Array,
    begin: int,
    end: int,
    alpha: float = 1.0,
    beta: float = 0.0,
) -> None:
    """dW_out = alpha * the gradient by the weight, from rows begin to end of dZ, + beta * dW_out."""
    product = np.einsum("yxclij,yxfl->ijcf", windows_of(X, window)[begin:end], dZ[begin:end])
    dW_out[:] = alpha * product + (beta * dW_out if beta != 0 else 0)


def backprop_convolution_bias(
    dZ: Array, db_out: Array, begin: int, end: int, alpha: float = 1.0, beta: float = 0.0
) -> None:
    """db_out (filters,) = alpha * the sum of rows begin to end of dZ, over positions and lanes, + beta * db_out."""
    db_out[:] = alpha * dZ[begin:end].sum(axis=(0, 1, 3)) + (beta * db_out if beta != 0 else 0)


def backprop_convolution_input(
    dZ: Array, W: Array, window: WindowArgument, dX_out: Array, begin: int, end: int
) -> None:
    """dX_out += the gradient by X, from rows begin to end of dZ."""
    for i, j in np.ndindex(*W.shape[:2]):
        windows_of(dX_out, window)[begin:end, ..., i, j] += np.einsum("yxfl,cf->yxcl", dZ[begin:end], W[i, j])


# --- kernels.pooling --------------------------------------------------------------------------------


def max_pool(Z: Array, window: WindowArgument, Y_out: Array, places_out: Array | None, begin: int, end: int) -> None:
    """Rows begin to end of Y_out = the largest number of each window of Z, or NaN; places_out: which, the first one."""
    windows = windows_of(Z, window)[begin:end]
    numbers = windows.reshape(*windows.shape[:4], window[0] * window[1])
    Y_out[begin:end] = numbers.max(axis=-1)
    if places_out is not None:
        places_out[begin:end] = numbers.argmax(axis=-1)


def backprop_max_pool(dY: Array, places: Array, window: WindowArgument, dZ_out: Array, begin: int, end: int) -> None:
    """dZ_out += the gradient by Z, from rows begin to end of dY: each number goes to the place of its window."""
    for place, (i, j) in enumerate(np.ndindex(*window[:2])):
        windows_of(dZ_out, window)[begin:end, ..., i, j] += np.where(places[begin:end] == place, dY[begin:end], 0)


def mean_pool(Z: Array, window: WindowArgument, Y_out: Array, begin: int, end: int) -> None:
    """Rows begin to end of Y_out = the mean of each window of Z."""
    Y_out[begin:end] = windows_of(Z, window)[begin:end].mean(axis=(-2, -1))


def backprop_mean_pool(dY: Array, window: WindowArgument, dZ_out: Array, begin: int, end: int) -> None:
    """dZ_out += the gradient by Z, from rows begin to end of dY: the same for each number of a window."""
    for i, j in np.ndindex(*window[:2]):
        windows_of(dZ_out, window)[begin:end, ..., i, j] += dY[begin:end] / (window[0] * window[1])


def to_lanes(rows: Array, X_out: Array) -> None:
    """X_out (height, width, channels, lanes) = rows (n, height * width * channels), zeros in the lanes from n on."""
    X_out[:] = 0
    X_out[..., : len(rows)] = rows.T.reshape(*X_out.shape[:3], len(rows))


def from_lanes(X: Array, rows_out: Array) -> None:
    """rows_out (n, height * width * channels) = the first n lanes of X (height, width, channels, lanes)."""
    rows_out[:] = X[..., : len(rows_out)].reshape(rows_out.shape[1], len(rows_out)).T


# --- kernels.images ---------------------------------------------------------------------------------

# Zeros above, to the left, below, and to the right.
Padding: TypeAlias = tuple[int, int, int, int]


def surrounded(X: Array, padding: Padding, border: float = 0) -> Array:
    """Images (n, channels, height, width) with a border around each."""
    above, left, below, right = padding
    return np.pad(X, ((0, 0), (0, 0), (above, below), (left, right)), constant_values=border)


def inside(X: Array, padding: Padding) -> Array:
    """Images without the border around each."""
    above, left, below, right = padding
    return X[:, :, above : X.shape[2] - below, left : X.shape[3] - right]


def windows_of_images(X: Array, window: WindowArgument) -> Array:
    """Views (n, channels, rows, columns, window's height, window's width) of the numbers that each window sees."""
    return windows_of(X.transpose(2, 3, 1, 0), window).transpose(3, 2, 0, 1, 4, 5)


def convolve_images(
    X: Array, W: Array, padding: Padding, window: WindowArgument, Z_out: Array, n_threads: int = 1
) -> None:
    """Z_out (n, filters, rows, columns) = the convolution of X with W (height, width, channels, filters)."""
    windows = windows_of_images(surrounded(X, padding), window)[:, :, : Z_out.shape[2], : Z_out.shape[3]]
    Z_out[:] = np.einsum("ncyxij,ijcf->nfyx", windows, W, optimize=True)


def backprop_convolve_images_weight(
    X: Array, dZ: Array, padding: Padding, window: WindowArgument, dW_out: Array, n_threads: int = 1
) -> None:
    """dW_out = the gradient by the weight."""
    windows = windows_of_images(surrounded(X, padding), window)[:, :, : dZ.shape[2], : dZ.shape[3]]
    dW_out[:] = np.einsum("ncyxij,nfyx->ijcf", windows, dZ, optimize=True)


def backprop_convolve_images_input(
    dZ: Array, W: Array, padding: Padding, window: WindowArgument, dX_out: Array, n_threads: int = 1
) -> None:
    """dX_out = the gradient by X."""
    dX = surrounded(np.zeros_like(dX_out), padding)
    for i, j in np.ndindex(*W.shape[:2]):
        windows = windows_of_images(dX, window)[:, :, : dZ.shape[2], : dZ.shape[3], i, j]
        windows += np.einsum("nfyx,cf->ncyx", dZ, W[i, j])
    dX_out[:] = inside(dX, padding)


def max_pool_images(X: Array, padding: Padding, window: WindowArgument, Y_out: Array, n_threads: int = 1) -> None:
    """Y_out (n, 1, rows, columns) = the largest number of each window of X, or NaN; what lies around X is never it."""
    windows = windows_of_images(surrounded(X, padding, -np.inf), window)
    Y_out[:] = windows.max(axis=(4, 5))[:, :, : Y_out.shape[2], : Y_out.shape[3]]


def backprop_max_pool_images(
    X: Array, Y: Array, dY: Array, padding: Padding, window: WindowArgument, dX_out: Array, n_threads: int = 1
) -> None:
    """dX_out, which may be X = the gradient by X: all of dY for each number of a window that is equal to Y."""
    X, dX = surrounded(X, padding, -np.inf), surrounded(np.zeros_like(X), padding)
    for i, j in np.ndindex(*window[:2]):
        x, dx = (windows_of_images(A, window)[:, :, : Y.shape[2], : Y.shape[3], i, j] for A in (X, dX))
        dx += np.where(x == Y, dY, 0)
    dX_out[:] = inside(dX, padding)


def sum_pool_images(
    X: Array, shares: Array, padding: Padding, window: WindowArgument, Y_out: Array, n_threads: int = 1
) -> None:
    """Y_out = the sum of each window, zeros around X, times the share of its position (rows, columns)."""
    windows = windows_of_images(surrounded(X, padding), window)
    Y_out[:] = windows.sum(axis=(4, 5))[:, :, : Y_out.shape[2], : Y_out.shape[3]] * shares


def backprop_sum_pool_images(
    dY: Array, shares: Array, padding: Padding, window: WindowArgument, dX_out: Array, n_threads: int = 1
) -> None:
    """dX_out = the gradient by X: for each number the sum of dY, times its share, over the windows that see it."""
    dX = surrounded(np.zeros_like(dX_out), padding)
    for i, j in np.ndindex(*window[:2]):
        windows = windows_of_images(dX, window)[:, :, : dY.shape[2], : dY.shape[3], i, j]
        windows += dY * shares
    dX_out[:] = inside(dX, padding)


# --- kernels.dense ----------------------------------------------------------------------------------


def dense_affine(X: Array, W: Array, b: Array, Z_out: Array, n_threads: int = 1) -> None:
    """Z_out (n, n_out) = X (n, n_in) @ W.T (n_in, n_out) + b (n_out,) for W (n_out, n_in)."""
    Z_out[:] = X @ W.T + b


def backprop_dense_input(dZ: Array, W: Array, dX_out: Array, work: Array) -> None:
    """dX_out (n, n_in) = dZ (n, n_out) @ W (n_out, n_in)."""
    # OpenBLAS sets the flag of an invalid operation for some shapes of finite numbers; dot does not look at it.
    dX_out[:] = np.dot(dZ, W)


def backprop_dense_weight(
    X: Array, dZ: Array, dW_out: Array, alpha: float = 1.0, beta: float = 0.0, n_threads: int = 1
) -> None:
    """dW_out (n_out, n_in) = alpha * dZ.T (n_out, n) @ X (n, n_in) + beta * dW_out."""
    dW_out[:] = alpha * (dZ.T @ X) + (beta * dW_out if beta != 0 else 0)


# --- kernels.sparse ---------------------------------------------------------------------------------


def to_dense(X: CSRRows) -> Array:
    """Sparse rows as an array (n, n_in)."""
    dense = np.zeros(X.shape, X.dtype)
    dense[np.repeat(np.arange(X.shape[0]), np.diff(X.indptr)), X.indices] = X.data
    return dense


def sparse_affine(X: CSRRows, W: Array, b: Array, Z_out: Array) -> None:
    """Z_out (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b (n_out,) for sparse X (CSRRows)."""
    affine(to_dense(X), W, b, Z_out)


def backprop_sparse_weight(X: CSRRows, dZ: Array, dW_out: Array, alpha: float = 1.0, beta: float = 0.0) -> None:
    """dW_out (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW_out for sparse X (CSRRows)."""
    backprop_affine_weight(to_dense(X), dZ, dW_out, alpha, beta)


def sort_blocks(X: CSRRows, bounds: Array, entries_out: Array, starts_out: Array, n_threads: int = 1) -> None:
    """Sort the non-zeros of each block of rows of X (CSRRows) by pairs of columns.

    Each block's entries begin at the place of its first non-zero.  An entry is a row in which one column of a
    pair is not zero, or both, the even one first; columns out of order, and one that a row has twice, may have several.

    bounds : (n_blocks + 1,) first row of each block, and the number of rows
    entries_out : (nnz,), each two values and, as int32, the row, counted within its block
    starts_out : (n_blocks, (n_in + 1) // 2 + 2), where each pair of a block begins, counted within the block
    """
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    odd = X.indices % 2
    joins = (odd == 1) & (np.diff(X.indices, prepend=-1) == 1) & (np.diff(rows, prepend=-1) == 0)
    for block, (first, end) in enumerate(itertools.pairwise(bounds)):
        here = slice(X.indptr[first], X.indptr[end])
        begins = ~joins[here]
        entries = np.zeros(np.count_nonzero(begins), entries_out.dtype)
        entries["values"][np.cumsum(begins) - 1, odd[here]] = X.data[here]
        entries["row"] = rows[here][begins] - first
        pairs = X.indices[here][begins] // 2
        entries_out[here.start : here.start + len(entries)] = entries[np.argsort(pairs, kind="stable")]
        starts_out[block, 0] = 0
        starts_out[block, 1:-1] = np.cumsum(np.bincount(pairs, minlength=starts_out.shape[1] - 2))
        starts_out[block, -1] = starts_out[block, -2]


def backprop_sparse_weight_by_block(
    X: CSRRows, blocks: SortedBlocks, dZ: Array, dW_out: Array, alpha: float = 1.0, beta: float = 0.0
) -> None:
    """Same as backprop_sparse_weight, for X sorted as SortedBlocks of one block."""
    backprop_sparse_weight(X, dZ, dW_out, alpha, beta)


def backprop_sparse_weight_by_column(
    X: CSRRows, dZ: Array, dW_out: Array, work: Array, alpha: float = 1.0, beta: float = 0.0
) -> None:
    """Same as backprop_sparse_weight, by column; work has 2 * nnz + n_in + 2 numbers of space."""
    backprop_sparse_weight(X, dZ, dW_out, alpha, beta)


def count_nonzeros(X: Array, indptr_out: Array, n_threads: int = 1) -> None:
    """indptr_out (n + 1,) = where each row of the CSR of X (n, n_in) starts; its last entry is the count."""
    indptr_out[0] = 0
    np.cumsum(np.count_nonzero(X, axis=1), out=indptr_out[1:])


def fill_nonzeros(X: Array, indptr: Array, data_out: Array, indices_out: Array, n_threads: int = 1) -> None:
    """data_out, indices_out (nnz,) = the non-zeros of X (n, n_in) in data_out's dtype, uint8 scaled; their columns."""
    data_out[:] = X[X != 0]
    if X.dtype == np.uint8:
        data_out *= UINT8_SCALE
    indices_out[:] = np.nonzero(X)[1]


# --- kernels.columns --------------------------------------------------------------------------------


def count_active(encoder: Encoder, X: Array, counts_out: Array, n_threads: int = 1) -> None:
    """counts_out (n,) = number of features that are stored of each row of X (n, n_columns)."""
    counts_out[:] = [sum(len(features) for features in _encoded(encoder.facts, x)) for x in X]


def encode(
    encoder: Encoder,
    X: Array,
    indptr: Array,
    data_out: Array,
    indices_out: Array,
    codes_out: Array,
    n_threads: int = 1,
) -> None:
    """data_out, indices_out (nnz,) = the features of X (n, n_columns) as a CSR with this indptr (n + 1,).

    NaN is a missing value.  A number other than a category's code is a category that was not seen, without a feature.

    codes_out : (n, n_codes), of categories with an embedding the row of it, the last for NaN; -1 if it has none
    """
    sizes = (fact.is_number + fact.marks_missing + fact.n + len(fact.knots) for fact in encoder.facts if not fact.width)
    firsts = np.cumsum([0, *sizes])
    embedded = [k for k, fact in enumerate(encoder.facts) if fact.width]
    for i, x in enumerate(X):
        plain = (encoder.facts[k]._replace(width=0) for k in embedded)
        for k, found in enumerate(_encoded(tuple(plain), x[embedded])):
            codes_out[i, k] = found[0][0] if found else -1
    for i, x in enumerate(X):
        features = [
            (first + place, value)
            for first, found in zip(firsts, _encoded(encoder.facts, x), strict=False)
            for place, value in found
        ]
        for p, (place, value) in enumerate(features, indptr[i]):
            indices_out[p], data_out[p] = place, value


def _encoded(facts: Sequence[ColumnFacts], x: Array) -> Iterator[list[tuple[int, float]]]:
    # For each column, its features that are stored: their places, from the column's first, and values.
    for fact, value in zip(facts, x.astype(np.float64), strict=True):
        if fact.width:
            continue
        if np.isnan(value):
            yield [(1 if fact.is_number else fact.n, 1.0)] if fact.marks_missing else []
        elif not fact.is_number:
            yield [(int(value), 1.0)] if value in range(fact.n) else []
        else:
            s = np.clip((value - fact.center) * fact.scale, -LARGEST_NUMBER, LARGEST_NUMBER)
            hats = [np.interp(value, fact.knots, unit) for unit in np.eye(len(fact.knots))]
            inside = len(hats) and fact.knots[0] < value < fact.knots[-1]
            kept = (
                range(i := np.searchsorted(fact.knots, value, "right") - 1, i + 2) if inside else np.flatnonzero(hats)
            )
            begin = 1 + fact.marks_missing
            yield [(0, s / np.sqrt(1 + (s / NUMBER_LIMIT) ** 2)), *((begin + int(k), hats[k]) for k in kept)]


# --- kernels.embeddings -----------------------------------------------------------------------------


def tables_of(tables: Array, shapes: Array | Sequence[tuple[int, int]]) -> list[Array]:
    """Views of these shapes of a vector of tables, one after the other."""
    found, begin = [], 0
    for n_rows, width in shapes:
        found.append(tables[begin : begin + n_rows * width].reshape(n_rows, width))
        begin += n_rows * width
    return found


def gather(codes: Array, tables: Array, shapes: Array, G_out: Array) -> None:
    """G_out (n, sum of the widths) = for each row of codes (n, n_tables) those rows of the tables; 0 for -1.

    tables : vector of them, one after the other
    shapes : (n_tables, 2) rows and width of each, of 64 at most
    """
    found = tables_of(tables, shapes)
    parts = [np.where(code[:, None] < 0, 0, table[code]) for code, table in zip(codes.T, found, strict=True)]
    G_out[:] = np.hstack(parts)


def scatter(codes: Array, dG: Array, shapes: Array, tables_out: Array, alpha: float = 1.0) -> None:
    """Add alpha * dG (n, sum of the widths) to the rows of the tables that codes (n, n_tables) name, as for gather."""
    parts = np.hsplit(dG, np.cumsum(shapes, axis=0)[:-1, 1])
    for code, part, table in zip(codes.T, parts, tables_of(tables_out, shapes), strict=True):
        np.add.at(table, code[code >= 0], alpha * part[code >= 0])


# --- kernels.updates --------------------------------------------------------------------------------

UPDATES = {"none": 0, "sgd": 1, "momentum": 2, "nesterov": 3, "rmsprop": 4, "adagrad": 5, "adam": 6}


def inplace_update(
    update: int,
    numbers: Array,
    parameters: Array,
    gradient: Array,
    state: Array,
    scale: float = 1.0,
    is_weight: bool = True,
) -> None:
    """One step: parameters (n,) move along gradient (n,); state (n_slots, n) is the optimizer's own.

    The gradient is scaled, and where the parameters are weights the penalties are taken off, and they decay; "none"
    puts that into gradient, and leaves the parameters alone; the others may use gradient up.

    numbers : a row of `Steps.table`: l2, l1, decay, and then for "sgd" the learning rate; "momentum" and "nesterov":
        learning rate, momentum; "rmsprop": learning rate, rho, epsilon; "adagrad": learning rate, epsilon; "adam":
        learning rate / (1 - beta_1**t), beta_1, beta_2, 1 / sqrt(1 - beta_2**t), epsilon
    """
    name = list(UPDATES)[update]
    l2, l1, decay, *rest = numbers
    gradient *= scale
    if is_weight:
        gradient -= l2 * parameters + l1 * np.sign(parameters)
    if name == "none":
        return
    if is_weight:
        parameters *= 1 - decay
    rate, *others = rest
    if name == "sgd":
        parameters += rate * gradient
    elif name in ("momentum", "nesterov"):
        (momentum,) = others
        state[0] = momentum * state[0] + rate * gradient
        if name == "momentum":
            parameters += state[0]
        else:
            parameters += momentum * state[0] + rate * gradient
    elif name == "rmsprop":
        rho, epsilon = others
        state[0] = rho * state[0] + (1 - rho) * gradient**2
        parameters += rate * gradient / (np.sqrt(state[0]) + epsilon)
    elif name == "adagrad":
        (epsilon,) = others
        state[0] += gradient**2
        parameters += rate * gradient / (np.sqrt(state[0]) + epsilon)
    elif name == "adam":
        beta_1, beta_2, correction, epsilon = others
        state[0] = beta_1 * state[0] + (1 - beta_1) * gradient
        state[1] = beta_2 * state[1] + (1 - beta_2) * gradient**2
        parameters += rate * state[0] / (correction * np.sqrt(state[1]) + epsilon)


def inplace_max_norm(W: Array, limit: float, by_rows: bool = False) -> None:
    """Shorten each column of W (n_in, n_out), or each row, that is longer than limit to that norm."""
    if W.size:
        norm = np.linalg.norm(W, axis=1 if by_rows else 0, keepdims=True)
        W *= np.where(norm > limit, limit / np.maximum(norm, limit), 1)


# --- kernels.touched --------------------------------------------------------------------------------


def bring_up_to_date(steps: Steps, W: Array, state: Array, touched: Array, n_steps: int) -> None:
    """Bring all rows of W (n_in, n_out) to n_steps, the steps of the epoch so far, which are all alike.

    steps : Steps;  state (n_slots, n_in * n_out or more) is the optimizer's;  touched (1 + 2 n_in,) as `epoch.train`
    left it
    """
    n_in, n_out = W.shape
    velocities = state[:, : W.size].reshape(-1, n_in, n_out)
    for row in range(n_in):
        while 0 <= touched[1 + row] < n_steps:
            inplace_update(steps.update, steps.table[0], W[row], np.zeros_like(W[row]), velocities[:, row])
            touched[1 + row] += 1


# --- kernels.layer ----------------------------------------------------------------------------------


def weights_in(layer: LayerPlan, vector: Array) -> list[Array]:
    """Views (n_in, n_units) of a layer's weight in a vector in its form, for units that follow each other."""
    n_in, n_out = layer.facts.weight_shape
    W = vector[layer.weight : layer.weight + layer.weight_size]
    if layer.form == "transposed":
        return [W.reshape(n_out, n_in).T]
    if layer.form == "panels":
        return panels(W, n_in, [*(own.begin for own in layer.slices), n_out])
    if layer.form == "sparse slices":
        found = []
        for own in layer.slices:
            rows = vector[own.weight : own.weight + n_in * own.stride].reshape(n_in, own.stride)
            found.append(rows[:, : own.end - own.begin])
        return found
    return [W.reshape(n_in, n_out)]


def rearrange(plan: CompiledPlan, stored: CompiledPlan, back: bool, vector: Array, vector_out: Array) -> None:
    """vector_out = vector, a vector of parameters as they are stored, in the forms of a plan.

    plan, stored : CompiledPlan of the same layers, the second with all of them as stored
    back : vector is in the forms, vector_out as stored
    """
    plain, moved = (vector_out, vector) if back else (vector, vector_out)
    for layer, ours in zip(plan.source.layers, stored.source.layers, strict=True):
        parts, (W,) = weights_in(layer, moved), weights_in(ours, plain)
        for part, columns in zip(parts, np.hsplit(W, np.cumsum([p.shape[1] for p in parts])[:-1]), strict=True):
            if back:
                columns[:] = part
            else:
                part[:] = columns
        units, size = layer.facts.weight_shape[1], layer.facts.embeddings_size
        spans = [(layer.bias, ours.bias, units), (layer.weight - size, ours.weight - size, size)]
        if layer.facts.batch_norm:
            spans.append((layer.norm, ours.norm, 3 * units))
        for there, here, n in spans:
            if back:
                plain[here : here + n] = moved[there : there + n]
            else:
                moved[there : there + n] = plain[here : here + n]


# --- kernels.epoch ----------------------------------------------------------------------------------


class Layer(NamedTuple):
    """A layer's parameters, or a gradient by them: W (n_in, n_out), b, scale, running mean and variance (n_out,).

    W and b of a convolution are (window * channels, filters) and (filters,), those of pooling are empty.

    embeddings : vector of all embeddings
    """

    W: Array
    b: Array
    norm: tuple[Array, ...]
    embeddings: Array


def unpack(layers: Sequence[LayerFacts], parameters: Array) -> list[Layer]:
    """Views of the vector that holds all parameters."""
    slots, found = Slots(tuple(facts.slots for facts in layers)), []
    for facts, arrays in zip(layers, slots.by_layer(parameters), strict=True):
        values = list(arrays.values())[len(facts.embeddings) :]
        W, b, *norm = values or (parameters[:0].reshape(facts.weight_shape), parameters[:0])
        found.append(Layer(W, b, tuple(norm), parameters[: facts.embeddings_size]))  # they come first
    return found


def rows_of(X: Rows, order: Array, facts: LayerFacts, embeddings: Array) -> Array:
    """Rows of X in the given order, dense, in the network's dtype; uint8 scaled by UINT8_SCALE.

    facts, embeddings : of the first layer, whose last inputs are gathered from the embeddings
    """
    rows = (to_dense(X) if isinstance(X, CSRRows) else X)[order]
    rows = (rows * UINT8_SCALE if rows.dtype == np.uint8 else rows).astype(embeddings.dtype)
    if not isinstance(X, CSRRows) or X.codes is None:
        return rows
    G = np.empty((len(rows), facts.n_embedded), rows.dtype)
    gather(X.codes[order], embeddings, np.array(facts.embeddings), G)
    return np.hstack([rows, G])


def padded(X: Array, window: Window) -> Array:
    """Copy of X (n, height, width, channels) with the zeros around it that a window wants."""
    above, left, below, right = window.padding
    return np.pad(X, ((0, 0), (above, below), (left, right), (0, 0)))


def seen(X: Array, window: Window) -> list[Array]:
    """Views (n, high, wide, channels) of padded X: one for each place in the window, row by row.

    View (n, y, x) of a place is what it sees from position (y, x) of the output, of high x wide.
    """
    (height, width), (down, across) = window.size, window.stride
    below, right = X.shape[1] - height, X.shape[2] - width
    return [X[:, y : y + below + 1 : down, x : x + right + 1 : across] for y, x in np.ndindex(height, width)]


def product(X: Array, facts: LayerFacts, W: Array) -> Array:
    """Product (n * positions, units) of rows X (n, n_in) and a layer's weight; just X, if it only pools."""
    if facts.maps is None:
        return X @ W
    image, middle, _, window, *_ = facts.maps
    if window is None:
        return X.reshape(-1, middle[2]).copy()
    Z = np.zeros((len(X), *middle), X.dtype)
    views = seen(padded(X.reshape(-1, *image), window), window)
    for view, weight in zip(views, W.reshape(-1, image[2], middle[2]), strict=True):
        Z += view @ weight
    return Z.reshape(-1, middle[2])


def backprop_product_weight(X: Array, dZ: Array, facts: LayerFacts, dW_out: Array) -> None:
    """dW_out = gradient by the weight, given dZ (n * positions, units)."""
    if facts.maps is None:
        backprop_affine_weight(X, dZ, dW_out)
        return
    image, middle, _, window, *_ = facts.maps
    if window is not None:
        views = seen(padded(X.reshape(-1, *image), window), window)
        for view, dW in zip(views, dW_out.reshape(-1, image[2], middle[2]), strict=True):
            backprop_affine_weight(view.reshape(-1, image[2]), dZ, dW)


def backprop_product_input(dZ: Array, facts: LayerFacts, W: Array) -> Array:
    """Return the gradient by the rows (n, n_in), given dZ (n * positions, units)."""
    if facts.maps is None:
        return dZ @ W.T
    image, middle, _, window, *_ = facts.maps
    dZ = dZ.reshape(-1, *middle)
    if window is None:
        return dZ.reshape(len(dZ), math.prod(image))
    dX = padded(np.zeros((len(dZ), *image), dZ.dtype), window)
    for view, weight in zip(seen(dX, window), W.reshape(-1, image[2], middle[2]), strict=True):
        view += dZ @ weight.T
    above, left, *_ = window.padding
    return dX[:, above : above + image[0], left : left + image[1]].reshape(len(dZ), -1)


def pool(Z: Array, maps: Maps) -> tuple[Array, Array]:
    """Return rows (n, n_out) of what a layer pools from Z (n * positions, channels), and which places had the largest.

    A window's places are counted row by row; of equal numbers the first is taken.
    """
    if maps.pooling is None:
        return Z.reshape(-1, math.prod(maps.output)), np.empty(0, int)
    views = np.array(seen(Z.reshape(-1, *maps.middle), maps.pooling))
    places = views.argmax(axis=0)
    pooled = views.max(axis=0) if maps.pools == "max" else views.mean(axis=0)
    return pooled.reshape(len(pooled), math.prod(maps.output)), places


def backprop_pool(dY: Array, places: Array, maps: Maps) -> Array:
    """Return the gradient (n * positions, channels) by what was pooled, given that by the rows dY (n, n_out)."""
    if maps.pooling is None:
        return dY.reshape(-1, maps.middle[2])
    dY = dY.reshape(-1, *maps.output)
    dZ = np.zeros((len(dY), *maps.middle), dY.dtype)
    for i, view in enumerate(seen(dZ, maps.pooling)):
        view += np.where(places == i, dY, 0) if maps.pools == "max" else dY / math.prod(maps.pooling.size)
    return dZ.reshape(-1, maps.middle[2])


class Pass(NamedTuple):
    """What a forward pass leaves for the backward one, of each layer.

    outputs : the rows, the output of each hidden layer, and that of the last before softmax or sigmoid
    slopes : of each hidden layer's activation
    normalised : X_hat (n * positions, units), mean and variance (units,); empty without batch normalisation
    places : of the largest numbers in the windows of pooling, see `pool`; empty without
    """

    outputs: list[Array]
    slopes: list[Array]
    normalised: list[tuple[Array, ...]]
    places: list[Array]


def forward_pass(X: Array, shapes: Sequence[LayerFacts], layers: list[Layer], key: int = 0, first: int = -1) -> Pass:
    """Take the rows X (n, n_in) through all layers.

    first : position of the rows in the epoch, for dropout; -1: nothing is dropped
    """
    found = Pass([X], [], [], [])
    for k, (shape, (W, b, norm, _)) in enumerate(zip(shapes, layers, strict=True)):
        Z = product(found.outputs[-1], shape, W)
        normalised = (np.empty_like(Z), np.empty_like(b), np.empty_like(b)) if norm else ()
        if norm:
            inplace_normalisation(Z, norm[0], b, *normalised)
        elif b.size:
            Z += b
        places = np.empty(0, int)
        if shape.maps is not None:
            Z, places = pool(Z, shape.maps)
        if shape.activation is not None:
            slopes = np.empty_like(Z)
            inplace_activation_and_slopes(ACTIVATIONS[shape.activation], Z, slopes)
            if shape.dropout > 0 and first >= 0:
                inplace_dropout(Z, slopes, shape.dropout, key, k, first)
            found.slopes.append(slopes)
        found.normalised.append(normalised)
        found.places.append(places)
        found.outputs.append(Z)
    return found


def backward_pass(
    passed: Pass, dZ: Array, shapes: Sequence[LayerFacts], layers: list[Layer], dlayers: list[Layer]
) -> Array:
    """Put into dlayers the gradient by all parameters but embeddings, given that by the last layer's output.

    Return the gradient by the rows, if there are embeddings.
    """
    for k in reversed(range(len(layers))):
        W, b, norm, embeddings = layers[k]
        dW, db, dnorm, _ = dlayers[k]
        maps = shapes[k].maps
        if maps is not None:
            dZ = backprop_pool(dZ, passed.places[k], maps)
        if norm:
            X_hat, _, variance = passed.normalised[k]
            inplace_backprop_normalisation(X_hat, variance, norm[0], dZ, dnorm[0], db)
        elif b.size:
            backprop_affine_bias(dZ, db)
        backprop_product_weight(passed.outputs[k], dZ, shapes[k], dW)
        if k > 0 or embeddings.size:
            dZ = backprop_product_input(dZ, shapes[k], W)
        if k > 0:
            dZ *= passed.slopes[k - 1]
    return dZ


def take_step(
    steps: Steps, numbers: Array, layers: list[Layer], dlayers: list[Layer], state: list[list[Layer]]
) -> None:
    """Move weights, biases, scales and embeddings; state has each slot's layers."""
    length = np.sqrt(sum(np.square(part, dtype=float).sum() for dlayer in dlayers for part in flat(dlayer)))
    shortened = min(1, steps.clip_norm / (length + 1e-6)) if steps.clip_norm > 0 else 1.0
    for k, (layer, dlayer) in enumerate(zip(layers, dlayers, strict=True)):
        slots = [flat(slot[k]) for slot in state]
        for i, (values, gradient) in enumerate(zip(flat(layer), flat(dlayer), strict=True)):
            here = np.array([slot[i] for slot in slots]).reshape(len(slots), values.size)
            inplace_update(steps.update, numbers, values, gradient, here, shortened, i < 2)
            for slot, moved in zip(slots, here, strict=True):
                slot[i][:] = moved
    for W, *_ in layers[:-1] if steps.max_norm > 0 else ():
        inplace_max_norm(W, steps.max_norm)


def flat(layer: Layer) -> list[Array]:
    """Vectors of what steps move: weight, embeddings, bias and, if there is one, scale."""
    return [layer.W.reshape(-1), layer.embeddings, layer.b, *layer.norm[:1]]


def train(
    batches: Batches,
    plan: CompiledPlan,
    steps: Steps,
    space: Space,
    work: Array,
    seconds: float,
    n_threads: int,
    exchanges: None = None,
) -> None:
    """Train on batch after batch of one epoch, until it ends, diverges or the time is up; call again to go on.

    Each step ascends the batch's weighted mean log-likelihood minus the penalties.  See the compiled
    ``fastnn.kernels.epoch.train`` for the arguments; how the plan does it does not matter here, and there are no ranks.
    """
    shapes, batch_size = [layer.facts for layer in plan.source.layers], plan.source.batch_size
    stored = CompiledPlan(forward_plan(tuple(shapes), plan.source.dtype, 1, False))
    vectors = [space.parameters, *space.state, space.gradients[0, : len(space.parameters)]]
    plain = np.empty((len(vectors), stored.source.n_parameters), space.parameters.dtype)
    for vector, other in zip(vectors, plain, strict=True):
        rearrange(plan, stored, True, vector, other)
    layers, *state, dlayers = (unpack(shapes, vector) for vector in plain)
    deadline = time.monotonic() + seconds
    targets, n = batches.targets, len(batches.targets.y)
    each = np.arange(n) if batches.order is None else batches.order
    codes = batches.X.codes if isinstance(batches.X, CSRRows) else None
    while space.position[0] < n and np.isfinite(space.log_likelihood[0]):
        first = int(space.position[0])
        here = slice(first, first + batch_size)
        rows = rows_of(batches.X, each[here], shapes[0], layers[0].embeddings)
        if batches.motion is not None:
            images = rows.reshape(-1, *batches.motion[:3])
            rows = moved(images, batches.motion, batches.key, first).reshape(rows.shape)
        passed = forward_pass(rows, shapes, layers, batches.key, first)
        weights = None if targets.weights is None else targets.weights[here]
        weight = float(len(rows) if weights is None else weights.sum())
        dZ = passed.outputs[-1]
        sum_ = inplace_loss(targets._replace(y=targets.y[here], weights=weights), dZ, weight)
        space.log_likelihood[0] += sum_
        if np.isfinite(sum_):
            dX = backward_pass(passed, dZ, shapes, layers, dlayers)
            dlayers[0].embeddings[:] = 0
            if codes is not None:
                dG = dX[:, -shapes[0].n_embedded :]
                scatter(codes[each[here]], dG, np.array(shapes[0].embeddings), dlayers[0].embeddings)
            numbers = steps.table[first // batch_size]
            for k, layer in enumerate(layers):
                for W in (layer.W, layer.embeddings):
                    space.penalties[k, 0] += weight * (numbers[0] / 2 * (W**2).sum() + numbers[1] * np.abs(W).sum())
            take_step(steps, numbers, layers, dlayers, state)
            if steps.update != UPDATES["none"]:
                for (_, _, norm, _), normalised in zip(layers, passed.normalised, strict=True):
                    if norm:
                        X_hat, mean, variance = normalised
                        inplace_running_statistics(mean, variance, norm[1], norm[2], len(X_hat))
            space.position[0] += len(rows)
        if time.monotonic() >= deadline:
            break
    for vector, other in zip(vectors, plain, strict=True):
        rearrange(plan, stored, False, other, vector)


def forward(
    X: Rows, first: int, plan: CompiledPlan, parameters: Array, work: Array, logits_out: Array, n_threads: int
) -> None:
    """logits_out (n, n_out) = output layer, before softmax or sigmoid, of the n rows of X that begin at first."""
    shapes = [layer.facts for layer in plan.source.layers]
    layers = unpack(shapes, parameters)
    rows = rows_of(X, np.arange(first, first + len(logits_out)), shapes[0], layers[0].embeddings)
    logits_out[:] = forward_pass(rows, shapes, layers).outputs[-1]


# --- kernels.lbfgs ----------------------------------------------------------------------------------


def slope(gradient: Array, memory: Memory, n_threads: int) -> float:
    """Return the product of the gradient and the direction."""
    return float(gradient.astype(np.float64) @ memory.d.astype(np.float64))


def move(parameters_out: Array, memory: Memory, step: float, n_threads: int) -> None:
    """parameters_out = x + step d."""
    parameters_out[:] = memory.x + step * memory.d


def remember(parameters: Array, gradient: Array, memory: Memory, slot: int, n_threads: int) -> None:
    """Take the parameters as x and the gradient as g, with a new pair: s = change of x, y = minus that of g."""
    memory.pairs[:, slot] = parameters - memory.x, memory.g - gradient
    memory.x[:], memory.g[:] = parameters, gradient
    pairs = memory.pairs.astype(np.float64)
    memory.products[:, :, slot], memory.products[:, :, -1] = pairs @ pairs[1, slot], pairs @ gradient
    memory.products[1, slot, :-1] = memory.products[1, :, slot]


def point(memory: Memory, g: Array, newest: int, n_pairs: int, n_threads: int) -> float:
    """Set d = H g, where H approximates the inverse of f's Hessian matrix by the newest n_pairs pairs; return g d.

    Algorithm 7.4 of J. Nocedal, S. J. Wright, "Numerical optimization" (2006), with H0 by their (7.20).
    """
    found, (s, y) = g.astype(np.float64), memory.pairs.astype(np.float64)
    order, factors = [(newest - k) % len(s) for k in range(n_pairs)], {}
    for i in order:
        factors[i] = s[i] @ found / (s[i] @ y[i])
        found -= factors[i] * y[i]
    if order:
        found *= s[newest] @ y[newest] / (y[newest] @ y[newest])
    for i in reversed(order):
        found += (factors[i] - y[i] @ found / (s[i] @ y[i])) * s[i]
    memory.d[:] = found
    return slope(g, memory, n_threads)
