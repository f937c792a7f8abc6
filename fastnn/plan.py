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
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.kernels.dense import BLOCK_BYTES
from fastnn.kernels.plan import MOST_SHARDS
from fastnn.kernels.rows import UINT8_SCALE, CSRRows
from fastnn.layout import (
    NEVER,
    LayerFacts,
    LayerPlan,
    Trunk,
    lanes_of,
    lay_out,
    n_trunk_of,
    place_by_rows,
    place_by_units,
    place_trunk,
    rows_size_of,
    shares,
    slice_bounds,
    slices_of_ranks,
    split_sum,
    to_lines,
)

Rows = NDArray[Any] | CSRRows

# Forms in the table's words, where theirs would say too little.
FORM_NAMES = {"stored": "as stored", "sparse": "as stored", "panels": "in panels", "sparse slices": "in slices"}

CONSTANTS = tuple(name for name in vars(tuning) if name.isupper())

# NumPy takes as long to name a dtype as to choose a plan's driver.
NAMES = {np.dtype(name): name for name in ("uint8", "float32", "float64")}

# Reasons for a form.
ALONG = "a unit's weights lie together, for sums along the inputs"
WIDE = f"{tuning.WIDE_UNITS} units or more: an input, once loaded, serves a panel of them"

# Updates whose steps without a gradient are linear, so that many can be taken at once.
LINEAR_UPDATES = ("sgd", "momentum", "nesterov")


class Data(NamedTuple):
    """Facts about the rows of a fit, as they are stored.

    dtype : of the numbers
    n_nonzeros : of sparse rows; None: they are dense
    most_nonzeros : of a batch, or of a row block of it, at most, whatever the order
    ordered : whether batches take the rows in the order in which they are stored
    repeated : whether each epoch has the same rows
    moves : whether they are images that are moved while they are read
    why : why they are stored so
    """

    n_rows: int
    n_columns: int
    dtype: str
    n_nonzeros: int | None = None
    most_nonzeros: int = 0
    ordered: bool = True
    repeated: bool = False
    moves: bool = False
    why: str = "as given"


def facts_of(
    X: Rows,
    batch_size: int = 0,
    ordered: bool = True,
    repeated: bool = False,
    moves: bool = False,
    why: str = "as given",
) -> Data:
    """Facts about rows that are trained on in batches, or that go forward (batch_size 0)."""
    n, n_in = X.shape
    n = max(1, n)  # a rank without rows plans as for one
    if not isinstance(X, CSRRows):
        return Data(n, n_in, NAMES[X.dtype], None, 0, ordered, repeated, moves, why)
    densest, most = 0, min(batch_size, tuning.MAX_BLOCK_ROWS, X.shape[0])
    if most:
        densest = int(np.partition(np.diff(X.indptr), n - most)[n - most :].sum())
    return Data(n, n_in, NAMES[X.dtype], len(X.data), densest, ordered, repeated, False, why)


class Method(NamedTuple):
    """How gradients become steps.

    update : of `kernels.updates.UPDATES`; "none" leaves the gradient to the caller
    n_slots : vectors of the optimizer's state
    plain : neither an l1 penalty nor clipping nor decay
    penalised : whether there is an l2 penalty
    alike : whether all steps have the same learning rate and penalty
    max_norm : whether the norm of the weights into a unit is limited
    single : whether each run of the kernels is over one batch
    own_rows : whether each rank has rows of its own, and gradients are summed over the ranks
    sync_every : steps after which the ranks' parameters are averaged; 0: never
    """

    batch_size: int
    update: str = "none"
    n_slots: int = 0
    plain: bool = True
    penalised: bool = False
    alike: bool = False
    max_norm: bool = False
    single: bool = False
    own_rows: bool = False
    sync_every: int = 0


