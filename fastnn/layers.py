"""The layers of a network as records: they say what each layer is and compute nothing.

A new kind of layer is a frozen dataclass below, listed in `RECORDS`: networks and their files ask the records for
shapes, slots and facts.  Shapes are those of one row: (n,) for flat rows, (height, width, channels) for images.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np

from fastnn._validation import (
    check_activations,
    check_choice,
    check_dicts,
    check_increasing,
    check_input_shape,
    check_instances,
    check_integer,
    check_layers,
    check_number,
    check_pair,
    check_sizes,
)
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.kernels.blas import MAX_DIMENSION
from fastnn.kernels.columns import ColumnFacts
from fastnn.kernels.pooling import MOST_PLACES
from fastnn.layout import LayerFacts, Maps, Window
from fastnn.slots import Slot, Slots, dense_slots, embedding_slots

Shape = tuple[int, ...]

# Activations that fall somewhere: the largest output need not be that of the largest input.
FALLING = ("gelu", "silu")


@dataclass(frozen=True, repr=False)
class Layer(ABC):
    """What a network needs of the record of a layer."""

    #: Whether it has weights; then it takes the network's activation and batch_norm, and a trainer's dropout.
    has_weights: ClassVar[bool] = False

    @property
    def activation(self) -> str | None:
        """Name of the activation; None for a layer without one."""
        return None

    @property
    def batch_norm(self) -> bool | None:
        """Whether the layer is normalised."""
        return False

    @property
    def dropout(self) -> float | None:
        """Share of its outputs that training drops; None for the trainer's."""
        return None

    @abstractmethod
    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for one row of this shape.

        Raises
        ------
        ValueError
            If the layer cannot take such rows; the message goes on from the layer's name.
        """

    @abstractmethod
    def facts(self, input_shape: Shape, dropout: float) -> LayerFacts | None:
        """Return what a plan knows of the layer for rows of this shape; None: nothing is to be done."""

    def slots(self, input_shape: Shape) -> tuple[Slot, ...]:
        """Arrays that the layer needs for rows of this shape."""
        return ()

    def settled(self, activation: str | None, batch_norm: bool) -> Layer:
        """Return the record with the network's values for what it leaves open."""
        return self

    def without_norm(self) -> Layer:
        """Return the record of the same layer that is not normalised."""
        return self

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Layer:
        """Return the record with these fields, as `fields` returned them."""
        return cls(**fields)

    def fields(self) -> dict[str, Any]:
        """Return the fields by name; dropout only if it is not the trainer's."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in found.items() if name != "dropout" or value is not None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.fields().items())})"

    def __str__(self) -> str:
        shown = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.default is dataclasses.MISSING:
                shown.append(repr(value))
            elif value is not False and dataclasses.replace(self, **{field.name: field.default}) != self:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


class _Weighted(Layer):
    # What the layers with weights have in common.
    has_weights = True

    def _check(self, **checked: Any) -> None:
        # Sets the fields to their checked values, and checks those that these layers have in common.
        checked["activation"] = check_choice(self.activation, "activation", [None, *ACTIVATIONS])
        checked["batch_norm"] = check_choice(self.batch_norm, "batch_norm", [None, False, True])
        checked["dropout"] = None if self.dropout is None else check_number(self.dropout, "dropout", 0, 1)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def settled(self, activation: str | None, batch_norm: bool) -> Layer:
        """Return the record with the network's values for what it leaves open."""
        record: Any = self
        found: Layer = dataclasses.replace(
            record,
            activation=activation if self.activation is None else self.activation,
            batch_norm=batch_norm if self.batch_norm is None else self.batch_norm,
        )
        return found

    def without_norm(self) -> Layer:
        """Return the record of the same layer that is not normalised."""
        record: Any = self
        found: Layer = dataclasses.replace(record, batch_norm=False)
        return found


