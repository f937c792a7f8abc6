"""The commands for tables: ``fastnn train table.csv --target price``, ``predict`` and ``evaluate``."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.compose import make_column_transformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fastnn._commands import INTERRUPTED, free_name, percent, plural, save_somewhere
from fastnn._validation import check_integer, check_number, check_writable
from fastnn.storage import write_atomically
from fastnn.tabular.estimators import LOSSES, TabularClassifier, TabularRegressor, load, split
from fastnn.tabular.frames import Cells, Numbers, read_frame
from fastnn.tabular.readers import plain_number
from fastnn.tabular.recognition import TOLD
from fastnn.tabular.sources import NUMPY, Source, names_of, read_source, select, take
from fastnn.tabular.table import Table
from fastnn.tabular.targets import TASKS, Targets, learn_targets, objects_of, read_classes, read_numbers

TEST_SHARE = 0.2

# Classes, at most, of which a confusion matrix is printed.
MOST_SHOWN = 20

Model = TabularClassifier | TabularRegressor


def told_kind(text: str) -> tuple[str, str]:
    """Return the name and the kind of a column, of NAME=KIND."""
    name, mark, kind = text.rpartition("=")
    if not mark or kind not in TOLD:
        raise argparse.ArgumentTypeError(f"must be NAME=KIND, with a kind of {', '.join(TOLD)}, not {text!r}")
    return name, kind


def add_train_options(argument: Callable[..., Any]) -> None:
    """Add the options of ``train`` on a table."""
    argument("table", ".csv, maybe .gz; .parquet, with pyarrow; .npz with X and y", metavar="TABLE")
    argument("--target", "the column to predict (default: y of an .npz)", metavar="COLUMN")
    argument(
        "--task",
        "what to predict (default: classification of text, truths and few different whole numbers, else regression)",
        choices=TASKS,
    )
    argument(
        "--column",
        f"what a column is, where it is known better: {', '.join(TOLD)}; may be repeated",
        type=told_kind,
        action="append",
        metavar="NAME=KIND",
    )
    argument(
        "--test-share", "share of the rows that are kept out to score the model", TEST_SHARE, type=float, metavar="S"
    )
    argument("--seed", "of the rows that are kept out, initial weights and shuffling", 0, type=int, metavar="N")
    argument("--threads", "number of threads (default: all processors)", dest="n_threads", type=int, metavar="N")
    argument("--save", "where to save the model (default: named like the table, or a new name)", metavar="FILE")
    argument(
        "--checkpoint",
        "update FILE.0 and the like while training; after a stop or a kill, the same command continues from them",
        metavar="FILE",
    )
    argument("--explain", "print what the columns are and how it would train; train nothing", action="store_true")
    for flag, text, options in PARAMETERS:
        argument(flag, text, **options)


# Options that are parameters of the estimators; those that are not given are chosen by the data.
PARAMETERS: list[tuple[str, str, dict[str, Any]]] = [
    ("--members", "networks that predict together", {"dest": "n_members", "type": int, "metavar": "N"}),
    (
        "--hidden",
        "units of each hidden layer",
        {"dest": "hidden_layer_sizes", "type": int, "nargs": "*", "metavar": "UNITS"},
    ),
    ("--epochs", "times through the data, at most", {"dest": "max_epochs", "type": int, "metavar": "N"}),
    ("--learning-rate", "length of a step, at first", {"type": float, "metavar": "RATE"}),
    ("--batch-size", "rows a step", {"type": int, "metavar": "N"}),
    ("--dropout", "share of the hidden units left out", {"type": float, "metavar": "SHARE"}),
    ("--weight-decay", "how fast weights shrink", {"type": float, "metavar": "RATE"}),
    ("--label-smoothing", "share of the true class given to all", {"type": float, "metavar": "SHARE"}),
    ("--loss", "of regression (default: squared_error)", {"choices": list(LOSSES)}),
    (
        "--quantiles",
        "learn these quantiles instead of the mean, such as 0.05 0.5 0.95",
        {"type": float, "nargs": "+", "metavar": "LEVEL"},
    ),
    (
        "--validation-share",
        "share of the rows to train on that say when to stop",
        {"dest": "validation_fraction", "type": float, "metavar": "SHARE"},
    ),
    (
        "--refit",
        "train again on all rows but those of the test, when it is known for how long",
        {"action": argparse.BooleanOptionalAction},
    ),
    (
        "--calibrate",
        "make probabilities right on the rows that say when to stop",
        {"action": "store_const", "const": True},
    ),
    (
        "--balance",
        "give classes the same weight, however many rows they have",
        {"dest": "class_weight", "action": "store_const", "const": "balanced"},
    ),
]


def cells_of(source: Source, name: str, file: str, option: str = "--target") -> Cells:
    """Return the cells of a column that an option names."""
    names = names_of(source)
    if name not in names:
        known = ", ".join(map(repr, names[:10])) + ", ..." * (len(names) > 10)
        raise ValueError(f"{option} must name a column of {file}, which are {known}{f', not {name!r}' if name else ''}")
    return read_frame(select(source, [name])).column(0)


def check_place(path: str, option: str, *read: str) -> None:
    """Refuse a file that cannot be written, or is one of those that are read."""
    if os.path.realpath(check_writable(path, option)) in map(os.path.realpath, read):
        raise ValueError(f"{option} must not be {path}, which is read")


def make_estimator(arguments: argparse.Namespace, task: str, columns: dict[str, str], on_terminal: bool) -> Model:
    """Return the estimator that the arguments of ``train`` ask for."""
    kind = TabularClassifier if task == "classification" else TabularRegressor
    parameters = {"columns": columns or None, "random_state": arguments.seed, "verbose": on_terminal}
    if arguments.n_threads is not None:
        parameters["n_threads"] = arguments.n_threads
    known = kind().get_params(deep=False)
    for flag, _, options in PARAMETERS:
        name = options.get("dest", flag[2:].replace("-", "_"))
        value = getattr(arguments, name)
        if value is None:
            continue
        if name not in known:
            raise ValueError(f"{flag} is not for {task}")
        parameters[name] = value
    estimator: Model = kind(**parameters)
    estimator._check_parameters()
    return estimator


def train(arguments: argparse.Namespace) -> int:
    """Learn from a table, save the model, and score it on rows that were kept out."""
    file, on_terminal = arguments.table, sys.stderr.isatty()
    name = f"{Path(file).name.partition('.')[0] or 'table'}.safetensors"
    save_path = free_name(name) if arguments.save is None else arguments.save
    check_place(save_path, "--save", file)
    test_share = check_number(arguments.test_share, "--test-share", 0, below=1)
    check_integer(arguments.seed, "--seed", 0, 2**32 - 1)
    columns = dict(arguments.column or [])
    source, notes = read_source(file, [each for each, kind in columns.items() if kind != "number"])
    target = arguments.target or "y" * (os.path.splitext(file)[1].lower() in NUMPY)
    targets = learn_targets(target, cells_of(source, target, file), arguments.task)
    estimator = make_estimator(arguments, targets.task, columns, on_terminal)
    print_data(file, source, target, targets, notes)
    X = select(source, [each for each in names_of(source) if each != target])
    groups = np.unique(targets.values, return_inverse=True)[1].ravel()
    if targets.task == "regression":
        groups = np.zeros_like(groups)
    kept, others = split(groups, test_share, np.random.RandomState(arguments.seed))
    X_train, y_train = take(X, targets.rows[kept]), targets.values[kept]
    print(f"{plural(len(kept), 'row')} to train on, {len(others):,} kept out to test\n")
    print(estimator.describe(X_train, y_train), flush=True)
    if arguments.explain:
        print("\nnothing was trained")
        return 0
    status = fit(estimator, X_train, y_train, arguments.checkpoint)
    estimator.target_name_ = target
    save_path, failure = save_somewhere(estimator, save_path, name)
    print(f"saved: {save_path}", flush=True)
    if len(others):
        test = take(X, targets.rows[others]), targets.values[others]
        print(f"\n{compare(estimator, (X_train, y_train), test)}\n")
    print(f"next: fastnn predict {save_path} {file} --output predictions.csv")
    return failure or status


def print_data(file: str, source: Source, target: str, targets: Targets, notes: Sequence[str]) -> None:
    """Print what the file holds."""
    n_rows = read_frame(source).n_rows
    lines = [f"{plural(n_rows, 'row')}, {plural(len(names_of(source)), 'column')}", *notes]
    if len(targets.rows) < n_rows:
        lines.append(f"{plural(n_rows - len(targets.rows), 'row')} without {target} left out")
    print("\n".join(f"{file}: {line}" for line in lines))
    values = np.unique(targets.values)
    if targets.task == "regression":
        what = f"{values[0]:.6g} to {values[-1]:.6g}"
    else:
        shown = ", ".join(map(str, values[:MOST_SHOWN].tolist())) + ", ..." * (len(values) > MOST_SHOWN)
        what = f"{len(values)} classes ({shown})"
    print(f"{targets.task} of {target}: {targets.why}, {what}")


def fit(estimator: Model, X: Source, y: NDArray[Any], checkpoint: str | None) -> int:
    """Fit, print how it went, and return the status."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"fastnn train: warning: {message}", file=sys.stderr)
        estimator.fit(X, y, checkpoint=checkpoint)
    epochs = [len(history) for history in estimator.history_]
    best = [1 + int(np.argmax(history.validation_log_likelihood or [0])) for history in estimator.history_]
    counts = "; ".join(f"{plural(n, 'epoch')}, the best was {k}" for n, k in zip(epochs, best, strict=True))
    interrupted = any(history.interrupted for history in estimator.history_)
    again = ", and again on all rows" * (estimator.recipe_.refit and not interrupted)
    print(f"\ntrained for {counts}{again}, in {time.perf_counter() - start:.1f} s")
    if interrupted:
        if checkpoint is not None:
            print(f"the same command continues from {checkpoint}.0")
        print("interrupted; what has been learnt so far:")
        return INTERRUPTED
    return 0


