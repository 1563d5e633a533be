"""Confidence maps as MONAI transforms."""

from cm_lightning.transforms.confidence import ConfidenceMap, ConfidenceMapd

__all__ = ["ConfidenceMap", "ConfidenceMapd"]
