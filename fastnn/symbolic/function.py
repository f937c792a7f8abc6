"""Functions: callable expressions, with updates of shared variables."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_array, check_choice
from fastnn.symbolic import graph, ops
from fastnn.symbolic.arguments import In, Out
from fastnn.symbolic.ascent import ascent_of
from fastnn.symbolic.configuration import config
from fastnn.symbolic.feed import NotHere
from fastnn.symbolic.gof.fg import FunctionGraph
from fastnn.symbolic.gradient import computed_from, taken_anew
from fastnn.symbolic.graph import Shared, Type, Variable, as_variable, replaced, sort
from fastnn.symbolic.lowering import EngineGradient, EngineStep
from fastnn.symbolic.modes import Mode, NanGuardMode, get_mode
from fastnn.symbolic.printing import leaf_name, names_in_use, pprint
from fastnn.symbolic.program import Program
from fastnn.symbolic.recognition import NotRecognised, recognise
from fastnn.symbolic.simplify import Simplifier
from fastnn.symbolic.staleness import Watch

Updates = Mapping[Shared, Any] | Iterable[Sequence[Any]] | None
Givens = Mapping[Variable, Any] | Iterable[Sequence[Any]] | None

#: float64 holds Python's integers below this.
SMALL = 2**31


class Function:
    """The result of `function`: call it with the inputs' values, by position or by name.

    It can be pickled and copied: a pickle and a deep copy have their own shared variables, a shallow copy has the same.

    Attributes
    ----------
    inputs : list of Variable
    outputs : list of Variable
        As given; those of a dictionary in the order of its keys.  Then the next values of inputs that have an update.
    updates : dict of Shared to Variable
    givens : dict of Variable to Variable
    name : str or None
    """

    def __init__(
        self,
        arguments: list[In],
        outputs: list[Variable],
        updates: dict[Shared, Variable],
        givens: dict[Variable, Variable],
        pack: Callable[[list[NDArray[Any]]], Any],
        name: str | None,
        mode: Mode,
    ) -> None:
        self.inputs = inputs = [argument.variable for argument in arguments]
        self.outputs, self.updates, self.givens, self.name = outputs, updates, givens, name
        self._takes, self._pack, self._mode = arguments, pack, mode
        carried = [argument for argument in arguments if argument.update is not None]
        self._finish = partial(_carry, carried, pack) if carried else pack
        #: Of each input: its dtype and number of dimensions, and the types of numbers that are taken unchecked.
        self._quick = [
            (dtype, ndim, _numbers_for(dtype) if ndim == 0 and not each.strict else ())
            for each in arguments
            for dtype, ndim in [each.variable.type]
        ]
        names = names_in_use()
        met = sort([*outputs, *updates, *updates.values(), *givens, *givens.values()])
        self._names = {variable: names[variable] for variable in met if variable in names}
        self._watch = Watch(outputs, updates, givens)
        simplify = Simplifier(givens)
        self._program = Program(
            inputs, [simplify(variable) for variable in (*outputs, *updates.values())], updates=list(updates)
        )
        self._step: EngineStep | EngineGradient | None = None
        self._reason = "the mode is FAST_COMPILE or the like"
        if mode.recognises:
            try:
                self._step = self._taken_over(simplify)
            except NotRecognised as reason:
                self._reason = str(reason)
        # Calls that leave something behind take turns; others may run in several threads at once.
        takes_turns = bool(updates) or self._step is not None
        self._lock: AbstractContextManager[Any] = threading.RLock() if takes_turns else nullcontext()

    def _taken_over(self, simplify: Simplifier) -> EngineStep | EngineGradient:
        # What the engine takes over; NotRecognised, if nothing.
        plain = Simplifier(differentiable=True)
        network = recognise(self.outputs, self.updates, self.givens, plain)
        try:
            ascent = ascent_of(network, self.outputs, self.updates, plain)
        except NotRecognised as reason:
            return EngineGradient(network, str(reason), self.inputs, self.outputs, self.updates, simplify)
        outputs = [simplify(variable) for variable in self.outputs]
        updates = {variable: simplify(value) for variable, value in self.updates.items()}
        return EngineStep(network, ascent, self.inputs, outputs, updates, simplify)

    def __reduce__(self) -> Any:
        parts = self._takes, self.outputs, self.updates, self.givens, self._pack, self.name, self._mode
        return type(self), parts

    def copy(
        self,
        share_memory: bool = False,
        swap: Mapping[Shared, Shared] | None = None,
        delete_updates: bool = False,
        name: str | None = None,
        profile: Any = None,
    ) -> Function:
        """Return a function like this one, with the same shared variables.

        Parameters
        ----------
        share_memory, profile
            Ignored.
        swap : mapping of Shared to Shared, optional
            Shared variables and others, of the same types, to take in their place.
        delete_updates : bool, default False
            Whether the copy updates nothing.
        name : str, optional
        """
        others = dict(swap or {})
        for old, other in others.items():
            if not isinstance(old, Shared) or not isinstance(other, Shared) or old.type != other.type:
                raise TypeError(f"swap must replace shared variables by others of their types: {old!r} by {other!r}")
        updates = {} if delete_updates else self.updates
        replacements: dict[Variable, Variable] = dict(others.items())
        new = replaced([*self.outputs, *updates.values(), *self.givens.values()], replacements)
        n, end = len(self.outputs), len(self.outputs) + len(updates)
        targets = [others.get(variable, variable) for variable in updates]
        return type(self)(
            [copy.copy(argument) for argument in self._takes],
            new[:n],
            dict(zip(targets, new[n:end], strict=True)),
            dict(zip(self.givens, new[end:], strict=True)),
            self._pack,
            name or self.name,
            self._mode,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Update the shared variables and return the outputs' values.

        Outputs and updates are computed from the old values; an error leaves all shared variables as they were.
        Infinite numbers and NaN are not errors.

        Returns
        -------
        array, or a list or a dictionary of them
            In the form of the outputs given to `function`; [] without any.
        """
        if kwargs or len(args) != len(self._takes):
            args = self._ordered(args, kwargs)
        arguments = [
            value
            if type(value) is np.ndarray and value.dtype is dtype and value.ndim == ndim
            else np.array(value, dtype)
            if type(value) in numbers and (type(value) is not int or -SMALL < value < SMALL)
            else self._checked(i, value)
            for i, (value, (dtype, ndim, numbers)) in enumerate(zip(args, self._quick, strict=True))
        ]
        with self._lock:
            outputs, updated = self._computed(arguments)
            for variable, value in updated:
                variable.put(value)
        self._watch.called()
        return self._finish(outputs)

    def _computed(
        self, arguments: list[NDArray[Any]]
    ) -> tuple[list[NDArray[Any]], Iterable[tuple[Shared, NDArray[Any]]]]:
        # The engine has updated the parameters of its network when it returns.
        if self._step is not None:
            try:
                outputs, values = self._step(arguments)
                return outputs, zip(self._step.updated, values, strict=True)
            except NotHere:
                pass  # the program computes the same, or raises an error
        values = self._program(arguments)
        if not self.updates:
            return values, ()
        n = len(self.outputs)
        return values[:n], zip(self.updates, values[n:], strict=True)

    def _ordered(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        # All values, by position.
        if len(args) > len(self.inputs):
            raise TypeError(f"{self!r} takes {len(self.inputs)} inputs, not {len(args)}")
        given: dict[int, Any] = dict(enumerate(args))
        for name, value in kwargs.items():
            places = [i for i, argument in enumerate(self._takes) if argument.name == name]
            if not places:
                raise TypeError(f"{self!r} has no input with the name {name!r}")
            if places[0] in given:
                raise TypeError(f"the input {name!r} is given twice")
            given[places[0]] = value
        for i, argument in enumerate(self._takes):
            if given.setdefault(i, argument.value) is None:
                what = f"input {leaf_name(argument.variable, self._names)}"
                raise TypeError(f"{what} of {self!r}, a {argument.variable.type}, is missing")
        return tuple(given[i] for i in range(len(self._takes)))

    def _checked(self, i: int, value: Any) -> NDArray[Any]:
        argument = self._takes[i]
        what = f"input {leaf_name(argument.variable, self._names)}"
        if isinstance(value, Variable):
            raise TypeError(f"{what} must be a value, not the expression {pprint(value)}: compute it first")
        found: NDArray[Any] = argument.checked(value, what)
        return found

    def _argument(self, key: Variable | str) -> In:
        for argument in self._takes:
            if key is argument.variable or (isinstance(key, str) and key == argument.name):
                return argument
        raise KeyError(f"{self!r} has no input {key!r}")

    def __getitem__(self, key: Variable | str) -> Any:
        return self._argument(key).value

    def __setitem__(self, key: Variable | str, value: Any) -> None:
        argument = self._argument(key)
        argument.value = argument.checked(value, f"the value of input {key!r}")

    def __repr__(self) -> str:
        inputs = ", ".join(leaf_name(variable, self._names) for variable in self.inputs)
        return f"<function {self.name or ''}({inputs})>"

    @property
    def recognised(self) -> bool:
        """Whether the engine trains a network in a call, or computes its gradient."""
        return self._step is not None

    @property
    def maker(self) -> SimpleNamespace:
        """What programs ask Theano's functions for: ``maker.fgraph.toposort()`` lists the operations."""
        simplify = Simplifier(self.givens)
        outputs = [simplify(variable) for variable in (*self.outputs, *self.updates.values())]
        return SimpleNamespace(fgraph=FunctionGraph(self.inputs, outputs))

    def explain(self) -> None:
        """Print what a call does, what outputs and updates depend on, and why the engine runs it or not."""
        print(self.explanation())

    def explanation(self) -> str:
        """Return what `explain` prints."""
        # Expressions have their present names: one whose name was reused is written out.
        names = names_in_use()
        names |= {variable: name for variable, name in self._names.items() if variable.op is None}
        lines = []
        for output in self.outputs:
            name = f"{names[output]} = " if output in names and output.op is not None else ""
            lines.append(f"returns {name}{pprint(output, names, short=True)}")
            lines.append(f"    depends on {self._dependencies(output, names)}")
        for variable, value in self.updates.items():
            lines.append(f"updates {pprint(variable, names)} = {pprint(value, names, short=True)}")
            lines.append(f"    depends on {self._dependencies(value, names)}")
        for variable_, value in self.givens.items():
            lines.append(f"given {pprint(variable_, names)} = {pprint(value, names, short=True)}")
        if self._step is None:
            lines.append(f"runs {len(self._program.operations)} operations one by one, on NumPy: {self._reason}")
        else:
            lines += self._step.explanation(names)
        unused = sorted((v for v in list(graph.unused) if v in names), key=lambda v: v.number)
        lines += [
            f"belongs to no function so far: {names[v]} = {pprint(v, names, short=True)}"
            for v in unused
            if v.op is not None
        ]
        return "\n".join(lines)

    def _dependencies(self, value: Variable, names: dict[Variable, str]) -> str:
        met = sort([value], self.givens)
        leaves = [v for v in met if v not in self.givens] + sort([self.givens[v] for v in met if v in self.givens])
        found = [leaf_name(v, names) for v in leaves if v.op is None and not isinstance(v, graph.Constant)]
        return ", ".join(dict.fromkeys(found)) or "nothing"


class GuardedFunction(Function):
    """A function in the mode `NanGuardMode`."""

    _mode: NanGuardMode

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        simplify = Simplifier(self.givens)
        order = sort(simplify(variable) for variable in (*self.outputs, *self.updates.values()))
        self._guarded = [variable for variable in order if variable.type.dtype.kind == "f"]
        self._all = Program(self.inputs, self._guarded)

    def _computed(
        self, arguments: list[NDArray[Any]]
    ) -> tuple[list[NDArray[Any]], Iterable[tuple[Shared, NDArray[Any]]]]:
        for variable, value in zip(self._guarded, self._all(arguments), strict=True):
            problem = self._mode.problem(value)
            if problem is not None:
                raise AssertionError(f"NanGuardMode found {problem} in {pprint(variable, self._names)}")
        return super()._computed(arguments)


def _carry(carried: list[In], pack: Callable[[list[NDArray[Any]]], Any], values: list[NDArray[Any]]) -> Any:
    # The last values are those of inputs for the next call.
    n = len(values) - len(carried)
    for argument, value in zip(carried, values[n:], strict=True):
        argument.value = value
    return pack(values[:n])


def function(
    inputs: Sequence[Variable | In] = (),
    outputs: Any = None,
    mode: Mode | str | None = None,
    updates: Updates = None,
    givens: Givens = None,
    no_default_updates: bool | Sequence[Shared] = False,
    accept_inplace: bool = False,
    name: str | None = None,
    rebuild_strict: bool = True,
    allow_input_downcast: bool | None = None,
    profile: Any = None,
    on_unused_input: str | None = None,
) -> Function:
    """Make a function of expressions.

    Parameters
    ----------
    inputs : sequence of Variable or In
        A call gives their values.  An expression may be one: its own inputs do not matter then.
    outputs : Variable or Out, list or tuple of them, dict from str to them, or None
        A call returns one array for a variable, a list of arrays, or a dictionary of them.
    mode : Mode, str or None
        "FAST_RUN" looks for a network that the engine can train; "FAST_COMPILE" and "DebugMode" run everything
        operation by operation, with the same results to rounding; "NanGuardMode" also raises an error where NaN or an
        infinite number comes up; None takes ``config.mode``.
    updates : dict, or sequence of pairs (shared variable, new value), optional
        New values of shared variables after a call.
    givens : dict, or sequence of pairs (variable, value), optional
        Replacements of variables in outputs, in updates, and in the values of later pairs.
    no_default_updates : bool or sequence of Shared, default False
        Shared variables whose default updates, such as those of random streams, a call does not make; True: of all.
    name : str, optional
    allow_input_downcast : bool or None, default None
        Whether inputs may be converted to narrower dtypes: True any, False none, None Python's floats to
        ``config.floatX``, and numbers and lists whose values stay the same.
    on_unused_input : {"raise", "warn", "ignore"}, optional
        What to do with an input that nothing depends on, by default ``config.on_unused_input``.
    accept_inplace, rebuild_strict, profile
        Ignored.

    Returns
    -------
    Function

    Raises
    ------
    TypeError, ValueError
        If something is not as described; the message names it.
    """
    unused = config.on_unused_input if on_unused_input is None else on_unused_input
    check_choice(unused, "on_unused_input", ["raise", "warn", "ignore"])
    check_choice(allow_input_downcast, "allow_input_downcast", [None, False, True])
    how = get_mode(mode)
    arguments = _check_inputs(inputs)
    given_inputs = [argument.variable for argument in arguments]
    wanted, pack = _check_outputs(outputs)
    for argument in arguments:
        if argument.update is not None:
            of = argument.variable
            wanted.append(_converted(argument.update, of.type, f"the update of input {pprint(of)}"))
    new_values = _check_updates(updates)
    replacements = _check_givens(givens, given_inputs)
    known = {*given_inputs, *replacements}
    needed = sort([*wanted, *new_values.values(), *replacements.values()], known)
    new_values |= _default_updates(needed, known, no_default_updates, new_values)
    stops = [variable for variable in (*given_inputs, *replacements) if variable.op is not None]
    if stops:
        given_inputs, wanted, new_values, replacements = _with_leaves(
            given_inputs, wanted, new_values, replacements, stops
        )
    _check_leaves(given_inputs, wanted, new_values, replacements, unused)
    bound = [each.bound(v, allow_input_downcast) for each, v in zip(arguments, given_inputs, strict=True)]
    kind = GuardedFunction if isinstance(how, NanGuardMode) else Function
    return kind(bound, wanted, new_values, replacements, pack, name, how)


def _check_inputs(inputs: Any) -> list[In]:
    if isinstance(inputs, Variable) or not isinstance(inputs, Iterable):
        raise TypeError(f"inputs must be a list of variables, not {inputs!r}")
    found = [each if isinstance(each, In) else In(each) for each in inputs]
    variables = [argument.variable for argument in found]
    for variable in variables:
        if variables.count(variable) > 1:
            raise ValueError(f"the input {pprint(variable)} is listed twice")
    return found


def _with_leaves(
    inputs: list[Variable],
    outputs: list[Variable],
    updates: dict[Shared, Variable],
    givens: dict[Variable, Variable],
    stops: list[Variable],
) -> tuple[list[Variable], list[Variable], dict[Shared, Variable], dict[Variable, Variable]]:
    # The same, with leaves for expressions that are inputs; new gradients do not bypass these.
    names = names_in_use()
    leaves: dict[Variable, Variable] = {}
    for variable in inputs:
        if variable.op is not None:
            graph.unused.discard(variable)
            leaves[variable] = Variable(variable.type, name=variable.name or names.get(variable))
    found = [*outputs, *updates.values(), *givens.values()]
    anew = {gradient: its for gradient, its in taken_anew(found, stops).items() if gradient not in stops}
    found = replaced(replaced(found, anew), leaves)
    n, end = len(outputs), len(outputs) + len(updates)
    return (
        [leaves.get(variable, variable) for variable in inputs],
        found[:n],
        dict(zip(updates, found[n:end], strict=True)),
        dict(zip(givens, found[end:], strict=True)),
    )


def _check_outputs(outputs: Any) -> tuple[list[Variable], Callable[[list[NDArray[Any]]], Any]]:
    # The expressions, and a function that makes a call's result from the list of their values.
    if isinstance(outputs, (Variable, Out)):
        return [_output(outputs)], itemgetter(0)
    pack: Callable[[list[NDArray[Any]]], Any] = list
    if isinstance(outputs, Mapping):
        if not all(isinstance(key, str) for key in outputs):
            raise TypeError(f"the keys of outputs must be strings, not {list(outputs)}")
        keys = sorted(outputs)
        outputs, pack = [outputs[key] for key in keys], partial(_named, keys)
    if isinstance(outputs, (str, np.ndarray)) or not isinstance(outputs, (Iterable, type(None))):
        raise TypeError(
            f"outputs must be a variable, a list or a dictionary of variables, or None, not {outputs!r} "
            f"({type(outputs).__name__}): T.constant makes a variable of an array or a number"
        )
    return [_output(each) for each in outputs or ()], pack


def _output(each: Any) -> Variable:
    value = each.variable if isinstance(each, Out) else each
    if not isinstance(value, (Variable, np.ndarray, np.generic, int, float)):
        raise TypeError(f"outputs must hold variables, not {value!r} ({type(value).__name__}), in one list")
    return as_variable(value)


def _named(keys: list[str], values: list[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return dict(zip(keys, values, strict=True))


def _pairs(pairs: Any, what: str) -> list[tuple[Any, Any]]:
    found = list(pairs.items() if isinstance(pairs, Mapping) else pairs or ())
    for pair in found:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"{what} must be a dictionary or pairs (variable, value), not {pair!r}")
    return [(variable, value) for variable, value in found]


def _converted(value: Any, wanted: Type, what: str) -> Variable:
    # Python's numbers and lists get the dtype if their values fit; variables and arrays if it is wider.
    if not isinstance(value, Variable):
        return graph.constant(check_array(value, wanted.dtype, wanted.ndim, what, float_downcast=True))
    if value.ndim != wanted.ndim:
        raise TypeError(f"{what} must be a {wanted}, but {pprint(value)} is a {value.type}")
    if not np.can_cast(value.type.dtype, wanted.dtype, "safe"):
        raise TypeError(
            f"{what} must be a {wanted}, but {pprint(value)} is a {value.type}: "
            f"convert it with T.cast(..., {wanted.dtype.name!r}), or set config.floatX before"
        )
    return ops.cast(value, wanted.dtype)


def _check_givens(givens: Givens, inputs: list[Variable]) -> dict[Variable, Variable]:
    found: dict[Variable, Variable] = {}
    for variable, value in _pairs(givens, "givens"):
        if not isinstance(variable, Variable) or isinstance(variable, graph.Constant):
            raise TypeError(f"givens must replace variables, not {variable!r}")
        if variable in inputs:
            raise ValueError(f"{pprint(variable)} is both an input and given")
        if variable in found:
            raise ValueError(f"{pprint(variable)} is given twice")
        user = next((each for each, its in found.items() if variable in sort([its])), None)
        if user is not None:
            raise ValueError(
                f"{pprint(variable)} is given after {pprint(user)}, whose value depends on it: give it before"
            )
        new = _converted(value, variable.type, f"the value given for {pprint(variable)}")
        (found[variable],) = replaced([new], found)
    return found


def _check_updates(updates: Updates) -> dict[Shared, Variable]:
    found: dict[Shared, Variable] = {}
    for variable, value in _pairs(updates, "updates"):
        if not isinstance(variable, Shared):
            raise TypeError(f"updates must be of shared variables, not {variable!r}")
        if variable in found:
            raise ValueError(f"{pprint(variable)} is updated twice")
        found[variable] = _converted(value, variable.type, f"the update of {pprint(variable)}")
    return found


def _numbers_for(dtype: np.dtype[Any]) -> tuple[type, ...]:
    # Types of numbers that a dtype holds, small ones of int.
    python = {"float64": (float, int), "int64": (int,)}
    return dtype.type, *python.get(dtype.name, ())


def _default_updates(
    needed: Iterable[Variable],
    known: Collection[Variable],
    without: bool | Sequence[Shared],
    updates: Collection[Shared],
) -> dict[Shared, Variable]:
    # Updates that the shared variables among those needed bring themselves, also those behind such updates.
    found: dict[Shared, Variable] = {}
    if without is True:
        return found
    left_out = {*known, *updates, *(without or ())}
    while needed:
        shared = (v for v in needed if isinstance(v, Shared) and v not in left_out and v not in found)
        new = {v: v.default_update for v in shared if v.default_update is not None}
        found |= new
        needed = sort(new.values(), known)
    return found


def _check_leaves(
    inputs: list[Variable],
    outputs: list[Variable],
    updates: dict[Shared, Variable],
    givens: dict[Variable, Variable],
    on_unused_input: str,
) -> None:
    met = set(sort([*outputs, *updates.values()], givens, computed_from))
    behind = set(sort([value for variable, value in givens.items() if variable in met], (), computed_from))
    used = met | behind
    for variable in used:
        is_leaf = variable.op is None and not isinstance(variable, (Shared, graph.Constant))
        if is_leaf and variable not in inputs and (variable in behind or variable not in givens):
            raise ValueError(
                f"the value of {pprint(variable)}, a {variable.type}, is not known: it must be an input, or be given"
            )
    for variable in inputs:
        if variable not in used:
            message = f"the input {pprint(variable)} is not used: neither outputs nor updates depend on it"
            if on_unused_input == "raise":
                raise ValueError(f"{message}; on_unused_input='ignore' allows it")
            if on_unused_input == "warn":
                warnings.warn(message, UserWarning, stacklevel=3)


def _evaluated(variable: Variable, values: Mapping[Variable, Any]) -> Any:
    return function(list(values), variable, on_unused_input="ignore")(*values.values())


graph.operations["eval"] = _evaluated