def linear_model(table: Table, classifies: bool) -> Any:
    """Return scikit-learn's linear model, for raw rows of a table: on scaled numbers and one-hot categories."""
    places = {True: [], False: []}  # type: dict[bool, list[int]]
    for j, each in enumerate(table.inputs):
        places[each.n_values is None].append(j)
    fill = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    prepared = make_column_transformer(
        (make_pipeline(fill, StandardScaler()), places[True]), (OneHotEncoder(handle_unknown="ignore"), places[False])
    )
    return make_pipeline(prepared, LogisticRegression(max_iter=300) if classifies else Ridge())


def compare(estimator: Model, train: tuple[Source, NDArray[Any]], test: tuple[Source, NDArray[Any]]) -> str:
    """Return a printable table: scores on test rows of an estimator, a linear model and a constant."""
    (X, y), (X_test, y_test) = train, test
    classifies = isinstance(estimator, TabularClassifier)
    linear = linear_model(estimator.table_, classifies)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        linear.fit(estimator._read(X), y)
    raw, n = estimator._read(X_test), len(y_test)
    by_median = not classifies and (bool(estimator.quantiles) or estimator.loss == "absolute_error")
    if classifies:
        codes = np.searchsorted(estimator.classes_, y_test)
        shares = np.bincount(np.searchsorted(estimator.classes_, y)) / len(y)
        found = [
            class_scores(probabilities, codes)
            for probabilities in (estimator.predict_proba(X_test), linear.predict_proba(raw), np.tile(shares, (n, 1)))
        ]
    else:
        guess = np.full(n, np.median(y) if by_median else y.mean())
        found = [number_scores(each, y_test) for each in (estimator.predict(X_test), linear.predict(raw), guess)]
    lines = [table_of(f"on {plural(n, 'test row')}", ["network", "linear", "constant"], found)]
    if not classifies:
        lines += coverage(estimator, X_test, y_test)
    kind = "LogisticRegression" if classifies else "Ridge"
    constant = "the shares of the classes" if classifies else "the median" if by_median else "the mean"
    note = f"linear: scikit-learn's {kind}, on scaled numbers and one-hot categories; constant: {constant}"
    return "\n".join([*lines, note])


