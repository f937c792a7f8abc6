"""Networks in safetensors files: parameters as tensors, the architecture as JSON in the metadata.

The format holds numbers only, so a file from a stranger can be wrong but cannot run anything.
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_activations, check_dtype, check_loss, check_path, check_sizes

FORMAT = 1
KEY = "fastnn"  # of the metadata: a single one, so that the same network gives the same bytes
CHECKPOINT_KEY = "fastnn checkpoint"
DTYPES = {"float32": "F32", "float64": "F64"}  # NumPy's names and the file format's


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a crash at any moment leaves either the old content or the new one, whole."""
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.{os.urandom(8).hex()}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def tensor_names(n_layers: int) -> list[tuple[str, str]]:
    """Names of each layer's weight and bias in the file."""
    return [(f"layers.{k}.weight", f"layers.{k}.bias") for k in range(n_layers)]


def save_network(
    path: str | os.PathLike[str],
    sizes: tuple[int, ...],
    activations: tuple[str, ...],
    loss: str,
    layers: list[tuple[NDArray[Any], NDArray[Any]]],
) -> None:
    """Write a network's architecture and its layers, (weight (n_in, n_out), bias (n_out,)) each."""
    import safetensors.numpy

    dtype = layers[0][0].dtype.name
    architecture = {"format": FORMAT, "sizes": sizes, "activation": activations, "loss": loss, "dtype": dtype}
    metadata = {KEY: json.dumps(architecture)}
    tensors = {
        name: array
        for names, arrays in zip(tensor_names(len(layers)), layers, strict=True)
        for name, array in zip(names, arrays, strict=True)
    }
    write_atomically(check_path(path), safetensors.numpy.save(tensors, metadata))


def save_checkpoint(path: str, content: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> None:
    """Write what a fit needs to go on: arrays, and whatever JSON can hold."""
    import safetensors.numpy

    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    metadata = {CHECKPOINT_KEY: json.dumps({"format": FORMAT} | content)}
    write_atomically(path, safetensors.numpy.save(contiguous, metadata))


def load_checkpoint(path: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is damaged or no checkpoint; names the file.
    """
    from safetensors import SafetensorError, safe_open

    with open(path, "rb"):  # an unreadable file is an OSError that names it
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            content = json.loads((file.metadata() or {})[CHECKPOINT_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT}")
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is not a usable checkpoint: {error}") from error
    return content, tensors


def load_network(
    path: str | os.PathLike[str],
) -> tuple[tuple[int, ...], tuple[str, ...], str, np.dtype[Any], list[tuple[NDArray[Any], NDArray[Any]]]]:
    """Read what `save_network` wrote: sizes, activations, loss, dtype and layers.

    Raises
    ------
    OSError
        If there is no such file or it cannot be read.
    ValueError
        If the file is not a network of this package, is damaged or contradicts itself; names the file.
    """
    from safetensors import SafetensorError, safe_open

    path = check_path(path)
    with open(path, "rb"):  # a missing or unreadable file is an OSError that names it
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            sizes, activations, loss, dtype = _architecture(file.metadata() or {})
            names = tensor_names(len(sizes) - 1)
            if set(file.keys()) != {name for pair in names for name in pair}:
                raise ValueError(f"its tensors are not those of a network of {len(names)} layers")
            layers = []
            for (weight, bias), n_in, n_out in zip(names, sizes[:-1], sizes[1:], strict=True):
                for name, shape in ((weight, [n_in, n_out]), (bias, [n_out])):
                    tensor = file.get_slice(name)
                    if tensor.get_dtype() != DTYPES[dtype.name] or list(tensor.get_shape()) != shape:
                        raise ValueError(f"{name} should be {dtype.name} of shape {tuple(shape)}")
                layers.append((file.get_tensor(weight), file.get_tensor(bias)))
            if not all(np.isfinite(array).all() for layer in layers for array in layer):
                raise ValueError("it holds NaN or infinity")
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is not a usable fastnn network: {error}") from error
    return sizes, activations, loss, dtype, layers


def _architecture(metadata: dict[str, str]) -> tuple[tuple[int, ...], tuple[str, ...], str, np.dtype[Any]]:
    if KEY not in metadata:
        raise ValueError(f"its metadata has no {KEY!r}")
    architecture = json.loads(metadata[KEY])
    if architecture["format"] != FORMAT:
        raise ValueError(f"its format is {architecture['format']!r}, not {FORMAT}")
    sizes = check_sizes(architecture["sizes"])
    activations = check_activations(architecture["activation"], len(sizes) - 2)
    loss = check_loss(architecture.get("loss", "cross_entropy"))  # files of earlier versions do not name it
    return sizes, activations, loss, check_dtype(architecture["dtype"])
