"""The study's eight metrics and those beside them, and what is done where a mask is empty."""

from cm_lightning.metrics.empty import EmptyPolicy, apply_empty_policy
from cm_lightning.metrics.segmentation import METRICS, Metric, case_rows

__all__ = ["METRICS", "EmptyPolicy", "Metric", "apply_empty_policy", "case_rows"]
