"""Tables: what is learned of raw columns, the recipe, and the fit that finds its own end."""

import dataclasses
import math

import numpy as np
import pytest
from pairs import parametrize_pairs
from sklearn.preprocessing import MinMaxScaler, RobustScaler

import fastnn
from fastnn.callbacks import Callback, Checkpoint
from fastnn.layers import Category, Columns, Number
from fastnn.tabular.preparation import center_and_scale, columns_for, hat_features, knots_of
from fastnn.tabular.recipe import Recipe, recipe_for, rivals
from fastnn.tabular.training import choose, repeat, start, train

NAN = math.nan


# --- preparation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 7, 1000])
def test_center_and_scale_are_those_of_a_robust_scaler(rng, n):
    x = rng.gamma(1.0, 30.0, n)
    scaler = RobustScaler().fit(x[:, None])
    np.testing.assert_allclose(center_and_scale(x), (scaler.center_[0], 1 / scaler.scale_[0]), rtol=1e-12)


def test_equal_quartiles_leave_the_extremes(rng):
    x = np.where(rng.random(1000) < 0.1, rng.normal(size=1000), 5.0)
    scaler = MinMaxScaler((-1, 1)).fit(x[:, None])
    np.testing.assert_allclose(center_and_scale(x), (5.0, scaler.scale_[0]), rtol=1e-12)


@pytest.mark.parametrize("x", [[3.5], [3.5, 3.5], [-1e308] * 3, [0.0] * 9])
def test_a_constant_has_scale_0(x):
    assert center_and_scale(np.array(x)) == (x[0], 0.0)


@pytest.mark.parametrize(
    "x", [[-1.7e308, 1.7e308], [5e-324, 0.0, 1e-323], [1e308, 0.0, 0.0, 0.0, 0.0, 0.0], [1.0, math.nextafter(1, 2)]]
)
def test_extreme_numbers_have_a_finite_place(x):
    center, scale = center_and_scale(np.array(x))
    assert math.isfinite(center)
    assert 0 < scale < math.inf


def test_few_different_numbers_are_all_knots(rng):
    assert knots_of(rng.choice([3.0, -1.0, 7.5, 0.0], 100), 16) == (-1.0, 0.0, 3.0, 7.5)


@pytest.mark.parametrize("x", [[1.0], [0.0, 1.0] * 9, [2.0] * 5])
def test_a_straight_line_needs_no_knots(x):
    assert knots_of(np.array(x), 16) == ()


@pytest.mark.parametrize("n_knots", [0, 2])
def test_too_few_knots_are_none(rng, n_knots):
    assert knots_of(rng.normal(size=100), n_knots) == ()


@parametrize_pairs({"n": [17, 1000], "n_knots": [3, 16], "shares": [(), (0.9,), (0.45, 0.45)]})
def test_knots_increase_to_the_extremes_and_skip_what_is_frequent(rng, n, n_knots, shares):
    x = rng.normal(size=n)
    x[rng.random(n) < sum(shares)] = 0.5
    x[rng.random(n) < sum(shares[1:])] = -0.5
    knots = knots_of(x, n_knots)
    assert len(knots) <= n_knots
    assert np.all(np.diff(knots) > 0)
    if len(np.unique(x)) > 2:
        assert (knots[0], knots[-1]) == (x.min(), x.max())


def test_knots_are_quantiles(rng):
    x = rng.normal(size=10_000)
    np.testing.assert_allclose(knots_of(x, 9)[1:-1], np.quantile(x, np.arange(1, 8) / 8), atol=0.01)


def test_a_frequent_number_takes_one_knot(rng):
    x = np.concatenate([np.zeros(9000), rng.uniform(1, 2, 1000)])
    assert len(knots_of(x, 16)) == 16


