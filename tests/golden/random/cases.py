"""Random draws and programs with them, run by Theano 1.0.5 to make `results.json`, and by the tests with our notation.

Made by Python 3.8 with NumPy 1.19.5 and Theano 1.0.5 with a C compiler, whose numbers MRG31k3p's in float32 are:

    python cases.py
"""

import json
import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("results.json")

#: Longer arrays are stored as a digest.
LONGEST = 100

#: Draws from `RandomStreams`, in the words that both know; each is called three times.
FROM_NUMPY = (
    *("s.uniform((2, 3))", "s.uniform((2, 3), -1, 2)", "s.uniform((3,), low=np.arange(3), high=[4., 5., 6.])"),
    *("s.uniform()", "s.uniform(())", "s.uniform(low=np.zeros(2), high=np.ones((3, 1)))", "s.uniform((40, 30))"),
    *("s.uniform((2, -1), low=np.zeros(3))", "s.uniform((5,), dtype='float32')", "s.uniform((0, 3))"),
    *("s.uniform(x.shape)", "s.uniform(x.shape[:1])", "s.uniform((x.shape[0], 2))", "s.uniform(x.shape, high=x)"),
    *("s.uniform(T.cast(y, 'int64'), ndim=2)", "s.uniform((y[0], y[1] + 1))", "s.uniform(size=(2,)) + s.uniform((2,))"),
    *("s.normal((3, 3))", "s.normal((2, 2), 1, 0.1)", "s.normal((3,), avg=np.arange(3.), std=[1., 2., 3.])"),
    *("s.normal(avg=np.zeros(3))", "s.normal((1,))", "s.normal(x.shape, std=0.1)", "s.normal((0,))", "s.normal(())"),
    *("s.binomial((3, 4))", "s.binomial((3, 4), 1, 0.2, dtype='float64')", "s.binomial(size=x.shape, n=1, p=0.7)"),
    *("s.binomial((7,), 20, 0.3)", "s.binomial((7,), 100, 0.6)", "s.binomial(n=[1, 5, 50], p=[0.1, 0.5, 0.9])"),
    *("s.binomial(size=x.shape, p=T.nnet.sigmoid(x))", "s.binomial((2, 3), p=x, dtype=theano.config.floatX)"),
    *("s.binomial((5,), prob=0.5)", "s.binomial((5,), 0, 0.5)", "s.binomial((40, 30), 1, 0.5, dtype='int8')"),
    *(
        "s.random_integers((2, 5))",
        "s.random_integers((6,), 3, 300)",
        "s.random_integers(low=[0, 5], high=[[9], [99]])",
    ),
    *("s.random_integers((3,), -5, 2**40)", "s.random_integers((4,), 7, 7)", "s.random_integers((4,), 0, 127)"),
    *("s.random_integers((4,), 0, 1, dtype='float32')", "s.poisson((2, 3), 2.5)", "s.poisson((3,), [1., 20., 300.])"),
    *("s.choice((5,))", "s.choice((2, 3), 7)", "s.choice((3,), 5, replace=False)", "s.choice((4,), [3, 5, 8])"),
    *("s.choice((5,), 3, p=[0.1, 0.2, 0.7])", "s.choice((2,), [3., 5., 8.], dtype='float64')", "s.choice(())"),
    *("s.permutation((2,), 5)", "s.permutation(n=4)", "s.permutation((2, 1), y[1])", "s.permutation((), 3)"),
    *(
        "s.multinomial((3,))",
        "s.multinomial(n=4, pvals=np.full((2, 4), 0.25))",
        "s.multinomial(pvals=T.nnet.softmax(x))",
    ),
    *("s.multinomial((2,), 10, [0.2, 0.3, 0.5])", "s.multinomial((2, 3), [1, 2, 3], [[[0.9, 0.1]]])"),
    *("s.multinomial((3, -1), 1, np.eye(2))", "s.shuffle_row_elements(x)", "s.shuffle_row_elements(x[0])"),
    *("s.shuffle_row_elements(x).permutation", "s.shuffle_row_elements(T.concatenate([x[None], x[None] + 6]))"),
    *("s.uniform((2,)) * s.normal((2,)) + s.uniform((2,))", "T.switch(s.binomial(x.shape, p=0.5), x, -1)"),
)

