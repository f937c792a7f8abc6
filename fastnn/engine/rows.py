"""Rows of data, prepared for the kernels: made sparse, checked to be finite, sorted by column; and their digest."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.threads import forks
from fastnn.kernels import columns, sparse
from fastnn.kernels import rows as kernel_rows
from fastnn.kernels.columns import Encoder
from fastnn.kernels.rows import CACHE_LINE, CSRRows
from fastnn.kernels.sparse import SortedBlocks

Rows = NDArray[Any] | CSRRows

# Unsigned integers, by their bytes.
WORDS: dict[int, np.dtype[Any]] = {4: np.dtype(np.uint32), 8: np.dtype(np.uint64)}

# Bytes added to a digest at a time, for Ctrl-C.
DIGESTED_AT_ONCE = 1 << 24


def aligned(shape: int | tuple[int, ...], dtype: np.dtype[Any], zeros: bool = True) -> NDArray[Any]:
    """Return zeros, or numbers as they come, that begin at a cache line, so that vectors do not straddle two."""
    size = shape if isinstance(shape, int) else math.prod(shape)
    memory = (np.zeros if zeros else np.empty)(size * dtype.itemsize + CACHE_LINE, np.uint8)
    begin = -memory.__array_interface__["data"][0] % CACHE_LINE
    return np.ndarray(shape, dtype, memory, begin)


def to_csr(X: NDArray[Any], dtype: np.dtype[Any], n_threads: int = 1) -> CSRRows:
    """Dense rows as CSRRows of dtype."""
    n, n_in = X.shape
    indptr = np.empty(n + 1, np.int64)
    sparse.count_nonzeros(X, indptr, n_threads)
    data, indices = np.empty(indptr[-1], dtype), np.empty(indptr[-1], np.int32)
    sparse.fill_nonzeros(X, indptr, data, indices, n_threads)
    return CSRRows(data, indices, indptr, n_in)


def encode(encoder: Encoder, X: NDArray[Any], dtype: np.dtype[Any], n_threads: int = 1) -> CSRRows:
    """Rows (n, n_columns) of a table, float32 or float64, as features of dtype."""
    n_threads = forks.usable_threads(n_threads) if X.nbytes > tuning.PARALLEL_BYTES else 1
    indptr = np.zeros(len(X) + 1, np.int64)
    columns.count_active(encoder, X, indptr[1:], n_threads)
    np.cumsum(indptr, out=indptr)
    data, indices = np.empty(indptr[-1], dtype), np.empty(indptr[-1], np.int32)
    codes = np.empty((len(X), encoder.n_codes), np.int32)
    columns.encode(encoder, X, indptr, data, indices, codes, n_threads)
    return CSRRows(data, indices, indptr, encoder.n_features, codes if encoder.n_codes else None)


def all_finite(values: NDArray[Any], n_threads: int) -> bool:
    """Whether float32 or float64 numbers are neither infinite nor NaN."""
    n_threads = forks.usable_threads(n_threads) if values.nbytes > tuning.PARALLEL_BYTES else 1
    bits = np.ascontiguousarray(values).reshape(-1).view(WORDS[values.itemsize])
    # Piece by piece, for Ctrl-C: the numbers may come from a disk.
    pieces = (bits[begin : begin + tuning.LOOKED_THROUGH] for begin in range(0, len(bits), tuning.LOOKED_THROUGH))
    return all(kernel_rows.all_finite(piece, n_threads) for piece in pieces)


def density(rows: NDArray[Any]) -> float:
    """Share of non-zeros among the numbers of a sample of dense rows."""
    sample = rows[:: max(1, len(rows) // tuning.DENSITY_SAMPLE)]
    return float(np.count_nonzero(sample) / sample.size)


def as_stored(rows: Rows, dtype: np.dtype[Any], sparse: bool, n_threads: int) -> Rows:
    """Rows as CSRRows of dtype if sparse, else as they are."""
    if not sparse or isinstance(rows, CSRRows):
        return rows
    return to_csr(rows, dtype, forks.usable_threads(n_threads))


def sort_blocks(X: CSRRows, bounds: NDArray[np.int64], n_threads: int = 1) -> SortedBlocks:
    """Sort the non-zeros of each row block, from one bound to the next, by pairs of columns."""
    entries = np.empty(len(X.data), [("values", X.dtype, 2), ("row", np.int32)])
    starts = np.empty((len(bounds) - 1, (X.n_columns + 1) // 2 + 2), np.int32)
    sparse.sort_blocks(X, bounds, entries, starts, n_threads)
    return SortedBlocks(entries, starts, bounds)


def digest(*arrays: NDArray[Any] | None) -> str:
    """Return 128 bits of a hash of the arrays' dtypes, shapes and values."""
    found = hashlib.sha256(usedforsecurity=False)
    for array in arrays:
        found.update(b"none" if array is None else f"{array.dtype.str} {array.shape}".encode())
        if array is not None and array.size:
            values = array.reshape(-1).view(np.uint8)
            for begin in range(0, len(values), DIGESTED_AT_ONCE):
                found.update(values[begin : begin + DIGESTED_AT_ONCE].data)
    return found.hexdigest()[:32]


def digest_rows(rows: Rows, *others: NDArray[Any] | None) -> str:
    """Return the digest of rows in the engine's form, and of other arrays."""
    parts = (rows.data, rows.indices, rows.indptr) if isinstance(rows, CSRRows) else (rows,)
    codes = () if not isinstance(rows, CSRRows) or rows.codes is None else (rows.codes,)
    return digest(*parts, *codes, *others)
