"""Reading and writing image files."""

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from PIL import Image

from cm_lightning.errors import InputError, MissingInputError

PICTURE_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
SUFFIXES = VOLUME_SUFFIXES + PICTURE_SUFFIXES


@dataclass(frozen=True)
class FileImage:
    """An image as it lies in its file.

    Attributes:
        array: Intensities or labels in file order.
        spacing: Size of a voxel along every file axis in mm, or None where the file does not say.
        affine: Voxel to world coordinates (RAS, mm), 4 x 4; the identity where the file does not say.
    """

    array: NDArray[np.generic]
    spacing: tuple[float, ...] | None
    affine: NDArray[np.float64]


def stem(path: Path) -> str:
    """Give a file's name without its image suffix (``.nii.gz`` counts as one)."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def is_image(path: Path) -> bool:
    """Tell whether a file's suffix is one that :func:`read_image` takes."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def is_picture(path: Path) -> bool:
    """Tell whether a file is a 2D picture without a physical geometry."""
    return path.name.lower().endswith(PICTURE_SUFFIXES)


def read_image(path: Path, is_label: bool = False) -> FileImage:
    """Read a volume or a picture; colour pictures become grey.

    Args:
        path: ``.nii``, ``.nii.gz``, ``.mha``, ``.mhd``, ``.nrrd`` or a picture.
        is_label: Take a palette picture's indices, not its colours.

    Returns:
        The image.

    Raises:
        MissingInputError: There is no such file.
        InputError: The suffix is unknown or the file cannot be read.
    """
    if not path.is_file():
        raise MissingInputError(f"There is no file {path}.")
    if not is_image(path):
        raise InputError(f"{path} is no image this package reads; expected one of {', '.join(SUFFIXES)}.")
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
    """Write an array in file order as NIfTI; ``.nii.gz`` is compressed.

    Args:
        path: Where to.
        array: What.
        affine: Voxel to world coordinates (RAS, mm), 4 x 4.
        display_range: Values that viewers show as black and as white, so that all files of a quantity look alike.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    if display_range is not None:
        image.header["cal_min"], image.header["cal_max"] = display_range
    nibabel.save(image, path)


def write_meta_image(path: Path, array: NDArray[np.generic], spacing: tuple[float, ...]) -> None:
    """Write an array in file order (x, y, z) as a compressed MetaImage."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.transpose(array)))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path), useCompression=True)


def _read_picture(path: Path, is_label: bool) -> FileImage:
    kept = ("1", "L", "I;16", "I", "F") + (("P",) if is_label else ())
    with Image.open(path) as picture:
        array = np.asarray(picture if picture.mode in kept else picture.convert("L"))
    return FileImage(array, None, np.eye(4))


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
    # ITK's world is LPS, NIfTI's is RAS: the first two axes change sign.
    return FileImage(array, tuple(image.GetSpacing()), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
