"""Data sets: MNIST, embedded, and readers for the files it comes in."""

from fastnn.datasets._files import read_rows
from fastnn.datasets._idx import read_idx
from fastnn.datasets._mnist import Dataset, load_mnist

__all__ = ["Dataset", "load_mnist", "read_idx", "read_rows"]
