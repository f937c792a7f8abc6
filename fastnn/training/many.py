"""Many fits at once: each thread trains whole networks, on the same rows or on rows of its own.

With several ranks, each trains some of the networks; then all have the results of all.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._validation import check_choice, check_comm, check_integer, check_row_numbers, check_threads
from fastnn.callbacks import Callback, Fit, open_bar
from fastnn.engine.ranks import Ranks, ranks_of
from fastnn.engine.rows import digest
from fastnn.engine.threads import available_threads, sharers, single_threaded_blas
from fastnn.history import History
from fastnn.kernels.losses import Targets
from fastnn.training.agreement import call_of, compare, compare_data
from fastnn.training.data import Prepared, check_at_once, prepare, read_data
from fastnn.training.in_use import in_use
from fastnn.training.joint import progress_of, take_over
from fastnn.training.trainer import Trainer

# Seconds between two looks at how far the fits are.
LOOK_SECONDS = 0.1


class ManyFitsError(Exception):
    """Some of many fits failed; the others have ended as usual.

    Attributes
    ----------
    results : list of History or Exception
        Of each trainer, in order: the history of its fit, or what it raised, such as a `DivergenceError`.
    """

    def __init__(self, results: list[History | Exception]) -> None:
        failed = {k: result for k, result in enumerate(results) if isinstance(result, Exception)}
        told = "; ".join(f"trainers[{k}]: {type(error).__name__}: {error}" for k, error in list(failed.items())[:3])
        super().__init__(f"{len(failed)} of {len(results)} fits failed, the others are done. {told}")
        self.results = results

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.results,)


def fit_many(
    trainers: Iterable[Trainer],
    X: Any,
    y: ArrayLike,
    epochs: int = 10,
    *,
    rows: Sequence[ArrayLike] | None = None,
    validation: Sequence[Any] | None = None,
    validation_rows: Sequence[ArrayLike] | None = None,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
    comm: Any = None,
) -> list[History]:
    """Train many networks at once: each processor trains whole ones, which never wait for each other.

    Each network ends with the bits that ``trainer.fit`` gives it alone.  This is the fastest way to train several small
    or middle-sized networks: for ensembles, cross-validation, or a choice among settings.

    Parameters
    ----------
    trainers : iterable of Trainer
        They may differ in everything, but each has a network, callbacks and a seed of its own.
    X, y, sample_weight
        As `Trainer.fit` takes them, but no chunks.  All fits read the same memory.
    epochs : int, default 10
        How often each goes through its rows.
    rows : list of arrays, one a trainer, or None
        Numbers of the rows that each trains on, such as the training part of a fold; a row may occur several times, as
        in a bootstrap.  It is then as if its `fit` got ``X[rows[k]]``, of which there is a copy while it runs.  Or
        arrays of bool (n,), True where a row takes part.
    validation : (X, y) or (X, y, sample_weight) or None
        Rows on which each network is measured after each epoch.
    validation_rows : list of arrays, one a trainer, or None
        Numbers of the rows of X that each is measured on instead, such as the other part of a fold.
    n_threads : int or None, default None
        Threads in all; None takes the processors that the process may run on, at most OMP_NUM_THREADS.  While there are
        fewer fits than threads, a fit has several, at most its trainer's.  The results do not depend on it.  With
        comm, threads of each rank; None then divides the processors of a machine among its ranks.
    progress : bool or None, default None
        Whether to show one progress bar for all; None shows it if the standard error stream is a terminal.
    comm : mpi4py.MPI.Intracomm or None, default None
        The ranks of an MPI job, each of which trains whole networks.  All ranks make the same call, and all end with
        all networks, states of trainers and histories; the parameters and states at the start are those of rank 0.
        The trainers have no comm of their own.

    Returns
    -------
    list of History
        In the order of the trainers.  Ctrl-C ends all fits early, as it ends `Trainer.fit`: histories have
        `interrupted` set, those that had not begun are empty, and each network is as after its last finished step.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or a trainer or network is given twice; nothing has been trained then.
    RuntimeError
        If a trainer or a network is in another fit.
    ManyFitsError
        When all fits have ended, if some diverged or one of their callbacks raised an exception; on all ranks.

    Notes
    -----
    Callbacks are called in the thread of their fit, on the rank that has it; what they keep stays there.  Fits with
    more rows and parameters begin first, and each goes to the rank that has least to do until then.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import Network, Trainer, fit_many
    >>> X, y = np.array([[0.0], [1.0]]), np.array([0, 1])
    >>> trainers = [Trainer(Network([1, 2, 2], seed=k), seed=k) for k in range(3)]
    >>> [len(history) for history in fit_many(trainers, X, y, epochs=5)]
    [5, 5, 5]
    """
    ranks = ranks_of(check_comm(comm))
    with ranks.keeping_interrupts(), ranks.together(), ExitStack() as stack:
        fitters = _check_trainers(trainers)
        epochs = check_integer(epochs, "epochs", 0)
        n_threads = check_threads(n_threads) or max(1, available_threads() // ranks.n_here)
        check_choice(progress, "progress", [None, False, True])
        if validation is not None and validation_rows is not None:
            raise ValueError("validation and validation_rows cannot both be given")
        for k, trainer in enumerate(fitters):
            names = {f"trainer trainers[{k}]": trainer, f"network of trainers[{k}]": trainer.network}
            stack.enter_context(in_use.reserve(**names))
        fits = _settle(fitters, (X, y, sample_weight), epochs, validation, rows, validation_rows)
        _begin_together(ranks, fits)
        stack.enter_context(sharers.limit(n_threads))
        stack.enter_context(single_threaded_blas)  # once, not in each run
        _carry_out(ranks, fits, n_threads, progress)
        _tell_results(ranks, fits)
    results = [one.result for one in fits]
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:
        raise ManyFitsError(results) from failed[0]
    return [result for result in results if isinstance(result, History)]


@dataclass
class _OneFit:
    """A fit among others.

    Attributes
    ----------
    trainer, epochs, validation
        As given.
    data : (X, y, sample_weight)
        Of all rows.
    prepared : Prepared
        Of all rows; of no use for a part of them.
    rows, validation_rows : arrays or None
        Numbers of the rows to train and to measure on; None: all, and those of validation.
    n_rows : int
        Rows to train on.
    rank : int
        That carries it out.
    fit : Fit or None
        How far it is; None before it begins.
    result : History or Exception
        Its history, or what it raised; as if it had not begun, until it ends.
    """

    trainer: Trainer
    epochs: int
    data: tuple[Any, Any, Any]
    validation: Any
    prepared: Prepared
    rows: NDArray[np.intp] | None
    validation_rows: NDArray[np.intp] | None
    n_rows: int
    rank: int = 0
    fit: Fit | None = None
    result: History | Exception = field(default_factory=lambda: History(interrupted=True))

    @property
    def cost(self) -> int:
        """Roughly proportional to its time."""
        return self.n_rows * int(self.trainer.network.parameters.size)

    @property
    def rows_done(self) -> int:
        """Rows that it has trained on, in all epochs."""
        return 0 if self.fit is None else len(self.fit.history) * self.fit.n_rows + self.fit.rows_done

    def carry_out(self, stopping: threading.Event) -> None:
        """Train, until the end or until others say that all must stop."""
        if stopping.is_set():
            return
        try:
            self.result = self._train(stopping)
        except Exception as error:
            self.result = error

    def _train(self, stopping: threading.Event) -> History:
        trainer, data, validation, prepared = self.trainer, self.data, self.validation, self.prepared
        if self.validation_rows is not None:
            validation = _take(self.data, self.validation_rows)
        if self.rows is not None:
            data, prepared = _take(self.data, self.rows), Prepared()
        with sharers:
            active = trainer._begin(
                read_data(trainer, trainer._state, *data, validation, prepared), self.epochs, _Stopper(stopping)
            )
            self.fit = active.fit
            return trainer._carry_out(active)


class _Stopper(Callback):
    """Ends a fit as Ctrl-C does, which only the main thread receives."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping

    def on_chunk(self, fit: Fit) -> None:
        if self._stopping.is_set():
            raise KeyboardInterrupt


