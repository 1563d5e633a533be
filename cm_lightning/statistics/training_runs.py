"""Tests of a mean difference with participants and training runs as random effects.

Training is random: two networks of the same model, trained with different seeds, differ. If networks are taken as
fixed, a test over participants finds these differences and calls them a difference between the models.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from cm_lightning.errors import InputError


@dataclass(frozen=True)
class MeanEstimate:
    """Estimate of a mean with its standard error.

    Attributes:
        mean: The estimate.
        standard_error: Its standard error.
        degrees_of_freedom: Degrees of freedom of the standard error.
    """

    mean: float
    standard_error: float
    degrees_of_freedom: float

    @property
    def p(self) -> float:
        """Two-sided p value of the t test against 0; 1 if the mean is 0 and 0 if it is another constant."""
        if self.standard_error == 0:
            return float(self.mean == 0)
        return float(2 * stats.t.sf(abs(self.mean) / self.standard_error, self.degrees_of_freedom))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Compute the confidence interval that belongs to the test.

        Args:
            level: Confidence level.

        Returns:
            Lower and upper limit.
        """
        reach = float(stats.t.ppf((1 + level) / 2, self.degrees_of_freedom)) * self.standard_error
        return self.mean - reach, self.mean + reach


def run_level_mean(values: ArrayLike, folds: NDArray[Any]) -> MeanEstimate:
    """Estimate a mean over participants and training runs, crossed random effects within every fold.

    The value of a participant with the networks of a seed is ``mean + participant + run + residual``, where a run is a
    fold with a seed: its networks test all participants of the fold. The variance of the mean is estimated from the
    mean squares of participants, of runs and of residuals in every fold (analysis of variance with random effects), its
    degrees of freedom by Satterthwaite. For folds of equal size this is the mixed model with the folds as fixed
    effects, as fitted by REML; statsmodels fits the same model but tests it with a normal distribution, which rejects
    too often with a few runs. Differences between folds that all seeds have in common are not a source of variation.

    Args:
        values: Values, usually differences between two models, ``(participants, seeds)``, with at least two of each.
        folds: Fold of every participant, ``(participants,)``.

    Returns:
        Mean over participants with its standard error.

    Raises:
        InputError: The shapes do not fit, there are fewer than two participants or seeds, or a value is not finite.

    References:
        Searle, Casella and McCulloch, "Variance components", Wiley 1992, chapter 4. Satterthwaite, "An approximate
        distribution of estimates of variance components", Biometrics Bulletin 1946.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or len(folds) != len(table) or not np.isfinite(table).all():
        raise InputError(
            "The test over training runs needs finite values of at least two participants and two seeds, and the fold "
            f"of every participant; found values of shape {table.shape} and {len(folds)} folds."
        )
    participants, seeds = table.shape
    groups = [table[folds == fold] for fold in dict.fromkeys(folds.tolist())]
    within = participants - len(groups)
    means = table.mean(axis=1)
    if within == 0:
        # Every participant has networks of its own, and the variation between participants contains that of the runs.
        return MeanEstimate(float(means.mean()), float(means.std(ddof=1) / np.sqrt(participants)), participants - 1)
    # Each is a sum of squares, divided so that its expectation is its share of the variance of the mean.
    unit = participants * seeds
    between_participants = seeds * sum(_squares(group.mean(axis=1)) for group in groups) / within / unit
    residual = sum(_squares(_residuals(group)) for group in groups) / (within * (seeds - 1)) / unit
    runs = [len(group) ** 2 * _squares(group.mean(axis=0)) / (seeds - 1) / unit / participants for group in groups]
    # The expectations of the other two contain that of the residuals; a smaller one means a component of 0.
    terms: list[tuple[float, float]] = []
    if between_participants >= residual:
        terms.append((between_participants, within))
    if sum(runs) >= residual:
        terms += [(run, seeds - 1) for run in runs]
    if between_participants >= residual and sum(runs) >= residual:
        terms.append((-residual, within * (seeds - 1)))
    terms = terms or [(residual, within * (seeds - 1))]
    variance = sum(term for term, _ in terms)
    squares = sum(term**2 / freedom for term, freedom in terms)
    freedom = variance**2 / squares if squares > 0 else float(participants - 1)
    return MeanEstimate(float(means.mean()), float(np.sqrt(variance)), freedom)


def _squares(values: NDArray[np.float64]) -> float:
    return float(((values - values.mean()) ** 2).sum())


def _residuals(group: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what participants and runs do not explain, ``(participants, seeds)``."""
    return group - group.mean(axis=1, keepdims=True) - group.mean(axis=0, keepdims=True) + group.mean()
