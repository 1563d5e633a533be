"""The report of finished experiments: one self-contained page, and its tables and figures as files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from cm_lightning.drawing import reliability_plot
from cm_lightning.errors import InputError
from cm_lightning.evaluation.comparison import MARGINS, Comparison, Family
from cm_lightning.evaluation.comparison_table import comparison_table
from cm_lightning.evaluation.conventions import convention_table
from cm_lightning.evaluation.figures import box_plot, critical_difference_plot, level_plot
from cm_lightning.evaluation.loading import Runs, load_runs
from cm_lightning.evaluation.page import Page
from cm_lightning.evaluation.published import baseline_of
from cm_lightning.evaluation.report_table import ReportTable
from cm_lightning.evaluation.results import COMPARED_METRICS, PLOTTED_METRICS, RANKED_METRICS, Results
from cm_lightning.evaluation.study_tables import claims_table, published_table, supplement_table
from cm_lightning.evaluation.tables import (
    alignment_table,
    calibration_table,
    class_table,
    level_table,
    overview_table,
    problem_table,
    settings_table,
)
from cm_lightning.metrics import METRICS
from cm_lightning.runs import versions
from cm_lightning.writing import write_table


def write_report(
    runs: Sequence[Path],
    output: Path,
    baseline: str | None = None,
    compare: Sequence[str] | None = None,
    family: Family = "table",
    margins: Mapping[str, float] = MARGINS,
) -> Path:
    """Write the report of finished experiments.

    Args:
        runs: Folders of experiments, or folders that contain folders of experiments.
        output: Folder of the report.
        baseline: Model with which all others are compared. By default each model is compared with the baseline of its
            network in the study, or with the first model if the names are not those of the study.
        compare: Planned comparisons, each "model=baseline", instead of a single baseline.
        family: Comparisons over which Holm's correction is made.
        margins: Largest differences that do not matter, by name of the quantity.

    Returns:
        Path of the page.

    Raises:
        InputError: No experiment can be read, or a model to be compared or a quantity with a margin does not exist.
    """
    finished = load_runs(runs)
    rows = finished.rows
    results = Results(finished, choose_comparisons(finished.models, baseline, compare), family, margins)
    check_margins(margins, results)
    tables = make_tables(results)
    for name, table in (
        ("rows", rows),
        ("values", results.values),
        ("levels", finished.levels),
        ("calibration", finished.calibration),
    ):
        write_table(output / f"{name}.csv", table)
    grouping, unit = rows["grouping"].iloc[0], rows["unit"].iloc[0]
    tested = "; ".join(
        f"{number} folds with {packages or 'unknown versions'}" for packages, number in finished.versions().items()
    )
    page = Page(
        title=f"{len(finished.models)} models, {rows['patient'].nunique()} {grouping.split(' (')[0]}s",
        summary=f"Grouped by {grouping}; {rows['case'].nunique()} cases, {rows['seed'].nunique()} seed(s), "
        f"distances in {unit}. All compared values are in values.csv, by fold, seed and participant.",
        tables=tables,
        figures=draw_figures(results),
        provenance=f"Tested: {tested}. Report from rows.csv, levels.csv and calibration.csv with "
        f"{', '.join(f'{name} {number}' for name, number in versions().items())}.",
        worst=[(model, worst_pictures(finished, model)) for model in finished.folders],
        configs=_configs(finished),
    )
    return page.write(output)


def make_tables(results: Results) -> list[ReportTable]:
    """Create all tables for which there are values.

    Args:
        results: Values of the report.

    Returns:
        Tables in the order of the page.
    """
    tables = [
        problem_table(results.runs.problems),
        alignment_table(results.runs.left_out),
        overview_table(results),
        published_table(results),
        supplement_table(results),
        claims_table(results),
        class_table(results),
        *(comparison_table(quantity) for quantity in results.quantities.values()),
        level_table(results, "confidence"),
        level_table(results, "depth"),
        calibration_table(results),
        convention_table(results),
        settings_table(results),
    ]
    return [table for table in tables if table is not None]


def check_margins(margins: Mapping[str, float], results: Results) -> None:
    """Check that margins are positive and that their quantities exist.

    Args:
        margins: Margins by name of the quantity.
        results: Values of the report.

    Raises:
        InputError: There is no such quantity, or a margin is not positive.
    """
    known = [*COMPARED_METRICS, *(f"error_{name}" for name in results.errors)]
    for name, value in margins.items():
        if name not in known:
            raise InputError(f"margin names the quantity {name!r}; expected some of {', '.join(known)}.")
        if not value > 0:
            raise InputError(f"margin of {name} is {value:g}; expected a difference above 0.")


def draw_figures(results: Results) -> Iterator[tuple[str, str, Figure]]:
    """Draw all figures for which there are values.

    Args:
        results: Values of the report.

    Yields:
        File name without suffix, heading and figure.
    """
    for name in PLOTTED_METRICS:
        metric = METRICS[name]
        yield name, metric.title, box_plot(results.participants[name], metric.heading(results.unit))
    if results.profiles:
        yield "error_by_level", "Error by confidence and by depth", level_plot(results.profiles)
    if len(results.runs.calibration):
        yield "reliability", "Reliability diagrams", reliability_plot(results.runs.calibration)
    for name in RANKED_METRICS:
        metric = METRICS[name]
        heading = metric.heading(results.unit)
        diagram = critical_difference_plot(results.ranked(name), heading, metric.higher_is_better)
        if diagram is not None:
            yield f"ranks_{name}", f"Critical differences, {metric.title}", diagram


def worst_pictures(runs: Runs, model: str, number: int = 3) -> list[Path]:
    """Find the pictures of the worst cases of a model over all folds and seeds.

    Args:
        runs: Results of the experiments.
        model: Name of the model.
        number: Largest number of pictures.

    Returns:
        Paths of PNG files, the worst case first. Cases are sorted by the mean Dice over labelled or predicted classes.
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
    """Determine the planned comparisons.

    Args:
        models: Names of all models. Models after post-processing are only compared if ``compare`` contains them.
        baseline: Baseline of all models; None for the baselines of the study, or the first model.
        compare: Planned comparisons, each "model=baseline", instead of ``baseline``.

    Returns:
        The comparisons.

    Raises:
        InputError: A model does not exist.
    """
    plain = [model for model in models if " + " not in model]
    if compare is not None:
        comparisons = [Comparison(*(name.strip() for name in pair.partition("=")[::2])) for pair in compare]
    elif baseline is not None:
        comparisons = [Comparison(model, baseline) for model in plain if model != baseline]
    else:
        study_pairs = [(model, baseline_of(model)) for model in plain]
        comparisons = [Comparison(model, name) for model, name in study_pairs if name is not None and name in plain]
        comparisons = comparisons or [Comparison(model, plain[0]) for model in plain[1:]]
    for name in dict.fromkeys(name for pair in comparisons for name in pair):
        if name not in models:
            raise InputError(f"There is no model {name!r} to compare; expected one of {', '.join(models)}.")
    return comparisons


def _configs(runs: Runs) -> list[tuple[str, str]]:
    """Read the settings of the first fold of each model."""
    paths = {model: experiments[0].fold(0).config for model, experiments in runs.folders.items()}
    return [(model, path.read_text()) for model, path in paths.items() if path.is_file()]
