"""Networks in safetensors files: parameters as tensors, the architecture as JSON in the metadata.

The format holds numbers only, so a file from a stranger can be wrong but cannot run anything.
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_activations, check_choice, check_loss, check_number, check_path, check_sizes
from fastnn.engine.threads import import_whole

FORMAT = 1
KEY = "fastnn"  # of the metadata: a single one, so that the same network gives the same bytes
CHECKPOINT_KEY, CHECKPOINT_FORMAT = "fastnn checkpoint", 2
MAX_DESCRIPTION = 10**6  # characters of JSON that tell a network's architecture; a hundred will do
DTYPES = {"float32": "F32", "float64": "F64"}  # NumPy's names and the file format's


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a crash at any moment leaves either the old content or the new one, whole.

    What is no file, such as a pipe or /dev/null, is written to and stays what it is.
    """
    name = os.fsdecode(path)
    if os.path.exists(name) and not os.path.isfile(name):
        with open(name, "wb") as stream:
            stream.write(content)
        return
    target = os.path.realpath(name)
    # Its own name, however long: a file may have one of as many bytes as the system allows.
    temporary = os.path.join(os.path.dirname(target), f".fastnn-{os.urandom(6).hex()}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError):  # tells of the file that the caller knows
            error.filename, error.filename2 = name, None
        raise


def tensor_names(n_layers: int, batch_norm: bool) -> list[list[str]]:
    """Names of each layer's arrays in the file; the last has no normalisation."""
    parts, norm = ["weight", "bias"], ["scale", "mean", "variance"] if batch_norm else []
    return [[f"layers.{k}.{part}" for part in (parts if k == n_layers - 1 else parts + norm)] for k in range(n_layers)]


def save_network(
    path: str | os.PathLike[str],
    sizes: tuple[int, ...],
    activations: tuple[str, ...],
    loss: str,
    batch_norm: bool,
    layers: list[list[NDArray[Any]]],
    input_scale: float | None = None,
) -> None:
    """Write a network's architecture and its layers: weight (n_in, n_out), bias (n_out,) and what normalises them."""
    dtype = layers[0][0].dtype.name
    architecture = {"format": FORMAT, "sizes": sizes, "activation": activations, "loss": loss, "dtype": dtype}
    # Without batch normalisation the file is one that earlier versions read.
    architecture |= {"batch_norm": True} if batch_norm else {}
    architecture |= {} if input_scale is None else {"input_scale": input_scale}
    metadata = {KEY: json.dumps(architecture)}
    tensors = {
        name: array
        for names, arrays in zip(tensor_names(len(layers), batch_norm), layers, strict=True)
        for name, array in zip(names, arrays, strict=True)
    }
    write_atomically(check_path(path), import_whole("safetensors.numpy").save(tensors, metadata))


def save_checkpoint(path: str, content: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> None:
    """Write what a fit needs to go on: arrays, and whatever JSON can hold."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    metadata = {CHECKPOINT_KEY: json.dumps({"format": CHECKPOINT_FORMAT} | content)}
    write_atomically(path, import_whole("safetensors.numpy").save(contiguous, metadata))


def load_checkpoint(path: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is damaged or no checkpoint; names the file.
    """
    safetensors = import_whole("safetensors")
    with open(path, "rb"):  # an unreadable file is an OSError that names it
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            content = json.loads((file.metadata() or {})[CHECKPOINT_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        if content["format"] != CHECKPOINT_FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {CHECKPOINT_FORMAT}")
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is not a usable checkpoint: {error}") from error
    return content, tensors


class Architecture(NamedTuple):
    """All that a network is but for its arrays."""

    sizes: tuple[int, ...]
    activations: tuple[str, ...]
    loss: str
    batch_norm: bool
    dtype: np.dtype[Any]
    input_scale: float | None


def load_network(path: str | os.PathLike[str]) -> tuple[Architecture, list[list[NDArray[Any]]]]:
    """Read what `save_network` wrote.

    Raises
    ------
    OSError
        If there is no such file or it cannot be read.
    ValueError
        If the file is not a network of this package, is damaged or contradicts itself; names the file.
    """
    safetensors = import_whole("safetensors")
    path = check_path(path)
    with open(path, "rb"):  # a missing or unreadable file is an OSError that names it
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            architecture = _architecture(file.metadata() or {})
            sizes, _, _, batch_norm, dtype, _ = architecture
            names = tensor_names(len(sizes) - 1, batch_norm)
            if set(file.keys()) != {name for layer in names for name in layer}:
                raise ValueError(f"its tensors are not those of a network of {len(names)} layers")
            layers = []
            for (weight, *others), n_in, n_out in zip(names, sizes[:-1], sizes[1:], strict=True):
                for name, shape in ((weight, [n_in, n_out]), *((other, [n_out]) for other in others)):
                    tensor = file.get_slice(name)
                    if tensor.get_dtype() != DTYPES[dtype.name] or list(tensor.get_shape()) != shape:
                        raise ValueError(f"{name} should be {dtype.name} of shape {tuple(shape)}")
                layers.append([file.get_tensor(name) for name in (weight, *others)])
            if not all(np.isfinite(array).all() for layer in layers for array in layer):
                raise ValueError("it holds NaN or infinity")
            if batch_norm and any(layer[-1].min() < 0 for layer in layers[:-1]):
                raise ValueError("it holds a negative variance")
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is not a usable fastnn network: {error}") from error
    return architecture, layers


def _architecture(metadata: dict[str, str]) -> Architecture:
    if KEY not in metadata:
        raise ValueError(f"its metadata has no {KEY!r}")
    if len(metadata[KEY]) > MAX_DESCRIPTION:
        raise ValueError(f"its description has {len(metadata[KEY])} characters")
    architecture = json.loads(metadata[KEY])
    if architecture["format"] != FORMAT:
        raise ValueError(f"its format is {architecture['format']!r}, not {FORMAT}")
    sizes = check_sizes(architecture["sizes"])
    activations = check_activations(architecture["activation"], len(sizes) - 2)
    loss = check_loss(architecture.get("loss", "cross_entropy"))  # files of earlier versions do not name it
    batch_norm = check_choice(architecture.get("batch_norm", False), "batch_norm", [False, True])
    dtype = np.dtype(check_choice(architecture["dtype"], "dtype", DTYPES))
    scale = architecture.get("input_scale")
    input_scale = None if scale is None else check_number(scale, "input_scale", 0, open_left=True)
    return Architecture(sizes, activations, loss, batch_norm, dtype, input_scale)
