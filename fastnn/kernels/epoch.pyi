from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.kernels.losses import Targets
from fastnn.kernels.plan import CompiledPlan
from fastnn.kernels.rows import CSRRows, Motion
from fastnn.kernels.sparse import SortedBlocks
from fastnn.kernels.updates import Steps

HAS_OPENMP: bool

class Batches(NamedTuple):
    X: NDArray[Any] | CSRRows
    targets: Targets
    order: NDArray[np.intp] | None = None
    key: int = 0
    blocks: SortedBlocks | None = None
    motion: Motion | None = None

class Space(NamedTuple):
    parameters: NDArray[Any]
    state: NDArray[Any]
    gradients: NDArray[Any]
    work: NDArray[Any]
    position: NDArray[np.intp]
    log_likelihood: NDArray[np.float64]
    penalties: NDArray[np.float64]
    touched: NDArray[np.int64] | None = None

def train(
    batches: Batches,
    plan: CompiledPlan,
    steps: Steps,
    space: Space,
    work: NDArray[Any],
    seconds: float,
    n_threads: int,
    exchanges: Any = None,
) -> None: ...
def forward(
    X: NDArray[Any] | CSRRows,
    first: int,
    plan: CompiledPlan,
    parameters: NDArray[Any],
    work: NDArray[Any],
    logits_out: NDArray[Any],
    n_threads: int,
) -> None: ...
