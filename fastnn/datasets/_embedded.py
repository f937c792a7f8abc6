"""The embedded MNIST, packed a quarter smaller than its own IDX files.

Most pixels are 0, and most of those between others are nearly white.  So the images of each part are two IDX files.
Masks (4, n, 28) have a bit for each pixel, set if it is not 0: first the first eight pixels of all rows, and so on.
Values (m,) are of the pixels that are not 0, in each GROUP images kind after kind: those whose eight neighbours are not
0 either, those of whose neighbours the four in rows and columns are not, and the rest.  ``tests/pack_mnist.py`` made
the files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastnn.datasets._idx import read_idx

FOLDER = Path(__file__).parent / "data"

#: Height and width of an image; bits of a row in the masks, where the last 4 are 0.
SIDE, BITS = 28, 32

#: Images that are unpacked at a time: they are still in the cache when they are copied to their place.
GROUP = 1000


def read_part(part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the pixels (n, 784) and the labels (n,) of a part of MNIST, "train" or "t10k"."""
    masks, values, labels = (
        read_idx(FOLDER / f"{part}-{name}-ubyte.gz") for name in ("masks-idx3", "values-idx1", "labels-idx1")
    )
    return unpack(masks, values), labels


def unpack(masks: NDArray[np.uint8], values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the pixels (n, 784) of images, from their masks (4, n, 28) and values (m,)."""
    n = masks.shape[1]
    octets = np.ascontiguousarray(masks.transpose(1, 2, 0))  # (n, 28, 4)
    kinds = kinds_of_pixels(octets.view(">u4")[..., 0].astype(np.uint32))
    parts = [bits.reshape(n, SIDE * BITS // 8) for bits in (octets, *(kind.astype(">u4").view("u1") for kind in kinds))]
    pixels = np.empty((n, SIDE, SIDE), np.uint8)
    begin = 0
    for first in range(0, n, GROUP):
        of_all, *of_each = (bits[first : first + GROUP].reshape(-1) for bits in parts)
        filled = np.flatnonzero(of_all != 0)
        eights = np.zeros(len(filled), np.uint64)  # the pixels of each octet
        for bits in of_each:
            places = np.flatnonzero(np.unpackbits(bits[filled]).view(bool))
            eights.view(np.uint8)[places] = values[begin : begin + len(places)]
            begin += len(places)
        padded = np.zeros(len(of_all), np.uint64)
        padded[filled] = eights
        pixels[first : first + GROUP] = padded.view(np.uint8).reshape(-1, SIDE, BITS)[..., :SIDE]
    return pixels.reshape(n, SIDE * SIDE)


def kinds_of_pixels(rows: NDArray[np.uint32]) -> list[NDArray[np.uint32]]:
    """Return the bits of each kind of pixels, from the bits (n, 28) of those that are not 0, a row of pixels each."""
    across = rows & (rows << 1) & (rows >> 1)
    of_eight, of_four = np.zeros_like(rows), np.zeros_like(rows)
    of_eight[:, 1:-1] = across[:, :-2] & across[:, 1:-1] & across[:, 2:]
    of_four[:, 1:-1] = rows[:, :-2] & across[:, 1:-1] & rows[:, 2:]
    return [of_eight, of_four & ~of_eight, rows & ~of_four]
