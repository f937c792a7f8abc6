"""Ensembles: the mean of what NumPy and the networks themselves give, and one file for all."""

import json
import pickle

import numpy as np
import pytest
import safetensors.numpy
import scipy.sparse
import scipy.special
from levels import levels_of, one_each

import fastnn
from fastnn import Ensemble, Network

LOSSES = ["cross_entropy", "binary_cross_entropy", "squared", "absolute", "huber", "quantile"]


def members(loss, dtype, n=3, rng=None, scale=1.0):
    levels = levels_of(loss, 3)
    made = [
        Network([4, 6, 3], "relu", dtype, seed=0, loss=loss, quantiles=levels),
        Network([4, 3], dtype=dtype, loss=loss, quantiles=levels),
        Network([4, 5, 5, 3], dtype="float64", seed=2, loss=loss, batch_norm=True, quantiles=levels),
    ][:n]
    for network in made[: 3 if rng else 0]:
        for weight in network.weights:
            weight[:] = scale * rng.standard_normal(weight.shape)
    return made


def outputs(network, X):
    Z = network._outputs(X, None)
    return Z.astype(np.float64)


def targets(loss, n, rng):
    return rng.integers(0, 3, n) if loss == "cross_entropy" else one_each(loss, rng.random((n, 3)).round(2))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_members", [1, 2, 3])
def test_it_is_the_mean_of_its_networks(loss, n_members, dtype, rng, assert_close):
    ensemble = Ensemble(members(loss, dtype, n_members, rng))
    X, y, weights = rng.standard_normal((21, 4)), targets(loss, 21, rng), rng.random(21)
    assert (len(ensemble), ensemble.n_in, ensemble.n_out, ensemble.loss) == (n_members, 4, 3, loss)
    assert ensemble.dtype == ("float64" if n_members == 3 else dtype)
    assert list(ensemble) == list(ensemble.networks)
    Z = [outputs(network, X) for network in ensemble]
    if loss == "cross_entropy":
        mean = np.mean([scipy.special.softmax(z, axis=1) for z in Z], axis=0)
        logs = np.log(mean[np.arange(21), y])
        wrong = mean.argmax(axis=1) != y
        np.testing.assert_array_equal(ensemble.predict(X), mean.argmax(axis=1))
    elif loss == "binary_cross_entropy":
        mean = np.mean([scipy.special.expit(z) for z in Z], axis=0)
        logs = (y * np.log(mean) + (1 - y) * np.log1p(-mean)).sum(axis=1)
        wrong = ((mean > 0.5) != (y > 0.5)).mean(axis=1)
        np.testing.assert_array_equal(ensemble.predict(X), mean > 0.5)
    else:
        mean = np.mean(Z, axis=0)
        assert_close(ensemble.predict(X), mean)
        losses = {
            "squared": lambda d: d**2 / 2,
            "absolute": np.abs,
            "huber": lambda d: scipy.special.huber(1, d),
        }
        if loss == "quantile":
            pairs = zip(mean.T, levels_of(loss, 3), strict=True)
            logs = -sum(np.maximum(q * (y - z), (q - 1) * (y - z)) for z, q in pairs)
        else:
            logs = -losses[loss](mean - y).sum(axis=1)
        for method in (lambda: ensemble.predict_proba(X), lambda: ensemble.error(X, y)):
            with pytest.raises(TypeError, match=r"gives numbers|do not classify"):
                method()
    assert_close(ensemble.log_likelihood(X, y), logs.mean(), factor=10)
    assert_close(ensemble.log_likelihood(X, y, weights), np.average(logs, weights=weights), factor=10)
    if ensemble.classifies:
        assert_close(ensemble.predict_proba(X), mean)
        assert ensemble.predict_proba(X).dtype == ensemble.dtype
        np.testing.assert_allclose(ensemble.error(X, y), wrong.mean())
        np.testing.assert_allclose(ensemble.error(X, y, weights), np.average(wrong, weights=weights))


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "squared"])
def test_few_rows(loss, n, dtype, rng):
    ensemble = Ensemble(members(loss, dtype))
    X = np.zeros((n, 4))
    assert ensemble.predict(X).shape == ((n,) if loss == "cross_entropy" else (n, 3))
    if ensemble.classifies:
        assert ensemble.predict_proba(X).shape == (n, 3)
    if n == 0:
        with pytest.raises(ValueError, match="X is empty"):
            ensemble.log_likelihood(X, targets(loss, n, rng))


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_the_log_of_a_probability_that_rounds_to_zero_is_finite(loss, dtype):
    networks = [Network([1, 3], dtype=dtype, loss=loss) for _ in range(2)]
    for network, height in zip(networks, (2000, 3000), strict=True):
        network.biases[0] = [height, 0, -height]
    y = [2] if loss == "cross_entropy" else [[0, 0, 0]]
    ensemble = Ensemble(networks)
    # Of the mean of exp(-4000) and exp(-6000); of exp(-2000) and exp(-3000), and twice of one half.
    expected = -4000 - np.log(2) if loss == "cross_entropy" else -2000 - 2 * np.log(2)
    np.testing.assert_allclose(ensemble.log_likelihood([[0.0]], y), expected, rtol=1e-12)


