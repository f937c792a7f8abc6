"""Loops in Theano's notation, run by Theano 1.0.5 to make `results.json`, and by the tests with fastnn.symbolic.

Made by Python 3.8 with numpy 1.19.5, scipy 1.5.4 and Theano 1.0.5, without a C compiler:

    THEANO_FLAGS=cxx=,optimizer=fast_compile python cases.py

Each case is a function of the two modules that returns inputs, outputs, updates, and the values of the inputs.
"""

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("results.json")
CALLS = 4
CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


def numbers(*shape, seed=0, dtype="float64"):
    return (np.random.RandomState(seed + len(shape)).randn(*shape) * 0.7).astype(dtype)


def shared(theano, *shape, seed=0, name=None, dtype="float64"):
    return theano.shared(numbers(*shape, seed=seed, dtype=dtype), name)


@case
def cumulative_sum(theano, T):
    x = T.dvector("x")
    total, _ = theano.scan(lambda x_t, s: s + x_t, sequences=x, outputs_info=T.constant(0.0, dtype="float64"))
    return [x], [total, T.grad(T.sum(total**2), x)], [], [numbers(6)]


@case
def power(theano, T):
    A, k = T.dvector("A"), T.iscalar("k")
    found, updates = theano.scan(lambda p, A: p * A, outputs_info=T.ones_like(A), non_sequences=A, n_steps=k)
    slope = T.grad(T.sum(found[-1]), A)
    return [A, k], [found[-1], slope, T.grad(T.sum(slope), A)], updates, [numbers(5), 4]


@case
def polynomial(theano, T):
    c, x = T.dvector("c"), T.dscalar("x")
    terms, _ = theano.scan(lambda c, p, x: c * x**p, sequences=[c, T.arange(100)], non_sequences=x)
    return [c, x], [terms, terms.sum(), T.grad(terms.sum(), x), T.grad(terms.sum(), c)], [], [numbers(4), 3.0]


@case
def elman(theano, T):
    x, h0, y = T.dmatrix("x"), T.dvector("h0"), T.dmatrix("y")
    W, U, V, b = (shared(theano, *s, seed=i) for i, s in enumerate([(3, 4), (4, 4), (4, 2), (4,)]))

    def step(x_t, h):
        h = T.tanh(T.dot(x_t, W) + T.dot(h, U) + b)
        return h, T.dot(h, V)

    (h, out), _ = theano.scan(step, sequences=x, outputs_info=[h0, None])
    cost = T.mean((out - y) ** 2)
    slopes = T.grad(cost, [W, U, V, b, h0, x])
    updates = [(p, p - 0.1 * g) for p, g in zip([W, U, V, b], slopes)]  # noqa: B905
    return [x, h0, y], [h, out, cost, *slopes], updates, [numbers(7, 3), numbers(4), numbers(7, 2)]


@case
def elman_with_transposed_weights(theano, T):
    x, h0 = T.dmatrix("x"), T.dvector("h0")
    W, U, b = (shared(theano, *s, seed=i) for i, s in enumerate([(4, 3), (4, 4), (4,)]))
    h, _ = theano.scan(
        lambda x_t, h, W, U: T.nnet.sigmoid(T.dot(W, x_t) + T.dot(U, h) + b),
        sequences=[x],
        outputs_info=[h0],
        non_sequences=[W, U],
    )
    cost = T.sum(T.sqr(h[-1]))
    return [x, h0], [h, *(T.grad(cost, p) for p in [W, U, b, h0])], [], [numbers(5, 3), numbers(4)]


