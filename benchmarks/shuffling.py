"""What shuffling costs an epoch, and what several threads cost where another process wants a processor.

    python benchmarks/shuffling.py                                     # two tables; about two minutes

The first table has the benchmark's cells in batches, dense and as they come (MNIST is taken for sparse), with rows in a
new order each epoch over rows in order, which take turns: the ratio of the best epochs.  The second, on dense rows,
has a process beside that never rests, and the ratio of the median epochs to those of one thread.
"""

import argparse
import statistics
import subprocess
import sys
from contextlib import contextmanager

import fastnn
from fastnn.benchmark.cells import CELLS
from fastnn.benchmark.peers import make_trainer

CELLS_IN_BATCHES = ("4", "5", "6", "7")
CONTENDED_CELLS = ("4", "5", "7")
THREADS = (1, 2, 4)
DTYPES = ("float64", "float32")


def prepare(label, X, y, sparse=False, shuffle=True, n_threads=None):
    """Return a function that trains an epoch of a cell and returns its seconds."""
    cell = CELLS[label]
    trainer = make_trainer(cell, X.dtype.name, shuffle=shuffle, n_threads=n_threads, sparse=sparse)
    X, y = X[: cell.rows], y[: cell.rows]
    # Rows in order are prepared once a fit, so two epochs; the second counts.
    return lambda: trainer.fit(X, y, epochs=2).seconds[1]


def in_turn(epochs, rounds):
    """Return the seconds of each way, which take turns, after a first round that does not count."""
    turns = [[epoch() for epoch in epochs] for _ in range(rounds + 1)]
    return list(zip(*turns[1:], strict=True))


@contextmanager
def competitor():
    """Have another process that never rests."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    data = {dtype: fastnn.datasets.load_mnist(dtype=dtype)[0] for dtype in DTYPES}
    print("| shuffled / in order | dtype | dense | automatic |\n| --- | --- | ---: | ---: |")
    for label in CELLS_IN_BATCHES:
        for dtype, train in data.items():
            ratios = []
            for sparse in (False, "auto"):
                ways = [prepare(label, train.X, train.y, sparse, shuffle) for shuffle in (True, False)]
                shuffled, ordered = map(min, in_turn(ways, rounds))
                ratios.append(f"{shuffled / ordered:.2f}")
            print(f"| {label}: {CELLS[label].name} | {dtype} | {' | '.join(ratios)} |", flush=True)
    heads = " | ".join(f"{n} threads / one" for n in THREADS[1:])
    print(f"\n| beside another process | dtype | {heads} |\n| --- | --- |{' ---: |' * len(THREADS[1:])}")
    with competitor():
        for label in CONTENDED_CELLS:
            for dtype, train in data.items():
                ways = [prepare(label, train.X, train.y, n_threads=n) for n in THREADS]
                one, *more = map(statistics.median, in_turn(ways, 2 * rounds - 1))
                ratios = " | ".join(f"{seconds / one:.2f}" for seconds in more)
                print(f"| {label}: {CELLS[label].name} | {dtype} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
