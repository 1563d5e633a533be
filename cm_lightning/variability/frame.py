"""One image and its labels, whatever a network says of it."""

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
from cm_lightning.uncertainty.partial_correlation import ConfidenceCorrelation, partial_rank_correlation
from cm_lightning.uncertainty.raters import (
    label_distribution,
    majority,
    staple,
)
from cm_lightning.variability.image_sampler import SampledImage

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.uint8]
ConsensusName = Literal["majority", "staple"]

BAND = 0.1  # of the frame's depth: how far from a boundary pixels are looked at
POINTS_NEEDED = 20  # of a boundary, for a slope over it


@dataclass(frozen=True)
class Frame:
    """An image and its labels, whatever a network says.

    Attributes:
        image: The image, as a model saw it that had its confidence map.
        labels: Class indices that raters gave it, ``(labels, depth, lateral)``; the label file alone where there are no
            raters.
        raters: Who drew each of them.
        n_classes: Number of classes, background included.
        consensus_by: How labels are made one: by ``majority``, or by ``staple``.
    """

    image: SampledImage
    labels: Labels
    raters: tuple[str, ...]
    n_classes: int
    consensus_by: ConsensusName = "majority"

    @property
    def repeated(self) -> bool:
        """Whether there is anything to compare the variability of samples with."""
        return len(self.labels) > 1

    @cached_property
    def consensus(self) -> Labels:
        """Class indices that the labels have in common, ``(depth, lateral)``."""
        return (staple if self.consensus_by == "staple" else majority)(self.labels, self.n_classes)

    @cached_property
    def distribution(self) -> Array:
        """Share of the labels of every class, ``(C, depth, lateral)``."""
        return label_distribution(self.labels, self.n_classes)

    @cached_property
    def depths(self) -> list[Array]:
        """Depth below the first insonified row and, in a fan, also below the probe, ``(depth, lateral)`` each.

        In the image's unit. Beside a curved probe the two are not the same, and either may be what labels go with.
        """
        domain = self.image.domain
        rows = np.arange(len(domain))[:, None] * self.image.spacing[0]
        first = domain.argmax(axis=0)[domain.any(axis=0)]
        top = np.broadcast_to(rows - first.min(initial=0) * self.image.spacing[0], domain.shape)
        below = rows - domain.argmax(axis=0) * self.image.spacing[0]
        return [top] if len(first) == 0 or np.ptp(first) == 0 else [top, below]

    @property
    def depth(self) -> Array:
        """Depth below the first insonified row, ``(depth, lateral)``."""
        return self.depths[0]

    @cached_property
    def band(self) -> NDArray[np.bool_]:
        """Insonified pixels about the boundaries of the consensus, where there is something to be unsure of."""
        reach = BAND * len(self.image.domain) * self.image.spacing[0]
        near: NDArray[np.bool_] = boundary_distance(self.consensus, self.image.spacing) <= reach
        return near & self.image.domain

    @cached_property
    def spreads(self) -> list[tuple[BoundaryDeviation, Array]]:
        """Of every class, how the labels are off along the consensus' boundary and their SD there."""
        return [label_spread(self, self.labels, index) for index in range(1, self.n_classes)]


def label_spread(frame: Frame, labels: Labels, index: int) -> tuple[BoundaryDeviation, Array]:
    """How labels are off along the consensus' boundary of a class, and their SD; NaN where half of them have none."""
    image = frame.image
    reach = 2 * BAND * len(image.domain) * image.spacing[0]
    deviation = boundary_deviation(labels, frame.consensus, index, image.spacing, reach, image.domain)
    spread, present = boundary_sd(deviation.offsets)
    # A corner has no one normal: labels seem further apart there than they are.
    return deviation, np.where((present > 0.5) & ~deviation.corner, spread, np.nan)


def confidence_correlation(
    variability: Array, confidence: Array, depths: Sequence[Array], distance: Array | None = None
) -> ConfidenceCorrelation:
    """Correlate confidence with variability, alone and given depth (and distance); NaN with too few points."""
    known = np.isfinite(confidence) & np.isfinite(variability)
    if distance is not None:
        known = known & np.isfinite(distance)
    if known.sum() < POINTS_NEEDED:
        return ConfidenceCorrelation(float("nan"), float("nan"))
    off = None if distance is None else distance[known]
    return partial_rank_correlation(variability[known], confidence[known], pick(depths, known), off)


def pick(maps: Sequence[Array], where: NDArray[np.bool_]) -> list[Array]:
    """Pick pixels from every map."""
    return [one[where] for one in maps]


def finite_mean(values: Any) -> float:
    """Average what is finite; NaN where nothing is."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else float("nan")
