"""Confidence maps on the CPU: frames, or the parts of a single large frame, are processed in parallel on all cores."""

from cm_lightning.confidence.cpu.engine import gradient, solve
from cm_lightning.confidence.cpu.memory import bytes_per_frame

__all__ = ["bytes_per_frame", "gradient", "solve"]
