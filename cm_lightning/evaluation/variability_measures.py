"""What is measured on one image: a network's samples against the labels of raters, and the raters on their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cm_lightning.callbacks import SampledImage
from cm_lightning.metrics.calibration import expected_calibration_error, null_calibration_error
from cm_lightning.uncertainty.agreement import (
    DISAGREED,
    boundary_distance,
    brier_score,
    continuous_ranked_probability_score,
    correlation,
    detection,
    divergence,
    energy_distance,
    rank_correlation,
    reliability,
)
from cm_lightning.uncertainty.boundary import boundary_deviation, boundary_sd
from cm_lightning.uncertainty.confidence_question import Effect, confidence_effect
from cm_lightning.uncertainty.raters import agreement, areas, entropy, label_distribution, majority, pairwise_dice

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.uint8]

BAND = 0.1  # of the frame's depth: how far from a boundary pixels are looked at
DEPTH_BINS = 12
CHANCE_DRAWS = 200
POINTS_NEEDED = 20  # of a boundary, for a slope over it


@dataclass(frozen=True)
class Frame:
    """An image and its labels, whatever a network says.

    Attributes:
        image: The image, as one of the models saw it.
        labels: Class indices that raters gave it, ``(labels, depth, lateral)``; the label file alone where there are no
            raters.
        raters: Who drew each of them.
        n_classes: Number of classes, background included.
    """

    image: SampledImage
    labels: Labels
    raters: tuple[str, ...]
    n_classes: int

    @property
    def repeated(self) -> bool:
        """Whether there is anything to compare the variability of samples with."""
        return len(self.labels) > 1

    @property
    def consensus(self) -> Labels:
        """The class that most labels give a pixel."""
        return majority(self.labels, self.n_classes)

    @property
    def distribution(self) -> Array:
        """Share of the labels of every class, ``(C, depth, lateral)``."""
        return label_distribution(self.labels, self.n_classes)

    @property
    def depth(self) -> Array:
        """Depth below the first insonified pixel of the column, ``(depth, lateral)``, in the image's unit."""
        rows = np.arange(len(self.image.domain))[:, None]
        return (rows - self.image.domain.argmax(axis=0)) * self.image.spacing[0]

    @property
    def band(self) -> NDArray[np.bool_]:
        """Insonified pixels about the boundaries of the consensus, where there is something to be unsure of."""
        reach = BAND * len(self.image.domain) * self.image.spacing[0]
        near: NDArray[np.bool_] = boundary_distance(self.consensus, self.image.spacing) <= reach
        return near & self.image.domain


@dataclass(frozen=True)
class Boundary:
    """Points of the consensus' boundaries of all classes, and how far labels are apart there.

    Attributes:
        sd: SD over labels along the normal, ``(points,)``.
        depth: Depth of the points.
        confidence: The map there.
        other: Another patient's map there.
    """

    sd: Array
    depth: Array
    confidence: Array
    other: Array


def measure_model(frame: Frame, sampled: SampledImage, ensemble: Array | None) -> dict[str, float]:
    """Measure how a network's samples of an image agree with its labels, and what its doubt is worth.

    Args:
        frame: The image and its labels.
        sampled: What the network says of it.
        ensemble: Mean class probabilities of networks that differ in their seed alone, ``(C, depth, lateral)``; None
            for one network.

    Returns:
        Values by name; see :data:`MEASURES`. NaN where an image has nothing to measure.
    """
    band, truth = frame.band, frame.distribution
    found = {"entropy": float(entropy(sampled.mean)[sampled.domain].mean())}
    scores = predictors(frame, sampled, ensemble)
    wrong = sampled.mean.argmax(axis=0) != sampled.label
    found |= {f"error_auroc/{name}": detection(score[band], wrong[band]) for name, score in scores.items()}
    predicted, shares = sampled.mean[:, band], truth[:, band]
    if band.any():
        found["brier"] = brier_score(shares, predicted)
        found["divergence"] = float(divergence(shares, predicted).mean())
        count, probability, share = reliability(shares, predicted)
        found["ece"] = float(expected_calibration_error(count, probability, share))
        drawn = len(frame.labels)  # a pixel's share is of so many labels
        chance = null_calibration_error(drawn * count, drawn * probability, draws=CHANCE_DRAWS)
        found["ece_by_chance"] = float(chance)
    doubt = entropy(sampled.mean)
    distance = boundary_distance(sampled.mean.argmax(axis=0).astype(np.uint8), sampled.spacing)
    for name, value in (("entropy", doubt), ("error", wrong.astype(float))):
        effect = _effect(value[band], sampled.confidence[band], [frame.depth[band], distance[band]])
        found |= {f"{name}_confidence": effect.alone, f"{name}_confidence_given": effect.given}
    return {**found, **_against_raters(frame, sampled, scores)} if frame.repeated else found


