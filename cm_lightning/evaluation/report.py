"""One self-contained page, and its tables and figures as files, from any set of finished runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from cm_lightning.drawing import reliability_plot
from cm_lightning.errors import InputError
from cm_lightning.evaluation.comparison import Comparison, participant_values
from cm_lightning.evaluation.figures import box_plot, critical_difference_plot, level_plot
from cm_lightning.evaluation.levels import participant_errors, regions
from cm_lightning.evaluation.page import Page
from cm_lightning.evaluation.published import baseline_of
from cm_lightning.evaluation.runs import Runs, load_runs
from cm_lightning.evaluation.tables import (
    ReportTable,
    calibration_table,
    claims_table,
    class_table,
    comparison_table,
    level_table,
    overview_table,
    problem_table,
    published_table,
    settings_table,
    supplement_table,
)
from cm_lightning.metrics import METRICS
from cm_lightning.runs import versions

COMPARED = ("dice", "hd", "asd", "islands")
DRAWN = ("dice", "hd", "asd")
RANKED = ("dice", "hd")


def write_report(
    runs: Sequence[Path], output: Path, baseline: str | None = None, compare: Sequence[str] | None = None
) -> Path:
    """Write a report from stored rows.

    Args:
        runs: Folders of experiments, or folders that hold such.
        output: Folder to write to.
        baseline: Model that all others are compared with; by default each network's of the study, and for other names
            the first.
        compare: In its place, the planned comparisons, each "model=baseline".

    Returns:
        The page.

    Raises:
        InputError: None of the runs can be read, or a model to compare is not one of them.
    """
    found = load_runs(runs)
    rows = found.rows
    tables = make_tables(found, choose_comparisons(found.models, baseline, compare))
    output.mkdir(parents=True, exist_ok=True)
    rows.to_csv(output / "rows.csv", index=False)
    found.levels.to_csv(output / "levels.csv", index=False)
    found.calibration.to_csv(output / "calibration.csv", index=False)
    grouping, unit = rows["grouping"].iloc[0], rows["unit"].iloc[0]
    tested = "; ".join(
        f"{number} folds with {what or 'unknown versions'}" for what, number in found.made_with().items()
    )
    page = Page(
        title=f"{len(found.models)} models over {rows['patient'].nunique()} {grouping.split(' (')[0]}s",
        about=f"Grouped by {grouping}; {rows['case'].nunique()} cases, {rows['seed'].nunique()} seed(s), distances in "
        f"{unit}.",
        tables=tables,
        figures=draw_figures(found),
        again=f"Tested: {tested}. Made from rows.csv, levels.csv and calibration.csv with "
        f"{', '.join(f'{name} {number}' for name, number in versions().items())}.",
        worst=[(model, worst_pictures(found, model)) for model in found.folders],
        configs=_configs(found),
    )
    return page.write(output)


def make_tables(runs: Runs, comparisons: Sequence[Comparison]) -> list[ReportTable]:
    """Make all tables that the runs have the numbers for.

    Args:
        runs: What was read.
        comparisons: Those that were planned.

    Returns:
        Tables in the order of the page.
    """
    rows, levels, unit = runs.rows, runs.levels, runs.rows["unit"].iloc[0]
    compared = [(name, METRICS[name].heading(unit), participant_values(rows, name)) for name in COMPARED]
    if len(levels):
        for name, (title, within) in regions(levels).items():
            compared.append((f"error_{name}", f"error where {title}", participant_errors(levels, within)))
    tables = [
        problem_table(runs.problems),
        overview_table(rows, comparisons),
        published_table(rows),
        supplement_table(rows),
        claims_table(runs),
        class_table(rows),
        *(comparison_table(name, title, values, comparisons) for name, title, values in compared),
        level_table(levels, "confidence"),
        level_table(levels, "depth"),
        calibration_table(runs.calibration),
        settings_table(runs),
    ]
    return [table for table in tables if table is not None]


def draw_figures(runs: Runs) -> Iterator[tuple[str, str, Figure]]:
    """Draw all figures that the runs have the numbers for.

    Args:
        runs: What was read.

    Yields:
        A name for its file, a heading and the figure.
    """
    for metric in DRAWN:
        yield metric, METRICS[metric].title, box_plot(runs.rows, metric)
    if len(runs.levels):
        yield "error_by_level", "Where the models are wrong", level_plot(runs.levels)
    if len(runs.calibration):
        yield "reliability", "Reliability: what probabilities are worth", reliability_plot(runs.calibration)
    for metric in RANKED:
        diagram = critical_difference_plot(runs.rows[runs.rows["postprocessing"] == "none"], metric)
        if diagram is not None:
            yield f"ranks_{metric}", f"Critical differences, {METRICS[metric].title}", diagram


def worst_pictures(runs: Runs, model: str, number: int = 3) -> list[Path]:
    """Find pictures of a model's worst cases of all folds and seeds.

    Args:
        runs: What was read.
        model: Which model.
        number: How many, at most.

    Returns:
        PNG files, the worst case first; its Dice is the mean of the classes that it has or was given.
    """
    rows = runs.rows[(runs.rows["model"] == model) & (runs.rows["metric"] == "dice")]
    dice = rows.groupby(["seed", "fold", "case"])["value"].mean().sort_values()
    experiments = {experiment.seed: experiment for experiment in runs.folders[model]}
    pictures: dict[str, Path] = {}
    for seed, fold, case in dice.index:
        path = experiments[seed].fold(fold).test_picture(case)
        if case not in pictures and path.is_file():
            pictures[case] = path
    return list(pictures.values())[:number]


def choose_comparisons(
    models: Sequence[str], baseline: str | None = None, compare: Sequence[str] | None = None
) -> list[Comparison]:
    """Say which model is compared with which.

    Args:
        models: All models. Those after post-processing are compared only where ``compare`` names them.
        baseline: One for all, or None.
        compare: In its place, "model=baseline" for every comparison.

    Returns:
        The planned comparisons.

    Raises:
        InputError: There is no such model.
    """
    plain = [model for model in models if " + " not in model]
    if compare is not None:
        chosen = [Comparison(*(name.strip() for name in pair.partition("=")[::2])) for pair in compare]
    elif baseline is not None:
        chosen = [Comparison(model, baseline) for model in plain if model != baseline]
    else:
        of_the_study = [(model, baseline_of(model)) for model in plain]
        chosen = [Comparison(model, name) for model, name in of_the_study if name is not None and name in plain]
        chosen = chosen or [Comparison(model, plain[0]) for model in plain[1:]]
    for name in dict.fromkeys(name for pair in chosen for name in pair):
        if name not in models:
            raise InputError(f"There is no model {name!r} to compare among the runs: {', '.join(models)}.")
    return chosen


def _configs(runs: Runs) -> list[tuple[str, str]]:
    """Settings of the first fold of every model."""
    paths = {model: experiments[0].fold(0).config for model, experiments in runs.folders.items()}
    return [(model, path.read_text()) for model, path in paths.items() if path.is_file()]
