"""Predicts how much faster a fit is on many ranks, from the time of a step on one and what its exchanges take.

    python benchmarks/rank_model.py                                    # measures steps on one rank; a minute
    python benchmarks/rank_model.py --cells 3 7 --ranks 2 16 1000 --links "mine=5us:3GB/s"

A step on R ranks takes the largest share that a rank has of its work, and its exchanges, as `fastnn.plan` counts them:
a latency each, here ceil(log2 R) times the link's, and the time in which a rank's bytes come in.  Links are told by
latency and bandwidth, which ``ranks.py --exchanges`` measures.  Nothing is taken to overlap with the products, and each
rank has processors of its own.
"""

import argparse
import math

from cost_model import measured_step
from link import quantity

from fastnn.benchmark.cells import CELLS
from fastnn.benchmark.peers import make_trainer
from fastnn.benchmark.timing import load_rows
from fastnn.engine.threads import available_threads
from fastnn.plan import Link, Method, largest_share, share_out, traffic

#: As their makers and users say.
LINKS = ("10 GbE=20us:1.15GB/s", "InfiniBand=1.5us:11GB/s")
RANKS = (2, 4, 8, 64, 1000)


def predicted(plan, seconds, n_ranks, latency, bandwidth):
    """Return the seconds of a step on so many ranks; it is not shared if that would take longer."""
    plan = share_out(plan, n_ranks, Method(plan.batch_size))
    if plan.sharing == "alone":
        return seconds
    exchanges = Link(math.ceil(math.log2(n_ranks)) * latency, bandwidth).seconds(*traffic(plan, n_ranks))
    return min(seconds, seconds * largest_share(plan, n_ranks) + exchanges)


def main():
    """Measure steps on one rank, and print how much faster several are predicted to be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=list("13567ACF"), choices=CELLS)
    parser.add_argument("--ranks", nargs="+", type=int, default=RANKS)
    parser.add_argument("--threads", type=int, default=available_threads(), help="of each rank")
    parser.add_argument("--links", nargs="+", default=LINKS, help="NAME=LATENCY:BANDWIDTH")
    options = parser.parse_args()
    links = {name: tuple(map(quantity, text.split(":"))) for name, text in (link.split("=") for link in options.links)}
    print(f"Predicted speed, float32, dense rows; 1 is one rank with {options.threads} threads\n")
    heads = [f"{n:,} ranks" if n == options.ranks[0] else f"{n:,}" for n in options.ranks]
    print("| cell | a step, by | " + " | ".join(f"{name}: {', '.join(heads)}" for name in links) + " |")
    print("| --- | --- |" + " --- |" * len(links))
    for label in options.cells:
        cell = CELLS[label]
        plan = make_trainer(cell, "float32", n_threads=options.threads, sparse=False).plan(*load_rows(cell, "float32"))
        seconds = measured_step(cell, options.threads)
        figures = [
            ", ".join(f"{seconds / predicted(plan, seconds, n, *link):.2f}" for n in options.ranks)
            for link in links.values()
        ]
        print(f"| {label} | {1000 * seconds:.3g} ms, {plan.driver} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
