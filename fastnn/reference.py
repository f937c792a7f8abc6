"""The readable NumPy twin of every kernel: same names, same signatures, same results to rounding.

This is the text to read first.  Nothing here is fast and nothing checks its input; the tests hold each
function against the compiled one of the same name in ``fastnn.kernels``.

Symbols: X (n, n_in) rows of data; W (n_in, n_out), b (n_out,) a layer's parameters; Z = X W + b;
Y = activation(Z); P = softmax(Z) at the output; y (n,) classes; dV the gradient by V of what is ascended.
"""

from __future__ import annotations

import itertools
import time
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn.kernels.rows import CSRRows
from fastnn.kernels.units import slice_bounds, transposes_output

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


def touch_buffers(A: Array, B: Array, C_out: Array, n_threads: int) -> None:
    """C_out[t] (m, n) = A (m, k) @ B (k, n) for each t, side by side, for what it does to BLAS."""
    C_out[:] = A @ B


# --- kernels.rows -----------------------------------------------------------------------------------

UINT8_SCALE = 1 / 256


def gather(X: Array, order: Array, X_out: Array) -> None:
    """X_out (n, n_in) = the rows order (n,) of the dense X, in X_out's dtype; uint8 scaled by UINT8_SCALE."""
    X_out[:] = X[order] * UINT8_SCALE if X.dtype == np.uint8 else X[order]


# --- kernels.activations ----------------------------------------------------------------------------

ACTIVATIONS = {"identity": 0, "tanh": 1, "sigmoid": 2, "relu": 3}


def inplace_activation(activation: int, Z: Array) -> None:
    """Z (n, width) becomes Y = activation(Z)."""
    if activation == ACTIVATIONS["tanh"]:
        Z[:] = np.tanh(Z)
    elif activation == ACTIVATIONS["sigmoid"]:
        e = np.exp(-np.abs(Z))
        Z[:] = np.where(Z < 0, e, 1) / (1 + e)
    elif activation == ACTIVATIONS["relu"]:
        Z[:] = np.where(Z < 0, 0, Z)


def inplace_backprop_activation(activation: int, Y: Array, dY: Array) -> None:
    """DY (n, width), a gradient by the output Y, becomes the gradient by the pre-activation."""
    if activation == ACTIVATIONS["tanh"]:
        dY *= 1 - Y * Y
    elif activation == ACTIVATIONS["sigmoid"]:
        dY *= Y * (1 - Y)
    elif activation == ACTIVATIONS["relu"]:
        dY[~(Y > 0)] = 0


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


def inplace_cross_entropy(Z: Array, y: Array, scale: float) -> float:
    """Return the sum of log P[i, y_i] in nats; Z, logits, becomes its gradient times scale.

    One pass over Z (n, n_classes): P = softmax(Z), then Z = scale * (onehot(y) - P).
    """
    each = np.arange(len(y))
    inplace_log_softmax(Z)
    log_likelihood = float(Z[each, y].sum(dtype=np.float64))
    Z[:] = -scale * np.exp(Z)
    Z[each, y] += scale
    return log_likelihood


# --- kernels.affine ---------------------------------------------------------------------------------


def affine(X: Array, W: Array, b: Array, Z_out: Array) -> None:
    """Z_out (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b (n_out,)."""
    Z_out[:] = X @ W + b


def backprop_affine_input(dZ: Array, W: Array, dX_out: Array) -> None:
    """dX_out (n, n_in) = dZ (n, n_out) @ W.T (n_out, n_in)."""
    dX_out[:] = dZ @ W.T


def backprop_affine_weight(X: Array, dZ: Array, dW_out: Array, alpha: float = 1.0, beta: float = 0.0) -> None:
    """dW_out (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW_out."""
    dW_out[:] = alpha * (X.T @ dZ) + (beta * dW_out if beta != 0 else 0)


def backprop_affine_bias(dZ: Array, db_out: Array, alpha: float = 1.0, beta: float = 0.0) -> None:
    """db_out (n_out,) = alpha * sum of the rows of dZ (n, n_out) + beta * db_out."""
    db_out[:] = alpha * dZ.sum(axis=0) + (beta * db_out if beta != 0 else 0)


# --- kernels.dense ----------------------------------------------------------------------------------


def dense_affine(X: Array, W: Array, b: Array, Z_out: Array) -> None:
    """Z_out (n, n_out) = X (n, n_in) @ W.T (n_in, n_out) + b (n_out,) for W (n_out, n_in)."""
    Z_out[:] = X @ W.T + b


def backprop_dense_input(dZ: Array, W: Array, dX_out: Array, work: Array) -> None:
    """dX_out (n, n_in) = dZ (n, n_out) @ W (n_out, n_in)."""
    # OpenBLAS sets the flag of an invalid operation for some shapes of finite numbers; dot does not look at it.
    dX_out[:] = np.dot(dZ, W)


