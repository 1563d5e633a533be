"""Deviations of labels from the boundary of their consensus, measured along the normals of this boundary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import find_contours
from torch.nn import functional as F

Array = NDArray[np.float64]

# SD of the Gaussian filter of the normals, in units of the longer side of a pixel. Without it, the staircase of a mask
# turns its normals by up to 45 degrees.
NORMAL_SMOOTHING = 2.0
# A corner is a point at which the normal turns by more than CORNER_TURN degrees between the points CORNER_REACH points
# before and after it.
CORNER_REACH = 3
CORNER_TURN = 45.0
# Samples per pixel along a normal. With fewer, the mask is not linear between two samples.
SAMPLES_PER_PIXEL = 2


@dataclass(frozen=True)
class BoundaryDeviation:
    """Offsets of labels along the normals of the boundary of their consensus.

    Attributes:
        points: Points on the boundary of the consensus in pixels (depth, lateral), ``(points, 2)``. Pixel centres have
            integer coordinates.
        normals: Outward unit normals at these points, with respect to coordinates in mm, ``(points, 2)``.
        corner: Points at which the boundary turns by more than 45 degrees over six pixels, ``(points,)``. The normal is
            not well defined at corners, and offsets overestimate the distance between the boundaries.
        offsets: Signed distance in mm from each point along its normal to the boundary of each label, ``(labels,
            points)``. It is positive outside the consensus, and NaN if the label has no boundary within reach.
    """

    points: Array
    normals: Array
    corner: NDArray[np.bool_]
    offsets: Array


def boundary_deviation(
    labels: NDArray[np.uint8],
    consensus: NDArray[np.uint8],
    class_index: int,
    spacing: Sequence[float],
    reach: float = 10.0,
    domain: NDArray[np.bool_] | None = None,
) -> BoundaryDeviation:
    """Measure the deviations of the labels of a frame from the boundary of a class.

    The boundary of the consensus is sampled about once per pixel. The mask of a label is interpolated linearly along
    the normal of every point. The boundary of the label is where the mask decreases through one half in outward
    direction; if there are several such crossings, the one nearest to the point is used. The opposite side of a thin
    class increases in outward direction, so it is never mistaken for the nearer side.

    Labels are quantised to pixels. This adds up to 1/12 squared pixel to the variance of the offsets. In our
    measurements, SDs of 1, 2 and 4 pixels are overestimated by 4, 1 and 0.5 % for boundaries along a pixel axis, and by
    2.5, 0.7 and 0.1 % for slanted lines and discs. Using the labels' signed distances instead of their masks changed
    this by at most 0.3 %, and costs two distance transforms per label. For a boundary with a radius of curvature r, the
    relative overestimation of an SD s is about ``s² / (4 r²)``, because movements along a curved boundary also move it
    across.

    Args:
        labels: Class indices of repeated labels, ``(labels, depth, lateral)``.
        consensus: Class indices of their consensus, ``(depth, lateral)``.
        class_index: Index of the class.
        spacing: Pixel size in depth and lateral direction, in mm. Further values are ignored.
        reach: Length of the normals to either side, in mm. It must be several SDs.
        domain: Insonified pixels, ``(depth, lateral)``; all pixels by default. Points at the border of the image or
            of the domain are left out, because a class that is cut off has no anatomical boundary there.

    Returns:
        Points, normals and offsets, with zero points if the class is not in the consensus.
    """
    step = np.asarray(spacing[:2], dtype=np.float64)
    mask = consensus == class_index
    contours, pieces, points, normals = _contour_points(mask, step)
    ends = np.cumsum([len(piece) for piece in pieces])
    turns = [
        _turn(part, closed=bool((contour[0] == contour[-1]).all()))
        for part, contour in zip(np.split(normals, ends)[:-1], contours, strict=True)
    ]
    corner = np.concatenate([np.empty(0), *turns]) > CORNER_TURN
    if domain is not None:
        # The first erosion removes points on the border of the domain. The second one removes points one pixel inside,
        # because contours lie between pixels, and a class that is cut off can end there.
        inside = ndimage.binary_erosion(domain, np.ones((3, 3), dtype=bool), iterations=2, border_value=1)
        kept = inside[tuple(np.round(points.T).astype(int))]
        points, normals, corner = points[kept], normals[kept], corner[kept]
    along = np.arange(-reach, reach + step.min(), step.min() / SAMPLES_PER_PIXEL)
    positions = points[:, None, :] + along[None, :, None] * (normals / step)[:, None, :]
    # The coordinates of grid_sample run from -1 to 1 over the image, in the order (lateral, depth).
    grid = torch.from_numpy(((2 * positions + 1) / mask.shape - 1)[None, :, :, ::-1].astype(np.float32))
    offsets = np.full((len(labels), len(points)), np.nan)
    for label, label_offsets in zip(labels, offsets, strict=True):
        label_mask = torch.from_numpy((label == class_index).astype(np.float32))[None, None]
        profiles = F.grid_sample(label_mask, grid, padding_mode="border", align_corners=False)
        label_offsets[:] = _nearest_falling_crossing(profiles[0, 0].numpy(), along)
    offsets[np.abs(offsets) > reach] = np.nan
    return BoundaryDeviation(points, normals, corner, offsets)


def nearest_boundary(
    segmentation: NDArray[np.uint8], n_classes: int, spacing: Sequence[float], pixels: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], Array]:
    """Find the class and the orientation of the boundary that is nearest to each pixel.

    Args:
        segmentation: Class indices, ``(depth, lateral)``.
        n_classes: Number of classes including the background.
        spacing: Pixel size in depth and lateral direction, in mm.
        pixels: Pixels for which the boundary is looked up, ``(depth, lateral)``.

    Returns:
        Index of the class that the nearest boundary encloses, and the angle of its outward normal in radians (0 along
        the beam, away from the probe), ``(pixels,)`` each in the order of ``segmentation[pixels]``. Both are 0 without
        any boundary.
    """
    step = np.asarray(spacing[:2], dtype=np.float64)
    classes, points, normals = [], [], []
    for index in range(1, n_classes):
        *_, class_points, class_normals = _contour_points(segmentation == index, step)
        classes.append(np.full(len(class_points), index))
        points.append(class_points)
        normals.append(class_normals)
    if not sum(map(len, points)):
        return np.zeros(int(pixels.sum()), dtype=np.int64), np.zeros(int(pixels.sum()))
    tree = KDTree(np.concatenate(points) * step)
    nearest = tree.query(np.argwhere(pixels) * step)[1]
    return np.concatenate(classes)[nearest], normal_angles(np.concatenate(normals)[nearest])


def normal_angles(normals: Array) -> Array:
    """Compute the angle of normals to the beam.

    Args:
        normals: Unit normals (depth, lateral), ``(points, 2)``.

    Returns:
        Angles in radians, 0 along the beam and away from the probe, ``(points,)``.
    """
    return np.arctan2(normals[:, 1], normals[:, 0])


def boundary_sd(offsets: Array) -> tuple[Array, Array]:
    """Compute the standard deviation of the boundary over all labels.

    Args:
        offsets: Offsets in mm, ``(labels, points)``; NaN if a label has no boundary within reach.

    Returns:
        The sample SD in mm (with ``n - 1`` in the denominator), NaN at points with fewer than two boundaries, and the
        fraction of the labels that have a boundary, ``(points,)`` each. If this fraction is well below 1, the SD is too
        small, because the largest offsets are missing.
    """
    present = np.isfinite(offsets)
    count = present.sum(axis=0)
    squares = np.nansum((offsets - _mean(offsets)) ** 2, axis=0)
    return np.sqrt(_divide(squares, count - 1)), present.mean(axis=0)


def within_rater_sd(offsets: Array, raters: Sequence[str]) -> Array:
    """Compute the intra-rater standard deviation of the boundary, pooled over the raters.

    Args:
        offsets: Offsets in mm, ``(labels, points)``; NaN if a label has no boundary within reach.
        raters: Rater of each label.

    Returns:
        The SD in mm, ``(points,)``; NaN at points where no rater has two boundaries.
    """
    return np.sqrt(_analysis_of_variance(offsets, raters)[0])


def between_rater_sd(offsets: Array, raters: Sequence[str]) -> Array:
    """Compute the inter-rater standard deviation of the boundary, without the contribution of intra-rater variability.

    It is estimated by a one-way analysis of variance with random raters and unequal numbers of repeats. The variance is
    ``(MSB - MSW) / n0``, and negative estimates are set to 0. This biases the mean SD over many points more than their
    mean variance.

    Args:
        offsets: Offsets in mm, ``(labels, points)``; NaN if a label has no boundary within reach.
        raters: Rater of each label.

    Returns:
        The SD in mm, ``(points,)``. It is NaN if there are fewer than two raters, or no rater has two boundaries at the
        point, so the two kinds of variability cannot be separated.

    References:
        Searle, Casella and McCulloch, "Variance Components", Wiley 1992, section 3.6.
    """
    within, between, repeats = _analysis_of_variance(offsets, raters)
    return np.sqrt(np.maximum(_divide(between - within, repeats), 0))


def _analysis_of_variance(offsets: Array, raters: Sequence[str]) -> tuple[Array, Array, Array]:
    """Compute the mean squares within and between raters, and the effective number of repeats n0, at every point."""
    names = np.array(raters)
    groups = [offsets[names == rater] for rater in dict.fromkeys(raters)]
    counts = np.stack([np.isfinite(group).sum(axis=0) for group in groups])
    means = np.stack([_mean(group) for group in groups])
    total, present = counts.sum(axis=0), (counts > 0).sum(axis=0)
    squares = [np.nansum((group - mean) ** 2, axis=0) for group, mean in zip(groups, means, strict=True)]
    within = _divide(np.sum(squares, axis=0), total - present)
    between = _divide(np.nansum(counts * (means - _mean(offsets)) ** 2, axis=0), present - 1)
    repeats = _divide(total - _divide((counts**2).sum(axis=0), total), present - 1)
    return within, between, repeats


def _contour_points(mask: NDArray[np.bool_], step: Array) -> tuple[list[Array], list[Array], Array, Array]:
    """Return the contours of a mask, their evenly spaced points, all of these points, and their normals."""
    contours = find_contours(mask.astype(np.float64), 0.5)  # type: ignore[no-untyped-call]
    pieces = [_evenly_spaced(contour, step) for contour in contours]
    points = np.concatenate([np.empty((0, 2)), *pieces])
    return contours, pieces, points, _outward_normals(mask, points, step)


def _mean(offsets: Array) -> Array:
    """Return the mean over the labels that have a boundary; NaN if there are none."""
    return _divide(np.nansum(offsets, axis=0), np.isfinite(offsets).sum(axis=0))


def _divide(numerator: Array, denominator: NDArray[Any]) -> Array:
    """Divide; the result is NaN if the denominator is not positive."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _evenly_spaced(contour: Array, step: Array) -> Array:
    """Return points in pixels, ``(points, 2)``, at equal distances in mm of about one pixel along a contour."""
    arc_length = np.concatenate([[0.0], np.cumsum(np.hypot(*(np.diff(contour, axis=0) * step).T))])
    number = max(1, round(arc_length[-1] / float(step.min())))
    positions = (np.arange(number) + 0.5) * arc_length[-1] / number
    return np.stack([np.interp(positions, arc_length, contour[:, axis]) for axis in (0, 1)], axis=1)


