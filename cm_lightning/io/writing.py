"""Writing of results frame by frame, in any image format and with the geometry of the input."""

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cm_lightning.errors import InputError
from cm_lightning.io.axes import AXIS_NAMES, Axes
from cm_lightning.io.file_image import FileImage
from cm_lightning.io.sequences import KINDS, ORIENTATION, axes_orientation, frame_rate, timestamps
from cm_lightning.io.sinks import (
    ArchiveSink,
    Compression,
    PagesSink,
    PictureSink,
    Sink,
    VideoSink,
    VolumeSink,
    is_worth_compressing,
)
from cm_lightning.io.volume_headers import VolumeDescription, meta_image_header, nifti_header, nrrd_header

VOLUMES = (".nii.gz", ".nii", ".mha", ".nrrd")
ARCHIVES = (".npz",)
PAGES = (".tif", ".tiff")
PICTURES = {".png": "PNG", ".bmp": "BMP", ".jpg": "JPEG", ".jpeg": "JPEG"}
VIDEOS = {".mp4": "mp4", ".mov": "mov", ".avi": "avi", ".mkv": "matroska"}
WRITTEN_SUFFIXES = (*VOLUMES, *ARCHIVES, *PAGES, *PICTURES, *VIDEOS)


class FrameWriter:
    """Writer of the frames of a result one after another, in the format of the suffix of a file.

    The file has the geometry, tags and frame rate of a template. It is written under a temporary name beside the path
    and renamed at the end, so that there is never half a file, and an earlier file stays until then. Frames are written
    to the file at once, unless the elevation axis is reversed or not the slowest one, in which case the result is kept
    in memory until the end.

    Volumes (NIfTI, MetaImage, NRRD) of pictures and videos begin with the lateral axis, as usual, and pictures and
    videos of volumes with the depth axis. Otherwise, the axes are those of the template.

    Args:
        path: File to write: ``.nii``, ``.nii.gz``, ``.mha``, ``.nrrd``, ``.npz`` (array ``confidence``), ``.tif``,
            ``.png``, ``.bmp``, ``.jpg``, ``.mp4``, ``.mov``, ``.avi`` or ``.mkv``.
        template: Image whose geometry the result has.
        axes: Axes of the template.
        dtype: Type of the values in the file: uint8, uint16 or float32. Frames of floating-point numbers from 0 to 1
            are scaled to the range of an integer type; in NIfTI files, a slope scales them back.
        display_range: Values that viewers show as black and as white, for NIfTI.

    Raises:
        InputError: The format is not supported, or it does not support the type or the number of frames.
    """

    def __init__(
        self,
        path: Path,
        template: FileImage,
        axes: Axes,
        dtype: Any,
        display_range: tuple[float, float] | None = None,
    ) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        self._suffix = _suffix(path)
        self._axes = _stored_axes(self._suffix, template, axes)
        in_frames = axes.from_file(template.array).shape  # a view
        self._frames = in_frames[2] if len(in_frames) == 3 else 1
        self._frame_shape = (in_frames[0], in_frames[1])
        words = self._axes.text.split()
        sizes = dict(zip(AXIS_NAMES, in_frames, strict=False))
        self._shape = tuple(sizes[name] for name in self._axes.names)
        _check(path, self._suffix, self.dtype, self._frames)
        self._plane_axes = Axes(" ".join(word for word in words if word.lstrip("-") != "elevation"))
        self._whole: NDArray[Any] | None = None
        if len(words) == 3 and words[2] != "elevation":
            self._whole = np.empty(self._shape, self.dtype)
        self._written = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            self._sink: Sink = self._open(template, display_range)
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        is_finished = False
        try:
            if kind is None:
                self._finish()
                is_finished = True
        finally:
            if not is_finished:
                with suppress(Exception):  # the file is incomplete, and removed anyway
                    self._sink.close()
                self._temporary.unlink(missing_ok=True)

    def write(self, frames: NDArray[Any]) -> None:
        """Write the next frames.

        Args:
            frames: Frames in order, ``(frames, depth, lateral)``.

        Raises:
            ValueError: The frames have another size than those of the template, or there are too many.
        """
        if frames.ndim != 3 or frames.shape[1:] != self._frame_shape:
            raise ValueError(f"The frames have the shape {frames.shape}; expected (frames, *{self._frame_shape}).")
        if self._written + len(frames) > self._frames:
            raise ValueError(f"{self._written + len(frames)} frames were written to {self.path}, not {self._frames}.")
        for frame in frames:
            stored = _converted(frame, self.dtype)
            if self._whole is None:
                self._sink.write(self._plane_axes.to_file(stored))
            else:
                self._axes.from_file(self._whole)[..., self._written] = stored
            self._written += 1

    def _finish(self) -> None:
        if self._written != self._frames:
            raise ValueError(f"{self._written} frames were written to {self.path}, not {self._frames}.")
        if self._whole is not None:
            for index in range(self._shape[2]):
                self._sink.write(self._whole[:, :, index])
        self._sink.close()
        self._temporary.replace(self.path)

    def _open(self, template: FileImage, display_range: tuple[float, float] | None) -> Sink:
        shape = self._shape
        if self._suffix in VIDEOS:
            return VideoSink(self._temporary, VIDEOS[self._suffix], (shape[0], shape[1]), template.frames_per_second)
        if self._suffix in PICTURES:
            return PictureSink(self._temporary, PICTURES[self._suffix])
        if self._suffix in PAGES:
            return PagesSink(self._temporary, int(np.prod(shape)) * self.dtype.itemsize)
        if self._suffix in ARCHIVES:
            others = {"affine": template.affine, "axes": np.array(self._axes.text)}
            if template.spacing is not None:
                others["spacing"] = np.array(template.spacing)
            return ArchiveSink(self._temporary, shape, self.dtype, others)
        volume = _describe(template, self._axes, shape, self.dtype, display_range)
        compression: Compression = "none"
        match self._suffix:
            case ".mha":
                header, compression = meta_image_header(volume), "zlib" if volume.is_compressed else "none"
            case ".nrrd":
                header, compression = nrrd_header(volume), "gzip" if volume.is_compressed else "none"
            case _:
                header, compression = nifti_header(volume), "all" if self._suffix == ".nii.gz" else "none"
        return VolumeSink(self._temporary, header, self.dtype, compression)


