"""Losses by name, with and without confidence."""

from cm_lightning.losses.confidence import ConfidenceCrossEntropy
from cm_lightning.losses.segmentation import LossName, SegmentationLoss

__all__ = ["ConfidenceCrossEntropy", "LossName", "SegmentationLoss"]
