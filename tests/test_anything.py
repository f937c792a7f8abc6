"""Whatever is drawn: a fit agrees with its twin, gives the same bits on any number of threads, and leaves all whole.

Minutes by default, and the same examples each time; as many as FASTNN_EXAMPLES says, new ones each time, where that
is set.
"""

import contextlib
import copy
import dataclasses
import itertools
import math
import os
import pickle
import tempfile
import warnings

import numpy as np
import pytest
from anything import Case, Diverged, Twin, cases, error, learning_rates, log_likelihood, optimizers, outputs, snapshot
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.special import expit, softmax
from sklearn.base import RegressorMixin, clone
from sklearn.exceptions import NotFittedError

import fastnn
import fastnn.sklearn
from fastnn.callbacks import Callback, Checkpoint, EarlyStopping
from fastnn.engine.local import Engine
from fastnn.layers import Conv2D, Dense, MaxPool2D

# DIA matrices of many diagonals.
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

EXAMPLES = int(os.environ.get("FASTNN_EXAMPLES", "0"))


def examples(usual):
    """Settings of a test that draws so many examples by default."""
    return settings(
        max_examples=EXAMPLES or usual,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def magnification(optimizer):
    """By how much an optimizer may enlarge a rounding."""
    return 1 / getattr(optimizer, "epsilon", math.inf)


class Agreement:
    """Holds results against those of the twin, in float64, with what roundings may make of them.

    That is learnt from the twin again, in the network's own precision and from a start with noise.
    """

    def __init__(self, case: Case, parts, run=lambda case, twin, parts: case.fit_twin(twin, parts)):
        self.network = network = case.net.make()
        self.valid = parts[-1] if case.valid else None
        self.eps = float(np.finfo(case.net.dtype).eps)
        # What ought to cancel leaves a rounding, which is divided by epsilon.
        self.magnified = magnification(case.settings["optimizer"])
        self.exact = Twin(network, case.settings, "float64")
        self.rough = Twin(network, case.settings, case.net.dtype, 4 * self.eps)
        self.records = [run(case, twin, parts) for twin in (self.exact, self.rough)]

    def noise(self, exact, rough):
        scale = max(1.0, np.abs(exact).max(initial=0))
        return float(np.abs(exact - rough).max(initial=0) + (8 + self.magnified) * self.eps * scale)

    def check(self, actual, exact, rough, what):
        actual, exact, rough = (np.asarray(values, float) for values in (actual, exact, rough))
        assert actual.shape == exact.shape
        noise = self.noise(exact, rough)
        if noise > 1e-3 * max(1.0, np.abs(exact).max(initial=0)):
            event(f"{what}: roundings decide")
            return
        np.testing.assert_allclose(actual, exact, rtol=0, atol=100 * noise, err_msg=what)

    def check_parameters(self, network):
        self.check(network.parameters, self.exact.parameters, self.rough.parameters, "parameters")

    def check_objective(self, objective):
        # Of very sparse rows the first weight's penalty is taken late.
        exact, rough = self.records
        ways = list(itertools.product((0, 1), repeat=len(exact.penalties[0]) if exact.penalties else 0))
        for late in ways:
            with contextlib.nullcontext() if late == ways[-1] else contextlib.suppress(AssertionError):
                self.check(objective, exact.objective(late), rough.objective(late), "objective")
                break

    def check_history(self, history):
        exact, rough = self.records
        self.check(history.log_likelihood, exact.log_likelihood, rough.log_likelihood, "log-likelihood")
        names = ["validation_log_likelihood"]
        self.check(history.validation_log_likelihood, *(getattr(r, names[0]) for r in self.records), names[0])
        self.check_objective(history.objective)
        assert len(history.validation_error) == len(exact.validation_outputs)
        for found, Z, other in zip(
            history.validation_error, exact.validation_outputs, rough.validation_outputs, strict=True
        ):
            expected, doubt = error(self.network, Z, self.valid, 100 * self.noise(Z, other))
            assert abs(found - expected) <= doubt + 8 * self.eps


@examples(600)
@given(case=cases())
def test_a_fit_agrees_with_its_twin_on_any_number_of_threads(case):
    with tempfile.TemporaryDirectory() as folder, case.tuned():
        inputs, parts = case.inputs(folder)
        before = snapshot(inputs)
        try:
            agreement = Agreement(case, parts)
        except Diverged:
            assume(False)
        found = []
        for n_threads in (1, case.n_threads):
            network = case.net.make()
            trainer = case.trainer(network, n_threads=n_threads)
            history = case.fit(trainer, inputs)
            found.append((network.parameters, trainer._state.optimizer, history))
        assert snapshot(inputs) == before
        np.testing.assert_array_equal(found[0][0], found[1][0])
        np.testing.assert_array_equal(found[0][1], found[1][1])
        assert found[0][2].log_likelihood == found[1][2].log_likelihood
        assert found[0][2].objective == found[1][2].objective
        agreement.check_parameters(network)
        agreement.check_history(history)


class Crash(Callback):
    """Raises an error at a moment: in so many chunks within epochs, or after so many epochs."""

    def __init__(self, at=math.inf, after_epochs=math.inf, error=KeyboardInterrupt):
        self.at, self.after_epochs, self.error = at, after_epochs, error
        self.seen = 0
        self.moment = None  # finished epochs, and rows done of the next

    def on_chunk(self, fit):
        self.seen += fit.rows_done > 0
        if fit.rows_done and self.seen == self.at:
            self.moment = len(fit.history), fit.rows_done
            raise self.error

    def on_epoch(self, fit):
        if len(fit.history) == self.after_epochs:
            self.moment = len(fit.history), 0
            raise self.error


def come_back_soon(patch):
    """Have the engine return after each batch, or within it if it has several shards."""

    def advance(engine, targets, order, seconds):
        before, seconds = engine.rows_done, 0.0
        while original(engine, targets, order, seconds):
            if engine.rows_done > before:
                return True
            seconds = 2 * seconds + 1e-5
        return False

    original = Engine.advance
    patch.setattr(Engine, "advance", advance)


@examples(100)
@given(
    case=cases(),
    crash=st.builds(
        Crash,
        st.integers(1, 12),
        st.sampled_from([math.inf, math.inf, 1, 2]),
        st.sampled_from([KeyboardInterrupt, RuntimeError]),
    ),
)
def test_a_fit_that_ends_early_leaves_the_steps_that_were_taken(case, crash):
    with tempfile.TemporaryDirectory() as folder, case.tuned() as patch:
        inputs, parts = case.inputs(folder)
        come_back_soon(patch)
        network = case.net.make()
        trainer = case.trainer(network, callbacks=[crash])
        history = None
        with contextlib.nullcontext() if crash.error is KeyboardInterrupt else contextlib.suppress(crash.error):
            history = case.fit(trainer, inputs)
            assert history.interrupted == (crash.moment is not None)
        assert np.isfinite(network.parameters).all()
        network.predict(inputs[0][0])

        n_epochs, n_rows = crash.moment or (case.epochs, 0)

        def run(case, twin, parts):
            record = case.fit_twin(twin, parts, epochs=n_epochs)
            if n_rows:
                case.fit_twin(twin, parts, epochs=1, rows=n_rows, knows_rows=n_epochs > 0)
            return record

        try:
            agreement = Agreement(case, parts, run)
        except Diverged:
            assume(False)
        agreement.check_parameters(network)
        if history is not None:
            agreement.check_history(history)
        # The trainer goes on from there.
        trainer.callbacks = []
        with contextlib.suppress(Diverged):
            for twin in (agreement.exact, agreement.rough):
                case.fit_twin(twin, parts, epochs=1)
            case.fit(trainer, inputs, epochs=1)
            agreement.check_parameters(network)


@examples(60)
@given(
    case=cases(),
    moments=st.lists(st.tuples(st.integers(1, 8), st.sampled_from([1, 2, 3, 4])), min_size=1, max_size=3),
    patience=st.sampled_from([None, 0, 1]),
    other_start=st.booleans(),
)
def test_a_fit_that_is_resumed_gives_the_bits_of_one_that_is_not(case, moments, patience, other_start):
    case = dataclasses.replace(case, epochs=case.epochs + 1)
    with tempfile.TemporaryDirectory() as folder, case.tuned() as patch:
        inputs, _ = case.inputs(folder)
        path = os.path.join(folder, "checkpoint")

        def fit(crash, n_threads, again=False, **options):
            net = dataclasses.replace(case.net, seed=case.net.seed + 1) if other_start and again else case.net
            network = net.make()
            callbacks = [] if patience is None else [EarlyStopping("log_likelihood", patience)]
            callbacks += [Checkpoint(path, seconds=0), crash] if options else []
            trainer = case.trainer(network, callbacks=callbacks, n_threads=n_threads)
            history = case.fit(trainer, inputs, **options)
            columns = history.columns() | {"seconds": None}
            return network.parameters, trainer._state.optimizer, columns, trainer._state.generator.random(3)

        try:
            whole = fit(Crash(), case.n_threads)
        except fastnn.DivergenceError:
            assume(False)
        come_back_soon(patch)
        for at, n_threads in moments:
            with contextlib.suppress(RuntimeError):
                fit(Crash(at, error=RuntimeError), n_threads, os.path.exists(path), resume=path)
        for _ in range(2):  # what has ended stays as it is
            resumed = fit(Crash(), case.n_threads, os.path.exists(path), resume=path)
            for found, expected in zip(resumed, whole, strict=True):
                np.testing.assert_array_equal(found, expected)


def changes():
    """Draw settings to change between fits."""
    return st.fixed_dictionaries(
        {},
        optional={
            "optimizer": optimizers(learning_rates()),
            "batch_size": st.sampled_from([None, 3, 50]),
            "shuffle": st.booleans(),
            "sparse": st.sampled_from(["auto", True, False]),
            "l2": st.sampled_from([0.0, 0.1]),
            "dropout": st.sampled_from([0.0, 0.4]),
            "clip_norm": st.sampled_from([None, 0.1]),
            "max_norm": st.sampled_from([None, 0.5]),
        },
    )


@examples(60)
@given(case=cases(max_epochs=2), steps=st.lists(changes(), min_size=1, max_size=2))
def test_settings_may_change_between_fits(case, steps):
    case = dataclasses.replace(case, tunings=tuple(name for name in case.tunings if name != "on the disk"))
    if case.net.of_images:  # which take no sparse rows
        steps = [{name: value for name, value in step.items() if name != "sparse"} for step in steps]
    with tempfile.TemporaryDirectory() as folder, case.tuned():
        inputs, parts = case.inputs(folder)

        def run(case, twin, parts):
            record = case.fit_twin(twin, parts)
            for step in steps:
                before = twin.settings["optimizer"]
                twin.settings |= step
                after = twin.settings["optimizer"]
                if type(before) is not type(after) or before.n_slots != after.n_slots:
                    twin.forget()
                record = case.fit_twin(twin, parts)
            return record

        try:
            agreement = Agreement(case, parts, run)
        except Diverged:
            assume(False)
        network = case.net.make()
        trainer = case.trainer(network)
        history = case.fit(trainer, inputs)
        for step in steps:
            for name, value in step.items():
                setattr(trainer, name, value)
            history = case.fit(trainer, inputs)
        agreement.magnified = max(agreement.magnified, *(magnification(step.get("optimizer")) for step in steps))
        agreement.check_parameters(network)
        agreement.check_history(history)


class Failing:
    """Chunks that can be gone through again and again, until a chunk is bad or cannot be had."""

    def __init__(self, chunks, at, bad):
        self.chunks, self.left, self.bad = chunks, at, bad

    def __iter__(self):
        for chunk in self.chunks:
            self.left -= 1
            if self.left < 0 and self.bad is None:
                raise OSError("the disk is gone")
            yield chunk if self.left >= 0 else self.bad


@examples(60)
@given(case=cases(), at=st.integers(0, 5), bad=st.booleans())
def test_a_chunk_that_fails_leaves_the_steps_on_those_before(case, at, bad):
    case = dataclasses.replace(case, valid=None)
    with tempfile.TemporaryDirectory() as folder, case.tuned():
        inputs, parts = case.inputs(folder)
        chunks = [chunk[: 3 if chunk[2] is not None else 2] for chunk in inputs]
        n_epochs, n_chunks = divmod(at, len(chunks))
        n_rows = sum(len(part.y) for part in parts[:n_chunks])

        def run(case, twin, parts):
            twin.fit(parts, n_epochs, knows_rows=False, in_chunks=True)
            if n_rows:
                twin.fit(parts, 1, rows=n_rows, knows_rows=n_epochs > 0, in_chunks=True)

        try:
            agreement = Agreement(case, parts, run)
        except Diverged:
            assume(False)
        network = case.net.make()
        trainer = case.trainer(network)
        wrong = (np.full((2, network.n_in), np.nan), parts[0].y[:1]) if bad else None
        with pytest.raises((ValueError, OSError)):
            trainer.fit(Failing(chunks, at, wrong), epochs=9)
        agreement.check_parameters(network)
        network.predict(inputs[0][0])
        with contextlib.suppress(fastnn.DivergenceError):
            trainer.fit(Failing(chunks, 1000, None), epochs=1)
        assert np.isfinite(network.parameters).all()


# What a callback may not do, by name; each is an error at once.
WRONGS = {
    "optimizer": lambda fit: setattr(fit.trainer, "optimizer", fastnn.SGD(0.1, 0.5)),
    "another optimizer": lambda fit: setattr(fit.trainer, "optimizer", fastnn.Adam(0.1)),
    "batch_size": lambda fit: setattr(fit.trainer, "batch_size", 3),
    "l2": lambda fit: setattr(fit.trainer, "l2", 0.5),
    "l1": lambda fit: setattr(fit.trainer, "l1", 0.5),
    "shuffle": lambda fit: setattr(fit.trainer, "shuffle", not fit.trainer.shuffle),
    "n_threads": lambda fit: setattr(fit.trainer, "n_threads", 1),
    "sparse": lambda fit: setattr(fit.trainer, "sparse", True),
    "callbacks": lambda fit: setattr(fit.trainer, "callbacks", []),
    "one more callback": lambda fit: fit.trainer.callbacks.append(Crash(1)),
    "dropout": lambda fit: setattr(fit.trainer, "dropout", 0.5),
    "an item of dropout": lambda fit: fit.trainer.dropout.__setitem__(slice(None, 1), [0.5]),
    "augment": lambda fit: setattr(fit.trainer, "augment", fastnn.augment.Flip()),
    "label_smoothing": lambda fit: setattr(fit.trainer, "label_smoothing", 0.2),
    "clip_norm": lambda fit: setattr(fit.trainer, "clip_norm", 0.01),
    "max_norm": lambda fit: setattr(fit.trainer, "max_norm", 0.01),
    "network": lambda fit: setattr(fit.trainer, "network", fastnn.Network([1, 1])),
    "like network": lambda fit: setattr(fit.trainer, "network", copy.deepcopy(fit.trainer.network)),
    "sizes": lambda fit: setattr(fit.trainer.network, "sizes", (1, 1)),
    "activation": lambda fit: setattr(fit.trainer.network, "activation", ("relu",)),
    "loss": lambda fit: setattr(fit.trainer.network, "loss", "squared"),
    "batch_norm": lambda fit: setattr(fit.trainer.network, "batch_norm", True),
    "fit.trainer": lambda fit: setattr(fit, "trainer", None),
    "fit.epochs": lambda fit: setattr(fit, "epochs", 1),
    "fit.n_rows": lambda fit: setattr(fit, "n_rows", 1),
    "fit.history": lambda fit: setattr(fit, "history", fastnn.History()),
    "fit.rows_done": lambda fit: setattr(fit, "rows_done", 0),
    "fit.learning_rate": lambda fit: setattr(fit, "learning_rate", -1.0),
    "a fit in a fit": lambda fit: fit.trainer.fit(np.zeros((3, fit.trainer.network.n_in)), [0, 0, 0], epochs=1),
    "another trainer's fit": lambda fit: fastnn.Trainer(fit.trainer.network).fit(
        np.zeros((3, fit.trainer.network.n_in)), np.zeros((3, fit.trainer.network.n_out)), epochs=1
    ),
}

# And what it may not do within an epoch.
WRONGS_WITHIN = {
    "parameters": lambda network: setattr(network, "parameters", 0 * network.parameters),
    "weights": lambda network: setattr(network, "weights", [0 * weight for weight in network.weights]),
    "a weight": lambda network: network.weights.__setitem__(-1, 0 * network.weights[-1]),
    "numbers of a bias": lambda network: network.biases[0].__setitem__(slice(None), 0),
    "numbers": lambda network: network.parameters.__setitem__(0, 0),
}


# The first in the vector of parameters.
SCALED = ("embeddings", "weights", "biases")


class Meddler(Callback):
    """Does what it may not, and keeps what that raised; and what it may, at the ends of epochs.

    wrongs : (when, name) of each
    rates, scales : by epoch, what the learning rate becomes, and what SCALED are multiplied by
    stop : epoch after which the fit ends;  early : rates and stop are set within the epoch, where there is a chance
    """

    def __init__(self, wrongs, rates, scales, stop, early):
        self.wrongs, self.rates, self.scales, self.stop, self.early = wrongs, rates, scales, stop, early
        self.left = []

    def do_wrong(self, fit, when):
        for moment, name in self.wrongs:
            act = WRONGS.get(name) or (lambda fit, name=name: WRONGS_WITHIN[name](fit.trainer.network))
            if moment == when and (name in WRONGS or when == "on_chunk"):
                try:
                    act(fit)
                except (RuntimeError, AttributeError, TypeError, ValueError):
                    continue
                self.left.append((when, name))

    def on_start(self, fit):
        self.do_wrong(fit, "on_start")

    def on_chunk(self, fit):
        self.do_wrong(fit, "on_chunk")
        epoch = len(fit.history) + (fit.rows_done > 0)
        if self.early and epoch in self.rates:
            fit.learning_rate = self.rates[epoch]
        fit.stop = fit.stop or (self.early and epoch == self.stop)

    def on_epoch(self, fit):
        self.do_wrong(fit, "on_epoch")
        epoch = len(fit.history)
        if epoch in self.rates:
            fit.learning_rate = self.rates[epoch]
        if epoch in self.scales:
            network = fit.trainer.network
            network.embeddings = [embedding * self.scales[epoch] for embedding in network.embeddings]
            network.weights = [weight * self.scales[epoch] for weight in network.weights]
            for bias in network.biases:
                bias *= self.scales[epoch]
        fit.stop = fit.stop or epoch == self.stop

    def on_epoch_of_twin(self, twin, epoch):
        """Do the same to the twin, and return whether it is to stop."""
        epoch += 1
        if epoch in self.rates:
            optimizer = dataclasses.replace(twin.settings["optimizer"], learning_rate=self.rates[epoch])
            twin.settings["optimizer"] = optimizer
        n_scaled = sum(array.size for kind in SCALED for array in getattr(twin.network, kind))
        twin.parameters[:n_scaled] *= twin.dtype.type(self.scales.get(epoch, 1))
        return epoch == self.stop


def meddlers():
    moments = st.sampled_from(["on_start", "on_chunk", "on_epoch"])
    wrongs = st.lists(st.tuples(moments, st.sampled_from([*WRONGS, *WRONGS_WITHIN])), max_size=4)
    epochs = st.integers(1, 3)
    rates = st.dictionaries(epochs, st.sampled_from([0.01, 0.05]), max_size=2)
    scales = st.dictionaries(epochs, st.sampled_from([0.5, 0.875]), max_size=2)
    return st.builds(Meddler, wrongs, rates, scales, st.sampled_from([0, 0, 1, 2]), st.booleans())


@examples(100)
@given(case=cases(max_epochs=4), meddler=meddlers())
def test_callbacks_change_what_they_may_and_nothing_else(case, meddler):
    with tempfile.TemporaryDirectory() as folder, case.tuned() as patch:
        inputs, parts = case.inputs(folder)
        come_back_soon(patch)
        try:
            agreement = Agreement(
                case, parts, lambda case, twin, parts: case.fit_twin(twin, parts, on_epoch=meddler.on_epoch_of_twin)
            )
        except Diverged:
            assume(False)
        network = case.net.make()
        trainer = case.trainer(network, callbacks=[meddler])
        before = {
            name: getattr(trainer, name) for name in fastnn.Trainer.__init__.__annotations__ if name in dir(trainer)
        }
        history = case.fit(trainer, inputs)
        assert meddler.left == []
        agreement.check_parameters(network)
        agreement.check_history(history)
        for name, value in before.items():
            assert getattr(trainer, name) is value


def spoiled(wrong, X, y, w, net, rng):
    """Return rows, targets and weights of which something is not as it must be."""
    n, n_in = X.shape
    row, column = rng.integers(n), rng.integers(n_in)
    if wrong in ("NaN", "infinity", "too large"):
        X = X.astype(np.float64)
        X[row, column] = {"NaN": np.nan, "infinity": -np.inf, "too large": 1e39 if net.dtype == "float32" else np.inf}[
            wrong
        ]
    elif wrong == "NaN in sparse rows":
        X = sparse.csr_array(X.astype(np.float64) + np.where(np.arange(n) == row, np.nan, 0)[:, None])
    elif wrong in ("column out of bounds", "rows out of order"):
        X = sparse.csr_array(np.ones((n, n_in)))
        if wrong == "column out of bounds":
            X.indices[row] = rng.choice([-1, n_in, 2**31 - 1])
        else:
            X.indptr[rng.integers(1, n + 1)] = rng.choice([-1, 2**30])
    elif wrong in ("wide", "narrow", "deep", "flat", "empty"):
        X = {
            "wide": np.hstack([X, X]),
            "narrow": X[:, :-1],
            "deep": X[None, None, None],
            "flat": X.ravel(),
            "empty": X[:0],
        }[wrong]
        y = y[:0] if wrong == "empty" else y
    elif wrong in ("text", "complex", "objects"):
        X = X.astype({"text": "U3", "complex": complex, "objects": object}[wrong])
    elif wrong == "fewer targets":
        y = y[:-1]
    elif wrong == "more targets":
        y = np.concatenate([y, y])
    elif wrong == "targets out of bounds":
        y = y.copy()
        classes = net.loss == "cross_entropy"
        y[row] = rng.choice([-1, net.sizes[-1], 2**40]) if classes else rng.choice([np.nan, np.inf])
    elif wrong == "targets of another kind":
        y = y.astype("U3") if rng.random() < 0.5 else y + 1j
    elif wrong == "no targets":
        y = None
    elif wrong == "negative weight":
        w = np.ones(n)
        w[row] = -1e-9
    elif wrong == "NaN in weights":
        w = np.full(n, np.nan)
    elif wrong == "no weight":
        w = np.zeros(n)
    elif wrong == "weights of another length":
        w = np.ones(n + 1)
    elif wrong == "a matrix of weights":
        w = np.ones((n, 1))
    return X, y, w


MISTAKES = [
    "NaN", "infinity", "too large", "NaN in sparse rows", "column out of bounds", "rows out of order", "wide", "narrow",
    "deep", "flat", "empty", "text", "complex", "objects", "fewer targets", "more targets", "targets out of bounds",
    "targets of another kind", "no targets", "negative weight", "NaN in weights", "no weight",
    "weights of another length", "a matrix of weights",
]  # fmt: skip


@examples(100)
@given(
    case=cases(one_chunk=True), wrong=st.sampled_from(MISTAKES), where=st.sampled_from(["data", "validation", "chunk"])
)
def test_a_fit_that_is_refused_changes_nothing(case, wrong, where):
    assume(case.net.columns is None or wrong not in ("NaN", "too large"))  # not mistakes in a table
    with tempfile.TemporaryDirectory() as folder, case.tuned():
        inputs, parts = case.inputs(folder)
        rng = np.random.default_rng(case.net.seed)
        spoilt = spoiled(wrong, parts[0].raw, parts[0].y, parts[0].weights, case.net, rng)
        network, other = case.net.make(), case.net.make()
        trainer, undisturbed = case.trainer(network), case.trainer(other)
        with contextlib.suppress(fastnn.DivergenceError):
            case.fit(trainer, inputs, epochs=1)
        with contextlib.suppress(fastnn.DivergenceError):
            case.fit(undisturbed, inputs, epochs=1)
        told = []
        trainer.callbacks = [Tell(told)]
        chunk = spoilt if spoilt[2] is not None else spoilt[:2]
        fits = {
            "data": lambda: trainer.fit(spoilt[0], spoilt[1], sample_weight=spoilt[2]),
            "validation": lambda: case.fit(trainer, inputs, validation=chunk),
            "chunk": lambda: trainer.fit([chunk]),
        }
        with pytest.raises((TypeError, ValueError)):
            fits[where]()
        assert "on_epoch" not in told
        trainer.callbacks = []
        np.testing.assert_array_equal(network.parameters, other.parameters)
        results = []
        for each in (trainer, undisturbed):
            try:
                results.append(case.fit(each, inputs).columns() | {"seconds": None})
            except fastnn.DivergenceError as error:
                results.append(str(error))
        assert results[0] == results[1]
        np.testing.assert_array_equal(network.parameters, other.parameters)


class Tell(Callback):
    """Notes what it is told."""

    def __init__(self, told):
        self.told = told

    def on_epoch(self, fit):
        self.told.append("on_epoch")


@examples(60)
@given(
    case=cases(),
    rate=st.sampled_from([3.0, 1e3, 1e10, 1e30, 1e150, 1e300]),
    momentum=st.sampled_from([0.0, 0.9]),
)
def test_divergence_leaves_the_last_good_epoch(case, rate, momentum):
    case = dataclasses.replace(case, settings=case.settings | {"optimizer": fastnn.SGD(rate, momentum)}, epochs=6)
    with tempfile.TemporaryDirectory() as folder, case.tuned():
        inputs, _ = case.inputs(folder)
        errors = []
        for n_threads in (1, case.n_threads):
            network = case.net.make()
            trainer = case.trainer(network, n_threads=n_threads)
            try:
                case.fit(trainer, inputs)
            except fastnn.DivergenceError as error:
                errors.append(error)
        assert np.isfinite(network.parameters).all()
        network.predict(inputs[0][0])
        event(f"diverged: {len(errors)}")
        if not errors:
            return
        assert len(errors) == 2
        assert str(errors[0]) == str(errors[1])
        assert np.isfinite(errors[0].history.log_likelihood).all()
        good = case.net.make()
        case.fit(case.trainer(good), inputs, epochs=errors[0].epoch - 1)
        np.testing.assert_array_equal(network.parameters, good.parameters)
        trainer.optimizer = fastnn.SGD(1e-3)
        with contextlib.suppress(fastnn.DivergenceError):  # which large parameters may lead to
            case.fit(trainer, inputs, epochs=1)
        assert np.isfinite(network.parameters).all()


@examples(100)
@given(case=cases(one_chunk=True), empty=st.booleans(), data=st.data())
def test_a_network_agrees_with_its_twin(case, empty, data):
    rows = dataclasses.replace(case.data[0], n=0) if empty and data.draw(st.booleans()) else case.data[0]
    case = dataclasses.replace(case, data=(rows,), valid=None)
    with tempfile.TemporaryDirectory() as folder, case.tuned():
        inputs, parts = case.inputs(folder)
        X, y, w = inputs[0]
        before = snapshot(inputs)
        network = case.net.make()
        agreement = Agreement(case, parts, lambda case, twin, parts: twin.outputs(parts[0].X))
        agreement.magnified = 0.0  # no steps are taken
        exact, rough = agreement.records
        found = network.predict(X, n_threads=1)
        np.testing.assert_array_equal(network.predict(X, n_threads=case.n_threads), found)
        if network.classifies:
            probabilities = network.predict_proba(X, n_threads=case.n_threads)
            by_twin = [softmax(Z, axis=1) if network.loss == "cross_entropy" else expit(Z) for Z in (exact, rough)]
            agreement.check(probabilities, *by_twin, "probabilities")
            best = probabilities.argmax(axis=1) if network.loss == "cross_entropy" else probabilities > 0.5
            doubtful = (
                np.abs(probabilities - 0.5).min(axis=1, initial=1) < 1e-3 if network.loss != "cross_entropy" else 0
            )
            assert ((best == found) if best.ndim == 1 else (best == found).all(axis=1) | doubtful).all()
        else:
            agreement.check(found, exact, rough, "outputs")
        if len(parts[0].y):
            check_measures(network, inputs[0], parts[0], agreement)
        else:
            with pytest.raises(ValueError, match="X is empty"):
                network.log_likelihood(X, y, w)
        network.save(os.path.join(folder, "network"))
        copies = fastnn.Network.load(os.path.join(folder, "network")), copy.deepcopy(network), copy.copy(network)
        for other in (*copies, pickle.loads(pickle.dumps(network))):
            assert repr(other) == repr(network)
            np.testing.assert_array_equal(other.parameters, network.parameters)
            np.testing.assert_array_equal(other.predict(X), found)
        assert snapshot(inputs) == before


def check_measures(network, given_, part, agreement):
    """Log-likelihood, error, confusion matrix and gradient of a network."""
    X, y, w = given_
    exact, rough = agreement.records
    values = [log_likelihood(network, Z, part) for Z in (exact, rough)]
    agreement.check(network.log_likelihood(X, y, w), *values, "log-likelihood")
    if network.classifies:
        expected, doubt = error(network, exact, part, 100 * agreement.noise(exact, rough))
        assert abs(network.error(X, y, w) - expected) <= doubt + 8 * agreement.eps
    if network.loss == "cross_entropy":
        wrong, _ = error(network, exact, dataclasses.replace(part, weights=None), 0)
        matrix = network.confusion_matrix(X, y)
        assert matrix.sum() == len(part.y)
        np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(part.y, minlength=network.n_out))
        _, doubt = error(network, exact, part, 100 * agreement.noise(exact, rough))
        assert abs(1 - np.trace(matrix) / len(part.y) - wrong) <= (1 if doubt else 1e-9)
    gradient = [np.concatenate([[], *map(np.ravel, arrays)]) for arrays in network.gradient(X, y, w)]
    by_twin = [twin.gradient(part) for twin in (agreement.exact, agreement.rough)]
    for found, expected, other in zip(gradient, *by_twin, strict=True):
        agreement.check(found, expected, other, "gradient")
    slope, difference, bend = agreement.exact.slopes(part, np.random.default_rng(0))
    assert slope == pytest.approx(difference, rel=1e-4, abs=1e-5 + bend)


