"""Where models are wrong: their error by level of confidence and by depth."""

from collections.abc import Collection

import pandas as pd

COUNTS = ["true_positive", "false_positive", "false_negative"]
LOW_CONFIDENCE = (0, 1, 2)  # tenths: below 0.3
HIGH_CONFIDENCE = (7, 8, 9)
DEEP_SHARE = 0.3


def at_levels(levels: pd.DataFrame, by: str, chosen: Collection[int]) -> pd.Series:
    """Find the counts of some levels.

    Args:
        levels: Long table of counts, as for :func:`participant_errors`.
        by: ``confidence`` or ``depth``.
        chosen: Levels, taken together.

    Returns:
        Whether a row is of those levels, by the table's index.
    """
    return (levels["by"] == by) & levels["level"].isin(chosen)


def deepest(levels: pd.DataFrame) -> pd.Series:
    """Find the counts of the depths at which every participant's deepest three tenths of labelled voxels lie.

    Labels need not reach as deep as the sound does: below them nothing but false positives can be counted.

    Args:
        levels: Long table of counts, as for :func:`participant_errors`.

    Returns:
        Whether a row is of such a level of depth: those below it hold at most three tenths of the voxels that are
        labelled in the participant's scans. By the table's index.
    """
    labelled = levels["true_positive"] + levels["false_negative"]
    by_depth = levels["by"] == "depth"
    counts = labelled[by_depth].groupby([levels["patient"], levels["level"]]).sum().unstack(fill_value=0)
    below = counts.iloc[:, ::-1].cumsum(axis=1).iloc[:, ::-1] - counts  # of the levels that are deeper
    deep = (below <= DEEP_SHARE * counts.sum(axis=1).to_numpy()[:, None]).stack()
    keys = pd.MultiIndex.from_frame(levels[["patient", "level"]])
    return by_depth & deep.reindex(keys, fill_value=False).to_numpy(dtype=bool)


def regions(levels: pd.DataFrame) -> dict[str, tuple[str, pd.Series]]:
    """Name the regions whose errors are compared.

    Args:
        levels: Long table of counts, as for :func:`participant_errors`.

    Returns:
        Of every region its title and which rows are of it.
    """
    return {
        "low_confidence": ("confidence is below 0.3", at_levels(levels, "confidence", LOW_CONFIDENCE)),
        "high_confidence": ("confidence is 0.7 or more", at_levels(levels, "confidence", HIGH_CONFIDENCE)),
        "deep": ("the deepest three tenths of the labels lie", deepest(levels)),
    }


def participant_errors(levels: pd.DataFrame, within: pd.Series) -> pd.DataFrame:
    """Give every participant's error of every model in some places.

    The error is the share of the voxels in prediction or label of any class that are wrong, ``(FP + FN) / (TP + FP +
    FN)``, over all classes, scans and seeds of a participant: one less the overlap. The background, right almost
    everywhere, takes no part.

    Args:
        levels: Long table of counts with the columns ``model``, ``patient``, ``by``, ``level`` and the counts.
        within: Which of its rows are meant.

    Returns:
        A row per participant, a column per model; NaN where there is nothing of any class.
    """
    counts = levels[within].groupby(["model", "patient"], sort=False)[COUNTS].sum()
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
    return pd.DataFrame(
        {number: participant_errors(levels, at_levels(levels, by, [number])).mean() for number in numbers}
    )
