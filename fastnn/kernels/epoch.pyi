from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.kernels.losses import Targets
from fastnn.kernels.rows import CSRRows
from fastnn.kernels.sparse import SortedBlocks
from fastnn.kernels.updates import Steps

MAX_LANES: int
MAX_BLOCK_ROWS: int
N_PENALTIES: int
HAS_OPENMP: bool

class Architecture(NamedTuple):
    sizes: NDArray[np.intp]
    activations: NDArray[np.int32]
    dropout: NDArray[np.float64] | None = None
    key: int = 0
    batch_norm: bool = False

class Space(NamedTuple):
    gradients: NDArray[Any]
    work: NDArray[Any]
    block_rows: int
    position: NDArray[np.intp]
    log_likelihood: NDArray[np.float64]
    penalties: NDArray[np.float64]
    layout: int = 0
    nonzeros: int = 0
    touched: NDArray[np.int64] | None = None
    blocks: SortedBlocks | None = None

def work_shape(
    architecture: Architecture,
    batch_size: int,
    block_rows: int,
    update: int,
    nonzeros: int = 0,
    touches: bool = False,
    is_sparse: bool = False,
) -> tuple[int, int]: ...
def go_by_units(architecture: Architecture, batch_size: int, update: int, is_sparse: bool = False) -> bool: ...
def rows_at_once(architecture: Architecture, batch_size: int, block_rows: int, update: int) -> int: ...
def block_bounds(n_rows: int, batch_size: int, block_rows: int, in_lanes: bool) -> list[int]: ...
def forward_work_size(architecture: Architecture, block_rows: int, is_sparse: bool) -> int: ...
def train(
    X: NDArray[Any] | CSRRows,
    targets: Targets,
    order: NDArray[np.intp] | None,
    batch_size: int,
    architecture: Architecture,
    parameters: NDArray[Any],
    state: NDArray[Any],
    steps: Steps,
    space: Space,
    seconds: float,
    n_threads: int,
) -> None: ...
def forward(
    X: NDArray[Any] | CSRRows,
    first: int,
    architecture: Architecture,
    parameters: NDArray[Any],
    work: NDArray[Any],
    block_rows: int,
    Z_out: NDArray[Any],
    n_threads: int,
) -> None: ...
