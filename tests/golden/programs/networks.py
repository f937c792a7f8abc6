"""Random programs that train networks, and those that compute whatever comes."""

from running import items

ACTIVATIONS = items("""
    T.tanh({z}); T.nnet.sigmoid({z}); T.nnet.relu({z}); T.nnet.relu({z}, 0.1); T.maximum(0, {z}); T.maximum({z}, 0.);
    T.maximum({z}, 0.01 * {z}); T.switch({z} > 0, {z}, 0); T.switch(T.lt({z}, 0), 0.2 * {z}, {z}); {z} * ({z} > 0);
    T.switch({z} > 0, {z}, T.exp({z}) - 1); 1 / (1 + T.exp(-{z})); 1. / (1. + T.exp(-{z})); T.log(1 + T.exp({z}));
    {z} / (1 + abs({z})); T.exp(-{z} ** 2); {z} * T.nnet.sigmoid({z}); {z} / (1 + T.exp(-{z})); T.clip({z}, -1, 1);
    T.clip(0.2 * {z} + 0.5, 0, 1); T.sqrt(1 + {z} ** 2) - 1; T.sqr(T.minimum({z}, 1));
    (T.exp({z}) - T.exp(-{z})) / (T.exp({z}) + T.exp(-{z})); 0.5 * ({z} + abs({z}));
    0.5 * {z} * (1 + T.tanh(0.7978845608 * ({z} + 0.044715 * {z} ** 3)))
""")

NORMALISATIONS = [
    ["{z} = ({z} - {z}.mean(axis=0)) / T.sqrt(1e-3 + T.sqr({z} - {z}.mean(axis=0)).mean(axis=0))"],
    [
        "{z} = {z} - {z}.mean(axis=1, keepdims=True)",
        "{z} = {z} / T.sqrt(T.mean({z} ** 2, axis=1, keepdims=True) + 0.01)",
    ],
    ["{z} = {z} / (1 + T.max(abs({z}), axis=1, keepdims=True))"],
]

SOFTMAXES = [
    ["P = T.nnet.softmax({z})"],
    ["P = T.nnet.softmax({z})"],
    ["e = T.exp({z} - {z}.max(axis=1, keepdims=True))", "P = e / e.sum(axis=1, keepdims=True)"],
    ["e = T.exp({z})", "P = e / T.sum(e, axis=1).dimshuffle(0, 'x')"],
    ["P = T.exp({z}) / T.exp({z}).sum(axis=1, keepdims=True)"],
]

# Of P, classes y or probabilities Y, and {z}.
CLASS_LOSSES = items("""
    -T.mean(T.log(P)[T.arange(y.shape[0]), y]); -T.log(P)[T.arange(y.shape[0]), y].mean();
    -T.mean(T.log(P[T.arange(P.shape[0]), y])); -T.sum(T.log(P)[T.arange(y.shape[0]), y]);
    T.mean(T.nnet.categorical_crossentropy(P, y)); T.nnet.categorical_crossentropy(P, y).sum();
    T.mean(T.log(T.sum(T.exp({z}), axis=1)) - {z}[T.arange(y.shape[0]), y]);
    -T.mean(T.log(P + 1e-6)[T.arange(y.shape[0]), y]); T.mean((P - T.eq(y.dimshuffle(0, 'x'), T.arange(3))) ** 2)
""")
PROBABILITY_LOSSES = items("""
    -T.mean(T.sum(Y * T.log(P), axis=1)); -(Y * T.log(P)).sum() / Y.sum(); T.nnet.categorical_crossentropy(P, Y).mean();
    T.sqr(P - Y).sum(axis=1).mean(); T.mean(T.log(T.exp({z}).sum(axis=1)) - (Y * {z}).sum(axis=1))
""")
SIGMOIDS = [
    "T.nnet.sigmoid({z})",
    "1 / (1 + T.exp(-{z}))",
    "1.0 / (1.0 + T.exp(-{z}))",
    "T.exp({z}) / (1 + T.exp({z}))",
]
BINARY_LOSSES = items("""
    T.mean(-y * T.log(p) - (1 - y) * T.log(1 - p)); -(y * T.log(p) + (1 - y) * T.log(1 - p)).sum();
    -T.mean(T.log(T.switch(T.eq(y, 1), p, 1 - p))); T.mean(T.log(1 + T.exp(-(2 * y - 1) * {z}))); T.sum((p - y) ** 2);
    T.mean(T.log(1 + T.exp({z})) - y * {z})
""")
REAL_LOSSES = items("""
    T.mean((o - t) ** 2); 0.5 * T.sum(T.sqr(o - t)); T.mean(abs(o - t));
    T.mean(T.switch(abs(o - t) < 1, 0.5 * T.sqr(o - t), abs(o - t) - 0.5)); T.sqrt(T.mean((o - t) ** 2) + 1e-3);
    T.maximum(0, 1 - t * o).mean(); T.mean(T.maximum(0.9 * (t - o), -0.1 * (t - o))); T.sum((o - t) ** 2) / o.size;
    ((o - t) ** 2).sum(axis=1).mean()
""")
PENALTIES = ["0.01 * abs({W}).sum()", "0.005 * T.sum({W} ** 2)", "0.01 * T.sqr({W}).sum()", "0.1 * T.mean(T.sqr({W}))"]

