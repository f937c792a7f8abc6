"""IDX files, plain or gzipped: the format of MNIST and its relatives.

http://yann.lecun.com/exdb/mnist describes it: two zero bytes, a type code, the number of dimensions, each
dimension as a big-endian 32-bit integer, then the values.  Only unsigned bytes are read here.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_path

File = gzip.GzipFile | io.BufferedReader

UNSIGNED_BYTE = 0x08

#: Largest content of a data file in bytes; 30 times the whole of MNIST.
MAX_BYTES = 2**31

#: A gzipped file may unpack to this many times its size, or to MUCH bytes; MNIST has 5 to 30 times.
MAX_RATIO, MUCH = 200, 2**26

#: Bytes to unpack at a time: they are still in the cache when they are copied to their place.
CHUNK_BYTES = 2**18


def open_maybe_gzip(path: str | os.PathLike[str]) -> File:
    """Open a file for reading, through gzip if it begins like a gzip file."""
    name = check_path(path)
    with open(name, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(name, "rb") if zipped else open(name, "rb")


def most_bytes(file: File) -> int:
    """Return the bytes of a file's content, or the most that is plausible if it is gzipped."""
    size = os.fstat(file.fileno()).st_size
    return min(MAX_BYTES, max(MUCH, MAX_RATIO * size)) if isinstance(file, gzip.GzipFile) else size


def read_idx(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes.

    Parameters
    ----------
    path : path
        The file, gzipped or not.

    Returns
    -------
    array of uint8
        Its shape is the file's: (n, rows, columns) for images, (n,) for labels.

    Raises
    ------
    OSError
        If there is no such file or it cannot be read.
    ValueError
        If it is not an IDX file, is too short or too long, or states an absurd size; names the file.
    """
    with _readable(path) as file:
        return _read(file)


def read_idx_shape(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Return the shape that an IDX file states; raises as `read_idx` does."""
    with _readable(path) as file:
        return _read_shape(file)


@contextlib.contextmanager
def _readable(path: str | os.PathLike[str]) -> Iterator[File]:
    try:
        with open_maybe_gzip(path) as file:
            yield file
    except (ValueError, EOFError, MemoryError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{os.fspath(path)} is not a usable IDX file: {error}") from error


def _read_shape(file: File) -> tuple[int, ...]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] != UNSIGNED_BYTE or not 1 <= head[3] <= 4:
        raise ValueError(f"it begins with {head.hex(' ') or 'nothing'}, not with 00 00 08 and 1 to 4 dimensions")
    dimensions = file.read(4 * head[3])
    if len(dimensions) < 4 * head[3]:
        raise ValueError("it ends within its header")
    return struct.unpack(f">{head[3]}I", dimensions)


def _read(file: File) -> NDArray[np.uint8]:
    shape = _read_shape(file)
    n_bytes = math.prod(shape)
    if n_bytes > MAX_BYTES:
        raise ValueError(f"it states the shape {shape}, more than {MAX_BYTES} bytes")
    most = max(0, most_bytes(file) - 4 - 4 * len(shape))
    if n_bytes > most:
        raise ValueError(f"it states the shape {shape}, {n_bytes} bytes, but holds only {most} bytes")
    content = np.empty(n_bytes, np.uint8)
    n_read = 0
    while n_new := file.readinto(content.data[n_read : n_read + CHUNK_BYTES]):
        n_read += n_new
    if n_read < n_bytes or file.read(1):
        found = f"only {n_read} bytes" if n_read < n_bytes else "more bytes"
        raise ValueError(f"it states the shape {shape}, {n_bytes} bytes, but holds {found}")
    return content.reshape(shape)
