from typing import Any

import numpy as np
from numpy.typing import NDArray

def mrg31k3p(
    states: NDArray[np.int32], states_out: NDArray[np.int32], out: NDArray[Any], norm: float, n_threads: int = 1
) -> None: ...
