"""Convolutions and poolings, run by Theano 1.0.5 to make `images.json`, and by the tests with fastnn.symbolic.

Made by Python 3.8 with numpy 1.19.5, scipy 1.5.4 and Theano 1.0.5 with g++, whose convolutions call OpenBLAS:

    THEANO_FLAGS=cxx=g++,blas.ldflags=-lopenblas python images.py
"""

import json
import warnings
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("images.json")

#: Shapes of x and w.
IMAGES, FILTERS = (2, 2, 5, 6), (2, 2, 3, 2)

#: Expressions of x and w, of these shapes but for the changes that stand beside the text.
CONVOLUTIONS = (
    ("T.nnet.conv2d(x, w)", {}),
    ("T.nnet.conv2d(x, w, (2, 2, 5, 6), (2, 2, 3, 2))", {}),
    ("T.nnet.conv2d(x, w, input_shape=(None, 2, 5, 6), filter_shape=(2, 2, 3, 2), border_mode='full')", {}),
    ("T.nnet.conv2d(x, w, border_mode='half')", {}),
    ("T.nnet.conv2d(x, w, border_mode='half')", {"w": (2, 2, 2, 4)}),
    ("T.nnet.conv2d(x, w, border_mode='half', filter_flip=False, subsample=(2, 3))", {}),
    ("T.nnet.conv2d(x, w, border_mode=1)", {}),
    ("T.nnet.conv2d(x, w, border_mode=(2, 1), subsample=(1, 2))", {}),
    ("T.nnet.conv2d(x, w, border_mode=((1, 0), 2))", {}),
    ("T.nnet.conv2d(x, w, border_mode='full', subsample=(2, 2))", {}),
    ("T.nnet.conv2d(x, w, subsample=(2, 1))", {}),
    ("T.nnet.conv2d(x, w, subsample=(3, 4), filter_flip=False)", {}),
    ("T.nnet.conv2d(x, w, filter_flip=False)", {}),
    ("T.nnet.conv2d(x, w, filter_dilation=(2, 3))", {}),
    ("T.nnet.conv2d(x, w, filter_dilation=(1, 2), border_mode='full', subsample=(2, 2))", {}),
    ("T.nnet.conv2d(x, w, filter_dilation=(2, 1), border_mode='half')", {}),
    ("T.nnet.conv2d(x, w, num_groups=2)", {"w": (4, 1, 3, 2)}),
    ("T.nnet.conv2d(x, w)", {"w": (3, 2, 5, 6)}),
    ("T.nnet.conv2d(x, w)", {"w": (3, 2, 1, 1)}),
    ("T.nnet.conv2d(x, w)", {"x": (1, 2, 3, 2), "w": (1, 2, 3, 2)}),
    ("T.nnet.conv2d(x, w)", {"x": (1, 1, 1, 7), "w": (2, 1, 1, 3)}),
    ("T.nnet.conv2d(x, w)", {"x": (0, 2, 5, 6)}),
    ("conv.conv2d(x, w)", {}),
    ("conv.conv2d(x, w, border_mode='full')", {}),
    ("conv.conv2d(x, w, image_shape=(2, 2, 5, 6), filter_shape=(2, 2, 3, 2), subsample=(2, 2))", {}),
    ("signal.conv2d(x, w)", {"x": (5, 6), "w": (3, 2)}),
    ("signal.conv2d(x, w)", {"x": (2, 5, 6), "w": (3, 2)}),
    ("signal.conv2d(x, w, border_mode='full')", {"x": (5, 6), "w": (2, 3, 2)}),
    ("signal.conv2d(x, w, subsample=(2, 1))", {"x": (2, 5, 6), "w": (2, 3, 2)}),
    (
        "T.nnet.abstract_conv.conv2d_grad_wrt_inputs(x, w, (2, 3, 7, 7), border_mode='valid')",
        {"w": (2, 3, 3, 2)},
    ),
    (
        "T.nnet.abstract_conv.conv2d_grad_wrt_inputs(x, w, (None, None, 10, 13), border_mode=1, subsample=(2, 2))",
        {"w": (2, 3, 3, 4)},
    ),
    (
        "T.tanh(pool.pool_2d(T.nnet.conv2d(x, w), (2, 2), ignore_border=True))",
        {},
    ),
)

