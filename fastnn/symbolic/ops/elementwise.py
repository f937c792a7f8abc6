"""Functions of the elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn.kernels.activations import ACTIVATIONS, inplace_activation, inplace_backprop_activation
from fastnn.symbolic.configuration import config
from fastnn.symbolic.graph import (
    MOST_SHAPES,
    PACKED,
    Constant,
    Op,
    Operand,
    Parts,
    Type,
    Variable,
    apply,
    as_variable,
    constant,
)
from fastnn.symbolic.inplace import KERNEL_DTYPES, InPlace
from fastnn.symbolic.ops.shapes import sum_to, zeros_like
from fastnn.symbolic.ops.texts import ATOM, COMPARISON, POWER, PRODUCT, SIGN, SUM, Calls, Gradients, bracketed, call

#: Constants with more elements than this are converted by an operation, only when needed.
LARGEST_CONVERTED = 10_000


@dataclass(frozen=True)
class Elementwise(Op):
    """A function of the elements, with NumPy's broadcasting.

    Parameters
    ----------
    name : str
    function : callable
        Takes arrays, and ``out``.
    kind : {"same", "square", "whole", "signed", "bits", "power", "float", "quotient", "bool"}
        dtype of the result: the inputs' (three kinds, because NumPy's square and floor division of bool are int8); the
        same, but bool is refused; the same, but real numbers are refused; the same, but int8 for bool; a floating one;
        the same, but ``config.floatX`` for integers; bool.
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
        if self.kind == "bits" and dtype.kind == "f":
            raise TypeError(f"{self.name} takes integers or booleans, not real numbers")
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


def _special(name: str, *first: Any) -> Callable[..., Any]:
    # A function of SciPy, which is slow to import.
    def function(*arrays: Any, out: NDArray[Any] | None = None) -> Any:
        from scipy import special

        found = np.asarray(getattr(special, name)(*first, *arrays), arrays[0].dtype)
        return found if out is None else np.positive(found, out=out)

    return function


def _round_away(x: Any, out: NDArray[Any] | None = None) -> Any:
    # Halves go away from 0.
    found = np.trunc(x)
    return np.add(found, np.copysign(abs(x - found) >= 0.5, x), out=out)


def _piecewise_sigmoid(x: Any, out: NDArray[Any] | None = None) -> Any:
    # Theano's approximation: a hyperbola, a line, a constant.
    half = np.abs(x) / 2
    middle = 0.935409070603099 + 0.0458812946797165 * (half - 1.7)
    found = np.where(half < 1.7, 1.5 * half / (1 + half), np.where(half < 3, middle, 0.99505475368673))
    return np.add(np.copysign(found.astype(x.dtype) / 2, x), x.dtype.type(0.5), out=out)


def _sigmoid_crossentropy(x: Any, y: Any, out: NDArray[Any] | None = None) -> Any:
    return np.add(np.log1p(np.exp(-np.abs(x))), x * ((x > 0) - y), out=out)


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


# Bits, and truth values.
and_ = Elementwise("and", np.bitwise_and, None, "&", SUM, "bits")
or_ = Elementwise("or", np.bitwise_or, None, "|", SUM, "bits")
xor = Elementwise("xor", np.bitwise_xor, None, "^", SUM, "bits")
invert = Elementwise("invert", np.invert, None, "~", SIGN, "bits")
isnan = Elementwise("isnan", np.isnan, kind="bool")
isinf = Elementwise("isinf", np.isinf, kind="bool")

# Powers and logarithms.
inv = Elementwise("inv", np.reciprocal, lambda x, z, g: [-(g * sqr(z))], kind="float")
exp2 = Elementwise("exp2", np.exp2, lambda x, z, g: [g * z * _like(math.log(2), x)], kind="float")
log2 = Elementwise("log2", np.log2, lambda x, z, g: [g / (x * _like(math.log(2), x))], kind="float")
log10 = Elementwise("log10", np.log10, lambda x, z, g: [g / (x * _like(math.log(10), x))], kind="float")