@dataclass(frozen=True, repr=False)
class Dense(_Weighted):
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
    dropout : float or None, default None
        Share of the outputs that training sets to 0 at random, from 0 to below 1; None for the trainer's.  The output
        layer has none.

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
    dropout: float | None = None

    def __post_init__(self) -> None:
        self._check(units=check_integer(self.units, "units", 1, MAX_DIMENSION))

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for one row of this shape."""
        return (self.units,)

    def slots(self, input_shape: Shape) -> tuple[Slot, ...]:
        """Weight (n_in, units) and bias; scale, running mean and running variance with batch normalisation."""
        return dense_slots(math.prod(input_shape), self.units, bool(self.batch_norm))

    def facts(self, input_shape: Shape, dropout: float) -> LayerFacts:
        """Return what a plan knows of the layer."""
        return LayerFacts(math.prod(input_shape), self.units, self.activation, bool(self.batch_norm), dropout)


@dataclass(frozen=True, repr=False)
class Conv2D(_Weighted):
    """Convolution of images with filters: each position of the output sees a window of all channels of the input.

    Parameters
    ----------
    filters : int
        Number of filters, the channels of the output.
    kernel_size : int or (height, width)
        Size of the window; a single integer is for both.
    stride : int or (down, across), default 1
        Distance between the windows of neighbouring positions.
    padding : {"valid", "same"}, default "valid"
        "valid": windows stay within the image, whose last rows and columns may be left out.  "same": zeros around the
        image, so that n rows or columns become ceil(n / stride); of an odd number the one more is below or right, as in
        TensorFlow.
    activation, batch_norm, dropout
        As for `Dense`.  Batch normalisation has a mean and a variance for each filter, over all rows and positions;
        dropout drops single numbers.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not valid.

    Notes
    -----
    The weight is (height, width, channels of the input, filters), and is not flipped: a window's numbers are multiplied
    by those of the weight in the same places.

    Examples
    --------
    >>> from fastnn import Network
    >>> net = Network([Conv2D(20, 5), MaxPool2D(2), Dense(10)], input_shape=(28, 28, 1))
    >>> net.weights[0].shape, net.sizes
    ((5, 5, 1, 20), (784, 11520, 2880, 10))
    """

    filters: int
    kernel_size: int | tuple[int, int]
    stride: int | tuple[int, int] = 1
    padding: str = "valid"
    activation: str | None = None
    batch_norm: bool | None = None
    dropout: float | None = None

    def __post_init__(self) -> None:
        self._check(
            filters=check_integer(self.filters, "filters", 1, MAX_DIMENSION),
            kernel_size=check_pair(self.kernel_size, "kernel_size"),
            stride=check_pair(self.stride, "stride"),
            padding=check_choice(self.padding, "padding", ["valid", "same"]),
        )

    def _window(self, input_shape: Shape) -> Window:
        size, stride = _pair(self.kernel_size), _pair(self.stride)
        if self.padding == "valid":
            return Window(size, stride)
        lengths = zip(input_shape[:2], size, stride, strict=True)
        high, wide = (max(0, (-(-n // step) - 1) * step + window - n) for n, window, step in lengths)
        return Window(size, stride, (high // 2, wide // 2, high - high // 2, wide - wide // 2))

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for one row of this shape."""
        _check_image(input_shape)
        return (*_positions(input_shape, self._window(input_shape)), self.filters)

    def slots(self, input_shape: Shape) -> tuple[Slot, ...]:
        """Weight (height, width, channels, filters) and bias; as for `Dense` with batch normalisation."""
        weight, *others = dense_slots(0, self.filters, bool(self.batch_norm))
        shape = (*_pair(self.kernel_size), input_shape[2], self.filters)
        return (weight._replace(shape=shape), *others)

    def facts(self, input_shape: Shape, dropout: float) -> LayerFacts:
        """Return what a plan knows of the layer."""
        image, output = _image(input_shape), _image(self.output_shape(input_shape))
        maps = Maps(image, output, output, convolution=self._window(input_shape))
        return _facts_of_maps(maps, str(self.activation), bool(self.batch_norm), dropout)


