"""The model: a softmax regression or a multi-layer perceptron that classifies."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnn import storage
from fastnn._engine import Engine, Rows, available_threads
from fastnn._validation import (
    check_activations,
    check_dtype,
    check_labels,
    check_not_empty,
    check_rows,
    check_seed,
    check_sizes,
)
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.kernels.softmax import inplace_log_softmax, inplace_softmax


class Parameters(list[NDArray[Any]]):
    """The arrays of all layers; assigning to an item copies into the network's own array."""

    def __init__(self, arrays: Iterable[NDArray[Any]], name: str) -> None:
        super().__init__(arrays)
        self._name = name

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            targets = self[index]
            if len(targets) != len(value):
                raise ValueError(f"{self._name} holds {len(targets)} arrays there, one a layer, not {len(value)}")
            for target, array in zip(targets, value, strict=True):
                self._assign(target, array)
        else:
            self._assign(self[index], value)

    def _assign(self, target: NDArray[Any], value: Any) -> None:
        array = np.asarray(value)
        if array.shape != target.shape:
            raise ValueError(f"an array of {self._name} must keep its shape {target.shape}, not {array.shape}")
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise ValueError(f"an array of {self._name} must hold finite real numbers")
        target[...] = array

    def _fixed(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"the number and order of the arrays in {self._name} are those of the layers")

    append = extend = insert = pop = remove = clear = reverse = sort = _fixed
    __delitem__ = __iadd__ = __imul__ = _fixed

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy is a plain list: it no longer belongs to a network.
        return list, (list(self),)


