"""Pack MNIST's four IDX files as `fastnn/datasets/data` holds them; see `fastnn/datasets/_embedded.py`.

    python tests/pack_mnist.py FOLDER

reads the files, gzipped or not, from a folder, and takes a few minutes if Zopfli (`pip install zopfli`) is there, which
packs 2 % tighter than zlib.
"""

import gzip
import struct
import sys

import numpy as np

from fastnn.datasets._embedded import BITS, FOLDER, GROUP, SIDE, kinds_of_pixels
from fastnn.datasets._mnist import IDX_FILES, _load_pair


def idx_bytes(array):
    """Return the content of an IDX file that holds this array, as unsigned bytes."""
    array = np.asarray(array, np.uint8)
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def pack(pixels):
    """Return the masks (4, n, 28) and the values (m,) of images (n, 784)."""
    padded = np.zeros((len(pixels), SIDE, BITS), np.uint8)
    padded[..., :SIDE] = pixels.reshape(-1, SIDE, SIDE)
    octets = np.packbits(padded != 0, axis=-1)
    kinds = [
        np.unpackbits(kind.astype(">u4").view(np.uint8)).reshape(padded.shape).astype(bool)
        for kind in kinds_of_pixels(octets.view(">u4")[..., 0].astype(np.uint32))
    ]
    values = [np.empty(0, np.uint8)]
    for first in range(0, len(pixels), GROUP):
        group = slice(first, first + GROUP)
        values += [padded[group][kind[group]] for kind in kinds]
    return octets.transpose(2, 0, 1), np.concatenate(values)


def compress(content):
    """Return the content as a gzip file, without a time."""
    try:
        from zopfli.gzip import compress
    except ImportError:
        return gzip.compress(content, 9, mtime=0)
    return compress(content, blocksplittingmax=0)  # as many as help


def main(folder):
    """Write the files."""
    from pathlib import Path

    for part, names in IDX_FILES.items():
        pixels, labels = _load_pair(Path(folder), *names)
        masks, values = pack(pixels)
        for name, array in {"masks-idx3": masks, "values-idx1": values, "labels-idx1": labels}.items():
            path = FOLDER / f"{part}-{name}-ubyte.gz"
            path.write_bytes(compress(idx_bytes(array)))
            print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
