"""Agreement of samples with labels, compared with values computed by hand and by SciPy."""

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


def random_discs(generator, number, spread=1.5):
    """Return discs with normally distributed radii."""
    rows, columns = np.mgrid[:40, :40] - 19.5
    radii = 10 + spread * generator.standard_normal(number)
    return (np.hypot(rows, columns) < radii[:, None, None]).astype(np.uint8)


def test_boundary_distance_is_in_mm():
    segmentation = np.zeros((6, 8), dtype=np.uint8)
    segmentation[3:] = 2
    distance = boundary_distance(segmentation, (0.5, 0.2))
    np.testing.assert_allclose(distance[:, 4], [1.0, 0.5, 0.0, 0.0, 0.5, 1.0])
    assert np.isinf(boundary_distance(np.ones((3, 3), dtype=np.uint8), (1, 1))).all()


def test_jaccard_distances_by_hand():
    a = np.array([[0, 1, 1, 2]], dtype=np.uint8)
    b = np.array([[1, 1, 0, 2], [0, 0, 0, 0]], dtype=np.uint8)
    # The IoU of a and b[0] is 1/3 for class 1 and 1 for class 2; b[1] contains neither class.
    np.testing.assert_allclose(jaccard_distances(a, b, 3), [[1 - (1 / 3 + 1) / 2, 1.0]])
    np.testing.assert_allclose(jaccard_distances(b[1:], b[1:], 3), [[0.0]])


def test_energy_distance_by_hand():
    same, other = np.array([1, 1, 0, 0], dtype=np.uint8), np.array([1, 0, 0, 0], dtype=np.uint8)
    distance = energy_distance(np.stack([same, same]), np.stack([same, other]), 2)
    assert (distance.between, distance.samples, distance.labels) == (0.25, 0.0, 0.5)
    assert distance.squared == 0.0
    assert distance.diversity == 0.0
    assert math.isnan(energy_distance(np.stack([same, other]), np.stack([same, same]), 2).diversity)
    # With the distances of 0 of each segmentation to itself, the labels differ by half as much.
    assert distance.squared_with_self == pytest.approx(2 * distance.between - distance.labels / 2)


def test_energy_distance_of_equal_distributions_is_0_on_average():
    """Test 60 repetitions: the estimate is unbiased, but not if the zeros of the diagonal are counted."""
    generator = np.random.default_rng(0)
    distances = [energy_distance(random_discs(generator, 20), random_discs(generator, 5), 2) for _ in range(60)]
    squared = np.array([distance.squared for distance in distances])
    half_width = stats.t.ppf(0.975, 59) * squared.std(ddof=1) / math.sqrt(60)
    assert abs(squared.mean()) < half_width
    with_zeros = np.mean([distance.squared + distance.samples / 20 + distance.labels / 5 for distance in distances])
    assert with_zeros > 2 * half_width
    mean_samples, mean_labels = (np.mean([getattr(d, name) for d in distances]) for name in ("samples", "labels"))
    assert mean_samples == pytest.approx(mean_labels, rel=0.1)
    narrow = energy_distance(random_discs(generator, 50, spread=0.3), random_discs(generator, 50), 2)
    assert narrow.squared > 0.02
    assert narrow.diversity < 0.4


def test_detection_auroc_equals_mann_whitney_statistic():
    score, event = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True])
    assert detection_auroc(score, event) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert math.isnan(detection_auroc(score, np.ones(4, dtype=bool)))
    generator = np.random.default_rng(1)
    score, event = generator.standard_normal(200), generator.random(200) < 0.3
    independent = stats.mannwhitneyu(score[event], score[~event]).statistic / (event.sum() * (~event).sum())
    assert detection_auroc(score, event) == pytest.approx(independent)


def test_correlations_equal_scipy_and_are_nan_for_constant_values():
    generator = np.random.default_rng(2)
    first = generator.standard_normal(50)
    second = first + generator.standard_normal(50)
    assert correlation(first, second) == pytest.approx(stats.pearsonr(first, second).statistic)
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert math.isnan(correlation(first, np.ones(50)))


def test_brier_score_and_divergence_by_hand():
    labels = np.array([[0.5, 1.0], [0.5, 0.0]])
    predicted = np.array([[0.25, 1.0], [0.75, 0.0]])
    assert brier_score(labels, predicted) == pytest.approx(0.0625)
    np.testing.assert_allclose(divergence(labels, labels), [0.0, 0.0], atol=2e-3)
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(labels, predicted)[0] == pytest.approx(expected)
    assert np.isfinite(divergence(labels, np.array([[0.0, 0.0], [1.0, 1.0]]))).all()


def test_reliability_by_hand_and_of_perfect_predictions():
    predicted = np.array([[0.9, 0.9, 0.2, 0.2], [0.1, 0.1, 0.8, 0.8]])
    labels = np.array([[1.0, 0.8, 0.4, 0.4], [0.0, 0.2, 0.6, 0.6]])
    count, probability, share = reliability(labels, predicted, bins=10)
    assert count.tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 2, 0]
    assert expected_calibration_error(count, probability, share) == pytest.approx((2 * 0.0 + 2 * 0.2) / 4)
    assert expected_calibration_error(*reliability(labels, labels)) == 0


def test_crps_of_a_normal_distribution_is_unbiased_for_few_samples():
    """The CRPS of a standard normal prediction and the observation 0 is (sqrt 2 - 1) / sqrt pi."""
    generator = np.random.default_rng(3)
    expected = (math.sqrt(2) - 1) / math.sqrt(math.pi)
    few = [continuous_ranked_probability_score(generator.standard_normal(10), np.zeros(1)) for _ in range(2000)]
    assert np.mean(few) == pytest.approx(expected, abs=0.01)
    assert continuous_ranked_probability_score(np.full(5, 2.0), np.array([2.0, 5.0])) == 1.5
