"""Which pixels of a frame are insonified, and which of them lie at the probe and at the far end."""

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
