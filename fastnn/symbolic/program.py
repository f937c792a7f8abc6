"""Programs: lists of operations that compute expressions from the values of inputs and shared variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn.symbolic.execution import KEPT_BYTES, Plan, taken
from fastnn.symbolic.graph import Constant, Shared, Variable, sort
from fastnn.symbolic.hoisting import hoisted
from fastnn.symbolic.instructions import Instruction, Output, execute
from fastnn.symbolic.ops import Count, Shape

# Shapes of the given values, and which updated variables' values may be overwritten.
Key: TypeAlias = tuple[tuple[tuple[int, ...], ...], tuple[bool, ...]]

#: Number of combinations of shapes that a program remembers.
N_REMEMBERED = 4

#: It remembers up to this number if their results take no more than `KEPT_BYTES` in all, as those of sentences of
#: different lengths.
MOST_REMEMBERED = 64


class Program:
    """A list of operations that computes expressions from the values of inputs and shared variables.

    When values have the same shapes for the second time, it makes a `Plan` for these.  Operations whose values decide
    shapes come first, because plans cannot foresee them.

    Parameters
    ----------
    inputs : sequence of Variable
        Inputs whose values a call gives.
    outputs : sequence of Variable
        Simplified expressions of these inputs.
    n_borrowed : int, default 0
        This many outputs, the first ones, are only read, and may share memory with inputs and shared variables.
    updates : sequence of Shared, default ()
        Variables whose values the last outputs replace after each call; they may be overwritten.
    """

    def __init__(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        n_borrowed: int = 0,
        updates: Sequence[Shared] = (),
    ) -> None:
        outputs = hoisted(outputs)
        order = _shapes_early(_long_first(outputs))
        self._foreseen = _foreseen(order)
        first = set(sort(v for v in order if v.op and not self._foreseen.issuperset(v.op.shaping(v.inputs))))
        order.sort(key=lambda variable: variable not in first)
        self.operations = [variable for variable in order if variable.op is not None]
        place = {variable: i for i, variable in enumerate(dict.fromkeys([*inputs, *order]))}
        self._n_inputs = len(inputs)
        self._blank: list[Any] = [None] * len(place)
        for variable in order:
            if isinstance(variable, Constant):
                self._blank[place[variable]] = variable.value
        self._shared = [(place[variable], variable) for variable in order if isinstance(variable, Shared)]
        instructions = _schedule(order, place, outputs)
        n_first = sum(variable in first for variable in self.operations)
        self._first, self._rest = instructions[:n_first], instructions[n_first:]
        roots = _roots(order)
        # The caller may keep an output if no other value shares its memory.
        of = [roots[variable] for variable in outputs]
        self._outputs = [
            Output(place[variable], i < n_borrowed or (_is_own(of[i]) and of.count(of[i]) == 1))
            for i, variable in enumerate(outputs)
        ]
        self._updates = updates
        viewed = {roots[variable] for variable in first if variable.op is not None}
        for i, variable in enumerate(updates, len(outputs) - len(updates)):
            self._outputs[i] = self._outputs[i]._replace(replaces=None if variable in viewed else place.get(variable))
        self._kept = {place[of[i]] for i, output in enumerate(self._outputs) if output.owned}
        results = {place for instruction in self._rest for place in instruction.targets}
        read = {i for instruction in self._rest for i in instruction.sources} | {
            output.place for output in self._outputs
        }
        given = {i for i in read - results if self._blank[i] is None}
        self._given = {i: variable.type.dtype for variable, i in place.items() if i in given}
        #: By shapes: None if they were seen once, else plans that no thread uses at the moment.
        self._plans: dict[Key, list[Plan] | None] = {}
        self._n_bytes: dict[Key, int] = {}

    def __call__(self, arguments: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the values of the outputs; only borrowed ones may share memory with other values.

        Parameters
        ----------
        arguments : sequence of arrays
            Values of the inputs.
        """
        values = self._blank.copy()
        values[: self._n_inputs] = arguments
        for i, shared in self._shared:
            values[i] = shared.array
        if not self._first:
            plans = self._plans.get(self._key(values))
            if plans and plans[-1].is_quiet:
                return self._planned(plans, values)
        return self._quietly(values)

    @np.errstate(all="ignore")
    def _quietly(self, values: list[Any]) -> list[NDArray[Any]]:
        execute(self._first, values)
        key = self._key(values)
        plans = self._plans.get(key)
        if plans:
            return self._planned(plans, values)
        if plans is None:
            self._run(values, key)
            return taken(values, self._outputs)
        return self._unplanned(values)

    def _key(self, values: list[Any]) -> Key:
        shapes = tuple([values[i].shape for i in self._given])
        if not self._updates:
            return shapes, ()
        return shapes, tuple([not each.exposed and each.array.flags.writeable for each in self._updates])

    def _planned(self, plans: list[Plan], values: list[Any]) -> list[NDArray[Any]]:
        try:
            plan = plans.pop()
        except IndexError:  # another thread was faster
            return self._unplanned(values)
        try:
            return plan(values)
        finally:
            plans.append(plan)

    @np.errstate(all="ignore")
    def _unplanned(self, values: list[Any]) -> list[NDArray[Any]]:
        execute(self._rest, values)
        return taken(values, self._outputs)

    def _run(self, values: list[Any], key: Key) -> None:
        # Run the operations as they are; from the shapes seen, make a plan the second time.
        shapes, free = key
        known, seen = self._blank.copy(), dict(zip(self._given, shapes, strict=True))
        n_bytes = 0
        for instruction in self._rest:
            execute([instruction], values)
            (target,), (variable,) = instruction.targets, instruction.variables
            value = values[target]
            if variable in self._foreseen and value.nbytes <= KEPT_BYTES:
                known[target] = value
            seen[target] = value.shape
            n_bytes += value.nbytes
        plans = None
        if self._plans.pop(key, self) is None:
            outputs = self._outputs.copy()
            for i, is_free in enumerate(free, len(outputs) - len(free)):
                outputs[i] = outputs[i] if is_free else outputs[i]._replace(replaces=None)
            staying = {i for i, _ in self._shared if i in seen}
            plans = [Plan(self._rest, known, seen, self._given, staying, outputs, self._kept)]
        self._plans[key] = plans
        self._n_bytes[key] = n_bytes
        while len(self._plans) > N_REMEMBERED and (
            len(self._plans) > MOST_REMEMBERED or sum(self._n_bytes.values()) > KEPT_BYTES
        ):
            oldest, *_ = list(self._plans)  # other threads may add some meanwhile
            self._plans.pop(oldest, None)
            self._n_bytes.pop(oldest, None)


