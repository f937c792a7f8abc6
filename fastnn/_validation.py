"""The one place where input is doubted.  Kernels trust what leaves here.

Each function takes a value from the user and the name of the argument.  It returns the value in the form that the
engine uses, or raises a TypeError or ValueError that names the argument, what it was and what was expected.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import numbers
import operator
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnn.engine.rows import all_finite
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.kernels.blas import MAX_DIMENSION
from fastnn.kernels.losses import LOSSES
from fastnn.kernels.rows import UINT8_SCALE, CSRRows

Rows = NDArray[Any] | CSRRows
T = TypeVar("T")

FLOATING = (np.dtype(np.float32), np.dtype(np.float64))
STORED = (np.dtype(np.uint8), *FLOATING)

# As many numbers as stay in a cache while they are read twice.
CHECKED_AT_ONCE = 1 << 17


def check_integer(value: Any, name: str, minimum: int, maximum: int | None = None) -> int:
    """Return value as an int of at least minimum and, if given, at most maximum."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r} ({type(value).__name__})") from None
    if number < minimum or (maximum is not None and number > maximum):
        upper = "" if maximum is None else f" and at most {maximum}"
        raise ValueError(f"{name} must be at least {minimum}{upper}, not {number}")
    return number


def check_threads(n_threads: Any) -> int | None:
    """Return n_threads, at least 1, or None."""
    return None if n_threads is None else check_integer(n_threads, "n_threads", 1, 1024)


def check_number(value: Any, name: str, minimum: float, below: float = math.inf, *, open_left: bool = False) -> float:
    """Return value as a float with minimum <= value < below (minimum < value if open_left)."""
    if type(value) is not float and (isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real)):
        raise TypeError(f"{name} must be a number, not {value!r} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        number = math.inf if value == abs(value) else -math.inf
    if not (minimum <= number < below) or (open_left and number == minimum):
        lower = "above" if open_left else "at least"
        upper = "finite" if below == math.inf else f"below {below:g}"
        raise ValueError(f"{name} must be {lower} {minimum:g} and {upper}, not {number!r}")
    return number


def check_choice(value: Any, name: str, choices: Iterable[T]) -> T:
    """Return value if it is one of the choices."""
    known = list(choices)
    value = str(value) if isinstance(value, str) else value  # NumPy has its own str
    for choice in known:
        if type(choice) is type(value) and choice == value:
            return choice
    raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {value!r}")


def check_sizes(sizes: Any) -> tuple[int, ...]:
    """Return layer widths, input first: two or more positive integers that fit BLAS's."""
    if isinstance(sizes, (str, bytes)) or not isinstance(sizes, Iterable):
        raise TypeError(f"sizes must be a sequence of integers such as [784, 20, 10], or of layers, not {sizes!r}")
    widths = tuple(check_integer(size, f"sizes[{i}]", 1, MAX_DIMENSION) for i, size in enumerate(sizes))
    if len(widths) < 2:
        raise ValueError(f"sizes must hold at least the numbers of inputs and of outputs, not {list(widths)}")
    return widths


def check_layers(layers: Sequence[Any], kinds: Iterable[type]) -> tuple[Any, ...]:
    """Return records of one or more layers that can follow each other."""
    for i, layer in enumerate(layers):
        if type(layer) not in kinds:
            raise TypeError(f"layers[{i}] must be a layer such as Dense(10), as all others, not {layer!r}")
    if not layers:
        raise ValueError("layers must hold at least one layer, that of the outputs")
    output = layers[-1]
    if output.dropout is not None:
        raise ValueError("the output layer must have no dropout: only hidden units are dropped")
    if output.activation is not None:
        raise ValueError(
            f"the output layer must have no activation, for the loss decides what follows it, not {output.activation!r}"
        )
    if output.batch_norm:
        raise ValueError("the output layer must have no batch_norm: only hidden layers are normalised")
    return tuple(layers)


def check_instances(values: Any, kinds: Iterable[type], name: str) -> tuple[Any, ...]:
    """Return one or more objects of these types as a tuple."""
    allowed = tuple(kinds)
    found = tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes)) else None
    if not found or not all(type(value) in allowed for value in found):
        names = " and ".join(kind.__name__ for kind in allowed)
        raise TypeError(f"{name} must be a sequence of one or more {names}, not {values!r}")
    return found