@case
def elman_on_batches_with_mask(theano, T):
    x, mask = T.tensor3("x"), T.dmatrix("mask")
    W, U, b = (shared(theano, *s, seed=i) for i, s in enumerate([(3, 4), (4, 4), (4,)]))

    def step(m, x_t, h, U):
        new = T.tanh(T.dot(x_t, W) + T.dot(h, U) + b)
        return m[:, None] * new + (1 - m)[:, None] * h

    h, _ = theano.scan(
        step, sequences=[mask, x], outputs_info=[T.zeros_like(T.dot(x[0], W))], non_sequences=[U], strict=False
    )
    mean = (h * mask[:, :, None]).sum(axis=0) / mask.sum(axis=0)[:, None]
    slopes = T.grad(T.sum(mean**2), [W, U, b])
    m = (np.arange(6)[:, None] < np.array([6, 3, 4, 1, 5])).astype("float64")
    return [x, mask], [h, mean, *slopes], [], [numbers(6, 5, 3), m]


@case
def lstm(theano, T):
    x, mask = T.tensor3("x"), T.dmatrix("mask")
    n = 3
    W, U, b = (shared(theano, *s, seed=i) for i, s in enumerate([(2, 4 * n), (n, 4 * n), (4 * n,)]))

    def part(z, k):
        return z[:, k * n : (k + 1) * n]

    def step(m, x_t, h_, c_):
        z = T.dot(h_, U) + x_t
        i, f, o = (T.nnet.sigmoid(part(z, k)) for k in range(3))
        c = f * c_ + i * T.tanh(part(z, 3))
        c = m[:, None] * c + (1.0 - m)[:, None] * c_
        h = o * T.tanh(c)
        h = m[:, None] * h + (1.0 - m)[:, None] * h_
        return h, c

    below = T.dot(x.reshape((x.shape[0] * x.shape[1], 2)), W).reshape((x.shape[0], x.shape[1], 4 * n)) + b
    zero = T.zeros_like(below[0, :, :n])
    (h, c), updates = theano.scan(
        step, sequences=[mask, below], outputs_info=[zero, zero], name="layers", n_steps=x.shape[0]
    )
    cost = T.sum(h[-1] ** 2) + T.sum(h * 0.1)
    slopes = [T.grad(cost, p) for p in [W, U, b]]
    m = (np.arange(5)[:, None] < np.array([5, 2, 4])).astype("float64")
    return [x, mask], [h, c, *slopes], updates, [numbers(5, 3, 2), m]


@case
def gru(theano, T):
    x, h0 = T.dmatrix("x"), T.dvector("h0")
    Wz, Uz, Wr, Ur, Wh, Uh = (shared(theano, *((3, 4), (4, 4))[i % 2], seed=i) for i in range(6))

    def step(x_t, h):
        z = T.nnet.sigmoid(x_t.dot(Wz) + h.dot(Uz))
        r = T.nnet.sigmoid(x_t.dot(Wr) + h.dot(Ur))
        return (1 - z) * h + z * T.tanh(x_t.dot(Wh) + (r * h).dot(Uh))

    h, _ = theano.scan(step, sequences=x, outputs_info=h0)
    cost = T.sum(h[-1] * h[2])
    return [x, h0], [h, *T.grad(cost, [Wz, Uz, Wr, Ur, Wh, Uh, h0, x])], [], [numbers(6, 3), numbers(4)]


@case
def bidirectional(theano, T):
    x = T.dmatrix("x")
    W, U = shared(theano, 3, 4), shared(theano, 4, 4)
    zero = T.zeros_like(T.dot(x[0], W))

    def step(x_t, h):
        return T.tanh(T.dot(x_t, W) + T.dot(h, U))

    one, _ = theano.scan(step, sequences=x, outputs_info=zero)
    other, _ = theano.scan(step, sequences=x, outputs_info=[zero], go_backwards=True)
    both = T.concatenate([one, other[::-1]], axis=1)
    return [x], [both, *T.grad(T.sum(both**3), [W, U, x])], [], [numbers(5, 3)]


@case
def taps_of_states(theano, T):
    first, w = T.dvector("first"), T.dscalar("w")
    s, _ = theano.scan(
        lambda a, b, w: w * a - b * T.tanh(b),
        outputs_info=dict(initial=first, taps=[-3, -1]),
        non_sequences=w,
        n_steps=6,
    )
    return [first, w], [s, *T.grad(T.sum(s**2), [first, w])], [], [numbers(3), 0.9]


