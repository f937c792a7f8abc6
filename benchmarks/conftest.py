"""Options and order of the benchmark, and what its JSON says of the machine."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import pytest

from fastnn._config import config as fastnn_config
from fastnn.benchmark.cells import CELLS

PACKAGES = ("numpy", "scipy", "jax", "torch", "scikit-learn", "pytensor")
DTYPES = ("float64", "float32")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cells", "benchmark of the cells")
    group.addoption("--cells", nargs="+", default=list(CELLS), choices=list(CELLS), help="their labels")
    group.addoption("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES, help="precisions")
    group.addoption("--rows", type=int, default=None, help="only the first rows of each cell (default: all)")
    group.addoption("--rounds", type=int, default=7, help="turns of each peer (default: 7)")
    group.addoption("--peers", nargs="+", default=None, metavar="PEER", help="these only, beside fastnn automatic")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Hundreds of turns are no table to read: benchmarks/table.py makes one of the JSON.
    config.option.benchmark_quiet = True
    config.option.benchmark_disable_gc = True


def processor() -> str:
    """Name of the processor, as Linux tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    installed = {distribution.name.lower() for distribution in importlib.metadata.distributions()}
    machine_info["processor"] = processor()
    machine_info["versions"] = {name: importlib.metadata.version(name) for name in PACKAGES if name in installed}
    machine_info["fastnn"] = fastnn_config()
