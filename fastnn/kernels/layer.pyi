from typing import Any

from numpy.typing import NDArray

from fastnn.kernels.plan import CompiledPlan

def rearrange(
    plan: CompiledPlan,
    stored: CompiledPlan,
    back: bool,
    vector: NDArray[Any],
    vector_out: NDArray[Any],
) -> None: ...
