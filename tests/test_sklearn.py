"""The estimators: scikit-learn's own checks, the same numbers as scikit-learn's estimators, and what goes beyond."""

import copy
import itertools
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
import warnings

import joblib
import numpy as np
import pytest
import sklearn
from pairs import parametrize_pairs
from scipy import sparse
from sklearn import datasets, linear_model, neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

import fastnn
from fastnn.callbacks import Callback
from fastnn.engine.local import Engine
from fastnn.engine.threads import forks
from fastnn.layers import AveragePool2D, Conv2D, Dense, GlobalAveragePool2D, MaxPool2D
from fastnn.optimizers import OPTIMIZERS
from fastnn.sklearn import MLPClassifier, MLPRegressor, NetworkClassifier, NetworkRegressor, SoftmaxClassifier

# Fits that are compared epoch by epoch end before they converge.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SKLEARN = tuple(int(number) for number in sklearn.__version__.split(".")[:2])

PERCEPTRONS = [MLPClassifier, MLPRegressor]
ESTIMATORS = [SoftmaxClassifier, *PERCEPTRONS]  # which scikit-learn has too
NETWORKS = [NetworkClassifier, NetworkRegressor]
REGRESSORS = [MLPRegressor, NetworkRegressor]


@pytest.fixture(scope="module")
def digits():
    X, y = datasets.load_digits(return_X_y=True)
    return X[:700] / 16, y[:700]


@pytest.fixture(scope="module")
def targets(digits):
    """Of each kind, for the digits."""
    _, y = digits
    return {
        "multi-class": y,
        "binary": np.array(["even", "odd"])[y % 2],
        "multi-label": np.stack([y % 2, y % 3 == 0, y > 4], axis=1).astype(int),
        "number": y / 10,
        "numbers": np.stack([y / 10, np.sin(y)], axis=1),
    }


def kinds_of(estimator):
    if estimator in REGRESSORS:
        return ["number", "numbers"]
    return ["multi-class", "binary", *([] if estimator is SoftmaxClassifier else ["multi-label"])]


EACH_KIND = [(estimator, kind) for estimator in (*ESTIMATORS, *NETWORKS) for kind in kinds_of(estimator)]
EACH_PERCEPTRON = [(estimator, kind) for estimator, kind in EACH_KIND if estimator in PERCEPTRONS]


def going_by(estimator, solver, learning_rate=None):
    """Parameters for a solver and, if it goes by steps, a learning rate."""
    if estimator not in NETWORKS:
        return {"solver": solver} | ({} if learning_rate is None else {"learning_rate_init": learning_rate})
    stepping = solver != "lbfgs" and learning_rate is not None
    return {"optimizer": OPTIMIZERS[solver](learning_rate) if stepping else solver}


def theirs(estimator):
    """scikit-learn's estimator of that name."""
    if estimator is SoftmaxClassifier:
        return linear_model.LogisticRegression
    return getattr(neural_network, estimator.__name__)


def with_checks(estimators):
    """Run scikit-learn's checks; before 1.8 it has an iterator of them, which pytest 9 warns of."""
    mark = parametrize_with_checks(estimators)
    names, checks = mark.args
    return pytest.mark.parametrize(names, list(checks), **mark.kwargs)


@with_checks([estimator() for estimator in (*ESTIMATORS, *NETWORKS)])
def test_passes_scikit_learns_checks(estimator, check):
    check(estimator)


@with_checks(
    [
        SoftmaxClassifier(solver="adam", learning_rate_init=0.1),
        MLPRegressor(solver="lbfgs"),
        MLPClassifier((30, 20)),
        NetworkClassifier([20, Dense(10, "tanh")], optimizer=fastnn.SGD(0.1, 0.9), l2=1e-3),
        NetworkRegressor(optimizer="lbfgs"),
    ]
)
def test_passes_scikit_learns_checks_with_other_parameters(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_parameters_are_scikit_learns_and_more(estimator):
    ours, others = estimator().get_params(), theirs(estimator)().get_params()
    unknown = (
        {"penalty", "l1_ratio", "dual", "intercept_scaling", "n_jobs"} if estimator is SoftmaxClassifier else set()
    )
    others.pop("multi_class", None)  # went with scikit-learn 1.8
    assert set(others) - set(ours) == unknown
    assert all(ours[name] == others[name] for name in set(others) - unknown)
    assert {"callbacks", "n_threads"} <= set(ours) - set(others)


SETTINGS = {
    "sgd": {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.1},
    "momentum": {"solver": "sgd", "nesterovs_momentum": False, "learning_rate_init": 0.02},
    "nesterov": {"solver": "sgd", "learning_rate_init": 0.02},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.1, "learning_rate_init": 0.2},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.02, "n_iter_no_change": 2},
    "adam": {},
    "no hidden layer": {"hidden_layer_sizes": ()},
    "two hidden layers": {"hidden_layer_sizes": (9, 7), "activation": "tanh", "alpha": 1.0, "batch_size": 64},
    "logistic": {"hidden_layer_sizes": 9, "activation": "logistic", "batch_size": 10_000},
    "identity": {"activation": "identity"},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 2, "validation_fraction": 0.2},
    "stops by itself": {"tol": 0.1, "n_iter_no_change": 1},
}