@dataclass(frozen=True, repr=False)
class _Pool2D(Layer):
    # What MaxPool2D and AveragePool2D have in common.
    size: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None

    _pools: ClassVar[str]

    def __post_init__(self) -> None:
        size = check_pair(self.size, "size")
        if self._pools == "max" and math.prod(size) > MOST_PLACES:
            raise ValueError(f"size must be a window of at most {MOST_PLACES} numbers, not {size}")
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "stride", size if self.stride is None else check_pair(self.stride, "stride"))

    def _window(self) -> Window:
        return Window(_pair(self.size), _pair(self.stride))

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for one row of this shape."""
        _check_image(input_shape)
        return (*_positions(input_shape, self._window()), input_shape[2])

    def facts(self, input_shape: Shape, dropout: float) -> LayerFacts:
        """Return what a plan knows of the layer."""
        image, output = _image(input_shape), _image(self.output_shape(input_shape))
        return _facts_of_maps(Maps(image, image, output, pooling=self._window(), pools=self._pools))


@dataclass(frozen=True, repr=False)
class MaxPool2D(_Pool2D):
    """The largest number of each window of an image, in each channel.

    Parameters
    ----------
    size : int or (height, width)
        Size of the window, of at most 256 numbers; a single integer is for both.
    stride : int, (down, across) or None, default None
        Distance between neighbouring windows; None for their size.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not valid.

    Notes
    -----
    Windows stay within the image; rows and columns at its end that fill no window are left out.  The gradient goes to
    the first of equal numbers, row by row.

    Examples
    --------
    >>> MaxPool2D(2).output_shape((5, 4, 3))
    (2, 2, 3)
    """

    _pools = "max"


@dataclass(frozen=True, repr=False)
class AveragePool2D(_Pool2D):
    """The mean of each window of an image, in each channel.

    Parameters
    ----------
    size, stride
        As for `MaxPool2D`, and so are the windows, which may be of any size.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not valid.

    Examples
    --------
    >>> AveragePool2D(3, stride=1).output_shape((5, 4, 3))
    (3, 2, 3)
    """

    _pools = "mean"


@dataclass(frozen=True, repr=False)
class GlobalAveragePool2D(Layer):
    """The mean of each channel over the whole image, which becomes one of 1 x 1.

    Examples
    --------
    >>> GlobalAveragePool2D().output_shape((5, 4, 3))
    (1, 1, 3)
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for one row of this shape."""
        _check_image(input_shape)
        return (1, 1, input_shape[2])

    def facts(self, input_shape: Shape, dropout: float) -> LayerFacts:
        """Return what a plan knows of the layer."""
        image, output = _image(input_shape), _image(self.output_shape(input_shape))
        return _facts_of_maps(Maps(image, image, output, pooling=Window(image[:2], image[:2]), pools="mean"))


@dataclass(frozen=True, repr=False)
class Flatten(Layer):
    """Makes a flat row of an image: row by row, pixel by pixel, the channels of a pixel beside each other.

    Networks put it before a `Dense` that follows an image.

    Examples
    --------
    >>> Flatten().output_shape((5, 4, 3))
    (60,)
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for one row of this shape."""
        return (math.prod(input_shape),)

    def facts(self, input_shape: Shape, dropout: float) -> None:
        """Return None: in memory, images are flat rows already."""


@dataclass(frozen=True)
class Number:
    """A column of numbers, for `Columns`.

    Parameters
    ----------
    center, scale : float, default 0 and 1
        A number x becomes s / sqrt(1 + (s / 3)**2) with s = (x - center) * scale, between -3 and 3 [1]_.
    knots : sequence of float, default ()
        None, or two or more, increasing: then x has a piecewise-linear embedding [2]_ too, a feature for each knot,
        that falls from 1 there to 0 at its neighbours.  Outside the knots the first or last stays 1.
    missing : bool, default False
        Whether a missing number, NaN, has a feature.

    References
    ----------
    .. [1] D. Holzmueller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on
       tabular data", NeurIPS 2024.
    .. [2] Y. Gorishniy, I. Rubachev, A. Babenko, "On embeddings for numerical features in tabular deep learning",
       NeurIPS 2022.
    """

    center: float = 0.0
    scale: float = 1.0
    knots: tuple[float, ...] = ()
    missing: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "center", check_number(self.center, "center", -math.inf, open_left=True))
        object.__setattr__(self, "scale", check_number(self.scale, "scale", 0))
        object.__setattr__(self, "knots", check_increasing(self.knots, "knots"))
        check_choice(self.missing, "missing", [False, True])

    @property
    def n_features(self) -> int:
        """Number of features."""
        return 1 + self.missing + len(self.knots)

    @property
    def facts(self) -> ColumnFacts:
        """The column for the kernels."""
        center = self.center if self.scale else 0.0  # no infinity times zero
        return ColumnFacts(True, self.missing, 0, center, self.scale, self.knots)


@dataclass(frozen=True)
class Category:
    """A column of categories, given as codes from 0, for `Columns`.

    Parameters
    ----------
    n : int
        Number of categories, each with a feature.  A number that is no code is a category that was not seen, and has
        none.
    missing : bool, default False
        Whether a missing category, NaN, has a feature.
    width : int or None, default None
        Numbers of a trained embedding [1]_, for many categories: each has a row of this length, and so has NaN if it is
        marked.  These numbers are the column's features then; those of a category that was not seen are 0, the mean of
        the rows before training.  None: a category has a feature.

    References
    ----------
    .. [1] C. Guo, F. Berkhahn, "Entity embeddings of categorical variables", 2016, arXiv:1604.06737.
    """

    n: int
    missing: bool = False
    width: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", check_integer(self.n, "n", 1, MAX_DIMENSION))
        check_choice(self.missing, "missing", [False, True])
        if self.width is not None:
            object.__setattr__(self, "width", check_integer(self.width, "width", 1, MAX_DIMENSION))

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.n + self.missing if self.width is None else self.width

    @property
    def facts(self) -> ColumnFacts:
        """The column for the kernels."""
        return ColumnFacts(False, self.missing, self.n, width=self.width or 0)


@dataclass(frozen=True, repr=False)
class Columns(Layer):
    """The columns of a table, numbers and categories with missing values, as features: a network's first layer.

    Parameters
    ----------
    columns : sequence of Number and Category
        One for each column of X, which then holds real numbers and NaN where a value is missing.

    Raises
    ------
    TypeError, ValueError
        If it is not such a sequence.

    Notes
    -----
    Few features of a row are not 0, and the layer after this one, which must be `Dense`, computes with these only: for
    a category it gathers a row of its weight, for a number with knots it mixes two.  Nothing here is trained but the
    embeddings of categories with a width: an (n, width) or (n + 1, width) array each, in `fastnn.Network.embeddings`.
    Their features, those of each column beside each other, come after all others.

    Examples
    --------
    >>> from fastnn import Network
    >>> columns = Columns([Number(center=40, scale=0.1, knots=(20, 40, 60)), Category(5, missing=True)])
    >>> net = Network([columns, Dense(8), Dense(2)], input_shape=2)
    >>> net.sizes
    (2, 10, 8, 2)
    >>> net.predict_proba([[35, 4], [np.nan, np.nan]]).shape
    (2, 2)
    """

    columns: tuple[Number | Category, ...]

    @property
    def embeddings(self) -> tuple[tuple[int, int], ...]:
        """Shape of the embedding of each category that has one."""
        categories = (column for column in self.columns if isinstance(column, Category))
        return tuple((one.n + one.missing, one.width) for one in categories if one.width is not None)

    def slots(self, input_shape: Shape) -> tuple[Slot, ...]:
        """Embeddings."""
        return embedding_slots(self.embeddings)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", check_instances(self.columns, COLUMNS.values(), "columns"))

    def __hash__(self) -> int:
        return self._hash  # there may be thousands of numbers

    @cached_property
    def _hash(self) -> int:
        return hash(self.columns)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return sum(column.n_features for column in self.columns)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for one row of this shape."""
        if input_shape != (len(self.columns),):
            raise ValueError(f"needs rows of {len(self.columns)} columns, but input_shape is {input_shape}")
        return (self.n_features,)

    def facts(self, input_shape: Shape, dropout: float) -> None:
        """Return None: rows are features before the engine sees them, and embeddings go with the layer after this."""

    def fields(self) -> dict[str, Any]:
        """Return the fields by name; of a category the width only if it has one."""
        told = [{"kind": type(one).__name__} | dataclasses.asdict(one) for one in self.columns]
        return {"columns": [{name: value for name, value in one.items() if value is not None} for one in told]}

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Columns:
        """Return the record with these fields, doubted."""
        return cls(tuple(_read_column(told) for told in check_dicts(fields["columns"], "columns")))

    def __repr__(self) -> str:
        return f"Columns({list(self.columns)})"

    def __str__(self) -> str:
        return f"Columns({len(self.columns)} columns)"


