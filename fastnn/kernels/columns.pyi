from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NUMBER_LIMIT: float
LARGEST_NUMBER: float

class ColumnFacts(NamedTuple):
    is_number: bool
    marks_missing: bool
    n: int = 0
    center: float = 0.0
    scale: float = 1.0
    knots: Sequence[float] = ()
    width: int = 0

class Encoder:
    def __init__(self, facts: Sequence[ColumnFacts]) -> None: ...
    @property
    def facts(self) -> tuple[ColumnFacts, ...]: ...
    @property
    def n_features(self) -> int: ...
    @property
    def most_active(self) -> int: ...
    @property
    def n_codes(self) -> int: ...

def count_active(encoder: Encoder, X: NDArray[Any], counts_out: NDArray[np.int64], n_threads: int = 1) -> None: ...
def encode(
    encoder: Encoder,
    X: NDArray[Any],
    indptr: NDArray[np.int64],
    data_out: NDArray[Any],
    indices_out: NDArray[np.int32],
    codes_out: NDArray[np.int32],
    n_threads: int = 1,
) -> None: ...
