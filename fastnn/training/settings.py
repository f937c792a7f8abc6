"""Settings of a trainer: each is checked when it is set, and cannot be set while a fit is under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn._validation import (
    check_augment,
    check_choice,
    check_comm,
    check_integer,
    check_number,
    check_shares,
    check_threads,
)
from fastnn.augment import Flip, Shift
from fastnn.callbacks import Callback
from fastnn.engine.ranks import end_all_if_uncaught, ranks_of
from fastnn.engine.threads import available_threads
from fastnn.kernels.rows import draw_order
from fastnn.network import Network
from fastnn.optimizers import LBFGS, Optimizer
from fastnn.training.in_use import in_use


@dataclass(frozen=True)
class Penalty:
    """The penalty on squared weights.

    Parameters
    ----------
    constant : float or None
        Its weight, if it is the same in all batches; None if a subclass makes it depend on the batch.
    """

    constant: float | None

    def l2(self, batch_weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return its weight in each batch, given the sum of the row weights of each batch."""
        return np.full(len(batch_weights), self.constant)


class RandomOrder:
    """Draws orders of the rows, independent of each other; each fit makes one such object."""

    def draw(self, generator: np.random.Generator, n: int) -> NDArray[np.intp]:
        """Draw an order (n,) of rows."""
        order = np.empty(n, np.intp)
        draw_order(generator.bit_generator, order)
        return order


@dataclass(frozen=True)
class Variant:
    """What a trainer does differently for the estimators of `fastnn.sklearn`.

    Parameters
    ----------
    penalty : Penalty or None
        On squared weights; None takes a constant penalty of weight l2.
    order : type
        Its objects draw the orders of rows.
    fixed : (n_parameters,) array of bool or None
        Parameters that L-BFGS does not change.
    observed : bool
        Whether callbacks may be the user's, who may read the network and save a checkpoint within an epoch.
    """

    penalty: Penalty | None = None
    order: type[RandomOrder] = RandomOrder
    fixed: NDArray[np.bool_] | None = None
    observed: bool = True


class Settings:
    """Settings that a fit reads from a trainer; see `fastnn.Trainer` for their meaning."""

    network: Network
    optimizer: Optimizer | LBFGS
    batch_size: int | None
    l2: float
    shuffle: bool
    n_threads: Any
    sparse: bool | str
    callbacks: Any
    l1: float
    dropout: Any
    label_smoothing: float
    clip_norm: float | None
    max_norm: float | None
    augment: Any = ()  # older pickles do not have it, nor those that follow
    comm: Any = None
    rows: str = "shared"
    sync_every: int | None = None

    _variant = Variant()
    _counts_threads = False  # whether n_threads is the processors' number

    def __setattr__(self, name: str, value: Any) -> None:
        check = CHECKS.get(name)
        if check is not None:
            if self in in_use:
                raise RuntimeError(
                    f"{name} of a Trainer cannot be changed during a fit, which is settled when it starts; callbacks "
                    "may set fit.learning_rate and fit.stop"
                )
            value = check(self, value)
        super().__setattr__(name, value)


