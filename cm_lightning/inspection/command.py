"""Inspection of a data set: reading, proposing or checking settings, and writing of the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cm_lightning.data.cases import Case
from cm_lightning.data.layouts import find_cases
from cm_lightning.errors import InputError
from cm_lightning.inspection.configuration import configuration
from cm_lightning.inspection.data_set import DataSet, assess, check
from cm_lightning.inspection.detection import detect_layout, orphans
from cm_lightning.inspection.findings import Findings
from cm_lightning.inspection.measuring import Measuring, measure_case
from cm_lightning.inspection.orienting import better_axes
from cm_lightning.inspection.page import MAX_PICTURES, page
from cm_lightning.inspection.settings import DataSettings
from cm_lightning.inspection.table import case_rows, csv_text, make_console, print_report
from cm_lightning.writing import write_text

# Largest number of cases in which the network searches the insonified region; other domains take no time.
MAX_SEARCHES = 24
TABLE = "cases.csv"
PAGE = "inspection.html"


@dataclass(frozen=True)
class Report:
    """Result of an inspection.

    Attributes:
        data: The data set.
        table: CSV file of the cases.
        page: HTML file.
    """

    data: DataSet
    table: Path
    page: Path

    @property
    def refused(self) -> int:
        """Number of problems because of which ``fit`` would refuse the data set."""
        return sum(problem.is_fatal for problem in self.data.all_problems)


def inspect_data_set(
    root: Path,
    output: Path,
    settings: DataSettings | None = None,
    target: Path | None = None,
    overwrite: bool = False,
) -> Report:
    """Inspect a data set, print a summary, and write a table and a page.

    Args:
        root: Folder of the data set.
        output: Folder of the results.
        settings: Settings of a configuration that are checked. By default, settings are proposed.
        target: File to which the proposed configuration is written, or None.
        overwrite: Whether this file may be replaced.

    Returns:
        The result.

    Raises:
        InputError: The folder contains no data set, no image can be used, or ``target`` exists.
    """
    if target is not None and target.exists() and not overwrite:
        raise InputError(f"{target} exists; choose another name for --write_config, or replace it with --overwrite.")
    if settings is None:
        layout = detect_layout(root)
        cases = find_cases(root, layout)
    else:
        layout = settings.layout
        cases = find_cases(root, layout, settings.patient_pattern, settings.patient_table)
    findings = _measure(cases, settings)
    axes = None
    # Files that do not state their axes are read again if their frames seem to be exchanged or upside down.
    while settings is None and (better := better_axes(findings, axes)) is not None:
        print(f"Inspecting again with the axes {better.value!r}: {better.reason}.")
        findings, axes = _measure(cases, settings, better.value), better
    extra = orphans(root, layout, cases)
    data = assess(root, layout, findings, extra, axes) if settings is None else check(root, settings, findings, extra)
    if target is not None and not data.classes.value:
        raise InputError(f"No label in {root} contains a value other than 0; a configuration needs classes.")
    proposed = configuration(target or Path("my.yaml"), data) if settings is None and data.classes.value else ""
    write_text(output / TABLE, csv_text(case_rows(data)))
    write_text(output / PAGE, page(data, proposed))
    if target is not None:
        write_text(target, proposed)
    print_report(data, make_console())
    return Report(data, output / TABLE, output / PAGE)


def _measure(cases: Sequence[Case], settings: DataSettings | None, axes: str | None = None) -> list[Findings]:
    is_slow = settings is None or settings.domain == "auto"
    searched, shown = _evenly(len(cases), MAX_SEARCHES if is_slow else len(cases)), _evenly(len(cases), MAX_PICTURES)
    return [
        measure_case(case, Measuring(settings, axes, index in searched, index in shown))
        for index, case in enumerate(tqdm(cases, "Inspecting", unit="case", disable=None))
    ]


def _evenly(count: int, limit: int) -> set[int]:
    """Return up to ``limit`` indices below ``count``, at equal distances."""
    return set(np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist())
