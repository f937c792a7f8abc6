"""Other people's libraries: Optuna prunes fits, TensorBoard and MLflow log them, skops and joblib keep estimators."""

import pickle
import struct
import sys
import warnings

import joblib
import numpy as np
import pytest

import fastnn
from fastnn.callbacks import Callback, Checkpoint, EarlyStopping, HistoryLog, OptunaPruning
from fastnn.layers import Dense

pytest.importorskip("sklearn", reason="needs the extra sklearn")

import sklearn
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from fastnn.sklearn import MLPClassifier, MLPRegressor, NetworkClassifier, NetworkRegressor, SoftmaxClassifier

SKLEARN = tuple(int(number) for number in sklearn.__version__.split(".")[:2])

# Most fits here are short.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def data(rng):
    X = rng.standard_normal((300, 7))
    y = (X[:, :3] + rng.standard_normal((300, 3))).argmax(axis=1)
    return X, y


class Parameters(Callback):
    """Keeps the parameters after each epoch, and fails after one."""

    def __init__(self, fails_after=None):
        self.fails_after, self.seen = fails_after, []

    def on_epoch(self, fit):
        self.seen.append(fit.trainer.network.parameters.copy())
        if len(fit.history) == self.fails_after:
            raise RuntimeError("the power failed")


def train(data, *callbacks, resume=None, epochs=6):
    """Return the trained network and the history; half of the rows are for validation."""
    X, y = data
    network = fastnn.Network([7, 5, 3], seed=0)
    trainer = fastnn.Trainer(network, fastnn.Adam(0.01), batch_size=20, seed=0, callbacks=callbacks)
    history = trainer.fit(X[::2], y[::2], epochs, validation=(X[1::2], y[1::2]), resume=resume)
    return network, history


@pytest.fixture
def optuna():
    found = pytest.importorskip("optuna", reason="needs the extra optuna")
    found.logging.set_verbosity(found.logging.WARNING)
    return found


@pytest.fixture
def study_that_prunes(optuna):
    """Return a function that makes a study whose trials are pruned at a step."""

    class At(optuna.pruners.BasePruner):
        def __init__(self, step):
            self.step = step

        def prune(self, study, trial):
            return trial.last_step == self.step

    return lambda step, direction: optuna.create_study(direction=direction, pruner=At(step))


@pytest.mark.parametrize("monitor", ["validation_log_likelihood", "validation_error", "function"])
def test_a_pruned_trial_has_the_measures_of_the_fit_until_then(study_that_prunes, data, monitor):
    parameters = Parameters()
    history = train(data, parameters)[1]
    falls, watched = monitor == "validation_error", monitor
    if monitor == "function":
        monitor, watched = "objective", lambda fit: fit.history.objective[-1]
    study = study_that_prunes(3, "minimize" if falls else "maximize")
    networks = []

    def objective(trial):
        seen = Parameters()
        try:
            return train(data, OptunaPruning(trial, watched), seen)[1].columns()[monitor][-1]
        finally:
            networks.append(seen)

    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    measures = history.columns()[monitor]
    assert trial.state.name == "PRUNED"
    assert trial.intermediate_values == dict(enumerate(measures[:3], 1))
    assert trial.value == measures[2]
    np.testing.assert_array_equal(networks[0].seen, parameters.seen[:2])  # the callback behind was not called again

    study.pruner.step = 0
    study.optimize(objective, n_trials=1)
    assert study.trials[1].state.name == "COMPLETE"
    assert study.trials[1].intermediate_values == dict(enumerate(measures, 1))
    assert study.best_value == measures[-1]


