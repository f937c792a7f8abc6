"""Estimators for tables: scikit-learn's own checks, what tables need, files, and one row at a time."""

import contextlib
import json
import pickle

import numpy as np
import pytest
from sklearn import datasets
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastnn
from fastnn.callbacks import Callback
from fastnn.tabular import Predictor, TabularClassifier, TabularRegressor, load
from fastnn.tabular.estimators import split

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

ESTIMATORS = [TabularClassifier, TabularRegressor]

# Rows that are held out and the batches of a weighted row are not those of a repeated one.
EXPECTED = {"check_sample_weight_equivalence_on_dense_data": "batches of rows are drawn at random"}


def with_checks(estimators):
    mark = parametrize_with_checks(estimators)
    names, checks = mark.args
    return pytest.mark.parametrize(names, list(checks), **mark.kwargs)


@with_checks([TabularClassifier(max_epochs=30), TabularRegressor(max_epochs=60)])
def test_passes_scikit_learns_checks(estimator, check):
    if check.func.__name__ in EXPECTED:
        pytest.skip(EXPECTED[check.func.__name__])
    check(estimator)


def frame_of(rng, n):
    """A table with all kinds of columns, and what is to be predicted of it: a number."""
    city = rng.choice(["Rome", "Oslo", "Lima"], n)
    age = rng.integers(18, 80, n).astype(float)
    member = rng.random(n) < 0.5
    day = np.datetime64("2020-01-01") + rng.integers(0, 700, n)
    y = 0.1 * age + 3 * (city == "Oslo") - 2 * member + rng.normal(scale=0.3, size=n)
    age[rng.random(n) < 0.1] = np.nan
    frame = pd.DataFrame({"city": city, "age": age, "member": member, "day": day, "planet": "Earth"})
    frame.loc[rng.random(n) < 0.1, "city"] = None
    return frame, y


@pytest.fixture(scope="module")
def table():
    return frame_of(np.random.default_rng(0), 600)


@pytest.fixture(scope="module")
def classifier(table):
    frame, y = table
    return TabularClassifier(random_state=0).fit(frame, np.where(y > 6, "high", "low"))


def test_predicts_better_than_a_constant(table):
    frame, y = table
    X, X_test, y, y_test = frame[:450], frame[450:], y[:450], y[450:]
    model = TabularRegressor(random_state=0).fit(X, y)
    constant = DummyRegressor().fit(X, y)
    errors = [mean_squared_error(y_test, each.predict(X_test)) for each in (model, constant)]
    assert errors[0] < 0.15 * errors[1]  # the noise is 0.09 of 6.5; holes hide a part of the rest
    labels, test_labels = (np.digitize(each, [4, 7]) for each in (y, y_test))
    model = TabularClassifier(random_state=0).fit(X, labels)
    constant = DummyClassifier().fit(X, labels)
    losses = [log_loss(test_labels, each.predict_proba(X_test)) for each in (model, constant)]
    assert losses[0] < 0.5 * losses[1]
    np.testing.assert_array_equal(model.predict(X_test), model.classes_[model.predict_proba(X_test).argmax(axis=1)])
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X_test)), model.predict_proba(X_test), rtol=1e-6)


def test_frames_of_all_kinds_are_the_same_table(table, classifier):
    frame, _ = table
    expected = classifier.predict_proba(frame)
    polars = pl.DataFrame(
        {name: frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame}
    )
    for other in (polars, frame[frame.columns[::-1]], frame.assign(more=1), frame.to_dict("list")):
        np.testing.assert_array_equal(classifier.predict_proba(other), expected)
    labels = np.where(table[1] > 6, "high", "low")
    again = TabularClassifier(random_state=0).fit(polars, pl.Series(labels))
    np.testing.assert_array_equal(again.predict_proba(frame), expected)


