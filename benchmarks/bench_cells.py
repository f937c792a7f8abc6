"""Every cell, both dtypes, fastnn and its peers in turn: ``pytest benchmarks --benchmark-json=results.json``.

A test is one turn of one peer; they run cell by cell, in rounds, in each of which every peer, the peak of the matrix
product and a cache line's way from core to core have a turn.  ``python benchmarks/table.py results.json`` makes a table
of the file.

Two peers are here beside those of ``fastnn.benchmark``, for the cells of plain steps: PyTensor, and Theano 1.0.5 where
the environment variable FASTNN_THEANO_PYTHON names a Python that has it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastnn.benchmark.cells import CELLS, Cell
from fastnn.benchmark.peers import AUTOMATIC, PEERS, Epoch, Peer, start
from fastnn.benchmark.timing import HANDOVER, PEAK, Contest
from fastnn.engine.threads import blas_libraries

# What a peer warns of, and what pytest would make an error of, is its own affair.
pytestmark = pytest.mark.filterwarnings("ignore")

THEANO_PYTHON = "FASTNN_THEANO_PYTHON"
BLAS_FUNCTIONS = ("gemm", "gemv", "ger", "dot", "axpy", "scal", "swap", "copy")


def openblas_flags() -> tuple[str, str]:
    """Return flags by which Theano's and PyTensor's C code is linked with SciPy's OpenBLAS: linker's, compiler's.

    There it is, current and with all kernels, wherever fastnn is; its functions have a prefix, which macros add.
    """
    for library in blas_libraries():
        path = library["filepath"]
        for prefix in ("scipy_", ""):
            if library["internal_api"] == "openblas" and hasattr(ctypes.CDLL(path), f"{prefix}dgemm_"):
                names = [f"{kind}{name}_" for kind in "sd" for name in BLAS_FUNCTIONS]
                macros = [f"-D{name}={prefix}{name}" for name in names if prefix]
                # Both add a run path for each -L by themselves.
                return f"-L{os.path.dirname(path)} -l:{os.path.basename(path)}", " ".join(macros)
    raise LookupError("SciPy's BLAS is no OpenBLAS with 32-bit integers, which the C code could be linked with")


def only_plain_steps(cell: Cell) -> None:
    """Refuse a cell of the other kind."""
    if cell.optimizer != "sgd" or cell.activation != "tanh" or cell.dropout or cell.shuffled or cell.convolutions:
        raise LookupError("its program here is of dense layers of tanh units, plain steps, and rows in order")


def prepare_pytensor(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return PyTensor with its C linker.

    OpenBLAS is linked, so that the update is folded into the product (Gemm in place).  The data is shared and
    a step takes the number of its first row; results are kept for the next step (cvm_nogc), and inputs are
    trusted.  The softmax is written out: PyTensor's own, and indexing by labels, have no C code any more, and
    took 1.3 times as long with batches of 20.
    """
    only_plain_steps(cell)
    link, macros = openblas_flags()
    os.environ.setdefault("PYTENSOR_FLAGS", f"blas__ldflags={link},gcc__cxxflags={macros}")
    import pytensor
    import pytensor.tensor as pt
    from pytensor.compile.mode import Mode

    if not pytensor.config.cxx:
        raise LookupError("PyTensor found no C++ compiler")
    dtype = X.dtype.name
    network = start(cell, dtype)
    data = pytensor.shared(X, borrow=True)
    # A row of Y is 1 at the label.
    targets = pytensor.shared(np.eye(network.n_out, dtype=dtype)[y], borrow=True)
    weights, biases = ([pytensor.shared(p.copy()) for p in group] for group in (network.weights, network.biases))
    first = pt.lscalar()
    rows, Y = data, targets
    if cell.batch_size < cell.rows:
        rows, Y = (part[first : first + cell.batch_size] for part in (data, targets))
    for W, b in zip(weights[:-1], biases[:-1], strict=True):
        rows = pt.tanh(rows @ W + b)
    Z = rows @ weights[-1] + biases[-1]
    Z = Z - pytensor.gradient.disconnected_grad(Z.max(axis=1, keepdims=True))
    value = ((Y * Z).sum() - pt.log(pt.exp(Z).sum(axis=1)).sum()) / Y.shape[0].astype(dtype)
    parameters = weights + biases
    rate = X.dtype.type(cell.learning_rate)
    step = pytensor.function(
        [first],
        pytensor.Out(value, borrow=True),
        updates=[(p, p + rate * g) for p, g in zip(parameters, pytensor.grad(value, parameters), strict=True)],
        mode=Mode(linker="cvm_nogc", optimizer="fast_run"),
        on_unused_input="ignore",
    )
    step.trust_input = True
    starts = [np.asarray(first) for first in range(0, cell.rows, cell.batch_size)]
    sizes = [min(cell.batch_size, cell.rows - int(first)) for first in starts]

    def epoch() -> float:
        return sum(float(step(first)) * size for first, size in zip(starts, sizes, strict=True)) / cell.rows

    return epoch


