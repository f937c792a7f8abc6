"""The layers of a network as records: they say what each layer is and compute nothing.

A new kind of layer is a frozen dataclass below, listed in `RECORDS`: networks and their files ask the records for
shapes and slots.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fastnn._validation import (
    check_activations,
    check_choice,
    check_input_shape,
    check_integer,
    check_layers,
    check_sizes,
)
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.kernels.blas import MAX_DIMENSION
from fastnn.slots import Slot, Slots, dense_slots

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer(ABC):
    """What a network needs of the record of a layer."""

    @property
    def activation(self) -> str | None:
        """Name of the activation; None for a layer without one."""
        return None

    @property
    def batch_norm(self) -> bool | None:
        """Whether the layer is normalised."""
        return False

    @abstractmethod
    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for one row of this shape."""

    @abstractmethod
    def slots(self, input_shape: Shape) -> tuple[Slot, ...]:
        """Arrays that the layer needs for rows of this shape."""

    def settled(self, activation: str | None, batch_norm: bool) -> Layer:
        """Return the record with the network's values for what it leaves open."""
        return self

    def without_norm(self) -> Layer:
        """Return the record of the same layer that is not normalised."""
        return self


@dataclass(frozen=True)
class Dense(Layer):
    """Fully connected layer: ``activation(X @ weight + bias)``.

    Parameters
    ----------
    units : int
        Number of outputs.
    activation : str or None, default None
        Name of the activation, as for `fastnn.Network`; None for the network's.  The output layer of a network must
        have None: the loss decides what follows it.
    batch_norm : bool or None, default None
        Whether batch normalisation comes between weights and bias; None for the network's.  The output layer is never
        normalised.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not valid.

    Examples
    --------
    >>> from fastnn import Network
    >>> Network([Dense(20, activation="tanh"), Dense(10)], input_shape=784)
    Network([784, 20, 10], activation='tanh', dtype='float64')
    """

    units: int
    activation: str | None = None
    batch_norm: bool | None = None

    def __post_init__(self) -> None:
        checked = {
            "units": check_integer(self.units, "units", 1, MAX_DIMENSION),
            "activation": check_choice(self.activation, "activation", [None, *ACTIVATIONS]),
            "batch_norm": check_choice(self.batch_norm, "batch_norm", [None, False, True]),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for one row of this shape."""
        return (self.units,)

    def slots(self, input_shape: Shape) -> tuple[Slot, ...]:
        """Weight (n_in, units) and bias; scale, running mean and running variance with batch normalisation."""
        return dense_slots(math.prod(input_shape), self.units, bool(self.batch_norm))

    def settled(self, activation: str | None, batch_norm: bool) -> Dense:
        """Return the record with the network's values for what it leaves open."""
        return dataclasses.replace(
            self,
            activation=activation if self.activation is None else self.activation,
            batch_norm=batch_norm if self.batch_norm is None else self.batch_norm,
        )

    def without_norm(self) -> Dense:
        """Return the record of the same layer that is not normalised."""
        return dataclasses.replace(self, batch_norm=False)


# By their names in files.
RECORDS: dict[str, Any] = {kind.__name__: kind for kind in (Dense,)}


def shapes_of(layers: Sequence[Layer], input_shape: Shape) -> list[Shape]:
    """Shape of a row before the first layer and after each."""
    shapes = [input_shape]
    for layer in layers:
        shapes.append(layer.output_shape(shapes[-1]))
    return shapes


@lru_cache(maxsize=256)
def slots_of(layers: tuple[Layer, ...], input_shape: Shape) -> Slots:
    """Return the table of the slots of all layers.

    Raises
    ------
    ValueError
        If there are more numbers than memory can address.
    """
    shapes = shapes_of(layers, input_shape)
    slots = Slots(tuple(layer.slots(shape) for layer, shape in zip(layers, shapes[:-1], strict=True)))
    if slots.size > np.iinfo(np.intp).max // 16:
        raise ValueError("the layers ask for more parameters than memory can address")
    return slots


def settle(layers: Sequence[Layer], activation: str | Sequence[str], batch_norm: bool) -> tuple[Layer, ...]:
    """Return a network's layers with the network's values for what they leave open."""
    return _settle(tuple(layers), (*check_activations(activation, len(layers) - 1), None), batch_norm)


@lru_cache(maxsize=256)
def _settle(layers: tuple[Layer, ...], names: tuple[str | None, ...], batch_norm: bool) -> tuple[Layer, ...]:
    # The last name is the output layer's.
    return tuple(
        layer.settled(name, batch_norm and name is not None) for layer, name in zip(layers, names, strict=True)
    )


def read_layers(layers: Any, input_shape: Any) -> tuple[tuple[Layer, ...], Shape]:
    """Return records and the shape of a row, from records or from sizes."""
    given = list(layers) if isinstance(layers, Iterable) and not isinstance(layers, (str, bytes)) else layers
    if isinstance(given, list) and any(isinstance(layer, Layer) for layer in given):
        return check_layers(given, RECORDS.values()), check_input_shape(input_shape)
    n_in, *widths = check_sizes(given)
    if input_shape is not None:
        raise ValueError("input_shape must be None beside sizes, which begin with the number of inputs")
    return tuple(Dense(units) for units in widths), (n_in,)
