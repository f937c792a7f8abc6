"""The engine as Python sees it: it owns the work space and hands runs of rows to the compiled kernels.

Everything above (network, trainer, front doors) trains and predicts through the calls here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import tuning
from fastnn.engine.rows import Rows, aligned, sort_blocks
from fastnn.engine.threads import forks, kernel_run
from fastnn.kernels import blas, dense, epoch, layouts, touched
from fastnn.kernels.epoch import Architecture, Space
from fastnn.kernels.losses import Targets
from fastnn.kernels.rows import CSRRows
from fastnn.kernels.sparse import SortedBlocks
from fastnn.kernels.updates import UPDATES, Steps


@cache
def _touch_buffers(dtype: np.dtype[Any], n_threads: int) -> None:
    # Once a process, a few milliseconds; the shape fills the buffers further than a narrow product does.
    A, B = np.zeros((128, 784), dtype), np.zeros((784, 768), dtype)
    with kernel_run:
        blas.touch_buffers(A, B, np.empty((n_threads, 128, 768), dtype), n_threads)


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
        few, many = tuning.BLOCK_ROWS
        rows = max(few, tuning.THIN_PRODUCT // int(sizes[0] * sizes[1]))
        rows = min(many, rows, tuning.BLOCK_PRODUCT // parameters.size)
        self.forward_rows = int(max(rows, tuning.FEWEST_BLOCK_ROWS))
        # Numbers behind the layers' own.
        self._n_norms = 3 * int(sizes[1:-1].sum()) if architecture.batch_norm else 0

    @property
    def n_threads(self) -> int:
        """Threads for what comes next: a process may have been forked since the last time."""
        return forks.usable_threads(self._n_threads)

    def _team(self, X: Rows, share: float = 1.0) -> int:
        # Threads that a run over this share of the rows is worth.
        stored = len(X.data) if isinstance(X, CSRRows) else X.size
        first = int(self.sizes[0] * self.sizes[1])
        products = stored * int(self.sizes[1]) + X.shape[0] * (self.parameters.size - first)
        return 1 if share * products < tuning.SMALL_RUN else self.n_threads

    def forward(self, X: Rows) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield (which rows, their last layer before softmax or sigmoid), run by run; the buffer is used again."""
        n = X.shape[0]
        block_rows = max(1, min(self.forward_rows, n))
        n_lanes = min(epoch.MAX_LANES, max(1, -(-n // block_rows)))
        run = max(n_lanes * block_rows, int(tuning.FORWARD_PRODUCT // self.parameters.size))
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
        self._next_contended = tuning.CONTENDED_CHUNKS[0]
        n_in, n_units = (int(size) for size in self.sizes[:2])
        batch_norm = self.architecture.batch_norm
        self.block_rows = self.forward_rows
        many = self.batch_size > self.forward_rows  # a batch of one block is stepped on without a gradient
        if many and not isinstance(X, CSRRows) and n_in >= tuning.DENSE_INPUTS and n_units <= tuning.THIN_UNITS:
            rows = dense.BLOCK_BYTES // (n_in * self.parameters.itemsize) // tuning.TILED_ROWS * tuning.TILED_ROWS
            self.block_rows = min(self.block_rows, max(rows, tuning.TILED_ROWS))
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
        elif n_in >= tuning.DENSE_INPUTS:
            layout = "panels" if n_units >= tuning.WIDE_UNITS and "panels" in layouts.LAYOUTS else "transposed"
        self._rearranges = layout != "stored"
        if self._rearranges:
            size = layouts.vector_size(self.sizes, layouts.LAYOUTS[layout], dtype.itemsize) + self._n_norms
        self.space = Space(
            # In whole lines of the cache, so that each lane's begins one.
            gradients=aligned((n_lanes, -(-size // tuning.LINE_BYTES) * tuning.LINE_BYTES), dtype),
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
        return lazy and columns_each > tuning.TOUCHED_SHARE

    def _sorted_blocks(self, X: Rows) -> SortedBlocks | None:
        # Rows in order make the same blocks in each epoch, so their non-zeros are sorted by column once.  Where a
        # column of a block has few non-zeros there is little to add up, and nothing to gain.
        if not isinstance(X, CSRRows):
            return None
        n = X.shape[0]
        rows_at_once = epoch.rows_at_once(self.architecture, self.batch_size, self.block_rows, self.update)
        if rows_at_once > epoch.MAX_BLOCK_ROWS:
            return None
        if not self._pays_to_sort(len(X.data) * rows_at_once / n, tuning.SORTED_ONCE):
            return None
        bounds = np.array(epoch.block_bounds(n, self.batch_size, rows_at_once, not self._in_team), np.int64)
        return sort_blocks(X, bounds, self.n_threads)

    def _nonzeros_at_once(self, X: Rows) -> int:
        # The most non-zeros that the rows of a batch, or of a block of it, can have, whatever the order; 0 where
        # sorting them by column would not pay.
        if not isinstance(X, CSRRows) or not self._pays_to_sort(len(X.data), tuning.SORTED_EACH_TIME):
            return 0
        n = min(self.batch_size, epoch.MAX_BLOCK_ROWS)
        if min(self.batch_size, self.block_rows) > n:
            return 0
        most = int(np.partition(np.diff(X.indptr), len(X.indptr) - 1 - n)[-n:].sum())
        return most if self._pays_to_sort(most, tuning.SORTED_EACH_TIME) else 0

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
        while self.advance(targets, None, tuning.CHUNK_SECONDS):
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
            if self._contended_chunks == 0 and self._next_contended != tuning.CONTENDED_CHUNKS[0]:
                seconds = min(seconds, tuning.TRIAL_SECONDS)
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
        elif elapsed > tuning.MEASURABLE_SECONDS:
            self._usable_threads = max(1, min(self.n_threads, int(busy / elapsed + 0.25)))
            contended = self._usable_threads < self.n_threads
            self._contended_chunks = self._next_contended if contended else 0
            few, many = tuning.CONTENDED_CHUNKS
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
