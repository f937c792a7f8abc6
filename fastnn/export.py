"""Export to ONNX (extra ``onnx``), and import of scikit-learn's fitted models.

An ONNX model is a graph of standard operators, of which onnxruntime has float32 and float64 kernels.  It has leaky
ReLU, ELU, softplus and erf in float32 only, so they are composed of other operators; and convolution and pooling by
means, so these and other pooling are composed in float64 networks.
https://onnx.ai/onnx/operators, https://onnxruntime.ai
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn import storage
from fastnn._validation import FLOATING, check_path
from fastnn._version import __version__
from fastnn.kernels.activations import LEAKY_SLOPE
from fastnn.kernels.columns import LARGEST_NUMBER, NUMBER_LIMIT, ColumnFacts
from fastnn.layers import Columns, Shape
from fastnn.layout import Maps, Window
from fastnn.network import Network

if TYPE_CHECKING:
    import onnx

# Of 2020, so that all later runtimes can read it; and the matching version of the file format.
OPSET, IR_VERSION = 13, 7

MAX_BYTES = 2**31 - 2**20  # protobuf's limit, minus some room for everything but parameters


class Graph:
    """A list of operators; `add` returns the name of each one's result.

    A constant that is not an array becomes one of the network's dtype.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str | ArrayLike, output: str | None = None, **attributes: Any) -> str:
        """Add an operator and return its output's name; an input is another's output, or a constant."""
        import onnx

        output = output or f"{operator}_{len(self.nodes)}"
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self.nodes.append(onnx.helper.make_node(operator, names, [output], output, **attributes))
        return output

    def _constant(self, value: ArrayLike) -> str:
        import onnx

        name = f"constant_{len(self.constants)}"
        array = value if isinstance(value, np.ndarray) else np.asarray(value, self.dtype)
        self.constants.append(onnx.numpy_helper.from_array(array, name))
        return name


def add_silu(graph: Graph, z: str) -> str:
    """Add z / (1 + exp(-z)), which is -0 if exp overflows.

    Older onnxruntimes (1.16) replace z times a Sigmoid by an operator that they have in float32 only.
    """
    return graph.add("Div", z, graph.add("Add", graph.add("Exp", graph.add("Neg", z)), 1))


def add_elu(graph: Graph, z: str) -> str:
    """Add max(z, 0) + exp(min(z, 0)) - 1."""
    below = graph.add("Sub", graph.add("Exp", graph.add("Min", z, 0)), 1)
    return graph.add("Add", graph.add("Max", z, 0), below)


def add_softplus(graph: Graph, z: str) -> str:
    """Add max(z, 0) + log(1 + exp(-|z|)), which does not overflow."""
    decay = graph.add("Exp", graph.add("Neg", graph.add("Abs", z)))
    return graph.add("Add", graph.add("Max", z, 0), graph.add("Log", graph.add("Add", decay, 1)))


def add_gelu(graph: Graph, z: str) -> str:
    """Add z Phi(z), where Phi is the normal distribution: with erf in float32, with `gelu_tail` in float64."""
    if graph.dtype == np.float32:
        twice = graph.add("Add", graph.add("Erf", graph.add("Mul", z, np.sqrt(0.5))), 1)
        return graph.add("Mul", graph.add("Mul", z, 0.5), twice)
    # With q(z) = 1 - Phi(z) = Phi(-z), z Phi(z) = max(z, 0) - |z| q(|z|) for either sign.
    centre, coefficients = gelu_tail()
    size = graph.add("Abs", z)
    t = graph.add("Div", graph.add("Sub", size, centre), graph.add("Add", size, centre))
    tail: str | float = coefficients[-1]
    for coefficient in coefficients[-2::-1]:  # Horner's scheme
        tail = graph.add("Add", graph.add("Mul", tail, t), coefficient)
    density = graph.add("Exp", graph.add("Mul", graph.add("Mul", z, z), -0.5))
    return graph.add("Sub", graph.add("Max", z, 0), graph.add("Mul", density, tail))


