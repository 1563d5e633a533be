"""One self-contained page, and its tables and figures as files, from any set of finished runs."""

import argparse
import base64
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.evaluation.comparison import participant_values
from cm_lightning.evaluation.pooling import pool_folds
from cm_lightning.evaluation.published import baseline_of
from cm_lightning.evaluation.tables import (
    ReportTable,
    class_table,
    comparison_table,
    overview_table,
    problem_table,
    published_table,
)
from cm_lightning.metrics import METRICS

COMPARED = ("dice", "hd", "asd", "islands")
DRAWN = ("dice", "hd", "asd")
VERSIONS = ("cm_lightning", "torch", "monai", "pytorch-lightning", "numpy", "scipy")

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body {font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222}
table {border-collapse: collapse; margin: 1rem 0; font-size: 13px; display: block; overflow-x: auto}
th, td {padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap}
th:first-child, td:first-child {text-align: left} th {border-bottom: 2px solid #888}
p.note {color: #555; max-width: 55rem} img {max-width: 100%} code {background: #f4f4f4; padding: 0 .2rem}
</style></head><body>
<h1>{{ title }}</h1>
<p class="note">{{ about }}</p>
{% for table in tables %}<h2>{{ table.title }}</h2><p class="note">{{ table.note }}</p>
{{ table.to_html() | safe }}
{% endfor %}{% for name, image in figures %}<h2>{{ name }}</h2>
<img alt="{{ name }}" src="data:image/png;base64,{{ image }}">
{% endfor %}<h2>To do it again</h2><p class="note">{{ again }}</p>
{% for name, config in configs %}<details><summary><code>{{ name }}</code></summary><pre>{{ config }}</pre></details>
{% endfor %}</body></html>
"""


def report(words: Sequence[str]) -> None:
    """Write a report.

    Args:
        words: Command line after ``report``.

    Raises:
        InputError: None of the runs can be read.
    """
    parser = argparse.ArgumentParser(
        prog="cm_lightning report",
        description="Write one page, with its tables and figures as files beside it, from the folders of experiments.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of experiments, or folders that hold such.")
    parser.add_argument("--output", type=Path, default=Path("report"), help="Folder to write to.")
    parser.add_argument("--baseline", help="Experiment that all others are compared with; by default the study's.")
    options = parser.parse_args(list(words))
    page = write_report(options.runs, options.output, options.baseline)
    print(f"Wrote {page}.")


def write_report(runs: Sequence[Path], output: Path, baseline: str | None = None) -> Path:
    """Write a report from stored rows.

    Args:
        runs: Folders of experiments, or folders that hold such.
        output: Folder to write to.
        baseline: Experiment that all others are compared with; by default each network's of the study, and for other
            names the first experiment.

    Returns:
        The page.

    Raises:
        InputError: None of the runs can be read, or the baseline is not one of them.
    """
    rows, problems = load_rows(runs)
    models = list(dict.fromkeys(rows["model"]))
    baselines = choose_baselines(models, baseline)
    tables = [
        problem_table(problems),
        overview_table(rows, baselines),
        published_table(rows),
        class_table(rows),
        *(comparison_table(rows, metric, baselines) for metric in COMPARED),
    ]
    present = [table for table in tables if table is not None]
    output.mkdir(parents=True, exist_ok=True)
    rows.to_csv(output / "rows.csv", index=False)
    write_tables(present, output / "tables")
    figures = []
    for metric in DRAWN:
        figure = box_plot(rows, metric)
        (output / "figures").mkdir(exist_ok=True)
        figure.savefig(output / "figures" / f"{metric}.svg")
        figure.savefig(output / "figures" / f"{metric}.png", dpi=130)
        picture = (output / "figures" / f"{metric}.png").read_bytes()
        figures.append((METRICS[metric].title, base64.b64encode(picture).decode()))
    title = f"{len(models)} models over {rows['patient'].nunique()} {rows['grouping'].iloc[0].split(' (')[0]}s"
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    again = f"Made from the rows in rows.csv with {versions}, Python {platform.python_version()}."
    about = (
        f"Grouped by {rows['grouping'].iloc[0]}; {rows['case'].nunique()} cases, distances in {rows['unit'].iloc[0]}."
    )
    page = (
        jinja2.Environment(autoescape=True)
        .from_string(PAGE)
        .render(title=title, about=about, tables=present, figures=figures, again=again, configs=_configs(runs, models))
    )
    markdown = [f"# {title}\n\n{about}\n", *(table.to_markdown() for table in present)]
    markdown += [f"## {METRICS[m].title}\n\n![{METRICS[m].title}](figures/{m}.png)\n" for m in DRAWN]
    (output / "report.md").write_text("\n".join([*markdown, f"{again}\n"]))
    (output / "report.html").write_text(page)
    return output / "report.html"


def load_rows(runs: Sequence[Path]) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Pool the folds of every experiment, and go on where one cannot be read.

    Args:
        runs: Folders of experiments, or folders that hold such.

    Returns:
        Long table of all that could be read; folder and reason of what could not.

    Raises:
        InputError: Nothing could be read, or the experiments measure in different units or groups.
    """
    tables, problems = [], []
    for experiment in find_experiments(runs):
        try:
            tables.append(pool_folds(experiment))
        except (InputError, MissingInputError) as error:
            problems.append((str(experiment), str(error)))
    if not tables:
        reasons = "\n".join(f"{folder}: {reason}" for folder, reason in problems)
        raise InputError(f"None of the runs can be reported:\n{reasons}")
    rows = pd.concat(tables, ignore_index=True)
    for column in ("unit", "grouping"):
        if rows[column].nunique() > 1:
            found = rows.groupby(column)["model"].first().to_dict()
            raise InputError(f"The runs do not share one {column}: {found}. Report them apart.")
    return rows, problems


def find_experiments(runs: Sequence[Path]) -> list[Path]:
    """Find the folders that hold folds: those given, or those one level below them."""
    found: list[Path] = []
    for run in runs:
        if any(run.glob("fold*/")):
            found.append(run)
        else:
            below = sorted(folder for folder in run.glob("*/") if any(folder.glob("fold*/")))
            found += below or [run]
    return list(dict.fromkeys(found))


def choose_baselines(models: Sequence[str], baseline: str | None) -> dict[str, str]:
    """Say which model is compared with which.

    Args:
        models: All models.
        baseline: One for all, or None.

    Returns:
        Model to baseline.

    Raises:
        InputError: There is no such baseline.
    """
    if baseline is not None:
        if baseline not in models:
            raise InputError(f"The baseline {baseline} is not among the runs: {', '.join(models)}.")
        return {model: baseline for model in models if model != baseline}
    of_the_study = {model: name for model in models if (name := baseline_of(model)) in models and name is not None}
    return of_the_study or dict.fromkeys(models[1:], models[0])


def write_tables(tables: Sequence[ReportTable], folder: Path) -> None:
    """Write every table as Markdown, LaTeX and CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        (folder / f"{table.name}.md").write_text(table.to_markdown())
        (folder / f"{table.name}.tex").write_text(table.to_latex())
        (folder / f"{table.name}.csv").write_text(table.to_csv())


def box_plot(rows: pd.DataFrame, metric: str) -> Figure:
    """Draw a box a model with a point a participant, as the study's Fig. 3.

    Args:
        rows: Long table of all models.
        metric: Which metric, mean over classes.

    Returns:
        The figure.
    """
    values = participant_values(rows, metric)
    columns = [values[model].dropna().to_numpy() for model in values]
    figure = Figure(figsize=(6.5, 0.9 + 0.42 * len(columns)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(columns))[::-1]
    axes.boxplot(columns, positions=places, orientation="horizontal", widths=0.6, showfliers=False)
    generator = np.random.default_rng(0)
    for place, column in zip(places, columns, strict=True):
        spread = place + generator.uniform(-0.15, 0.15, len(column))
        axes.plot(column, spread, "o", markersize=3.5, alpha=0.6, color="tab:blue")
    axes.set_yticks(places, list(values.columns))
    heading = METRICS[metric].heading(rows["unit"].iloc[0])
    axes.set_xlabel(f"{heading}, mean over classes; a point is a participant")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _configs(runs: Sequence[Path], models: Sequence[str]) -> list[tuple[str, str]]:
    """Settings of the first fold of every model."""
    paths = [experiment / "fold0" / "config.yaml" for experiment in find_experiments(runs) if experiment.name in models]
    return [(path.parent.parent.name, path.read_text()) for path in paths if path.is_file()]