def check_dicts(values: Any, name: str) -> list[dict[str, Any]]:
    """Return a list of dictionaries, as JSON has them."""
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{name} must be a list of objects, not {values!r}")
    return values


def check_increasing(values: Any, name: str) -> tuple[float, ...]:
    """Return none, or two or more finite numbers, each above the one before by a finite step, as floats."""
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes)):
        raise TypeError(f"{name} must be a sequence of numbers, not {values!r}")
    found = tuple(check_number(value, f"{name}[{i}]", -math.inf, open_left=True) for i, value in enumerate(values))
    if len(found) == 1 or not all(0 < high - low < math.inf for low, high in itertools.pairwise(found)):
        raise ValueError(f"{name} must be none, or two or more numbers that increase by finite steps, not {values!r}")
    return found


def check_input_shape(shape: Any) -> tuple[int, ...]:
    """Shape of a row, (n,) or (height, width, channels): positive integers whose product BLAS can count.

    An integer is for (n,), and (height, width) for images of one channel.
    """
    if shape is None:
        raise ValueError(
            "input_shape must say how many inputs the layers have, such as input_shape=784, or (28, 28, 1) for images"
        )
    lengths = list(shape) if isinstance(shape, Iterable) and not isinstance(shape, (str, bytes)) else [shape]
    if not 1 <= len(lengths) <= 3:
        raise ValueError(
            f"input_shape must be one integer, (height, width) or (height, width, channels), not {shape!r}"
        )
    checked = tuple(check_integer(length, "input_shape", 1, MAX_DIMENSION) for length in lengths)
    if math.prod(checked) > MAX_DIMENSION:
        raise ValueError(f"input_shape must have at most {MAX_DIMENSION} numbers, not {math.prod(checked)}")
    return (*checked, 1) if len(checked) == 2 else checked


def check_pair(value: Any, name: str, minimum: int = 1) -> tuple[int, int]:
    """Return two integers of at least minimum, down and across: one stands for both."""
    given = list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [value, value]
    if len(given) != 2:
        raise ValueError(f"{name} must be an integer or two, down and across, not {value!r}")
    first, second = (check_integer(number, name, minimum, MAX_DIMENSION) for number in given)
    return first, second


def check_activations(activation: str | Sequence[str], n_hidden: int) -> tuple[str, ...]:
    """Return a known name for each hidden layer."""
    names = [activation] * n_hidden if isinstance(activation, str) else list(activation)
    if isinstance(activation, str):
        check_choice(activation, "activation", ACTIVATIONS)
    if len(names) != n_hidden:
        raise ValueError(
            f"activation must be one name or a list of {n_hidden}, one a hidden layer with weights, not {activation!r}"
        )
    return tuple(check_choice(name, f"activation[{i}]", ACTIVATIONS) for i, name in enumerate(names))


def check_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64."""
    try:
        found = None if dtype is None else np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found not in FLOATING:
        raise ValueError(f"dtype must be 'float32' or 'float64', not {dtype!r}")
    return found


def check_seed(seed: int | np.random.Generator | None) -> np.random.Generator:
    """Return a generator from a seed, as numpy.random.default_rng takes it."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise ValueError(
            f"seed must be None, an integer of at least 0 or a numpy.random.Generator, not {seed!r}"
        ) from None


