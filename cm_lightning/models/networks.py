"""Segmentation networks and the input sizes that they support."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.networks.nets import UNETR, AttentionUnet, DynUNet, UNet
from torch import Tensor, nn
from torch.nn import functional as F

from cm_lightning.errors import InputError

NetworkName = Literal["UNet", "AttentionUnet", "DynUNet", "UNETR"]

# The study does not report its network sizes. These are the sizes of later MONAI configurations by its first author,
# with MONAI's defaults for all other arguments. The dropout rate of UNETR, 0 in MONAI, is increased for MC
# dropout.
# The DynUNet is not part of the study. It is that of our recipe for own data.
DEFAULTS: dict[NetworkName, dict[str, Any]] = {
    "UNet": {
        "channels": (8, 16, 16, 32, 32, 64, 64),
        "strides": (1, 2, 1, 2, 1, 2),
        "dropout": 0.2,
        "norm": "batch",
    },
    "AttentionUnet": {"channels": (8, 16, 32, 64), "strides": (2, 2, 2), "dropout": 0.2},
    "DynUNet": {"channels": (16, 32, 64, 128), "strides": (2, 2, 2), "dropout": 0.1},
    "UNETR": {
        "feature_size": 16,
        "hidden_size": 768,
        "mlp_dim": 3072,
        "num_heads": 12,
        "norm_name": "batch",
        "dropout_rate": 0.1,
    },
}


def _dyn_unet(
    channels: Sequence[int], strides: Sequence[Any], deep_supervision: bool = False, **options: Any
) -> DynUNet:
    """Create MONAI's DynUNet from the channels of its levels and the strides between them."""
    if len(channels) < 3:
        raise ValueError(f"at least three channels are needed, found {len(channels)}")
    return DynUNet(
        kernel_size=[3] * len(channels),
        strides=[1, *strides],
        upsample_kernel_size=list(strides),
        filters=channels,
        deep_supervision=deep_supervision,
        deep_supr_num=len(channels) - 2,  # all levels of the decoder but the one with the resolution of the input
        **options,
    )


