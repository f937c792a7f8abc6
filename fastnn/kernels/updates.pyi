from typing import Any

import numpy as np
from numpy.typing import NDArray

UPDATES: dict[str, int]

def inplace_update(
    update: int,
    hyperparameters: NDArray[np.float64],
    parameters: NDArray[Any],
    gradient: NDArray[Any],
    state: NDArray[Any],
) -> None: ...
