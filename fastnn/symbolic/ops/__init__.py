"""The operations: what each computes with NumPy, its gradient, its dtype and its text.

dtypes are Theano's.  Those of Python's numbers depend on their values, see `graph.constant`.  A result has the dtype
that holds all values of the inputs' dtypes; functions of integers are float32 for up to 16 bits, else float64, and a
quotient of integers is ``config.floatX``.  Inputs of different dtypes are cast first, so that each gradient has its
input's dtype.

Subgradients are Theano's too: abs has 0 at 0, relu 1/2; of two equal arguments of maximum or minimum the first gets
the gradient; equal extremes of a reduction each get all of it; clip passes it at both limits; sgn, comparisons, floor
division and casts to integers have 0.  Shapes, indices and argmax have no gradient.
"""

from fastnn.symbolic.graph import operations
from fastnn.symbolic.ops.choices import IfElse
from fastnn.symbolic.ops.convolutions import (
    Border,
    Convolution,
    FiltersSlope,
    ImagesSlope,
    Pair,
    Windows,
    by_images,
    convolve,
)
from fastnn.symbolic.ops.dots import Dot, dot
from fastnn.symbolic.ops.elementwise import (
    KERNEL_OVERWRITES,
    LARGEST_CONVERTED,
    Cast,
    Elementwise,
    abs_,
    add,
    cast,
    clip,
    eq,
    exp,
    expm1,
    floating,
    ge,
    gt,
    int_div,
    le,
    log,
    log1p,
    logaddexp,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    neg,
    neq,
    power,
    promoted,
    relu,
    scaled_sum,
    sgn,
    sigmoid,
    softplus,
    sqr,
    sqrt,
    sub,
    switch,
    tanh,
    true_div,
)
from fastnn.symbolic.ops.indexing import Arange, Hole, Index, Join, Scatter, Slice, arange, concatenate, index
from fastnn.symbolic.ops.parts import Part, packed, part
from fastnn.symbolic.ops.pools import MODES, Pool, pool
from fastnn.symbolic.ops.random import Choice, Multinomial, Normal, Parameter, RandomStateVariable, draw, mrg_uniform
from fastnn.symbolic.ops.reductions import (
    SHORT_ROW,
    LogSumExp,
    Reduction,
    argmax,
    max_,
    mean,
    min_,
    sum_,
    with_reduced_axes,
)
from fastnn.symbolic.ops.shapes import (
    BroadcastTo,
    Count,
    Dimshuffle,
    Reshape,
    Shape,
    Stack,
    SumTo,
    axis_of,
    broadcast_like,
    count,
    dimshuffle,
    flatten,
    integer_scalar,
    lengths_of,
    n_elements,
    ones_like,
    reshape,
    shape,
    sum_to,
    zeros_like,
)
from fastnn.symbolic.ops.softmaxes import ByKernel, LogSoftmax, Softmax, SoftmaxSlope, softmax
from fastnn.symbolic.ops.texts import INDEX, Calls, Gradients, bracketed, call

operations.update(
    abs=abs_,
    add=add,
    argmax=argmax,
    cast=cast,
    clip=clip,
    count=count,
    dimshuffle=dimshuffle,
    dot=dot,
    flatten=flatten,
    ge=ge,
    gt=gt,
    index=index,
    int_div=int_div,
    le=le,
    lt=lt,
    max=max_,
    mean=mean,
    min=min_,
    mod=mod,
    mul=mul,
    neg=neg,
    power=power,
    reshape=reshape,
    shape=shape,
    shared_state=RandomStateVariable,
    sub=sub,
    sum=sum_,
    true_div=true_div,
)
