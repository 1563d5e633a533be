"""Segmentation error by confidence and by depth."""

from collections.abc import Collection

import pandas as pd

from cm_lightning.evaluation.comparison import over_seeds

# Columns with numbers of voxels.
COUNTS = ["true_positive", "false_positive", "false_negative"]
# Levels are tenths of confidence: below 0.3, and at least 0.7.
LOW_CONFIDENCE = (0, 1, 2)
HIGH_CONFIDENCE = (7, 8, 9)
# Fraction of the labelled voxels, counted from the deepest, that the deep region contains.
DEEP_FRACTION = 0.3


def at_levels(levels: pd.DataFrame, by: str, numbers: Collection[int]) -> pd.Series:
    """Mark the rows of several levels.

    Args:
        levels: Long table of counts, as for :func:`participant_errors`.
        by: ``confidence`` or ``depth``.
        numbers: Levels, 0 to 9.

    Returns:
        Boolean series with the index of ``levels``.
    """
    return (levels["by"] == by) & levels["level"].isin(numbers)


def deepest(levels: pd.DataFrame) -> pd.Series:
    """Select the depth levels that contain the deepest 30 % of the labelled voxels of each participant.

    The region is defined by the labels because they may end above the deepest insonified voxels; below the labels there
    are only false positives.

    Args:
        levels: Long table of counts, as for :func:`participant_errors`.

    Returns:
        Boolean series with the index of ``levels``. A depth level is selected if the levels below it contain at most
        30 % of the participant's labelled voxels.
    """
    labelled = levels["true_positive"] + levels["false_negative"]
    by_depth = levels["by"] == "depth"
    counts = labelled[by_depth].groupby([levels["patient"], levels["level"]]).sum().unstack(fill_value=0)
    below = counts.iloc[:, ::-1].cumsum(axis=1).iloc[:, ::-1] - counts  # labelled voxels in deeper levels
    deep = (below <= DEEP_FRACTION * counts.sum(axis=1).to_numpy()[:, None]).stack()
    keys = pd.MultiIndex.from_frame(levels[["patient", "level"]])
    return by_depth & deep.reindex(keys, fill_value=False).to_numpy(dtype=bool)


def regions(levels: pd.DataFrame) -> dict[str, tuple[str, pd.Series]]:
    """Return the regions whose errors are compared.

    Args:
        levels: Long table of counts, as for :func:`participant_errors`.

    Returns:
        For each region, its title (which follows the word "where") and a boolean series that selects its rows.
    """
    return {
        "low_confidence": ("confidence is below 0.3", at_levels(levels, "confidence", LOW_CONFIDENCE)),
        "high_confidence": ("confidence is 0.7 or more", at_levels(levels, "confidence", HIGH_CONFIDENCE)),
        "deep": ("the deepest three tenths of the labels lie", deepest(levels)),
    }


def participant_errors(levels: pd.DataFrame, within: pd.Series) -> pd.DataFrame:
    """Compute the error of each model and seed for each participant within a region.

    The error is ``(FP + FN) / (TP + FP + FN)``, summed over all classes except background and over all scans of a
    participant. It is the fraction of the predicted or labelled voxels that are wrong, and equals one minus the IoU.

    Args:
        levels: Long table of counts with the columns ``model``, ``seed``, ``patient``, ``by``, ``level`` and those in
            :data:`COUNTS`.
        within: Boolean series that selects the rows of the region.

    Returns:
        Errors with one row per participant and one column per model and seed; NaN if nothing is labelled or predicted
        there.
    """
    counts = levels[within].groupby(["model", "seed", "patient"], sort=False)[COUNTS].sum()
    total = counts.sum(axis=1)
    error = 1 - counts["true_positive"] / total.where(total > 0)
    runs = pd.MultiIndex.from_frame(levels[["model", "seed"]].drop_duplicates())
    return error.unstack(["model", "seed"]).reindex(columns=runs)


def error_profile(levels: pd.DataFrame, by: str) -> pd.DataFrame:
    """Compute the mean error over participants for each model and level.

    Args:
        levels: Long table of counts, as for :func:`participant_errors`.
        by: ``confidence`` or ``depth``.

    Returns:
        Mean errors with one row per model and one column per level; NaN if nothing is labelled or predicted there.
        Errors of a participant are averaged over seeds first.
    """
    numbers = sorted(levels.loc[levels["by"] == by, "level"].unique())
    return pd.DataFrame(
        {number: over_seeds(participant_errors(levels, at_levels(levels, by, [number]))).mean() for number in numbers}
    )
