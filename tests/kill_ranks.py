"""Mishaps of ranks: an MPI job meets them at random moments, and ends within a bound, or all its ranks go on.

    python tests/kill_ranks.py --times 100

A mishap meets the first or the last rank.  If it ends the job (a kill, a stop, an exception that nobody catches), no
process may be left, the checkpoint must be whole, and a job of any number of ranks, or one process without MPI, must
go on from it to the bits of a fit without mishaps.  If it is an exception, all ranks must raise the same, with the
rank's number where it was that rank's alone; then the same trainers must come to those bits too.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before OpenMP is loaded
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nor are there threads of BLAS

import numpy as np

import fastnn
from fastnn import SGD, Adam, Network, Trainer
from fastnn.callbacks import Callback, Checkpoint, EarlyStopping, Fit, HistoryFile
from fastnn.engine import local
from fastnn.engine.local import Engine
from fastnn.optimizers import LBFGS
from fastnn.storage import load_checkpoint
from fastnn.training import checkpoint
from fastnn.training.active import ActiveFit, DivergenceError

CHECKPOINT, HISTORY = "fit.checkpoint", "history.csv"

# In memory, where a file is written in less time; None: wherever temporary files are.
FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None

# A job that goes on is disturbed again with this probability.
AGAIN = 0.4

#: Seconds after its moment by which Ctrl-C of one rank comes.
LATEST = 0.01

# Seconds that ranks wait for each other: long, and where one is stopped.
PATIENT, IMPATIENT = 30, 0.5

# Seconds that a job may take, and from its end to that of all its processes.
TIMEOUT_SECONDS, LINGER_SECONDS = 120, 5


@dataclass
class Task:
    """A fit with a checkpoint at each chance."""

    sizes: list[int]
    n: int = 400
    epochs: int = 4
    settings: dict[str, Any] = field(default_factory=dict)
    stopping: bool = False

    @property
    def own_rows(self) -> bool:
        """Whether each rank has rows of its own."""
        return self.settings.get("rows") == "own"

    def data(self, rank: int, size: int) -> dict[str, Any]:
        """Rows, classes and validation data of a rank."""
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((self.n, self.sizes[0])), rng.integers(0, 3, self.n)
        V, v = rng.standard_normal((90, self.sizes[0])), rng.integers(0, 3, 90)
        if self.own_rows:  # more on later ranks
            own = slice(*(self.n * k * (k + 1) // (size * (size + 1)) for k in (rank, rank + 1)))
            X, y, V, v = X[own], y[own], V[rank::size], v[rank::size]
        return {"X": X, "y": y, "validation": (V, v), "epochs": self.epochs}

    def trainer(self, comm: Any, folder: Path, callbacks: tuple[Callback, ...] = (), **settings: Any) -> Trainer:
        """Return a trainer for it; each rank has the callbacks."""
        stopping = [EarlyStopping(patience=1, min_delta=0.01)] if self.stopping else []
        kept = [*callbacks, HistoryFile(folder / HISTORY), *stopping, Checkpoint(folder / CHECKPOINT, seconds=0)]
        given = {"batch_size": 40, "optimizer": Adam(0.01)} | self.settings | settings
        if comm is None:
            given.pop("rows", None)
        return Trainer(Network(self.sizes, seed=1), **given, n_threads=1, callbacks=kept, comm=comm)


def own(task: Task) -> Task:
    """The same with rows of its own for each rank."""
    return Task(task.sizes, task.n, task.epochs, task.settings | {"rows": "own"}, task.stopping)


_ALL_ROWS = {"batch_size": None, "optimizer": LBFGS()}
TASKS = {
    "shards": Task([30, 10, 3], n=1500, settings={"batch_size": 700}),
    "units": Task([70, 80, 3], settings={"batch_size": 64, "dropout": 0.2}),
    "deep units": Task([70, 80, 24, 3], settings={"batch_size": 64, "optimizer": SGD(0.1, 0.9), "clip_norm": 0.1}),
    "alone": Task([30, 10, 3], settings={"l2": 0.01}),
    "L-BFGS": Task([30, 10, 3], n=1500, epochs=15, settings=_ALL_ROWS),
    "early stopping": Task([30, 10, 3], n=1500, epochs=40, settings={"batch_size": 700}, stopping=True),
}
TASKS |= {f"own, {name}": own(TASKS[name]) for name in ("shards", "units", "L-BFGS", "early stopping")}


def digest(trainer: Trainer, history: Any) -> str:
    """Hash of parameters and history, to the bit."""
    content = hashlib.sha256(trainer.network.parameters.tobytes())
    for name, values in history.columns().items():
        content.update(b"" if name == "seconds" else np.array(values).tobytes())
    return content.hexdigest()


#: Whether a fit is under way.
in_fit = threading.Event()


def fit(folder: Path, trainer: Trainer, data: dict[str, Any]) -> Any:
    """Go on to the end; return the history."""
    in_fit.set()
    try:
        return trainer.fit(**data, resume=folder / CHECKPOINT)
    finally:
        in_fit.clear()


def trained(folder: Path, trainer: Trainer, data: dict[str, Any]) -> str:
    """Go on to the end; return the digest."""
    return digest(trainer, fit(folder, trainer, data))


# Mishaps that end a job: when, and what.

MOMENTS = {
    "checking": (Network, "check_data"),
    "stepping": (Engine, "advance"),
    "validating": (Network, "score"),
    "writing": (checkpoint, "write"),
    "waiting for a file": (ActiveFit, "call_on_epoch"),
}


@contextmanager
def at(moment: str, countdown: int, act: Callable[[], object]) -> Iterator[None]:
    """Within, act once, before the call of this number."""
    owner, name = MOMENTS[moment]
    original, left = getattr(owner, name), [countdown]

    def disturbed(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            act()
        return original(*arguments, **named)

    with mock.patch.object(owner, name, disturbed):
        yield


def later(draw: random.Random, name: str, most: float) -> Callable[[], object]:
    """Return what sends this process a signal, after some time, if it is in a fit then."""

    def send() -> None:
        # Afterwards MPI alone would have to notice it.
        if in_fit.is_set():
            os.kill(os.getpid(), signal.Signals[name])

    return lambda: threading.Timer(draw.uniform(0, most), send).start()


def raising(error: BaseException) -> Callable[[], None]:
    """Return what raises an error."""

    def act() -> None:
        raise error

    return act


@dataclass
class Fatal:
    """A mishap that ends a job: when, by the signal of which name, and what must be on the standard error stream."""

    moment: str = ""
    signal: str = ""
    said: str = ""


FATAL = {
    **{f"kill, {name}": Fatal(name, "SIGKILL") for name in ("checking", "stepping", "validating", "writing")},
    "stop": Fatal("stepping", "SIGSTOP", "has waited"),
    "exception between fits": Fatal(said="between fits"),
    "uncaught in a callback": Fatal(said="a callback's"),
    "uncaught while checking": Fatal("checking", said="in a check"),
    "Ctrl-C": Fatal(),
}


class Boom(Exception):
    """What users' code raises."""


