"""Bright regions of frames."""

import numpy as np
from scipy import ndimage

from cm_lightning.confidence.boundary import BoolArray


def largest_region(bright: BoolArray, gap: int = 9) -> BoolArray:
    """Keep the largest connected part of a frame's bright pixels.

    Args:
        bright: Bright pixels, ``(depth, lateral)``.
        gap: Dark gaps of up to so many pixels are bridged.

    Returns:
        The bright pixels of that part, same shape.
    """
    # As a grey closing, which SciPy does axis by axis: 8 times faster than its binary closing with a square.
    padded = np.pad(bright, gap).view(np.uint8)
    closed = ndimage.grey_closing(padded, size=(gap, gap), mode="constant")[gap:-gap, gap:-gap]
    parts, count = ndimage.label(closed)
    if count == 0:
        return bright
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    region: BoolArray = bright & (parts == sizes.argmax())
    return region


def first_to_last(flags: BoolArray) -> BoolArray:
    """Fill the last axis from its first to its last true value.

    Args:
        flags: Of any shape.

    Returns:
        Flags of the same shape.
    """
    from_first = np.logical_or.accumulate(flags, axis=-1)
    to_last = np.logical_or.accumulate(flags[..., ::-1], axis=-1)[..., ::-1]
    filled: BoolArray = from_first & to_last
    return filled
