from typing import Any

from numpy.typing import NDArray

from fastnn.kernels.columns import Encoder
from fastnn.kernels.plan import CompiledPlan

class FewRows:
    def __init__(
        self,
        plan: CompiledPlan,
        input_shape: tuple[int, ...],
        parameters: NDArray[Any],
        loss: int,
        most_rows: int,
        encoder: Encoder | None = None,
    ) -> None: ...
    def predict(self, X: Any) -> NDArray[Any] | None: ...
    def predict_proba(self, X: Any) -> NDArray[Any] | None: ...
