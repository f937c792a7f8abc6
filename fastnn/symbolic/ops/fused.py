"""Elementwise operations by the kernel, one or several as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.threads import available_threads, forks
from fastnn.kernels.elementwise import CODES, MOST_AXES, Call, Expression
from fastnn.symbolic.graph import Constant, Op, Parts, Variable
from fastnn.symbolic.inplace import KERNEL_DTYPES
from fastnn.symbolic.ops.elementwise import Cast, Elementwise, mul, power, sqr, sqrt

#: An operation and the numbers of its values: inputs first, then results of steps.
Step: TypeAlias = "tuple[Elementwise | Cast, tuple[int, ...]]"

#: Powers up to this one are products.
MOST_FACTORS = 16


@dataclass(frozen=True)
class Fused(Op):
    """Steps on the elements of the inputs, by the kernel.

    Each number is computed in the same way in whatever steps it takes part, so joining steps does not change the bits.

    Parameters
    ----------
    n_inputs : int
    steps : tuple of Step
    results : tuple of int
        Numbers of the values that are results; several are a list.
    dtype : dtype
        In which the steps compute: float32 or float64.
    truths : tuple of bool
        Whether a result is bool, instead of this dtype.
    """

    n_inputs: int
    steps: tuple[Step, ...]
    results: tuple[int, ...]
    dtype: np.dtype[Any]
    truths: tuple[bool, ...]

    takes_out = True

    @cached_property
    def expression(self) -> Expression:
        """The steps for the kernel."""
        codes = tuple((_code(op), *values) for op, values in self.steps)
        return Expression(self.n_inputs, codes, self.results, self.dtype == np.float32, self.truths)

    def compute(self, *arrays: Any, out: Any = None) -> Any:
        return self.expression(*arrays, out=out)

    def calls(self, arrays: Sequence[NDArray[Any]], *outs: NDArray[Any]) -> list[Callable[[], Any]]:
        try:
            call = Call(self.expression, tuple(map(np.asarray, arrays)), outs)
        except ValueError:  # arrays that must be copied
            return [lambda: self.compute(*arrays, out=outs if len(outs) > 1 else outs[0])]
        n_threads = available_threads() if call.work >= tuning.SMALL_ELEMENTWISE else 1
        return [call if n_threads == 1 else lambda: call(forks.usable_threads(n_threads))]

    def text(self, inputs: Parts) -> tuple[str, int]:
        texts = list(inputs)
        for op, values in self.steps:
            texts.append(op.text([texts[i] for i in values]))
        return texts[-1]


def _code(op: Elementwise | Cast) -> int:
    return CODES["cast" if isinstance(op, Cast) else op.name]


def fused(variable: Variable) -> Fused | None:
    """Return a variable's operation for the kernel, or None if that does not know it."""
    op, inputs = variable.op, variable.inputs
    if variable.ndim > MOST_AXES:
        return None
    if isinstance(op, Cast):
        dtype, known = op.dtype, inputs[0].type.dtype.kind in "biu" or inputs[0].type.dtype in KERNEL_DTYPES
    elif isinstance(op, Elementwise):
        # NumPy's power is faster than the C library's.
        known = op.name in CODES and (op is not power or variable.ndim == 0 or _power(inputs[1]) is not None)
        dtype, condition = inputs[-1].type.dtype, inputs[0].type.dtype
        known = known and (condition == dtype or condition.kind in "biu")
    else:
        return None
    if not known or dtype not in KERNEL_DTYPES:
        return None
    steps = _power(inputs[1]) if op is power and dtype.kind == "f" else None
    steps = steps or ((op, tuple(range(len(inputs)))),)
    last = len(inputs) + len(steps) - 1
    return Fused(len(inputs), steps, (last,), dtype, (variable.type.dtype.kind == "b",))


def _power(exponent: Variable) -> tuple[Step, ...] | None:
    # The steps from value 0, whose power is wanted, if products or a root give it.
    number = float(exponent.value) if isinstance(exponent, Constant) and exponent.ndim == 0 else math.nan
    if number == 0.5:
        return ((sqrt, (0,)),)
    if not number.is_integer() or not 2 <= number <= MOST_FACTORS:
        return None
    steps: list[Step] = []
    for digit in bin(int(number))[3:]:
        steps.append((sqr, (len(steps) + 1 if steps else 0,)))
        if digit == "1":
            steps.append((mul, (len(steps) + 1, 0)))
    return tuple(steps)