def split_parameters(parameters: NDArray[Any], sizes: Sequence[int]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Views of a vector (n_parameters,): each layer's weights (n_in, n_out) and biases (n_out,)."""
    weights, biases, begin = [], [], 0
    for n_in, n_out in itertools.pairwise(sizes):
        middle, end = begin + n_in * n_out, begin + (n_in + 1) * n_out
        weights.append(parameters[begin:middle].reshape(n_in, n_out))
        biases.append(parameters[middle:end])
        begin = end
    return weights, biases


class Network:
    """A classifier: affine layers with an activation each, and a softmax at the end.

    Parameters
    ----------
    sizes : sequence of int
        Widths of the layers, the inputs first and the classes last: ``[784, 10]`` is softmax regression,
        ``[784, 20, 10]`` has one hidden layer of 20 units.
    activation : {"tanh", "sigmoid", "relu", "identity"} or a list of them, one a hidden layer, default "tanh"
        Of the hidden layers.
    dtype : {"float64", "float32"}, default "float64"
        Of the parameters and of all computation.
    seed : int, numpy.random.Generator or None, default 0
        For the initial weights; None takes fresh entropy from the system.

    Attributes
    ----------
    weights, biases : lists of arrays, (n_in, n_out) and (n_out,), C-contiguous
        Of each layer, from the input on.  Assigning to an item or into an array changes the network.
    parameters : (n_parameters,) array
        All of them in one vector, that weights and biases are views of.

    Notes
    -----
    Biases start at 0, and so do the weights of softmax regression.  The weights of other networks are drawn
    uniformly from +-sqrt(6 / (n_in + n_out)) [1]_, those in front of a ReLU from +-sqrt(6 / n_in) [2]_.

    Everywhere, `X` is (n, n_in), dense or ``scipy.sparse``, of any real type.  uint8 is taken as pixels, each
    multiplied by 1/256; other types are taken as they are.  `y` is (n,), integer classes from 0.

    References
    ----------
    .. [1] X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks",
       AISTATS 2010.
    .. [2] K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015.

    Examples
    --------
    >>> net = Network([784, 20, 10])
    >>> net.weights[0].shape, net.biases[1].shape
    ((784, 20), (10,))
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str | Sequence[str] = "tanh",
        dtype: DTypeLike = "float64",
        seed: int | np.random.Generator | None = 0,
    ) -> None:
        self.sizes = check_sizes(sizes)
        self.activation = check_activations(activation, len(self.sizes) - 2)
        self._allocate(check_dtype(dtype))
        self._draw(check_seed(seed))

    def _allocate(self, dtype: np.dtype[Any]) -> None:
        n_parameters = sum((n_in + 1) * n_out for n_in, n_out in zip(self.sizes[:-1], self.sizes[1:], strict=True))
        self._parameters = np.zeros(n_parameters, dtype)
        weights, biases = split_parameters(self._parameters, self.sizes)
        self._weights, self._biases = Parameters(weights, "weights"), Parameters(biases, "biases")

    def _draw(self, generator: np.random.Generator) -> None:
        if len(self.sizes) == 2:
            return
        for weight, activation in zip(self.weights, (*self.activation, "softmax"), strict=True):
            n_in, n_out = weight.shape
            limit = np.sqrt(6 / n_in if activation == "relu" else 6 / (n_in + n_out))
            weight[:] = generator.uniform(-limit, limit, weight.shape)

    @property
    def parameters(self) -> NDArray[Any]:
        """All weights and biases in one vector (n_parameters,)."""
        return self._parameters

    @parameters.setter
    def parameters(self, values: ArrayLike) -> None:
        self._parameters[:] = values

    @property
    def weights(self) -> Parameters:
        """Weights (n_in, n_out) of each layer."""
        return self._weights

    @weights.setter
    def weights(self, arrays: Sequence[ArrayLike]) -> None:
        self._weights[:] = arrays

    @property
    def biases(self) -> Parameters:
        """Biases (n_out,) of each layer."""
        return self._biases

    @biases.setter
    def biases(self, arrays: Sequence[ArrayLike]) -> None:
        self._biases[:] = arrays

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
    def n_classes(self) -> int:
        """Number of classes."""
        return self.sizes[-1]

    def __repr__(self) -> str:
        names = set(self.activation)
        activation = f"{names.pop()!r}" if len(names) == 1 else f"{list(self.activation)}"
        middle = f", activation={activation}" if self.activation else ""
        return f"Network({list(self.sizes)}{middle}, dtype={self.dtype.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"sizes": self.sizes, "activation": self.activation, "parameters": self.parameters}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.sizes, self.activation = state["sizes"], state["activation"]
        self._allocate(state["parameters"].dtype)
        self.parameters = state["parameters"]

    def engine(self, n_threads: int | None = None) -> Engine:
        """Return the engine that computes with this network's parameters."""
        codes = np.array([ACTIVATIONS[name] for name in self.activation], np.int32)
        return Engine(np.array(self.sizes, np.intp), codes, self.parameters, n_threads or available_threads())

    def _rows(self, X: Any) -> Rows:
        return check_rows(X, self.n_in, self.dtype)

    def _rows_and_labels(self, X: Any, y: ArrayLike) -> tuple[Rows, NDArray[np.intp]]:
        rows = self._rows(X)
        check_not_empty(rows.shape[0], "X")
        return rows, check_labels(y, rows.shape[0], self.n_classes)

    def predict(self, X: ArrayLike) -> NDArray[np.intp]:
        """Most probable class (n,) of each row; of several equal ones the first."""
        rows = self._rows(X)
        labels = np.empty(rows.shape[0], np.intp)
        for where, logits in self.engine().forward(rows):
            labels[where] = logits.argmax(axis=1)
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Probability (n, n_classes) of each class for each row; each row sums to 1."""
        rows = self._rows(X)
        probabilities = np.empty((rows.shape[0], self.n_classes), self.dtype)
        for where, logits in self.engine().forward(rows):
            inplace_softmax(logits)
            probabilities[where] = logits
        return probabilities

    def log_likelihood(self, X: ArrayLike, y: ArrayLike) -> float:
        """Mean over the rows of the log-probability of the true class, in nats."""
        return self.score_rows(*self._rows_and_labels(X, y))[0]

    def error(self, X: ArrayLike, y: ArrayLike) -> float:
        """Fraction of the rows that is misclassified."""
        return self.score_rows(*self._rows_and_labels(X, y))[1]

    def confusion_matrix(self, X: ArrayLike, y: ArrayLike) -> NDArray[np.intp]:
        """Number of rows (n_classes, n_classes) of each true class, down, that got each class, across."""
        rows, labels = self._rows_and_labels(X, y)
        matrix = np.zeros((self.n_classes, self.n_classes), np.intp)
        for where, logits in self.engine().forward(rows):
            np.add.at(matrix, (labels[where], logits.argmax(axis=1)), 1)
        return matrix

    def score_rows(self, rows: Rows, labels: NDArray[np.intp], n_threads: int | None = None) -> tuple[float, float]:
        """Return mean log-likelihood in nats and fraction misclassified, of rows and labels already checked."""
        log_likelihood, wrong = 0.0, 0
        for where, logits in self.engine(n_threads).forward(rows):
            y = labels[where]
            wrong += int(np.count_nonzero(logits.argmax(axis=1) != y))
            inplace_log_softmax(logits)
            log_likelihood += float(np.take_along_axis(logits, y[:, None], axis=1).sum(dtype=np.float64))
        return log_likelihood / len(labels), wrong / len(labels)

    def gradient(self, X: ArrayLike, y: ArrayLike) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """Gradient of the mean log-likelihood: (by the weights, by the biases), in the shapes of both lists.

        Raises
        ------
        FloatingPointError
            If the log-likelihood is not finite.
        """
        rows, labels = self._rows_and_labels(X, y)
        engine = self.engine()
        engine.begin(rows, len(labels))
        return split_parameters(engine.gradient(labels), self.sizes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file, atomically: a crash leaves an old file whole."""
        storage.save_network(path, self.sizes, self.activation, list(zip(self.weights, self.biases, strict=True)))

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
        sizes, activations, dtype, layers = storage.load_network(path)
        network = cls.__new__(cls)
        network.sizes, network.activation = sizes, activations
        network._allocate(dtype)
        network.weights, network.biases = zip(*layers, strict=True)
        return network
