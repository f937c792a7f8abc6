"""Programs about one thing each: numbers that overflow, ties, indices, types, what functions replace."""

from running import items

HUGE = {"z": ["floatX", [13], "huge"]}
HUGE_ROWS = {"z": ["floatX", [4, 3], "huge"]}
HUGE_LAYER = {**HUGE_ROWS, "W": ["floatX", [3, 2], "weights"]}
FEW = {"x": ["floatX", [3, 4], "few"]}
PAIR = {"x": ["floatX", [3, 4], "few"], "y": ["floatX", [3, 4], "few"]}

#: name: inputs, and lines; the last makes v, whose sum is differentiated by all inputs of floats.  In both precisions.
BOTH = {
    "sigmoid": (HUGE, ["v = T.nnet.sigmoid(z)"]),
    "sigmoid_written": (HUGE, ["v = 1 / (1 + T.exp(-z))"]),
    "sigmoid_written_otherwise": (HUGE, ["v = 1.0 / (T.exp(-z) + 1.0)"]),
    "sigmoid_by_quotient": (HUGE, ["v = T.exp(z) / (1 + T.exp(z))"]),
    "sigmoid_of_minus": (HUGE, ["v = 1 / (1 + T.exp(z))"]),
    "log_sigmoid": (HUGE, ["v = T.log(T.nnet.sigmoid(z))"]),
    "log_sigmoid_written": (HUGE, ["p = 1 / (1 + T.exp(-z))", "v = T.log(p)"]),
    "log_one_minus_sigmoid": (HUGE, ["v = T.log(1 - T.nnet.sigmoid(z))"]),
    "log_one_minus_sigmoid_written": (HUGE, ["p = 1 / (1 + T.exp(-z))", "v = T.log(1 - p)"]),
    "softplus": (HUGE, ["v = T.log(1 + T.exp(z))"]),
    "softplus_of_minus": (HUGE, ["v = T.log(1. + T.exp(-z))"]),
    "softplus_otherwise": (HUGE, ["v = T.log(T.exp(z) + 1)"]),
    "softplus_of_product": (HUGE, ["v = T.log(1 + T.exp(-2 * z))"]),
    "binary_crossentropy": (
        {**HUGE, "y": ["floatX", [13], "binary"]},
        ["p = 1 / (1 + T.exp(-z))", "v = -y * T.log(p) - (1 - y) * T.log(1 - p)"],
    ),
    "binary_crossentropy_of_integers": (
        {**HUGE, "y": ["int32", [13], "binary"]},
        ["p = T.nnet.sigmoid(z)", "v = -(y * T.log(p) + (1 - y) * T.log(1 - p))"],
    ),
    "tanh": (HUGE, ["v = T.tanh(z)"]),
    "tanh_by_sigmoid": (HUGE, ["v = 2 * T.nnet.sigmoid(2 * z) - 1"]),
    "swish": (HUGE, ["v = z * T.nnet.sigmoid(z)"]),
    "swish_written": (HUGE, ["v = z / (1 + T.exp(-z))"]),
    "softsign": (HUGE, ["v = z / (1 + abs(z))"]),
    "bell": (HUGE, ["v = T.exp(-z ** 2)"]),
    "exp": (HUGE, ["v = T.exp(z)"]),
    "log_exp": (HUGE, ["v = T.log(T.exp(z))"]),
    "length": (HUGE, ["v = T.sqrt(T.sum(z ** 2))"]),
    "softmax": (HUGE_ROWS, ["v = T.sqr(T.nnet.softmax(z))"]),
    "log_softmax": (HUGE_ROWS, ["v = T.log(T.nnet.softmax(z))"]),
    "softmax_written": (HUGE_ROWS, ["e = T.exp(z)", "v = T.sqr(e / e.sum(axis=1, keepdims=True))"]),
    "softmax_by_dimshuffle": (HUGE_ROWS, ["v = T.sqr(T.exp(z) / T.exp(z).sum(axis=1).dimshuffle(0, 'x'))"]),
    "softmax_shifted": (
        HUGE_ROWS,
        ["e = T.exp(z - z.max(axis=1, keepdims=True))", "v = T.sqr(e / e.sum(axis=1, keepdims=True))"],
    ),
    "log_softmax_written": (HUGE_ROWS, ["e = T.exp(z)", "v = T.log(e / e.sum(axis=1, keepdims=True))"]),
    "log_sum_exp": (HUGE_ROWS, ["v = T.log(T.sum(T.exp(z), axis=1))"]),
    "log_sum_exp_of_all": (HUGE_ROWS, ["v = T.log(T.exp(z).sum())"]),
    "log_sum_exp_kept": (HUGE_ROWS, ["v = z - T.log(T.exp(z).sum(axis=1, keepdims=True))"]),
    "elu_in_a_layer": (HUGE_LAYER, ["v = T.dot(T.switch(z > 0, z, T.exp(z) - 1), W)"]),
    "elu_in_a_layer_otherwise": (HUGE_LAYER, ["v = T.dot(T.switch(T.le(z, 0), 0.5 * (T.exp(z) - 1), z), W) ** 2"]),
    "swish_in_a_layer": (HUGE_LAYER, ["v = T.dot(z / (1 + T.exp(-z)), W)"]),
    "softplus_in_a_layer": (HUGE_LAYER, ["v = T.dot(T.log(1 + T.exp(z)), W)"]),
    "crossentropy": (
        {**HUGE_ROWS, "y": ["int32", [4], "classes"]},
        ["v = T.nnet.categorical_crossentropy(T.nnet.softmax(z), y)"],
    ),
    "crossentropy_of_probabilities": (
        {**HUGE_ROWS, "Y": ["floatX", [4, 3], "one_hot"]},
        ["v = T.nnet.categorical_crossentropy(T.nnet.softmax(z), Y)"],
    ),
    "crossentropy_written": (
        {**HUGE_ROWS, "y": ["int64", [4], "classes"]},
        ["P = T.nnet.softmax(z)", "v = -T.log(P[T.arange(y.shape[0]), y])"],
    ),
    "logs_and_quotients_at_0": (FEW, ["v = T.log(x) + 1 / x + T.sqrt(x)"]),
    "powers_at_0": (FEW, ["v = x ** 2 + x ** 3 + x ** 1 + abs(x) ** 0.5"]),
    "power_of_power": (FEW, ["v = (x ** 2) ** 0.5"]),
    "switched_log": (FEW, ["v = T.switch(x > 0, T.log(x), 0)"]),
    "maximum": (PAIR, ["v = T.maximum(x, y) * (1 + x)"]),
    "minimum": (PAIR, ["v = T.minimum(x, y) * (1 + x)"]),
    "maximum_of_itself": (FEW, ["v = T.maximum(x, x) + T.minimum(x, x)"]),
    "maximum_of_0": (FEW, ["v = T.maximum(0, x) + 10 * T.maximum(x, 0) - 100 * T.minimum(x, 0.)"]),
    "relu": (FEW, ["v = T.nnet.relu(x)"]),
    "relu_leaking": (FEW, ["v = T.nnet.relu(x, 0.1) + T.nnet.relu(-x, 0.01)"]),
    "relu_by_switch": (FEW, ["v = T.switch(x > 0, x, 0) + T.switch(T.lt(x, 0), 0.1 * x, x)"]),
    "relu_by_product": (FEW, ["v = x * (x > 0) + 10 * x * T.ge(x, 0)"]),
    "abs": (FEW, ["v = abs(x) + 10 * T.abs_(x - 1)"]),
    "sgn": (FEW, ["v = T.sgn(x) * x"]),
    "clip": (FEW, ["v = T.clip(x, -1, 1) + 10 * T.clip(x, 0., 2.)"]),
    "clip_by_variables": (
        {**FEW, "low": ["floatX", [4], "positive"], "high": ["floatX", [4], "positive"]},
        ["v = T.clip(x, -low, high) + T.clip(x, -1, low)"],
    ),
    "max_of_all": (FEW, ["v = T.max(x) + x.max()"]),
    "max_of_rows": (FEW, ["v = x.max(axis=1) + 10 * T.max(x, axis=1)"]),
    "max_of_columns_kept": (FEW, ["v = x * x.max(axis=0, keepdims=True)"]),
    "min_of_columns": (FEW, ["v = x.min(axis=0) - 3 * T.min(x)"]),
    "max_of_equal_numbers": (FEW, ["v = T.max(T.ones_like(x) * x[0, 0], axis=1)"]),
    "argmax": (FEW, ["m = T.argmax(x, axis=1)", "v = x[T.arange(3), m] + T.argmax(x) + T.argmax(x, axis=0)[0]"]),
    "modulo": (FEW, ["v = x % 2 + x % 1.5 + (x // 2) * x"]),
    "modulo_by_variables": (PAIR, ["v = x % (y + 2.5) + 3 % (y + 2.5)"]),
    "rows_twice": ({**FEW, "k": ["int32", [5], "classes"]}, ["v = x[k] ** 2"]),
    "rows_of_a_matrix_of_numbers": ({**FEW, "k": ["int64", [2, 3], "classes"]}, ["v = x[k].sum(axis=2) ** 2"]),
    "own_elements_twice": ({**FEW, "k": ["int64", [2, 3], "classes"]}, ["v = x[T.arange(3), k] ** 2"]),
    "elements_twice": (
        {**FEW, "k": ["int32", [6], "classes"], "j": ["int32", [6], "classes"]},
        ["v = x[k, j] ** 2 + x[k, 1] + x[-1, j]"],
    ),
    "columns_twice": ({**FEW, "k": ["int32", [5], "classes"]}, ["v = x[:, k] ** 2"]),
    "rows_then_columns": ({**FEW, "k": ["int8", [5], "classes"]}, ["v = x[k][:, k] ** 2"]),
    "negative_numbers": ({**FEW, "k": ["int64", [5], "few"]}, ["v = x[k - 1] ** 2"]),
    "lists_of_numbers": (FEW, ["v = x[[0, 0, 2]] ** 2 + x[np.array([1, 1, 1])]"]),
    "slices": (
        {**FEW, "k": ["int64", [], "binary"]},
        ["v = x[k:].sum() + 10 * x[: k + 1].sum() + 100 * x[::-1, 1::2].sum() + x[k, -1] * x[-1, k]"],
    ),
    "vector_as_row_and_column": (
        {"x": ["floatX", [3], "normal"]},
        ["v = x.dimshuffle(0, 'x') * T.exp(x.dimshuffle('x', 0)) + x[:, None] - x[None, :]"],
    ),
    "three_dimensions": (
        {"x": ["floatX", [3, 2], "normal"], "y": ["floatX", [4, 2], "normal"]},
        ["v = ((x.dimshuffle(0, 'x', 1) - y.dimshuffle('x', 0, 1)) ** 2).sum(axis=2)"],
    ),
    "shapes": (
        FEW,
        ["v = x.reshape((4, 3)).T * x.flatten()[::-1].reshape((3, 4)) + x.reshape((-1,))[0] * x.flatten(2)"],
    ),
    "joined": (PAIR, ["v = T.concatenate([x, y * x, x[:1]], axis=0) ** 2"]),
    "joined_sideways": (PAIR, ["v = T.concatenate([x[:, :1], y], axis=1) * T.concatenate([y, x[:, 1:2]], axis=-1)"]),
    "means": (FEW, ["v = x.mean(axis=0) + 2 * T.mean(x) + x.mean(axis=(0, 1)) + x.mean(axis=1, keepdims=True)"]),
    "sums": (FEW, ["v = x.sum(axis=-1, keepdims=True) * x + T.sum(x, axis=(1, 0)) + x.sum(0)"]),
    "dots": (
        {"x": ["floatX", [3, 2], "normal"], "a": ["floatX", [2], "normal"], "b": ["floatX", [3], "normal"]},
        [
            "v = T.dot(x, a) + T.dot(T.dot(b, x), a) + T.dot(b, x).sum() + b.dot(b)",
            "v = v * T.dot(a, 2)[0] + T.dot(x.T, x).sum()",
        ],
    ),
    "second_derivative": (
        {"x": ["floatX", [4], "normal"]},
        ["first = T.grad(T.sum(T.tanh(x) ** 3 + x * T.nnet.sigmoid(x)), x)", "v = first ** 2"],
    ),
    "second_derivative_of_softmax": (
        {"x": ["floatX", [2, 3], "normal"], "y": ["int64", [2], "classes"]},
        ["c = -T.mean(T.log(T.nnet.softmax(x))[T.arange(2), y])", "v = T.grad(c, x) ** 2"],
    ),
    "constant_within": (
        {"x": ["floatX", [4], "normal"]},
        ["s = T.tanh(x)", "v = T.grad(T.sum(s * x), x, consider_constant=[s]) * x"],
    ),
    "gradient_by_what_is_on_the_way": (
        {"x": ["floatX", [4], "normal"]},
        ["h = T.tanh(x)", "v = T.grad(T.sum(h ** 2 * x), h) * x"],
    ),
}

