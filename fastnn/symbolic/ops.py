"""The operations: what each computes with NumPy, its gradient, its dtype and its text.

dtypes are Theano's.  Those of Python's numbers depend on their values, see `graph.constant`.  A result has the dtype
that holds all values of the inputs' dtypes; functions of integers are float32 for up to 16 bits, else float64, and a
quotient of integers is ``config.floatX``.  Inputs of different dtypes are cast first, so that each gradient has its
input's dtype.

Subgradients are Theano's too: abs has 0 at 0, relu 1/2; of two equal arguments of maximum or minimum the first gets
the gradient; equal extremes of a reduction each get all of it; clip passes it at both limits; sgn, comparisons, floor
division and casts to integers have 0.  Shapes, indices and argmax have no gradient.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn.kernels.activations import ACTIVATIONS, inplace_activation, inplace_backprop_activation
from fastnn.kernels.softmax import inplace_backprop_softmax, inplace_log_softmax, inplace_softmax
from fastnn.kernels.ufuncs import sum_of_scaled
from fastnn.symbolic.configuration import config
from fastnn.symbolic.graph import (
    MOST_SHAPES,
    Constant,
    Op,
    Operand,
    Parts,
    Type,
    Variable,
    apply,
    as_variable,
    constant,
    operations,
)
from fastnn.symbolic.inplace import KERNEL_DTYPES, InPlace
from fastnn.symbolic.products import thin_product

Gradients: TypeAlias = "list[Variable | None]"
Calls: TypeAlias = list[Callable[[], Any]]

# Precedence of texts.
COMPARISON, SUM, PRODUCT, SIGN, POWER, ATOM = range(6)

INDEX = np.dtype(np.int64)

#: Constants with more elements than this are converted by an operation, only when needed.
LARGEST_CONVERTED = 10_000

#: A kernel reads its first arrays again after it begins to write.
KERNEL_OVERWRITES = slice(-1, None)


def bracketed(part: tuple[str, int], level: int) -> str:
    """Return a part of a text, in brackets if its precedence is below level."""
    return part[0] if part[1] >= level else f"({part[0]})"


def call(name: str, *arguments: str) -> tuple[str, int]:
    """Return the text of a function call."""
    return f"{name}({', '.join(arguments)})", ATOM


# --- elementwise ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Elementwise(Op):
    """A function of the elements, with NumPy's broadcasting.

    Parameters
    ----------
    name : str
    function : callable
        Takes arrays, and ``out``.
    kind : {"same", "square", "whole", "signed", "power", "float", "quotient", "bool"}
        dtype of the result: the inputs' (three kinds, because NumPy's square and floor division of bool are int8); the
        same, but bool is refused; the same, but int8 for bool; a floating one; the same, but ``config.floatX`` for
        integers; bool.
    slopes : callable or None
        From inputs, output and the output's gradient to the inputs' gradients, before these are summed to the
        inputs' shapes; None if there are none.
    symbol, level
        Text between two inputs, and its precedence.
    """

    name: str
    function: Callable[..., Any]
    slopes: Callable[..., Gradients] | None = None
    symbol: str | None = None
    level: int = ATOM
    kind: str = "same"

    takes_out = True

    @property
    def overwrites(self) -> slice:  # type: ignore[override]
        return KERNEL_OVERWRITES if isinstance(self.function, InPlace) else slice(None)

    def __reduce__(self) -> str:
        # Each is a global of this module, and is compared by identity.
        return next(name for name, value in globals().items() if value is self)

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        return self.function(*arrays) if out is None else self.function(*arrays, out=out)

    def calls(self, arrays: Sequence[NDArray[Any]], out: NDArray[Any]) -> Calls:
        if isinstance(self.function, InPlace):
            return self.function.calls(arrays, out)
        return [partial(self.function, *arrays, out=out)]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        found = frozenset().union(*(source.shapes for source in inputs if source.ndim > 0))
        return found if 0 < len(found) <= MOST_SHAPES else None

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        if self.slopes is None:
            return [None] * len(inputs)
        condition, g = _split(g)
        found: Gradients = []
        for slope, source in zip(self.slopes(*inputs, output, g), inputs, strict=True):
            if slope is not None:
                slope = condition(slope)
                # It has the output's shape.
                slope = slope if source.shapes == output.shapes else sum_to(slope, source)
                slope = cast(slope, source.type.dtype)
            found.append(slope)
        return found

    def text(self, inputs: Parts) -> tuple[str, int]:
        if self.symbol is None:
            return call(self.name, *(text for text, _ in inputs))
        if len(inputs) == 1:
            return self.symbol + bracketed(inputs[0], self.level), self.level
        left, right = (self.level + 1, self.level) if self.level == POWER else (self.level, self.level + 1)
        return f"{bracketed(inputs[0], left)} {self.symbol} {bracketed(inputs[1], right)}", self.level

    def __call__(self, *values: Operand) -> Variable:
        """Return the expression, with inputs cast to a common dtype."""
        variables = [as_variable(value) for value in values]
        inputs = promoted(*variables)
        dtype = inputs[0].type.dtype
        if self.kind == "signed" and dtype.kind == "b":
            raise TypeError(f"{self.name} takes numbers, not booleans alone: convert them with T.cast(..., 'int8')")
        if self.kind == "quotient" and all(variable.type.dtype.kind != "f" for variable in variables):
            return cast(self.on(*(cast(source, np.float64) for source in inputs)), config.floatX)
        if self.kind == "square" and dtype.kind == "b":
            return inputs[0]
        if self.kind == "whole" and dtype.kind == "b":
            return cast(self.on(*(cast(source, np.int8) for source in inputs)), bool)
        if self.kind == "float":
            dtype = floating(dtype)
        if self.kind == "power" and dtype.kind == "b":
            dtype = np.dtype(np.int8)
        if self is power and dtype.kind == "i":
            return _whole_power(*inputs)
        return self.on(*(cast(source, dtype) for source in inputs))

    def on(self, *inputs: Variable) -> Variable:
        """Return the expression on inputs of the right dtypes."""
        dtype = np.dtype(bool) if self.kind == "bool" else inputs[-1].type.dtype
        return apply(self, Type(dtype, max(source.ndim for source in inputs)), *inputs)


def _split(g: Variable) -> tuple[Callable[[Variable], Variable], Variable]:
    # Of a gradient that is 0 unless a condition holds: a function that makes another one 0 likewise, and the gradient
    # without the condition.  So a slope may be infinite where the condition does not hold.
    if g.op is _choose:
        condition, x, y = g.inputs
        if _is_zero(y):
            return lambda slope: switch(condition, slope, 0), x
        if _is_zero(x):
            return lambda slope: switch(condition, 0, slope), y
    return lambda slope: slope, g


def _is_zero(variable: Variable) -> bool:
    return isinstance(variable, Constant) and variable.ndim == 0 and bool(variable.value == 0)


def promoted(*values: Operand) -> tuple[Variable, ...]:
    """Return values as variables of their common dtype."""
    variables = [as_variable(value) for value in values]
    common = reduce(np.promote_types, [variable.type.dtype for variable in variables])
    return tuple(cast(variable, common) for variable in variables)


def floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the floating dtype for functions of integers of a dtype."""
    return dtype if dtype.kind == "f" else np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def _relu(x: Any, out: NDArray[Any] | None = None) -> Any:
    return np.maximum(x, x.dtype.type(0), out=out)


