"""Recognises a network that is trained by plain gradient steps in a function's graph.

Such a network has affine layers over rows that do not depend on it, activations between them, a softmax, the mean
log-likelihood of classes, penalties on the weights, and for each weight and bias an update by the gradient of this cost
times a common rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastnn.symbolic import graph, ops
from fastnn.symbolic.gradient import Gradient
from fastnn.symbolic.graph import Constant, Shared, Variable, as_variable, shared_in, sort
from fastnn.symbolic.printing import pprint
from fastnn.symbolic.simplify import Simplifier

ACTIVATIONS = {ops.tanh: "tanh", ops.sigmoid: "sigmoid", ops.relu: "relu"}


class NotRecognised(Exception):
    """The engine cannot train a graph; the message says why."""


class Term(NamedTuple):
    """A number times scalars, divided by other scalars, times an expression (None: 1)."""

    number: float
    factors: tuple[Variable, ...]
    divisors: tuple[Variable, ...]
    expression: Variable | None

    def times(self, number: float, factors: Sequence[Variable] = (), divisors: Sequence[Variable] = ()) -> Term:
        """Return the product."""
        return Term(self.number * number, (*self.factors, *factors), (*self.divisors, *divisors), self.expression)


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
            if isinstance(factor, Constant) and factor.ndim == 0:
                number = float(factor.value)
                if op is ops.mul:
                    return [term.times(number) for term in terms_of(other)]
                if factor is inputs[1] and number != 0:
                    return [term.times(1 / number) for term in terms_of(other)]
            elif factor.ndim == 0 and other.ndim > 0 and (op is ops.mul or factor is inputs[1]):
                if op is ops.mul:
                    return [term.times(1, [factor]) for term in terms_of(other)]
                return [term.times(1, [], [factor]) for term in terms_of(other)]
    if isinstance(op, ops.Reduction) and op.name == "mean" and op.axes is None:
        inner = terms_of(inputs[0])
        if len(inner) == 1 and inner[0].expression is not None and inner[0].expression is not inputs[0]:
            expression = Variable(variable.type, op, (inner[0].expression,))
            return [inner[0]._replace(expression=expression)]
    return [Term(1.0, (), (), variable)]


@dataclass
class Affine:
    """An output: multiples of the log-likelihood and of the penalty, plus a constant."""

    log_likelihood: float
    penalty: float
    constant: float


@dataclass
class TrainedNetwork:
    """A network, and how a function trains it.

    Attributes
    ----------
    rows, classes : Variable
        The network's input, and the true classes.
    weights, biases : list of Shared
        Of each layer, from the input on.
    activations : list of str
        Of each hidden layer.
    smooth : list of bool
        Whether its slope at 0 is 1/2, where the engine's is 0.
    rate : Variable
        Learning rate of the ascent of the mean log-likelihood minus the penalties.
    l1, l2 : float
        Weights of the penalties, as in `fastnn.Trainer`.
    outputs : dict of int to Affine
        Outputs of the function, by number, that can be computed from the cost.
    cost : Variable
        The program's expression.
    """

    rows: Variable
    classes: Variable
    weights: list[Shared]
    biases: list[Shared]
    activations: list[str]
    smooth: list[bool]
    rate: Variable
    l1: float
    l2: float
    outputs: dict[int, Affine]
    cost: Variable

    @property
    def layers(self) -> list[tuple[Shared, Shared]]:
        """Weight and bias of each layer."""
        return list(zip(self.weights, self.biases, strict=True))

    @property
    def parameters(self) -> list[Shared]:
        """Weights and biases, layer by layer."""
        return [variable for layer in self.layers for variable in layer]


def recognise(
    outputs: Sequence[Variable], updates: Mapping[Shared, Variable], givens: Mapping[Variable, Variable]
) -> TrainedNetwork:
    """Return the network that a function trains.

    Raises
    ------
    NotRecognised
        If there is none; the message says why.
    """
    simplify = Simplifier()
    rates: dict[Shared, Term] = {}
    cost = None
    for variable, value in updates.items():
        step = _gradient_step(variable, value)
        if step is None:
            continue
        rates[variable], of = step
        if cost is not None and simplify(of) is not simplify(cost):
            raise NotRecognised(f"the updates are along gradients of several costs: {pprint(cost)} and {pprint(of)}")
        cost = of if cost is None else cost
    if cost is None:
        raise NotRecognised("no update moves a shared variable along a gradient" if updates else "nothing is updated")
    terms = [term._replace(expression=_simplified(simplify, term.expression)) for term in terms_of(simplify(cost))]
    if any(term.factors or term.divisors for term in terms):
        raise NotRecognised("the cost has terms whose weight is not a constant")
    own = [term for term in terms if term.expression is not None and _picked(term.expression) is not None]
    if len(own) != 1:
        raise NotRecognised(
            f"the cost {pprint(cost)} is not the mean of the logarithm of a softmax at the true classes"
        )
    (likelihood,) = own
    assert likelihood.expression is not None
    logits, classes, counted = _picked(likelihood.expression)  # type: ignore[misc]
    rows, weights, biases, activations, smooth = _layers(logits, set(rates))
    found = TrainedNetwork(rows, classes, weights, biases, activations, smooth, as_variable(0.0), 0.0, 0.0, {}, cost)
    _check_counted(counted, found, likelihood.expression)
    _check_parameters(found, rates)
    found.l1, found.l2 = _penalties(terms, likelihood, found)
    found.rate = _common_rate(rates, likelihood.number, simplify)
    _check_givens(cost, found, givens)
    for i, output in enumerate(outputs):
        affine = _affine(terms_of(simplify(output)), terms, likelihood, simplify)
        if affine is not None:
            found.outputs[i] = affine
    return found


def _simplified(simplify: Simplifier, expression: Variable | None) -> Variable | None:
    return None if expression is None else simplify(expression)


def _gradient_step(variable: Shared, value: Variable) -> tuple[Term, Variable] | None:
    # The rate, as a term without an expression, and the cost, if an update is p + rate * grad(cost, p).
    terms = terms_of(value)
    gradients = [term for term in terms if term.expression is not None and isinstance(term.expression.op, Gradient)]
    if not any(isinstance(part.op, Gradient) for part in sort([value])):
        return None
    others = [term for term in terms if term not in gradients]
    if len(gradients) != 1 or others != [Term(1.0, (), (), variable)]:
        raise NotRecognised(
            f"the update of {pprint(variable)} is not itself plus or minus a rate times a gradient: {pprint(value)}"
        )
    (step,) = gradients
    assert step.expression is not None
    if step.expression.op != Gradient():
        raise NotRecognised(f"the gradient by {pprint(variable)} treats some expressions as constants")
    _, cost, of = step.expression.inputs
    if of is not variable:
        raise NotRecognised(f"the update of {pprint(variable)} is along the gradient by {pprint(of)}")
    if any(isinstance(part.op, Gradient) for part in sort([*step.factors, *step.divisors])):
        raise NotRecognised(f"the rate of {pprint(variable)} depends on a gradient")
    return step._replace(expression=None), cost


def _picked(expression: Variable) -> tuple[Variable, Variable, Variable] | None:
    # Logits, classes and the number of rows of mean(log_softmax(logits)[arange(n), classes]).
    op = expression.op
    if not isinstance(op, ops.Reduction) or op.name != "mean" or op.axes is not None or op.keepdims:
        return None
    (picked,) = expression.inputs
    if not isinstance(picked.op, ops.Index) or picked.op.items != (ops.Hole(0), ops.Hole(1)):
        return None
    P, numbers, classes = picked.inputs
    if not isinstance(P.op, ops.LogSoftmax) or not isinstance(numbers.op, ops.Arange) or classes.ndim != 1:
        return None
    start, stop, step = numbers.inputs
    if [getattr(bound, "value", None) for bound in (start, step)] != [0, 1]:
        return None
    return P.inputs[0], classes, stop


def _check_counted(stop: Variable, network: TrainedNetwork, expression: Variable) -> None:
    # The rows must be numbered up to the length of something with one entry for each row.
    if isinstance(stop.op, ops.Index) and stop.op.items == (0,) and isinstance(stop.inputs[0].op, ops.Shape):
        (source,) = stop.inputs[0].inputs
        by_rows = {network.rows}
        for variable in sort([expression], [network.rows, network.classes]):
            if variable.ndim == 2 and any(source in by_rows for source in variable.inputs):
                by_rows.add(variable)
        if source.like in {variable.like for variable in (*by_rows, network.classes)}:
            return
    raise NotRecognised(f"the rows of {pprint(expression)} are not counted by the shape of something in the network")


def _layers(logits: Variable, moved: set[Shared]) -> tuple[Variable, list[Shared], list[Shared], list[str], list[bool]]:
    weights: list[Shared] = []
    biases: list[Shared] = []
    activations: list[str] = []
    smooth: list[bool] = []
    current = logits
    while True:
        product, W, b = _affine_layer(current)
        weights.insert(0, W)
        biases.insert(0, b)
        current = product
        name, before = _activation(current)
        if before is None and _is_affine(current):
            name, before = "identity", current
        if before is None or not _is_affine(before):
            break
        activations.insert(0, name)
        smooth.insert(0, current.op is ops.relu)
        current = before
    below = [variable for variable in shared_in(current) if variable in moved]
    if below:
        raise NotRecognised(
            f"{pprint(current)} is neither rows of data nor a known activation of an affine layer, and depends on "
            f"{', '.join(pprint(variable) for variable in below)}"
        )
    if current.type != logits.type:
        raise NotRecognised(f"the rows {pprint(current)} are a {current.type}")
    return current, weights, biases, activations, smooth


def _activation(variable: Variable) -> tuple[str, Variable | None]:
    if variable.op in ACTIVATIONS:
        return ACTIVATIONS[variable.op], variable.inputs[0]
    if variable.op is ops.maximum and isinstance(variable.inputs[0], Constant):
        zero, before = variable.inputs
        # With 0 first, a tie gives the other no gradient, as in the engine.
        if zero.ndim == 0 and zero.value == 0:  # type: ignore[attr-defined]
            return "relu", before
    return "", None


def _is_affine(variable: Variable) -> bool:
    try:
        _affine_layer(variable)
    except NotRecognised:
        return False
    return True


def _affine_layer(variable: Variable) -> tuple[Variable, Shared, Shared]:
    # Input, weight and bias of dot(input, W) + b.
    if variable.op is ops.add:
        for product, bias in (variable.inputs, variable.inputs[::-1]):
            if isinstance(bias.op, ops.Dimshuffle) and bias.op.pattern == ("x", 0):
                (bias,) = bias.inputs
            if isinstance(product.op, ops.Dot) and isinstance(bias, Shared) and bias.ndim == 1:
                x, W = product.inputs
                if isinstance(W, Shared) and x.ndim == W.ndim == 2 and W.dtype in ("float32", "float64"):
                    return x, W, bias
    raise NotRecognised(f"{pprint(variable)} is not dot(x, W) + b with shared W and b")


def _check_parameters(network: TrainedNetwork, rates: Mapping[Shared, Term]) -> None:
    parameters = network.parameters
    if len(set(parameters)) < len(parameters):
        raise NotRecognised("layers share parameters")
    for variable in parameters:
        if variable not in rates:
            raise NotRecognised(f"{pprint(variable)} is not updated, though the cost depends on it")
    for variable in rates:
        if variable not in parameters:
            raise NotRecognised(f"{pprint(variable)} is updated, but is not a weight or bias of a layer")


def _penalties(terms: Sequence[Term], likelihood: Term, network: TrainedNetwork) -> tuple[float, float]:
    found: dict[str, dict[Variable, float]] = {"abs": {}, "sqr": {}}
    for term in terms:
        if term is likelihood or term.expression is None:
            continue
        op = term.expression.op
        inner = term.expression.inputs[0] if isinstance(op, ops.Reduction) and op.name == "sum" else None
        if inner is None or op.axes is not None or inner.op not in (ops.abs_, ops.sqr):  # type: ignore[union-attr]
            raise NotRecognised(f"the cost has a term that the engine does not know: {pprint(term.expression)}")
        assert isinstance(inner.op, ops.Elementwise)
        weights = found[inner.op.name]
        (weight,) = inner.inputs
        weights[weight] = weights.get(weight, 0.0) - term.number / likelihood.number
    shares = []
    for kind, weights in found.items():
        if weights and (set(weights) != set(network.weights) or len(set(weights.values())) > 1):
            raise NotRecognised(f"the penalty {kind} is not the same on the weights of all layers and of nothing else")
        shares.append(next(iter(weights.values()), 0.0))
        if shares[-1] < 0:
            raise NotRecognised("a penalty is negative")
    return shares[0], 2 * shares[1]


def _common_rate(rates: Mapping[Shared, Term], number: float, simplify: Simplifier) -> Variable:
    # The rate for the log-likelihood itself; the cost has this multiple of it.
    found: dict[Variable, Variable] = {}
    for variable, term in rates.items():
        rate: Variable = graph.constant(term.number * number, "float64")
        for factor in term.factors:
            rate = rate * factor
        for divisor in term.divisors:
            rate = rate / divisor
        found[variable] = simplify(rate)
    first, *others = found.values()
    if any(other is not first for other in others):
        raise NotRecognised("the parameters do not have one and the same rate")
    return first


def _check_givens(cost: Variable, network: TrainedNetwork, givens: Mapping[Variable, Variable]) -> None:
    # Gradients were taken before the replacement, so it must not reach into the network.
    simplify = Simplifier()
    inside = set(sort([cost])) | set(sort([simplify(cost)], [network.rows, network.classes]))
    leaves = {network.rows, network.classes} | set(sort([network.rows, network.classes]))
    for variable in givens:
        if variable in inside and (variable not in leaves or variable in network.parameters):
            raise NotRecognised(f"givens replace {pprint(variable)} within the network")


def _affine(terms: Sequence[Term], cost: Sequence[Term], likelihood: Term, simplify: Simplifier) -> Affine | None:
    # An output as a multiple of the log-likelihood or of the whole cost, plus a constant.
    if any(term.factors or term.divisors for term in terms):
        return None
    amounts: dict[Any, float] = {}
    for term in terms:
        expression = _simplified(simplify, term.expression)
        amounts[expression] = amounts.get(expression, 0.0) + term.number
    constant = amounts.pop(None, 0.0)
    if set(amounts) == {likelihood.expression}:
        return Affine(amounts[likelihood.expression], 0.0, constant)
    wanted: dict[Any, float] = {}
    for term in cost:
        if term.expression is not None:
            wanted[term.expression] = wanted.get(term.expression, 0.0) + term.number
    if set(amounts) != set(wanted) or not amounts:
        return None
    times = amounts[likelihood.expression] / likelihood.number
    if any(amounts[expression] != times * number for expression, number in wanted.items()):
        return None
    share = times * likelihood.number
    return Affine(share, -share, constant)
