"""Theano's notation: its modules, its name, and what functions, shared variables and settings accept."""

import copy
import importlib
import pickle
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T
from fastnn.symbolic.ifelse import ifelse
from fastnn.symbolic.modes import get_mode

MODULES = [
    "compat",
    "compat.python2x",
    "compile.io",
    "compile.mode",
    "compile.nanguardmode",
    "compile.sharedvalue",
    "configparser",
    "gof.fg",
    "gof.graph",
    "gradient",
    "ifelse",
    "misc.safe_asarray",
    "printing",
    "sandbox",
    "scalar",
    "tensor.nnet",
    "tensor.signal",
    "updates",
    "version",
]


@pytest.fixture
def run(tmp_path):
    """Run a program in a process of its own, elsewhere than in a checkout, and return what it prints."""

    def run_there(program):
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return run_there


@pytest.mark.parametrize("name", MODULES)
def test_modules_have_the_names_that_they_list(name):
    module = importlib.import_module(f"fastnn.symbolic.{name}")
    assert module.__doc__
    assert all(hasattr(module, each) for each in getattr(module, "__all__", ()))


def test_the_package_lists_its_names():
    assert all(hasattr(theano, name) for name in theano.__all__)


def test_as_theano(run):
    printed = run("""
        import sys
        import fastnn.symbolic as ours
        packages = [ours, ours.tensor, ours.tensor.nnet, ours.compile, ours.gof]
        before = [{name: getattr(package, name) for name in package.__all__} for package in packages]
        with ours.as_theano():
            import theano
            import theano.tensor as T
            from theano.tensor.nnet import sigmoid
            import theano.tensor.nnet as nnet
            from theano.compat.python2x import OrderedDict
            from theano.ifelse import ifelse
            import theano.tensor.signal
            with ours.as_theano():
                pass
            import theano.gof
        assert before == [{name: getattr(package, name) for name in package.__all__} for package in packages]
        assert theano is ours and T is ours.tensor and nnet is T.nnet and sigmoid is nnet.sigmoid
        assert theano.ifelse.ifelse is ifelse
        assert T.__name__ == T.__spec__.name == "fastnn.symbolic.tensor"
        assert not [name for name in sys.modules if name.partition(".")[0] == "theano"]
        try:
            import theano.tensor
        except ImportError:
            print("restored")
        ours.as_theano()
        import theano.tensor
        try:
            import theano.gpuarray
        except ImportError as error:
            print(error.name)
    """)
    assert printed == ["restored", "theano.gpuarray"]


def test_as_theano_beside_another_theano(run):
    printed = run("""
        import sys, types
        sys.modules["theano"] = types.ModuleType("theano")
        import fastnn.symbolic
        try:
            fastnn.symbolic.as_theano()
        except ImportError as error:
            print("another" in str(error), sys.modules["theano"] is fastnn.symbolic)
    """)
    assert printed == ["True", "False"]


def test_a_value_of_an_input():
    s, u = T.dscalar("s"), T.dscalar("u")
    f = theano.function([s, theano.In(u, value=5)], s + u)
    assert [f(1), f(1, 2), f(1, u=7)] == [6, 3, 8]
    named = theano.function([theano.In(u, value=5, name="step"), s], s + u)
    assert [named(s=1), named(2, 1), named(step=3, s=1)] == [6, 3, 4]
    with pytest.raises(TypeError, match="no input with the name 'u'"):
        named(s=1, u=2)
    with pytest.raises(TypeError, match=r"input s .* is missing"):
        named(1)
    assert f[u] == f["u"] == 5
    f["u"] = 6
    assert f(1) == 7
    with pytest.raises(KeyError, match="no input 'v'"):
        f["v"]


def test_an_input_with_an_update():
    # Theano 1.0.5 says these numbers.
    s, u = T.dscalar("s"), T.dscalar("u")
    f = theano.function([s, theano.In(u, value=0.0, update=u + s)], u)
    assert [f(1), f(2), f(3), f(1, 100), f(1), f[u]] == [0, 1, 3, 100, 101, 102]
    other = f.copy()
    assert [f(1), f(1), other(1), f(1)] == [102, 103, 102, 104]
    again = pickle.loads(pickle.dumps(f))
    assert [again(1), again(1), f(1)] == [105, 106, 105]


