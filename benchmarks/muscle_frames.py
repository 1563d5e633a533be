"""Frames of real muscles for the benchmarks of raters: reading, cropping to the insonified region, confidence maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cm_lightning.confidence import ConfidenceMapSolver, find_geometry
from cm_lightning.data.duplicates import insonified_part, near_duplicate_groups
from cm_lightning.variability.row_raters import cases_by_sequence

Array = NDArray[np.floating[Any]]
BOUNDARIES = ("superficial", "deep")


@dataclass(frozen=True)
class MuscleFrame:
    """Insonified part of a frame.

    Attributes:
        name: Name of the file without its suffix.
        subject: Subject, or group of near-duplicates if subjects are unknown.
        sequence: Sequence of frames, of the same subject.
        image: Intensities from 0 to 1, ``(depth, lateral)``.
        confidence: Confidence map of the part at the resolution of the file, ``(depth, lateral)``.
        top: Row of the file at which the part begins.
        left: Column of the file at which the part begins.
    """

    name: str
    subject: str
    sequence: str
    image: Array
    confidence: Array
    top: int
    left: int


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Return the grey levels of a picture, ``(depth, lateral)``."""
    return np.asarray(Image.open(path).convert("L"))


def crop(
    paths: Sequence[Path], solver: ConfidenceMapSolver, subject: str, sequence: str
) -> tuple[list[MuscleFrame], NDArray[np.bool_]]:
    """Read frames of one sequence, find their region and compute the confidence map of its rectangle.

    Args:
        paths: Files of the frames, which have the same size and region.
        solver: Solver of the maps.
        subject: Subject of the frames.
        sequence: Name of the sequence.

    Returns:
        The frames, and the pixels of the region in the files, ``(depth, lateral)``.
    """
    stack = np.stack([read_picture(path) for path in paths])
    inside = np.asarray(find_geometry(stack, "auto").domain(stack[0]))
    parts = np.stack([insonified_part(picture, inside) for picture in stack])
    maps = np.asarray(solver(parts))
    top, left = int(np.flatnonzero(inside.any(axis=1))[0]), int(np.flatnonzero(inside.any(axis=0))[0])
    return [
        MuscleFrame(path.stem, subject, sequence, part.astype(np.float32) / 255, confidence, top, left)
        for path, part, confidence in zip(paths, parts, maps, strict=True)
    ], inside


def read_timtrack(root: Path, solver: ConfidenceMapSolver | None = None) -> list[MuscleFrame]:
    """Read the frames with three raters.

    Args:
        root: Folder with ``frames`` and ``raters.csv``.
        solver: Solver of the maps; that of the study by default.

    Returns:
        The frames.
    """
    table = pd.read_csv(root / "raters.csv")
    frames: list[MuscleFrame] = []
    for (subject, sequence), part in table.groupby(["subject", "sequence"], sort=False):
        paths = [root / "frames" / f"{name}.png" for name in dict.fromkeys(part["frame"])]
        frames += crop(paths, solver or ConfidenceMapSolver(), str(subject), str(sequence))[0]
    return frames


def read_dltrack(root: Path, solver: ConfidenceMapSolver | None = None) -> list[tuple[MuscleFrame, NDArray[np.bool_]]]:
    """Read the frames with masks of the aponeuroses.

    Args:
        root: Folder with ``images`` and ``masks``.
        solver: Solver of the maps; that of the study by default.

    Returns:
        The frames with their masks, ``(depth, lateral)``. The subject is the group of near-duplicates.
    """
    frames, masks = [], []
    for path in sorted((root / "images").glob("*.png")):
        found, inside = crop([path], solver or ConfidenceMapSolver(), "", path.stem)
        frames += found
        masks.append(insonified_part(read_picture(root / "masks" / path.name), inside) > 0)
    groups = near_duplicate_groups([frame.image for frame in frames])
    return [
        (
            MuscleFrame(
                frame.name, f"group{group}", frame.sequence, frame.image, frame.confidence, frame.top, frame.left
            ),
            mask,
        )
        for frame, mask, group in zip(frames, masks, groups, strict=True)
    ]


def depth_extents(timtrack: Path, rows: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Return the first row and the number of rows of the insonified region of every case of a table."""
    extents: dict[str, tuple[int, int]] = {}
    for cases in cases_by_sequence(rows).values():
        stack = np.stack([read_picture(timtrack / "frames" / f"{case}.png") for case in cases])
        inside = np.flatnonzero(np.asarray(find_geometry(stack, "auto").domain(stack[0])).any(axis=1))
        extents |= dict.fromkeys(cases, (int(inside[0]), int(inside[-1] - inside[0] + 1)))
    return extents


def boundary_rows(mask: NDArray[np.bool_]) -> Array:
    """Return the rows of the two boundaries of the muscle in every column of a mask of aponeuroses.

    The muscle is between the first and the second aponeurosis from the top. Its boundaries are the lower edge of the
    first one and the upper edge of the second one.

    Args:
        mask: Mask of the aponeuroses, ``(depth, lateral)``.

    Returns:
        Rows of the superficial and the deep boundary, ``(2, lateral)``; NaN in columns without exactly two aponeuroses.
    """
    rows = np.full((2, mask.shape[1]), np.nan)
    for column in range(mask.shape[1]):
        bands, number = ndimage.label(mask[:, column])
        if number == 2:
            rows[0, column] = np.flatnonzero(bands == 1)[-1] + 0.5
            rows[1, column] = np.flatnonzero(bands == 2)[0] - 0.5
    return rows
