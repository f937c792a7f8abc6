"""Convolution and pooling in Theano's notation, and their kernels: against Theano, SciPy and central differences."""

import inspect
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pairs import parametrize_pairs
from scipy import signal as scipy_signal

import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn import reference
from fastnn.kernels import images
from fastnn.symbolic import ops
from fastnn.symbolic.ops import dots
from fastnn.symbolic.products import kernel_product
from fastnn.symbolic.tensor.nnet import conv
from fastnn.symbolic.tensor.signal import conv as signal
from fastnn.symbolic.tensor.signal import downsample, pool

#: Cases that Theano 1.0.5 was asked, too.
golden = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "golden" / "notation" / "images.py")))
MODULES = {"theano": theano, "T": T, "conv": conv, "pool": pool, "signal": signal}

KERNELS = {name: kernel for name, kernel in vars(images).items() if name.endswith(("images", "_weight", "_input"))}
DTYPES = ("float32", "float64")


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_gradients_are_theanos(dtype):
    stored, found = json.loads(golden.FILE.read_text()), golden.results(MODULES, dtype)
    assert list(found) == list(stored)
    tolerance = {"float32": 3e-6, "float64": 1e-11}[dtype]
    for text, expected in stored.items():
        for ours, (shape, numbers) in zip(found[text], expected, strict=False):  # Theano lacks some gradients
            assert (ours.dtype, list(ours.shape)) == (dtype, shape), text
            np.testing.assert_allclose(ours.ravel(), numbers, tolerance, tolerance, err_msg=text)


def test_every_kernel_has_a_twin_with_its_signature():
    assert len(KERNELS) == 7
    for name, kernel in KERNELS.items():
        ours = inspect.signature(kernel).parameters.values()
        twins = inspect.signature(getattr(reference, name)).parameters.values()
        assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in twins], name


def same_as_twin(name, inputs, output, tolerance):
    """Call a kernel on one thread and on three, and its twin; return the twin's output."""
    expected, *others = (np.full_like(output, np.nan) for _ in range(3))
    getattr(reference, name)(*inputs, expected)
    for n_threads, found in zip((1, 3), others, strict=True):
        assert KERNELS[name](*inputs, found, n_threads) is None
        np.testing.assert_allclose(found, expected, tolerance, tolerance * max(1, np.abs(expected).max(initial=0)))
    assert others[0].tobytes() == others[1].tobytes()
    return expected


