"""Segmentation and registration networks, their dropout layers and pretrained weights."""

from cm_lightning.models.dropout import dropout_layers
from cm_lightning.models.networks import NetworkName, count_parameters, create_network
from cm_lightning.models.pretrained import load_pretrained
from cm_lightning.models.registration import create_registration_network

__all__ = [
    "NetworkName",
    "count_parameters",
    "create_network",
    "create_registration_network",
    "dropout_layers",
    "load_pretrained",
]
