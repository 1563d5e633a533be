"""Patient-wise folds: seeded, over sorted patients, written to a file and reused."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cm_lightning.data.cases import Case
from cm_lightning.errors import InputError

SplitName = Literal["study", "kfold", "official"]

# The source study: 16 participants, three of them tested and two for validation in each of three folds.
STUDY_FOLDS = 3
STUDY_TEST_PATIENTS = 3
STUDY_VALIDATION_PATIENTS = 2


@dataclass(frozen=True)
class Fold:
    """The patients of one fold; no patient is in two of its sets.

    Attributes:
        train: Patients to train on.
        val: Patients to choose the best epoch on.
        test: Patients to report.
    """

    train: list[str]
    val: list[str]
    test: list[str]

    def __post_init__(self) -> None:
        """Refuse a patient in two sets and an empty training set."""
        sets = {"train": set(self.train), "val": set(self.val), "test": set(self.test)}
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            shared = sorted(sets[first] & sets[second])
            if shared:
                raise InputError(
                    f"Patients {shared} are in both the {first} and the {second} set; expected each in one."
                )
        if not self.train:
            raise InputError("A fold has no patient to train on; expected at least one.")

    def subset_of(self, patient: str) -> str | None:
        """Name the set that a patient is in."""
        return next((name for name, patients in asdict(self).items() if patient in patients), None)


def make_folds(cases: list[Case], split: SplitName, n_folds: int = 3, seed: int = 0) -> list[Fold]:
    """Divide patients into folds.

    ``study`` draws three disjoint groups of three test patients, two validation patients each from the rest, and trains
    on all others (11 / 2 / 3 of 16). ``kfold`` tests every patient exactly once; the validation patients of a fold,
    one in eight and at least one, come from its training part. ``official`` takes the sets that the data set comes
    with; where it has no validation set, they are drawn in the same way. Patients of a data set with official sets
    are dealt over the folds set by set, so that the folds hold equal shares of each: such sets can differ in the
    quality of their labels.

    Args:
        cases: All cases; their patients are sorted before anything is drawn.
        split: Kind of split.
        n_folds: Number of folds of ``kfold``.
        seed: Seed of the draw.

    Returns:
        The folds; one for ``official``.

    Raises:
        InputError: Fewer patients than the split needs, a patient in two official sets, or no official sets.
    """
    patients = sorted({case.patient for case in cases})
    subsets = {case.patient: case.subset for case in cases}
    for case in cases:
        if case.subset != subsets[case.patient]:
            raise InputError(
                f"Patient {case.patient} is in the official sets {case.subset!r} and {subsets[case.patient]!r} "
                f"({case.image}); expected every patient in one set."
            )
    generator = np.random.default_rng(seed)
    strata = [[p for p in patients if subsets[p] == subset] for subset in sorted(set(subsets.values()), key=str)]
    dealt = [str(name) for group in strata for name in generator.permutation(group)]
    match split:
        case "official":
            return [_official(patients, subsets, generator)]
        case "study":
            n_folds, tested = STUDY_FOLDS, STUDY_FOLDS * STUDY_TEST_PATIENTS
            _need(len(patients), tested + STUDY_VALIDATION_PATIENTS, "study")
            # Every k-th patient of the dealt row: strata are represented in proportion.
            chosen = [dealt[index] for index in np.linspace(0, len(dealt), tested, endpoint=False).astype(int)]
            validation = STUDY_VALIDATION_PATIENTS
        case "kfold":
            if n_folds < 2:
                raise InputError(f"data.n_folds must be at least 2 for kfold, found {n_folds}.")
            _need(len(patients), max(n_folds, 3), f"kfold with data.n_folds {n_folds}")
            chosen, validation = dealt, 0
    folds = []
    for fold in range(n_folds):
        test = chosen[fold::n_folds]
        rest = [name for name in dealt if name not in test]
        count = validation or max(1, len(rest) // 8)
        val = [str(name) for name in generator.permutation(rest)[:count]]
        folds.append(Fold(sorted(set(rest) - set(val)), sorted(val), sorted(test)))
    return folds


def load_or_make_folds(path: Path, cases: list[Case], split: SplitName, n_folds: int = 3, seed: int = 0) -> list[Fold]:
    """Reuse the folds in a file, or make them and write it.

    Args:
        path: JSON file of the split.
        cases: All cases of the data set.
        split: Kind of split.
        n_folds: Number of folds of ``kfold``.
        seed: Seed of the draw.

    Returns:
        The folds.

    Raises:
        InputError: The file is of another split, or knows other patients than the data set has.
    """
    made_from = {"split": split, "n_folds": n_folds if split == "kfold" else None, "seed": seed}
    patients = sorted({case.patient for case in cases})
    if not path.is_file():
        folds = make_folds(cases, split, n_folds, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(
            json.dumps({**made_from, "patients": patients, "folds": [asdict(f) for f in folds]}, indent=1)
        )
        partial.replace(path)
        return folds
    stored = json.loads(path.read_text())
    for key, value in made_from.items():
        if stored.get(key) != value:
            raise InputError(
                f"{path} was made with {key} {stored.get(key)!r}; expected {value!r}. Choose another file."
            )
    if stored["patients"] != patients:
        changed = sorted(set(stored["patients"]) ^ set(patients))
        raise InputError(
            f"{path} was made for other patients than the data set has (in one and not the other: {changed}). "
            "Remove the file to draw a new split, or choose another one with data.split_file."
        )
    return [Fold(**fold) for fold in stored["folds"]]


def split_file_name(cases: list[Case], split: SplitName, n_folds: int, seed: int) -> str:
    """Name a split's file by what it depends on, so that data sets sharing a folder do not meet."""
    patients = "\n".join(sorted({case.patient for case in cases}))
    digest = hashlib.blake2b(patients.encode(), digest_size=4).hexdigest()
    return f"{split}{n_folds if split == 'kfold' else ''}_seed{seed}_{digest}.json"


def _need(found: int, expected: int, split: str) -> None:
    if found < expected:
        raise InputError(f"The split {split} needs at least {expected} patients; the data set has {found}.")


def _official(patients: list[str], subsets: dict[str, str | None], generator: np.random.Generator) -> Fold:
    sets = {name: [p for p in patients if subsets[p] == name] for name in ("train", "val", "test")}
    if not sets["train"] or not sets["test"]:
        raise InputError("The data set comes without official train and test sets; expected split kfold or study.")
    if not sets["val"]:
        _need(len(sets["train"]), 2, "official without a validation set")
        drawn = generator.permutation(sets["train"])[: max(1, len(sets["train"]) // 8)]
        sets["val"] = sorted(str(name) for name in drawn)
        sets["train"] = sorted(set(sets["train"]) - set(sets["val"]))
    return Fold(**sets)
