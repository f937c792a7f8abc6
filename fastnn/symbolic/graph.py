"""Variables and expressions: the graph that programs build and the other modules read.

A variable is either a leaf (an input, a constant, a shared variable) or the result of an operation on others.  It has a
dtype and a number of dimensions; its shape is known only at run time, where NumPy's rules of broadcasting hold.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial, partialmethod
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_array, check_choice
from fastnn.symbolic.configuration import config

#: Texts of expressions, each with its precedence.
Parts: TypeAlias = "list[tuple[str, int]]"

#: A Python integer gets the first of these that holds it.
INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint64)

#: What the operators and methods of `Variable` call, by name.  `ops` and `function` import this module and fill it in.
operations: dict[str, Callable[..., Variable]] = {}

RANKS = ("scalar", "vector", "matrix", "tensor3", "tensor4", "tensor5")


class _TypeFields(NamedTuple):
    dtype: np.dtype[Any]
    ndim: int


class Type(_TypeFields):
    """dtype and number of dimensions of a variable; a call makes an input of this type.

    Parameters
    ----------
    dtype : dtype
    broadcastable : int or sequence of bool
        The number of dimensions; or, as in Theano, whether each has length 1, of which only the number counts.
    name : str or None
        Ignored.
    """

    __slots__ = ()

    def __new__(cls, dtype: Any, broadcastable: int | Sequence[bool], name: str | None = None) -> Type:
        """Return the type."""
        ndim = broadcastable if isinstance(broadcastable, int) else len(broadcastable)
        return super().__new__(cls, np.dtype(dtype), ndim)

    @property
    def broadcastable(self) -> tuple[bool, ...]:
        """False for each dimension: any may have length 1, and then broadcasts."""
        return (False,) * self.ndim

    def __call__(self, name: str | None = None) -> Variable:
        """Return a new input."""
        return _registered(Variable(self, name=name))

    def __str__(self) -> str:
        if self == PACKED:
            return "pack of values"
        rank = RANKS[self.ndim] if self.ndim < len(RANKS) else f"tensor of {self.ndim} dimensions"
        return f"{self.dtype} {rank}"


#: What has no numbers of its own: several results in one, or the state of a random generator.
PACKED = Type(np.dtype(object), 0)


class Op:
    """An operation; equal operations on the same inputs give the same result.

    Attributes
    ----------
    views : bool
        Whether the result may share memory with the first input.
    lends : bool
        Whether the results that its value packs stay only until it is computed again.
    acts : bool
        Whether computing it does more than to return a result, so that each call does.
    takes_out : bool
        Whether `compute` takes ``out``, a C-contiguous array of the result's shape and dtype, for the result.
    in_threads : bool
        Whether `compute` may use several threads, those of the kernels.
    connects : slice
        The inputs by which the result has a gradient, even if it is 0.
    differentiable : bool
        Whether there are gradients by these inputs; if not, it is an error to ask for them.
    """

    views = False
    lends = False
    acts = False
    takes_out = False
    in_threads = False
    connects = slice(None)
    differentiable = True

    def compute(self, *arrays: Any) -> Any:
        """Return the value from the inputs' values."""
        raise NotImplementedError

    def calls(self, arrays: Sequence[NDArray[Any]], out: NDArray[Any]) -> list[Callable[[], Any]]:
        """Return calls that, in order, compute the result from the arrays and write it into out."""
        return [partial(self.compute, *arrays, out=out)]  # type: ignore[call-arg]  # some have it: takes_out

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> list[Variable | None]:
        """Return the gradients by the inputs, of their types, from that by the output g; None if there is none.

        If the output is a pack of values, g is a dictionary with the gradients by its parts, by their numbers; those
        that nothing depends on are missing.
        """
        raise NotImplementedError

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        """Return the inputs whose values, not only their shapes, decide the result's shape."""
        return ()

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        """Return variables whose shapes, broadcast, certainly make the result's, or None."""
        return None

    def length(self, inputs: tuple[Variable, ...]) -> int | None:
        """Return the number of elements of a result that is a vector, if the inputs' types tell it."""
        return None

    def text(self, inputs: Parts) -> tuple[str, int]:
        """Return the text of the expression and its precedence, from those of its inputs."""
        raise NotImplementedError