def test_strict_and_downcast_inputs():
    s, fs = T.dscalar("s"), T.fscalar("fs")
    strict = theano.function([theano.In(s, strict=True)], s)
    assert strict(np.array(1.0)) == 1
    for value in (1.0, np.array(1, np.float32)):
        with pytest.raises(TypeError, match="input s is strict"):
            strict(value)
    assert theano.function([theano.In(fs, allow_downcast=True)], fs)(np.float64(0.1)) == np.float32(0.1)
    assert theano.function([fs], fs, allow_input_downcast=True)(0.1) == np.float32(0.1)
    with pytest.raises(TypeError, match="could lose precision"):
        theano.function([theano.In(fs, allow_downcast=False)], fs, allow_input_downcast=True)(0.1)
    with pytest.raises(TypeError, match="the value of input fs"):
        theano.function([theano.In(fs, value=0.1)], fs)
    with pytest.raises(TypeError, match="must hold variables"):
        theano.In(3)


def test_old_spelling_of_inputs():
    s, u = T.dscalar("s"), T.dscalar("u")
    with pytest.warns(UserWarning, match="theano.In"):
        f = theano.function([s, theano.Param(u, default=2.0)], s * u)
    assert [f(3), f(3, u=1)] == [6, 3]


def test_outputs_with_options():
    s = T.dscalar("s")
    assert theano.function([s], theano.Out(s * 2, borrow=True))(1) == 2
    assert theano.function([s], [theano.Out(s * 2), s])(1) == [2, 1]
    assert theano.function([s], {"a": theano.Out(s * 2)})(1) == {"a": 2}


def test_arguments_of_function_by_position():
    s, u = T.dscalar("s"), T.dscalar("u")
    f = theano.function([s, u], s * 2, "FAST_RUN", [], [], False, False, "doubled", True, True, False, "ignore")
    assert (f.name, f(1, 2)) == ("doubled", 2)
    with theano.config.change_flags(on_unused_input="ignore"):
        assert theano.function([s, u], s)(1, 2) == 1


@pytest.mark.parametrize(
    "mode",
    ["FAST_RUN", "FAST_COMPILE", "Mode", "DebugMode", "DEBUG_MODE", "NanGuardMode", theano.Mode("py", "fast_compile")],
)
def test_modes(mode):
    x, w = T.dvector("x"), theano.shared(np.ones(2), "w")
    f = theano.function([x], x * w, mode=mode, updates=[(w, w + x)], profile=True)
    assert f([1, 2]).tolist() == [1, 2]
    assert f([1, 2]).tolist() == [2, 6]
    assert pickle.loads(pickle.dumps(f))([1, 2]).tolist() == [3, 10]
    assert get_mode(mode).including("fusion").excluding("inplace") is not None


@pytest.mark.parametrize("mode", ["bogus", 3])
def test_unknown_modes(mode):
    with pytest.raises(ValueError, match="mode must be one of"):
        theano.function([], T.constant(1), mode=mode)
    with pytest.raises(ValueError, match="must be one of"):
        theano.Mode(optimizer="bogus")


@pytest.mark.parametrize(
    ("options", "value", "problem"),
    [
        ({}, 1.0, None),
        ({}, -1.0, r"NaN in log\(x\)"),
        ({}, 0.0, r"an infinite number in log\(x\)"),
        ({}, np.nan, "NaN in x"),
        ({}, 1e11, r"a number beyond 1e\+10 in x"),
        ({"inf_is_error": False}, 0.0, None),
        ({"big_is_error": False}, 1e11, None),
        ({"nan_is_error": False}, -1.0, None),
    ],
)
def test_a_mode_that_stops_at_bad_numbers(options, value, problem):
    x, n = T.dvector("x"), theano.shared(0, "n")
    f = theano.function([x], T.log(x), mode=theano.compile.NanGuardMode(**options), updates=[(n, n + 1)])
    if problem is None:
        f([value])
    else:
        with pytest.raises(AssertionError, match=f"NanGuardMode found {problem}"):
            f([value])
    assert n.get_value() == (problem is None)


