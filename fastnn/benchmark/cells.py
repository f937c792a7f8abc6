"""The benchmark's cells: models, rows and batches, stated once."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

LEARNING_RATE = 0.1


class Cell(NamedTuple):
    """One model and a way to train it: hidden layers are tanh, the objective is the mean log-likelihood.

    Attributes
    ----------
    number : int
        What the cell is called in tables and on the command line.
    name : str
        The same in words.
    sizes : tuple of int
        Layer widths, input first.
    rows : int
        Number of training images of MNIST, from the first on.
    batch_size : int
        Rows a step; as many as rows: one step an epoch.
    """

    number: int
    name: str
    sizes: tuple[int, ...]
    rows: int
    batch_size: int

    @property
    def flops(self) -> int:
        """Floating-point operations an epoch: 4 a weight and row in the first layer, 6 in later ones.

        A multiply-add counts twice; it is needed forward, for the weights' gradient, and in all layers but the
        first for the gradient that goes further back.
        """
        first, *later = [n_in * n_out for n_in, n_out in pairwise(self.sizes)]
        return self.rows * (4 * first + 6 * sum(later))


CELLS = {
    cell.number: cell
    for cell in (
        Cell(1, "softmax, 50,000 rows at once", (784, 10), 50_000, 50_000),
        Cell(2, "20 units, 5,000 rows at once", (784, 20, 10), 5_000, 5_000),
        Cell(3, "500 units, 50,000 rows at once", (784, 500, 10), 50_000, 50_000),
        Cell(4, "20 units, batches of 20", (784, 20, 10), 50_000, 20),
        Cell(5, "100 units, batches of 128", (784, 100, 10), 50_000, 128),
        Cell(6, "500 units, batches of 20", (784, 500, 10), 50_000, 20),
        Cell(7, "500 units, batches of 128", (784, 500, 10), 50_000, 128),
    )
}
