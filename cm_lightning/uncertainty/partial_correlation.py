"""Correlation of confidence with the variability of labels, adjusted for depth, class, orientation and distance.

Confidence decreases with depth by construction, and image quality and the accuracy of raters may do so as well. A class
that is difficult to outline may lie in a shadow, and boundaries along the beam are both less visible and in other
places than those across it. Therefore, a plain correlation of confidence with variability does not show that the
confidence map is informative. Here, the parts of both that depend on depth, on the class and the orientation of the
boundary and on the distance to it are removed first. The result is one value per image. Tests must group images by
patient, because the pixels of an image are not independent.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from cm_lightning.statistics.ranks import mid_ranks
from cm_lightning.uncertainty.agreement import correlation

Array = NDArray[np.floating[Any]]

# Number of polynomial pieces of the spline of each covariate.
PIECES = 4
# Number of harmonics of the orientation of a boundary; the second one separates boundaries along and across the beam.
HARMONICS = 2


class ConfidenceCorrelation(NamedTuple):
    """Rank correlation of confidence with variability in one image; negative if low confidence means high variability.

    Attributes:
        plain: Spearman's rank correlation.
        partial: Partial rank correlation, adjusted for depth and boundary (and distance to it).
    """

    plain: float
    partial: float


class BoundaryParts(NamedTuple):
    """Part of the boundary to which points or pixels belong.

    Attributes:
        classes: Index of the class that the boundary encloses, ``(n,)``.
        angles: Angle of its outward normal in radians, 0 along the beam, ``(n,)``.
    """

    classes: NDArray[np.int64]
    angles: Array

    def select(self, mask: NDArray[np.bool_]) -> "BoundaryParts":
        """Return the parts of some points."""
        return BoundaryParts(self.classes[mask], self.angles[mask])


def partial_rank_correlation(
    variability: Array,
    confidence: Array,
    depths: Sequence[Array],
    parts: BoundaryParts,
    distance: Array | None = None,
) -> ConfidenceCorrelation:
    """Correlate confidence with the variability of labels in one image.

    The ranks of both are regressed on splines over depth, on classes and on harmonics of the orientation, and the
    residuals are correlated. For pixels, all of these are multiplied with splines over the distance to the boundary,
    because the width of the uncertain band depends on them.

    Args:
        variability: Variability of the labels at points or pixels, ``(n,)``: boundary SD in mm, or entropy in nats.
        confidence: Confidence at these points, ``(n,)``.
        depths: Depths of the points in mm, ``(n,)`` each. For a fan, these are the depth below the top of the image and
            the depth below the probe, since variability may depend on either.
        parts: Class and orientation of the boundary, or of the part of it that is nearest to a pixel.
        distance: Distance of pixels to the boundary in mm, ``(n,)``; None for points on the boundary.

    Returns:
        The correlation without and with the covariates. Both are NaN if one quantity is constant. The partial
        correlation is also NaN if there are fewer than five points per regression coefficient, or if the covariates
        explain one quantity completely.
    """
    ranks = [mid_ranks(variability), mid_ranks(confidence)]
    across = np.ones((len(variability), 1)) if distance is None else smooth_basis([distance])
    alone = np.hstack([*(smooth_basis([depth]) for depth in depths), _part_basis(parts)])
    surfaces = (alone[:, :, None] * across[:, None, :]).reshape(len(variability), -1)
    if len(variability) < 5 * surfaces.shape[1]:
        return ConfidenceCorrelation(correlation(*ranks), float("nan"))
    residuals = _regression_residuals(surfaces, np.stack(ranks, axis=1)).T
    # If the covariates explain a quantity completely, its residuals are only rounding errors.
    threshold = 1e-6 * len(variability)
    explained = min(np.ptp(residual) for residual in residuals) < threshold
    partial = float("nan") if explained else correlation(*residuals)
    return ConfidenceCorrelation(correlation(*ranks), partial)


def _part_basis(parts: BoundaryParts) -> Array:
    """Evaluate an indicator of every class but the first, and harmonics of the angle, ``(n, functions)``."""
    indicators = [(parts.classes == index).astype(float) for index in np.unique(parts.classes)[1:]]
    waves = [wave(order * parts.angles) for order in range(1, HARMONICS + 1) for wave in (np.cos, np.sin)]
    return np.stack([*indicators, *waves], axis=1)


def smooth_basis(covariates: Sequence[Array], knots: Sequence[Array] | None = None) -> Array:
    """Evaluate a basis of smooth surfaces: tensor products of cubic B-splines.

    Args:
        covariates: One or more covariates, ``(n,)`` each.
        knots: Values of every covariate whose quantiles are the knots of its splines, ``(m,)`` each; the covariates by
            default.

    Returns:
        Values of the basis functions, ``(n, functions)``. Each row sums to 1. Constant covariates are ignored.
    """
    basis = np.ones((len(covariates[0]), 1))
    for values, knot_values in zip(covariates, knots or covariates, strict=True):
        cuts = np.unique(np.quantile(knot_values, np.linspace(0, 1, PIECES + 1)))
        if len(cuts) < 2:
            continue
        padded = np.concatenate([[cuts[0]] * 3, cuts, [cuts[-1]] * 3])
        spline = BSpline.design_matrix(np.clip(values, cuts[0], cuts[-1]), padded, 3).toarray()
        basis = (basis[:, :, None] * spline[:, None, :]).reshape(len(basis), -1)
    return basis


def explained_variance(
    variability: Sequence[Array], predictors: Sequence[Sequence[Array]], patients: Sequence[str]
) -> Array:
    """Compute how much of the variation in each patient is explained by curves fitted to all other patients.

    Args:
        variability: Variability at the points of every image, ``(n,)`` each.
        predictors: For every image, one or more properties of its points, ``(n,)`` each. The prediction is a sum of one
            curve per property.
        patients: Patient of every image.

    Returns:
        Explained fraction for every patient, in order of first appearance, ``(patients,)``: ``1 - squared error /
        squared deviation from the mean of the other patients``. It is about 0 for uninformative predictors, negative
        for misleading ones, and NaN if the deviation is 0.
    """
    fractions = []
    for patient in dict.fromkeys(patients):
        test = [index for index, name in enumerate(patients) if name == patient]
        training = [index for index, name in enumerate(patients) if name != patient]
        columns = zip(*(predictors[index] for index in training), strict=True)
        training_predictors = [np.concatenate(column) for column in columns]
        target = np.concatenate([variability[index] for index in training])
        basis = _sum_of_curves(training_predictors, training_predictors)
        weights, *_ = np.linalg.lstsq(basis, target, rcond=1e-6)
        squared_error = deviation = 0.0
        for index in test:
            predicted = _sum_of_curves(predictors[index], training_predictors) @ weights
            squared_error += float(((variability[index] - predicted) ** 2).sum())
            deviation += float(((variability[index] - target.mean()) ** 2).sum())
        fractions.append(1 - squared_error / deviation if deviation > 0 else float("nan"))
    return np.array(fractions)


def _sum_of_curves(predictors: Sequence[Array], knots: Sequence[Array]) -> Array:
    """Evaluate a basis of sums of one curve per predictor.

    Unlike a surface, it does not need training patients with the same combinations of predictors as the test patient.
    """
    return np.hstack([smooth_basis([values], [knot]) for values, knot in zip(predictors, knots, strict=True)])


def _regression_residuals(basis: Array, values: Array) -> Array:
    """Return the residuals of a least-squares fit of the basis to every column of the values."""
    weights, *_ = np.linalg.lstsq(basis, values, rcond=1e-10)
    residuals: Array = values - basis @ weights
    return residuals