@parametrize_pairs(
    {
        "dtype": DTYPES,
        "n": [1, 3, 10, 16, 37],
        "shape": [(1, 1), (5, 8), (7, 4), (16, 17), (11, 5)],
        "channels": [1, 3],
        "filters": [1, 5],
        "size": [(1, 1), (2, 3), (4, 4)],
        "stride": [(1, 1), (2, 1), (3, 2)],
        "padding": [(0, 0, 0, 0), (3, 3, 3, 3), (1, 0, 2, 3)],
    }
)
def test_kernels_agree_with_their_twins(dtype, rng, n, shape, channels, filters, size, stride, padding):
    above, left, below, right = padding
    whole = shape[0] + above + below, shape[1] + left + right
    if any(k > m for k, m in zip(size, whole, strict=True)):
        pytest.skip("no window fits")
    positions = [(m - k) // s + 1 for m, k, s in zip(whole, size, stride, strict=True)]
    X, W, dZ = (
        rng.standard_normal(each).astype(dtype)
        for each in ((n, channels, *shape), (*size, channels, filters), (n, filters, *positions))
    )
    how, tolerance = (padding, (*size, *stride)), {"float32": 2e-5, "float64": 1e-13}[dtype]
    same_as_twin("convolve_images", (X, W, *how), dZ, tolerance)
    same_as_twin("backprop_convolve_images_weight", (X, dZ, *how), W, 10 * tolerance)
    same_as_twin("backprop_convolve_images_input", (dZ, W, *how), X, tolerance)

    if any(around >= k for around, k in zip(padding, (*size, *size), strict=True)):
        return  # a window may see no number
    planes, dY = np.round(2 * X[:, :1]), np.ascontiguousarray(dZ[:, :1])  # many are equal
    Y = same_as_twin("max_pool_images", (planes, *how), dY, 0)
    same_as_twin("backprop_max_pool_images", (planes, Y, dY, *how), planes, tolerance)
    shares = rng.random(positions).astype(dtype)
    same_as_twin("sum_pool_images", (planes, shares, *how), dY, tolerance)
    same_as_twin("backprop_sum_pool_images", (dY, shares, *how), planes, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bands_of_large_images(dtype, rng):
    # A band of rows at a time has to fit into the cache.
    X, W = rng.standard_normal((2, 3, 70, 90)).astype(dtype), rng.standard_normal((3, 5, 20, 4)).astype(dtype)
    dZ = rng.standard_normal((2, 4, 68, 86)).astype(dtype)
    how, tolerance = ((0, 0, 0, 0), (3, 5, 1, 1)), {"float32": 2e-5, "float64": 1e-13}[dtype]
    W = np.ascontiguousarray(W[:, :, :3])
    same_as_twin("convolve_images", (X, W, *how), dZ, tolerance)
    same_as_twin("backprop_convolve_images_weight", (X, dZ, *how), W, 100 * tolerance)
    same_as_twin("max_pool_images", (X[:, :1].copy(), *how), dZ[:, :1].copy(), 0)


def test_a_gradient_of_pooling_may_go_where_its_images_were(rng):
    X, dY = np.round(rng.standard_normal((20, 1, 6, 6))), rng.standard_normal((20, 1, 3, 3))
    Y, expected = np.empty_like(dY), np.empty_like(X)
    how = (0, 0, 0, 0), (2, 2, 2, 2)
    reference.max_pool_images(X, *how, Y)
    reference.backprop_max_pool_images(X, Y, dY, *how, expected)
    images.backprop_max_pool_images(X, Y, dY, *how, X, 2)
    np.testing.assert_array_equal(X, expected)


@pytest.mark.parametrize("border_mode", ["valid", "full"])
def test_each_image_is_convolved_as_by_scipy(rng, border_mode):
    X, W = rng.standard_normal((3, 7, 9)), rng.standard_normal((4, 3, 2))
    found = signal.conv2d(theano.shared(X), theano.shared(W), border_mode=border_mode).eval()
    for x, Z in zip(X, found, strict=True):
        for w, z in zip(W, Z, strict=True):
            np.testing.assert_allclose(z, scipy_signal.convolve2d(x, w, border_mode), 1e-13, 1e-13)


def test_gradients_of_gradients_of_convolutions(rng):
    x, w = (theano.shared(rng.standard_normal(shape)) for shape in ((2, 2, 5, 4), (3, 2, 2, 3)))
    inner = T.sum(T.nnet.conv2d(x, w, border_mode="half", subsample=(2, 1)) ** 3)
    cost = sum(T.sum(gradient**2) for gradient in T.grad(inner, [x, w]))
    compute = theano.function([], [cost, *T.grad(cost, [x, w])])
    found = compute()
    for variable, gradient in zip((x, w), found[1:], strict=True):
        value = variable.get_value()
        direction, step = rng.standard_normal(value.shape), 1e-6
        ends = []
        for sign in (1, -1):
            variable.set_value(value + sign * step * direction)
            ends.append(compute()[0])
        variable.set_value(value)
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), np.sum(gradient * direction), 1e-6)


def test_a_plan_gives_what_the_first_call_gave(rng):
    # The gradient of pooling overwrites the pooled images.
    x = T.tensor4("x") if hasattr(T, "tensor4") else theano.graph.Type(np.dtype("float64"), 4)("x")
    w, b = theano.shared(rng.standard_normal((3, 1, 3, 3)), "w"), theano.shared(rng.standard_normal(3), "b")
    Y = T.tanh(pool.pool_2d(T.nnet.conv2d(x, w), (2, 2), ignore_border=True) + b.dimshuffle("x", 0, "x", "x"))
    cost = T.mean(Y**2)
    compute = theano.function([x], [cost, *T.grad(cost, [w, b])])
    value = rng.standard_normal((11, 1, 9, 8))
    first = compute(value)
    for _ in range(20):
        for one, other in zip(first, compute(value), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_beside_convolutions_run_on_the_kernels_threads(dtype, rng, monkeypatch):
    shapes = []
    monkeypatch.setattr(dots, "kernel_product", lambda A, B, out: shapes.append(out.shape) or kernel_product(A, B, out))
    x = theano.shared(rng.standard_normal((60, 1, 10, 10)).astype(dtype), "x")
    w = theano.shared(rng.standard_normal((10, 1, 3, 3)).astype(dtype), "w")
    v = theano.shared(rng.standard_normal((640, 50)).astype(dtype), "v")
    rows = T.nnet.conv2d(x, w).flatten(2)
    Y = T.dot(rows, v)
    compute = theano.function([], [Y, *T.grad(T.sum(Y**2) / 2, [v, rows])])
    for _ in range(3):
        found = compute()
    R = rows.eval().astype(float)
    expected = R @ v.get_value(), R.T @ (R @ v.get_value()), R @ v.get_value() @ v.get_value().T
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, *{"float32": (1e-4, 2e-2), "float64": (1e-12, 1e-10)}[dtype])
    assert set(shapes) == {(60, 50), (640, 50), (60, 640)}


