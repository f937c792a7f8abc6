"""The command line: ``fastnn train``, ``tutorial``, ``evaluate``, ``predict`` and ``benchmark``.

It validates, translates and delegates.  A mistake ends in one line and exit status 2.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastnn
from fastnn import LBFGS, SGD, DivergenceError, Network, Trainer, schedules
from fastnn._clock import STARTED
from fastnn._commands import INTERRUPTED, Parser, adds_arguments, free_name, percent, plural, save_somewhere
from fastnn._streams import Stream, lasting_streams
from fastnn._validation import check_input_shape, check_integer, check_number, check_writable
from fastnn.augment import Flip, Shift
from fastnn.callbacks import Callback, Checkpoint, EarlyStopping, Fit, HistoryFile
from fastnn.datasets import Dataset, load_mnist
from fastnn.datasets._csv import HEADERS
from fastnn.datasets._files import read_file
from fastnn.datasets._mnist import image_shape
from fastnn.engine.ranks import ALONE, Ranks, ranks_of
from fastnn.history import History
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.kernels.rows import UINT8_SCALE
from fastnn.layers import Conv2D, Dense, Layer, MaxPool2D
from fastnn.optimizers import OPTIMIZERS
from fastnn.storage import kind_of
from fastnn.training.settings import threads_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_MODEL = "digits.safetensors"

# These suit digits; the other optimizers use their own defaults.
SGD_RATE, SGD_MOMENTUM = 0.1, 0.9
EPOCHS, LBFGS_EPOCHS, BATCH_SIZE = 12, 100, 128
HIDDEN, ACTIVATION = [256], "relu"


class Model(NamedTuple):
    """A convolutional network of ``--model``: its hidden layers, their activation, and a text for the help."""

    layers: list[Layer]
    activation: str
    batch_norm: bool
    text: str


MODELS = {
    # The LeNet of the Theano tutorials at deeplearning.net.
    "lenet": Model(
        [Conv2D(20, 5), MaxPool2D(2), Conv2D(50, 5), MaxPool2D(2), Dense(500)],
        "tanh",
        False,
        "5 x 5 convolutions with 20 and 50 filters, 500 units",
    ),
    # LeCun et al. (1998): their input of 32 x 32 is ours of 28 x 28 with zeros around it.
    "lenet5": Model(
        [Conv2D(6, 5, padding="same"), MaxPool2D(2), Conv2D(16, 5), MaxPool2D(2), Dense(120), Dense(84)],
        "tanh",
        False,
        "LeNet-5: 6 and 16 filters, 120 and 84 units",
    ),
    "small": Model(
        [Conv2D(16, 3), Conv2D(16, 3), MaxPool2D(2), Conv2D(32, 3), Conv2D(32, 3), MaxPool2D(2), Dense(128)],
        "relu",
        True,
        "batch-normalised 3 x 3 convolutions, twice 16 and twice 32 filters, 128 units",
    ),
}

# Each makes a schedule from the first learning rate and the number of epochs; the text is for the help.
SCHEDULES: dict[str, tuple[Callable[[float, int], schedules.Schedule], str]] = {
    "constant": (lambda rate, epochs: schedules.Constant(rate), "stays"),
    "step": (lambda rate, epochs: schedules.Step(rate, every=max(1, epochs // 3)), "a tenth after each third"),
    "exponential": (lambda rate, epochs: schedules.Exponential(rate, 0.01 ** (1 / epochs)), "to a hundredth"),
    "cosine": (schedules.Cosine, "to 0"),
    "warmup": (lambda rate, epochs: schedules.LinearWarmup(rate), "up from 0 in the first epoch"),
    "inverse-scaling": (lambda rate, epochs: schedules.InverseScaling(rate), "by the root of the epochs"),
    "plateau": (lambda rate, epochs: schedules.OnPlateau(rate, patience=2), "a tenth after 3 epochs without a rise"),
}
DRAWN = "digits, confusion matrix and weights, or filters and feature maps"  # what `report` draws
DISTRIBUTED = "--distributed"
PICTURE = 16  # rows of at least this many numbers may be pixels


def positive(text: str) -> float:
    """Return a number above 0, written as a decimal or a fraction."""
    above, _, below = text.partition("/")
    try:
        return check_number(float(above) / float(below or 1), "it", 0, open_left=True)
    except (ValueError, ArithmeticError):
        raise argparse.ArgumentTypeError(f"must be a number above 0, such as 1/256, not {text!r}") from None


class Lines(Callback):
    """One line an epoch, for output that is not a terminal."""

    def on_epoch(self, fit: Fit) -> None:
        """Print the epoch's results."""
        history = fit.history
        figures = [f"log-likelihood {history.log_likelihood[-1]:.4f}"]
        if history.validation_error:
            figures.append(f"validation error {percent(history.validation_error[-1])}")
        epoch = f"epoch {len(history):{len(str(fit.epochs))}}/{fit.epochs}"
        print("   ".join([epoch, *figures, f"{history.seconds[-1]:.2f} s"]), flush=True)


