"""Resampling of arrays to another grid with the same extent."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cm_lightning.data.frames import to_frames

# Number of frames that are processed at once, which limits the memory.
FRAMES_AT_ONCE = 64


def resample(array: NDArray[np.generic], size: Sequence[int], mode: Literal["linear", "nearest"]) -> Tensor:
    """Resample an array to another grid with the same extent.

    Linear interpolation uses an antialiasing filter when the size decreases, because of speckle. Frames are resized in
    groups before resizing along elevation, so that the memory stays small: a volume of the calf has half a billion
    voxels, and is never converted to float as a whole.

    Args:
        array: Array of any real dtype, ``(depth, lateral[, elevation])``.
        size: New size in voxels.
        mode: ``linear``, or ``nearest`` for labels and masks.

    Returns:
        Tensor, ``(1, *size)``, float32 for ``linear`` and the dtype of the array for ``nearest``.
    """
    if mode == "nearest":
        centres = [(np.arange(m) + 0.5) * n / m for n, m in zip(array.shape, size, strict=True)]
        return torch.from_numpy(np.ascontiguousarray(array[np.ix_(*(c.astype(int) for c in centres))]))[None]
    frames = to_frames(array).reshape(-1, *array.shape[:2])
    resized = []
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        part = np.ascontiguousarray(frames[start : start + FRAMES_AT_ONCE], np.float32)
        resized.append(_resize_linearly(torch.from_numpy(part), size[:2]))
    stack = torch.cat(resized)
    if array.ndim == 2:
        return stack
    lines = stack.movedim(0, -1).reshape(1, -1, stack.shape[0])
    return _resize_linearly(lines, (lines.shape[1], size[2])).reshape(1, *size)


def _resize_linearly(frames: Tensor, size: Sequence[int]) -> Tensor:
    """Resize frames, ``(frames, rows, columns)``, by antialiased linear interpolation."""
    if tuple(frames.shape[1:]) == tuple(size):
        return frames
    return F.interpolate(frames[None], size=tuple(size), mode="bilinear", antialias=True, align_corners=False)[0]
