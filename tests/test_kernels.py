"""Each compiled kernel against its NumPy twin: signatures first, then values."""

import inspect
import itertools

import numpy as np
import pytest
from scipy import sparse as scipy_sparse
from scipy import special

from fastnn import reference
from fastnn._engine import to_csr
from fastnn.kernels import activations, affine, blas, dense, epoch, rows, softmax, sparse, touched, units, updates
from fastnn.kernels.rows import CSRRows

MODULES = (blas, rows, activations, softmax, affine, dense, sparse, updates, touched, units, epoch)
KERNELS = {
    name: kernel
    for module in MODULES
    for name, kernel in vars(module).items()
    if type(kernel).__name__ in ("cython_function_or_method", "fused_cython_function")
    and not name.endswith(
        ("work_shape", "work_size", "go_by_units", "slice_bounds", "vector_size", "transposes_output", "block_bounds")
    )  # they plan for these kernels, the twins need no space
}
SIZES = (0, 1, 3, 10, 33)


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


def test_constants_agree():
    assert activations.ACTIVATIONS == reference.ACTIVATIONS
    assert updates.UPDATES == reference.UPDATES
    assert rows.UINT8_SCALE == reference.UINT8_SCALE == 1 / 256
    assert blas.MAX_DIMENSION in (2**31 - 1, 2**63 - 1)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("m", [0, 1, 7])
@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("k", [0, 1, 9])
def test_gemm(dtype, assert_close, rng, m, n, k, transpose_a, transpose_b):
    A = draw(rng, *((k, m) if transpose_a else (m, k)), dtype=dtype)
    B = draw(rng, *((n, k) if transpose_b else (k, n)), dtype=dtype)
    C = draw(rng, m, n, dtype=dtype)
    for alpha, beta in ((1.0, 0.0), (0.5, 1.0), (-2.0, 0.25)):
        ours, expected = call_both("gemm", lambda o, s=(alpha, beta): (A, B, *o, *s, transpose_a, transpose_b), [C])
        assert_close(ours[0], expected[0], 4)


def test_touch_buffers(dtype, assert_close, rng):
    A, B = draw(rng, 9, 5, dtype=dtype), draw(rng, 5, 4, dtype=dtype)
    ours, expected = call_both("touch_buffers", lambda o: (A, B, *o, 2), [np.zeros((3, 9, 4), dtype)])
    assert_close(ours[0], expected[0], 4)


def test_gemm_ignores_what_stood_in_the_output_where_beta_is_0(dtype):
    C = np.full((3, 2), np.nan, dtype)
    blas.gemm(np.ones((3, 4), dtype), np.ones((4, 2), dtype), C)
    np.testing.assert_array_equal(C, 4)


@pytest.mark.parametrize("activation", list(activations.ACTIVATIONS))
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


def ulps(actual, expected):
    """Distance in units of the last place of the expected value."""
    return np.abs(actual.astype(np.longdouble) - expected) / np.spacing(np.abs(expected).astype(actual.dtype))


def test_tanh_is_accurate_over_the_whole_range(dtype):
    # 2.5 units in the last place from denormals to saturation, against a wider format.
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.concatenate([np.geomspace(tiny, 30, 200_001), np.linspace(0, 1.5, 200_001)]).astype(dtype)
    y = np.concatenate([x, -x])[None]
    expected = np.tanh(y.astype(np.longdouble))
    activations.inplace_activation(activations.ACTIVATIONS["tanh"], y)
    assert ulps(y, expected).max() <= 2.5
    assert np.abs(y).max() == 1


def test_sigmoid_is_accurate_on_both_sides(dtype):
    limit = 87 if dtype == "float32" else 708
    x = np.linspace(-limit, limit, 200_001, dtype=dtype)[None]
    expected = 1 / (1 + np.exp(-x.astype(np.longdouble)))
    activations.inplace_activation(activations.ACTIVATIONS["sigmoid"], x)
    assert ulps(x, expected).max() <= 4


@pytest.mark.parametrize("activation", list(activations.ACTIVATIONS))
def test_activations_at_infinity_and_nan(dtype, activation):
    Z = np.array([[np.inf, -np.inf, np.nan, 0.0, -0.0]], dtype)
    expected = Z.copy()
    reference.inplace_activation(reference.ACTIVATIONS[activation], expected)
    activations.inplace_activation(activations.ACTIVATIONS[activation], Z)
    np.testing.assert_array_equal(Z, expected)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("n_classes", [1, 2, 10, 17])
