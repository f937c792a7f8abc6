"""Images that are moved while they are trained on."""

import numpy as np
import pytest
from scipy import ndimage, sparse

import fastnn
from fastnn import reference
from fastnn.augment import Flip, Shift, motion_of
from fastnn.layers import Conv2D, Dense, MaxPool2D
from tests.pairs import parametrize_pairs

SHAPE = (5, 6, 2)
CHANGES = [Shift(1), Shift((2, 0)), Shift((0, 9)), Flip(), [Flip(), Shift((1, 2))]]
NETWORKS = [[Conv2D(3, 3), MaxPool2D(2), Dense(4)], [Dense(4)], [Dense(70), Dense(4)], [Dense(20), Dense(9), Dense(4)]]


def draw(n=37, dtype="float64"):
    generator = np.random.default_rng(0)
    images = generator.integers(1, 256, (n, *SHAPE)) / (1 if dtype == "uint8" else 256)
    return images.astype(dtype), generator.integers(4, size=n)


def trained(layers, augment, dtype="float64", data_dtype="float64", batch_size=10, n_threads=2, **options):
    X, y = draw(dtype=data_dtype)
    net = fastnn.Network(layers, input_shape=SHAPE, dtype=dtype)
    optimizer = fastnn.SGD(0.05)  # larger steps make large differences of the last bits
    trainer = fastnn.Trainer(net, optimizer, batch_size=batch_size, augment=augment, n_threads=n_threads, **options)
    history = trainer.fit(X, y, epochs=2)
    return net.parameters, history.log_likelihood


@parametrize_pairs(
    {
        "layers": NETWORKS,
        "augment": CHANGES,
        "dtype": ["float32", "float64"],
        "data_dtype": ["uint8", "float32", "float64"],
        "batch_size": [3, 10, None],
        "shuffle": [False, True],
    }
)
def test_training_moves_images_as_the_twin_does(monkeypatch, layers, augment, dtype, data_dtype, batch_size, shuffle):
    found = trained(layers, augment, dtype, data_dtype, batch_size, shuffle=shuffle)
    for n_threads in (1, 3):
        again = trained(layers, augment, dtype, data_dtype, batch_size, n_threads, shuffle=shuffle)
        np.testing.assert_array_equal(again[0], found[0])
    monkeypatch.setattr("fastnn.engine.local.epoch.train", reference.train)
    expected = trained(layers, augment, dtype, data_dtype, batch_size, shuffle=shuffle)
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(found[0], expected[0], tolerance, tolerance)
    np.testing.assert_allclose(found[1], expected[1], tolerance)
    still = trained(layers, None, dtype, data_dtype, batch_size, shuffle=shuffle)
    assert np.abs(found[0] - still[0]).max() > 1e-4


@pytest.mark.parametrize("augment", CHANGES)
def test_every_motion_is_as_likely_as_the_others(augment):
    changes = tuple(augment) if isinstance(augment, list) else (augment,)
    motion = motion_of(changes, SHAPE)
    image = draw(1)[0][0]
    moved = reference.moved(np.broadcast_to(image, (3000, *SHAPE)), motion, 7, 11)
    expected = {}
    for y in range(-motion.down, motion.down + 1):
        for x in range(-motion.across, motion.across + 1):
            for flips in range(1 + motion.flips):
                source = image[:, ::-1] if flips else image
                key = ndimage.shift(source, (y, x, 0), order=0).tobytes()
                expected[key] = expected.get(key, 0) + 3000 / (2 * motion.down + 1) / (2 * motion.across + 1)
    counts = {key: 0 for key in expected}
    for each in moved:
        counts[each.tobytes()] += 1
    share = 2 if motion.flips else 1
    for key, count in expected.items():
        assert abs(counts[key] - count / share) < 5 * np.sqrt(count / share)


def test_epochs_differ_and_the_seed_decides():
    histories = [trained(NETWORKS[0], Shift(1), seed=seed)[1] for seed in (0, 0, 1)]
    assert histories[0] == histories[1] != histories[2]
    still = trained(NETWORKS[0], Shift(0))[0]
    np.testing.assert_array_equal(still, trained(NETWORKS[0], Shift(0), seed=0)[0])


def test_validation_and_measures_see_images_as_they_are():
    X, y = draw()
    net = fastnn.Network(NETWORKS[0], input_shape=SHAPE)
    trainer = fastnn.Trainer(net, batch_size=10, augment=Shift(2))
    history = trainer.fit(X, y, epochs=1, validation=(X, y))
    assert history.validation_log_likelihood[0] == pytest.approx(net.log_likelihood(X, y), rel=1e-12)


def test_a_fit_resumes_with_the_same_motions(tmp_path):
    X, y = draw()
    path, nets = tmp_path / "fit.checkpoint", []
    for stops in ((3,), (1, 3)):
        for epochs in stops:
            net = fastnn.Network(NETWORKS[0], input_shape=SHAPE)
            callbacks = [fastnn.callbacks.Checkpoint(path)]
            trainer = fastnn.Trainer(net, batch_size=10, augment=[Shift(1), Flip()], callbacks=callbacks)
            trainer.fit(X, y, epochs=epochs, resume=path if len(stops) > 1 else None)
        nets.append(net)
        path.unlink()
    np.testing.assert_array_equal(nets[0].parameters, nets[1].parameters)
    trainer = fastnn.Trainer(nets[0], batch_size=10, augment=Shift(1), callbacks=[fastnn.callbacks.Checkpoint(path)])
    trainer.fit(X, y, epochs=1)
    with pytest.raises(ValueError, match="augment"):
        fastnn.Trainer(fastnn.Network(NETWORKS[0], input_shape=SHAPE), batch_size=10).fit(X, y, epochs=2, resume=path)


@pytest.mark.parametrize(
    ("augment", "error"),
    [
        ("shift", "augment must be None, fastnn.augment.Shift"),
        (3, "augment must be None"),
        ([Shift(1), Shift(2)], "one of each kind"),
        ([Shift(1), None], "augment must be None"),
    ],
)
def test_what_augment_refuses(augment, error):
    with pytest.raises((TypeError, ValueError), match=error):
        fastnn.Trainer(fastnn.Network(NETWORKS[0], input_shape=SHAPE), augment=augment)


def test_augment_is_for_dense_images():
    with pytest.raises(ValueError, match="input_shape"):
        fastnn.Trainer(fastnn.Network([4, 2]), augment=Flip())
    net = fastnn.Network([Dense(4)], input_shape=SHAPE)
    X, y = draw()
    with pytest.raises(TypeError, match="must be dense"):
        fastnn.Trainer(net, augment=Flip()).fit(sparse.csr_matrix(X.reshape(37, -1)), y)
    with pytest.raises(ValueError, match="sparse must be"):
        fastnn.Trainer(net, augment=Flip(), sparse=True).fit(X, y)
    with pytest.raises(ValueError, match="LBFGS takes no"):
        fastnn.Trainer(net, fastnn.LBFGS(), augment=Flip()).fit(X, y)
    plan = fastnn.Trainer(net, augment=Flip()).plan(X * 0.0, y)
    assert "moved" in plan.reasons[0].why


@pytest.mark.parametrize(
    ("pixels", "error"), [(-1, "at least 0"), (1.5, "integer"), ((1, 2, 3), "two, down and across")]
)
def test_shifts_are_whole_pixels(pixels, error):
    with pytest.raises((TypeError, ValueError), match=error):
        Shift(pixels)
