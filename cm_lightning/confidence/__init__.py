"""Ultrasound confidence maps by random walks (Karamalis et al. 2012), for arrays and tensors."""

from cm_lightning.confidence.boundary import column_sink, column_source
from cm_lightning.confidence.domain import (
    Geometry,
    Insonified,
    MaskRegion,
    Polygon,
    ProbeGeometry,
    ProbeName,
    Rectangle,
    Sector,
    find_geometry,
    find_insonified,
    geometry_from_dict,
    geometry_to_dict,
    linear_probe_domain,
)
from cm_lightning.confidence.problem import SolveInfo
from cm_lightning.confidence.solver import SOLVER_VERSION, ConfidenceMapSolver

__all__ = [
    "SOLVER_VERSION",
    "ConfidenceMapSolver",
    "Geometry",
    "Insonified",
    "MaskRegion",
    "Polygon",
    "ProbeGeometry",
    "ProbeName",
    "Rectangle",
    "Sector",
    "SolveInfo",
    "column_sink",
    "column_source",
    "find_geometry",
    "find_insonified",
    "geometry_from_dict",
    "geometry_to_dict",
    "linear_probe_domain",
]
