"""Tests and intervals over participants: the block is a participant, never a slice, an image of hers or a fold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from cm_lightning.errors import InputError

RESAMPLES = 9999  # of the bootstrap
PERMUTATIONS = 999  # of Friedman's test; fewer participants have fewer, and then all are taken


@dataclass(frozen=True)
class FriedmanResult:
    """Whether several models differ at all.

    Attributes:
        participants: Number of blocks ``n``.
        models: Number of models ``k``.
        statistic: Friedman's chi-square, corrected for ties.
        p: Of the chi-square distribution, an approximation for large ``n``.
        permutation_p: Of the same statistic under permutations within participants, right for small ``n``, too.
        kendall_w: Kendall's W, ``statistic / (n (k - 1))``: 0 no agreement of the rankings, 1 all the same.
    """

    participants: int
    models: int
    statistic: float
    p: float
    permutation_p: float
    kendall_w: float


@dataclass(frozen=True)
class PairedResult:
    """Whether a model differs from its baseline, and by how much.

    Attributes:
        participants: Number of participants.
        p: Two-sided Wilcoxon signed-rank test, exact, with ties, too.
        holm_p: The same, corrected for the comparisons that were planned together (Holm).
        difference: Hodges-Lehmann estimate of the difference (median of the means of all pairs of differences).
        mean_difference: Mean difference.
        low: Lower end of the 95 % interval of the mean difference (bootstrap over participants, BCa).
        high: Its upper end.
        rank_biserial: Matched-pairs rank-biserial correlation: share of rank sum above 0 less that below.
        smallest_p: Smallest p-value that this number of participants can give.
        detectable: Mean difference that a test at 5 % would have found with a power of 80 %, given the spread of
            these differences (paired t-test).
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
    """Test whether models differ.

    Args:
        values: A row per participant, a column per model; no empty cell (lost classes take their worst value).
        seed: Of the permutations.

    Returns:
        The result.

    Raises:
        InputError: Fewer than three models or two participants, or a value is missing or infinite.
    """
    table = _finite(values.to_numpy(dtype=float), "Friedman's test")
    participants, models = table.shape
    if models < 3 or participants < 2:
        raise InputError(
            f"Friedman's test compares three models or more over two participants or more; found {models} models and "
            f"{participants} participants."
        )
    if (table == table[:, :1]).all():
        # All ties: the statistic is 0 / 0, and there is no difference to be found.
        return FriedmanResult(participants, models, 0.0, 1.0, 1.0, 0.0)
    statistic, p = stats.friedmanchisquare(*table.T)
    # Permuting within participants leaves their ranks and ties: Friedman's statistic grows with the squared rank sums,
    # which are had for all permutations at once.
    permuted = stats.permutation_test(
        list(stats.rankdata(table, axis=1).T),
        lambda *ranks, axis: (np.sum(ranks, axis=axis) ** 2).sum(axis=0),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        rng=seed,
    )
    w = float(statistic) / (participants * (models - 1))
    return FriedmanResult(participants, models, float(statistic), float(p), float(permuted.pvalue), w)


