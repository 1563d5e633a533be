"""Segmentation losses with and without confidence, and registration losses."""

from cm_lightning.losses.confidence import ConfidenceCrossEntropy, Remainder, Target
from cm_lightning.losses.registration import ImageSimilarity, anatomy_loss, bending_energy
from cm_lightning.losses.segmentation import LossName, SegmentationLoss

__all__ = [
    "ConfidenceCrossEntropy",
    "ImageSimilarity",
    "LossName",
    "Remainder",
    "SegmentationLoss",
    "Target",
    "anatomy_loss",
    "bending_energy",
]
