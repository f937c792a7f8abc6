"""How Sphinx builds the site from the Markdown pages, the docstrings and the examples; see .ci/docs."""

import os
import re
import shutil
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx_gallery.scrapers import figure_rst

import fastnn

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "fastnn"
author = "The fastnn developers"
copyright = author
version = release = fastnn.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = [
    "_build",
    "_templates",
    "generated/examples",
    "gallery/*.ipynb",
    "gallery/*.py",
    "**/sg_execution_times.*",
]
suppress_warnings = ["config.cache"]  # a setting of the gallery is a function
templates_path = ["_templates"]
default_role = "py:obj"
highlight_language = "none"  # indented blocks are commands

html_theme = "pydata_sphinx_theme"
html_math_renderer = "mathml"  # formulas need no script from elsewhere
html_title = f"fastnn {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "fastnn"},
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}
html_sidebars = {page: [] for page in ("index", "benchmarks")}  # they have no pages below them

# The types stand in the docstrings.
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autosummary_generate = True
autosummary_filename_map = {"fastnn.symbolic.Function": "fastnn.symbolic.Function-class"}  # where case does not count
numpydoc_show_class_members = False  # the templates list them
numpydoc_validation_checks = {"GL03", "GL05", "GL06", "GL07", "GL08", "PR10", "SA02", "SS01", "YD01"}

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Notebooks with outputs of their own are not run: the tests compare these outputs with new ones.
nb_execution_mode = "cache"
nb_execution_excludepatterns = ["generated/*"]
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

#: Examples of some seconds, which each build of the site runs; ".ci/docs all" runs the others too.
QUICK = ("softmax_regression", "tables", "train_mnist")


def pictures(block, variables, configuration):
    """Move the pictures that an example has written to where the gallery shows them, and return how."""
    paths = []
    for picture in sorted((DOCS / "generated" / "examples").glob("*.png")):
        paths.append(next(variables["image_path_iterator"]))
        shutil.move(picture, paths[-1])
    return figure_rst(paths, configuration["src_dir"])


ENVIRONMENT = dict(os.environ)


def restore_environment(configuration, example):
    """Undo what the example before has done to the environment: Dask limits the threads of what follows."""
    os.environ.clear()
    os.environ.update(ENVIRONMENT)


sphinx_gallery_conf = {
    "examples_dirs": "generated/examples",
    "gallery_dirs": "gallery",
    "filename_pattern": rf"/({'|'.join(QUICK)})\.py$",
    "image_scrapers": (pictures,),
    "reset_modules": (restore_environment,),
    "within_subsection_order": "ExampleTitleSortKey",
    "default_thumb_file": str(DOCS / "_static" / "logo.svg"),
    "thumbnail_size": (320, 224),
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
}


def copy_examples():
    """Copy the examples, with titles, to where the gallery runs them: they may write files beside themselves."""
    target = DOCS / "generated" / "examples"
    target.mkdir(parents=True, exist_ok=True)
    for path in (ROOT / "examples").glob("*.py"):
        quotes, text = (source := path.read_text(encoding="utf-8"))[:3], source[3:]
        title = re.match(r".+?(?=[:,.]\s)", text)[0]
        (target / path.name).write_text(f"{quotes}{title}\n{'=' * len(title)}\n\n{text}", encoding="utf-8")
    shutil.copy2(ROOT / "examples" / "README.rst", target)
    shutil.copy2(ROOT / "examples" / "notation.ipynb", target.parent)


#: Where files outside of this folder, to which pages link for readers on a code host, are on the site.
PAGES = {
    r"(CONTRIBUTING|CHANGELOG|RELEASING|SECURITY)\.md": lambda found: f"/{found[1].lower()}.md",
    r"examples/(\w+)\.py": r"/gallery/\1.rst",
    r"examples/(\w+)\.ipynb": r"/generated/\1.ipynb",
}


def resolve_links(app, docname, source):
    """Let links to files outside of this folder lead to their pages of the site."""
    for path, page in PAGES.items():
        source[0] = re.sub(rf"(?<=\]\()(?:\.\./)+{path}", page, source[0])


def escape_attributes(app, what, name, object, options, lines):
    """Take the underscore at the end of scikit-learn's attributes as such, not as a link."""
    for i, line in enumerate(lines):
        lines[i] = re.sub(r"(`.*?`+)|(?<=\w)_(?=\W|$)", lambda found: found[1] or r"\_", line)


#: Methods and properties for other modules of fastnn.
INTERNAL = {
    *(
        "assemble",
        "check_data",
        "check_parameters",
        "description",
        "engine",
        "facts",
        "read_only",
        "slots",
    ),  # of Network
    *("takes_sparse", "interrupt", "record", "note", "take_back"),  # of Network, History and Fit
}


def skip_member(app, what, name, object, skip, options):
    """Leave out what is internal, and what estimators inherit from scikit-learn."""
    inherited = (getattr(object, "__module__", None) or "").startswith("sklearn.")
    return True if inherited or name in INTERNAL else None


def write_formula(display):
    """Return the function that writes a formula as MathML."""

    def visit(translator, node):
        translator.body.append(convert(node.astext(), display=display))
        raise nodes.SkipNode

    return visit


def setup(app):
    """Connect the functions above."""
    copy_examples()
    app.add_html_math_renderer("mathml", (write_formula("inline"), None), (write_formula("block"), None))
    app.connect("source-read", resolve_links)
    app.connect("autodoc-process-docstring", escape_attributes, priority=900)  # after numpydoc
    app.connect("autodoc-skip-member", skip_member)
