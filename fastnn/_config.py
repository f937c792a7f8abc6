"""What runs here: instruction set, threads, BLAS."""

from __future__ import annotations

import platform

import numpy as np
import scipy

from fastnn import kernels
from fastnn._version import __version__
from fastnn.engine.threads import available_threads, blas_libraries
from fastnn.kernels import _cpu, epoch


def blas_name() -> str:
    """Return the BLAS in use, its version and its kernels."""
    found = [
        f"{library['internal_api']} {library['version']} ({library.get('architecture') or 'unknown kernels'})"
        for library in blas_libraries()
    ]
    return ", ".join(found) or "unknown to threadpoolctl"


def config() -> dict[str, str]:
    """Return what `show_config` prints, by name."""
    return {
        "fastnn": __version__,
        "instruction set": f"{kernels.INSTRUCTION_SET} (available: {', '.join(kernels.AVAILABLE)})",
        "OpenMP": "yes" if epoch.HAS_OPENMP else "no",
        "threads": str(available_threads()),
        "BLAS": blas_name(),
        "compiler": _cpu.COMPILER,
        "NumPy, SciPy": f"{np.__version__}, {scipy.__version__}",
        "Python": f"{platform.python_version()}, {platform.platform()}",
    }


def show_config() -> None:
    """Print which build of the kernels runs, on how many threads, and with which BLAS.

    The environment variable FASTNN_INSTRUCTION_SET forces one of the available instruction sets; OMP_NUM_THREADS
    limits the threads.
    """
    for name, value in config().items():
        print(f"{name + ':':17}{value}")
