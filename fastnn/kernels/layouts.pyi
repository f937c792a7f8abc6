from typing import Any

import numpy as np
from numpy.typing import NDArray

LAYOUTS: dict[str, int]

def rearrange(
    sizes: NDArray[np.intp],
    layout: int,
    back: bool,
    vector: NDArray[Any],
    vector_out: NDArray[Any],
    n_threads: int = 1,
) -> None: ...
def vector_size(sizes: NDArray[np.intp], layout: int, number_size: int) -> int: ...
def slice_bounds(width: int) -> list[int]: ...
def transposes_output(sizes: NDArray[np.intp]) -> bool: ...
