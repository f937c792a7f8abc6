"""What a function does with a recognised network, as a call of the engine.

The parameters' values move into the vector of a `fastnn.Network`, and the shared variables get views of it.  The engine
takes plain steps itself, in place; of anything else it computes the gradient, and a `Program` goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.layers import read_layers, slots_of
from fastnn.network import Network as EngineNetwork
from fastnn.slots import Slots
from fastnn.stepping import Gradients, GradientSteps
from fastnn.symbolic import ops
from fastnn.symbolic.ascent import Affine, Ascent
from fastnn.symbolic.feed import Feed, NotHere
from fastnn.symbolic.gradient import grad
from fastnn.symbolic.graph import Shared, Variable, constant, replaced, sort
from fastnn.symbolic.printing import leaf_name, pprint
from fastnn.symbolic.program import Program
from fastnn.symbolic.recognition import Cost, Network, likelihood_of
from fastnn.symbolic.simplify import Simplifier

#: Parameters for each row of a batch from which the engine does not take the gradient: it puts weights and gradient in
#: another order in memory.  By operation 20 rows of 784-500-10 take .8 of the time, 100 of 784-1000-1000-10 .84, but
#: 100 of 784-500-10 and 600 of 784-1000-1000-10 longer (float64, two threads).
MANY_PARAMETERS = 10_000


class Home:
    """The vector that a network's parameters move into."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.engine_network: EngineNetwork | None = None
        self._views: list[NDArray[Any]] = []
        self._starts = True

    def check_slopes(self) -> None:
        """Raise NotHere if the inputs of rectifiers may be 0, where the program's have a slope and the engine's none.

        Units with biases of 0 start there on rows of zeros, and units without any weights stay there.
        """
        starts = self._starts
        for (W, b), smooth in zip(self.network.layers, self.network.smooth, strict=False):
            if not smooth:
                continue
            if b is None:  # rows of zeros add nothing to the gradient by the weights
                at_zero = starts and not W.array.any(axis=0).all()
            else:
                zeros = b.array == 0 if W.array.shape[1:] == b.array.shape else np.zeros(0, bool)
                at_zero = bool(zeros.any()) and (starts or not W.array[:, zeros].any(axis=0).all())
            if at_zero:
                raise NotHere("the inputs of rectifiers may be 0")

    def stepped(self) -> None:
        """Take note that the parameters have moved."""
        self._starts = False

    def adopt(self) -> EngineNetwork:
        """Move the parameters' values into the vector, and give the shared variables views of it."""
        places = self.network.places
        fits = all(v is None or v.array.shape == view.shape for v, view in zip(places, self._views, strict=False))
        if self.engine_network is None or not fits:
            self.engine_network = self._moved_in()
        for variable, view in zip(places, self._views, strict=True):
            if variable is None:
                view[...] = 0  # a step moved it
            elif variable.array is not view:
                view[...] = variable.array
                variable.put(view, variable.exposed)
        return self.engine_network

    def _moved_in(self) -> EngineNetwork:
        network, places = self.network, self.network.places
        sizes = [network.weights[0].array.shape[0], *(W.array.shape[1] for W in network.weights)]
        slots = _slots(sizes) if 0 not in sizes else ()
        fitting = (v is None or v.array.shape == slot.shape for v, slot in zip(places, slots, strict=False))
        if 0 in sizes or not all(fitting):
            raise NotHere("the shapes of the parameters do not fit together")
        first = network.weights[0]
        home = first.home
        if home is None or home[0] != (places, network.activations) or list(home[1].sizes) != sizes:
            home = (places, network.activations), EngineNetwork(sizes, network.activations, first.dtype)
            first.home = home
        self._views = [view for arrays in home[1].slots.by_layer(home[1].parameters) for view in arrays.values()]
        found: EngineNetwork = home[1]
        return found

    def explanation(self, names: dict[Variable, str]) -> tuple[str, str]:
        """Return what the network is, and its layers, in words."""
        network = self.network
        widths = [network.weights[0].array.shape[0], *(W.array.shape[1] for W in network.weights)]
        layers = " and ".join(
            f"dot(., {leaf_name(W, names)})" + (f" + {leaf_name(b, names)}" if b is not None else "")
            for W, b in network.layers
        )
        between = f", with {', '.join(network.activations)} between" if network.activations else ""
        return f"a network of {'-'.join(map(str, widths))} units", f"    layers {layers}{between}"