#: Expressions whose types are of interest, in both settings of floatX.
TYPED = items("""
    T.constant(1); T.constant(300); T.constant(-70000); T.constant(1.5); T.constant(0.1); T.constant([1, 2]);
    T.constant([0.5]); T.constant(np.float32(0.1)); T.as_tensor_variable(3); T.switch(s > 0, 1, 0);
    T.switch(s > 0, 1., 0.); T.switch(s > 0, s, 0); T.switch(s > 0, 1000, 0); T.switch(d > 0, k, 0.5);
    T.switch(s > 0, b, k); 1 - (s > 0); (s > 0) * 1; (s > 0) * 1.; (s > 0) * s; (s > 0) * d; (s > 0) * (s < 1);
    (s > 0) + 0; T.sum(s > 0); T.mean(s > 0); T.sum(b); T.mean(b); T.max(b); T.sum(k); T.mean(k); T.mean(s); T.mean(d);
    T.argmax(s); T.sum(s); s.shape; s.shape[0]; s.size; s / s.shape[0]; s.sum() / s.size; T.cast(s.shape[0], 'floatX');
    T.arange(3); T.arange(k[0]); T.arange(1, 4); T.arange(b[0]); s + 1; s + 1.5; s * 0.1; 0.1 * d; s * 2; s / 2; s / 3.;
    s + d; s + k; s + b; d + k; k + b; k * 2; k * 0.5; 0.1 * k; k * 1000000; k / 2; k / b; k // 2; k % 2; b / 2; b + 1;
    b + 200; b * 0.5; b * b; l + 1; l * 0.1; l / 2; l + s; k ** 2; s ** 2; s ** 2.5; k ** 2.; b ** 2; 2 ** k; s ** k;
    -b; abs(b); abs(k); T.sgn(k); T.sqr(b); s * np.float32(0.1); s * np.float64(0.1); d * np.float32(0.1);
    k * np.float32(0.5); s + np.int64(1); s * np.array([0.5, 1, 2]); k * np.array([1, 2, 3]); s + np.array(1); T.exp(k);
    T.exp(b); T.exp(l); T.sqrt(b); T.tanh(k); T.log(T.sqr(l) + 1); T.nnet.sigmoid(s); T.nnet.sigmoid(d); T.nnet.relu(s);
    T.nnet.relu(k); T.nnet.relu(s, 0.1); T.maximum(s, 0); T.maximum(k, 0.5); T.maximum(b, k); T.minimum(s, d);
    T.clip(k, 0, 2); T.clip(s, 0, 1); T.clip(s, -0.1, 0.1); T.clip(b, 0, 1000); T.zeros_like(s); T.ones_like(k);
    T.zeros_like(s > 0); T.cast(s, 'int32'); T.cast(k, 'floatX'); T.cast(s > 0, 'float32'); s.astype('float64');
    T.dot(s, d); T.dot(k, b); T.dot(s, k); T.concatenate([s, d]); T.concatenate([k, b]); T.concatenate([s, k]);
    T.eq(k, b); T.neq(s, d); k > 0; s >= d; T.le(s, 1); s % 2; s // 2; d % 1.5; 1 / s; 1 / k; 1. / b; 2 - k;
    T.nnet.softmax(s); T.log(T.nnet.softmax(s)); s > k
""")

