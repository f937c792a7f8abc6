from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_PLACES: int

def max_pool(
    Z: NDArray[Any],
    window: tuple[int, int, int, int],
    Y_out: NDArray[Any],
    places_out: NDArray[np.uint8] | None,
    begin: int,
    end: int,
) -> None: ...
def backprop_max_pool(
    dY: NDArray[Any],
    places: NDArray[np.uint8],
    window: tuple[int, int, int, int],
    dZ_out: NDArray[Any],
    begin: int,
    end: int,
) -> None: ...
def mean_pool(
    Z: NDArray[Any], window: tuple[int, int, int, int], Y_out: NDArray[Any], begin: int, end: int
) -> None: ...
def backprop_mean_pool(
    dY: NDArray[Any], window: tuple[int, int, int, int], dZ_out: NDArray[Any], begin: int, end: int
) -> None: ...
def to_lanes(rows: NDArray[Any], X_out: NDArray[Any]) -> None: ...
def from_lanes(X: NDArray[Any], rows_out: NDArray[Any]) -> None: ...