class Variable:
    """An expression of the given type: a leaf, or an operation on other variables.

    Operators, NumPy's indexing and the methods below make new expressions; nothing is computed.  ``==`` compares
    identity: `tensor.eq` compares values.

    Parameters
    ----------
    type_ : Type
    op : Op or None
        None for a leaf.
    inputs : tuple of Variable
    name : str or None
        For messages and pictures.
    """

    __array_ufunc__ = None  # NumPy's arrays leave operators with a variable to the variable

    #: Attributes that are not copied and not pickled.
    _passing: frozenset[str] = frozenset(["number"])

    #: Whether ``<``, ``<=``, ``>`` or ``>=`` made it.
    _compares = False

    def __init__(
        self, type_: Type, op: Op | None = None, inputs: tuple[Variable, ...] = (), name: str | None = None
    ) -> None:
        self.type = type_
        self.op = op
        self.inputs = inputs
        self.name = name
        self.number = next(_numbers)
        self._shapes = None if op is None else op.shapes(inputs)
        for source in inputs:
            unused.discard(source)

    @property
    def shapes(self) -> frozenset[Variable]:
        """Variables whose shapes, broadcast, make this one's; equal sets mean equal shapes."""
        return frozenset([self]) if self._shapes is None else self._shapes

    @property
    def like(self) -> Variable:
        """The simplest expression inside this one that certainly has its shape."""
        return next(iter(self.shapes)) if len(self.shapes) == 1 else self

    @property
    def owner(self) -> Apply | None:
        """The operation and its inputs; None for a leaf."""
        return None if self.op is None else Apply(self.op, self.inputs, (self,))

    @property
    def tag(self) -> SimpleNamespace:
        """What a program notes about the variable; ``tag.test_value``: see ``config.compute_test_value``."""
        found: SimpleNamespace = vars(self).setdefault("_tag", SimpleNamespace())
        return found

    def clone(self) -> Variable:
        """Return a leaf of the same type and name."""
        return self.type(self.name)

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self.type.dtype.name

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.type.ndim

    @property
    def broadcastable(self) -> tuple[bool, ...]:
        """False for each dimension: any may have length 1, and then broadcasts."""
        return self.type.broadcastable

    def __getstate__(self) -> Any:
        state = {name: value for name, value in vars(self).items() if name not in self._passing}
        return state if self.op is None or getattr(_listing, "under_way", False) else (_Behind(self), state)

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state[1] if isinstance(state, tuple) else state)
        self.number = next(_numbers)

    def __repr__(self) -> str:
        return self.name or f"<{self.type}>"

    def __bool__(self) -> bool:
        # As in Theano a program may ask whether it has a variable, but ``a < b < c`` would lose its first half.
        if self._compares:
            raise TypeError("a comparison is neither true nor false before it is computed: use T.switch to choose")
        return True

    def __len__(self) -> NoReturn:
        raise TypeError("an expression has no length before it is computed: use x.shape[0]")

    def __iter__(self) -> Iterator[Variable]:
        length = length_of(self)
        if length is None:
            raise TypeError("an expression cannot be iterated over before it is computed, unless it is a shape")
        return (self[i] for i in range(length))

    def __add__(self, other: Operand) -> Variable:
        return operations["add"](self, other)

    def __radd__(self, other: Operand) -> Variable:
        return operations["add"](other, self)

    def __sub__(self, other: Operand) -> Variable:
        return operations["sub"](self, other)

    def __rsub__(self, other: Operand) -> Variable:
        return operations["sub"](other, self)

    def __mul__(self, other: Operand) -> Variable:
        return operations["mul"](self, other)

    def __rmul__(self, other: Operand) -> Variable:
        return operations["mul"](other, self)

    def __truediv__(self, other: Operand) -> Variable:
        return operations["true_div"](self, other)

    def __rtruediv__(self, other: Operand) -> Variable:
        return operations["true_div"](other, self)

    def __floordiv__(self, other: Operand) -> Variable:
        return operations["int_div"](self, other)

    def __rfloordiv__(self, other: Operand) -> Variable:
        return operations["int_div"](other, self)

    def __mod__(self, other: Operand) -> Variable:
        return operations["mod"](self, other)

    def __rmod__(self, other: Operand) -> Variable:
        return operations["mod"](other, self)

    def __pow__(self, other: Operand) -> Variable:
        return operations["power"](self, other)

    def __rpow__(self, other: Operand) -> Variable:
        return operations["power"](other, self)

    def __divmod__(self, other: Operand) -> tuple[Variable, Variable]:
        return self // other, self % other

    def __rdivmod__(self, other: Operand) -> tuple[Variable, Variable]:
        return other // self, other % self

    def __and__(self, other: Operand) -> Variable:
        return operations["and_"](self, other)

    def __rand__(self, other: Operand) -> Variable:
        return operations["and_"](other, self)

    def __or__(self, other: Operand) -> Variable:
        return operations["or_"](self, other)

    def __ror__(self, other: Operand) -> Variable:
        return operations["or_"](other, self)

    def __xor__(self, other: Operand) -> Variable:
        return operations["xor"](self, other)

    def __rxor__(self, other: Operand) -> Variable:
        return operations["xor"](other, self)

    def __invert__(self) -> Variable:
        return operations["invert"](self)

    def __matmul__(self, other: Operand) -> Variable:
        return operations["dot"](self, other)

    def __rmatmul__(self, other: Operand) -> Variable:
        return operations["dot"](other, self)

    def __neg__(self) -> Variable:
        return operations["neg"](self)

    def __pos__(self) -> Variable:
        return self

    def __abs__(self) -> Variable:
        return operations["abs"](self)

    def __lt__(self, other: Operand) -> Variable:
        return _compared("lt", self, other)

    def __le__(self, other: Operand) -> Variable:
        return _compared("le", self, other)

    def __gt__(self, other: Operand) -> Variable:
        return _compared("gt", self, other)

    def __ge__(self, other: Operand) -> Variable:
        return _compared("ge", self, other)

    def __getitem__(self, items: Any) -> Variable:
        return operations["index"](self, items)

    @property
    def shape(self) -> Variable:
        """The shape, an int64 vector."""
        return operations["shape"](self)

    @property
    def size(self) -> Variable:
        """The number of elements, an int64 scalar."""
        return operations["count"](self)

    @property
    def T(self) -> Variable:
        """The axes in reverse order."""
        return operations["dimshuffle"](self, tuple(reversed(range(self.ndim))))

    def dimshuffle(self, *pattern: Any) -> Variable:
        """Rearrange axes: numbers of axes in their new order, "x" for a new axis of length 1."""
        return operations["dimshuffle"](
            self, tuple(pattern[0] if len(pattern) == 1 and np.iterable(pattern[0]) else pattern)
        )

    def transpose(self, *axes: Any) -> Variable:
        """Axes in another order, by default the reverse."""
        pattern = axes[0] if len(axes) == 1 and np.iterable(axes[0]) else axes or range(self.ndim)[::-1]
        return operations["dimshuffle"](self, pattern)

    def ravel(self) -> Variable:
        """All elements in a vector."""
        return operations["flatten"](self)

    def reshape(self, *shape: Any, ndim: int | None = None) -> Variable:
        """Give the elements another shape, of numbers and integer scalars, at most one of them -1."""
        return operations["reshape"](self, shape[0] if len(shape) == 1 else shape, ndim)

    def flatten(self, ndim: int | None = None, outdim: int | None = None) -> Variable:
        """Join the last axes to one, so that ndim, 1 by default, are left."""
        return operations["flatten"](self, ndim, outdim)

    def sum(self, axis: Any = None, dtype: Any = None, keepdims: bool = False, acc_dtype: Any = None) -> Variable:
        """Sum along axes, or of everything."""
        return operations["sum"](self, axis, dtype, keepdims, acc_dtype)

    def mean(self, axis: Any = None, dtype: Any = None, keepdims: bool = False, acc_dtype: Any = None) -> Variable:
        """Mean along axes, or of everything."""
        return operations["mean"](self, axis, dtype, keepdims=keepdims, acc_dtype=acc_dtype)

    def max(self, axis: Any = None, keepdims: bool = False) -> Variable:
        """Maximum along axes, or of everything."""
        return operations["max"](self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Variable:
        """Minimum along axes, or of everything."""
        return operations["min"](self, axis, keepdims)

    def argmax(self, axis: Any = None, keepdims: bool = False) -> Variable:
        """Index of the maximum; the first of several equal ones."""
        return operations["argmax"](self, axis, keepdims)

    def dot(self, other: Operand) -> Variable:
        """Product of matrices and vectors."""
        return operations["dot"](self, other)

    def clip(self, low: Operand, high: Operand) -> Variable:
        """Limit to the range from low to high."""
        return operations["clip"](self, low, high)

    def astype(self, dtype: Any) -> Variable:
        """Convert to another dtype."""
        return operations["cast"](self, dtype)

    def eval(self, values: dict[Variable, Any] | None = None) -> Any:
        """Compute the value, given those of the inputs."""
        return operations["eval"](self, values or {})


class Apply(NamedTuple):
    """The node of a graph that Theano calls so: an operation, its inputs and its result."""

    op: Op
    inputs: tuple[Variable, ...]
    outputs: tuple[Variable]


def _compared(name: str, variable: Variable, other: Operand) -> Variable:
    found = operations[name](variable, other)
    found._compares = True
    return found


class Constant(Variable):
    """A value that is part of the expression.

    Parameters
    ----------
    value : array
        Not copied.
    """

    def __init__(self, value: NDArray[Any]) -> None:
        super().__init__(Type(value.dtype, value.ndim))
        self.value = value

    @property
    def data(self) -> NDArray[Any]:
        """The value."""
        return self.value


class Shared(Variable):
    """A value that stays between calls of functions, which read and update it.

    Parameters
    ----------
    value : array
    name : str or None
    exposed : bool
        Whether other code has the array, and may write into it.
    strict : bool, default False
        Whether `set_value` takes only arrays of the dtype.
    allow_downcast : bool, optional
        Whether `set_value` converts to a narrower dtype.

    Attributes
    ----------
    array : array
        The value itself.
    exposed : bool
    is_parameter : bool
        Whether a gradient by it was taken.
    trained : int
        When a function that trains it was last called, as `now` counts; 0: never.
    home : object
        The network, if any, that it and others are the parameters of; see `lowering`.
    default_update : Variable or None
        The update that a function makes of it unless it is given another.
    """

    _passing = frozenset(["number", "home", "_prepared"])

    def __init__(
        self,
        value: NDArray[Any],
        name: str | None,
        exposed: bool,
        strict: bool = False,
        allow_downcast: bool | None = None,
    ) -> None:
        super().__init__(Type(value.dtype, value.ndim), name=name)
        self._strict, self._downcast = strict, allow_downcast
        self.array = value
        self.exposed = exposed
        self.is_parameter = False
        self.trained = 0
        self.home: Any = None
        self.default_update: Variable | None = None
        self._prepared: dict[Any, Any] = {}
        self._has_clones = False

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.home, self._prepared = None, {}

    def __copy__(self) -> Shared:
        # In Theano a copy shares the value, also after a change of either.
        return self

    def clone(self) -> Shared:
        """Return another variable with the same value, also after a change of either."""
        self._has_clones = self.exposed = True
        return Clone(self)

    def put(self, array: NDArray[Any], exposed: bool = False) -> None:
        """Make an array the value."""
        self.array = array
        self.exposed = exposed or self._has_clones
        self._prepared.clear()

    def changed(self) -> None:
        """Forget what was prepared from the value before it changed in place."""
        self._prepared.clear()

    def get_value(self, borrow: bool = False, return_internal_type: bool = False) -> NDArray[Any]:
        """Return the value.

        Parameters
        ----------
        borrow : bool, default False
            Whether to return the array itself rather than a copy.  Writing into it changes the value.  Functions may
            update it in place or replace it.
        return_internal_type : bool
            Ignored: arrays are the internal type.
        """
        unused.discard(self)
        if not borrow:
            return self.array.copy()
        self.exposed = True
        self._prepared.clear()
        return self.array

    def set_value(self, new_value: Any, borrow: bool = False) -> None:
        """Replace the value by another of the same dtype and number of dimensions.

        Parameters
        ----------
        new_value : array_like
        borrow : bool, default False
            Whether to keep an array of the right dtype itself rather than a copy.
        """
        what = f"the new value of {self!r}"
        if self._strict and not (isinstance(new_value, np.ndarray) and new_value.dtype == self.type.dtype):
            raise TypeError(f"{what} must be an array of dtype {self.dtype}, as it was made with strict=True")
        array = check_array(new_value, self.type.dtype, self.ndim, what, self._downcast)
        self.put(array if borrow else array.copy(), exposed=borrow)

    def may_change(self) -> bool:
        """Return whether other code has the array, and may write into it unnoticed.

        It has not if nothing else refers to the array, nor to that of which it is a view: `exposed` ends then.
        Clones do refer to it.
        """
        if self.exposed and not self._has_clones and sys.getrefcount(self.array) <= _UNSHARED:
            base = self.array.base
            alone = base is None
            if isinstance(base, np.ndarray) and base.base is None:
                del base
                alone = sys.getrefcount(self.array.base) <= _UNSHARED
            self.exposed = not alone
        return self.exposed

    def zero(self, borrow: bool = False) -> None:
        """Make the value zeros."""
        self.put(np.zeros_like(self.array))

    def prepared(self, key: Any, prepare: Callable[[NDArray[Any]], Any]) -> Any:
        """Return what a function makes of the value, and keep it under a key until the value changes.

        If other code has the array, it may change unnoticed, so nothing is kept.
        """
        if self.exposed:
            return prepare(self.array)
        if key not in self._prepared:
            self._prepared[key] = prepare(self.array)
        return self._prepared[key]


class Clone(Shared):
    """A shared variable whose value is that of another one.

    Parameters
    ----------
    of : Shared
    """

    def __init__(self, of: Shared) -> None:
        self._of = of
        super().__init__(of.array, of.name, True, of._strict, of._downcast)
        self._has_clones = True  # it is one itself

    @property
    def array(self) -> NDArray[Any]:
        """The value of the other variable."""
        return self._of.array

    @array.setter
    def array(self, array: NDArray[Any]) -> None:
        self._of.put(array)

    def clone(self) -> Shared:
        """Return another variable with the same value."""
        return self._of.clone()


class _Behind:
    """Everything that an expression depends on, each after its inputs, so that its pickle is not nested deeply."""

    def __init__(self, variable: Variable) -> None:
        self._variable = variable

    def __reduce__(self) -> Any:
        return list, (), None, self._listed()

    def _listed(self) -> Iterator[Variable]:
        _listing.under_way = True
        try:
            yield from sort(self._variable.inputs)
        finally:
            _listing.under_way = False


#: Whether a `_Behind` is being listed; its variables need none of their own then.
_listing = threading.local()

_probe = (object(),)

#: References that `sys.getrefcount` counts to what only one other object refers to.
_UNSHARED = sys.getrefcount(_probe[0])

#: The largest number of variables in `Variable.shapes`.
MOST_SHAPES = 4

V = TypeVar("V", bound=Variable)

Operand: TypeAlias = "Variable | NDArray[Any] | np.generic | float | list[Any] | tuple[Any, ...]"

_numbers = itertools.count(1)

#: Variables of programs that belong to no expression and no function yet.
unused: weakref.WeakSet[Variable] = weakref.WeakSet()


def now() -> int:
    """Return a number between those of the variables made before and after this call."""
    return next(_numbers)


def apply(op: Op, type_: Type, *inputs: Variable) -> Variable:
    """Return the result of an operation, an expression."""
    result = _registered(Variable(type_, op, inputs))
    if config.compute_test_value != "off":
        _test(op, result)
    return result


def _test(op: Op, result: Variable) -> None:
    # Compute the test value from those of the inputs, if they have any; an error shows where the program is wrong.
    values = []
    for variable in result.inputs:
        value = getattr(variable.tag, "test_value", None)
        if isinstance(variable, Constant):
            value = variable.value
        elif isinstance(variable, Shared):
            value = variable.array
        elif value is None:
            return
        elif variable.op is None:
            value = check_array(value, variable.type.dtype, variable.ndim, f"the test value of {variable!r}")
        values.append(value)
    with np.errstate(all="ignore"):
        result.tag.test_value = op.compute(*values)


def _registered(variable: V) -> V:
    unused.add(variable)
    return variable


def shared(
    value: Any,
    name: str | None = None,
    strict: bool = False,
    allow_downcast: bool | None = None,
    borrow: bool = False,
    broadcastable: Sequence[bool] | None = None,
    target: str = "cpu",
) -> Shared:
    """Return a variable whose value stays between calls of functions.

    Parameters
    ----------
    value : array_like of real numbers, or numpy.random.RandomState
    name : str or None
    strict : bool, default False
        Whether later values must be arrays of the same dtype.
    allow_downcast : bool, optional
        Whether later values may be converted to the dtype, whatever theirs is.
    borrow : bool, default False
        Whether to keep an array itself rather than a copy.
    broadcastable : sequence of bool, optional
        Which axes have length 1.  Only checked: any axis of length 1 broadcasts.
    target : {"cpu"}
    """
    check_choice(target, "target", ["cpu"])
    if isinstance(value, Variable):
        raise TypeError("shared takes a value, not an expression: compute it first, with .eval()")
    if isinstance(value, np.random.RandomState):
        return _registered(operations["shared_state"](value, name))  # type: ignore[return-value]  # it is a Shared
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"shared takes real numbers, not {value!r} ({type(value).__name__})")
    pattern = (False,) * array.ndim if broadcastable is None else tuple(broadcastable)
    if len(pattern) != array.ndim or any(one and length != 1 for one, length in zip(pattern, array.shape, strict=True)):
        raise TypeError(f"broadcastable is {pattern}, but the value has the shape {array.shape}")
    return _registered(Shared(array if borrow else array.copy(), name, borrow, strict, allow_downcast))


