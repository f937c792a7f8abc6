"""Theano's notation: variables, expressions, gradients, and functions that compute and update.

>>> import numpy as np
>>> import fastnn.symbolic as theano
>>> import fastnn.symbolic.tensor as T
>>> x, w = T.dvector("x"), theano.shared(np.array([1.0, 2.0]), "w")
>>> cost = T.sum((x * w) ** 2)
>>> step = theano.function([x], cost, updates=[(w, w - 0.1 * T.grad(cost, w))])
>>> step([1.0, 1.0])
array(5.)
>>> w.get_value()
array([0.8, 1.6])

Nothing is compiled to machine code.  A function that trains a network by plain gradient steps becomes one call of the
engine; of one that does anything else with the gradients of a network, the engine computes these; all else runs
operation by operation on NumPy.  `Function.explain` says which, and why.  Read the modules in this order: `graph`,
`ops`, `stability`, `gradient`, `simplify`, `instructions`, `fusion`, `unrolled`, `looping`, `scanning`, `hoisting`,
`execution`, `program`, `terms`, `recognition`, `ascent`, `feed`, `lowering`, `arguments`, `modes`, `function`,
`staleness`, `printing`, and `scan_module` and `tensor` with its modules, which have the names that programs use.
`as_theano` lets programs and libraries import all of this as ``theano``.
"""

from fastnn.symbolic import (
    compat,
    compile,
    configparser,
    gof,
    gradient,
    ifelse,
    misc,
    printing,
    sandbox,
    scalar,
    scan_module,
    tensor,
    updates,
)
from fastnn.symbolic.arguments import In, Out, Param
from fastnn.symbolic.cloning import clone
from fastnn.symbolic.configparser import change_flags
from fastnn.symbolic.configuration import config
from fastnn.symbolic.function import Function, function
from fastnn.symbolic.gradient import DisconnectedInputError, Lop, Rop, grad
from fastnn.symbolic.graph import Apply, Constant, Type, Variable, shared
from fastnn.symbolic.misc.safe_asarray import _asarray
from fastnn.symbolic.modes import Mode
from fastnn.symbolic.naming import as_theano
from fastnn.symbolic.ops import dot
from fastnn.symbolic.printing import debugprint, pp, pprint
from fastnn.symbolic.scan_module import foldl, foldr, scan
from fastnn.symbolic.scan_module import map_ as map
from fastnn.symbolic.scan_module import reduce_ as reduce
from fastnn.symbolic.staleness import StaleGraphWarning
from fastnn.symbolic.updates import OrderedUpdates
from fastnn.symbolic.version import version as __version__

__all__ = [
    "Apply",
    "Constant",
    "DisconnectedInputError",
    "Function",
    "In",
    "Lop",
    "Mode",
    "OrderedUpdates",
    "Out",
    "Param",
    "Rop",
    "StaleGraphWarning",
    "Type",
    "Variable",
    "__version__",
    "_asarray",
    "as_theano",
    "change_flags",
    "clone",
    "compat",
    "compile",
    "config",
    "configparser",
    "debugprint",
    "dot",
    "foldl",
    "foldr",
    "function",
    "gof",
    "grad",
    "gradient",
    "ifelse",
    "map",
    "misc",
    "pp",
    "pprint",
    "printing",
    "reduce",
    "sandbox",
    "scalar",
    "scan",
    "scan_module",
    "shared",
    "tensor",
    "updates",
]
