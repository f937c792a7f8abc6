"""A recognised network's training step as a call of the engine.

The parameters' values move into the vector of a `fastnn.Network`, and the shared variables get views of it, which the
engine updates in place.  Rows in shared variables are prepared once and kept with the variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.engine.rows import Rows, as_stored, density
from fastnn.engine.threads import available_threads
from fastnn.kernels.rows import CSRRows
from fastnn.layers import read_layers, slots_of
from fastnn.network import Network
from fastnn.plan import choose_storage
from fastnn.slots import Slots
from fastnn.stepping import GradientSteps
from fastnn.symbolic import ops
from fastnn.symbolic.graph import Shared, Variable
from fastnn.symbolic.printing import leaf_name, pprint
from fastnn.symbolic.program import Program
from fastnn.symbolic.recognition import TrainedNetwork
from fastnn.symbolic.simplify import Simplifier

FLOATING = ("float32", "float64")


class NotHere(Exception):
    """The engine does not take the values of a call; nothing has changed."""


class Classes(NamedTuple):
    """Classes for the engine, and bounds of them."""

    y: NDArray[np.intp]
    least: int
    largest: int


@dataclass
class Source:
    """Consecutive rows of a shared variable, converted.

    Attributes
    ----------
    shared : Shared
    dtypes : tuple of dtype
        Conversions, in order.
    bounds : tuple
        Begin and end of the rows: int, None or a scalar expression.
    """

    shared: Shared
    dtypes: tuple[np.dtype[Any], ...]
    bounds: tuple[Any, Any]

    @property
    def is_fixed(self) -> bool:
        """Whether the rows are the same in every call."""
        return not any(isinstance(bound, Variable) for bound in self.bounds)

    def converted(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return rows after all conversions."""
        for dtype in self.dtypes:
            array = array.astype(dtype, copy=False)
        return array


def source_of(variable: Variable) -> Source | None:
    """Return the source of an expression's rows if it is a shared variable, converted or sliced by rows."""
    dtypes: list[np.dtype[Any]] = []
    bounds: tuple[Any, Any] = (None, None)
    while not isinstance(variable, Shared):
        op = variable.op
        if isinstance(op, ops.Cast):
            dtypes.insert(0, op.dtype)
        elif isinstance(op, ops.Index) and len(op.items) == 1 and isinstance(op.items[0], ops.Slice):
            (item,) = op.items
            if bounds != (None, None) or item.step not in (None, 1):
                return None
            holes = variable.inputs[1:]
            bounds = tuple(  # type: ignore[assignment]
                holes[part.number] if isinstance(part, ops.Hole) else part for part in (item.start, item.stop)
            )
        else:
            return None
        variable = variable.inputs[0]
    return Source(variable, tuple(dtypes), bounds)


