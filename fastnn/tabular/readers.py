"""What a table knows of each column, and how the column's cells become numbers.

A reader takes a single cell and a whole column, with the same result.  A cell that does not fit is a TypeError or a
ValueError that names the column, the value and the row.
"""

from __future__ import annotations

import datetime
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.tabular.frames import Cells, Coded, Moments, Numbers, Objects, is_missing, zone_of

UNSEEN = -1.0

#: Parts of a date, in order.
PARTS = ("days", "month", "weekday", "hour")

#: Text that stands for a missing number, in lower case.
MISSING_NUMBERS = frozenset(["na", "n/a", "nan", "null", "none", "?", "-"])

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{3}(\d{3})?)?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII)

LARGEST = sys.float_info.max

EPOCH = datetime.datetime(1970, 1, 1)
MICROSECOND = datetime.timedelta(microseconds=1)
HOUR = 3600 * 10**6  # microseconds
DAY = 24 * HOUR
DAYS = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Column:
    """What a table knows of a column.

    Parameters
    ----------
    name : str
        Its name; ``x0``, ``x1``, ... in an array.
    kind : {"number", "category", "boolean", "date", "constant", "ignored"}
        What it is.  A boolean is a category of two values.
    why : str
        How that was found.
    missing : float
        Share of its cells that were missing.
    values : tuple of str, or of int and float, or of bool
        Of a category: the value of each code, in its order.  Any other value is an unseen one, and so are those that
        were too rare to learn from.
    ordered : bool
        Whether the order of the values means something.
    parts : tuple of str
        Of a date: the numbers that it becomes, of "days" (since 1970), "month" (1 to 12), "weekday" (Monday is 0) and
        "hour".  Of a number: ("days",) if it is a duration, in days.
    zone : str or None
        Of a date: the time zone whose clock the parts are of.
    """

    name: str
    kind: str
    why: str
    missing: float = 0.0
    values: tuple[Any, ...] = ()
    ordered: bool = False
    parts: tuple[str, ...] = ()
    zone: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the raw columns, each of one number, that it becomes."""
        if self.kind == "date":
            return tuple(f"{self.name} ({part})" for part in self.parts)
        return () if self.kind in ("constant", "ignored") else (self.name,)


class Reader:
    """Reads a column's cells as numbers: NaN where they are missing."""

    #: What a cell must be.
    expected: str

    #: Returns a cell's number, a date's numbers; raises a TypeError, ValueError or OverflowError if it does not fit.
    cell: Callable[[Any], Any]

    def __init__(self, column: Column) -> None:
        self.column = column

    def cells(self, cells: Cells) -> NDArray[np.float64]:
        """Return the numbers (n, n_inputs) of a whole column."""
        if isinstance(cells, Coded):
            found = self._each(cells.values, lambda code: int(np.argmax(cells.codes == code)))
            return np.concatenate([found, np.full((1, found.shape[1]), np.nan)])[cells.codes]  # -1 is the last
        if isinstance(cells, Objects):
            return self._each(cells.values)
        return self._moments(cells) if isinstance(cells, Moments) else self._numbers(cells)

    def refuse(self, value: Any, row: int | None = None) -> Exception:
        """Return the error of a cell that does not fit, in the row of this position."""
        where = "" if row is None else f" (row {row})"
        text = f"X's column {self.column.name!r} must hold {self.expected}, not {_short(value)}{where}"
        if isinstance(value, (float, np.floating)) and math.isinf(value):
            text += ": put NaN, which is missing, or a finite number instead"
        known = isinstance(value, (str, int, float, np.generic, datetime.date, datetime.timedelta))
        return ValueError(text) if known else TypeError(text)

    def _each(self, values: Sequence[Any], row_of: Any = int) -> NDArray[np.float64]:
        try:
            return np.fromiter(map(self.cell, values), np.float64, len(values))[:, None]
        except (TypeError, ValueError, OverflowError):
            raise self._first_unfit(values, row_of) from None

    def _first_unfit(self, values: Sequence[Any], row_of: Any) -> Exception:
        for i, value in enumerate(values):
            try:
                self.cell(value)
            except (TypeError, ValueError, OverflowError):
                return self.refuse(value, row_of(i))
        raise AssertionError("all cells fit")

    def _numbers(self, cells: Numbers) -> NDArray[np.float64]:
        return self._no_other(cells.values, np.isnan(cells.values))

    def _moments(self, cells: Moments) -> NDArray[np.float64]:
        return self._no_other(cells.values, np.isnat(cells.values))

    def _no_other(self, values: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
        # Numbers of a column whose cells are of a type that does not fit: all must be missing.
        if not missing.all():
            row = int(np.argmin(missing))
            raise self.refuse(values[row], row)
        return np.full((len(values), len(self.column.inputs)), np.nan)


class NumberReader(Reader):
    """Reads numbers, and text that is numbers."""

    expected = "finite numbers"

    def cell(self, value: Any) -> float:
        """Return the number."""
        if type(value) in (float, int) and -LARGEST <= value <= LARGEST:  # as nearly all are
            return float(value)
        if isinstance(value, (datetime.timedelta, np.timedelta64)):
            raise TypeError
        if is_missing(value) or (isinstance(value, str) and value.strip().lower() in MISSING_NUMBERS):
            return math.nan
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        return number

    def _numbers(self, cells: Numbers) -> NDArray[np.float64]:
        if cells.sort == "duration":
            return super()._numbers(cells)
        infinite = np.isinf(cells.values)
        if infinite.any():
            row = int(np.argmax(infinite))
            raise self.refuse(float(cells.values[row]), row)
        return cells.values[:, None]


class DurationReader(Reader):
    """Reads durations, as days."""

    expected = "durations"

    def cell(self, value: Any) -> float:
        """Return the number of days."""
        if is_missing(value):
            return math.nan
        if isinstance(value, np.timedelta64):
            value = value.astype("timedelta64[us]").item()
        if not isinstance(value, datetime.timedelta):
            raise TypeError
        return value / DAYS

    def _numbers(self, cells: Numbers) -> NDArray[np.float64]:
        return cells.values[:, None] if cells.sort == "duration" else super()._numbers(cells)


class CategoryReader(Reader):
    """Reads values as their codes."""

    expected = "categories"

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self.cell = Codes(column.values).__getitem__  # which runs no Python for values that are known

    def _numbers(self, cells: Numbers) -> NDArray[np.float64]:
        if cells.sort == "duration":
            return super()._numbers(cells)
        if cells.sort == "boolean" and self.column.values == (False, True):
            return cells.values[:, None]
        known = ~np.isnan(cells.values)
        values, codes = np.unique(cells.values[known], return_inverse=True)
        found = np.full((len(known), 1), np.nan)
        found[known] = self._each([plain_number(value, cells.sort) for value in values.tolist()])[codes.ravel()]
        return found


class Codes(dict[Any, float]):
    """Codes of values.  A value that is not among them is sought by its text: 3, 3.0 and "3" are the same."""

    def __init__(self, values: Sequence[Any]) -> None:
        super().__init__((value, float(code)) for code, value in enumerate(values))
        self._by_text = {text_of(value): code for value, code in self.items()}
        self[None] = math.nan

    def __missing__(self, value: Any) -> float:
        return math.nan if is_missing(value) else self._by_text.get(text_of(value), UNSEEN)


class DateReader(Reader):
    """Reads dates as their parts: days since 1970, and numbers that recur."""

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self.expected = "dates without a time zone" if column.zone is None else "dates with a time zone"
        self._zone = None if column.zone is None else zone_of(column.zone)

    def cell(self, value: Any) -> tuple[float, ...]:
        """Return the parts of a date."""
        moment = moment_of(value)
        if moment is None:
            return (math.nan,) * len(self.column.parts)
        if (moment.tzinfo is None) != (self._zone is None):
            raise ValueError
        if self._zone is not None:
            moment = moment.astimezone(self._zone).replace(tzinfo=None)
        parts = _parts((moment - EPOCH) // MICROSECOND, moment.month)
        return tuple(float(parts[part]) for part in self.column.parts)

    def _each(self, values: Sequence[Any], row_of: Any = int) -> NDArray[np.float64]:
        try:
            return np.array([self.cell(value) for value in values]).reshape(len(values), len(self.column.parts))
        except (TypeError, ValueError, OverflowError):
            raise self._first_unfit(values, row_of) from None

    def _moments(self, cells: Moments) -> NDArray[np.float64]:
        moments, missing = cells.values, np.isnat(cells.values)
        if (cells.zone is None) != (self._zone is None):
            return self._no_other(moments, missing)
        if cells.zone is not None and cells.zone != self.column.zone:
            zone = zone_of(cells.zone)
            return self._each(
                [moment if moment is None else moment.replace(tzinfo=zone) for moment in moments.tolist()]
            )
        microseconds = moments.astype(np.int64)
        parts = _parts(microseconds, moments.astype("datetime64[M]").astype(np.int64) % 12 + 1)
        found = np.column_stack([parts[part] for part in self.column.parts]).astype(np.float64)
        found[missing] = np.nan
        return found


def _parts(microseconds: Any, month: Any) -> dict[str, Any]:
    # Of a moment, in microseconds since 1970, and its month; or of an array.  1970 began on a Thursday.
    return {
        "days": microseconds / DAY,
        "month": month,
        "weekday": (microseconds // DAY + 3) % 7,
        "hour": microseconds % DAY / HOUR,
    }


def moment_of(value: Any) -> datetime.datetime | None:
    """Return a date, or one as text (ISO 8601), as a datetime; None if it is missing."""
    if is_missing(value):
        return None
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, str):
        text = value.strip()
        if not DATE.fullmatch(text):
            raise ValueError
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    if isinstance(value, datetime.datetime):
        return value
    if isinstance(value, datetime.date):
        return datetime.datetime(value.year, value.month, value.day)
    raise TypeError


def plain_number(value: float, sort: str = "number") -> bool | int | float:
    """Return a number as the simplest type that holds it."""
    if sort == "boolean":
        return bool(value)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def text_of(value: Any) -> str:
    """Return the text by which a value of a category is known: 3 and 3.0 have the same."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    return str(plain_number(float(value))) if isinstance(value, (float, np.floating)) else str(value)


def several(n: int, noun: str) -> str:
    """Return a number of things in words."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _short(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def reader_of(column: Column) -> Reader:
    """Return the reader of a column that is not dropped."""
    if column.kind == "number":
        return DurationReader(column) if column.parts else NumberReader(column)
    return DateReader(column) if column.kind == "date" else CategoryReader(column)
