"""Names of image files: which suffixes are read, and what is left of a name without them."""

import os
from pathlib import Path
from typing import NoReturn

from cm_lightning.errors import InputError

PICTURE_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".gif")
NIFTI_SUFFIXES = (".nii.gz", ".nii")
META_IMAGE_SUFFIXES = (".mha", ".mhd")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
VOLUME_SUFFIXES = NIFTI_SUFFIXES + META_IMAGE_SUFFIXES + NRRD_SUFFIXES
DICOM_SUFFIXES = (".dcm", ".dicom")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")
SUFFIXES = VOLUME_SUFFIXES + PICTURE_SUFFIXES + DICOM_SUFFIXES + VIDEO_SUFFIXES

DICOM_PREAMBLE = 128


def image_suffix(path: Path) -> str:
    """Return the suffix of an image file in lower case, ``.nii.gz`` as a whole; empty if it is none of ``SUFFIXES``."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def stem(path: Path) -> str:
    """Return the name of a file without its image suffix; ``.nii.gz`` is removed as a whole."""
    suffix = image_suffix(path)
    return path.name[: -len(suffix)] if suffix else path.stem


def is_image(path: Path) -> bool:
    """Return whether :func:`read_image` supports the suffix of a file, or a file without suffix is a DICOM file."""
    return not path.name.startswith(".") and (bool(image_suffix(path)) or is_dicom(path))


def is_picture(path: Path) -> bool:
    """Return whether a file is a picture without physical coordinates, such as a PNG file."""
    return image_suffix(path) in PICTURE_SUFFIXES


def image_files(folder: Path, with_subfolders: bool = False) -> list[Path]:
    """List the image files in a folder.

    Args:
        folder: The folder.
        with_subfolders: Whether to search its subfolders as well.

    Returns:
        Sorted files, see :func:`is_image`.

    Raises:
        InputError: The folder, or one of its subfolders, cannot be read. Its images would be missing without notice.
    """

    def refuse(error: OSError) -> NoReturn:
        raise InputError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error

    files: list[Path] = []
    for place, subfolders, names in os.walk(folder, onerror=refuse, followlinks=True):
        files += [Path(place, name) for name in names]
        if not with_subfolders:
            break
        # A link to a folder above would be followed forever.
        here = Path(place).resolve()
        subfolders[:] = [name for name in subfolders if not here.is_relative_to(Path(place, name).resolve())]
    return sorted(file for file in files if file.is_file() and is_image(file))


def is_dicom(path: Path) -> bool:
    """Return whether a file is named ``.dcm`` or ``.dicom``, or has no suffix and begins like a DICOM file.

    The numbers of a unique identifier (``1.2.840.1``), by which scanners name files, are not a suffix.
    """
    if image_suffix(path) in DICOM_SUFFIXES:
        return True
    if path.suffix.strip(".0123456789") or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(DICOM_PREAMBLE + 4)[DICOM_PREAMBLE:] == b"DICM"
