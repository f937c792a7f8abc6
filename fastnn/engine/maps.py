"""The maps of layers on images, for whoever looks into a network: layer by layer, without a plan and on one thread.

The drivers keep maps of a group at a time, and not those that are pooled at once.  Here speed does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.kernels.activations import ACTIVATIONS, inplace_activation
from fastnn.kernels.convolution import convolution
from fastnn.kernels.pooling import from_lanes, max_pool, mean_pool, to_lanes
from fastnn.kernels.rows import UINT8_SCALE
from fastnn.layout import LayerFacts, lanes_of

Arrays = Mapping[str, NDArray[Any]]


def forward_maps(
    layers: Sequence[LayerFacts], arrays: Sequence[Arrays], rows: NDArray[Any], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Output (n, height, width, channels) of the last of these layers, all on images, for rows (n, n_in).

    arrays : of each layer, by name; batch normalisation is in the weights already
    """
    assert layers[0].maps is not None
    assert layers[-1].maps is not None
    lanes = lanes_of(dtype.itemsize)
    output = np.empty((len(rows), layers[-1].n_out), dtype)
    for first in range(0, len(rows), lanes):
        group = rows[first : first + lanes]
        X = np.empty((*layers[0].maps.input, lanes), dtype)
        to_lanes(group * dtype.type(UINT8_SCALE) if group.dtype == np.uint8 else group.astype(dtype), X)
        for facts, own in zip(layers, arrays, strict=True):
            X = _forward_layer(facts, own, X)
        from_lanes(X, output[first : first + lanes])
    return output.reshape(-1, *layers[-1].maps.output)


def _forward_layer(facts: LayerFacts, arrays: Arrays, X: NDArray[Any]) -> NDArray[Any]:
    # A layer's output (height, width, channels, lanes) for a group.
    maps, lanes = facts.maps, X.shape[-1:]
    assert maps is not None
    if maps.convolution is not None:
        size, stride, (above, left, below, right) = maps.convolution
        X, padded = np.empty(maps.middle + lanes, X.dtype), np.pad(X, ((above, below), (left, right), (0, 0), (0, 0)))
        convolution(padded, arrays["weight"], arrays["bias"], size + stride, X, 0, len(X))
    if maps.pooling is not None:
        size, stride, _ = maps.pooling
        X, whole = np.empty(maps.output + lanes, X.dtype), X
        if maps.pools == "max":
            max_pool(whole, size + stride, X, None, 0, len(X))
        else:
            mean_pool(whole, size + stride, X, 0, len(X))
    inplace_activation(ACTIVATIONS[str(facts.activation)], X.reshape(-1, *lanes))
    return X
