"""Checkpoints: the fingerprint of a fit, and its progress.  Files are read as hostile."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from fastnn import kernels
from fastnn._config import blas_name
from fastnn._validation import check_choice, check_integer, check_number
from fastnn._version import __version__
from fastnn.callbacks import Callback, Fit
from fastnn.engine.local import Engine
from fastnn.engine.ranks import ranks_of
from fastnn.engine.rows import digest, digest_rows
from fastnn.history import History
from fastnn.kernels import _cpu
from fastnn.network import Network
from fastnn.optimizers import LBFGS
from fastnn.storage import load_checkpoint, save_checkpoint
from fastnn.training.data import Data, Source
from fastnn.training.settings import Settings, settings_of, trains_apart
from fastnn.training.state import TrainState

# Errors that damaged or foreign content can cause while it is checked.
FAILURES = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)

# The most rows, steps and the like.
LARGEST = 2**62

# Attributes of an epoch under way that a checkpoint holds, beside its start.
EPOCH = ("n_steps", "index", "rows", "batches", "weight", "log_likelihood", "penalty", "learning_rate")

Tensors = dict[str, NDArray[Any]]
Fingerprint = dict[str, dict[str, Any]]


def _digest_arguments(source: Source) -> dict[str, str | None]:
    # None: the argument is not given, or not known beforehand.
    found: dict[str, str | None] = {"X": None, "y": None, "sample_weight": None, "validation": None}
    if source.rows is not None and source.targets is not None:
        found["X"], found["y"] = digest_rows(source.rows), digest(source.targets.y)
        found["sample_weight"] = None if source.targets.weights is None else digest(source.targets.weights)
    if source.validation is not None:
        rows, targets = source.validation
        found["validation"] = digest_rows(rows, targets.y, targets.weights)
    return found


def fingerprint(settings: Settings, source: Source) -> Fingerprint:
    """Return all that the bits of a fit depend on: settings, data, and what decides the rounding.

    If each rank has rows of its own, all ranks call it together.
    """
    data: dict[str, Any] = _digest_arguments(source)
    of_ranks: dict[str, Any] = {}
    if trains_apart(settings):
        of_ranks = {"ranks": ranks_of(settings.comm).size, "sync_every": settings.sync_every}
    if settings.rows == "own":
        ranks = ranks_of(settings.comm)
        told = ranks.all_tell("the fingerprint", data)
        data = {name: [one[name] for one in told] for name in data}
    return {
        "settings": {
            **settings_of(settings),
            **of_ranks,
            "rows": source.n_rows,
            "order of rows": source.order,
        },
        "data": data,
        "rounding": {
            "fastnn": __version__,
            "instruction set": kernels.INSTRUCTION_SET,
            "compiler": _cpu.COMPILER,
            "BLAS": blas_name(),
            "NumPy": np.__version__,
            "SciPy": scipy.__version__,
            **{f"storage of {name}": how for name, how in source.storage.items()},
            "plan": None
            if source.plan is None
            else source.plan.fingerprint(),  # last, as the others say in words what they change in it
        },
    }


@dataclass
class Snapshot:
    """The content of a checkpoint: the progress of the fit that wrote it.

    Attributes
    ----------
    parameters, state : arrays
        Of the network and the optimizer.
    history : dict of lists
        Columns of the `History`.
    n_rows, n_steps : int
        Rows of an epoch, 0 if not known, and steps in all.
    curve : list of float
        Log-likelihood after each epoch of the trainer.
    generator : dict
        State of the random generator.
    learning_rate : float or None
        As a callback set it.
    stopped : bool
        Whether a callback ended the fit.
    epoch : dict of numbers, or None
        Of the epoch under way, if any.
    start, progress : dict of arrays
        Its start, and the engine's progress in it.
    lbfgs : dict of arrays
        Memory of a fit by L-BFGS.
    callbacks : dict of dict of arrays
        State of each callback that has one, by its key.
    """

    parameters: NDArray[Any]
    state: NDArray[Any]
    history: dict[str, list[float]]
    n_rows: int
    n_steps: int
    curve: list[float]
    generator: dict[str, Any]
    learning_rate: float | None
    stopped: bool
    epoch: dict[str, Any] | None
    start: Tensors
    progress: Tensors
    lbfgs: Tensors
    callbacks: dict[str, Tensors]


def keyed(callbacks: Iterable[Callback]) -> dict[str, Callback]:
    """Return callbacks by key: the class and a number within it, so that callbacks of other classes do not matter."""
    found: dict[str, Callback] = {}
    for callback in callbacks:
        name = type(callback).__name__
        found[f"{name} {sum(key.startswith(f'{name} ') for key in found) + 1}"] = callback
    return found


def write(
    path: str, prints: Fingerprint, state: TrainState, fit: Fit, progress: tuple[dict[str, Any], Tensors]
) -> None:
    """Write a file from which a fit with this fingerprint can resume; progress is the epoch's under way."""
    trainer, (within, tensors) = fit.trainer, progress
    states = {key: callback.state() for key, callback in keyed(trainer.callbacks).items()}
    content: dict[str, Any] = {
        "fingerprint": prints,
        "history": fit.history.columns(),
        "n_rows": fit.n_rows,
        "curve": state.curve,
        "n_steps": state.n_steps,
        "generator": state.generator.bit_generator.state,
        "learning_rate": fit.set_rate,
        "stopped": fit.stop,
        "callbacks": [key for key, arrays in states.items() if arrays],
        **within,
    }
    content["generator"] = _as_json(content["generator"])
    tensors = {"parameters": trainer.network.parameters, "state": state.optimizer, **tensors}
    for key, arrays in states.items():
        tensors |= {f"callbacks.{key}.{name}": array for name, array in arrays.items()}
    save_checkpoint(path, content, tensors)


