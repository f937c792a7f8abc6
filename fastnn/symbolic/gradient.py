"""Gradients of expressions, as expressions."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastnn._validation import check_choice
from fastnn.symbolic import ops
from fastnn.symbolic.graph import Op, Parts, Shared, Variable, apply, as_variable, constant, operations, replaced, sort
from fastnn.symbolic.ops import consider_constant, disconnected_grad, grad_clip, grad_scale, zero_grad
from fastnn.symbolic.printing import pprint
from fastnn.symbolic.stability import Forms

#: What programs look for here.
__all__ = [
    "DisconnectedInputError",
    "Lop",
    "NullTypeGradError",
    "Rop",
    "consider_constant",
    "disconnected_grad",
    "grad",
    "grad_clip",
    "grad_scale",
    "hessian",
    "jacobian",
    "zero_grad",
]


class DisconnectedInputError(ValueError):
    """A cost does not depend on a variable of its gradient, or only through indices or shapes."""


class NullTypeGradError(TypeError):
    """A cost depends on a variable through the parameters of random numbers, which have no gradient."""


@dataclass(frozen=True)
class Gradient(Op):
    """Returns its first input, which is the gradient of the second by the third.

    Attributes
    ----------
    constants : frozenset of Variable
        Expressions that were treated as constants.
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
    """Return the inputs that a variable is computed from: for a gradient, only its expansion."""
    return variable.inputs[:1] if isinstance(variable.op, Gradient) else variable.inputs


def grad(
    cost: Variable | None,
    wrt: Variable | list[Variable] | tuple[Variable, ...],
    consider_constant: Iterable[Variable] | None = None,
    disconnected_inputs: str = "raise",
    add_names: bool = True,
    known_grads: Mapping[Variable, Any] | None = None,
    return_disconnected: str = "zero",
) -> Any:
    """Return the gradient of a cost.

    Parameters
    ----------
    cost : scalar expression of a floating dtype, or None
        None if known_grads is given: the gradient of a cost of which only those gradients are known.
    wrt : Variable, or a list or tuple of them
        Variables to differentiate by, of floating dtypes.
    consider_constant : iterable of Variable, optional
        Expressions to treat as constants.
    disconnected_inputs : {"raise", "warn", "ignore"}, default "raise"
        What to do if the cost does not depend on a variable; without an error the gradient is zero.
    add_names : bool
        Ignored: gradients have texts of their own.
    known_grads : mapping of Variable to array or Variable, optional
        Gradients by some expressions, of their shapes, instead of those by the cost.
    return_disconnected : {"zero", "none"}, default "zero"
        What the gradient by a variable is that the cost does not depend on, if there is no error.

    Returns
    -------
    Variable, or a list or tuple of them like wrt
        Each has the type of its variable.  See `ops` for subgradients at points without a gradient.

    Raises
    ------
    DisconnectedInputError
        If the cost does not depend on a variable, or only through indices or shapes.
    NullTypeGradError
        If the cost depends on a variable through the parameters of random numbers.
    TypeError
        If the cost is not a scalar, or it or a variable holds integers.
    """
    several = isinstance(wrt, (list, tuple))
    variables = list(wrt) if isinstance(wrt, (list, tuple)) else [wrt]
    check_choice(disconnected_inputs, "disconnected_inputs", ["raise", "warn", "ignore"])
    check_choice(return_disconnected, "return_disconnected", ["zero", "none"])
    known = _check_known(known_grads)
    if cost is None and not known:
        raise TypeError("the cost must be a variable, not None: only known_grads can stand for it")
    for variable, what in (*((cost, "the cost"),) * (cost is not None), *((variable, "wrt") for variable in variables)):
        _check_real(variable, what)
        if isinstance(variable, Shared):
            variable.is_parameter = True
    if cost is not None and cost.ndim != 0:
        raise TypeError(f"the cost must be a scalar, but {pprint(cost)} is a {cost.type}: take its mean or sum")
    constants = frozenset(consider_constant or ())
    seeds: dict[Variable, Variable] = {} if cost is None else {cost: constant(1, cost.type.dtype)}
    seeds |= known
    # A target that is an expression blocks the gradients of variables behind it, so each gets its own pass.
    leaves = [variable for variable in variables if variable.op is None]
    gradients = pullback(seeds, leaves, constants, fixed=known)
    inner = {variable: pullback(seeds, [variable], constants, fixed=known) for variable in variables if variable.op}
    order = sort(seeds, constants)
    connected = set(sort(seeds, constants, _connecting))
    _check_differentiable(seeds, variables, connected, constants)
    found: list[Variable | None] = []
    for variable in variables:
        expansion = inner.get(variable, gradients).get(variable)
        if expansion is None:
            if variable not in connected:
                _complain(seeds, variable, variable in order, disconnected_inputs)
                if return_disconnected == "none":
                    found.append(None)
                    continue
            expansion = ops.zeros_like(variable)
        if cost is not None and not known:
            expansion = apply(Gradient(constants), variable.type, expansion, cost, variable)
        found.append(expansion)
    return tuple(found) if isinstance(wrt, tuple) else found if several else found[0]


