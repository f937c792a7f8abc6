"""What test_anything.py draws: networks, data in any form, settings of a trainer; and a trainer written plainly.

A case is made of numbers and names alone, so that a failing one can be read and run again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st
from levels import levels_of
from scipy import sparse
from table_rows import codes_of, dense_features

import fastnn
from fastnn import _mapped, reference, tuning
from fastnn._mapped import MappedRows
from fastnn.augment import Flip, Shift, motion_of
from fastnn.kernels.epoch import Batches, Space
from fastnn.kernels.losses import LOSSES, Targets
from fastnn.kernels.plan import CompiledPlan
from fastnn.kernels.rows import CSRRows
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.layers import (
    AveragePool2D,
    Category,
    Columns,
    Conv2D,
    Dense,
    GlobalAveragePool2D,
    Layer,
    MaxPool2D,
    Number,
    fit_together,
    shapes_of,
)
from fastnn.layout import LayerFacts
from fastnn.plan import forward_plan
from fastnn.schedules import Constant, Cosine, Exponential, InverseScaling, LinearWarmup, OnPlateau, Schedule, Step

# --- data -------------------------------------------------------------------------------------------

DENSE_TYPES = [
    "bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64",
    "longdouble", ">i2", ">f4", ">f8",
]  # fmt: skip
SPARSE_TYPES = ["bool", "int8", "uint8", "int32", "int64", "float32", "float64", "longdouble"]
LAYOUTS = [
    "C", "C", "F", "every second row", "every second column", "rows backwards", "columns backwards", "read-only",
    "unaligned", "one row again and again", "lists", "frame", "mapped", "mapped by columns", "mapped unaligned",
]  # fmt: skip
FORMATS = ["csr", "csr", "csc", "coo", "lil", "dok", "bsr", "dia"]
ODDITIES = ["unsorted", "duplicates", "explicit zeros", "long", "mixed", "slack", "read-only", "matrix"]


@dataclass(frozen=True)
class Data:
    """Rows and what they should give, settled by a seed."""

    n: int
    n_in: int
    seed: int
    density: float
    dtype: str
    form: str
    odd: tuple[str, ...] = ()
    weights: str = "none"
    y_form: str = "plain"
    shape: tuple[int, ...] = ()  # of each row; (): flat
    of_table: bool = False

    def rows(self, folder: str) -> tuple[Any, np.ndarray]:
        """Return X as the user has it, and the numbers (n, n_in) that it stands for, float64."""
        rng = np.random.default_rng(self.seed)
        shape = self.n, self.n_in
        # So few bits that each type holds them, and sums of a few are exact in float32.
        values = rng.integers(-8, 9, shape) if rng.random() < 0.3 else np.round(16 * rng.standard_normal(shape))
        dtype = np.dtype(self.dtype)
        values = (
            np.abs(values) * (8 if dtype == np.uint8 and rng.random() < 0.5 else 1) if dtype.kind in "ub" else values
        )
        values = values / 16 if dtype.kind == "f" else values
        if dtype.kind == "i":
            values = np.clip(values, -3, 3)
        values = values * (rng.random(shape) < self.density)
        values[rng.random(self.n) < 0.1] = 0  # empty rows
        values = np.clip(values, 0, 255 if dtype == np.uint8 else 3) if dtype.kind == "u" else values
        values = (values != 0).astype(float) if dtype.kind == "b" else values
        if self.of_table and dtype.kind == "f":
            values = np.where(rng.random(shape) < 0.6, np.abs(np.trunc(values)), values)  # many codes
            values[rng.random(shape) < rng.choice([0, 0.2])] = np.nan
        if self.form == "one row again and again" and self.n:
            values[:] = values[:1]
        array = values.astype(dtype).reshape(self.n, *(self.shape or values.shape[1:]))
        given = _scattered(array, self, rng) if self.form in FORMATS else _laid_out(array, self.form, folder)
        pixels = dtype == np.uint8 and not isinstance(given, list) and not self.of_table
        return given, values / 256 if pixels else values.astype(np.float64)

    def targets(self, loss: str, n_out: int) -> tuple[Any, np.ndarray]:
        """Return y as the user has it, and as the twin takes it."""
        rng = np.random.default_rng(self.seed + 1)
        if loss == "cross_entropy":
            y = rng.integers(0, n_out, self.n)
            kinds = {"plain": "int64", "small": "int8", "unsigned": "uint64", "big-endian": ">i4"}
            given = y.astype(kinds.get(self.y_form, "int64"))
        else:
            width = 1 if loss == "quantile" else n_out
            y = rng.standard_normal((self.n, width)) if loss != "binary_cross_entropy" else rng.random((self.n, width))
            if self.y_form == "small":
                y = y.astype(np.float32).astype(float)
            given = y.astype({"small": "f4", "big-endian": ">f8"}.get(self.y_form, "f8"))
            given = given[:, 0] if width == 1 and self.y_form == "strided" else given
        if self.y_form == "strided":
            given = np.repeat(given, 2, axis=0)[::2]
        elif self.y_form == "lists":
            given = given.tolist()
        elif self.y_form == "read-only":
            given.flags.writeable = False
        return given, np.repeat(y, n_out, axis=1) if loss == "quantile" else y

    def row_weights(self) -> tuple[Any, np.ndarray | None]:
        """Return weights as the user has them, and as the twin takes them."""
        rng = np.random.default_rng(self.seed + 2)
        if self.weights == "none":
            return None, None
        if self.weights == "integers":
            w = rng.integers(0, 3, self.n)
        else:
            w = rng.random(self.n) * (rng.random(self.n) < (0.4 if self.weights == "many zeros" else 1))
        if self.n and not w.any():
            w[rng.integers(self.n)] = 1
        return (w[::-1].copy()[::-1] if self.weights == "backwards" else w), w.astype(float)


def _laid_out(array: np.ndarray, form: str, folder: str) -> Any:
    """Return an array's numbers in another layout, or in another container."""
    if form == "F":
        return np.asfortranarray(array)
    if form == "every second row":
        return np.repeat(array, 2, axis=0)[::2]
    if form == "every second column":
        return np.repeat(array, 2, axis=1)[:, ::2]
    if form == "rows backwards":
        return array[::-1].copy()[::-1]
    if form == "columns backwards":
        return array[:, ::-1].copy()[:, ::-1]
    if form == "read-only":
        array.flags.writeable = False
    elif form == "unaligned":
        memory = np.empty(array.nbytes + 1, np.uint8)
        memory[1:] = np.frombuffer(array.tobytes(), np.uint8)
        return memory[1:].view(array.dtype).reshape(array.shape)
    elif form == "one row again and again" and len(array):
        return np.broadcast_to(array[0], array.shape)
    elif form == "lists" and len(array):
        return array.tolist()
    elif form == "frame" and array.ndim == 2 and array.dtype.isnative and array.dtype not in ("float16", "longdouble"):
        return pd.DataFrame(array)
    elif form.startswith("mapped") and array.size:
        path = os.path.join(folder, f"{len(os.listdir(folder))}.bin")
        offset = 3 if form == "mapped unaligned" else 0
        order = "F" if form == "mapped by columns" else "C"
        with open(path, "wb") as file:
            file.write(bytes(offset) + array.tobytes(order))
        return np.memmap(path, array.dtype, "r", offset, array.shape, order)
    return array


