"""The functions that make loops: `scan`, and `map_`, `reduce_`, `foldl`, `foldr` in its terms."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastnn.symbolic import ops
from fastnn.symbolic.gradient import Gradient, computed_from
from fastnn.symbolic.graph import (
    PACKED,
    Constant,
    Shared,
    Type,
    Variable,
    apply,
    as_variable,
    operations,
    sort,
    unused,
)
from fastnn.symbolic.printing import pprint
from fastnn.symbolic.scanning import Scan, State
from fastnn.symbolic.simplify import Simplifier
from fastnn.symbolic.updates import OrderedUpdates

Updates = dict[Shared, Variable]


class until:
    """A condition that a step returns: the loop stops after the step where it holds.

    Parameters
    ----------
    condition : scalar Variable
    """

    def __init__(self, condition: Any) -> None:
        self.condition = as_variable(condition)
        if self.condition.ndim != 0:
            raise TypeError(f"until takes a scalar, but {pprint(self.condition)} is a {self.condition.type}")
        unused.discard(self.condition)


class _Sequence(NamedTuple):
    """A sequence as `scan` was given it."""

    rows: Variable
    taps: list[int]

    @property
    def first(self) -> int:
        """The index of the row that has tap 0 in the first step."""
        return -min(0, *self.taps)

    def slices(self, go_backwards: bool) -> list[tuple[Variable, Variable]]:
        """Return for each tap an inner variable, and the rows that it goes through."""
        rows, last = self.rows, max(0, *self.taps)
        name = rows.name or "x"
        found = []
        for tap in self.taps:
            part = rows[self.first + tap : (tap - last) or None] if self.first + tap or tap - last else rows
            slice_ = Variable(Type(rows.type.dtype, rows.ndim - 1), name=_tap_name(name, tap))
            found.append((slice_, part[::-1] if go_backwards else part))
        return found


class _Output(NamedTuple):
    """A step's output as `scan` was told of it; without taps it is no state."""

    initial: Variable | None
    taps: list[int]

    @property
    def rows(self) -> Variable:
        """All values before the first step in one array."""
        assert self.initial is not None
        if self.taps == [-1]:
            return self.initial.dimshuffle("x", *range(self.initial.ndim))
        return self.initial[: -min(self.taps)]

    def inner(self) -> list[Variable]:
        """Return an inner variable for each tap."""
        if self.initial is None:
            return []
        ndim = self.initial.ndim - (self.taps != [-1])
        name = self.initial.name or "state"
        return [Variable(Type(self.initial.type.dtype, ndim), name=_tap_name(name, tap)) for tap in self.taps]

    def before(self) -> list[Variable]:
        """Return the values that the first step sees, by taps."""
        if self.initial is None:
            return []
        return [self.initial] if self.taps == [-1] else [self.initial[tap - min(self.taps)] for tap in self.taps]


def _tap_name(name: str, tap: int) -> str:
    return f"{name}[t{tap:+d}]" if tap else f"{name}[t]"


