"""Confidence maps in any MONAI pipeline."""

from cm_lightning.transforms.confidence import ConfidenceMap, ConfidenceMapd

__all__ = ["ConfidenceMap", "ConfidenceMapd"]
