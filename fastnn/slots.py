"""The table of slots: the one owner of the layout of the parameter vector.

The parameters of a network are one vector; so are its gradient and each state of an optimizer.  Layers say which arrays
they need, and only the table knows where each of them is in such a vector.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The kinds of slots and their initial values; embeddings, and the weights of most networks, are drawn afterwards.
KINDS = {"weight": 0.0, "bias": 0.0, "scale": 1.0, "mean": 0.0, "variance": 1.0, "embedding": 0.0}

# The kinds that come after all others in the vector, so that batch normalisation does not move weights and biases.
BEHIND = ("scale", "mean", "variance")


class Slot(NamedTuple):
    """An array of numbers that a layer needs.

    Attributes
    ----------
    name : str
        Unique within the layer; in files it is part of the tensor's name.
    shape : tuple of int
    kind : str
        One of `KINDS`.  Penalties and decay apply to "weight" and "embedding" only, max-norm to "weight" only.
    trained : bool, default True
        Whether steps move it; False for running statistics.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    trained: bool = True

    @property
    def size(self) -> int:
        """Number of numbers."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Slots:
    """Table of the slots of all layers.

    Iterating goes through the slots, layer by layer.

    Attributes
    ----------
    layers : tuple of tuples of Slot
        The slots of each layer, from the input on.

    Examples
    --------
    >>> slots = Slots(((Slot("weight", (2, 3), "weight"), Slot("bias", (3,), "bias")),))
    >>> slots.size, slots.places[0, "bias"]
    (9, slice(6, 9, None))
    """

    layers: tuple[tuple[Slot, ...], ...]

    def __iter__(self) -> Iterator[Slot]:
        return itertools.chain.from_iterable(self.layers)

    @cached_property
    def size(self) -> int:
        """Length of the vector."""
        return sum(slot.size for slot in self)

    @cached_property
    def places(self) -> dict[tuple[int, str], slice]:
        """Part of the vector of each slot, by layer and name, in the order of the vector."""
        named = [(k, slot) for k, layer in enumerate(self.layers) for slot in layer]
        named.sort(key=lambda each: each[1].kind in BEHIND)  # keeps the order of the layers
        places, begin = {}, 0
        for k, slot in named:
            places[k, slot.name] = slice(begin, begin + slot.size)
            begin += slot.size
        return places

    def by_layer(self, vector: NDArray[Any]) -> list[dict[str, NDArray[Any]]]:
        """Views of a vector: for each layer its arrays by name."""
        return [
            {slot.name: vector[self.places[k, slot.name]].reshape(slot.shape) for slot in layer}
            for k, layer in enumerate(self.layers)
        ]

    def by_kind(self, vector: NDArray[Any]) -> dict[str, list[NDArray[Any]]]:
        """Views of a vector: for each of `KINDS` the arrays of all layers, from the input on."""
        found: dict[str, list[NDArray[Any]]] = {kind: [] for kind in KINDS}
        for layer, arrays in zip(self.layers, self.by_layer(vector), strict=True):
            for slot in layer:
                found[slot.kind].append(arrays[slot.name])
        return found

    def start(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a new vector of initial values."""
        vector = np.zeros(self.size, dtype)
        for k, layer in enumerate(self.layers):
            for slot in layer:
                if KINDS[slot.kind]:
                    vector[self.places[k, slot.name]] = KINDS[slot.kind]
        return vector


def dense_slots(n_in: int, n_out: int, normalised: bool) -> tuple[Slot, ...]:
    """Return the slots of a fully connected layer: weight and bias, and what batch normalisation adds to them."""
    slots = Slot("weight", (n_in, n_out), "weight"), Slot("bias", (n_out,), "bias")
    if not normalised:
        return slots
    statistics = (Slot(name, (n_out,), name, trained=False) for name in ("mean", "variance"))
    return (*slots, Slot("scale", (n_out,), "scale"), *statistics)


def embedding_slots(shapes: Sequence[tuple[int, int]]) -> tuple[Slot, ...]:
    """Return the slots of embeddings of these shapes."""
    return tuple(Slot(f"embedding.{k}", shape, "embedding") for k, shape in enumerate(shapes))