def test_what_was_never_seen_is_ordinary(classifier):
    row = {"city": ["Atlantis"], "age": [None], "member": [None], "day": [None]}
    probabilities = classifier.predict_proba(row)
    assert np.isfinite(probabilities).all()
    with pytest.raises(ValueError, match="there is no 'city'"):
        classifier.predict({"age": [3.0]})
    with pytest.raises((TypeError, ValueError), match=r"'age'.*'old'"):
        classifier.predict(row | {"age": ["old"]})
    with pytest.raises(ValueError, match=r"'age'.*finite"):
        classifier.predict(row | {"age": [np.inf]})


def test_the_bits_do_not_depend_on_threads(table):
    frame, y = table
    for n_members in (1, 3):
        found = [
            TabularRegressor(n_members, n_threads=n_threads, random_state=3, max_epochs=5).fit(frame, y).predict(frame)
            for n_threads in (1, 2, 3)
        ]
        assert len({each.tobytes() for each in found}) == 1


def test_members_differ_and_predict_together(table):
    frame, y = table
    model = TabularRegressor(3, random_state=0, max_epochs=5).fit(frame, y)
    raw = model.table_.read(frame)
    each = np.array([network.predict(raw)[:, 0] for network in model.networks_])
    assert len({one.tobytes() for one in each}) == 3
    np.testing.assert_allclose(model.predict(frame), each.mean(axis=0), rtol=1e-5)
    assert len(model.history_) == 3
    with pytest.raises(AttributeError, match="more than one network"):
        model.network_  # noqa: B018  is the call
    np.testing.assert_allclose(model.predictor().predict(frame.iloc[0].to_dict()), model.predict(frame[:1])[0], 1e-6)


def test_networks_map_raw_rows_to_targets(table, tmp_path):
    frame, y = table
    model = TabularRegressor(random_state=0, max_epochs=5).fit(frame, 1000 + 50 * y)
    model.network_.save(tmp_path / "network.safetensors")
    network = fastnn.Network.load(tmp_path / "network.safetensors")
    np.testing.assert_array_equal(network.predict(model.table_.read(frame))[:, 0], model.predict(frame))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_files_pickles_and_predictors(table, tmp_path, estimator):
    frame, y = table
    y = np.where(y > 6, "high", "low") if estimator is TabularClassifier else y
    for n_members in (1, 2):
        model = estimator(n_members, random_state=0, max_epochs=3, columns={"day": "ignored"}).fit(frame, y)
        path = tmp_path / "model.safetensors"
        model.save(path)
        others = [load(path), estimator.load(path), pickle.loads(pickle.dumps(model))]
        for other in others:
            assert type(other) is estimator
            assert other.get_params() == model.get_params()
            assert other.describe() == model.describe()
            assert other.feature_names_in_.tolist() == model.feature_names_in_.tolist()
            np.testing.assert_array_equal(other.predict(frame), model.predict(frame))
        predictor = others[0].predictor()
        assert isinstance(predictor, Predictor)
        rows = frame.to_dict("records")[:20]
        answers = [predictor.predict(row) for row in rows]
        np.testing.assert_array_equal(answers, model.predict(frame[:20]))
        if estimator is TabularClassifier:
            found = [predictor.predict_proba(row) for row in rows]
            np.testing.assert_array_equal(found, model.predict_proba(frame[:20]))


