"""Estimators for tables: from a data frame to a trained network and back to classes or numbers.

A front door: it reads tables and targets, asks for a recipe, has it carried out, and puts the results in scikit-learn's
terms.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, _check_y, check_consistent_length

from fastnn._estimators import all_or_nothing, keep, plain, seeded, under_way
from fastnn._validation import (
    check_choice,
    check_integer,
    check_number,
    check_quantiles,
    check_threads,
    check_weights,
    check_writable,
)
from fastnn.engine.ranks import ALONE
from fastnn.ensemble import Ensemble
from fastnn.network import Network
from fastnn.tabular import files
from fastnn.tabular.calibration import temperature_of
from fastnn.tabular.intervals import interval_of, kept_of
from fastnn.tabular.preparation import columns_for
from fastnn.tabular.recipe import Recipe, recipe_for, rivals
from fastnn.tabular.table import Table
from fastnn.tabular.training import choose, repeat, start

__all__ = ["Predictor", "TabularClassifier", "TabularRegressor", "load"]

# Losses of the regressor, by the names that scikit-learn has for them.
LOSSES = {"squared_error": "squared", "absolute_error": "absolute", "huber": "huber"}

# Raw rows, targets, and weights or None.
Data = tuple[NDArray[np.float64], NDArray[Any], NDArray[np.float64] | None]

# Rows, at least, of which some are held out.
FEWEST_ROWS = 10


def _sizes(value: Any, name: str) -> tuple[int, ...]:
    given = [value] if isinstance(value, numbers.Integral) else value
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence | np.ndarray):
        raise TypeError(f"{name} must be 'auto' or a sequence of integers such as (128, 128), not {value!r}")
    return tuple(check_integer(plain(size), f"{name}[{i}]", 1) for i, size in enumerate(given))


_share = partial(check_number, minimum=0, below=1)
_switch = partial(check_choice, choices=[False, True])

# Fields of a recipe that users may set, with their checks.
TOLD: dict[str, Any] = {
    "hidden_layer_sizes": _sizes,
    "learning_rate": partial(check_number, minimum=0, open_left=True),
    "batch_size": partial(check_integer, minimum=1),
    "max_epochs": partial(check_integer, minimum=1),
    "dropout": _share,
    "weight_decay": partial(check_number, minimum=0),
    "label_smoothing": _share,
    "validation_fraction": partial(check_number, minimum=0, below=1, open_left=True),
    "refit": _switch,
}


class _Tabular(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor have in common."""

    @property
    def _measured(self) -> bool:
        # Whether the network should stay the one that the held-out rows have measured.
        return False

    def __setattr__(self, name: str, value: Any) -> None:
        if id(self) in under_way and name in self._get_param_names():
            raise RuntimeError(f"{name} cannot be set while a fit is under way: set it before or after")
        super().__setattr__(name, value)

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Any:
        """Fit the model to a table.

        Parameters
        ----------
        X : frame of pandas, polars or pyarrow, array, or dict of columns
            Rows; see `Table.learn` for what becomes of the columns.
        y : (n,) array or series
            Class or number of each row.
        sample_weight : (n,) array, float or None, default None
            Weight of each row, at least 0.
        X_val, y_val, sample_weight_val : as X, y and sample_weight, or None
            Rows to measure on after each epoch, instead of rows of X that are held out.
        checkpoint : path or None, default None
            Beginning of the names of files from which the same call goes on if it was killed, with the same bits as
            without; `random_state` must be an integer then.  Members are trained one by one.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If the input is not as described; the message names the column or argument.
        RuntimeError
            If a fit of this estimator is under way.

        Notes
        -----
        If a fit raises an exception, the estimator is as it was.  Ctrl-C ends it, and it keeps what has been learnt;
        `history_` tells.
        """
        with all_or_nothing(self), seeded(self.random_state, ALONE) as random_state:
            self._check_parameters()
            self._forget()
            raw = self._learn_table(X)
            targets = self._read_targets(y, len(raw))
            self.target_name_ = _name_of(y)
            weights = self._weigh(targets, _weights(sample_weight, raw))
            validation = self._read_validation(X_val, y_val, sample_weight_val)
            self._train((raw, targets, weights), validation, random_state, self._check_checkpoint(checkpoint))
        return self

    def _check_parameters(self) -> None:
        check_integer(plain(self.n_members), "n_members", 1)
        check_threads(plain(self.n_threads))
        for name in ("early_stopping", "verbose"):
            _switch(plain(getattr(self, name)), name)
        self._told()

    def _told(self) -> dict[str, Any]:
        # The recipe's fields that the user has set.
        given = {name: plain(getattr(self, name)) for name in TOLD if hasattr(self, name)}
        return {
            name: TOLD[name](value, name)
            for name, value in given.items()
            if not (isinstance(value, str) and value == "auto")
        }

    def _forget(self) -> None:
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            del self.__dict__[name]

    def _learn_table(self, X: Any) -> NDArray[np.float64]:
        self._note_table(Table.learn(X, self.columns))
        return self.table_.read(X)

    def _note_table(self, table: Table) -> None:
        self.table_, self.n_features_in_ = table, len(table.columns)
        if table.named:
            self.feature_names_in_ = np.array(table.names, object)

    def _read_validation(self, X: Any, y: Any, sample_weight: Any) -> Data | None:
        if X is None:
            if y is not None or sample_weight is not None:
                raise ValueError("y_val and sample_weight_val need X_val")
            return None
        if y is None:
            raise ValueError("X_val needs y_val")
        raw = self._read(X)
        targets = self._read_targets(y, len(raw), first=False)
        return raw, targets, self._weigh(targets, _weights(sample_weight, raw))

    def _choose_recipe(self, n_rows: int, holds_out: bool) -> Recipe:
        told, why = self._told(), "" if holds_out else "no rows are held out"
        if holds_out and self._measured and "refit" not in told:
            why = "intervals hold for the network that the held-out rows measured"
        n_numbers = sum(one.n_values is None for one in self.table_.inputs)
        recipe = recipe_for(n_rows, n_numbers, self._n_classes, **told | ({"refit": False} if why else {}))
        return dataclasses.replace(recipe, reasons={**recipe.reasons, **({"refit": why} if why else {})})

    def _check_checkpoint(self, path: Any) -> str | None:
        if path is None:
            return None
        if not isinstance(plain(self.random_state), int):
            raise ValueError(f"a fit with a checkpoint needs an integer as random_state, not {self.random_state!r}")
        return check_writable(path, "checkpoint")

    def _train(
        self, data: Data, validation: Data | None, random_state: np.random.RandomState, checkpoint: str | None
    ) -> None:
        holds_out = validation is None and bool(self.early_stopping) and len(data[0]) >= FEWEST_ROWS
        recipe = self._choose_recipe(len(data[0]), holds_out)
        kept = np.arange(len(data[0]))
        if holds_out:
            groups = data[1] if self._n_classes else np.zeros(len(kept), np.intp)
            kept, others = split(groups, recipe.validation_fraction, random_state)
            validation = _part(data, others)
        if validation is not None and validation[2] is not None and not validation[2].any():
            validation = None
        if not self.early_stopping:
            validation = None
        self._residuals, self._temperature = np.zeros((0, 1)), 1.0
        self._set_scale(*_part(data, kept)[1:])
        data, validation = self._scaled(data), None if validation is None else self._scaled(validation)
        raw, targets, weights = _part(data, kept)
        prior, inputs = self._prior(targets, weights), [one.n_values for one in self.table_.inputs]
        seeds = random_state.randint(np.iinfo(np.int32).max, size=(2, self.n_members)).tolist()
        options: dict[str, Any] = {"n_threads": self.n_threads, "progress": bool(self.verbose)}

        recipes = (recipe, *rivals(recipe, len(data[0]), self._n_classes, self._told()))
        columns = {each.n_knots: columns_for(raw, inputs, each.n_knots) for each in recipes}

        def begin(recipe: Recipe, member: int) -> Network:
            return start(columns[recipe.n_knots], recipe, prior, self._loss, seeds[0][member], self._quantiles)

        recipe, networks, results = choose(
            begin, (raw, targets, weights), validation, recipes, seeds[1], checkpoint, **options
        )
        self.recipe_ = recipe
        self.history_ = [history for history, _ in results]
        self._look_at(networks, validation)
        if recipe.refit and not any(history.interrupted for history in self.history_):
            networks = [begin(recipe, member) for member in range(self.n_members)]
            again = None if checkpoint is None else f"{checkpoint}.all"
            rates, same = [rates for _, rates in results], [recipe] * len(networks)
            repeat(networks, data, rates, same, seeds[1], checkpoint=again, **options)
        for network in networks:
            self._finish(network)
        self.networks_ = networks
        self._model = networks[0] if len(networks) == 1 else Ensemble(networks)

    def _look_at(self, networks: list[Network], validation: Data | None) -> None:
        """Learn from the held-out rows, if there are any, what is not part of training."""

    def _finish(self, network: Network) -> None:
        """Make the network one of raw targets."""

    def describe(self, X: Any = None, y: ArrayLike | None = None) -> str:
        """Return what became of each column and how the fit ran; or would become and run.

        Parameters
        ----------
        X, y : as for `fit`, or None
            A table that is only looked at, without a fit; None for that of the last fit.

        Returns
        -------
        str
            Two tables, ready to print.
        """
        if X is None:
            self._fitted()
            return f"{self.table_.describe()}\n\n{self.recipe_}"
        looked_at = clone(self)
        looked_at._check_parameters()
        n_rows = len(looked_at._learn_table(X))
        if y is not None:
            looked_at._read_targets(y, n_rows)
        elif is_classifier(self):
            raise ValueError("y is needed: the recipe depends on the classes")
        holds_out = bool(self.early_stopping) and n_rows >= FEWEST_ROWS
        recipe = looked_at._choose_recipe(n_rows, holds_out)
        others = rivals(recipe, n_rows, looked_at._n_classes, looked_at._told()) if holds_out else ()
        lines = [looked_at.table_.describe(), "", str(recipe), *[""] * bool(others)]
        return "\n".join(lines + [f"tried beside this: {recipe.changes(other)}" for other in others])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one safetensors file, atomically: a crash leaves an old file whole.

        Raises
        ------
        OSError
            If it cannot be written.
        TypeError
            If the classes are neither text, numbers nor booleans.
        """
        self._fitted()
        found = (getattr(self, "classes_", None), self._residuals.ravel(), self.target_name_)
        parts = (self.table_, self.recipe_, self.networks_, *found)
        files.write(path, files.Model(type(self).__name__, self.get_params(deep=False), *parts))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Any:
        """Read an estimator that `save` wrote.

        Raises
        ------
        OSError
            If there is no such file or it cannot be read.
        ValueError
            If the file is damaged or is not one of this estimator; the message names it.
        """
        return _assemble(path, files.read(path, [cls.__name__]))

    def predictor(self) -> Predictor:
        """Return a handle that predicts for one row at a time, for servers."""
        return Predictor(self._fitted())

    def _become(self, model: files.Model) -> None:
        self._note_table(model.table)
        self.recipe_, self.networks_, self.target_name_ = model.recipe, model.networks, model.target
        self._model = model.networks[0] if len(model.networks) == 1 else Ensemble(model.networks)
        wrong = [network for network in model.networks if network.n_in != len(model.table.inputs)]
        if wrong or {network.loss for network in model.networks} != {self._loss}:
            raise ValueError("its networks are not those of its table")
        self._residuals = model.residuals.reshape(-1, model.networks[0].n_out)

    @property
    def network_(self) -> Network:
        """The network, if there is one member."""
        if len(self._fitted().networks_) > 1:
            raise AttributeError("there is more than one network: see networks_")
        return self.networks_[0]

    def _fitted(self) -> Any:
        if "networks_" not in vars(self):
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before "
                "using this estimator."
            )
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return "networks_" in vars(self)

    def _read(self, X: Any) -> NDArray[np.float64]:
        return self.table_.read(X, type(self).__name__)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = tags.input_tags.categorical = True
        return tags


def _name_of(y: Any) -> str | None:
    # Of a series of pandas or polars.
    name = getattr(y, "name", None)
    return name if isinstance(name, str) and name else None


def _weights(sample_weight: Any, raw: NDArray[Any]) -> NDArray[np.float64] | None:
    if sample_weight is None:
        return None
    return check_weights(_check_sample_weight(sample_weight, raw[:, :0], dtype=np.float64), len(raw))


def _part(data: Data, rows: NDArray[np.intp]) -> Data:
    X, y, weights = data
    return X[rows], y[rows], None if weights is None else weights[rows]


def split(
    groups: NDArray[np.intp], share: float, random_state: np.random.RandomState
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the numbers of the rows that stay, and of those that are held out: a share of each group.

    One row of each group stays, at least.
    """
    order = random_state.permutation(len(groups)).astype(np.intp)  # on Windows NumPy draws shorter integers
    stay, leave = [], []
    owed = 0.0
    for group in np.unique(groups):
        rows = order[groups[order] == group]
        owed += share * len(rows)
        n = min(round(owed), len(rows) - 1)
        owed -= n
        leave.append(rows[:n])
        stay.append(rows[n:])
    return np.sort(np.concatenate(stay)), np.sort(np.concatenate(leave))


