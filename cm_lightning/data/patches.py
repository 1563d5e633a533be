"""Patches of training, cut from whole images once these have their maps and are augmented."""

from typing import Any

import torch
from monai.transforms import RandCropByPosNegLabeld, SpatialPadd

from cm_lightning.data.augmentation import INTERPOLATION, Batch


class PatchCutter:
    """Cuts patches from a training case, some of them centred on a class.

    Args:
        size: Size of a patch, ``(depth, lateral[, elevation])``; smaller images are padded with zeros.
        per_case: Patches cut from every case.
        foreground: Share of the patches that are centred on a class, the rest on background.
    """

    def __init__(self, size: tuple[int, ...], per_case: int, foreground: float) -> None:
        keys = list(INTERPOLATION)
        self._pad = SpatialPadd(keys, size, allow_missing_keys=True)
        self._crop = RandCropByPosNegLabeld(
            keys,
            label_key="label",
            spatial_size=size,
            pos=foreground,
            neg=1 - foreground,
            num_samples=per_case,
            allow_missing_keys=True,
        )

    def __call__(self, batch: Batch) -> list[Batch]:
        """Cut patches, drawn from torch's random numbers.

        Args:
            batch: A batch of one case, ``(1, 1, depth, lateral[, elevation])``.

        Returns:
            The patches, each ``(1, *size)`` under the keys of the batch, with the case's spacing and names.
        """
        self._crop.set_random_state(seed=int(torch.randint(2**31, (1,))))
        case = {key: batch[key][0] for key in INTERPOLATION if key in batch}
        kept: dict[str, Any] = {key: batch[key][0] for key in ("spacing", "case", "patient")}
        return [{**{key: patch[key].as_tensor() for key in case}, **kept} for patch in self._crop(self._pad(case))]
