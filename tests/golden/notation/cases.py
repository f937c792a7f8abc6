"""Cases in Theano's notation, run by Theano 1.0.5 to make `results.json`, and by the tests with fastnn.symbolic.

Made by Python 3.8 with numpy 1.19.5, scipy 1.5.4 and Theano 1.0.5, without a C compiler:

    THEANO_FLAGS=cxx= python cases.py
"""

import itertools
import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("results.json")

DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")

#: What may stand beside a variable.
CONSTANTS = (
    *("True", "1", "-1", "127", "128", "-129", "70000", "2**40", "2**63", "0.5", "0.1", "1e300"),
    *("float('inf')", "np.float32(0.1)", "np.float64(0.5)", "np.int64(1)", "np.int16(1)", "np.bool_(True)"),
    *("np.array(1)", "np.array(0.5)", "[1, 2]", "[0.5, 1]", "[]"),
)

BINARY = (
    *("x + y", "x - y", "x * y", "x / y", "x // y", "x % y", "x ** y", "y - x", "y / x", "y ** x"),
    *("T.maximum(x, y)", "T.lt(x, y)", "T.eq(x, y)", "T.switch(x, x, y)", "T.clip(x, 0, y)", "T.clip(x, y, 1.5)"),
    "T.concatenate([x, x * y])",
)

UNARY = (
    *("-x", "abs(x)", "T.sqr(x)", "T.exp(x)", "T.log(x)", "T.sqrt(x)", "T.tanh(x)", "T.sgn(x)", "T.log1p(x)"),
    *(
        "T.expm1(x)",
        "T.nnet.sigmoid(x)",
        "T.nnet.softplus(x)",
        "T.nnet.relu(x)",
        "T.nnet.relu(x, 0.1)",
        "1 / (1 + T.exp(-x))",
    ),
    *("x.sum()", "x.mean()", "x.max()", "x.min()", "x.argmax()", "x.sum(axis=0)", "T.mean(T.neq(x, 1))"),
    *("T.ones_like(x)", "T.zeros_like(x)", "T.arange(x[0])", "T.arange(x[0], 5, 2)", "T.arange(x[0], x[0] + 2)"),
    *("1 - (x > 0)", "T.switch(x > 0, 1, 0)", "T.switch(x > 0, 1.5, 0)", "T.switch(x > 0, x, 0)", "x * (x > 0)"),
    *("x.shape", "x.size", "x.shape[0] * 0.5", "x.sum() / x.shape[0]", "x[0]", "T.dot(x, x)", "T.dot(x, 2)"),
    *("T.cast(x, 'floatX')", "T.cast(x, 'int8')", "T.concatenate([x, x])", "x.dimshuffle(0, 'x')", "x.T"),
    *("T.nnet.binary_crossentropy(x, x)", "T.arange(3.)", "T.arange(0, 1, 0.1)", "T.arange(3)", "x.astype('float32')"),
)


#: x for what overflows.
LARGE = [[-1000.0, -50.0, -1e-9, 0.0, 1e-9, 50.0, 1000.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -2000.0]]

