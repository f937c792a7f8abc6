"""Networks in safetensors files: parameters as tensors, the layers as JSON in the metadata.

The format holds numbers only, so a stranger's file can be wrong but cannot run code.
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import (
    check_choice,
    check_input_shape,
    check_layers,
    check_loss,
    check_number,
    check_path,
    check_quantiles,
)
from fastnn.engine.threads import import_whole
from fastnn.layers import RECORDS, Layer, Shape, fit_together, read_layers, settle, shapes_of, slots_of
from fastnn.slots import Slot, Slots

FORMAT = 2
KEY = "fastnn"  # the only key of the metadata, so that the same network gives the same bytes
ENSEMBLE_KEY, ENSEMBLE_FORMAT = "fastnn ensemble", 1
CHECKPOINT_KEY, CHECKPOINT_FORMAT = "fastnn checkpoint", 2
TABULAR_KEY, TABULAR_FORMAT = "fastnn tabular", 1
KEYS = {"network": KEY, "ensemble": ENSEMBLE_KEY, "tabular": TABULAR_KEY, "checkpoint": CHECKPOINT_KEY}
MAX_DESCRIPTION = 10**7  # characters of JSON that describe a network or an ensemble; a table's columns may need many
DTYPES = {"float32": "F32", "float64": "F64"}  # NumPy's names and the file format's


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a crash at any moment leaves either the old content or the new one, whole.

    A path that is no regular file, such as a pipe or /dev/null, is written to and not replaced.
    """
    name = os.fsdecode(path)
    if os.path.exists(name) and not os.path.isfile(name):
        with open(name, "wb") as stream:
            stream.write(content)
        return
    target = os.path.realpath(name)
    # A short name of its own: the target's may be as long as the system allows.
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
        if isinstance(error, OSError):  # name the file that the caller knows
            error.filename, error.filename2 = name, None
        raise


class Description(NamedTuple):
    """A network without its parameters."""

    layers: tuple[Layer, ...]
    input_shape: Shape
    loss: str
    batch_norm: bool
    dtype: np.dtype[Any]
    input_scale: float | None
    quantiles: tuple[float, ...]


