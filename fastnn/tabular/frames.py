"""Frames, arrays and lists of rows, as columns of cells in one of four forms.

Frames of pandas, polars, pyarrow and others come through narwhals.  What comes in here is the user's; what leaves is
one of the forms below, in which every library's way to say "missing" has become one.
"""

from __future__ import annotations

import contextlib
import datetime
import zoneinfo
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import narwhals.stable.v2 as nw
import numpy as np
from narwhals.exceptions import DuplicateError
from numpy.typing import NDArray

DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Numbers:
    """Cells that are real numbers, truths (0 and 1) or durations (in days); NaN is missing."""

    values: NDArray[np.float64]
    sort: Literal["number", "boolean", "duration"] = "number"


@dataclass(frozen=True)
class Moments:
    """Cells that are dates, in microseconds of the clock in their time zone, if they have one; NaT is missing."""

    values: NDArray[np.datetime64]
    zone: str | None = None


@dataclass(frozen=True)
class Objects:
    """Cells of any other type, text among them, as Python's objects.

    A column of a categorical type has categories: all there are if they have an order, otherwise maybe none.  Text is
    meant as such if its library could have made numbers of it.
    """

    values: list[Any]
    categories: tuple[Any, ...] | None = None
    ordered: bool = False
    meant: bool = False


@dataclass(frozen=True)
class Coded(Objects):
    """Cells that are numbers of different objects, in codes (n,), in which each of them occurs; -1 is missing."""

    codes: NDArray[np.intp] = field(kw_only=True)


Cells = Numbers | Moments | Objects


@dataclass(frozen=True)
class Frame:
    """Columns of cells, which are read when asked for.

    Parameters
    ----------
    names : tuple of str
        Of the columns.
    named : bool
        Whether they are the user's, not made up for an array.
    n_rows : int
    column : function
        From a column's position to its cells.
    """

    names: tuple[str, ...]
    named: bool
    n_rows: int
    column: Callable[[int], Cells]


def is_missing(value: Any) -> bool:
    """Whether a cell is None, NaN, NaT, pandas' NA, or text without a character but spaces."""
    if isinstance(value, str):
        return not value.strip()
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError, ArithmeticError):  # pandas' NA has no truth, arrays have several
        return type(value).__name__ == "NAType"


def zone_of(name: str) -> datetime.tzinfo:
    """Return a time zone; raise a ValueError if there is none of this name."""
    try:
        return datetime.timezone.utc if name == "UTC" else zoneinfo.ZoneInfo(name)
    except (KeyError, OSError) as error:
        raise ValueError(f"there is no time zone {name!r}") from error


def read_frame(X: Any) -> Frame:
    """Return the columns of a table.

    Parameters
    ----------
    X : frame, (n, n_columns) array, list of rows, list of dicts, or dict of columns
        Frames are those of pandas, polars, pyarrow and others that narwhals knows.  Names become text.

    Raises
    ------
    TypeError, ValueError
        If X is none of these, has columns of the same name or of different lengths, or complex numbers.
    """
    if hasattr(X, "tocsr"):
        raise TypeError(f"X must be dense, such as X.toarray(), not a sparse {type(X).__name__}")
    if nw.dependencies.is_into_series(X):
        raise TypeError("X must be a table, not a single column: X.to_frame() makes a table of one column")
    if nw.dependencies.is_into_dataframe(X):
        return _of_frame(X)
    if hasattr(X, "collect"):
        raise TypeError(f"X must be in memory, such as X.collect(), not a lazy {type(X).__name__}")
    if isinstance(X, Mapping):
        return _of_columns(X)
    if isinstance(X, (list, tuple)) and len(X) and all(isinstance(row, Mapping) for row in X):
        names = dict.fromkeys(name for row in X for name in row)
        return _of_columns({name: [row.get(name) for row in X] for name in names})
    return _of_array(X)


def _names(names: Iterable[Any]) -> tuple[str, ...]:
    found = tuple(map(str, names))
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice:
        raise ValueError(f"X must have columns of different names, not {found.count(twice[0])} of name {twice[0]!r}")
    return found


def _of_frame(X: Any) -> Frame:
    try:
        frame = nw.from_native(X, eager_only=True)
    except DuplicateError:
        _names(getattr(X, "column_names", X.columns))
        raise
    columns = list(frame.iter_columns())
    return Frame(_names(frame.columns), True, len(frame), lambda j: _of_series(columns[j]))