def add_common_options(argument: Callable[..., Any], pictures: str, data: bool = True, threads: bool = False) -> None:
    """Add options that several commands have; pictures says which pictures there are."""
    if data:
        argument(
            "--data",
            "a folder of MNIST-like IDX files or an mnist.pkl.gz, instead of the embedded MNIST",
            metavar="PATH",
        )
    if threads:
        argument("--threads", "number of threads (default: all processors)", type=int, metavar="N")
    argument(
        "--plot",
        f"save pictures of {pictures} in FOLDER (plots if none is given)",
        nargs="?",
        const="plots",
        metavar="FOLDER",
    )


def add_model_options(argument: Callable[..., Any]) -> None:
    """Add what says which network is trained, on which rows."""
    argument("--rows", "train on the first N rows only", type=int, metavar="N")
    argument(
        "--hidden",
        f"units of each hidden layer; no number: softmax regression (default: {' '.join(map(str, HIDDEN))})",
        type=int,
        nargs="*",
        metavar="UNITS",
    )
    described = "; ".join(f"{name}, {model.text}, {model.activation}" for name, model in MODELS.items())
    argument("--model", f"a convolutional network, instead of --hidden: {described}", choices=list(MODELS))
    argument(
        "--input-shape",
        "height, width and, if there are several, channels of the images of --model (default: what the IDX files say, "
        "or a square)",
        type=int,
        nargs="+",
        metavar="N",
    )
    argument(
        "--activation",
        f"of the hidden layers, one for all or one each: {', '.join(ACTIVATIONS)} (default: {ACTIVATION}, or the "
        "model's)",
        choices=list(ACTIVATIONS),
        nargs="+",
        metavar="NAME",
    )


def add_step_options(argument: Callable[..., Any]) -> None:
    """Add what says how steps are made."""
    argument("--optimizer", "how a step is made", "sgd", choices=list(OPTIMIZERS))
    rates = [f"{name} {kind.learning_rate}" for name, kind in OPTIMIZERS.items() if kind not in (SGD, LBFGS)]
    argument(
        "--learning-rate",
        f"length of a step (default: sgd {SGD_RATE}, {', '.join(rates)})",
        type=float,
        metavar="RATE",
    )
    described = ", ".join(f"{name} ({text})" for name, (_, text) in SCHEDULES.items())
    argument("--schedule", f"how the learning rate changes: {described}", choices=list(SCHEDULES), metavar="NAME")
    argument(
        "--momentum",
        f"share of the last step that sgd keeps (default: {SGD_MOMENTUM})",
        type=float,
        metavar="SHARE",
    )
    argument(
        "--batch-size",
        f"rows a step; 0: all rows at once (default: {BATCH_SIZE}, lbfgs 0)",
        type=int,
        metavar="N",
    )
    argument("--epochs", f"times through the data (default: {EPOCHS}, lbfgs {LBFGS_EPOCHS})", type=int, metavar="N")
    argument("--l2", "penalty on squared weights", 1e-5, type=float, metavar="WEIGHT")
    argument("--l1", "penalty on weights' magnitudes", 0.0, type=float, metavar="WEIGHT")
    argument(
        "--dropout",
        "share of the hidden units left out, for all layers or each",
        [0.0],
        type=float,
        nargs="+",
        metavar="SHARE",
    )
    argument("--label-smoothing", "share of the true class given to all", 0.0, type=float, metavar="SHARE")
    argument("--clip-norm", "greatest length of a gradient (default: any)", type=float, metavar="LENGTH")
    argument("--shift", "move images at random by so many pixels at most, in training", 0, type=int, metavar="PIXELS")
    argument("--flip", "exchange left and right of images at random, in training", action="store_true")


def add_run_options(argument: Callable[..., Any]) -> None:
    """Add what says when training ends, and which files it writes."""
    argument(
        "--early-stopping",
        "end after more than PATIENCE epochs without a higher validation log-likelihood, and keep the best parameters "
        "(default: off)",
        type=int,
        metavar="PATIENCE",
    )
    argument("--dtype", "precision", "float32", choices=["float32", "float64"])
    argument("--seed", "of initial weights and shuffling", 0, type=int, metavar="N")
    argument(
        "--save", f"where to save the model (default: {DEFAULT_MODEL}, or a new name if that exists)", metavar="FILE"
    )
    argument("--history", "write what each epoch reached to a .csv or .json file", metavar="FILE")
    argument(
        "--checkpoint",
        "update FILE while training; after a stop or a kill, the same command continues from it and ends with the same "
        "bits",
        metavar="FILE",
    )
    argument(
        "--resume-exactly",
        "refuse a checkpoint if the fit would round differently here, with another processor or BLAS for example",
        True,
        action=argparse.BooleanOptionalAction,
    )
    argument(
        DISTRIBUTED,
        "train on all ranks of an MPI job, with the same result: mpiexec -n 4 fastnn train --distributed",
        action="store_true",
    )
    argument(
        "--explain", "print how the training would be carried out, and why, and train nothing", action="store_true"
    )