def check_finite_numbers(array: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Return a copy in dtype, in which all numbers are finite."""
    if array.dtype.kind in "biuf":
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
        if np.isfinite(array).all():
            return array
    raise ValueError(f"{name} must hold finite real numbers, in {dtype} too")


def check_rows(
    X: Any,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    name: str = "X",
    n_threads: int = 1,
    may_be_sparse: bool = True,
) -> Rows:
    """Return rows (n, n_in) of finite numbers, as a C-contiguous array or as CSRRows.

    Each row has this shape, which is flat or an image's, or is flat.  uint8, float32 and float64 stay as they are: the
    engine converts them as it goes.  Other real types become dtype.  SciPy's sparse matrices become CSRRows of dtype.
    """
    if hasattr(X, "tocsr"):
        if not may_be_sparse:
            raise TypeError(
                f"{name} must be dense, such as {name}.toarray(), for a network with convolution or pooling, not a "
                f"sparse {type(X).__name__}"
            )
        return _check_sparse(X, shape, dtype, name)
    array = np.asarray(X)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, not dtype {array.dtype}")
    check_shape(array.shape, shape, name)
    array = _as_laid_out(array, None if array.dtype in STORED else dtype)
    array = array.reshape(len(array), math.prod(shape))
    _check_finite(array, dtype, name, n_threads)
    return array


def check_table(X: Any, n_columns: int, name: str = "X") -> NDArray[Any]:
    """Return rows (n, n_columns) of numbers and NaN, as a C-contiguous array of float32 or float64."""
    if hasattr(X, "tocsr"):
        raise TypeError(f"{name} must be dense, such as {name}.toarray(), for a network that begins with Columns")
    array = np.asarray(X)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, with codes for categories, not dtype {array.dtype}")
    check_shape(array.shape, (n_columns,), name)
    array = _as_laid_out(array, None if array.dtype in FLOATING else np.float64)
    infinite = np.isinf(array)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise ValueError(f"{name} must be finite or NaN, but row {row} has an infinity in column {column}")
    return array


def _as_laid_out(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    # Kernels need contiguous, aligned arrays.  Numbers after a header of odd length, in a file say, are not aligned.
    array = np.ascontiguousarray(array, dtype)
    return array if array.flags.aligned else array.copy()


def check_shape(given: tuple[int, ...], shape: tuple[int, ...], name: str) -> None:
    """Refuse rows, given the shape of all of them, that are neither of this shape each nor flat."""
    n_in = math.prod(shape)
    if len(shape) == 3:
        forms = [shape, *([shape[:2]] if shape[2] == 1 else []), (n_in,)]
        if given[1:] not in forms or len(given) < 2:
            *others, last = (f"(n, {', '.join(map(str, form))})" for form in forms)
            hint = f"; {name}[None] for a single image" if given in forms else ""
            raise ValueError(f"{name} must have shape {', '.join(others)} or {last}{hint}; its shape is {given}")
    elif len(given) != 2:
        hint = ", or X.reshape(1, -1) for a single row" if len(given) == 1 else ""
        raise ValueError(f"{name} must have two dimensions, (n, {n_in}){hint}; its shape is {given}")
    elif given[1] != n_in:
        raise ValueError(f"{name} must have {n_in} columns, as many as the network has inputs; its shape is {given}")


def _check_finite(values: NDArray[Any], dtype: np.dtype[Any], name: str, n_threads: int = 1) -> None:
    if values.dtype.kind != "f" or values.size == 0:
        return
    taken = values.dtype in FLOATING and values.itemsize <= dtype.itemsize and values.flags.aligned  # by the kernels
    if taken and all_finite(values, n_threads):
        return
    # The extremes show it without an array of flags: NaN propagates through both.  Block by block, each value is read
    # once, from memory or disk.
    step = max(1, CHECKED_AT_ONCE * len(values) // values.size)
    low, high = math.inf, -math.inf
    for begin in range(0, len(values), step):
        block = values[begin : begin + step]
        low, high = float(np.minimum(low, block.min())), float(np.maximum(high, block.max()))
    if math.isnan(low) or math.isinf(low) or math.isinf(high):
        raise ValueError(f"{name} must be finite, but it holds {'NaN' if math.isnan(low) else 'infinity'}")
    if max(-low, high) > float(np.finfo(dtype).max):
        raise ValueError(f"{name} holds {max(-low, high):g}, beyond the network's {dtype}")


def _check_sparse(X: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> CSRRows:
    if X.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, not dtype {X.dtype}")
    check_shape(X.shape, shape, name)
    csr = copy.copy(X.tocsr())  # the check may replace the matrix's arrays; leave the caller's alone
    try:
        csr.check_format(full_check=True)
    except ValueError as error:
        raise ValueError(f"{name} is not a valid CSR matrix: {error}") from None
    _check_finite(csr.data, dtype, name)
    n_stored = int(csr.indptr[-1])
    data = _as_laid_out(csr.data[:n_stored], dtype)
    return CSRRows(
        data * dtype.type(UINT8_SCALE) if csr.dtype == np.uint8 else data,
        _as_laid_out(csr.indices[:n_stored], np.int32),
        _as_laid_out(csr.indptr, np.int64),
        math.prod(shape),
    )


def check_labels(y: ArrayLike, n_rows: int, n_classes: int, name: str = "y") -> NDArray[np.intp]:
    """Return class indices (n_rows,), each from 0 to n_classes - 1."""
    labels = np.asarray(y)
    if labels.dtype.kind not in "biu" and labels.size:
        raise TypeError(f"{name} must hold integer class indices, not dtype {labels.dtype}")
    if labels.shape != (n_rows,):
        raise ValueError(f"{name} must have shape ({n_rows},), one class for each row; its shape is {labels.shape}")
    if n_rows and (labels.min() < 0 or labels.max() >= n_classes):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"{name} must hold classes from 0 to {n_classes - 1}, but it holds {wrong}")
    return np.array(labels, dtype=np.intp)  # a copy: kernels use classes as indices, so the caller must not change them


def check_loss(loss: str) -> str:
    """Return a known name."""
    return check_choice(loss, "loss", LOSSES)


def check_quantiles(quantiles: Any, loss: str, n_out: int) -> tuple[float, ...]:
    """Return the levels of the quantile loss, one for each output; other losses have none."""
    given = quantiles if isinstance(quantiles, Iterable) and not isinstance(quantiles, (str, bytes)) else [quantiles]
    levels = tuple(check_number(level, f"quantiles[{i}]", 0, 1, open_left=True) for i, level in enumerate(given))
    if levels and loss != "quantile":
        raise ValueError(f"quantiles are for the loss 'quantile', not {loss!r}")
    if loss == "quantile" and (len(levels) != n_out or sorted(set(levels)) != list(levels)):
        raise ValueError(f"quantiles must be increasing and as many as outputs, {n_out}, for this loss, not {levels}")
    return levels


def check_targets(
    y: ArrayLike, n_rows: int, n_out: int, loss: str, dtype: np.dtype[Any], name: str = "y"
) -> NDArray[Any]:
    """Return the target of each row: class indices (n_rows,) for cross-entropy, else numbers (n_rows, n_out).

    For the quantile loss a row has one number, which is repeated.
    """
    if loss == "cross_entropy":
        return check_labels(y, n_rows, n_out, name)
    values = np.asarray(y)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, not dtype {values.dtype}")
    width = 1 if loss == "quantile" else n_out
    if values.shape == (n_rows,) and width == 1:
        values = values[:, None]
    if values.shape != (n_rows, width):
        raise ValueError(f"{name} must have shape ({n_rows}, {width}), a row for each row of X; it is {values.shape}")
    _check_finite(values, dtype, name)
    if loss == "binary_cross_entropy" and values.size and (values.min() < 0 or values.max() > 1):
        raise ValueError(
            f"{name} must hold probabilities, from 0 to 1, but it goes from {values.min()} to {values.max()}"
        )
    return np.array(np.broadcast_to(values, (n_rows, n_out)), dtype=dtype, order="C")  # a copy, as for labels


def check_weights(weights: ArrayLike | None, n_rows: int, name: str = "sample_weight") -> NDArray[np.float64] | None:
    """Return weights (n_rows,) of the rows, at least 0 and not all 0, or None."""
    if weights is None:
        return None
    array = np.asarray(weights)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, not dtype {array.dtype}")
    if array.shape != (n_rows,):
        raise ValueError(f"{name} must have shape ({n_rows},), one weight for each row; its shape is {array.shape}")
    array = np.array(array, dtype=np.float64)
    _check_finite(array, array.dtype, name)
    if n_rows and (array.min() < 0 or not array.any()):
        raise ValueError(f"{name} must be at least 0, and above 0 for some row")
    return array


def check_shares(shares: float | Sequence[float], n_hidden: int, name: str) -> NDArray[np.float64]:
    """Return a number from 0 to below 1 for each hidden layer."""
    if isinstance(shares, numbers.Real):
        return np.full(n_hidden, check_number(shares, name, 0, 1))
    if not isinstance(shares, Iterable) or len(list(shares)) != n_hidden:
        raise ValueError(
            f"{name} must be one number or a list of {n_hidden}, one a hidden layer with weights, not {shares!r}"
        )
    return np.array([check_number(share, f"{name}[{i}]", 0, 1) for i, share in enumerate(shares)])


def check_augment(value: Any, kinds: tuple[type, ...], input_shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return changes of images of this shape, at most one of each kind, from one, several or None."""
    given = () if value is None else (value,) if isinstance(value, kinds) else value
    changes = tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(change, kinds) for change in changes):
        raise TypeError(f"augment must be None, fastnn.augment.Shift(2), Flip() or a list of these, not {value!r}")
    if len({type(change) for change in changes}) < len(changes):
        raise ValueError(f"augment must have one of each kind at most, not {value!r}")
    if changes and len(input_shape) != 3:
        raise ValueError(
            f"augment is for images: the network must have an input_shape such as (28, 28, 1), not {input_shape}"
        )
    return changes


