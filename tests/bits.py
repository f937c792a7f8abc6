"""Bits: every way through the engine is trained for a few steps, and what it gives is hashed.

    python tests/bits.py write before.json
    python tests/bits.py compare before.json [after.json]

The first writes a hash of the parameters, of the history and of predictions for each situation, dtype and instruction
set that the machine has; the second says what is different now, or in another file.  Both files must be of one machine:
BLAS and the compiler round in their own ways.  Which way a situation goes is read from what the engine hands to the
kernels, so that `test_bits.py` can tell that none is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import mmap
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before OpenMP is loaded

import numpy as np
import scipy.sparse
from levels import levels_of, one_each

import fastnn
from fastnn import SGD, Adagrad, Adam, AdamW, Network, RMSprop, Trainer, _mapped, kernels, tuning
from fastnn.engine.threads import blas_libraries
from fastnn.kernels import epoch
from fastnn.kernels.losses import LOSSES
from fastnn.kernels.rows import CSRRows
from fastnn.kernels.updates import UPDATES
from fastnn.layers import (
    AveragePool2D,
    Category,
    Columns,
    Conv2D,
    Dense,
    GlobalAveragePool2D,
    Layer,
    MaxPool2D,
    Number,
)
from fastnn.layout import n_slices_of
from fastnn.optimizers import LBFGS
from fastnn.plan import Plan
from fastnn.schedules import Exponential

DTYPES = ("float32", "float64")
N_CLASSES = 4

# What is trained beside the shape of the network: options of the network, and of the trainer.
TREATMENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"activation": "tanh"}, {"optimizer": SGD(0.1)}),
    "l2": ({"activation": "sigmoid", "loss": "absolute"}, {"optimizer": SGD(0.1), "l2": 0.01}),
    "max-norm": ({"activation": "elu", "loss": "squared"}, {"optimizer": SGD(Exponential(0.1, 0.9)), "max_norm": 0.5}),
    "dropout": ({"activation": "relu", "loss": "huber"}, {"optimizer": SGD(0.1), "dropout": 0.3}),
    "slopes": ({"activation": "gelu", "loss": "binary_cross_entropy"}, {"optimizer": SGD(0.1), "l2": 0.01}),
    "silu": ({"activation": "silu"}, {"optimizer": SGD(0.1), "label_smoothing": 0.1, "weighted": True}),
    "softplus": ({"activation": "softplus"}, {"optimizer": SGD(0.1)}),
    "identity": ({"activation": "identity", "loss": "quantile"}, {"optimizer": SGD(0.1)}),
    "leaky": ({"activation": "leaky_relu"}, {"optimizer": SGD(0.1), "dropout": 0.2, "weighted": True}),
    "momentum": ({"activation": "tanh"}, {"optimizer": SGD(0.1, 0.9)}),
    "momentum, clip": ({"activation": "gelu"}, {"optimizer": SGD(0.1, 0.9), "clip_norm": 0.05, "l2": 0.01}),
    "nesterov, weights": ({"activation": "leaky_relu"}, {"optimizer": SGD(0.1, 0.9, True), "weighted": True}),
    "momentum, dropout": ({"activation": "relu"}, {"optimizer": SGD(0.1, 0.9), "dropout": 0.3}),
    "rmsprop, l1": ({"activation": "elu", "loss": "huber"}, {"optimizer": RMSprop(), "l1": 0.001}),
    "adagrad, max-norm": ({"activation": "silu", "loss": "squared"}, {"optimizer": Adagrad(), "max_norm": 0.5}),
    "adam, dropout, clip": (
        {"activation": "relu", "loss": "binary_cross_entropy"},
        {"optimizer": Adam(0.01), "dropout": 0.3, "clip_norm": 0.05, "max_norm": 0.5},
    ),
    "adamw, smoothing": ({"activation": "sigmoid"}, {"optimizer": AdamW(0.01), "label_smoothing": 0.1}),
    "adam, absolute": ({"activation": "softplus", "loss": "absolute"}, {"optimizer": Adam(0.01)}),
    "sgd, clip, l1": ({"activation": "identity"}, {"optimizer": SGD(0.1), "clip_norm": 0.05, "l1": 0.001}),
    "lbfgs": ({"activation": "tanh"}, {"optimizer": LBFGS(), "l2": 0.01, "weighted": True}),
    "lbfgs, slopes": ({"activation": "gelu", "loss": "squared"}, {"optimizer": LBFGS()}),
    "gradient": ({"activation": "tanh"}, {}),
    "gradient, slopes": ({"activation": "silu", "loss": "binary_cross_entropy"}, {"weighted": True}),
}
GRADIENTS = [name for name in TREATMENTS if name.startswith(("lbfgs", "gradient"))]
FOLDED = ["plain", "l2", "max-norm", "dropout", "slopes", "silu", "softplus", "identity", "leaky"]
STEPPED = [name for name in TREATMENTS if name not in [*GRADIENTS, *FOLDED]]

# Sizes without the output, and the rows of a batch: 30 inputs stay as stored, 70 are transposed below 64 units.
DENSE = {
    (30,): (40, 600),
    (70,): (40, 600),
    (30, 12): (40, 300, 600),
    (70, 12): (40, 300, 600),
    (70, 12, 64): (40, 600),
    (70, 72): (30, 60, 600),
    (70, 72, 12): (30, 60, 600),
    (30, 40): (220,),
    (30, 40, 24): (150,),
    (30, 12, 40): (40, 300, 600),
    (70, 24): (180,),
    (70, 40): (101, 2100),
    (70, 40, 72): (60,),
    (70, 210): (12, 24),
    (70, 210, 24): (24,),
    (30, 210, 12, 24): (50,),
    (30, 12, 12, 12): (40, 600),
}
SPARSE = {
    (60,): (40, 600),
    (60, 12): (40, 600, 2100),
    (60, 12, 64): (40, 600),
    (40, 140): (24, 40, 500, 600),
    (40, 140, 12): (24, 40, 600),
    (60, 40): (120, 300),
    (60, 40, 24): (120,),
    (60, 40, 72): (120,),
    (60, 210): (30, 520),
    (60, 210, 24, 24): (30, 520),
    (200, 210): (520,),
    (200, 210, 24): (520,),
    (600, 12): (20,),
    (600, 12, 12): (20,),
    (600, 30): (9,),
}
# Layers on images of 9 x 8 pixels and two channels, and the widths of the hidden layers after them: many features for
# the output layer, few, or a layer in panels.
IMAGE = (9, 8, 2)
TRUNKS: dict[str, list[Layer]] = {
    "convolution": [Conv2D(5, 3, stride=(1, 2), padding="same")],
    "pooled": [Conv2D(6, (3, 2)), MaxPool2D(2), Conv2D(3, 2)],
    "means": [AveragePool2D((2, 1)), Conv2D(30, 3), MaxPool2D(2, 1), GlobalAveragePool2D()],
}
IMAGES = {
    ("convolution",): (20, 600),
    ("pooled",): (33, 600),
    ("means", 24): (40,),
    ("means", 210): (40,),
}
# Features of the columns of a table, and the widths of the hidden layers.
TABLES = {(60,): (40,), (60, 12): (40, 600), (40, 140, 12): (24,), (600, 12): (20,)}
# The network's dtype, or another; CSR with 1, 3 or 16 non-zeros a row, or more in the first quarter of rows.
DENSE_ROWS = ("own", "uint8", "float", "mapped", "chunks")
SPARSE_ROWS = ("1", "3", "16", "uneven", "chunks")
TABLE_ROWS = ("table", "embedded table")


@dataclass(frozen=True)
class Situation:
    """A network, its data, and how it is trained.

    rows : one of DENSE_ROWS, SPARSE_ROWS or TABLE_ROWS
    trunk : name of the layers on images, which come first; "": there are none
    """

    sizes: tuple[int, ...]
    batch_size: int
    is_sparse: bool
    rows: str
    shuffle: bool
    batch_norm: bool
    treatment: str
    dtype: str
    trunk: str = ""

    @property
    def name(self) -> str:
        """Its name in the files."""
        words = [
            "-".join([*[self.trunk] * bool(self.trunk), *map(str, self.sizes)]),
            f"batches of {self.batch_size}",
            "sparse" if self.is_sparse else "dense",
        ]
        words += [self.rows, "shuffled" if self.shuffle else "in order", *["normalised"] * self.batch_norm]
        return ", ".join([*words, self.treatment, self.dtype])


def situations() -> Iterator[Situation]:
    """All that are trained: each shape of network with each way to store rows, and the treatments in turn."""
    turns = [itertools.cycle(names) for names in (FOLDED, STEPPED, GRADIENTS)]
    networks = [("", sizes, False, DENSE_ROWS, batches) for sizes, batches in DENSE.items()]
    networks += [("", sizes, True, SPARSE_ROWS, batches) for sizes, batches in SPARSE.items()]
    networks += [(trunk, (math.prod(IMAGE), *sizes), False, DENSE_ROWS, batches)
                 for (trunk, *sizes), batches in IMAGES.items()]  # fmt: skip
    networks += [("", sizes, True, (rows,), batches) for rows in TABLE_ROWS for sizes, batches in TABLES.items()]
    for (trunk, sizes, is_sparse, all_rows, sizes_of_batches), batch_norm in itertools.product(networks, (False, True)):
        if batch_norm and len(sizes) == 1 and not trunk:
            continue
        for batch_size, rows, shuffle in itertools.product(sizes_of_batches, all_rows, (False, True)):
            # Steps of touched rows are possible with only half of the treatments.
            all_of_them = sizes[0] == 600 and rows == "1"
            for treatment in [*FOLDED, *STEPPED] if all_of_them else [next(turn) for turn in turns]:
                if treatment in GRADIENTS and (shuffle or rows == "chunks"):
                    continue
                if treatment.startswith("lbfgs") and batch_norm:
                    continue
                for dtype in DTYPES:
                    yield Situation((*sizes, N_CLASSES), batch_size, is_sparse, rows, shuffle, batch_norm, treatment,
                                    dtype, trunk)  # fmt: skip


@cache
def data(n: int, n_in: int, is_sparse: bool, rows: str, dtype: str) -> Any:
    """Rows (n, n_in), the same each time."""
    rng = np.random.default_rng(n + n_in)
    if rows in TABLE_ROWS:
        X = rng.standard_normal((n, 3))
        X[:, 1:] = rng.integers(-1, (9, n_in - 13), (n, 2))
        return np.where(rng.random(X.shape) < 0.1, np.nan, X)
    if is_sparse:
        X = np.zeros((n, n_in))
        for i in range(n):
            uneven = 17 if 4 * i < n else int(i % 8 == 0)
            columns = rng.choice(n_in, {"1": 1, "3": 3, "16": 16, "uneven": uneven, "chunks": 14}[rows], False)
            X[i, columns] = rng.standard_normal(len(columns))
        return scipy.sparse.csr_matrix(X.astype(dtype))
    if rows == "uint8":
        return rng.integers(0, 256, (n, n_in), np.uint8)
    X = rng.standard_normal((n, n_in)).astype(dtype)
    if rows == "float":
        return X.astype(next(other for other in DTYPES if other != dtype))
    if rows == "mapped":
        with tempfile.TemporaryFile() as file:
            X.tofile(file)
            return np.memmap(file, X.dtype, "c", shape=X.shape)
    return X


def columns_of(n_features: int, rows: str) -> Columns:
    """Return what becomes of the three columns of a table."""
    number, n = Number(0.5, 2.0, (-1.0, 0.0, 1.5), missing=True), n_features - 14
    if rows == "table":
        return Columns([number, Category(8, missing=True), Category(n)])
    return Columns([number, Category(8, missing=True, width=3), Category(n, width=6)])


class Way(NamedTuple):
    """What the plan has the kernels do with batches of the usual size."""

    driver: str
    rows: str
    order: str
    form: str
    steps: str
    output: str


def way_of(plan: Plan, X: Any, order: Any, steps: Any, dtype: Any) -> Way:
    """Name the way that `kernels.epoch.train` takes with these arguments."""
    form = {"sparse": "stored", "sparse slices": "slices"}.get(plan.layers[0].form, plan.layers[0].form)
    folds = plan.batch_size <= plan.fold_rows
    if plan.touches:
        driver = "touched"
    elif plan.trunk is not None:
        whole = "images, normalised" if plan.normalises else "images"
        driver = whole if plan.n_shards == 1 else "images in shards"
    elif plan.normalises:
        driver = "normalised"
    elif plan.driver == "units":
        driver = "units" if plan.batch_size == plan.block_rows else "units by blocks"
    else:
        driver = "one block" if folds else "one shard" if plan.n_shards == 1 else "shards"
    if isinstance(X, CSRRows):
        rows = {"once": "sorted once", "each batch": "sorted each time", "none": "unsorted"}[plan.sorting]
    elif X.dtype != dtype:
        rows = "converted"
    else:
        rows = "in place" if order is None or form == "transposed" else "gathered"
    kind = "gradient" if steps.update == UPDATES["none"] else "folded" if folds else "stepped"
    output = "transposed" if len(plan.layers) > 1 and plan.layers[-1].form == "transposed" else "stored"
    return Way(driver, rows, "in order" if order is None else "in another", form, kind, output)


def features_of(targets: Any, plan: Plan, steps: Any, n_threads: int) -> set[str]:
    """What else the kernels are asked for."""
    table = np.asarray(steps.table)
    names = {code: name for name, code in UPDATES.items()}, {code: name for name, code in LOSSES.items()}
    hidden = [layer.facts for layer in plan.layers[:-1]]
    most = max([1, *(n_slices_of(shape.n_out) for shape in hidden if shape.maps is None)])
    found = {names[0][steps.update], names[1][targets.loss], *(shape.activation for shape in hidden)}
    found |= {f"{len(hidden)} hidden layers", f"{most} slices", f"{min(n_threads, 2)} threads"}
    given = {
        "clip_norm": steps.clip_norm,
        "max_norm": steps.max_norm,
        "l2": table[:, 0].any(),
        "l1": table[:, 1].any(),
        "decay": table[:, 2].any(),
        "dropout": any(shape.dropout for shape in hidden),
        "weights": targets.weights is not None,
        "smoothing": targets.smoothing,
    }
    return found | {name for name, value in given.items() if value}


def is_mapped(X: Any) -> bool:
    """Whether rows stay on the disk."""
    while isinstance(X, np.ndarray):
        X = X.base
    return isinstance(X, mmap.mmap)


class Result(NamedTuple):
    """Hashes of the parameters with the optimizer's state, of the history, and of predictions; and the ways there."""

    parameters: str
    history: str
    predictions: str
    ways: frozenset[Way]
    features: frozenset[str]


