"""The masks that tell a solver what a probe insonified."""

from dataclasses import dataclass

from cm_lightning.confidence.boundary import BoolArray


@dataclass(frozen=True)
class Insonified:
    """Masks of frames, for :class:`cm_lightning.confidence.ConfidenceMapSolver`.

    Attributes:
        domain: Insonified pixels.
        source: Those at the probe's face.
        sink: The deepest ones.
    """

    domain: BoolArray
    source: BoolArray
    sink: BoolArray
