"""Insonified region of frames, with the source at the face of the probe and the sink at the largest depth."""

from cm_lightning.confidence.domain.geometry import (
    FINDER_VERSION,
    ProbeGeometry,
    ProbeName,
    SideName,
    find_geometry,
    find_insonified,
)
from cm_lightning.confidence.domain.rectangle import linear_probe_domain
from cm_lightning.confidence.domain.schema import geometry_from_dict, geometry_to_dict
from cm_lightning.confidence.domain.shapes import (
    DOUBTFUL_SCORE,
    Geometry,
    Insonified,
    MaskRegion,
    Polygon,
    Rectangle,
    Sector,
)
from cm_lightning.confidence.domain.sides import Side

__all__ = [
    "DOUBTFUL_SCORE",
    "FINDER_VERSION",
    "Geometry",
    "Insonified",
    "MaskRegion",
    "Polygon",
    "ProbeGeometry",
    "ProbeName",
    "Rectangle",
    "Sector",
    "Side",
    "SideName",
    "find_geometry",
    "find_insonified",
    "geometry_from_dict",
    "geometry_to_dict",
    "linear_probe_domain",
]
