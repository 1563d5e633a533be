"""Reader that reads every case only once, with its arrays and the geometry of its insonified region."""

import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence import ProbeGeometry, ProbeName, find_geometry
from cm_lightning.data.cases import Case, CaseArrays, read_case
from cm_lightning.data.classes import ClassValues
from cm_lightning.data.frames import to_frames
from cm_lightning.errors import InputError
from cm_lightning.io import Axes, FileImage, read_image
from cm_lightning.io.file_image import without_values
from cm_lightning.io.geometry import geometry_of_frames

# Maximum memory in bytes of cases that are kept for later steps. Most sets of 2D frames fit, but not all volumes of the
# calf.
MAX_CACHE_BYTES = 2**31


@dataclass(frozen=True)
class ReadCase:
    """Case that was read and checked.

    Attributes:
        case: The case.
        arrays: Arrays at file resolution.
        geometry: Geometry of the insonified region.
    """

    case: Case
    arrays: CaseArrays
    geometry: ProbeGeometry

    @property
    def frames(self) -> int:
        """Number of frames; 1 for a 2D image."""
        shape = self.arrays.image.shape
        return shape[2] if len(shape) == 3 else 1

    @property
    def nbytes(self) -> int:
        """Memory of the arrays in bytes."""
        label = self.arrays.label
        return self.arrays.image.nbytes + (0 if label is None else label.nbytes)


class CaseReader:
    """Reader of cases that can keep them in memory.

    Several steps need a case: comparison of images, checks, computation of maps, and resampling. Each step can call
    :meth:`keep_in_memory` for the next one, so that files are read only once. The geometry of a case is also determined
    only once.

    Args:
        axes: Axes of the files.
        classes: Value, or values, of every class in the label files.
        domain: Kind of the insonified region, or a geometry file.
        spacing_mm: Voxel size in mm in the order of the file axes, which replaces the spacing of the files, or None.
        max_cache_bytes: Maximum memory of kept cases in bytes. Cases that do not fit are read again.
    """

    def __init__(
        self,
        axes: Axes,
        classes: ClassValues,
        domain: ProbeName | Path = "whole",
        spacing_mm: tuple[float, ...] | None = None,
        max_cache_bytes: int = MAX_CACHE_BYTES,
    ) -> None:
        self.axes = axes
        self.classes = classes
        self.domain: ProbeName | Path = domain
        self.spacing_mm = spacing_mm
        self._free_bytes = max_cache_bytes
        # Cases are identified by image and label, since an image may also be predicted without its label.
        self._kept: dict[tuple[Path, Path | None], ReadCase] = {}
        self._geometries: dict[Path, ProbeGeometry] = {}
        self._templates: dict[Path, FileImage] = {}

    def read(self, case: Case) -> ReadCase:
        """Return a case and release it if it is kept in memory, or read it otherwise.

        Args:
            case: The case.

        Returns:
            The case with its arrays and geometry.

        Raises:
            MissingInputError: A file does not exist.
            InputError: The case is invalid (see :func:`cm_lightning.data.cases.read_case`), or contains no fan although
                the domain is ``convex``.
        """
        kept_case = self._kept.pop((case.image, case.label), None)
        if kept_case is not None:
            self._free_bytes += kept_case.nbytes
            return replace(kept_case, case=case)
        arrays = read_case(case, self.axes, self.classes, self.spacing_mm)
        if case.image not in self._geometries:
            self._geometries[case.image] = self._find_geometry(case, arrays)
            self._templates[case.image] = without_values(arrays.file)
        return ReadCase(case, arrays, self._geometries[case.image])

    def _find_geometry(self, case: Case, arrays: CaseArrays) -> ProbeGeometry:
        if isinstance(self.domain, Path):
            shape = (arrays.image.shape[0], arrays.image.shape[1])
            return ProbeGeometry("shape", geometry_of_frames(self.domain, self.axes, shape))
        return image_geometry(arrays.image, self.domain, arrays.spacing, str(case.image))

    def template(self, case: Case) -> FileImage:
        """Return the image file of a case without its intensities, as a template for files of results.

        Args:
            case: The case.

        Returns:
            The image, whose array has the right shape, but is 0 everywhere and takes no memory.
        """
        if case.image not in self._templates:
            self._templates[case.image] = without_values(read_image(case.image))
        return self._templates[case.image]

    def keep_in_memory(self, read: ReadCase) -> None:
        """Keep a case in memory until its next read, if it fits into the remaining memory budget.

        Args:
            read: The case with its arrays and geometry, as returned by :meth:`read`.
        """
        key = (read.case.image, read.case.label)
        if key not in self._kept and read.nbytes <= self._free_bytes:
            self._free_bytes -= read.nbytes
            self._kept[key] = read

    def release(self, keep: Collection[Case] = ()) -> None:
        """Release kept cases.

        Args:
            keep: Cases that are not released.
        """
        keys_to_keep = {(case.image, case.label) for case in keep}
        for key in self._kept.keys() - keys_to_keep:
            self._free_bytes += self._kept.pop(key).nbytes

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without kept cases, so that they are not copied to worker processes."""
        free_bytes = self._free_bytes + sum(read.nbytes for read in self._kept.values())
        return {**self.__dict__, "_kept": {}, "_free_bytes": free_bytes}


def image_geometry(
    image: NDArray[np.generic], domain: ProbeName, spacing: tuple[float, ...], name: str = "the image"
) -> ProbeGeometry:
    """Find the geometry of the insonified region of an image. The fan is the same in all frames of a volume.

    Args:
        image: Image, ``(depth, lateral[, elevation])``.
        domain: ``whole`` image, rectangle of a ``linear`` probe inside a black background, fan of a ``convex`` probe
            before a black background, or ``auto`` for the region of any screen.
        spacing: Voxel size in mm in the order of the axes, which is needed for the shape of a fan.
        name: Name of the image, for error messages.

    Returns:
        The geometry.

    Raises:
        InputError: The domain is ``convex``, but there is no fan.
    """
    try:
        # The first row is nearest to the probe in all images; see the option data.axes.
        geometry = find_geometry(to_frames(image), domain, aspect=spacing[1] / spacing[0], up="top")
    except ValueError as error:
        if domain != "convex":
            raise
        raise InputError(
            f"data.domain is 'convex', but there is no fan in {name}; expected bright pixels between two slanted edges "
            "and a black background. Use 'auto' for other screens, 'linear' for a linear probe, or 'whole' for images "
            "without a background."
        ) from error
    if geometry.warning is not None:
        warnings.warn(f"{name}: {geometry.warning}", UserWarning, stacklevel=2)
    return geometry
