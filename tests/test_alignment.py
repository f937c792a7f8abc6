"""Arrays whose numbers have odd addresses, as in a file with a header of odd length: the same bits as elsewhere."""

import numpy as np
import pytest
import scipy.sparse

import fastnn
from fastnn import _validation
from fastnn.callbacks import Callback
from fastnn.kernels import epoch


def misaligned(array):
    """Return the same numbers at addresses that are no multiples of their size."""
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    assert not copy.flags.aligned
    assert copy.flags.c_contiguous
    return copy


def misaligned_csr(X):
    found = X.copy()
    found.data, found.indices, found.indptr = (misaligned(part) for part in (X.data, X.indices, X.indptr))
    return found


@pytest.mark.parametrize("stored", ["float32", "float64"])
@pytest.mark.parametrize("n_units", [12, 80])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_fits_and_predictions(rng, dtype, stored, n_units, loss):
    X, valid = rng.standard_normal((200, 70)).astype(stored), rng.standard_normal((50, 70)).astype(stored)
    y, y_valid = rng.integers(0, 3, 200), rng.integers(0, 3, 50)
    if loss == "squared":
        y, y_valid = np.eye(3, dtype=dtype)[y], np.eye(3, dtype=dtype)[y_valid]
    weights = rng.uniform(0.5, 1.5, 200)
    results = []
    for laid in (np.copy, misaligned):
        network = fastnn.Network([70, n_units, 3], dtype=dtype, loss=loss)
        trainer = fastnn.Trainer(network, fastnn.SGD(0.01), batch_size=64)
        history = trainer.fit(laid(X), laid(y), 2, validation=(laid(valid), laid(y_valid)), sample_weight=laid(weights))
        results.append((network.parameters, history.validation_log_likelihood, network.predict(laid(X))))
    for expected, found in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("density", [0.01, 0.3])
def test_sparse_rows(rng, dtype, density):
    X = scipy.sparse.random(200, 70, density, "csr", dtype, rng)
    y = rng.integers(0, 3, 200)
    results = []
    for rows in (X, misaligned_csr(X)):
        network = fastnn.Network([70, 140, 3], dtype=dtype)
        fastnn.Trainer(network, fastnn.SGD(0.1, 0.9), batch_size=64).fit(rows, y, 2)
        results.append((network.parameters, network.predict(rows)))
    for expected, found in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_no_array_at_odd_addresses_reaches_the_kernels(rng, dtype, monkeypatch):
    # x86 forgives most of it, so that bits alone would not tell.
    reached = []

    train, all_finite = epoch.train, _validation.all_finite

    def watch_train(batches, *others):
        X, targets = batches[:2]
        reached.extend([X, targets.y, targets.weights] if isinstance(X, np.ndarray) else [*X[:3], targets.y])
        train(batches, *others)

    def watch_finite(values, *others):
        reached.append(values)
        return all_finite(values, *others)

    monkeypatch.setattr(epoch, "train", watch_train)
    monkeypatch.setattr(_validation, "all_finite", watch_finite)
    X, weights = rng.standard_normal((90, 20)).astype(dtype), rng.uniform(0.5, 1.5, 90)
    for rows in (misaligned(X), misaligned_csr(scipy.sparse.csr_matrix(X * (X > 1)))):
        network = fastnn.Network([20, 5, 2], dtype=dtype, loss="huber")
        trainer = fastnn.Trainer(network, batch_size=30, callbacks=[Callback()])
        trainer.fit(rows, misaligned(X[:, :2]), 1, sample_weight=misaligned(weights))
    assert len(reached) >= 8  # X, y and weights of two fits, and what was looked through
    assert all(array.flags.aligned for array in reached)


@pytest.mark.parametrize("borrow", [False, True])
def test_the_notation(rng, borrow):
    import fastnn.symbolic as theano
    import fastnn.symbolic.tensor as T

    X, y = rng.standard_normal((60, 30)), rng.integers(0, 3, 60)
    found = []
    for laid in (np.copy, misaligned):
        x, labels = T.dmatrix("x"), T.lvector("y")
        data = theano.shared(laid(X), borrow=borrow)
        W, b = theano.shared(np.zeros((30, 3)), "W"), theano.shared(np.zeros(3), "b")
        P = T.nnet.softmax(T.dot(x, W) + b)
        LL = T.mean(T.log(P)[T.arange(P.shape[0]), labels])
        updates = [(p, p + 0.5 * T.grad(LL, p)) for p in (W, b)]
        fed = theano.function([x, labels], LL, updates=updates)
        kept = theano.function([labels], LL, updates=updates, givens={x: data})
        results = [step for _ in range(4) for step in (fed(laid(X), y), kept(y))]
        squashed = theano.function([x], T.nnet.sigmoid(x) + T.nnet.softmax(x))
        found.append([*results, W.get_value(), *(squashed(laid(X)) for _ in range(4))])
    for here, there in zip(*found, strict=True):
        np.testing.assert_array_equal(here, there)