@examples(40)
@given(case=cases(one_chunk=True, max_epochs=6), at=st.integers(1, 6))
def test_lbfgs(case, at):
    net = dataclasses.replace(case.net.plain(), dtype="float64")
    plain = {name: case.settings[name] for name in ("seed", "sparse", "l2")}
    settings_ = plain | {"optimizer": fastnn.LBFGS(), "batch_size": None, "shuffle": False}
    case = dataclasses.replace(case, net=net, settings=settings_)
    with tempfile.TemporaryDirectory() as folder, case.tuned():
        inputs, parts = case.inputs(folder)
        path = os.path.join(folder, "checkpoint")
        before = snapshot(inputs)

        def fit(n_threads, crash=None, **options):
            network = case.net.make()
            callbacks = [Checkpoint(path, seconds=0), crash] if options else []
            history = case.fit(case.trainer(network, n_threads=n_threads, callbacks=callbacks), inputs, **options)
            return network, history.columns() | {"seconds": None}

        network, columns = fit(1)
        assert snapshot(inputs) == before
        # Uphill, to what the twin says of the parameters that were reached.
        value = log_likelihood(network, outputs(network, network.parameters, parts[0].X), parts[0])
        penalty = settings_["l2"] / 2 * sum((array**2).sum() for array in (*network.weights, *network.embeddings))
        if columns["objective"]:
            assert columns["log_likelihood"][-1] == pytest.approx(value, rel=1e-9, abs=1e-9)
            assert columns["objective"][-1] == pytest.approx(value - penalty, rel=1e-9, abs=1e-9)
            assert (np.diff(columns["objective"]) >= -1e-9).all()
        results = [fit(case.n_threads)]
        with contextlib.suppress(RuntimeError):
            fit(1, Crash(after_epochs=at, error=RuntimeError), resume=path)
        results.append(fit(case.n_threads, Crash(), resume=path))
        for other, found in results:
            np.testing.assert_array_equal(other.parameters, network.parameters)
            assert found == columns