@pytest.mark.filterwarnings("ignore:.*going to be clipped")
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("estimator", "kind"), EACH_PERCEPTRON)
def test_follows_scikit_learn_from_the_same_random_state(digits, targets, estimator, kind, setting):
    if (kind, setting) == ("binary", "early stopping") and SKLEARN < (1, 8):
        pytest.skip("scikit-learn before 1.8 cannot stop early with strings for classes")
    X, y = digits[0], targets[kind]
    options = {"max_iter": 20, "random_state": 3, "hidden_layer_sizes": (20,), **SETTINGS[setting]}
    ours, other = estimator(**options).fit(X, y), theirs(estimator)(**options).fit(X, y)
    np.testing.assert_allclose(ours.loss_curve_, other.loss_curve_, rtol=1e-6)
    for mine, its in zip(ours.coefs_ + ours.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-6)
    if other.validation_scores_ is None:
        assert ours.validation_scores_ is None
        assert ours.best_loss_ == pytest.approx(other.best_loss_, rel=1e-6)
    else:
        np.testing.assert_allclose(ours.validation_scores_, other.validation_scores_, rtol=1e-6)
        assert ours.best_validation_score_ == pytest.approx(other.best_validation_score_, rel=1e-6)
        assert ours.best_loss_ is None
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(other, name)
    assert ours.loss_ == pytest.approx(other.loss_, rel=1e-6)
    if estimator is MLPClassifier:
        np.testing.assert_array_equal(ours.classes_, other.classes_)
        np.testing.assert_allclose(ours.predict_proba(X), other.predict_proba(X), rtol=0, atol=1e-6)
        np.testing.assert_allclose(ours.predict_log_proba(X), other.predict_log_proba(X), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(ours.predict(X), other.predict(X))
        assert ours.predict(X).dtype == other.predict(X).dtype
    else:
        np.testing.assert_allclose(ours.predict(X), other.predict(X), rtol=0, atol=1e-6)
    assert ours.score(X, y) == pytest.approx(other.score(X, y), rel=1e-6)


@pytest.mark.parametrize("setting", ["sgd", "nesterov", "adam"])
@pytest.mark.parametrize(("estimator", "kind"), EACH_PERCEPTRON)
def test_follows_scikit_learn_from_planted_parameters(rng, digits, targets, estimator, kind, setting):
    X, y = digits[0], targets[kind]
    options = {"max_iter": 1, "n_iter_no_change": 100, "shuffle": False, "warm_start": True, **SETTINGS[setting]}
    ours, other = estimator((20,), **options), theirs(estimator)(hidden_layer_sizes=(20,), **options)
    if estimator is MLPRegressor:
        ours = estimator(hidden_layer_sizes=(20,), **options)
    ours.fit(X, y)
    other.fit(X, y)
    coefs = [0.3 * rng.standard_normal(W.shape) for W in other.coefs_]
    intercepts = [0.3 * rng.standard_normal(b.shape) for b in other.intercepts_]
    for model in (ours, other):
        model.coefs_, model.intercepts_ = [W.copy() for W in coefs], [b.copy() for b in intercepts]
        model.set_params(max_iter=20).fit(X, y)
    assert len(ours.loss_curve_) == len(other.loss_curve_) == 21
    np.testing.assert_allclose(ours.loss_curve_[1:], other.loss_curve_[1:], rtol=1e-6)


@pytest.mark.parametrize(("estimator", "kind"), EACH_PERCEPTRON)
@pytest.mark.parametrize(
    ("solver", "rates"),
    [
        ("sgd", {}),
        ("adam", {}),
        ("sgd", {"learning_rate": "invscaling", "power_t": 0.1}),
        ("sgd", {"learning_rate": "adaptive", "tol": 10.0, "n_iter_no_change": 1}),
    ],
)
def test_partial_fit_and_warm_starts_follow_scikit_learn(digits, targets, estimator, kind, solver, rates):
    X, y = digits[0], targets[kind]
    options = {"hidden_layer_sizes": (9,), "solver": solver, "random_state": 0, "learning_rate_init": 0.02, **rates}
    ours, other = estimator(**options), theirs(estimator)(**options)
    classes = np.arange(3) if kind == "multi-label" else np.unique(y)
    for model in (ours, other):
        for part in range(4):
            rows = slice(150 * part, 150 * part + 250)
            first = {"classes": classes} if estimator is MLPClassifier and part == 0 else {}
            model.partial_fit(X[rows], y[rows], **first)
        model.set_params(warm_start=True, max_iter=3).fit(X, y).fit(X, y)
        model.partial_fit(X, y)
    np.testing.assert_allclose(ours.loss_curve_, other.loss_curve_, rtol=1e-6)
    assert (ours.n_iter_, ours.t_) == (other.n_iter_, other.t_)
    np.testing.assert_allclose(ours.coefs_[0], other.coefs_[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("estimator", "kind"), EACH_PERCEPTRON)
def test_sample_weights_follow_scikit_learn(rng, digits, targets, estimator, kind):
    X, y = digits[0], targets[kind]
    weights = rng.uniform(0, 3, len(y))
    options = {"hidden_layer_sizes": (9,), "max_iter": 20, "random_state": 0, "alpha": 1.0}
    for batch_size in (len(y), 100):
        options["batch_size"] = batch_size
        ours, other = estimator(**options), theirs(estimator)(**options)
        for model in (ours, other):
            model.fit(X, y, sample_weight=weights)
        np.testing.assert_allclose(ours.coefs_[0], other.coefs_[0], rtol=0, atol=1e-6)
        # Batches count by their weights here, and by their rows there.
        np.testing.assert_allclose(ours.loss_curve_, other.loss_curve_, rtol=1e-6 if batch_size == len(y) else 0.03)


@pytest.mark.parametrize(("estimator", "kind"), [pair for pair in EACH_PERCEPTRON if pair[1] != "numbers"])
def test_lbfgs_reaches_scikit_learns_loss(digits, targets, estimator, kind):
    X, y = digits[0], targets[kind]
    options = {"hidden_layer_sizes": (9,), "solver": "lbfgs", "alpha": 10.0, "max_iter": 2000, "random_state": 0}
    ours, other = estimator(activation="tanh", **options).fit(X, y), theirs(estimator)(activation="tanh", **options)
    assert ours.loss_ == pytest.approx(other.fit(X, y).loss_, rel=0.01)
    assert ours.loss_curve_[-1] == ours.loss_
    assert ours.n_iter_ == len(ours.loss_curve_) < 2000
    assert not hasattr(ours, "partial_fit")


@pytest.fixture(scope="module")
def tables():
    """Small tables, scaled but not centred, so that zeros stay zeros."""
    found = {}
    for load in (datasets.load_digits, datasets.load_breast_cancer, datasets.load_wine):
        X, y = load(return_X_y=True)
        found[load.__name__] = (X / np.maximum(X.std(axis=0), 1e-3))[::2], y[::2]
    return found


@parametrize_pairs(
    {
        "table": ["load_digits", "load_breast_cancer", "load_wine"],
        "C": [0.01, 1.0, 10.0],
        "weighted": [False, True],
    }
)
def test_softmax_agrees_with_logistic_regression(rng, tables, table, C, weighted):
    X, y = tables[table]
    weights = rng.uniform(0, 3, len(y)) if weighted else None
    options = {"C": C, "max_iter": 20_000, "class_weight": "balanced" if weighted else None}
    # Newton's method comes closest to the solution.
    other = linear_model.LogisticRegression(solver="newton-cholesky", tol=1e-10, **options)
    with threadpool_limits(1):  # its many small products wait for each other where the machine is busy
        other.fit(X, y, weights)
    for store in (np.asarray, sparse.csr_matrix, sparse.csc_array):
        ours = SoftmaxClassifier(tol=1e-10, **options).fit(store(X), y, weights)
        assert ours.coef_.shape == other.coef_.shape
        assert ours.intercept_.shape == other.intercept_.shape
        np.testing.assert_allclose(ours.coef_, other.coef_, rtol=0, atol=1e-4 * np.abs(other.coef_).max())
        np.testing.assert_allclose(ours.predict_proba(store(X)), other.predict_proba(X), rtol=0, atol=1e-4)
        np.testing.assert_allclose(ours.decision_function(store(X)), other.decision_function(X), rtol=1e-2, atol=1e-2)
        np.testing.assert_array_equal(ours.classes_, other.classes_)
        assert (ours.n_iter_.shape, ours.n_iter_.dtype) == (other.n_iter_.shape, other.n_iter_.dtype)


@pytest.mark.parametrize("kind", ["multi-class", "binary"])
@pytest.mark.parametrize(
    "options", [{"fit_intercept": False}, {"C": 0.1, "class_weight": {1: 4.0}}, {"C": np.inf}, {"C": 1e-6}]
)
def test_softmax_agrees_with_logistic_regression_for_other_parameters(kind, options):
    X, y = datasets.load_wine(return_X_y=True)
    X = StandardScaler().fit_transform(X)[:, 3:6]  # that no plane can tell apart
    y = y if kind == "multi-class" else np.minimum(y, 1)
    ours = SoftmaxClassifier(tol=1e-10, max_iter=5000, **options).fit(X, y)
    other = linear_model.LogisticRegression(tol=1e-10, max_iter=5000, **options).fit(X, y)
    np.testing.assert_allclose(ours.coef_, other.coef_, rtol=0, atol=1e-4 * np.abs(other.coef_).max())
    np.testing.assert_allclose(ours.intercept_, other.intercept_, rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["multi-class", "binary"])
def test_softmax_comes_to_the_same_solution_by_steps(digits, targets, kind, solver):
    X, y = digits[0], targets[kind]
    options = {"max_iter": 3000, "tol": 1e-9, "C": 0.1, "batch_size": 700, "learning_rate_init": 0.1}
    ours = SoftmaxClassifier(solver=solver, **options).fit(X, y)
    other = linear_model.LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(X, y)
    np.testing.assert_allclose(ours.coef_, other.coef_, rtol=0, atol=1e-2 * np.abs(other.coef_).max())


def test_softmax_starts_warm(digits):
    X, y = digits
    model = SoftmaxClassifier(warm_start=True, max_iter=1000).fit(X, y)
    first = model.n_iter_[0]
    assert model.fit(X, y).n_iter_[0] < first / 2
    assert SoftmaxClassifier(max_iter=1000).fit(X, y).n_iter_[0] == first
    model.coef_, model.intercept_ = np.zeros((10, 64)), np.zeros(10)
    assert (model.predict_proba(X) == 0.1).all()
    assert not model.network_.parameters.any()
    with pytest.raises(ValueError, match="only one class: 1"):
        SoftmaxClassifier().fit(X, np.ones(len(y), int))


@parametrize_pairs(
    {"estimator, kind": EACH_KIND, "store": [np.asarray, sparse.csr_matrix], "solver": ["adam", "lbfgs"]}
)
def test_float32_stays_float32(digits, targets, estimator, kind, store, solver):
    X, y = store(digits[0].astype(np.float32)), targets[kind]
    model, wide = (
        estimator(**going_by(estimator, solver), max_iter=10, random_state=0).fit(rows, y)
        for rows in (X, X.astype(np.float64))
    )
    assert model.network_.dtype == np.float32
    assert wide.network_.dtype == np.float64
    output = "predict" if estimator in REGRESSORS else "predict_proba"
    assert getattr(model, output)(X).dtype == np.float32
    np.testing.assert_allclose(getattr(model, output)(X), getattr(wide, output)(X), rtol=0, atol=1e-2)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("estimator", [*ESTIMATORS, NetworkClassifier])
def test_neither_copies_dense_rows_nor_fills_sparse_ones(rng, estimator, solver):
    dense = rng.standard_normal((10_000, 500))  # 40 MB
    shape, n = (10_000, 5000), 50_000
    places = rng.integers(np.array([shape]).T, size=(2, n))
    text = sparse.csr_matrix((rng.random(n), places), shape)  # 400 MB if it were dense
    options = {SoftmaxClassifier: {}, NetworkClassifier: {"layers": (2,)}}.get(estimator, {"hidden_layer_sizes": (2,)})
    for X, bound in ((dense, 20e6), (text, 60e6)):
        y = np.arange(X.shape[0]) % 3
        model = estimator(**going_by(estimator, solver), max_iter=2, n_threads=1, **options)
        model.fit(X[:10], y[:10])  # what is imported late
        tracemalloc.start()
        try:
            model.fit(X, y).predict(X)
            assert tracemalloc.get_traced_memory()[1] < bound
        finally:
            tracemalloc.stop()


def test_parameters_can_be_set_between_calls_of_partial_fit(digits):
    X, y = digits
    seen = []

    class See(Callback):
        def on_start(self, fit):
            seen.append((fit.trainer.n_threads, fit.trainer.shuffle, fit.trainer.dropout.tolist()))

    model = MLPClassifier((9,), random_state=0, n_threads=2, callbacks=[See()])
    model.partial_fit(X, y, classes=np.arange(10)).set_params(n_threads=1, shuffle=False, dropout=0.5).partial_fit(X, y)
    assert seen == [(2, True, [0.0]), (1, False, [0.5])]
    assert model.t_ == 2 * len(X)


def test_predicting_takes_the_threads_that_it_is_given(digits, monkeypatch):
    X, y = digits
    seen, forward = [], Engine.forward
    monkeypatch.setattr(Engine, "forward", lambda self, *rows: seen.append(self.n_threads) or forward(self, *rows))
    model = MLPClassifier((9,), max_iter=2, random_state=0).fit(X, y)
    several = model.set_params(n_threads=3).predict_proba(X)
    one = model.set_params(n_threads=1).predict_proba(X)
    np.testing.assert_array_equal(one, several)
    assert seen == [3, 1]
    with pytest.raises(ValueError, match="n_threads must be at least 1"):
        model.network_.predict(X, n_threads=0)


def test_data_frames(digits):
    pandas = pytest.importorskip("pandas")
    X, y = digits
    frame = pandas.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])
    labels = pandas.Series(y, name="digit")
    model = MLPClassifier((9,), max_iter=5, random_state=0, early_stopping=True).fit(frame, labels)
    np.testing.assert_array_equal(model.feature_names_in_, frame.columns)
    np.testing.assert_array_equal(
        model.predict(frame), MLPClassifier((9,), max_iter=5, random_state=0, early_stopping=True).fit(X, y).predict(X)
    )
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"pixel 0": "other"}))
    with pytest.raises(ValueError, match="feature names"):
        model.fit(frame, labels, X_val=frame.rename(columns={"pixel 0": "other"}), y_val=labels)
    with pytest.warns(DataConversionWarning, match="column-vector"):
        model.fit(frame, labels.to_frame())
    with pytest.raises(ValueError, match="X must be finite"):
        model.fit(np.nan * X, y)
    np.testing.assert_array_equal(model.feature_names_in_, frame.columns)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_grid_search_over_a_pipeline(digits, backend):
    X, y = digits
    grid = {"mlpclassifier__alpha": np.array([1e-4, 1.0]), "mlpclassifier__activation": np.array(["relu", "tanh"])}
    pipeline = make_pipeline(
        StandardScaler(), MLPClassifier((9,), max_iter=30, learning_rate_init=0.02, random_state=0)
    )
    with joblib.parallel_config(backend, n_jobs=2):
        search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    alone = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])
    assert search.score(X, y) > 0.9


