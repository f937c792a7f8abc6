from typing import Any

import numpy as np
from numpy.typing import NDArray

def gather(codes: NDArray[np.int32], tables: NDArray[Any], shapes: NDArray[np.intp], G_out: NDArray[Any]) -> None: ...
def scatter(
    codes: NDArray[np.int32],
    dG: NDArray[Any],
    shapes: NDArray[np.intp],
    tables_out: NDArray[Any],
    alpha: float = 1.0,
) -> None: ...
