"""Measures of MC-dropout samples of one image, compared with its labels and with the errors of the network."""

import numpy as np
from scipy import stats

from cm_lightning.metrics.calibration import expected_calibration_error, null_calibration_error
from cm_lightning.uncertainty.agreement import (
    AGREEMENT_THRESHOLD,
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
from cm_lightning.uncertainty.boundary import nearest_boundary
from cm_lightning.uncertainty.partial_correlation import BoundaryParts
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
    label_deviation,
    select,
)
from cm_lightning.variability.image_sampler import SampledImage

# Number of bins of a depth profile.
DEPTH_BINS = 12
# Number of random draws for the ECE that is expected by chance.
CHANCE_DRAWS = 200


def measure_model(frame: Frame, sampled: SampledImage, ensemble: Array | None) -> dict[str, float]:
    """Measure the agreement of samples with labels, and the value of the predictive uncertainty.

    Args:
        frame: Image and labels.
        sampled: Samples of the network.
        ensemble: Mean class probabilities of networks that differ only in their seed, ``(C, depth, lateral)``; None for
            one network.

    Returns:
        Measures by name; NaN if a measure is not defined for the image.
    """
    band, truth = frame.band, frame.distribution
    measures = {"entropy": float(entropy(sampled.mean)[sampled.domain].mean())}
    scores = predictors(frame, sampled, ensemble)
    error = sampled.mean.argmax(axis=0) != sampled.label
    measures |= {f"error_auroc/{name}": detection_auroc(score[band], error[band]) for name, score in scores.items()}
    predicted, observed = sampled.mean[:, band], truth[:, band]
    if band.any():
        measures["brier"] = brier_score(observed, predicted)
        measures["divergence"] = float(divergence(observed, predicted).mean())
        count, probability, positive = reliability(observed, predicted)
        measures["ece"] = float(expected_calibration_error(count, probability, positive))
        labels = len(frame.labels)  # each pixel has as many observations as there are labels
        chance = null_calibration_error(labels * count, labels * probability, draws=CHANCE_DRAWS)
        measures["ece_by_chance"] = float(chance)
    uncertainty = entropy(sampled.mean)
    predicted_classes = sampled.mean.argmax(axis=0).astype(np.uint8)
    distance = boundary_distance(predicted_classes, sampled.spacing)
    parts = BoundaryParts(*nearest_boundary(predicted_classes, frame.n_classes, sampled.spacing, band))
    for name, value in (("entropy", uncertainty), ("error", error.astype(float))):
        correlations = confidence_correlation(
            value[band], frame.image.confidence[band], select(frame.depths, band), parts, distance[band]
        )
        measures |= {f"{name}_confidence": correlations.plain, f"{name}_confidence_given": correlations.partial}
    return {**measures, **_agreement_with_raters(frame, sampled, scores)} if frame.repeated else measures


def predictors(frame: Frame, sampled: SampledImage, ensemble: Array | None = None) -> dict[str, Array]:
    """Compute scores that may predict where labels disagree or a network is wrong; higher means more likely.

    Args:
        frame: The image.
        sampled: Samples of the network.
        ensemble: Mean class probabilities of an ensemble, as for :func:`measure_model`.

    Returns:
        Scores by name, ``(depth, lateral)`` each.
    """
    uncertainty = entropy(sampled.mean)
    boundary = boundary_distance(sampled.single.argmax(axis=0).astype(np.uint8), sampled.spacing)
    scores = {
        "MC entropy": uncertainty,
        "MC mutual information": uncertainty - sampled.expected_entropy,
        "softmax entropy": entropy(sampled.single),
        "test-time augmentation": entropy(sampled.augmented),
        "low confidence": 1 - frame.image.confidence,
        "depth alone": frame.depth,
        "distance alone": -np.minimum(boundary, 1e6),
    }
    return scores if ensemble is None else {**scores, "ensemble over seeds": entropy(ensemble)}


