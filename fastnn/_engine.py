"""The engine as Python sees it: it owns the work space and hands runs of rows to the compiled kernels.

Everything above (network, trainer, front doors) trains and predicts through the calls here.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.kernels import blas, dense, epoch, layouts, sparse, touched
from fastnn.kernels import rows as kernel_rows
from fastnn.kernels.epoch import Architecture, Space
from fastnn.kernels.losses import Targets
from fastnn.kernels.rows import CSRRows
from fastnn.kernels.sparse import SortedBlocks
from fastnn.kernels.updates import UPDATES, Steps

Rows = NDArray[Any] | CSRRows

#: Time in seconds after which a run of batches comes back to Python, for Ctrl-C, progress and callbacks.
CHUNK_SECONDS = 0.05

# A fork waits for runs that are under way, but not for ever.
LONGEST_RUN_SECONDS = 10.0

# Where other work takes so much of the processors' time that the threads of small batches wait for each other, fewer
# of them run for so many chunks; then all are tried again for a short one, and after each failure in a row twice as
# late, up to the second number.  The results do not depend on it.
CONTENDED_CHUNKS = (4, 16)
TRIAL_SECONDS = 0.015
MEASURABLE_SECONDS = 0.01

# A block holds so many rows that its first product is one that OpenBLAS does without packing (about 1e6
# multiply-adds), but not so few that a wide layer's weights are read for a handful of rows.
THIN_PRODUCT = 1e6
BLOCK_ROWS = (128, 256)

# A block is also what Ctrl-C waits for: in a very large network it holds fewer rows, so many multiply-adds
# forward, but enough that the products stay products.
BLOCK_PRODUCT = 2e8
FEWEST_BLOCK_ROWS = 16

# Where the first layer has no more units than this, waiting for dense rows would cost more than short products do: a
# block then holds what stays in the cache, in a number of rows that AVX-512's tiles of five rows divide.
THIN_UNITS = 32
TILED_ROWS = 10

# With so many inputs or more, the first layer is trained on dense rows by sums along the inputs (kernels/dense.pyx), or
# from so many units on in panels (kernels/affine.pyx).  With fewer inputs both are too short to gain.
DENSE_INPUTS = 64
WIDE_UNITS = 64

# The gradient of sparse rows is taken by column (see kernels/sparse.pyx) from so many non-zeros a column on, where a
# row of the first weight has at least so many bytes; where they must be sorted for each batch, it takes more of both.
SORTED_ONCE = ((8, 0), (3, 512))
SORTED_EACH_TIME = ((8, 512), (5, 1600))

# Steps go by touched columns (kernels/touched.pyx) where a batch has less than one non-zero for so many columns.
# Beyond, going over the whole weight in order costs less than finding its rows here and there.
TOUCHED_SHARE = 16

# A line of the cache.
LINE_BYTES = 64

# sparse="auto" takes dense data for sparse where a sample of this many rows has a smaller share of non-zeros.
SPARSE_DENSITY = 0.25
DENSITY_SAMPLE = 300

# A run of so few multiply-adds forward is left to one thread: waiting for others gains nothing where they are free, and
# costs a time slice where they are not.
SMALL_RUN = 2e6

# Numbers of so many bytes are looked through by more than one thread, so many at once.
PARALLEL_BYTES = 1 << 22
LOOKED_THROUGH = 1 << 22

# Rows of a forward pass in one call are bounded by its multiply-adds, for the sake of Ctrl-C.
FORWARD_PRODUCT = 1e9


def available_threads() -> int:
    """Threads to use by default: the processors this process may run on, at most OMP_NUM_THREADS."""
    if not epoch.HAS_OPENMP:
        return 1
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        available = os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(available, int(limit)) if limit.isdigit() and int(limit) > 0 else available


class _Forks:
    """Knows whether this process was forked from one whose threads had started.

    GNU's OpenMP does not survive that: its threads are gone in the child, and a parallel region would wait for
    them for ever.  The child then works on one thread, with the same results.
    """

    def __init__(self) -> None:
        self.threads_started = False
        self.threads_lost = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        self.threads_lost = self.threads_lost or self.threads_started

    def usable_threads(self, wanted: int) -> int:
        """Return how many of the wanted threads can be had, which will be started."""
        if self.threads_lost:
            return 1
        self.threads_started = self.threads_started or wanted > 1
        return wanted


_forks = _Forks()


class _BlasLimit:
    """Keeps BLAS single-threaded while something is within it, in any thread.

    In a forked child no other thread goes on, so what they were within is over.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._within: Counter[int] = Counter()  # how often, by thread
        self._limit: Any = None
        if hasattr(os, "register_at_fork"):
            # A fork that finds the lock held, by another thread, would find the counts half changed too.
            os.register_at_fork(
                before=lambda: self._lock.acquire(),
                after_in_parent=lambda: self._lock.release(),
                after_in_child=self._in_child,
            )

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._limit = _blas().limit(limits=1)
            self._within[threading.get_ident()] += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            _leave(self._within)
            self._lift()

    def _lift(self) -> None:
        if not self._within and self._limit is not None:
            self._limit.restore_original_limits()
            self._limit = None

    def _in_child(self) -> None:
        self._lock = threading.RLock()
        _keep_this_thread(self._within)
        self._lift()


