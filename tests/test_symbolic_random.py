"""Random streams of the notation, against Theano's own numbers; see golden/random."""

import copy
import importlib.util
import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn.symbolic import streams
from fastnn.symbolic.gradient import NullTypeGradError
from fastnn.symbolic.sandbox.rng_mrg import MRG_RandomStreams, guess_n_streams
from fastnn.symbolic.tensor import raw_random
from fastnn.symbolic.tensor.shared_randomstreams import RandomStreams

FOLDER = Path(__file__).parent / "golden" / "random"
RESULTS = json.loads((FOLDER / "results.json").read_text())
specification = importlib.util.spec_from_file_location("random_cases", FOLDER / "cases.py")
cases = importlib.util.module_from_spec(specification)
specification.loader.exec_module(cases)

BOTH = {"RandomStreams": RandomStreams, "MRG_RandomStreams": MRG_RandomStreams}

#: Theano's log, sine and cosine are another library's, and it may round once where we round twice.
TOLERANCES = {"float64": 1e-12, "float32": 2e-6}


@pytest.fixture(autouse=True)
def restored_floatX():
    before = theano.config.floatX
    yield
    theano.config.floatX = before


def draws(f, n):
    return np.array([f() for _ in range(n)])


@pytest.mark.parametrize("case", RESULTS, ids=lambda case: " ".join(map(str, case[0])))
def test_numbers_are_theanos(case):
    name, expected = case
    found = cases.run(name, theano, BOTH[name[0]])
    assert len(found) == len(expected)
    for array, (dtype, shape, elements) in zip(found, expected, strict=True):
        assert (array.dtype.name, list(array.shape)) == (dtype, shape)
        if isinstance(elements, int):
            assert zlib.crc32(array.tobytes()) == elements
        elif "normal" in name[3] or ", -1, 2" in name[3] or not name[3]:
            tolerance = TOLERANCES.get(dtype, 0)
            np.testing.assert_allclose(array.ravel(), elements, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(array.ravel(), np.array(elements, dtype))


@pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)
def test_draws_follow_their_states(make):
    s = make(5)
    u, v = s.uniform((3,)), s.uniform((3,))
    f = theano.function([], [u, u + 0, v])
    a, b = f(), f()
    np.testing.assert_array_equal(a[0], a[1])  # one draw
    assert not np.array_equal(a[0], a[2])
    assert not np.array_equal(a[0], b[0])
    # Reading changes nothing, and the next draws are the same ones whoever makes them.
    reading = theano.function([], u, no_default_updates=True)
    partly = theano.function([], [u, v], no_default_updates=[s.state_updates[0][0]])
    first = reading()
    np.testing.assert_array_equal(reading(), first)
    (same, w), (again, x) = partly(), partly()
    np.testing.assert_array_equal([same, again], [first, first])
    assert not np.array_equal(w, x)
    np.testing.assert_array_equal(f()[0], first)
    # Updates may also be given by hand.
    by_hand = theano.function([], u, updates=[pair[:2] for pair in s.updates()])
    assert not np.array_equal(by_hand(), by_hand())


@pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)
def test_seed_starts_again(make):
    s = make(5)
    f = theano.function([], [s.uniform((4,)), s.normal((3,)), s.binomial((5,))])
    first = f()
    f()
    s.seed()
    for again, value in zip(f(), first, strict=True):
        np.testing.assert_array_equal(again, value)
    s.seed(6)
    other = f()
    s.seed(6)
    np.testing.assert_array_equal(f()[0], other[0])
    assert not np.array_equal(other[0], first[0])


@pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))], ids=["copy", "pickle"])
def test_copies_have_states_of_their_own(make, copied):
    s, x = make(1), T.dmatrix("x")
    f = theano.function([x], [s.normal((3,)), s.binomial(x.shape)])
    for _ in range(3):
        f(np.ones((2, 3)))
    g = copied(f)
    expected = [g(np.ones((2, 3))) for _ in range(4)]
    for wanted in expected:
        for array, value in zip(f(np.ones((2, 3))), wanted, strict=True):
            np.testing.assert_array_equal(array, value)


@pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)
def test_a_failed_call_changes_no_state(make):
    s, x = make(1), T.dvector("x")
    f = theano.function([x], [s.uniform((3,)) + x, s.normal((3,))])
    for _ in range(6):  # also by a plan
        twin = copy.deepcopy(f)
        with pytest.raises(ValueError, match="cannot be computed from shapes"):
            f(np.zeros(2))
        for array, value in zip(f(np.zeros(3)), twin(np.zeros(3)), strict=True):
            np.testing.assert_array_equal(array, value)


