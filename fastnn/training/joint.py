"""What the ranks of a fit agree on before it begins, and tell each other while it runs."""

from __future__ import annotations

from typing import Any

import numpy as np

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
    if ranks.size == 1:
        return
    own = {
        **{name: repr(value) for name, value in arguments.items()},
        **{name: repr(value) for name, value in settings_of(settings).items()},
        "rows": repr(settings.rows),
        "sync_every": repr(settings.sync_every),
        "seed": type(state.generator.bit_generator).__name__,
        "fastnn": __version__,
        "instruction set": kernels.INSTRUCTION_SET,
        "BLAS": blas_name(),
    }
    _compare(ranks.all_tell("settings", own))


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
    _compare(ranks.all_tell("data", found))


def _compare(told: list[dict[str, Any]]) -> None:
    for name, value in told[0].items():
        for rank, other in enumerate(told):
            if other[name] != value:
                here = f"on rank 0 it is {value} and on rank {rank} {other[name]}"
                raise ValueError(f"{name} must be the same on all ranks, but {here}")


def start_together(active: ActiveFit, resumes: bool) -> None:
    """Take parameters and the state of training from rank 0, and whether callbacks watch; compare the data.

    resumes : whether a checkpoint will be read
    """
    ranks, state, source = active.ranks, active.state, active.data.source
    if ranks.size == 1:
        return
    compare_data(ranks, active.settings, source)

    def own() -> tuple[Any, ...]:
        return state.generator.bit_generator.state, state.n_steps, state.curve, active.observed

    told = ranks.first_tells("the start", own)
    state.generator.bit_generator.state, state.n_steps, state.curve, active.observed = told
    ranks.spread(active.parameters, state.optimizer)
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
