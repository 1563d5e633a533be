"""Agreement between a network's samples of one image and the raters' labels of this image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats
from skimage.segmentation import find_boundaries

from cm_lightning.statistics.ranks import mid_ranks, snap

Labels = NDArray[np.uint8]
Array = NDArray[np.floating[Any]]
Sums = NDArray[np.float64]

# Raters disagree on a pixel if the relative frequency of its most frequent class is below this value.
AGREEMENT_THRESHOLD = 0.9
BINS = 15
# Smaller probabilities are set to this value, since the divergence is infinite if no sample contains a class that a
# rater has drawn.
MIN_PROBABILITY = 1e-3


def boundary_distance(segmentation: Labels, spacing: Sequence[float]) -> Array:
    """Compute the distance of every pixel to the nearest boundary between two classes.

    Args:
        segmentation: Class indices, ``(depth, lateral)``.
        spacing: Pixel size in depth and lateral direction, in mm.

    Returns:
        Distances in mm, ``(depth, lateral)``, from the centre of the pixel to the centre of the nearest pixel with a
        neighbour of another class. They are infinite if the segmentation contains only one class.
    """
    boundary = find_boundaries(segmentation, connectivity=1, mode="thick")  # type: ignore[no-untyped-call]
    if not boundary.any():
        return np.full(segmentation.shape, np.inf)
    distance: Array = ndimage.distance_transform_edt(~boundary, sampling=spacing[: segmentation.ndim])
    return distance


def correlation(first: Array, second: Array) -> float:
    """Compute Pearson's correlation (normalised cross-correlation).

    Args:
        first: Values, ``(n,)``.
        second: Values, ``(n,)``.

    Returns:
        Correlation from -1 to 1; NaN if there are fewer than three values or one array is constant.
    """
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def rank_correlation(first: Array, second: Array) -> float:
    """Compute Spearman's rank correlation.

    Args:
        first: Values, ``(n,)``.
        second: Values, ``(n,)``.

    Returns:
        Correlation from -1 to 1; NaN if there are fewer than three values or one array is constant.
    """
    return correlation(mid_ranks(first), mid_ranks(second))


def detection_auroc(score: Array, event: NDArray[np.bool_]) -> float:
    """Compute how well a score detects an event, as the area under the ROC curve.

    This is the probability that the score of a pixel with the event is higher than the score of a pixel without it,
    where ties count one half.

    Args:
        score: Score of every pixel, ``(pixels,)``.
        event: Pixels with the event, ``(pixels,)``.

    Returns:
        AUROC from 0 to 1, where 0.5 is chance level; NaN if all pixels or no pixels have the event.

    References:
        Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
        Radiology 1982.
    """
    score = snap(score)
    positive, negative = score[event], score[~event]
    if not len(positive) or not len(negative):
        return float("nan")
    # The p value of this test is not used, because it assumes that pixels are independent.
    statistic = stats.mannwhitneyu(positive, negative, method="asymptotic").statistic
    return float(statistic / (len(positive) * len(negative)))


def jaccard_distances(first: Labels, second: Labels, n_classes: int) -> Array:
    """Compute the Jaccard distances ``1 - IoU`` between segmentations, averaged over the classes.

    Args:
        first: Class indices, ``(m, ...)``.
        second: Class indices, ``(n, ...)``.
        n_classes: Number of classes including the background, which is not averaged.

    Returns:
        Distances from 0 to 1, ``(m, n)``. A class that is in neither of the two segmentations counts as 0.
    """
    flat = [labels.reshape(len(labels), -1) for labels in (first, second)]
    total = np.zeros((len(first), len(second)))
    for index in range(1, n_classes):
        masks = [(labels == index).astype(np.float32) for labels in flat]
        # Counts of the pixels of a frame are exact in float32.
        intersection = (masks[0] @ masks[1].T).astype(np.float64)
        sizes = [mask.sum(axis=1, dtype=np.float64) for mask in masks]
        union = sizes[0][:, None] + sizes[1][None, :] - intersection
        total += 1 - np.divide(intersection, union, out=np.ones_like(intersection), where=union > 0)
    distances: Array = total / (n_classes - 1)
    return distances


@dataclass(frozen=True)
class EnergyDistance:
    """Energy distance between two distributions of segmentations, with its terms.

    The distance between two segmentations is the Jaccard distance, from 0 to 1.

    Attributes:
        between: Mean distance between a sample and a label.
        samples: Mean distance between two samples.
        labels: Mean distance between two labels.
        numbers: Numbers of samples and of labels.

    References:
        Szekely and Rizzo, "Energy statistics: a class of statistics based on distances", Journal of Statistical
        Planning and Inference 2013. Kohl et al., "A probabilistic U-Net for segmentation of ambiguous images", NeurIPS
        2018 (as generalised energy distance).
    """

    between: float
    samples: float
    labels: float
    numbers: tuple[int, int]

    @property
    def squared(self) -> float:
        """Unbiased squared distance ``2 between - samples - labels``; its mean is 0 if both distributions are equal."""
        return 2 * self.between - self.samples - self.labels

    @property
    def squared_with_self(self) -> float:
        """Squared distance as it is commonly computed, with the distances of 0 from every segmentation to itself.

        It is never negative, and larger than the unbiased one by ``samples / m + labels / n``.
        """
        return self.squared + self.samples / self.numbers[0] + self.labels / self.numbers[1]

    @property
    def diversity(self) -> float:
        """Diversity of the samples relative to the labels, ``samples / labels``; NaN if all labels are equal."""
        return self.samples / self.labels if self.labels > 0 else float("nan")


def energy_distance(samples: Labels, labels: Labels, n_classes: int) -> EnergyDistance:
    """Estimate the energy distance between the distributions of samples and labels, without bias.

    Segmentations are not compared with themselves (U-statistic). With few labels, these distances of 0 would increase
    the squared distance by a few hundredths.

    Args:
        samples: Class indices, ``(m, ...)`` with ``m >= 2``.
        labels: Class indices, ``(n, ...)`` with ``n >= 2``.
        n_classes: Number of classes including the background.

    Returns:
        The distance and its terms.

    References:
        See :class:`EnergyDistance`.
    """
    within = [jaccard_distances(group, group, n_classes) for group in (samples, labels)]
    first, second = (float(d.sum() / (len(d) * (len(d) - 1))) for d in within)
    between = float(jaccard_distances(samples, labels, n_classes).mean())
    return EnergyDistance(between, first, second, (len(samples), len(labels)))


def divergence(labels: Array, predicted: Array) -> Array:
    """Compute the Kullback-Leibler divergence from predicted probabilities to the distribution of the labels.

    Args:
        labels: Relative frequency of each class among the labels, ``(C, pixels)``.
        predicted: Class probabilities, ``(C, pixels)``. Values below 0.001 are set to 0.001.

    Returns:
        Divergence in nats, ``(pixels,)``.

    References:
        Kullback and Leibler, "On information and sufficiency", Annals of Mathematical Statistics 1951.
    """
    bounded = np.maximum(predicted, MIN_PROBABILITY)
    result: Array = np.maximum(stats.entropy(labels, bounded / bounded.sum(axis=0), axis=0), 0)
    return result


def brier_score(labels: Array, predicted: Array) -> float:
    """Compute the mean squared difference between two distributions over classes, summed over the classes.

    Args:
        labels: Relative frequency of each class among the labels, ``(C, pixels)``.
        predicted: Class probabilities, ``(C, pixels)``.

    Returns:
        Score from 0 (equal) to 2.

    References:
        Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 1950.
    """
    return float(((predicted - labels) ** 2).sum(axis=0).mean())


def reliability(labels: Array, predicted: Array, bins: int = BINS) -> tuple[NDArray[np.int64], Sums, Sums]:
    """Sort the probabilities of all pixels and foreground classes into bins, for a reliability diagram.

    Args:
        labels: Relative frequency of each class among the labels, ``(C, pixels)``.
        predicted: Class probabilities, ``(C, pixels)``.
        bins: Number of bins of equal width from 0 to 1.

    Returns:
        For every bin, the number of probabilities, the sum of the predicted probabilities, and the sum of the
        relative frequencies of the labels, ``(bins,)`` each.
    """
    flat, frequency = predicted[1:].ravel().astype(np.float64), labels[1:].ravel().astype(np.float64)
    bin_index = np.minimum((flat * bins).astype(int), bins - 1)
    count = np.bincount(bin_index, minlength=bins).astype(np.int64)
    predicted_sum = np.bincount(bin_index, flat, bins).astype(np.float64)
    frequency_sum = np.bincount(bin_index, frequency, bins).astype(np.float64)
    return count, predicted_sum, frequency_sum


def continuous_ranked_probability_score(samples: Array, values: Array) -> float:
    """Compute the continuous ranked probability score (CRPS) of samples, averaged over the observed values.

    Samples are not compared with themselves, so that the expected score does not depend on the number of samples.

    Args:
        samples: Predicted values, ``(m,)`` with ``m >= 2``.
        values: Observed values, ``(n,)``.

    Returns:
        Score in the unit of the values; 0 if all samples and values are equal.

    References:
        Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA 2007, equation 21.
    """
    between_samples = np.abs(samples[:, None] - samples[None, :]).sum() / (len(samples) * (len(samples) - 1))
    return float(np.abs(samples[:, None] - values[None, :]).mean() - between_samples / 2)
