"""Names of Theano's notation, evaluated by Theano 1.0.5 to make `names.json`, and by the tests with fastnn.symbolic.

Each expression is of the arrays below.  Its gradients are those of the sum of its elements, each times its number,
counted from 1.  Made by Python 3.8 with numpy 1.19.5, scipy 1.5.4 and Theano 1.0.5, without a C compiler:

    THEANO_FLAGS=cxx= python names.py
"""

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("names.json")

#: Lengths n, m and k of the axes.
SIZES = {"some": (2, 3, 2), "one": (1, 1, 1), "none": (0, 3, 2)}

#: What the gradients are by.
REAL = "xyqvst"

CASES = {
    "made": """
        T.zeros((2, 3)); T.zeros(3, dtype='int32'); T.ones((x.shape[0], 2)); T.ones([2], 'float32'); T.zeros(x.shape)
        T.zeros_like(x, dtype='int8'); T.ones_like(i); x.zeros_like(); T.alloc(s, 2, 3)
        T.alloc(v, x.shape[0], v.size); T.alloc(0, 2); T.alloc(x, 2, *x.shape) * 2; T.fill(x, s); T.fill(x, 1)
        T.fill(x, v); T.second(x, y); x.fill(s); T.eye(3); T.eye(2, 4, 1); T.eye(3, k=-1, dtype='int32')
        T.identity_like(q); T.tri(3); T.tri(2, 4, 1); T.tril(q); T.triu(q); T.tril(x, -1); T.triu(x, 1); T.diag(v)
        T.diag(v, 1); T.diag(v, -2); T.diag(q); T.diag(x, 1); T.diagonal(x); T.nlinalg.diag(q); T.nlinalg.trace(q)
        q.trace(); x.diagonal(); T.diagonal(t, 0, 1, 2); T.extra_ops.to_one_hot(i, 4)
        T.extra_ops.to_one_hot(i, 4, dtype='int32'); T.bincount(i); T.bincount(i, minlength=6)
        T.bincount(i, weights=i * .5); T.fill_diagonal(q, 1.); T.fill_diagonal(q, s); T.as_tensor_variable([s, 2 * s])
        T.as_tensor([1, 2]); T.constant(2.5, dtype='float32')
    """,
    "joined": """
        T.stack([x, y]); T.stack([x, y], axis=1); T.stack([x, y], axis=-1); T.stack([s, 2 * s, 1])
        T.stack([v, v * 2]); T.join(0, x, y); T.join(1, x, y, x * 2); T.join(-1, x, y); T.concatenate([x, y], axis=1)
        T.concatenate([v, i]); T.horizontal_stack(x, y); T.vertical_stack(x, y); T.stacklists([[s, 1], [2, s]])
        T.stacklists([x, y]); T.split(v, [1, 2], 2)[1]; T.split(x, [1, 2], 2, axis=1)[0]; T.join(0, x.shape, [1])
        T.concatenate([x.shape[:1], i]); T.stack([x.shape[0], x.shape[1]]); T.tile(v, 2); T.tile(x, (2, 2))
        T.tile(v, (2, 2)); T.tile(x, (2,)); T.tile(x, (2, 1, 2)); T.tile(v, (2,), ndim=2); T.repeat(x, 2)
        T.repeat(x, 2, axis=0); T.repeat(x, 3, axis=1); T.repeat(v, np.array([1, 0, 2])); x.repeat(2, axis=1)
        T.extra_ops.repeat(v, i[:1].sum() + 1)
    """,
    "moved": """
        T.transpose(x); T.transpose(t); T.transpose(t, (1, 2, 0)); t.transpose(2, 0, 1); t.transpose((2, 0, 1))
        x.transpose(); T.swapaxes(t, 0, 2); t.swapaxes(1, 2); T.shape_padleft(x); T.shape_padleft(v, 2)
        T.shape_padright(x, 2); T.shape_padaxis(x, 1); T.shape_padaxis(x, -1); T.flatten(t, 2); t.flatten(2)
        x.flatten(); x.ravel(); t.flatten(ndim=2); T.roll(v, 1); T.roll(x, 1); T.roll(x, -1, axis=1)
        T.roll(x, 4, axis=1); T.roll(x, 1, axis=0); T.squeeze(x.sum(0, keepdims=True))
        x.dimshuffle(0, 'x', 1).squeeze(); T.squeeze(T.shape_padleft(v) + 1); T.unbroadcast(x, 0)
        T.patternbroadcast(x, (False, False)); T.reshape(x, (x.shape[1], x.shape[0])); x.reshape((-1,))
        x.reshape(x.shape[::-1], ndim=2); t.reshape((t.shape[0], -1), ndim=2); x.reshape([x.size])
        x.reshape(x.T.shape); v.dimshuffle('x', 0); x.copy(); T.tensor_copy(x); t.dimshuffle([2, 0, 1])
    """,
    "taken": """
        T.take(x, 0, axis=1); T.take(x, i * 0, axis=1); x.take([0, 2], axis=1); T.take(v, [[0, 1], [1, 2]])
        T.take(x, [0, 1]); T.take(v, [5, -7], mode='clip', axis=0); T.take(v, [5, -7], mode='wrap', axis=0)
        T.take(x, [5, 1], axis=1, mode='wrap'); T.sort(x); T.sort(x, axis=0); T.sort(v); x.sort(); T.argsort(x)
        T.argsort(x, axis=0); x.argsort(axis=1); T.sort(t, 1); T.sort(x, axis=None); T.argsort(x, axis=None)
        T.nonzero(x > .5)[0]; T.nonzero(x > .5)[1]; (x > .5).nonzero()[1]; T.nonzero(v, return_matrix=True)
        T.flatnonzero(x > .5); T.nonzero_values(x); x[(x > .5).nonzero()]; x[T.gt(x, .5).nonzero()] * 2
        T.extra_ops.compress(v - v[0], v); T.extra_ops.compress(v > .5, x, axis=1); T.argmin(x); T.argmin(x, axis=0)
        x.argmin(axis=1, keepdims=True); T.argmax(t, axis=(1, 2)); T.argmax(t, axis=[0, 2], keepdims=True)
        T.max_and_argmax(x, axis=1)[0]; T.max_and_argmax(x, axis=1)[1]; T.max_and_argmax(x)[0]
        T.max_and_argmax(x, axis=1, keepdims=True)[1]; T.cumsum(x); T.cumsum(x, axis=0); x.cumsum(axis=1)
        T.cumprod(y); T.cumprod(y, axis=1); y.cumprod(axis=0); T.extra_ops.diff(v); T.extra_ops.diff(x, axis=1)
        T.extra_ops.diff(x, n=2, axis=1); T.extra_ops.diff(x, axis=0)
    """,
    "put": """
        T.set_subtensor(x[0], 1.5); T.set_subtensor(x[:, 0], s); T.set_subtensor(x[:, 1:], y[:, 1:] * 2)
        T.set_subtensor(v[i], s); T.set_subtensor(x[:, ::-2], y[:, ::2]); T.set_subtensor(v[:2], v[1:] * 2)
        T.set_subtensor(x[0, 1], s); T.set_subtensor(x[:], v); T.set_subtensor(x[T.arange(x.shape[0]), 0], s)
        T.set_subtensor(x[:, i], 0.); T.set_subtensor(x[x > .5], 0.); T.set_subtensor(x[(x > .5).nonzero()], s)
        T.set_subtensor(x[i * 0, i], s); T.set_subtensor(t[:, 0, :], x[0])
        T.set_subtensor(T.zeros((3, 4))[:2, 1:], 1); T.set_subtensor(x.T[0], s); T.set_subtensor(i[1:], 7)
        T.set_subtensor(t[..., 0], s); T.inc_subtensor(x[0], 1.5); T.inc_subtensor(x[:, 0], s)
        T.inc_subtensor(x[:, 1:], y[:, 1:] * 2); T.inc_subtensor(v[i], s); T.inc_subtensor(v[i], i * .5)
        T.inc_subtensor(x[:, i], y[:, i]); T.inc_subtensor(x[i * 0, i], s); T.inc_subtensor(x[x > .5], 1.)
        T.inc_subtensor(x[T.arange(x.shape[0]), 0], s); T.inc_subtensor(x[::-1], y); T.inc_subtensor(v[i][:1], s)
        T.inc_subtensor(x[:], v); T.inc_subtensor(T.zeros((4,))[i], 1.); T.inc_subtensor(x[0, 1:], 1.) * 2
        T.inc_subtensor(x[0], v, set_instead_of_inc=True); T.set_subtensor(x[:, 0], T.set_subtensor(y[:, 0], s)[:, 0])
    """,
    "elements": """
        T.inv(y); T.sqr(x); T.square(x); T.sin(x); T.cos(x); T.tan(x); T.arcsin(x / 2); T.arccos(x / 2); T.arctan(x)
        T.arctan2(x, y); T.arctan2(y, v); T.sinh(x); T.cosh(x); T.arcsinh(x); T.arccosh(y + 1); T.arctanh(x / 2)
        T.exp2(x); T.log2(y); T.log10(y); T.deg2rad(x); T.rad2deg(x); T.erf(x); T.erfc(x); T.erfinv(x / 2); T.gamma(y)
        T.gammaln(y); T.psi(y); T.xlogx.xlogx(y); T.xlogx.xlogy0(x, y); T.tri_gamma(y).zeros_like() + y; x.sin()
        x.log1p(); y.sqrt(); x.exp(); y.log2(); x.tanh(); x.arctan(); T.floor(2 * x); T.ceil(2 * x); T.trunc(2 * x)
        T.round(2 * x); T.round(4 * x, mode='half_away_from_zero'); (4 * x).round(); T.round_half_to_even(4 * x)
        T.round_half_away_from_zero(4 * x); T.iround(4 * x); T.floor(i); T.ceil(i); T.trunc(i); x.floor() * x
        x.ceil(); x.trunc(); T.isnan(v / (v - v[0])); T.isinf(v / (v - v[0])); T.isnan(i); T.isinf(i)
        T.isclose(x, x + 1e-9); T.isclose(x, y); T.allclose(x, x + 1e-9); T.allclose(x, y)
        T.isclose(i / 0., i * -1 / 0.); T.isclose(i / 0., i / 0., equal_nan=True); T.pow(y, x); T.power(y, 2); y ** v
        T.pow(i, 2); T.add(x, y, v); T.mul(x, y, 2, v); T.sub(x, y); T.neg(x); T.sgn(x); T.abs_(x); T.true_div(x, y)
        T.true_div(i, 2); T.int_div(x, y); T.floor_div(i, 2); T.mod(x, y); T.mod(i, 2); T.divmod(x, y)[0]
        T.divmod(x, y)[1]; divmod(i, 2)[1]; T.ceil_intdiv(i, 2); T.maximum(x, y); T.minimum(x, v); T.largest(x, y)
        T.smallest(x, y); T.largest(x, y, 2 * x); T.smallest(x, y, 2 * x); T.where(x > .5, x, y)
        T.switch(x > .5, v, 0); T.clip(x, 0, y); x.clip(0, .5); (x > .5) & (y > 1); (x > .5) | (y > 1)
        (x > .5) ^ (y > 1); ~(x > .5); i & 1; i | 4; i ^ 3; ~i; 1 & i; T.and_(i, i + 1); T.or_(x > .5, y > 1)
        T.xor(i, 1); T.invert(x > .5); T.bitwise_and(i, 3); T.bitwise_or(i, 3); T.bitwise_xor(i, 3); T.bitwise_not(i)
        T.outer(v, v); T.outer(x, v); T.outer(s, v); T.cast(x, 'int32'); x.astype('float32'); T.ge(x, y); T.le(x, y)
        T.eq(x, x); T.neq(x, y); abs(x); -x; x // y; x % y; 2 / y; 1 - x
    """,
    "reduced": """
        T.sum([s, 2 * s]); T.mean([s, 2 * s, 1]); T.sum([v, v]); T.max([s, 2 * s]); x.sum(dtype='float64')
        i.sum(dtype='int32'); T.sum(x, dtype='float32'); x.sum(axis=(0, 1)); t.sum(axis=(0, 2)); t.sum(axis=[-1, 0])
        t.sum(axis=-1, keepdims=True); x.sum(axis=(0, 1), keepdims=True); T.mean(x, dtype='float64')
        T.mean(i, dtype='float32'); x.mean(axis=0, keepdims=True); x.mean(axis=-1, acc_dtype='float64')
        t.mean(axis=(0, 2)); T.mean(x > .5); (x > .5).sum(); (x > .5).sum(axis=0, dtype='int32'); T.std(x)
        T.std(x, axis=0); x.std(axis=1, keepdims=True); T.std(y, axis=1, ddof=1); T.var(x); T.var(x, axis=1)
        x.var(axis=(0, 1)); T.var(x, axis=1, ddof=1); T.var(x, ddof=1); T.var(x, axis=0, corrected=True)
        T.var(x, axis=1, ddof=1, corrected=True); T.var(t, axis=[0, 2], keepdims=True); T.var(i); T.prod(y)
        T.prod(y, axis=0); y.prod(axis=1, keepdims=True); T.prod(i + 1); T.prod(x * (x > .5), axis=1)
        T.prod(x, dtype='float64'); x.shape.prod(); T.any(x > 1); T.any(x > 1, axis=0); (x > .5).all(axis=1)
        T.all(x > -9); x.any(); (x > .5).any(axis=1, keepdims=True); T.all(i, axis=0); T.ptp(x); T.ptp(x, axis=0)
        x.ptp(axis=1); x.norm(2); y.norm(1, axis=0); x.norm(2, axis=1); x.norm(3, axis=1, keepdims=True)
        x.norm(2, axis=(0, 1)); T.max(x, axis=(0, 1)); T.max(t, axis=[0, 2]); T.min(t, axis=-1, keepdims=True)
        t.min(axis=(1, 2)); T.max(i); i.max(); x.size; T.shape(x); T.get_vector_length(x.shape) + s
    """,
    "products": """
        T.dot(t, v); T.dot(v, t.dimshuffle(0, 2, 1)); T.dot(t, x.T); T.dot(x, t.dimshuffle(0, 2, 1))
        T.dot(t, t.dimshuffle(0, 2, 1)); t.dot(v); T.batched_dot(t, t.dimshuffle(0, 2, 1)); T.batched_dot(x, x)
        T.batched_dot(x, T.stack([x, y]).dimshuffle(1, 2, 0)); T.batched_dot(T.stack([x, y]).dimshuffle(1, 0, 2), x)
        T.batched_dot(x[:, 0], x); T.batched_dot(x, x[:, 1])
        T.batched_dot(t.dimshuffle(0, 1, 'x', 2), t.dimshuffle(0, 2, 1)); T.batched_tensordot(t, t, [[1, 2], [1, 2]])
        T.batched_tensordot(t, t, [[2], [2]]); T.batched_tensordot(x, x, 1); T.tensordot(x, y, 2)
        T.tensordot(x, y, 0); T.tensordot(x, y, [[1], [1]]); T.tensordot(t, x, [[1, 2], [0, 1]])
        T.tensordot(t, t, [[0, 2], [0, 2]]); T.tensordot(t, v, 1); T.tensordot(x, x, axes=[[0, 1], [0, 1]])
        T.tensordot(t, x, axes=((1,), (0,))); T.nlinalg.matrix_inverse(q + 3 * T.eye(q.shape[0]))
        T.nlinalg.det(q + 3 * T.eye(q.shape[0])); T.nlinalg.matrix_dot(x, q, q)
    """,
    "nets": """
        T.nnet.relu(x); T.nnet.relu(x, .1); T.nnet.relu(x, s); T.nnet.elu(x); T.nnet.elu(x, .5); T.nnet.selu(x)
        T.nnet.softsign(x); T.nnet.softplus(x); T.nnet.hard_sigmoid(4 * x); T.nnet.hard_sigmoid(x)
        T.nnet.ultra_fast_sigmoid(theano.gradient.disconnected_grad(4 * x)); T.nnet.softmax(x); T.nnet.softmax(v)
        T.nnet.logsoftmax(x); T.nnet.softmax_graph(x); T.nnet.softmax_graph(t); T.nnet.softmax_with_bias(x, v)
        T.nnet.binary_crossentropy(T.nnet.sigmoid(x), y); T.nnet.sigmoid_binary_crossentropy(x, y)
        T.nnet.sigmoid_binary_crossentropy(x * 0, y); T.nnet.categorical_crossentropy(T.nnet.softmax(x), y)
        T.nnet.categorical_crossentropy(T.nnet.softmax(x), c); T.nnet.crossentropy_categorical_1hot(y, c)
        T.nnet.categorical_crossentropy(T.nnet.softmax_graph(t), t)
        T.nnet.crossentropy_softmax_argmax_1hot_with_bias(x, v, c)[0]
        T.nnet.crossentropy_softmax_argmax_1hot_with_bias(x, v, c)[1]
        T.nnet.crossentropy_softmax_argmax_1hot_with_bias(x, v, c)[2]; T.nnet.crossentropy_softmax_1hot(x, c)[0]
        T.nnet.crossentropy_softmax_max_and_argmax_1hot(x, c)[2]
        T.nnet.crossentropy_softmax_max_and_argmax_1hot(x, c)[3]; T.nnet.confusion_matrix(i, i[::-1])[0]
        T.nnet.confusion_matrix(i, i + 1)[1]; T.nnet.batch_normalization(x, v, v, v, v + 2, 'high_mem')
        T.nnet.bn.batch_normalization_train(x, v, v)[0]; T.nnet.bn.batch_normalization_train(x, v, 2 * v)[1]
        T.nnet.bn.batch_normalization_train(x, v, v)[2]
        T.nnet.bn.batch_normalization_train(t, v, v + 1, axes=(0, 1), epsilon=.01)[0]
        T.nnet.bn.batch_normalization_train(t, v.dimshuffle('x', 'x', 0), v.dimshuffle('x', 'x', 0), axes=(0, 1))[0]
        T.nnet.bn.batch_normalization_train(t, x[:, 0], x[:, 1], 'spatial')[0]
        T.nnet.bn.batch_normalization_train(t, x, y)[0]
        T.nnet.bn.batch_normalization_train(x, v, v, running_mean=v, running_var=v + 2)[3]
        T.nnet.bn.batch_normalization_train(t, x, y, running_mean=x, running_var=y, running_average_factor=.3)[4]
        T.nnet.bn.batch_normalization_test(x, v, v, v, v + 2)
        T.nnet.bn.batch_normalization_test(t, x[:, 0], x[:, 1], x[:, 0], y[:, 1], 'spatial')
    """,
    "passing": """
        T.jacobian(T.dot(x, v), x); T.jacobian(T.tanh(v) * s, [v, s])[1]; T.jacobian(x.sum(), x); T.jacobian(v * s, s)
        T.hessian(T.sum(v ** 3) * s, v); T.hessian(T.sum(T.outer(v, v) * q), [v])[0]
        theano.gradient.jacobian(v ** 2, v); theano.gradient.disconnected_grad(x) * x
        theano.gradient.zero_grad(x) * y; theano.gradient.consider_constant(x) * x
        theano.gradient.grad_clip(x, -.5, 2) * 3; theano.gradient.grad_scale(x, -2) * y; T.Lop(x * y, x, y)
        T.Rop(x * y, x, y); T.Rop(T.tanh(T.dot(x, q)), q, q + 1); T.Rop(T.exp(v) * v, v, v + 1)
        T.Lop(T.dot(x, q), q, x); T.Rop([x * y, x.sum()], [x, y], [y, x])[0]; theano.grad(T.sum(x * y), x)
        theano.gradient.disconnected_grad(x.sum()) * s
    """,
}