def class_scores(probabilities: NDArray[Any], codes: NDArray[np.intp]) -> dict[str, str]:
    """Return scores of probabilities (n, n_classes), as text."""
    right = probabilities[np.arange(len(codes)), codes].astype(np.float64)
    found = {
        "error": percent(float((probabilities.argmax(axis=1) != codes).mean())),
        "log-likelihood": f"{np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean():.4f}",
    }
    if probabilities.shape[1] == 2 and len(np.unique(codes)) == 2:
        found["area under ROC"] = f"{metrics.roc_auc_score(codes, probabilities[:, 1]):.4f}"
    return found


def number_scores(predicted: NDArray[Any], y: NDArray[np.float64]) -> dict[str, str]:
    """Return scores of predicted numbers (n,), as text."""
    found = {
        "root mean squared error": f"{metrics.mean_squared_error(y, predicted) ** 0.5:.6g}",
        "mean absolute error": f"{metrics.mean_absolute_error(y, predicted):.6g}",
    }
    if len(np.unique(y)) > 1:
        found["R squared"] = f"{metrics.r2_score(y, predicted):.4f}"
    return found


def coverage(estimator: TabularRegressor, X: Source, y: NDArray[np.float64]) -> list[str]:
    """Return a line that says how many numbers are between the outermost quantiles, if there are two."""
    levels = estimator.quantiles
    if len(levels) < 2:
        return []
    quantiles = estimator.predict_quantiles(X)
    within = float(((quantiles[:, 0] <= y) & (y <= quantiles[:, -1])).mean())
    return [f"between the quantiles {levels[0]:g} and {levels[-1]:g}: {percent(within)} of the rows"]


def table_of(title: str, names: Sequence[str], found: Sequence[dict[str, str]]) -> str:
    """Return a printable table of scores: a row each, and a column for each of several models."""
    return aligned([[title, *names], *([score, *(each[score] for each in found)] for score in found[0])])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as a table, its first column to the left and others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