def _of_series(series: nw.Series[Any]) -> Cells:
    dtype = series.dtype
    if dtype.is_numeric():
        wide = isinstance(dtype, (nw.Decimal, nw.Int128, nw.UInt128))  # which NumPy does not have
        array = (series.cast(nw.Float64) if wide else series).to_numpy()
        return Numbers(array.astype(np.float64, copy=False))
    if isinstance(dtype, (nw.Datetime, nw.Date, nw.Duration, nw.Boolean)):
        series, zone = _on_the_clock(series, getattr(dtype, "time_zone", None))
        array = series.to_numpy()
        if array.dtype != object:  # of which some columns with missing cells are
            return _of_vector(array, zone)
    categories = tuple(dtype.categories) if isinstance(dtype, nw.Enum) else ()
    known = None if not isinstance(dtype, (nw.Categorical, nw.Enum)) else categories
    if known is not None or isinstance(dtype, nw.String):
        with contextlib.suppress(TypeError):  # of what lies beyond the rows by which it was found to be text
            if series.implementation.is_pandas():  # a third of the time of a list of its strings
                codes, values = series.to_native().factorize()
                return Coded(values.tolist(), known, bool(categories), known is None, codes=codes)
    return Objects(series.to_list(), known, bool(categories), isinstance(dtype, nw.String))


def _on_the_clock(series: nw.Series[Any], zone: str | None) -> tuple[nw.Series[Any], str | None]:
    # Dates as the clock in their zone shows them, in UTC if only their library knows the zone.
    if zone is None:
        return series, None
    try:
        zone_of(zone)
    except ValueError:
        series, zone = series.dt.convert_time_zone("UTC"), "UTC"
    return series.dt.replace_time_zone(None), zone


def _of_columns(columns: Mapping[Any, Any]) -> Frame:
    cells = [_of_list(values, name) for name, values in columns.items()]
    lengths = {str(name): len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        (first, n_first), (other, n_other) = next(iter(lengths.items())), min(lengths.items(), key=lambda item: item[1])
        if n_other == n_first:
            other, n_other = max(lengths.items(), key=lambda item: item[1])
        raise ValueError(f"X's columns must have as many rows each: {first!r} has {n_first}, {other!r} {n_other}")
    return Frame(_names(columns), True, max(lengths.values(), default=0), cells.__getitem__)


def _of_list(values: Any, name: Any) -> Cells:
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return _of_vector(values)
    if isinstance(values, (list, tuple)):
        return Objects(list(values))
    raise TypeError(f"X's column {str(name)!r} must be a list or an array of one dimension, not {values!r:.80}")


def _of_array(X: Any) -> Frame:
    if isinstance(X, np.ma.MaskedArray):
        masked, X = np.ma.getmaskarray(X), X.data.astype(object)
        X[masked] = None
    try:
        array = np.asarray(X)
        if array.dtype.kind in "US" and not isinstance(X, np.ndarray):
            array = np.asarray(X, dtype=object)  # numbers beside text stay numbers
    except ValueError as error:
        raise ValueError(f"X must be a table, with as many columns in each row: {error}") from None
    if array.dtype.kind == "c":
        raise ValueError(f"X must hold real numbers, text or dates. Complex data not supported: {array.dtype}")
    if array.dtype.kind == "V":
        raise TypeError(f"X must be a table of one type, or a frame, not an array of records, {array.dtype}")
    if array.ndim != 2:
        hint = ". Reshape your data by X.reshape(1, -1) if it is a single row" if array.ndim == 1 else ""
        raise ValueError(
            f"X must be a frame or a list of rows. Expected 2D array, got {array.ndim}D array instead: "
            f"{type(X).__name__} of shape {array.shape}{hint}"
        )
    names = tuple(f"x{j}" for j in range(array.shape[1]))
    return Frame(names, False, len(array), lambda j: _of_vector(array[:, j]))


def _of_vector(array: NDArray[Any], zone: str | None = None) -> Cells:
    kind = array.dtype.kind
    if kind == "b":
        return Numbers(array.astype(np.float64), "boolean")
    if kind in "iuf":
        return Numbers(array.astype(np.float64))
    if kind == "M":
        return Moments(array.astype("datetime64[us]"), zone)
    if kind == "m":
        return Numbers(array / DAY, "duration")
    return Objects(array.astype(str).tolist() if kind == "S" else array.tolist())
