"""Correction for several comparisons, and the verdict on each of them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Verdict = Literal["different", "equivalent", "undecided"]


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


def verdict(holm_p: float, interval_90: tuple[float, float], margin: float | None, level: float = 0.05) -> Verdict:
    """Decide whether two models differ, are equivalent, or neither can be said.

    Two one-sided tests at 5 % find equivalence if the 90 % confidence interval lies within the margin. Equivalence has
    precedence: a difference may be significant and yet be smaller than any that matters.

    Args:
        holm_p: Corrected p value of the difference.
        interval_90: 90 % confidence interval of the difference.
        margin: Largest difference that does not matter, in the unit of the difference; None if no margin was set.
        level: Significance level of the difference.

    Returns:
        The verdict.

    References:
        Schuirmann, "A comparison of the two one-sided tests procedure and the power approach for assessing the
        equivalence of average bioavailability", Journal of Pharmacokinetics and Biopharmaceutics 1987.
    """
    if margin is not None and -margin < interval_90[0] and interval_90[1] < margin:
        return "equivalent"
    return "different" if holm_p < level else "undecided"
