"""Synthetic screens of ultrasound scanners, from which the network learns to find the insonified region."""

from cm_lightning.data.screens.screen import Screen, draw_screen
from cm_lightning.data.screens.tissue import TissueTextures

__all__ = ["Screen", "TissueTextures", "draw_screen"]
