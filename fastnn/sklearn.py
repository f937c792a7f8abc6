"""Estimators with scikit-learn's interface (extra ``sklearn``).

A front door: it translates parameters, labels and weights to a `Network` and a `Trainer`, which do the work, and the
result to scikit-learn's terms.  `SoftmaxClassifier`, `MLPClassifier` and `MLPRegressor` do the work of scikit-learn's:
parameters, defaults and attributes have the same names and meanings.  With the same ``random_state`` the initial
parameters, the rows that early stopping sets aside and the order of the rows are the same too, so a fit follows
scikit-learn's to rounding.  `NetworkClassifier` and `NetworkRegressor` make estimators of all other networks.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import numbers
import pickle
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._estimators import all_or_nothing, keep, plain, seeded, under_way
from fastnn._validation import (
    FLOATING,
    check_choice,
    check_comm,
    check_input_shape,
    check_integer,
    check_number,
    check_shape,
    check_threads,
    check_weights,
)
from fastnn.callbacks import Callback, Fit
from fastnn.engine.ranks import Ranks, ranks_of
from fastnn.history import History
from fastnn.layers import Dense
from fastnn.network import Network
from fastnn.optimizers import LBFGS, OPTIMIZERS, SGD, Adam, Optimizer
from fastnn.training import DivergenceError, Trainer
from fastnn.training.settings import Penalty, RandomOrder, Variant
from fastnn.training.trainer import make_trainer

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning, NotFittedError
    from sklearn.metrics import r2_score
    from sklearn.model_selection import train_test_split
    from sklearn.utils import column_or_1d
    from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
    from sklearn.utils.validation import _check_sample_weight
except ImportError as error:
    raise ImportError('fastnn.sklearn needs scikit-learn: pip install "fastnn[sklearn]"') from error

try:
    from sklearn.utils.validation import validate_data
except ImportError:  # before scikit-learn 1.6

    def validate_data(estimator: Any, *args: Any, ensure_all_finite: bool, **options: Any) -> Any:
        return estimator._validate_data(*args, force_all_finite=ensure_all_finite, **options)


__all__ = ["MLPClassifier", "MLPRegressor", "NetworkClassifier", "NetworkRegressor", "SoftmaxClassifier"]

# scikit-learn's names that differ from ours.
ACTIVATIONS = {"logistic": "sigmoid"}
LOSSES = {"squared_error": "squared", "absolute_error": "absolute", "huber": "huber"}
OUT_ACTIVATIONS = {"cross_entropy": "softmax", "binary_cross_entropy": "logistic"}

# learning_rate="adaptive" divides by the first, and gives up at the second.
ADAPTIVE_DIVISOR = 5.0
ADAPTIVE_SMALLEST = 1e-6

# Parameters of some estimators that are settings of the trainer.
SETTINGS = ("l1", "dropout", "label_smoothing", "clip_norm", "max_norm", "augment")

NO_NUMBERS = np.random.default_rng(0)

# Rows, the network's targets, and weights or None.
Data = tuple[Any, ...]


def _check_or_allow(allowed: object, check: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda value, name: value if value == allowed else check(value, name)


_switch = partial(check_choice, choices=[False, True])
_share = partial(check_number, minimum=0, below=1)
_not_negative = partial(check_number, minimum=0)
_positive = partial(check_number, minimum=0, open_left=True)
_count = partial(check_integer, minimum=1)


def _callbacks(value: Any, name: str) -> None:
    if not np.iterable(value) or not all(isinstance(callback, Callback) for callback in value):
        raise TypeError(f"{name} must be a sequence of fastnn.callbacks.Callback objects, not {value!r}")


# Check of each parameter; those that are not here are checked by the objects that receive them.
CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "C": _check_or_allow(math.inf, _positive),
    "alpha": _not_negative,
    "batch_norm": _switch,
    "batch_size": _check_or_allow("auto", _count),
    "beta_1": _share,
    "beta_2": _share,
    "callbacks": _callbacks,
    "early_stopping": _switch,
    "epsilon": _positive,
    "fit_intercept": _switch,
    "learning_rate": partial(check_choice, choices=["constant", "invscaling", "adaptive"]),
    "learning_rate_init": _positive,
    "loss": partial(check_choice, choices=LOSSES),
    "max_fun": _count,
    "max_iter": _count,
    "momentum": _share,
    "n_iter_no_change": _check_or_allow(math.inf, _count),
    "nesterovs_momentum": _switch,
    "power_t": _not_negative,
    "shuffle": _switch,
    "solver": partial(check_choice, choices=["lbfgs", "sgd", "adam"]),
    "tol": _not_negative,
    "validation_fraction": _share,
    "warm_start": _switch,
}


def _copy(value: Any, ndim: int, dtype: Any, name: str) -> NDArray[Any]:
    """Copy of a user's array of finite numbers; without a dtype, float32 stays and all else becomes float64."""
    array = np.array(value)
    if array.ndim != ndim or 0 in array.shape:
        raise ValueError(f"{name} must have {ndim} dimensions, none of them 0; its shape is {array.shape}")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, not dtype {array.dtype}")
    dtype = np.dtype(dtype or (np.float32 if array.dtype == np.float32 else np.float64))
    with np.errstate(over="ignore"):
        array = array.astype(dtype, copy=False)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite numbers of {dtype}")
    return array


def _are_plain_targets(y: Any, n_rows: int) -> bool:
    # Whether scikit-learn's check would return y as it is; see _Estimator._is_plain.
    if type(y) is not np.ndarray or y.shape != (n_rows,):
        return False
    return y.dtype.kind in "biu" or (y.dtype in FLOATING and bool(np.isfinite(y).all()))


def _shapes(arrays: Any) -> str:
    return ", ".join(str(array.shape) for array in (arrays if isinstance(arrays, list) else [arrays]))


class _OfNetwork:
    """An attribute of the network that, without a network, waits until the others are set."""

    def __init__(self, doc: str, read: Callable[[Network], Any]) -> None:
        self.__doc__, self.read = doc, read

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, estimator: Any, owner: type) -> Any:
        if estimator is None:
            return self
        if hasattr(estimator, "network_"):
            return self.read(estimator.network_)
        if self.name not in vars(estimator):
            raise AttributeError(f"{owner.__name__!r} object has no attribute {self.name!r}")
        return vars(estimator)[self.name]

    def __set__(self, estimator: Any, value: Any) -> None:
        if "network_" in vars(estimator):
            self.check(value, estimator.network_)
        else:
            vars(estimator)[self.name] = value

    def check(self, value: Any, network: Network) -> None:
        """Raise an error if the value is not valid."""
        if value != self.read(network):
            raise ValueError(f"{self.name} is {self.read(network)!r} with these parameters, not {value!r}")


class _Arrays(_OfNetwork):
    """Parameters of the network: an array of ndim dimensions, or a list of them, one a layer."""

    def __init__(self, doc: str, read: Callable[[Network], Any], ndim: int, listed: bool) -> None:
        super().__init__(doc, read)
        self._ndim, self._listed = ndim, listed

    def __set__(self, estimator: Any, value: Any) -> None:
        network: Network | None = vars(estimator).get("network_")
        if network is None:
            vars(estimator)[self.name] = self.copy(value)
            return
        value = self.copy(value, network.dtype)
        if id(estimator) not in under_way:  # arrays that were read before do not change
            network = copy.copy(network)
        there = self.read(network)
        if _shapes(there) != _shapes(value):
            raise ValueError(f"{self.name} must keep its shape {_shapes(there)}, not {_shapes(value)}")
        for target, array in zip(there, value, strict=True) if self._listed else [(there, value)]:
            target[...] = array
        estimator.network_ = network

    def copy(self, value: Any, dtype: Any = None) -> Any:
        """Copy of a user's value, as arrays."""
        if self._listed:
            return [_copy(array, self._ndim, dtype, f"{self.name}[{i}]") for i, array in enumerate(value)]
        return _copy(np.array(value, ndmin=self._ndim), self._ndim, dtype, self.name)  # one row may come as a vector


