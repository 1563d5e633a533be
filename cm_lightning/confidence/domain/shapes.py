"""Geometric families of insonified regions: rectangle, sector, polygon, and any mask.

The pixel in row i and column j covers the rows from i to i + 1 and the columns from j to j + 1. It belongs to a region
if its centre (i + 0.5, j + 0.5) does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.boundary import BoolArray, column_sink, column_source
from cm_lightning.confidence.domain.sides import Side, turn_back, turn_to_top

FloatArray = NDArray[np.floating]
Shape = tuple[int, int]

# Findings with a lower score cause a warning.
DOUBTFUL_SCORE = 0.5


@dataclass(frozen=True)
class Insonified:
    """Masks of the insonified region, for :class:`cm_lightning.confidence.ConfidenceMapSolver`. All shapes are equal.

    Attributes:
        domain: Insonified pixels, ``(..., depth, lateral)``.
        source: Insonified pixels at the face of the probe, ``(..., depth, lateral)``.
        sink: Deepest insonified pixels, ``(..., depth, lateral)``.
        geometry: Geometry of the region, which is the same in all frames, or None.
        score: Estimated probability that the detected region is correct; 1 if it was given.
        up: Side of the frames at which the probe is.
    """

    domain: Any
    source: Any
    sink: Any
    geometry: "Geometry | None" = None
    score: float = 1.0
    up: Side = "top"


@dataclass(frozen=True)
class Rectangle:
    """Rectangle of a linear probe. Lengths are in pixels.

    Attributes:
        top: First row.
        bottom: Row after the last one.
        left: First column.
        right: Column after the last one.
        up: Side at which the probe is.
    """

    kind: ClassVar[str] = "rectangle"

    top: float
    bottom: float
    left: float
    right: float
    up: Side = "top"

    def __post_init__(self) -> None:
        if not (self.top < self.bottom and self.left < self.right):
            raise ValueError(
                "A rectangle needs top < bottom and left < right, found "
                f"top {self.top:g}, bottom {self.bottom:g}, left {self.left:g} and right {self.right:g}."
            )

    def masks(self, shape: Shape) -> Insonified:
        """Return the masks on a frame ``(depth, lateral)``. Source and sink are the first and last pixels."""
        row, column = _centres(shape)
        domain = (row >= self.top) & (row < self.bottom) & (column >= self.left) & (column < self.right)
        return Insonified(domain, *column_ends(domain, self.up), geometry=self, up=self.up)

    def on_grid(self, old: Shape, new: Shape) -> "Rectangle":
        """Convert to another grid with the same extent."""
        rows, columns = new[0] / old[0], new[1] / old[1]
        return Rectangle(self.top * rows, self.bottom * rows, self.left * columns, self.right * columns, self.up)


@dataclass(frozen=True)
class Sector:
    """Sector between two arcs, of a convex or phased-array probe. Radii are in units of the pixel height.

    Attributes:
        apex_row: Row of the centre of both arcs, which may be outside the frame.
        apex_column: Column of the centre of both arcs.
        inner_radius: Radius of the face of the probe; 0 if the beams start in one point.
        outer_radius: Radius of the deepest samples.
        left_angle: Angle of the first edge in degrees: 0 points down, 90 to the right, 180 up.
        right_angle: Angle of the last edge in degrees, larger than ``left_angle``.
        aspect: Ratio of the pixel width to the pixel height, both in mm.
        top: First row, if the sector is cut there.
        bottom: Row after the last one, if the sector is cut there.
        left: First column, if the sector is cut there.
        right: Column after the last one, if the sector is cut there.
    """

    kind: ClassVar[str] = "sector"

    apex_row: float
    apex_column: float
    inner_radius: float
    outer_radius: float
    left_angle: float
    right_angle: float
    aspect: float = 1.0
    top: float | None = None
    bottom: float | None = None
    left: float | None = None
    right: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.inner_radius < self.outer_radius:
            raise ValueError(
                "A sector needs 0 <= inner_radius < outer_radius, found "
                f"inner_radius {self.inner_radius:g} and outer_radius {self.outer_radius:g}."
            )
        if not 0 < self.right_angle - self.left_angle <= 360:
            raise ValueError(
                "A sector needs left_angle < right_angle <= left_angle + 360, found "
                f"left_angle {self.left_angle:g} and right_angle {self.right_angle:g}."
            )
        if not self.aspect > 0:
            raise ValueError(f"The aspect of a sector must be positive, found {self.aspect:g}.")

    @property
    def up(self) -> Side:
        """Side at which the probe is, from the direction of the middle beam."""
        quarter = round((self.left_angle + self.right_angle) / 180) % 4
        sides: tuple[Side, ...] = ("top", "left", "bottom", "right")
        return sides[quarter]

    def masks(self, shape: Shape) -> Insonified:
        """Return the masks on a frame.

        The source pixels are where beams enter the region, and the sink pixels are where they leave it: at the inner
        and outer arc, or where the sector is cut or extends beyond the frame. The slanted edges belong to neither.

        Args:
            shape: Shape of the frame, ``(depth, lateral)``.

        Returns:
            Masks, ``(depth, lateral)`` each.
        """
        row, column = _centres(shape)
        down, across = row - self.apex_row, (column - self.apex_column) * self.aspect
        radius, angle = np.hypot(down, across), np.degrees(np.arctan2(across, down))
        turn = (angle - self.left_angle) % 360
        in_angle = turn <= self.right_angle - self.left_angle
        # The remainder of a tiny negative number is 360.
        in_angle |= turn > 360 - 1e-9
        domain = in_angle & (radius >= self.inner_radius) & (radius < self.outer_radius) & self._in_cuts(row, column)
        if not domain.any():
            return Insonified(domain, domain, domain, geometry=self, up=self.up)
        safe_radius = np.maximum(radius, 1e-9)
        row_step, column_step = down / safe_radius, across / safe_radius / self.aspect
        # Distances of one pixel along the beam, towards the probe and away from it.
        before = (row - row_step, column - column_step)
        after = (row + row_step, column + column_step)
        source = domain & ((radius < self.inner_radius + 1) | ~self._on_frame(*before, shape))
        if not source.any():
            source = domain & (radius < radius[domain].min() + 1)
        sink = domain & ((radius >= self.outer_radius - 1) | ~self._on_frame(*after, shape))
        if not sink.any():
            sink = domain & (radius >= radius[domain].max() - 1)
        return Insonified(domain, source, sink, geometry=self, up=self.up)

    def _in_cuts(self, row: FloatArray, column: FloatArray) -> BoolArray:
        inside = np.ones(np.broadcast_shapes(row.shape, column.shape), bool)
        if self.top is not None:
            inside &= row >= self.top
        if self.bottom is not None:
            inside &= row < self.bottom
        if self.left is not None:
            inside &= column >= self.left
        if self.right is not None:
            inside &= column < self.right
        return inside

    def _on_frame(self, row: FloatArray, column: FloatArray, shape: Shape) -> BoolArray:
        """Return whether positions are on the frame and inside the cuts."""
        return (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1]) & self._in_cuts(row, column)

    def on_grid(self, old: Shape, new: Shape) -> "Sector":
        """Convert to another grid with the same extent."""
        rows, columns = new[0] / old[0], new[1] / old[1]
        return Sector(
            self.apex_row * rows,
            self.apex_column * columns,
            self.inner_radius * rows,
            self.outer_radius * rows,
            self.left_angle,
            self.right_angle,
            self.aspect * rows / columns,
            *(None if cut is None else cut * rows for cut in (self.top, self.bottom)),
            *(None if cut is None else cut * columns for cut in (self.left, self.right)),
        )


@dataclass(frozen=True)
class Polygon:
    """Polygon, such as the trapezoid of a virtual convex probe or the parallelogram of steered beams.

    Attributes:
        vertices: Row and column of every vertex in order, at least three.
        face: Two points (row, column) along the face of the probe.
    """

    kind: ClassVar[str] = "polygon"

    vertices: tuple[tuple[float, float], ...]
    face: tuple[tuple[float, float], tuple[float, float]]

    def __post_init__(self) -> None:
        if len(self.vertices) < 3:
            raise ValueError(f"A polygon needs at least three vertices, found {len(self.vertices)}.")
        if self.face[0] == self.face[1]:
            raise ValueError(f"The face of a polygon needs two different points, found {self.face[0]} twice.")

    @property
    def up(self) -> Side:
        """Side at which the probe is, from the position of its face."""
        centre = np.mean(self.vertices, axis=0)
        (row0, column0), (row1, column1) = self.face
        if abs(column1 - column0) >= abs(row1 - row0):
            return "top" if (row0 + row1) / 2 <= centre[0] else "bottom"
        return "left" if (column0 + column1) / 2 <= centre[1] else "right"

    def masks(self, shape: Shape) -> Insonified:
        """Return the masks on a frame of a shape ``(depth, lateral)``. The source is within one pixel of the face."""
        row, column = _centres(shape)
        domain = np.zeros(shape, bool)
        corners = np.array(self.vertices)
        for (row0, column0), (row1, column1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if row0 != row1:  # even-odd rule
                crosses = (row0 > row) != (row1 > row)
                domain ^= crosses & (column < column0 + (row - row0) * (column1 - column0) / (row1 - row0))
        first, last = column_ends(domain, self.up)
        start, end = np.array(self.face)
        length = float(np.hypot(*(end - start)))
        along = ((row - start[0]) * (end - start)[0] + (column - start[1]) * (end - start)[1]) / length
        nearest = np.clip(along, 0, length) / length
        distance = np.hypot(row - start[0] - nearest * (end - start)[0], column - start[1] - nearest * (end - start)[1])
        source = domain & (distance <= 1)
        return Insonified(domain, source if source.any() else first, last, geometry=self, up=self.up)

    def on_grid(self, old: Shape, new: Shape) -> "Polygon":
        """Convert to another grid with the same extent."""
        rows, columns = new[0] / old[0], new[1] / old[1]

        def move(point: Sequence[float]) -> tuple[float, float]:
            return point[0] * rows, point[1] * columns

        return Polygon(tuple(move(vertex) for vertex in self.vertices), (move(self.face[0]), move(self.face[1])))


@dataclass(frozen=True, eq=False)
class MaskRegion:
    """Insonified region that is given as a mask.

    Attributes:
        mask: Insonified pixels, ``(depth, lateral)``.
        up: Side at which the probe is.
    """

    kind: ClassVar[str] = "mask"

    mask: BoolArray = field(repr=False)
    up: Side = "top"

    def masks(self, shape: Shape) -> Insonified:
        """Return the masks on a frame. Source and sink are the first and last pixels of the columns.

        Args:
            shape: Shape of the frame, ``(depth, lateral)``, which must be that of the mask.

        Returns:
            Masks, ``(depth, lateral)`` each.

        Raises:
            ValueError: The shapes differ.
        """
        if shape != self.mask.shape:
            raise ValueError(f"The mask has the shape {self.mask.shape}, but the frames have the shape {shape}.")
        return Insonified(self.mask, *column_ends(self.mask, self.up), geometry=self, up=self.up)

    def on_grid(self, old: Shape, new: Shape) -> "MaskRegion":
        """Convert to another grid with the same extent, with the nearest pixels."""
        rows, columns = (
            np.minimum(((np.arange(size) + 0.5) * before / size).astype(int), before - 1)
            for size, before in zip(new, old, strict=True)
        )
        return replace(self, mask=self.mask[np.ix_(rows, columns)])


Geometry = Rectangle | Sector | Polygon | MaskRegion


def column_ends(domain: BoolArray, up: Side) -> tuple[BoolArray, BoolArray]:
    """Return the first and the last insonified pixel of each column, counted from the side of the probe.

    If the probe is at the left or right, these are the pixels of each row.

    Args:
        domain: Insonified pixels, ``(..., depth, lateral)``.
        up: Side at which the probe is.

    Returns:
        Masks of the first and of the last pixels, ``(..., depth, lateral)`` each.
    """
    turned = turn_to_top(domain, up)
    return turn_back(column_source(turned), up), turn_back(column_sink(turned), up)


def place_geometry(geometry: Geometry, side: Side, shape: Shape, offset: tuple[int, int]) -> Geometry:
    """Convert a geometry in a part of a frame that was flipped or transposed so that the probe is at the top.

    Args:
        geometry: Rectangle, sector or polygon in pixels of the changed part; see :func:`turn_to_top`.
        side: Side of the frame at which the probe is.
        shape: Shape of the part before it was changed.
        offset: First row and column of the part in the frame.

    Returns:
        Geometry in pixels of the frame.
    """

    def move(row: float, column: float) -> tuple[float, float]:
        match side:
            case "bottom":
                row = shape[0] - row
            case "left":
                row, column = column, row
            case "right":
                row, column = column, shape[1] - row
        return row + offset[0], column + offset[1]

    match geometry:
        case Rectangle():
            first, last = move(geometry.top, geometry.left), move(geometry.bottom, geometry.right)
            rows, columns = sorted((first[0], last[0])), sorted((first[1], last[1]))
            return Rectangle(rows[0], rows[1], columns[0], columns[1], side)
        case Polygon():
            face = (move(*geometry.face[0]), move(*geometry.face[1]))
            return Polygon(tuple(move(*vertex) for vertex in geometry.vertices), face)
        case Sector():
            return _place_sector(geometry, side, move(geometry.apex_row, geometry.apex_column), move)
    raise TypeError(f"Only rectangles, sectors and polygons can be placed, found {geometry.kind}.")


def _place_sector(
    sector: Sector, side: Side, apex: tuple[float, float], move: Callable[[float, float], tuple[float, float]]
) -> Sector:
    """Convert a sector with the probe at the top."""
    cuts = {}
    names = {"top": "top", "bottom": "bottom", "left": "left", "right": "right"}
    match side:
        case "bottom":
            names |= {"top": "bottom", "bottom": "top"}
        case "left":
            names = {"top": "left", "bottom": "right", "left": "top", "right": "bottom"}
        case "right":
            names = {"top": "right", "bottom": "left", "left": "top", "right": "bottom"}
    for name, new_name in names.items():
        value = getattr(sector, name)
        if value is not None:
            row, column = move(value, 0.0) if name in ("top", "bottom") else move(0.0, value)
            cuts[new_name] = row if new_name in ("top", "bottom") else column
    match side:
        case "top":
            angles, scale = (sector.left_angle, sector.right_angle), 1.0
        case "bottom":
            angles, scale = (180 - sector.right_angle, 180 - sector.left_angle), 1.0
        case "left":
            angles, scale = (90 - sector.right_angle, 90 - sector.left_angle), 1 / sector.aspect
        case "right":
            angles, scale = (270 + sector.left_angle, 270 + sector.right_angle), 1 / sector.aspect
    aspect = sector.aspect if side in ("top", "bottom") else 1 / sector.aspect
    return Sector(*apex, sector.inner_radius * scale, sector.outer_radius * scale, *angles, aspect, **cuts)


def _centres(shape: Shape) -> tuple[FloatArray, FloatArray]:
    """Return the rows and columns of pixel centres, ``(depth, 1)`` and ``(1, lateral)``."""
    return np.arange(shape[0])[:, None] + 0.5, np.arange(shape[1])[None] + 0.5
