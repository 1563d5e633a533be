"""Does confidence go with the variability of labels, beyond what depth and distance to the boundary say already?

Confidence falls with depth by construction, and so may the quality of an image and the care of a rater: a correlation
of confidence with variability alone says nothing about the map. Here both are first cleared of whatever depth and
distance predict, in any smooth way. One value an image comes out; images are grouped by patient before anything is
tested, as pixels of an image are no independent witnesses.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.interpolate import BSpline

from cm_lightning.uncertainty.agreement import correlation

Array = NDArray[np.floating[Any]]

PIECES = 4  # of the smooth curve of each condition


class ConfidenceCorrelation(NamedTuple):
    """Rank correlation of confidence with variability in one image; negative where low confidence goes with more.

    Attributes:
        alone: Spearman's correlation.
        given: The same, given depth (and distance): of what remains of the ranks of both.
    """

    alone: float
    given: float


def partial_rank_correlation(
    variability: Array, confidence: Array, depths: Sequence[Array], distance: Array | None = None
) -> ConfidenceCorrelation:
    """Correlate confidence with the variability of labels in one image.

    Args:
        variability: Of labels, at points or pixels, ``(n,)``: boundary SD or entropy.
        confidence: The map there, ``(n,)``.
        depths: Depth of the points, ``(n,)``; in a fan both that below the top of the picture and that below the probe,
            as either may be what variability goes with.
        distance: Distance of pixels to the boundary, ``(n,)``; None for points of the boundary.

    Returns:
        The correlation with and without the conditions; NaN where nothing varies, or with fewer than five points for
        every number of the surfaces that clear the conditions away.
    """
    ranks = [stats.rankdata(variability), stats.rankdata(confidence)]
    surfaces = np.hstack([smooth_basis([depth] if distance is None else [depth, distance]) for depth in depths])
    if len(variability) < 5 * surfaces.shape[1]:
        return ConfidenceCorrelation(correlation(*ranks), float("nan"))
    left = _without(surfaces, np.stack(ranks, axis=1)).T
    # What conditions explain whole leaves rounding errors alone.
    tiny = 1e-6 * len(variability)
    given = float("nan") if min(np.ptp(rest) for rest in left) < tiny else correlation(*left)
    return ConfidenceCorrelation(correlation(*ranks), given)


def smooth_basis(conditions: Sequence[Array], knots: Sequence[Array] | None = None) -> Array:
    """Functions whose sums are all smooth surfaces over the conditions: products of cubic splines (tensor product).

    Args:
        conditions: One or more, ``(n,)`` each.
        knots: Values of every condition from whose quantiles the splines' pieces are made; the conditions by default.

    Returns:
        ``(n, functions)``; they sum to 1.
    """
    made = np.ones((len(conditions[0]), 1))
    for values, of in zip(conditions, knots or conditions, strict=True):
        cuts = np.unique(np.quantile(of, np.linspace(0, 1, PIECES + 1)))
        if len(cuts) < 2:
            continue  # the same everywhere: nothing to clear away
        padded = np.concatenate([[cuts[0]] * 3, cuts, [cuts[-1]] * 3])
        spline = BSpline.design_matrix(np.clip(values, cuts[0], cuts[-1]), padded, 3).toarray()
        made = (made[:, :, None] * spline[:, None, :]).reshape(len(made), -1)
    return made


def explained_variance(
    variability: Sequence[Array], predictors: Sequence[Sequence[Array]], patients: Sequence[str]
) -> Array:
    """Share of the variability of patients' labels that is predicted by a curve learnt from the other patients.

    Args:
        variability: Of every image, ``(n,)``.
        predictors: Of every image, one or more of the points' properties, ``(n,)`` each; their curves are added up.
        patients: Whose image it is.

    Returns:
        Of every patient, in the order of first appearance, ``1 - squared error / squared deviation from the others'
        mean``: 0 for predictors that know nothing, and below for those that mislead.
    """
    found = []
    for patient in dict.fromkeys(patients):
        own = [index for index, who in enumerate(patients) if who == patient]
        others = [index for index, who in enumerate(patients) if who != patient]
        learnt = [np.concatenate(columns) for columns in zip(*(predictors[index] for index in others), strict=True)]
        target = np.concatenate([variability[index] for index in others])
        weights, *_ = np.linalg.lstsq(_sum_of_curves(learnt, learnt), target, rcond=1e-6)
        wrong = deviation = 0.0
        for index in own:
            predicted = _sum_of_curves(predictors[index], learnt) @ weights
            wrong += float(((variability[index] - predicted) ** 2).sum())
            deviation += float(((variability[index] - target.mean()) ** 2).sum())
        found.append(1 - wrong / deviation if deviation > 0 else float("nan"))
    return np.array(found)


def _sum_of_curves(predictors: Sequence[Array], learnt: Sequence[Array]) -> Array:
    """Functions whose sums are sums of a curve of each predictor: a surface would have to guess between patients."""
    return np.hstack([smooth_basis([own], [of]) for own, of in zip(predictors, learnt, strict=True)])


def _without(basis: Array, values: Array) -> Array:
    """What the best fit of the basis leaves of the values, column by column."""
    weights, *_ = np.linalg.lstsq(basis, values, rcond=1e-10)
    rest: Array = values - basis @ weights
    return rest
