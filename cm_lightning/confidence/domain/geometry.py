"""Geometry of the insonified region of a recording."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from cm_lightning.confidence.arrays import to_numpy
from cm_lightning.confidence.boundary import BoolArray, column_sink, column_source
from cm_lightning.confidence.domain.fan import Fan, find_fan
from cm_lightning.confidence.domain.insonified import Insonified
from cm_lightning.confidence.domain.rectangle import linear_probe_domain

# NumPy array, CuPy array or tensor, which is only copied to the CPU if intensities are needed.
Frames = Any
# User setting: frames without background, a rectangle inside a black background, a fan, or an automatic choice between
# fan and rectangle.
ProbeName = Literal["whole", "linear", "convex", "auto"]
GeometryKind = Literal["whole", "rectangle", "fan"]
# Arguments domain, source and sink of the solver. None leaves the choice to the solver.
SolverMasks = tuple[BoolArray | None, BoolArray | None, BoolArray | None]


@dataclass(frozen=True)
class ProbeGeometry:
    """Geometry of the insonified region of a recording.

    Attributes:
        kind: ``whole`` for entire frames, ``rectangle`` for one rectangle per frame, or ``fan`` for the same fan in all
            frames.
        fan: Fan in pixels of the frames; None for other kinds.
        threshold: Maximum intensity of the background, for rectangles.
    """

    kind: GeometryKind
    fan: Fan | None = None
    threshold: float = 0.0

    def domain(self, frames: Frames) -> BoolArray:
        """Return the insonified pixels.

        Args:
            frames: Frames of the recording, ``(..., depth, lateral)``. A rectangle is determined for each frame.

        Returns:
            Mask, ``(..., depth, lateral)`` for rectangles, and ``(depth, lateral)`` for other kinds.
        """
        if self.kind == "rectangle":
            return linear_probe_domain(to_numpy(frames), self.threshold)
        shape = (frames.shape[-2], frames.shape[-1])
        return np.ones(shape, dtype=bool) if self.fan is None else self.fan.masks(shape).domain

    def boundary(self, domain: BoolArray) -> tuple[BoolArray, BoolArray]:
        """Return source and sink within a given domain, which may have been resampled.

        Args:
            domain: Insonified pixels on the grid of this geometry, ``(..., depth, lateral)``.

        Returns:
            Source and sink, ``(..., depth, lateral)`` each.
        """
        if self.fan is None:
            return column_source(domain), column_sink(domain)
        masks = self.fan.masks((domain.shape[-2], domain.shape[-1]))
        return masks.source & domain, masks.sink & domain

    def masks(self, frames: Frames) -> Insonified:
        """Return the masks of all frames.

        Args:
            frames: Frames of the recording, ``(..., depth, lateral)``. A rectangle is determined for each frame.

        Returns:
            Masks, ``(..., depth, lateral)``, which may be read-only. For rectangles, the domain of a frame without
            bright pixels is empty.
        """
        if self.fan is not None:
            fan = self.fan.masks((frames.shape[-2], frames.shape[-1]))
            masks = (fan.domain, fan.source, fan.sink)
        else:
            domain = self.domain(frames)
            masks = (domain, *self.boundary(domain))
        return Insonified(*(np.broadcast_to(mask, frames.shape) for mask in masks))

    def solver_masks(self, frames: Frames) -> SolverMasks:
        """Return the masks that the solver cannot determine itself.

        Args:
            frames: Frames of the recording, ``(..., depth, lateral)``. A rectangle is determined for each frame.

        Returns:
            Arguments ``domain``, ``source`` and ``sink`` of :class:`cm_lightning.confidence.ConfidenceMapSolver`. For
            entire frames, all are None. For rectangles, only the domain is returned, ``(..., depth, lateral)``, so that
            the parameter ``sink`` of the solver is used. For a fan, all three are returned, ``(depth, lateral)`` each,
            so that the solver processes them only once for all frames.
        """
        if self.fan is not None:
            masks = self.fan.masks((frames.shape[-2], frames.shape[-1]))
            return masks.domain, masks.source, masks.sink
        return (self.domain(frames) if self.kind == "rectangle" else None), None, None

    def on_grid(self, old: tuple[int, int], new: tuple[int, int]) -> "ProbeGeometry":
        """Convert the geometry to another grid with the same extent.

        Args:
            old: Shape of the current grid, ``(depth, lateral)``.
            new: Shape of the new grid, ``(depth, lateral)``.

        Returns:
            Geometry in pixels of the new grid.
        """
        return self if self.fan is None else replace(self, fan=self.fan.on_grid(old, new))


def find_geometry(frames: Frames, probe: ProbeName, threshold: float = 0.0, aspect: float = 1.0) -> ProbeGeometry:
    """Find the geometry of the insonified region of frames.

    Args:
        frames: Frames, ``(..., depth, lateral)``, which were recorded with the same settings of the scanner. A fan is
            fitted to the pixelwise maximum of all frames, in which shadows have less influence.
        probe: ``whole`` for entire frames, ``linear`` for a rectangle inside a black background, ``convex`` for a fan,
            or ``auto`` for a fan if one is found and a rectangle otherwise.
        threshold: Maximum intensity of the background.
        aspect: Ratio of the pixel width to the pixel height, both in mm, since the arcs of a fan are only circular in
            mm.

    Returns:
        Geometry in pixels of the frames.

    Raises:
        ValueError: The probe is ``convex``, but there is no fan, or the probe is not one of the choices.
    """
    match probe:
        case "whole":
            return ProbeGeometry("whole")
        case "linear":
            return ProbeGeometry("rectangle", threshold=threshold)
        case "convex" | "auto":
            stack = to_numpy(frames).reshape(-1, *frames.shape[-2:])
            fan = find_fan(stack.max(axis=0), threshold, aspect)
            if fan is not None:
                return ProbeGeometry("fan", fan)
            if probe == "auto":
                return ProbeGeometry("rectangle", threshold=threshold)
            raise ValueError(
                "No fan of a convex probe was found; expected bright pixels between two slanted edges and a black "
                "background. Use 'linear' for a rectangle inside a black background, or 'whole' for frames without "
                "background."
            )
    raise ValueError(f"probe must be one of {', '.join(get_args(ProbeName))}, found {probe!r}.")


def find_insonified(
    frames: Frames, probe: ProbeName = "auto", threshold: float = 0.0, aspect: float = 1.0
) -> Insonified:
    """Find the insonified region of frames, together with its source and sink.

    Args:
        frames: Frames, ``(..., depth, lateral)``; see :func:`find_geometry`.
        probe: Kind of the insonified region; see :func:`find_geometry`.
        threshold: Maximum intensity of the background.
        aspect: Ratio of the pixel width to the pixel height, both in mm.

    Returns:
        Masks, ``(..., depth, lateral)``. For rectangles, the domain of a frame without bright pixels is empty.

    Raises:
        ValueError: See :func:`find_geometry`.
    """
    frames = to_numpy(frames)
    return find_geometry(frames, probe, threshold, aspect).masks(frames)
