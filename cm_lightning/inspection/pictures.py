"""Small pictures of cases with their label and insonified region."""

import base64
import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cm_lightning.drawing import class_colour
from cm_lightning.inspection.findings import Intensities, Picture

# Longest side of a picture in pixels.
SIDE = 260
# Opacity of the area of a class; its outline is opaque.
OPACITY = 0.3
REGION_COLOUR = (0.2, 0.9, 0.9)
UNKNOWN_COLOUR = (1.0, 0.0, 1.0)


def draw_picture(picture: Picture, intensities: Intensities, classes: Mapping[str, int]) -> NDArray[np.uint8]:
    """Draw a frame with its classes in colour, and the outline of its insonified region.

    Args:
        picture: The frame.
        intensities: Intensities of the case, whose 99th percentile is shown bright.
        classes: Value of every class. Other values are magenta.

    Returns:
        RGB picture with square pixels, ``(rows, columns, 3)``.
    """
    rows, columns = picture.frame.shape
    width, height = columns * picture.aspect, float(rows)
    scale = SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    low, high = intensities.minimum, max(intensities.percentile99, intensities.mean)
    grey = np.clip((picture.frame.astype(np.float32) - low) / (high - low if high > low else 1.0), 0, 1)
    small = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR)
    colours = np.repeat(np.asarray(small)[..., None], 3, axis=-1)
    if picture.label is not None:
        label = _nearest(picture.label, size)
        indices = {value: index for index, value in enumerate(classes.values(), start=1)}
        for value in np.unique(label[label != 0]).tolist():
            colour = np.array(class_colour(indices[value])[:3] if value in indices else UNKNOWN_COLOUR)
            inside = label == value
            colours[inside] = (1 - OPACITY) * colours[inside] + OPACITY * colour
            colours[_outline(inside)] = colour
    if picture.region is not None and not picture.region.all():
        colours[_outline(_nearest(picture.region, size))] = REGION_COLOUR
    return np.rint(255 * colours).astype(np.uint8)


def encode(pixels: NDArray[np.uint8]) -> str:
    """Return a picture as the address of an embedded JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _nearest(array: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.generic]:
    columns, rows = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, array.shape[::-1], strict=True)
    )
    return array[np.ix_(rows, columns)]


def _outline(mask: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return the pixels of a mask that have a neighbour outside; the border of the picture is not outside."""
    inside = np.pad(mask.astype(bool), 1, mode="edge")
    centre = inside[1:-1, 1:-1]
    neighbours = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return centre & ~neighbours
