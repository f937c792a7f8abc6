"""Two versions of fastnn, in turn on one machine: whether this one is slower than that of another Python.

    HEAD/bin/python benchmarks/compare.py BASE/bin/python [--cells E G 4] [--dtypes float32] [--limit 1.1]

Each cell has a process of either version.  They take turns, in which they train for as long as the benchmark does, the
first of a round being the second of the next, so that a drift of the machine's speed meets both alike; what counts is
the best of all turns.  Where this version takes more than so many times as long as the other, both are measured
again, longer and in new processes, and only what is above the limit then, too, counts, and ends with status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fastnn._config import config
from fastnn.benchmark import cells_of
from fastnn.benchmark.cells import CELLS
from fastnn.benchmark.peers import AUTOMATIC, PEERS
from fastnn.benchmark.timing import HANDOVER, Contest

ROUNDS = 8
#: Rounds when what seems slower is measured again.
MORE_ROUNDS = 24


class Pair(NamedTuple):
    """Seconds an epoch of the other version and of this one."""

    base: float
    head: float

    @property
    def ratio(self) -> float:
        """How many times as long this version takes."""
        return self.head / self.base


def serve(label: str, dtype: str) -> None:
    """Take a turn for each line read, the name of what has it; print its best seconds."""
    contest = Contest(CELLS[label], dtype, {AUTOMATIC: PEERS[AUTOMATIC]})
    for line in sys.stdin:
        name = line.strip()
        print(min(contest.turn(name)) if name in contest.seconds else "nan", flush=True)
    contest.close()


class Version:
    """A process of a version of fastnn that is ready to train a cell.

    Parameters
    ----------
    python : str
        The Python that has the version.
    label, dtype : str
        Of the cell.
    """

    def __init__(self, python: str, label: str, dtype: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command, pipe = [python, __file__, "--serve", label, dtype], subprocess.PIPE
        self._python = python
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def turn(self, name: str) -> float:
        """Have a turn taken; return its seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self._python} ended with status {self._process.wait()}")
        return float(answer)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def measure(pythons: Pair, label: str, dtype: str, rounds: int) -> tuple[Pair, list[float]]:
    """Return the best seconds of both versions, and those of a cache line from core to core in each round."""
    with contextlib.ExitStack() as stack:
        versions = [stack.enter_context(contextlib.closing(Version(python, label, dtype))) for python in pythons]
        seconds: list[list[float]] = [[], []]
        handovers = []
        for k in range(rounds):
            for which in (k % 2, 1 - k % 2):
                seconds[which].append(versions[which].turn(AUTOMATIC))
            handovers.append(versions[1].turn(HANDOVER))
    return Pair(*map(min, seconds)), handovers


def slower(cells: Iterable[str], limit: float, measured: Callable[[str, int], Pair]) -> dict[str, Pair]:
    """Return the cells that take longer than the limit allows, in both of two measurements.

    Parameters
    ----------
    cells : iterable of str
        Their labels.
    limit : float
        The largest ratio that counts as equal.
    measured : callable
        Measures a cell in so many rounds.
    """
    doubtful = [label for label in cells if not measured(label, ROUNDS).ratio <= limit]  # nor NaN
    again = {label: measured(label, MORE_ROUNDS) for label in doubtful}
    return {label: pair for label, pair in again.items() if not pair.ratio <= limit}


def main() -> int:
    """Measure, print, and return the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a Python that has the other version")
    parser.add_argument("--cells", nargs="+", default=cells_of("all"), choices=list(CELLS))
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "float64"])
    parser.add_argument("--limit", type=float, default=1.1, help="of the ratio of seconds (default: 1.1)")
    options = parser.parse_args()
    print("\n".join(f"{name}: {value}" for name, value in config().items()))
    print("\ncell     dtype       base, s    head, s  head / base  core to core, ns")

    found = {}
    for dtype in options.dtypes:

        def measured(label: str, rounds: int, dtype: str = dtype) -> Pair:
            pair, handovers = measure(Pair(options.base, sys.executable), label, dtype, rounds)
            nanoseconds = f"{1e9 * min(handovers):.0f} to {1e9 * max(handovers):.0f}"
            print(
                f"{label:>4}  {dtype:>8}  {pair.base:>12.6f}  {pair.head:>9.6f}  {pair.ratio:>11.2f}  {nanoseconds:>16}"
            )
            return pair

        found.update(
            {f"{label}, {dtype}": pair for label, pair in slower(options.cells, options.limit, measured).items()}
        )
    for name, pair in found.items():
        print(f"cell {name}: {pair.ratio:.2f} times as long, in a second measurement too")
    if not found:
        print(f"no cell takes more than {options.limit} times as long")
    return 1 if found else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        sys.exit(main())
