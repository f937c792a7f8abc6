"""Pictures, with matplotlib (extra ``plot``).  Each `plot_` function returns a Figure."""

from __future__ import annotations

import io
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._validation import check_integer, check_path
from fastnn.history import History
from fastnn.layers import Conv2D, shapes_of
from fastnn.network import Network
from fastnn.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


WRONG = "#c1272d"
RIGHT = "#333333"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, independent of any window system."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "fastnn[plot]"') from error
    return Figure(figsize=(width, height), layout="constrained")


def picture_format(path: str | os.PathLike[str]) -> str:
    """Return matplotlib's name for the format of a file's ending; its default if there is no ending.

    Raises
    ------
    ValueError
        If matplotlib does not write this format.
    """
    import matplotlib

    name = check_path(path)
    kind = os.path.splitext(name)[1][1:].lower() or str(matplotlib.rcParams["savefig.format"])
    known = new_figure(1, 1).canvas.get_supported_filetypes()
    if kind not in known:
        raise ValueError(f"{name} must end in one of {', '.join(f'.{ending}' for ending in sorted(known))}")
    return kind


def write_figure(figure: Figure, path: str | os.PathLike[str], dpi: float | None = None) -> None:
    """Write a picture, atomically: a crash leaves an old file whole.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The picture.
    path : path
        Its ending decides the format, any that matplotlib writes.
    dpi : float or None, default None
        Dots per inch; None takes matplotlib's setting.

    Raises
    ------
    ValueError
        If matplotlib does not write this format.
    OSError
        If the file cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format=picture_format(path), dpi=dpi)
    write_atomically(path, content.getvalue())


def image_shape(n_pixels: int) -> tuple[int, int]:
    """Return rows and columns of an image given as a vector: the shape nearest to a square."""
    rows = next(side for side in range(math.isqrt(n_pixels), 0, -1) if n_pixels % side == 0)
    return rows, n_pixels // rows


def plot_digits(
    X: ArrayLike, true: ArrayLike | None = None, assigned: ArrayLike | None = None, columns: int = 5
) -> Figure:
    """Draw images with their true and assigned classes; wrong ones in red.

    Parameters
    ----------
    X : (n, n_pixels) array, or (n, height, width, 1) or (n, height, width, 3)
        One image a row, square if possible; or images, grey or of red, green and blue from 0 to 1.
    true, assigned : (n,) arrays or None
        Classes to write above each image.
    columns : int, default 5
        Images side by side.

    Returns
    -------
    matplotlib.figure.Figure
    """
    images = np.asarray(X)
    is_flat = images.ndim == 2
    if (not is_flat and (images.ndim != 4 or images.shape[-1] not in (1, 3))) or not images.size:
        raise ValueError(
            f"X must hold one image a row, (n, n_pixels) or (n, height, width, channels); its shape is {images.shape}"
        )
    labels = {}
    for name, classes in (("true", true), ("assigned", assigned)):
        if classes is not None:
            labels[name] = np.asarray(classes)
            if labels[name].shape != (len(images),):
                raise ValueError(f"{name} must have shape ({len(images)},), not {labels[name].shape}")
    columns = min(len(images), check_integer(columns, "columns", 1))
    rows = -(-len(images) // columns)
    figure = new_figure(1.35 * columns, 1.65 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    shape = image_shape(images.shape[1]) if is_flat else images.shape[1:]
    for i, ax in enumerate(axes):
        ax.set_axis_off()
        if i < len(images):
            ax.imshow(images[i].reshape(shape), cmap="binary")
            wrong = len(labels) == 2 and labels["true"][i] != labels["assigned"][i]
            title = ", ".join(f"{name} {classes[i]}" for name, classes in labels.items())
            ax.set_title(title.replace(", ", "\n"), fontsize=9, color=WRONG if wrong else RIGHT)
    return figure


def new_window() -> Figure:
    """Return a figure in its own window, if matplotlib's backend has windows."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(10, 3.4), layout="constrained")


def refresh(figure: Figure) -> None:
    """Show what was drawn since the last call."""
    import matplotlib.pyplot as plt

    figure.canvas.draw_idle()
    plt.pause(0.001)


def plot_history(history: History, figure: Figure | None = None) -> Figure:
    """Draw learning curves: log-likelihood, and validation error if there was validation data.

    A given figure is cleared and drawn in, instead of a new one.
    """
    if not len(history):
        raise ValueError("history is empty: no epoch was finished")
    epochs = np.arange(1, len(history) + 1)
    n_panels = 2 if history.validation_error else 1
    if figure is None:
        figure = new_figure(5 * n_panels, 3.4)
    figure.clear()
    panels = figure.subplots(1, n_panels, squeeze=False)[0]
    panels[0].plot(epochs, history.log_likelihood, marker=".", label="training, before each update")
    if history.validation_log_likelihood:
        panels[0].plot(epochs, history.validation_log_likelihood, marker=".", label="validation, after the epoch")
    panels[0].set_ylabel("mean log-likelihood (nats)")
    panels[0].legend(frameon=False)
    if n_panels == 2:
        panels[1].plot(epochs, 100 * np.array(history.validation_error), marker=".", color="C1")
        panels[1].set_ylabel("validation error (%)")
        panels[1].set_ylim(bottom=0)
    for panel in panels:
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
    return figure