def trains_on_a_table(arguments: Sequence[str]) -> bool:
    """Whether the arguments are those of ``train`` on a table: they begin with its name, or name a target."""
    command, *others = arguments or [""]
    return command == "train" and (
        (bool(others) and not others[0].startswith("-")) or any(each.split("=")[0] == "--target" for each in others)
    )


def add_use_options(argument: Callable[..., Any]) -> None:
    """Add the options of ``predict``."""
    argument("model", "a file that was saved by fastnn", metavar="MODEL")
    argument("file", ".npy, .npz, .csv, .png or IDX (.gz or not); a table, if the model is of one", metavar="FILE")
    argument(
        "--scale",
        "multiply the file's numbers by S, such as 1/256 or 1 (default: what the model's file says; if it says "
        "nothing, uint8 is multiplied by 1/256 and other types are taken as they are)",
        type=positive,
        metavar="S",
    )
    argument("--header", "whether a .csv file begins with a line of names", "auto", choices=HEADERS)
    argument("--output", "of a table: write the answers to this .csv file", metavar="CSV")
    argument(
        "--keep", "of a table: columns of FILE to write before the answers, such as ids", nargs="+", metavar="COLUMN"
    )
    argument(
        "--interval",
        "of a table, regression: also write limits between which a number is with this probability, such as 0.9",
        type=float,
        metavar="P",
    )