def _scattered(array: np.ndarray, data: Data, rng: np.random.Generator) -> Any:
    """Return an array's numbers as one of SciPy's sparse matrices, stored in some odd way."""
    kind = "matrix" if "matrix" in data.odd else "array"
    if data.form not in ("csr", "csc", "coo"):
        return getattr(sparse, f"{data.form}_{kind}")(array)
    rows, columns = np.nonzero(array)
    values = array[rows, columns]
    if "explicit zeros" in data.odd and array.size:
        extra = rng.integers(0, array.size, 3)
        rows, columns = np.r_[rows, extra // data.n_in], np.r_[columns, extra % data.n_in]
        values = np.r_[values, np.zeros(3, array.dtype)]
    if "duplicates" in data.odd and array.dtype != bool:
        halves = (values // 2 if array.dtype.kind in "iu" else values / 2).astype(array.dtype)
        rows, columns, values = np.r_[rows, rows], np.r_[columns, columns], np.r_[values - halves, halves]
    major = columns if data.form == "csc" else rows
    order = rng.permutation(len(rows)) if "unsorted" in data.odd else np.lexsort((rows + columns - major, major))
    if data.form != "coo":
        order = order[np.argsort(major[order], kind="stable")]
    rows, columns, values, major = rows[order], columns[order], values[order].astype(array.dtype), major[order]
    long = np.int64 if "long" in data.odd else np.int32
    if data.form == "coo":
        return getattr(sparse, f"coo_{kind}")((values, (rows.astype(long), columns.astype(long))), array.shape)
    minor = rows if data.form == "csc" else columns
    pointers = np.searchsorted(major, np.arange(array.shape[data.form == "csc"] + 1))
    if "slack" in data.odd:  # room behind the last number
        values, minor = np.r_[values, values[:2]], np.r_[minor, minor[:2]]
    found = getattr(sparse, f"{data.form}_{kind}")((values, minor, pointers), array.shape)
    # Put in afterwards, since the constructor makes indices short where it can, and cuts off what is behind.
    found.data, found.indices = values, minor.astype(long)
    found.indptr = pointers.astype(np.int32 if "mixed" in data.odd else long)
    if "read-only" in data.odd:
        for part in (found.data, found.indices, found.indptr):
            part.flags.writeable = False
    return found


def snapshot(given: Any) -> Any:
    """Return all that can be seen of an input, to compare with later."""
    if isinstance(given, (list, tuple)):
        return [snapshot(item) for item in given]
    if isinstance(given, pd.DataFrame):
        return snapshot(given.to_numpy()), [str(dtype) for dtype in given.dtypes]
    if sparse.issparse(given):
        names = ("data", "indices", "indptr", "row", "col", "coords", "offsets", "rows")
        parts = [snapshot(getattr(given, name)) for name in names if hasattr(given, name)]
        return given.format, given.shape, parts, str(given.tocoo()) if given.format == "dok" else ""
    if isinstance(given, np.ndarray):
        return given.dtype.str, given.shape, given.strides, given.flags.writeable, given.tobytes()
    return given


# --- networks, settings -----------------------------------------------------------------------------

# Constants of the engine that make small data take the ways of large ones.
TUNINGS = {
    "teams": {(tuning, "SMALL_RUN"): 0, (tuning, "PARALLEL_BYTES"): 0},
    "blocks": {(tuning, "BLOCK_ROWS"): (3, 5), (tuning, "FEWEST_BLOCK_ROWS"): 1, (tuning, "FORWARD_PRODUCT"): 50},
    "sorted": {(tuning, "SORTED_ONCE"): ((0, 0),), (tuning, "SORTED_EACH_TIME"): ((0, 0),)},
    "touched": {(tuning, "TOUCHED_SHARE"): 0},
    "along the inputs": {(tuning, "DENSE_INPUTS"): 2},
    "in panels": {(tuning, "WIDE_UNITS"): 2},
    "shared": {(tuning, "UNITS_PRODUCT"): 1},
    "groups": {(tuning, "IMAGE_ROWS"): 16, (tuning, "FORWARD_IMAGES"): 5, (tuning, "MAPS_BYTES"): 1},
    "few gradients": {(tuning, "GRADIENTS_BYTES"): 5000},
    "short samples": {(tuning, "DENSITY_SAMPLE"): 3, (tuning, "LOOKED_THROUGH"): 16},
    "on the disk": {(_mapped, "PIECE_BYTES"): 100, (_mapped, "WINDOW_BYTES"): 400},
}


@dataclass(frozen=True)
class Net:
    """A network that is settled by a seed; of layers on images or on a table's columns, if there are any."""

    sizes: tuple[int, ...]
    activation: tuple[str, ...]
    loss: str
    batch_norm: bool
    dtype: str
    seed: int
    start: str = "random"
    layers: tuple[Layer, ...] = ()
    input_shape: tuple[int, ...] | None = None

    @property
    def columns(self) -> Columns | None:
        """What becomes of the columns of a table, if the rows are those of one."""
        first = self.layers[0] if self.layers else None
        return first if isinstance(first, Columns) else None

    @property
    def of_images(self) -> bool:
        """Whether the first layers are on images."""
        return len(self.input_shape or ()) == 3

    def plain(self) -> Net:
        """Return the network without batch normalisation and without dropout of its own."""
        layers = [
            replace(layer, batch_norm=None, dropout=None) if layer.has_weights else layer for layer in self.layers
        ]
        return replace(self, batch_norm=False, layers=tuple(layers))

    def make(self) -> fastnn.Network:
        """Return the network."""
        options = (self.activation, self.dtype, self.seed, self.loss, self.batch_norm, self.input_shape)
        options += (levels_of(self.loss, self.sizes[-1]),)
        network = fastnn.Network(self.layers or self.sizes, *options)
        if self.start == "random":
            rng = np.random.default_rng(self.seed)
            for weight, bias in zip(network.weights, network.biases, strict=True):
                weight[:] = rng.standard_normal(weight.shape) / math.sqrt(weight[..., 0].size)
                bias[:] = 0.3 * rng.standard_normal(bias.shape)
            for scale, mean, variance in zip(network.scales, network.means, network.variances, strict=True):
                scale[:], mean[:] = rng.random(len(scale)) + 0.5, rng.standard_normal(len(scale))
                variance[:] = rng.random(len(scale)) + 0.1
        return network


@dataclass(frozen=True)
class Case:
    """A network, chunks of data (one: X and y at once), rows to validate on, settings of a trainer, the way to run."""

    net: Net
    data: tuple[Data, ...]
    valid: Data | None
    settings: dict[str, Any]
    epochs: int
    tunings: tuple[str, ...]
    n_threads: int = 2

    @contextlib.contextmanager
    def tuned(self) -> Any:
        """Set the engine's constants."""
        with pytest.MonkeyPatch.context() as patch:
            for name in self.tunings:
                for (module, constant), value in TUNINGS[name].items():
                    patch.setattr(module, constant, value)
            yield patch

    def part(self, given: tuple[Any, Any, Any], data: Data, X: np.ndarray) -> Part:
        """Return what the twin takes for an input that stands for the numbers X."""
        mapped, columns = None, self.net.columns
        may_stay = "on the disk" in self.tunings and self.settings["sparse"] is not True and columns is None
        if may_stay and isinstance(given[0], np.memmap):
            stored = given[0].dtype in ("uint8", "float32", "float64") and given[0].flags.c_contiguous
            if stored and given[0].nbytes > _mapped.WINDOW_BYTES:
                mapped = MappedRows(np.asarray(given[0]), self.settings["batch_size"] or data.n)
        y, weights = data.targets(self.net.loss, self.net.sizes[-1])[1], data.row_weights()[1]
        y = y if self.net.loss == "cross_entropy" else y.astype(self.net.dtype).astype(float)
        seen = X if columns is None else dense_features(columns, X)
        seen = seen.astype(self.net.dtype).astype(float)
        if columns is not None and columns.embeddings:
            seen = with_codes(seen, codes_of(columns, X))
        return Part(seen, y, weights, X, mapped)

    def inputs(self, folder: str) -> tuple[list[tuple[Any, Any, Any]], list[Part]]:
        """Return the chunks, and then the rows to validate on if there are any, as the user and the twin have them."""
        given, parts = [], []
        for data in (*self.data, *([self.valid] if self.valid else [])):
            X, values = data.rows(folder)
            given.append((X, data.targets(self.net.loss, self.net.sizes[-1])[0], data.row_weights()[0]))
            parts.append(self.part(given[-1], data, values))
        return given, parts

    def fit(self, trainer: fastnn.Trainer, given: list[tuple[Any, Any, Any]], **changes: Any) -> fastnn.History:
        """Train on inputs."""
        chunks = given[: len(self.data)]
        validation = given[len(self.data)] if self.valid else None
        options = {"epochs": self.epochs, "validation": validation, "progress": False} | changes
        if len(chunks) == 1:
            return trainer.fit(chunks[0][0], chunks[0][1], sample_weight=chunks[0][2], **options)
        return trainer.fit([chunk[: 3 if chunk[2] is not None else 2] for chunk in chunks], **options)

    def fit_twin(self, twin: Twin, parts: list[Part], **changes: Any) -> Record:
        """Train the twin on the same."""
        valid = parts[len(self.data)] if self.valid else None
        return twin.fit(parts[: len(self.data)], **{"epochs": self.epochs, "valid": valid} | changes)

    def trainer(self, network: fastnn.Network, **changes: Any) -> fastnn.Trainer:
        """Return a trainer with the settings."""
        return fastnn.Trainer(network, **{**self.settings, "n_threads": self.n_threads, **changes})


def optimizers(rates: st.SearchStrategy[Any], dtype: str = "float32") -> st.SearchStrategy[Any]:
    """Draw an optimizer that makes steps; roundings, which may be divided by epsilon, do not count for much."""
    small = st.sampled_from([0.001, 0.02, Cosine(0.02, 2), LinearWarmup(0.02), OnPlateau(0.02, 0.5, 0, 0.5)])
    epsilons = st.sampled_from([1e-8, 1e-4, 0.1] if dtype == "float64" else [0.01, 0.1])
    momenta = st.sampled_from([0.1, 0.9])
    return st.one_of(
        st.builds(fastnn.SGD, rates),
        st.builds(fastnn.SGD, rates, momenta, st.booleans()),
        st.builds(fastnn.RMSprop, small, st.sampled_from([0.0, 0.9]), epsilons),
        st.builds(fastnn.Adagrad, small, epsilons),
        st.builds(fastnn.Adam, small, momenta, st.sampled_from([0.5, 0.999]), epsilons, st.booleans()),
        st.builds(fastnn.AdamW, small, epsilon=epsilons, weight_decay=st.sampled_from([0.0, 0.3])),
    )


def learning_rates() -> st.SearchStrategy[Any]:
    """Draw numbers and schedules, all small."""
    number = st.sampled_from([0.01, 0.1, 0.25])
    simple = st.one_of(
        st.builds(Constant, number),
        st.builds(Step, number, st.sampled_from([0.0, 0.5]), st.integers(1, 2)),
        st.builds(Exponential, number, st.sampled_from([0.0, 0.5, 1.0])),
        st.builds(Cosine, number, st.sampled_from([0.5, 2.0, 5.0]), st.sampled_from([0.0, 0.01])),
        st.builds(InverseScaling, number, st.sampled_from([0.0, 0.5, 2.0])),
        st.builds(OnPlateau, number, st.sampled_from([0.0, 0.5]), st.integers(0, 1), st.sampled_from([0.0, 0.5])),
    )
    return st.one_of(number, number, simple, st.builds(LinearWarmup, simple, st.sampled_from([0.5, 3.0])))


@st.composite
def shapes(draw: Any) -> tuple[str, int, tuple[int, ...]]:
    """Draw a kind of data, a number of rows, and the widths of a network."""
    kinds = ["small", "small", "small", "long", "wide", "many inputs", "text", "table", *["images"] * 3]
    kind = draw(st.sampled_from(kinds))
    hidden = draw(st.lists(st.integers(1, 9), max_size=4))
    n_in, n_out, n = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 40))
    if kind == "long":  # batches in shards
        n, hidden = draw(st.integers(512, 1100)), hidden[:2]
    elif kind == "wide":  # by units
        hidden = [draw(st.sampled_from([64, 129, 200])), *hidden[:1]]
        n_in, n = draw(st.sampled_from([9, 40, 70])), draw(st.integers(20, 60))
    elif kind == "many inputs":  # weights in another form
        n_in, hidden = draw(st.integers(64, 100)), hidden[:2]
        hidden = [draw(st.sampled_from([64, 70])), *hidden[1:]] if hidden and draw(st.booleans()) else hidden
    elif kind == "text":  # a batch touches few columns
        n_in, hidden, n = draw(st.integers(200, 600)), hidden[:2], draw(st.integers(5, 60))
    elif kind == "table":  # seen as sparse rows
        n_in, n = draw(st.integers(1, 6)), draw(st.sampled_from([1, 20, 60, 600]))
        hidden = [draw(st.sampled_from([3, 16, 56, 120])), *hidden[:1]] if hidden else hidden
    elif kind == "images":  # in groups of as many as there are lanes
        n = draw(st.one_of(st.sampled_from([1, 15, 16, 17, 33]), st.integers(1, 40)))
    return kind, n, (n_in, *hidden, n_out)


