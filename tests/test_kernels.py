"""Each compiled kernel against its NumPy twin: signatures first, then values."""

import inspect
import itertools

import numpy as np
import pytest
from levels import levels_of
from pairs import parametrize_pairs
from scipy import sparse as scipy_sparse
from scipy import special

from fastnn import reference, tuning
from fastnn.engine.rows import sort_blocks, to_csr
from fastnn.kernels import (
    activations,
    affine,
    blas,
    columns,
    dense,
    dropout,
    elementwise,
    embeddings,
    epoch,
    layer,
    lbfgs,
    losses,
    normalisation,
    rows,
    softmax,
    sparse,
    streams,
    touched,
    updates,
)
from fastnn.kernels.epoch import Batches, Space
from fastnn.kernels.lbfgs import Memory
from fastnn.kernels.losses import Targets
from fastnn.kernels.plan import CompiledPlan
from fastnn.kernels.rows import CSRRows
from fastnn.kernels.updates import Steps
from fastnn.layout import NEVER, LayerFacts, lay_out, to_lines
from fastnn.plan import Machine, Method, Plan, facts_of, forward_plan, make_plan
from fastnn.training.lbfgs import make_memory

MODULES = (
    blas,
    rows,
    activations,
    normalisation,
    dropout,
    softmax,
    losses,
    affine,
    dense,
    sparse,
    updates,
    touched,
    layer,
    epoch,
    lbfgs,
    streams,
    columns,
    embeddings,
)
KERNELS = {
    name: kernel
    for module in MODULES
    for name, kernel in vars(module).items()
    if type(kernel).__name__ in ("cython_function_or_method", "fused_cython_function")
    and not name.endswith("_size")  # the twins need no space
}
SIZES = (0, 1, 3, 10, 33)
DTYPES = ("float32", "float64")


def draw(rng, *shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def call_both(name, inputs, outputs):
    """Run a kernel and its twin on copies of the outputs; return both sets of outputs and results."""
    ours, theirs = [a.copy() for a in outputs], [a.copy() for a in outputs]
    result = KERNELS[name](*inputs(ours))
    expected = getattr(reference, name)(*inputs(theirs))
    return ours + [result] * (result is not None), theirs + [expected] * (expected is not None)


def test_every_kernel_has_a_twin_with_its_signature():
    assert len(KERNELS) > 15
    for name, kernel in KERNELS.items():
        ours = inspect.signature(kernel).parameters.values()
        twins = inspect.signature(getattr(reference, name)).parameters.values()
        assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in twins], name


def expression_of(n_inputs, dtype, *steps, outputs=None):
    """Return an expression of steps such as ("add", 0, 1); the last is the result if outputs are not given."""
    codes = tuple((elementwise.CODES[name], *values) for name, *values in steps)
    return elementwise.Expression(n_inputs, codes, outputs or (n_inputs + len(steps) - 1,), dtype == "float32")


@pytest.mark.parametrize("name", elementwise.CODES)
def test_elementwise_functions(dtype, rng, name):
    two = {"add", "sub", "mul", "true_div", "logaddexp", "pow", "tanh_slope", "sigmoid_slope", "heaviside", "maximum"}
    two |= {"minimum", "eq", "neq", "lt", "le", "gt", "ge"}
    n = 2 if name in two else 3 if name in ("clip", "switch") else 1
    info = np.finfo(dtype)
    special = [0, -0.0, 1, -1, np.inf, -np.inf, np.nan, info.tiny / 4, info.max, -info.max, -1 + 1e-6, 100, -100, 800]
    x = np.concatenate([special, *(rng.normal(size=100) * scale for scale in (1e-6, 0.1, 1, 30))]).astype(dtype)
    arrays = [x, *(rng.permutation(x) for _ in range(n - 1))]
    if name == "clip":
        arrays[1:] = np.nan_to_num(arrays[1:])
    if name.endswith("slope"):
        arrays[0] = (0.9 * np.tanh(x)).astype(dtype)
    expression = expression_of(n, dtype, (name, *range(n)))
    with np.errstate(all="ignore"):
        (expected,) = reference.evaluated(expression, *arrays)
    found = expression(*arrays)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    # Sums of logarithms may cancel, and numbers below the normal ones may be 0.
    unit = 5 * info.eps * (100 if name == "pow" else 1)
    cancels = name in ("logaddexp", "softplus")
    np.testing.assert_allclose(found, expected, rtol=unit, atol=unit if cancels else info.tiny)


def test_elementwise_shapes_and_places(dtype, rng):
    product = expression_of(3, dtype, ("mul", 0, 1), ("sub", 3, 2))
    for m, n in itertools.product((0, 1, 3, 300), (0, 1, 5, 1400)):
        x = draw(rng, m, n, dtype=dtype)
        for shapes in (((n,), ()), ((m, 1), (1, n)), ((), (m, n)), ((1, 1), (m, 1))):
            y, z = (draw(rng, *shape, dtype=dtype) for shape in shapes)
            expected = x * y - z
            for array in (x, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x[::-1, ::-1].copy()[::-1, ::-1]):
                np.testing.assert_array_equal(product(array, y, z), expected)
                out = array.copy(order="K")
                assert product(out, y, z, out=out) is out
                np.testing.assert_array_equal(out, expected)
    x = draw(rng, 30, 4, 50, dtype=dtype)
    y, z = draw(rng, 50, 4, dtype=dtype).T, draw(rng, 30, 1, 50, dtype=dtype)
    np.testing.assert_array_equal(product(x, y, z), x * y - z)
    square = draw(rng, 40, 40, dtype=dtype)
    expected = square.T * square - square
    np.testing.assert_array_equal(product(square.T, square, square, out=square), expected)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), dtype, offset=1).reshape(x.shape)
    np.testing.assert_array_equal(product(unaligned, y, z), x * y - z)
    with pytest.raises(ValueError, match="fit"):
        product(x, y[:, :3], z)


def test_elementwise_results_dtypes_and_threads(dtype, rng):
    # momentum: v becomes 0.9 v - g, w becomes w + v, in place
    step = expression_of(4, dtype, ("mul", 1, 3), ("sub", 4, 2), ("add", 0, 5), outputs=(5, 6))
    w, v, g = draw(rng, 3, 100, 70, dtype=dtype)
    rate = np.array(0.9, dtype)
    expected = reference.evaluated(step, w, v, g, rate)
    for n_threads in (1, 2, 5):
        arrays = w.copy(), v.copy(), g, rate
        elementwise.Call(step, arrays, (arrays[1], arrays[0]))(n_threads)
        np.testing.assert_array_equal(arrays[1], expected[0])
        np.testing.assert_array_equal(arrays[0], expected[1])
    chosen = expression_of(3, dtype, ("switch", 0, 1, 2))
    for kind in ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        integers = rng.integers(0, 2, (100, 1)).astype(kind)
        np.testing.assert_array_equal(chosen(integers, integers, w), np.where(integers, integers.astype(dtype), w))
    less = elementwise.Expression(2, ((elementwise.CODES["lt"], 0, 1),), (2,), dtype == "float32", (True,))
    np.testing.assert_array_equal(less(w, v[:, ::-1]), w < v[:, ::-1])
    assert less(w, v).dtype == bool


