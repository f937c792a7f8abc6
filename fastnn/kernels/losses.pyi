from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LOSSES: dict[str, int]

class Targets(NamedTuple):
    loss: int
    y: NDArray[Any]
    weights: NDArray[np.float64] | None = None
    smoothing: float = 0.0
    levels: NDArray[np.float64] | None = None

def inplace_loss(targets: Targets, Z: NDArray[Any], total: float) -> float: ...