# What becomes of a parameter p with the gradient gp, and of what belongs to it, by prefix.
RULES = {
    "momentum": {"v": "0.5 * v{p} - 0.1 * g{p}", "": "{p} + 0.5 * v{p} - 0.1 * g{p}"},
    "nesterov": {"v": "0.75 * v{p} - 0.25 * g{p}", "": "{p} + 0.75 * (0.75 * v{p} - 0.25 * g{p}) - 0.25 * g{p}"},
    "adagrad": {"s": "s{p} + g{p} ** 2", "": "{p} - 0.1 * g{p} / T.sqrt(s{p} + g{p} ** 2 + 1e-3)"},
    "rmsprop": {
        "s": "0.9 * s{p} + 0.1 * T.sqr(g{p})",
        "": "{p} - 0.01 * g{p} / (T.sqrt(0.9 * s{p} + 0.1 * T.sqr(g{p})) + 0.01)",
    },
    "adam": {
        "m": "0.9 * m{p} + 0.1 * g{p}",
        "s": "0.99 * s{p} + 0.01 * g{p} ** 2",
        "": "{p} - 0.01 * (0.9 * m{p} + 0.1 * g{p}) / (1 - 0.9 ** (t_ + 1))"
        " / (T.sqrt((0.99 * s{p} + 0.01 * g{p} ** 2) / (1 - 0.99 ** (t_ + 1))) + 0.01)",
    },
}

N_ROWS, N_CLASSES = 6, 3


def pick(generator, items):
    """Return one of the items."""
    return items[generator.randint(len(items))]


def network(name, generator):
    """Return a program that trains a network on a few rows."""
    program = Network(name, generator)
    program.layers()
    program.loss()
    program.training()
    return program.program


