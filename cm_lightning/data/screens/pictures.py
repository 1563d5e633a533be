"""Shapes of insonified regions on synthetic screens, with the beam coordinates of their pixels."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.domain.sides import SIDES, Side, turn_back, turned_shape

FloatArray = NDArray[np.float32]
Family = Literal["convex", "wide", "phased", "linear", "trapezoid", "steered"]

# Probability of each family, and of each side at which the probe is.
FAMILIES: dict[Family, float] = {
    "convex": 0.2, "wide": 0.24, "phased": 0.12, "linear": 0.31, "trapezoid": 0.09, "steered": 0.04,
}  # fmt: skip
SIDE_PROBABILITIES: dict[Side, float] = {"top": 0.7, "bottom": 0.24, "left": 0.03, "right": 0.03}
# The same for wide sectors, many of which are those of transrectal probes at the bottom of the screen.
WIDE_SIDE_PROBABILITIES: dict[Side, float] = {"top": 0.5, "bottom": 0.44, "left": 0.03, "right": 0.03}


@dataclass(frozen=True)
class Box:
    """Rectangle on a screen in pixels, half-open.

    Attributes:
        top: First row.
        bottom: Row after the last one.
        left: First column.
        right: Column after the last one.
    """

    top: float
    bottom: float
    left: float
    right: float

    @property
    def height(self) -> float:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> float:
        """Number of columns."""
        return self.right - self.left

    def turned(self, side: Side, shape: tuple[int, int]) -> "Box":
        """Return the box on the screen after it was flipped or transposed so that a side is at the top.

        Args:
            side: "top", "bottom", "left" or "right".
            shape: Shape of the screen before this.
        """
        rows, columns = shape
        match side:
            case "bottom":
                return Box(rows - self.bottom, rows - self.top, self.left, self.right)
            case "left":
                return Box(self.left, self.right, self.top, self.bottom)
            case "right":
                return Box(columns - self.right, columns - self.left, self.top, self.bottom)
        return self


@dataclass(frozen=True)
class Region:
    """Insonified region of a synthetic screen.

    Attributes:
        inside: Insonified pixels, ``(rows, columns)``.
        depth: Distance from the probe along the beam, from 0 to 1, ``(rows, columns)``.
        beam: Position of the beam, from 0 to 1, ``(rows, columns)``; from the left, or from the top if the probe is at
            the left or right.
        samples: Number of depths and of beams that have about the resolution of the screen.
        side: Side of the screen at which the probe is.
        family: Family of the shape.
    """

    inside: NDArray[np.bool_]
    depth: FloatArray
    beam: FloatArray
    samples: tuple[int, int]
    side: Side
    family: Family


def draw_region(
    rng: np.random.Generator,
    shape: tuple[int, int],
    box: Box,
    family: Family | None = None,
    side: Side | None = None,
    fill: bool = False,
) -> Region:
    """Draw the shape of an insonified region in a box.

    Args:
        rng: Random number generator.
        shape: Shape of the screen, ``(rows, columns)``.
        box: Space for the region. A rectangle fills it only with ``fill``, and a sector may extend slightly below it.
        family: Family of the shape; a random one by default.
        side: Side of the probe; a random one by default.
        fill: Whether a rectangle fills the box.

    Returns:
        The region.
    """
    family = family or list(FAMILIES)[rng.choice(len(FAMILIES), p=list(FAMILIES.values()))]
    probabilities = WIDE_SIDE_PROBABILITIES if family == "wide" else SIDE_PROBABILITIES
    side = side or SIDES[rng.choice(len(SIDES), p=[probabilities[name] for name in SIDES])]
    rows, columns = turned_shape(shape, side)
    turned_box = box.turned(side, shape)
    row, column = np.mgrid[:rows, :columns].astype(np.float32) + np.float32(0.5)
    match family:
        case "linear":
            parts = _linear(rng, row, column, turned_box, fill)
        case "trapezoid" | "steered":
            parts = _trapezoid(rng, row, column, turned_box, family == "steered")
        case _:
            parts = _sector(rng, row, column, turned_box, family)
    inside, depth, beam, samples = parts
    depth, beam = (np.clip(array, 0, 1).astype(np.float32) for array in (depth, beam))
    inside = np.ascontiguousarray(turn_back(inside, side))
    depth, beam = np.ascontiguousarray(turn_back(depth, side)), np.ascontiguousarray(turn_back(beam, side))
    return Region(inside, depth, beam, (_limit(samples[0]), _limit(samples[1])), side, family)


def _limit(samples: float) -> int:
    return int(np.clip(samples, 24, 700))


Parts = tuple[NDArray[np.bool_], NDArray[Any], NDArray[Any], tuple[float, float]]


def _sector(rng: np.random.Generator, row: FloatArray, column: FloatArray, box: Box, family: Family) -> Parts:
    """Draw a sector between two arcs, which the border of a window may cut."""
    aspect = 1.0 if rng.random() < 0.6 else rng.uniform(0.75, 1.3)
    match family:
        case "phased":
            half, inner = rng.uniform(28, 50), (0.0 if rng.random() < 0.5 else rng.uniform(0, 0.06))
        case "wide":
            half, inner = rng.uniform(50, 85), rng.uniform(0.06, 0.3)
        case _:
            half, inner = rng.uniform(14, 60), rng.uniform(0.08, 0.75)
    left, right = -np.radians(half), np.radians(half)
    if rng.random() < 0.12:
        left *= rng.uniform(0.55, 1)
    elif rng.random() < 0.12:
        right *= rng.uniform(0.55, 1)
    top = inner * np.cos(max(-left, right))
    by_height = box.height / (1 - top)
    outer = min(by_height, box.width * aspect / (np.sin(-left) + np.sin(right)))
    cut = family == "wide" or rng.random() < 0.3
    if family == "wide":
        outer = by_height * rng.uniform(0.85, 1.05)
    elif cut:
        outer = min(outer * rng.uniform(1, 1.6), max(outer, by_height * rng.uniform(1, 1.15)))
    apex_row = box.top - top * outer + rng.random() * max(0, box.height - (1 - top) * outer)
    apex_column = (box.left + box.right) / 2 + (np.sin(-left) - np.sin(right)) * outer / aspect / 2
    if cut and rng.random() < 0.4:
        apex_column += rng.normal(0, 0.06) * box.width
    down, across = row - apex_row, (column - apex_column) * aspect
    radius, angle = np.hypot(down, across), np.arctan2(across, down)
    inside = (radius < outer) & (radius >= inner * outer) & (angle >= left) & (angle <= right)
    if cut:
        inside &= (column >= box.left) & (column < box.right)
        if rng.random() < 0.5:
            inside &= row < box.bottom
    depth = (radius - inner * outer) / max(outer * (1 - inner), 1)
    beams = outer * (1 + inner) / 2 * (right - left) / aspect
    return inside, depth, (angle - left) / (right - left), (outer * (1 - inner), beams)


def _linear(rng: np.random.Generator, row: FloatArray, column: FloatArray, box: Box, fill: bool) -> Parts:
    """Draw a rectangle that fills the box, or one of random proportions inside it."""
    proportion = np.exp(rng.uniform(np.log(0.4), np.log(2.2)))
    if fill or rng.random() < 0.25:
        height, width = box.height, box.width
    else:
        height = min(box.height, proportion * box.width)
        width = min(box.width, height / proportion)
    top = round(box.top + rng.random() * (box.height - height))
    left = round(box.left + (box.width - width) * (0.5 if rng.random() < 0.5 else rng.random()))
    height, width = max(1, round(height)), max(1, round(width))
    inside = (row >= top) & (row < top + height) & (column >= left) & (column < left + width)
    return inside, (row - top) / height, (column - left) / width, (height, width)


def _trapezoid(rng: np.random.Generator, row: FloatArray, column: FloatArray, box: Box, steered: bool) -> Parts:
    """Draw the trapezoid of a virtual convex probe, or the parallelogram of steered beams."""
    slope = np.tan(np.radians(rng.uniform(1, 25)))
    slope = min(slope, 0.4 * box.width / box.height) * (0.3 if rng.random() < 0.4 else 1)
    slopes = (slope, slope) if rng.random() < 0.5 else (-slope, -slope)
    if not steered:
        slopes = (-slope, slope * (1 if rng.random() < 0.8 else rng.uniform(0, 1)))
    left_top = box.left - min(0, slopes[0]) * box.height
    right_top = box.right - max(0, slopes[1]) * box.height
    down = row - box.top
    left, right = left_top + slopes[0] * down, right_top + slopes[1] * down
    sag = 0.0 if steered or rng.random() < 0.4 else box.height * rng.uniform(0, 0.12)
    beam = (column - left) / np.maximum(right - left, 1)
    bottom = box.bottom - sag * (2 * beam - 1) ** 2
    inside = (row >= box.top) & (row < bottom) & (beam >= 0) & (beam < 1)
    return inside, down / np.maximum(bottom - box.top, 1), beam, (box.height, (right_top - left_top + box.width) / 2)
