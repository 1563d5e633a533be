"""Labels on the grid of their image, compared by the geometry that both files state."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cm_lightning.errors import InputError
from cm_lightning.io.file_image import FileImage

# Largest distance in voxels between corresponding voxels, which is due to rounding in the headers.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Alignment:
    """How the array of a label becomes one on the grid of its image.

    Attributes:
        order: Axis of the label that is each axis of the image.
        reversed: Axes of the image along which the label is reversed.
    """

    order: tuple[int, ...]
    reversed: tuple[int, ...]

    @property
    def is_identity(self) -> bool:
        """Whether the arrays lie on each other as they are."""
        return self.order == tuple(range(len(self.order))) and not self.reversed

    def apply(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the array of the label on the grid of the image."""
        return np.flip(np.transpose(array, self.order), self.reversed)


def align_label(label: FileImage, image: FileImage, label_path: Path, image_path: Path) -> Alignment:
    """Find how a label lies on its image.

    Programs store the axes of a volume in different orders and directions, and say so by the affine matrix. If a file
    states no place in the world, the arrays are taken as they are.

    Args:
        label: The label.
        image: The image.
        label_path: File of the label, for error messages.
        image_path: File of the image, for error messages.

    Returns:
        The alignment.

    Raises:
        InputError: The shapes differ, or the label is on another grid.
    """
    number = image.array.ndim
    if label.array.ndim != number:
        raise _wrong_shape(label, image, label_path, image_path)
    alignment = Alignment(tuple(range(number)), ())
    if _states_place(label) and _states_place(image):
        # Corner voxels of the label, and their positions on the grid of the image.
        last = np.array(label.array.shape) - 1
        corners = np.array(list(np.ndindex((2,) * number))) * last
        world = corners @ label.affine[:3, :number].T + label.affine[:3, 3]
        steps = image.affine[:3, :number]
        positions = (world - image.affine[:3, 3]) @ np.linalg.pinv(steps).T
        off_plane = np.linalg.norm(positions @ steps.T + image.affine[:3, 3] - world, axis=1).max()
        alignment = _nearest_alignment(label, image)
        expected = np.empty_like(positions)
        for axis, source in enumerate(alignment.order):
            length = last[source]
            expected[:, axis] = length - corners[:, source] if axis in alignment.reversed else corners[:, source]
        distance = max(
            float(np.abs(positions - expected).max()), float(off_plane / np.linalg.norm(steps, axis=0).min())
        )
        if distance > TOLERANCE:
            raise InputError(
                f"{label_path} is on another grid than its image {image_path}: corresponding voxels are up to "
                f"{distance:.3g} voxels apart (voxel sizes {_sizes(label)} and {_sizes(image)}); expected the same "
                "origin, voxel size and orientation."
            )
    aligned_shape = tuple(label.array.shape[source] for source in alignment.order)
    if aligned_shape != image.array.shape:
        raise _wrong_shape(label, image, label_path, image_path)
    return alignment


def _nearest_alignment(label: FileImage, image: FileImage) -> Alignment:
    """Return the order and the directions of axes that fit best."""
    number = image.array.ndim
    directions = [
        item.affine[:3, :number] / np.linalg.norm(item.affine[:3, :number], axis=0) for item in (image, label)
    ]
    cosines = directions[0].T @ directions[1]
    order: list[int] = []
    for axis in range(number):
        free = [source for source in range(number) if source not in order]
        order.append(max(free, key=lambda source: abs(cosines[axis, source])))
    return Alignment(tuple(order), tuple(axis for axis in range(number) if cosines[axis, order[axis]] < 0))


def _states_place(item: FileImage) -> bool:
    """Return whether a file states a place in the world. Many programs write the identity for labels without one.

    The identity of MetaImage and NRRD files (LPS) is not that of NIfTI files (RAS).
    """
    return not any(np.array_equal(item.affine, np.diag([sign, sign, 1.0, 1.0])) for sign in (1.0, -1.0))


def _sizes(item: FileImage) -> str:
    sizes = np.linalg.norm(item.affine[:3, : item.array.ndim], axis=0)
    return " x ".join(f"{size:.4g}" for size in sizes)


def _wrong_shape(label: FileImage, image: FileImage, label_path: Path, image_path: Path) -> InputError:
    return InputError(
        f"{label_path} has the shape {label.array.shape}; expected {image.array.shape}, the shape of its image "
        f"{image_path}."
    )
