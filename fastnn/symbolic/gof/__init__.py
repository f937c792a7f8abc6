"""Graphs of expressions: ``theano.gof``."""

from fastnn.symbolic.gof import fg, graph
from fastnn.symbolic.gof.fg import FunctionGraph
from fastnn.symbolic.graph import Apply, Constant, Type, Variable

__all__ = ["Apply", "Constant", "FunctionGraph", "Type", "Variable", "fg", "graph"]
