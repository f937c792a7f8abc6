"""Run programs in Theano's notation, under fastnn.symbolic or under Theano itself.

A program is a dictionary, as it stands in programs.json and training.json:

name, precision : str
    precision is the least exact floating dtype that anything in it has.
floatX : str
inputs, shared, fed : dict of name to [dtype, shape, kind of values]
    fed names results of lines that the function takes as inputs, instead of computing them.
lines : list of str
    Assignments, in the words that both know: T, theano, np, and the names above.
outputs : list of str
    What is computed once: names from the lines, gradients among them.
givens : dict of name to str
train : dict, if it is trained
    outputs (list of str), updates (dict of name to str), and how many steps; an input i is the number of the step.
    After them the shared variables are of interest.
results : dict
    values (dict of name to array), outputs (a list for each step) and shared (dict of name to array, after the
    steps); arrays are [dtype, shape, elements].

Runs under Python 3.8, which Theano 1.0.5 needs.
"""

import json
import zlib
from pathlib import Path

import numpy as np

PROGRAMS = Path(__file__).with_name("programs.json")
TRAINING = PROGRAMS.with_name("training.json")

# Theano adds up in another order and fuses operations; float32 has 6e-8 a rounding, float64 1e-16, and programs have
# some ten operations, steps that build on each other among them.  A number may be the difference of some near 1.
TOLERANCES = {"float32": 2e-5, "float64": 1e-11}

#: Elements are multiples of it, which float32 holds as well, so that equal ones are frequent.
GRAIN = 64


def read(path=PROGRAMS):
    """Return the stored programs."""
    return json.loads(path.read_text())["programs"]


def items(text):
    """Return what semicolons separate in a text."""
    return [item.strip() for item in text.split(";")]


