"""Pooling: windows of the last two dimensions become their largest number, their sum or their mean, by the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.kernels import images
from fastnn.symbolic.graph import Op, Operand, Parts, Type, Variable, apply, as_variable
from fastnn.symbolic.inplace import KERNEL_DTYPES
from fastnn.symbolic.ops.convolutions import Pair, check_positions, plain, threads_for
from fastnn.symbolic.ops.elementwise import cast
from fastnn.symbolic.ops.shapes import shape, shapes_told
from fastnn.symbolic.ops.texts import Gradients, call

#: Modes: the largest number, the sum, the mean with the zeros around images or without them.
MODES = ("max", "sum", "average_inc_pad", "average_exc_pad")


@dataclass(frozen=True)
class _Pooling(Op):
    """What pooling and its gradient have in common.

    Parameters
    ----------
    size, stride, padding : (rows, columns)
        Of windows; from each to the next; around the images, on both sides.
    mode : one of MODES
    whole : bool
        Whether there are only whole windows: otherwise the last rows and columns are in windows that end with them.
    """

    size: Pair
    stride: Pair
    padding: Pair
    mode: str
    whole: bool

    takes_out = True
    in_threads = True

    def positions(self, lengths: tuple[int, ...]) -> Pair:
        """Return how many windows go down and across images of a shape."""
        found = []
        for n, size, step, around in zip(lengths[-2:], self.size, self.stride, self.padding, strict=True):
            n += 2 * around
            if self.whole:
                found.append(max(0, (n - size) // step + 1))
            else:
                found.append((n - 1) // step + 1 if step >= size else max(0, (n - 1 - size + step) // step) + 1)
        return found[0], found[1]

    def shares(self, lengths: tuple[int, ...], positions: Pair, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the factor of each window's sum (rows, columns): 1, or 1 by the count of its numbers."""
        if self.mode == "sum":
            return np.ones(positions, dtype)
        counts = []
        for i, n in enumerate(lengths[-2:]):
            begin = np.arange(positions[i]) * self.stride[i]
            end = np.minimum(begin + self.size[i], n + 2 * self.padding[i])
            if self.mode == "average_exc_pad":
                begin, end = np.maximum(begin, self.padding[i]), np.minimum(end, n + self.padding[i])
            counts.append(end - begin)
        return (1 / (counts[0][:, None] * counts[1])).astype(dtype)

    def _arguments(self, lengths: tuple[int, ...], positions: Pair) -> tuple[tuple[int, ...], tuple[int, ...]]:
        # Padding and window for the kernels: behind the images, as far as windows reach.
        below, right = (
            max(0, (many - 1) * step + size - around - n)
            for many, step, size, around, n in zip(
                positions, self.stride, self.size, self.padding, lengths[-2:], strict=True
            )
        )
        return (*self.padding, below, right), (*self.size, *self.stride)

    def options(self) -> list[str]:
        """Return the arguments of `pool_2d`, for texts."""
        found = [str(self.size), f"ignore_border={self.whole}"]
        if self.stride != self.size:
            found.append(f"stride={self.stride}")
        if self.padding != (0, 0):
            found.append(f"pad={self.padding}")
        return found if self.mode == "max" else [*found, f"mode={self.mode!r}"]


class Pool(_Pooling):
    """The largest number, the sum or the mean of each window of the last two dimensions."""

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        X = plain(arrays[0])
        positions = self.positions(X.shape)
        Y = np.empty((*X.shape[:-2], *positions), X.dtype) if out is None else out
        if not Y.size:
            return Y
        if not X.size:
            raise ValueError(f"there is no number in images of {X.shape[-2]} x {X.shape[-1]}")
        planes, pooled = _planes(X), _planes(Y)
        arguments, n_threads = self._arguments(X.shape, positions), threads_for(X.size)
        if self.mode == "max":
            images.max_pool_images(planes, *arguments, pooled, n_threads)
        else:
            images.sum_pool_images(planes, self.shares(X.shape, positions, X.dtype), *arguments, pooled, n_threads)
        return Y

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        (x,) = inputs
        fields = self.size, self.stride, self.padding, self.mode, self.whole
        if self.mode == "max":
            return [apply(LargestSlope(*fields), x.type, x, output, g)]
        return [apply(SumSlope(*fields), x.type, g, shape(x))]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("pool_2d", inputs[0][0], *self.options())


class LargestSlope(_Pooling):
    """The gradient by x of its max-pooling y, from that by y: each number equal to its window's y gets all of it."""

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        X, Y, dY = map(plain, arrays)
        positions = self.positions(X.shape)
        check_positions(dY, (*X.shape[:-2], *positions))
        dX = np.empty_like(X) if out is None else out
        if dY.size:
            arguments = self._arguments(X.shape, positions)
            images.backprop_max_pool_images(
                _planes(X), _planes(Y), _planes(dY), *arguments, _planes(dX), threads_for(X.size)
            )
        else:
            dX[...] = 0
        return dX

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        raise NotImplementedError("the gradient of a max-pooling has no gradient here")

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("max_pool_slope", *(text for text, _ in inputs), *self.options())


class SumSlope(_Pooling):
    """The gradient by what was pooled to sums or means, of the shape in the second input, from that by these."""

    connects = slice(1)

    def compute(self, *arrays: Any, out: NDArray[Any] | None = None) -> Any:
        dY, lengths = plain(arrays[0]), tuple(arrays[1])
        positions = self.positions(lengths)
        check_positions(dY, (*lengths[:-2], *positions))
        dX = np.empty(lengths, dY.dtype) if out is None else out
        if dY.size and dX.size:
            images.backprop_sum_pool_images(
                _planes(dY),
                self.shares(lengths, positions, dY.dtype),
                *self._arguments(lengths, positions),
                _planes(dX),
                threads_for(dX.size),
            )
        else:
            dX[...] = 0
        return dX

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[1:]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return shapes_told(inputs[1])

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        op = Pool(self.size, self.stride, self.padding, self.mode, self.whole)
        return [apply(op, inputs[0].type, g), None]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("pool_slope", *(text for text, _ in inputs), *self.options())


def _planes(X: NDArray[Any]) -> NDArray[Any]:
    # A view of the kernels' form: each plane an image of one channel.
    return X.reshape(-1, 1, *X.shape[-2:])


def pool(x: Operand, size: Pair, stride: Pair, padding: Pair, mode: str, whole: bool) -> Variable:
    """Pool the last two dimensions; in float64 for dtypes that the kernels do not have."""
    variable = as_variable(x)
    dtype = variable.type.dtype
    within = dtype if dtype in KERNEL_DTYPES else np.dtype(np.float64)
    op = Pool(size, stride, padding, mode, whole)
    return cast(apply(op, Type(within, variable.ndim), cast(variable, within)), dtype)
