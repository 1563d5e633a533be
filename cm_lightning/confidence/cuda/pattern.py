"""Symbolic elimination of one cell, which is the same for all cells.

A cell with its neighbours is a window of 9 x 9 pixels: the 7 x 7 pixels of the cell, which are eliminated, and a ring
of 32 pixels around them. The order within the cell is also a nested dissection. The sparsity pattern of the factor and
of the update of the ring (graph edges and fill-in) is computed when this module is imported. Missing pixels of cells at
the border of the grid have zero weights, and do not need a special case.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.weights import EDGE_STEPS

# Side length of a cell in pixels.
CELL = 7
WINDOW = CELL + 2


class Pattern(NamedTuple):
    """Sparsity pattern of the elimination of a window: the weights of graph edges, and the fill-in.

    Positions are indices of the pixels of the window in the order of elimination, with the ring at the end.

    Attributes:
        rows: Row of each position in the window, ``(81,)``.
        columns: Column of each position in the window, ``(81,)``.
        row_start: Index of the first weight of each eliminated pixel, followed by the first weight between ring pixels,
            ``(50,)``.
        neighbours: Position of the second pixel of each weight, ``(weights,)``.
        targets: Indices of the weights that change, for every eliminated pixel and each pair of its neighbours (first <
            second).
        edges: For each edge of the graph, the index of its weight, its kind (0 vertical, 1 horizontal, 2 down right, 3
            down left), and its row and column in the array of this kind, relative to the window, ``(edges, 4)``.
        ring_first: Index in the ring of the first pixel of each weight between ring pixels.
        ring_second: Index in the ring of the second pixel of each weight between ring pixels.
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
    """Return the pixels of a rectangle in the order of nested dissection."""
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


def _symbolic_elimination() -> Pattern:
    """Compute the sparsity pattern of a window by symbolic elimination of the pixels of its cell."""
    pixels = _order(1, CELL + 1, 1, CELL + 1)
    pixels += [
        (row, column)
        for row in range(WINDOW)
        for column in range(WINDOW)
        if row in (0, WINDOW - 1) or column in (0, WINDOW - 1)
    ]
    position = {pixel: number for number, pixel in enumerate(pixels)}
    inner, total = CELL * CELL, WINDOW * WINDOW

    # Edges with their row and column in the arrays of cm_lightning.confidence.weights.EdgeWeights.
    edges = []
    for row, column in pixels:
        for kind, (down, right) in enumerate(EDGE_STEPS):
            other = (row + down, column + right)
            if other in position and min(position[row, column], position[other]) < inner:
                first, second = sorted((position[row, column], position[other]))
                edges.append(((first, second), kind, row, min(column, other[1])))

    later_neighbours: list[set[int]] = [set() for _ in range(total)]
    for (first, second), *_ in edges:
        later_neighbours[first].add(second)
    for pixel in range(inner):
        for neighbour in later_neighbours[pixel]:
            later_neighbours[neighbour] |= {other for other in later_neighbours[pixel] if other > neighbour}

    weight_index: dict[tuple[int, int], int] = {}
    row_start = [0]
    for pixel in range(total):
        for neighbour in sorted(later_neighbours[pixel]):
            weight_index[pixel, neighbour] = len(weight_index)
        row_start.append(len(weight_index))
    targets = [
        weight_index[first, second]
        for pixel in range(inner)
        for first in sorted(later_neighbours[pixel])
        for second in sorted(later_neighbours[pixel])
        if first < second
    ]
    ring_pairs = [pair for pair in weight_index if pair[0] >= inner]
    return Pattern(
        rows=np.array([row for row, _ in pixels]),
        columns=np.array([column for _, column in pixels]),
        row_start=np.array(row_start[: inner + 1]),
        neighbours=np.array([second for _, second in weight_index]),
        targets=np.array(targets),
        edges=np.array([(weight_index[pair], kind, row, column) for pair, kind, row, column in edges]),
        ring_first=np.array([first - inner for first, _ in ring_pairs]),
        ring_second=np.array([second - inner for _, second in ring_pairs]),
    )


PATTERN = _symbolic_elimination()
INNER = CELL * CELL
RING = WINDOW * WINDOW - INNER
# Number of weights of a window, and number of weights of the eliminated pixels, which form the factor of the cell.
WEIGHTS = len(PATTERN.neighbours)
FACTOR = int(PATTERN.row_start[-1])
# Maximum number of neighbours of an eliminated pixel that are eliminated later.
MOST_NEIGHBOURS = int(np.diff(PATTERN.row_start).max())

# Numba supports global arrays, but not the fields of a global named tuple.
_ROWS, _COLUMNS = PATTERN.rows, PATTERN.columns


@njit(cache=True, nogil=True)
def ring_pixels(row: int, column: int, depth: int, lateral: int, pixels: NDArray[np.int64]) -> None:
    """List the pixels of the ring around a cell.

    Args:
        row: First row of the cell.
        column: First column of the cell.
        depth: Number of rows of the grid.
        lateral: Number of columns of the grid.
        pixels: Output, row-major indices of the pixels, -1 outside the grid, ``(RING,)``.
    """
    for index in range(RING):
        r = row - 1 + _ROWS[INNER + index]
        c = column - 1 + _COLUMNS[INNER + index]
        inside = r >= 0 and c >= 0 and r < depth and c < lateral
        pixels[index] = r * lateral + c if inside else -1
