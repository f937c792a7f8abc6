"""Threads: how many may run, which fits and runs of kernels are under way, and what a fork does to them."""

from __future__ import annotations

import ctypes
import importlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

from fastnn import tuning
from fastnn.kernels import _cpu, epoch


def available_threads() -> int:
    """Threads to use by default: the processors that this process may run on, at most OMP_NUM_THREADS."""
    if not epoch.HAS_OPENMP:
        return 1
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        available = os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(available, int(limit)) if limit.isdigit() and int(limit) > 0 else available


class _Sharers:
    """Threads in fits or runs of kernels, among which the processors are shared; results do not depend on the shares.

    A forked child has no other threads, so only its own still does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within: dict[int, int] = {}  # how often, by thread
        self._limits: list[tuple[int, int]] = []  # (threads, the thread that set it)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._in_child)

    def __enter__(self) -> None:
        with self._lock:
            _enter(self._within)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            _leave(self._within)

    @contextmanager
    def limit(self, n_threads: int) -> Iterator[None]:
        """Within, all sharers of the process together use at most so many threads, but each at least one."""
        limit = n_threads, threading.get_ident()
        self._limits.append(limit)
        try:
            yield
        finally:
            self._limits.remove(limit)

    def share(self, wanted: int) -> int:
        """Return how many of the wanted threads one sharer may use now."""
        if wanted == 1:
            return 1
        n_sharers = len(self._within.keys() | kernel_run.threads())
        if n_sharers < 2 and not self._limits:
            return wanted
        limit = min(self._limits)[0] if self._limits else available_threads()
        return min(wanted, max(1, limit // max(1, n_sharers)))

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        _keep_this_thread(self._within)
        self._limits = [limit for limit in self._limits if limit[1] == threading.get_ident()]


#: Context manager for each fit, which shares the processors with the others and with runs of kernels.
sharers = _Sharers()


class _Forks:
    """Knows whether this process was forked from one whose threads had started.

    GNU's OpenMP does not survive that: the child has no threads, and a parallel region would wait for them forever.
    The child then uses one thread, with the same results.
    """

    def __init__(self) -> None:
        self.threads_started = False
        self.threads_lost = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        self.threads_lost = self.threads_lost or self.threads_started

    def usable_threads(self, wanted: int) -> int:
        """Return how many of the wanted threads can be used now; note that they will be started."""
        if self.threads_lost:
            return 1
        wanted = sharers.share(wanted)
        self.threads_started = self.threads_started or wanted > 1
        return wanted


forks = _Forks()


def handover_seconds() -> float | None:
    """Measure the time for a cache line from one core to another; None without two threads.

    That is the latency of whatever one thread writes and another reads.  Virtual processors are moved now and then, so
    it may change within minutes: from 28 ns, with a cache that both share, to 160.
    """
    if available_threads() < 2 or forks.usable_threads(2) < 2:
        return None
    seconds = _cpu.handover_seconds()
    return seconds if seconds > 0 else None


class _BlasLimit:
    """Keeps BLAS single-threaded while any thread is within it.

    A forked child has no other threads, so only its own is still within.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._within: dict[int, int] = {}  # how often, by thread
        self._before: list[int] = []  # threads of each library, outside
        if hasattr(os, "register_at_fork"):
            # A fork while another thread holds the lock would copy counts that are half changed.
            os.register_at_fork(
                before=lambda: self._lock.acquire(),
                after_in_parent=lambda: self._lock.release(),
                after_in_child=self._in_child,
            )

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._before = [library.num_threads for library in _blas().lib_controllers]
                self._set([1] * len(self._before))
            _enter(self._within)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            _leave(self._within)
            self._lift()

    def _lift(self) -> None:
        if not self._within:
            self._set(self._before)
            self._before = []

    def _set(self, numbers: list[int]) -> None:
        for set_threads, number in zip(_blas_setters(), numbers, strict=False):  # none outside
            set_threads(number)

    def _in_child(self) -> None:
        self._lock = threading.RLock()
        _keep_this_thread(self._within)
        self._lift()