@st.composite
def datas(draw: Any, n: int, n_in: int, kind: str, shape: tuple[int, ...] | None) -> Data:
    """Draw rows in some form; dense ones if they have a shape or are those of a table."""
    density = draw(st.sampled_from([1.0, 1.0, 0.3, 0.05] if kind != "text" else [0.003, 0.01]))
    forms = st.sampled_from(LAYOUTS), st.sampled_from(FORMATS)
    choices = forms[0] if shape or kind == "table" else st.one_of(*forms)
    form = draw(st.sampled_from(FORMATS) if kind == "text" and draw(st.booleans()) else choices)
    is_sparse = form in FORMATS
    dtype = draw(st.sampled_from(SPARSE_TYPES if is_sparse else DENSE_TYPES))
    odd = tuple(draw(st.lists(st.sampled_from(ODDITIES), unique=True, max_size=4))) if is_sparse else ()
    weights = draw(st.sampled_from(["none", "none", "plain", "integers", "many zeros", "backwards"]))
    y_form = draw(st.sampled_from(["plain", "small", "unsigned", "big-endian", "strided", "lists", "read-only"]))
    given = [(), shape, *([shape[:2]] if shape[2] == 1 else [])] if shape else [()]
    return Data(n, n_in, draw(st.integers(0, 10**6)), density, dtype, form, odd, weights, y_form,
                draw(st.sampled_from(given)), kind == "table")  # fmt: skip


