"""What is compared: for each peer, a function that prepares a cell and returns an epoch of training as a call.

Every peer starts from the same parameters, takes the same batches in the same order, does the same steps and may use
all cores; only masks of dropout are each peer's own.  A call returns the epoch's mean log-likelihood, each batch before
its own update, so that a peer which does something else shows.  fastnn is called as users call it, by `Trainer.fit`,
which counts the seconds of its epochs itself: it checks and converts the data once a fit, not once an epoch.  Each
docstring says which of the peer's settings were chosen, and why.  A peer is imported where it is prepared, and says by
a LookupError that a cell is not for it.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastnn
from fastnn.benchmark.cells import IMAGE_SIDE, POOLED, Cell
from fastnn.engine.threads import available_threads

Epoch = Callable[[], float]
Peer = Callable[[Cell, NDArray[Any], NDArray[Any]], Epoch]

DENSE = "fastnn dense"
AUTOMATIC = "fastnn automatic"

#: Batches on which a setting is tried out, and seconds after which it has been tried enough.
FEW_BATCHES = 50
TRIAL_SECONDS = 0.2

#: Adam's constants, the same in all libraries.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

#: Options of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

#: Bytes of data of which JAX makes a shuffled copy each epoch.
SMALL_BYTES = 2**25


def start(cell: Cell, dtype: str) -> fastnn.Network:
    """Return the network that every peer starts from."""
    if not cell.convolutions:
        return fastnn.Network(cell.sizes, cell.activation, dtype, seed=0)
    records: list[fastnn.layers.Layer] = []
    for filters, size in cell.convolutions:
        records += [fastnn.layers.Conv2D(filters, size), fastnn.layers.MaxPool2D(POOLED)]
    records += [fastnn.layers.Dense(units) for units in cell.sizes[1:]]
    return fastnn.Network(records, cell.activation, dtype, seed=0, input_shape=(IMAGE_SIDE, IMAGE_SIDE, 1))


def keep_memory() -> None:
    """Let the C library keep what is freed, where it is glibc, which by default returns large arrays to the system.

    PyTorch's epochs of cell L took 1.3 to 1.6 times as long without; those of other cells were the same.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, 2**30)
            mallopt(M_TRIM_THRESHOLD, 2**30)


def orders(cell: Cell) -> Iterator[NDArray[np.int64]]:
    """Yield a shuffled order of the rows for each epoch, as `Trainer` with seed 0 draws it if there is no dropout."""
    generator = np.random.default_rng(0)
    while True:
        yield generator.permutation(cell.rows)


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


def make_trainer(cell: Cell, dtype: str, **settings: Any) -> fastnn.Trainer:
    """Return fastnn's trainer of a cell; settings are further arguments of `Trainer`, or others than the cell's."""
    optimizer = {"sgd": fastnn.SGD, "adam": fastnn.Adam}[cell.optimizer](cell.learning_rate)
    settings = {"shuffle": cell.shuffled, "dropout": cell.dropout, **settings}
    return fastnn.Trainer(start(cell, dtype), optimizer, cell.batch_size, **settings)


def prepare_fastnn(cell: Cell, X: NDArray[Any], y: NDArray[Any], sparse: bool | str = "auto") -> Epoch:
    """Return fastnn as it comes: all processors, dense or sparse as it sees fit."""
    return FitEpochs(make_trainer(cell, X.dtype.name, sparse=sparse), X, y)


