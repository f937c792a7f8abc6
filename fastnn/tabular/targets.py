"""Targets of tables: whether a column holds classes or numbers, and what they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.tabular.frames import Cells, Coded, Numbers, Objects, is_missing
from fastnn.tabular.readers import UNSEEN, Codes, Column, reader_of, text_of
from fastnn.tabular.recognition import learn_column

TASKS = ("classification", "regression")

#: Whole numbers are classes if there are no more different ones, and this many rows of each, on average.
MOST_CLASSES, ROWS_A_CLASS = 10, 10


class Targets(NamedTuple):
    """What a column holds.

    Parameters
    ----------
    task : {"classification", "regression"}
    why : str
    values : (n_known,) array
        Classes or numbers of the rows that have one.
    rows : (n_known,) array
        Positions of these rows.
    """

    task: str
    why: str
    values: NDArray[Any]
    rows: NDArray[np.intp]


def learn_targets(name: str, cells: Cells, task: str | None = None) -> Targets:
    """Return the targets in a column; task may tell what they are.

    Raises
    ------
    ValueError
        If they cannot be targets, or are not what is told.
    """
    column = learn_column(name, cells, None)
    if column.kind == "number":
        return _of_numbers(name, reader_of(column).cells(cells)[:, 0], task)
    if column.kind in ("constant", "date"):
        raise ValueError(f"column {name!r} cannot be a target: {column.why}")
    if task == "regression":
        raise ValueError(f"column {name!r} holds {column.why}: regression needs numbers")
    if column.kind == "ignored" and task is None:
        raise ValueError(f"column {name!r} cannot be a target: {column.why}")
    values, rows = _labels(cells)
    return _check(name, Targets("classification", column.why.partition(";")[0], values, rows))


def _of_numbers(name: str, numbers: NDArray[np.float64], task: str | None) -> Targets:
    rows = np.flatnonzero(~np.isnan(numbers))
    known = numbers[rows]
    whole = bool((np.abs(known) < 2**53).all() and (known == np.floor(known)).all())
    n_values = len(np.unique(known))
    few = whole and n_values <= MOST_CLASSES and (n_values <= 2 or len(known) >= ROWS_A_CLASS * n_values)
    if task == "regression" or (task is None and not few):
        return _check(name, Targets("regression", "numbers", known, rows))
    labels = known.astype(np.int64) if whole else np.array([text_of(value) for value in known.tolist()])
    return _check(name, Targets("classification", f"{n_values} different {'whole ' * whole}numbers", labels, rows))


def _check(name: str, found: Targets) -> Targets:
    if len(np.unique(found.values)) < 2:
        value = found.values[0]
        raise ValueError(f"column {name!r} cannot be a target: all rows that have one have {value.item()!r:.40}")
    return found


def _labels(cells: Any) -> tuple[NDArray[Any], NDArray[np.intp]]:
    # Texts or truths of the rows that have one, and their positions.
    if isinstance(cells, Numbers):
        rows = np.flatnonzero(~np.isnan(cells.values))
        return cells.values[rows].astype(bool), rows
    values = objects_of(cells)
    rows = np.array([i for i, value in enumerate(values) if not is_missing(value)], np.intp)
    known = [values[i] for i in rows]
    if all(isinstance(value, (bool, np.bool_)) for value in known):
        return np.array(known, bool), rows
    return np.array([text_of(value) for value in known]), rows


def objects_of(cells: Any) -> list[Any]:
    """Return cells that are numbers or objects as a list."""
    if isinstance(cells, Coded):
        return [None if code < 0 else cells.values[code] for code in cells.codes.tolist()]
    return cells.values if isinstance(cells, Objects) else cells.values.tolist()


def read_numbers(name: str, cells: Cells) -> NDArray[np.float64]:
    """Return the numbers (n,) in a column, NaN where there is none; raise a ValueError that names what is none."""
    return reader_of(Column(name, "number", "")).cells(cells)[:, 0]


def read_classes(name: str, cells: Cells, classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the code (n,) of each class, NaN where there is none; raise a ValueError that names what is no class."""
    if classes.dtype.kind in "if":
        values: list[Any] = read_numbers(name, cells).tolist()
    elif isinstance(cells, Numbers) and cells.sort == "boolean":
        values = [None if value != value else bool(value) for value in cells.values.tolist()]
    else:
        values = objects_of(cells)
    codes = Codes(classes.tolist())
    found = np.array([codes[value] for value in values])
    if (found == UNSEEN).any():
        row = int(np.argmax(found == UNSEEN))
        known = ", ".join(f"{each!r:.20}" for each in classes.tolist()[:10]) + ", ..." * (len(classes) > 10)
        raise ValueError(f"column {name!r} must hold the model's classes, {known}, not {values[row]!r:.40} (row {row})")
    return found
