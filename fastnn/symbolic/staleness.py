"""Warnings of graphs that are no longer what the program means.

Giving a variable's name to another expression leaves everything that was made of the old one as it is.  Signs of it
that are looked for:

- A function trains parameters, and an output depends on parameters, but on none of these.
- A function that updates nothing is called, and since it was made other parameters have been trained than those that it
  depends on, while a newer expression of these, of the same kind as an output of its own, belongs to nothing: it seems
  to be what the function should return now.
- A function that trains parameters is called for the first time, and between them and the function the program made an
  input or a shared variable that belongs to no expression and no function, and whose value was never asked for.

Parameters are shared variables by which a gradient was taken.  Each function warns once of each.  Programs that are
half written give no sign: what is still to be used would have to stand beside parameters that are trained already.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from fastnn.symbolic import graph
from fastnn.symbolic.graph import Shared, Variable, shared_in, sort
from fastnn.symbolic.printing import calling_frame, leaf_name, names_in_use, pprint


class StaleGraphWarning(UserWarning):
    """A function seems to hold, or to lack, expressions that the program has replaced since."""


class Watch:
    """What a function remembers in order to warn.

    Parameters
    ----------
    outputs : sequence of Variable
    updates : mapping of Shared to Variable
    givens : mapping of Variable to Variable

    Attributes
    ----------
    parameters : list of Shared
        What it trains.
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
        """Warn if there is reason to; remember that the parameters have been trained."""
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
    # At the program's line that called this package.
    warnings.warn(message, StaleGraphWarning, stacklevel=calling_frame()[1])
