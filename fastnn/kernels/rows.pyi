from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CACHE_LINE: int
UINT8_SCALE: float

class CSRRows(NamedTuple):
    data: NDArray[Any]
    indices: NDArray[np.int32]
    indptr: NDArray[np.int64]
    n_columns: int
    codes: NDArray[np.int32] | None = None
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...

class Motion(NamedTuple):
    height: int
    width: int
    channels: int
    down: int
    across: int
    flips: bool

def draw_order(bit_generator: np.random.BitGenerator, order_out: NDArray[np.intp]) -> None: ...
def all_finite(values: NDArray[Any], n_threads: int = 1) -> bool: ...