def _outward_normals(mask: NDArray[np.bool_], points: Array, step: Array) -> Array:
    """Return unit normals: the normalised gradient of the smoothed signed distance to the mask, in mm."""
    outside, inside = (ndimage.distance_transform_edt(side, sampling=step) for side in (~mask, mask))
    smooth = ndimage.gaussian_filter(outside - inside, NORMAL_SMOOTHING * step.max() / step, mode="nearest")
    gradient = np.gradient(smooth, *step)
    normals = np.stack([ndimage.map_coordinates(part, points.T, order=1) for part in gradient], axis=1)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _turn(normals: Array, closed: bool) -> Array:
    """Return the angle in degrees between the normals shortly before and after every point of a contour."""
    index = np.arange(len(normals))
    neighbours = [
        normals[neighbour % len(index) if closed else np.clip(neighbour, 0, len(index) - 1)]
        for neighbour in (index - CORNER_REACH, index + CORNER_REACH)
    ]
    return np.degrees(np.arccos(np.clip((neighbours[0] * neighbours[1]).sum(axis=1), -1, 1)))


def _nearest_falling_crossing(profiles: NDArray[np.float32], along: Array) -> Array:
    """Find the position nearest to 0 at which a profile decreases through one half.

    Args:
        profiles: Profiles of a mask, ``(points, samples)``.
        along: Positions of the samples in mm, ``(samples,)``.

    Returns:
        Positions in mm, ``(points,)``; NaN if there is no such position.
    """
    before, after = profiles[:, :-1], profiles[:, 1:]
    point, sample = np.nonzero((before >= 0.5) & (after < 0.5))
    fraction = (before[point, sample] - 0.5) / (before[point, sample] - after[point, sample])
    position = along[sample] + fraction * (along[1] - along[0])
    # Sorted by decreasing distance, so that the nearest crossing of each point is assigned last.
    order = np.argsort(-np.abs(position), kind="stable")
    nearest = np.full(len(profiles), np.nan)
    nearest[point[order]] = position[order]
    return nearest
