"""Numbers from a CSV file, with or without a header, and with any usual separator."""

from __future__ import annotations

import itertools
import re
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADERS = ("auto", "yes", "no")

#: In this many columns or more, 0, 1, 2, ... is a header; only a narrow row may happen to be these numbers.
SURELY_HEADER = 10

QUOTED = re.compile('"[^"]*"')


class Table:
    """The lines of a file that are not empty; the first one decides how cells are separated.

    Attributes
    ----------
    lines : iterator of (int, str)
        Numbers of the lines in the file, from 1, and their text.
    delimiter : str or None
        What separates the cells; None for blanks.
    numbers : array of int
        Numbers of the lines that were returned as rows.
    """

    def __init__(self, file: Iterable[str], comments: bool) -> None:
        kept = ((k, line) for k, line in enumerate(file, 1) if line.strip())
        # A header may begin with #, as NumPy writes it.
        lines = (item for k, item in enumerate(kept) if (k == 0 and comments) or not item[1].startswith("#"))
        first = next(lines, None)
        if first is None:
            raise ValueError("it holds no rows")
        bare = QUOTED.sub("", first[1])
        self.delimiter = next((mark for mark in ";,\t" if mark in bare), None)
        self.lines: Iterator[tuple[int, str]] = itertools.chain([first], lines)
        self.numbers = array("q")

    def cells(self, line: str) -> list[str]:
        """Return the cells of a line, without blanks and quotes around them."""
        cells = [cell.strip() for cell in line.strip("\n").split(self.delimiter)]
        return [cell[1:-1].strip() if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell for cell in cells]

    def rows(self, n_in: int) -> Iterator[str]:
        """Yield lines with as many cells as the first, and no more lines than rows of n_in numbers can come from."""
        width = 0
        for number, line in self.lines:
            n_cells = len(line.split()) if self.delimiter is None else line.count(self.delimiter) + 1
            width = width or n_cells
            if n_cells != width:
                raise ValueError(f"line {number} has {count(n_cells)}, and the rows before it have {width}")
            self.numbers.append(number)
            if n_cells not in (n_in, n_in + 1) and n_cells * len(self.numbers) > n_in:
                raise ValueError(f"line {number} has {count(n_cells)}; rows of {n_in} numbers were expected")
            yield line


def is_number(cell: str) -> bool:
    """Whether NumPy reads this as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and "_" not in cell


def count(n_cells: int) -> str:
    """Return a number of cells in words."""
    return f"{n_cells} cell{'s' * (n_cells != 1)}"


def count_up(cells: list[str]) -> bool:
    """Whether these are the numbers of columns, from 0 or 1; also written 0.0, 1.0, ..."""
    first = float(cells[0]) if cells and is_number(cells[0]) else -1
    return first in (0, 1) and all(is_number(cell) and float(cell) == first + k for k, cell in enumerate(cells))


def is_header(cells: list[str], number: int, n_in: int) -> bool:
    """Whether the first line is a header; nothing but the line itself decides."""
    numbers = [is_number(cell) for cell in cells]
    if all(numbers):
        if len(cells) < SURELY_HEADER and cells == [str(k) for k in range(len(cells))]:
            raise ValueError(f"line {number} may be a row or a header of column numbers: say which, header yes or no")
        return len(cells) >= SURELY_HEADER and count_up(cells)
    if any(cells) and not any(numbers):
        return True
    if len(cells) == n_in + 1 and cells[0] == "" and count_up(cells[1:]):
        return True
    wrong = numbers.index(False)
    raise ValueError(
        f"line {number}, cell {wrong + 1}: {cells[wrong]!r} is not a number; if it is a header, say header yes"
    )


def read_csv(name: str, n_in: int, header: str) -> tuple[NDArray[Any], list[str]]:
    """Return the numbers (n, columns), float64, and the assumptions in words; errors name file and line."""
    try:
        with open(name, encoding="utf-8-sig") as file:
            return _read(Table(file, header == "yes"), n_in, header)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not a usable CSV file: it is not text in UTF-8: {error}") from error
    except (ValueError, MemoryError) as error:
        raise ValueError(f"{name} is not a usable CSV file: {error}") from error


def _read(table: Table, n_in: int, header: str) -> tuple[NDArray[Any], list[str]]:
    notes: list[str] = []
    number, line = next(table.lines)
    names = table.cells(line)
    if header == "yes" or (header == "auto" and is_header(names, number, n_in)):
        if header == "auto" and is_number(names[-1]):
            notes.append(f"line {number} is taken as a header of column numbers")
    else:
        names, table.lines = [], itertools.chain([(number, line)], table.lines)
    first = next(table.lines, None)
    if first is None:
        raise ValueError("it holds no rows" + (f": line {number} is taken as a header" if names else ""))
    n_cells = len(table.cells(first[1]))
    if header == "auto" and names and len(names) != n_cells and table.delimiter is not None:
        raise ValueError(f"line {first[0]} has {count(n_cells)}, and the header has {len(names)}")
    has_index = bool(names) and n_cells == len(names) == n_in + 1 and names[0] == ""
    if has_index:
        notes.append("its first column, which has no name, is taken as an index and left out")
    table.lines = itertools.chain([first], table.lines)
    numbers = _parse(table, n_in, range(1, n_cells) if has_index else None)
    finite = np.isfinite(numbers).all(axis=1)
    if not finite.all():
        raise ValueError(f"line {table.numbers[int(finite.argmin())]} holds NaN or infinity")
    return numbers, notes


def _parse(table: Table, n_in: int, columns: range | None) -> NDArray[Any]:
    last = ""

    def lines() -> Iterator[str]:
        nonlocal last
        for line in table.rows(n_in):
            last = line
            yield line

    try:
        return np.loadtxt(lines(), delimiter=table.delimiter, comments=None, quotechar='"', ndmin=2, usecols=columns)
    except ValueError as error:
        cells = table.cells(last)
        wrong = [k for k, cell in enumerate(cells) if not is_number(cell)]
        if not wrong or not str(error).startswith("could not convert"):
            raise
        what = repr(cells[wrong[0]]) if cells[wrong[0]] else "an empty cell"
        raise ValueError(f"line {table.numbers[-1]}, cell {wrong[0] + 1}: {what} is not a number") from error