def build_parser(arguments: Sequence[str] = ()) -> Parser:
    """Build the parser of all subcommands, of which ``train`` depends on the arguments."""
    parser = Parser(
        prog="fastnn",
        description="Train and use softmax regression, multi-layer perceptrons and convolutional networks.",
    )
    parser.add_argument("--version", action="version", version=f"fastnn {fastnn.__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Callable[..., Any]:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return adds_arguments(added)

    if trains_on_a_table(arguments):
        from fastnn.tabular import commands as tables

        argument = command("train", tables.train, "Train a network on a table and save it.")
        tables.add_train_options(argument)
    else:
        argument = command(
            "train",
            train_command,
            "Train a classifier of handwritten digits and save it; or a network on a table, by fastnn train TABLE "
            "--target COLUMN, of which fastnn train TABLE --help tells.",
        )
        add_model_options(argument)
        add_step_options(argument)
        add_run_options(argument)
        add_common_options(
            argument, "learning curves, digits, confusion matrix and weights, or filters and feature maps", threads=True
        )

    argument = command(
        "tutorial", tutorial_command, "Replay the two models of the tutorial 'Training Neural Networks with Theano'."
    )
    add_common_options(argument, "digits with true and assigned classes and of the weights", data=False, threads=True)

    argument = command("evaluate", evaluate_command, "Measure a saved model on the test images, or on a table.")
    argument("model", "a file that was saved by fastnn", metavar="MODEL")
    argument("table", "for a model of a table: .csv, .parquet or .npz", nargs="?", metavar="TABLE")
    argument("--target", "of a table: the column to predict (default: what the model's file says)", metavar="COLUMN")
    add_common_options(argument, DRAWN)

    argument = command(
        "predict",
        predict_command,
        "Print a model's answer for each row of a file, in columns separated by tabs: the row's number and, by the "
        "model's kind, a class and its probability; for each label 0 or 1 and the probability of 1; or values. The "
        "standard error stream says how the numbers were scaled. A model of a table answers as CSV.",
    )
    add_use_options(argument)

    argument = command(
        "benchmark", benchmark_command, "Time fastnn, NumPy and what is installed of JAX, PyTorch and scikit-learn."
    )
    argument("--dtype", "precision", "float32", choices=["float32", "float64"])
    sets = ["plain", "adam", "convolution", "all"]
    argument("--set", "cells: plain steps, Adam, convolution, or all", "all", choices=sets)
    argument("--rows", "only the first N rows of each cell", type=int, metavar="N")
    argument("--seconds", "about how long it takes", 60.0, type=float, metavar="S")
    return parser


def plot_folder(arguments: argparse.Namespace) -> Path | None:
    """Make and return the folder for pictures, or None if none are wanted; fail early if they cannot be drawn."""
    if arguments.plot is None:
        return None
    from fastnn import plotting

    plotting.new_figure(1, 1)
    folder = Path(arguments.plot)
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / "weights.png", "--plot")
    return folder


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a picture and print where."""
    from fastnn import plotting

    plotting.write_figure(figure, folder / name, dpi=130)
    print(f"picture: {folder / name}")


def report(network: Network, test: Dataset, folder: Path | None, examples: int = 10) -> None:
    """Draw digits, confusion matrix and weights, or filters and feature maps, if there is a folder."""
    if folder is None:
        return
    from fastnn import plotting

    assigned = network.predict(test.X)
    if network.classifies and assigned.size == len(test.y):  # one class or label each
        assigned = assigned.ravel()
        wrong = np.flatnonzero(assigned != test.y)
        images = (
            test.X.reshape(len(test.y), *network.input_shape) if network.input_shape[2:] in ((1,), (3,)) else test.X
        )
        for name, which in (("digits.png", np.arange(min(examples, len(test.y)))), ("mistakes.png", wrong[:examples])):
            if len(which):
                save_figure(plotting.plot_digits(images[which], test.y[which], assigned[which]), folder, name)
    if network.loss == "cross_entropy":
        save_figure(plotting.plot_confusion(network.confusion_matrix(test.X, test.y)), folder, "confusion.png")
    convolutions = [k for k, layer in enumerate(network.layers) if isinstance(layer, Conv2D)]
    if not convolutions:
        save_figure(plotting.plot_weights(network), folder, "weights.png")
        return
    save_figure(plotting.plot_filters(network, convolutions[0]), folder, "filters.png")
    save_figure(plotting.plot_feature_maps(network, test.X[0], convolutions[0]), folder, "feature-maps.png")


def described(network: Network) -> str:
    """Return a network as text: on one line, or as a table if it is on images."""
    return repr(network) if len(network.input_shape) == 1 else f"{network}\n{network.dtype} network"


def make_optimizer(arguments: argparse.Namespace, epochs: int) -> Any:
    """Return the optimizer that the arguments of ``train`` ask for."""
    kind, rate, momentum = OPTIMIZERS[arguments.optimizer], arguments.learning_rate, arguments.momentum
    if momentum is not None and kind is not SGD:
        raise ValueError(f"--momentum is for --optimizer sgd, not {arguments.optimizer}")
    if kind is LBFGS:
        for option in ("learning_rate", "schedule"):
            if getattr(arguments, option) is not None:
                raise ValueError(
                    f"--{option.replace('_', '-')} is not for --optimizer lbfgs, which finds its own steps"
                )
        return LBFGS()
    if rate is None:
        rate = SGD_RATE if kind is SGD else kind.learning_rate
    if arguments.schedule is not None:
        rate = SCHEDULES[arguments.schedule][0](rate, max(1, epochs))
    return SGD(rate, SGD_MOMENTUM if momentum is None else momentum) if kind is SGD else kind(rate)


def check_places(arguments: argparse.Namespace, save_path: str) -> None:
    """Refuse files that cannot be written, or would overwrite each other, before the training."""
    places = {"--save": save_path, "--history": arguments.history, "--checkpoint": arguments.checkpoint}
    taken: dict[str, str] = {}
    for option, path in places.items():
        if path is not None:
            other = taken.setdefault(os.path.realpath(check_writable(path, option)), option)
            if other != option:
                raise ValueError(f"{other} and {option} name the same file, {path}")


def make_callbacks(arguments: argparse.Namespace, has_validation: bool, on_terminal: bool) -> list[Callback]:
    """Return the callbacks; the checkpoint follows those whose state it keeps."""
    callbacks: list[Callback] = []
    if arguments.early_stopping is not None:
        if not has_validation:
            raise ValueError("--early-stopping needs validation images, and there are none")
        callbacks.append(EarlyStopping(patience=arguments.early_stopping))
    if arguments.history is not None:
        callbacks.append(HistoryFile(arguments.history))
    if arguments.checkpoint is not None:
        callbacks.append(Checkpoint(arguments.checkpoint))
    return callbacks if on_terminal else [*callbacks, Lines()]


class Training(NamedTuple):
    """What the arguments of ``train`` ask for: a trainer of a network, and its data."""

    network: Network
    trainer: Trainer
    epochs: int
    train: Dataset
    validation: Dataset | None
    test: Dataset


def make_network(arguments: argparse.Namespace, n_in: int, n_classes: int) -> Network:
    """Return the network that the arguments of ``train`` ask for."""
    given, options = arguments.activation, {"dtype": arguments.dtype, "seed": arguments.seed}
    activation = None if given is None else given[0] if len(given) == 1 else given
    if arguments.model is None:
        hidden, moves = HIDDEN if arguments.hidden is None else arguments.hidden, bool(make_augment(arguments))
        if moves:
            units = [Dense(check_integer(n, "--hidden", 1)) for n in hidden]
            shape = choose_image_shape(arguments, n_in)
            return Network([*units, Dense(n_classes)], activation or ACTIVATION, input_shape=shape, **options)
        if arguments.input_shape is not None:
            raise ValueError("--input-shape is for --model, --shift and --flip: others take rows of any shape")
        return Network([n_in, *hidden, n_classes], activation or ACTIVATION, **options)
    if arguments.hidden is not None:
        raise ValueError(f"--hidden is not for --model {arguments.model}, which has its own layers")
    model = MODELS[arguments.model]
    shape = choose_image_shape(arguments, n_in)
    layers = [*model.layers, Dense(n_classes)]
    return Network(layers, activation or model.activation, batch_norm=model.batch_norm, input_shape=shape, **options)


def make_augment(arguments: argparse.Namespace) -> list[Shift | Flip]:
    """Return how images are moved in training."""
    shift = check_integer(arguments.shift, "--shift", 0)
    return [Shift(shift)] * (shift > 0) + [Flip()] * arguments.flip


def choose_image_shape(arguments: argparse.Namespace, n_in: int) -> tuple[int, ...]:
    """Return height, width and channels of images of n_in numbers."""
    given = arguments.input_shape
    if given is not None and len(given) == 1:
        raise ValueError(f"--input-shape must be height, width and, if there are several, channels, not {given[0]}")
    side = math.isqrt(n_in)
    shape = check_input_shape(given or image_shape(arguments.data) or (side, side))
    if math.prod(shape) == n_in:
        return shape
    if given is None:
        raise ValueError(f"the images have {n_in} numbers, which are no square: --input-shape must say their shape")
    raise ValueError(f"--input-shape {' '.join(map(str, given))} does not fit the images, which have {n_in} numbers")


def make_training(arguments: argparse.Namespace, optimizer: Any, epochs: int, on_terminal: bool) -> Training:
    """Load the data, and make a network and a trainer for them."""
    train, valid, test = load_mnist(arguments.data, arguments.dtype)
    n_rows = len(train.y) if arguments.rows is None else arguments.rows
    if not 1 <= n_rows <= len(train.y):
        raise ValueError(f"--rows must be from 1 to {len(train.y)}, not {n_rows}")
    n_classes = max(int(part.y.max(initial=0)) for part in (train, valid, test)) + 1
    if n_classes > sum(len(part.y) for part in (train, valid, test)):
        raise ValueError(f"the data have fewer images than the {n_classes:,} classes that the largest label asks for")
    network = make_network(arguments, train.X.shape[1], n_classes)
    network.input_scale = UINT8_SCALE  # the data are pixels
    by_lbfgs = isinstance(optimizer, LBFGS)
    batch_size = (0 if by_lbfgs else BATCH_SIZE) if arguments.batch_size is None else arguments.batch_size
    trainer = Trainer(
        network,
        optimizer,
        batch_size=batch_size or None,
        l2=arguments.l2,
        seed=arguments.seed,
        n_threads=arguments.threads,
        callbacks=make_callbacks(arguments, len(valid.y) > 0, on_terminal),
        l1=arguments.l1,
        dropout=arguments.dropout if len(arguments.dropout) > 1 else arguments.dropout[0],
        label_smoothing=arguments.label_smoothing,
        clip_norm=arguments.clip_norm,
        augment=make_augment(arguments),
        comm=arguments.ranks.comm,
    )
    print(f"{n_rows:,} training, {len(valid.y):,} validation and {len(test.y):,} test images")
    workers = f"{threads_of(trainer)} thread(s)"
    if arguments.distributed:
        workers = f"{plural(arguments.ranks.size, 'rank')}, {workers} each"
    print(f"{described(network)}, {network.parameters.size:,} parameters, {workers}", flush=True)
    rows = Dataset(train.X[:n_rows], train.y[:n_rows])
    return Training(network, trainer, epochs, rows, valid if len(valid.y) else None, test)


def carry_out(arguments: argparse.Namespace, training: Training, on_terminal: bool) -> tuple[History, int]:
    """Train, or continue from a checkpoint; return history and status."""
    checkpoint = arguments.checkpoint
    if checkpoint is not None and os.path.exists(checkpoint):
        print(f"continuing from {checkpoint}", flush=True)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"fastnn train: warning: {message}", file=sys.stderr)
            history = training.trainer.fit(
                *training.train,
                training.epochs,
                training.validation,
                progress=on_terminal,
                resume=checkpoint,
                resume_exactly=arguments.resume_exactly,
            )
    except DivergenceError as error:
        if len(error.history) == 0:
            raise
        if arguments.ranks.rank == 0:
            print(f"fastnn train: error: {error}", file=sys.stderr)
        return error.history, 2
    if not history.interrupted:
        return history, 0
    if checkpoint is not None and os.path.exists(checkpoint):
        print(f"the same command continues from {checkpoint}")
    print("interrupted; what has been learnt so far:")
    return history, INTERRUPTED


def train_command(arguments: argparse.Namespace) -> int:
    """Train, report and save; or explain how it would be done.  Files belong to the first rank."""
    ranks: Ranks = arguments.ranks
    save_path = free_name(DEFAULT_MODEL) if arguments.save is None else arguments.save
    if ranks.rank == 0:
        check_places(arguments, save_path)
    standard = LBFGS_EPOCHS if arguments.optimizer == "lbfgs" else EPOCHS
    epochs = check_integer(standard if arguments.epochs is None else arguments.epochs, "epochs", 0)
    optimizer = make_optimizer(arguments, epochs)
    folder = plot_folder(arguments) if ranks.rank == 0 and not arguments.explain else None
    on_terminal = sys.stderr.isatty()
    training = make_training(arguments, optimizer, epochs, on_terminal)
    if arguments.explain:
        plan = training.trainer.plan(*training.train)
        print(f"\n{plan}\n\nfingerprint {plan.fingerprint()}; nothing was trained")
        return 0
    history, status = carry_out(arguments, training, on_terminal)
    return ranks.first_tells("the results", lambda: conclude(training, history, save_path, folder) or status)


def conclude(training: Training, history: History, save_path: str, folder: Path | None) -> int:
    """Save and report what was learnt; return the status."""
    network, test = training.network, training.test
    save_path, status = save_somewhere(network, save_path, DEFAULT_MODEL)
    elapsed = time.perf_counter() - STARTED
    wrong = network.error(test.X, test.y)
    print(
        f"test error {percent(wrong)} ({percent(1 - wrong)} right)"
        f"   {sum(history.seconds):.1f} s of training, {elapsed:.1f} s in all"
    )
    print(f"saved: {save_path}")
    if folder is not None and len(history):
        from fastnn import plotting

        save_figure(plotting.plot_history(history), folder, "learning-curves.png")
    report(network, test, folder)
    print(f"next: fastnn evaluate {save_path}")
    return status


def tutorial_command(arguments: argparse.Namespace) -> int:
    """Train the tutorial's models and print its results beside ours."""
    from fastnn import tutorial

    folder = plot_folder(arguments)
    train, _, test = load_mnist(dtype="float64")
    parts = (
        ("First model: softmax regression, 10 steps on 50,000 images", tutorial.first_model, False),
        ("Second model: 20 tanh units, 60 steps on 5,000 images", tutorial.second_model, True),
    )
    for title, replay, own_start in parts:
        start = time.perf_counter()
        model = replay(train, test, arguments.threads)
        elapsed = time.perf_counter() - start
        print(f"{title} ({elapsed:.2f} s)\n\nMean log-likelihood in nats before each step:")
        print(f"{'step':>4}  {'published':>20}" + f"  {'Theano 1.0.5':>20}" * own_start + f"  {'fastnn':>20}")
        columns = [model.published, *([model.theano] * own_start), model.history.log_likelihood]
        for step, values in enumerate(zip(*columns, strict=True), 1):
            print(f"{step:4}" + "".join(f"  {value!r:>20}" for value in values))
        reference = model.theano if own_start else model.published
        gap = max(abs(a - b) for a, b in zip(reference, model.history.log_likelihood, strict=True))
        print(f"Largest difference from {'Theano' if own_start else 'the published values'}: {gap:.1e}")
        print(f"Test error: {percent(model.published_error)} published, {percent(model.error)} obtained")
        if own_start:
            print(
                "The tutorial started this model without a seed, so its column can only be similar; Theano 1.0.5\n"
                "started from the same weights as fastnn. The published error is that of the first model: the\n"
                "tutorial compiled its classification function before it redefined P and y_hat, so that function\n"
                "still holds the first model's graph."
            )
        print()
        if folder is not None:
            from fastnn import plotting

            name = "second-model" if own_start else "first-model"
            assigned = model.network.predict(test.X[:10])
            save_figure(plotting.plot_digits(test.X[:10], test.y[:10], assigned), folder, f"{name}-digits.png")
            save_figure(plotting.plot_weights(model.network), folder, f"{name}-weights.png")
            print()
    return 0


