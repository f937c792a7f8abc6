"""The benchmark: that it compares like with like and prints what it found; nothing here depends on speed."""

import importlib.util
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastnn import benchmark, cli
from fastnn.benchmark import peers, timing
from fastnn.benchmark.cells import CELLS, SETS, Cell
from fastnn.benchmark.peers import AUTOMATIC, DENSE, PACKAGES, PEERS
from fastnn.benchmark.timing import HANDOVER, PEAK, ROOFLINE, Contest, Summary
from fastnn.engine import threads

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


#: What peers cannot do.
WITHOUT = {
    ("1", "scikit-learn"): "MLPClassifier needs a hidden layer",
    ("B", "scikit-learn"): "MLPClassifier has no dropout",
    **{(label, "scikit-learn"): "MLPClassifier has one output for two classes" for label in "DEFGH"},
    **{(label, "scikit-learn"): "MLPClassifier has no convolutions" for label in "IJKL"},
    **{(label, "NumPy"): "NumPy has no convolutions of images" for label in "IJKL"},
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Cells, products and pauses that take no time."""
    for label, cell in CELLS.items():
        rows, (n_in, *hidden, n_out) = min(cell.rows, 330), cell.sizes
        sizes = (n_in, *(min(width, 80) for width in hidden), n_out)
        monkeypatch.setitem(CELLS, label, cell._replace(sizes=sizes, rows=rows, batch_size=min(cell.batch_size, rows)))
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    monkeypatch.setattr(timing, "PEAK_SIZE", 50)


def own(*names):
    return {name: PEERS[name] for name in (DENSE, AUTOMATIC, "NumPy", *names)}


def test_the_operations_of_a_cell():
    cell = Cell("2", "", (784, 20, 10), 5_000, 5_000)
    assert cell.flops == 5_000 * (4 * 784 * 20 + 6 * 20 * 10)
    assert Cell("1", "", (784, 10), 3, 3).flops == 3 * 4 * 784 * 10


def test_the_operations_of_a_cell_with_convolutions():
    cell = Cell("I", "", (784, 500, 10), 3, 3, convolutions=((20, 5), (50, 3)))
    # 28 x 28, 24 x 24 and pooled 12 x 12, 10 x 10 and pooled 5 x 5.
    assert cell.products == [24**2 * 25 * 20, 10**2 * 9 * 20 * 50, 25 * 50 * 500, 500 * 10]
    assert cell.flops == 3 * (4 * cell.products[0] + 6 * sum(cell.products[1:]))


def test_the_first_rows_of_a_cell():
    cell = Cell("I", "name", (784, 10), 60_000, 128)
    assert cell.first(None) == cell.first(60_000) == cell
    assert cell.first(5_000) == Cell("I", "name, 5,000 rows", (784, 10), 5_000, 128)
    assert cell.first(50).batch_size == 50


@pytest.mark.filterwarnings("default")  # what a peer warns of is its own affair
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("label", CELLS)
def test_all_peers_do_the_same_steps(label, name, dtype):
    pytest.importorskip(PACKAGES.get(name, "numpy"))
    contest = Contest(CELLS[label], dtype, {AUTOMATIC: PEERS[AUTOMATIC], name: PEERS[name]})
    assert contest.wrong == {}
    assert contest.left_out == ({name: WITHOUT[label, name]} if (label, name) in WITHOUT else {})
    contest.close()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", [name for name in PEERS if name != AUTOMATIC])
@pytest.mark.parametrize("label", "ABG")
def test_all_peers_take_the_same_steps_of_adam(label, name, monkeypatch):
    pytest.importorskip(PACKAGES.get(name, "numpy"))
    if name == "scikit-learn":
        pytest.skip("its epsilon is added elsewhere")
    monkeypatch.setitem(timing.ADAM_TOLERANCES, "float64", 1e-9)
    cell = CELLS[label]._replace(dropout=0.0)  # masks are each peer's own
    contest = Contest(cell, "float64", {AUTOMATIC: PEERS[AUTOMATIC], name: PEERS[name]})
    assert contest.wrong == contest.left_out == {}


def test_a_peer_with_another_optimizer_is_wrong():
    def prepare(cell, X, y):
        return PEERS["NumPy"](cell._replace(optimizer="sgd"), X, y)

    contest = Contest(CELLS["G"], "float32", {"other": prepare, **own()})
    assert list(contest.wrong) == ["other"]


def test_a_table_has_as_many_rows_and_classes_as_its_cell_says(dtype):
    X, y = timing.load_rows(CELLS["D"], dtype)
    assert X.shape == (330, 64)
    assert X.dtype == dtype
    np.testing.assert_allclose([X.mean(), X.std()], [0, 1], atol=0.02)
    assert set(y) == {0, 1}
    np.testing.assert_array_equal(X, timing.load_rows(CELLS["D"], dtype)[0])


def test_the_time_from_core_to_core(monkeypatch):
    seconds = threads.handover_seconds()
    assert seconds is None or 0 < seconds < 1
    monkeypatch.setattr(threads, "available_threads", lambda: 1)
    assert threads.handover_seconds() is None


def test_a_contest_without_a_second_core(monkeypatch):
    monkeypatch.setattr(timing, "handover_seconds", lambda: None)
    contest = Contest(CELLS["2"], "float32", own())
    contest.run(deadline=0.0, seconds=0.0)
    assert HANDOVER not in contest.summaries()


def test_a_peer_that_does_something_else_gets_no_turn():
    def prepare(cell, X, y):
        epoch = PEERS["NumPy"](cell, X, y)
        first = epoch()
        return lambda: first  # right once

    contest = Contest(CELLS["2"], "float64", {"lazy": prepare, **own()})
    assert "its log-likelihoods are" in contest.wrong["lazy"]
    contest.run(deadline=0.0, seconds=0.0)
    handovers = contest.seconds.pop(HANDOVER, [1.0])
    assert len(handovers) == 1
    assert {name: len(times) for name, times in contest.seconds.items()} == {
        DENSE: 1,
        AUTOMATIC: 1,
        "NumPy": 1,
        PEAK: timing.PEAK_CALLS,
    }
    assert set(contest.summaries()) == {ROOFLINE, DENSE, AUTOMATIC, "NumPy"}


def test_a_turn_has_as_many_epochs_as_fit():
    contest = Contest(CELLS["2"], "float32", own())
    contest.seconds["NumPy"] = [0.011, 0.01]
    contest._estimates["NumPy"] = 0.5
    assert contest.calls_a_turn("NumPy", 0.3) == 30
    assert contest.calls_a_turn("NumPy", 0.001) == 1


def test_ratios():
    results = {
        ROOFLINE: Summary(1.0, 9.0),
        HANDOVER: Summary(1e-8, 9.0),
        DENSE: Summary(2.0, 9.0),
        AUTOMATIC: Summary(1.5, 9.0),
        "a": Summary(6.0, 9.0),
        "b": Summary(4.5, 9.0),
    }
    assert benchmark.ratios(results) == (0.5, 3.0)
    assert benchmark.ratios({name: results[name] for name in (ROOFLINE, DENSE, AUTOMATIC)}) == (0.5, None)


def test_the_command_prints_a_row_a_cell(capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "PEERS", own("scikit-learn"))
    assert cli.main(["benchmark", "--seconds", "0.1", "--dtype", "float64", "--set", "plain"]) == 0
    out = capsys.readouterr().out
    assert "float64" in out.splitlines()[0]
    head, *rows = re.search(r"^cell .*\n(?: .*\n)*", out, re.M).group().splitlines()
    assert re.split(r" {2,}", head) == [
        *("cell", "roofline", DENSE, AUTOMATIC, "NumPy", "scikit-learn"),
        *("roofline / dense", "best peer / fastnn", "core to core, ns"),
    ]
    assert [row.split()[0] for row in rows] == ["1", "2", "4", "5"]
    for row in rows:
        assert len(row) == len(head)  # aligned
        _, roofline, dense, automatic, numpy, sklearn, against_roofline, against_peers, nearness = row.split()
        assert (sklearn == "-") == row.startswith("   1")
        assert nearness == "-" or int(nearness) > 0
        best = min(float(numpy), float(sklearn)) if sklearn != "-" else float(numpy)
        # The figures are rounded to 0.00001 s, and such a cell takes little more.
        if min(float(dense), float(automatic), float(roofline)) > 1e-4:
            np.testing.assert_allclose(float(against_roofline), float(roofline) / float(dense), rtol=0.1, atol=0.01)
            np.testing.assert_allclose(float(against_peers), best / float(automatic), rtol=0.1, atol=0.01)
    assert "scikit-learn is left out of cell 1: MLPClassifier needs a hidden layer" in out
    assert "not installed" not in out


def test_the_sets_of_the_command():
    assert benchmark.cells_of("all") == [label for name in SETS for label in benchmark.cells_of(name)]
    assert benchmark.cells_of("all", quick=False) == list(CELLS)
    assert {CELLS[label].optimizer for label in benchmark.cells_of("adam")} == {"adam"}


def test_a_missing_peer_is_named_with_its_remedy(capsys, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    benchmark.run(seconds=0.1, cells=("2",), rows=100)
    out = capsys.readouterr().out
    assert "   2: 20 units, 5,000 rows at once, 100 rows\n" in out
    for name, package in PACKAGES.items():
        assert f'{name} is left out: {package} is not installed (pip install "fastnn[benchmark]")' in out
    assert re.search(r"^cell .* NumPy  roofline / dense", out, re.M)


def load_table():
    spec = importlib.util.spec_from_file_location("fastnn_benchmark_table", BENCHMARKS / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def results():
    """A file of the benchmark with made-up times: cell 1 with four peers, cell F with three, in two rounds."""
    peak = timing.PEAK_FLOPS / 100e9  # 100 GFLOP/s
    seconds = {
        "1": {PEAK: peak, HANDOVER: 2.8e-8, DENSE: 0.02, AUTOMATIC: 0.01, "NumPy": 0.06, "Theano": 0.05},
        "F": {PEAK: peak, DENSE: 0.004, AUTOMATIC: 0.002, "NumPy": 0.0061},
    }
    turns = [
        {
            "extra_info": {
                "cell": number,
                "name": f"name {number}",
                "dtype": "float32",
                "peer": peer,
                "flops": 1e9,
                "version": "1.0.5" if peer == "Theano" else None,
            },
            "stats": {"data": [factor * best, 2 * best]},
        }
        for factor in (1.5, 1)
        for number, times in seconds.items()
        for peer, best in times.items()
    ]
    about = {"fastnn": "0.1.0", "threads": "2", "instruction set": "avx2 (available: avx2, baseline)"}
    machine = {"processor": "Some CPU", "versions": {"numpy": "2.0"}, "fastnn": about, "python_version": "3.11.7"}
    return {"benchmarks": turns, "machine_info": machine, "datetime": "2026-01-02T03:04:05"}


needs_checkout = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not in this tree")


def rows_of(lines):
    """The cells of Markdown's tables."""
    rows = [line for line in lines if line.startswith("|") and "---" not in line]
    return [[text.strip() for text in row.strip("|").split("|")] for row in rows]


@needs_checkout
def test_the_table_of_the_readme_has_the_worst_cell_first(tmp_path, monkeypatch):
    (tmp_path / "results.json").write_text(json.dumps(results()))
    table, file = load_table(), tmp_path / "README.md"
    file.write_text(f"before\n{table.FIRST_LINE}\n| old |\n{table.LAST_LINE}\nafter\n")
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["table.py", str(tmp_path / "results.json"), "--readme", str(file)])
        table.main()
        lines = file.read_text().splitlines()
        assert lines[:2] == ["before", table.FIRST_LINE]
        assert lines[-2:] == [table.LAST_LINE, "after"]
        assert rows_of(lines) == [
            ["cell", "fastnn", "NumPy", "Theano", "best other / fastnn"],
            ["F: name F", "0.00200", "0.00610", "-", "3.05"],
            ["1: name 1", "0.0100", "0.0600", "0.0500", "5.00"],
        ]
        assert "Some CPU, 2 threads, 2026-01-02, 28 ns from core to core." in " ".join(lines)