def test_files_of_others_are_refused(table, classifier, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    path, changed = tmp_path / "model.safetensors", tmp_path / "changed.safetensors"
    classifier.save(path)
    with pytest.raises(ValueError, match="kind must be one of 'TabularRegressor'"):
        TabularRegressor.load(path)
    with safe_open(path, "numpy") as file:
        content = json.loads(file.metadata()["fastnn tabular"])
    changes = [
        ("its format is 3", lambda content: content.update(format=3)),
        ("no 'told'", lambda content: content.pop("told")),
        ("not one of a model", lambda content: content.update(told=[])),
        ("not one of a model", lambda content: content["told"].pop("table")),
        ("not one of a model", lambda content: content["told"].update(residuals=None)),
        ("no description of a table", lambda content: content["told"].update(table="[]")),
        ("classes must be", lambda content: content["told"].update(classes=["low", "high"])),
        ("classes must be", lambda content: content["told"].update(classes=[1, "a"])),
        ("not those of its classes", lambda content: content["told"].update(classes=["a", "b", "c"])),
        ("not those of its classes", lambda content: content["told"].update(classes=None)),
        ("recipe has other fields", lambda content: content["told"]["recipe"].pop("dropout")),
        ("dropout must be of type float", lambda content: content["told"]["recipe"].update(dropout="a")),
        ("n_members must be at least 1", lambda content: content["told"]["parameters"].update(n_members=0)),
        ("unexpected keyword", lambda content: content["told"]["parameters"].update(other=0)),
        ("residuals must be", lambda content: content["told"].update(residuals=["a"])),
        ("cannot reshape", lambda content: content["told"].update(residuals=[1.0])),
        ("tensors are not those", lambda content: content.update(networks=[])),
    ]
    for message, change in changes:
        told = json.loads(json.dumps(content))
        change(told)
        save_file(load_file(path), changed, {"fastnn tabular": json.dumps(told)})
        with pytest.raises(ValueError, match=message) as caught:
            load(changed)
        assert str(changed) in str(caught.value)
    save_file({}, changed, {"fastnn tabular": json.dumps(content | {"networks": []})})
    with pytest.raises(ValueError, match="networks is empty"):
        load(changed)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 6000), 3):
            damaged[place] = rng.integers(256)
        changed.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            load(changed)


def test_a_failed_fit_changes_nothing(table, classifier):
    frame, y = table
    model = pickle.loads(pickle.dumps(classifier))
    before = {name: id(value) for name, value in vars(model).items()}
    for X, targets in ((frame[["planet"]], y > 6), (frame, y[:-1] > 6), (frame, y), (frame.assign(age=np.inf), y > 6)):
        with pytest.raises(ValueError, match=r"constant|inconsistent|continuous|finite"):
            model.fit(X, targets)
        assert {name: id(value) for name, value in vars(model).items()} == before
    with pytest.raises(NotFittedError):
        clone(model).predict(frame)


def test_describe_before_and_after(table, classifier):
    frame, y = table
    text = classifier.describe()
    assert "planet  constant" in text
    assert "hidden layer sizes" in text
    assert TabularClassifier(hidden_layer_sizes=(8,)).describe(frame, y > 6).count("as told") == 1
    assert "refit                False     intervals hold" in TabularRegressor(quantiles=(0.1, 0.9)).describe(frame)
    assert "refit                True      as told" in TabularRegressor(quantiles=(0.1, 0.9), refit=True).describe(
        frame
    )
    assert "no rows are held out" in TabularRegressor(early_stopping=False).describe(frame)
    tried = TabularClassifier().describe(frame, y > 6).splitlines()[-3:]
    assert tried[0] == "tried beside this: n knots 0"
    assert tried[1].startswith("tried beside this: weight decay")
    with pytest.raises(ValueError, match="y is needed"):
        TabularClassifier().describe(frame)
    assert TabularRegressor().describe(frame) == TabularRegressor().describe(frame, y)
    with pytest.raises(NotFittedError):
        TabularRegressor().describe()


def test_weights(table):
    frame, y = table
    labels, weights = (y > 9).astype(int), np.where(y > 9, 5.0, 1.0)
    by_rows = TabularClassifier(random_state=0, max_epochs=5).fit(frame, labels, weights)
    by_classes = TabularClassifier(random_state=0, max_epochs=5, class_weight={0: 1, 1: 5}).fit(frame, labels)
    np.testing.assert_allclose(by_rows.predict_proba(frame), by_classes.predict_proba(frame), atol=1e-5)
    plain = TabularClassifier(random_state=0, max_epochs=5).fit(frame, labels)
    assert by_rows.predict_proba(frame)[:, 1].mean() > plain.predict_proba(frame)[:, 1].mean() + 0.02
    balanced = TabularClassifier(random_state=0, max_epochs=5, class_weight="balanced").fit(frame, labels)
    assert balanced.predict_proba(frame)[:, 1].mean() > plain.predict_proba(frame)[:, 1].mean() + 0.02
    with pytest.raises(ValueError, match="sample_weight must be at least 0"):
        plain.fit(frame, labels, -weights)