def _assemble(path: Any, model: files.Model) -> Any:
    try:
        kind: Any = KINDS[model.kind]
        estimator = kind(**model.parameters)
        estimator._check_parameters()
        estimator._become(model)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a usable fastnn model of a table: {error}") from error
    return estimator


def load(path: str | os.PathLike[str]) -> TabularClassifier | TabularRegressor:
    """Read an estimator for tables, of either kind, that its `save` wrote.

    Raises
    ------
    OSError
        If there is no such file or it cannot be read.
    ValueError
        If the file is damaged or is not one of these; the message names it.
    """
    found: TabularClassifier | TabularRegressor = _assemble(path, files.read(path, list(KINDS)))
    return found


class Predictor:
    """Predictions of a fitted estimator for one row at a time, for servers.

    `TabularClassifier.predictor` and `TabularRegressor.predictor` make it.  Any number of threads may share it.

    Attributes
    ----------
    estimator : TabularClassifier or TabularRegressor

    Examples
    --------
    >>> rows = {"age": [31, None, 58, 44] * 20, "city": ["Rome", "Oslo", "Rome", ""] * 20}
    >>> predictor = TabularClassifier(random_state=0).fit(rows, ["yes", "no", "yes", "no"] * 20).predictor()
    >>> predictor.predict({"age": 30, "city": "Rome"})
    'yes'
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        self._read = estimator.table_.read_row
        self._model = estimator._model if isinstance(estimator._model, Ensemble) else estimator._model.predictor()

    def predict(self, row: Mapping[str, Any] | ArrayLike) -> Any:
        """Return the class or number that the estimator predicts for a row.

        Parameters
        ----------
        row : mapping of the columns' names to cells, or sequence of cells
        """
        return plain(self.estimator._answer(self._model.predict(self._read(row)))[0])

    def predict_proba(self, row: Mapping[str, Any] | ArrayLike) -> NDArray[Any]:
        """Return the probability (n_classes,) of each class for a row."""
        probabilities: NDArray[Any] = self._model.predict_proba(self._read(row))[0]
        return probabilities


class TabularClassifier(ClassifierMixin, _Tabular):  # type: ignore[misc]
    """Classifies the rows of a table: a multi-layer perceptron with what tables need before it, and good defaults.

    Parameters
    ----------
    n_members : int, default 1
        Networks that are trained, a core each, and predict together.
    columns : dict of str to {"number", "category", "boolean", "date", "ignored"}, or None, default None
        What columns are, by name, where it is known better than `Table.learn` finds.
    hidden_layer_sizes : tuple of int or "auto", default "auto"
        Units of the hidden layers.  This and what follows is chosen by the data if it is "auto"; `describe` tells how.
    learning_rate, batch_size, max_epochs, dropout, weight_decay, label_smoothing : number or "auto", default "auto"
        Of the training; see `fastnn.AdamW` and `fastnn.Trainer`.
    early_stopping : bool, default True
        Whether rows are held out to find when to stop.
    validation_fraction : float or "auto", default "auto"
        Share of the rows that are held out.
    refit : bool or "auto", default "auto"
        Whether the training is then repeated on all rows.
    calibrate : bool, default False
        Whether probabilities are calibrated on the held-out rows: the outputs before the softmax are divided by one
        temperature, which becomes part of the networks, and the order of the classes stays.
    class_weight : dict, "balanced" or None, default None
        Weights of the classes, as in scikit-learn.
    n_threads : int or None, default None
        None for the processors that the process may run on.  The results do not depend on it.
    random_state : int, RandomState or None, default None
        For the rows that are held out, the initial weights and the order of the rows.
    verbose : bool, default False
        Whether to show a progress bar.

    Attributes
    ----------
    classes_ : (n_classes,) array
    table_ : Table
        What became of the columns.
    recipe_ : Recipe
        How the fit ran, and why.
    networks_ : list of Network
        The members, from raw rows of `table_` to probabilities.
    network_ : Network
        The only member.
    history_ : list of History
        Of each member, with log-likelihoods of the held-out rows.
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array
        If the table had names.
    target_name_ : str or None
        Name of y, if it was a series.

    Examples
    --------
    >>> rows = {"age": [31, None, 58, 44] * 20, "city": ["Rome", "Oslo", "Rome", ""] * 20}
    >>> model = TabularClassifier(random_state=0).fit(rows, ["yes", "no", "yes", "no"] * 20)
    >>> model.predict({"age": [30, 60], "city": ["Rome", "Oslo"]}).tolist()
    ['yes', 'no']
    """

    _loss, _quantiles = "cross_entropy", ()

    def __init__(
        self,
        n_members: int = 1,
        *,
        columns: Mapping[str, str] | None = None,
        hidden_layer_sizes: Any = "auto",
        learning_rate: Any = "auto",
        batch_size: Any = "auto",
        max_epochs: Any = "auto",
        dropout: Any = "auto",
        weight_decay: Any = "auto",
        label_smoothing: Any = "auto",
        early_stopping: bool = True,
        validation_fraction: Any = "auto",
        refit: Any = "auto",
        calibrate: bool = False,
        class_weight: Any = None,
        n_threads: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        keep(self, locals())

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if _switch(plain(self.calibrate), "calibrate") and not self.early_stopping:
            raise ValueError("calibrate needs rows that are held out, for which early_stopping must be True")

    @property
    def _n_classes(self) -> int:
        return len(self.classes_)

    def _read_targets(self, y: Any, n_rows: int, first: bool = True) -> NDArray[np.intp]:
        y = _check_y(y, multi_output=False, estimator=self)
        check_classification_targets(y)
        check_consistent_length(y, range(n_rows))
        if first:
            self.classes_ = np.unique(y)
        codes: NDArray[np.intp] = np.searchsorted(self.classes_, y).clip(0, len(self.classes_) - 1)
        if not np.array_equal(self.classes_[codes], y):
            raise ValueError(f"y_val has classes that y has not: it has {np.unique(y)}, y has {self.classes_}")
        return codes

    def _weigh(self, targets: NDArray[Any], weights: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        if self.class_weight is None:
            return weights
        classes, labels = self.classes_, self.classes_[targets]
        own: NDArray[np.float64] = compute_class_weight(self.class_weight, classes=classes, y=labels)[targets]
        return own if weights is None else own * weights

    def _set_scale(self, targets: NDArray[Any], weights: NDArray[np.float64] | None) -> None:
        pass

    def _scaled(self, data: Data) -> Data:
        return data

    def _prior(self, targets: NDArray[np.intp], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        # The logarithms of the classes' shares, as if each had half a row more.
        counts = np.bincount(targets, weights, minlength=self._n_classes) + 0.5
        logits: NDArray[np.float64] = np.log(counts / counts.sum())
        return logits

    def _look_at(self, networks: list[Network], validation: Data | None) -> None:
        if self.calibrate:
            if validation is None:
                raise ValueError(f"calibrate needs rows that are held out: give {FEWEST_ROWS} rows at least, or X_val")
            raw, targets, weights = validation
            outputs = np.array([network._outputs(raw, self.n_threads) for network in networks])
            self._temperature = temperature_of(outputs, targets, weights)

    def _finish(self, network: Network) -> None:
        network.weights[-1] /= self._temperature
        network.biases[-1] /= self._temperature

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Probability (n, n_classes) of each class, in the order of `classes_`, for each row of a table."""
        found: NDArray[Any] = self._fitted()._model.predict_proba(self._read(X), self.n_threads)
        return found

    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Logarithm (n, n_classes) of `predict_proba`."""
        found: NDArray[Any] = np.log(self.predict_proba(X))
        return found

    def predict(self, X: Any) -> NDArray[Any]:
        """Most probable class (n,) of each row of a table."""
        return self._answer(self._fitted()._model.predict(self._read(X), self.n_threads))

    def _answer(self, codes: NDArray[np.intp]) -> NDArray[Any]:
        found: NDArray[Any] = self.classes_[codes]
        return found

    def _become(self, model: files.Model) -> None:
        if model.classes is None or {network.n_out for network in model.networks} != {len(model.classes)}:
            raise ValueError("its networks are not those of its classes")
        self.classes_ = model.classes
        super()._become(model)


class TabularRegressor(RegressorMixin, _Tabular):  # type: ignore[misc]
    """Predicts a number for each row of a table: a multi-layer perceptron with what tables need before it.

    Parameters
    ----------
    n_members, columns, hidden_layer_sizes, learning_rate, batch_size, max_epochs, dropout, weight_decay
        As for `TabularClassifier`.
    loss : {"squared_error", "absolute_error", "huber"}, default "squared_error"
        Huber's has its threshold at one standard deviation of the targets.
    quantiles : sequence of float, default ()
        Levels between 0 and 1, increasing, such as ``(0.05, 0.5, 0.95)``: instead of the mean, their quantiles are
        learnt, by the quantile loss; see `predict_quantiles` and `predict_interval`.
    early_stopping, validation_fraction, refit, n_threads, random_state, verbose
        As for `TabularClassifier`.

    Attributes
    ----------
    table_, recipe_, networks_, network_, history_, n_features_in_, feature_names_in_, target_name_
        As of `TabularClassifier`; networks are from raw rows to numbers in the targets' unit.

    Examples
    --------
    >>> rows = {"size": [50, 80, None, 120] * 20, "city": ["Rome", "Oslo", "Rome", ""] * 20}
    >>> model = TabularRegressor(random_state=0).fit(rows, [150.0, 320.0, 210.0, 400.0] * 20)
    >>> model.predict({"size": [80], "city": ["Oslo"]}).shape
    (1,)
    """

    _n_classes = None

    def __init__(
        self,
        n_members: int = 1,
        *,
        columns: Mapping[str, str] | None = None,
        hidden_layer_sizes: Any = "auto",
        learning_rate: Any = "auto",
        batch_size: Any = "auto",
        max_epochs: Any = "auto",
        dropout: Any = "auto",
        weight_decay: Any = "auto",
        loss: str = "squared_error",
        quantiles: Sequence[float] = (),
        early_stopping: bool = True,
        validation_fraction: Any = "auto",
        refit: Any = "auto",
        n_threads: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        keep(self, locals())

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice(self.loss, "loss", LOSSES)
        self._quantiles  # noqa: B018  is checked

    @property
    def _loss(self) -> str:
        return "quantile" if len(self.quantiles) else LOSSES[self.loss]

    @property
    def _quantiles(self) -> tuple[float, ...]:
        return check_quantiles(self.quantiles, self._loss, len(self.quantiles))

    def _read_targets(self, y: Any, n_rows: int, first: bool = True) -> NDArray[np.float64]:
        y = _check_y(y, multi_output=False, y_numeric=True, estimator=self)
        check_consistent_length(y, range(n_rows))
        return np.asarray(y, np.float64)

    @property
    def _measured(self) -> bool:
        return len(self.quantiles) > 0

    def _weigh(self, targets: NDArray[Any], weights: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        return weights

    def _set_scale(self, targets: NDArray[Any], weights: NDArray[np.float64] | None) -> None:
        # Halves, so that no sum or square overflows.
        center = np.average(targets / 2, weights=weights) * 2
        largest = np.abs(targets / 2 - center / 2).max() * 2
        spread = largest * math.sqrt(np.average(((targets - center) / largest) ** 2, weights=weights)) if largest else 0
        self._center, self._spread = float(center), float(spread) or 1.0

    def _scaled(self, data: Data) -> Data:
        X, y, weights = data
        return X, (y - self._center) / self._spread, weights

    def _prior(self, targets: NDArray[Any], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        return np.quantile(targets, self._quantiles) if self._quantiles else np.zeros(1)

    def _finish(self, network: Network) -> None:
        network.weights[-1] = network.weights[-1].astype(np.float64) * self._spread
        network.biases[-1] = network.biases[-1].astype(np.float64) * self._spread + self._center

    def _look_at(self, networks: list[Network], validation: Data | None) -> None:
        if validation is not None:
            raw, targets, weights = validation
            predicted = Ensemble(networks).predict(raw, self.n_threads).astype(np.float64)
            residuals = (predicted - targets[:, None]) * self._spread
            self._residuals = kept_of(residuals if weights is None else residuals[weights > 0])

    def predict_quantiles(self, X: Any) -> NDArray[Any]:
        """Quantiles (n, n_quantiles) for each row of a table, which increase, if the model has learnt `quantiles`."""
        if not len(self.quantiles):
            raise TypeError("predict_quantiles needs a model with quantiles, such as (0.05, 0.5, 0.95)")
        return self._quantiles_of(self._fitted()._read(X))

    def _quantiles_of(self, raw: NDArray[np.float64]) -> NDArray[Any]:
        found: NDArray[Any] = np.sort(self._model.predict(raw, self.n_threads), axis=1)
        return found

    def predict_interval(self, X: Any, coverage: float = 0.9) -> NDArray[np.float64]:
        """Return lower and upper limits for each row of a table.

        Parameters
        ----------
        X : as for `fit`
        coverage : float, default 0.9
            Share of the rows whose numbers are to be within their limits, from above 0 to below 1.

        Returns
        -------
        (n, 2) array
            With `quantiles`, best those of both limits, wider where numbers are less certain; otherwise as wide
            everywhere.

        Raises
        ------
        ValueError
            If too few rows were held out for this coverage, such as 8 for 0.9.

        Notes
        -----
        How far the predictions for the held-out rows were off decides the width [1]_, so that rows like these are
        covered as often as asked for, whatever the network: on average over such rows, not for each kind of row.  They
        also chose the epoch, which matters little.  With `refit` the network is not the one that was measured, and the
        share is not sure; so "auto" does not refit where there are `quantiles`.

        References
        ----------
        .. [1] Y. Romano, E. Patterson, E. Candes, "Conformalized quantile regression", NeurIPS 2019.
        """
        coverage = check_number(plain(coverage), "coverage", 0, 1, open_left=True)
        if not len(self._fitted()._residuals):
            raise ValueError("intervals need rows that are held out: fit with early_stopping=True, or with more rows")
        predicted = self._quantiles_of(self._read(X)).astype(np.float64)
        return interval_of(predicted, self._residuals, self.networks_[0].quantiles or (0.5,), coverage)

    def predict(self, X: Any) -> NDArray[Any]:
        """Number (n,) for each row of a table; with `quantiles`, that of the level next to one half."""
        return self._answer(self._fitted()._model.predict(self._read(X), self.n_threads))

    def _answer(self, outputs: NDArray[Any]) -> NDArray[Any]:
        middle = int(np.abs(np.array(self.quantiles) - 0.5).argmin()) if len(self.quantiles) else 0
        found: NDArray[Any] = np.sort(outputs, axis=1)[:, middle]  # quantiles may cross
        return found

    def _become(self, model: files.Model) -> None:
        if {network.quantiles for network in model.networks} != {self._quantiles}:
            raise ValueError("its networks are not those of its quantiles")
        super()._become(model)


# By their names in files.
KINDS = {kind.__name__: kind for kind in (TabularClassifier, TabularRegressor)}
