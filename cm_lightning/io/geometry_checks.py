"""Checks that volumes of all formats share: their axes and their place in the world."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cm_lightning.errors import InputError


def sequence_axes(path: Path, shape: tuple[int, ...]) -> list[int]:
    """Return the axes of a file that an array keeps.

    Args:
        path: The file, for the error message.
        shape: Number of voxels along every axis of the file.

    Returns:
        Indices of two or three axes. All axes of files with two or three axes are kept; otherwise, those with one voxel
        are removed, beginning with the third one.

    Raises:
        InputError: An axis is empty, or fewer than two or more than three axes remain.
    """
    kept = list(range(len(shape)))
    for axis in [axis for axis in range(2, len(shape)) if shape[axis] == 1]:
        if len(kept) > 3:
            kept.remove(axis)
    sizes = " x ".join(str(side) for side in shape)
    if not 2 <= len(kept) <= 3:
        raise InputError(
            f"{path} has {len(shape)} axes ({sizes}); expected a picture, a volume, or a sequence of pictures. "
            "Sequences of volumes must be split into volumes."
        )
    if min(shape) < 1:
        raise InputError(f"{path} has {sizes} voxels; expected at least one voxel along every axis.")
    return kept


def check_geometry(path: Path, spacing: tuple[float, ...] | None, affine: NDArray[np.float64]) -> None:
    """Check voxel size and affine matrix.

    Args:
        path: The file, for the error message.
        spacing: Voxel size in mm along every axis, or None.
        affine: Affine matrix from voxel to world coordinates, ``(4, 4)``.

    Raises:
        InputError: The voxel size is not positive, or the affine is not finite and invertible.
    """
    if spacing is not None and not all(np.isfinite(step) and step > 0 for step in spacing):
        raise InputError(
            f"{path} has a voxel size of {' x '.join(f'{step:g}' for step in spacing)} mm; expected positive numbers."
        )
    linear = affine[:3, :3]
    if not np.isfinite(affine).all() or abs(np.linalg.det(linear / max(np.abs(linear).max(), 1e-300))) < 1e-12:
        raise InputError(
            f"{path} has the direction matrix {np.round(linear, 6).tolist()} and the origin {affine[:3, 3].tolist()}; "
            "expected finite numbers, and three different directions."
        )
