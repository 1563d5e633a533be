"""Reading of pictures (PNG, TIFF, JPEG, BMP, GIF) with Pillow."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cm_lightning.errors import InputError
from cm_lightning.io.file_image import FileImage, library_errors, picture_image
from cm_lightning.io.grey import label_channel, to_grey
from cm_lightning.io.memory import check_memory
from cm_lightning.io.tiff import read_special_tiff

FORMATS = ("PNG", "TIFF", "JPEG", "BMP", "GIF")
# Formats whose further pages are frames of a sequence. Those of JPEG files are previews.
SEQUENCES = ("PNG", "TIFF", "GIF")
# Modes whose pixels are single numbers.
NUMBERS = ("L", "I;16", "I;16L", "I;16B", "I", "F")
COLOURS = ("RGB", "RGBA", "LA")
# Modes that Pillow converts to RGB without a loss of meaning.
CONVERTED = ("CMYK", "YCbCr", "RGBX", "RGBa", "La", "P", "PA", "HSV")
# Names of Pillow for the stored colours of PNG files with 16 bits.
DEEP_COLOURS = ("RGB;16B", "RGBA;16B", "LA;16B")
# Factors by which Pillow multiplies the values of PNG files with 2 and 4 bits.
SMALL_BITS = {"L;2": 85, "L;4": 17}


def read_picture(path: Path, is_label: bool = False) -> FileImage:
    """Read a picture, or the frames of a TIFF file with several pages, an animated GIF or an animated PNG file.

    Pictures are turned as their EXIF orientation states. Palettes and colours become grey, and alpha is ignored; see
    :func:`cm_lightning.io.grey.to_grey`. PNG files with colours of 16 bits are refused, since Pillow reduces them to 8.

    Args:
        path: The file.
        is_label: Whether to read the stored values: the indices of a palette, and 0 and 1 of bilevel pictures. Colours
            are refused.

    Returns:
        The image, with rows and columns, and the frames last.

    Raises:
        InputError: The file is damaged, its pages have different sizes, or its colours are not supported.
    """
    special = read_special_tiff(path, is_label)
    if special is not None:
        return special
    # Pillow maps files that it opens itself into memory, and then confuses rows and columns of turned TIFF files.
    with (
        library_errors(path, "a picture (PNG, TIFF, JPEG, BMP or GIF)"),
        path.open("rb") as file,
        Image.open(file, formats=FORMATS) as picture,
    ):
        frames = getattr(picture, "n_frames", 1) if picture.format in SEQUENCES else 1
        # Pillow itself refuses a single picture of more than 179 million pixels.
        check_memory(path, (frames, *picture.size), np.dtype(np.uint8))
        first = _read_page(path, picture, is_label)
        if frames == 1:
            return picture_image(first)
        check_memory(path, (frames, *first.shape), first.dtype)
        array = np.empty((frames, *first.shape), first.dtype)
        durations = []
        for index in range(frames):
            picture.seek(index)
            page = _read_page(path, picture, is_label)
            if page.shape != first.shape or page.dtype != first.dtype:
                raise InputError(
                    f"{path} has pages of different sizes or types ({first.shape} {first.dtype} and {page.shape} "
                    f"{page.dtype}); expected frames of one size."
                )
            array[index] = page
            durations.append(float(picture.info.get("duration", 0)))
        seconds = sum(durations) / 1000
    rate = frames / seconds if seconds > 0 else None
    return picture_image(np.moveaxis(array, 0, -1), frames_per_second=rate)


def _read_page(path: Path, picture: Image.Image, is_label: bool) -> NDArray[Any]:
    tile: Any = getattr(picture, "tile", None)
    rawmode = tile[0][3] if tile else None
    factor = SMALL_BITS.get(rawmode, 1) if isinstance(rawmode, str) and picture.format == "PNG" else 1
    if picture.format == "PNG" and isinstance(rawmode, str) and rawmode in DEEP_COLOURS:
        raise InputError(
            f"{path} has colours of 16 bits, which are not supported in PNG files; expected grey values of 16 bits, or "
            "colours of 8 bits."
        )
    picture.load()
    turned = ImageOps.exif_transpose(picture)
    mode = turned.mode
    if mode == "1":
        return np.asarray(turned).astype(np.uint8) * (1 if is_label else 255)
    if mode in NUMBERS:
        array = np.asarray(turned)
        if mode == "I" and array.min() < 0 and _is_unsigned(picture):
            array = array.view(np.uint32)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        return array // factor if is_label and factor > 1 else array
    if is_label and mode in ("P", "PA"):
        return np.asarray(turned)[..., 0] if mode == "PA" else np.asarray(turned)
    if mode in CONVERTED:
        turned = turned.convert("RGB")
    elif mode not in COLOURS:
        raise InputError(f"{path} has pixels of the mode {mode!r} of Pillow; expected grey values or RGB colours.")
    colour = np.asarray(turned)
    return label_channel(path, colour) if is_label else to_grey(colour)


def _is_unsigned(picture: Image.Image) -> bool:
    """Return whether a TIFF file contains whole numbers without sign, which Pillow reads as numbers with sign."""
    tags: Any = getattr(picture, "tag_v2", {})
    return tags.get(339, (1,))[0] == 1
