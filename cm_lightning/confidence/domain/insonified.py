"""Masks of the insonified region of frames."""

from dataclasses import dataclass

from cm_lightning.confidence.boundary import BoolArray


@dataclass(frozen=True)
class Insonified:
    """Masks of the insonified region, for :class:`cm_lightning.confidence.ConfidenceMapSolver`. All shapes are equal.

    Attributes:
        domain: Insonified pixels, ``(..., depth, lateral)``.
        source: Insonified pixels at the face of the probe, ``(..., depth, lateral)``.
        sink: Deepest insonified pixels, ``(..., depth, lateral)``.
    """

    domain: BoolArray
    source: BoolArray
    sink: BoolArray