def _switch(condition: Any, x: Any, y: Any, out: NDArray[Any] | None = None) -> Any:
    if out is None:
        return np.where(condition, x, y)
    out[...] = np.where(condition, x, y)
    return out


def _limited(x: Any, low: Any, high: Any, out: NDArray[Any] | None = None) -> Any:
    # If low is above high, low comes first.
    if np.all(low <= high):
        return np.clip(x, low, high, out=out)
    found = np.where(x < low, low, np.where(x > high, high, x))
    if out is None:
        return found
    out[...] = found
    return out


def _cut_power(x: Any, y: Any, out: NDArray[Any] | None = None) -> Any:
    # NumPy refuses negative powers of integers.
    if np.all(np.greater_equal(y, 0)):
        return np.power(x, y, out=out)
    found = np.trunc(np.power(x, y, dtype=np.float64)).astype(x.dtype)
    return found if out is None else np.positive(found, out=out)


def _kernel_of(activation: str, kernel: Callable[..., None]) -> InPlace:
    return InPlace(partial(kernel, ACTIVATIONS[activation]))


def _power_slopes(x: Variable, y: Variable, z: Variable, g: Variable) -> Gradients:
    if isinstance(y, Constant) and y.ndim == 0:
        by_x = g * y * x ** constant(y.value - 1, y.type.dtype) if y.value != 0 else zeros_like(g)
        return [by_x, None]
    # The limit, where the formula has 0 * infinity.
    by_x = switch(eq(y, 0), 0, y * x ** (y - 1))
    return [g * by_x, switch(eq(x, 0), 0, g * z * log(x))]


def _choice(better: Callable[[Variable, Variable], Variable]) -> Callable[..., Gradients]:
    def slopes(x: Variable, y: Variable, z: Variable, g: Variable) -> Gradients:
        return [switch(better(x, y), g, 0), switch(better(x, y), 0, g)]

    return slopes


