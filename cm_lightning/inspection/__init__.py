"""Inspection of data sets before training: cases, labels, geometry, problems, and a starting configuration."""

from cm_lightning.inspection.command import Report, inspect_data_set
from cm_lightning.inspection.settings import DataSettings

__all__ = ["DataSettings", "Report", "inspect_data_set"]
