"""Expressions rewritten to equal ones that cost less or are more accurate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnn.symbolic import ops
from fastnn.symbolic.gradient import Gradient
from fastnn.symbolic.graph import PACKED, Constant, Op, Type, Variable, sort, unused
from fastnn.symbolic.stability import Forms

#: Constants of more elements than this are not computed when a function is made.
LARGEST_FOLDED = 10_000

#: Constants up to this size are compared by value.
LARGEST_COMPARED = 16


class Simplifier:
    """Rewrites expressions: equal ones become one, and constants are folded.

    Expressions that overflow midway get another form, see `stability`; gradients become their expansion.

    Parameters
    ----------
    replacements : mapping of Variable to Variable
        New expressions for variables; they are simplified, but nothing is replaced in them.
    differentiable : bool, default False
        Whether gradients of the results matter, so that operations that only change gradients have to stay.
    """

    def __init__(
        self, replacements: Mapping[Variable, Variable] | None = None, *, differentiable: bool = False
    ) -> None:
        self._passing = (Gradient,) if differentiable else (Gradient, ops.Passing)
        self._known: dict[Any, Variable] = {}
        self._results: set[Variable] = set()
        self._replaced: dict[Variable, Variable] = {}
        if replacements:
            plain = {variable: self(value) for variable, value in replacements.items()}
            self._replaced = plain

    def __call__(self, root: Variable) -> Variable:
        """Return the simplified expression."""
        done = self._replaced
        pending = sort([root], done)
        for variable in pending:
            if variable not in done:
                done[variable] = self._rewrite(variable, tuple(done[source] for source in variable.inputs))
        return done[root]

    def _rewrite(self, variable: Variable, inputs: tuple[Variable, ...]) -> Variable:
        op = variable.op
        if op is None:
            return self._same_constant(variable) if isinstance(variable, Constant) else variable
        if isinstance(op, self._passing):
            return inputs[0]
        if (op is ops.power and _is_number(inputs[1], 2)) or (
            op is ops.mul and inputs[0] is inputs[1] and variable.type.dtype.kind != "b"
        ):
            op, inputs = ops.sqr, inputs[:1]
        if op is ops.mul and any(_is_number(source, -1) for source in inputs):
            op, inputs = ops.neg, tuple(source for source in inputs if not _is_number(source, -1)) or inputs[:1]
        if isinstance(op, ops.Put):
            op = op.without_lost_count(inputs)
        if isinstance(op, ops.Shape):
            inputs = (inputs[0].like,)
        plain = _without_neutral(op, inputs, variable.type)
        return self._same(op, inputs, variable.type) if plain is None else plain

    def _same(self, op: Op, inputs: tuple[Variable, ...], type_: Type) -> Variable:
        key = (op, inputs)
        if key not in self._known:
            found = self._folded(op, inputs, type_)
            if found is None:
                found = Variable(type_, op, inputs)
                form = Forms().of(found)
                found = found if form is None else self._formed(form)
            self._known[key] = found
            self._results.add(found)
        return self._known[key]

    def _formed(self, form: Variable) -> Variable:
        # Simplify its parts, and replace nothing in it.
        done: dict[Variable, Variable] = {}
        for variable in sort([form], self._results):
            unused.discard(variable)
            if variable in self._results or not (variable.op or isinstance(variable, Constant)):
                done[variable] = variable
            else:
                done[variable] = self._rewrite(variable, tuple(done[source] for source in variable.inputs))
        return done[form]

    def _same_constant(self, variable: Constant) -> Variable:
        value = variable.value
        if value.size > LARGEST_COMPARED:
            return variable
        return self._known.setdefault((value.dtype, value.shape, value.tobytes()), variable)

    def _folded(self, op: Op, inputs: tuple[Variable, ...], type_: Type) -> Variable | None:
        values = [source.value for source in inputs if isinstance(source, Constant)]
        if len(values) < len(inputs) or not inputs:
            return None
        if isinstance(op, ops.Arange) or type_ == PACKED or any(value.size > LARGEST_FOLDED for value in values):
            return None
        try:
            with np.errstate(all="ignore"):
                result = np.asarray(op.compute(*values))
        except (ValueError, IndexError, ArithmeticError):
            return None  # the call must raise it
        return self._same_constant(Constant(result)) if result.size <= LARGEST_FOLDED else None


def _is_number(variable: Variable, number: float) -> bool:
    return isinstance(variable, Constant) and variable.ndim == 0 and bool(variable.value == number)


def _without_neutral(op: Op, inputs: tuple[Variable, ...], type_: Type) -> Variable | None:
    # x of x + 0, x - 0, x * 1, x / 1, x ** 1, and of sums of a single number, if the type is the same.
    kept = None
    if op in (ops.mul, ops.true_div, ops.power) and _is_number(inputs[1], 1):
        kept = inputs[0]
    elif op is ops.mul and _is_number(inputs[0], 1):
        kept = inputs[1]
    elif op in (ops.add, ops.sub) and _is_number(inputs[1], 0):
        kept = inputs[0]
    elif op is ops.add and _is_number(inputs[0], 0):
        kept = inputs[1]
    elif op is ops.neg and inputs[0].op is ops.neg:
        (kept,) = inputs[0].inputs
    elif (isinstance(op, (ops.SumTo, ops.BroadcastTo)) and _has_shape(inputs[0], inputs[1])) or (
        isinstance(op, ops.Reduction) and op.name not in ops.DISCRETE and inputs[0].ndim == 0
    ):
        kept = inputs[0]
    return kept if kept is not None and kept.type == type_ else None


def _has_shape(variable: Variable, shape: Variable) -> bool:
    return isinstance(shape.op, ops.Shape) and shape.inputs[0].shapes == variable.shapes