def test_it_takes_what_a_network_takes(rng):
    ensemble = Ensemble(members("cross_entropy", "float32", 2, rng))
    X = rng.integers(0, 256, (10, 4)).astype(np.uint8)
    dense = ensemble.predict_proba(X, n_threads=1)
    np.testing.assert_allclose(ensemble.predict_proba(scipy.sparse.csr_array(X)), dense, atol=1e-6)
    np.testing.assert_allclose(ensemble.predict_proba(X / 256), dense, atol=1e-6)
    with pytest.raises(ValueError, match="4 columns"):
        ensemble.predict(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="n_threads"):
        ensemble.predict(X, n_threads=0)


def test_networks_that_do_not_go_together():
    with pytest.raises(ValueError, match="networks is empty"):
        Ensemble([])
    with pytest.raises(TypeError, match=r"networks\[1\] must be a fastnn.Network, not int"):
        Ensemble([Network([4, 3]), 3])
    others = [
        ("n_in=4", Network([5, 3])),
        ("n_out=3", Network([4, 2])),
        ("loss='cross_entropy'", Network([4, 3], loss="squared")),
    ]
    for message, other in others:
        with pytest.raises(ValueError, match=rf"networks\[1\] must have {message}, as the first"):
            Ensemble([Network([4, 3]), other])
    networks = [Network([4, 1], loss="quantile", quantiles=(level,)) for level in (0.1, 0.9)]
    with pytest.raises(ValueError, match=r"networks\[1\] must have quantiles=\(0.1,\), as the first"):
        Ensemble(networks)


def test_many_fits_make_an_ensemble(tmp_path):
    train, valid, _ = fastnn.datasets.load_mnist()
    X, y = train.X[:2000], train.y[:2000]
    trainers = [
        fastnn.Trainer(Network([784, 20, 10], dtype="float32", seed=k), fastnn.Adam(), batch_size=50, seed=k)
        for k in range(5)
    ]
    fastnn.fit_many(trainers, X, y, epochs=5)
    ensemble = Ensemble(trainer.network for trainer in trainers)
    errors = [network.error(valid.X, valid.y) for network in ensemble]
    assert ensemble.error(valid.X, valid.y) < min(errors)
    # The logarithm is concave.
    assert ensemble.log_likelihood(valid.X, valid.y) > np.mean([n.log_likelihood(valid.X, valid.y) for n in ensemble])