def digest(*arrays: Any) -> str:
    """Hash of numbers, to the bit."""
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()[:16]


def run(situation: Situation, n_threads: int = 1, seconds: float = tuning.CHUNK_SECONDS, comm: Any = None) -> Result:
    """Train for two epochs, and hash what comes of it; seconds is how long the kernels run at a time."""
    ways: set[Way] = set()
    features: set[str] = set()
    train = epoch.train

    def watch(batches: Any, compiled: Any, steps: Any, space: Any, *rest: Any) -> None:
        plan, (work, _, threads, exchanges) = compiled.source, rest
        ways.add(way_of(plan, batches.X, batches.order, steps, work.dtype))
        features.update(features_of(batches.targets, plan, steps, threads))
        features.update(["memory-mapped"] * is_mapped(batches.X))
        features.add(f"sharing {plan.sharing if exchanges is not None and exchanges.shares else 'nothing'}")
        train(batches, compiled, steps, space, *rest)

    with (
        mock.patch.object(epoch, "train", watch),
        mock.patch.object(tuning, "SMALL_RUN", 0),  # or one thread does it
        mock.patch.multiple(tuning, SHARD_IMAGES=300, IMAGE_SHARD_PRODUCT=0, IMAGE_SHARD_PRODUCTS=0, IMAGE_ROWS=256),
        mock.patch.object(tuning, "CHUNK_SECONDS", seconds),
        mock.patch.object(_mapped, "PIECE_BYTES", 1 << 10),
        mock.patch.object(_mapped, "WINDOW_BYTES", 1 << 12),
    ):
        parameters, history, predictions = _train(situation, n_threads, comm)
    return Result(parameters, history, predictions, frozenset(ways), frozenset(features))