def _check_trainers(trainers: Iterable[Trainer]) -> list[Trainer]:
    found = list(trainers)
    owners: dict[int, int] = {}
    for k, trainer in enumerate(found):
        if not isinstance(trainer, Trainer):
            raise TypeError(f"trainers[{k}] must be a fastnn.Trainer, not {type(trainer).__name__}")
        if trainer.comm is not None:
            raise ValueError(f"trainers[{k}] must have comm=None: here one rank trains it, and fit_many takes the comm")
        own = [("trainer", trainer), ("network", trainer.network), ("seed", trainer._state.generator.bit_generator)]
        for name, thing in [*own, *(("callback", callback) for callback in trainer.callbacks)]:
            other = owners.setdefault(id(thing), k)
            if other != k:
                what = "are the same" if name == "trainer" else f"have the same {name}"
                raise ValueError(f"trainers[{other}] and trainers[{k}] {what}: each needs its own")
    return found


def _settle(
    trainers: list[Trainer],
    data: tuple[Any, Any, Any],
    epochs: int,
    validation: Any,
    rows: Sequence[ArrayLike] | None,
    validation_rows: Sequence[ArrayLike] | None,
) -> list[_OneFit]:
    # Checks all that can be checked before work begins.
    for name, lists in (("rows", rows), ("validation_rows", validation_rows)):
        if lists is not None and len(lists) != len(trainers):
            raise ValueError(f"{name} must hold an array for each of the {len(trainers)} trainers, not {len(lists)}")
    prepared, fits = Prepared(), []
    for k, trainer in enumerate(trainers):
        targets = prepare(trainer, data, validation, prepared, store=rows is None)
        mine = None if rows is None else _check_part(rows[k], targets, f"rows[{k}]")
        other = None if validation_rows is None else _check_part(validation_rows[k], targets, f"validation_rows[{k}]")
        n = len(targets.y) if mine is None else len(mine)
        check_at_once(trainer, n)
        fits.append(_OneFit(trainer, epochs, data, validation, prepared, mine, other, n))
    return fits