# By their names in files.
COLUMNS: dict[str, Any] = {kind.__name__: kind for kind in (Number, Category)}


def _read_column(told: dict[str, Any]) -> Any:
    kind = COLUMNS[check_choice(told.get("kind"), "kind of column", COLUMNS)]
    names = {"kind", *(field.name for field in dataclasses.fields(kind))}
    if told.keys() not in (names, names - {"width"}):
        raise ValueError(f"a {kind.__name__} must have the fields {sorted(names)}, not {sorted(told)}")
    return kind(**{name: value for name, value in told.items() if name != "kind"})


# By their names in files.
RECORDS: dict[str, Any] = {
    kind.__name__: kind for kind in (Dense, Conv2D, MaxPool2D, AveragePool2D, GlobalAveragePool2D, Flatten, Columns)
}


def _pair(value: Any) -> tuple[int, int]:
    # What check_pair has returned, for the type checker.
    first, second = value
    return first, second


def _image(shape: Shape) -> tuple[int, int, int]:
    height, width, channels = shape
    return height, width, channels


def _check_image(shape: Shape) -> None:
    if len(shape) != 3:
        raise ValueError("needs images, but what comes before it gives flat rows")


def _positions(shape: Shape, window: Window) -> tuple[int, int]:
    # Height and width of the output, for an image of this shape.
    (height, width), (down, across), (above, left, below, right) = window
    high, wide = shape[0] + above + below, shape[1] + left + right
    if height > high or width > wide:
        raise ValueError(f"has a window of {height} x {width}, larger than its input of {high} x {wide}")
    return (high - height) // down + 1, (wide - width) // across + 1


