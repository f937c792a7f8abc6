"""How peers are timed: side by side, in turn, each after a pause.

In each round every peer has one turn, so that a drift of the machine's speed meets all alike.  The peak of the
matrix product has its turn too: a cell's operations divided by it are the cell's roofline.  So has a cache line that
goes from one core to the other: how long that takes is what a step on several threads depends on beside arithmetic, and
differs by a factor of six between machines, and within a virtual one from one minute to the next.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastnn
from fastnn.benchmark.cells import Cell
from fastnn.benchmark.peers import AUTOMATIC, Epoch, FitEpochs, Peer
from fastnn.engine.rows import aligned
from fastnn.engine.threads import handover_seconds

#: Seconds to wait before a turn: the threads of OpenBLAS and OpenMP spin for a while after a call, and would
#: take a processor from the next peer.
PAUSE = 0.12

#: Seconds that a turn takes, in as many epochs as fit, at least one.
TURN = 0.3

PEAK = "peak"
ROOFLINE = "roofline"
HANDOVER = "core to core"
PEAK_SIZE = 2000
PEAK_FLOPS = 2 * PEAK_SIZE**3
#: Products a turn, at least: it is the one figure that all rooflines rest on.
PEAK_CALLS = 3

#: By how much the log-likelihoods of the first two epochs may differ from fastnn's: roundings of thousands of
#: steps, each built on the last.
TOLERANCES = {"float32": 1e-3, "float64": 1e-6}
#: Adam's first steps are as long where the gradient is nearly zero, and of either sign by a rounding; and scikit-learn
#: adds its epsilon elsewhere.
ADAM_TOLERANCES = {"float32": 1e-2, "float64": 2e-3}
#: Each peer draws masks of its own.
DROPOUT_TOLERANCE = 0.1


class Summary(NamedTuple):
    """Seconds of one epoch, or of a cache line from core to core: the best of all turns, and the median."""

    best: float
    median: float


@cache
def load_mnist(dtype: str) -> fastnn.datasets.Dataset:
    """Return the 60,000 images of the training and the validation set in dtype, read once."""
    train, valid, _ = fastnn.datasets.load_mnist(dtype=dtype)
    X = aligned((len(train.X) + len(valid.X), train.X.shape[1]), train.X.dtype)
    np.concatenate([train.X, valid.X], out=X)
    return fastnn.datasets.Dataset(X, np.concatenate([train.y, valid.y]))


def load_rows(cell: Cell, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a cell's rows in dtype and their classes; those of a table are standard normal numbers, and random."""
    if cell.data == "mnist":
        images = load_mnist(dtype)
        return images.X[: cell.rows], images.y[: cell.rows]
    generator = np.random.default_rng(0)
    X = generator.standard_normal((cell.rows, cell.sizes[0]), np.float32)
    return X.astype(dtype), generator.integers(cell.sizes[-1], size=cell.rows)


def tolerance(cell: Cell, dtype: str) -> float:
    """By how much a peer's log-likelihoods may differ from fastnn's."""
    if cell.dropout:
        return DROPOUT_TOLERANCE
    return (TOLERANCES if cell.optimizer == "sgd" else ADAM_TOLERANCES)[dtype]


def peak_product(dtype: str) -> Callable[[], Any]:
    """Return a square product as a call; NumPy's BLAS does it on all cores, at the peak of the machine."""
    A = np.random.default_rng(0).random((PEAK_SIZE, PEAK_SIZE)).astype(dtype)
    out = np.empty_like(A)
    return lambda: np.matmul(A, A, out=out)


def timed(call: Callable[[], Any], n_calls: int = 1) -> tuple[Any, list[float]]:
    """Return what the last of several calls returns, and the seconds of each; of a fit, those of its epochs."""
    if isinstance(call, FitEpochs):
        return call(n_calls), call.seconds
    result, seconds = None, []
    for _ in range(n_calls):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return result, seconds


def summarize(seconds: Mapping[str, list[float]], flops: int) -> dict[str, Summary]:
    """Return best and median of each peer, and as the roofline what so many operations would take at the peak."""
    found = {name: Summary(min(times), statistics.median(times)) for name, times in seconds.items()}
    peak, share = found.pop(PEAK), flops / PEAK_FLOPS
    return {ROOFLINE: Summary(share * peak.best, share * peak.median), **found}


