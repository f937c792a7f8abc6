"""Whatever is drawn: a fit agrees with its twin, gives the same bits on any number of threads, and leaves all whole.

Minutes by default, and the same examples each time; as many as FASTNN_EXAMPLES says, new ones each time, where that
is set.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import tempfile

import numpy as np
import pytest
from anything import Case, Diverged, Twin, cases, error, snapshot
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

import fastnn
from fastnn._engine import Engine
from fastnn.callbacks import Callback, Checkpoint

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


class Agreement:
    """Holds results against those of the twin, in float64, with what roundings may make of them.

    That is learnt from the twin again, in the network's own precision and from a start with noise.
    """

    def __init__(self, case: Case, parts, run=lambda case, twin, parts: case.fit_twin(twin, parts)):
        self.network = network = case.net.make()
        self.valid = parts[-1] if case.valid else None
        self.eps = float(np.finfo(case.net.dtype).eps)
        # What ought to cancel leaves a rounding, which is divided by epsilon.
        epsilon = getattr(case.settings["optimizer"], "epsilon", math.inf)
        self.magnified = 1 / epsilon if epsilon < 1 else 0.0
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


@examples(400)
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
            found.append((network.parameters, trainer._state, history))
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
    """Have the engine come back after each batch, or within it where several lanes share it."""

    def advance(engine, targets, order, seconds):
        before, seconds = engine.rows_done, 0.0
        while original(engine, targets, order, seconds):
            if engine.rows_done > before:
                return True
            seconds = 2 * seconds + 1e-5
        return False

    original = Engine.advance
    patch.setattr(Engine, "advance", advance)


@examples(150)
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
        case.fit(trainer, inputs, epochs=1)
        with contextlib.suppress(Diverged):
            for twin in (agreement.exact, agreement.rough):
                case.fit_twin(twin, parts, epochs=1)
            agreement.check_parameters(network)


@examples(150)
@given(
    case=cases(),
    moments=st.lists(st.tuples(st.integers(1, 8), st.sampled_from([1, 2, 3, 4])), min_size=1, max_size=3),
    other_start=st.booleans(),
)
def test_a_fit_that_is_resumed_gives_the_bits_of_one_that_is_not(case, moments, other_start):
    case = dataclasses.replace(case, epochs=case.epochs + 1)
    with tempfile.TemporaryDirectory() as folder, case.tuned() as patch:
        inputs, _ = case.inputs(folder)
        path = os.path.join(folder, "checkpoint")

        def fit(crash, n_threads, again=False, **options):
            net = dataclasses.replace(case.net, seed=case.net.seed + 1) if other_start and again else case.net
            network = net.make()
            callbacks = [Checkpoint(path, seconds=0), crash] if options else []
            trainer = case.trainer(network, callbacks=callbacks, n_threads=n_threads)
            history = case.fit(trainer, inputs, **options)
            columns = history.columns() | {"seconds": None}
            return network.parameters, trainer._state, columns, trainer._generator.random(3)

        try:
            whole = fit(Crash(), case.n_threads)
        except fastnn.DivergenceError:
            assume(False)
        come_back_soon(patch)
        for at, n_threads in moments:
            with contextlib.suppress(RuntimeError):
                fit(Crash(at, error=RuntimeError), n_threads, os.path.exists(path), resume=path)
        resumed = fit(Crash(), case.n_threads, os.path.exists(path), resume=path)
        for found, expected in zip(resumed, whole, strict=True):
            np.testing.assert_array_equal(found, expected)
