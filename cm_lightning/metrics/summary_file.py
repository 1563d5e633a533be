"""Results of a test as nested dictionaries, in the arrangement of nnU-Net's ``summary.json``."""

import math
from typing import Any

import pandas as pd

from cm_lightning.metrics.segmentation import METRICS, VOXELS
from cm_lightning.metrics.summary import summarise

# Names of nnU-Net; further metrics keep the names of METRICS.
NNUNET_NAMES = {"dice": "Dice", "iou": "IoU"} | dict(
    zip(VOXELS, ("TP", "FP", "FN", "TN", "n_pred", "n_ref"), strict=True)
)

Nested = dict[str, Any]


def nested_summary(rows: pd.DataFrame) -> Nested:
    """Arrange the results of a test like nnU-Net.

    Unlike in nnU-Net, means are over patients, and a class that is missed or invented counts with its worst value (see
    :func:`cm_lightning.metrics.apply_empty_policy`); the numbers of voxels are summed.

    Args:
        rows: Long table of :func:`cm_lightning.metrics.case_rows` of one model and one post-processing, with the
            columns ``case`` and ``patient``.

    Returns:
        ``metric_per_case``: a list with the case, its patient, and the metrics and numbers of voxels of each class,
        None where a metric is undefined; ``mean``: the same means for each class; ``foreground_mean``: means over the
        classes.
    """
    cases = [
        {
            "case": case,
            "patient": part["patient"].iloc[0],
            "metrics": {str(name): _of_class(group) for name, group in part.groupby("class", sort=False)},
        }
        for case, part in rows.groupby("case", sort=False)
    ]
    summary = summarise(rows)
    means = {
        str(name): {
            NNUNET_NAMES.get(metric, metric): _number(mean)
            for metric, mean in zip(part["metric"], part["mean"], strict=True)
        }
        for name, part in summary.groupby("class", sort=False)
    }
    overall = means.pop("mean", {})
    sums = rows[rows["metric"] == next(iter(METRICS))].groupby("class", sort=False)[VOXELS].sum()
    for name, voxels in sums.to_dict("index").items():
        means.setdefault(str(name), {}).update({NNUNET_NAMES[str(key)]: int(value) for key, value in voxels.items()})
    return {"foreground_mean": overall, "mean": means, "metric_per_case": cases}


def _of_class(group: pd.DataFrame) -> Nested:
    values = {
        NNUNET_NAMES.get(name, name): _number(value)
        for name, value in zip(group["metric"], group["value"], strict=True)
    }
    return {**values, **{NNUNET_NAMES[name]: int(group[name].iloc[0]) for name in VOXELS}}


def _number(value: float) -> float | None:
    """Return a number that JSON can store."""
    return float(value) if math.isfinite(value) else None
