"""Gradients of scalar expressions, as expressions."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from fastnn._validation import check_choice
from fastnn.symbolic import ops
from fastnn.symbolic.graph import Op, Parts, Shared, Variable, apply, constant, sort
from fastnn.symbolic.printing import pprint
from fastnn.symbolic.stability import Forms


class DisconnectedInputError(ValueError):
    """A cost does not depend on what its gradient is asked for, or through indices or shapes alone."""


@dataclass(frozen=True)
class Gradient(Op):
    """The first input, which is the gradient of the second by the third.

    Attributes
    ----------
    constants : frozenset of Variable
        Expressions that were taken for constants on the way.
    """

    constants: frozenset[Variable] = frozenset()
    views = True
    connects = slice(1)

    def compute(self, *arrays: Any) -> Any:
        return arrays[0]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[2].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> list[Variable | None]:
        return [g, None, None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return ops.call("grad", inputs[1][0], inputs[2][0])


def computed_from(variable: Variable) -> tuple[Variable, ...]:
    """Return the inputs that a variable is computed from; a gradient needs not all that its cost does."""
    return variable.inputs[:1] if isinstance(variable.op, Gradient) else variable.inputs


def grad(
    cost: Variable,
    wrt: Variable | list[Variable] | tuple[Variable, ...],
    consider_constant: Iterable[Variable] | None = None,
    disconnected_inputs: str = "raise",
) -> Any:
    """Return the gradient of a cost.

    Parameters
    ----------
    cost : scalar expression of a floating dtype
    wrt : Variable, or a list or tuple of them
        What to differentiate by, of floating dtypes.
    consider_constant : iterable of Variable, optional
        Expressions that are taken for constants.
    disconnected_inputs : {"raise", "warn", "ignore"}, default "raise"
        What to do where the cost does not depend on a variable: the gradient is zero with the others.

    Returns
    -------
    Variable, or a list or tuple of them like wrt
        Each of the type of what it belongs to.  See `ops` for what stands in for a gradient where there is none.

    Raises
    ------
    DisconnectedInputError
        If the cost does not depend on a variable, or depends on it through indices or shapes alone.
    TypeError
        If the cost is no scalar, or it or a variable holds integers.
    """
    several = isinstance(wrt, (list, tuple))
    variables = list(wrt) if isinstance(wrt, (list, tuple)) else [wrt]
    check_choice(disconnected_inputs, "disconnected_inputs", ["raise", "warn", "ignore"])
    for variable, what in ((cost, "the cost"), *((variable, "wrt") for variable in variables)):
        if not isinstance(variable, Variable):
            raise TypeError(f"{what} must be a variable, not {variable!r}")
        if variable.type.dtype.kind != "f":
            raise TypeError(f"{what} must hold real numbers, but {pprint(variable)} is of dtype {variable.dtype}")
        if isinstance(variable, Shared):
            variable.is_parameter = True
    if cost.ndim != 0:
        raise TypeError(f"the cost must be a scalar, but {pprint(cost)} is a {cost.type}: take its mean or sum")
    constants = frozenset(consider_constant or ())
    order = sort([cost], constants)
    # What stands in the way of one target's gradient need not stand in that of another's.
    leaves = [variable for variable in variables if variable.op is None]
    gradients = _backward(cost, leaves, order, constants)
    inner = {variable: _backward(cost, [variable], order, constants) for variable in variables if variable.op}
    connected = set(
        sort([cost], constants, lambda variable: variable.inputs[variable.op.connects] if variable.op else ())
    )
    found = []
    for variable in variables:
        expansion = inner.get(variable, gradients).get(variable)
        if expansion is None:
            if variable not in connected:
                _complain(cost, variable, variable in order, disconnected_inputs)
            expansion = ops.zeros_like(variable)
        found.append(apply(Gradient(constants), variable.type, expansion, cost, variable))
    return tuple(found) if isinstance(wrt, tuple) else found if several else found[0]


def taken_anew(outputs: Iterable[Variable], stops: Collection[Variable]) -> dict[Variable, Variable]:
    """Return gradients in outputs that pass none of the stops by, which will have other values than their own."""
    found = {}
    for variable in sort(outputs):
        if isinstance(variable.op, Gradient):
            _, cost, of = variable.inputs
            constants = variable.op.constants
            order = sort([cost], constants)
            anew = _backward(cost, [of], order, constants, stops).get(of) if set(order).intersection(stops) else None
            if anew is not None:
                found[variable] = Variable(variable.type, variable.op, (anew, cost, of))
    return found


def _backward(
    cost: Variable,
    variables: list[Variable],
    order: list[Variable],
    constants: Collection[Variable],
    stops: Collection[Variable] = (),
) -> dict[Variable, Variable]:
    targets = set(variables)
    reaching: set[Variable] = set()  # depend on a target
    for variable in order:
        inputs = () if variable in constants else variable.inputs
        if variable in targets or any(source in reaching for source in inputs):
            reaching.add(variable)
    # Through what overflows on the way, such as 1 / (1 + exp(-z)), at once; but what is asked for is not passed by.
    forms, among = Forms(targets.union(constants, stops), for_gradient=True), set(order)
    gradients: dict[Variable, Variable] = {cost: constant(1, cost.type.dtype)}
    for variable in reversed(order):
        g = gradients.get(variable)
        if g is None or variable.op is None or variable in constants or reaching.isdisjoint(variable.inputs):
            continue
        form = forms.of(variable)
        terms = zip(variable.inputs, _slopes(variable, g), strict=True) if form is None else (_through(form, g, among))
        for source, slope in terms:
            if slope is not None and source in reaching and source.type.dtype.kind == "f":
                gradients[source] = gradients[source] + slope if source in gradients else slope
    return gradients


def _slopes(variable: Variable, g: Variable) -> list[Variable | None]:
    # The gradients by a variable's inputs.  Of whatever may replace the result, only those of a softmax are made.
    op, inputs = variable.op, variable.inputs
    assert op is not None
    output = variable if isinstance(op, ops.Softmax) else Variable(variable.type, op, inputs)
    return op.gradient(inputs, output, g)


def _through(form: Variable, g: Variable, leaves: Collection[Variable]) -> Iterable[tuple[Variable, Variable]]:
    # The gradients by leaves, from that by a form that is made of them.
    gradients = {form: g}
    for variable in reversed(sort([form], leaves)):
        slope = gradients.get(variable)
        if slope is None:
            continue
        if variable in leaves:
            yield variable, slope
        elif variable.op is not None:
            for source, part in zip(variable.inputs, _slopes(variable, slope), strict=True):
                if part is not None and source.type.dtype.kind == "f":
                    gradients[source] = gradients[source] + part if source in gradients else part


def _complain(cost: Variable, variable: Variable, is_connected: bool, how: str) -> None:
    reason = "only through indices or shapes, which have no gradient" if is_connected else "not at all"
    message = f"the cost {pprint(cost)} depends on {pprint(variable)} {reason}"
    if how == "raise":
        raise DisconnectedInputError(message)
    if how == "warn":
        warnings.warn(message, UserWarning, stacklevel=3)