def test_copies_of_functions():
    s, c, d = T.dscalar("s"), theano.shared(0.0, "c"), theano.shared(100.0, "d")
    f = theano.function([s], c, updates=[(c, c + s)])
    assert [f(1), f.copy()(1), f(1)] == [0, 1, 2]
    assert f.copy(swap={c: d})(1) == 100
    assert (c.get_value(), d.get_value()) == (3, 101)
    fixed = f.copy(delete_updates=True, name="fixed")
    assert [fixed(1), fixed(1), fixed.name] == [3, 3, "fixed"]
    with pytest.raises(TypeError, match="swap must replace"):
        f.copy(swap={c: theano.shared(np.zeros(2))})


def test_operations_of_functions():
    x = T.dvector("x")
    graph = theano.function([x], T.tanh(x) * 2).maker.fgraph
    assert [theano.pp(node.outputs[0]) for node in graph.toposort()] == ["tanh(x)", "tanh(x) * 2"]
    assert graph.inputs == [x]


def test_truth_of_variables():
    # As in Theano 1.0.5.
    x, y = T.dvector("x"), T.dvector("y")
    for each in (x, x + 1, theano.shared(0.0), T.constant(0), T.lt(x, y), T.eq(x, y)):
        assert each
    for compared in (x < y, x <= 1, np.ones(2) > x, x >= y):
        for each in (compared, copy.copy(compared), pickle.loads(pickle.dumps(compared))):
            with pytest.raises(TypeError, match="neither true nor false"):
                bool(each)
    assert x in [y, x]


def test_graphs():
    x, y, c = T.dvector("x"), T.dvector("y"), theano.shared(1.0, "c")
    z = x + y * c
    assert z.owner.inputs == (x, z.inputs[1])
    assert (x.owner, z.owner.outputs[0], z.owner.op) == (None, z, z.op)
    assert theano.gof.graph.inputs([z]) == [x, y, c]
    assert theano.gof.graph.inputs([z], blockers=[z.inputs[1]]) == [x]
    assert theano.gof.graph.inputs([c, z]) == [x, y, c]
    assert theano.gof.graph.inputs([x, c]) == [c, x]
    assert theano.gof.graph.ancestors([z]) == [z, x, z.inputs[1], y, c]
    same = theano.gof.graph.is_same_graph
    assert same(z, x + y * c)
    assert same(x * 2, y * 2, givens={x: y})
    assert not same(z, y + x * c)
    assert not same(x * 2, x * 3)
    assert not same(x, y)


def test_notes_about_variables():
    x = T.dvector("x")
    assert not hasattr(x.tag, "test_value")
    x.tag.test_value = np.ones(2)
    assert pickle.loads(pickle.dumps(x)).tag.test_value.tolist() == [1, 1]
    twin = x.clone()
    assert (twin is x, twin.name, twin.type) == (False, "x", x.type)
    assert (x * 2).clone().owner is None


def test_values_of_expressions_as_they_are_made():
    A, B, w = T.dmatrix("A"), T.dmatrix("B"), theano.shared(np.full((2, 3), 2.0))
    with theano.config.change_flags(compute_test_value="raise"):
        A.tag.test_value = np.ones((2, 3))
        P = T.nnet.softmax(A * w)
        assert P.tag.test_value.shape == (2, 3)
        assert not hasattr(T.dot(A, B).tag, "test_value")
        B.tag.test_value = np.ones((2, 3))
        with pytest.raises(ValueError, match="shapes"):
            T.dot(A, B)
        B.tag.test_value = np.ones(3)
        with pytest.raises(TypeError, match="the test value of B must have 2 dimensions"):
            T.dot(A, B)
        np.testing.assert_allclose(T.grad((A * w).sum(), w).tag.test_value, np.ones((2, 3)))
        theano.function([A], P)(np.ones((1, 3)) * np.ones((2, 1)))
    assert not hasattr((A * 2).tag, "test_value")


