"""Operations run in order by NumPy and the kernels, and plans of them for values of certain shapes."""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import methodcaller
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.symbolic.graph import Op, Variable
from fastnn.symbolic.ops import BroadcastTo, Dot, Elementwise, Reshape, SumTo
from fastnn.symbolic.printing import pprint
from fastnn.symbolic.products import THIN_COLUMNS

#: A plan keeps arrays for results up to this total size; other arrays are new in each call.
KEPT_BYTES = 64 * 2**20

#: After this many calls, binding arrays to operations costs less than it saves.
BINDING_PAYS = 16

#: BLAS starts threads for a product of about this many multiply-adds.
THREADED_PRODUCT = 250_000

BY_KERNELS = Dot(by_kernels=True)

#: Errors of an operation.
FAILURES = ValueError, IndexError, TypeError, ArithmeticError


class Instruction(NamedTuple):
    """One operation.

    Attributes
    ----------
    op : Op
    compute : callable
        Computes its result.
    sources : tuple of int
        Places of its arguments.
    target : int
        Place of its result.
    into : bool
        Whether an array for the result exists already.
    dying : tuple of int
        Places of values that nothing needs afterwards.
    variable : Variable
        The result.
    """

    op: Op
    compute: Callable[..., Any]
    sources: tuple[int, ...]
    target: int
    into: bool
    dying: tuple[int, ...]
    variable: Variable

    @classmethod
    def of(cls, variable: Variable, sources: tuple[int, ...], target: int, dying: tuple[int, ...]) -> Instruction:
        """Return the instruction that computes a variable."""
        assert variable.op is not None
        return cls(variable.op, compute_of(variable.op), sources, target, False, dying, variable)

    @property
    def can_go_into(self) -> bool:
        """Whether the operation can write its result into a given array."""
        return self.op.takes_out and self.variable.ndim > 0

    def can_be_bound(self, values: Sequence[Any]) -> bool:
        """Whether all its arguments, and an array for its result, are known."""
        return values[self.target] is not None and all([values[source] is not None for source in self.sources])

    def bound(self, values: Sequence[Any]) -> list[Callable[[], Any]]:
        """Return calls that compute the result in order, if `can_be_bound`."""
        return self.op.calls([values[source] for source in self.sources], values[self.target])


class Output(NamedTuple):
    """An output.

    Attributes
    ----------
    place : int
        Place of its value.
    owned : bool
        Whether the caller may keep the value itself rather than a copy.
    replaces : int or None
        Place of a given value that nobody needs after the output exists, so that it may be overwritten.
    """

    place: int
    owned: bool
    replaces: int | None = None


def compute_of(op: Op) -> Callable[..., Any]:
    """Return the function that computes an operation's result."""
    return op.function if isinstance(op, Elementwise) else op.compute


def perform(instruction: Instruction, values: list[Any]) -> None:
    """Run an operation on arguments in a list, and put its result there."""
    _, compute, sources, target, into, dying, _ = instruction
    arrays = [values[i] for i in sources]
    if into:
        compute(*arrays, out=values[target])
    else:
        values[target] = compute(*arrays)
    for i in dying:
        values[i] = None


def execute(instructions: Iterable[Instruction], values: list[Any]) -> None:
    """Run operations in order."""
    for instruction in instructions:
        try:
            perform(instruction, values)
        except FAILURES as error:
            raise _located(error, instruction, values) from None


def _located(error: Exception, instruction: Instruction, values: list[Any]) -> Exception:
    shapes = ", ".join(str(np.shape(values[i])) for i in instruction.sources)
    kind = next(kind for kind in FAILURES if isinstance(error, kind))
    return kind(f"{pprint(instruction.variable)} cannot be computed{f' from shapes {shapes}' * bool(shapes)}: {error}")


