"""Orientation of frames, from the anisotropy of their texture."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Frames that are examined, and number of pixels that are needed.
MAX_FRAMES = 8
MIN_PIXELS = 500
# Below this ratio of gradient energies in depth and lateral direction, frames lie on their side. It was above 3 in
# all of 107 frames of linear probes (below 0.4 if they were turned), and above 1 in 26 screens of other machines.
SIDEWAYS_RATIO = 0.6
# Only the middle of the region is examined, at most this many rows and columns.
MAX_SIDE = 256
# Darker pixels, as a fraction of the largest intensity, contain no speckle.
DARK = 0.03
# Standard deviation of the Gaussian filter that removes noise of single pixels.
SMOOTHING = 1.0


def gradient_ratio(frames: NDArray[Any], domain: NDArray[np.bool_]) -> float:
    """Compute the ratio of the squared gradients along columns (in depth) and along rows (in lateral direction).

    The resolution of ultrasound is better in depth than in lateral direction, and layers of tissue are rather parallel
    to the probe, so that intensities change faster with depth.

    Args:
        frames: Frames, ``(frames, depth, lateral)``.
        domain: Insonified pixels, ``(depth, lateral)``.

    Returns:
        The ratio; NaN if there are too few bright pixels.
    """
    # The import takes time, and is only needed here.
    from scipy import ndimage

    chosen = np.unique(np.linspace(0, len(frames) - 1, MAX_FRAMES).round().astype(int))
    middle = _middle(domain)
    inside = domain[middle]
    if not inside.all():  # The filter and the differences must not reach pixels outside.
        inside = ndimage.minimum_filter(inside, size=7)
    inside = inside[:-1, :-1]
    total, along_rows, along_columns = 0, 0.0, 0.0
    for frame in frames[chosen]:
        smooth = ndimage.gaussian_filter(np.asarray(frame[middle], np.float32), SMOOTHING)
        part = smooth[:-1, :-1]
        used = inside & (part - smooth.min() > DARK * (smooth.max() - smooth.min()))
        total += int(np.count_nonzero(used))
        along_columns += float(((smooth[1:, :-1] - part)[used] ** 2).sum())
        along_rows += float(((smooth[:-1, 1:] - part)[used] ** 2).sum())
    return along_columns / along_rows if total >= MIN_PIXELS and along_rows > 0 else float("nan")


def _middle(domain: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return rows and columns of the middle of a region."""
    slices = []
    for axis in (1, 0):
        lines = np.flatnonzero(domain.any(axis=axis))
        first, last = (int(lines[0]), int(lines[-1]) + 1) if len(lines) else (0, 0)
        excess = max(0, last - first - MAX_SIDE)
        slices.append(slice(first + excess // 2, last - (excess - excess // 2)))
    return slices[0], slices[1]


def lies_on_its_side(frames: NDArray[Any], domain: NDArray[np.bool_]) -> bool:
    """Return whether the depth of frames seems to run along their rows.

    Args:
        frames: Frames, ``(frames, depth, lateral)``.
        domain: Insonified pixels, ``(depth, lateral)``.

    Returns:
        True if the texture clearly says so. This is known only for linear probes; the beams of others diverge.
    """
    return gradient_ratio(frames, domain) < SIDEWAYS_RATIO