def gelu_tail(centre: float = 4.0, degree: int = 24) -> tuple[float, NDArray[np.floating[Any]]]:
    """Return c and the coefficients (degree + 1,) of P, x q(x) = exp(-x^2 / 2) P((x - c) / (x + c)) for x >= 0.

    q is the upper tail of the normal distribution.  The error is that of rounding.  The change of variable is from
    M. Shepherd, J. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x < infinity",
    Mathematics of Computation 36 (1981).
    """
    from numpy.polynomial import chebyshev
    from scipy.special import erfcx

    t = chebyshev.chebpts1(degree + 1)
    x = centre * (1 + t) / (1 - t)
    values = x * erfcx(x * np.sqrt(0.5)) / 2
    return centre, chebyshev.cheb2poly(chebyshev.chebfit(t, values, degree))


ADD_ACTIVATION: dict[str, Callable[[Graph, str], str]] = {
    "identity": lambda graph, z: z,
    "tanh": lambda graph, z: graph.add("Tanh", z),
    "sigmoid": lambda graph, z: graph.add("Sigmoid", z),
    "relu": lambda graph, z: graph.add("Relu", z),
    "leaky_relu": lambda graph, z: graph.add("Max", z, graph.add("Mul", z, LEAKY_SLOPE)),
    "gelu": add_gelu,
    "silu": add_silu,
    "elu": add_elu,
    "softplus": add_softplus,
}


