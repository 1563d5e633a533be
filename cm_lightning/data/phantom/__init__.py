"""Synthetic ultrasound volumes whose truth is known."""

from cm_lightning.data.phantom.raters import RaterModel
from cm_lightning.data.phantom.writer import Phantom

__all__ = ["Phantom", "RaterModel"]
