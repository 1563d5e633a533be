"""Whether models' probabilities mean what they say: errors over participants, and frequency against probability."""

import pandas as pd

from cm_lightning.metrics.calibration import SUMS, calibration_errors, null_calibration_error, sums_by_bin

NULL_DRAWS = 200  # for orientation: it is shown with three digits


def participant_calibration(calibration: pd.DataFrame) -> pd.DataFrame:
    """Measure the calibration of every model for every participant.

    Args:
        calibration: Long table of :func:`cm_lightning.metrics.calibration.calibration_rows`, with the columns
            ``model``, ``seed`` and ``calibration``.

    Returns:
        A row per model, calibration ("none" or "temperature") and participant, indexed by them: the mean over scans and
        seeds of each class, then over classes, of ``ece``, ``ace``, ``brier``, and ``null``, the 97.5th percentile of
        the ECE of a perfectly calibrated model.
    """
    whose = ["model", "calibration", "patient"]
    by = [*whose, "class", "seed", "case"]
    errors = calibration_errors(calibration, by)
    groups, sums = sums_by_bin(calibration, by)
    null = null_calibration_error(sums["count"], sums["probability"], draws=NULL_DRAWS)
    errors = errors.assign(null=pd.Series(null, index=groups))
    return errors.groupby([*whose, "class"]).mean().groupby(whose).mean()


def reliability(calibration: pd.DataFrame) -> pd.DataFrame:
    """Find how often what a model states with some probability is so.

    Args:
        calibration: Long table, as for :func:`participant_calibration`.

    Returns:
        A row per model, calibration and bin that holds voxels, indexed by them: the ``count`` of voxels of all classes,
        scans and seeds, one class against the rest, their mean ``probability`` and the ``frequency`` of the class.
    """
    sums = calibration.groupby(["model", "calibration", "bin"], sort=False)[SUMS].sum().sort_index()
    sums = sums[sums["count"] > 0]
    shares = sums[["probability", "positive"]].div(sums["count"], axis=0)
    return shares.rename(columns={"positive": "frequency"}).assign(count=sums["count"])
