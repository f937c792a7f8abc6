"""Operations as instructions on a list of values, run in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastnn.symbolic.graph import Op, Variable
from fastnn.symbolic.ops import Elementwise
from fastnn.symbolic.ops.fused import fused
from fastnn.symbolic.printing import pprint

#: Errors of an operation.
FAILURES = ValueError, IndexError, TypeError, ArithmeticError


class Instruction(NamedTuple):
    """One operation, or several that are done together.

    Attributes
    ----------
    op : Op
    compute : callable
        Computes its result, or a list of several.
    sources : tuple of int
        Places of its arguments.
    targets : tuple of int
        Places of its results.
    into : bool
        Whether arrays for the results exist already.
    dying : tuple of int
        Places of values that nothing needs afterwards.
    variables : tuple of Variable
        The results.
    """

    op: Op
    compute: Callable[..., Any]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    into: bool
    dying: tuple[int, ...]
    variables: tuple[Variable, ...]

    @classmethod
    def of(cls, variable: Variable, sources: tuple[int, ...], target: int, dying: tuple[int, ...]) -> Instruction:
        """Return the instruction that computes a variable."""
        assert variable.op is not None
        op = fused(variable) or variable.op
        return cls(op, compute_of(op), sources, (target,), False, dying, (variable,))

    def results(self) -> Iterator[tuple[int, Variable]]:
        """Return the results, with their places."""
        return zip(self.targets, self.variables, strict=True)

    def can_be_bound(self, values: Sequence[Any]) -> bool:
        """Whether all its arguments, and arrays for its results, are known."""
        return all([values[i] is not None for i in (*self.targets, *self.sources)])

    def bound(self, values: Sequence[Any]) -> list[Callable[[], Any]]:
        """Return calls that compute the results in order, if `can_be_bound`."""
        return self.op.calls([values[i] for i in self.sources], *[values[i] for i in self.targets])


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
    """Run an operation on arguments in a list, and put its results there."""
    _, compute, sources, targets, into, dying, _ = instruction
    arrays = [values[i] for i in sources]
    if len(targets) > 1:
        for i, result in zip(
            targets, compute(*arrays, out=[values[i] for i in targets] if into else None), strict=True
        ):
            values[i] = result
    elif into:
        compute(*arrays, out=values[targets[0]])
    else:
        values[targets[0]] = compute(*arrays)
    for i in dying:
        values[i] = None


def execute(instructions: Iterable[Instruction], values: list[Any]) -> None:
    """Run operations in order."""
    for instruction in instructions:
        try:
            perform(instruction, values)
        except FAILURES as error:
            raise located(error, instruction, values) from None


def located(error: Exception, instruction: Instruction, values: list[Any]) -> Exception:
    """Return an operation's error with the text of its expression."""
    shapes = ", ".join(str(np.shape(values[i])) for i in instruction.sources)
    kind = next(kind for kind in FAILURES if isinstance(error, kind))
    return kind(
        f"{pprint(instruction.variables[-1])} cannot be computed{f' from shapes {shapes}' * bool(shapes)}: {error}"
    )
