"""Loops: an operation that applies a step to the rows of sequences, one after another, and its gradient.

A step is made of expressions of inner variables: slices of sequences, earlier values of states, and everything else
that it uses, which stays the same.  Whatever the step takes from outside is an input of the operation, so that
replacements, sharing and gradients see it.  The gradient is another loop, backwards through the steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fastnn.symbolic import ops
from fastnn.symbolic.gradient import pullback
from fastnn.symbolic.graph import PACKED, Constant, Op, Parts, Type, Variable, apply, constant, replaced, sort, unused
from fastnn.symbolic.looping import Loop
from fastnn.symbolic.simplify import Simplifier


class State(NamedTuple):
    """What a step computes from its own earlier values.

    Attributes
    ----------
    taps : tuple of int
        How many steps ago each of these values was computed, as negative numbers.
    inputs : tuple of Variable
        The inner variables of these.
    new : Variable
        The inner variable of the next value.
    """

    taps: tuple[int, ...]
    inputs: tuple[Variable, ...]
    new: Variable

    @property
    def n_initial(self) -> int:
        """The number of values that must be known before the first step."""
        return -min(self.taps)


class Scan(Op):
    """A loop; its value packs `results`.

    Its inputs are the number of steps, the sequences, the states' initial values in an array for each, the initial
    values of what is carried, and the others.

    Parameters
    ----------
    slices : sequence of Variable
        Inner variables: one row of each sequence.
    states : sequence of State
    carried : sequence of (Variable, Variable)
        Inner variables of a value and of the next value, for what is not kept step by step.
    others : sequence of Variable
        Inner variables of everything that stays the same.
    until : Variable or None
        Inner variable: whether to stop after the step.
    truncate : int, default -1
        The number of steps, the last ones, that gradients go back through; -1: all.
    name : str or None
    backwards : bool, default False
        Whether the first step is at the last row of the sequences and results.

    Attributes
    ----------
    results : list of Variable
        Inner variables.  Of those of a state's or the step's own values the result is an array of the values of all
        steps; of one that is carried, it is the last value.  More may be asked for later.
    is_split : bool
        Whether `hoisting` has moved work out of it already.
    """

    connects = slice(1, None)
    lends = True

    def __init__(
        self,
        slices: Sequence[Variable],
        states: Sequence[State],
        carried: Sequence[tuple[Variable, Variable]],
        others: Sequence[Variable],
        until: Variable | None = None,
        truncate: int = -1,
        name: str | None = None,
        backwards: bool = False,
    ) -> None:
        self.slices, self.states, self.carried, self.others = (
            tuple(slices),
            tuple(states),
            tuple(carried),
            tuple(others),
        )
        self.until, self.truncate, self.name, self.backwards = until, truncate, name, backwards
        self.results: list[Variable] = []
        self.is_split = False
        self._loop: Loop | None = None
        self._backward: dict[tuple[int, ...], _Backward] = {}

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in ("_loop", "_backward")}
        return {"_order": self.order(), **kept}  # each variable after its inputs, so that the pickle is not nested

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _loop=None, _backward={})
        del self.__dict__["_order"]

    def number_of(self, variable: Variable) -> int:
        """Return the number of a result; it becomes one if it was none."""
        if variable not in self.results:
            self.results.append(variable)
        return self.results.index(variable)

    def result(self, pack: Variable, variable: Variable) -> Variable:
        """Return the values of an inner variable in all steps, or the last of one that is carried, from the pack."""
        is_carried = any(variable is old for old, _ in self.carried)
        type_ = variable.type if is_carried else Type(variable.type.dtype, variable.ndim + 1)
        return ops.part(pack, self.number_of(variable), type_)

    def roots(self) -> list[Variable]:
        """Return the inner variables that a step must compute."""
        new = [state.new for state in self.states] + [new for _, new in self.carried]
        return [*new, *self.results, *([] if self.until is None else [self.until])]

    def order(self) -> list[Variable]:
        """Return all inner variables, each after its inputs."""
        return sort(self.roots())

    def split(self, inputs: Sequence[Any]) -> tuple[Any, Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]]:
        """Return the number of steps, sequences, initial values of states and of what is carried, and the others."""
        a = 1 + len(self.slices)
        b = a + len(self.states)
        c = b + len(self.carried)
        return inputs[0], inputs[1:a], inputs[a:b], inputs[b:c], inputs[c:]

    def compute(self, *arrays: Any) -> Any:
        if self._loop is None or self._loop.n_results != len(self.results):
            self._loop = Loop(self)
        return ops.packed(*self._loop(*self.split(arrays)))

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[:1] if self.until is None else inputs

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Any) -> list[Variable | None]:
        numbers = tuple(sorted(g))
        if numbers not in self._backward:
            self._backward[numbers] = _Backward(self, numbers)
        return self._backward[numbers](inputs, output, g)

    def text(self, inputs: Parts) -> tuple[str, int]:
        return ops.call(self.name or "scan", *(text for text, _ in inputs))


class _Backward:
    """The loop backwards through the steps of another: it turns gradients by results into gradients by inputs.

    Parameters
    ----------
    scan : Scan
    numbers : tuple of int
        The results by which there are gradients.
    """

    def __init__(self, scan: Scan, numbers: tuple[int, ...]) -> None:
        self._scan = scan
        # A state's gradient comes from later steps, with each tap from another; they are states of the loop backwards.
        seeds: dict[Variable, Variable] = {}
        self._incoming: dict[Variable, int] = {}
        for number in numbers:
            g = _like(scan.results[number], "g")
            self._incoming[g] = number
            _add(seeds, scan.results[number], g)
        later = _reached(scan, seeds)
        for state, _, _, g in later:
            _add(seeds, state.new, g)
        inner = [*scan.slices, *(x for _, _, x, _ in later), *scan.others]
        wanted = [variable for variable in inner if variable.type.dtype.kind == "f"]
        found = pullback(seeds, wanted)
        found |= {x: ops.zeros_like(x) for _, _, x, _ in later if x not in found}
        gradients, self._slices = _from_series(scan, found)
        self._later = [(scan.states.index(state), tap, x) for state, tap, x, _ in later]
        self._summed = [(i, other) for i, other in enumerate(scan.others) if other in gradients]
        sums = [_like(other, "sum") for _, other in self._summed]
        states = [State((tap,), (g,), gradients[x]) for _, tap, x, g in later]
        states += [
            State((-1,), (total,), total + gradients[other])
            for total, (_, other) in zip(sums, self._summed, strict=True)
        ]
        for each in (*gradients.values(), *(state.new for state in states)):
            unused.discard(each)
        slices = [*self._incoming, *self._slices]
        self._op = Scan(
            slices, states, (), scan.others, name=f"grad of {scan.name or 'scan'}", backwards=not scan.backwards
        )
        self._gradients = gradients

    def __call__(
        self, inputs: tuple[Variable, ...], output: Variable, g: Mapping[int, Variable]
    ) -> list[Variable | None]:
        scan, op = self._scan, self._op
        n_steps, sequences, initials, carried, others = scan.split(inputs)
        if scan.until is not None:
            n_steps = ops.shape(scan.result(output, scan.results[0]))[0]
        n_back = n_steps if scan.truncate == -1 else ops.minimum(n_steps, constant(scan.truncate, ops.INDEX))

        def last(series: Variable) -> Variable:
            # The rows of the steps that gradients go back through.
            is_all = scan.until is None and scan.truncate == -1
            return series if is_all else series[n_steps - n_back : n_steps]

        rows = {s: scan.result(output, v) for s, v in self._slices.items() if v not in scan.slices}
        rows |= {s: sequences[scan.slices.index(v)] for s, v in self._slices.items() if v in scan.slices}
        rows |= {s: g[number] for s, number in self._incoming.items()}
        zeros = [ops.zeros_like(initials[i][:-tap]) for i, tap, _ in self._later]
        zeros += [ops.zeros_like(others[i].dimshuffle("x", *range(others[i].ndim))) for i, _ in self._summed]
        pack = apply(op, PACKED, n_back, *(last(rows[s]) for s in op.slices), *zeros, *others)

        def series(variable: Variable) -> Variable:
            return op.result(pack, self._gradients[variable])

        by_sequence = [
            _spread(series(inner), outer, n_steps - n_back, n_steps, scan) if inner in self._gradients else None
            for inner, outer in zip(scan.slices, sequences, strict=True)
        ]
        by_initial: list[Variable | None] = [None] * len(initials)
        for i, tap, x in self._later:
            m = scan.states[i].n_initial
            first = series(x)[tap:][::-1] if scan.backwards else series(x)[:-tap]
            if m > 1:
                count = ops.shape(first)[0]
                first = _placed(first, initials[i], m + tap, m + tap + count)
            if scan.truncate != -1:
                first = ops.switch(ops.eq(n_back, n_steps), first, 0)
            by_initial[i] = first if by_initial[i] is None else by_initial[i] + first  # type: ignore[operator]
        end = -1 if scan.backwards else 0
        totals = {
            i: op.result(pack, state.new)[end]
            for (i, _), state in zip(self._summed, op.states[len(self._later) :], strict=True)
        }
        return [None, *by_sequence, *by_initial, *[None] * len(carried), *(totals.get(i) for i in range(len(others)))]


def _reached(scan: Scan, seeds: Iterable[Variable]) -> list[tuple[State, int, Variable, Variable]]:
    # States that results with gradients depend on, tap by tap, with an inner variable for the gradient from later
    # steps.
    found: list[tuple[State, int, Variable, Variable]] = []
    roots = set(seeds)
    while True:
        reached = set(sort(roots))
        states = [s for s in scan.states if s.new.type.dtype.kind == "f" and not reached.isdisjoint(s.inputs)]
        if roots.issuperset(state.new for state in states):
            break
        roots.update(state.new for state in states)
    for state in states:
        found += [
            (state, tap, x, _like(x, "g")) for tap, x in zip(state.taps, state.inputs, strict=True) if x in reached
        ]
    return found


def _from_series(
    scan: Scan, found: Mapping[Variable, Variable]
) -> tuple[dict[Variable, Variable], dict[Variable, Variable]]:
    # Gradients as expressions of what the steps have computed already, instead of computing it again; with it, by the
    # inner variable of its slice.
    simplify = Simplifier(differentiable=True)
    own = {simplify(variable): variable for variable in scan.order()}
    plain = [simplify(gradient) for gradient in found.values()]
    same = set(sort(scan.others)) | {v for v in own if isinstance(v, Constant)}
    leaves: dict[Variable, Variable] = {}
    slices: dict[Variable, Variable] = {}
    for variable in sort([*own, *plain]):
        kept = own.get(variable)
        if isinstance(variable.op, ops.Part) and variable.inputs[0] in own:
            kept = Variable(variable.type, variable.op, (own[variable.inputs[0]],))
        if variable.op is not None and same.issuperset(variable.inputs):
            same.add(variable)
        is_cheap = variable.op is not None and (variable.op.views or isinstance(variable.op, (ops.Shape, ops.Count)))
        if kept is not None and variable not in same and not is_cheap and variable.type != PACKED:
            leaves[variable] = _like(kept, kept.name)
            slices[leaves[variable]] = kept
    gradients = replaced(plain, leaves)
    used = set(sort(gradients))
    return dict(zip(found, gradients, strict=True)), {s: kept for s, kept in slices.items() if s in used}


def _like(variable: Variable, name: str | None = None) -> Variable:
    return Variable(variable.type, name=name)


def _add(gradients: dict[Variable, Variable], variable: Variable, g: Variable) -> None:
    gradients[variable] = gradients[variable] + g if variable in gradients else g


def _spread(g: Variable, sequence: Variable, begin: Variable, end: Variable, scan: Scan) -> Variable:
    # The gradient by a sequence from that by those of its rows that gradients go back through.
    return g if scan.until is None and scan.truncate == -1 else _placed(g, sequence, begin, end)


def _placed(g: Variable, like: Variable, begin: Any, end: Any) -> Variable:
    # Zeros in the shape of another variable, with g in some of the rows.
    rows = like[begin:end]
    assert rows.op is not None
    found = rows.op.gradient(rows.inputs, rows, g)[0]
    assert found is not None
    return found
