from typing import Any

import numpy as np
from numpy.typing import NDArray

REGISTER_BYTES: int

def panels_size(n_in: int, width: int, number_size: int) -> int: ...
def affine(X: NDArray[Any], W: NDArray[Any], b: NDArray[Any], Z_out: NDArray[Any]) -> None: ...
def panels_affine(
    X: NDArray[Any], W: NDArray[Any], b: NDArray[Any], bounds: NDArray[np.intp], Z_out: NDArray[Any]
) -> None: ...
def backprop_affine_input(dZ: NDArray[Any], W: NDArray[Any], dX_out: NDArray[Any]) -> None: ...
def backprop_affine_weight(
    X: NDArray[Any], dZ: NDArray[Any], dW_out: NDArray[Any], alpha: float = 1.0, beta: float = 0.0
) -> None: ...
def backprop_panels_input(
    dZ: NDArray[Any], W: NDArray[Any], bounds: NDArray[np.intp], dX_out: NDArray[Any]
) -> None: ...
def backprop_panels_weight(
    X: NDArray[Any],
    dZ: NDArray[Any],
    bounds: NDArray[np.intp],
    dW_out: NDArray[Any],
    alpha: float = 1.0,
    beta: float = 0.0,
) -> None: ...
def backprop_affine_bias(dZ: NDArray[Any], db_out: NDArray[Any], alpha: float = 1.0, beta: float = 0.0) -> None: ...