@st.composite
def trunks(draw: Any) -> tuple[tuple[int, ...], list[Layer]]:
    """Draw the shape of an image, and layers on images that fit to it."""
    shape: tuple[int, ...] = (draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 4)))
    found: list[Layer] = []
    shapes = [shape]
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from([Conv2D, Conv2D, Conv2D, MaxPool2D, MaxPool2D, AveragePool2D, GlobalAveragePool2D]))
        padding = draw(st.sampled_from(["valid", "same"])) if kind is Conv2D else "valid"
        size, stride = (
            tuple(draw(st.integers(1, most if padding == "same" else min(most, n))) for n in shapes[-1][:2])
            for most in (5, 3)
        )
        layer: Layer
        if kind is Conv2D:
            own = draw(st.none() | st.sampled_from(list(reference.ACTIVATIONS)))
            normalised, dropout = (
                draw(st.sampled_from([None, None, False, True])),
                draw(st.sampled_from([None, None, 0.3])),
            )
            layer = Conv2D(draw(st.integers(1, 5)), size, stride, padding, own, normalised, dropout)
        elif kind is GlobalAveragePool2D:
            layer = kind()
        else:
            layer = kind(size, draw(st.sampled_from([None, stride])))
        found.append(layer)
        shapes.append(layer.output_shape(shapes[-1]))
    return shape, found


