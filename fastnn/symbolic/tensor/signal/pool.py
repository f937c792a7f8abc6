"""Pooling of images: ``T.signal.pool``."""

from __future__ import annotations

import warnings
from typing import Any

from fastnn._validation import check_choice
from fastnn.symbolic import ops
from fastnn.symbolic.graph import Operand, Variable, as_variable
from fastnn.symbolic.tensor.nnet.abstract_conv import pair_of

__all__ = ["pool_2d"]


def pool_2d(
    input: Operand,
    ws: Any = None,
    ignore_border: bool | None = None,
    stride: Any = None,
    pad: Any = (0, 0),
    mode: str = "max",
    ds: Any = None,
    st: Any = None,
    padding: Any = None,
) -> Variable:
    """Pool windows of the last two dimensions.

    Parameters
    ----------
    input : (..., height, width)
    ws : (rows, columns)
        Size of a window.
    ignore_border : bool, default False
        Whether there are only whole windows.  Otherwise the last rows and columns are in windows that end with them.
        The default gives a warning, as in Theano.
    stride : (down, across), optional
        From each window to the next; by default its size.
    pad : (rows, columns)
        What lies around the images on both sides, less than a window; needs ``ignore_border=True``.
    mode : {"max", "sum", "average_inc_pad", "average_exc_pad"}
        The largest number; the sum; the mean, with what lies around the images as zeros or without it.  Each of several
        equal largest numbers gets the whole gradient.
    ds, st, padding
        Old names of ws, stride and pad; they give a warning, as in Theano.

    Returns
    -------
    Variable, (..., rows, columns)
    """
    ws = _renamed("ds", ds, "ws", ws)
    stride = _renamed("st", st, "stride", stride)
    pad = _renamed("padding", padding, "pad", None if pad in (None, (0, 0)) else pad)
    if ws is None:
        raise ValueError("pool_2d needs the size of a window, ws")
    X = as_variable(input)
    if X.ndim < 2:
        raise NotImplementedError(f"pool_2d takes at least two dimensions, not a {X.type}")
    if ignore_border is None:
        warnings.warn("pool_2d without ignore_border takes it as False", UserWarning, stacklevel=2)
    if mode != "max_deterministic":
        check_choice(mode, "mode", ops.MODES)
    size = pair_of(ws, "ws")
    around = pair_of((0, 0) if pad is None else pad, "pad", 0)
    if any(around) and not ignore_border:
        raise NotImplementedError("pad needs ignore_border=True")
    if any(n >= window for n, window in zip(around, size, strict=True)):
        raise NotImplementedError(f"pad must be smaller than a window of {size[0]} x {size[1]}, not {around}")
    mode = "max" if mode == "max_deterministic" else mode
    return ops.pool(X, size, size if stride is None else pair_of(stride, "stride"), around, mode, bool(ignore_border))


def _renamed(old_name: str, old: Any, name: str, value: Any) -> Any:
    if old is None:
        return value
    if value is not None:
        raise ValueError(f"{name} and {old_name}, its old name, cannot be given both")
    warnings.warn(f"{old_name} is now called {name}", UserWarning, stacklevel=3)
    return old