class Contest:
    """The peers of one cell, each ready to train an epoch at a call.

    Every peer trains two epochs here: the first compiles and allocates, and both must reach fastnn's
    log-likelihoods.  A peer that cannot take part, or does something else, is skipped.

    Parameters
    ----------
    cell : Cell
    dtype : {"float32", "float64"}
    peers : mapping of str to Peer
        Must hold "fastnn automatic", which the others are held against.

    Attributes
    ----------
    left_out : dict
        Name of a peer that cannot take part to the reason.
    wrong : dict
        Name of a peer that reached other log-likelihoods to what they are.
    seconds : dict
        Name of a peer, "peak" or "core to core" (where that can be measured), to the seconds of each of its timed
        calls.
    """

    def __init__(self, cell: Cell, dtype: str, peers: Mapping[str, Peer]) -> None:
        self.cell = cell
        self.dtype = dtype
        self.left_out: dict[str, str] = {}
        self.wrong: dict[str, str] = {}
        self._calls: dict[str, Callable[[], Any]] = {PEAK: peak_product(dtype)}
        self._estimates: dict[str, float] = {}
        X, y = load_rows(cell, dtype)
        self._calls[PEAK]()
        _, (self._estimates[PEAK],) = timed(self._calls[PEAK])
        reached: dict[str, list[float]] = {}
        for name in sorted(peers, key=lambda name: name != AUTOMATIC):
            try:
                reached[name] = self._first_epochs(name, peers[name], X, y)
            except (ImportError, LookupError) as error:
                self.left_out[name] = " ".join(str(error).split())
                continue
            if not np.allclose(reached[name], reached[AUTOMATIC], rtol=0, atol=tolerance(cell, dtype)):
                self.wrong[name] = f"its log-likelihoods are {reached[name]}, not {reached[AUTOMATIC]}"
                self._close(self._calls.pop(name))
        self.seconds: dict[str, list[float]] = {name: [] for name in (*peers, PEAK) if name in self._calls}
        if handover_seconds() is not None:
            self.seconds[HANDOVER] = []

    def _first_epochs(self, name: str, peer: Peer, X: NDArray[Any], y: NDArray[Any]) -> list[float]:
        call: Epoch = peer(self.cell, X, y)
        self._calls[name] = call
        first, _ = timed(call)
        second, (self._estimates[name],) = timed(call)
        return [first, second]

    def call(self, name: str) -> Callable[[], Any] | None:
        """Return a peer's epoch, or the peak's product; None for what is neither."""
        return self._calls.get(name)

    def calls_a_turn(self, name: str, seconds: float = TURN) -> int:
        """Return how many calls fill a turn, from the fastest so far."""
        fastest = min([self._estimates[name], *self.seconds[name]])
        return max(PEAK_CALLS if name == PEAK else 1, int(seconds / fastest))

    def turn(self, name: str, seconds: float = TURN) -> list[float]:
        """Wait, then time a peer's calls for about this many seconds; return the seconds of each."""
        time.sleep(PAUSE)
        if name == HANDOVER:
            handover = handover_seconds()
            assert handover is not None  # it was there when the contest began
            self.seconds[HANDOVER].append(handover)
            return [handover]
        _, times = timed(self._calls[name], self.calls_a_turn(name, seconds))
        self.seconds[name] += times
        return times

    def run(self, deadline: float, seconds: float = TURN) -> None:
        """Go round until the next round would not end by the deadline, in time.perf_counter's seconds."""
        round_seconds = 0.0
        while round_seconds == 0 or time.perf_counter() + round_seconds < deadline:
            start = time.perf_counter()
            for name in self.seconds:
                self.turn(name, seconds)
            round_seconds = time.perf_counter() - start

    def summaries(self) -> dict[str, Summary]:
        """Return what `summarize` does of the turns so far."""
        return summarize(self.seconds, self.cell.flops)

    def close(self) -> None:
        """Let go of the peers' memory, and end their processes."""
        for call in self._calls.values():
            self._close(call)
        self._calls.clear()

    @staticmethod
    def _close(call: Callable[[], Any]) -> None:
        close = getattr(call, "close", None)
        if close is not None:
            close()
