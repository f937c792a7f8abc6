"""Graphs that run operation by operation, in turn with Theano 1.0.5: ``python benchmarks/bench_general.py [NAME...]``.

The environment variable FASTNN_THEANO_PYTHON names a Python that has Theano, and THEANO_FLAGS what it needs, such as
``blas.ldflags``.  Each graph runs on one thread and on all, in turns; times are the best of a call.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from general_graphs import PROGRAMS

TURNS = 4
TURN_SECONDS = 0.15
SCRIPT = str(Path(__file__).with_name("general_graphs.py"))
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Worker:
    """A process that runs the graphs with a library."""

    def __init__(self, python: str, library: str, variables: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [python, SCRIPT, library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | variables,
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process has ended")
        return line

    def seconds(self, name: str) -> float:
        """Return the best time of a call of a graph."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {TURN_SECONDS}\n")
        self._process.stdin.flush()
        return float(self._answer().split()[0])


def main() -> None:
    """Print the table."""
    names = sys.argv[1:] or list(PROGRAMS)
    theano = os.environ.get("FASTNN_THEANO_PYTHON", sys.executable)
    workers = {
        (library, threads): Worker(python, library, variables)
        for threads, variables in (("one", ONE_THREAD), ("all", {}))
        for library, python in (("fastnn.symbolic", sys.executable), ("theano", theano))
    }
    print(
        f"{'microseconds a call':24}"
        + "".join(f"{t + ' fastnn':>12}{'Theano':>12}{'ratio':>8}" for t in ("one", "all"))
    )
    for name in names:
        best = {key: float("inf") for key in workers}
        for _ in range(TURNS):
            for key, worker in workers.items():
                best[key] = min(best[key], worker.seconds(name))
        line = f"{name:24}"
        for threads in ("one", "all"):
            ours, theirs = (1e6 * best[library, threads] for library in ("fastnn.symbolic", "theano"))
            line += f"{ours:12.1f}{theirs:12.1f}{ours / theirs:8.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
