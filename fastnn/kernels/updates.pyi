from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UPDATES: dict[str, int]

class Steps(NamedTuple):
    update: int
    table: NDArray[np.float64]
    clip_norm: float = 0.0
    max_norm: float = 0.0

def inplace_update(
    update: int,
    numbers: NDArray[np.float64],
    parameters: NDArray[Any],
    gradient: NDArray[Any],
    state: NDArray[Any],
    scale: float = 1.0,
    is_weight: bool = True,
) -> None: ...
def inplace_max_norm(W: NDArray[Any], limit: float, by_rows: bool = False) -> None: ...