def _suffix(path: Path) -> str:
    name = path.name.lower()
    for suffix in WRITTEN_SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise InputError(f"The format of {path} cannot be written; expected one of {', '.join(WRITTEN_SUFFIXES)}.")


def _check(path: Path, suffix: str, dtype: np.dtype[Any], frames: int) -> None:
    """Check that a format supports a type and a number of frames."""
    if suffix in PICTURES and frames > 1:
        raise InputError(f"{path} would contain {frames} frames, but the format {suffix} holds only one.")
    if suffix == ".png":
        types = ["uint8", "uint16"]
    elif suffix in PICTURES or suffix in VIDEOS:
        types = ["uint8"]
    else:
        types = ["uint8", "uint16", "float32"]
    if dtype.name not in types:
        raise InputError(
            f"{path} cannot contain values of type {dtype}; the format {suffix} supports {', '.join(types)}."
        )


def _stored_axes(suffix: str, template: FileImage, axes: Axes) -> Axes:
    """Return the axes of the file that is written."""
    if suffix in ARCHIVES or template.rows_first == (suffix not in VOLUMES):
        return axes
    if template.rows_first:
        words = axes.text.split()
        return Axes(" ".join([words[1], words[0], *words[2:]]))
    return Axes(" ".join(AXIS_NAMES[: len(axes.names)]))


def _converted(frame: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert numbers from 0 to 1 to the range of an integer type; integers keep their value."""
    if np.issubdtype(dtype, np.integer) and np.issubdtype(frame.dtype, np.floating):
        return np.rint(np.clip(frame, 0, 1) * np.float64(np.iinfo(dtype).max)).astype(dtype)
    return frame.astype(dtype, copy=False)


def _describe(
    template: FileImage,
    axes: Axes,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    display_range: tuple[float, float] | None,
) -> VolumeDescription:
    affine, tags = template.affine.copy(), dict(template.tags)
    if template.rows_first:
        # Rows and columns change places, so that x is the first axis.
        affine[:, [0, 1]] = affine[:, [1, 0]]
        if template.spacing is None:
            affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        tags[ORIENTATION] = axes_orientation(axes.text)
    rate = template.frames_per_second
    if rate is not None and len(shape) == 3 and frame_rate(tags, shape[2]) is None:
        tags |= {KINDS: "domain domain list", **timestamps(shape[2], rate)}
    return VolumeDescription(
        shape,
        dtype,
        affine,
        template.spacing is not None,
        rate,
        tags,
        display_range,
        slope=1 / np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1.0,
        is_compressed=is_worth_compressing(dtype),
    )