@needs_checkout
def test_the_table_of_a_results_file(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    table = load_table()
    (tmp_path / "results.json").write_text(json.dumps(results()))
    chart = tmp_path / "chart.svg"
    monkeypatch.setattr(sys, "argv", ["table.py", str(tmp_path / "results.json"), "--chart", str(chart)])
    table.main()
    lines = capsys.readouterr().out.splitlines()
    last = ["roofline / dense", "best peer / automatic", "core to core, ns"]
    assert rows_of(lines) == [
        ["cell", "dtype", ROOFLINE, DENSE, AUTOMATIC, "NumPy", "Theano", *last],
        ["1: name 1", "float32", "0.0100", "0.0200", "0.0100", "0.0600", "0.0500", "0.50", "5.00", "28"],
        ["cell", "dtype", ROOFLINE, DENSE, AUTOMATIC, "NumPy", *last],
        ["F: name F", "float32", "0.0100", "0.00400", "0.00200", "0.00610", "2.50", "3.05", "-"],
    ]
    text = " ".join(lines[8:])
    for word in ("best", "2026-01-02", "Some CPU", "2 threads", "0.1.0 (avx2)", "numpy 2.0", "Theano 1.0.5", "3.11.7"):
        assert word in text
    assert "<svg" in chart.read_text()[:1000]


@needs_checkout
def test_the_whole_benchmark_runs(tmp_path):
    pytest.importorskip("pytest_benchmark")
    command = [sys.executable, "-m", "pytest", str(BENCHMARKS / "bench_cells.py"), "--benchmark-json=results.json"]
    command += ["--cells", "2", "--dtypes", "float32", "--rounds", "2", "--peers", "NumPy", DENSE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "results.json").read_text())
    names = [DENSE, AUTOMATIC, "NumPy", PEAK] + [HANDOVER] * (threads.handover_seconds() is not None)
    order = [(turn["extra_info"]["round"], turn["extra_info"]["peer"]) for turn in content["benchmarks"]]
    assert order == [(turn, name) for turn in (1, 2) for name in names]
    assert content["machine_info"]["fastnn"]["instruction set"]
    found, _ = load_table().read(content)
    assert set(found["2", "float32"]) - {HANDOVER} == {ROOFLINE, DENSE, AUTOMATIC, "NumPy"}


