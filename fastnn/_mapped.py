"""Memory-mapped rows that may be larger than memory: the order to take them in, and reading ahead.

A disk is fast only in long stretches, so rows are not drawn from the whole file one by one.  They come in pieces of
consecutive rows; the pieces of one window are in memory at a time.  A separate thread reads the next window while
training uses this one.  Nothing is copied: the system caches what was read as long as it has room.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

#: A piece is long enough that reading it takes longer than finding it; a window is long enough for a thorough shuffle.
PIECE_BYTES = 1 << 20
WINDOW_BYTES = 1 << 28

# Pieces to request before waiting for the first of them, so that the disk is never idle.
QUEUED_PIECES = 8


def stay_on_disk(rows: Any, X: Any) -> TypeGuard[NDArray[Any]]:
    """Whether rows are a memory-mapped X itself, and larger than a window."""
    mapped = isinstance(X, np.memmap) and isinstance(rows, np.ndarray) and np.may_share_memory(rows, X)
    return mapped and rows.nbytes > WINDOW_BYTES


class MappedRows:
    """Rows (n, n_in), C-contiguous, for training in batches, read window by window."""

    def __init__(self, rows: NDArray[Any], batch_size: int) -> None:
        self._rows = rows
        self._batch_size = batch_size
        self._row_bytes = rows.nbytes // len(rows)
        self._piece = max(1, PIECE_BYTES // self._row_bytes)
        self._window = max(1, WINDOW_BYTES // self._row_bytes)
        mapping: Any = rows
        while isinstance(mapping, np.ndarray):
            mapping = mapping.base
        self._mapping: mmap.mmap = mapping
        self._offset = rows.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data

    def shuffled(self, generator: np.random.Generator) -> NDArray[np.intp]:
        """Draw an order (n,) of the rows: the pieces are shuffled, and then the rows within each window of them."""
        n, piece = len(self._rows), self._piece
        starts = np.arange(0, n, piece)
        generator.shuffle(starts)
        order = (starts[:, None] + np.arange(piece)).ravel()
        order = order[order < n]  # the last piece may be short
        for begin in range(0, n, self._window):
            generator.shuffle(order[begin : begin + self._window])
        return order

    @contextmanager
    def read_ahead(self, order: NDArray[np.intp] | None) -> Iterator[Callable[[int], None]]:
        """Yield a function that takes the number of rows done and waits for the next ones to be in memory.

        It also starts to read the next window.  (A batch larger than a window is read in several places at a time; the
        system does that by itself.)
        """
        if self._batch_size > self._window:
            yield lambda done: None
            return
        reading: dict[int, Future[None]] = {}
        closed = False

        def read(window: int) -> None:
            pieces = self._pieces(order, window)
            for first in range(0, len(pieces), QUEUED_PIECES):
                if closed:
                    return
                here = [slice(k * self._piece, (k + 1) * self._piece) for k in pieces[first : first + QUEUED_PIECES]]
                for rows in here:
                    self._advise("MADV_WILLNEED", rows)
                for rows in here:
                    self._rows[rows].view(np.uint8).max()

        def reach(done: int) -> None:
            window = done // self._window
            for k in (window, window + 1):
                if k not in reading:
                    reading[k] = pool.submit(read, k)
            reading[window].result()

        self._advise("MADV_RANDOM", slice(None))  # or the system would read past the end of a piece
        with ThreadPoolExecutor(1, "fastnn-read-ahead") as pool:
            try:
                yield reach
            finally:
                closed = True
                self._advise("MADV_NORMAL", slice(None))

    def _pieces(self, order: NDArray[np.intp] | None, window: int) -> NDArray[np.intp]:
        # The pieces that a window has rows of, in ascending order.
        begin, end = window * self._window, min((window + 1) * self._window, len(self._rows))
        if order is None:
            return np.arange(begin // self._piece, -(-end // self._piece))
        return np.unique(order[begin:end] // self._piece)

    def _advise(self, advice: str, rows: slice) -> None:
        if not hasattr(mmap, advice):  # on Windows
            return
        begin, end, _ = rows.indices(len(self._rows))
        first = (self._offset + begin * self._row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        self._mapping.madvise(getattr(mmap, advice), first, self._offset + end * self._row_bytes - first)