def scan(
    fn: Callable[..., Any],
    sequences: Any = None,
    outputs_info: Any = None,
    non_sequences: Any = None,
    n_steps: Any = None,
    truncate_gradient: int = -1,
    go_backwards: bool = False,
    mode: Any = None,
    name: str | None = None,
    profile: Any = False,
    allow_gc: Any = None,
    strict: bool = False,
    return_list: bool = False,
) -> tuple[Any, OrderedUpdates]:
    """Apply a step again and again: to the rows of sequences, and to what earlier steps returned.

    Parameters
    ----------
    fn : callable
        The step, which makes expressions.  Its arguments are one row of each sequence (one for each of its taps), the
        earlier values of each output (one for each of its taps), and the non_sequences.  It returns its outputs, one or
        a list; or updates of shared variables, a dictionary or pairs; or ``until(condition)`` beside them; or a tuple
        of these in this order.
    sequences : Variable, dict, or list of them, optional
        A dictionary has the sequence as "input", and as "taps" a list of offsets, [0] by default.  The
        shortest sequence decides how many steps there are, unless n_steps does.
    outputs_info : Variable, dict, None, or list of them, optional
        Of each output its value before the first step; None if the step does not take earlier ones.  A dictionary has
        it as "initial", and as "taps" a list of negative offsets, [-1] by default; if there are others, "initial" has
        a row for each value before the first step, the earliest first.
    non_sequences : Variable or list of them, optional
        What else the step takes.  It may also use expressions and shared variables that are not listed here.
    n_steps : int or integer scalar, optional
    truncate_gradient : int, default -1
        The number of steps, the last ones, that gradients go back through; -1: all.
    go_backwards : bool, default False
        Whether to take the sequences from their ends.
    mode, profile, allow_gc
        Ignored.
    name : str, optional
        For texts.
    strict : bool, default False
        Whether to refuse a step that uses shared variables not listed in non_sequences.
    return_list : bool, default False
        Whether a single output is returned in a list, too.

    Returns
    -------
    outputs : Variable, or a list of them, or None
        The outputs of all steps; in each array, the first axis counts these.
    updates : OrderedUpdates
        Of the shared variables that the step updates, or that bring updates themselves, as random streams do: the
        values after the last step.  They belong among the updates of the function.

    Raises
    ------
    TypeError, ValueError
        If something is not as described, or an output has not the type of its initial value.
    """
    given, infos = [_checked_sequence(each) for each in _listed(sequences)], _checked_outputs(outputs_info)
    unchanging = [as_variable(each) for each in _listed(non_sequences)]
    for variable in (
        *unchanging,
        *(each.rows for each in given),
        *(info.initial for info in infos if info.initial is not None),
    ):
        unused.discard(variable)
    if n_steps is None and not given:
        raise ValueError("scan needs sequences, or n_steps, to know how many steps to make")
    count = None if n_steps is None else ops.integer_scalar(_whole(n_steps), "n_steps")
    if isinstance(count, Constant) and abs(int(count.value)) == 1:
        return _one_step(fn, given, infos, unchanging, return_list)
    slices = [pair for each in given for pair in each.slices(go_backwards)]
    inner = [info.inner() for info in infos]
    arguments = [slice_ for slice_, _ in slices] + [x for inputs in inner for x in inputs]
    step = _Step(fn, arguments, unchanging)
    if not infos:
        infos, inner = [_Output(None, [])] * len(step.outputs), [[]] * len(step.outputs)
    if len(infos) != len(step.outputs):
        raise ValueError(
            f"outputs_info tells of {len(infos)} outputs, but the step has {len(step.outputs)}; "
            "it must have None for each that the next step does not take"
        )
    if strict and not set(step.outer_shared).issubset(unchanging):
        raise ValueError("with strict=True the step may use only shared variables that are listed in non_sequences")
    states = [
        State(tuple(info.taps), tuple(inputs), _checked_state(new, inputs[0], info))
        for info, inputs, new in zip(infos, inner, step.outputs, strict=True)
        if info.initial is not None
    ]
    initials = [info.rows for info in infos if info.initial is not None]
    numbers = [(shared, old, new) for shared, old, new in step.updates if shared.type != PACKED]
    states += [State((-1,), (old,), _checked_update(new, shared)) for shared, old, new in numbers]
    initials += [shared.dimshuffle("x", *range(shared.ndim)) for shared, _, _ in numbers]
    carried = [(shared, old, new) for shared, old, new in step.updates if shared.type == PACKED]
    op = Scan(
        [slice_ for slice_, _ in slices],
        states,
        [(old, new) for _, old, new in carried],
        step.others,
        step.condition,
        truncate_gradient,
        name,
    )
    if count is None:
        count, *others = [ops.shape(rows)[0] for _, rows in slices]
        for length in others:
            count = ops.minimum(count, length)
    is_whole = n_steps is None and len(slices) == 1
    sequences = [rows if is_whole else rows[:count] for _, rows in slices]
    pack = apply(op, PACKED, count, *sequences, *initials, *(shared for shared, _, _ in carried), *step.outer)
    found = [op.result(pack, output) for output in step.outputs]
    updates = OrderedUpdates([(shared, op.result(pack, new)[-1]) for shared, _, new in numbers])
    updates.update([(shared, op.result(pack, old)) for shared, old, _ in carried])
    for variable in (*found, *updates.values()):
        unused.discard(variable)
    return _presented(found, return_list), updates


def _presented(outputs: list[Variable], return_list: bool) -> Any:
    return outputs[0] if len(outputs) == 1 and not return_list else outputs or None


def _one_step(
    fn: Callable[..., Any],
    given: list[_Sequence],
    infos: list[_Output],
    unchanging: list[Variable],
    return_list: bool,
) -> tuple[Any, OrderedUpdates]:
    # Without a loop; as in Theano, also from the first rows if it goes backwards, and only with the step's own updates.
    slices = [each.rows[each.first + tap] for each in given for tap in each.taps]
    outputs, updates, _ = _parsed(fn(*slices, *(x for info in infos for x in info.before()), *unchanging))
    return _presented([each.dimshuffle("x", *range(each.ndim)) for each in outputs], return_list), OrderedUpdates(
        updates
    )


