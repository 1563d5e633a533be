"""Agreement of samples with labels: known answers."""

import math

import numpy as np
import pytest
from scipy import stats

from cm_lightning.metrics.calibration import expected_calibration_error
from cm_lightning.uncertainty.agreement import (
    boundary_distance,
    brier_score,
    continuous_ranked_probability_score,
    correlation,
    detection_auroc,
    divergence,
    energy_distance,
    jaccard_distances,
    rank_correlation,
    reliability,
)


def drawn_discs(generator, number, spread=1.5):
    """Discs whose radius is drawn."""
    rows, columns = np.mgrid[:40, :40] - 19.5
    radii = 10 + spread * generator.standard_normal(number)
    return (np.hypot(rows, columns) < radii[:, None, None]).astype(np.uint8)


def test_distance_to_the_nearest_boundary_is_in_mm():
    segmentation = np.zeros((6, 8), dtype=np.uint8)
    segmentation[3:] = 2
    distance = boundary_distance(segmentation, (0.5, 0.2))
    np.testing.assert_allclose(distance[:, 4], [1.0, 0.5, 0.0, 0.0, 0.5, 1.0])
    assert np.isinf(boundary_distance(np.ones((3, 3), dtype=np.uint8), (1, 1))).all()


def test_distances_are_one_less_the_mean_iou_by_hand():
    a = np.array([[0, 1, 1, 2]], dtype=np.uint8)
    b = np.array([[1, 1, 0, 2], [0, 0, 0, 0]], dtype=np.uint8)
    # Class 1: 1 of 3, class 2: 1 of 1; and nothing of either.
    np.testing.assert_allclose(jaccard_distances(a, b, 3), [[1 - (1 / 3 + 1) / 2, 1.0]])
    np.testing.assert_allclose(jaccard_distances(b[1:], b[1:], 3), [[0.0]])


def test_energy_distance_by_hand():
    same, other = np.array([1, 1, 0, 0], dtype=np.uint8), np.array([1, 0, 0, 0], dtype=np.uint8)
    found = energy_distance(np.stack([same, same]), np.stack([same, other]), 2)
    assert (found.between, found.samples, found.labels) == (0.25, 0.0, 0.5)
    assert found.squared == 0.0
    assert found.diversity == 0.0
    assert math.isnan(energy_distance(np.stack([same, other]), np.stack([same, same]), 2).diversity)


def test_samples_of_the_labels_own_distribution_are_at_no_distance():
    """Over 60 repetitions the unbiased distance is 0 within its interval; counting the diagonal's zeros it is not."""
    generator = np.random.default_rng(0)
    found = [energy_distance(drawn_discs(generator, 20), drawn_discs(generator, 5), 2) for _ in range(60)]
    squared = np.array([one.squared for one in found])
    half_width = stats.t.ppf(0.975, 59) * squared.std(ddof=1) / math.sqrt(60)
    assert abs(squared.mean()) < half_width
    with_zeros = np.mean([one.squared + one.samples / 20 + one.labels / 5 for one in found])
    assert with_zeros > 2 * half_width
    assert np.mean([one.samples for one in found]) == pytest.approx(np.mean([one.labels for one in found]), rel=0.1)
    narrow = energy_distance(drawn_discs(generator, 50, spread=0.3), drawn_discs(generator, 50), 2)
    assert narrow.squared > 0.02
    assert narrow.diversity < 0.4


def test_detection_is_the_area_under_the_curve():
    score, event = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True])
    assert detection_auroc(score, event) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert math.isnan(detection_auroc(score, np.ones(4, dtype=bool)))
    generator = np.random.default_rng(1)
    score, event = generator.standard_normal(200), generator.random(200) < 0.3
    independent = stats.mannwhitneyu(score[event], score[~event]).statistic / (event.sum() * (~event).sum())
    assert detection_auroc(score, event) == pytest.approx(independent)


def test_correlations_are_those_of_scipy_and_none_of_a_constant():
    generator = np.random.default_rng(2)
    first = generator.standard_normal(50)
    second = first + generator.standard_normal(50)
    assert correlation(first, second) == pytest.approx(stats.pearsonr(first, second).statistic)
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert math.isnan(correlation(first, np.ones(50)))


def test_scores_against_the_labels_distribution_by_hand():
    labels = np.array([[0.5, 1.0], [0.5, 0.0]])
    predicted = np.array([[0.25, 1.0], [0.75, 0.0]])
    assert brier_score(labels, predicted) == pytest.approx(0.0625)
    np.testing.assert_allclose(divergence(labels, labels), [0.0, 0.0], atol=2e-3)
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(labels, predicted)[0] == pytest.approx(expected)
    assert np.isfinite(divergence(labels, np.array([[0.0, 0.0], [1.0, 1.0]]))).all()


def test_calibration_to_the_labels_by_hand_and_of_perfect_predictions():
    predicted = np.array([[0.9, 0.9, 0.2, 0.2], [0.1, 0.1, 0.8, 0.8]])
    labels = np.array([[1.0, 0.8, 0.4, 0.4], [0.0, 0.2, 0.6, 0.6]])
    count, probability, share = reliability(labels, predicted, bins=10)
    assert count.tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 2, 0]
    assert expected_calibration_error(count, probability, share) == pytest.approx((2 * 0.0 + 2 * 0.2) / 4)
    assert expected_calibration_error(*reliability(labels, labels)) == 0


def test_crps_is_that_of_a_normal_distribution_and_needs_no_many_samples():
    """Of a standard normal prediction and the observation 0: (sqrt 2 - 1) / sqrt pi."""
    generator = np.random.default_rng(3)
    expected = (math.sqrt(2) - 1) / math.sqrt(math.pi)
    few = [continuous_ranked_probability_score(generator.standard_normal(10), np.zeros(1)) for _ in range(2000)]
    assert np.mean(few) == pytest.approx(expected, abs=0.01)
    assert continuous_ranked_probability_score(np.full(5, 2.0), np.array([2.0, 5.0])) == 1.5
