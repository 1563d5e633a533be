"""The inspected data set: its cases, the settings that are proposed or checked, and all problems."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cm_lightning.data.cases import Case
from cm_lightning.data.classes import written_values
from cm_lightning.data.layouts import LayoutName, find_cases
from cm_lightning.errors import InputError
from cm_lightning.inspection.findings import Findings, Problem
from cm_lightning.inspection.patients import Split, find_groups, split_cases, training_cases
from cm_lightning.inspection.problems import compare_cases, describe_data_set
from cm_lightning.inspection.proposal import (
    Choice,
    Network,
    propose_axes,
    propose_classes,
    propose_domain,
    propose_folds,
    propose_network,
    propose_patient_pattern,
)
from cm_lightning.inspection.settings import DataSettings


@dataclass(frozen=True)
class DataSet:
    """Inspected data set.

    Attributes:
        root: Its folder.
        layout: Folder layout.
        findings: Findings of the cases, sorted by id.
        problems: Problems that concern no single case.
        axes: Axes of the files.
        classes: Value of every class.
        domain: Insonified region.
        split: Patients and folds.
        grouping: Unit of the split, for people.
        patient_pattern: Proposed regular expression for the patient.
        n_folds: Number of folds.
        network: Proposed sizes of the network and its training; None if a configuration was checked.
    """

    root: Path
    layout: LayoutName
    findings: tuple[Findings, ...]
    problems: tuple[Problem, ...]
    axes: Choice[str]
    classes: Choice[dict[str, int]]
    domain: Choice[str]
    split: Split
    grouping: str
    patient_pattern: Choice[str | None]
    n_folds: Choice[int]
    network: Network | None

    @property
    def all_problems(self) -> list[Problem]:
        """Problems of the data set and of its cases, those first that ``fit`` refuses."""
        problems = [*self.problems, *(problem for case in self.findings for problem in case.problems)]
        return sorted(problems, key=lambda problem: not problem.is_fatal)

    @property
    def has_patients(self) -> bool:
        """Whether the layout names the patients."""
        return all(case.case.patient for case in self.findings)


def assess(
    root: Path,
    layout: LayoutName,
    findings: Sequence[Findings],
    extra: Sequence[Problem],
    axes: Choice[str] | None = None,
) -> DataSet:
    """Propose settings for a data set, and compare its cases.

    Args:
        root: Folder of the data set.
        layout: Its layout.
        findings: Findings of the cases.
        extra: Problems of files that belong to no case.
        axes: Axes of the files, if they were chosen before.

    Returns:
        The data set.

    Raises:
        InputError: No image could be read.
    """
    if not any(case.is_readable for case in findings):
        problem = findings[0].problems[0].text
        raise InputError(f"None of the {len(findings)} images in {root} can be used. The first problem is: {problem}")
    axes = axes or propose_axes(findings)
    classes = propose_classes(findings, root, layout)
    domain = propose_domain(findings)
    cases = [case.case for case in findings]
    pattern: Choice[str | None] = Choice(None, "the layout names the patients")
    grouping = "patient, named by the layout"
    if not all(case.patient for case in cases):
        pattern = propose_patient_pattern([case.id for case in cases])
        grouping = "group of near-duplicate images, since the file names do not seem to contain patients"
        if any(domain.value not in case.thumbnails for case in findings if case.is_readable):
            grouping += " (found in whole frames; fit compares insonified regions)"
        if pattern.value is not None:
            cases = find_cases(root, layout, pattern.value)
            grouping = f"patient, guessed from the file names with {pattern.value!r}; check it"
    groups = find_groups(findings, domain.value)
    number = len({case.patient for case in cases} if cases[0].patient else set(groups) - {None})
    folds = propose_folds(number)
    split = split_cases(findings, cases, groups, "kfold", folds.value, 0)
    compared = compare_cases(findings, axes.value)
    problems = [*extra, *split.problems]
    problems += describe_data_set(compared, axes.value, classes.value, split.patients, folds.value)
    network = propose_network(compared, axes.value, written_values(classes.value), training_cases(split, len(cases)))
    return DataSet(
        root,
        layout,
        tuple(compared),
        tuple(problems),
        axes,
        classes,
        Choice(str(domain.value), domain.reason),
        split,
        grouping,
        pattern,
        folds,
        network,
    )


def check(root: Path, settings: DataSettings, findings: Sequence[Findings], extra: Sequence[Problem]) -> DataSet:
    """Compare the cases of a data set, with the settings of a configuration.

    Args:
        root: Folder of the data set.
        settings: Settings of the configuration.
        findings: Findings of the cases, whose patients are those of the configuration.
        extra: Problems of files that belong to no case.

    Returns:
        The data set.
    """
    reason = "from the configuration"
    cases: list[Case] = [case.case for case in findings]
    problems = list(extra)
    are_known = all(case.patient for case in cases)
    if not are_known and not settings.image_folds:
        text = (
            "The patients are unknown. Set data.patient_pattern or data.patient_table, or split by image with "
            "data.image_folds true."
        )
        problems.append(Problem("unknown patients", text, True))
    groups = find_groups(findings, str(settings.domain))
    split = split_cases(findings, cases, groups, settings.split, settings.n_folds, settings.split_seed)
    compared = compare_cases(findings, settings.axes)
    problems += split.problems
    problems += describe_data_set(compared, settings.axes, settings.classes, split.patients, max(1, len(split.folds)))
    return DataSet(
        root,
        settings.layout,
        tuple(compared),
        tuple(problems),
        Choice(settings.axes, reason),
        Choice(settings.classes, reason),
        Choice(str(settings.domain), reason),
        split,
        "patient" if are_known else "group of near-duplicate images",
        Choice(settings.patient_pattern, reason),
        Choice(settings.n_folds, reason),
        None,
    )
