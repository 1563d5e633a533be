"""The study's eight metrics and those beside them, and what is done where a mask is empty."""

from cm_lightning.metrics.empty import EmptyPolicy, apply_empty_policy
from cm_lightning.metrics.segmentation import METRICS, Metric, case_rows

# Key under which validation logs its score, by which checkpoints and schedules go.
SCORE = "val/dice/mean"

__all__ = ["METRICS", "SCORE", "EmptyPolicy", "Metric", "apply_empty_policy", "case_rows"]