def test_a_pruned_fit_leaves_the_network_as_after_its_last_epoch(study_that_prunes, optuna, data):
    parameters = Parameters()
    history = train(data, parameters)[1]
    trial = study_that_prunes(4, "maximize").ask()
    X, y = data
    network = fastnn.Network([7, 5, 3], seed=0)
    trainer = fastnn.Trainer(network, fastnn.Adam(0.01), 20, seed=0, callbacks=[OptunaPruning(trial)])
    with pytest.raises(optuna.TrialPruned, match=r"Trial was pruned at epoch 4\."):
        trainer.fit(X[::2], y[::2], 6, validation=(X[1::2], y[1::2]))
    np.testing.assert_array_equal(network.parameters, parameters.seen[3])
    trainer.callbacks = []
    rest = trainer.fit(X[::2], y[::2], 2, validation=(X[1::2], y[1::2]))  # goes on where it was
    np.testing.assert_array_equal(network.parameters, parameters.seen[5])
    assert rest.validation_error == history.validation_error[4:]

    stopping = EarlyStopping("log_likelihood", patience=5)
    with pytest.raises(optuna.TrialPruned):
        train(data, stopping, OptunaPruning(study_that_prunes(4, "maximize").ask()))
    assert stopping.best_epoch == 1 + np.argmax(history.log_likelihood[:4])


def test_a_pruned_estimator_is_as_before(study_that_prunes, optuna, data):
    X, y = data
    options = {"max_iter": 6, "early_stopping": True, "n_iter_no_change": 6, "random_state": 0, "tol": 0.0}
    study = study_that_prunes(2, "minimize")
    model = MLPClassifier(**options, callbacks=[OptunaPruning(study.ask(), "validation_error")])
    with pytest.raises(optuna.TrialPruned):
        model.fit(X, y)
    assert not hasattr(model, "network_")
    assert not hasattr(model, "classes_")

    model.set_params(callbacks=[]).fit(X, y)
    before = model.network_.parameters.copy()
    reported = {k: 1 - score for k, score in enumerate(model.validation_scores_[:2], 1)}
    assert study.trials[0].intermediate_values == pytest.approx(reported)
    with pytest.raises(optuna.TrialPruned):
        model.set_params(callbacks=[OptunaPruning(study.ask(), "validation_error")]).fit(X[::-1], y[::-1])
    np.testing.assert_array_equal(model.network_.parameters, before)
    assert len(model.validation_scores_) == 6


def test_reports_and_logs_go_on_after_a_checkpoint(optuna, data, tmp_path):
    history = train(data)[1]
    study = optuna.create_study(direction="maximize")
    trial, logged = study.ask(), []
    log = HistoryLog(lambda *line: logged.append(line))

    def fit(*first):
        path = tmp_path / "checkpoint"
        return train(data, *first, OptunaPruning(trial), log, Checkpoint(path), resume=path)[1]

    with pytest.raises(RuntimeError, match="the power failed"):
        fit(Parameters(fails_after=4))
    assert study.trials[0].last_step == 3
    assert fit().validation_log_likelihood == history.validation_log_likelihood
    assert study.trials[0].intermediate_values == dict(enumerate(history.validation_log_likelihood, 1))
    steps = [(value, step) for name, value, step in logged if name == "log_likelihood"]
    assert steps == list(zip(history.log_likelihood, range(1, 7), strict=True))


def test_pruning_says_what_it_lacks(optuna, data, monkeypatch):
    trial = optuna.create_study(direction="maximize").ask()
    with pytest.raises(ValueError, match="the study must minimize validation_error, not maximize it"):
        OptunaPruning(trial, "validation_error")
    with pytest.raises(ValueError, match="monitor must be one of 'log_likelihood'"):
        OptunaPruning(trial, "accuracy")
    with pytest.raises(RuntimeError, match="multi-objective"):
        OptunaPruning(optuna.create_study(directions=["maximize", "minimize"]).ask())
    with pytest.raises(
        ValueError, match="OptunaPruning watches validation_log_likelihood, which needs validation data"
    ):
        fastnn.Trainer(fastnn.Network([7, 3]), callbacks=[OptunaPruning(trial)]).fit(*data, epochs=1)
    fixed = optuna.trial.FixedTrial({})
    fastnn.Trainer(fastnn.Network([7, 3]), callbacks=[OptunaPruning(fixed, "objective")]).fit(*data, epochs=1)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'OptunaPruning needs Optuna: pip install "fastnn\[optuna\]"'):
        OptunaPruning(trial)


