"""What makes a registration good: similar images, a smooth field, overlapping anatomy."""

import warnings

import torch
from monai.losses import BendingEnergyLoss, DiceLoss, LocalNormalizedCrossCorrelationLoss
from torch import Tensor, nn


class ImageSimilarity(nn.Module):
    """Local normalised cross-correlation, negated and squared, so that -1 is perfect; in float32.

    Args:
        spatial_dims: 2 or 3.
        window: Side of the neighbourhoods that are compared, in voxels, odd.
    """

    def __init__(self, spatial_dims: int, window: int = 3) -> None:
        super().__init__()
        # In flat neighbourhoods, as outside the sector, both variances are zero: MONAI's own floor of 1e-5.
        self.correlation = LocalNormalizedCrossCorrelationLoss(spatial_dims=spatial_dims, kernel_size=window)

    def forward(self, warped: Tensor, fixed: Tensor) -> Tensor:
        """Compare two images.

        Args:
            warped: Moved image, ``(B, channels, ...)``.
            fixed: The image it should look like, of the same shape.

        Returns:
            Scalar in [-1, 0].
        """
        with torch.autocast(fixed.device.type, enabled=False):
            return self.correlation(warped.float(), fixed.float())


def bending_energy(displacement: Tensor) -> Tensor:
    """Mean squared second derivative of a displacement field, in float32.

    Args:
        displacement: In voxels, ``(B, dims, ...)``.

    Returns:
        Scalar; 0 for an affine field.
    """
    with warnings.catch_warnings(), torch.autocast(displacement.device.type, enabled=False):
        # MONAI 1.6 indexes with lists of slices, of which newer torch warns.
        warnings.filterwarnings("ignore", message=".*non-tuple sequence.*")
        return BendingEnergyLoss()(displacement.float())


def anatomy_loss(warped: Tensor, fixed: Tensor) -> Tensor:
    """One minus soft Dice between two anatomies, mean over classes and batch.

    Args:
        warped: Class probabilities that were moved, ``(B, C, ...)``.
        fixed: Class probabilities, of the same shape.

    Returns:
        Scalar.
    """
    return DiceLoss()(warped.float(), fixed.float())