add = Elementwise("add", np.add, lambda x, y, z, g: [g, g], "+", SUM)
sub = Elementwise("sub", np.subtract, lambda x, y, z, g: [g, -g], "-", SUM, "signed")
mul = Elementwise("mul", np.multiply, lambda x, y, z, g: [g * y, g * x], "*", PRODUCT)
true_div = Elementwise("true_div", np.true_divide, lambda x, y, z, g: [g / y, -(g * z) / y], "/", PRODUCT, "quotient")
int_div = Elementwise("int_div", np.floor_divide, None, "//", PRODUCT, "whole")
mod = Elementwise("mod", np.mod, lambda x, y, z, g: [g, -(g * (x // y))], "%", PRODUCT, "whole")
power = Elementwise("pow", np.power, _power_slopes, "**", POWER, "power")
_whole_power = Elementwise("pow", _cut_power, None, "**", POWER, "power")
neg = Elementwise("neg", np.negative, lambda x, z, g: [-g], "-", SIGN, "signed")
eq = Elementwise("eq", np.equal, None, "==", COMPARISON, "bool")
neq = Elementwise("neq", np.not_equal, None, "!=", COMPARISON, "bool")
lt = Elementwise("lt", np.less, None, "<", COMPARISON, "bool")
le = Elementwise("le", np.less_equal, None, "<=", COMPARISON, "bool")
gt = Elementwise("gt", np.greater, None, ">", COMPARISON, "bool")
ge = Elementwise("ge", np.greater_equal, None, ">=", COMPARISON, "bool")
exp = Elementwise("exp", np.exp, lambda x, z, g: [g * z], kind="float")
log = Elementwise("log", np.log, lambda x, z, g: [g / x], kind="float")
sqrt = Elementwise("sqrt", np.sqrt, lambda x, z, g: [g * 0.5 / z], kind="float")
sqr = Elementwise("sqr", np.square, lambda x, z, g: [g * (2 * x)], kind="square")
# A gradient g by the output y of an activation, times its slope there.
_by_tanh: Elementwise = Elementwise(
    "tanh_slope",
    _kernel_of("tanh", inplace_backprop_activation),
    lambda y, g, z, h: [h * g * (-2 * y), _by_tanh(y, h)],
)
_by_sigmoid: Elementwise = Elementwise(
    "sigmoid_slope",
    _kernel_of("sigmoid", inplace_backprop_activation),
    lambda y, g, z, h: [h * g * (1 - 2 * y), _by_sigmoid(y, h)],
)
tanh = Elementwise(
    "tanh",
    np.tanh,
    lambda x, z, g: [_by_tanh(z, g) if z.type.dtype in KERNEL_DTYPES else g * (1 - sqr(z))],
    kind="float",
)
sgn: Elementwise = Elementwise("sgn", np.sign, kind="signed")
abs_ = Elementwise("abs", np.abs, lambda x, z, g: [g * sgn(x)])
maximum = Elementwise("maximum", np.maximum, _choice(ge))
minimum = Elementwise("minimum", np.minimum, _choice(le))
sigmoid: Elementwise = Elementwise(
    "sigmoid", _kernel_of("sigmoid", inplace_activation), lambda x, z, g: [_by_sigmoid(z, g)], kind="float"
)
softplus = Elementwise(
    "softplus", _kernel_of("softplus", inplace_activation), lambda x, z, g: [g * sigmoid(x)], kind="float"
)
log1p = Elementwise("log1p", np.log1p, lambda x, z, g: [g / (1 + x)], kind="float")
expm1 = Elementwise("expm1", np.expm1, lambda x, z, g: [g * exp(x)], kind="float")
# log(exp(x) + exp(y))
logaddexp = Elementwise(
    "logaddexp", np.logaddexp, lambda x, y, z, g: [g * sigmoid(x - y), g * sigmoid(y - x)], kind="float"
)
# a * x + b * y
scaled_sum = Elementwise("scaled_sum", sum_of_scaled, lambda a, x, b, y, z, g: [g * x, g * a, g * y, g * b])
_step = Elementwise("heaviside", np.heaviside)
relu = Elementwise("relu", _relu, lambda x, z, g: [g * _step(x, 0.5)], kind="float")
_clip = Elementwise(
    "clip",
    _limited,
    lambda x, low, high, z, g: [
        switch(x < low, 0, switch(x > high, 0, g)),
        switch(x < low, g, 0),
        switch(x > high, g, 0),
    ],
)
_choose = Elementwise("switch", _switch, lambda c, x, y, z, g: [None, switch(c, g, 0), switch(c, 0, g)])


def clip(x: Operand, low: Operand, high: Operand) -> Variable:
    """Limit x to the range from low to high, in the common dtype of the three."""
    return _clip(x, low, high)


def switch(condition: Operand, x: Operand, y: Operand) -> Variable:
    """Elements of x where the condition holds (is not 0), of y elsewhere."""
    return _choose.on(as_variable(condition), *promoted(x, y))


@dataclass(frozen=True)
class Cast(Op):
    """Conversion to a dtype."""

    dtype: np.dtype[Any]

    def compute(self, *arrays: Any) -> Any:
        return np.asarray(arrays[0]).astype(self.dtype)

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [cast(g, inputs[0].type.dtype) if self.dtype.kind == inputs[0].type.dtype.kind == "f" else None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("cast", inputs[0][0], repr(self.dtype.name))


def cast(x: Operand, dtype: DTypeLike | None) -> Variable:
    """Convert x to a dtype; "floatX" means that of the configuration."""
    variable = as_variable(x)
    wanted = np.dtype(config.floatX if dtype == "floatX" else dtype)
    if wanted.kind not in "biuf":
        raise TypeError(f"dtype must be one of real numbers, not {dtype!r}")
    if wanted == variable.type.dtype:
        return variable
    if isinstance(variable, Constant) and variable.value.size <= LARGEST_CONVERTED:
        return constant(variable.value, wanted)
    return apply(Cast(wanted), Type(wanted, variable.ndim), variable)


# --- shapes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape(Op):
    """The shape as an int64 vector."""

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        return np.array(np.shape(arrays[0]), INDEX)

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return f"{bracketed(inputs[0], ATOM)}.shape", ATOM


def shape(x: Operand) -> Variable:
    """Shape of x, an int64 vector."""
    return apply(Shape(), Type(INDEX, 1), as_variable(x))


@dataclass(frozen=True)
class Count(Op):
    """Number of elements along some axes, None for all."""

    axes: tuple[int, ...] | None

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        return INDEX.type(_n_elements(arrays[0], self.axes))

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("size", inputs[0][0], *(str(axis) for axis in self.axes or ()))


def _n_elements(array: Any, axes: tuple[int, ...] | None) -> int:
    lengths = np.shape(array)
    return math.prod(lengths if axes is None else [lengths[axis] for axis in axes])


def count(x: Operand, axes: Sequence[int] | None = None) -> Variable:
    """Return the number of elements of x along axes, or of all."""
    return apply(Count(None if axes is None else tuple(axes)), Type(INDEX, 0), as_variable(x))


@dataclass(frozen=True)
class BroadcastTo(Op):
    """The first input broadcast to the shape in the second, as by `numpy.broadcast_to`."""

    views = True
    connects = slice(1)

    def compute(self, *arrays: Any) -> Any:
        array, lengths = arrays
        return np.broadcast_to(array, tuple(lengths))

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[1:]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[1].inputs[0].shapes if isinstance(inputs[1].op, Shape) else None

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [sum_to(g, inputs[0]), None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("broadcast_to", inputs[0][0], inputs[1][0])


def broadcast_like(x: Operand, like: Variable) -> Variable:
    """Return x in the shape of another variable of at least as many dimensions."""
    return apply(BroadcastTo(), Type(as_variable(x).type.dtype, like.ndim), as_variable(x), shape(like))


def ones_like(x: Operand, dtype: DTypeLike | None = None) -> Variable:
    """Ones in the shape of x."""
    variable = as_variable(x)
    return broadcast_like(constant(1, dtype or variable.type.dtype), variable)


def zeros_like(x: Operand, dtype: DTypeLike | None = None) -> Variable:
    """Zeros in the shape of x."""
    variable = as_variable(x)
    return broadcast_like(constant(0, dtype or variable.type.dtype), variable)


@dataclass(frozen=True)
class SumTo(Op):
    """The first input summed along the axes along which it was broadcast from the shape in the second."""

    views = True
    connects = slice(1)

    def compute(self, *arrays: Any) -> Any:
        array, lengths = np.asarray(arrays[0]), tuple(arrays[1])
        if array.shape == lengths:
            return array
        new = array.ndim - len(lengths)
        stretched = [new + axis for axis, n in enumerate(lengths) if n == 1 != array.shape[new + axis]]
        return array.sum(axis=(*range(new), *stretched), keepdims=True).reshape(lengths)

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[1:]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[1].inputs[0].shapes if isinstance(inputs[1].op, Shape) else None

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [broadcast_like(g, inputs[0]), None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("sum_to", inputs[0][0], inputs[1][0])


def sum_to(x: Variable, like: Variable) -> Variable:
    """Return x summed to the shape of another variable, if it may have been broadcast from that."""
    if x.ndim == like.ndim == 0 or x.shapes == like.shapes:
        return x
    return apply(SumTo(), Type(x.type.dtype, like.ndim), x, shape(like))


@dataclass(frozen=True)
class Dimshuffle(Op):
    """Axes in another order; "x" is a new one, and an axis left out must have length 1."""

    pattern: tuple[int | str, ...]

    views = True

    def compute(self, *arrays: Any) -> Any:
        array = np.asarray(arrays[0])
        kept = [axis for axis in self.pattern if isinstance(axis, int)]
        if len(kept) == len(self.pattern) == array.ndim:
            return array.transpose(kept)
        dropped = [axis for axis in range(array.ndim) if axis not in kept]
        if any(array.shape[axis] != 1 for axis in dropped):
            raise ValueError(f"axes that are left out must have length 1, but these are {dropped}")
        moved = array.transpose(*kept, *dropped).reshape([array.shape[axis] for axis in kept])
        return moved[tuple(None if axis == "x" else slice(None) for axis in self.pattern)]

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        places = {axis: place for place, axis in enumerate(self.pattern) if axis != "x"}
        return [dimshuffle(g, tuple(places.get(axis, "x") for axis in range(inputs[0].ndim)))]

    def text(self, inputs: Parts) -> tuple[str, int]:
        if self.pattern == tuple(reversed(range(len(self.pattern)))):
            return f"{bracketed(inputs[0], ATOM)}.T", ATOM
        return f"{bracketed(inputs[0], ATOM)}.dimshuffle({', '.join(map(repr, self.pattern))})", ATOM


def dimshuffle(x: Operand, pattern: Sequence[Any]) -> Variable:
    """Rearrange the axes of x; see `Variable.dimshuffle`."""
    variable = as_variable(x)
    axes = tuple("x" if axis == "x" else _axis(axis, variable.ndim) for axis in pattern)
    kept = [axis for axis in axes if axis != "x"]
    if len(set(kept)) < len(kept):
        raise ValueError(f"the pattern of dimshuffle names an axis twice: {tuple(pattern)}")
    if axes == tuple(range(variable.ndim)):
        return variable
    return apply(Dimshuffle(axes), Type(variable.type.dtype, len(axes)), variable)


def _axis(axis: Any, ndim: int) -> int:
    number = operator.index(axis)
    if not -ndim <= number < ndim:
        raise ValueError(f"axis {axis} does not exist: there are {ndim} dimensions")
    return number % ndim


@dataclass(frozen=True)
class Stack(Op):
    """Integer scalars as an int64 vector."""

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        return np.array(arrays, INDEX)

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None] * len(inputs)

    def text(self, inputs: Parts) -> tuple[str, int]:
        return f"({', '.join(text for text, _ in inputs)}{',' if len(inputs) == 1 else ''})", ATOM


@dataclass(frozen=True)
class Reshape(Op):
    """The first input in the shape in the second, with at most one -1."""

    views = True
    connects = slice(1)

    def compute(self, *arrays: Any) -> Any:
        return np.reshape(arrays[0], tuple(arrays[1]))

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[1:]

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [reshape(g, shape(inputs[0]), inputs[0].ndim), None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return f"{bracketed(inputs[0], ATOM)}.reshape({inputs[1][0]})", ATOM


def _integer_scalar(value: Any, what: str) -> Variable:
    variable = as_variable(value)
    if variable.ndim != 0 or variable.type.dtype.kind not in "iu":
        raise TypeError(f"{what} must be an integer, not {variable!r} of type {variable.type}")
    return variable


def reshape(x: Operand, lengths: Any, ndim: int | None = None) -> Variable:
    """Return x in a shape of numbers and integer scalars, or in the shape in a vector, with ndim dimensions."""
    variable = as_variable(x)
    if isinstance(lengths, Variable) and lengths.ndim == 1:
        if lengths.type.dtype.kind not in "iu":
            raise TypeError(f"a shape must hold integers, not {lengths.dtype}")
        if ndim is None and isinstance(lengths.op, Shape):
            ndim = lengths.inputs[0].ndim
        if ndim is None:
            raise TypeError("reshape to a shape that a vector holds needs the number of dimensions: ndim=...")
        wanted = lengths
    else:
        lengths = tuple(lengths) if np.iterable(lengths) and not isinstance(lengths, Variable) else (lengths,)
        if ndim not in (None, len(lengths)):
            raise ValueError(f"ndim is {ndim}, but the shape has {len(lengths)} lengths")
        ndim = len(lengths)
        scalars = [_integer_scalar(length, "a length of a shape") for length in lengths]
        wanted = (
            constant(lengths, INDEX)
            if not any(isinstance(n, Variable) for n in lengths)
            else apply(Stack(), Type(INDEX, 1), *scalars)
        )
    return apply(Reshape(), Type(variable.type.dtype, ndim), variable, wanted)


def flatten(x: Operand, ndim: int = 1) -> Variable:
    """Join the last axes of x to one, so that ndim are left."""
    variable = as_variable(x)
    if not 1 <= ndim <= max(1, variable.ndim):
        raise ValueError(f"flatten leaves from 1 to {max(1, variable.ndim)} dimensions, not {ndim}")
    if ndim == variable.ndim:
        return variable
    # Count the last length instead of -1, which NumPy cannot resolve if another length is 0.
    return reshape(
        variable,
        [*(shape(variable)[axis] for axis in range(ndim - 1)), count(variable, range(ndim - 1, variable.ndim))],
    )


# --- reductions -------------------------------------------------------------------------------------------------------


def _sum(x: Any, axis: Any, out: NDArray[Any] | None = None, keepdims: bool = False) -> Any:
    # NumPy adds short rows one by one; a product takes a fraction of the time.
    if _has_short_rows(x, axis):
        sums = np.dot(x, _ones(x.shape[1], x.dtype), None if out is None else out.reshape(-1))
        return out if out is not None else sums[:, None] if keepdims else sums
    return np.add.reduce(x, axis, out=out, keepdims=keepdims)  # type: ignore[arg-type]


def _has_short_rows(x: NDArray[Any], axis: Any) -> bool:
    fits = axis == 1 and x.ndim == 2 and 1 < x.shape[1] <= SHORT_ROW
    return fits and x.dtype in KERNEL_DTYPES and x.flags.c_contiguous


@cache
def _ones(n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.ones(n, dtype)


#: Rows up to this length are summed by a product.
SHORT_ROW = 64

# NumPy's functions of these names, without their wrappers.
REDUCE: dict[str, Callable[..., Any]] = {
    "sum": _sum,
    "max": np.maximum.reduce,
    "min": np.minimum.reduce,
    "argmax": np.argmax,
}


@dataclass(frozen=True)
class Reduction(Op):
    """Sum, mean, max, min or argmax along axes.

    Parameters
    ----------
    name : str
        Of NumPy's function.
    axes : tuple of int, or None
        None for all; an argmax is then over the flattened array.
    keepdims : bool
    """

    name: str
    axes: tuple[int, ...] | None
    keepdims: bool

    takes_out = True

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        axis = self._axis
        if self.name == "mean":  # NumPy's own mean warns about empty arrays
            x = np.asarray(arrays[0])
            if axis is None and not self.keepdims:
                return np.add.reduce(x, None) / x.size
            return np.true_divide(_sum(x, axis, keepdims=self.keepdims), _n_elements(x, self.axes), out=out)
        return REDUCE[self.name](np.asarray(arrays[0]), axis, out=out, keepdims=self.keepdims)

    def calls(self, arrays: Sequence[NDArray[Any]], out: NDArray[Any]) -> Calls:
        if self.name == "sum" and _has_short_rows(arrays[0], self._axis):
            ones = _ones(arrays[0].shape[1], out.dtype)
            return [partial(np.dot, arrays[0], ones, out.reshape(-1))]
        return super().calls(arrays, out)

    @property
    def connects(self) -> slice:  # type: ignore[override]
        return slice(0 if self.name == "argmax" else 1)

    @property
    def _axis(self) -> Any:
        return self.axes[0] if self.axes is not None and len(self.axes) == 1 else self.axes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        (x,) = inputs
        if self.name == "argmax":
            return [None]
        if self.name == "mean":
            g = g / cast(count(x, self.axes), g.type.dtype)
        if self.name in ("sum", "mean"):
            return [broadcast_like(self._expanded(g, x.ndim), x)]
        return [cast(eq(x, self._expanded(output, x.ndim)), x.type.dtype) * self._expanded(g, x.ndim)]

    def _expanded(self, reduced: Variable, ndim: int) -> Variable:
        return with_reduced_axes(reduced, ndim, self.axes, self.keepdims)

    def text(self, inputs: Parts) -> tuple[str, int]:
        axes = () if self.axes is None else self.axes
        options = [] if self.axes is None else [f"axis={axes[0] if len(axes) == 1 else axes}"]
        return call(self.name, inputs[0][0], *options, *["keepdims=True"] * self.keepdims)


def with_reduced_axes(reduced: Variable, ndim: int, axes: tuple[int, ...] | None, keepdims: bool) -> Variable:
    """Return a reduction, or its gradient, with axes of length 1 for those that it reduced."""
    if keepdims or axes is None:
        return reduced
    kept = iter(range(reduced.ndim))
    return dimshuffle(reduced, ["x" if axis in axes else next(kept) for axis in range(ndim)])


def _reduce(name: str, x: Operand, axis: Any, keepdims: bool) -> Variable:
    variable = as_variable(x)
    axes = None
    if axis is not None:
        axes = tuple(_axis(each, variable.ndim) for each in (axis if np.iterable(axis) else [axis]))
        if len(set(axes)) < len(axes):
            raise ValueError(f"axis {axis} names an axis twice")
        if name == "argmax" and len(axes) != 1:
            raise ValueError(f"argmax takes one axis or None, not {axis}")
        if len(axes) == variable.ndim:
            axes = None
    ndim = variable.ndim if keepdims else 0 if axes is None else variable.ndim - len(axes)
    return apply(Reduction(name, axes, bool(keepdims)), Type(_reduced_dtype(name, variable.type.dtype), ndim), variable)


def _reduced_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    if name == "argmax":
        return INDEX
    if name in ("max", "min") or dtype.kind == "f":
        return dtype
    return np.dtype(np.float64 if name == "mean" else np.uint64 if dtype.kind == "u" else np.int64)


def sum_(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Sum along axes, or of everything."""
    return _reduce("sum", x, axis, keepdims)


def mean(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Mean along axes, or of everything."""
    return _reduce("mean", x, axis, keepdims)


def max_(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Maximum along axes, or of everything."""
    return _reduce("max", x, axis, keepdims)


def min_(x: Operand, axis: Any = None, keepdims: bool = False) -> Variable:
    """Minimum along axes, or of everything."""
    return _reduce("min", x, axis, keepdims)


def argmax(x: Operand, axis: int | None = None, keepdims: bool = False) -> Variable:
    """Index of the maximum, the first of several equal ones; without an axis, in the flattened x."""
    return _reduce("argmax", x, axis, keepdims)


@dataclass(frozen=True)
class LogSumExp(Op):
    """Logarithm of the sum of exponentials along axes, None for all."""

    axes: tuple[int, ...] | None
    keepdims: bool

    def compute(self, *arrays: Any) -> Any:
        x = np.asarray(arrays[0])
        top = np.max(x, self.axes, keepdims=True, initial=-np.inf)
        top[~np.isfinite(top)] = 0
        sums = np.log(np.sum(np.exp(x - top), self.axes, keepdims=True)) + top
        return sums if self.keepdims else np.squeeze(sums, self.axes)

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        (x,) = inputs
        log, slope = (with_reduced_axes(each, x.ndim, self.axes, self.keepdims) for each in (output, g))
        return [exp(x - log) * slope]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("log_sum_exp", inputs[0][0], *(f"axis={axis}" for axis in self.axes or ()))


# --- products ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dot(Op):
    """Product of matrices and vectors.

    Parameters
    ----------
    by_kernels : bool, default False
        Whether the kernels compute it instead of BLAS, because the second matrix has few columns.
    """

    by_kernels: bool = False

    takes_out = True

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        if self.by_kernels:
            x, y = arrays
            out = np.empty((x.shape[0], y.shape[1]), x.dtype) if out is None else out
            for each in self.calls(arrays, out):
                each()
            return out
        return np.dot(*arrays, out=out)  # type: ignore[call-overload]

    def calls(self, arrays: Sequence[NDArray[Any]], out: NDArray[Any]) -> Calls:
        by_kernels = thin_product(*arrays, out) if self.by_kernels else None  # type: ignore[call-arg]
        if by_kernels is not None:
            return [by_kernels]
        # np.dot fills out with zeros first, but copies rows and columns with gaps for BLAS.
        function = np.matmul if all(array.flags.forc for array in arrays) else np.dot
        return [partial(function, *arrays, out=out)]

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        x, y = inputs
        if x.ndim == y.ndim == 1:
            return [g * y, g * x]
        if x.ndim == 1:
            return [dot(g, y.T), x.dimshuffle(0, "x") * g.dimshuffle("x", 0)]
        if y.ndim == 1:
            return [g.dimshuffle(0, "x") * y.dimshuffle("x", 0), dot(x.T, g)]
        return [dot(g, y.T), dot(x.T, g)]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("dot", inputs[0][0], inputs[1][0])


def dot(x: Operand, y: Operand) -> Variable:
    """Product of two matrices or vectors, or of anything with a scalar."""
    left, right = promoted(x, y)
    if left.ndim == 0 or right.ndim == 0:
        return mul(left, right)
    if left.ndim > 2 or right.ndim > 2:
        raise TypeError(f"dot takes vectors and matrices, not {left.type} and {right.type}")
    return apply(Dot(), Type(left.type.dtype, left.ndim + right.ndim - 2), left, right)


# --- softmax ----------------------------------------------------------------------------------------------------------


class ByKernel(Op):
    """An operation that a kernel computes."""

    kernel: ClassVar[InPlace]

    takes_out = True
    overwrites = KERNEL_OVERWRITES

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        return self.kernel(*arrays, out=out)

    def calls(self, arrays: Sequence[NDArray[Any]], out: NDArray[Any]) -> Calls:
        return self.kernel.calls(arrays, out)


@dataclass(frozen=True)
class Softmax(ByKernel):
    """Softmax of each row of a matrix."""

    kernel = InPlace(inplace_softmax)

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [apply(SoftmaxSlope(), output.type, output, g)]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("softmax", inputs[0][0])


@dataclass(frozen=True)
class SoftmaxSlope(ByKernel):
    """The gradient by the input of a softmax, from its output and the gradient by the output."""

    kernel = InPlace(inplace_backprop_softmax)

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        P, slope = inputs
        own, other = (sum_(P * each, axis=1, keepdims=True) for each in (slope, g))
        return [g * (slope - own) - slope * other, apply(SoftmaxSlope(), g.type, P, g)]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("softmax_slope", *(text for text, _ in inputs))


@dataclass(frozen=True)
class LogSoftmax(ByKernel):
    """Logarithm of the softmax of each row of a matrix, finite even where the softmax underflows."""

    kernel = InPlace(inplace_log_softmax)

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [g - softmax(inputs[0]) * sum_(g, axis=1, keepdims=True)]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("log_softmax", inputs[0][0])


def softmax(x: Operand) -> Variable:
    """Softmax of each row of a matrix; a vector becomes a matrix of one row."""
    variable = as_variable(x)
    if variable.ndim not in (1, 2):
        raise TypeError(f"softmax takes a matrix or a vector, not {variable.type}")
    if variable.type.dtype not in KERNEL_DTYPES:
        variable = cast(variable, np.float64)
    if variable.ndim == 1:
        variable = dimshuffle(variable, ("x", 0))
    return apply(Softmax(), variable.type, variable)


# --- making, joining, indexing ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arange(Op):
    """Numbers from a start to below a stop in steps."""

    dtype: np.dtype[Any]

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        return np.arange(*arrays, dtype=self.dtype)

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None, None, None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        texts = [text for text, _ in inputs]
        if texts[2] == "1":
            texts = texts[1:2] if texts[0] == "0" else texts[:2]
        return call("arange", *texts)


def arange(start: Operand, stop: Operand | None = None, step: Operand = 1, dtype: DTypeLike | None = None) -> Variable:
    """Numbers from start to below stop in steps; one number alone is the stop, and the start is 0."""
    if stop is None:
        start, stop = 0, start
    numbers = promoted(start, stop, step)
    if any(number.ndim for number in numbers):
        raise TypeError("arange takes scalars")
    found = numbers[0].type.dtype if dtype is None else np.dtype(dtype)
    if dtype is None and found.kind in "iu":
        found = np.dtype(np.int64 if found.kind == "i" else np.uint64)
    return apply(Arange(found), Type(found, 1), *numbers)


@dataclass(frozen=True)
class Join(Op):
    """Arrays joined along an axis."""

    axis: int

    def compute(self, *arrays: Any) -> Any:
        return np.concatenate(arrays, axis=self.axis)

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        found: Gradients = []
        begin: Operand = 0
        for source in inputs:
            end = begin + count(source, [self.axis])
            found.append(g[(slice(None),) * self.axis + (slice(begin, end),)])
            begin = end
        return found

    def text(self, inputs: Parts) -> tuple[str, int]:
        return f"concatenate([{', '.join(text for text, _ in inputs)}], axis={self.axis})", ATOM


def concatenate(tensors: Any, axis: int = 0) -> Variable:
    """Join arrays, of the same number of dimensions, along an axis."""
    if isinstance(tensors, Variable):
        raise TypeError("concatenate takes a sequence of variables")
    if not tensors:
        raise ValueError("concatenate needs at least one array")
    inputs = promoted(*tensors)
    ndims = {source.ndim for source in inputs}
    if len(ndims) > 1 or 0 in ndims:
        raise TypeError(f"concatenate takes arrays of equal numbers of dimensions, at least 1, not {sorted(ndims)}")
    return apply(Join(_axis(axis, inputs[0].ndim)), inputs[0].type, *inputs)


@dataclass(frozen=True)
class Hole:
    """The place of an input in an index, by number; the array itself is not counted."""

    number: int


@dataclass(frozen=True)
class Slice:
    """A slice; parts are int, Hole or None."""

    start: Any
    stop: Any
    step: Any


@dataclass(frozen=True)
class Index(Op):
    """An array indexed as in NumPy; items are int, None, Ellipsis, Slice or Hole."""

    items: tuple[Any, ...]

    views = True
    connects = slice(1)

    def key(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Return the index with the holes filled."""
        return tuple(_filled(item, values) for item in self.items)

    def compute(self, *arrays: Any) -> Any:
        return np.asarray(arrays[0])[self.key(arrays[1:])]

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        bounds = {part for item in self.items if isinstance(item, Slice) for part in (item.start, item.stop, item.step)}
        return tuple(
            source for i, source in enumerate(inputs[1:]) if Hole(i) in bounds or source.type.dtype.kind == "b"
        )

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        x, *others = inputs
        counting = next((i for i, source in enumerate(others) if isinstance(source.op, Arange)), None)
        return [
            apply(Scatter(self.items, counting), x.type, g, shape(x), *others),
            *([None] * len(others)),
        ]

    def text(self, inputs: Parts) -> tuple[str, int]:
        names = [text for text, _ in inputs[1:]]
        return f"{bracketed(inputs[0], ATOM)}[{', '.join(_item_text(item, names) for item in self.items)}]", ATOM


def _filled(item: Any, values: Sequence[Any]) -> Any:
    if isinstance(item, Hole):
        return values[item.number]
    if isinstance(item, Slice):
        return slice(*(_filled(part, values) for part in (item.start, item.stop, item.step)))
    return item


def _item_text(item: Any, names: Sequence[str]) -> str:
    if isinstance(item, Hole):
        return names[item.number]
    if isinstance(item, Slice):
        start, stop, step = (
            "" if part is None else _item_text(part, names) for part in (item.start, item.stop, item.step)
        )
        return f"{start}:{stop}" + (f":{step}" if step else "")
    return "..." if item is Ellipsis else str(item)


@dataclass(frozen=True)
class Scatter(Op):
    """Zeros in the shape in the second input, with the first input added at an index.

    Parameters
    ----------
    items : tuple
        As those of `Index`.
    counting : int or None
        Number of the index's input that is an `Arange`, if there is one.
    """

    items: tuple[Any, ...]
    counting: int | None

    connects = slice(1)

    def compute(self, *arrays: Any) -> Any:
        values, lengths, *others = arrays
        values = np.asarray(values)
        result = np.zeros(tuple(lengths), values.dtype)
        key = Index(self.items).key(others)
        if self._takes_no_element_twice(others):
            result[key] = values
        else:
            np.add.at(result, key, values)
        return result

    def without_lost_count(self, inputs: Sequence[Variable]) -> Scatter:
        """Return the operation for new inputs, whose `Arange` may have been replaced."""
        lost = self.counting is not None and not isinstance(inputs[2 + self.counting].op, Arange)
        return Scatter(self.items, None) if lost else self

    def _takes_no_element_twice(self, others: Sequence[Any]) -> bool:
        # If that is easy to see: slices and integers, a mask, or one element of each row.
        arrays = [np.asarray(other) for other in others if np.ndim(other) > 0]
        if len(arrays) < 2 and all(array.dtype.kind == "b" for array in arrays):
            return True
        if self.counting is None or any(array.ndim > 1 for array in arrays):
            return False
        rows = others[self.counting]
        counted = len(rows) == max(map(len, arrays)) and all(array.dtype.kind != "b" for array in arrays)
        return counted and (len(rows) == 0 or min(rows[0], rows[-1]) >= 0)

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[1:2]

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        values, _, *others = inputs
        return [apply(Index(self.items), values.type, g, *others), None, *([None] * len(others))]

    def text(self, inputs: Parts) -> tuple[str, int]:
        names = [text for text, _ in inputs[2:]]
        where = ", ".join(_item_text(item, names) for item in self.items)
        return f"scatter({inputs[0][0]}, {inputs[1][0]})[{where}]", ATOM


def index(x: Operand, items: Any) -> Variable:
    """Return x indexed as in NumPy: by slices, integers, arrays of them, None, Ellipsis and masks.

    All of them may be expressions.
    """
    variable = as_variable(x)
    holes: list[Variable] = []

    def hole(value: Any) -> Any:
        source = as_variable(value)
        if source.type.dtype.kind not in "iub" or (source.ndim == 0 and source.type.dtype.kind == "b"):
            raise TypeError(f"an index must hold integers, not {source!r} of type {source.type}")
        holes.append(source)
        return Hole(len(holes) - 1)

    def bound(value: Any) -> Any:
        return (
            value if value is None else _plain(value) if _is_plain(value) else hole(_integer_scalar(value, "a bound"))
        )

    template: list[Any] = []
    for item in items if isinstance(items, tuple) else (items,):
        if item is None or item is Ellipsis:
            template.append(item)
        elif isinstance(item, slice):
            template.append(Slice(bound(item.start), bound(item.stop), bound(item.step)))
        else:
            template.append(_plain(item) if _is_plain(item) else hole(item))
    op = Index(tuple(template))
    # Ask NumPy for the number of dimensions of the result.
    trial = np.empty((2,) * variable.ndim)
    values = [
        np.zeros((2 if source.type.dtype.kind == "b" else 1,) * source.ndim, source.type.dtype) for source in holes
    ]
    for source, value in zip(holes, values, strict=True):
        if source.ndim == 0:
            value[...] = 1
    flat = tuple(0 if isinstance(item, int) else _filled(item, values) for item in op.items)
    try:
        ndim = trial[flat].ndim
    except IndexError as error:
        raise IndexError(f"{variable.type} cannot be indexed by {items!r}: {error}") from None
    return apply(op, Type(variable.type.dtype, ndim), variable, *holes)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _plain(value: Any) -> int:
    return operator.index(value)


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
    sub=sub,
    sum=sum_,
    true_div=true_div,
)
