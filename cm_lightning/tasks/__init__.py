"""Tasks: what is trained, and how it is validated, tested and used."""

from cm_lightning.tasks.base import BaseTask
from cm_lightning.tasks.deep_atlas import DeepAtlasTask
from cm_lightning.tasks.segmentation import SegmentationTask

__all__ = ["BaseTask", "DeepAtlasTask", "SegmentationTask"]
