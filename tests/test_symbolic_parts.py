"""Theano's notation: operations with several results, known gradients, default updates."""

import pickle
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
