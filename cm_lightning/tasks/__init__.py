"""Tasks: training, validation, testing and prediction of networks."""

from cm_lightning.tasks.base import BaseTask
from cm_lightning.tasks.deep_atlas import DeepAtlasTask
from cm_lightning.tasks.segmentation import SegmentationTask

__all__ = ["BaseTask", "DeepAtlasTask", "SegmentationTask"]
