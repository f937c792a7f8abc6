"""The names that programs know as ``T``, gathered from modules: some of these are known by Theano's own names."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any as _Any

from fastnn.symbolic.gradient import Lop, Rop, consider_constant, grad, hessian, jacobian
from fastnn.symbolic.graph import Constant, Variable, methods
from fastnn.symbolic.ops import (
    abs_,
    alloc,
    and_,
    arange,
    arccos,
    arccosh,
    arcsin,
    arcsinh,
    arctan,
    arctan2,
    arctanh,
    argmax,
    argmin,
    argsort,
    batched_dot,
    batched_tensordot,
    cast,
    ceil,
    clip,
    concatenate,
    cos,
    cosh,
    deg2rad,
    dot,
    eq,
    erf,
    erfc,
    erfinv,
    exp,
    exp2,
    expm1,
    flatten,
    floor,
    gamma,
    gammaln,
    ge,
    gt,
    inc_subtensor,
    int_div,
    inv,
    invert,
    isinf,
    isnan,
    join,
    le,
    log,
    log1p,
    log2,
    log10,
    lt,
    maximum,
    mean,
    minimum,
    mod,
    neg,
    neq,
    nonzero,
    ones_like,
    or_,
    prod,
    psi,
    rad2deg,
    reshape,
    round_half_away_from_zero,
    round_half_to_even,
    set_subtensor,
    sgn,
    shape,
    sin,
    sinh,
    sort,
    sqr,
    sqrt,
    stack,
    sub,
    switch,
    tan,
    tanh,
    tensordot,
    tri_gamma,
    true_div,
    trunc,
    xor,
    zeros_like,
)
from fastnn.symbolic.ops import all_ as all
from fastnn.symbolic.ops import any_ as any
from fastnn.symbolic.ops import max_ as max
from fastnn.symbolic.ops import min_ as min
from fastnn.symbolic.ops import sum_ as sum
from fastnn.symbolic.tensor import basic, extra_ops, nlinalg, nnet, raw_random, shared_randomstreams, signal, xlogx
from fastnn.symbolic.tensor.basic import *
from fastnn.symbolic.tensor.extra_ops import bincount, cumprod, cumsum, fill_diagonal, repeat, squeeze
from fastnn.symbolic.tensor.kinds import *

if TYPE_CHECKING:

    def __getattr__(name: str) -> _Any:  # the kinds of inputs, made by `kinds`
        ...


methods(
    *(all, any, argmin, argsort, basic.copy, cumprod, cumsum, diagonal, fill, nonzero, nonzero_values, basic.norm),
    *(ones_like, prod, ptp, repeat, round, sort, squeeze, std, swapaxes, take, nlinalg.trace, var, zeros_like),
    *(arccos, arccosh, arcsin, arcsinh, arctan, arctanh, ceil, cos, cosh, deg2rad, exp, exp2, expm1, floor, log, log10),
    *(log1p, log2, rad2deg, sin, sinh, sqrt, tan, tanh, trunc, get_scalar_constant_value),
)

#: All of the above.
__all__ = sorted(
    set(globals()) - {"TYPE_CHECKING", "annotations", "methods", "kinds"} - {n for n in globals() if n[0] == "_"}
)
