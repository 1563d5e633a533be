"""Meaning of the axes of a file."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.errors import InputError

AXIS_NAMES = ("depth", "lateral", "elevation")
# Axes of files that do not state theirs, by their number. Arrays of pictures begin with rows, those of volumes with x.
PICTURE_AXES = {2: "depth lateral", 3: "depth lateral elevation"}
VOLUME_AXES = {2: "lateral depth", 3: "lateral depth elevation"}


@dataclass(frozen=True)
class Axes:
    """Names and directions of the axes of a file.

    The names are listed in the order of the file axes, for example ``"lateral depth elevation"`` for a volume whose
    first axis is parallel to the face of the probe. A minus sign means that the axis is reversed: for ``"lateral -depth
    elevation"``, the probe is at the end of the second axis. The order of axes in volumes is that of NIfTI and
    MetaImage (x, y, z). 2D images are ``"depth lateral"``, with rows first.

    Args:
        text: Names of the axes, separated by spaces.

    Raises:
        InputError: The names are not a permutation of depth and lateral, or of depth, lateral and elevation.
    """

    text: str

    def __post_init__(self) -> None:
        """Check the names."""
        if sorted(self.names) not in (sorted(AXIS_NAMES[:2]), sorted(AXIS_NAMES)):
            raise InputError(
                f"axes must name each of {AXIS_NAMES[:2]} or {AXIS_NAMES} once, in the order of the file's axes, "
                f"found {self.text!r}."
            )

    @property
    def names(self) -> list[str]:
        """Names of the file axes in order, without signs."""
        return [word.lstrip("-") for word in self.text.split()]

    @property
    def order(self) -> list[int]:
        """Index of the file axis that is depth, lateral and (in volumes) elevation, in this order."""
        return [self.names.index(name) for name in AXIS_NAMES[: len(self.names)]]

    @property
    def reversed(self) -> list[int]:
        """Indices in the order (depth, lateral, elevation) of the axes that are reversed in the file."""
        words = self.text.split()
        return [position for position, axis in enumerate(self.order) if words[axis].startswith("-")]

    def from_file(self, array: NDArray[Any]) -> NDArray[Any]:
        """Convert an array from the file axes to ``(depth, lateral[, elevation])``."""
        return np.flip(np.transpose(array, self.order), tuple(self.reversed))

    def to_file(self, array: NDArray[Any]) -> NDArray[Any]:
        """Convert an array from ``(depth, lateral[, elevation])`` to the file axes."""
        return np.transpose(np.flip(array, tuple(self.reversed)), np.argsort(self.order))