@pytest.mark.parametrize(("n_streams", "n"), [(1, 5), (3, 0), (0, 0), (64, 640), (65, 700), (130, 77), (200, 1111)])
def test_mrg31k3p(dtype, rng, n_streams, n):
    states = np.hstack([rng.integers(2**31 - 1, size=(n_streams, 3)), rng.integers(2**31 - 21069, size=(n_streams, 3))])
    states[:1], scale = [2**31 - 2] * 3 + [2**31 - 21070] * 3, float(np.nextafter(np.float32(2**-31), np.float32(0)))
    outputs = [np.empty((n_streams, 6), np.int32), np.empty(n, dtype)]
    for n_threads in (1, 2):
        ours, theirs = call_both(
            "mrg31k3p", lambda out, k=n_threads: (states.astype(np.int32), *out, scale, k), outputs
        )
        for array, expected in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_constants_agree():
    assert activations.ACTIVATIONS == reference.ACTIVATIONS
    assert updates.UPDATES == reference.UPDATES
    assert losses.LOSSES == reference.LOSSES
    assert rows.UINT8_SCALE == reference.UINT8_SCALE == 1 / 256
    assert normalisation.EPSILON == reference.EPSILON
    assert normalisation.RUNNING_SHARE == reference.RUNNING_SHARE
    assert blas.MAX_DIMENSION in (2**31 - 1, 2**63 - 1)


@parametrize_pairs(
    {
        "m": [0, 1, 7],
        "n": [0, 1, 5],
        "k": [0, 1, 9],
        "transpose_a, transpose_b": itertools.product([False, True], repeat=2),
        "dtype": DTYPES,
    }
)
def test_gemm(dtype, assert_close, rng, m, n, k, transpose_a, transpose_b):
    A = draw(rng, *((k, m) if transpose_a else (m, k)), dtype=dtype)
    B = draw(rng, *((n, k) if transpose_b else (k, n)), dtype=dtype)
    C = draw(rng, m, n, dtype=dtype)
    for alpha, beta in ((1.0, 0.0), (0.5, 1.0), (-2.0, 0.25)):
        ours, expected = call_both("gemm", lambda o, s=(alpha, beta): (A, B, *o, *s, transpose_a, transpose_b), [C])
        assert_close(ours[0], expected[0], 4)


@parametrize_pairs(
    {
        "m, n": [(0, 5), (1, 5), (127, 5), (300, 5), (1, 300), (7, 129), (200, 300)],
        "k": [0, 1, 9],
        "transpose_a, transpose_b": itertools.product([False, True], repeat=2),
        "n_threads": [1, 3],
        "dtype": DTYPES,
    }
)
def test_gemm_in_threads(dtype, assert_close, rng, m, n, k, transpose_a, transpose_b, n_threads):
    A = draw(rng, *((k, m) if transpose_a else (m, k)), dtype=dtype)
    B = draw(rng, *((n, k) if transpose_b else (k, n)), dtype=dtype)
    ours, expected = call_both(
        "gemm_in_threads", lambda o: (A, B, *o, transpose_a, transpose_b, n_threads), [np.full((m, n), np.nan, dtype)]
    )
    assert_close(ours[0], expected[0], 4)


def test_warm_up(dtype, assert_close, rng):
    A, B = draw(rng, 9, 5, dtype=dtype), draw(rng, 5, 4, dtype=dtype)
    ours, expected = call_both("warm_up", lambda o: (A, B, *o, 2), [np.zeros((3, 9, 4), dtype)])
    assert_close(ours[0], expected[0], 4)


def test_gemm_ignores_what_stood_in_the_output_where_beta_is_0(dtype):
    C = np.full((3, 2), np.nan, dtype)
    blas.gemm(np.ones((3, 4), dtype), np.ones((4, 2), dtype), C)
    np.testing.assert_array_equal(C, 4)


@pytest.mark.parametrize("activation", [name for name in activations.ACTIVATIONS if name not in ("gelu", "silu")])
@pytest.mark.parametrize("n", SIZES)
def test_activation_and_its_backward_pass(dtype, assert_close, rng, activation, n):
    code = activations.ACTIVATIONS[activation]
    Z = 3 * draw(rng, n, 7, dtype=dtype)
    dY = draw(rng, n, 7, dtype=dtype)
    (Y,), (expected,) = call_both("inplace_activation", lambda o: (code, *o), [Z])
    assert_close(Y, expected)
    (dZ,), (expected,) = call_both("inplace_backprop_activation", lambda o: (code, Y, *o), [dY])
    # 1 - y * y cancels where y is near 1; the gradient is bounded by dY, so the error is too.
    assert_close(dZ, expected, 4)


def normal_distribution(z):
    """The distribution function and the density, in long double."""
    # The square is split, as its rounding would grow in exp: the first part is exact.
    grid = np.round(z * 1024) / 1024
    density = np.exp(-grid * grid / 2) * np.exp(-(z - grid) * (z + grid) / 2)
    density /= np.sqrt(2 * np.arccos(np.longdouble(-1)))
    x = np.abs(z)
    far = np.maximum(x, 1.5)
    mills = far  # Laplace's continued fraction for density / tail
    for k in range(200, 0, -1):
        mills = far + k / mills
    near = np.minimum(x, 1.5)
    term = total = near  # the series of (1/2 - tail) / density
    for k in range(3, 80, 2):
        term = term * near * near / k
        total = total + term
    tail = np.where(x < 1.5, 0.5 - density * total, density / mills)
    return np.where(z < 0, tail, 1 - tail), density


def sigmoid_and_its_complement(z):
    return 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))


@np.errstate(over="ignore")  # where long double is double
def exact_activation(activation, z):
    """The value and the slope at z, in long double, and the largest of the terms of which the slope is the sum."""
    s, t = sigmoid_and_its_complement(z)
    one = np.ones_like(z)
    if activation == "tanh":
        return np.tanh(z), 1 - np.tanh(z) ** 2, one
    if activation == "sigmoid":
        return s, s * t, s
    if activation == "elu":
        return np.where(z < 0, np.expm1(np.minimum(z, 0)), z), np.exp(np.minimum(z, 0)), one
    if activation == "softplus":
        return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))), s, s
    if activation == "silu":
        return z * s, s + z * s * t, np.maximum(s, np.abs(z) * s * t)
    share, density = normal_distribution(z)
    return z * share, share + z * density, np.maximum(share, np.abs(z) * density)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "elu", "softplus", "gelu", "silu"])
def test_activations_are_accurate_over_the_whole_range(dtype, assert_accurate, activation):
    # From denormals to where exp underflows, on both sides, against a wider format.
    end = 110 if dtype == "float32" else 760
    small = np.geomspace(np.finfo(dtype).smallest_subnormal, end, 20_001)
    even = np.linspace(-1, 1, 20_001)
    z = np.concatenate([small, -small, even, 3 * even, 40 * even, end * even]).astype(dtype)
    Y, slopes = z[None].copy(), np.empty((1, len(z)), dtype)
    activations.inplace_activation_and_slopes(activations.ACTIVATIONS[activation], Y, slopes)
    z = z.astype(np.longdouble)
    value, slope, terms = exact_activation(activation, z)
    assert_accurate(activation, z, (Y[0], slopes[0]), (value, slope), (value, terms))


def test_normal_distribution_in_long_double():
    # The reference itself, in double, against SciPy.
    z = np.linspace(-8, 8, 1001)
    found = normal_distribution(z.astype(np.longdouble))[0].astype(float)
    np.testing.assert_allclose(found, special.ndtr(z), rtol=1e-13)


@pytest.mark.parametrize("activation", list(activations.ACTIVATIONS))
def test_activations_at_infinity_and_nan(dtype, activation):
    Z = np.array([[np.inf, -np.inf, np.nan, 0.0, -0.0]], dtype)
    code = activations.ACTIVATIONS[activation]
    with np.errstate(invalid="ignore"):  # NumPy 1.23 warns of NaN in expm1
        ours, expected = call_both("inplace_activation_and_slopes", lambda o: (code, *o), [Z, np.empty_like(Z)])
    np.testing.assert_array_equal(ours, expected)
    activations.inplace_activation(code, Z)
    np.testing.assert_array_equal(Z, expected[0])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("n_classes", [1, 2, 10, 17])
