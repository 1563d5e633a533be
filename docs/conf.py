"""Configuration of Sphinx: ``sphinx-build -W docs docs/_build``."""

import shutil
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode, math_block
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import cm_lightning

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "cm_lightning"
author = "the authors of cm_lightning"
copyright = "the authors of cm_lightning, Apache-2.0"
version = release = cm_lightning.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "_build",
    "gallery",
    "measurements/results/*/tables/*",
    "measurements/results/raters/**",
]
templates_path = ["_templates"]

myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autosummary_generate = True
autosummary_ignore_module_all = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": "plot_",
    "download_all_examples": False,
    "within_subsection_order": "FileNameSortKey",
    "remove_config_comments": True,
    "min_reported_time": 3600,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "image_scrapers": ("matplotlib",),
    "reset_modules": ("matplotlib",),
}
suppress_warnings = ["config.cache"]
html_math_renderer = "mathml"

html_theme = "pydata_sphinx_theme"
html_title = "cm_lightning"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


# Tables of measurements that consist of a table only, and their titles in the documentation.
UNTITLED = {
    "confmap": "Time and memory of confmap",
    "gpu": "Solver on the GPU",
    "solver": "Solver on the CPU: all measurements",
    "solver_in_use": "Solver in use",
}


def copy_measurements() -> None:
    """Copy the measured tables and figures into the sources, so that the links between them work."""
    target = DOCS / "measurements" / "results"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "benchmarks" / "results", target, ignore=shutil.ignore_patterns("*.svg", "*.tex", "*.csv"))
    for name, title in UNTITLED.items():
        page = target / f"{name}.md"
        page.write_text(f"# {title}\n\n{page.read_text()}")


copy_measurements()


# Links of the sources, which work in the repository, and the pages of the documentation that they mean.
LINKS = {
    "](../../benchmarks/results/": "](/measurements/results/",
    "](../benchmarks/results/": "](/measurements/results/",
    "](benchmarks/results/": "](/measurements/results/",
    "](../../configs/README.md": "](/reference/configurations.md",
    "](../configs/README.md": "](/reference/configurations.md",
    "](configs/README.md": "](/reference/configurations.md",
    "](../CONTRIBUTING.md": "](/contributing.md",
    "](CONTRIBUTING.md": "](/contributing.md",
    "](../../CONTRIBUTING.md": "](/contributing.md",
    "](../CHANGELOG.md": "](/changelog.md",
    "](../docs/": "](/",
    "](docs/": "](/",
}


def replace_links(_app: Sphinx, _docname: str, source: list[str]) -> None:
    """Replace links to files of the repository by links to pages."""
    for link, page in LINKS.items():
        source[0] = source[0].replace(link, page)


def write_math(writer: HTML5Translator, node: Any) -> None:
    """Write a formula as MathML, which browsers draw without a script from the network."""
    block = isinstance(node, math_block)
    formula = tex2mathml(node.astext(), as_block=block)
    writer.body.append(f'<div class="formula">{formula}</div>' if block else formula)
    raise SkipNode


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))  # type: ignore[arg-type]
    app.connect("source-read", replace_links)
    app.connect("include-read", lambda app, _path, docname, source: replace_links(app, docname, source))
