"""What is compared: for each peer, a function that prepares a cell and returns an epoch of training as a call.

Every peer starts from the same parameters, takes the same batches in the same order, does the same plain step
and may use all cores.  A call returns the epoch's mean log-likelihood, each batch before its own update, so
that a peer which does something else shows.  fastnn is called as users call it, by `Trainer.fit`, which counts the
seconds of its epochs itself: it checks and converts the data once a fit, not once an epoch.  Each docstring says
which of the peer's settings were chosen, and why.  A peer is imported where it is prepared, and says by a
LookupError that a cell is not for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastnn
from fastnn.benchmark.cells import LEARNING_RATE, Cell
from fastnn.engine.threads import available_threads

Epoch = Callable[[], float]
Peer = Callable[[Cell, NDArray[Any], NDArray[Any]], Epoch]

DENSE = "fastnn dense"
AUTOMATIC = "fastnn automatic"

#: Batches on which a setting is tried out.
FEW_BATCHES = 50


def start(cell: Cell, dtype: str) -> fastnn.Network:
    """Return the network that every peer starts from."""
    return fastnn.Network(cell.sizes, "tanh", dtype, seed=0)


class FitEpochs:
    """Epochs of `fastnn.Trainer.fit`.

    Attributes
    ----------
    seconds : list of float
        Of each epoch of the last call, as the fit counted them.
    """

    def __init__(self, trainer: fastnn.Trainer, X: NDArray[Any], y: NDArray[Any]) -> None:
        self._trainer = trainer
        self._data = X, y
        self.seconds: list[float] = []

    def __call__(self, n_epochs: int = 1) -> float:
        """Train, and return the mean log-likelihood of the last epoch."""
        history = self._trainer.fit(*self._data, n_epochs, progress=False)
        self.seconds = history.seconds
        return history.log_likelihood[-1]


def prepare_fastnn(cell: Cell, X: NDArray[Any], y: NDArray[Any], sparse: bool | str = "auto") -> Epoch:
    """Return fastnn as it comes: all processors, dense or sparse as it sees fit."""
    network, optimizer = start(cell, X.dtype.name), fastnn.SGD(LEARNING_RATE)
    return FitEpochs(fastnn.Trainer(network, optimizer, cell.batch_size, shuffle=False, sparse=sparse), X, y)


def prepare_fastnn_dense(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return fastnn on dense rows."""
    return prepare_fastnn(cell, X, y, sparse=False)