def test_softmax(dtype, assert_close, rng, n, n_classes):
    Z = 5 * draw(rng, n, n_classes, dtype=dtype)
    (P,), (expected,) = call_both("inplace_softmax", lambda o: o, [Z])
    # exp turns the rounding of logits of about 10 into a relative error of 10 roundings.
    assert_close(P, expected, 10)
    if n:
        assert_close(P, special.softmax(Z.astype(float), axis=1), 10)
        assert_close(P.sum(axis=1), np.ones(n))
    (log_P,), (expected,) = call_both("inplace_log_softmax", lambda o: o, [Z])
    assert_close(log_P, expected)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("n_classes", [1, 2, 10, 17])
def test_backprop_through_softmax(dtype, assert_close, rng, n, n_classes):
    P = special.softmax(draw(rng, n, n_classes, dtype=dtype), axis=1) if n else np.zeros((n, n_classes), dtype)
    dP = draw(rng, n, n_classes, dtype=dtype)
    (dZ,), (expected,) = call_both("inplace_backprop_softmax", lambda o: (P, *o), [dP])
    assert_close(dZ, expected, 4)


def test_log_softmax_does_not_overflow(dtype):
    limit = {"float32": 1e38, "float64": 1e300}[dtype]
    Z = np.array([[limit, 0.0, -limit], [-limit, -limit, -limit], [1e4, -1e4, 0.0]], dtype)
    dZ = Z.copy()
    softmax.inplace_log_softmax(Z)
    assert Z[0, 0] == 0
    assert Z[0, 1] == dtype_of(dtype)(-limit)
    np.testing.assert_allclose(Z[1], -np.log(3), rtol=1e-6)
    np.testing.assert_array_equal(Z[2], [0, -2e4, -1e4])
    total = losses.inplace_loss(Targets(losses.LOSSES["cross_entropy"], np.array([0, 1, 1])), dZ, 1.0)
    np.testing.assert_allclose(total, -np.log(3) - 2e4, rtol=1e-6)
    assert np.isfinite(dZ).all()


def dtype_of(name):
    return np.dtype(name).type


@parametrize_pairs({"n": [*SIZES, 70], "n_in": [0, 1, 13], "n_out": [0, 1, 2, 10], "dtype": DTYPES})
def test_affine(dtype, assert_close, rng, n, n_in, n_out):
    X, W, b = draw(rng, n, n_in, dtype=dtype), draw(rng, n_in, n_out, dtype=dtype), draw(rng, n_out, dtype=dtype)
    dZ = draw(rng, n, n_out, dtype=dtype)
    Z, dX, dW, db = (np.full(shape, 7, dtype) for shape in ((n, n_out), (n, n_in), (n_in, n_out), n_out))
    for name, arguments, output in (
        ("affine", (X, W, b), Z),
        ("backprop_affine_input", (dZ, W), dX),
        ("backprop_affine_weight", (X, dZ), dW),
        ("backprop_affine_bias", (dZ,), db),
    ):
        scales = [()] if name in ("affine", "backprop_affine_input") else [(), (0.5, 1.0), (2.0, 0.25)]
        for scale in scales:
            ours, expected = call_both(name, lambda o, a=arguments, s=scale: (*a, *o, *s), [output])
            assert_close(ours[0], expected[0], 4)


@pytest.mark.parametrize(("n", "n_in"), [(0, 5), (5, 0), (1, 1), (3, 300), (15, 9), (20, 131), (131, 64), (2500, 7)])
@pytest.mark.parametrize("n_out", [64, 65, 131, 250])
def test_wide_affine(dtype, assert_close, rng, n, n_in, n_out):
    X, W, b = draw(rng, n, n_in, dtype=dtype), draw(rng, n_in, n_out, dtype=dtype), draw(rng, n_out, dtype=dtype)
    dZ = draw(rng, n, n_out, dtype=dtype)
    ours, expected = call_both("affine", lambda o: (X, W, b, *o), [np.full((n, n_out), np.nan, dtype)])
    assert_close(ours[0], expected[0], 20)
    for scale, dW in (((), np.full_like(W, np.nan)), ((0.5, 1.0), W), ((2.0, 0.25), W)):
        ours, expected = call_both("backprop_affine_weight", lambda o, s=scale: (X, dZ, *o, *s), [dW])
        assert_close(ours[0], expected[0], 60)


@parametrize_pairs({"n": SIZES, "n_in": [0, 1, 13, 32, 71], "n_out": [0, 1, 2, 5, 6, 20], "dtype": DTYPES})
def test_dense_layer(dtype, assert_close, rng, n, n_in, n_out):
    X, W, b = draw(rng, n, n_in, dtype=dtype), draw(rng, n_out, n_in, dtype=dtype), draw(rng, n_out, dtype=dtype)
    dZ = draw(rng, n, n_out, dtype=dtype)
    ours, expected = call_both("dense_affine", lambda o: (X, W, b, *o), [np.full((n, n_out), 7, dtype)])
    assert_close(ours[0], expected[0], 8)
    for scale in ((), (0.5, 1.0), (2.0, 0.25)):
        ours, expected = call_both("backprop_dense_weight", lambda o, s=scale: (X, dZ, *o, *s), [W])
        assert_close(ours[0], expected[0], 8)
    work = np.empty(n * n_out, dtype)
    ours, expected = call_both("backprop_dense_input", lambda o: (dZ, W, *o, work), [np.full((n, n_in), 7, dtype)])
    assert_close(ours[0], expected[0], 8)


@pytest.mark.parametrize(("n", "n_in", "n_out"), [(0, 70, 3), (61, 64, 1), (200, 333, 10), (1000, 150, 7)])
def test_dense_layer_by_threads(dtype, assert_close, rng, n, n_in, n_out):
    X, W, b = draw(rng, n, n_in, dtype=dtype), draw(rng, n_out, n_in, dtype=dtype), draw(rng, n_out, dtype=dtype)
    dZ = draw(rng, n, n_out, dtype=dtype)
    results = []
    for n_threads in (1, 2, 3):
        Z, dW = np.full((n, n_out), 7, dtype), W.copy()
        dense.dense_affine(X, W, b, Z, n_threads)
        dense.backprop_dense_weight(X, dZ, dW, 0.5, 2.0, n_threads)
        results.append((Z, dW))
    for Z, dW in results[1:]:
        np.testing.assert_array_equal(Z, results[0][0])
        np.testing.assert_array_equal(dW, results[0][1])
    assert_close(results[0][0], X.astype(float) @ W.T + b, 16)
    assert_close(results[0][1], 0.5 * dZ.T.astype(float) @ X + 2 * W, 16)


@pytest.mark.parametrize("n", [1, 5, 20])
@pytest.mark.parametrize("n_in", [7, 30, 83])
def test_a_units_bits_do_not_depend_on_how_many_stand_beside_it(dtype, rng, n, n_in):
    n_out = 25
    X, W, b = draw(rng, n, n_in, dtype=dtype), draw(rng, n_out, n_in, dtype=dtype), draw(rng, n_out, dtype=dtype)
    dZ = draw(rng, n, n_out, dtype=dtype)
    for begin, end in itertools.combinations(range(n_out + 1), 2):
        few, Z, Z_few = slice(begin, end), np.empty((n, n_out), dtype), np.empty((n, end - begin), dtype)
        dense.dense_affine(X, W, b, Z)
        dense.dense_affine(X, W[few], b[few], Z_few)
        np.testing.assert_array_equal(Z_few, Z[:, few])
        for beta in (0.0, 1.0, 0.75):
            all_units, few_units = W.copy(), W[few].copy()
            dense.backprop_dense_weight(X, dZ, all_units, 0.1, beta)
            dense.backprop_dense_weight(X, np.ascontiguousarray(dZ[:, few]), few_units, 0.1, beta)
            np.testing.assert_array_equal(few_units, all_units[few])


