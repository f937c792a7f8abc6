"""Convolution and pooling of images in lanes: each kernel against its NumPy twin, SciPy and central differences."""

import inspect
import itertools

import numpy as np
import pytest
from pairs import parametrize_pairs
from scipy import signal

from fastnn import reference
from fastnn.kernels import affine, convolution, pooling
from fastnn.layers import AveragePool2D, MaxPool2D

KERNELS = {
    name: kernel
    for module in (convolution, pooling)
    for name, kernel in vars(module).items()
    if type(kernel).__name__ in ("cython_function_or_method", "fused_cython_function")
}
DTYPES = ("float32", "float64")
WINDOWS = {
    "dtype": DTYPES,
    "size": [(1, 1), (2, 3), (3, 3), (4, 1), (5, 5), (7, 7), (9, 9)],
    "stride": [(1, 1), (2, 1), (1, 3), (2, 2)],
    "positions": [(1, 1), (1, 4), (3, 5), (7, 6)],
    "channels": [1, 3, 6, 16, 20],
}


def lanes_of(dtype):
    return max(1, affine.REGISTER_BYTES // np.dtype(dtype).itemsize)


def draw(rng, *shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def draw_images(rng, positions, size, stride, channels, dtype):
    """Draw maps with the given positions of a window, and rows and columns that fill none."""
    rest = [int(rng.integers(step)) for step in stride]
    height, width = (s * (n - 1) + k + r for n, k, s, r in zip(positions, size, stride, rest, strict=True))
    return draw(rng, height, width, channels, lanes_of(dtype), dtype=dtype)


def call_both(name, inputs, outputs):
    """Run a kernel and its twin on copies of the outputs, of which memory before and after must stay NaN."""
    found = []
    for function in (KERNELS[name], getattr(reference, name)):
        guarded = [
            np.full(a.size + 64, np.nan, a.dtype) if a.dtype.kind == "f" else np.zeros(a.size + 64, a.dtype)
            for a in outputs
        ]
        own = [g[32:-32].reshape(a.shape) for g, a in zip(guarded, outputs, strict=True)]
        for copy, output in zip(own, outputs, strict=True):
            copy[...] = output
        assert function(*inputs(own)) is None
        for g in guarded:
            edges = np.concatenate([g[:32], g[-32:]])
            assert np.isnan(edges).all() if g.dtype.kind == "f" else not edges.any()
        found.append(own)
    return found


def test_every_kernel_has_a_twin_with_its_signature():
    assert len(KERNELS) == 10
    for name, kernel in KERNELS.items():
        ours = inspect.signature(kernel).parameters.values()
        twins = inspect.signature(getattr(reference, name)).parameters.values()
        assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in twins], name


@parametrize_pairs(WINDOWS | {"filters": [1, 2, 5, 6, 16, 50], "part": [False, True]})
def test_convolution(dtype, assert_close, rng, size, stride, positions, channels, filters, part):
    X = draw_images(rng, positions, size, stride, channels, dtype)
    W, b = draw(rng, *size, channels, filters, dtype=dtype), draw(rng, filters, dtype=dtype)
    Z = draw(rng, *positions, filters, X.shape[-1], dtype=dtype)
    window, rows = (
        (*size, *stride),
        (positions[0] // 3, positions[0] - positions[0] // 2) if part else (0, positions[0]),
    )

    # Sums of size * channels terms, of filters, and of positions * lanes: more of them, more roundings.
    def roundings(n):
        return max(4, n**0.5)

    (ours,), (expected,) = call_both("convolution", lambda o: (X, W, b, window, *o, *rows), [Z])
    assert_close(ours, expected, roundings(W[..., 0].size))
    (ours,), (expected,) = call_both("backprop_convolution_input", lambda o: (Z, W, window, *o, *rows), [X])
    assert_close(ours, expected, roundings(filters))
    for alpha, beta in ((1.0, 0.0), (-0.5, 2.0)):
        scale = (*rows, alpha, beta)
        (ours,), (expected,) = call_both("backprop_convolution_weight", lambda o, s=scale: (X, Z, window, *o, *s), [W])
        assert_close(ours, expected, roundings(Z[:, :, 0].size))
        (ours,), (expected,) = call_both("backprop_convolution_bias", lambda o, s=scale: (Z, *o, *s), [b])
        assert_close(ours, expected, roundings(Z[:, :, 0].size))


@parametrize_pairs(WINDOWS)
def test_convolution_is_what_scipy_computes(dtype, assert_close, rng, size, stride, positions, channels):
    X = draw_images(rng, positions, size, stride, channels, dtype)
    W, b = draw(rng, *size, channels, 4, dtype=dtype), draw(rng, 4, dtype=dtype)
    Z = np.empty((*positions, 4, X.shape[-1]), dtype)
    convolution.convolution(X, W, b, (*size, *stride), Z, 0, positions[0])
    for lane, filter in itertools.product((0, X.shape[-1] - 1), range(4)):
        found = signal.correlate(X[..., lane].astype(float), W[..., filter].astype(float), "valid", "direct")[..., 0]
        found = found[:: stride[0], :: stride[1]][: positions[0], : positions[1]] + b[filter]
        assert_close(Z[:, :, filter, lane], found, max(4, W[..., 0].size ** 0.5))


@parametrize_pairs(WINDOWS | {"filters": [1, 3, 16, 20]})
def test_gradients_agree_with_central_differences(dtype, rng, size, stride, positions, channels, filters):
    window = (*size, *stride)
    X = draw_images(rng, positions, size, stride, channels, dtype)
    W, b = draw(rng, *size, channels, filters, dtype=dtype), draw(rng, filters, dtype=dtype)
    dZ = draw(rng, *positions, filters, X.shape[-1], dtype=dtype)

    def objective():
        Z = np.empty_like(dZ)
        convolution.convolution(X, W, b, window, Z, 0, positions[0])
        return (Z.astype(float) * dZ).sum()

    dX, dW, db = np.zeros_like(X), np.empty_like(W), np.empty_like(b)
    convolution.backprop_convolution_input(dZ, W, window, dX, 0, positions[0])
    convolution.backprop_convolution_weight(X, dZ, window, dW, 0, positions[0])
    convolution.backprop_convolution_bias(dZ, db, 0, positions[0])
    for array, gradient in ((X, dX), (W, dW), (b, db)):
        # It is linear, so the step may be large; and all numbers of an array may move at once.
        before, step = array.copy(), draw(rng, *array.shape, dtype=dtype)
        array += step
        difference = objective()
        array[...] = before - step
        difference -= objective()
        array[...] = before
        slope = 2 * (gradient.astype(float) * step).sum()
        scale = dZ.size**0.5 * W[..., 0].size  # of the terms
        assert slope == pytest.approx(difference, abs=30 * float(np.finfo(dtype).eps) * scale)


def test_gradients_ignore_what_stood_in_the_output_where_beta_is_0(dtype):
    X, dZ = np.ones((3, 3, 2, lanes_of(dtype)), dtype), np.ones((2, 2, 5, lanes_of(dtype)), dtype)
    dW, db = np.full((2, 2, 2, 5), np.nan, dtype), np.full(5, np.nan, dtype)
    convolution.backprop_convolution_weight(X, dZ, (2, 2, 1, 1), dW, 0, 2)
    convolution.backprop_convolution_bias(dZ, db, 0, 2)
    np.testing.assert_array_equal(dW, 4 * lanes_of(dtype))
    np.testing.assert_array_equal(db, 4 * lanes_of(dtype))


def test_convolution_of_no_rows(dtype):
    X, dZ = np.ones((3, 3, 2, lanes_of(dtype)), dtype), np.ones((2, 2, 5, lanes_of(dtype)), dtype)
    W, b, window = np.ones((2, 2, 2, 5), dtype), np.ones(5, dtype), (2, 2, 1, 1)
    Z, dX = np.zeros_like(dZ), np.zeros_like(X)
    convolution.convolution(X, W, b, window, Z, 1, 1)
    convolution.backprop_convolution_input(dZ, W, window, dX, 1, 1)
    assert not Z.any()
    assert not dX.any()
    convolution.backprop_convolution_weight(X, dZ, window, W, 1, 1, 1.0, 0.5)
    convolution.backprop_convolution_bias(dZ, b, 1, 1, 1.0, 0.5)
    np.testing.assert_array_equal(W, 0.5)
    np.testing.assert_array_equal(b, 0.5)


@pytest.mark.parametrize("positions", [(4, 6), (7, 7), (8, 9)])
def test_rows_in_bands_have_the_same_bits(dtype, rng, positions):
    X, W = draw_images(rng, positions, (3, 3), (1, 1), 5, dtype), draw(rng, 3, 3, 5, 9, dtype=dtype)
    b, window = draw(rng, 9, dtype=dtype), (3, 3, 1, 1)
    whole, bands = np.empty((2, *positions, 9, X.shape[-1]), dtype)
    convolution.convolution(X, W, b, window, whole, 0, positions[0])
    for begin in range(0, positions[0], 3):
        convolution.convolution(X, W, b, window, bands, begin, min(begin + 3, positions[0]))
    np.testing.assert_array_equal(bands, whole)


@parametrize_pairs(WINDOWS | {"part": [False, True]})
def test_pooling(dtype, assert_close, rng, size, stride, positions, channels, part):
    Z = draw_images(rng, positions, size, stride, channels, dtype).round(1)  # with equals
    Y = draw(rng, *positions, *Z.shape[2:], dtype=dtype)
    window, rows = (
        (*size, *stride),
        (positions[0] // 3, positions[0] - positions[0] // 2) if part else (0, positions[0]),
    )
    places = np.zeros(Y.shape, "uint8")
    ours, expected = call_both("max_pool", lambda o: (Z, window, *o, *rows), [Y, places])
    np.testing.assert_array_equal(ours[0], expected[0])
    np.testing.assert_array_equal(ours[1], expected[1])
    without, _ = call_both("max_pool", lambda o: (Z, window, *o, None, *rows), [Y])
    np.testing.assert_array_equal(without[0], ours[0])
    dZ = draw(rng, *Z.shape, dtype=dtype)
    (found,), (expected,) = call_both("backprop_max_pool", lambda o: (Y, ours[1], window, *o, *rows), [dZ])
    assert_close(found, expected, 4)
    (found,), (expected,) = call_both("mean_pool", lambda o: (Z, window, *o, *rows), [Y])
    assert_close(found, expected, 4)
    (found,), (expected,) = call_both("backprop_mean_pool", lambda o: (Y, window, *o, *rows), [dZ])
    assert_close(found, expected, 4)


def test_windows_of_as_many_places_as_there_may_be(dtype, assert_close, rng):
    Z = draw(rng, 16, 32, 2, lanes_of(dtype), dtype=dtype)
    Y, places = np.empty((1, 17, 2, Z.shape[-1]), dtype), np.empty((1, 17, 2, Z.shape[-1]), "uint8")
    assert pooling.MOST_PLACES == 16 * 16
    ours, expected = call_both("max_pool", lambda o: (Z, (16, 16, 1, 1), *o, 0, 1), [Y, places])
    assert ours[1].max() > 200
    for found, array in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(found, array)
    (found,), (array,) = call_both("backprop_max_pool", lambda o: (*ours, (16, 16, 1, 1), *o, 0, 1), [Z])
    assert_close(found, array, 4)
    MaxPool2D(16), AveragePool2D(17)
    with pytest.raises(ValueError, match=r"size must be a window of at most 256 numbers, not \(17, 16\)"):
        MaxPool2D((17, 16))


def test_largest_number_of_a_window_with_nan_infinity_and_equals(dtype):
    windows = np.array(
        [[1, 2, 2, 0], [np.nan, 1, np.nan, 2], [1, np.nan, 3, 0], [-np.inf] * 4, [np.inf, np.nan, 1, 1], [3, 2, 1, 3]],
        dtype,
    )
    Z = np.zeros((2, 12, 1, lanes_of(dtype)), dtype)
    Z[...] = windows.reshape(6, 2, 2).transpose(1, 0, 2).reshape(2, 12)[..., None, None]
    Y, places = np.empty((1, 6, 1, Z.shape[-1]), dtype), np.empty((1, 6, 1, Z.shape[-1]), "uint8")
    pooling.max_pool(Z, (2, 2, 2, 2), Y, places, 0, 1)
    for lane in range(Z.shape[-1]):
        np.testing.assert_array_equal(Y[0, :, 0, lane], [2, np.nan, np.nan, -np.inf, np.nan, 3])
        np.testing.assert_array_equal(places[0, :, 0, lane], [1, 0, 1, 0, 1, 0])
    dZ, dY = np.zeros_like(Z), np.array([1, np.nan, np.inf, -1, 2, 3], dtype)
    pooling.backprop_max_pool(np.broadcast_to(dY[None, :, None, None], Y.shape).copy(), places, (2, 2, 2, 2), dZ, 0, 1)
    expected = np.zeros((6, 4), dtype)
    expected[range(6), places[0, :, 0, 0]] = dY
    np.testing.assert_array_equal(dZ[..., 0, 0].reshape(2, 6, 2).transpose(1, 0, 2).reshape(6, 4), expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 3), (4, 4, 20), (2, 9, 16)])
def test_lanes(dtype, rng, shape):
    lanes = lanes_of(dtype)
    for n in sorted({0, 1, lanes - 1, lanes}):
        rows, X = draw(rng, n, np.prod(shape), dtype=dtype), draw(rng, *shape, lanes, dtype=dtype)
        ours, expected = call_both("to_lanes", lambda o, rows=rows: (rows, *o), [X])
        np.testing.assert_array_equal(ours, expected)
        ours, expected = call_both("from_lanes", lambda o, X=X: (X, *o), [rows])
        np.testing.assert_array_equal(ours, expected)
        images = rows.reshape(n, *shape)  # rows are images, channels last
        to = np.empty_like(X)
        pooling.to_lanes(rows, to)
        np.testing.assert_array_equal(np.moveaxis(to, -1, 0)[:n], images)
        assert not to[..., n:].any()
