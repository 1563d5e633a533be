"""The fan that a convex probe insonifies."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats
from scipy.optimize import minimize

from cm_lightning.confidence.boundary import BoolArray
from cm_lightning.confidence.domain.insonified import Insonified
from cm_lightning.confidence.domain.regions import first_to_last, largest_region

FloatArray = NDArray[np.float64]

# A fan is fitted on pictures of at most this side: finer ones cost time and move its edges by fractions of a pixel.
FITTED_SIDE = 256
# Edges that lean by less than this (degrees) are those of a linear probe's rectangle.
LEAST_LEAN = 5.0
# A dark pixel inside the fan may lie in a shadow; a bright one outside it may not.
DARK_INSIDE = 0.5


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
    region = largest_region(np.asarray(frame) > threshold)
    factor = max(1, -(-max(region.shape) // FITTED_SIDE))
    high, wide = (side // factor * factor for side in region.shape)
    share = region[:high, :wide].reshape(high // factor, factor, wide // factor, factor).mean(axis=(1, 3))
    bright = share > 0.5
    start = _edges_and_arcs(bright, aspect)
    if start is None:
        return None
    # Columns of a fan are insonified from their first to their last bright pixel.
    filled = first_to_last(bright.T).T
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
    fitted = minimize(
        cost, first, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": 800, "xatol": 1e-3}
    )
    return fan_of(fitted.x).on_grid((1, 1), (factor, factor))


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