class _Runs:
    """Runs of the kernels under way, in any thread; BLAS is single-threaded within them.

    A fork waits until all of them have come back, which they do in tens of milliseconds, and new ones wait meanwhile.
    BLAS has locks of its own within its products, and a child in which one is closed would wait for it for ever.
    """

    def __init__(self, blas_limit: _BlasLimit) -> None:
        self._blas_limit = blas_limit
        self._changed = threading.Condition()
        self._within: Counter[int] = Counter()
        self._n_forks = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_child
            )

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            if self._n_forks > 0 and me not in self._within:
                self._changed.wait_for(lambda: self._n_forks == 0)
            self._within[me] += 1
        self._blas_limit.__enter__()

    def __exit__(self, *_: object) -> None:
        self._blas_limit.__exit__()
        with self._changed:
            _leave(self._within)
            if self._n_forks > 0:
                self._changed.notify_all()

    def _before_fork(self) -> None:
        self._changed.acquire()
        self._n_forks += 1
        self._changed.wait_for(lambda: not self._within.keys() - {threading.get_ident()}, LONGEST_RUN_SECONDS)

    def _after_fork(self) -> None:
        self._n_forks -= 1
        self._changed.notify_all()
        self._changed.release()

    def _in_child(self) -> None:
        self._changed, self._n_forks = threading.Condition(), 0
        _keep_this_thread(self._within)


def _leave(within: Counter[int]) -> None:
    within[threading.get_ident()] -= 1
    if within[threading.get_ident()] <= 0:
        del within[threading.get_ident()]


def _keep_this_thread(within: Counter[int]) -> None:
    for thread in within.keys() - {threading.get_ident()}:
        del within[thread]


class _InUse:
    """What fits are working on, in any thread, each by one fit at a time; nothing is in a forked child."""

    def __init__(self) -> None:
        self._owners: dict[int, object] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._owners.clear)

    def __contains__(self, thing: object) -> bool:
        return id(thing) in self._owners

    @contextmanager
    def reserve(self, **things: object) -> Iterator[None]:
        """Reserve what has these names, or raise RuntimeError where another fit has it already."""
        owner, taken = object(), []
        try:
            for name, thing in things.items():
                if self._owners.setdefault(id(thing), owner) is not owner:
                    raise RuntimeError(f"the {name} is in a fit already, which must end before another one begins")
                taken.append(id(thing))
            yield
        finally:
            for key in taken:
                self._owners.pop(key, None)


@cache
def _blas() -> Any:
    # threadpoolctl's controller of the BLAS that SciPy calls, or of all where it cannot be told.
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().select(user_api="blas")
    paths = [library["filepath"] for library in found.info()]
    scipys = [path for path in paths if "scipy" in os.path.basename(os.path.dirname(path))]
    return found.select(filepath=scipys) if scipys else found


def blas_libraries() -> list[dict[str, Any]]:
    """Return what threadpoolctl knows of the BLAS that SciPy calls, or of all where it cannot be told."""
    libraries: list[dict[str, Any]] = _blas().info()
    return libraries