def test_columns_say_what_was_learned(rng):
    raw = np.array([[1.0, NAN, 0.0, 7.0, 2.0], [2.0, NAN, 1.0, 7.0, NAN], [3.0, NAN, NAN, 7.0, 5.0]])
    found = columns_for(raw, [None, None, 2, None, None], 8)
    assert found == Columns(
        (
            Number(2.0, 1.0, (1.0, 2.0, 3.0)),
            Number(missing=True),
            Category(2, missing=True),
            Number(7.0, 0.0),
            Number(3.5, 1 / 1.5, missing=True),
        )
    )


def test_one_row_and_no_categories_are_enough():
    found = columns_for(np.array([[NAN, 1.0]]), [0, None], 16)
    assert found == Columns((Category(1, missing=True), Number(1.0, 0.0)))


def test_hat_features_are_those_of_the_knots():
    columns = Columns((Number(knots=(0, 1, 2), missing=True), Category(3), Number(), Number(knots=(0, 1))))
    assert hat_features(columns).tolist() == [2, 3, 4, 10, 11]
    assert hat_features(Columns((Category(2),))).tolist() == []


# --- recipe ---------------------------------------------------------------------------------------------------------


@parametrize_pairs(
    {"n_rows": [1, 100, 3000, 10**5, 10**7], "n_numbers": [0, 1, 20, 5000], "n_classes": [None, 1, 2, 100]}
)
def test_every_field_of_a_recipe_has_a_reason(n_rows, n_numbers, n_classes):
    recipe = recipe_for(n_rows, n_numbers, n_classes)
    names = {field.name for field in dataclasses.fields(Recipe)} - {"reasons"}
    assert recipe.reasons.keys() == names
    assert all(recipe.reasons.values())
    assert recipe.max_epochs >= 1
    assert n_classes is not None or recipe.label_smoothing == 0


def test_what_is_told_is_taken():
    recipe = recipe_for(1000, 5, 2, dropout=0.4, hidden_layer_sizes=(7,))
    assert (recipe.dropout, recipe.hidden_layer_sizes) == (0.4, (7,))
    assert recipe.reasons["dropout"] == "as told"
    assert recipe == dataclasses.replace(recipe_for(1000, 5, 2), dropout=0.4, hidden_layer_sizes=(7,))


def test_an_unknown_field_is_refused():
    with pytest.raises(TypeError, match="drop_out"):
        recipe_for(1000, 5, 2, drop_out=0.4)


# --- training -------------------------------------------------------------------------------------------------------

QUICK = {"hidden_layer_sizes": (16, 16), "max_epochs": 12, "patience": 1, "dropout": 0.2, "weight_decay": 0.1}


@pytest.fixture
def table(rng):
    """Raw rows with holes and a category, and classes that depend on both."""
    raw = np.column_stack([rng.normal(size=800), rng.integers(0, 3, 800), rng.gamma(1, 10, 800)])
    y = ((raw[:, 0] ** 2 > 1) ^ (raw[:, 1] == 2)).astype(int)
    raw[rng.random(raw.shape) < 0.05] = NAN
    return raw, y


def prepared(table, **told):
    raw, y = table
    recipe = recipe_for(len(y), 2, 2, **(QUICK | told))
    columns = columns_for(raw, [None, 3, None], recipe.n_knots)
    return recipe, lambda seed=0: start(columns, recipe, np.log([0.3, 0.7]), "cross_entropy", seed)


def test_a_network_starts_with_the_prior_for_all_rows(table):
    _, begin = prepared(table)
    np.testing.assert_allclose(begin().predict_proba(table[0]), np.tile([0.3, 0.7], (800, 1)), rtol=1e-6)


def test_a_fit_learns_and_ends_with_its_best(table):
    raw, y = table
    recipe, begin = prepared(table, max_epochs=60)
    network = begin()
    held_out = raw[600:], y[600:]
    [(history, rates)] = train([network], (raw[:600], y[:600]), held_out, [recipe], [0], progress=False)
    curve = history.validation_log_likelihood
    assert len(curve) == len(history.validation_error) == len(history)
    assert len(rates) == np.argmax(curve) + 1
    assert network.log_likelihood(*held_out) == pytest.approx(max(curve), rel=1e-5)
    assert network.error(*held_out) < 0.15
    assert rates == sorted(rates, reverse=True)