def constant(value: Any, dtype: Any = None) -> Constant:
    """Return a constant with a copy of the value, which must hold numbers or booleans.

    Without a dtype, a Python integer gets the least of int8, int16, int32 and int64 that holds it.  A Python float gets
    ``config.floatX`` if that is float32; otherwise float32 if that holds it exactly, or else float64.
    """
    with np.errstate(all="ignore"):  # a float may be infinite as a float32
        array = np.array(value, _dtype_of_number(value) if dtype is None else dtype)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{value!r} ({type(value).__name__}) holds no real numbers: it cannot be part of an expression")
    return Constant(array)


def _dtype_of_number(value: Any) -> type[np.generic] | str | None:
    if isinstance(value, np.generic):  # some of these are Python numbers too
        return None
    if isinstance(value, int):
        return next((dtype for dtype in INTEGERS if np.iinfo(dtype).min <= value <= np.iinfo(dtype).max), None)
    if isinstance(value, float):
        if config.floatX == "float32":
            return np.float32
        with np.errstate(over="ignore"):
            return np.float32 if float(np.float32(value)) == value else np.float64
    return config.floatX if isinstance(value, (list, tuple)) and not value else None


def as_variable(value: Any) -> Variable:
    """Return a variable itself, a list with variables as one that stacks them, and any other value as a constant."""
    if isinstance(value, Variable):
        return value
    if isinstance(value, (list, tuple)) and any(isinstance(each, Variable) for each in value):
        return operations["stack"](value)
    return constant(value)