@case
def taps_of_states_in_one_step_less_than_taps(theano, T):
    first = T.dmatrix("first")
    s, _ = theano.scan(lambda a, b: a * 2 + b, outputs_info=[dict(initial=first, taps=[-4, -2])], n_steps=2)
    return [first], [s, T.grad(T.sum(s**2), first)], [], [numbers(4, 2)]


@case
def taps_of_sequences(theano, T):
    x, z, w = T.dvector("x"), T.dvector("z"), T.dscalar("w")

    def step(x0, x1, z_2, z1, y_, w):
        return x0 * x1 + w * z_2 - z1 * y_

    y, _ = theano.scan(
        step,
        sequences=[dict(input=x, taps=[0, 1]), dict(input=z, taps=[-2, 1])],
        outputs_info=T.constant(0.5, dtype="float64"),
        non_sequences=w,
    )
    return [x, z, w], [y, *T.grad(T.sum(y**2), [x, z, w])], [], [numbers(7), numbers(8, seed=3), 1.5]


@case
def taps_of_sequences_backwards(theano, T):
    x = T.dvector("x")
    y, _ = theano.scan(
        lambda a, b, y: a - 0.5 * b + 0.1 * y,
        sequences=dict(input=x, taps=[-1, 1]),
        outputs_info=T.constant(0.5, dtype="float64"),
        go_backwards=True,
    )
    return [x], [y, T.grad(T.sum(y**2), x)], [], [numbers(7)]


@case
def recurrence_with_all_kinds(theano, T):
    u, x0, y0 = T.dmatrix("u"), T.dmatrix("x0"), T.dvector("y0")
    W1, W2, W3, W4 = (shared(theano, *s, seed=i) for i, s in enumerate([(2, 3), (3, 3), (2, 3), (3, 2)]))

    def step(u_4, u_0, x_3, x_1, y_1, W1, W2, W3, W4):
        x = T.tanh(T.dot(x_1, W2) + T.dot(u_0, W1) + T.dot(u_4, W3) + T.dot(y_1, W4.T))
        return [x, T.dot(x_3, W4)]

    (x, y), updates = theano.scan(
        step,
        sequences=dict(input=u, taps=[-4, -0]),
        outputs_info=[dict(initial=x0, taps=[-3, -1]), y0],
        non_sequences=[W1, W2, W3, W4],
        strict=True,
    )
    slopes = T.grad(T.sum(x**2) + T.sum(y**3), [W1, W2, W3, W4, u, x0, y0])
    return [u, x0, y0], [x, y, *slopes], updates, [numbers(9, 2), numbers(3, 3), numbers(2)]


@case
def rows_of_a_matrix(theano, T):
    X, W, b = T.dmatrix("X"), T.dmatrix("W"), T.dvector("b")
    found, _ = theano.scan(lambda v: T.tanh(T.dot(v, W) + b), sequences=X)
    return [X, W, b], [found, *T.grad(T.sum(found**2), [X, W, b])], [], [numbers(4, 3), numbers(3, 2), numbers(2)]


@case
def mapped(theano, T):
    x, y = T.dvector("x"), T.dmatrix("y")
    found, _ = theano.map(lambda a, row, y: a * row.sum() + y[0, 0], sequences=[x, y], non_sequences=[y])
    pair, _ = theano.map(lambda a: [a + 1, a**2], x)
    return [x, y], [found, *pair, T.grad(T.sum(found) + T.sum(pair[1]), y)], [], [numbers(4), numbers(3, 2)]