def test_callbacks_of_clones_report_to_the_same_trial(optuna, data):
    study = optuna.create_study(direction="maximize")
    model = MLPClassifier(max_iter=2, early_stopping=True, random_state=0, callbacks=[OptunaPruning(study.ask())])
    clone(model).fit(*data)
    assert study.trials[0].last_step == 2


def events(folder):
    """Return (name, step, value) of each scalar in a folder's files: records of length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in folder.iterdir():
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            content = content[16 + length :]
    return found


def test_tensorboard_has_the_history(data, tmp_path):
    tensorboard = pytest.importorskip("tensorboardX", reason="needs tensorboardX")
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        history = train(data, HistoryLog(writer.add_scalar))[1]
    expected = [
        (name, epoch, np.float32(value))
        for epoch, row in enumerate(zip(*history.columns().values(), strict=True), 1)
        for name, value in zip(history.columns(), row, strict=True)
    ]
    assert events(tmp_path) == expected
    assert len(expected) == 5 * 6


def test_a_clone_logs_to_the_same_writer(data, tmp_path):
    tensorboard = pytest.importorskip("tensorboardX", reason="needs tensorboardX")
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        log = HistoryLog(writer.add_scalar)  # the writer itself cannot be copied
        cross_val_score(SoftmaxClassifier(callbacks=[log]), *data, cv=2)
    assert {name for name, _, _ in events(tmp_path)} == {"log_likelihood", "objective", "seconds"}


@pytest.mark.filterwarnings("ignore")  # its parts warn of each other
def test_mlflow_has_the_history(data, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is large: pip install mlflow-skinny sqlalchemy alembic")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("here", str(tmp_path))
    mlflow.set_experiment("here")
    with mlflow.start_run() as run:
        history = train(data, HistoryLog(mlflow.log_metric))[1]
    client = mlflow.MlflowClient()
    for name, values in history.columns().items():
        logged = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        assert logged == list(enumerate(values, 1))


def test_a_log_that_fails_ends_the_fit(data):
    def log(name, value, step):
        if step == 3:
            raise ConnectionError("the server is away")

    parameters = Parameters()
    with pytest.raises(ConnectionError):
        train(data, parameters, HistoryLog(log))
    assert len(parameters.seen) == 3
    with pytest.raises(TypeError, match="log must be a function that takes a name, a value and a step, not 'loss'"):
        HistoryLog("loss")


MODELS = [
    SoftmaxClassifier(),
    MLPClassifier((9,), max_iter=5, early_stopping=True),
    MLPRegressor(hidden_layer_sizes=(9,), max_iter=5, solver="lbfgs"),
    NetworkClassifier([Dense(9, dropout=0.1)], max_iter=5, optimizer=fastnn.SGD(fastnn.schedules.Cosine(0.1, 5), 0.9)),
    NetworkRegressor([9, Dense(5, "tanh")], max_iter=5, batch_norm=True),
]
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


def fitted(model, data):
    return clone(model).set_params(random_state=0).fit(*data)


@each_model
def test_skops_keeps_estimators(data, model):
    skops = pytest.importorskip("skops.io", reason="needs skops")
    model = fitted(model, data)
    content = skops.dumps(model)
    types = skops.get_untrusted_types(data=content)
    assert all(name.startswith("fastnn.") for name in types)
    with pytest.raises(skops.exceptions.UntrustedTypesFoundException):
        skops.loads(content)
    loaded = skops.loads(content, trusted=types)
    np.testing.assert_array_equal(loaded.predict(data[0]), model.predict(data[0]))
    assert repr(loaded) == repr(model)
    if hasattr(model, "partial_fit"):
        loaded, model = (each.set_params(early_stopping=False) for each in (loaded, model))
        for each in (loaded, model):
            each.partial_fit(*data)
        np.testing.assert_array_equal(loaded.network_.parameters, model.network_.parameters)


def test_skops_keeps_estimators_of_tables(data):
    skops = pytest.importorskip("skops.io", reason="needs skops")
    tabular = pytest.importorskip("fastnn.tabular", reason="needs the extra tabular")
    rows = {"number": data[0][:, 0], "letter": list("abc") * 100}
    model = tabular.TabularClassifier(max_epochs=2, random_state=0).fit(rows, data[1])
    content = skops.dumps(model)
    types = skops.get_untrusted_types(data=content)
    assert all(name.startswith("fastnn.") for name in types)
    loaded = skops.loads(content, trusted=types)
    np.testing.assert_array_equal(loaded.predict_proba(rows), model.predict_proba(rows))
    assert loaded.describe() == model.describe()


@each_model
def test_joblib_s_read_only_maps(data, model, tmp_path):
    # So joblib hands arrays of more than a megabyte, and models with such, to its processes.
    X, y = data
    joblib.dump((X, y, fitted(model, data)), tmp_path / "job")
    X_there, y_there, there = joblib.load(tmp_path / "job", mmap_mode="r")
    assert isinstance(X_there, np.memmap)
    assert not X_there.flags.writeable
    here = fitted(model, data)
    np.testing.assert_array_equal(there.predict(X_there), here.predict(X))
    np.testing.assert_array_equal(fitted(model, (X_there, y_there)).network_.parameters, here.network_.parameters)
    if hasattr(model, "partial_fit") and not model.early_stopping:
        there.partial_fit(X_there, y_there), here.partial_fit(X, y)
        np.testing.assert_array_equal(there.network_.parameters, here.network_.parameters)


def test_joblib_s_read_only_trainers(data, tmp_path):
    X, y = data
    trainer = fastnn.Trainer(fastnn.Network([7, 5, 3]), fastnn.Adam(), batch_size=20, seed=0)
    trainer.fit(X, y, epochs=2)
    joblib.dump((X, y, trainer), tmp_path / "job")
    X_there, y_there, there = joblib.load(tmp_path / "job", mmap_mode="r")
    trainer.fit(X, y, epochs=2), there.fit(X_there, y_there, epochs=2)
    np.testing.assert_array_equal(there.network.parameters, trainer.network.parameters)
    again = pickle.loads(pickle.dumps(there))
    np.testing.assert_array_equal(again.network.parameters, trainer.network.parameters)


def frames(X):
    """Return the same rows as frames of several libraries and types, as far as these are installed."""
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    names = [f"column {i}" for i in range(X.shape[1])]
    frame = pandas.DataFrame(X, columns=names)
    yield from (frame, frame.astype("Float64"), polars.DataFrame(X, schema=names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyarrow = pytest.importorskip("pyarrow")
    yield frame.astype(pandas.ArrowDtype(pyarrow.float64()))
    yield pyarrow.table(dict(zip(names, X.T, strict=True)))


def test_frames_give_the_model_of_their_arrays(data):
    X, y = data
    expected = fitted(MLPClassifier((9,), max_iter=5), data)
    for frame in frames(X):
        model = fitted(MLPClassifier((9,), max_iter=5), (frame, y))
        np.testing.assert_array_equal(model.network_.parameters, expected.network_.parameters)
        np.testing.assert_array_equal(model.predict(frame), expected.predict(X))
        if hasattr(frame, "__dataframe__") or SKLEARN >= (1, 9):  # which reads the names of polars 2, too
            assert model.feature_names_in_.tolist() == [f"column {i}" for i in range(7)]


def test_missing_cells_are_refused_by_name(data):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    cells = [None, *data[0][1:, 0]]
    for frame in (
        pandas.DataFrame({"a": cells}),
        pandas.DataFrame({"a": pandas.array(cells, "Float64")}),
        polars.DataFrame({"a": cells}),
    ):
        with pytest.raises(ValueError, match="X must be finite, but it holds NaN"):
            MLPClassifier().fit(frame, data[1])


def test_labels_of_frames(data):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    words = np.array(["a", "b", "c"])[data[1]]
    for labels in (
        pandas.Series(words, dtype="string"),
        pandas.Series(words, dtype="category"),
        polars.Series(words),
        polars.Series(words, dtype=polars.Categorical),
    ):
        model = fitted(MLPClassifier((9,), max_iter=5), (data[0], labels))
        assert model.classes_.tolist() == ["a", "b", "c"]
        assert set(model.predict(data[0])) <= {"a", "b", "c"}
