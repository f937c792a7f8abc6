"""Recognises, in a function's graph, a network that gradients are taken of.

Such a network has affine layers over rows that do not depend on its parameters, activations between them, a softmax,
and the mean or the sum of the log-likelihoods of classes.  `ascent` tells whether all that is done with the gradients
is a plain step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from fastnn.symbolic import ops
from fastnn.symbolic.gradient import Gradient
from fastnn.symbolic.graph import Constant, Shared, Variable, shared_in, sort
from fastnn.symbolic.printing import pprint
from fastnn.symbolic.simplify import Simplifier
from fastnn.symbolic.terms import Term, only_term, terms_of

_short = partial(pprint, short=True)

ACTIVATIONS = {ops.tanh: "tanh", ops.sigmoid: "sigmoid", ops.softplus: "softplus", ops.relu: "relu"}


class NotRecognised(Exception):
    """The engine cannot take over a graph; the message says why."""


class Likelihood(NamedTuple):
    """A multiple of the mean log-likelihood of the true classes, or of the sum.

    Attributes
    ----------
    expression : Variable
    number : float
    is_sum : bool
    logits : Variable
    targets : Variable
        The true classes, a vector; or a matrix that has, in each row, 1 for the true class and else 0.
    stop : Variable or None
        Number of the rows that the classes are looked up in.
    """

    expression: Variable
    number: float
    is_sum: bool
    logits: Variable
    targets: Variable
    stop: Variable | None

    def is_of(self, other: Likelihood) -> bool:
        """Whether both are of the same network and targets."""
        return self.logits is other.logits and self.targets is other.targets


def likelihood_of(variable: Variable) -> Likelihood | None:
    """Return what multiple of a log-likelihood a simplified expression is, if it is the reduction of one."""
    op = variable.op
    if not isinstance(op, ops.Reduction) or op.name not in ("sum", "mean") or op.axes is not None or op.keepdims:
        return None
    is_sum, found = op.name == "sum", only_term(variable.inputs[0])
    if found is None:
        return None
    number, picked = found
    op, inputs = picked.op, picked.inputs
    if isinstance(op, ops.Index) and op.items == (ops.Hole(0), ops.Hole(1)):
        # log_softmax(logits)[arange(n), classes]
        P, numbers, classes = inputs
        if not isinstance(P.op, ops.LogSoftmax) or not isinstance(numbers.op, ops.Arange) or classes.ndim != 1:
            return None
        start, stop, step = numbers.inputs
        if [getattr(bound, "value", None) for bound in (start, step)] != [0, 1]:
            return None
        return Likelihood(variable, number, is_sum, P.inputs[0], classes, stop)
    if isinstance(op, ops.Reduction) and op.name == "sum" and op.axes == (1,) and inputs[0].ndim == 2:
        found = only_term(inputs[0])
    elif picked.ndim == 2 and is_sum:
        found = 1.0, picked
    else:
        return None
    factors = None if found is None else _factors(found[1])
    if found is None or factors is None:
        return None
    return Likelihood(variable, number * found[0], is_sum, *factors, None)


def _factors(product: Variable) -> tuple[Variable, Variable] | None:
    # logits and targets of targets * log_softmax(logits)
    if product.op is ops.mul:
        for P, targets in (product.inputs, product.inputs[::-1]):
            while isinstance(P.op, ops.Cast) and P.inputs[0].type.dtype.kind == "f":
                (P,) = P.inputs
            if isinstance(P.op, ops.LogSoftmax) and targets.ndim == 2:
                return P.inputs[0], targets
    return None


class Cost(NamedTuple):
    """A cost: a likelihood, its weight, and other terms.

    Attributes
    ----------
    expression : Variable
        The program's.
    likelihood : Likelihood
    weight : Term
        What the likelihood is multiplied by, its own number included.
    others : list of Term
        Without constants.
    """

    expression: Variable
    likelihood: Likelihood
    weight: Term
    others: list[Term]


@dataclass
class Network:
    """A network that gradients are taken of.

    Attributes
    ----------
    cost : Cost
        The first of them.
    gradients : dict of Variable to Cost
        The program's gradients by parameters, each with its cost.
    rows : Variable
        The input.
    weights : list of Shared
        Of each layer, from the input on.
    biases : list of Shared or None
    activations : list of str
        Of each hidden layer.
    smooth : list of bool
        Whether its slope at 0 is not 0, as the engine's is.
    """

    cost: Cost
    gradients: dict[Variable, Cost]
    rows: Variable
    weights: list[Shared]
    biases: list[Shared | None]
    activations: list[str]
    smooth: list[bool]

    @property
    def targets(self) -> Variable:
        """The true classes, or a matrix with 1 for them."""
        return self.cost.likelihood.targets

    @property
    def layers(self) -> list[tuple[Shared, Shared | None]]:
        """Weight and bias of each layer."""
        return list(zip(self.weights, self.biases, strict=True))

    @property
    def places(self) -> list[Shared | None]:
        """Weights and biases, layer by layer, with None for those that do not exist."""
        return [variable for layer in self.layers for variable in layer]

    @property
    def parameters(self) -> list[Shared]:
        """Weights and biases, layer by layer."""
        return [variable for variable in self.places if variable is not None]


def recognise(
    outputs: Sequence[Variable],
    updates: Mapping[Shared, Variable],
    givens: Mapping[Variable, Variable],
    simplify: Simplifier,
) -> Network:
    """Return the network that outputs and updates take gradients of.

    simplify is without replacements.

    Raises
    ------
    NotRecognised
        If there is none; the message names the first thing in the way.
    """
    gradients = gradients_in([*outputs, *updates.values()])
    if not gradients:
        raise NotRecognised("no update moves a shared variable along a gradient" if updates else "nothing is updated")
    costs: dict[Variable, Cost] = {}
    reasons: list[NotRecognised] = []
    for expression in dict.fromkeys(gradient.inputs[1] for gradient in gradients):
        try:
            costs[expression] = _cost(expression, simplify)
        except NotRecognised as reason:
            reasons.append(reason)
    if not costs:
        raise reasons[0]
    cost = next(iter(costs.values()))
    of = {each: costs[each.inputs[1]] for each in gradients if each.inputs[1] in costs}
    of = {gradient: its for gradient, its in of.items() if its.likelihood.is_of(cost.likelihood)}
    moved = [gradient.inputs[2] for gradient in of]
    for gradient in of:
        if gradient.op != Gradient():
            raise NotRecognised(f"the gradient by {pprint(gradient.inputs[2])} treats some expressions as constants")
    network = Network(cost, of, *_layers(cost.likelihood.logits, set(moved)))
    _check(network, moved, of.values())
    _check_givens(network, givens, simplify)
    return network


def gradients_in(values: Iterable[Variable]) -> list[Variable]:
    """Return the gradients in expressions, but not those within others."""
    order = sort(values, (), lambda variable: () if isinstance(variable.op, Gradient) else variable.inputs)
    return [variable for variable in order if isinstance(variable.op, Gradient)]


def _cost(expression: Variable, simplify: Simplifier) -> Cost:
    terms = [term for term in terms_of(simplify(expression)) if term.expression is not None]
    found = [(likelihood_of(term.expression), term) for term in terms]  # type: ignore[arg-type]
    own = [(likelihood, term) for likelihood, term in found if likelihood is not None]
    if len(own) != 1:
        raise NotRecognised(
            f"the cost {_short(expression)} is not the mean or sum of the logarithm of a softmax at the true classes"
        )
    ((likelihood, term),) = own
    return Cost(expression, likelihood, term.times(likelihood.number), [each for each in terms if each is not term])


def _check(network: Network, moved: Sequence[Variable], costs: Iterable[Cost]) -> None:
    parameters, logits = network.parameters, network.cost.likelihood.logits
    if len(set(parameters)) < len(parameters):
        raise NotRecognised("layers share parameters")
    for variable in moved:
        if variable not in parameters:
            raise NotRecognised(f"{pprint(variable)}, by which there is a gradient, is not a weight or bias of a layer")
    _check_counted(network)
    inside = {variable for variable in sort([logits], [network.rows]) if variable.op and variable is not network.rows}
    for cost in costs:
        for term in cost.others:
            assert term.expression is not None
            if not inside.isdisjoint(sort([term.expression, *term.factors, *term.divisors])):
                raise NotRecognised(f"the cost has a term that depends on a layer: {_short(term.expression)}")


def _check_counted(network: Network) -> None:
    # The rows must be numbered up to the length of something with one entry for each row.
    likelihood, rows = network.cost.likelihood, network.rows
    stop, classes = likelihood.stop, likelihood.targets
    if stop is None:
        return
    if isinstance(stop.op, ops.Index) and stop.op.items == (0,) and isinstance(stop.inputs[0].op, ops.Shape):
        (source,) = stop.inputs[0].inputs
        by_rows = {rows}
        for variable in sort([likelihood.expression], [rows, classes]):
            if variable.ndim == 2 and any(source in by_rows for source in variable.inputs):
                by_rows.add(variable)
        if source.like in {variable.like for variable in (*by_rows, classes)}:
            return
    raise NotRecognised(
        f"the rows of {_short(network.cost.expression)} are not counted by the shape of something in the network"
    )


def _layers(
    logits: Variable, moved: set[Variable]
) -> tuple[Variable, list[Shared], list[Shared | None], list[str], list[bool]]:
    # Rows, weights, biases, activations and smooth; layers below all gradients belong to the rows.
    logits = _unshifted(logits)
    weights: list[Shared] = []
    biases: list[Shared | None] = []
    activations: list[str] = []
    smooth: list[bool] = []
    layer, current = _affine_layer(logits), logits
    if layer is None:
        raise NotRecognised(f"{_short(logits)} is not dot(x, W) + b with shared W and b")
    while layer is not None:
        current, W, b = layer
        weights.insert(0, W)
        biases.insert(0, b)
        if moved.isdisjoint(shared_in(current)):
            break
        name, before, is_smooth = _activation(current)
        layer = _affine_layer(before)
        if layer is not None:
            activations.insert(0, name)
            smooth.insert(0, is_smooth)
    below = [variable for variable in shared_in(current) if variable in moved]
    if below:
        raise NotRecognised(
            f"{_short(current)} is neither rows of data nor a known activation of an affine layer, and depends on "
            f"{', '.join(pprint(variable) for variable in below)}"
        )
    if current.type != logits.type:
        raise NotRecognised(f"the rows {_short(current)} are a {current.type}")
    return current, weights, biases, activations, smooth


def _unshifted(logits: Variable) -> Variable:
    # z of z - max(z) along the rows: a softmax written out is often made stable in this way.
    if logits.op is ops.sub:
        z, largest = logits.inputs
        if largest.op in (ops.Dimshuffle((0, "x")), ops.Index((ops.Slice(None, None, None), None))):
            (largest,) = largest.inputs
        op = largest.op
        if isinstance(op, ops.Reduction) and op.name == "max" and op.axes == (1,) and largest.inputs[0] is z:
            return z
    return logits


def _activation(variable: Variable) -> tuple[str, Variable, bool]:
    # Its name, its input, and whether its slope at 0 differs from the engine's; "identity" of any other expression.
    op, inputs = variable.op, variable.inputs
    if op in ACTIVATIONS:
        return ACTIVATIONS[op], inputs[0], op is ops.relu
    if op is ops.maximum:  # a tie gives the first the gradient
        for z, zero in (inputs, inputs[::-1]):
            if _is_zero(zero):
                return "relu", z, z is inputs[0]
    if op is ops.mul:
        for z, sign in (inputs, inputs[::-1]):
            while isinstance(sign.op, ops.Cast):
                (sign,) = sign.inputs
            if _is_positive(sign, z) is not None:
                return "relu", z, _is_positive(sign, z) is True
    if isinstance(op, ops.Elementwise) and op.name == "switch":
        condition, one, other = inputs
        if _is_zero(other) and _is_positive(condition, one) is not None:
            return "relu", one, _is_positive(condition, one) is True
        if _is_zero(one) and _is_negative(condition, other) is not None:
            return "relu", other, _is_negative(condition, other) is False
    return "identity", variable, False


def _is_zero(variable: Variable) -> bool:
    if isinstance(variable.op, ops.BroadcastTo):
        return _is_zero(variable.inputs[0])
    return isinstance(variable, Constant) and variable.ndim == 0 and bool(variable.value == 0)


def _is_positive(condition: Variable, z: Variable) -> bool | None:
    # Whether z > 0 (False) or z >= 0 (True), in either spelling; None: neither.
    return _compares(condition, z, {ops.gt: False, ops.ge: True}, {ops.lt: False, ops.le: True})


def _is_negative(condition: Variable, z: Variable) -> bool | None:
    return _compares(condition, z, {ops.lt: False, ops.le: True}, {ops.gt: False, ops.ge: True})


def _compares(condition: Variable, z: Variable, first: dict[Any, bool], second: dict[Any, bool]) -> bool | None:
    if len(condition.inputs) != 2:
        return None
    left, right = condition.inputs
    if left is z and _is_zero(right):
        return first.get(condition.op)
    return second.get(condition.op) if right is z and _is_zero(left) else None


def _affine_layer(variable: Variable) -> tuple[Variable, Shared, Shared | None] | None:
    # Input, weight and bias of dot(input, W) + b, or of dot(input, W).
    candidates: list[tuple[Variable, Variable | None]] = [(variable, None)]
    if variable.op is ops.add:
        candidates = [variable.inputs, variable.inputs[::-1]]  # type: ignore[list-item]
    for product, bias in candidates:
        if bias is not None and isinstance(bias.op, ops.Dimshuffle) and bias.op.pattern == ("x", 0):
            (bias,) = bias.inputs
        if isinstance(product.op, ops.Dot) and (bias is None or (isinstance(bias, Shared) and bias.ndim == 1)):
            x, W = product.inputs
            if isinstance(W, Shared) and x.ndim == W.ndim == 2 and W.dtype in ("float32", "float64"):
                return x, W, bias
    return None


def _check_givens(network: Network, givens: Mapping[Variable, Variable], simplify: Simplifier) -> None:
    # Gradients were taken before the replacement, so it must not reach into the network.
    costs = [cost.expression for cost in network.gradients.values()]
    free = [network.rows, network.targets]
    inside = set(sort(costs)) | set(sort([simplify(cost) for cost in costs], free))
    leaves = set(sort(free))
    for variable in givens:
        if variable in inside and ((variable.op and variable not in leaves) or variable in network.parameters):
            raise NotRecognised(f"givens replace {pprint(variable)} within the network")
