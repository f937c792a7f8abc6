"""The tutorial's training functions in Theano's notation, in turn with others: ``pytest benchmarks/bench_symbolic.py``.

They are the cells 1 and 2 of `fastnn.benchmark`, one step on all rows a call, in float64 as the tutorial has them:
fastnn.symbolic, fastnn's Trainer (automatic), NumPy, JAX, PyTensor with its C linker, and Theano 1.0.5 where the
environment variable FASTNN_THEANO_PYTHON names a Python that has it.  Beside them stands the time that making the
function takes, with the compile caches of PyTensor and Theano as they are found; and a graph that the engine does not
know (squared error of probabilities, momentum), against the same written by hand with NumPy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bench_cells import prepare_pytensor, prepare_theano
from numpy.typing import NDArray

import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn.benchmark.cells import CELLS, Cell
from fastnn.benchmark.peers import AUTOMATIC, PEERS, Epoch, start
from fastnn.benchmark.timing import PAUSE, Contest, load_mnist

# What a peer warns of, and what pytest would make an error of, is its own affair.
pytestmark = pytest.mark.filterwarnings("ignore")

ROUNDS = 7
SYMBOLIC = "fastnn.symbolic"

#: Seconds that making a training function took.
compile_seconds: dict[str, float] = {}


def prepare_symbolic(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return a training function as the tutorial writes it."""
    network = start(cell, X.dtype.name)
    theano.config.floatX = X.dtype.name  # the rate's, too
    training_x, training_y = theano.shared(X), theano.shared(y.astype("int32"))
    weights, biases = ([theano.shared(p) for p in group] for group in (network.weights, network.biases))
    begin = time.perf_counter()
    x, labels = T.matrix(dtype=X.dtype), T.ivector()
    H = x
    for W, b in zip(weights[:-1], biases[:-1], strict=True):
        H = T.tanh(T.dot(H, W) + b)
    P = T.nnet.softmax(T.dot(H, weights[-1]) + biases[-1])
    LL = T.mean(T.log(P)[T.arange(P.shape[0]), labels])
    updates = [(p, p + cell.learning_rate * T.grad(LL, p)) for p in weights + biases]
    step = theano.function([], LL, updates=updates, givens={x: training_x, labels: training_y})
    compile_seconds[SYMBOLIC] = time.perf_counter() - begin
    assert step.recognised
    return lambda: float(step())