def prepare_fastnn_dense(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return fastnn on dense rows."""
    return prepare_fastnn(cell, X, y, sparse=False)


def prepare_numpy(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return NumPy: the gradient written by hand, products by its BLAS on all cores, in place where that helps."""
    if cell.convolutions:
        raise LookupError("NumPy has no convolutions of images")
    network, number, every = start(cell, X.dtype.name), X.dtype.type, orders(cell)
    weights, biases = [w.copy() for w in network.weights], [b.copy() for b in network.biases]
    move, generator = _numpy_move(cell), np.random.default_rng(0)

    def activate(Z: NDArray[Any]) -> NDArray[Any]:
        np.tanh(Z, out=Z) if cell.activation == "tanh" else np.maximum(Z, 0, out=Z)
        if cell.dropout:
            Z *= (generator.random(Z.shape, np.float32) >= cell.dropout) * number(1 / (1 - cell.dropout))
        return Z

    def slopes(Y: NDArray[Any]) -> Any:
        return 1 - Y * Y if cell.activation == "tanh" else (Y > 0) * number(1 / (1 - cell.dropout))

    def step(Y: list[NDArray[Any]], labels: NDArray[Any]) -> float:
        each = np.arange(len(labels))
        for W, b in zip(weights[:-1], biases[:-1], strict=True):
            Z = Y[-1] @ W
            Z += b
            Y.append(activate(Z))
        dZ = Y[-1] @ weights[-1]
        dZ += biases[-1]
        dZ -= dZ.max(axis=1, keepdims=True)
        chosen = dZ[each, labels]
        np.exp(dZ, out=dZ)
        sums = dZ.sum(axis=1, keepdims=True)
        total = float((chosen - np.log(sums[:, 0])).sum())
        dZ /= -sums * number(len(labels))
        dZ[each, labels] += number(1 / len(labels))
        gradient = []
        for k in reversed(range(len(weights))):
            gradient += [(weights[k], Y[k].T @ dZ), (biases[k], dZ.sum(axis=0))]
            if k:
                dZ = dZ @ weights[k].T
                dZ *= slopes(Y[k])
        move(gradient)
        return total

    def epoch() -> float:
        order, total = next(every) if cell.shuffled else None, 0.0
        for first in range(0, cell.rows, cell.batch_size):
            batch: Any = slice(first, first + cell.batch_size)
            if order is not None:
                batch = order[batch]
            total += step([X[batch]], y[batch])
        return total / cell.rows

    return epoch


def _numpy_move(cell: Cell) -> Callable[[list[tuple[NDArray[Any], NDArray[Any]]]], None]:
    # Takes pairs of a parameter, which moves, and its gradient, which is overwritten.
    state: list[tuple[NDArray[Any], NDArray[Any]]] = []
    n_steps = 0

    def plain(pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
        for parameter, gradient in pairs:
            gradient *= gradient.dtype.type(cell.learning_rate)
            parameter += gradient

    def adam(pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
        nonlocal n_steps
        n_steps += 1
        if not state:
            state.extend((np.zeros_like(parameter), np.zeros_like(parameter)) for parameter, _ in pairs)
        for (parameter, gradient), (mean, square) in zip(pairs, state, strict=True):
            mean *= BETA_1
            mean += (1 - BETA_1) * gradient
            gradient *= gradient
            gradient *= 1 - BETA_2
            square *= BETA_2
            square += gradient
            np.sqrt(square, out=gradient)
            gradient /= (1 - BETA_2**n_steps) ** 0.5
            gradient += EPSILON
            np.divide(mean, gradient, out=gradient)
            gradient *= cell.learning_rate / (1 - BETA_1**n_steps)
            parameter += gradient

    return adam if cell.optimizer == "adam" else plain


def prepare_jax(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return JAX: an epoch is one compiled call.

    One step over all rows is jitted as it is; batches are a scan within the jitted call, which saves a dispatch
    a step.  The state is donated, so that it is updated in place, and the data stays on the device.  Shuffled rows are
    gathered batch by batch within the scan; those of small data before it, all at once, which takes .84 to .98 of the
    time.  Random bits are of the default kind: others took 1.4 times as long.

    A convolution is a product with its windows side by side: within a scan its own took 12 times as long, and in a call
    a step 1.3 to 2.5 times as long as this.
    """
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", X.dtype == np.float64)
    network, every = start(cell, X.dtype.name), orders(cell)
    steps = cell.rows // cell.batch_size
    used = steps * cell.batch_size
    step, state = jax_step(cell, network)

    def take(rows: Any, ids: Any) -> Any:
        return jax.tree.map(lambda part: part[ids], rows)

    def run(state: Any, rows: Any, order: Any) -> Any:
        batches, rest = rows if order is None else (order[:used].reshape(steps, -1), take(rows, order[used:]))
        if order is not None and X.nbytes < SMALL_BYTES:
            batches = take(rows, batches)
        if steps == 1 and used == cell.rows:
            return step(state, take(batches, 0))
        if order is None or X.nbytes < SMALL_BYTES:
            state, values = jax.lax.scan(step, state, batches)
        else:
            state, values = jax.lax.scan(lambda state, ids: step(state, take(rows, ids)), state, batches)
        total = values.sum() * cell.batch_size
        if used < cell.rows:
            state, value = step(state, rest)
            total += value * (cell.rows - used)
        return state, total / cell.rows

    compiled = jax.jit(run, donate_argnums=0)
    rows: Any = X, y.astype(np.int32)
    if not cell.shuffled:
        batches = tuple(part[:used].reshape(steps, cell.batch_size, *part.shape[1:]) for part in rows)
        rows = batches, tuple(part[used:] for part in rows)
    rows = jax.tree.map(jnp.asarray, rows)

    def epoch() -> float:
        nonlocal state
        order = next(every).astype(np.int32) if cell.shuffled else None
        state, value = compiled(state, rows, order)
        return float(value)

    return epoch


def jax_step(cell: Cell, network: fastnn.Network) -> tuple[Any, Any]:
    """Return JAX's step, from state and batch to state and log-likelihood, and the state at the start."""
    import jax
    import jax.numpy as jnp

    activate = {"tanh": jnp.tanh, "relu": jax.nn.relu}[cell.activation]
    rate = cell.learning_rate

    def convolved(Y: Any, W: Any) -> Any:
        size, _, channels, filters = W.shape
        side = Y.shape[1] - size + 1
        windows = [Y[:, i : i + side, j : j + side] for i in range(size) for j in range(size)]
        return jnp.concatenate(windows, axis=-1) @ W.reshape(size * size * channels, filters)

    def pooled(Z: Any) -> Any:
        # A maximum over an axis of windows, and reduce_window, took up to 1.5 times as long.
        side = Z.shape[1] // POOLED * POOLED
        corners = [Z[:, i:side:POOLED, j:side:POOLED] for i in range(POOLED) for j in range(POOLED)]
        return functools.reduce(jnp.maximum, corners)

    def log_likelihood(layers: Any, Y: Any, labels: Any, key: Any) -> Any:
        if cell.convolutions:
            Y = Y.reshape(-1, IMAGE_SIDE, IMAGE_SIDE, 1)
        for W, b in layers[:-1]:
            if W.ndim == 4:
                Y = activate(pooled(convolved(Y, W)) + b)
                continue
            Y = activate(Y.reshape(len(Y), -1) @ W + b)
            if cell.dropout:
                key, mask_key = jax.random.split(key)
                Y = jnp.where(jax.random.bernoulli(mask_key, 1 - cell.dropout, Y.shape), Y / (1 - cell.dropout), 0)
        W, b = layers[-1]
        return jnp.take_along_axis(jax.nn.log_softmax(Y @ W + b), labels[:, None], axis=1).mean()

    def step(state: Any, batch: Any) -> Any:
        layers, moments, n_steps, key = state
        key, batch_key = jax.random.split(key) if cell.dropout else (key, key)
        value, gradient = jax.value_and_grad(log_likelihood)(layers, *batch, batch_key)
        if cell.optimizer == "sgd":
            return (jax.tree.map(lambda p, g: p + rate * g, layers, gradient), moments, n_steps, key), value
        n_steps += 1
        first = rate / (1 - BETA_1**n_steps)
        second = 1 / (1 - BETA_2**n_steps)
        means = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, moments[0], gradient)
        squares = jax.tree.map(lambda s, g: BETA_2 * s + (1 - BETA_2) * g * g, moments[1], gradient)
        layers = jax.tree.map(lambda p, m, s: p + first * m / (jnp.sqrt(second * s) + EPSILON), layers, means, squares)
        return (layers, (means, squares), n_steps, key), value

    layers = [(jnp.asarray(W), jnp.asarray(b)) for W, b in zip(network.weights, network.biases, strict=True)]
    zeros = [jax.tree.map(jnp.zeros_like, layers) for _ in range(2)] if cell.optimizer == "adam" else [(), ()]
    return step, (layers, tuple(zeros), jnp.zeros((), network.dtype), jax.random.key(0))


def prepare_torch(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return PyTorch, eager: autograd on plain functions, and one call that moves all parameters.

    With batches of 20, modules and torch.optim.SGD (in its fused form) took 1.4 times as long; Adam is torch.optim's,
    fused.  Batches in order are split once.  On all cores, or on one if that is faster, as it may be with small
    batches: both are tried on the first batches.  Convolutions are of oneDNN, channels last (channels first took
    1.6 times as long, torch.compile 1.3 times), pooled before the activation, and freed memory is kept.
    """
    import torch

    if cell.convolutions:
        keep_memory()
    network, every = start(cell, X.dtype.name), orders(cell)
    started: list[Any] = []
    for W, b in zip(network.weights, network.biases, strict=True):
        started += [torch_weight(W), torch.from_numpy(b.copy())]
    data = torch.from_numpy(X), torch.from_numpy(y)
    in_order = list(zip(*(part.split(cell.batch_size) for part in data), strict=True))

    def batches() -> Iterator[Any]:
        if not cell.shuffled:
            yield from in_order
            return
        for ids in torch.from_numpy(next(every)).split(cell.batch_size):
            yield tuple(part.index_select(0, ids) for part in data)

    def seconds_a_step(n_threads: int) -> float:
        torch.set_num_threads(n_threads)
        step, few = _torch_step(cell, started), list(islice(batches(), FEW_BATCHES))
        begin, spent, taken = time.perf_counter(), 0.0, 0
        while taken < len(few) and spent < TRIAL_SECONDS:
            step(*few[taken])
            spent, taken = time.perf_counter() - begin, taken + 1
        return spent / taken

    n_threads = available_threads()
    if cell.batch_size < cell.rows:
        n_threads = min((1, n_threads), key=lambda n: min(seconds_a_step(n) for _ in range(4)))
    every, step = orders(cell), _torch_step(cell, started)

    def epoch() -> float:
        torch.set_num_threads(n_threads)
        return sum(step(rows, labels) * len(labels) for rows, labels in batches()) / cell.rows

    return epoch


def torch_weight(W: NDArray[Any]) -> Any:
    """Return a copy of a weight as PyTorch has it, outputs first, and that of a convolution with channels last."""
    import torch

    if W.ndim == 2:
        return torch.from_numpy(W.T.copy())
    return torch.from_numpy(W.copy()).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def _torch_step(cell: Cell, started: list[Any]) -> Callable[[Any, Any], float]:
    import torch

    functional = torch.nn.functional
    parameters = [value.clone().requires_grad_() for value in started]
    *hidden, last = list(zip(parameters[::2], parameters[1::2], strict=True))
    activate = {"tanh": torch.tanh, "relu": torch.relu}[cell.activation]
    adam = torch.optim.Adam(parameters, cell.learning_rate, fused=True) if cell.optimizer == "adam" else None

    def step(Y: Any, labels: Any) -> float:
        if cell.convolutions:
            Y = Y.view(-1, 1, IMAGE_SIDE, IMAGE_SIDE)
        for W, b in hidden:
            if W.ndim == 4:
                Y = activate(functional.max_pool2d(functional.conv2d(Y, W, b), POOLED))
                continue
            if Y.ndim == 4:
                Y = Y.permute(0, 2, 3, 1).flatten(1)
            Y = activate(functional.linear(Y, W, b))
            if cell.dropout:
                Y = functional.dropout(Y, cell.dropout)
        loss = functional.cross_entropy(functional.linear(Y, *last), labels)
        gradients = torch.autograd.grad(loss, parameters)
        if adam is None:
            with torch.no_grad():
                torch._foreach_add_(parameters, gradients, alpha=-cell.learning_rate)
        else:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            adam.step()
        return -float(loss.item())

    return step


def prepare_sklearn(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return scikit-learn's MLPClassifier: partial_fit goes once over the data, in batches.

    Without momentum and penalty; the check for infinities in the data is switched off.  Shuffled rows are gathered
    before the call, all at once: it would draw an order of its own, and gather them batch by batch.
    """
    import sklearn
    from sklearn.neural_network import MLPClassifier

    if cell.convolutions:
        raise LookupError("MLPClassifier has no convolutions")
    if len(cell.sizes) == 2:
        raise LookupError("MLPClassifier needs a hidden layer")
    if cell.sizes[-1] == 2:
        raise LookupError("MLPClassifier has one output for two classes")
    if cell.dropout:
        raise LookupError("MLPClassifier has no dropout")
    network, every = start(cell, X.dtype.name), orders(cell)
    model = MLPClassifier(
        cell.sizes[1:-1],
        activation=cell.activation,
        solver=cell.optimizer,
        alpha=0.0,
        batch_size=cell.batch_size,
        learning_rate_init=cell.learning_rate,
        momentum=0.0,
        shuffle=False,
    )
    # This makes the arrays, and moves them; then they are set to where all start.
    model.partial_fit(X[: cell.batch_size], y[: cell.batch_size], classes=np.arange(cell.sizes[-1]))
    for theirs, ours in zip([*model.coefs_, *model.intercepts_], [*network.weights, *network.biases], strict=True):
        theirs[...] = ours
    del model._optimizer  # which has taken a step

    def epoch() -> float:
        order: Any = next(every) if cell.shuffled else slice(None)
        with sklearn.config_context(assume_finite=True):
            model.partial_fit(X[order], y[order])
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