@parametrize_pairs(
    {
        "n": [*SIZES, 70],
        "n_in": [0, 1, 131],
        "bounds": [(0, 1), (0, 7), (0, 50), (0, 33, 66), (0, 64, 80), (0, 128, 256, 384, 500)],
        "dtype": DTYPES,
    }
)
def test_layer_in_panels(dtype, assert_close, rng, n, n_in, bounds):
    bounds = np.array(bounds, np.intp)
    n_out, size = bounds[-1], sum(reference.panel_bounds(width, 4)[-1] for width in np.diff(bounds))
    X, dZ, b = draw(rng, n, n_in, dtype=dtype), draw(rng, n, n_out, dtype=dtype), draw(rng, n_out, dtype=dtype)
    # The padding of panels does not change, nor what follows them.
    W = np.full((n_in + 1) * (size + 64), 7, dtype)
    for panel in reference.panels(W, n_in, bounds):
        panel[...] = draw(rng, *panel.shape, dtype=dtype)
    ours, expected = call_both("panels_affine", lambda o: (X, W, b, bounds, *o), [np.full((n, n_out), np.nan, dtype)])
    assert_close(ours[0], expected[0], 4)
    if not (bounds[:-1] % 16).any():
        outputs = [np.full((n, n_in), np.nan, dtype)]
        ours, expected = call_both("backprop_panels_input", lambda o: (dZ, W, bounds, *o), outputs)
        assert_close(ours[0], expected[0], 4)
    for alpha, beta in ((1.0, 0.0), (0.1, 1.0), (-2.0, 0.75)):
        ours, expected = call_both("backprop_panels_weight", lambda o, s=(alpha, beta): (X, dZ, bounds, *o, *s), [W])
        assert_close(ours[0], expected[0], 4)


@pytest.mark.parametrize("form", ["stored", "transposed", "panels", "sparse slices"])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 7), (17, 20, 2), (70, 53, 3), (33, 210, 4), (600, 250, 2), (5, 1003, 2)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_rearrange(dtype, rng, sizes, form, batch_norm):
    shapes = shapes_of(sizes, ["tanh"] * (len(sizes) - 2), 0.0, batch_norm)
    output = "transposed" if form != "stored" and len(sizes) > 2 and sizes[1] >= 64 else "stored"
    forms = (form, output)[: len(shapes)]
    layers, size = lay_out(shapes, forms, form == "sparse slices" and len(sizes) > 2, np.dtype(dtype).itemsize)
    moved = Plan("rows", layers, dtype, size, 1, 1)
    plans = CompiledPlan(moved), CompiledPlan(forward_plan(shapes, dtype, 1, False))
    vector = draw(rng, plans[1].source.n_parameters, dtype=dtype)
    results = []
    for back in (False, True):
        given = results[0] if back else vector
        outputs = [np.full(plans[back].source.n_parameters, 7, dtype)]
        ours, expected = call_both("rearrange", lambda o, b=back, g=given: (*plans, b, g, *o), outputs)
        np.testing.assert_array_equal(ours[0], expected[0])
        results.append(ours[0])
    np.testing.assert_array_equal(results[1], vector)


def test_dense_layer_ignores_what_stood_in_the_output_where_beta_is_0(dtype):
    dW = np.full((7, 70), np.nan, dtype)
    dense.backprop_dense_weight(np.ones((2, 70), dtype), np.ones((2, 7), dtype), dW)
    np.testing.assert_array_equal(dW, np.full((7, 70), 2, dtype))


@parametrize_pairs({"n": SIZES, "n_out": [1, 10, 83, 150], "density": [0, 0.2, 1], "dtype": DTYPES})
def test_sparse_layer(dtype, assert_close, rng, n, n_out, density):
    dense = draw(rng, n, 13, dtype=dtype) * (rng.random((n, 13)) < density)
    X = to_csr(dense, np.dtype(dtype))
    W, b, dZ = draw(rng, 13, n_out, dtype=dtype), draw(rng, n_out, dtype=dtype), draw(rng, n, n_out, dtype=dtype)
    ours, expected = call_both("sparse_affine", lambda o: (X, W, b, *o), [np.zeros((n, n_out), dtype)])
    assert_close(ours[0], expected[0], 4)
    work = np.full(2 * X.data.size + 15, np.nan, dtype)
    for scale in ((), (0.5, 1.0), (2.0, 0.25)):
        scattered, expected = call_both("backprop_sparse_weight", lambda o, s=scale: (X, dZ, *o, *s), [W])
        assert_close(scattered[0], expected[0], 4)
        name = "backprop_sparse_weight_by_column"
        by_column, expected = call_both(name, lambda o, s=scale: (X, dZ, *o, work, *s), [W])
        assert_close(by_column[0], expected[0], 4)
        np.testing.assert_array_equal(by_column[0], scattered[0])
        if X.data.size:
            blocks = sort_blocks(X, np.array([0, n]))
            name = "backprop_sparse_weight_by_block"
            by_block, expected = call_both(name, lambda o, s=scale, b=blocks: (X, b, dZ, *o, *s), [W])
            assert_close(by_block[0], expected[0], 4)


@pytest.mark.parametrize("n", [1, 128, 301])
@pytest.mark.parametrize("n_out", [60, 128, 250])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_sparse_layer_by_parts_of_its_inputs(dtype, assert_close, rng, n, n_out, is_sorted):
    """Wide strips go by parts if rows have enough non-zeros, in some order; the bits are those of a row alone."""
    n_in = 700
    X = draw(rng, n, n_in, dtype=dtype) * (rng.random((n, n_in)) < np.linspace(0.5, 0, n)[:, None])
    W, b = draw(rng, n_in, n_out, dtype=dtype), draw(rng, n_out, dtype=dtype)
    csr = to_csr(X, np.dtype(dtype))
    if not is_sorted:
        for begin, end in itertools.pairwise(csr.indptr):
            order = begin + rng.permutation(end - begin)
            csr.data[begin:end], csr.indices[begin:end] = csr.data[order], csr.indices[order]
    Z = np.full((n, n_out), np.nan, dtype)
    sparse.sparse_affine(csr, W, b, Z)
    assert_close(Z, scipy_sparse.csr_array(X) @ W + b, 4)
    few = np.full((1, n_out), np.nan, dtype)
    for i in {0, n // 2, n - 1}:
        at = slice(*csr.indptr[i : i + 2])
        row = CSRRows(csr.data[at], csr.indices[at], np.array([0, at.stop - at.start]), n_in)
        sparse.sparse_affine(row, W, b, few)
        np.testing.assert_array_equal(few[0], Z[i])


@pytest.mark.parametrize("stored", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("n", [*SIZES, 5000])
def test_to_csr_agrees_with_scipy(dtype, rng, n, stored):
    X = (rng.integers(0, 256, (n, 7)) * (rng.random((n, 7)) < 0.3)).astype(stored)
    found = to_csr(X, np.dtype(dtype))
    expected = scipy_sparse.csr_array(X.astype(dtype) / (256 if stored == "uint8" else 1))
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    assert found.shape == X.shape
    assert found.dtype == dtype


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 1000, 1024, 1025, 70_000])
@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937])
def test_draw_order_agrees_with_reference(n, bits):
    generators = [bits(5) for _ in range(2)]
    orders = np.empty((2, 3, n), np.intp)
    for i in range(3):
        for kernel, generator, order_out in zip((rows, reference), generators, orders[:, i], strict=True):
            kernel.draw_order(generator, order_out)
    np.testing.assert_array_equal(*orders)
    # Both go on with the same bits.
    np.testing.assert_array_equal(*(generator.random_raw(4) for generator in generators))


