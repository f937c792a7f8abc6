"""Predicts how much faster a fit is on many ranks, from the time of a step on one and what its exchanges take.

    python benchmarks/rank_model.py                                    # measures steps on one rank; a minute
    python benchmarks/rank_model.py --cells 3 7 --ranks 2 16 1000 --links "mine=5us:3GB/s"

A step on R ranks takes 1 / R of its time on one, or more where shards or slices cannot be divided evenly, and

- by rows: an all-to-all exchange in which each rank gives away (R - 1) / R of its gradient, once for each sum that its
  shards leave, and a gather of as many parameters;
- by units, once a row block: a gather of the parts of the logits, one for each slice, and with more hidden layers of
  their outputs and of the gradients by these.

A gather takes ceil(log2 R) latencies, an all-to-all exchange one and R - 2 gaps between messages, of a tenth of a
latency; and both as long as a rank's bytes take to come in.  Links are told by latency and bandwidth, which
``ranks.py --exchanges`` measures.  Nothing is taken to overlap with the products, and each rank has processors of its
own.
"""

import argparse
import math
from dataclasses import dataclass

from cost_model import measured_step, share
from link import quantity

from fastnn.benchmark.cells import CELLS
from fastnn.benchmark.peers import make_trainer
from fastnn.benchmark.timing import load_rows
from fastnn.engine.threads import available_threads

#: Shared memory as measured on a Zen 4, 2026-11-28; the others as their makers and users say.
LINKS = ("shared memory=3us:10GB/s", "10 GbE=20us:1.15GB/s", "InfiniBand=1.5us:11GB/s")
RANKS = (2, 4, 8, 64, 1000)
#: Share of a latency between two messages of one rank.
GAP = 0.1


@dataclass(frozen=True)
class Link:
    """What connects the ranks: seconds until a message arrives, and bytes a second into a rank."""

    name: str
    latency: float
    bandwidth: float

    @classmethod
    def of(cls, text):
        """Return the link of a text such as "10 GbE=20us:1.15GB/s"."""
        name, constants = text.split("=")
        return cls(name, *map(quantity, constants.split(":")))

    def gather(self, n_bytes, n_ranks):
        """Return the seconds after which all ranks have so many bytes, of which each had a part."""
        return math.ceil(math.log2(n_ranks)) * self.latency + n_bytes * (1 - 1 / n_ranks) / self.bandwidth

    def exchange(self, n_bytes, n_ranks):
        """Return the seconds in which each rank gives parts of so many bytes to all others."""
        return self.latency * (1 + GAP * (n_ranks - 2)) + n_bytes * (1 - 1 / n_ranks) / self.bandwidth


def exchanges(plan, link, n_ranks, itemsize):
    """Return the seconds of a step's exchanges."""
    if plan.driver == "rows":
        n_bytes = plan.n_parameters * itemsize
        sums = 1 if n_ranks & (n_ranks - 1) == 0 or plan.n_shards <= n_ranks else 2
        return link.exchange(sums * n_bytes, n_ranks) + link.gather(n_bytes, n_ranks)
    rows = min(plan.block_rows, plan.batch_size)
    *hidden, last = plan.layers
    seconds = link.gather(rows * last.facts.n_out * len(last.slices) * itemsize, n_ranks)
    for layer in hidden[:-1]:
        n_bytes = rows * layer.facts.n_out * itemsize
        seconds += link.gather(n_bytes, n_ranks) + link.exchange(n_bytes, n_ranks)
    return seconds * math.ceil(plan.batch_size / rows)


def predicted(plan, seconds, link, n_ranks, itemsize):
    """Return the seconds of a step on so many ranks; those without a part of the work wait for the others."""
    parts = plan.n_shards if plan.driver == "rows" else max(len(layer.slices) for layer in plan.layers)
    if parts == 1:
        return seconds
    return seconds * share(parts, n_ranks) + exchanges(plan, link, min(n_ranks, parts), itemsize)


def main():
    """Measure steps on one rank, and print how much faster several are predicted to be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=list("13567ACF"), choices=CELLS)
    parser.add_argument("--ranks", nargs="+", type=int, default=RANKS)
    parser.add_argument("--threads", type=int, default=available_threads(), help="of each rank")
    parser.add_argument("--links", nargs="+", default=LINKS, help="NAME=LATENCY:BANDWIDTH")
    options = parser.parse_args()
    links = [Link.of(text) for text in options.links]
    print(f"Predicted speed, float32, dense rows; 1 is one rank with {options.threads} threads\n")
    heads = [f"{n:,} ranks" if n == options.ranks[0] else f"{n:,}" for n in options.ranks]
    print("| cell | a step, by | " + " | ".join(f"{link.name}: {', '.join(heads)}" for link in links) + " |")
    print("| --- | --- |" + " --- |" * len(links))
    for label in options.cells:
        cell = CELLS[label]
        plan = make_trainer(cell, "float32", n_threads=options.threads, sparse=False).plan(*load_rows(cell, "float32"))
        seconds = measured_step(cell, options.threads)
        figures = [
            ", ".join(f"{seconds / predicted(plan, seconds, link, n, 4):.2f}" for n in options.ranks) for link in links
        ]
        print(f"| {label} | {1000 * seconds:.3g} ms, {plan.driver} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
