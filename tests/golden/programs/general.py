"""Random programs of whatever operations there are."""

from networks import pick
from running import items

UNARY = items("""
    T.tanh({a}); T.nnet.sigmoid({a}); 1 / (1 + T.exp(-{a})); T.log(1 + T.exp({a})); T.exp(-T.sqr({a})); T.exp({a});
    T.log(1 + {a} ** 2); T.log(abs({a})); T.sqrt(abs({a}) + 1); T.sqrt(abs({a})); T.abs_({a}); abs({a}); -{a};
    T.sqr({a}); {a} ** 2; {a} ** 3; (1 + {a} ** 2) ** 0.5; (1 + {a} ** 2) ** -1; (1 + {a} ** 2) ** -0.5;
    T.nnet.relu({a}); T.nnet.relu({a}, 0.2); T.maximum({a}, 0); T.maximum(0., {a}); T.minimum({a}, 1);
    T.clip({a}, -0.5, 0.5); T.clip({a}, 0, 1); T.sgn({a}); {a} * ({a} > 0); T.switch({a} > 0, {a}, 0.1 * {a});
    T.switch(T.ge({a}, 0), 1, 0) * {a}; 1 - ({a} > 0); T.switch({a} > 0, 1, 0); T.switch({a} > 0, 1., -1); {a} % 2;
    {a} // 2; {a} % 0.75; T.cast({a}, 'float32'); {a}.astype('float64'); T.cast({a}, 'floatX'); T.cast({a}, 'int32');
    T.cast({a}, 'int8'); {a} + 1; 2 * {a}; {a} / 2; 0.1 * {a}; {a} - 0.5; 1 - {a}; 1.5 - {a}; 3 / (2 + abs({a}));
    1 / {a}; {a} / 3.; T.constant(2) * {a}; T.constant(0.5) * {a}; np.float32(0.3) * {a}; np.float64(0.3) * {a};
    {a} + np.int64(2); T.as_tensor_variable(1.5) - {a}; T.ones_like({a}) - {a}; T.zeros_like({a}) + {a};
    {a} * T.ones_like({a}); {a} + {a}; {a} * {a}; T.maximum({a}, {a}); {a} - 0.5 * {a}; 0 * {a};
    T.exp(T.log(1 + abs({a}))); T.log(T.exp({a})); T.sqrt({a} ** 2); T.sqr(T.sqrt(abs({a}))); {a} ** 1; {a} ** 0;
    2 ** {a}; 0.5 ** {a}; T.eq({a}, {a}) * {a}
""")
BINARY = items("""
    {a} + {b}; {a} - {b}; {a} * {b}; {a} / (1 + {b} ** 2); {a} / {b}; T.maximum({a}, {b}); T.minimum({a}, {b});
    T.switch({a} > {b}, {a}, {b}); T.switch(T.le({a}, {b}), {b}, 0); (1 + {a} ** 2) ** {b}; abs({a}) ** {b};
    {a} % (1 + abs({b})); {a} // (1 + abs({b})); {a} > {b}; {a} <= {b}; T.eq({a}, {b}); T.neq({a}, {b});
    T.ge({a}, {b}) * {a}; T.lt({a}, {b}); {a} * {b} + {a}; {a} * T.nnet.sigmoid({b}); T.clip({a}, -1, abs({b}));
    T.log(T.exp({a}) + T.exp({b})); {a} + {b} + 1; 2 * {a} - {b} / 2; ({a} - {b}) ** 2; T.dot({a}, {b}); {b} - {a};
    {b} * (1 - {a})
""")
REDUCTIONS = ["sum", "sum", "mean", "mean", "max", "min"]

