"""A network that finds the displacement between two images, and what applies it."""

import warnings
from typing import Any

import torch
from monai.networks.blocks import Warp
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from cm_lightning.errors import InputError

# MONAI's tutorial of DeepAtlas; the source study prints no sizes.
REGISTRATION_DEFAULTS: dict[str, Any] = {
    "channels": (16, 32, 32, 32, 32),
    "strides": (1, 2, 2, 2),
    "dropout": 0.2,
    "norm": "batch",
}


def create_registration_network(spatial_dims: int, image_channels: int, **options: Any) -> UNet:
    """Build a U-Net from a pair of images to a displacement field.

    Its last layer starts near zero (as in VoxelMorph, Balakrishnan et al. 2019), so that without residual units
    training begins at the identity.

    Args:
        spatial_dims: 2 or 3.
        image_channels: Channels of each image.
        **options: Arguments of MONAI's UNet, over :data:`REGISTRATION_DEFAULTS`.

    Returns:
        Network from ``(B, 2 * image_channels, ...)`` to a displacement in voxels, ``(B, spatial_dims, ...)``.

    Raises:
        InputError: An option that a UNet does not take.
    """
    try:
        network = UNet(
            spatial_dims=spatial_dims,
            in_channels=2 * image_channels,
            out_channels=spatial_dims,
            **{**REGISTRATION_DEFAULTS, **options},
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"The registration network does not take the options {options}: {error}.") from error
    last = [layer for layer in network.modules() if isinstance(layer, _ConvNd)][-1]
    nn.init.normal_(last.weight, std=1e-5)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
    return network


def warp(image: Tensor, displacement: Tensor) -> Tensor:
    """Move an image by a displacement field, in float32 whatever the precision of the training.

    Args:
        image: ``(B, channels, ...)``.
        displacement: In voxels, ``(B, spatial_dims, ...)``: the value at x is taken from x + displacement(x).

    Returns:
        Linearly interpolated image of ``image``'s shape, float32; beyond the border, the border's values.
    """
    with warnings.catch_warnings(), torch.autocast(image.device.type, enabled=False):
        warnings.filterwarnings("ignore", message=".*native grid_sample.*")
        return Warp()(image.float(), displacement.float())
