"""What is compared: for each peer, a function that prepares a cell and returns an epoch of training as a call.

Every peer starts from the same parameters, takes the same batches in the same order, does the same plain step
and may use all cores.  A call returns the epoch's mean log-likelihood, each batch before its own update, so
that a peer which does something else shows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn
from benchmarks.cells import LEARNING_RATE, Cell

Epoch = Callable[[], float]


def start(cell: Cell, dtype: str) -> fastnn.Network:
    """Return the network that every peer starts from."""
    return fastnn.Network(cell.sizes, "tanh", dtype, seed=0)


def fastnn_auto(cell: Cell, X: Any, y: Any, sparse: bool | str = "auto") -> Epoch:
    """Return fastnn as it comes: dense or sparse as it sees fit."""
    trainer = fastnn.Trainer(start(cell, X.dtype.name), fastnn.SGD(LEARNING_RATE), cell.batch_size, shuffle=False,
                             sparse=sparse)  # fmt: skip
    # The trainer checks and converts the data once a fit, not once an epoch, so the rows are converted here.
    rows = trainer._choose_storage(X)
    engine = trainer.network.engine()
    engine.begin(rows, cell.batch_size, "sgd", trainer.optimizer.hyperparameters)
    labels = y.astype(np.intp)

    def epoch() -> float:
        engine.restart()
        while engine.advance(labels, None, 0.05):
            pass
        return float(engine.log_likelihood[0]) / cell.rows

    return epoch


def fastnn_dense(cell: Cell, X: Any, y: Any) -> Epoch:
    """Return fastnn on dense rows."""
    return fastnn_auto(cell, X, y, sparse=False)


def numpy_(cell: Cell, X: Any, y: Any) -> Epoch:
    """Return NumPy: the gradient written by hand, in place where that helps."""
    network = start(cell, X.dtype.name)
    weights, biases = [w.copy() for w in network.weights], [b.copy() for b in network.biases]
    number = X.dtype.type

    def epoch() -> float:
        total = 0.0
        for first in range(0, cell.rows, cell.batch_size):
            Y, labels = [X[first : first + cell.batch_size]], y[first : first + cell.batch_size]
            each = np.arange(len(labels))
            for W, b in zip(weights[:-1], biases[:-1], strict=True):
                Z = Y[-1] @ W
                Z += b
                Y.append(np.tanh(Z, out=Z))
            dZ = Y[-1] @ weights[-1]
            dZ += biases[-1]
            dZ -= dZ.max(axis=1, keepdims=True)
            chosen = dZ[each, labels]
            np.exp(dZ, out=dZ)
            sums = dZ.sum(axis=1, keepdims=True)
            total += float((chosen - np.log(sums[:, 0])).sum())
            dZ /= -sums * number(len(labels))
            dZ[each, labels] += number(1 / len(labels))
            for k in reversed(range(len(weights))):
                dW, db = Y[k].T @ dZ, dZ.sum(axis=0)
                if k:
                    dZ = dZ @ weights[k].T
                    dZ *= 1 - Y[k] * Y[k]
                dW *= number(LEARNING_RATE)
                weights[k] += dW
                biases[k] += number(LEARNING_RATE) * db
        return total / cell.rows

    return epoch


def jax_(cell: Cell, X: Any, y: Any) -> Epoch:
    """Return JAX: an epoch is one jitted call, a scan over the batches, with the parameters donated."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", X.dtype == np.float64)
    network = start(cell, X.dtype.name)
    steps = cell.rows // cell.batch_size
    used = steps * cell.batch_size
    batches = (
        jnp.asarray(X[:used].reshape(steps, cell.batch_size, -1)),
        jnp.asarray(y[:used].astype(np.int32).reshape(steps, cell.batch_size)),
    )
    rest = (jnp.asarray(X[used:]), jnp.asarray(y[used:].astype(np.int32))) if used < cell.rows else None

    def log_likelihood(layers: Any, Y: Any, labels: Any) -> Any:
        for W, b in layers[:-1]:
            Y = jnp.tanh(Y @ W + b)
        W, b = layers[-1]
        return jnp.take_along_axis(jax.nn.log_softmax(Y @ W + b), labels[:, None], axis=1).mean()

    def step(layers: Any, batch: Any) -> Any:
        value, gradient = jax.value_and_grad(log_likelihood)(layers, *batch)
        return jax.tree.map(lambda p, g: p + LEARNING_RATE * g, layers, gradient), value

    def run(layers: Any, batches: Any, rest: Any) -> Any:
        layers, values = jax.lax.scan(step, layers, batches)
        total = values.sum() * cell.batch_size
        if rest is not None:
            layers, value = step(layers, rest)
            total += value * len(rest[1])
        return layers, total / cell.rows

    compiled = jax.jit(run, donate_argnums=0)
    layers = [(jnp.asarray(W), jnp.asarray(b)) for W, b in zip(network.weights, network.biases, strict=True)]

    def epoch() -> float:
        nonlocal layers
        layers, value = compiled(layers, batches, rest)
        return float(value)

    return epoch


def torch_(cell: Cell, X: Any, y: Any) -> Epoch:
    """Return PyTorch: autograd, and torch.optim.SGD in its fused form."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = start(cell, X.dtype.name)
    layers: list[Any] = []
    for W, b in zip(network.weights, network.biases, strict=True):
        linear = torch.nn.Linear(*W.shape)
        linear.weight.data, linear.bias.data = torch.from_numpy(W.T.copy()), torch.from_numpy(b.copy())
        layers += [linear, torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, fused=True)
    Xs, ys = torch.from_numpy(X).split(cell.batch_size), torch.from_numpy(y).split(cell.batch_size)

    def epoch() -> float:
        total = 0.0
        for rows, labels in zip(Xs, ys, strict=True):
            loss = torch.nn.functional.cross_entropy(model(rows), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total -= loss.item() * len(labels)
        return total / cell.rows

    return epoch


def sklearn_(cell: Cell, X: Any, y: Any) -> Epoch:
    """Return scikit-learn's MLPClassifier: partial_fit goes once over the data, in batches."""
    from sklearn.neural_network import MLPClassifier

    if len(cell.sizes) == 2:
        raise LookupError("MLPClassifier wants a hidden layer")
    network = start(cell, X.dtype.name)
    model = MLPClassifier(cell.sizes[1:-1], activation="tanh", solver="sgd", alpha=0.0, batch_size=cell.batch_size,
                          learning_rate_init=LEARNING_RATE, momentum=0.0, shuffle=False)  # fmt: skip
    model.partial_fit(X[: cell.batch_size], y[: cell.batch_size], classes=np.arange(10))
    for theirs, ours in zip([*model.coefs_, *model.intercepts_], [*network.weights, *network.biases], strict=True):
        theirs[...] = ours

    def epoch() -> float:
        model.partial_fit(X, y)
        return -float(model.loss_)

    return epoch


PEERS: dict[str, Callable[[Cell, Any, Any], Epoch]] = {
    "fastnn": fastnn_auto,
    "fastnn, dense": fastnn_dense,
    "NumPy": numpy_,
    "JAX": jax_,
    "PyTorch": torch_,
    "scikit-learn": sklearn_,
}
