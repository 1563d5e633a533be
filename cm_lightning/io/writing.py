"""Results with the format and the geometry of their input, written frame by frame."""

import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import nibabel
import numpy as np
import tifffile
from isal import isal_zlib
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from cm_lightning.errors import InputError
from cm_lightning.io.axes import Axes
from cm_lightning.io.images import FileImage
from cm_lightning.io.png import write_png
from cm_lightning.io.sequences import timestamps

# .nii.gz is first, so that the first suffix that matches is the right one.
WRITTEN_SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd", ".npz", ".tif", ".png")
# Higher levels take several times as long, but hardly make files of float32 values smaller.
COMPRESSION = 1
# Parameter wbits of zlib for its own format and for that of gzip, without a name and a time.
ZLIB_BITS, GZIP_BITS = 15, 31
META_IMAGE_TYPES = {"float32": "MET_FLOAT", "uint8": "MET_UCHAR", "uint16": "MET_USHORT", "int32": "MET_INT"}
NRRD_TYPES = {"float32": "float", "uint8": "uint8", "uint16": "uint16", "int32": "int"}
# Larger TIFF files need offsets of 64 bits; the difference to 4 GiB leaves space for the tags of the pages.
MAX_TIFF_BYTES = 2**32 - 2**28
# Names of header lines that would change how readers understand the values of a MetaImage file.
RESERVED_TAGS = re.compile(
    r"(ITK_|NRRD_|Element|Header).*|ObjectType|ObjectSubType|NDims|DimSize|BinaryData.*|CompressedData.*|Offset|Position|"
    r"Origin|Rotation|Orientation|TransformMatrix|CenterOfRotation|AnatomicalOrientation|DistanceUnits"
)
# Red, green and blue from 0 to 255.
Colour = tuple[int, int, int]


