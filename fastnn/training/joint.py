"""What the ranks of a fit agree on before it begins, and tell each other while it runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import kernels
from fastnn._config import blas_name
from fastnn._version import __version__
from fastnn.engine.ranks import Ranks
from fastnn.kernels.rows import CSRRows
from fastnn.training.active import ActiveFit
from fastnn.training.checkpoint import Snapshot, digest, settings_of
from fastnn.training.data import Source
from fastnn.training.settings import Settings, trains_apart
from fastnn.training.state import TrainState

# Rows and targets whose digest is compared between ranks, about.
SAMPLE = 1000


def compare_calls(ranks: Ranks, settings: Settings, state: TrainState, arguments: dict[str, Any]) -> None:
    """Raise ValueError on all ranks if they do not make the same call with the same settings."""
    if ranks.size > 1:
        compare(ranks.all_tell("settings", call_of(settings, state, arguments)))


def call_of(settings: Settings, state: TrainState, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same on all ranks, by name."""
    return {
        **{name: repr(value) for name, value in arguments.items()},
        **{name: repr(value) for name, value in settings_of(settings).items()},
        "rows": repr(settings.rows),
        "sync_every": repr(settings.sync_every),
        "seed": type(state.generator.bit_generator).__name__,
        "fastnn": __version__,
        "instruction set": kernels.INSTRUCTION_SET,
        "BLAS": blas_name(),
    }


def compare_data(ranks: Ranks, settings: Settings, source: Source) -> None:
    """Raise ValueError on all ranks if they should have the same rows and have not, as far as a sample shows."""
    if ranks.size == 1 or settings.rows == "own" or source.rows is None or source.targets is None:
        return
    rows, targets = source.rows, source.targets
    step = max(1, len(targets.y) // SAMPLE)
    values = rows.data[:: max(1, len(rows.data) // SAMPLE)] if isinstance(rows, CSRRows) else rows[::step]
    weights = None if targets.weights is None else targets.weights[::step]
    found: dict[str, Any] = {"X": (rows.shape, str(rows.dtype), digest(np.ascontiguousarray(values)))}
    found |= {"y": (len(targets.y), digest(targets.y[::step].copy()))}
    found |= {"sample_weight": None if weights is None else digest(weights.copy())}
    compare(ranks.all_tell("data", found))


def compare(told: list[dict[str, Any]]) -> None:
    """Raise ValueError if what the ranks told is not the same; the names are for the message."""
    for name, value in told[0].items():
        for rank, other in enumerate(told):
            if other.get(name) != value:
                here = f"on rank 0 it is {value} and on rank {rank} {other.get(name)}"
                raise ValueError(f"{name} must be the same on all ranks, but {here}")


def progress_of(state: TrainState) -> tuple[Any, ...]:
    """Return what `take_over` needs to know of the state, beside its arrays."""
    generator, shape = state.generator.bit_generator.state, state.optimizer.shape
    return generator, state.n_steps, state.curve, state.optimizer_type, shape


def take_over(ranks: Ranks, owner: int, parameters: NDArray[Any], state: TrainState, progress: tuple[Any, ...]) -> None:
    """Copy parameters and the state of training from one rank, which told its progress, to the others."""
    state.generator.bit_generator.state, state.n_steps, state.curve, state.optimizer_type, shape = progress
    if state.optimizer.shape != shape:
        state.optimizer = np.empty(shape, parameters.dtype)
    ranks.spread(parameters, state.optimizer, owner=owner)


def start_together(active: ActiveFit, resumes: bool) -> None:
    """Take parameters and the state of training from rank 0, and whether callbacks watch; compare the data.

    resumes : whether a checkpoint will be read
    """
    ranks, state, source = active.ranks, active.state, active.data.source
    if ranks.size == 1:
        return
    compare_data(ranks, active.settings, source)

    told, active.observed = ranks.first_tells("the start", lambda: (progress_of(state), active.observed))
    take_over(ranks, 0, active.parameters, state, told)
    if active.settings.rows == "own" and (active.observed or resumes):
        _ = active.fingerprint  # all ranks make it together


def own_position(active: ActiveFit, snapshot: Snapshot | None) -> None:
    """Change rank 0's position within an epoch into that of this rank, if they train on different rows."""
    if not trains_apart(active.settings) or active.data.whole is None:
        return
    batch_size = active.data.whole.engine.batch_size
    first = active.ranks.first_tells("the batch size", lambda: batch_size)
    if snapshot is not None and snapshot.epoch is not None:
        snapshot.progress["position"] = snapshot.progress["position"] // first * batch_size