class Raises(Callback):
    """Raises in one of its methods, at a call."""

    def __init__(self, name: str, countdown: int, error: BaseException | None = None) -> None:
        self.left, self.error = countdown, error or Boom("a callback's")
        setattr(self, name, self._count)

    def _count(self, fit: Fit) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


def fatal_job(kind: str, task: Task, folder: Path, comm: Any, unlucky: bool, draw: random.Random) -> str:
    """Train, but this ends the job if this rank is the unlucky one; kinds as in `FATAL`."""
    moment, name = FATAL[kind].moment, FATAL[kind].signal
    data = task.data(comm.rank, comm.size)
    callbacks: tuple[Callback, ...] = ()
    countdown = draw.randint(1, 2) if moment == "checking" else draw.randint(1, 8)
    if kind == "uncaught in a callback":
        callbacks = (Raises(draw.choice(["on_start", "on_chunk", "on_epoch", "on_end"]), 1),)
    if kind == "Ctrl-C":
        return interrupted_job(task, folder, comm, data)
    trainer = task.trainer(comm, folder, callbacks)
    disturbed: AbstractContextManager[None] = nullcontext()
    if unlucky and name:
        if moment == "writing" and comm.rank:
            moment = "waiting for a file"
        disturbed = at(moment, countdown, later(draw, name, 0.02 if moment == "stepping" else 0.003))
    elif unlucky and moment:
        disturbed = at(moment, 1, raising(Boom("in a check")))
    with disturbed:
        answer = trained(folder, trainer, data)
    if kind == "exception between fits":
        if unlucky:
            raise Boom("between fits")
        trainer.fit(**data)
    return answer


