"""Statistics against SciPy, closed forms and hand-worked examples."""

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


def test_friedman_by_hand():
    # Three participants rank three models alike: chi-square n (k - 1) = 6, W = 1, and 1 / 3!^2 of the permutations
    # within participants agree as well.
    same = friedman(pd.DataFrame([[1.0, 2.0, 3.0], [0.1, 0.2, 0.7], [5.0, 6.0, 9.0]]))
    assert same.statistic == pytest.approx(6)
    assert same.kendall_w == pytest.approx(1)
    assert same.p == pytest.approx(np.exp(-3))  # chi-square of two degrees of freedom
    assert same.permutation_p == pytest.approx(1 / 36, abs=1e-9)  # all 216 are enumerated
    # Ranks 123, 231, 312 cancel.
    none = friedman(pd.DataFrame([[1.0, 2.0, 3.0], [2.0, 3.0, 1.0], [3.0, 1.0, 2.0]]))
    assert (none.statistic, none.kendall_w) == (0, 0)
    assert none.permutation_p == 1
    ties = friedman(pd.DataFrame(np.ones((4, 3))))
    assert (ties.p, ties.kendall_w) == (1, 0)


def test_friedman_is_scipys(rng):
    values = rng.normal(size=(16, 5)) + 0.4 * np.arange(5)
    found = friedman(pd.DataFrame(values))
    expected = stats.friedmanchisquare(*values.T)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.permutation_p < 0.05


def exact_p(differences):
    """Enumerate all signs."""
    values = differences[differences != 0]
    ranks = stats.rankdata(abs(values))
    centre = ranks.sum() / 2
    found = abs(ranks[values > 0].sum() - centre)
    sums = [np.dot(ranks, signs) for signs in itertools.product([0, 1], repeat=len(ranks))]
    return np.mean([abs(total - centre) >= found - 1e-9 for total in sums])


@pytest.mark.parametrize("seed", range(4))
def test_signed_rank_is_exact_with_ties_and_zeros(seed):
    rng = np.random.default_rng(seed)
    differences = rng.integers(-3, 6, size=9).astype(float)
    assert signed_rank_p(differences) == pytest.approx(exact_p(differences))
    untied = rng.normal(0.3, 1.0, 40)
    assert signed_rank_p(untied) == pytest.approx(stats.wilcoxon(untied, method="exact").pvalue)


def test_three_folds_cannot_reject_and_sixteen_participants_can():
    (folds,) = compare_pairs([([0.1, 0.2, 0.3], [0.5, 0.7, 0.9])])
    assert folds.p == folds.smallest_p == pytest.approx(0.25)
    baseline = np.linspace(0.5, 0.6, 16)
    (people,) = compare_pairs([(baseline, baseline + np.linspace(0.01, 0.02, 16))])
    assert people.p == people.smallest_p == pytest.approx(2**-15)
    assert people.rank_biserial == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    pairs = [(np.zeros(8), np.arange(1.0, 9)), (np.zeros(8), np.array([1.0, -2, 3, -4, 5, -6, 7, -8]))]
    first, second = compare_pairs(pairs)
    assert first.holm_p == pytest.approx(2 * first.p)
    assert second.holm_p == pytest.approx(second.p)


def test_hodges_lehmann_and_rank_biserial_by_hand():
    # Means of pairs of 1, 2, 6: 1, 1.5, 3.5, 2, 4, 6.
    assert hodges_lehmann([1, 2, 6]) == pytest.approx((2 + 3.5) / 2)
    assert hodges_lehmann([0, 0, 0, 90]) == 0
    # Ranks 1, 2, 3 of which the second is below: (1 + 3 - 2) / 6.
    assert rank_biserial([1, -2, 3, 0]) == pytest.approx(1 / 3)
    assert rank_biserial([0, 0]) == 0


def test_interval_covers_the_mean_as_often_as_it_says():
    covered = 0
    for seed in range(60):
        low, high = mean_interval(np.random.default_rng(seed).normal(1.0, 2.0, 30), seed)
        covered += low <= 1.0 <= high
    assert covered >= 52
    assert mean_interval([0.3, 0.3]) == (0.3, 0.3)


def test_detectable_difference_is_found_with_its_power():
    spread, participants = 0.04, 9
    difference = detectable_difference(spread, participants)
    samples = np.random.default_rng(0).normal(difference, spread, (4000, participants))
    assert (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.02)
    assert detectable_difference(spread, 64) < difference / 2
    # For many, that of a normal distribution: 1.96 + 0.84 standard errors.
    for many in (200, 2000):
        assert detectable_difference(1.0, many) == pytest.approx((1.960 + 0.8416) / np.sqrt(many), rel=0.01)
    assert detectable_difference(1.0, 2) > 10


def test_invalid_input():
    with pytest.raises(ValueError, match="at least three models and two participants; found 2 models"):
        friedman(pd.DataFrame(np.ones((4, 2))))
    lost = pd.DataFrame([[1.0, 2.0, np.inf], [1.0, np.nan, 2.0]])
    with pytest.raises(ValueError, match=r"The Friedman test needs a finite value .* found 2 missing or infinite"):
        friedman(lost)
    # SciPy gives a p-value for inf - inf.
    with pytest.raises(ValueError, match="A paired test needs a finite value"):
        compare_pairs([([np.inf, 1.0, 2.0], [np.inf, 2.0, 4.0])])
    with pytest.raises(ValueError, match="same participants, at least two, for both models"):
        compare_pairs([([1.0, 2.0], [1.0, 2.0, 3.0])])
