"""Whether models' probabilities mean what they say: calibration errors over participants."""

import pandas as pd

from cm_lightning.metrics.calibration import calibration_errors, chance_calibration_errors, sums_by_bin

WHOSE = ["model", "calibration", "patient"]
CHANCE_DRAWS = 200  # for orientation: it is shown with three digits


def participant_calibration(calibration: pd.DataFrame) -> pd.DataFrame:
    """Measure the calibration of every model for every participant.

    Args:
        calibration: Long table of :func:`cm_lightning.metrics.calibration.calibration_rows`, with the columns
            ``model``, ``seed`` and ``calibration``.

    Returns:
        A row per model, calibration ("none" or "temperature") and participant, indexed by them: the mean over scans and
        seeds of each class, then over classes, of ``ece``, ``ace`` and ``brier``.
    """
    errors = calibration_errors(calibration, [*WHOSE, "class", "seed", "case"])
    return errors.groupby([*WHOSE, "class"]).mean().groupby(WHOSE).mean()


def chance_calibration(calibration: pd.DataFrame) -> pd.Series:
    """Find the mean ECE that a perfectly calibrated model would hardly exceed.

    Args:
        calibration: Long table, as for :func:`participant_calibration`.

    Returns:
        By model and calibration, the 97.5th percentile over draws of the mean that is taken as of the ECE itself.
    """
    groups, sums = sums_by_bin(calibration, [*WHOSE, "class", "seed", "case"])
    drawn = chance_calibration_errors(sums["count"], sums["probability"], CHANCE_DRAWS)
    means = pd.DataFrame(drawn.T, index=groups).groupby([*WHOSE, "class"]).mean().groupby(WHOSE).mean()
    return means.groupby(WHOSE[:2]).mean().quantile(0.975, axis=1)