@needs_checkout
def test_the_report_of_tables_compares_on_common_splits():
    import table_report

    scores = {  # by table, peer and split
        "a": {"LightGBM": {0: 1.0, 1: 3.0}, "RealMLP-TD-S": {0: 2.0}, "fastnn": {0: 1.5, 1: 1.0}},
        "b": {"LightGBM": {0: 1.0, 1: 1.0}, "RealMLP-TD-S": {0: 0.8, 1: 0.8}, "fastnn": {0: 0.4, 1: 0.8}},
    }
    assert table_report.behind(scores, "fastnn") == pytest.approx({"a": 50, "b": -25})
    assert table_report.behind(scores, "LightGBM") == pytest.approx({"a": -50, "b": 25})
    ranks = table_report.mean_ranks(scores, ["LightGBM", "RealMLP-TD-S", "fastnn"])
    assert ranks == {"LightGBM": 2, "RealMLP-TD-S": 2.5, "fastnn": 1.5}
    scores["b"].pop("LightGBM")
    assert table_report.mean_ranks(scores, ["LightGBM", "RealMLP-TD-S", "fastnn"]) == {"RealMLP-TD-S": 2, "fastnn": 1}
    assert table_report.behind(scores, "fastnn")["b"] == pytest.approx(-25)


@needs_checkout
def test_the_benchmark_of_tables_continues(tmp_path):
    pytest.importorskip("pandas")
    command = [sys.executable, str(BENCHMARKS / "bench_tables.py"), "--tables", "diabetes", "--peers", "linear"]
    for n_splits in (1, 2):
        options = ["constant", "--splits", str(n_splits), "--output", "results.json"]
        done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        results = json.loads((tmp_path / "results.json").read_text())["results"]
        assert [(result["split"], result["peer"]) for result in results] == [
            (split, peer) for split in range(n_splits) for peer in ("linear", "constant")
        ]
    linear, constant = rows_of(done.stdout.splitlines())[1][1:]
    assert float(linear.split()[0]) < float(constant.split()[0])  # it learned something
    assert linear.endswith("(2)")


