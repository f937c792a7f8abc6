"""Elementwise operations by the kernel, and several of them joined to one: what lies between stays in the cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.threads import available_threads, forks
from fastnn.kernels.elementwise import CODES, MOST_AXES, MOST_OPERANDS, Call, Expression
from fastnn.symbolic import ops
from fastnn.symbolic.graph import Op, Parts, Variable
from fastnn.symbolic.inplace import KERNEL_DTYPES

if TYPE_CHECKING:
    from fastnn.symbolic.instructions import Instruction

#: An operation and the numbers of its values: inputs first, then results of steps.
Step: TypeAlias = "tuple[ops.Elementwise | ops.Cast, tuple[int, ...]]"


@dataclass(frozen=True)
class Fused(Op):
    """Steps on the elements of the inputs, by the kernel.

    Each number is computed in the same way in whatever steps it takes part, so joining steps does not change the bits.

    Parameters
    ----------
    n_inputs : int
    steps : tuple of Step
    results : tuple of int
        Numbers of the values that are results; several are a list.
    dtype : dtype
        In which the steps compute: float32 or float64.
    gives_truth : bool
        Whether a single result is bool, instead of this dtype.
    """

    n_inputs: int
    steps: tuple[Step, ...]
    results: tuple[int, ...]
    dtype: np.dtype[Any]
    gives_truth: bool = False

    takes_out = True

    @cached_property
    def expression(self) -> Expression:
        """The steps for the kernel."""
        codes = tuple((_code(op), *values) for op, values in self.steps)
        return Expression(self.n_inputs, codes, self.results, self.dtype == np.float32, self.gives_truth)

    def compute(self, *arrays: Any, out: Any = None) -> Any:
        return self.expression(*arrays, out=out)

    def calls(self, arrays: Sequence[NDArray[Any]], *outs: NDArray[Any]) -> list[Callable[[], Any]]:
        try:
            call = Call(self.expression, tuple(map(np.asarray, arrays)), outs)
        except ValueError:  # arrays that must be copied
            return [lambda: self.compute(*arrays, out=outs if len(outs) > 1 else outs[0])]
        n_threads = available_threads() if call.work >= tuning.SMALL_ELEMENTWISE else 1
        return [call if n_threads == 1 else lambda: call(forks.usable_threads(n_threads))]

    def text(self, inputs: Parts) -> tuple[str, int]:
        texts = list(inputs)
        for op, values in self.steps:
            texts.append(op.text([texts[i] for i in values]))
        return texts[-1]


def _code(op: ops.Elementwise | ops.Cast) -> int:
    return CODES["cast" if isinstance(op, ops.Cast) else op.name]


def fused(variable: Variable) -> Fused | None:
    """Return a variable's operation for the kernel, or None if that does not know it."""
    op, inputs = variable.op, variable.inputs
    if variable.ndim > MOST_AXES:
        return None
    if isinstance(op, ops.Cast):
        dtype, known = op.dtype, inputs[0].type.dtype.kind in "biu" or inputs[0].type.dtype in KERNEL_DTYPES
    elif isinstance(op, ops.Elementwise):
        # NumPy's power is faster.
        known = op.name in CODES and (variable.ndim == 0 or op is not ops.power)
        dtype, condition = inputs[-1].type.dtype, inputs[0].type.dtype
        known = known and (condition == dtype or condition.kind in "biu")
    else:
        return None
    if not known or dtype not in KERNEL_DTYPES:
        return None
    values = tuple(range(len(inputs)))
    return Fused(len(values), ((op, values),), (len(values),), dtype, variable.type.dtype.kind == "b")


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
        fits = isinstance(each.op, Fused) and isinstance(other.op, Fused) and each.op.dtype == other.op.dtype
        n = len(each.sources) + 1
        if first == i or not fits or shapes[target] != shapes[other.targets[0]] or n_operands[first] + n > MOST_OPERANDS:
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
        ((op, _),), (target,) = each.op.steps, each.targets
        if isinstance(op, ops.Cast):  # the kernel converts as it reads
            number[target] = number[each.sources[0]]
        else:
            number[target] = len(sources) + len(steps)
            steps.append((op, tuple(number[source] for source in each.sources)))
    results = [(target, variable) for each in members for target, variable in zip(each.targets, each.variables, strict=True) if target in needed]
    targets = tuple(target for target, _ in results)
    truth = len(targets) == 1 and results[0][1].type.dtype.kind == "b"
    op = Fused(len(sources), tuple(steps), tuple(number[target] for target in targets), members[-1].op.dtype, truth)
    return members[-1]._replace(
        op=op, compute=op.compute, sources=sources, targets=targets, variables=tuple(variable for _, variable in results)
    )


def without_broadcasts(
    instructions: Sequence[Instruction], shapes: Mapping[int, tuple[int, ...]]
) -> list[Instruction]:
    """Return instructions in which elementwise operations broadcast their arguments themselves."""
    narrow: dict[int, int] = {}
    found = []
    for each in instructions:
        if isinstance(each.op, ops.BroadcastTo):
            narrow[each.targets[0]] = narrow.get(each.sources[0], each.sources[0])
        elif isinstance(each.op, Fused) and not narrow.keys().isdisjoint(each.sources):
            shape = shapes[each.targets[0]]
            if any(shapes[source] == shape for source in each.sources if source not in narrow):
                each = each._replace(sources=tuple(narrow.get(source, source) for source in each.sources))
        found.append(each)
    return found
