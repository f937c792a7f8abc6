"""A fit is settled when it starts: what callbacks and other threads may change meanwhile, and what is refused."""

import itertools
import threading

import numpy as np
import pytest
import scipy.sparse

import fastnn
from fastnn.callbacks import Callback, Checkpoint, EarlyStopping
from fastnn.training.settings import CHECKS


@pytest.fixture
def data(rng):
    X = rng.standard_normal((600, 50))
    return X, rng.integers(0, 3, 600)


class Do(Callback):
    """Calls a function with the fit, after the first epoch or within it."""

    def __init__(self, act, when="on_epoch"):
        self.act, self.when, self.caught = act, when, []

    def do(self, fit, when):
        if when == self.when and not self.caught:
            try:
                self.caught.append(self.act(fit))
            except Exception as error:
                self.caught.append(error)

    def on_start(self, fit):
        self.do(fit, "on_start")

    def on_chunk(self, fit):
        self.do(fit, "on_chunk")

    def on_epoch(self, fit):
        self.do(fit, "on_epoch")


def trained(data, callback=None, batch_size=32, optimizer=None, epochs=4, **options):
    optimizer = optimizer or fastnn.SGD(0.1)
    network = fastnn.Network([data[0].shape[1], 20, 3])
    callbacks = [] if callback is None else [callback]
    trainer = fastnn.Trainer(network, optimizer, batch_size, callbacks=callbacks, **options)
    history = trainer.fit(*data, epochs=epochs)
    return network, trainer, history


SETTINGS = {
    "network": fastnn.Network([50, 20, 3], seed=1),
    "optimizer": fastnn.SGD(0.1, momentum=0.9),
    "batch_size": 7,
    "l2": 0.1,
    "shuffle": False,
    "n_threads": 1,
    "sparse": True,
    "callbacks": [],
    "l1": 0.1,
    "dropout": 0.5,
    "label_smoothing": 0.1,
    "clip_norm": 1.0,
    "max_norm": 1.0,
    "augment": None,
    "comm": None,
    "rows": "shared",
    "sync_every": None,
}


