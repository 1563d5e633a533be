"""Friedman's test of several models, and Nemenyi's test of all pairs."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from cm_lightning.errors import InputError
from cm_lightning.statistics.ranks import mid_ranks

# Largest number of permutations. If there are fewer, all of them are used.
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


def friedman(values: pd.DataFrame, seed: int = 0) -> FriedmanResult:
    """Test whether several models differ (Friedman 1937). Networks are taken as fixed.

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
    ranks = mid_ranks(table, axis=1)
    if (ranks == ranks[:, :1]).all():
        # Without any difference, the statistic is 0 / 0.
        return FriedmanResult(participants, models, 0.0, 1.0, 1.0, 0.0)
    statistic, p = stats.friedmanchisquare(*ranks.T)
    # Permutations within participants do not change ranks and ties, so Friedman's statistic is a monotonic
    # function of the sum of the squared rank sums, which can be computed for all permutations at once.
    permutation_result = stats.permutation_test(
        list(ranks.T),
        lambda *columns, axis: (np.sum(columns, axis=axis) ** 2).sum(axis=0),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        rng=seed,
    )
    kendall_w = float(statistic) / (participants * (models - 1))
    permutation_p = float(permutation_result.pvalue)
    return FriedmanResult(participants, models, float(statistic), float(p), permutation_p, kendall_w)


def nemenyi(values: pd.DataFrame) -> pd.DataFrame:
    """Test all pairs of models (Nemenyi 1963). Networks are taken as fixed.

    Args:
        values: Values with one row per participant and one column per model, without missing values.

    Returns:
        P values with one row and one column per model; 1 for models without any difference.
    """
    import scikit_posthocs  # imports statsmodels and seaborn, which takes seconds

    p_values = scikit_posthocs.posthoc_nemenyi_friedman(mid_ranks(values.to_numpy(dtype=float), axis=1))
    return p_values.set_axis(values.columns).set_axis(values.columns, axis=1).fillna(1.0)


def _check_finite(values: NDArray[np.float64], test: str) -> NDArray[np.float64]:
    """Check that no value is missing or infinite, which SciPy would not report."""
    if not np.isfinite(values).all():
        raise InputError(
            f"{test} needs a finite value for every participant and model; found {int((~np.isfinite(values)).sum())} "
            "missing or infinite values. Use the worst value for missed classes (policy worst)."
        )
    return values
