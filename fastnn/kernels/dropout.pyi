from typing import Any

from numpy.typing import NDArray

def inplace_dropout(
    Y: NDArray[Any], slopes: NDArray[Any], share: float, key: int, layer: int = 0, first: int = 0
) -> None: ...
