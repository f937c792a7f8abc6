"""Kills: training, checkpoints and files meet SIGKILL at random moments, and nothing may be lost.

    python tests/kills.py --kills 1000

A child process trains, or saves in a loop, and is killed after a random time.  Then all files must be whole, and a
child that goes on from them must come to the bits of one that never was killed; on its way it may be killed again.
The children are forked from a process that has not started any threads, and one runs at a time.
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
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before OpenMP is loaded
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nor are there threads of BLAS

import numpy as np
import safetensors.numpy  # noqa: F401  children find it loaded
import scipy.optimize
import scipy.sparse

import fastnn
from fastnn import SGD, Adam, Network, Trainer, _mapped, cli
from fastnn.callbacks import Callback, Checkpoint, EarlyStopping, Fit, HistoryFile
from fastnn.datasets import load_mnist
from fastnn.layers import AveragePool2D, Category, Columns, Conv2D, Dense, MaxPool2D, Number
from fastnn.optimizers import LBFGS
from fastnn.storage import load_checkpoint, save_checkpoint

CHECKPOINT, HISTORY, MODEL = "fit.checkpoint", "history.csv", "model.safetensors"

# A resumed fit is killed again with this probability.
AGAIN = 0.7

# Nothing here takes so long, however busy the machine is.
TIMEOUT_SECONDS = 120


def digest(*arrays: Any) -> str:
    """Hash of numbers, to the bit."""
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def dense(n: int, n_in: int, seed: int = 0) -> tuple[Any, Any]:
    """Rows of numbers and their classes."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, n_in)), rng.integers(0, 3, n)


def sparse(n: int, n_in: int, each: int) -> tuple[Any, Any]:
    """CSR with this many non-zeros a row, and classes."""
    X, y = dense(n, n_in)
    columns = np.argsort(X, axis=1)[:, :each]
    kept = np.zeros_like(X)
    np.put_along_axis(kept, columns, np.take_along_axis(X, columns, 1), 1)
    return scipy.sparse.csr_matrix(kept), y


class Slowly(Callback):
    """Rests between chunks, so that a kill also meets fits that are short."""

    def on_chunk(self, fit: Fit) -> None:
        """Rest."""
        time.sleep(0.001)


@dataclass
class Fitting:
    """A fit with a checkpoint at each chance; `run` returns what must be the same whether it was killed or not."""

    data: Callable[[], tuple[Any, Any]]
    sizes: list[Any]
    epochs: int = 5
    network: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    stopping: dict[str, Any] | None = None

    def run(self, folder: Path) -> str:
        """Go on to the end."""
        X, y = self.data()
        network = Network(self.sizes, seed=1, **self.network)
        callbacks: list[Callback] = [Slowly(), HistoryFile(folder / HISTORY)]
        if self.stopping is not None:
            callbacks.append(EarlyStopping(**self.stopping))
        # The last, so that it keeps what the others came to.
        callbacks.append(Checkpoint(folder / CHECKPOINT, seconds=0))
        trainer = Trainer(network, **{"n_threads": 2, "batch_size": 40} | self.settings, callbacks=callbacks)
        pairs = {"X": X, "y": y}
        if y is None:
            pairs = {"X": X}
        validation = dense(50, network.n_in, seed=5)
        # Chunks as short as a batch or two.
        with mock.patch.object(fastnn.tuning, "CHUNK_SECONDS", 2e-4):
            history = trainer.fit(**pairs, epochs=self.epochs, validation=validation, resume=folder / CHECKPOINT)
        kept = {name: values for name, values in history.columns().items() if name != "seconds"}
        told = (folder / HISTORY).read_text().splitlines()
        assert len(told) == len(history) + 1, told
        return digest(network.parameters, *kept.values())

    def check(self, folder: Path) -> None:
        """Read what a kill has left."""
        if (folder / CHECKPOINT).exists():
            content, tensors = load_checkpoint(str(folder / CHECKPOINT))
            assert not any(np.isnan(tensor).any() for tensor in tensors.values()), content
        if (folder / HISTORY).exists():
            check_table((folder / HISTORY).read_text())


def check_table(text: str) -> None:
    """A CSV of whole lines, one an epoch."""
    lines = [line.split(",") for line in text.splitlines()]
    assert text.endswith("\n"), text
    assert lines[0][0] == "epoch", text
    assert {len(line) for line in lines} == {len(lines[0])}, text
    assert [line[0] for line in lines[1:]] == [str(i) for i in range(1, len(lines))], text


