from typing import Any

from numpy.typing import NDArray

BLOCK_BYTES: int

def dense_affine(
    X: NDArray[Any], W: NDArray[Any], b: NDArray[Any], Z_out: NDArray[Any], n_threads: int = 1
) -> None: ...
def backprop_dense_weight(
    X: NDArray[Any],
    dZ: NDArray[Any],
    dW_out: NDArray[Any],
    alpha: float = 1.0,
    beta: float = 0.0,
    n_threads: int = 1,
) -> None: ...
def backprop_dense_input(dZ: NDArray[Any], W: NDArray[Any], dX_out: NDArray[Any], work: NDArray[Any]) -> None: ...