#: The same from `MRG_RandomStreams`.
FROM_MRG = (
    *("s.uniform((2, 3))", "s.uniform((1,))", "s.uniform((7,), -1, 2)", "s.uniform((40, 31))", "s.uniform(())"),
    *("s.uniform((3,), low=np.arange(3), high=[4., 5., 6.])", "s.uniform((2, 3), high=x)", "s.uniform(x.shape)"),
    *("s.uniform(x.shape[1:])", "s.uniform((x.shape[0], 5))", "s.uniform(y, ndim=2)", "s.uniform((5,), nstreams=2)"),
    *("s.uniform((5,), dtype='float32')", "s.uniform((5,), dtype='float64')", "s.uniform((130, 700))"),
    *("s.uniform((2,)) + s.uniform((2,))", "s.uniform((3,)), s.uniform((9,)), s.normal((3,)), s.binomial((4,))"),
    *("s.binomial((3, 4))", "s.binomial(x.shape, p=0.2)", "s.binomial(size=x.shape, n=1, p=T.nnet.sigmoid(x))"),
    *("s.binomial((5,), dtype='float32')", "s.binomial((9,), 1, 0.9, dtype=theano.config.floatX, nstreams=3)"),
    *("s.normal((2, 4))", "s.normal((3, 3))", "s.normal((1,))", "s.normal(5)", "s.normal(x.shape, 1, 0.1)"),
    *("s.normal((3,), avg=np.arange(3.), std=[1., 2., 3.])", "s.normal((x.shape[0], 2), nstreams=4)"),
    *("s.normal((60,), truncate=True)", "s.normal((51,), 5., 2., truncate=True, nstreams=7)"),
    *("s.truncated_normal((7, 7))", "s.truncated_normal((3,), 1., 2.)", "s.normal((4,), dtype='float32')"),
    *("s.multinomial(pvals=np.full((3, 4), 0.25))", "s.multinomial(n=5, pvals=T.nnet.softmax(x))"),
    *("s.multinomial(pvals=np.eye(3), dtype='float32')", "s.choice(1, replace=False, p=np.full((5, 4), 0.25))"),
    *("s.choice(3, replace=False, p=T.nnet.softmax(x))", "s.choice(2, replace=False, p=[[0.1, 0.2, 0.7]] * 4)"),
)

SEEDS = {"RandomStreams": (0, 1, 2**32 - 1), "MRG_RandomStreams": (1, 2**31 - 21070, (1, 2, 3, 4, 5, 6))}

#: Steps of learning: parameters after some, and what the steps return.
PROGRAMS = {
    "dropout": """
W1, b1 = theano.shared(draw(8, 12), "W1"), theano.shared(draw(12), "b1")
W2, b2 = theano.shared(draw(12, 3), "W2"), theano.shared(draw(3), "b2")
X, y = T.matrix("X"), T.ivector("y")
kept = T.cast(s.binomial(n=1, p=1 - 0.2, size=X.shape), theano.config.floatX)
H = T.tanh(T.dot(X * kept / 0.8, W1) + b1)
mask = s.binomial(n=1, p=1 - 0.5, size=H.shape)
H = H * T.cast(mask, theano.config.floatX)
P = T.nnet.softmax(T.dot(H, W2) + b2)
cost = -T.mean(T.log(P)[T.arange(y.shape[0]), y]) + 0.001 * (W1 ** 2).sum()
parameters = [W1, b1, W2, b2]
step = theano.function([X, y], cost, updates=[(p, p - 0.1 * T.grad(cost, p)) for p in parameters])
for k in range(12):
    returned.append(step(data[5 * k % 30:5 * k % 30 + 5], labels[5 * k % 30:5 * k % 30 + 5]))
""",
    "denoising": """
W, b, c = theano.shared(draw(8, 5), "W"), theano.shared(draw(5), "b"), theano.shared(draw(8), "c")
X = T.matrix("X")
broken = s.binomial(size=X.shape, n=1, p=1 - 0.3, dtype=theano.config.floatX) * X
Y = T.nnet.sigmoid(T.dot(broken, W) + b)
Z = T.nnet.sigmoid(T.dot(Y, W.T) + c)
L = -T.sum(X * T.log(Z) + (1 - X) * T.log(1 - Z), axis=1)
cost = T.mean(L)
parameters = [W, b, c]
step = theano.function([X], cost, updates=[(p, p - 0.1 * g) for p, g in zip(parameters, T.grad(cost, parameters))])
for k in range(12):
    returned.append(step((data[5 * k % 30:5 * k % 30 + 5] > 0).astype(data.dtype)))
""",
    "gibbs": """
W, b, c = theano.shared(draw(8, 5), "W"), theano.shared(draw(5), "b"), theano.shared(draw(8), "c")
v = T.matrix("v")
def hidden(v):
    return s.binomial(size=(v.shape[0], 5), n=1, p=T.nnet.sigmoid(T.dot(v, W) + b), dtype=theano.config.floatX)
def visible(h):
    mean = T.nnet.sigmoid(T.dot(h, W.T) + c)
    return mean, s.binomial(size=mean.shape, n=1, p=mean, dtype=theano.config.floatX)
def energy(v):
    return -T.dot(v, c) - T.sum(T.log(1 + T.exp(T.dot(v, W) + b)), axis=1)
end = v
for _ in range(3):
    mean, end = visible(hidden(end))
cost = T.mean(energy(v)) - T.mean(energy(end))
parameters = [W, b, c]
gradients = T.grad(cost, parameters, consider_constant=[end])
step = theano.function([v], [cost, mean.mean()], updates=[(p, p - 0.1 * g) for p, g in zip(parameters, gradients)])
for k in range(12):
    returned.append(step((data[5 * k % 30:5 * k % 30 + 5] > 0).astype(data.dtype)))
""",
    "noise": """
w = theano.shared(draw(8), "w")
X = T.matrix("X")
noisy = X + s.normal(size=X.shape, avg=0, std=0.1, dtype=theano.config.floatX)
cost = T.mean((T.dot(noisy, w) - s.uniform((X.shape[0],), -1, 1)) ** 2)
parameters = [w]
step = theano.function([X], cost, updates={w: w - 0.1 * T.grad(cost, w)})
for k in range(12):
    returned.append(step(data[:5 + k % 3]))
""",
}


