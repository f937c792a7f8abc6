"""Modes: how `function` makes a function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_choice
from fastnn.symbolic.configuration import MODES, config

#: Theano's names of optimizers; with the last four, functions run operation by operation.
OPTIMIZERS = ("default", "fast_run", "fast_run_stable", "o4", "o3", "o2", "o1", "unsafe", "stabilize")
SIMPLE_OPTIMIZERS = ("fast_compile", "merge", "None", None)

LINKERS = (None, "cvm", "c|py", "py", "c", "c|py_nogc", "vm", "vm_nogc", "cvm_nogc")

#: A number beyond this is big.
BIG = 1e10


class Mode:
    """How `function` makes a function: results are the same, to rounding, in every mode.

    Parameters
    ----------
    linker : str or None
        One of Theano's; ignored.
    optimizer : str or None
        One of Theano's.  "fast_compile", "merge", "None" and None run everything operation by operation; others look
        for a network that the engine can train.
    """

    def __init__(self, linker: str | None = None, optimizer: str | None = "default") -> None:
        self.linker = check_choice(linker, "linker", LINKERS)
        self.optimizer = check_choice(optimizer, "optimizer", (*OPTIMIZERS, *SIMPLE_OPTIMIZERS))

    @property
    def recognises(self) -> bool:
        """Whether the engine may train networks."""
        return self.optimizer not in SIMPLE_OPTIMIZERS

    def including(self, *tags: str) -> Mode:
        """Return the mode itself: there are no parts of an optimizer to add."""
        return self

    excluding = requiring = including


class DebugMode(Mode):
    """Run everything operation by operation; Theano's options are ignored."""

    def __init__(self, **options: Any) -> None:
        super().__init__(optimizer="fast_compile")


class NanGuardMode(Mode):
    """Run everything operation by operation, and raise an error where a bad number comes up.

    Inputs, shared variables and results of operations are looked at.

    Parameters
    ----------
    nan_is_error, inf_is_error, big_is_error : bool or None
        Whether NaN, infinite numbers, and numbers beyond 1e10 are bad; None takes ``config.NanGuardMode``.
    optimizer, linker
        Ignored.
    """

    def __init__(
        self,
        nan_is_error: bool | None = None,
        inf_is_error: bool | None = None,
        big_is_error: bool | None = None,
        optimizer: Any = "default",
        linker: Any = None,
    ) -> None:
        super().__init__(optimizer="fast_compile")
        known = config.NanGuardMode
        self.nan_is_error = known.nan_is_error if nan_is_error is None else nan_is_error
        self.inf_is_error = known.inf_is_error if inf_is_error is None else inf_is_error
        self.big_is_error = known.big_is_error if big_is_error is None else big_is_error

    def problem(self, value: NDArray[Any]) -> str | None:
        """Return what is bad in an array, or None."""
        if value.dtype.kind != "f":
            return None
        if self.nan_is_error and np.isnan(value).any():
            return "NaN"
        if self.inf_is_error and np.isinf(value).any():
            return "an infinite number"
        if self.big_is_error and (np.abs(value[np.isfinite(value)]) > BIG).any():
            return f"a number beyond {BIG:g}"
        return None


_MADE: dict[str, Callable[[], Mode]] = {
    "FAST_RUN": Mode,
    "FAST_COMPILE": partial(Mode, optimizer="fast_compile"),
    "Mode": Mode,
    "DebugMode": DebugMode,
    "DEBUG_MODE": DebugMode,
    "NanGuardMode": NanGuardMode,
}


def get_mode(mode: Mode | str | None) -> Mode:
    """Return the mode of a name, a mode itself, or for None that of ``config.mode``."""
    wanted = config.mode if mode is None else mode
    return wanted if isinstance(wanted, Mode) else _MADE[check_choice(wanted, "mode", MODES)]()


def get_default_mode() -> Mode:
    """Return the mode of ``config.mode``."""
    return get_mode(None)
