"""Expressions run one operation after the other, by NumPy and the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.symbolic.graph import Constant, Op, Shared, Variable, sort
from fastnn.symbolic.ops import Shape
from fastnn.symbolic.printing import pprint


class Instruction(NamedTuple):
    """One operation.

    Attributes
    ----------
    op : Op
    sources : tuple of int
        Where its inputs' values are.
    target : int
        Where its result goes.
    free : tuple of int
        Which of the inputs, by position, are arrays that nobody needs any more, and that the result may overwrite.
    dying : tuple of int
        Values that can be let go afterwards.
    variable : Variable
        The result, for messages.
    """

    op: Op
    sources: tuple[int, ...]
    target: int
    free: tuple[int, ...]
    dying: tuple[int, ...]
    variable: Variable


class Program:
    """A list of operations that computes expressions from the values of inputs and shared variables.

    Parameters
    ----------
    inputs : sequence of Variable
        Inputs whose values a call gives.
    outputs : sequence of Variable
        Simplified expressions, in which no other inputs occur.
    n_borrowed : int, default 0
        How many of the first outputs' values may share memory with inputs and shared variables, and are only read.
    """

    def __init__(self, inputs: Sequence[Variable], outputs: Sequence[Variable], n_borrowed: int = 0) -> None:
        order = _shapes_early(sort(outputs))
        self.operations = [variable for variable in order if variable.op is not None]
        place = {variable: i for i, variable in enumerate(dict.fromkeys([*inputs, *order]))}
        self._n_inputs = len(inputs)
        self._blank: list[Any] = [None] * len(place)
        for variable in order:
            if isinstance(variable, Constant):
                self._blank[place[variable]] = variable.value
        self._shared = [(place[variable], variable) for variable in order if isinstance(variable, Shared)]
        self._outputs = [place[variable] for variable in outputs]
        roots = _roots(order)
        # An output is the caller's to keep if no other value shares its memory.
        kept = [roots[variable] for variable in outputs]
        self._owned = [
            i < n_borrowed or (root.op is not None and not root.op.views and kept.count(root) == 1)
            for i, root in enumerate(kept)
        ]
        self._instructions = self._schedule(order, place, roots, set(outputs))

    @staticmethod
    def _schedule(
        order: list[Variable],
        place: dict[Variable, int],
        roots: dict[Variable, Variable],
        outputs: set[Variable],
    ) -> list[Instruction]:
        last_use: dict[Variable, int] = {}
        last_use_of_memory: dict[Variable, int] = {}
        for i, variable in enumerate(order):
            for source in variable.inputs:
                last_use[source] = i
                last_use_of_memory[roots[source]] = i
        for variable in outputs:
            last_use[variable] = last_use_of_memory[roots[variable]] = len(order)
        found = []
        for i, variable in enumerate(order):
            if variable.op is None:
                continue
            sources = tuple(dict.fromkeys(variable.inputs))
            free = tuple(
                variable.inputs.index(source)
                for source in sources
                if variable.op.elementwise
                and roots[source] is source  # not a view of something
                and source.op is not None
                and source.type == variable.type
                and variable.ndim > 0
                and last_use_of_memory[source] == i
            )
            dying = tuple(
                place[source] for source in sources if last_use[source] == i and not isinstance(source, Constant)
            )
            places = tuple(place[source] for source in variable.inputs)
            found.append(Instruction(variable.op, places, place[variable], free, dying, variable))
        return found

    def __call__(self, arguments: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the values of the outputs, none of which shares memory with anything else unless it may.

        Parameters
        ----------
        arguments : sequence of arrays
            Values of the inputs.
        """
        values = self._blank.copy()
        values[: self._n_inputs] = arguments
        for i, shared in self._shared:
            values[i] = shared.array
        with np.errstate(all="ignore"):
            for op, sources, target, free, dying, variable in self._instructions:
                arrays = [values[i] for i in sources]
                out = _overwritable(arrays, free) if free else None
                try:
                    values[target] = op.compute(*arrays) if out is None else op.compute(*arrays, out=out)  # type: ignore[call-arg]
                except (ValueError, IndexError, TypeError, ArithmeticError) as error:
                    raise _located(error, variable, arrays) from None
                for i in dying:
                    values[i] = None
        return [
            np.asarray(values[i]) if owned else np.array(values[i])
            for i, owned in zip(self._outputs, self._owned, strict=True)
        ]


def _shapes_early(order: list[Variable]) -> list[Variable]:
    # A shape stands right behind what it is of, so that this need not be kept for it.
    shapes: dict[Variable, Variable] = {v.inputs[0]: v for v in order if isinstance(v.op, Shape)}
    found: list[Variable] = []
    for variable in order:
        if not isinstance(variable.op, Shape):
            found.append(variable)
            while variable in shapes:
                variable = shapes[variable]
                found.append(variable)
    return found


def _roots(order: list[Variable]) -> dict[Variable, Variable]:
    # The variable whose memory each one's value may be.
    roots: dict[Variable, Variable] = {}
    for variable in order:
        is_view = variable.op is not None and variable.op.views
        roots[variable] = roots[variable.inputs[0]] if is_view else variable
    return roots


def _overwritable(arrays: list[Any], free: tuple[int, ...]) -> NDArray[Any] | None:
    # One that has the result's shape.
    shape = arrays[0].shape
    if any(array.shape != shape for array in arrays):
        shape = np.broadcast_shapes(*map(np.shape, arrays))
    for i in free:
        array: NDArray[Any] = arrays[i]
        if array.shape == shape and array.flags.writeable:
            return array
    return None


def _located(error: Exception, variable: Variable, arrays: list[Any]) -> Exception:
    shapes = ", ".join(str(np.shape(array)) for array in arrays)
    kind = next(kind for kind in (ValueError, IndexError, TypeError, ArithmeticError) if isinstance(error, kind))
    return kind(f"{pprint(variable)} cannot be computed from shapes {shapes}: {error}")
