"""The cases of a data set, whose they are, and the folds that they are divided into."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cm_lightning.data.cases import Case
from cm_lightning.data.duplicates import near_duplicate_groups
from cm_lightning.data.layouts import LayoutName, find_cases
from cm_lightning.data.reading import CaseReader
from cm_lightning.data.splits import Fold, SplitName, load_or_make_folds, split_file_name
from cm_lightning.errors import InputError
from cm_lightning.io import is_image, stem

Subset = Literal["train", "val", "test"]


@dataclass(frozen=True)
class CaseSets:
    """Finds the cases of a data set and divides them into folds; nothing is read before it is asked for.

    Args:
        root: The data set's folder.
        layout: How the data set lies on disk.
        reader: Reads images, where folds are of images and near-duplicates have to be found.
        folder: Where files of folds are kept.
        patient_pattern: Regular expression on the case's id whose first group is the patient.
        patient_table: CSV file with the columns case and patient, in place of the pattern.
        image_folds: Allow folds of images where no patient is known.
        split: Kind of split.
        n_folds: Number of folds of ``kfold``.
        seed: Of the split.
        file: File of the folds, in place of one in ``folder``.
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
        """All cases of the data set, each with its patient (or its group of near-duplicate images)."""
        if not self._without_patients:
            return self._cases_on_disk
        if not self.image_folds:
            raise InputError(
                f"The data set at {self.root} does not tell which patient an image is of, so folds would mix patients. "
                "Give data.patient_pattern or data.patient_table, or accept folds of images with data.image_folds true."
            )
        images = [self._middle_frame(case) for case in tqdm(self._cases_on_disk, "Comparing images", unit="image")]
        groups = near_duplicate_groups(images)
        return [
            replace(case, patient=f"group{number:04d}")
            for case, number in zip(self._cases_on_disk, groups, strict=True)
        ]

    @cached_property
    def folds(self) -> list[Fold]:
        """The folds of the split, from its file where there is one."""
        path = self.file or self.folder / split_file_name(self.cases, self.split, self.n_folds, self.seed)
        return load_or_make_folds(path, self.cases, self.split, self.n_folds, self.seed)

    @property
    def grouping(self) -> str:
        """What a fold is made of, for tables."""
        return "image group (the data set names no patients)" if self._without_patients else "patient"

    def subset(self, fold: int, subset: Subset) -> list[Case]:
        """List the cases of one set of a fold.

        Args:
            fold: Which fold.
            subset: Which set.

        Returns:
            Its cases.

        Raises:
            InputError: There is no such fold.
        """
        if not 0 <= fold < len(self.folds):
            raise InputError(f"data.fold must be 0 to {len(self.folds) - 1} for split {self.split}, found {fold}.")
        patients = set(getattr(self.folds[fold], subset))
        return [case for case in self.cases if case.patient in patients]

    def labelled_patients(self, fold: int, share: float) -> list[str]:
        """Draw the training patients of a fold whose labels may be used.

        Args:
            fold: Which fold.
            share: Which share of them, in (0, 1].

        Returns:
            At least one patient.
        """
        patients = sorted({case.patient for case in self.subset(fold, "train")})
        number = max(1, round(share * len(patients)))
        return sorted(np.random.default_rng(self.seed).permutation(patients)[:number].tolist())

    def test_plan(self, fold: int) -> dict[str, Any]:
        """Say which cases are tested in which fold, so that pooled results can be checked to be complete.

        Args:
            fold: The fold that is run.

        Returns:
            ``split`` and ``split_seed``, the ``fold``, and ``test_cases``: a list of case ids for every fold.
        """
        tested = [[case.id for case in self.subset(number, "test")] for number in range(len(self.folds))]
        return {"split": self.split, "split_seed": self.seed, "fold": fold, "test_cases": tested}

    @cached_property
    def _cases_on_disk(self) -> list[Case]:
        return find_cases(self.root, self.layout, self.patient_pattern, self.patient_table)

    @property
    def _without_patients(self) -> bool:
        return not all(case.patient for case in self._cases_on_disk)

    def _middle_frame(self, case: Case) -> NDArray[np.generic]:
        """Insonified part of the case's middle frame."""
        read = self.reader.read(case)
        self.reader.hold(read)  # it is checked next
        image = read.arrays.image
        frame = image if image.ndim == 2 else image[:, :, image.shape[2] // 2]
        inside = read.geometry.domain(frame)
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if not len(rows):
            return frame
        part: NDArray[np.generic] = frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
        return part


def unlabelled_cases(path: Path) -> list[Case]:
    """List the cases of an image file, or of all images in a folder.

    Args:
        path: File or folder.

    Returns:
        A case for every image, without a label.

    Raises:
        InputError: There is none.
    """
    files = [path] if path.is_file() else sorted(file for file in path.glob("*") if is_image(file))
    if not files:
        raise InputError(f"There is no image at {path} (data.predict_path); expected an image or a folder of them.")
    return [Case(stem(file), stem(file), file) for file in files]