@pytest.mark.parametrize("loss", LOSSES)
def test_it_comes_back_from_its_file(loss, dtype, rng, tmp_path):
    ensemble = Ensemble(members(loss, dtype, rng=rng))
    ensemble.networks[1].input_scale = 1 / 256
    ensemble.save(tmp_path / "ensemble")
    for other in (Ensemble.load(tmp_path / "ensemble"), pickle.loads(pickle.dumps(ensemble))):
        assert [repr(network) for network in other] == [repr(network) for network in ensemble]
        assert [network.input_scale for network in other] == [None, 1 / 256, None]
        for here, there in zip(other, ensemble, strict=True):
            np.testing.assert_array_equal(here.parameters, there.parameters)
    assert "Ensemble of 3, the first Network(" in repr(ensemble)
    first = (tmp_path / "ensemble").read_bytes()
    ensemble.save(tmp_path / "ensemble")
    assert (tmp_path / "ensemble").read_bytes() == first


def written(path, change):
    """Write an ensemble of two softmax regressions whose description and tensors were changed."""
    told = {"format": 2, "input_shape": [4], "loss": "cross_entropy", "dtype": "float32"}
    told["layers"] = [{"kind": "Dense", "units": 3, "activation": None, "batch_norm": False}]
    content = {"format": 1, "networks": [dict(told), dict(told)]}
    tensors = {}
    for k in range(2):
        tensors[f"networks.{k}.layers.0.weight"] = np.zeros((4, 3), np.float32)
        tensors[f"networks.{k}.layers.0.bias"] = np.zeros(3, np.float32)
    changed = change(content, tensors)
    text = changed if isinstance(changed, str) else json.dumps(content)
    path.write_bytes(safetensors.numpy.save(tensors, {"fastnn ensemble": text}))
    return path


def test_hostile_files_are_refused(tmp_path):
    path = tmp_path / "ensemble"
    assert len(Ensemble.load(written(path, lambda content, tensors: None))) == 2

    def narrow(content, tensors):
        content["networks"][1]["input_shape"] = [2]
        tensors["networks.1.layers.0.weight"] = np.zeros((2, 3), np.float32)

    changes = [
        ("no 'fastnn ensemble'|no 'networks'", lambda c, t: c.pop("networks")),
        ("must be a list", lambda c, t: c.update(networks={"0": c["networks"][0]})),
        ("networks is empty", lambda c, t: c.update(networks=t.clear() or [])),
        ("not those of 1|tensors are not those", lambda c, t: c["networks"].pop()),
        ("tensors are not those of 2 networks", lambda c, t: t.pop("networks.1.layers.0.bias")),
        ("tensors are not those of 3 networks", lambda c, t: c["networks"].append(c["networks"][0])),
        ("its format is 2", lambda c, t: c.update(format=2)),
        ("its format is 7", lambda c, t: c["networks"][1].update(format=7)),
        ("not a usable", lambda c, t: c.update(networks=[3, 4])),
        ("not a usable", lambda c, t: "[" * 100_000),
        ("not a usable", lambda c, t: "3"),
        ("description has", lambda c, t: json.dumps(c) + " " * 10**7),
        ("loss", lambda c, t: c["networks"][0].update(loss="nothing")),
        ("must have loss", lambda c, t: c["networks"][1].update(loss="squared")),
        ("must have n_in=4", narrow),
        ("should be float64", lambda c, t: c["networks"][1].update(dtype="float64")),
        ("NaN", lambda c, t: t["networks.1.layers.0.bias"].fill(np.nan)),
    ]
    for message, change in changes:
        written(path, change)
        with pytest.raises(ValueError, match=message) as caught:
            Ensemble.load(path)
        assert str(path) in str(caught.value)
    Network([4, 3]).save(path)
    with pytest.raises(ValueError, match="not a usable fastnn ensemble: its metadata has no 'fastnn ensemble'"):
        Ensemble.load(path)
    Ensemble([Network([4, 3])]).save(path)
    with pytest.raises(ValueError, match="not a usable fastnn network: its metadata has no 'fastnn'"):
        Network.load(path)
    with pytest.raises(FileNotFoundError):
        Ensemble.load(tmp_path / "nothing")
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a usable fastnn ensemble"):
            Ensemble.load(path)
