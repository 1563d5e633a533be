"""What is measured on a network's samples of one image: against its labels, and against its own errors."""

import numpy as np
from scipy import stats

from cm_lightning.metrics.calibration import expected_calibration_error, null_calibration_error
from cm_lightning.uncertainty.agreement import (
    DISAGREED,
    boundary_distance,
    brier_score,
    continuous_ranked_probability_score,
    correlation,
    detection_auroc,
    divergence,
    energy_distance,
    rank_correlation,
    reliability,
)
from cm_lightning.uncertainty.raters import (
    areas,
    entropy,
)
from cm_lightning.variability.frame import (
    POINTS_NEEDED,
    Array,
    Frame,
    confidence_correlation,
    finite_mean,
    label_spread,
    pick,
)
from cm_lightning.variability.image_sampler import SampledImage

DEPTH_BINS = 12
CHANCE_DRAWS = 200


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
    found |= {f"error_auroc/{name}": detection_auroc(score[band], wrong[band]) for name, score in scores.items()}
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
        effect = confidence_correlation(
            value[band], frame.image.confidence[band], pick(frame.depths, band), distance[band]
        )
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
        **{
            f"disagreement_auroc/{name}": detection_auroc(score[band], disagreed[band])
            for name, score in scores.items()
        },
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
    own = np.concatenate([label_spread(frame, sampled.samples, index)[1] for index in range(1, frame.n_classes)])
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
    return {"area_distance": finite_mean(distances), "area_crps": finite_mean(scores)}


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
