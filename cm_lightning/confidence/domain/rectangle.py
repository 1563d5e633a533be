"""Insonified rectangle of a linear probe."""

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.boundary import BoolArray
from cm_lightning.confidence.domain.regions import above_background, first_to_last, largest_region


def linear_probe_domain(
    frames: NDArray[np.generic], threshold: float = 0.0, minimum_fraction: float = 0.02
) -> BoolArray:
    """Find the insonified rectangle of a linear probe inside a black background.

    Exported frames have a black background around the image, which may contain burned-in marks. The rectangle extends
    from the first to the last column, and then from the first to the last row, in which the fraction of bright pixels
    exceeds ``minimum_fraction``. Columns are determined from the largest connected bright region, so that marks at the
    sides are ignored. Rows are determined from all bright pixels, because shadows can separate deep tissue from this
    region.

    Args:
        frames: Frames, ``(..., depth, lateral)``, which are processed separately.
        threshold: Maximum intensity of the background; for frames with negative intensities, such as those in dB, it is
            relative to the lowest one.
        minimum_fraction: Minimum fraction of bright pixels in the first and last row and column of the rectangle.

    Returns:
        Mask, ``(..., depth, lateral)``, which is empty for frames without bright pixels.
    """
    bright = above_background(np.asarray(frames), threshold)
    domain = np.zeros(bright.shape, dtype=bool)
    for index in np.ndindex(bright.shape[:-2]):
        columns = first_to_last(largest_region(bright[index]).mean(axis=0) > minimum_fraction)
        if columns.any():
            rows = first_to_last(bright[index][:, columns].mean(axis=1) > minimum_fraction)
            domain[index] = rows[:, None] & columns
    return domain