def _train(situation: Situation, n_threads: int, comm: Any) -> tuple[str, str, str]:
    options, settings = (dict(part) for part in TREATMENTS[situation.treatment])
    sizes, batch_size, dtype = situation.sizes, situation.batch_size, situation.dtype
    whole = situation.treatment in GRADIENTS
    # Two batches and a short one; the first quarter of uneven rows makes a batch.
    n = batch_size if whole else 4 * batch_size if situation.rows == "uneven" else 2 * batch_size + batch_size // 3 + 1
    X = data(n, sizes[0], situation.is_sparse, situation.rows, dtype)
    rng = np.random.default_rng(1)
    y: Any = rng.integers(0, N_CLASSES, n)
    loss = options.get("loss", "cross_entropy")
    if loss != "cross_entropy":
        y = one_each(loss, rng.uniform(0, 1, (n, N_CLASSES)))
    options["quantiles"] = levels_of(loss, N_CLASSES)
    weights = rng.uniform(0.5, 1.5, n) if settings.pop("weighted", False) else None
    layers: Any = sizes
    if situation.trunk:
        layers = [*TRUNKS[situation.trunk], *map(Dense, sizes[1:])]
        options["input_shape"] = IMAGE
    elif situation.rows in TABLE_ROWS:
        layers = [columns_of(sizes[0], situation.rows), *map(Dense, sizes[1:])]
        options["input_shape"] = X.shape[1]
    if len(sizes) == 2 and not situation.trunk:
        settings.pop("dropout", None)
    network = Network(layers, **options, dtype=dtype, batch_norm=situation.batch_norm, seed=2)
    if not settings and situation.treatment.startswith("gradient"):
        with mock.patch.object(fastnn.network, "available_threads", return_value=n_threads):
            parts = network.gradient(X, y, weights)
        return digest(*itertools.chain(*parts)), "", ""
    trainer = Trainer(
        network,
        batch_size=None if whole else batch_size,
        shuffle=situation.shuffle,
        n_threads=n_threads,
        sparse=situation.is_sparse,
        seed=3,
        comm=comm,
        **settings,
    )
    if situation.rows == "chunks":
        cut = n // 2 + batch_size // 2
        parts = [(X[:cut], y[:cut]), (X[cut:], y[cut:])]
        if weights is not None:
            parts = [(*parts[0], weights[:cut]), (*parts[1], weights[cut:])]
        history = trainer.fit(parts, epochs=2)
    else:
        history = trainer.fit(X, y, epochs=2, sample_weight=weights)
    outputs = digest(network.predict_proba(X, n_threads) if network.classifies else network.predict(X, n_threads))
    return (
        digest(network.parameters, trainer._state.optimizer),
        digest(history.log_likelihood, history.objective),
        outputs,
    )


