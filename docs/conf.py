"""Configuration of Sphinx: ``sphinx-build -W docs docs/_build``."""

import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from sphinx.application import Sphinx  # noqa: E402

import cm_lightning  # noqa: E402

project = "cm_lightning"
author = "the authors of cm_lightning"
copyright = "the authors of cm_lightning, Apache-2.0"  # noqa: A001
version = release = cm_lightning.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "_build",
    "gallery",
    "measurements/results/*/tables/*",
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
    "remove_config_comments": True,
    "min_reported_time": 3600,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "image_scrapers": ("matplotlib",),
    "reset_modules": ("matplotlib",),
}
suppress_warnings = ["config.cache"]

html_theme = "pydata_sphinx_theme"
html_title = "cm_lightning"
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


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("source-read", replace_links)
    app.connect("include-read", lambda app, _path, docname, source: replace_links(app, docname, source))
