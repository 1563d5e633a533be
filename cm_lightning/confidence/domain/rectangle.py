"""The rectangle that a linear probe insonifies."""

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.boundary import BoolArray
from cm_lightning.confidence.domain.regions import first_to_last, largest_region


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
        columns = first_to_last(largest_region(bright[index]).mean(axis=0) > minimum_share)
        if columns.any():
            rows = first_to_last(bright[index][:, columns].mean(axis=1) > minimum_share)
            domain[index] = rows[:, None] & columns
    return domain
