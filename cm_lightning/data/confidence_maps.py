"""Confidence maps of cases: on whole frames at file resolution, once, kept on disk."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence import SOLVER_VERSION, ConfidenceMapSolver, Fan, find_fan, linear_probe_domain
from cm_lightning.data.cases import file_digest
from cm_lightning.errors import InputError, MissingInputError

DomainName = Literal["whole", "linear", "convex", "auto"]

# Maps are kept as 16-bit fractions of 1: half the disk of float32, and wrong by at most 8e-6.
LEVELS = np.iinfo(np.uint16).max
FRAMES_AT_ONCE = 64


def find_probe_fan(image: NDArray[np.generic], domain: DomainName, spacing: tuple[float, ...]) -> Fan | None:
    """Find the fan of a convex probe, which is the same in all frames of a volume.

    Args:
        image: ``(depth, lateral[, elevation])``.
        domain: Only ``convex`` and ``auto`` look for a fan.
        spacing: Voxel size in the order of the axes; a fan is round only in mm.

    Returns:
        The fan; None where none was looked for, or ``auto`` found none.

    Raises:
        InputError: The domain is said to be ``convex`` and there is no fan.
    """
    if domain not in ("convex", "auto"):
        return None
    fan = find_fan(image if image.ndim == 2 else image.max(axis=2), aspect=spacing[1] / spacing[0])
    if fan is None and domain == "convex":
        raise InputError(
            "domain is 'convex', but the image has no fan: expected bright pixels between two slanted edges, and black "
            "outside. For a linear probe say 'linear', for images without black surroundings 'whole'."
        )
    return fan


def find_domain(image: NDArray[np.generic], domain: DomainName, fan: Fan | None) -> NDArray[np.bool_]:
    """Find the insonified pixels of a frame or of every frame of a volume.

    Args:
        image: ``(depth, lateral[, elevation])``.
        domain: ``whole`` takes every pixel, ``linear`` the rectangle inside black bands, ``convex`` the fan, ``auto``
            the fan where there is one, else the rectangle.
        fan: From :func:`find_probe_fan`.

    Returns:
        Mask of the same shape.
    """
    if fan is not None:
        inside = fan.masks(image.shape[:2]).domain
        return inside if image.ndim == 2 else np.broadcast_to(inside[:, :, None], image.shape)
    if domain == "whole":
        return np.ones(image.shape, dtype=bool)
    return to_volume(linear_probe_domain(to_frames(image)))


def to_frames(volume: NDArray[Any]) -> NDArray[Any]:
    """Bring ``(depth, lateral[, elevation])`` to frames of shape ``([elevation, ]depth, lateral)``."""
    return volume if volume.ndim == 2 else np.moveaxis(volume, 2, 0)


def to_volume(frames: NDArray[Any]) -> NDArray[Any]:
    """Undo :func:`to_frames`."""
    return frames if frames.ndim == 2 else np.moveaxis(frames, 0, 2)


def frame_maps(
    solver: ConfidenceMapSolver, image: NDArray[np.generic], domain: DomainName, spacing: tuple[float, ...]
) -> Iterator[NDArray[np.floating[Any]]]:
    """Compute the maps of an image's whole frames, some at a time.

    Args:
        solver: Computes them.
        image: ``(depth, lateral[, elevation])``.
        domain: Which pixels are insonified.
        spacing: Voxel size in the order of the axes.

    Yields:
        Maps of the next frames, ``(frames, depth, lateral)``.
    """
    frames = to_frames(image)
    stack = frames.reshape(-1, *frames.shape[-2:])
    fan = find_probe_fan(image, domain, spacing)
    for start in range(0, len(stack), FRAMES_AT_ONCE):
        part = stack[start : start + FRAMES_AT_ONCE]
        if fan is not None:
            masks = fan.masks(part.shape[1:])
            yield np.asarray(solver(part, masks.domain, masks.source, masks.sink))
        else:
            yield np.asarray(solver(part, None if domain == "whole" else linear_probe_domain(part)))


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
    domain: DomainName
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

    def compute(self, image_file: Path, image: NDArray[np.generic], spacing: tuple[float, ...]) -> Iterator[int]:
        """Compute and keep an image's map, some frames at a time.

        The file appears whole or not at all: it is written under another name and then renamed.

        Args:
            image_file: The image.
            image: Its content, ``(depth, lateral[, elevation])``.
            spacing: Its voxel size in the order of the axes.

        Yields:
            How many frames were done since the last time.
        """
        path = self.path(image_file)
        frames = to_frames(image)
        kept = np.empty((frames[..., 0, 0].size, *frames.shape[-2:]), dtype=np.uint16)
        done = 0
        for maps in frame_maps(self.solver, image, self.domain, spacing):
            kept[done : done + len(maps)] = np.round(maps.astype(np.float64) * LEVELS)
            done += len(maps)
            yield len(maps)
        volume = to_volume(kept.reshape(frames.shape))
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".partial", delete=False) as partial:
            np.save(partial, np.ascontiguousarray(volume))
        Path(partial.name).replace(path)
