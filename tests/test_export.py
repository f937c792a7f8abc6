"""Networks to ONNX, run by onnxruntime; and networks from scikit-learn's models, against what the models say."""

import sys
import warnings

import numpy as np
import pytest
from levels import levels_of
from pairs import parametrize_pairs
from scipy import special
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from table_rows import COLUMNS, draw_rows

import fastnn
from fastnn import export
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.layers import (
    AveragePool2D,
    Category,
    Columns,
    Conv2D,
    Dense,
    Flatten,
    GlobalAveragePool2D,
    MaxPool2D,
    Number,
)

# What the activations are, from NumPy and SciPy.
FORMULAS = {
    "identity": lambda z: z,
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "gelu": lambda z: z * special.ndtr(z),
    "silu": lambda z: z * special.expit(z),
    "elu": lambda z: np.where(z > 0, z, special.expm1(np.minimum(z, 0))),
    "softplus": lambda z: np.logaddexp(z, 0),
}
LOSSES = ["cross_entropy", "binary_cross_entropy", "squared", "absolute", "huber", "quantile"]
HIDDEN = [[], [7], [9, 8, 7]]


@pytest.fixture
def onnx():
    return pytest.importorskip("onnx")


@pytest.fixture
def run(onnx):
    """Return a function that runs a model on rows and returns its outputs by name."""
    import onnxruntime

    def run_model(model, X):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {"X": X}), strict=True))

    return run_model


def draw(sizes, activation, dtype, loss="cross_entropy"):
    network = fastnn.Network(sizes, activation, dtype, loss=loss, quantiles=levels_of(loss, sizes[-1]))
    network.parameters = np.random.default_rng(1).normal(size=network.parameters.size)
    return network


# To ONNX


@parametrize_pairs(
    {
        "activation": FORMULAS,
        "loss": LOSSES,
        "hidden": HIDDEN,
        "n_rows": [0, 1, 101],
        "dtype": ["float32", "float64"],
    }
)
def test_onnxruntime_says_the_same(run, dtype, rng, assert_close, activation, loss, hidden, n_rows):
    network = draw([5, *hidden, 3], activation, dtype, loss)
    X = rng.normal(size=(n_rows, 5)).astype(dtype)
    found = run(export.to_onnx(network), X)
    if loss in ("cross_entropy", "binary_cross_entropy"):
        assert list(found) == ["probabilities", "labels"]
        assert found["probabilities"].dtype == dtype
        assert found["labels"].dtype == np.int64
        # Logits are sums of up to 9 terms of up to 20, and so are their errors.
        assert_close(found["probabilities"], network.predict_proba(X), factor=10)
        np.testing.assert_array_equal(found["labels"], network.predict(X))
    else:
        assert list(found) == ["values"]
        assert found["values"].dtype == dtype
        assert_close(found["values"], network.predict(X))


@pytest.mark.parametrize("activation", FORMULAS)
def test_activation_far_and_near(run, dtype, assert_close, activation):
    network = fastnn.Network([1, 1, 1], activation, dtype, loss="squared")
    network.weights = [[[1]], [[1]]]
    for limit in (10, 1000, float(np.finfo(dtype).max) / 2):  # no infinity times zero on the way
        X = np.linspace(-limit, limit, 4001, dtype=dtype)[:, None]
        values = run(export.to_onnx(network), X)["values"]
        assert_close(values, FORMULAS[activation](X.astype(float)))


def test_all_activations_are_known():
    assert set(export.ADD_ACTIVATION) == set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("sizes", [[1, 1], [1, 1, 2], [4, 1, 1, 1]])
@pytest.mark.parametrize("loss", LOSSES)
def test_sizes_of_1(run, dtype, rng, assert_close, sizes, loss):
    network = draw(sizes, "tanh", dtype, loss)
    X = rng.normal(size=(3, sizes[0])).astype(dtype)
    found = run(export.to_onnx(network), X)
    if "values" in found:
        assert_close(found["values"], network.predict(X))
    else:
        assert_close(found["probabilities"], network.predict_proba(X))
        np.testing.assert_array_equal(found["labels"], network.predict(X))


