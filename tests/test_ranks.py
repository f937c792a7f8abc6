"""Ranks of an MPI job, by the cases of `rank_cases.py`; and what they exchange, without MPI."""

import importlib.util
import itertools
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import rank_cases

import fastnn
from fastnn.engine import exchanges, local
from fastnn.engine.exchanges import Gather, Sums
from fastnn.kernels.losses import LOSSES, Targets
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.layout import pairs_of, shares, slices_of_ranks, split_sum
from fastnn.plan import Data, Link, Machine, Method, largest_share, make_plan, settle_sharing, share_out, traffic

# --- jobs -----------------------------------------------------------------------------------------------------------

HAS_MPI = importlib.util.find_spec("mpi4py") is not None and shutil.which("mpiexec") is not None
needs_mpi = pytest.mark.skipif(not HAS_MPI, reason="needs the extra mpi")

# One job a number of ranks: what each trains.
JOBS = {
    2: ["--every", "100", "^(?!150-.*(2000|-700).*float64)"],
    3: ["--every", "600", "shards", "a last batch", "row", "Adam,", "512-512, (dense|0.1)", "own, ", "bits"],
}


@pytest.fixture(scope="module")
def jobs():
    """By the number of ranks: the cases, what the job told, and how that differs from this process."""

    def start(n_ranks):
        with ThreadPoolExecutor(1) as pool:
            told = pool.submit(rank_cases.launch, n_ranks, JOBS[n_ranks])
            every, patterns = int(JOBS[n_ranks][1]), JOBS[n_ranks][2:]
            chosen = rank_cases.cases(patterns, every)
            alone = {case.name: case.run(None, n_ranks, 0) for case in chosen if case.alike in ("bits", "rounding")}
            return chosen, told.result(), alone

    found = {}
    for n_ranks in JOBS:
        chosen, told, alone = start(n_ranks)
        assert [case.name for case in chosen] == list(told)
        found[n_ranks] = chosen, told, alone
    return found


@needs_mpi
@pytest.mark.parametrize("n_ranks", JOBS)
def test_ranks_and_one_process_come_to_the_same(jobs, n_ranks):
    chosen, told, alone = jobs[n_ranks]
    found = {case.name: rank_cases.differences(case, n_ranks, told[case.name], alone.get(case.name)) for case in chosen}
    assert {name: differences for name, differences in found.items() if differences} == {}


@needs_mpi
@pytest.mark.parametrize("n_ranks", JOBS)
def test_ranks_share_in_all_ways(jobs, n_ranks):
    _, told, _ = jobs[n_ranks]
    ways = {what for one in told.values() for what in one["shared"]}
    assert ways >= {"alone", "shards", "units", "rows"}
    assert sum(one["shared"] != ["alone"] for one in told.values()) > len(told) / 2


@needs_mpi
def test_ranks_that_are_of_no_use_are_a_warning(jobs):
    _, told, _ = jobs[2]
    (warning,) = told["batch norm, float32"]["warnings"]
    assert warning.startswith("2 ranks will not make this fit faster: ")
    assert told["shards, Adam, float32"]["warnings"] == []


@needs_mpi
def test_all_ranks_refuse_what_one_does(jobs):
    _, told, _ = jobs[2]
    starts = [
        "ValueError: rows='own' is not for a network with batch normalisation",
        "ValueError: rows='own' takes arrays",
        "ValueError: X of all ranks together is empty",
        "ValueError: rank 1: X must be finite",
        "ValueError: LBFGS takes all rows at once",
        "ValueError: X must be the same on all ranks",
        "ValueError: y must be the same on all ranks",
        "ValueError: rank 1: X must be finite",
        "ValueError: batch_size must be the same on all ranks, but on rank 0 it is 5 and on rank 1 6",
        "ValueError: optimizer must be the same on all ranks",
    ]
    messages = told["refused"]["messages"]
    assert len(messages) == len(starts)
    for message, start in zip(messages, starts, strict=True):
        assert message.startswith(start)
        assert "but trained" not in message


@needs_mpi
def test_plans_say_what_ranks_share(jobs):
    _, told, _ = jobs[2]
    assert told["planned"]["messages"] == ["shards", "units", "rows"]


# --- without MPI ----------------------------------------------------------------------------------------------------


