"""The benchmark's cells: models, rows and ways to train, stated once."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

#: Of each optimizer that a cell can have.
LEARNING_RATES = {"sgd": 0.1, "adam": 0.001}


#: Height and width of MNIST's images, and of what is pooled after a convolution.
IMAGE_SIDE = 28
POOLED = 2


class Cell(NamedTuple):
    """One model and a way to train it; the objective is the mean log-likelihood.

    Attributes
    ----------
    label : str
        What the cell is called in tables and on the command line.
    name : str
        The same in words.
    sizes : tuple of int
        Layer widths, input first; after convolutions, those of the dense layers behind the first.
    rows : int
        Number of training rows.
    batch_size : int
        Rows a step; as many as rows: one step an epoch.
    activation : {"tanh", "relu"}, default "tanh"
        Of the hidden layers.
    optimizer : {"sgd", "adam"}, default "sgd"
        Plain steps, or Adam.
    dropout : float, default 0.0
        Share of the hidden units that is dropped.
    shuffled : bool, default False
        Whether each epoch takes the rows in a new random order.
    data : {"mnist", "table"}, default "mnist"
        The first training images of MNIST, or standard normal numbers with random classes.
    convolutions : tuple of (int, int), default ()
        Filters and kernel size of the convolutions before the dense layers, without zeros around the images; the
        largest of 2x2 numbers is taken after each, before the activation.
    """

    label: str
    name: str
    sizes: tuple[int, ...]
    rows: int
    batch_size: int
    activation: str = "tanh"
    optimizer: str = "sgd"
    dropout: float = 0.0
    shuffled: bool = False
    data: str = "mnist"
    convolutions: tuple[tuple[int, int], ...] = ()

    def first(self, rows: int | None) -> Cell:
        """Return the cell of the first rows only, which its name tells; of all of them if there are no more."""
        if rows is None or rows >= self.rows:
            return self
        name = f"{self.name}, {rows:,} rows"
        return self._replace(name=name, rows=rows, batch_size=min(rows, self.batch_size))

    @property
    def learning_rate(self) -> float:
        """Learning rate of the cell's optimizer."""
        return LEARNING_RATES[self.optimizer]

    @property
    def flops(self) -> int:
        """Floating-point operations an epoch: 4 a multiply-add of a row in the first layer, 6 in later ones.

        A multiply-add counts twice; it is needed forward, for the weights' gradient, and in all layers but the
        first for the gradient that goes further back.  What an optimizer does beside it does not count.
        """
        first, *later = self.products
        return self.rows * (4 * first + 6 * sum(later))

    @property
    def products(self) -> list[int]:
        """Multiply-adds of each layer to classify a row."""
        found, (side, channels), n_in = [], (IMAGE_SIDE, 1), self.sizes[0]
        for filters, size in self.convolutions:
            side -= size - 1
            found.append(side**2 * size**2 * channels * filters)
            side, channels = side // POOLED, filters
            n_in = side**2 * channels
        return found + [n_in * n_out for n_in, n_out in pairwise((n_in, *self.sizes[1:]))]


def _adam(label: str, sizes: tuple[int, ...], rows: int, batch_size: int, dropout: float = 0.0) -> Cell:
    widths = "-".join(str(size) for size in sizes)
    name = f"{widths}, batches of {batch_size:,}" + (f", dropout {dropout}" if dropout else "")
    data = "mnist" if sizes[0] == 784 else "table"
    return Cell(label, name, sizes, rows, batch_size, "relu", "adam", dropout, shuffled=True, data=data)


#: What people train: ReLU, Adam, shuffled rows, of MNIST (784 inputs) and of tables (64).
_ADAM = (
    _adam("A", (784, 512, 512, 10), 50_000, 128),
    _adam("B", (784, 512, 512, 10), 50_000, 128, dropout=0.2),
    _adam("C", (784, 512, 512, 10), 50_000, 1024),
    _adam("D", (64, 256, 256, 2), 50_000, 256),
    _adam("E", (64, 100, 2), 50_000, 32),
    _adam("F", (64, 2048, 2048, 2048, 2), 10_000, 256),
    _adam("G", (64, 64, 64, 64, 2), 50_000, 64),
    _adam("H", (64, 256, 256, 2), 50_000, 32),
)

#: What textbooks begin with: at most one hidden layer, tanh, plain steps, rows of MNIST in order.
_PLAIN = (
    Cell("1", "softmax, 50,000 rows at once", (784, 10), 50_000, 50_000),
    Cell("2", "20 units, 5,000 rows at once", (784, 20, 10), 5_000, 5_000),
    Cell("3", "500 units, 50,000 rows at once", (784, 500, 10), 50_000, 50_000),
    Cell("4", "20 units, batches of 20", (784, 20, 10), 50_000, 20),
    Cell("5", "100 units, batches of 128", (784, 100, 10), 50_000, 128),
    Cell("6", "500 units, batches of 20", (784, 500, 10), 50_000, 20),
    Cell("7", "500 units, batches of 128", (784, 500, 10), 50_000, 128),
)

_LENET = Cell("I", "LeNet 20-50-500, batches of 128", (784, 500, 10), 60_000, 128, convolutions=((20, 5), (50, 5)))

#: Images: two convolutions, each pooled, before the dense layers; plain steps, rows of MNIST in order.
_CONVOLUTION = (
    _LENET,
    _LENET._replace(label="J", name="LeNet 20-50-500, batches of 500", batch_size=500),
    Cell("K", "LeNet-5 6-16-120-84, batches of 128", (784, 120, 84, 10), 60_000, 128, convolutions=((6, 5), (16, 5))),
    Cell("L", "3x3 32-64-128, batches of 128", (784, 128, 10), 60_000, 128, "relu", convolutions=((32, 3), (64, 3))),
)

#: The cells of each set.
_SETS = {"plain": _PLAIN, "adam": _ADAM, "convolution": _CONVOLUTION}

CELLS = {cell.label: cell for cells in _SETS.values() for cell in cells}

#: The labels of each set of cells.
SETS = {name: tuple(cell.label for cell in cells) for name, cells in _SETS.items()}
