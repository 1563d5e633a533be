"""Problems of a data set that only show if its cases are compared."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from cm_lightning.data.classes import written_values
from cm_lightning.data.description import IGNORED
from cm_lightning.inspection.findings import Findings, Problem
from cm_lightning.io import Axes

# Largest ratio of voxel sizes of a data set that needs no comment.
SPACING_RATIO = 1.05
# A class in fewer patients than folds is missing in a test set; a class in fewer cases than this fraction is rare.
RARE_CLASS = 0.05


def compare_cases(findings: Sequence[Findings], axes: str) -> list[Findings]:
    """Add the problems of cases that differ from the others.

    Args:
        findings: Findings of the cases.
        axes: Axes with which ``fit`` reads all files.

    Returns:
        Findings with further problems.
    """
    first_with: dict[str, Findings] = {}
    compared = []
    for case in findings:
        problems = []
        if case.is_readable and len(case.axes.split()) != len(axes.split()):
            text = f"{case.case.image} has the shape {case.shape}; expected {len(axes.split())} axes as in most files."
            if not any(problem.kind == "number of axes" for problem in case.problems):
                problems.append(Problem("number of axes", text, True, case.case.id))
        elif case.is_readable and case.states_axes and Axes(case.axes).text != Axes(axes).text:
            text = f"{case.case.image} states the axes {case.axes!r}, but {axes!r} are used for all files."
            problems.append(Problem("axes", text, False, case.case.id))
        other = first_with.setdefault(case.digest, case) if case.digest else case
        if other is not case:
            text = f"{other.case.image} and {case.case.image} contain the same pixels"
            text += (
                f", but their labels differ ({other.values} and {case.values})." if other.values != case.values else "."
            )
            problems.append(Problem("the same image twice", text, False, case.case.id))
        compared.append(case.with_problems(*problems))
    return compared


def describe_data_set(
    findings: Sequence[Findings], axes: str, classes: Mapping[str, int], patients: Sequence[str], n_folds: int
) -> list[Problem]:
    """List the problems of the data set as a whole.

    Args:
        findings: Findings of the cases.
        axes: Axes of the files.
        classes: Value of every class.
        patients: Patient of every case.
        n_folds: Number of folds.

    Returns:
        The problems.
    """
    return [*_spacing_problems(findings, axes), *_class_problems(findings, classes, patients, n_folds)]


def _spacing_problems(findings: Sequence[Findings], axes: str) -> list[Problem]:
    used = [case for case in findings if case.is_readable and len(case.shape) == len(axes.split())]
    without = [case for case in used if case.spacing is None]
    problems = []
    if used and len(without) == len(used):
        text = (
            "No file contains a pixel size: distances are in pixels, and frames of several scanners or depths have "
            "different scales. Set data.spacing_mm if all pixels have the same size."
        )
        problems.append(Problem("missing pixel size", text))
    elif without:
        text = (
            f"{len(without)} of {len(used)} files contain no pixel size, for example {without[0].case.image}; "
            "distances are in mm for some cases and in pixels for others."
        )
        problems.append(Problem("missing pixel size", text))
    spacings = np.array([case.spacing for case in used if case.spacing is not None])
    if len(spacings):
        for axis, name in enumerate(axes.split()):
            lowest, highest = spacings[:, axis].min(), spacings[:, axis].max()
            if highest > SPACING_RATIO * lowest:
                text = (
                    f"The voxel size in the direction {name.lstrip('-')} is between {lowest:.4g} and {highest:.4g} mm."
                )
                problems.append(Problem("different voxel sizes", text))
    return problems


def _class_problems(
    findings: Sequence[Findings], classes: Mapping[str, int], patients: Sequence[str], n_folds: int
) -> list[Problem]:
    labelled = [(case, patient) for case, patient in zip(findings, patients, strict=True) if case.values]
    problems = []
    if labelled and not classes.keys() - {IGNORED}:
        problems.append(Problem("no class", "No label contains a value other than 0.", True))
    for name, value in written_values(classes).items():
        owners = Counter(patient for case, patient in labelled if value in case.values)
        cases = sum(owners.values())
        if not cases:
            problems.append(Problem("missing class", f"No label contains the class {name} (value {value})."))
        elif len(owners) < n_folds or cases < RARE_CLASS * len(labelled):
            text = (
                f"The class {name} (value {value}) is in {cases} of {len(labelled)} labels, of {len(owners)} patients "
                f"or groups; with {n_folds} folds, it may be missing in training or test sets."
            )
            problems.append(Problem("rare class", text))
    return problems
