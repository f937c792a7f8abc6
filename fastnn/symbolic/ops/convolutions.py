"""Convolution of images (image, channel, row, column), by the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.threads import available_threads, forks
from fastnn.kernels import images
from fastnn.symbolic.graph import Op, Operand, Parts, Type, Variable, apply, constant
from fastnn.symbolic.inplace import KERNEL_DTYPES
from fastnn.symbolic.ops.elementwise import cast, promoted
from fastnn.symbolic.ops.shapes import shape, shapes_told
from fastnn.symbolic.ops.texts import INDEX, Gradients, call

Pair: TypeAlias = tuple[int, int]

#: Zeros around images: above and below, left and right; "half" and "full" depend on the filters.
Border: TypeAlias = "str | tuple[Pair, Pair]"


def threads_for(n_products: float) -> int:
    """Return the number of threads for so many multiply-adds, or other steps."""
    return forks.usable_threads(available_threads()) if n_products >= tuning.SMALL_RUN else 1


def plain(array: Any) -> NDArray[Any]:
    """Return an array as kernels need it: C-contiguous and aligned."""
    return np.require(array, None, ["C", "A"])


@dataclass(frozen=True)
class Windows:
    """How filters go over images.

    Parameters
    ----------
    border : "half", "full" or ((above, below), (left, right))
        Zeros around the images.
    stride : (down, across)
        From each window to the next.
    dilation : (down, across)
        From each number of a window to the next.
    flips : bool
        Whether filters are turned by half a turn, as in a convolution in the mathematical sense.
    """

    border: Border = ((0, 0), (0, 0))
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    flips: bool = True

    def padding(self, size: Pair) -> tuple[int, int, int, int]:
        """Return the zeros above, to the left, below and to the right, for windows of a size."""
        if not isinstance(self.border, str):
            (above, below), (left, right) = self.border
            return above, left, below, right
        rows, columns = (n // 2 if self.border == "half" else n - 1 for n in size)
        return rows, columns, rows, columns

    def size(self, W: tuple[int, ...]) -> Pair:
        """Return the size of windows for filters of a shape."""
        rows, columns = ((n - 1) * step + 1 for n, step in zip(W[2:], self.dilation, strict=True))
        return rows, columns

    def positions(self, X: tuple[int, ...], W: tuple[int, ...]) -> Pair:
        """Return how many windows go down and across images of a shape; ValueError if X and W do not fit."""
        if X[1] != W[1]:
            raise ValueError(f"the images have {X[1]} channels, but the filters are for {W[1]}")
        size = self.size(W)
        above, left, below, right = self.padding(size)
        whole = X[2] + above + below, X[3] + left + right
        if 0 in size or any(n > m for n, m in zip(size, whole, strict=True)):
            raise ValueError(
                f"the filters must have from 1 to as many rows and columns as the images, {whole[0]} x {whole[1]} "
                f"with what lies around them, not {size[0]} x {size[1]}"
            )
        rows, columns = ((m - n) // step + 1 for m, n, step in zip(whole, size, self.stride, strict=True))
        return rows, columns

    def stored(self, W: NDArray[Any]) -> NDArray[Any]:
        """Return filters as the kernels store them: (height, width, channels, filters)."""
        view = W.transpose(2, 3, 1, 0)
        view = view[::-1, ::-1] if self.flips else view
        if self.dilation == (1, 1):
            return np.ascontiguousarray(view)
        spread = np.zeros((*self.size(W.shape), *view.shape[2:]), W.dtype)
        spread[:: self.dilation[0], :: self.dilation[1]] = view
        return spread

    def restored(self, W: NDArray[Any]) -> NDArray[Any]:
        """Return a view of filters in the kernels' form as (filters, channels, height, width)."""
        view = W[:: self.dilation[0], :: self.dilation[1]]
        return (view[::-1, ::-1] if self.flips else view).transpose(3, 2, 0, 1)

    def options(self) -> list[str]:
        """Return what differs from the default, for texts."""
        found = []
        if self.border != ((0, 0), (0, 0)):
            found.append(f"border_mode={self.border!r}")
        if self.stride != (1, 1):
            found.append(f"subsample={self.stride}")
        if self.dilation != (1, 1):
            found.append(f"filter_dilation={self.dilation}")
        return found if self.flips else [*found, "filter_flip=False"]