def read_for(model: Model, file: str, as_text: Sequence[str] = ()) -> Source:
    """Read a table for a model: columns that it does not take for numbers stay text."""
    others = [column.name for column in model.table_.columns if column.kind != "number"]
    source, notes = read_source(file, [*others, *as_text])
    for note in notes:
        print(f"{file}: {note}", file=sys.stderr)
    return source


def without_target(model: Model, source: Source) -> Source:
    """Return a table without the target, for a model of columns without names."""
    if model.table_.named:
        return source
    return select(source, [name for name in names_of(source) if name != (model.target_name_ or "y")])


def predict(arguments: argparse.Namespace) -> int:
    """Write a model's answer for each row of a table, as CSV."""
    model, keep = load(arguments.model), arguments.keep or []
    if arguments.output is not None:
        check_place(arguments.output, "--output", arguments.file, arguments.model)
    source = read_for(model, arguments.file, keep)
    names, columns = list(keep), [kept_cells(source, name, arguments.file) for name in keep]
    for name, values in answers(model, without_target(model, source), arguments.interval).items():
        names.append(name)
        columns.append(values)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    if arguments.output is None:
        print(text.getvalue(), end="")
    else:
        write_atomically(arguments.output, text.getvalue().encode())
        print(f"{plural(len(columns[-1]), 'prediction')}: {arguments.output}")
    return 0


def kept_cells(source: Source, name: str, file: str) -> list[Any]:
    """Return the cells of a column that ``--keep`` names."""
    cells = cells_of(source, name, file, "--keep")
    if isinstance(cells, Numbers):
        return [None if value != value else plain_number(value, cells.sort) for value in cells.values.tolist()]
    return objects_of(cells)


def answers(model: Model, X: Source, interval: float | None) -> dict[str, list[Any]]:
    """Return columns of answers, by name."""
    if isinstance(model, TabularClassifier):
        if interval is not None:
            raise ValueError("--interval is not for classification")
        probabilities = model.predict_proba(X)
        classes = model.classes_
        found = {"prediction": classes[probabilities.argmax(axis=1)].tolist()}
        return found | {
            f"probability {label}": [f"{p:.6g}" for p in column]
            for label, column in zip(classes.tolist(), probabilities.T, strict=True)
        }
    found = {"prediction": list(map(str, model.predict(X)))}  # the shortest text that gives the same number
    if model.quantiles:
        for level, column in zip(model.quantiles, model.predict_quantiles(X).T, strict=True):
            found[f"quantile {level:g}"] = list(map(str, column))
    if interval is not None:
        lower, upper = model.predict_interval(X, interval).T
        found |= {"lower": [f"{each:.9g}" for each in lower], "upper": [f"{each:.9g}" for each in upper]}
    return found


def evaluate(arguments: argparse.Namespace) -> int:
    """Print how well a model does on the rows of a table."""
    model = load(arguments.model)
    target = arguments.target or model.target_name_
    if target is None:
        raise ValueError(f"{arguments.model} does not say which column it predicts: --target must")
    classes = getattr(model, "classes_", None)
    source = read_for(model, arguments.table, [] if classes is None or classes.dtype.kind in "if" else [target])
    cells = cells_of(source, target, arguments.table)
    y = read_numbers(target, cells) if classes is None else read_classes(target, cells, classes)
    rows = np.flatnonzero(~np.isnan(y))
    if not len(rows):
        raise ValueError(f"column {target!r} of {arguments.table} holds nothing")
    X, y = take(without_target(model, source), rows), y[rows]
    members = plural(len(model.networks_), "network")
    print(f"{members}, {target} in {plural(len(rows), 'row')} of {arguments.table}")
    if classes is None:
        print("\n".join([aligned(list(number_scores(model.predict(X), y).items())), *coverage(model, X, y)]))
        return 0
    probabilities, codes = model.predict_proba(X), y.astype(np.intp)
    print(aligned(list(class_scores(probabilities, codes).items())))
    if len(classes) <= MOST_SHOWN:
        print_confusion(codes, probabilities.argmax(axis=1), [f"{label!s:.20}" for label in classes.tolist()])
    return 0


def print_confusion(codes: NDArray[np.intp], assigned: NDArray[np.intp], names: list[str]) -> None:
    """Print how many rows of each class were assigned to each class."""
    print("\nconfusion matrix: true class down, assigned class across")
    rows = [["", *names, "error"]]
    for k, counts in enumerate(metrics.confusion_matrix(codes, assigned, labels=range(len(names)))):
        wrong = percent(1 - counts[k] / counts.sum()) if counts.any() else "-"
        rows.append([names[k], *(str(count or ".") for count in counts), wrong])
    print(aligned(rows))