def compare_pairs(pairs: Sequence[tuple[ArrayLike, ArrayLike]], seed: int = 0) -> list[PairedResult]:
    """Compare models with their baselines, as planned, and correct for their number.

    Args:
        pairs: Values of the baseline and of the modified model, each with one value a participant in the same order.
        seed: Of the bootstrap.

    Returns:
        A result for every pair; differences are modified less baseline.

    Raises:
        InputError: The two are not of the same participants, fewer than two, or a value is missing or infinite.
    """
    differences = []
    for baseline, modified in pairs:
        one, other = (_finite(np.asarray(values, dtype=float), "A paired test") for values in (baseline, modified))
        if one.shape != other.shape or one.ndim != 1 or len(one) < 2:
            raise InputError(
                f"A paired test needs the same two or more participants twice, found {one.shape} and {other.shape}."
            )
        differences.append(other - one)
    p_values = [signed_rank_p(difference) for difference in differences]
    return [
        _describe(difference, p, corrected, seed)
        for difference, p, corrected in zip(differences, p_values, holm(p_values), strict=True)
    ]


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p-value of the Wilcoxon signed-rank test.

    Args:
        differences: One a participant; those that are 0 take no part.

    Returns:
        Exact, ties included, which SciPy's own exact method does not take; 1 where all differences are 0.
    """
    values = differences[differences != 0]
    if not len(values):
        return 1.0
    # Twice the ranks are whole numbers. The chances of every rank sum when each sign is drawn: one rank after another.
    ranks = np.rint(2 * stats.rankdata(np.abs(values))).astype(int)
    chances = np.zeros(ranks.sum() + 1)
    chances[0] = 1.0
    for rank in ranks:
        chances = 0.5 * (chances + np.concatenate([np.zeros(rank), chances[:-rank]]))
    centre = ranks.sum() / 2
    distance = np.abs(np.arange(len(chances)) - centre)
    return float(min(1.0, chances[distance >= abs(ranks[values > 0].sum() - centre)].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values of a family of tests (Holm 1979): step down from the smallest, never decreasing, at most 1."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    factors = len(p_values) - np.arange(len(p_values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return [float(p) for p in corrected]


def hodges_lehmann(differences: ArrayLike) -> float:
    """Median of the means of all pairs of differences, each with itself included."""
    values = np.asarray(differences, dtype=float)
    first, second = np.triu_indices(len(values))
    return float(np.median((values[first] + values[second]) / 2))


def rank_biserial(differences: ArrayLike) -> float:
    """Share of the rank sum of positive differences less that of negative ones; 0 where all are 0."""
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if not len(values):
        return 0.0
    ranks = stats.rankdata(np.abs(values))
    return float((np.sign(values) * ranks).sum() / ranks.sum())


def mean_interval(values: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean: bootstrap over participants, bias-corrected and accelerated.

    Args:
        values: One a participant.
        seed: Of the bootstrap.

    Returns:
        Lower and upper end; both the mean where all values are the same.
    """
    array = np.asarray(values, dtype=float)
    if np.ptp(array) == 0:
        return float(array[0]), float(array[0])
    interval = stats.bootstrap((array,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=seed).confidence_interval
    return float(interval.low), float(interval.high)


def detectable_difference(spread: float, participants: int, power: float = 0.8, level: float = 0.05) -> float:
    """Mean difference that a paired test would have found.

    Args:
        spread: SD of the differences.
        participants: Their number.
        power: Probability of finding it.
        level: Two-sided level of the test.

    Returns:
        The difference, from the noncentral t distribution.
    """
    if spread == 0:
        return 0.0
    freedom = participants - 1
    critical = stats.t.ppf(1 - level / 2, freedom)

    def missing_power(shift: float) -> float:
        # The second, rejecting for the wrong side, is NaN in SciPy where it is next to nothing.
        found = stats.nct.sf(critical, freedom, shift) + np.nan_to_num(stats.nct.cdf(-critical, freedom, shift))
        return float(found) - power

    # In units of the mean's standard error, where the answer is near for any number of participants.
    upper = float(critical) + 1.0
    while missing_power(upper) < 0:
        upper *= 2
    return spread * float(optimize.brentq(missing_power, 0.0, upper)) / float(np.sqrt(participants))


def _describe(differences: NDArray[np.float64], p: float, corrected: float, seed: int) -> PairedResult:
    low, high = mean_interval(differences, seed)
    participants = len(differences)
    return PairedResult(
        participants=participants,
        p=p,
        holm_p=corrected,
        difference=hodges_lehmann(differences),
        mean_difference=float(differences.mean()),
        low=low,
        high=high,
        rank_biserial=rank_biserial(differences),
        smallest_p=min(1.0, 2.0 ** (1 - participants)),
        detectable=detectable_difference(float(differences.std(ddof=1)), participants),
    )


def _finite(values: NDArray[np.float64], who: str) -> NDArray[np.float64]:
    """Refuse what SciPy takes in silence: a p-value of inf - inf, or a participant dropped for a missing cell."""
    if not np.isfinite(values).all():
        raise InputError(
            f"{who} needs a finite value of every participant and model; found {int((~np.isfinite(values)).sum())} "
            "missing or infinite. Give lost classes their worst value (policy worst)."
        )
    return values
