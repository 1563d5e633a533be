"""Resampling arrays over the same extent."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cm_lightning.data.frames import to_frames

FRAMES_AT_ONCE = 64


def resample(array: NDArray[np.generic], size: Sequence[int], how: Literal["linear", "nearest"]) -> Tensor:
    """Resize an array over the same extent.

    Linear interpolation widens its triangle where the array gets smaller, so that speckle does not alias. Frames are
    resized some at a time and elevation last: a volume of the calf has half a billion voxels and is never held as
    float.

    Args:
        array: ``(depth, lateral[, elevation])``, any real dtype.
        size: New size.
        how: ``linear``, or ``nearest`` for labels and masks.

    Returns:
        Tensor of shape ``(1, *size)``; float32 for ``linear``, else of the array's dtype.
    """
    if how == "nearest":
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
    """Resize ``(frames, rows, columns)``."""
    if tuple(frames.shape[1:]) == tuple(size):
        return frames
    return F.interpolate(frames[None], size=tuple(size), mode="bilinear", antialias=True, align_corners=False)[0]