class TheanoEpoch:
    """A process that trains an epoch at a call; the pipe to it costs less than 0.1 ms a call.

    Parameters
    ----------
    python : str
        A Python that has Theano.
    file : str
        What `theano_peer.py` reads.
    dtype : {"float32", "float64"}
        Of all numbers in it.
    """

    def __init__(self, python: str, file: str, dtype: str) -> None:
        link, macros = openblas_flags()
        flags = f"blas.ldflags={link},gcc.cxxflags={macros},floatX={dtype},allow_gc=False,device=cpu"
        script = str(Path(__file__).with_name("theano_peer.py"))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  lives as long as the process
        self._process = subprocess.Popen(
            [python, script, file],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={"THEANO_FLAGS": flags, **environment},
        )
        answer = self._answer().split()
        if len(answer) != 3 or answer[0] != "ready":
            self.close()
            raise LookupError(f"unexpected answer of Theano's process: {' '.join(answer)}")
        self.version, self.compile_seconds = answer[1], float(answer[2])

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:]
            raise LookupError(f"Theano's process ended with status {self._process.returncode}: {' '.join(last)}")
        return line

    def __call__(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write("epoch\n")
        self._process.stdin.flush()
        _, value = self._answer().split()
        return float(value)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._errors.close()


def prepare_theano(cell: Cell, X: NDArray[Any], y: NDArray[Any]) -> Epoch:
    """Return the genuine Theano 1.0.5, in a process of its own, since it needs an old Python and NumPy.

    With its C code linked with the same OpenBLAS as PyTensor's, so that old kernels do not slow it, results kept
    for the next step (allow_gc=False), inputs trusted, and softmax and cross-entropy as it recognises and
    fuses them.  THEANO_FLAGS, where set, takes the place of these.
    """
    only_plain_steps(cell)
    python = os.environ.get(THEANO_PYTHON)
    if not python:
        raise LookupError(f"the environment variable {THEANO_PYTHON} names no Python")
    network = start(cell, X.dtype.name)
    parameters = {f"W{k}": W for k, W in enumerate(network.weights)}
    parameters |= {f"b{k}": b for k, b in enumerate(network.biases)}
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "cell.npz")
        np.savez(file, X=X, y=y, learning_rate=cell.learning_rate, batch_size=cell.batch_size, **parameters)
        return TheanoEpoch(python, file, X.dtype.name)


ALL_PEERS: dict[str, Peer] = {**PEERS, "PyTensor": prepare_pytensor, "Theano": prepare_theano}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a turn, in the order in which the turns are taken."""
    option = metafunc.config.getoption
    wanted = option("peers") or ALL_PEERS
    names = [name for name in ALL_PEERS if name == AUTOMATIC or name in wanted] + [PEAK, HANDOVER]
    turns = [
        pytest.param(
            CELLS[label].first(option("rows")), dtype, turn, name, id=f"cell {label}-{dtype}-round {turn}-{name}"
        )
        for label in option("cells")
        for dtype in option("dtypes")
        for turn in range(1, option("rounds") + 1)
        for name in names
    ]
    metafunc.parametrize(("cell", "dtype", "turn", "name"), turns)


class Stage:
    """Holds the contest that is under way, one at a time."""

    def __init__(self, peers: dict[str, Peer]) -> None:
        self.peers = peers
        self.contest: Contest | None = None

    def contest_of(self, cell: Cell, dtype: str) -> Contest:
        """Return the contest of a cell, which ends the one before."""
        if self.contest is None or (self.contest.cell, self.contest.dtype) != (cell, dtype):
            self.close()
            self.contest = Contest(cell, dtype, self.peers)
        return self.contest

    def close(self) -> None:
        """End the contest that is under way."""
        if self.contest is not None:
            self.contest.close()
        self.contest = None


class Clock:
    """Shows pytest-benchmark the seconds that a contest has counted."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time go on."""
        self.now += seconds


clock = Clock()


@pytest.fixture(scope="module")
def stage(pytestconfig: pytest.Config) -> Iterator[Stage]:
    wanted = pytestconfig.getoption("peers") or ALL_PEERS
    stage = Stage({name: peer for name, peer in ALL_PEERS.items() if name == AUTOMATIC or name in wanted})
    yield stage
    stage.close()


@pytest.mark.benchmark(timer=clock)
def test_turn(benchmark: Any, stage: Stage, cell: Cell, dtype: str, turn: int, name: str) -> None:
    contest = stage.contest_of(cell, dtype)
    if name in contest.left_out:
        pytest.skip(f"{name}: {contest.left_out[name]}")
    assert name not in contest.wrong, contest.wrong[name]
    if name not in contest.seconds:
        pytest.skip(f"{name} cannot be measured here")
    about = {"cell": cell.label, "name": cell.name, "dtype": dtype, "peer": name, "round": turn, "flops": cell.flops}
    benchmark.extra_info.update(about, version=getattr(contest.call(name), "version", None))
    seconds = contest.turn(name)
    timed = iter(seconds)
    benchmark.pedantic(lambda: clock.advance(next(timed)), rounds=len(seconds), iterations=1)