def tables(n_columns: int) -> st.SearchStrategy[Columns]:
    """Draw what becomes of so many columns of a table."""
    centers, scales = st.sampled_from([0.0, 0.5, -3.0]), st.sampled_from([0.0, 0.125, 1.0, 4.0])
    knots = st.sampled_from([(), (0.0, 1.0), (-1.0, 0.0, 2.5), tuple(range(-9, 60, 2))])
    numbers = st.builds(Number, centers, scales, knots, st.booleans())
    widths = st.sampled_from([None, None, 1, 3, 20])
    categories = st.builds(Category, st.sampled_from([1, 2, 5, 90, 300]), st.booleans(), widths)
    return st.builds(Columns, st.lists(numbers | categories, min_size=n_columns, max_size=n_columns))


@st.composite
def nets(draw: Any, sizes: tuple[int, ...], kind: str) -> Net:
    """Draw a network of these widths; layers on images or on a table's columns come before it."""
    layers: tuple[Layer, ...] = ()
    shape = None
    if kind == "table":
        columns, shape = draw(tables(sizes[0])), sizes[:1]
        layers = columns, *map(Dense, sizes[1:])
        sizes = sizes[0], columns.n_features, *sizes[1:]
    elif kind == "images":
        shape, trunk = draw(trunks())
        layers = fit_together([*trunk, *map(Dense, sizes[1:])], shape)
        sizes = math.prod(shape), *(math.prod(after) for after in shapes_of(layers, shape)[1:])
    activations = st.sampled_from(list(reference.ACTIVATIONS))
    hidden = [layer for layer in layers if layer.has_weights] or sizes[1:]
    activation = tuple(draw(activations) for _ in hidden[1:])
    batch_norm = draw(st.integers(0, 3)) == 0
    loss = draw(st.sampled_from(["cross_entropy", *LOSSES]))
    start = draw(st.sampled_from(["random", "random", "own"]))
    return Net(sizes, activation, loss, batch_norm, draw(st.sampled_from(["float64", "float32"])),
               draw(st.integers(0, 10**6)), start, layers, shape)  # fmt: skip