@pytest.fixture
def threads_of_a_fit(digits):
    """Tell how many threads a fit in a worker may use; made within, so that it is sent to processes by value."""
    X, y = digits

    def threads(met=None):
        class Spy(Callback):
            def on_start(self, fit):
                if met is not None:
                    met.wait(60)  # until the other fit is under way
                seen.append(forks.usable_threads(fit.trainer.n_threads))
                if met is not None:
                    met.wait(60)

        seen = []
        SoftmaxClassifier(max_iter=2, callbacks=[Spy()]).fit(X, y)
        return seen[0]

    return threads


def test_workers_of_joblib_do_not_take_all_processors_each(threads_of_a_fit):
    available = threads_of_a_fit()
    with joblib.parallel_config("loky", n_jobs=2):
        seen = joblib.Parallel()(joblib.delayed(threads_of_a_fit)() for _ in range(4))
    assert all(2 * threads <= max(available, 2) for threads in seen)
    met = threading.Barrier(2)
    with joblib.parallel_config("threading", n_jobs=2):
        seen = joblib.Parallel()(joblib.delayed(threads_of_a_fit)(met) for _ in range(2))
    assert all(2 * threads <= max(available, 2) for threads in seen)
    own = []
    thread = threading.Thread(target=lambda: own.append(threads_of_a_fit()))
    thread.start()
    thread.join()
    assert own == [available]


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_bagging_and_voting(digits, backend):
    X, y = digits
    model = MLPClassifier((9,), max_iter=20, learning_rate_init=0.02, random_state=0)
    members = [("a", model), ("b", clone(model).set_params(random_state=1)), ("c", SoftmaxClassifier())]
    found = []
    for n_jobs in (1, 2):
        with joblib.parallel_config(backend, n_jobs=n_jobs):
            bagging = BaggingClassifier(model, 4, max_samples=0.7, random_state=0).fit(X, y)
            voting = VotingClassifier(members, voting="soft").fit(X, y)
            found.append([each.predict_proba(X) for each in (bagging, voting)])
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-14)  # bagging adds up in another order
        assert (two.argmax(axis=1) == y).mean() > 0.9


def test_cross_validation_and_calibration(digits):
    X, y = digits
    model = make_pipeline(StandardScaler(), SoftmaxClassifier(C=0.1, max_iter=1000))
    assert accuracy_score(y, cross_val_predict(model, X, y, cv=3, n_jobs=2)) > 0.85
    for base in (model, MLPClassifier((30,), random_state=0)):
        calibrated = CalibratedClassifierCV(base, cv=2).fit(X, y)
        np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)
        assert calibrated.score(X, y) > 0.9


@pytest.mark.parametrize(("estimator", "kind"), EACH_KIND)
def test_copies_and_files(tmp_path, digits, targets, estimator, kind):
    X, y = digits[0], targets[kind]
    options = going_by(estimator, "adam") | {"max_iter": 3, "random_state": 0}
    model = estimator(**options).fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    for each in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib")):
        np.testing.assert_array_equal(each.predict(X), model.predict(X))
        each.partial_fit(X, y)
        np.testing.assert_array_equal(each.predict(X), clone(model).fit(X, y).partial_fit(X, y).predict(X))
    fresh = clone(model)
    assert not hasattr(fresh, "network_")
    np.testing.assert_array_equal(fresh.fit(X, y).network_.parameters, model.network_.parameters)
    model.network_.save(tmp_path / "model.safetensors")
    loaded = fastnn.Network.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.parameters, model.network_.parameters)


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
@pytest.mark.parametrize("estimator", [SoftmaxClassifier, MLPClassifier, NetworkClassifier])
def test_class_weights_are_sample_weights(digits, targets, estimator, solver):
    X, y = digits
    options = going_by(estimator, solver) | {"max_iter": 10, "random_state": 0}
    balanced = len(y) / (10 * np.bincount(y))
    for class_weight, weights in (("balanced", balanced[y]), ({3: 7.0, 4: 0.0}, np.where(y == 3, 7.0, (y != 4) * 1.0))):
        ours = estimator(class_weight=class_weight, **options).fit(X, y)
        other = estimator(**options).fit(X, y, sample_weight=weights)
        np.testing.assert_allclose(ours.network_.parameters, other.network_.parameters, rtol=0, atol=1e-10)
    if estimator is not SoftmaxClassifier:
        y = targets["multi-label"]
        class_weight = [{0: 1.0, 1: 2.0}, {0: 3.0, 1: 4.0}, {0: 5.0, 1: 1.0}]
        weights = np.prod([np.where(y[:, j], each[1], each[0]) for j, each in enumerate(class_weight)], axis=0)
        ours = estimator(class_weight=class_weight, **options).fit(X, y)
        other = estimator(**options).fit(X, y, sample_weight=weights)
        np.testing.assert_allclose(ours.network_.parameters, other.network_.parameters, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("estimator", "kind"), EACH_KIND)
def test_validation_data_of_ones_own(rng, digits, targets, estimator, kind):
    X, y = digits[0], targets[kind]
    weights = rng.uniform(0, 1, 200)
    options = going_by(estimator, "adam", 0.01) | {"random_state": 0, "n_iter_no_change": 3}
    validation = {"X_val": X[:200], "y_val": y[:200], "sample_weight_val": weights}
    score = r2_score if estimator in REGRESSORS else accuracy_score
    # Without early stopping it is only looked at; with it, the best is kept.
    watched = estimator(max_iter=8, **options).fit(X[200:], y[200:], **validation)
    plain = estimator(max_iter=8, **options).fit(X[200:], y[200:])
    np.testing.assert_array_equal(watched.network_.parameters, plain.network_.parameters)
    last = score(y[:200], watched.predict(X[:200]), sample_weight=weights)
    assert watched.validation_scores_[-1] == pytest.approx(last)
    assert len(watched.validation_scores_) == 8
    stopped = estimator(max_iter=100, early_stopping=True, **options).fit(X[200:], y[200:], **validation)
    best = score(y[:200], stopped.predict(X[:200]), sample_weight=weights)
    assert max(stopped.validation_scores_) == stopped.best_validation_score_ == pytest.approx(best)
    assert len(stopped.validation_scores_) < 100
    with pytest.raises(ValueError, match="X_val and y_val belong together, but y_val is None"):
        watched.fit(X, y, X_val=X)
    if estimator not in REGRESSORS and kind != "multi-label":
        with pytest.raises(ValueError, match="classes not in"):
            watched.fit(
                X[200:], y[200:], X_val=X[:3], y_val=np.array(["?", "!", "."] if kind == "binary" else [0, 1, 77])
            )


@pytest.mark.parametrize("estimator", [*ESTIMATORS, *NETWORKS])
@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_callbacks_are_told_and_may_stop(digits, estimator, solver):
    class Stop(Callback):
        def on_epoch(self, fit):
            if len(fit.history) == 3:
                scores.extend(fit.history.validation_log_likelihood)
                fit.stop = True

    scores = []
    X, y = digits
    model = estimator(**going_by(estimator, solver), callbacks=[Stop()], random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X, y, X_val=X[:50], y_val=y[:50])
    assert len(model.loss_curve_) == len(scores) == 3
    assert model.n_iter_ == 3
    pickle.loads(pickle.dumps(model.set_params(callbacks=())))  # what was fitted keeps no callback


