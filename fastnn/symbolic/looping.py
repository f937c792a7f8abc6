"""Loops run: a step's operations, again and again, with the rows of all steps in one array for each result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from fastnn.symbolic.graph import Constant, Variable
from fastnn.symbolic.instructions import Instruction, execute

if TYPE_CHECKING:
    from fastnn.symbolic.scanning import Scan


class Loop:
    """Runs a `Scan`.

    Parameters
    ----------
    scan : Scan
    """

    def __init__(self, scan: Scan) -> None:
        self.n_results = len(scan.results)
        self._scan = scan
        self._states = [(state, state.n_initial) for state in scan.states]
        order = scan.order()
        taken = [*scan.slices, *(x for state in scan.states for x in state.inputs), *(old for old, _ in scan.carried)]
        place = {variable: i for i, variable in enumerate(dict.fromkeys([*taken, *scan.others, *order]))}
        self._place = place
        self._blank = [variable.value if isinstance(variable, Constant) else None for variable in place]
        self._instructions = [
            Instruction.of(variable, tuple(place[source] for source in variable.inputs), place[variable], ())
            for variable in order
            if variable.op is not None
        ]
        known = {*scan.others, *taken, *(state.new for state in scan.states)}
        self._own = [variable for variable in dict.fromkeys(scan.results) if variable not in known]

    def __call__(
        self,
        n_steps: Any,
        sequences: Sequence[NDArray[Any]],
        initials: Sequence[NDArray[Any]],
        carried: Sequence[NDArray[Any]],
        others: Sequence[NDArray[Any]],
    ) -> list[Any]:
        """Return the results."""
        n = int(n_steps)
        if n <= 0:
            raise ValueError(f"a loop makes at least one step, not {n}")
        short = min((len(rows) for rows in sequences), default=n)
        if short < n:
            raise ValueError(f"a sequence of {short} rows is too short for {n} steps")
        run = Run(n, sequences, [_room(initial, n) for initial in initials], list(carried), others)
        self._make(run)
        return [self._result(run, variable) for variable in self._scan.results]

    def _make(self, run: Run) -> None:
        scan, place, values = self._scan, self._place, self._blank.copy()
        for variable, array in zip(scan.others, run.others, strict=True):
            values[place[variable]] = array
        rows = [(place[variable], array) for variable, array in zip(scan.slices, run.sequences, strict=True)]
        taps = [
            (place[x], m + tap, buffer)
            for (state, m), buffer in zip(self._states, run.buffers, strict=True)
            for tap, x in zip(state.taps, state.inputs, strict=True)
        ]
        news = [(place[state.new], m, buffer) for (state, m), buffer in zip(self._states, run.buffers, strict=True)]
        n = run.n
        for t in range(n):
            for i, array in rows:
                values[i] = array[t]
            for i, offset, buffer in taps:
                values[i] = buffer[t + offset]
            for (old, _), value in zip(scan.carried, run.carried, strict=True):
                values[place[old]] = value
            execute(self._instructions, values)
            if t == 0:
                run.own = [np.empty((n, *np.shape(cast(Any, values[place[v]]))), v.type.dtype) for v in self._own]
                news += [(place[v], 0, array) for v, array in zip(self._own, run.own, strict=True)]
            for i, offset, buffer in news:
                _put(buffer, t + offset, values[i])
            run.carried = [values[place[new]] for _, new in scan.carried]
            if scan.until is not None and values[place[scan.until]]:
                run.n = t + 1
                break

    def _result(self, run: Run, variable: Variable) -> Any:
        scan, n = self._scan, run.n
        for (old, _), value in zip(scan.carried, run.carried, strict=True):
            if variable is old:
                return value
        for slice_, array in zip(scan.slices, run.sequences, strict=True):
            if variable is slice_:
                return array[:n]
        for (state, m), buffer in zip(self._states, run.buffers, strict=True):
            if variable is state.new:
                return buffer[m : m + n]
            for tap, x in zip(state.taps, state.inputs, strict=True):
                if variable is x:
                    return buffer[m + tap : m + tap + n]
        for other, array in zip(scan.others, run.others, strict=True):
            if variable is other:
                return np.broadcast_to(array, (n, *array.shape))
        return run.own[self._own.index(variable)][:n]


@dataclass
class Run:
    """The arrays of one run of a loop.

    Attributes
    ----------
    n : int
        The number of steps.
    sequences : sequence of arrays
    buffers : list of arrays
        Of each state its initial values and room for n more.
    carried : list
        The latest values of what is not kept step by step.
    others : sequence of arrays
    own : list of arrays
        For the other results, with n rows.
    """

    n: int
    sequences: Sequence[NDArray[Any]]
    buffers: list[NDArray[Any]]
    carried: list[Any]
    others: Sequence[NDArray[Any]]
    own: list[NDArray[Any]] = field(default_factory=list)


def _room(initial: NDArray[Any], n: int) -> NDArray[Any]:
    buffer = np.empty((len(initial) + n, *initial.shape[1:]), initial.dtype)
    buffer[: len(initial)] = initial
    return buffer


def _put(buffer: NDArray[Any], row: int, value: Any) -> None:
    if np.shape(value) != buffer.shape[1:]:
        raise ValueError(f"a step's output of shape {np.shape(value)} had the shape {buffer.shape[1:]} before")
    buffer[row] = value
