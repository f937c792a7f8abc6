"""Ranks of an MPI job against one process: the same bits if they share the rows, the same to rounding if each has own.

    mpiexec -n 3 python tests/rank_cases.py run [--every 10] [--part 0/4] [PATTERN ...]
    python tests/rank_cases.py compare --ranks 1 2 3 4 8 [--launcher mpiexec] [the same]

The first trains the cases whose names match one of the patterns, and rank 0 prints a line of JSON for each: digests of
what came of it, and whether all ranks have the same.  The second starts such jobs, trains the same cases in its own
process without MPI, and says what is different.  The cases are all situations of `bits.py`, of which --every takes a
part, and those below.  Ranks share the work wherever they can, even where that takes longer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest import mock

import bits
import numpy as np
import scipy.sparse
from bits import digest
from levels import levels_of, one_each

import fastnn
from fastnn import LBFGS, SGD, Adagrad, Adam, AdamW, Network, RMSprop, Trainer, _mapped, tuning
from fastnn.augment import Flip, Shift
from fastnn.callbacks import Callback, Checkpoint, EarlyStopping
from fastnn.layers import Category, Columns, Conv2D, Dense, MaxPool2D, Number
from fastnn.schedules import Cosine, OnPlateau

N_CLASSES = 4
OPTIMIZERS = {
    "SGD": SGD(0.1),
    "momentum": SGD(0.1, 0.9),
    "Nesterov": SGD(0.1, 0.9, True),
    "RMSprop": RMSprop(),
    "Adagrad": Adagrad(),
    "Adam": Adam(0.01),
    "AdamW": AdamW(0.01),
}
# Two columns of bytes as categories, and three as numbers.
TABLE = [
    Columns([Category(256, width=3), Category(200, True, 2), *[Number(128, 0.01)] * 3]),
    Dense(12),
    Dense(N_CLASSES),
]
# Of hidden layers behind 150 inputs.
WIDTHS = (100,), (200,), (512,), (1000,), (2000,), (100, 100), (300, 60), (512, 512), (1000, 2000), (300, 700, 200)


class Outcome(NamedTuple):
    """Digests of parameters with the optimizer's state, and of the history; the numbers themselves, where few.

    Attributes
    ----------
    messages : tuple of str
        Of errors that were expected.
    shared : tuple of str
        What ranks shared.
    """

    parameters: str
    history: str
    values: tuple[float, ...] = ()
    messages: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """Fits, and how much what comes of them is alike.

    Attributes
    ----------
    run : callable
        Takes a communicator, or None for one process, the number of ranks, and which of some ways that change no bits.
    alike : {"bits", "rounding", "ranks", "agree"}
        To the bit for any number of ranks; to rounding, and a second time to the bit; only a second time; only on all
        ranks.
    factor : float
        How many times the usual rounding.
    """

    name: str
    run: Callable[[Any, int, int], Outcome]
    alike: str = "bits"
    factor: float = 1.0


# --- shared rows ----------------------------------------------------------------------------------------------------


class Watch:
    """Notes what ranks share, while it is entered, and has them share whatever they can.

    way : 1 and 3 with two threads a rank; 2 and 3 with a pause after each row block
    measures : they share only what is then faster
    pauses : after each batch
    """

    def __init__(self, way: int = 0, measures: bool = False, pauses: bool = False) -> None:
        self.shared: set[str] = set()
        self.n_threads = 1 + way % 2
        share = fastnn.engine.local.Engine.share
        seconds = 1e-6 if pauses else 3e-4 if way > 1 else tuning.CHUNK_SECONDS

        def watched(*given: Any) -> Any:
            plan = share(*given)
            self.shared.add(plan.sharing)
            return plan

        self._patches = [
            mock.patch.object(fastnn.engine.local.Engine, "share", watched),
            mock.patch.object(tuning, "SMALL_RUN", 0),  # or one thread does it
            mock.patch.object(tuning, "IMAGE_SHARD_PRODUCT", 1e5),  # or small images have one shard
            mock.patch.object(tuning, "IMAGE_SHARD_PRODUCTS", 1),
            mock.patch.object(_mapped, "PIECE_BYTES", 1 << 10),
            mock.patch.object(_mapped, "WINDOW_BYTES", 1 << 12),
            mock.patch.object(tuning, "CHUNK_SECONDS", seconds),
        ]
        if not measures:
            self._patches.append(mock.patch.object(fastnn.engine.local, "settle_sharing", lambda plan, *_: plan))
            self._patches.append(mock.patch.object(tuning, "TRIAL_SECONDS", 1e-5))

    def __enter__(self) -> Watch:
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        for patch in self._patches:
            patch.stop()


def mapped(X: Any) -> Any:
    """The same rows on the disk."""
    with tempfile.TemporaryFile() as file:
        X.tofile(file)
        return np.memmap(file, X.dtype, "c", shape=X.shape)


def rows(n: int, n_in: int, kind: str, dtype: str) -> Any:
    """Rows (n, n_in): "dense", "uint8", "mapped", or the share of numbers in a sparse matrix that are not 0."""
    rng = np.random.default_rng([n, n_in])
    if kind == "uint8":
        return rng.integers(0, 256, (n, n_in), np.uint8)
    if kind not in ("dense", "mapped"):
        return scipy.sparse.random(n, n_in, float(kind), "csr", dtype, rng, rng.standard_normal)
    X = rng.standard_normal((n, n_in)).astype(dtype)
    return mapped(X) if kind == "mapped" else X


def targets(n: int, loss: str) -> Any:
    """What n rows should give."""
    rng = np.random.default_rng(n)
    if loss == "cross_entropy":
        return rng.integers(0, N_CLASSES, n)
    return one_each(loss, rng.uniform(0, 1, (n, N_CLASSES)))


def history_of(history: Any) -> list[list[float]]:
    """What two fits should have the same of, beside the seconds."""
    measured = [history.validation_log_likelihood, history.validation_error]
    return [history.log_likelihood, history.objective, *(list(values or ()) for values in measured)]


def outcome(trainer: Trainer, histories: Sequence[Any], watch: Watch, keeps: bool = False) -> Outcome:
    """What came of fits; keeps: with the numbers."""
    network, state = trainer.network, trainer._state
    numbers = [number for history in histories for values in history_of(history) for number in values]
    told = [np.array(numbers), np.array(state.curve), np.array([len(history) for history in histories])]
    content = repr((state.generator.bit_generator.state, state.n_steps, network.input_scale))
    return Outcome(
        digest(network.parameters, state.optimizer),
        digest(*told, np.frombuffer(content.encode(), np.uint8)),
        (*network.parameters.tolist(), *numbers) if keeps else (),
        (),
        tuple(sorted(watch.shared)),
    )


class StopError(Exception):
    """Ends a fit."""


class Stop(Callback):
    """Ends a fit when it is called for the third time; checkpoints have been written before."""

    def on_start(self, fit: Any) -> None:
        self._n_calls = 0

    def on_chunk(self, fit: Any) -> None:
        self._n_calls += 1
        if self._n_calls == 3:
            raise StopError


def make_network(sizes: Sequence[Any], dtype: str, options: dict[str, Any] | None) -> Network:
    """Network of these sizes or layers."""
    layers = [*sizes, N_CLASSES] if isinstance(sizes[0], int) else list(sizes)
    return Network(layers, **{"activation": "tanh", "seed": 2, "dtype": dtype, **(options or {})})


def carry_out(
    make: Callable[..., Trainer], fit: Callable[..., Any], epochs: Sequence[int], comm: Any, resumed: str
) -> tuple[Trainer, list[Any]]:
    """Fit for so many epochs, one fit after the other; or stop the fit, and resume it in another trainer."""
    if comm is None or not resumed:
        trainer = make(comm)
        return trainer, [fit(trainer, k) for k in epochs]
    folder = comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None)
    path = os.path.join(folder, "checkpoint")
    if resumed != "by more" or comm.rank == 0:
        try:
            fit(make(None if resumed == "by more" else comm, callbacks=[Checkpoint(path, 0), Stop()]), *epochs)
        except StopError:
            pass
        else:
            raise AssertionError("the fit was not stopped")
    comm.Barrier()
    trainer = make(None if resumed == "by one" else comm)
    histories = [fit(trainer, *epochs, resume=path)]
    comm.Barrier()
    if comm.rank == 0:
        shutil.rmtree(folder)
    return trainer, histories


def shared(
    sizes: Sequence[Any],
    n: int,
    batch_size: int | None = None,
    kind: str = "dense",
    dtype: str = "float32",
    epochs: Sequence[int] = (2,),
    n_validation: int = 0,
    weighted: bool = False,
    measures: bool = False,
    resumed: str = "",
    network: dict[str, Any] | None = None,
    **settings: Any,
) -> Callable[[Any, int, int], Outcome]:
    """Return the run of a case with rows in common: fits of so many epochs, one after the other.

    resumed : whether the fit is stopped, and resumed "by all", "by one" of the ranks or "by more" than had begun
    """

    def run(comm: Any, n_ranks: int, way: int) -> Outcome:
        net = make_network(sizes, dtype, network)
        X, y = rows(n, net.sizes[0], kind, dtype), targets(n, net.loss)
        rng = np.random.default_rng(1)
        weights = rng.uniform(0, 2, n) if weighted else None
        validation = None
        if n_validation:
            validation = [rows(n_validation, net.sizes[0], kind, dtype), targets(n_validation, net.loss)]
            validation += [rng.uniform(0, 2, n_validation)] if weighted else []
        if kind == "uint8" and net.input_shape is not None and len(net.input_shape) == 3:
            X = X.reshape(n, *net.input_shape)
        with Watch(way, measures, bool(resumed)) as watch:
            given = {"optimizer": SGD(0.1), "seed": 3, "sparse": kind[0].isdigit(), "n_threads": watch.n_threads}

            def make(comm: Any, **more: Any) -> Trainer:
                net = make_network(sizes, dtype, network)
                return Trainer(net, batch_size=batch_size, comm=comm, **given | settings | more)

            def fit(trainer: Trainer, epochs: int, **more: Any) -> Any:
                return trainer.fit(X, y, epochs, validation=validation, sample_weight=weights, **more)

            trainer, histories = carry_out(make, fit, epochs, comm, resumed)
        return outcome(trainer, histories, watch)

    return run


class Slower(Callback):
    """Halves the learning rate after an epoch, and ends the fit after three: rank 0 tells the others."""

    def on_epoch(self, fit: Any) -> None:
        fit.learning_rate = fit.learning_rate / 2
        fit.stop = len(fit.history) == 3


def shared_cases() -> Iterator[Case]:
    """Cases with rows in common, beside those of `bits.py`."""
    for (name, optimizer), dtype in itertools.product(OPTIMIZERS.items(), bits.DTYPES):
        fits = {"dtype": dtype, "epochs": (2, 1), "weighted": True, "n_validation": 3000, "optimizer": optimizer}
        yield Case(f"shards, {name}, {dtype}", shared((30, 12), 2100, 900, **fits))
        yield Case(f"units, {name}, {dtype}", shared((30, 250), 130, 60, **fits, clip_norm=0.1, l2=0.01))
        yield Case(f"deep units, {name}, {dtype}", shared((30, 220, 230), 70, 30, **fits, l1=0.01))
    for dtype in bits.DTYPES:
        fits = {"dtype": dtype, "epochs": (4, 3), "n_validation": 3000, "optimizer": LBFGS()}
        yield Case(f"shards, L-BFGS, {dtype}", shared((30, 12), 2100, **fits))
        yield Case(f"shards, L-BFGS, sparse, {dtype}", shared((90, 12), 2100, kind="0.1", **fits))
        yield Case(f"one row, L-BFGS, {dtype}", shared((30, 12), 1, **fits))
        for kind, sizes in itertools.product(
            ("dense", "uint8", "mapped", "0.1", "0.002"),
            WIDTHS,
        ):
            name = "-".join(map(str, (150, *sizes)))
            fits = {"kind": kind, "dtype": dtype, "n_validation": 50, "optimizer": SGD(0.1, 0.9)}
            few = {"dropout": 0.2, "max_norm": 1.0} if kind != "0.002" else {}
            yield Case(f"{name}, {kind}, {dtype}", shared((150, *sizes), 90, 40, **fits, **few))
        for kind in ("0.1", "0.02"):
            yield Case(f"row blocks by units, {kind}, {dtype}",
                       shared((150, 210), 2900, 1200, kind, dtype, clip_norm=0.2, l2=0.01, l1=0.001))  # fmt: skip
    yield Case("a last batch shorter than a shard", shared((30, 12), 2 * 2100 + 100, 2100, optimizer=Adam()))
    yield Case("a last batch with fewer shards than ranks", shared((30, 12), 2100 + 520, 2100, optimizer=Adam()))
    yield Case("many shards", shared((30, 12), 20_000, 17_000, optimizer=Adam(), n_validation=20_000))
    yield Case("one row", shared((30, 12), 1, n_validation=1))
    yield Case("two rows", shared((30, 250), 2, 1, n_validation=2))
    yield Case("a large network that is measured on", shared((30, 250), 600, n_validation=9000, weighted=True))
    yield Case("seed None", shared((30, 250), 600, 100, seed=None, dropout=0.2), "agree")
    averages = {"sync_every": 3, "n_validation": 700, "dropout": 0.1}
    yield Case("averages of shared rows", shared((30, 12), 2100, 200, **averages), "ranks")
    yield Case("averages of shared sparse rows", shared((900, 12), 500, 40, "0.002", **averages), "ranks")
    for resumed in ("by all", "by one", "by more"):
        fits = {"epochs": (3,), "n_validation": 500, "dropout": 0.1, "optimizer": Adam(), "resumed": resumed}
        yield Case(f"shards, resumed {resumed}", shared((30, 12), 2100, 600, **fits))
        yield Case(f"units, resumed {resumed}", shared((30, 250), 500, 50, **fits))
        fits = {"epochs": (20,), "optimizer": LBFGS(), "resumed": resumed}
        yield Case(f"L-BFGS, resumed {resumed}", shared((30, 12), 2100, **fits))
    yield Case("measured", shared((30, 12), 2100, 900, measures=True))
    yield Case("measured, wide", shared((30, 1000, 1000), 300, 100, measures=True))
    yield Case("a schedule over fits", shared((30, 12), 2100, 600, epochs=(2, 2), optimizer=Adam(Cosine(0.1, 4))))
    plateau = SGD(OnPlateau(0.5, patience=0))
    yield Case("a schedule by the curve", shared((30, 12), 2100, 600, epochs=(4,), n_validation=500, optimizer=plateau))
    stopping = {"epochs": (30,), "n_validation": 500, "optimizer": SGD(3.0)}
    yield Case("early stopping", shared((30, 250), 300, 50, **stopping, callbacks=[EarlyStopping(patience=1)]))
    yield Case("a callback", shared((30, 250), 300, 50, epochs=(9,), callbacks=[Slower()]))
    convolution = [Conv2D(6, 3), MaxPool2D(2), Dense(30, "relu"), Dense(N_CLASSES)]
    for dtype in bits.DTYPES:
        images = {"dtype": dtype, "network": {"input_shape": (9, 8, 2)}, "n_validation": 300, "optimizer": Adam()}
        for kind in ("dense", "uint8"):
            yield Case(f"convolution, {kind}, {dtype}", shared(convolution, 200, 80, kind, **images))
        yield Case(f"convolution, shards, {dtype}", shared(convolution, 1300, 600, "uint8", **images))
        moved = {"augment": [Shift(2), Flip()], "dropout": 0.1}
        yield Case(f"convolution, augment, {dtype}", shared(convolution, 200, 80, "uint8", **images, **moved))
        fits = {"network": {"input_shape": 5}, "n_validation": 300, "optimizer": Adam(), "l2": 0.01}
        yield Case(f"embeddings, {dtype}", shared(TABLE, 2100, 900, "uint8", dtype, **fits))
        norm = {"network": {"batch_norm": True}, "dtype": dtype, "n_validation": 300, "optimizer": Adam()}
        yield Case(f"batch norm, {dtype}", shared((30, 40), 900, 300, **norm))
    yield Case("initial parameters of rank 0", _initial)
    for loss in ("squared", "absolute", "huber", "binary_cross_entropy", "quantile"):
        fits = {"network": {"loss": loss, "quantiles": levels_of(loss, N_CLASSES)}, "n_validation": 700}
        yield Case(f"{loss}, shards", shared((30, 12), 2100, 900, **fits))
        yield Case(f"{loss}, units", shared((30, 250), 130, 60, **fits))


def _initial(comm: Any, n_ranks: int, way: int) -> Outcome:
    rank = 0 if comm is None else comm.rank
    return shared((30, 250), 130, 60, network={"seed": rank}, seed=rank)(comm, n_ranks, way)


def bits_cases(every: int) -> Iterator[Case]:
    """The situations of `bits.py`, which train; only one of so many."""

    def run(situation: bits.Situation) -> Callable[[Any, int, int], Outcome]:
        def run(comm: Any, n_ranks: int, way: int) -> Outcome:
            with Watch(way) as watch:
                found = bits.run(situation, watch.n_threads, tuning.CHUNK_SECONDS, comm)
            return Outcome(found.parameters, found.history + found.predictions, shared=tuple(sorted(watch.shared)))

        return run

    trained = [one for one in bits.situations() if not one.treatment.startswith("gradient")]
    for situation in trained[::every]:
        yield Case(f"bits: {situation.name}", run(situation))


# --- own rows -------------------------------------------------------------------------------------------------------

# Rows of each rank in a batch, and in the last of three.
PORTIONS = ((7, 6), (2, 0), (0, 0), (5, 5), (1, 0), (3, 1), (6, 4), (4, 3))


class Portions:
    """The rows of each rank: so many that its batches and those of one process have the same rows.

    scale : rows of each batch, about, for each row of PORTIONS
    """

    def __init__(self, n_ranks: int, scale: int) -> None:
        counts = [(scale * most, max(0, scale * most - most + last)) for most, last in PORTIONS[:n_ranks]]
        owners = [[k] * count for i in (0, 0, 1) for k, count in enumerate(pair[i] for pair in counts)]
        self.owner = np.array(list(itertools.chain(*owners)))
        self.batch_size = sum(most for most, _ in counts)

    def of(self, rank: int | None) -> Any:
        """The rows of a rank, or of all."""
        return np.arange(len(self.owner)) if rank is None else np.flatnonzero(self.owner == rank)


def own(
    sizes: Sequence[Any],
    scale: int = 1,
    whole: bool = False,
    kinds: Sequence[str] = ("dense",),
    dtype: str = "float64",
    weighted: bool = False,
    sync_every: int | None = None,
    resumed: str = "",
    network: dict[str, Any] | None = None,
    **settings: Any,
) -> Callable[[Any, int, int], Outcome]:
    """Return the run of a case in which each rank has own rows: of these kinds, in turn."""

    def run(comm: Any, n_ranks: int, way: int) -> Outcome:
        net = make_network(sizes, dtype, network)
        portions = Portions(n_ranks, scale)
        rank = None if comm is None else comm.rank
        here, n = portions.of(rank), len(portions.owner)
        rng = np.random.default_rng(4)
        pixels = rng.integers(0, 256, (n, net.sizes[0]), np.uint8)
        pixels[rng.uniform(size=pixels.shape) < 0.4] = 0
        y, weights = targets(n, net.loss), rng.uniform(0, 2, n)
        kind = kinds[(rank or 0) % len(kinds)]
        X = pixels[here] if kind == "uint8" else (pixels[here] / 256).astype(dtype)
        X = scipy.sparse.csr_matrix(X) if kind == "sparse" else X
        X = mapped(X) if kind == "mapped" and len(X) else X
        given: dict[str, Any] = {"sample_weight": weights[here]} if weighted else {}
        measured = here % 3 > 0
        given["validation"] = [part[measured] for part in (X, y[here], weights[here])][: 2 + weighted]
        with Watch(way, pauses=bool(resumed)) as watch:
            options = {"optimizer": SGD(0.1), "shuffle": False, "n_threads": watch.n_threads, "seed": 3}
            options |= {"batch_size": None if whole else portions.batch_size}
            joint = {} if comm is None else {"comm": comm, "rows": "own", "sync_every": sync_every}

            def make(_: Any, **more: Any) -> Trainer:
                return Trainer(make_network(sizes, dtype, network), **options | joint | settings | more)

            def fit(trainer: Trainer, epochs: int, **more: Any) -> Any:
                return trainer.fit(X, y[here], epochs, **given, **more)

            trainer, histories = carry_out(make, fit, (3,) if resumed else (2, 1), comm, resumed)
        return outcome(trainer, histories, watch, keeps=True)

    return run


def own_cases() -> Iterator[Case]:
    """Cases in which each rank has rows of its own."""
    for (name, optimizer), dtype in itertools.product(OPTIMIZERS.items(), bits.DTYPES):
        fits = {"dtype": dtype, "optimizer": optimizer}
        yield Case(f"own, {name}, {dtype}", own((12, 8), weighted=True, **fits), "rounding", 30)
        yield Case(f"own, {name}, sparse, {dtype}", own((12, 8), kinds=["sparse"], **fits), "rounding", 30)
        yield Case(f"own shards, {name}, {dtype}", own((12, 8), 100, l2=0.01, **fits), "rounding", 30)
    for dtype in bits.DTYPES:
        fits = {"dtype": dtype}
        yield Case(f"own, all, {dtype}", own((12, 8), whole=True, **fits), "rounding")
        yield Case(f"own, all, softmax, {dtype}", own((12,), 100, whole=True, **fits), "rounding")
        lbfgs = {"whole": True, "optimizer": LBFGS(), "l2": 0.01}
        yield Case(f"own, L-BFGS, {dtype}", own((12, 8), **lbfgs, **fits), "rounding", 100)
        yield Case(f"own, L-BFGS, weights, {dtype}", own((12, 8), 100, weighted=True, **lbfgs, **fits), "rounding", 100)
        for kinds in (["uint8"], ["dense", "sparse"], ["sparse", "dense"]):
            yield Case(f"own, {' and '.join(kinds)}, {dtype}", own((12, 8), kinds=kinds, **fits), "rounding")
        yield Case(f"own, clipped, {dtype}", own((12, 8), clip_norm=0.05, max_norm=0.5, **fits), "rounding")
        yield Case(f"own, l1, {dtype}", own((12, 8), l1=0.01, l2=0.01, label_smoothing=0.1, **fits), "rounding")
        yield Case(f"own, wide, {dtype}", own((12, 220), **fits), "rounding")
        yield Case(f"own, deep, {dtype}", own((12, 30, 70, 9), 50, **fits), "rounding")
        for loss in ("squared", "absolute", "huber", "binary_cross_entropy", "quantile"):
            network = {"loss": loss, "quantiles": levels_of(loss, N_CLASSES)}
            yield Case(f"own, {loss}, {dtype}", own((12, 8), network=network, **fits), "rounding")
        layers = [Conv2D(3, 3), MaxPool2D(2), Dense(N_CLASSES)]
        images = {"network": {"input_shape": (6, 6, 1)}, **fits}
        yield Case(f"own, convolution, {dtype}", own(layers, **images), "rounding")
        moved = {"augment": Shift(1), "dropout": 0.1, "shuffle": True}
        images = {"network": {"input_shape": (6, 6, 1)}, **fits}
        yield Case(f"own, convolution, augment, {dtype}",
                   own([*layers[:-1], Dense(5), layers[-1]], **images, **moved), "ranks")  # fmt: skip
        table = {"network": {"input_shape": 5}, "kinds": ["uint8"], "l2": 0.01}
        yield Case(f"own, embeddings, {dtype}", own(TABLE, 100, **table, **fits), "rounding")
        layers = [Columns([Number(0.5, 2, (0, 0.5, 1)), Category(1)] * 6), Dense(8), Dense(N_CLASSES)]
        yield Case(f"own, table, {dtype}", own(layers, network={"input_shape": 12}, **fits), "rounding")
        yield Case(f"own, shuffled, {dtype}", own((12, 8), shuffle=True, dropout=0.2, **fits), "ranks")
        for name, optimizer in list(OPTIMIZERS.items())[:3]:  # an average of linear steps is a step by the average
            averages = {"optimizer": optimizer, "l2": 0.01, "sync_every": 1, **fits}
            yield Case(f"averages, {name}, {dtype}", own((12, 8), whole=True, **averages), "rounding")
        averages = {"optimizer": Adam(), "dropout": 0.1, "shuffle": True, "sync_every": 2, **fits}
        yield Case(f"averages, batches, {dtype}", own((12, 8), 3, **averages), "ranks")
        for kinds in (["mapped"], ["dense", "mapped"]):
            name = " and ".join(kinds)
            yield Case(f"own, {name}, {dtype}", own((12, 8), 100, kinds=kinds, **fits), "rounding")
            yield Case(f"own, {name}, shuffled, {dtype}", own((12, 8), 100, kinds=kinds, shuffle=True, **fits), "ranks")
        yield Case(f"own, resumed, {dtype}", own((12, 8), 100, optimizer=Adam(), resumed="by all", **fits), "rounding")
    yield Case("own, three kinds", own((12, 8), kinds=["uint8", "dense", "sparse"]), "ranks")
    yield Case("own, large parameters", own((12, 8), optimizer=SGD(1e6)), "ranks")
    yield Case("planned", _planned, "ranks")
    yield Case("refused", _refused, "ranks")
    yield Case("own, seed None", own((12, 8), shuffle=True, seed=None), "agree")


def _refused(comm: Any, n_ranks: int, way: int) -> Outcome:
    # Errors that are the same on all ranks, though some have their cause on one.
    X, y, last = rows(20, 6, "dense", "float64"), targets(20, "cross_entropy"), comm.rank == comm.size - 1
    broken = X.copy()
    broken[3, 4] = np.nan
    norm, plain = ({"batch_norm": batch_norm} for batch_norm in (True, False))
    attempts: list[tuple[dict[str, Any], dict[str, Any], Any, Any]] = [
        (norm, {"rows": "own"}, X, y),
        (plain, {"rows": "own"}, [(X, y)], None),
        (plain, {"rows": "own"}, X[:0], y[:0]),
        (plain, {"rows": "own"}, broken if last else X, y),
        (plain, {"rows": "own", "optimizer": LBFGS(), "batch_size": 5}, X, y),
        (plain, {}, X + last, y),
        (plain, {}, X, y[::-1] if last else y),
        (plain, {}, broken if last else X, y),
        (plain, {"batch_size": 5 + last}, X, y),
        (plain, {"optimizer": Adam() if last else SGD(0.1)}, X, y),
    ]
    messages = []
    for options, settings, given, wanted in attempts:
        net = Network([6, 5, N_CLASSES], seed=0, **options)
        before = net.parameters.copy()
        try:
            Trainer(net, comm=comm, **settings).fit(given, wanted, 1)
            messages.append("trained")
        except (TypeError, ValueError) as error:
            changed = "" if np.array_equal(net.parameters, before) else ", but trained"
            messages.append(f"{type(error).__name__}: {error}{changed}")
    return Outcome("", "", (), tuple(messages))


def _planned(comm: Any, n_ranks: int, way: int) -> Outcome:
    # Plans, after which the networks are as before.
    sharing, digests = [], []
    for sizes, batch_size, own_rows in (((30, 12), 900, False), ((30, 250), 60, False), ((30, 12), 900, True)):
        net = make_network(sizes, "float32", None)
        options = {"rows": "own" if own_rows else "shared", "n_threads": 1, "batch_size": batch_size}
        n = 0 if own_rows and comm.rank == 0 else 2000
        with Watch():
            trainer = Trainer(net, comm=comm, **options)
            sharing.append(trainer.plan(rows(n, 30, "dense", "float32"), targets(n, net.loss)).sharing)
        digests.append(digest(net.parameters, trainer._state.optimizer))
        if digests[-1] != digest(make_network(sizes, "float32", None).parameters, trainer._state.optimizer):
            sharing[-1] += ", but trained"
    return Outcome("".join(digests), "", (), tuple(sharing))


# --- running --------------------------------------------------------------------------------------------------------


def cases(patterns: Iterable[str] = (), every: int = 1, part: str = "0/1") -> list[Case]:
    """The cases whose names match one of the patterns, if there are any; and of these the k-th of n parts, "k/n"."""
    found = [*shared_cases(), *own_cases(), *bits_cases(every)]
    wanted = [re.compile(pattern) for pattern in patterns]
    found = [case for case in found if not wanted or any(pattern.search(case.name) for pattern in wanted)]
    k, n = map(int, part.split("/"))
    return found[k::n]


def run(chosen: Sequence[Case]) -> None:
    """Train cases with the other ranks, and print a line for each on rank 0."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    for i, case in enumerate(chosen):
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = case.run(comm, comm.size, i % 4)
                again = found if case.alike in ("bits", "agree") else case.run(comm, comm.size, (i + 1) % 4)
        except BaseException:
            print(f"rank {comm.rank}, {case.name}:", file=sys.stderr)
            traceback.print_exc()
            sys.stderr.flush()
            time.sleep(0.2)  # what was printed just before may be lost otherwise
            comm.Abort(1)
            raise
        all_found = comm.allgather((found, again))
        agree = len({one[:4] for pair in all_found for one in pair}) == 1
        if comm.rank == 0:
            told = sorted({str(warning.message) for warning in caught})
            print(json.dumps({"name": case.name, "agree": agree, "warnings": told, **found._asdict()}), flush=True)


