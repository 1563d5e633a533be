"""From the network's grid to the grid of a case's file.

Networks see images that were resized to one grid; results are measured and written at the resolution of the files.
Every function takes a batch of one case, as the data module gives it for ``test`` and ``predict``. Channels are resized
one at a time wherever possible: all channels of a volume of the calf take 10 GB.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cm_lightning.data.augmentation import Batch


def to_native(channels: Tensor, batch: Batch) -> Iterator[Tensor]:
    """Resize one case's channels to its file's grid, one at a time.

    Args:
        channels: ``(1, channels, ...)`` on the network's grid.
        batch: A batch of that case.

    Yields:
        Every channel, ``(depth, lateral[, elevation])`` at file resolution, float32.
    """
    shape = [int(n) for n in batch["native_shape"][0]]
    for channel in channels[0].float():
        yield resize_linearly(channel, shape)


def native_segmentation(class_logits: Tensor, batch: Batch) -> Tensor:
    """Find the most probable class of every voxel of one case's file.

    Args:
        class_logits: Logits of one case, or any values that rank its classes, ``(1, C, ...)``.
        batch: A batch of that case.

    Returns:
        Class indices, ``(depth, lateral[, elevation])``, uint8.
    """
    logits = to_native(class_logits, batch)
    highest = next(logits)
    segmentation = torch.zeros(highest.shape, dtype=torch.uint8, device=highest.device)
    for index, logit in enumerate(logits, start=1):
        segmentation[logit > highest] = index
        highest = torch.maximum(highest, logit)
    return segmentation


def native_probabilities(class_logits: Tensor, batch: Batch, temperature: float = 1.0) -> Tensor:
    """Compute the class probabilities of one case at file resolution, all at once.

    Args:
        class_logits: Logits of one case, ``(1, C, ...)``.
        batch: A batch of that case.
        temperature: Divides the logits.

    Returns:
        Probabilities of all classes, ``(C, depth, lateral[, elevation])``, float32.
    """
    logits = torch.stack(list(to_native(class_logits, batch)))
    return logits.div_(temperature).softmax(dim=0)


def foreground_probabilities(class_logits: Tensor, batch: Batch, temperature: float = 1.0) -> Iterator[Tensor]:
    """Compute the probabilities of one case's classes at file resolution, one class at a time.

    Args:
        class_logits: Logits of one case, ``(1, C, ...)``.
        batch: A batch of that case.
        temperature: Divides the logits.

    Yields:
        Probability of the classes 1, 2, ..., ``(depth, lateral[, elevation])``, float32; not the background's.
    """
    logits = to_native(class_logits, batch)
    normaliser = next(logits) / temperature
    for logit in logits:
        normaliser = torch.logaddexp(normaliser, logit / temperature)
    # Resized once more rather than kept: all classes of a volume of the calf would take gigabytes.
    for logit in to_native(class_logits[:, 1:], batch):
        yield (logit / temperature).sub_(normaliser).exp_()


def own_confidence(batch: Batch) -> Tensor | None:
    """Resize the confidence map of one case's own image, which a control's second channel is not.

    Args:
        batch: A batch of that case.

    Returns:
        ``(depth, lateral[, elevation])`` at file resolution; None where the batch has no map.
    """
    confidence = batch.get("own_confidence", batch.get("confidence"))
    return None if confidence is None else next(to_native(confidence, batch))


def resize_linearly(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize an image over the same extent by linear interpolation.

    Args:
        image: ``(depth, lateral[, elevation])``.
        shape: Size to resize to.

    Returns:
        The image in that size; the same tensor where it has that size already.
    """
    if list(image.shape) == list(shape):
        return image
    mode = "bilinear" if image.ndim == 2 else "trilinear"
    return F.interpolate(image[None, None], size=tuple(shape), mode=mode, align_corners=False)[0, 0]


def resize_frame(volume: Tensor, shape: Sequence[int], frame: int) -> Tensor:
    """Compute one frame of the resized volume, without resizing the others.

    Args:
        volume: ``(channels, depth, lateral[, elevation])``.
        shape: Size of the whole volume to resize to.
        frame: Position of the frame along elevation in that size; 0 for a 2D image.

    Returns:
        ``(channels, depth, lateral)``, the frame that :func:`resize_linearly` gives of every channel.
    """
    if volume.ndim == 4:
        frames = volume.shape[-1]
        position = min(max((frame + 0.5) * frames / shape[2] - 0.5, 0.0), frames - 1.0)
        below = int(position)
        volume = torch.lerp(volume[..., below], volume[..., min(below + 1, frames - 1)], position - below)
    return F.interpolate(volume[None], size=tuple(shape[:2]), mode="bilinear", align_corners=False)[0]
