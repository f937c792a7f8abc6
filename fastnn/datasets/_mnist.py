"""MNIST [1]: the embedded copy, a folder of IDX files, or a pickled ``mnist.pkl.gz``.

[1] Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86 (1998).
"""

from __future__ import annotations

import gzip
import os
import pickle
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn._validation import STORED, check_choice, check_path
from fastnn.datasets import _embedded
from fastnn.datasets._idx import MAX_BYTES, most_bytes, open_maybe_gzip, read_idx, read_idx_shape
from fastnn.datasets._pickle import load_arrays
from fastnn.engine.rows import aligned
from fastnn.kernels.rows import UINT8_SCALE

IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "t10k": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

#: One in six rows, the last of the training files, is for validation: 10,000 of MNIST's 60,000.
VALIDATION_SHARE = 6


class Dataset(NamedTuple):
    """Rows and their classes.

    Attributes
    ----------
    X : (n, n_in) array
        Images, one a row.
    y : (n,) int64 array
        Class of each row.
    """

    X: NDArray[Any]
    y: NDArray[np.int64]


def load_mnist(
    path: str | os.PathLike[str] | None = None, dtype: DTypeLike = "float32"
) -> tuple[Dataset, Dataset, Dataset]:
    """Load handwritten digits as training, validation and test set.

    Parameters
    ----------
    path : path or None, default None
        None loads the embedded MNIST.  Otherwise a folder with the four IDX files under MNIST's names, gzipped or
        not, or a file ``mnist.pkl.gz``: a pickle, of any protocol, of three pairs (X, y).
    dtype : {"float32", "float64", "uint8"}, default "float32"
        dtype of X.  Pixels are multiplied by 1/256; uint8 leaves them from 0 to 255, and networks scale them.

    Returns
    -------
    train, valid, test : Dataset
        With MNIST 50,000, 10,000 and 10,000 rows of 784 pixels.  The validation set is the last sixth of the
        training files.

    Raises
    ------
    OSError
        If a file is missing or cannot be read.
    ValueError
        If a file is damaged, or its content contradicts itself or the other files; the message names it.
    """
    wanted: np.dtype[Any] = check_choice(np.dtype(dtype), "dtype", STORED)
    if path is not None and os.path.isfile(name := check_path(path)):
        return _load_pickle(name, wanted)
    with ThreadPoolExecutor(2) as pool:  # most of the work is done without the GIL
        if path is None:
            (images, labels), test = pool.map(_embedded.read_part, IDX_FILES)
        else:
            folder = Path(check_path(path))
            (images, labels), test = pool.map(lambda names: _load_pair(folder, *names), IDX_FILES.values())
    n_train = len(images) - len(images) // VALIDATION_SHARE
    pairs = [(images[:n_train], labels[:n_train]), (images[n_train:], labels[n_train:]), test]
    if images.shape[1] != test[0].shape[1]:
        raise ValueError(f"the training and test images in {path} differ in size")
    train, valid, test_set = (Dataset(_scale(X, wanted), y.astype(np.int64)) for X, y in pairs)
    return train, valid, test_set


def image_shape(path: str | os.PathLike[str] | None = None) -> tuple[int, ...] | None:
    """Return height and width of the images that `load_mnist` reads; None if it reads a pickle, of flat rows."""
    if path is None:
        return (_embedded.SIDE, _embedded.SIDE)
    if os.path.isfile(check_path(path)):
        return None
    return read_idx_shape(_find(Path(path), IDX_FILES["train"][0]))[1:]


def _scale(pixels: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype == np.uint8:
        return pixels
    # Some products are a tenth faster if rows begin at cache lines, which NumPy's large arrays do not.
    scaled = aligned(pixels.shape, dtype)
    np.multiply(pixels, dtype.type(UINT8_SCALE), out=scaled)
    return scaled


def _load_pair(folder: Path, images_name: str, labels_name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images_path, labels_path = _find(folder, images_name), _find(folder, labels_name)
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.size == 0:
        raise ValueError(f"{images_path} should hold images (n, rows, columns), but its shape is {images.shape}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{labels_path} holds labels of shape {labels.shape} for {len(images)} images")
    return images.reshape(len(images), -1), labels


def _find(folder: Path, name: str) -> Path:
    # Some distributions have a dot instead of the second-last hyphen.
    for candidate in (name, name.replace("-idx", ".idx")):
        for ending in ("", ".gz"):
            if (folder / (candidate + ending)).is_file():
                return folder / (candidate + ending)
    raise FileNotFoundError(f"{folder} has no file {name} or {name}.gz")


def _load_pickle(path: str, dtype: np.dtype[Any]) -> tuple[Dataset, Dataset, Dataset]:
    try:
        with open_maybe_gzip(path) as file:
            most = min(MAX_BYTES, most_bytes(file))
            content = file.read(most + 1)
        if len(content) > most:
            raise ValueError(f"it holds more than {most} bytes, too many for a file of its size")
        found = load_arrays(content)
        if not isinstance(found, (tuple, list)) or len(found) != 3:
            raise ValueError("it should hold three pairs (X, y)")
        train, valid, test = (_pickled_set(pair, dtype) for pair in found)
        if not train.X.shape[1] == valid.X.shape[1] == test.X.shape[1]:
            raise ValueError("its three sets differ in their number of columns")
    except (
        pickle.UnpicklingError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        EOFError,
        BufferError,
        MemoryError,
        OverflowError,
        RecursionError,
        zlib.error,
        gzip.BadGzipFile,
    ) as error:
        raise ValueError(f"{path} is not a usable MNIST pickle: {error}") from error
    return train, valid, test


def _pickled_set(pair: Any, dtype: np.dtype[Any]) -> Dataset:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError("it should hold pairs (X, y)")
    X, y = (np.asarray(part) for part in pair)
    if X.ndim != 2 or X.dtype.kind not in "uf" or y.shape != X.shape[:1] or y.dtype.kind not in "iu" or not X.size:
        raise ValueError(f"X of shape {X.shape}, {X.dtype}, does not match y of shape {y.shape}, {y.dtype}")
    if y.min() < 0:
        raise ValueError(f"y holds the class {y.min()}")
    if X.dtype.kind == "u":
        if X.dtype != np.uint8:
            raise ValueError(f"X is of dtype {X.dtype}")
        return Dataset(_scale(X, dtype), y.astype(np.int64))
    with np.errstate(all="ignore"):  # numbers beyond the dtype become infinity
        X = np.rint(X / UINT8_SCALE) if dtype == np.uint8 else X.astype(dtype)
        if dtype == np.uint8 and not (X.min() >= 0 and X.max() <= 255):  # pixel / 256, as in the tutorial's file
            raise ValueError("X does not hold pixel / 256, so it cannot become uint8")
    if not np.isfinite(X).all():
        raise ValueError(f"X holds NaN, infinity or numbers beyond {dtype}")
    return Dataset(X.astype(dtype, copy=False), y.astype(np.int64))