def by_tensor(slots: Slots, vector: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Views of a vector by the arrays' names in files."""
    named = slots.by_layer(vector)
    return {f"layers.{k}.{name}": array for k, arrays in enumerate(named) for name, array in arrays.items()}


def save_network(path: str | os.PathLike[str], description: Description, parameters: NDArray[Any]) -> None:
    """Write the description of a network, and its parameters as tensors."""
    metadata = {KEY: json.dumps(_told(description))}
    tensors = by_tensor(slots_of(*description[:2]), parameters)
    write_atomically(check_path(path), import_whole("safetensors.numpy").save(tensors, metadata))


def save_ensemble(path: str | os.PathLike[str], networks: Sequence[tuple[Description, NDArray[Any]]]) -> None:
    """Write descriptions of networks and their parameters, as tensors with numbers before their names."""
    _save_networks(path, networks, ENSEMBLE_KEY, {"format": ENSEMBLE_FORMAT})


def save_tabular(
    path: str | os.PathLike[str], networks: Sequence[tuple[Description, NDArray[Any]]], told: dict[str, Any]
) -> None:
    """Write the networks of an estimator for tables, and what else is told of it, which JSON can hold."""
    _save_networks(path, networks, TABULAR_KEY, {"format": TABULAR_FORMAT, "told": told})


def _save_networks(
    path: str | os.PathLike[str], networks: Sequence[tuple[Description, NDArray[Any]]], key: str, told: dict[str, Any]
) -> None:
    told = told | {"networks": [_told(description) for description, _ in networks]}
    tensors = {
        f"{_prefix(k)}{name}": array
        for k, (description, parameters) in enumerate(networks)
        for name, array in by_tensor(slots_of(*description[:2]), parameters).items()
    }
    write_atomically(check_path(path), import_whole("safetensors.numpy").save(tensors, {key: json.dumps(told)}))


def _prefix(k: int) -> str:
    # Of the tensors of a network in an ensemble.
    return f"networks.{k}."


def _told(description: Description) -> dict[str, Any]:
    layers, input_shape, loss, batch_norm, dtype, input_scale, quantiles = description
    told = {"format": FORMAT, "input_shape": input_shape, "layers": [_written(layer) for layer in layers]}
    told |= {"loss": loss, "dtype": dtype.name}
    told |= {"batch_norm": True} if batch_norm and not any(layer.batch_norm for layer in layers) else {}
    told |= {} if input_scale is None else {"input_scale": input_scale}
    told |= {"quantiles": quantiles} if quantiles else {}
    return told


def _written(layer: Layer) -> dict[str, Any]:
    return {"kind": type(layer).__name__} | layer.fields()


def save_checkpoint(path: str, content: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> None:
    """Write what a fit needs to resume: arrays, and content that JSON can hold."""
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
        If it is damaged or not a checkpoint; the message names the file.
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


def load_network(path: str | os.PathLike[str]) -> tuple[Description, NDArray[Any]]:
    """Read what `save_network` wrote, in this format or in format 1 of earlier versions.

    Raises
    ------
    OSError
        If there is no such file or it cannot be read.
    ValueError
        If the file is not a network of this package, is damaged or contradicts itself; the message names the file.
    """
    with _reading(path, "network") as file:
        description = _read_description(_read_metadata(file, KEY))
        return description, _read_all(file, [description], [""])[0]


def load_ensemble(path: str | os.PathLike[str]) -> list[tuple[Description, NDArray[Any]]]:
    """Read what `save_ensemble` wrote; raise errors as `load_network` does."""
    with _reading(path, "ensemble") as file:
        told = _read_metadata(file, ENSEMBLE_KEY)
        return _read_networks(file, told, ENSEMBLE_FORMAT)


def load_tabular(path: str | os.PathLike[str]) -> tuple[list[tuple[Description, NDArray[Any]]], Any]:
    """Read what `save_tabular` wrote: the networks, and what is told; raise errors as `load_network` does."""
    with _reading(path, "model of a table") as file:
        told = _read_metadata(file, TABULAR_KEY)
        return _read_networks(file, told, TABULAR_FORMAT), told["told"]


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """Return "network", "ensemble", "tabular", "checkpoint" or None, for a file that says it is one of these.

    Raises
    ------
    OSError
        If there is no such file or it cannot be read.
    """
    safetensors = import_whole("safetensors")
    with open(path, "rb"):
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            found = (file.metadata() or {}).keys()
    except (safetensors.SafetensorError, ValueError, TypeError):
        return None
    return next((kind for kind, key in KEYS.items() if key in found), None)


def _read_networks(file: Any, told: Any, known: int) -> list[tuple[Description, NDArray[Any]]]:
    if told["format"] != known:
        raise ValueError(f"its format is {told['format']!r}, not {known}")
    if not isinstance(told["networks"], list):
        raise ValueError("networks must be a list")
    descriptions = [_read_description(each) for each in told["networks"]]
    prefixes = [_prefix(k) for k in range(len(descriptions))]
    return list(zip(descriptions, _read_all(file, descriptions, prefixes), strict=True))


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str], kind: str) -> Iterator[Any]:
    # Yields a safetensors file; all that can be wrong with it becomes a ValueError that names the file.
    safetensors = import_whole("safetensors")
    path = check_path(path)
    with open(path, "rb"):  # a missing or unreadable file is an OSError that names it
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except KeyError as error:
        raise ValueError(f"{path} is not a usable fastnn {kind}: its description has no {error}") from error
    except (safetensors.SafetensorError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is not a usable fastnn {kind}: {error}") from error


def _read_all(file: Any, descriptions: list[Description], prefixes: list[str]) -> list[NDArray[Any]]:
    # Parameters of all networks in the file, whose tensors have these prefixes.
    pairs = list(zip(descriptions, prefixes, strict=True))
    if set(file.keys()) != {name for pair in pairs for name in _expected(*pair)}:
        told = f"a network of {len(descriptions[0].layers)} layers" if prefixes == [""] else f"{len(pairs)} networks"
        raise ValueError(f"its tensors are not those of {told}")
    return [_read_parameters(file, *pair) for pair in pairs]


def _expected(description: Description, prefix: str) -> dict[str, Slot]:
    slots = slots_of(description.layers, description.input_shape)
    return {f"{prefix}layers.{k}.{slot.name}": slot for k, layer in enumerate(slots.layers) for slot in layer}


def _read_parameters(file: Any, description: Description, prefix: str) -> NDArray[Any]:
    dtype, slots = description.dtype, slots_of(description.layers, description.input_shape)
    for name, slot in _expected(description, prefix).items():
        tensor = file.get_slice(name)
        if tensor.get_dtype() != DTYPES[dtype.name] or tuple(tensor.get_shape()) != slot.shape:
            raise ValueError(f"{name} should be {dtype.name} of shape {slot.shape}")
    parameters = slots.start(dtype)
    for name, array in by_tensor(slots, parameters).items():
        array[...] = file.get_tensor(f"{prefix}{name}")
    if not np.isfinite(parameters).all():
        raise ValueError("it holds NaN or infinity")
    if any(variance.min() < 0 for variance in slots.by_kind(parameters)["variance"]):
        raise ValueError("it holds a negative variance")
    return parameters


def _read_metadata(file: Any, key: str) -> Any:
    metadata = file.metadata() or {}
    if key not in metadata:
        raise ValueError(f"its metadata has no {key!r}")
    if len(metadata[key]) > MAX_DESCRIPTION:
        raise ValueError(f"its description has {len(metadata[key])} characters")
    return json.loads(metadata[key])


def _read_description(told: Any) -> Description:
    if told["format"] not in (1, FORMAT):
        raise ValueError(f"its format is {told['format']!r}, not 1 or {FORMAT}")
    batch_norm = check_choice(told.get("batch_norm", False), "batch_norm", [False, True])
    if told["format"] == 1:
        told.setdefault("loss", "cross_entropy")  # the first files have no loss
        layers, input_shape = read_layers(told["sizes"], None)
        layers = settle(layers, told["activation"], batch_norm)
    else:
        input_shape = check_input_shape(told["input_shape"])
        layers = _read_layers(told["layers"], input_shape)
    dtype = np.dtype(check_choice(told["dtype"], "dtype", DTYPES))
    scale = told.get("input_scale")
    input_scale = None if scale is None else check_number(scale, "input_scale", 0, open_left=True)
    loss = check_loss(told["loss"])
    (n_out,) = shapes_of(layers, input_shape)[-1]
    quantiles = check_quantiles(told.get("quantiles", ()), loss, n_out)
    return Description(layers, input_shape, loss, batch_norm, dtype, input_scale, quantiles)


def _read_layers(told: Any, input_shape: Shape) -> tuple[Layer, ...]:
    if not isinstance(told, list):
        raise ValueError(f"layers must be a list, not {told!r}")
    layers = check_layers([_read_layer(fields) for fields in told], RECORDS.values())
    if settle(layers, "identity", False) != layers:
        raise ValueError("its layers do not all state activation and batch_norm")
    if fit_together(layers, input_shape) != layers:
        raise ValueError("its layers have no Flatten between an image and Dense")
    return layers


def _read_layer(fields: Any) -> Layer:
    if not isinstance(fields, dict):
        raise ValueError(f"a layer must be an object, not {fields!r}")
    kind = RECORDS[check_choice(fields.get("kind"), "kind of layer", RECORDS)]
    names = {"kind", *(field.name for field in dataclasses.fields(kind))}
    if fields.keys() not in (names, names - {"dropout"}):
        raise ValueError(f"a {kind.__name__} layer must have the fields {sorted(names)}, not {sorted(fields)}")
    layer: Layer = kind.read({name: value for name, value in fields.items() if name != "kind"})
    return layer