def Lop(
    f: Any,
    wrt: Any,
    eval_points: Any,
    consider_constant: Iterable[Variable] | None = None,
    disconnected_inputs: str = "raise",
) -> Any:
    """Return the product of a vector, from the left, and the Jacobian of f: the gradient of sum(eval_points * f).

    Parameters
    ----------
    f : Variable, or a list of them
    wrt : Variable, or a list or tuple of them
    eval_points : Variable, or a list of them
        Of the shapes of f.
    consider_constant, disconnected_inputs
        As for `grad`.
    """
    known = dict(zip(_listed(f), _listed(eval_points), strict=True))
    return grad(None, wrt, consider_constant, disconnected_inputs, known_grads=known)


def Rop(f: Any, wrt: Any, eval_points: Any) -> Any:
    """Return the product of the Jacobian of f by wrt and a vector: the derivative of f in the direction eval_points.

    The product from the left is linear in its vector; its own product from the left is the one from the right.

    Parameters
    ----------
    f : Variable, or a list or tuple of them
    wrt : Variable, or a list of them
    eval_points : Variable, or a list of them
        Of the shapes of wrt.
    """
    found = []
    for expression in _listed(f):
        _check_real(expression, "f")
        from_left = Variable(expression.type)
        slopes = pullback({expression: from_left}, _listed(wrt))
        seeds: dict[Variable, Variable] = {}
        for variable, point in zip(_listed(wrt), _listed(eval_points), strict=True):
            if variable in slopes:  # several may have the same
                seeds[slopes[variable]] = _sum(seeds.get(slopes[variable]), as_variable(point))
        product = pullback(seeds, [from_left]).get(from_left, from_left)
        found += replaced([product], {from_left: ops.zeros_like(expression)})
    return found[0] if isinstance(f, Variable) else type(f)(found)


def jacobian(expression: Variable, wrt: Any, consider_constant: Any = None, disconnected_inputs: str = "raise") -> Any:
    """Return the gradients of each element of a vector, along a new first axis; of a scalar, its gradient.

    See `grad` for the parameters.
    """
    if expression.ndim == 0:
        return grad(expression, wrt, consider_constant, disconnected_inputs)
    if expression.ndim != 1:
        raise TypeError(f"jacobian takes a vector, not a {expression.type}: flatten it")
    variables = list(wrt) if isinstance(wrt, (list, tuple)) else [wrt]

    def row(i: Variable, *_: Variable) -> Any:
        return [grad(expression[i], variable, consider_constant, disconnected_inputs) for variable in variables]

    steps = ops.arange(ops.shape(expression)[0])
    found, _ = operations["scan"](row, sequences=[steps], non_sequences=[expression, *variables], return_list=True)
    return tuple(found) if isinstance(wrt, tuple) else list(found) if isinstance(wrt, list) else found[0]


def hessian(cost: Variable, wrt: Any, consider_constant: Any = None, disconnected_inputs: str = "raise") -> Any:
    """Return the second derivatives of a scalar by vectors, a matrix for each; see `grad` for the parameters."""
    several = isinstance(wrt, (list, tuple))
    found = [
        jacobian(grad(cost, variable, consider_constant, disconnected_inputs), variable, consider_constant, "ignore")
        for variable in (wrt if several else [wrt])
    ]
    return tuple(found) if isinstance(wrt, tuple) else found if several else found[0]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _check_real(variable: Any, what: str) -> None:
    if not isinstance(variable, Variable):
        raise TypeError(f"{what} must be a variable, not {variable!r}")
    if variable.type.dtype.kind != "f":
        raise TypeError(f"{what} must hold real numbers, but {pprint(variable)} is of dtype {variable.dtype}")


def _check_known(known: Mapping[Variable, Any] | None) -> dict[Variable, Variable]:
    found = {}
    for variable, value in (known or {}).items():
        _check_real(variable, "a variable of known_grads")
        gradient = as_variable(value)
        if gradient.ndim != variable.ndim:
            raise TypeError(f"the known gradient by {pprint(variable)} must be a {variable.type}, not {gradient.type}")
        found[variable] = ops.cast(gradient, variable.type.dtype)
    return found