def methods(*functions: Callable[..., Any]) -> None:
    """Make functions of a variable methods of `Variable`, by their names."""
    for function in functions:
        name = getattr(function, "name", None) or function.__name__.rstrip("_")
        setattr(Variable, name, partialmethod(_call, function))


def _call(variable: Variable, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return function(variable, *arguments, **options)


def length_of(vector: Variable) -> int | None:
    """Return the number of elements of a vector, if its expression tells it: of a shape, a part of one, a constant."""
    if vector.ndim != 1:
        return None
    if isinstance(vector, Constant):
        return len(vector.value)
    return None if vector.op is None else vector.op.length(vector.inputs)


def sort(
    outputs: Iterable[Variable],
    stops: Collection[Variable] = (),
    sources: Callable[[Variable], Iterable[Variable]] = lambda variable: variable.inputs,
) -> list[Variable]:
    """Return all variables that the outputs depend on, and these themselves, each after its inputs.

    Parameters
    ----------
    outputs : iterable of Variable
    stops : collection of Variable
        Treated as leaves.
    sources : callable
        Returns what a variable depends on; its inputs by default.
    """
    order: list[Variable] = []
    seen: set[Variable] = set()
    pending = [(variable, False) for variable in reversed(list(outputs))]
    while pending:
        variable, ready = pending.pop()
        if ready:
            order.append(variable)
        elif variable not in seen:
            seen.add(variable)
            pending.append((variable, True))
            if variable not in stops:
                pending.extend((source, False) for source in reversed(tuple(sources(variable))))
    return order


def replaced(outputs: Iterable[Variable], replacements: Mapping[Variable, Variable]) -> list[Variable]:
    """Return expressions with some variables replaced; the replacements themselves stay as they are."""
    wanted = list(outputs)
    done = dict(replacements)
    for variable in sort(wanted, done):
        if variable not in done:
            inputs = tuple(done[source] for source in variable.inputs)
            same = all(new is old for new, old in zip(inputs, variable.inputs, strict=True))
            done[variable] = variable if same else Variable(variable.type, variable.op, inputs, variable.name)
    return [done[variable] for variable in wanted]


def shared_in(*outputs: Variable) -> list[Shared]:
    """Return the shared variables that outputs depend on, in the order of their creation."""
    found = [variable for variable in sort(outputs) if isinstance(variable, Shared)]
    return sorted(found, key=lambda variable: variable.number)