#: What changes the shape of a vector (n), or a matrix (n, m), and to which.
OF_VECTORS = {
    "{a}.dimshuffle('x', 0)": lambda n: (1, n),
    "{a}.dimshuffle(0, 'x')": lambda n: (n, 1),
    "{a}[None]": lambda n: (1, n),
    "T.arange({a}.shape[0])": lambda n: (n,),
    "{a} * {a}.size": lambda n: (n,),
    "{a} / {a}.shape[0]": lambda n: (n,),
}
OF_MATRICES = {
    "{a}.T": lambda n, m: (m, n),
    "{a}.dimshuffle(1, 0)": lambda n, m: (m, n),
    "{a}.flatten()": lambda n, m: (n * m,),
    "T.flatten({a})": lambda n, m: (n * m,),
    "{a}.reshape(({m}, {n}))": lambda n, m: (m, n),
    "{a}.reshape(({a}.shape[0] * {a}.shape[1],))": lambda n, m: (n * m,),
    "T.reshape({a}, (-1,))": lambda n, m: (n * m,),
    "({a}.dimshuffle(0, 'x', 1) * {a}.dimshuffle('x', 0, 1)).sum(axis=2)": lambda n, m: (n, n),
    "{a} / {a}.shape[0]": lambda n, m: (n, m),
    "({a}.dimshuffle(0, 1, 'x') - {a}.dimshuffle(0, 'x', 1)).max(axis=(0, 2))": lambda n, m: (m,),
}
#: Parts of an array (n, *rest), of any, of longer ones, by numbers that are an input, and of matrices.
PARTS = {
    "{a}[0]": lambda n, *rest: rest,
    "{a}[-1]": lambda n, *rest: rest,
    "{a}[::-1]": lambda n, *rest: (n, *rest),
    "{a}[[0, 1, 0]]": lambda n, *rest: (3, *rest),
    "{a}[np.array([1, 1, 0, 1])]": lambda n, *rest: (4, *rest),
}
PARTS_OF_LONGER = {
    "{a}[1:]": lambda n, *rest: (n - 1, *rest),
    "{a}[:-1]": lambda n, *rest: (n - 1, *rest),
    "{a}[::2]": lambda n, *rest: ((n + 1) // 2, *rest),
}
PARTS_OF_MATRICES = {
    "{a}[:, 0]": lambda n, m: (n,),
    "{a}[:, ::-1]": lambda n, m: (n, m),
    "{a}[T.arange({a}.shape[0]), T.argmax({a}, axis=1)]": lambda n, m: (n,),
    "{a}[..., -1]": lambda n, m: (n,),
    "{a}[:, [1, 0, 1]]": lambda n, m: (n, 3),
    "{a}[[1, 0, 1], [0, 1, 0]]": lambda n, m: (3,),
    "{a}[1, :]": lambda n, m: (m,),
    "{a}[1, 0]": lambda n, m: (),
}
OF_ROWS = {
    "T.nnet.softmax({a})": lambda n, m: (n, m),
    "T.log(T.nnet.softmax({a}))": lambda n, m: (n, m),
    "T.log(T.sum(T.exp({a}), axis=1))": lambda n, m: (n,),
    "T.exp({a}) / T.exp({a}).sum(axis=1, keepdims=True)": lambda n, m: (n, m),
}
OF_ITSELF = items("""
    {a} - {a}.mean(axis=0); {a} / (1 + abs({a}).sum()); {a} - T.max({a}); T.eq({a}, {a}.max(axis=0)) * {a};
    {a} * {a}.mean()
""")
KINDS = (
    ["unary"] * 5 + ["binary"] * 5 + ["reduce", "reduce", "shape", "index", "index", "join", "dot", "softmax", "own"]
)


class Writer:
    """Writes lines, over variables whose shapes it knows."""

    def __init__(self, generator):
        self.generator = generator
        self.floatX = pick(generator, ["float32", "float64"])
        self.inputs = {}
        self.lines = []
        self.shapes = {}  # of all variables
        for name in "uvw"[: generator.randint(1, 4)]:
            self.input(name)
        if generator.rand() < 0.5:
            self.input("k", ["int32", "int64", "int8"], ["few"])

    def input(self, name, dtypes=None, kinds=("normal", "normal", "normal", "few", "positive", "huge")):
        """Add an input of any shape."""
        shape = pick(self.generator, [[3, 2], [3, 2], [2, 3], [3], [2], [], [3, 3]])
        dtypes = dtypes or [self.floatX, self.floatX, self.floatX, "float32", "float64"]
        kind = pick(self.generator, list(kinds))
        kind = "few" if kind == "huge" and self.generator.rand() < 0.5 else kind
        self.inputs[name] = [pick(self.generator, dtypes), shape, kind]
        self.shapes[name] = tuple(shape)

    def line(self, text, shape):
        """Add a line, and what it makes to the variables."""
        name = f"a{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        self.shapes[name] = tuple(shape)

    def line_of(self, texts, a):
        """Add a line of one of the texts, which are keys of functions for its shape."""
        shape = self.shapes[a]
        text = pick(self.generator, list(texts))
        n, m = (*shape, 0, 0)[:2]
        self.line(text.format(a=a, n=n, m=m), texts[text](*shape))

    def any(self, ndim=None):
        """Return a variable, rather a new one, of as many dimensions."""
        names = [name for name, shape in self.shapes.items() if ndim is None or len(shape) == ndim]
        if not names:
            return None
        newest = names[-3:]
        return pick(self.generator, newest if self.generator.rand() < 0.6 else names)

    def step(self):
        """Add a line of any kind, if it is possible."""
        getattr(self, pick(self.generator, KINDS))()

    def unary(self):
        """Of the elements of a variable."""
        a = self.any()
        self.line(pick(self.generator, UNARY).format(a=a), self.shapes[a])

    def binary(self):
        """Of the elements of two."""
        a, b = self.any(), self.any()
        shape = broadcast(self.shapes[a], self.shapes[b])
        text = pick(self.generator, BINARY)
        if shape is None or ("T.dot" in text and min(len(self.shapes[a]), len(self.shapes[b])) > 0):
            return
        self.line(text.format(a=a, b=b), shape)

    def reduce(self):
        """Along an axis, or of everything."""
        a = self.any()
        shape = self.shapes[a]
        name = pick(self.generator, REDUCTIONS)
        if not shape or self.generator.rand() < 0.3:
            self.line(pick(self.generator, [f"{a}.{name}()", f"T.{name}({a})", f"T.{name}({a}, axis=None)"]), ())
            return
        axis = self.generator.randint(len(shape))
        keep = self.generator.rand() < 0.4
        options = f"axis={pick(self.generator, [axis, axis - len(shape)])}" + (", keepdims=True" if keep else "")
        left = shape[:axis] + ((1,) if keep else ()) + shape[axis + 1 :]
        if self.generator.rand() < 0.15 and not keep:
            self.line(f"T.argmax({a}, axis={axis})", left)
        else:
            self.line(pick(self.generator, [f"{a}.{name}({options})", f"T.{name}({a}, {options})"]), left)

    def shape(self):
        """In another shape."""
        a = self.any()
        texts = {1: OF_VECTORS, 2: OF_MATRICES}.get(len(self.shapes[a]))
        if texts:
            self.line_of(texts, a)

    def index(self):
        """Part of a variable, and twice the same part."""
        a = self.any()
        shape = self.shapes[a]
        if not shape or shape[0] < 2:
            return
        texts = {**PARTS, **(PARTS_OF_LONGER if shape[0] > 2 else {})}
        if len(self.shapes.get("k", ())) == 1:
            for numbers in ("k % {n}", "k % {n} - 1", "abs(k) % {n}"):
                texts["{a}[" + numbers + "]"] = lambda n, *rest: (*self.shapes["k"], *rest)
        if len(shape) == 2 and shape[1] > 1:
            texts.update(PARTS_OF_MATRICES)
        self.line_of(texts, a)

    def join(self):
        """Two, side by side."""
        a, b = self.any(), self.any()
        first, second = self.shapes[a], self.shapes[b]
        if len(first) != len(second) or not first:
            return
        axis = self.generator.randint(len(first))
        before, after = first[:axis], first[axis + 1 :]
        if (before, after) == (second[:axis], second[axis + 1 :]):
            self.line(f"T.concatenate([{a}, {b}], axis={axis})", (*before, first[axis] + second[axis], *after))

    def dot(self):
        """Product of two."""
        a, b = self.any(), self.any()
        first, second = self.shapes[a], self.shapes[b]
        if not first or not second or max(len(first), len(second)) > 2:
            return
        if first[-1] == second[0]:
            self.line(pick(self.generator, [f"T.dot({a}, {b})", f"{a}.dot({b})"]), (*first[:-1], *second[1:]))
        elif len(first) == len(second) == 2 and first[-1] == second[1]:
            self.line(f"T.dot({a}, {b}.T)", (first[0], second[0]))

    def softmax(self):
        """Softmax, and what is near it."""
        a = self.any(2)
        if a is not None:
            self.line_of(OF_ROWS, a)

    def own(self):
        """A variable with a reduction of itself."""
        a = self.any()
        if self.shapes[a]:
            self.line(pick(self.generator, OF_ITSELF).format(a=a), self.shapes[a])


def broadcast(first, second):
    """Return the shape of two together, or None."""
    n = max(len(first), len(second))
    first, second = (1,) * (n - len(first)) + first, (1,) * (n - len(second)) + second
    found = []
    for i in range(n):
        if first[i] != second[i] and 1 not in (first[i], second[i]):
            return None
        found.append(max(first[i], second[i]))
    return tuple(found)


def general(name, generator):
    """Return a program of random lines."""
    writer = Writer(generator)
    wanted = generator.randint(3, 9)
    for _ in range(100):
        if len(writer.lines) == wanted:
            break
        writer.step()
    made = [each for each in writer.shapes if each not in writer.inputs]
    used = " ".join(line.split(" = ", 1)[1] for line in writer.lines)
    ends = [a for a in made if a not in used] or made[-1:]
    forms = ["T.sum({a})", "T.sum(T.tanh({a}))", "T.mean({a})", "({a} * {a}).sum()"]
    lines = [*writer.lines, "cost = " + " + ".join(pick(generator, forms).format(a=a) for a in ends)]
    floats = [v for v in writer.inputs if v != "k" and any(v in line for line in writer.lines)]
    for v in floats:
        # A float32 variable's gradient may be of float64 in Theano.
        lines.append(f"g{v} = T.grad(cost, {v}, disconnected_inputs='ignore').astype({v}.dtype)")
    return {
        "name": name,
        "floatX": writer.floatX,
        "inputs": writer.inputs,
        "lines": lines,
        "outputs": [*made[-3:], "cost", *("g" + v for v in floats)],
    }
