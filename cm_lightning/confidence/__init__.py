"""Ultrasound confidence maps (Karamalis et al. 2012): arrays in, arrays out."""

from cm_lightning.confidence.domain import column_sink, column_source, linear_probe_domain
from cm_lightning.confidence.solver import ConfidenceMapSolver

__all__ = ["ConfidenceMapSolver", "column_sink", "column_source", "linear_probe_domain"]
