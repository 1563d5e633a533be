"""Segmentation networks by name, with the sizes of the source study."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from monai.networks.nets import UNETR, AttentionUnet, UNet
from torch import Tensor, nn
from torch.nn import functional as F

from cm_lightning.errors import InputError

NetworkName = Literal["UNet", "AttentionUnet", "UNETR"]

# The source study prints no sizes. These are those of its first author's later MONAI settings; what they leave open is
# MONAI's default, except UNETR's dropout (there 0), which is ours, so that MC dropout has something to vary.
DEFAULTS: dict[NetworkName, dict[str, Any]] = {
    "UNet": {
        "channels": (8, 16, 16, 32, 32, 64, 64),
        "strides": (1, 2, 1, 2, 1, 2),
        "dropout": 0.2,
        "norm": "batch",
    },
    "AttentionUnet": {"channels": (8, 16, 32, 64), "strides": (2, 2, 2), "dropout": 0.2},
    "UNETR": {
        "feature_size": 16,
        "hidden_size": 768,
        "mlp_dim": 3072,
        "num_heads": 12,
        "norm_name": "batch",
        "dropout_rate": 0.1,
    },
}
CONSTRUCTORS: dict[NetworkName, Callable[..., nn.Module]] = {
    "UNet": UNet,
    "AttentionUnet": AttentionUnet,
    "UNETR": UNETR,
}


def create_network(
    name: NetworkName,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    size: tuple[int, ...] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network that gives ``out_channels`` values a voxel.

    Args:
        name: ``UNet`` (Ronneberger et al. 2015), ``AttentionUnet`` (Oktay et al. 2018) or ``UNETR`` (Hatamizadeh et al.
            2022), as in MONAI.
        spatial_dims: 2 or 3.
        in_channels: Input channels.
        out_channels: Output channels: classes, background included, and the confidence head where there is one.
        size: Grid of its inputs, checked where it is given. UNETR needs it: its position embedding belongs to one grid.
        **options: The network's own arguments, over :data:`DEFAULTS`.

    Returns:
        The network.

    Raises:
        InputError: Unknown name or option, or a grid that the network does not take.
    """
    if name not in get_args(NetworkName):
        raise InputError(f"Unknown network {name!r}; expected one of {', '.join(get_args(NetworkName))}.")
    settings = {**DEFAULTS[name], **options}
    if name != "UNETR" and len(settings["strides"]) != len(settings["channels"]) - 1:
        raise InputError(
            f"{name} needs a stride for every step from one number of channels to the next; found "
            f"{len(settings['channels'])} channels and {len(settings['strides'])} strides (model.network_options)."
        )
    if name == "UNETR":
        if size is None:
            raise InputError("UNETR is built for one grid; give data.spatial_size or data.patch_size.")
        _check_divisible("UNETR's tokens of 16 voxels a side need", [16] * len(size), size, smallest=1)
        settings["img_size"] = size
    try:
        network = CONSTRUCTORS[name](
            spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels, **settings
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"{name} does not take the options {options}: {error}.") from error
    if isinstance(network, UNETR):
        _freeze_unused(network)
    if size is not None:
        check_size(network, size)
    return network


def check_size(network: nn.Module, size: tuple[int, ...]) -> None:
    """Check that a network takes a grid, before any data is read.

    Args:
        network: The network.
        size: The grid.

    Raises:
        InputError: The grid does not fit; the message says which sizes would.
    """
    match network:
        case UNet() | AttentionUnet():
            who = f"{type(network).__name__} with strides {list(network.strides)} needs"
            _check_divisible(who, _total_strides(network, len(size)), size, smallest=2)
        case UNETR():
            built_for = tuple(n * p for n, p in zip(network.feat_size, network.patch_size, strict=True))
            if tuple(size) != built_for:
                raise InputError(
                    f"This UNETR was built for a grid of {list(built_for)}, to which its position embedding belongs; "
                    f"found {list(size)}. Only {list(built_for)} works, or a UNETR that is trained on the other grid."
                )
        case _:
            pass


def takes_any_grid(network: nn.Module) -> bool:
    """Whether a network runs on images of any size, padded by some voxels, or was built for one grid."""
    return isinstance(network, UNet | AttentionUnet)


def pad_to_fit(network: nn.Module, inputs: Tensor) -> Tensor:
    """Pad images with zeros at the ends of their axes, up to the next grid that a network takes.

    Args:
        network: The network.
        inputs: ``(B, channels, ...)``.

    Returns:
        The inputs, larger where they had to be.

    Raises:
        InputError: The network takes no other grid than one.
    """
    size = tuple(inputs.shape[2:])
    if not takes_any_grid(network):
        check_size(network, size)
        return inputs
    factors = _total_strides(network, len(size))
    missing = [max(2, -(-n // factor)) * factor - n for n, factor in zip(size, factors, strict=True)]
    # F.pad counts the axes from the last one.
    return F.pad(inputs, [n for more in reversed(missing) for n in (0, more)]) if any(missing) else inputs


def count_parameters(network: nn.Module) -> int:
    """Count the numbers that training changes."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _total_strides(network: UNet | AttentionUnet, dims: int) -> list[int]:
    """How many voxels of the grid are one at the bottom, along every axis; a stride is one number, or one an axis."""
    total: list[int] = np.prod([np.broadcast_to(stride, dims) for stride in network.strides], axis=0).tolist()
    return total


def _check_divisible(who: str, factors: Sequence[int], size: tuple[int, ...], smallest: int) -> None:
    """Check that a grid is reduced to whole voxels, ``smallest`` or more a side.

    One voxel a side at the bottom of a U-Net would leave its norm nothing to estimate a spread from.
    """
    if all(n % factor == 0 and n >= smallest * factor for n, factor in zip(size, factors, strict=True)):
        return
    fitting = [max(smallest, round(n / factor)) * factor for n, factor in zip(size, factors, strict=True)]
    multiples, least = (
        str(values[0]) if len(set(values)) == 1 else str(values)
        for values in (list(factors), [smallest * factor for factor in factors])
    )
    raise InputError(
        f"{who} a grid whose sides are multiples of {multiples}, at least {least}; found {list(size)}. "
        f"{fitting} would work."
    )


def _freeze_unused(network: UNETR) -> None:
    """Freeze the cross-attention that MONAI's blocks hold and UNETR never runs.

    Parameters that never receive a gradient stop distributed training.
    """
    for block in network.vit.blocks:
        if not block.with_cross_attention:
            block.norm_cross_attn.requires_grad_(False)
            block.cross_attn.requires_grad_(False)
