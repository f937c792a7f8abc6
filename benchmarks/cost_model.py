"""A model of what a step costs on many cores, with constants measured here, beside what one and two threads take.

    python benchmarks/cost_model.py                     # measures for half a minute, and prints two tables
    python benchmarks/cost_model.py --cells D 7 --cores 8 32 --handovers 50

The model is in docs/plan.md.  It is for dense rows in float32, and takes slices, shards and sizes from the plan.
"""

import argparse
import itertools
import os
import time
from dataclasses import dataclass
from unittest import mock

import numpy as np

import fastnn
from fastnn import tuning
from fastnn.benchmark.cells import CELLS, Cell
from fastnn.benchmark.peers import make_trainer
from fastnn.benchmark.timing import load_rows
from fastnn.engine.threads import handover_seconds
from fastnn.kernels.updates import UPDATES, inplace_update
from fastnn.plan import Plan

NUMBER_BYTES, LINE_BYTES = 4, 64
# Lines under way at once, by which a handover is divided.  A tile of a product reads eight rows at once; writing what
# another core has read takes 7 ns a line at a handover of 40 and 28 at 160, measured on a Zen 4.  Parts of the logits
# are few lines, which come one by one.
READS_AT_ONCE, WRITES_AT_ONCE = 8, 6
# Bytes that stay in a core's own caches from step to step.
CACHED_BYTES = 2 << 20
ROUNDS = 5


@dataclass(frozen=True)
class Machine:
    """What a core does in a second, and what cores take to meet.

    flops : floating-point operations of products
    numbers : parameters that Adam moves, in the cache
    bandwidth : bytes from and to memory
    barrier : seconds, beside the handovers
    """

    flops: float
    numbers: float
    bandwidth: float
    barrier: float


@dataclass(frozen=True)
class Cost:
    """Seconds of a step: products, the optimizer's step, lines from core to core, barriers."""

    products: float
    update: float
    lines: float
    barriers: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.products + self.update + self.lines + self.barriers