class FrameWriter:
    """Writes the frames of a result one after another, in the format given by the suffix of the path.

    The file has the axes, the geometry and the tags of the input. If successive frames are successive in the file, they
    are written as they come, so that the result as a whole is never in memory. All frames go to a temporary file beside
    the path. At the end of the ``with`` block, it replaces the file at the path; after an exception, it is removed.

    PNG and TIFF files have no world coordinates; the first axis becomes the rows, the second one the columns, and the
    third one the pages. NIfTI files of fractions are read as the values that they represent. MetaImage and NRRD files
    contain the tags and, if it is known, the rate ``FramesPerSecond``. NPZ files contain the arrays ``confidence``,
    ``spacing`` (empty if it is unknown) and ``affine``.

    Args:
        path: File with one of the suffixes ``.png``, ``.tif``, ``.nii``, ``.nii.gz``, ``.mha``, ``.nrrd`` and ``.npz``.
        template: The input. A 2D image has a single frame.
        axes: Meaning of the axes of the input; successive frames of a sequence count as elevation.
        dtype: float32, or uint8 or uint16 for values as fractions of the maximum of the type; for labels also int32.
        display_range: Values that viewers of NIfTI files show as black and as white.
        largest: Value that is the maximum of an integer type. None is for labels, which are stored as they are.
        colours: Red, green and blue from 0 to 255 of labels, by value. PNG files of uint8 contain them as a palette.

    Raises:
        InputError: The suffix is unknown, the axes are not those of the input, or the format does not support the type
            or the shape.

    Example:
        >>> axes = Axes("lateral depth elevation")
        >>> with FrameWriter(path, image, axes, np.dtype("float32")) as writer:  # doctest: +SKIP
        ...     for maps in solutions:
        ...         writer.write(maps)
    """

    def __init__(
        self,
        path: Path,
        template: FileImage,
        axes: Axes,
        dtype: np.dtype[Any],
        display_range: tuple[float, float] | None = None,
        largest: float | None = 1.0,
        colours: Mapping[int, Colour] | None = None,
    ) -> None:
        self._path = path
        # The process id separates simultaneous runs; files with a leading dot are no inputs of a later run.
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._axes = axes
        self._shape = template.array.shape
        if len(self._shape) != len(axes.names):
            raise InputError(
                f"{path} cannot be written since the axes {axes.text!r} do not fit the input's shape {self._shape}."
            )
        depth, lateral, *elevation = (self._shape[axis] for axis in axes.order)
        self._frame_shape = (depth, lateral)
        self._frames = elevation[0] if elevation else 1
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._largest = largest
        self._colours = colours
        self._open_sink = self._choose_sink(template, display_range)
        self._is_in_order = not elevation or (axes.names[-1] == "elevation" and 2 not in axes.reversed)
        self._written = 0
        self._buffer: NDArray[Any] | None = None
        self._file: BinaryIO | None = None
        self._sink: _Sink | None = None

    def _choose_sink(self, template: FileImage, display_range: tuple[float, float] | None) -> "_OpenSink":
        return _choose_format(
            self._path, template, self._axes, self._dtype, display_range, self._largest, self._colours
        )

    def __enter__(self) -> Self:
        """Create the temporary file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._written = 0
        self._file = self._temporary.open("wb")
        try:
            self._sink = self._open_sink(self._file)
            if not self._is_in_order:
                self._buffer = np.zeros(self._shape, self._dtype, order="F")
        except BaseException:
            self._remove()
            raise
        return self

    def write(self, frames: NDArray[Any]) -> None:
        """Write the next frames.

        Args:
            frames: Values from 0 to ``largest``, or labels, ``(frames, depth, lateral)``.

        Raises:
            ValueError: The frames have another shape than those of the input, or are too many, or this is not inside
                the ``with`` block.
        """
        if self._sink is None:
            raise ValueError(f"Frames of {self._path} can only be written inside of a with block.")
        if frames.ndim != 3 or frames.shape[1:] != self._frame_shape:
            depth, lateral = self._frame_shape
            raise ValueError(
                f"{self._path} needs frames of the shape (frames, {depth}, {lateral}), found {frames.shape}."
            )
        if self._written + len(frames) > self._frames:
            raise ValueError(f"{self._path} needs {self._frames} frames, found {self._written + len(frames)}.")
        # One frame after another, so that neither the file nor the memory depends on the number of frames per call.
        for frame in frames:
            values = self._convert(frame)
            volume = values if len(self._shape) == 2 else values[:, :, None]
            if self._buffer is None:
                self._sink.append(self._axes.to_file(volume))
            else:
                self._axes.from_file(self._buffer)[:, :, self._written] = values
            self._written += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file, or remove the temporary file after an exception."""
        if kind is not None:
            self._remove()
            return
        try:
            self._complete()
        except BaseException:
            self._remove()
            raise

    def _convert(self, frame: NDArray[Any]) -> NDArray[Any]:
        if self._largest is None or self._dtype.kind != "u":
            return frame.astype(self._dtype, copy=False)
        # Rounding errors may lead to values slightly above the largest one, which would become small integers.
        values = np.clip(frame.astype(np.float32), 0.0, self._largest)  # has more than 16 bits
        values *= np.iinfo(self._dtype).max / self._largest
        return np.rint(values, out=values).astype(self._dtype)

    def _complete(self) -> None:
        assert self._sink is not None
        assert self._file is not None
        if self._written != self._frames:
            raise ValueError(f"{self._path} needs {self._frames} frames, found {self._written}.")
        if self._buffer is not None:
            # In slices, of which each is converted to bytes without a copy of the whole.
            for index in range(self._shape[-1]):
                self._sink.append(self._buffer[..., index : index + 1])
            self._buffer = None
        self._sink.close()
        self._file.close()
        self._temporary.replace(self._path)
        self._sink = None

    def _remove(self) -> None:
        """Close and remove the temporary file; errors on the way would only hide the first one."""
        sink, self._sink, self._buffer = self._sink, None, None
        with suppress(Exception):
            if sink is not None:
                sink.close()
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        with suppress(OSError):
            self._temporary.unlink()


