"""Elementwise operations joined to one: nobody else needs what lies between, so the kernel keeps it in the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.threads import available_threads, forks
from fastnn.kernels.elementwise import CODES, MOST_AXES, MOST_OPERANDS, Call, Expression
from fastnn.symbolic import ops
from fastnn.symbolic.graph import Op, Parts, Variable, sort
from fastnn.symbolic.inplace import KERNEL_DTYPES

#: A step: an operation, and the numbers of its values: inputs first, then results of steps.
Step: TypeAlias = "tuple[ops.Elementwise, tuple[int, ...]]"


@dataclass(frozen=True)
class Fused(Op):
    """Steps on the elements of the inputs, by the kernel; the last one gives the result.

    Parameters
    ----------
    n_inputs : int
    steps : tuple of Step
    dtype : dtype
        In which the steps compute: float32 or float64.
    gives_truth : bool
        Whether the result is bool, not of this dtype.
    """

    n_inputs: int
    steps: tuple[Step, ...]
    dtype: np.dtype[Any]
    gives_truth: bool

    takes_out = True
    overwrites = slice(None)

    @cached_property
    def expression(self) -> Expression:
        """The steps for the kernel."""
        codes = tuple((CODES[op.name], *values) for op, values in self.steps)
        last = self.n_inputs + len(codes) - 1
        return Expression(self.n_inputs, codes, (last,), self.dtype == np.float32, self.gives_truth)

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        return self.expression(*arrays, out=out)

    def calls(self, arrays: Sequence[NDArray[Any]], out: NDArray[Any]) -> list[Callable[[], Any]]:
        try:
            call = Call(self.expression, tuple(map(np.asarray, arrays)), (out,))
        except ValueError:  # arrays that must be copied
            return [lambda: np.copyto(out, self.compute(*arrays))]
        return [threaded(call)]

    def text(self, inputs: Parts) -> tuple[str, int]:
        texts = list(inputs)
        for op, values in self.steps:
            texts.append(op.text([texts[i] for i in values]))
        return texts[-1]


def threaded(call: Call) -> Callable[[], Any]:
    """Return a function that calls with as many threads as are worth their start."""
    n_threads = available_threads() if call.work >= tuning.SMALL_ELEMENTWISE else 1
    return call if n_threads == 1 else lambda: call(forks.usable_threads(n_threads))


def fused(outputs: Sequence[Variable]) -> list[Variable]:
    """Return expressions in which elementwise operations that the kernel knows are joined as far as possible."""
    order = sort(outputs)
    groups = _groups(order, outputs)
    done: dict[Variable, Variable] = {}
    for variable in order:
        members = groups.get(variable)
        if members is None:
            inputs = tuple(done.get(source, source) for source in variable.inputs)
            done[variable] = (
                variable if inputs == variable.inputs else Variable(variable.type, variable.op, inputs, variable.name)
            )
        elif members:
            done[variable] = _joined(variable, members, done)
    return [done[variable] for variable in outputs]


def _groups(order: list[Variable], outputs: Sequence[Variable]) -> dict[Variable, list[Variable]]:
    # By the last operation of a group: its operations in order.  Its others have empty lists.
    users: dict[Variable, set[Variable | None]] = {variable: set() for variable in order}
    for variable in order:
        for source in variable.inputs:
            users[source].add(variable)
    for variable in outputs:
        users[variable].add(None)
    # A group computes in one dtype, and probably as many elements in each operation.
    kinds = _kinds(order)
    root_of: dict[Variable | None, Variable] = {}
    found: dict[Variable, list[Variable]] = {}
    n_operands: dict[Variable, int] = {}
    for variable in reversed(order):
        if variable not in kinds:
            continue
        roots = {root_of.get(user) for user in users[variable]}
        root = roots.pop() if len(roots) == 1 else None
        n = len(variable.inputs)
        found[variable] = []
        if root is None or kinds[variable] != kinds[root] or n_operands[root] + n >= MOST_OPERANDS:
            root, n_operands[variable] = variable, 0
        root_of[variable] = root
        n_operands[root] += n
        found[root].insert(0, variable)
    # Casts alone are not worth a group.
    return {
        variable: members
        for variable, members in found.items()
        if not all(isinstance(member.op, ops.Cast) for member in found[root_of[variable]])
    }


def _kinds(order: list[Variable]) -> dict[Variable, tuple[np.dtype[Any], int, frozenset[int]]]:
    # Of operations that the kernel knows: the dtype in which it computes, and the axes, of which some have length 1.
    thin: dict[Variable, frozenset[int]] = {}
    found = {}
    for variable in order:
        thin[variable] = _thin_axes(variable, thin)
        dtype = _computes_in(variable)
        if dtype is not None:
            found[variable] = dtype, variable.ndim, thin[variable]
    return found


def _computes_in(variable: Variable) -> np.dtype[Any] | None:
    # The dtype in which the kernel computes the variable's operation, if it does.
    op, inputs = variable.op, variable.inputs
    if not isinstance(op, (ops.Cast, ops.Elementwise)) or variable.ndim > MOST_AXES:
        return None
    if isinstance(op, ops.Cast):
        known = inputs[0].type.dtype.kind in "biu" or inputs[0].type.dtype in KERNEL_DTYPES
        return op.dtype if op.dtype in KERNEL_DTYPES and known else None
    dtype = inputs[-1].type.dtype
    if op.name not in CODES or dtype not in KERNEL_DTYPES or (op is ops.power and variable.ndim > 0):
        return None
    condition = inputs[0].type.dtype
    known = condition == dtype or condition.kind in "biu" or (condition == np.float32 and dtype == np.float64)
    return dtype if known else None


def _thin_axes(variable: Variable, known: Mapping[Variable, frozenset[int]]) -> frozenset[int]:
    # Axes of length 1, as far as the expression shows them.
    op = variable.op
    if isinstance(op, ops.Dimshuffle):
        return frozenset(axis for axis, of in enumerate(op.pattern) if of == "x")
    if isinstance(op, (ops.Reduction, ops.LogSumExp)) and op.keepdims:
        return frozenset(range(variable.ndim) if op.axes is None else op.axes)
    if isinstance(op, (ops.Cast, ops.Elementwise)):
        thin = [known[source] for source in variable.inputs if source.ndim == variable.ndim]
        return frozenset.intersection(*thin)
    return frozenset()


def _joined(root: Variable, members: list[Variable], done: Mapping[Variable, Variable]) -> Variable:
    # One operation for a group; done has its inputs.
    within = set(members)
    inputs = dict.fromkeys(
        done.get(source, source) for member in members for source in member.inputs if source not in within
    )
    # A number that was only broadcast to what the others have anyway may stay a number.
    plain = {
        source: source.inputs[0]
        for source in inputs
        if isinstance(source.op, ops.BroadcastTo) and source.inputs[0].ndim == 0
    }
    shapes = frozenset[Variable]().union(*(source.shapes for source in inputs if source not in plain and source.ndim))
    if not all(shapes >= source.shapes for source in plain):
        plain = {}
    final = list(dict.fromkeys(plain.get(source, source) for source in inputs))
    number = {source: final.index(plain.get(source, source)) for source in inputs}
    number |= {old: number[new] for old, new in done.items() if new in number}
    steps: list[Step] = []
    for member in members:
        values = tuple(number[source] for source in member.inputs)
        if isinstance(member.op, ops.Cast):  # the kernel converts
            number[member] = values[0]
        else:
            number[member] = len(final) + len(steps)
            steps.append((member.op, values))  # type: ignore[arg-type]
    dtype = _computes_in(root)
    assert dtype is not None
    op = Fused(len(final), tuple(steps), dtype, root.type.dtype.kind == "b")
    return Variable(root.type, op, tuple(final), root.name)
