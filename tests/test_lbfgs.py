"""L-BFGS against SciPy's L-BFGS-B: the line search, the evaluations, the optimum; threads and checkpoints."""

import numpy as np
import pytest
from scipy import optimize
from sklearn import datasets

import fastnn
from fastnn.callbacks import Callback, Checkpoint
from fastnn.engine.threads import single_threaded_blas
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.plan import Method
from fastnn.training.lbfgs import Maximisation
from fastnn.training.line_search import Point, search


def scipys(network, X, y, l2, epochs, tol):
    """Fit by SciPy, with the engine's gradients; return evaluations, iterations, objective, whether it converged."""
    rows, targets = network.check_data(X, y, None)
    engine = network.engine(1)
    engine.begin(rows, engine.plan(rows, Method(len(y)), repeated=True))
    steps = Steps(UPDATES["none"], np.array([[l2, 0.0, 0.0]]))

    def evaluate(x):
        network.parameters = x
        gradient = engine.gradient(targets, steps).astype(np.float64)
        return -(engine.log_likelihood - engine.penalty) / len(y), -gradient

    start = network.parameters.astype(np.float64)
    options = {"maxiter": epochs, "maxls": 50, "gtol": tol, "ftol": np.finfo(float).eps}
    with single_threaded_blas:
        found = optimize.minimize(evaluate, start, jac=True, method="L-BFGS-B", options=options)
    return found.nfev, found.nit, -found.fun, found.success


@pytest.fixture
def evaluations(monkeypatch):
    """Number of evaluations of all fits in the test."""
    counts, original = [0], Maximisation._gradient

    def count(self):
        counts[0] += 1
        return original(self)

    monkeypatch.setattr(Maximisation, "_gradient", count)
    return counts


def problems(dtype):
    """Pairs of (X, y), sizes, l2, options: twenty."""
    rng = np.random.default_rng(0)
    tables = [load(return_X_y=True) for load in (datasets.load_iris, datasets.load_wine, datasets.load_breast_cancer)]
    digits, y_digits = datasets.load_digits(return_X_y=True)
    scaled = [((X - X.mean(axis=0)) / X.std(axis=0), y) for X, y in tables] + [(digits / 16, y_digits)]
    tilted = [(X * np.logspace(0, 2, X.shape[1]), y) for X, y in scaled[:3]]
    Z = rng.standard_normal((300, 6))
    for X, y in scaled:
        sizes = [X.shape[1], len(set(y))]
        yield (X, y), sizes, 1e-3, {}
        yield (X, y), sizes, 1e-6, {}
        yield (X, y), [sizes[0], 9, sizes[1]], 1e-3, {"activation": "tanh"}
    for X, y in tilted:
        yield (X, y), [X.shape[1], len(set(y))], 1e-3, {}
    for activation in ("relu", "gelu", "sigmoid"):
        yield (Z, np.sin(Z[:, :2])), [6, 11, 2], 1e-3, {"activation": activation, "loss": "squared"}
    yield (Z, Z[:, :1]), [6, 1], 0.0, {"loss": "squared"}
    yield (Z, (Z[:, :3] > 0.2).astype(float)), [6, 3], 1e-3, {"loss": "binary_cross_entropy"}


def test_few_evaluations_reach_what_scipy_reaches(dtype, evaluations):
    scipys_evaluations, n_problems = 0, 0
    for (X, y), sizes, l2, options in problems(dtype):
        networks = [fastnn.Network(sizes, dtype=dtype, seed=0, **options) for _ in range(2)]
        found = scipys(networks[0], X, y, l2, 30, 1e-4)
        history = fastnn.Trainer(networks[1], fastnn.LBFGS(), l2=l2, n_threads=1).fit(X, y, epochs=30)
        scipys_evaluations, n_problems = scipys_evaluations + found[0], n_problems + 1
        assert history.objective[-1] == pytest.approx(found[2], rel=0.05, abs=1e-3)
        if dtype == "float64":
            assert (history.converged, len(history)) == (found[3], pytest.approx(found[1], abs=3))
    assert n_problems == 20
    assert evaluations[0] <= 1.02 * scipys_evaluations


