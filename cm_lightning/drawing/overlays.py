"""Images with coloured classes, pixel by pixel."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.color import gray2rgb

from cm_lightning.drawing.panels import class_colour

# Weight of the colours of classes.
OPACITY = 0.4


def overlay(frame: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.uint8]:
    """Colour the classes of an image.

    Args:
        frame: Grey or RGB image, uint8, ``(height, width)`` or ``(height, width, 3)``.
        classes: Class indices, ``(height, width)``; 0 is not coloured.

    Returns:
        RGB image, uint8, ``(height, width, 3)``.
    """
    values = np.unique(classes)
    colours = np.array([class_colour(max(int(value), 1))[:3] for value in values])
    rgb = np.array(frame if frame.ndim == 3 else gray2rgb(frame), np.float64)  # type: ignore[no-untyped-call]
    coloured = classes > 0
    of_class = 255 * colours[np.searchsorted(values, classes[coloured])]
    rgb[coloured] = (1 - OPACITY) * rgb[coloured] + OPACITY * of_class
    return np.round(rgb).astype(np.uint8)


def colour_table(classes: Mapping[str, int]) -> dict[int, tuple[int, int, int]]:
    """Return the colours of classes in label files.

    Args:
        classes: Value of every class.

    Returns:
        Red, green and blue from 0 to 255 by value.
    """
    colours = {}
    for index, value in enumerate(classes.values(), 1):
        red, green, blue, _ = class_colour(index)
        colours[value] = (round(255 * red), round(255 * green), round(255 * blue))
    return colours
