"""Loops run: a step's operations, again and again, with the rows of all steps in one array for each result."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.symbolic.graph import Constant, Variable, sort
from fastnn.symbolic.instructions import FAILURES, Instruction, execute
from fastnn.symbolic.ops import Count, Shape
from fastnn.symbolic.unrolled import Run, Unrolled

if TYPE_CHECKING:
    from fastnn.symbolic.scanning import Scan

#: A thread keeps the steps of a loop for this many combinations of shapes.
N_REMEMBERED = 4

#: Steps are bound to their rows if they have no more operations than this in all: each takes half a kilobyte.
MOST_BOUND = 100_000


class Row(NamedTuple):
    """A state's places among the values of a step.

    Attributes
    ----------
    n_initial : int
    taps : list of (int, int)
        Places of earlier values, each with its row in the first step, counted from the first initial value.
    new : int
        Place of the next value.
    """

    n_initial: int
    taps: list[tuple[int, int]]
    new: int


class Loop:
    """Runs a `Scan`.

    When a thread runs it with the same shapes for the second time, but for the number of steps, it binds the operations
    of each step to their rows, in arrays that stay.

    Parameters
    ----------
    scan : Scan
    """

    def __init__(self, scan: Scan) -> None:
        roots = scan.roots()
        order = sort(roots)
        taken = [*scan.slices, *(x for state in scan.states for x in state.inputs), *(old for old, _ in scan.carried)]
        place = {variable: i for i, variable in enumerate(dict.fromkeys([*taken, *scan.others, *order]))}
        self.blank = [variable.value if isinstance(variable, Constant) else None for variable in place]
        self.dtypes = [variable.type.dtype for variable in place]
        self.instructions = [
            Instruction.of(variable, tuple(place[source] for source in variable.inputs), place[variable], ())
            for variable in order
            if variable.op is not None
        ]
        self._find_foreseen(order, place, {place[variable]: i for i, variable in enumerate(scan.others)})
        self.slices, self.others = [place[v] for v in scan.slices], [place[v] for v in scan.others]
        self.states = [
            Row(m, [(place[x], m + tap) for tap, x in zip(state.taps, state.inputs, strict=True)], place[state.new])
            for state in scan.states
            for m in [state.n_initial]
        ]
        self.carried = [(place[old], place[new]) for old, new in scan.carried]
        self.until = None if scan.until is None else place[scan.until]
        self.order = slice(None, None, -1 if scan.backwards else 1)
        self.n_results = len(scan.results)
        self.own: list[int] = []
        self._results = [self._found(scan, variable, place) for variable in scan.results]
        self._kept = threading.local()

    def _find_foreseen(self, order: list[Variable], place: dict[Variable, int], others: dict[int, int]) -> None:
        # Places of values that follow from shapes, and from some of the others, which decide shapes.
        deciding: set[int] = set()
        foreseen: set[int] = set()
        self.fits = True
        for variable in order:
            sources = {place[source] for source in variable.inputs}
            if variable.op is not None:
                decides = {place[source] for source in variable.op.shaping(variable.inputs)} - foreseen
                deciding |= decides & others.keys()
                foreseen |= deciding
                self.fits = self.fits and decides <= others.keys()
            is_known = isinstance(variable, Constant) or isinstance(variable.op, (Shape, Count))
            if is_known or (variable.op is not None and sources and sources <= foreseen):
                foreseen.add(place[variable])
        self.foreseen = foreseen
        self._deciding = [others[i] for i in sorted(deciding)]

    def _found(self, scan: Scan, variable: Variable, place: dict[Variable, int]) -> tuple[str, int, int]:
        # What a result is, its number among those, and its first row.
        for i, (old, _) in enumerate(scan.carried):
            if variable is old:
                return "carried", i, 0
        for i, state in enumerate(scan.states):
            if variable is state.new:
                return "buffers", i, state.n_initial
            for tap, x in zip(state.taps, state.inputs, strict=True):
                if variable is x:
                    return "buffers", i, state.n_initial + tap
        for kind, members in (("sequences", scan.slices), ("others", scan.others)):
            if variable in members:
                return kind, members.index(variable), 0
        self.own.append(place[variable])
        return "own", len(self.own) - 1, 0

    def __call__(
        self,
        n_steps: Any,
        sequences: Sequence[NDArray[Any]],
        initials: Sequence[NDArray[Any]],
        carried: Sequence[NDArray[Any]],
        others: Sequence[NDArray[Any]],
    ) -> list[Any]:
        """Return the results; they stay until the next call in the same thread."""
        n = int(n_steps)
        if n <= 0:
            raise ValueError(f"a loop makes at least one step, not {n}")
        short = min((len(rows) for rows in sequences), default=n)
        if short < n:
            raise ValueError(f"a sequence of {short} rows is too short for {n} steps")
        arrays = n, [rows[:n][self.order] for rows in sequences], initials, carried, others
        shapes = tuple(
            [array.shape for array in (*initials, *carried, *others)] + [rows.shape[1:] for rows in sequences]
        )
        key = shapes, tuple([others[i].tobytes() for i in self._deciding])
        kept: dict[Any, Unrolled | None] = self._kept.__dict__.setdefault("unrolled", {})
        unrolled, run = kept.get(key), None
        if unrolled is not None:
            with suppress(*FAILURES):  # the error comes again, with its expression
                run = unrolled(*arrays)
        if run is None:
            run, first = self._plain(*arrays)
            is_small = self.fits and n * len(self.instructions) <= MOST_BOUND
            if kept.pop(key, self) is None and is_small:
                unrolled = Unrolled(self, first)
            kept[key] = unrolled
            for old in list(kept)[:-N_REMEMBERED]:
                del kept[old]
        return [self._result(run, *each) for each in self._results]

    def _plain(
        self,
        n: int,
        sequences: Sequence[NDArray[Any]],
        initials: Sequence[NDArray[Any]],
        carried: Sequence[NDArray[Any]],
        others: Sequence[NDArray[Any]],
    ) -> tuple[Run, list[Any]]:
        # Run the operations as they are; return the values of the first step as well.
        run = Run(n, sequences, [self.room(initial, n) for initial in initials], list(carried), others)
        values: list[Any] = self.blank.copy()
        first = values
        for i, array in zip(self.others, others, strict=True):
            values[i] = array
        taps = [(i, row, b) for state, b in zip(self.states, run.buffers, strict=True) for i, row in state.taps]
        news = [(state.new, state.n_initial, b) for state, b in zip(self.states, run.buffers, strict=True)]
        for t in range(n):
            for i, rows in zip(self.slices, sequences, strict=True):
                values[i] = rows[t]
            for i, row, buffer in taps:
                values[i] = buffer[t + row]
            for (old, _), value in zip(self.carried, run.carried, strict=True):
                values[old] = value
            execute(self.instructions, values)
            if t == 0:
                first = values.copy()
                run.own = [self.rows(values[i], n, self.dtypes[i]) for i in self.own]
                news += [(i, 0, array) for i, array in zip(self.own, run.own, strict=True)]
            for i, row, buffer in news:
                if np.shape(values[i]) != buffer.shape[1:]:
                    raise ValueError(f"a step's output of shape {buffer.shape[1:]} became {np.shape(values[i])}")
                buffer[t + row] = values[i]
            run.carried = [values[new] for _, new in self.carried]
            if self.until is not None and values[self.until]:
                run.n = t + 1
                break
        return run, first

    def room(self, initial: NDArray[Any], n: int) -> NDArray[Any]:
        """Return an array with a state's initial values and room for n more."""
        buffer = np.empty((len(initial) + n, *initial.shape[1:]), initial.dtype)[self.order]
        buffer[: len(initial)] = initial
        return buffer

    def rows(self, value: Any, n: int, dtype: Any) -> NDArray[Any]:
        """Return an array for n values of a dtype like another value."""
        return np.empty((n, *np.shape(value)), dtype)[self.order]

    def _result(self, run: Run, kind: str, i: int, row: int) -> Any:
        array = getattr(run, kind)[i]
        if kind == "carried":
            return array
        if kind == "others":
            return np.broadcast_to(array, (run.n, *array.shape))
        return array[row : row + run.n][self.order]