def test_an_activation_each(run, rng, assert_close, dtype):
    network = draw([4, 5, 6, 3], ["gelu", "elu"], dtype)
    X = rng.normal(size=(20, 4)).astype(dtype)
    assert_close(run(export.to_onnx(network), X)["probabilities"], network.predict_proba(X), factor=10)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_ties(run, loss, dtype):
    network = fastnn.Network([2, 3], dtype=dtype, loss=loss)  # all parameters are 0
    network.parameters = 0
    X = np.ones((2, 2), dtype)
    np.testing.assert_array_equal(run(export.to_onnx(network), X)["labels"], network.predict(X))


# Networks on images


def draw_images(rng, layers, shape, dtype, **options):
    """Return a network with biases and statistics that matter, and rows for it."""
    network = fastnn.Network([*layers, Dense(3)], input_shape=shape, dtype=dtype, **options)
    for kind, low in (("biases", -1), ("scales", -1), ("means", -1), ("variances", 0.5)):
        setattr(network, kind, [rng.uniform(low, 1, array.shape) for array in getattr(network, kind)])
    return network, rng.normal(size=(5, *shape)).astype(dtype)


@parametrize_pairs(
    {
        "kernel_size": [1, (2, 3), 5],
        "stride": [1, (2, 3)],
        "padding": ["valid", "same"],
        "channels": [1, 3],
        "pool": [None, MaxPool2D(2), MaxPool2D((1, 2), 1), AveragePool2D((2, 1), (1, 3)), GlobalAveragePool2D()],
        "batch_norm": [False, True],
        "activation": FORMULAS,
        "dtype": ["float32", "float64"],
    }
)
def test_convolution_and_pooling(
    run, rng, assert_close, kernel_size, stride, padding, channels, pool, batch_norm, activation, dtype
):
    layers = [Conv2D(5, kernel_size, stride, padding), *([pool] if pool else []), Conv2D(4, 1)]
    network, X = draw_images(rng, layers, (9, 14, channels), dtype, activation=activation, batch_norm=batch_norm)
    found = run(export.to_onnx(network), X)
    assert_close(found["probabilities"], network.predict_proba(X), factor=10)
    np.testing.assert_array_equal(found["labels"], network.predict(X))


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([], (3, 2, 2)),
        ([Flatten(), Dense(4)], (3, 2, 2)),
        ([Conv2D(1, 1)], (1, 1, 1)),
        ([MaxPool2D(3, 2)], (8, 7, 2)),
        (
            [Conv2D(3, 4, 3, "same", dropout=0.5), AveragePool2D(2, 1), Conv2D(2, 2, padding="same"), Dense(4)],
            (11, 8, 3),
        ),
        (
            [Conv2D(4, 3, padding="same", activation="gelu"), MaxPool2D(2), Conv2D(3, 3), GlobalAveragePool2D()],
            (8, 9, 1),
        ),
    ],
)
@pytest.mark.parametrize("n_rows", [0, 1, 33])
def test_other_networks_on_images(run, dtype, rng, assert_close, layers, shape, n_rows):
    network, _ = draw_images(rng, layers, shape, dtype, loss="squared")
    X = rng.normal(size=(n_rows, *shape)).astype(dtype)
    assert_close(run(export.to_onnx(network), X)["values"], network.predict(X), factor=10)


def test_a_file_of_a_network_on_images(onnx, tmp_path):
    import onnxruntime

    network = fastnn.Network([Conv2D(2, 3), Dense(3)], input_shape=(6, 5), dtype="float32")
    export.to_onnx(network, tmp_path / "network.onnx")
    (X,) = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"]).get_inputs()
    assert (X.name, X.type, X.shape) == ("X", "tensor(float)", ["n", 6, 5, 1])


# Networks on the columns of a table


def draw_table(columns, hidden, dtype, loss="cross_entropy", **options):
    """Return a network with parameters that matter."""
    layers = [columns, *map(Dense, hidden), Dense(3)]
    options |= {"input_shape": len(columns.columns), "quantiles": levels_of(loss, 3)}
    network = fastnn.Network(layers, dtype=dtype, loss=loss, **options)
    network.parameters = np.random.default_rng(1).uniform(0.1, 1, network.parameters.size)  # variances too
    network.weights = [weight - 0.5 for weight in network.weights]
    return network


