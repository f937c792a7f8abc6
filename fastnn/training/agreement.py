"""What the ranks of a job must have in common, since each acts on it alone: settings, arguments and data."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import kernels
from fastnn._config import blas_name
from fastnn._version import __version__
from fastnn.engine.ranks import Ranks
from fastnn.engine.rows import Rows, digest
from fastnn.kernels.losses import Targets
from fastnn.kernels.rows import CSRRows
from fastnn.training.settings import Settings, settings_of
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
        "sparse": repr(settings.sparse),
        "rows": repr(settings.rows),
        "sync_every": repr(settings.sync_every),
        "seed": type(state.generator.bit_generator).__name__,
        "fastnn": __version__,
        "instruction set": kernels.INSTRUCTION_SET,
        "BLAS": blas_name(),
    }


def compare_data(
    ranks: Ranks, settings: Settings, given: tuple[Rows, Targets], validation: tuple[Rows, Targets] | None
) -> None:
    """Raise ValueError on all ranks if they should have the same rows and have not, as far as a sample shows."""
    if ranks.size == 1 or settings.rows == "own":
        return
    found = dict(zip(("X", "y", "sample_weight"), _sample(*given), strict=True))
    found["validation"] = None if validation is None else _sample(*validation)
    compare(ranks.all_tell("data", found))


def _sample(rows: Rows, targets: Targets) -> tuple[Any, ...]:
    # What shows of the rows, the targets and the weights.
    step = max(1, len(targets.y) // SAMPLE)
    values = rows.data[:: max(1, len(rows.data) // SAMPLE)] if isinstance(rows, CSRRows) else rows[::step]
    weights = None if targets.weights is None else digest(targets.weights[::step].copy())
    codes = None if not isinstance(rows, CSRRows) or rows.codes is None else digest(rows.codes[::step].copy())
    kind = "sparse" if isinstance(rows, CSRRows) else "dense"
    shown = rows.shape, kind, str(values.dtype), digest(np.ascontiguousarray(values)), codes
    return shown, (targets.y.shape, digest(targets.y[::step].copy())), weights


def compare(told: list[dict[str, Any]]) -> None:
    """Raise ValueError if what the ranks told is not the same; the names are for the message."""
    for name, value in told[0].items():
        for rank, other in enumerate(told):
            if other.get(name) != value:
                here = f"on rank 0 it is {value} and on rank {rank} {other.get(name)}"
                raise ValueError(f"{name} must be the same on all ranks, but {here}")
