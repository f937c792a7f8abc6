"""What README, CONTRIBUTING and the pages of docs/ promise: their code runs, and their links lead somewhere."""

import ast
import functools
import re
from pathlib import Path

import pytest

import fastnn

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


def load_few(dtype="float32"):
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


def test_every_page_is_in_the_table_of_contents():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    trees = re.findall(r"^```{toctree}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    entries = {entry for tree in trees for entry in tree.split()}
    folder = ROOT / "docs"
    names = {page.relative_to(folder).with_suffix("").as_posix() for page in PAGES if folder in page.parents}
    assert names - entries == {"index"}