class Command:
    """``fastnn train`` with a checkpoint, a history and a model."""

    def run(self, folder: Path) -> str:
        """Give the same command until it ends."""
        paths = ["--checkpoint", folder / CHECKPOINT, "--history", folder / HISTORY, "--save", folder / MODEL]
        words = ["--rows", 300, "--hidden", 24, "--epochs", 6, "--batch-size", 32, "--threads", 2, "--dropout", 0.2]
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            assert cli.main(["train", *map(str, words + paths)]) == 0
        return digest(Network.load(folder / MODEL).parameters)

    def check(self, folder: Path) -> None:
        """Read what a kill has left."""
        Fitting.check(self, folder)  # type: ignore[arg-type]  it has the same files
        if (folder / MODEL).exists():
            Network.load(folder / MODEL)


class Saving:
    """Networks that are saved over each other, and a history that grows."""

    def run(self, folder: Path) -> str:
        """Save some thousand files."""
        networks = [Network([40, 10 + 20 * i, 3], seed=i) for i in range(3)]
        fit = Fit(Trainer(networks[0]), 100, 1)
        writers = [HistoryFile(folder / HISTORY), HistoryFile(folder / "history.json")]
        for i in range(150):
            networks[i % 3].save(folder / MODEL)
            save_checkpoint(str(folder / CHECKPOINT), {"i": i}, {"numbers": np.full(1000 + 100 * i, i)})
            fit.history.record(0.1, -1.0 / (i + 1), -1.0, (-1.0, 0.5))
            for writer in writers:
                writer.on_epoch(fit)
        return "saved"

    def check(self, folder: Path) -> None:
        """Read what a kill has left."""
        if (folder / MODEL).exists():
            network = Network.load(folder / MODEL)
            expected = Network(network.sizes, seed=(network.sizes[1] - 10) // 20)
            np.testing.assert_array_equal(network.parameters, expected.parameters)
        if (folder / CHECKPOINT).exists():
            content, tensors = load_checkpoint(str(folder / CHECKPOINT))
            np.testing.assert_array_equal(tensors["numbers"], np.full(1000 + 100 * content["i"], content["i"]))
        if (folder / HISTORY).exists():
            check_table((folder / HISTORY).read_text())
        if (folder / "history.json").exists():
            columns = json.loads((folder / "history.json").read_text())
            assert len({len(values) for values in columns.values()}) == 1, columns


def table() -> tuple[Any, Any]:
    """Rows of a table of four columns, with missing values and codes from -3 on, and classes."""
    X, y = dense(400, 4)
    return np.where(X > 1, np.nan, np.round(X)), y


def mapped() -> tuple[Any, Any]:
    """Rows of a file, of more than a window."""
    X, y = dense(400, 30)
    with tempfile.TemporaryFile() as file:
        X.tofile(file)
        return np.memmap(file, X.dtype, "c", shape=X.shape), y


def chunks() -> tuple[Any, Any]:
    """Pairs of rows and classes."""
    return [dense(150, 30, seed) for seed in range(3)], None


TASKS: dict[str, Any] = {
    "shards": Fitting(lambda: dense(1500, 30), [30, 10, 3], settings={"batch_size": 700, "optimizer": Adam(0.01)}),
    "units": Fitting(lambda: dense(400, 70), [70, 80, 3], settings={"batch_size": 64, "dropout": 0.2}),
    "units, float32": Fitting(
        lambda: dense(400, 70),
        [70, 80, 24, 3],
        network={"dtype": "float32"},
        settings={"batch_size": 64, "optimizer": SGD(0.1, 0.9), "clip_norm": 0.1},
    ),
    "one block": Fitting(lambda: dense(400, 30), [30, 10, 3], settings={"l2": 0.01, "max_norm": 0.5}),
    "normalised": Fitting(lambda: dense(400, 30), [30, 24, 3], network={"batch_norm": True}),
    "images": Fitting(
        lambda: dense(400, 60),
        [Conv2D(5, 3), MaxPool2D(2, 1), Conv2D(4, (1, 2), padding="same"), AveragePool2D(2), Dense(3)],
        network={"input_shape": (6, 5, 2), "dtype": "float32"},
        settings={"optimizer": SGD(0.1, 0.9), "dropout": 0.2},
    ),
    "normalised images": Fitting(
        lambda: dense(200, 30),
        [Conv2D(5, 3, batch_norm=True), MaxPool2D(2), Dense(3)],
        network={"input_shape": (6, 5)},
        settings={"optimizer": Adam(0.01)},
    ),
    "touched": Fitting(lambda: sparse(200, 800, 1), [800, 10, 3], settings={"optimizer": SGD(0.1, 0.9), "l2": 0.01}),
    "sorted": Fitting(lambda: sparse(400, 40, 10), [40, 30, 3], settings={"shuffle": False, "l1": 0.001}),
    "table": Fitting(
        table,
        [Columns([Number(knots=(-1, 0, 1)), Category(3)] * 2), Dense(70), Dense(3)],
        network={"input_shape": 4},
        settings={"optimizer": Adam(0.01), "dropout": 0.2},
    ),
    "mapped": Fitting(mapped, [30, 10, 3]),
    "chunks": Fitting(chunks, [30, 10, 3], settings={"dropout": 0.2}),
    "L-BFGS": Fitting(lambda: dense(400, 30), [30, 10, 3], 30, settings={"optimizer": LBFGS(), "batch_size": None}),
    "early stopping": Fitting(
        lambda: dense(400, 30), [30, 10, 3], 60, settings={"optimizer": Adam(0.05)}, stopping={"patience": 3}
    ),
    "stopped L-BFGS": Fitting(
        lambda: dense(400, 30),
        [30, 10, 3],
        60,
        settings={"optimizer": LBFGS(), "batch_size": None},
        stopping={"patience": 2},
    ),
    "fastnn train": Command(),
    "saving": Saving(),
}


def start(task: Any, folder: Path, answer: Path) -> int:
    """Fork a child that runs a task in a folder and leaves its answer; return its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        text = task.run(folder)
        answer.write_text(text)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def finish(child: int) -> int:
    """Wait for a child; return how it ended, as `os.waitstatus_to_exitcode` does."""
    ended = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < ended:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"a child ran for more than {TIMEOUT_SECONDS} s")


@dataclass
class Expected:
    """What a task comes to if nothing happens, and how long it takes."""

    answer: str
    seconds: float
    files: set[str]


def undisturbed(task: Any, folder: Path) -> Expected:
    """Run a task that is not killed."""
    folder.mkdir()
    answer = folder.with_suffix(".answer")
    started = time.monotonic()
    assert finish(start(task, folder, answer)) == 0
    return Expected(answer.read_text(), time.monotonic() - started, {path.name for path in folder.iterdir()})


def torment(task: Any, expected: Expected, folder: Path, draw: random.Random, counts: Counter[str]) -> None:
    """Kill a task once or more, look at the files after each kill, and let it go on to the end, and once more."""
    folder.mkdir()
    answer = folder.with_suffix(".answer")
    kills, left = True, 2
    while left:
        child = start(task, folder, answer)
        if kills:
            time.sleep(draw.uniform(0, expected.seconds))
            os.kill(child, signal.SIGKILL)
        status = finish(child)
        assert status in ((0, -signal.SIGKILL) if kills else (0,)), status
        if status:
            counts["kills"] += 1
            pieces = {path.name for path in folder.iterdir()} - expected.files
            counts["that left a piece of a file"] += len(pieces) > 0
            # Nobody takes it for a file, and nothing is in its way.
            assert all(name.startswith(".") for name in pieces), pieces
            task.check(folder)
            for name in pieces:
                (folder / name).unlink()
        else:
            # Also where it ends before it is killed: what goes on from there has nothing to do.
            counts["ends"] += 1
            assert answer.read_text() == expected.answer, "other bits"
            task.check(folder)
            left -= 1
        kills = status != 0 and draw.random() < AGAIN
    shutil.rmtree(folder)


def main(arguments: list[str] | None = None) -> int:
    """Kill in turn, until there were enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", choices=list(TASKS), nargs="*", default=list(TASKS))
    options = parser.parse_args(arguments)
    load_mnist()  # and what it needs
    draw, counts, started = random.Random(options.seed), Counter[str](), time.monotonic()
    names, by_task = itertools.cycle(options.task), Counter[str]()
    _mapped.PIECE_BYTES, _mapped.WINDOW_BYTES = 1 << 10, 1 << 13
    with tempfile.TemporaryDirectory() as work:
        expected = {name: undisturbed(TASKS[name], Path(work, name)) for name in options.task}
        while counts["kills"] < options.kills:
            name = next(names)
            before = counts["kills"]
            try:
                torment(TASKS[name], expected[name], Path(work, f"{name} killed"), draw, counts)
            except AssertionError:
                print(f"{name}, after {counts['kills']} kills with seed {options.seed}:", file=sys.stderr)
                raise
            by_task[name] += counts["kills"] - before
            if counts["kills"] // 100 > before // 100:
                print(f"{counts['kills']} kills, {time.monotonic() - started:.0f} s", flush=True)
    print("; ".join(f"{count} {name}" for name, count in counts.items()))
    print("; ".join(f"{name} {count}" for name, count in by_task.items()))
    print(f"all whole, in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
