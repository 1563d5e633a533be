"""One image with all of its labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cm_lightning.uncertainty.agreement import (
    boundary_distance,
)
from cm_lightning.uncertainty.boundary import (
    BoundaryDeviation,
    boundary_deviation,
    boundary_sd,
)
from cm_lightning.uncertainty.partial_correlation import (
    BoundaryParts,
    ConfidenceCorrelation,
    partial_rank_correlation,
)
from cm_lightning.uncertainty.raters import (
    label_distribution,
    majority,
    staple,
)
from cm_lightning.variability.image_sampler import SampledImage

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.uint8]
ConsensusName = Literal["majority", "staple"]

# Largest distance of the evaluated pixels from a boundary, as a fraction of the depth of the frame.
BAND = 0.1
# Smallest number of points for a correlation or slope.
POINTS_NEEDED = 20


@dataclass(frozen=True)
class Frame:
    """An image with all of its labels.

    Attributes:
        image: Samples of a model with a confidence map, which also contain the image; of any model if none has a map.
        labels: Class indices of all labels, ``(labels, depth, lateral)``; the label of the data set without raters.
        raters: Name of the rater of each label.
        n_classes: Number of classes, including background.
        consensus_by: Method of the consensus, ``majority`` or ``staple``.
    """

    image: SampledImage
    labels: Labels
    raters: tuple[str, ...]
    n_classes: int
    consensus_by: ConsensusName = "majority"

    @property
    def repeated(self) -> bool:
        """Whether the image has several labels."""
        return len(self.labels) > 1

    @cached_property
    def consensus(self) -> Labels:
        """Class indices of the consensus of the labels, ``(depth, lateral)``."""
        return (staple if self.consensus_by == "staple" else majority)(self.labels, self.n_classes)

    @cached_property
    def distribution(self) -> Array:
        """Relative frequency of each class among the labels, ``(C, depth, lateral)``."""
        return label_distribution(self.labels, self.n_classes)

    @cached_property
    def depths(self) -> list[Array]:
        """Depth below the top of the image and, for a fan, also below the probe, ``(depth, lateral)`` each.

        Depths are in the unit of the image. With a curved probe the two differ, and rater variability may depend on
        either.
        """
        domain = self.image.domain
        rows = np.arange(len(domain))[:, None] * self.image.spacing[0]
        first = domain.argmax(axis=0)[domain.any(axis=0)]
        top = np.broadcast_to(rows, domain.shape)
        below = rows - domain.argmax(axis=0) * self.image.spacing[0]
        return [top] if len(first) == 0 or np.ptp(first) == 0 else [top, below]

    @property
    def depth(self) -> Array:
        """Depth below the top of the image, ``(depth, lateral)``, in the unit of the image."""
        return self.depths[0]

    @cached_property
    def band(self) -> NDArray[np.bool_]:
        """Insonified pixels near the boundaries of the consensus, ``(depth, lateral)``."""
        reach = BAND * len(self.image.domain) * self.image.spacing[0]
        near: NDArray[np.bool_] = boundary_distance(self.consensus, self.image.spacing) <= reach
        return near & self.image.domain

    @cached_property
    def deviations(self) -> list[tuple[BoundaryDeviation, Array]]:
        """For each class, the deviations of the labels from the consensus boundary, and their SD, ``(points,)``.

        The SD is in the unit of the image.
        """
        return [label_deviation(self, self.labels, index) for index in range(1, self.n_classes)]


def label_deviation(frame: Frame, labels: Labels, index: int) -> tuple[BoundaryDeviation, Array]:
    """Measure the deviation of labels from the boundary of the consensus of a class.

    Args:
        frame: Image and labels; the consensus is that of its labels.
        labels: Class indices, ``(labels, depth, lateral)``.
        index: Index of the class.

    Returns:
        The deviations, and their SD at every boundary point in the unit of the image, ``(points,)``. The SD is NaN at
        corners and where at most half of the labels have a boundary.
    """
    image = frame.image
    reach = 2 * BAND * len(image.domain) * image.spacing[0]
    deviation = boundary_deviation(labels, frame.consensus, index, image.spacing, reach, image.domain)
    sd, present = boundary_sd(deviation.offsets)
    # The normal is not defined at a corner, so deviations would be overestimated.
    return deviation, np.where((present > 0.5) & ~deviation.corner, sd, np.nan)


def confidence_correlation(
    variability: Array,
    confidence: Array,
    depths: Sequence[Array],
    parts: BoundaryParts,
    distance: Array | None = None,
) -> ConfidenceCorrelation:
    """Correlate confidence with variability, not adjusted and adjusted for depth, class, orientation (and distance).

    Args:
        variability: Variability at points or pixels, ``(n,)``.
        confidence: Confidence, ``(n,)``.
        depths: One or more depths, ``(n,)`` each.
        parts: Class and orientation of the boundary, or of the part of it that is nearest to a pixel.
        distance: Distance to the boundary, ``(n,)``; None for boundary points.

    Returns:
        The correlations; NaN with fewer than :data:`POINTS_NEEDED` finite points.
    """
    known = np.isfinite(confidence) & np.isfinite(variability)
    if distance is not None:
        known = known & np.isfinite(distance)
    if known.sum() < POINTS_NEEDED:
        return ConfidenceCorrelation(float("nan"), float("nan"))
    known_distance = None if distance is None else distance[known]
    return partial_rank_correlation(
        variability[known], confidence[known], select(depths, known), parts.select(known), known_distance
    )


def select(maps: Sequence[Array], mask: NDArray[np.bool_]) -> list[Array]:
    """Select the pixels of a mask from each map."""
    return [values[mask] for values in maps]


def finite_mean(values: Any) -> float:
    """Compute the mean of the finite values; NaN without any."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else float("nan")