def taken(values: Sequence[Any], outputs: Iterable[Output]) -> list[NDArray[Any]]:
    """Return the values of outputs."""
    return [np.asarray(values[i]) if owned else np.array(values[i]) for i, owned, _ in outputs]


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

    What depends only on shapes is computed in advance, operations that change nothing are left out, and results go to
    arrays that are made once.  Given values that are the same arrays in every call are bound to the operations.  Only
    one thread at a time can use a plan: see `lock`.

    Parameters
    ----------
    instructions : sequence of Instruction
    values : list
        By place: constants, and what depends only on shapes; None elsewhere.
    shapes : dict of int to tuple
        Shapes of the values at all other places.
    given : sequence of int
        Places of the values that a call gives.
    staying : set of int
        Those of them that are probably the same arrays in the next call.
    outputs : sequence of Output
    kept : set of int
        Places of results whose arrays the caller will keep.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        values: list[Any],
        shapes: dict[int, tuple[int, ...]],
        given: Sequence[int],
        staying: set[int],
        outputs: Sequence[Output],
        kept: set[int],
    ) -> None:
        self.lock = threading.Lock()
        self._known, self._shapes, self._kept = values, shapes, kept
        known = {place for place, value in enumerate(values) if value is not None}
        same = _identities(instructions, shapes)
        self._outputs = [
            output._replace(place=place, owned=output.owned and place not in known)
            for output in outputs
            for place in [same.get(output.place, output.place)]
        ]
        places = [output.place for output in self._outputs]
        needed = _products_by_kernels(_needed(instructions, same, known, places), shapes)
        chains = _chains_of_updates(needed, shapes, self._outputs)
        last = {i for chain in chains.values() for i in chain}
        #: Places of given values that are overwritten, with the places of all results that go there.
        self._overwritten = {begin: [needed[i].target for i in chain] for begin, chain in chains.items()}
        self._last = [needed[i] for i in sorted(last)]
        self._needed = [each for i, each in enumerate(needed) if i not in last]
        self._uses = _last_uses(self._needed + self._last, places)
        replaced = {output.replaces for output in self._outputs} - set(chains)
        self._given, self._staying = given, staying - replaced
        self._bound: dict[int, Any] | None = None
        self._n_calls = BINDING_PAYS

    def _rebind(self, values: Sequence[Any]) -> None:
        if self._bound is not None and self._n_calls < BINDING_PAYS:
            self._staying -= {i for i, array in self._bound.items() if values[i] is not array}
        self._bound = None  # in case this is interrupted
        self._bind({i: values[i] for i in self._staying})

    def _bind(self, bound: dict[int, Any]) -> None:
        # Make arrays for results, and calls of the operations whose arrays are then all known.
        values = self._known.copy()
        known = {place for place, value in enumerate(values) if value is not None}
        for begin, array in bound.items():
            for i in (begin, *self._overwritten.get(begin, ())):
                values[i] = array
        last_use, roots = self._uses
        ends = _ends_of_chains(self._needed, self._shapes, last_use, roots, self._kept)
        store = _Store(self._kept)
        calls: list[tuple[Callable[[], Any], Instruction]] = []
        for i, instruction in enumerate(self._needed):
            sources, target = instruction.sources, instruction.target
            if instruction.op.views and values[sources[0]] is not None and known.issuperset(sources[1:]):
                view = instruction.compute(*(values[source] for source in sources))
                if np.may_share_memory(view, values[sources[0]]):
                    values[target] = view
                    continue
            into = False
            if target in ends:
                into = store.has_array(ends[target], target, self._shapes[target], instruction.variable.type.dtype)
                values[target] = store.arrays.get(ends[target])
            store.put_back(roots[source] for source in sources if last_use[roots[source]] == i)
            if instruction.can_be_bound(values):
                calls += [(call, instruction) for call in instruction.bound(values)]
            else:
                dying = (source for source in dict.fromkeys(sources) if last_use[source] == i)
                let_go = tuple(source for source in dying if values[source] is None)
                instruction = instruction._replace(into=into, dying=let_go)
                calls.append((partial(perform, instruction, values), instruction))
        self._calls, self._turns = calls, store.turns
        bindable = all([each.can_be_bound(values) for each in self._last])
        self._updates = [call for each in self._last for call in each.bound(values)] if bindable else None
        #: Places of values that last for one call.
        self._passing = [place for place, value in enumerate(values) if value is None]
        self._unbound = [place for place in self._given if place not in bound]
        self._unbound_results = [
            (i, begin) for begin, places in self._overwritten.items() if begin not in bound for i in places
        ]
        self._values, self._bound, self._n_calls = values, bound, 0

    def __call__(self, given: Sequence[Any]) -> list[NDArray[Any]]:
        """Return the values of the outputs, from a list with the given values at their places."""
        if self._bound is None or any([given[i] is not array for i, array in self._bound.items()]):
            self._rebind(given)
        self._n_calls += 1
        values = self._values
        try:
            for i in self._unbound:
                values[i] = given[i]
            for turns, places in self._turns.values():
                array = turns.next()
                for i in places:
                    values[i] = array
            for i, begin in self._unbound_results:
                values[i] = given[begin]
            for call, instruction in self._calls:
                try:
                    call()
                except FAILURES as error:
                    raise _located(error, instruction, values) from None
            # From here on nothing can fail, and no signal such as Ctrl-C is handled before the end, because no line of
            # Python runs in between.
            updates = self._updates or [call for each in self._last for call in each.bound(values)]
            deque(map(methodcaller("__call__"), updates), maxlen=0)
            return taken(values, self._outputs)
        finally:
            for i in self._passing:
                values[i] = None