def _facts_of_maps(
    maps: Maps, activation: str = "identity", batch_norm: bool = False, dropout: float = 0.0
) -> LayerFacts:
    return LayerFacts(math.prod(maps.input), math.prod(maps.output), activation, batch_norm, dropout, maps)


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


@lru_cache(maxsize=256)
def facts_of(layers: tuple[Layer, ...], input_shape: Shape, dropout: tuple[float, ...]) -> tuple[LayerFacts, ...]:
    """Return what a plan knows of the layers; dropout is the share of each hidden layer with weights.

    The largest of several numbers stays the largest through an activation that never falls.  So a convolution with
    such an activation and a `MaxPool2D` after it are one layer to a plan, with the activation after the pooling: it
    has fewer numbers then.
    """
    shares = iter((*dropout, 0.0))
    found: list[LayerFacts] = []
    for layer, shape in zip(layers, shapes_of(layers, input_shape)[:-1], strict=True):
        facts = layer.facts(shape, next(shares) if layer.has_weights else 0.0)
        if facts is None:
            continue
        if found and _pools_first(found[-1], facts):
            facts = _merged(found.pop(), facts)
        found.append(facts)
    if isinstance(layers[0], Columns):
        found[0] = found[0]._replace(embeddings=layers[0].embeddings)
    return tuple(found)


def _pools_first(facts: LayerFacts, following: LayerFacts) -> bool:
    # Whether a layer can pool before its activation what the following layer would pool after it.
    if facts.maps is None or facts.maps.convolution is None or facts.maps.pooling is not None or facts.dropout > 0:
        return False
    pools = following.maps is not None and following.maps.convolution is None and following.maps.pools == "max"
    return pools and facts.activation not in FALLING


