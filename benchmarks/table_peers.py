"""Those who fit tables: fastnn and its peers, as estimators that take the same frame of pandas.

Numbers with holes, and text as pandas' categories.  Each peer has its defaults, and the preparation that its
documentation asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

from fastnn.engine.threads import available_threads

#: Networks of the ensemble.
N_MEMBERS = 4
#: Categories of a column that HistGradientBoosting takes, at most.
MAX_CATEGORIES = 255

CLASSES = "classification"
NUMBERS = make_column_selector(dtype_exclude="category")
CATEGORIES = make_column_selector(dtype_include="category")

#: From the task and a seed to an estimator.
Peer = Callable[[str, int], Any]


def fastnn(task: str, seed: int, n_members: int = 1) -> Any:
    from fastnn.tabular import TabularClassifier, TabularRegressor

    estimator = TabularClassifier if task == CLASSES else TabularRegressor
    return estimator(n_members=n_members, random_state=seed)


def fastnn_ensemble(task: str, seed: int) -> Any:
    return fastnn(task, seed, N_MEMBERS)


def light_gbm(task: str, seed: int) -> Any:
    from lightgbm import LGBMClassifier, LGBMRegressor

    estimator = LGBMClassifier if task == CLASSES else LGBMRegressor
    return estimator(random_state=seed, n_jobs=available_threads(), verbose=-1)


def boosting(task: str, seed: int) -> Any:
    """HistGradientBoosting; columns of more categories than it takes are encoded by their targets' means."""

    def large(frame: Any) -> list[str]:
        return [name for name in CATEGORIES(frame) if len(frame[name].cat.categories) > MAX_CATEGORIES]

    estimator = HistGradientBoostingClassifier if task == CLASSES else HistGradientBoostingRegressor
    encode = make_column_transformer((TargetEncoder(random_state=seed), large), remainder="passthrough")
    return make_pipeline(encode.set_output(transform="pandas"), estimator(random_state=seed))


def _encoded(estimator: Any) -> Any:
    """Return an estimator on scaled numbers, marks of holes and one column a category."""
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(make_column_transformer((numbers, NUMBERS), (categories, CATEGORIES)), estimator)


def perceptron(task: str, seed: int) -> Any:
    """scikit-learn's MLP with two hidden layers, stopped early; with its defaults it is worse and slower."""
    estimator = MLPClassifier if task == CLASSES else MLPRegressor
    return _encoded(estimator(hidden_layer_sizes=(128, 128), early_stopping=True, random_state=seed))


def linear(task: str, seed: int) -> Any:
    return _encoded(LogisticRegression(max_iter=1000) if task == CLASSES else RidgeCV())


def constant(task: str, seed: int) -> Any:
    return DummyClassifier(strategy="prior") if task == CLASSES else DummyRegressor()


def _pytabkit(name: str, task: str, seed: int, **of_classes: Any) -> Any:
    """Return a network of pytabkit, which takes no holes in numbers: medians, and marks."""
    from pytabkit.models.sklearn import sklearn_interfaces

    estimator = getattr(sklearn_interfaces, f"{name}_{'Classifier' if task == CLASSES else 'Regressor'}")
    settings = of_classes if task == CLASSES else {}
    numbers = SimpleImputer(strategy="median", add_indicator=True)
    categories = SimpleImputer(strategy="constant", fill_value="missing")
    fill = make_column_transformer((numbers, NUMBERS), (categories, CATEGORIES), verbose_feature_names_out=False)
    model = estimator(device="cpu", n_threads=available_threads(), random_state=seed, **settings)
    return make_pipeline(fill.set_output(transform="pandas"), model)


def real_mlp_s_default(task: str, seed: int) -> Any:
    return _pytabkit("RealMLP_TD_S", task, seed)


def real_mlp_s(task: str, seed: int) -> Any:
    """RealMLP-TD-S; for classes as its authors recommend for the log loss, which is much better than its defaults."""
    return _pytabkit("RealMLP_TD_S", task, seed, val_metric_name="cross_entropy", use_ls=False)


def real_mlp(task: str, seed: int) -> Any:
    return _pytabkit("RealMLP_TD", task, seed, val_metric_name="cross_entropy", use_ls=False)


def tab_m(task: str, seed: int) -> Any:
    return _pytabkit("TabM_D", task, seed, val_metric_name="cross_entropy")


PEERS: dict[str, Peer] = {
    "fastnn": fastnn,
    f"{N_MEMBERS} x fastnn": fastnn_ensemble,
    "LightGBM": light_gbm,
    "HistGradientBoosting": boosting,
    "scikit-learn's MLP": perceptron,
    "linear": linear,
    "constant": constant,
    "RealMLP-TD-S": real_mlp_s,
    "RealMLP-TD-S, defaults": real_mlp_s_default,
    "RealMLP-TD": real_mlp,
    "TabM": tab_m,
}
