"""The elimination of one cell, worked out symbolically once for all cells.

A cell is seen through a window of 9 x 9 pixels: its own 7 x 7, which are eliminated, and the ring of 32 around them.
The order within the cell is a nested dissection again, and which weights become nonzero on the way is worked out when
this module is imported. A pixel that a border cell lacks has no weight to any other and drops out by itself.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.dissection import CELL
from cm_lightning.confidence.weights import EDGE_STEPS

WINDOW = CELL + 2


class Pattern(NamedTuple):
    """Which weights of a window are nonzero at some time during its elimination.

    Positions number the window's pixels in the order of elimination, the ring last.

    Attributes:
        rows: Window row of each position.
        columns: Window column of each position.
        row_start: Where each eliminated pixel's weights begin; the weights between ring pixels follow.
        neighbours: Position of the other pixel of each weight.
        targets: For every eliminated pixel, for each pair of its neighbours (first < second), the weight that grows.
        edges: For each edge of the graph: its weight, its kind (0 vertical, 1 horizontal, 2 down right, 3 down left),
            and its row and column in that kind's array relative to the window's.
        ring_first: For the weights between ring pixels, the first pixel's place in the ring.
        ring_second: The second's.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    row_start: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    targets: NDArray[np.int64]
    edges: NDArray[np.int64]
    ring_first: NDArray[np.int64]
    ring_second: NDArray[np.int64]


def _order(top: int, bottom: int, left: int, right: int) -> list[tuple[int, int]]:
    """Order a rectangle's pixels by nested dissection."""
    high, wide = bottom - top, right - left
    if high * wide <= 2:
        return [(row, column) for row in range(top, bottom) for column in range(left, right)]
    if high >= wide:
        middle = top + (high - 1) // 2
        line = [(middle, column) for column in range(left, right)]
        return _order(top, middle, left, right) + _order(middle + 1, bottom, left, right) + line
    middle = left + (wide - 1) // 2
    line = [(row, middle) for row in range(top, bottom)]
    return _order(top, bottom, left, middle) + _order(top, bottom, middle + 1, right) + line


def _work_out_pattern() -> Pattern:
    """Eliminate a window symbolically."""
    pixels = _order(1, CELL + 1, 1, CELL + 1)
    pixels += [
        (row, column)
        for row in range(WINDOW)
        for column in range(WINDOW)
        if row in (0, WINDOW - 1) or column in (0, WINDOW - 1)
    ]
    position = {pixel: number for number, pixel in enumerate(pixels)}
    inner, total = CELL * CELL, WINDOW * WINDOW

    # The edges, with the pixel whose row and column address them in cm_lightning.confidence.weights.EdgeWeights.
    edges = []
    for row, column in pixels:
        for kind, (down, right) in enumerate(EDGE_STEPS):
            other = (row + down, column + right)
            if other in position and min(position[row, column], position[other]) < inner:
                first, second = sorted((position[row, column], position[other]))
                edges.append(((first, second), kind, row, min(column, other[1])))

    later: list[set[int]] = [set() for _ in range(total)]
    for (first, second), *_ in edges:
        later[first].add(second)
    for pixel in range(inner):
        for neighbour in later[pixel]:
            later[neighbour] |= {other for other in later[pixel] if other > neighbour}

    place: dict[tuple[int, int], int] = {}
    row_start = [0]
    for pixel in range(total):
        for neighbour in sorted(later[pixel]):
            place[pixel, neighbour] = len(place)
        row_start.append(len(place))
    targets = [
        place[first, second]
        for pixel in range(inner)
        for first in sorted(later[pixel])
        for second in sorted(later[pixel])
        if first < second
    ]
    between_ring = [pair for pair in place if pair[0] >= inner]
    return Pattern(
        rows=np.array([row for row, _ in pixels]),
        columns=np.array([column for _, column in pixels]),
        row_start=np.array(row_start[: inner + 1]),
        neighbours=np.array([second for _, second in place]),
        targets=np.array(targets),
        edges=np.array([(place[pair], kind, row, column) for pair, kind, row, column in edges]),
        ring_first=np.array([first - inner for first, _ in between_ring]),
        ring_second=np.array([second - inner for _, second in between_ring]),
    )


PATTERN = _work_out_pattern()
INNER = CELL * CELL
RING = WINDOW * WINDOW - INNER
# Numbers per lane: all weights of a window, and those of the eliminated pixels, which are the cell's factor.
WEIGHTS = len(PATTERN.neighbours)
FACTOR = int(PATTERN.row_start[-1])

# Compiled code reads global arrays, but no fields of a global tuple.
_ROWS, _COLUMNS = PATTERN.rows, PATTERN.columns


@njit(cache=True, nogil=True)
def ring_pixels(row: int, column: int, depth: int, lateral: int, pixels: NDArray[np.int64]) -> None:
    """List the pixels around a cell.

    Args:
        row: First row of the cell.
        column: Its first column.
        depth: Rows of the grid.
        lateral: Columns of the grid.
        pixels: Filled with their row-major numbers, -1 outside the grid, ``(RING,)``.
    """
    for index in range(RING):
        r = row - 1 + _ROWS[INNER + index]
        c = column - 1 + _COLUMNS[INNER + index]
        inside = r >= 0 and c >= 0 and r < depth and c < lateral
        pixels[index] = r * lateral + c if inside else -1
