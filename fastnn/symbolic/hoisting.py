"""Work moved out of loops, where one operation on all steps at once does it.

What depends only on sequences is computed before the loop; what no later step needs, after it; sums over the steps,
such as gradients by weights, become one product.  What nobody uses is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from fastnn.symbolic import ops
from fastnn.symbolic.graph import PACKED, Constant, Op, Type, Variable, apply, replaced, sort, unused
from fastnn.symbolic.inplace import InPlace
from fastnn.symbolic.scanning import Scan, State
from fastnn.symbolic.simplify import Simplifier

ALL = ops.Slice(None, None, None)

#: Slices of one row, by its number.
ENDS = {-1: ops.Slice(-1, None, None), 0: ops.Slice(None, 1, None)}


def hoisted(outputs: Sequence[Variable]) -> list[Variable]:
    """Return equal expressions with as little work in loops as possible."""
    found = list(outputs)
    while True:
        order = sort(found)
        packs = [variable for variable in order if isinstance(variable.op, Scan) and not variable.op.is_split]
        if not packs:
            break
        # Of the last one it is known what is used of it.
        found = replaced(found, _Split(packs[-1], order, found).replacements())
    simplify = Simplifier()
    return found if found == list(outputs) else [simplify(variable) for variable in found]


class Lifted:
    """Outer expressions for the inner variables of a loop.

    Parameters
    ----------
    n_steps : Variable

    Attributes
    ----------
    fixed : dict of Variable to Variable
        Those that are the same in all steps.
    stepped : dict of Variable to Variable
        Those that have a row for each step.
    """

    def __init__(self, n_steps: Variable) -> None:
        self._n = n_steps
        self.fixed: dict[Variable, Variable] = {}
        self.stepped: dict[Variable, Variable] = {}
        self._stretched: set[Variable] = set()  # have fewer numbers than their dimensions suggest

    def add(self, variable: Variable) -> bool:
        """Make the expression of an inner variable from those of its inputs; return whether it is there."""
        op, inputs = variable.op, variable.inputs
        if isinstance(variable, Constant):
            self.fixed[variable] = variable
        if variable in self.fixed or variable in self.stepped:
            return True
        if op is None or not all(source in self.fixed or source in self.stepped for source in inputs):
            return False
        if all(source in self.fixed for source in inputs):
            self.fixed[variable] = Variable(variable.type, op, tuple(self.fixed[source] for source in inputs))
            return True
        if isinstance(op, (ops.Shape, ops.Count)):
            rows = self.stepped[inputs[0]]
            self.fixed[variable] = ops.shape(rows)[1:]
            if isinstance(op, ops.Count):
                axes = range(inputs[0].ndim) if op.axes is None else op.axes
                self.fixed[variable] = ops.count(rows, [axis + 1 for axis in axes])
            return True
        found = self._of(op, variable, inputs)
        if found is not None:
            self.stepped[variable] = found
        return found is not None

    def _of(self, op: Op, variable: Variable, inputs: tuple[Variable, ...]) -> Variable | None:
        if isinstance(op, ops.Elementwise):
            return self._elementwise(op, variable, inputs)
        if isinstance(op, ops.Dot):
            return self._product(*inputs)
        if isinstance(op, ops.Index):
            return self._indexed(op, variable, inputs)
        first, rest = inputs[0], inputs[1:]
        if first not in self.stepped or not all(source in self.fixed for source in rest):
            return self._softmax(op, variable, inputs) if isinstance(op, ops.ByKernel) else None
        rows, type_ = self.stepped[first], _with_axis(variable.type)
        if isinstance(op, ops.Cast):
            return Variable(type_, op, (rows,))
        if isinstance(op, ops.Dimshuffle):
            if "x" in op.pattern or first in self._stretched:
                self._stretched.add(variable)
            pattern = (0, *(axis + 1 if isinstance(axis, int) else axis for axis in op.pattern))
            return Variable(type_, ops.Dimshuffle(pattern), (rows,))
        if isinstance(op, (ops.Reduction, ops.LogSumExp)) and first.ndim and not _is_flat_argmax(op):
            axes = tuple(axis + 1 for axis in (range(first.ndim) if op.axes is None else op.axes))
            return Variable(type_, type(op)(**{**vars(op), "axes": axes}), (rows,))
        if isinstance(op, ops.ByKernel):
            return self._softmax(op, variable, inputs)
        if isinstance(op, ops.Reshape):
            return ops.reshape(rows, self.lengths(self.fixed[rest[0]]), variable.ndim + 1)
        if isinstance(op, ops.BroadcastTo):
            self._stretched.add(variable)
            return Variable(type_, op, (_padded(rows, variable.ndim), self.lengths(self.fixed[rest[0]])))
        if isinstance(op, ops.SumTo) and first.ndim == variable.ndim:
            return Variable(type_, op, (rows, self.lengths(self.fixed[rest[0]])))
        return None

    def lengths(self, lengths: Variable) -> Variable:
        """Return a shape with the number of steps before it."""
        return ops.concatenate([apply(ops.Stack(), Type(ops.INDEX, 1), self._n), ops.cast(lengths, ops.INDEX)])

    def _elementwise(self, op: ops.Elementwise, variable: Variable, inputs: tuple[Variable, ...]) -> Variable | None:
        whole = [x for x in inputs if x in self.stepped and x.ndim == variable.ndim and x not in self._stretched]
        if isinstance(op.function, InPlace) and len(whole) < len(inputs):
            return None
        if not whole:
            # All steps at once might take far more memory than one.
            if sum(x.ndim > 0 for x in inputs) > 1:
                return None
            self._stretched.add(variable)
        rows = [_padded(self.stepped[x], variable.ndim) if x in self.stepped else self.fixed[x] for x in inputs]
        return Variable(_with_axis(variable.type), op, tuple(rows))

    def _product(self, x: Variable, y: Variable) -> Variable | None:
        if x in self.stepped and y in self.fixed:
            rows, other = self.stepped[x], self.fixed[y]
            if x.ndim == 1:
                return ops.dot(rows, other)
            return self._by_rows(rows, lambda matrix: ops.dot(matrix, other), y.ndim - 1)
        if x in self.fixed and y.ndim == 1:
            return ops.dot(self.stepped[y], self.fixed[x].T)
        return None

    def _by_rows(self, rows: Variable, function: Any, n_axes: int = 1) -> Variable:
        # Of a matrix in each step, a function of the rows of all of them.
        lengths = ops.shape(rows)
        found = function(ops.reshape(rows, [lengths[0] * lengths[1], lengths[2]]))
        return ops.reshape(found, [lengths[0], lengths[1], *([ops.shape(found)[1]] * n_axes)])

    def _softmax(self, op: Op, variable: Variable, inputs: tuple[Variable, ...]) -> Variable | None:
        if not all(source in self.stepped for source in inputs):
            return None
        first, *others = (self.stepped[source] for source in inputs)
        lengths = ops.shape(first)
        flat = [ops.reshape(each, [lengths[0] * lengths[1], lengths[2]]) for each in others]
        return self._by_rows(first, lambda matrix: Variable(variable.type, op, (matrix, *flat)))

    def _indexed(self, op: ops.Index, variable: Variable, inputs: tuple[Variable, ...]) -> Variable | None:
        first, rest = inputs[0], inputs[1:]
        if first in self.stepped and all(source in self.fixed and source.ndim == 0 for source in rest):
            whole = ops.Index((ALL, *op.items))
            return Variable(
                _with_axis(variable.type), whole, (self.stepped[first], *(self.fixed[source] for source in rest))
            )
        axis = _indexed_axis(op.items, rest)
        if first not in self.fixed or axis is None:
            return None
        found = Variable(_with_axis(variable.type), op, (self.fixed[first], self.stepped[rest[0]]))
        return ops.dimshuffle(found, (axis, *(other for other in range(found.ndim) if other != axis)))


def _indexed_axis(items: Sequence[Any], sources: Sequence[Variable]) -> int | None:
    # The axis that an array of integers indexes, if slices of numbers are all else; behind other axes, of scalars only.
    slices = [item for item in items if isinstance(item, ops.Slice) and ops.Hole(0) not in vars(item).values()]
    if len(slices) != len(items) - 1 or ops.Hole(0) not in items or sources[0].type.dtype.kind not in "iu":
        return None
    axis = list(items).index(ops.Hole(0))
    return axis if axis == 0 or sources[0].ndim == 0 else None


def _is_flat_argmax(op: Op) -> bool:
    return isinstance(op, ops.Reduction) and op.name == "argmax" and op.axes is None


def _with_axis(type_: Type) -> Type:
    return Type(type_.dtype, type_.ndim + 1)


def _padded(rows: Variable, ndim: int) -> Variable:
    # Rows of fewer dimensions, with new axes so that each can be broadcast.
    own = rows.ndim - 1
    return ops.dimshuffle(rows, (0, *"x" * (ndim - own), *range(1, own + 1)))


class _Term(NamedTuple):
    """A term of a sum over the steps, as a function of rows of some inner variables."""

    sources: tuple[Variable, ...]
    total: Callable[..., Variable]


class _Split:
    """One loop, split into what goes before it, what stays in it, and what goes after it.

    Parameters
    ----------
    pack : Variable
        Its value.
    order, outputs : list of Variable
        All that uses it, and what is wanted in the end.
    """

    def __init__(self, pack: Variable, order: Sequence[Variable], outputs: Collection[Variable]) -> None:
        assert isinstance(pack.op, Scan)
        self._op = op = pack.op
        self._n, self._sequences, self._initials, self._carried, others = op.split(pack.inputs)
        # Inner variables of results, by what uses them: all rows, or only the last.
        parts = {v: op.results[v.op.number] for v in order if isinstance(v.op, ops.Part) and v.inputs[0] is pack}
        users = {part: [v for v in order if part in v.inputs] for part in parts}
        self._end = 0 if op.backwards else -1
        only_last = {p for p in parts if p not in outputs and all(self._takes_last(v, p) for v in users[p])}
        roots = op.roots()
        inner = dict(zip(roots, hoisted(roots), strict=True))
        self._whole = {part: inner[result] for part, result in parts.items() if part not in only_last}
        self._last = {
            user: inner[result] for part, result in parts.items() if part in only_last for user in users[part]
        }
        self._until = None if op.until is None else inner[op.until]
        self._states = [state._replace(new=inner[state.new]) for state in op.states]
        self._pairs = [(old, inner[new]) for old, new in op.carried]
        self._order = sort([*inner.values()])
        self._lift = lift = Lifted(self._n)
        lift.fixed |= zip(op.others, others, strict=True)
        if self._until is None:
            lift.stepped |= zip(op.slices, self._sequences, strict=True)
        for variable in self._order:
            lift.add(variable)
        self._before = {**lift.fixed, **lift.stepped}

    def replacements(self) -> dict[Variable, Variable]:
        """Return new expressions for what uses the loop's results."""
        sums = self._sums()
        terms = [source for found in sums.values() for term in found for source in term.sources]
        plain = [v for v in (*self._whole.values(), *self._last.values()) if v not in sums]
        wanted = [*plain, *terms, *([] if self._until is None else [self._until])]
        states, pairs = self._live(wanted)
        self._hold(wanted, states, pairs)
        olds = {old for old, _ in self._pairs}
        found = {part: self._rows(v) for part, v in self._whole.items() if v not in olds}
        totals = {new: self._total(new, its) for new, its in sums.items()}
        others = [self._rows(v) for v in self._last.values() if v not in sums and v not in {s.new for s in states}]
        used = self._used([*found.values(), *totals.values(), *others])
        # Of some states only the last value is wanted.
        ended = [s for s in states if s.taps == (-1,) and used.isdisjoint((s.new, *s.inputs))]
        finals = {s.new: Variable(s.new.type) for s in ended}
        for user, v in self._last.items():
            row = totals[v] if v in sums else finals[v] if v in finals else self._rows(v)[self._end]
            found[user] = _row_indexed(user, row)
        used = self._used(found.values())
        results = self._results([s for s in states if s not in ended], ended, pairs, used, finals)
        found |= {part: results[v] for part, v in self._whole.items() if v in olds}
        found = dict(zip(found, replaced(found.values(), results), strict=True))
        for expression in found.values():
            unused.discard(expression)
        return found

    def _takes_last(self, variable: Variable, rows: Variable) -> bool:
        # Whether a variable takes nothing but the last row, or an array of it.
        op, inputs = variable.op, variable.inputs
        is_index = isinstance(op, ops.Index) and inputs[0] is rows and rows not in inputs[1:]
        return is_index and op.items[0] in (self._end, ENDS[self._end])  # type: ignore[union-attr]

    def _used(self, expressions: Iterable[Variable]) -> set[Variable]:
        # Inner variables whose rows the loop must return.
        met = set(sort(expressions))
        return {variable for variable, rows in self._held.items() if rows in met}

    def _rows(self, variable: Variable) -> Variable:
        lift = self._lift
        if variable in lift.stepped:
            return lift.stepped[variable]
        fixed = lift.fixed[variable]
        return Variable(_with_axis(variable.type), ops.BroadcastTo(), (fixed, lift.lengths(ops.shape(fixed))))

    def _live(self, wanted: Sequence[Variable]) -> tuple[list[State], list[tuple[Variable, Variable]]]:
        # States and carried values that the wanted inner variables depend on.
        roots = set(wanted)
        while True:
            reached = set(sort(roots))
            states = [state for state in self._states if not reached.isdisjoint(state.inputs)]
            pairs = [(old, new) for old, new in self._pairs if old in reached]
            new = {state.new for state in states} | {new for _, new in pairs}
            if roots.issuperset(new):
                return states, pairs
            roots |= new

    def _hold(self, wanted: list[Variable], states: list[State], pairs: list[tuple[Variable, Variable]]) -> None:
        # Decide what stays in the loop, and make a place for the rows of each; the rest can be computed from these.
        self._held: dict[Variable, Variable] = {}
        lift = self._lift

        def hold(roots: Iterable[Variable]) -> None:
            for variable in sort(roots, self._before):
                if variable not in self._before and variable not in self._held and variable.type != PACKED:
                    self._held[variable] = lift.stepped[variable] = Variable(_with_axis(variable.type))

        hold(
            [state.new for state in states] + [x for state in states for x in state.inputs] + [new for _, new in pairs]
        )
        if self._until is None:
            for variable in sort(wanted):
                if not lift.add(variable):
                    hold([variable])
        else:
            hold(wanted)
            for variable in wanted:
                self._held[variable] = lift.stepped[variable] = Variable(_with_axis(variable.type))

    def _results(
        self,
        states: list[State],
        ended: list[State],
        pairs: list[tuple[Variable, Variable]],
        used: Collection[Variable],
        finals: dict[Variable, Variable],
    ) -> dict[Variable, Variable]:
        # The loop itself: by the variables that stand for its results, these; and by what was carried, its last value.
        op, lift = self._op, self._lift
        roots = list(dict.fromkeys([*(s.new for s in (*states, *ended)), *(new for _, new in pairs), *used]))
        roots += [] if self._until is None else [self._until]
        met = sort(roots, self._before)
        leaves = {v: Variable(v.type, name=v.name) for v in met if v in self._before and not isinstance(v, Constant)}
        new = dict(zip(roots, replaced(roots, leaves), strict=True))
        slices = {leaf: lift.stepped[v] for v, leaf in leaves.items() if v not in lift.fixed}
        if self._until is not None:
            slices |= {v: rows for v, rows in zip(op.slices, self._sequences, strict=True) if v in met}
        others = {leaf: lift.fixed[v] for v, leaf in leaves.items() if v in lift.fixed}
        initial = dict(zip(self._states, self._initials, strict=True))
        carried = [(state.inputs[0], new[state.new], initial[state][0]) for state in ended]
        before = dict(zip((old for old, _ in self._pairs), self._carried, strict=True))
        carried += [(old, new[value], before[old]) for old, value in pairs]
        loop = Scan(
            list(slices),
            [state._replace(new=new[state.new]) for state in states],
            [(old, value) for old, value, _ in carried],
            list(others),
            None if self._until is None else new[self._until],
            name=op.name,
            backwards=op.backwards,
        )
        loop.is_split = True
        inputs = [
            *slices.values(),
            *(initial[s] for s in states),
            *(first for _, _, first in carried),
            *others.values(),
        ]
        pack = Variable(PACKED, loop, (self._n, *inputs))
        found = {self._held[v]: loop.result(pack, new[v]) for v in used}
        found |= {finals[s.new]: loop.result(pack, s.inputs[0]) for s in ended}
        return found | {old: loop.result(pack, old) for old, _ in pairs}

    def _sums(self) -> dict[Variable, list[_Term]]:
        # New values of states that are sums over the steps, wanted only in the end, by terms that add up faster.
        if self._until is not None:
            return {}
        uses = Counter(source for variable in self._order for source in variable.inputs)
        whole, found = set(self._whole.values()), {}
        for state in self._states:
            new, old = state.new, state.inputs[0]
            is_sum = state.taps == (-1,) and new.op is ops.add and old in new.inputs and uses[old] == 1
            if is_sum and uses[new] == 0 and new not in whole and old not in whole and new in self._last.values():
                terms = self._terms(*(source for source in new.inputs if source is not old))
                if terms is not None:
                    found[new] = terms
        return found

    def _terms(self, v: Variable) -> list[_Term] | None:
        op, inputs, fixed = v.op, v.inputs, self._lift.fixed
        if op is ops.add and all(source.type == v.type for source in inputs):
            both = [self._terms(source) for source in inputs]
            return None if None in both else [term for its in both for term in its or ()]
        term = None
        if isinstance(op, ops.Dot) and all(source.ndim == 2 for source in inputs):
            left, right = inputs
            if left.op == ops.Dimshuffle((1, 0)):
                term = _Term((left.inputs[0], right), lambda a, b: ops.dot(_flat(a).T, _flat(b)))
            else:
                term = _Term((left, right), lambda a, b: ops.dot(_flat(a.dimshuffle(0, 2, 1)).T, _flat(b)))
        elif op is ops.mul and v.ndim == 2:
            for a, b in (inputs, inputs[::-1]):
                if a.op == ops.Dimshuffle((0, "x")) and b.op == ops.Dimshuffle(("x", 0)):
                    term = _Term((a.inputs[0], b.inputs[0]), lambda a, b: ops.dot(a.T, b))
        elif isinstance(op, ops.SumTo) and inputs[1] in fixed:
            term = _Term(inputs[:1], lambda a: Variable(v.type, op, (a, fixed[inputs[1]])))
        elif isinstance(op, ops.Put) and op.adds and inputs[0] in fixed and _is_zero(inputs[0]):
            axis = _indexed_axis(op.items, inputs[2:])
            if axis is not None:
                term = _Term(inputs[1:], lambda g, i: _put(v, fixed[inputs[0]], g, i, axis))
        if term is None and v.ndim <= 1:
            term = _Term((v,), lambda a: ops.sum_(a, axis=0))
        return None if term is None or not fixed.keys().isdisjoint(term.sources) else [term]

    def _total(self, new: Variable, terms: list[_Term]) -> Variable:
        initial = next(first for state, first in zip(self._states, self._initials, strict=True) if state.new is new)
        found: Variable | None = None if _is_zero(initial) else initial[0]
        for term in terms:
            total = term.total(*(self._lift.stepped[source] for source in term.sources))
            found = total if found is None else found + total
        assert found is not None
        return found


def _row_indexed(variable: Variable, row: Variable) -> Variable:
    # What a variable takes of the last row.
    assert isinstance(variable.op, ops.Index)
    first, *rest = variable.op.items
    items = ((None,) if isinstance(first, ops.Slice) else ()) + tuple(rest)
    return Variable(variable.type, ops.Index(items), (row, *variable.inputs[1:])) if items else row


def _put(like: Variable, zeros: Variable, rows: Variable, numbers: Variable, axis: int) -> Variable:
    # What an operation puts into zeros in all steps.
    assert like.op is not None
    values = ops.dimshuffle(rows, (*range(1, axis + 1), 0, *range(axis + 1, rows.ndim)))
    return Variable(like.type, like.op, (zeros, values, numbers))


def _flat(rows: Variable) -> Variable:
    # The rows of the matrices of all steps in one matrix.
    lengths = ops.shape(rows)
    return ops.reshape(rows, [lengths[0] * lengths[1], lengths[2]])


def _is_zero(variable: Variable) -> bool:
    while isinstance(variable.op, (ops.BroadcastTo, ops.Dimshuffle)):
        variable = variable.inputs[0]
    return isinstance(variable, Constant) and not variable.value.any()