def interrupted_job(task: Task, folder: Path, comm: Any, data: dict[str, Any]) -> str:
    """Train until Ctrl-C comes from outside; all ranks return the history."""
    told = Raises("on_epoch", -1)
    told.on_epoch = lambda fit: (folder / "begun").touch()  # type: ignore[method-assign]
    trainer = task.trainer(comm, folder, (told,))
    history = trainer.fit(**data | {"epochs": 10**6})
    assert history.interrupted
    assert len(set(comm.allgather(digest(trainer, history)))) == 1
    return "interrupted"


# Kinds that only rank 0 meets, since callbacks and files are its; and one that all meet.
FIRST_ONLY = ("full disk", "uncaught in a callback", "Ctrl-C")


# Mishaps that all ranks catch.


@dataclass
class Caught:
    """An exception that all ranks raise, or Ctrl-C.

    Attributes
    ----------
    error, text
        Its class and part of its message; None for Ctrl-C of one rank.
    change : callable
        Changes the arguments of the fit on the rank.
    prepare : callable
        Changes the trainer on the rank.
    within : callable
        Returns a context of the fit on the rank.
    callback : str
        Name of a method of a callback that raises; it is rank 0's.
    begins : bool
        Whether training may have begun.
    on_all : bool
        Whether all ranks meet it.
    """

    error: type[BaseException] | None
    text: str = ""
    change: Callable[[dict[str, Any]], dict[str, Any]] = dict
    prepare: Callable[[Trainer], object] = id
    within: Callable[[random.Random], AbstractContextManager[None]] = lambda draw: nullcontext()
    callback: str = ""
    begins: bool = False
    on_all: bool = False


def with_nan(data: dict[str, Any]) -> dict[str, Any]:
    """Data with a NaN."""
    X = data["X"].copy()
    X[-1, 3] = np.nan
    return data | {"X": X}


def other_class(data: dict[str, Any]) -> dict[str, Any]:
    """Data with one other class, in the first row."""
    y = data["y"].copy()
    y[0] = (y[0] + 1) % 3
    return data | {"y": y}