def prepare_compiled_pytensor(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return `prepare_pytensor`'s, and remember how long it took without the import."""
    import pytensor.tensor  # noqa: F401

    begin = time.perf_counter()
    epoch = prepare_pytensor(cell, X, y)
    compile_seconds["PyTensor"] = time.perf_counter() - begin
    return epoch


def prepare_compiled_theano(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return `prepare_theano`'s, and remember how long its process says that compiling took."""
    epoch = prepare_theano(cell, X, y)
    compile_seconds["Theano"] = epoch.compile_seconds  # type: ignore[attr-defined]
    return epoch


CONTESTANTS = {
    SYMBOLIC: prepare_symbolic,
    AUTOMATIC: PEERS[AUTOMATIC],
    "NumPy": PEERS["NumPy"],
    "JAX": PEERS["JAX"],
    "PyTensor": prepare_compiled_pytensor,
    "Theano": prepare_compiled_theano,
}


@pytest.mark.parametrize("label", ["1", "2"])
def test_tutorial(benchmark: Any, label: str) -> None:
    compile_seconds.clear()
    contest = Contest(CELLS[label], "float64", CONTESTANTS)
    assert not contest.wrong, contest.wrong

    def turn() -> None:
        for name in contest.seconds:
            if name in CONTESTANTS:
                contest.turn(name)

    benchmark.pedantic(turn, rounds=ROUNDS, iterations=1)
    found = {name: (min(times), statistics.median(times)) for name, times in contest.seconds.items() if times}
    contest.close()
    print(f"\ncell {label}: {CELLS[label].name}")
    for name, (best, median) in found.items():
        made = f", made in {1000 * compile_seconds[name]:.1f} ms" if name in compile_seconds else ""
        print(f"  {name:16} best {1000 * best:8.3f} ms, median {1000 * median:8.3f} ms{made}")
        benchmark.extra_info[name] = {"best": best, "median": median, "compile": compile_seconds.get(name)}
    for name, reason in contest.left_out.items():
        print(f"  {name} left out: {reason}")


def general_step(X: NDArray[Any], Y: NDArray[Any], W: list[NDArray[Any]]) -> Callable[[], float]:
    """Return a step of a network that is trained by the squared error of its probabilities, with momentum."""
    theano.config.floatX = X.dtype.name  # the rates', too
    weights = [theano.shared(w) for w in W]
    velocities = [theano.shared(np.zeros_like(w)) for w in W]
    x, y = theano.shared(X, borrow=True), theano.shared(Y, borrow=True)
    P = T.nnet.softmax(T.dot(T.tanh(T.dot(x, weights[0])), weights[1]))
    cost = T.mean(T.sum((P - y) ** 2, axis=1))
    updates = []
    for w, v in zip(weights, velocities, strict=True):
        moved = 0.9 * v - 0.1 * T.grad(cost, w)
        updates += [(v, moved), (w, w + moved)]
    step = theano.function([], cost, updates=updates)
    assert not step.recognised
    return lambda: float(step())


def numpy_step(X: NDArray[Any], Y: NDArray[Any], W: list[NDArray[Any]]) -> Callable[[], float]:
    """Return the same by hand, in place where that helps."""
    weights, velocities = [w.copy() for w in W], [np.zeros_like(w) for w in W]

    def step() -> float:
        H = X @ weights[0]
        np.tanh(H, out=H)
        P = H @ weights[1]
        P -= P.max(axis=1, keepdims=True)
        np.exp(P, out=P)
        P /= P.sum(axis=1, keepdims=True)
        D = P - Y
        cost = (D * D).sum(axis=1).mean()
        D *= P.dtype.type(2 / len(X))
        D -= (D * P).sum(axis=1, keepdims=True)
        D *= P
        gradients = [None, H.T @ D]
        D = D @ weights[1].T
        H *= H
        np.subtract(1, H, out=H)
        D *= H
        gradients[0] = X.T @ D
        for w, v, g in zip(weights, velocities, gradients, strict=True):
            v *= 0.9
            g *= 0.1
            v -= g
            w += v
        return float(cost)

    return step


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("rows", "units"), [(5000, 20), (5000, 300), (100, 50)])
def test_general_graph(benchmark: Any, dtype: str, rows: int, units: int) -> None:
    data, rng = load_mnist(dtype), np.random.default_rng(0)
    X, Y = data.X[:rows], np.eye(10, dtype=dtype)[data.y[:rows]]
    W = [(0.05 * rng.normal(size=shape)).astype(dtype) for shape in ((784, units), (units, 10))]
    steps = {SYMBOLIC: general_step(X, Y, W), "NumPy": numpy_step(X, Y, W)}
    np.testing.assert_allclose(*([step() for _ in range(3)] for step in steps.values()), rtol=1e-4)
    seconds: dict[str, list[float]] = {name: [] for name in steps}

    def turn() -> None:
        # Short turns, since the machine's speed may change within a second, but behind a pause in which the threads
        # that the other one has started come to rest.
        for _ in range(8):
            for name, step in steps.items():
                time.sleep(PAUSE)
                for _ in range(max(2, 10_000 // rows)):
                    begin = time.perf_counter()
                    step()
                    seconds[name].append(time.perf_counter() - begin)

    benchmark.pedantic(turn, rounds=ROUNDS, iterations=1)
    best, median = ({name: of(times) for name, times in seconds.items()} for of in (min, statistics.median))
    benchmark.extra_info |= {"best": best, "median": median}
    line = ", ".join(f"{name} {1000 * t:.3f} ms" for name, t in best.items())
    ratio, of_medians = (found["NumPy"] / found[SYMBOLIC] for found in (best, median))
    print(f"\n{rows} rows, {units} units, {dtype}: {line}, ratio {ratio:.2f}, of medians {of_medians:.2f}")