def threads_of(settings: Settings) -> int:
    """Return the threads of a fit: the processors of the machine are divided among its ranks."""
    n_threads = int(settings.n_threads)
    return max(1, n_threads // ranks_of(settings.comm).n_here) if settings._counts_threads else n_threads


def sums_over_ranks(settings: Settings) -> bool:
    """Return whether each rank has rows of its own, and gradients are summed over the ranks."""
    return settings.rows == "own" and settings.sync_every is None


def trains_apart(settings: Settings) -> bool:
    """Return whether each rank trains on rows that others do not."""
    return settings.rows == "own" or settings.sync_every is not None


def settings_of(settings: Settings) -> dict[str, Any]:
    """Return the settings that the bits of a fit depend on."""
    return {
        "network": repr(settings.network),
        "optimizer": repr(settings.optimizer),
        "batch_size": settings.batch_size,
        "l2": settings.l2,
        "shuffle": settings.shuffle,
        "l1": settings.l1,
        "dropout": settings.dropout.tolist(),
        "label_smoothing": settings.label_smoothing,
        "clip_norm": settings.clip_norm,
        "max_norm": settings.max_norm,
        "augment": repr(settings.augment),
    }


def penalty_of(settings: Settings) -> Penalty:
    """Return the penalty on squared weights."""
    return settings._variant.penalty or Penalty(settings.l2)


def check_together(settings: Settings) -> None:
    """Raise an error if settings do not go together."""
    _check_callbacks(settings, settings.callbacks)  # the list may have been changed
    if settings.rows == "own" and settings.comm is None:
        raise ValueError("rows='own' is for the ranks of an MPI job: give comm too")
    if settings.sync_every is not None and settings.comm is None:
        raise ValueError("sync_every is for the ranks of an MPI job: give comm too")
    if settings.rows == "own" and settings.network.batch_norm and settings.sync_every is None:
        raise ValueError("rows='own' is not for a network with batch normalisation, which couples the rows of a batch")
    if settings.augment and settings.sparse is True:
        raise ValueError("sparse must be 'auto' or False with augment, which moves images, not True")
    if not isinstance(settings.optimizer, LBFGS):
        return
    if settings.sync_every is not None:
        raise ValueError("LBFGS takes no sync_every: each of its steps is on all rows")
    if settings.dropout.any() or settings.l1 or settings.clip_norm or settings.max_norm or settings.augment:
        raise ValueError("LBFGS takes no dropout, l1, clip_norm, max_norm or augment")
    if settings.network.batch_norm:
        raise ValueError("LBFGS does not train a network with batch_norm=True, which is made for steps on batches")


def _check_network(settings: Settings, value: Any) -> Network:
    if not isinstance(value, Network):
        raise TypeError(f"network must be a fastnn.Network, not {type(value).__name__}")
    present = vars(settings).get("network", value)
    if value is not present and repr(value) != repr(present):
        raise ValueError(f"network must be like the trainer's present one, {present!r}, not {value!r}")
    return value


def _check_optimizer(settings: Settings, value: Any) -> Optimizer | LBFGS:
    if not isinstance(value, (Optimizer, LBFGS)):
        raise TypeError(f"optimizer must be an optimizer such as fastnn.SGD(), not {value!r}")
    return value


def _check_callbacks(settings: Settings, value: Any) -> list[Callback]:
    callbacks = list(value)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks must be fastnn.callbacks.Callback objects, not {callback!r}")
    return callbacks


def _check_threads(settings: Settings, value: Any) -> int:
    settings._counts_threads = value is None
    return check_threads(value) or available_threads()


def _check_sparse(settings: Settings, value: Any) -> bool | str:
    choices: list[bool | str] = [False, True, "auto"]
    sparse = check_choice(value, "sparse", choices)
    if sparse is True and not settings.network.takes_sparse:
        raise ValueError("sparse must be 'auto' or False for a network with convolution or pooling, not True")
    return sparse


def _check_dropout(settings: Settings, value: Any) -> NDArray[np.float64]:
    # A layer's own share goes before the trainer's.
    own = [layer.dropout for layer in settings.network.layers if layer.has_weights][:-1]
    shares = check_shares(value, len(own), "dropout")
    shares = np.array([share if told is None else told for share, told in zip(shares, own, strict=True)], float)
    shares.flags.writeable = False
    return shares


def _check_smoothing(settings: Settings, value: Any) -> float:
    smoothing = check_number(value, "label_smoothing", 0, 1)
    if smoothing > 0 and settings.network.loss != "cross_entropy":
        raise ValueError(f"label_smoothing is for cross-entropy; the network's loss is {settings.network.loss!r}")
    return smoothing


def _check_ranks(settings: Settings, value: Any) -> Any:
    comm = check_comm(value)
    if comm is not None and comm.size > 1:
        end_all_if_uncaught()  # from now on, as exceptions may come before the first fit
    return comm


def _check_length(value: Any, name: str) -> float | None:
    return None if value is None else check_number(value, name, 0, open_left=True)


#: Check of each setting, which may use the settings before it.
CHECKS: dict[str, Callable[[Settings, Any], Any]] = {
    "network": _check_network,
    "optimizer": _check_optimizer,
    "batch_size": lambda _, value: None if value is None else check_integer(value, "batch_size", 1),
    "l2": lambda _, value: check_number(value, "l2", 0),
    "shuffle": lambda _, value: check_choice(value, "shuffle", [False, True]),
    "n_threads": _check_threads,
    "sparse": _check_sparse,
    "callbacks": _check_callbacks,
    "l1": lambda _, value: check_number(value, "l1", 0),
    "dropout": _check_dropout,
    "label_smoothing": _check_smoothing,
    "clip_norm": lambda _, value: _check_length(value, "clip_norm"),
    "max_norm": lambda _, value: _check_length(value, "max_norm"),
    "augment": lambda settings, value: check_augment(value, (Shift, Flip), settings.network.input_shape),
    "comm": _check_ranks,
    "rows": lambda _, value: check_choice(value, "rows", ["shared", "own"]),
    "sync_every": lambda _, value: None if value is None else check_integer(value, "sync_every", 1),
}
