"""Partial correlation of confidence and variability in simulated studies with and without an effect."""

import math

import numpy as np
import pytest
from scipy import ndimage, stats

from cm_lightning.statistics.signed_rank import signed_rank_p
from cm_lightning.uncertainty.partial_correlation import explained_variance, partial_rank_correlation, smooth_basis

LABELS, POINTS = 25, 240


def image(generator, depth_effect, confidence_effect):
    """Return SDs of simulated labels, confidence with shadows, and depth, at points on the boundary of a muscle."""
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    depth = 25 + 12 * np.sin(angle) + generator.normal(0, 1)
    lateral = 15 * np.cos(angle)
    shadow = sum(
        (np.abs(lateral - generator.uniform(-15, 15)) < 3) & (depth > generator.uniform(10, 30)) for _ in range(3)
    )
    confidence = np.exp(-depth / 20) * 0.4**shadow
    spread = 0.4 + depth_effect * (depth / 25) ** 2 + confidence_effect * (1 - confidence)
    noise = ndimage.gaussian_filter1d(generator.standard_normal((LABELS, POINTS)), 8, axis=1, mode="wrap")
    offsets = spread * noise / noise.std()
    return offsets.std(axis=0, ddof=1), confidence, depth


def study(seed, depth_effect, confidence_effect, patients=8, shuffled=False):
    """Return the mean correlations of every patient, over two images each."""
    generator = np.random.default_rng(seed)
    images = [[image(generator, depth_effect, confidence_effect) for _ in range(2)] for _ in range(patients)]
    patient_means = []
    for number, patient_images in enumerate(images):
        maps = images[number - 1] if shuffled else patient_images
        effects = [
            partial_rank_correlation(sd, confidence, [depth])
            for (sd, _, depth), (_, confidence, _) in zip(patient_images, maps, strict=True)
        ]
        patient_means.append(np.mean(effects, axis=0))
    return np.array(patient_means)


def test_an_effect_of_confidence_is_detected_in_addition_to_one_of_depth():
    """The power in 50 studies of 8 patients is at least 90 %."""
    studies = [study(seed, 0.3, 1.0)[:, 1] for seed in range(50)]
    assert np.mean([signed_rank_p(rho) < 0.05 and rho.mean() < 0 for rho in studies]) >= 0.9


def test_an_effect_of_depth_is_not_mistaken_for_one_of_confidence():
    """In 200 studies, the false positive rate adjusted for depth is the test's level; unadjusted it is above 90 %."""
    studies = np.array([study(seed, 0.8, 0.0) for seed in range(200)])
    plain, partial = (np.mean([signed_rank_p(rho[:, column]) < 0.05 for rho in studies]) for column in (0, 1))
    assert partial <= stats.binom.ppf(0.975, 200, 0.05) / 200  # 0.085
    assert plain > 0.9


def test_the_map_of_another_patient_has_no_effect():
    studies = [study(seed, 0.3, 1.0, shuffled=True)[:, 1] for seed in range(100)]
    assert np.mean([signed_rank_p(rho) < 0.05 for rho in studies]) <= stats.binom.ppf(0.975, 100, 0.05) / 100


def test_partial_correlation_is_nan_if_depth_explains_everything():
    depth = np.linspace(0, 1, 200)
    effect = partial_rank_correlation(depth**2, -np.exp(depth), [depth])
    assert effect.plain == pytest.approx(-1)
    assert math.isnan(effect.partial)
    assert math.isnan(partial_rank_correlation(depth[:20], depth[:20], [depth[:20]]).partial)  # too few points


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
