"""Insonified fan of a convex probe."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats
from scipy.optimize import minimize

from cm_lightning.confidence.boundary import BoolArray
from cm_lightning.confidence.domain.regions import above_background, first_to_last, largest_region
from cm_lightning.confidence.domain.shapes import Sector

FloatArray = NDArray[np.float64]

# Maximum side length in pixels of the image to which a fan is fitted. With a larger image, the fit takes more time, and
# the edges only change by fractions of a pixel.
FITTED_SIDE = 256
# Minimum angle in degrees between the edges of a fan and the vertical. Steeper edges are those of the rectangle of a
# linear probe.
MIN_EDGE_ANGLE = 5.0
# Cost of a dark pixel inside the fan, relative to the cost of a bright pixel outside it. It is less than 1 because dark
# pixels may be in a shadow.
DARK_INSIDE = 0.5


@dataclass(frozen=True)
class Fan:
    """Fan of a convex probe during its fit, with radii in units of the pixel height and positions of pixel centres.

    Attributes:
        row: Row of the apex, the centre of curvature of the probe, which is above the fan.
        column: Column of the apex.
        left: Angle of the left edge from the vertical in radians, negative to the left.
        right: Angle of the right edge from the vertical in radians.
        near: Radius of the face of the probe.
        far: Radius of the deepest samples.
        aspect: Ratio of the pixel width to the pixel height, both in mm.
    """

    row: float
    column: float
    left: float
    right: float
    near: float
    far: float
    aspect: float = 1.0

    def to_sector(self) -> Sector:
        """Convert to a sector, whose positions are counted from the corner of the first pixel instead of its centre."""
        angles = np.degrees([self.left, self.right])
        return Sector(
            self.row + 0.5,
            self.column + 0.5,
            max(0.0, self.near),
            self.far,
            float(angles[0]),
            float(angles[1]),
            self.aspect,
        )

    def _polar(self, row: FloatArray, column: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the radius and the angle of pixels."""
        down, right = row - self.row, (column - self.column) * self.aspect
        return np.hypot(down, right), np.arctan2(right, down)


def find_fan(frame: NDArray[np.generic], threshold: float = 0.0, aspect: float = 1.0) -> Sector | None:
    """Find the fan of a convex probe.

    Lines are fitted to the slanted edges of the largest bright region. They intersect at the apex, from which the radii
    of both arcs are determined. All six parameters are then optimised so that the fan contains as many bright pixels
    and as few dark pixels as possible. Marks outside the largest bright region are ignored.

    Args:
        frame: Frame, ``(depth, lateral)``.
        threshold: Maximum intensity of the background; for frames with negative intensities, such as those in dB, it is
            relative to the lowest one.
        aspect: Ratio of the pixel width to the pixel height, both in mm.

    Returns:
        Sector of the fan, in pixels of the frame; None if the bright region does not have two edges that diverge
        downwards.
    """
    region = largest_region(above_background(np.asarray(frame), threshold))
    factor = max(1, -(-max(region.shape) // FITTED_SIDE))
    height, width = (side // factor * factor for side in region.shape)
    blocks = region[:height, :width].reshape(height // factor, factor, width // factor, factor)
    bright = blocks.mean(axis=(1, 3)) > 0.5
    start = _edges_and_arcs(bright, aspect)
    if start is None:
        return None
    # Dark pixels between the first and the last bright pixel of a column are inside the fan.
    filled = first_to_last(bright.T).T
    pixels = np.meshgrid(*(np.arange(side, dtype=np.float64) for side in filled.shape), indexing="ij")

    def to_fan(parameters: FloatArray) -> Fan:
        row, column, left, right, near, far = (float(value) for value in parameters)
        return Fan(row, column, left, right, near, far, aspect)

    def cost(parameters: FloatArray) -> float:
        inside = _soft_fan(to_fan(parameters), *pixels)
        return float(np.sum(np.where(filled, 1.0 - inside, DARK_INSIDE * inside)))

    size = max(filled.shape)
    spread = np.array([0.02 * size, 0.02 * size, 0.02, 0.02, 0.02 * size, 0.02 * size])
    initial = np.array([start.row, start.column, start.left, start.right, start.near, start.far])
    simplex = np.vstack([initial, initial + np.diag(spread)])
    fitted = minimize(
        cost, initial, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": 800, "xatol": 1e-3}
    )
    return to_fan(fitted.x).to_sector().on_grid((1, 1), (factor, factor))


def _edges_and_arcs(bright: BoolArray, aspect: float) -> Fan | None:
    """Estimate a fan from the outline of a bright region."""
    rows = np.flatnonzero(bright.any(axis=1))
    if len(rows) < 8:
        return None
    first = bright[rows].argmax(axis=1)
    last = bright.shape[1] - 1 - bright[rows][:, ::-1].argmax(axis=1)
    lines = []
    for outline, outermost in ((first, first.min()), (last, last.max())):
        # The edge extends from the top to the row in which the region is widest, where the far arc starts. Rows are not
        # used if the border of the image cuts off the fan.
        widest = int(np.flatnonzero(outline == outermost)[0]) + 1
        used = np.arange(len(rows)) < widest
        used &= (outline > 0) & (outline < bright.shape[1] - 1)
        if np.count_nonzero(used) < 8:
            return None
        slope, offset, *_ = stats.theilslopes(outline[used], rows[used])
        lines.append((float(slope), float(offset)))
    (left_slope, left_offset), (right_slope, right_offset) = lines
    minimum_slope = np.tan(np.radians(MIN_EDGE_ANGLE))
    if left_slope * aspect > -minimum_slope or right_slope * aspect < minimum_slope:
        return None
    row = (left_offset - right_offset) / (right_slope - left_slope)
    column = left_slope * row + left_offset
    left, right = np.arctan(left_slope * aspect), np.arctan(right_slope * aspect)
    fan = Fan(row, column, left, right, 0.0, np.inf, aspect)
    radius, angle = fan._polar(*np.argwhere(bright).T.astype(np.float64))
    inside = (angle >= fan.left) & (angle <= fan.right)
    if np.count_nonzero(inside) < 0.9 * len(angle):
        return None
    beams = np.digitize(angle[inside], np.linspace(fan.left, fan.right, 65))
    present = np.unique(beams)
    near = np.median(ndimage.minimum(radius[inside], beams, present))
    far = np.percentile(ndimage.maximum(radius[inside], beams, present), 90)
    return Fan(row, column, left, right, float(near), float(far) + 1.0, aspect)


def _soft_fan(fan: Fan, row: FloatArray, column: FloatArray) -> FloatArray:
    """Return the approximate fraction of each pixel that is inside a fan, which makes the cost function continuous."""
    radius, angle = fan._polar(row, column)
    distances = (
        radius - fan.near,
        fan.far - radius,
        radius * np.sin(np.clip(angle - fan.left, -1.5, 1.5)),
        radius * np.sin(np.clip(fan.right - angle, -1.5, 1.5)),
    )
    fraction: FloatArray = np.clip(np.minimum.reduce(distances) + 0.5, 0.0, 1.0)
    return fraction
