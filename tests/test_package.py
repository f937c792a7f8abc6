"""The package as a whole: what is imported, what is stated once, and what the documentation promises."""

import doctest
import importlib
import importlib.metadata
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastnn


def test_the_version_is_stated_once():
    assert importlib.metadata.version("fastnn") == fastnn.__version__


def test_importing_does_not_load_heavy_parts(tmp_path):
    script = """
import sys, numpy, scipy.linalg
before = set(sys.modules)
import fastnn
heavy = {"matplotlib", "sklearn", "PIL", "tqdm", "safetensors", "scipy.sparse", "scipy.optimize", "pandas", "torch"}
print(sorted(heavy & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_importing_the_sources_uncompiled_says_what_to_do(tmp_path):
    package = Path(fastnn.__file__).parent
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "data")
    shutil.copytree(package, tmp_path / "fastnn", ignore=ignored)
    done = subprocess.run([sys.executable, "-c", "import fastnn"], capture_output=True, text=True, cwd=tmp_path)
    assert "this is the source folder, not the installed package" in done.stderr.splitlines()[-1]


def test_everything_public_exists_and_is_documented():
    for name in fastnn.__all__:
        assert getattr(fastnn, name).__doc__, name


MODULES = [
    info.name
    for info in pkgutil.walk_packages(fastnn.__path__, "fastnn.")
    if info.name != "fastnn.__main__" and not info.name.startswith("fastnn.kernels.")
]


@pytest.mark.parametrize("name", ["fastnn", *MODULES])
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
