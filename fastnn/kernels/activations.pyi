from typing import Any

from numpy.typing import NDArray

ACTIVATIONS: dict[str, int]
LEAKY_SLOPE: float
SLOPED: frozenset[str]

def inplace_activation(activation: int, Z: NDArray[Any]) -> None: ...
def inplace_activation_and_slopes(activation: int, Z: NDArray[Any], slopes_out: NDArray[Any]) -> None: ...
def inplace_backprop_activation(activation: int, Y: NDArray[Any], dY: NDArray[Any]) -> None: ...