def predictors(frame: Frame, sampled: SampledImage, ensemble: Array | None = None) -> dict[str, Array]:
    """List what could tell where labels differ, or where a network is wrong; higher for more.

    Args:
        frame: The image.
        sampled: What a network says of it.
        ensemble: As for :func:`measure_model`.

    Returns:
        Maps ``(depth, lateral)`` by name.
    """
    doubt = entropy(sampled.mean)
    boundary = boundary_distance(sampled.single.argmax(axis=0).astype(np.uint8), sampled.spacing)
    scores = {
        "MC entropy": doubt,
        "MC mutual information": doubt - sampled.expected_entropy,
        "softmax entropy": entropy(sampled.single),
        "test-time augmentation": entropy(sampled.augmented),
        "low confidence": 1 - sampled.confidence,
        "depth alone": frame.depth,
        "distance alone": -np.minimum(boundary, 1e6),
    }
    return scores if ensemble is None else {**scores, "ensemble over seeds": entropy(ensemble)}


def _against_raters(frame: Frame, sampled: SampledImage, scores: dict[str, Array]) -> dict[str, float]:
    band, truth = frame.band, frame.distribution
    apart = entropy(truth)
    doubt, information = entropy(sampled.mean), scores["MC mutual information"]
    disagreed = truth.max(axis=0) < DISAGREED
    found = {
        "ncc": correlation(doubt[band], apart[band]),
        "spearman": rank_correlation(doubt[band], apart[band]),
        "ncc_information": correlation(information[band], apart[band]),
        "spearman_information": rank_correlation(information[band], apart[band]),
        **{f"disagreement_auroc/{name}": detection(score[band], disagreed[band]) for name, score in scores.items()},
    }
    energy = energy_distance(sampled.samples, frame.labels, frame.n_classes)
    found |= {
        "diversity": energy.diversity,
        "energy": energy.squared,
        "energy_between": energy.between,
        "energy_samples": energy.samples,
        "energy_labels": energy.labels,
    }
    found |= _boundary_slopes(frame, sampled)
    found |= _area_scores(frame, sampled)
    return found


def _boundary_slopes(frame: Frame, sampled: SampledImage) -> dict[str, float]:
    """Compare how far samples and labels are apart along the consensus' normals."""
    spreads = [
        [_spread(frame, labels, index)[1] for labels in (sampled.samples, frame.labels)]
        for index in range(1, frame.n_classes)
    ]
    own, raters = (np.concatenate(parts) for parts in zip(*spreads, strict=True))
    both = np.isfinite(own) & np.isfinite(raters)
    if both.sum() < POINTS_NEEDED:
        return dict.fromkeys(("boundary_slope", "boundary_ratio", "boundary_spearman"), float("nan"))
    fit = stats.linregress(raters[both], own[both])
    return {
        "boundary_slope": float(fit.slope),
        "boundary_ratio": float(own[both].mean() / raters[both].mean()),
        "boundary_spearman": rank_correlation(own[both], raters[both]),
    }


