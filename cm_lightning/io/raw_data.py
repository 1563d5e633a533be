"""Pixels as they are stored in volumes: plain or compressed bytes, whose number and checksum are verified."""

import bz2
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.io.memory import check_memory

Compression = Literal["none", "deflate", "bzip2"]
CHUNK_BYTES = 2**20
# The largest factor by which deflate compresses; a header that promises more than this is damaged.
MAX_DEFLATE_FACTOR = 1100


@dataclass(frozen=True)
class RawData:
    """Place and type of the pixels in a file.

    Attributes:
        path: File with the pixels.
        dtype: Type of a value, with its byte order.
        shape: Number of values along every axis, the fastest axis first.
        offset: Bytes of the file before the pixels; for ``is_whole_file_compressed``, decompressed bytes.
        compression: Compression of the pixels. "deflate" stands for zlib and gzip.
        is_whole_file_compressed: Whether the bytes before the pixels are compressed as well, as in ``.nii.gz``.
        from_end: Whether the pixels are the last bytes of the file, and ``offset`` is not used.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int = 0
    compression: Compression = "none"
    is_whole_file_compressed: bool = False
    from_end: bool = False

    def read(self) -> NDArray[np.generic]:
        """Read the pixels without another copy of them.

        Returns:
            Array in native byte order, whose first axis is the fastest (Fortran order).

        Raises:
            MissingInputError: The file does not exist.
            InputError: The file contains fewer or more values, is damaged, or does not fit into memory. Zeros behind
                the pixels are ignored.
        """
        if not self.path.is_file():
            raise MissingInputError(f"The file {self.path} with the pixels of the image does not exist.")
        size = self.path.stat().st_size
        count = 1
        for side in self.shape:  # Python integers do not overflow
            count *= int(side)
        expected = count * self.dtype.itemsize
        limit = size if self.compression == "none" else size * MAX_DEFLATE_FACTOR
        if self.compression != "bzip2" and expected > limit:
            self._raise_length(expected, f"the file has only {size}")
        check_memory(self.path, self.shape, self.dtype)
        values: Any = np.empty(count, self.dtype)
        target = memoryview(values).cast("B") if count else memoryview(b"")
        with self.path.open("rb") as file:
            if self.compression == "none":
                self._read_plain(file, target, size)
            else:
                self._read_compressed(file, target)
        if not self.dtype.isnative:
            values = values.byteswap(inplace=True).view(self.dtype.newbyteorder("="))
        return values.reshape(self.shape, order="F")

    def _read_plain(self, file: BinaryIO, target: memoryview, size: int) -> None:
        offset = max(size - len(target), 0) if self.from_end else self.offset
        if size - offset < len(target):
            self._raise_length(len(target), f"found {max(size - offset, 0)}")
        file.seek(offset)
        position = 0
        while position < len(target):
            count = file.readinto(target[position : position + 2**30])  # type: ignore[attr-defined]
            if not count:
                self._raise_length(len(target), f"found {position}")
            position += count
        while rest := file.read(CHUNK_BYTES):
            if rest.strip(b"\0"):
                self._raise_length(len(target), f"found {size - offset}")

    def _read_compressed(self, file: BinaryIO, target: memoryview) -> None:
        skip = self.offset if self.is_whole_file_compressed else 0
        file.seek(0 if self.is_whole_file_compressed else self.offset)
        position = 0
        try:
            for part in _decompress(file, self.compression):
                data = memoryview(part)
                skipped = min(skip, len(data))
                skip -= skipped
                data = data[skipped:]
                taken = min(len(data), len(target) - position)
                target[position : position + taken] = data[:taken]
                position += taken
                if bytes(data[taken:]).strip(b"\0"):
                    self._raise_length(len(target), "found more")
        except (zlib.error, EOFError, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.path} is damaged: its compressed pixels cannot be decompressed ({error}); expected "
                f"{len(target)} bytes of pixels."
            ) from error
        if position < len(target):
            self._raise_length(len(target), f"found {position}")

    def _raise_length(self, expected: int, found: str) -> None:
        sizes = " x ".join(str(side) for side in self.shape)
        raise InputError(
            f"{self.path} is damaged, or its header is wrong: expected {expected} bytes of pixels ({sizes} values of "
            f"type {self.dtype.name}), but {found}."
        )


def _decompress(file: BinaryIO, compression: Compression) -> Iterator[bytes]:
    """Yield decompressed parts until the end of the file, verifying checksums; several streams may follow another."""
    while True:
        # 47: zlib or gzip, whichever header is found.
        stream: Any = zlib.decompressobj(47) if compression == "deflate" else bz2.BZ2Decompressor()
        while not stream.eof:
            waiting = stream.unconsumed_tail if compression == "deflate" else b""
            chunk = waiting or (file.read(CHUNK_BYTES) if compression == "deflate" or stream.needs_input else b"")
            if not chunk and (compression == "deflate" or stream.needs_input):
                raise EOFError("the compressed data end too early")
            part = stream.decompress(chunk, CHUNK_BYTES)
            if part:
                yield part
        rest = stream.unused_data.lstrip(b"\0")
        while not rest:
            rest = file.read(CHUNK_BYTES)
            if not rest:
                return
            rest = rest.lstrip(b"\0")
        if compression != "deflate" or rest[:2] != b"\x1f\x8b":
            raise ValueError("other data follow the compressed data")
        file.seek(file.tell() - len(rest))
