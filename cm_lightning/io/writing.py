"""Results in the format and with the geometry of their input, written frame by frame."""

import gzip
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cm_lightning.errors import InputError
from cm_lightning.io.axes import Axes
from cm_lightning.io.images import FileImage

WRITTEN_SUFFIXES = (".png", ".tif", ".nii", ".nii.gz", ".mha", ".nrrd", ".npz")
# Level of zlib for volumes; higher levels take much longer and hardly save space for float32.
COMPRESSION = 1
META_IMAGE_TYPES = {"float32": "MET_FLOAT", "uint8": "MET_UCHAR", "uint16": "MET_USHORT"}
NRRD_TYPES = {"float32": "float", "uint8": "uint8", "uint16": "uint16"}


class FrameWriter:
    """Writer of the frames of a result, one after another, in the format given by the suffix of the path.

    The file has the geometry and the tags of the input. If successive frames are successive in the file, they are
    written as they come, so that the result is never in memory as a whole. The file is complete at the end of the
    ``with`` block, and then replaces an existing one; after an exception, there is no file.

    Args:
        path: File with one of the suffixes ``.png``, ``.tif``, ``.nii``, ``.nii.gz``, ``.mha``, ``.nrrd`` and ``.npz``.
        template: The input; its shape, affine matrix, spacing and tags are those of the result.
        axes: Meaning of the axes of the input.
        dtype: float32, or uint8 or uint16 for fractions of the maximum of the type.
        display_range: Values that viewers show as black and as white, for NIfTI.

    Raises:
        InputError: The format is not supported, or does not support the type or several frames.
    """

    def __init__(
        self,
        path: Path,
        template: FileImage,
        axes: Axes,
        dtype: np.dtype[Any],
        display_range: tuple[float, float] | None = None,
    ) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._axes = axes
        self._shape = template.array.shape
        self._dtype = np.dtype(dtype)
        self._written = 0
        depth, lateral, *elevation = (self._shape[axis] for axis in axes.order)
        self._frame_shape = (depth, lateral)
        self._frames = elevation[0] if elevation else 1
        if self._dtype.name not in META_IMAGE_TYPES:
            raise InputError(f"{path} cannot be written as {self._dtype}; expected float32, uint8 or uint16.")
        self._format = _choose_format(path, template, self._dtype, display_range)
        in_order = not elevation or (axes.order[2] == len(self._shape) - 1 and 2 not in axes.reversed)
        self._buffer = None if in_order and self._format.streams else np.zeros(self._shape, self._dtype)

    def __enter__(self) -> Self:
        """Open the file."""
        self._format.open(self._partial)
        return self

    def write(self, frames: NDArray[Any]) -> None:
        """Write the next frames.

        Args:
            frames: Values from 0 to 1, ``(frames, depth, lateral)``.

        Raises:
            ValueError: The frames have another shape than those of the input, or there are too many.
        """
        start, self._written = self._written, self._written + len(frames)
        if frames.shape[1:] != self._frame_shape or self._written > self._frames:
            raise ValueError(
                f"{self._path} needs {self._frames} frames of {self._frame_shape}, found {self._written} of "
                f"{frames.shape[1:]}."
            )
        if self._dtype.kind == "u":
            frames = np.round(np.asarray(frames, np.float64) * np.iinfo(self._dtype).max)
        frames = frames.astype(self._dtype, copy=False)
        volume = frames[0] if len(self._shape) == 2 else np.moveaxis(frames, 0, 2)
        if self._buffer is None:
            self._format.append(self._axes.to_file(volume))
        elif len(self._shape) == 2:
            self._axes.from_file(self._buffer)[...] = volume
        else:
            self._axes.from_file(self._buffer)[:, :, start : self._written] = volume

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file, or remove it after an exception."""
        try:
            if kind is None:
                if self._written != self._frames:
                    raise ValueError(f"{self._path} needs {self._frames} frames, found {self._written}.")
                if self._buffer is not None:
                    self._format.append(self._buffer)
            self._format.close()
            if kind is None:
                self._partial.replace(self._path)
        finally:
            with suppress(OSError):
                self._partial.unlink()


class _Format:
    """Format of a file. Arrays have the axes of the file, of which the last one may be shorter.

    Attributes:
        streams: Whether parts of the file can be appended one after another.
    """

    streams = True

    def open(self, path: Path) -> None:
        """Create the file."""

    def append(self, array: NDArray[Any]) -> None:
        """Append a part of the array."""

    def close(self) -> None:
        """Close the file."""


class _Pictures(_Format):
    """PNG file of one frame, or TIFF file with one page per frame."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._file: Any = None

    def open(self, path: Path) -> None:
        """Create the file."""
        if self._suffix == ".tif":
            import tifffile

            self._file = tifffile.TiffWriter(path)
        else:
            self._file = path

    def append(self, array: NDArray[Any]) -> None:
        """Write the frame, or append pages."""
        if self._suffix == ".tif":
            for page in [array] if array.ndim == 2 else np.moveaxis(array, 2, 0):
                self._file.write(np.ascontiguousarray(page), contiguous=True, photometric="minisblack", metadata=None)
        else:
            Image.fromarray(np.ascontiguousarray(array)).save(self._file, format="PNG", compress_level=3)

    def close(self) -> None:
        """Close the file."""
        if self._suffix == ".tif":
            self._file.close()


