"""Image files: one reader and one writer, with the axes named."""

from cm_lightning.io.axes import AXIS_NAMES, Axes
from cm_lightning.io.images import (
    FileImage,
    is_image,
    is_picture,
    read_image,
    stem,
    write_meta_image,
    write_nifti,
)

__all__ = [
    "AXIS_NAMES",
    "Axes",
    "FileImage",
    "is_image",
    "is_picture",
    "read_image",
    "stem",
    "write_meta_image",
    "write_nifti",
]
