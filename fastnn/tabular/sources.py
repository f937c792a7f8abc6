"""Tables from files: CSV, Parquet, and NumPy's archives, as the frames that `frames.read_frame` takes.

Python's own module reads CSV: it is always there, and the same file gives the same table everywhere.  A file is read
as hostile.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_path
from fastnn.datasets._csv import QUOTED, count, is_number
from fastnn.datasets._files import read_numpy
from fastnn.datasets._idx import most_bytes, open_maybe_gzip
from fastnn.tabular.readers import MISSING_NUMBERS

#: What may separate cells; the one that the header has most of does.
MARKS = ",;\t"

#: Characters of a line, at most.
MOST_CHARACTERS = 2**24

#: Endings of files other than CSV, which may have any.
PARQUET, NUMPY = (".parquet", ".pq"), (".npz", ".npy")

#: Where a line begins like a code: 007 is no number.
CODE = re.compile(r"^[+-]?0\d", re.MULTILINE)

#: In what Python takes for a number and we do not: nan, inf, 1_000.
NO_NUMERALS = "nN_"

# A dict of columns, or pyarrow's table.
Source = Any


def read_source(path: str | os.PathLike[str], as_text: Collection[str] = ()) -> tuple[Source, list[str]]:
    """Read a table from a file of the kind that its ending says.

    Parameters
    ----------
    path : path
        ``.parquet`` or ``.pq``, with pyarrow; ``.npz`` with X (n, n_columns), whose columns become x0, x1, ..., and
        maybe y (n,); ``.npy`` with X; any other ending means CSV, gzipped or not.
    as_text : collection of str, default ()
        Columns of a CSV that are not numbers even if they look like it.

    Returns
    -------
    (dict of columns, or pyarrow's table; list of str)
        The table, and what was assumed about the file, in words.

    Raises
    ------
    OSError
        If there is no such file or it cannot be read.
    ImportError
        If the file is of Parquet and pyarrow is missing.
    ValueError
        If the content is of another kind, or damaged; names the file, and the line of a CSV.
    """
    name = check_path(path)
    with open(name, "rb"):  # raises an OSError that names a missing or unreadable file
        pass
    ending = os.path.splitext(name)[1].lower()
    if ending in PARQUET:
        return _read_parquet(name), []
    if ending in NUMPY:
        return _read_arrays(name, ending == ".npz"), []
    return _read_csv(name, as_text)


def names_of(source: Source) -> list[str]:
    """Return the columns' names."""
    return list(source if isinstance(source, dict) else source.column_names)


def select(source: Source, names: Iterable[str]) -> Source:
    """Return these columns."""
    return {name: source[name] for name in names} if isinstance(source, dict) else source.select(list(names))


def take(source: Source, rows: NDArray[np.intp]) -> Source:
    """Return the rows at these positions."""
    if not isinstance(source, dict):
        return source.take(rows)
    places = rows.tolist()
    return {
        name: column[rows] if isinstance(column, np.ndarray) else [column[i] for i in places]
        for name, column in source.items()
    }


def _read_parquet(name: str) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"{name}: reading Parquet needs pyarrow: pip install pyarrow") from error
    try:
        return parquet.ParquetFile(name).read()
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        raise ValueError(f"{name} is not a usable Parquet file: {error}") from error


def _read_arrays(name: str, is_archive: bool) -> dict[str, NDArray[Any]]:
    X = read_numpy(name, kinds="biufU")
    if X.ndim != 2:
        raise ValueError(f"{name} holds an X of shape {X.shape}; rows of a table, (n, n_columns), were expected")
    columns = {f"x{j}": X[:, j] for j in range(X.shape[1])}
    if is_archive:
        with np.load(name) as archive:
            has_y = "y" in archive.files
        if has_y:
            columns["y"] = read_numpy(name, "y", "biufU")
            if columns["y"].shape != (len(X),):
                raise ValueError(f"{name} holds a y of shape {columns['y'].shape}; {(len(X),)} was expected")
    return columns


def _read_csv(name: str, as_text: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    try:
        with open_maybe_gzip(name) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            names, columns, notes = _parse(_lines(text, most_bytes(file)))
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"{name} is not a usable CSV file: it is not text in UTF-8 (byte 0x{byte:02x})") from error
    except (ValueError, EOFError, zlib.error, MemoryError, OSError) as error:
        raise ValueError(f"{name} is not a usable CSV file: {error}") from error
    return {
        each: cells if each in as_text else numbers_of(cells) for each, cells in zip(names, columns, strict=True)
    }, notes


def _lines(text: io.TextIOWrapper, most: int) -> Iterator[str]:
    total = 0
    for number, line in enumerate(iter(lambda: text.readline(MOST_CHARACTERS), ""), 1):
        total += len(line)
        if total > most:
            raise ValueError(f"it unpacks to more than {most:,} characters")
        if len(line) == MOST_CHARACTERS:
            raise ValueError(f"line {number} is longer than {MOST_CHARACTERS:,} characters")
        if "\0" in line:
            raise ValueError(f"line {number} holds a NUL, which text does not")
        yield line


def _parse(lines: Iterator[str]) -> tuple[list[str], list[list[str]], list[str]]:
    # Names, columns of cells without blanks around them, and notes.
    n_before, first = next(((k, line) for k, line in enumerate(lines) if line.strip()), (0, ""))
    if not first:
        raise ValueError("it is empty")
    bare = QUOTED.sub("", first)
    reader = csv.reader(
        itertools.chain([first], lines), delimiter=max(MARKS, key=bare.count), strict=True, skipinitialspace=True
    )
    rows: list[list[str]] = []
    try:
        names = [name.strip() for name in next(reader)]
        for row in reader:
            if len(row) == len(names):
                rows.append(row)
            elif any(map(str.strip, row)):  # others are empty lines
                raise csv.Error(f"it has {count(len(row))}, and the header has {len(names)}")
    except csv.Error as error:
        raise ValueError(f"line {n_before + reader.line_num}: {error}") from error
    kept, notes = _check_names(names)
    if not rows:
        raise ValueError("it holds no rows but the header")
    columns = [list(map(str.strip, cells)) for cells in zip(*rows, strict=True)]
    return names[kept:], columns[kept:], notes


def _check_names(names: Sequence[str]) -> tuple[int, list[str]]:
    # From which column on the table is, and notes.
    if all(is_number(name) or not name for name in names):
        raise ValueError(
            f"its first line must be a header, the names of the columns, and looks like a row: {names[0]!r:.40}, ..."
        )
    index = len(names) > 1 and not names[0]
    if "" in names[index:]:
        raise ValueError(f"its column {1 + names.index('', index)} has no name")
    name, n_columns = Counter(names).most_common(1)[0]
    if n_columns > 1:
        raise ValueError(f"{n_columns} of its columns have the name {name!r:.40}")
    return int(index), ["its first column, which has no name, is taken as an index and left out"] * index


def numbers_of(cells: list[str]) -> list[str] | NDArray[np.float64]:
    """Return a column of text as numbers if all of it is, by the rules of `Table.learn`; else as it is."""
    found = _floats(cells)
    if found is None:
        found = _floats(["" if cell.lower() in MISSING_NUMBERS else cell for cell in cells])
    return cells if found is None else found


def _floats(cells: list[str]) -> NDArray[np.float64] | None:
    text = "\n".join(cells)
    if not text.isascii() or any(mark in text for mark in NO_NUMERALS) or CODE.search(text) or not text.strip():
        return None
    try:
        return np.array([float(cell or "nan") for cell in cells])
    except ValueError:
        return None
