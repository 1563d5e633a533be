"""Measures of rater variability, and its correlation with confidence."""

import math
from dataclasses import dataclass

import numpy as np

from cm_lightning.uncertainty.agreement import (
    boundary_distance,
)
from cm_lightning.uncertainty.boundary import (
    between_rater_sd,
    nearest_boundary,
    normal_angles,
    within_rater_sd,
)
from cm_lightning.uncertainty.partial_correlation import BoundaryParts
from cm_lightning.uncertainty.raters import (
    agreement,
    entropy,
    pairwise_dice,
)
from cm_lightning.variability.frame import (
    Array,
    Frame,
    confidence_correlation,
    finite_mean,
    select,
)


@dataclass(frozen=True)
class Boundary:
    """Boundary points of the consensus of all classes, with the variability of the labels.

    Attributes:
        sd: SD of the labels along the normal in the unit of the image, ``(points,)``.
        depths: Depths of the points, ``(points,)`` each, as in :attr:`Frame.depths`.
        confidence: Confidence at the points, ``(points,)``.
        other: Confidence at the points in the map of another patient, ``(points,)``.
        parts: Class and orientation of the boundary at the points.
        pixel: Smaller side of a pixel in the unit of the image, which limits the precision of the SD.
    """

    sd: Array
    depths: list[Array]
    confidence: Array
    other: Array
    parts: BoundaryParts
    pixel: float


def measure_raters(frame: Frame, other: Array) -> tuple[dict[str, float], Boundary]:
    """Measure the variability of the labels of an image and its correlation with confidence.

    Args:
        frame: Image with repeated labels.
        other: Confidence map of an image of another patient as control, ``(depth, lateral)``.

    Returns:
        Measures by name, and the boundary points.
    """
    image, band = frame.image, frame.band
    dice = agreement(pairwise_dice(frame.labels, frame.n_classes), frame.raters)
    boundary = boundary_points(frame, other)
    label_entropy = entropy(frame.distribution)
    distance = boundary_distance(frame.consensus, image.spacing)
    measures = {
        "intra_dice": finite_mean(dice.intra),
        "inter_dice": finite_mean(dice.inter),
        "boundary_sd": math.sqrt(finite_mean(boundary.sd**2)),
        **_rater_sds(frame),
        "entropy": float(label_entropy[image.domain].mean()),
    }
    nearest = BoundaryParts(*nearest_boundary(frame.consensus, frame.n_classes, image.spacing, band))
    for suffix, point_confidence, pixel_confidence in (
        ("", boundary.confidence, image.confidence[band]),
        ("_shuffled", boundary.other, other[band]),
    ):
        sd = confidence_correlation(boundary.sd, point_confidence, boundary.depths, boundary.parts)
        depths = select(frame.depths, band)
        pixels = confidence_correlation(label_entropy[band], pixel_confidence, depths, nearest, distance[band])
        measures |= {
            f"sd_alone{suffix}": sd.plain,
            f"sd_given{suffix}": sd.partial,
            f"entropy_alone{suffix}": pixels.plain,
            f"entropy_given{suffix}": pixels.partial,
        }
    return measures, boundary


def boundary_points(frame: Frame, other: Array) -> Boundary:
    """Collect the boundary points of all classes at which more than half of the labels have a boundary.

    Args:
        frame: Image with repeated labels.
        other: Confidence map of another patient, ``(depth, lateral)``.

    Returns:
        The points with the SD of the labels.
    """
    sds, points, classes, angles = [], [], [], []
    for index, (deviation, sd) in enumerate(frame.deviations, start=1):
        known = np.isfinite(sd)
        sds.append(sd[known])
        classes.append(np.full(int(known.sum()), index))
        angles.append(normal_angles(deviation.normals[known]))
        points.append(np.round(deviation.points[known]).astype(int))
    rows, columns = np.concatenate(points).T
    return Boundary(
        sd=np.concatenate(sds),
        depths=[depth[rows, columns] for depth in frame.depths],
        confidence=frame.image.confidence[rows, columns],
        other=other[rows, columns],
        parts=BoundaryParts(np.concatenate(classes), np.concatenate(angles)),
        pixel=min(frame.image.spacing),
    )


def _rater_sds(frame: Frame) -> dict[str, float]:
    """Compute the root mean square of the SDs within and between raters along all boundaries."""
    within, between = [], []
    for deviation, sd in frame.deviations:
        offsets = deviation.offsets[:, np.isfinite(sd)]
        within.append(within_rater_sd(offsets, frame.raters))
        between.append(between_rater_sd(offsets, frame.raters))
    sds = {"within_rater_sd": within, "between_rater_sd": between}
    return {name: math.sqrt(finite_mean(np.concatenate(values) ** 2)) for name, values in sds.items()}