def _agreement_with_raters(frame: Frame, sampled: SampledImage, scores: dict[str, Array]) -> dict[str, float]:
    band, truth = frame.band, frame.distribution
    label_entropy = entropy(truth)
    uncertainty, information = entropy(sampled.mean), scores["MC mutual information"]
    disagreement = truth.max(axis=0) < AGREEMENT_THRESHOLD
    measures = {
        "ncc": correlation(uncertainty[band], label_entropy[band]),
        "spearman": rank_correlation(uncertainty[band], label_entropy[band]),
        "ncc_information": correlation(information[band], label_entropy[band]),
        "spearman_information": rank_correlation(information[band], label_entropy[band]),
        **{
            f"disagreement_auroc/{name}": detection_auroc(score[band], disagreement[band])
            for name, score in scores.items()
        },
    }
    energy = energy_distance(sampled.samples, frame.labels, frame.n_classes)
    measures |= {
        "diversity": energy.diversity,
        "energy": energy.squared,
        "energy_common": energy.squared_with_self,
        "energy_between": energy.between,
        "energy_samples": energy.samples,
        "energy_labels": energy.labels,
    }
    measures |= _boundary_slopes(frame, sampled)
    measures |= _area_scores(frame, sampled)
    return measures


def _boundary_slopes(frame: Frame, sampled: SampledImage) -> dict[str, float]:
    """Compare the boundary SD of samples with that of labels, along the normals of the consensus."""
    sample_sd = np.concatenate(
        [label_deviation(frame, sampled.samples, index)[1] for index in range(1, frame.n_classes)]
    )
    rater_sd = np.concatenate([sd for _, sd in frame.deviations])
    both = np.isfinite(sample_sd) & np.isfinite(rater_sd)
    if both.sum() < POINTS_NEEDED or np.ptp(rater_sd[both]) < 1e-9:
        return dict.fromkeys(("boundary_slope", "boundary_ratio", "boundary_spearman"), float("nan"))
    fit = stats.linregress(rater_sd[both], sample_sd[both])
    return {
        "boundary_slope": float(fit.slope),
        "boundary_ratio": float(sample_sd[both].mean() / rater_sd[both].mean()),
        "boundary_spearman": rank_correlation(sample_sd[both], rater_sd[both]),
    }


def _area_scores(frame: Frame, sampled: SampledImage) -> dict[str, float]:
    """Compare the areas of the classes relative to the mean labelled area; mean over the labelled classes."""
    distances, scores = [], []
    for sample_areas, rater_areas in zip(
        np.moveaxis(areas(sampled.samples, frame.n_classes, sampled.spacing), 0, -1)[:, 0],
        np.moveaxis(areas(frame.labels, frame.n_classes, sampled.spacing), 0, -1)[:, 0],
        strict=True,
    ):
        if rater_areas.mean() > 0:
            distances.append(stats.wasserstein_distance(sample_areas, rater_areas) / rater_areas.mean())
            scores.append(continuous_ranked_probability_score(sample_areas, rater_areas) / rater_areas.mean())
    return {"area_distance": finite_mean(distances), "area_crps": finite_mean(scores)}


def depth_profile(frame: Frame, sampled: SampledImage, deepest: float, bins: int = DEPTH_BINS) -> dict[str, Array]:
    """Average uncertainty, disagreement, error and confidence by depth, over pixels near the boundaries.

    Args:
        frame: Image and labels.
        sampled: Samples of the network.
        deepest: Depth of the deepest of all frames, in their unit.
        bins: Number of bins between 0 and ``deepest``.

    Returns:
        Means by name, ``(bins,)`` each; NaN for a bin without pixels.
    """
    band = frame.band
    bin_index = np.clip((frame.depth[band] / deepest * bins).astype(int), 0, bins - 1)
    count = np.bincount(bin_index, minlength=bins)
    values = {
        "doubt": entropy(sampled.mean),
        "error": (sampled.mean.argmax(axis=0) != sampled.label).astype(float),
        "confidence": frame.image.confidence,
    }
    if frame.repeated:
        values["disagreement"] = entropy(frame.distribution)
    return {
        name: np.divide(np.bincount(bin_index, value[band], bins), count, out=np.full(bins, np.nan), where=count > 0)
        for name, value in values.items()
    }
