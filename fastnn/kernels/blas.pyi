from typing import Any

from numpy.typing import NDArray

MAX_DIMENSION: int

def gemm(
    A: NDArray[Any],
    B: NDArray[Any],
    C_out: NDArray[Any],
    alpha: float = 1.0,
    beta: float = 0.0,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> None: ...
def gemm_in_threads(
    A: NDArray[Any],
    B: NDArray[Any],
    C_out: NDArray[Any],
    transpose_a: bool = False,
    transpose_b: bool = False,
    n_threads: int = 1,
) -> None: ...
def warm_up(A: NDArray[Any], B: NDArray[Any], C_out: NDArray[Any], n_threads: int) -> None: ...
