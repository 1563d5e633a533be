"""Which pixels of a frame are insonified, and which of them lie at the probe and at the far end."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats
from scipy.optimize import minimize

from cm_lightning.confidence.boundary import BoolArray, column_sink, column_source

Probe = Literal["linear", "convex", "auto"]
FloatArray = NDArray[np.float64]

# A fan is fitted on pictures of at most this side: finer ones cost time and move its edges by fractions of a pixel.
FITTED_SIDE = 256
# Edges that lean by less than this (degrees) are those of a linear probe's rectangle.
LEAST_LEAN = 5.0
# A dark pixel inside the fan may lie in a shadow; a bright one outside it may not.
DARK_INSIDE = 0.5


@dataclass(frozen=True)
class Insonified:
    """Masks of frames, for :class:`cm_lightning.confidence.ConfidenceMapSolver`.

    Attributes:
        domain: Insonified pixels.
        source: Those at the probe's face.
        sink: The deepest ones.
    """

    domain: BoolArray
    source: BoolArray
    sink: BoolArray


@dataclass(frozen=True)
class Fan:
    """What a convex probe insonifies; lengths in heights of a pixel, angles from straight down, growing to the right.

    Attributes:
        row: Row of the centre of the probe's curvature, above the fan.
        column: Its column.
        left: Angle of the left edge, radians.
        right: Angle of the right edge.
        near: Radius of the probe's face.
        far: Radius of the deepest samples.
        aspect: Width of a pixel over its height, in mm.
    """

    row: float
    column: float
    left: float
    right: float
    near: float
    far: float
    aspect: float = 1.0

    def masks(self, shape: tuple[int, int]) -> Insonified:
        """Paint the fan.

        The source is the probe's arc and the sink the far arc, each one pixel thick along the beams, and what of the
        fan meets the last row of a frame that cuts it off. The slanted edges are neither.

        Args:
            shape: ``(depth, lateral)``.

        Returns:
            The masks.
        """
        row, column = np.ogrid[: float(shape[0]), : float(shape[1])]
        radius, angle = self._polar(row, column)
        domain = (radius >= self.near) & (radius < self.far) & (angle >= self.left) & (angle <= self.right)
        sink = domain & (radius >= self.far - 1.0)
        sink[-1] |= domain[-1]
        return Insonified(domain, domain & (radius < self.near + 1.0), sink)

    def _polar(self, row: FloatArray, column: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Radius and angle of pixels."""
        down, right = row - self.row, (column - self.column) * self.aspect
        return np.hypot(down, right), np.arctan2(right, down)

    def on_grid(self, old: tuple[int, int], new: tuple[int, int]) -> "Fan":
        """Give the same fan on another grid over the same extent.

        Args:
            old: ``(depth, lateral)`` of the grid that it was found on.
            new: The other grid's.

        Returns:
            The fan in the other grid's pixels.
        """
        finer_rows, finer_columns = new[0] / old[0], new[1] / old[1]
        return Fan(
            (self.row + 0.5) * finer_rows - 0.5,
            (self.column + 0.5) * finer_columns - 0.5,
            self.left,
            self.right,
            self.near * finer_rows,
            self.far * finer_rows,
            self.aspect * finer_rows / finer_columns,
        )