CONSTRUCTORS: dict[NetworkName, Callable[..., nn.Module]] = {
    "UNet": UNet,
    "AttentionUnet": AttentionUnet,
    "DynUNet": _dyn_unet,
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
    """Create one of MONAI's segmentation networks.

    Args:
        name: ``UNet``, ``AttentionUnet``, ``DynUNet`` (the U-Net of nnU-Net) or ``UNETR``.
        spatial_dims: Number of spatial dimensions, 2 or 3.
        in_channels: Number of input channels.
        out_channels: Number of output channels: classes including the background, plus 1 for a confidence head.
        size: Size of the input in voxels along every axis, which is checked; None if it is not fixed. UNETR needs it
            for its position embedding.
        **options: Further arguments of the network, which take precedence over :data:`DEFAULTS`.

    Returns:
        Network from ``(B, in_channels, ...)`` to ``(B, out_channels, ...)``. While a DynUNet with the option
        ``deep_supervision`` is trained, its outputs are those of several levels, ``(B, levels, out_channels, ...)``,
        the finest one first.

    Raises:
        InputError: The name or an option is unknown, or the network does not support the size.

    References:
        Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015. Oktay et
        al., "Attention U-Net: learning where to look for the pancreas", MIDL 2018. Isensee et al., "nnU-Net: a
        self-configuring method for deep learning-based biomedical image segmentation", Nature Methods 2021. Hatamizadeh
        et al., "UNETR: transformers for 3D medical image segmentation", WACV 2022.
    """
    if name not in get_args(NetworkName):
        raise InputError(f"Unknown network {name!r}; expected one of {', '.join(get_args(NetworkName))}.")
    settings = {**DEFAULTS[name], **options}
    if name != "UNETR" and len(settings["strides"]) != len(settings["channels"]) - 1:
        raise InputError(
            f"{name} needs one stride fewer than channels; found {len(settings['channels'])} channels and "
            f"{len(settings['strides'])} strides (model.network_options)."
        )
    if name == "UNETR":
        if size is None:
            raise InputError("UNETR needs a fixed input size; set data.spatial_size or data.patch_size.")
        _check_divisible("UNETR with tokens of 16 voxels per side needs", [16] * len(size), size, smallest=1)
        settings["img_size"] = size
    try:
        network = CONSTRUCTORS[name](
            spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels, **settings
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"{name} does not accept the options {options}: {error}.") from error
    if isinstance(network, UNETR):
        _freeze_unused(network)
    if size is not None:
        check_size(network, size)
    return network


def check_size(network: nn.Module, size: tuple[int, ...]) -> None:
    """Check that a network supports an input size, before any data is read.

    Args:
        network: Any network. All sizes are accepted by networks other than those of :func:`create_network`.
        size: Size of the input in voxels along every axis.

    Raises:
        InputError: The network does not support this size; the message suggests a valid size.
    """
    match network:
        case UNet() | AttentionUnet() | DynUNet():
            subject = f"{type(network).__name__} with strides {list(network.strides)} needs"
            _check_divisible(subject, _total_strides(network, len(size)), size, smallest=2)
        case UNETR():
            expected = tuple(n * p for n, p in zip(network.feat_size, network.patch_size, strict=True))
            if tuple(size) != expected:
                raise InputError(
                    f"This UNETR was created for inputs of {list(expected)} voxels, which its position embedding "
                    f"requires; found {list(size)}. Use this size, or train a UNETR with the other size."
                )
        case _:
            pass


def supports_any_size(network: nn.Module) -> bool:
    """Return whether a network supports images of any size (after padding), rather than one fixed size.

    Args:
        network: Any network.

    Returns:
        True for all U-Nets.
    """
    return isinstance(network, UNet | AttentionUnet | DynUNet)


def pad_to_fit(network: nn.Module, inputs: Tensor) -> Tensor:
    """Pad images with zeros at the end of every axis to the next size that a network supports.

    Args:
        network: Any network.
        inputs: Images, ``(B, channels, ...)``.

    Returns:
        Padded images, ``(B, channels, ...)``.

    Raises:
        InputError: The network supports only one fixed size, and the images have a different size.
    """
    size = tuple(inputs.shape[2:])
    if not supports_any_size(network):
        check_size(network, size)
        return inputs
    factors = _total_strides(network, len(size))
    padding = [max(2, -(-n // factor)) * factor - n for n, factor in zip(size, factors, strict=True)]
    # F.pad expects the last axis first.
    return F.pad(inputs, [n for amount in reversed(padding) for n in (0, amount)]) if any(padding) else inputs


def use_channels_last(network: nn.Module) -> None:
    """Store the weights of convolutions with the channels last, in which GPUs compute convolutions fastest.

    Args:
        network: Any network, which is changed in place. Its results do not change.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weights in network.parameters():
        if weights.ndim in formats:
            weights.data = weights.data.contiguous(memory_format=formats[weights.ndim])


def count_parameters(network: nn.Module) -> int:
    """Count the trainable parameters of a module.

    Args:
        network: Any module.

    Returns:
        Number of parameters that require gradients.
    """
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _total_strides(network: UNet | AttentionUnet | DynUNet, dims: int) -> list[int]:
    """Return the product of all strides along every axis. Each stride is one number, or one number per axis."""
    total: list[int] = np.prod([np.broadcast_to(stride, dims) for stride in network.strides], axis=0).tolist()
    return total


def _check_divisible(subject: str, factors: Sequence[int], size: tuple[int, ...], smallest: int) -> None:
    """Check that sizes are divisible by factors, and that the quotients are at least ``smallest``.

    With a single voxel at the lowest resolution of a U-Net, normalisation layers could not estimate a variance.
    """
    if all(n % factor == 0 and n >= smallest * factor for n, factor in zip(size, factors, strict=True)):
        return
    valid = [max(smallest, round(n / factor)) * factor for n, factor in zip(size, factors, strict=True)]
    multiple, minimum = (
        str(values[0]) if len(set(values)) == 1 else str(values)
        for values in (list(factors), [smallest * factor for factor in factors])
    )
    raise InputError(
        f"{subject} inputs with sides that are multiples of {multiple} and at least {minimum}, found {list(size)}; "
        f"{valid} would be valid."
    )


def _freeze_unused(network: UNETR) -> None:
    """Freeze the cross-attention layers of MONAI's blocks, which UNETR does not use.

    Distributed training fails if trainable parameters do not receive gradients.
    """
    for block in network.vit.blocks:
        if not block.with_cross_attention:
            block.norm_cross_attn.requires_grad_(False)
            block.cross_attn.requires_grad_(False)
