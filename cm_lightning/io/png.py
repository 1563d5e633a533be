"""PNG files of confidence maps and label images.

Libraries choose a filter for every row and compress with zlib, which takes more time than all else that is done with a
picture, except for solving it. Here, the difference to the row above is taken, which suits maps, and ISA-L compresses.
"""

import struct
from typing import Any, BinaryIO

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, PALETTE = 0, 3
NO_FILTER, UP = 0, 2


def write_png(file: BinaryIO, picture: NDArray[np.unsignedinteger[Any]], palette: bytes | None = None) -> None:
    """Write a grey picture, or one with a palette.

    Source: Portable Network Graphics (PNG) Specification, third edition, W3C 2025, sections 5, 9 and 11.

    Args:
        file: File to which the picture is written.
        picture: Values of type uint8 or uint16, ``(rows, columns)``.
        palette: Red, green and blue of the values, one byte each; for uint8.
    """
    rows, columns = picture.shape
    values = np.ascontiguousarray(picture, picture.dtype.newbyteorder(">")).view(np.uint8).reshape(rows, -1)
    filtered = np.empty((rows, values.shape[1] + 1), np.uint8)
    # Differences of labels mean nothing, and compress worse.
    filtered[:, 0] = UP if palette is None else NO_FILTER
    filtered[:, 1:] = values
    if palette is None:
        filtered[1:, 1:] -= values[:-1]
    colour_type = GREY if palette is None else PALETTE
    header = struct.pack(">IIBBBBB", columns, rows, 8 * picture.itemsize, colour_type, 0, 0, 0)
    file.write(SIGNATURE)
    _write_chunk(file, b"IHDR", header)
    if palette is not None:
        _write_chunk(file, b"PLTE", palette)
    _write_chunk(file, b"IDAT", isal_zlib.compress(filtered.tobytes(), 1))
    _write_chunk(file, b"IEND", b"")


def _write_chunk(file: BinaryIO, name: bytes, data: bytes) -> None:
    file.write(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", isal_zlib.crc32(data, isal_zlib.crc32(name)))
    )
