"""Confidence maps of cases: on whole frames at file resolution, once, kept on disk."""

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
from cm_lightning.data.cases import file_digest
from cm_lightning.data.frames import to_frames, to_volume
from cm_lightning.data.resampling import FRAMES_AT_ONCE
from cm_lightning.errors import MissingInputError

# Maps are kept as 16-bit fractions of 1: half the disk of float32, and wrong by at most 8e-6.
LEVELS = np.iinfo(np.uint16).max


def frame_maps(
    solver: ConfidenceMapSolver, image: NDArray[np.generic], geometry: ProbeGeometry
) -> Iterator[NDArray[np.floating[Any]]]:
    """Compute the maps of an image's whole frames, some at a time.

    Args:
        solver: Computes them.
        image: ``(depth, lateral[, elevation])``.
        geometry: What the probe insonifies in its frames.

    Yields:
        Maps of the next frames, ``(frames, depth, lateral)``.
    """
    frames = to_frames(image)
    stack = frames.reshape(-1, *frames.shape[-2:])
    for start in range(0, len(stack), FRAMES_AT_ONCE):
        part = stack[start : start + FRAMES_AT_ONCE]
        yield np.asarray(solver(part, *geometry.solver_masks(part)))


@dataclass(frozen=True)
class ConfidenceCache:
    """Maps on disk, each under a key made of the image file's content and everything the map depends on.

    Attributes:
        folder: Where the maps are kept.
        solver: Computes them.
        domain: Which pixels are insonified.
        axes: File axes of the images.
    """

    folder: Path
    solver: ConfidenceMapSolver
    domain: ProbeName
    axes: str

    def path(self, image_file: Path) -> Path:
        """Name the file that holds an image's map."""
        solver = asdict(self.solver)
        for name in ("max_batch", "backend"):  # where and how many at a time changes nothing
            del solver[name]
        depends_on = {
            "content": file_digest(image_file),
            "solver": solver,
            "domain": self.domain,
            "axes": self.axes,
            "version": SOLVER_VERSION,
        }
        key = hashlib.blake2b(json.dumps(depends_on, sort_keys=True).encode(), digest_size=16).hexdigest()
        return self.folder / f"{key}.npy"

    def load(self, image_file: Path) -> NDArray[np.uint16]:
        """Read an image's map.

        Args:
            image_file: The image.

        Returns:
            Map in units of ``1 / LEVELS``, ``(depth, lateral[, elevation])``, read from disk as it is used.

        Raises:
            MissingInputError: The map was not computed yet.
        """
        path = self.path(image_file)
        if not path.is_file():
            raise MissingInputError(
                f"The confidence map of {image_file} is not in {self.folder}; expected "
                "UltrasoundDataModule.prepare_data to have computed it. Was the image changed during the run?"
            )
        stored: NDArray[np.uint16] = np.load(path, mmap_mode="r")
        return stored

    def compute(self, image_file: Path, image: NDArray[np.generic], geometry: ProbeGeometry) -> Iterator[int]:
        """Compute and keep an image's map, some frames at a time.

        The file appears whole or not at all: it is written under another name and then renamed.

        Args:
            image_file: The image.
            image: Its content, ``(depth, lateral[, elevation])``.
            geometry: What the probe insonifies in its frames.

        Yields:
            How many frames were done since the last time.
        """
        path = self.path(image_file)
        frames = to_frames(image)
        kept = np.empty((frames[..., 0, 0].size, *frames.shape[-2:]), dtype=np.uint16)
        done = 0
        for maps in frame_maps(self.solver, image, geometry):
            kept[done : done + len(maps)] = np.round(maps.astype(np.float64) * LEVELS)
            done += len(maps)
            yield len(maps)
        volume = to_volume(kept.reshape(frames.shape))
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".partial", delete=False) as partial:
            np.save(partial, np.ascontiguousarray(volume))
        Path(partial.name).replace(path)
