"""Choice between expressions by a condition: ``theano.ifelse``."""

from __future__ import annotations

from typing import Any

from fastnn.symbolic.graph import Operand, apply, as_variable
from fastnn.symbolic.ops import IfElse


def ifelse(condition: Operand, then_branch: Any, else_branch: Any, name: str | None = None) -> Any:
    """Return one branch where a condition is not 0, and the other where it is; both are computed.

    Parameters
    ----------
    condition : scalar
    then_branch, else_branch : Variable, or a list or tuple of as many of them
        Of the same types.
    name : str, optional
        Of the result, if there is one.
    """
    if isinstance(then_branch, (list, tuple)) or isinstance(else_branch, (list, tuple)):
        if not isinstance(then_branch, (list, tuple)) or not isinstance(else_branch, (list, tuple)):
            raise TypeError("the branches of ifelse must both be lists, or neither")
        if len(then_branch) != len(else_branch):
            raise ValueError(f"the branches of ifelse have {len(then_branch)} and {len(else_branch)} expressions")
        found = [ifelse(condition, *pair) for pair in zip(then_branch, else_branch, strict=True)]
        return type(then_branch)(found)
    chosen, then, other = as_variable(condition), as_variable(then_branch), as_variable(else_branch)
    if chosen.ndim:
        raise TypeError(f"the condition of ifelse must be a scalar, not a {chosen.type}")
    if then.type != other.type:
        raise TypeError(f"the branches of ifelse must be of one type, not a {then.type} and a {other.type}")
    result = apply(IfElse(), then.type, chosen, then, other)
    result.name = name
    return result
