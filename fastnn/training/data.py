"""The data of a fit: rows and targets, whole or in chunks, checked and stored, each chunk with its engine."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._mapped import MappedRows, stay_on_disk
from fastnn._validation import check_not_empty
from fastnn.augment import motion_of
from fastnn.engine.local import Engine
from fastnn.engine.ranks import Ranks, ranks_of
from fastnn.engine.rows import Rows, as_stored, density
from fastnn.kernels.losses import Targets
from fastnn.kernels.rows import CSRRows
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.optimizers import LBFGS, Optimizer, step_table
from fastnn.plan import Method, Plan, choose_storage
from fastnn.schedules import Schedule
from fastnn.training.agreement import compare_data
from fastnn.training.settings import Settings, check_together, penalty_of, sums_over_ranks, threads_of
from fastnn.training.state import TrainState

T = TypeVar("T")

ALL_AT_ONCE = "LBFGS takes all rows at once: no chunks, and batch_size=None"


@dataclass
class Chunk:
    """Rows that are in memory at a time, mostly all, and the engine that trains on them."""

    rows: Rows
    targets: Targets
    engine: Engine
    plan: Plan
    mapped: MappedRows | None = None

    def read_ahead(self, order: NDArray[np.intp] | None) -> AbstractContextManager[Callable[[int], None]]:
        """Return a context whose value, called with the number of rows done, waits until the next are in memory."""
        return nullcontext(lambda done: None) if self.mapped is None else self.mapped.read_ahead(order)


@dataclass
class Source:
    """The data of a fit as given, before storage was chosen, for the fingerprint.

    Attributes
    ----------
    rows, targets
        To train on; None for chunks, which are not known beforehand.
    n_rows : int or None
        To train on, in all ranks.
    validation
        Rows and targets to measure on after each epoch, or None.
    storage : dict of str
        How the rows of each argument are stored.
    order : str
        How rows are shuffled.
    plan : Plan or None
        How the fit is carried out; None for chunks, which have a plan each.
    """

    rows: Rows | None = None
    targets: Targets | None = None
    n_rows: int | None = None
    validation: tuple[Rows, Targets] | None = None
    storage: dict[str, str] = field(default_factory=dict)
    order: str = "by row"
    plan: Plan | None = None


@dataclass
class Data:
    """The data of each epoch.

    Attributes
    ----------
    chunks : callable
        Returns an iterator over the chunks.
    n_rows : int
        Of all chunks, in all ranks; 0 if not known.
    validation : (Rows, Targets) or None
        To measure on after each epoch.
    source : Source
        The data as given.
    whole : Chunk or None
        The only chunk; None if the data come in chunks.
    are_pixels : bool
        Whether the rows are uint8, which is scaled: later readers of such rows from files need to know.
    """

    chunks: Callable[[], Iterator[Chunk]]
    n_rows: int
    validation: tuple[Rows, Targets] | None
    source: Source
    whole: Chunk | None = None
    are_pixels: bool = False


class Prepared:
    """Rows and targets as fits of the same data need them, each form checked or stored once, for any of them.

    It is for one X, y, sample_weight and validation.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[Any, ...], Any] = {}

    def check_data(
        self, settings: Settings, data: tuple[Any, Any, Any], names: tuple[str, str]
    ) -> tuple[Rows, Targets]:
        """Return what the network's `check_data` does of X, y and sample_weight; names are for error messages."""
        network = settings.network
        form = network.input_shape, network.columns, network.takes_sparse, network.dtype
        key = "checked", names, form, network.n_out, network.loss, network.quantiles
        may_be_empty = settings.rows == "own"
        return self._once(key, lambda: network.check_data(*data, names, threads_of(settings), may_be_empty))

    def store(self, settings: Settings, rows: Rows, X: Any, name: str) -> tuple[Rows, str]:
        """Return rows, checked from X, stored as dense or sparse, and why so."""
        network = settings.network
        form = network.input_shape, network.columns, _must_be_dense(settings), network.dtype
        key = "stored", name, form, settings.sparse
        return self._once(key, lambda: _store(settings, rows, X))

    def _once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            made: T = self._made[key]
            return made


def prepare(
    settings: Settings, data: tuple[Any, Any, Any], validation: Any, prepared: Prepared, store: bool
) -> Targets:
    """Check X, y and sample_weight and how they go with the settings, and perhaps store X; return the targets."""
    check_together(settings)
    if validation is not None:
        _read_validation(settings, validation, Source(), prepared)
    rows, targets = prepared.check_data(settings, data, ("X", "y"))
    if store:
        prepared.store(settings, rows, data[0], "X")
    return targets


