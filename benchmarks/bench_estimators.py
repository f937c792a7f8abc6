"""fastnn's estimators beside scikit-learn's, in turn, in one run: ``pytest -s benchmarks/bench_estimators.py``.

On MNIST, `SoftmaxClassifier` with L-BFGS against `LogisticRegression` until both reach the same objective, and
`MLPClassifier` with scikit-learn's own defaults (Adam, batches of 200, 100 units) for so many epochs.  On small
tables whole fits with the defaults, their fixed cost included; and what else people do in a day.
"""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler
from turns import in_turn

import fastnn
from fastnn import sklearn as ours

ROUNDS = 5
# Of a few milliseconds each, on small tables: a machine may be slow for a second or two.
SMALL_ROUNDS = 15
EPOCHS = 3
TABLES = {"digits": datasets.load_digits, "wine": datasets.load_wine, "breast cancer": datasets.load_breast_cancer}


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so many iterations and no more are meant
        yield


@pytest.fixture(scope="module")
def mnist():
    train = fastnn.datasets.load_mnist(dtype="float64")[0]
    return train.X, train.y


def objective(coef, intercept, C, X, y):
    """scikit-learn's: mean loss and half the squared weights over C n."""
    Z = X @ coef.T + intercept
    Z -= Z.max(axis=1, keepdims=True)
    loss = np.log(np.exp(Z).sum(axis=1)) - Z[np.arange(len(y)), y]
    return loss.mean() + 0.5 * (coef**2).sum() / (C * len(y))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_softmax(benchmark, mnist, dtype):
    X, y = mnist[0].astype(dtype), mnist[1]
    theirs = LogisticRegression(C=0.01, max_iter=100, tol=1e-4).fit(X, y)
    wanted = objective(theirs.coef_, theirs.intercept_, 0.01, X, y)
    # As many iterations as fastnn needs to reach the objective that scikit-learn ends with.
    for n_iter in range(10, 301, 5):
        model = ours.SoftmaxClassifier(C=0.01, max_iter=n_iter, tol=0).fit(X, y)
        if objective(model.coef_, model.intercept_, 0.01, X, y) <= wanted * (1 + 1e-6):
            break
    benchmark.extra_info |= {"iterations of scikit-learn": int(theirs.n_iter_[0]), "of fastnn": n_iter}
    fits = {
        "fastnn": lambda: ours.SoftmaxClassifier(C=0.01, max_iter=n_iter, tol=0).fit(X, y),
        "scikit-learn": lambda: LogisticRegression(C=0.01, max_iter=100, tol=1e-4).fit(X, y),
    }
    in_turn(benchmark, fits, ROUNDS)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_perceptron(benchmark, mnist, dtype):
    X, y = mnist[0].astype(dtype), mnist[1]
    fits = {
        "fastnn": lambda: ours.MLPClassifier(max_iter=EPOCHS, random_state=0).fit(X, y),
        "scikit-learn": lambda: MLPClassifier(max_iter=EPOCHS, random_state=0).fit(X, y),
    }
    in_turn(benchmark, fits, ROUNDS)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("kind", ["softmax", "perceptron"])
def test_small_tables(benchmark, table, kind, dtype):
    X, y = TABLES[table](return_X_y=True)
    X = StandardScaler().fit_transform(X).astype(dtype)
    if kind == "softmax":
        fits = {
            "fastnn": lambda: ours.SoftmaxClassifier().fit(X, y),
            "scikit-learn": lambda: LogisticRegression().fit(X, y),
        }
    else:
        fits = {
            "fastnn": lambda: ours.MLPClassifier(random_state=0).fit(X, y),
            "scikit-learn": lambda: MLPClassifier(random_state=0).fit(X, y),
        }
    in_turn(benchmark, fits, SMALL_ROUNDS)


OURS = SimpleNamespace(
    softmax=ours.SoftmaxClassifier, perceptron=ours.MLPClassifier, regressor=ours.MLPRegressor, name="fastnn"
)
THEIRS = SimpleNamespace(
    softmax=LogisticRegression, perceptron=MLPClassifier, regressor=MLPRegressor, name="scikit-learn"
)


def table(rows, columns):
    """Standard normal rows, and whether a noisy sum of their columns is positive."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(rows, columns))
    return X, (X.sum(axis=1) + generator.normal(size=rows) > 0).astype(int)


def text(rows=50_000, columns=50_000, nonzeros=80, n_classes=20):
    """Sparse rows as of texts, whose classes depend on their columns."""
    generator = np.random.default_rng(0)
    indices = (columns * generator.random((rows, nonzeros)) ** 3).astype(np.int32)  # frequent words and rare ones
    indptr = np.arange(0, rows * nonzeros + 1, nonzeros)
    X = scipy.sparse.csr_matrix((generator.random(rows * nonzeros), indices.ravel(), indptr), (rows, columns))
    X.sum_duplicates()
    return X, np.argmax(X @ generator.normal(size=(columns, n_classes)), axis=1)


def fit_regressor(library):
    X, y = table(20_000, 8)
    return lambda: library.regressor(max_iter=EPOCHS, random_state=0).fit(X, X[:, 0] * X[:, 1] + y)


def fit_early_stopping(library):
    X, y = table(20_000, 8)
    settings = {"early_stopping": True, "max_iter": 10, "n_iter_no_change": 10, "random_state": 0}
    return lambda: library.perceptron((100, 50), **settings).fit(X, y)


def fit_perceptron_by_lbfgs(library):
    X, y = table(1_000, 8)
    return lambda: library.perceptron(solver="lbfgs", max_iter=50, random_state=0).fit(X, y)


def partial_fit(library):
    X, y = table(100, 8)
    model = library.perceptron(random_state=0).partial_fit(X, y, classes=[0, 1])
    return lambda: model.partial_fit(X, y)


def fit_softmax(library):
    X, y = table(20_000, 8)
    return lambda: library.softmax().fit(X, y)


def fit_large_softmax(library):
    X, y = table(200_000, 100)
    return lambda: library.softmax().fit(X, y)


def fit_text(library):
    X, y = text()
    return lambda: library.softmax(max_iter=30, tol=0).fit(X, y)


def predict_proba(library):
    X, y = table(200_000, 100)
    model = library.perceptron(max_iter=1).fit(X[:1000], y[:1000])
    return lambda: model.predict_proba(X)


def cross_validate(library):
    X, y = table(1_000, 8)
    return lambda: cross_val_score(library.perceptron(max_iter=20, random_state=0), X, y, cv=5)


DAILY = {
    "regressor, 20,000 x 8": (fit_regressor, ROUNDS),
    "early stopping, 20,000 x 8": (fit_early_stopping, ROUNDS),
    "perceptron by L-BFGS, 1,000 x 8": (fit_perceptron_by_lbfgs, ROUNDS),
    "partial_fit, 100 x 8": (partial_fit, SMALL_ROUNDS),
    "softmax, 20,000 x 8": (fit_softmax, SMALL_ROUNDS),
    "softmax, 200,000 x 100": (fit_large_softmax, ROUNDS),
    "text, softmax": (fit_text, 2),
    "predict_proba, 200,000 x 100": (predict_proba, ROUNDS),
    "five folds, 1,000 x 8": (cross_validate, ROUNDS),
}


@pytest.mark.parametrize("what", DAILY)
def test_daily(benchmark, what):
    prepare, rounds = DAILY[what]
    in_turn(benchmark, {library.name: prepare(library) for library in (OURS, THEIRS)}, rounds)
