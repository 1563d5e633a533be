"""Pairs of cases of different patients, for registration."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.data import CacheDataset
from torch.utils.data import Dataset

from cm_lightning.data.augmentation import Batch
from cm_lightning.errors import InputError


class PairDataset(Dataset[Batch]):
    """Every case with a partner of another patient.

    One of the two always has a label that may be used, and which of them comes first is random, as in DeepAtlas (Xu
    and Niethammer 2019). A label that may not be used is not given away: it is all background.

    Args:
        cases: Prepared cases.
        labelled_patients: Patients whose labels may be used.
        draws: How often each case comes, each time with a random partner. None gives every case once, first, with all
            labels, and the same partner every time: for validation and testing. A set of one patient then has no
            partners.

    Raises:
        InputError: All cases to draw from are of one patient.
    """

    def __init__(self, cases: CacheDataset, labelled_patients: Sequence[str], draws: int | None = None) -> None:
        self.cases = cases
        self.draws = draws
        self.patients = [case.patient for case in cases.data]
        usable = set(self.patients) & set(self.patients if draws is None else labelled_patients)
        self.labelled = [patient in usable for patient in self.patients]
        for patient in sorted(set(self.patients)):
            others = set(self.patients) if patient in usable else usable
            if draws is not None and not others - {patient}:
                raise InputError(
                    f"Registration needs pairs of different patients; found no labelled case of another patient than "
                    f"{patient} in a set of {len(self.patients)} (data.labelled_fraction, data.split)."
                )

    def __len__(self) -> int:
        return len(self.patients) * (self.draws or 1)

    def __getitem__(self, index: int) -> Batch:
        """Give a case, with ``labelled`` (bool) and under ``partner`` another one like it."""
        first = index % len(self.patients)
        partners = self._find_partners(first)
        if not partners:
            return self._sample(first)
        if self.draws is None:
            # The next in order, so that nobody is everybody's partner.
            return self._pair(first, min(partners, key=lambda other: (other - first) % len(self.patients)))
        second = partners[int(torch.randint(len(partners), (1,)))]
        return self._pair(first, second) if torch.rand(1) < 0.5 else self._pair(second, first)

    def _find_partners(self, first: int) -> list[int]:
        others = [index for index, patient in enumerate(self.patients) if patient != self.patients[first]]
        labelled = [index for index in others if self.labelled[index]]
        # With a single labelled patient, that patient's own partners have no label.
        return labelled or (others if self.labelled[first] else [])

    def _pair(self, first: int, second: int) -> Batch:
        partner = self._sample(second)
        # Only the case itself is measured at file resolution.
        partner.pop("native_label", None)
        return {**self._sample(first), "partner": partner}

    def _sample(self, index: int) -> dict[str, Any]:
        sample = {**self.cases[index], "labelled": torch.tensor(self.labelled[index])}
        if not self.labelled[index]:
            sample["label"] = torch.zeros_like(sample["label"])
        return sample
