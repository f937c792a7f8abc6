"""The benchmark: that it compares like with like and prints what it found; nothing here depends on speed."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastnn import benchmark, cli
from fastnn.benchmark import peers, timing
from fastnn.benchmark.cells import CELLS, Cell
from fastnn.benchmark.peers import AUTOMATIC, DENSE, PACKAGES, PEERS
from fastnn.benchmark.timing import PEAK, ROOFLINE, Contest, Summary

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Cells, products and pauses that take no time."""
    for number, cell in CELLS.items():
        rows = min(cell.rows, 330)
        monkeypatch.setitem(CELLS, number, cell._replace(rows=rows, batch_size=min(cell.batch_size, rows)))
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    monkeypatch.setattr(timing, "PEAK_SIZE", 50)


def own(*names):
    return {name: PEERS[name] for name in (DENSE, AUTOMATIC, "NumPy", *names)}


def test_the_operations_of_a_cell():
    cell = Cell(2, "", (784, 20, 10), 5_000, 5_000)
    assert cell.flops == 5_000 * (4 * 784 * 20 + 6 * 20 * 10)
    assert Cell(1, "", (784, 10), 3, 3).flops == 3 * 4 * 784 * 10


@pytest.mark.filterwarnings("default")  # what a peer warns of is its own affair
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("number", CELLS)
def test_all_peers_do_the_same_steps(number, name, dtype):
    pytest.importorskip(PACKAGES.get(name, "numpy"))
    contest = Contest(CELLS[number], dtype, {AUTOMATIC: PEERS[AUTOMATIC], name: PEERS[name]})
    assert contest.wrong == {}
    if (number, name) == (1, "scikit-learn"):
        assert contest.left_out == {name: "MLPClassifier needs a hidden layer"}
    else:
        assert contest.left_out == {}
    contest.close()


def test_a_peer_that_does_something_else_gets_no_turn():
    def prepare(cell, X, y):
        epoch = PEERS["NumPy"](cell, X, y)
        first = epoch()
        return lambda: first  # right once

    contest = Contest(CELLS[2], "float64", {"lazy": prepare, **own()})
    assert "its log-likelihoods are" in contest.wrong["lazy"]
    contest.run(deadline=0.0, seconds=0.0)
    assert {name: len(times) for name, times in contest.seconds.items()} == {
        DENSE: 1,
        AUTOMATIC: 1,
        "NumPy": 1,
        PEAK: timing.PEAK_CALLS,
    }
    assert set(contest.summaries()) == {ROOFLINE, DENSE, AUTOMATIC, "NumPy"}


def test_a_turn_has_as_many_epochs_as_fit():
    contest = Contest(CELLS[2], "float32", own())
    contest.seconds["NumPy"] = [0.011, 0.01]
    contest._estimates["NumPy"] = 0.5
    assert contest.calls_a_turn("NumPy", 0.3) == 30
    assert contest.calls_a_turn("NumPy", 0.001) == 1


def test_ratios():
    results = {
        ROOFLINE: Summary(1.0, 9.0),
        DENSE: Summary(2.0, 9.0),
        AUTOMATIC: Summary(1.5, 9.0),
        "a": Summary(6.0, 9.0),
        "b": Summary(4.5, 9.0),
    }
    assert benchmark.ratios(results) == (0.5, 3.0)
    assert benchmark.ratios({name: results[name] for name in (ROOFLINE, DENSE, AUTOMATIC)}) == (0.5, None)


def test_the_command_prints_a_row_a_cell(capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "PEERS", own("scikit-learn"))
    assert cli.main(["benchmark", "--seconds", "0.1", "--dtype", "float64"]) == 0
    out = capsys.readouterr().out
    assert "float64" in out.splitlines()[0]
    head, *rows = re.search(r"^cell .*\n(?: .*\n)*", out, re.M).group().splitlines()
    assert re.split(r" {2,}", head) == [
        *("cell", "roofline", DENSE, AUTOMATIC, "NumPy", "scikit-learn"),
        *("roofline / dense", "best peer / fastnn"),
    ]
    assert [row.split()[0] for row in rows] == ["1", "2", "4", "5"]
    for row in rows:
        assert len(row) == len(head)  # aligned
        _, roofline, dense, automatic, numpy, sklearn, against_roofline, against_peers = row.split()
        assert (sklearn == "-") == row.startswith("   1")
        best = min(float(numpy), float(sklearn)) if sklearn != "-" else float(numpy)
        # The figures are rounded to 0.00001 s, and such a cell takes little more.
        if min(float(dense), float(automatic), float(roofline)) > 1e-4:
            np.testing.assert_allclose(float(against_roofline), float(roofline) / float(dense), rtol=0.1, atol=0.01)
            np.testing.assert_allclose(float(against_peers), best / float(automatic), rtol=0.1, atol=0.01)
    assert "scikit-learn is left out of cell 1: MLPClassifier needs a hidden layer" in out
    assert "not installed" not in out


def test_a_missing_peer_is_named_with_its_remedy(capsys, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    benchmark.run(seconds=0.1, cells=(2,))
    out = capsys.readouterr().out
    for name, package in PACKAGES.items():
        assert f'{name} is left out: {package} is not installed (pip install "fastnn[benchmark]")' in out
    assert re.search(r"^cell .* NumPy  roofline / dense", out, re.M)


def load_table():
    spec = importlib.util.spec_from_file_location("fastnn_benchmark_table", BENCHMARKS / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def results():
    """A file of the benchmark with made-up times: cell 1 with three peers, cell 2 with two, in two rounds."""
    peak = timing.PEAK_FLOPS / 100e9  # 100 GFLOP/s
    seconds = {
        1: {PEAK: peak, DENSE: 0.02, AUTOMATIC: 0.01, "NumPy": 0.06, "Theano": 0.05},
        2: {PEAK: peak, DENSE: 0.004, AUTOMATIC: 0.002, "NumPy": 0.0061},
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


@needs_checkout
def test_the_table_of_a_results_file(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    table = load_table()
    (tmp_path / "results.json").write_text(json.dumps(results()))
    chart = tmp_path / "chart.svg"
    monkeypatch.setattr(sys, "argv", ["table.py", str(tmp_path / "results.json"), "--chart", str(chart)])
    table.main()
    lines = capsys.readouterr().out.splitlines()
    assert [[text.strip() for text in line.strip("|").split("|")] for line in lines[:4] if "---" not in line] == [
        ["cell", "dtype", ROOFLINE, DENSE, AUTOMATIC, "NumPy", "Theano", "roofline / dense", "best peer / automatic"],
        ["1: name 1", "float32", "0.0100", "0.0200", "0.0100", "0.0600", "0.0500", "0.50", "5.00"],
        ["2: name 2", "float32", "0.0100", "0.00400", "0.00200", "0.00610", "-", "2.50", "3.05"],
    ]
    text = " ".join(lines[4:])
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
    order = [(turn["extra_info"]["round"], turn["extra_info"]["peer"]) for turn in content["benchmarks"]]
    assert order == [(turn, name) for turn in (1, 2) for name in (DENSE, AUTOMATIC, "NumPy", PEAK)]
    assert content["machine_info"]["fastnn"]["instruction set"]
    found, _ = load_table().summarize(content)
    assert set(found[2, "float32"]) == {ROOFLINE, DENSE, AUTOMATIC, "NumPy"}
