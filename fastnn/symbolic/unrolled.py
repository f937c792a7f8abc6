"""Loops whose operations are bound, step by step, to the rows that they read and write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastnn.symbolic.fusion import identities, joined, without_broadcasts
from fastnn.symbolic.instructions import Instruction
from fastnn.symbolic.ops.fused import Fused

if TYPE_CHECKING:
    from fastnn.symbolic.looping import Loop

Calls = list[Callable[[], Any]]

#: In this call it is first seen which arrays are the same as in the last one.  They are bound then instead of copies.
FIRST_CHECK = 2


@dataclass
class Run:
    """The arrays of a run of a loop, rows in the order of the steps.

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


class Unrolled:
    """The steps of a loop for values of certain shapes.

    Arrays have room for the most steps so far; a run of fewer steps takes the first of them.

    Parameters
    ----------
    loop : Loop
    first : list
        Values of a first step, by place.
    """

    def __init__(self, loop: Loop, first: Sequence[Any]) -> None:
        self._loop = loop
        self._shapes = {i: np.shape(value) for i, value in enumerate(first) if value is not None}
        self._known = [value if i in loop.foreseen else None for i, value in enumerate(first)]
        same = identities(loop.instructions, self._shapes)
        roots = [*(state.new for state in loop.states), *(new for _, new in loop.carried), *loop.own]
        roots += [] if loop.until is None else [loop.until]
        self._at = {i: same.get(i, i) for i in roots}
        self._instructions = joined(self._needed(loop.instructions, same), self._shapes, self._at.values())
        self._capacity = self._n_calls = 0
        self._check_at = FIRST_CHECK
        #: Arrays that are bound themselves, by number: of sequences first, then of the others.
        self._direct: dict[int, Any] = {}
        self._last: list[Any] = []

    def _needed(self, instructions: Iterable[Instruction], same: dict[int, int]) -> list[Instruction]:
        # Instructions that the results depend on, each reading a value at its one place.
        once = [each._replace(sources=tuple(same.get(i, i) for i in each.sources)) for each in instructions]
        needed, found = set(self._at.values()), []
        for each in reversed(without_broadcasts(once, self._shapes)):
            if each.targets[0] in needed and self._known[each.targets[0]] is None:
                needed.update(each.sources)
                found.append(each)
        return found[::-1]

    def __call__(
        self,
        n: int,
        sequences: Sequence[NDArray[Any]],
        initials: Sequence[NDArray[Any]],
        carried: Sequence[NDArray[Any]],
        others: Sequence[NDArray[Any]],
    ) -> Run:
        """Run n steps."""
        given = [*sequences, *others]
        self._choose(given)
        if n > self._capacity:
            self._allocate(n if self._capacity == 0 else max(n, 2 * self._capacity), given, initials, carried)
        for i, (array, own) in enumerate(zip(given, self._given, strict=True)):
            if i not in self._direct:
                np.copyto(own[:n] if i < len(sequences) else own, array)
        for buffer, initial in zip(self._buffers, initials, strict=True):
            buffer[: len(initial)] = initial
        for ring, value in zip(self._rings, carried, strict=True):
            ring[0][...] = value
        while len(self._ends) <= n and self._loop.until is None:
            self._bind()
        if self._loop.until is not None:
            n = self._run_until(n)
        else:
            for call in self._calls if self._ends[n] == len(self._calls) else self._calls[: self._ends[n]]:
                call()
        finals = [ring[n % 2] for ring in self._rings]
        return Run(n, sequences, self._buffers, finals, others, self._own)

    def _run_until(self, n: int) -> int:
        for t in range(n):
            if len(self._ends) <= t + 1:
                self._bind()
            for call in self._calls[self._ends[t] : self._ends[t + 1]]:
                call()
            if self._conditions[t]:
                return t + 1
        return n

    def _choose(self, given: Sequence[NDArray[Any]]) -> None:
        # Decide which arrays are bound themselves: those that were in the same place in the call before.
        self._n_calls += 1
        moved = [i for i, where in self._direct.items() if _where(given[i]) != where]
        if moved:
            self._direct = {i: where for i, where in self._direct.items() if i not in moved}
            self._check_at = 2 * self._n_calls + FIRST_CHECK
        stayed = {}
        if self._n_calls == self._check_at:
            stayed = {i: where for i, where in enumerate(map(_where, given)) if where and where == self._last[i]}
        elif self._n_calls == self._check_at - 1:
            self._last = [_where(array) for array in given]
        if moved or stayed.keys() > self._direct.keys():
            self._direct |= stayed
            self._capacity = 0

    def _allocate(
        self,
        capacity: int,
        given: Sequence[NDArray[Any]],
        initials: Sequence[NDArray[Any]],
        carried: Sequence[NDArray[Any]],
    ) -> None:
        loop, n_sequences = self._loop, len(self._loop.slices)
        self._capacity = capacity
        self._given = [
            array
            if i in self._direct
            else loop.rows(array[0], capacity, array.dtype)
            if i < n_sequences
            else np.empty_like(array)
            for i, array in enumerate(given)
        ]
        self._buffers = [loop.room(initial, capacity) for initial in initials]
        self._rings = [[np.empty_like(value) for _ in range(2)] for value in carried]
        # Where the results of instructions go: rows of arrays.  What has a place already, or is no such result, is
        # copied.
        targets = {target for each in self._instructions for target in each.targets}
        self._homes: dict[int, NDArray[Any]] = {}
        self._copies: list[tuple[int, NDArray[Any]]] = []
        for state, buffer in zip(loop.states, self._buffers, strict=True):
            self._settle(self._at[state.new], buffer[state.n_initial :], targets)
        self._own = []
        for i in loop.own:
            rows = self._homes.get(self._at[i])
            if rows is None:
                rows = loop.rows(np.empty(self._shapes[i]), capacity, loop.dtypes[i])
                self._settle(self._at[i], rows, targets)
            self._own.append(rows)
        self._base = self._known.copy()
        for place, array in zip(loop.others, self._given[n_sequences:], strict=True):
            self._base[place] = array
        for i in targets - self._homes.keys():
            self._base[i] = np.empty(self._shapes[i], loop.dtypes[i])
        self._calls: Calls = []
        self._ends, self._conditions = [0], list[Any]()

    def _settle(self, place: int, rows: NDArray[Any], targets: set[int]) -> None:
        if place in targets and place not in self._homes:
            self._homes[place] = rows
        else:
            self._copies.append((place, rows))

    def _bind(self) -> None:
        # Bind the operations of one more step.
        loop, t = self._loop, len(self._ends) - 1
        values: list[Any] = self._base.copy()
        for place, rows in zip(loop.slices, self._given, strict=False):
            values[place] = rows[t, ...]
        for state, buffer in zip(loop.states, self._buffers, strict=True):
            for place, row in state.taps:
                values[place] = buffer[t + row, ...]
        for (old, _), ring in zip(loop.carried, self._rings, strict=True):
            values[old] = ring[t % 2]
        for place, rows in self._homes.items():
            values[place] = rows[t, ...]
        for each in self._instructions:
            self._calls += self._calls_of(each, values)
        for place, rows in self._copies:
            self._calls.append(partial(np.copyto, rows[t, ...], values[place]))
        for (_, new), ring in zip(loop.carried, self._rings, strict=True):
            self._calls.append(partial(np.copyto, ring[(t + 1) % 2], values[self._at[new]]))
        self._ends.append(len(self._calls))
        self._conditions.append(None if loop.until is None else values[self._at[loop.until]])

    def _calls_of(self, instruction: Instruction, values: list[Any]) -> Calls:
        op, sources, target = instruction.op, instruction.sources, instruction.targets[0]
        arrays, out = [values[i] for i in sources], values[target]
        if isinstance(op, Fused) or (op.takes_out and out.ndim > 0):
            return instruction.bound(values)
        if op.views and all(self._known[i] is not None for i in sources[1:]):
            view = np.asarray(op.compute(*arrays))
            if np.may_share_memory(view, arrays[0]):
                if target in self._homes:
                    return [partial(np.copyto, out, view)]
                values[target] = view
                return []
        return [partial(_put, instruction.compute, arrays, out)]


def _put(compute: Callable[..., Any], arrays: Sequence[Any], out: NDArray[Any]) -> None:
    out[...] = compute(*arrays)


def _where(array: NDArray[Any]) -> Any:
    # Where an array is; None if its rows have gaps, so that a copy is better.
    rows = array if array.flags.forc or array.ndim == 0 else array[0]
    if not rows.flags.forc:
        return None
    return array.__array_interface__["data"][0], array.shape, array.strides