@case
def reduced(theano, T):
    x = T.dvector("x")
    a, _ = theano.reduce(lambda v, s: s * v + v, x, T.constant(1.0, dtype="float64"))
    b, _ = theano.foldl(lambda v, s: s / 2 + v, x, T.constant(1.0, dtype="float64"))
    c, _ = theano.foldr(lambda v, s: s / 2 + v, x, T.constant(1.0, dtype="float64"))
    d, _ = theano.reduce(lambda v, s, p: (s + v, p * v), x, [T.constant(0.0, dtype="float64")] * 2)
    return [x], [a, b, c, *d, T.grad(a + b * c + d[1], x)], [], [numbers(5)]


@case
def nested(theano, T):
    x, w = T.dmatrix("x"), T.dvector("w")

    def inner(a, s, w):
        return T.tanh(s * w + a)

    def outer(row, s, w):
        h, _ = theano.scan(inner, sequences=row, outputs_info=s, non_sequences=w)
        return h[-1]

    s, _ = theano.scan(outer, sequences=x, outputs_info=T.zeros_like(w), non_sequences=w)
    return [x, w], [s, *T.grad(T.sum(s**2), [x, w])], [], [numbers(4, 3), numbers(2)]


@case
def nested_maps(theano, T):
    x, y = T.dvector("x"), T.dvector("y")
    table, _ = theano.scan(
        lambda a, y: theano.scan(lambda b, a: T.exp(-a * b), sequences=y, non_sequences=a)[0],
        sequences=x,
        non_sequences=y,
    )
    return [x, y], [table, T.grad(T.sum(table**2), x)], [], [numbers(3), numbers(4, seed=1)]


@case
def until_too_large(theano, T):
    top, x = T.dscalar("top"), T.dscalar("x")
    found, _ = theano.scan(
        lambda p, x, top: (p * x, theano.scan_module.until(p * x > top)),
        outputs_info=T.constant(1.0, dtype="float64"),
        non_sequences=[x, top],
        n_steps=1024,
    )
    return [top, x], [found, found[-1], T.grad(found.sum(), x)], [], [45.0, 2.0]


@case
def until_over_a_sequence(theano, T):
    x, w = T.dvector("x"), T.dscalar("w")
    (s, y), _ = theano.scan(
        lambda a, s, w: ([s + w * a, s * a], theano.scan_module.until(s > 2.0)),
        sequences=x,
        outputs_info=[T.constant(0.0, dtype="float64"), None],
        non_sequences=w,
    )
    return [x, w], [s, y], [], [np.arange(9.0), 0.7]


@case
def updates_of_a_counter(theano, T):
    n, x = theano.shared(np.asarray(0, "int64"), "n"), T.dvector("x")
    found, updates = theano.scan(lambda a: (a * n, {n: n + 1}), sequences=x)
    return [x], [found], updates, [numbers(4)]


@case
def updates_alone(theano, T):
    a = theano.shared(np.asarray(1.0), "a")
    _, updates = theano.scan(lambda: [(a, a * 2)], n_steps=10)
    return [], [], updates, []


@case
def updates_of_a_vector_with_gradient(theano, T):
    v, w = theano.shared(numbers(3), "v"), T.dvector("w")
    found, updates = theano.scan(lambda w: (T.sum(v * w), {v: T.tanh(v * w)}), non_sequences=w, n_steps=4)
    return [w], [found, T.grad(T.sum(found**2), w)], updates, [numbers(3, seed=2)]


@case
def jacobian(theano, T):
    x = T.dvector("x")
    y = x**2 * T.exp(x[0])
    J, updates = theano.scan(lambda i, y, x: T.grad(y[i], x), sequences=T.arange(y.shape[0]), non_sequences=[y, x])
    return [x], [J], updates, [numbers(3)]


@case
def hessian(theano, T):
    x, W = T.dvector("x"), shared(theano, 3, 3)
    g = T.grad(T.sum(T.tanh(T.dot(x, W)) ** 2), x)
    H, updates = theano.scan(lambda i, g, x: T.grad(g[i], x), sequences=T.arange(g.shape[0]), non_sequences=[g, x])
    return [x], [H], updates, [numbers(3)]


