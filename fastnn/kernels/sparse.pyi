from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.kernels.rows import CSRRows

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
def count_nonzeros(X: NDArray[Any], indptr_out: NDArray[np.int64]) -> None: ...
def fill_nonzeros(X: NDArray[Any], data_out: NDArray[Any], indices_out: NDArray[np.int32]) -> None: ...
