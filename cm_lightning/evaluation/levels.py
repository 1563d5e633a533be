"""Where models are wrong: their error by level of confidence and by depth."""

from collections.abc import Collection

import pandas as pd

COUNTS = ["true_positive", "false_positive", "false_negative"]
LOW_CONFIDENCE = (0, 1, 2)  # tenths: below 0.3
HIGH_CONFIDENCE = (7, 8, 9)
DEEP = (7, 8, 9)  # the deepest three tenths of what is insonified


def participant_errors(levels: pd.DataFrame, by: str, chosen: Collection[int]) -> pd.DataFrame:
    """Give every participant's error of every model within some levels.

    The error is the share of the voxels in prediction or label of any class that are wrong, ``(FP + FN) / (TP + FP +
    FN)``, over all classes, scans and seeds of a participant: one less the overlap. The background, right almost
    everywhere, takes no part.

    Args:
        levels: Long table of counts with the columns ``model``, ``patient``, ``by``, ``level`` and the counts.
        by: ``confidence`` or ``depth``.
        chosen: Levels, taken together.

    Returns:
        A row per participant, a column per model; NaN where there is nothing of any class within the levels.
    """
    within = levels[(levels["by"] == by) & levels["level"].isin(chosen)]
    counts = within.groupby(["model", "patient"], sort=False)[COUNTS].sum()
    total = counts.sum(axis=1)
    error = 1 - counts["true_positive"] / total.where(total > 0)
    return error.unstack("model").reindex(columns=list(dict.fromkeys(levels["model"])))


def error_profile(levels: pd.DataFrame, by: str) -> pd.DataFrame:
    """Give the mean error over participants of every model and level.

    Args:
        levels: Long table of counts, as for :func:`participant_errors`.
        by: ``confidence`` or ``depth``.

    Returns:
        A row per model, a column per level; NaN where no participant has anything of any class.
    """
    numbers = sorted(levels.loc[levels["by"] == by, "level"].unique())
    return pd.DataFrame({number: participant_errors(levels, by, [number]).mean() for number in numbers})
