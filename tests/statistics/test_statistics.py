"""Statistics compared with SciPy, closed forms and examples computed by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cm_lightning.evaluation.statistics import (
    compare_pairs,
    detectable_difference,
    friedman,
    hodges_lehmann,
    holm,
    mean_interval,
    rank_biserial,
    signed_rank_p,
)


def test_friedman_matches_results_computed_by_hand():
    # Three participants rank three models in the same order: the chi-square statistic is n (k - 1) = 6, W is 1, and a
    # fraction of 1 / 3!^2 of the permutations within participants has equal rankings.
    equal_ranks = friedman(pd.DataFrame([[1.0, 2.0, 3.0], [0.1, 0.2, 0.7], [5.0, 6.0, 9.0]]))
    assert equal_ranks.statistic == pytest.approx(6)
    assert equal_ranks.kendall_w == pytest.approx(1)
    assert equal_ranks.p == pytest.approx(np.exp(-3))  # chi-square distribution with two degrees of freedom
    assert equal_ranks.permutation_p == pytest.approx(1 / 36, abs=1e-9)  # all 216 permutations are used
    # Ranks 123, 231 and 312 have equal sums.
    no_agreement = friedman(pd.DataFrame([[1.0, 2.0, 3.0], [2.0, 3.0, 1.0], [3.0, 1.0, 2.0]]))
    assert (no_agreement.statistic, no_agreement.kendall_w) == (0, 0)
    assert no_agreement.permutation_p == 1
    ties = friedman(pd.DataFrame(np.ones((4, 3))))
    assert (ties.p, ties.kendall_w) == (1, 0)


def test_friedman_matches_scipy(rng):
    values = rng.normal(size=(16, 5)) + 0.4 * np.arange(5)
    result = friedman(pd.DataFrame(values))
    expected = stats.friedmanchisquare(*values.T)
    assert (result.statistic, result.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert result.permutation_p < 0.05


def exact_p(differences):
    """Compute the p value of the signed-rank test by enumerating all signs."""
    values = differences[differences != 0]
    ranks = stats.rankdata(abs(values))
    centre = ranks.sum() / 2
    distance = abs(ranks[values > 0].sum() - centre)
    sums = [np.dot(ranks, signs) for signs in itertools.product([0, 1], repeat=len(ranks))]
    return np.mean([abs(total - centre) >= distance - 1e-9 for total in sums])


@pytest.mark.parametrize("seed", range(4))
def test_signed_rank_test_is_exact_with_ties_and_zeros(seed):
    rng = np.random.default_rng(seed)
    differences = rng.integers(-3, 6, size=9).astype(float)
    assert signed_rank_p(differences) == pytest.approx(exact_p(differences))
    untied = rng.normal(0.3, 1.0, 40)
    assert signed_rank_p(untied) == pytest.approx(stats.wilcoxon(untied, method="exact").pvalue)


def test_smallest_p_value_of_three_folds_and_of_sixteen_participants():
    (folds,) = compare_pairs([([0.1, 0.2, 0.3], [0.5, 0.7, 0.9])])
    assert folds.p == folds.smallest_p == pytest.approx(0.25)
    baseline = np.linspace(0.5, 0.6, 16)
    (participants,) = compare_pairs([(baseline, baseline + np.linspace(0.01, 0.02, 16))])
    assert participants.p == participants.smallest_p == pytest.approx(2**-15)
    assert participants.rank_biserial == 1


def test_holm_matches_results_computed_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    pairs = [(np.zeros(8), np.arange(1.0, 9)), (np.zeros(8), np.array([1.0, -2, 3, -4, 5, -6, 7, -8]))]
    first, second = compare_pairs(pairs)
    assert first.holm_p == pytest.approx(2 * first.p)
    assert second.holm_p == pytest.approx(second.p)


def test_hodges_lehmann_and_rank_biserial_match_results_computed_by_hand():
    # Means of all pairs of 1, 2 and 6: 1, 1.5, 3.5, 2, 4 and 6.
    assert hodges_lehmann([1, 2, 6]) == pytest.approx((2 + 3.5) / 2)
    assert hodges_lehmann([0, 0, 0, 90]) == 0
    # Ranks 1, 2 and 3, the second of a negative difference: (1 + 3 - 2) / 6.
    assert rank_biserial([1, -2, 3, 0]) == pytest.approx(1 / 3)
    assert rank_biserial([0, 0]) == 0


def test_confidence_interval_has_its_nominal_coverage():
    covered = 0
    for seed in range(60):
        low, high = mean_interval(np.random.default_rng(seed).normal(1.0, 2.0, 30), seed)
        covered += low <= 1.0 <= high
    assert covered >= 52
    assert mean_interval([0.3, 0.3]) == (0.3, 0.3)


def test_detectable_difference_is_detected_with_the_stated_power():
    sd, participants = 0.04, 9
    difference = detectable_difference(sd, participants)
    samples = np.random.default_rng(0).normal(difference, sd, (4000, participants))
    assert (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.02)
    assert detectable_difference(sd, 64) < difference / 2
    # With many participants, it approaches that of a normal distribution: 1.96 + 0.84 standard errors.
    for number in (200, 2000):
        assert detectable_difference(1.0, number) == pytest.approx((1.960 + 0.8416) / np.sqrt(number), rel=0.01)
    assert detectable_difference(1.0, 2) > 10


def test_invalid_values_raise_errors():
    with pytest.raises(ValueError, match="at least three models and two participants; found 2 models"):
        friedman(pd.DataFrame(np.ones((4, 2))))
    incomplete = pd.DataFrame([[1.0, 2.0, np.inf], [1.0, np.nan, 2.0]])
    with pytest.raises(ValueError, match=r"The Friedman test needs a finite value .* found 2 missing or infinite"):
        friedman(incomplete)
    # SciPy returns a p value for inf - inf.
    with pytest.raises(ValueError, match="A paired test needs a finite value"):
        compare_pairs([([np.inf, 1.0, 2.0], [np.inf, 2.0, 4.0])])
    with pytest.raises(ValueError, match="same participants, at least two, for both models"):
        compare_pairs([([1.0, 2.0], [1.0, 2.0, 3.0])])
