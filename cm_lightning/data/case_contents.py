"""Comparison of the contents of all cases: images that are there twice, and classes that are in no label."""

import hashlib
from collections.abc import Sequence

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_warn

from cm_lightning.data.cases import Case
from cm_lightning.data.frames import to_frames
from cm_lightning.data.reading import ReadCase
from cm_lightning.errors import InputError


class CaseContents:
    """What the images and labels of a data set contain.

    Args:
        class_names: Names of the classes 1, 2, ...
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        self._images: dict[str, Case] = {}
        self._twice: list[tuple[Case, Case]] = []
        self._labelled: list[Case] = []
        self._present: set[int] = set()

    def add(self, read: ReadCase) -> None:
        """Add a case.

        Args:
            read: The case with its arrays.
        """
        digest = hashlib.blake2b(repr(read.arrays.image.shape).encode(), digest_size=16)
        image = to_frames(read.arrays.image)
        for frame in image if image.ndim == 3 else [image]:
            digest.update(np.ascontiguousarray(frame).tobytes())
        first = self._images.setdefault(digest.hexdigest(), read.case)
        if first.image != read.case.image:
            self._twice.append((first, read.case))
        label = read.arrays.label
        if label is not None:
            self._labelled.append(read.case)
            missing = set(range(1, len(self.class_names) + 1)) - self._present
            self._present |= {index for index in missing if (label == index).any()}

    def check(self) -> None:
        """Check all cases that were added.

        A warning names images that are there twice, and classes that are in no label.

        Raises:
            InputError: All labels are empty, so that nothing can be learnt or measured.
        """
        for first, second in self._twice[:3]:
            of_others = "" if first.patient == second.patient else ", of different patients"
            rank_zero_warn(
                f"{first.image} and {second.image} contain the same image{of_others}; if one is used for training and "
                "the other one for the test, the results are too good. Expected every image once."
            )
        if len(self._twice) > 3:
            rank_zero_warn(f"{len(self._twice) - 3} further images are there twice.")
        if not self._labelled:
            return
        if not self._present:
            raise InputError(
                f"All {len(self._labelled)} labels are empty, such as {self._labelled[0].label}; expected labels that "
                f"contain {', '.join(self.class_names)} (data.classes)."
            )
        absent = [name for index, name in enumerate(self.class_names, start=1) if index not in self._present]
        if absent:
            rank_zero_warn(
                f"{', '.join(absent)} (data.classes) is in none of the {len(self._labelled)} labels, so that it can be "
                "neither learnt nor measured."
            )
