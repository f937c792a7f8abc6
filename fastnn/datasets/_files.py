"""Rows from a user's file: NumPy arrays, IDX, CSV or a picture."""

from __future__ import annotations

import io
import math
import os
import struct
import tokenize
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_choice, check_input_shape, check_path
from fastnn.datasets._csv import HEADERS, read_csv
from fastnn.datasets._idx import MAX_RATIO, MUCH, read_idx

if TYPE_CHECKING:
    from PIL import Image

#: Pixels of the largest picture, which takes up to 300 MB to read; first bytes of a PNG, up to its size.
MAX_PIXELS, PNG_HEAD = 2**24, 26


def read_rows(path: str | os.PathLike[str], n_in: int | Sequence[int], header: str = "auto") -> NDArray[Any]:
    """Read rows to classify from a file of the kind that its ending says.

    Parameters
    ----------
    path : path
        ``.npy``; ``.npz`` (its array X, or its only one); ``.csv``; ``.png``; any other ending, with or without
        ``.gz``, means IDX.
    n_in : int, or (height, width, channels)
        Numbers in a row, or the shape of an image.
    header : {"auto", "yes", "no"}, default "auto"
        Whether a CSV file begins with a line of names; see Notes.

    Returns
    -------
    array (n, n_in)
        The numbers in the file: uint8 from IDX files and pictures, float64 from CSV, the array's own dtype from NumPy's
        files.  A picture becomes one row: grey from 0 to 255, scaled to the shape or, without one, to a square, and
        inverted if its border is light, because MNIST's digits are light on dark.  For a shape of three channels it
        keeps its colours, and is not inverted.

    Raises
    ------
    OSError
        If there is no such file or it cannot be read.
    ImportError
        If the file is a picture and Pillow (extra ``plot``) is missing.
    ValueError
        If the content is of another kind or shape; names the file, and the line of a CSV.

    Notes
    -----
    Commas, semicolons, tabs or blanks, whichever the first line has, separate the cells of a CSV; cells may be quoted.
    Empty lines and lines that begin with # are skipped.  The first line is a header if none of its cells is a number.
    It is also one if its cells are the columns' numbers, 0, 1, 2, ... or 1, 2, 3, ..., as pandas writes them: of ten
    columns or more, or after an additional empty cell.  ``0,1`` and the like could be a row too, so `header` must say.
    If a header's first cell is empty, and there is one column more than `n_in`, that column is an index and skipped.
    """
    return read_file(path, n_in, header)[0]


def read_file(
    path: str | os.PathLike[str], n_in: int | Sequence[int], header: str = "auto"
) -> tuple[NDArray[Any], list[str]]:
    """Read rows as `read_rows` does; also return what was assumed about the file, in words."""
    name, shape = check_path(path), check_input_shape(n_in)
    n_in = math.prod(shape)
    check_choice(header, "header", HEADERS)
    with open(name, "rb"):  # raises an OSError that names a missing or unreadable file
        pass
    ending = Path(name).suffix.lower()
    notes: list[str] = []
    if header != "auto" and ending != ".csv":
        raise ValueError(f"{name} is not a .csv file: it has no header")
    if ending == ".png":
        array: NDArray[Any] = _read_picture(name, shape)
    elif ending == ".csv":
        array, notes = read_csv(name, n_in, header)
    else:
        array = read_numpy(name) if ending in (".npy", ".npz") else read_idx(name)
    forms = [shape, shape[:2]] if shape[-1] == 1 else [shape]
    if len(shape) == 3 and array.ndim > 2 and array.shape not in forms and array.shape[1:] not in forms:
        raise ValueError(
            f"{name} holds an array of shape {array.shape}; images (height, width, channels) of {shape} were expected"
        )
    rows = array.reshape(len(array), math.prod(array.shape[1:])) if array.ndim > 2 else array
    if (array.size == n_in and array.shape[-1] != n_in) or array.ndim == 1:
        rows = array.reshape(1, -1)  # a single image or a single row
    if rows.shape[1] != n_in:
        hint = "; is one of the columns an index or the class?" if rows.shape[1] == n_in + 1 else ""
        raise ValueError(f"{name} holds an array of shape {array.shape}; rows of {n_in} numbers were expected{hint}")
    return rows, notes


class _Stream:
    """A file that NumPy does not recognise: from real files it reads less than the header says, for some dtypes."""

    def __init__(self, file: io.BufferedReader) -> None:
        self.read, self.seek, self.tell, self.seekable = file.read, file.seek, file.tell, file.seekable


