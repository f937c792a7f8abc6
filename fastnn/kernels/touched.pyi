from typing import Any

import numpy as np
from numpy.typing import NDArray

def bring_up_to_date(
    update: int,
    hyperparameters: NDArray[np.float64],
    l2: float,
    W: NDArray[Any],
    state: NDArray[Any],
    touched: NDArray[np.int64],
    n_steps: int,
) -> None: ...
