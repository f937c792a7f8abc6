from typing import Any

from numpy.typing import NDArray

EPSILON: float
RUNNING_SHARE: float

def inplace_normalisation(
    Z: NDArray[Any],
    scale: NDArray[Any],
    bias: NDArray[Any],
    X_hat_out: NDArray[Any],
    mean_out: NDArray[Any],
    variance_out: NDArray[Any],
) -> None: ...
def inplace_backprop_normalisation(
    X_hat: NDArray[Any],
    variance: NDArray[Any],
    scale: NDArray[Any],
    dZ: NDArray[Any],
    dscale_out: NDArray[Any],
    dbias_out: NDArray[Any],
    alpha: float = 1.0,
    beta: float = 0.0,
) -> None: ...
def inplace_running_statistics(
    mean: NDArray[Any],
    variance: NDArray[Any],
    running_mean: NDArray[Any],
    running_variance: NDArray[Any],
    n: int,
) -> None: ...