@contextmanager
def full_disk() -> Iterator[None]:
    """Within, files cannot be longer than some bytes."""
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def stray(draw: random.Random) -> Iterator[None]:
    """Within, a bit of a parameter changes at the end of the first epoch."""
    original = ActiveFit.call_on_epoch

    def change(active: ActiveFit) -> None:
        if len(active.fit.history) == 1:
            parameters = active.parameters
            writeable = parameters.flags.writeable
            parameters.flags.writeable = True
            parameters.view(np.uint8)[draw.randrange(parameters.nbytes) // 8 * 8] ^= 1
            parameters.flags.writeable = writeable
        original(active)

    with mock.patch.object(ActiveFit, "call_on_epoch", change):
        yield


def set_up(**settings: Any) -> Callable[[Trainer], None]:
    """Return what changes a trainer's settings."""

    def prepare(trainer: Trainer) -> None:
        for name, value in settings.items():
            setattr(trainer, name, value)

    return prepare


def out_of_memory(moment: str, most: int) -> Callable[[random.Random], AbstractContextManager[None]]:
    """Return a context in which a call fails."""
    return lambda draw: at(moment, draw.randint(1, most), raising(MemoryError("no memory")))


CAUGHT = {
    "NaN": Caught(ValueError, "finite", with_nan),
    "short y": Caught(ValueError, "", lambda data: data | {"y": data["y"][1:]}),
    "class -1": Caught(ValueError, "", lambda data: data | {"y": data["y"] - 1}),
    "X of another width": Caught(ValueError, "", lambda data: data | {"X": data["X"][:, 1:]}),
    "no X": Caught(Exception, "", lambda data: data | {"X": None}),
    "epochs": Caught(ValueError, "epochs", lambda data: data | {"epochs": -1}),
    "other epochs": Caught(ValueError, "epochs", lambda data: data | {"epochs": 77}),
    "sample_weight": Caught(ValueError, "", lambda data: data | {"sample_weight": -np.ones(len(data["y"]))}),
    "no validation": Caught(ValueError, "validation", lambda data: data | {"validation": None}),
    "validation": Caught(TypeError, "validation", lambda data: data | {"validation": 3}),
    "batch_size": Caught(ValueError, "batch_size", prepare=set_up(batch_size=1000)),
    "optimizer": Caught(ValueError, "optimizer", prepare=set_up(optimizer=SGD(0.77))),
    "sparse": Caught(ValueError, "sparse", prepare=set_up(sparse=True)),
    "callbacks": Caught(TypeError, "callbacks", prepare=lambda trainer: trainer.callbacks.append(3)),
    "memory, checking": Caught(MemoryError, "memory", within=out_of_memory("checking", 2)),
    "memory, stepping": Caught(MemoryError, "memory", within=out_of_memory("stepping", 8), begins=True),
    "memory, validating": Caught(MemoryError, "memory", within=out_of_memory("validating", 2), begins=True),
    **{
        f"callback, {name}": Caught(Boom, "a callback's", callback=name, begins=name != "on_start")
        for name in ("on_start", "on_chunk", "on_epoch", "on_end")
    },
    "divergence": Caught(DivergenceError, "epoch", prepare=set_up(optimizer=SGD(1e308)), begins=True, on_all=True),
    "full disk": Caught(OSError, "", within=lambda draw: full_disk(), begins=True),
    "stray": Caught(RuntimeError, "no longer", within=stray, begins=True),
    "Ctrl-C of one rank": Caught(
        None, within=lambda draw: at("stepping", draw.randint(1, 8), later(draw, "SIGINT", LATEST)), begins=True
    ),
}
# Kinds that are about the same data on all ranks, which mean nothing with rows of their own.
SHARED_ONLY = {
    "other data": Caught(ValueError, "y must be the same", other_class),
    "more data": Caught(
        ValueError,
        "must be the same",
        lambda data: data | {"X": np.vstack([data["X"]] * 2), "y": np.tile(data["y"], 2)},
    ),
    "sparse data": Caught(ValueError, "must be the same", lambda data: data | {"X": data["X"] * (data["X"] > 1.5)}),
    "other validation": Caught(
        ValueError,
        "validation must be the same",
        lambda data: data | {"validation": tuple(part[1:] for part in data["validation"])},
    ),
}


def catch(name: str, task: Task, folder: Path, comm: Any, rank: int, draw: random.Random) -> str:
    """Meet a mishap, and go on from it; return the digest of the end."""
    kind = (CAUGHT | SHARED_ONLY)[name]
    data, meets = task.data(comm.rank, comm.size), kind.on_all or comm.rank == rank
    callbacks = (Raises(kind.callback, draw.randint(1, 2) if kind.callback != "on_start" else 1),)
    trainer = task.trainer(comm, folder, callbacks if kind.callback else ())
    before = dict(vars(trainer))
    if meets:
        kind.prepare(trainer)
    said, raised = "nothing", None
    try:
        with kind.within(draw) if meets else nullcontext():
            history = fit(folder, trainer, kind.change(data) if meets else data)
            if kind.error is None:
                with suppress(KeyboardInterrupt):  # what comes after the end must not come into the next fit
                    time.sleep(2 * LATEST)
        if kind.error is None:
            said = f"interrupted: {history.interrupted}, {digest(trainer, history)}"
    except Exception as error:
        said, raised = f"{type(error).__name__}: {error}", error
    if raised is not None:
        assert kind.error is not None, said
        assert isinstance(raised, kind.error), said
        assert kind.text in said, said
        same = kind.on_all or "must be the same" in said or kind.error is RuntimeError
        assert same or f"rank {0 if kind.callback else rank}: " in said, said
    told = comm.allgather(said)
    assert len(set(told)) == 1, told
    # What was to fail at a certain call may have ended before.
    assert said != "nothing" or name.startswith(("callback", "memory")), f"{name}: no error"
    assert len(set(comm.allgather(trainer.network.parameters.tobytes()))) == 1, "the parameters differ"
    for setting in ("optimizer", "batch_size", "sparse", "callbacks"):
        vars(trainer)[setting] = before[setting]
    if name == "callbacks" and meets:
        trainer.callbacks.pop()
    there = comm.bcast((folder / CHECKPOINT).exists())
    if there and comm.rank == 0:
        load_checkpoint(str(folder / CHECKPOINT))
    if kind.error is DivergenceError:  # the checkpoint is of another fit
        comm.barrier()
        (folder / CHECKPOINT).unlink(missing_ok=True)
        there = False
    if kind.begins and not there:  # a new beginning
        trainer = task.trainer(comm, folder)
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, Raises)]
    return trained(folder, trainer, data)