def add_convolution(graph: Graph, images: str, maps: Maps, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Add a convolution: of images with channels first in float32, with channels last in float64.

    In float64 it is a product, of all that each position's window sees.
    """
    window, weight, bias = maps.convolution, arrays["weight"], arrays["bias"]
    assert window is not None
    if graph.dtype == np.float32:
        placed: dict[str, Any] = {"kernel_shape": window.size, "strides": window.stride, "pads": window.padding}
        return graph.add("Conv", images, weight.transpose(3, 2, 0, 1), bias, **placed)
    if any(window.padding):
        above, left, below, right = window.padding
        images = graph.add("Pad", images, places(0, above, left, 0, 0, below, right, 0))
    seen = add_windows(graph, images, window, maps.middle, "Concat", axis=3)
    by_columns = weight.transpose(1, 0, 2, 3).reshape(-1, len(bias))
    return graph.add("Add", graph.add("MatMul", seen, by_columns), bias)


def add_pooling(graph: Graph, images: str, maps: Maps) -> str:
    """Add pooling, of images with channels first in float32, with channels last in float64."""
    window = maps.pooling
    assert window is not None
    if graph.dtype == np.float32:
        operator = {"max": "MaxPool", "mean": "AveragePool"}[maps.pools]
        return graph.add(operator, images, kernel_shape=window.size, strides=window.stride)
    pooled = add_windows(graph, images, window, maps.output, {"max": "Max", "mean": "Sum"}[maps.pools])
    return pooled if maps.pools == "max" else graph.add("Div", pooled, math.prod(window.size))


def add_windows(graph: Graph, images: str, window: Window, output: Shape, operator: str, **attributes: Any) -> str:
    """Add an operator over the numbers of each window of images with channels last: down, and then across."""
    for axis, size, stride, n in zip((1, 2), window.size, window.stride, output[:2], strict=True):
        extent = (n - 1) * stride + 1
        bounds = [(places(tap), places(tap + extent)) for tap in range(size)]
        taps = [graph.add("Slice", images, *pair, places(axis), places(stride)) for pair in bounds]
        images = graph.add(operator, *taps, **attributes)
    return images


def places(*numbers: int) -> NDArray[np.int64]:
    """Return numbers as operators take places and distances."""
    return np.array(numbers, np.int64)


class Placed(NamedTuple):
    """A column of a table: its place in a row, and that of its first feature among all."""

    place: int
    first: int
    facts: ColumnFacts


def add_columns(graph: Graph, columns: Columns, embeddings: Sequence[NDArray[Any]], weight: NDArray[Any]) -> str:
    """Add the product of a table's features and the weight (n_features, n_out); the rows of the table are float64.

    The operators are as few for many columns as for two: each is for all numbers, all knots or all categories; but each
    embedding has some of its own.
    """
    facts = [column.facts for column in columns.columns]
    sizes = (0 if each.width else column.n_features for column, each in zip(columns.columns, facts, strict=True))
    *firsts, n_features = itertools.accumulate(sizes, initial=0)
    placed = [Placed(*column) for column in zip(itertools.count(), firsts, facts, strict=False)]
    numbers = [column for column in placed if column.facts.is_number]
    categories = [column for column in placed if not (column.facts.is_number or column.facts.width)]
    products = [add_numbers(graph, numbers, weight)] if numbers else []
    products += [add_categories(graph, categories, weight)] if categories else []
    for column, embedding in zip((column for column in placed if column.facts.width), embeddings, strict=True):
        n_features, begin = n_features + column.facts.width, n_features
        found = add_categories(graph, [column._replace(first=0)], embedding)
        products.append(graph.add("MatMul", found, weight[begin:n_features]))
    return graph.add("Sum", *products)


def add_numbers(graph: Graph, numbers: Sequence[Placed], weight: NDArray[Any]) -> str:
    """Add the product of the features of numbers and the weight: clipped numbers, hat functions, marks of missing."""
    import onnx

    dtype = onnx.helper.np_dtype_to_tensor_dtype(graph.dtype)
    centered = graph.add("Sub", add_taken(graph, numbers), np.array([column.facts.center for column in numbers]))
    scaled = graph.add("Mul", centered, np.array([column.facts.scale for column in numbers]))
    scaled = graph.add("Clip", scaled, np.array(-LARGEST_NUMBER), np.array(LARGEST_NUMBER))
    part = graph.add("Div", scaled, np.array(NUMBER_LIMIT))
    root = graph.add("Sqrt", graph.add("Add", graph.add("Mul", part, part), np.array(1.0)))
    features, sources, rows = graph.add("Div", scaled, root), [*numbers], [column.first for column in numbers]
    for column in numbers:
        begin = column.first + 1 + column.facts.marks_missing
        rows += range(begin, begin + len(column.facts.knots))
        sources += [column] * len(column.facts.knots)
    if len(rows) > len(numbers):
        features = graph.add("Concat", features, add_hats(graph, numbers), axis=1)
    missing = graph.add("IsNaN", add_taken(graph, sources))
    features = graph.add("Cast", graph.add("Where", missing, np.array(0.0), features), to=dtype)
    marked = [column for column in numbers if column.facts.marks_missing]
    if marked:
        rows += [column.first + 1 for column in marked]
        marks = graph.add("Cast", graph.add("IsNaN", add_taken(graph, marked)), to=dtype)
        features = graph.add("Concat", features, marks, axis=1)
    return graph.add("MatMul", features, weight[rows])


def add_hats(graph: Graph, numbers: Sequence[Placed]) -> str:
    """Add the hat functions of all knots: of each the way to it from the knot before, minus that on to the next.

    A way is 0 before its beginning and 1 behind its end.  That to the first knot is always 1, that from the last 0.
    """
    sources: list[Placed] = []
    begins, lengths, added = [], [], []
    ups: list[int] = []
    for column in numbers:
        knots = column.facts.knots
        if knots:
            ups += range(len(sources), len(sources) + len(knots))
            sources += [column] * (len(knots) + 1)
            begins += [0.0, *knots[:-1], 0.0]
            lengths += [math.inf, *np.diff(knots), math.inf]
            added += [1.0] + [0.0] * len(knots)
    ways = graph.add("Div", graph.add("Sub", add_taken(graph, sources), np.array(begins)), np.array(lengths))
    ways = graph.add("Clip", graph.add("Add", ways, np.array(added)), np.array(0.0), np.array(1.0))
    to, on = (graph.add("Gather", ways, places(*(up + k for up in ups)), axis=1) for k in (0, 1))
    return graph.add("Sub", to, on)


def add_categories(graph: Graph, categories: Sequence[Placed], weight: NDArray[Any]) -> str:
    """Add the sum of the rows of the weight that a table's row gathers: for a category without a feature, zeros."""
    import onnx

    n_rows = [column.facts.n + column.facts.marks_missing for column in categories]
    rows = [column.first + k for column, n in zip(categories, n_rows, strict=True) for k in range(n)]
    gathered = np.vstack([weight[rows], np.zeros_like(weight[:1])])
    *begins, none = itertools.accumulate(n_rows, initial=0)
    absent = [
        begin + column.facts.n if column.facts.marks_missing else none
        for begin, column in zip(begins, categories, strict=True)
    ]
    x, last = add_taken(graph, categories), np.array([column.facts.n - 1.0 for column in categories])
    code = graph.add("Floor", graph.add("Max", graph.add("Min", x, last), np.array(0.0)))
    other = graph.add("Where", graph.add("IsNaN", x), np.array(absent, float), np.array(float(none)))
    row = graph.add("Where", graph.add("Equal", x, code), graph.add("Add", code, np.array(begins, float)), other)
    found = graph.add("Gather", gathered, graph.add("Cast", row, to=onnx.TensorProto.INT64), axis=0)
    return graph.add("ReduceSum", found, places(1), keepdims=0)


def add_taken(graph: Graph, sources: Iterable[Placed]) -> str:
    """Add the numbers of these columns of the table, in this order."""
    return graph.add("Gather", "X", places(*(column.place for column in sources)), axis=1)


def to_onnx(network: Network, path: str | os.PathLike[str] | None = None) -> onnx.ModelProto:
    """Translate a network to an ONNX model, and write it to a file if a path is given.

    Parameters
    ----------
    network : Network
    path : path or None, default None
        A file such as ``"digits.onnx"``, written atomically: a crash leaves an old file whole.

    Returns
    -------
    onnx.ModelProto
        Checked.  Its input is ``"X"`` (n, n_in), or (n, height, width, channels) if the network takes images, of the
        network's dtype: multiply uint8 pixels by 1/256 first, as the network itself does.  If the network begins with
        `fastnn.layers.Columns`, X is (n, n_columns), with NaN for what is missing, and always float64, so that dates
        and large numbers lose nothing before they are scaled.  The outputs of a classifier
        are ``"probabilities"`` and ``"labels"`` (int64), as `Network.predict_proba` and `Network.predict` return them;
        the output of regression is ``"values"``.  The metadata has this package's version under ``"fastnn"``, the
        network's description under ``"network"``, and its `input_scale`, if known, under ``"input_scale"``.

    Raises
    ------
    ImportError
        If onnx is not installed.
    TypeError
        If network is not a Network or path not a path.
    ValueError
        If the network is too large for an ONNX file, about 2 GB.
    OSError
        If the file cannot be written.

    Notes
    -----
    The operators are those of opset 13, of 2020.  onnxruntime runs float32 and float64 networks, with the same results
    up to rounding.  Convolution in float64 is slow there and takes much memory.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network must be a fastnn.Network, not {type(network).__name__}")
    path = None if path is None else check_path(path)
    try:
        import onnx
    except ImportError as error:
        raise ImportError('export to ONNX needs onnx: pip install "fastnn[onnx]"') from error
    if network.parameters.nbytes > MAX_BYTES:
        raise ValueError(
            f"network has {network.parameters.nbytes / 1e9:.1f} GB of parameters; an ONNX file can hold about 2 GB"
        )

    graph = Graph(network.dtype)
    logits = _add_layers(graph, network)
    outputs = _add_outputs(graph, network, logits)
    number = onnx.helper.np_dtype_to_tensor_dtype(network.dtype if network.columns is None else np.dtype("float64"))
    X = onnx.helper.make_tensor_value_info("X", number, ["n", *network.input_shape])
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "network", [X], outputs, graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="fastnn",
        producer_version=__version__,
    )
    properties = {"fastnn": __version__, "network": repr(network)}
    properties |= {} if network.input_scale is None else {"input_scale": repr(network.input_scale)}
    onnx.helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    if path is not None:
        storage.write_atomically(path, model.SerializeToString())
    return model


def _add_layers(graph: Graph, network: Network) -> str:
    """Add all layers and return the name of the logits, or of the values without softmax or sigmoid."""
    value, is_image = "X", len(network.input_shape) == 3
    network = network.without_norm()
    tables = (arrays for arrays in network.slots.by_layer(network.parameters) if "weight" in arrays)
    channels_first = is_image and graph.dtype == np.float32
    if channels_first:
        value = graph.add("Transpose", value, perm=[0, 3, 1, 2])
    for facts in network.facts():
        if facts.maps is not None:
            value = add_convolution(graph, value, facts.maps, next(tables)) if facts.maps.convolution else value
            value = add_pooling(graph, value, facts.maps) if facts.maps.pooling else value
        else:
            if is_image:
                value = graph.add("Transpose", value, perm=[0, 2, 3, 1]) if channels_first else value
                value, is_image = graph.add("Flatten", value), False
            arrays = next(tables)
            if value == "X" and network.columns is not None:
                product = add_columns(graph, network.columns, network.embeddings, arrays["weight"])
            else:
                product = graph.add("MatMul", value, arrays["weight"])
            value = graph.add("Add", product, arrays["bias"])
        value = ADD_ACTIVATION[facts.activation or "identity"](graph, value)
    return value


def _add_outputs(graph: Graph, network: Network, logits: str) -> list[onnx.ValueInfoProto]:
    """Add what follows the logits, and return the descriptions of the outputs."""
    import onnx

    shape: list[str | int | None] = ["n", network.n_out]
    number, integer = onnx.helper.np_dtype_to_tensor_dtype(network.dtype), onnx.TensorProto.INT64
    describe = onnx.helper.make_tensor_value_info
    if network.loss == "cross_entropy":
        graph.add("Softmax", logits, axis=1, output="probabilities")
        graph.add("ArgMax", logits, axis=1, keepdims=0, output="labels")
        return [describe("probabilities", number, shape), describe("labels", integer, shape[:1])]
    if network.loss == "binary_cross_entropy":
        graph.add("Sigmoid", logits, output="probabilities")
        graph.add("Cast", graph.add("Greater", logits, 0), to=integer, output="labels")
        return [describe("probabilities", number, shape), describe("labels", integer, shape)]
    graph.add("Identity", logits, output="values")
    return [describe("values", number, shape)]


Layers = tuple[Sequence[NDArray[Any]], Sequence[NDArray[Any]], str, str]  # weights, biases, activation, loss

# scikit-learn's names of activations, and the loss that matches the activation of its output layer.
SKLEARN_ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
SKLEARN_LOSSES = {"softmax": "cross_entropy", "logistic": "binary_cross_entropy", "identity": "squared"}


def from_sklearn(model: Any) -> Network:
    """Return a network with the results of a fitted scikit-learn model.

    Parameters
    ----------
    model : sklearn MLPClassifier, MLPRegressor or LogisticRegression
        Fitted, with two or more classes, or multi-label.  Logistic regression with three or more classes must be
        multinomial: one-against-the-rest models have other probabilities than a softmax.

    Returns
    -------
    Network
        It has the model's dtype and its own parameters.  Its loss is ``"cross_entropy"``, ``"binary_cross_entropy"``
        for several labels a row, or ``"squared"`` for regression.

    Raises
    ------
    TypeError
        If model is of another kind; take the steps of a Pipeline out of it first.
    ValueError
        If the model is not fitted, or computes something that no Network does.

    Notes
    -----
    A Network knows classes by number only: `Network.predict` returns indices into ``model.classes_``, and
    `Network.predict_proba` has its columns in that order.  Values of regression are (n, n_out), for one output too.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegression(max_iter=1000).fit(X, y)
    >>> net = from_sklearn(model)
    >>> bool(abs(net.predict_proba(X) - model.predict_proba(X)).max() < 1e-12)
    True
    """
    # Compare names, so that scikit-learn need not be imported.
    names = {kind.__name__ for kind in type(model).__mro__ if kind.__module__.partition(".")[0] == "sklearn"}
    if "LogisticRegression" in names:
        read = _read_logistic_regression
    elif names & {"MLPClassifier", "MLPRegressor"}:
        read = _read_perceptron
    else:
        raise TypeError(
            "model must be a fitted MLPClassifier, MLPRegressor or LogisticRegression of scikit-learn, "
            f"not {type(model).__name__}"
        )
    weights, biases, activation, loss = read(model)
    dtype = weights[0].dtype if weights[0].dtype in FLOATING else np.float64
    network = Network([len(weights[0]), *map(len, biases)], activation, dtype, loss=loss)
    network.weights, network.biases = weights, biases
    return network


def _read_perceptron(model: Any) -> Layers:
    _check_fitted(model, "coefs_")
    if model.activation not in SKLEARN_ACTIVATIONS:
        raise ValueError(f"model has the activation {model.activation!r}, not one of {', '.join(SKLEARN_ACTIVATIONS)}")
    if model.out_activation_ not in SKLEARN_LOSSES:  # exp, of the Poisson loss
        raise ValueError(
            f"model has the output activation {model.out_activation_!r}, not one of {', '.join(SKLEARN_LOSSES)}"
        )
    weights, biases = list(model.coefs_), list(model.intercepts_)
    loss = SKLEARN_LOSSES[model.out_activation_]
    if loss == "binary_cross_entropy" and model.n_outputs_ == 1:  # two classes, not one label
        weights[-1], biases[-1] = _two_classes(weights[-1], biases[-1])
        loss = "cross_entropy"
    return weights, biases, SKLEARN_ACTIVATIONS[model.activation], loss


def _read_logistic_regression(model: Any) -> Layers:
    _check_fitted(model, "coef_")
    coef = model.coef_.toarray() if hasattr(model.coef_, "toarray") else model.coef_  # after model.sparsify()
    weight, bias = coef.T, model.intercept_
    # Before scikit-learn 1.8 there was a choice: softmax, or one model for each class against the rest.
    multi_class = getattr(model, "multi_class", "auto")
    if len(model.classes_) == 2:
        if multi_class == "multinomial":  # softmax of (-z, z), that is the sigmoid of 2 z
            weight, bias = 2 * weight, 2 * bias
        weight, bias = _two_classes(weight, bias)
    elif multi_class == "ovr" or (multi_class != "multinomial" and model.solver == "liblinear"):
        raise ValueError("model must be multinomial, not one logistic regression for each class against the rest")
    return [weight], [bias], "identity", "cross_entropy"


def _check_fitted(model: Any, attribute: str) -> None:
    if not hasattr(model, attribute):
        raise ValueError(f"model is not fitted: this {type(model).__name__} has no {attribute}")


def _two_classes(weight: NDArray[Any], bias: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return an output layer of two classes with logits (0, z), from one with the single output z.

    The softmax of (0, z) is exp(z) / (1 + exp(z)) for the second class: the sigmoid of z.
    """
    return np.hstack([np.zeros_like(weight), weight]), np.concatenate([np.zeros_like(bias), bias])
