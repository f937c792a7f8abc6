from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.kernels.rows import CSRRows

class SortedBlocks(NamedTuple):
    entries: NDArray[Any]
    starts: NDArray[np.int32]
    bounds: NDArray[np.int64]

def column_work_size(n_in: int, nonzeros: int) -> int: ...
def sort_blocks(
    X: CSRRows,
    bounds: NDArray[np.int64],
    entries_out: NDArray[Any],
    starts_out: NDArray[np.int32],
    n_threads: int = 1,
) -> None: ...
def backprop_sparse_weight_by_block(
    X: CSRRows,
    blocks: SortedBlocks,
    dZ: NDArray[Any],
    dW_out: NDArray[Any],
    alpha: float = 1.0,
    beta: float = 0.0,
) -> None: ...
def sparse_affine(X: CSRRows, W: NDArray[Any], b: NDArray[Any], Z_out: NDArray[Any]) -> None: ...
def backprop_sparse_weight(
    X: CSRRows, dZ: NDArray[Any], dW_out: NDArray[Any], alpha: float = 1.0, beta: float = 0.0
) -> None: ...
def backprop_sparse_weight_by_column(
    X: CSRRows,
    dZ: NDArray[Any],
    dW_out: NDArray[Any],
    work: NDArray[Any],
    alpha: float = 1.0,
    beta: float = 0.0,
) -> None: ...
def count_nonzeros(X: NDArray[Any], indptr_out: NDArray[np.int64], n_threads: int = 1) -> None: ...
def fill_nonzeros(
    X: NDArray[Any],
    indptr: NDArray[np.int64],
    data_out: NDArray[Any],
    indices_out: NDArray[np.int32],
    n_threads: int = 1,
) -> None: ...
