"""Cases, which consist of an image, its label and its patient, and reading and checking of their files."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from lightning_utilities.core.rank_zero import rank_zero_info
from numpy.typing import NDArray

from cm_lightning.data.classes import EXAMPLE, ClassValues, class_indices, label_values, whole_numbers
from cm_lightning.errors import InputError
from cm_lightning.io import AXIS_NAMES, Axes, FileImage, align_label, data_files, read_image

# Set of the official split of a data set: "train", "val" or "test".
Subset = str


@dataclass(frozen=True)
class Case:
    """One image of one patient.

    Attributes:
        id: Unique name in the data set.
        patient: Patient of the image, which is the unit of splits and statistics.
        image: Image file.
        label: Label file, or None for prediction.
        subset: Set of the official split, or None if the data set has none.
    """

    id: str
    patient: str
    image: Path
    label: Path | None = None
    subset: Subset | None = None


@dataclass(frozen=True)
class CaseArrays:
    """Arrays of a case at file resolution.

    Attributes:
        image: Intensities, ``(depth, lateral[, elevation])``.
        label: Class indices (0 for background, then the classes in order, 255 for voxels to ignore), ``(depth,
            lateral[, elevation])``, or None.
        spacing: Voxel size in ``unit`` in the order of the axes.
        unit: "mm", or "px" if the file contains no spacing.
        file: The image with the axes of its file.
    """

    image: NDArray[np.generic]
    label: NDArray[np.uint8] | None
    spacing: tuple[float, ...]
    unit: str
    file: FileImage


def read_case(case: Case, axes: Axes, classes: ClassValues, spacing: tuple[float, ...] | None = None) -> CaseArrays:
    """Read and check a case.

    Args:
        case: The case.
        axes: Axes of the file.
        classes: Value, or values, of every class in the label files.
        spacing: Voxel size in mm in the order of the file axes, which replaces the spacing of the file.

    Returns:
        Arrays of the case.

    Raises:
        MissingInputError: A file does not exist.
        InputError: The image has a wrong number of axes, is constant or is not finite, the label has a wrong shape or
            unknown values, a file cannot be read, or ``spacing`` does not have one value per axis.
    """
    file = read_image(case.image)
    expected = len(axes.names)
    if file.array.ndim != expected:
        raise InputError(
            f"{case.image} has {file.array.ndim} axes (shape {file.array.shape}); expected {expected}: {axes.text!r}."
        )
    image = axes.from_file(file.array)
    check_image(image, str(case.image))
    label = None if case.label is None else read_label(case.label, case.image, file, axes, classes)
    file_spacing = spacing or file.spacing
    if file_spacing is not None and len(file_spacing) != expected:
        raise InputError(
            f"data.spacing_mm must have {expected} values, one for each of {axes.text!r}, found {file_spacing}."
        )
    return CaseArrays(
        image=image,
        label=label,
        spacing=tuple(file_spacing[axis] for axis in axes.order) if file_spacing else (1.0,) * expected,
        unit="mm" if file_spacing else "px",
        file=file,
    )


def check_image(image: NDArray[np.generic], name: str) -> None:
    """Check that an image has finite intensities that are not all equal.

    Args:
        image: Intensities of any shape.
        name: Name of the image, for error messages.

    Raises:
        InputError: The image is complex, not finite, empty or constant.
    """
    if image.size == 0:
        raise InputError(f"{name} has the shape {image.shape}, and thus no pixels; expected an ultrasound image.")
    if np.issubdtype(image.dtype, np.complexfloating):
        raise InputError(f"{name} contains complex numbers; expected real intensities, such as their magnitude.")
    if not np.issubdtype(image.dtype, np.integer) and not np.isfinite(image).all():
        raise InputError(f"{name} contains NaN or infinite values; expected finite intensities.")
    if image.min() == image.max():
        raise InputError(f"{name} is constant ({image.flat[0]}); expected an ultrasound image.")


def read_label(path: Path, image: Path, file: FileImage, axes: Axes, classes: ClassValues) -> NDArray[np.uint8]:
    """Read a label file and convert its values to class indices.

    A label whose axes are stored in another order or direction than those of its image, which the files state by their
    affine matrices, is brought to the grid of the image.

    Args:
        path: Label file.
        image: Corresponding image file, for error messages.
        file: The image with the axes of its file.
        axes: Axes of the file.
        classes: Value, or values, of every class in the label files.

    Returns:
        Class indices (0 for background, then the classes in order, 255 for voxels to ignore), ``(depth, lateral[,
        elevation])``.

    Raises:
        MissingInputError: The file does not exist.
        InputError: The label is on another grid than the image, or contains unknown values.
    """
    read = read_image(path, is_label=True)
    alignment = align_label(read, file, path, image)
    if not alignment.is_identity:
        rank_zero_info(
            f"The axes of {path.name} are stored in another order or direction than those of {image.name}, as both "
            "files state; the label was brought to the grid of the image."
        )
    array = alignment.apply(whole_numbers(read.array, path))
    values = pd.unique(array.ravel(order="K"))
    several = label_values(classes)
    unknown = sorted(set(values.tolist()) - {0}.union(*several.values()))
    if unknown:
        known = ", ".join(f"{' and '.join(map(str, numbers))} for {name}" for name, numbers in several.items())
        raise InputError(
            f"{path} contains the unknown values {unknown}; expected 0 for background and {known} (data.classes). "
            f"Further values can be classes of their own, belong to a class, as in {EXAMPLE}, or be left out, as in "
            f"'{{nerve: 1, ignore: 2}}'."
        )
    label = np.zeros(array.shape, dtype=np.uint8)
    for name, index in class_indices(classes).items():
        for value in several[name]:
            label[array == value] = index
    return axes.from_file(label)


def file_digest(path: Path) -> str:
    """Return the BLAKE2 digest of a file, 32 hexadecimal digits. Files that do not change are read only once.

    If the file is only a header (``.mhd``, ``.nhdr``), the files of its pixels are included.
    """
    digests = []
    for file in [path, *data_files(path)]:
        status = file.stat()
        digests.append(_digest(file.absolute(), status.st_size, status.st_mtime_ns))
    return digests[0] if len(digests) == 1 else hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def describe_axes(arrays: CaseArrays) -> str:
    """Return a text with the sizes in depth, lateral and elevation direction, which reveals wrong settings."""
    sides = zip(AXIS_NAMES, arrays.image.shape, arrays.spacing, strict=False)
    return ", ".join(f"{name} {size} x {step:.3g} {arrays.unit}" for name, size, step in sides)
