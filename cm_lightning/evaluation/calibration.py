"""Calibration errors per participant, and those that are expected by chance."""

import pandas as pd

from cm_lightning.metrics.calibration import calibration_errors, chance_calibration_errors, sums_by_bin

GROUP = ["model", "calibration", "patient"]
# Number of random draws; enough for the few digits that the report shows.
CHANCE_DRAWS = 200


def participant_calibration(calibration: pd.DataFrame) -> pd.DataFrame:
    """Compute the calibration errors of each model for each participant.

    Args:
        calibration: Long table of :func:`cm_lightning.metrics.calibration.calibration_rows`, with the columns
            ``model``, ``seed`` and ``calibration``.

    Returns:
        Columns ``ece``, ``ace`` and ``brier``, indexed by model, calibration ("none" or "temperature") and participant.
        Values are averaged over the scans and seeds of each class, then over classes.
    """
    errors = calibration_errors(calibration, [*GROUP, "class", "seed", "case"])
    return errors.groupby([*GROUP, "class"]).mean().groupby(GROUP).mean()


def chance_calibration(calibration: pd.DataFrame) -> pd.Series:
    """Compute the mean ECE of a perfectly calibrated model that is expected by chance.

    Args:
        calibration: Long table, as for :func:`participant_calibration`.

    Returns:
        The 97.5th percentile over random draws, by model and calibration. Draws are averaged like the ECE itself, over
        scans, seeds, classes and participants.
    """
    groups, sums = sums_by_bin(calibration, [*GROUP, "class", "seed", "case"])
    chance_errors = chance_calibration_errors(sums["count"], sums["probability"], CHANCE_DRAWS)
    means = pd.DataFrame(chance_errors.T, index=groups).groupby([*GROUP, "class"]).mean().groupby(GROUP).mean()
    return means.groupby(GROUP[:2]).mean().quantile(0.975, axis=1)
