"""What a metric is worth where a mask is empty: the one place that decides."""

from typing import Literal

import pandas as pd

from cm_lightning.metrics.segmentation import METRICS

EmptyPolicy = Literal["worst", "detected"]

# Value of a metric where exactly one of prediction and truth is empty; distances become the image's diagonal. The
# others keep the value that they have: the fall-out and errors of volume and area are defined with one side empty, and
# islands and the relative volume error are not scored where they are not (a lost class, and one that was invented).
WORST = {"dice": 0.0, "iou": 0.0, "precision": 0.0, "recall": 0.0, "miss_rate": 1.0, "nsd": 0.0}
DISTANCES = [name for name, metric in METRICS.items() if metric.kind == "distance"]
PROBABILISTIC = [name for name, metric in METRICS.items() if metric.needs_probabilities]


def apply_empty_policy(rows: pd.DataFrame, policy: EmptyPolicy = "worst") -> pd.DataFrame:
    """Decide the value of rows with an empty mask.

    A class that is in neither prediction nor truth of a case is absent and not scored under either
    policy. Where one side is empty, ``worst`` gives the metric its worst value (distance: the image's
    diagonal), so that losing a class never improves a mean, and ``detected`` leaves the rows out. Metrics of the
    probabilities need no mask and count under both policies as they are.

    Args:
        rows: Long table of :func:`cm_lightning.metrics.case_rows`.
        policy: Which policy.

    Returns:
        A copy with the rows that count and their values.
    """
    of_masks = ~rows["metric"].isin(PROBABILISTIC)
    absent = of_masks & rows["pred_empty"] & rows["truth_empty"]
    one_empty = (of_masks & (rows["pred_empty"] | rows["truth_empty"]))[~absent]
    rows = rows[~absent].copy()
    match policy:
        case "detected":
            return rows[~one_empty]
        case "worst":
            worst = rows["metric"].map(WORST)
            worst = worst.where(~rows["metric"].isin(DISTANCES), rows["diagonal"])
            replace = one_empty & worst.notna()
            rows["value"] = rows["value"].where(~replace, worst)
            return rows


def detection_rate(rows: pd.DataFrame) -> pd.Series:
    """Share of the cases containing a class in which it was found at all.

    Args:
        rows: Long table of :func:`cm_lightning.metrics.case_rows`.

    Returns:
        Rate per class; NaN for a class that no case contains.
    """
    present = rows[~rows["truth_empty"]].drop_duplicates(["case", "class"])
    return 1 - present.groupby("class", sort=False)["pred_empty"].mean()
