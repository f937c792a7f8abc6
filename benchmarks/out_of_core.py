"""How fast a fit goes through data on the disk, and how much memory it takes.

    python benchmarks/out_of_core.py                                   # a file of 3 GB; Linux only
    python benchmarks/out_of_core.py --gigabytes 50 --folder /data     # larger than memory, on a disk of one's own

Writes a .npy file of random rows and trains on it, 784-100-10 in batches of 128: by memory map, in order and shuffled;
by chunks that are read one after the other; and, as far as memory goes, from an array in memory.  Beside them stands
reading the file without doing anything with it.  Each way runs in a process of its own, and before each pass through
the file it is put out of the system's cache, so that the pass comes from the disk.  (A virtual machine's host may
have a cache of its own.)

A fit by memory map reads the file once to see that its numbers are finite, and once an epoch; both are timed, and the
best of several epochs counts.  Memory
is the largest that was seen beyond that before the fit: the process's own, and with it the pages of the file that the
system keeps at hand, which it takes back where they are wanted.
"""

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from mmap import MADV_DONTNEED
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import fastnn
from fastnn.callbacks import Callback

SIZES = (784, 100, 10)
BATCH_SIZE = 128
BLOCK_BYTES = 1 << 27
WARM_ROWS = 1000


def in_new_process(function, *arguments):
    """Call a function in a process of its own and return what it returns."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def write(path, gigabytes, dtype):
    """Write random rows and their classes, block by block."""
    n_in = SIZES[0]
    n = int(gigabytes * 1e9) // (n_in * np.dtype(dtype).itemsize)
    generator = np.random.default_rng(0)
    X = np.lib.format.open_memmap(path, "w+", dtype, (n, n_in))
    for begin in range(0, n, 10_000):
        block = X[begin : begin + 10_000]
        block[...] = generator.integers(256, size=block.shape) if dtype == "uint8" else generator.random(block.shape)
    X.flush()
    np.save(path.with_suffix(".y.npy"), generator.integers(0, SIZES[-1], n))


def forget(path, mapped=None):
    """Put the file out of the system's cache."""
    if mapped is not None:
        mapped.base.madvise(MADV_DONTNEED)  # pages that a process has at hand stay
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory():
    """Return the process's own memory and all of it, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kilobytes = {
        name: value.split()[0] for name, value in (line.split(":") for line in lines) if name.startswith("Rss")
    }
    own = int(kilobytes["RssAnon"]) * 1024 / 1e6
    return np.array([own, own + int(kilobytes["RssFile"]) * 1024 / 1e6])


class Watch(Callback):
    """Puts the file out of the cache before each epoch, and notes the largest memory."""

    def __init__(self, path, mapped):
        self.path, self.mapped = path, mapped
        self.most = memory()

    def on_start(self, fit):
        self.checked = time.perf_counter()
        forget(self.path, self.mapped)

    def on_epoch(self, fit):
        forget(self.path, self.mapped)

    def on_chunk(self, fit):
        self.most = np.maximum(self.most, memory())


def chunks(path, y):
    """Yield the rows of a .npy file in blocks, each in the place of the one before, with their classes."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        (n, n_in), _, dtype = np.lib.format.read_array_header_1_0(file)
        block = np.empty((BLOCK_BYTES // (n_in * dtype.itemsize), n_in), dtype)
        for begin in range(0, n, len(block)):
            X = block[: n - begin]
            file.readinto(X)
            yield X, y[begin : begin + len(X)]


class Chunks:
    """The same, again for each epoch."""

    def __init__(self, path, y):
        self.path, self.y = path, y

    def __iter__(self):
        return chunks(self.path, self.y)


def measure(way, path, rounds):
    """Return seconds of the check before the fit and of an epoch, and MB of memory, own and with the file's pages."""
    y = np.load(path.with_suffix(".y.npy"))
    if way == "reading alone":
        seconds = []
        for _ in range(rounds):
            forget(path)
            start = time.perf_counter()
            for _ in chunks(path, y):
                pass
            seconds.append(time.perf_counter() - start)
        return None, min(seconds), None, None
    X = np.load(path, mmap_mode=None if way == "in memory" else "r")
    trainer = fastnn.Trainer(
        fastnn.Network(SIZES, dtype=X.dtype if X.dtype.kind == "f" else "float32"),
        fastnn.SGD(0.01),
        BATCH_SIZE,
        shuffle="in order" not in way,
    )
    trainer.fit(np.array(X[:WARM_ROWS]), y[:WARM_ROWS], epochs=1)
    mapped = X if isinstance(X, np.memmap) else None
    watch = Watch(path, mapped)
    trainer.callbacks = [watch]
    before = memory()
    forget(path, mapped)
    start = time.perf_counter()
    if way == "chunks, shuffled within each":
        history, check = trainer.fit(Chunks(path, y), epochs=rounds), None
    else:
        history = trainer.fit(X, y, epochs=rounds)
        check = watch.checked - start
    own, total = watch.most - before
    return check, min(history.seconds), own, total


WAYS = (
    "reading alone",
    "memory map, in order",
    "memory map, shuffled",
    "chunks, shuffled within each",
    "in memory",
)


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3.0, help="size of the file (default 3)")
    parser.add_argument("--folder", help="where to put it (default: a temporary folder)")
    parser.add_argument("--dtype", default="float32", choices=["uint8", "float32", "float64"])
    parser.add_argument("--rounds", type=int, default=3, help="passes of each, of which the best counts (default 3)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder, "X.npy")
        in_new_process(write, path, arguments.gigabytes, arguments.dtype)
        size = path.stat().st_size / 1e6
        print(f"{size:,.0f} MB of {arguments.dtype}\n")
        print("| way | check, MB/s | epoch, MB/s | own memory, MB | with the file's pages, MB |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for way in arguments.ways:
            check, epoch, *memories = in_new_process(measure, way, path, arguments.rounds)
            figures = [None if check is None else size / check, size / epoch, *memories]
            shown = ["-" if figure is None else f"{figure:,.0f}" for figure in figures]
            print(f"| {way} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
