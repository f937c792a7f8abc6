"""Pictures: what they show, read back from the figures, and that they can be written."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import fastnn
from fastnn import plotting
from fastnn.layers import Conv2D, Dense, MaxPool2D


def written(figure, tmp_path):
    assert isinstance(figure, Figure)
    plotting.write_figure(figure, tmp_path / "picture.png", dpi=50)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == tuple(int(50 * side) for side in figure.get_size_inches())
    return figure


@pytest.mark.parametrize(
    ("name", "head"), [("a.PNG", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.svg", b"<?xml"), ("a", b"\x89PNG")]
)
def test_the_ending_tells_the_format(tmp_path, name, head):
    plotting.write_figure(plotting.new_figure(1, 1), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(head)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.xyz must end in one of .*\.png"):
        plotting.write_figure(plotting.new_figure(1, 1), tmp_path / "a.xyz")
    assert not list(tmp_path.iterdir())


def test_digits(tmp_path, mnist):
    X, y = mnist[2].X[:7], mnist[2].y[:7]
    assigned = y.copy()
    assigned[2] = 9
    figure = written(plotting.plot_digits(X, y, assigned, columns=4), tmp_path)
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == 7
    for i, ax in enumerate(shown):
        np.testing.assert_array_equal(ax.images[0].get_array(), X[i].reshape(28, 28))
        assert ax.get_title() == f"true {y[i]}\nassigned {assigned[i]}"
        assert ax.title.get_color() == (plotting.WRONG if i == 2 else plotting.RIGHT)


def test_digits_without_classes(tmp_path):
    figure = written(plotting.plot_digits(np.eye(6)[:1]), tmp_path)
    assert figure.axes[0].get_title() == ""
    assert figure.axes[0].images[0].get_array().shape == (2, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_a_shape(tmp_path, rng, channels):
    X = rng.random((2, 4, 9, channels))
    figure = written(plotting.plot_digits(X), tmp_path)
    for ax, image in zip(figure.axes, X, strict=True):
        np.testing.assert_array_equal(np.squeeze(ax.images[0].get_array()), np.squeeze(image))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(4),), "X must hold one image a row"),
        ((np.ones((0, 4)),), "X must hold one image a row"),
        ((np.ones((1, 2, 4)),), "X must hold one image a row"),
        ((np.ones((1, 2, 4, 2)),), "X must hold one image a row"),
        ((np.ones((2, 4)), [1]), r"true must have shape \(2,\)"),
        ((np.ones((2, 4)), [1, 2], [1]), r"assigned must have shape \(2,\)"),
        ((np.ones((2, 4)), None, None, 0), "columns must be at least 1"),
    ],
)
def test_wrong_digits_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plotting.plot_digits(*arguments)


@pytest.mark.parametrize("validation", [False, True])
def test_learning_curves(tmp_path, validation):
    history = fastnn.History([-2.0, -1.0], [-2.5, -1.5] * validation, [0.3, 0.2] * validation, [1.0, 1.0])
    figure = written(plotting.plot_history(history), tmp_path)
    assert len(figure.axes) == 1 + validation
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [-2, -1])
    if validation:
        np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), [-2.5, -1.5])
        np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), [30, 20])


def test_an_empty_history_is_refused():
    with pytest.raises(ValueError, match="history is empty"):
        plotting.plot_history(fastnn.History())


@pytest.mark.parametrize("matrix", [np.diag([3, 0, 2]), np.arange(9).reshape(3, 3), [[5]]])
def test_confusion(tmp_path, matrix):
    matrix = np.array(matrix)
    figure = written(plotting.plot_confusion(matrix), tmp_path)
    shown = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert shown == {(j, i): str(count) for (i, j), count in np.ndenumerate(matrix) if count}


@pytest.mark.parametrize("matrix", [np.ones(3), np.ones((2, 3)), np.ones((0, 0))])
def test_a_wrong_confusion_matrix_is_refused(matrix):
    with pytest.raises(ValueError, match="matrix must be square"):
        plotting.plot_confusion(matrix)


@pytest.mark.parametrize(("sizes", "count", "first"), [([784, 10], 10, "class 0"), ([784, 30, 10], 25, "unit 0")])
def test_weights(tmp_path, sizes, count, first):
    network = fastnn.Network(sizes)
    network.weights[0] = np.random.default_rng(0).standard_normal(network.weights[0].shape)
    figure = written(plotting.plot_weights(network), tmp_path)
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == count
    assert shown[0].get_title() == first
    np.testing.assert_array_equal(shown[3].images[0].get_array(), network.weights[0][:, 3].reshape(28, 28))


def test_weights_of_an_untrained_network(tmp_path):
    written(plotting.plot_weights(fastnn.Network([6, 2])), tmp_path)
    with pytest.raises(TypeError, match=r"network must be a fastnn\.Network"):
        plotting.plot_weights(np.ones(3))


def shown_in(figure):
    return [np.ma.filled(ax.images[0].get_array(), np.nan) for ax in figure.axes if ax.images]


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_filters(tmp_path, channels):
    network = fastnn.Network([MaxPool2D(1), Conv2D(7, (3, 2)), Dense(2)], input_shape=(5, 6, channels))
    figure = written(plotting.plot_filters(network, 1, 6), tmp_path)
    assert [ax.get_title() for ax in figure.axes[:6]] == [f"filter {i}" for i in range(6)]
    across = {1: 1, 2: 2, 5: 3}[channels]
    images = shown_in(figure)[:6]
    for i, image in enumerate(images):
        rows = -(-channels // across)
        assert image.shape == (4 * rows - 1, 3 * across - 1)  # a pixel between two channels
        for k in range(channels):
            y, x = 4 * (k // across), 3 * (k % across)
            np.testing.assert_array_equal(image[y : y + 3, x : x + 2], network.weights[0][:, :, k, i])
        assert np.isnan(image).sum() == image.size - 6 * channels


@pytest.mark.parametrize(("layer", "n_maps"), [(0, 5), (1, 5), (2, 6)])
def test_feature_maps(tmp_path, rng, layer, n_maps):
    layers = [Conv2D(5, 3), MaxPool2D(2), Conv2D(30, 2, padding="same", activation="relu"), Dense(2)]
    network = fastnn.Network(layers, input_shape=(8, 9, 2))
    image = rng.normal(size=(8, 9, 2))
    figure = written(plotting.plot_feature_maps(network, image, layer, 6), tmp_path)
    assert [ax.get_title() for ax in figure.axes[:n_maps]] == [f"map {i}" for i in range(n_maps)]
    expected = network.feature_maps(image[None], layer)[0]
    for i, shown in enumerate(shown_in(figure)[:n_maps]):
        np.testing.assert_array_equal(shown, expected[:, :, i])
    plotting.plot_feature_maps(network, image.ravel())


def test_weights_behind_pooling(tmp_path):
    network = fastnn.Network([MaxPool2D(2), Dense(4), Dense(2)], input_shape=(4, 6, 3))
    images = shown_in(written(plotting.plot_weights(network), tmp_path))[:4]
    for i, image in enumerate(images):
        np.testing.assert_array_equal(image[:2, 4:7], network.weights[0].reshape(2, 3, 3, 4)[:, :, 1, i])


def test_layers_that_cannot_be_drawn_are_refused():
    network = fastnn.Network([Conv2D(3, 3), MaxPool2D(2), Dense(4), Dense(2)], input_shape=(8, 9, 2))
    dense = fastnn.Network([4, 3])
    with pytest.raises(TypeError, match="plot_filters is for Conv2D"):
        plotting.plot_weights(network)
    with pytest.raises(TypeError, match=r"layer must be a Conv2D's place in network\.layers, not 1, of MaxPool2D"):
        plotting.plot_filters(network, 1)
    with pytest.raises(ValueError, match="layer must be at least 0 and at most 4, not 5"):
        plotting.plot_filters(network, 5)
    with pytest.raises(ValueError, match="count must be at least 1"):
        plotting.plot_filters(network, 0, 0)
    with pytest.raises(ValueError, match="layer must be at least 0 and at most 1, not 2"):
        plotting.plot_feature_maps(network, np.ones((8, 9, 2)), 2)
    with pytest.raises(ValueError, match="image must have shape"):
        plotting.plot_feature_maps(network, np.ones((8, 8, 2)))
    with pytest.raises(TypeError, match="needs a network with layers on images"):
        plotting.plot_feature_maps(dense, np.ones(4))
    for draw in (plotting.plot_filters, plotting.plot_feature_maps):
        with pytest.raises(TypeError, match=r"network must be a fastnn\.Network"):
            draw([4, 3], np.ones(4))


@pytest.mark.parametrize(("n_pixels", "shape"), [(784, (28, 28)), (6, (2, 3)), (7, (1, 7)), (1, (1, 1))])
def test_image_shape(n_pixels, shape):
    assert plotting.image_shape(n_pixels) == shape


def test_without_matplotlib_the_extra_is_named(tmp_path):
    script = """
import sys
sys.modules["matplotlib"] = sys.modules["matplotlib.figure"] = sys.modules["PIL"] = None
from fastnn import History, plotting, datasets
for call in (lambda: plotting.plot_history(History([1.0])), lambda: datasets.read_rows(sys.argv[1], 4)):
    try:
        call()
    except ImportError as error:
        assert 'pip install "fastnn[plot]"' in str(error), error
    else:
        raise AssertionError
"""
    picture = tmp_path / "a.png"
    picture.touch()
    done = subprocess.run([sys.executable, "-c", script, str(picture)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