def cases(*blocks):
    """Return the texts of the expressions, of all blocks by default."""
    lines = [line.strip() for block in blocks or CASES for line in CASES[block].split("\n")]
    return [text for line in lines if line for text in line.split("; ")]


def arrays(size, floatX):
    """Return the arrays, by name: c has classes, i integers below 3 with one of them twice, t is of ndim 3."""
    n, m, k = SIZES[size]
    generator = np.random.RandomState(0)
    drawn = {"x": (n, m), "y": (n, m), "q": (m, m), "v": (m,), "s": (), "t": (k, n, m)}
    found = {name: np.round(generator.uniform(-1, 1, shape) * 64) / 64 for name, shape in drawn.items()}
    found["y"] = abs(found["y"]) + 0.5
    found["x"] += 0.5 - 1 / 128  # neither at a corner nor at half an integer
    found = {name: np.asarray(array, floatX) for name, array in found.items()}
    return dict(found, i=np.minimum([2, 0, 2], m - 1), c=np.arange(n) % m)


def evaluated(theano, text, size, floatX, calls=1, by=REAL):
    """Return [dtype, shape, elements, gradients by name, but those of 0] of an expression."""
    T, given, before = theano.tensor, arrays(size, floatX), theano.config.floatX
    theano.config.floatX = floatX
    try:
        kinds = T.scalar, T.vector, T.matrix, T.tensor3
        names = {name: kinds[array.ndim](name, dtype=str(array.dtype)) for name, array in given.items()}
        found = eval(text, {"T": T, "theano": theano, "np": np}, dict(names))
        numbers = (T.arange(found.size) + 1).reshape(found.shape, ndim=found.ndim)
        cost = T.sum(T.cast(found, floatX) * numbers)
        slopes = T.grad(cost, [names[name] for name in by], disconnected_inputs="ignore") if by else []
        function = theano.function(list(names.values()), [found, *slopes], on_unused_input="ignore")
        for _ in range(calls):
            value, *gradients = function(*given.values())
    finally:
        theano.config.floatX = before
    value = np.asarray(value)
    slopes = {name: np.asarray(g, float).ravel().tolist() for name, g in zip(by, gradients) if np.any(g)}  # noqa: B905  # Python 3.8
    return [value.dtype.name, list(value.shape), np.asarray(value, float).ravel().tolist(), slopes if by else None]


def runs():
    """Return the sizes and dtypes."""
    return [("some", "float64"), ("some", "float32"), ("one", "float64"), ("none", "float64")]


def _theanos(text, *run):
    # Some have a value, but no gradient.
    for by in (REAL, ""):
        try:
            return evaluated(theano, text, *run, by=by)
        except Exception as error:
            print(run, text, "by", by, type(error), error)
    return "error"


if __name__ == "__main__":
    import theano
    import theano.tensor
    import theano.tensor.nnet.bn
    import theano.tensor.xlogx

    results = {"/".join(run): {text: _theanos(text, *run) for text in cases()} for run in runs()}
    FILE.write_text(json.dumps(results, separators=(",", ":")))
