"""Registration network and warping of images."""

import warnings
from typing import Any

import torch
from monai.networks.blocks import Warp
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from cm_lightning.errors import InputError

# Options of MONAI's DeepAtlas tutorial, because the study does not report its own.
REGISTRATION_DEFAULTS: dict[str, Any] = {
    "channels": (16, 32, 32, 32, 32),
    "strides": (1, 2, 2, 2),
    "dropout": 0.2,
    "norm": "batch",
}


def create_registration_network(spatial_dims: int, image_channels: int, **options: Any) -> UNet:
    """Create a U-Net that predicts the displacement field between two images.

    The weights of its last layer are initialised close to 0, as in VoxelMorph, so that training starts at the identity
    (unless the network has residual units).

    Args:
        spatial_dims: Number of spatial dimensions, 2 or 3.
        image_channels: Number of channels of each image.
        **options: Arguments of MONAI's UNet, which take precedence over :data:`REGISTRATION_DEFAULTS`.

    Returns:
        Network from ``(B, 2 * image_channels, ...)`` to displacements in voxels, ``(B, spatial_dims, ...)``.

    Raises:
        InputError: An option is not an argument of UNet, or its value is invalid.

    References:
        Xu and Niethammer, "DeepAtlas: joint semi-supervised learning of image registration and segmentation", MICCAI
        2019. Balakrishnan et al., "VoxelMorph: a learning framework for deformable medical image registration", IEEE
        TMI 2019.
    """
    try:
        network = UNet(
            spatial_dims=spatial_dims,
            in_channels=2 * image_channels,
            out_channels=spatial_dims,
            **{**REGISTRATION_DEFAULTS, **options},
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"The registration network does not accept the options {options}: {error}.") from error
    last = [layer for layer in network.modules() if isinstance(layer, _ConvNd)][-1]
    nn.init.normal_(last.weight, std=1e-5)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
    return network


def warp(image: Tensor, displacement: Tensor) -> Tensor:
    """Warp an image with a displacement field, in float32 also during training with lower precision.

    Args:
        image: Moving image, ``(B, channels, ...)``.
        displacement: Displacements in voxels, ``(B, spatial_dims, ...)``. The warped value at ``x`` is the image at
            ``x + displacement(x)``.

    Returns:
        Warped image with linear interpolation, float32, ``(B, channels, ...)``. Positions outside the image take the
        value of the nearest border voxel.
    """
    with warnings.catch_warnings(), torch.autocast(image.device.type, enabled=False):
        warnings.filterwarnings("ignore", message=".*native grid_sample.*")
        return Warp()(image.float(), displacement.float())
