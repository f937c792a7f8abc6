"""Peak memory of a fit: how far one epoch of training raises a process's memory above its data and libraries.

    python benchmarks/memory.py --output memory.json                   # a few minutes
    python benchmarks/memory.py --rows 1000000                         # of the text-like data; wants 3 GB

Each fit runs in a process of its own.  The peak so far (``ru_maxrss``) is read when the data is loaded and the
library has trained a narrow model on 256 rows, and again after the fit; the difference is the fit's own: copies of the
data, parameters, gradients, work space, compiled programs.  Nothing before the fit needs much memory that it gives
back, since that would hide some: so the warm model is narrow, and the data is read in place.

Two tables: an epoch on MNIST with every library that is installed; and fastnn's softmax regression on sparse rows of
100,000 features with 100 non-zeros each, as of texts, at all rows and at half of them: what the fit takes beside the
data should not grow.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import scipy.sparse

import fastnn
from fastnn.benchmark.cells import CELLS
from fastnn.benchmark.peers import AUTOMATIC, DENSE, PEERS, is_installed, make_trainer

LABELS = ("5", "1")
DTYPES = ("float32", "float64")
WARM_ROWS = 256
TEXT_FEATURES, TEXT_NONZEROS, TEXT_CLASSES = 100_000, 100, 20
TEXT_BATCHES = (256, None)


def peak():
    """Return the process's peak memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def in_new_process(function, *arguments):
    """Call a function in a process of its own and return what it returns.

    The new process inherits the peak of this one, which therefore loads no data.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def write_mnist(folder):
    """Write the training images in both dtypes to .npy files, which are read without further memory."""
    for dtype in DTYPES:
        train, _, _ = fastnn.datasets.load_mnist(dtype=dtype)
        np.save(Path(folder, dtype), train.X)
    np.save(Path(folder, "labels"), train.y)


def fit(peer, cell, X, y):
    """Train an epoch of a cell; fastnn by what users call, its peers as in the other benchmarks."""
    if peer in (AUTOMATIC, DENSE):
        sparse = "auto" if peer == AUTOMATIC else False
        make_trainer(cell, X.dtype.name, shuffle=True, sparse=sparse).fit(X, y, epochs=1)
    else:
        PEERS[peer](cell, X, y)()


def measure_mnist(peer, label, dtype, folder):
    """Return what a peer's fit takes in MB, or None where it has no such model."""
    cell = CELLS[label]
    X, y = np.load(Path(folder, f"{dtype}.npy")), np.load(Path(folder, "labels.npy"))
    narrow = (cell.sizes[0], 8, cell.sizes[-1]) if len(cell.sizes) > 2 else cell.sizes
    few = cell._replace(sizes=narrow, rows=WARM_ROWS, batch_size=min(cell.batch_size, WARM_ROWS))
    try:
        fit(peer, few, X[:WARM_ROWS].copy(), y[:WARM_ROWS].copy())
    except LookupError:
        return None
    before = peak()
    fit(peer, cell, X, y)
    return peak() - before


def text_like(n):
    """Return n rows of sparse random data and their classes, made in place and block by block."""
    generator = np.random.default_rng(0)
    stride = TEXT_FEATURES // TEXT_NONZEROS  # one non-zero in each stretch of columns, hence in order
    indices = np.empty((n, TEXT_NONZEROS), np.int32)
    values = np.empty((n, TEXT_NONZEROS), np.float32)
    for first in range(0, n, 1000):
        block = slice(first, min(first + 1000, n))
        indices[block] = generator.integers(0, stride, indices[block].shape, np.int32)
        indices[block] += np.arange(0, TEXT_FEATURES, stride, dtype=np.int32)
        values[block] = generator.random(values[block].shape, np.float32)
    indptr = np.arange(0, n * TEXT_NONZEROS + 1, TEXT_NONZEROS)
    X = scipy.sparse.csr_matrix((values.ravel(), indices.ravel(), indptr), (n, TEXT_FEATURES), copy=False)
    return X, generator.integers(0, TEXT_CLASSES, n)


def measure_text(n, batch_size):
    """Return MB of the data, of the parameters and of fastnn's fit on text-like rows, and the fit's seconds."""
    X, y = text_like(n)

    def fit(X, y):
        network = fastnn.Network([X.shape[1], TEXT_CLASSES], dtype="float32")
        fastnn.Trainer(network, fastnn.SGD(0.5), batch_size).fit(X, y, epochs=1)
        return network.parameters.nbytes / 1e6

    fit(X[:WARM_ROWS, :1000], y[:WARM_ROWS])
    before, start = peak(), time.perf_counter()
    parameters = fit(X, y)
    seconds = time.perf_counter() - start
    data = (X.data.nbytes + X.indices.nbytes + X.indptr.nbytes + y.nbytes) / 1e6
    memory = {"data": data, "parameters": parameters, "fit": peak() - before}
    return {"rows": n, "batch_size": batch_size, **memory, "seconds": seconds}


def mnist_table(results, peers):
    """Return the Markdown table of the fits on MNIST."""
    lines = ["| cell | dtype | data | " + " | ".join(peers) + " |", "| --- | --- | ---: |" + " ---: |" * len(peers)]
    for result in results:
        shown = [f"{value:.0f}" if value is not None else "-" for value in result["fit"].values()]
        lines.append(f"| {result['cell']} | {result['dtype']} | {result['data']:.0f} | {' | '.join(shown)} |")
    return "\n".join(lines)


def text_table(results):
    """Return the Markdown table of the fits on text-like data."""
    lines = ["| rows | batch | data | parameters | fit | seconds |", "| ---: | ---: | ---: | ---: | ---: | ---: |"]
    for result in results:
        batch = result["batch_size"] or "all"
        lines.append(
            f"| {result['rows']:,} | {batch} | {result['data']:.0f} | {result['parameters']:.0f} | {result['fit']:.0f} "
            f"| {result['seconds']:.2f} |"
        )
    return "\n".join(lines)


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", help="JSON file for the results")
    parser.add_argument("--rows", type=int, default=100_000, help="of the text-like data (default 100,000)")
    arguments = parser.parse_args()
    peers = [name for name in PEERS if is_installed(name)]
    mnist = []
    with tempfile.TemporaryDirectory() as folder:
        in_new_process(write_mnist, folder)
        for label in LABELS:
            for dtype in DTYPES:
                values = {peer: in_new_process(measure_mnist, peer, label, dtype, folder) for peer in peers}
                size = Path(folder, f"{dtype}.npy").stat().st_size / 1e6
                mnist.append({"cell": CELLS[label].name, "dtype": dtype, "data": size, "fit": values})
                print(mnist[-1], file=sys.stderr, flush=True)
    print("Memory of an epoch on MNIST beside the data, in MB\n")
    print(mnist_table(mnist, peers))
    sizes = (arguments.rows // 2, arguments.rows)
    text = [in_new_process(measure_text, n, batch_size) for batch_size in TEXT_BATCHES for n in sizes]
    print(f"\nMemory of fastnn's epoch on {TEXT_FEATURES:,} features, {TEXT_NONZEROS} non-zeros a row, in MB\n")
    print(text_table(text))
    if arguments.output:
        content = {"date": time.strftime("%Y-%m-%d"), "mnist": mnist, "text": text}
        Path(arguments.output).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