@st.composite
def cases(draw: Any, one_chunk: bool = False, max_epochs: int = 3) -> Case:
    """Draw a whole case."""
    kind, n, sizes = draw(shapes())
    net = draw(nets(sizes, kind))
    shape = net.input_shape if net.of_images else None
    n_chunks = 1 if one_chunk else draw(st.sampled_from([1, 1, 1, 2, 3]))
    counts = [n, *(draw(st.integers(1, 20)) for _ in range(n_chunks - 1))]
    data = tuple(draw(datas(count, net.sizes[0], kind, shape)) for count in counts)
    n_valid = draw(st.integers(0, 10))
    valid = draw(datas(n_valid, net.sizes[0], kind, shape)) if n_valid else None
    sizes_of_batches = [None, None, 1, 2, 7, 20, max(1, n - 1), n, n + 1] if n < 100 else [None, None, 100, 511, 600, n]
    settings = {
        "optimizer": draw(optimizers(learning_rates(), net.dtype)),
        "batch_size": draw(st.sampled_from(sizes_of_batches)),
        "shuffle": draw(st.booleans()),
        "seed": draw(st.integers(0, 1000)),
        "sparse": draw(st.sampled_from(["auto", "auto", *([] if net.of_images else [True]), False])),
        "l2": draw(st.sampled_from([0.0, 0.0, 0.01, 0.3])),
    }
    # Some ways of the engine are for plain steps.
    if draw(st.booleans()):
        shares = st.sampled_from([0.0, 0.2, 0.5])
        settings |= {
            "l1": draw(st.sampled_from([0.0, 0.01])),
            "dropout": draw(st.one_of(shares, st.tuples(*[shares] * len(net.activation)).map(list))),
            "clip_norm": draw(st.sampled_from([None, 0.1, 5.0])),
            "max_norm": draw(st.sampled_from([None, 0.5, 3.0])),
        }
        if settings["l1"]:  # at 0 its gradient jumps
            net = dataclasses.replace(net, start="random")
        if net.of_images:
            changes = st.sampled_from([Shift(1), Shift((0, 2)), Flip()])
            settings["augment"] = draw(st.lists(changes, max_size=2, unique_by=type))
        if net.loss == "cross_entropy":
            settings["label_smoothing"] = draw(st.sampled_from([0.0, 0.1]))
    tunings = tuple(draw(st.lists(st.sampled_from(list(TUNINGS)), unique=True, max_size=3)))
    if net.of_images and draw(st.booleans()):
        tunings = tuple(dict.fromkeys([*tunings, "teams", "groups"]))
    if "on the disk" in tunings and draw(st.booleans()):
        stored = st.sampled_from(["uint8", "float32", "float64"])
        data = tuple(dataclasses.replace(part, form="mapped", dtype=draw(stored), odd=()) for part in data)
    epochs = draw(st.integers(1, max_epochs))
    return Case(net, data, valid, settings, epochs, tunings, draw(st.sampled_from([2, 3, 4])))


# --- the twin ---------------------------------------------------------------------------------------


# Beyond, a float32 may overflow in a few steps.
TOO_LARGE = 1e8


class Diverged(Exception):
    """The twin is about to leave the finite numbers."""


@dataclass
class Part:
    """A chunk as the twin takes it: what the first layer with weights sees, and targets, in float64; weights or None.

    raw : the numbers of the rows, (n, n_in);  mapped : draws orders
    """

    X: np.ndarray | CSRRows
    y: np.ndarray
    weights: np.ndarray | None
    raw: np.ndarray
    mapped: MappedRows | None = None


@dataclass
class Record:
    """What a fit of the twin leaves, as `History` but for penalties, and outputs (n, n_out) in place of errors.

    penalties : each epoch's, of each chunk: with all of it before each step; with the first weight's after the chunk
    """

    log_likelihood: list[float] = dataclasses.field(default_factory=list)
    penalties: list[list[tuple[float, float]]] = dataclasses.field(default_factory=list)
    validation_log_likelihood: list[float] = dataclasses.field(default_factory=list)
    validation_outputs: list[np.ndarray] = dataclasses.field(default_factory=list)

    def objective(self, late: tuple[int, ...]) -> list[float]:
        """Return the objective of each epoch; late: for each chunk, whether the first weight's penalty is."""
        return [
            log_likelihood - sum(pair[which] for pair, which in zip(pairs, late, strict=True))
            for log_likelihood, pairs in zip(self.log_likelihood, self.penalties, strict=True)
        ]