def _long_first(outputs: Sequence[Variable]) -> list[Variable]:
    # The inputs of an operation that take most operations come first, so that few values wait for others.
    depth: dict[Variable, int] = {}
    for variable in sort(outputs):
        depth[variable] = 1 + max((depth[source] for source in variable.inputs), default=0)
    return sort(outputs, (), lambda variable: sorted(variable.inputs, key=depth.__getitem__, reverse=True))


def _shapes_early(order: list[Variable]) -> list[Variable]:
    # A shape follows directly on its variable, so that the variable need not be kept for it.
    shapes: dict[Variable, Variable] = {v.inputs[0]: v for v in order if isinstance(v.op, Shape)}
    found: list[Variable] = []
    for variable in order:
        if not isinstance(variable.op, Shape):
            found.append(variable)
            while variable in shapes:
                variable = shapes[variable]
                found.append(variable)
    return found


def _foreseen(order: list[Variable]) -> set[Variable]:
    # Variables whose values follow from shapes.
    found: set[Variable] = set()
    for variable in order:
        follows = variable.op is not None and bool(variable.inputs) and found.issuperset(variable.inputs)
        follows = follows and not (variable.op is not None and variable.op.lends)
        if follows or isinstance(variable, Constant) or isinstance(variable.op, (Shape, Count)):
            found.add(variable)
    return found


def _roots(order: list[Variable]) -> dict[Variable, Variable]:
    # By variable: the one whose memory its value may share.
    roots: dict[Variable, Variable] = {}
    for variable in order:
        is_view = variable.op is not None and variable.op.views
        roots[variable] = roots[variable.inputs[0]] if is_view else variable
    return roots


def _is_own(root: Variable) -> bool:
    # Whether the memory of a value is made for it alone.
    return root.op is not None and not any(source.op is not None and source.op.lends for source in root.inputs[:1])


def _schedule(order: list[Variable], place: dict[Variable, int], outputs: Sequence[Variable]) -> list[Instruction]:
    last_use = {source: variable for variable in order for source in variable.inputs}
    kept = {variable for variable in order if isinstance(variable, Constant)} | set(outputs)
    return [
        Instruction.of(
            variable,
            tuple(place[source] for source in variable.inputs),
            place[variable],
            tuple(place[v] for v in set(variable.inputs) - kept if last_use[v] is variable),
        )
        for variable in order
        if variable.op is not None
    ]