def names():
    """Return the names of all cases: streams, floatX, seed or the name of a program, expression."""
    draws = [("RandomStreams", "float64", 234, text) for text in FROM_NUMPY]
    draws += [("RandomStreams", "float32", 234, text) for text in FROM_NUMPY[::4]]
    draws += [("MRG_RandomStreams", floatx, 234, text) for floatx in ("float64", "float32") for text in FROM_MRG]
    draws += [(streams, "float64", seed, "s.uniform((9,))") for streams, seeds in SEEDS.items() for seed in seeds]
    programs = [(streams, "float64", name, "") for streams in SEEDS for name in PROGRAMS]
    return draws + programs


def run(name, theano, RandomStreams, mode=None):
    """Return the arrays of a case: what each of three calls gives, or what a program returns and its parameters."""
    _, floatx, seed, text = name
    theano.config.floatX = floatx
    T, is_program = theano.tensor, not text
    s = RandomStreams(234 if is_program else seed)
    generator = np.random.RandomState(0)
    words = {"theano": theano, "T": T, "np": np, "s": s}
    if is_program:
        words.update(
            draw=lambda *shape: generator.uniform(-0.5, 0.5, shape).astype(floatx),
            data=generator.normal(size=(30, 8)).astype(floatx),
            labels=generator.randint(3, size=30).astype("int32"),
            returned=[],
        )
        exec(PROGRAMS[seed], words)  # its own text, above
        return [np.array(words["returned"]), *(p.get_value() for p in words["parameters"])]
    x, y = T.matrix("x"), T.ivector("y")
    found = eval(text, dict(words, x=x, y=y))  # its own text, above
    found = list(found) if isinstance(found, tuple) else [found]
    f = theano.function([x, y], found, on_unused_input="ignore", **({} if mode is None else {"mode": mode}))
    values = np.array([[0.1, 0.5, 0.9], [0.2, 0.4, 0.8]], floatx), np.array([2, 3], "int32")
    return [np.asarray(value) for _ in range(3) for value in f(*values)]


def stored(array):
    """Return what is stored of an array."""
    if array.size > LONGEST:
        return [array.dtype.name, list(array.shape), zlib.crc32(array.tobytes())]
    return [array.dtype.name, list(array.shape), array.ravel().tolist()]


def main():
    """Write the file."""
    import theano
    import theano.tensor
    from theano.sandbox.rng_mrg import MRG_RandomStreams
    from theano.tensor.shared_randomstreams import RandomStreams

    found = []
    for name in names():
        streams = RandomStreams if name[0] == "RandomStreams" else MRG_RandomStreams
        mode = theano.compile.Mode(linker="py" if name[0] == "RandomStreams" else "c|py", optimizer="fast_compile")
        found.append([name, [stored(array) for array in run(name, theano, streams, mode)]])
        print(name, flush=True)
    lines = ",\n".join(json.dumps(each, separators=(",", ":")) for each in found)
    FILE.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