def test_softmax(dtype, assert_close, rng, n, n_classes):
    Z = 5 * draw(rng, n, n_classes, dtype=dtype)
    y = rng.integers(0, n_classes, n)
    (P,), (expected,) = call_both("inplace_softmax", lambda o: o, [Z])
    # exp turns the rounding of logits of about 10 into a relative error of 10 roundings.
    assert_close(P, expected, 10)
    if n:
        assert_close(P, special.softmax(Z.astype(float), axis=1), 10)
        assert_close(P.sum(axis=1), np.ones(n))
    (log_P,), (expected,) = call_both("inplace_log_softmax", lambda o: o, [Z])
    assert_close(log_P, expected)
    (dZ, total), (expected, expected_total) = call_both("inplace_cross_entropy", lambda o: (*o, y, 0.3), [Z])
    assert_close(dZ, expected, 10)
    assert_close(total, expected_total, 2)


def test_log_softmax_does_not_overflow(dtype):
    limit = {"float32": 1e38, "float64": 1e300}[dtype]
    Z = np.array([[limit, 0.0, -limit], [-limit, -limit, -limit], [1e4, -1e4, 0.0]], dtype)
    dZ = Z.copy()
    softmax.inplace_log_softmax(Z)
    assert Z[0, 0] == 0
    assert Z[0, 1] == dtype_of(dtype)(-limit)
    np.testing.assert_allclose(Z[1], -np.log(3), rtol=1e-6)
    np.testing.assert_array_equal(Z[2], [0, -2e4, -1e4])
    total = softmax.inplace_cross_entropy(dZ, np.array([0, 1, 1]), 1.0)
    np.testing.assert_allclose(total, -np.log(3) - 2e4, rtol=1e-6)
    assert np.isfinite(dZ).all()


def dtype_of(name):
    return np.dtype(name).type


def test_cross_entropy_passes_nan_on(dtype):
    Z = np.array([[np.nan, 1.0], [0.0, np.inf]], dtype)
    for row in Z:
        assert np.isnan(softmax.inplace_cross_entropy(row[None].copy(), np.array([0]), 1.0))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("n_in", [0, 1, 13])
@pytest.mark.parametrize("n_out", [0, 1, 10])
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


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("n_in", [0, 1, 13, 32, 71])
@pytest.mark.parametrize("n_out", [0, 1, 2, 5, 6, 20])
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


@pytest.mark.parametrize("sparse_rows", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 7), (17, 20, 2), (70, 53, 3), (33, 210, 4), (600, 250, 2)])
def test_rearrange(dtype, rng, sizes, sparse_rows):
    sizes = np.array(sizes, np.intp)
    vector = draw(rng, sum((i + 1) * o for i, o in itertools.pairwise(sizes)), dtype=dtype)
    sliced_size = units.vector_size(sizes, sparse_rows, vector.itemsize)
    for n_threads in (1, 2):
        results = []
        for back in (False, True):
            given = results[0] if back else vector
            ours, expected = call_both(
                "rearrange",
                lambda o, b=back, g=given, n=n_threads: (sizes, sparse_rows, b, g, *o, n),
                [np.full(vector.size if back else sliced_size, 7, dtype)],
            )
            np.testing.assert_array_equal(ours[0], expected[0])
            results.append(ours[0])
        np.testing.assert_array_equal(results[1], vector)


def test_dense_layer_ignores_what_stood_in_the_output_where_beta_is_0(dtype):
    dW = np.full((7, 70), np.nan, dtype)
    dense.backprop_dense_weight(np.ones((2, 70), dtype), np.ones((2, 7), dtype), dW)
    np.testing.assert_array_equal(dW, np.full((7, 70), 2, dtype))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("n_out", [1, 10, 83, 150])
@pytest.mark.parametrize("density", [0, 0.2, 1])
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