def test_rows_to_validate_on_may_be_given(table):
    frame, y = table
    model = TabularRegressor(random_state=0, max_epochs=4).fit(frame[:400], y[:400], X_val=frame[400:], y_val=y[400:])
    assert model.recipe_.refit is False
    history = model.history_[0]
    scale = np.std(y[:400])
    best = max(history.validation_log_likelihood)
    np.testing.assert_allclose(-0.5 * np.mean((model.predict(frame[400:]) - y[400:]) ** 2) / scale**2, best, rtol=1e-4)
    with pytest.raises(ValueError, match="X_val needs y_val"):
        model.fit(frame, y, X_val=frame)
    with pytest.raises(ValueError, match="y_val and sample_weight_val need X_val"):
        model.fit(frame, y, y_val=y)
    with pytest.raises(ValueError, match="y_val has classes that y has not"):
        TabularClassifier().fit(frame, y > 6, X_val=frame[:1], y_val=[2])


def test_pipelines_and_searches(table):
    frame, y = table
    search = GridSearchCV(TabularRegressor(random_state=0, max_epochs=3), {"dropout": [0.0, 0.2]}, cv=2).fit(frame, y)
    assert search.best_score_ > 0.1
    piped = make_pipeline(
        make_column_transformer(("passthrough", ["city", "age", "member"])),
        TabularRegressor(random_state=0, max_epochs=3),
    )
    assert cross_val_score(piped, frame, y, cv=2, error_score="raise").min() > 0.1


@pytest.mark.parametrize("n_rows", [1, 2, 3, 9, 11])
def test_few_rows(n_rows):
    frame = pd.DataFrame({"a": np.arange(n_rows), "b": list("xyzxyzxyzxy")[:n_rows]})
    if n_rows == 1:
        with pytest.raises(ValueError, match="no column to learn from"):
            TabularRegressor().fit(frame, np.arange(n_rows))
        return
    model = TabularRegressor(random_state=0).fit(frame, np.arange(n_rows))
    assert np.isfinite(model.predict(frame)).all()
    labels = np.arange(n_rows) % 2
    assert set(TabularClassifier(random_state=0).fit(frame, labels).predict(frame)) <= {0, 1}


def test_one_class_and_one_number(table):
    frame, _ = table
    model = TabularClassifier(random_state=0).fit(frame, ["yes"] * len(frame))
    assert set(model.predict(frame)) == {"yes"}
    assert (model.predict_proba(frame) == 1).all()
    np.testing.assert_allclose(
        TabularRegressor(random_state=0).fit(frame, [7.5] * len(frame)).predict(frame), 7.5, 1e-5
    )


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_targets_of_any_size(table, scale):
    frame, y = table
    model = TabularRegressor(random_state=0, max_epochs=5).fit(frame, y * scale)
    plain = TabularRegressor(random_state=0, max_epochs=5).fit(frame, y)
    np.testing.assert_allclose(model.predict(frame) / scale, plain.predict(frame), rtol=0.05, atol=0.2)


def test_quantiles(table):
    frame, y = table
    model = TabularRegressor(quantiles=(0.1, 0.5, 0.9), random_state=0).fit(frame, y)
    quantiles = model.predict_quantiles(frame)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    np.testing.assert_array_equal(quantiles[:, 1], model.predict(frame))
    np.testing.assert_allclose((y[:, None] < quantiles).mean(axis=0), [0.1, 0.5, 0.9], atol=0.09)
    with pytest.raises(ValueError, match="quantiles"):
        TabularRegressor(quantiles=(0.5, 0.1)).fit(frame, y)


