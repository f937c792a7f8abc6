"""The answer for one row at a time, as a server gives it: ``pytest -s benchmarks/bench_rows.py``.

fastnn's network, its predictor (a handle that is made once) and its estimator, in turn with the same by hand in NumPy,
with scikit-learn, with PyTorch in inference mode on one thread, and with JAX, jitted; each from a NumPy row to a NumPy
answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from turns import in_turn

import fastnn
from fastnn.benchmark.peers import is_installed

# What a peer warns of, and what pytest would make an error of, is its own affair.
pytestmark = pytest.mark.filterwarnings("ignore")

ROUNDS = 7
REPEATS = 100
SIZES = {"784-100-10": (784, 100, 10), "20-10-3": (20, 10, 3)}

Call = Callable[[], Any]


def numpy_call(network: fastnn.Network, x: np.ndarray, kind: str) -> Call:
    """Return the forward pass by hand."""
    (*hidden, (W, b)) = zip(network.weights, network.biases, strict=True)

    def call() -> Any:
        Y = x
        for V, c in hidden:
            Y = np.tanh(Y @ V + c)
        Z = Y @ W + b
        if kind == "predict":
            return Z.argmax(axis=1)
        P = np.exp(Z - Z.max(axis=1, keepdims=True))
        return P / P.sum(axis=1, keepdims=True)

    return call


def jax_call(network: fastnn.Network, x: np.ndarray, kind: str) -> Call:
    """Return one jitted call."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", x.dtype == np.float64)
    layers = [(jnp.asarray(W), jnp.asarray(b)) for W, b in zip(network.weights, network.biases, strict=True)]

    @jax.jit
    def forward(layers: Any, Y: Any) -> Any:
        for W, b in layers[:-1]:
            Y = jnp.tanh(Y @ W + b)
        W, b = layers[-1]
        return jnp.argmax(Y @ W + b, axis=1) if kind == "predict" else jax.nn.softmax(Y @ W + b)

    return lambda: np.asarray(forward(layers, x))


def torch_call(network: fastnn.Network, x: np.ndarray, kind: str) -> Call:
    """Return plain functions in inference mode, on one thread: more cost more."""
    import torch

    (*hidden, last) = [
        (torch.from_numpy(W.T.copy()), torch.from_numpy(b.copy()))
        for W, b in zip(network.weights, network.biases, strict=True)
    ]

    def call() -> Any:
        torch.set_num_threads(1)
        with torch.inference_mode():
            Y = torch.from_numpy(x)
            for W, b in hidden:
                Y = torch.tanh(torch.nn.functional.linear(Y, W, b))
            Z = torch.nn.functional.linear(Y, *last)
            return (Z.argmax(dim=1) if kind == "predict" else Z.softmax(dim=1)).numpy()

    return call


def estimator_calls(network: fastnn.Network, x: np.ndarray, kind: str) -> dict[str, Call]:
    """Return fastnn's estimator and scikit-learn's, both of the network's shape."""
    if not is_installed("scikit-learn"):
        return {}
    from sklearn.neural_network import MLPClassifier

    from fastnn import sklearn as ours

    X = np.random.default_rng(0).random((100, network.n_in)).astype(x.dtype)
    y, sizes = np.arange(100) % network.n_out, [W.shape[1] for W in network.weights[:-1]]
    models = {"fastnn's estimator": ours.MLPClassifier, "scikit-learn": MLPClassifier}
    fitted = {name: model(sizes, activation="tanh", max_iter=1).fit(X, y) for name, model in models.items()}
    return {name: (lambda call: lambda: call(x))(getattr(model, kind)) for name, model in fitted.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["predict", "predict_proba"])
@pytest.mark.parametrize("size", SIZES)
def test_one_row(benchmark: Any, size: str, kind: str, dtype: str) -> None:
    network = fastnn.Network(SIZES[size], "tanh", dtype, seed=0)
    x = np.random.default_rng(0).random((1, network.n_in)).astype(dtype)
    predictor = getattr(network.predictor(), kind)
    calls: dict[str, Call] = {
        "fastnn": lambda: getattr(network, kind)(x),
        "fastnn's predictor": lambda: predictor(x),
        "NumPy": numpy_call(network, x, kind),
    }
    if is_installed("JAX"):
        calls["JAX"] = jax_call(network, x, kind)
    if is_installed("PyTorch"):
        calls["PyTorch"] = torch_call(network, x, kind)
    for name, call in calls.items():
        np.testing.assert_allclose(call(), calls["fastnn"](), rtol=1e-5, err_msg=name)
    calls |= estimator_calls(network, x, kind)
    in_turn(benchmark, calls, ROUNDS, REPEATS)