def read_data(
    settings: Settings,
    state: TrainState | None,
    X: Any,
    y: ArrayLike | None,
    sample_weight: ArrayLike | None,
    validation: Any,
    prepared: Prepared | None = None,
) -> Data:
    """Return checked data, each chunk with an engine; prepares the optimizer's state in `state`; None: only plans."""
    source, prepared = Source(), prepared or Prepared()
    validation = None if validation is None else _read_validation(settings, validation, source, prepared)
    if y is None:
        if sample_weight is not None or isinstance(X, np.ndarray) or not isinstance(X, Iterable):
            raise TypeError("y is needed, unless X is an iterable of pairs (X, y)")
        if settings.rows == "own":
            raise ValueError("rows='own' takes arrays, which may be memory-mapped, and no chunks")
        return _read_chunks(settings, state, X, validation, source)
    rows, targets = prepared.check_data(settings, (X, y, sample_weight), ("X", "y"))
    compare_data(ranks_of(settings.comm), settings, (rows, targets), validation)
    n_rows = _rows_of_all(settings, len(targets.y), "X")
    check_at_once(settings, n_rows)
    if state is not None:
        state.begin(settings.optimizer, settings.network)
    stored, why = prepared.store(settings, rows, X, "X")
    chunk = _make_chunk(settings, state, stored, targets, X, why, n_rows, {})
    source.rows, source.targets, source.storage["X"] = rows, targets, _storage(chunk.rows)
    source.n_rows = n_rows
    source.plan = chunk.plan
    if chunk.mapped is not None:
        source.order = "by pieces of a mapped file"
    return Data(lambda: iter([chunk]), n_rows, validation, source, chunk, _are_pixels(settings, rows, X))


def _rows_of_all(settings: Settings, n_rows: int, name: str) -> int:
    # Rows of all ranks together.
    if settings.rows == "shared":
        return n_rows
    total = sum(ranks_of(settings.comm).all_tell("rows", n_rows))
    check_not_empty(total, f"{name} of all ranks together")
    return total


def check_at_once(settings: Settings, n_rows: int) -> None:
    """Refuse batches if the optimizer takes all rows at once."""
    if isinstance(settings.optimizer, LBFGS) and (settings.batch_size or n_rows) < n_rows:
        raise ValueError(ALL_AT_ONCE)


def _read_validation(settings: Settings, given: Any, source: Source, prepared: Prepared) -> tuple[Rows, Targets]:
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise TypeError(f"validation must be a pair (X, y), not {type(given).__name__}")
    X, y, weights = (*given, None)[:3]
    rows, targets = prepared.check_data(settings, (X, y, weights), ("validation[0]", "validation[1]"))
    _rows_of_all(settings, len(targets.y), "validation[0]")
    source.validation = rows, targets
    stored, _ = prepared.store(settings, rows, X, "validation")
    source.storage["validation"] = _storage(stored)
    return stored, targets


def _read_chunks(
    settings: Settings,
    state: TrainState | None,
    parts: Iterable[Any],
    validation: tuple[Rows, Targets] | None,
    source: Source,
) -> Data:
    if isinstance(settings.optimizer, LBFGS):
        raise ValueError(ALL_AT_ONCE)
    if state is not None:
        state.begin(settings.optimizer, settings.network)
    source.storage["X"] = f"as sparse={settings.sparse!r} takes it"
    known: dict[str, Plan] = {}

    def chunks() -> Iterator[Chunk]:
        empty = True
        for part in parts:
            empty = False
            if not isinstance(part, (tuple, list)) or len(part) not in (2, 3):
                raise TypeError(f"chunks must be pairs (X, y) or triples (X, y, sample_weight), not {type(part)}")
            X, y, weights = (*part, None)[:3]
            rows, targets = settings.network.check_data(X, y, weights, n_threads=threads_of(settings))
            data.are_pixels = _are_pixels(settings, rows, X)
            stored, why = _store(settings, rows, X)
            chunk = _make_chunk(settings, state, stored, targets, X, why, None, known)
            known[chunk.plan.fingerprint()] = chunk.plan
            yield chunk
        if empty:
            raise ValueError("X gave no chunks: it must be possible to go through it again in each epoch")

    data = Data(chunks, 0, validation, source)
    return data


