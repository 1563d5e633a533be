"""Confidence maps of image files: pictures, sequences, videos and volumes."""

from cm_lightning.confmap.command import map_files
from cm_lightning.confmap.recording import MapSettings

__all__ = ["MapSettings", "map_files"]
