"""Temperature scaling: it finds the temperature that SciPy's search over all finds, and changes no prediction."""

import numpy as np
import pytest
from pairs import parametrize_pairs
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from sklearn.metrics import log_loss

from fastnn.tabular.calibration import temperature_of


def draw(rng, n, n_classes, temperature, n_networks=1):
    logits = 2 * rng.standard_normal((n, n_classes))
    y = np.array([rng.choice(n_classes, p=np.exp(row)) for row in log_softmax(logits, axis=1)])
    noise = 0.3 * rng.standard_normal((n_networks, n, n_classes)) if n_networks > 1 else 0.0
    return temperature * (logits + noise + np.zeros((n_networks, 1, 1))), y


def loss(outputs, y, temperature, weights=None):
    probabilities = np.exp(log_softmax(outputs / temperature, axis=2)).mean(axis=0)
    return log_loss(y, probabilities, labels=range(outputs.shape[2]), sample_weight=weights)


@parametrize_pairs({"n_networks": [1, 3], "temperature": [0.4, 3.0], "weighted": [False, True], "n_classes": [2, 5]})
def test_the_temperature_is_the_best(rng, n_networks, temperature, weighted, n_classes):
    outputs, y = draw(rng, 2001, n_classes, temperature, n_networks)
    weights = rng.random(2001) if weighted else None
    found = temperature_of(outputs, y, weights)
    best = minimize(lambda t: loss(outputs, y, np.exp(t[0]), weights), [0.0], method="Nelder-Mead").x[0]
    assert found == pytest.approx(np.exp(best), rel=3e-3)
    assert found == pytest.approx(temperature, rel=0.2)
    assert loss(outputs, y, found, weights) < loss(outputs, y, 1.0, weights)


def test_one_output_is_that_of_two_classes(rng):
    outputs, y = draw(rng, 501, 2, 2.0)
    single = outputs[:, :, 1:] - outputs[:, :, :1]
    assert temperature_of(single, y) == pytest.approx(temperature_of(outputs, y), rel=1e-5)
    assert log_loss(y, expit(single[0, :, 0] / temperature_of(single, y))) < log_loss(y, expit(single[0, :, 0]))


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_it_is_never_worse_on_the_rows_that_it_saw(n):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        outputs, y = rng.standard_normal((1, n, 3)) * 10 ** rng.uniform(-3, 3), rng.integers(0, 3, n)
        found = temperature_of(outputs, y)
        assert 1 / 8 <= found <= 32
        own = [log_softmax(outputs[0] / t, axis=1)[np.arange(n), y].mean() for t in (found, 1)]
        assert own[0] >= own[1]


def test_rows_that_are_all_right_do_not_ask_for_certainty(rng):
    outputs, y = rng.standard_normal((1, 30, 3)), np.zeros(30, int)
    outputs[0, :, 0] += 8
    found = temperature_of(outputs, y)
    assert 0.2 < found <= 1
    assert temperature_of(outputs.astype(np.float32), y) == pytest.approx(found, rel=1e-3)
