"""Resizing from the network's grid to the grid of a file.

Images are resized for the network, but results are measured and written at file resolution, a few frames at a time,
since the probabilities of a volume of the study would take ten gigabytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cm_lightning.data.augmentation import Batch
from cm_lightning.tasks.windows import Maps

# Largest number of values that are resized at once: 64 MB as float32.
VALUES_AT_ONCE = 2**24


class NativeFrames(NamedTuple):
    """Maps of successive frames at file resolution.

    Attributes:
        frames: Indices of the frames along elevation; the only frame of a 2D image is frame 0.
        maps: Maps by their name, float32, ``(channels, depth, lateral, frames)`` each.
    """

    frames: range
    maps: Maps


def native_frames(parts: Iterable[Maps], grid_frames: int, shape: Sequence[int]) -> Iterator[NativeFrames]:
    """Resize maps of a volume by linear interpolation, a few frames at a time.

    Args:
        parts: Maps of successive frames on the network's grid, ``(channels, depth, lateral, frames)`` each, or the maps
            of a 2D image, ``(channels, depth, lateral)`` each.
        grid_frames: Number of frames on the network's grid; 1 for a 2D image.
        shape: Shape of the file, ``(depth, lateral[, elevation])``.

    Yields:
        Maps of the next frames; together they equal those of :func:`resize_linearly`.
    """
    number = shape[2] if len(shape) == 3 else 1
    first, done = 0, 0  # index on the network's grid of the first stored frame, and number of finished frames
    stored: Maps = {}
    for part in parts:
        volumes = {name: values if values.ndim == 4 else values[..., None] for name, values in part.items()}
        stored = {name: torch.cat([stored[name], new], dim=-1) if stored else new for name, new in volumes.items()}
        ready = first + next(iter(stored.values())).shape[-1]
        while done < number and _position(done, grid_frames, number)[1] < ready:
            channels = sum(len(values) for values in stored.values())
            at_once = max(1, VALUES_AT_ONCE // (channels * shape[0] * shape[1]))
            stop = done
            while stop < min(number, done + at_once) and _position(stop, grid_frames, number)[1] < ready:
                stop += 1
            positions = [_position(frame, grid_frames, number) for frame in range(done, stop)]
            yield NativeFrames(
                range(done, stop),
                {name: _interpolate(values, positions, first, shape) for name, values in stored.items()},
            )
            done = stop
        if done < number:
            # The next frame may need frames that have not been computed yet.
            unused = min(_position(done, grid_frames, number)[0], ready) - first
            stored = {name: values[..., unused:].clone() for name, values in stored.items()}
            first += unused


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
    frames = volume if volume.ndim == 4 else volume[..., None]
    number = shape[2] if len(shape) == 3 else 1
    return _interpolate(frames, [_position(frame, frames.shape[-1], number)], 0, shape)[..., 0]


def read_frame(batch: Batch, key: str, frame: int) -> Tensor | None:
    """Compute one frame of an entry of a batch at file resolution.

    Args:
        batch: A batch of one case.
        key: Name of the entry, such as ``image``.
        frame: Index of the frame along elevation in the file; 0 for a 2D image.

    Returns:
        Frame, float32, ``(depth, lateral)``; None if the batch has no such entry.
    """
    shape = [int(n) for n in batch["native_shape"][0]]
    source = batch.get("frames")
    if source is None:
        return resize_frame(batch[key][0].float(), shape, frame)[0] if key in batch else None
    below, above, share = _position(frame, source.size[2], shape[2])
    part = source.batch(range(below, above + 1))
    if key not in part:
        return None
    values = part[key][0].float()
    return _interpolate(values, [(0, above - below, share)], 0, shape)[0, ..., 0]


def image_confidence(batch: Batch, frame: int) -> Tensor | None:
    """Compute one frame of the confidence map of the image at file resolution.

    In a control experiment, this is not the second input channel.

    Args:
        batch: A batch of one case.
        frame: Index of the frame along elevation in the file; 0 for a 2D image.

    Returns:
        Confidence from 0 to 1, ``(depth, lateral)``; None if there is no map.
    """
    own = read_frame(batch, "image_confidence", frame)
    return read_frame(batch, "confidence", frame) if own is None else own


def _position(frame: int, old: int, new: int) -> tuple[int, int, float]:
    """Return the two frames between which a resized frame is, and the share of the second one."""
    position = min(max((frame + 0.5) * old / new - 0.5, 0.0), old - 1.0)
    below = int(position)
    return below, min(below + 1, old - 1), position - below


def _interpolate(
    volume: Tensor, positions: Sequence[tuple[int, int, float]], first: int, shape: Sequence[int]
) -> Tensor:
    """Interpolate frames, ``(channels, depth, lateral, frames)``, whose first one has the index ``first``."""
    below, above, shares = zip(*positions, strict=True)
    frames = volume.float()[..., [index - first for index in below]]
    if any(shares):
        later = volume.float()[..., [index - first for index in above]]
        frames = torch.lerp(frames, later, torch.tensor(shares, dtype=torch.float32, device=volume.device))
    if frames.shape[1:3] == tuple(shape[:2]):
        return frames
    # As one batch of frames, which is resized in parallel.
    stack = frames.movedim(-1, 0)
    return F.interpolate(stack, size=tuple(shape[:2]), mode="bilinear", align_corners=False).movedim(0, -1)