@pytest.mark.parametrize("n", [0, 1, 4095, 4096, 9001])
@pytest.mark.parametrize("bad", [None, np.nan, -np.nan, np.inf, -np.inf])
def test_all_finite(dtype, rng, n, bad):
    values = draw(rng, n, dtype=dtype)
    values[: n // 2] *= np.finfo(dtype).max / 10
    values[: n // 3] *= np.finfo(dtype).smallest_subnormal
    for place in {0, n // 2, n - 1} if bad is not None and n else ():
        kept, values[place] = values[place], bad
        assert not any(kernel.all_finite(values.view(f"u{values.itemsize}"), 2) for kernel in (rows, reference))
        values[place] = kept
    assert all(kernel.all_finite(values.view(f"u{values.itemsize}"), 2) for kernel in (rows, reference))


@pytest.mark.parametrize("stored", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("n", SIZES)
def test_counting_and_filling_non_zeros(dtype, rng, n, stored):
    X = (rng.integers(0, 256, (n, 5)) * (rng.random((n, 5)) < 0.5)).astype(stored)
    (indptr,), (expected,) = call_both("count_nonzeros", lambda o: (X, *o), [np.empty(n + 1, np.int64)])
    np.testing.assert_array_equal(indptr, expected)
    outputs = [np.empty(indptr[-1], dtype), np.empty(indptr[-1], np.int32)]
    for array, other in zip(*call_both("fill_nonzeros", lambda o: (X, indptr, *o, 2), outputs), strict=True):
        np.testing.assert_array_equal(array, other)


NUMBERS = {  # what each update takes, and how many slots it has
    "none": ([], 0),
    "sgd": ([0.3], 0),
    "momentum": ([0.3, 0.9], 1),
    "nesterov": ([0.3, 0.9], 1),
    "rmsprop": ([0.01, 0.9, 1e-3], 1),
    "adagrad": ([0.05, 1e-3], 1),
    "adam": ([0.02, 0.9, 0.99, 1.5, 1e-3], 2),
}


@parametrize_pairs(
    {
        "update": updates.UPDATES,
        "n": SIZES,
        "penalties": [(0, 0, 0), (0.1, 0.2, 0.3)],
        "is_weight": [False, True],
        "dtype": DTYPES,
    }
)
def test_updates(dtype, assert_close, rng, update, n, penalties, is_weight):
    numbers, n_slots = NUMBERS[update]
    numbers = np.array([*penalties, *numbers], float)
    outputs = [draw(rng, n, dtype=dtype), draw(rng, n, dtype=dtype), np.abs(draw(rng, n_slots, n, dtype=dtype))]
    ours, expected = call_both(
        "inplace_update", lambda o: (updates.UPDATES[update], numbers, *o, 0.7, is_weight), outputs
    )
    for i, (found, wanted) in enumerate(zip(ours, expected, strict=True)):
        if update == "none" or i != 1:  # the others may overwrite the gradient
            assert_close(found, wanted)


@parametrize_pairs({"update": updates.UPDATES, "l1": [0, 0.2], "dtype": DTYPES})
def test_updates_of_ranges(dtype, rng, update, l1):
    # The bits do not depend on where ranges begin, so neither on how many threads share a step.
    numbers, n_slots = NUMBERS[update]
    code, numbers = updates.UPDATES[update], np.array([0.1, l1, 0.3, *numbers])
    parameters, gradient, state = draw(rng, 83, dtype=dtype), draw(rng, 83, dtype=dtype), np.ones((n_slots, 83), dtype)
    parts = [
        [parameters[begin:end].copy(), gradient[begin:end].copy(), state[:, begin:end].copy()]
        for begin, end in itertools.pairwise([0, 1, 4, 38, 71, 83])
    ]
    updates.inplace_update(code, numbers, parameters, gradient, state, 0.7)
    for part in parts:
        updates.inplace_update(code, numbers, *part, 0.7)
    for i, whole in enumerate((parameters, gradient, state)):
        np.testing.assert_array_equal(np.concatenate([part[i] for part in parts], axis=-1), whole)


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 7), (40, 3)])
def test_max_norm(dtype, assert_close, rng, shape, by_rows):
    ours, expected = call_both("inplace_max_norm", lambda o: (*o, 2.0, by_rows), [draw(rng, *shape, dtype=dtype)])
    assert_close(ours[0], expected[0])
    assert np.linalg.norm(ours[0], axis=int(by_rows)).max(initial=0) <= 2.0001


@pytest.mark.parametrize("activation", list(activations.ACTIVATIONS))
def test_slopes_are_derivatives(dtype, assert_close, rng, activation):
    code = activations.ACTIVATIONS[activation]
    Z = 3 * draw(rng, 9, 7, dtype=dtype)
    ours, expected = call_both("inplace_activation_and_slopes", lambda o: (code, *o), [Z, np.empty_like(Z)])
    for found, wanted in zip(ours, expected, strict=True):
        assert_close(found, wanted, 4)
    up, down = Z + np.full(Z.shape, 1e-6), Z - np.full(Z.shape, 1e-6)
    for shifted in (up, down):
        activations.inplace_activation(code, shifted)
    np.testing.assert_allclose(ours[1], (up - down) / 2e-6, rtol=0, atol=1e-4 if dtype == "float32" else 1e-8)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("width", [0, 1, 7, 32, 71])
def test_normalisation(dtype, assert_close, rng, n, width):
    Z, scale, bias = draw(rng, n, width, dtype=dtype), draw(rng, width, dtype=dtype), draw(rng, width, dtype=dtype)
    X_hat, statistics = np.zeros_like(Z), [np.zeros(width, dtype) for _ in range(2)]
    ours, expected = call_both(
        "inplace_normalisation", lambda o: (o[0], scale, bias, *o[1:]), [5 * Z + 3, X_hat, *statistics]
    )
    for found, wanted in zip(ours, expected, strict=True):
        # Where there are few rows, the spread that is divided by may be small; variances are squares of about 5.
        assert_close(found, wanted, 40)
    _, X_hat, mean, variance = ours
    for scales in ((), (0.5, 1.0), (2.0, 0.25)):
        back, expected = call_both(
            "inplace_backprop_normalisation",
            lambda o, s=scales: (X_hat, variance, scale, *o, *s),
            [draw(rng, n, width, dtype=dtype), draw(rng, width, dtype=dtype), draw(rng, width, dtype=dtype)],
        )
        for found, wanted in zip(back, expected, strict=True):
            assert_close(found, wanted, 40)
    running = [draw(rng, width, dtype=dtype), rng.random(width).astype(dtype)]
    moved, expected = call_both("inplace_running_statistics", lambda o: (mean, variance, *o, n), running)
    for found, wanted in zip(moved, expected, strict=True):
        assert_close(found, wanted, 4)
    if n == 1:
        np.testing.assert_array_equal(moved, running)
        np.testing.assert_array_equal(ours[0], bias[None])


def test_normalisation_of_many_rows_far_from_zero(dtype, rng):
    # One pass, or sums in single precision, would lose all digits of the variance.
    Z = (1000 + rng.random((100_001, 3))).astype(dtype)
    expected = Z.astype(np.longdouble)
    outputs = [np.empty_like(Z), *(np.empty(3, dtype) for _ in range(2))]
    normalisation.inplace_normalisation(Z, np.ones(3, dtype), np.zeros(3, dtype), *outputs)
    X_hat, mean, variance = outputs
    tolerance = 1e-6 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(mean, expected.mean(axis=0), rtol=tolerance)
    np.testing.assert_allclose(variance, expected.var(axis=0), rtol=tolerance)
    spread = np.sqrt(expected.var(axis=0) + normalisation.EPSILON)
    np.testing.assert_allclose(X_hat, (expected - expected.mean(axis=0)) / spread, rtol=0, atol=2 * tolerance)


def test_the_old_scale_carries_the_gradient_where_a_step_is_folded_in(dtype, rng):
    X_hat, dZ = draw(rng, 9, 40, dtype=dtype), draw(rng, 9, 40, dtype=dtype)
    variance, scale, bias = (rng.random(40).astype(dtype) for _ in range(3))
    results = []
    for scale_out in (scale.copy(), None):
        outputs = [dZ.copy(), scale.copy() if scale_out is None else scale_out, bias.copy()]
        read = scale if scale_out is None else scale_out
        normalisation.inplace_backprop_normalisation(X_hat, variance, read, *outputs, 0.1, 1.0)
        results.append(outputs)
    for apart, folded in zip(*results, strict=True):
        np.testing.assert_array_equal(apart, folded)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_dropout(dtype, assert_close, rng, share):
    Y, slopes = 1 + rng.random((200, 51)).astype(dtype), np.ones((200, 51), dtype)
    ours, expected = call_both("inplace_dropout", lambda o: (*o, share, 2**63 + 5, 3, 17), [Y, slopes])
    for found, wanted in zip(ours, expected, strict=True):
        assert_close(found, wanted)
    kept = ours[0] != 0
    np.testing.assert_array_equal(kept, ours[1] != 0)
    assert abs(kept.mean() - (1 - share)) < 5 * np.sqrt(share * (1 - share) / kept.size) + 1e-9
    # Rows and units have masks of their own: their shares vary no more than those of independent draws.
    if share:
        for axis in (0, 1):
            spread = kept.mean(axis=axis).std() / np.sqrt(share * (1 - share) / kept.shape[axis])
            assert 0.7 < spread < 1.4
    other = np.ones_like(Y)
    dropout.inplace_dropout(other, slopes, share, 2**63 + 5, 2, 17)
    assert share == 0 or not np.array_equal(other != 0, kept)


@parametrize_pairs(
    {"loss": losses.LOSSES, "n": [*SIZES, 700], "weighted": [False, True], "n_out": [1, 2, 3, 150], "dtype": DTYPES}
)
def test_losses(dtype, assert_close, rng, loss, n, weighted, n_out):
    Z = 5 * draw(rng, n, n_out, dtype=dtype)
    y = rng.integers(0, n_out, n) if loss == "cross_entropy" else rng.random((n, n_out)).astype(dtype)
    weights = rng.random(n) if weighted else None
    for smoothing in (0.0, 0.1) if loss == "cross_entropy" else (0.0,):
        targets = Targets(losses.LOSSES[loss], y, weights, smoothing, np.array(levels_of(loss, n_out)))
        ours, expected = call_both("inplace_loss", lambda o, t=targets: (t, *o, 2.5), [Z])
        assert_close(ours[0], expected[0])
        assert_close(ours[1], expected[1])


@pytest.mark.parametrize("loss", list(losses.LOSSES))
def test_losses_have_the_gradient_that_they_say(rng, loss):
    Z = rng.standard_normal((4, 3))
    y = rng.integers(0, 3, 4) if loss == "cross_entropy" else rng.random((4, 3))
    smoothing = 0.2 if loss == "cross_entropy" else 0.0
    targets = Targets(losses.LOSSES[loss], y, rng.random(4), smoothing, np.array(levels_of(loss, 3)))
    dZ = Z.copy()
    losses.inplace_loss(targets, dZ, 1.0)
    for index in np.ndindex(Z.shape):
        up, down = Z.copy(), Z.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        slope = (losses.inplace_loss(targets, up, 1.0) - losses.inplace_loss(targets, down, 1.0)) / 2e-6
        assert slope == pytest.approx(dZ[index], abs=1e-8)


def test_losses_without_any_weight_move_nothing(dtype):
    Z = np.ones((2, 3), dtype)
    targets = Targets(losses.LOSSES["cross_entropy"], np.array([0, 1]), np.zeros(2))
    assert losses.inplace_loss(targets, Z, 0.0) == 0
    np.testing.assert_array_equal(Z, 0)


@pytest.mark.parametrize("loss", list(losses.LOSSES))
def test_losses_pass_nan_on(dtype, loss):
    y = np.zeros(1, np.intp) if loss == "cross_entropy" else np.zeros((1, 2), dtype)
    targets = Targets(losses.LOSSES[loss], y, levels=np.array(levels_of(loss, 2)))
    for bad in ([np.nan, 1], [np.inf, 1]):
        found = losses.inplace_loss(targets, np.array([bad], dtype), 1.0)
        assert not np.isfinite(found)


@pytest.mark.parametrize("n", [1, 33, 700])
def test_sort_blocks(dtype, rng, n):
    X = to_csr((draw(rng, n, 13, dtype=dtype) * (rng.random((n, 13)) < 0.4)).astype(dtype), np.dtype(dtype))
    if n == 33:  # columns out of order, and some twice
        X.indices[:50] = rng.integers(0, 13, 50)
    bounds = np.array([*range(0, n, 10), n], np.int64)
    outputs = [np.zeros_like(each) for each in sort_blocks(X, bounds)[:2]]
    ours, expected = call_both("sort_blocks", lambda o: (X, bounds, *o, 2), outputs)
    for found, wanted in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def shapes_of(sizes, names, dropout=0.0, batch_norm=False):
    """Layers of these sizes, with an activation for each hidden one."""
    hidden = zip(sizes[:-2], sizes[1:-1], names, strict=True)
    return (*(LayerFacts(*layer, batch_norm, dropout) for layer in hidden), LayerFacts(*sizes[-2:]))


def plan_for(kind, shapes, dtype, X, method, block_rows, ordered):
    """Plan for rows X, with the bounds of choices moved so that it is one of the kind."""
    never = ((np.inf, 0),)
    forced = {
        "DENSE_INPUTS": NEVER,
        "SORTED_ONCE": never,
        "SORTED_EACH_TIME": never,
        "TOUCHED_SHARE": np.inf,
        "BLOCK_ROWS": (block_rows, block_rows),
        "FEWEST_BLOCK_ROWS": 1,
        "THIN_UNITS": 0,
        "LONG_OUTPUT": 64,
    }
    forced |= {
        "": {"WIDE_UNITS": NEVER},
        "transposed": {"DENSE_INPUTS": 1, "WIDE_UNITS": NEVER},
        "panels": {"WIDE_UNITS": 1},
        "sorted": {"SORTED_EACH_TIME": ((0, 0),)},
        "blocks": {"SORTED_ONCE": ((0, 0),)},
        "touched": {"TOUCHED_SHARE": 0},
    }.get(kind, {})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in forced.items():
            patch.setattr(tuning, name, value)
        data = facts_of(X, method.batch_size, ordered, repeated=kind == "blocks")
        return make_plan(shapes, dtype, data, method, Machine(4, affine.REGISTER_BYTES))


def run_epoch(module, batches, plan, parameters, steps, n_threads=2):
    """One epoch by the compiled engine or its twin; returns parameters, state, log-likelihood, penalty, gradient."""
    n, n_shards = len(batches.targets.y), plan.n_shards
    compiled, stored = CompiledPlan(plan), CompiledPlan(stored_plan(plan))
    moved = np.zeros(plan.n_parameters, parameters.dtype)
    reference.rearrange(compiled, stored, False, parameters, moved)
    space = Space(
        parameters=moved,
        state=np.zeros((plan.n_slots, moved.size), moved.dtype),
        gradients=np.zeros((n_shards, to_lines(moved.size, moved.itemsize)), moved.dtype),
        work=np.full((n_shards, plan.work_size + 8), np.nan, moved.dtype),
        position=np.zeros(1 + n_shards, np.intp),
        log_likelihood=np.zeros(1 + n_shards),
        penalties=np.zeros((len(plan.layers), plan.most_slices)),
        touched=np.zeros(1 + 2 * plan.layers[0].facts.n_in, np.int64) if plan.touches else None,
    )
    space.work[:, plan.work_size :] = 7
    for _ in range(10_000):
        module.train(batches, compiled, steps, space, space.work, 0.001, n_threads)
        if space.position[0] == n:
            break
    assert space.position[0] == n
    assert (space.work[:, plan.work_size :] == 7).all()  # beyond what the plan gives
    if plan.touches and module is epoch:
        n_in, n_out = plan.layers[0].facts[:2]
        W = moved[: n_in * n_out].reshape(n_in, n_out)
        touched.bring_up_to_date(steps, W, space.state, space.touched, -(-n // plan.batch_size))
    found = []
    for vector in (moved, *space.state, space.gradients[0, : moved.size]):
        found.append(np.empty_like(parameters))
        reference.rearrange(compiled, stored, True, vector, found[-1])
    state = np.array(found[1:-1])
    return found[0], state, space.log_likelihood[0] / n, space.penalties.sum() / n, found[-1]


def stored_plan(plan):
    """Plan of the same layers, as they are stored."""
    return forward_plan(tuple(planned.facts for planned in plan.layers), plan.dtype, 1, False)


KINDS = [
    "dense",
    "dense, transposed",
    "dense, panels",
    "other dtype",
    "uint8, transposed",
    "uint8, panels",
    "sparse",
    "sparse, sorted",
    "sparse, blocks",
]
PROBLEM = "sizes, names, n, batch_size, block_rows"
PROBLEMS = [
    ((5, 3), (), 1, 1, 1),
    ((5, 3), (), 37, 10, 4),  # several row blocks, a short last batch and a short last row block
    ((1, 4, 2), ("tanh",), 30, 7, 16),
    ((6, 5, 9, 3), ("sigmoid", "relu"), 50, 50, 64),
    ((8, 5, 3), ("tanh",), 1201, 1201, 100),
    ((6, 5, 9, 4, 3), ("tanh", "identity", "relu"), 1500, 1100, 100),  # shards
    ((40, 51, 3), ("tanh",), 901, 150, 128),  # two slices of units
    ((7, 200, 3), ("relu",), 900, 250, 128),  # four slices
    ((67, 53, 3), ("tanh",), 300, 110, 128),
    ((64, 70, 3), ("tanh",), 1300, 1200, 128),  # shards of a wide layer
    ((30, 60, 20, 210, 3), ("tanh", "relu", "sigmoid"), 500, 120, 128),  # layers with 2, 1 and 4 slices
    ((30, 210, 20, 3), ("tanh", "relu"), 500, 120, 128),  # more threads than the last layer has slices
    ((5, 600, 530, 3), ("tanh", "relu"), 70, 40, 64),  # slices of more than WIDE_INPUTS
    ((9, 200, 3), ("tanh",), 1301, 700, 100),  # sparse rows: a large batch, four slices
    ((9, 203, 20, 3), ("tanh", "relu"), 1300, 600, 100),  # and two hidden layers, and a short last batch
]


@parametrize_pairs({PROBLEM: PROBLEMS, "kind, dtype": itertools.product(KINDS, DTYPES), "update": updates.UPDATES})
def test_epoch(dtype, assert_close, rng, update, kind, sizes, names, n, batch_size, block_rows):
    numbers, _ = NUMBERS[update]
    check_epoch(dtype, assert_close, rng, update, numbers, 0.01, kind, sizes, names, n, batch_size, block_rows)


# Updates that are linear without a gradient.
@parametrize_pairs({PROBLEM: PROBLEMS, "update": ["sgd", "momentum", "nesterov"], "dtype": DTYPES})
def test_epoch_with_touched_columns(dtype, assert_close, rng, update, sizes, names, n, batch_size, block_rows):
    kind, (numbers, _) = "sparse, touched", NUMBERS[update]
    check_epoch(dtype, assert_close, rng, update, numbers, 0.01, kind, sizes, names, n, batch_size, block_rows)


def check_epoch(dtype, assert_close, rng, update, numbers, l2, kind, sizes, names, *arguments, **others):
    """Compare an epoch with that of the reference.

    Rounding may bring a number to the other side of a ReLU's kink, and the steps elsewhere; but not in two draws.
    """
    arguments = (dtype, assert_close, rng, update, numbers, l2, kind, sizes, names, *arguments)
    try:
        compare_epoch(*arguments, **others)
    except AssertionError:
        if "relu" not in names:
            raise
        compare_epoch(*arguments, **others)


def compare_epoch(
    dtype, assert_close, rng, update, numbers, l2, kind, sizes, names, n, batch_size, block_rows, **others
):
    shapes = shapes_of(sizes, names, others.get("dropout", 0.0), others.get("batch_norm", False))
    storage, _, kind = kind.partition(", ")
    X = rng.integers(0, 256, (n, sizes[0])) * (rng.random((n, sizes[0])) < (0.02 if kind == "touched" else 0.5))
    X = X.astype({"dense": dtype, "sparse": dtype, "uint8": "uint8"}.get(storage, "float64"))
    X = X if storage == "uint8" else X / 256
    X = X.astype("float32" if (dtype, storage) == ("float64", "other dtype") else X.dtype)
    X = to_csr(X.astype(dtype), np.dtype(dtype)) if storage == "sparse" else X
    order = rng.permutation(n) if n % 2 == 0 and kind != "blocks" else None  # sorted blocks are of rows in order
    loss = others.get("loss", "cross_entropy")
    y = rng.integers(0, sizes[-1], n) if loss == "cross_entropy" else rng.random((n, sizes[-1])).astype(dtype)
    weights, levels = rng.random(n) if others.get("weighted") else None, np.array(levels_of(loss, sizes[-1]))
    targets = Targets(losses.LOSSES[loss], y, weights, others.get("smoothing", 0.0), levels)
    if update == "none":
        batch_size = n
    n_batches = -(-n // batch_size)
    l1, decay = others.get("l1", 0.0), others.get("decay", 0.0)
    table = np.tile(np.array([l2, l1, decay, *numbers]), (n_batches, 1))
    if kind != "touched" and update != "none":
        table[:, 3] *= np.linspace(1, 0.8, n_batches)  # learning rates may change from step to step
    clip_norm, max_norm = others.get("clip_norm", 0.0), others.get("max_norm", 0.0)
    steps = Steps(updates.UPDATES[update], table, clip_norm, max_norm)
    plain = l1 == decay == clip_norm == 0
    method = Method(batch_size, update, NUMBERS[update][1], plain, l2 != 0, kind == "touched", max_norm > 0)
    plan = plan_for(kind, shapes, dtype, X, method, block_rows, order is None)
    if storage != "sparse":
        assert plan.layers[0].form == (kind or "stored")
    else:
        kind = kind if plan.block_rows <= tuning.MAX_BLOCK_ROWS else ""  # a larger row block is not sorted
        reached = "touched" if plan.touches else {"once": "blocks", "each batch": "sorted"}.get(plan.sorting, "")
        assert reached == kind
    parameters = 0.5 * draw(rng, stored_plan(plan).n_parameters, dtype=dtype)
    for planned in stored_plan(plan).layers:
        if planned.facts.batch_norm:
            parameters[planned.norm :][: 3 * planned.facts.n_out] = 0.5 + rng.random(3 * planned.facts.n_out)
    blocks = sort_blocks(X, np.array(plan.row_blocks(n), np.int64)) if plan.sorting == "once" else None
    batches = Batches(X, targets, order, 2**62 + 3, blocks)
    ours, expected = (run_epoch(module, batches, plan, parameters, steps) for module in (epoch, reference))
    for i, (found, wanted) in enumerate(zip(ours[:4], expected[:4], strict=True)):
        # Roundings add up over the steps of an epoch; steps of touched rows leave a penalty out.
        if i != 3 or not plan.touches:
            assert_close(found, wanted, 40)
    if update == "none":
        assert_close(ours[4], expected[4], 20)
        np.testing.assert_array_equal(ours[0], parameters)
    else:
        assert not np.array_equal(ours[0], parameters)
    for n_threads in (1, 3, 4):
        for found, wanted in zip(run_epoch(epoch, batches, plan, parameters, steps, n_threads), ours, strict=True):
            np.testing.assert_array_equal(found, wanted)


@parametrize_pairs(
    {
        "kind": ["dense", "dense, transposed", "dense, panels", "uint8, transposed", "sparse", "sparse, sorted"],
        PROBLEM: [
            ((5, 3), (), 37, 10, 4),
            ((6, 5, 9, 3), ("gelu", "silu"), 50, 50, 64),
            ((6, 5, 9, 4, 3), ("leaky_relu", "gelu", "elu"), 1500, 1100, 100),  # shards
            ((40, 51, 3), ("silu",), 901, 150, 128),  # two slices of units
            ((30, 60, 20, 210, 3), ("tanh", "softplus", "sigmoid"), 500, 120, 128),
            ((67, 53, 70, 2), ("elu", "relu"), 300, 110, 128),
            ((9, 200, 3), ("silu",), 901, 600, 100),  # sparse rows: a large batch, four slices
        ],
        "others": [
            {"loss": "binary_cross_entropy", "weighted": True},
            {"loss": "squared"},
            {"loss": "huber", "clip_norm": 0.05},
            {"loss": "absolute", "weighted": True, "max_norm": 1.0},
            {"loss": "quantile", "weighted": True},
            {"weighted": True, "smoothing": 0.1, "l1": 0.01},
            {"dropout": 0.4},
            {"dropout": 0.2, "max_norm": 0.9, "weighted": True},
            {"clip_norm": 0.02, "decay": 0.01, "update": "adam"},
            {"l1": 0.01, "dropout": 0.3, "update": "nesterov", "clip_norm": 1e9, "max_norm": 0.9},
        ],
        "dtype": DTYPES,
    }
)
def test_epoch_with_other_losses_and_more_regularisation(
    dtype, assert_close, rng, kind, sizes, names, n, batch_size, block_rows, others
):
    update = others.get("update", "sgd")
    others = {name: value for name, value in others.items() if name != "update"}
    numbers = [0.01] if update == "sgd" else NUMBERS[update][0]  # long steps would magnify roundings
    check_epoch(
        dtype, assert_close, rng, update, numbers, 0.01, kind, sizes, names, n, batch_size, block_rows, **others
    )


@parametrize_pairs(
    {
        "update": updates.UPDATES,
        "kind": [
            "dense",
            "dense, transposed",
            "dense, panels",
            "uint8, transposed",
            "sparse, sorted",
            "sparse, blocks",
        ],
        "sizes, names, n, batch_size": [
            ((5, 4, 3), ("tanh",), 37, 12),  # a last batch of one row
            ((5, 1, 6, 3), ("gelu", "relu"), 30, 30),
            ((70, 80, 66, 3), ("relu", "tanh"), 300, 120),  # several tiles of units
            ((67, 90, 2), ("sigmoid",), 1211, 1100),  # several products of PRODUCT_ROWS
        ],
        "dtype": DTYPES,
    }
)
def test_epoch_with_batch_normalisation(dtype, assert_close, rng, update, kind, sizes, names, n, batch_size):
    others = {"sgd": {"dropout": 0.2, "weighted": True, "max_norm": 1.5}, "adam": {"clip_norm": 0.1, "l1": 0.01}}
    # Steps divided by a gradient's size keep its relative error in full, even if the gradient is small.
    numbers = NUMBERS[update][0] if update not in ("rmsprop", "adagrad", "adam") else [1e-4, *NUMBERS[update][0][1:]]
    options = others.get(update, {}) | {"batch_norm": True}
    check_epoch(dtype, assert_close, rng, update, numbers, 0.01, kind, sizes, names, n, batch_size, None, **options)


@pytest.mark.parametrize("n", [1, 5, 300])
def test_forward(dtype, assert_close, rng, n):
    X, parameters = draw(rng, n + 4, 6, dtype=dtype), draw(rng, 53, dtype=dtype)
    for data in (X, to_csr(X, X.dtype)):
        plan = CompiledPlan(forward_plan(shapes_of((6, 5, 3), ["tanh"]), dtype, 20, isinstance(data, CSRRows)))
        work = np.empty((3, plan.source.work_size), dtype)
        ours, expected = call_both(
            "forward",
            lambda o, d=data, p=plan, w=work: (d, 2, p, parameters, w, *o, 2),
            [np.zeros((n, 3), dtype)],
        )
        assert_close(ours[0], expected[0], 4)


def test_csr_rows_know_their_shape():
    found = CSRRows(np.ones(1, np.float32), np.zeros(1, np.int32), np.array([0, 1, 1]), 5)
    assert found.shape == (2, 5)
    assert found.dtype == np.float32


def lbfgs_memory(rng, n, m, dtype):
    # Pairs of a quadratic function, so that each y has a positive product with its s.
    memory = make_memory(n, m, np.dtype(dtype))
    memory.x[:], memory.g[:], memory.d[:] = (draw(rng, n, dtype=dtype) for _ in range(3))
    curvature = rng.uniform(0.5, 2, n)
    for slot in range(m):
        x = draw(rng, n, dtype=dtype)
        lbfgs.remember(x, (memory.g - curvature * (x - memory.x)).astype(dtype), memory, slot, 1)
    return memory


@pytest.mark.parametrize("n", [1, 3, 33, 4097, 8 * 2 * 4096 + 5])
@pytest.mark.parametrize("m", [1, 3])
def test_lbfgs_kernels(dtype, assert_close, rng, n, m):
    memory = lbfgs_memory(rng, n, m, dtype)
    parameters, gradient = draw(rng, n, dtype=dtype), draw(rng, n, dtype=dtype)
    by_threads = []
    for kernels, n_threads in ((reference, 1), (lbfgs, 1), (lbfgs, 2)):
        own, out = Memory(*(array.copy() for array in memory)), np.empty(n, dtype)
        kernels.remember(parameters, memory.g - 0.7 * (parameters - memory.x), own, m // 2, n_threads)
        slopes = [
            kernels.point(own, own.g, m // 2, min(m, 1 + m // 2), n_threads),
            kernels.slope(gradient, own, n_threads),
        ]
        kernels.move(out, own, 0.3, n_threads)
        by_threads.append([own.x, own.g, own.d, *own.pairs, np.array(slopes), out, own.products])
    expected, *found = by_threads
    for ours, theirs, others in zip(found[0], expected, found[1], strict=True):
        assert_close(ours, theirs, 100)  # sums of up to 65,541 terms, and quotients of such
        np.testing.assert_array_equal(others, ours)
