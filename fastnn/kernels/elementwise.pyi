from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

CODES: dict[str, int]
MOST_AXES: int
MOST_OPERANDS: int
MOST_STEPS: int

class Expression:
    n_inputs: int
    steps: tuple[tuple[int, ...], ...]
    outputs: tuple[int, ...]
    single: bool
    truths: tuple[bool, ...]
    def __init__(
        self,
        n_inputs: int,
        steps: tuple[tuple[int, ...], ...],
        outputs: tuple[int, ...],
        single: bool,
        truths: tuple[bool, ...] = (),
    ) -> None: ...
    def __call__(self, *arrays: Any, out: NDArray[Any] | Sequence[NDArray[Any]] | None = None) -> Any: ...

class Call:
    arrays: tuple[NDArray[Any], ...]
    outs: tuple[NDArray[Any], ...]
    work: int
    def __init__(
        self, expression: Expression, arrays: tuple[Any, ...], outs: tuple[NDArray[Any], ...], copies: bool = False
    ) -> None: ...
    def __call__(self, n_threads: int = 1) -> None: ...
