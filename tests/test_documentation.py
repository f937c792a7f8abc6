"""What README, CONTRIBUTING and the pages of docs/ promise: code and commands run, and links lead somewhere.

Python stands in blocks of ``python``, or in cells of pages that Sphinx executes; commands of a terminal stand in
indented blocks, or after a ``$`` in blocks of ``console``.  Those of a page run in order, in one empty folder.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import fastnn
from fastnn import cli

ROOT = Path(__file__).parent.parent
BUILT = {"_build", "gallery", "generated"}  # what Sphinx leaves in docs/
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "RELEASING.md", "SECURITY.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if not BUILT & set(page.parts)),
]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

# Blocks of ordinary pages, and cells of those that Sphinx executes, which may begin with options.
CODE = re.compile(r"^```(?:python|\{code-cell\} *\w*)\n((?::[\w-]+:.*\n)*)(.*?)^```$", re.DOTALL | re.MULTILINE)


def modules_of(code):
    """Return the modules of others that a program imports; what it calls theano is ours."""
    nodes = list(ast.walk(ast.parse(code)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names} - {"fastnn", "theano"}


load_mnist = fastnn.datasets.load_mnist


@functools.cache
def read_mnist(dtype):
    return [fastnn.datasets.Dataset(part.X[:300], part.y[:300]) for part in load_mnist(dtype=dtype)]


def load_few(path=None, dtype="float32"):
    """Return MNIST cut to 300 rows a part."""
    return [fastnn.datasets.Dataset(part.X.copy(), part.y.copy()) for part in read_mnist(dtype)]


@each_page
def test_examples_in_the_documentation(page, tmp_path, monkeypatch):
    blocks = [code for _, code in CODE.findall(page.read_text(encoding="utf-8"))]
    for module in sorted(modules_of("\n".join(blocks))):
        pytest.importorskip(module)
    monkeypatch.setattr(fastnn.datasets, "load_mnist", load_few)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in blocks:
        exec(block, names)


#: Commands that are not run here, each with the reason.
ELSEWHERE = {
    "mpiexec": "several processes, or machines: tests/test_ranks.py and its neighbours start them",
    "docker": "starts containers",
    "fastnn benchmark": "takes a minute; tests/test_benchmark.py runs it on few rows",
    "pip": "installs; .ci/run does it, and a test below looks at the extras",
}


def commands_of(page):
    """Return the commands of a page, each as a list of words, without comments."""
    text = page.read_text(encoding="utf-8")
    consoles = re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = re.findall(r"^\$ (.*)$", "\n".join(consoles), re.MULTILINE)
    words = re.sub(r"^```.*?^```$|\A---\n.*?^---$", "", text, flags=re.DOTALL | re.MULTILINE)  # no blocks, no header
    lines += re.findall(r"^ {4}(\S.*)$", words, re.MULTILINE)
    return [shlex.split(command, comments=True) for line in lines for command in line.split(" && ")]


def write_files(folder):
    """Write the tables and images that commands name: 40 homes, which were or will be sold, and five digits."""
    homes = [f"{i},{50 + 7 * i % 90},{'ABCD'[i % 4]},{10000 + i % 3}" for i in range(40)]
    sold = [f"{home},{100 + 7 * i % 90 + i % 4}" for i, home in enumerate(homes)]
    for name, head, rows in (("homes", ",price", sold), ("sold", ",price", sold), ("new", "", homes)):
        (folder / f"{name}.csv").write_text("\n".join([f"id,size,kind,zip{head}", *rows]))
    np.save(folder / "images.npy", load_few()[2].X[:5])


def check_program(words):
    """Check that a program of the checkout, or a module, exists, and knows the options that it is given."""
    if words[0] == "-c":
        exec(words[1], {})
        return
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]), words
        return
    path = ROOT / words[0]
    if path.parts[-2] == ".ci" and not path.parent.exists():
        pytest.skip("an sdist has no .ci")
    options = [word for word in words[1:] if word.startswith("--")]
    source = path.read_text(encoding="utf-8") + "".join(file.read_text() for file in path.parent.glob("conftest.py"))
    assert [option for option in options if f'"{option}"' not in source] == []


@each_page
def test_commands_in_the_documentation(page, tmp_path, monkeypatch, capfd):
    commands = commands_of(page)
    if any(words[0].endswith("fastnn") for words in commands):
        write_files(tmp_path)
    if any("homes.csv" in words for words in commands):
        pytest.importorskip("narwhals")
    monkeypatch.setattr(cli, "load_mnist", load_few)
    monkeypatch.chdir(tmp_path)
    for words in commands:
        program, *arguments = [words[0].removeprefix(".venv/bin/"), *words[1:]]
        if program in ELSEWHERE:
            continue
        if program == "fastnn" and f"fastnn {arguments[0]}" in ELSEWHERE:
            cli.build_parser(arguments).parse_args(arguments)
        elif program == "fastnn":
            assert cli.main(arguments) == 0, (words, capfd.readouterr().err)
        elif program == "pytest":
            for path in (word for word in arguments if not word.startswith("-")):
                assert (ROOT / path).exists(), words
        else:
            check_program(arguments if program == "python" else [program, *arguments])


@each_page
def test_extras_in_the_documentation(page):
    text = page.read_text(encoding="utf-8")
    _, _, settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")
    known = re.findall(r"^(\w+) = \[", settings.partition("\n[")[0], re.MULTILINE)
    extras = ",".join(re.findall(r"pip install [^\n]*?\[([\w,]+)\]", text)).split(",")
    assert set(extras) - {""} <= set(known)
    assert not re.search(r"pip install (-\S+ )*\"?fastnn(?!-)", text)  # on PyPI that is another project


@each_page
def test_links_in_the_documentation(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if re.match(r"https?:", path):
            continue  # .ci/docs links follows these
        linked = page.parent / path if path else page
        assert linked.is_file(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles], target


def public_names(module):
    """Return the names of all that a module says is public; if it does not say, of its classes."""
    if hasattr(module, "__all__"):
        return {name for name in module.__all__ if not inspect.ismodule(getattr(module, name))}
    members = inspect.getmembers(module, inspect.isclass)
    return {name for name, kind in members if kind.__module__ == module.__name__ and not name.startswith("_")}


REFERENCE = sorted((ROOT / "docs" / "api").glob("*.rst"))
#: What the reference leaves out: nobody derives from it, or makes one.
INTERNAL = {"Layer", "Graph", "Placed"}


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: page.stem)
def test_everything_public_is_in_the_reference(page):
    text = page.read_text(encoding="utf-8")
    if page.stem in ("inspection", "sklearn", "tabular"):
        pytest.importorskip("sklearn")
        pytest.importorskip("narwhals")
    module = importlib.import_module(re.search(r"currentmodule:: (\S+)", text).group(1))
    listed = set(re.findall(r"^   (\w+)$", text, re.MULTILINE))
    if page.stem != "symbolic":  # whose names have a page of their own
        assert public_names(module) - INTERNAL <= listed
    assert [name for name in listed if not hasattr(module, name)] == []


def test_every_page_is_in_the_table_of_contents():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    trees = re.findall(r"^```{toctree}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    entries = {entry for tree in trees for entry in tree.split()}
    folder = ROOT / "docs"
    names = {page.relative_to(folder).with_suffix("").as_posix() for page in PAGES if folder in page.parents}
    assert names - entries == {"index"}