# Parameters of the estimators, each with values to draw from.
PARAMETERS = {
    "solver": ["lbfgs", "sgd", "adam"],
    "batch_size": ["auto", 1, 7, 1000],
    "learning_rate": ["constant", "invscaling", "adaptive"],
    "learning_rate_init": [1e-3, 0.1],
    "max_iter": [1, 4],
    "shuffle": [True, False],
    "tol": [0.0, 1e-4, 10.0],
    "warm_start": [False, True],
    "momentum": [0.0, 0.9],
    "nesterovs_momentum": [True, False],
    "early_stopping": [False, False, True],
    "n_iter_no_change": [1, 3],
    "random_state": [0, 7],
}
PERCEPTRONS = {
    "hidden_layer_sizes": [(), (1,), (5, 3), 4],
    "activation": ["identity", "logistic", "tanh", "relu", "gelu"],
    "alpha": [0.0, 1e-2],
    "dropout": [0.0, 0.3],
    "batch_norm": [False, False, True],
}
NETWORKS = {
    "layers": [(), (1,), [5, Dense(3, "tanh")], [Conv2D(3, (1, 2)), MaxPool2D((1, 2)), 4]],
    "input_shape": [None, 3, (1, 3), (1, 1, 3)],
    "optimizer": ["lbfgs", "adam", "adamw", fastnn.SGD(0.1, momentum=0.9)],
    "l2": [0.0, 1e-2],
    "l1": [0.0, 1e-2],
    "dropout": [0.0, 0.3],
    "batch_norm": [False, False, True],
}
ESTIMATORS = {
    fastnn.sklearn.SoftmaxClassifier: {
        "C": [0.1, np.inf],
        "fit_intercept": [True, True, False],
        "class_weight": [None, "balanced"],
    },
    fastnn.sklearn.MLPClassifier: PERCEPTRONS | {"class_weight": [None, "balanced"]},
    fastnn.sklearn.MLPRegressor: PERCEPTRONS | {"loss": ["squared_error", "absolute_error", "huber"]},
    fastnn.sklearn.NetworkClassifier: NETWORKS | {"class_weight": [None, "balanced"], "label_smoothing": [0.0, 0.1]},
    fastnn.sklearn.NetworkRegressor: NETWORKS | {"loss": ["squared_error", "absolute_error", "huber"]},
}