def read_numpy(name: str, wanted: str = "X", kinds: str = "biuf") -> NDArray[Any]:
    """Return an array of one of these kinds: an .npy's, or the wanted one or, instead of X, the only one of an .npz."""
    import zipfile

    try:
        with open(name, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files from Python 2
            loaded: Any = np.load(_Stream(file), allow_pickle=False)
            if not isinstance(loaded, np.ndarray):  # an archive of arrays
                loaded = _from_archive(loaded, wanted)
    except (
        ValueError,
        EOFError,
        SyntaxError,
        tokenize.TokenError,
        TypeError,
        AttributeError,
        LookupError,
        ArithmeticError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        OSError,  # of unpacking: the file itself was readable
        MemoryError,
    ) as error:
        raise ValueError(f"{name} is not a usable NumPy file: {error}") from error
    if loaded.ndim == 0 or loaded.dtype.kind not in kinds:
        raise ValueError(f"{name} holds an array of shape {loaded.shape}, {loaded.dtype}; numbers were expected")
    array: NDArray[Any] = loaded
    return array


def _from_archive(archive: Any, wanted: str) -> Any:
    """Return the wanted array of an .npz; its only array if X is wanted."""
    import zipfile

    if wanted not in archive.files:
        if wanted != "X" or len(archive.files) != 1:
            held = ", ".join(archive.files[:9]) or "(none)"
            raise ValueError(f"it holds the arrays {held}; one named {wanted} was expected")
        wanted = archive.files[0]
    for member in archive.zip.infolist():
        if member.filename not in (wanted, f"{wanted}.npy"):
            continue
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{wanted} is compressed in a way that NumPy does not use")
        if member.file_size > max(MUCH, MAX_RATIO * member.compress_size):
            raise ValueError(
                f"it says that {wanted} has {member.file_size} bytes, from {member.compress_size} compressed ones"
            )
    array = archive[wanted]
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{wanted} is not an array")
    return array


def _read_picture(name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('reading pictures needs Pillow: pip install "fastnn[plot]"') from error
    if len(shape) == 1:
        side = math.isqrt(shape[0])
        if side * side != shape[0]:
            raise ValueError(f"{name} is a picture, but the network's {shape[0]} inputs are not a square of pixels")
        shape = (side, side, 1)
    high, wide, channels = shape
    if channels not in (1, 3):
        raise ValueError(
            f"{name} is a picture, grey or of 3 colours, but the network's images have {channels} channels"
        )
    with open(name, "rb") as file:
        head = file.read(PNG_HEAD)
    try:
        if len(head) < PNG_HEAD or head[12:16] != b"IHDR":
            raise ValueError("it does not begin like one")
        width, height, depth = struct.unpack(">IIB", head[16:25])
        if width * height > MAX_PIXELS:
            raise ValueError(f"it has {width} x {height} pixels, more than the limit of {MAX_PIXELS}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about chunks of animations and photographs
            with Image.open(name, formats=["PNG"]) as picture:
                if picture.size != (width, height):
                    raise ValueError("it has two sizes")
                flat = _flatten(picture, depth).convert("L" if channels == 1 else "RGB")
        shrinks = flat.width >= wide and flat.height >= high
        pixels = np.asarray(flat.resize((wide, high), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR))
    except (
        ValueError,
        SyntaxError,
        OSError,
        struct.error,
        zlib.error,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        Image.DecompressionBombError,
        MemoryError,
    ) as error:
        raise ValueError(f"{name} is not a usable PNG file: {error}") from error
    if channels == 1:
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        if np.median(border) > 127:
            pixels = 255 - pixels
    return pixels.reshape(1, -1)


def _flatten(picture: Image.Image, depth: int) -> Image.Image:
    """Return a picture of any PNG kind with values from 0 to 255, on white; depth: bits of a stored value."""
    from PIL import Image

    mode, clear = picture.mode, picture.info.get("transparency")
    if mode in ("1", "L", "I", "I;16", "I;16B", "I;16L"):
        # By hand: Pillow clips 16 bits to 8, and compares the transparent value without scaling it.
        values = np.asarray(picture)
        top = {"1": 1, "L": 255}.get(mode, 65535)
        grey = ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)
        if clear is not None:
            grey[values == clear * top // (2**depth - 1)] = 255
        return Image.fromarray(grey)
    if mode not in ("LA", "P", "PA", "RGB", "RGBA"):
        raise ValueError(f"its mode {mode} is not supported")
    if mode == "RGB" and clear is not None and depth == 16:
        raise ValueError("its mode is RGB of 16 bits with a transparent colour, which is not supported")
    flat = Image.new("RGBA", picture.size, "white")
    flat.alpha_composite(picture.convert("RGBA"))
    return flat
