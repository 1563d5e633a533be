"""Reading cases once: their arrays, and what the probe insonifies in them."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence import ProbeGeometry, ProbeName, find_geometry
from cm_lightning.data.cases import Case, CaseArrays, read_case
from cm_lightning.data.frames import to_frames
from cm_lightning.errors import InputError
from cm_lightning.io import Axes

# Cases that are needed again are held in memory up to this size: all of most sets of frames, some volumes of the calf.
HELD_BYTES = 2**31


@dataclass(frozen=True)
class ReadCase:
    """A case that was read and checked.

    Attributes:
        case: Which case.
        arrays: Its arrays at file resolution.
        geometry: What the probe insonifies in its frames.
    """

    case: Case
    arrays: CaseArrays
    geometry: ProbeGeometry

    @property
    def frames(self) -> int:
        """Number of frames; 1 for an image."""
        shape = self.arrays.image.shape
        return shape[2] if len(shape) == 3 else 1

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        label = self.arrays.label
        return self.arrays.image.nbytes + (0 if label is None else label.nbytes)


class CaseReader:
    """Reads and checks cases.

    The steps from file to network (comparing images, checking, computing maps, resampling) each need a case; who hands
    it to a later step calls :meth:`hold`, so that the file is not read again. Which geometry a case has is found once.

    Args:
        axes: Which file axis is which.
        classes: Value in the label files of every class.
        domain: Which pixels are insonified.
        spacing_mm: Voxel size in mm in file order in place of the files' own, or None.
        held_bytes: Memory that held cases may take; one that does not fit is read again.
    """

    def __init__(
        self,
        axes: Axes,
        classes: dict[str, int],
        domain: ProbeName = "whole",
        spacing_mm: tuple[float, ...] | None = None,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self.axes = axes
        self.classes = classes
        self.domain: ProbeName = domain
        self.spacing_mm = spacing_mm
        self._room = held_bytes
        # By image and label: an image that is predicted may also be a case with a label.
        self._held: dict[tuple[Path, Path | None], ReadCase] = {}
        self._geometries: dict[Path, ProbeGeometry] = {}

    def read(self, case: Case) -> ReadCase:
        """Give a case that is held, which it then is no longer, or read it.

        Args:
            case: Which case.

        Returns:
            Its arrays and geometry.

        Raises:
            MissingInputError: A file is missing.
            InputError: The case is not what :func:`cm_lightning.data.cases.read_case` expects, or is said to be of a
                convex probe and has no fan.
        """
        held = self._held.pop((case.image, case.label), None)
        if held is not None:
            self._room += held.nbytes
            return replace(held, case=case)
        arrays = read_case(case, self.axes, self.classes, self.spacing_mm)
        if case.image not in self._geometries:
            self._geometries[case.image] = image_geometry(arrays.image, self.domain, arrays.spacing, str(case.image))
        return ReadCase(case, arrays, self._geometries[case.image])

    def hold(self, read: ReadCase) -> None:
        """Keep a case in memory for whoever reads it next, if there is room."""
        key = (read.case.image, read.case.label)
        if key not in self._held and read.nbytes <= self._room:
            self._room -= read.nbytes
            self._held[key] = read

    def release(self, keep: Collection[Case] = ()) -> None:
        """Let go of the cases that are held.

        Args:
            keep: All but these.
        """
        kept = {(case.image, case.label) for case in keep}
        for key in self._held.keys() - kept:
            self._room += self._held.pop(key).nbytes

    def __getstate__(self) -> dict[str, Any]:
        """Leave held cases behind: a loader process that is started anew reads its own, instead of a copy of all."""
        room = self._room + sum(read.nbytes for read in self._held.values())
        return {**self.__dict__, "_held": {}, "_room": room}


def image_geometry(
    image: NDArray[np.generic], domain: ProbeName, spacing: tuple[float, ...], name: str = "the image"
) -> ProbeGeometry:
    """Find what the probe insonifies in an image; in a volume, the fan of a convex probe is the same in all frames.

    Args:
        image: ``(depth, lateral[, elevation])``.
        domain: ``whole`` takes every pixel, ``linear`` the rectangle inside black bands, ``convex`` the fan, ``auto``
            the fan where there is one and else the rectangle.
        spacing: Voxel size in the order of the axes; a fan is round only in mm.
        name: Of the image, for the message.

    Returns:
        The geometry.

    Raises:
        InputError: The domain is said to be ``convex`` and there is no fan.
    """
    try:
        return find_geometry(to_frames(image), domain, aspect=spacing[1] / spacing[0])
    except ValueError as error:
        if domain != "convex":
            raise
        raise InputError(
            f"data.domain is 'convex', but the image has no fan ({name}): expected bright pixels between two slanted "
            "edges, and black outside. For a linear probe say 'linear', for images without black surroundings 'whole'."
        ) from error
