"""The older form of convolution: ``T.nnet.conv``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from fastnn._validation import check_choice
from fastnn.symbolic import ops
from fastnn.symbolic.graph import Operand, Variable
from fastnn.symbolic.tensor.nnet.abstract_conv import windows_of

__all__ = ["conv2d"]


def conv2d(
    input: Operand,
    filters: Operand,
    image_shape: Any = None,
    filter_shape: Any = None,
    border_mode: str = "valid",
    subsample: Sequence[int] = (1, 1),
    **kwargs: Any,
) -> Variable:
    """Convolve stacks of images with stacks of filters, as `T.nnet.conv2d` does.

    Shapes and other keywords are ignored; ``border_mode`` is "valid" or "full".  Theano warns that this name is old,
    and so does this function.
    """
    warnings.warn("T.nnet.conv.conv2d is an old name: use T.nnet.conv2d", UserWarning, stacklevel=2)
    check_choice(border_mode, "border_mode", ["valid", "full"])
    return ops.convolve(windows_of(border_mode, subsample, True), input, filters)