def is_of_table(arguments: argparse.Namespace, for_tables: Sequence[str], for_others: Sequence[str]) -> bool:
    """Whether the model is of a table; refuse options that are for other models."""
    of_table = kind_of(arguments.model) == "tabular"
    for option in for_others if of_table else for_tables:
        if getattr(arguments, option) not in (None, "auto"):
            shown = option.upper() if option == "table" else f"--{option}"
            of = "a table" if of_table else "no table"
            raise ValueError(f"{shown} is not for {arguments.model}, which is a model of {of}")
    return of_table


def evaluate_command(arguments: argparse.Namespace) -> int:
    """Print how well a saved model does on the test images or a table, in measures that suit its loss."""
    if is_of_table(arguments, ["table", "target"], ["data", "plot"]):
        if arguments.table is None:
            raise ValueError(f"{arguments.model} is a model of a table: give a file to measure it on")
        from fastnn.tabular import commands as tables

        return tables.evaluate(arguments)
    network = Network.load(arguments.model)
    folder = plot_folder(arguments)
    _, _, test = load_mnist(arguments.data, network.dtype)
    if test.X.shape[1] != network.n_in:
        raise ValueError(f"{arguments.model} has {network.n_in} inputs, and the images have {test.X.shape[1]} pixels")
    scale = UINT8_SCALE if network.input_scale is None else network.input_scale
    test = test._replace(X=scaled(test.X, scale / UINT8_SCALE, network))  # the pixels come multiplied by UINT8_SCALE
    y, meaning = targets(network, test.y)
    print(f"{described(network)} on {len(y):,} test images, pixels multiplied by {fraction(scale)}")
    if meaning:
        print(f"target: {meaning}")
    log_likelihood = network.log_likelihood(test.X, y)
    if network.classifies:
        print(f"error           {percent(network.error(test.X, y))}{'' if y.ndim == 1 else ' of the labels'}")
        print(f"log-likelihood  {log_likelihood:.4f} nats")
    else:
        print(f"mean error      {np.abs(network.predict(test.X) - y.reshape(len(y), -1)).mean():.6g}")
        print(f"loss            {-log_likelihood:.6g} ({network.loss})")
    if network.loss == "cross_entropy":
        print_confusion(network.confusion_matrix(test.X, y))
    elif network.classifies:
        print_labels(network.predict(test.X), y.reshape(len(y), -1))
    report(network, test, folder)
    return 0


