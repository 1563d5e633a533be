"""Files as frames with the probe geometry that their maps need."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence import ConfidenceMapSolver, Polygon, ProbeGeometry, ProbeName, Sector, find_geometry
from cm_lightning.confidence.domain import DOUBTFUL_SCORE, Side, SideName
from cm_lightning.confidence.domain.orientation import lies_on_its_side
from cm_lightning.confidence.domain.sides import turn_to_top
from cm_lightning.confmap.files import InputFile, MapFormat
from cm_lightning.errors import InputError
from cm_lightning.io import PICTURE_AXES, VOLUME_AXES, Axes, FileImage, read_image, upright
from cm_lightning.io.geometry import geometry_of_frames

# Axes of files that do not state theirs. Single frames are taken as pictures, also in files of volumes.
USUAL_AXES = {2: PICTURE_AXES[2], 3: VOLUME_AXES[3]}
MapType = Literal["uint8", "uint16", "float32"]


@dataclass(frozen=True)
class MapSettings:
    """Settings of the maps of files.

    Attributes:
        solver: Solver of the maps.
        domain: Kind of the insonified region, or a geometry file; see
            :func:`cm_lightning.confidence.find_geometry`. With ``auto``, a region that the file states is used.
        up: Side of the frames at which the probe is.
        threshold: Maximum intensity of the background, for ``linear`` and ``convex``.
        axes: Axes of the files in their order; by default, those that the file states, or the usual ones.
        format: Format of the maps; that of the input by default.
        dtype: Type of the maps; by default, uint16 for PNG files, and float32 otherwise.
        certify: Whether to compute proven error bounds.
        preview: Whether to draw previews.
    """

    solver: ConfidenceMapSolver = field(default_factory=ConfidenceMapSolver)
    domain: ProbeName | Path = "auto"
    up: SideName = "top"
    threshold: float = 0.0
    axes: str | None = None
    format: MapFormat | None = None
    dtype: MapType | None = None
    certify: bool = False
    preview: bool = False


@dataclass(frozen=True, eq=False)
class Recording:
    """File with its frames, and what was found out about them.

    Attributes:
        file: The file.
        image: Its contents.
        axes: Meaning of the axes of the file.
        frames: Frames, ``(frames, depth, lateral)``.
        geometry: Geometry of the insonified region.
        up: Side of the frames at which the probe is.
        remarks: Sentences about decisions and doubts, for the user.
    """

    file: InputFile
    image: FileImage
    axes: Axes
    frames: NDArray[Any]
    geometry: ProbeGeometry
    up: Side
    remarks: tuple[str, ...]

    @property
    def chooses_sink(self) -> bool:
        """Whether the geometry determines source and sink, rather than the solver."""
        return isinstance(self.geometry.shape, Sector | Polygon)

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Pixel size in depth and lateral direction in mm, or None if it is unknown."""
        if self.image.spacing is None:
            return None
        depth, lateral = self.axes.order[:2]
        return self.image.spacing[depth], self.image.spacing[lateral]


def open_recording(file: InputFile, settings: MapSettings) -> Recording:
    """Read a file and find its insonified region.

    Args:
        file: The file.
        settings: Settings of the maps.

    Returns:
        The recording.

    Raises:
        InputError: The file cannot be read, does not have the configured axes, or contains no insonified region.
    """
    image = read_image(file.path)
    axes, remarks = _axes_of(file, image, settings.axes)
    array = axes.from_file(image.array)
    frames = array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)
    if 0 in frames.shape:
        raise InputError(f"{file.path} has the shape {image.array.shape}, and thus no pixels.")
    if np.issubdtype(frames.dtype, np.complexfloating):
        raise InputError(f"{file.path} contains complex numbers; expected real intensities.")
    geometry, up, doubts = _find_region(file, image, axes, frames, settings)
    if lies_on_its_side(turn_to_top(frames, up), turn_to_top(_domain(geometry, frames), up)):
        side = "left or right" if up in ("top", "bottom") else "top or bottom"
        doubts.append(
            f"The frames seem to lie on their side: judging by their texture, the probe is at the {side}, not at the "
            f"{up}. If it is, change --axes or --up."
        )
    return Recording(file, image, axes, frames, geometry, up, (*remarks, *doubts))