class _Raw(_Format):
    """Header followed by the values in Fortran order, which may be compressed.

    Args:
        header: Function that returns the header for a number of bytes after it. Its length must not depend on this
            number.
        compression: ``gzip``, ``zlib``, or None. The header of NIfTI files is compressed as well.
        is_header_compressed: Whether the header is compressed as well.
    """

    def __init__(
        self, header: Callable[[int], bytes], compression: str | None, is_header_compressed: bool = False
    ) -> None:
        self._header = header
        self._compression = compression
        self._is_header_compressed = is_header_compressed
        self._file: BinaryIO | None = None
        self._gzip: gzip.GzipFile | None = None
        self._zlib: Any = None

    def open(self, path: Path) -> None:
        """Create the file and write the header."""
        self._file = path.open("wb")
        if not self._is_header_compressed:
            self._file.write(self._header(0))
        match self._compression:
            case "gzip":  # without a name and a time, so that equal results are equal files
                self._gzip = gzip.GzipFile("", "wb", COMPRESSION, self._file, mtime=0)
            case "zlib":
                self._zlib = zlib.compressobj(COMPRESSION)
        if self._is_header_compressed:
            self._put(self._header(0))

    def append(self, array: NDArray[Any]) -> None:
        """Append values."""
        self._put(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="F"))

    def close(self) -> None:
        """Complete the compressed data, and the number of bytes in the header."""
        if self._file is None:
            return
        with self._file as file:
            if self._gzip is not None:
                self._gzip.close()
            if self._zlib is not None:
                file.write(self._zlib.flush())
            if not self._is_header_compressed:
                size = file.tell() - len(self._header(0))
                file.seek(0)
                file.write(self._header(size))

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        if self._gzip is not None:
            self._gzip.write(data)
        elif self._zlib is not None:
            self._file.write(self._zlib.compress(data))
        else:
            self._file.write(data)


class _Archive(_Format):
    """NPZ file with the arrays ``confidence``, ``spacing`` and ``affine``."""

    streams = False

    def __init__(self, template: FileImage) -> None:
        self._template = template
        self._path: Path | None = None

    def open(self, path: Path) -> None:
        """Remember the path."""
        self._path = path

    def append(self, array: NDArray[Any]) -> None:
        """Write the file."""
        assert self._path is not None
        spacing = np.asarray(self._template.spacing or (), np.float64)
        with self._path.open("wb") as file:
            np.savez_compressed(file, confidence=array, spacing=spacing, affine=self._template.affine)


