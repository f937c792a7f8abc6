"""The choice of the number of threads, on a made-up machine whose speeds are known."""

from types import SimpleNamespace

import numpy as np
import pytest

import fastnn
from fastnn import tuning
from fastnn.engine import local
from fastnn.engine.pace import Pace
from fastnn.kernels import epoch
from fastnn.kernels.losses import LOSSES, Targets
from fastnn.plan import Method


def run(pace, seconds, speed):
    """Let runs pass for so many seconds; return the rows that they finished, and the seconds with each number."""
    total, clock, spent = 0.0, 0.0, {}
    while clock < seconds:
        n, lasts = pace.n_threads, pace.run_seconds
        total += lasts * speed(n)
        pace.note(lasts * speed(n), lasts)
        spent[n] = spent.get(n, 0.0) + lasts
        clock += lasts
    return total / clock, spent


MACHINES = {
    "free": lambda n: 100 * n**0.9,
    "far apart": lambda n: 100 / n**0.5,
    "a peak": lambda n: 100 * n / (1 + (n / 8) ** 2),
    "one processor for all": lambda n: 100 if n == 1 else 0.1,
    "all alike": lambda n: 100,
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("most", [1, 2, 3, 8, 12, 64])
def test_it_comes_within_a_few_per_cent_of_the_best_fixed_number(machine, most):
    speed, pace = MACHINES[machine], Pace(most)
    numbers = {1, 2, 4, 8, 16, 32, 64, most}
    best = max(speed(n) for n in numbers if n <= most)
    assert run(pace, 3.0, speed)[0] > 0.95 * best
    assert run(pace, 10.0, speed)[0] > 0.99 * best


@pytest.mark.parametrize("most", [2, 16])
def test_it_follows_a_machine_that_changes(most):
    pace, before, after = Pace(most), MACHINES["free"], MACHINES["one processor for all"]
    _, spent = run(pace, 5.0, before)
    assert spent[most] > 0.97 * sum(spent.values())
    run(pace, 3 * tuning.CHUNK_SECONDS, after)  # it sees at once that it has become slow
    for seconds, machine, best in ((4.0, after, 1), (5 * tuning.LONGEST_WAIT, before, None), (4.0, before, most)):
        _, spent = run(pace, seconds, machine)
        assert best is None or spent[best] > 0.97 * sum(spent.values())


def test_an_engine_follows_it(monkeypatch, rng):
    if not epoch.HAS_OPENMP:
        pytest.skip("without OpenMP there is one thread")
    clock, runs, slow = SimpleNamespace(now=0.0), [], 2

    def train(batches, plan, steps, space, work, seconds, n_threads, exchanges):
        runs.append(n_threads)
        clock.now += seconds
        space.position[0] += 1 if n_threads == slow else 100

    monkeypatch.setattr(epoch, "train", train)
    monkeypatch.setattr(local, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    engine = fastnn.Network([784, 40, 3], dtype="float32").engine(2)
    X, y = rng.random((100_000, 1), np.float32).repeat(784, 1), rng.integers(0, 3, 100_000)
    engine.begin(X, engine.plan(X, Method(20, "sgd")))
    engine.restart(None)
    for slow in (2, 1):
        runs.clear()
        for _ in range(200):
            assert engine.advance(Targets(LOSSES["cross_entropy"], y), None, 0.05)
        assert runs[-20:].count(slow) <= 4


def test_a_rank_without_rows_measures_nothing():
    pace = Pace(4)
    for _ in range(10):
        pace.note(0, 1.0)
    assert pace.n_threads == 4