def _as_json(value: Any) -> Any:
    # The state of a bit generator: nested dictionaries of integers, text and, in some, arrays.
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def read(path: str, prints: Fingerprint, exactly: bool, settings: Settings, state: TrainState, data: Data) -> Snapshot:
    """Read a checkpoint of a fit with this fingerprint, and check all of it.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, or of another fit; the message names the file and what differs.
    """
    content, tensors = load_checkpoint(path)
    _check_fingerprint(path, content, prints, exactly)
    try:
        snapshot = _check_content(content, tensors, settings.network, state.optimizer)
        snapshot.generator = _check_generator(content["generator"], state.generator)
    except FAILURES as error:
        raise ValueError(f"{path} is not a usable checkpoint: {error!r}") from error
    try:
        if snapshot.epoch is not None and data.whole is not None:
            check_progress(data.whole.engine, snapshot.progress, data.n_rows)
        if isinstance(settings.optimizer, LBFGS):
            _check_lbfgs(snapshot.lbfgs, snapshot.parameters, settings.optimizer.memory)
    except ValueError as error:
        raise ValueError(f"{path} is not a usable checkpoint: {error}") from error
    missing = snapshot.callbacks.keys() - keyed(settings.callbacks)
    if missing:
        raise ValueError(f"{path} keeps the state of {' and '.join(sorted(missing))}, which callbacks does not hold")
    return snapshot


def check_progress(engine: Engine, progress: Tensors, n_rows: int) -> None:
    """Raise ValueError if this cannot be what `Engine.progress` returned within an epoch over n_rows."""
    here = engine.progress()
    if progress.keys() != here.keys():
        raise ValueError("it was written within an epoch over rows that were stored in another way")
    for name, array in here.items():
        if progress[name].shape != array.shape or progress[name].dtype != array.dtype:
            raise ValueError(f"{name} is {progress[name].dtype} {progress[name].shape}")
    position = int(progress["position"][0])
    if not 0 <= position < max(n_rows, engine.epoch_rows) or position % engine.batch_size:
        raise ValueError(f"row {position} of {n_rows} does not begin a batch")
    if not np.isfinite(progress["log_likelihood"]).all():
        raise ValueError("its log-likelihood is not finite")
    if "touched" in progress:  # see kernels/touched.pyx
        n_in = engine.layers[0].n_in
        n_touched, taken = int(progress["touched"][0]), progress["touched"][1 : 1 + n_in]
        columns = progress["touched"][1 + n_in :][: max(0, n_touched)]
        steps = np.where(taken < 0, ~taken, taken)
        known = np.array_equal(np.sort(columns), np.flatnonzero(taken < 0)) and n_touched == len(columns)
        if not known or steps.max() > position // engine.batch_size:
            raise ValueError("what it says of touched columns contradicts itself")


def _check_fingerprint(path: str, content: dict[str, Any], prints: Fingerprint, exactly: bool) -> None:
    try:
        there = {part: dict(content["fingerprint"][part]) for part in prints}
    except FAILURES as error:
        raise ValueError(f"{path} is not a usable checkpoint: it has no fingerprint, {error!r}") from error
    for part, values in prints.items():
        for name, value in values.items():
            if there[part].get(name) == value or (part == "rounding" and not exactly):
                continue
            if part == "data":
                raise ValueError(f"{path} was written in a fit of other data: {name} is not the same")
            hint = ": results would be rounded in another way, which resume_exactly=False (--no-resume-exactly) allows"
            raise ValueError(
                f"{path} was written with {name}={there[part].get(name)!r}, but here it is {value!r}"
                f"{hint if part == 'rounding' else ''}"
            )


