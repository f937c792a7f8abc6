"""The names that programs know as ``T``: kinds of variables, and the functions of `ops`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.symbolic import graph
from fastnn.symbolic.configuration import config
from fastnn.symbolic.gradient import grad
from fastnn.symbolic.graph import Operand, Type, Variable
from fastnn.symbolic.ops import (
    abs_,
    arange,
    argmax,
    cast,
    clip,
    concatenate,
    dot,
    eq,
    exp,
    expm1,
    flatten,
    ge,
    gt,
    le,
    log,
    log1p,
    lt,
    maximum,
    mean,
    minimum,
    neq,
    ones_like,
    reshape,
    sgn,
    sqr,
    sqrt,
    switch,
    tanh,
    zeros_like,
)
from fastnn.symbolic.ops import max_ as max
from fastnn.symbolic.ops import min_ as min
from fastnn.symbolic.ops import sum_ as sum
from fastnn.symbolic.tensor import nnet, raw_random, shared_randomstreams, signal

__all__ = [
    "abs_",
    "arange",
    "argmax",
    "as_tensor_variable",
    "cast",
    "clip",
    "concatenate",
    "constant",
    "dmatrix",
    "dot",
    "dscalar",
    "dvector",
    "eq",
    "exp",
    "expm1",
    "flatten",
    "fmatrix",
    "fscalar",
    "fvector",
    "ge",
    "grad",
    "gt",
    "imatrix",
    "iscalar",
    "ivector",
    "le",
    "lmatrix",
    "log",
    "log1p",
    "lscalar",
    "lt",
    "lvector",
    "matrix",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "neq",
    "nnet",
    "ones_like",
    "raw_random",
    "reshape",
    "scalar",
    "sgn",
    "shared_randomstreams",
    "signal",
    "sqr",
    "sqrt",
    "sum",
    "switch",
    "tanh",
    "vector",
    "zeros_like",
]

iscalar, ivector, imatrix = (Type(np.dtype(np.int32), ndim) for ndim in range(3))
lscalar, lvector, lmatrix = (Type(np.dtype(np.int64), ndim) for ndim in range(3))
fscalar, fvector, fmatrix = (Type(np.dtype(np.float32), ndim) for ndim in range(3))
dscalar, dvector, dmatrix = (Type(np.dtype(np.float64), ndim) for ndim in range(3))


def scalar(name: str | None = None, dtype: Any = None) -> Variable:
    """Return a new input without dimensions, of ``config.floatX`` by default."""
    return _input(0, name, dtype)


def vector(name: str | None = None, dtype: Any = None) -> Variable:
    """Return a new input of one dimension, of ``config.floatX`` by default."""
    return _input(1, name, dtype)


def matrix(name: str | None = None, dtype: Any = None) -> Variable:
    """Return a new input of two dimensions, of ``config.floatX`` by default."""
    return _input(2, name, dtype)


def _input(ndim: int, name: str | None, dtype: Any) -> Variable:
    found = np.dtype(config.floatX if dtype is None else dtype)
    if found.kind not in "biuf":
        raise TypeError(f"dtype must be one of real numbers, not {dtype!r}")
    return Type(found, ndim)(name)


def as_tensor_variable(x: Operand, name: str | None = None, ndim: int | None = None) -> Variable:
    """Return a variable, or a constant of another value; ndim adds axes of length 1 before its own."""
    variable = x if isinstance(x, Variable) else constant(x, name)
    if ndim is None or ndim == variable.ndim:
        return variable
    if ndim < variable.ndim:
        raise ValueError(f"ndim is {ndim}, but {variable!r} has {variable.ndim} dimensions")
    return variable.dimshuffle(*"x" * (ndim - variable.ndim), *range(variable.ndim))


def constant(x: Any, name: str | None = None, ndim: int | None = None, dtype: Any = None) -> Variable:
    """Return a constant; without a dtype an integer gets the least that holds it, a float ``config.floatX`` or less."""
    if isinstance(x, Variable):
        raise TypeError(f"constant takes a value, not the expression {x!r}")
    found = graph.constant(x, config.floatX if dtype == "floatX" else dtype)
    found.name = name
    return found if ndim is None else as_tensor_variable(found, ndim=ndim)
