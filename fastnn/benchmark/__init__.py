"""Benchmarks: fastnn and its peers on the same steps, side by side in one run.

``fastnn benchmark`` is the one-minute version; ``benchmarks/`` in the repository is the whole of it, with more
peers, and takes cells, peers and timing from here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from fastnn._config import config
from fastnn._validation import check_integer, check_number
from fastnn.benchmark.cells import CELLS, SETS, Cell
from fastnn.benchmark.peers import AUTOMATIC, DENSE, PACKAGES, PEERS, Peer, is_installed
from fastnn.benchmark.timing import HANDOVER, ROOFLINE, TURN, Contest, Summary

#: Of each set, the cells whose epochs are short.
QUICK_CELLS = {"plain": ("1", "2", "4", "5"), "adam": ("D", "E", "G", "H"), "convolution": ("K",)}

#: What is measured beside fastnn and its peers.
NO_PEERS = (ROOFLINE, HANDOVER)


def ratios(results: Mapping[str, Summary]) -> tuple[float, float | None]:
    """Return roofline / fastnn dense, and the best peer / fastnn automatic, None where there is no peer."""
    peers = [summary.best for name, summary in results.items() if name not in (*NO_PEERS, DENSE, AUTOMATIC)]
    against_peers = min(peers) / results[AUTOMATIC].best if peers else None
    return results[ROOFLINE].best / results[DENSE].best, against_peers


def cells_of(which: str, quick: bool = True) -> list[str]:
    """Return the labels of a set of cells, or of "all" sets; the quick ones of it, or every one."""
    sets = QUICK_CELLS if quick else SETS
    return [label for name in (sets if which == "all" else [which]) for label in sets[name]]


def run(
    dtype: str = "float32", seconds: float = 60.0, cells: Sequence[str] | None = None, rows: int | None = None
) -> None:
    """Time fastnn and the peers that are installed, and print a table.

    Parameters
    ----------
    dtype : {"float32", "float64"}, default "float32"
        Precision.
    seconds : float, default 60.0
        About how long it may take, shared by the cells, and within a cell by the peers.  Every peer has at least
        one turn, so a very short time is exceeded.
    cells : sequence of str or None, default None
        Labels of the cells; None takes those of all sets whose epochs are short.
    rows : int or None, default None
        Take only the first rows of each cell.

    Raises
    ------
    TypeError, ValueError
        If seconds is not above 0 and finite, or rows not a positive integer.
    """
    seconds = check_number(seconds, "seconds", 0, open_left=True)
    rows = None if rows is None else check_integer(rows, "rows", 1)
    chosen = [CELLS[label].first(rows) for label in (cells_of("all") if cells is None else cells)]
    peers = {name: peer for name, peer in PEERS.items() if is_installed(name)}
    columns = [ROOFLINE, *peers]
    heads = [*columns, "roofline / dense", "best peer / fastnn", "core to core, ns"]
    _print_head(dtype, chosen, peers)
    print("\ncell" + "".join(f"  {head:>8}" for head in heads), flush=True)
    start = time.perf_counter()
    notes: dict[tuple[str, str], list[str]] = {}
    for done, cell in enumerate(chosen, 1):
        deadline = start + seconds * done / len(chosen)
        contest = Contest(cell, dtype, peers)
        contest.run(deadline, min(TURN, seconds / len(chosen) / (2 * len(columns))))
        results = contest.summaries()
        contest.close()
        figures = [f"{results[name].best:.5f}" if name in results else "-" for name in columns]
        figures += ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios(results)]
        figures.append(f"{1e9 * results[HANDOVER].best:.0f}" if HANDOVER in results else "-")
        row = "".join(f"  {figure:>{max(8, len(head))}}" for figure, head in zip(figures, heads, strict=True))
        print(f"{cell.label:>4}{row}", flush=True)
        for absent in {**contest.left_out, **contest.wrong}.items():
            notes.setdefault(absent, []).append(cell.label)
    print()
    for (name, reason), labels in notes.items():
        print(f"{name} is left out of cell {', '.join(labels)}: {reason}")


def _print_head(dtype: str, cells: Sequence[Cell], peers: Mapping[str, Peer]) -> None:
    about = config()
    print(f"fastnn {about['fastnn']} ({about['instruction set'].split()[0]}), {about['threads']} thread(s), {dtype}")
    for name in PEERS:
        if name not in peers:
            print(f'{name} is left out: {PACKAGES[name]} is not installed (pip install "fastnn[benchmark]")')
    print("\nSeconds an epoch, best of several turns; roofline: the same arithmetic at the speed of a large product;")
    print("core to core: how long a cache line takes from one core to the other.")
    print(
        "1 to 7: MNIST in order, tanh, plain steps; A to H: MNIST (784 inputs) or a table (64), shuffled, ReLU, Adam;"
    )
    print("I to L: MNIST in order, two convolutions, each pooled, plain steps.")
    for cell in cells:
        print(f"{cell.label:>4}: {cell.name}")