@case
def jacobian_through_a_loop(theano, T):
    x = T.dvector("x")
    y, _ = theano.scan(lambda a, s: T.tanh(a * s + a), sequences=x, outputs_info=T.constant(0.5, dtype="float64"))
    J, _ = theano.scan(lambda i, y, x: T.grad(y[i], x), sequences=T.arange(y.shape[0]), non_sequences=[y, x])
    return [x], [J], [], [numbers(4)]


def _truncated(theano, T, steps):
    x, h0 = T.dmatrix("x"), T.dvector("h0")
    W, U, b = (shared(theano, *s, seed=i) for i, s in enumerate([(3, 4), (4, 4), (4,)]))
    h, _ = theano.scan(
        lambda x_t, h: T.tanh(T.dot(x_t, W) + T.dot(h, U) + b), sequences=x, outputs_info=h0, truncate_gradient=steps
    )
    slopes = T.grad(T.sum(h**3), [W, U, b, x, h0])
    return [x, h0], [h, *slopes], [], [numbers(6, 3), numbers(4)]


@case
def truncated_after_two(theano, T):
    return _truncated(theano, T, 2)


@case
def truncated_after_one(theano, T):
    return _truncated(theano, T, 1)


@case
def truncated_after_more_than_all(theano, T):
    return _truncated(theano, T, 9)


@case
def in_float32(theano, T):
    x = T.fmatrix("x")
    W, U = shared(theano, 3, 4, dtype="float32"), shared(theano, 4, 4, dtype="float32")
    h, _ = theano.scan(
        lambda x_t, h: T.nnet.sigmoid(T.dot(x_t, W) + T.dot(h, U)),
        sequences=x,
        outputs_info=T.zeros_like(T.dot(x[0], W)),
    )
    return [x], [h, *T.grad(T.sum(h**2), [W, U])], [], [numbers(5, 3, dtype="float32")]


@case
def integers(theano, T):
    x = T.lvector("x")
    s, _ = theano.scan(lambda a, s: T.maximum(a, s), sequences=x, outputs_info=T.constant(-9, dtype="int64"))
    found, _ = theano.scan(lambda a: a % 3, sequences=x)
    return [x], [s, found], [], [np.array([3, 1, 4, 1, 5, 9, 2, 6])]


@case
def embedding_in_the_step(theano, T):
    i = T.lvector("i")
    E, U = shared(theano, 5, 3), shared(theano, 3, 3)
    h, _ = theano.scan(lambda k, h: T.tanh(E[k] + T.dot(h, U)), sequences=i, outputs_info=T.zeros_like(E[0]))
    rows, _ = theano.scan(lambda k: E[k] * 2, sequences=i)
    cost = T.sum(h[-1]) + T.sum(rows**2)
    return [i], [h, rows, *T.grad(cost, [E, U])], [], [np.array([1, 4, 1, 0, 2])]


@case
def columns_by_number(theano, T):
    x, A, B = T.lvector("x"), T.dmatrix("A"), T.dmatrix("B")
    s, _ = theano.scan(
        lambda t, s, x: T.dot(s, A) * B[:, x[t]] + B[x[t], 1:],
        sequences=T.arange(1, x.shape[0]),
        outputs_info=B[:, x[0]],
        non_sequences=x,
    )
    slopes = T.grad(T.sum(s**2), [A, B])
    return [x, A, B], [s, *slopes], [], [np.array([0, 2, 1, 2, 2, 0]), numbers(3, 3), numbers(3, 4, seed=1)]