def _make_chunk(
    settings: Settings,
    state: TrainState | None,
    rows: Rows,
    targets: Targets,
    X: Any,
    why: str,
    n_rows: int | None,
    known: Mapping[str, Plan],
) -> Chunk:
    # rows: checked from X, and stored so for the reason why; n_rows: of all ranks; None: later epochs train on other
    # chunks; known: plans of chunks before, with what ranks share, by fingerprint.
    targets, ranks = targets._replace(smoothing=settings.label_smoothing), ranks_of(settings.comm)
    returns, n_own = n_rows is not None, len(targets.y)
    n_rows = n_rows or n_own
    batch_size = min(settings.batch_size or n_rows, n_rows)
    n_batches = -(-n_rows // batch_size)
    if settings.rows == "own":
        batch_size = max(1, -(-n_own // n_batches))  # in proportion
    elif settings.sync_every is not None:
        batch_size = max(1, -(-(n_own // ranks.size) // n_batches))
    mapped = MappedRows(rows, batch_size) if stay_on_disk(rows, X) else None
    dropout = settings.dropout if settings.dropout.any() else None
    engine = settings.network.engine(threads_of(settings), dropout, ranks)
    ordered = settings.sync_every is None and (not settings.shuffle or batch_size == n_rows)
    motion = motion_of(settings.augment, settings.network.input_shape)
    plan = engine.plan(rows, _method(settings, batch_size), ordered, returns, motion is not None, why)
    if state is not None or ranks.size > 1:
        optimizer_state = _empty_state(settings) if state is None else state.optimizer
        engine.begin(rows, plan, optimizer_state, motion, n_batches)
    if ranks.size > 1:
        share = n_own / n_rows if settings.rows == "own" else 1 / ranks.size
        steps, before = _trial_steps(settings, n_batches), known.get(plan.fingerprint())
        plan = engine.share(targets, steps, settings.sync_every or 0, share, before)
        if before is None and state is not None:
            _warn_of(ranks, plan)
    return Chunk(rows, targets, engine, plan, mapped)


def _empty_state(settings: Settings) -> NDArray[Any]:
    optimizer, parameters = settings.optimizer, settings.network.parameters
    n_slots = optimizer.n_slots if isinstance(optimizer, Optimizer) else 0
    return np.zeros((n_slots, parameters.size), parameters.dtype)


def _trial_steps(settings: Settings, n_batches: int) -> Steps:
    # Steps that take as long as those of the fit.
    optimizer = settings.optimizer
    if isinstance(optimizer, LBFGS):
        return Steps(UPDATES["none"], np.zeros((1, 3)))
    rates = np.full(n_batches, 1e-6)
    table = step_table(optimizer, rates, 0, penalty_of(settings).l2(np.ones(n_batches)), settings.l1)
    return Steps(UPDATES[optimizer.update], table, settings.clip_norm or 0.0, settings.max_norm or 0.0)


def _warn_of(ranks: Ranks, plan: Plan) -> None:
    if plan.sharing == "alone" and ranks.rank == 0:
        why = next(reason.why for reason in plan.reasons if reason.about == "ranks")
        warnings.warn(f"{ranks.size} ranks will not make this fit faster: {why}", RuntimeWarning, stacklevel=2)


def _method(settings: Settings, batch_size: int) -> Method:
    optimizer, l2 = settings.optimizer, penalty_of(settings).constant
    own_rows = sums_over_ranks(settings)
    if isinstance(optimizer, LBFGS):
        return Method(batch_size, own_rows=own_rows)
    return Method(
        batch_size,
        optimizer.update,
        optimizer.n_slots,
        plain=settings.l1 == 0 and not settings.clip_norm and optimizer.decay == 0,
        penalised=l2 != 0,
        alike=not isinstance(optimizer.learning_rate, Schedule) and l2 is not None,
        max_norm=bool(settings.max_norm),
        own_rows=own_rows,
        sync_every=settings.sync_every or 0,
    )


def _store(settings: Settings, rows: Rows, X: Any) -> tuple[Rows, str]:
    # Returns the rows, checked from X, stored as dense or sparse, and why so.
    if settings.network.columns is not None:
        return rows, "features of a table's columns"
    on_disk, must_be_dense = stay_on_disk(rows, X), _must_be_dense(settings)
    if must_be_dense is not None and isinstance(rows, CSRRows):
        raise TypeError("X must be dense, such as X.toarray(), if its images are moved by augment")
    share, is_sparse = None, isinstance(rows, CSRRows)
    is_open = settings.sparse == "auto" and must_be_dense is None and not on_disk
    if is_open and not isinstance(rows, CSRRows) and rows.shape[0]:
        share = density(rows)
    if settings.rows == "own":
        is_sparse, on_disk, share = _of_all(ranks_of(settings.comm), rows.shape[0], is_sparse, on_disk, share)
    sparse, why = choose_storage(is_sparse, settings.sparse, on_disk, share, must_be_dense)
    return as_stored(rows, settings.network.dtype, sparse, threads_of(settings)), why


def _of_all(
    ranks: Ranks, n_rows: int, is_sparse: bool, on_disk: bool, share: float | None
) -> tuple[bool, bool, float | None]:
    # The same of the rows of all ranks, so that all store them in the same way.
    told = ranks.all_tell("storage", (n_rows, is_sparse, on_disk, share))
    known = [(n, share) for n, _, _, share in told if share is not None]
    total = sum(n for n, _ in known)
    mean = sum(n * share for n, share in known) / total if total else None
    return any(one[1] for one in told), any(one[2] for one in told), mean


def _must_be_dense(settings: Settings) -> str | None:
    if not settings.network.takes_sparse:
        return "convolution and pooling take dense rows"
    return "images that are moved are read as dense rows" if settings.augment else None


def _are_pixels(settings: Settings, rows: Rows, X: Any) -> bool:
    # Tables hold no pixels, and sparse rows have been scaled.  Where each rank has own rows, they may be those of one.
    if settings.network.columns is not None:
        return False
    found = bool((X if isinstance(rows, CSRRows) else rows).dtype == np.uint8)
    if settings.rows == "shared":
        return found
    return any(ranks_of(settings.comm).all_tell("pixels", found and rows.shape[0] > 0))


def _storage(rows: Rows) -> str:
    return "sparse" if isinstance(rows, CSRRows) else "dense"