@pytest.mark.parametrize("estimator", PERCEPTRONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_normalisation(digits, targets, estimator, dtype):
    X, y = digits[0].astype(dtype), targets[kinds_of(estimator)[0]]
    options = {"learning_rate_init": 0.01, "max_iter": 60, "random_state": 0}
    model = estimator(hidden_layer_sizes=(20, 10), batch_norm=True, **options).fit(X, y)
    assert [scale.dtype for scale in model.network_.scales] == [dtype, dtype]
    assert [coefs.shape for coefs in model.coefs_] == [(64, 20), (20, 10), (10, model.n_outputs_)]
    assert model.score(X, y) > 0.9
    again = clone(model).set_params(n_threads=1).fit(X, y)
    np.testing.assert_array_equal(again.network_.parameters, model.network_.parameters)
    stopped = clone(model).set_params(early_stopping=True, max_iter=20).fit(X, y)
    np.testing.assert_array_equal(stopped.network_.parameters, stopped._best_parameters)
    with pytest.raises(ValueError, match="LBFGS does not train a network with batch_norm=True"):
        clone(model).set_params(solver="lbfgs").fit(X, y)
    with pytest.raises(ValueError, match="batch_norm must be one of False, True"):
        clone(model).set_params(batch_norm="yes").fit(X, y)


def test_dropout_and_an_activation_a_layer(digits):
    X, y = digits
    model = MLPClassifier((20, 10), ["gelu", "tanh"], dropout=[0.2, 0.1], max_iter=60, random_state=0).fit(X, y)
    assert model.network_.activation == ("gelu", "tanh")
    assert model.score(X, y) > 0.9
    again = clone(model).set_params(n_threads=1).fit(X, y)
    np.testing.assert_array_equal(again.network_.parameters, model.network_.parameters)
    plain = clone(model).set_params(dropout=0.0).fit(X, y)
    assert plain.loss_ < model.loss_
    with pytest.raises(ValueError, match="dropout"):
        MLPClassifier(dropout=0.5, solver="lbfgs").fit(X, y)
    with pytest.raises(ValueError, match="activation"):
        MLPClassifier((3, 3), ["relu"]).fit(X, y)


@pytest.mark.parametrize("loss", ["absolute_error", "huber"])
def test_other_losses_of_regression(loss):
    X, y = datasets.load_diabetes(return_X_y=True)
    X, y = StandardScaler().fit_transform(X), (y - y.mean()) / y.std()
    y[::20] += 50  # outliers
    robust = MLPRegressor(loss, (9,), max_iter=300, random_state=0, alpha=1.0).fit(X, y)
    squared = MLPRegressor("squared_error", (9,), max_iter=300, random_state=0, alpha=1.0).fit(X, y)
    others = np.arange(len(y)) % 20 != 0
    assert robust.score(X[others], y[others]) > max(0.3, squared.score(X[others], y[others]))
    with pytest.raises(ValueError, match=r"loss must be one of .*, not 'poisson'"):
        MLPRegressor("poisson").fit(X, y)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("learning_rate", ["constant", "adaptive"])
def test_tells_its_progress_in_scikit_learns_words(capsys, digits, early_stopping, learning_rate):
    X, y = digits
    options = {"solver": "sgd", "learning_rate": learning_rate, "learning_rate_init": 0.5, "tol": 0.05}
    options |= {"n_iter_no_change": 1, "random_state": 0, "verbose": True, "early_stopping": early_stopping}
    neural_network.MLPClassifier(**options).fit(X, y)
    expected = capsys.readouterr().out
    MLPClassifier(**options).fit(X, y)
    assert capsys.readouterr().out == expected
    assert "Stopping." in expected


def test_warnings_are_scikit_learns(digits):
    X, y = digits
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
        MLPClassifier((3,), max_iter=2).fit(X, y)
    with pytest.warns(ConvergenceWarning, match=r"lbfgs failed to converge after 2 iteration\(s\)"):
        SoftmaxClassifier(max_iter=2).fit(X, y)
    with pytest.warns(UserWarning, match="It is going to be clipped"):
        MLPClassifier((3,), max_iter=2, batch_size=1000).fit(X, y)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        MLPClassifier((3,), callbacks=[Interrupt()]).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLPClassifier((3,), tol=10.0, n_iter_no_change=1).fit(X, y)
        MLPClassifier((3,)).partial_fit(X, y, classes=range(10))
        SoftmaxClassifier(C=0.01, max_iter=1000).fit(X, y)


class Interrupt(Callback):
    def on_epoch(self, fit):
        raise KeyboardInterrupt


# What scikit-learn's perceptrons know; the weights of the last layer go by the activation before it.
@parametrize_pairs(
    {
        "estimator, kind": EACH_PERCEPTRON,
        "sizes": [(), (5,), (5, 4), (5, 4, 3)],
        "activation": ["identity", "logistic", "tanh", "relu"],
    }
)
def test_starts_from_scikit_learns_parameters(digits, targets, estimator, kind, sizes, activation):
    X, y = digits[0][:50].astype(np.float32), targets[kind][:50]
    options = {"hidden_layer_sizes": sizes, "activation": activation, "random_state": 5}
    options |= {"solver": "sgd", "learning_rate_init": 1e-30, "max_iter": 1}  # one epoch without a step
    ours, other = estimator(**options).fit(X, y), theirs(estimator)(**options).fit(X, y)
    for mine, its in zip(ours.coefs_ + ours.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        np.testing.assert_array_equal(mine, its)


class Raise(Callback):
    """Raises after so many epochs."""

    def __init__(self, epoch, error=ZeroDivisionError):
        self.epoch, self.error = epoch, error

    def on_epoch(self, fit):
        if len(fit.history) == self.epoch:
            raise self.error


# Why a fit is refused: parameters, a change to the rows X, y of iris, and further arguments.
REFUSALS = {
    "X": ({}, lambda X, y: (np.where(X > 7.8, np.nan, X), y), {}),
    "columns": ({}, lambda X, y: (X[:, None], y), {}),
    "rows": ({}, lambda X, y: (X, y[:-1]), {}),
    "no rows": ({}, lambda X, y: (X[:0], y[:0]), {}),
    "y": ({}, lambda X, y: (X, np.full(len(y), np.nan)), {}),
    "shape of y": ({}, lambda X, y: (X, y.reshape(-1, 1, 1)), {}),
    "number of weights": ({}, None, {"sample_weight": [1.0, 2.0]}),
    "negative weights": ({}, None, {"sample_weight": np.linspace(-1, 1, 150)}),
    "no weights": ({}, None, {"sample_weight": np.zeros(150)}),
    "parameter": ({"tol": -1.0}, None, {}),
    "parameter of the trainer": ({"n_threads": 0}, None, {}),
    "seed": ({"random_state": "now"}, None, {}),
    "callback at once": ({"callbacks": [Raise(1)]}, None, {}),
    "callback later": ({"callbacks": [Raise(3)], "max_iter": 5}, None, {}),
    "exit": ({"callbacks": [Raise(1, SystemExit)]}, None, {}),
}
REFUSALS_OF_FIT = {
    "X_val": ({}, None, {"X_val": np.full((3, 4), np.nan), "y_val": [0, 1, 2]}),
    "columns of X_val": ({}, None, {"X_val": np.ones((3, 5)), "y_val": [0, 1, 2]}),
    "y_val": ({}, None, {"X_val": np.ones((3, 4)), "y_val": [np.nan, 0, 1]}),
    "no y_val": ({}, None, {"X_val": np.ones((3, 4))}),
    "weights of validation": (
        {},
        None,
        {"X_val": np.ones((3, 4)), "y_val": [0, 1, 2], "sample_weight_val": np.zeros(3)},
    ),
}
REFUSALS_OF_STEPS = {
    "too few to validate": ({"early_stopping": True, "validation_fraction": 1e-3}, None, {}),
    "X that is set aside": (
        {"early_stopping": True, "random_state": 0},
        lambda X, y: (np.where(X > 7.8, np.nan, X), y),
        {},
    ),
    "divergence": (
        {"solver": "sgd", "learning_rate_init": 1e30, "learning_rate": "invscaling", "max_iter": 50},
        lambda X, y: (1e300 * X, y),
        {},
    ),
}


def learnt(model):
    """All that a fit leaves in an estimator, as a digest of each attribute."""
    return {name: joblib.hash(value) for name, value in vars(model).items() if name not in model.get_params()}


def refusals(estimator, solver, method, warm):
    found = REFUSALS | (REFUSALS_OF_FIT if method == "fit" else {})
    found |= REFUSALS_OF_STEPS if solver != "lbfgs" else {}
    if estimator in NETWORKS and solver != "lbfgs":
        found["divergence"] = ({"optimizer": fastnn.SGD(1e30), "max_iter": 50}, lambda X, y: (1e300 * X, y), {})
    if method == "partial_fit":  # whose one epoch goes by the optimizer that there is
        del found["callback later"]
        found |= {} if solver == "sgd" else {"divergence": found["X"]}
    if estimator in REGRESSORS:
        return found | {"divergence": ({}, lambda X, y: (X, 1e200 * y), {})}
    found["classes"] = ({}, lambda X, y: (X, y / 7), {})
    found["class weights"] = ({"class_weight": {99: 1.0}}, None, {})
    if estimator is SoftmaxClassifier and method == "fit" and not warm:
        found["one class"] = ({}, lambda X, y: (X, 0 * y), {})
    return found


@parametrize_pairs(
    {
        "estimator": [*ESTIMATORS, *NETWORKS],
        "solver, method, warm": [
            *((solver, "fit", warm) for solver in ("lbfgs", "sgd", "adam") for warm in (False, True)),
            *((solver, "partial_fit", False) for solver in ("sgd", "adam")),
        ],
        "known": [False, True],
    }
)
def test_a_refused_fit_changes_nothing(estimator, solver, method, warm, known):
    X, y = datasets.load_iris(return_X_y=True)
    options = going_by(estimator, solver, 0.01) | {"max_iter": 3, "warm_start": warm}
    first = {"classes": [0, 1, 2]} if method == "partial_fit" and estimator not in REGRESSORS else {}
    for name, (changes, change, arguments) in refusals(estimator, solver, method, warm).items():
        model = estimator(**options, random_state=np.random.RandomState(0))
        twin = estimator(**options, random_state=np.random.RandomState(0))
        if known:
            model.fit(X, y)
            twin.fit(X, y)
        model.set_params(**changes)
        params, before, drawn = model.get_params(), learnt(model), joblib.hash(model.random_state)
        fit, twins = getattr(model, method), getattr(twin, method)
        data = change(X, y) if change else (X, y)
        with pytest.raises((ValueError, TypeError, ZeroDivisionError, SystemExit)):
            fit(*data, **arguments, **first)
        assert learnt(model) == before, name
        assert joblib.hash(model.random_state) == drawn
        assert all(value is params[each] for each, value in model.get_params().items())
        if not known:
            with pytest.raises(NotFittedError):
                check_is_fitted(model)
            with pytest.raises(NotFittedError):
                model.predict(X)
        # What follows is as if the refused fit had not been.
        model.set_params(**{each: twin.get_params()[each] for each in changes if each != "random_state"})
        if "random_state" not in changes:
            fit(X, y, **first)
            twins(X, y, **first)
            np.testing.assert_array_equal(model.network_.parameters, twin.network_.parameters)
            assert model.loss_curve_ == twin.loss_curve_


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
@pytest.mark.parametrize("estimator", [*ESTIMATORS, *NETWORKS])
def test_ctrl_c_keeps_what_has_been_learnt(digits, estimator, solver):
    X, y = digits
    options = going_by(estimator, solver) | {"random_state": 0, "warm_start": True}
    model, three = (estimator(max_iter=n, **options).fit(X, y) for n in (5, 5))
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.set_params(callbacks=[Raise(3, KeyboardInterrupt)]).fit(X, y)
    three.set_params(max_iter=3).fit(X, y)
    np.testing.assert_array_equal(model.network_.parameters, three.network_.parameters)
    assert model.loss_curve_ == three.loss_curve_
    assert len(model.loss_curve_) == 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="Training interrupted by user"):
            model.fit(X, y)
    assert len(model.loss_curve_) == 11


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_ctrl_c_finds_the_record_of_an_epoch_whole_or_not_begun(digits, monkeypatch, estimator):
    X, y = digits
    scores = iter([0.25, 0.5])

    def score(*_):
        try:
            return next(scores)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(estimator, "_score", score)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model = estimator(solver="sgd", random_state=0).fit(X, y, X_val=X[:50], y_val=y[:50])
    assert (len(model.loss_curve_), model.n_iter_, model.t_) == (2, 2, 2 * len(X))
    assert model.validation_scores_ == [0.25, 0.5]


class Do(Callback):
    """Calls a function after each epoch."""

    def __init__(self, function):
        self.function = function

    def on_epoch(self, fit):
        self.function()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_a_callback_may_do_with_the_estimator(digits, estimator):
    X, y = digits
    options = {"solver": "adam", "max_iter": 4, "random_state": 0}
    plain = estimator(**options).fit(X, y)
    # It may look at what has been learnt so far, and copy it.
    model, scores, copies = estimator(**options), [], []

    def look():
        scores.append(model.score(X, y))
        copies.append(pickle.loads(pickle.dumps(copy.copy(model).set_params(callbacks=()))))
        clone(copies[-1]).fit(X, y)

    model.set_params(callbacks=[Do(look)]).fit(X, y)
    np.testing.assert_array_equal(model.network_.parameters, plain.network_.parameters)
    assert scores[-1] == model.score(X, y)
    assert [len(each.loss_curve_) for each in copies] == [1, 2, 3, 4]
    assert copies[0].partial_fit(X, y).score(X, y) != scores[0]
    # It may set the parameters.
    names = ("coef_", "intercept_") if estimator is SoftmaxClassifier else ("coefs_", "intercepts_")
    zeros = {name: [0 * array for array in getattr(plain, name)] for name in names}

    def forget():
        for name in names:
            setattr(model, name, zeros[name])

    model.set_params(callbacks=[Do(forget)]).fit(X, y)
    assert not model.network_.parameters.any()
    # What a fit goes by was settled when it began.
    for change in (lambda: model.set_params(tol=1.0), lambda: setattr(model, "callbacks", [])):
        before = learnt(model)
        with pytest.raises(RuntimeError, match="cannot be set while a fit is under way"):
            model.set_params(callbacks=[Do(change)]).fit(X, y)
        assert learnt(model) == before
        assert model.tol == plain.tol
    with pytest.raises(RuntimeError, match=r"a fit of this .* is under way"):
        model.set_params(callbacks=[Do(lambda: model.fit(X, y))]).fit(X, y)
    assert learnt(model) == before
    model.set_params(callbacks=(), tol=1.0).fit(X, y)


def test_a_fit_in_one_thread_keeps_others_from_fitting_the_same_estimator(digits):
    X, y = digits
    model, refused = MLPClassifier((9,), max_iter=2, random_state=0), []

    def fit():
        with pytest.raises(RuntimeError, match="is under way"):
            model.fit(X, y)
        refused.append(True)

    def fit_elsewhere():
        thread = threading.Thread(target=fit)
        thread.start()
        thread.join()

    model.set_params(callbacks=[Do(fit_elsewhere)]).fit(X, y)
    assert refused == [True, True]
    np.testing.assert_array_equal(
        model.network_.parameters, clone(model).set_params(callbacks=()).fit(X, y).network_.parameters
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_a_child_forked_during_a_fit_may_fit(tmp_path):
    code = """
import os, sys, numpy as np
from fastnn.callbacks import Callback
from fastnn.sklearn import MLPClassifier
class Fork(Callback):
    def on_epoch(self, fit):
        if (pid := os.fork()) == 0:
            model.set_params(callbacks=()).fit(X, y)
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
X, y = np.eye(3), [0, 1, 2]
model = MLPClassifier((3,), max_iter=1, n_threads=1, callbacks=[Fork()])
model.fit(X, y)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "7\n"


def test_a_path_of_solutions_is_logistic_regressions():
    X, y = datasets.load_iris(return_X_y=True)
    paths = []
    for estimator in (SoftmaxClassifier, linear_model.LogisticRegression):
        model, path = estimator(warm_start=True, tol=1e-10, max_iter=10_000), []
        for C in (0.01, 1, 100):
            model.set_params(C=C).fit(X, y)
            path.append((model.coef_, model.intercept_))
        paths.append(path)
    for mine, its in zip(*paths, strict=True):
        np.testing.assert_allclose(mine[0], its[0], rtol=0, atol=1e-3)
        np.testing.assert_allclose(mine[1], its[1], rtol=0, atol=1e-3)


@parametrize_pairs({"estimator, kind": EACH_KIND, "solver": ["lbfgs", "sgd", "adam"], "early_stopping": [False, True]})
def test_what_was_read_of_a_fit_stays_as_it_is(digits, targets, estimator, kind, solver, early_stopping):
    X, y = digits[0], targets[kind]
    options = going_by(estimator, solver, 0.01) | {"max_iter": 3, "early_stopping": early_stopping}
    model = estimator(warm_start=True, **options)
    fits = [model.fit, model.set_params(C=2.0).fit if estimator is SoftmaxClassifier else model.fit]
    if solver != "lbfgs" and not early_stopping:
        fits += [model.partial_fit, model.partial_fit, model.fit]
    names = {"coef_", "intercept_", "coefs_", "intercepts_", "n_iter_", "loss_curve_", "validation_scores_"}
    names |= {"classes_", "network_", "best_loss_", "n_features_in_", "_best_parameters"}
    seen = []
    for fit in fits:
        fit(X, y)
        read = {name: getattr(model, name) for name in names if hasattr(model, name)}
        seen.append((read, {name: joblib.hash(value) for name, value in read.items()}))
        assert model.network_.parameters is not seen[0][0]["network_"].parameters or len(seen) == 1
    for read, digests in seen:
        assert {name: joblib.hash(value) for name, value in read.items()} == digests
    if estimator in NETWORKS:
        return
    # So does what is read before an attribute is assigned to; but to assign into an array changes the model.
    for name in ("coef_", "intercept_") if estimator is SoftmaxClassifier else ("coefs_", "intercepts_"):
        setattr(model, name, [0 * array for array in read[name]])
    assert {name: joblib.hash(value) for name, value in read.items()} == digests
    assert not model.network_.parameters.any()
    arrays = [model.coef_] if estimator is SoftmaxClassifier else model.coefs_
    arrays[0][0, 0] = 3
    assert model.network_.parameters[0] == 3
    if estimator is not SoftmaxClassifier:
        model.coefs_[0] = np.full_like(read["coefs_"][0], 4)
        assert model.network_.parameters[1] == arrays[0][0, 1] == 4


def copies_of(model):
    return [model, copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]


@pytest.mark.parametrize("kind", ["multi-class", "binary"])
def test_softmax_takes_attributes_without_a_fit_as_logistic_regression_does(digits, targets, kind):
    X, y = digits[0], targets[kind]
    other = linear_model.LogisticRegression(max_iter=1000).fit(X, y)
    attributes = {name: getattr(other, name) for name in ("intercept_", "classes_", "coef_")}
    for names in itertools.permutations(attributes):
        model = SoftmaxClassifier(max_iter=1000, warm_start=True, solver="adam")
        for name in names[:2]:
            setattr(model, name, attributes[name])
            np.testing.assert_array_equal(getattr(model, name), attributes[name])
        for method in (model.predict, model.predict_proba, model.decision_function):
            with pytest.raises(NotFittedError, match=rf"was given .*{names[0]}.* but not {names[2]}"):
                method(X)
        if names[2] != "classes_":  # which a fit can tell
            for method in (model.fit, model.partial_fit):
                with pytest.raises(ValueError, match=rf"but not {names[2]}"):
                    method(X, y)
        with pytest.raises(NotFittedError):
            check_is_fitted(model)
        setattr(model, names[2], attributes[names[2]])
        check_is_fitted(model.set_params(solver="lbfgs"))
    for each in copies_of(model):
        np.testing.assert_array_equal(each.predict(X), other.predict(X))
        np.testing.assert_allclose(each.predict_proba(X), other.predict_proba(X), rtol=0, atol=1e-12)
        np.testing.assert_allclose(each.decision_function(X), other.decision_function(X), rtol=0, atol=1e-12)
    assert not np.shares_memory(model.coef_, other.coef_)
    with pytest.raises(NotFittedError, match=r"is not fitted yet\. Call 'fit'"):
        clone(model).predict(X)
    # Both are where a warm fit begins, which then has next to nothing to do.
    far = SoftmaxClassifier(max_iter=1000).fit(X, y).n_iter_
    assert model.fit(X, y).n_iter_ < far / 3
    np.testing.assert_allclose(model.coef_, other.coef_, rtol=0, atol=1e-2)
    assert model.n_features_in_ == 64


@pytest.mark.parametrize(("estimator", "kind"), EACH_PERCEPTRON)
def test_perceptrons_take_attributes_without_a_fit_as_scikit_learns_do(digits, targets, estimator, kind):
    X, y = digits[0], targets[kind]
    other = theirs(estimator)(hidden_layer_sizes=(9, 8), activation="tanh", max_iter=20, random_state=0).fit(X, y)
    names = ["coefs_", "intercepts_", "n_layers_", "n_outputs_", "out_activation_"]
    names += ["_label_binarizer"] if estimator is MLPClassifier else []
    model, twin = (each(activation="tanh", random_state=0) for each in (estimator, theirs(estimator)))
    for name in names:
        for each in (model, twin):
            setattr(each, name, copy.deepcopy(getattr(other, name)))
    for each in copies_of(model):
        if estimator is MLPRegressor:
            np.testing.assert_allclose(each.predict(X), twin.predict(X), rtol=0, atol=1e-12)
        else:
            np.testing.assert_array_equal(each.predict(X), twin.predict(X))
            np.testing.assert_allclose(each.predict_proba(X), twin.predict_proba(X), rtol=0, atol=1e-12)
        assert [getattr(each, name) for name in names[2:5]] == [getattr(other, name) for name in names[2:5]]
    with pytest.raises(ValueError, match="n_layers_ is 4 with these parameters, not 3"):
        model.n_layers_ = 3
    # What scikit-learn needs besides, to go on.
    if estimator is MLPClassifier:
        twin.classes_ = other.classes_
    twin.t_, twin.loss_curve_, twin.best_loss_, twin._no_improvement_count = 0, [], np.inf, 0
    for each in (model, twin):
        each.set_params(hidden_layer_sizes=(9, 8), warm_start=True, max_iter=5)
        each.partial_fit(X, y).fit(X, y)
    np.testing.assert_allclose(model.loss_curve_, twin.loss_curve_, rtol=1e-6)
    np.testing.assert_allclose(model.coefs_[0], twin.coefs_[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rounds_of_federated_learning(digits, estimator, fitted):
    X, y = digits
    names = ("coef_", "intercept_") if estimator is SoftmaxClassifier else ("coefs_", "intercepts_")
    parts = [slice(0, 350), slice(350, 700)]
    options = {"solver": "adam", "max_iter": 10, "random_state": 0, "warm_start": True, "learning_rate_init": 0.01}
    start = estimator(**options).set_params(max_iter=1).fit(X, y)
    shared, scores = [copy.deepcopy(getattr(start, name)) for name in names], [start.score(X, y)]
    clients = [estimator(**options) for _ in parts]
    for client, part in zip(clients, parts, strict=True):
        if fitted:
            client.fit(X[part], y[part])
        elif estimator is not MLPRegressor:
            client.classes_ = np.arange(10)
    for _ in range(3):
        for client, part in zip(clients, parts, strict=True):
            for name, value in zip(names, shared, strict=True):
                setattr(client, name, value)
            client.fit(X[part], y[part])
        if estimator is SoftmaxClassifier:
            shared = [np.mean([getattr(client, name) for client in clients], axis=0) for name in names]
        else:
            shared = [
                [np.mean(arrays, axis=0) for arrays in zip(*(getattr(client, name) for client in clients), strict=True)]
                for name in names
            ]
        for name, value in zip(names, shared, strict=True):
            setattr(start, name, value)
        scores.append(start.score(X, y))
    assert scores[3] > scores[1] > scores[0]
    assert scores[3] > (0.7 if estimator is MLPRegressor else 0.9)


def test_attributes_that_do_not_fit_are_named(digits):
    X, y = digits
    model = SoftmaxClassifier()
    for wrong in (
        np.zeros((2, 5, 64)),
        np.zeros((10, 0)),
        "coefficients",
        np.full((10, 64), np.nan),
        [[1.0], [2.0, 3.0]],
    ):
        with pytest.raises((ValueError, TypeError), match=r"coef_|inhomogeneous"):
            model.coef_ = wrong
    assert vars(model).keys() == vars(SoftmaxClassifier()).keys()
    model.coef_, model.intercept_, model.classes_ = np.zeros((10, 64)), np.zeros(9), np.arange(10)
    for method in (lambda: model.predict(X), lambda: model.set_params(warm_start=True).fit(X, y)):
        with pytest.raises(ValueError, match=r"intercept_ must have shape \(10,\), to go with coef_, not \(9,\)"):
            method()
    model.intercept_, model.classes_ = np.zeros(10), np.arange(9)
    with pytest.raises(ValueError, match="classes_ holds 9 classes, but coef_ leads to 10 outputs"):
        model.predict(X)
    model.classes_ = np.arange(10)
    with pytest.raises(ValueError, match="X has 63 features, but SoftmaxClassifier is expecting 64"):
        model.predict(X[:, 1:])
    with pytest.raises(ValueError, match="X must have 64 columns"):
        model.fit(X[:, 1:], y)
    assert not hasattr(model, "n_features_in_")
    assert (model.predict(X) == 0).all()
    # From now on the shapes stay.
    with pytest.raises(ValueError, match=r"intercept_ must keep its shape \(10,\), not \(9,\)"):
        model.intercept_ = np.zeros(9)
    model.classes_ = np.arange(3)
    with pytest.raises(ValueError, match="classes_ holds 3 classes, but the model has 10 outputs"):
        model.predict(X)

    model = MLPRegressor()
    model.coefs_ = [np.ones((64, 3)), np.ones((2, 1))]
    model.coefs_[1][0, 0] = np.inf
    model.intercepts_ = [np.ones(3), np.ones(1)]
    with pytest.raises(ValueError, match=r"coefs_\[1\] must hold finite numbers"):
        model.predict(X)
    model.coefs_[1][0, 0] = 1
    with pytest.raises(ValueError, match=r"coefs_ must lead from layer to layer, .* \(64, 3\), \(2, 1\)"):
        model.predict(X)
    model.coefs_ = [np.ones((64, 3)), np.ones((3, 1))]
    model.coefs_[1] = np.full((3, 1), 2)
    np.testing.assert_allclose(model.predict(X), 6 * X.sum(axis=1) + 7)
    before = model.network_.parameters.copy()
    with pytest.raises(ValueError, match=r"coefs_ must keep its shape"):
        model.coefs_ = [np.zeros((64, 3)), np.zeros((4, 1))]
    np.testing.assert_array_equal(model.network_.parameters, before)
    with pytest.raises(TypeError, match=r"network_ must be a fastnn.Network"):
        model.network_ = "network"


def test_a_model_of_two_classes_made_by_hand(rng):
    X, coef = rng.standard_normal((20, 3)), [1.0, -2.0, 0.5]
    model, other = SoftmaxClassifier(), linear_model.LogisticRegression()
    model.coef_, model.intercept_, model.classes_ = coef, 0.25, np.array(["no", "yes"])
    other.coef_, other.intercept_, other.classes_ = np.array([coef]), np.array([0.25]), np.array(["no", "yes"])
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    np.testing.assert_array_equal(model.coef_, other.coef_)


def test_set_attributes_without_intercepts_in_any_order_of_classes(digits):
    X, y = digits
    fitted = SoftmaxClassifier(fit_intercept=False, max_iter=1000).fit(X, y)
    order = np.random.default_rng(0).permutation(10)
    model = SoftmaxClassifier(fit_intercept=False, max_iter=1000, warm_start=True)
    model.coef_, model.classes_ = fitted.coef_[order].astype(np.float32), fitted.classes_[order].tolist()
    assert model.network_.dtype == np.float32
    np.testing.assert_array_equal(model.predict(X), fitted.predict(X))
    np.testing.assert_array_equal(model.fit(X, y).predict(X), fitted.predict(X))
    assert model.n_iter_ < fitted.n_iter_ / 3
    np.testing.assert_array_equal(model.classes_, order)
    # A warm start without intercepts has none, whatever there was.
    model.set_params(fit_intercept=True).fit(X, y)
    assert model.intercept_.any()
    assert not model.set_params(fit_intercept=False).fit(X, y).intercept_.any()


def test_nan_is_no_improvement(digits, monkeypatch):
    X, y = digits[0], digits[1] / 10
    options = {"max_iter": 30, "n_iter_no_change": 3, "random_state": 0, "early_stopping": True}

    def with_scores(scores, **changes):
        left = iter(scores)
        monkeypatch.setattr(MLPRegressor, "_score", lambda *_: next(left, np.nan))
        seen = []
        model = MLPRegressor("squared_error", (9,), **options).set_params(
            callbacks=[Do(lambda: seen.append(model.network_.parameters.copy()))], **changes
        )
        return model.fit(X, y), seen

    # Five scores that are no better than the second.
    model, seen = with_scores([np.nan, 0.5, np.nan, 0.25, np.nan, np.nan, 0.75])
    assert (model.n_iter_, model.best_validation_score_) == (6, 0.5)
    np.testing.assert_array_equal(model.network_.parameters, seen[1])
    # None ever: it stops, and keeps what has been learnt.
    model, seen = with_scores([])
    assert (model.n_iter_, model.best_validation_score_) == (4, -np.inf)
    np.testing.assert_array_equal(model.network_.parameters, seen[-1])
    losses = iter([np.nan, 3.0, np.nan, 2.0, np.nan, np.nan, np.nan, np.nan, 1.0])
    monkeypatch.setattr(MLPRegressor, "_loss_of", lambda *_: next(losses))
    model, _ = with_scores([], early_stopping=False)
    assert (model.n_iter_, model.best_loss_) == (8, 2.0)
    # The last rows' R2 is NaN where there is one row.
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="R.2 score is not well-defined"):
        model = MLPRegressor("squared_error", (9,), **options).fit(X[1:], y[1:], X_val=X[:1], y_val=y[:1])
    assert model.n_iter_ == 4
    assert np.isnan(model.validation_scores_).all()


MISTAKES = [
    (MLPClassifier, {"solver": "newton"}, "solver must be one of 'lbfgs', 'sgd', 'adam', not 'newton'"),
    (MLPClassifier, {"hidden_layer_sizes": (5, 0)}, r"hidden_layer_sizes\[1\] must be at least 1"),
    (MLPClassifier, {"hidden_layer_sizes": -1}, r"hidden_layer_sizes\[0\] must be at least 1"),
    (MLPClassifier, {"activation": "step"}, "activation must be one of"),
    (MLPClassifier, {"alpha": -1}, "alpha must be at least 0"),
    (MLPClassifier, {"batch_size": 0}, "batch_size must be at least 1"),
    (MLPClassifier, {"batch_size": "all"}, "batch_size must be an integer"),
    (MLPClassifier, {"learning_rate": "fast"}, "learning_rate must be one of"),
    (MLPClassifier, {"max_iter": 1.5}, "max_iter must be an integer"),
    (MLPClassifier, {"momentum": 1.5}, "momentum must be at least 0 and below 1"),
    (MLPClassifier, {"early_stopping": True, "validation_fraction": 1e-3}, "The validation set is too small"),
    (MLPClassifier, {"random_state": "now"}, "cannot be used to seed"),
    (MLPClassifier, {"n_threads": 0}, "n_threads must be at least 1"),
    (MLPClassifier, {"callbacks": ["stop"]}, "callbacks must be a sequence of"),
    (MLPClassifier, {"class_weight": {99: 1.0}}, "class_weight"),
    (SoftmaxClassifier, {"C": 0}, "C must be above 0"),
    (SoftmaxClassifier, {"fit_intercept": "yes"}, "fit_intercept must be one of False, True"),
    (SoftmaxClassifier, {"fit_intercept": False, "solver": "adam"}, "fit_intercept=False needs solver='lbfgs'"),
    (MLPRegressor, {"loss": "hinge"}, "loss must be one of"),
    (NetworkClassifier, {"layers": "conv"}, r"layers\[0\] must be a layer such as Dense\(10\), as all others, not 'c'"),
    (NetworkClassifier, {"layers": [5, 0]}, "units must be at least 1"),
    (NetworkClassifier, {"layers": [Conv2D(8, 3)]}, "needs images, but what comes before it gives flat rows"),
    (
        NetworkClassifier,
        {"layers": [Conv2D(4, 3), MaxPool2D(7)], "input_shape": (8, 8)},
        r"layers\[1\], .* window of 7 x 7, larger than its input of 6 x 6:\nlayer +output\n.*\nConv2D.*\(6, 6, 4\)$",
    ),
    (NetworkClassifier, {"optimizer": "newton"}, "optimizer must be one of 'sgd', "),
    (NetworkClassifier, {"optimizer": fastnn.SGD}, "optimizer must be an optimizer such as fastnn.SGD()"),
    (NetworkClassifier, {"optimizer": "lbfgs", "batch_norm": True}, "LBFGS does not train a network with batch_norm"),
    (NetworkClassifier, {"activation": "step"}, "activation must be one of"),
    (NetworkClassifier, {"input_shape": (8, 7)}, r"X must have shape \(n, 8, 7, 1\), .*; its shape is \(700, 64\)"),
    (NetworkClassifier, {"input_shape": (1, 8, 8, 1)}, "input_shape must be one integer, "),
    (NetworkClassifier, {"l2": -1}, "l2 must be at least 0"),
    (NetworkRegressor, {"loss": "hinge"}, "loss must be one of"),
]


@pytest.mark.parametrize(("estimator", "options", "message"), MISTAKES)
def test_mistakes_are_named(digits, estimator, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        estimator(**options).fit(*digits)


def test_mistakes_in_the_data_are_named(digits, targets):
    X, y = digits
    model = MLPClassifier((3,), max_iter=2)
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(ValueError, match="Unknown label type"):
        model.fit(X, y / 7)
    with pytest.raises(ValueError, match="y must hold one class a row"):
        model.fit(X, np.stack([y, y], axis=1))
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X, y)
    model.fit(X, y)
    with pytest.raises(ValueError, match="differ from those of an earlier fit"):
        model.partial_fit(X, y, classes=[1, 2])
    with pytest.raises(ValueError, match="classes not in"):
        model.partial_fit(X, y + 5)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        MLPClassifier(early_stopping=True).partial_fit(X, y, classes=range(10))
    with pytest.raises(ValueError, match="'balanced' needs all rows at once"):
        MLPClassifier(class_weight="balanced").partial_fit(X, y, classes=range(10))
    with pytest.raises(ValueError, match=r"sample_weight must be at least 0, and above 0 for some row"):
        # All rows that are set aside have weight 0.
        MLPClassifier((3,), early_stopping=True, random_state=0).fit(X, y, np.arange(len(y)) == 0)
    with pytest.raises(ValueError, match=r"sample_weight_val must be at least 0"):
        model.fit(X, y, X_val=X[:2], y_val=y[:2], sample_weight_val=[1.0, -1.0])
    with pytest.raises(ValueError, match=r"X_val must be finite, but it holds NaN"):
        model.fit(X, y, X_val=X[:2] * np.nan, y_val=y[:2])
    with pytest.raises(
        ValueError,
        match=r"in epoch \d+, batch \d+; the model is as it was before the fit. Try a smaller learning rate",
    ):
        MLPRegressor(solver="sgd", learning_rate_init=1e3, random_state=0).fit(1e3 * X, 1e3 * y)
    np.testing.assert_array_equal(MLPClassifier((3,)).fit(X, ["one"] * len(y)).predict(X[:2]), ["one", "one"])
    labels = targets["multi-label"]
    np.testing.assert_array_equal(
        clone(model).set_params(random_state=0).fit(X, sparse.csr_matrix(labels)).predict(X),
        clone(model).set_params(random_state=0).fit(X, labels).predict(X),
    )


def test_the_import_names_the_extra(tmp_path):
    code = "import sys; sys.modules['sklearn'] = None; import fastnn.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1] == 'ImportError: fastnn.sklearn needs scikit-learn: pip install "fastnn[sklearn]"'
    )
    subprocess.run(
        [sys.executable, "-c", "import fastnn, sys; assert 'sklearn' not in sys.modules"], check=True, cwd=tmp_path
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_fit_within_a_fit_draws_its_own_random_numbers():
    X, y = datasets.load_iris(return_X_y=True)
    settings = {"batch_size": 20, "max_iter": 3, "random_state": 0}

    class Fits(Callback):
        def on_epoch(self, fit):
            inner.append(MLPClassifier(**settings).fit(X, y))

    inner = []
    outer = MLPClassifier(**settings, callbacks=[Fits()]).fit(X, y)
    alone = neural_network.MLPClassifier(**settings).fit(X, y)
    for fitted in (outer, *inner):
        np.testing.assert_allclose(fitted.coefs_[0], alone.coefs_[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("labels", "other"), [([3, 1, 2], 4), (["c", "a", "b"], "ab"), ([2.0, 0.0, 1.0], -1.0)])
def test_known_classes_may_be_in_any_order(rng, labels, other):
    model = MLPClassifier((4,), random_state=0)
    model.classes_ = labels
    X, y = rng.random((9, 2)), np.array(labels)[[0, 0, 2, 1, 0, 2, 2, 1, 1]]
    np.testing.assert_array_equal(model._read_targets(y, reset=False), [0, 0, 2, 1, 0, 2, 2, 1, 1])
    model.partial_fit(X, y[::-1])
    with pytest.raises(ValueError, match="classes not in"):
        model.partial_fit(X, np.array([*labels, *labels, *labels[1:], other]))


def test_a_network_is_trained_as_by_hand(digits, targets):
    X = digits[0].astype(np.float32).reshape(-1, 8, 8)
    layers = [Conv2D(4, 3, activation="tanh", batch_norm=True), MaxPool2D(2), Dense(10, dropout=0.2)]
    settings = {"l2": 0.01, "l1": 1e-4, "dropout": 0.1, "clip_norm": 1.0, "max_norm": 2.0}
    for estimator, kind, loss, n_out, more in (
        (NetworkClassifier, "multi-class", "cross_entropy", 10, {"label_smoothing": 0.1}),
        (NetworkClassifier, "multi-label", "binary_cross_entropy", 3, {}),
        (NetworkRegressor, "numbers", "squared", 2, {}),
    ):
        optimizer = fastnn.Adam(fastnn.schedules.Cosine(0.01, 5))
        numbers = np.random.Generator(np.random.RandomState(3)._bit_generator)
        network = fastnn.Network([*layers, Dense(n_out)], "relu", "float32", numbers, loss=loss, input_shape=(8, 8, 1))
        trainer = fastnn.Trainer(network, optimizer, 64, seed=numbers, **settings, **more)
        history = trainer.fit(X, targets[kind], epochs=5)
        options = {"input_shape": (8, 8), "optimizer": optimizer, "batch_size": 64, "max_iter": 5, **settings, **more}
        model = estimator(layers, **options, random_state=3).fit(X, targets[kind])
        np.testing.assert_array_equal(model.network_.parameters, network.parameters)
        np.testing.assert_array_equal(model.loss_curve_, np.negative(history.objective))
        assert model.network_.layers == network.layers


@pytest.mark.parametrize("store", [np.float32, np.float64])
def test_images_may_have_any_form(digits, store):
    flat, y = (16 * digits[0]).astype(np.uint8), digits[1]
    options = {"input_shape": (8, 8, 1), "max_iter": 3, "random_state": 0}
    layers = [Conv2D(4, 3, padding="same"), AveragePool2D(2), Conv2D(6, 2), GlobalAveragePool2D()]
    expected = NetworkClassifier(layers, **options).fit(flat.astype(store), y)
    assert expected.n_features_in_ == 64
    assert expected.network_.dtype == store
    images = flat.reshape(-1, 8, 8)
    for X in (images, images[..., None], np.asfortranarray(images), images.tolist(), flat.tolist()):
        X = X if isinstance(X, list) and store is np.float64 else np.asarray(X, store)
        model = NetworkClassifier(layers, **options).fit(X, y, X_val=X[:9], y_val=y[:9])
        np.testing.assert_array_equal(model.network_.parameters, expected.network_.parameters)
        np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(flat.astype(store)))
        model.partial_fit(X, y)
    # uint8 is pixels, as by networks: each times 1/256, which float32 holds.
    pixels = NetworkClassifier(layers, **options).fit(images, y)
    scaled = NetworkClassifier(layers, **options).fit(images / np.float32(256), y.tolist())
    np.testing.assert_array_equal(pixels.network_.parameters, scaled.network_.parameters)
    np.testing.assert_array_equal(pixels.predict_proba(images), scaled.predict_proba(images / np.float32(256)))
    assert pixels.network_.input_scale == 1 / 256
    for X in (images[:, :7], images[..., None, None], images[0, ..., None], 3.0):
        for call in (pixels.predict, lambda X: clone(pixels).fit(X, y)):
            with pytest.raises(ValueError, match=r"X must have shape \(n, 8, 8, 1\), \(n, 8, 8\) or \(n, 64\)"):
                call(X)
    with pytest.raises(ValueError, match="X has 63 features, but NetworkClassifier is expecting 64"):
        pixels.predict(flat[:, 1:])
    with pytest.raises(ValueError, match="0 sample"):
        pixels.predict(images[:0])
    with pytest.raises(TypeError, match="X must be dense"):
        pixels.predict(sparse.csr_matrix(flat))


def test_a_small_convolutional_network_learns_digits(mnist):
    train, _, test = mnist
    layers = [Conv2D(8, 5), MaxPool2D(4), 50]
    options = {"optimizer": fastnn.Adam(0.005), "batch_size": 50, "max_iter": 3, "random_state": 0}
    model = NetworkClassifier(layers, input_shape=(28, 28, 1), **options)
    X, y = train.X[:6000].astype(np.float32), train.y[:6000]
    images = [test.X[:2000].astype(np.float32).reshape(form) for form in ((-1, 784), (-1, 28, 28, 1))]
    scores = [model.fit(X.reshape(-1, *each.shape[1:]), y).score(each, test.y[:2000]) for each in images]
    assert scores[0] == scores[1] > 0.94
    odd = NetworkRegressor(layers, input_shape=(28, 28), **options)
    assert odd.fit(X, y % 2).score(images[1], test.y[:2000] % 2) > 0.7


def test_a_search_over_layers_in_a_pipeline(digits):
    X, y = digits
    layers = [(), (20,), [Conv2D(6, 3), MaxPool2D(2)], [Conv2D(6, 3), MaxPool2D(2), Dense(20, dropout=0.1), 10]]
    grid = {
        "networkclassifier__layers": layers,
        "networkclassifier__optimizer": [fastnn.Adam(0.01), fastnn.SGD(0.1, momentum=0.9)],
    }
    model = NetworkClassifier(input_shape=(8, 8), batch_size=50, max_iter=10, random_state=0)
    search = GridSearchCV(make_pipeline(StandardScaler(), model), grid, cv=2).fit(X, y)
    assert len(search.cv_results_["mean_test_score"]) == 8
    assert search.score(X, y) > 0.95
    best = search.best_estimator_[-1]
    assert best.layers == search.best_params_["networkclassifier__layers"]
    # Images go through searches too.
    model.set_params(optimizer=fastnn.Adam(0.01))
    images = GridSearchCV(model, {"layers": layers[2:]}, cv=2).fit(X.reshape(-1, 8, 8, 1), y)
    assert images.score(X, y) > 0.9
    assert images.best_estimator_.n_features_in_ == 64
    for each in (best, pickle.loads(pickle.dumps(best))):
        np.testing.assert_array_equal(clone(each).fit(X, y).predict(X), clone(best).fit(X, y).predict(X))


def test_a_trained_network_becomes_an_estimator(digits):
    X, y = digits
    layers = [Conv2D(4, 3), MaxPool2D(2), Dense(10)]
    network = fastnn.Network(layers, "relu", input_shape=(8, 8, 1))
    fastnn.Trainer(network, fastnn.Adam(0.01), batch_size=50).fit(X, y, epochs=5)
    model = NetworkClassifier(input_shape=(8, 8), warm_start=True, max_iter=3, random_state=0)
    with pytest.raises(NotFittedError, match=r"is not fitted yet\. Call 'fit'"):
        model.predict(X)
    model.network_, model.classes_ = network, np.array(list("abcdefghij"))
    check_is_fitted(model)
    letters = model.classes_[y]
    before = model.score(X.reshape(-1, 8, 8), letters)
    assert before == pytest.approx(1 - network.error(X, y))
    kept = network.parameters.copy()
    assert model.fit(X.reshape(-1, 8, 8), letters).score(X, letters) > before
    assert model.network_.layers == network.layers
    np.testing.assert_array_equal(network.parameters, kept)


def test_partial_fit_of_networks_goes_on_with_the_schedule(digits):
    X, y = digits
    options = {"optimizer": fastnn.SGD(fastnn.schedules.Step(0.5, 0.1)), "random_state": 0, "shuffle": False}
    model = NetworkClassifier((9,), **options, batch_size=700)
    for _ in range(3):
        model.partial_fit(X, y, classes=np.arange(10))
    whole = NetworkClassifier((9,), **options, batch_size=700, max_iter=3).fit(X, y)
    np.testing.assert_array_equal(model.network_.parameters, whole.network_.parameters)
    assert not hasattr(NetworkClassifier(optimizer="lbfgs"), "partial_fit")
    assert not hasattr(NetworkRegressor(optimizer=fastnn.LBFGS()), "partial_fit")
