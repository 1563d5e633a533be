"""Which pixels of a frame are insonified."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cm_lightning.confidence.boundary import BoolArray



def linear_probe_domain(frames: NDArray[np.generic], threshold: float = 0.0, minimum_share: float = 0.02) -> BoolArray:
    """Find the rectangle that a linear probe insonifies inside black bands.

    Frames exported from a scanner carry black bands above, below and beside the image, and marks burned into the bands.
    The rectangle spans the first to the last column, then row, in which more than ``minimum_share`` of the pixels are
    bright. Columns are searched in the largest connected bright region only, so that a mark in a side band does not
    count; rows are not, because shadows can cut the deepest tissue off from the rest.

    Args:
        frames: Frames of shape ``(..., depth, lateral)``, each searched on its own.
        threshold: Intensity that a band does not exceed.
        minimum_share: Share of bright pixels that makes a row or column part of the image.

    Returns:
        Mask of the shape of ``frames``. A frame without any bright pixel has an empty domain.
    """
    bright = np.asarray(frames) > threshold
    domain = np.zeros(bright.shape, dtype=bool)
    for index in np.ndindex(bright.shape[:-2]):
        columns = _first_to_last(_largest_region(bright[index]).mean(axis=0) > minimum_share)
        if columns.any():
            rows = _first_to_last(bright[index][:, columns].mean(axis=1) > minimum_share)
            domain[index] = rows[:, None] & columns
    return domain


def _largest_region(bright: BoolArray, gap: int = 9) -> BoolArray:
    """Keep the largest connected part of a frame's bright pixels, bridging dark gaps of up to ``gap`` pixels."""
    padded = np.pad(bright, gap)
    closed = ndimage.binary_closing(padded, np.ones((gap, gap), dtype=bool))[gap:-gap, gap:-gap]
    parts, count = ndimage.label(closed)
    if count == 0:
        return bright
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    region: BoolArray = bright & (parts == sizes.argmax())
    return region


def _first_to_last(flags: BoolArray) -> BoolArray:
    """Fill the last axis from its first to its last true value."""
    from_first = np.logical_or.accumulate(flags, axis=-1)
    to_last = np.logical_or.accumulate(flags[..., ::-1], axis=-1)[..., ::-1]
    filled: BoolArray = from_first & to_last
    return filled
