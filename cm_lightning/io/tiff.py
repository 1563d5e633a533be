"""Reading of the TIFF files whose pixels Pillow does not read, or reads with a loss, with tifffile."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cm_lightning.errors import InputError
from cm_lightning.io.file_image import FileImage, library_errors, picture_image
from cm_lightning.io.grey import label_channel, to_grey
from cm_lightning.io.memory import check_memory

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
COLOUR = ("RGB", "YCBCR")
ORIENTATION_TAG = 274
# Types of grey values that Pillow keeps.
KEPT_TYPES = ("bool", "uint8", "uint16", "int32", "uint32", "float32")
# Turns of the stored picture by the tag of its orientation.
TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda array: np.rot90(array, 2),
    4: np.flipud,
    5: lambda array: np.swapaxes(array, 0, 1),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: np.swapaxes(np.rot90(array, 2), 0, 1),
    8: np.rot90,
}


def read_special_tiff(path: Path, is_label: bool = False) -> FileImage | None:
    """Read a TIFF file of a type that Pillow does not read correctly.

    These are colours of more than 8 bits, signed bytes, numbers of 64 bits, half precision, and pictures of more than 8
    bits in which 0 is white.

    Args:
        path: The file.
        is_label: Whether colours are refused rather than converted to grey.

    Returns:
        The image; None if the file is of another type, damaged, or not a TIFF file, so that Pillow should read it.

    Raises:
        InputError: The file is damaged, or it is compressed in a way that tifffile does not support.
    """
    with path.open("rb") as file:
        if file.read(4) not in MAGIC:
            return None
    try:
        tiff = tifffile.TiffFile(path)
        first, number = tiff.pages[0], len(tiff.pages)
        is_special = _is_special(first)
        images = int((tiff.imagej_metadata or {}).get("images", 1))
    except Exception:  # Pillow says what is wrong
        return None
    with tiff, library_errors(path, "a TIFF file"):
        _check_last_page(path, tiff)
        if number == 1 < images:
            raise InputError(f"{path} has {images} frames of ImageJ in a single page; save it as a TIFF with pages.")
        if not is_special:
            return None
        check_memory(path, (number, *first.shape), first.dtype or np.dtype(np.uint8))
        frames = [_read_page(path, page, is_label) for page in tiff.pages]
        if len({(frame.shape, frame.dtype) for frame in frames}) > 1:
            raise InputError(f"{path} has pages of different sizes or types; expected frames of one size.")
        return picture_image(frames[0] if number == 1 else np.stack(frames, axis=-1))


def _check_last_page(path: Path, tiff: Any) -> None:
    """Check that no page follows the last one that can be read, as in truncated files."""
    form, handle = tiff.tiff, tiff.filehandle
    handle.seek(tiff.pages[-1].offset)
    count = int.from_bytes(handle.read(form.tagnosize), "little" if form.byteorder == "<" else "big")
    handle.seek(count * form.tagsize, 1)
    following = handle.read(form.offsetsize)
    if len(following) < form.offsetsize or following.strip(b"\0"):
        raise InputError(f"{path} is damaged: it ends after {len(tiff.pages)} pages, although another one follows.")


def _is_special(page: Any) -> bool:
    is_deep = page.dtype is not None and page.dtype.itemsize > 1
    if page.photometric.name in COLOUR:
        return is_deep
    return page.dtype.name not in KEPT_TYPES or (is_deep and page.photometric.name == "MINISWHITE")


def _read_page(path: Path, page: Any, is_label: bool) -> NDArray[Any]:
    expected, found = math.prod(page.chunked), len(page.dataoffsets)
    if found < expected and page.compression.name != "NONE":
        # Otherwise tifffile spends minutes on the missing parts.
        raise InputError(f"{path} is damaged: a page has {found} of its {expected} strips or tiles.")
    pixels = page.asarray()
    if page.photometric.name in COLOUR:
        # Planes of colours are stored one after another, or the colours of a pixel are.
        colour = np.moveaxis(pixels, 0, -1) if page.planarconfig == 2 else pixels
        pixels = label_channel(path, colour) if is_label else to_grey(colour)
    elif pixels.ndim != 2:
        raise InputError(f"{path} has pages of the shape {pixels.shape}; expected rows and columns.")
    elif page.photometric.name == "MINISWHITE" and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    turn = TURNS.get(page.tags.valueof(ORIENTATION_TAG, 1))
    if turn is not None:
        pixels = turn(pixels)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
