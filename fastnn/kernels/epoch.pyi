from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.kernels.rows import CSRRows
from fastnn.kernels.sparse import SortedBlocks

MAX_LANES: int
MAX_BLOCK_ROWS: int
HAS_OPENMP: bool

def work_shape(
    sizes: NDArray[np.intp],
    activations: NDArray[np.int32],
    batch_size: int,
    block_rows: int,
    update: int,
    nonzeros: int = 0,
    touches: bool = False,
) -> tuple[int, int]: ...
def go_by_units(sizes: NDArray[np.intp], activations: NDArray[np.int32], batch_size: int, update: int) -> bool: ...
def block_bounds(n_rows: int, batch_size: int, block_rows: int, by_units: bool) -> list[int]: ...
def forward_work_size(sizes: NDArray[np.intp], activations: NDArray[np.int32], block_rows: int) -> int: ...
def train(
    X: NDArray[Any] | CSRRows,
    y: NDArray[np.intp],
    order: NDArray[np.intp] | None,
    batch_size: int,
    sizes: NDArray[np.intp],
    activations: NDArray[np.int32],
    parameters: NDArray[Any],
    update: int,
    hyperparameters: NDArray[np.float64],
    l2: float,
    state: NDArray[Any],
    gradients: NDArray[Any],
    work: NDArray[Any],
    block_rows: int,
    position: NDArray[np.intp],
    log_likelihood: NDArray[np.float64],
    seconds: float,
    n_threads: int,
    by_slices: bool = False,
    nonzeros: int = 0,
    touched: NDArray[np.int64] | None = None,
    blocks: SortedBlocks | None = None,
) -> None: ...
def forward(
    X: NDArray[Any] | CSRRows,
    first: int,
    sizes: NDArray[np.intp],
    activations: NDArray[np.int32],
    parameters: NDArray[Any],
    work: NDArray[Any],
    block_rows: int,
    Z_out: NDArray[Any],
    n_threads: int,
) -> None: ...
