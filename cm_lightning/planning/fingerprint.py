"""Fingerprint of a data set: the sizes of its images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from cm_lightning.data.cases import Case
from cm_lightning.errors import InputError
from cm_lightning.io import Axes, read_image


@dataclass(frozen=True)
class Fingerprint:
    """Sizes of the images of a data set.

    Attributes:
        shape: Median number of voxels along every axis, ``(depth, lateral[, elevation])``.
        spacing: Median voxel size along every axis, in ``unit``.
        unit: "mm", or "px" if the files state no voxel size.
        cases: Number of cases.
    """

    shape: tuple[float, ...]
    spacing: tuple[float, ...]
    unit: str
    cases: int

    @classmethod
    def from_sizes(cls, shapes: Sequence[Sequence[int]], spacings: Sequence[Sequence[float] | None]) -> Self:
        """Compute the medians of sizes.

        Args:
            shapes: Shape of every image, ``(depth, lateral[, elevation])``.
            spacings: Voxel size of every image, or None where it is unknown.

        Returns:
            The fingerprint.
        """
        known = [spacing for spacing in spacings if spacing is not None]
        shape = np.median(np.asarray(shapes, dtype=float), axis=0).tolist()
        spacing = np.median(np.asarray(known, dtype=float), axis=0).tolist() if known else [1.0] * len(shape)
        return cls(tuple(shape), tuple(spacing), "mm" if known else "px", len(shapes))

    def resampled(self, spacing: Sequence[float]) -> Self:
        """Return the fingerprint of the same images with another voxel size.

        Args:
            spacing: Voxel size along every axis.

        Returns:
            The fingerprint.
        """
        sides = zip(self.shape, self.spacing, spacing, strict=True)
        return replace(self, shape=tuple(side * old / new for side, old, new in sides), spacing=tuple(spacing))

    @property
    def dims(self) -> int:
        """Number of spatial dimensions."""
        return len(self.shape)


def read_fingerprint(cases: Sequence[Case], axes: Axes, spacing_mm: Sequence[float] | None = None) -> Fingerprint:
    """Read the sizes of all images of a data set.

    Args:
        cases: The cases.
        axes: Axes of the files.
        spacing_mm: Voxel size in mm in the order of the file axes, which replaces that of the files.

    Returns:
        The fingerprint.

    Raises:
        InputError: An image cannot be read, or has another number of axes.
    """
    shapes, spacings = [], []
    for case in cases:
        file = read_image(case.image)
        if file.array.ndim != len(axes.order):
            raise InputError(
                f"{case.image} has {file.array.ndim} axes (shape {file.array.shape}); expected {axes.text!r} "
                "(data.axes)."
            )
        spacing = spacing_mm or file.spacing
        shapes.append([file.array.shape[axis] for axis in axes.order])
        spacings.append(None if spacing is None else [spacing[axis] for axis in axes.order])
    return Fingerprint.from_sizes(shapes, spacings)