def _check_part(numbers: ArrayLike, targets: Targets, name: str) -> NDArray[np.intp]:
    rows = check_row_numbers(numbers, len(targets.y), name)
    if targets.weights is not None and not targets.weights[rows].any():
        raise ValueError(f"sample_weight must be above 0 for some row of {name}")
    return rows


def _take(data: tuple[Any, Any, Any], rows: NDArray[np.intp]) -> tuple[Any, ...]:
    X, y, weights = data
    X = X.tocsr() if hasattr(X, "tocsr") else np.asarray(X)
    return X[rows], np.asarray(y)[rows], None if weights is None else np.asarray(weights)[rows]


def _begin_together(ranks: Ranks, fits: list[_OneFit]) -> None:
    # Gives each fit to a rank; all have the parameters and states of rank 0 then.
    loads = [0] * ranks.size
    for one in _longest_first(fits):
        one.rank = loads.index(min(loads))
        loads[one.rank] += one.cost
    if ranks.size == 1:
        return
    calls: dict[str, Any] = {"number of trainers": len(fits)}
    for k, one in enumerate(fits):
        numbers = [None if rows is None else digest(rows) for rows in (one.rows, one.validation_rows)]
        arguments = {"epochs": one.epochs, "validation": one.validation is not None, "numbers of rows": numbers}
        call = call_of(one.trainer, one.trainer._state, arguments)
        calls |= {f"{name} of trainers[{k}]": value for name, value in call.items()}
    compare(ranks.all_tell("settings", calls))
    for one in fits[:1]:
        compare_data(ranks, one.trainer, one.prepared.check_data(one.trainer, one.data, ("X", "y")), None)
    told = ranks.first_tells("the start", lambda: [progress_of(one.trainer._state) for one in fits])
    for one, progress in zip(fits, told, strict=True):
        take_over(ranks, 0, one.trainer.network.parameters, one.trainer._state, progress)


