"""MNIST for the peers: its gzipped IDX files, read by NumPy alone."""

import gzip
from pathlib import Path

import numpy as np


def load(folder):
    """Return the 60,000 training images, their labels, the 10,000 test images and theirs; pixel / 256 in float32."""

    def read(name, header):
        with gzip.open(Path(folder, name)) as file:
            return np.frombuffer(file.read(), np.uint8, offset=header)

    def images(name):
        return np.multiply(read(name, 16).reshape(-1, 784), np.float32(1 / 256))

    def labels(name):
        return read(name, 8).astype(np.int64)

    return (
        images("train-images-idx3-ubyte.gz"),
        labels("train-labels-idx1-ubyte.gz"),
        images("t10k-images-idx3-ubyte.gz"),
        labels("t10k-labels-idx1-ubyte.gz"),
    )