def test_a_fit_ends_when_the_rate_has_fallen_often(rng, table):
    raw, y = table[0], rng.integers(0, 2, 800)
    recipe, begin = prepared(table, max_epochs=500, most_falls=1, learning_rate=0.01)
    [(history, rates)] = train([begin()], (raw[:600], y[:600]), (raw[600:], y[600:]), [recipe], [0], progress=False)
    assert len(rates) + 4 <= len(history) < 100


def test_without_validation_a_fit_goes_to_the_end(table):
    recipe, begin = prepared(table)
    [(history, rates)] = train([begin()], table, None, [recipe], [0], progress=False)
    assert len(history) == len(rates) == 12
    assert history.validation_log_likelihood == []
    assert rates[-1] < 0.02 * rates[0]


@pytest.mark.parametrize("weights", [None, "drawn"])
def test_a_repetition_on_the_same_rows_ends_with_the_same_bits(rng, table, weights):
    data = table if weights is None else (*table, rng.random(800))
    recipe, begin = prepared(table)
    first, second = begin(), begin()
    [(_, rates)] = train([first], data, (table[0][:200], table[1][:200]), [recipe], [3], progress=False)
    [history] = repeat([second], data, [rates], [recipe], [3], progress=False)
    assert len(history) == len(rates)
    np.testing.assert_array_equal(first.parameters, second.parameters)


def test_several_networks_at_once_have_the_bits_of_each_alone(table):
    recipe, begin = prepared(table)
    held_out = table[0][:100], table[1][:100]
    together = [begin(seed) for seed in range(3)]
    found = train(together, table, held_out, [recipe] * 3, range(3), n_threads=2, progress=False)
    for seed, network in enumerate(together):
        alone = begin(seed)
        [(_, rates)] = train([alone], table, held_out, [recipe], [seed], n_threads=1, progress=False)
        assert rates == found[seed][1]
        np.testing.assert_array_equal(alone.parameters, network.parameters)


def test_the_recipe_that_predicts_the_validation_rows_best_is_chosen(table):
    first, begin_first = prepared(table, max_epochs=60)
    worse = dataclasses.replace(first, weight_decay=100.0)
    found = []
    for recipes in ([worse, first], [first, worse], [first, first]):

        def begin(recipe, member):
            return begin_first(member)

        data = (table[0][:600], table[1][:600]), (table[0][600:], table[1][600:])
        recipe, networks, results = choose(begin, *data, recipes, [5, 6], progress=False)
        assert recipe is first
        assert len(networks) == len(results) == 2
        found.append(np.concatenate([network.parameters for network in networks]))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.array_equal(*np.split(found[0], 2))


def test_without_validation_the_first_recipe_is_taken(table):
    recipe, begin = prepared(table)
    other = dataclasses.replace(recipe, weight_decay=100.0)
    found, _, [(history, _)] = choose(lambda recipe, member: begin(), table, None, [other, recipe], [0], progress=False)
    assert found is other
    assert len(history) == 12


@pytest.mark.parametrize("n_classes", [None, 2])
def test_rivals_differ_from_the_recipe_in_what_was_not_told(n_classes):
    recipe = recipe_for(1000, 5, n_classes)
    found = rivals(recipe, 1000, n_classes)
    assert len({recipe, *found}) == 4
    assert {rival.n_knots for rival in found} == {0, recipe.n_knots}
    assert all(rival.max_epochs == recipe.max_epochs for rival in found)
    for rival in rivals(recipe, 1000, n_classes, ["weight_decay", "n_knots"]):
        assert (rival.weight_decay, rival.n_knots) == (recipe.weight_decay, recipe.n_knots)
    assert rivals(recipe, 1000, n_classes, ["weight_decay", "dropout", "n_knots", "hidden_layer_sizes"]) == ()
    assert rivals(recipe_for(10**6, 5, n_classes), 10**6, n_classes) == ()
    few = 2 if n_classes else 1  # the wider network is one more
    assert len(rivals(recipe_for(1000, 0, n_classes), 1000, n_classes)) == few  # without numbers there are no knots
    assert len(rivals(recipe, 1000, n_classes, ["weight_decay", "dropout"])) == few
    assert len(rivals(recipe, 6000, n_classes)) == 1


