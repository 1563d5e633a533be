"""The report's tables beside the source study: its published values, and a number for each of its claims."""

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
    """The study's Table 1 with its values beside ours.

    Args:
        results: The numbers.

    Returns:
        The table; None where no model is one of the study's rows.
    """
    lines = _beside_published(results, PUBLISHED, PUBLISHED_METRICS)
    if not lines:
        return None
    return ReportTable(
        "published",
        "Beside the study's Table 1",
        "Mean ± SD over folds, as the study prints it, for its own data (muscles).",
        ["model", *_headings_beside(PUBLISHED_METRICS)],
        lines,
    )


def supplement_table(results: Results) -> ReportTable | None:
    """The study's supplementary table of alpha and beta with its values beside ours.

    Args:
        results: The numbers.

    Returns:
        The table; None where fewer than two models are of its rows, so that no parameter was varied.
    """
    lines = _beside_published(results, SUPPLEMENT, SUPPLEMENT_METRICS)
    if len(lines) < 2:
        return None
    return ReportTable(
        "supplement",
        "Beside the study's supplement: alpha and beta of the maps",
        "Mean ± SD over folds. The model's name says beta and alpha where they are not 100 and 0.5.",
        ["model", *_headings_beside(SUPPLEMENT_METRICS)],
        lines,
    )


def claims_table(results: Results) -> ReportTable:
    """A number for each of the study's claims on segmentation.

    Args:
        results: The numbers.

    Returns:
        The table: spread of the DSC, islands, errors where confidence is low and high and where it is deep, and how
        soon training converged.
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
        "The study's claims, in numbers",
        "Maps are said to lower the SD of DSC over participants, to leave fewer islands, to make deep regions better "
        "and errors fewer where confidence is high, and not to slow training. An error is the share of the voxels in "
        "prediction or label that are wrong; low confidence is below 0.3 and high from 0.7 of the image's own map, "
        "also where a network saw a control; deep are the levels of depth at which the deepest three tenths of a "
        "participant's labels lie. Epochs are those "
        "until 95 % of the best validation DSC, a mean over folds and seeds. Whether maps make variability like the "
        "expert's needs repeated labels and is not measured here.",
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


def _beside_published(
    results: Results, published: Mapping[str, Mapping[str, Published]], metrics: Sequence[str]
) -> list[list[Cell]]:
    """Give a line for every model that has published values."""
    summary = results.summaries["worst"]
    overall = summary[summary["class"] == "mean"]
    by_metric = {(row["model"], row["metric"]): row for row in overall.to_dict("records")}
    lines = []
    for model in results.runs.models:
        of_the_study = published.get(setting_of(model))
        if of_the_study is None:
            continue
        line = [Cell(model)]
        for name in metrics:
            own, theirs = by_metric[model, name], of_the_study[name]
            line += [
                Cell(format_mean_and_sd(own["mean"], own["sd_folds"])),
                Cell(f"{theirs.mean:.2f} ± {theirs.sd:.2f}"),
            ]
        lines.append(line)
    return lines


def _headings_beside(metrics: Sequence[str]) -> list[str]:
    return [f"{METRICS[name].title}, {whose}" for name in metrics for whose in ("ours", "published")]