def hashes() -> dict[str, Any]:
    """Hashes and ways of all situations, by the instruction set of this process.

    Each is trained on one thread, and half of them again on three, which must give the same.
    """
    found: dict[str, Any] = {}
    for i, situation in enumerate(situations()):
        result = run(situation)
        if i // len(DTYPES) % 2 and run(situation, n_threads=3)[:3] != result[:3]:
            sys.exit(f"{kernels.INSTRUCTION_SET}: {situation.name}: other bits on three threads")
        found[situation.name] = [*result[:3], sorted(", ".join(way) for way in result.ways)]
    return found


def machine() -> dict[str, Any]:
    """What the bits depend on beside fastnn itself."""
    blas = [
        {name: library[name] for name in ("internal_api", "version", "architecture") if name in library}
        for library in blas_libraries()
    ]
    return {"processor": platform.processor() or platform.machine(), "BLAS": blas, "NumPy": np.__version__}


def record() -> dict[str, Any]:
    """Hashes of all instruction sets that this machine has, found side by side."""
    processes = {}
    for name in kernels.AVAILABLE:
        environment = os.environ | {kernels.VARIABLE: name}
        command = [sys.executable, __file__, "hashes"]
        processes[name] = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    outputs = {name: process.communicate()[0] for name, process in processes.items()}
    if any(process.returncode for process in processes.values()):
        sys.exit("not written")
    return {"machine": machine(), "hashes": {name: json.loads(output) for name, output in outputs.items()}}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Say what is different between two records, a line for each way and instruction set."""
    lines = []
    if before["machine"] != after["machine"]:
        lines.append(f"the machines differ: {before['machine']} and {after['machine']}")
    for name in sorted({*before["hashes"], *after["hashes"]}):
        if name not in before["hashes"] or name not in after["hashes"]:
            lines.append(f"{name}: in one of the files only")
            continue
        olds, news = before["hashes"][name], after["hashes"][name]
        lines += [f"{name}: in one of the files only: {situation}" for situation in sorted({*olds} ^ {*news})]
        changed: dict[tuple[str, str], list[str]] = {}
        for situation in sorted({*olds} & {*news}):
            old, new = olds[situation], news[situation]
            parts = [part for part, a, b in zip(Result._fields[:3], old, new, strict=False) if a != b]
            if old[3] != new[3]:
                parts.append(f"the way, now {' and '.join(new[3])}")
            if parts:
                changed.setdefault((" and ".join(old[3]), ", ".join(parts)), []).append(situation)
        for (way, parts), where in sorted(changed.items()):
            lines.append(f"{name}: {way}: {parts} in {len(where)} situations, as in: {where[0]}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Write, or compare; return 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write").add_argument("file", type=Path)
    compare = commands.add_parser("compare")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path, nargs="?", help="default: what is found now")
    commands.add_parser("hashes", help="of the instruction set of this process, to the standard output")
    options = parser.parse_args(arguments)
    if options.command == "hashes":
        json.dump(hashes(), sys.stdout)
        return 0
    if options.command == "write":
        found = record()
        options.file.write_text(json.dumps(found, indent=0))
        counts = ", ".join(f"{name} {len(part)}" for name, part in found["hashes"].items())
        print(f"{options.file}: {counts} situations")
        return 0
    before = json.loads(options.before.read_text())
    lines = differences(before, json.loads(options.after.read_text()) if options.after else record())
    print("\n".join(lines) or "the same bits everywhere")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