@case
def softmax_in_the_step(theano, T):
    x, y = T.dmatrix("x"), T.lvector("y")
    W, U, V = (shared(theano, *s, seed=i) for i, s in enumerate([(3, 4), (4, 4), (4, 5)]))

    def step(x_t, h):
        h = T.nnet.sigmoid(T.dot(x_t, W) + T.dot(h, U))
        return [h, T.nnet.softmax(T.dot(h, V))]

    (_, p), _ = theano.scan(step, sequences=x, outputs_info=[T.zeros_like(T.dot(x[0], W)), None], n_steps=x.shape[0])
    P = p[:, 0, :]
    cost = -T.mean(T.log(P)[T.arange(y.shape[0]), y])
    slopes = T.grad(cost, [W, U, V])
    updates = [(w, w - 0.5 * g) for w, g in zip([W, U, V], slopes)]  # noqa: B905
    return [x, y], [p, cost, T.argmax(P, axis=1), *slopes], updates, [numbers(5, 3), np.array([0, 4, 2, 1, 1])]


@case
def softmax_of_the_last_step_only(theano, T):
    x = T.dmatrix("x")
    U, V = shared(theano, 3, 3), shared(theano, 3, 2)

    def step(x_t, h):
        h = T.tanh(x_t + T.dot(h, U))
        return [h, T.nnet.softmax(T.dot(h, V))]

    (_, p), _ = theano.scan(step, sequences=x, outputs_info=[T.zeros_like(x[0]), None])
    cost = -T.log(p[-1][0, 1])
    return [x], [p[-1], *T.grad(cost, [U, V])], [], [numbers(5, 3)]


@case
def weights_used_twice(theano, T):
    x, W = T.tensor3("x"), shared(theano, 3, 3)
    h, _ = theano.scan(
        lambda x_t, h, W: T.tanh(T.dot(x_t, W) + T.dot(h, W.T) + T.dot(W, W)[0]),
        sequences=x,
        outputs_info=T.zeros_like(x[0]),
        non_sequences=W,
    )
    return [x], [T.grad(T.sum(h**2), W)], [], [numbers(4, 2, 3)]


@case
def weights_of_elements(theano, T):
    x, W, s = T.dmatrix("x"), T.dmatrix("W"), T.dscalar("s")
    h, _ = theano.scan(
        lambda x_t, h, W, s: T.tanh((W * h).sum(axis=0) * s + x_t - W[0]),
        sequences=x,
        outputs_info=T.zeros_like(x[0]),
        non_sequences=[W, s],
    )
    return [x, W, s], T.grad(T.sum(h**2), [x, W, s]), [], [numbers(4, 3), numbers(2, 3), 0.8]


@case
def columns(theano, T):
    H0, W = T.dmatrix("H0"), shared(theano, 3, 3)
    H, _ = theano.scan(lambda H: T.tanh(T.dot(W, H)), outputs_info=H0, n_steps=3)
    return [H0], [H[-1], *T.grad(T.sum(H[-1] ** 2), [H0, W])], [], [numbers(3, 2)]


@case
def one_step(theano, T):
    x, h = T.dmatrix("x"), T.dvector("h")
    found, updates = theano.scan(lambda x_t, h: T.tanh(x_t + h), sequences=x, outputs_info=h, n_steps=1)
    return [x, h], [found, T.grad(T.sum(found), h)], updates, [numbers(3, 2), numbers(2)]


@case
def fewer_steps_than_rows(theano, T):
    x, n = T.dvector("x"), T.iscalar("n")
    s, _ = theano.scan(lambda a, s: s * a, sequences=x, outputs_info=T.constant(1.0, dtype="float64"), n_steps=n)
    return [x, n], [s, T.grad(s[-1], x)], [], [numbers(6), 4]


@case
def sequences_of_different_lengths(theano, T):
    x, y = T.dvector("x"), T.dvector("y")
    s, _ = theano.scan(lambda a, b: a * b, sequences=[x, y])
    return [x, y], [s, *T.grad(T.sum(s**2), [x, y])], [], [numbers(6), numbers(4)]


@case
def returned_as_list(theano, T):
    x = T.dvector("x")
    (found,), _ = theano.scan(lambda a: a + 1, sequences=x, return_list=True)
    (other,), _ = theano.scan(lambda a: [a + 2], sequences=x, return_list=True)
    single, _ = theano.scan(lambda a: [a + 3], sequences=x)
    return [x], [found, other, single], [], [numbers(3)]


