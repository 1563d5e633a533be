"""Cases of a data set, their patients and their folds."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_warn
from numpy.typing import NDArray
from tqdm import tqdm

from cm_lightning.data.cases import Case
from cm_lightning.data.duplicates import insonified_part, near_duplicate_groups
from cm_lightning.data.layouts import LayoutName, find_cases, unused_labels
from cm_lightning.data.reading import CaseReader
from cm_lightning.data.splits import Fold, SplitName, load_or_make_folds, split_file_name
from cm_lightning.errors import InputError
from cm_lightning.io import image_files, stem

Subset = Literal["train", "val", "test"]


@dataclass(frozen=True)
class CaseSets:
    """Cases of a data set and their folds, which are determined at first use.

    Args:
        root: Folder of the data set.
        layout: Folder layout of the data set.
        reader: Reader of images, which is needed to find near-duplicates for folds of images.
        folder: Folder in which the folds are stored.
        patient_pattern: Regular expression for the id of a case, whose first group is the patient.
        patient_table: CSV file with the columns case and patient, instead of the pattern.
        image_folds: Whether to allow folds of images if the patients are unknown.
        split: Kind of split.
        n_folds: Number of folds for ``kfold``.
        seed: Seed of the split.
        file: File of the folds, instead of a file in ``folder``.
    """

    root: Path
    layout: LayoutName
    reader: CaseReader
    folder: Path
    patient_pattern: str | None = None
    patient_table: Path | None = None
    image_folds: bool = False
    split: SplitName = "kfold"
    n_folds: int = 3
    seed: int = 0
    file: Path | None = None

    @cached_property
    def cases(self) -> list[Case]:
        """All cases of the data set with their patients (or groups of near-duplicate images).

        Raises:
            InputError: The patients are unknown, and folds of images are not allowed.
        """
        if not self._without_patients:
            return self._cases_on_disk
        if not self.image_folds:
            raise InputError(
                f"The patients of the data set at {self.root} are unknown, so images of one patient could end up in "
                "both the training and the test set. Set data.patient_pattern or data.patient_table, or split by image "
                "with --data.image_folds true."
            )
        images = [self._middle_frame(case) for case in tqdm(self._cases_on_disk, "Comparing images", unit="image")]
        groups = near_duplicate_groups(images)
        return [
            replace(case, patient=f"group{number:04d}")
            for case, number in zip(self._cases_on_disk, groups, strict=True)
        ]

    @cached_property
    def folds(self) -> list[Fold]:
        """Folds of the split, which are read from their file, or made and written to it if it does not exist.

        Raises:
            InputError: Patients are unknown, there are too few, or the file was made with other settings or patients.
        """
        path = self.file or self.folder / split_file_name(self.cases, self.split, self.n_folds, self.seed)
        return load_or_make_folds(path, self.cases, self.split, self.n_folds, self.seed)

    @property
    def grouping(self) -> str:
        """Unit by which cases are assigned to folds, for tables: patients, or groups of near-duplicate images."""
        return "image group (the data set names no patients)" if self._without_patients else "patient"

    def subset(self, fold: int, subset: Subset) -> list[Case]:
        """List the cases of a set of a fold.

        Args:
            fold: Number of the fold, from 0.
            subset: Name of the set.

        Returns:
            The cases.

        Raises:
            InputError: The fold does not exist.
        """
        if not 0 <= fold < len(self.folds):
            raise InputError(
                f"data.fold must be between 0 and {len(self.folds) - 1} for the split {self.split}, found {fold}."
            )
        patients = set(getattr(self.folds[fold], subset))
        return [case for case in self.cases if case.patient in patients]

    def labelled_patients(self, fold: int, fraction: float) -> list[str]:
        """Draw the training patients of a fold whose labels are used.

        Args:
            fold: Number of the fold, from 0.
            fraction: Fraction of the training patients, above 0 and up to 1.

        Returns:
            At least one patient.
        """
        patients = sorted({case.patient for case in self.subset(fold, "train")})
        number = max(1, round(fraction * len(patients)))
        return sorted(np.random.default_rng(self.seed).permutation(patients)[:number].tolist())

    def test_plan(self, fold: int) -> dict[str, Any]:
        """List the test cases of all folds, with which pooled results can be checked for completeness.

        Args:
            fold: Number of the current fold.

        Returns:
            Dictionary with ``split``, ``split_seed``, ``fold`` and ``test_cases``, a list of case ids for every fold.
        """
        test_cases = [[case.id for case in self.subset(number, "test")] for number in range(len(self.folds))]
        return {"split": self.split, "split_seed": self.seed, "fold": fold, "test_cases": test_cases}

    @cached_property
    def _cases_on_disk(self) -> list[Case]:
        cases = find_cases(self.root, self.layout, self.patient_pattern, self.patient_table)
        unused = unused_labels(self.root, self.layout, cases)
        if unused:
            others = f" (and {len(unused) - 1} more)" if len(unused) > 1 else ""
            rank_zero_warn(f"The label {unused[0]}{others} belongs to no image, and is not used.")
        return cases

    @property
    def _without_patients(self) -> bool:
        return not all(case.patient for case in self._cases_on_disk)

    def _middle_frame(self, case: Case) -> NDArray[np.generic]:
        """Return the insonified part of the middle frame of a case."""
        read = self.reader.read(case)
        self.reader.keep_in_memory(read)  # The next step, checking, needs the case again.
        image = read.arrays.image
        frame = image if image.ndim == 2 else image[:, :, image.shape[2] // 2]
        return insonified_part(frame, read.geometry.domain(frame))


def unlabelled_cases(path: Path) -> list[Case]:
    """List an image file, or all images in a folder, as cases without labels.

    Args:
        path: File or folder.

    Returns:
        One case per image. Its id is the name of the file without its suffix or, if several files have the same one,
        the whole name.

    Raises:
        InputError: There is no image.
    """
    files = [path] if path.is_file() else image_files(path) if path.is_dir() else []
    if not files:
        raise InputError(f"There is no image at {path} (data.predict_path); expected an image or a folder of them.")
    stems = Counter(stem(file) for file in files)
    names = [stem(file) if stems[stem(file)] == 1 else file.name for file in files]
    return [Case(name, name, file) for name, file in zip(names, files, strict=True)]
