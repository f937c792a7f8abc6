"""What a model makes of a table: scikit-learn finds the same, more slowly."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn import inspection as sklearn_inspection
from sklearn import model_selection

from fastnn.tabular import TabularClassifier, TabularRegressor
from fastnn.tabular.inspection import learning_curve, partial_dependence, permutation_importance

QUICK = {"hidden_layer_sizes": (8,), "max_epochs": 15, "batch_size": 64, "random_state": 0, "early_stopping": False}
CATEGORIES = ["city", "member"]


def draw(n=400, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n).astype(float),
            "city": rng.choice(["Rome", "Oslo", "Bern"], n, p=[0.5, 0.3, 0.2]),
            "planet": "Earth",
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1000, n), "D"),
            "member": rng.random(n) < 0.3,
            "noise": rng.standard_normal(n),
        }
    )
    days = (frame.since - pd.Timestamp("2020-01-01")).dt.days
    z = 0.05 * (frame.age - 50) + 2 * (frame.city == "Rome") + 0.003 * (days - 500) + frame.member
    frame.loc[rng.random(n) < 0.1, "age"] = np.nan
    return frame, np.asarray(z + 0.5 * rng.standard_normal(n)), rng.random(n)


@pytest.fixture(scope="module")
def data():
    return draw()


@pytest.fixture(scope="module")
def fitted(data):
    frame, y, _ = data
    thirds = np.digitize(y, np.quantile(y, [1 / 3, 2 / 3]))
    return {
        "two classes": TabularClassifier(**QUICK).fit(frame, np.where(y > 0, "yes", "no")),
        "three classes": TabularClassifier(**QUICK, n_members=2).fit(frame, thirds),
        "numbers": TabularRegressor(**QUICK, n_members=2).fit(frame, y),
        "quantiles": TabularRegressor(**QUICK, quantiles=(0.1, 0.5, 0.9)).fit(frame, y),
    }


def targets(kind, y):
    if kind == "two classes":
        return np.where(y > 0, "yes", "no")
    return np.digitize(y, np.quantile(y, [1 / 3, 2 / 3])) if kind == "three classes" else y


@pytest.mark.parametrize(
    ("kind", "scoring", "theirs"),
    [
        ("two classes", None, "neg_log_loss"),
        ("two classes", "roc_auc", "roc_auc"),
        ("three classes", None, "neg_log_loss"),
        ("three classes", "accuracy", "accuracy"),
        ("numbers", None, "r2"),
        ("numbers", "neg_mean_absolute_error", "neg_mean_absolute_error"),
        ("quantiles", None, "r2"),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_importance_is_that_of_scikit_learn(data, fitted, kind, scoring, theirs, weighted):
    frame, y, weights = data
    given = {"sample_weight": weights if weighted else None, "random_state": 3, "n_repeats": 2}
    wanted = sklearn_inspection.permutation_importance(fitted[kind], frame, targets(kind, y), scoring=theirs, **given)
    found = permutation_importance(fitted[kind], frame, targets(kind, y), scoring=scoring, **given)
    assert found.columns == tuple(frame.columns)
    np.testing.assert_allclose(found.values, wanted.importances, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.mean, wanted.importances_mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.std, wanted.importances_std, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.values[2], 0)  # the constant
    assert found.mean[1] > 0


def test_importance_is_printed_and_drawn_from_the_most_important_on(data, fitted):
    frame, y, _ = data
    found = permutation_importance(fitted["two classes"], frame[:100], targets("two classes", y[:100]), random_state=0)
    lines = str(found).splitlines()
    assert "log-likelihood without shuffling: -0." in lines[0]
    assert [line.split()[0] for line in lines[1:]] == [found.columns[k] for k in found.order]
    assert np.all(np.diff(found.mean[found.order]) <= 0)
    names = [text.get_text() for text in found.plot(most=4).axes[0].get_yticklabels()]
    assert names == [found.columns[k] for k in found.order[:4]][::-1]


def test_rows_need_not_be_of_all_classes(data, fitted):
    frame, y, _ = data
    some = np.flatnonzero(targets("three classes", y) == 1)[:20]
    found = permutation_importance(fitted["three classes"], frame.iloc[some], np.ones(20, int))
    assert np.isfinite(found.values).all()
    assert found.score == pytest.approx(
        np.log(fitted["three classes"].predict_proba(frame.iloc[some])[:, 1]).mean(), rel=1e-5
    )


@pytest.mark.parametrize("kind", ["two classes", "three classes", "numbers"])
@pytest.mark.parametrize("columns", ["age", "city", "member", ("noise", "city"), ("member", "age")])
def test_dependence_is_that_of_scikit_learn(data, fitted, kind, columns):
    frame, _, _ = data
    found = partial_dependence(fitted[kind], frame, columns, n_values=5, n_curves=30)
    names = [columns] if isinstance(columns, str) else list(columns)
    assert found.columns == tuple(names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of whole numbers, which are not there
        wanted = sklearn_inspection.partial_dependence(
            fitted[kind],
            frame,
            names,
            method="brute",
            kind="both",
            categorical_features=CATEGORIES,
            custom_values=dict(zip(names, found.grid, strict=True)),
            response_method="auto",
        )
    np.testing.assert_allclose(found.average, wanted["average"], rtol=0, atol=2e-6)
    shown = np.linspace(0, len(frame) - 1, 30).astype(int)
    np.testing.assert_allclose(found.curves, wanted["individual"][:, shown], rtol=0, atol=5e-6)
    for name, values in zip(names, found.grid, strict=True):
        assert len(values) <= 5
        assert set(values.tolist()) <= set(frame[name].tolist())
        if name in CATEGORIES:
            assert sorted(values) == sorted(set(frame[name]))


def test_dependence_on_dates(data, fitted):
    frame, _, _ = data
    found = partial_dependence(fitted["numbers"], frame, "since", n_values=3)
    assert np.isin(found.grid[0], frame["since"].to_numpy()).all()
    for date, value in zip(found.grid[0], found.average[0], strict=True):
        changed = frame.assign(since=pd.Timestamp(date))
        assert value == pytest.approx(fitted["numbers"].predict(changed).mean(), abs=1e-5)


def test_the_most_frequent_values_are_shown(data, fitted):
    frame, _, _ = data
    found = partial_dependence(fitted["numbers"], frame, "city", n_values=2, n_curves=0)
    assert found.grid[0].tolist() == ["Oslo", "Rome"]
    assert found.curves.shape == (1, 0, 2)


def test_dependence_of_quantiles_and_arrays(data, fitted):
    found = partial_dependence(fitted["quantiles"], data[0], "age")
    assert found.outputs == ("quantile 0.1", "quantile 0.5", "quantile 0.9")
    assert np.all(np.diff(found.average, axis=0) >= 0)
    X = np.random.default_rng(0).standard_normal((50, 2))
    model = TabularRegressor(**QUICK).fit(X, X[:, 0])
    assert partial_dependence(model, X, "x1").columns == ("x1",)
    assert permutation_importance(model, X, X[:, 0]).columns == ("x0", "x1")


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("two classes", "age"),
        ("three classes", "city"),
        ("quantiles", "since"),
        ("two classes", ("age", "city")),
        ("numbers", ("city", "since")),
        ("three classes", ("since", "age")),
    ],
)
def test_dependence_is_drawn(data, fitted, kind, columns, tmp_path):
    found = partial_dependence(fitted[kind], data[0][:50], columns, n_values=3, n_curves=4)
    figure = found.plot()
    assert figure.axes[0].get_xlabel() == found.columns[0]
    if isinstance(columns, tuple):
        assert figure.axes[0].get_ylabel() == found.columns[1]
        assert len(figure.axes) == 2 * len(found.outputs)
    figure.savefig(tmp_path / "picture.png", dpi=30)


@pytest.mark.parametrize("columns", ["planet", "moon", (), ("age", "age"), ("age", "city", "noise")])
def test_columns_that_cannot_be_shown(data, fitted, columns):
    with pytest.raises((TypeError, ValueError), match="columns must be the name of a column, or of two, not"):
        partial_dependence(fitted["numbers"], data[0], columns)


def test_other_mistakes_are_refused_and_the_estimator_stays(data, fitted):
    frame, y, _ = data
    model = fitted["two classes"]
    before = dict(vars(model))
    with pytest.raises(ValueError, match="y must hold classes of the estimator"):
        permutation_importance(model, frame, np.full(len(y), "maybe"))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        permutation_importance(model, frame, targets("two classes", y)[1:])
    with pytest.raises(ValueError, match="n_repeats must be at least 1"):
        permutation_importance(model, frame, targets("two classes", y), n_repeats=0)
    with pytest.raises(ValueError, match="there is no 'age'"):
        partial_dependence(model, frame.drop(columns="age"), "city")
    with pytest.raises(ValueError, match="no value of 'city' that the estimator knows"):
        partial_dependence(model, frame.assign(city="Paris"), "city")
    with pytest.raises(ValueError, match="not fitted yet"):
        permutation_importance(TabularClassifier(), frame, y)
    assert {name: value for name, value in vars(model).items() if name in before} == before
    np.testing.assert_array_equal(model.predict(frame[:3]), model.predict(frame)[:3])


@pytest.mark.parametrize("kind", ["two classes", "numbers"])
def test_the_learning_curve_is_that_of_scikit_learn(data, kind):
    frame, y, _ = data
    y = targets(kind, y)
    model = (TabularRegressor if kind == "numbers" else TabularClassifier)(**QUICK)
    given = {"train_sizes": [0.3, 1.0], "cv": 3, "random_state": 2}
    found = learning_curve(model, frame, y, **given)
    scoring = "r2" if kind == "numbers" else "neg_log_loss"
    sizes, train, test = model_selection.learning_curve(model, frame, y, shuffle=True, scoring=scoring, **given)
    np.testing.assert_array_equal(found.sizes, sizes)
    np.testing.assert_allclose(found.train_scores, train, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.test_scores, test, rtol=0, atol=1e-6)
    assert found.seconds.shape == test.shape
    assert len(str(found).splitlines()) == 3
    assert found.plot().axes[0].get_ylabel() == found.scoring
