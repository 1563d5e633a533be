"""Conversion between volumes and stacks of frames."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_frames(volume: NDArray[Any]) -> NDArray[Any]:
    """Move elevation to the front: ``(depth, lateral[, elevation])`` becomes ``([elevation, ]depth, lateral)``."""
    return volume if volume.ndim == 2 else np.moveaxis(volume, 2, 0)


def to_volume(frames: NDArray[Any]) -> NDArray[Any]:
    """Move elevation to the end, the inverse of :func:`to_frames`."""
    return frames if frames.ndim == 2 else np.moveaxis(frames, 0, 2)
