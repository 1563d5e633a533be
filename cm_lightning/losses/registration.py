"""Registration losses: image similarity, smoothness of the displacement and overlap of the anatomy."""

import warnings

import torch
from monai.losses import BendingEnergyLoss, DiceLoss, LocalNormalizedCrossCorrelationLoss
from torch import Tensor, nn


class ImageSimilarity(nn.Module):
    """Negative squared local normalised cross-correlation, in float32.

    Args:
        spatial_dims: Number of spatial dimensions, 2 or 3.
        window: Side length of the local neighbourhoods in voxels, an odd number.

    References:
        Avants et al., "Symmetric diffeomorphic image registration with cross-correlation: evaluating automated labeling
        of elderly and neurodegenerative brain", Medical Image Analysis 2008.
    """

    def __init__(self, spatial_dims: int, window: int = 3) -> None:
        super().__init__()
        # In constant neighbourhoods, such as those outside a fan, both variances are 0. MONAI adds 1e-5 to them.
        self.correlation = LocalNormalizedCrossCorrelationLoss(spatial_dims=spatial_dims, kernel_size=window)

    def forward(self, warped: Tensor, fixed: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            warped: Warped moving image, ``(B, channels, ...)``.
            fixed: Fixed image, ``(B, channels, ...)``.

        Returns:
            Loss from -1 (equal images) to 0, a scalar.
        """
        with torch.autocast(fixed.device.type, enabled=False):
            return self.correlation(warped.float(), fixed.float())


def bending_energy(displacement: Tensor) -> Tensor:
    """Compute the bending energy of a displacement field in float32: its mean squared second derivative.

    Args:
        displacement: Displacements in voxels, ``(B, dims, ...)``.

    Returns:
        Bending energy, a scalar; 0 for affine transformations.

    References:
        Rueckert et al., "Nonrigid registration using free-form deformations: application to breast MR images", IEEE TMI
        1999.
    """
    with warnings.catch_warnings(), torch.autocast(displacement.device.type, enabled=False):
        # MONAI 1.6 indexes tensors with lists of slices, about which newer versions of PyTorch warn.
        warnings.filterwarnings("ignore", message=".*non-tuple sequence.*")
        return BendingEnergyLoss()(displacement.float())


def anatomy_loss(warped: Tensor, fixed: Tensor) -> Tensor:
    """Compute the soft Dice loss between a warped and a fixed segmentation, averaged over classes and batch.

    Args:
        warped: Warped class probabilities of the moving image, ``(B, C, ...)``.
        fixed: Class probabilities of the fixed image, ``(B, C, ...)``.

    Returns:
        Loss from 0 to 1, a scalar.

    References:
        Xu and Niethammer, "DeepAtlas: joint semi-supervised learning of image registration and segmentation", MICCAI
        2019.
    """
    return DiceLoss()(warped.float(), fixed.float())