def chunks(recording: Recording, size: int) -> Iterator[NDArray[Any]]:
    """Yield the frames of a recording, at most ``size`` at once."""
    for start in range(0, len(recording.frames), size):
        yield recording.frames[start : start + size]


def layout_of_map(recording: Recording, as_picture: bool) -> tuple[FileImage, Axes]:
    """Return the geometry and the axes of the file of a map.

    Volumes keep those of the input. The rows of pictures are depth. Files of volumes begin with x, so that sequences of
    pictures, whose arrays begin with rows, are transposed.

    Args:
        recording: The recording.
        as_picture: Whether the file consists of pictures.

    Returns:
        Image with the shape and geometry of the file, and the meaning of its axes.
    """
    image, axes = recording.image, recording.axes
    if as_picture:
        frames = recording.frames
        array = frames[0] if image.array.ndim == 2 else np.moveaxis(frames, 0, 2)
        return replace(image, array=array), Axes(PICTURE_AXES[array.ndim])
    return upright(image, axes)


def _domain(geometry: ProbeGeometry, frames: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the insonified pixels of the middle frame."""
    return geometry.domain(frames[len(frames) // 2])


def _axes_of(file: InputFile, image: FileImage, chosen: str | None) -> tuple[Axes, list[str]]:
    """Return the axes of a file, and a remark if they are assumed."""
    number = image.array.ndim
    if number not in USUAL_AXES:
        raise InputError(f"{file.path} has {number} axes, shape {image.array.shape}; expected 2 or 3.")
    axes = Axes(chosen or image.axes or USUAL_AXES[number])
    if chosen is not None and len(axes.names) != number:
        if number == 2 and image.axes is not None:  # a picture beside volumes
            return Axes(image.axes), []
        raise InputError(
            f"--axes {chosen!r} has {len(axes.names)} axes, but {file.path} has {number}, shape {image.array.shape}."
        )
    if chosen is not None or image.axes is not None:
        return axes, []
    shape = " x ".join(str(side) for side in image.array.shape)
    return axes, [f"The axes of the file ({shape}) are taken as {axes.text!r}; --axes changes this."]


def _find_region(
    file: InputFile, image: FileImage, axes: Axes, frames: NDArray[Any], settings: MapSettings
) -> tuple[ProbeGeometry, Side, list[str]]:
    """Return the insonified region, the side of the probe, and doubts about them."""
    shape = (frames.shape[1], frames.shape[2])
    up: Side = "top" if settings.up == "auto" else settings.up
    if isinstance(settings.domain, Path):
        geometry = ProbeGeometry("shape", geometry_of_frames(settings.domain, axes, shape))
        return geometry, geometry.up, []
    if settings.domain == "auto" and image.region is not None and not axes.reversed and up == "top":
        return ProbeGeometry("shape", image.region), image.region.up, []
    if settings.domain == "convex" and up != "top":
        raise InputError(f"--up {up} cannot be combined with --domain convex; use --domain auto or a geometry file.")
    depth, lateral = axes.order[:2]
    aspect = 1.0 if image.spacing is None else image.spacing[lateral] / image.spacing[depth]
    try:
        if settings.domain != "auto":
            return find_geometry(frames, settings.domain, settings.threshold, aspect), up, []
        geometry = find_geometry(frames, "auto", aspect=aspect, up="auto")
        doubts = []
        if settings.up != "auto" and geometry.up != up:
            side, is_doubtful = geometry.up, geometry.score < DOUBTFUL_SCORE
            geometry = find_geometry(frames, "auto", aspect=aspect, up=up)
            if not is_doubtful:
                doubts.append(
                    f"The probe seems to be at the {side} of the frames, not at the {up}. If it is, use --up {side}"
                    + (", or other --axes." if frames.shape[0] > 1 else ".")
                )
    except ValueError as error:
        raise InputError(f"{file.path}: {error}") from error
    return geometry, geometry.up, doubts + ([geometry.warning] if geometry.warning else [])
