"""Warnings of graphs that the program no longer means.

If a program gives a variable's name to another expression, everything made of the old one stays as it is.  The signs
of this that are recognised:

- A function trains parameters, and an output depends on parameters, but on none of these.
- A function that updates nothing is called.  Since it was made, other parameters than its own have been trained, and a
  newer expression of these, of the same kind as one of its outputs, belongs to nothing: the function should probably
  return that one.
- A function that trains parameters is called for the first time.  Between these and the function, the program made an
  input or a shared variable that belongs to no expression and no function, and never asked for its value.

Parameters are shared variables by which a gradient was taken.  Each function warns once of each sign.  Half-written
programs give no sign: their unused variables would have to be newer than parameters that are trained already.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from fastnn.symbolic import graph
from fastnn.symbolic.graph import Shared, Variable, shared_in, sort
from fastnn.symbolic.printing import calling_frame, leaf_name, names_in_use, pprint


class StaleGraphWarning(UserWarning):
    """A function seems to hold expressions that the program has replaced since, or to lack the new ones."""


class Watch:
    """The memory of a function that its warnings need.

    Parameters
    ----------
    outputs : sequence of Variable
    updates : mapping of Shared to Variable
    givens : mapping of Variable to Variable

    Attributes
    ----------
    parameters : list of Shared
        The parameters that it trains.
    """

    _last_trained = 0

    def __init__(
        self, outputs: Sequence[Variable], updates: Mapping[Shared, Variable], givens: Mapping[Variable, Variable]
    ) -> None:
        self.parameters = [variable for variable in updates if variable.is_parameter]
        self._outputs, self._trains_nothing = outputs, not updates
        self._made = self._checked = graph.now()
        self._called = self._warned = False
        for variable in sort([*outputs, *updates, *updates.values(), *givens, *givens.values()]):
            graph.unused.discard(variable)
        self._warn_of_other_outputs()

    def called(self) -> None:
        """Warn if there is a sign; record that the parameters were trained."""
        if self.parameters:
            if not self._called:
                self._warn_of_unused()
            Watch._last_trained = graph.now()
            for variable in self.parameters:
                variable.trained = Watch._last_trained
        elif self._trains_nothing and Watch._last_trained > self._checked and not self._warned:
            self._warn_of_replaced()
            self._checked = graph.now()
        self._called = True

    def _warn_of_other_outputs(self) -> None:
        for output in self._outputs if self.parameters else ():
            others = [variable for variable in shared_in(output) if variable.is_parameter]
            if others and not set(others) & set(self.parameters):
                _warn(
                    f"the function trains {_listed(self.parameters)}, but its output {pprint(output)} depends on "
                    f"{_listed(others)} alone: is it of an older graph?"
                )

    def _warn_of_unused(self) -> None:
        first = min(variable.number for variable in self.parameters)
        found = [v for v in list(graph.unused) if v.op is None and first < v.number < self._made]
        if found:
            _warn(f"nothing depends on {_listed(found)}, made beside {_listed(self.parameters)}")

    def _warn_of_replaced(self) -> None:
        own = shared_in(*self._outputs)
        if any(variable.trained > self._made for variable in own) or not any(v.is_parameter for v in own):
            return
        kinds = {(output.op, output.type) for output in self._outputs if output.op is not None}
        for variable in list(graph.unused):
            if variable.number > self._made and (variable.op, variable.type) in kinds:
                trained = [source for source in shared_in(variable) if source.trained > self._made]
                if trained:
                    self._warned = True
                    _warn(
                        f"the function depends on {_listed(own)}, but since it was made {_listed(trained)} have been "
                        f"trained, and {pprint(variable)}, of these, belongs to no function: "
                        "should the function be made anew?"
                    )
                    return


def _listed(variables: Sequence[Variable]) -> str:
    names = names_in_use()
    return ", ".join(leaf_name(variable, names) for variable in sorted(variables, key=lambda v: v.number))


def _warn(message: str) -> None:
    # Point to the program's line that called this package.
    warnings.warn(message, StaleGraphWarning, stacklevel=calling_frame()[1])