@pytest.mark.parametrize("when", ["on_start", "on_chunk", "on_epoch"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_cannot_be_changed_during_a_fit(data, name, when):
    callback = Do(lambda fit: setattr(fit.trainer, name, SETTINGS[name]), when)
    network, trainer, _ = trained(data, callback)
    assert isinstance(callback.caught[0], RuntimeError)
    assert name in str(callback.caught[0])
    np.testing.assert_array_equal(network.parameters, trained(data)[0].parameters)
    setattr(trainer, name, SETTINGS[name])  # afterwards it can
    trainer.fit(*data, epochs=1)


def test_every_setting_is_among_them():
    parameters = set(fastnn.Trainer.__init__.__annotations__) - {"seed", "return"}
    assert parameters == set(SETTINGS) == set(CHECKS)


def test_settings_are_checked_when_they_are_set(data):
    trainer = fastnn.Trainer(fastnn.Network([50, 3], loss="squared"))
    for name, value, error in [
        ("batch_size", 0, "batch_size must be at least 1"),
        ("l1", -1.0, "l1 must be at least 0"),
        ("optimizer", "adam", "optimizer must be an optimizer"),
        ("callbacks", [print], "callbacks must be"),
        ("network", fastnn.Network([50, 4]), "network must be like the trainer's present one"),
        ("network", None, "network must be a fastnn.Network"),
        ("dropout", 2.0, "dropout must be at least 0 and below 1"),
        ("label_smoothing", 0.1, "label_smoothing is for cross-entropy"),
        ("clip_norm", 0.0, "clip_norm must be above 0"),
    ]:
        before = getattr(trainer, name)
        with pytest.raises((TypeError, ValueError), match=error):
            setattr(trainer, name, value)
        assert getattr(trainer, name) is before


def test_lists_and_arrays_of_settings_cannot_be_changed_either(data):
    callback = Do(lambda fit: fit.trainer.callbacks.append(None))
    assert isinstance(trained(data, callback)[2], fastnn.History)
    assert isinstance(callback.caught[0], AttributeError)
    callback = Do(lambda fit: fit.trainer.dropout.__setitem__(0, 0.9))
    trained(data, callback, dropout=0.1)
    assert "read-only" in str(callback.caught[0])
    trainer = fastnn.Trainer(fastnn.Network([50, 3]))
    trainer.callbacks.append(print)
    with pytest.raises(TypeError, match=r"callbacks must be"):
        trainer.fit(*data)


@pytest.mark.parametrize("name", ["trainer", "epochs", "n_rows", "has_validation", "history", "rows_done"])
def test_what_a_fit_tells_cannot_be_changed(data, name):
    callback = Do(lambda fit: setattr(fit, name, None))
    trained(data, callback)
    assert str(callback.caught[0]).startswith(f"{name} cannot be changed during a fit")


@pytest.mark.parametrize("name", ["sizes", "activation", "loss", "batch_norm"])
def test_the_structure_of_a_network_cannot_be_changed(name):
    network = fastnn.Network([5, 3])
    with pytest.raises(AttributeError):
        setattr(network, name, getattr(network, name))


def test_very_sparse_rows_keep_their_penalty(rng):
    # Rows that are not touched take many steps at a time later, so a change meanwhile would be lost in part.
    X, y = scipy.sparse.random(2000, 5000, 0.001, "csr", random_state=0), rng.integers(0, 3, 2000)
    callback = Do(lambda fit: setattr(fit.trainer, "l1", 0.01))
    found = trained((X, y), callback, batch_size=5, l2=0.01)[0]
    assert isinstance(callback.caught[0], RuntimeError)
    np.testing.assert_array_equal(found.parameters, trained((X, y), batch_size=5, l2=0.01)[0].parameters)


@pytest.mark.parametrize("optimizer", [fastnn.SGD(0.1), fastnn.SGD(0.1, 0.9), fastnn.Adam(0.01)])
def test_a_callback_may_set_the_learning_rate(data, optimizer):
    # The same as a fit for each rate, whose optimizer keeps its state.
    rates = [0.05, 0.02, 0.3]

    class Slow(Callback):
        def on_epoch(self, fit):
            if len(fit.history) <= 3:
                fit.learning_rate = rates[len(fit.history) - 1]
                assert fit.learning_rate == rates[len(fit.history) - 1]

    network, trainer, _ = trained(data, Slow(), optimizer=optimizer)
    assert trainer.optimizer is optimizer
    other = fastnn.Network([50, 20, 3])
    trainer = fastnn.Trainer(other, optimizer, 32)
    for rate in [optimizer.learning_rate, *rates]:
        trainer.optimizer = (
            type(optimizer)(rate, optimizer.momentum) if type(optimizer) is fastnn.SGD else fastnn.Adam(rate)
        )
        trainer.fit(*data, epochs=1)
    np.testing.assert_array_equal(network.parameters, other.parameters)


def test_a_learning_rate_that_cannot_be_is_refused_at_once(data):
    for wrong in (0.0, -1.0, np.nan, "fast", None):
        callback = Do(lambda fit, wrong=wrong: setattr(fit, "learning_rate", wrong))
        trained(data, callback)
        assert "learning_rate must be" in str(callback.caught[0])
    callback = Do(lambda fit: setattr(fit, "learning_rate", 0.1))
    trained(data, callback, batch_size=None, optimizer=fastnn.LBFGS())
    assert "LBFGS finds its own steps" in str(callback.caught[0])


def test_a_learning_rate_takes_the_place_of_a_schedule(data):
    schedule = fastnn.schedules.Exponential(0.1, 0.5)
    callback = Do(lambda fit: (fit.learning_rate, setattr(fit, "learning_rate", 0.1)))
    network = trained(data, callback, optimizer=fastnn.SGD(schedule), epochs=2)[0]
    assert callback.caught[0][0] == schedule
    other = fastnn.Network([50, 20, 3])
    trainer = fastnn.Trainer(other, fastnn.SGD(schedule), 32)
    trainer.fit(*data, epochs=1)
    trainer.optimizer = fastnn.SGD(0.1)
    trainer.fit(*data, epochs=1)
    np.testing.assert_array_equal(network.parameters, other.parameters)


WAYS = {
    "parameters": lambda network: setattr(network, "parameters", 0 * network.parameters),
    "weights": lambda network: setattr(network, "weights", [0 * weight for weight in network.weights]),
    "item": lambda network: network.biases.__setitem__(0, 0 * network.biases[0]),
    "array": lambda network: network.weights[0].__setitem__(0, 0),
}


@pytest.mark.parametrize("way", WAYS)
def test_within_an_epoch_the_parameters_are_read_only(data, way):
    callback = Do(lambda fit: WAYS[way](fit.trainer.network), "on_chunk")
    network = trained(data, callback)[0]
    assert isinstance(callback.caught[0], (RuntimeError, ValueError))
    np.testing.assert_array_equal(network.parameters, trained(data)[0].parameters)
    callback = Do(lambda fit: WAYS[way](fit.trainer.network), "on_epoch")
    changed = trained(data, callback)[0]
    assert callback.caught == [None]
    assert not np.array_equal(network.parameters, changed.parameters)
    callback = Do(lambda fit: WAYS[way](fit.trainer.network))
    trained(data, callback, batch_size=None, optimizer=fastnn.LBFGS())
    assert isinstance(callback.caught[0], (RuntimeError, ValueError))


@pytest.mark.parametrize("when", ["on_chunk", "on_epoch"])
def test_a_callback_may_use_the_network(data, when, tmp_path):
    def use(fit):
        network = fit.trainer.network
        network.save(tmp_path / "network")
        return network.gradient(*data), network.error(*data), network.predict_proba(data[0]), network.parameters.copy()

    callback = Do(use, when)
    trained(data, callback)
    gradient, error, probabilities, parameters = callback.caught[0]
    network = fastnn.Network.load(tmp_path / "network")
    np.testing.assert_array_equal(network.parameters, parameters)
    np.testing.assert_array_equal(network.predict_proba(data[0]), probabilities)
    assert network.error(*data) == error
    for here, there in zip(itertools.chain(*gradient), itertools.chain(*network.gradient(*data)), strict=True):
        np.testing.assert_array_equal(here, there)


def test_a_network_is_in_one_fit_at_a_time(data):
    network = fastnn.Network([50, 20, 3])
    again = Do(lambda fit: fit.trainer.fit(*data, epochs=1))
    other = Do(lambda fit: fastnn.Trainer(fit.trainer.network).fit(*data, epochs=1), "on_chunk")
    trainer = fastnn.Trainer(network, fastnn.SGD(0.1), 32, callbacks=[again, other])
    trainer.fit(*data, epochs=4)
    assert str(again.caught[0]).startswith("the trainer is in a fit already")
    assert str(other.caught[0]).startswith("the network is in a fit already")
    np.testing.assert_array_equal(network.parameters, trained(data)[0].parameters)
    begun, end = threading.Event(), threading.Event()
    trainer.callbacks = [Do(lambda fit: (begun.set(), end.wait()))]
    thread = threading.Thread(target=trainer.fit, args=data)
    thread.start()
    begun.wait()
    try:
        with pytest.raises(RuntimeError, match="the trainer is in a fit already"):
            trainer.fit(*data)
    finally:
        end.set()
        thread.join()
    trainer.fit(*data, epochs=1)


def test_y_and_weights_are_read_when_a_fit_begins(data):
    X, y = data
    weights = np.ones(600)

    def corrupt(fit):
        y[:] = 1 << 40
        weights[:] = np.nan

    network = fastnn.Network([50, 20, 3])
    trainer = fastnn.Trainer(network, fastnn.SGD(0.1), 32, shuffle=False, callbacks=[Do(corrupt, "on_start")])
    expected = fastnn.Network([50, 20, 3])
    fastnn.Trainer(expected, fastnn.SGD(0.1), 32, shuffle=False).fit(X, y.copy(), sample_weight=weights.copy())
    trainer.fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(network.parameters, expected.parameters)


def test_a_callback_s_floating_point_error_is_its_own(data):
    class Fail(Callback):
        def on_chunk(self, fit):
            raise FloatingPointError("mine")

    for options in ({}, {"batch_size": None, "optimizer": fastnn.LBFGS()}):
        with pytest.raises(FloatingPointError, match="mine"):
            trained(data, Fail(), **options)


@pytest.mark.parametrize("optimizer", [fastnn.SGD(0.1, 0.9), fastnn.LBFGS()])
def test_a_refused_fit_changes_nothing(data, optimizer):
    X, y = data
    network, trainer, _ = trained(data, batch_size=None, optimizer=optimizer)
    before = (
        network.parameters.copy(),
        trainer._state.optimizer.copy(),
        trainer._state.n_steps,
        list(trainer._state.curve),
    )
    trainer.optimizer = fastnn.Adam()  # a new state is begun where a fit begins, not where one is refused
    hole = X.copy()
    hole[3, 4] = np.nan
    for refused in (
        lambda: trainer.fit(hole, y),
        lambda: trainer.fit(X, y + 1),
        lambda: trainer.fit(X, y, sample_weight=-np.ones(600)),
        lambda: trainer.fit(X, y, epochs=-1),
        lambda: trainer.fit(X, y, validation=(hole, y)),
    ):
        with pytest.raises((TypeError, ValueError)):
            refused()
        np.testing.assert_array_equal(network.parameters, before[0])
    trainer.optimizer = optimizer
    assert (trainer._state.n_steps, trainer._state.curve) == before[2:]


def test_every_callback_is_told_of_the_end(data):
    told = []

    class End(Callback):
        def __init__(self, name):
            self.name = name

        def on_end(self, fit):
            told.append(self.name)
            if self.name == "second":
                raise RuntimeError("at the end")

    trainer = fastnn.Trainer(fastnn.Network([50, 3]), callbacks=[End("first"), End("second"), End("third")])
    with pytest.raises(RuntimeError, match="at the end"):
        trainer.fit(*data, epochs=1)
    assert told == ["first", "second", "third"]


@pytest.mark.parametrize(
    "values", [[np.nan, 1.0, 2.0, np.nan, 1.5], [np.nan] * 5, [-np.inf, np.nan, -3.0, -4.0, np.nan]]
)
def test_nan_is_never_the_best(data, values):
    measures = iter(values)
    stopping = EarlyStopping(lambda fit: next(measures), patience=10)
    seen = []
    keep = Do(lambda fit: None)
    keep.on_epoch = lambda fit: seen.append(fit.trainer.network.parameters.copy())
    network = fastnn.Network([50, 3])
    fastnn.Trainer(network, fastnn.SGD(0.1), 32, callbacks=[stopping, keep]).fit(*data, epochs=5)
    if np.isnan(values).all():
        assert stopping.best_epoch == 0
        np.testing.assert_array_equal(network.parameters, seen[-1])
    else:
        assert stopping.best_epoch == 1 + int(np.nanargmax(values))
        np.testing.assert_array_equal(network.parameters, seen[stopping.best_epoch - 1])


def test_a_measure_that_stays_nan_ends_the_fit(data):
    stopping = EarlyStopping(lambda fit: np.nan, patience=2)
    assert len(trained(data, stopping, epochs=50)[2]) == 3


def test_checkpoints_are_written_last(data, tmp_path):
    # What ends the fit stands after the checkpoint in the list, and is kept all the same.
    path = tmp_path / "checkpoint"
    stop = Do(lambda fit: setattr(fit, "stop", True))
    trainer = fastnn.Trainer(fastnn.Network([50, 3]), fastnn.SGD(0.1), 32, callbacks=[Checkpoint(path), stop])
    assert len(trainer.fit(*data, epochs=9)) == 1
    trainer = fastnn.Trainer(fastnn.Network([50, 3]), fastnn.SGD(0.1), 32, callbacks=[Checkpoint(path)])
    assert len(trainer.fit(*data, epochs=9, resume=path)) == 1
