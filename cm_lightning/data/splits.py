"""Patient-wise folds, which depend only on the sorted patients and a seed, and are stored in a file."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cm_lightning.config_files import read_json
from cm_lightning.data.cases import Case
from cm_lightning.errors import InputError
from cm_lightning.writing import write_text

SplitName = Literal["study", "kfold", "official"]

# In each of its three folds, the study uses 3 of 16 participants for the test and 2 for validation.
STUDY_FOLDS = 3
STUDY_TEST_PATIENTS = 3
STUDY_VALIDATION_PATIENTS = 2


@dataclass(frozen=True)
class Fold:
    """Patients of one fold, in disjoint sets.

    Attributes:
        train: Training patients.
        val: Validation patients, for the choice of the best epoch.
        test: Test patients.

    Raises:
        InputError: A patient is in two sets, or the training set is empty.
    """

    train: list[str]
    val: list[str]
    test: list[str]

    def __post_init__(self) -> None:
        """Check that the sets are disjoint and that the training set is not empty."""
        sets = {"train": set(self.train), "val": set(self.val), "test": set(self.test)}
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            shared = sorted(sets[first] & sets[second])
            if shared:
                raise InputError(
                    f"The patients {shared} are in the {first} and the {second} set; expected disjoint sets."
                )
        if not self.train:
            raise InputError("The training set of a fold is empty; expected at least one patient.")

    def subset_of(self, patient: str) -> str | None:
        """Return the name of the set of a patient; None if the patient is in none."""
        return next((name for name, patients in asdict(self).items() if patient in patients), None)


def make_folds(cases: list[Case], split: SplitName, n_folds: int = 3, seed: int = 0) -> list[Fold]:
    """Divide patients into folds.

    * ``study`` draws three disjoint groups of three test patients, and for each of them two validation patients from
      all others. The remaining patients are for training (11 / 2 / 3 of 16).
    * ``kfold`` tests every patient once. One in eight of the other patients of a fold, and at least one, is for
      validation.
    * ``official`` uses the official sets of the data set. If there is no validation set, it is drawn as for ``kfold``.

    If a data set has official sets, the folds of the other splits are stratified by these sets, since the quality of
    their labels may differ.

    Args:
        cases: All cases.
        split: Kind of split.
        n_folds: Number of folds for ``kfold``.
        seed: Seed of the random assignment of patients to folds.

    Returns:
        The folds. There is one for ``official``.

    Raises:
        InputError: There are too few patients or folds, a patient is in two official sets, or there are no official
            sets.
    """
    patients = sorted({case.patient for case in cases})
    subsets = {case.patient: case.subset for case in cases}
    for case in cases:
        if case.subset != subsets[case.patient]:
            raise InputError(
                f"The patient {case.patient} is in the official sets {case.subset!r} and {subsets[case.patient]!r} "
                f"({case.image}); expected every patient in one set."
            )
    generator = np.random.default_rng(seed)
    strata = [[p for p in patients if subsets[p] == subset] for subset in sorted(set(subsets.values()), key=str)]
    shuffled = [str(name) for group in strata for name in generator.permutation(group)]
    match split:
        case "official":
            return [_official(patients, subsets, generator)]
        case "study":
            n_folds, n_test = STUDY_FOLDS, STUDY_FOLDS * STUDY_TEST_PATIENTS
            _check_number(len(patients), n_test + STUDY_VALIDATION_PATIENTS, "study")
            # Every k-th patient, so that all strata are represented in proportion.
            test_patients = [
                shuffled[index] for index in np.linspace(0, len(shuffled), n_test, endpoint=False).astype(int)
            ]
            validation = STUDY_VALIDATION_PATIENTS
        case "kfold":
            if n_folds < 2:
                raise InputError(f"data.n_folds must be at least 2 for kfold, found {n_folds}.")
            _check_number(len(patients), max(n_folds, 3), f"kfold with data.n_folds {n_folds}")
            test_patients, validation = shuffled, 0
    folds = []
    for fold in range(n_folds):
        test = test_patients[fold::n_folds]
        others = [name for name in shuffled if name not in test]
        count = validation or max(1, len(others) // 8)
        val = [str(name) for name in generator.permutation(others)[:count]]
        folds.append(Fold(sorted(set(others) - set(val)), sorted(val), sorted(test)))
    return folds


def load_or_make_folds(path: Path, cases: list[Case], split: SplitName, n_folds: int = 3, seed: int = 0) -> list[Fold]:
    """Read the folds from a file if it exists, or make folds and write the file.

    Args:
        path: JSON file of the folds.
        cases: All cases of the data set.
        split: Kind of split.
        n_folds: Number of folds for ``kfold``.
        seed: Seed of the random assignment of patients to folds.

    Returns:
        The folds.

    Raises:
        InputError: The file was created with another split, number of folds or seed, or for other patients.
    """
    settings = {"split": split, "n_folds": n_folds if split == "kfold" else None, "seed": seed}
    patients = sorted({case.patient for case in cases})
    places = {case.id: [case.patient, case.subset] for case in cases}
    if not path.is_file():
        folds = make_folds(cases, split, n_folds, seed)
        contents = {**settings, "patients": patients, "cases": places, "folds": [asdict(fold) for fold in folds]}
        write_text(path, json.dumps(contents, indent=1), is_shared=True)
        return folds
    stored = _read_split(path)
    for key, value in settings.items():
        if stored.get(key) != value:
            raise InputError(
                f"{path} was created with {key} {stored.get(key)!r}, expected {value!r}; set another data.split_file."
            )
    if stored["patients"] != patients:
        changed = sorted(set(stored["patients"]) ^ set(patients))
        raise InputError(
            f"{path} and the data set contain different patients (only in one of the two: {changed}). Remove the file "
            "to draw new folds, or choose another data.split_file."
        )
    # Files of earlier versions do not list the cases.
    for case, place in stored.get("cases", {}).items():
        if places.get(case, place) != place:
            raise InputError(
                f"{path} was created when the case {case} belonged to the patient {place[0]!r} and the official set "
                f"{place[1]!r}, but now it belongs to {places[case][0]!r} and {places[case][1]!r}. Remove the file to "
                "draw new folds, or choose another data.split_file."
            )
    try:
        folds = [Fold(**fold) for fold in stored["folds"]]
    except InputError as error:
        raise InputError(f"{path} (data.split_file) contains an invalid fold: {error}") from error
    unknown = {name for fold in folds for name in (*fold.train, *fold.val, *fold.test)} - set(patients)
    if unknown:
        raise InputError(
            f"{path} (data.split_file) has folds with the patients {sorted(unknown)}, whom the data set does not "
            "contain."
        )
    return folds


def _read_split(path: Path) -> dict[str, Any]:
    """Read a file of folds, and check its structure."""
    stored = read_json(path)
    if not isinstance(stored, dict) or not _is_list_of_names(stored.get("patients")) or not _are_folds(stored):
        raise InputError(
            f"{path} (data.split_file) contains no folds of this package; expected an object with split, patients and "
            "folds. Splits of other programs have to be converted, for example to a table of official sets."
        )
    return stored


def _are_folds(stored: dict[str, Any]) -> bool:
    """Return whether the contents of a file have the structure of folds."""
    sets = {field.name for field in fields(Fold)}
    folds, cases = stored.get("folds"), stored.get("cases", {})
    return (
        isinstance(folds, list)
        and all(isinstance(fold, dict) and fold.keys() == sets for fold in folds)
        and all(_is_list_of_names(fold[name]) for fold in folds for name in sets)
        and isinstance(cases, dict)
        and all(isinstance(place, list) and len(place) == 2 for place in cases.values())
    )


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def split_file_name(cases: list[Case], split: SplitName, n_folds: int, seed: int) -> str:
    """Return the name of a file of folds, which depends on the patients, so that data sets can share a folder."""
    patients = "\n".join(sorted({case.patient for case in cases}))
    digest = hashlib.blake2b(patients.encode(), digest_size=4).hexdigest()
    return f"{split}{n_folds if split == 'kfold' else ''}_seed{seed}_{digest}.json"


def _check_number(number: int, minimum: int, split: str) -> None:
    if number < minimum:
        raise InputError(f"The split {split} needs at least {minimum} patients, but the data set has {number}.")


def _official(patients: list[str], subsets: dict[str, str | None], generator: np.random.Generator) -> Fold:
    sets = {name: [p for p in patients if subsets[p] == name] for name in ("train", "val", "test")}
    if not sets["train"] or not sets["test"]:
        raise InputError("The data set has no official training and test sets; expected data.split kfold or study.")
    if not sets["val"]:
        _check_number(len(sets["train"]), 2, "official without a validation set")
        validation = generator.permutation(sets["train"])[: max(1, len(sets["train"]) // 8)]
        sets["val"] = sorted(str(name) for name in validation)
        sets["train"] = sorted(set(sets["train"]) - set(sets["val"]))
    return Fold(**sets)