class EngineStep:
    """A plain step along the gradient of a recognised network.

    Parameters
    ----------
    network : Network
    ascent : Ascent
    inputs : sequence of Variable
        Of the function.
    outputs : sequence of Variable
        Simplified, after the replacements.
    updates : dict of Shared to Variable
        The same of updates.
    simplify : Simplifier
        What simplified them.

    Attributes
    ----------
    updated : list of Shared
        Variables whose new values a call returns; those of the network are updated in place.
    """

    def __init__(
        self,
        network: Network,
        ascent: Ascent,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        updates: Mapping[Shared, Variable],
        simplify: Simplifier,
    ) -> None:
        self.ascent, self.updated = ascent, [variable for variable in updates if variable not in network.parameters]
        self._dtypes = [variable.type.dtype for variable in outputs]
        weights = {i: affine.log_likelihood for i, affine in ascent.outputs.items()}
        computed = [weights[i].weight("float64") if i in weights else output for i, output in enumerate(outputs)]
        others = [ascent.rate, *computed, *(updates[variable] for variable in self.updated)]
        self._feed, self._home = Feed(network, inputs, simplify, [simplify(other) for other in others]), Home(network)
        self._steps: GradientSteps | None = None

    def __call__(self, arguments: Sequence[NDArray[Any]]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """Take the step; return the values of the outputs, and of the updates that are not the network's.

        Raises
        ------
        NotHere
            If the engine does not take the values; nothing has changed then.
        """
        self._home.check_slopes()
        rows, begin, y, (rate, *values) = self._feed(arguments)
        network, ascent = self._home.adopt(), self.ascent
        if self._steps is None or self._steps.network is not network:
            self._steps = GradientSteps(network, ascent.l1, ascent.l2)
        try:
            found = self._steps(rows, y, float(rate) * (len(y) if ascent.is_sum else 1), begin)
        except FloatingPointError:
            raise NotHere("the log-likelihood is not finite") from None
        self._home.stepped()
        for variable in self._home.network.parameters:
            variable.changed()
        for i, affine in ascent.outputs.items():
            values[i] = np.asarray(_value(affine, float(values[i]), *found, len(y)), self._dtypes[i])
        return values[: len(self._dtypes)], values[len(self._dtypes) :]

    def explanation(self, names: dict[Variable, str]) -> list[str]:
        """Return lines that describe what a call does."""
        ascent = self.ascent
        penalties = "".join(
            f", {name} penalty {value:g}" for name, value in (("L1", ascent.l1), ("L2", ascent.l2)) if value
        )
        what, layers = self._home.explanation(names)
        mean = "log-likelihood" if ascent.is_sum else "mean log-likelihood"
        lines = [
            f"one call of the engine: {what}",
            layers,
            f"    ascends the {mean}{penalties}, rate {pprint(ascent.rate, names)}",
            *self._feed.explanation(names),
        ]
        if len(ascent.outputs) < len(self._dtypes) or self.updated:
            lines.append(f"    with {self._feed.n_operations} other operations before it, on NumPy")
        return lines


def _value(affine: Affine, weight: float, log_likelihood: float, penalty: float, n: int) -> float:
    return weight * log_likelihood * (n if affine.is_sum else 1) + affine.penalty * penalty + affine.constant


class EngineGradient:
    """A function's outputs and updates from the gradient of a recognised network, which the engine computes.

    Parameters and attributes are those of `EngineStep`, but outputs and updates are as the program wrote them, and
    reason says why the engine does not take the step as well.
    """

    def __init__(
        self,
        network: Network,
        reason: str,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        updates: Mapping[Shared, Variable],
        simplify: Simplifier,
    ) -> None:
        self.updated, self._reason = list(updates), reason
        self._leaves = Leaves(network)
        values = self._leaves.put_into([*outputs, *updates.values()], simplify)
        leaves = set(self._leaves.all)
        self._after = [not leaves.isdisjoint(sort([value])) for value in values]
        before = [value for value, is_after in zip(values, self._after, strict=True) if not is_after]
        self._feed, self._home = Feed(network, inputs, simplify, before), Home(network)
        moved = [v for v, is_after in zip(updates, self._after[len(outputs) :], strict=True) if is_after]
        after = [value for value, is_after in zip(values, self._after, strict=True) if is_after]
        self._program = Program(inputs, after, updates=moved)
        self._n_outputs = len(outputs)
        self._gradients: Gradients | None = None

    def __call__(self, arguments: Sequence[NDArray[Any]]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """Return the values of the outputs and of the updates; NotHere as by `EngineStep`."""
        self._home.check_slopes()
        rows, begin, y, before = self._feed(arguments)
        network = self._home.adopt()
        if network.parameters.size >= MANY_PARAMETERS * len(y):
            raise NotHere("the batch is small and the network large")
        if self._gradients is None or self._gradients.network is not network:
            self._gradients = Gradients(network)
        try:
            log_likelihood, gradient = self._gradients(rows, y, begin)
        except FloatingPointError:
            raise NotHere("the log-likelihood is not finite") from None
        self._leaves.set(log_likelihood, len(y), gradient, network)
        found = iter(before), iter(self._program(arguments))
        if not set(self._home.network.parameters).isdisjoint(self.updated):
            self._home.stepped()
        values = [next(found[is_after]) for is_after in self._after]
        return values[: self._n_outputs], values[self._n_outputs :]

    def explanation(self, names: dict[Variable, str]) -> list[str]:
        """Return lines that describe what a call does."""
        what, layers = self._home.explanation(names)
        n = self._feed.n_operations + len(self._program.operations)
        lines = [
            f"the engine computes the gradient of {what}",
            layers,
            *self._feed.explanation(names),
            f"    with {n} other operations, on NumPy: {self._reason}",
        ]
        size = sum(variable.array.size for variable in self._home.network.parameters)
        if size >= MANY_PARAMETERS:
            lines.append(f"    or all operation by operation, if there are {size // MANY_PARAMETERS} rows or fewer")
        return lines


class Leaves:
    """Variables for what the engine computes: the mean log-likelihood, the number of rows, gradients by parameters."""

    def __init__(self, network: Network) -> None:
        self.network, dtype = network, network.weights[0].type.dtype
        self._log_likelihood = Shared(np.zeros((), dtype), "log-likelihood", exposed=False)
        self._n_rows = Shared(np.zeros((), dtype), "rows", exposed=False)
        self._gradients = {
            variable: Shared(np.empty((0,) * variable.ndim, dtype), f"gradient by {variable!r}", exposed=False)
            for variable in network.parameters
        }
        self._vector: NDArray[Any] | None = None

    @property
    def all(self) -> list[Shared]:
        """All of them."""
        return [self._log_likelihood, self._n_rows, *self._gradients.values()]

    def put_into(self, values: Sequence[Variable], simplify: Simplifier) -> list[Variable]:
        """Return expressions, simplified, with gradients and log-likelihoods by these variables."""
        network = self.network
        gradients = {each: self._gradient(each, cost) for each, cost in network.gradients.items()}
        found = [simplify(value) for value in replaced(values, gradients)]
        own = network.cost.likelihood
        logits, targets = simplify(own.logits), simplify(own.targets)
        likelihoods = {}
        for variable in sort(found):
            likelihood = likelihood_of(variable)
            if likelihood is not None and likelihood.logits is logits and likelihood.targets is targets:
                value = constant(likelihood.number, own.logits.dtype) * self._log_likelihood
                value = value * self._n_rows if likelihood.is_sum else value
                likelihoods[variable] = simplify(ops.cast(value, variable.type.dtype))
        return replaced(found, likelihoods)

    def _gradient(self, gradient: Variable, cost: Cost) -> Variable:
        # That of the log-likelihood, times its weight, and those of the other terms.
        of, dtype = gradient.inputs[2], gradient.dtype
        assert isinstance(of, Shared)
        weight = cost.weight.weight(dtype)
        found = (weight * self._n_rows if cost.likelihood.is_sum else weight) * self._gradients[of]
        for term in cost.others:
            assert term.expression is not None
            if of in sort([term.expression]):
                found = found + term.weight(dtype) * grad(term.expression, of)
        return ops.cast(found, dtype)

    def set(self, log_likelihood: float, n_rows: int, gradient: NDArray[Any], network: EngineNetwork) -> None:
        """Give them their values."""
        self._log_likelihood.array[...] = log_likelihood
        self._n_rows.array[...] = n_rows
        if gradient is not self._vector:
            self._vector = gradient
            views = [view for arrays in network.slots.by_layer(gradient) for view in arrays.values()]
            for variable, view in zip(self.network.places, views, strict=True):
                if variable is not None:
                    self._gradients[variable].put(view)


def _slots(sizes: Sequence[int]) -> Slots:
    layers, input_shape = read_layers(sizes, None)
    return slots_of(layers, input_shape)