def test_a_failed_draw_leaves_no_normal_number():
    s, p, std = RandomStreams(3), T.dvector("p"), T.dscalar("std")
    failing = theano.function([p], s.multinomial((2,), 3, p))
    normal = theano.function([std], s.normal((3,), std=std))
    twin = copy.deepcopy(normal)
    normal(1.0), twin(1.0)
    for _ in range(3):
        with pytest.raises(ValueError, match="scale < 0"):
            normal(-1.0)
        with pytest.raises(ValueError, match="probabilities must add up to 1"):
            failing([0.5, 0.9])
        np.testing.assert_array_equal(normal(1.0), twin(1.0))


def test_states_are_numpys():
    s = RandomStreams(7)
    u, n = s.uniform((5,)), s.normal((3,))
    f, g = theano.function([], u), theano.function([], n)
    generator = np.random.RandomState(3)
    generator.standard_normal()  # another one is ready
    n.rng.set_value(generator)
    np.testing.assert_array_equal(draws(g, 5), generator.normal(size=(5, 3)))
    np.testing.assert_array_equal(n.rng.get_value().normal(size=4), generator.normal(size=4))
    borrowed = u.rng.get_value(borrow=True)
    borrowed.seed(8)
    u.rng.set_value(borrowed, borrow=True)
    np.testing.assert_array_equal(f(), np.random.RandomState(8).uniform(size=5))
    s[u.rng] = np.random.RandomState(9)
    np.testing.assert_array_equal(s[u.rng].uniform(size=5), np.random.RandomState(9).uniform(size=5))
    np.testing.assert_array_equal(f(), np.random.RandomState(9).uniform(size=5))
    for other in (3, np.random.default_rng(1), np.random.RandomState(np.random.PCG64(1))):
        with pytest.raises(TypeError, match=r"must be a numpy\.random\.RandomState with MT19937"):
            u.rng.set_value(other)
    np.testing.assert_array_equal(f(), np.random.RandomState(9).uniform(size=(2, 5))[1])


def test_states_without_the_layout_of_numpys_memory(monkeypatch):
    s = RandomStreams(7)
    f = theano.function([], [s.normal((3,)), s.uniform((2,))])
    twin = copy.deepcopy(f)
    expected = [f() for _ in range(3)]
    monkeypatch.setattr("fastnn.symbolic.states._own._memory", None)
    for values in expected:
        for array, value in zip(twin(), values, strict=True):
            np.testing.assert_array_equal(array, value)


def test_raw_draws():
    state = theano.shared(np.random.RandomState(2), "state")
    following, u = raw_random.uniform(state, (2, 3), dtype="float32")
    last, n = raw_random.normal(following, size=(2,))
    f = theano.function([], [u, n], updates=[(state, last)])
    generator = np.random.RandomState(2)
    for _ in range(4):
        u_now, n_now = f()
        np.testing.assert_array_equal(u_now, generator.uniform(size=(2, 3)).astype("float32"))
        np.testing.assert_array_equal(n_now, generator.normal(size=2))


@pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)
def test_gradients_stop_at_random_numbers(make):
    s, w = make(1), theano.shared(np.array([0.3, 0.5, 0.7]), "w")
    size = theano.function([], T.grad(T.sum(s.uniform(w.shape) * w), w))
    assert size().shape == (3,)
    for cost in (
        T.sum(s.uniform(w.shape, low=w)),
        T.sum(s.normal(w.shape, w)),
        T.sum(T.cast(s.binomial(w.shape, 1, w), "float64") * w),
        T.sum(s.multinomial(pvals=w.dimshuffle("x", 0)) * w),
    ):
        with pytest.raises(NullTypeGradError, match="depends on w through the parameters of random numbers"):
            T.grad(cost, w)
    mask = s.binomial(w.shape, 1, w, dtype="float64")
    gradient = theano.function([], [T.grad(T.sum(mask * w**2), w, consider_constant=[mask]), 2 * mask * w])
    np.testing.assert_array_equal(*gradient())


@pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)
def test_sizes_that_inputs_decide(make):
    s, n, x = make(1), T.iscalar("n"), T.dmatrix("x")
    f = theano.function([n, x], s.uniform((n, x.shape[0])) * 2)
    for rows in (3, 3, 3, 2, 3, 3, 1):
        for columns in (4, 2, 4, 4):
            assert f(rows, np.zeros((columns, 1))).shape == (rows, columns)


@pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)
def test_sizes_that_are_refused(make):
    s, v = make(1), T.lvector("v")
    with pytest.raises(ValueError, match="number of dimensions is not known"):
        s.uniform(v)
    with pytest.raises(ValueError, match="ndim is 3, but the size has 2 lengths"):
        s.uniform((2, 2), ndim=3)
    with pytest.raises(TypeError, match="must be a list of lengths or a vector of integers"):
        s.uniform(T.dvector("x"), ndim=1)
    with pytest.raises(TypeError, match="must be an integer"):
        s.uniform((2.5,))
    f = theano.function([v], s.uniform(v, ndim=2))
    assert f([2, 3]).shape == (2, 3)
    with pytest.raises(ValueError, match=r"2 are expected|must have 2 lengths"):
        f([2, 3, 4])
    assert f([3, 2]).shape == (3, 2)


def test_parameters_that_are_refused():
    s, m = RandomStreams(1), MRG_RandomStreams(1)
    with pytest.raises(TypeError, match="the size is needed"):
        s.choice(a=3)
    with pytest.raises(ValueError, match="a parameter has 2 dimensions"):
        s.uniform((3,), low=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="along an axis of the parameters"):
        s.uniform((-1, 3), low=np.zeros(3))
    with pytest.raises(ValueError, match="must be positive"):
        m.uniform((0, 3))
    with pytest.raises(NotImplementedError, match="one trial"):
        m.binomial((3,), n=2)
    with pytest.raises(NotImplementedError, match="without replacement"):
        m.choice(2, p=[[0.5, 0.5]])
    with pytest.raises(ValueError, match="cannot be drawn without replacement"):
        theano.function([], m.choice(3, replace=False, p=[[0.5, 0.5]]))()
    for seed in (0, -1, 2**31, (0, 0, 0, 1, 1, 1), (1, 1, 1, 2**31 - 21069, 1, 1)):
        with pytest.raises(ValueError, match="of the seed"):
            MRG_RandomStreams(seed)
    for seed in (1.5, (1, 2, 3)):
        with pytest.raises(TypeError, match="the seed must be"):
            MRG_RandomStreams(seed)
    with pytest.raises(ValueError, match="at most 2147483647 numbers"):
        theano.function([], m.uniform((2**20, 2**12)))()


def test_numbers_of_streams():
    sizes = (), (1,), (6,), (7,), (40, 31), (1000, 1000)
    assert [guess_n_streams(size) for size in sizes] == [1, 1, 6, 1, 206, 15360]
    assert guess_n_streams((np.int64(2), 3)) == guess_n_streams(T.lvector("v")) == 15360
    s = MRG_RandomStreams(1)
    s.uniform((40, 31)), s.normal((3,)), s.uniform((4,), nstreams=2)
    assert [len(state.get_value()) for state, *_ in s.updates()] == [206, 15360, 2]


def test_streams_are_as_far_apart_as_published():
    # The matrices in L'Ecuyer's and Simard's package SSJ, class MRG31k3p.
    A1, A2 = streams._jump(72)
    assert A1[0].tolist() == [1516919229, 758510237, 499121365]
    assert A2[2].tolist() == [2002613992, 1639496704, 1407477216]
    A1, A2 = streams._jump(134)
    assert A1[1].tolist() == [828554832, 1702500920, 1512419905]
    assert A2[1].tolist() == [1241679051, 1431130166, 1464208080]


@pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)
def test_moments(make):
    s = make(11)
    n = 20_000
    f = theano.function([], [s.uniform((n,), 2, 5), s.normal((n,), 1, 2), s.binomial((n,), 1, 0.3)])
    uniform, normal, binomial = f()
    assert stats.kstest(uniform, stats.uniform(2, 3).cdf).pvalue > 1e-3
    assert stats.kstest(normal, stats.norm(1, 2).cdf).pvalue > 1e-3
    assert stats.binomtest(int(binomial.sum()), n, 0.3).pvalue > 1e-3
    if make is MRG_RandomStreams:
        truncated = theano.function([], s.truncated_normal((n,), 1, 2))()
        limit = 2 / 0.87962566103423978
        assert stats.kstest(truncated, stats.truncnorm(-2, 2, 1, limit).cdf).pvalue > 1e-3


def test_threads_do_not_change_the_numbers(monkeypatch):
    f = theano.function([], MRG_RandomStreams(3).uniform((300, 301), dtype="float32"))
    twin = copy.deepcopy(f)
    several = [f() for _ in range(2)]
    monkeypatch.setattr("fastnn.symbolic.ops.random.LARGEST_ALONE", 10**9)
    np.testing.assert_array_equal([twin() for _ in range(2)], several)
    assert np.min(several) > 0
    assert np.max(several) < 1
