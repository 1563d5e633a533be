"""Insonified region of frames, with the source at the face of the probe and the sink at the largest depth."""

from cm_lightning.confidence.domain.fan import Fan, find_fan
from cm_lightning.confidence.domain.geometry import ProbeGeometry, ProbeName, find_geometry, find_insonified
from cm_lightning.confidence.domain.insonified import Insonified
from cm_lightning.confidence.domain.rectangle import linear_probe_domain

__all__ = [
    "Fan",
    "Insonified",
    "ProbeGeometry",
    "ProbeName",
    "find_fan",
    "find_geometry",
    "find_insonified",
    "linear_probe_domain",
]
