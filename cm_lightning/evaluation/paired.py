"""Paired comparison of a model with its baseline, with trained networks as fixed or as random."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from cm_lightning.errors import InputError
from cm_lightning.statistics.means import detectable_difference
from cm_lightning.statistics.ranks import difference
from cm_lightning.statistics.signed_rank import (
    differing_pairs,
    hodges_lehmann,
    hodges_lehmann_interval,
    rank_biserial,
    signed_rank_p,
    smallest_p,
)
from cm_lightning.statistics.training_runs import run_level_mean
from cm_lightning.statistics.verdicts import Verdict, verdict

# What the estimate, its interval and its p value cover: participants and training runs, or participants only.
Scope = Literal["runs", "networks"]


@dataclass(frozen=True)
class PairedResult:
    """Paired comparison of a model with its baseline.

    Differences are values of the model minus values of the baseline, one per participant, averaged over seeds.

    Attributes:
        scope: ``runs``: participants and training runs (fold and seed) are random, and the difference is the mean.
            ``networks``: the result is conditional on these trained networks, and the difference is that of Hodges and
            Lehmann.
        participants: Number of participants that were compared.
        left_out: Number of participants without a value for one of the models.
        seeds: Number of seeds that were compared.
        difference: Estimate of the difference.
        low: Lower limit of its 95 % confidence interval.
        high: Upper limit of its 95 % confidence interval.
        interval_90: 90 % confidence interval, which decides about equivalence.
        p: P value of the difference: run-level t test, or exact Wilcoxon signed-rank test.
        networks_p: P value of the exact Wilcoxon signed-rank test over participants, conditional on the networks.
        smallest_p: Smallest value that ``networks_p`` can have for the number of participants that differ.
        rank_biserial: Matched-pairs rank-biserial correlation, from -1 to 1.
        differing: Number of participants whose values differ.
        detectable: Mean difference that a t test with this standard error detects with a power of 80 % at 5 %.
        holm_p: ``p`` with Holm's correction for its family; ``p`` itself before the correction.
        verdict: Whether the models differ or are equivalent.
    """

    scope: Scope
    participants: int
    left_out: int
    seeds: int
    difference: float
    low: float
    high: float
    interval_90: tuple[float, float]
    p: float
    networks_p: float
    smallest_p: float
    rank_biserial: float
    differing: int
    detectable: float
    holm_p: float
    verdict: Verdict = "undecided"

    def corrected(self, holm_p: float, margin: float | None) -> "PairedResult":
        """Return the result with its corrected p value and the verdict.

        Args:
            holm_p: P value with Holm's correction.
            margin: Largest difference that does not matter; None without one.

        Returns:
            A copy of the result.
        """
        return replace(self, holm_p=holm_p, verdict=verdict(holm_p, self.interval_90, margin))


def compare_pair(baseline: pd.DataFrame, model: pd.DataFrame, folds: pd.Series | None = None) -> PairedResult:
    """Compare a model with its baseline over the participants that both have values for.

    With two seeds or more in common, and networks that were trained on the same folds, training runs are random, too.

    Args:
        baseline: Values with one row per participant and one column per seed; NaN where there is none.
        model: Values of the model, with the same rows.
        folds: Fold of every participant; None if folds are unknown or differ between the models.

    Returns:
        The result, before the correction for several comparisons.

    Raises:
        InputError: Rows differ, there are fewer than two common participants, or a value is infinite.
    """
    if not baseline.index.equals(model.index):
        raise InputError(
            f"A paired test needs values of the same participants for both models; found {len(baseline)} and "
            f"{len(model)} participants, or another order."
        )
    seeds = [seed for seed in baseline if seed in model]
    if folds is not None and len(seeds) >= 2:
        baseline, model = baseline[seeds], model[seeds]
        differences = difference(_check_infinite(model), _check_infinite(baseline))
        return zero_test(pd.DataFrame(differences, index=model.index, columns=seeds), folds)
    # Seeds cannot be paired. A participant is compared if all networks have a value, so that all contribute.
    means = [_check_infinite(table).mean(axis=1) for table in (model, baseline)]
    return zero_test(pd.DataFrame(difference(*means), index=model.index))


def zero_test(differences: pd.DataFrame, folds: pd.Series | None = None) -> PairedResult:
    """Test differences, or other values that are 0 without an effect.

    Args:
        differences: Values with one row per participant and one column per seed; NaN where there is none.
        folds: Fold of every participant; None to take the networks as fixed, or if there are none.

    Returns:
        The result, before the correction for several comparisons. Participants without a value for a seed are left out.

    Raises:
        InputError: There are fewer than two participants with values.
    """
    known = differences.notna().all(axis=1)
    by_seed = differences[known].to_numpy(dtype=np.float64)
    participants, seeds = by_seed.shape
    if participants < 2:
        raise InputError(
            f"A paired test needs at least two participants with values for both models; found {participants}."
        )
    means = by_seed.mean(axis=1)
    networks_p, differing = signed_rank_p(means), differing_pairs(means)
    if folds is not None and seeds >= 2:
        scope: Scope = "runs"
        estimate = run_level_mean(by_seed, folds[known].to_numpy())
        centre, p = estimate.mean, estimate.p
        (low, high), interval_90 = (estimate.interval(level) for level in (0.95, 0.9))
        standard_error, freedom = estimate.standard_error, estimate.degrees_of_freedom
    else:
        scope, centre, p = "networks", hodges_lehmann(means), networks_p
        (low, high), interval_90 = (hodges_lehmann_interval(means, level) for level in (0.95, 0.9))
        standard_error, freedom = float(means.std(ddof=1) / np.sqrt(participants)), float(participants - 1)
    return PairedResult(
        scope=scope,
        participants=participants,
        left_out=len(differences) - participants,
        seeds=seeds,
        difference=centre,
        low=low,
        high=high,
        interval_90=interval_90,
        p=p,
        networks_p=networks_p,
        smallest_p=smallest_p(differing),
        rank_biserial=rank_biserial(means),
        differing=differing,
        detectable=detectable_difference(standard_error, freedom),
        holm_p=p,
    )


def _check_infinite(values: pd.DataFrame) -> pd.DataFrame:
    """Check that no value is infinite; means of rows with a missing value are missing, too."""
    if np.isinf(values.to_numpy(dtype=np.float64)).any():
        raise InputError(
            "A paired test needs a finite value for every participant and model; found infinite values. Use the worst "
            "value for missed classes (policy worst)."
        )
    return values.where(values.notna().all(axis=1), np.nan)