def find_insonified(
    frames: NDArray[np.generic], probe: Probe = "auto", threshold: float = 0.0, aspect: float = 1.0
) -> Insonified:
    """Find what a probe insonified, in every frame or, for convex probes, in all of them together.

    Args:
        frames: Frames of shape ``(..., depth, lateral)``. Those of one call must come from one setting of the scanner
            if the probe is convex: its fan is found on their pixelwise maximum, where shadows matter less.
        probe: ``linear`` for a rectangle inside black bands, ``convex`` for a fan, ``auto`` for whichever it is.
        threshold: Intensity that black bands do not exceed.
        aspect: Width of a pixel over its height, in mm; a fan is round only in mm.

    Returns:
        Masks of the shape of ``frames``. The domain of a frame without any bright pixel is empty.

    Raises:
        ValueError: The probe is said to be convex and no fan could be found.
    """
    frames = np.asarray(frames)
    if probe != "linear":
        fan = find_fan(frames.reshape(-1, *frames.shape[-2:]).max(axis=0), threshold, aspect)
        if fan is not None:
            masks = fan.masks((frames.shape[-2], frames.shape[-1]))
            return Insonified(
                *(np.broadcast_to(mask, frames.shape) for mask in (masks.domain, masks.source, masks.sink))
            )
        if probe == "convex":
            raise ValueError(
                "No fan of a convex probe was found: expected two slanted edges between bright pixels and black. Give "
                "the masks, or probe='linear'."
            )
    domain = linear_probe_domain(frames, threshold)
    return Insonified(domain, column_source(domain), column_sink(domain))


def linear_probe_domain(frames: NDArray[np.generic], threshold: float = 0.0, minimum_share: float = 0.02) -> BoolArray:
    """Find the rectangle that a linear probe insonifies inside black bands.

    Frames exported from a scanner carry black bands above, below and beside the image, and marks burned into the bands.
    The rectangle spans the first to the last column, then row, in which more than ``minimum_share`` of the pixels are
    bright. Columns are searched in the largest connected bright region only, so that a mark in a side band does not
    count; rows are not, because shadows can cut the deepest tissue off from the rest.

    Args:
        frames: Frames of shape ``(..., depth, lateral)``, each searched on its own.
        threshold: Intensity that a band does not exceed.
        minimum_share: Share of bright pixels that makes a row or column part of the image.

    Returns:
        Mask of the shape of ``frames``. A frame without any bright pixel has an empty domain.
    """
    bright = np.asarray(frames) > threshold
    domain = np.zeros(bright.shape, dtype=bool)
    for index in np.ndindex(bright.shape[:-2]):
        columns = _first_to_last(_largest_region(bright[index]).mean(axis=0) > minimum_share)
        if columns.any():
            rows = _first_to_last(bright[index][:, columns].mean(axis=1) > minimum_share)
            domain[index] = rows[:, None] & columns
    return domain


