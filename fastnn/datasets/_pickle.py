"""Untrusted pickles: NumPy arrays and containers, and nothing that could run.

A pickle names functions and calls them.  Here every name is refused, except those that rebuild a NumPy array; and the
objects below replace these few, so that not even NumPy's own code runs on what the file says.  https://docs.python.org/3/library/pickle.html#restricting-globals
"""

from __future__ import annotations

import codecs
import io
import math
import pickle
import pickletools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CODES = ("b1", "u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")

# Opcodes that three sets with lists of numbers need; far fewer if the pickle has keys, which could be made to collide.
MAX_OPCODES, MAX_OPCODES_WITH_KEYS = 2**24, 10_000
OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
# Bytes for the length of an argument.
LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}
KEYED = {"DICT", "SETITEM", "SETITEMS", "ADDITEMS", "FROZENSET"}


class _Name:
    """Replaces a name that the pickle asks for; it may only be called."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes an object that it may only call")


class _DType:
    """Replaces a numpy.dtype: plain numbers only."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any = None, *flags: Any) -> None:
        if _text(code) not in CODES:
            raise pickle.UnpicklingError(f"arrays of dtype {str(code)[:20]!r} are not supported")
        self.dtype = np.dtype(_text(code))

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or _text(state[1]) not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("a dtype has an unknown state")
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("structured dtypes are not supported")
        self.dtype = self.dtype.newbyteorder(_text(state[1]))  # type: ignore[arg-type]


class _Array:
    """Replaces a numpy.ndarray, which has shape, dtype, order and bytes."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array has an unknown state")
        _, shape, dtype, fortran_order, content = state
        self.array = _make_array(content, dtype, shape, "F" if fortran_order else "C")


def _text(found: Any) -> str | None:
    """Return text; Python 2's comes as bytes."""
    if isinstance(found, bytes):
        return found.decode("latin-1")
    return found if isinstance(found, str) else None


def _make_array(content: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, _DType):
        raise pickle.UnpicklingError("an array's content is not bytes of numbers")
    sizes_fit = isinstance(shape, tuple) and all(type(size) is int and 0 <= size < 2**40 for size in shape)
    if not sizes_fit or len(shape) > 32:
        raise pickle.UnpicklingError("an array has an impossible shape")
    if math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise pickle.UnpicklingError(f"an array of shape {shape} does not have {len(content)} bytes")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    # This rebuilds arrays in protocols up to 4.
    if kind is not ADMITTED["numpy", "ndarray"]:
        raise pickle.UnpicklingError("only plain arrays are supported")
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    # This rebuilds arrays in protocol 5.
    if _text(order) not in ("C", "F"):
        raise pickle.UnpicklingError("an array is in an unknown order")
    found = _Array()
    found.array = _make_array(content, dtype, shape, order)
    return found


def _scalar(dtype: Any, content: Any) -> int | float:
    number: int | float = _make_array(content, dtype, (), "C").item()
    return number


def _not_called(*arguments: Any) -> None:
    raise pickle.UnpicklingError("only plain arrays are supported")


ADMITTED: dict[tuple[str, str], _Name] = {
    ("numpy", "dtype"): _Name(_DType),
    ("numpy", "ndarray"): _Name(_not_called),
    # The first is NumPy 1's name of the module, the second NumPy 2's.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Name(_reconstruct) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Name(_scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Name(_from_buffer) for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self.may_encode = len(content)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _Name(self._encode)
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed") from None

    def persistent_load(self, identifier: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside itself")

    def _encode(self, text: Any, encoding: Any) -> bytes:
        # Python 3 writes bytes so for Python 2: each once, so that all of them are shorter than the pickle.
        if not isinstance(text, str) or _text(encoding) != "latin1":
            raise pickle.UnpicklingError("text in an unknown encoding")
        self.may_encode -= len(text)
        if self.may_encode < 0:
            raise pickle.UnpicklingError("it repeats its content")
        return codecs.encode(text, "latin1")


def _opcodes(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the opcodes' names, each with its argument if that has a fixed size or is a line."""
    position = 0
    while True:
        opcode = OPCODES.get(content[position : position + 1])
        if opcode is None:
            raise pickle.UnpicklingError("it is cut short" if position >= len(content) else "it has an unknown opcode")
        size = opcode.arg.n if opcode.arg else 0
        begin = position = position + 1
        if size == pickletools.UP_TO_NEWLINE:
            for _ in range(2 if opcode.name in ("GLOBAL", "INST") else 1):
                position = content.find(b"\n", position) + 1 or len(content)
            yield opcode.name, content[begin:position] if opcode.name == "PUT" else b""
        elif size >= 0:
            position += size
            yield opcode.name, content[begin:position]
        else:
            width = LENGTHS[size]
            position += width + int.from_bytes(content[begin : begin + width], "little")
            yield opcode.name, b""
        if opcode.name == "STOP":
            return


def _check_opcodes(content: bytes) -> None:
    """Refuse pickles that would take more memory or time than data of this length need.

    CPython's memo is a list as long as the largest index, which a few bytes can name; pickles count it up from 0 or 1.
    """
    limit = MAX_OPCODES
    for count, (name, argument) in enumerate(_opcodes(content)):
        if name in MEMO and (int(argument) if name == "PUT" else int.from_bytes(argument, "little")) > count:
            raise pickle.UnpicklingError("it numbers its parts out of order")
        if name in KEYED:
            limit = MAX_OPCODES_WITH_KEYS
        if count > limit:
            raise pickle.UnpicklingError("it has too many parts")


def load_arrays(content: bytes) -> Any:
    """Return tuples, lists and dicts of arrays and plain values from a pickle of Python 2 or 3, protocols 0 to 5.

    Raises
    ------
    pickle.UnpicklingError, or another exception from damaged content
        If the pickle names anything else, or is damaged.
    """
    _check_opcodes(content)
    return _Unwrapping(4 * len(content)).unwrap(_Unpickler(content).load(), depth=0)


class _Unwrapping:
    """Puts the arrays in; handles at most limit items, because lists may share lists."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def unwrap(self, found: Any, depth: int) -> Any:
        self.left -= 1
        if depth > 20 or self.left < 0:
            raise pickle.UnpicklingError("it is nested too deeply" if depth > 20 else "it repeats its content")
        if isinstance(found, _Array):
            if found.array is None:
                raise pickle.UnpicklingError("an array has no content")
            return found.array
        if isinstance(found, (tuple, list)):
            return type(found)(self.unwrap(item, depth + 1) for item in found)
        if isinstance(found, dict):
            return {key: self.unwrap(item, depth + 1) for key, item in found.items()}
        if found is None or isinstance(found, (bool, int, float, str, bytes)):
            return found
        raise pickle.UnpicklingError(f"it holds a {type(found).__name__}")