class _ChainedOrder(RandomOrder):
    """Orders of rows as scikit-learn draws them, from the same numbers: each shuffles the last."""

    _last: NDArray[np.intp] | None = None

    def draw(self, generator: np.random.Generator, n: int) -> NDArray[np.intp]:
        """Draw an order (n,) of rows."""
        drawn = super().draw(generator, n)
        self._last = drawn if self._last is None else self._last[drawn]
        return self._last


class _PerceptronPenalty(Penalty):
    """The penalty of scikit-learn's perceptrons: alpha over the sum of the batch's weights."""

    def __init__(self, alpha: float) -> None:
        super().__init__(None)
        self.alpha = alpha

    def l2(self, batch_weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return its weight in each batch."""
        # A batch whose weights are all 0 does not move, not even by the penalty.
        if batch_weights.all():
            return self.alpha / batch_weights
        return np.divide(self.alpha, batch_weights, out=np.zeros_like(batch_weights), where=batch_weights > 0)


# Names in older pickles of the estimators.
_ScikitTrainer = _PerceptronTrainer = _SoftmaxTrainer = Trainer


def _data(X: Any, targets: NDArray[Any], weights: NDArray[np.float64] | None) -> Data:
    return (X, targets) if weights is None else (X, targets, weights)


class _Record(Callback):
    """Records each epoch in scikit-learn's attributes, and ends the fit when scikit-learn would."""

    learning_rate: float | None = None

    def __init__(self, estimator: Any, held_out: Data | None) -> None:
        self.estimator = estimator
        self.held_out = held_out

    def on_epoch(self, fit: Fit) -> None:
        """Record the epoch."""
        estimator = self.estimator
        # Slow parts first, so that Ctrl-C finds the whole record of an epoch or nothing of it.
        score = None if self.held_out is None else estimator._score(*self.held_out)
        estimator.n_iter_ = len(fit.history)
        estimator.loss_ = estimator._loss_of(fit.history)
        estimator.loss_curve_.append(estimator.loss_)
        if estimator.verbose:
            print(f"Iteration {len(fit.history)}, loss = {estimator.loss_:.8f}")
        stalled = score is not None and self._falls_short(score)
        if not estimator._stops_early:
            # NaN is no improvement, here and below.
            stalled = not estimator.loss_ <= estimator.best_loss_ - estimator.tol
            if estimator.loss_ < estimator.best_loss_:
                estimator.best_loss_ = estimator.loss_
        if estimator._stochastic:
            estimator.t_ += fit.n_rows
            if self._has_rate("invscaling"):
                fit.learning_rate = estimator.learning_rate_init / (estimator.t_ + 1) ** estimator.power_t
            estimator._no_improvement_count = estimator._no_improvement_count + 1 if stalled else 0
            if estimator._no_improvement_count > estimator.n_iter_no_change:
                self._stop_or_slow_down(fit)

    def on_end(self, fit: Fit) -> None:
        """Record whether the fit was ended, here or by another callback, and its last learning rate."""
        self.estimator._stopped = fit.stop
        self.learning_rate = fit.set_rate

    def _has_rate(self, learning_rate: str) -> bool:
        rule = getattr(self.estimator, "learning_rate", "constant")
        return bool(rule == learning_rate and self.estimator.solver == "sgd")

    def _falls_short(self, score: float) -> bool:
        # Whether the score is less than tol above the best; the parameters of the best are kept.
        estimator = self.estimator
        estimator.validation_scores_.append(score)
        if estimator.verbose:
            print(f"Validation score: {score:f}")
        stalled = not score >= estimator.best_validation_score_ + estimator.tol
        if score > estimator.best_validation_score_:
            estimator.best_validation_score_ = score
            estimator._best_parameters = estimator.network_.parameters.copy()
        return bool(stalled)

    def _stop_or_slow_down(self, fit: Fit) -> None:
        estimator, adaptive = self.estimator, self._has_rate("adaptive")
        rate: Any = fit.learning_rate  # no schedule
        if adaptive and rate > ADAPTIVE_SMALLEST:
            fit.learning_rate = rate / ADAPTIVE_DIVISOR
            estimator._no_improvement_count = 0
            outcome = f"Setting learning rate to {fit.learning_rate:f}"
        else:
            fit.stop = True
            outcome = "Learning rate too small. Stopping." if adaptive else "Stopping."
        if estimator.verbose:
            measure = "Validation score" if estimator._stops_early else "Training loss"
            print(
                f"{measure} did not improve more than tol={estimator.tol:f} for {estimator.n_iter_no_change} "
                f"consecutive epochs. {outcome}"
            )


class _Estimator(BaseEstimator, ABC):  # type: ignore[misc]
    """Base of the estimators: from the user's data to a trained network and scikit-learn's attributes.

    Subclasses say how targets are read, which network they need, and how it is penalised and scored.
    """

    #: Whether y may have several columns.
    _multi_output = True

    #: What X may be of without a conversion; the first is what all else becomes.
    _dtypes: tuple[np.dtype[Any], ...] = (np.dtype(np.float64), np.dtype(np.float32))

    #: Attributes of weights and biases, if there are any, and others of the network's.
    _arrays: tuple[str, ...] = ()
    _numbers: tuple[str, ...] = ()

    comm: Any = None  # older pickles do not have it

    def __setattr__(self, name: str, value: Any) -> None:
        if id(self) in under_way and name in PARAMETERS:
            raise RuntimeError(f"{name} cannot be set while a fit is under way: set it before or after")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return state | {"comm": None}  # a copy in another process is in no job

    def __sklearn_clone__(self) -> Any:
        clone = super(_Estimator, copy.copy(self)).__sklearn_clone__()  # which would copy the comm
        clone.comm = self.comm
        return clone

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    @property
    def network_(self) -> Network:
        """The model itself."""
        found: Network | None = vars(self).get("network_")
        if found is not None:
            return found
        attributes = dict(vars(self))
        if "network_" not in attributes:
            try:
                made = self._assemble(attributes)
            except (TypeError, ValueError) as error:
                raise NotFittedError(str(error)) from error
            self.__dict__.setdefault("network_", made)  # another thread may have been faster
            self._forget_arrays()
        network: Network = vars(self)["network_"]
        return network

    @network_.setter
    def network_(self, network: Network) -> None:
        if not isinstance(network, Network):
            raise TypeError(f"network_ must be a fastnn.Network, not {type(network).__name__}")
        self.__dict__["network_"] = network
        self._forget_arrays()

    def _forget_arrays(self) -> None:
        for name in self._arrays + self._numbers:
            self.__dict__.pop(name, None)

    @property
    @abstractmethod
    def _stochastic(self) -> bool:
        """Whether training goes by steps, not by L-BFGS."""

    @property
    def _stops_early(self) -> bool:
        return bool(self.early_stopping and self._stochastic)

    @abstractmethod
    def _read_targets(self, y: NDArray[Any], reset: bool) -> NDArray[Any]:
        """Targets in the network's form."""

    def _weigh(self, y: NDArray[Any], targets: NDArray[Any], weights: Any) -> Any:
        """Weights of the rows, or None if all are 1."""
        return weights

    @abstractmethod
    def _outputs(self, targets: NDArray[Any]) -> tuple[int, str]:
        """Width of the output layer, and the loss."""

    @abstractmethod
    def _start(self, n_in: int, targets: NDArray[Any], dtype: Any, random_state: np.random.RandomState) -> Network:
        """Network with its initial parameters."""

    @abstractmethod
    def _penalise(self, total_weight: float) -> tuple[float, Variant]:
        """The trainer's l2, given the sum of the row weights, and its variant."""

    @abstractmethod
    def _score(self, X: Any, targets: NDArray[Any], weights: Any = None) -> float:
        """Score of checked data."""

    def _loss_of(self, history: History) -> float:
        """Loss of the last epoch, as in `loss_curve_`."""
        return -history.objective[-1]

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Any:
        """Fit the model to rows and their classes or values.

        Parameters
        ----------
        X : (n, n_features) array, scipy.sparse matrix or DataFrame
            Rows.  Neither C-contiguous arrays nor CSR matrices of float32 or float64 are copied.
        y : (n,) array, or (n, n_outputs) array if the model has several outputs
            Classes, or zeros and ones if a row may have several labels; values, for a regressor.
        sample_weight : (n,) array, float or None, default None
            Weight of each row.
        X_val, y_val : as X and y, or None, default None
            Rows to score after each epoch, in `validation_scores_`; ``early_stopping=True`` uses them instead of rows
            that it would set aside.
        sample_weight_val : (n_val,) array or None, default None
            Weights in that score.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If the input is not as described, or training left the finite numbers.
        RuntimeError
            If a fit of this estimator is under way: in another thread, or in one whose callback called this.

        Notes
        -----
        If a fit or one of its callbacks raises an exception, the estimator is as it was: not fitted, or with the model
        that it had.  Ctrl-C during training ends the fit with a warning and keeps what has been learnt.

        Each fit makes a network and arrays of its own, so results of an earlier fit that were read before do not
        change.  During a fit, attributes show what has been learnt so far, and parameters cannot be set.

        With a comm, all ranks call `fit`, with the same parameters and data, and end with the same model, whose bits
        are those of a fit without it; random numbers are those of rank 0.  Callbacks, texts and warnings belong to
        rank 0.  An error of one rank is raised on all.  Clones keep the comm; pickles and copies are without.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))

    def _fit(
        self,
        X: Any,
        y: Any,
        weights: Any,
        held_out: tuple[Any, Any, Any] = (None, None, None),
        incremental: bool = False,
        classes: Any = None,
    ) -> Any:
        ranks = ranks_of(check_comm(self.comm))
        with (
            ranks.keeping_interrupts(),
            all_or_nothing(self),
            ranks.together(),
            seeded(self.random_state, ranks) as random_state,
        ):
            self._check_parameters()
            if incremental:
                self._begin_partial(classes)
            fresh = not ((self.warm_start or incremental) and self._has_start())
            X, y, weights = self._check_data(X, y, weights, reset=fresh or not hasattr(self, "n_features_in_"))
            targets = self._read_targets(y, reset=fresh and not incremental)
            self._compare_classes(ranks)
            data = _data(X, targets, check_weights(self._weigh(y, targets, weights), X.shape[0]))
            self.network_ = self._start(X.shape[1], targets, X.dtype, random_state) if fresh else self._go_on(targets)
            data, kept = self._split(data, held_out, random_state)
            self._begin_record(fresh, kept is not None)
            trainer = self._make_trainer(incremental, random_state, data)
            history = self._train(trainer, data, kept, epochs=1 if incremental else self.max_iter)
            self._finish(trainer)
            if not (history.interrupted or incremental) and ranks.rank == 0:
                self._warn_unless_converged(history)
            ranks.all_tell("the warning", None)  # it may be an error
        if history.interrupted:  # outside, so that the model is kept even if warnings are errors
            warnings.warn("Training interrupted by user.", stacklevel=3)
        return self

    def _compare_classes(self, ranks: Ranks) -> None:
        """Raise ValueError on all ranks if they do not have the same classes."""

    def _finish(self, trainer: Trainer) -> None:
        """Set the attributes that the fit leaves."""
        if self._stops_early and self._best_parameters is not None:
            self.network_.parameters = self._best_parameters
        self._trainer: Trainer | None = trainer if self._stochastic else None
        trainer._state.generator = NO_NUMBERS  # the next fit has random numbers of its own

    def _begin_partial(self, classes: Any) -> None:
        """Check what partial_fit requires beyond fit."""
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")

    def _has_start(self) -> bool:
        # Whether there are parameters from which a fit could continue.
        return "network_" in vars(self) or any(name in vars(self) for name in self._arrays)

    def _go_on(self, targets: NDArray[Any]) -> Network:
        """Network to continue with: a copy."""
        return copy.copy(self.network_) if "network_" in vars(self) else self._assemble(dict(vars(self)))

    def _assemble(self, attributes: dict[str, Any]) -> Network:
        """Network of attributes that were set one by one."""
        raise NotFittedError(
            f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before "
            "using this estimator."
        )

    @abstractmethod
    def _loss_set(self, attributes: dict[str, Any], n_out: int) -> str:
        """Loss of a network whose attributes were set."""

    def _check_parameters(self) -> None:
        for name, value in vars(self).items():
            if name in CHECKS:
                CHECKS[name](plain(value), name)

    def _is_plain(self, X: Any, n_in: int | None = None) -> bool:
        # Whether scikit-learn's check, which takes longer than a small fit or a prediction, would return X as it is.  X
        # must have n_in columns, unless that is None.  A model that was fitted with names of columns wants them.
        return (
            type(X) is np.ndarray
            and X.dtype in self._dtypes
            and X.ndim == 2
            and X.size > 0
            and X.flags.c_contiguous
            and (n_in is None or (X.shape[1] == n_in and getattr(self, "feature_names_in_", None) is None))
        )

    def _check_data(self, X: Any, y: Any, weights: Any, reset: bool) -> tuple[Any, NDArray[Any], Any]:
        # X is copied only if it is neither C-contiguous nor CSR, or of another dtype.
        if self._is_plain(X, None if reset else getattr(self, "n_features_in_", -1)) and _are_plain_targets(y, len(X)):
            if reset:
                self.n_features_in_ = X.shape[1]
                self.__dict__.pop("feature_names_in_", None)
            return X, y, None if weights is None else _check_sample_weight(weights, X, dtype=np.float64)
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=self._dtypes,
            order="C",
            multi_output=self._multi_output,
            y_numeric=isinstance(self, RegressorMixin),
            ensure_all_finite=False,  # the network checks that
            reset=reset,
        )
        if hasattr(y, "toarray"):
            y = y.toarray()
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if weights is not None:
            weights = _check_sample_weight(weights, X, dtype=np.float64)
        return X, y, weights

    def _split(
        self, data: Data, held_out: tuple[Any, Any, Any], random_state: np.random.RandomState
    ) -> tuple[Data, Data | None]:
        """Rows to train on and rows to score, if there are any."""
        kept, names = self._check_held_out(*held_out), ("X_val", "y_val")
        if kept is None and self._stops_early:
            (data, kept), names = self._hold_out(data, random_state), ("X", "y")
        if kept is not None:
            X, targets, weights = (*kept, None)[:3]
            self.network_.check_data(X, targets, weights, names)  # not after an epoch
        return data, kept

    def _check_held_out(self, X: Any, y: Any, weights: Any) -> Data | None:
        if X is None and y is None:
            return None
        if X is None or y is None:
            raise ValueError(f"X_val and y_val belong together, but {'X_val' if X is None else 'y_val'} is None")
        X, y, weights = self._check_data(X, y, weights, reset=False)
        weights = check_weights(weights, X.shape[0], "sample_weight_val")
        return _data(X, self._read_targets(y, reset=False), weights)

    def _hold_out(self, data: Data, random_state: np.random.RandomState) -> tuple[Data, Data]:
        # The same rows as scikit-learn's, which stratifies if there is one output.
        stratify = data[1] if isinstance(self, ClassifierMixin) and self.network_.n_out == 1 else None
        parts = train_test_split(
            *data, random_state=random_state, test_size=self.validation_fraction, stratify=stratify
        )
        if parts[1].shape[0] < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return tuple(parts[0::2]), tuple(parts[1::2])

    def _begin_record(self, fresh: bool, validated: bool) -> None:
        # As in scikit-learn, a warm start continues the old record: copies of its lists.
        began = {"t_": 0, "_no_improvement_count": 0, "loss_curve_": [], "best_loss_": None, "validation_scores_": None}
        began |= {"best_validation_score_": None, "_best_parameters": None}
        for name, value in began.items():
            setattr(self, name, value if fresh else copy.copy(getattr(self, name, value)))
        self.n_iter_: Any = 0
        if self._stops_early:
            self.best_loss_: float | None = None
        elif self.best_loss_ is None:
            self.best_loss_ = math.inf
        if validated and self.validation_scores_ is None:
            self.validation_scores_: list[float] | None = []
            self.best_validation_score_ = -math.inf

    def _make_trainer(self, incremental: bool, random_state: np.random.RandomState, data: Data) -> Trainer:
        # In partial_fit the optimizer keeps its first settings, as in scikit-learn; other parameters may have changed.
        kept: Trainer | None = getattr(self, "_trainer", None) if incremental else None
        self._trainer = None  # of the fit before; a copy made during this one does not need it
        X, _, weights = (*data, None)[:3]
        n_rows = X.shape[0]
        l2, variant = self._penalise(float(n_rows if weights is None else weights.sum()))
        return make_trainer(
            self.network_,
            self._make_optimizer() if kept is None else kept.optimizer,
            variant,
            kept,
            batch_size=self._rows_at_once(n_rows) if self._stochastic else None,
            l2=l2,
            shuffle=plain(self.shuffle),
            seed=np.random.Generator(random_state._bit_generator),
            n_threads=self.n_threads,
            comm=self.comm,
            **{name: getattr(self, name) for name in SETTINGS if hasattr(self, name)},
        )

    @abstractmethod
    def _make_optimizer(self) -> Optimizer | LBFGS:
        """Optimizer that the parameters ask for."""

    def _train(self, trainer: Trainer, data: Data, kept: Data | None, epochs: int) -> History:
        X, targets, weights = (*data, None)[:3]
        ranks, record = ranks_of(self.comm), _Record(self, kept)
        trainer.callbacks = [record, *self.callbacks]
        called_back = ranks.first_tells("callbacks", lambda: bool(self.callbacks))
        try:
            history = trainer.fit(
                X,
                targets,
                epochs,
                validation=kept if called_back else None,  # for them; the record scores by itself
                progress=False,
                sample_weight=weights,
            )
            if ranks.size > 1:
                self._share_record(ranks, record)
            return history
        except DivergenceError as error:
            raise ValueError(
                f"Solver produced non-finite parameter weights in epoch {error.epoch}, batch {error.batch}; the model "
                "is as it was before the fit. Try a smaller learning rate. The input data may contain large values "
                "and need to be preprocessed."
            ) from error
        finally:
            trainer.callbacks = []  # they need not outlive the fit
            if record.learning_rate is not None:  # partial_fit continues with it
                optimizer: Any = trainer.optimizer
                trainer.optimizer = dataclasses.replace(optimizer, learning_rate=record.learning_rate)

    def _share_record(self, ranks: Ranks, record: _Record) -> None:
        # After Ctrl-C too.
        own = {name: value for name, value in vars(self).items() if name in RECORD}, record.learning_rate
        told = ranks.meet("the record", message=pickle.dumps(own), heeds_interrupts=False)
        found, record.learning_rate = pickle.loads(told[0])
        self.__dict__.update(found)

    def _rows_at_once(self, n_rows: int) -> int:
        if self.batch_size == "auto":
            return min(200, n_rows)
        if self.batch_size > n_rows and ranks_of(self.comm).rank == 0:
            warnings.warn(
                f"batch_size={self.batch_size} is larger than the {n_rows} rows. It is going to be clipped",
                stacklevel=5,
            )
        return min(int(self.batch_size), n_rows)

    def _warn_unless_converged(self, history: History) -> None:
        if history.converged or self._stopped:
            return
        if self._stochastic:
            message = (
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                "converged yet."
            )
        else:
            message = (
                f"lbfgs failed to converge after {len(history)} iteration(s): increase the number of iterations "
                f"(max_iter={self.max_iter}) or scale the data."
            )
        warnings.warn(message, ConvergenceWarning, stacklevel=4)

    def _check_rows(self, X: Any) -> Any:
        n_in, dtype = self.network_.n_in, self._dtypes
        if getattr(self, "n_features_in_", n_in) == n_in and self._is_plain(X, n_in):
            return X
        X = validate_data(self, X, accept_sparse="csr", dtype=dtype, order="C", ensure_all_finite=False, reset=False)
        if X.shape[1] != n_in:  # if no fit has set n_features_in_
            raise ValueError(f"X has {X.shape[1]} features, but {type(self).__name__} is expecting {n_in} features")
        return X

    def _has_steps(self) -> bool:
        if not self._stochastic:
            raise AttributeError("partial_fit goes by steps, and L-BFGS has none: it takes all rows at once")
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class _OfCoefficients(_Estimator):
    """Base of the estimators that scikit-learn has too: its solvers, and coefficients that can be set as arrays."""

    _arrays = ("coefs_", "intercepts_")

    @property
    def _stochastic(self) -> bool:
        return bool(self.solver != "lbfgs")

    def _make_optimizer(self) -> Optimizer | LBFGS:
        if self.solver == "lbfgs":
            return LBFGS(tol=self.tol, max_fun=self.max_fun)
        if self.solver == "adam":
            return Adam(self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon, uncorrected_epsilon=True)
        return SGD(self.learning_rate_init, self.momentum, bool(self.nesterovs_momentum and self.momentum))

    def _assemble(self, attributes: dict[str, Any]) -> Network:
        """Network of attributes that were set one by one."""
        kind, (coefs, intercepts) = type(self), self._arrays
        needed = [coefs, intercepts, *(["classes_"] if isinstance(self, ClassifierMixin) else [])]
        given = [each for each in needed if each in attributes]
        missing = [each for each in needed if each not in attributes]
        if not given:
            return super()._assemble(attributes)
        if missing:
            raise NotFittedError(
                f"This {kind.__name__} instance is not fitted yet: it was given {' and '.join(given)}, but not "
                f"{' and '.join(missing)}"
            )
        weights, biases = self._layers(*(getattr(kind, each).copy(attributes[each]) for each in self._arrays))
        expected, found = _shapes([weight[0] for weight in weights]), _shapes(biases)
        if expected != found:
            raise ValueError(f"{intercepts} must have shape {expected}, to go with {coefs}, not {found}")
        sizes = [len(weights[0]), *map(len, biases)]
        network = self._network(sizes, self._loss_set(attributes, sizes[-1]), np.result_type(*weights, *biases))
        network.weights, network.biases = weights, biases
        for each in self._numbers:
            if each in attributes:
                getattr(kind, each).check(attributes[each], network)
        return network

    @abstractmethod
    def _layers(self, coefs: Any, intercepts: Any) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """Weights and biases of each layer, in the network's shapes."""

    @abstractmethod
    def _network(self, sizes: list[int], loss: str, dtype: Any) -> Network:
        """Network whose parameters are still to be drawn or set."""


class _Classifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """Labels, their weights, and predictions of them."""

    @property
    def _multi_label(self) -> bool:
        return bool(self.network_.loss == "binary_cross_entropy" and self.network_.n_out > 1)

    def _read_targets(self, y: NDArray[Any], reset: bool) -> NDArray[Any]:
        # Integers and text in one column are valid; a closer check would take a tenth of a small fit.
        if y.ndim == 2 or y.dtype.kind not in "biuUS":
            check_classification_targets(y)
        if y.ndim == 1 and not reset and hasattr(self, "classes_"):
            return self._codes(y)
        classes: NDArray[Any]
        codes: NDArray[Any]
        if y.ndim == 2:
            if type_of_target(y) != "multilabel-indicator":
                raise ValueError("y must hold one class a row or, for several labels a row, zeros and ones")
            classes, codes = np.arange(y.shape[1]), y
            reset = reset or "network_" not in vars(self)
        else:
            classes, codes = np.unique(y, return_inverse=True)
        if reset or not hasattr(self, "classes_"):
            self.classes_ = classes
            return codes
        if not np.isin(classes, self.classes_).all():
            raise self._unknown(classes)
        return codes

    def _compare_classes(self, ranks: Ranks) -> None:
        first, *others = ranks.all_tell("classes", self.classes_)
        for rank, other in enumerate(others, 1):
            if np.asarray(other).tolist() != np.asarray(first).tolist():
                raise ValueError(f"y must have the same classes on all ranks: on 0 {first}, on {rank} {other}")

    def _codes(self, y: NDArray[Any]) -> NDArray[np.intp]:
        # The place of each label among the known classes.
        self.classes_ = np.asarray(self.classes_)  # a user may have set a list, in any order
        order = np.argsort(self.classes_)
        codes: NDArray[np.intp] = order.take(np.searchsorted(self.classes_, y, sorter=order), mode="clip")
        if not np.array_equal(self.classes_[codes], y):
            raise self._unknown(np.unique(y))
        return codes

    def _unknown(self, classes: NDArray[Any]) -> ValueError:
        return ValueError(f"`y` has classes not in `self.classes_`: it has {classes}, expected {self.classes_}")

    def _outputs(self, targets: NDArray[Any]) -> tuple[int, str]:
        if targets.ndim == 2:
            return targets.shape[1], "binary_cross_entropy"
        return (len(self.classes_), "cross_entropy") if len(self.classes_) > 2 else (1, "binary_cross_entropy")

    def _weigh(self, y: NDArray[Any], targets: NDArray[Any], weights: Any) -> Any:
        if self.class_weight is None:
            return weights
        if y.ndim == 2:
            row_weights = compute_sample_weight(self.class_weight, y)
        elif isinstance(self.class_weight, str) and self.class_weight == "balanced":
            # As in LogisticRegression since version 1.7: by the weight of each class, not its number of rows.
            totals = np.bincount(targets, weights, minlength=len(self.classes_))
            row_weights = (totals.sum() / np.count_nonzero(totals) / np.maximum(totals, np.finfo(float).tiny))[targets]
        else:
            row_weights = compute_class_weight(self.class_weight, classes=self.classes_, y=y)[targets]
        return row_weights if weights is None else weights * row_weights

    def _score(self, X: Any, targets: NDArray[Any], weights: Any = None) -> float:
        right = self.network_.predict(X, self.n_threads).reshape(targets.shape) == targets
        return float(np.average(right.all(axis=1) if right.ndim == 2 else right, weights=weights))

    @available_if(lambda self: self._has_steps())  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> Any:
        """Train for one more epoch on the rows, by any optimizer but L-BFGS.

        Parameters
        ----------
        X, y, sample_weight
            As `fit` takes them.
        classes : (n_classes,) array or None, default None
            All classes of all calls; needed in the first call, not later.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def _begin_partial(self, classes: Any) -> None:
        super()._begin_partial(classes)
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight={self.class_weight!r} needs all rows at once; for partial_fit give a dict of weights"
            )
        if not hasattr(self, "classes_"):
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self.classes_ = unique_labels(classes)
        elif classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
            raise ValueError(f"classes={classes!r} differ from those of an earlier fit, {self.classes_!r}")

    def _go_on(self, targets: NDArray[Any]) -> Network:
        if targets.ndim == 2 and "network_" not in vars(self):
            self.out_activation_ = "logistic"
        return super()._go_on(targets)

    def _loss_set(self, attributes: dict[str, Any], n_out: int) -> str:
        n_classes = len(attributes["classes_"])
        if n_out > 1 and attributes.get("out_activation_") == "logistic":
            return "binary_cross_entropy"
        if n_out != (1 if n_classes == 2 else n_classes):
            raise ValueError(f"classes_ holds {n_classes} classes, but {self._arrays[0]} leads to {n_out} outputs")
        return "cross_entropy" if n_out > 1 else "binary_cross_entropy"

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Most probable class (n,) of each row; with several labels a row, zeros and ones (n, n_outputs)."""
        X = self._check_rows(X)
        predicted = self.network_.predict(X, self.n_threads)
        if self._multi_label:
            return predicted
        # A model that has seen a single class predicts no other.
        classes, n_out = np.asarray(self.classes_), self.network_.n_out
        if len(classes) != n_out and not (n_out == 1 and len(classes) <= 2):
            raise ValueError(f"classes_ holds {len(classes)} classes, but the model has {n_out} outputs")
        return classes.take(predicted.ravel(), mode="clip")

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Probability (n, n_classes) of each class, in the order of `classes_`; with several labels, of each label."""
        X = self._check_rows(X)
        probabilities = self.network_.predict_proba(X, self.n_threads)
        return probabilities if probabilities.shape[1] > 1 else np.hstack([1 - probabilities, probabilities])

    def predict_log_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Logarithm (n, n_classes) of `predict_proba`."""
        log_probabilities: NDArray[Any] = np.log(self.predict_proba(X))
        return log_probabilities

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = self._multi_output
        return tags


class _Regressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """Losses and predictions of real numbers."""

    def _read_targets(self, y: NDArray[Any], reset: bool) -> NDArray[Any]:
        return y

    def _outputs(self, targets: NDArray[Any]) -> tuple[int, str]:
        return (targets.shape[1] if targets.ndim == 2 else 1), LOSSES[self.loss]

    def _loss_set(self, attributes: dict[str, Any], n_out: int) -> str:
        CHECKS["loss"](self.loss, "loss")
        return LOSSES[self.loss]

    def _score(self, X: Any, targets: NDArray[Any], weights: Any = None) -> float:
        return float(r2_score(targets, self.network_.predict(X, self.n_threads), sample_weight=weights))

    @available_if(lambda self: self._has_steps())  # type: ignore[untyped-decorator]
    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Train for one more epoch on the rows, by any optimizer but L-BFGS.

        Parameters
        ----------
        X, y, sample_weight
            As `fit` takes them.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Values (n,) or (n, n_outputs) for each row."""
        X = self._check_rows(X)
        predicted = self.network_.predict(X, self.n_threads)
        return predicted.ravel() if predicted.shape[1] == 1 else predicted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class SoftmaxClassifier(_OfCoefficients, _Classifier):
    """Softmax regression: multinomial logistic regression with an L2 penalty.

    Can replace `sklearn.linear_model.LogisticRegression`: parameters, defaults and attributes that both have are the
    same, and so is the solution.  The objective is C times the sum of the rows' losses plus half the sum of squared
    coefficients, without the intercepts.

    Parameters
    ----------
    C : float, default 1.0
        Inverse of the penalty's strength; ``numpy.inf`` for none.
    tol : float, default 1e-4
        "lbfgs" stops when no component of the gradient of the objective, divided by C and the sum of weights, is
        larger; "sgd" and "adam" when the loss has not improved by as much for n_iter_no_change epochs.
    fit_intercept : bool, default True
        Whether to add a constant to each class; False needs ``solver="lbfgs"``.
    class_weight : dict, "balanced" or None, default None
        Factor for the weights of each class's rows.
    random_state : int, numpy.random.RandomState or None, default None
        For the order of rows of "sgd" and "adam".
    solver : {"lbfgs", "sgd", "adam"}, default "lbfgs"
        How to train: on all rows at a time, or in batches.
    max_iter : int, default 100
        Iterations or epochs, at most.
    verbose : bool or int, default 0
        Whether to print the loss after each iteration or epoch.
    warm_start : bool, default False
        Whether `fit` starts from the last solution.
    batch_size, learning_rate, learning_rate_init, power_t, shuffle, momentum, nesterovs_momentum, early_stopping, \
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As in `MLPClassifier`.
    callbacks : sequence of fastnn.callbacks.Callback, default ()
        Called during a fit.  (A `Checkpoint` is written, but an estimator cannot resume from it.)
    n_threads : int or None, default None
        None takes the processors that the process may run on, which fits in other threads share.  The result does
        not depend on it.
    comm : mpi4py.MPI.Intracomm or None, default None
        The ranks of an MPI job that train together: see the notes of `fit`.

    Attributes
    ----------
    coef_ : (1, n_features) or (n_classes, n_features) array
        Coefficients; one row if there are two classes.
    intercept_ : (1,) or (n_classes,) array
        Constants.
    classes_ : (n_classes,) array
        Classes, sorted.
    n_iter_ : (1,) int32 array
        Iterations or epochs of the last fit.
    network_ : fastnn.Network
        The model; it shares its parameters with `coef_`, so changes within one show in the other.  Each fit, and each
        assignment to `coef_` or `intercept_`, makes a new one.
    loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_
        As in `MLPClassifier`, for all solvers.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : (n_features_in_,) array
        Their names, where X had names.

    Notes
    -----
    Differences from LogisticRegression: the other solvers are "sgd" and "adam"; the only penalty is L2 (there is no
    ``penalty``, ``l1_ratio``, ``dual``, ``intercept_scaling`` or ``n_jobs``); `fit` takes validation data; there is a
    `partial_fit`; float32 is computed in float32, where LogisticRegression uses float64 for parts of its work.

    `coef_`, `intercept_` and `classes_` may be set without a fit: the model then predicts, and a fit with warm_start,
    or partial_fit, continues from it.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastnn.sklearn import SoftmaxClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> SoftmaxClassifier(max_iter=200).fit(X, y).predict(X[:2])
    array([0, 0])
    """

    _multi_output = False
    _arrays = ("coef_", "intercept_")

    def __init__(
        self,
        *,
        C: float = 1.0,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        class_weight: Any = None,
        random_state: Any = None,
        solver: str = "lbfgs",
        max_iter: int = 100,
        verbose: Any = 0,
        warm_start: bool = False,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        shuffle: bool = True,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        callbacks: Any = (),
        n_threads: int | None = None,
        comm: Any = None,
    ) -> None:
        keep(self, locals())

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not self.fit_intercept and self._stochastic:
            raise ValueError(f"fit_intercept=False needs solver='lbfgs', not {self.solver!r}")

    def _read_targets(self, y: NDArray[Any], reset: bool) -> NDArray[Any]:
        targets = super()._read_targets(y, reset)
        if len(self.classes_) < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data contains only one class: "
                f"{plain(self.classes_[0])!r}"
            )
        return targets

    def _start(self, n_in: int, targets: NDArray[Any], dtype: Any, random_state: np.random.RandomState) -> Network:
        n_out, loss = self._outputs(targets)
        return self._network([n_in, n_out], loss, dtype)

    def _go_on(self, targets: NDArray[Any]) -> Network:
        network = super()._go_on(targets)
        if not self.fit_intercept:
            network.biases[0][:] = 0
        return network

    def _assemble(self, attributes: dict[str, Any]) -> Network:
        if not self.fit_intercept and "coef_" in attributes:
            attributes = {"intercept_": np.zeros_like(attributes["coef_"][:, 0]), **attributes}
        return super()._assemble(attributes)

    def _network(self, sizes: list[int], loss: str, dtype: Any) -> Network:
        return Network(sizes, dtype=dtype, loss=loss)

    def _layers(self, coefs: Any, intercepts: Any) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        return [coefs.T], [intercepts]

    def _finish(self, trainer: Trainer) -> None:
        super()._finish(trainer)
        self.n_iter_ = np.array([self.n_iter_], np.int32)

    def _penalise(self, total_weight: float) -> tuple[float, Variant]:
        fixed = None
        if not self.fit_intercept:
            fixed = np.zeros(self.network_.parameters.size, bool)
            self.network_.slots.by_kind(fixed)["bias"][0][:] = True
        # Two classes have one vector of coefficients, as in LogisticRegression, so C means the same.
        return 1 / (self.C * total_weight), Variant(None, _ChainedOrder, fixed, observed=bool(self.callbacks))

    coef_ = _Arrays("Coefficients.", lambda network: network.weights[0].T, 2, listed=False)
    intercept_ = _Arrays("Constants.", lambda network: network.biases[0], 1, listed=False)

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Logits (n, n_classes); for two classes the log-odds of the second (n,)."""
        X = self._check_rows(X)
        logits = self.network_._outputs(X, check_threads(self.n_threads))
        return logits.ravel() if logits.shape[1] == 1 else logits


class _Perceptron(_OfCoefficients):
    """Hidden layers, and how scikit-learn starts and penalises them."""

    _numbers = ("n_layers_", "n_outputs_", "out_activation_")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for i, size in enumerate(self._hidden_sizes()):
            check_integer(plain(size), f"hidden_layer_sizes[{i}]", 1)

    def _hidden_sizes(self) -> list[Any]:
        return list(self.hidden_layer_sizes) if np.iterable(self.hidden_layer_sizes) else [self.hidden_layer_sizes]

    def _activations(self) -> str | list[str]:
        names = [ACTIVATIONS.get(name, name) for name in np.atleast_1d(self.activation).tolist()]
        return names[0] if isinstance(self.activation, str) else names

    def _start(self, n_in: int, targets: NDArray[Any], dtype: Any, random_state: np.random.RandomState) -> Network:
        n_out, loss = self._outputs(targets)
        network = self._network([n_in, *self._hidden_sizes(), n_out], loss, dtype)
        # Glorot & Bengio (2010), in scikit-learn's variant: biases too, and sigmoid units with a third of the variance.
        # The last layer follows the activation before it, or the given one if there is none before it.
        named = self._activations()
        last = named if isinstance(named, str) else [None, *named][-1]
        for weight, bias, activation in zip(network.weights, network.biases, [*network.activation, last], strict=True):
            bound = np.sqrt((2 if activation == "sigmoid" else 6) / sum(weight.shape))
            weight[:] = random_state.uniform(-bound, bound, weight.shape)
            bias[:] = random_state.uniform(-bound, bound, bias.shape)
        return network

    def _network(self, sizes: list[int], loss: str, dtype: Any) -> Network:
        return Network(sizes, self._activations(), dtype, loss=loss, batch_norm=plain(self.batch_norm))

    def _layers(self, coefs: Any, intercepts: Any) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        if any(weight.shape[1] != after.shape[0] for weight, after in itertools.pairwise(coefs)):
            raise ValueError(f"coefs_ must lead from layer to layer, but are of shapes {_shapes(coefs)}")
        return coefs, intercepts

    def _penalise(self, total_weight: float) -> tuple[float, Variant]:
        return 0.0, Variant(_PerceptronPenalty(self.alpha), _ChainedOrder, observed=bool(self.callbacks))

    coefs_ = _Arrays("Weights of each layer.", lambda network: network.weights, 2, listed=True)
    intercepts_ = _Arrays("Biases of each layer.", lambda network: network.biases, 1, listed=True)
    n_layers_ = _OfNetwork(
        "Number of layers, those of the inputs and outputs included.", lambda network: len(network.layers) + 1
    )
    n_outputs_ = _OfNetwork("Number of outputs.", lambda network: network.n_out)
    out_activation_ = _OfNetwork(
        "Name of the output's activation.", lambda network: OUT_ACTIVATIONS.get(network.loss, "identity")
    )


class MLPClassifier(_Perceptron, _Classifier):
    """Multi-layer perceptron that classifies.

    Can replace `sklearn.neural_network.MLPClassifier`: parameters, defaults and attributes that both have are the
    same.  With the same random_state a fit follows scikit-learn's to rounding.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int or int, default (100,)
        Number of units of each hidden layer.
    activation : str or sequence of str, one a hidden layer, default "relu"
        "identity", "logistic" (or "sigmoid"), "tanh", "relu", "leaky_relu", "gelu", "silu", "elu" or "softplus".
    solver : {"lbfgs", "sgd", "adam"}, default "adam"
        How to train: L-BFGS on all rows at a time, or in batches by gradient steps or Adam.
    alpha : float, default 0.0001
        Strength of the L2 penalty: the mean loss of a batch gains half the sum of squared weights times alpha over the
        number of its rows, or over the sum of their weights.
    batch_size : int or "auto", default "auto"
        Rows of a step of "sgd" and "adam"; "auto" takes 200, or all if there are fewer.
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        For "sgd": learning_rate_init throughout; or, after each epoch, divided by the number of rows seen so far to
        the power of power_t; or divided by 5 each time that the loss stalls, down to 1e-6.
    learning_rate_init : float, default 0.001
        Initial learning rate of "sgd" and "adam".
    power_t : float, default 0.5
        Exponent of "invscaling".
    max_iter : int, default 200
        Epochs at most, or iterations of "lbfgs".
    shuffle : bool, default True
        Whether each epoch takes the rows in a new order.
    random_state : int, numpy.random.RandomState or None, default None
        For the initial parameters, the rows set aside by early_stopping, and the order of rows.
    tol : float, default 1e-4
        Training stops when the loss, or the score with early_stopping, has not improved by as much for more than
        n_iter_no_change epochs; "lbfgs" when no component of the gradient is larger.
    verbose : bool, default False
        Whether to print the loss after each epoch.
    warm_start : bool, default False
        Whether `fit` starts from the last solution.
    momentum : float, default 0.9
        Of "sgd"; at least 0 and below 1.
    nesterovs_momentum : bool, default True
        Whether "sgd" looks one step of momentum ahead.
    early_stopping : bool, default False
        Whether "sgd" and "adam" watch the score on validation data, and keep the parameters with the best.
    validation_fraction : float, default 0.1
        Share of the rows that early_stopping sets aside, if `fit` has no validation data.
    beta_1, beta_2, epsilon : float, default 0.9, 0.999 and 1e-8
        Of "adam".
    n_iter_no_change : int, default 10
        See tol.
    max_fun : int, default 15000
        Evaluations of the loss by "lbfgs" at most.
    class_weight : dict, list of dict, "balanced" or None, default None
        Factor for the weights of each class's rows; with several labels a row, a dict for each label.
    dropout : float or sequence of float, one a hidden layer, default 0.0
        Share of the hidden units that each step drops.
    batch_norm : bool, default False
        Whether "sgd" and "adam" normalise the hidden layers over each batch: see `fastnn.Network`.  "lbfgs" cannot.
    callbacks : sequence of fastnn.callbacks.Callback, default ()
        Called during a fit.  (A `Checkpoint` is written, but an estimator cannot resume from it.)
    n_threads : int or None, default None
        None takes the processors that the process may run on, which fits in other threads share.  The result does
        not depend on it.
    comm : mpi4py.MPI.Intracomm or None, default None
        The ranks of an MPI job that train together: see the notes of `fit`.

    Attributes
    ----------
    classes_ : (n_classes,) array
        Classes, sorted.
    coefs_, intercepts_ : lists of arrays, (n_in, n_out) and (n_out,)
        Weights and biases of each layer; assigning to them, to an item or into an array changes the model.
    network_ : fastnn.Network
        The model.  Each fit, and each assignment to `coefs_` or `intercepts_`, makes a new one.
    loss_ : float
        Loss of the last epoch: the mean over its rows, each batch measured before its own step, penalty included.  If
        rows have weights, they weight batches too; scikit-learn weights a batch by its number of rows.
    loss_curve_ : list of float
        Loss of each epoch, for "lbfgs" too.
    best_loss_ : float or None
        The smallest loss; None with early_stopping.
    validation_scores_ : list of float or None
        Accuracy on the validation data, if any, after each epoch.
    best_validation_score_ : float or None
        The largest of these scores.
    n_iter_, t_ : int
        Epochs of the last fit, and rows seen by "sgd" or "adam" in all.
    n_layers_, n_outputs_ : int
        Number of layers, inputs and outputs included, and width of the output layer.
    out_activation_ : {"softmax", "logistic"}
        Activation of the outputs: "softmax" for three classes or more, else "logistic".
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : (n_features_in_,) array
        Their names, where X had names.

    Notes
    -----
    Additions to scikit-learn: class_weight, dropout, batch_norm, callbacks, n_threads, more activations and one a
    layer, your own validation data in `fit`, validation scores without early stopping, and loss_curve_ for "lbfgs".

    Differences: momentum must be below 1.  A warm start may see fewer classes than before.  If training leaves the
    finite numbers it ends at once, with the same ValueError that scikit-learn raises at the end.

    `coefs_`, `intercepts_` and `classes_` may be set without a fit.  The model then predicts, and a fit with
    warm_start, or partial_fit, continues from it; the arrays determine its layers, whatever hidden_layer_sizes says.
    The other attributes that scikit-learn needs (`n_layers_`, `n_outputs_`, `out_activation_`) may be set but must
    agree; only several labels a row need ``out_activation_ = "logistic"``.

    A row of weight 2 and the same row twice give the same objective to rounding.  The steps of "lbfgs" magnify the
    difference, so its solutions may differ by more, above all for ReLU networks, which have many minima.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastnn.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> MLPClassifier(max_iter=1000, random_state=1).fit(X, y).predict(X[:2])
    array([0, 0])
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        class_weight: Any = None,
        dropout: Any = 0.0,
        batch_norm: bool = False,
        callbacks: Any = (),
        n_threads: int | None = None,
        comm: Any = None,
    ) -> None:
        keep(self, locals())

    def _set_label_binarizer(self, binarizer: Any) -> None:
        self.classes_ = binarizer.classes_

    #: Where scikit-learn's estimator keeps its classes.
    _label_binarizer = property(fset=_set_label_binarizer)


class MLPRegressor(_Perceptron, _Regressor):
    """Multi-layer perceptron that predicts numbers.

    Can replace `sklearn.neural_network.MLPRegressor`: parameters, defaults and attributes that both have are the
    same.  With the same random_state a fit follows scikit-learn's to rounding.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error", "huber"}, default "squared_error"
        Of the outputs: half the squared error, the absolute error, or Huber's with threshold 1.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, \
    shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, \
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun, dropout, batch_norm, callbacks, \
    n_threads, comm
        As in `MLPClassifier`.

    Attributes
    ----------
    validation_scores_ : list of float or None
        R2 on the validation data, if any, after each epoch.
    coefs_, intercepts_, network_, loss_, loss_curve_, best_loss_, best_validation_score_, n_iter_, t_, n_layers_, \
    n_outputs_, out_activation_, n_features_in_, feature_names_in_
        As in `MLPClassifier`.

    Notes
    -----
    Additions to scikit-learn: the losses "absolute_error" and "huber", dropout, batch_norm, callbacks, n_threads, more
    activations and one a layer, your own validation data in `fit`, validation scores without early stopping, and
    loss_curve_ for "lbfgs".

    `coefs_` and `intercepts_` may be set without a fit, as in `MLPClassifier`.

    Differences: there is no loss "poisson", and momentum must be below 1.  With several outputs scikit-learn reports
    the mean of their losses, but steps along the gradient of the sum: so do "sgd" and "adam" here, with the same
    numbers, while "lbfgs" minimises the sum consistently, and may therefore end elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.sklearn import MLPRegressor
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> model = MLPRegressor(activation="tanh", solver="lbfgs", random_state=0).fit(X, X.ravel() ** 2)
    >>> model.score(X, X.ravel() ** 2) > 0.99
    True
    """

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        batch_norm: bool = False,
        callbacks: Any = (),
        n_threads: int | None = None,
        comm: Any = None,
    ) -> None:
        keep(self, locals())

    def _loss_of(self, history: History) -> float:
        # scikit-learn reports the mean over the outputs, but penalises their sum.
        log_likelihood, objective = history.log_likelihood[-1], history.objective[-1]
        return -log_likelihood / self.network_.n_out + (log_likelihood - objective)


def _flat(X: Any, input_shape: Any) -> Any:
    """Rows as they are, but images (n, height, width, channels) or (n, height, width) flat, as scikit-learn wants them.

    Raises
    ------
    ValueError
        If images are not of the input shape.
    """
    shape = () if input_shape is None else check_input_shape(input_shape)
    if len(shape) < 3 or np.ndim(X) == 2:
        return X
    images = np.asarray(X)
    check_shape(images.shape, shape, "X")
    return images.reshape(len(images), math.prod(shape))


class _Layered(_Estimator):
    """Any hidden layers and any optimizer, and rows that may be images."""

    # uint8 is taken as pixels, as by networks.
    _dtypes = (*_Estimator._dtypes, np.dtype(np.uint8))

    @property
    def _stochastic(self) -> bool:
        return not isinstance(self._make_optimizer(), LBFGS)

    def _make_optimizer(self) -> Any:
        if isinstance(self.optimizer, str):
            return OPTIMIZERS[check_choice(self.optimizer, "optimizer", OPTIMIZERS)]()
        return self.optimizer  # which the trainer checks

    def _check_data(self, X: Any, y: Any, weights: Any, reset: bool) -> tuple[Any, NDArray[Any], Any]:
        input_shape = self.input_shape if reset else self.network_.input_shape
        return super()._check_data(_flat(X, input_shape), y, weights, reset)

    def _check_rows(self, X: Any) -> Any:
        return super()._check_rows(_flat(X, self.network_.input_shape))

    def _start(self, n_in: int, targets: NDArray[Any], dtype: Any, random_state: np.random.RandomState) -> Network:
        n_out, loss = self._outputs(targets)
        hidden = self.layers if np.iterable(self.layers) else [self.layers]
        return Network(
            [*(Dense(plain(each)) if isinstance(each, numbers.Integral) else each for each in hidden), Dense(n_out)],
            self.activation,
            np.float32 if dtype == np.uint8 else dtype,
            np.random.Generator(random_state._bit_generator),
            loss,
            plain(self.batch_norm),
            n_in if self.input_shape is None else self.input_shape,
        )

    def _penalise(self, total_weight: float) -> tuple[float, Variant]:
        return self.l2, Variant(observed=bool(self.callbacks))


class NetworkClassifier(_Layered, _Classifier):
    """Any network of fastnn that classifies, with convolution too.

    Parameters
    ----------
    layers : sequence of layers or of int, default (100,)
        Hidden layers: records of `fastnn.layers`; an integer stands for `Dense` with so many units.  The output layer
        is added, as `y` requires.
    activation : str or sequence of str, one a hidden layer with weights, default "relu"
        Of the layers that have none of their own: see `fastnn.Network`.
    input_shape : (height, width, channels), (height, width), int or None, default None
        Shape of a row, for layers on images, whose channels come last; (height, width) has one channel.  X may then
        hold images or flat rows.  None takes flat rows of any length.
    optimizer : str, Optimizer or LBFGS, default "adam"
        An optimizer of `fastnn.optimizers`, such as ``fastnn.SGD(0.1, momentum=0.9)``, whose learning rate may be a
        schedule.  Or "sgd", "rmsprop", "adagrad", "adam", "adamw" or "lbfgs", for one with its defaults.
    batch_size : int or "auto", default "auto"
        Rows of a step; "auto" takes 200, or all if there are fewer.  L-BFGS always takes all.
    max_iter : int, default 200
        Epochs at most, or iterations of L-BFGS.
    shuffle : bool, default True
        Whether each epoch takes the rows in a new order.
    random_state : int, numpy.random.RandomState or None, default None
        For the initial weights, the rows set aside by early_stopping, the order of rows, dropout and motions.
    tol : float, default 1e-4
        Training stops when the loss, or the score with early_stopping, has not improved by as much for more than
        n_iter_no_change epochs.  (L-BFGS has a tol of its own.)
    verbose : bool, default False
        Whether to print the loss after each epoch.
    warm_start : bool, default False
        Whether `fit` starts from the last solution.
    early_stopping : bool, default False
        Whether to watch the score on validation data, and keep the parameters with the best; not for L-BFGS.
    validation_fraction : float, default 0.1
        Share of the rows that early_stopping sets aside, if `fit` has no validation data.
    n_iter_no_change : int, default 10
        See tol.
    class_weight : dict, list of dict, "balanced" or None, default None
        Factor for the weights of each class's rows; with several labels a row, a dict for each label.
    l2, l1, dropout, label_smoothing, clip_norm, max_norm, augment
        As in `fastnn.Trainer`: penalties and dropout are 0.0 by default, the others None.  label_smoothing needs three
        classes or more.
    batch_norm : bool, default False
        Whether to normalise the hidden layers that do not say it themselves: see `fastnn.Network`.  L-BFGS cannot.
    callbacks : sequence of fastnn.callbacks.Callback, default ()
        Called during a fit.  (A `Checkpoint` is written, but an estimator cannot resume from it.)
    n_threads : int or None, default None
        None takes the processors that the process may run on, which fits in other threads share.  The result does
        not depend on it.
    comm : mpi4py.MPI.Intracomm or None, default None
        The ranks of an MPI job that train together: see the notes of `fit`.

    Attributes
    ----------
    classes_ : (n_classes,) array
        Classes, sorted.
    network_ : fastnn.Network
        The model: ``network_.layers``, ``network_.weights``, ``network_.save(path)``.  Each fit makes a new one.
    loss_ : float
        Loss of the last epoch: the mean over its rows, each batch measured before its own step, penalties included.
    loss_curve_ : list of float
        Loss of each epoch.
    best_loss_, validation_scores_, best_validation_score_, n_iter_, t_
        As in `MLPClassifier`.
    n_features_in_ : int
        Number of columns; for images height times width times channels.
    feature_names_in_ : (n_features_in_,) array
        Their names, where X had names.

    Notes
    -----
    Network and training are those of `fastnn.Network` and `fastnn.Trainer` with these parameters, so initial weights,
    penalties and orders of rows differ from `MLPClassifier`.  X of uint8 is taken as pixels, each multiplied by 1/256,
    and as float32; float32 stays as it is, and all else becomes float64.  Sparse X is for dense layers only.

    `network_` and `classes_` may be set without a fit.  The model then predicts, and a fit with warm_start, or
    partial_fit, continues from there, whatever layers says.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastnn import Adam
    >>> from fastnn.layers import Conv2D, MaxPool2D
    >>> from fastnn.sklearn import NetworkClassifier
    >>> X, y = load_digits().images / 16, load_digits().target  # X is (1797, 8, 8)
    >>> layers = [Conv2D(16, 3), MaxPool2D(2), 50]
    >>> model = NetworkClassifier(layers, input_shape=(8, 8), optimizer=Adam(0.01), tol=0.01, random_state=0)
    >>> model.fit(X[:1200], y[:1200]).score(X[1200:], y[1200:]) > 0.9
    True
    """

    def __init__(
        self,
        layers: Any = (100,),
        activation: Any = "relu",
        *,
        input_shape: Any = None,
        optimizer: Any = "adam",
        batch_size: Any = "auto",
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: float = 10,
        class_weight: Any = None,
        l2: float = 0.0,
        l1: float = 0.0,
        dropout: Any = 0.0,
        batch_norm: bool = False,
        label_smoothing: float = 0.0,
        clip_norm: float | None = None,
        max_norm: float | None = None,
        augment: Any = None,
        callbacks: Any = (),
        n_threads: int | None = None,
        comm: Any = None,
    ) -> None:
        keep(self, locals())


class NetworkRegressor(_Layered, _Regressor):
    """Any network of fastnn that predicts numbers, with convolution too.

    Parameters
    ----------
    layers, activation
        As in `NetworkClassifier`.
    loss : {"squared_error", "absolute_error", "huber"}, default "squared_error"
        Of the outputs: half the squared error, the absolute error, or Huber's with threshold 1; summed over several
        outputs.
    input_shape, optimizer, batch_size, max_iter, shuffle, random_state, tol, verbose, warm_start, early_stopping, \
    validation_fraction, n_iter_no_change, l2, l1, dropout, batch_norm, clip_norm, max_norm, augment, \
    callbacks, n_threads, comm
        As in `NetworkClassifier`.

    Attributes
    ----------
    validation_scores_ : list of float or None
        R2 on the validation data, if any, after each epoch.
    network_, loss_, loss_curve_, best_loss_, best_validation_score_, n_iter_, t_, n_features_in_, feature_names_in_
        As in `NetworkClassifier`, whose notes apply too.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.sklearn import NetworkRegressor
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> model = NetworkRegressor((20,), "tanh", optimizer="lbfgs", random_state=0).fit(X, X.ravel() ** 2)
    >>> model.score(X, X.ravel() ** 2) > 0.99
    True
    """

    def __init__(
        self,
        layers: Any = (100,),
        activation: Any = "relu",
        *,
        loss: str = "squared_error",
        input_shape: Any = None,
        optimizer: Any = "adam",
        batch_size: Any = "auto",
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: float = 10,
        l2: float = 0.0,
        l1: float = 0.0,
        dropout: Any = 0.0,
        batch_norm: bool = False,
        clip_norm: float | None = None,
        max_norm: float | None = None,
        augment: Any = None,
        callbacks: Any = (),
        n_threads: int | None = None,
        comm: Any = None,
    ) -> None:
        keep(self, locals())


# Attributes that the record of a fit sets, on rank 0.
RECORD = (
    "best_loss_",
    "best_validation_score_",
    "loss_",
    "loss_curve_",
    "n_iter_",
    "t_",
    "validation_scores_",
    "_best_parameters",
    "_no_improvement_count",
    "_stopped",
)

# Attributes that cannot be set during a fit.
PARAMETERS = {name for kind in __all__ for name in globals()[kind]._get_param_names()}
