"""Contents of an image file, with the axes of the file."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence import Geometry
from cm_lightning.errors import InputError
from cm_lightning.io.axes import PICTURE_AXES

# Longest part of an error message of a library that is shown to the user.
MAX_REASON = 200


@dataclass(frozen=True)
class FileImage:
    """Image with the axes of its file.

    Attributes:
        array: Intensities or labels.
        spacing: Voxel size along every file axis in mm, or None if the file contains none. For successive frames whose
            distance is unknown, it is 1.
        affine: Affine matrix from voxel to world coordinates (RAS, in mm), ``(4, 4)``; the identity if the file
            contains none.
        axes: What the file says about its axes, in the notation of :class:`cm_lightning.io.Axes`, where elevation also
            stands for the successive frames of a sequence; None if it does not say.
        frames_per_second: Frame rate of a sequence; None if it is unknown.
        region: Insonified region that the file states, in pixels of the frames; None if it does not.
        tags: Metadata that a copy of the file should keep, such as the fields of every frame of a tracked sequence.
        rows_first: Whether the first two axes of the array are the rows and columns of a picture, as in pictures,
            videos and DICOM files, rather than x and y, as in volumes.
    """

    array: NDArray[np.generic]
    spacing: tuple[float, ...] | None
    affine: NDArray[np.float64]
    axes: str | None = None
    frames_per_second: float | None = None
    region: Geometry | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    rows_first: bool = False


def without_values(file: FileImage) -> FileImage:
    """Return an image with the same geometry and metadata, whose array is 0 everywhere and takes no memory."""
    return replace(file, array=np.broadcast_to(np.zeros((), file.array.dtype), file.array.shape))


def picture_image(
    array: NDArray[np.generic],
    spacing: tuple[float, float] | None = None,
    frame_distance: float = 1.0,
    frames_per_second: float | None = None,
    region: Geometry | None = None,
) -> FileImage:
    """Return the image of a file whose frames are pictures.

    Args:
        array: Grey values, ``(rows, columns[, frames])``.
        spacing: Height and width of a pixel in mm, or None if they are unknown.
        frame_distance: Distance of successive frames in mm.
        frames_per_second: Frame rate, or None if it is unknown.
        region: Insonified region in pixels, or None if it is unknown.

    Returns:
        The image. Its world has its origin at the first pixel, x along the rows and y along the columns (LPS).
    """
    affine = np.eye(4)
    sizes: tuple[float, ...] | None = None
    if spacing is not None:
        sizes = (*spacing, frame_distance)[: array.ndim]
        affine[:2, :2] = [[0, -spacing[1]], [-spacing[0], 0]]
        affine[2, 2] = frame_distance
    return FileImage(array, sizes, affine, PICTURE_AXES[array.ndim], frames_per_second, region, rows_first=True)


@contextmanager
def library_errors(path: Path, expected: str) -> Iterator[None]:
    """Turn any error of a library that reads or writes a file into a sentence for the user.

    The libraries raise many types of errors for damaged files, from ``struct.error`` to ``AssertionError``, and do not
    document them.

    Args:
        path: The file.
        expected: What the file should be, for example "a NIfTI file".

    Raises:
        InputError: An error of another type occurred.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read as {expected}: {_first_sentence(error)}.") from error


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # SimpleITK begins with the place in its source code, and the operating system with a number.
    line = lines[-1] if lines[0].startswith("Exception thrown in SimpleITK") else lines[0]
    sentence = re.sub(r"^\[Errno -?\d+\] ", "", line).split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= MAX_REASON else sentence[: MAX_REASON - 3] + "..."
