from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.kernels.updates import Steps

def bring_up_to_date(
    steps: Steps, W: NDArray[Any], state: NDArray[Any], touched: NDArray[np.int64], n_steps: int
) -> None: ...