@parametrize_pairs(
    {
        "kept": [(0, 1, 2, 3, 4, 5), (0,), (1,), (3,), (4,), (5,), (2, 5), (1, 3), (5, 0), (1, 5), (6,), (7, 0, 6, 3)],
        "n_rows": [0, 1, 301],
        "loss": LOSSES,
        "hidden": HIDDEN,
        "batch_norm": [False, True],
        "dtype": ["float32", "float64"],
    }
)
def test_columns_of_a_table(run, rng, assert_close, kept, n_rows, loss, hidden, batch_norm, dtype):
    embedded = Category(6, missing=True, width=2), Category(9, width=3)
    columns = Columns([(*COLUMNS.columns, *embedded)[k] for k in kept])
    network = draw_table(columns, hidden, dtype, loss, batch_norm=batch_norm)
    X = draw_rows(rng, columns, n_rows)
    found = run(export.to_onnx(network), X)
    if "values" in found:
        assert_close(found["values"], network.predict(X), factor=10)
    else:
        assert_close(found["probabilities"], network.predict_proba(X), factor=10)
        assert np.mean(found["labels"] != network.predict(X)) < 0.01 if n_rows else True


def test_each_number_near_and_far(run, assert_close, dtype):
    tiny, huge = 5e-324, 1.7e308
    numbers = [
        Number(-huge, 0.0),
        Number(-huge, 1.0, (-huge, 0.0, huge)),
        Number(0.0, huge, (-0.0, 1.0), missing=True),
        Number(7e8, 1e-3, (7e8, 7e8 + 1)),  # seconds, of which a float32 has steps of 64
    ]
    columns = Columns([*numbers, Category(2**20)])
    network = draw_table(columns, [], dtype, "squared")
    values = [0.0, -0.0, tiny, -tiny, 0.5, 1, 2**20 - 1, 2**20, -1, 7e8, 7e8 + 0.25, 7e8 + 2, huge, -huge, np.nan]
    X = np.array([np.roll(values, k) for k in range(len(values))])[:, :5]
    assert_close(run(export.to_onnx(network), X)["values"], network.predict(X), factor=10)


def test_many_columns_are_few_operators(run, rng, assert_close, dtype):
    columns = Columns(COLUMNS.columns * 20)
    network = draw_table(columns, [5], dtype)
    model = export.to_onnx(network)
    assert len(model.graph.node) == len(export.to_onnx(draw_table(COLUMNS, [5], dtype)).graph.node) < 50
    X = draw_rows(rng, columns, 50)
    assert_close(run(model, X)["probabilities"], network.predict_proba(X), factor=100)  # sums of some 200 terms


def test_a_file_of_a_network_on_a_table(onnx, tmp_path):
    import onnxruntime

    export.to_onnx(draw_table(COLUMNS, [2], "float32"), tmp_path / "table.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "table.onnx", providers=["CPUExecutionProvider"])
    (X,), (probabilities, _) = session.get_inputs(), session.get_outputs()
    assert (X.name, X.type, X.shape) == ("X", "tensor(double)", ["n", 6])
    assert probabilities.type == "tensor(float)"


def test_mnist(run, mnist, assert_close, dtype):
    train, _, test = mnist
    network = fastnn.Network([784, 20, 10], dtype=dtype)
    fastnn.Trainer(network, batch_size=100).fit(train.X[:2000], train.y[:2000], epochs=2)
    found = run(export.to_onnx(network), test.X[:500].astype(dtype))
    assert_close(found["probabilities"], network.predict_proba(test.X[:500]), factor=10)  # sums of 784 terms
    np.testing.assert_array_equal(found["labels"], network.predict(test.X[:500]))


def test_file(onnx, tmp_path):
    import onnxruntime

    network = draw([4, 5, 3], "silu", "float32")
    path = tmp_path / "network.onnx"
    path.write_text("something older")
    model = export.to_onnx(network, path)
    assert path.read_bytes() == model.SerializeToString() == export.to_onnx(network).SerializeToString()
    assert list(tmp_path.iterdir()) == [path]
    read = onnx.load(path)
    onnx.checker.check_model(read, full_check=True)
    assert (read.producer_name, read.producer_version) == ("fastnn", fastnn.__version__)
    assert [opset.version for opset in read.opset_import] == [export.OPSET]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"fastnn": fastnn.__version__, "network": repr(network)}
    (X,) = session.get_inputs()
    assert (X.name, X.type, X.shape) == ("X", "tensor(float)", ["n", 4])
    assert [(out.name, out.type, out.shape) for out in session.get_outputs()] == [
        ("probabilities", "tensor(float)", ["n", 3]),
        ("labels", "tensor(int64)", ["n"]),
    ]