@contextmanager
def small_pieces() -> Iterator[None]:
    """Within, runs are of a batch or two, and plans are shared though that takes longer."""
    with (
        mock.patch.object(fastnn.tuning, "CHUNK_SECONDS", 2e-4),
        mock.patch.object(fastnn.tuning, "TRIAL_SECONDS", 1e-4),
        mock.patch.object(local, "settle_sharing", lambda plan, *_: plan),
    ):
        yield


def work(job: dict[str, Any]) -> None:
    """Be a rank of a job, or the only process; leave the answer in the folder."""
    comm = None
    if job["ranks"]:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
    folder, draw = Path(job["folder"]), random.Random(job["seed"])
    rank = 0 if comm is None else comm.rank
    with small_pieces():
        if job["kind"] in FATAL:
            answer = fatal_job(job["kind"], TASKS[job["tasks"][0]], folder, comm, rank == job["rank"], draw)
        else:
            answer = json.dumps({name: answer_to(job, name, folder, comm, draw) for name in job["tasks"]})
    (folder / f"answer {rank}").write_text(answer)


def answer_to(job: dict[str, Any], name: str, folder: Path, comm: Any, draw: random.Random) -> str:
    """Train, if there is no mishap; or meet it a number of times, and go on."""
    task = TASKS[name]
    rank, size = (0, 1) if comm is None else (comm.rank, comm.size)
    if not job["kind"]:
        place = folder if len(job["tasks"]) == 1 else folder / name
        place.mkdir(exist_ok=True)
        return trained(place, task.trainer(comm, place), task.data(rank, size))
    answers = set()
    for i, kind in itertools.product(range(job["times"]), job["kind"].split("; ")):
        place = folder / f"{name} {kind} {i}"
        if rank == 0:
            place.mkdir()
        comm.barrier()
        answers.add(catch(kind, task, place, comm, job["rank"], draw))
        comm.barrier()
        if rank == 0:
            shutil.rmtree(place)
    assert len(answers) == 1, answers
    return answers.pop()


