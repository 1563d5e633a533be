"""The conversion of colour to grey that all formats share."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cm_lightning.errors import InputError

# Weights of red, green and blue in the luma of ITU-R BT.601 (0.299, 0.587, 0.114), multiplied by 65536 as in Pillow.
WEIGHTS = (19595, 38470, 7471)
# Colour pixels that are converted at once, so that the intermediate results stay small.
CHUNK_PIXELS = 2**20


def to_grey(colour: NDArray[np.generic]) -> NDArray[np.generic]:
    """Convert colours to grey.

    The grey value is the luma of ITU-R BT.601, ``0.299 R + 0.587 G + 0.114 B``, as in the mode "L" of Pillow: whole
    numbers are computed as ``(19595 R + 38470 G + 7471 B + 32768) // 65536``, so that the result is rounded to the
    nearest whole number, and grey colours keep their value. Alpha is ignored.

    Args:
        colour: Channels in the last axis: grey; grey and alpha; red, green and blue; or red, green, blue and alpha.
            The type is uint8, uint16 or floating-point.

    Returns:
        Grey values of the same type, without the last axis. A single channel is returned as a view.

    Raises:
        ValueError: There are more than four channels, or the type is another one.
    """
    channels = colour.shape[-1]
    if not 1 <= channels <= 4:
        raise ValueError(f"A pixel has {channels} channels; expected 1 to 4 channels.")
    if channels <= 2:
        return colour[..., 0]
    is_float = np.issubdtype(colour.dtype, np.floating)
    if not is_float and colour.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"Colours have the type {colour.dtype}; expected uint8, uint16 or floating-point numbers.")
    grey = np.empty(colour.shape[:-1], colour.dtype)
    step = max(1, CHUNK_PIXELS // max(1, grey[:1].size))
    for start in range(0, len(grey), step):
        part = colour[start : start + step]
        if is_float:
            weights = (np.array(WEIGHTS) / 65536).astype(colour.dtype)
            grey[start : start + step] = sum(part[..., channel] * weights[channel] for channel in range(3))
        else:
            total = np.full(part.shape[:-1], 32768, np.uint32)
            for channel, weight in enumerate(WEIGHTS):
                total += part[..., channel].astype(np.uint32) * np.uint32(weight)
            grey[start : start + step] = total >> 16
    return grey


def label_channel(path: Path, colour: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the only channel of a label whose pixels have colours, which is only possible if they are all grey.

    Args:
        path: File of the label, for the error message.
        colour: Channels in the last axis, as for :func:`to_grey`.

    Returns:
        Label values, without the last axis.

    Raises:
        InputError: A pixel has a colour, or the transparency differs between pixels.
    """
    alpha = colour[..., -1] if colour.shape[-1] in (2, 4) else None
    values = colour[..., : colour.shape[-1] - (alpha is not None)]
    is_transparent = alpha is not None and alpha.size > 0 and bool((alpha != alpha.flat[0]).any())
    if is_transparent or (values != values[..., :1]).any():
        found = "transparent pixels" if is_transparent else "colours"
        raise InputError(
            f"The label {path} contains {found}, which have no unique value; expected a grey picture or palette "
            "indices, whose values are the classes."
        )
    return values[..., 0]
