"""Pooled results of a cross-validation, as CSV files and as a table in the terminal."""

import pandas as pd
from rich.console import Console
from rich.table import Table

from cm_lightning.evaluation.pooling import pool_folds
from cm_lightning.metrics import METRICS
from cm_lightning.metrics.summary import summarise
from cm_lightning.runs import ExperimentFolder
from cm_lightning.writing import write_table


def write_summary(experiment: ExperimentFolder) -> None:
    """Pool the folds of an experiment, write the tables and print the summary.

    Args:
        experiment: Folder of the experiment, to which ``cv_metrics.csv`` and ``cv_summary.csv`` are written.

    Raises:
        InputError: The folds are not one complete cross-validation.
    """
    rows = pool_folds(experiment)
    summaries = {policy: summarise(rows, policy) for policy in ("worst", "detected")}
    write_table(experiment.metrics, rows)
    write_table(experiment.summary, pd.concat([table.assign(policy=policy) for policy, table in summaries.items()]))
    # Results with and without post-processing are pooled as two models.
    summary = summaries["worst"]
    for model in dict.fromkeys(rows["model"]):
        Console().print(_table(rows[rows["model"] == model], summary[summary["model"] == model]))


def _table(rows: pd.DataFrame, summary: pd.DataFrame) -> Table:
    mean = summary[summary["class"] == "mean"].set_index("metric")
    grouping, unit = rows["grouping"].iloc[0], rows["unit"].iloc[0]
    patients = rows["patient"].nunique()
    table = Table(
        title=f"{rows['model'].iloc[0]}: {rows['fold'].nunique()} folds, {rows['patient'].nunique()} "
        f"{grouping.split(' (')[0]}s, {rows['case'].nunique()} cases, mean over classes",
        caption=f"Grouped by {grouping}. {mean['failures'].iloc[0]} failures: classes that were missed or are false "
        "positives; they count with the worst value of a metric, or are left out of metrics without one (n patients "
        "remain).",
    )
    for column in ("metric", "mean", "SD over patients", "SD over folds"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name, metric in METRICS.items():
        if name in mean.index:
            row = mean.loc[name]
            cells = (f"{row[column]:.3f}" for column in ("mean", "sd_patients", "sd_folds"))
            scored = f" (n {row['patients']})" if row["patients"] < patients else ""
            table.add_row(metric.heading(unit) + scored, *cells)
    return table
