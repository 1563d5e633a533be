"""Resampling of arrays to another grid with the same extent."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cm_lightning.data.frames import to_frames

# Number of frames that are processed at once, which limits the memory.
FRAMES_AT_ONCE = 64


def resample(
    array: NDArray[np.generic],
    size: Sequence[int],
    mode: Literal["linear", "nearest"],
    frames: range | None = None,
) -> Tensor:
    """Resample an array to another grid with the same extent.

    Linear interpolation uses an antialiasing filter when the size decreases, because of speckle. Frames are resized in
    groups, so that the memory stays small: a volume of the calf has half a billion voxels, and is never converted to
    float as a whole.

    Args:
        array: Array of any real dtype, ``(depth, lateral[, elevation])``.
        size: New size in voxels.
        mode: ``linear``, or ``nearest`` for labels and masks.
        frames: Consecutive indices along elevation of the new grid, of which only the values are computed; all of them
            by default.

    Returns:
        Tensor, ``(1, *size)`` or ``(1, *size[:2], len(frames))``, float32 for ``linear`` and the dtype of the array for
        ``nearest``.
    """
    if mode == "nearest":
        centres = [((np.arange(m) + 0.5) * n / m).astype(int) for n, m in zip(array.shape, size, strict=True)]
        if frames is not None:
            centres[2] = centres[2][frames.start : frames.stop]
        return torch.from_numpy(np.ascontiguousarray(array[np.ix_(*centres)]))[None]
    if array.ndim == 2:
        return _resize_linearly(torch.from_numpy(np.ascontiguousarray(array, np.float32))[None], size)
    span = slice(0, size[2]) if frames is None else slice(frames.start, frames.stop)
    weights = _elevation_weights(array.shape[2], size[2])[:, span]
    used = weights.any(dim=1).nonzero()[:, 0]
    result = torch.zeros(*size[:2], weights.shape[1])
    stack = to_frames(array)
    for start in range(int(used[0]), int(used[-1]) + 1, FRAMES_AT_ONCE):
        part = torch.from_numpy(np.ascontiguousarray(stack[start : start + FRAMES_AT_ONCE], np.float32))
        shares = weights[start : start + FRAMES_AT_ONCE]
        affected = shares.any(dim=0).nonzero()[:, 0]
        if not len(affected):
            continue
        columns = slice(int(affected[0]), int(affected[-1]) + 1)
        result[..., columns] += torch.tensordot(_resize_linearly(part, size[:2]), shares[:, columns], dims=([0], [0]))
    return result[None]


@lru_cache(maxsize=8)
def _elevation_weights(old: int, new: int) -> Tensor:
    """Return the weight of every frame in every resampled frame, ``(old, new)``."""
    return _resize_linearly(torch.eye(old)[None], (old, new))[0]


def _resize_linearly(frames: Tensor, size: Sequence[int]) -> Tensor:
    """Resize frames, ``(frames, rows, columns)``, by antialiased linear interpolation."""
    if tuple(frames.shape[1:]) == tuple(size):
        return frames
    return F.interpolate(frames[None], size=tuple(size), mode="bilinear", antialias=True, align_corners=False)[0]
