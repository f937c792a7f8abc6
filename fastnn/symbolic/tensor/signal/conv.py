"""Convolution of images without channels: ``T.signal.conv``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn._validation import check_choice
from fastnn.symbolic import ops
from fastnn.symbolic.graph import Operand, Variable, as_variable
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
    """Convolve each image with each filter.

    Parameters
    ----------
    input : (height, width) or (n, height, width)
    filters : (height, width) or (filters, height, width)
    image_shape, filter_shape
        Ignored, as are other keywords.
    border_mode : {"valid", "full"}
    subsample : (down, across)

    Returns
    -------
    Variable
        (n, filters, rows, columns), without the dimensions that the arguments do not have.
    """
    X, W = as_variable(input), as_variable(filters)
    if X.ndim not in (2, 3) or W.ndim not in (2, 3):
        raise TypeError(
            f"signal.conv.conv2d takes images and filters of two or three dimensions, not {X.type}, {W.type}"
        )
    check_choice(border_mode, "border_mode", ["valid", "full"])
    stacks = [
        each.dimshuffle(*"xx"[: 4 - each.ndim], 0, 1) if each.ndim == 2 else each.dimshuffle(0, "x", 1, 2)
        for each in (X, W)
    ]
    Z = ops.convolve(windows_of(border_mode, subsample, True), *stacks)
    return Z[tuple(0 if each.ndim == 2 else slice(None) for each in (X, W))]
