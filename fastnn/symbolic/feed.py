"""The rows and classes that the engine takes in a call.

Rows in shared variables are prepared once and kept with the variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.engine.rows import Rows, as_stored, density
from fastnn.engine.threads import available_threads
from fastnn.kernels.rows import CSRRows
from fastnn.plan import choose_storage
from fastnn.symbolic import ops
from fastnn.symbolic.graph import Shared, Variable
from fastnn.symbolic.inplace import KERNEL_DTYPES
from fastnn.symbolic.printing import leaf_name, pprint
from fastnn.symbolic.program import Program
from fastnn.symbolic.recognition import Network
from fastnn.symbolic.simplify import Simplifier


class NotHere(Exception):
    """The engine does not take the values of a call; nothing has changed."""


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


class Feed:
    """The rows and classes of a call, and values of other expressions that a program computes before the engine's turn.

    Parameters
    ----------
    network : Network
    inputs : sequence of Variable
        Of the function.
    simplify : Simplifier
        With the function's replacements.
    others : sequence of Variable
        Simplified expressions.
    """

    def __init__(
        self, network: Network, inputs: Sequence[Variable], simplify: Simplifier, others: Sequence[Variable]
    ) -> None:
        self.network = network
        rows, targets = simplify(network.rows), simplify(network.targets)
        self.rows, self.targets = source_of(rows), source_of(targets)
        wanted: list[Variable] = []

        def place(variable: Variable) -> int:
            wanted.append(variable)
            return len(wanted) - 1

        # Places of the values that the program computes.
        for source in (self.rows, self.targets):
            if source is not None:
                source.shared.may_change()  # asked before this package itself refers to the array
        self._rows_at = None if self.rows else place(rows)
        self._targets_at = None if self.targets else place(targets)
        self._bounds_at = {
            bound: place(bound)
            for source in (self.rows, self.targets)
            if source
            for bound in source.bounds
            if isinstance(bound, Variable)
        }
        self._n_own = len(wanted)
        self._program = Program(inputs, [*wanted, *others], self._n_own)

    @property
    def n_operations(self) -> int:
        """Number of the program's operations."""
        return len(self._program.operations)

    def __call__(self, arguments: Sequence[NDArray[Any]]) -> tuple[Rows, int, NDArray[np.intp], list[NDArray[Any]]]:
        """Return rows, the number of the batch's first, its classes, and the values of the other expressions."""
        values = self._program(arguments)
        rows, begin, end = self._select_rows(values)
        y = self._select_classes(values)
        if end - begin != len(y) or len(y) == 0 or rows.shape[1] != self.network.weights[0].array.shape[0]:
            raise NotHere("the numbers of rows, classes and inputs do not fit together")
        return rows, begin, y, values[self._n_own :]

    def explanation(self, names: dict[Variable, str]) -> list[str]:
        """Return lines that say where rows and classes are from."""
        network, lines = self.network, []
        kinds = ("rows", self.rows, network.rows), ("classes", self.targets, network.targets)
        for what, source, written in kinds:
            if source is None:
                lines.append(f"    {what} {pprint(written, names)}, computed or given in each call")
            elif source.shared.may_change():
                lines.append(f"    {what} of {leaf_name(source.shared, names)}, as they are: other code has its array")
            else:
                lines.append(f"    {what} of {leaf_name(source.shared, names)}, made ready once and kept")
        if network.targets.ndim == 2:
            lines.append("    while each row of the targets has a single 1, and zeros beside it")
        return lines

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
        stored = source.shared.type.dtype
        as_stored = stored in KERNEL_DTYPES and all(each == dtype for each in source.dtypes)

        def prepare(array: NDArray[Any]) -> NDArray[Any]:
            return np.require(array if as_stored else source.converted(array), requirements=["C", "A"])

        if source.shared.may_change():
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
        source, n_classes = self.targets, self.network.weights[-1].array.shape[1]
        if source is None:
            assert self._targets_at is not None
            found = _as_classes(values[self._targets_at], n_classes)
        elif source.shared.may_change():
            array = source.shared.array
            part = array[slice(*self._range(source, len(array), values))]
            found = _as_classes(source.converted(part), n_classes)
        else:
            whole = source.shared.prepared(
                ("classes", source.dtypes, n_classes), lambda array: _as_classes(source.converted(array), n_classes)
            )
            found = None if whole is None else whole[slice(*self._range(source, len(whole), values))]
        if found is None:
            raise NotHere("the targets are not classes of the network")
        return found


def _as_classes(array: NDArray[Any], n_classes: int) -> NDArray[np.intp] | None:
    # The classes in a vector, or of rows that each have a single 1 and zeros beside it; None if there are others.
    if array.ndim == 2:
        y = array.argmax(axis=1) if array.shape[1] else np.zeros(0, np.intp)
        is_one_hot = np.count_nonzero(array) == len(array) == len(y) and bool((array[np.arange(len(y)), y] == 1).all())
        return y if is_one_hot and array.shape[1] == n_classes else None
    if array.dtype.kind not in "iu":
        return None
    y = np.ascontiguousarray(array, np.intp)
    return y if y.min(initial=0) >= 0 and y.max(initial=0) < n_classes else None


def _stored(rows: Rows, dtype: np.dtype[Any]) -> Rows:
    # Dense or sparse, whichever trains faster.
    share = None if isinstance(rows, CSRRows) else density(rows)
    sparse, _ = choose_storage(share is None, "auto", density=share)
    return as_stored(rows, dtype, sparse, available_threads())