def _longest_first(fits: list[_OneFit]) -> list[_OneFit]:
    return sorted(fits, key=lambda one: one.cost, reverse=True)


def _carry_out(ranks: Ranks, fits: list[_OneFit], n_threads: int, progress: bool | None) -> None:
    # Trains this rank's networks; returns when those of all ranks have ended.
    own = [one for one in _longest_first(fits) if one.rank == ranks.rank]
    begin, stopping = threading.Event(), threading.Event()

    def train(one: _OneFit) -> None:
        begin.wait()
        one.carry_out(stopping)

    with (
        ThreadPoolExecutor(max(1, min(n_threads, len(own))), "fastnn-fit") as pool,
        _shown(ranks, fits, progress) as show,
    ):
        try:
            pending = {pool.submit(train, one) for one in own}
            futures = list(pending)
            under_way = bool(fits)
            while under_way:
                try:
                    begin.set()  # before it, Ctrl-C raises KeyboardInterrupt, and nothing has been trained
                    pending = _look(pending)
                    told = ranks.all_tell("many fits", (len(pending), sum(one.rows_done for one in own)))
                    show(sum(rows_done for _, rows_done in told))
                    under_way = any(n_pending for n_pending, _ in told)
                except KeyboardInterrupt:
                    stopping.set()
        finally:
            stopping.set()  # whatever happens here, no fit goes on
            begin.set()
    for future in futures:
        future.result()  # raises what is no Exception


def _look(pending: set[Future[None]]) -> set[Future[None]]:
    # Returns those that have not ended after a while.
    if not pending:
        time.sleep(LOOK_SECONDS)  # while other ranks train
    return wait(pending, LOOK_SECONDS).not_done


def _tell_results(ranks: Ranks, fits: list[_OneFit]) -> None:
    # All ranks then have all results, networks and states, also after Ctrl-C.
    if ranks.size == 1:
        return
    own = {}
    for k, one in enumerate(fits):
        if one.rank == ranks.rank:
            one.result = _portable(one.result)
            own[k] = one.result, one.trainer.network.input_scale, progress_of(one.trainer._state)
    told = ranks.meet("the results", message=pickle.dumps(own), heeds_interrupts=False)
    of_all = [pickle.loads(message) for message in told]
    for k, one in enumerate(fits):
        result, input_scale, progress = of_all[one.rank][k]
        if one.rank != ranks.rank:
            one.result, one.trainer.network.input_scale = result, input_scale
        take_over(ranks, one.rank, one.trainer.network.parameters, one.trainer._state, progress)


def _portable(result: History | Exception) -> History | Exception:
    try:
        pickle.loads(pickle.dumps(result))
        return result
    except Exception:
        return RuntimeError(f"{type(result).__name__}: {result}")


@contextmanager
def _shown(ranks: Ranks, fits: list[_OneFit], progress: bool | None) -> Iterator[Callable[[int], None]]:
    # Yields a function that moves the bar of rank 0 to a number of rows.
    bar = open_bar(progress, sum(one.epochs * one.n_rows for one in fits)) if ranks.rank == 0 and fits else None
    if bar is None:
        yield lambda rows_done: None
        return

    def show(rows_done: int) -> None:
        bar.set_description(f"{len(fits)} fits", refresh=False)
        bar.update(max(0, rows_done - bar.n))

    with bar:
        yield show