class _Store:
    """Arrays for results, reused when a result is no longer needed.

    Attributes
    ----------
    arrays : dict of int to array
        By the place of the result.
    turns : dict of int to (Turns, list of int)
        Arrays of results that the caller will keep, and the places of all results that go into them.
    """

    def __init__(self, kept: set[int]) -> None:
        self.arrays: dict[int, NDArray[Any]] = {}
        self.turns: dict[int, tuple[Turns, list[int]]] = {}
        self._kept = kept
        self._n_bytes = 0
        self._free: list[NDArray[Any]] = []

    def has_array(self, end: int, place: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
        """Return whether there is an array for the result at a place; a chain with this end shares one."""
        if end in self._kept:
            if end not in self.turns and self._has_room(2 * math.prod(shape) * dtype.itemsize):
                self.turns[end] = Turns(shape, dtype), []
            if end in self.turns:
                self.turns[end][1].append(place)
            return end in self.turns
        if end not in self.arrays:
            fitting = (i for i, array in enumerate(self._free) if array.shape == shape and array.dtype == dtype)
            found = next(fitting, None)
            if found is not None:
                self.arrays[end] = self._free.pop(found)
            elif self._has_room(math.prod(shape) * dtype.itemsize):
                self.arrays[end] = np.empty(shape, dtype)
        return end in self.arrays

    def _has_room(self, n_bytes: int) -> bool:
        fits = self._n_bytes + n_bytes <= KEPT_BYTES
        self._n_bytes += n_bytes if fits else 0
        return fits

    def put_back(self, ends: Iterable[int]) -> None:
        """Take back the arrays of results that came from here."""
        self._free += [self.arrays.pop(end) for end in set(ends) if end in self.arrays]


def _identities(instructions: Iterable[Instruction], shapes: dict[int, tuple[int, ...]]) -> dict[int, int]:
    # Places whose values are those of other places: operations that only change shapes, to the same shape.
    same: dict[int, int] = {}
    for each in instructions:
        if isinstance(each.op, (BroadcastTo, SumTo, Reshape)) and shapes.get(each.sources[0]) == shapes[each.target]:
            same[each.target] = same.get(each.sources[0], each.sources[0])
    return same


def _needed(
    instructions: Iterable[Instruction], same: dict[int, int], known: set[int], outputs: Iterable[int]
) -> list[Instruction]:
    # Instructions that outputs depend on, each reading a value at its one place.
    needed, found = set(outputs), []
    for instruction in reversed(list(instructions)):
        if instruction.target in needed and instruction.target not in known:
            sources = tuple(same.get(source, source) for source in instruction.sources)
            needed.update(sources)
            found.append(instruction._replace(sources=sources))
    return found[::-1]


def _products_by_kernels(instructions: list[Instruction], shapes: dict[int, tuple[int, ...]]) -> list[Instruction]:
    # All or none: threads of NumPy's BLAS stay busy for a while after a product and slow the kernels down.  So if other
    # operations run on the kernels' threads, products do too; otherwise only if all of them are faster there.
    others = any(each.op.in_threads for each in instructions)
    large = {}
    for i, each in enumerate(instructions):
        if isinstance(each.op, Dot):
            left, right = (shapes.get(source, ()) for source in each.sources)
            if math.prod(left) * math.prod(right[1:]) >= THREADED_PRODUCT:
                if not others and (each.variable.ndim < 2 or right[1] > THIN_COLUMNS):
                    return instructions
                if each.variable.ndim == 2:
                    large[i] = each._replace(op=BY_KERNELS, compute=BY_KERNELS.compute)
    return [large.get(i, each) for i, each in enumerate(instructions)]


def _last_uses(instructions: Iterable[Instruction], outputs: Iterable[int]) -> tuple[dict[int, int], dict[int, int]]:
    # By place: the last instruction that reads a value or a view of it; and the place whose memory a value may share.
    roots: dict[int, int] = {}
    last_use: dict[int, int] = {}
    end = 0
    for end, instruction in enumerate(instructions):
        for source in instruction.sources:
            last_use[source] = last_use[roots.setdefault(source, source)] = end
        roots[instruction.target] = roots[instruction.sources[0]] if instruction.op.views else instruction.target
    for place in outputs:
        last_use[place] = last_use[roots.get(place, place)] = end + 1
    return last_use, roots


def _chains_of_updates(
    instructions: Sequence[Instruction], shapes: dict[int, tuple[int, ...]], outputs: Sequence[Output]
) -> dict[int, list[int]]:
    # By the place of a given value that can be overwritten: the numbers of the instructions that compute its new value
    # from it.  All results go to its array, so these instructions must come last, and must not fail.
    last_use, _ = _last_uses(instructions, [output.place for output in outputs])
    types = {each.target: (each.variable.type, shapes[each.target]) for each in instructions}
    chains = {}
    for end, owned, begin in outputs:
        if not owned or begin is None or end not in types or not shapes[end] or shapes[end] != shapes.get(begin):
            continue
        place, chain = begin, []
        while (i := last_use.get(place, len(instructions))) < len(instructions):
            each = instructions[i]
            if place not in each.sources or not isinstance(each.compute, np.ufunc) or types[each.target] != types[end]:
                break
            chain.append(i)
            place = each.target
        if place == end:
            chains[begin] = chain
    # Instructions that read one of the results must come last too.
    n_before = len(chains) + 1
    while len(chains) < n_before:
        n_before = len(chains)
        last = {i for chain in chains.values() for i in chain}
        read = {source for i, each in enumerate(instructions) if i not in last for source in each.sources}
        chains = {
            begin: chain for begin, chain in chains.items() if read.isdisjoint(instructions[i].target for i in chain)
        }
    return chains


def _ends_of_chains(
    instructions: Sequence[Instruction],
    shapes: dict[int, tuple[int, ...]],
    last_use: dict[int, int],
    roots: dict[int, int],
    kept: set[int],
) -> dict[int, int]:
    # Places of results that can go into arrays, each with the last place of its chain.  An operand that dies in an
    # elementwise operation can share its array with the result, and so on: that is a chain.
    types = {each.target: (each.variable.type, shapes[each.target]) for each in instructions if each.can_go_into}
    ends: dict[int, int] = {}
    for i, each in reversed(list(enumerate(instructions))):
        if each.target not in types:
            continue
        end = ends.setdefault(each.target, each.target)
        for source in each.sources[each.op.overwrites]:
            fits = types.get(source) == types[each.target] and roots[source] == source and source not in kept
            if fits and last_use[source] == i:
                ends[source] = end
                break
    return ends