def find_fan(frame: NDArray[np.generic], threshold: float = 0.0, aspect: float = 1.0) -> Fan | None:
    """Find a convex probe's fan.

    Lines are fitted to the slanted edges of the largest bright region; they meet at the centre of the probe's
    curvature, from which the radii of both arcs follow. All six numbers are then refined so that the fan holds as many
    bright and as few dark pixels as possible. Marks outside the largest bright region do not count.

    Args:
        frame: ``(depth, lateral)``.
        threshold: Intensity that black surroundings do not exceed.
        aspect: Width of a pixel over its height, in mm.

    Returns:
        The fan; None if the bright region has no two edges that lean outwards.
    """
    region = _largest_region(np.asarray(frame) > threshold)
    factor = max(1, -(-max(region.shape) // FITTED_SIDE))
    high, wide = (side // factor * factor for side in region.shape)
    share = region[:high, :wide].reshape(high // factor, factor, wide // factor, factor).mean(axis=(1, 3))
    bright = share > 0.5
    start = _edges_and_arcs(bright, aspect)
    if start is None:
        return None
    # Columns of a fan are insonified from their first to their last bright pixel.
    filled = _first_to_last(bright.T).T
    pixels = np.meshgrid(*(np.arange(side, dtype=np.float64) for side in filled.shape), indexing="ij")

    def fan_of(numbers: FloatArray) -> Fan:
        row, column, left, right, near, far = (float(number) for number in numbers)
        return Fan(row, column, left, right, near, far, aspect)

    def cost(numbers: FloatArray) -> float:
        inside = _soft_fan(fan_of(numbers), *pixels)
        return float(np.sum(np.where(filled, 1.0 - inside, DARK_INSIDE * inside)))

    size = max(filled.shape)
    spread = np.array([0.02 * size, 0.02 * size, 0.02, 0.02, 0.02 * size, 0.02 * size])
    first = np.array([start.row, start.column, start.left, start.right, start.near, start.far])
    simplex = np.vstack([first, first + np.diag(spread)])
    found = minimize(
        cost, first, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": 800, "xatol": 1e-3}
    )
    return fan_of(found.x).on_grid((1, 1), (factor, factor))


def _edges_and_arcs(bright: BoolArray, aspect: float) -> Fan | None:
    """Fit a fan to the outline of a bright region."""
    rows = np.flatnonzero(bright.any(axis=1))
    if len(rows) < 8:
        return None
    first = bright[rows].argmax(axis=1)
    last = bright.shape[1] - 1 - bright[rows][:, ::-1].argmax(axis=1)
    lines = []
    for outline, outermost in ((first, first.min()), (last, last.max())):
        # From the top down to where the region is widest: below lies the far arc. Where the picture cuts the fan off,
        # there is no edge.
        widest = int(np.flatnonzero(outline == outermost)[0]) + 1
        used = np.arange(len(rows)) < widest
        used &= (outline > 0) & (outline < bright.shape[1] - 1)
        if np.count_nonzero(used) < 8:
            return None
        slope, offset, *_ = stats.theilslopes(outline[used], rows[used])
        lines.append((float(slope), float(offset)))
    (left_slope, left_offset), (right_slope, right_offset) = lines
    least = np.tan(np.radians(LEAST_LEAN))
    if left_slope * aspect > -least or right_slope * aspect < least:
        return None
    row = (left_offset - right_offset) / (right_slope - left_slope)
    column = left_slope * row + left_offset
    left, right = np.arctan(left_slope * aspect), np.arctan(right_slope * aspect)
    fan = Fan(row, column, left, right, 0.0, np.inf, aspect)
    radius, angle = fan._polar(*np.argwhere(bright).T.astype(np.float64))
    between = (angle >= fan.left) & (angle <= fan.right)
    if np.count_nonzero(between) < 0.9 * len(angle):
        return None
    beams = np.digitize(angle[between], np.linspace(fan.left, fan.right, 65))
    present = np.unique(beams)
    near = np.median(ndimage.minimum(radius[between], beams, present))
    far = np.percentile(ndimage.maximum(radius[between], beams, present), 90)
    return Fan(row, column, left, right, float(near), float(far) + 1.0, aspect)


def _soft_fan(fan: Fan, row: FloatArray, column: FloatArray) -> FloatArray:
    """Share of each pixel that lies in a fan, about: edges blur over a pixel, so that the cost has a slope."""
    radius, angle = fan._polar(row, column)
    distances = (
        radius - fan.near,
        fan.far - radius,
        radius * np.sin(np.clip(angle - fan.left, -1.5, 1.5)),
        radius * np.sin(np.clip(fan.right - angle, -1.5, 1.5)),
    )
    share: FloatArray = np.clip(np.minimum.reduce(distances) + 0.5, 0.0, 1.0)
    return share


def _largest_region(bright: BoolArray, gap: int = 9) -> BoolArray:
    """Keep the largest connected part of a frame's bright pixels, bridging dark gaps of up to ``gap`` pixels."""
    # As a grey closing, which SciPy does axis by axis: 8 times faster than its binary closing with a square.
    padded = np.pad(bright, gap).view(np.uint8)
    closed = ndimage.grey_closing(padded, size=(gap, gap), mode="constant")[gap:-gap, gap:-gap]
    parts, count = ndimage.label(closed)
    if count == 0:
        return bright
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    region: BoolArray = bright & (parts == sizes.argmax())
    return region


def _first_to_last(flags: BoolArray) -> BoolArray:
    """Fill the last axis from its first to its last true value."""
    from_first = np.logical_or.accumulate(flags, axis=-1)
    to_last = np.logical_or.accumulate(flags[..., ::-1], axis=-1)[..., ::-1]
    filled: BoolArray = from_first & to_last
    return filled