OVERFLOWING = (
    "T.log(T.nnet.sigmoid(x))",
    "T.log(1 - T.nnet.sigmoid(x))",
    "T.log(1. - 1/(1+T.exp(-x)))",
    "T.log(1/(1+T.exp(-x)))",
    "1/(1+T.exp(-x))",
    "T.exp(x)/(1+T.exp(x))",
    "2./(T.exp(-x)+1.)",
    "x/(1+T.exp(x))",
    "(1+T.exp(x))**-1",
    "(1+T.exp(x))**-1.",
    "T.log(1+T.exp(x))",
    "T.log1p(T.exp(x))",
    "-T.log(1+T.exp(-2*x))",
    "T.log1p(-T.nnet.sigmoid(x))",
    "T.log(T.sum(T.exp(x),axis=1))",
    "T.log(T.sum(T.exp(x)))",
    "T.log(T.exp(x).sum(axis=0,keepdims=True))",
    "T.log(T.mean(T.exp(x)))",
    "T.exp(x)/T.exp(x).sum(axis=1,keepdims=True)",
    "T.exp(x)/T.exp(x).sum(axis=1).dimshuffle(0,'x')",
    "T.exp(x)/T.exp(x).sum(axis=1)[:,None]",
    "T.exp(x[0])/T.exp(x[0]).sum()",
    "T.exp(x[1])/T.sum(T.exp(x[1]))",
    "T.log(T.exp(x)+T.exp(-x))",
    "T.log(T.exp(x)+T.exp(2*x))",
    "T.log(T.exp(x))",
    "T.log(T.nnet.softmax(x))",
    "T.log(T.nnet.softmax(x)[T.arange(2),[1,2]])",
    "T.log(T.nnet.softmax(x))[T.arange(2),[1,2]]",
    "T.log(T.nnet.softmax(x)[:,1])",
    "T.log(T.nnet.softmax(x).T)",
    "T.log(T.nnet.sigmoid(x)[0])",
    "T.log(T.nnet.sigmoid(x)[:,[0,1]])",
    "T.log(T.nnet.sigmoid(x).flatten())",
    "T.log(T.nnet.sigmoid(x).T)",
    "T.log(1-T.nnet.sigmoid(x)[0])",
    "T.log(1+x*1e-20)",
    "T.log(1-x*1e-20)",
    "T.exp(x*1e-20)-1",
    "T.exp(x)*T.nnet.sigmoid(-x)",
    "T.exp(-x)*T.nnet.sigmoid(x)",
    "T.exp(x)*(1/(1+T.exp(x)))",
    "T.nnet.softplus(x)",
    "T.nnet.binary_crossentropy(T.nnet.sigmoid(x), 0.3)",
    "T.nnet.categorical_crossentropy(T.nnet.softmax(x), np.array([1,2]))",
    "T.nnet.categorical_crossentropy(T.nnet.softmax(x), np.full((2,7),1/7.))",
    "1-1/(1+T.exp(x))",
    "T.log(T.ones_like(x)-T.nnet.sigmoid(x))",
    "T.log(T.ones_like(x)/(1+T.exp(-x)))",
    "T.log(0.5*T.nnet.sigmoid(x))",
    "T.log(T.nnet.sigmoid(x)**2)",
    "T.tanh(x)",
    "(T.exp(x)-T.exp(-x))/(T.exp(x)+T.exp(-x))",
    "T.log(T.clip(T.nnet.sigmoid(x),1e-7,1-1e-7))",
    "1/(1+T.exp(-(x*2-1)))",
    "T.log(1/(1+T.exp(-x-0.5)))",
    "T.log(1-1/(1+T.exp(-x-0.5)))",
    "T.log(T.exp(x)/(1+T.exp(x)))",
    "1./(1.+T.exp(-x)) * (1.-1./(1.+T.exp(-x)))",
    "-0.3*T.log(1/(1+T.exp(-x)))-(1-0.3)*T.log(1-1/(1+T.exp(-x)))",
    "T.log(1/(1+T.exp(-x)))+T.log(1/(1+T.exp(x)))",
    "T.exp(x-T.max(x,axis=1,keepdims=True))/T.sum(T.exp(x-T.max(x,axis=1,keepdims=True)),axis=1,keepdims=True)",
    "T.log(T.sum(T.exp(x-T.max(x,axis=1,keepdims=True)),axis=1,keepdims=True))+T.max(x,axis=1,keepdims=True)",
    "T.exp(-T.log(1+T.exp(-x)))",
    "T.exp(T.log(T.nnet.sigmoid(x)))",
    "T.log(T.nnet.sigmoid(x)/(1-T.nnet.sigmoid(x)))",
    "T.log(T.nnet.sigmoid(x))-T.log(1-T.nnet.sigmoid(x))",
    "T.log(1-T.nnet.softmax(x))",
    "T.log(T.nnet.softmax(x)*0.5)",
    "T.switch(x>0,T.log(1+T.exp(-x)),-x+T.log(1+T.exp(x)))",
    "T.maximum(x,0)-x*0.3+T.log(1+T.exp(-abs(x)))",
    "T.maximum(x,0)-x*0.3+T.log1p(T.exp(-abs(x)))",
    "T.nnet.softmax(x)",
    "T.max(x,axis=1)+T.log(T.sum(T.exp(x),axis=1))",
    "T.sum(T.exp(x),axis=1)",
    "T.log(T.exp(x).sum(axis=1)).mean()",
    "T.log(x**2+1)",
    "T.log(1+x**2)",
    "T.log(2+T.exp(x))",
    "T.log(T.exp(x)+1e-9)",
    "1/T.exp(-x)",
    "T.exp(x)/(T.exp(x)+1)",
    "T.exp(x)/(T.exp(x)+T.exp(-x))",
    "1/(1+T.exp(-x))/2",
    "1/(2*(1+T.exp(-x)))",
    "-1/(1+T.exp(-x))",
    "-(1/(1+T.exp(-x)))",
)

