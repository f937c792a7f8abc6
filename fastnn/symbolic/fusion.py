"""Elementwise operations that follow on each other, joined to one: what lies between stays in the cache."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from fastnn.kernels.elementwise import MOST_OPERANDS
from fastnn.symbolic.ops import BroadcastTo, Cast, Reshape, SumTo
from fastnn.symbolic.ops.fused import Fused, Step

if TYPE_CHECKING:
    from fastnn.symbolic.instructions import Instruction


def identities(instructions: Iterable[Instruction], shapes: Mapping[int, tuple[int, ...]]) -> dict[int, int]:
    """Return places whose values are those of other places: operations that change shapes, to the same shape."""
    same: dict[int, int] = {}
    for each in instructions:
        (target,) = each.targets
        if isinstance(each.op, (BroadcastTo, SumTo, Reshape)) and shapes.get(each.sources[0]) == shapes[target]:
            same[target] = same.get(each.sources[0], each.sources[0])
    return same


def joined(
    instructions: Sequence[Instruction], shapes: Mapping[int, tuple[int, ...]], kept: Collection[int]
) -> list[Instruction]:
    """Return instructions in which elementwise operations on equal shapes are joined.

    Each is joined to the first operation that needs its result, if that is another such one.

    Parameters
    ----------
    instructions : sequence of Instruction
        Each with one result.
    shapes : mapping of int to tuple
        Shapes of results, by place.
    kept : collection of int
        Places of results that are needed afterwards.
    """
    users: dict[int, list[int]] = {}
    for i, each in enumerate(instructions):
        for source in each.sources:
            users.setdefault(source, []).append(i)
    at = list(range(len(instructions)))
    groups: dict[int, list[int]] = {}
    n_operands: dict[int, int] = {}
    for i, each in reversed(list(enumerate(instructions))):
        (target,) = each.targets
        first = min((at[user] for user in users.get(target, ())), default=i)
        other = instructions[first]
        n = len(each.sources) + (len(each.op.steps) if isinstance(each.op, Fused) else 0)
        fits = isinstance(each.op, Fused) and isinstance(other.op, Fused) and each.op.dtype == other.op.dtype
        fits = fits and first != i and shapes[target] == shapes[other.targets[0]]
        if not fits or n_operands[first] + n > MOST_OPERANDS:
            first, groups[i], n_operands[i] = i, [], 0
        at[i] = first
        groups[first].insert(0, i)
        n_operands[first] += n
    return [
        instructions[i] if len(members) == 1 else _one([instructions[k] for k in members], needed)
        for i, members in sorted(groups.items())
        for needed in [{t for k in members for t in instructions[k].targets if t in kept or _leaves(t, i, users, at)}]
    ]


def _leaves(place: int, group: int, users: Mapping[int, Sequence[int]], at: Sequence[int]) -> bool:
    return any(at[user] != group for user in users.get(place, ()))


def _one(members: Sequence[Instruction], needed: Collection[int]) -> Instruction:
    # One instruction for several, with those results that are needed.
    within = {target for each in members for target in each.targets}
    sources = tuple(dict.fromkeys(source for each in members for source in each.sources if source not in within))
    number = {source: i for i, source in enumerate(sources)}
    steps: list[Step] = []
    for each in members:
        assert isinstance(each.op, Fused)
        values = [number[source] for source in each.sources]
        for op, operands in each.op.steps:
            if isinstance(op, Cast):  # the kernel converts as it reads
                values.append(values[operands[0]])
            else:
                steps.append((op, tuple(values[i] for i in operands)))
                values.append(len(sources) + len(steps) - 1)
        number[each.targets[0]] = values[-1]
    results = [
        (target, variable)
        for each in members
        for target, variable in zip(each.targets, each.variables, strict=True)
        if target in needed
    ]
    last = members[-1].op
    assert isinstance(last, Fused)
    truths = tuple(variable.type.dtype.kind == "b" for _, variable in results)
    whole = Fused(len(sources), tuple(steps), tuple(number[target] for target, _ in results), last.dtype, truths)
    return members[-1]._replace(
        op=whole,
        compute=whole.compute,
        sources=sources,
        targets=tuple(target for target, _ in results),
        variables=tuple(variable for _, variable in results),
    )


def without_broadcasts(instructions: Sequence[Instruction], shapes: Mapping[int, tuple[int, ...]]) -> list[Instruction]:
    """Return instructions in which elementwise operations broadcast their arguments themselves."""
    narrow: dict[int, int] = {}
    found = []
    for each in instructions:
        if isinstance(each.op, BroadcastTo):
            narrow[each.targets[0]] = narrow.get(each.sources[0], each.sources[0])
        elif isinstance(each.op, Fused) and not narrow.keys().isdisjoint(each.sources):
            shape = shapes[each.targets[0]]
            if any(shapes[source] == shape for source in each.sources if source not in narrow):
                each = each._replace(sources=tuple(narrow.get(source, source) for source in each.sources))
        found.append(each)
    return found
