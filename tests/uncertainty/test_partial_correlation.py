"""Whether confidence goes with variability: found where it does, and not where depth alone explains both."""

import math

import numpy as np
import pytest
from scipy import ndimage, stats

from cm_lightning.evaluation.statistics import signed_rank_p
from cm_lightning.uncertainty.partial_correlation import explained_variance, partial_rank_correlation, smooth_basis

LABELS, POINTS = 25, 240


def image(generator, of_depth, of_confidence):
    """Boundary points around a muscle: depth, confidence with shadows, and the SD of simulated labels there."""
    turn = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    depth = 25 + 12 * np.sin(turn) + generator.normal(0, 1)
    lateral = 15 * np.cos(turn)
    shadow = sum(
        (np.abs(lateral - generator.uniform(-15, 15)) < 3) & (depth > generator.uniform(10, 30)) for _ in range(3)
    )
    confidence = np.exp(-depth / 20) * 0.4**shadow
    spread = 0.4 + of_depth * (depth / 25) ** 2 + of_confidence * (1 - confidence)
    noise = ndimage.gaussian_filter1d(generator.standard_normal((LABELS, POINTS)), 8, axis=1, mode="wrap")
    offsets = spread * noise / noise.std()
    return offsets.std(axis=0, ddof=1), confidence, depth


def study(seed, of_depth, of_confidence, patients=8, shuffled=False):
    """Mean effect of every patient, of two images each."""
    generator = np.random.default_rng(seed)
    images = [[image(generator, of_depth, of_confidence) for _ in range(2)] for _ in range(patients)]
    found = []
    for number, own in enumerate(images):
        maps = images[number - 1] if shuffled else own
        effects = [
            partial_rank_correlation(sd, confidence, [depth])
            for (sd, _, depth), (_, confidence, _) in zip(own, maps, strict=True)
        ]
        found.append(np.mean(effects, axis=0))
    return np.array(found)


def test_an_effect_of_confidence_is_found_beside_that_of_depth():
    """Power over 50 studies of 8 patients: at least nine in ten."""
    found = [study(seed, 0.3, 1.0)[:, 1] for seed in range(50)]
    assert np.mean([signed_rank_p(rho) < 0.05 and rho.mean() < 0 for rho in found]) >= 0.9


def test_what_depth_alone_explains_is_not_taken_for_an_effect():
    """Over 200 seeds, false positives are as rare as the level of the test says; without conditions nearly all are."""
    found = np.array([study(seed, 0.8, 0.0) for seed in range(200)])
    alone, given = (np.mean([signed_rank_p(one[:, column]) < 0.05 for one in found]) for column in (0, 1))
    assert given <= stats.binom.ppf(0.975, 200, 0.05) / 200  # 0.085
    assert alone > 0.9


def test_another_patients_map_has_no_effect():
    found = [study(seed, 0.3, 1.0, shuffled=True)[:, 1] for seed in range(100)]
    assert np.mean([signed_rank_p(rho) < 0.05 for rho in found]) <= stats.binom.ppf(0.975, 100, 0.05) / 100


def test_effect_given_what_explains_everything_is_none():
    depth = np.linspace(0, 1, 200)
    effect = partial_rank_correlation(depth**2, -np.exp(depth), [depth])
    assert effect.alone == pytest.approx(-1)
    assert math.isnan(effect.given)
    assert math.isnan(partial_rank_correlation(depth[:20], depth[:20], [depth[:20]]).given)  # too few points


def test_basis_is_a_partition_of_one_that_holds_any_cubic_surface():
    generator = np.random.default_rng(0)
    first, second = generator.random(400), generator.random(400)
    basis = smooth_basis([first, second])
    np.testing.assert_allclose(basis.sum(axis=1), 1)
    surface = (1 + first**3) * (second**2 - 3 * second)
    weights, *_ = np.linalg.lstsq(basis, surface, rcond=None)
    np.testing.assert_allclose(basis @ weights, surface, atol=1e-10)
    assert smooth_basis([np.ones(5)]).shape == (5, 1)


def test_shares_that_are_explained_in_patients_not_learnt_from():
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
