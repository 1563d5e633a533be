"""Segmentation networks by name."""

from cm_lightning.models.networks import NetworkName, create_network

__all__ = ["NetworkName", "create_network"]
