"""Expressions as sums of terms, each with its weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastnn.symbolic import ops
from fastnn.symbolic.graph import Constant, Variable, constant, shared_in


class Term(NamedTuple):
    """A number times scalars, divided by other scalars, times an expression (None: 1)."""

    number: float
    factors: tuple[Variable, ...]
    divisors: tuple[Variable, ...]
    expression: Variable | None

    def times(self, number: float, factors: Sequence[Variable] = (), divisors: Sequence[Variable] = ()) -> Term:
        """Return the product."""
        return Term(self.number * number, (*self.factors, *factors), (*self.divisors, *divisors), self.expression)

    def weight(self, dtype: str) -> Variable:
        """Return all but the expression, as a scalar expression of a dtype."""
        found: Variable = constant(self.number, dtype)
        for factor in self.factors:
            found = found * factor
        for divisor in self.divisors:
            found = found / divisor
        return ops.cast(found, dtype)


def terms_of(variable: Variable) -> list[Term]:
    """Return the terms whose sum is the expression."""
    op, inputs = variable.op, variable.inputs
    if op is ops.add or op is ops.sub:
        sign = 1 if op is ops.add else -1
        return terms_of(inputs[0]) + [term.times(sign) for term in terms_of(inputs[1])]
    if op is ops.neg:
        return [term.times(-1) for term in terms_of(inputs[0])]
    if isinstance(op, ops.Cast) and op.dtype.kind == inputs[0].type.dtype.kind == "f" and variable.ndim == 0:
        return terms_of(inputs[0])
    if isinstance(variable, Constant) and variable.ndim == 0:
        return [Term(float(variable.value), (), (), None)]
    if op is ops.mul or op is ops.true_div:
        for factor, other in ((inputs[1], inputs[0]), (inputs[0], inputs[1])):
            divides = op is ops.true_div
            if factor.ndim > 0 or (divides and factor is inputs[0]):
                continue
            if isinstance(factor, Constant):
                number = float(factor.value)
                if not divides or number != 0:
                    return [term.times(1 / number if divides else number) for term in terms_of(other)]
            elif other.ndim > 0 or (_has_parameters(other) and not _has_parameters(factor)):
                return [term.times(1, *(([], [factor]) if divides else ([factor],))) for term in terms_of(other)]
    return [Term(1.0, (), (), variable)]


def only_term(variable: Variable) -> tuple[float, Variable] | None:
    """Return (number, expression) if the variable is their product, however written."""
    terms = terms_of(variable)
    if len(terms) != 1 or terms[0].factors or terms[0].divisors or terms[0].expression is None:
        return None
    return terms[0].number, terms[0].expression


def _has_parameters(variable: Variable) -> bool:
    return any(each.is_parameter for each in shared_in(variable))
