"""Confidence maps of cases at file resolution, which are computed once and stored on disk."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence import SOLVER_VERSION, ConfidenceMapSolver, ProbeGeometry, ProbeName
from cm_lightning.confidence.domain import FINDER_VERSION
from cm_lightning.data.cases import file_digest
from cm_lightning.data.frames import to_frames, to_volume
from cm_lightning.data.resampling import FRAMES_AT_ONCE
from cm_lightning.errors import MissingInputError

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
    for start in range(0, len(stack), FRAMES_AT_ONCE):
        part = stack[start : start + FRAMES_AT_ONCE]
        yield np.asarray(solver(part, *geometry.solver_masks(part)))


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
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".partial", delete=False) as partial:
            try:
                np.lib.format.write_array_header_1_0(partial, header)
                for maps in frame_maps(self.solver, image, geometry):
                    partial.write(np.round(maps.astype(np.float64) * LEVELS).astype("<u2").tobytes())
                    yield len(maps)
            except BaseException:
                Path(partial.name).unlink()
                raise
        Path(partial.name).replace(path)
