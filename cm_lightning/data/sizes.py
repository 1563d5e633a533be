"""Sizes of the grid of a network for images of given sizes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cm_lightning.data.layouts import LAYOUTS, LayoutName
from cm_lightning.io import Axes, read_image

# Longest side and number of voxels of the grid of a first network, by the number of dimensions.
MAX_SIDE = {2: 192, 3: 128}
MAX_VOXELS = {2: 192 * 192, 3: 96**3}


def choose_size(
    shape: Sequence[float], spacing: Sequence[float], factor: int = 16, longest: int | None = None
) -> list[int]:
    """Choose the grid of a network that keeps the aspect ratio in mm, as far as images have enough voxels.

    Args:
        shape: Number of voxels of an image along every axis.
        spacing: Voxel size along every axis.
        factor: Every side is a multiple of this number, and at least twice it.
        longest: Largest number of voxels of a side; by default, the limits of a first network.

    Returns:
        Number of voxels along every axis.
    """
    voxels = MAX_VOXELS[len(shape)] if longest is None else longest ** len(shape)
    longest = MAX_SIDE[len(shape)] if longest is None else longest
    extents, step = np.asarray(shape, float) * spacing, float(min(spacing))
    sides = np.minimum(extents / step, shape)
    while sides.max() > longest or sides.prod() > voxels:
        step *= 1.01
        sides = np.minimum(extents / step, shape)
    limit = longest // factor * factor
    return [int(np.clip(round(side / factor) * factor, 2 * factor, limit)) for side in sides]


def missing_size(root: Path, layout: LayoutName, axes: Axes) -> str:
    """Return the error message for a configuration without sizes, with a proposal for the first image of the data.

    Args:
        root: Folder of the data set, which does not have to exist yet.
        layout: Folder layout of the data set.
        axes: Axes of the files.

    Returns:
        A sentence.

    Raises:
        InputError: The first image cannot be read.
    """
    proposal = ""
    first = next(LAYOUTS[layout].find(root), None) if root.is_dir() else None
    if first is not None:
        file = read_image(first.image)
        if file.array.ndim == len(axes.order):
            shape = [file.array.shape[axis] for axis in axes.order]
            spacing = [1.0 if file.spacing is None else file.spacing[axis] for axis in axes.order]
            pixels = " x ".join(map(str, shape))
            proposal = (
                f", for example --data.spatial_size {choose_size(shape, spacing)} for images such as "
                f"{first.image.name} of {pixels} pixels"
            )
    return (
        "Neither data.spatial_size (for whole images) nor data.patch_size (for patches) is set; expected one of "
        f"them{proposal}."
    )
