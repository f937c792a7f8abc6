"""Several libraries' threads in one process: whether fastnn's fits keep their speed and their bits beside them.

    python benchmarks/runtimes.py                                # beside PyTorch, scikit-learn and JAX, if installed
    python benchmarks/runtimes.py --peers torch --rounds 5

Wheels bring a copy of OpenMP's runtime each, so a process may have several, each with threads of its own.  A case is a
process: a library is imported before fastnn or after it and lets its threads work, then fits are timed; in the case
"between" it works again before each of them.  Cases take turns.  A case's time is the least, over the rounds, of the
median of a process.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

ORDERS = ("before", "after", "between")
#: Layers, batch size, rows.
FITS = {"narrow": ([64, 100, 2], 32, 10_000), "wide": ([784, 512, 512, 10], 128, 10_000)}
SECONDS = 0.7  # that a process trains


def torch_work() -> Callable[[], Any]:
    """Return a call in which PyTorch's threads work for some milliseconds."""
    import torch

    A, B = torch.rand(1_000_000), torch.rand(600, 600)
    return lambda: (torch.tanh(A).sum().item(), (B @ B).sum().item())


def sklearn_work() -> Callable[[], Any]:
    """Return a call in which scikit-learn's threads work for some milliseconds."""
    import numpy as np
    from sklearn.cluster import KMeans

    X = np.random.default_rng(0).random((5_000, 8))
    return lambda: KMeans(8, n_init=1, max_iter=5, random_state=0).fit(X)


def jax_work() -> Callable[[], Any]:
    """Return a call in which JAX's threads work for some milliseconds."""
    import jax

    A = jax.random.uniform(jax.random.key(0), (600, 600))
    product = jax.jit(lambda A: jax.numpy.tanh(A @ A).sum())
    return lambda: product(A).block_until_ready()


PEERS = {"torch": torch_work, "sklearn": sklearn_work, "jax": jax_work}


def fits(kind: str) -> Callable[[], bytes]:
    """Import fastnn and return a call that trains for an epoch, and returns the parameters' bytes."""
    import numpy as np

    import fastnn

    sizes, batch_size, n = FITS[kind]
    generator = np.random.default_rng(0)
    X, y = generator.random((n, sizes[0]), dtype=np.float32), generator.integers(0, sizes[-1], n)
    network = fastnn.Network(sizes, "relu", dtype="float32", seed=0)
    trainer = fastnn.Trainer(network, fastnn.Adam(), batch_size=batch_size)

    def fit() -> bytes:
        trainer.fit(X, y, epochs=1)
        return network.parameters.tobytes()

    return fit


def run_case(kind: str, peer: str, order: str) -> None:
    """Print the median time of a fit, and a digest of the network after three."""
    work = PEERS[peer]() if peer and order == "before" else None
    if work:
        work()
    fit = fits(kind)
    fit()
    if peer and not work:
        work = PEERS[peer]()
    for _ in range(3 if work else 0):
        work()
    fit()
    digest = hashlib.sha256(fit()).hexdigest()
    seconds: list[float] = []
    while sum(seconds) < SECONDS:
        if work and order == "between":
            work()
        start = time.perf_counter()
        fit()
        seconds.append(time.perf_counter() - start)
    print(json.dumps([statistics.median(seconds), digest]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time fits beside other libraries' threads.")
    installed = [peer for peer in PEERS if importlib.util.find_spec(peer)]
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=installed)
    parser.add_argument("--fits", nargs="+", choices=list(FITS), default=list(FITS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        run_case(*arguments.case)
        return
    for kind in arguments.fits:
        cases = [("", "alone"), *((peer, order) for peer in arguments.peers for order in ORDERS)]
        results: dict[tuple[str, str], list[tuple[float, str]]] = {case: [] for case in cases}
        for _ in range(arguments.rounds):
            for case in cases:
                command = [sys.executable, __file__, "--case", kind, *case]
                results[case].append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
        alone = min(results[cases[0]])[0]
        for (peer, order), found in results.items():
            bits = "same" if {digest for _, digest in found} == {results[cases[0]][0][1]} else "OTHER"
            seconds = min(found)[0]
            print(f"{kind:7} {peer:8} {order:8} {1000 * seconds:8.2f} ms {seconds / alone:6.2f} {bits:>6} bits")


if __name__ == "__main__":
    main()