WRONG = [
    ({"n_members": 0}, "n_members must be at least 1"),
    ({"hidden_layer_sizes": 0}, r"hidden_layer_sizes\[0\] must be at least 1"),
    ({"learning_rate": "fast"}, "learning_rate must be a number"),
    ({"batch_size": 0}, "batch_size must be at least 1"),
    ({"dropout": 1}, "dropout must be at least 0 and below 1"),
    ({"validation_fraction": 0}, "validation_fraction must be above 0"),
    ({"refit": "no"}, "refit must be one of"),
    ({"early_stopping": "no"}, "early_stopping must be one of"),
    ({"columns": {"town": "category"}}, "must name columns of X"),
    ({"columns": {"city": "number"}}, "'city'"),
]


@pytest.mark.parametrize(("parameters", "message"), WRONG)
def test_wrong_parameters(table, parameters, message):
    frame, y = table
    for estimator in ESTIMATORS:
        with pytest.raises((TypeError, ValueError), match=message):
            estimator(**parameters).fit(frame, y > 6 if estimator is TabularClassifier else y)


def test_split_holds_out_a_share_of_each_class(rng):
    groups = np.repeat([0, 1, 2, 3], [1, 4, 10, 85])
    stay, leave = split(groups, 0.2, np.random.RandomState(0))
    assert sorted([*stay, *leave]) == list(range(100))
    assert np.bincount(groups[leave], minlength=4).tolist() in ([0, 1, 2, 17], [0, 1, 3, 16])
    assert (np.bincount(groups[stay], minlength=4) > 0).all()


def test_numbers_alone_in_an_array():
    X, y = datasets.load_breast_cancer(return_X_y=True)
    model = TabularClassifier(random_state=0).fit(X[::2], y[::2])
    assert model.score(X[1::2], y[1::2]) > 0.93
    assert not hasattr(model, "feature_names_in_")
    assert model.predictor().predict(X[0]) == model.predict(X[:1])[0]


def test_parameters_cannot_be_set_during_a_fit(table, monkeypatch):
    frame, y = table
    model, refused = TabularRegressor(random_state=0, max_epochs=2), []

    class Meddler(Callback):
        def on_epoch(self, fit):
            with pytest.raises(RuntimeError, match="dropout cannot be set"):
                model.dropout = 0.5
            with pytest.raises(RuntimeError, match="a fit of this TabularRegressor is under way"):
                model.fit(frame, y)
            refused.append(True)

    train = fastnn.tabular.training.train

    def meddle(networks, *args, **options):
        return train(networks, *args, callbacks=[[Meddler()] for _ in networks], **options)

    monkeypatch.setattr(fastnn.tabular.training, "train", meddle)
    model.fit(frame, y)
    assert refused


class Killed(Exception):
    """What stands for a kill in a fit."""


@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.parametrize("epoch", [1, 4, 8])
def test_resumes_with_the_same_bits(table, tmp_path, monkeypatch, epoch, n_members):
    frame, y = table
    whole = TabularRegressor(n_members, random_state=0, max_epochs=5).fit(frame, y)
    add, taken = fastnn.tabular.training.Average.add, []

    def fails(self, parameters):
        taken.append(parameters)
        if len(taken) == epoch:
            raise Killed
        return add(self, parameters)

    model, path = TabularRegressor(n_members, random_state=0, max_epochs=5), tmp_path / "fit"
    monkeypatch.setattr(fastnn.tabular.training.Average, "add", fails)
    with pytest.raises(Killed):
        model.fit(frame, y, checkpoint=path)
    monkeypatch.undo()
    model.fit(frame, y, checkpoint=path)
    assert model.predict(frame).tobytes() == whole.predict(frame).tobytes()
    for resumed, expected in zip(model.history_, whole.history_, strict=True):
        assert resumed.validation_log_likelihood == expected.validation_log_likelihood
    assert model.fit(frame, y, checkpoint=path).predict(frame).tobytes() == whole.predict(frame).tobytes()
    with pytest.raises(ValueError, match="checkpoint"):
        model.set_params(max_epochs=6).fit(frame, y, checkpoint=path)
    with pytest.raises(ValueError, match="needs an integer as random_state"):
        model.set_params(random_state=None).fit(frame, y, checkpoint=path)