def backprop_dense_weight(X: Array, dZ: Array, dW_out: Array, alpha: float = 1.0, beta: float = 0.0) -> None:
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


def sort_blocks(
    X: CSRRows, bounds: Array, data_out: Array, rows_out: Array, starts_out: Array, n_threads: int = 1
) -> None:
    """Sort the non-zeros of each block of rows of X (CSRRows) by column: data_out, rows_out (nnz,).

    bounds : (n_blocks + 1,) first row of each block, and the number of rows
    starts_out : (n_blocks, n_in + 2), where each column of a block begins, counted within the block; rows are too
    """
    row_of = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    for block, (first, end) in enumerate(itertools.pairwise(bounds)):
        here = slice(X.indptr[first], X.indptr[end])
        by_column = np.argsort(X.indices[here], kind="stable")
        data_out[here] = X.data[here][by_column]
        rows_out[here] = row_of[here][by_column] - first
        starts_out[block, 0] = 0
        starts_out[block, 1:-1] = np.cumsum(np.bincount(X.indices[here], minlength=X.n_columns))
        starts_out[block, -1] = starts_out[block, -2]


def backprop_sparse_weight_by_column(
    X: CSRRows, dZ: Array, dW_out: Array, work: Array, alpha: float = 1.0, beta: float = 0.0
) -> None:
    """Same as backprop_sparse_weight, by column; work has 2 * nnz + n_in + 2 numbers of space."""
    backprop_sparse_weight(X, dZ, dW_out, alpha, beta)


def count_nonzeros(X: Array, indptr_out: Array) -> None:
    """indptr_out (n + 1,) = where each row of the CSR of X (n, n_in) starts; its last entry is the count."""
    indptr_out[0] = 0
    np.cumsum(np.count_nonzero(X, axis=1), out=indptr_out[1:])


def fill_nonzeros(X: Array, data_out: Array, indices_out: Array) -> None:
    """data_out (nnz,), indices_out (nnz,) = the non-zeros of X (n, n_in), row by row, and their columns."""
    data_out[:] = X[X != 0]
    indices_out[:] = np.nonzero(X)[1]


# --- kernels.updates --------------------------------------------------------------------------------

UPDATES = {"none": 0, "sgd": 1, "momentum": 2, "nesterov": 3}


def inplace_update(update: int, hyperparameters: Array, parameters: Array, gradient: Array, state: Array) -> None:
    """One step: parameters (n,) move along gradient (n,); state (n_slots, n) is the optimizer's own.

    hyperparameters: "sgd" (learning_rate,); "momentum" and "nesterov" (learning_rate, momentum).
    """
    if update == UPDATES["sgd"]:
        parameters += hyperparameters[0] * gradient
    elif update in (UPDATES["momentum"], UPDATES["nesterov"]):
        learning_rate, momentum = hyperparameters
        state[0] = momentum * state[0] + learning_rate * gradient
        if update == UPDATES["momentum"]:
            parameters += state[0]
        else:
            parameters += momentum * state[0] + learning_rate * gradient


# --- kernels.touched --------------------------------------------------------------------------------


def bring_up_to_date(
    update: int, hyperparameters: Array, l2: float, W: Array, state: Array, touched: Array, n_steps: int
) -> None:
    """Bring all rows of W (n_in, n_out) to n_steps, the steps of the epoch so far.

    state (n_slots, n_in * n_out or more) is the optimizer's; touched (1 + 2 n_in,) as `epoch.train` left it.
    """
    n_in, n_out = W.shape
    velocities = state[:, : W.size].reshape(-1, n_in, n_out)
    for row in range(n_in):
        while 0 <= touched[1 + row] < n_steps:
            inplace_update(update, hyperparameters, W[row], -l2 * W[row], velocities[:, row])
            touched[1 + row] += 1


# --- kernels.units ----------------------------------------------------------------------------------