def test_importing_fastnn_leaves_mpi_alone(tmp_path):
    script = """
import sys, fastnn, fastnn.sklearn, fastnn.cli
trainer = fastnn.Trainer(fastnn.Network([2, 3], seed=0))
trainer.fit([[0.0, 1.0]], [1], epochs=1)
print([name for name in sys.modules if name.startswith("mpi4py")])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("comm", [0, "COMM_WORLD", SimpleNamespace(rank=0, size=2)])
def test_a_communicator_is_one_of_mpi4py(comm):
    with pytest.raises(TypeError, match="comm must be a communicator such as mpi4py"):
        fastnn.Trainer(fastnn.Network([2, 3]), comm=comm)


def test_rows_of_their_own_are_for_ranks():
    with pytest.raises(ValueError, match="rows must be "):
        fastnn.Trainer(fastnn.Network([2, 3]), rows="mine")
    with pytest.raises(ValueError, match="rows='own' is for the ranks of an MPI job: give comm too"):
        fastnn.Trainer(fastnn.Network([2, 3]), rows="own").fit([[0.0, 1.0]], [1])
    with pytest.raises(ValueError, match="sync_every is for the ranks of an MPI job: give comm too"):
        fastnn.Trainer(fastnn.Network([2, 3]), sync_every=2).fit([[0.0, 1.0]], [1])


def sum_of(things, additions):
    """Carry out additions on a list, in place of its numbers the text of their sum."""
    found = list(things)
    for first, second, *_ in additions:
        found[first] = f"({found[first]}+{found[second]})"
    return found


@pytest.mark.parametrize("n", [*range(1, 20), 31, 32, 33, 64])
def test_ranks_add_up_as_one_process_does(n):
    expected = sum_of(range(n), pairs_of(n))[0]
    ends = {first: end for first, _, end in pairs_of(n)}
    assert n == 1 or ends[0] == n
    rng = np.random.default_rng(n)
    for n_ranks in (1, 2, 3, 4, 5, 8, 64, 100):
        for bounds in (shares(n, n_ranks), [0, *np.sort(rng.integers(0, n + 1, n_ranks - 1)).tolist(), n]):
            partial, left = split_sum(bounds)
            # Each rank adds up what it names no more; the rest is added up from what the ranks sent.
            sent = {}
            for (first, end), heads in zip(itertools.pairwise(bounds), partial, strict=True):
                own = [pair for pair in pairs_of(n) if first <= pair[0] and pair[2] <= end]
                sums = sum_of(range(n), own)
                assert set(range(first, end)) - {second for _, second, _ in own} == set(heads)
                sent |= {head: sums[head] for head in heads}
            for first, second in left:
                sent[first] = f"({sent[first]}+{sent.pop(second)})"
            assert sent == {0: expected}
            # Few partial sums travel.
            assert all(len(heads) <= 2 * max(1, n.bit_length()) for heads in partial)


class Comm:
    """The ranks of a job in threads of one process: as much of mpi4py's interface as is needed."""

    def __init__(self, rank, size, board, barrier):
        self.rank, self.size, self._board, self._barrier = rank, size, board, barrier

    def _tell(self, value):
        self._board[self.rank] = value
        self._barrier.wait()
        told = list(self._board)
        self._barrier.wait()
        return told

    def Allgatherv(self, sent, received):
        assert sent is IN_PLACE
        array, (counts, starts) = received
        mine = array[starts[self.rank] : starts[self.rank] + counts[self.rank]].copy()
        for part, start, count in zip(self._tell(mine), starts, counts, strict=True):
            array[start : start + count] = part

    def Alltoallv(self, sent, received):
        (message, (counts, starts)), (target, (came, begins)) = sent, received
        told = self._tell([message[i : i + n].copy() for i, n in zip(starts, counts, strict=True)])
        for parts, begin, n in zip(told, begins, came, strict=True):
            assert len(parts[self.rank]) == n
            target[begin : begin + n] = parts[self.rank]


IN_PLACE = object()


def on_ranks(n_ranks, run):
    """Call run with the ranks of a made-up job, each in a thread; return what each returns."""
    board, barrier = [None] * n_ranks, threading.Barrier(n_ranks, timeout=20)

    def begin(rank):
        comm = Comm(rank, n_ranks, board, barrier)
        return run(SimpleNamespace(comm=comm, rank=rank, size=n_ranks, in_place=IN_PLACE))

    with ThreadPoolExecutor(n_ranks) as pool:
        return list(pool.map(begin, range(n_ranks)))


