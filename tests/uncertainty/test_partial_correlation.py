"""Partial correlation of confidence and variability in simulated studies with and without an effect."""

import math

import numpy as np
import pytest
from scipy import ndimage

from cm_lightning.statistics.signed_rank import signed_rank_p
from cm_lightning.uncertainty.partial_correlation import (
    BoundaryParts,
    explained_variance,
    partial_rank_correlation,
    smooth_basis,
)

LABELS, POINTS = 25, 240
ANGLES = np.tile(np.linspace(0, 2 * np.pi, POINTS // 2, endpoint=False), 2)
PARTS = BoundaryParts(np.repeat([1, 2], POINTS // 2), ANGLES)


def image(generator, depth_effect=0.0, confidence_effect=0.0, class_effect=0.0, orientation_effect=0.0):
    """Return SDs of simulated labels, confidence with shadows, and depth, at points on the boundaries of two muscles.

    The second muscle is deeper and mostly in a shadow, and boundaries along the beam have a lower confidence, so that
    effects of depth, class and orientation resemble an effect of confidence.
    """
    second, angle = PARTS.classes == 2, PARTS.angles
    depth = 24 + 4 * second + 10 * np.cos(angle) + generator.normal(0, 1)
    lateral = 12 * np.sin(angle) + np.where(second, 14, -14)
    shadow = sum(
        (np.abs(lateral - generator.uniform(-25, 25)) < 4) & (depth > generator.uniform(10, 30)) for _ in range(4)
    )
    confidence = np.exp(-depth / 20) * 0.4**shadow * 0.7**second * (1 - 0.3 * np.sin(angle) ** 2)
    spread = 0.4 + depth_effect * (depth / 25) ** 2 + confidence_effect * (1 - confidence)
    spread *= (1 + class_effect * second) * (1 + orientation_effect * np.sin(angle) ** 2)
    noise = generator.standard_normal((LABELS, 2, POINTS // 2))
    noise = ndimage.gaussian_filter1d(noise, 4, axis=2, mode="wrap").reshape(LABELS, POINTS)
    offsets = spread * noise / noise.std()
    return offsets.std(axis=0, ddof=1), confidence, depth


def study(seed, patients=8, shuffled=False, **effects):
    """Return the mean correlations of every patient, over two images each."""
    generator = np.random.default_rng(seed)
    images = [[image(generator, **effects) for _ in range(2)] for _ in range(patients)]
    patient_means = []
    for number, patient_images in enumerate(images):
        maps = images[number - 1] if shuffled else patient_images
        correlations = [
            partial_rank_correlation(sd, confidence, [depth], PARTS)
            for (sd, _, depth), (_, confidence, _) in zip(patient_images, maps, strict=True)
        ]
        patient_means.append(np.mean(correlations, axis=0))
    return np.array(patient_means)


def test_an_effect_of_confidence_is_detected_in_addition_to_one_of_depth():
    """The power for an SD that is 1 mm larger without confidence is at least 90 % with 14 patients."""
    patient_means = study(0, patients=100, depth_effect=0.3, confidence_effect=1.0)
    assert patient_means[:, 1].mean() < 0
    assert rejections(patient_means, patients=14)[1] >= 0.9


def rejections(patient_means, patients=8, studies=400):
    """Return how often studies of random patients reject, without and with adjustment."""
    generator = np.random.default_rng(0)
    drawn = [patient_means[generator.choice(len(patient_means), patients, replace=False)] for _ in range(studies)]
    return [np.mean([signed_rank_p(rho[:, column]) < 0.05 for rho in drawn]) for column in (0, 1)]


@pytest.mark.parametrize("effect", [None, "depth_effect", "class_effect", "orientation_effect"])
def test_other_effects_are_not_mistaken_for_one_of_confidence(effect):
    """Without an effect of confidence, the adjusted test rejects at its level; the unadjusted one finds the others."""
    plain, partial = rejections(study(1, patients=240, **({effect: 1.0} if effect else {})))
    assert 0.02 <= partial <= 0.08
    assert plain > 0.4 or effect is None


def test_the_map_of_another_patient_has_no_effect():
    patient_means = study(2, patients=150, depth_effect=0.3, confidence_effect=1.0, shuffled=True)
    assert rejections(patient_means)[1] <= 0.08


def test_partial_correlation_is_nan_if_depth_explains_everything():
    depth = np.linspace(0, 1, 200)
    one_class = BoundaryParts(np.ones(200, dtype=int), np.zeros(200))
    effect = partial_rank_correlation(depth**2, -np.exp(depth), [depth], one_class)
    assert effect.plain == pytest.approx(-1)
    assert math.isnan(effect.partial)
    first = depth < depth[20]  # too few points
    few = partial_rank_correlation(depth[first], depth[first], [depth[first]], one_class.select(first))
    assert math.isnan(few.partial)


def test_basis_sums_to_one_and_contains_cubic_surfaces():
    generator = np.random.default_rng(0)
    first, second = generator.random(400), generator.random(400)
    basis = smooth_basis([first, second])
    np.testing.assert_allclose(basis.sum(axis=1), 1)
    surface = (1 + first**3) * (second**2 - 3 * second)
    weights, *_ = np.linalg.lstsq(basis, surface, rcond=None)
    np.testing.assert_allclose(basis @ weights, surface, atol=1e-10)
    assert smooth_basis([np.ones(5)]).shape == (5, 1)


def test_explained_variance_of_test_patients():
    generator = np.random.default_rng(0)
    patients = ["a", "a", "b", "c", "d"]
    images = [image(generator, 0.1, 2.0) for _ in patients]
    response = [np.log(sd) for sd, _, _ in images]
    by_depth = explained_variance(response, [[depth] for _, _, depth in images], patients)
    by_both = explained_variance(response, [[depth, confidence] for _, confidence, depth in images], patients)
    by_noise = explained_variance(response, [[generator.random(POINTS)] for _ in images], patients)
    assert len(by_depth) == 4
    assert by_both.mean() > by_depth.mean() > 0.2
    assert by_noise.mean() < 0.05
    exact = explained_variance([depth for _, _, depth in images], [[depth] for _, _, depth in images], patients)
    np.testing.assert_allclose(exact, 1, atol=0.01)