@st.composite
def estimators(draw):
    """Draw an estimator, whose parameters may not go together."""
    kind = draw(st.sampled_from(list(ESTIMATORS)))
    known = {name: values for name, values in PARAMETERS.items() if name in kind().get_params()} | ESTIMATORS[kind]
    names = draw(st.lists(st.sampled_from(list(known)), unique=True, max_size=8))
    return kind(**{"max_iter": 3} | {name: draw(st.sampled_from(known[name])) for name in names})


def seen(estimator, X):
    """Return what can be seen of an estimator: its attributes, and what it predicts."""
    names = sorted(
        {name for name in (*vars(estimator), *dir(type(estimator))) if name.endswith("_") and name[0] != "_"}
    )
    found = {"parameters": repr(estimator.get_params())}
    for name in names:
        try:
            found[name] = pickle.dumps(np.asarray(getattr(estimator, name), object).tolist())
        except AttributeError:
            found[name] = "not there"
    try:
        found["predicted"] = estimator.predict(X).tobytes()
    except NotFittedError:
        found["predicted"] = "not fitted"
    return found


# What makes a fit raise an error: parameters to set, and what becomes of the arguments.
FAULTS = {
    "NaN": lambda X, y: ({}, (np.where(np.arange(X.shape[1]) == 0, np.nan, X), y), {}),
    "fewer targets": lambda X, y: ({}, (X, y[:-1]), {}),
    "no rows": lambda X, y: ({}, (X[:0], y[:0]), {}),
    "NaN in y": lambda X, y: ({}, (X, np.full(len(y), np.nan)), {}),
    "negative weights": lambda X, y: ({}, (X, y), {"sample_weight": -np.ones(len(y))}),
    "weights of another length": lambda X, y: ({}, (X, y), {"sample_weight": np.ones(len(y) + 1)}),
    "NaN to validate on": lambda X, y: ({}, (X, y), {"X_val": np.full_like(X, np.nan), "y_val": y}),
    "half of a validation": lambda X, y: ({}, (X, y), {"X_val": X}),
    "max_iter": lambda X, y: ({"max_iter": 0}, (X, y), {}),
    "solver": lambda X, y: ({"solver": "newton", "optimizer": "newton"}, (X, y), {}),
    "tol": lambda X, y: ({"tol": -1.0}, (X, y), {}),
    "batch_size": lambda X, y: ({"batch_size": 2.5, "solver": "sgd"}, (X, y), {}),
    "callbacks": lambda X, y: ({"callbacks": [print]}, (X, y), {}),
    "a callback's error": lambda X, y: ({"callbacks": [Crash(after_epochs=1, error=RuntimeError)]}, (X, y), {}),
    "divergence": lambda X, y: (
        {"solver": "sgd", "learning_rate_init": 1e200, "max_iter": 50, "early_stopping": False, "fit_intercept": True},
        (1e200 * X, y),
        {},
    ),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:batch_size=:UserWarning")
@examples(100)
@given(estimator=estimators(), faults=st.lists(st.sampled_from(list(FAULTS)), min_size=1, max_size=3),
       seed=st.integers(0, 1000), n_classes=st.integers(2, 3), fitted=st.booleans())  # fmt: skip
def test_estimators(estimator, faults, seed, n_classes, fitted):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((40, 3))
    y = (
        (X[:, 0] + 0.1 * rng.standard_normal(40))
        if isinstance(estimator, RegressorMixin)
        else np.arange(40) % n_classes
    )
    before = X.copy(), y.copy()
    try:
        (estimator if fitted else clone(estimator)).fit(X, y)
    except ValueError:  # parameters that do not go together
        fitted = False
    for name in faults:
        old = seen(estimator, X)
        parameters, arguments, options = FAULTS[name](X, y)
        parameters = {key: value for key, value in parameters.items() if key in estimator.get_params()}
        kept = {key: getattr(estimator, key) for key in parameters}
        estimator.set_params(**parameters)
        raised = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                estimator.fit(*arguments, **options)
                raised = False
            except (ValueError, TypeError, RuntimeError):
                pass
        estimator.set_params(**kept)
        if raised:
            assert seen(estimator, X) == old
        else:
            event(f"not an error: {name}")
        assert raised or name in ("a callback's error", "divergence")
    if fitted:
        names = ["coef_", "intercept_", "coefs_", "intercepts_"]
        kept = [getattr(estimator, name) for name in names if hasattr(estimator, name)] or [
            list(estimator.network_.weights)
        ]
        copies = copy.deepcopy(kept)
        estimator.set_params(warm_start=True).fit(X[::-1], y[::-1])
        for arrays, others in zip(kept, copies, strict=True):
            for array, other in zip(arrays, others, strict=True):
                np.testing.assert_array_equal(array, other)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