class Machine(NamedTuple):
    """Threads that may be used, and bytes of a vector register that the kernels were compiled for; 0: none."""

    n_threads: int
    vector_bytes: int


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
    n_shards, shard_rows : int
        Shards of a full batch; a short one of n rows has n // shard_rows, but at least 1 and at most n_shards.
    fold_rows : int
        Batches of at most this many rows need no gradient: the products write the new parameters.
    touches : bool
        Whether a step moves only the rows of the first weight that its batch touches; the others follow later.
    sorting : {"none", "once", "each batch"}
        When the non-zeros of sparse rows are sorted by column.
    nonzeros : int
        Room for the sorted non-zeros of a row block, if each batch is sorted.
    gathers, prefetches : bool
        Whether the driver by units copies a batch's rows together, and prefetches the next ones meanwhile.
    rows_size, work_size : int
        Numbers of work space: for a row block's rows, and in all for a shard.
    spare, columns, parts, squares : int
        Offsets in the work space: a second gradient, sorted non-zeros, parts of logits, squares of gradients.
    trunk : Trunk or None
        The space of the layers on images.
    sharing : {"alone", "shards", "units", "rows", "averages"}
        What ranks share: nothing, so that each does all of the work; the shards of a batch; slices of units; the
        gradients of rows of their own; or averages of parameters.
    shared_seconds : float
        What a step is expected to take if ranks share it; 0 if they need not be asked.
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
    n_shards: int = 1
    shard_rows: int = NEVER
    fold_rows: int = 0
    touches: bool = False
    sorting: str = "none"
    nonzeros: int = 0
    gathers: bool = False
    prefetches: bool = False
    rows_size: int = 0
    work_size: int = 0
    spare: int = 0
    columns: int = 0
    parts: int = 0
    squares: int = 0
    trunk: Trunk | None = None
    sharing: str = "alone"
    shared_seconds: float = 0.0
    n_threads: int = 1
    update: str = "none"
    n_slots: int = 0
    reasons: tuple[Reason, ...] = ()

    @cached_property
    def most_slices(self) -> int:
        """Room for the slices of a layer, where each has a number of its own."""
        return max(tuning.FEW_SLICES, *(len(layer.slices) for layer in self.layers))

    @cached_property
    def rearranges(self) -> bool:
        """Whether any weight has another form in training than stored."""
        return any(layer.form not in ("stored", "sparse") for layer in self.layers)

    @cached_property
    def normalises(self) -> bool:
        """Whether units are normalised over each batch, so that it goes forward and backward as a whole."""
        return any(layer.facts.batch_norm for layer in self.layers)

    @property
    def work_bytes(self) -> int:
        """Bytes of work space, gradients included."""
        gradients = self.n_shards * to_lines(self.n_parameters, _bytes(self.dtype))
        moved = (1 + self.n_slots) * self.n_parameters if self.rearranges else 0
        return (self.n_work * self.work_size + gradients + moved) * _bytes(self.dtype)

    @property
    def n_work(self) -> int:
        """Work spaces: one for each thread that takes shards, which those of images go through one by one."""
        return 1 if self.trunk is not None else min(self.n_shards, self.n_threads)

    def fingerprint(self) -> str:
        """Digest of all that the bits depend on: neither threads nor work space."""
        chosen = [self.driver, self.dtype, self.batch_size, self.block_rows, self.n_shards]
        chosen += [self.shard_rows, self.fold_rows, self.touches, self.sorting]
        for layer in self.layers:
            chosen.append((layer.facts, layer.form, layer.slices, layer.shared_from, layer.band, layer.groups))
        chosen += [self.trunk and self.trunk.n_parts]
        return hashlib.sha256(repr(chosen).encode()).hexdigest()[:16]

    def shards_of(self, n_rows: int) -> int:
        """Shards of a batch of n_rows in the driver by rows."""
        return min(self.n_shards, max(1, n_rows // self.shard_rows))

    def shard_bounds(self, n_rows: int) -> list[int]:
        """First row of each shard of a batch of n_rows, and n_rows; images are cut in whole groups."""
        lanes = 1 if self.trunk is None else self.trunk.lanes
        n_shards, n_groups = self.shards_of(n_rows), -(-n_rows // lanes)
        return [min(n_rows, lanes * (n_groups * i // n_shards)) for i in range(n_shards + 1)]

    def row_blocks(self, n_rows: int) -> list[int]:
        """First row of each row block of all batches, and the number of rows."""
        begins: list[int] = []
        for first in range(0, n_rows, self.batch_size):
            n = min(self.batch_size, n_rows - first)
            bounds = [0, n] if n <= self.fold_rows else self.shard_bounds(n)
            for begin, end in pairwise(bounds):
                begins += range(first + begin, first + end, self.block_rows)
        return [*begins, n_rows]

    def __str__(self) -> str:
        what = "outputs, gradients and rearranged parameters" if self.rearranges else "outputs and gradients"
        memory = Reason("memory", f"{self.work_bytes / 1e6:,.2f} MB", f"for {what}; the rows not counted")
        rows = [("what", "choice", "why"), *self.reasons, memory]
        widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
        return "\n".join(f"{about:{widths[0]}}  {choice:{widths[1]}}  {why}".rstrip() for about, choice, why in rows)


def _bytes(dtype: str) -> int:
    return 4 if dtype == "float32" else 8


@lru_cache(maxsize=256)
def forward_plan(layers: tuple[LayerFacts, ...], dtype: str, block_rows: int, sparse: bool) -> Plan:
    """Plan of a forward pass only: layers as stored, no gradient."""
    forms = ("sparse" if sparse else "stored", *["stored"] * (len(layers) - 1))
    layers_planned, n_parameters = lay_out(layers, forms, False, _bytes(dtype))
    planned, n_trunk = list(layers_planned), n_trunk_of(layers)
    begin = rows_size = rows_size_of(layers[n_trunk], block_rows, sparse)
    for k, layer in enumerate(layers[n_trunk:], n_trunk):
        planned[k] = planned[k]._replace(output=begin)
        begin += block_rows * layer.n_out
    trunk = None
    if n_trunk:
        planned[:n_trunk], trunk = place_trunk(planned, block_rows, _bytes(dtype), begin, trains=False)
        begin = trunk.end
    return Plan(
        driver="rows",
        layers=tuple(planned),
        dtype=dtype,
        n_parameters=n_parameters,
        batch_size=block_rows,
        block_rows=block_rows,
        rows_size=rows_size,
        work_size=to_lines(begin, 4),
        trunk=trunk,
    )


def forward_rows(layers: tuple[LayerFacts, ...]) -> int:
    """Rows of a row block in a forward pass."""
    few, many = tuning.BLOCK_ROWS
    rows = max(few, int(tuning.THIN_PRODUCT // (layers[0].n_in * layers[0].n_out)))
    rows = min(many, rows, int(tuning.BLOCK_PRODUCT // n_multiplied_of(layers)))
    return max(rows, tuning.FEWEST_BLOCK_ROWS)


def forward_images(layers: Sequence[LayerFacts], dtype: str, n_rows: int) -> int:
    """Rows of a row block in a forward pass, if the first layers are on images: whole groups, or one image."""
    if n_rows <= few_images(dtype):
        return 1
    lanes, products = lanes_of(_bytes(dtype)), tuning.FEW_SHARDS * sum(layer.products for layer in layers)
    most = min(tuning.FORWARD_IMAGES, int(tuning.IMAGE_PRODUCT // products)) // lanes
    return lanes * max(1, min(most, -(-n_rows // (lanes * tuning.FEW_SHARDS))))


def image_rows(layers: Sequence[LayerFacts], dtype: str, batch_size: int) -> int:
    """Rows of a row block in training, if the first layers are on images: whole groups."""
    lanes = lanes_of(_bytes(dtype))
    kept = layers[0].n_in + sum(layer.n_out * (1 + layer.wants_slopes) for layer in layers)
    rows = min(tuning.IMAGE_ROWS, tuning.IMAGE_PRODUCT // sum(layer.products for layer in layers))
    rows = min(rows, tuning.IMAGE_BYTES // (kept * _bytes(dtype)))
    return int(min(max(1, rows // lanes), -(-batch_size // lanes)) * lanes)


class ForwardPlan(NamedTuple):
    """How rows go forward without training.

    plan : of a row block
    n_parts : parts of the rows, each with its own work space
    unit_rows : rows whose losses are summed together: some row blocks, whatever the threads
    run_rows : rows of one call of the kernels: some units
    n_threads : at most
    """

    plan: Plan
    n_parts: int
    unit_rows: int
    run_rows: int
    n_threads: int


def plan_forward(layers: tuple[LayerFacts, ...], dtype: str, data: Data, machine: Machine) -> ForwardPlan:
    """Choose how rows go forward without training; see `make_plan`."""
    size = n_multiplied_of(layers)
    if n_trunk_of(layers):
        block_rows = forward_images(layers, dtype, data.n_rows)
    else:
        block_rows = max(1, min(forward_rows(layers), data.n_rows))
    n_parts = min(max(tuning.FEW_SHARDS, machine.n_threads), max(1, -(-data.n_rows // block_rows)))
    unit_rows = tuning.FEW_SHARDS * block_rows
    products = unit_rows * max(size, sum(layer.products for layer in layers))
    run_rows = unit_rows * max(-(-n_parts // tuning.FEW_SHARDS), int(tuning.FORWARD_PRODUCT // products))
    plan = forward_plan(layers, dtype, block_rows, data.n_nonzeros is not None)
    return ForwardPlan(plan, n_parts, unit_rows, run_rows, n_threads_for(layers, data, machine))


def few_images(dtype: str) -> int:
    """Images, at most, that go forward one by one, with filters in the lanes instead."""
    return lanes_of(_bytes(dtype)) // tuning.FEW_IMAGES


def most_few_rows(layers: tuple[LayerFacts, ...], dtype: str) -> int:
    """Rows, at most, for which one call of `kernels.predict` does everything, on one thread; 0: none.

    Batch normalisation goes the ordinary way, which folds it into the weights.
    """
    if any(layer.batch_norm for layer in layers):
        return 0
    if n_trunk_of(layers):
        return min(few_images(dtype), int(tuning.FORWARD_PRODUCT // sum(layer.products for layer in layers)))
    return int(min(tuning.MOST_FEW_ROWS, tuning.SMALL_RUN // n_multiplied_of(layers)))


@lru_cache(maxsize=256)
def n_parameters_of(layers: tuple[LayerFacts, ...]) -> int:
    """Length of the vector of parameters."""
    return sum(slot.size for layer in layers for slot in layer.slots)


def n_multiplied_of(layers: tuple[LayerFacts, ...]) -> int:
    """Parameters that each row is multiplied with: of embeddings it only copies some."""
    return n_parameters_of(layers) - layers[0].embeddings_size


def products_of(layers: tuple[LayerFacts, ...], data: Data) -> int:
    """Multiply-adds of a forward pass over all rows."""
    if layers[0].maps is not None:
        return data.n_rows * sum(layer.products for layer in layers)
    numbers = data.n_rows * data.n_columns if data.n_nonzeros is None else data.n_nonzeros
    first = layers[0]
    n_sparse = first.n_in - first.n_embedded
    return numbers * first.n_out + data.n_rows * (n_multiplied_of(layers) - n_sparse * first.n_out)


def n_threads_for(
    layers: tuple[LayerFacts, ...], data: Data, machine: Machine, share: float = 1.0, loss_product: int = 0
) -> int:
    """Threads that pay in a run over this share of the rows; an output's loss takes as long as loss_product says."""
    products = products_of(layers, data) + data.n_rows * layers[-1].n_out * loss_product
    return 1 if share * products < tuning.SMALL_RUN else machine.n_threads


def choose_storage(
    is_sparse: bool,
    setting: bool | str,
    on_disk: bool = False,
    density: float | None = None,
    must_be_dense: str | None = None,
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
    must_be_dense : str or None
        Why they must be dense; None: they may be sparse.
    """
    if must_be_dense is not None:
        return False, must_be_dense
    if is_sparse:
        return True, "given as a sparse matrix"
    if setting != "auto":
        return bool(setting), f"the setting sparse={setting}"
    if on_disk or density is None:
        return False, "memory-mapped: a sparse copy might not fit into memory"
    share = f"{density:.0%} of the numbers in a sample are not 0"
    if density < tuning.SPARSE_DENSITY:
        return True, f"only {share}: work on the others is saved"
    return False, f"{share}: sparse storage pays below {tuning.SPARSE_DENSITY:.0%}"


def make_plan(layers: tuple[LayerFacts, ...], dtype: str, data: Data, method: Method, machine: Machine) -> Plan:
    """Choose how a fit is carried out.

    Parameters
    ----------
    layers : tuple of LayerFacts
    dtype : {"float32", "float64"}
        Of the parameters and of all computation.
    data : Data
    method : Method
    machine : Machine

    Returns
    -------
    Plan
    """
    return _make_plan(layers, dtype, data, method, machine, tuple(map(vars(tuning).get, CONSTANTS)))


@lru_cache(maxsize=256)
def _make_plan(
    layers: tuple[LayerFacts, ...], dtype: str, data: Data, method: Method, machine: Machine, constants: tuple[Any, ...]
) -> Plan:
    # Small fits are often repeated, as in cross-validation or on batch after batch.  The constants are those of
    # `tuning`, which tests change.
    return _Choice(layers, dtype, data, method, machine).plan()


class _Choice:
    """The choices of a plan; each method makes one and notes its reason."""

    def __init__(
        self, layers: tuple[LayerFacts, ...], dtype: str, data: Data, method: Method, machine: Machine
    ) -> None:
        self.layers, self.dtype, self.data, self.machine = layers, dtype, data, machine
        self.method = method
        self.batch_size = min(method.batch_size, data.n_rows)
        self.number_size = _bytes(dtype)
        self.sparse = data.n_nonzeros is not None
        self.normalises = any(layer.batch_norm for layer in layers)
        self.n_trunk = n_trunk_of(layers)
        self.embeds = bool(layers[0].embeddings)
        self.n_parameters = n_parameters_of(layers)
        self.shard_rows = self._shard_rows()
        self.lacks_room = False  # for more shards
        self.shards = self._shards()
        self.reasons: list[Reason] = []

    def note(self, about: str, choice: str, why: str) -> None:
        self.reasons.append(Reason(about, choice, why))

    def _shard_rows(self) -> int:
        # Rows of a shard, at least.
        if not self.n_trunk:
            return tuning.SHARD_ROWS
        products = max(tuning.IMAGE_SHARD_PRODUCT, tuning.IMAGE_SHARD_PRODUCTS * self.n_parameters)
        return max(tuning.SHARD_IMAGES, int(-(-products // sum(layer.products for layer in self.layers))))

    def _shards(self) -> int:
        # Shards of a batch in the driver by rows.
        n = self.batch_size // self.shard_rows
        room = tuning.GRADIENTS_BYTES // (self.number_size * self.n_parameters)
        if self.n_trunk:
            most = min(n, tuning.FEW_SHARDS)
            n = 1 << max(0, min(most, room).bit_length() - 1)  # a power of two: ranks share them evenly
            self.lacks_room = 2 * n <= most
            return n
        if n < tuning.FEW_SHARDS:
            return max(1, n)
        n = tuning.FEW_SHARDS
        products = products_of(self.layers, self.data) * self.batch_size // self.data.n_rows
        most = min(MOST_SHARDS, products // (tuning.SHARD_PRODUCTS * self.n_parameters))
        while 2 * n <= min(most, room):
            n *= 2
        self.lacks_room = room < 2 * n <= most
        return n

    def plan(self) -> Plan:
        self._note_rows()
        block_rows = self._row_block()
        touches = self._touches()
        by_units = self._by_units(touches)
        if by_units:
            block_rows = self.batch_size if self.shards == 1 else tuning.TEAM_ROWS
        one_shard = by_units or touches or self.normalises
        n_shards = 1 if one_shard else self.shards
        self._note_cut(block_rows, n_shards)
        fold_rows = self._fold_rows(block_rows, by_units, touches)
        sorting, nonzeros = self._sorting(block_rows, touches)
        forms = self._forms(by_units)
        layers, n_parameters = lay_out(self.layers, tuple(forms), by_units, self.number_size)
        gathers, prefetches = self._gathering(forms[0], by_units)
        n_threads = self._threads(by_units, n_shards)
        place = place_by_units if by_units else place_by_rows
        return Plan(
            driver="units" if by_units else "rows",
            dtype=self.dtype,
            n_parameters=n_parameters,
            batch_size=self.batch_size,
            block_rows=block_rows,
            n_shards=n_shards,
            shard_rows=self.shard_rows,
            fold_rows=fold_rows,
            touches=touches,
            sorting=sorting,
            nonzeros=nonzeros,
            gathers=gathers,
            prefetches=prefetches,
            n_threads=n_threads,
            update=self.method.update,
            n_slots=self.method.n_slots,
            reasons=tuple(self.reasons),
            **place(layers, block_rows, self.sparse, nonzeros, n_threads, self.number_size),
        )

    def _note_rows(self) -> None:
        data = self.data
        stored = f"{data.n_rows:,} x {data.n_columns:,}, {'sparse' if self.sparse else 'dense'} {data.dtype}"
        scaled = f"; pixels, each times 1/{round(1 / UINT8_SCALE)}" if data.dtype == "uint8" else ""
        converted = f"; converted to {self.dtype} when needed" if data.dtype != self.dtype else ""
        moved = "; each image is moved while it is read" if data.moves else ""
        self.note("rows", stored, data.why + scaled + converted + moved)

    def _row_block(self) -> int:
        # Rows of a row block in the driver by rows.
        if self.normalises:
            return self.batch_size
        if self.n_trunk:
            return image_rows(self.layers, self.dtype, self.batch_size)
        first = self.layers[0]
        rows = forward_rows(self.layers)
        if self._is_one_sparse_block():
            return max(rows, self.batch_size)
        many = self.batch_size > rows  # a batch of one block is stepped on without a gradient
        if many and not self.sparse and first.n_in >= tuning.DENSE_INPUTS and first.n_out <= tuning.THIN_UNITS:
            cached = BLOCK_BYTES // (first.n_in * self.number_size)
            return min(rows, max(cached, tuning.FEWEST_BLOCK_ROWS))
        return rows

    def _columns_each(self) -> float:
        # Columns for each non-zero of a batch.
        numbers = self.data.n_rows * self.data.n_columns
        return numbers / max(1, (self.data.n_nonzeros or 0) * self.batch_size)

    def _is_one_sparse_block(self) -> bool:
        # As one row block, a batch needs no gradient: the products write the parameters themselves, and without a
        # penalty they touch no other rows of the first weight.
        few = self.sparse and not self.normalises and not self.embeds and self._columns_each() > 1
        return few and self.method.update == "sgd" and self.batch_size <= tuning.MAX_BLOCK_ROWS

    def _touches(self) -> bool:
        method = self.method
        direct = method.plain and not method.penalised and self._is_one_sparse_block()
        lazy = method.alike and method.plain and not method.max_norm and method.update in LINEAR_UPDATES
        if not self.sparse or self.normalises or self.embeds:
            return False
        if direct or not lazy or method.own_rows or method.sync_every:
            return False
        return self._columns_each() > tuning.TOUCHED_SHARE

    def _most_slices(self) -> int:
        # Threads that can share a hidden layer behind the trunk.
        hidden = self.layers[self.n_trunk : -1]
        return max([1, *(len(slice_bounds(layer.n_out, self.number_size)) - 1 for layer in hidden)])

    def _by_units(self, touches: bool) -> bool:
        n_slices, widest = self._most_slices(), max([0, *(layer.n_out for layer in self.layers[:-1])])
        small = self.shards == 1
        products = self.batch_size * self.n_parameters
        narrow = f"hidden layers of fewer than {2 * tuning.SLICE_UNITS} units are too small for threads to share"
        none = "without hidden layers, threads have no units to share"
        why = None
        if self.normalises:
            why = "batch normalisation needs whole batches; within one, threads share the products of each layer"
        elif self.n_trunk:
            why = "threads share the images of a batch, and the units of the layers after them"
        elif self.embeds:
            why = "each thread gathers the embeddings of rows of its own"
        elif touches:
            why = "few columns of a batch are not 0: too little work to share"
        elif self.method.own_rows:
            why = "each rank has rows of its own"
        elif self.method.update == "none" and not self.method.single:
            why = "only a gradient is wanted: each thread sums it over rows of its own"
        elif n_slices == 1:
            why = narrow if self.layers[1:] else none
        elif len(self.layers) > 2 and not self.machine.vector_bytes:
            why = "without vector instructions, several hidden layers have no form that threads can share"
        elif products < tuning.UNITS_PRODUCT:
            why = f"a batch is only {products:,} multiply-adds: threads would wait for each other longer"
        elif not small and not (widest >= tuning.MANY_UNITS and self.sparse):
            why = "a batch is large: each thread takes rows of its own"
        if why is not None:
            self.note("driver", "by rows", why)
            return False
        few = f"a batch has fewer than {tuning.MAX_BLOCK_ROWS} rows"
        large = "a gradient for each thread would not fit into the cache"
        self.note("driver", "by units", f"{few if small else large}: threads share the hidden units instead")
        return True

    def _note_cut(self, block_rows: int, n_shards: int) -> None:
        short = self.data.n_rows % self.batch_size
        last = f"; the last of an epoch has {short:,}" if short else ""
        shards = f" in {n_shards} shards" if n_shards > 1 else ""
        in_blocks = block_rows < self.batch_size // n_shards
        blocks = f", {block_rows:,} at a time" if in_blocks else ""
        sharers = "ranks" if self.n_trunk else "threads"
        whys = [f"each shard has a gradient of its own, so that {sharers} can share them"] if n_shards > 1 else []
        if n_shards > 1 and self.lacks_room:
            whys.append(f"twice as many would take more than {tuning.GRADIENTS_BYTES / 1e6:,.0f} MB")
        whys += [f"activations of {block_rows:,} rows stay in the cache"] if in_blocks else []
        why = "; ".join(whys) or "they go forward and backward together"
        rows = "1 row" if self.batch_size == 1 else f"{self.batch_size:,} rows"
        self.note("batch", f"{rows}{shards}{blocks}", why + last)

    def _fold_rows(self, block_rows: int, by_units: bool, touches: bool) -> int:
        method = self.method
        if method.update == "none":
            self.note("step", "none", "only the gradient is computed: the caller, such as L-BFGS, makes the step")
            return 0
        if touches:
            why = "weights of inputs that are 0 in a whole batch catch up when they are next needed"
            self.note("step", "only of weights in use", why)
            return 0
        if method.own_rows:
            self.note("step", "from a gradient", "it is summed over the ranks")
            return 0
        if self.embeds:
            self.note("step", "from a gradient", "that of an embedding is the sum over the rows that have its category")
            return 0
        if method.update != "sgd" or not method.plain:
            state, other = "the optimizer keeps a state, such as momentum", "for an l1 penalty, decay or clipping"
            self.note("step", "from a gradient", state if method.n_slots else other)
            return 0
        if self.normalises:
            most = NEVER
        elif self.n_trunk:
            most = block_rows if self.shards == 1 else 0
        elif by_units:
            most = block_rows if block_rows == self.batch_size else 0
        else:
            most = min(block_rows, tuning.MAX_BLOCK_ROWS if self.sparse else tuning.SHARD_ROWS)
        if self.batch_size <= most:
            why = "plain SGD: the products for the gradient change the weights at once"
            why += ", but those of convolutions are summed first" if self.n_trunk else ""
            self.note("step", "without a gradient", why)
        else:
            self.note("step", "from a gradient", "it is summed over the parts of a batch")
        return most

    def _sorting(self, block_rows: int, touches: bool) -> tuple[str, int]:
        if not self.sparse or touches:
            return "none", 0
        data = self.data
        assert data.n_nonzeros is not None
        stored = f"{data.n_nonzeros:,}"
        here = min(block_rows, self.batch_size)
        returns = data.ordered and data.repeated and here <= tuning.MAX_BLOCK_ROWS
        if returns and self._pays_to_sort(data.n_nonzeros * here / data.n_rows, tuning.SORTED_ONCE):
            self.note("non-zeros", f"{stored}, sorted by column once", "each epoch takes the rows in the same order")
            return "once", 0
        most = min(data.most_nonzeros, data.n_nonzeros)
        fits = not self.normalises or self.batch_size <= tuning.MAX_BLOCK_ROWS
        if fits and most and self._pays_to_sort(most, tuning.SORTED_EACH_TIME):
            why = "most columns have several in a batch: their weights are then read once for all"
            self.note("non-zeros", f"{stored}, sorted by column in each batch", why)
            return "each batch", most
        self.note("non-zeros", f"{stored}, row by row", "too few in a column, or too few units, for sorting to pay")
        return "none", 0

    def _pays_to_sort(self, nonzeros: float, limits: Sequence[tuple[int, int]]) -> bool:
        # Whether there are as many non-zeros a column, and as many bytes a row of the first weight, as in one limit.
        row_bytes = self.layers[0].n_out * self.number_size
        pays = any(nonzeros >= few * self.data.n_columns and row_bytes >= narrow for few, narrow in limits)
        return pays and nonzeros > 0  # there are no columns either if all have embeddings

    def _forms(self, by_units: bool) -> list[str]:
        forms: list[str] = []
        for k, layer in enumerate(self.layers):
            if layer.maps is not None:
                form, why = "stored", self._on_images(layer)
            else:
                form, why = self._later_form(layer, by_units, forms) if k else self._first_form(by_units)
            size = f"{layer.n_in:,} x {layer.n_out:,}, {FORM_NAMES.get(form, form)}"
            self.note(f"layer {k + 1}", size if layer.maps is None else layer.maps.text, why)
            forms.append(form)
        return forms

    def _on_images(self, layer: LayerFacts) -> str:
        lanes = lanes_of(self.number_size)
        assert layer.maps is not None
        before = layer.maps.convolution and layer.maps.pooling and not layer.batch_norm
        pooled = "; pooled at once, before the activation" if before else ""
        return f"{lanes} images at a time, one in each lane of the vector registers{pooled}"

    def _first_form(self, by_units: bool) -> tuple[str, str]:
        first, vectors = self.layers[0], self.machine.vector_bytes > 0
        if self.sparse and by_units:
            return "sparse slices", "the weights of each thread's units lie together, in cache lines of their own"
        if self.sparse:
            embedded = f"; the last {first.n_embedded:,} are those of {len(first.embeddings):,} embeddings"
            return "sparse", "only the weights of inputs that are not 0 are read" + embedded * self.embeds
        if first.n_out >= tuning.WIDE_UNITS and vectors:
            return "panels", WIDE
        if first.n_in < tuning.DENSE_INPUTS:
            return "stored", f"fewer than {tuning.DENSE_INPUTS} inputs: another order would gain nothing"
        few = f"fewer than {tuning.WIDE_UNITS} units"
        return "transposed", f"{few if vectors else 'no vector instructions'}: {ALONG}"

    def _later_form(self, layer: LayerFacts, by_units: bool, before: list[str]) -> tuple[str, str]:
        # The forms before it are given.
        vectors = self.machine.vector_bytes > 0
        if layer is self.layers[-1]:
            # Another form would copy all weights; those of sparse inputs may be many.
            thin = layer.n_in >= tuning.LONG_OUTPUT and layer.n_out <= tuning.THIN_OUTPUT
            if thin and before[0] != "sparse":
                return "transposed", f"{tuning.LONG_OUTPUT} inputs or more, few outputs: {ALONG}"
        elif vectors and layer.n_out >= tuning.WIDE_UNITS:
            return "panels", WIDE
        elif by_units:
            return "panels", "the weights of each thread's units lie together"
        return "stored", "products by BLAS, or by kernels of fastnn where these are faster"

    def _gathering(self, form: str, by_units: bool) -> tuple[bool, bool]:
        # Whether the driver by units copies rows together, and whether it prefetches the next batch's.
        if not by_units or self.sparse:
            return False, False
        as_stored = self.data.dtype == self.dtype and not self.data.moves
        in_place = as_stored and (form == "transposed" or self.data.ordered)
        return not in_place, form == ("transposed" if in_place else "panels")

    def _threads(self, by_units: bool, n_shards: int) -> int:
        share = self.batch_size / self.data.n_rows if self.method.single else 1.0
        n_threads = n_threads_for(self.layers, self.data, self.machine, share, tuning.LOSS_PRODUCT)
        parts = self._most_slices() if by_units or self.normalises or self.n_trunk else n_shards
        if self.n_trunk:
            rows = image_rows(self.layers, self.dtype, self.batch_size)
            parts = max(parts, -(-rows // lanes_of(self.number_size)))
        choice = str(n_threads)
        if self.machine.n_threads == 1:
            why = "no more may be used"
        elif n_threads < self.machine.n_threads:
            why = f"an epoch is less than {tuning.SMALL_RUN:,.0f} multiply-adds: another could not begin in time"
        elif parts < n_threads:
            choice = f"{parts} of {n_threads}"
            why = f"more cannot share a batch{'' if by_units else '; they help only in a step that moves many weights'}"
        else:
            why = "all that may be used"
        self.note("threads", choice, why)
        return n_threads


class Link(NamedTuple):
    """How fast ranks exchange: seconds of a small exchange of all ranks, and bytes a second that each receives."""

    latency: float
    bandwidth: float

    def seconds(self, n_exchanges: int, n_bytes: float) -> float:
        """Return what exchanges in which each rank receives so many bytes in all will take."""
        return n_exchanges * self.latency + n_bytes / self.bandwidth


def share_out(plan: Plan, n_ranks: int, method: Method) -> Plan:
    """Choose what ranks may share in a plan: it does not change the bits, unless each rank has rows of its own."""
    if method.sync_every:
        sharing, why = "averages", f"each trains alone; after every {method.sync_every:,} steps they are averaged"
    elif method.own_rows:
        sharing, why = "rows", "each has rows of its own; gradients are summed over the ranks"
    elif plan.driver == "units" and all(layer.groups > 1 for layer in plan.layers[1:-1]):
        sharing, what = "units", "" if len(plan.layers) == 2 else ", hidden layers' outputs and their gradients"
        why = f"each owns slices of the hidden units; the parts of the logits{what} are exchanged"
    elif plan.driver == "rows" and plan.n_shards > 1:
        sharing, why = "shards", f"each owns some of the {plan.n_shards} shards of a batch; gradients are summed"
    else:
        sharing, why = "alone", "a batch has no parts that ranks can share: each does all of the work"
    return _with_ranks(plan, sharing, Reason("ranks", f"{n_ranks}, {sharing}", why))


def settle_sharing(plan: Plan, n_ranks: int, link: Link, alone: float) -> Plan:
    """Choose whether ranks share a plan's work, by what a step is expected to take.

    Parameters
    ----------
    plan : Plan
        Of `share_out`.
    n_ranks : int
    link : Link
    alone : float
        Seconds of a step on one rank, measured; of the rank's own rows, if it has such.
    """
    n_exchanges, n_bytes = traffic(plan, n_ranks)
    seconds = link.seconds(n_exchanges, n_bytes)
    network = f"exchanges take {link.latency * 1e6:,.1f} us and bring {link.bandwidth / 1e9:,.2f} GB/s"
    if plan.sharing == "rows":
        about = f"a step takes {_time(alone)} for own rows, and {_time(seconds)} for {_size(n_bytes)} exchanged"
        return _with_ranks(plan, "rows", Reason("ranks", f"{n_ranks}, rows", f"{about}: {network}"))
    shared = alone * largest_share(plan, n_ranks) + seconds
    about = f"a step takes {_time(alone)} alone, and about {_time(shared)} shared, with {_size(n_bytes)} exchanged"
    sharing = plan.sharing if shared < alone else "alone"
    why = next(reason.why for reason in plan.reasons if reason.about == "ranks")
    if sharing == "alone":
        why = f"sharing its {plan.sharing} would take longer: each does all of the work"
    return _with_ranks(plan, sharing, Reason("ranks", f"{n_ranks}, {sharing}", f"{why}; {about}: {network}"), shared)


def _with_ranks(plan: Plan, sharing: str, reason: Reason, seconds: float = 0.0) -> Plan:
    others = (other for other in plan.reasons if other.about != "ranks")
    return replace(plan, sharing=sharing, reasons=(*others, reason), shared_seconds=seconds)


def traffic(plan: Plan, n_ranks: int) -> tuple[int, float]:
    """Return the exchanges of a step, and the bytes that each rank receives in them."""
    share, size = (n_ranks - 1) / n_ranks, _bytes(plan.dtype)
    if plan.sharing in ("shards", "rows"):
        # Partial sums of all other ranks, each of the rank's slice, and their slices of the parameters.
        n_sums = n_ranks if plan.sharing == "rows" else sum(map(len, split_sum(shares(plan.n_shards, n_ranks))[0]))
        return 2, share * size * plan.n_parameters * (n_sums / n_ranks + 1)
    if plan.sharing == "units":
        hidden = sum(layer.cut[2] * len(layer.slices) for layer in plan.layers[:-2])
        logits = plan.block_rows * plan.layers[-1].facts.n_out * len(plan.layers[-1].slices)
        groups = max(1.0, tuning.FEW_SLICES / n_ranks)
        n_blocks = -(-plan.batch_size // plan.block_rows)
        return n_blocks * (2 * len(plan.layers) - 3), n_blocks * share * size * (logits + (1 + groups) * hidden)
    return 0, 0.0


def largest_share(plan: Plan, n_ranks: int) -> float:
    """Return the largest share of a step's work that a rank has."""
    if plan.sharing == "shards":
        return -(-plan.n_shards // n_ranks) / plan.n_shards
    most, total = 0, 0
    for layer in plan.layers:
        bounds = slices_of_ranks(layer, n_ranks)
        sizes = [sum(own.n_rows * own.n_columns for own in layer.slices[i:j]) for i, j in itertools.pairwise(bounds)]
        most, total = most + max(sizes), total + sum(sizes)
    return most / total


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:,.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:,.3g} us"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:,.3g} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:,.3g} KB"
