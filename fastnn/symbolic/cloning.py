"""Copies of expressions with parts replaced: ``theano.clone``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastnn.symbolic.gradient import taken_anew
from fastnn.symbolic.graph import Variable, replaced, shared_in
from fastnn.symbolic.printing import pprint


def clone(
    output: Any,
    replace: Mapping[Variable, Variable] | Iterable[tuple[Variable, Variable]] | None = None,
    strict: bool = True,
    share_inputs: bool = True,
) -> Any:
    """Return expressions in which others stand for some of their variables.

    Parameters
    ----------
    output : Variable, or a list or tuple of them
    replace : mapping, or pairs of Variable and Variable, optional
        What to replace by what, all at once.
    strict : bool, default True
        Whether the types must be the same; otherwise only the numbers of dimensions.
    share_inputs : bool, default True
        Whether to keep shared variables that are not replaced, rather than others with their values.
    """
    pairs: dict[Variable, Variable] = dict(replace or {})
    for old, new in pairs.items():
        if new.ndim != old.ndim or (strict and new.type != old.type):
            raise TypeError(f"{pprint(old)}, a {old.type}, cannot be replaced by {pprint(new)}, a {new.type}")
    outputs = [output] if isinstance(output, Variable) else list(output)
    stops = [variable for variable in pairs if variable.op is not None]
    anew = {old: new for old, new in taken_anew(outputs, stops).items() if old not in pairs} if stops else {}
    found = replaced(replaced(outputs, anew), pairs)
    if not share_inputs:
        found = replaced(found, {variable: variable.clone() for variable in shared_in(*found)})
    return found[0] if isinstance(output, Variable) else found