def targets(network: Network, classes: NDArray[np.int64]) -> tuple[NDArray[Any], str]:
    """Return what a network should give for images of these classes, and its meaning in words."""
    n_classes = int(classes.max()) + 1
    one_number = network.n_out == 1 or network.loss == "quantile"
    needed = 2 if network.n_out == 1 and network.loss == "binary_cross_entropy" else network.n_out
    if n_classes > needed and (network.classifies or not one_number):
        raise ValueError(
            f"the test images have {n_classes} classes, which do not fit the model's "
            f"{plural(network.n_out, 'output')} and {network.loss} loss"
        )
    if network.loss == "cross_entropy":
        return classes, ""
    if one_number:
        return classes.astype(network.dtype), "the class"
    wanted = np.eye(network.n_out, dtype=network.dtype)[classes]
    return wanted, "1 for the output of an image's class, 0 for the others"


def print_confusion(matrix: NDArray[np.intp]) -> None:
    """Print how many rows of each class were assigned to each class."""
    width = max(len(str(matrix.max())), len(str(len(matrix)))) + 2
    print("\nconfusion matrix: true class down, assigned class across")
    print(" " * 4 + "".join(f"{k:{width}}" for k in range(len(matrix))) + "     error")
    for k, row in enumerate(matrix):
        wrong = percent(1 - row[k] / row.sum()) if row.sum() else "-"
        print(f"{k:4}" + "".join(f"{count or '.':>{width}}" for count in row) + f"  {wrong:>8}")


