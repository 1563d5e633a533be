"""Which geometry a probe has, chosen once for all frames of a recording."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from cm_lightning.confidence.arrays import to_numpy
from cm_lightning.confidence.boundary import BoolArray, column_sink, column_source
from cm_lightning.confidence.domain.fan import Fan, find_fan
from cm_lightning.confidence.domain.insonified import Insonified
from cm_lightning.confidence.domain.rectangle import linear_probe_domain

# NumPy, CuPy or torch; brought to the host only if intensities are looked at.
Frames = Any
# What a user says about the probe: frames without black surroundings, a rectangle inside black bands, a fan, or
# whichever of the last two is found.
ProbeName = Literal["whole", "linear", "convex", "auto"]
GeometryKind = Literal["whole", "rectangle", "fan"]
# Masks for a solver's call: domain, source and sink, where None leaves the choice to the solver.
SolverMasks = tuple[BoolArray | None, BoolArray | None, BoolArray | None]


@dataclass(frozen=True)
class ProbeGeometry:
    """What the frames of one recording have in common.

    Attributes:
        kind: ``whole`` frames are insonified, or a ``rectangle`` of each, or one ``fan`` of all.
        fan: The fan, if that is the kind, in pixels of the frames.
        threshold: Intensity that the black around a rectangle does not exceed.
    """

    kind: GeometryKind
    fan: Fan | None = None
    threshold: float = 0.0

    def domain(self, frames: Frames) -> BoolArray:
        """Give the insonified pixels alone.

        Args:
            frames: Frames of the recording, ``(..., depth, lateral)``; a rectangle is searched in each of them.

        Returns:
            Of the shape of ``frames`` for rectangles, else ``(depth, lateral)``, one mask for all frames.
        """
        if self.kind == "rectangle":
            return linear_probe_domain(to_numpy(frames), self.threshold)
        shape = (frames.shape[-2], frames.shape[-1])
        return np.ones(shape, dtype=bool) if self.fan is None else self.fan.masks(shape).domain

    def boundary(self, domain: BoolArray) -> tuple[BoolArray, BoolArray]:
        """Give source and sink within a domain that is known, as it may be resampled.

        Args:
            domain: Insonified pixels, ``(..., depth, lateral)``, on the grid of this geometry.

        Returns:
            Source and sink, of the domain's shape.
        """
        if self.fan is None:
            return column_source(domain), column_sink(domain)
        masks = self.fan.masks((domain.shape[-2], domain.shape[-1]))
        return masks.source & domain, masks.sink & domain

    def masks(self, frames: Frames) -> Insonified:
        """Give the masks of frames, each with its own.

        Args:
            frames: Frames of the recording, ``(..., depth, lateral)``; a rectangle is searched in each of them.

        Returns:
            Masks of the shape of ``frames``, which may be read only. The domain of a frame without any bright pixel is
            empty if a rectangle is searched.
        """
        if self.fan is not None:
            fan = self.fan.masks((frames.shape[-2], frames.shape[-1]))
            masks = (fan.domain, fan.source, fan.sink)
        else:
            domain = self.domain(frames)
            masks = (domain, *self.boundary(domain))
        return Insonified(*(np.broadcast_to(mask, frames.shape) for mask in masks))

    def solver_masks(self, frames: Frames) -> SolverMasks:
        """Give the masks that a solver needs to be told; it completes them in its own way.

        Args:
            frames: Frames of the recording, ``(..., depth, lateral)``; a rectangle is searched in each of them.

        Returns:
            ``domain``, ``source`` and ``sink`` for :class:`cm_lightning.confidence.ConfidenceMapSolver`. Nothing for
            whole frames; the domain, of the shape of ``frames``, for rectangles, so that the solver's ``sink`` holds;
            all three for a fan, ``(depth, lateral)``, one for all frames, so that the solver looks at it once.
        """
        if self.fan is not None:
            masks = self.fan.masks((frames.shape[-2], frames.shape[-1]))
            return masks.domain, masks.source, masks.sink
        return (self.domain(frames) if self.kind == "rectangle" else None), None, None

    def on_grid(self, old: tuple[int, int], new: tuple[int, int]) -> "ProbeGeometry":
        """Give the same geometry on another grid over the same extent.

        Args:
            old: ``(depth, lateral)`` of the frames that it was found in.
            new: The other grid's.

        Returns:
            The geometry in the other grid's pixels.
        """
        return self if self.fan is None else replace(self, fan=self.fan.on_grid(old, new))


def find_geometry(frames: Frames, probe: ProbeName, threshold: float = 0.0, aspect: float = 1.0) -> ProbeGeometry:
    """Find the geometry of the probe that recorded frames.

    Args:
        frames: Frames of shape ``(..., depth, lateral)``, from one setting of the scanner: a fan is found on their
            pixelwise maximum, where shadows matter less.
        probe: ``whole`` takes every pixel, ``linear`` a rectangle inside black bands, ``convex`` a fan, ``auto`` a fan
            if there is one, else a rectangle.
        threshold: Intensity that black surroundings do not exceed.
        aspect: Width of a pixel over its height, in mm; a fan is round only in mm.

    Returns:
        The geometry, in pixels of the frames.

    Raises:
        ValueError: The probe is said to be convex and there is no fan, or it is none of the choices.
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
                "No fan of a convex probe was found: expected bright pixels between two slanted edges, and black "
                "outside; choose 'linear' for a rectangle inside black bands, or 'whole' for frames without black "
                "surroundings."
            )
    raise ValueError(f"The probe must be one of {', '.join(get_args(ProbeName))}, found {probe!r}.")


def find_insonified(
    frames: Frames, probe: ProbeName = "auto", threshold: float = 0.0, aspect: float = 1.0
) -> Insonified:
    """Find what a probe insonified, in every frame or, for convex probes, in all of them together.

    Args:
        frames: As for :func:`find_geometry`.
        probe: The same.
        threshold: The same.
        aspect: The same.

    Returns:
        Masks of the shape of ``frames``. The domain of a frame without any bright pixel is empty, unless the probe is
        said to insonify whole frames.

    Raises:
        ValueError: As for :func:`find_geometry`.
    """
    frames = to_numpy(frames)
    return find_geometry(frames, probe, threshold, aspect).masks(frames)
