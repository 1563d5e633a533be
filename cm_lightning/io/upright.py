"""Layout of pictures in files of volumes."""

from dataclasses import replace

import numpy as np

from cm_lightning.io.axes import Axes
from cm_lightning.io.file_image import FileImage
from cm_lightning.io.sequences import ORIENTATION, axes_orientation

# World coordinates of pictures without a pixel size: x to the right and y downwards (LPS), in RAS.
PICTURE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def upright(image: FileImage, axes: Axes) -> tuple[FileImage, Axes]:
    """Return the layout in which a file of a volume shows an image upright.

    Files of volumes begin with x, so that pictures, whose arrays begin with rows, are transposed.

    Args:
        image: Image with the geometry of its file.
        axes: Meaning of the axes of the file.

    Returns:
        Image with the shape and geometry of the file to write, and the meaning of its axes.
    """
    if not image.rows_first:
        return image, axes
    words = axes.text.split()
    axes = Axes(" ".join([words[1], words[0], *words[2:]]))
    spacing = image.spacing and (image.spacing[1], image.spacing[0], *image.spacing[2:])
    affine = image.affine[:, [1, 0, 2, 3]] if spacing else PICTURE_AFFINE
    tags = {**image.tags, ORIENTATION: axes_orientation(axes.text)}
    array = np.swapaxes(image.array, 0, 1)
    return replace(image, array=array, spacing=spacing, affine=affine, tags=tags, rows_first=False), axes
