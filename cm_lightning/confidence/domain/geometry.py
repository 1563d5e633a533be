"""Geometry of the insonified region of a recording."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.arrays import convert_like, to_numpy
from cm_lightning.confidence.boundary import BoolArray
from cm_lightning.confidence.domain.rectangle import linear_probe_domain
from cm_lightning.confidence.domain.shapes import (
    DOUBTFUL_SCORE,
    Geometry,
    Insonified,
    MaskRegion,
    Polygon,
    Rectangle,
    Sector,
    column_ends,
)
from cm_lightning.confidence.domain.sides import SIDES, Side

# Version of the network and of the fit, which is part of the keys of cached maps. It must be increased if regions
# change.
FINDER_VERSION = 2
# NumPy array, CuPy array or tensor, which is only copied to the CPU if intensities are needed.
Frames = Any
# User setting: frames without background, a rectangle inside a black background, a fan before a black background, or
# the region of any screen.
ProbeName = Literal["whole", "linear", "convex", "auto"]
GeometryKind = Literal["whole", "rectangles", "shape"]
# Arguments domain, source and sink of the solver. None leaves the choice to the solver.
SolverMasks = tuple[BoolArray | None, BoolArray | None, BoolArray | None]
SideName = Literal["auto", "top", "bottom", "left", "right"]


@dataclass(frozen=True)
class ProbeGeometry:
    """Geometry of the insonified region of a recording.

    Attributes:
        kind: ``whole`` for entire frames, ``rectangles`` for one rectangle per frame inside a black background, or
            ``shape`` for the same geometry in all frames.
        shape: Geometry in pixels of the frames; None for other kinds.
        threshold: Maximum intensity of the background, for ``rectangles``.
        score: Estimated probability that the detected region is correct; 1 if it was given or follows a rule.
    """

    kind: GeometryKind
    shape: Geometry | None = None
    threshold: float = 0.0
    score: float = 1.0

    @property
    def up(self) -> Side:
        """Side at which the probe is."""
        return "top" if self.shape is None else self.shape.up

    @property
    def warning(self) -> str | None:
        """Warning for a region that is probably wrong; None otherwise."""
        if self.score >= DOUBTFUL_SCORE or self.shape is None:
            return None
        return (
            f"The detected insonified region (a {self.shape.kind}) is probably wrong (score {self.score:.2f}). Check "
            "it; if it is wrong, specify the geometry of this scanner, for example in a geometry file."
        )

    def domain(self, frames: Frames) -> BoolArray:
        """Return the insonified pixels.

        Args:
            frames: Frames of the recording, ``(..., depth, lateral)``. Rectangles are determined for each frame.

        Returns:
            Mask, ``(..., depth, lateral)`` for rectangles, and ``(depth, lateral)`` for other kinds.
        """
        if self.kind == "rectangles":
            return linear_probe_domain(to_numpy(frames), self.threshold)
        shape = (frames.shape[-2], frames.shape[-1])
        return np.ones(shape, dtype=bool) if self.shape is None else self.shape.masks(shape).domain

    def boundary(self, domain: BoolArray) -> tuple[BoolArray, BoolArray]:
        """Return source and sink within a given domain, which may have been resampled.

        Args:
            domain: Insonified pixels on the grid of this geometry, ``(..., depth, lateral)``.

        Returns:
            Source and sink, ``(..., depth, lateral)`` each.
        """
        if not isinstance(self.shape, Sector | Polygon):
            return column_ends(domain, self.up)
        masks = self.shape.masks((domain.shape[-2], domain.shape[-1]))
        return masks.source & domain, masks.sink & domain

    def masks(self, frames: Frames) -> Insonified:
        """Return the masks of all frames.

        Args:
            frames: Frames of the recording, ``(..., depth, lateral)``. Rectangles are determined for each frame.

        Returns:
            Masks, ``(..., depth, lateral)``, which may be read-only. For rectangles, the domain of a frame without
            bright pixels is empty.
        """
        if self.shape is not None:
            masks = self.shape.masks((frames.shape[-2], frames.shape[-1]))
            arrays = (masks.domain, masks.source, masks.sink)
        else:
            domain = self.domain(frames)
            arrays = (domain, *self.boundary(domain))
        domain, source, sink = (np.broadcast_to(array, tuple(frames.shape)) for array in arrays)
        return Insonified(domain, source, sink, self.shape, self.score, self.up)

    def solver_masks(self, frames: Frames) -> SolverMasks:
        """Return the masks that the solver cannot determine itself.

        Args:
            frames: Frames of the recording, ``(..., depth, lateral)``. Rectangles are determined for each frame.

        Returns:
            Arguments ``domain``, ``source`` and ``sink`` of :class:`cm_lightning.confidence.ConfidenceMapSolver`. For
            entire frames, all are None. For rectangles and masks, only the domain is returned, so that the parameter
            ``sink`` of the solver is used. For sectors and polygons, all three are returned. Masks that are the same in
            all frames have the shape ``(depth, lateral)``, so that the solver processes them only once.
        """
        if self.kind == "whole":
            return None, None, None
        if isinstance(self.shape, Sector | Polygon):
            masks = self.shape.masks((frames.shape[-2], frames.shape[-1]))
            return masks.domain, masks.source, masks.sink
        return self.domain(frames), None, None

    def on_grid(self, old: tuple[int, int], new: tuple[int, int]) -> "ProbeGeometry":
        """Convert the geometry to another grid with the same extent.

        Args:
            old: Shape of the current grid, ``(depth, lateral)``.
            new: Shape of the new grid, ``(depth, lateral)``.

        Returns:
            Geometry in pixels of the new grid.
        """
        return self if self.shape is None else replace(self, shape=self.shape.on_grid(old, new))


def find_geometry(
    frames: Frames,
    probe: ProbeName | Geometry,
    threshold: float = 0.0,
    aspect: float = 1.0,
    up: SideName = "auto",
) -> ProbeGeometry:
    """Find the geometry of the insonified region of frames.

    Args:
        frames: Frames, ``(..., depth, lateral)``, which were recorded with the same settings of the scanner.
        probe: ``whole`` for entire frames, ``linear`` for a rectangle inside a black background in each frame,
            ``convex`` for a fan before a black background, ``auto`` for the region of any screen, or a geometry that is
            known. For ``convex`` and ``auto``, all frames have the same geometry.
        threshold: Maximum intensity of the background, for ``linear`` and ``convex``.
        aspect: Ratio of the pixel width to the pixel height, both in mm, since the arcs of a fan are only circular in
            mm.
        up: Side at which the probe is, for ``auto``; ``auto`` determines it from the image.

    Returns:
        Geometry in pixels of the frames.

    Raises:
        ValueError: The frames have fewer than two axes, are not finite or may be colours, the probe is ``convex``, but
            there is no fan, or the probe or the side is not one of the choices.
    """
    if isinstance(probe, Rectangle | Sector | Polygon | MaskRegion):
        return ProbeGeometry("shape", probe)
    if up != "auto" and up not in SIDES:
        raise ValueError(f"up must be auto or one of {', '.join(SIDES)}, found {up!r}.")
    match probe:
        case "whole":
            return ProbeGeometry("whole")
        case "linear":
            return ProbeGeometry("rectangles", threshold=threshold)
        case "convex":
            # SciPy, which takes time to import, is only needed for this and for "auto".
            from cm_lightning.confidence.domain.fan import find_fan

            stack = to_numpy(frames).reshape(-1, *frames.shape[-2:])
            fan = find_fan(stack.max(axis=0), threshold, aspect)
            if fan is None:
                raise ValueError(
                    "No fan of a convex probe was found; expected bright pixels between two slanted edges and a black "
                    "background. Use 'auto' for other screens, 'linear' for a rectangle inside a black background, or "
                    "'whole' for frames without background."
                )
            return ProbeGeometry("shape", fan)
        case "auto":
            from cm_lightning.confidence.domain.finder import detect_with_score

            stack = to_numpy(frames)
            stack = stack.reshape(-1, *stack.shape[-2:])
            if len(stack) == 0 or stack.size == 0:
                return ProbeGeometry("whole")
            geometry, score = detect_with_score(stack, aspect, up)
            return ProbeGeometry("shape", geometry, score=score)
    raise ValueError(f"probe must be a geometry or one of {', '.join(get_args(ProbeName))}, found {probe!r}.")


def find_insonified(
    frames: Frames,
    probe: ProbeName | Geometry = "auto",
    threshold: float = 0.0,
    aspect: float = 1.0,
    up: SideName = "auto",
) -> Insonified:
    """Find the insonified region of frames, together with its source and sink.

    A warning says if the region is probably wrong.

    Args:
        frames: Frames, ``(..., depth, lateral)``, as a NumPy array, CuPy array or tensor; see :func:`find_geometry`.
        probe: Kind of the insonified region, or its geometry; see :func:`find_geometry`.
        threshold: Maximum intensity of the background, for ``linear`` and ``convex``.
        aspect: Ratio of the pixel width to the pixel height, both in mm.
        up: Side at which the probe is, for ``auto``; ``auto`` determines it from the image.

    Returns:
        Masks with the type and device of the frames, ``(..., depth, lateral)``. With ``linear``, the domain of a frame
        without bright pixels is empty.

    Raises:
        ValueError: See :func:`find_geometry`.
    """
    check_frames(frames)
    geometry = find_geometry(frames, probe, threshold, aspect, up)
    if geometry.warning is not None:
        warnings.warn(geometry.warning, UserWarning, stacklevel=2)
    masks = geometry.masks(frames)
    domain, source, sink = (convert_like(mask.copy(), frames) for mask in (masks.domain, masks.source, masks.sink))
    return replace(masks, domain=domain, source=source, sink=sink)


def check_frames(frames: Frames) -> None:
    """Check that an array contains grey frames.

    Args:
        frames: Any array, which should be ``(..., depth, lateral)``.

    Raises:
        ValueError: The array has fewer than two axes, may contain colours, or is not finite.
    """
    shape = tuple(frames.shape)
    if len(shape) < 2:
        raise ValueError(f"frames must have the shape (..., depth, lateral), found {shape}.")
    if len(shape) >= 3 and shape[-1] in (3, 4) and shape[-2] > 4:
        raise ValueError(
            f"frames must have the shape (..., depth, lateral), found {shape}, whose last axis seems to contain colour "
            "channels; convert it to grey levels."
        )
    values: NDArray[np.generic] = to_numpy(frames)
    if np.issubdtype(values.dtype, np.inexact) and not np.isfinite(values).all():
        raise ValueError("frames must be finite, found values that are not.")
