"""A case: one image, its label and whose it is; and what is checked before it is used."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cm_lightning.errors import InputError
from cm_lightning.io import AXIS_NAMES, Axes, FileImage, read_image

Subset = str  # "train", "val" or "test" of a data set's official split


@dataclass(frozen=True)
class Case:
    """One image of one patient.

    Attributes:
        id: Name that is unique in the data set.
        patient: Whose image it is; the unit of splits and statistics.
        image: Image file.
        label: Label file, or None where there is none (prediction).
        subset: Set of the official split, or None where the data set has none.
    """

    id: str
    patient: str
    image: Path
    label: Path | None = None
    subset: Subset | None = None


@dataclass(frozen=True)
class CaseArrays:
    """A case's arrays in (depth, lateral[, elevation]) order at file resolution.

    Attributes:
        image: Intensities.
        label: Class indices (0 background, then the classes in order), or None.
        spacing: Voxel size in ``unit`` in the order of the axes.
        unit: "mm", or "px" where the file knows no spacing.
        file: The image as it lies in its file.
    """

    image: NDArray[np.generic]
    label: NDArray[np.uint8] | None
    spacing: tuple[float, ...]
    unit: str
    file: FileImage


def read_case(case: Case, axes: Axes, classes: dict[str, int], spacing: tuple[float, ...] | None = None) -> CaseArrays:
    """Read a case and check it.

    Args:
        case: What to read.
        axes: Which file axis is which.
        classes: Value in the label file of every class.
        spacing: Voxel size in mm in file order, in place of the file's own.

    Returns:
        Its arrays.

    Raises:
        MissingInputError: A file is missing.
        InputError: The image has the wrong number of axes, is constant or not finite, the label has another shape or
            values that no class has.
    """
    file = read_image(case.image)
    expected = len(axes.names)
    if file.array.ndim != expected:
        raise InputError(
            f"{case.image} has {file.array.ndim} axes (shape {file.array.shape}); expected {expected}: {axes.text!r}."
        )
    image = axes.from_file(file.array)
    if not np.issubdtype(image.dtype, np.integer) and not np.isfinite(image).all():
        raise InputError(f"{case.image} holds NaN or infinite values; expected finite intensities.")
    if image.min() == image.max():
        raise InputError(f"{case.image} is constant ({image.flat[0]}); expected an ultrasound image.")
    label = None if case.label is None else read_label(case.label, case.image, file.array.shape, axes, classes)
    in_file = spacing or file.spacing
    if in_file is not None and len(in_file) != expected:
        raise InputError(f"spacing_mm must have {expected} values, one for each of {axes.text!r}, found {in_file}.")
    return CaseArrays(
        image=image,
        label=label,
        spacing=tuple(in_file[axis] for axis in axes.order) if in_file else (1.0,) * expected,
        unit="mm" if in_file else "px",
        file=file,
    )


def read_label(
    path: Path, image: Path, shape: tuple[int, ...], axes: Axes, classes: dict[str, int]
) -> NDArray[np.uint8]:
    """Read a label file and turn its values into class indices.

    Args:
        path: Label file.
        image: Image file that it labels, for messages.
        shape: Shape of that image in file order.
        axes: Which file axis is which.
        classes: Value in the label file of every class.

    Returns:
        Class indices (0 background, then the classes in order), ``(depth, lateral[, elevation])``.

    Raises:
        MissingInputError: There is no such file.
        InputError: It has another shape than the image, or values that no class has.
    """
    array = read_image(path, is_label=True).array
    if array.shape != shape:
        raise InputError(f"{path} has shape {array.shape}; expected that of its image {image}, {shape}.")
    values = pd.unique(array.ravel(order="K"))
    unknown = sorted(set(values.tolist()) - {0, *classes.values()})
    if unknown:
        raise InputError(
            f"{path} holds the values {unknown}, which no class has; expected 0 for background and "
            f"{', '.join(f'{value} for {name}' for name, value in classes.items())} (data.classes)."
        )
    label = np.zeros(array.shape, dtype=np.uint8)
    for index, value in enumerate(classes.values(), start=1):
        label[array == value] = index
    return axes.from_file(label)


def file_digest(path: Path) -> str:
    """Give the BLAKE2 digest of a file's content, 32 hexadecimal digits; read once as long as the file is the same."""
    about = path.stat()
    return _digest(path.absolute(), about.st_size, about.st_mtime_ns)


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def describe_axes(arrays: CaseArrays) -> str:
    """Say in words what is taken for depth, lateral and elevation, so that a wrong setting is seen."""
    sides = zip(AXIS_NAMES, arrays.image.shape, arrays.spacing, strict=False)
    return ", ".join(f"{name} {size} x {step:.3g} {arrays.unit}" for name, size, step in sides)
