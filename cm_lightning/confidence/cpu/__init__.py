"""Confidence maps on the CPU: frames are solved in parallel on all cores, each by compiled single-threaded code."""

from cm_lightning.confidence.cpu.engine import gradient, solve
from cm_lightning.confidence.cpu.memory import bytes_per_frame

__all__ = ["bytes_per_frame", "gradient", "solve"]