class ChannelWriter:
    """Writes several values per voxel, such as the probabilities of all classes, as the last axis of a NIfTI file.

    The frames of every channel go to a file of their own. At the end of the ``with`` block, they are joined to the file
    at the path; after an exception, they are removed.

    Args:
        path: File with the suffix ``.nii`` or ``.nii.gz``.
        template: The input; see :class:`FrameWriter`.
        axes: Meaning of the axes of the input.
        dtype: Type of the values; see :class:`FrameWriter`.
        channels: Number of values per voxel.
        display_range: Values that viewers show as black and as white.
        largest: Value that is the maximum of an integer type.

    Raises:
        InputError: See :class:`FrameWriter`.
    """

    def __init__(
        self,
        path: Path,
        template: FileImage,
        axes: Axes,
        dtype: np.dtype[Any],
        channels: int,
        display_range: tuple[float, float] | None = None,
        largest: float = 1.0,
    ) -> None:
        self._path = path
        suffix = ".nii.gz" if path.name.lower().endswith(".gz") else ".nii"
        header = _nifti_header(path, template, np.dtype(dtype), display_range, largest, channels)
        self._writers = [
            _HeadedWriter(
                path.with_name(f".{path.name}.{os.getpid()}.channel{number}{suffix}"),
                template,
                axes,
                dtype,
                largest=largest,
                header=header if number == 0 else b"",
            )
            for number in range(channels)
        ]
        self._open = ExitStack()

    @property
    def channels(self) -> Sequence[FrameWriter]:
        """Writer of every channel, for writing them at the same time."""
        return self._writers

    def __enter__(self) -> Self:
        """Create the temporary files."""
        with ExitStack() as stack:
            for writer in self._writers:
                stack.enter_context(writer)
            self._open = stack.pop_all()
        return self

    def write(self, frames: NDArray[Any]) -> None:
        """Write the next frames.

        Args:
            frames: Values from 0 to ``largest``, ``(channels, frames, depth, lateral)``.
        """
        for writer, values in zip(self._writers, frames, strict=True):
            writer.write(values)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Join the files of the channels, or remove them after an exception."""
        try:
            self._open.__exit__(kind, error, trace)
            if kind is None:
                first, *others = (writer.path for writer in self._writers)
                # Members of a gzip file that follow each other are read as one.
                with first.open("ab") as file:
                    for path in others:
                        with path.open("rb") as part:
                            shutil.copyfileobj(part, file, 2**20)
                first.replace(self._path)
        finally:
            for writer in self._writers:
                writer.path.unlink(missing_ok=True)


class _HeadedWriter(FrameWriter):
    """Writer of a NIfTI file with a given header.

    Args:
        *args: Arguments of :class:`FrameWriter`.
        header: Bytes before the values.
        **kwargs: Arguments of :class:`FrameWriter`.
    """

    def __init__(self, *args: Any, header: bytes, **kwargs: Any) -> None:
        self._header = header
        super().__init__(*args, **kwargs)

    @property
    def path(self) -> Path:
        return self._path

    def _choose_sink(self, template: FileImage, display_range: tuple[float, float] | None) -> "_OpenSink":
        return partial(_RawSink, header=lambda _: self._header, bits=_gzip_bits(self._path), is_header_compressed=True)


class _Sink(Protocol):
    """Open file to which arrays with the axes of the file are appended along the last one."""

    def append(self, array: NDArray[Any]) -> None:
        """Append the next slice of the last axis of a volume, or all of a 2D image."""

    def close(self) -> None:
        """Write what remains; the file itself stays open."""


_OpenSink = Callable[[BinaryIO], _Sink]


class _RawSink:
    """Header and values in Fortran order, which may be compressed.

    Args:
        file: File to write.
        header: Function from the number of bytes after the header to the header, whose length must not depend on it.
        bits: Parameter ``wbits`` of zlib for the compression of the values, or None.
        is_header_compressed: Whether the header is the beginning of the compressed data.
    """

    def __init__(
        self, file: BinaryIO, header: Callable[[int], bytes], bits: int | None, is_header_compressed: bool = False
    ) -> None:
        self._file = file
        self._header = header
        self._is_header_compressed = is_header_compressed
        self._compressor = None if bits is None else isal_zlib.compressobj(COMPRESSION, isal_zlib.DEFLATED, bits)
        if is_header_compressed:
            self._put(header(0))
        else:
            file.write(header(0))

    def append(self, array: NDArray[Any]) -> None:
        """Append values."""
        self._put(array.tobytes(order="F"))

    def close(self) -> None:
        """Complete the compressed data, and the size in the header."""
        if self._compressor is not None:
            self._file.write(self._compressor.flush())
        if not self._is_header_compressed:
            size = self._file.tell() - len(self._header(0))
            self._file.seek(0)
            self._file.write(self._header(size))

    def _put(self, data: bytes) -> None:
        self._file.write(data if self._compressor is None else self._compressor.compress(data))


class _PngSink:
    """PNG file of one frame; a volume with a single frame loses its elevation axis."""

    def __init__(self, file: BinaryIO, elevation: int | None, palette: bytes | None) -> None:
        self._file = file
        self._elevation = elevation
        self._palette = palette
        self._parts: list[NDArray[Any]] = []

    def append(self, array: NDArray[Any]) -> None:
        """Keep a part of the picture."""
        self._parts.append(array)

    def close(self) -> None:
        """Write the picture."""
        picture = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts, axis=-1)
        if self._elevation is not None:
            picture = picture.squeeze(self._elevation)
        write_png(self._file, picture, self._palette)


class _TiffSink:
    """TIFF file with one page per index of the last axis."""

    def __init__(self, file: BinaryIO, is_large: bool) -> None:
        self._writer = tifffile.TiffWriter(file, bigtiff=is_large, byteorder="<")

    def append(self, array: NDArray[Any]) -> None:
        """Append pages."""
        for page in [array] if array.ndim == 2 else np.moveaxis(array, 2, 0):
            self._writer.write(
                np.ascontiguousarray(page), contiguous=True, photometric="minisblack", metadata=None, software=False
            )

    def close(self) -> None:
        """Write the tags of the pages."""
        self._writer.close()


class _NpzSink:
    """NPZ file with the arrays ``confidence``, ``spacing`` and ``affine``.

    ``numpy.savez_compressed`` needs the whole array, so the members of the archive are written here.
    """

    def __init__(self, file: BinaryIO, template: FileImage, dtype: np.dtype[Any]) -> None:
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION)
        for name, values in (("spacing", template.spacing or ()), ("affine", template.affine)):
            with self._archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(values, np.float64), allow_pickle=False)
        self._values = self._archive.open("confidence.npy", "w", force_zip64=True)
        description = {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": True,
            "shape": template.array.shape,
        }
        np.lib.format.write_array_header_1_0(self._values, description)

    def append(self, array: NDArray[Any]) -> None:
        """Append values."""
        self._values.write(array.tobytes(order="F"))

    def close(self) -> None:
        """Write the table of contents."""
        self._values.close()
        self._archive.close()


def _choose_format(
    path: Path,
    template: FileImage,
    axes: Axes,
    dtype: np.dtype[Any],
    display_range: tuple[float, float] | None,
    largest: float | None,
    colours: Mapping[int, Colour] | None,
) -> _OpenSink:
    """Return the function that starts a file in the format given by its suffix.

    Raises:
        InputError: The format is unknown, or does not support the type or the shape.
    """
    suffix = next((suffix for suffix in WRITTEN_SUFFIXES if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise InputError(f"The format of {path} is not supported; expected one of {', '.join(WRITTEN_SUFFIXES)}.")
    supported = ["uint8", "uint16"]
    supported += [] if suffix == ".png" else ["float32"]
    supported += ["int32"] if largest is None and suffix not in (".png", ".tif") else []
    if dtype.name not in supported:
        raise InputError(f"{path} cannot contain values of type {dtype.name}; expected {' or '.join(supported)}.")
    match suffix:
        case ".png":
            elevation = axes.order[2] if len(axes.order) == 3 else None
            if elevation is not None and template.array.shape[elevation] != 1:
                raise InputError(
                    f"{path} can only contain one frame, but the input has {template.array.shape[elevation]}; expected "
                    f"one of the suffixes {', '.join(WRITTEN_SUFFIXES[:-1])}."
                )
            return partial(_PngSink, elevation=elevation, palette=_palette(colours) if dtype.itemsize == 1 else None)
        case ".tif":
            return partial(_TiffSink, is_large=template.array.size * dtype.itemsize > MAX_TIFF_BYTES)
        case ".npz":
            return partial(_NpzSink, template=template, dtype=dtype)
        case ".mha":
            bits = ZLIB_BITS if _is_compressible(dtype) else None
            return partial(_RawSink, header=partial(_meta_image_header, template, dtype), bits=bits)
        case ".nrrd":
            text = _nrrd_header(template, dtype)
            return partial(_RawSink, header=lambda _: text, bits=GZIP_BITS if _is_compressible(dtype) else None)
        case _:
            block = _nifti_header(path, template, dtype, display_range, largest)
            return partial(_RawSink, header=lambda _: block, bits=_gzip_bits(path), is_header_compressed=True)


def _palette(colours: Mapping[int, Colour] | None) -> bytes | None:
    """Return red, green and blue of all values of a byte; values without a colour are grey."""
    if colours is None:
        return None
    return bytes(part for value in range(256) for part in colours.get(value, (value, value, value)))


def _nifti_header(
    path: Path,
    template: FileImage,
    dtype: np.dtype[Any],
    display_range: tuple[float, float] | None,
    largest: float | None,
    channels: int | None = None,
) -> bytes:
    """Return the header of a NIfTI file.

    Args:
        path: The file, for error messages.
        template: Image with the same geometry.
        dtype: Type of the values.
        display_range: Values that viewers show as black and as white, or None.
        largest: Value that is the maximum of an integer type; None for labels.
        channels: Number of values per voxel, which become the last axis, or None.

    Returns:
        The bytes before the first value.

    Raises:
        InputError: NIfTI files do not support the shape.
    """
    affine = _affine(template)
    shape = template.array.shape if channels is None else (*template.array.shape, channels)
    header = nibabel.Nifti1Header(endianness="<")
    try:
        header.set_data_shape(shape)
    except HeaderDataError as error:
        raise InputError(f"{path} cannot be written since NIfTI files do not support the shape {shape}.") from error
    header.set_data_dtype(dtype)
    header.set_xyzt_units("mm")
    header.set_sform(affine, "aligned")
    header.set_qform(affine, "aligned")
    if not np.allclose(header.get_qform(), affine, rtol=1e-4, atol=1e-4):
        header.set_qform(affine, "unknown")  # it contains no shears, and would contradict the sform
    zooms = header.get_zooms()
    if template.spacing is not None and not np.allclose(zooms[: len(template.spacing)], template.spacing, rtol=1e-4):
        header.set_qform(affine, "unknown")
        header.set_zooms((*template.spacing, *zooms[len(template.spacing) :]))
    if largest is not None and dtype.kind == "u":
        header.set_slope_inter(largest / np.iinfo(dtype).max, 0.0)
    if display_range is not None:
        header["cal_min"], header["cal_max"] = display_range
    header["vox_offset"] = 352
    return bytes(header.binaryblock) + bytes(4)  # there are no extensions


def _gzip_bits(path: Path) -> int | None:
    """Return the parameter ``wbits`` of zlib for a NIfTI file, or None if it is not compressed."""
    return GZIP_BITS if path.name.lower().endswith(".gz") else None


def _is_compressible(dtype: np.dtype[Any]) -> bool:
    """Return whether values shrink by more than about a tenth; compression takes a third of the time of a map."""
    return dtype.kind in "iu"


def _affine(template: FileImage) -> NDArray[np.float64]:
    """Return the affine matrix, or one with the spacing if the input only states its spacing."""
    if template.spacing is not None and np.array_equal(template.affine, np.eye(4)):
        sides = list(template.spacing) + [1.0] * (3 - len(template.spacing))
        return np.diag([*sides, 1.0])
    return template.affine


def _itk_geometry(template: FileImage) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return spacing, directions of the axes (rows) and origin in the world coordinates of ITK (LPS)."""
    number = template.array.ndim
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ _affine(template)
    spacing = np.linalg.norm(affine[:3, :number], axis=0)
    spacing[spacing == 0] = 1.0
    directions = (affine[:number, :number] / spacing).T
    # The plane of a 2D image in a patient need not be that of the first two coordinates, but ITK only knows these.
    if abs(np.linalg.det(directions)) < 1e-3:
        directions = np.eye(number)
    return spacing, directions, affine[:number, 3]


