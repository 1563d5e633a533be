"""The study's eight metrics, and what is done where a mask is empty."""

from cm_lightning.metrics.empty import EmptyPolicy, apply_empty_policy
from cm_lightning.metrics.segmentation import METRICS, case_rows

__all__ = ["METRICS", "EmptyPolicy", "apply_empty_policy", "case_rows"]