class Twin:
    """`Trainer`, written plainly over the kernels' twins, with everything in one precision.

    Parameters
    ----------
    network : Network
        Where to start.
    settings : dict
        Of the trainer; assigning to an item changes it between fits.
    dtype : str
        To compute in.
    noise : float
        Relative size of noise on the initial parameters and the rows, to see what roundings make of the result.
    """

    def __init__(self, network: fastnn.Network, settings: dict[str, Any], dtype: str, noise: float = 0.0) -> None:
        self.network, self.settings, self.dtype = network, dict(settings), np.dtype(dtype)
        self.noise = noise
        self.parameters = self._noisy(network.parameters)
        self.generator = np.random.default_rng(settings.get("seed", 0))
        self.shapes = network.facts()
        self.forget()
        self.curve: list[float] = []

    def _noisy(self, values: Any) -> Any:
        if isinstance(values, CSRRows):
            return values._replace(data=self._noisy(values.data))
        jitter = self.noise * np.random.default_rng(values.size).uniform(-1, 1, values.shape)
        # Batch normalisation makes much of the smallest difference between rows, also where all are 0.
        zeros = jitter if self.network.batch_norm else 0
        return (values * (1 + jitter) + zeros if self.noise else values).astype(self.dtype)

    def forget(self) -> None:
        """Begin with a new optimizer."""
        self.state = np.zeros((self.settings["optimizer"].n_slots, self.parameters.size), self.dtype)
        self.n_steps = 0

    def fit(
        self,
        parts: list[Part],
        epochs: int,
        valid: Part | None = None,
        rows: float = math.inf,
        on_epoch: Any = None,
        knows_rows: bool = False,
        in_chunks: bool = False,
    ) -> Record:
        """Train for some epochs, or until so many rows of the last are done; on_epoch returns whether to stop.

        in_chunks : rows come in chunks, though in one;  knows_rows : it is known how many, as it is after an epoch
        """
        record = Record()
        n_rows = sum(len(part.y) for part in parts) if (len(parts) == 1 and not in_chunks) or knows_rows else 0
        own = [layer.dropout for layer in self.network.layers if layer.has_weights][:-1]
        shares = np.broadcast_to(self.settings.get("dropout", 0.0), len(own))
        told = [share if layer is None else layer for share, layer in zip(shares, own, strict=True)]
        self.shapes = self.network.facts(np.array(told, float))
        for epoch in range(epochs):
            limit = rows if epoch == epochs - 1 else math.inf
            sums, done = [], 0
            for part in parts:
                sums.append(self._train_on(part, done, n_rows, limit))
                done += len(part.y)
                if done > limit:
                    return record
            n_rows = done
            total = sum(len(part.y) if part.weights is None else part.weights.sum() for part in parts)
            record.log_likelihood.append(sum(values[0] for values in sums) / total)
            record.penalties.append([(penalty / total, late / total) for _, penalty, late in sums])
            if valid is not None:
                Z = self.outputs(valid.X)
                record.validation_log_likelihood.append(log_likelihood(self.network, Z, valid))
                record.validation_outputs.append(Z)
            self.curve.append(record.log_likelihood[-1] if valid is None else record.validation_log_likelihood[-1])
            if on_epoch is not None and on_epoch(self, epoch):
                break
        return record

    def _train_on(self, part: Part, done: int, n_rows: int, limit: float) -> tuple[float, float, float]:
        # Sums of log-likelihood and penalties over a chunk's batches, up to the limit of rows; penalties in both ways.
        n, settings = len(part.y), self.settings
        size = min(settings["batch_size"] or n, n)
        order = np.arange(n)
        if settings["shuffle"] and size < n:
            order = self.generator.permutation(n) if part.mapped is None else part.mapped.shuffled(self.generator)
        motion = motion_of(tuple(settings.get("augment", ())), self.network.input_shape)
        random = motion is not None or any(shape.dropout for shape in self.shapes)
        key = int(self.generator.integers(2**63)) if random else 0
        starts = np.arange(0, n, size)
        weights = np.ones(n) if part.weights is None else part.weights[order]
        of_batches = [weights[first : first + size].sum() for first in starts]
        times = len(self.curve) + ((done + n * np.arange(len(starts)) / len(starts)) / n_rows if n_rows else 0 * starts)
        steps = self._steps(times, of_batches)
        smoothing, levels = settings.get("label_smoothing", 0.0), np.array(self.network.quantiles)
        targets = Targets(LOSSES[self.network.loss], part.y[order], weights, smoothing, levels)
        space, plan = self._space(self.state), self._plan(self.shapes, size)
        X = self._noisy(part.X)
        for first in starts:
            if done + min(first + size, n) > limit:
                break
            reference.train(Batches(X, targets, order, key, motion=motion), plan, steps, space, space.work, 0.0, 1)
            if not abs(space.log_likelihood[0]) < TOO_LARGE or not np.abs(self.parameters).max() < TOO_LARGE:
                raise Diverged
            self.n_steps += 1
        first_weight = self.parameters[: self.network.weights[0].size].astype(float)
        late = space.penalties[1:].sum() + weights.sum() * settings["l2"] / 2 * (first_weight**2).sum()
        return float(space.log_likelihood[0]), float(space.penalties.sum()), float(late)

    def _plan(self, shapes: tuple[LayerFacts, ...], batch_size: int) -> CompiledPlan:
        return CompiledPlan(replace(forward_plan(shapes, self.dtype.name, 1, False), batch_size=batch_size))

    def _space(self, state: np.ndarray) -> Space:
        gradients, penalties = np.zeros((1, self.parameters.size), self.dtype), np.zeros((len(self.shapes), 1))
        counts = np.zeros(2, np.intp), np.zeros(2)
        return Space(self.parameters, state, gradients, np.empty((1, 0), self.dtype), *counts, penalties)

    def _steps(self, times: np.ndarray, weights: list[float]) -> Steps:
        optimizer, settings = self.settings["optimizer"], self.settings
        rate = optimizer.learning_rate
        table = []
        for t, time in enumerate(times, self.n_steps + 1):
            a = float(rate.rates(np.array([time]), self.curve)[0]) if isinstance(rate, Schedule) else rate
            table.append([settings["l2"], settings.get("l1", 0.0), a * optimizer.decay, *_numbers(optimizer, a, t)])
        return Steps(
            UPDATES[optimizer.update],
            np.array(table),
            settings.get("clip_norm") or 0.0,
            settings.get("max_norm") or 0.0,
        )

    def outputs(self, X: np.ndarray | CSRRows) -> np.ndarray:
        """Last layer (n, n_out) before softmax or sigmoid, with the running statistics."""
        return outputs(self.network, self.parameters, self._noisy(X))

    def gradient(self, part: Part) -> list[np.ndarray]:
        """Gradient of the mean log-likelihood, by weights, biases and, where there are such, scales and embeddings."""
        n = len(part.y)
        weights = np.ones(n) if part.weights is None else part.weights
        targets = Targets(LOSSES[self.network.loss], part.y, weights, levels=np.array(self.network.quantiles))
        space = self._space(np.zeros((0, self.parameters.size), self.dtype))
        steps = Steps(UPDATES["none"], np.zeros((1, 3)))
        plan = self._plan(self.network.facts(), n)
        reference.train(Batches(self._noisy(part.X), targets), plan, steps, space, space.work, 0.0, 1)
        layers = reference.unpack(self.shapes, space.gradients[0])
        found = [np.concatenate([layer[which].ravel() for layer in layers]) for which in (0, 1)]
        if self.network.batch_norm:
            found.append(np.concatenate([np.zeros(0), *(layer.norm[0] for layer in layers if layer.norm)]))
        return [*found, *[layers[0].embeddings] * bool(self.network.embeddings)]

    def slopes(self, part: Part, rng: np.random.Generator) -> tuple[float, float, float]:
        """Slope of the log-likelihood in a random direction, by the gradient and by a central difference.

        A little away from the parameters, which may stand at bends of many units; the last number is by how much both
        sides of the difference differ, as they do at a bend.
        """
        self.parameters += 0.01 * rng.standard_normal(self.parameters.size)
        directions = [rng.standard_normal(array.shape) for array in self.gradient(part)]
        by_gradient = sum(float(a @ b) for a, b in zip(directions, self.gradient(part), strict=True))
        moved = np.zeros(self.parameters.size)
        begins = [0] * len(directions)
        moved[: self.shapes[0].embeddings_size] = directions[-1][: self.shapes[0].embeddings_size]
        for W, b, norm, _ in reference.unpack(self.shapes, moved):
            for which, array in enumerate([W, b, *norm[:1]]):
                array.ravel()[:] = directions[which][begins[which] : begins[which] + array.size]
                begins[which] += array.size
        plain = self.network.facts()

        def value(step: float) -> float:
            layers = reference.unpack(plain, self.parameters + step * moved)
            Z = reference.forward_pass(dense(part.X, plain, layers), plain, layers).outputs[-1]
            return log_likelihood(self.network, Z, part)

        step = 1e-6
        below, here, above = value(-step), value(0.0), value(step)
        sides = (here - below) / step, (above - here) / step
        return by_gradient, (above - below) / (2 * step), abs(sides[1] - sides[0])


