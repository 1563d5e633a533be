"""Reading and writing of image files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from PIL import Image

from cm_lightning.confidence import Geometry
from cm_lightning.errors import InputError, MissingInputError

PICTURE_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
SUFFIXES = VOLUME_SUFFIXES + PICTURE_SUFFIXES


@dataclass(frozen=True)
class FileImage:
    """Image with the axes of its file.

    Attributes:
        array: Intensities or labels.
        spacing: Voxel size along every file axis in mm, or None if the file contains none.
        affine: Affine matrix from voxel to world coordinates (RAS, in mm), ``(4, 4)``; the identity if the file
            contains none.
        axes: Meaning of the axes in the notation of :class:`cm_lightning.io.Axes`, or None if the file does not state
            it. Successive frames of a sequence count as elevation.
        frames_per_second: Rate of a sequence, or None if it is unknown.
        region: Insonified region that the file states, in pixels of the frames, or None.
        tags: Metadata that a copy of the file should keep.
    """

    array: NDArray[np.generic]
    spacing: tuple[float, ...] | None
    affine: NDArray[np.float64]
    axes: str | None = None
    frames_per_second: float | None = None
    region: Geometry | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def stem(path: Path) -> str:
    """Return the name of a file without its image suffix; ``.nii.gz`` is removed as a whole."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def is_image(path: Path) -> bool:
    """Return whether :func:`read_image` supports the suffix of a file."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def is_picture(path: Path) -> bool:
    """Return whether a file is a 2D image without physical coordinates, such as a PNG file."""
    return path.name.lower().endswith(PICTURE_SUFFIXES)


def read_image(path: Path, is_label: bool = False) -> FileImage:
    """Read a volume or a 2D image. Colour images are converted to grey.

    Args:
        path: File with the suffix ``.nii``, ``.nii.gz``, ``.mha``, ``.mhd`` or ``.nrrd``, or a 2D image.
        is_label: Whether to read the indices of a palette image rather than its colours.

    Returns:
        The image.

    Raises:
        MissingInputError: The file does not exist.
        InputError: The suffix is unknown, or the file cannot be read.
    """
    if not path.is_file():
        raise MissingInputError(f"The file {path} does not exist.")
    if not is_image(path):
        raise InputError(f"The format of {path} is not supported; expected one of {', '.join(SUFFIXES)}.")
    try:
        if is_picture(path):
            return _read_picture(path, is_label)
        if path.name.lower().endswith((".nii", ".nii.gz")):
            return _read_nifti(path)
        return _read_itk(path)
    except (OSError, RuntimeError, EOFError, ImageFileError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def write_nifti(
    path: Path,
    array: NDArray[np.generic],
    affine: NDArray[np.float64],
    display_range: tuple[float, float] | None = None,
) -> None:
    """Write a NIfTI file.

    Args:
        path: File with the suffix ``.nii``, or ``.nii.gz`` for compression.
        array: Array with the file axes.
        affine: Affine matrix from voxel to world coordinates (RAS, in mm), ``(4, 4)``.
        display_range: Values that viewers show as black and as white, for a uniform display of a quantity.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    if display_range is not None:
        image.header["cal_min"], image.header["cal_max"] = display_range
    nibabel.save(image, path)


def write_meta_image(path: Path, array: NDArray[np.generic], spacing: tuple[float, ...]) -> None:
    """Write a compressed MetaImage file.

    Args:
        path: File with the suffix ``.mha``.
        array: Array with the axes (x, y, z).
        spacing: Voxel size in mm along these axes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.transpose(array)))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path), useCompression=True)


def _read_picture(path: Path, is_label: bool) -> FileImage:
    modes = ("1", "L", "I;16", "I", "F") + (("P",) if is_label else ())
    with Image.open(path) as picture:
        array = np.asarray(picture if picture.mode in modes else picture.convert("L"))
    return FileImage(array, None, np.eye(4), axes="depth lateral")


def _read_nifti(path: Path) -> FileImage:
    image = nibabel.load(path)
    array = np.asanyarray(image.dataobj)
    return FileImage(array, tuple(float(zoom) for zoom in image.header.get_zooms()), np.asarray(image.affine))


def _read_itk(path: Path) -> FileImage:
    image = sitk.ReadImage(str(path))
    array = np.transpose(sitk.GetArrayFromImage(image))
    dimension = image.GetDimension()
    affine = np.eye(4)
    direction = np.asarray(image.GetDirection()).reshape(dimension, dimension)
    affine[:dimension, :dimension] = direction * np.asarray(image.GetSpacing())
    affine[:dimension, 3] = image.GetOrigin()
    # World coordinates are LPS in ITK and RAS in NIfTI, so the first two axes change their sign.
    return FileImage(array, tuple(image.GetSpacing()), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
