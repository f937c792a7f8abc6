"""Make symbolic_lenet.json: what Theano 1.0.5 makes of examples/symbolic_lenet.py, for tests/test_examples.py.

    THEANO_FLAGS=cxx=g++ python tests/golden/lenet/make_symbolic_lenet.py FOLDER

reads MNIST's four gzipped IDX files from a folder, and needs Python 3.8 with NumPy 1.19, SciPy 1.5 and Theano 1.0.5.
The example runs as it is, with Theano in the place of fastnn.symbolic, on the first rows of MNIST.
"""

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import theano
import theano.tensor.nnet
import theano.tensor.signal.pool
from make_lenet import digest, read_mnist

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "symbolic_lenet.py"
ROWS, EPOCHS = 1000, 2


def load_mnist():
    """Return the first images as training, validation and test rows."""
    X, y = read_mnist("train", 2 * ROWS)
    X_test, y_test = read_mnist("t10k", ROWS)
    parts = (X[:ROWS], y[:ROWS]), (X[ROWS:], y[ROWS:]), (X_test, y_test)
    return [SimpleNamespace(X=images.reshape(len(images), 784), y=labels) for images, labels in parts]


def main():
    """Write the file."""
    modules = {"fastnn.symbolic": theano, "fastnn.symbolic.tensor": theano.tensor}
    modules["fastnn.symbolic.tensor.nnet"] = theano.tensor.nnet
    modules["fastnn.symbolic.tensor.signal.pool"] = theano.tensor.signal.pool
    modules["fastnn"] = SimpleNamespace(datasets=SimpleNamespace(load_mnist=load_mnist), symbolic=theano)
    sys.modules.update(modules)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        parameters = runpy.run_path(str(EXAMPLE))["main"](epochs=EPOCHS, dtype="float64")
    content = {
        "made_by": f"make_symbolic_lenet.py, Theano {theano.__version__}, NumPy {np.__version__}",
        "rows": ROWS,
        "epochs": EPOCHS,
        "dtype": "float64",
        "printed": printed.getvalue(),
        "parameters": [digest(parameter.get_value()) for parameter in parameters],
    }
    Path(__file__).with_name("symbolic_lenet.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
