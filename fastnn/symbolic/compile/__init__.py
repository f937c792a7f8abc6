"""How functions are made, and what they take: ``theano.compile``."""

from fastnn.symbolic.arguments import In, Out, Param
from fastnn.symbolic.compile import io, mode, nanguardmode, sharedvalue
from fastnn.symbolic.function import Function, function
from fastnn.symbolic.graph import Shared as SharedVariable
from fastnn.symbolic.graph import shared
from fastnn.symbolic.modes import DebugMode, Mode, NanGuardMode, get_default_mode, get_mode

__all__ = [
    "DebugMode",
    "Function",
    "In",
    "Mode",
    "NanGuardMode",
    "Out",
    "Param",
    "SharedVariable",
    "function",
    "get_default_mode",
    "get_mode",
    "io",
    "mode",
    "nanguardmode",
    "shared",
    "sharedvalue",
]
