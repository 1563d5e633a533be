"""LightningModules."""

from cm_lightning.tasks.base import BaseTask
from cm_lightning.tasks.segmentation import InputMode, SegmentationTask

__all__ = ["BaseTask", "InputMode", "SegmentationTask"]
