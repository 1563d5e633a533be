"""Test results as files and in the terminal."""

import json

import pandas as pd
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from cm_lightning.callbacks.trainer_state import fold_folder
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.metrics import METRICS
from cm_lightning.metrics.empty import detection_rate
from cm_lightning.metrics.summary import summarise
from cm_lightning.metrics.summary_file import nested_summary
from cm_lightning.runs import versions
from cm_lightning.tasks import BaseTask
from cm_lightning.writing import write_table, write_text

# Characters between two columns of a table in the terminal, and at its left and right side.
BORDER = 3


class ResultTable(Callback):
    """Callback that writes the long table of results and its summary after ``test``, and prints the summary."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write results, summary and the test cases of all folds to the folder of the run."""
        if not (trainer.is_global_zero and isinstance(pl_module, BaseTask)) or pl_module.test_rows.empty:
            return
        folder = fold_folder(trainer)
        folder.path.mkdir(parents=True, exist_ok=True)
        rows, levels, calibration = pl_module.test_rows, pl_module.test_levels, pl_module.test_calibration
        columns = {"class": "class", "metric": "metric", "mean": "mean", "sd_patients": "sd", "patients": "n"}
        summaries = [
            summarise(part, policy)[list(columns)].rename(columns=columns).assign(policy=policy, postprocessing=name)
            for name, part in rows.groupby("postprocessing", sort=False)
            for policy in ("worst", "detected")
        ]
        summary = pd.concat(summaries).assign(grouping=rows["grouping"].iloc[0], unit=rows["unit"].iloc[0])
        write_table(folder.test_summary, summary)
        plain = rows[rows["postprocessing"] == "none"]
        write_text(folder.summary, json.dumps(nested_summary(plain), indent=1))
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, UltrasoundDataModule):
            rows, levels, calibration = (table.assign(fold=data.fold) for table in (rows, levels, calibration))
            plan = {**data.test_plan(), "made_with": versions()}
            write_text(folder.test_plan, json.dumps(plan, indent=1))
        write_table(folder.test_levels, levels)
        write_table(folder.test_calibration, calibration)
        # This file marks a fold as finished, and is written last.
        write_table(folder.test_metrics, rows)
        worst = summary[summary["policy"] == "worst"]
        for name, part in worst.groupby("postprocessing", sort=False):
            for table in _tables(rows[rows["postprocessing"] == name], part, str(name), Console().width):
                Console().print(table)


def _tables(rows: pd.DataFrame, summary: pd.DataFrame, postprocessing: str, width: int) -> list[Table]:
    """Create a table of metrics and classes with mean ± SD over patients, or several ones if it is too wide."""
    unit, grouping = rows["unit"].iloc[0], rows["grouping"].iloc[0]
    cases, patients = rows["case"].nunique(), rows["patient"].nunique()
    suffix = "" if postprocessing == "none" else f", {postprocessing} of classes that it improved in validation"
    title = f"Test: mean ± SD over {patients} {grouping.split(' (')[0]}s ({cases} cases){suffix}"
    caption = (
        f"Grouped by {grouping}. If either the prediction or the label of a class is empty, the worst value "
        "counts, or the case is left out of metrics without a worst value (n patients remain). If both are empty, the "
        "class is not scored."
    )
    cells = {
        (row["class"], row["metric"]): f"{row['mean']:.3f} ± {row['sd']:.3f}"
        + (f" (n {row['n']})" if row["n"] < patients else "")
        for _, row in summary.iterrows()
    }
    headings = {name: metric.heading(unit) for name, metric in METRICS.items()}
    detected = detection_rate(rows)
    classes = list(summary["class"].unique())
    longest = {
        name: max([len(name), *(len(cell) for (of_class, _), cell in cells.items() if of_class == name)])
        for name in classes
    }
    groups = _fitting_groups(longest, width - max(map(len, headings.values())) - BORDER)
    tables = []
    for number, group in enumerate(groups):
        is_last = number == len(groups) - 1
        table = Table(title=title if number == 0 else None, caption=caption if is_last else None)
        table.add_column("metric", no_wrap=True)
        for name in group:
            table.add_column(name, justify="right", no_wrap=True)
        for metric, heading in headings.items():
            table.add_row(heading, *(cells.get((name, metric), "-") for name in group))
        table.add_row("detected", *(f"{detected[name]:.0%}" if name in detected.index else "" for name in group))
        tables.append(table)
    return tables


def _fitting_groups(lengths: dict[str, int], width: int) -> list[list[str]]:
    """Distribute columns over as many tables as needed, each of which has at least one column."""
    groups: list[list[str]] = [[]]
    left = width
    for name, length in lengths.items():
        if groups[-1] and length + BORDER > left:
            groups.append([])
            left = width
        groups[-1].append(name)
        left -= length + BORDER
    return groups
