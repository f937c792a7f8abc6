"""Make training.json: trajectories of networks by Theano 1.0.5, in forms that fastnn's engine takes over.

    THEANO_FLAGS=cxx=,optimizer_excluding=fusion python tests/golden/programs/make_training.py

needs Python 3.8 with NumPy 1.19 and Theano 1.0.5, and takes a minute.  running.py says what a program is.
"""

import json

from make_programs import solved
from running import TRAINING, items

ROWS, INPUTS, HIDDEN, CLASSES = 9, 5, 4, 3

COSTS = {
    "classes": "-T.mean(T.log(P)[T.arange(y.shape[0]), y])",
    "sum": "-T.sum(T.log(P)[T.arange(y.shape[0]), y]) / 9",
    "one_hot": "-T.mean(T.sum(Y * T.log(P), axis=1))",
    "crossentropy": "T.nnet.categorical_crossentropy(P, Y).mean() + 0.01 * T.sum(V ** 2)",
}

HIDDENS = {
    "tanh": "T.tanh(T.dot(x, W) + b)",
    "maximum": "T.maximum(T.dot(x, W) + b, 0.)",
    "product": "(T.dot(x, W) + b) * (T.dot(x, W) + b > 0)",
    "switch": "T.switch(T.dot(x, W) + b > 0, T.dot(x, W) + b, 0)",
    "no_bias": "T.nnet.sigmoid(T.dot(x, W))",
}

#: What becomes of a parameter p with the gradient g, and of its states.
RULES = {
    "descent": {"": "p - 0.25 * g"},
    "rates": {"": "p - 0.125 * (1 + T.max(abs(p))) * g"},
    "momentum": {"v": "0.75 * v - 0.25 * g", "": "p + 0.75 * v - 0.25 * g"},
    "nesterov": {"v": "0.75 * v - 0.25 * g", "": "p + 0.75 * (0.75 * v - 0.25 * g) - 0.25 * g"},
    "rmsprop": {"s": "0.9 * s + 0.1 * T.sqr(g)", "": "p - 0.01 * g / T.sqrt(0.9 * s + 0.1 * T.sqr(g) + 1e-4)"},
    "adagrad": {"s": "s + g ** 2", "": "p - 0.1 * g / (T.sqrt(s + g ** 2) + 1e-3)"},
    "adam": {
        "v": "0.9 * v + 0.1 * g",
        "s": "0.99 * s + 0.01 * g ** 2",
        "": "p - 0.01 * T.sqrt(1 - 0.99 ** (t + 1)) / (1 - 0.9 ** (t + 1)) * (0.9 * v + 0.1 * g)"
        " / (T.sqrt(0.99 * s + 0.01 * g ** 2) + 1e-3)",
    },
}


def written(text, name):
    """Return a rule for a parameter of this name."""
    words = {"p": name, "g": "g" + name, "v": "v" + name, "s": "s" + name}
    for word, new in words.items():
        text = "".join(new if part == word else part for part in split(text))
    return text


def split(text):
    """Return a text's words and what is between them."""
    found = [""]
    for letter in text:
        is_word = letter.isalnum() or letter in "_."
        if found[-1] and is_word != (found[-1][-1].isalnum() or found[-1][-1] in "_."):
            found.append("")
        found[-1] += letter
    return found


def program(cost, hidden, rule, dtype):
    """Return a program."""
    shapes = {"W": [INPUTS, HIDDEN], "b": [HIDDEN], "V": [HIDDEN, CLASSES], "c": [CLASSES]}
    names = [name for name in shapes if hidden != "no_bias" or len(shapes[name]) == 2]
    shared = {name: [dtype, shapes[name], "weights"] for name in names}
    updates = {}
    for name in names:
        for state, text in RULES[rule].items():
            updates[state + name] = written(text, name)
            if state:
                shared[state + name] = [dtype, shapes[name], "zeros"]
    if rule == "adam":
        shared["t"], updates["t"] = [dtype, [], "zeros"], "t + 1"
    logits = "T.dot(h, V)" if hidden == "no_bias" else "T.dot(h, V) + c"
    lines = ["h = " + HIDDENS[hidden], "P = T.nnet.softmax(" + logits + ")", "cost = " + COSTS[cost]]
    lines.append(", ".join("g" + name for name in names) + " = T.grad(cost, [" + ", ".join(names) + "])")
    targets = {"Y": [dtype, [ROWS, CLASSES], "one_hot"]} if "Y" in COSTS[cost] else {"y": ["int32", [ROWS], "classes"]}
    return {
        "name": "_".join([cost, hidden, rule, dtype]),
        "floatX": dtype,
        "inputs": dict(targets, x=[dtype, [ROWS, INPUTS], "normal"]),
        "shared": shared,
        "lines": lines,
        "outputs": items("cost; P"),
        "train": {"outputs": ["cost"], "updates": updates, "steps": 6},
    }


def main():
    """Write the file."""
    programs = [program("classes", "tanh", rule, dtype) for rule in RULES for dtype in ("float64", "float32")]
    programs += [program(cost, "tanh", rule, "float64") for cost in COSTS for rule in ("descent", "momentum")]
    programs += [program("classes", hidden, rule, "float64") for hidden in HIDDENS for rule in ("descent", "adam")]
    programs = list({each["name"]: each for each in programs}.values())
    for each in programs:
        assert solved(each), each["name"]
    lines = ",\n".join(json.dumps(each, separators=(",", ":")) for each in programs)
    TRAINING.write_text('{"programs": [\n' + lines + "\n]}\n")


if __name__ == "__main__":
    main()