def _words(values: NDArray[np.float64]) -> list[str]:
    return [f"{value + 0.0:.17g}" for value in values.ravel()]  # + 0.0 turns -0 into 0


def _tags(template: FileImage) -> dict[str, str]:
    """Return tags as lines of a header: without line breaks, separators in names, and names with another meaning."""
    rate = template.frames_per_second
    tags = {} if rate is None else timestamps(template.array.shape[-1], rate)
    for key, value in template.tags.items():
        name, text = re.sub(r"[\s=:#]+", "_", key.strip()), " ".join(value.split())
        if name and text and not RESERVED_TAGS.fullmatch(name):
            tags[name] = text
    return tags


def _meta_image_header(template: FileImage, dtype: np.dtype[Any], data_size: int) -> bytes:
    """Return the header of a MetaImage file, whose length does not depend on the size of the compressed data."""
    spacing, directions, origin = _itk_geometry(template)
    fields = {
        "ObjectType": "Image",
        "NDims": str(template.array.ndim),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(_is_compressible(dtype)),
        **({"CompressedDataSize": f"{data_size:020d}"} if _is_compressible(dtype) else {}),
        "TransformMatrix": " ".join(_words(directions)),
        "Offset": " ".join(_words(origin)),
        "CenterOfRotation": " ".join(["0"] * len(origin)),
        "ElementSpacing": " ".join(_words(spacing)),
        "DimSize": " ".join(str(side) for side in template.array.shape),
        "ElementType": META_IMAGE_TYPES[dtype.name],
        **_tags(template),
        "ElementDataFile": "LOCAL",  # must be last
    }
    return "".join(f"{key} = {text}\n" for key, text in fields.items()).encode()


def _nrrd_header(template: FileImage, dtype: np.dtype[Any]) -> bytes:
    """Return the header of an NRRD file."""
    spacing, directions, origin = _itk_geometry(template)
    number = template.array.ndim
    vectors = [f"({','.join(_words(step))})" for step in directions * spacing[:, None]]
    lines = [
        "NRRD0005",
        f"type: {NRRD_TYPES[dtype.name]}",
        f"dimension: {number}",
        # The named space has three coordinates; ITK reads an unnamed one in the same way.
        "space: left-posterior-superior" if number == 3 else f"space dimension: {number}",
        f"sizes: {' '.join(str(side) for side in template.array.shape)}",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {' '.join(['domain'] * number)}",
        "endian: little",
        f"encoding: {'gzip' if _is_compressible(dtype) else 'raw'}",
        f"space origin: ({','.join(_words(origin))})",
        *(f"{key}:={text}" for key, text in _tags(template).items()),
    ]
    return ("\n".join(lines) + "\n\n").encode()
