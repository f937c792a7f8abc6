"""Tells whether a function only steps along the gradients of a recognised network, so that the engine can step.

Then each weight and bias has an update by its gradient, of one cost, times a common rate; the cost may have penalties
on the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from fastnn.symbolic import ops
from fastnn.symbolic.gradient import Gradient
from fastnn.symbolic.graph import Shared, Variable, sort
from fastnn.symbolic.printing import pprint
from fastnn.symbolic.recognition import Cost, Network, NotRecognised, gradients_in, likelihood_of
from fastnn.symbolic.simplify import Simplifier
from fastnn.symbolic.terms import Term, terms_of

_short = partial(pprint, short=True)


class Affine(NamedTuple):
    """An output: multiples of the log-likelihood, mean or sum, and of the penalty, plus a constant.

    The first multiple is a term without an expression.
    """

    log_likelihood: Term
    is_sum: bool
    penalty: float
    constant: float


@dataclass
class Ascent:
    """Plain steps up the gradient of a network's mean log-likelihood minus penalties.

    Attributes
    ----------
    rate : Variable
        Learning rate; of the sum of the log-likelihoods, if `is_sum`.
    is_sum : bool
    l1, l2 : float
        Weights of the penalties, as in `fastnn.Trainer`.
    outputs : dict of int to Affine
        Outputs of the function, by number, that follow from the log-likelihood and the penalty.
    """

    rate: Variable
    is_sum: bool
    l1: float
    l2: float
    outputs: dict[int, Affine]


def ascent_of(
    network: Network, outputs: Sequence[Variable], updates: Mapping[Shared, Variable], simplify: Simplifier
) -> Ascent:
    """Return the steps that a function takes.

    Raises
    ------
    NotRecognised
        If it does something else with the gradients; the message says what first.
    """
    rates: dict[Shared, Term] = {}
    cost: Cost | None = None
    for variable, value in updates.items():
        if gradients_in([value]):
            rates[variable], of = _gradient_step(variable, value, network)
            if cost is not None and simplify(of.expression) is not simplify(cost.expression):
                raise NotRecognised(
                    "the updates are along gradients of several costs: "
                    f"{_short(cost.expression)} and {_short(of.expression)}"
                )
            cost = of if cost is None else cost
    if cost is None or gradients_in(outputs):
        raise NotRecognised("an output depends on a gradient")
    for variable in network.parameters:
        if variable not in rates:
            raise NotRecognised(f"{pprint(variable)} is not updated, though the cost depends on it")
    l1, l2 = _penalties(cost, network)
    found = Ascent(_common_rate(rates, cost.weight, simplify), cost.likelihood.is_sum, l1, l2, {})
    for i, output in enumerate(outputs):
        affine = _affine(terms_of(simplify(output)), cost)
        if affine is not None:
            found.outputs[i] = affine
    return found


def _gradient_step(variable: Shared, value: Variable, network: Network) -> tuple[Term, Cost]:
    # The rate, as a term without an expression, and the cost, if an update is p + rate * grad(cost, p).
    terms = terms_of(value)
    gradients = [term for term in terms if term.expression is not None and isinstance(term.expression.op, Gradient)]
    others = [term for term in terms if term not in gradients]
    if len(gradients) != 1 or others != [Term(1.0, (), (), variable)]:
        raise NotRecognised(
            f"the update of {pprint(variable)} is not itself plus or minus a rate times a gradient: {_short(value)}"
        )
    (step,) = gradients
    gradient = step.expression
    assert gradient is not None
    if gradient not in network.gradients:
        raise NotRecognised(f"the update of {pprint(variable)} is along the gradient of another cost")
    if gradient.inputs[2] is not variable:
        raise NotRecognised(f"the update of {pprint(variable)} is along the gradient by {pprint(gradient.inputs[2])}")
    if any(isinstance(part.op, Gradient) for part in sort([*step.factors, *step.divisors])):
        raise NotRecognised(f"the rate of {pprint(variable)} depends on a gradient")
    return step._replace(expression=None), network.gradients[gradient]


def _penalties(cost: Cost, network: Network) -> tuple[float, float]:
    found: dict[str, dict[Variable, float]] = {"abs": {}, "sqr": {}}
    for term in cost.others:
        assert term.expression is not None
        op = term.expression.op
        inner = term.expression.inputs[0] if isinstance(op, ops.Reduction) and op.name == "sum" else None
        if inner is None or op.axes is not None or inner.op not in (ops.abs_, ops.sqr):  # type: ignore[union-attr]
            raise NotRecognised(f"the cost has a term that is not a penalty on weights: {_short(term.expression)}")
        if term.factors or term.divisors or cost.weight.factors or cost.weight.divisors or cost.likelihood.is_sum:
            raise NotRecognised("the cost has terms whose weight is not a constant, beside the mean log-likelihood")
        assert isinstance(inner.op, ops.Elementwise)
        weights = found[inner.op.name]
        (weight,) = inner.inputs
        weights[weight] = weights.get(weight, 0.0) - term.number / cost.weight.number
    shares = []
    for kind, weights in found.items():
        if weights and (set(weights) != set(network.weights) or len(set(weights.values())) > 1):
            raise NotRecognised(f"the penalty {kind} is not the same on the weights of all layers and of nothing else")
        shares.append(next(iter(weights.values()), 0.0))
        if shares[-1] < 0:
            raise NotRecognised("a penalty is negative")
    return shares[0], 2 * shares[1]


def _common_rate(rates: Mapping[Shared, Term], weight: Term, simplify: Simplifier) -> Variable:
    # The rate for the log-likelihood itself; the cost has this multiple of it.
    found = {
        variable: simplify(term.times(weight.number, weight.factors, weight.divisors).weight("float64"))
        for variable, term in rates.items()
    }
    first, *others = found.values()
    if any(other is not first for other in others):
        raise NotRecognised("the parameters do not have one and the same rate")
    return first


def _affine(terms: Sequence[Term], cost: Cost) -> Affine | None:
    # An output as a multiple of a log-likelihood, or of the whole cost, plus a constant.
    found = [(likelihood_of(term.expression), term) for term in terms if term.expression is not None]
    own = [(its, term) for its, term in found if its is not None and its.is_of(cost.likelihood)]
    if len(own) != 1:
        return None
    ((likelihood, term),) = own
    share = term.times(likelihood.number)._replace(expression=None)
    others = [each for each in terms if each is not term]
    constant = sum(each.number for each in others if each.expression is None)
    amounts = _amounts(each for each in others if each.expression is not None)
    if any(each.factors or each.divisors for each in others):
        return None
    if not amounts:
        return Affine(share, likelihood.is_sum, 0.0, constant)
    times = share.number / cost.weight.number
    wanted = {each: times * number for each, number in _amounts(cost.others).items()}
    is_multiple = amounts == wanted and not (share.factors or share.divisors or likelihood.is_sum)
    return Affine(share, False, -share.number, constant) if is_multiple else None


def _amounts(terms: Iterable[Term]) -> dict[Variable | None, float]:
    found: dict[Variable | None, float] = {}
    for term in terms:
        found[term.expression] = found.get(term.expression, 0.0) + term.number
    return found
