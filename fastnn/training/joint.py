"""What the ranks of a fit tell each other before it begins: where they start from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.engine.ranks import Ranks
from fastnn.training.active import ActiveFit
from fastnn.training.checkpoint import Snapshot
from fastnn.training.settings import trains_apart
from fastnn.training.state import TrainState


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
    """Take parameters and the state of training from rank 0, and whether callbacks watch.

    resumes : whether a checkpoint will be read
    """
    ranks, state = active.ranks, active.state
    if ranks.size == 1:
        return

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
