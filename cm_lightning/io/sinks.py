"""Files that grow frame by frame, one class per kind of format."""

import zipfile
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cm_lightning.io.video import import_av
from cm_lightning.io.volume_headers import COMPRESSED_SIZE, SIZE_DIGITS

Compression = Literal["none", "gzip", "zlib", "all"]

COMPRESSION_LEVEL = 1
GZIP_BITS, ZLIB_BITS = 31, 15
DEFAULT_RATE = 25.0
# Denominators of frame rates that all containers can store.
MAX_DENOMINATOR = 30000
# Quality of H.264, from 0 (lossless) to 51.
VIDEO_QUALITY = "14"


def is_worth_compressing(dtype: np.dtype[Any]) -> bool:
    """Return whether maps of a type shrink much; floating-point numbers lose a fifth, which takes half a solve."""
    return np.issubdtype(dtype, np.integer)


class Sink(Protocol):
    """File that is being written."""

    def write(self, frame: NDArray[Any]) -> None:
        """Append a frame, whose two axes are the first two axes of the file."""

    def close(self) -> None:
        """Finish the file. It is also called after an error, when it may be incomplete."""


class VolumeSink:
    """Volume whose last axis is the slowest, with a header before the voxels.

    Args:
        path: File to write.
        header: Bytes before the voxels.
        dtype: Type of the voxels.
        compression: "none", "gzip" or "zlib" for the voxels, or "all" for header and voxels as gzip.
    """

    def __init__(self, path: Path, header: bytes, dtype: np.dtype[Any], compression: Compression) -> None:
        self._file = path.open("wb")
        bits = ZLIB_BITS if compression == "zlib" else GZIP_BITS
        # The search for repetitions takes most of the time, and finds none in floating-point numbers.
        strategy = zlib.Z_DEFAULT_STRATEGY if is_worth_compressing(dtype) else zlib.Z_RLE
        self._stream = None
        if compression != "none":
            self._stream = zlib.compressobj(COMPRESSION_LEVEL, wbits=bits, strategy=strategy)
        self._compressed_bytes = 0
        gap = header.find(COMPRESSED_SIZE.encode())
        self._gap = None if gap < 0 or compression != "zlib" else gap + len(COMPRESSED_SIZE)
        if compression == "all":
            self._append(header)
        else:
            self._file.write(header)

    def write(self, frame: NDArray[Any]) -> None:
        """Append a frame."""
        little = frame.astype(frame.dtype.newbyteorder("<"), copy=False)
        self._append(little.tobytes(order="F"))

    def close(self) -> None:
        """Finish the compression, and fill in its size."""
        with self._file:
            if self._stream is not None:
                self._write_compressed(self._stream.flush())
            if self._gap is not None:
                self._file.seek(self._gap)
                self._file.write(str(self._compressed_bytes).ljust(SIZE_DIGITS).encode())

    def _append(self, data: bytes) -> None:
        if self._stream is None:
            self._file.write(data)
        else:
            self._write_compressed(self._stream.compress(data))

    def _write_compressed(self, data: bytes) -> None:
        self._compressed_bytes += len(data)
        self._file.write(data)


class ArchiveSink:
    """NPZ archive with the array ``confidence``, and other arrays that describe it.

    Args:
        path: File to write.
        shape: Shape of the array.
        dtype: Type of the array.
        others: Other arrays.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], others: dict[str, NDArray[Any]]
    ) -> None:
        compression = zipfile.ZIP_DEFLATED if is_worth_compressing(dtype) else zipfile.ZIP_STORED
        self._archive = zipfile.ZipFile(path, "w", compression, compresslevel=COMPRESSION_LEVEL)
        for name, array in others.items():
            with self._archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array)
        self._entry = self._archive.open("confidence.npy", "w", force_zip64=True)
        description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": True, "shape": shape}
        np.lib.format.write_array_header_2_0(self._entry, description)

    def write(self, frame: NDArray[Any]) -> None:
        """Append a frame."""
        self._entry.write(frame.tobytes(order="F"))

    def close(self) -> None:
        """Finish the archive."""
        self._entry.close()
        self._archive.close()


class PagesSink:
    """TIFF file with a page per frame.

    Args:
        path: File to write.
        nbytes: Size of all frames, from which large files get another format of offsets.
    """

    def __init__(self, path: Path, nbytes: int) -> None:
        self._writer = tifffile.TiffWriter(path, bigtiff=nbytes > 2**31)

    def write(self, frame: NDArray[Any]) -> None:
        """Append a page."""
        self._writer.write(
            np.ascontiguousarray(frame),
            photometric="minisblack",
            compression="zlib" if is_worth_compressing(frame.dtype) else None,
            compressionargs={"level": COMPRESSION_LEVEL} if is_worth_compressing(frame.dtype) else None,
            metadata=None,
        )

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


class PictureSink:
    """Picture with a single frame.

    Args:
        path: File to write.
        picture_format: Name of the format in Pillow.
    """

    def __init__(self, path: Path, picture_format: str) -> None:
        self._file: BinaryIO = path.open("wb")
        self._format = picture_format

    def write(self, frame: NDArray[Any]) -> None:
        """Write the picture."""
        options: dict[str, Any] = {"PNG": {"compress_level": COMPRESSION_LEVEL}, "JPEG": {"quality": 95}}.get(
            self._format, {}
        )
        Image.fromarray(np.ascontiguousarray(frame)).save(self._file, self._format, **options)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class VideoSink:
    """Video of grey frames, as H.264 in MP4 and MOV files, which is nearly lossless, and as lossless FFV1 in others.

    Args:
        path: File to write.
        container: Name of the container in FFmpeg.
        shape: Rows and columns of the frames.
        rate: Frames per second.
    """

    def __init__(self, path: Path, container: str, shape: tuple[int, int], rate: float | None) -> None:
        av = import_av(path)
        self._av: Any = av
        self._container = av.open(str(path), "w", format=container)
        fraction = Fraction(rate or DEFAULT_RATE).limit_denominator(MAX_DENOMINATOR)
        is_h264 = container in ("mp4", "mov")
        self._stream = self._container.add_stream("libx264" if is_h264 else "ffv1", rate=fraction)
        self._stream.height, self._stream.width = shape
        # Players support subsampled colours best, which need an even number of rows and columns.
        is_even = shape[0] % 2 == 0 and shape[1] % 2 == 0
        self._stream.pix_fmt = ("yuv420p" if is_even else "yuv444p") if is_h264 else "gray"
        if is_h264:
            self._stream.options = {"crf": VIDEO_QUALITY, "preset": "fast"}

    def write(self, frame: NDArray[Any]) -> None:
        """Append a frame."""
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="gray")
        for packet in self._stream.encode(picture):
            self._container.mux(packet)

    def close(self) -> None:
        """Finish the video."""
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
