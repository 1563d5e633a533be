"""Ultrasound confidence maps by random walks (Karamalis et al. 2012), for arrays and tensors."""

from cm_lightning.confidence.boundary import column_sink, column_source
from cm_lightning.confidence.domain import (
    Fan,
    Insonified,
    ProbeGeometry,
    ProbeName,
    find_fan,
    find_geometry,
    find_insonified,
    linear_probe_domain,
)
from cm_lightning.confidence.problem import SolveInfo
from cm_lightning.confidence.solver import SOLVER_VERSION, ConfidenceMapSolver

__all__ = [
    "SOLVER_VERSION",
    "ConfidenceMapSolver",
    "Fan",
    "Insonified",
    "ProbeGeometry",
    "ProbeName",
    "SolveInfo",
    "column_sink",
    "column_source",
    "find_fan",
    "find_geometry",
    "find_insonified",
    "linear_probe_domain",
]