def draw(generator, dtype, shape, kind):
    """Return an array, the same under every NumPy."""
    n = int(np.prod(shape))
    found = {
        "normal": lambda: np.round(GRAIN * generator.randn(n)) / GRAIN,
        "weights": lambda: np.round(GRAIN * 0.5 * generator.randn(n)) / GRAIN,
        "positive": lambda: (1 + generator.randint(2 * GRAIN, size=n)) / GRAIN,
        "huge": lambda: generator.choice([-1000, -800, -300, -100, -95, -40, -2, 0, 1, 30, 95, 300, 1000], n),
        "few": lambda: generator.randint(-2, 3, size=n),  # many equal
        "classes": lambda: generator.randint(3, size=n),
        "binary": lambda: generator.randint(2, size=n),
        "signs": lambda: 2 * generator.randint(2, size=n) - 1,
        "one_hot": lambda: np.eye(shape[-1])[generator.randint(shape[-1], size=n // shape[-1])],
        "zeros": lambda: np.zeros(n),
        "ones": lambda: np.ones(n),
    }[kind]()
    return np.reshape(found, shape).astype(dtype)


def drawn(program):
    """Return the values of inputs, shared variables, and what is fed, by name."""
    arrays = {}
    for group in ("inputs", "shared", "fed"):
        for name, wanted in program.get(group, {}).items():
            generator = np.random.RandomState(zlib.crc32((program["name"] + name).encode()))
            arrays[name] = draw(generator, *wanted)
    return arrays


def written(program, theano, arrays):
    """Return the variables of a program, by name, after its lines."""
    T = theano.tensor
    names = {"T": T, "theano": theano, "np": np}
    for name, (dtype, shape, _) in program["inputs"].items():
        names[name] = [T.scalar, T.vector, T.matrix][len(shape)](name, dtype=dtype)
    for name in program.get("shared", {}):
        names[name] = theano.shared(arrays[name], name)
    for line in program["lines"]:
        exec(line, names)
    return names


def run(program, theano, calls=1, **options):
    """Return what a program computes, as arrays, and its variables, by name.

    Parameters
    ----------
    program : dict
    theano : module
        Theano, or what stands in for it.
    calls : int
        How often the outputs are computed; the last time counts.
    **options
        For theano.function.
    """
    before = theano.config.floatX
    theano.config.floatX = program["floatX"]
    try:
        return _run(program, theano, calls, {"on_unused_input": "ignore", **options})
    finally:
        theano.config.floatX = before


def _run(program, theano, calls, options):
    arrays = drawn(program)
    names = written(program, theano, arrays)
    givens = {name: eval(value, names) for name, value in program.get("givens", {}).items()}
    inputs = [name for group in ("inputs", "fed") for name in program.get(group, {}) if name not in givens]

    def function(outputs, updates=()):
        return theano.function(
            [names[name] for name in inputs],
            [names[name] for name in outputs],
            updates=[(names[name], eval(value, names)) for name, value in dict(updates).items()],
            givens=[(names[name], value) for name, value in givens.items()],
            **options,
        )

    compute = function(program["outputs"])
    for _ in range(calls):
        values = compute(*(arrays[name] for name in inputs))
    found = {"values": dict(pairs(program["outputs"], values))}
    training = program.get("train")
    if training:
        step = function(training["outputs"], training["updates"])
        found["outputs"] = []
        for i in range(training["steps"]):
            arrays["i"] = np.asarray(i)
            found["outputs"].append(step(*(arrays[name] for name in inputs)))
        found["shared"] = {name: names[name].get_value() for name in training["updates"]}
    return found, names


def pairs(first, second):
    """Return pairs of the items of two sequences of one length; zip knows no strict in Python 3.8."""
    assert len(first) == len(second)
    return [(first[i], second[i]) for i in range(len(first))]


def as_plain(results):
    """Return results as they are stored."""
    found = {"values": {name: plain(value) for name, value in results["values"].items()}}
    if "shared" in results:
        found["outputs"] = [[plain(value) for value in values] for values in results["outputs"]]
        found["shared"] = {name: plain(value) for name, value in results["shared"].items()}
    return found


def plain(array):
    """Return an array as dtype, shape and elements, with about as many digits as its dtype has."""
    array = np.asarray(array)
    flat = array.ravel().tolist()
    if array.dtype.kind == "f":
        digits = {"float32": 8, "float64": 13}[array.dtype.name]
        flat = [int(x) if x % 1 == 0 and abs(x) < 1e9 else float(f"{x:.{digits}g}") for x in flat]
    return [array.dtype.name, list(array.shape), flat]


def differences(program, found, wanted, numbers_only=False):
    """Return what differs between results, as texts.

    Parameters
    ----------
    program : dict
    found : dict
        As from `run`.
    wanted : dict
        As they are stored.
    numbers_only : bool
        Whether NaN and infinity, and what they meet, do not count.
    """
    compared = [(name, found["values"][name], value) for name, value in wanted["values"].items()]
    for i, values in enumerate(wanted.get("outputs", ())):
        compared += [(f"step {i}", *pair) for pair in pairs(found["outputs"][i], values)]
    compared += [
        (f"{name} in the end", found["shared"][name], value) for name, value in wanted.get("shared", {}).items()
    ]
    texts = []
    for name, value, (dtype, shape, elements) in compared:
        array = np.asarray(value)
        if (array.dtype.name, list(array.shape)) != (dtype, shape):
            texts.append(f"{name}: {array.dtype} {list(array.shape)}, not {dtype} {shape}")
            continue
        close = is_close(array.ravel(), np.array(elements, dtype), TOLERANCES[program["precision"]])
        if numbers_only:
            close |= ~(np.isfinite(array.ravel()) & np.isfinite(np.array(elements, dtype)))
        if not close.all():
            texts.append(f"{name}: {array.ravel().tolist()}, not {elements}")
    return texts


def is_close(array, expected, tolerance):
    """Return which elements are equal, or numbers that are to rounding."""
    if array.dtype.kind in "biu":
        return array == expected
    with np.errstate(invalid="ignore"):
        near = np.abs(array - expected) <= tolerance * (1 + np.abs(expected))
    return (array == expected) | (np.isnan(array) & np.isnan(expected)) | (near & np.isfinite(expected))


def precision(names, theano):
    """Return the least exact floating dtype that any variable of Theano's has, on the way to the others."""
    variables = [value for value in names.values() if isinstance(value, theano.Variable)]
    found = {getattr(variable, "dtype", "") for variable in theano.gof.graph.ancestors(variables)}
    return next((dtype for dtype in ("float32",) if dtype in found), "float64")
