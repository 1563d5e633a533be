"""How a network's samples of one image agree with the labels that raters gave it: where, how much, and in what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats
from skimage.segmentation import find_boundaries

Labels = NDArray[np.uint8]
Array = NDArray[np.floating[Any]]
Sums = NDArray[np.float64]

DISAGREED = 0.9  # raters disagree on a pixel where fewer of their labels than this share agree
BINS = 15
# A probability below this counts as this: samples that never say what one rater says are not infinitely bad.
SMALLEST = 1e-3


def boundary_distance(segmentation: Labels, spacing: Sequence[float]) -> Array:
    """Distance of every pixel to the nearest boundary between two classes.

    Args:
        segmentation: Class indices, ``(depth, lateral)``.
        spacing: Pixel size in mm in depth and lateral.

    Returns:
        Distance in mm from the pixel's centre to that of the nearest pixel that touches another class; infinite where
        there is one class alone.
    """
    touches = find_boundaries(segmentation, connectivity=1, mode="thick")  # type: ignore[no-untyped-call]
    if not touches.any():
        return np.full(segmentation.shape, np.inf)
    distance: Array = ndimage.distance_transform_edt(~touches, sampling=spacing[: segmentation.ndim])
    return distance


def correlation(first: Array, second: Array) -> float:
    """Normalised cross-correlation (Pearson's) of two maps; NaN where one is constant."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman's correlation of two maps; NaN where one is constant."""
    return correlation(stats.rankdata(first), stats.rankdata(second))


def detection_auroc(score: Array, event: NDArray[np.bool_]) -> float:
    """Probability that a score is higher where an event is than where it is not (AUROC); ties count half.

    Args:
        score: A score a pixel, ``(pixels,)``.
        event: Whether the event is there.

    Returns:
        0.5 for a score that knows nothing; NaN where the event is everywhere or nowhere.
    """
    positive, negative = score[event], score[~event]
    if not len(positive) or not len(negative):
        return float("nan")
    # Of the test, the statistic alone: its p-value would take pixels for independent.
    wins = stats.mannwhitneyu(positive, negative, method="asymptotic").statistic
    return float(wins / (len(positive) * len(negative)))


def jaccard_distances(first: Labels, second: Labels, n_classes: int) -> Array:
    """Distances between segmentations: one less their IoU, mean over classes.

    Args:
        first: Class indices, ``(m, ...)``.
        second: Class indices, ``(n, ...)``.
        n_classes: Number of classes, background included, which does not count.

    Returns:
        ``(m, n)``, a metric: 0 for equal segmentations, of which one both may lack a class.
    """
    flat = [labels.reshape(len(labels), -1) for labels in (first, second)]
    total = np.zeros((len(first), len(second)))
    for index in range(1, n_classes):
        masks = [(labels == index).astype(np.float32) for labels in flat]
        shared = (masks[0] @ masks[1].T).astype(np.float64)  # frames are small enough for float32 to count them
        sizes = [mask.sum(axis=1, dtype=np.float64) for mask in masks]
        union = sizes[0][:, None] + sizes[1][None, :] - shared
        total += 1 - np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
    distances: Array = total / (n_classes - 1)
    return distances


@dataclass(frozen=True)
class EnergyDistance:
    """Distance between two distributions of segmentations (Szekely and Rizzo 2013; as GED in Kohl et al. 2018).

    Attributes:
        between: Mean distance of a sample from a label.
        samples: Mean distance of two samples.
        labels: Mean distance of two labels.
    """

    between: float
    samples: float
    labels: float

    @property
    def squared(self) -> float:
        """The squared distance, ``2 between - samples - labels``; 0 on average where the distributions are one."""
        return 2 * self.between - self.samples - self.labels

    @property
    def diversity(self) -> float:
        """How much samples differ in proportion to labels, 1 where as much; NaN where all labels are equal."""
        return self.samples / self.labels if self.labels > 0 else float("nan")


def energy_distance(samples: Labels, labels: Labels, n_classes: int) -> EnergyDistance:
    """Compare the distribution of samples with that of labels, without bias.

    No segmentation is compared with itself (the U-statistic): counting those zeros would make the distance larger by
    some hundredths with few labels.

    Args:
        samples: Class indices, ``(m, ...)``, two or more.
        labels: Class indices, ``(n, ...)``, two or more.
        n_classes: Number of classes, background included.

    Returns:
        The distance and its terms.
    """
    within = [jaccard_distances(one, one, n_classes) for one in (samples, labels)]
    first, second = (float(d.sum() / (len(d) * (len(d) - 1))) for d in within)
    return EnergyDistance(float(jaccard_distances(samples, labels, n_classes).mean()), first, second)


def divergence(labels: Array, predicted: Array) -> Array:
    """Kullback-Leibler divergence in nats of predicted probabilities from the labels' distribution.

    Args:
        labels: Share of the labels of every class, ``(C, pixels)``.
        predicted: Class probabilities, ``(C, pixels)``; below 0.001 they count as that.

    Returns:
        ``(pixels,)``.
    """
    bounded = np.maximum(predicted, SMALLEST)
    found: Array = np.maximum(stats.entropy(labels, bounded / bounded.sum(axis=0), axis=0), 0)
    return found


def brier_score(labels: Array, predicted: Array) -> float:
    """Mean over pixels of the squared difference of two distributions over classes, ``(C, pixels)`` each."""
    return float(((predicted - labels) ** 2).sum(axis=0).mean())


def reliability(labels: Array, predicted: Array, bins: int = BINS) -> tuple[NDArray[np.int64], Sums, Sums]:
    """Sort pixels and classes by their predicted probability, the background left out.

    Args:
        labels: Share of the labels of every class, ``(C, pixels)``.
        predicted: Class probabilities, ``(C, pixels)``.
        bins: Number of equally wide bins from 0 to 1.

    Returns:
        In every bin the count, the sum of the predicted probabilities and that of the labels' shares, ``(bins,)`` each.
    """
    flat, share = predicted[1:].ravel().astype(np.float64), labels[1:].ravel().astype(np.float64)
    which = np.minimum((flat * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins).astype(np.int64)
    return count, np.bincount(which, flat, bins).astype(np.float64), np.bincount(which, share, bins).astype(np.float64)


def continuous_ranked_probability_score(samples: Array, values: Array) -> float:
    """Score predicted samples of a quantity against observed values, 0 where all are one (CRPS; Gneiting 2007).

    Args:
        samples: Predicted, ``(m,)``, two or more.
        values: Observed, ``(n,)``; the mean over them is given.

    Returns:
        In the quantity's unit; of the samples, pairs of two alone count, so that their number makes no difference.
    """
    apart = np.abs(samples[:, None] - samples[None, :]).sum() / (len(samples) * (len(samples) - 1))
    return float(np.abs(samples[:, None] - values[None, :]).mean() - apart / 2)