def prepare_numpy(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return NumPy: the gradient written by hand, products by its BLAS on all cores, in place where that helps."""
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


def prepare_jax(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return JAX: an epoch is one compiled call.

    One step over all rows is jitted as it is; batches are a scan within the jitted call, which saves a dispatch
    a step.  The parameters are donated, so that they are updated in place, and the data stays on the device.
    """
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", X.dtype == np.float64)
    network = start(cell, X.dtype.name)
    steps = cell.rows // cell.batch_size
    used = steps * cell.batch_size
    labels = y.astype(np.int32)
    batches = (
        jnp.asarray(X[:used].reshape(steps, cell.batch_size, -1)),
        jnp.asarray(labels[:used].reshape(steps, cell.batch_size)),
    )
    rest = (jnp.asarray(X[used:]), jnp.asarray(labels[used:])) if used < cell.rows else None

    def log_likelihood(layers: Any, Y: Any, labels: Any) -> Any:
        for W, b in layers[:-1]:
            Y = jnp.tanh(Y @ W + b)
        W, b = layers[-1]
        return jnp.take_along_axis(jax.nn.log_softmax(Y @ W + b), labels[:, None], axis=1).mean()

    def step(layers: Any, batch: Any) -> Any:
        value, gradient = jax.value_and_grad(log_likelihood)(layers, *batch)
        return jax.tree.map(lambda p, g: p + LEARNING_RATE * g, layers, gradient), value

    def run(layers: Any, batches: Any, rest: Any) -> Any:
        if steps == 1 and rest is None:
            return step(layers, (batches[0][0], batches[1][0]))
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


def prepare_torch(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return PyTorch: autograd on plain functions, and one call that moves all parameters.

    With batches of 20, modules and torch.optim.SGD (in its fused form) took 1.4 times as long.  The batches are split
    once.  On all cores, or on one if that is faster, as it may be with small batches: both are tried on the first
    batches.
    """
    import torch

    network = start(cell, X.dtype.name)
    parameters: list[Any] = []
    for W, b in zip(network.weights, network.biases, strict=True):
        parameters += [torch.from_numpy(W.T.copy()), torch.from_numpy(b.copy())]
    started = [parameter.clone() for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_()
    *hidden, last = list(zip(parameters[::2], parameters[1::2], strict=True))
    Xs, ys = torch.from_numpy(X).split(cell.batch_size), torch.from_numpy(y).split(cell.batch_size)
    batches = list(zip(Xs, ys, strict=True))

    def train(batches: Any) -> float:
        total = 0.0
        for rows, labels in batches:
            Y = rows
            for W, b in hidden:
                Y = torch.tanh(torch.nn.functional.linear(Y, W, b))
            loss = torch.nn.functional.cross_entropy(torch.nn.functional.linear(Y, *last), labels)
            gradient = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                torch._foreach_add_(parameters, gradient, alpha=-LEARNING_RATE)
            total -= loss.item() * len(labels)
        return total / cell.rows

    def seconds(n_threads: int) -> float:
        torch.set_num_threads(n_threads)
        begin = time.perf_counter()
        train(batches[:FEW_BATCHES])
        return time.perf_counter() - begin

    n_threads = available_threads()
    if cell.batch_size < cell.rows:
        n_threads = min((1, n_threads), key=lambda n: min(seconds(n) for _ in range(4)))
    with torch.no_grad():
        for parameter, value in zip(parameters, started, strict=True):
            parameter.copy_(value)

    def epoch() -> float:
        torch.set_num_threads(n_threads)
        return train(batches)

    return epoch


def prepare_sklearn(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return scikit-learn's MLPClassifier: partial_fit goes once over the data, in batches.

    Plain SGD, without momentum, penalty and shuffling; the check for infinities in the data is switched off.
    """
    import sklearn
    from sklearn.neural_network import MLPClassifier

    if len(cell.sizes) == 2:
        raise LookupError("MLPClassifier needs a hidden layer")
    network = start(cell, X.dtype.name)
    model = MLPClassifier(
        cell.sizes[1:-1],
        activation="tanh",
        solver="sgd",
        alpha=0.0,
        batch_size=cell.batch_size,
        learning_rate_init=LEARNING_RATE,
        momentum=0.0,
        shuffle=False,
    )
    # This makes the arrays, and moves them; then they are set to where all start.
    model.partial_fit(X[: cell.batch_size], y[: cell.batch_size], classes=np.arange(10))
    for theirs, ours in zip([*model.coefs_, *model.intercepts_], [*network.weights, *network.biases], strict=True):
        theirs[...] = ours

    def epoch() -> float:
        with sklearn.config_context(assume_finite=True):
            model.partial_fit(X, y)
        return -float(model.loss_)

    return epoch


PEERS: dict[str, Peer] = {
    DENSE: prepare_fastnn_dense,
    AUTOMATIC: prepare_fastnn,
    "NumPy": prepare_numpy,
    "JAX": prepare_jax,
    "PyTorch": prepare_torch,
    "scikit-learn": prepare_sklearn,
}

#: The module that a peer needs, if that is not one of fastnn's own dependencies.
PACKAGES = {"JAX": "jax", "PyTorch": "torch", "scikit-learn": "sklearn"}


def is_installed(name: str) -> bool:
    """Whether a peer's package is there; it is not imported."""
    return name not in PACKAGES or find_spec(PACKAGES[name]) is not None