FLOATX = ("float32", "float64")

#: Where Theano is infinite or NaN, and need not be.
LEFT_OUT = {
    "log_one_minus_sigmoid_written": ("v",),
    "binary_crossentropy": ("v", "gy"),
    "log_exp": ("v",),
    "log_sum_exp_of_all": ("gz",),
}

#: Whose slopes may be written with their values; of x, and Theano's are those at x, whatever the value is replaced by.
REPLACEABLE = items("""
    T.tanh(x); T.nnet.sigmoid(x); T.exp(x); T.sqrt(x); x ** 3; T.nnet.relu(x); T.log(x); 1 / x; x / (1 + x);
    T.nnet.softmax(x); T.max(x); T.log(1 + T.exp(x))
""")


def corners():
    """Return the programs."""
    found = []
    for floatX in FLOATX:
        for name, (inputs, lines) in BOTH.items():
            own = {
                each: [floatX if dtype == "floatX" else dtype, shape, kind]
                for each, (dtype, shape, kind) in inputs.items()
            }
            slopes = [each for each, (dtype, _, _) in own.items() if dtype == floatX]
            gradients = ", ".join("g" + each for each in slopes) + ("," if len(slopes) == 1 else "")
            found.append(
                {
                    "name": f"{name}_{floatX}",
                    "floatX": floatX,
                    "inputs": own,
                    "lines": [*lines, f"{gradients} = T.grad(T.sum(v), [{', '.join(slopes)}])"],
                    "outputs": [
                        each for each in ["v", *("g" + v for v in slopes)] if each not in LEFT_OUT.get(name, ())
                    ],
                }
            )
        leaves = {"s": "float32", "d": "float64", "b": "int8", "k": "int32", "l": "int64"}
        size = 24
        for first in range(0, len(TYPED), size):
            texts = TYPED[first : first + size]
            found.append(
                {
                    "name": f"types_{first}_{floatX}",
                    "floatX": floatX,
                    "inputs": {
                        name: [dtype, [3], "positive" if dtype[0] == "f" else "signs" if name == "l" else "ones"]
                        for name, dtype in leaves.items()
                    },
                    "lines": [f"t{i} = {text}" for i, text in enumerate(texts, first)],
                    "outputs": [f"t{i}" for i in range(first, first + len(texts))],
                }
            )
        for each in [*REPLACED, *_fed()]:
            found.append({"floatX": floatX, **_with_floats(each, floatX), "name": f"{each['name']}_{floatX}"})
    return found