class EngineStep:
    """The training step of a recognised network.

    Parameters
    ----------
    network : TrainedNetwork
    inputs : sequence of Variable
        Of the function.
    outputs, updates : sequence of Variable
        Simplified, after the replacements; only updates of other variables than the network's parameters.
    simplify : Simplifier
        What simplified them.
    """

    def __init__(
        self,
        network: TrainedNetwork,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        updates: Sequence[Variable],
        simplify: Simplifier,
    ) -> None:
        self.network = network
        self._dtypes = [variable.type.dtype for variable in outputs]
        rows, classes = simplify(network.rows), simplify(network.classes)
        self.rows, self.classes = source_of(rows), source_of(classes)
        wanted: list[Variable] = [simplify(network.rate)]

        def place(variable: Variable) -> int:
            wanted.append(variable)
            return len(wanted) - 1

        # Places of the values that the other program computes first.
        self._rows_at = None if self.rows else place(rows)
        self._classes_at = None if self.classes else place(classes)
        self._bounds_at = {
            bound: place(bound)
            for source in (self.rows, self.classes)
            if source
            for bound in source.bounds
            if isinstance(bound, Variable)
        }
        n_borrowed = len(wanted)
        self._others_at = {i: place(variable) for i, variable in enumerate(outputs) if i not in network.outputs}
        self._updates_at = [place(variable) for variable in updates]
        self._program = Program(inputs, wanted, n_borrowed)
        self._steps: GradientSteps | None = None
        self._starts = True
        self._views: list[NDArray[Any]] = []

    def __call__(self, arguments: Sequence[NDArray[Any]]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """Take the step; return the values of the outputs, and of the updates that are not the network's.

        Raises
        ------
        NotHere
            If the engine does not take the values; nothing has changed then.
        """
        self._check_slopes()
        values = self._program(arguments)
        steps = self._adopted()
        rows, begin, end = self._select_rows(values)
        y = self._select_classes(values)
        if end - begin != len(y) or len(y) == 0 or rows.shape[1] != steps.network.n_in:
            raise NotHere("the numbers of rows, classes and inputs do not fit together")
        try:
            log_likelihood, penalty = steps(rows, y, float(values[0]), begin)
        except FloatingPointError:
            raise NotHere("the log-likelihood is not finite") from None
        for variable in self.network.parameters:
            variable.changed()
        outputs = []
        for i, dtype in enumerate(self._dtypes):
            if i in self._others_at:
                outputs.append(values[self._others_at[i]])
            else:
                affine = self.network.outputs[i]
                value = affine.log_likelihood * log_likelihood + affine.penalty * penalty + affine.constant
                outputs.append(np.asarray(value, dtype))
        return outputs, [values[i] for i in self._updates_at]

    def explanation(self, names: dict[Variable, str]) -> list[str]:
        """Return lines that describe the network."""
        network = self.network
        widths = [network.weights[0].array.shape[0], *(W.array.shape[1] for W in network.weights)]
        layers = " and ".join(f"dot(., {leaf_name(W, names)}) + {leaf_name(b, names)}" for W, b in network.layers)
        penalties = "".join(
            f", {name} penalty {value:g}" for name, value in (("L1", network.l1), ("L2", network.l2)) if value
        )
        lines = [
            f"one call of the engine: a network of {'-'.join(map(str, widths))} units",
            f"    layers {layers}"
            + (f", with {', '.join(network.activations)} between" if network.activations else ""),
            f"    ascends the mean log-likelihood{penalties}, rate {pprint(network.rate, names)}",
        ]
        for what, source, written in (("rows", self.rows, network.rows), ("classes", self.classes, network.classes)):
            if source is None:
                lines.append(f"    {what} {pprint(written, names)}, computed or given in each call")
            elif source.shared.exposed:
                lines.append(f"    {what} of {leaf_name(source.shared, names)}, as they are: its array is borrowed")
            else:
                lines.append(f"    {what} of {leaf_name(source.shared, names)}, made ready once and kept")
        if self._others_at or self._updates_at:
            lines.append(f"    with {len(self._program.operations)} other operations before it, on NumPy")
        return lines

    def _check_slopes(self) -> None:
        # Theano's relu has the slope 1/2 at exactly 0, the engine's 0.  Units with biases of 0 start there on rows of
        # zeros, and units without any weights stay there.
        starts, self._starts = self._starts, False
        for (W, b), smooth in zip(self.network.layers, self.network.smooth, strict=False):
            zeros = b.array == 0 if smooth and W.array.shape[1:] == b.array.shape else np.zeros(0, bool)
            if zeros.any() and (starts or not W.array[:, zeros].any(axis=0).all()):
                raise NotHere("the inputs of rectifiers may be 0")

    def _adopted(self) -> GradientSteps:
        # Move the parameters' values into the network's vector, and give the shared variables views of it.
        network, variables = self.network, self.network.parameters
        if self._steps is None or any(
            variable.array.shape != view.shape for variable, view in zip(variables, self._views, strict=True)
        ):
            sizes = [network.weights[0].array.shape[0], *(W.array.shape[1] for W in network.weights)]
            if 0 in sizes or [variable.array.shape for variable in variables] != [slot.shape for slot in _slots(sizes)]:
                raise NotHere("the shapes of the parameters do not fit together")
            home = variables[0].home
            if home is None or home[0] != (variables, network.activations) or list(home[1].sizes) != sizes:
                home = (variables, network.activations), Network(sizes, network.activations, variables[0].dtype)
                variables[0].home = home
            views = home[1].slots.by_layer(home[1].parameters)
            self._views = [view for arrays in views for view in arrays.values()]
            self._steps = GradientSteps(home[1], network.l1, network.l2)
        for variable, view in zip(variables, self._views, strict=True):
            if variable.array is not view:
                view[...] = variable.array
                variable.put(view, variable.exposed)
        return self._steps

    def _range(self, source: Source, n: int, values: Sequence[NDArray[Any]]) -> tuple[int, int]:
        bounds = (int(values[self._bounds_at[b]]) if isinstance(b, Variable) else b for b in source.bounds)
        begin, end, _ = slice(*bounds).indices(n)
        return begin, max(begin, end)

    def _select_rows(self, values: Sequence[NDArray[Any]]) -> tuple[Rows, int, int]:
        dtype = self.network.weights[0].type.dtype
        source = self.rows
        if source is None:
            assert self._rows_at is not None
            value = np.require(values[self._rows_at], requirements=["C", "A"])
            return value, 0, len(value)

        # The engine converts floats to its dtype itself, as it goes.
        stored = source.shared.type.dtype.name
        as_stored = stored in FLOATING and all(each == dtype for each in source.dtypes)

        def prepare(array: NDArray[Any]) -> NDArray[Any]:
            return np.require(array if as_stored else source.converted(array), requirements=["C", "A"])

        if source.shared.exposed:
            array = source.shared.array
            begin, end = self._range(source, len(array), values)
            if as_stored and array.flags.c_contiguous and array.flags.aligned and not source.is_fixed:
                return array, begin, end
            return prepare(array[begin:end]), 0, end - begin
        fixed = source.bounds if source.is_fixed else (None, None)
        rows: Rows = source.shared.prepared(
            ("rows", dtype, source.dtypes, fixed),
            lambda array: _stored(prepare(array[slice(*fixed)]), dtype),
        )
        n = int(rows.shape[0])
        return (rows, 0, n) if source.is_fixed else (rows, *self._range(source, n, values))

    def _select_classes(self, values: Sequence[NDArray[Any]]) -> NDArray[np.intp]:
        source = self.classes
        if source is None:
            assert self._classes_at is not None
            found = _as_classes(values[self._classes_at])
        elif source.shared.exposed:
            array = source.shared.array
            found = _as_classes(source.converted(array[slice(*self._range(source, len(array), values))]))
        else:
            whole: Classes = source.shared.prepared(
                ("classes", source.dtypes), lambda array: _as_classes(source.converted(array))
            )
            found = whole._replace(y=whole.y[slice(*self._range(source, len(whole.y), values))])
        if found.least < 0 or found.largest >= self.network.biases[-1].array.shape[0]:
            raise NotHere("a class is negative or too large")
        return found.y


def _slots(sizes: Sequence[int]) -> Slots:
    layers, input_shape = read_layers(sizes, None)
    return slots_of(layers, input_shape)


def _as_classes(array: NDArray[Any]) -> Classes:
    if array.dtype.kind not in "iu":
        raise NotHere("the classes are not integers")
    y = np.ascontiguousarray(array, np.intp)
    return Classes(y, int(y.min(initial=0)), int(y.max(initial=0)))


def _stored(rows: Rows, dtype: np.dtype[Any]) -> Rows:
    # Dense or sparse, whichever trains faster.
    share = None if isinstance(rows, CSRRows) else density(rows)
    sparse, _ = choose_storage(share is None, "auto", density=share)
    return as_stored(rows, dtype, sparse, available_threads())