@pytest.mark.parametrize("stretch", [1e-3, 0.1, 1, 10, 1e3])
@pytest.mark.parametrize("number", range(3))
def test_line_search(stretch, number):
    # The conditions of Wolfe hold at what is found.
    phi, dphi = [
        (lambda a: -a / (a * a + 2), lambda a: (a * a - 2) / (a * a + 2) ** 2),
        (lambda a: a**5 - 2 * a**4 - a, lambda a: 5 * a**4 - 8 * a**3 - 1),
        (lambda a: np.exp(-a) + 1e-3 * a * a - np.cos(3 * a) / 9, lambda a: -np.exp(-a) + 2e-3 * a + np.sin(3 * a) / 3),
    ][number]
    found = search(lambda a: Point(a, phi(a), dphi(a)), Point(0.0, phi(0.0), dphi(0.0)), stretch, 50)
    assert found.value <= phi(0.0) + 1e-3 * found.step * dphi(0.0)
    assert abs(found.slope) <= 0.9 * abs(dphi(0.0))


def test_a_line_search_without_end():
    assert search(lambda a: Point(a, a, 1.0), Point(0.0, 0.0, -1.0), 1.0, 3) is None
    assert search(lambda a: Point(a, -a, -1.0), Point(0.0, 0.0, -1.0), 1.0, 50).step == 1e10  # no minimum


class Kept(Callback):
    """Keeps the parameters of each iteration; optionally ends like a crash after some."""

    def __init__(self, crash_at=None):
        self.parameters, self.crash_at = [], crash_at

    def on_epoch(self, fit):
        self.parameters.append(fit.trainer.network.parameters.copy())
        if len(fit.history) == self.crash_at:
            raise RuntimeError("the power failed")


@pytest.mark.parametrize("memory", [1, 3])
@pytest.mark.parametrize("crash_at", [1, 2, 7])
def test_resuming_from_the_memory_goes_the_same_way(dtype, tmp_path, evaluations, memory, crash_at):
    X, y = datasets.load_iris(return_X_y=True)
    path = tmp_path / "checkpoint"

    def fit(epochs, crash_at=None, n_threads=1):
        kept = Kept(crash_at)
        callbacks = [Checkpoint(path, seconds=0), kept]
        network = fastnn.Network([4, 5, 3], "tanh", dtype, seed=0)
        trainer = fastnn.Trainer(network, fastnn.LBFGS(memory), l2=1e-3, n_threads=n_threads, callbacks=callbacks)
        before = evaluations[0]
        history = trainer.fit(X, y, epochs, resume=path)
        return kept.parameters, history.objective, evaluations[0] - before

    whole = fit(12)
    path.unlink()
    with pytest.raises(RuntimeError):
        fit(12, crash_at)
    resumed = fit(12, n_threads=2)
    assert resumed[2] < whole[2] - crash_at + 2  # none is repeated but that of the iteration that was not written
    assert resumed[1] == whole[1]
    np.testing.assert_array_equal(resumed[0], whole[0][-len(resumed[0]) :])


def test_a_checkpoint_of_evaluations_is_refused(tmp_path):
    X, y = datasets.load_iris(return_X_y=True)
    path = tmp_path / "checkpoint"

    def fit():
        trainer = fastnn.Trainer(fastnn.Network([4, 3]), fastnn.LBFGS(), callbacks=[Checkpoint(path)])
        return trainer.fit(X, y, 3, resume=path)

    fit()
    content, tensors = fastnn.storage.load_checkpoint(str(path))
    numbers = tensors["lbfgs.numbers"]
    for name, changed, message in (
        ("lbfgs.start", numbers, "an earlier version"),
        ("lbfgs.numbers", np.where(np.arange(5) == 1, 11, numbers), "numbers of L-BFGS are"),
        ("lbfgs.numbers", np.where(np.arange(5) == 0, np.nan, numbers), "numbers of L-BFGS are"),
        ("lbfgs.pairs", np.zeros((2, 9, 15)), "an array is float64"),
    ):
        fastnn.storage.save_checkpoint(str(path), content, tensors | {name: changed})
        with pytest.raises(ValueError, match=message):
            fit()


def test_a_gradient_of_zero_and_one_that_overflows():
    X, y = datasets.load_iris(return_X_y=True)
    network = fastnn.Network([4, 3])
    history = fastnn.Trainer(network, fastnn.LBFGS()).fit(0 * X, y, 9)  # as many rows in each class
    assert (history.converged, len(history)) == (True, 0)
    assert not fastnn.Trainer(network, fastnn.LBFGS()).fit(X * 1e200, y, 9).converged
    network.parameters = before = np.full(15, 1e300)
    with pytest.raises(fastnn.DivergenceError):
        fastnn.Trainer(network, fastnn.LBFGS()).fit(X * 1e10, y, 9)
    np.testing.assert_array_equal(network.parameters, before)