def _connecting(variable: Variable) -> tuple[Variable, ...]:
    return variable.inputs[variable.op.connects] if variable.op else ()


def _check_differentiable(
    seeds: Iterable[Variable],
    variables: Iterable[Variable],
    connected: Collection[Variable],
    constants: Collection[Variable],
) -> None:
    passed = [v for v in connected if v.op and not v.op.differentiable and v not in constants]
    behind = set(sort([source for v in passed for source in _connecting(v)], constants, _connecting))
    for variable in variables:
        if variable in behind:
            costs = ", ".join(map(pprint, seeds))
            raise NullTypeGradError(
                f"the cost {costs} depends on {pprint(variable)} through the parameters of random numbers, which have "
                "no gradient: give the numbers in consider_constant"
            )


def taken_anew(outputs: Iterable[Variable], stops: Collection[Variable]) -> dict[Variable, Variable]:
    """Return new gradients for those in outputs that bypass a stop, which will get a value of its own."""
    found = {}
    for variable in sort(outputs):
        if isinstance(variable.op, Gradient):
            _, cost, of = variable.inputs
            constants = variable.op.constants
            bypasses = not set(sort([cost], constants)).isdisjoint(stops)
            seeds: dict[Variable, Variable] = {cost: constant(1, cost.type.dtype)}
            anew = pullback(seeds, [of], constants, stops).get(of) if bypasses else None
            if anew is not None:
                found[variable] = Variable(variable.type, variable.op, (anew, cost, of))
    return found


def pullback(
    seeds: Mapping[Variable, Any],
    variables: Collection[Variable],
    constants: Collection[Variable] = (),
    stops: Collection[Variable] = (),
    fixed: Collection[Variable] = (),
) -> dict[Variable, Variable]:
    """Return the gradients by variables, from gradients by expressions of them; without those that are certainly zero.

    Parameters
    ----------
    seeds : mapping of Variable to Variable
        Gradients to begin with.
    variables : collection of Variable
    constants : collection of Variable
        Expressions to treat as constants.
    stops : collection of Variable
        Expressions that will have values of their own, so that none may be passed by.
    fixed : collection of Variable
        Those of the seeds that are the whole gradient, whatever else depends on their variables.
    """
    order = sort(seeds, constants)
    targets = set(variables)
    reaching: set[Variable] = set()  # depend on a target
    for variable in order:
        inputs = () if variable in constants else variable.inputs
        if variable in targets or any(source in reaching for source in inputs):
            reaching.add(variable)
    # Pass expressions that overflow midway, such as 1 / (1 + exp(-z)), in one step, but do not bypass a target.
    forms, among = Forms(targets.union(constants, stops, fixed), for_gradient=True), set(order)
    gradients: dict[Variable, Any] = dict(seeds)
    for variable in reversed(order):
        g = gradients.get(variable)
        if g is None or variable.op is None or variable in constants or reaching.isdisjoint(variable.inputs):
            continue
        form = forms.of(variable)
        terms = zip(variable.inputs, _slopes(variable, g), strict=True) if form is None else (_through(form, g, among))
        for source, slope in terms:
            if slope is not None and source in reaching and source not in fixed and source.type.dtype.kind in "fO":
                gradients[source] = _sum(gradients.get(source), slope)
    return {variable: gradients[variable] for variable in variables if variable in gradients}


def _sum(known: Any, other: Any) -> Any:
    # Of gradients, or of dictionaries with those by the parts of a pack.
    if known is None:
        return other
    if isinstance(known, dict):
        return {number: _sum(known.get(number), other.get(number)) for number in known | other}
    return known if other is None else known + other


def _slopes(variable: Variable, g: Variable) -> list[Variable | None]:
    # The gradients by a variable's inputs.  Only a softmax uses its own result for them.
    op, inputs = variable.op, variable.inputs
    assert op is not None
    output = variable if isinstance(op, ops.Softmax) else Variable(variable.type, op, inputs)
    return op.gradient(inputs, output, g)


def _through(form: Variable, g: Variable, leaves: Collection[Variable]) -> Iterable[tuple[Variable, Variable]]:
    # The gradients by the leaves of a form, from the gradient by the form.
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


def _complain(seeds: Iterable[Variable], variable: Variable, is_connected: bool, how: str) -> None:
    reason = "only through indices or shapes, which have no gradient" if is_connected else "not at all"
    costs = ", ".join(map(pprint, seeds))
    message = f"the cost {costs} depends on {pprint(variable)} {reason}"
    if how == "raise":
        raise DisconnectedInputError(message)
    if how == "warn":
        warnings.warn(message, UserWarning, stacklevel=3)
