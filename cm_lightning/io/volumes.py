"""From stored pixels and a header to an image, for MetaImage and NRRD."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cm_lightning.errors import InputError
from cm_lightning.io.file_image import FileImage
from cm_lightning.io.geometry_checks import check_geometry, sequence_axes
from cm_lightning.io.grey import label_channel, to_grey
from cm_lightning.io.sequences import frame_rate, orientation_axes

# World coordinates are LPS in ITK and RAS in NIfTI, so the first two axes change their sign.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class VolumeGeometry:
    """Place of a volume in the world.

    Attributes:
        spacing: Voxel size along every space axis, or None if it is unknown.
        directions: Direction of every space axis in the world (LPS), as columns.
        origin: Centre of the first voxel in the world (LPS).
    """

    spacing: tuple[float, ...] | None
    directions: NDArray[np.float64]
    origin: tuple[float, ...]


def volume_image(
    path: Path,
    pixels: NDArray[np.generic],
    colour_axis: int | None,
    geometry: VolumeGeometry,
    tags: Mapping[str, str],
    is_label: bool,
) -> FileImage:
    """Return the image of a volume, or of a sequence of pictures.

    Args:
        path: The file, for error messages.
        pixels: Values in the order of the file, the fastest axis first.
        colour_axis: Axis of the channels of colours; None for single numbers.
        geometry: Place of the volume. There may be fewer axes than those of the file, which are then the first ones.
        tags: Other fields of the header.
        is_label: Whether colours are refused rather than converted to grey.

    Returns:
        The image.

    Raises:
        InputError: The file has unsupported axes or colours, or its place in the world is not valid.
    """
    if colour_axis is not None:
        pixels = _without_colour(path, pixels, colour_axis, is_label)
    shape = pixels.shape
    kept = sequence_axes(path, shape)
    rows, world = (min(3, side) for side in geometry.directions.shape)
    directions, step = np.eye(3), np.ones(3)
    directions[:rows, :world] = geometry.directions[:rows, :world]
    if (rows, world) == (3, 2):  # pictures in space
        directions[:, 2] = np.cross(directions[:, 0], directions[:, 1])
    spacing: tuple[float, ...] | None = None
    if geometry.spacing is not None:
        step[:world] = geometry.spacing[:world]
        # Frames are as far apart as slices, since the distance of the third axis is kept where it is removed.
        sizes = [*geometry.spacing[:3], *[float(step[2])] * max(0, len(shape) - world)]
        spacing = tuple(sizes[axis] for axis in kept)
    affine = np.eye(4)
    affine[:3, :3] = directions * step
    affine[:rows, 3] = geometry.origin[:rows]
    affine = LPS_TO_RAS @ affine
    check_geometry(path, spacing, affine)
    array = pixels.reshape([shape[axis] for axis in kept], order="F")
    frames = array.shape[2] if array.ndim == 3 else 1
    return FileImage(
        array,
        spacing,
        affine,
        axes=orientation_axes(tags, array.ndim),
        frames_per_second=frame_rate(tags, frames),
        tags=tags,
    )


def _without_colour(path: Path, pixels: NDArray[np.generic], axis: int, is_label: bool) -> NDArray[np.generic]:
    # Channels are the fastest axis, and thus the last axis of the transposed array, which is in C order.
    colour = np.moveaxis(pixels, axis, 0).T
    if is_label and 1 <= colour.shape[-1] <= 4:
        return label_channel(path, colour).T
    if colour.shape[-1] not in (1, 3, 4) or colour.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{path} has {colour.shape[-1]} values of type {colour.dtype} per pixel; expected one value, or 3 or 4 "
            "colours of type uint8 or uint16."
        )
    return to_grey(colour).T