#: x and y for what has corners and ties.
TIES = {"x": [[0.0, 1.0, -1.0, 1.0], [2.0, 2.0, 0.0, 2.0]], "y": [[0.0, 0.5, -1.0, 1.0], [0.0, 2.0, 1.0, -2.0]]}

CORNERS = (
    *("T.nnet.relu(x)", "T.nnet.relu(x, 0.1)", "T.nnet.relu(x, y)", "abs(x)", "T.sgn(x) * y", "T.maximum(x, y)"),
    *("T.minimum(x, y)", "T.maximum(y, x)", "T.maximum(x, 0)", "T.maximum(0, x)", "T.minimum(1, x)", "T.clip(x, 0, 1)"),
    *("T.clip(x, y, 1)", "T.clip(0.5, y, x)", "T.clip(x, 1, 0)", "T.switch(x > 0, x, 0.1 * x)", "x * (x > 0)"),
    *("T.switch(x, x, y)", "T.switch(x > y, x, y)", "T.switch(T.eq(x, y), x * y, y)", "x.max()", "x.min()"),
    *("x.max(axis=0) * y[0]", "x.max(axis=1) * y[:, 1]", "x.min(axis=1)", "T.max(x, axis=1, keepdims=True) * y"),
    *("T.max(T.maximum(x, y))", "x[T.arange(2), x.argmax(axis=1)]", "x ** 0", "x ** 1", "x ** 2 * y", "x ** 3"),
    *("abs(x) ** 1.5", "T.sqrt(abs(x) + 1)", "T.sqr(x) * y", "x % 0.75", "x // 0.75 + y", "T.cast(x, 'int32') * y"),
    *(
        "T.cast(T.cast(x, 'int32'), 'float64')",
        "(x > 0) * y",
        "T.lt(x, y) * 2.5",
        "T.eq(x, y) * x",
        "(x > y).mean() * y",
    ),
    *("T.switch(x > 0, T.log(x), 0)", "T.switch(x > 0, T.log(x), 0) * y", "T.switch(T.eq(x, 0), 0, y / x)"),
    *("T.switch(x > 0, T.sqrt(x), 0.5 * x)", "T.tanh(x) / y", "T.log(x + 3) / T.exp(y)"),
)

#: x for what is indexed; i counts rows, with one of them twice.
INDEXED = {"x": [[0.5, 1.5, 2.5, 3.5], [4.5, 5.5, 6.5, 7.5], [8.5, 9.5, 10.5, 11.5]], "i": [2, 0, 2], "k": 1}
INDEXED["m"] = [[0, 1, 0], [3, 0, 1]]