def share(parts: int, cores: int) -> float:
    """Share of the work that falls to the core with most, where whole parts are shared out."""
    return -(-parts // cores) / parts


def cost(plan: Plan, machine: Machine, cores: int, handover: float) -> Cost:
    """Predict a step by plan on that many cores, with that many seconds from core to core."""
    n, bytes_of = plan.batch_size, NUMBER_BYTES / LINE_BYTES
    flops = [n * (6 if k else 4) * layer.facts.n_in * layer.facts.n_out for k, layer in enumerate(plan.layers)]
    # More cores have no work.
    cores = min(cores, max(len(layer.slices) for layer in plan.layers) if plan.driver == "units" else plan.n_shards)
    others = 1 - 1 / cores
    read, write = handover / READS_AT_ONCE, handover / WRITES_AT_ONCE
    barrier = (machine.barrier + (cores + 1) * handover) if cores > 1 else 0
    if plan.driver == "units":
        products = sum(f * share(len(layer.slices), cores) for f, layer in zip(flops, plan.layers, strict=True))
        hidden = [layer.facts for layer in plan.layers[:-1]]
        exchanged = 2 * n * sum(facts.n_out for facts in hidden[:-1]) * bytes_of
        weights = sum(facts.n_in * facts.n_out for facts in hidden[1:]) * bytes_of
        logits = n * plan.layers[-1].facts.n_out * len(plan.layers[-1].slices) * bytes_of
        lines = read * (exchanged + weights / cores) + write * (exchanged + weights) / cores
        lines = others * (lines + handover * logits * (1 + 1 / cores))
        n_barriers = 1 if len(plan.layers) == 2 else 2 * len(plan.layers) - 1
        moved = plan.n_parameters * max(share(len(layer.slices), cores) for layer in plan.layers)
    else:
        products = sum(flops) * share(plan.n_shards, cores)
        gradient = plan.n_parameters * bytes_of
        lines = others * gradient * (read * (plan.n_shards / cores + 1) + write * (plan.n_shards + 1) / cores)
        n_barriers = 2 * (1 + len(plan.layers))
        moved = plan.n_parameters / cores
    # Plain steps without a gradient are in the products; others read and write parameters, gradient and state.
    vectors = 2 + plan.n_slots
    is_cached = moved * vectors * NUMBER_BYTES < CACHED_BYTES
    rate = machine.numbers if is_cached else min(machine.numbers, machine.bandwidth / (2 * vectors * NUMBER_BYTES))
    update = 0 if plan.batch_size <= plan.fold_rows else moved / rate
    return Cost(products / machine.flops, update, lines, n_barriers * barrier)


def best(call, n_calls=1):
    """Return the seconds of a call, the best of some."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(n_calls):
            call()
        seconds.append((time.perf_counter() - start) / n_calls)
    return min(seconds)


def step_seconds(sizes, batch_size, rows, n_threads, **constants):
    """Return the seconds of a step of a network on random rows, with other constants of the plan."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((rows, sizes[0])).astype(np.float32), rng.integers(0, sizes[-1], rows)
    with mock.patch.multiple(tuning, SMALL_RUN=0, **constants):
        network = fastnn.Network(sizes, dtype="float32", activation="relu", seed=0)
        trainer = fastnn.Trainer(
            network, fastnn.SGD(0.001), batch_size, shuffle=False, n_threads=n_threads, sparse=False
        )
        return min(trainer.fit(X, y, epochs=ROUNDS).seconds) * batch_size / rows


def measure() -> Machine:
    """Measure the constants: a wide layer's products, steps of Adam, a copy, and a step with next to no work."""
    wide = step_seconds((512, 512, 2), 128, 8192, 1)
    parameters, gradient = np.zeros(1 << 13, np.float32), np.ones(1 << 13, np.float32)
    state, numbers = np.zeros((2, 1 << 13), np.float32), np.array([0, 0, 0, 0.001, 0.9, 0.999, 1, 1e-8])
    update = best(lambda: inplace_update(UPDATES["adam"], numbers, parameters, gradient, state), 1000)
    source, target = np.zeros(1 << 25, np.float32), np.zeros(1 << 25, np.float32)
    copy = best(lambda: np.copyto(target, source))
    idle = [step_seconds((8, 20, 2), 1, 4000, n_threads, UNITS_PRODUCT=0) for n_threads in (1, 2)]
    barrier = max(0.0, idle[1] - idle[0] - 3 * (handover_seconds() or 0))
    return Machine(128 * 4 * 512 * 512 / wide, len(parameters) / update, 2 * source.nbytes / copy, barrier)


def measured_step(cell: Cell, n_threads: int, seconds: float = 2.0) -> float:
    """Return the seconds of a step of a cell: its best epoch, on some of its rows."""
    X, y = load_rows(cell, "float32")
    n = min(cell.rows, max(cell.batch_size, 20 * cell.batch_size))
    trainer = make_trainer(cell, "float32", n_threads=n_threads, sparse=False)
    end, found = time.perf_counter() + seconds, []
    while time.perf_counter() < end or len(found) < 2:
        found += trainer.fit(X[:n], y[:n], epochs=2).seconds
    return min(found) / -(-n // cell.batch_size)


def main() -> None:
    """Measure, compare on one and two threads, and predict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=list("37ADFGH"), choices=CELLS)
    parser.add_argument("--cores", nargs="+", type=int, default=[4, 16, 64])
    parser.add_argument("--handovers", nargs="+", type=float, default=[30, 200], help="nanoseconds")
    options = parser.parse_args()
    machine = measure()
    print(
        f"{machine.flops / 1e9:.0f} GFLOP/s, {machine.numbers / 1e9:.2f} numbers/ns, "
        f"{machine.bandwidth / 1e9:.0f} GB/s, barrier {machine.barrier * 1e9:.0f} ns, {os.cpu_count()} processors"
    )
    plans = {}
    print("\nmicroseconds a step: measured, predicted, measured / predicted")
    for label in options.cells:
        cell = CELLS[label]
        X, y = load_rows(cell, "float32")
        plans[label] = make_trainer(cell, "float32", n_threads=2, sparse=False).plan(X, y)
        line = f"{label}  "
        for cores in (1, 2):
            handover = handover_seconds() or 0
            found, predicted = measured_step(cell, cores), cost(plans[label], machine, cores, handover).total
            line += f"{cores}: {found * 1e6:10,.1f} {predicted * 1e6:10,.1f} {found / predicted:5.2f}   "
        print(line, f"at {handover * 1e9:.0f} ns", flush=True)
    print("\npredicted microseconds a step, and % of products, update, lines, barriers")
    points = list(itertools.product(options.cores, options.handovers))
    print("   " + "".join(f"{f'{cores} at {handover:.0f} ns':>26}" for cores, handover in points))
    for label, plan in plans.items():
        line = f"{label}  "
        for cores, handover in points:
            found = cost(plan, machine, cores, handover * 1e-9)
            parts = (found.products, found.update, found.lines, found.barriers)
            shares = "({:.0f} {:.0f} {:.0f} {:.0f})".format(*(100 * part / found.total for part in parts))
            line += f"{found.total * 1e6:12,.1f} {shares:>13}"
        print(line)


if __name__ == "__main__":
    main()
