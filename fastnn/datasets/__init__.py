"""Data sets: the embedded MNIST, and readers of files."""

from fastnn.datasets._files import read_rows
from fastnn.datasets._idx import read_idx
from fastnn.datasets._mnist import Dataset, load_mnist

__all__ = ["Dataset", "load_mnist", "read_idx", "read_rows"]