INDICES = (
    *(
        "x[x > 3]",
        "x[x[:, 0] > 3]",
        "x[:, x[0] > 1]",
        "x[x > 100]",
        "x[None, i]",
        "x[i, None]",
        "x[..., i]",
        "x[i, ..., 0]",
    ),
    *(
        "x[k, k]",
        "x[T.constant(1), i]",
        "x[-k]",
        "x[k - 3]",
        "x[i[0]]",
        "x[i[1] :]",
    ),
    *(
        "x[: i[0], i]",
        "x[i[0], :][i]",
        "x[np.array([2, 2]), 1:3]",
        "x[np.array([[0], [2]]), i]",
        "x[:, i, None]",
        "x[i > 0]",
    ),
    *("x[i > 0][:, i]", "x[T.arange(x.shape[0]), i]", "x[T.arange(i.shape[0]), m[0]]", "x[T.arange(0, 3, 2), i[:2]]"),
    *(
        "x[i]",
        "x[i, i]",
        "x[T.arange(3), i]",
        "x[T.arange(3), m]",
        "x[T.arange(3), m * 0]",
        "x[T.arange(1), i]",
        "x[m[0]]",
    ),
    *("x[T.arange(2).dimshuffle(0, 'x'), m]", "x[i.dimshuffle('x', 0), m]", "x[T.arange(3), T.arange(3)]", "x[k, i]"),
    *("x[T.arange(-1, 2), i]", "x[T.arange(2, -1, -1), i]", "x[-i]", "x[i[::-1]]", "x[k]", "x[k, 1]", "x[-1, ::-2]"),
    *(
        "x[k:, i]",
        "x[:, i]",
        "x[1:, 2]",
        "x[::2, ::-1]",
        "x[[0, 0, 1]]",
        "x[[0, 0, 1], [1, 1, 2]]",
        "x[[-1, 2], [0, 0]]",
    ),
    *(
        "x[i][i]",
        "x[i, k]",
        "x[k, i] * x[i, k]",
        "x[i].T[i]",
        "x[T.arange(3), x.argmax(axis=1)]",
    ),
    *("x.flatten()[m.flatten()]", "x[T.concatenate([i, i])]", "x[i, :][:, i]", "x[...][i]", "x[(i, i)]"),
    *("x.reshape((2, 6))[T.arange(2), k]", "x.dimshuffle(1, 0)[i, T.arange(3)]", "x.T[T.arange(3), i]"),
)


def types(theano, T, floatX):
    """dtypes of expressions, by kind and text; "error" where there is none."""
    theano.config.floatX = floatX
    found = {
        "constants": {text: [_dtype(f"T.constant({text})", T=T)] for text in CONSTANTS},
        "unary": {text: [_dtype(text, T=T, x=T.vector("x", dtype=dtype)) for dtype in DTYPES] for text in UNARY},
        "binary": {},
    }
    for dtype, text in itertools.product(DTYPES, BINARY):
        x = T.vector("x", dtype=dtype)
        others = [T.vector("y", dtype=other) for other in DTYPES]
        others += [eval(other, {"np": np}) for other in CONSTANTS]
        found["binary"][f"{dtype}, {text}"] = [_dtype(text, T=T, x=x, y=y) for y in others]
    theano.config.floatX = "float64"
    return found


def values(theano, T, floatX):
    """[value, gradients of its sum of squares by x and y], by text; "error" where there are none."""
    theano.config.floatX = floatX
    found = {text: _value(theano, T, text, floatX, {"x": LARGE}, square=False) for text in OVERFLOWING}
    found.update({text: _value(theano, T, text, floatX, TIES) for text in CORNERS})
    found.update({text: _value(theano, T, text, floatX, INDEXED) for text in INDICES})
    theano.config.floatX = "float64"
    return found


def _value(theano, T, text, floatX, given, square=True):
    names = {name: getattr(T, ("scalar", "vector", "matrix")[np.ndim(value)]) for name, value in given.items()}
    names = {name: make(name, dtype=floatX if name in "xy" else "int64") for name, make in names.items()}
    try:
        expression = eval(text, {"np": np, "T": T}, names)
        cost = T.sum(expression**2 if square else expression)
        by = T.grad(cost, [names[name] for name in "xy" if name in names], disconnected_inputs="ignore")
        function = theano.function(list(names.values()), [expression, *by], on_unused_input="ignore")
        return [
            np.asarray(each, float).tolist()
            for each in function(*(np.asarray(given[name], names[name].dtype) for name in names))
        ]
    except Exception:
        return "error"


def _dtype(text, **names):
    try:
        return str(eval(text, {"np": np}, names).dtype)
    except Exception:
        return "error"


if __name__ == "__main__":
    import theano
    import theano.tensor

    results = {
        floatX: {"types": types(theano, theano.tensor, floatX), "values": values(theano, theano.tensor, floatX)}
        for floatX in ("float64", "float32")
    }
    FILE.write_text(json.dumps(results))
