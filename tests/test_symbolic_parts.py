"""Theano's notation: operations with several results, known gradients, default updates."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn.symbolic import graph, ops
from fastnn.symbolic.graph import Op, apply

#: From the third call with the same shapes on, functions go by a plan.
CALLS = 4


@dataclass(frozen=True)
class SineAndCosine(Op):
    def compute(self, *arrays):
        return ops.packed(np.sin(arrays[0]), np.cos(arrays[0]))

    def gradient(self, inputs, output, g):
        sine, cosine = parts(output, inputs[0].type)
        terms = [g[number] * slope for number, slope in ((0, cosine), (1, -sine)) if number in g]
        return [sum(terms[1:], terms[0])]

    def text(self, inputs):
        return ops.call("sine_and_cosine", inputs[0][0])


def parts(pack, type_):
    return [ops.part(pack, number, type_) for number in range(2)]


@pytest.mark.parametrize("n", [0, 1, 5])
def test_several_results_and_their_gradients(n):
    x = T.dvector("x")
    sine, cosine = parts(apply(SineAndCosine(), graph.PACKED, x), x.type)
    both, first, second = (T.grad(T.sum(value), x) for value in (sine * cosine**2, sine**3, cosine**3))
    function = theano.function([x], [sine, cosine, both, first, second])
    value = np.random.default_rng(0).normal(size=n)
    s, c = np.sin(value), np.cos(value)
    for _ in range(CALLS):
        results = function(value)
        wanted = s, c, c**3 - 2 * s**2 * c, 3 * s**2 * c, -3 * c**2 * s
        for found, right in zip(results, wanted, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-14, atol=1e-15)
    assert repr(x) in theano.pprint(sine)


def test_a_pack_holds_no_numbers():
    pack = apply(SineAndCosine(), graph.PACKED, T.dvector("x"))
    with pytest.raises(TypeError):
        pack + 1
    with pytest.raises(TypeError):
        T.cast(pack, "float64")


def test_gradients_from_known_ones():
    x, W = T.dvector("x"), T.dmatrix("W")
    h = T.tanh(T.dot(x, W))
    cost = T.sum(h**2)
    known = T.grad(cost, h)
    by_parts = T.grad(None, [x, W], known_grads={h: known})
    # Another cost is not asked where the gradient is known.
    instead = T.grad(T.sum(h), [x], known_grads={h: 2 * h})
    function = theano.function([x, W], [*by_parts, *instead, *T.grad(cost, [x, W])])
    generator = np.random.default_rng(0)
    x_part, W_part, x_instead, x_right, W_right = function(generator.normal(size=3), generator.normal(size=(3, 2)))
    np.testing.assert_allclose(x_part, x_right, rtol=1e-14)
    np.testing.assert_allclose(W_part, W_right, rtol=1e-14)
    np.testing.assert_allclose(x_instead, x_right, rtol=1e-14)


def test_known_gradients_are_checked():
    x = T.dvector("x")
    with pytest.raises(TypeError, match="known_grads"):
        T.grad(None, x)
    with pytest.raises(TypeError, match="vector"):
        T.grad(None, x, known_grads={x * 2: 1.0})
    with pytest.raises(theano.DisconnectedInputError):
        T.grad(None, x, known_grads={T.dscalar("other") * 2: 1.0})


def counter():
    count = theano.shared(0, "count")
    count.default_update = count + 1
    return count


def test_default_updates():
    count, x = counter(), T.lscalar("x")
    behind = theano.shared(0, "behind")
    behind.default_update = behind + count
    function = theano.function([x], x + behind)
    assert [int(function(10)) for _ in range(4)] == [10, 10, 11, 13]
    assert int(count.get_value()) == 4  # the update behind a default update is made, too
    assert [int(pickle.loads(pickle.dumps(function))(0)) for _ in range(2)] == [6, 6]


def test_default_updates_give_way():
    count, x = counter(), T.lscalar("x")
    theano.function([x], count * x, no_default_updates=True)(1)
    theano.function([x], count * x, no_default_updates=[count])(1)
    assert int(count.get_value()) == 0
    theano.function([x], count * x, updates=[(count, count + 10)])(1)
    assert int(count.get_value()) == 10
    theano.function([], x * 2, givens={x: count})()
    assert int(count.get_value()) == 11


def test_default_updates_behind_inputs_are_not_made():
    count, x = counter(), T.lscalar("x")
    between = x + count
    assert int(theano.function([between], between * 2)(4)) == 8
    assert int(theano.function([], between * 2, givens={x: 3, between: x * 0 + 1})()) == 2
    assert int(count.get_value()) == 0


def test_products_with_a_constant_that_was_transposed_once():
    s, C = theano.shared(np.ones((4, 3))), np.arange(9.0).reshape(3, 3)
    step = theano.function([], [], updates=[(s, s - 0.1 * T.grad((T.dot(s, C) * s).sum(), s))])
    wanted = np.ones((4, 3))
    for _ in range(CALLS):
        step()
        wanted = wanted - 0.1 * wanted @ (C + C.T)
    np.testing.assert_allclose(s.get_value(), wanted, rtol=1e-12)


@pytest.mark.parametrize("returned", ["zero", "none"])
def test_gradients_by_what_the_cost_does_not_depend_on(returned):
    x, other = T.dvector("x"), T.dvector("other")
    _, found = T.grad(T.sum(x), [x, other], disconnected_inputs="ignore", add_names=False, return_disconnected=returned)
    if returned == "none":
        assert found is None
    else:
        np.testing.assert_array_equal(found.eval({other: [1.0, 2.0], x: [1.0]}), [0, 0])


def classifier(x, W, y):
    return T.mean(T.log(T.nnet.softmax(T.dot(x, W)))[T.arange(y.shape[0]), y])


def test_a_clone_of_rows_follows_their_new_value():
    rows, W, y = theano.shared(np.zeros((4, 2))), theano.shared(np.zeros((2, 2))), T.ivector("y")
    function = theano.function([y], T.grad(classifier(rows.clone(), W, y), W))
    labels = np.array([0, 1, 0, 0], np.int32)
    assert function.recognised
    np.testing.assert_array_equal(function(labels), np.zeros((2, 2)))
    rows.set_value(np.ones((4, 2)))
    np.testing.assert_allclose(function(labels), [[0.25, -0.25]] * 2, rtol=1e-14)


def test_a_gradient_at_a_corner_is_the_same_in_each_call():
    generator = np.random.default_rng(0)
    x, y = T.dmatrix("x"), T.ivector("y")
    W, b, V = (theano.shared(a) for a in (np.ones((3, 4)), np.zeros(4), generator.normal(size=(4, 2))))
    function = theano.function([x, y], T.grad(classifier(T.nnet.relu(T.dot(x, W) + b), V, y), b))
    values = np.zeros((2, 3)), np.array([0, 0], np.int32)
    first, *others = [function(*values) for _ in range(CALLS)]
    assert first.any()
    for found in others:
        np.testing.assert_array_equal(found, first)


def test_threads_take_turns_in_functions_that_leave_something_behind():
    generator = np.random.default_rng(0)
    count, W = theano.shared(0), theano.shared(generator.normal(size=(20, 3)))
    x, y = T.dmatrix("x"), T.ivector("y")
    gradient = theano.function([x, y], T.grad(classifier(x, W, y), W))
    counted = theano.function([], count, updates=[(count, count + 1)])
    batches = [(generator.normal(size=(50, 20)), generator.integers(0, 3, 50).astype(np.int32)) for _ in range(2)]
    wanted = [gradient(*batch) for batch in batches]

    def work(number):
        for _ in range(300):
            counted()
            np.testing.assert_allclose(gradient(*batches[number]), wanted[number], rtol=1e-10)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert int(count.get_value()) == 600