def test_regression_takes_numbers(rng, table):
    raw = table[0]
    y = np.nan_to_num(np.abs(raw[:, 0]))[:, None]
    y = (y - y.mean()) / y.std()
    recipe = recipe_for(800, 2, **(QUICK | {"max_epochs": 60, "dropout": 0.0}))
    network = start(columns_for(raw, [None, 3, None], recipe.n_knots), recipe, np.zeros(1), "squared", 0)
    train([network], (raw[:600], y[:600]), (raw[600:], y[600:]), [recipe], [0], progress=False)
    assert np.mean((network.predict(raw[600:]) - y[600:]) ** 2) < 0.1


class Crash(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch(self, fit):
        if len(fit.history) == self.epoch:
            raise RuntimeError("the power failed")


@pytest.mark.parametrize("repeated", [False, True])
def test_a_fit_resumes_with_the_same_bits(tmp_path, table, repeated):
    recipe, begin = prepared(table)
    path = tmp_path / "checkpoint"
    held_out = table[0][:100], table[1][:100]

    def fit(network, *callbacks, **options):
        options |= {"callbacks": [[Checkpoint(path), *callbacks]], "progress": False}
        if repeated:
            return repeat([network], table, [[2e-3] * 5 + [1e-3] * 4], [recipe], [0], **options)
        return train([network], table, held_out, [recipe], [0], **options)

    whole, broken = begin(), begin()
    expected = fit(whole)
    path.unlink()
    fit(broken, Crash(99), resume=path)  # a file that is not there is none
    path.unlink()
    with pytest.raises(RuntimeError, match="the power failed"):
        fit(begin(), Crash(6))
    resumed = begin()
    found = fit(resumed, resume=path)
    np.testing.assert_array_equal(resumed.parameters, whole.parameters)
    if not repeated:
        assert found[0][1] == expected[0][1]
        assert found[0][0].validation_log_likelihood == expected[0][0].validation_log_likelihood


def test_another_recipe_does_not_resume(tmp_path, table):
    path = tmp_path / "checkpoint"
    for told, raises in (({}, False), ({"patience": 3}, True)):
        recipe, begin = prepared(table, **told)
        options = {"callbacks": [[Checkpoint(path)]], "progress": False, "resume": path}
        if raises:
            with pytest.raises(ValueError, match="recipe"):
                train([begin()], table, table, [recipe], [0], **options)
        else:
            train([begin()], table, table, [recipe], [0], **options)


def test_divergence_is_an_error(table):
    recipe, begin = prepared(table, learning_rate=1e30)
    with pytest.raises(fastnn.DivergenceError):
        train([begin()], table, table, [recipe], [0], progress=False)


def test_categories_of_many_values_have_embeddings(rng):
    raw = np.column_stack([rng.integers(0, 501, 1000), rng.normal(size=1000), rng.integers(0, 500, 1000)]).astype(float)
    columns = columns_for(raw, [501, None, 500], 8)
    assert columns.columns[0] == Category(501, False, 16)
    assert columns.columns[2] == Category(500)
    assert isinstance(columns.columns[1], Number)
    np.testing.assert_array_equal(hat_features(columns), np.arange(1, 9))
    network = start(columns, recipe_for(1000, 1, 2), np.zeros(2), "cross_entropy", 0)
    assert 0.05 < np.abs(network.embeddings[0]).mean() < 0.1
    assert (network.weights[0][1:9] == 0).all()
    assert (network.weights[0][9:] != 0).any(axis=1).all()


def test_divergence_of_one_of_several_is_the_same_error(table):
    recipe, begin = prepared(table, learning_rate=1e30)
    with pytest.raises(fastnn.DivergenceError):
        train([begin(), begin()], table, table, [recipe] * 2, [0, 1], progress=False)
