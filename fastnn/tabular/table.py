"""What was learned of a table's columns, and how its rows become numbers.

`Table.learn` finds what each column is; `Table.read` turns rows of the same columns into raw rows, as a network whose
first layer is `fastnn.layers.Columns` takes them: numbers, codes of categories, parts of dates, NaN where a cell is
missing.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._validation import check_choice, check_number
from fastnn.tabular.frames import Frame, read_frame, zone_of
from fastnn.tabular.readers import PARTS, Column, Reader, reader_of, several, text_of
from fastnn.tabular.recognition import MOST_VALUES, TOLD, learn_column

FORMAT = 1  # of the JSON


class Input(NamedTuple):
    """A raw column: what one number of a raw row is.

    Parameters
    ----------
    name : str
    n_values : int or None
        Of a category, whose codes are 0 to n_values - 1; None for a number.
    missing : bool
        Whether it was missing in a row that the table was learned of.
    column : Column
        From which it comes.
    """

    name: str
    n_values: int | None
    missing: bool
    column: Column


@dataclass(frozen=True)
class Table:
    """What was learned of the columns of a table.

    Parameters
    ----------
    columns : tuple of Column
        All of them, in order.
    named : bool
        Whether their names are the user's.  Columns of frames are then found by name, in any order.

    Examples
    --------
    >>> from fastnn.tabular import Table
    >>> rows = {"age": [31, None, 58, 44], "city": ["Rome", "Oslo", "Rome", ""], "planet": ["Earth"] * 4}
    >>> table = Table.learn(rows)
    >>> print(table.describe())
    column  kind      becomes           missing  why
    age     number    number            25 %     numbers
    city    category  code of 2 values  25 %     text
    planet  constant  nothing           0 %      one value: 'Earth'
    >>> table.read(rows)
    array([[31.,  1.],
           [nan,  0.],
           [58.,  1.],
           [44., nan]])
    """

    columns: tuple[Column, ...]
    named: bool = True

    @classmethod
    def learn(cls, X: Any, told: Mapping[Any, str] | None = None) -> Table:
        """Find what each column of a table is.

        Parameters
        ----------
        X : frame of (n, n_columns), array, list of rows, list of dicts, or dict of columns
            Frames may be of pandas, polars or pyarrow.  Missing are None, NaN, NaT, NA and empty text; in text that is
            numbers also "NA", "N/A", "nan", "null", "None", "?" and "-", in any case.
        told : dict of str to {"number", "category", "boolean", "date", "ignored"}, optional
            What columns are, where it is known better; by name, or by position in an array.  Whole numbers, such as
            postal codes, are numbers unless they are told to be categories.

        Raises
        ------
        TypeError, ValueError
            If X is no table, or has no rows, or no column that tells rows apart, or told names others or kinds that
            they cannot be, or a number is infinite; the message names the column, the row and the remedy.
        """
        frame = read_frame(X)
        kinds = _check_told(told, frame)
        if not frame.names or not frame.n_rows:
            shape = (frame.n_rows, len(frame.names))
            what = "sample" if frame.names else "feature"
            raise ValueError(f"X has 0 {what}(s) (shape={shape}) while a minimum of 1 is required.")
        columns = [learn_column(name, frame.column(j), kinds.get(name)) for j, name in enumerate(frame.names)]
        table = cls(tuple(columns), frame.named)
        if not table.inputs:
            reasons = "; ".join(f"{column.name!r} is {column.kind}, {column.why}" for column in columns[:5])
            more = f" and {len(columns) - 5} more" if len(columns) > 5 else ""
            raise ValueError(f"X has no column to learn from in n_samples={frame.n_rows}: {reasons}{more}")
        return table

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """The raw columns, in order."""
        return tuple(
            Input(name, len(column.values) or None, column.missing > 0, column)
            for column in self.columns
            for name in column.inputs
        )

    @cached_property
    def _readers(self) -> list[tuple[int, Reader]]:
        # Of the columns that are not dropped, with their positions.
        return [(j, reader_of(column)) for j, column in enumerate(self.columns) if column.inputs]

    @cached_property
    def _cells(self) -> list[tuple[int, str, Callable[[Any], Any]]]:
        return [(j, reader.column.name, reader.cell) for j, reader in self._readers]

    @cached_property
    def _has_dates(self) -> bool:
        return any(column.kind == "date" for column in self.columns)

    def read(self, X: Any, who: str = "Table") -> NDArray[np.float64]:
        """Return raw rows.

        Parameters
        ----------
        X : as for `learn`
            Columns of a frame are found by name, and others than those of the table are left alone; those of an array
            by position.
        who : str, default "Table"
            Wants to read, for errors.

        Returns
        -------
        (n, n_inputs) array
            C-contiguous; NaN for missing cells, codes for categories, -1 for values that were not seen.

        Raises
        ------
        TypeError, ValueError
            If columns are missing, or a cell is not of the column's type; the message names column, value and row.
        """
        frame = read_frame(X)
        positions = self._positions(frame, who)
        raw = np.empty((frame.n_rows, len(self.inputs)))
        start = 0
        for j, reader in self._readers:
            stop = start + len(reader.column.inputs)
            raw[:, start:stop] = reader.cells(frame.column(positions[j]))
            start = stop
        return raw

    def _positions(self, frame: Frame, who: str) -> Mapping[int, int] | range:
        # Where in the frame the columns are, from their positions in the table.
        if not (self.named and frame.named):
            if len(frame.names) != len(self.columns):
                raise ValueError(
                    f"X has {len(frame.names)} features, but {who} is expecting {len(self.columns)} features as input"
                )
            return range(len(self.columns))
        if frame.names == self.names:
            return range(len(self.columns))
        places = {name: j for j, name in enumerate(frame.names)}
        lost = [reader.column.name for _, reader in self._readers if reader.column.name not in places]
        if lost:
            raise ValueError(_lost(lost, "X"))
        return {j: places[reader.column.name] for j, reader in self._readers}

    def read_row(self, row: Mapping[str, Any] | ArrayLike) -> NDArray[np.float64]:
        """Return one raw row, in some microseconds.

        Parameters
        ----------
        row : mapping of names to cells, or (n_columns,) array, sequence or pandas Series

        Returns
        -------
        (1, n_inputs) array

        Raises
        ------
        TypeError, ValueError
            As `read` does.
        """
        cells: Any = row.tolist() if isinstance(row, np.ndarray) else row
        if hasattr(cells, "to_dict"):  # a row of a pandas frame
            cells = cells.to_dict() if self.named else list(cells)
        by_name = isinstance(cells, Mapping)
        try:
            if by_name:
                found = [cell(cells[name]) for _, name, cell in self._cells]
            else:
                if len(cells) != len(self.columns):
                    raise ValueError
                found = [cell(cells[j]) for j, _, cell in self._cells]
            if self._has_dates:
                found = [number for numbers in found for number in (numbers if type(numbers) is tuple else (numbers,))]
            return np.array([found], np.float64)
        except (TypeError, ValueError, OverflowError, LookupError):
            raise self._refusal(cells, by_name) from None

    def _refusal(self, cells: Any, by_name: bool) -> Exception:
        # The error of a row that cannot be read.
        if not by_name:
            if isinstance(cells, (str, bytes)) or not hasattr(cells, "__len__") or not hasattr(cells, "__getitem__"):
                return TypeError(f"row must be a mapping of names to cells, or an array, not {cells!r:.80}")
            if len(cells) != len(self.columns):
                return ValueError(
                    f"row has {len(cells)} features, but Table is expecting {len(self.columns)} features as input"
                )
        lost = [name for _, name, _ in self._cells if by_name and name not in cells]
        if lost:
            return ValueError(_lost(lost, "row"))
        for j, reader in self._readers:
            value = cells[reader.column.name if by_name else j]
            try:
                reader.cell(value)
            except (TypeError, ValueError, OverflowError):
                return reader.refuse(value)
        raise AssertionError("the row can be read")

    def describe(self) -> str:
        """Return a printable table: each column's name, kind, what it becomes, the share of missing cells, and why."""
        rows = [("column", "kind", "becomes", "missing", "why")]
        for column in self.columns:
            share = f"{column.missing:.0%}" if column.missing == 0 or column.missing >= 0.005 else "<1%"
            share = share.replace("%", " %")
            rows.append((_printable(column.name), column.kind, _becomes(column), share, column.why))
        widths = [max(len(row[k]) for row in rows) for k in range(5)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"columns": self.columns, "named": self.named}  # without what is made of them

    def to_json(self) -> str:
        """Return all of it as JSON, which `from_json` reads."""
        columns = [dataclasses.asdict(column) for column in self.columns]
        return json.dumps({"format": FORMAT, "named": self.named, "columns": columns}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Table:
        """Return the table that `to_json` wrote.

        Raises
        ------
        ValueError
            If the text is something else, or contradicts itself.
        """
        try:
            told = json.loads(text)
            if not isinstance(told, dict) or told.keys() != {"format", "named", "columns"}:
                raise ValueError("it must be an object of format, named and columns")
            check_choice(told["format"], "format", [FORMAT])
            named = check_choice(told["named"], "named", [False, True])
            if not isinstance(told["columns"], list):
                raise ValueError("columns must be a list")
            table = cls(tuple(_column_of(fields) for fields in told["columns"]), named)
            if len(set(table.names)) < len(table.names):
                raise ValueError("two columns have the same name")
            if not table.inputs:
                raise ValueError("no column is used")
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            raise ValueError(f"this is no description of a table: {error}") from error
        return table


def _lost(names: list[str], where: str) -> str:
    return f"{where} must have the columns that the table was learned of: there is no {', '.join(map(repr, names))}"


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _becomes(column: Column) -> str:
    if column.kind in ("category", "boolean"):
        return f"{'ordered ' if column.ordered else ''}code of {several(len(column.values), 'value')}"
    return {"number": "number", "date": ", ".join(column.parts)}.get(column.kind, "nothing")


def _check_told(told: Mapping[Any, str] | None, frame: Frame) -> dict[str, str]:
    if told is None:
        return {}
    if not isinstance(told, Mapping):
        raise TypeError(f"columns must be a mapping of names to kinds, not {told!r}")
    kinds = {}
    for name, kind in told.items():
        made_up = isinstance(name, (int, np.integer)) and not frame.named
        kinds[f"x{name}" if made_up else str(name)] = check_choice(kind, f"columns[{name!r}]", TOLD)
    unknown = [name for name in kinds if name not in frame.names]
    if unknown:
        known = ", ".join(map(repr, frame.names[:10])) + (", ..." if len(frame.names) > 10 else "")
        raise ValueError(f"columns must name columns of X, which are {known}, not {unknown[0]!r}")
    return kinds


def _column_of(fields: Any) -> Column:
    # The record of a column from JSON, which may hold anything.
    if not isinstance(fields, dict) or fields.keys() != {field.name for field in dataclasses.fields(Column)}:
        raise ValueError(f"a column must be an object of name, kind, why and others, not {fields!r:.80}")
    kind = check_choice(fields["kind"], "kind", [*TOLD, "constant"])
    for key, kinds in {"name": str, "why": str, "values": list, "parts": list, "ordered": bool}.items():
        if not isinstance(fields[key], kinds):
            raise ValueError(f"{key} must be {kinds.__name__}, not {fields[key]!r:.80}")
    missing = check_number(fields["missing"], "missing", 0.0, math.nextafter(1.0, 2.0))
    values, parts, zone, ordered = tuple(fields["values"]), tuple(fields["parts"]), fields["zone"], fields["ordered"]
    most = {"category": MOST_VALUES, "boolean": 2}.get(kind, 0)
    if not min(most, 1) <= len(values) <= most or (ordered and kind != "category"):
        raise ValueError(f"a column of kind {kind!r} must not have {len(values)} values")
    if not any(all(type(value) in types for value in values) for types in ({str}, {bool}, {int, float})):
        raise ValueError("values must all be text, numbers or booleans")
    if len(set(map(text_of, values))) < len(values) or any(value in (math.inf, -math.inf) for value in values):
        raise ValueError("values must be finite and different")
    possible = {"date": [part for part in PARTS if part == "days" or part in parts], "number": list(parts[:1])}
    if list(parts) != possible.get(kind, []) or parts[:1] not in ((), PARTS[:1]):
        raise ValueError(f"a column of kind {kind!r} must not have parts {list(parts)!r:.80}")
    if zone is not None:
        if kind != "date" or not isinstance(zone, str):
            raise ValueError(f"a column of kind {kind!r} must not have zone {zone!r:.80}")
        zone_of(zone)
    return Column(fields["name"], kind, fields["why"], missing, values, ordered, parts, zone)
