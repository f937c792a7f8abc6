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
engine; any other runs operation by operation on NumPy.  `Function.explain` says which, and why.  Read the modules in
this order: `graph`, `ops`, `stability`, `gradient`, `simplify`, `fusion`, `instructions`, `execution`, `program`,
`lowering`, `function`, `staleness`, `printing`, and `tensor` with its modules, which have the names that programs use.
"""

from fastnn.symbolic import printing, tensor
from fastnn.symbolic.configuration import config
from fastnn.symbolic.function import Function, function
from fastnn.symbolic.gradient import DisconnectedInputError, grad
from fastnn.symbolic.graph import shared
from fastnn.symbolic.printing import debugprint, pprint
from fastnn.symbolic.staleness import StaleGraphWarning

__all__ = [
    "DisconnectedInputError",
    "Function",
    "StaleGraphWarning",
    "config",
    "debugprint",
    "function",
    "grad",
    "pprint",
    "printing",
    "shared",
    "tensor",
]
