"""Which axis of a file is which."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.errors import InputError

AXIS_NAMES = ("depth", "lateral", "elevation")


@dataclass(frozen=True)
class Axes:
    """Which file axis is which, and where the probe is.

    Written as words in the order of the file's axes: ``"lateral depth elevation"`` for a volume whose first axis runs
    along the probe. A minus sign marks an axis that runs backwards: ``"lateral -depth elevation"`` has the probe at the
    end of the second axis. Volumes count their axes as NIfTI and MetaImage do (x, y, z); pictures are ``"depth
    lateral"``, rows first.

    Args:
        text: The axes as words.

    Raises:
        InputError: The words are not a permutation of depth and lateral, or of depth, lateral and elevation.
    """

    text: str

    def __post_init__(self) -> None:
        """Refuse anything that is not a permutation of the axis names."""
        if sorted(self.names) not in (sorted(AXIS_NAMES[:2]), sorted(AXIS_NAMES)):
            raise InputError(
                f"axes must name each of {AXIS_NAMES[:2]} or {AXIS_NAMES} once, in the order of the file's axes, "
                f"found {self.text!r}."
            )

    @property
    def names(self) -> list[str]:
        """Axis names in file order."""
        return [word.lstrip("-") for word in self.text.split()]

    @property
    def order(self) -> list[int]:
        """File axis of depth, lateral and elevation."""
        return [self.names.index(name) for name in AXIS_NAMES[: len(self.names)]]

    @property
    def reversed(self) -> list[int]:
        """Positions in (depth, lateral, elevation) order that run backwards in the file."""
        words = self.text.split()
        return [position for position, axis in enumerate(self.order) if words[axis].startswith("-")]

    def from_file(self, array: NDArray[Any]) -> NDArray[Any]:
        """Bring an array from file order into (depth, lateral, elevation)."""
        return np.flip(np.transpose(array, self.order), tuple(self.reversed))

    def to_file(self, array: NDArray[Any]) -> NDArray[Any]:
        """Bring an array from (depth, lateral, elevation) into file order."""
        return np.transpose(np.flip(array, tuple(self.reversed)), np.argsort(self.order))
