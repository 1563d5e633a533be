"""Properties of an image at a boundary that runs across the beam: confidence, and what may explain it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

# Distances from the line, as fractions of the depth of the frame (0.02 is 9 rows of 458): half the width of the line,
# beginning and end of the tissue beside it, and half the size of the patch for speckle.
LINE = 0.013
BESIDE = (0.018, 0.053)
PATCH = 0.045


def line_properties(image: Array, confidence: Array, row: float, columns: slice) -> dict[str, float]:
    """Measure properties of a boundary in a range of columns.

    Args:
        image: Intensities of the insonified region, ``(depth, lateral)``.
        confidence: Confidence map, ``(depth, lateral)``.
        row: Row of the boundary.
        columns: Range of columns in which it was marked.

    Returns:
        By name: ``confidence`` at the boundary; ``depth``, as a fraction of the frame; ``contrast``, the largest mean
        intensity of a row of the line minus that of the tissue above and below; ``speckle_snr``, mean over SD of the
        intensities around the boundary; ``confidence_drop`` from above to below the line; ``energy_below``, the
        fraction of the squared intensities of the columns that is below the boundary, which is small in front of a
        shadow and a plain shadow map; ``row_mean``, the mean of the map in the row over all columns; and ``residual``,
        confidence minus this mean.
    """
    depth = len(image)
    centre = int(np.clip(round(row), 0, depth - 1))

    def rows(first: float, last: float) -> slice:
        start = int(np.clip(centre + round(first * depth), 0, depth - 1))
        return slice(start, max(start + 1, int(np.clip(centre + round(last * depth) + 1, 0, depth))))

    strip = image[:, columns].astype(np.float64)
    profile, map_profile = strip.mean(axis=1), confidence[:, columns].astype(np.float64).mean(axis=1)
    above, below = rows(-BESIDE[1], -BESIDE[0]), rows(BESIDE[0], BESIDE[1])
    patch = strip[rows(-PATCH, PATCH)]
    energy = (strip**2).sum(axis=1)
    row_mean = float(confidence[centre].mean())
    here = float(map_profile[centre])
    return {
        "confidence": here,
        "depth": centre / depth,
        "contrast": float(profile[rows(-LINE, LINE)].max() - (profile[above].mean() + profile[below].mean()) / 2),
        "speckle_snr": float(patch.mean() / max(patch.std(), 1e-9)),
        "confidence_drop": float(map_profile[above].mean() - map_profile[below].mean()),
        "energy_below": float(energy[centre + 1 :].sum() / max(energy.sum(), 1e-12)),
        "row_mean": row_mean,
        "residual": here - row_mean,
    }
