"""Resizing from the network's grid to the grid of a file.

Images are resized for the network, but results are measured and written at file resolution. Batches contain one case
from the data module's test or prediction set. Channels are resized one by one if possible, since all channels of a
volume of the calf take 10 GB.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cm_lightning.data.augmentation import Batch


def to_native(channels: Tensor, batch: Batch) -> Iterator[Tensor]:
    """Resize the channels of one case to the grid of its file, one by one.

    Args:
        channels: Channels on the network's grid, ``(1, channels, ...)``.
        batch: A batch of this case.

    Yields:
        Each channel at file resolution, float32, ``(depth, lateral[, elevation])``.
    """
    shape = [int(n) for n in batch["native_shape"][0]]
    for channel in channels[0].float():
        yield resize_linearly(channel, shape)


def native_segmentation(class_logits: Tensor, batch: Batch) -> Tensor:
    """Find the most probable class of every voxel of one case at file resolution.

    Args:
        class_logits: Logits of one case, or other values that rank its classes, ``(1, C, ...)``.
        batch: A batch of this case.

    Returns:
        Class indices, uint8, ``(depth, lateral[, elevation])``.
    """
    logits = to_native(class_logits, batch)
    highest = next(logits)
    segmentation = torch.zeros(highest.shape, dtype=torch.uint8, device=highest.device)
    for index, logit in enumerate(logits, start=1):
        segmentation[logit > highest] = index
        highest = torch.maximum(highest, logit)
    return segmentation


def native_probabilities(class_logits: Tensor, batch: Batch, temperature: float = 1.0) -> Tensor:
    """Compute the probabilities of all classes of one case at file resolution.

    Args:
        class_logits: Logits of one case, ``(1, C, ...)``.
        batch: A batch of this case.
        temperature: Temperature by which the logits are divided.

    Returns:
        Probabilities of all classes including the background, float32, ``(C, depth, lateral[, elevation])``.
    """
    logits = torch.stack(list(to_native(class_logits, batch)))
    return logits.div_(temperature).softmax(dim=0)


def foreground_probabilities(class_logits: Tensor, batch: Batch, temperature: float = 1.0) -> Iterator[Tensor]:
    """Compute the probabilities of the foreground classes of one case at file resolution, one by one.

    Args:
        class_logits: Logits of one case, ``(1, C, ...)``.
        batch: A batch of this case.
        temperature: Temperature by which the logits are divided.

    Yields:
        Probabilities of the classes 1, 2, ..., float32, ``(depth, lateral[, elevation])``.
    """
    logits = to_native(class_logits, batch)
    normaliser = next(logits) / temperature
    for logit in logits:
        normaliser = torch.logaddexp(normaliser, logit / temperature)
    # Logits are resized twice instead of stored, since those of a volume of the calf would take gigabytes.
    for logit in to_native(class_logits[:, 1:], batch):
        yield (logit / temperature).sub_(normaliser).exp_()


def image_confidence(batch: Batch) -> Tensor | None:
    """Return the confidence map of the image of one case at file resolution.

    In a control experiment, this is not the second input channel.

    Args:
        batch: A batch of this case.

    Returns:
        Confidence map from 0 to 1, ``(depth, lateral[, elevation])``; None if the batch has none.
    """
    confidence = batch.get("image_confidence", batch.get("confidence"))
    return None if confidence is None else next(to_native(confidence, batch))


def resize_linearly(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize an image by linear interpolation.

    Args:
        image: Image, ``(depth, lateral[, elevation])``.
        shape: New shape, for the same physical extent.

    Returns:
        Image of this shape. If the shape does not change, this is the same tensor.
    """
    if list(image.shape) == list(shape):
        return image
    mode = "bilinear" if image.ndim == 2 else "trilinear"
    return F.interpolate(image[None, None], size=tuple(shape), mode=mode, align_corners=False)[0, 0]


def resize_frame(volume: Tensor, shape: Sequence[int], frame: int) -> Tensor:
    """Compute one frame of a resized volume.

    Args:
        volume: Volume, ``(channels, depth, lateral[, elevation])``.
        shape: New shape of the volume, ``(depth, lateral[, elevation])``.
        frame: Index of the frame along elevation in the new shape; 0 for a 2D image.

    Returns:
        Frame of every channel, ``(channels, depth, lateral)``, equal to the one of :func:`resize_linearly`.
    """
    if volume.ndim == 4:
        frames = volume.shape[-1]
        position = min(max((frame + 0.5) * frames / shape[2] - 0.5, 0.0), frames - 1.0)
        below = int(position)
        volume = torch.lerp(volume[..., below], volume[..., min(below + 1, frames - 1)], position - below)
    return F.interpolate(volume[None], size=tuple(shape[:2]), mode="bilinear", align_corners=False)[0]
