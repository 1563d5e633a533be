"""Hypothesis tests and confidence intervals over participants, never over slices, images or folds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from cm_lightning.errors import InputError

# Number of bootstrap resamples.
RESAMPLES = 9999
# Largest number of permutations of the Friedman test. If there are fewer, all of them are used.
PERMUTATIONS = 999


@dataclass(frozen=True)
class FriedmanResult:
    """Result of a Friedman test.

    Attributes:
        participants: Number of participants ``n`` (blocks).
        models: Number of models ``k`` (treatments).
        statistic: Friedman's chi-square statistic, corrected for ties.
        p: P value from the chi-square distribution, an approximation for large ``n``.
        permutation_p: P value from permutations within participants, also valid for small ``n``.
        kendall_w: Kendall's coefficient of concordance ``W = statistic / (n (k - 1))``, from 0 (no agreement between
            the participants' rankings) to 1 (identical rankings).
    """

    participants: int
    models: int
    statistic: float
    p: float
    permutation_p: float
    kendall_w: float


@dataclass(frozen=True)
class PairedResult:
    """Paired comparison of a model with its baseline.

    Differences are values of the model minus values of the baseline, one per participant.

    Attributes:
        participants: Number of participants.
        p: P value of the two-sided exact Wilcoxon signed-rank test, also exact with ties.
        holm_p: ``p`` with Holm's correction for all planned comparisons.
        difference: Hodges-Lehmann estimate of the difference.
        mean_difference: Mean difference.
        low: Lower limit of the 95 % confidence interval of the mean difference (BCa bootstrap over participants).
        high: Upper limit of this interval.
        rank_biserial: Matched-pairs rank-biserial correlation, from -1 to 1.
        smallest_p: Smallest possible p value for this number of participants.
        detectable: Mean difference that a paired t-test detects with a power of 80 % at a level of 5 %, for the
            standard deviation of these differences.
    """

    participants: int
    p: float
    holm_p: float
    difference: float
    mean_difference: float
    low: float
    high: float
    rank_biserial: float
    smallest_p: float
    detectable: float


def friedman(values: pd.DataFrame, seed: int = 0) -> FriedmanResult:
    """Test whether several models differ (Friedman 1937).

    Args:
        values: Values with one row per participant and one column per model, without missing values.
        seed: Seed of the permutations.

    Returns:
        Result of the test.

    Raises:
        InputError: There are fewer than three models or two participants, or a value is missing or infinite.

    References:
        Friedman, "The use of ranks to avoid the assumption of normality implicit in the analysis of variance", JASA
        1937. Kendall and Babington Smith, "The problem of m rankings", Annals of Mathematical Statistics 1939.
    """
    table = _check_finite(values.to_numpy(dtype=float), "The Friedman test")
    participants, models = table.shape
    if models < 3 or participants < 2:
        raise InputError(
            f"The Friedman test needs at least three models and two participants; found {models} models and "
            f"{participants} participants."
        )
    if (table == table[:, :1]).all():
        # Without any difference, the statistic is 0 / 0.
        return FriedmanResult(participants, models, 0.0, 1.0, 1.0, 0.0)
    statistic, p = stats.friedmanchisquare(*table.T)
    # Permutations within participants do not change ranks and ties, so Friedman's statistic is a monotonic
    # function of the sum of the squared rank sums, which can be computed for all permutations at once.
    permutation_result = stats.permutation_test(
        list(stats.rankdata(table, axis=1).T),
        lambda *ranks, axis: (np.sum(ranks, axis=axis) ** 2).sum(axis=0),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        rng=seed,
    )
    kendall_w = float(statistic) / (participants * (models - 1))
    permutation_p = float(permutation_result.pvalue)
    return FriedmanResult(participants, models, float(statistic), float(p), permutation_p, kendall_w)


def compare_pairs(pairs: Sequence[tuple[ArrayLike, ArrayLike]], seed: int = 0) -> list[PairedResult]:
    """Compare models with their baselines and correct for the number of comparisons.

    Args:
        pairs: For each planned comparison, the values of the baseline and of the model, ``(participants,)`` each, with
            participants in the same order.
        seed: Seed of the bootstrap.

    Returns:
        One result per comparison.

    Raises:
        InputError: The two shapes differ, there are fewer than two participants, or a value is missing or infinite.
    """
    differences = []
    for pair in pairs:
        baseline, model = (_check_finite(np.asarray(values, dtype=float), "A paired test") for values in pair)
        if baseline.shape != model.shape or baseline.ndim != 1 or len(baseline) < 2:
            raise InputError(
                "A paired test needs values of the same participants, at least two, for both models; found shapes "
                f"{baseline.shape} and {model.shape}."
            )
        differences.append(model - baseline)
    p_values = [signed_rank_p(difference) for difference in differences]
    return [
        _paired_result(difference, p, holm_p, seed)
        for difference, p, holm_p in zip(differences, p_values, holm(p_values), strict=True)
    ]


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """Compute the exact two-sided p value of the Wilcoxon signed-rank test, also with ties.

    The exact method of SciPy does not support ties.

    Args:
        differences: Differences, ``(participants,)``. Differences of 0 are ignored (Wilcoxon's treatment of zeros).

    Returns:
        The p value; 1 if all differences are 0.

    References:
        Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1945.
    """
    values = differences[differences != 0]
    if not len(values):
        return 1.0
    # Mid-ranks of ties are multiples of 1/2, so doubled ranks are integers. The distribution of the rank sum under
    # random signs is built up one rank after another.
    ranks = np.rint(2 * stats.rankdata(np.abs(values))).astype(int)
    probabilities = np.zeros(ranks.sum() + 1)
    probabilities[0] = 1.0
    for rank in ranks:
        probabilities = 0.5 * (probabilities + np.concatenate([np.zeros(rank), probabilities[:-rank]]))
    centre = ranks.sum() / 2
    distance = np.abs(np.arange(len(probabilities)) - centre)
    return float(min(1.0, probabilities[distance >= abs(ranks[values > 0].sum() - centre)].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for multiple comparisons.

    Args:
        p_values: P values of one family of tests.

    Returns:
        Corrected p values, in the same order.

    References:
        Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    factors = len(p_values) - np.arange(len(p_values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return [float(p) for p in corrected]


def hodges_lehmann(differences: ArrayLike) -> float:
    """Compute the median of the means of all pairs of differences, including pairs of a difference with itself.

    Args:
        differences: Differences, ``(participants,)``.

    Returns:
        The estimate, in the unit of the differences.

    References:
        Hodges and Lehmann, "Estimates of location based on rank tests", Annals of Mathematical Statistics 1963.
    """
    values = np.asarray(differences, dtype=float)
    first, second = np.triu_indices(len(values))
    return float(np.median((values[first] + values[second]) / 2))


def rank_biserial(differences: ArrayLike) -> float:
    """Compute the matched-pairs rank-biserial correlation.

    It is the fraction of the rank sum that belongs to positive differences, minus that of negative differences.

    Args:
        differences: Differences, ``(participants,)``.

    Returns:
        Value from -1 to 1; 0 if all differences are 0.

    References:
        Kerby, "The simple difference formula", Comprehensive Psychology 2014.
    """
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if not len(values):
        return 0.0
    ranks = stats.rankdata(np.abs(values))
    return float((np.sign(values) * ranks).sum() / ranks.sum())


def mean_interval(values: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """Compute the 95 % confidence interval of a mean by bootstrap over participants (BCa).

    Args:
        values: Values, ``(participants,)``.
        seed: Seed of the bootstrap.

    Returns:
        Lower and upper limit; both are the mean if all values are equal.

    References:
        Efron, "Better bootstrap confidence intervals", JASA 1987.
    """
    array = np.asarray(values, dtype=float)
    if np.ptp(array) == 0:
        return float(array[0]), float(array[0])
    interval = stats.bootstrap((array,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=seed).confidence_interval
    return float(interval.low), float(interval.high)


def detectable_difference(sd: float, participants: int, power: float = 0.8, level: float = 0.05) -> float:
    """Compute the mean difference that a paired t-test detects, from the noncentral t distribution.

    Args:
        sd: Standard deviation of the differences.
        participants: Number of participants.
        power: Probability of detecting the difference.
        level: Two-sided significance level.

    Returns:
        The difference, in the unit of ``sd``.
    """
    if sd == 0:
        return 0.0
    degrees_of_freedom = participants - 1
    critical = stats.t.ppf(1 - level / 2, degrees_of_freedom)

    def excess_power(shift: float) -> float:
        upper_tail = stats.nct.sf(critical, degrees_of_freedom, shift)
        # SciPy returns NaN for very small probabilities of the opposite tail.
        lower_tail = np.nan_to_num(stats.nct.cdf(-critical, degrees_of_freedom, shift))
        return float(upper_tail + lower_tail) - power

    # The shift is in units of the standard error of the mean, so this bound is close for any sample size.
    upper = float(critical) + 1.0
    while excess_power(upper) < 0:
        upper *= 2
    return sd * float(optimize.brentq(excess_power, 0.0, upper)) / float(np.sqrt(participants))


def _paired_result(differences: NDArray[np.float64], p: float, holm_p: float, seed: int) -> PairedResult:
    low, high = mean_interval(differences, seed)
    participants = len(differences)
    return PairedResult(
        participants=participants,
        p=p,
        holm_p=holm_p,
        difference=hodges_lehmann(differences),
        mean_difference=float(differences.mean()),
        low=low,
        high=high,
        rank_biserial=rank_biserial(differences),
        smallest_p=min(1.0, 2.0 ** (1 - participants)),
        detectable=detectable_difference(float(differences.std(ddof=1)), participants),
    )


def _check_finite(values: NDArray[np.float64], test: str) -> NDArray[np.float64]:
    """Check that no value is missing or infinite, which SciPy would not report."""
    if not np.isfinite(values).all():
        raise InputError(
            f"{test} needs a finite value for every participant and model; found {int((~np.isfinite(values)).sum())} "
            "missing or infinite values. Use the worst value for missed classes (policy worst)."
        )
    return values
