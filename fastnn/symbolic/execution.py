"""Plans of instructions for values of certain shapes."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import methodcaller
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.symbolic.fusion import identities, joined, without_broadcasts
from fastnn.symbolic.instructions import FAILURES, Instruction, Output, located, perform
from fastnn.symbolic.ops import Dot, Hole, Index, Picked, Reduction, SumTo, added_axes
from fastnn.symbolic.ops.fused import Fused
from fastnn.symbolic.products import THIN_COLUMNS

#: A plan keeps arrays for results up to this total size; other arrays are new in each call.
KEPT_BYTES = 64 * 2**20

#: Values that change from call to call are copied into arrays that stay, and results out of such, up to this size.
COPIED_BYTES = 4096

#: After this many calls, binding arrays to operations costs less than it saves.
BINDING_PAYS = 16

#: BLAS starts threads for a product of about this many multiply-adds.
THREADED_PRODUCT = 250_000

BY_KERNELS = Dot(by_kernels=True)


class Turns:
    """Two arrays that are returned in turn; an array that other code still holds is left to it."""

    _probe = (object(),)
    _unshared = sys.getrefcount(_probe[0])

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._arrays = [np.empty(shape, dtype) for _ in range(2)]

    def next(self) -> NDArray[Any]:
        """Return a view of an array that no other code holds, or of a new one."""
        arrays = self._arrays
        arrays.reverse()
        if sys.getrefcount(arrays[0]) > self._unshared:
            arrays[0] = np.empty_like(arrays[0])
        return arrays[0].view()


class Plan:
    """Operations prepared for values of certain shapes.

    What depends only on shapes is computed in advance, operations that change nothing are left out, elementwise ones
    are joined, and results go to arrays that are made once.  Given values that are the same arrays in every call, and
    copies of small ones, are bound to the operations.  Only one thread at a time can use a plan.

    Parameters
    ----------
    instructions : sequence of Instruction
    values : list
        By place: constants, and what depends only on shapes; None elsewhere.
    shapes : dict of int to tuple
        Shapes of the values at all other places.
    given : dict of int to dtype
        Of the values that a call gives, by place.
    staying : set of int
        Those of them that are probably the same arrays in the next call.
    outputs : sequence of Output
    kept : set of int
        Places of results whose arrays the caller will keep.

    Attributes
    ----------
    is_quiet : bool
        Whether NumPy does not warn of overflows, as the kernels do all the arithmetic.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        values: list[Any],
        shapes: dict[int, tuple[int, ...]],
        given: dict[int, np.dtype[Any]],
        staying: set[int],
        outputs: Sequence[Output],
        kept: set[int],
    ) -> None:
        known = {place for place, value in enumerate(values) if value is not None}
        self._known, self._shapes = values, shapes | {place: np.shape(values[place]) for place in known}
        same = identities(instructions, shapes)
        self._outputs = [
            output._replace(place=place, owned=output.owned and place not in known)
            for output in outputs
            for place in [same.get(output.place, output.place)]
        ]
        places = [output.place for output in self._outputs]
        found = [_on_shapes(each, self._shapes) for each in _reading_once(instructions, same)]
        found = without_broadcasts(found, self._shapes)
        found = joined(_needed(found, known, places), self._shapes, places)
        found = _products_by_kernels(found, self._shapes)
        self._overwritten, last = _overwriting(found, self._shapes, self._outputs)
        self._last = [found[i] for i in last]
        self._needed = [each for i, each in enumerate(found) if i not in last]
        self._uses = _last_uses(self._needed + self._last, places)
        replaced = {output.replaces for output in self._outputs} - set(self._overwritten.values())
        self._given, self._staying = list(given), staying - replaced
        #: Arrays that stay, for small values that may be in other arrays in each call.
        self._own = [
            (i, np.empty(self._shapes[i], dtype))
            for i, dtype in given.items()
            if i not in self._staying and dtype.kind != "O" and _n_bytes(self._shapes[i], dtype) <= COPIED_BYTES
        ]
        into = {i: v.type.dtype for each in found if each.op.takes_out for i, v in each.results()}
        self._kept = {i for i in kept if i in into and _n_bytes(self._shapes[i], into[i]) > COPIED_BYTES}
        own = into.keys() - self._kept - self._overwritten.keys()
        self._outputs = [
            each._replace(owned=each.owned and self._root(each.place) not in own) for each in self._outputs
        ]
        self.is_quiet = all(isinstance(each.op, Fused) or each.op.views for each in found)
        self._bound: dict[int, Any] | None = None
        self._n_calls = BINDING_PAYS

    def _root(self, place: int) -> int:
        # The place whose memory a value may share.
        return self._uses[1].get(place, place)

    def _rebind(self, values: Sequence[Any]) -> None:
        if self._bound is not None and self._n_calls < BINDING_PAYS:
            self._staying -= {i for i, array in self._bound.items() if values[i] is not array}
        self._bound = None  # in case this is interrupted
        self._bind({i: values[i] for i in self._staying})

    def _bind(self, bound: dict[int, Any]) -> None:
        # Make arrays for results, and calls of the operations whose arrays are then all known.
        values = self._known.copy()
        known = {place for place, value in enumerate(values) if value is not None}
        for i, array in (*bound.items(), *self._own):
            values[i] = array
        for i, begin in self._overwritten.items():
            values[i] = bound.get(begin)
        last_use, roots = self._uses
        store = _Store(self._kept)
        calls: list[tuple[Callable[[], Any], Instruction]] = []
        for i, instruction in enumerate(self._needed):
            sources = instruction.sources
            is_view = instruction.op.views and not instruction.op.acts
            if is_view and values[sources[0]] is not None and known.issuperset(sources[1:]):
                view = instruction.compute(*(values[source] for source in sources))
                if np.may_share_memory(view, values[sources[0]]):
                    values[instruction.targets[0]] = view
                    continue
            into = instruction.op.takes_out and all(
                [store.has_array(target, self._shapes[target], v.type.dtype) for target, v in instruction.results()]
            )
            for target in instruction.targets:
                values[target] = store.arrays.get(target) if into else None
            store.put_back(roots[source] for source in sources if last_use[roots[source]] == i)
            if instruction.can_be_bound(values):
                calls += [(call, instruction) for call in instruction.bound(values)]
            else:
                dying = (source for source in dict.fromkeys(sources) if last_use[source] == i)
                let_go = tuple(source for source in dying if values[source] is None)
                instruction = instruction._replace(into=into, dying=let_go)
                calls.append((partial(perform, instruction, values), instruction))
        self._calls, self._turns = calls, list(store.turns.items())
        bindable = all([each.can_be_bound(values) for each in self._last])
        self._updates = [call for each in self._last for call in each.bound(values)] if bindable else None
        #: Places of values that last for one call.
        self._passing = [place for place, value in enumerate(values) if value is None]
        self._unbound = [place for place in self._given if values[place] is None]
        self._unbound_results = [(i, begin) for i, begin in self._overwritten.items() if begin not in bound]
        self._values, self._bound, self._n_calls = values, bound, 0

    def __call__(self, given: Sequence[Any]) -> list[NDArray[Any]]:
        """Return the values of the outputs, from a list with the given values at their places."""
        bound = self._bound
        if bound is None or (bound and any([given[i] is not array for i, array in bound.items()])):
            self._rebind(given)
        self._n_calls += 1
        values = self._values
        try:
            for i, array in self._own:
                array[...] = given[i]
            for i in self._unbound:
                values[i] = given[i]
            for i, turns in self._turns:
                values[i] = turns.next()
            for i, begin in self._unbound_results:
                values[i] = given[begin]
            for call, instruction in self._calls:
                try:
                    call()
                except FAILURES as error:
                    raise located(error, instruction, values) from None
            if self._last:
                # From here on nothing can fail, and no signal such as Ctrl-C is handled before the end, because no line
                # of Python runs in between.
                updates = self._updates or [call for each in self._last for call in each.bound(values)]
                deque(map(_CALL, updates), maxlen=0)
            return taken(values, self._outputs)
        finally:
            for i in self._passing:
                values[i] = None


