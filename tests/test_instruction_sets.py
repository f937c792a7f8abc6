"""The kernels' other builds: each that this machine can run passes the kernels' tests and the golden runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastnn
from fastnn import kernels

HERE = Path(__file__).parent

OTHERS = [name for name in kernels.AVAILABLE if name != kernels.INSTRUCTION_SET]


def start(code, instruction_set, cwd):
    environment = os.environ | {kernels.VARIABLE: instruction_set}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *code], env=environment, cwd=cwd, stdout=pipe, stderr=pipe, text=True)


def run(code, instruction_set, cwd):
    process = start(code, instruction_set, cwd)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(code, process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def tests_of_others(tmp_path_factory):
    """The kernels' tests and the golden runs of all other builds, side by side."""
    tests = [
        str(HERE / "test_kernels.py"),
        str(HERE / "test_convolution.py"),
        str(HERE / "test_symbolic_images.py"),
        str(HERE / "test_trunk.py"),
        f"{HERE / 'test_golden.py'}::test_golden_run",
    ]
    options = ["-q", "-p", "no:cacheprovider", "-c", str(HERE.parent / "pyproject.toml")]
    code, folder = ["-m", "pytest", *options, *tests], tmp_path_factory.mktemp("others")
    processes = {name: start(code, name, folder) for name in OTHERS}
    yield processes
    for process in processes.values():
        process.kill()


@pytest.mark.parametrize("name", OTHERS)
def test_other_builds(name, tests_of_others, tmp_path):
    chosen = ["-c", "from fastnn import kernels; print(kernels.INSTRUCTION_SET, kernels.epoch.__name__)"]
    folder = "fastnn.kernels.epoch" if name == "baseline" else f"fastnn.kernels.{name}.epoch"
    assert run(chosen, name, tmp_path).stdout.split() == [name, folder]
    stdout, _ = tests_of_others[name].communicate()
    assert tests_of_others[name].returncode == 0, stdout[-3000:]


@pytest.mark.parametrize("name", ["nonsense", *sorted({"baseline", "avx2", "avx512"} - set(kernels.AVAILABLE))])
def test_a_build_that_cannot_be_had_is_refused(name, tmp_path):
    done = run(["-c", "import fastnn"], name, tmp_path)
    assert done.returncode == 1
    available = ", ".join(kernels.AVAILABLE)
    assert f"FASTNN_INSTRUCTION_SET={name} cannot be had here; this machine and build have {available}" in done.stderr


def test_the_best_is_chosen(tmp_path):
    assert run(["-c", "from fastnn import kernels; print(kernels.INSTRUCTION_SET)"], "", tmp_path).stdout.split() == [
        kernels.AVAILABLE[0]
    ]
    assert kernels.AVAILABLE[-1] == "baseline"


def test_show_config_says_what_runs(capsys):
    fastnn.show_config()
    shown = capsys.readouterr().out
    assert f"instruction set: {kernels.INSTRUCTION_SET} (available: {', '.join(kernels.AVAILABLE)})" in shown
    for name in ("OpenMP:", "threads:", "BLAS:", f"fastnn:          {fastnn.__version__}"):
        assert name in shown
