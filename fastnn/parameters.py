"""The lists of arrays by which users read and change a network's parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import check_finite_numbers


class ParameterList(list[NDArray[Any]]):
    """The arrays of all layers; assigning to an item copies into the network's own array."""

    def __init__(self, arrays: Iterable[NDArray[Any]], name: str, minimum: float = -np.inf) -> None:
        super().__init__(arrays)
        self._name, self._minimum = name, minimum

    def __setitem__(self, index: Any, value: Any) -> None:
        targets, values = (self[index], list(value)) if isinstance(index, slice) else ([self[index]], [value])
        if len(targets) != len(values):
            raise ValueError(f"{self._name} holds {len(targets)} arrays there, one a layer, not {len(values)}")
        arrays = [self._check(target, array) for target, array in zip(targets, values, strict=True)]
        for target, array in zip(targets, arrays, strict=True):
            target[...] = array

    def _check(self, target: NDArray[Any], value: Any) -> NDArray[Any]:
        refuse_read_only(target, self._name)
        array = np.asarray(value)
        if array.shape != target.shape:
            raise ValueError(f"an array of {self._name} must keep its shape {target.shape}, not {array.shape}")
        array = check_finite_numbers(array, target.dtype, f"an array of {self._name}")
        if (array < self._minimum).any():
            raise ValueError(f"an array of {self._name} must be at least {self._minimum:g}")
        return array

    def _fixed(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"the number and order of the arrays in {self._name} are those of the layers")

    append = extend = insert = pop = remove = clear = reverse = sort = _fixed
    __delitem__ = __iadd__ = __imul__ = _fixed

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy is a plain list: it no longer belongs to a network.
        return list, (list(self),)


def refuse_read_only(array: NDArray[Any], name: str) -> None:
    """Raise a RuntimeError if a fit keeps the array as it is."""
    if not array.flags.writeable:
        raise RuntimeError(
            f"{name} cannot be changed within an epoch, or in a fit by L-BFGS; in on_epoch and after it they can"
        )