@case
def second_derivatives(theano, T):
    x, U = T.dmatrix("x"), T.dmatrix("U")
    h, _ = theano.scan(
        lambda x_t, h, U: T.tanh(x_t + T.dot(h, U)), sequences=x, outputs_info=T.zeros_like(x[0]), non_sequences=U
    )
    g = T.grad(T.sum(h[-1] ** 2), U)
    return [x, U], [g, *T.grad(T.sum(g**2), [x, U])], [], [numbers(4, 3), numbers(3, 3)]


@case
def result_used_by_another_loop(theano, T):
    x, w = T.dvector("x"), T.dscalar("w")
    one, _ = theano.scan(lambda a, s, w: s * w + a, sequences=x, outputs_info=T.zeros_like(w), non_sequences=w)
    two, _ = theano.scan(lambda a, s, w: s - w * a, sequences=one[::-1], outputs_info=one[-1], non_sequences=w)
    return [x, w], [one, two, *T.grad(T.sum(two**2), [x, w])], [], [numbers(5), 0.6]


@case
def expressions_outside(theano, T):
    x, w = T.dvector("x"), T.dvector("w")
    total, scale = T.sum(w**2), T.exp(w[0])
    s, _ = theano.scan(lambda a, s: s * total + a * scale, sequences=x, outputs_info=T.constant(0.0, dtype="float64"))
    return [x, w], [s, *T.grad(T.sum(s), [x, w])], [], [numbers(4), numbers(3)]


@case
def chain_of_draws(theano, T):
    from importlib import import_module

    streams = import_module(T.__name__ + ".shared_randomstreams").RandomStreams(17)
    W, v0 = shared(theano, 3, 2), T.dmatrix("v0")

    def step(v):
        h = streams.binomial(size=(4, 2), n=1, p=T.nnet.sigmoid(T.dot(v, W)), dtype="float64")
        mean = T.nnet.sigmoid(T.dot(h, W.T))
        return mean, streams.binomial(size=mean.shape, n=1, p=mean, dtype="float64")

    (means, draws), updates = theano.scan(step, outputs_info=[None, v0], n_steps=5)
    return [v0], [means, draws], updates, [(numbers(4, 3) > 0).astype("float64")]


@case
def draw_from_outside(theano, T):
    from importlib import import_module

    streams = import_module(T.__name__ + ".shared_randomstreams").RandomStreams(5)
    u = streams.uniform(size=(2,))
    anew, more = theano.scan(lambda: u, n_steps=3)
    same, none = theano.scan(lambda u: u, non_sequences=u, n_steps=3)
    return [], [anew, same], list(more.items()) + list(none.items()), []


def run(theano, T, name, calls=CALLS):
    """Return the outputs of all calls, one if they are alike, and the values of updated variables, as nested lists."""
    inputs, outputs, updates, values = CASES[name](theano, T)
    updates = list(updates.items()) if isinstance(updates, dict) else updates
    function = theano.function(inputs, outputs, updates=updates)
    found = [[np.asarray(value).tolist() for value in function(*values)] for _ in range(calls)]
    found = found[:1] if all(call == found[0] for call in found) else found
    plain = [variable for variable, _ in updates if isinstance(variable.get_value(), (np.ndarray, np.generic))]
    plain = [variable for variable in plain if variable.get_value().dtype.kind in "biuf"]
    return [found, [np.asarray(variable.get_value()).tolist() for variable in plain]]


if __name__ == "__main__":
    import theano
    from theano import tensor as T

    theano.config.floatX = "float64"
    import theano.tensor.shared_randomstreams

    results = {name: run(theano, T, name) for name in CASES}
    FILE.write_text(json.dumps(results, separators=(",", ":")).replace('],"', '],\n"') + "\n")