def _area_scores(frame: Frame, sampled: SampledImage) -> dict[str, float]:
    """Compare the classes' areas, in shares of the labels' mean area; mean over the classes that labels have."""
    distances, scores = [], []
    for own, raters in zip(
        np.moveaxis(areas(sampled.samples, frame.n_classes, sampled.spacing), 0, -1)[:, 0],
        np.moveaxis(areas(frame.labels, frame.n_classes, sampled.spacing), 0, -1)[:, 0],
        strict=True,
    ):
        if raters.mean() > 0:
            distances.append(stats.wasserstein_distance(own, raters) / raters.mean())
            scores.append(continuous_ranked_probability_score(own, raters) / raters.mean())
    return {"area_distance": _mean(distances), "area_crps": _mean(scores)}


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
        "intra_dice": _mean(dice.intra),
        "inter_dice": _mean(dice.inter),
        "boundary_sd": _mean(boundary.sd),
        "entropy": float(apart[image.domain].mean()),
    }
    at_points, in_band = [boundary.depth], [frame.depth[band], distance[band]]
    for suffix, of_points, of_pixels in (
        ("", boundary.confidence, image.confidence[band]),
        ("_shuffled", boundary.other, other[band]),
    ):
        along = _effect(boundary.sd, of_points, at_points)
        across = _effect(apart[band], of_pixels, in_band)
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
    parts = []
    for index in range(1, frame.n_classes):
        points, spread = _spread(frame, frame.labels, index)
        kept = np.isfinite(spread)
        rows, columns = np.round(points[kept].T).astype(int)
        at = [value[rows, columns] for value in (frame.depth, frame.image.confidence, other)]
        parts.append([spread[kept], *at])
    return Boundary(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def depth_profile(frame: Frame, sampled: SampledImage, bins: int = DEPTH_BINS) -> dict[str, Array]:
    """Average doubt, disagreement, error and confidence by depth, over the band about the boundaries.

    Args:
        frame: The image and its labels.
        sampled: What a network says of it.
        bins: Equal parts of the frame's depth.

    Returns:
        Means by name, ``(bins,)`` each; NaN where a part has no pixels.
    """
    band = frame.band
    height = len(band) * sampled.spacing[0]
    part = np.clip((frame.depth[band] / height * bins).astype(int), 0, bins - 1)
    count = np.bincount(part, minlength=bins)
    values = {
        "doubt": entropy(sampled.mean),
        "error": (sampled.mean.argmax(axis=0) != sampled.label).astype(float),
        "confidence": sampled.confidence,
    }
    if frame.repeated:
        values["disagreement"] = entropy(frame.distribution)
    return {
        name: np.divide(np.bincount(part, value[band], bins), count, out=np.full(bins, np.nan), where=count > 0)
        for name, value in values.items()
    }


def _effect(variability: Array, confidence: Array, conditions: Sequence[Array]) -> Effect:
    known = np.isfinite(confidence) & np.isfinite(variability)
    for condition in conditions:
        known = known & np.isfinite(condition)
    if known.sum() < POINTS_NEEDED:
        return Effect(float("nan"), float("nan"))
    return confidence_effect(variability[known], confidence[known], [condition[known] for condition in conditions])


def _spread(frame: Frame, labels: Labels, index: int) -> tuple[Array, Array]:
    """Points of the consensus' boundary of a class, and the SD of labels there; NaN where half of them have none."""
    image = frame.image
    reach = 2 * BAND * len(image.domain) * image.spacing[0]
    deviation = boundary_deviation(labels, frame.consensus, index, image.spacing, reach, image.domain)
    spread, present = boundary_sd(deviation.offsets)
    # A corner has no one normal: labels seem further apart there than they are.
    return deviation.points, np.where((present > 0.5) & ~deviation.corner, spread, np.nan)


def _mean(values: Any) -> float:
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else float("nan")
