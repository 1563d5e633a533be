"""A self-contained page of tables and figures, which are also written as separate files."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from cm_lightning.drawing import save_figure
from cm_lightning.evaluation.report_table import ReportTable
from cm_lightning.writing import write_text

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ page.title }}</title><style>
body {font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222}
table {border-collapse: collapse; margin: 1rem 0; font-size: 13px; display: block; overflow-x: auto}
th, td {padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap}
th:first-child, td:first-child {text-align: left} th {border-bottom: 2px solid #888}
p.note {color: #555; max-width: 55rem} img {max-width: 100%} code {background: #f4f4f4; padding: 0 .2rem}
</style></head><body>
<h1>{{ page.title }}</h1>
<p class="note">{{ page.summary }}</p>
{% macro show(figures) %}{% for name, title, image in figures %}<h2>{{ title }}</h2>
<img alt="{{ title }}" src="data:image/png;base64,{{ image }}">
{% endfor %}{% endmacro %}{{ show(first) }}{% for table in page.tables %}<h2>{{ table.title }}</h2>
<p class="note">{{ table.note }}</p>
{{ table.to_html() | safe }}
{% endfor %}{{ show(last) }}{% for model, images in worst if images %}{% if loop.first %}<h2>Worst cases</h2>
<p class="note">The worst cases over all folds and seeds, each in the frame with the most wrong pixels.</p>
{% endif %}<details><summary>{{ model }}</summary>
{% for image in images %}<img alt="one of the worst cases of {{ model }}" src="data:image/png;base64,{{ image }}">
{% endfor %}</details>
{% endfor %}<h2>Reproducibility</h2><p class="note">{{ page.provenance }}</p>
{% for name, config in page.configs %}<details><summary><code>{{ name }}</code></summary>
<pre>{{ config }}</pre></details>
{% endfor %}</body></html>
"""

# File name without suffix, heading and figure.
Drawing = tuple[str, str, Figure]


@dataclass(frozen=True)
class Page:
    """Content of a page.

    Attributes:
        title: Heading.
        summary: Description of the data, in a sentence.
        tables: Tables in order.
        figures: Figures after the tables.
        provenance: Data and software versions from which the page was created.
        first: Figures before the tables.
        worst: Name of each model and the pictures of its worst cases.
        configs: Name of each model and its settings as YAML.
    """

    title: str
    summary: str
    tables: Sequence[ReportTable]
    figures: Iterable[Drawing]
    provenance: str
    first: Iterable[Drawing] = ()
    worst: Sequence[tuple[str, Sequence[Path]]] = ()
    configs: Sequence[tuple[str, str]] = field(default_factory=list)

    def write(self, output: Path) -> Path:
        """Write the page as HTML and Markdown, its tables (Markdown, LaTeX, CSV) and its figures (PNG, SVG).

        Args:
            output: Folder of the page. Tables and figures of an earlier page in this folder are deleted.

        Returns:
            Path of the HTML file.
        """
        for pattern in ("tables/*.md", "tables/*.tex", "tables/*.csv", "figures/*.png", "figures/*.svg"):
            for stale in output.glob(pattern):
                stale.unlink()
        write_tables(self.tables, output / "tables")
        first, last = ([self._draw(drawing, output) for drawing in part] for part in (self.first, self.figures))
        worst = [(model, [_embed(path) for path in paths]) for model, paths in self.worst]
        html = jinja2.Environment(autoescape=True).from_string(PAGE)
        write_text(output / "report.html", html.render(page=self, first=first, last=last, worst=worst))
        before, after = (
            [f"## {title}\n\n![{title}](figures/{name}.png)\n" for name, title, _ in part] for part in (first, last)
        )
        parts = [
            f"# {self.title}\n\n{self.summary}\n",
            *before,
            *(table.to_markdown() for table in self.tables),
            *after,
        ]
        write_text(output / "report.md", "\n".join([*parts, f"{self.provenance}\n"]))
        return output / "report.html"

    def _draw(self, drawing: Drawing, output: Path) -> tuple[str, str, str]:
        name, title, figure = drawing
        save_figure(figure, output / "figures" / f"{name}.png", dpi=130)
        figure.set_layout_engine(None)  # the layout is known, and computing it again takes longer than drawing
        save_figure(figure, output / "figures" / f"{name}.svg")
        return name, title, _embed(output / "figures" / f"{name}.png")


def write_tables(tables: Sequence[ReportTable], folder: Path) -> None:
    """Write each table as Markdown, LaTeX and CSV files."""
    for table in tables:
        write_text(folder / f"{table.name}.md", table.to_markdown())
        write_text(folder / f"{table.name}.tex", table.to_latex())
        write_text(folder / f"{table.name}.csv", table.to_csv())


def _embed(path: Path) -> str:
    """Return an image file as a base64 string for embedding."""
    return base64.b64encode(path.read_bytes()).decode()