_CALL = methodcaller("__call__")


def taken(values: Sequence[Any], outputs: Iterable[Output]) -> list[NDArray[Any]]:
    """Return the values of outputs."""
    return [np.asarray(values[i]) if owned else np.array(values[i]) for i, owned, _ in outputs]


class _Store:
    """Arrays for results, reused when a result is no longer needed.

    Attributes
    ----------
    arrays : dict of int to array
        By the place of the result.
    turns : dict of int to Turns
        Arrays of results that the caller will keep.
    """

    def __init__(self, kept: set[int]) -> None:
        self.arrays: dict[int, NDArray[Any]] = {}
        self.turns: dict[int, Turns] = {}
        self._kept = kept
        self._n_bytes = 0
        self._free: list[NDArray[Any]] = []

    def has_array(self, place: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
        """Return whether there is an array for the result at a place."""
        if place in self._kept:
            if self._has_room(2 * _n_bytes(shape, dtype)):
                self.turns[place] = Turns(shape, dtype)
            return place in self.turns
        fitting = (i for i, array in enumerate(self._free) if array.shape == shape and array.dtype == dtype)
        found = next(fitting, None)
        if found is not None:
            self.arrays[place] = self._free.pop(found)
        elif self._has_room(_n_bytes(shape, dtype)):
            self.arrays[place] = np.empty(shape, dtype)
        return place in self.arrays

    def _has_room(self, n_bytes: int) -> bool:
        fits = self._n_bytes + n_bytes <= KEPT_BYTES
        self._n_bytes += n_bytes if fits else 0
        return fits

    def put_back(self, places: Iterable[int]) -> None:
        """Take back the arrays of results that came from here."""
        self._free += [self.arrays.pop(place) for place in set(places) if place in self.arrays]


def _n_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize


def _reading_once(instructions: Iterable[Instruction], same: dict[int, int]) -> list[Instruction]:
    # Each reads a value at its one place.
    return [each._replace(sources=tuple(same.get(source, source) for source in each.sources)) for each in instructions]


def _on_shapes(each: Instruction, shapes: dict[int, tuple[int, ...]]) -> Instruction:
    # The instruction for arrays of known shapes, which may take an array for its result.
    op, sources = each.op, each.sources
    if isinstance(op, Index) and any(isinstance(item, Hole) and shapes[sources[1 + item.number]] for item in op.items):
        op = Picked(op.items)
    elif isinstance(op, SumTo):
        lengths, narrow = shapes[sources[0]], shapes[each.targets[0]]
        n_new, axes = len(lengths) - len(narrow), added_axes(lengths, narrow)
        if n_new in (0, len(axes)):
            op, sources = Reduction("sum", tuple(axes), keepdims=n_new == 0), sources[:1]
    return each if op is each.op else each._replace(op=op, compute=op.compute, sources=sources)


def _needed(instructions: Sequence[Instruction], known: set[int], outputs: Iterable[int]) -> list[Instruction]:
    # Instructions that outputs depend on.
    needed, found = set(outputs), []
    for each in reversed(instructions):
        if each.targets[0] in needed and each.targets[0] not in known:
            needed.update(each.sources)
            found.append(each)
    return found[::-1]


def _products_by_kernels(instructions: list[Instruction], shapes: dict[int, tuple[int, ...]]) -> list[Instruction]:
    # Small ones for which BLAS would start threads: beside a busy process these wait for each other for milliseconds.
    # Of the large ones all or none: threads of NumPy's BLAS stay busy for a while after a product and slow the kernels
    # down.  So if other operations run on the kernels' threads, products do too; otherwise only if all of them are
    # faster there.
    small, large = set(), set()
    others = any(_runs_in_threads(each, shapes) for each in instructions)
    all_faster = True
    for i, each in enumerate(instructions):
        if isinstance(each.op, Dot):
            left, right = (shapes.get(source, ()) for source in each.sources)
            size, is_matrix = math.prod(left) * math.prod(right[1:]), each.variables[0].ndim == 2
            thin = is_matrix and right[1] <= THIN_COLUMNS
            if is_matrix and THREADED_PRODUCT <= size < tuning.SMALL_RUN and not thin:
                small.add(i)
            elif size >= THREADED_PRODUCT:
                all_faster = all_faster and (others or thin)
                large |= {i} if is_matrix else set()
    chosen = small | large if all_faster else small
    return [
        each._replace(op=BY_KERNELS, compute=BY_KERNELS.compute) if i in chosen else each
        for i, each in enumerate(instructions)
    ]


def _runs_in_threads(each: Instruction, shapes: dict[int, tuple[int, ...]]) -> bool:
    # Whether an operation other than a product runs on the kernels' threads.
    if isinstance(each.op, Fused):
        return math.prod(shapes[each.targets[0]]) * len(each.op.steps) >= tuning.SMALL_ELEMENTWISE
    return each.op.in_threads


def _last_uses(instructions: Iterable[Instruction], outputs: Iterable[int]) -> tuple[dict[int, int], dict[int, int]]:
    # By place: the last instruction that reads a value or a view of it; and the place whose memory a value may share.
    roots: dict[int, int] = {}
    last_use: dict[int, int] = {}
    end = 0
    for end, instruction in enumerate(instructions):
        for source in instruction.sources:
            last_use[source] = last_use[roots.setdefault(source, source)] = end
        for target in instruction.targets:
            roots[target] = roots[instruction.sources[0]] if instruction.op.views else target
    for place in outputs:
        last_use[place] = last_use[roots.get(place, place)] = end + 1
    return last_use, roots


def _overwriting(
    instructions: Sequence[Instruction], shapes: dict[int, tuple[int, ...]], outputs: Sequence[Output]
) -> tuple[dict[int, int], list[int]]:
    # By the place of a result: that of a given value which nobody needs afterwards, so that the result can go there.
    # The instructions that overwrite, whose numbers come second, must run last, and must not fail.
    last_use, _ = _last_uses(instructions, [output.place for output in outputs])
    maker = {place: i for i, each in enumerate(instructions) if isinstance(each.op, Fused) for place in each.targets}
    found = {
        end: begin
        for end, owned, begin in outputs
        if owned and begin is not None and end in maker and last_use.get(begin, -1) <= maker[end]
        if shapes[end] == shapes.get(begin)
    }
    late: set[int] = set()
    while late != (late := {maker[end] for end in found}):
        # Instructions that read one of their results must run last too, and all their results must go to such places.
        read = {source for i, each in enumerate(instructions) if i not in late for source in each.sources}
        fit = {
            i for i in late if found.keys() >= {*instructions[i].targets} and read.isdisjoint(instructions[i].targets)
        }
        found = {end: begin for end, begin in found.items() if maker[end] in fit}
    return found, sorted(late)
