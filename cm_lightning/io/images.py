"""The reader of all image files, and the writers of single arrays."""

from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.io.dicom import read_dicom
from cm_lightning.io.file_image import FileImage
from cm_lightning.io.formats import (
    META_IMAGE_SUFFIXES,
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    PICTURE_SUFFIXES,
    SUFFIXES,
    VIDEO_SUFFIXES,
    image_suffix,
    is_dicom,
    is_image,
    is_picture,
    stem,
)
from cm_lightning.io.metaimage import read_meta_image
from cm_lightning.io.nifti import read_nifti
from cm_lightning.io.nrrd import read_nrrd
from cm_lightning.io.pictures import read_picture
from cm_lightning.io.video import read_video
from cm_lightning.writing import replaced

__all__ = [
    "SUFFIXES",
    "FileImage",
    "is_image",
    "is_picture",
    "read_image",
    "stem",
    "write_meta_image",
    "write_nifti",
]

READERS = {
    **dict.fromkeys(NIFTI_SUFFIXES, read_nifti),
    **dict.fromkeys(META_IMAGE_SUFFIXES, read_meta_image),
    **dict.fromkeys(NRRD_SUFFIXES, read_nrrd),
    **dict.fromkeys(PICTURE_SUFFIXES, read_picture),
    **dict.fromkeys(VIDEO_SUFFIXES, read_video),
}


def read_image(path: Path, is_label: bool = False) -> FileImage:
    """Read a volume, a picture, a sequence of frames or a video. Colours become grey.

    All formats convert colours in the same way; see :func:`cm_lightning.io.grey.to_grey`.

    Args:
        path: File with one of the suffixes in ``SUFFIXES``, or a DICOM file without suffix.
        is_label: Whether the values are labels. The indices of a palette are then read rather than its colours, and
            other colours are refused.

    Returns:
        The image.

    Raises:
        MissingInputError: The file does not exist.
        InputError: The suffix is unknown, the file is damaged or not of the format of its suffix, its contents are not
            supported, or an optional library is missing.
    """
    if not path.is_file():
        raise MissingInputError(f"The file {path} does not exist.")
    read = read_dicom if is_dicom(path) else READERS.get(image_suffix(path))
    if read is None:
        raise InputError(f"The format of {path} is not supported; expected one of {', '.join(SUFFIXES)}.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; expected an image.")
    try:
        with path.open("rb"):  # libraries do not say why a file cannot be opened
            pass
        return read(path, is_label)
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into the memory that is available; expected a smaller image.") from error


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
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    if display_range is not None:
        image.header["cal_min"], image.header["cal_max"] = display_range
    with replaced(path) as partial:
        nibabel.save(image, partial)


def write_meta_image(path: Path, array: NDArray[np.generic], spacing: tuple[float, ...]) -> None:
    """Write a compressed MetaImage file.

    Args:
        path: File with the suffix ``.mha``.
        array: Array with the axes (x, y, z).
        spacing: Voxel size in mm along these axes.

    Raises:
        InputError: The file cannot be written, for example because the disk is full.
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.transpose(array)))
    image.SetSpacing(spacing)
    with replaced(path) as partial:
        try:
            sitk.WriteImage(image, str(partial), useCompression=True)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].removeprefix("Reason: ")
            raise InputError(f"{path} cannot be written: {reason}.") from error