@dataclass(frozen=True)
class _ByWindows(Op):
    windows: Windows

    takes_out = True
    in_threads = True

    def _result(self, lengths: Any, like: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any]:
        return np.empty(tuple(lengths), like.dtype) if out is None else out

    def _arguments(self, W: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        # Padding and window for the kernels.
        size = self.windows.size(W)
        return self.windows.padding(size), (*size, *self.windows.stride)


class Convolution(_ByWindows):
    """Images (n, channels, height, width) convolved with filters (filters, channels, height, width)."""

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        X, W = map(plain, arrays)
        positions = self.windows.positions(X.shape, W.shape)
        Z = self._result((len(X), len(W), *positions), X, out)
        if X.size and W.size:
            n_threads = threads_for(Z.size * W[0].size)
            images.convolve_images(X, self.windows.stored(W), *self._arguments(W.shape), Z, n_threads)
        else:
            Z[...] = 0
        return Z

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        X, W = inputs
        return [by_images(self.windows, g, W, shape(X)), by_filters(self.windows, X, g, shape(W))]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("conv2d", inputs[0][0], inputs[1][0], *self.windows.options())


class ImagesSlope(_ByWindows):
    """The gradient by the images, of the shape in the third input, from that by a convolution and its filters."""

    connects = slice(2)

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        dZ, W = map(plain, arrays[:2])
        dX = self._result(arrays[2], dZ, out)
        check_positions(dZ, (len(dX), len(W), *self.windows.positions(dX.shape, W.shape)))
        if dZ.size and dX.size:
            n_threads = threads_for(dZ.size * W[0].size)
            images.backprop_convolve_images_input(dZ, self.windows.stored(W), *self._arguments(W.shape), dX, n_threads)
        else:
            dX[...] = 0
        return dX

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[2:]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return shapes_told(inputs[2])

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        dZ, W, _ = inputs
        return [convolve(self.windows, g, W), by_filters(self.windows, g, dZ, shape(W)), None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("conv2d_grad_wrt_inputs", *(text for text, _ in inputs), *self.windows.options())


class FiltersSlope(_ByWindows):
    """The gradient by the filters, of the shape in the third input, from the images and that by a convolution."""

    connects = slice(2)

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        X, dZ = map(plain, arrays[:2])
        dW = self._result(arrays[2], X, out)
        check_positions(dZ, (len(X), len(dW), *self.windows.positions(X.shape, dW.shape)))
        if dZ.size and dW.size:
            stored = np.empty((*self.windows.size(dW.shape), *dW.shape[1::-1]), X.dtype)
            n_threads = threads_for(dZ.size * dW[0].size)
            images.backprop_convolve_images_weight(X, dZ, *self._arguments(dW.shape), stored, n_threads)
            dW[...] = self.windows.restored(stored)
        else:
            dW[...] = 0
        return dW

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[2:]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return shapes_told(inputs[2])

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        X, dZ, _ = inputs
        return [by_images(self.windows, dZ, g, shape(X)), convolve(self.windows, X, g), None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("conv2d_grad_wrt_weights", *(text for text, _ in inputs), *self.windows.options())


def check_positions(dZ: NDArray[Any], expected: tuple[int, ...]) -> None:
    """Raise ValueError unless a gradient has the shape of what it is the gradient by."""
    if dZ.shape != expected:
        raise ValueError(f"the gradient by the output must have the shape {expected}, not {dZ.shape}")


def convolve(windows: Windows, X: Operand, W: Operand) -> Variable:
    """Images convolved with filters; in float64 for dtypes that the kernels do not have."""
    return _on_kernels(Convolution(windows), X, W)


def by_images(windows: Windows, dZ: Operand, W: Operand, lengths: Operand) -> Variable:
    """Return the gradient by the images, in a shape, of a convolution that has the gradient dZ."""
    return _on_kernels(ImagesSlope(windows), dZ, W, lengths)


def by_filters(windows: Windows, X: Operand, dZ: Operand, lengths: Operand) -> Variable:
    """Return the gradient by the filters, in a shape, of a convolution that has the gradient dZ."""
    return _on_kernels(FiltersSlope(windows), X, dZ, lengths)


def _on_kernels(op: Op, x: Operand, y: Operand, *lengths: Operand) -> Variable:
    x, y = promoted(x, y)
    dtype = x.type.dtype
    if x.ndim != 4 or y.ndim != 4:
        raise TypeError(f"a convolution takes images and filters of four dimensions, not {x.type} and {y.type}")
    within = dtype if dtype in KERNEL_DTYPES else np.dtype(np.float64)
    shapes = [each if isinstance(each, Variable) else constant(each, INDEX) for each in lengths]
    return cast(apply(op, Type(within, 4), cast(x, within), cast(y, within), *shapes), dtype)