@pytest.mark.parametrize("n", SIZES)
def test_counting_and_filling_non_zeros(dtype, rng, n):
    X = draw(rng, n, 5, dtype=dtype) * (rng.random((n, 5)) < 0.5)
    ours, expected = call_both("count_nonzeros", lambda o: (X, *o), [np.empty(n + 1, np.int64)])
    np.testing.assert_array_equal(ours[0], expected[0])
    count = ours[0][-1]
    ours, expected = call_both("fill_nonzeros", lambda o: (X, *o), [np.empty(count, dtype), np.empty(count, np.int32)])
    for array, other in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("stored", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("n", SIZES)
def test_gather(dtype, rng, n, stored):
    X = (100 * rng.random((20, 6))).astype(stored)
    order = rng.integers(0, 20, n)
    (ours,), (expected,) = call_both("gather", lambda o: (X, order, *o), [np.zeros((n, 6), dtype)])
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("update", list(updates.UPDATES))
@pytest.mark.parametrize("n", SIZES)
def test_updates(dtype, assert_close, rng, update, n):
    n_slots = int(update in ("momentum", "nesterov"))
    hyperparameters = np.array([0.3, 0.9][: 1 + n_slots]) if update != "none" else np.empty(0)
    gradient = draw(rng, n, dtype=dtype)
    outputs = [draw(rng, n, dtype=dtype), draw(rng, n_slots, n, dtype=dtype)]
    ours, expected = call_both(
        "inplace_update", lambda o: (updates.UPDATES[update], hyperparameters, o[0], gradient, o[1]), outputs
    )
    assert_close(ours[0], expected[0])
    assert_close(ours[1], expected[1])


def sort_blocks(X, *rows_at_once):
    bounds = np.array(epoch.block_bounds(X.shape[0], *rows_at_once), np.int64)
    starts = np.empty((len(bounds) - 1, X.n_columns + 2), np.int32)
    blocks = sparse.SortedBlocks(np.empty_like(X.data), np.empty_like(X.indices), starts, bounds)
    sparse.sort_blocks(X, *(blocks.bounds, blocks.data, blocks.rows, blocks.starts))
    return blocks


@pytest.mark.parametrize("n", [1, 33, 700])
def test_sort_blocks(dtype, rng, n):
    X = to_csr((draw(rng, n, 13, dtype=dtype) * (rng.random((n, 13)) < 0.4)).astype(dtype), np.dtype(dtype))
    bounds = np.array(epoch.block_bounds(n, n, 10, False), np.int64)
    outputs = [np.empty_like(X.data), np.empty_like(X.indices), np.full((len(bounds) - 1, 15), 7, np.int32)]
    ours, expected = call_both("sort_blocks", lambda o: (X, bounds, *o, 2), outputs)
    for found, wanted in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def run_epoch(
    module,
    X,
    y,
    order,
    batch_size,
    sizes,
    codes,
    parameters,
    update,
    l2,
    block_rows,
    n_threads=2,
    by_slices=False,
    nonzeros=0,
    touches=False,
    in_blocks=False,
):
    """One epoch by the compiled engine or its twin; returns parameters, state, mean log-likelihood, gradient."""
    parameters = parameters.copy()
    shape = epoch.work_shape(sizes, codes, batch_size, block_rows, updates.UPDATES[update], nonzeros, touches)
    columns = np.zeros(1 + 2 * sizes[0], np.int64) if touches else None
    by_units = epoch.go_by_units(sizes, codes, batch_size, updates.UPDATES[update])
    blocks = sort_blocks(X, batch_size, block_rows, by_units) if in_blocks else None
    lanes = shape[0]
    momentum = update in ("momentum", "nesterov")
    state = np.zeros((int(momentum), parameters.size), parameters.dtype)
    gradients = np.zeros((lanes, parameters.size), parameters.dtype)
    work = np.full(shape, np.nan, parameters.dtype)
    position, log_likelihood = np.zeros(1 + lanes, np.intp), np.zeros(1 + lanes)
    hyperparameters = np.array([0.2, 0.5][: 1 + momentum])
    for _ in range(10_000):
        module.train(
            X,
            y,
            order,
            batch_size,
            sizes,
            codes,
            parameters,
            updates.UPDATES[update],
            hyperparameters,
            l2,
            state,
            gradients,
            work,
            block_rows,
            position,
            log_likelihood,
            0.001,
            n_threads,
            by_slices,
            nonzeros,
            columns,
            blocks,
        )
        if position[0] == len(y):
            break
    assert position[0] == len(y)
    if touches and module is epoch:
        W = parameters[: sizes[0] * sizes[1]].reshape(sizes[:2])
        n_steps = -(-len(y) // batch_size)
        touched.bring_up_to_date(updates.UPDATES[update], hyperparameters, l2, W, state, columns, n_steps)
    return parameters, state, log_likelihood[0] / len(y), gradients[0]


@pytest.mark.parametrize("update", list(updates.UPDATES))
@pytest.mark.parametrize(
    "kind",
    [
        "dense",
        "dense, by slices",
        "other dtype",
        "uint8, by slices",
        "sparse",
        "sparse, sorted",
        "sparse, blocks",
        "sparse, touched",
    ],
)
@pytest.mark.parametrize(
    ("sizes", "names", "n", "batch_size", "block_rows"),
    [
        ((5, 3), (), 1, 1, 1),
        ((5, 3), (), 37, 10, 4),  # blocks within a batch, a short last batch and a short last block
        ((1, 4, 2), ("tanh",), 30, 7, 16),
        ((6, 5, 9, 3), ("sigmoid", "relu"), 50, 50, 64),
        ((8, 5, 3), ("tanh",), 1201, 1201, 100),
        ((6, 5, 9, 4, 3), ("tanh", "identity", "relu"), 1500, 1100, 100),  # lanes
        ((40, 51, 3), ("tanh",), 901, 150, 128),  # two slices of units
        ((7, 200, 3), ("relu",), 900, 250, 128),  # four slices
        ((67, 53, 3), ("tanh",), 300, 110, 128),
        ((30, 60, 20, 210, 3), ("tanh", "relu", "sigmoid"), 500, 120, 128),  # layers with 2, 1 and 4 slices
        ((30, 210, 20, 3), ("tanh", "relu"), 500, 120, 128),  # more threads than the last layer has slices
    ],
)
def test_epoch(dtype, assert_close, rng, update, kind, sizes, names, n, batch_size, block_rows):
    sizes = np.array(sizes, np.intp)
    codes = np.array([activations.ACTIVATIONS[name] for name in names], np.int32)
    by_slices, nonzeros = "slices" in kind, n * int(sizes[0]) if "sorted" in kind else 0
    touches = "touched" in kind and update != "none"
    full_kind, kind = kind, kind.split(",")[0]
    X = rng.integers(0, 256, (n, sizes[0])) * (rng.random((n, sizes[0])) < (0.02 if touches else 0.5))
    X = X.astype({"dense": dtype, "sparse": dtype, "uint8": "uint8"}.get(kind, "float64"))
    X = X if kind == "uint8" else X / 256
    X = X.astype("float32" if (dtype, kind) == ("float64", "other dtype") else X.dtype)
    X = to_csr(X.astype(dtype), np.dtype(dtype)) if kind == "sparse" else X
    order = rng.permutation(n) if n % 2 == 0 else None
    y = rng.integers(0, sizes[-1], n)
    if update == "none":
        batch_size = n
    if kind == "sparse" and not touches:
        by_slices = epoch.go_by_units(sizes, codes, batch_size, updates.UPDATES[update])
    size = sum((i + 1) * o for i, o in itertools.pairwise(sizes))
    if by_slices:
        size = units.vector_size(sizes, kind == "sparse", np.dtype(dtype).itemsize)
    parameters = 0.5 * draw(rng, size, dtype=dtype)
    arguments = (X, y, order, batch_size, sizes, codes, parameters, update, 0.01, block_rows)
    in_blocks = "blocks" in full_kind and order is None
    options = (by_slices, nonzeros, touches, in_blocks)
    ours, expected = (run_epoch(module, *arguments, 2, *options) for module in (epoch, reference))
    for found, wanted in zip(ours[:3], expected[:3], strict=True):
        # Roundings add up over the steps of an epoch.
        assert_close(found, wanted, 40)
    if update == "none":
        assert_close(ours[3], expected[3], 20)
        np.testing.assert_array_equal(ours[0], parameters)
    else:
        assert not np.array_equal(ours[0], parameters)
    for n_threads in (1, 3, 4):
        for found, wanted in zip(run_epoch(epoch, *arguments, n_threads, *options), ours, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("n", [1, 5, 300])
def test_forward(dtype, assert_close, rng, n):
    sizes, codes = np.array([6, 5, 3], np.intp), np.array([1], np.int32)
    X, parameters = draw(rng, n + 4, 6, dtype=dtype), draw(rng, 53, dtype=dtype)
    work = np.empty((3, epoch.forward_work_size(sizes, codes, 20)), dtype)
    for data in (X, to_csr(X, X.dtype)):
        ours, expected = call_both(
            "forward", lambda o, d=data: (d, 2, sizes, codes, parameters, work, 20, *o, 2), [np.zeros((n, 3), dtype)]
        )
        assert_close(ours[0], expected[0], 4)


def test_csr_rows_know_their_shape():
    found = CSRRows(np.ones(1, np.float32), np.zeros(1, np.int32), np.array([0, 1, 1]), 5)
    assert found.shape == (2, 5)
    assert found.dtype == np.float32
