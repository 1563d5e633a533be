"""Alignment of a fitted geometry with the edges in the pixels, with the probe at the top."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cm_lightning.confidence.domain.fitting import Box, Family

FloatArray = NDArray[np.float64]

# Positions along a border at which its profile is sampled, as fractions of its length.
ALONG = np.linspace(0.03, 0.97, 160)
# Number of pixels on each side of a border whose means are compared.
SIDE_PIXELS = 3
# Search range and standard deviation of the expected shift, in cells of the network.
RANGE_CELLS, SD_CELLS = 1.3, 0.5
# Smallest sum of the steps of the mean features at a border.
MIN_STEP = 0.12


class EdgeFinder:
    """Finds steps of the grey level and of the local standard deviation across a border.

    Args:
        image: Grey levels from 0 to 255, ``(rows, columns)``.
        cell: Size of a cell of the network in pixels.
    """

    def __init__(self, image: NDArray[np.float32], cell: float) -> None:
        mean = ndimage.uniform_filter(image, 3)
        deviation = np.sqrt(np.maximum(ndimage.uniform_filter(image**2, 3) - mean**2, 0))
        self._layers = [np.log1p(image / 3) / np.log1p(85), np.log1p(deviation) / np.log(80)]
        self._shape = image.shape
        self._range = int(np.ceil(RANGE_CELLS * cell)) + 1
        self._sd = SD_CELLS * cell

    def shift(
        self, rows: FloatArray, columns: FloatArray, normal: tuple[FloatArray | float, FloatArray | float]
    ) -> float:
        """Return by how many pixels a border should be moved outwards; 0 if there is no clear edge.

        Args:
            rows: Rows of points of the border.
            columns: Columns of these points.
            normal: Row and column of the unit vector that points outwards, at every point or for all points.

        Returns:
            Whole number of pixels.
        """
        if len(rows) < 8:
            return 0.0
        half_width = self._range + SIDE_PIXELS
        across = np.arange(-half_width, half_width) + 0.5
        row = rows[:, None] + np.broadcast_to(normal[0], rows.shape)[:, None] * across
        column = columns[:, None] + np.broadcast_to(normal[1], rows.shape)[:, None] * across
        on_image = (row > 0) & (row < self._shape[0]) & (column > 0) & (column < self._shape[1])
        enough_points = on_image.mean(axis=0) > 0.3
        index = np.arange(SIDE_PIXELS, len(across) - SIDE_PIXELS + 1)
        by_layer = []
        for layer in self._layers:
            values = ndimage.map_coordinates(layer, [row - 0.5, column - 0.5], order=1, mode="nearest")
            profile = (values * on_image).sum(axis=0) / np.maximum(1, on_image.sum(axis=0))
            total = np.concatenate([[0], np.cumsum(profile)])
            inner, outer = total[index] - total[index - SIDE_PIXELS], total[index + SIDE_PIXELS] - total[index]
            by_layer.append(np.abs(outer - inner) / SIDE_PIXELS)
        shifts = (index - half_width).astype(np.float64)
        valid = enough_points[index - 1] & enough_points[np.minimum(index, len(enough_points) - 1)]
        steps = (by_layer[0] + by_layer[1]) * valid * np.exp(-0.5 * (shifts / self._sd) ** 2)
        best = int(steps.argmax())
        if steps[best] <= MIN_STEP:
            return 0.0
        # The expected shift and the width of the local standard deviation displace the maximum by a pixel or two.
        neighbourhood = slice(max(0, best - 2), best + 3)
        exact = (by_layer[0] + 0.2 * by_layer[1])[neighbourhood] * valid[neighbourhood]
        return float(shifts[neighbourhood][int(exact.argmax())])

    def move_row(self, row: float, columns: Sequence[float], outwards: int) -> float:
        """Align a horizontal border; ``outwards`` is -1 for a top and 1 for a bottom. Return its new row."""
        start = float(np.round(row))
        points = columns[0] + ALONG * (columns[1] - columns[0])
        return start + outwards * self.shift(np.full(len(points), start), points, (float(outwards), 0.0))

    def move_column(self, column: float, rows: Sequence[float], outwards: int) -> float:
        """Align a vertical border; ``outwards`` is -1 for a left and 1 for a right side. Return its new column."""
        start = float(np.round(column))
        points = rows[0] + ALONG * (rows[1] - rows[0])
        return start + outwards * self.shift(points, np.full(len(points), start), (0.0, float(outwards)))


def snap(edges: EdgeFinder, family: Family, parameters: FloatArray, box: Box) -> tuple[FloatArray, Box]:
    """Align a geometry with the edges in the pixels.

    Args:
        edges: Finder of the edges.
        family: Family of the geometry.
        parameters: Parameters in pixels; see :class:`cm_lightning.confidence.domain.fitting.Fit`.
        box: Box that cuts a sector, in pixels.

    Returns:
        Aligned parameters and box.
    """
    match family:
        case "rectangle":
            return _snap_rectangle(edges, parameters), box
        case "trapezoid":
            return _snap_trapezoid(edges, parameters), box
        case "sector":
            return _snap_sector(edges, parameters, box)


def _snap_rectangle(edges: EdgeFinder, parameters: FloatArray) -> FloatArray:
    top, bottom, left, right = parameters
    return np.array(
        [
            edges.move_row(top, (left, right), -1),
            edges.move_row(bottom, (left, right), 1),
            edges.move_column(left, (top, bottom), -1),
            edges.move_column(right, (top, bottom), 1),
        ]
    )


def _snap_trapezoid(edges: EdgeFinder, parameters: FloatArray) -> FloatArray:
    top, left_top, right_top, bottom, left_bottom, right_bottom, sag = parameters
    result = parameters.copy()
    result[0] = edges.move_row(top, (left_top, right_top), -1)
    height = bottom - sag - top
    for first, last, sign in ((1, 4, -1), (2, 5, 1)):
        across = parameters[last] - parameters[first]
        length = np.hypot(height, across)
        normal = (-sign * across / length, sign * height / length)
        shift = edges.shift(top + ALONG * height, parameters[first] + ALONG * across, normal)
        result[[first, last]] += sign * shift * length / max(height, 1.0)
    beam = 2 * ALONG - 1
    rows = bottom - sag * beam**2
    result[3] += edges.shift(rows, left_bottom + ALONG * (right_bottom - left_bottom), (1.0, 0.0))
    return result


def _snap_sector(edges: EdgeFinder, parameters: FloatArray, box: Box) -> tuple[FloatArray, Box]:
    result = parameters.copy()
    aspect = np.exp(result[6])
    for _ in range(2):
        for index, sign in ((5, 1), (4, -1)):
            angle = result[2] + ALONG * (result[3] - result[2])
            rows, columns = (
                result[0] + result[index] * np.cos(angle),
                result[1] + result[index] * np.sin(angle) / aspect,
            )
            kept = box.distance(rows, columns) > 0
            if result[index] > 4:
                normal = (sign * np.cos(angle[kept]), sign * np.sin(angle[kept]))
                result[index] = max(0.0, result[index] + sign * edges.shift(rows[kept], columns[kept], normal))
        for index, sign in ((2, -1), (3, 1)):
            radius = result[4] + ALONG * (result[5] - result[4])
            rows, columns = (
                result[0] + radius * np.cos(result[index]),
                result[1] + radius * np.sin(result[index]) / aspect,
            )
            kept = box.distance(rows, columns) > 0
            if np.count_nonzero(kept) >= 20:
                normal = (-sign * np.sin(result[index]), sign * np.cos(result[index]))
                shift = edges.shift(rows[kept], columns[kept], normal)
                result[index] += sign * shift / max(8.0, float(radius[kept].mean()))
    return result, _snap_cuts(edges, result, box)


def _snap_cuts(edges: EdgeFinder, parameters: FloatArray, box: Box) -> Box:
    """Align the sides that cut a sector, and open those that do not."""
    row, column, left, right, inner, outer, log_aspect = parameters
    angle, radius = np.meshgrid(np.linspace(left, right, 181), np.linspace(inner, outer, 91))
    rows, columns = row + radius * np.cos(angle), column + radius * np.sin(angle) / np.exp(log_aspect)
    far = 1e6
    sides = []
    for side, outside in (
        ("top", rows < box.top),
        ("bottom", rows >= box.bottom),
        ("left", columns < box.left),
        ("right", columns >= box.right),
    ):
        outwards = -1 if side in ("top", "left") else 1
        position = getattr(box, side)
        # The outermost samples stand for less area near the apex.
        fraction = float((radius * outside).sum() / radius.sum())
        if fraction < 0.004:
            sides.append(outwards * far)
            continue
        on_line = np.abs((rows if side in ("top", "bottom") else columns) - position) < 0.02 * outer
        inside = on_line & (box.distance(rows, columns) > -0.02 * outer)
        along = (columns if side in ("top", "bottom") else rows)[inside]
        if along.size < 10:
            sides.append(position)
        elif side in ("top", "bottom"):
            sides.append(edges.move_row(position, (along.min(), along.max()), outwards))
        else:
            sides.append(edges.move_column(position, (along.min(), along.max()), outwards))
    return Box(*sides)
