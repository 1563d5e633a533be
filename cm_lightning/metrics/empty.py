"""Values of metrics for empty masks."""

from typing import Literal

import pandas as pd

from cm_lightning.metrics.segmentation import METRICS

EmptyPolicy = Literal["worst", "detected"]

# Value of a metric if either the prediction or the label is empty; distances become the diagonal of the image.
WORST = {"dice": 0.0, "iou": 0.0, "precision": 0.0, "recall": 0.0, "miss_rate": 1.0, "fall_out": 1.0, "nsd": 0.0}
DISTANCES = [name for name, metric in METRICS.items() if metric.kind == "distance"]
PROBABILISTIC = [name for name, metric in METRICS.items() if metric.needs_probabilities]
# Unbounded metrics have no worst value, and a missed class would improve their mean: no islands, and a volume error of
# 1 instead of 2. They are scored only where both masks contain the class, and tables show the number of participants.
CONDITIONAL = [name for name in METRICS if name not in (*WORST, *DISTANCES, *PROBABILISTIC)]


def apply_empty_policy(rows: pd.DataFrame, policy: EmptyPolicy = "worst") -> pd.DataFrame:
    """Apply a policy to rows with an empty mask.

    If a class is in neither the prediction nor the label of a case, it is not scored. If one of the two masks is empty,
    ``worst`` sets ratios and distances to their worst value (distances to the diagonal of the image), so that missing a
    class never improves their means, and removes the rows of the metrics without a worst value, :data:`CONDITIONAL`;
    ``detected`` removes the rows of all metrics. Metrics of the probabilities do not depend on masks and do not change.

    Args:
        rows: Long table of :func:`cm_lightning.metrics.case_rows`.
        policy: The policy.

    Returns:
        Copy of the table with the rows that are scored.
    """
    depends_on_masks = ~rows["metric"].isin(PROBABILISTIC)
    absent = depends_on_masks & rows["pred_empty"] & rows["truth_empty"]
    one_empty = (depends_on_masks & (rows["pred_empty"] | rows["truth_empty"]))[~absent]
    rows = rows[~absent].copy()
    match policy:
        case "detected":
            return rows[~one_empty]
        case "worst":
            worst = rows["metric"].map(WORST)
            worst = worst.where(~rows["metric"].isin(DISTANCES), rows["diagonal"])
            rows["value"] = rows["value"].where(~one_empty, worst)
            return rows[~(one_empty & rows["metric"].isin(CONDITIONAL))]


def detection_rate(rows: pd.DataFrame) -> pd.Series:
    """Compute the detection rate: the fraction of the cases with a class in which its prediction is not empty.

    Args:
        rows: Long table of :func:`cm_lightning.metrics.case_rows`.

    Returns:
        Rate from 0 to 1 per class; NaN for a class that is in no case.
    """
    present = rows[~rows["truth_empty"]].drop_duplicates(["case", "class"])
    return 1 - present.groupby("class", sort=False)["pred_empty"].mean()
