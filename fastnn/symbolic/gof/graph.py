"""What graphs of expressions consist of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from fastnn.symbolic.graph import Apply, Constant, Variable

__all__ = ["Apply", "Constant", "Variable", "ancestors", "inputs", "is_same_graph"]


def ancestors(variable_list: Iterable[Variable], blockers: Collection[Variable] | None = None) -> list[Variable]:
    """Return what variables depend on, and these themselves, each before its inputs; nothing behind the blockers.

    The search begins with the last of the variables, as in Theano: programs rely on the order.
    """
    found: dict[Variable, None] = {}
    pending = list(variable_list)
    while pending:
        variable = pending.pop()
        if variable not in found:
            found[variable] = None
            if not blockers or variable not in blockers:
                pending += reversed(variable.inputs)
    return list(found)


def inputs(variable_list: Iterable[Variable], blockers: Collection[Variable] | None = None) -> list[Variable]:
    """Return the leaves that variables depend on; nothing behind the blockers."""
    return [variable for variable in ancestors(variable_list, blockers) if variable.op is None]


def is_same_graph(var1: Variable, var2: Variable, givens: Mapping[Variable, Variable] | None = None) -> bool:
    """Whether two expressions apply the same operations to the same leaves, once givens stand for each other."""
    stands_for = dict(givens or {})
    same: set[tuple[Variable, Variable]] = set()
    pending = [(var1, var2)]
    while pending:
        pair = pending.pop()
        one, other = (stands_for.get(variable, variable) for variable in pair)
        if one is other or pair in same:
            continue
        if one.op is None or one.op != other.op or one.type != other.type:
            if not _equal_constants(one, other):
                return False
            continue
        same.add(pair)
        pending += zip(one.inputs, other.inputs, strict=True)
    return True


def _equal_constants(one: Variable, other: Variable) -> bool:
    return (
        isinstance(one, Constant)
        and isinstance(other, Constant)
        and one.type == other.type
        and np.array_equal(one.value, other.value, equal_nan=one.type.dtype.kind == "f")
    )