class _Runs:
    """Runs of the kernels under way, in any thread; BLAS is single-threaded within them.

    A fork waits until all of them have returned, in tens of milliseconds, and new ones wait for the fork.  BLAS has
    locks within its products, and a child that inherits a closed one would wait for it forever.
    """

    def __init__(self, blas_limit: _BlasLimit) -> None:
        self._blas_limit = blas_limit
        self._begin()
        self._within: dict[int, int] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_child
            )

    def _begin(self) -> None:
        self._lock, self._nforks = threading.RLock(), 0
        self._changed = threading.Condition(self._lock)

    def __enter__(self) -> None:
        with self._lock:
            if self._nforks > 0 and threading.get_ident() not in self._within:
                self._changed.wait_for(lambda: self._nforks == 0)
            _enter(self._within)
        self._blas_limit.__enter__()

    def __exit__(self, *_: object) -> None:
        self._blas_limit.__exit__()
        with self._lock:
            _leave(self._within)
            if self._nforks > 0:
                self._changed.notify_all()

    def threads(self) -> Set[int]:
        """Threads that have a run under way."""
        return self._within.keys()

    def _before_fork(self) -> None:
        self._changed.acquire()
        self._nforks += 1
        self._changed.wait_for(lambda: not self._within.keys() - {threading.get_ident()}, tuning.LONGEST_RUN_SECONDS)

    def _after_fork(self) -> None:
        self._nforks -= 1
        self._changed.notify_all()
        self._changed.release()

    def _in_child(self) -> None:
        self._begin()
        _keep_this_thread(self._within)


def _enter(within: dict[int, int]) -> None:
    me = threading.get_ident()
    within[me] = within.get(me, 0) + 1


def _leave(within: dict[int, int]) -> None:
    me = threading.get_ident()
    count = within.get(me, 1)
    if count > 1:
        within[me] = count - 1
    else:
        within.pop(me, None)


def _keep_this_thread(within: dict[int, int]) -> None:
    for thread in within.keys() - {threading.get_ident()}:
        del within[thread]


@cache
def _blas() -> Any:
    # threadpoolctl's controller of the BLAS that SciPy calls, or of all if SciPy's is not recognised.  Wheels have it
    # in scipy.libs, on macOS in scipy/.dylibs.
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().select(user_api="blas")
    paths = [library["filepath"] for library in found.info()]
    scipys = [path for path in paths if any("scipy" in part for part in Path(path).parts[-3:-1])]
    return found.select(filepath=scipys) if scipys else found


@cache
def _blas_setters() -> list[Callable[[int], Any]]:
    return [_setter(library) for library in _blas().lib_controllers]


def _setter(library: Any) -> Callable[[int], Any]:
    # OpenBLAS has one number for all threads of the process.  threadpoolctl 3.8 lets only one thread change it and
    # silently ignores the others, whose products would then go by several threads; so OpenBLAS itself is asked.
    if getattr(library, "threading_layer", "openmp") != "openmp":  # OpenMP has a number for each thread
        functions = ctypes.CDLL(library.filepath)
        for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
            found = getattr(functions, f"{prefix}openblas_set_num_threads{suffix}", None)
            if found is not None:
                return cast("Callable[[int], Any]", found)
    return cast("Callable[[int], Any]", library.set_num_threads)


def blas_libraries() -> list[dict[str, Any]]:
    """Return what threadpoolctl knows of the BLAS that SciPy calls, or of all if SciPy's is not recognised."""
    libraries: list[dict[str, Any]] = _blas().info()
    return libraries


#: Context manager within which BLAS uses one thread; it restores the caller's setting.
single_threaded_blas = _BlasLimit()

#: Context manager for each call of kernels with products; BLAS uses one thread within it.
kernel_run = _Runs(single_threaded_blas)


def import_whole(name: str) -> Any:
    """Return a module, imported if necessary; no process is forked meanwhile.

    A module that another thread has half imported stays so in a child, which would wait for it forever.
    """
    with kernel_run:
        return importlib.import_module(name)
