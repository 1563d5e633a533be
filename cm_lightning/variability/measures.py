"""What is measured on one image: a network's samples against the labels of raters, and the raters on their own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

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
from cm_lightning.uncertainty.boundary import (
    BoundaryDeviation,
    between_rater_sd,
    boundary_deviation,
    boundary_sd,
    within_rater_sd,
)
from cm_lightning.uncertainty.confidence_question import Effect, confidence_effect
from cm_lightning.uncertainty.raters import (
    agreement,
    areas,
    entropy,
    label_distribution,
    majority,
    pairwise_dice,
    staple,
)
from cm_lightning.variability.image_sampler import SampledImage

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.uint8]
ConsensusName = Literal["majority", "staple"]

BAND = 0.1  # of the frame's depth: how far from a boundary pixels are looked at
DEPTH_BINS = 12
CHANCE_DRAWS = 200
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
        return [_spread(self, self.labels, index) for index in range(1, self.n_classes)]


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


def measure_model(frame: Frame, sampled: SampledImage, ensemble: Array | None) -> dict[str, float]:
    """Measure how a network's samples of an image agree with its labels, and what its doubt is worth.

    Args:
        frame: The image and its labels.
        sampled: What the network says of it.
        ensemble: Mean class probabilities of networks that differ in their seed alone, ``(C, depth, lateral)``; None
            for one network.

    Returns:
        Values by name; NaN where an image has nothing to measure.
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
        effect = _effect(value[band], frame.image.confidence[band], _at(frame.depths, band), distance[band])
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
        "low confidence": 1 - frame.image.confidence,
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
    own = np.concatenate([_spread(frame, sampled.samples, index)[1] for index in range(1, frame.n_classes)])
    raters = np.concatenate([spread for _, spread in frame.spreads])
    both = np.isfinite(own) & np.isfinite(raters)
    if both.sum() < POINTS_NEEDED or np.ptp(raters[both]) < 1e-9:
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
        **_rater_sds(frame),
        "entropy": float(apart[image.domain].mean()),
    }
    for suffix, of_points, of_pixels in (
        ("", boundary.confidence, image.confidence[band]),
        ("_shuffled", boundary.other, other[band]),
    ):
        along = _effect(boundary.sd, of_points, boundary.depths)
        across = _effect(apart[band], of_pixels, _at(frame.depths, band), distance[band])
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


def depth_profile(frame: Frame, sampled: SampledImage, deepest: float, bins: int = DEPTH_BINS) -> dict[str, Array]:
    """Average doubt, disagreement, error and confidence by depth, over the band about the boundaries.

    Args:
        frame: The image and its labels.
        sampled: What a network says of it.
        deepest: Depth of the deepest of all frames, in their unit.
        bins: Equal parts of that depth.

    Returns:
        Means by name, ``(bins,)`` each; NaN where a part has no pixels.
    """
    band = frame.band
    part = np.clip((frame.depth[band] / deepest * bins).astype(int), 0, bins - 1)
    count = np.bincount(part, minlength=bins)
    values = {
        "doubt": entropy(sampled.mean),
        "error": (sampled.mean.argmax(axis=0) != sampled.label).astype(float),
        "confidence": frame.image.confidence,
    }
    if frame.repeated:
        values["disagreement"] = entropy(frame.distribution)
    return {
        name: np.divide(np.bincount(part, value[band], bins), count, out=np.full(bins, np.nan), where=count > 0)
        for name, value in values.items()
    }


def _effect(variability: Array, confidence: Array, depths: Sequence[Array], distance: Array | None = None) -> Effect:
    known = np.isfinite(confidence) & np.isfinite(variability)
    if distance is not None:
        known = known & np.isfinite(distance)
    if known.sum() < POINTS_NEEDED:
        return Effect(float("nan"), float("nan"))
    off = None if distance is None else distance[known]
    return confidence_effect(variability[known], confidence[known], _at(depths, known), off)


def _spread(frame: Frame, labels: Labels, index: int) -> tuple[BoundaryDeviation, Array]:
    """How labels are off along the consensus' boundary of a class, and their SD; NaN where half of them have none."""
    image = frame.image
    reach = 2 * BAND * len(image.domain) * image.spacing[0]
    deviation = boundary_deviation(labels, frame.consensus, index, image.spacing, reach, image.domain)
    spread, present = boundary_sd(deviation.offsets)
    # A corner has no one normal: labels seem further apart there than they are.
    return deviation, np.where((present > 0.5) & ~deviation.corner, spread, np.nan)


def _rater_sds(frame: Frame) -> dict[str, float]:
    """Root of the mean variance along the boundaries, of repeats by one rater and of the raters' own means."""
    within, between = [], []
    for deviation, spread in frame.spreads:
        offsets = deviation.offsets[:, np.isfinite(spread)]
        within.append(within_rater_sd(offsets, frame.raters))
        between.append(between_rater_sd(offsets, frame.raters))
    parts = {"within_rater_sd": within, "between_rater_sd": between}
    return {name: math.sqrt(_mean(np.concatenate(sds) ** 2)) for name, sds in parts.items()}


def _at(maps: Sequence[Array], where: NDArray[np.bool_]) -> list[Array]:
    return [one[where] for one in maps]


def _mean(values: Any) -> float:
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else float("nan")
