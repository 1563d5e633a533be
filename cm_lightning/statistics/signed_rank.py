"""Wilcoxon's signed-rank test, exact with ties, with the estimate and the interval that belong to it."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cm_lightning.errors import InputError
from cm_lightning.statistics.ranks import mid_ranks, snap


def signed_rank_p(differences: ArrayLike) -> float:
    """Compute the exact two-sided p value of the Wilcoxon signed-rank test, also with ties.

    The exact method of SciPy does not support ties.

    Args:
        differences: Differences, ``(n,)``, as from :func:`cm_lightning.statistics.ranks.difference`. Differences of 0
            are ignored (Wilcoxon's treatment of zeros).

    Returns:
        The p value; 1 if all differences are 0.

    Raises:
        InputError: A difference is missing or infinite.

    References:
        Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1945.
    """
    values = snap(differences)
    if not np.isfinite(values).all():
        raise InputError(
            "The signed-rank test needs a finite difference for every participant; found "
            f"{int((~np.isfinite(values)).sum())} missing or infinite differences."
        )
    values = values[values != 0]
    if not len(values):
        return 1.0
    # Mid-ranks of ties are multiples of 1/2, so doubled ranks are integers.
    ranks = np.rint(2 * mid_ranks(np.abs(values))).astype(int)
    probabilities = _rank_sum_distribution(tuple(sorted(ranks.tolist())))
    centre = ranks.sum() / 2
    distance = np.abs(np.arange(len(probabilities)) - centre)
    return float(min(1.0, probabilities[distance >= abs(ranks[values > 0].sum() - centre)].sum()))


def hodges_lehmann(differences: ArrayLike) -> float:
    """Compute the median of the means of all pairs of differences, including pairs of a difference with itself.

    Args:
        differences: Differences, ``(n,)``.

    Returns:
        The estimate, in the unit of the differences.

    References:
        Hodges and Lehmann, "Estimates of location based on rank tests", Annals of Mathematical Statistics 1963.
    """
    return float(np.median(_walsh_averages(differences)))


def hodges_lehmann_interval(differences: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Compute the exact confidence interval of the Hodges-Lehmann estimate: all shifts the signed-rank test accepts.

    Args:
        differences: Differences, ``(n,)``.
        level: Confidence level.

    Returns:
        Lower and upper limit, in the unit of the differences. They are infinite if so few differences (five at a level
        of 95 %) cannot reject any shift.

    References:
        Hollander, Wolfe and Chicken, "Nonparametric statistical methods", Wiley 2013, section 3.3.
    """
    averages = np.sort(_walsh_averages(differences))
    probabilities = _rank_sum_distribution(tuple(range(1, len(np.asarray(differences)) + 1)))
    outside = int((np.cumsum(probabilities) <= (1 - level) / 2 + 1e-12).sum())
    if outside == 0:
        return -np.inf, np.inf
    return float(averages[outside - 1]), float(averages[-outside])


def rank_biserial(differences: ArrayLike) -> float:
    """Compute the matched-pairs rank-biserial correlation.

    It is the fraction of the rank sum that belongs to positive differences, minus that of negative differences. Pairs
    without a difference are ignored; report their number beside it.

    Args:
        differences: Differences, ``(n,)``.

    Returns:
        Value from -1 to 1; 0 if all differences are 0.

    References:
        Kerby, "The simple difference formula", Comprehensive Psychology 2014.
    """
    values = snap(differences)
    values = values[values != 0]
    if not len(values):
        return 0.0
    ranks = mid_ranks(np.abs(values))
    return float((np.sign(values) * ranks).sum() / ranks.sum())


def differing_pairs(differences: ArrayLike) -> int:
    """Count the pairs that differ, which are those that the signed-rank test uses.

    Args:
        differences: Differences, ``(n,)``.

    Returns:
        Number of differences that are not 0.
    """
    return int(np.count_nonzero(snap(differences)))


def smallest_p(pairs: int) -> float:
    """Compute the smallest p value that the signed-rank test can give.

    Args:
        pairs: Number of pairs that differ; see :func:`differing_pairs`.

    Returns:
        P value if all differences have the same sign; 1 without any.
    """
    return min(1.0, 2.0 ** (1 - pairs))


@lru_cache(maxsize=64)
def _rank_sum_distribution(ranks: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the probability of every sum of the positive ranks under random signs, ``(sum of all ranks + 1,)``."""
    probabilities = np.zeros(sum(ranks) + 1)
    probabilities[0] = 1.0
    for rank in ranks:  # one rank after another
        probabilities = 0.5 * (probabilities + np.concatenate([np.zeros(rank), probabilities[:-rank]]))
    return probabilities


def _walsh_averages(differences: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(differences, dtype=float)
    first, second = np.triu_indices(len(values))
    averages: NDArray[np.float64] = (values[first] + values[second]) / 2
    return averages
