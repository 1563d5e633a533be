"""Plan of a training: grid or patch, depth of the U-Net, batch and number of epochs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cm_lightning.data.sizes import choose_size
from cm_lightning.errors import InputError
from cm_lightning.planning.fingerprint import Fingerprint
from cm_lightning.planning.resources import GIB, Resources, training_memory

# Rules of nnU-Net: an axis is halved as long as its half has this number of voxels, unless its voxels are twice as
# large as those of another such axis; channels double with every level up to a maximum; a batch has at least two
# patches, and at most this part of the voxels of a data set; a patch has at most the extent of the median image.
SMALLEST = 4
MOST_CHANNELS = {2: 512, 3: 320}
LEAST_BATCH = 2
COVERED = 0.05
# Limits that are not nnU-Net's: a larger batch would leave too few steps of a short training. Whole frames are resized.
# Twice the channels take about 2.6 times as long on a CPU, and were not better on 146 frames.
CHANNELS = {"gpu": 32, "cpu": 16}
MOST_BATCH = {2: 32, 3: 8}
MOST_SIDE = {"gpu": {2: 512, 3: 160}, "cpu": {2: 256, 3: 64}}
STEPS = {"gpu": 6000, "cpu": 1500}
EPOCHS = (20, 1000)
NETWORK = {"dropout": 0.1, "deep_supervision": True}


@dataclass(frozen=True)
class Plan:
    """Plan of a training.

    Attributes:
        size: Size of whole images, or of patches of volumes, ``(depth, lateral[, elevation])``.
        is_patch: Whether the size is that of patches.
        spacing: Voxel size to which volumes are resampled; None for frames, which are resized as a whole.
        channels: Channels of the levels of the U-Net.
        strides: Strides between the levels, one per axis.
        batch_size: Number of images or patches per batch.
        max_epochs: Number of epochs.
        memory: Estimated memory in bytes.
    """

    size: tuple[int, ...]
    is_patch: bool
    spacing: tuple[float, ...] | None
    channels: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    batch_size: int
    max_epochs: int
    memory: int


def make_plan(
    data: Fingerprint,
    resources: Resources,
    size: Sequence[int] | None = None,
    batch_size: int | None = None,
    training_cases: int | None = None,
) -> Plan:
    """Plan a training.

    Args:
        data: Fingerprint of the data set.
        resources: Memory of the machine.
        size: Size of images or patches, if it is given.
        batch_size: Number of images or patches per batch, if it is given.
        training_cases: Number of training cases of a fold; by default, two thirds of all cases.

    Returns:
        The plan.

    Raises:
        InputError: The images are smaller than the smallest patch, or the memory is too small for any plan.

    References:
        Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
        Nature Methods 2021, Supplementary Note 2.
    """
    smallest = 2 * SMALLEST
    if size is None and sorted(data.shape)[-2] < smallest:
        voxels = " x ".join(f"{side:g}" for side in data.shape)
        raise InputError(
            f"The images of the data set have a median of {voxels} voxels, which is smaller than the smallest patch of "
            f"{smallest} x {smallest} voxels; expected larger images."
        )
    device = resources.device.lower()
    chosen = _first_size(data, MOST_SIDE[device][data.dims]) if size is None else list(size)
    most = LEAST_BATCH if batch_size is None else batch_size
    network = _network(chosen, data, CHANNELS[device], is_fixed=size is not None)
    while network.memory(most) > resources.memory:
        if size is not None or max(chosen) <= smallest:
            raise InputError(
                f"The memory of {resources.memory / GIB:.2g} GiB that a training may use on this {resources.device} is "
                f"too small: {'this plan' if size is not None else 'the smallest plan'}, {most} images of "
                f"{' x '.join(map(str, network.size))} voxels, needs {network.memory(most) / GIB:.2g} GiB; expected "
                "more memory or smaller sizes."
            )
        # The axis along which the patch covers most of the images becomes shorter.
        cover = {axis: chosen[axis] / data.shape[axis] for axis in range(data.dims) if chosen[axis] > smallest}
        axis = max(cover, key=lambda axis: cover[axis])
        chosen[axis] = max(smallest, math.floor(0.9 * chosen[axis]))
        network = _network(chosen, data, CHANNELS[device])
    cases = training_cases or max(1, round(2 / 3 * data.cases))
    if batch_size is None:
        by_memory = 1 + (resources.memory - network.memory(1)) // (network.memory(2) - network.memory(1))
        patches = math.prod(data.shape) / math.prod(network.size) if data.dims == 3 else 1.0
        by_data = round(COVERED * data.cases * patches)
        batch_size = int(max(LEAST_BATCH, min(by_memory, by_data, MOST_BATCH[data.dims])))
    epochs = round(STEPS[device] / -(-cases // batch_size))
    return Plan(
        size=network.size,
        is_patch=data.dims == 3,
        spacing=data.spacing if data.dims == 3 and data.unit == "mm" else None,
        channels=network.channels,
        strides=network.strides,
        batch_size=batch_size,
        max_epochs=min(max(epochs, EPOCHS[0]), EPOCHS[1]),
        memory=network.memory(batch_size),
    )


def pooling(size: Sequence[int], spacing: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """Return the strides between the levels of a U-Net, by nnU-Net's rule.

    Args:
        size: Size of an image or patch.
        spacing: Voxel size along every axis.

    Returns:
        Strides, 1 or 2 along every axis; at least two of them, which the network needs.
    """
    sides, steps = [float(side) for side in size], list(spacing)
    strides: list[tuple[int, ...]] = []
    while True:
        axes = [axis for axis, side in enumerate(sides) if side >= 2 * SMALLEST]
        finest = min((steps[axis] for axis in axes), default=0.0)
        axes = [axis for axis in axes if steps[axis] < 2 * finest]
        # A single axis is only halved if enough of it remains.
        if not axes or (len(axes) == 1 and sides[axes[0]] < 3 * SMALLEST):
            break
        for axis in axes:
            sides[axis] = math.ceil(sides[axis] / 2)
            steps[axis] *= 2
        strides.append(tuple(2 if axis in axes else 1 for axis in range(len(sides))))
    while len(strides) < 2:
        strides.append(tuple(2 if side >= SMALLEST else 1 for side in sides))
        sides = [math.ceil(side / stride) for side, stride in zip(sides, strides[-1], strict=True)]
    return tuple(strides)


def _first_size(data: Fingerprint, longest: int) -> list[int]:
    """Return the size before the limit by memory: of whole frames, or of a patch with equal extents along all axes."""
    if data.dims == 2:
        return choose_size(data.shape, data.spacing, 2 * SMALLEST, longest)
    voxel = math.prod(data.spacing) ** (1 / 3)
    return [
        max(1, min(math.floor(side), round(longest * voxel / step)))
        for side, step in zip(data.shape, data.spacing, strict=True)
    ]


@dataclass(frozen=True)
class _Network:
    """U-Net for a size that its strides divide."""

    size: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    def memory(self, batch: int) -> int:
        """Return the memory in bytes that its training takes."""
        return training_memory(self.size, batch, self.channels, self.strides, **NETWORK)


def _network(size: Sequence[int], data: Fingerprint, channels: int, is_fixed: bool = False) -> _Network:
    """Return the U-Net for a size, which becomes the next larger one that the strides divide unless it is fixed."""
    # Frames are resized as a whole, volumes are not.
    extents = [side * step for side, step in zip(data.shape, data.spacing, strict=True)]
    steps = data.spacing if data.dims == 3 else [extent / side for extent, side in zip(extents, size, strict=True)]
    strides = pooling(size, steps)
    levels = tuple(min(channels * 2**level, MOST_CHANNELS[data.dims]) for level in range(len(strides) + 1))
    factors = [math.prod(stride[axis] for stride in strides) for axis in range(len(size))]
    # The network needs two voxels at its lowest level.
    fitted = [max(2, -(-side // factor)) * factor for side, factor in zip(size, factors, strict=True)]
    return _Network(tuple(size if is_fixed else fitted), levels, strides)
