"""Tables that compare results with the source study: published values, and a number for each claim."""

from collections.abc import Mapping, Sequence

import pandas as pd

from cm_lightning.evaluation.published import (
    PUBLISHED,
    PUBLISHED_METRICS,
    SUPPLEMENT,
    SUPPLEMENT_METRICS,
    Published,
    setting_of,
)
from cm_lightning.evaluation.report_table import Cell, ReportTable, format_mean_and_sd, format_number
from cm_lightning.evaluation.results import Results
from cm_lightning.metrics import METRICS


def published_table(results: Results) -> ReportTable | None:
    """Create a table of our results and those of Table 1 of the study.

    Args:
        results: Values of the report.

    Returns:
        The table; None if no model is a row of Table 1.
    """
    lines = _published_rows(results, PUBLISHED, PUBLISHED_METRICS)
    if not lines:
        return None
    return ReportTable(
        "published",
        "Comparison with Table 1 of the study",
        "Mean ± SD over folds. Published values are those of the study for muscles.",
        ["model", *_column_headings(PUBLISHED_METRICS)],
        lines,
    )


def supplement_table(results: Results) -> ReportTable | None:
    """Create a table of our results and those of the supplement on alpha and beta.

    Args:
        results: Values of the report.

    Returns:
        The table; None if fewer than two models are rows of the supplement.
    """
    lines = _published_rows(results, SUPPLEMENT, SUPPLEMENT_METRICS)
    if len(lines) < 2:
        return None
    return ReportTable(
        "supplement",
        "Comparison with the supplement of the study: alpha and beta of the maps",
        "Mean ± SD over folds. Model names contain beta and alpha if they are not 100 and 0.5.",
        ["model", *_column_headings(SUPPLEMENT_METRICS)],
        lines,
    )


def claims_table(results: Results) -> ReportTable:
    """Create a table with a number for each claim of the study about segmentation.

    Args:
        results: Values of the report.

    Returns:
        The table: SD of the DSC, number of islands, errors at low confidence, at high confidence and at depth, and
        epochs until convergence.
    """
    dice, islands = results.participants["dice"], results.participants["islands"]
    errors = [error.values for error in results.errors.values()] or [pd.DataFrame()] * 3
    epochs = results.epochs_to_converge
    lines = [
        [
            Cell(model),
            Cell(format_number(dice[model].std())),
            Cell(format_number(islands[model].mean())),
            *(Cell(format_number(table[model].mean()) if model in table else "-") for table in errors),
            Cell(f"{epochs[model]:.1f}" if model in epochs else "-"),
        ]
        for model in results.runs.models
    ]
    return ReportTable(
        "claims",
        "Claims of the study",
        "The study claims that confidence maps reduce the SD of the DSC over participants and the number of islands, "
        "improve deep regions, reduce errors where confidence is high, and do not slow down training. The error is the "
        "fraction of predicted or labelled voxels that are wrong. Confidence is low below 0.3 and high from 0.7; it is "
        "that of the image, also for networks with a control channel. Deep regions contain the deepest 30 % of the "
        "labelled voxels of a participant. Epochs are counted until 95 % of the best validation DSC, mean over folds "
        "and seeds. The claim about the variability of the expert needs repeated labels and is not tested here.",
        [
            "model",
            "SD of DSC",
            "islands",
            "error, low confidence",
            "error, high confidence",
            "error, deep",
            "epochs to 95 %",
        ],
        lines,
    )


def _published_rows(
    results: Results, published: Mapping[str, Mapping[str, Published]], metrics: Sequence[str]
) -> list[list[Cell]]:
    """Create a row for every model with published values."""
    summary = results.summaries["worst"]
    overall = summary[summary["class"] == "mean"]
    by_metric = {(row["model"], row["metric"]): row for row in overall.to_dict("records")}
    lines = []
    for model in results.runs.models:
        published_values = published.get(setting_of(model))
        if published_values is None:
            continue
        line = [Cell(model)]
        for name in metrics:
            measured, reported = by_metric[model, name], published_values[name]
            line += [
                Cell(format_mean_and_sd(measured["mean"], measured["sd_folds"])),
                Cell(f"{reported.mean:.2f} ± {reported.sd:.2f}"),
            ]
        lines.append(line)
    return lines


def _column_headings(metrics: Sequence[str]) -> list[str]:
    return [f"{METRICS[name].title}, {source}" for name in metrics for source in ("ours", "published")]