#: Expressions of x, which holds small integers: many are equal.
POOLINGS = (
    ("pool.pool_2d(x, (2, 2), ignore_border=True)", {}),
    ("pool.pool_2d(x, (2, 2))", {}),
    ("pool.pool_2d(x, ds=(2, 2), ignore_border=True)", {}),
    ("pool.pool_2d(x, ds=(3, 2), ignore_border=True, st=(1, 2), padding=(1, 1))", {}),
    ("pool.pool_2d(x, (3, 4), ignore_border=False)", {}),
    ("pool.pool_2d(x, (2, 3), ignore_border=False, stride=(1, 2))", {}),
    ("pool.pool_2d(x, (3, 3), ignore_border=False, stride=(2, 2))", {}),
    ("pool.pool_2d(x, (2, 2), ignore_border=False, stride=(3, 3))", {}),
    ("pool.pool_2d(x, (2, 2), ignore_border=True, stride=(1, 1), mode='max')", {}),
    ("pool.pool_2d(x, (3, 3), ignore_border=True, stride=(2, 2), pad=(1, 2))", {}),
    ("pool.pool_2d(x, (3, 3), ignore_border=True, pad=(2, 1), mode='sum')", {}),
    ("pool.pool_2d(x, (2, 2), ignore_border=False, mode='sum')", {}),
    ("pool.pool_2d(x, (2, 4), ignore_border=False, stride=(2, 3), mode='average_inc_pad')", {}),
    ("pool.pool_2d(x, (2, 4), ignore_border=False, stride=(2, 3), mode='average_exc_pad')", {}),
    ("pool.pool_2d(x, (3, 3), ignore_border=True, stride=(2, 2), pad=(1, 1), mode='average_inc_pad')", {}),
    ("pool.pool_2d(x, (3, 3), ignore_border=True, stride=(2, 2), pad=(1, 1), mode='average_exc_pad')", {}),
    ("pool.pool_2d(x, (1, 1), ignore_border=True)", {}),
    ("pool.pool_2d(x, (7, 7), ignore_border=True)", {}),
    ("pool.pool_2d(x, (7, 7), ignore_border=False)", {}),
    ("pool.pool_2d(x, (7, 2), ignore_border=True, stride=(1, 1))", {}),
    ("pool.pool_2d(x, (17, 17), ignore_border=False)", {"x": (1, 20, 19)}),
    ("pool.pool_2d(x, (2, 2), ignore_border=True)", {"x": (5, 6)}),
    ("pool.pool_2d(x, (2, 2), ignore_border=False)", {"x": (3, 5, 7)}),
    ("pool.pool_2d(x, (2, 2), ignore_border=True)", {"x": (1, 1, 2, 2, 4)}),
    ("pool.pool_2d(x, (2, 2), ignore_border=True)", {"x": (0, 2, 4, 4)}),
)


def results(modules, floatX):
    """[value, gradients of its weighted sum by x and w], by text and shapes; the value alone if it has no gradients.

    Parameters
    ----------
    modules : dict
        theano, T, conv, pool and signal, which is theano.tensor.signal.conv.
    """
    modules["theano"].config.floatX = floatX
    found = {}
    for cases in (CONVOLUTIONS, POOLINGS):
        for text, changes in cases:
            shapes = {"x": IMAGES, "w": FILTERS, **changes}
            found[f"{text} of {shapes['x']} and {shapes['w']}"] = result(
                modules, text, shapes, floatX, cases is POOLINGS
            )
    modules["theano"].config.floatX = "float64"
    return found


def result(modules, text, shapes, floatX, is_whole):
    theano, T = modules["theano"], modules["T"]
    random = np.random.RandomState(0)
    values = {name: random.uniform(-1, 1, shape) for name, shape in sorted(shapes.items())}
    if is_whole:
        values["x"] = np.floor(3 * values["x"])
    given = {name: theano.shared(value.astype(floatX), name) for name, value in values.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = eval(text, dict(modules), given)
    value = y.eval()
    weights = np.cos(np.arange(value.size) + 1).astype(floatX)
    cost = (y.flatten() * weights).sum()
    try:
        gradients = T.grad(cost, [given["x"]] if is_whole else [given["x"], given["w"]])
        return [value, *theano.function([], gradients)()]
    except (ValueError, NotImplementedError):  # Theano lacks some
        return [value]


if __name__ == "__main__":
    import theano
    import theano.tensor as T
    from theano.tensor.nnet import conv
    from theano.tensor.signal import conv as signal
    from theano.tensor.signal import pool

    modules = {"theano": theano, "T": T, "conv": conv, "pool": pool, "signal": signal}
    stored = {
        text: [[list(array.shape), [float(f"{number:.12g}") for number in array.ravel()]] for array in value]
        for text, value in results(modules, "float64").items()
    }
    FILE.write_text(json.dumps(stored, indent=0).replace(",\n", ",").replace('],"', '],\n"') + "\n")
