"""Patients of cases, groups of near-duplicate images, and folds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cm_lightning.data.cases import Case
from cm_lightning.data.duplicates import CORRELATION, group_thumbnails
from cm_lightning.data.splits import Fold, SplitName, make_folds
from cm_lightning.errors import InputError
from cm_lightning.inspection.findings import Findings, Problem


@dataclass(frozen=True)
class Split:
    """Cases with their patients, and folds.

    Attributes:
        patients: Patient, or group of near-duplicate images, of every case.
        groups: Number of the group of near-duplicate images of every case; None if it is not known.
        folds: The folds; empty if there are too few patients.
        problems: Problems of the split.
    """

    patients: tuple[str, ...]
    groups: tuple[int | None, ...]
    folds: tuple[Fold, ...]
    problems: tuple[Problem, ...]

    @property
    def number(self) -> int:
        """Number of patients or groups."""
        return len(set(self.patients))

    def test_fold(self, patient: str) -> int | None:
        """Return the fold in which a patient is tested."""
        return next((number for number, fold in enumerate(self.folds) if patient in fold.test), None)


def find_groups(findings: Sequence[Findings], domain: str) -> tuple[int | None, ...]:
    """Group near-duplicate images, as ``fit`` does.

    Args:
        findings: Findings of the cases.
        domain: Insonified region to which frames are cut. If it was not searched in all cases, whole frames are used.

    Returns:
        Number of the group of every case; None for cases that could not be read.
    """
    used = [case for case in findings if case.thumbnails]
    key = domain if all(domain in case.thumbnails for case in used) else "whole"
    numbers = iter(group_thumbnails([case.thumbnails[key] for case in used])) if used else iter(())
    return tuple(next(numbers) if case.thumbnails else None for case in findings)


def split_cases(
    findings: Sequence[Findings],
    cases: Sequence[Case],
    groups: tuple[int | None, ...],
    split: SplitName,
    n_folds: int,
    seed: int,
) -> Split:
    """Divide cases into folds, as ``fit`` does.

    Args:
        findings: Findings of the cases.
        cases: The same cases with their patients; if a patient is not known, all are replaced by the groups.
        groups: Groups of near-duplicate images.
        split: Kind of split.
        n_folds: Number of folds for ``kfold``.
        seed: Seed of the folds.

    Returns:
        The split.
    """
    are_known = all(case.patient for case in cases)
    problems = []
    if not are_known:
        cases = [
            replace(case, patient=f"group{number:04d}" if number is not None else f"unreadable {case.id}")
            for case, number in zip(cases, groups, strict=True)
        ]
    usable = [case for case, found in zip(cases, findings, strict=True) if found.is_readable]
    folds: list[Fold] = []
    try:
        folds = make_folds(usable, split, n_folds, seed)
    except InputError as error:
        problems.append(Problem("split", str(error), True))
    if are_known:
        problems += _shared_groups(cases, groups)
    return Split(tuple(case.patient for case in cases), groups, tuple(folds), tuple(problems))


def _shared_groups(cases: Sequence[Case], groups: Sequence[int | None]) -> list[Problem]:
    """Report near-duplicate images of different patients."""
    members: dict[int, list[Case]] = {}
    for case, number in zip(cases, groups, strict=True):
        if number is not None:
            members.setdefault(number, []).append(case)
    return [
        Problem(
            "similar images of different patients",
            f"{first.image} and {other.image} look alike (correlation of their thumbnails above {CORRELATION}, or both "
            f"like a third image), but belong to the patients {first.patient} and {other.patient}.",
            case=other.id,
        )
        for first, *others in members.values()
        for other in others
        if other.patient != first.patient
    ]


def training_cases(split: Split, cases: int) -> int:
    """Return the mean number of training cases of a fold, at least 1; ``cases`` is the number of all cases."""
    if not split.folds:
        return max(1, cases // 2)
    return max(1, round(float(np.mean([sum(p in fold.train for p in split.patients) for fold in split.folds]))))
