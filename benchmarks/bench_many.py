"""Many networks on the same rows, each in an order of its own: ``pytest -s benchmarks/bench_many.py``.

`fastnn.fit_many` and one fit after the other, in turn with JAX, whose step is mapped over the networks (vmap), and with
PyTorch, whose products are batched (baddbmm) and whose Adam is fused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from turns import in_turn

import fastnn
from fastnn.benchmark.cells import Cell
from fastnn.benchmark.peers import is_installed, jax_step
from fastnn.benchmark.timing import load_rows

# What a peer warns of, and what pytest would make an error of, is its own affair.
pytestmark = pytest.mark.filterwarnings("ignore")

ROUNDS = 3
N_NETWORKS = 32


def cell(sizes: tuple[int, ...], rows: int, batch_size: int) -> Cell:
    """Return a table's cell, to be trained by Adam."""
    return Cell("-", "many", sizes, rows, batch_size, "relu", "adam", shuffled=True, data="table")


CASES = {
    "30-256-256-2, 50,000 rows, an epoch": (cell((30, 256, 256, 2), 50_000, 256), 1),
    "10-64-64-2, 2,000 rows, 20 epochs": (cell((10, 64, 64, 2), 2_000, 32), 20),
}


def networks(cell: Cell) -> list[fastnn.Network]:
    """Return the networks that every library starts from."""
    return [fastnn.Network(cell.sizes, "relu", "float32", seed=seed) for seed in range(N_NETWORKS)]


def trainers(cell: Cell) -> list[fastnn.Trainer]:
    """Return a trainer of each network."""
    made = enumerate(networks(cell))
    return [fastnn.Trainer(network, fastnn.Adam(0.001), cell.batch_size, seed=seed) for seed, network in made]


def stacked_parameters(cell: Cell) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return the weights and biases of each layer, of all networks."""
    made = networks(cell)
    return [
        (np.stack([network.weights[k] for network in made]), np.stack([network.biases[k] for network in made]))
        for k in range(len(cell.sizes) - 1)
    ]


def orders(cell: Cell, generator: np.random.Generator) -> NDArray[Any]:
    """Return an order of the rows for each network: (n_batches, n_networks, batch_size), without a short last batch."""
    n = cell.rows // cell.batch_size * cell.batch_size
    drawn = np.stack([generator.permutation(cell.rows)[:n] for _ in range(N_NETWORKS)])
    return np.ascontiguousarray(drawn.reshape(N_NETWORKS, -1, cell.batch_size).swapaxes(0, 1))


def jax_call(cell: Cell, X: NDArray[Any], y: NDArray[Any], epochs: int) -> Callable[[], Any]:
    """Return a jitted scan of the mapped step."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", False)
    steps, states = zip(*(jax_step(cell, network) for network in networks(cell)), strict=True)
    mapped, rows = jax.vmap(steps[0]), (jnp.asarray(X), jnp.asarray(y.astype(np.int32)))

    def run(state: Any, rows: Any, order: Any) -> Any:
        return jax.lax.scan(lambda state, ids: mapped(state, (rows[0][ids], rows[1][ids])), state, order)

    compiled, generator = jax.jit(run, donate_argnums=0), np.random.default_rng(0)
    state = jax.tree.map(lambda *parts: jnp.stack(parts), *states)

    def call() -> None:
        nonlocal state
        for _ in range(epochs):
            state, values = compiled(state, rows, orders(cell, generator).astype(np.int32))
            values.block_until_ready()

    return call


def torch_call(cell: Cell, X: NDArray[Any], y: NDArray[Any], epochs: int) -> Callable[[], Any]:
    """Return batched products and fused Adam, on all cores."""
    import torch

    generator, rows, labels = np.random.default_rng(0), torch.from_numpy(X), torch.from_numpy(y)
    layers = [
        (torch.from_numpy(W).requires_grad_(), torch.from_numpy(b[:, None]).requires_grad_())
        for W, b in stacked_parameters(cell)
    ]
    parameters = [parameter for layer in layers for parameter in layer]
    adam = torch.optim.Adam(parameters, 0.001, fused=True)
    n_threads = fastnn.engine.threads.available_threads()

    def call() -> None:
        torch.set_num_threads(n_threads)
        for _ in range(epochs):
            for ids in torch.from_numpy(orders(cell, generator)):
                Y = rows[ids]
                for W, b in layers[:-1]:
                    Y = torch.relu(torch.baddbmm(b, Y, W))
                Z = torch.baddbmm(layers[-1][1], Y, layers[-1][0])
                loss = torch.nn.functional.cross_entropy(Z.flatten(0, 1), labels[ids].flatten()) * N_NETWORKS
                adam.zero_grad()
                loss.backward()
                adam.step()

    return call


@pytest.mark.parametrize("case", CASES)
def test_many(benchmark: Any, case: str) -> None:
    one, epochs = CASES[case]
    X, y = load_rows(one, "float32")
    made, many = trainers(one), trainers(one)

    def one_after_the_other() -> None:
        for trainer in made:
            trainer.fit(X, y, epochs, progress=False)

    calls: dict[str, Callable[[], Any]] = {
        "fastnn.fit_many": lambda: fastnn.fit_many(many, X, y, epochs, progress=False),
        "one fastnn after the other": one_after_the_other,
    }
    for name, prepare in {"JAX": jax_call, "PyTorch": torch_call}.items():
        if is_installed(name):
            calls[name] = prepare(one, X, y, epochs)
    in_turn(benchmark, calls, ROUNDS)
