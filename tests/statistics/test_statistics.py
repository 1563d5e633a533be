"""Statistics compared with SciPy, closed forms and examples computed by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cm_lightning.statistics.friedman import friedman, nemenyi
from cm_lightning.statistics.means import detectable_difference, mean_interval
from cm_lightning.statistics.ranks import difference, mid_ranks, rank_columns
from cm_lightning.statistics.signed_rank import (
    differing_pairs,
    hodges_lehmann,
    hodges_lehmann_interval,
    rank_biserial,
    signed_rank_p,
    smallest_p,
)
from cm_lightning.statistics.verdicts import holm, verdict
from cm_lightning.uncertainty.agreement import detection_auroc, rank_correlation


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


def test_smallest_p_value_counts_only_pairs_that_differ():
    for number, p in ((3, 0.25), (16, 2**-15)):
        differences = np.linspace(0.01, 0.02, number)
        assert signed_rank_p(differences) == smallest_p(differing_pairs(differences)) == pytest.approx(p)
    with_zeros = difference([0.1 + 0.2, 0.5, 0.6, 0.7], [0.3, 0.4, 0.5, 0.6])  # 0.1 + 0.2 is not 0.3
    assert differing_pairs(with_zeros) == 3
    assert smallest_p(3) == signed_rank_p(with_zeros) == 0.25
    assert smallest_p(0) == 1


def test_rounding_errors_do_not_break_ties():
    model, baseline = [0.2, 0.3, 0.4, 0.3, 0.4, 0.7], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    # Four of six equal differences are positive: 1 - 20 / 64.
    assert signed_rank_p(difference(model, baseline)) == 0.6875
    assert len(set(abs(difference(model, baseline)))) == 1
    # Models that are equal but for rounding errors do not differ.
    noise = difference(np.full(9, 0.8) + np.arange(9) * 1e-16, np.full(9, 0.8))
    assert (signed_rank_p(noise), rank_biserial(noise)) == (1, 0)
    rng = np.random.default_rng(0)
    islands = rng.integers(0, 6, (12, 4)).astype(float)
    thirds = islands / 3 + 0.1 - 0.1  # not multiples of one number in floating point
    for name, function in (
        ("signed rank", lambda v: signed_rank_p(difference(v[:, 0], v[:, 1]))),
        ("rank-biserial", lambda v: rank_biserial(difference(v[:, 0], v[:, 1]))),
        ("Friedman", lambda v: friedman(pd.DataFrame(v)).p),
        ("Friedman, permutations", lambda v: friedman(pd.DataFrame(v)).permutation_p),
        ("Nemenyi", lambda v: nemenyi(pd.DataFrame(v)).iloc[0, 1]),
        ("Spearman", lambda v: rank_correlation(v[:, 0], v[:, 1])),
        ("AUROC", lambda v: detection_auroc(v[:, 0], islands[:, 1] > 2)),
        ("mean rank", lambda v: rank_columns(v, True).mean(axis=0)[0]),
    ):
        noisy = thirds + rng.choice([-1, 0, 1], thirds.shape) * 1e-15
        assert function(noisy) == pytest.approx(function(islands), abs=1e-12), name
    # Single precision has larger rounding errors; infinite values keep the highest rank.
    single = np.array([0.1, 0.1 + 1e-8, 0.3, np.inf], np.float32)
    assert mid_ranks(single).tolist() == [1.5, 1.5, 3, 4]
    # Rounding errors at the middle between two steps.
    assert mid_ranks(np.array([1024, 1e-7 * 5.12, 1e-7 * 5.12 * (1 + 4e-16)])).tolist() == [3, 1.5, 1.5]


def test_holm_matches_results_computed_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_verdicts():
    assert verdict(0.01, (0.02, 0.05), 0.01) == "different"
    assert verdict(0.30, (-0.002, 0.009), 0.01) == "equivalent"
    assert verdict(0.01, (0.002, 0.009), 0.01) == "equivalent"  # significant, but too small to matter
    assert verdict(0.30, (-0.02, 0.009), 0.01) == "undecided"
    assert verdict(0.30, (-0.002, 0.009), None) == "undecided"
    assert verdict(0.30, (-np.inf, np.inf), 1e9) == "undecided"


@pytest.mark.parametrize("participants", [6, 9, 30])
def test_interval_of_hodges_and_lehmann_contains_what_the_test_accepts(participants):
    values = np.random.default_rng(participants).normal(0.3, 1.0, participants)
    low, high = hodges_lehmann_interval(values)
    assert low <= hodges_lehmann(values) <= high
    for limit, inside in ((low, 1e-6), (high, -1e-6)):
        assert signed_rank_p(values - limit - inside) > 0.05 >= signed_rank_p(values - limit + inside)
    assert hodges_lehmann_interval(values[:5]) == (-np.inf, np.inf)  # no shift has a p below 0.0625


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
    difference = detectable_difference(sd / 3, participants - 1)
    samples = np.random.default_rng(0).normal(difference, sd, (4000, participants))
    assert (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.02)
    # With many participants, it approaches that of a normal distribution: 1.96 + 0.84 standard errors.
    for number in (200, 2000):
        assert detectable_difference(1.0, number) == pytest.approx(1.960 + 0.8416, rel=0.01)
    assert detectable_difference(1.0, 1) > 10
    assert detectable_difference(0.0, 8) == 0


def test_invalid_values_raise_errors():
    with pytest.raises(ValueError, match="at least three models and two participants; found 2 models"):
        friedman(pd.DataFrame(np.ones((4, 2))))
    with pytest.raises(ValueError, match=r"The signed-rank test needs a finite difference .* found 1 missing"):
        signed_rank_p([0.1, np.nan])
    incomplete = pd.DataFrame([[1.0, 2.0, np.inf], [1.0, np.nan, 2.0]])
    with pytest.raises(ValueError, match=r"The Friedman test needs a finite value .* found 2 missing or infinite"):
        friedman(incomplete)
