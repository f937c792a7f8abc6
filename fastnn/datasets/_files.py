"""Rows from a user's file: NumPy arrays, IDX, CSV or a picture."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_path
from fastnn.datasets._idx import read_idx


def read_rows(path: str | os.PathLike[str], n_in: int) -> NDArray[Any]:
    """Read rows to classify, the kind told by the file's ending.

    Parameters
    ----------
    path : path
        ``.npy``; ``.npz`` (its array X, or its only one); ``.csv`` (numbers with commas, a header line or none);
        ``.png``; any other ending, with or without ``.gz``, is taken as IDX.
    n_in : int
        Numbers in a row.

    Returns
    -------
    array (n, n_in)
        uint8 if the file holds pixels from 0 to 255: also those of a CSV of whole numbers up to 255 with one
        above 1.  A picture becomes one row: grey, scaled to the network's square, and turned to light on dark if
        its border is light, since that is how MNIST's digits are.

    Raises
    ------
    OSError
        If there is no such file or it cannot be read.
    ImportError
        If a picture is asked for and Pillow (extra ``plot``) is missing.
    ValueError
        If the content is not that or does not fit; names the file.
    """
    name = check_path(path)
    with open(name, "rb"):  # a missing or unreadable file is an OSError that names it
        pass
    readers = {".npy": _read_numpy, ".npz": _read_numpy, ".csv": _read_csv}
    ending = Path(name).suffix.lower()
    if ending == ".png":
        return _read_picture(name, n_in)
    array = readers[ending](name) if ending in readers else read_idx(name)
    rows = array.reshape(len(array), -1) if array.ndim > 2 else array
    if (array.size == n_in and array.shape[-1] != n_in) or array.ndim == 1:
        rows = array.reshape(1, -1)  # a single image or a single row
    if rows.shape[1] != n_in:
        raise ValueError(f"{name} holds an array of shape {array.shape}; rows of {n_in} numbers were expected")
    return rows


def _read_numpy(name: str) -> NDArray[Any]:
    import zipfile

    try:
        with open(name, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):  # an archive of arrays
                if "X" not in loaded.files and len(loaded.files) != 1:
                    raise ValueError(f"it holds the arrays {loaded.files}; one named X was expected")
                loaded = loaded["X" if "X" in loaded.files else loaded.files[0]]
    except (
        ValueError,
        EOFError,
        SyntaxError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        MemoryError,
    ) as error:
        raise ValueError(f"{name} is not a usable NumPy file: {error}") from error
    if loaded.ndim == 0 or loaded.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds an array of shape {loaded.shape}, {loaded.dtype}; numbers were expected")
    array: NDArray[Any] = loaded
    return array


def _read_csv(name: str) -> NDArray[Any]:
    try:
        with open(name, encoding="utf-8-sig") as file:
            first = file.readline()
            header = not all(_is_number(cell) for cell in first.strip().split(","))
            if not header:
                file.seek(0)
            lines = [line for line in file if line.strip()]
        if not lines:
            raise ValueError("it holds no rows")
        array = np.loadtxt(lines, delimiter=",", ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is not a usable CSV file: {error}") from error
    whole = np.isfinite(array).all() and (array == np.floor(array)).all()
    return array.astype(np.uint8) if whole and array.min() >= 0 and 1 < array.max() <= 255 else array


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_picture(name: str, n_in: int) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('reading pictures needs Pillow: pip install "fastnn[plot]"') from error
    side = round(n_in**0.5)
    if side * side != n_in:
        raise ValueError(f"{name} is a picture, but the network's {n_in} inputs are not a square of pixels")
    try:
        with Image.open(name, formats=["PNG"]) as picture:
            flat = Image.new("RGBA", picture.size, "white")
            flat.alpha_composite(picture.convert("RGBA"))
            grey = flat.convert("L")
        pixels = np.asarray(
            grey.resize((side, side), Image.Resampling.BOX if min(grey.size) >= side else Image.Resampling.BILINEAR)
        )
    except (ValueError, SyntaxError, OSError, Image.DecompressionBombError, MemoryError) as error:
        raise ValueError(f"{name} is not a usable PNG file: {error}") from error
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) > 127:
        pixels = 255 - pixels
    return pixels.reshape(1, -1)