@pytest.mark.parametrize("mode", ops.MODES)
def test_integers_are_convolved_and_pooled(mode):
    x = theano.shared(np.arange(32).reshape(1, 2, 4, 4))
    found = pool.pool_2d(T.nnet.conv2d(x, np.ones((1, 2, 2, 2), int)), (2, 2), ignore_border=False, mode=mode)
    expected = pool.pool_2d(T.nnet.conv2d(T.cast(x, "float64"), np.ones((1, 2, 2, 2))), (2, 2), False, mode=mode)
    assert found.dtype == "int64"
    np.testing.assert_array_equal(found.eval(), expected.eval().astype(int))


def test_old_names_warn_as_in_theano(rng):
    x, w = theano.shared(rng.standard_normal((2, 1, 5, 5))), theano.shared(rng.standard_normal((1, 1, 2, 2)))
    with pytest.warns(UserWarning, match="ignore_border"):
        found = downsample.max_pool_2d(x, (2, 2))
    np.testing.assert_array_equal(found.eval(), pool.pool_2d(x, (2, 2), ignore_border=False).eval())
    found = downsample.max_pool_2d(input=x, ds=(2, 2), ignore_border=True, st=(1, 1))
    np.testing.assert_array_equal(found.eval(), pool.pool_2d(x, (2, 2), True, (1, 1)).eval())
    for old, new, value in (("ds", "ws", (2, 2)), ("st", "stride", (1, 2)), ("padding", "pad", (1, 1))):
        window = {} if old == "ds" else {"ws": (2, 2)}
        with pytest.warns(UserWarning, match=f"{old} is now called {new}"):
            pool.pool_2d(x, **window, ignore_border=True, **{old: value})
        with pytest.raises(ValueError, match=f"{new} and {old}, its old name, cannot be given both"):
            pool.pool_2d(x, ignore_border=True, **window, **{old: value, new: value})
    with pytest.warns(UserWarning, match="old name"):
        conv.conv2d(x, w)
    with pytest.warns(UserWarning, match="image_shape is now called input_shape"):
        T.nnet.conv2d(x, w, image_shape=(2, 1, 5, 5))
    with pytest.warns(UserWarning, match="conv2d ignores version"):
        T.nnet.conv2d(x, w, version=1)


def test_what_does_not_fit_raises(rng):
    x, w = theano.shared(rng.standard_normal((2, 3, 5, 5))), theano.shared(rng.standard_normal((4, 2, 2, 2)))
    with pytest.raises(ValueError, match="the images have 3 channels, but the filters are for 2"):
        T.nnet.conv2d(x, w).eval()
    with pytest.raises(
        ValueError, match="as many rows and columns as the images, 5 x 5 with what lies around them, not 6"
    ):
        T.nnet.conv2d(x, np.ones((1, 3, 6, 2))).eval()
    with pytest.raises(TypeError, match="four dimensions, not float64 matrix"):
        T.nnet.conv2d(T.dmatrix(), w)
    with pytest.raises(ValueError, match="border_mode must be one of"):
        T.nnet.conv2d(x, w, border_mode="same")
    with pytest.raises(ValueError, match="subsample must be at least 1 and at most 2147483647, not 0"):
        T.nnet.conv2d(x, w, subsample=(0, 1))
    with pytest.raises(NotImplementedError, match="unshared"):
        T.nnet.conv2d(x, w, unshared=True)
    with pytest.raises(TypeError, match="ws must be two numbers, not the expression"):
        pool.pool_2d(x, T.ivector(), ignore_border=True)
    with pytest.raises(NotImplementedError, match="pad needs ignore_border=True"):
        pool.pool_2d(x, (2, 2), ignore_border=False, pad=(1, 1))
    with pytest.raises(NotImplementedError, match="pad must be smaller than a window of 2 x 2"):
        pool.pool_2d(x, (2, 2), ignore_border=True, pad=(2, 1))
    with pytest.raises(ValueError, match="mode must be one of"):
        pool.pool_2d(x, (2, 2), ignore_border=True, mode="mean")
    y = T.sum(T.grad(T.sum(pool.pool_2d(x, (2, 2), ignore_border=True)), x) ** 2)
    with pytest.raises(NotImplementedError, match="the gradient of a max-pooling has no gradient"):
        T.grad(y, x)