def test_the_model_is_a_copy(run, dtype):
    network = draw([2, 3], "tanh", dtype)
    X = np.eye(2, dtype=dtype)
    model = export.to_onnx(network)
    before = run(model, X)["probabilities"]
    network.parameters = 0
    np.testing.assert_array_equal(run(model, X)["probabilities"], before)


def test_without_onnx(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "fastnn\[onnx\]"') as caught:
        export.to_onnx(fastnn.Network([2, 3]))
    assert "\n" not in str(caught.value)


def test_wrong_arguments_of_to_onnx(onnx, monkeypatch, tmp_path):
    with pytest.raises(TypeError, match=r"network must be a fastnn\.Network, not list"):
        export.to_onnx([2, 3])
    with pytest.raises(TypeError, match="path must be a path, not 3"):
        export.to_onnx(fastnn.Network([2, 3]), 3)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        export.to_onnx(fastnn.Network([2, 3]), tmp_path / "nowhere" / "network.onnx")
    monkeypatch.setattr(export, "MAX_BYTES", 71)
    with pytest.raises(ValueError, match=r"network has 0\.0 GB of parameters; an ONNX file can hold about 2 GB"):
        export.to_onnx(fastnn.Network([2, 3]), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


# From scikit-learn


def fit(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few iterations are enough here
        return model.fit(X, y)


def iris(dtype="float64", n_classes=3):
    X, y = datasets.load_iris(return_X_y=True)
    return X[y < n_classes].astype(dtype), y[y < n_classes]


@parametrize_pairs(
    {
        "activation": ["identity", "logistic", "tanh", "relu"],
        "hidden": [(), (6,), (7, 6)],
        "n_classes": [2, 3],
        "dtype": ["float32", "float64"],
    }
)
def test_mlp_classifier(dtype, assert_close, activation, hidden, n_classes):
    X, y = iris(dtype, n_classes)
    model = fit(MLPClassifier(hidden_layer_sizes=hidden, activation=activation, max_iter=20, random_state=0), X, y)
    network = export.from_sklearn(model)
    assert network.loss == "cross_entropy"
    assert network.dtype == dtype
    assert network.sizes == (4, *hidden, n_classes)
    assert_close(network.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(network.predict(X), model.predict(X))


def test_classes_become_indices():
    X, y = iris()
    names = np.array(["setosa", "versicolor", "virginica"])
    model = fit(MLPClassifier(hidden_layer_sizes=5, max_iter=20, random_state=0), X, names[y])
    indices = export.from_sklearn(model).predict(X)
    np.testing.assert_array_equal(model.classes_[indices], model.predict(X))


@pytest.mark.parametrize("n_labels", [2, 4])
def test_multi_label(dtype, assert_close, n_labels):
    X, y = datasets.make_multilabel_classification(80, 6, n_classes=n_labels, random_state=0)
    X = X.astype(dtype)
    model = fit(MLPClassifier(hidden_layer_sizes=5, max_iter=50, random_state=0), X, y)
    network = export.from_sklearn(model)
    assert network.loss == "binary_cross_entropy"
    assert network.dtype == dtype
    assert_close(network.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(network.predict(X), model.predict(X))


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_mlp_regressor(dtype, rng, assert_close, n_outputs):
    X = rng.normal(size=(60, 5)).astype(dtype)
    y = X @ rng.normal(size=(5, n_outputs)).astype(dtype)
    model = fit(
        MLPRegressor(hidden_layer_sizes=(6, 4), activation="tanh", max_iter=20, random_state=0),
        X,
        y if n_outputs > 1 else y[:, 0],
    )
    network = export.from_sklearn(model)
    assert network.loss == "squared"
    assert network.dtype == dtype
    assert_close(network.predict(X), model.predict(X).reshape(60, n_outputs))


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_regression(dtype, assert_close, n_classes, fit_intercept):
    X, y = iris(dtype, n_classes)
    model = fit(LogisticRegression(fit_intercept=fit_intercept, max_iter=50), X, y)
    network = export.from_sklearn(model)
    assert network.sizes == (4, n_classes)
    assert network.dtype == model.coef_.dtype  # older scikit-learn goes over to float64 here
    assert_close(network.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(network.predict(X), model.predict(X))
    model.sparsify()
    np.testing.assert_array_equal(export.from_sklearn(model).parameters, network.parameters)


def test_binary_liblinear(assert_close, dtype):
    X, y = iris(dtype, 2)
    model = LogisticRegression(solver="liblinear").fit(X, y)
    assert_close(export.from_sklearn(model).predict_proba(X), model.predict_proba(X))


def test_choices_of_older_scikit_learn():
    # Until 1.7 it had multi_class, and with "multinomial" two classes had the softmax of (-z, z).
    X, y = iris(n_classes=2)
    model = LogisticRegression().fit(X, y)
    z = model.decision_function(X)
    model.multi_class = "multinomial"
    expected = special.softmax(np.stack([-z, z], axis=1), axis=1)
    np.testing.assert_allclose(export.from_sklearn(model).predict_proba(X), expected, rtol=0, atol=1e-14)
    model = LogisticRegression(max_iter=1000).fit(*iris())
    for multi_class, solver in (("ovr", "lbfgs"), ("auto", "liblinear"), ("deprecated", "liblinear")):
        model.multi_class, model.solver = multi_class, solver
        with pytest.raises(ValueError, match="one logistic regression for each class against the rest"):
            export.from_sklearn(model)


def test_parameters_are_copied():
    X, y = iris()
    model = LogisticRegression(max_iter=1000).fit(X, y)
    expected = model.coef_.copy()
    export.from_sklearn(model).parameters = 0
    np.testing.assert_array_equal(model.coef_, expected)


def test_there_and_on_to_onnx(run, assert_close, dtype):
    X, y = iris(dtype)
    model = fit(MLPClassifier(hidden_layer_sizes=8, max_iter=20, random_state=0), X, y)
    found = run(export.to_onnx(export.from_sklearn(model)), X)
    assert_close(found["probabilities"], model.predict_proba(X))


@pytest.mark.parametrize(
    "model", [MLPClassifier(), MLPRegressor(), LogisticRegression()], ids=lambda model: type(model).__name__
)
def test_unfitted_model(model):
    with pytest.raises(ValueError, match=rf"model is not fitted: this {type(model).__name__} has no coefs?_"):
        export.from_sklearn(model)


@pytest.mark.parametrize(
    "model",
    [None, LogisticRegression, fastnn.Network([2, 3]), make_pipeline(LogisticRegression())],
    ids=["None", "class", "Network", "Pipeline"],
)
def test_other_kinds_of_model(model):
    name = type(model).__name__
    with pytest.raises(TypeError, match=f"model must be a fitted MLPClassifier, .* of scikit-learn, not {name}"):
        export.from_sklearn(model)


def test_a_subclass_will_do(assert_close, dtype):
    class Mine(LogisticRegression):
        pass

    X, y = iris(dtype)
    model = Mine(max_iter=1000).fit(X, y)
    assert_close(export.from_sklearn(model).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("activation", "softsign", "model has the activation 'softsign', not one of identity, logistic"),
        ("out_activation_", "exp", "model has the output activation 'exp', not one of softmax, logistic, identity"),
    ],
)
def test_unknown_activations_of_a_model(attribute, value, message):
    model = fit(MLPClassifier(hidden_layer_sizes=3, max_iter=1), *iris())
    setattr(model, attribute, value)
    with pytest.raises(ValueError, match=message):
        export.from_sklearn(model)


def test_damaged_model():
    model = fit(MLPClassifier(hidden_layer_sizes=3, max_iter=1), *iris())
    model.coefs_[0] = np.full_like(model.coefs_[0], np.nan)
    with pytest.raises(ValueError, match="finite"):
        export.from_sklearn(model)