# The process that starts jobs.


def answer_in(folder: Path) -> str:
    """What the ranks have left, all the same; it is deleted."""
    found = set()
    for path in folder.glob("answer *"):
        found.add(path.read_text())
        path.unlink()
    assert len(found) < 2, found
    return found.pop() if found else ""


def processes_of(folder: Path) -> list[int]:
    """Numbers of the processes whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return found


@dataclass
class Jobs:
    """Starts jobs in a folder, and keeps what they should come to."""

    work: Path
    counts: Counter[str] = field(default_factory=Counter)
    expected: dict[tuple[str, int], str] = field(default_factory=dict)
    number: int = 0

    def folder(self) -> Path:
        """Make a new folder."""
        self.number += 1
        folder = self.work / f"job{self.number}."
        folder.mkdir()
        return folder

    def run(
        self, folder: Path, tasks: list[str], n_ranks: int, kind: str = "", rank: int = 0, **more: Any
    ) -> tuple[int, str]:
        """Run a job to its end; return its status, and what it wrote to the standard error stream."""
        job = {"folder": str(folder), "tasks": tasks, "ranks": n_ranks, "kind": kind, "rank": rank, "seed": 0} | more
        launcher = ["mpiexec", "-n", str(n_ranks)] if n_ranks else []
        limit = IMPATIENT if kind == "stop" else PATIENT
        started = time.monotonic()
        child = subprocess.Popen(
            [*launcher, sys.executable, __file__, "--job", json.dumps(job)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"FASTNN_RANK_TIMEOUT": str(limit)},
        )
        try:
            if kind == "Ctrl-C":
                self._interrupt(child, folder, random.Random(job["seed"]))
            _, told = child.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            raise AssertionError(f"{job} ran for more than {TIMEOUT_SECONDS} s") from None
        took, ended = time.monotonic() - started, time.monotonic()
        while processes_of(folder):
            assert time.monotonic() - ended < LINGER_SECONDS, f"{job} left {processes_of(folder)}"
            time.sleep(0.01)
        assert took < PATIENT or kind not in FATAL, f"{job} waited to its limit: {told}"
        return child.returncode, told

    @staticmethod
    def _interrupt(child: subprocess.Popen[str], folder: Path, draw: random.Random) -> None:
        while not (folder / "begun").exists() and child.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.05))
        child.send_signal(signal.SIGINT)

    def undisturbed(self, tasks: list[str], n_ranks: int) -> dict[str, str]:
        """Return what tasks come to; where rows are shared, on one process."""
        for n, some in ((0, False), (n_ranks, True)):
            left = [name for name in tasks if TASKS[name].own_rows == some and (name, n_ranks) not in self.expected]
            if left:
                folder = self.folder()
                status, told = self.run(folder, ["alone", *left], n)  # the first does not matter
                assert status == 0, told
                self.expected |= {(name, n_ranks): answer for name, answer in json.loads(answer_in(folder)).items()}
                shutil.rmtree(folder)
        return {name: self.expected[name, n_ranks] for name in tasks}

    def end(self, kind: str, task: str, n_ranks: int, rank: int, draw: random.Random) -> None:
        """End a job, perhaps some that go on from it too; then let one go on to the end."""
        folder = self.folder()
        expected = self.undisturbed([task], n_ranks)
        while True:
            status, told = self.run(folder, [task], n_ranks, kind, rank, seed=draw.randrange(10**6))
            self.check(folder)
            answer = answer_in(folder)
            if kind == "Ctrl-C":
                assert (status, answer) == (0, "interrupted"), (status, told)
            elif status:
                assert FATAL[kind].said in told, (status, told)
            else:  # it ended before
                assert kind.startswith(("kill", "stop")), told
                assert answer == expected[task], "other bits"
            self.counts[f"{kind}, {'first' if rank == 0 else 'last'} rank"] += status != 0 or kind == "Ctrl-C"
            if status == 0 or draw.random() > AGAIN:
                break
        if kind != "Ctrl-C":  # which was to train for longer
            chosen = n_ranks if TASKS[task].own_rows else draw.choice([0, n_ranks, n_ranks + 1])
            status, told = self.run(folder, [task], chosen)
            assert status == 0, told
            assert json.loads(answer_in(folder)) == expected, f"other bits on {chosen} ranks"
            self.counts[f"resumed on {chosen} ranks"] += 1
        shutil.rmtree(folder)

    def check(self, folder: Path) -> None:
        """Read what a mishap has left."""
        if (folder / CHECKPOINT).exists():
            load_checkpoint(str(folder / CHECKPOINT))
        if (folder / HISTORY).exists():
            lines = (folder / HISTORY).read_text().splitlines()
            assert [line.split(",")[0] for line in lines[1:]] == [str(i) for i in range(1, len(lines))], lines

    def catch(
        self, kinds: list[str], tasks: list[str], n_ranks: int, rank: int, times: int, draw: random.Random
    ) -> None:
        """Let a job meet exceptions of these kinds, in each task."""
        folder, seed = self.folder(), draw.randrange(10**6)
        status, told = self.run(folder, tasks, n_ranks, "; ".join(kinds), rank, seed=seed, times=times)
        assert status == 0, told
        assert json.loads(answer_in(folder)) == self.undisturbed(tasks, n_ranks), "other bits"
        for kind in kinds:
            self.counts[f"{kind}, {'first' if rank == 0 else 'last'} rank"] += times * len(tasks)
        shutil.rmtree(folder)


def main(arguments: list[str] | None = None) -> int:
    """Make mishaps of each kind on the first and on the last rank, until there were enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--task", choices=list(TASKS), nargs="*", default=list(TASKS))
    parser.add_argument("--kind", nargs="*", default=[*FATAL, *CAUGHT, *SHARED_ONLY])
    parser.add_argument("--job", type=json.loads)
    options = parser.parse_args(arguments)
    if options.job:
        work(options.job)
        return 0
    draw, started = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory(dir=FOLDER) as place:
        jobs = Jobs(Path(place))
        for kind in options.kind:
            for rank in (0, options.ranks - 1):
                if rank and (
                    kind.startswith("callback, ") or kind in ("full disk", "Ctrl-C", "uncaught in a callback")
                ):
                    continue  # callbacks are rank 0's
                try:
                    repeat(jobs, kind, rank, options, draw)
                except AssertionError:
                    print(f"{kind}, rank {rank}, seed {options.seed}:", file=sys.stderr)
                    raise
    print("\n".join(f"{count} {name}" for name, count in jobs.counts.items()))
    print(f"all ended, and went on, in {time.monotonic() - started:.0f} s")
    return 0


def repeat(jobs: Jobs, kind: str, rank: int, options: argparse.Namespace, draw: random.Random) -> None:
    """Make enough mishaps of a kind on a rank."""
    names = [name for name in options.task if may_meet(kind, name)]
    draw.shuffle(names)
    if kind not in FATAL:
        names = names[: options.times]
        jobs.catch([kind], names, options.ranks, rank, -(-options.times // len(names)), draw)
        return
    label = f"{kind}, {'first' if rank == 0 else 'last'} rank"
    for name in itertools.cycle(names):
        jobs.end(kind, name, options.ranks, rank, draw)
        if jobs.counts[label] >= options.times:
            break


def may_meet(kind: str, task: str) -> bool:
    """Whether the mishap means something for the task."""
    if "L-BFGS" in task and kind in ("optimizer", "sparse", "divergence", "batch_size"):
        return False
    return kind not in SHARED_ONLY or not TASKS[task].own_rows


if __name__ == "__main__":
    sys.exit(main())
