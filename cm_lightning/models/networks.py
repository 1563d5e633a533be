"""Segmentation networks by name."""

from typing import Any, Literal

import torch
from monai.networks.nets import UNet
from torch import nn

from cm_lightning.errors import InputError

NetworkName = Literal["UNet"]

# Sizes of the U-Net. The source study prints none; these are those of its first author's later MONAI settings.
UNET_DEFAULTS: dict[str, Any] = {
    "channels": (8, 16, 16, 32, 32, 64, 64),
    "strides": (1, 2, 1, 2, 1, 2),
    "dropout": 0.2,
    "norm": "batch",
}


def create_network(
    name: NetworkName, spatial_dims: int, in_channels: int, out_channels: int, **options: Any
) -> nn.Module:
    """Build a network that gives one logit a class and voxel.

    Args:
        name: ``UNet`` (MONAI's residual-free U-Net).
        spatial_dims: 2 or 3.
        in_channels: Input channels.
        out_channels: Classes, background included.
        **options: The network's own arguments, over the defaults of this module.

    Returns:
        The network.

    Raises:
        InputError: Unknown name or option.
    """
    match name:
        case "UNet":
            settings = {**UNET_DEFAULTS, **options}
            try:
                network: nn.Module = UNet(spatial_dims, in_channels, out_channels, **settings)
            except TypeError as error:
                raise InputError(f"UNet does not take the options {options}: {error}.") from error
            return network
        case _:
            raise InputError(f"Unknown network {name!r}; expected one of UNet.")


def refuse_size(network: nn.Module, spatial_dims: int, in_channels: int, size: tuple[int, ...]) -> None:
    """Check that a network takes a grid, before any data is read.

    Args:
        network: The network.
        spatial_dims: 2 or 3.
        in_channels: Its input channels.
        size: The grid.

    Raises:
        InputError: The grid does not fit; the message says which sizes would.
    """
    if not isinstance(network, UNet):
        return
    factor = int(torch.tensor(network.strides).prod())
    wrong = [n for n in size if n % factor or n // factor < 2]
    if wrong:
        fitting = [max(2, round(n / factor)) * factor for n in size]
        raise InputError(
            f"A UNet with strides {list(network.strides)} halves its grid to 1 / {factor} and needs sides that are "
            f"multiples of {factor}, at least {2 * factor}; found {list(size)}. {fitting} would work."
        )
