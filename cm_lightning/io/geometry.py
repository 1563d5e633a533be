"""Files with the insonified region of the frames of a scanner: numbers, a mask, or a DICOM file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from cm_lightning.confidence import Geometry, MaskRegion, Rectangle, geometry_from_dict, geometry_to_dict
from cm_lightning.confidence.domain.shapes import place_geometry
from cm_lightning.config_files import read_json
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.io.axes import Axes
from cm_lightning.io.dicom import dicom_region, read_dicom_header
from cm_lightning.io.formats import DICOM_SUFFIXES, PICTURE_SUFFIXES, VOLUME_SUFFIXES, is_dicom, is_image
from cm_lightning.io.images import read_image
from cm_lightning.writing import write_text

# Largest relative difference between the aspect ratios of two frames that have the same geometry at different sizes.
MAX_ASPECT_DIFFERENCE = 0.01
MASK_SUFFIXES = PICTURE_SUFFIXES + VOLUME_SUFFIXES


def read_geometry(path: Path, shape: tuple[int, int]) -> Geometry:
    """Read the insonified region of frames from a file.

    Args:
        path: JSON file with numbers (see :func:`cm_lightning.confidence.geometry_from_dict`), which may contain the
            ``shape`` of the frames for which they hold; an image in which insonified pixels are not 0; or a DICOM file,
            whose first ultrasound region of tissue is used.
        shape: Shape of the frames, ``(rows, columns)``. A region for another size with the same aspect ratio is scaled.

    Returns:
        Geometry in pixels of the frames.

    Raises:
        MissingInputError: The file does not exist.
        InputError: The file cannot be read, is not valid, or holds for frames of another aspect ratio.
    """
    if not path.is_file():
        raise MissingInputError(f"The geometry file {path} does not exist.")
    if path.suffix.lower() == ".json":
        geometry, measured = _read_numbers(path)
    elif is_dicom(path):
        geometry, measured = _read_dicom(path)
    elif is_image(path):
        geometry, measured = _read_mask(path)
    else:
        raise InputError(
            f"The format of the geometry file {path} is not supported; expected .json, {', '.join(DICOM_SUFFIXES)}, or "
            f"a mask ({', '.join(MASK_SUFFIXES)})."
        )
    if measured is not None and measured != shape:
        if abs(np.log(measured[0] * shape[1] / (measured[1] * shape[0]))) > MAX_ASPECT_DIFFERENCE:
            raise InputError(
                f"The geometry file {path} holds for frames of {measured[0]} x {measured[1]} pixels, but the frames "
                f"have {shape[0]} x {shape[1]} pixels, which is a different aspect ratio."
            )
        geometry = geometry.on_grid(measured, shape)
    if not geometry.masks(shape).domain.any():
        raise InputError(
            f"The region of the geometry file {path} lies outside frames of {shape[0]} x {shape[1]} pixels."
        )
    return geometry


def geometry_of_frames(path: Path, axes: Axes, shape: tuple[int, int]) -> Geometry:
    """Read the insonified region from a geometry file, which describes the frames as they are stored.

    Args:
        path: Geometry file; see :func:`cm_lightning.io.read_geometry`.
        axes: Axes of the files.
        shape: Number of pixels in depth and lateral direction.

    Returns:
        Geometry in frames with the probe at the first row.

    Raises:
        InputError: The file is not valid, or the probe is not at the first row.
    """
    geometry = read_geometry(path, shape)
    if isinstance(geometry, MaskRegion):
        return MaskRegion(
            np.ascontiguousarray(np.flip(geometry.mask, tuple(axis for axis in axes.reversed if axis < 2)))
        )
    if 0 in axes.reversed:
        geometry = place_geometry(geometry, "bottom", shape, (0, 0))
        if isinstance(geometry, Rectangle):
            geometry = replace(geometry, up="top")
    if 1 in axes.reversed:
        raise InputError(
            f"axes ({axes.text!r}) reverses the lateral axis, which the geometry file {path} does not support; "
            "use a mask image instead."
        )
    if geometry.up != "top":
        raise InputError(
            f"According to the geometry file {path}, the probe is not at the first row of the frames "
            f"(axes is {axes.text!r}); change axes so that depth starts at the probe."
        )
    return geometry


def write_geometry(path: Path, geometry: Geometry, shape: tuple[int, int]) -> None:
    """Write a rectangle, sector or polygon to a JSON file.

    Args:
        path: File to write.
        geometry: The geometry.
        shape: Shape of the frames for which it holds, ``(rows, columns)``.

    Raises:
        ValueError: The geometry is a mask.
    """
    write_text(path, json.dumps({**geometry_to_dict(geometry), "shape": list(shape)}, indent=2) + "\n")


def _read_numbers(path: Path) -> tuple[Geometry, tuple[int, int] | None]:
    values = read_json(path)
    try:
        if not isinstance(values, dict):
            raise ValueError(f"Expected an object with a 'kind', found {type(values).__name__}.")
        measured = values.pop("shape", None)
        if measured is not None:
            is_shape = isinstance(measured, list) and len(measured) == 2
            if not is_shape or not all(type(side) is int and side > 0 for side in measured):
                raise ValueError(f"'shape' must be two positive whole numbers [rows, columns], found {measured!r}.")
            measured = (measured[0], measured[1])
        return geometry_from_dict(values), measured
    except ValueError as error:
        raise InputError(f"The geometry file {path} is not valid: {error}") from error


def _read_mask(path: Path) -> tuple[Geometry, tuple[int, int]]:
    mask = read_image(path, is_label=True).array != 0
    if mask.ndim != 2 or not mask.any():
        raise InputError(
            f"The mask {path} must be a 2D image with at least one pixel that is not 0, found the shape {mask.shape} "
            f"with {np.count_nonzero(mask)} such pixels."
        )
    return MaskRegion(mask), (mask.shape[0], mask.shape[1])


def _read_dicom(path: Path) -> tuple[Geometry, tuple[int, int]]:
    region = dicom_region(read_dicom_header(path))
    if region is None:
        raise InputError(f"The DICOM file {path} has no two-dimensional ultrasound region of tissue.")
    return region