#: Context manager within which BLAS uses one thread; the caller's setting comes back afterwards.
single_threaded_blas = _BlasLimit()

#: Context manager for each call of kernels that products are made in; BLAS uses one thread within it.
kernel_run = _Runs(single_threaded_blas)

#: Trainers and networks that a fit is working on.
in_use = _InUse()


def import_whole(name: str) -> Any:
    """Return a module, imported here first if need be; no process is forked meanwhile.

    What another thread has imported by half stays so in a child, which would wait for it for ever.
    """
    with kernel_run:
        return importlib.import_module(name)


@cache
def _touch_buffers(dtype: np.dtype[Any], n_threads: int) -> None:
    # Once a process, a few milliseconds; the shape fills the buffers further than a narrow product does.
    A, B = np.zeros((128, 784), dtype), np.zeros((784, 768), dtype)
    with kernel_run:
        blas.touch_buffers(A, B, np.empty((n_threads, 128, 768), dtype), n_threads)


def aligned(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros that begin a line of the cache, so that vectors do not straddle two."""
    memory = np.zeros(int(np.prod(shape)) * dtype.itemsize + LINE_BYTES, np.uint8)
    begin = -memory.ctypes.data % LINE_BYTES
    return memory[begin : begin + len(memory) - LINE_BYTES].view(dtype).reshape(shape)


def to_csr(X: NDArray[Any], dtype: np.dtype[Any], n_threads: int = 1) -> CSRRows:
    """Dense rows as CSRRows of dtype."""
    n, n_in = X.shape
    indptr = np.empty(n + 1, np.int64)
    sparse.count_nonzeros(X, indptr, n_threads)
    data, indices = np.empty(indptr[-1], dtype), np.empty(indptr[-1], np.int32)
    sparse.fill_nonzeros(X, indptr, data, indices, n_threads)
    return CSRRows(data, indices, indptr, n_in)


def thin_product(A: NDArray[Any], B: NDArray[Any], out: NDArray[Any]) -> Callable[[], None] | None:
    """Return a call that puts A (m, k) @ B (k, n) into out (m, n) by the kernels, for few n; None if they cannot.

    A and B are stored by rows or by columns.  The results do not depend on the number of threads.
    """
    m, n = out.shape
    same = A.dtype == B.dtype == out.dtype and out.dtype in (np.float32, np.float64)
    aligned_ = A.flags.aligned and B.flags.aligned and out.flags.aligned
    if not (same and aligned_ and A.flags.forc and B.flags.forc and out.flags.c_contiguous):
        return None
    n_threads = available_threads() if A.size * n >= SMALL_RUN else 1
    if A.flags.c_contiguous:
        W, b = np.empty((n, len(B)), B.dtype), np.zeros(n, B.dtype)

        def forward() -> None:
            np.copyto(W, B.T)
            dense.dense_affine(A, W, b, out, _forks.usable_threads(n_threads))

        return forward
    G = np.empty((n, m), out.dtype)

    def backward() -> None:
        dense.backprop_dense_weight(A.T, np.ascontiguousarray(B), G, 1.0, 0.0, _forks.usable_threads(n_threads))
        np.copyto(out, G.T)

    return backward


def all_finite(values: NDArray[Any], n_threads: int) -> bool:
    """Whether float32 or float64 numbers are neither infinite nor NaN."""
    n_threads = _forks.usable_threads(n_threads) if values.nbytes > PARALLEL_BYTES else 1
    bits = np.ascontiguousarray(values).reshape(-1).view(f"u{values.itemsize}")
    # Piece by piece, for Ctrl-C: they may come from a disk.
    pieces = (bits[begin : begin + LOOKED_THROUGH] for begin in range(0, len(bits), LOOKED_THROUGH))
    return all(kernel_rows.all_finite(piece, n_threads) for piece in pieces)


def choose_storage(rows: Rows, dtype: np.dtype[Any], sparse: Any, n_threads: int) -> Rows:
    """Rows as CSRRows of dtype where they are to be taken for sparse, or with "auto" where that will be faster."""
    if isinstance(rows, CSRRows):
        return rows
    if sparse == "auto":
        sample = rows[:: max(1, len(rows) // DENSITY_SAMPLE)]
        sparse = bool(np.count_nonzero(sample) < SPARSE_DENSITY * sample.size)
    return to_csr(rows, dtype, _forks.usable_threads(n_threads)) if sparse else rows


def sort_blocks(X: CSRRows, bounds: NDArray[np.int64], n_threads: int = 1) -> SortedBlocks:
    """Sort the non-zeros of each block of rows, from one bound to the next, by pairs of columns."""
    entries = np.empty(len(X.data), [("values", X.dtype, 2), ("row", np.int32)])
    starts = np.empty((len(bounds) - 1, (X.n_columns + 1) // 2 + 2), np.int32)
    sparse.sort_blocks(X, bounds, entries, starts, n_threads)
    return SortedBlocks(entries, starts, bounds)


class Engine:
    """Forward passes and epochs of training for one network.

    Parameters
    ----------
    architecture : Architecture
        Shape of the network.
    parameters : (n_parameters,) array
        Read by `forward`, and moved by `advance`.
    n_threads : int
        The results do not depend on it.
    """

    def __init__(self, architecture: Architecture, parameters: NDArray[Any], n_threads: int) -> None:
        self.architecture = architecture
        self.sizes = sizes = architecture.sizes
        self.parameters = parameters
        self._n_threads = min(n_threads, epoch.MAX_LANES)  # more could not help
        few, many = BLOCK_ROWS
        rows = min(many, max(few, THIN_PRODUCT // int(sizes[0] * sizes[1])), BLOCK_PRODUCT // parameters.size)
        self.forward_rows = int(max(rows, FEWEST_BLOCK_ROWS))
        # Numbers behind the layers' own.
        self._n_norms = 3 * int(sizes[1:-1].sum()) if architecture.batch_norm else 0

    @property
    def n_threads(self) -> int:
        """Threads for what comes next: a process may have been forked since the last time."""
        return _forks.usable_threads(self._n_threads)

    def _team(self, X: Rows, share: float = 1.0) -> int:
        # Threads that a run over this share of the rows is worth.
        stored = len(X.data) if isinstance(X, CSRRows) else X.size
        first = int(self.sizes[0] * self.sizes[1])
        products = stored * int(self.sizes[1]) + X.shape[0] * (self.parameters.size - first)
        return 1 if share * products < SMALL_RUN else self.n_threads

    def forward(self, X: Rows) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield (which rows, their last layer before softmax or sigmoid), run by run; the buffer is used again."""
        n = X.shape[0]
        block_rows = max(1, min(self.forward_rows, n))
        n_lanes = min(epoch.MAX_LANES, max(1, -(-n // block_rows)))
        run = max(n_lanes * block_rows, int(FORWARD_PRODUCT // self.parameters.size))
        work_size = epoch.forward_work_size(self.architecture, block_rows, isinstance(X, CSRRows))
        n_threads = self._team(X)
        work = np.empty((n_lanes, work_size), self.parameters.dtype)
        logits = np.empty((min(run, n), self.sizes[-1]), self.parameters.dtype)
        for first in range(0, n, run):
            Z = logits[: min(run, n - first)]
            with kernel_run:
                epoch.forward(X, first, self.architecture, self.parameters, work, block_rows, Z, n_threads)
            yield slice(first, first + len(Z)), Z

    def begin(
        self,
        X: Rows,
        batch_size: int,
        update: str = "none",
        state: NDArray[Any] | None = None,
        in_order: bool = False,
        *,
        lazy: bool = False,
        direct: bool = False,
        single: bool = False,
    ) -> None:
        """Allocate the work space for epochs over X in batches; see `fastnn.optimizers` for the update.

        in_order : the rows will be taken as they are stored, more than once
        lazy : all steps are alike and linear in a parameter and its state, so that rows of the first weight which a
            batch does not touch can be brought up to date later
        direct : plain steps, without a penalty, that products may write
        single : each run will be over one batch
        """
        self.X = X
        self.batch_size = min(batch_size, int(X.shape[0]))
        self.update = UPDATES[update]
        self.state = np.empty((0, self.parameters.size), self.parameters.dtype) if state is None else state
        self._n_threads = self._team(X, self.batch_size / int(X.shape[0]) if single else 1.0)
        self._usable_threads, self._contended_chunks = self._n_threads, 0
        self._next_contended = CONTENDED_CHUNKS[0]
        n_in, n_units = (int(size) for size in self.sizes[:2])
        batch_norm = self.architecture.batch_norm
        self.block_rows = self.forward_rows
        many = self.batch_size > self.forward_rows  # a batch of one block is stepped on without a gradient
        if many and not isinstance(X, CSRRows) and n_in >= DENSE_INPUTS and n_units <= THIN_UNITS:
            rows = dense.BLOCK_BYTES // (n_in * self.parameters.itemsize) // TILED_ROWS * TILED_ROWS
            self.block_rows = min(self.block_rows, max(rows, TILED_ROWS))
        if batch_norm:  # couples the rows of a batch
            self.block_rows = self.batch_size
        touches = not batch_norm and self._touches(X, lazy, direct)
        by_units = not touches and epoch.go_by_units(
            self.architecture, self.batch_size, self.update, isinstance(X, CSRRows)
        )
        # Whether threads share out each batch, and it is one block.
        self._in_team = by_units or batch_norm
        blocks = self._sorted_blocks(X) if in_order and not touches else None
        nonzeros = 0 if touches or blocks else self._nonzeros_at_once(X)
        shape = epoch.work_shape(
            self.architecture,
            self.batch_size,
            self.block_rows,
            self.update,
            nonzeros,
            touches,
            isinstance(X, CSRRows),
        )
        n_lanes = shape[0]
        dtype, size = self.parameters.dtype, self.parameters.size
        layout = "stored"
        if isinstance(X, CSRRows):
            layout = "slices" if by_units else "stored"
        elif n_in >= DENSE_INPUTS:
            layout = "panels" if n_units >= WIDE_UNITS and "panels" in layouts.LAYOUTS else "transposed"
        self._rearranges = layout != "stored"
        if self._rearranges:
            size = layouts.vector_size(self.sizes, layouts.LAYOUTS[layout], dtype.itemsize) + self._n_norms
        self.space = Space(
            # In whole lines of the cache, so that each lane's begins one.
            gradients=aligned((n_lanes, -(-size // LINE_BYTES) * LINE_BYTES), dtype),
            work=aligned(shape, dtype),
            block_rows=self.block_rows,
            position=np.zeros(1 + n_lanes, np.intp),
            log_likelihood=np.zeros(1 + n_lanes),
            penalties=np.zeros((len(self.sizes) - 1, epoch.N_PENALTIES)),
            layout=layouts.LAYOUTS[layout],
            nonzeros=nonzeros,
            # What `kernels.touched` needs, where a batch has too few non-zeros to step over the whole first weight.
            touched=np.zeros(1 + 2 * n_in, np.int64) if touches else None,
            blocks=blocks,
        )
        _touch_buffers(self.parameters.dtype, self.n_threads)
        # What the kernels move: the parameters and the state themselves, or these in another layout.
        self.moved = (self.parameters, self.state)
        if self._rearranges:
            self.moved = (aligned(size, dtype), aligned((len(self.state), size), dtype))

    def _touches(self, X: Rows, lazy: bool, direct: bool) -> bool:
        if not isinstance(X, CSRRows):
            return False
        columns_each = X.shape[0] * int(self.sizes[0]) / max(1, len(X.data) * self.batch_size)  # for a non-zero
        if self.update == UPDATES["sgd"] and columns_each > 1 and self.batch_size <= epoch.MAX_BLOCK_ROWS:
            # As one block, a batch needs no gradient: the products write the parameters themselves, and without
            # a penalty they touch no other rows.
            self.block_rows = max(self.block_rows, self.batch_size)
            if direct:
                return False
        return lazy and columns_each > TOUCHED_SHARE

    def _sorted_blocks(self, X: Rows) -> SortedBlocks | None:
        # Rows in order make the same blocks in each epoch, so their non-zeros are sorted by column once.  Where a
        # column of a block has few non-zeros there is little to add up, and nothing to gain.
        if not isinstance(X, CSRRows):
            return None
        n = X.shape[0]
        rows_at_once = epoch.rows_at_once(self.architecture, self.batch_size, self.block_rows, self.update)
        if rows_at_once > epoch.MAX_BLOCK_ROWS:
            return None
        if not self._pays_to_sort(len(X.data) * rows_at_once / n, SORTED_ONCE):
            return None
        bounds = np.array(epoch.block_bounds(n, self.batch_size, rows_at_once, not self._in_team), np.int64)
        return sort_blocks(X, bounds, self.n_threads)

    def _nonzeros_at_once(self, X: Rows) -> int:
        # The most non-zeros that the rows of a batch, or of a block of it, can have, whatever the order; 0 where
        # sorting them by column would not pay.
        if not isinstance(X, CSRRows) or not self._pays_to_sort(len(X.data), SORTED_EACH_TIME):
            return 0
        n = min(self.batch_size, epoch.MAX_BLOCK_ROWS)
        if min(self.batch_size, self.block_rows) > n:
            return 0
        most = int(np.partition(np.diff(X.indptr), len(X.indptr) - 1 - n)[-n:].sum())
        return most if self._pays_to_sort(most, SORTED_EACH_TIME) else 0

    def _pays_to_sort(self, nonzeros: float, limits: tuple[tuple[int, int], ...]) -> bool:
        # Whether there are so many non-zeros a column, and rows of the first weight so wide, as one of the limits says.
        n_in, width = (int(size) for size in self.sizes[:2])
        row_bytes = width * self.parameters.itemsize
        return any(nonzeros >= few * n_in and row_bytes >= narrow for few, narrow in limits)

    def restart(self, steps: Steps, key: int = 0) -> None:
        """Go to the start of an epoch, with its steps; key chooses what is dropped."""
        self.steps = steps
        if key != self.architecture.key:
            self.architecture = self.architecture._replace(key=key)
        for counts in (self.space.position, self.space.log_likelihood, self.space.penalties, self.space.touched):
            if counts is not None:
                counts[...] = 0
        if self._rearranges:
            for current, moved in zip((self.parameters, self.state), self.moved, strict=True):
                self._rearrange(current, moved)

    def store(self) -> None:
        """Bring parameters and state up to the last finished step, as far as they are kept elsewhere meanwhile."""
        if self._rearranges:
            for current, moved in zip((self.parameters, self.state), self.moved, strict=True):
                self._rearrange(moved, current, back=True)

    def finish(self) -> None:
        """Bring parameters and state up to the last finished step in every respect; the end of an epoch does."""
        if self.space.touched is not None:
            n_in, n_out = self.sizes[:2]
            W = self.parameters[: n_in * n_out].reshape(n_in, n_out)
            n_steps = -(-int(self.space.position[0]) // self.batch_size)
            touched.bring_up_to_date(self.steps, W, self.state, self.space.touched, n_steps)
        self.store()

    def gradient(self, targets: Targets, steps: Steps) -> NDArray[Any]:
        """Return the gradient of the mean log-likelihood over all rows, in the parameters' layout.

        That of the objective where the steps have penalties.  Both are found in `log_likelihood` and `penalty`.
        """
        self.restart(steps)
        while self.advance(targets, None, CHUNK_SECONDS):
            pass
        found: NDArray[Any] = self.space.gradients[0, : len(self.moved[0])]
        if not self._rearranges:
            return found
        gradient = np.empty_like(self.parameters)
        self._rearrange(found, gradient, back=True)
        return gradient

    def _rearrange(self, vectors: NDArray[Any], vectors_out: NDArray[Any], back: bool = False) -> None:
        pairs = [(vectors, vectors_out)] if vectors.ndim == 1 else zip(vectors, vectors_out, strict=True)
        for vector, out in pairs:
            layers, layers_out = vector[: len(vector) - self._n_norms], out[: len(out) - self._n_norms]
            layouts.rearrange(self.sizes, self.space.layout, back, layers, layers_out, self.n_threads)
            out[len(layers_out) :] = vector[len(layers) :]

    def advance(self, targets: Targets, order: NDArray[np.intp] | None, seconds: float) -> bool:
        """Train for about so many seconds; return whether the epoch goes on.

        The rows are taken in the given order, and the targets stand in that order.  Where a batch's log-likelihood is
        not finite, its step is not taken and FloatingPointError is raised.
        """
        measures = self._in_team and self.n_threads > 1
        if measures:
            if self._contended_chunks == 0 and self._next_contended != CONTENDED_CHUNKS[0]:
                seconds = min(seconds, TRIAL_SECONDS)
            started = time.perf_counter(), time.process_time()
        with kernel_run:
            epoch.train(
                self.X,
                targets,
                order,
                self.batch_size,
                self.architecture,
                *self.moved,
                self.steps,
                self.space,
                seconds,
                min(self._usable_threads, self.n_threads),
            )
        if measures:
            self._adapt(time.perf_counter() - started[0], time.process_time() - started[1])
        if not np.isfinite(self.space.log_likelihood[0]):
            raise FloatingPointError("the log-likelihood of a batch is not finite")
        if self.space.position[0] < len(targets.y):
            return True
        if self.update != UPDATES["none"]:
            self.finish()
        return False

    def _adapt(self, elapsed: float, busy: float) -> None:
        # Members of a team that shares out small batches meet at a barrier each step, in some ten microseconds.
        # If one has lost its processor they all wait, and one thread alone would be faster.
        if self._contended_chunks > 0:
            self._contended_chunks -= 1
        elif elapsed > MEASURABLE_SECONDS:
            self._usable_threads = max(1, min(self.n_threads, int(busy / elapsed + 0.25)))
            contended = self._usable_threads < self.n_threads
            self._contended_chunks = self._next_contended if contended else 0
            few, many = CONTENDED_CHUNKS
            self._next_contended = min(2 * self._next_contended, many) if contended else few
        if self._contended_chunks == 0:
            self._usable_threads = self.n_threads

    def progress(self) -> dict[str, NDArray[Any]]:
        """Return what tells, beside parameters and state, how far an epoch has come: arrays that may be written."""
        space = self.space
        found: dict[str, NDArray[Any]] = {
            "position": space.position[:1],
            "log_likelihood": space.log_likelihood[:1],
            "penalties": space.penalties,
        }
        return found if space.touched is None else found | {"touched": space.touched}

    def check_progress(self, progress: dict[str, NDArray[Any]], n_rows: int) -> None:
        """Raise ValueError where this is not what `progress` returned within an epoch over n_rows."""
        here = self.progress()
        if progress.keys() != here.keys():
            raise ValueError("it was written within an epoch over rows that were stored in another way")
        for name, array in here.items():
            if progress[name].shape != array.shape or progress[name].dtype != array.dtype:
                raise ValueError(f"{name} is {progress[name].dtype} {progress[name].shape}")
        position = int(progress["position"][0])
        if not 0 <= position < n_rows or position % self.batch_size:
            raise ValueError(f"row {position} of {n_rows} does not begin a batch")
        if not np.isfinite(progress["log_likelihood"]).all():
            raise ValueError("its log-likelihood is not finite")
        if "touched" in progress:  # see kernels/touched.pyx
            n_in = int(self.sizes[0])
            n_touched, taken = int(progress["touched"][0]), progress["touched"][1 : 1 + n_in]
            columns = progress["touched"][1 + n_in :][: max(0, n_touched)]
            steps = np.where(taken < 0, ~taken, taken)
            known = np.array_equal(np.sort(columns), np.flatnonzero(taken < 0)) and n_touched == len(columns)
            if not known or steps.max() > position // self.batch_size:
                raise ValueError("what it says of touched columns contradicts itself")

    def go_on(self, progress: dict[str, NDArray[Any]], n_rows: int) -> None:
        """Go on from what `progress` returned; ValueError as `check_progress`."""
        self.check_progress(progress, n_rows)
        for name, array in self.progress().items():
            array[...] = progress[name]

    @property
    def rows_done(self) -> int:
        """Rows of the epoch that are done."""
        return int(self.space.position.sum())

    @property
    def batches_done(self) -> int:
        """Batches of the epoch that are done."""
        return -(-int(self.space.position[0]) // self.batch_size)

    @property
    def log_likelihood(self) -> float:
        """Weighted sum of the finished batches' log-likelihoods, in nats."""
        return float(self.space.log_likelihood[0])

    @property
    def penalty(self) -> float:
        """Sum of what the penalties took off the objective in the finished batches, times the weight of each."""
        return float(self.space.penalties.sum())