def check_not_empty(n_rows: int, name: str) -> None:
    """Refuse data without rows, which have no mean and no fit."""
    if n_rows == 0:
        raise ValueError(f"{name} is empty: at least one row is needed")


def check_row_numbers(numbers: ArrayLike, n_rows: int, name: str) -> NDArray[np.intp]:
    """Return numbers of rows (k,), at least one, each from 0 to n_rows - 1; or those of an array of bool (n_rows,)."""
    array = np.asarray(numbers)
    if array.dtype == bool and array.shape == (n_rows,):
        array = np.flatnonzero(array)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"{name} must be numbers of rows, or ({n_rows},) of bool, not {array.dtype} {array.shape}")
    check_not_empty(len(array), name)
    if array.min() < 0 or array.max() >= n_rows:
        wrong = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"{name} must hold numbers of rows from 0 to {n_rows - 1}, but it holds {wrong}")
    return array.astype(np.intp)


def check_path(path: Any, name: str = "path") -> str:
    """Return a path as str."""
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{name} must be a path, not {path!r} ({type(path).__name__})") from None


def check_writable(path: Any, name: str = "path") -> str:
    """Return a path as str if a file can be written there, so that hours of training are not lost.

    Asks the system whether a file can have this name, and whether one can be made in the folder.

    Raises
    ------
    OSError
        If the folder does not exist or is not writable, the path is a folder's, or the name is too long.
    ValueError
        If no file can have this name.
    """
    text = check_path(path, name)
    try:
        if not text:
            raise ValueError("it is empty")
        if os.path.exists(text) and not os.path.isfile(text) and not os.path.isdir(text):
            return text  # a pipe or a device: it is written to, not replaced
        target = os.path.realpath(text)
        folder = os.path.dirname(target)
        if os.path.isdir(target) or text.endswith(("/", os.sep)):
            raise IsADirectoryError(f"{name}: {text} is a folder; the name of a file was expected")
        if not os.path.isdir(folder):
            if os.path.exists(folder):
                raise NotADirectoryError(f"{name}: {folder} is not a folder")
            raise FileNotFoundError(f"{name}: the folder {folder} does not exist")
        with contextlib.suppress(FileNotFoundError):
            os.lstat(target)
        with tempfile.TemporaryFile(dir=folder):
            return text
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(f"{name}: {text} cannot be written: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {text!r} cannot be the name of a file: {error}") from error


