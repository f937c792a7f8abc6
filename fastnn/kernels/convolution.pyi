from typing import Any

from numpy.typing import NDArray

def convolution(
    X: NDArray[Any],
    W: NDArray[Any],
    b: NDArray[Any],
    window: tuple[int, int, int, int],
    Z_out: NDArray[Any],
    begin: int,
    end: int,
) -> None: ...
def backprop_convolution_weight(
    X: NDArray[Any],
    dZ: NDArray[Any],
    window: tuple[int, int, int, int],
    dW_out: NDArray[Any],
    begin: int,
    end: int,
    alpha: float = 1.0,
    beta: float = 0.0,
) -> None: ...
def backprop_convolution_bias(
    dZ: NDArray[Any], db_out: NDArray[Any], begin: int, end: int, alpha: float = 1.0, beta: float = 0.0
) -> None: ...
def backprop_convolution_input(
    dZ: NDArray[Any], W: NDArray[Any], window: tuple[int, int, int, int], dX_out: NDArray[Any], begin: int, end: int
) -> None: ...
