"""Reading and writing of image files with named axes."""

from cm_lightning.io.alignment import align_label
from cm_lightning.io.axes import AXIS_NAMES, PICTURE_AXES, VOLUME_AXES, Axes
from cm_lightning.io.data_files import data_files
from cm_lightning.io.dicom import dicom_region
from cm_lightning.io.formats import image_files
from cm_lightning.io.geometry import read_geometry, write_geometry
from cm_lightning.io.images import (
    SUFFIXES,
    FileImage,
    is_image,
    is_picture,
    read_image,
    stem,
    write_meta_image,
    write_nifti,
)
from cm_lightning.io.upright import upright
from cm_lightning.io.writing import ChannelWriter, FrameWriter

__all__ = [
    "AXIS_NAMES",
    "PICTURE_AXES",
    "SUFFIXES",
    "VOLUME_AXES",
    "Axes",
    "ChannelWriter",
    "FileImage",
    "FrameWriter",
    "align_label",
    "data_files",
    "dicom_region",
    "image_files",
    "is_image",
    "is_picture",
    "read_geometry",
    "read_image",
    "stem",
    "upright",
    "write_geometry",
    "write_meta_image",
    "write_nifti",
]
