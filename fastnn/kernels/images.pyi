from typing import Any

from numpy.typing import NDArray

def convolve_images(
    X: NDArray[Any],
    W: NDArray[Any],
    padding: tuple[int, ...],
    window: tuple[int, ...],
    Z_out: NDArray[Any],
    n_threads: int = 1,
) -> None: ...
def backprop_convolve_images_weight(
    X: NDArray[Any],
    dZ: NDArray[Any],
    padding: tuple[int, ...],
    window: tuple[int, ...],
    dW_out: NDArray[Any],
    n_threads: int = 1,
) -> None: ...
def backprop_convolve_images_input(
    dZ: NDArray[Any],
    W: NDArray[Any],
    padding: tuple[int, ...],
    window: tuple[int, ...],
    dX_out: NDArray[Any],
    n_threads: int = 1,
) -> None: ...
def max_pool_images(
    X: NDArray[Any],
    padding: tuple[int, ...],
    window: tuple[int, ...],
    Y_out: NDArray[Any],
    n_threads: int = 1,
) -> None: ...
def backprop_max_pool_images(
    X: NDArray[Any],
    Y: NDArray[Any],
    dY: NDArray[Any],
    padding: tuple[int, ...],
    window: tuple[int, ...],
    dX_out: NDArray[Any],
    n_threads: int = 1,
) -> None: ...
def sum_pool_images(
    X: NDArray[Any],
    shares: NDArray[Any],
    padding: tuple[int, ...],
    window: tuple[int, ...],
    Y_out: NDArray[Any],
    n_threads: int = 1,
) -> None: ...
def backprop_sum_pool_images(
    dY: NDArray[Any],
    shares: NDArray[Any],
    padding: tuple[int, ...],
    window: tuple[int, ...],
    dX_out: NDArray[Any],
    n_threads: int = 1,
) -> None: ...
