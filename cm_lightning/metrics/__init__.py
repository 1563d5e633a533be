"""The eight metrics of the study and further metrics, with a policy for empty masks."""

from cm_lightning.metrics.empty import EmptyPolicy, apply_empty_policy
from cm_lightning.metrics.segmentation import METRICS, Metric, case_rows

# Logged validation score that checkpoints and learning rate schedules monitor.
SCORE = "val/dice/mean"

__all__ = ["METRICS", "SCORE", "EmptyPolicy", "Metric", "apply_empty_policy", "case_rows"]
