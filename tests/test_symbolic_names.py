"""Names of Theano's notation, against the genuine Theano 1.0.5's values, types and gradients, and differences."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn.symbolic.tensor import kinds

_spec = importlib.util.spec_from_file_location("names", Path(__file__).parent / "golden" / "notation" / "names.py")
names = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(names)

THEANOS = json.loads(names.FILE.read_text())

# Theano adds up in another order; float32 has 6e-8 a rounding, float64 1e-16.  A gradient sums some ten of these.
TOLERANCES = {"float32": 3e-5, "float64": 1e-11}

#: From the third call with the same shapes on, functions go by a plan.
CALLS = 4


@pytest.mark.parametrize("run", names.runs(), ids="/".join)
@pytest.mark.parametrize("block", names.CASES)
def test_names_give_theanos_results(run, block):
    differing = {}
    for text in names.cases(block):
        wanted = THEANOS["/".join(run)][text]
        if wanted == "error":
            continue
        with np.errstate(all="ignore"):
            found = names.evaluated(theano, text, *run, calls=CALLS, by="" if wanted[3] is None else names.REAL)
        if not agree(found, wanted, TOLERANCES[run[1]]):
            differing[text] = found, wanted
    assert differing == {}


def agree(found, wanted, tolerance):
    *kind, value, slopes = found
    *wanted_kind, wanted_value, wanted_slopes = wanted
    same = kind == wanted_kind and close(value, wanted_value, tolerance)
    if slopes is None or not value:
        return same
    return (
        same
        and slopes.keys() == wanted_slopes.keys()
        and all(close(slopes[name], wanted_slopes[name], 10 * tolerance) for name in slopes)
    )


def close(found, wanted, tolerance):
    return np.allclose(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def test_theano_has_most_of_the_cases():
    for run, results in THEANOS.items():
        n_errors = sum(wanted == "error" for wanted in results.values())
        assert n_errors <= (10 if run.startswith("some") else 60)


#: Functions of one array, smooth for numbers between 1/4 and 3/4 (and so that the same is true of their gradients).
SMOOTH = (
    *("T.inv", "T.sqr", "T.sin", "T.cos", "T.tan", "T.arcsin", "T.arccos", "T.arctan", "T.sinh", "T.cosh"),
    *("T.arcsinh", "T.arctanh", "T.exp2", "T.log2", "T.log10", "T.deg2rad", "T.rad2deg", "T.erf", "T.erfc"),
    *("T.erfinv", "T.gamma", "T.gammaln", "T.psi", "T.prod", "T.cumsum", "T.cumprod", "T.std", "T.var"),
    *("T.triu", "T.nlinalg.det", "T.nlinalg.matrix_inverse", "T.diag", "T.sort", "T.nnet.elu", "T.nnet.selu"),
    *("T.nnet.softsign", "T.nnet.logsoftmax", "T.nnet.softmax_graph", "T.extra_ops.diff"),
)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_equal_central_differences(name, rng):
    x = T.dmatrix("x")
    found = eval(name, {"T": T})(x)
    weights = rng.normal(size=np.shape(found.eval({x: np.eye(3) / 2 + 0.25})))
    cost = T.sum(found * weights)
    gradient = T.grad(cost, x)
    directed = T.sum(gradient**2) + T.sum(x)  # a linear function has no second derivative
    functions = [(cost, gradient), (directed, T.grad(directed, x))]
    point = rng.uniform(0.25, 0.75, (3, 3))
    for value, slope in functions:
        f = theano.function([x], value)
        wanted = np.empty((3, 3))
        for place in np.ndindex(3, 3):
            step = np.zeros((3, 3))
            step[place] = 1e-5
            wanted[place] = (f(point + step) - f(point - step)) / 2e-5
        if name == "T.psi" and value is directed:  # tri_gamma has no gradient here
            continue
        np.testing.assert_allclose(slope.eval({x: point}), wanted, rtol=1e-5, atol=1e-6)


PAGE = (Path(__file__).parent.parent / "docs" / "notation-names.md").read_text()
SECTIONS = dict(re.findall(r"^## `theano(.*?)`\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))


def listed(section):
    """Return the names that a section lists, outside of its remarks."""
    paragraphs = [text for text in re.split(r"\n\s*\n", section) if not text.lstrip().startswith("- ")]
    return [name for text in paragraphs for name in re.findall(r"`([^`]+)`", text)]


@pytest.mark.parametrize("module", SECTIONS)
def test_page_lists_the_names_that_exist(module):
    found = set(listed(SECTIONS[module]))
    exist = set(importlib.import_module("fastnn.symbolic" + module).__all__)
    if module == ".tensor":
        found -= {*kinds.LETTERS, "dmatrix", "matrices", "dmatrices"}
        assert found >= set(kinds.NDIMS)
        exist -= kinds.KINDS.keys() - kinds.NDIMS.keys()
    assert found == exist


def test_page_lists_all_modules():
    package = Path(theano.__file__).parent
    modules = {"." + ".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
    with_names = {
        module.removesuffix(".__init__").removesuffix("__init__").rstrip(".")
        for module in modules
        if not module.startswith(".ops")
    }
    public = {name for name in with_names if hasattr(importlib.import_module("fastnn.symbolic" + name), "__all__")}
    assert public - {".tensor.basic", ".tensor.kinds"} == set(SECTIONS) - {".tensor.basic"}


def test_page_lists_what_other_modules_and_variables_have():
    others = re.search(r"^## Other modules\n(.*?)^## ", PAGE, re.M | re.S).group(1)
    for name in re.findall(r"`theano\.(\w+(?:\.\w+)*)`", others):
        module, _, attribute = name.rpartition(".")
        if module:
            assert hasattr(importlib.import_module("fastnn.symbolic." + module), attribute), name
    methods = set(re.findall(r"`(\w+)`", PAGE[PAGE.index("## Methods of variables") :]))
    x = T.dmatrix("x")
    assert methods == {name for name in dir(x) if not name.startswith("_")} - INTERNAL | {"T"}


#: What the package itself asks variables.
INTERNAL = {"op", "inputs", "number", "like", "shapes"}