def print_labels(assigned: NDArray[Any], true: NDArray[Any]) -> None:
    """Print how often each label was assigned, and how often wrongly."""
    print("\nimages with each label, true and assigned; missed and wrongly assigned")
    print("label       true   assigned     missed      wrong     error")
    for k, (found, wanted) in enumerate(zip(assigned.T == 1, true.T == 1, strict=True)):
        missed, wrong = int((wanted & ~found).sum()), int((found & ~wanted).sum())
        error = percent((missed + wrong) / len(wanted))
        print(f"{k:5} {wanted.sum():10} {found.sum():10} {missed:10} {wrong:10} {error:>9}")


def fraction(scale: float) -> str:
    """Return a scale as text: 1/256 if it is exactly that."""
    inverse = round(1 / scale) if scale > 1e-9 else 0
    return f"1/{inverse}" if inverse > 1 and 1 / inverse == scale else f"{scale:.17g}"


def scaled(rows: NDArray[Any], scale: float, network: Network) -> NDArray[Any]:
    """Return rows multiplied by scale, as floats; uint8 stays if the network scales it itself."""
    if scale == 1 or (rows.dtype == np.uint8 and scale == UINT8_SCALE):
        return rows.astype(network.dtype) if rows.dtype == np.uint8 and scale == 1 else rows
    with np.errstate(all="ignore"):  # the network refuses what is not finite
        product: NDArray[Any] = np.multiply(rows.astype(np.result_type(rows.dtype, network.dtype)), scale)
    return product


def choose_scale(arguments: argparse.Namespace, network: Network, rows: NDArray[Any]) -> tuple[float, str]:
    """Return the factor for the numbers of a file, and why; it does not depend on their values."""
    if arguments.scale is not None:
        return arguments.scale, "as --scale says"
    if network.input_scale is not None:
        return network.input_scale, "as the model's file says"
    if rows.dtype == np.uint8:
        return UINT8_SCALE, "as pixels are, because the model's file does not say how"
    return 1.0, "because the model's file does not say how to scale them"


def hint(rows: NDArray[Any], scale: float, known: bool) -> str:
    """Return a hint if the scaled numbers look wrong, else nothing."""
    if not rows.size:
        return ""
    low, high = float(rows.min()), float(rows.max())
    span = f"the numbers go from {low:g} to {high:g}"
    if scale < 1 and low >= -1 and 0 < high <= 1:
        return f"hint: {span}, as if they were scaled already; --scale 1 takes them as they are"
    if scale < 1 and high * scale > 1:
        return f"hint: {span}, which times {fraction(scale)} is more than 1; --scale sets another factor"
    like_pixels = not known and scale == 1 and rows.shape[1] >= PICTURE and low >= 0 and 1 < high <= 255
    if like_pixels and (rows == np.floor(rows)).all():
        return f"hint: {span} and are whole, as pixels are; --scale {fraction(UINT8_SCALE)} is for models of pixels"
    return ""


