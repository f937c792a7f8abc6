"""The model: softmax regression, a multi-layer perceptron or a convolutional network, with its loss."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnn import storage
from fastnn._validation import (
    check_choice,
    check_dtype,
    check_finite_numbers,
    check_integer,
    check_loss,
    check_not_empty,
    check_number,
    check_quantiles,
    check_rows,
    check_seed,
    check_table,
    check_targets,
    check_threads,
    check_weights,
)
from fastnn.engine.local import Engine, few_rows
from fastnn.engine.maps import forward_maps
from fastnn.engine.ranks import ALONE, Ranks
from fastnn.engine.rows import Rows, encode
from fastnn.engine.threads import available_threads
from fastnn.kernels.activations import ACTIVATIONS, inplace_activation
from fastnn.kernels.columns import Encoder
from fastnn.kernels.losses import LOSSES, Targets, inplace_loss
from fastnn.kernels.normalisation import EPSILON
from fastnn.kernels.predict import FewRows
from fastnn.kernels.softmax import inplace_softmax
from fastnn.kernels.updates import UPDATES, Steps
from fastnn.layers import (
    Columns,
    Dense,
    Flatten,
    Layer,
    Shape,
    facts_of,
    read_layers,
    settle,
    shapes_of,
    slots_of,
    table_of,
)
from fastnn.layout import LayerFacts
from fastnn.parameters import ParameterList, refuse_read_only
from fastnn.plan import Method
from fastnn.slots import Slots

# Activations that pass on about half of the variance.
RECTIFYING = ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus")


# A network's lists of arrays, by kind of slot.
LISTS = {"weight": "weights", "bias": "biases", "scale": "scales", "mean": "means", "variance": "variances"}
LISTS |= {"embedding": "embeddings"}


class Network:
    """Layers, each with an activation; softmax, sigmoid or nothing follows the last, as the loss requires.

    Parameters
    ----------
    sizes : sequence of int, or of layers
        Widths of the layers, from the inputs to the classes: ``[784, 10]`` is softmax regression, ``[784, 20, 10]`` has
        one hidden layer of 20 units.  Or the layers themselves, of `fastnn.layers`, the output layer last: `Dense`, and
        `Conv2D` and others on images.
    activation : str, or a list of them, one a hidden layer with weights, default "tanh"
        Of the hidden layers with weights: "tanh", "sigmoid", "relu", "leaky_relu" (slope 0.01 below 0), "elu",
        "softplus", "gelu", "silu" or "identity".
    dtype : {"float64", "float32"}, default "float64"
        Of the parameters and of all computation.
    seed : int, numpy.random.Generator or None, default 0
        For the initial weights; None takes fresh entropy from the system.
    loss : str, default "cross_entropy"
        Minus the log-likelihood of a row: "cross_entropy" of a softmax over classes; "binary_cross_entropy" of a
        sigmoid for each output, for rows that may have several labels; "squared" (half the square), "absolute",
        "huber" (threshold 1) or "quantile", for outputs that are real numbers.  All but the first are summed over the
        outputs.
    batch_norm : bool, default False
        Whether the hidden layers with weights are batch-normalised [3]_, between weights and bias: see Notes.
    input_shape : int, (n_in,), (height, width, channels), (height, width) or None, default None
        Shape of a row, if layers are given; sizes include it.  Two lengths are of images of one channel.
    quantiles : sequence of float, default ()
        For the loss "quantile" [4]_, which quantile of a row's number each output is, from above 0 to below 1 and
        increasing: ``quantiles=(0.05, 0.5, 0.95)`` for three outputs, the median between the limits of nine in ten.
        The loss of an output z at level q is ``max(q * (y - z), (q - 1) * (y - z))``.

    Attributes
    ----------
    layers : tuple of layers
        The layers, of `fastnn.layers`, from the first hidden one to the output layer, with a `Flatten` between images
        and the first `Dense`.  Layers that leave `activation` or `batch_norm` open have the network's here.
    input_shape : tuple of int
        Shape of a row: (n_in,) or (height, width, channels).
    sizes : tuple of int
        Numbers in a row before the first layer and after each but `Flatten`.
    weights, biases : lists of arrays, (n_in, n_out) and (n_out,), C-contiguous
        Of each layer that has them, from the input on; those of a `Conv2D` are (height, width, channels, filters) and
        (filters,).  Assigning to an item or into an array changes the network.
    scales, means, variances : lists of arrays (n_units,)
        Of each hidden layer with batch normalisation: the factors of normalised units or filters, and the running
        statistics for predictions.  Empty without it.
    embeddings : list of arrays (n, width)
        Of each category of `Columns` that has a width; (n + 1, width) if the last row is for missing ones.
    parameters : (n_parameters,) array
        All of them in one vector, of which the arrays above are views.
    input_scale : float or None, default None
        The factor, above 0, from raw numbers in files to this network's inputs; None if it is not known.  The network
        keeps it for readers of such files, as ``fastnn predict``; the methods here do not use it.

    Notes
    -----
    Biases start at 0, and so do the weights of softmax regression.  The weights of other networks are drawn
    uniformly from +-sqrt(6 / (n_in + n_out)) [1]_, or from +-sqrt(6 / n_in) [2]_ before a ReLU and its kind.  For a
    convolution, n_in is the numbers in a window, of all channels, and n_out those of a window in all filters; after
    `Columns`, n_in is the features that a row has at most.  Embeddings are drawn from a standard normal distribution.

    With `batch_norm` a hidden layer is ``activation(scale * (Z - mean) / sqrt(variance + 1e-5) + bias)``, where Z is
    the product of its input and its weights.  In training, mean and variance are those of the batch's rows, which count
    alike whatever their weights; a batch of a single number leaves only the bias.  A filter's are those of all rows and
    positions.  After each step the running statistics, which begin at 0 and 1, become 0.9 times themselves plus 0.1
    times the batch's, with its unbiased variance; a single number does not change them.  Everything else here uses the
    running statistics, except `gradient`.  Penalties, decay and max-norm apply to the weights only, the first two to
    embeddings too.  A batch goes forward and backward as a whole, so work space grows with its size.

    Everywhere, `X` is (n, n_in), dense or ``scipy.sparse``, of any real type.  If `input_shape` is that of images, X
    may also be (n, height, width, channels), and (n, height, width) for one channel; flat rows have the numbers in the
    same order, the channels of a pixel beside each other.  Convolution and pooling take no sparse rows.  If the first
    layer is `Columns`, X holds the columns of a table, dense, with NaN for what is missing.  Otherwise uint8 is taken
    as pixels, each multiplied by 1/256; other types are taken as they are.  `y` is (n,), integer classes from 0, for
    cross-entropy, and (n, n_out) numbers for other losses, from 0 to 1 for the binary one; a single output may also
    have (n,).  For the quantile loss it is (n,) or (n, 1), one number for all outputs.  `sample_weight` is (n,), at
    least 0; means are weighted by it.  `n_threads` is None for the processors that the process may run on, at most
    OMP_NUM_THREADS; the results do not depend on it.

    Outputs of the quantile loss may cross, where a row is unlike those of training; ``np.sort(predicted, axis=1)`` puts
    them in order, which is never worse [5]_.

    A row's prediction has the same bits in any batch, except through layers that BLAS computes: those of more than
    2,048 weights and fewer than 10 outputs in float32, 5 in float64; through these it is the same up to rounding, and
    so are sparse rows and dense ones.

    References
    ----------
    .. [1] X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks",
       AISTATS 2010.
    .. [2] K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015.
    .. [3] S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
       shift", ICML 2015.
    .. [4] R. Koenker, G. Bassett, "Regression quantiles", Econometrica 46 (1978).
    .. [5] V. Chernozhukov, I. Fernandez-Val, A. Galichon, "Quantile and probability curves without crossing",
       Econometrica 78 (2010).

    Examples
    --------
    >>> net = Network([784, 20, 10])
    >>> net.weights[0].shape, net.biases[1].shape
    ((784, 20), (10,))
    >>> from fastnn.layers import Dense
    >>> Network([Dense(20), Dense(10)], input_shape=784).sizes
    (784, 20, 10)
    >>> from fastnn.layers import Conv2D, MaxPool2D
    >>> print(Network([Conv2D(20, 5), MaxPool2D(2), Dense(10)], input_shape=(28, 28, 1)))
    layer                                  output        parameters
    input                                  (28, 28, 1)
    Conv2D(20, (5, 5), activation='tanh')  (24, 24, 20)         520
    MaxPool2D((2, 2))                      (12, 12, 20)           0
    Flatten()                              (2880,)                0
    Dense(10)                              (10,)             28,810
    all                                                      29,330
    """

    _input_scale: float | None = None

    def __init__(
        self,
        sizes: Sequence[int] | Sequence[Layer],
        activation: str | Sequence[str] = "tanh",
        dtype: DTypeLike = "float64",
        seed: int | np.random.Generator | None = 0,
        loss: str = "cross_entropy",
        batch_norm: bool = False,
        input_shape: int | Sequence[int] | None = None,
        quantiles: Sequence[float] = (),
    ) -> None:
        loss, batch_norm = check_loss(loss), check_choice(batch_norm, "batch_norm", [False, True])
        layers, shape = read_layers(sizes, input_shape)
        layers = settle(layers, activation, batch_norm)
        (n_out,) = shapes_of(layers, shape)[-1]
        quantiles = check_quantiles(quantiles, loss, n_out)
        self._become(layers, shape, loss, batch_norm, check_dtype(dtype), quantiles)
        self._draw(check_seed(seed))

    @classmethod
    def _empty(
        cls,
        layers: tuple[Layer, ...],
        input_shape: Shape,
        loss: str,
        batch_norm: bool,
        dtype: np.dtype[Any],
        quantiles: tuple[float, ...],
    ) -> Network:
        """Network of arguments that are checked and settled already; no weights are drawn."""
        network = cls.__new__(cls)
        network._become(layers, input_shape, loss, batch_norm, dtype, quantiles)
        return network

    def _become(
        self,
        layers: tuple[Layer, ...],
        input_shape: Shape,
        loss: str,
        batch_norm: bool,
        dtype: np.dtype[Any],
        quantiles: tuple[float, ...],
    ) -> None:
        self._layers, self._input_shape, self._loss, self._quantiles = layers, input_shape, loss, quantiles
        self._weighted = tuple(layer for layer in layers if layer.has_weights)
        self._batch_norm = any(layer.batch_norm for layer in layers) if len(self._weighted) > 1 else batch_norm
        before, *after = map(math.prod, shapes_of(layers, input_shape))
        kept = (not isinstance(layer, Flatten) for layer in layers)
        self._sizes = (before, *itertools.compress(after, kept))
        self._slots = slots_of(layers, input_shape)
        self._parameters = self._slots.start(dtype)
        self._lists = {
            kind: ParameterList(arrays, LISTS[kind], 0 if kind == "variance" else -np.inf)
            for kind, arrays in self._slots.by_kind(self._parameters).items()
        }

    def _draw(self, generator: np.random.Generator) -> None:
        for embedding in self.embeddings:
            embedding[:] = generator.standard_normal(embedding.shape)
        if len(self._weighted) == 1:
            return
        for layer, weight in zip(self._weighted, self.weights, strict=True):
            *window, n_in, n_out = weight.shape
            n_in, n_out = n_in * math.prod(window), n_out * math.prod(window)
            if self._encoder is not None and weight is self.weights[0]:
                n_in = self._encoder.most_active + sum(embedding.shape[1] for embedding in self.embeddings)
            limit = math.sqrt(6 / n_in if layer.activation in RECTIFYING else 6 / (n_in + n_out))
            weight[:] = generator.uniform(-limit, limit, weight.shape)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, the output layer last."""
        return self._layers

    @property
    def input_shape(self) -> Shape:
        """Shape of a row."""
        return self._input_shape

    @property
    def slots(self) -> Slots:
        """Table of the arrays of all layers and their places in the parameters."""
        return self._slots

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers in a row before the first layer and after each other than `Flatten`."""
        return self._sizes

    @property
    def activation(self) -> tuple[str, ...]:
        """Name of the activation of each hidden layer with weights."""
        return tuple(str(layer.activation) for layer in self._weighted[:-1])

    @property
    def loss(self) -> str:
        """Name of the loss."""
        return self._loss

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Which quantile each output is, for the quantile loss; otherwise empty."""
        return self._quantiles

    @property
    def batch_norm(self) -> bool:
        """Whether hidden layers are batch-normalised."""
        return self._batch_norm

    @property
    def input_scale(self) -> float | None:
        """The factor from raw numbers in files to inputs; None if it is not known."""
        return self._input_scale

    @input_scale.setter
    def input_scale(self, scale: float | None) -> None:
        self._input_scale = None if scale is None else check_number(scale, "input_scale", 0, open_left=True)

    @property
    def parameters(self) -> NDArray[Any]:
        """All weights and biases, and any scales and running statistics, in one vector (n_parameters,)."""
        return self._parameters

    @parameters.setter
    def parameters(self, values: ArrayLike) -> None:
        refuse_read_only(self._parameters, "parameters")
        self._parameters[:] = self.check_parameters(values)

    def check_parameters(self, values: ArrayLike) -> NDArray[Any]:
        """Return values, or a number for all, as valid parameters (n_parameters,), or raise ValueError."""
        array = np.asarray(values)
        if array.ndim == 0:
            array = np.broadcast_to(array, self._parameters.shape)
        if array.shape != self._parameters.shape:
            raise ValueError(f"parameters must have shape {self._parameters.shape}, not {array.shape}")
        array = check_finite_numbers(array, self.dtype, "parameters")
        if any(variance.min() < 0 for variance in self.slots.by_kind(array)["variance"]):
            raise ValueError("parameters must hold variances of at least 0")
        return array

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Protect the parameters: within the context, assigning to them or into an array is an error."""
        arrays = [self._parameters, *itertools.chain(*self._lists.values())]
        arrays = [array for array in arrays if array.flags.writeable]
        try:
            for array in arrays:
                array.flags.writeable = False
            yield
        finally:
            for array in arrays:
                array.flags.writeable = True

    @property
    def weights(self) -> ParameterList:
        """Weights of each layer: (n_in, n_out), or (height, width, channels, filters) of a convolution."""
        return self._lists["weight"]

    @weights.setter
    def weights(self, arrays: Sequence[ArrayLike]) -> None:
        self._lists["weight"][:] = arrays

    @property
    def biases(self) -> ParameterList:
        """Biases (n_out,), or (filters,), of each layer with weights."""
        return self._lists["bias"]

    @biases.setter
    def biases(self, arrays: Sequence[ArrayLike]) -> None:
        self._lists["bias"][:] = arrays

    @property
    def scales(self) -> ParameterList:
        """Scales (n_units,) of each hidden layer with batch normalisation."""
        return self._lists["scale"]

    @scales.setter
    def scales(self, arrays: Sequence[ArrayLike]) -> None:
        self._lists["scale"][:] = arrays

    @property
    def means(self) -> ParameterList:
        """Running means (n_units,) of each hidden layer with batch normalisation."""
        return self._lists["mean"]

    @means.setter
    def means(self, arrays: Sequence[ArrayLike]) -> None:
        self._lists["mean"][:] = arrays

    @property
    def variances(self) -> ParameterList:
        """Running variances (n_units,), at least 0, of each hidden layer with batch normalisation."""
        return self._lists["variance"]

    @variances.setter
    def variances(self, arrays: Sequence[ArrayLike]) -> None:
        self._lists["variance"][:] = arrays

    @property
    def embeddings(self) -> ParameterList:
        """Embeddings (n, width) of categories: a row for each, and perhaps a last one for missing categories."""
        return self._lists["embedding"]

    @embeddings.setter
    def embeddings(self, arrays: Sequence[ArrayLike]) -> None:
        self._lists["embedding"][:] = arrays

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        dtype: np.dtype[Any] = self.parameters.dtype
        return dtype

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return self.sizes[0]

    @property
    def n_out(self) -> int:
        """Number of outputs: of classes, if it classifies."""
        return self.sizes[-1]

    @property
    def classifies(self) -> bool:
        """Whether the outputs are probabilities of classes or labels, not real numbers."""
        return self.loss in ("cross_entropy", "binary_cross_entropy")

    def __repr__(self) -> str:
        loss = "" if self.loss == "cross_entropy" else f", loss={self.loss!r}"
        loss += f", quantiles={self.quantiles}" if self.quantiles else ""
        plain = all(isinstance(layer, Dense) and layer.dropout is None for layer in self.layers)
        if not plain or len(self.input_shape) > 1 or len({layer.batch_norm for layer in self.layers[:-1]}) > 1:
            alone = ", batch_norm=True" if self.batch_norm and len(self._weighted) == 1 else ""  # no layer says so
            told = f"input_shape={self.input_shape}, dtype={self.dtype.name!r}{loss}{alone}"
            return f"Network({list(self.layers)}, {told})"
        names = set(self.activation)
        activation = f"{names.pop()!r}" if len(names) == 1 else f"{list(self.activation)}"
        middle = f", activation={activation}" if self.activation else ""
        batch_norm = ", batch_norm=True" if self.batch_norm else ""
        return f"Network({list(self.sizes)}{middle}, dtype={self.dtype.name!r}{loss}{batch_norm})"

    def __str__(self) -> str:
        sizes = [sum(slot.size for slot in layer) for layer in self.slots.layers]
        return table_of(self.layers, shapes_of(self.layers, self.input_shape), sizes)

    def __getstate__(self) -> dict[str, Any]:
        names = ("layers", "input_shape", "loss", "batch_norm", "quantiles", "parameters", "input_scale")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "sizes" in state:  # a pickle from before layers were records
            layers, shape = read_layers(state["sizes"], None)
            layers = settle(layers, state["activation"], state["batch_norm"])
        else:
            layers, shape = state["layers"], state["input_shape"]
        quantiles = state.get("quantiles", ())  # older pickles do not have them
        self._become(layers, shape, state["loss"], state["batch_norm"], state["parameters"].dtype, quantiles)
        self._parameters[:] = state["parameters"]
        self.input_scale = state.get("input_scale")  # older pickles do not have it

    def engine(
        self, n_threads: int | None = None, dropout: NDArray[np.float64] | None = None, ranks: Ranks = ALONE
    ) -> Engine:
        """Return the engine that trains this network's parameters."""
        # The engine may write while the network's own array is read-only, in a fit.  Then a callback that asks for a
        # gradient gets an engine with a copy.
        parameters = self.parameters[:] if self.parameters.flags.writeable else self.parameters.copy()
        return Engine(self.facts(dropout), parameters, n_threads or available_threads(), ranks)

    def facts(self, dropout: NDArray[np.float64] | None = None) -> tuple[LayerFacts, ...]:
        """Return the layers' facts for a plan; dropout is the share of each hidden layer with weights."""
        shares = (0.0,) * (len(self._weighted) - 1) if dropout is None else tuple(dropout.tolist())
        return facts_of(self.layers, self.input_shape, shares)

    @property
    def columns(self) -> Columns | None:
        """The first layer if it is `Columns`: then X holds the columns of a table."""
        first = self.layers[0]
        return first if isinstance(first, Columns) else None

    @cached_property
    def _encoder(self) -> Encoder | None:
        return None if self.columns is None else Encoder([column.facts for column in self.columns.columns])

    @property
    def takes_sparse(self) -> bool:
        """Whether X may be sparse: not if there is convolution or pooling."""
        return all(facts.maps is None for facts in self.facts())

    def without_norm(self) -> Network:
        """Return the network itself, or one without batch normalisation that predicts the same.

        Its weights and biases include the running statistics and the scales.
        """
        if not self.batch_norm:
            return self
        layers = tuple(layer.without_norm() for layer in self.layers)
        plain = self._empty(layers, self.input_shape, self.loss, False, self.dtype, self.quantiles)
        plain.input_scale = self.input_scale
        tables = self.slots.by_layer(self.parameters), plain.slots.by_layer(plain.parameters)
        pairs = list(zip(*tables, strict=True))
        for before, after in pairs:
            for name, array in after.items():
                array[...] = before[name]
        check_finite_numbers(plain.parameters, self.dtype, "parameters")
        for before, after in pairs:
            if "scale" in before:
                factor = before["scale"] / np.sqrt(before["variance"].astype(np.float64) + EPSILON)
                after["weight"] *= factor
                after["bias"] -= before["mean"] * factor
        return plain

    def _forward(
        self, rows: Rows, n_threads: int | None = None, out: NDArray[Any] | None = None
    ) -> Iterator[tuple[slice, NDArray[Any]]]:
        return self.without_norm().engine(n_threads).forward(rows, out)

    def check_data(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        names: Sequence[str] = ("X", "y"),
        n_threads: int = 1,
        may_be_empty: bool = False,
    ) -> tuple[Rows, Targets]:
        """Return rows, at least one or perhaps none, and targets in the engine's form; names are for errors."""
        rows = self._rows(X, n_threads, names[0])
        n_rows = int(rows.shape[0])
        if not may_be_empty:
            check_not_empty(n_rows, names[0])
        values = check_targets(y, n_rows, self.n_out, self.loss, self.dtype, names[1])
        levels = np.array(self.quantiles) if self.quantiles else None
        return rows, Targets(LOSSES[self.loss], values, check_weights(sample_weight, n_rows), levels=levels)

    def _rows(self, X: Any, n_threads: int | None, name: str = "X") -> Rows:
        n_threads = n_threads or available_threads()
        if self._encoder is not None:
            return encode(self._encoder, check_table(X, self.n_in, name), self.dtype, n_threads)
        return check_rows(X, self.input_shape, self.dtype, name, n_threads, self.takes_sparse)

    def _outputs(
        self, X: ArrayLike, n_threads: int | None, inplace: Callable[[NDArray[Any]], None] = lambda Z: None
    ) -> NDArray[Any]:
        # The outputs (n, n_out) before softmax or sigmoid, or what a function makes of them.
        rows = self._rows(X, n_threads)
        outputs = np.empty((rows.shape[0], self.n_out), self.dtype)
        for _, Z in self._forward(rows, n_threads, outputs):
            inplace(Z)
        return outputs

    @cached_property
    def _few_rows(self) -> FewRows:
        return few_rows(self.facts(), self.input_shape, self._parameters, self.loss, self._encoder)

    def predict(self, X: ArrayLike, n_threads: int | None = None) -> NDArray[Any]:
        """Most probable class (n,) of each row, the first of equals.

        With binary cross-entropy (n, n_out): 1 for each output whose probability is above one half, else 0; with other
        losses the outputs (n, n_out) themselves.
        """
        n_threads = check_threads(n_threads)
        predicted: NDArray[Any] | None = self._few_rows.predict(X)
        if predicted is not None:
            return predicted
        if not self.classifies:
            return self._outputs(X, n_threads)
        rows = self._rows(X, n_threads)
        predicted = np.empty((rows.shape[0], self.n_out)[: 1 if self.loss == "cross_entropy" else 2], np.intp)
        for where, Z in self._forward(rows, n_threads):
            predicted[where] = Z.argmax(axis=1) if self.loss == "cross_entropy" else Z > 0
        return predicted

    def predict_proba(self, X: ArrayLike, n_threads: int | None = None) -> NDArray[Any]:
        """Probability (n, n_out) of each class for each row; with cross-entropy each row sums to 1."""
        n_threads = check_threads(n_threads)
        probabilities: NDArray[Any] | None = self._few_rows.predict_proba(X)
        if probabilities is not None:
            return probabilities
        if not self.classifies:
            raise TypeError(f"a network with loss {self.loss!r} gives numbers, not probabilities: use predict")
        link = inplace_softmax if self.loss == "cross_entropy" else partial(inplace_activation, ACTIVATIONS["sigmoid"])
        return self._outputs(X, n_threads, link)

    def feature_maps(self, X: ArrayLike, layer: int = 0) -> NDArray[Any]:
        """Output (n, height, width, channels) of a layer on images.

        Parameters
        ----------
        X : (n, height, width, channels) array
            Images, as for `predict`.
        layer : int, default 0
            Its place in `layers`.

        Returns
        -------
        (n, height, width, channels) array
            After batch normalisation, with the running statistics, and activation.
        """
        shapes = shapes_of(self.layers, self.input_shape)
        n_on_images = sum(len(shape) == 3 for shape in shapes) - 1
        if n_on_images < 1:
            raise TypeError("feature_maps needs a network with layers on images, such as Conv2D")
        n_layers = check_integer(layer, "layer", 0, n_on_images - 1) + 1
        rows, plain = self._rows(X, None), self.without_norm()
        assert isinstance(rows, np.ndarray)
        facts = [own.facts(shape, 0.0) for own, shape in zip(plain.layers[:n_layers], shapes, strict=False)]
        arrays = plain.slots.by_layer(plain.parameters)[:n_layers]
        return forward_maps([found for found in facts if found is not None], arrays, rows, self.dtype)

    def log_likelihood(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, n_threads: int | None = None
    ) -> float:
        """Mean over the rows of the log-probability of the true class, in nats, or of minus another loss."""
        return self.score(*self.check_data(X, y, sample_weight), check_threads(n_threads))[0]

    def error(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, n_threads: int | None = None
    ) -> float:
        """Fraction of the rows that is misclassified, or of all labels if a row has several."""
        if not self.classifies:
            raise TypeError(f"a network with loss {self.loss!r} does not classify: use log_likelihood")
        return self.score(*self.check_data(X, y, sample_weight), check_threads(n_threads))[1]

    def confusion_matrix(self, X: ArrayLike, y: ArrayLike, n_threads: int | None = None) -> NDArray[np.intp]:
        """Number of rows (n_classes, n_classes) by true class, down, and predicted class, across."""
        if self.loss != "cross_entropy":
            raise TypeError(f"a network with loss {self.loss!r} has no classes of which one is true")
        rows, targets = self.check_data(X, y)
        matrix = np.zeros((self.n_out, self.n_out), np.intp)
        for where, Z in self._forward(rows, check_threads(n_threads)):
            np.add.at(matrix, (targets.y[where], Z.argmax(axis=1)), 1)
        return matrix

    def score(
        self, rows: Rows, targets: Targets, n_threads: int | None = None, ranks: Ranks = ALONE, own_rows: bool = False
    ) -> tuple[float, float]:
        """Return mean log-likelihood in nats and fraction misclassified, for data that `check_data` returned.

        The second is the mean absolute error if the network does not classify.  Ranks share the rows, or each has rows
        of its own.
        """
        total = float(rows.shape[0] if targets.weights is None else targets.weights.sum())
        share = (0, 1) if own_rows else (ranks.rank, ranks.size)
        told = ranks.all_tell("validation", (total, self._sums(rows, targets, n_threads, share)))
        total = math.fsum(total for total, _ in told) if own_rows else total
        log_likelihood, wrong = (math.fsum(pair[i] for _, pairs in told for pair in pairs) for i in (0, 1))
        return log_likelihood / total, wrong / total

    def _sums(
        self, rows: Rows, targets: Targets, n_threads: int | None, share: tuple[int, int]
    ) -> list[tuple[float, float]]:
        # Of each unit of a share of the rows, weighted log-likelihood and number or amount of errors.
        engine, found = self.without_norm().engine(n_threads), []
        unit = engine.unit_rows(rows)
        # If the network has diverged, the result shows it.
        with np.errstate(over="ignore", invalid="ignore"):
            for run, logits in engine.forward(rows, share=share):
                for begin in range(run.start, run.stop, unit):
                    where = slice(begin, min(begin + unit, run.stop))
                    Z = logits[begin - run.start : where.stop - run.start]
                    weights = None if targets.weights is None else targets.weights[where]
                    here = targets._replace(y=targets.y[where], weights=weights)
                    missed = self._missed(Z, here)
                    wrong = float(missed.sum() if weights is None else missed @ weights)
                    found.append((inplace_loss(here, Z, 1.0), wrong))
        return found

    def _missed(self, Z: NDArray[Any], targets: Targets) -> NDArray[Any]:
        # Whether a row (n,) is misclassified, or which share of its labels, or its mean absolute error.
        if self.loss == "cross_entropy":
            missed: NDArray[Any] = Z.argmax(axis=1) != targets.y
        elif self.loss == "binary_cross_entropy":
            missed = ((Z > 0) != (targets.y > 0.5)).mean(axis=1)
        else:
            missed = np.abs(Z - targets.y).mean(axis=1, dtype=np.float64)
        return missed

    def gradient(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[list[NDArray[Any]], ...]:
        """Gradient of the mean log-likelihood: (by the weights, by the biases), each a list like the network's.

        With batch normalisation it is the gradient of training, with the mean and variance of these rows, and a third
        list has the gradient by the scales.  If there are embeddings, the last list has the gradient by these.

        Raises
        ------
        FloatingPointError
            If the log-likelihood is not finite.
        """
        rows, targets = self.check_data(X, y, sample_weight)
        engine = self.engine()
        engine.begin(rows, engine.plan(rows, Method(len(targets.y))))
        gradient = engine.gradient(targets, Steps(UPDATES["none"], np.zeros((1, 3))))
        arrays = self.slots.by_kind(gradient)
        kinds = ["weight", "bias", *["scale"] * self.batch_norm, *["embedding"] * bool(arrays["embedding"])]
        return tuple(arrays[kind] for kind in kinds)

    def description(self) -> storage.Description:
        """Return what a file says of the network beside its parameters."""
        return storage.Description(
            self.layers,
            self.input_shape,
            self.loss,
            self.batch_norm,
            self.dtype,
            self.input_scale,
            self.quantiles,
        )

    @classmethod
    def assemble(cls, description: storage.Description, parameters: NDArray[Any]) -> Network:
        """Return the network of a description and parameters that were checked when they were read."""
        network = cls._empty(*description[:5], description.quantiles)
        network._parameters[:] = parameters
        network.input_scale = description.input_scale
        return network

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file, atomically: a crash leaves an old file whole."""
        storage.save_network(path, self.description(), self.parameters)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Network:
        """Read a network that `save` wrote.

        Raises
        ------
        OSError
            If there is no such file or it cannot be read.
        ValueError
            If the file is damaged or is not a network of this package; the message names it.
        """
        return cls.assemble(*storage.load_network(path))

    def predictor(self) -> Predictor:
        """Return a handle that predicts for this network, for servers."""
        return Predictor(self)


class Predictor:
    """A network's predictions, for servers: of one row or a few, with the least around the products.

    `Network.predictor` makes it.  What a pass needs is prepared once.  Any number of threads may share it.  It follows
    the network's parameters, whether they change in place or are assigned.

    Attributes
    ----------
    network : Network

    Notes
    -----
    Up to 256 rows go forward in one call on one thread, fewer if the network is large: 25 through 784-100-10.  They
    must be a contiguous array of uint8, float32 or float64.  Of images, half as many go one by one as
    a vector register has numbers: 8 in float32 with AVX-512.  All else, and networks with batch normalisation, go the
    ordinary way, with the same results; `Network.without_norm` makes a network that need not.

    Examples
    --------
    >>> predictor = Network([20, 10, 3]).predictor()
    >>> predictor.predict_proba(np.zeros((1, 20))).shape
    (1, 3)
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._few_rows = network._few_rows

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return what `Network.predict` returns for X (n, n_in)."""
        predicted: NDArray[Any] | None = self._few_rows.predict(X)
        return self.network.predict(X) if predicted is None else predicted

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return what `Network.predict_proba` returns for X (n, n_in)."""
        probabilities: NDArray[Any] | None = self._few_rows.predict_proba(X)
        return self.network.predict_proba(X) if probabilities is None else probabilities

    def __reduce__(self) -> tuple[Any, ...]:
        return Predictor, (self.network,)