class _Step:
    """What a step computes, in inner variables.

    Parameters
    ----------
    fn : callable
    arguments : list of Variable
        Inner variables for its first arguments.
    unchanging : list of Variable
        Its other arguments.

    Attributes
    ----------
    outputs : list of Variable
    condition : Variable or None
    updates : list of (Shared, Variable, Variable)
        Shared variables, and inner ones of their old and new values.
    others, outer : list of Variable
        Inner variables of what the step takes from outside, and the outer expressions.
    outer_shared : list of Shared
        The shared variables among what it uses.
    """

    def __init__(self, fn: Callable[..., Any], arguments: list[Variable], unchanging: list[Variable]) -> None:
        outputs, updates, condition = _parsed(fn(*arguments, *unchanging))
        wanted = [*outputs, *([] if condition is None else [condition])]
        listed = {variable for variable in unchanging if not isinstance(variable, Shared)}
        updates = _with_default_updates(wanted, updates, listed)
        old: dict[Variable, Variable] = {shared: Variable(shared.type, name=shared.name) for shared in updates}
        order = sort([*wanted, *updates.values()], listed, computed_from)
        self.outer_shared = [v for v in order if isinstance(v, Shared) and v not in updates]
        # Everything that depends on the step's arguments is computed in it.
        done: dict[Variable, Variable] = {variable: variable for variable in arguments}
        done.update(old)
        inside, outer = set(done), dict[Variable, Variable]()
        simplify = Simplifier(differentiable=True)

        def leaf(variable: Variable) -> Variable:
            if isinstance(variable, Constant):
                return variable
            return outer.setdefault(variable, Variable(variable.type, name=variable.name))

        for variable in order:
            sources = () if variable in listed else computed_from(variable)
            if variable not in inside and not inside.isdisjoint(sources):
                inside.add(variable)
                inputs = tuple(done[source] if source in inside else leaf(source) for source in sources)
                is_gradient = isinstance(variable.op, Gradient)
                done[variable] = (
                    inputs[0] if is_gradient else Variable(variable.type, variable.op, inputs, variable.name)
                )
        found = [simplify(done[v] if v in inside else leaf(v)) for v in (*wanted, *updates.values())]
        for variable in (*wanted, *updates.values(), *unchanging, *outer, *updates):
            unused.discard(variable)
        n = len(outputs)
        self.outputs, self.condition = found[:n], None if condition is None else found[n]
        new = found[len(wanted) :]
        self.updates = [(shared, old[shared], value) for shared, value in zip(updates, new, strict=True)]
        self.outer, self.others = list(outer), list(outer.values())


def _with_default_updates(wanted: list[Variable], updates: Updates, listed: set[Variable]) -> Updates:
    # As in Theano, what a random stream outside draws is drawn anew in each step, unless it is listed.
    found = dict(updates)
    pending = [*wanted, *updates.values()]
    while pending:
        met = [v for v in sort(pending, listed, computed_from) if isinstance(v, Shared) and v not in found]
        new = {v: v.default_update for v in met if v.default_update is not None}
        found |= new
        pending = list(new.values())
    return found


def _parsed(returned: Any) -> tuple[list[Variable], Updates, Variable | None]:
    # The outputs, updates and condition that a step returned.
    parts = [returned]
    if isinstance(returned, (list, tuple)) and not _are_outputs(returned) and not _are_updates(returned):
        parts = list(returned)
    outputs, updates, condition = [], dict[Shared, Variable](), None
    kinds = []
    for part in parts:
        if isinstance(part, until):
            condition = part.condition
            kinds.append(2)
        elif _are_outputs(part):
            outputs = [part] if isinstance(part, Variable) else list(part)
            kinds.append(0)
        elif _are_updates(part):
            pairs = part.items() if isinstance(part, Mapping) else part
            updates = {shared: as_variable(value) for shared, value in pairs}
            kinds.append(1)
        else:
            raise ValueError(
                f"a step must return variables, updates, until(...), or a tuple of these, not {part!r}: "
                "T.constant makes a variable of a number"
            )
    if kinds != sorted(set(kinds)):
        raise ValueError("a step must return first its outputs, then its updates, then until(...)")
    if not all(isinstance(variable, Shared) for variable in updates):
        raise TypeError("a step may update only shared variables")
    return outputs, updates, condition


def _are_outputs(part: Any) -> bool:
    return isinstance(part, Variable) or (
        isinstance(part, (list, tuple)) and bool(part) and all(isinstance(each, Variable) for each in part)
    )


