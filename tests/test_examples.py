"""The examples: those in the notation of formulas print what Theano prints, the notebook what is stored in it."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import fastnn
import fastnn.symbolic as theano

EXAMPLES = Path(__file__).parent.parent / "examples"

# Printed by Theano 1.0.5 with the import lines changed.
SOFTMAX = """\
epoch 1: cost 0.530940, validation error 9.34 %
epoch 2: cost 0.360015, validation error 8.54 %
test error 8.81 %, where the validation error was lowest (8.54 %)
"""
MLP = """\
epoch 1: loss 0.800806, validation error 10.52 %
epoch 2: loss 0.389346, validation error 9.10 %
test error 9.16 %, where the validation error was lowest (9.10 %)
"""
DENOISING = """\
epoch 1: cost 232.592857
epoch 2: cost 155.629067
mean squared error of the test images: 0.030874 broken, 0.036433 restored
"""

# The same of 1,000 images of each part.
RNN = """\
epoch 1: loss 2.296773, test error 90.10 %
epoch 2: loss 2.266952, test error 88.50 %
"""


def test_softmax_regression_prints_what_theano_does(capsys):
    runpy.run_path(str(EXAMPLES / "symbolic_softmax.py"))["main"](epochs=2)
    assert capsys.readouterr().out == SOFTMAX


def test_a_network_prints_what_theano_does(capsys, monkeypatch):
    monkeypatch.setattr(theano.config, "floatX", theano.config.floatX)  # the script sets it
    main = runpy.run_path(str(EXAMPLES / "symbolic_mlp.py"))["main"]
    monkeypatch.setitem(main.__globals__, "BATCH_SIZE", 500)  # for a quick test
    main(epochs=2, dtype="float64")
    assert capsys.readouterr().out == MLP


def test_a_denoising_autoencoder_prints_what_theano_does(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(theano.config, "floatX", theano.config.floatX)  # the script sets it
    train, valid, test = fastnn.datasets.load_mnist(dtype="float64")
    few = [fastnn.datasets.Dataset(part.X[:n], part.y[:n]) for part, n in ((train, 3000), (valid, 0), (test, 1000))]
    monkeypatch.setattr(fastnn.datasets, "load_mnist", lambda dtype: few)
    main = runpy.run_path(str(EXAMPLES / "symbolic_denoising.py"))["main"]
    monkeypatch.setitem(main.__globals__, "BATCH_SIZE", 250)
    main(epochs=2, dtype="float64")
    assert capsys.readouterr().out == DENOISING
    assert [file.name for file in tmp_path.iterdir()] == ["restored.png"]


def test_a_recurrent_network_prints_what_theano_does(capsys, monkeypatch):
    monkeypatch.setattr(theano.config, "floatX", theano.config.floatX)  # the script sets it
    few = [
        fastnn.datasets.Dataset(part.X[:1000], part.y[:1000]) for part in fastnn.datasets.load_mnist(dtype="float64")
    ]
    monkeypatch.setattr(fastnn.datasets, "load_mnist", lambda dtype: few)
    runpy.run_path(str(EXAMPLES / "symbolic_rnn.py"))["main"](epochs=2, dtype="float64")
    assert capsys.readouterr().out == RNN


def test_lenet_in_formulas_does_what_theano_does(capsys, monkeypatch):
    golden = json.loads((Path(__file__).parent / "golden" / "lenet" / "symbolic_lenet.json").read_text())
    n, (train, _, test) = golden["rows"], fastnn.datasets.load_mnist()
    few = [
        fastnn.datasets.Dataset(*part)
        for part in ((train.X[:n], train.y[:n]), (train.X[n : 2 * n], train.y[n : 2 * n]))
    ]
    few.append(fastnn.datasets.Dataset(test.X[:n], test.y[:n]))
    monkeypatch.setattr(fastnn.datasets, "load_mnist", lambda: few)
    monkeypatch.setattr(theano.config, "floatX", theano.config.floatX)  # the script sets it
    main = runpy.run_path(str(EXAMPLES / "symbolic_lenet.py"))["main"]
    parameters = main(golden["epochs"], golden["dtype"])
    assert capsys.readouterr().out == golden["printed"]
    for parameter, digest in zip(parameters, golden["parameters"], strict=True):
        value = parameter.get_value().ravel()
        assert list(parameter.get_value().shape) == digest["shape"]
        assert np.abs(value).sum() == pytest.approx(digest["abs_sum"], rel=1e-9)
        assert (value**2).sum() == pytest.approx(digest["sq_sum"], rel=1e-9)
        np.testing.assert_allclose([*value[:5], *value[-5:]], [*digest["first"], *digest["last"]], 1e-8, 1e-12)


@pytest.mark.parametrize("name", ["lenet", "best_mnist"])
def test_a_network_of_images_trains(name, capsys, monkeypatch, tmp_path):
    few = [fastnn.datasets.Dataset(part.X[:150], part.y[:150]) for part in fastnn.datasets.load_mnist()]
    monkeypatch.setattr(fastnn.datasets, "load_mnist", lambda: few)
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    monkeypatch.setitem(main.__globals__, "EPOCHS", 2)
    main()
    errors = [float(error) for error in re.findall(r"test error (\d+\.\d\d) %", capsys.readouterr().out)]
    assert len(errors) == {"lenet": 1, "best_mnist": 4}[name]
    files = {"lenet": ["lenet.safetensors", "maps.png"], "best_mnist": ["mistakes.png"]}[name]
    assert sorted(file.name for file in tmp_path.iterdir()) == files


def test_a_table(capsys, monkeypatch, tmp_path):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "tables.py"))["main"]()
    out = capsys.readouterr().out
    assert re.search(r"^bp +number +number +10 % +numbers$", out, re.M)
    assert 0.25 < float(re.search(r"^R2 of 111 other rows: (0\.\d\d)$", out, re.M).group(1)) < 0.5
    assert re.search(r"^bmi +0\.\d+ ", out, re.M)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["diabetes.safetensors", "importance.png"]


def printed(cell):
    """All that a cell of a notebook put out: its words with # for each number, the numbers, and the kinds of it."""
    kinds, text = [], ""
    for output in cell.get("outputs", ()):
        data = {output.name: output.text} if output.output_type == "stream" else output.data
        if not kinds or kinds[-1] != sorted(data) or output.output_type != "stream":  # a stream may come in pieces
            kinds.append(sorted(data))
        text += "".join(value for kind, value in sorted(data.items()) if kind != "image/png")
    text = re.sub(r"at 0x[0-9a-f]+", "", text)  # where an object lies is chance
    numbers = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?")
    return kinds, numbers.sub("#", text), [float(number) for number in numbers.findall(text)]


def test_the_notebook_puts_out_what_is_stored_in_it(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="executing the notebook takes the extra notebook")
    nbformat = pytest.importorskip("nbformat")
    stored = nbformat.read(EXAMPLES / "notation.ipynb", as_version=4)
    executed = nbformat.from_dict(stored)
    # Outputs that are late on a busy machine, by more than 4 seconds, would be left out by default.
    # Elsewhere than in a checkout, where Python would find the sources first.
    elsewhere = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(executed, timeout=300, iopub_timeout=60, resources=elsewhere).execute()
    for old, new in zip(stored.cells, executed.cells, strict=True):
        kinds, words, numbers = printed(old)
        new_kinds, new_words, new_numbers = printed(new)
        assert (new_kinds, new_words) == (kinds, words), new.source
        assert new_numbers == pytest.approx(numbers, rel=1e-9), new.source  # they have up to 12 digits