def rearrange(sizes: Array, sparse: bool, back: bool, vector: Array, vector_out: Array, n_threads: int = 1) -> None:
    """vector_out = vector (n_parameters,) with the first weight by slices of units, for sparse or dense rows.

    The output layer's weight is transposed where `transposes_output` says so.

    back : vector has the first weight by slices, vector_out as (n_in, n_out)
    """
    n_in, n_out = sizes[:2]
    plain, sliced = (vector_out, vector) if back else (vector, vector_out)
    W, first = plain[: n_in * n_out].reshape(n_in, n_out), 0
    line = 64 // vector.itemsize  # of the cache: rows of a slice begin there
    for begin, end in itertools.pairwise(slice_bounds(n_out)):
        width = -(-(end - begin) // line) * line if sparse else end - begin
        part = sliced[first : first + n_in * width]
        part = part.reshape(n_in, width)[:, : end - begin] if sparse else part.reshape(width, n_in).T
        first += n_in * width
        if back:
            W[:, begin:end] = part
        else:
            part[:] = W[:, begin:end]
    rest, rest_out = (
        (vector[first:], vector_out[n_in * n_out :]) if back else (vector[n_in * n_out :], vector_out[first:])
    )
    rest_out[:] = rest
    if transposes_output(sizes):
        n_last, n_classes = sizes[-2:]
        output = slice(-n_classes * (n_last + 1), -n_classes)
        W = rest[output].reshape((n_classes, n_last) if back else (n_last, n_classes))
        rest_out[output] = W.T.ravel()


# --- kernels.epoch ----------------------------------------------------------------------------------


def unpack(sizes: Array, parameters: Array) -> list[tuple[Array, Array]]:
    """Weights (n_in, n_out) and biases (n_out,) of each layer, views of the vector that holds them all."""
    layers, begin = [], 0
    for n_in, n_out in itertools.pairwise(sizes):
        middle, end = begin + n_in * n_out, begin + (n_in + 1) * n_out
        layers.append((parameters[begin:middle].reshape(n_in, n_out), parameters[middle:end]))
        begin = end
    return layers


def rows_of(X: Rows, order: Array, dtype: Any) -> Array:
    """Rows of X in the given order, dense, in the network's dtype."""
    rows = np.empty((len(order), X.shape[1]), dtype)
    gather(to_dense(X) if isinstance(X, CSRRows) else X, order, rows)
    return rows


def outputs(X: Array, layers: list[tuple[Array, Array]], activations: Array) -> list[Array]:
    """Return the input of each layer, and at last the logits."""
    found = [X]
    for k, (W, b) in enumerate(layers):
        Z = found[-1] @ W + b
        if k < len(activations):
            inplace_activation(activations[k], Z)
        found.append(Z)
    return found


def train(
    X: Rows,
    y: Array,
    order: Array | None,
    batch_size: int,
    sizes: Array,
    activations: Array,
    parameters: Array,
    update: int,
    hyperparameters: Array,
    l2: float,
    state: Array,
    gradients: Array,
    work: Array,
    block_rows: int,
    position: Array,
    log_likelihood: Array,
    seconds: float,
    n_threads: int,
    by_slices: bool = False,
    nonzeros: int = 0,
    touched: Array | None = None,
    blocks: object = None,
) -> None:
    """Train on batch after batch of one epoch, until it ends, diverges or the time is up; call again to go on.

    Each step ascends the batch's mean log-likelihood minus l2 / 2 times the sum of squared weights.  The
    arguments are told beside the compiled ``fastnn.kernels.epoch.train``; lanes, blocks, work space,
    touched columns and threads, which change how fast it is done but not what is done, are left out here.
    """
    if by_slices:
        vectors = [parameters, *state, gradients[0]]
        n_parameters = sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(sizes))
        plain = np.empty((len(vectors), n_parameters), parameters.dtype)
        for vector, other in zip(vectors, plain, strict=True):
            rearrange(sizes, isinstance(X, CSRRows), True, vector, other)
        train(X, y, order, batch_size, sizes, activations, plain[0], update, hyperparameters, l2, plain[1:-1],
              plain[-1:], work, block_rows, position, log_likelihood, seconds, n_threads)  # fmt: skip
        for vector, other in zip(vectors, plain, strict=True):
            rearrange(sizes, isinstance(X, CSRRows), False, other, vector)
        return
    deadline = time.monotonic() + seconds
    layers = unpack(sizes, parameters)
    each = np.arange(len(y)) if order is None else order
    while position[0] < len(y):
        batch = slice(position[0], position[0] + batch_size)
        *inputs, dZ = outputs(rows_of(X, each[batch], parameters.dtype), layers, activations)
        sum_ = inplace_cross_entropy(dZ, y[batch], 1 / len(dZ))
        log_likelihood[0] += sum_
        if not np.isfinite(sum_):
            return
        for k in reversed(range(len(layers))):
            W, _ = layers[k]
            dW, db = unpack(sizes, gradients[0])[k]
            backprop_affine_weight(inputs[k], dZ, dW)
            backprop_affine_bias(dZ, db)
            dW -= l2 * W
            if k > 0:
                dZ = dZ @ W.T
                inplace_backprop_activation(activations[k - 1], inputs[k], dZ)
        inplace_update(update, hyperparameters, parameters, gradients[0], state)
        position[0] += len(y[batch])
        if time.monotonic() >= deadline:
            return


def forward(
    X: Rows,
    first: int,
    sizes: Array,
    activations: Array,
    parameters: Array,
    work: Array,
    block_rows: int,
    Z_out: Array,
    n_threads: int,
) -> None:
    """Z_out (n, n_classes) = logits of the n rows of X that begin at first; work and block_rows as for train."""
    rows = rows_of(X, np.arange(first, first + len(Z_out)), parameters.dtype)
    Z_out[:] = outputs(rows, unpack(sizes, parameters), activations)[-1]