def _are_updates(part: Any) -> bool:
    is_list = isinstance(part, (list, tuple))
    return isinstance(part, Mapping) or (
        is_list and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in part)
    )


def _listed(values: Any) -> list[Any]:
    return [] if values is None else list(values) if isinstance(values, (list, tuple)) else [values]


def _whole(n_steps: Any) -> Any:
    if isinstance(n_steps, float) and not n_steps.is_integer():
        raise ValueError(f"n_steps must be a whole number, not {n_steps}")
    return int(n_steps) if isinstance(n_steps, float) else n_steps


def _check_keys(given: Mapping[str, Any], value: str) -> None:
    unknown = set(given) - {value, "taps"}
    if unknown or value not in given:
        raise ValueError(f"such a dictionary has {value!r}, and perhaps 'taps', not {sorted(given)}")


def _checked_sequence(value: Any) -> _Sequence:
    taps = None
    if isinstance(value, Mapping):
        _check_keys(value, "input")
        value, taps = value["input"], value.get("taps")
    rows = as_variable(value)
    if rows.ndim == 0:
        raise TypeError(f"a sequence has at least one dimension, but {pprint(rows)} is a {rows.type}")
    return _Sequence(rows, [0] if taps is None else [operator.index(tap) for tap in _listed(taps)])


def _checked_outputs(infos: Any) -> list[_Output]:
    found = []
    for info in _listed(infos):
        initial, taps = info, None
        if isinstance(info, Mapping):
            _check_keys({"initial": None, **info}, "initial")
            initial, taps = info.get("initial"), info.get("taps")
        if initial is None:
            if taps is not None:
                raise ValueError(f"an output with taps needs an initial value: {info!r}")
            found.append(_Output(None, []))
            continue
        taps = [-1] if taps is None else [operator.index(tap) for tap in _listed(taps)]
        if len(set(taps)) < len(taps) or not taps or max(taps) >= 0:
            raise ValueError(f"the taps of an output must be negative, and each another, not {taps}")
        variable = as_variable(initial)
        if taps != [-1] and variable.ndim == 0:
            raise TypeError(f"with taps {taps}, the initial value must hold a row for each, not a {variable.type}")
        found.append(_Output(variable, taps))
    return found


def _checked_state(new: Variable, old: Variable, info: _Output) -> Variable:
    if new.type != old.type:
        raise TypeError(
            f"the output whose initial value is {pprint(info.initial)} must be a {old.type} as that is, "  # type: ignore[arg-type]
            f"but it is a {new.type}: convert one of them with T.cast"
        )
    return new


def _checked_update(new: Variable, shared: Shared) -> Variable:
    if new.ndim != shared.ndim or not np.can_cast(new.type.dtype, shared.type.dtype, "safe"):
        raise TypeError(f"the update of {pprint(shared)} in a step must be a {shared.type}, not a {new.type}")
    return ops.cast(new, shared.type.dtype)


def map_(
    fn: Callable[..., Any],
    sequences: Any,
    non_sequences: Any = None,
    truncate_gradient: int = -1,
    go_backwards: bool = False,
    mode: Any = None,
    name: str | None = None,
) -> tuple[Any, OrderedUpdates]:
    """Apply a step to the rows of sequences; see `scan`."""
    return scan(fn, sequences, None, non_sequences, None, truncate_gradient, go_backwards, mode, name)


def reduce_(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    go_backwards: bool = False,
    mode: Any = None,
    name: str | None = None,
) -> tuple[Any, OrderedUpdates]:
    """Apply a step to rows of sequences and its earlier outputs, and return the last of these; see `scan`."""
    outputs, updates = scan(fn, sequences, outputs_info, non_sequences, None, -1, go_backwards, mode, name)
    return [each[-1] for each in outputs] if isinstance(outputs, list) else outputs[-1], updates


def foldl(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    mode: Any = None,
    name: str | None = None,
) -> tuple[Any, OrderedUpdates]:
    """Reduce sequences from their beginnings; see `reduce_`."""
    return reduce_(fn, sequences, outputs_info, non_sequences, False, mode, name)


def foldr(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    mode: Any = None,
    name: str | None = None,
) -> tuple[Any, OrderedUpdates]:
    """Reduce sequences from their ends; see `reduce_`."""
    return reduce_(fn, sequences, outputs_info, non_sequences, True, mode, name)


operations["scan"] = scan  # type: ignore[assignment]  # `gradient.jacobian` calls it, and unpacks the pair
