"""Training patches, which are cut from augmented images with their confidence maps."""

from typing import Any

import torch
from monai.transforms import RandCropByPosNegLabeld, SpatialPadd

from cm_lightning.data.augmentation import INTERPOLATION, Batch
from cm_lightning.data.ignored import known_only


class PatchCutter:
    """Transform that cuts random patches from a training case.

    Args:
        size: Size of a patch in voxels, (depth, lateral[, elevation]). Smaller images are padded with zeros.
        per_case: Number of patches per case.
        foreground: Fraction of the patches that are centred on a class. All others are centred on background.
    """

    def __init__(self, size: tuple[int, ...], per_case: int, foreground: float) -> None:
        keys = list(INTERPOLATION)
        self._pad = SpatialPadd([*keys, "foreground"], size, allow_missing_keys=True)
        self._crop = RandCropByPosNegLabeld(
            keys,
            label_key="foreground",
            spatial_size=size,
            pos=foreground,
            neg=1 - foreground,
            num_samples=per_case,
            allow_missing_keys=True,
        )

    def __call__(self, batch: Batch) -> list[Batch]:
        """Cut patches at random positions, which depend on the random state of PyTorch.

        Args:
            batch: Batch of one case, with entries of shape ``(1, 1, depth, lateral[, elevation])``.

        Returns:
            Patches with entries of shape ``(1, *size)``, and with the spacing and names of the case.
        """
        self._crop.set_random_state(seed=int(torch.randint(2**31, (1,))))
        case = {key: batch[key][0] for key in INTERPOLATION if key in batch}
        metadata: dict[str, Any] = {key: batch[key][0] for key in ("spacing", "case", "patient")}
        (foreground,) = known_only(case["label"])
        patches = self._crop(self._pad({**case, "foreground": foreground}))
        return [{**{key: patch[key].as_tensor() for key in case}, **metadata} for patch in patches]
