"""The plan: how a fit is carried out, chosen once and with a reason for each choice.

A plan is a pure function of the layers, facts about the data, the method and the machine.  It is frozen, comparable and
printable, and has all that the engine and the kernels need: how rows are stored, which driver carries out an epoch, the
form of each layer's weight, how a batch is cut, which work is saved or postponed, and all offsets in memory.  They
derive nothing themselves, so nothing can disagree.  The constants are in `tuning`.

Drivers.  *By rows*: a batch is cut into shards, a shard into row blocks; a row block goes forward and backward while it
is in cache and adds to its shard's gradient.  *By units*: each thread takes all rows of a batch and owns slices of the
hidden units.  Neither depends on the number of threads, so neither do the bits.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.kernels.affine import panels_size
from fastnn.kernels.dense import BLOCK_BYTES
from fastnn.kernels.plan import MOST_SHARDS, MOST_SLICES
from fastnn.kernels.rows import CACHE_LINE, CSRRows
from fastnn.kernels.sparse import column_work_size

Rows = NDArray[Any] | CSRRows

#: Forms of a layer's weight in training: (n_in, n_out), as stored; (n_out, n_in); panels of each slice; (n_in, n_out)
#: for sparse rows; (n_in, units of a slice) for sparse rows, each row in whole cache lines.
FORMS = ("stored", "transposed", "panels", "sparse", "sparse slices")

#: A number of rows that no batch has.
NEVER = 1 << 62

# Updates whose steps without a gradient are linear, so that many can be taken at once.
LINEAR_UPDATES = ("sgd", "momentum", "nesterov")


class LayerFacts(NamedTuple):
    """A layer: its widths, and what follows its product.

    activation : None for the output layer
    batch_norm : whether training normalises its units over each batch
    dropout : share of its units that training drops
    """

    n_in: int
    n_out: int
    activation: str | None = None
    batch_norm: bool = False
    dropout: float = 0.0


class Data(NamedTuple):
    """Facts about the rows of a fit, as they are stored.

    dtype : of the numbers
    n_nonzeros : of sparse rows; None: they are dense
    most_nonzeros : of a batch, or of a row block of it, at most, whatever the order
    ordered : whether batches take the rows in the order in which they are stored
    repeated : whether each epoch has the same rows
    why : why they are stored so
    """

    n_rows: int
    n_columns: int
    dtype: str
    n_nonzeros: int | None = None
    most_nonzeros: int = 0
    ordered: bool = True
    repeated: bool = False
    why: str = "as given"


def facts_of(X: Rows, batch_size: int, ordered: bool = True, repeated: bool = False, why: str = "as given") -> Data:
    """Facts about rows for a plan, with batches of this size."""
    n, n_in = X.shape
    if not isinstance(X, CSRRows):
        return Data(n, n_in, X.dtype.name, None, 0, ordered, repeated, why)
    most = min(batch_size, tuning.MAX_BLOCK_ROWS, n)
    densest = np.partition(np.diff(X.indptr), n - most)[n - most :]
    return Data(n, n_in, X.dtype.name, len(X.data), int(densest.sum()), ordered, repeated, why)


class Method(NamedTuple):
    """How gradients become steps.

    update : of `kernels.updates.UPDATES`; "none" leaves the gradient to the caller
    n_slots : vectors of the optimizer's state
    plain : neither an l1 penalty nor clipping nor decay
    penalised : whether there is an l2 penalty
    alike : whether all steps have the same learning rate and penalty
    clips, max_norm : whether the norm of gradients, and of the weights into a unit, is limited
    single : whether each run of the kernels is over one batch
    """

    batch_size: int
    update: str = "none"
    n_slots: int = 0
    plain: bool = True
    penalised: bool = False
    alike: bool = False
    clips: bool = False
    max_norm: bool = False
    single: bool = False


class Machine(NamedTuple):
    """Threads that may be used, and bytes of a vector register that the kernels were compiled for; 0: none."""

    n_threads: int
    vector_bytes: int


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


class LayerPlan(NamedTuple):
    """How a layer is trained.

    form : of FORMS
    why : the reason for the form
    by_inputs : whether its slices are of inputs, not units
    weight, bias, norm : offsets of its parameters in a vector; norm is that of scale, running mean and running variance
        (n_out,)
    weight_size : numbers of the weight in its form
    keeps_slopes : whether the activation's derivative is kept for the backward pass
    output, delta, slopes, x_hat, statistics : offsets in the work space of its output, the gradient by it, the
        activation's derivative, the normalised units, their mean and variance
    shared_from : rows of a batch from which threads share its slices in the driver by rows
    """

    shape: LayerFacts
    form: str
    why: str
    by_inputs: bool
    slices: tuple[Slice, ...]
    weight: int
    weight_size: int
    bias: int
    norm: int
    keeps_slopes: bool = False
    output: int = 0
    delta: int = 0
    slopes: int = 0
    x_hat: int = 0
    statistics: int = 0
    shared_from: int = NEVER


class Reason(NamedTuple):
    """A choice in words: its subject, what was chosen, and why."""

    about: str
    choice: str
    why: str


@dataclass(frozen=True)
class Plan:
    """How a fit is carried out; see the module's docstring.

    Attributes
    ----------
    driver : {"rows", "units"}
    layers : tuple of LayerPlan
    dtype : {"float32", "float64"}
    update : str
        Of `kernels.updates.UPDATES`.
    n_parameters : int
        Length of a vector of parameters in the layers' forms.
    batch_size, block_rows : int
        Rows of a batch, and of a row block.
    shard_rows : int
        A batch of n rows has n // shard_rows shards, but at least 1 and at most MOST_SHARDS.
    fold_rows : int
        Batches of at most this many rows need no gradient: the products write the new parameters.
    touches : bool
        Whether a step moves only the rows of the first weight that its batch touches; the others follow later.
    sorting : {"none", "once", "each batch"}
        When the non-zeros of sparse rows are sorted by column.
    nonzeros : int
        Room for the sorted non-zeros of a row block, if each batch is sorted.
    steps_by_column : bool
        Whether the first weight takes its step a few inputs at a time, right after their gradient.
    gathers, fetches : bool
        Whether the driver by units copies a batch's rows together, and prefetches the next ones meanwhile.
    rows_size, hidden_size, work_size : int
        Numbers of work space: for a row block's rows, for the hidden layers' outputs, and in all for a shard.
    spare, columns, parts, squares : int
        Offsets in the work space: a second gradient, sorted non-zeros, parts of logits, squares of gradients.
    n_threads, n_slots : int
        Threads at most; vectors of the optimizer's state.
    reasons : tuple of Reason
        The choices in words.
    """

    driver: str
    layers: tuple[LayerPlan, ...]
    dtype: str
    n_parameters: int
    batch_size: int
    block_rows: int
    shard_rows: int = NEVER
    fold_rows: int = 0
    touches: bool = False
    sorting: str = "none"
    nonzeros: int = 0
    steps_by_column: bool = False
    gathers: bool = False
    fetches: bool = False
    rows_size: int = 0
    hidden_size: int = 0
    work_size: int = 0
    spare: int = 0
    columns: int = 0
    parts: int = 0
    squares: int = 0
    n_threads: int = 1
    update: str = "none"
    n_slots: int = 0
    reasons: tuple[Reason, ...] = ()

    @property
    def n_shards(self) -> int:
        """Shards of a full batch."""
        return shards_of(self.batch_size, self)

    @property
    def rearranges(self) -> bool:
        """Whether any weight has another form in training than stored."""
        return any(layer.form not in ("stored", "sparse") for layer in self.layers)

    @property
    def normalises(self) -> bool:
        """Whether units are normalised over each batch, so that it goes forward and backward as a whole."""
        return any(layer.shape.batch_norm for layer in self.layers)

    @property
    def is_team(self) -> bool:
        """Whether a team of threads works on each batch together, as one shard."""
        return self.driver == "units" or self.normalises

    @property
    def work_bytes(self) -> int:
        """Bytes of work space, gradients included."""
        gradients = self.n_shards * to_lines(self.n_parameters, _bytes(self.dtype))
        moved = (1 + self.n_slots) * self.n_parameters if self.rearranges else 0
        return (self.n_shards * self.work_size + gradients + moved) * _bytes(self.dtype)

    def fingerprint(self) -> str:
        """Digest of all that the bits depend on: neither threads nor work space."""
        chosen = [self.driver, self.dtype, self.batch_size, self.block_rows, self.shard_rows]
        chosen += [self.fold_rows, self.touches, self.sorting, self.steps_by_column]
        chosen += [(layer.shape, layer.form, layer.slices, layer.shared_from) for layer in self.layers]
        return hashlib.sha256(repr(chosen).encode()).hexdigest()[:16]

    def row_blocks(self, n_rows: int) -> list[int]:
        """First row of each row block of all batches, and the number of rows."""
        begins: list[int] = []
        for first in range(0, n_rows, self.batch_size):
            n = min(self.batch_size, n_rows - first)
            n_shards = 1 if self.is_team else shards_of(n, self)
            for i in range(n_shards):
                begins += range(first + n * i // n_shards, first + n * (i + 1) // n_shards, self.block_rows)
        return [*begins, n_rows]

    def __str__(self) -> str:
        rows = [("", "choice", "why"), *self.reasons]
        widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
        return "\n".join(f"{about:{widths[0]}}  {choice:{widths[1]}}  {why}".rstrip() for about, choice, why in rows)


def _bytes(dtype: str) -> int:
    return 4 if dtype == "float32" else 8


def shards_of(n_rows: int, plan: Plan) -> int:
    """Shards of a batch of n_rows in the driver by rows."""
    return min(MOST_SHARDS, max(1, n_rows // plan.shard_rows))


@lru_cache(maxsize=256)
def forward_plan(layers: tuple[LayerFacts, ...], dtype: str, block_rows: int, sparse: bool) -> Plan:
    """Plan of a forward pass only: layers as stored, no gradient."""
    forms = [Reason("", "sparse" if sparse else "stored", "")] + [Reason("", "stored", "")] * (len(layers) - 1)
    planned = tuple(lay_out(layers, forms, False, _bytes(dtype)))
    begin = rows_size = 0 if sparse else block_rows * layers[0].n_in
    for k, layer in enumerate(layers):
        planned = (*planned[:k], planned[k]._replace(output=begin), *planned[k + 1 :])
        begin += block_rows * layer.n_out
    return Plan(
        driver="rows",
        layers=planned,
        dtype=dtype,
        n_parameters=n_parameters_of(planned),
        batch_size=block_rows,
        block_rows=block_rows,
        rows_size=rows_size,
        work_size=to_lines(begin, 4),
    )


# --- slices and forms -----------------------------------------------------------------------------------------------


def n_slices_of(width: int) -> int:
    """Slices of a layer of width units."""
    if width >= tuning.MANY_UNITS:
        return MOST_SLICES
    return 2 if width >= 2 * tuning.SLICE_UNITS else 1


def slice_bounds(width: int) -> list[int]:
    """First unit of each slice of a layer, and the number of units."""
    n = n_slices_of(width)
    bounds = [width * s // n for s in range(n + 1)]
    if width >= tuning.ALIGNED_FROM:
        step = tuning.ALIGNED_UNITS
        bounds[:-1] = [(begin + step // 2) // step * step for begin in bounds[:-1]]
    return bounds


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
    return row + line if row > tuning.PANEL_LINES * line and row // line % 2 == 0 else row


def _slices(shape: LayerFacts, form: str, by_inputs: bool, weight: int, number_size: int) -> tuple[Slice, ...]:
    n_in, n_out = shape.n_in, shape.n_out
    bounds = slice_bounds(n_in if by_inputs else n_out)
    slices = []
    for begin, end in itertools.pairwise(bounds):
        n, place = end - begin, weight
        if form == "transposed":
            found = (weight + begin, n_in, n_out, n) if by_inputs else (weight + begin * n_in, n_in, n, n_in)
        elif form == "panels":  # the padding of a panel, or of a line, is 0 and stays so
            size = panels_size(n_in, n, number_size)
            found, weight = (place, size, 1, size), weight + size
        elif form == "sparse slices":
            row = sliced_row(n, number_size)
            found, weight = (place, row, n_in, row), weight + to_lines(n_in * row, number_size)
        else:
            found = (weight + begin * n_out, n_out, n, n_out) if by_inputs else (weight + begin, n_out, n_in, n)
        slices.append(Slice(begin, end, *found))
    return tuple(slices)


def lay_out(shapes: Sequence[LayerFacts], forms: Sequence[Reason], by_units: bool, number_size: int) -> list[LayerPlan]:
    """Give each layer's parameters, in these forms, their offsets in a vector.

    Each layer's weight and bias come first; after all of them come scale, running mean and running variance of each
    layer that has them.
    """
    layers, begin = [], 0
    for shape, (_, form, why) in zip(shapes, forms, strict=True):
        by_inputs = by_units and shape is shapes[-1]
        slices = _slices(shape, form, by_inputs, begin, number_size)
        size = shape.n_in * shape.n_out
        if form in ("panels", "sparse slices"):
            size = sum(to_lines(s.n_rows * s.stride, number_size) for s in slices)
        layers.append(LayerPlan(shape, form, why, by_inputs, slices, begin, size, begin + size, NEVER))
        begin += size + shape.n_out
    for k, shape in enumerate(shapes):
        if shape.batch_norm:
            layers[k] = layers[k]._replace(norm=begin)
            begin += 3 * shape.n_out
    return layers


def n_parameters_of(layers: Sequence[LayerPlan]) -> int:
    """Length of a vector of parameters."""
    norms = sum(3 * layer.shape.n_out for layer in layers if layer.shape.batch_norm)
    return layers[-1].bias + layers[-1].shape.n_out + norms


# --- choices --------------------------------------------------------------------------------------------------------


def forward_rows(layers: Sequence[LayerFacts], n_parameters: int) -> int:
    """Rows of a row block in a forward pass."""
    few, many = tuning.BLOCK_ROWS
    rows = max(few, int(tuning.THIN_PRODUCT // (layers[0].n_in * layers[0].n_out)))
    rows = min(many, rows, int(tuning.BLOCK_PRODUCT // n_parameters))
    return max(rows, tuning.FEWEST_BLOCK_ROWS)


def n_threads_for(layers: Sequence[LayerFacts], data: Data, machine: Machine, share: float = 1.0) -> int:
    """Threads that pay in a run over this share of the rows."""
    first, *others = layers
    numbers = data.n_rows * data.n_columns if data.n_nonzeros is None else data.n_nonzeros
    products = numbers * first.n_out + data.n_rows * (first.n_out + sum((x.n_in + 1) * x.n_out for x in others))
    products += data.n_rows * sum(3 * layer.n_out for layer in layers if layer.batch_norm)
    return 1 if share * products < tuning.SMALL_RUN else machine.n_threads


def choose_storage(
    is_sparse: bool, setting: bool | str, on_disk: bool = False, density: float | None = None
) -> tuple[bool, str]:
    """Choose whether rows are stored as sparse ones, and say why.

    Parameters
    ----------
    is_sparse : bool
        Whether they are given as sparse.
    setting : bool or "auto"
        Whether the user wants dense rows stored as sparse.
    on_disk : bool
        Whether they stay on the disk.
    density : float or None
        Share of non-zeros in a sample; needed for dense rows in memory if the setting is "auto".
    """
    if is_sparse:
        return True, "given as a sparse matrix"
    if setting != "auto":
        return bool(setting), f"sparse={setting}"
    if on_disk or density is None:
        return False, "memory-mapped: a copy may not fit into memory"
    share = f"{density:.0%} of a sample are not 0"
    if density < tuning.SPARSE_DENSITY:
        return True, f"{share}, fewer than {tuning.SPARSE_DENSITY:.0%}"
    return False, f"{share}, {tuning.SPARSE_DENSITY:.0%} or more"


def make_plan(layers: Sequence[LayerFacts], dtype: str, data: Data, method: Method, machine: Machine) -> Plan:
    """Choose how a fit is carried out.

    Parameters
    ----------
    layers : sequence of LayerFacts
    dtype : {"float32", "float64"}
        Of the parameters and of all computation.
    data : Data
    method : Method
    machine : Machine

    Returns
    -------
    Plan
    """
    choice = _Choice(layers, dtype, data, method, machine)
    return choice.plan()


class _Choice:
    """The choices of a plan; each method makes one and notes its reason."""

    def __init__(self, layers: Sequence[LayerFacts], dtype: str, data: Data, method: Method, machine: Machine) -> None:
        self.layers, self.dtype, self.data, self.machine = layers, dtype, data, machine
        self.method = method
        self.batch_size = min(method.batch_size, data.n_rows)
        self.number_size = _bytes(dtype)
        self.sparse = data.n_nonzeros is not None
        self.normalises = any(layer.batch_norm for layer in layers)
        self.n_parameters = sum((layer.n_in + 1 + 3 * layer.batch_norm) * layer.n_out for layer in layers)
        self.shards = max(1, min(MOST_SHARDS, self.batch_size // tuning.SHARD_ROWS))
        self.reasons: list[Reason] = []

    def note(self, about: str, choice: str, why: str) -> None:
        self.reasons.append(Reason(about, choice, why))

    def plan(self) -> Plan:
        stored = "sparse" if self.sparse else f"dense {self.data.dtype}"
        self.note("rows", f"{stored}, {self.data.n_rows:,} x {self.data.n_columns:,}", self.data.why)
        block_rows = self._row_block()
        touches = self._touches()
        by_units = self._by_units(touches)
        if by_units:
            block_rows = self.batch_size if self.shards == 1 else tuning.TEAM_ROWS
        one_shard = by_units or touches or self.normalises
        self._note_cut(block_rows, 1 if one_shard else self.shards)
        fold_rows = self._fold_rows(block_rows, by_units, touches)
        sorting, nonzeros = self._sorting(block_rows, touches)
        forms = self._forms(by_units)
        layers = tuple(lay_out(self.layers, forms, by_units, self.number_size))
        gathers, fetches = self._gathering(forms[0].choice, by_units)
        whole = block_rows == self.batch_size
        plan = Plan(
            layers=layers,
            driver="units" if by_units else "rows",
            dtype=self.dtype,
            n_parameters=n_parameters_of(layers),
            batch_size=self.batch_size,
            block_rows=block_rows,
            shard_rows=NEVER if one_shard else tuning.SHARD_ROWS,
            fold_rows=fold_rows,
            touches=touches,
            sorting=sorting,
            nonzeros=nonzeros,
            steps_by_column=by_units and sorting != "none" and whole and not fold_rows and not self.method.clips,
            gathers=gathers,
            fetches=fetches,
            n_threads=self._threads(),
            update=self.method.update,
            n_slots=self.method.n_slots,
        )
        place = place_by_units if by_units else place_by_rows
        plan = replace(plan, **place(layers, block_rows, self.sparse, nonzeros))
        self.note("memory", f"{plan.work_bytes / 1e6:,.2f} MB", "gradients and the work space of row blocks")
        return replace(plan, reasons=tuple(self.reasons))

    def _row_block(self) -> int:
        # Rows of a row block in the driver by rows.
        if self.normalises:
            return self.batch_size
        first = self.layers[0]
        rows = forward_rows(self.layers, self.n_parameters)
        if self._is_one_sparse_block():
            return max(rows, self.batch_size)
        many = self.batch_size > rows  # a batch of one row block needs no gradient
        if many and not self.sparse and first.n_in >= tuning.DENSE_INPUTS and first.n_out <= tuning.THIN_UNITS:
            tile = tuning.TILED_ROWS
            cached = BLOCK_BYTES // (first.n_in * self.number_size) // tile * tile
            return min(rows, max(cached, tile))
        return rows

    def _columns_each(self) -> float:
        # Columns for each non-zero of a batch.
        numbers = self.data.n_rows * self.data.n_columns
        return numbers / max(1, (self.data.n_nonzeros or 0) * self.batch_size)

    def _is_one_sparse_block(self) -> bool:
        # As one row block, a batch needs no gradient: the products write the parameters themselves, and without a
        # penalty they touch no other rows of the first weight.
        few = self.sparse and not self.normalises and self._columns_each() > 1
        return few and self.method.update == "sgd" and self.batch_size <= tuning.MAX_BLOCK_ROWS

    def _touches(self) -> bool:
        method = self.method
        direct = method.plain and not method.penalised and self._is_one_sparse_block()
        lazy = method.alike and method.plain and not method.max_norm and method.update in LINEAR_UPDATES
        if not self.sparse or self.normalises or direct or not lazy:
            return False
        return self._columns_each() > tuning.TOUCHED_SHARE

    def _by_units(self, touches: bool) -> bool:
        n_slices = max([1, *(n_slices_of(layer.n_out) for layer in self.layers[:-1])])
        small = self.shards == 1
        products = self.batch_size * self.n_parameters
        if self.normalises:
            self.note("driver", "by rows", "batch normalisation takes each batch as a whole; threads share its layers")
        elif touches:
            self.note("driver", "by rows", "one thread: a batch touches few columns")
        elif self.method.update == "none":
            self.note("driver", "by rows", "a gradient over all rows: each thread owns shards")
        elif n_slices == 1:
            self.note("driver", "by rows", f"no hidden layer has {2 * tuning.SLICE_UNITS} units to share")
        elif products < tuning.UNITS_PRODUCT:
            self.note("driver", "by rows", f"a batch is too small to share: {products:,} multiply-adds")
        elif not small and not (n_slices == MOST_SLICES and self.sparse):
            self.note("driver", "by rows", "a batch is large enough that each thread has rows of its own")
        else:
            why = (
                "a batch is too small to be cut by rows" if small else "shards' gradients would not fit into the cache"
            )
            self.note("driver", "by units", f"{why}; threads own slices of the hidden units")
            return True
        return False

    def _note_cut(self, block_rows: int, n_shards: int) -> None:
        short = self.data.n_rows % self.batch_size
        last = f"; the last batch of an epoch has {short:,} rows" if short else ""
        shards = f" in {n_shards} shards" if n_shards > 1 else ""
        blocks = f", {block_rows:,} rows at a time" if block_rows < self.batch_size // n_shards else ""
        whole = "activations stay in cache from the forward to the backward pass"
        self.note("batch", f"{self.batch_size:,} rows{shards}{blocks}", whole + last)

    def _fold_rows(self, block_rows: int, by_units: bool, touches: bool) -> int:
        method = self.method
        if method.update == "none":
            self.note("step", "none", "only the gradient is wanted")
            return 0
        if touches:
            self.note(
                "step", "of touched rows", "few columns have a gradient; other rows of the first weight follow later"
            )
            return 0
        if method.update != "sgd" or not method.plain:
            why = "the optimizer keeps a state" if method.n_slots else "l1, decay or clipping need the whole gradient"
            self.note("step", "from a gradient", why)
            return 0
        if self.normalises:
            most = NEVER
        elif by_units:
            most = block_rows if block_rows == self.batch_size else 0
        else:
            most = min(block_rows, 2 * tuning.SHARD_ROWS if self.sparse else tuning.SHARD_ROWS)
        if self.batch_size <= most:
            self.note("step", "folded", "plain steps on one block: the gradient products write the new parameters")
        else:
            self.note("step", "from a gradient", "it is summed over the blocks of a batch")
        return most

    def _sorting(self, block_rows: int, touches: bool) -> tuple[str, int]:
        if not self.sparse or touches:
            return "none", 0
        data = self.data
        assert data.n_nonzeros is not None
        here = min(block_rows, self.batch_size)
        if data.ordered and data.repeated and here <= tuning.MAX_BLOCK_ROWS:
            nonzeros = data.n_nonzeros * here / data.n_rows
            if self._pays_to_sort(nonzeros, tuning.SORTED_ONCE):
                self.note("non-zeros", "sorted once", "rows in order make the same blocks in each epoch")
                return "once", 0
        most = data.most_nonzeros
        fits = not self.normalises or self.batch_size <= tuning.MAX_BLOCK_ROWS
        each_time = tuning.SORTED_EACH_TIME
        if fits and self._pays_to_sort(data.n_nonzeros, each_time) and self._pays_to_sort(most, each_time):
            self.note(
                "non-zeros", "sorted each batch", "most columns have several: each row of weights is then read once"
            )
            return "each batch", most
        self.note("non-zeros", "as they come", "a column has too few in a row block to gain by sorting")
        return "none", 0

    def _pays_to_sort(self, nonzeros: float, limits: Sequence[tuple[int, int]]) -> bool:
        # Whether there are as many non-zeros a column, and as many bytes a row of the first weight, as in one limit.
        row_bytes = self.layers[0].n_out * self.number_size
        return any(nonzeros >= few * self.layers[0].n_in and row_bytes >= narrow for few, narrow in limits)

    def _forms(self, by_units: bool) -> list[Reason]:
        first, last = self.layers[0], self.layers[-1]
        if self.sparse and by_units:
            form, why = "sparse slices", "no two threads write to the same cache line"
        elif self.sparse:
            form, why = "sparse", "only the rows of non-zeros are read"
        elif first.n_in < tuning.DENSE_INPUTS:
            form, why = "stored", f"fewer than {tuning.DENSE_INPUTS} inputs"
        elif first.n_out >= tuning.WIDE_UNITS and self.machine.vector_bytes:
            form, why = "panels", f"{tuning.WIDE_UNITS} units or more: a number of X serves a whole panel"
        else:
            form, why = "transposed", "few units: sums run along the inputs"
        forms = [Reason("layer 1", form, why)]
        moved = form not in ("stored", "sparse")
        for k, layer in enumerate(self.layers[1:], 2):
            if layer is last and moved and layer.n_in >= tuning.LONG_OUTPUT:
                forms.append(
                    Reason(f"layer {k}", "transposed", f"{tuning.LONG_OUTPUT} inputs or more: sums along them")
                )
            else:
                forms.append(Reason(f"layer {k}", "stored", "BLAS, or tiles where the layer is wide or small"))
        self.reasons += [
            Reason(about, f"{layer.n_in} x {layer.n_out}, {form}", why)
            for (about, form, why), layer in zip(forms, self.layers, strict=True)
        ]
        return forms

    def _gathering(self, form: str, by_units: bool) -> tuple[bool, bool]:
        # Whether the driver by units copies rows together, and whether it prefetches the next batch's.
        if not by_units or self.sparse:
            return False, False
        in_place = self.data.dtype == self.dtype and (form == "transposed" or self.data.ordered)
        return not in_place, form == ("transposed" if in_place else "panels")

    def _threads(self) -> int:
        share = self.batch_size / self.data.n_rows if self.method.single else 1.0
        n_threads = n_threads_for(self.layers, self.data, self.machine, share)
        if n_threads < self.machine.n_threads:
            self.note("threads", "1", "too little work for a second thread")
        else:
            self.note("threads", str(n_threads), "all that may be used")
        return n_threads


# --- work space -----------------------------------------------------------------------------------------------------


def place_by_rows(layers: Sequence[LayerPlan], block_rows: int, sparse: bool, nonzeros: int) -> dict[str, Any]:
    """Lay out a shard's work space in the driver by rows: layers with their offsets, and the other offsets.

    Rows that must be copied; the layers' outputs; two gradients, of a layer and the one below; slopes; normalised units
    and their statistics; non-zeros by column.
    """
    placed = list(layers)
    widest = max(layer.shape.n_out for layer in layers)
    begin = rows_size = 0 if sparse else block_rows * layers[0].shape.n_in
    for k, layer in enumerate(layers):
        placed[k] = layer._replace(output=begin)
        begin += block_rows * layer.shape.n_out
    deltas = begin, begin + block_rows * widest
    begin += 2 * block_rows * widest
    for k in range(len(layers) - 1):
        # The output layer's gradient takes the place of its output; those below take turns.
        placed[k] = placed[k]._replace(delta=deltas[(len(layers) - k) % 2], keeps_slopes=wants_slopes(layers[k].shape))
        if placed[k].keeps_slopes:
            placed[k] = placed[k]._replace(slopes=begin)
            begin += block_rows * layers[k].shape.n_out
        if layers[k].shape.batch_norm:
            n_out = layers[k].shape.n_out
            placed[k] = placed[k]._replace(x_hat=begin, statistics=begin + block_rows * n_out)
            begin += (block_rows + 2) * n_out
    placed[-1] = placed[-1]._replace(delta=placed[-1].output)
    if any(layer.shape.batch_norm for layer in layers):
        # Threads share the slices of a layer if a batch is large enough that waiting for each other pays.
        for k, layer in enumerate(layers):
            products = layer.shape.n_in * layer.shape.n_out
            placed[k] = placed[k]._replace(shared_from=-(-tuning.UNITS_PRODUCT // products))
    size = begin + (column_work_size(layers[0].shape.n_in, nonzeros) if nonzeros else 0)
    return {
        "layers": tuple(placed),
        "rows_size": rows_size,
        "work_size": to_lines(size, 4),
        "spare": deltas[1],
        "columns": begin,
    }


def place_by_units(layers: Sequence[LayerPlan], block_rows: int, sparse: bool, nonzeros: int) -> dict[str, Any]:
    """Lay out the work space of the driver by units, which all threads use.

    The rows of three row blocks (one that slow threads still read, the current one, the next); outputs, gradients and
    slopes of the hidden layers, with room for each thread's units in whole cache lines; the slices' parts of the logits
    of two row blocks; two gradients of the logits for each thread; squares of the gradient.
    """
    n_in, n_classes = layers[0].shape.n_in, layers[-1].shape.n_out
    hidden = layers[:-1]
    rows_size = to_lines(MOST_SLICES * column_work_size(n_in, nonzeros), 4) if nonzeros else 0
    if not sparse:
        rows_size = to_lines(block_rows * n_in, 4)
    units = sum(layer.shape.n_out for layer in hidden)
    hidden_size = to_lines(block_rows * (units + MOST_SLICES * to_lines(1, 4)), 4)
    keeps = [wants_slopes(layer.shape) for layer in hidden]
    outputs = 3 * rows_size
    deltas, slopes = outputs + hidden_size, outputs + 2 * hidden_size
    parts = slopes + (hidden_size if any(keeps) else 0)
    placed, above = [], 0
    for layer, keeps_slopes in zip(hidden, keeps, strict=True):
        layer = layer._replace(output=outputs + above, delta=deltas + above)
        placed.append(layer._replace(slopes=slopes + above, keeps_slopes=keeps_slopes))
        above += block_rows * layer.shape.n_out
    squares = parts + 4 * MOST_SLICES * block_rows * n_classes
    return {
        "layers": (*placed, layers[-1]),
        "rows_size": rows_size,
        "hidden_size": hidden_size,
        "work_size": squares + 2 * len(layers) * MOST_SLICES,
        "parts": parts,
        "squares": squares,
    }


def wants_slopes(shape: LayerFacts) -> bool:
    """Whether the layer's output alone does not give the derivative of activation and dropout."""
    return shape.dropout > 0 or shape.activation in ("gelu", "silu")
