"""Inputs and outputs of functions with options of their own: ``theano.In``, ``theano.Out``."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np

from fastnn._validation import check_array
from fastnn.symbolic.configuration import config
from fastnn.symbolic.graph import Constant, Shared, Variable
from fastnn.symbolic.printing import pprint


class In:
    """An input of a function.

    Parameters
    ----------
    variable : Variable
    name : str, optional
        The keyword of a call, by default the variable's name.
    value : array_like, optional
        The value in calls that give none; ``f[variable]`` reads and sets it.
    update : Variable, optional
        After a call its value is the input's value for the next one.
    mutable, borrow, autoname, implicit, shared
        Ignored: functions do not write into their inputs.
    strict : bool, default False
        Whether only arrays of the variable's own dtype are taken.
    allow_downcast : bool, optional
        Whether values may be converted to a narrower dtype; by default as the function's ``allow_input_downcast``.
    """

    def __init__(
        self,
        variable: Variable,
        name: str | None = None,
        value: Any = None,
        update: Any = None,
        mutable: bool | None = None,
        strict: bool = False,
        allow_downcast: bool | None = None,
        autoname: bool = True,
        implicit: bool | None = None,
        borrow: bool | None = None,
        shared: bool = False,
    ) -> None:
        if not isinstance(variable, Variable) or isinstance(variable, Constant):
            raise TypeError(f"inputs must hold variables, not {variable!r}")
        if isinstance(variable, Shared):
            raise TypeError(f"the shared variable {pprint(variable)} has its own value and cannot be an input")
        self.variable, self.name, self.update = variable, name or variable.name, update
        self.strict, self.allow_downcast = strict, allow_downcast
        self.value = value

    def __repr__(self) -> str:
        return f"In({self.name or self.variable!r})"

    def bound(self, variable: Variable, downcast: bool | None) -> In:
        """Return the same for a function of its own, of another variable, with a checked value."""
        found = copy.copy(self)
        found.variable = variable
        found.allow_downcast = downcast if self.allow_downcast is None else self.allow_downcast
        if self.value is not None:
            found.value = found.checked(self.value, f"the value of input {pprint(variable)}")
        return found

    def checked(self, value: Any, what: str) -> Any:
        """Return a value as an array of the variable's type."""
        dtype, ndim = self.variable.type
        if self.strict and not (isinstance(value, np.ndarray) and value.dtype == dtype):
            raise TypeError(f"{what} is strict: it must be an array of dtype {dtype}, not {value!r}")
        return check_array(value, dtype, ndim, what, self.allow_downcast, dtype.name == config.floatX)


class Param(In):
    """The old spelling of `In`."""

    def __init__(self, variable: Variable, default: Any = None, name: str | None = None, **options: Any) -> None:
        warnings.warn("theano.Param(variable, default) is theano.In(variable, value=default)", stacklevel=2)
        super().__init__(variable, name, default, **options)


class Out:
    """An output of a function.

    Parameters
    ----------
    variable : Variable
    borrow : bool, default False
        Ignored: results are arrays of their own.
    """

    def __init__(self, variable: Variable, borrow: bool = False) -> None:
        self.variable, self.borrow = variable, borrow