# Open MPI starts as many ranks as there are processors, and none for root, unless it is told otherwise.
ENVIRONMENT = {
    "FASTNN_RANK_TIMEOUT": "60",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def launch(n_ranks: int, arguments: Sequence[str], launcher: Sequence[str] = ("mpiexec",)) -> dict[str, Any]:
    """Return what n ranks print when they are run with these arguments, by case."""
    command = [*launcher, "-n", str(n_ranks), sys.executable, __file__, "run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRONMENT)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: status {done.returncode}\n{done.stderr[-4000:]}")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {one["name"]: one for one in found}


def differences(case: Case, n_ranks: int, told: dict[str, Any], alone: Outcome | None = None) -> list[str]:
    """Say what ranks have otherwise than each other, or than one process; alone: what that has, if it is known."""
    found = [] if told["agree"] else ["the ranks differ, or a second time does"]
    if case.alike not in ("bits", "rounding"):
        return found
    alone = alone or case.run(None, n_ranks, 0)
    if case.alike == "bits":
        return found + [f"other {name}" for name in ("parameters", "history") if told[name] != getattr(alone, name)]
    tolerance = {"float32": 3e-6, "float64": 1e-14}[re.findall(r"float\d\d", case.name)[0]]
    a, b = np.array(told["values"]), np.array(alone.values)
    error = np.abs(a - b).max() / max(1.0, np.abs(b).max())
    return found + ([] if error <= case.factor * tolerance else [f"an error of {error:.1e}"])


def compare(options: argparse.Namespace) -> int:
    """Compare ranks with this process; return 1 where something differs."""
    chosen = cases(options.patterns, options.every, options.part)
    arguments = ["--every", str(options.every), "--part", options.part, *options.patterns]
    warnings.simplefilter("ignore")
    alone = {case.name: case.run(None, 1, 0) for case in chosen if case.alike == "bits"}
    n_different = 0
    for n_ranks in options.ranks:
        told = launch(n_ranks, arguments, shlex.split(options.launcher))
        lines = [
            f"{n_ranks} ranks: {case.name}: {difference}"
            for case in chosen
            for difference in differences(case, n_ranks, told[case.name], alone.get(case.name))
        ]
        n_different += len(lines)
        shared = sorted({what for one in told.values() for what in one["shared"]})
        print(*lines, f"{n_ranks} ranks: {len(chosen)} cases, which share {shared}; {len(lines)} differences", sep="\n")
    return int(n_different > 0)


def main() -> int:
    """Run, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "compare"):
        command = commands.add_parser(name)
        command.add_argument("patterns", nargs="*", metavar="PATTERN")
        command.add_argument("--every", type=int, default=1, help="one of so many situations of bits.py")
        command.add_argument("--part", default="0/1", metavar="K/N", help="the K-th of N parts of the cases")
    command.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 4, 8])
    command.add_argument("--launcher", default="mpiexec")
    options = parser.parse_args()
    if options.command == "compare":
        return compare(options)
    run(cases(options.patterns, options.every, options.part))
    return 0


if __name__ == "__main__":
    sys.exit(main())
