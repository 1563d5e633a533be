"""What is measured on the labels of raters alone: how they differ, and whether confidence goes with that."""

import math
from dataclasses import dataclass

import numpy as np

from cm_lightning.uncertainty.agreement import (
    boundary_distance,
)
from cm_lightning.uncertainty.boundary import (
    between_rater_sd,
    within_rater_sd,
)
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
    pick,
)


@dataclass(frozen=True)
class Boundary:
    """Points of the consensus' boundaries of all classes, and how far labels are apart there.

    Attributes:
        sd: SD over labels along the normal, ``(points,)``.
        depths: Depth of the points, as those of the frame.
        confidence: The map there.
        other: Another patient's map there.
        pixel: The smaller side of a pixel: the SD is not known better than to about a third of it.
    """

    sd: Array
    depths: list[Array]
    confidence: Array
    other: Array
    pixel: float


def measure_raters(frame: Frame, other: Array) -> tuple[dict[str, float], Boundary]:
    """Measure how labels of an image differ, and whether its confidence map goes with that.

    Args:
        frame: The image, with repeated labels.
        other: Confidence map of an image of another patient, ``(depth, lateral)``: the control.

    Returns:
        Values by name, and the boundaries' points.
    """
    image, band = frame.image, frame.band
    dice = agreement(pairwise_dice(frame.labels, frame.n_classes), frame.raters)
    boundary = boundary_points(frame, other)
    apart = entropy(frame.distribution)
    distance = boundary_distance(frame.consensus, image.spacing)
    found = {
        "intra_dice": finite_mean(dice.intra),
        "inter_dice": finite_mean(dice.inter),
        "boundary_sd": finite_mean(boundary.sd),
        **_rater_sds(frame),
        "entropy": float(apart[image.domain].mean()),
    }
    for suffix, of_points, of_pixels in (
        ("", boundary.confidence, image.confidence[band]),
        ("_shuffled", boundary.other, other[band]),
    ):
        along = confidence_correlation(boundary.sd, of_points, boundary.depths)
        across = confidence_correlation(apart[band], of_pixels, pick(frame.depths, band), distance[band])
        found |= {
            f"sd_alone{suffix}": along.alone,
            f"sd_given{suffix}": along.given,
            f"entropy_alone{suffix}": across.alone,
            f"entropy_given{suffix}": across.given,
        }
    return found, boundary


def boundary_points(frame: Frame, other: Array) -> Boundary:
    """Collect the points of all classes' boundaries at which most labels have one.

    Args:
        frame: The image, with repeated labels.
        other: Another patient's confidence map, ``(depth, lateral)``.

    Returns:
        The points, with the SD of the labels there.
    """
    spreads, places = [], []
    for deviation, spread in frame.spreads:
        known = np.isfinite(spread)
        spreads.append(spread[known])
        places.append(np.round(deviation.points[known]).astype(int))
    rows, columns = np.concatenate(places).T
    return Boundary(
        sd=np.concatenate(spreads),
        depths=[depth[rows, columns] for depth in frame.depths],
        confidence=frame.image.confidence[rows, columns],
        other=other[rows, columns],
        pixel=min(frame.image.spacing),
    )


def _rater_sds(frame: Frame) -> dict[str, float]:
    """Root of the mean variance along the boundaries, of repeats by one rater and of the raters' own means."""
    within, between = [], []
    for deviation, spread in frame.spreads:
        offsets = deviation.offsets[:, np.isfinite(spread)]
        within.append(within_rater_sd(offsets, frame.raters))
        between.append(between_rater_sd(offsets, frame.raters))
    parts = {"within_rater_sd": within, "between_rater_sd": between}
    return {name: math.sqrt(finite_mean(np.concatenate(sds) ** 2)) for name, sds in parts.items()}
