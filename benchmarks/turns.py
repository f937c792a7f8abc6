"""Calls of several libraries in turn, for the benchmarks beside the cells."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PAUSE = 0.15  # threads of BLAS go on spinning for a while after a call
# Calls in a row, and for so many seconds: after a pause the first may wait for memory that the system took back.
IN_A_ROW = 2
TURN = 0.1


def in_turn(benchmark: Any, calls: dict[str, Callable[[], Any]], rounds: int, repeats: int = 1) -> None:
    """Time calls in turn, and print the best time of each and how it compares with the best whose name has fastnn.

    A time is of a call in a row of so many repeats, which are timed as one: for calls of microseconds.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}

    def turn() -> None:
        for name, call in calls.items():
            time.sleep(PAUSE)
            seconds: list[float] = []
            while len(seconds) < IN_A_ROW or sum(seconds) * repeats < TURN:
                start = time.perf_counter()
                for _ in range(repeats):
                    call()
                seconds.append((time.perf_counter() - start) / repeats)
            times[name] += seconds

    benchmark.pedantic(turn, rounds=rounds, iterations=1, warmup_rounds=1)
    best = {name: min(seconds) for name, seconds in times.items()}
    ours = min(seconds for name, seconds in best.items() if "fastnn" in name)
    benchmark.extra_info["seconds"] = best
    print(f"\n{benchmark.name}: " + ", ".join(f"{name} {s:.4g} s ({s / ours:.2f})" for name, s in best.items()))