def test_arguments_of_shared():
    options = {"borrow": True, "broadcastable": (False, True), "target": "cpu"}
    assert theano.shared(np.zeros((3, 1)), "column", False, None, **options).name == "column"
    with pytest.raises(TypeError, match="broadcastable is"):
        theano.shared(np.zeros((3, 2)), broadcastable=(False, True))
    with pytest.raises(TypeError, match="broadcastable is"):
        theano.shared(np.zeros(3), broadcastable=(False, True))
    with pytest.raises(ValueError, match="target"):
        theano.shared(np.zeros(3), target="gpu")
    loose = theano.shared(np.zeros(3, np.float32), allow_downcast=True)
    loose.set_value(np.full(3, 0.1))
    assert loose.get_value(borrow=True, return_internal_type=True).tolist() == [np.float32(0.1)] * 3
    loose.zero()
    assert loose.get_value().tolist() == [0, 0, 0]
    strict = theano.shared(np.zeros(3, np.float32), strict=True)
    strict.set_value(np.ones(3, np.float32))
    for value in ([1, 2, 3], np.zeros(3, np.int8)):
        with pytest.raises(TypeError, match="strict=True"):
            strict.set_value(value)


def test_sums_of_updates():
    c, d = theano.shared(0.0, "c"), theano.shared(0.0, "d")
    first, other = theano.OrderedUpdates([(c, c + 1)]), {d: d + 2}
    for joint in (first + other, other + first, first + list(other.items())):
        theano.function([], updates=joint)()
    assert (c.get_value(), d.get_value()) == (3, 6)
    assert first + first == first
    first.update(other)
    assert list(first) == [c, d]
    with pytest.raises(KeyError, match="two different updates"):
        first + {c: c + 5}
    with pytest.raises(TypeError, match="shared variables"):
        theano.OrderedUpdates({T.dscalar("x"): 1})


def test_clones_of_expressions():
    x, y, s = T.dvector("x"), T.dvector("y"), T.dscalar("s")
    assert theano.clone(x * 2, replace={x: y}).eval({y: [3]}).tolist() == [6]
    both = theano.clone([x * y, x + 1], replace=[(x, y), (y, x)])
    assert theano.function([x, y], both)([1, 2], [3, 4])[1].tolist() == [4, 5]
    # A gradient does not bypass what has been replaced.
    middle = s**2
    slope = T.grad(T.exp(middle), s)
    assert theano.clone(slope, replace={middle: T.constant(0.0, dtype="float64")}).eval({s: 3.0}) == 6
    with pytest.raises(TypeError, match="cannot be replaced"):
        theano.clone(x * 2, replace={x: s})


def test_clones_of_shared_variables():
    mean, x = theano.shared(np.array([1.0, 2.0]), "mean"), T.dvector("x")
    running = theano.clone(mean, share_inputs=False)
    running.default_update = 0.5 * running + 0.5 * x
    assert running is not mean
    assert running.name == "mean"
    train, test = theano.function([x], x - mean + 0 * running), theano.function([x], x - mean)
    for step in range(5):
        now = 3 - mean.get_value()
        np.testing.assert_array_equal(test([3, 3]), now)
        np.testing.assert_array_equal(train([3, 3]), now)
        np.testing.assert_allclose(mean.get_value(), 3 - np.array([2, 1]) / 2 ** (step + 1))
    for one, other in ((mean, running), (running, mean), (running.clone(), mean)):
        one.set_value(np.array([5.0, 6.0]) + one.number)
        assert other.get_value().tolist() == one.get_value().tolist()
    again_mean, again_running = pickle.loads(pickle.dumps([mean, running]))
    again_running.set_value(np.zeros(2))
    assert again_mean.get_value().tolist() == [0, 0]
    assert mean.get_value().all()


def test_default_updates():
    # Theano 1.0.5 says these numbers.
    s, c, d, w = T.dscalar("s"), theano.shared(0.0, "c"), theano.shared(0.0, "d"), theano.shared(2.0, "w")
    c.default_update, d.default_update = c + 1, d + c
    middle = s + c
    assert theano.function([middle], middle * 2)(1) == 2  # the input has a value: what is behind it does not count
    assert theano.function([], c * 2, givens={c: T.constant(5.0, dtype="float64")})() == 10
    assert c.get_value() == 0
    assert theano.function([], T.grad(w**2 + c, w))() == 4
    assert c.get_value() == 1
    assert theano.function([], d)() == 0
    assert (c.get_value(), d.get_value()) == (2, 1)
    theano.function([], d, no_default_updates=[c])()
    assert (c.get_value(), d.get_value()) == (2, 3)


