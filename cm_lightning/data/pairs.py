"""Pairs of cases of different patients for registration."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.data import CacheDataset
from torch.utils.data import Dataset

from cm_lightning.data.augmentation import Batch
from cm_lightning.data.randomness import derived_seed
from cm_lightning.errors import InputError


class PairDataset(Dataset[Batch]):
    """Data set of pairs of cases of different patients.

    At least one case of each pair has a usable label, and the order of the two is random, as in DeepAtlas. Labels that
    must not be used are set to background.

    Args:
        cases: Prepared cases.
        labelled_patients: Patients whose labels are used.
        draws: Number of pairs per case with random partners, for training. None is for validation and test: there is
            one pair per case, in which the case is the first one, its partner is fixed, and all labels are used. Cases
            have no partner if there is only one patient.
        seed: Seed of the random partners.

    Raises:
        InputError: There is no possible partner for a training case.

    References:
        Xu and Niethammer, "DeepAtlas: joint semi-supervised learning of image registration and segmentation", MICCAI
        2019.
    """

    def __init__(
        self, cases: CacheDataset, labelled_patients: Sequence[str], draws: int | None = None, seed: int = 0
    ) -> None:
        self.seed = seed
        self.cases = cases
        self.draws = draws
        self.patients = [case.patient for case in cases.data]
        usable = set(self.patients) & set(self.patients if draws is None else labelled_patients)
        self.labelled = [patient in usable for patient in self.patients]
        for patient in sorted(set(self.patients)):
            others = set(self.patients) if patient in usable else usable
            if draws is not None and not others - {patient}:
                raise InputError(
                    f"Registration needs pairs of different patients, but there is no labelled case of a patient other "
                    f"than {patient} among {len(self.patients)} cases (data.labelled_fraction, data.split)."
                )

    def __len__(self) -> int:
        return len(self.patients) * (self.draws or 1)

    def __getitem__(self, index: int) -> Batch:
        """Return a case with the flag ``labelled``, and a second case under the key ``partner``.

        Random partners depend on the index only. It may be larger than the length, for other partners in every epoch.
        """
        first = index % len(self.patients)
        partners = self._find_partners(first)
        if not partners:
            return self._sample(first)
        if self.draws is None:
            # The next possible case, so that different cases have different partners.
            return self._pair(first, min(partners, key=lambda other: (other - first) % len(self.patients)))
        # Not the state of this process: that of the workers is lost when a run is interrupted.
        generator = torch.Generator().manual_seed(derived_seed(self.seed, index))
        second = partners[int(torch.randint(len(partners), (1,), generator=generator))]
        first_is_moving = torch.rand(1, generator=generator) < 0.5
        return self._pair(first, second) if first_is_moving else self._pair(second, first)

    def _find_partners(self, first: int) -> list[int]:
        others = [index for index, patient in enumerate(self.patients) if patient != self.patients[first]]
        labelled = [index for index in others if self.labelled[index]]
        # If there is only one labelled patient, the partners of this patient have no label.
        return labelled or (others if self.labelled[first] else [])

    def _pair(self, first: int, second: int) -> Batch:
        partner = self._sample(second)
        # The partner is not measured at file resolution.
        for key in ("native_label", "native_domain"):
            partner.pop(key, None)
        return {**self._sample(first), "partner": partner}

    def _sample(self, index: int) -> dict[str, Any]:
        sample = {**self.cases[index], "labelled": torch.tensor(self.labelled[index])}
        if not self.labelled[index]:
            sample["label"] = torch.zeros_like(sample["label"])
        return sample
