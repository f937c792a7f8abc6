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


def test_type_checkers_are_told_of_the_types():
    assert Path(fastnn.__file__).with_name("py.typed").is_file()


def test_importing_does_not_load_heavy_parts(tmp_path):
    script = """
import sys, numpy, scipy.linalg
before = set(sys.modules)
import fastnn
heavy = {"matplotlib", "sklearn", "PIL", "tqdm", "safetensors", "scipy.sparse", "scipy.optimize", "pandas", "torch"}
heavy.add("narwhals")
print(sorted(heavy & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_importing_leaves_scipy_linalg_alone_and_whole(tmp_path):
    script = """
import sys, fastnn
assert not [name for name in sys.modules if name.startswith("scipy.linalg")]
import scipy.linalg
from scipy.linalg import cython_blas
assert scipy.linalg.cython_blas is cython_blas and "dgemm" in cython_blas.__pyx_capi__
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


@pytest.mark.parametrize(
    "obstacle",
    [
        "PathFinder.find_spec = lambda *given: None if first(given[0]) else found(*given)",
        "ExtensionFileLoader.exec_module = lambda self, new: fail() if first(new.__name__) else run(self, new)",
    ],
)
def test_where_the_blas_cannot_be_loaded_alone_the_kernels_import_all_of_scipy_linalg(tmp_path, obstacle):
    script = f"""
import sys
from importlib.machinery import ExtensionFileLoader, PathFinder
found, run = PathFinder.find_spec, ExtensionFileLoader.exec_module
def first(name):
    return name == "scipy.linalg.cython_blas" and "scipy.linalg" not in sys.modules
def fail():
    raise ImportError
{obstacle}
import fastnn
assert "scipy.linalg.cython_blas" in sys.modules
assert fastnn.Network([3, 2]).predict([[1, 2, 3]]) == [0]
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


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
