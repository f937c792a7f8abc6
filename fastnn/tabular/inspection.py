"""What a model makes of a table: which columns it needs, how predictions depend on them, what more rows would give.

All works on raw rows, which are read once, and takes a column of the table as a whole: all numbers of a date at once.
The definitions are scikit-learn's, and with the same random numbers so are the results.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import model_selection
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length

from fastnn._validation import check_integer, check_not_empty
from fastnn.plotting import new_figure
from fastnn.tabular.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The part of the rows beyond which a number's values are left out of a grid.
TAIL = 0.02

DAY_ZERO = np.datetime64("1970-01-01", "s")
SECONDS = 86400.0

GREY = "#999999"


def _on_raw_rows(estimator: Any) -> Any:
    # The fitted estimator, taking the raw rows of its table instead of tables.
    model = copy.copy(estimator._fitted())
    model._read = np.asarray
    return model


def _log_likelihood(estimator: Any, X: Any, y: ArrayLike, sample_weight: Any = None) -> float:
    # What scikit-learn calls "neg_log_loss", but rows need not be of all classes.
    classes, labels = estimator.classes_, np.asarray(y)
    codes = np.searchsorted(classes, labels).clip(0, len(classes) - 1)
    if not np.array_equal(classes[codes], labels):
        raise ValueError(f"y must hold classes of the estimator, which are {classes}")
    return float(estimator._model.log_likelihood(estimator._read(X), codes, sample_weight, estimator.n_threads))


def _scoring_of(estimator: Any, scoring: Any) -> tuple[Callable[..., float], str]:
    # The scorer, and its name for people.
    if scoring is None and is_classifier(estimator):
        return _log_likelihood, "log-likelihood"
    scorer = check_scoring(estimator, "r2" if scoring is None else scoring)
    name = "R2" if scoring is None else scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")
    return scorer, name


def _places(table: Table) -> dict[str, slice]:
    # Where in a raw row the numbers of each column are.
    ends = itertools.accumulate(len(column.inputs) for column in table.columns)
    return {column.name: slice(end - len(column.inputs), end) for column, end in zip(table.columns, ends, strict=True)}


@dataclass(frozen=True, eq=False)
class Importance:
    """How much worse a model's score becomes when the values of a column are shuffled among the rows.

    Attributes
    ----------
    columns : tuple of str
        All columns of the table, in order.
    values : (n_columns, n_repeats) array
        Score of the rows as they are, minus that with the column shuffled.
    score : float
        Of the rows as they are.
    scoring : str
        What the score is.
    """

    columns: tuple[str, ...]
    values: NDArray[np.float64]
    score: float
    scoring: str

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean (n_columns,) over the repeats."""
        found: NDArray[np.float64] = self.values.mean(axis=1)
        return found

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation (n_columns,) over the repeats."""
        found: NDArray[np.float64] = self.values.std(axis=1)
        return found

    @property
    def order(self) -> NDArray[np.intp]:
        """Numbers (n_columns,) of the columns, from the most important on."""
        return np.argsort(-self.mean, kind="stable")

    def __str__(self) -> str:
        width = max(len("column"), *map(len, self.columns))
        lines = [f"{self.columns[k]:<{width}}  {self.mean[k]:10.5f} +- {self.std[k]:.5f}" for k in self.order]
        head = f"{'column':<{width}}  importance    ({self.scoring} without shuffling: {self.score:.5f})"
        return "\n".join([head, *lines])

    def plot(self, most: int = 20) -> Figure:
        """Draw the importance of the most important columns, with the standard deviation over the repeats."""
        shown = self.order[: check_integer(most, "most", 1)][::-1]
        figure = new_figure(6, 1.1 + 0.26 * len(shown))
        ax = figure.subplots()
        ax.barh([self.columns[k] for k in shown], self.mean[shown], xerr=self.std[shown], color="C0", ecolor=GREY)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel(f"importance: what shuffling takes from {self.scoring}")
        ax.grid(axis="x", alpha=0.3)
        return figure


def permutation_importance(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    *,
    scoring: Any = None,
    n_repeats: int = 5,
    sample_weight: ArrayLike | None = None,
    random_state: Any = None,
) -> Importance:
    """Measure how much a fitted estimator relies on each column [1]_.

    Parameters
    ----------
    estimator : TabularClassifier or TabularRegressor
        Fitted.
    X, y : as for its ``fit``
        Rows and their targets, better not those that it was fitted to.
    scoring : str, callable or None, default None
        As in scikit-learn; None is the mean log-likelihood, in nats, for classes, and R2 for numbers.
    n_repeats : int, default 5
        How often each column is shuffled.
    sample_weight : (n,) array or None, default None
        Weights of the rows in the score.
    random_state : int, RandomState or None, default None
        For the shuffling.

    Returns
    -------
    Importance
        Print it, or ``plot()`` it.  Of columns that say the same, each may do without the other: both are then less
        important than they are together.

    Notes
    -----
    Values are those of `sklearn.inspection.permutation_importance` with the same `random_state`, where a column is one
    number.

    References
    ----------
    .. [1] L. Breiman, "Random forests", Machine Learning 45 (2001).
    """
    n_repeats = check_integer(n_repeats, "n_repeats", 1)
    raw, model = estimator._fitted()._read(X), _on_raw_rows(estimator)
    check_consistent_length(raw, y)
    check_not_empty(len(raw), "X")
    scorer, name = _scoring_of(estimator, scoring)
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    score = float(scorer(model, raw, y, **weights))
    places = _places(estimator.table_)
    values = np.zeros((len(places), n_repeats))
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max + 1)
    for k, place in enumerate(places.values()):
        if place.start == place.stop:
            continue  # a constant, say
        generator, order, own = np.random.RandomState(seed), np.arange(len(raw)), raw[:, place].copy()
        for repeat in range(n_repeats):
            generator.shuffle(order)
            raw[:, place] = raw[order, place]
            values[k, repeat] = score - float(scorer(model, raw, y, **weights))
        raw[:, place] = own
    return Importance(tuple(places), values, score, name)


@dataclass(frozen=True, eq=False)
class Dependence:
    """How predictions depend on one column, or on two.

    Attributes
    ----------
    columns : tuple of str
        One or two.
    grid : tuple of arrays, one a column
        Values of the column: numbers, dates, or values of a category.
    average : (n_outputs, n_values) or (n_outputs, n_values, n_values) array
        Mean prediction over all rows, if the columns had these values in each.
    curves : (n_outputs, n_curves, n_values) or (n_outputs, n_curves, n_values, n_values) array
        Predictions for single rows.
    outputs : tuple of str
        What is predicted.
    """

    columns: tuple[str, ...]
    grid: tuple[NDArray[Any], ...]
    average: NDArray[np.float64]
    curves: NDArray[np.float64]
    outputs: tuple[str, ...]

    def plot(self) -> Figure:
        """Draw the mean prediction: of one column with curves of single rows, of two as an area for each output."""
        if len(self.columns) == 1:
            figure = new_figure(5.4, 3.6)
            self._draw_line(figure.subplots())
            return figure
        figure = new_figure(4.6 * len(self.outputs), 3.8)
        for k, ax in enumerate(figure.subplots(1, len(self.outputs), squeeze=False)[0]):
            first, second = (_positions(values) for values in self.grid)
            area = ax.pcolormesh(first, second, self.average[k].T, shading="nearest", cmap="viridis")
            figure.colorbar(area, ax=ax, label=self.outputs[k])
            ax.set_xlabel(self.columns[0])
            ax.set_ylabel(self.columns[1])
            _name_ticks(ax.xaxis, self.grid[0])
            _name_ticks(ax.yaxis, self.grid[1])
        return figure

    def _draw_line(self, ax: Axes) -> None:
        places, ordered = _positions(self.grid[0]), not _is_category(self.grid[0])
        line, marks = ("-", ("", ".")) if ordered else ("", ("_", "o"))
        if len(self.outputs) == 1:
            ax.plot(places, self.curves[0].T, color=GREY, linewidth=0.5, alpha=0.5, linestyle=line, marker=marks[0])
        for label, average in zip(self.outputs, self.average, strict=True):
            ax.plot(places, average, linewidth=2, linestyle=line, marker=marks[1], label=label)
        ax.set_xlabel(self.columns[0])
        if len(self.outputs) == 1:
            ax.set_ylabel(self.outputs[0])
        else:
            ax.legend(frameon=False, fontsize=8)
        if not ordered:
            ax.set_xlim(-0.5, len(places) - 0.5)
        _name_ticks(ax.xaxis, self.grid[0])
        ax.grid(alpha=0.3)


def _is_category(values: NDArray[Any]) -> bool:
    return values.dtype.kind not in "fM"


def _positions(values: NDArray[Any]) -> NDArray[Any]:
    return np.arange(len(values)) if _is_category(values) else values


def _name_ticks(axis: Any, values: NDArray[Any]) -> None:
    if _is_category(values):
        names = [str(value) for value in values]
        long = axis.axis_name == "x" and sum(map(len, names)) > 40
        axis.set_ticks(range(len(values)), names, fontsize=8, rotation=90 if long else 0)
    elif values.dtype.kind == "M" and axis.axis_name == "x":
        axis.set_tick_params(rotation=30)


def partial_dependence(
    estimator: Any, X: Any, columns: str | Sequence[str], *, n_values: int = 20, n_curves: int = 50
) -> Dependence:
    """Show how predictions depend on one column, or on two, the others being as they are [1]_ [2]_.

    Parameters
    ----------
    estimator : TabularClassifier or TabularRegressor
        Fitted.
    X : as for its ``fit``
        Rows over which predictions are averaged.
    columns : str, or two of them
        Names; ``x0``, ``x1``, ... are those of an array.
    n_values : int, default 20
        Values of each column at most: of a number or date those at so many quantiles, of a category the most frequent.
    n_curves : int, default 50
        Rows at most whose own curves are kept; they are evenly spread over X.

    Returns
    -------
    Dependence
        Of the probability of each class, of the second alone if there are two; or of the number, or its quantiles.
        ``plot()`` draws it.  Where columns go together, it may average over rows that cannot be.

    Notes
    -----
    At these values it is what `sklearn.inspection.partial_dependence` returns with ``method="brute"``.

    References
    ----------
    .. [1] J. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 29 (2001).
    .. [2] A. Goldstein, A. Kapelner, J. Bleich, E. Pitkin, "Peeking inside the black box: visualizing statistical
       learning with plots of individual conditional expectation", J. Comput. Graph. Stat. 24 (2015).
    """
    n_values, n_curves = check_integer(n_values, "n_values", 1), check_integer(n_curves, "n_curves", 0)
    raw, model = estimator._fitted()._read(X), _on_raw_rows(estimator)
    check_not_empty(len(raw), "X")
    names = _check_columns(estimator.table_, columns)
    places = [_places(estimator.table_)[name] for name in names]
    grids = [_grid(estimator.table_, raw[:, place], name, n_values) for name, place in zip(names, places, strict=True)]
    predict, outputs = _response(model)
    shown = np.unique(np.linspace(0, len(raw) - 1, min(n_curves, len(raw))).astype(np.intp))
    shape = tuple(len(values) for values, _ in grids)
    average, curves = np.empty((len(outputs), *shape)), np.empty((len(outputs), len(shown), *shape))
    for index in np.ndindex(shape):
        for place, (_, points), i in zip(places, grids, index, strict=True):
            raw[:, place] = points[i]
        predicted = predict(raw)
        average[(..., *index)], curves[(..., *index)] = predicted.mean(axis=0, dtype=np.float64), predicted[shown].T
    return Dependence(names, tuple(values for values, _ in grids), average, curves, outputs)


def _check_columns(table: Table, columns: str | Sequence[str]) -> tuple[str, ...]:
    names = (columns,) if isinstance(columns, str) else tuple(map(str, columns))
    known = [column.name for column in table.columns if column.inputs]
    if not 1 <= len(set(names)) == len(names) <= 2 or not set(names) <= set(known):
        shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
        raise ValueError(f"columns must be the name of a column, or of two, not {columns!r}; those used are {shown}")
    return names


def _grid(table: Table, raw: NDArray[np.float64], name: str, n_values: int) -> tuple[NDArray[Any], NDArray[Any]]:
    # Values of a column for people, and its raw numbers (n_values, n_inputs), from the column's raw rows.
    column = table.columns[table.names.index(name)]
    present = raw[~np.isnan(raw[:, 0])]
    if column.values:
        codes, counts = np.unique(present[present[:, 0] >= 0, 0], return_counts=True)
        codes = np.sort(codes[np.argsort(-counts, kind="stable")[:n_values]])
        values = np.array([column.values[int(code)] for code in codes], object)
        points = codes[:, None]
    else:
        order = np.argsort(present[:, 0], kind="stable")
        at = np.linspace(TAIL, 1 - TAIL, n_values) * (len(order) - 1)
        points = present[order[np.unique(np.round(at).astype(np.intp))]] if len(order) else present
        points = points[np.unique(points[:, 0], return_index=True)[1]]
        values = points[:, 0]
        if column.kind == "date":
            values = DAY_ZERO + np.round(values * SECONDS).astype("timedelta64[s]")
    if not len(points):
        raise ValueError(f"X has no value of {name!r} that the estimator knows")
    return values, points


def _response(model: Any) -> tuple[Callable[[Any], NDArray[Any]], tuple[str, ...]]:
    # The function from raw rows to what is shown (n, n_outputs), and names of the outputs.
    if not is_classifier(model):
        levels = model.networks_[0].quantiles
        return model._quantiles_of, tuple(f"quantile {level:g}" for level in levels) or ("prediction",)
    first = 1 if len(model.classes_) == 2 else 0
    names = tuple(f"probability of {name}" for name in model.classes_[first:])
    return lambda raw: model.predict_proba(raw)[:, first:], names


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Scores by the number of rows that a model is fitted to.

    Attributes
    ----------
    sizes : (n_sizes,) array of int
        Rows to fit to.
    train_scores, test_scores : (n_sizes, n_splits) arrays
        On the rows of the fit, and on the rows that the split keeps for testing.
    seconds : (n_sizes, n_splits) array
        Of each fit.
    scoring : str
        What the scores are.
    """

    sizes: NDArray[np.intp]
    train_scores: NDArray[np.float64]
    test_scores: NDArray[np.float64]
    seconds: NDArray[np.float64]
    scoring: str

    def __str__(self) -> str:
        lines = [f"{'rows':>8}  {'train':>10}  {'test':>10}  +- {'':7}  seconds    ({self.scoring})"]
        for k, size in enumerate(self.sizes):
            train, test, seconds = (each[k] for each in (self.train_scores, self.test_scores, self.seconds))
            lines.append(
                f"{size:8,}  {train.mean():10.5f}  {test.mean():10.5f}  +- {test.std():7.5f}  {seconds.mean():7.2f}"
            )
        return "\n".join(lines)

    def plot(self) -> Figure:
        """Draw mean scores, and one standard deviation over the splits on both sides."""
        figure = new_figure(5.4, 3.6)
        ax = figure.subplots()
        for scores, label, color in (
            (self.train_scores, "rows of the fit", "C0"),
            (self.test_scores, "other rows", "C1"),
        ):
            mean, std = scores.mean(axis=1), scores.std(axis=1)
            ax.plot(self.sizes, mean, marker=".", color=color, label=label)
            ax.fill_between(self.sizes, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
        ax.set_xlabel("rows to fit to")
        ax.set_ylabel(self.scoring)
        ax.legend(frameon=False)
        ax.grid(alpha=0.3)
        return figure


def learning_curve(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    *,
    train_sizes: ArrayLike = (0.1, 0.2, 0.4, 0.7, 1.0),
    cv: Any = 5,
    scoring: Any = None,
    random_state: Any = None,
) -> LearningCurve:
    """Fit to more and more rows, to see whether still more would help: `sklearn.model_selection.learning_curve`.

    Parameters
    ----------
    estimator : TabularClassifier or TabularRegressor
        It is cloned, and need not be fitted.
    X : frame or array, y : (n,) array
        Rows and their targets.
    train_sizes : sequence of float or int, default (0.1, 0.2, 0.4, 0.7, 1.0)
        Shares of the rows that a split trains on, or numbers of rows.
    cv : int, or what scikit-learn takes, default 5
        Splits.
    scoring : str, callable or None, default None
        As in scikit-learn; None is the mean log-likelihood, in nats, for classes, and R2 for numbers.
    random_state : int, RandomState or None, default None
        For the order of the rows, of which each fit takes the first.

    Returns
    -------
    LearningCurve
        Print it, or ``plot()`` it.
    """
    scorer, name = _scoring_of(estimator, scoring)
    sizes, train, test, seconds, _ = model_selection.learning_curve(
        estimator,
        X,
        y,
        train_sizes=train_sizes,
        cv=cv,
        scoring=scorer,
        shuffle=True,
        random_state=random_state,
        return_times=True,
        error_score="raise",
    )
    return LearningCurve(sizes, train, test, seconds, name)
