"""Loops of the notation: values and gradients as Theano's, whatever is moved out of them."""

import copy
import json
import pickle
import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn.symbolic import ops
from fastnn.symbolic.scanning import Scan

FOLDER = Path(__file__).parent / "golden" / "scan"
CASES = runpy.run_path(str(FOLDER / "cases.py"))
RESULTS = json.loads((FOLDER / "results.json").read_text())


@pytest.fixture(autouse=True)
def _float64(monkeypatch):
    monkeypatch.setattr(theano.config, "floatX", "float64")


@pytest.mark.parametrize("name", RESULTS)
def test_a_loop_gives_what_theano_does(name):
    calls, updated = CASES["run"](theano, T, name)
    tolerance = 1e-5 if "float32" in name else 1e-11
    for found, wanted in zip(calls, RESULTS[name][0], strict=True):
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(updated, RESULTS[name][1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance)


def elman(n_in=3, n=4):
    x, h0 = T.dmatrix("x"), T.dvector("h0")
    W, U = (theano.shared(CASES["numbers"](k, n), name) for k, name in ((n_in, "W"), (n, "U")))
    h, _ = theano.scan(lambda row, h: T.tanh(T.dot(row, W) + T.dot(h, U)), sequences=x, outputs_info=h0)
    return x, h0, W, U, h


def by_hand(x, h, W, U):
    found = []
    for row in x:
        h = np.tanh(row @ W + h @ U)
        found.append(h)
    return np.array(found)


def test_the_number_of_steps_may_change_from_call_to_call():
    x, h0, W, U, h = elman()
    f = theano.function([x, h0], [h, T.grad(T.sum(h**2), U)])
    fresh = theano.function([x, h0], T.grad(T.sum(h**2), U), mode="FAST_COMPILE")
    random = np.random.RandomState(0)
    for n in (3, 5, 5, 1, 9, 2, 40, 9, 9, 9, 9, 1):
        rows, first = random.randn(n, 3), random.randn(4)
        states, slope = f(rows, first)
        np.testing.assert_allclose(states, by_hand(rows, first, W.get_value(), U.get_value()), rtol=1e-12)
        np.testing.assert_allclose(slope, fresh(rows, first), rtol=1e-12)


def test_results_stay_as_they_are_after_the_next_call():
    x, h0, *_, h = elman()
    f = theano.function([x, h0], [h, h[-1], h[::2]])
    rows = np.random.RandomState(0).randn(6, 5, 3)
    kept = [f(each, np.zeros(4)) for each in rows]
    again = [theano.function([x, h0], h)(each, np.zeros(4)) for each in rows]
    for (states, last, some), wanted in zip(kept, again, strict=True):
        np.testing.assert_allclose(states, wanted, rtol=1e-12)
        np.testing.assert_allclose(last, wanted[-1], rtol=1e-12)
        np.testing.assert_allclose(some, wanted[::2], rtol=1e-12)


def test_threads_share_a_function():
    x, h0, W, U, h = elman()
    f = theano.function([x, h0], h)
    rows = np.random.RandomState(0).randn(8, 5, 3)

    def calls(each):
        return [f(each, np.zeros(4)) for _ in range(30)]

    with ThreadPoolExecutor(4) as pool:
        for each, found in zip(rows, pool.map(calls, rows), strict=True):
            wanted = by_hand(each, np.zeros(4), W.get_value(), U.get_value())
            for states in found:
                np.testing.assert_allclose(states, wanted, rtol=1e-12)


def test_gradients_of_a_loop_that_stops_agree_with_differences():
    x, w = T.dvector("x"), T.dscalar("w")
    (s, y), _ = theano.scan(
        lambda a, s, w: ([s + w * a, s * a], theano.scan_module.until(s > 2.0)),
        sequences=x,
        outputs_info=[T.constant(0.0, dtype="float64"), None],
        non_sequences=w,
    )
    cost = T.sum(s**2) + y[-1]
    value, slope = theano.function([x, w], cost), theano.function([x, w], T.grad(cost, x))
    at, step = np.arange(9.0), 1e-6 * np.eye(9)
    for _ in range(4):
        found = slope(at, 0.7)
    wanted = [(value(at + e, 0.7) - value(at - e, 0.7)) / 2e-6 for e in step]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_givens_replace_what_a_step_uses():
    x, scale = T.dvector("x"), T.dscalar("scale")
    s, _ = theano.scan(lambda a, s: s + a * scale, sequences=x, outputs_info=T.constant(0.0, dtype="float64"))
    f = theano.function([], s, givens={x: T.constant([1.0, 2.0, 3.0]), scale: T.constant(2.0)})
    np.testing.assert_array_equal(f(), [2, 6, 12])


def test_loops_can_be_pickled_and_copied():
    x, h0, W, U, h = elman()
    f = theano.function([x, h0], [h, *T.grad(T.sum(h), [W, U])])
    rows, first = np.ones((4, 3)), np.zeros(4)
    for other in (pickle.loads(pickle.dumps(f)), copy.deepcopy(f), copy.copy(f)):
        for ours, theirs in zip(other(rows, first), f(rows, first), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_texts_of_loops(capsys):
    x, h0, *_, h = elman()
    f = theano.function([x, h0], h)
    f.explain()
    theano.debugprint(h)
    assert "scan(x.shape[0], x, h0.dimshuffle('x', 0), W, U)[0]" in capsys.readouterr().out


def test_work_moves_out_of_loops():
    x, h0, W, U, h = elman()
    y, _ = theano.map(lambda row: T.nnet.softmax(T.dot(row, W)), sequences=x)
    loops = [v for v in theano.function([x], y)._program.operations if isinstance(v.op, Scan)]
    assert not loops
    cost = T.sum(h[-1])
    f = theano.function([x], T.grad(cost, [W, U]), givens={h0: T.zeros_like(W[0])})
    steps = [v.op for pack in f._program.operations if isinstance(pack.op, Scan) for v in pack.op.order()]
    assert sum(isinstance(op, ops.Dot) for op in steps) == 2  # of the states with U, forward and backward


def test_unused_results_give_no_warning():
    x, h0, _, U, _ = elman()
    both, _ = theano.scan(lambda row, h: [T.dot(h, U) + row[0], row * 2], sequences=x, outputs_info=[h0, None])
    theano.function([x, h0], [], updates=[(U, U - T.grad(both[0].sum(), U))])(np.ones((2, 3)), np.ones(4))


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        (lambda x: theano.scan(lambda a: a), "needs sequences, or n_steps"),
        (lambda x: theano.scan(lambda a, s: s * T.fscalar(), sequences=x, outputs_info=x[0] > 0), "must be a"),
        (lambda x: theano.scan(lambda a: 1, sequences=x), "a step must return variables"),
        (lambda x: theano.scan(lambda a, s: [a, s], sequences=x, outputs_info=[x[0]]), "tells of 1 outputs"),
        (lambda x: theano.scan(lambda a: a, sequences=x[0]), "at least one dimension"),
        (lambda x: theano.scan(lambda a: a, outputs_info=dict(initial=x, taps=[0]), n_steps=2), "must be negative"),
        (lambda x: theano.scan(lambda a: a, outputs_info=dict(taps=[-1]), n_steps=2), "needs an initial value"),
        (lambda x: theano.scan(lambda a: a * theano.shared(1.0), sequences=x, strict=True), "strict"),
    ],
)
def test_what_is_no_loop(loop, message):
    with pytest.raises((TypeError, ValueError), match=message):
        loop(T.dvector("x"))


def test_errors_of_steps_name_their_expression():
    x, h0, *_, h = elman()
    f = theano.function([x, h0], h)
    for _ in range(3):
        f(np.ones((2, 3)), np.ones(4))
        with pytest.raises(ValueError, match="cannot be computed"):
            f(np.ones((2, 3)), np.ones(5))
    with pytest.raises(ValueError, match="at least one step"):
        f(np.ones((0, 3)), np.ones(4))