def plot_confusion(matrix: ArrayLike) -> Figure:
    """Draw a confusion matrix (n_classes, n_classes): true classes down, assigned classes across.

    The colour is the share of the true class that was assigned there by mistake; the diagonal stays white.
    """
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ValueError(f"matrix must be square, (n_classes, n_classes); its shape is {counts.shape}")
    n_classes = len(counts)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    np.fill_diagonal(shares, 0)
    size = max(4.2, 0.5 * n_classes + 1)
    figure = new_figure(size, size)
    ax = figure.subplots()
    ax.imshow(shares, cmap="Reds", vmin=0)
    ax.set_xticks(range(n_classes))
    ax.set_yticks(range(n_classes))
    ax.set_xlabel("assigned class")
    ax.set_ylabel("true class")
    darkest = shares.max()
    for (i, j), count in np.ndenumerate(counts):
        if count:
            ax.text(
                j,
                i,
                str(count),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[i, j] > 0.6 * darkest > 0 else RIGHT,
                weight="bold" if i == j else "normal",
            )
    return figure


def plot_weights(network: Network, count: int = 25) -> Figure:
    """Draw the first weights as images, one for each unit: red is positive, blue negative.

    Parameters
    ----------
    network : Network
        Its inputs are pixels, and the first layer with weights is `Dense`; see `plot_filters` for `Conv2D`.
    count : int, default 25
        Units to draw at most, the first ones.

    Returns
    -------
    matplotlib.figure.Figure
    """
    _check_network(network)
    first = next(k for k, layer in enumerate(network.layers) if layer.has_weights)
    if isinstance(network.layers[first], Conv2D):
        raise TypeError("plot_weights is for networks whose first weights are of a Dense; plot_filters is for Conv2D")
    weight: NDArray[Any] = network.weights[0][:, : check_integer(count, "count", 1)]
    images = [shape for shape in shapes_of(network.layers, network.input_shape)[: first + 1] if len(shape) == 3]
    shape = images[-1] if images else (*image_shape(len(weight)), 1)
    name = "class" if len(network.weights) == 1 else "unit"
    return _draw_panels(np.moveaxis(weight.reshape(*shape, -1), -1, 0), name, "weight")


def plot_filters(network: Network, layer: int = 0, count: int = 25) -> Figure:
    """Draw filters of a convolution, each as one image a channel of its input: red is positive, blue negative.

    Parameters
    ----------
    network : Network
    layer : int, default 0
        The convolution's place in `Network.layers`.
    count : int, default 25
        Filters to draw at most, the first ones.

    Returns
    -------
    matplotlib.figure.Figure
    """
    _check_network(network)
    layer = check_integer(layer, "layer", 0, len(network.layers) - 1)
    if not isinstance(network.layers[layer], Conv2D):
        raise TypeError(f"layer must be a Conv2D's place in network.layers, not {layer}, of {network.layers[layer]}")
    weight: NDArray[Any] = network.slots.by_layer(network.parameters)[layer]["weight"]
    shown = weight[..., : check_integer(count, "count", 1)]
    return _draw_panels(np.moveaxis(shown, -1, 0), "filter", "weight")


def plot_feature_maps(network: Network, image: ArrayLike, layer: int = 0, count: int = 25) -> Figure:
    """Draw what a layer on images makes of an image, one map a channel: red is positive, blue negative.

    Parameters
    ----------
    network : Network
    image : (height, width, channels) array
        Of the network's `input_shape`; or (n_in,), or (height, width) if there is one channel.
    layer : int, default 0
        The layer's place in `Network.layers`.
    count : int, default 25
        Maps to draw at most, the first ones.

    Returns
    -------
    matplotlib.figure.Figure
    """
    _check_network(network)
    whole = network.input_shape
    if len(whole) == 3 and np.shape(image) not in (whole, (math.prod(whole),), *([whole[:2]] if whole[2] == 1 else [])):
        raise ValueError(f"image must have shape {whole}, or be flat; its shape is {np.shape(image)}")
    maps = network.feature_maps(np.asarray(image)[None], layer)[0]
    shown = maps[..., : check_integer(count, "count", 1)]
    return _draw_panels(np.moveaxis(shown, -1, 0)[..., None], "map", "output")


def _check_network(network: Network) -> None:
    if not isinstance(network, Network):
        raise TypeError(f"network must be a fastnn.Network, not {type(network).__name__}")


def _draw_panels(images: NDArray[Any], name: str, label: str) -> Figure:
    # One panel for each of images (n, height, width, channels), with the channels side by side.
    columns = min(len(images), 5)
    rows = -(-len(images) // columns)
    figure = new_figure(1.2 * columns + 0.8, 1.3 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    limit = float(np.quantile(np.abs(images), 0.995)) or 1.0
    for i, ax in enumerate(axes):
        ax.set_axis_off()
        if i < len(images):
            image = ax.imshow(_tile(images[i]), cmap="RdBu_r", vmin=-limit, vmax=limit)
            ax.set_title(f"{name} {i}", fontsize=8)
    figure.colorbar(image, ax=list(axes), shrink=0.6, label=label)
    return figure


def _tile(image: NDArray[Any]) -> NDArray[Any]:
    # The channels of an image (height, width, channels), in rows with a pixel of nothing between them.
    height, width, channels = image.shape
    across = math.isqrt(channels - 1) + 1
    down = -(-channels // across)
    tiles = np.full((down * across, height + 1, width + 1), np.nan, image.dtype)
    tiles[:channels, :-1, :-1] = np.moveaxis(image, -1, 0)
    whole = tiles.reshape(down, across, height + 1, width + 1).swapaxes(1, 2).reshape(down * (height + 1), -1)
    return whole[:-1, :-1]