def _fed():
    for i, text in enumerate(REPLACEABLE):
        shape = [1, 3] if "softmax" in text else [] if text == "T.max(x)" else [3]
        yield {
            "name": f"slope_of_what_is_fed_{i}",
            "inputs": {"x": ["floatX", [3], "positive"]},
            "fed": {"h": ["floatX", shape, "positive"]},
            "lines": [f"h = {text}", "c = T.sum(h ** 2 * x)", "g = T.grad(c, x)"],
            "outputs": ["c", "g"],
        }


def _with_floats(program, floatX):
    found = dict(program)
    for group in ("inputs", "shared", "fed"):
        if group in program:
            found[group] = {
                name: [floatX if dtype == "floatX" else dtype, *rest] for name, (dtype, *rest) in program[group].items()
            }
    return found


#: What functions replace, and what they update.
REPLACED = [
    {
        "name": "intermediate_as_input",
        "inputs": {},
        "shared": {"a": ["floatX", [], "weights"]},
        "fed": {"b": ["floatX", [], "normal"]},
        "lines": ["b = a * 3", "c = b + 1", "g = T.grad(c ** 2, b)", "h = T.grad(c ** 2, a)"],
        "outputs": ["c", "g", "h"],
    },
    {
        "name": "intermediate_and_its_source_as_inputs",
        "inputs": {"x": ["floatX", [2, 3], "normal"]},
        "shared": {"W": ["floatX", [3, 2], "weights"]},
        "fed": {"h": ["floatX", [2, 2], "normal"]},
        "lines": [
            "h = T.tanh(T.dot(x, W))",
            "o = h.sum(axis=0) * x.sum()",
            "cost = T.sum(o ** 2)",
            "gW, gx, gh = T.grad(cost, [W, x, h])",
        ],
        "outputs": ["o", "cost", "gW", "gx", "gh"],
        "train": {"outputs": ["cost"], "updates": {"W": "W - 0.01 * gW"}, "steps": 2},
    },
    {
        "name": "probabilities_as_input",
        "inputs": {"x": ["floatX", [2, 3], "normal"], "y": ["int32", [2], "classes"]},
        "shared": {"W": ["floatX", [3, 3], "weights"]},
        "fed": {"P": ["floatX", [2, 3], "positive"]},
        "lines": [
            "P = T.nnet.softmax(T.dot(x, W))",
            "cost = -T.mean(T.log(P)[T.arange(y.shape[0]), y])",
            "gP = T.grad(cost, P)",
        ],
        "outputs": ["cost", "gP"],
    },
    {
        "name": "intermediate_given",
        "inputs": {"x": ["floatX", [3], "normal"], "u": ["floatX", [3], "normal"]},
        "lines": ["h = T.tanh(x)", "v = h * x", "g = T.grad(T.sum(v ** 2), x)"],
        "outputs": ["v", "g"],
        "givens": {"h": "u * 2"},
    },
    {
        "name": "updates_of_each_other",
        "inputs": {"x": ["floatX", [3], "normal"]},
        "shared": {"a": ["floatX", [3], "weights"], "b": ["floatX", [3], "weights"], "n": ["int64", [], "zeros"]},
        "lines": ["s = a + b * x"],
        "outputs": ["s"],
        "train": {"outputs": ["s", "n"], "updates": {"a": "b", "b": "a + s", "n": "n + 1"}, "steps": 4},
    },
    {
        "name": "decaying_rate",
        "inputs": {"x": ["floatX", [4, 3], "normal"], "t": ["floatX", [4], "normal"]},
        "shared": {"w": ["floatX", [3], "zeros"], "n": ["int32", [], "zeros"], "rate": ["floatX", [], "ones"]},
        "lines": ["cost = T.mean((T.dot(x, w) - t) ** 2)", "g = T.grad(cost, w)"],
        "outputs": ["cost", "g"],
        "train": {
            "outputs": ["cost", "rate"],
            "updates": {"w": "w - rate * g", "n": "n + 1", "rate": "T.switch(n > 1, rate * 0.5, rate * 0.75)"},
            "steps": 4,
        },
    },
    {
        "name": "nearest_and_farthest",
        "inputs": {"x": ["floatX", [4, 2], "few"]},
        "shared": {"c": ["floatX", [3, 2], "weights"]},
        "lines": [
            "D = T.sqr(x.dimshuffle(0, 'x', 1) - c.dimshuffle('x', 0, 1)).sum(axis=2)",
            "own = T.argmax(-D, axis=1)",
            "cost = T.mean(D.min(axis=1))",
            "g = T.grad(cost, c)",
        ],
        "outputs": ["D", "own", "cost", "g"],
        "train": {"outputs": ["cost"], "updates": {"c": "c - 0.5 * g"}, "steps": 3},
    },
    {
        "name": "embedded_words",
        "inputs": {"k": ["int32", [6], "classes"], "y": ["int32", [6], "classes"]},
        "shared": {"E": ["floatX", [3, 2], "weights"], "W": ["floatX", [2, 3], "weights"]},
        "lines": [
            "P = T.nnet.softmax(T.dot(E[k], W))",
            "cost = -T.mean(T.log(P)[T.arange(k.shape[0]), y])",
            "gE, gW = T.grad(cost, [E, W])",
        ],
        "outputs": ["P", "cost", "gE", "gW"],
        "train": {"outputs": ["cost"], "updates": {"E": "E - 0.5 * gE", "W": "W - 0.5 * gW"}, "steps": 3},
    },
    {
        "name": "autoencoder_with_tied_weights",
        "inputs": {"x": ["floatX", [4, 3], "binary"]},
        "shared": {"W": ["floatX", [3, 2], "weights"], "b": ["floatX", [2], "zeros"], "c": ["floatX", [3], "zeros"]},
        "lines": [
            "h = T.nnet.sigmoid(T.dot(x, W) + b)",
            "z = T.nnet.sigmoid(T.dot(h, W.T) + c)",
            "L = -T.sum(x * T.log(z) + (1 - x) * T.log(1 - z), axis=1)",
            "cost = T.mean(L)",
            "gW, gb, gc = T.grad(cost, [W, b, c])",
        ],
        "outputs": ["z", "L", "cost", "gW", "gb", "gc"],
        "train": {
            "outputs": ["cost"],
            "updates": {"W": "W - 0.1 * gW", "b": "b - 0.1 * gb", "c": "c - 0.1 * gc"},
            "steps": 3,
        },
    },
    {
        "name": "recurrent_by_hand",
        "inputs": {"x": ["floatX", [3, 2], "normal"], "t": ["floatX", [2], "normal"]},
        "shared": {"U": ["floatX", [2, 2], "weights"], "V": ["floatX", [2, 2], "weights"]},
        "lines": [
            "h0 = T.tanh(T.dot(x[0], U))",
            "h1 = T.tanh(T.dot(x[1], U) + T.dot(h0, V))",
            "h2 = T.tanh(T.dot(x[2], U) + T.dot(h1, V))",
            "cost = T.sum((h2 - t) ** 2) + 0.01 * (U ** 2).sum()",
            "gU, gV = T.grad(cost, [U, V])",
        ],
        "outputs": ["h2", "cost", "gU", "gV"],
        "train": {
            "outputs": ["cost"],
            "updates": {"U": "U - 0.1 * T.clip(gU, -0.25, 0.25)", "V": "V - 0.1 * T.clip(gV, -0.25, 0.25)"},
            "steps": 3,
        },
    },
    {
        "name": "clipped_by_norm",
        "inputs": {"x": ["floatX", [4, 3], "normal"], "y": ["int64", [4], "classes"]},
        "shared": {"W": ["floatX", [3, 3], "weights"]},
        "lines": [
            "P = T.nnet.softmax(5 * T.dot(x, W))",
            "cost = T.nnet.categorical_crossentropy(P, y).mean()",
            "g = T.grad(cost, W)",
            "norm = T.sqrt(T.sum(g ** 2))",
            "scaled = T.switch(norm > 1, g / norm, g)",
        ],
        "outputs": ["norm", "scaled"],
        "train": {"outputs": ["cost", "norm"], "updates": {"W": "W - 0.5 * scaled"}, "steps": 3},
    },
]