@needs_checkout
def test_what_is_slower_is_measured_again():
    import compare

    ratios = {"1": [1.0], "2": [1.2, 1.05], "4": [1.2, 1.3], "5": [0.5], "D": [1.1], "E": [math.nan, math.nan]}
    calls = []

    def measured(label, rounds):
        calls.append((label, rounds))
        return compare.Pair(2.0, 2.0 * ratios[label].pop(0))

    found = compare.slower(ratios, 1.1, measured)
    assert list(found) == ["4", "E"]
    assert found["4"].ratio == 1.3
    assert calls == [(label, compare.ROUNDS) for label in ratios] + [(label, compare.MORE_ROUNDS) for label in "24E"]


@needs_checkout
def test_two_versions_take_turns(monkeypatch):
    import compare

    turns = []

    class Version:
        def __init__(self, python, label, dtype):
            self.name, self.seconds = python, {"base": [3.0, 2.0], "head": [4.0, 5.0]}[python]

        def turn(self, name):
            turns.append(self.name if name == AUTOMATIC else name)
            return self.seconds.pop(0) if name == AUTOMATIC else 1e-7

        def close(self):
            turns.append("end")

    monkeypatch.setattr(compare, "Version", Version)
    pair, handovers = compare.measure(compare.Pair("base", "head"), "4", "float32", 2)
    assert pair == (2.0, 4.0)
    assert pair.ratio == 2
    assert handovers == [1e-7, 1e-7]
    assert turns == ["base", "head", HANDOVER, "head", "base", HANDOVER, "end", "end"]


@needs_checkout
def test_a_version_serves_turns(monkeypatch, capsys):
    import compare

    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{AUTOMATIC}\nnobody\n"))
    compare.serve("4", "float32")
    seconds, unknown = map(float, capsys.readouterr().out.split())
    assert seconds > 0
    assert np.isnan(unknown)