def test_products_with_jacobians():
    # The numbers are Theano 1.0.5's.
    W, x, V, v = T.dmatrix("W"), T.dvector("x"), T.dmatrix("V"), T.dvector("v")
    values = {W: [[1, 2], [0.3, 0.4]], x: [1, 2]}
    right = theano.Rop(T.tanh(T.dot(x, W)), W, V)
    np.testing.assert_allclose(right.eval(values | {V: [[1, 1], [2, 2]]}), [0.75263538, 0.07341333], atol=1e-8)
    left = theano.Lop(T.dot(x, W), W, v)
    assert left.eval(values | {v: [3, 4]}).tolist() == [[3, 4], [6, 8]]
    linear, _ = theano.Rop([T.dot(x, W), x * 2], [x], [v])
    assert linear.eval(values | {v: [1, 1]}).tolist() == [1.3, 2.4]
    assert theano.Rop(T.dot(x, W), V, V).eval({W: [[1, 2], [0.3, 0.4]], x: [1, 2]}).tolist() == [0, 0]


def test_ifelse():
    i, x, y = T.iscalar("i"), T.dvector("x"), T.dvector("y")
    f = theano.function([i, x, y], [ifelse(i, x, y), *T.grad((ifelse(i, x, y) ** 2).sum(), [x, y])])
    for _ in range(4):
        assert [each.tolist() for each in f(0, [1], [2, 3])] == [[2, 3], [0], [4, 6]]
        assert [each.tolist() for each in f(5, [1], [2, 3])] == [[1], [2], [0, 0]]
    one, other = ifelse(T.lt(i, 3), (x, y), (y, x), name="k")
    assert [each.tolist() for each in theano.function([i, x, y], [one, other])(4, [1], [2, 3])] == [[2, 3], [1]]
    assert ifelse(i, x, y, name="k").name == "k"
    for branches, message in (
        ((x, T.dmatrix()), "of one type"),
        ((T.fvector(), y), "of one type"),
        (([x], y), "both be lists"),
    ):
        with pytest.raises(TypeError, match=message):
            ifelse(i, *branches)
    with pytest.raises(TypeError, match="must be a scalar"):
        ifelse(x, x, y)
    with pytest.raises(ValueError, match="1 and 2"):
        ifelse(i, [x], [x, y])


def test_names_of_joint_types():
    assert theano.scalar.upcast("int64", "float32") == "float64"
    assert theano.scalar.upcast("int8", "uint8", "bool") == "int16"


def test_settings():
    config = theano.config
    assert (config.device, config.compute_test_value, config.blas.ldflags, config.cast_policy) == (
        "cpu",
        "off",
        "",
        "custom",
    )
    with config.change_flags({"blas.ldflags": "-lopenblas"}, compute_test_value="warn", floatX="float32"):
        assert (config.blas.ldflags, config.compute_test_value, T.vector().dtype) == ("-lopenblas", "warn", "float32")
    assert (config.blas.ldflags, config.compute_test_value, T.vector().dtype) == ("", "off", "float64")

    @theano.change_flags(floatX="float32")
    def dtype():
        return T.vector().dtype

    assert [dtype(), dtype(), config.floatX] == ["float32", "float32", "float64"]
    for read in (lambda: config.foo, lambda: config.blas.foo, lambda: setattr(config, "foo", 1)):
        with pytest.raises(AttributeError, match=r"no setting (blas\.)?foo"):
            read()
    for name, value in {"device": "gpu", "floatX": "int8", "mode": "bogus", "cast_policy": "numpy+floatX"}.items():
        with pytest.raises(ValueError, match=re.escape(repr(value))):
            setattr(config, name, value)


def test_flags_in_the_environment(monkeypatch, run):
    monkeypatch.setenv("THEANO_FLAGS", "device=gpu0, floatX=float32,mode=FAST_COMPILE,blas.ldflags=")
    printed = run("import fastnn.symbolic as t; print(t.config.floatX, t.config.mode, t.config.device)")
    assert printed == ["float32", "FAST_COMPILE", "cpu"]


def test_printed_values(capsys):
    x = T.dvector("x")
    f = theano.function([x], T.grad((theano.printing.Print("x:", attrs=["shape", "max"])(x) ** 2).sum(), x))
    for _ in range(4):
        assert f([1, 3]).tolist() == [2, 6]
        assert capsys.readouterr().out == "x: shape = (2,)\nx: max = 3.0\n"


