"""How arrays lie in memory: the forms of weights, the slices of layers, and the places in the work space.

Each layer's parameters have a place in a vector, its outputs and gradients one in the work space; `lay_out` gives the
first, `place_by_rows` and `place_by_units` the others.  Which form a weight takes and how many rows go at a time is
the plan's to choose.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from fastnn import tuning
from fastnn.kernels.activations import SLOPED
from fastnn.kernels.affine import REGISTER_BYTES, panels_size
from fastnn.kernels.plan import MOST_SHARDS, MOST_SLICES
from fastnn.kernels.rows import CACHE_LINE
from fastnn.kernels.sparse import column_work_size
from fastnn.slots import Slot, Slots, dense_slots, embedding_slots

#: A number of rows that no batch has.
NEVER: int = sys.maxsize // 2


class Window(NamedTuple):
    """How the positions of an output see an input, each pair down and across.

    padding : zeros around the input: above, left, below, right
    """

    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)


class Maps(NamedTuple):
    """A layer on images: convolution, batch normalisation, pooling, activation and dropout, in this order.

    Shapes are (height, width, channels).

    input, middle, output : shapes before the convolution, after it, and after pooling
    convolution : None: there is none
    pooling : None: there is none
    pools : what of a window pooling takes, "max" or "mean"
    """

    input: tuple[int, int, int]
    middle: tuple[int, int, int]
    output: tuple[int, int, int]
    convolution: Window | None = None
    pooling: Window | None = None
    pools: str = "max"

    @property
    def text(self) -> str:
        """What it does, in a few words."""
        parts = []
        if self.convolution:
            parts.append("{} x {} convolution".format(*self.convolution.size))
        if self.pooling:
            parts.append("{1} x {2} {0} pooling".format(self.pools, *self.pooling.size))
        return f"{' x '.join(map(str, self.input))}, {', '.join(parts)}"


class LayerFacts(NamedTuple):
    """A layer: its widths, and what follows its product.

    activation : None for the output layer
    batch_norm : whether training normalises its units over each batch
    dropout : share of its units that training drops
    maps : None: it is dense
    embeddings : of a first layer on sparse rows, shapes of the tables whose rows are its last inputs
    """

    n_in: int
    n_out: int
    activation: str | None = None
    batch_norm: bool = False
    dropout: float = 0.0
    maps: Maps | None = None
    embeddings: tuple[tuple[int, int], ...] = ()

    @property
    def n_embedded(self) -> int:
        """Number of inputs from embeddings."""
        return sum(width for _, width in self.embeddings)

    @property
    def embeddings_size(self) -> int:
        """Numbers of all embeddings."""
        return sum(n_rows * width for n_rows, width in self.embeddings)

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Inputs of a unit, and units: filters, if it is a convolution; (0, 0) without weights."""
        if self.maps is None:
            return self.n_in, self.n_out
        if self.maps.convolution is None:
            return 0, 0
        return math.prod(self.maps.convolution.size) * self.maps.input[2], self.maps.middle[2]

    @property
    def products(self) -> int:
        """Multiply-adds of a row forward."""
        return self.positions * math.prod(self.weight_shape)

    @property
    def positions(self) -> int:
        """Numbers of a unit in each row: 1 if it is dense, else those of a map."""
        return 1 if self.maps is None else math.prod(self.maps.middle[:2])

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Its entries in the table of parameters."""
        n_in, units = self.weight_shape
        return (*embedding_slots(self.embeddings), *dense_slots(n_in, units, self.batch_norm)) if units else ()

    @property
    def wants_slopes(self) -> bool:
        """Whether the backward pass needs derivatives from the forward pass: the output alone does not give them."""
        return self.dropout > 0 or self.activation in SLOPED


class Slice(NamedTuple):
    """Units of a layer that one thread owns; inputs, of the output layer in the driver by units.

    begin, end : the units
    weight : offset of their weights in a vector of parameters: n_rows rows of n_columns numbers
    stride : distance between two rows
    """

    begin: int
    end: int
    weight: int
    stride: int
    n_rows: int
    n_columns: int


class Image(NamedTuple):
    """How the maps of a group lie in lanes.

    row, pixel : distance between two rows, and between two positions
    lanes : images
    origin : place of the first number, behind the zeros around the maps
    size : numbers that they take, with the zeros
    """

    height: int
    width: int
    channels: int
    row: int
    pixel: int
    lanes: int
    origin: int
    size: int


class LayerPlan(NamedTuple):
    """How a layer is trained.

    form : "stored", W (n_in, n_out); "transposed", W (n_out, n_in); "panels", of each slice; "sparse", W (n_in, n_out)
        for sparse rows; "sparse slices", W (n_in, units of a slice) for sparse rows, each row in whole cache lines
    by_inputs : whether its slices are of inputs
    weight, weight_size, bias, norm : where its parameters begin in a vector, and numbers that the weight takes; norm is
        where scale, running mean and running variance (n_out,) begin
    embeddings : where each begins, one after the other and right before the weight
    keeps_slopes : whether the activation's derivative is kept for the backward pass
    output, delta, slopes, x_hat, statistics : where in the work space its output begins, the gradient by it, the
        activation's derivative, the normalised units, their mean and variance
    cut : how output, delta and slopes are cut in the driver by units, one cut a slice: distance between two rows, units
        of a slice (but for the last), and distance between two slices
    groups : of slices, whose units' shares of the gradient by the layer below are summed on their own, in the driver by
        units; an output layer, whose slices are of inputs, has as many as the layer below
    shared_from : rows of a batch from which threads share its slices in the driver by rows
    images : of a layer on images, how a group's input, maps after the convolution, and output lie.  Its output, slopes,
        x_hat, delta and places are offsets in the space of a group; delta is that of its normalised maps, and all
        others go through a thread's space.  places are those of the maxima, in bytes.
    band : rows of its output that a convolution which is pooled at once takes at a time
    moments : where the groups' sums for batch normalisation begin
    """

    facts: LayerFacts
    form: str
    by_inputs: bool
    slices: tuple[Slice, ...]
    weight: int
    weight_size: int
    bias: int
    norm: int
    embeddings: tuple[int, ...] = ()
    keeps_slopes: bool = False
    output: int = 0
    delta: int = 0
    slopes: int = 0
    x_hat: int = 0
    statistics: int = 0
    cut: tuple[int, int, int] = (0, NEVER, 0)
    shared_from: int = NEVER
    groups: int = 1
    images: tuple[Image, ...] = ()
    band: int = 0
    places: int = 0
    moments: int = 0


# --- slices and forms -----------------------------------------------------------------------------------------------


def n_slices_of(width: int) -> int:
    """Slices of a layer of width units."""
    if width < tuning.MANY_UNITS:
        return 2 if width >= 2 * tuning.SLICE_UNITS else 1
    n: int = tuning.FEW_SLICES
    while 2 * n <= MOST_SLICES and width >= 2 * n * tuning.WIDE_SLICE_UNITS:
        n *= 2
    return n


def slice_bounds(width: int, number_size: int) -> list[int]:
    """First unit of each slice of a layer, and the number of units: as many each, but the last may have fewer.

    Wide layers are cut between whole vectors.
    """
    n = n_slices_of(width)
    unit = max(1, REGISTER_BYTES // number_size) if width >= tuning.ALIGNED_FROM else 1
    each = -(-width // (n * unit)) * unit
    return [*range(0, width, each), width]


def to_lines(n: int, number_size: int) -> int:
    """N numbers, rounded up to whole cache lines."""
    line = CACHE_LINE // number_size
    return -(-n // line) * line


def sliced_row(n_units: int, number_size: int) -> int:
    """Distance between two rows of the form "sparse slices", for a slice of n_units.

    Whole cache lines, or half lines if a row has at most two, so that more rows stay in the first-level cache.  If a
    row has several strips, the lines of one should not all map to the same sets of the cache, as at powers of two.
    """
    row, line = to_lines(n_units, number_size), CACHE_LINE // number_size
    if row <= 2 * line:
        return -(-n_units // (line // 2)) * (line // 2)
    return row + line if row > tuning.STRIP_LINES * line and row // line % 2 == 0 else row


def _slices(facts: LayerFacts, form: str, by_inputs: bool, number_size: int) -> tuple[tuple[Slice, ...], int]:
    # A layer's slices, whose weights begin where the layer's do, and the numbers that its weight takes.
    n_in, n_out = facts.weight_shape
    if facts.maps is not None:
        return ((Slice(0, n_out, 0, n_out, n_in, n_out),) if n_out else ()), n_in * n_out
    slices, place = [], 0
    for begin, end in itertools.pairwise(slice_bounds(n_in if by_inputs else n_out, number_size)):
        n = end - begin
        if form == "transposed":
            found = (begin, n_in, n_out, n) if by_inputs else (begin * n_in, n_in, n, n_in)
        elif form == "panels":  # what fills up a panel, or a line, is 0 and stays so
            size = panels_size(n_in, n, number_size)
            found, place = (place, size, 1, size), place + size
        elif form == "sparse slices":
            row = sliced_row(n, number_size)
            found, place = (place, row, n_in, row), place + to_lines(n_in * row, number_size)
        else:
            found = (begin * n_out, n_out, n, n_out) if by_inputs else (begin, n_out, n_in, n)
        slices.append(Slice(begin, end, *found))
    return tuple(slices), place or n_in * n_out


@lru_cache(maxsize=256)
def lay_out(
    layers: tuple[LayerFacts, ...], forms: tuple[str, ...], by_units: bool, number_size: int
) -> tuple[tuple[LayerPlan, ...], int]:
    """Give each layer's parameters their place in a vector, in these forms; return the length of the vector too."""
    by_inputs = [by_units and k == len(layers) - 1 for k in range(len(layers))]
    sliced = [_slices(*layer, number_size) for layer in zip(layers, forms, by_inputs, strict=True)]
    tables = []
    for facts, (_, size) in zip(layers, sliced, strict=True):
        tables.append(tuple(slot._replace(shape=(size,)) if slot.name == "weight" else slot for slot in facts.slots))
    slots = Slots(tuple(tables))
    planned = []
    for k, (facts, form, (slices, size)) in enumerate(zip(layers, forms, sliced, strict=True)):
        weight, bias = (slots.places[k, name].start if tables[k] else 0 for name in ("weight", "bias"))
        norm = slots.places[k, "scale"].start if facts.batch_norm else NEVER
        moved = tuple(own._replace(weight=weight + own.weight) for own in slices)
        embeddings = tuple(slots.places[k, slot.name].start for slot in tables[k] if slot.kind == "embedding")
        planned.append(LayerPlan(facts, form, by_inputs[k], moved, weight, size, bias, norm, embeddings))
    return tuple(planned), slots.size


