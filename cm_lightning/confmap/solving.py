"""Maps of recordings, several frames at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence import ConfidenceMapSolver, SolveInfo
from cm_lightning.confmap.recording import Recording

Maps = NDArray[np.floating[Any]]


@dataclass
class Totals:
    """What is known about the maps of a recording so far.

    Attributes:
        pixels: Number of insonified pixels.
        confidence: Sum of their confidence.
        error_estimate: Largest estimated error of a map.
        error_bound: Largest proven bound of the error of a map; NaN if none was computed.
        fallbacks: Number of frames that were solved directly.
        seconds: Time to compute the maps.
    """

    pixels: int = 0
    confidence: float = 0.0
    error_estimate: float = 0.0
    error_bound: float = float("nan")
    fallbacks: int = 0
    seconds: float = 0.0

    @property
    def mean_confidence(self) -> float:
        """Mean confidence of insonified pixels."""
        return self.confidence / self.pixels if self.pixels else float("nan")

    def add(self, maps: Maps, domain: NDArray[np.bool_], info: SolveInfo, which: slice, seconds: float) -> None:
        """Add maps.

        Args:
            maps: Maps, ``(frames, depth, lateral)``, which are 0 outside the domain.
            domain: Insonified pixels, broadcastable to ``maps``.
            info: Information about all solutions of the call.
            which: Frames of the call to which these maps belong.
            seconds: Time to compute these maps.
        """
        self.pixels += int(np.count_nonzero(np.broadcast_to(domain, maps.shape)))
        self.confidence += float(maps.sum(dtype=np.float64))
        self.error_estimate = max(self.error_estimate, float(info.error_estimate[which].max()))
        self.error_bound = float(np.fmax(self.error_bound, np.fmax.reduce(info.error_bound[which])))
        self.fallbacks += int(info.fallback[which].sum())
        self.seconds += seconds


def solve_frames(
    solver: ConfidenceMapSolver, frames: NDArray[Any], recording: Recording, certify: bool
) -> tuple[Maps, SolveInfo, NDArray[np.bool_]]:
    """Compute the maps of frames of one recording.

    Args:
        solver: The solver.
        frames: Some of its frames, ``(frames, depth, lateral)``.
        recording: The recording.
        certify: Whether to compute proven error bounds.

    Returns:
        Maps, ``(frames, depth, lateral)``, information about the solutions, and the insonified pixels, broadcastable to
        the maps.

    Raises:
        ValueError: A frame is not finite.
    """
    domain, source, sink = recording.geometry.solver_masks(frames)
    maps, info = solver.solve(frames, domain, source, sink, certify, recording.up)
    return np.asarray(maps), info, np.ones((1, 1, 1), dtype=bool) if domain is None else domain


def can_be_solved_together(first: Recording, second: Recording) -> bool:
    """Return whether the frames of two recordings can be solved in one call."""
    return (
        first.frames.shape[1:] == second.frames.shape[1:]
        and first.frames.dtype == second.frames.dtype
        and first.up == second.up
        and first.chooses_sink == second.chooses_sink
        and (first.geometry.kind == "whole") == (second.geometry.kind == "whole")
    )


def solve_pictures(
    solver: ConfidenceMapSolver, recordings: Sequence[Recording], certify: bool
) -> tuple[Maps, SolveInfo, NDArray[np.bool_]]:
    """Compute the maps of recordings that consist of a single frame each.

    Args:
        solver: The solver.
        recordings: Recordings that can be solved together.
        certify: Whether to compute proven error bounds.

    Returns:
        Maps, ``(recordings, depth, lateral)``, information about the solutions, and the insonified pixels, with the
        shape of the maps.

    Raises:
        ValueError: A frame is not finite.
    """
    frames = np.concatenate([recording.frames for recording in recordings])
    masks = [recording.geometry.solver_masks(recording.frames[0]) for recording in recordings]
    domain, source, sink = (
        None if masks[0][index] is None else np.stack([np.asarray(mask[index]) for mask in masks]) for index in range(3)
    )
    maps, info = solver.solve(frames, domain, source, sink, certify, recordings[0].up)
    return np.asarray(maps), info, np.ones(maps.shape, dtype=bool) if domain is None else domain
