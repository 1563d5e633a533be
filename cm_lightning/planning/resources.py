"""Memory of the machine, and the memory that the training of a network takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil
import torch

from cm_lightning.models import NetworkName, create_network

GIB = 2**30
# Fraction of the memory that a training may take, and the most that it takes; nnU-Net plans for 8 GB, too.
FRACTION = {"gpu": 0.8, "cpu": 0.5}
MOST = 8 * GIB
# Weights, gradients and two moments of Adam. Activations in float32, and the gradients of some of them: 1.0 to 1.1
# times four bytes were measured, and a quarter is reserved.
BYTES_PER_PARAMETER = 16
BYTES_PER_ACTIVATION = 5


@dataclass(frozen=True)
class Resources:
    """What a training may use.

    Attributes:
        memory: Memory in bytes.
        has_gpu: Whether there is a GPU.
        has_bf16: Whether the GPU computes in bfloat16.
    """

    memory: int
    has_gpu: bool = False
    has_bf16: bool = False

    @property
    def device(self) -> str:
        """Device, for people."""
        return "GPU" if self.has_gpu else "CPU"


def find_resources(may_use_gpu: bool = True) -> Resources:
    """Return the memory for a training on this machine: the GPU's, or the CPU's without a GPU.

    Args:
        may_use_gpu: Whether a GPU is used if there is one.

    Returns:
        The resources, which do not depend on other programs that are running.
    """
    if may_use_gpu and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        return Resources(int(min(MOST, FRACTION["gpu"] * total)), True, torch.cuda.is_bf16_supported())
    return Resources(int(min(MOST, FRACTION["cpu"] * psutil.virtual_memory().total)))


def training_memory(
    size: Sequence[int], batch: int, channels: Sequence[int], strides: Sequence[Any], **options: Any
) -> int:
    """Estimate the memory that the training of a U-Net takes.

    The network is built without storage, and the sizes of the outputs of all its layers are added up.

    Args:
        size: Size of an image or patch, ``(depth, lateral[, elevation])``.
        batch: Number of images or patches per batch.
        channels: Channels of every level.
        strides: Strides between the levels.
        **options: Further options of the network.

    Returns:
        Number of bytes.
    """
    levels = tuple(tuple(stride) if isinstance(stride, Sequence) else stride for stride in strides)
    parameters, activations = _count(tuple(size), tuple(channels), levels, tuple(sorted(options.items())))
    return parameters * BYTES_PER_PARAMETER + batch * activations * BYTES_PER_ACTIVATION


@cache
def _count(
    size: tuple[int, ...], channels: tuple[int, ...], strides: tuple[Any, ...], options: tuple[tuple[str, Any], ...]
) -> tuple[int, int]:
    """Return the numbers of parameters, and of values that the layers compute for one image."""
    name: NetworkName = "DynUNet"
    with torch.device("meta"):
        network = create_network(name, len(size), 1, 2, channels=channels, strides=strides, **dict(options))
        counted: list[int] = []
        for layer in network.modules():
            if next(layer.children(), None) is None:
                layer.register_forward_hook(lambda _layer, _inputs, output: counted.append(output.numel()))
        with torch.no_grad():
            network(torch.zeros(1, 1, *size))
    return sum(math.prod(weights.shape) for weights in network.parameters()), sum(counted)