# --- work space -----------------------------------------------------------------------------------------------------


def rows_size_of(layer: LayerFacts, block_rows: int, sparse: bool) -> int:
    """Numbers of work space for the rows of a row block: all of dense ones, what sparse ones have of embeddings."""
    return block_rows * (layer.n_embedded if sparse else layer.n_in)


def place_by_rows(
    layers: Sequence[LayerPlan], block_rows: int, sparse: bool, nonzeros: int, n_threads: int, number_size: int
) -> dict[str, Any]:
    """Lay out a shard's work space in the driver by rows: layers with their offsets, and the other offsets.

    Rows that must be copied, that the trunk makes, or what they have of embeddings; the layers' outputs; two gradients,
    of a layer and the one below; slopes; normalised units and their statistics; non-zeros by column; the trunk's space.
    """
    placed, n_trunk = list(layers), n_trunk_of([layer.facts for layer in layers])
    widest = max(layer.facts.n_out for layer in layers[n_trunk:])
    begin = rows_size = rows_size_of(layers[n_trunk].facts, block_rows, sparse)
    for k, layer in enumerate(layers[n_trunk:], n_trunk):
        placed[k] = layer._replace(output=begin)
        begin += block_rows * layer.facts.n_out
    deltas = begin, begin + block_rows * widest
    begin += 2 * block_rows * widest
    for k in range(n_trunk, len(layers) - 1):
        # The output layer's gradient takes the place of its output; those below take turns.
        placed[k] = placed[k]._replace(delta=deltas[(len(layers) - k) % 2], keeps_slopes=layers[k].facts.wants_slopes)
        if placed[k].keeps_slopes:
            placed[k] = placed[k]._replace(slopes=begin)
            begin += block_rows * layers[k].facts.n_out
        if layers[k].facts.batch_norm:
            n_out = layers[k].facts.n_out
            placed[k] = placed[k]._replace(x_hat=begin, statistics=begin + block_rows * n_out)
            begin += (block_rows + 2) * n_out
    placed[-1] = placed[-1]._replace(delta=placed[-1].output)
    if n_trunk or any(layer.facts.batch_norm for layer in layers):
        # Threads share the slices of a layer if a batch is large enough that waiting for each other pays.
        for k, layer in enumerate(layers[n_trunk:], n_trunk):
            placed[k] = placed[k]._replace(shared_from=-(-tuning.UNITS_PRODUCT // layer.facts.products))
    size = begin + (column_work_size(layers[0].facts.n_in, nonzeros) if nonzeros else 0)
    trunk = None
    if n_trunk:
        delta = size  # of all rows: the layers after the trunk take one shard after the other
        size += block_rows * layers[n_trunk].facts.n_in
        placed[:n_trunk], trunk = place_trunk(layers, block_rows, number_size, size, n_threads, delta)
        size = trunk.end
    return {
        "layers": tuple(placed),
        "rows_size": rows_size,
        "work_size": to_lines(size, 4),
        "spare": deltas[1],
        "columns": begin,
        "trunk": trunk,
    }


# --- the trunk's space ----------------------------------------------------------------------------------------------


class Trunk(NamedTuple):
    """Where the layers on images have their space, which threads share group by group.

    n_layers : of the network
    lanes : images of a group
    n_parts : parts of a row block's groups, at most, each with a gradient of its own
    size : numbers of a part's gradient: weights and biases, which come first in the vector of parameters
    input : how a group's images lie, first in its space
    groups, group_size : where the groups' spaces begin, and numbers of one
    threads, thread_size : the same of the threads' spaces, of which each begins with a group's rows
    band, deltas, delta_size : in a thread's space, convolved maps that are pooled at once, and two gradients by maps
    gradients : where the parts' gradients begin
    delta : where the gradient by the rows of the trunk's output begins
    end : of all
    """

    n_layers: int
    lanes: int
    n_parts: int
    size: int
    input: Image
    groups: int
    group_size: int
    threads: int
    thread_size: int
    band: int
    deltas: int
    delta_size: int
    gradients: int
    delta: int
    end: int


def lanes_of(number_size: int) -> int:
    """Images of a group: one a lane of a vector register."""
    return max(1, REGISTER_BYTES // number_size)


def n_trunk_of(layers: Sequence[LayerFacts]) -> int:
    """Layers on images, which come first."""
    return sum(layer.maps is not None for layer in layers)


def image_of(
    shape: tuple[int, int, int], padding: tuple[int, int, int, int], lanes: int, number_size: int, is_given: bool
) -> Image:
    """How maps of a shape lie, with zeros around; is_given: the network is given them to convolve."""
    height, width, channels = shape
    above, left, below, right = padding
    vector = lanes_of(number_size)
    pixel = channels * lanes if lanes == vector or is_given else -(-channels // vector) * vector
    row = (left + width + right) * pixel
    return Image(*shape, row, pixel, lanes, above * row + left * pixel, (above + height + below) * row)


def _middle(maps: Maps, normalises: bool) -> tuple[int, int, int]:
    # Positions that pooling leaves out are not computed, unless they count in the statistics.
    if maps.pooling is None or normalises:
        return maps.middle
    size, stride = maps.pooling.size, maps.pooling.stride
    height, width = ((maps.output[i] - 1) * stride[i] + size[i] for i in (0, 1))
    return height, width, maps.middle[2]


def _images(layers: Sequence[LayerPlan], lanes: int, number_size: int) -> list[tuple[Image, Image, Image]]:
    # Of each layer in the trunk: input, maps after the convolution, and output, with the zeros that the next one wants.
    windows = [layer.facts.maps.convolution for layer in layers if layer.facts.maps is not None]
    paddings = [window.padding if window else (0, 0, 0, 0) for window in [*windows, None]]
    found: list[tuple[Image, Image, Image]] = []
    for layer, before, after in zip(layers, paddings[:-1], paddings[1:], strict=False):
        maps = layer.facts.maps
        assert maps is not None
        x = image_of(maps.input, before, lanes, number_size, not found and maps.convolution is not None)
        y = image_of(maps.output, after, lanes, number_size, False)
        middle = x
        if maps.convolution:
            shape = _middle(maps, layer.facts.batch_norm)
            middle = image_of(shape, (0, 0, 0, 0), lanes, number_size, False)
        found.append((x, middle if maps.pooling else y, y))
    return found


def _place_group(
    layers: Sequence[LayerPlan], images: list[tuple[Image, Image, Image]], lanes: int, number_size: int, trains: bool
) -> tuple[list[LayerPlan], int]:
    # The layers with their offsets in a group's space, and its size.
    placed, begin = [], to_lines(images[0][0].size, number_size)

    def take(size: int) -> int:
        nonlocal begin
        begin += to_lines(size, number_size)
        return begin - to_lines(size, number_size)

    for layer, (x, middle, y) in zip(layers, images, strict=False):
        maps, normalises = layer.facts.maps, layer.facts.batch_norm
        assert maps is not None
        band = y.height
        if maps.convolution and maps.pooling and maps.pooling.size[0] <= maps.pooling.stride[0]:
            most = tuning.MAPS_BYTES * lanes // lanes_of(number_size)
            rows = most // (maps.pooling.stride[0] * middle.row * number_size)
            band = min(y.height, max(1, rows))
        layer = layer._replace(images=(x, middle, y), band=band, output=take(y.size), places=-1)
        if trains and maps.pooling and maps.pools == "max":
            layer = layer._replace(places=number_size * take(-(-maps.output[0] * y.row // number_size)))
        if trains and layer.facts.wants_slopes:
            layer = layer._replace(keeps_slopes=True, slopes=take(y.size))
        if normalises:
            layer = layer._replace(x_hat=take(middle.size))
        placed.append(layer)
    # Of the gradients by normalised maps, one is needed at a time.
    delta = take(max([0, *(layer.images[1].size for layer in placed if layer.facts.batch_norm)]))
    return [layer._replace(delta=delta) for layer in placed], begin


def place_trunk(
    layers: Sequence[LayerPlan],
    block_rows: int,
    number_size: int,
    begin: int,
    n_threads: int = 1,
    delta: int = 0,
    trains: bool = True,
) -> tuple[list[LayerPlan], Trunk]:
    """Lay out the space of the layers on images, from begin on; delta is where the gradient by their output is.

    The space of each group: its images and what each layer keeps for the backward pass.  That of each thread: rows, and
    maps that are not kept.  Sums for batch normalisation; gradients of the parts.  If it only goes forward, on one
    thread, all groups have the same space.
    """
    lanes = 1 if block_rows == 1 and not trains and _has_room(layers, number_size) else lanes_of(number_size)
    n_layers = n_trunk_of([layer.facts for layer in layers])
    images = _images(layers[:n_layers], lanes, number_size)
    placed, group_size = _place_group(layers[:n_layers], images, lanes, number_size, trains)
    n_groups = -(-block_rows // lanes) if trains else 1
    groups = to_lines(begin, 4)
    threads = groups + n_groups * group_size
    band = to_lines(lanes * layers[0].facts.n_in, number_size)
    bands = [_band_rows(layer) * layer.images[1].row for layer in placed]
    deltas = band + to_lines(max(bands), number_size)
    delta_size = to_lines(max(y.size for _, _, y in images), number_size) if trains else 0
    thread_size = deltas + 2 * delta_size
    moments = threads + n_threads * thread_size
    for k, layer in enumerate(placed):
        if layer.facts.batch_norm:
            units = layer.facts.weight_shape[1]
            sums = (2 * n_groups + 1) * units * 8 // number_size
            placed[k] = layer._replace(moments=moments, statistics=moments + sums)
            moments = to_lines(placed[k].statistics + 2 * units, 4)
    size = layers[n_layers].weight
    room = tuning.GRADIENTS_BYTES // (number_size * max(1, size))
    n_parts = max(1, min(n_groups, MOST_SHARDS, room))
    return placed, Trunk(
        n_layers=n_layers,
        lanes=lanes,
        n_parts=n_parts,
        size=size,
        input=images[0][0],
        groups=groups,
        group_size=group_size if trains else 0,
        threads=threads,
        thread_size=thread_size,
        band=band,
        deltas=deltas,
        delta_size=delta_size,
        gradients=moments,
        delta=delta,
        end=moments + (n_parts * size if trains else 0),
    )


def _has_room(layers: Sequence[LayerPlan], number_size: int) -> bool:
    # Whether a vector that begins in a convolution's weight or bias ends within the parameters.
    size = layers[-1].bias + layers[-1].facts.n_out
    ends = [layer.bias + layer.facts.weight_shape[1] for layer in layers if layer.facts.maps is not None]
    return size - max(ends) >= lanes_of(number_size)


def _band_rows(layer: LayerPlan) -> int:
    # Rows of a band of maps before pooling; none if they are the output, or the input.
    maps = layer.facts.maps
    assert maps is not None
    if not (maps.convolution and maps.pooling):
        return 0
    return (layer.band - 1) * maps.pooling.stride[0] + maps.pooling.size[0]


def n_groups_of(layer: LayerPlan) -> int:
    """Groups of slices of a hidden layer behind another one, in the driver by units."""
    return tuning.FEW_SLICES if len(layer.slices) >= tuning.FEW_SLICES else 1


def place_by_units(
    layers: Sequence[LayerPlan], block_rows: int, sparse: bool, nonzeros: int, n_threads: int, number_size: int
) -> dict[str, Any]:
    """Lay out the work space of the driver by units, which all threads use.

    The rows of three row blocks (one that slow threads still read, the current one, the next); outputs, gradients and
    slopes of the hidden layers, with room for each thread's units in whole cache lines; the slices' parts of the logits
    of two row blocks; two gradients of the logits for each thread; squares of the gradient.
    """
    n_in, n_classes = layers[0].facts.n_in, layers[-1].facts.n_out
    most = max(len(layer.slices) for layer in layers)
    rows_size = to_lines(most * column_work_size(n_in, nonzeros), 4) if nonzeros else 0
    if not sparse:
        rows_size = to_lines(block_rows * n_in, 4)
    placed, begin, groups = [], 3 * rows_size, 1
    for k, layer in enumerate(layers[:-1]):
        above = n_groups_of(layers[k + 1]) if k < len(layers) - 2 else 1
        units = layer.slices[0].end
        row = to_lines(units, number_size)
        size = block_rows * row * len(layer.slices)
        layer = layer._replace(cut=(row, units, block_rows * row), output=begin, delta=begin + size, groups=groups)
        begin, groups = begin + (1 + above) * size, above  # the gradient is summed from a part for each group above
        if layer.facts.wants_slopes:
            layer = layer._replace(keeps_slopes=True, slopes=begin)
            begin += size
        placed.append(layer)
    n_logits = block_rows * n_classes
    spare = begin + 2 * len(layers[-1].slices) * n_logits
    squares = spare + 2 * most * n_logits
    return {
        "layers": (*placed, layers[-1]._replace(groups=placed[-1].groups)),
        "rows_size": rows_size,
        "work_size": squares + 2 * len(layers) * max(most, tuning.FEW_SLICES),
        "spare": spare,
        "parts": begin,
        "squares": squares,
    }


# --- ranks ----------------------------------------------------------------------------------------------------------


def shares(n: int, n_ranks: int) -> list[int]:
    """Return the first of n things that each rank owns, and n."""
    return [n * k // n_ranks for k in range(n_ranks + 1)]


def pairs_of(n: int) -> Iterator[tuple[int, int, int]]:
    """Yield the additions that sum n things in pairs: sum, summand, and the end of what is then in the sum."""
    width = 1
    while width < n:
        for first in range(0, n - width, 2 * width):
            yield first, first + width, min(n, first + 2 * width)
        width *= 2


def split_sum(bounds: Sequence[int]) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Return the partial sums of each rank, each named by its first thing, and the additions that are left.

    bounds : first thing of each rank, and the number of things
    """
    owners = [rank for rank, (first, end) in enumerate(itertools.pairwise(bounds)) for _ in range(first, end)]
    left, added = [], set()
    for first, second, end in pairs_of(bounds[-1]):
        if owners[first] == owners[end - 1]:
            added.add(second)
        else:
            left.append((first, second))
    sums = [[k for k in range(first, end) if k not in added] for first, end in itertools.pairwise(bounds)]
    return sums, left


def slices_of_ranks(layer: LayerPlan, n_ranks: int) -> list[int]:
    """Return the first slice of each rank, and the number of slices: whole groups, if there are several."""
    n_slices = len(layer.slices)
    if layer.groups > 1:
        return [n_slices * group // layer.groups for group in shares(layer.groups, n_ranks)]
    return shares(n_slices, n_ranks)
