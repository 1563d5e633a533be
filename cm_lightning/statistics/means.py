"""Confidence interval of a mean over participants, and the difference that a t test detects."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

# Number of bootstrap resamples.
RESAMPLES = 9999


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


def detectable_difference(
    standard_error: float, degrees_of_freedom: float, power: float = 0.8, level: float = 0.05
) -> float:
    """Compute the mean difference that a t test detects, from the noncentral t distribution.

    Args:
        standard_error: Standard error of the mean difference.
        degrees_of_freedom: Degrees of freedom of the standard error.
        power: Probability of detecting the difference.
        level: Two-sided significance level.

    Returns:
        The difference, in the unit of the standard error.
    """
    if standard_error == 0:
        return 0.0
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
    return standard_error * float(optimize.brentq(excess_power, 0.0, upper))