def restore(snapshot: Snapshot, settings: Settings, state: TrainState, fit: Fit, callbacks: Iterable[Callback]) -> None:
    """Restore the state of the checkpoint, callbacks first, since these may refuse; on other ranks there are none."""
    for key, callback in keyed(callbacks).items():
        if key in snapshot.callbacks or callback.state():
            try:
                callback.restore(snapshot.callbacks.get(key, {}))
            except FAILURES as error:
                raise ValueError(f"the checkpoint does not hold what {key} needs: {error}") from error
    settings.network.parameters[:], state.optimizer[...] = snapshot.parameters, snapshot.state
    state.n_steps, state.curve = snapshot.n_steps, snapshot.curve
    state.generator.bit_generator.state = snapshot.generator
    fit.take_back(snapshot.n_rows, snapshot.history, snapshot.learning_rate, snapshot.stopped)


def _check_content(content: dict[str, Any], tensors: Tensors, network: Network, state: NDArray[Any]) -> Snapshot:
    parameters, start = _like(tensors["parameters"], network.parameters), {}
    epoch = content.get("epoch")
    if epoch is None:
        network.check_parameters(parameters)  # within an epoch they may be diverging
    else:
        start["parameters"] = network.check_parameters(_like(tensors["epoch.parameters"], network.parameters))
        start["state"] = _like(tensors["epoch.state"], state)
        epoch = {
            **{name: check_integer(epoch[name], name, 0, LARGEST) for name in ("n_steps", "index", "rows", "batches")},
            **{name: _number(epoch[name]) for name in ("weight", "log_likelihood", "penalty")},
            "learning_rate": _rate(epoch["learning_rate"]),
        }
    return Snapshot(
        parameters=parameters,
        state=_like(tensors["state"], state),
        history=_check_history(content["history"]),
        n_rows=check_integer(content["n_rows"], "n_rows", 0, LARGEST),
        n_steps=check_integer(content["n_steps"], "n_steps", 0, LARGEST),
        curve=[_number(value) for value in content["curve"]],
        generator={},
        learning_rate=_rate(content["learning_rate"]),
        stopped=check_choice(content["stopped"], "stopped", [False, True]),
        epoch=epoch,
        start=start,
        progress=_beginning(tensors, "space."),
        lbfgs=_beginning(tensors, "lbfgs."),
        callbacks={key: _beginning(tensors, f"callbacks.{key}.") for key in map(str, content["callbacks"])},
    )


def _rate(value: Any) -> float | None:
    return None if value is None else check_number(value, "learning_rate", 0, open_left=True)


def _check_generator(state: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    # NumPy does not check positions within its buffers.
    for part, name, largest in ((state["state"], "pos", 624), (state, "buffer_pos", 4)):
        if name in part:
            check_integer(part[name], name, 0, largest)
    copy.deepcopy(generator.bit_generator).state = state
    return state


def _check_lbfgs(found: Tensors, parameters: NDArray[Any], memory: int) -> None:
    n, dtype = len(parameters), parameters.dtype
    expected = {
        "numbers": np.empty(5),
        "gradient": np.empty(n, dtype),
        "pairs": np.empty((2, memory, n), dtype),
        "products": np.empty((2, memory, memory + 1)),
    }
    if found.keys() != expected.keys():
        raise ValueError("it does not hold what a fit by L-BFGS needs, or is of an earlier version")
    for name, array in expected.items():
        _like(found[name], array)
    newest, n_pairs, n_evaluations = found["numbers"][:3].tolist()
    whole = newest.is_integer() and n_pairs.is_integer() and n_evaluations.is_integer()
    if not (whole and -1 <= newest < memory and 0 <= n_pairs <= memory and 1 <= n_evaluations <= LARGEST):
        raise ValueError(f"its numbers of L-BFGS are {found['numbers'].tolist()}")


def _number(value: Any) -> float:
    # Python's JSON has NaN and infinities, which an epoch may have reached.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _like(array: NDArray[Any], present: NDArray[Any]) -> NDArray[Any]:
    if array.shape != present.shape or array.dtype != present.dtype:
        raise ValueError(f"an array is {array.dtype} {array.shape}, not {present.dtype} {present.shape}")
    return array


def _check_history(columns: dict[str, Sequence[Any]]) -> dict[str, list[float]]:
    found = {name: [_number(value) for value in columns[name]] for name in History().columns()}
    lengths = {len(values) for name, values in found.items() if values or not name.startswith("validation")}
    if len(lengths) > 1:
        raise ValueError(f"its history has columns of {sorted(lengths)} epochs")
    return found


def _beginning(tensors: Tensors, prefix: str) -> Tensors:
    return {name[len(prefix) :]: array for name, array in tensors.items() if name.startswith(prefix)}
