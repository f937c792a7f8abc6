"""The ranks of an MPI job, which train one network together: how they agree, and how they leave together.

Between runs of the kernels the ranks meet: each tells the others, in one small exchange, whether an exception was
raised or the user wants to interrupt it.  All of them then raise the same exception at the same place, so none waits
for one that has left.  What is decided by one rank, or from its data, is told at a meeting too.  If a rank does not
come within a time limit, it is taken as lost, and the job ends.

`Ranks(None)` is one rank, alone; meetings cost it nothing.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastnn.plan import Link

T = TypeVar("T")

#: Environment variable: seconds that a rank waits for the others before it ends the job.
LIMIT = "FASTNN_RANK_TIMEOUT"
LONGEST_WAIT = 600.0

# A Ctrl-C within so many seconds after another is the same: launchers and terminals may send it twice.
SAME_INTERRUPT_SECONDS = 1.0

# Exchanges by which the link is measured, and bytes of a large one.
LINK_ROUNDS = 20
LINK_BYTES = 1 << 20

# Columns of what each rank tells at a meeting.
PLACE, FAILED, INTERRUPTED, NUMBER, SIZE = range(5)


class Ranks:
    """The ranks of a communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm or None
        None: there is one rank, which is alone.

    Attributes
    ----------
    rank, size : int
        This rank, from 0, and how many there are.
    n_here : int
        Ranks on this machine.
    watch : Watch
        Ends the job if this rank waits for too long.
    """

    def __init__(self, comm: Any = None) -> None:
        self.comm = comm
        self.rank, self.size, self.n_here = 0, 1, 1
        self._agreed: BaseException | None = None
        self._interrupted, self._heeded = math.inf, False  # when Ctrl-C came, and whether all ranks know
        if comm is None or comm.size == 1:
            return
        self.rank, self.size = comm.rank, comm.size
        self._records = np.empty((self.size, 5), np.int64)
        self.watch = Watch(comm)
        end_all_if_uncaught()
        with self.together():  # another rank may have another environment
            self.watch.limit = _limit()
        names = self.all_tell("the machines", _mpi().Get_processor_name())
        self.n_here = names.count(names[self.rank])

    def meet(
        self,
        place: str,
        number: int = 0,
        message: bytes = b"",
        error: BaseException | None = None,
        heeds_interrupts: bool = True,
    ) -> list[bytes]:
        """Meet the others; return what each has to say, and leave their numbers in `numbers`.

        Parameters
        ----------
        place : str
            Where in a fit; all ranks must be at the same.
        number : int
            Told to the others.
        message : bytes
            Told to the others.
        error : exception or None
            What this rank cannot go on from.
        heeds_interrupts : bool
            Whether a kept Ctrl-C is told here.

        Raises
        ------
        Exception
            The first rank's that has one; its message names the rank.
        KeyboardInterrupt
            If one of the ranks was interrupted.
        RuntimeError
            If the ranks are not at the same place.
        """
        if error is not None:
            message = _pack(error)
        interrupted = self._interrupted < math.inf and not self._heeded
        own = np.array([zlib.crc32(place.encode()), error is not None, interrupted, number, len(message)], np.int64)
        with self.watched(place):
            self.comm.Allgather(own, self._records)
            messages = self._gather_bytes(message)
        records = self._records
        if records[:, FAILED].any():
            self._raise([messages[k] if records[k, FAILED] else None for k in range(self.size)], error)
        if heeds_interrupts and self.heed():
            self._agreed = KeyboardInterrupt()
            raise self._agreed
        if (records[:, PLACE] != records[0, PLACE]).any():
            self._agreed = RuntimeError(
                f"rank {self.rank} is at {place!r}, but others are not: all ranks must make the same calls"
            )
            raise self._agreed
        return messages

    def heed(self) -> bool:
        """Return whether a rank told of a Ctrl-C at the last meeting, which need not be told again."""
        interrupted = bool(self._records[:, INTERRUPTED].any())
        self._heeded |= interrupted
        return interrupted

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The numbers of all ranks at the last meeting."""
        return self._records[:, NUMBER]

    def _gather_bytes(self, message: bytes) -> list[bytes]:
        sizes = self._records[:, SIZE].tolist()
        if not any(sizes):
            return [b""] * self.size
        found = np.empty(sum(sizes), np.uint8)
        self.comm.Allgatherv(np.frombuffer(message, np.uint8), [found, sizes])
        ends = np.cumsum(sizes)
        return [found[end - n : end].tobytes() for end, n in zip(ends, sizes, strict=True)]

    def _raise(self, told: Sequence[bytes | None], own: BaseException | None) -> None:
        # Raises the first error; the own one as it is if all ranks have the same.
        if own is not None and all(message == told[self.rank] for message in told):
            self._agreed = own
            raise own
        rank = next(k for k, message in enumerate(told) if message is not None)
        error = _unpack(told[rank] or b"", rank)
        self._agreed = error
        raise error from (own if rank == self.rank else None)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within, an exception of one rank becomes one of all, when these meet."""
        try:
            yield
        except BaseException as error:
            if self.size == 1 or error is self._agreed:
                raise
            self.meet("an exception", error=error)

    def all_tell(self, place: str, value: T, heeds_interrupts: bool = True) -> list[T]:
        """Return the values of all ranks, which are pickled."""
        if self.size == 1:
            return [value]
        messages = self.meet(place, message=pickle.dumps(value), heeds_interrupts=heeds_interrupts)
        return [pickle.loads(message) for message in messages]

    def first_tells(self, place: str, make: Callable[[], T]) -> T:
        """Return what make returns on rank 0, which is pickled; only rank 0 calls it."""
        if self.size == 1:
            return make()
        with self.together():
            message = pickle.dumps(make()) if self.rank == 0 else b""
        told: T = pickle.loads(self.meet(place, message=message)[0])
        return told

    def spread(self, *arrays: NDArray[Any], owner: int = 0) -> None:
        """Copy the arrays of one rank into those of the others."""
        for array in arrays if self.size > 1 else ():
            if array.size:
                with self.watched("a copy of arrays"):
                    self.comm.Bcast(array, root=owner)

    def sum(self, place: str, values: NDArray[np.float64], heeds_interrupts: bool = True) -> NDArray[np.float64]:
        """Return the sums over the ranks, in their order."""
        told = self.all_tell(place, values, heeds_interrupts)
        total = told[0].copy()
        for other in told[1:]:
            total += other
        return total

    @cached_property
    def link(self) -> Link:
        """How fast the ranks exchange; measured once, by all ranks together."""
        tiny, large = (np.zeros(self.size * n, np.uint8) for n in (64, -(-LINK_BYTES // self.size)))
        latency, seconds = self._time_gather(tiny, LINK_ROUNDS), self._time_gather(large, LINK_ROUNDS // 4)
        received = large.size * (self.size - 1) / self.size
        return self.first_tells("the link", lambda: Link(latency, received / max(seconds - latency, 1e-9)))

    def _time_gather(self, array: NDArray[Any], rounds: int) -> float:
        # Each rank sends its part to each other, as when parts are large.
        part, others = array.size // self.size, [rank != self.rank for rank in range(self.size)]
        sent = [part * other for other in others], [part * self.rank] * self.size
        came = sent[0], [part * rank for rank in range(self.size)]
        with self.watched("the link"):
            times = []
            for _ in range(rounds):
                started = time.perf_counter()
                self.comm.Alltoallv([array, sent], [array, came])
                times.append(time.perf_counter() - started)
        return sorted(times)[rounds // 2]

    @property
    def in_place(self) -> Any:
        """What an MPI library takes for a buffer that is the other one too."""
        return _mpi().IN_PLACE

    @contextmanager
    def watched(self, place: str) -> Iterator[None]:
        """Within, where ranks exchange, a wait that is too long ends the job, and so does an exception."""
        self.watch.begin(place)
        try:
            yield
        except BaseException:
            self.fail(place)
        finally:
            self.watch.end()

    def fail(self, place: str) -> None:
        """End the job, since an exception was raised where ranks exchange."""
        traceback.print_exc()
        self.watch.abort(f"rank {self.rank} failed in an exchange with the others: {place}")

    @contextmanager
    def keeping_interrupts(self) -> Iterator[None]:
        """Within, a first Ctrl-C is kept for the next meeting, so that all ranks stop after the same step.

        A second one, after a while, ends the job.
        """
        main = threading.current_thread() is threading.main_thread()
        if self.size == 1 or not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._keep_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            late = self._interrupted < math.inf and not self._heeded
            self._interrupted, self._heeded = math.inf, False
        if late:  # nothing was left to interrupt
            raise KeyboardInterrupt

    def _keep_interrupt(self, *_: object) -> None:
        now = time.monotonic()
        if now - self._interrupted > SAME_INTERRUPT_SECONDS:
            self.watch.abort(f"rank {self.rank} was interrupted twice")
        self._interrupted = min(now, self._interrupted)


class Watch:
    """Ends the job if this rank waits for the others for too long: one of them may be lost, and will never come.

    Attributes
    ----------
    limit : float
        Seconds that are too long.
    """

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.limit = LONGEST_WAIT
        self._place = ""  # where this rank waits, if it does
        self._waited = 0.0
        self._over = threading.Event()
        threading.Thread(target=self._look, name="fastnn ranks", daemon=True).start()

    def begin(self, place: str) -> None:
        """Begin to wait."""
        self._place, self._waited = place, 0.0

    def end(self) -> None:
        """End the wait."""
        self._place = ""

    def close(self) -> None:
        """Look no longer."""
        self._over.set()

    @property
    def _rest(self) -> float:
        return min(1.0, self.limit / 4)

    def _look(self) -> None:
        # It adds up its own rests, so that the time for which all of the job is suspended does not count.
        while self._waited < self.limit:
            if self._over.wait(self._rest):
                return
            self._waited += self._rest if self._place else 0.0  # the limit may be another now
        self.abort(
            f"rank {self._comm.rank} has waited {self.limit:g} s for the other ranks at {self._place!r}: one of them "
            f"is lost, stopped or busy. {LIMIT} sets another limit, in seconds."
        )

    def abort(self, why: str) -> None:
        """End the job, with status 1."""
        print(f"fastnn: {why}", file=sys.stderr, flush=True)
        time.sleep(0.1)  # what was printed just before may be lost otherwise
        killer = threading.Timer(5.0, os._exit, (1,))  # if the library does not end this process
        killer.daemon = True
        killer.start()
        self._comm.Abort(1)


def _limit() -> float:
    given = os.environ.get(LIMIT, str(LONGEST_WAIT))
    try:
        limit = float(given)
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise ValueError(f"{LIMIT} must be a number of seconds above 0, not {given!r}")
    return limit


def _mpi() -> Any:
    return sys.modules["mpi4py.MPI"]


def _pack(error: BaseException) -> bytes:
    try:
        return pickle.dumps((type(error), str(error)))
    except Exception:  # of a class that cannot be pickled
        return pickle.dumps((RuntimeError, f"{type(error).__name__}: {error}"))


def _unpack(message: bytes, rank: int) -> BaseException:
    kind, text = pickle.loads(message)
    if kind is KeyboardInterrupt:
        return KeyboardInterrupt()
    try:
        error = kind(f"rank {rank}: {text}") if issubclass(kind, Exception) else None
    except Exception:  # its arguments are others
        error = None
    return error if isinstance(error, kind) else RuntimeError(f"rank {rank}: {kind.__name__}: {text}")


def end_all_if_uncaught() -> None:
    """See to it that an exception that ends this rank ends the job: the others would wait for this one."""
    from mpi4py.run import set_abort_status

    before = sys.excepthook
    if getattr(before, "aborts_ranks", False):
        return

    def hook(kind: type[BaseException], error: BaseException, where: Any) -> None:
        before(kind, error, where)
        set_abort_status(1)

    hook.aborts_ranks = True  # type: ignore[attr-defined]
    sys.excepthook = hook


@cache
def _key() -> int:
    # Of the attribute of a communicator that holds its ranks.
    key: int = _mpi().Comm.Create_keyval(delete_fn=lambda comm, key, ranks: ranks.watch.close())
    return key


def ranks_of(comm: Any) -> Ranks:
    """Return the ranks of a communicator; the same object each time."""
    if comm is None or comm.size == 1:
        return ALONE
    found: Ranks | None = comm.Get_attr(_key())
    if found is None:
        found = Ranks(comm)
        comm.Set_attr(_key(), found)
    return found


#: One rank.
ALONE = Ranks()
