"""Convolution of stacks of images: ``T.nnet.conv2d`` and what goes the other way."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from fastnn._validation import check_choice, check_integer, check_pair
from fastnn.symbolic import ops
from fastnn.symbolic.graph import Constant, Operand, Variable, as_variable

__all__ = ["AbstractConv2d_gradInputs", "conv2d", "conv2d_grad_wrt_inputs", "conv2d_transpose"]


def conv2d(
    input: Operand,
    filters: Operand,
    input_shape: Any = None,
    filter_shape: Any = None,
    border_mode: Any = "valid",
    subsample: Sequence[int] = (1, 1),
    filter_flip: bool = True,
    image_shape: Any = None,
    filter_dilation: Sequence[int] = (1, 1),
    num_groups: int = 1,
    unshared: bool = False,
    **kwargs: Any,
) -> Variable:
    """Convolve stacks of images with stacks of filters.

    Parameters
    ----------
    input : (n, channels, height, width)
        Images.
    filters : (filters, channels, height, width)
        With ``num_groups``, of the channels of one group.
    input_shape, filter_shape
        Ignored: shapes are known when a function runs.  So is ``image_shape``, the old name of the first, and so are
        other keywords; Theano warns of these too.
    border_mode : {"valid", "half", "full"}, int, or pair of int or of pairs of int
        "valid": windows lie within the images.  "half" and "full": half of a window's rows and columns, or all but one,
        may lie in zeros.  Otherwise the zeros on all sides; above and below, left and right; or on each side.
    subsample : (down, across)
        From each window to the next.
    filter_flip : bool, default True
        Whether filters are turned by half a turn, as in a convolution in the mathematical sense.
    filter_dilation : (down, across)
        From each number of a window to the next.
    num_groups : int, default 1
        Parts of channels and of filters; each part of filters sees one of channels.
    unshared : bool
        Filters of each position are not supported.

    Returns
    -------
    Variable, (n, filters, rows, columns)
    """
    if image_shape is not None:
        if input_shape is not None:
            raise ValueError("input_shape and image_shape, its old name, cannot be given both")
        warnings.warn("image_shape is now called input_shape", UserWarning, stacklevel=2)
    if kwargs:
        warnings.warn(f"conv2d ignores {', '.join(kwargs)}", UserWarning, stacklevel=2)
    if unshared:
        raise NotImplementedError("conv2d has the same filters everywhere: unshared=True is not supported")
    windows = windows_of(border_mode, subsample, filter_flip, filter_dilation)
    X, W = as_variable(input), as_variable(filters)
    n_groups = check_integer(num_groups, "num_groups", 1)
    if n_groups == 1:
        return ops.convolve(windows, X, W)
    n_filters, n_channels = W.shape[0] // n_groups, W.shape[1]
    parts = [
        ops.convolve(windows, X[:, i * n_channels : (i + 1) * n_channels], W[i * n_filters : (i + 1) * n_filters])
        for i in range(n_groups)
    ]
    return ops.concatenate(parts, axis=1)


def conv2d_grad_wrt_inputs(
    output_grad: Operand,
    filters: Operand,
    input_shape: Sequence[Any],
    filter_shape: Any = None,
    border_mode: Any = "valid",
    subsample: Sequence[int] = (1, 1),
    filter_flip: bool = True,
    filter_dilation: Sequence[int] = (1, 1),
) -> Variable:
    """Return the gradient by the images of a convolution, from that by its output.

    Parameters
    ----------
    output_grad : (n, filters, rows, columns)
    filters : (filters, channels, height, width)
    input_shape : (n, channels, height, width)
        Of the images; the last two may be expressions.  The first two are ignored.
    border_mode, subsample, filter_flip, filter_dilation
        As in `conv2d`.

    Returns
    -------
    Variable, (n, channels, height, width)
    """
    dZ, W = as_variable(output_grad), as_variable(filters)
    height, width = list(input_shape)[-2:]
    lengths = ops.lengths_of([dZ.shape[0], W.shape[1], height, width])
    return ops.by_images(windows_of(border_mode, subsample, filter_flip, filter_dilation), dZ, W, lengths)


def conv2d_transpose(
    input: Operand,
    filters: Operand,
    output_shape: Sequence[Any],
    filter_shape: Any = None,
    border_mode: Any = "valid",
    input_dilation: Sequence[int] = (1, 1),
    filter_flip: bool = True,
    filter_dilation: Sequence[int] = (1, 1),
) -> Variable:
    """Return what goes the other way of a convolution, with ``input_dilation`` for its ``subsample``."""
    options = border_mode, input_dilation, filter_flip, filter_dilation
    return conv2d_grad_wrt_inputs(input, filters, output_shape, filter_shape, *options)


class AbstractConv2d_gradInputs:  # the name that programs know
    """`conv2d_grad_wrt_inputs` as an object: call it with filters, the gradient by the output, and height and width."""

    def __init__(
        self,
        imshp: Any = None,
        kshp: Any = None,
        border_mode: Any = "valid",
        subsample: Sequence[int] = (1, 1),
        filter_flip: bool = True,
        filter_dilation: Sequence[int] = (1, 1),
    ) -> None:
        self._options = border_mode, subsample, filter_flip, filter_dilation

    def __call__(self, kern: Operand, topgrad: Operand, shape: Any) -> Variable:
        """Return the gradient by the images, of this height and width."""
        return conv2d_grad_wrt_inputs(topgrad, kern, [shape[0], shape[1]], None, *self._options)


def windows_of(border_mode: Any, subsample: Any, filter_flip: Any, filter_dilation: Any = (1, 1)) -> ops.Windows:
    """Return how filters go over images, from the arguments of `conv2d`."""
    return ops.Windows(
        _border(border_mode),
        pair_of(subsample, "subsample"),
        pair_of(filter_dilation, "filter_dilation"),
        bool(filter_flip),
    )


def pair_of(value: Any, name: str, minimum: int = 1) -> ops.Pair:
    """Return two integers, each of which may be a constant expression."""
    if isinstance(value, Constant):
        value = value.value.tolist()
    if isinstance(value, Variable):
        raise TypeError(f"{name} must be two numbers, not the expression {value!r}")
    if isinstance(value, (tuple, list)):
        value = tuple(each.value.item() if isinstance(each, Constant) else each for each in value)
    return check_pair(value, name, minimum)


def _border(mode: Any) -> ops.Border:
    if isinstance(mode, str):
        check_choice(mode, "border_mode", ["valid", "half", "full"])
        return ((0, 0), (0, 0)) if mode == "valid" else mode
    if not isinstance(mode, (tuple, list)):
        mode = (mode, mode)
    if len(mode) != 2:
        raise ValueError(f"border_mode must be a name, a number or two of them, not {mode!r}")
    rows, columns = (pair_of(each, "border_mode", 0) for each in mode)
    return rows, columns
