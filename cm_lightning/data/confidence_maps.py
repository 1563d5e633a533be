"""Confidence maps of cases at file resolution, which are computed once and stored on disk."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_warn
from numpy.typing import NDArray

from cm_lightning.confidence import SOLVER_VERSION, ConfidenceMapSolver, ProbeGeometry, ProbeName
from cm_lightning.confidence.domain import FINDER_VERSION
from cm_lightning.data.cases import file_digest
from cm_lightning.data.frames import to_frames, to_volume
from cm_lightning.data.resampling import FRAMES_AT_ONCE
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.writing import replaced

# Maps are stored as 16-bit fractions of 1, which takes half the space of float32, with errors of at most 8e-6.
LEVELS = np.iinfo(np.uint16).max
# Order of the values in the files, which is part of their keys: frame by frame, so that a part of them is read quickly.
FILE_ORDER = "elevation depth lateral"


def frame_maps(
    solver: ConfidenceMapSolver, image: NDArray[np.generic], geometry: ProbeGeometry
) -> Iterator[NDArray[np.floating[Any]]]:
    """Compute the confidence maps of an image, several frames at once.

    Args:
        solver: Solver of the maps.
        image: Image, ``(depth, lateral[, elevation])``.
        geometry: Geometry of the insonified region.

    Yields:
        Confidence maps of the next frames, ``(frames, depth, lateral)``.
    """
    frames = to_frames(image)
    stack = frames.reshape(-1, *frames.shape[-2:])
    unit = eight_bit_unit(image) if solver.normalise == "fixed" else None
    for start in range(0, len(stack), FRAMES_AT_ONCE):
        part = stack[start : start + FRAMES_AT_ONCE]
        part = part if unit is None else part.astype(np.float32) / np.float32(unit)
        yield np.asarray(solver(part, *geometry.solver_masks(part)))


def eight_bit_unit(image: NDArray[np.generic]) -> float | None:
    """Return the intensity of white in an image whose type is wider than its intensities.

    Files often contain grey levels from 0 to 255 as int16 or float, which a fixed scale must know.

    Args:
        image: Intensities of any shape.

    Returns:
        255 for intensities from 0 to 255 in another type than uint8; None if the type determines the scale, or if the
        scale is not known.
    """
    lowest, highest = float(image.min()), float(image.max())
    is_wide = image.dtype != np.uint8 and (np.issubdtype(image.dtype, np.integer) or highest > 1)
    return 255.0 if is_wide and lowest >= 0 and highest <= 255 else None


@dataclass(frozen=True)
class ConfidenceCache:
    """Cache of confidence maps on disk. Their keys depend on the image file and all settings that affect the map.

    Attributes:
        folder: Folder of the cache.
        solver: Solver of the maps.
        domain: Kind of the insonified region.
        axes: File axes of the images.
    """

    folder: Path
    solver: ConfidenceMapSolver
    domain: ProbeName | Path
    axes: str

    def path(self, image_file: Path) -> Path:
        """Return the file of the confidence map of an image."""
        solver = asdict(self.solver)
        for name in ("max_batch", "backend"):  # These do not affect the map.
            del solver[name]
        depends_on = {
            "content": file_digest(image_file),
            "solver": solver,
            "domain": self._domain_key,
            "axes": self.axes,
            "order": FILE_ORDER,
            "version": SOLVER_VERSION,
        }
        key = hashlib.blake2b(json.dumps(depends_on, sort_keys=True).encode(), digest_size=16).hexdigest()
        return self.folder / f"{key}.npy"

    @property
    def _domain_key(self) -> str:
        """Part of the key for the region: its name, digest of its geometry file, or version of the search for it."""
        if isinstance(self.domain, Path):
            return f"file {file_digest(self.domain)}"
        return f"auto {FINDER_VERSION}" if self.domain == "auto" else self.domain

    def load(self, image_file: Path) -> NDArray[np.uint16]:
        """Load the confidence map of an image.

        Args:
            image_file: Image file.

        Returns:
            Memory-mapped confidence map in units of ``1 / LEVELS``, uint16, ``(depth, lateral[, elevation])``.

        Raises:
            MissingInputError: The map was not computed.
        """
        path = self.path(image_file)
        if not path.is_file():
            raise MissingInputError(
                f"The confidence map of {image_file} is not in {self.folder}; expected a map that "
                "UltrasoundDataModule.prepare_data has computed. The image may have changed during the run."
            )
        stored: NDArray[np.uint16] = np.load(path, mmap_mode="r")
        return to_volume(stored)

    def has_map(self, image_file: Path, shape: tuple[int, ...]) -> bool:
        """Return whether there is an undamaged map of an image. A damaged one is removed, with a message.

        Args:
            image_file: Image file.
            shape: Shape of the image, ``(depth, lateral[, elevation])``.

        Returns:
            Whether the map does not have to be computed.
        """
        path = self.path(image_file)
        if not path.is_file():
            return False
        if _is_intact(path, (*shape[2:], *shape[:2])):
            return True
        rank_zero_warn(f"The stored confidence map {path} of {image_file} is damaged; it is computed again.")
        path.unlink()
        return False

    def compute(self, image_file: Path, image: NDArray[np.generic], geometry: ProbeGeometry) -> Iterator[int]:
        """Compute and store the confidence map of an image, several frames at once.

        The file is renamed after it was written, so that there are no incomplete files.

        Args:
            image_file: Image file.
            image: Image, ``(depth, lateral[, elevation])``.
            geometry: Geometry of the insonified region.

        Yields:
            Number of frames that were computed since the last time.
        """
        path = self.path(image_file)
        header = {"descr": "<u2", "fortran_order": False, "shape": to_frames(image).shape}
        try:
            with replaced(path, is_shared=True) as partial, partial.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                digest = _new_digest()
                for maps in frame_maps(self.solver, image, geometry):
                    values = np.round(maps.astype(np.float64) * LEVELS).astype("<u2").tobytes()
                    digest.update(values)
                    file.write(values)
                    yield len(maps)
                # Readers of NumPy files ignore bytes after the values.
                file.write(digest.digest())
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"The confidence map of {image_file} cannot be computed: {error}") from error


def _new_digest() -> Any:
    return hashlib.blake2b(digest_size=16)


def _is_intact(path: Path, shape: tuple[int, ...]) -> bool:
    """Return whether a stored map has a shape, and the values with which it was written."""
    try:
        stored = np.load(path, mmap_mode="r")
        if stored.dtype != np.uint16 or stored.shape != shape:
            return False
        digest = _new_digest()
        for frame in stored if stored.ndim == 3 else [stored]:
            digest.update(np.ascontiguousarray(frame))
        with path.open("rb") as file:
            file.seek(-digest.digest_size, 2)
            end = file.read()
        return bool(end == digest.digest()) and path.stat().st_size == stored.offset + stored.nbytes + len(end)
    except (OSError, ValueError, EOFError, AttributeError):
        return False