class Network:
    """A program that is being written.

    Attributes
    ----------
    program : dict
    data : dict
        Inputs, or what batches are slices of.
    parameters : list of str
    z : str
        The last layer's variable.
    """

    def __init__(self, name, generator):
        self.generator = generator
        self.floatX = self.pick(["float32", "float64"])
        n_inputs = int(generator.randint(2, 5))
        self.by_batches = generator.rand() < 0.4
        self.target = self.pick(["classes", "classes", "one_hot", "binary", "real", "real"])
        self.widths = [n_inputs, *(int(generator.randint(2, 5)) for _ in range(generator.randint(0, 3)))]
        self.lines, self.shared, self.outputs, self.parameters = [], {}, [], []
        self.data = {"x": [self.floatX, [N_ROWS, n_inputs], "normal"]}
        self.z = "x"
        self.program = {"name": name, "floatX": self.floatX, "lines": self.lines, "shared": self.shared}

    def pick(self, items):
        """Return one of the items."""
        return pick(self.generator, items)

    def layers(self):
        """Write all layers."""
        for k in range(1, len(self.widths)):
            self.affine(
                k, [self.floatX, self.widths[k - 1 : k + 1], "weights"], [self.floatX, [self.widths[k]], "zeros"]
            )
            if self.generator.rand() < 0.2:
                self.lines += [line.format(z=self.z) for line in self.pick(NORMALISATIONS)]
            self.lines.append(f"h{k} = {self.pick(ACTIVATIONS).format(z=self.z)}")
            self.z = f"h{k}"
            if self.generator.rand() < 0.15:
                dtype = self.pick([self.floatX, self.floatX, "int8"])
                self.data[f"mask{k}"] = [dtype, [N_ROWS, self.widths[k]], "binary"]
                self.lines.append(f"h{k} = h{k} * mask{k}" + self.pick(["", " / 0.5"]))
        k, width = len(self.widths), self.widths[-1]
        if self.target == "binary":
            self.affine(k, [self.floatX, [width], "weights"], [self.floatX, [], "weights"])
        else:
            n = 2 if self.target == "real" else N_CLASSES
            self.affine(k, [self.floatX, [width, n], "weights"], [self.floatX, [n], "zeros"])

    def affine(self, k, weight, bias):
        """Write z = dot(x, W) + b."""
        W, b = f"W{k}", f"b{k}"
        self.shared[W], self.shared[b] = weight, bias
        self.parameters += [W, b]
        product = self.pick(["T.dot({x}, {W})", "{x}.dot({W})"]).format(x=self.z, W=W)
        self.z = f"z{k}"
        self.lines.append(f"{self.z} = {product} + {b}")

    def loss(self):
        """Write what is predicted, the cost, and its gradients."""
        costs, wrong = getattr(self, self.target)()
        cost = self.pick(costs).format(z=self.z)
        wrong = self.pick(wrong) if wrong else None
        weights = self.parameters[::2]
        penalties = [self.pick(PENALTIES).format(W=W) for W in weights] if self.generator.rand() < 0.5 else []
        self.lines.append("cost = " + " + ".join([cost, *penalties]))
        if wrong:
            self.lines.append(f"wrong = {wrong}")
        slopes = ["g" + p for p in self.parameters]
        self.lines.append(f"{', '.join(slopes)} = T.grad(cost, [{', '.join(self.parameters)}])")
        self.program["outputs"] = [*self.outputs, "cost", *(["wrong"] if wrong else []), *slopes]

    def classes(self):
        """Write probabilities of classes; return costs, and counts of errors."""
        self.lines += [line.format(z=self.z) for line in self.pick(SOFTMAXES)]
        self.outputs.append("P")
        self.data["y"] = [self.pick(["int32", "int64"]), [N_ROWS], "classes"]
        return CLASS_LOSSES, ["T.mean(T.neq(T.argmax(P, axis=1), y))", "T.sum(T.neq(P.argmax(axis=1), y))"]

    def one_hot(self):
        """The same for targets that are probabilities."""
        self.lines += [line.format(z=self.z) for line in self.pick(SOFTMAXES)]
        self.outputs.append("P")
        self.data["Y"] = [self.floatX, [N_ROWS, N_CLASSES], "one_hot"]
        return PROBABILITY_LOSSES, None

    def binary(self):
        """The same for two classes."""
        self.data["y"] = [self.pick(["int32", "int64", self.floatX, self.floatX, "int8"]), [N_ROWS], "binary"]
        self.lines.append(f"p = {self.pick(SIGMOIDS).format(z=self.z)}")
        self.outputs.append("p")
        return BINARY_LOSSES, ["T.mean(T.neq(p > 0.5, y))", "T.sum(T.neq(y, T.switch(p > 0.5, 1, 0)))"]

    def real(self):
        """The same for numbers."""
        self.data["t"] = [self.floatX, [N_ROWS, 2], self.pick(["normal", "signs"])]
        self.lines.append(f"o = {self.pick(['{z}', '{z}', 'T.tanh({z})', '2 * {z}']).format(z=self.z)}")
        self.outputs.append("o")
        return REAL_LOSSES, None

    def training(self):
        """Write steps, by batches or not; plain ones as often as all others."""
        self.program["inputs"] = self.data
        if self.by_batches:
            self.program["inputs"] = {"i": ["int64", [], "zeros"], **self.data}
            self.shared.update({f"all_{name}": wanted for name, wanted in self.data.items()})
            slices = ["all_{x}[i * 2:(i + 1) * 2]", "all_{x}[2 * i:2 * i + 2]"]
            self.program["givens"] = {name: self.pick(slices).format(x=name) for name in self.data}
        rule = self.pick([*["plain"] * 4, *RULES])
        updates = {}
        if rule == "plain":
            step = self.pick(["{p} - 0.5 * g{p}", "{p} - 0.1 * T.grad(cost, {p})", "{p} - rate * g{p}"])
            if "rate" in step:
                self.shared["rate"] = [self.floatX, [], "ones"]
                updates["rate"] = "rate * 0.5"
            steps = {"": step}
        else:
            steps = RULES[rule]
        if rule == "adam":
            self.shared["t_"] = [self.floatX, [], "zeros"]
            updates["t_"] = "t_ + 1"
        for p in self.parameters:
            for prefix, text in steps.items():
                self.shared.setdefault(prefix + p, [*self.shared[p][:2], "zeros"])
                updates[prefix + p] = text.format(p=p)
        self.program["train"] = {"outputs": ["cost"], "updates": updates, "steps": 3}
