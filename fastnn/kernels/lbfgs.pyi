from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_SIZE: int

class Memory(NamedTuple):
    x: NDArray[Any]
    g: NDArray[Any]
    d: NDArray[Any]
    pairs: NDArray[Any]
    products: NDArray[np.float64]
    sums: NDArray[np.float64]
    coefficients: NDArray[np.float64]

def slope(gradient: NDArray[Any], memory: Memory, n_threads: int) -> float: ...
def move(parameters_out: NDArray[Any], memory: Memory, step: float, n_threads: int) -> None: ...
def remember(parameters: NDArray[Any], gradient: NDArray[Any], memory: Memory, slot: int, n_threads: int) -> None: ...
def point(memory: Memory, g: NDArray[Any], newest: int, n_pairs: int, n_threads: int) -> float: ...