# Angles and hyperbolas.
deg2rad = Elementwise("deg2rad", np.deg2rad, lambda x, z, g: [g * _like(math.pi / 180, x)], kind="float")
rad2deg = Elementwise("rad2deg", np.rad2deg, lambda x, z, g: [g * _like(180 / math.pi, x)], kind="float")
sin: Elementwise = Elementwise("sin", np.sin, lambda x, z, g: [g * cos(x)], kind="float")
cos: Elementwise = Elementwise("cos", np.cos, lambda x, z, g: [-(g * sin(x))], kind="float")
tan = Elementwise("tan", np.tan, lambda x, z, g: [g / sqr(cos(x))], kind="float")
arcsin = Elementwise("arcsin", np.arcsin, lambda x, z, g: [g / sqrt(1 - sqr(x))], kind="float")
arccos = Elementwise("arccos", np.arccos, lambda x, z, g: [-(g / sqrt(1 - sqr(x)))], kind="float")
arctan = Elementwise("arctan", np.arctan, lambda x, z, g: [g / (1 + sqr(x))], kind="float")
arctan2 = Elementwise(
    "arctan2",
    np.arctan2,
    lambda y, x, z, g: [g * x / (sqr(x) + sqr(y)), -(g * y) / (sqr(x) + sqr(y))],
    kind="float",
)
sinh: Elementwise = Elementwise("sinh", np.sinh, lambda x, z, g: [g * cosh(x)], kind="float")
cosh: Elementwise = Elementwise("cosh", np.cosh, lambda x, z, g: [g * sinh(x)], kind="float")
arcsinh = Elementwise("arcsinh", np.arcsinh, lambda x, z, g: [g / sqrt(sqr(x) + 1)], kind="float")
arccosh = Elementwise("arccosh", np.arccosh, lambda x, z, g: [g / sqrt(sqr(x) - 1)], kind="float")
arctanh = Elementwise("arctanh", np.arctanh, lambda x, z, g: [g / (1 - sqr(x))], kind="float")

# Functions that SciPy computes.
erf = Elementwise(
    "erf", _special("erf"), lambda x, z, g: [g * exp(-sqr(x)) * _like(2 / math.sqrt(math.pi), x)], kind="float"
)
erfc = Elementwise(
    "erfc", _special("erfc"), lambda x, z, g: [-(g * exp(-sqr(x)) * _like(2 / math.sqrt(math.pi), x))], kind="float"
)
erfinv = Elementwise(
    "erfinv", _special("erfinv"), lambda x, z, g: [g * exp(sqr(z)) * _like(math.sqrt(math.pi) / 2, x)], kind="float"
)
gamma = Elementwise("gamma", _special("gamma"), lambda x, z, g: [g * z * psi(x)], kind="float")
gammaln = Elementwise("gammaln", _special("gammaln"), lambda x, z, g: [g * psi(x)], kind="float")
psi: Elementwise = Elementwise("psi", _special("psi"), lambda x, z, g: [g * tri_gamma(x)], kind="float")
# x * log(y), and 0 where x is 0.
xlogy0 = Elementwise("xlogy0", _special("xlogy"), lambda x, y, z, g: [g * log(y), g * x / y], kind="float")
tri_gamma: Elementwise = Elementwise("tri_gamma", _special("polygamma", 1), kind="float")

ultra_fast_sigmoid = Elementwise(
    "ultra_fast_sigmoid", _piecewise_sigmoid, lambda x, z, g: [g * z * (1 - z)], kind="float"
)
# -(y * log(p) + (1 - y) * log(1 - p)), where p is sigmoid(x).
sigmoid_crossentropy = Elementwise(
    "sigmoid_binary_crossentropy",
    _sigmoid_crossentropy,
    lambda x, y, z, g: [g * (sigmoid(x) - y), -(g * x)],
    kind="float",
)

# Whole numbers near real ones.
floor = Elementwise("floor", np.floor, kind="float")
ceil = Elementwise("ceil", np.ceil, kind="float")
trunc = Elementwise("trunc", np.trunc, kind="float")
# Of two integers that are as near, the even one, or the one farther from 0.
round_half_to_even = Elementwise("round", np.rint, kind="float")
round_half_away_from_zero = Elementwise("round_half_away_from_zero", _round_away, kind="float")


def _like(number: float, x: Variable) -> Variable:
    return constant(number, x.type.dtype)


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


def dtype_of(dtype: DTypeLike | None) -> np.dtype[Any]:
    """Return the dtype that a program names; "floatX" means that of the configuration."""
    return np.dtype(config.floatX if dtype == "floatX" else dtype)


def cast(x: Operand, dtype: DTypeLike | None) -> Variable:
    """Convert x to a dtype; "floatX" means that of the configuration."""
    variable, wanted = as_variable(x), dtype_of(dtype)
    if wanted == variable.type.dtype:
        return variable
    if wanted.kind not in "biuf":
        raise TypeError(f"dtype must be one of real numbers, not {dtype!r}")
    if variable.type == PACKED:
        raise TypeError(f"{variable!r} holds no numbers")
    if isinstance(variable, Constant) and variable.value.size <= LARGEST_CONVERTED:
        return constant(variable.value, wanted)
    return apply(Cast(wanted), Type(wanted, variable.ndim), variable)
