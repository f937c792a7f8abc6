"""What the ranks of a fit tell each other before it begins: where they start from."""

from __future__ import annotations

from typing import Any

from fastnn.training.active import ActiveFit
from fastnn.training.checkpoint import Snapshot
from fastnn.training.settings import trains_apart


def start_together(active: ActiveFit, resumes: bool) -> None:
    """Take parameters and the state of training from rank 0, and whether callbacks watch.

    resumes : whether a checkpoint will be read
    """
    ranks, state = active.ranks, active.state
    if ranks.size == 1:
        return

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
