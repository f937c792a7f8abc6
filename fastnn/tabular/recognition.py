"""What a column is: how that is recognised from its cells, or checked if it is told.

Types say what most columns are.  Of objects, which text is too, the different ones that occur decide.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import math
import numbers
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from fastnn.tabular.frames import Cells, Coded, Moments, Numbers, Objects, is_missing
from fastnn.tabular.readers import (
    DATE,
    MISSING_NUMBERS,
    NUMBER,
    PARTS,
    Column,
    moment_of,
    plain_number,
    reader_of,
    several,
    text_of,
)

#: Kinds that a user may tell.
TOLD = ("number", "category", "boolean", "date", "ignored")

#: A value of a category has a code if it is in this many rows, or in 1 % of the rows and one more if that is less.
LEAST_ROWS = 3

#: A column has at most so many codes, for the values that are in the most rows.
MOST_VALUES = 1 << 14

#: Text of which a larger share than this is different, in more values than that, is ids or prose.
DIFFERENT_SHARE, DIFFERENT_VALUES = 0.9, 10

#: The record of a column of this name that holds nothing.
NO_CELLS = partial(Column, kind="constant", why="all cells are missing", missing=1.0)

#: Types of objects that say what a column is.
SORTS: dict[str, tuple[type, ...]] = {
    "boolean": (bool, np.bool_),
    "duration": (datetime.timedelta, np.timedelta64),
    "date": (datetime.date, np.datetime64),
    "number": (numbers.Real, decimal.Decimal),
    "text": (str,),
}

COMPLEX = (complex, np.complexfloating)

#: Whole numbers that a frame has as text are names if there are at most so many for each row.
NAMES_SHARE = 0.2
WHOLE = re.compile(r"\d+")

#: How codes begin that look like numbers.
CODE = re.compile(r"[+-]?0\d")


def learn_column(name: str, cells: Cells, told: str | None) -> Column:
    """Return the record of a column, which its own reader has read.

    Raises
    ------
    TypeError, ValueError
        If it is not what is told, holds infinite numbers, or holds objects of which nothing can be made.
    """
    if told == "ignored":
        return Column(name, "ignored", "told")
    distinct = _distinct(cells, name)
    column = _told(name, told, cells, distinct) if told else _recognise(name, cells, distinct)
    if not column.inputs:
        return column
    raw = reader_of(column).cells(cells)
    missing = np.isnan(raw[:, 0])
    column = dataclasses.replace(column, missing=float(missing.mean()))
    if missing.all():
        return NO_CELLS(name)
    varies = np.nanmin(raw, axis=0) != np.nanmax(raw, axis=0)
    if not varies.any() and not missing.any():
        return Column(name, "constant", f"one value: {_first(cells)}")
    if column.kind == "date":
        kept = tuple(part for part, does in zip(column.parts, varies, strict=True) if does or part == "days")
        column = dataclasses.replace(column, parts=kept)
    return column


def _first(cells: Cells) -> str:
    # The first cell, for a message.
    value = cells.values[0]
    if isinstance(cells, Numbers):
        value = plain_number(float(value), cells.sort)
    return f"{value!r:.40}" if isinstance(value, str) else f"{value!s:.40}"


def _distinct(cells: Cells, name: str) -> dict[Any, int]:
    # Objects, and in how many rows they are, without missing ones.
    if not isinstance(cells, Objects):
        return {}
    try:
        counts = dict(Counter(cells.values))
        if isinstance(cells, Coded):
            in_rows = np.bincount(cells.codes[cells.codes >= 0], minlength=len(cells.values)).tolist()
            counts = dict(zip(cells.values, in_rows, strict=True))
        if not any(issubclass(kind, COMPLEX) for kind in set(map(type, counts))):
            return {value: count for value, count in counts.items() if not is_missing(value)}
    except TypeError:  # of a value without a hash
        pass
    value = next(value for value in cells.values if isinstance(value, COMPLEX) or not _has_hash(value))
    raise TypeError(
        f"X's column {name!r} cannot be used: argument must be a string, a number, a date or missing, not "
        f"{value!r:.80}; leave the column out, or tell that it is ignored"
    )


def _has_hash(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _sorts(values: Iterable[Any]) -> set[str]:
    # What the types of objects are for columns: keys of SORTS, or "other".
    return {
        next((sort for sort, types in SORTS.items() if issubclass(kind, types)), "other")
        for kind in set(map(type, values))
    }


def _recognise(name: str, cells: Cells, distinct: dict[Any, int]) -> Column:
    if isinstance(cells, Moments):
        return Column(name, "date", "dates", parts=PARTS, zone=cells.zone)
    if isinstance(cells, Numbers):
        return _of_sort(name, cells.sort)
    if isinstance(cells, Objects) and cells.categories is not None:
        return _category(name, "a categorical type", cells, distinct)
    sorts = _sorts(distinct)
    if not sorts:
        return NO_CELLS(name)
    if len(sorts) == 1 and not sorts & {"text", "other"}:
        return _of_sort(name, sorts.pop(), _zone(distinct))
    if sorts == {"number", "boolean"}:
        return Column(name, "number", "numbers and booleans")
    texts = [value.strip() for value in distinct if isinstance(value, str)]
    if isinstance(cells, Objects) and cells.meant and sorts == {"text"} and _are_names(texts, sum(distinct.values())):
        return _category(name, "whole numbers as text", cells, distinct)
    if sorts <= {"text", "number"} and _are_numbers(texts):
        return Column(name, "number", "text that is numbers" if sorts == {"text"} else "numbers, some of them as text")
    if sorts <= {"text", "date"} and all(map(DATE.fullmatch, texts)):
        return Column(name, "date", "text that is dates", parts=PARTS, zone=_zone(distinct))
    mixed = f"{' and '.join(sorted(sorts))} mixed, by their text"
    return _category(name, "text" if sorts == {"text"} else mixed, cells, distinct)


def _of_sort(name: str, sort: str, zone: str | None = None) -> Column:
    # Of a column whose cells are all of a type that says what they are.
    if sort == "number":
        return Column(name, "number", "numbers")
    if sort == "duration":
        return Column(name, "number", "durations, in days", parts=PARTS[:1])
    if sort == "boolean":
        return Column(name, "boolean", "booleans", values=(False, True))
    return Column(name, "date", "dates", parts=PARTS, zone=zone)


def _zone(distinct: Mapping[Any, int]) -> str | None:
    # Of dates as Python's objects or text: their own zones may differ, so all are taken in UTC.
    value = next(iter(distinct))
    try:
        moment = moment_of(value)
    except (TypeError, ValueError):
        return None
    return None if moment is None or moment.tzinfo is None else "UTC"


def _are_names(texts: list[str], n_rows: int) -> bool:
    # Whether text, in that many rows, is whole numbers by which rows belong together, as those of households.
    return len(texts) <= NAMES_SHARE * n_rows and all(WHOLE.fullmatch(text) for text in texts)


def _are_numbers(texts: list[str]) -> bool:
    # A number does not begin with a zero that says nothing: that is the code of something.
    known = [text for text in texts if text.lower() not in MISSING_NUMBERS]
    return bool(known) and all(NUMBER.fullmatch(text) and not CODE.match(text) for text in known)


def _told(name: str, told: str, cells: Cells, distinct: dict[Any, int]) -> Column:
    sort = cells.sort if isinstance(cells, Numbers) else "date" if isinstance(cells, Moments) else ""
    if told == "number":
        durations = sort == "duration" or _sorts(distinct) == {"duration"}
        return Column(name, told, "told", parts=PARTS[:1] if durations else ())
    if told == "date":
        zone = cells.zone if isinstance(cells, Moments) else _zone(distinct) if distinct else None
        return Column(name, told, "told", parts=PARTS, zone=zone)
    if sort in ("duration", "date"):
        raise ValueError(f"columns[{name!r}] must not be {told!r}, for X holds {sort}s there: {_first(cells)}")
    if isinstance(cells, Numbers):
        values, counts = np.unique(cells.values[np.isfinite(cells.values)], return_counts=True)
        plain = [plain_number(value, cells.sort) for value in values.tolist()]
        distinct = dict(zip(plain, counts.tolist(), strict=True))
    if told == "boolean" and len(distinct) > 2:
        some = ", ".join(f"{value!r:.20}" for value in list(distinct)[:3])
        raise ValueError(
            f"columns[{name!r}] must not be 'boolean', for X holds {len(distinct)} values there: {some}, ..."
        )
    if not distinct:
        return NO_CELLS(name)
    return _category(name, "told", cells, distinct, told)


def _category(name: str, why: str, cells: Cells, distinct: dict[Any, int], told: str | None = None) -> Column:
    n_known, n_rows = sum(distinct.values()), len(cells.codes if isinstance(cells, Coded) else cells.values)
    ignored = partial(Column, name, "ignored", missing=1 - n_known / n_rows)
    if told is None and len(distinct) > max(DIFFERENT_VALUES, DIFFERENT_SHARE * n_known):
        return ignored(f"{len(distinct)} different values in {n_known} rows: ids or prose")
    counts = _plain(distinct)
    in_order = sorted(counts)
    ordered = isinstance(cells, Objects) and cells.ordered
    if isinstance(cells, Objects) and cells.ordered:
        order = {text_of(value): place for place, value in enumerate(cells.categories or ())}
        in_order.sort(key=lambda value: order[text_of(value)])
    least = 1 if ordered or told == "boolean" else min(LEAST_ROWS, 1 + n_rows // 100)
    kept = [value for value in in_order if counts[value] >= least]
    if not kept and told is None:
        return ignored(f"no value is in {least} rows")
    kept = kept or in_order
    if len(kept) > MOST_VALUES:
        most = set(sorted(kept, key=lambda value: -counts[value])[:MOST_VALUES])
        kept = [value for value in kept if value in most]
    n_rare = len(in_order) - len(kept)
    rare = f"; {several(n_rare, 'rare value')} as unseen" if n_rare else ""
    return Column(name, told or "category", why + rare, values=tuple(kept), ordered=ordered)


def _plain(distinct: Mapping[Any, int]) -> dict[Any, int]:
    # Values of one of JSON's types, in this order: text if they are of several.
    sorts = _sorts(distinct)
    found: dict[Any, int] = {}
    for value, count in distinct.items():
        plain: Any = text_of(value)
        if sorts == {"boolean"}:
            plain = bool(value)
        elif sorts == {"number"}:
            plain = int(value) if isinstance(value, numbers.Integral) else plain_number(float(value))
            if plain in (math.inf, -math.inf):
                continue
        found[plain] = found.get(plain, 0) + count
    return found