def _choose_format(
    path: Path, template: FileImage, dtype: np.dtype[Any], display_range: tuple[float, float] | None
) -> _Format:
    name = path.name.lower()
    suffix = next((suffix for suffix in sorted(WRITTEN_SUFFIXES, key=len)[::-1] if name.endswith(suffix)), None)
    match suffix:
        case ".png":
            if template.array.ndim > 2:
                raise InputError(f"{path} cannot contain several frames; use one of .tif, .nii.gz, .mha and .nrrd.")
            if dtype.kind != "u":
                raise InputError(f"{path} cannot contain {dtype}; expected uint8 or uint16.")
            return _Pictures(".png")
        case ".tif":
            return _Pictures(".tif")
        case ".nii" | ".nii.gz":
            header = _nifti_header(template, dtype, display_range)
            return _Raw(lambda _: header, "gzip" if suffix == ".nii.gz" else None, is_header_compressed=True)
        case ".mha":
            return _Raw(lambda size: _meta_image_header(template, dtype, size), "zlib")
        case ".nrrd":
            text = _nrrd_header(template, dtype)
            return _Raw(lambda _: text, "gzip")
        case ".npz":
            return _Archive(template)
        case _:
            raise InputError(f"{path} cannot be written; expected one of {', '.join(WRITTEN_SUFFIXES)}.")


def _nifti_header(template: FileImage, dtype: np.dtype[Any], display_range: tuple[float, float] | None) -> bytes:
    """Return the header of a NIfTI file, with which integers are read as values from 0 to 1."""
    empty = np.broadcast_to(np.zeros((), dtype.newbyteorder("<")), template.array.shape)
    header = nibabel.Nifti1Image(empty, template.affine).header
    header.set_xyzt_units("mm")
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    if dtype.kind == "u":
        header.set_slope_inter(1.0 / np.iinfo(dtype).max, 0.0)
    if display_range is not None:
        header["cal_min"], header["cal_max"] = display_range
    return bytes(header.binaryblock) + bytes(4)  # there are no extensions


def _directions(template: FileImage) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return spacing, axis directions (rows) and origin in world coordinates of ITK (LPS)."""
    number = template.array.ndim
    to_world = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ template.affine)[:number]
    steps = to_world[:, :number].T
    spacing = np.linalg.norm(steps, axis=1)
    if template.spacing is None:
        spacing = np.where(spacing > 0, spacing, 1.0)
    return spacing, steps / spacing[:, None], to_world[:, 3]


def _words(values: NDArray[np.float64]) -> str:
    return " ".join(f"{value:.17g}" for value in (values + 0.0).ravel())  # + 0.0 turns -0 into 0


def _tags(template: FileImage) -> Mapping[str, str]:
    return {key: " ".join(str(value).split()) for key, value in template.tags.items()}


def _meta_image_header(template: FileImage, dtype: np.dtype[Any], data_size: int) -> bytes:
    """Return the header of a MetaImage file, whose length does not depend on the size of the data."""
    spacing, directions, origin = _directions(template)
    fields = {
        "ObjectType": "Image",
        "NDims": str(template.array.ndim),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": f"{data_size:020d}",
        "TransformMatrix": _words(directions),
        "Offset": _words(origin),
        "CenterOfRotation": _words(np.zeros(len(origin))),
        "ElementSpacing": _words(spacing),
        "DimSize": " ".join(str(side) for side in template.array.shape),
        "ElementType": META_IMAGE_TYPES[dtype.name],
    }
    lines = [*fields.items(), *((key, text) for key, text in _tags(template).items() if key not in fields)]
    return "".join(f"{key} = {text}\n" for key, text in [*lines, ("ElementDataFile", "LOCAL")]).encode()


def _nrrd_header(template: FileImage, dtype: np.dtype[Any]) -> bytes:
    """Return the header of an NRRD file."""
    spacing, directions, origin = _directions(template)
    number = template.array.ndim
    vectors = [f"({','.join(f'{value:.17g}' for value in row + 0.0)})" for row in directions * spacing[:, None]]
    space = "space: left-posterior-superior" if number == 3 else f"space dimension: {number}"
    lines = [
        "NRRD0005",
        f"type: {NRRD_TYPES[dtype.name]}",
        f"dimension: {number}",
        space,
        f"sizes: {' '.join(str(side) for side in template.array.shape)}",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {' '.join(['domain'] * number)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: ({','.join(f'{value:.17g}' for value in origin + 0.0)})",
        *(f"{key}:={text}" for key, text in _tags(template).items()),
    ]
    return ("\n".join(lines) + "\n\n").encode()