def check_array(
    value: Any, dtype: np.dtype[Any], ndim: int, name: str, downcast: bool | None = None, float_downcast: bool = False
) -> NDArray[Any]:
    """Return value as an array of dtype with ndim dimensions; not a copy if it is one.

    Arrays are converted to a dtype that holds every value of their own, lists and numbers if their values stay the
    same.

    Parameters
    ----------
    downcast : bool or None, default None
        True converts to any dtype, False not even numbers.
    float_downcast : bool, default False
        Whether Python's floats may be rounded to dtype if downcast is None.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, not {value!r} ({type(value).__name__})")
    if array.ndim != ndim:
        raise TypeError(f"{name} must have {ndim} dimensions, not {array.ndim}; its shape is {array.shape}")
    if array.dtype == dtype or downcast or np.can_cast(array.dtype, dtype, "safe"):
        return np.asarray(array, dtype)
    if downcast is None and not isinstance(value, np.ndarray):
        if float_downcast and type(value) is float:
            return np.asarray(array, dtype)
        with np.errstate(all="ignore"):
            converted = array.astype(dtype)
        if np.array_equal(converted, array, equal_nan=True):
            return converted
    raise TypeError(
        f"{name} must be of dtype {dtype}, and {array.dtype} could lose precision: convert it with "
        f".astype({dtype.name!r}), or pass allow_input_downcast=True to the function"
    )


def check_comm(comm: Any, name: str = "comm") -> Any:
    """Return an mpi4py communicator, or None."""
    mpi = sys.modules.get("mpi4py.MPI")  # whoever has a communicator has imported it
    if comm is not None and (mpi is None or not isinstance(comm, mpi.Intracomm) or comm == mpi.COMM_NULL):
        raise TypeError(f"{name} must be a communicator such as mpi4py.MPI.COMM_WORLD, not {comm!r}")
    return comm