def test_pictures_in_files(tmp_path):
    x = T.dvector("x")
    f = theano.function([x], T.tanh(x))
    theano.printing.pydotprint(f, outfile=str(tmp_path / "f.svg"), var_with_name_simple=True)
    theano.printing.pydotprint(T.tanh(x), tmp_path / "f.dot")
    assert (tmp_path / "f.svg").read_text().startswith("<svg")
    assert "tanh" in (tmp_path / "f.dot").read_text()
    with pytest.raises(ValueError, match=r"not \.png"):
        theano.printing.pydotprint(f, tmp_path / "f.png")
    tree = theano.printing.debugprint(f, file="str", print_type=True)
    assert tree == "tanh(·) [1] <float64 vector>\n  x [2] <float64 vector>\n"
    assert theano.printing.debugprint(T.tanh(x) + x, depth=1, file="str").count("\n") == 1


class Model:
    """What programs pickle: parameters, expressions and functions of these."""

    def __init__(self):
        self.x, self.W = T.dmatrix("x"), theano.shared(np.ones((3, 2)), "W")
        self.P = T.nnet.softmax(T.dot(self.x, self.W))
        self.params = [self.W]
        self.predict = theano.function([self.x], self.P)
        self.step = theano.function([self.x], updates=[(self.W, self.W - T.grad((self.P**2).mean(), self.W))])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_what_holds_variables(protocol):
    model = Model()
    X = np.arange(6.0).reshape(2, 3)
    again = pickle.loads(pickle.dumps(model, protocol))
    for each in (again, copy.deepcopy(model)):
        assert each.params[0] is each.W is not model.W
        np.testing.assert_array_equal(each.predict(X), model.predict(X))
        each.W.set_value(np.eye(3, 2))
        np.testing.assert_array_equal(each.predict(X), theano.function([each.x], each.P)(X))
    model.W.set_value(np.eye(3, 2))
    for each in (model, again):
        each.step(X)
    np.testing.assert_array_equal(again.W.get_value(), model.W.get_value())
    assert copy.copy(model).W is model.W


CHANGES = {
    "disconnected_grad": theano.gradient.disconnected_grad,
    "zero_grad": theano.gradient.zero_grad,
    "grad_clip": lambda x: theano.gradient.grad_clip(x, -0.001, 0.001),
    "grad_scale": lambda x: theano.gradient.grad_scale(x, 0.1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_gradients_changed_on_their_way_in_networks(change):
    rng = np.random.default_rng(1)
    X, classes, first = rng.normal(size=(20, 5)), rng.integers(0, 3, 20), (rng.normal(size=(5, 4)), np.ones((4, 3)))
    trained = []
    for mode in ("FAST_RUN", "FAST_COMPILE"):
        (W, V), x, y = map(theano.shared, first), T.dmatrix("x"), T.lvector("y")
        P = T.nnet.softmax(T.dot(change(T.tanh(T.dot(x, W))), V))
        cost = -T.mean(T.log(P)[T.arange(y.shape[0]), y])
        gradients = T.grad(cost, [W, V], disconnected_inputs="ignore")
        step = theano.function([x, y], updates=[(W, W - gradients[0]), (V, V - gradients[1])], mode=mode)
        for _ in range(3):
            step(X, classes)
        trained.append(W.get_value())
    np.testing.assert_allclose(trained[0], trained[1], rtol=1e-12)
    assert np.abs(trained[0] - first[0]).max() < 0.05


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_gradients_changed_on_their_way_in_loops(change):
    x, w = T.dmatrix("x"), theano.shared(np.array([[0.5, -0.3], [0.2, 0.8]]))

    def step(row, state):
        return T.tanh(change(row + T.dot(state, w)) + state)

    states, _ = theano.scan(step, sequences=[x], outputs_info=[T.zeros((2,))])
    state = T.zeros((2,))
    for i in range(3):
        state = step(x[i], state)
    X = np.array([[1.0, 2.0], [0.5, -1.0], [0.3, 0.3]])
    gradients = [T.grad((last**2).sum(), [w, x], disconnected_inputs="ignore") for last in (states[-1], state)]
    for loop, unrolled in zip(
        *(theano.function([x], each, on_unused_input="ignore")(X) for each in gradients), strict=True
    ):
        np.testing.assert_allclose(loop, unrolled, rtol=1e-12, atol=1e-15)
