"""Table of the cases, as a CSV file and in the terminal."""

import csv
import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cm_lightning.inspection.data_set import DataSet
from cm_lightning.inspection.findings import Findings, Problem

# Rows in the terminal, and problems of a kind that are listed.
MAX_ROWS = 20
MAX_EXAMPLES = 3
# Characters per line of the table in a file.
WIDTH = 140


def case_rows(data: DataSet) -> list[dict[str, str]]:
    """Return one row per case, with the columns of the CSV file.

    Args:
        data: Inspected data set.

    Returns:
        Text by the name of the column; all rows have the same columns. Volumes are in the unit of ``volume_unit``.
    """
    names = {value: name for name, value in data.classes.value.items()}
    values = sorted({value for case in data.findings for value in case.foreground})
    rows = []
    for case, patient, group in zip(data.findings, data.split.patients, data.split.groups, strict=True):
        stats, region = case.intensities, case.region
        fold = data.split.test_fold(patient)
        row = {
            "case": case.case.id,
            "patient": patient,
            "near_duplicate_group": "" if group is None else str(group),
            "test_fold": "" if fold is None else str(fold),
            "set_in_fold0": (data.split.folds[0].subset_of(patient) or "") if data.split.folds else "",
            "official_set": case.case.subset or "",
            "image": str(case.case.image),
            "label": str(case.case.label or ""),
            "shape": " x ".join(map(str, case.shape)),
            "type": case.dtype,
            "spacing_mm": "" if case.spacing is None else " x ".join(f"{step:.6g}" for step in case.spacing),
            "axes": case.axes,
            "axes_from": ("file" if case.states_axes else "assumed") if case.is_readable else "",
            **{
                name: "" if stats is None else f"{getattr(stats, name):.6g}"
                for name in ("minimum", "percentile1", "median", "percentile99", "maximum", "mean")
            },
            "region": "not searched" if region is None else region.kind,
            "region_score": "" if region is None else f"{region.score:.3f}",
            "insonified_fraction": "" if region is None else f"{region.coverage:.3f}",
            "volume_unit": case.unit if case.is_readable else "",
        }
        for value in values:
            name = names.get(value, f"value_{value}")
            voxels = case.foreground.get(value, 0)
            row[f"{name}_voxels"] = str(voxels) if case.values else ""
            row[f"{name}_volume"] = f"{voxels * case.voxel:.6g}" if case.values else ""
        row["label_values"] = " ".join(f"{value:g}" for value in case.values)
        row["problems"] = " ".join(problem.text for problem in case.problems)
        rows.append(row)
    return rows


def csv_text(rows: Sequence[dict[str, str]]) -> str:
    """Return rows as comma-separated values."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def summary_lines(data: DataSet) -> list[tuple[str, str]]:
    """Return the properties of a data set as pairs of a name and a text."""
    read = [case for case in data.findings if case.is_readable]
    shapes = sorted({case.shape for case in read})
    shape_text = (
        " x ".join(map(str, shapes[0])) if len(shapes) == 1 else f"{len(shapes)} different shapes, {_range(read)}"
    )
    spaced = [case for case in read if case.spacing is not None]
    classes = []
    for name, value in data.classes.value.items():
        sizes = [case.foreground.get(value, 0) * case.voxel for case in data.findings if value in case.values]
        mean = f", mean {sum(sizes) / len(sizes):.4g} {read[0].unit}" if sizes else ""
        classes.append(f"{name} = {value} (in {len(sizes)} labels{mean})")
    searched = sum(case.region is not None for case in data.findings)
    duplicates = len(data.findings) - len(set(data.split.groups))
    return [
        ("data set", f"{data.root}, layout {data.layout}, {len(data.findings)} cases"),
        ("shapes", f"{shape_text} (axes of the files: {data.axes.value})"),
        (
            "pixel size",
            f"in {len(spaced)} of {len(read)} files" + (f", e.g. {_spacing(spaced[0])} mm" if spaced else ""),
        ),
        ("classes", "; ".join(classes) or "none"),
        ("region", f"{data.domain.value}: {data.domain.reason}; searched in {searched} cases"),
        ("unit of folds", f"{data.grouping}; {data.split.number} in {len(data.split.folds)} folds"),
        ("near-duplicates", f"{duplicates} of {len(data.findings)} images look like an earlier one"),
    ]


def _range(cases: Sequence[Findings]) -> str:
    dims = min(len(case.shape) for case in cases)
    sides = [sorted(case.shape[axis] for case in cases) for axis in range(dims)]
    return " x ".join(str(side[0]) if side[0] == side[-1] else f"{side[0]}-{side[-1]}" for side in sides)


def _spacing(case: Findings) -> str:
    return " x ".join(f"{step:.4g}" for step in case.spacing or ())


def problem_groups(problems: Sequence[Problem]) -> list[list[Problem]]:
    """Return problems grouped by their kind, the fatal ones first."""
    kinds: dict[tuple[str, bool], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.kind, problem.is_fatal), []).append(problem)
    return sorted(kinds.values(), key=lambda group: not group[0].is_fatal)


def make_console() -> Console:
    """Return the terminal; files, into which the output may be redirected, get wide lines."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def print_report(data: DataSet, console: Console) -> None:
    """Print a summary, the table of the first cases, and the problems.

    Args:
        data: Inspected data set.
        console: The terminal.
    """
    for name, text in summary_lines(data):
        console.print(f"[bold]{name}[/bold]", end=": ", highlight=False)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    _print_table(data, console)
    problems = data.all_problems
    if not problems:
        console.print("No problems were found.")
    for group in problem_groups(problems):
        kind = f"{group[0].kind} ({len(group)})" + (", refused by fit" if group[0].is_fatal else "")
        console.print(f"[bold]{kind}[/bold]", highlight=False)
        for problem in group[:MAX_EXAMPLES]:
            console.print(f"  {problem.text}", markup=False, highlight=False, soft_wrap=True)
        if len(group) > MAX_EXAMPLES:
            console.print(f"  and {len(group) - MAX_EXAMPLES} more", highlight=False)


def _print_table(data: DataSet, console: Console) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    columns = {
        "case": "case",
        "patient": "patient",
        "test_fold": "test fold",
        "shape": "shape",
        "label_values": "labels",
        "region": "region",
        "region_score": "score",
    }
    for title in columns.values():
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    table.add_column("problems", no_wrap=True, overflow="ellipsis")
    order = sorted(range(len(data.findings)), key=lambda index: not data.findings[index].problems)
    rows = case_rows(data)
    for index in order[:MAX_ROWS]:
        kinds = dict.fromkeys(problem.kind for problem in data.findings[index].problems)
        table.add_row(*(rows[index][column] for column in columns), ", ".join(kinds))
    console.print(table, markup=False)
    if len(order) > MAX_ROWS:
        console.print(f"and {len(order) - MAX_ROWS} more cases; those with problems are shown first.", highlight=False)
