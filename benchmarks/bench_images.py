"""Images that a network classifies, ten thousand and a single one: ``pytest -s benchmarks/bench_images.py``.

The networks are those of the cells with convolutions.  fastnn's network, and for a single image its predictor, in turn
with PyTorch, and with onnxruntime, which runs what fastnn exports; a single image
on one thread too.  Each from a NumPy array of pixels to a NumPy array of classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from turns import in_turn

import fastnn
from fastnn import export
from fastnn.benchmark.cells import CELLS, IMAGE_SIDE, POOLED, Cell
from fastnn.benchmark.peers import is_installed, keep_memory, start, torch_weight
from fastnn.benchmark.timing import load_rows
from fastnn.engine.threads import available_threads

# What a peer warns of, and what pytest would make an error of, is its own affair.
pytestmark = pytest.mark.filterwarnings("ignore")

N_IMAGES = 10_000
ROUNDS = 7
REPEATS = 50  # of a single image
#: Images a call: of 125 to 1,000 the quickest for most networks, also 50 for onnxruntime.
TORCH_IMAGES, ONNX_IMAGES = 1000, 125
#: Share of the classes in which libraries may differ, where two are nearly as likely.
TOLERANCE = 1e-3

Classify = Callable[[NDArray[Any]], NDArray[Any]]


def in_batches(classify: Classify, size: int) -> Classify:
    """Return the same for any number of images."""

    def call(X: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([classify(X[first : first + size]) for first in range(0, len(X), size)])

    return call


def torch_module(cell: Cell, network: fastnn.Network) -> Any:
    """Return the network as a module with channels last."""
    import torch

    modules: list[Any] = []
    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[cell.activation]
    filters, flat = 1, False
    for W, b in zip(network.weights, network.biases, strict=True):
        if W.ndim == 4:
            size, _, channels, filters = W.shape
            module = torch.nn.Conv2d(channels, filters, size)
            modules += [module, torch.nn.MaxPool2d(POOLED), activation()]
        else:
            if not flat:  # Flatten puts channels first
                W = W.reshape(-1, filters, W.shape[1]).transpose(1, 0, 2).reshape(W.shape)
                modules.append(torch.nn.Flatten())
                flat = True
            module = torch.nn.Linear(*W.shape)
            modules += [module, activation()]
        module.weight.data, module.bias.data = torch_weight(W), torch.from_numpy(b.copy())
    return torch.nn.Sequential(*modules[:-1]).eval()


def torch_calls(cell: Cell, network: fastnn.Network, n_threads: int) -> dict[str, Classify]:
    """Return PyTorch in inference mode: modules, traced ones with weights frozen, and these optimised (for oneDNN)."""
    import torch

    keep_memory()
    module = torch_module(cell, network)

    def frozen() -> Any:
        return torch.jit.freeze(torch.jit.trace(module, torch.zeros(1, 1, IMAGE_SIDE, IMAGE_SIDE)))

    def classify(module: Any) -> Classify:
        def call(X: NDArray[Any]) -> NDArray[Any]:
            torch.set_num_threads(n_threads)
            with torch.inference_mode():
                return module(torch.from_numpy(X).view(-1, 1, IMAGE_SIDE, IMAGE_SIDE)).argmax(dim=1).numpy()

        return in_batches(call, TORCH_IMAGES)

    return {
        "PyTorch": classify(module),
        "PyTorch, frozen": classify(frozen()),
        "PyTorch, optimised": classify(torch.jit.optimize_for_inference(frozen())),
    }


def onnx_call(network: fastnn.Network, n_threads: int) -> Classify:
    """Return onnxruntime with all its optimisations, which are the default; its threads spin between calls."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    model = export.to_onnx(network).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (wanted,) = session.get_inputs()

    def call(X: NDArray[Any]) -> NDArray[Any]:
        (labels,) = session.run(["labels"], {wanted.name: X.reshape(-1, *wanted.shape[1:])})
        return labels

    return in_batches(call, ONNX_IMAGES)


@pytest.mark.parametrize("n_images", [N_IMAGES, 1])
@pytest.mark.parametrize("label", ["I", "K", "L"])
def test_images(benchmark: Any, label: str, n_images: int) -> None:
    cell = CELLS[label]
    network = start(cell, "float32")
    X, _ = load_rows(cell._replace(rows=n_images), "float32")
    calls: dict[str, Classify] = {"fastnn": network.predict}
    if n_images == 1:
        calls["fastnn's predictor"] = network.predictor().predict
    for n_threads in sorted({available_threads(), available_threads() if n_images > 1 else 1}):
        suffix = f", {n_threads} thread(s)"
        found = torch_calls(cell, network, n_threads) if is_installed("PyTorch") else {}
        if find_spec("onnxruntime"):
            found["onnxruntime"] = onnx_call(network, n_threads)
        calls |= {name + suffix: call for name, call in found.items()}
    ours = network.predict(X)
    for name, call in calls.items():
        assert np.mean(call(X) != ours) <= TOLERANCE, name
    print(f"\n{cell.name}, {n_images:,} image(s)", end="")
    in_turn(
        benchmark, {name: partial(call, X) for name, call in calls.items()}, ROUNDS, REPEATS if n_images == 1 else 1
    )