@pytest.mark.parametrize("large", [1, 1 << 14])
@pytest.mark.parametrize("n_ranks", [2, 3, 5])
def test_parts_are_gathered(n_ranks, large, monkeypatch):
    monkeypatch.setattr(exchanges, "LARGE_PART", large)
    rng = np.random.default_rng(n_ranks)
    cuts = [0, *np.sort(rng.integers(0, 40, 3 * n_ranks - 1)).tolist(), 40]
    pieces = [slice(*pair) for pair in itertools.pairwise(cuts)]
    together = [[slice(cuts[3 * rank], cuts[3 * rank + 3])] for rank in range(n_ranks)]
    apart = [pieces[rank::n_ranks] for rank in range(n_ranks)]
    none = [[], *([piece] for piece in pieces[: n_ranks - 1])]
    for parts in (together, apart, none):

        def run(ranks, parts=parts):
            array = np.full(40, -1.0)
            for part in parts[ranks.rank]:
                array[part] = 100 * ranks.rank + np.arange(40)[part]
            gather = Gather(ranks, array, parts)
            gather()
            gather()
            return array

        expected = np.full(40, -1.0)
        for rank, own in enumerate(parts):
            for part in own:
                expected[part] = 100 * rank + np.arange(40)[part]
        for array in on_ranks(n_ranks, run):
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("own_rows", [False, True])
@pytest.mark.parametrize(("n_ranks", "n_shards"), [(2, 2), (2, 5), (3, 8), (3, 2), (4, 3), (5, 13)])
def test_gradients_are_summed_in_one_order(n_ranks, n_shards, own_rows, dtype):
    if own_rows:
        n_shards = n_ranks
    rng = np.random.default_rng(n_shards)
    size = 64
    gradients = rng.standard_normal((n_shards, size)).astype(dtype)
    told = rng.standard_normal(n_shards)
    expected = gradients.copy()
    for first, second, _ in pairs_of(n_shards):
        expected[first] += expected[second]
    bounds, slices = shares(n_shards, n_ranks), [min(size, 16 * -(-size // (16 * n_ranks)) * k) for k in range(n_ranks)]
    slices.append(size)

    def run(ranks):
        first, end = bounds[ranks.rank : ranks.rank + 2]
        own, log_likelihoods = np.full_like(gradients, np.nan), np.full(n_shards, np.nan)
        here = slice(0, end - first) if own_rows else slice(first, end)
        own[here], log_likelihoods[here] = gradients[first:end], told[first:end]
        for a, b, stop in pairs_of(n_shards):
            if not own_rows and first <= a and stop <= end:
                own[a] += own[b]
        sums = Sums(ranks, own, log_likelihoods, bounds, slices, own_rows)
        sums()
        begin, end = slices[ranks.rank : ranks.rank + 2]
        for a, b in sums.pairs:
            sums.received[a : a + end - begin] += sums.received[b : b + end - begin]
        np.testing.assert_array_equal(sums.log_likelihoods, told)
        return sums.received[: end - begin].copy()

    np.testing.assert_array_equal(np.concatenate(on_ranks(n_ranks, run)), expected[0])


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("sizes", [(30, 12, 4), (30, 250, 4), (70, 30, 4)])
def test_a_trial_is_on_the_rows(sizes, ordered, monkeypatch, rng):
    def aligned(shape, dtype, zeros=True):
        found = make(shape, dtype)
        found[...] = 0 if zeros else np.nan
        return found

    make = local.aligned
    monkeypatch.setattr(local, "aligned", aligned)
    network = fastnn.Network(sizes, dtype="float32", seed=0)
    before = network.parameters.copy()
    engine = network.engine(1)
    X, y = rng.standard_normal((500, sizes[0])).astype("float32"), rng.integers(0, 4, 500)
    engine.begin(X, engine.plan(X, Method(60, "sgd"), ordered))
    seconds = engine._try(Targets(LOSSES["cross_entropy"], y), Steps(UPDATES["sgd"], np.full((9, 4), 1e-6)))
    assert 0 < seconds < 10
    np.testing.assert_array_equal(network.parameters, before)


# --- the plan -------------------------------------------------------------------------------------------------------

FAST, SLOW = Link(1e-6, 1e10), Link(1e-3, 1e7)


def plan_of(sizes, batch_size, n_rows=10_000, update="sgd", n_ranks=4, **method):
    layers = fastnn.Network(sizes, dtype="float32").engine().layers
    method = Method(batch_size, update, **method)
    plan = make_plan(layers, "float32", Data(n_rows, sizes[0], "float32"), method, Machine(1, 64))
    return share_out(plan, n_ranks, method)


def why(plan):
    (reason,) = [reason for reason in plan.reasons if reason.about == "ranks"]
    return reason


@pytest.mark.parametrize(
    ("plan", "sharing"),
    [
        (plan_of((784, 10), 20), "alone"),
        (plan_of((784, 10), 4096), "shards"),
        (plan_of((784, 500, 10), 20), "units"),
        (plan_of((784, 512, 512, 10), 20), "units"),
        (plan_of((784, 512, 100, 10), 20), "alone"),  # 100 units have too few slices
        (plan_of((784, 500, 10), 20, own_rows=True), "rows"),
        (plan_of((784, 500, 10), 20, sync_every=5), "averages"),
    ],
)
def test_what_ranks_share(plan, sharing):
    assert plan.sharing == sharing
    assert why(plan).choice == f"4, {sharing}"


@pytest.mark.parametrize("n_ranks", [2, 3, 4, 8])
def test_what_travels(n_ranks):
    share = (n_ranks - 1) / n_ranks
    shards = plan_of((784, 10), 4096, n_ranks=n_ranks)
    assert shards.n_shards >= 8
    n_exchanges, n_bytes = traffic(shards, n_ranks)
    assert n_exchanges == 2
    # The own slice of each partial sum, and all other slices of the parameters.
    n_sums = sum(len(own) for own in split_sum(shares(shards.n_shards, n_ranks))[0])
    assert n_bytes == pytest.approx(share * 4 * shards.n_parameters * (n_sums / n_ranks + 1))
    if shards.n_shards % n_ranks == 0:
        assert n_sums == n_ranks
    own = plan_of((784, 10), 4096, own_rows=True, n_ranks=n_ranks)
    assert traffic(own, n_ranks)[1] == pytest.approx(share * 4 * own.n_parameters * 2)
    one = plan_of((784, 500, 10), 20, n_ranks=n_ranks)
    assert traffic(one, n_ranks) == (1, pytest.approx(share * 4 * 20 * 10 * len(one.layers[-1].slices)))
    assert traffic(plan_of((784, 512, 512, 10), 20, n_ranks=n_ranks), n_ranks)[0] == 3
    assert traffic(plan_of((784, 10), 20, n_ranks=n_ranks), n_ranks) == (0, 0.0)


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("sizes", [(784, 200, 10), (784, 500, 10), (50, 512, 1000, 700, 3), (784, 2000, 10)])
def test_slices_of_ranks(sizes, n_ranks):
    plan = plan_of(sizes, 20)
    assert plan.sharing == "units"
    for layer in plan.layers:
        bounds = slices_of_ranks(layer, n_ranks)
        assert len(bounds) == n_ranks + 1
        assert bounds[0] == 0
        assert bounds[-1] == len(layer.slices)
        assert bounds == sorted(bounds)
        if layer.groups > 1:  # whole groups
            assert set(bounds) <= {len(layer.slices) * k // layer.groups for k in range(layer.groups + 1)}
    most = largest_share(plan, n_ranks)
    assert most >= 1 / n_ranks - 1e-12
    assert most <= -(-4 // n_ranks) / 4 + 0.12  # slices are of whole vectors


@pytest.mark.parametrize("sizes", [(784, 10), (784, 500, 10)])
def test_ranks_share_if_that_is_faster(sizes):
    plan = plan_of(sizes, 4096 if len(sizes) == 2 else 20)
    fast, slow = (settle_sharing(plan, 4, link, 1e-3) for link in (FAST, SLOW))
    assert fast.sharing == plan.sharing
    expected = 1e-3 * largest_share(plan, 4) + FAST.seconds(*traffic(plan, 4))
    assert fast.shared_seconds == pytest.approx(expected)
    assert slow.sharing == "alone"
    assert f"sharing its {plan.sharing} would take longer" in why(slow).why
    assert "a step takes 1 ms alone, and about " in why(fast).why
    assert fast.fingerprint() == slow.fingerprint() == plan.fingerprint()
    # With rows of their own they have no choice.
    own = settle_sharing(plan_of(sizes, 20, own_rows=True), 4, SLOW, 1e-3)
    assert own.sharing == "rows"


def test_the_cases_have_names_of_their_own():
    names = [case.name for case in rank_cases.cases(every=50)]
    assert len(set(names)) == len(names)
    assert {case.alike for case in rank_cases.cases(every=50)} == {"bits", "rounding", "ranks", "agree"}