def _merged(facts: LayerFacts, following: LayerFacts) -> LayerFacts:
    assert facts.maps is not None
    assert following.maps is not None
    output, pooling, pools = following.maps.output, following.maps.pooling, following.maps.pools
    return facts._replace(n_out=following.n_out, maps=facts.maps._replace(output=output, pooling=pooling, pools=pools))


def settle(layers: Sequence[Layer], activation: str | Sequence[str], batch_norm: bool) -> tuple[Layer, ...]:
    """Return a network's layers with the network's values for what they leave open."""
    n_hidden = sum(layer.has_weights for layer in layers[:-1])
    return _settle(tuple(layers), (*check_activations(activation, n_hidden), None), batch_norm)


@lru_cache(maxsize=256)
def _settle(layers: tuple[Layer, ...], names: tuple[str | None, ...], batch_norm: bool) -> tuple[Layer, ...]:
    # The names are of the layers with weights, the last is the output layer's.
    left = iter(names)
    found = []
    for layer in layers:
        name = next(left) if layer.has_weights else None
        found.append(layer.settled(name, batch_norm and name is not None))
    return tuple(found)


def read_layers(layers: Any, input_shape: Any) -> tuple[tuple[Layer, ...], Shape]:
    """Return records and the shape of a row, from records or from sizes; see `fit_together`."""
    given = list(layers) if isinstance(layers, Iterable) and not isinstance(layers, (str, bytes)) else layers
    if isinstance(given, list) and any(isinstance(layer, Layer) for layer in given):
        checked, shape = check_layers(given, RECORDS.values()), check_input_shape(input_shape)
        return fit_together(checked, shape), shape
    n_in, *widths = check_sizes(given)
    if input_shape is not None:
        raise ValueError("input_shape must be None beside sizes, which begin with the number of inputs")
    return tuple(Dense(units) for units in widths), (n_in,)


def fit_together(layers: Sequence[Layer], input_shape: Shape) -> tuple[Layer, ...]:
    """Return the layers, with a `Flatten` before each `Dense` that follows an image.

    Raises
    ------
    ValueError
        If a layer cannot take what comes before it, or the last is not `Dense`; the message has the shapes.
    """
    found: list[Layer] = []
    shapes = [input_shape]
    for i, layer in enumerate(layers):
        added = [Flatten(), layer] if isinstance(layer, Dense) and len(shapes[-1]) > 1 else [layer]
        try:
            if isinstance(layer, Columns) and i > 0:
                raise ValueError("must be the first layer")
            shapes += shapes_of(added, shapes[-1])[1:]
            if math.prod(shapes[-1]) > MAX_DIMENSION:
                raise ValueError(f"gives {math.prod(shapes[-1])} numbers a row, more than {MAX_DIMENSION}")
        except ValueError as error:
            raise ValueError(f"layers[{i}], {layer}, {error}:\n{table_of(found, shapes[: len(found) + 1])}") from None
        found += added
    if not isinstance(found[-1], Dense):
        raise ValueError(f"the output layer must be Dense, not {found[-1]}:\n{table_of(found, shapes)}")
    return tuple(found)


def table_of(layers: Sequence[Layer], shapes: Sequence[Shape], sizes: Sequence[int] | None = None) -> str:
    """Return a table of layers, their outputs' shapes and, if sizes has them, their numbers of parameters."""
    names = ["layer", "input", *map(str, layers)]
    columns = [names, ["output", *map(str, shapes)]]
    if sizes is not None:
        names.append("all")
        columns[1].append("")
        columns.append(["parameters", "", *(f"{size:,}" for size in sizes), f"{sum(sizes):,}"])
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in itertools.zip_longest(*columns):
        told = [f"{cell:{width}}" for cell, width in zip(row[:2], widths, strict=False)]
        told += [f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(told).rstrip())
    return "\n".join(lines)