def predict_command(arguments: argparse.Namespace) -> int:
    """Print a model's answer for each row of a file."""
    if is_of_table(arguments, ["output", "keep", "interval"], ["scale", "header"]):
        from fastnn.tabular import commands as tables

        return tables.predict(arguments)
    network = Network.load(arguments.model)
    rows, notes = read_file(arguments.file, network.input_shape, arguments.header)
    scale, why = choose_scale(arguments, network, rows)
    how = "taken as they are" if scale == 1 else f"multiplied by {fraction(scale)}"
    report_lines = [
        f"{plural(len(rows), 'row')} of {plural(network.n_in, 'number')} ({rows.dtype}), {how}, {why}",
        *notes,
        "" if arguments.scale is not None else hint(rows, scale, network.input_scale is not None),
    ]
    table = answers(network, scaled(rows, scale, network))
    names = next(table)
    print("\n".join(f"{arguments.file}: {line}" for line in report_lines if line), file=sys.stderr)
    print("row", *names, sep="\t")
    for i, cells in enumerate(table):
        print(i, *cells, sep="\t")
    return 0


def answers(network: Network, X: NDArray[Any]) -> Iterator[list[Any]]:
    """Yield the names of the columns for a network, then the values of each row."""
    predicted = network.predict(X)
    if network.loss == "cross_entropy":
        yield ["class", "probability"]
        for k, row in zip(predicted, network.predict_proba(X), strict=True):
            yield [k, f"{row[k]:.4f}"]
        return
    names = [""] if network.n_out == 1 else [f" {k}" for k in range(network.n_out)]
    if not network.classifies:
        yield [f"quantile {level:g}" for level in network.quantiles] or [f"value{name}" for name in names]
        yield from (list(map(str, row)) for row in predicted)  # the shortest text that gives the same number
        return
    yield [f"{kind}{name}" for name in names for kind in ("label", "probability")]
    for labels, row in zip(predicted, network.predict_proba(X), strict=True):
        yield [cell for label, p in zip(labels, row, strict=True) for cell in (label, f"{p:.4f}")]


def benchmark_command(arguments: argparse.Namespace) -> int:
    """Time fastnn and its peers on this machine."""
    from fastnn import benchmark

    benchmark.run(arguments.dtype, arguments.seconds, benchmark.cells_of(arguments.set), arguments.rows)
    return 0


def join(arguments: Sequence[str]) -> Ranks:
    """Return the ranks of the MPI job, if the arguments ask for them by an option that may be abbreviated."""
    if not any(len(each) > len("--d") and DISTRIBUTED.startswith(each) for each in arguments):
        return ALONE
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI library
        raise ImportError(f'{DISTRIBUTED} needs mpi4py and MPI: pip install "fastnn[mpi]"') from error
    ranks = ranks_of(MPI.COMM_WORLD)
    if ranks.rank > 0:
        sys.stdout = Stream(open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    return ranks


@contextlib.contextmanager
def holding_interrupts() -> Iterator[list[int]]:
    """Within, Ctrl-C is only noted: a rank that leaves while others join these would leave them waiting."""
    noted: list[int] = []
    before, main = signal.getsignal(signal.SIGINT), threading.current_thread() is threading.main_thread()
    if not main or before is not signal.default_int_handler:
        yield noted
        return
    signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def run(arguments: Sequence[str], streams: tuple[Stream, Stream]) -> int:
    """Run the command line and return its exit status, the same on all ranks."""
    output, _ = streams
    ranks, name = ALONE, "fastnn"
    try:
        with contextlib.ExitStack() as stack:
            with holding_interrupts() as noted:
                ranks = join(arguments)
            stack.enter_context(ranks.keeping_interrupts())
            stack.enter_context(ranks.together())
            for number in noted:
                signal.raise_signal(number)
            parsed = build_parser(arguments).parse_args(arguments, argparse.Namespace(ranks=ranks))
            name = f"fastnn {parsed.command}"
            status: int = parsed.run(parsed)
    except KeyboardInterrupt:
        if ranks.rank == 0:
            print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError, OSError, ImportError, ArithmeticError, MemoryError) as error:
        text = str(error)
        if isinstance(error, OSError) and isinstance(error.filename, str):
            text = f"{error.filename}: {error.strerror}"
        message = " ".join(text.split()) or type(error).__name__
        if ranks.rank == 0:
            print(f"{name}: error: {message}", file=sys.stderr)
        return 2
    output.flush()
    if output.error is not None and not isinstance(output.error, BrokenPipeError):  # its reader has seen enough
        kind, lost = ("warning", 0) if parsed.command == "train" else ("error", 2)  # training has a model to show
        reason = getattr(output.error, "strerror", None) or output.error
        print(f"{name}: {kind}: the output cannot be written: {reason}", file=sys.stderr)
        return status or lost
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; closed or full output ends no training."""
    with lasting_streams() as streams:
        return run(sys.argv[1:] if arguments is None else arguments, streams)
