"""Time an epoch of every cell with every peer that is installed, in one run, in turn.

    python -m benchmarks.run results.json                # all cells, both dtypes; about twenty minutes
    python -m benchmarks.run results.json --cells 2 4 --dtypes float32

Each round times every peer once, in turn, so that a drift of the machine's speed meets all alike; the best of
the rounds counts, and the median is kept beside it.  The peak of the matrix product is measured in the same
rounds: a cell's operations divided by it are its roofline.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn
from benchmarks.cells import CELLS, Cell
from benchmarks.peers import PEERS
from fastnn._config import config

PACKAGES = ("numpy", "jax", "torch", "scikit-learn")
PEAK_SIZE = 2000


def processor() -> str:
    """Name of the processor, as Linux tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def peak_product(dtype: str) -> Callable[[], Any]:
    """Return a square product, which NumPy's BLAS does at its peak on all cores."""
    A = np.random.default_rng(0).random((PEAK_SIZE, PEAK_SIZE)).astype(dtype)
    out = np.empty_like(A)
    return lambda: np.matmul(A, A, out=out)


def run_cell(cell: Cell, dtype: str, rounds: int) -> dict[str, Any]:
    """Time all peers on one cell."""
    train, _, _ = fastnn.datasets.load_mnist(dtype=dtype)
    X, y = train.X[: cell.rows], train.y[: cell.rows]
    calls: dict[str, Callable[[], Any]] = {}
    values = {}
    for name, prepare in PEERS.items():
        try:
            calls[name] = prepare(cell, X, y)
        except (ImportError, LookupError) as error:
            print(f"  {name} is left out: {error}")
        else:
            values[name] = calls[name]()  # compiles, allocates, and shows that all do the same
    tolerance = 1e-3 if dtype == "float32" else 1e-6
    for name, value in values.items():
        if not abs(value - values["fastnn"]) < tolerance:
            raise SystemExit(f"{name} reached {value} in cell {cell.name}, fastnn {values['fastnn']}")
    calls["peak"] = peak_product(dtype)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    roofline = cell.flops / (2 * PEAK_SIZE**3 / min(seconds.pop("peak")))
    best = {name: min(times) for name, times in seconds.items()}
    print(f"  roofline {roofline:.4f}  " + "  ".join(f"{name} {best[name]:.4f}" for name in best), flush=True)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {"cell": cell.name, "dtype": dtype, "roofline": roofline, "best": best, "median": median}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", help="JSON file for the results")
    parser.add_argument("--cells", type=int, nargs="*", default=range(1, len(CELLS) + 1))
    parser.add_argument("--dtypes", nargs="*", default=["float64", "float32"])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    results = []
    for dtype in arguments.dtypes:
        for number in arguments.cells:
            print(f"{CELLS[number - 1].name}, {dtype}", flush=True)
            results.append(run_cell(CELLS[number - 1], dtype, arguments.rounds))
    installed = {distribution.name.lower() for distribution in importlib.metadata.distributions()}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if name in installed}
    about = {"date": time.strftime("%Y-%m-%d"), "processor": processor(), "versions": versions, **config()}
    with open(arguments.output, "w", encoding="utf-8") as file:
        json.dump({"about": about, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
