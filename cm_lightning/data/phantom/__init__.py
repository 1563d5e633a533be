"""Synthetic ultrasound volumes with known ground truth."""

from cm_lightning.data.phantom.raters import RaterModel
from cm_lightning.data.phantom.writer import Phantom

__all__ = ["Phantom", "RaterModel"]