def _numbers(optimizer: Any, a: float, t: int) -> list[float]:
    """What step t with learning rate a takes, as `reference.inplace_update` names it."""
    if isinstance(optimizer, fastnn.SGD):
        return [a, optimizer.momentum] if optimizer.momentum else [a]
    if isinstance(optimizer, fastnn.RMSprop):
        return [a, optimizer.rho, optimizer.epsilon]
    if isinstance(optimizer, fastnn.Adagrad):
        return [a, optimizer.epsilon]
    root = math.sqrt(1 - optimizer.beta_2**t)
    epsilon = optimizer.epsilon / root if optimizer.uncorrected_epsilon else optimizer.epsilon
    return [a / (1 - optimizer.beta_1**t), optimizer.beta_1, optimizer.beta_2, 1 / root, epsilon]


def with_codes(X: np.ndarray, codes: np.ndarray) -> CSRRows:
    """Rows whose numbers are all stored, with codes of embeddings."""
    n, n_in = X.shape
    return CSRRows(X.ravel(), np.tile(np.arange(n_in, dtype=np.int32), n), np.arange(n + 1) * n_in, n_in, codes)


def dense(X: np.ndarray | CSRRows, shapes: Sequence[LayerFacts], layers: list[reference.Layer]) -> np.ndarray:
    """Rows as the first layer with weights sees them, with the numbers of embeddings."""
    if isinstance(X, np.ndarray):
        return X
    return reference.rows_of(X, np.arange(X.shape[0]), shapes[0], layers[0].embeddings)


def outputs(network: fastnn.Network, parameters: np.ndarray, X: np.ndarray | CSRRows) -> np.ndarray:
    """Last layer (n, n_out) of a network with these parameters, by the formula, with the running statistics."""
    shapes = shapes_of(network.layers, network.input_shape)
    # Layer by layer: none is merged with the next.
    each = [layer.facts(shape, 0.0) for layer, shape in zip(network.layers, shapes[:-1], strict=True)]
    layers = [facts for facts in each if facts is not None]
    if network.columns is not None:
        layers[0] = layers[0]._replace(embeddings=network.columns.embeddings)
    arrays = reference.unpack(layers, parameters)
    A = dense(X, layers, arrays)
    for facts, (W, b, norm, _) in zip(layers, arrays, strict=True):
        Z = reference.product(A, facts, W)
        if norm:
            scale, mean, variance = norm
            Z = scale * (Z - mean) / np.sqrt(variance + 1e-5)
        Z = Z + b if b.size else Z
        A = Z if facts.maps is None else reference.pool(Z, facts.maps)[0]
        if facts.activation is not None:
            reference.inplace_activation(reference.ACTIVATIONS[facts.activation], A)
    return A


def log_likelihood(network: fastnn.Network, Z: np.ndarray, part: Part) -> float:
    """Mean log-likelihood of last layers Z (n, n_out)."""
    total = float(len(Z) if part.weights is None else part.weights.sum())
    targets = Targets(LOSSES[network.loss], part.y, part.weights, levels=np.array(network.quantiles))
    return reference.inplace_loss(targets, Z.astype(np.float64), total) / total


def error(network: fastnn.Network, Z: np.ndarray, part: Part, noise: float) -> tuple[float, float]:
    """Error of last layers Z (n, n_out), and by how much that may be wrong where Z may be, by noise."""
    if network.loss == "cross_entropy":
        wrong, ordered = Z.argmax(axis=1) != part.y, np.sort(Z, axis=1)
        doubt = ordered[:, -1] - ordered[:, -2] <= 2 * noise if Z.shape[1] > 1 else np.zeros(len(Z))
    elif network.loss == "binary_cross_entropy":
        wrong, doubt = ((Z > 0) != (part.y > 0.5)).mean(axis=1), (np.abs(Z) <= noise).mean(axis=1)
    else:
        wrong, doubt = np.abs(Z - part.y).mean(axis=1), np.full(len(Z), noise)
    return float(np.average(wrong, weights=part.weights)), float(np.average(doubt, weights=part.weights))
